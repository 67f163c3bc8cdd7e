"""Chunks that the copy engine loads (`tma`): in the emulator, and as PTX."""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects import arith, gpu
from xdsl.dialects.builtin import IntegerAttr, StringAttr

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering import cuda, engine, ptxas
from moa_dialect.lowering.copy_engine import TensorMap
from moa_dialect.lowering.group_kernel import registers_of
from moa_dialect.lowering.group_ring import Ring
from moa_dialect.lowering.nvvm import nvvm_dialect
from moa_dialect.lowering.nvvm import ptx as ptx_of
from moa_dialect.lowering.pipelines import cuda_target
from moa_dialect.options import Options
from moa_dialect.passes.grid import let_folds_be_passes, parse_grid, read_grid
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, read_kernel
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.products import shared_bytes as counted_bytes
from moa_dialect.passes.rebuild import comprehensions

BF16 = np.dtype(ml_dtypes.bfloat16)

TOLERANCES = {"float64": 1e-14, "float32": 1e-3, "float16": 2e-3, "bfloat16": 6e-3}
"""Norm-wise relative errors; f32 is rounded to tf32 here."""


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change what kernels are made of: none is kept."""
    monkeypatch.setenv("MOA_CACHE", "0")
    monkeypatch.setattr(engine, "_PLANNED", {})


def random(seed: int, *shape: int, dtype: Any = BF16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def weights(q: np.ndarray, k: np.ndarray, mask: Any = True) -> np.ndarray:
    q, k = q.astype(np.float64), k.astype(np.float64)
    s = q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5
    s = np.where(mask, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = True
) -> np.ndarray:
    k, v = (np.repeat(x, q.shape[0] // x.shape[0], axis=0) for x in (k, v))
    return weights(q, k, mask) @ v.astype(np.float64)


def compiled_for(
    program: Callable[..., Any], arrays: list[Any], schedule: str, **options: Any
) -> Any:
    jit = moa.jit(program, target="cuda", emulate=True, schedule=schedule)
    return jit.lower(*arrays, **options)


def check(
    program: Callable[..., Any],
    arrays: list[np.ndarray],
    wanted: np.ndarray,
    schedule: str,
    maps: int = 2,
    **options: Any,
) -> None:
    """Run a program in the emulator, with so many tiles that are loaded as boxes."""
    compiled = compiled_for(program, arrays, schedule, **options)
    (launch,) = compiled.kernel.launches
    assert len(launch.maps) == maps
    found = compiled(*arrays)
    error = np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted)
    assert error < TOLERANCES[found.dtype.name]


def product(a: moa.Array, b: moa.Array) -> moa.Array:
    return moa.inner("add", "mul", a, b)


A, B = random(0, 70, 72), random(1, 72, 24)
PRODUCT = "j=grid,block:24;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"


@pytest.mark.parametrize(
    ("dtype", "tail"),
    [
        (BF16, "p=chunk:32,stages:2,wgmma,tma"),
        (np.float16, "p=chunk:16,stages:3,mma,tma"),
        (np.float64, "p=chunk:16,stages:1,mma,tma"),
        (np.float32, "p=chunk:32,stages:8,mma,tma,tf32"),
    ],
)
def test_products(dtype: Any, tail: str) -> None:
    """Rows, columns and terms that do not divide; a ring of one stage, and of many."""
    a, b = A.astype(dtype), B.astype(dtype)
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    check(product, [a, b], wanted, f"j=grid,block:24;i=grid,warps:4,regs:2;{tail}")


def masks(n: int, m: int, window: int = 0) -> np.ndarray:
    i, j = np.indices((n, m))
    return (j <= i) & (i - j < (window or n))


@pytest.mark.parametrize(
    ("shapes", "schedule", "options", "mask"),
    [
        # Two groups of warps; heads, and what is beyond their rows, which others have.
        (
            ((2, 70, 40), (2, 77, 40), (2, 77, 24)),
            "j=grid,warps:8,regs:2;p=chunk:32,stages:2,wgmma,tma",
            {},
            None,
        ),
        # Tiles of two panels, and products that run while others are waited for.
        (
            ((1, 40, 128), (1, 77, 128), (1, 77, 72)),
            "j=grid,warps:4,regs:2;p=chunk:32,block:16,stages:2,wgmma,tma",
            {},
            None,
        ),
        (
            ((1, 100, 32),) * 3,
            "j=grid,warps:4,regs:2;p=chunk:32,stages:3,wgmma,tma",
            {"is_causal": True},
            masks(100, 100),
        ),
        (
            ((1, 70, 32),) * 3,
            "j=grid,warps:2,regs:2;p=chunk:16,stages:2,mma,tma",
            {"is_causal": True, "window": 30},
            masks(70, 70, 30),
        ),
        # Scores of the next chunk in the background, with masks and without.
        (
            ((1, 100, 32), (1, 100, 32), (1, 100, 40)),
            "j=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma,ahead",
            {"is_causal": True},
            masks(100, 100),
        ),
        # Heads that share keys as rows.
        (
            ((4, 10, 64), (2, 50, 64), (2, 50, 64)),
            "ij_g=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma",
            {},
            None,
        ),
        # A block of a long row of values.
        (
            ((1, 20, 32), (1, 40, 32), (1, 40, 264)),
            "k=grid,block:128;j=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma",
            {},
            None,
        ),
    ],
)
def test_attention(
    shapes: Any, schedule: str, options: dict[str, Any], mask: Any
) -> None:
    arrays = [random(n, *shape) for n, shape in enumerate(shapes)]
    wanted = attention(*arrays, mask=True if mask is None else mask)
    # Queries are loaded as boxes, too, if rows are those of an array.
    maps = 3 if ",wgmma" in schedule and "ij_g" not in schedule else 2
    check(library.attention, arrays, wanted, schedule, maps, **options)


def test_factors_that_are_loaded_by_all_threads_beside() -> None:
    """Queries and keys that are too wide are loaded piece by piece, values as boxes."""
    q, k = random(0, 1, 20, 264), random(1, 1, 40, 264)
    v = random(2, 1, 40, 24)
    schedule = "j=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"
    check(library.attention, [q, k, v], attention(q, k, v), schedule, maps=1)


def test_an_output_that_is_computed_chunk_by_chunk() -> None:
    """The ring of the pass, and that of the output after it."""

    def normalized(a: moa.Array, b: moa.Array) -> moa.Array:
        return library.softmax(product(moa.cast(a, "f32"), moa.cast(b, "f32")))

    a, b = random(0, 20, 32), random(1, 32, 40)
    s = a.astype(float) @ b.astype(float)
    p = np.exp(s - s.max(-1, keepdims=True))
    schedule = "i=grid,warps:2,regs:2;p=chunk:32,stages:2,mma,tma"
    check(normalized, [a, b], p / p.sum(-1, keepdims=True), schedule)


@pytest.mark.parametrize("tail", ["", ",ahead"])
def test_extents_of_a_call(tail: str) -> None:
    """What is beyond them is zero, also where a call has no keys."""
    specs = [
        moa.ArraySpec((1, rows, width), "bfloat16")
        for rows, width in (("n", 64), ("m", 64), ("m", 32))
    ]
    schedule = f"j=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma{tail}"
    jit = moa.jit(
        library.attention, "cuda", specs=specs, emulate=True, schedule=schedule
    )
    for n, m in ((40, 77), (70, 64), (5, 1)):
        arrays = random(0, 1, n, 64), random(1, 1, m, 64), random(2, 1, m, 32)
        wanted = attention(*arrays)
        error = np.linalg.norm(jit(*arrays).astype(float) - wanted)
        assert error < 6e-3 * np.linalg.norm(wanted)
    assert not jit(random(0, 1, 5, 64), random(1, 1, 0, 64), random(2, 1, 0, 32)).any()
    assert jit(random(0, 1, 0, 64), A[:1, None, :64], A[:1, None, :32]).size == 0


def test_the_terms_of_a_sum_end_where_it_does() -> None:
    """Not where the arrays do: what they have beyond is not added, NaN neither."""

    def program(a: moa.Array, b: moa.Array) -> moa.Array:
        def cut(row: moa.Array) -> moa.Array:
            return moa.take(40, row)

        return product(moa.omega(cut, 1, a), moa.take(40, b))

    a, b = A.copy(), B.copy()
    a[:, 40:] = np.nan
    wanted = a[:, :40].astype(float) @ b[:40].astype(float)
    check(program, [a, b], wanted, PRODUCT)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_does_not_matter(
    emulate: Callable[..., None], order: str
) -> None:
    emulate(order)
    check(product, [A, B], A.astype(float) @ B.astype(float), PRODUCT)


def test_tensor_maps_are_kept_with_the_code() -> None:
    compilation = compiled_for(product, [A, B], PRODUCT).kernel.compilation
    assert cuda.DeviceCompilation.from_bytes(compilation.to_bytes()) == compilation
    (launch,) = compilation.launches
    assert [each.box for each in launch.maps] == [(64, 64), (32, 64)]


# What is wrong shows.


def nothing(ring: Ring, number: int) -> None:
    """Not what should be done."""


def is_wrong() -> None:
    """Check that the product is wrong, or its kernel an error."""
    try:
        found = compiled_for(product, [A, B], PRODUCT)(A, B).astype(float)
    except KernelError as error:
        text = str(error)
        assert "more arrivals" in text or "deadlock" in text or "mbarrier" in text
        return
    wanted = A.astype(float) @ B.astype(float)
    assert not np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_tiles_that_nobody_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "release", nothing)
    with pytest.raises(KernelError, match=r"deadlock: .* at mbarrier\.try_wait"):
        compiled_for(product, [A, B], PRODUCT)(A, B)


def without(name: str) -> Callable[[str], str]:
    """A change that removes the operations of a name."""

    def change(text: str) -> str:
        lines = [line for line in text.splitlines() if f'"{name}"' not in line]
        assert len(lines) < len(text.splitlines())
        return "\n".join(lines)

    return change


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvvm.mbarrier.init", "mbarrier"),
        ("nvvm.fence.mbarrier.init", "mbarriers that the copy engine does not see"),
        ("nvvm.mbarrier.arrive.expect_tx", "deadlock"),
        ("nvvm.cp.async.bulk.tensor.shared.cluster.global", "deadlock"),
    ],
)
def test_an_operation_that_is_left_out(
    emulate: Callable[..., None], name: str, message: str
) -> None:
    emulate("forward", without(name))
    with pytest.raises(KernelError, match=message):
        compiled_for(product, [A, B], PRODUCT)(A, B)


def test_more_registers_than_there_are(
    monkeypatch: pytest.MonkeyPatch, emulate: Callable[..., None]
) -> None:
    """Those that compute would wait forever for theirs."""
    schedule = PRODUCT.replace("warps:4", "warps:8")

    def greedy(text: str) -> str:
        assert "regCount = 240 : i32" in text
        return text.replace("regCount = 240 : i32", "regCount = 248 : i32")

    check(product, [A, B], A.astype(float) @ B.astype(float), schedule)
    monkeypatch.setattr(engine, "_PLANNED", {})
    emulate("forward", greedy)
    message = "ask for 66560 registers, and there are 64512, 168 for each thread"
    with pytest.raises(KernelError, match=message):
        compiled_for(product, [A, B], schedule)(A, B)


def test_a_chunk_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "await_chunk", nothing)
    is_wrong()


OF_WARPS = "j=grid,warps:2,regs:2;p=chunk:16,stages:2,mma,tma"
OF_GROUPS = "j=grid,warps:8,regs:2;p=chunk:32,stages:2,wgmma,tma,behind"


@pytest.mark.parametrize(("schedule", "maps"), [(OF_WARPS, 2), (OF_GROUPS, 3)])
def test_there_are_no_races(
    schedule: str, maps: int, emulate: Callable[..., None]
) -> None:
    emulate("random", checks=True)
    arrays = [random(n, 1, 70, 32) for n in range(3)]
    check(library.attention, arrays, attention(*arrays), schedule, maps)


def test_a_tile_let_go_while_products_read_it_is_a_race(
    monkeypatch: pytest.MonkeyPatch, emulate: Callable[..., None]
) -> None:
    """The copy engine writes, in every order, what is not known to be read."""
    emulate("forward", checks=True)
    let_go_early(monkeypatch)
    arrays = [random(n, 1, 140, 32) for n in range(3)]
    message = r"by the copy engine, after reads of products of warp group \d"
    schedule = OF_GROUPS.removesuffix(",behind")
    with pytest.raises(KernelError, match=f"a race: .*{message}"):
        compiled_for(library.attention, arrays, schedule)(*arrays)


def test_a_tile_that_is_loaded_once_and_not_waited_for_is_a_race(
    emulate: Callable[..., None],
) -> None:
    """Though it has landed, in the order of copies, when others are waited for."""
    wait = "try_wait.parity.shared::cta.b64 P, [$0], $1;"

    def change(text: str) -> str:
        at = text.index(wait)
        start = text.rindex('"llvm.inline_asm"(', 0, at)
        return text[:start] + text[text.index("\n", at) + 1 :]

    emulate("forward", change, checks=True)
    arrays = [random(n, 1, 70, 32) for n in range(3)]
    schedule = OF_GROUPS.removesuffix(",behind")
    message = "a race: .* by products of warp group 0, after the copy engine"
    with pytest.raises(KernelError, match=message):
        compiled_for(library.attention, arrays, schedule)(*arrays)


def without_the_first(operation: str) -> Callable[[str], str]:
    """A change that removes the first operation of a name."""

    def change(text: str) -> str:
        lines = text.split("\n")
        del lines[next(n for n, line in enumerate(lines) if f'"{operation}"(' in line)]
        return "\n".join(lines)

    return change


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize(
    ("operation", "report"),
    [
        # After barriers in memory are made, and after queries are loaded by all.
        ("gpu.barrier", r"after (thread 0|reads of warp \d)"),
        ("nvvm.barrier", r"after (thread \d+|reads of warp \d)"),
    ],
)
def test_a_missing_barrier_is_a_race_in_every_order(
    operation: str, report: str, order: str, emulate: Callable[..., None]
) -> None:
    emulate(order, without_the_first(operation), checks=True)
    arrays = [random(n, 1, 70, 32) for n in range(3)]
    with pytest.raises(KernelError, match=rf"a race: .* {report}|not initialised"):
        compiled_for(library.attention, arrays, OF_WARPS)(*arrays)


def test_the_wrong_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Ring.turn

    def turned(self: Ring, count: Any) -> None:
        turn(self, self.code.add(count, self.stages))

    monkeypatch.setattr(Ring, "turn", turned)
    with pytest.raises(KernelError, match="ended with 4 copies under way"):
        compiled_for(product, [A, B], PRODUCT)(A, B)


def let_go_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are let go when they are there, not when they were read."""
    await_chunk = Ring.await_chunk

    def awaited(self: Ring, number: int) -> None:
        await_chunk(self, number)
        release(self, number)

    release = Ring.release
    monkeypatch.setattr(Ring, "await_chunk", awaited)
    monkeypatch.setattr(Ring, "release", nothing)


def test_a_tile_let_go_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go_early(monkeypatch)
    is_wrong()


@pytest.mark.parametrize(
    "change",
    [
        {"swizzle": 64, "box": (32, 32)},
        {"box": (64, 16)},
        {"extents": (24, 40)},
        {"strides": (64,)},
    ],
)
def test_a_wrong_tensor_map(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """Of the second factor: its box, what it is permuted by, where it ends."""

    def encoded(box: Any, words: Any) -> np.ndarray:
        address, extents, strides = box.read(words)
        fields: dict[str, Any] = {
            "extents": tuple(reversed(extents)),
            "strides": tuple(reversed(strides)),
            "box": tuple(reversed(box.box)),
            "swizzle": 128,
        }
        if extents[1] == B.shape[1]:
            fields |= change
        return TensorMap(address, 2, **fields).encoded()

    monkeypatch.setattr(cuda, "encoded", encoded)
    is_wrong()


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("i=grid,warps:4,regs:2;p=chunk:32,tma", "tma: expected rows, and mma or"),
        ("p=chunk:512,threads:64,tma", "tma: expected rows, and mma or wgmma as well"),
        ("i=grid,warps:4;p=chunk:16,stages:9,wgmma,tma", "stages of at most 8, got 9"),
        ("i=grid,warps:32;p=chunk:16,wgmma,tma", "warps of at most 28, got 32"),
        ("i=grid,warps:4;p=chunk:16,mma,tma,ahead", "ahead: expected wgmma and tma"),
        ("i=grid,warps:4;p=chunk:32,block:16,wgmma,tma,ahead", "no block of folded"),
        ("i=grid,warps:4;p=chunk:16,wgmma,behind", "behind: expected wgmma and tma as"),
        (
            "i=grid,warps:4;p=chunk:32,block:16,stages:2,wgmma,tma,behind",
            "behind: expected wgmma and tma as well, and no block of folded indices",
        ),
        ("i=grid,warps:4;p=chunk:16,wgmma,tma,behind", "stages of at least 2, got 1"),
        ("i=grid,warps:4;p=chunk:16,wgmma,tma,turns", "turns: expected wgmma and tma"),
        ("i=grid,warps:8;p=chunk:16,mma,tma,turns", "as well, and at least 8 warps"),
    ],
)
def test_schedules_that_are_none(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        parse_grid(text, ["i", "j"])


def scaled(a: moa.Array, b: moa.Array) -> moa.Array:
    return product(a, b * b)


def softmax(a: moa.Array) -> moa.Array:
    return library.softmax(a)


def falling(a: moa.Array, b: moa.Array) -> moa.Array:
    i = moa.iota(64)
    return product(moa.where(moa.outer("add", i, i) <= 63, a, 0.0), b)


def turned(a: moa.Array, b: moa.Array) -> moa.Array:
    return product(a, moa.rotate(3, b))


@pytest.mark.parametrize(
    ("program", "shapes", "dtype", "tail", "message"),
    [
        (product, [(64, 64), (64, 24)], "float32", "", "matrix instructions, got one"),
        (
            product,
            [(64, 60), (60, 24)],
            "bfloat16",
            "",
            "8 elements (16 bytes), got 60",
        ),
        (
            product,
            [(64, 64), (64, 20)],
            "bfloat16",
            "",
            "8 elements (16 bytes), got 20",
        ),
        (scaled, [(64, 64), (64, 24)], "bfloat16", "", "got one that is computed"),
        (turned, [(64, 64), (64, 24)], "bfloat16", "", "got one whose indices are"),
        (falling, [(64, 64), (64, 24)], "bfloat16", "", "there is no code for a bound"),
        (softmax, [(64, 64)], "bfloat16", "rows", "are loaded chunk by chunk"),
        (
            product,
            [(640, 64), (64, 24)],
            "bfloat16",
            "20",
            "boxes of at most 256 rows, got 320",
        ),
        (
            product,
            [(64, 640), (640, 24)],
            "bfloat16",
            "long",
            "expected at most 232448 bytes of shared memory",
        ),
    ],
)
def test_what_the_copy_engine_does_not_load(
    program: Callable[..., Any],
    shapes: list[tuple[int, ...]],
    dtype: str,
    tail: str,
    message: str,
) -> None:
    schedule = {
        "": "j=grid,block:24;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma",
        "rows": "i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma",
        "20": "j=grid,block:24;i=grid,warps:20,regs:2;p=chunk:32,stages:2,wgmma,tma",
        "long": "j=grid,block:24;i=grid,warps:8,regs:2;p=chunk:256,stages:8,wgmma,tma",
    }[tail]
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    with pytest.raises(CompileError, match=re.escape(message)):
        moa.jit(program, target="cuda", schedule=schedule).lower(*specs).text("target")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chip": "sm_80"}, "schedule: wgmma: expected at most the tier mma"),
        ({"tier": "mma"}, "schedule: wgmma: expected at most the tier mma"),
        (
            {"chip": "sm_89", "mma": True},
            "schedule: tma: expected a chip from sm_90 on",
        ),
    ],
)
def test_chips_without_it(options: dict[str, Any], message: str) -> None:
    schedule = PRODUCT
    if options.pop("mma", False):
        schedule = schedule.replace("wgmma", "mma")
    specs = [moa.ArraySpec(x.shape, "bfloat16") for x in (A, B)]
    jit = moa.jit(product, target="cuda", schedule=schedule, **options)
    with pytest.raises(CompileError, match=re.escape(message)):
        jit.lower(*specs).text("target")


# Memory, and code.


@pytest.mark.parametrize(
    "rest",
    [
        "stages:3,wgmma,tma",
        "stages:2,cluster:2,wgmma,tma",  # The states of the groups lie beside the tiles.
        "stages:2,cluster:2,mma",
    ],
)
def test_tiles_and_barriers_take_what_was_counted(rest: str) -> None:
    spec = moa.ArraySpec((1, 100, 96), "bfloat16")
    schedule = f"j=grid,warps:4,regs:2;p=chunk:32,{rest}"
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    compiled = jit.lower(spec, spec, spec)
    lifted = compiled.module("fused")
    for pass_ in cuda_target(Options(target="cuda", schedule=schedule)):
        if isinstance(pass_, LiftPass):
            LiftPass(schedule, target="nvptx").apply(Context(), lifted)
            break
        pass_.apply(Context(), lifted)
    (function,) = functions_of(lifted)
    (op,) = comprehensions(function)
    text = op.attributes[SCHEDULE]
    assert isinstance(text, StringAttr)
    kernel = read_kernel(op, function)
    grid = read_grid(text.data, kernel)
    let_folds_be_passes(kernel, grid)
    (launch,) = [
        op
        for op in compiled.module("target").walk()
        if isinstance(op, gpu.LaunchFuncOp)
    ]
    assert launch.dynamicSharedMemorySize is not None
    size = launch.dynamicSharedMemorySize.owner
    assert isinstance(size, arith.ConstantOp)
    assert isinstance(size.value, IntegerAttr)
    assert size.value.value.data == counted_bytes(kernel, grid)


@pytest.mark.parametrize(
    ("text", "registers"),
    [
        ("i=grid,warps:8,regs:2;p=chunk:64,wgmma,tma", (24, 240)),
        ("i=grid,groups:2,warps:4,regs:2;p=chunk:64,wgmma,tma", (40, 216)),
        ("i=grid,warps:12,regs:2;p=chunk:64,wgmma,tma", (32, 160)),
        ("i=grid,warps:4,regs:2;p=chunk:64,wgmma,tma", None),
    ],
)
def test_registers_are_handed_over(text: str, registers: Any) -> None:
    """All together are not more than a multiprocessor has."""
    grid = parse_grid(text, ["i"])
    assert registers_of(grid) == registers
    if registers is not None:
        few, many = registers
        assert 128 * few + 32 * grid.warps * many <= (1 << 16) // max(grid.groups, 1)


def ptx(schedule: str, depth: int, is_causal: bool) -> str:
    spec = moa.ArraySpec((2, 1024, depth), "bfloat16")
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    return jit.lower(spec, spec, spec, is_causal=is_causal).text("asm")


def test_scores_of_the_next_chunk_are_begun_before_the_exponentials() -> None:
    """In the loop: the product with keys, exponentials, that with values."""
    text = ptx("j=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma,ahead", 64, False)
    words = {"commit": "C", "wait_group": "W", "ex2.approx": "e", "bra": "b"}
    found = re.findall(r"wgmma\.(commit|wait_group)|(ex2\.approx)|\t(bra)\b", text)
    order = "".join(words["".join(each)] for each in found)
    # The first scores; then, again and again, the next ones, and P V.
    assert re.search(r"CW[^eCW]*Ce+C+W+", order), order


def test_the_instructions() -> None:
    text = ptx("j=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma", 64, False)
    for pattern in (
        r"\.param \.align 64 \.b8 attention_kernel_param_\d+\[128\]",
        r"\.reqntid 384, 1, 1\s+\.minnctapersm 1",
        r"mbarrier\.init\.shared\.b64",
        r"fence\.mbarrier_init\.release\.cluster",
        r"setmaxnreg\.inc\.sync\.aligned\.u32\s+240",
        r"setmaxnreg\.dec\.sync\.aligned\.u32\s+24",
        r"prefetch\.(param\.)?tensormap",
        r"mbarrier\.arrive\.expect_tx\.shared\.b64",
        r"cp\.async\.bulk\.tensor\.3d\.shared::cluster\.global\.tile\.mbarrier",
        r"mbarrier\.try_wait\.parity\.shared::cta\.b64 P, \[%r\d+\], %r\d+",
        r"wgmma\.mma_async\.sync\.aligned\.m64n64k16\.f32\.bf16\.bf16",
        r"mbarrier\.arrive\.shared\.b64",
    ):
        assert re.search(pattern, text), pattern


@pytest.mark.parametrize(
    ("chip", "features", "version"),
    [("sm_90", "", "8.0"), ("sm_90", "+ptx83", "8.3"), ("sm_120", "", "8.7")],
)
def test_a_version_of_ptx_that_has_it(chip: str, features: str, version: str) -> None:
    schedule = PRODUCT.replace("wgmma", "mma")
    specs = [moa.ArraySpec(x.shape, "bfloat16") for x in (A, B)]
    jit = moa.jit(product, target="cuda", chip=chip, schedule=schedule)
    module = jit.lower(*specs).module("target")
    text = ptx_of(nvvm_dialect(module, chip, features))
    assert f".version {version}" in text
    assert "cp.async.bulk.tensor.2d" in text
    with pytest.raises(CompileError, match=r"expected \+ptx80 or later .* got \+ptx78"):
        nvvm_dialect(module, chip, "+ptx78")


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on this machine")
@pytest.mark.parametrize(
    ("schedule", "depth", "is_causal", "registers"),
    [
        ("j=grid,warps:8,regs:2;p=chunk:128,stages:2,wgmma,tma", 128, False, 168),
        (
            "j=grid,groups:2,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma",
            64,
            True,
            128,
        ),
        (
            "j=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma,ahead",
            128,
            True,
            168,
        ),
    ],
)
def test_the_assembler_hands_registers_over(
    schedule: str, depth: int, is_causal: bool, registers: int
) -> None:
    """As many as are counted on, none of which are spilled; nothing is serialized.

    With fewer at the start those that compute would wait forever for theirs.
    """
    log = ptxas.assemble(ptx(schedule, depth, is_causal), "sm_90a").log
    assert f"Used {registers} registers" in log
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    assert "serializ" not in log
    assert "setmaxnreg" not in log
