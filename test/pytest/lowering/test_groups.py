"""Kernels for groups of threads: every tier in the emulator, against NumPy."""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects import arith, gpu
from xdsl.dialects.builtin import IntegerAttr, StringAttr
from xdsl.parser import Parser

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError, KernelError, OptionError
from moa_dialect.lowering import emulator, engine
from moa_dialect.lowering.chips import shared_bytes
from moa_dialect.lowering.pipelines import cuda_target
from moa_dialect.options import Options
from moa_dialect.passes.grid import (
    Grid,
    let_folds_be_passes,
    parse_grid,
    read_grid,
)
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, read_kernel
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.products import shared_bytes as taken_bytes
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.universe import register_dialects

BF16 = np.dtype(ml_dtypes.bfloat16)

TOLERANCES = {"float64": 1e-14, "float32": 1e-6, "float16": 2e-3, "bfloat16": 6e-3}
"""Norm-wise relative errors."""


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE", "0")


def random(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    q, k = q.astype(np.float64), k.astype(np.float64)
    k = np.repeat(k, q.shape[0] // k.shape[0], axis=0)
    return q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5


def weighted(s: np.ndarray, v: np.ndarray) -> np.ndarray:
    v = np.repeat(v.astype(np.float64), s.shape[0] // v.shape[0], axis=0)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def hidden(s: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, s, -np.inf)


def check(
    program: Callable[..., Any],
    arrays: list[np.ndarray],
    wanted: np.ndarray,
    schedule: str = "auto",
    launches: str | None = None,
    tier: str = "",
    **options: Any,
) -> str:
    """Run a program in the emulator; gives its text at the stage `target`."""
    jit = moa.jit(program, target="cuda", emulate=True, tier=tier, schedule=schedule)
    compiled = jit.lower(*arrays, **options)
    found = compiled(*arrays)
    assert found.dtype == arrays[0].dtype
    error = np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted)
    assert error < TOLERANCES[found.dtype.name]
    text = compiled.text("target")
    # A kernel for groups, not the loops of one thread for each element.
    assert "gpu.dynamic_shared_memory" in text or launches == "threads"
    return text


TIERS = [
    ("portable", np.float32),
    ("portable", BF16),
    ("portable", np.float16),
    ("portable", np.float64),
    ("mma", BF16),
    ("mma", np.float16),
    ("mma", np.float64),
    ("wgmma", BF16),
    ("wgmma", np.float16),
]


@pytest.mark.parametrize(("tier", "dtype"), TIERS)
def test_lengths_that_do_not_divide(tier: str, dtype: Any):
    q, k = random(0, 2, 70, 40, dtype=dtype), random(1, 2, 77, 40, dtype=dtype)
    v = random(2, 2, 77, 24, dtype=dtype)
    wanted = weighted(scores(q, k), v)
    text = check(library.attention, [q, k, v], wanted, tier=tier)
    instructions = {
        "wgmma": "wgmma.mma_async.sync.aligned.m64n",
        "mma": "mma.sync",
        "portable": "math.fma",
    }
    for name, instruction in instructions.items():
        assert (instruction in text) == (name == tier)


@pytest.mark.parametrize(
    ("tier", "dtype"),
    [
        ("portable", np.float32),
        ("mma", np.float64),
        ("mma", BF16),
        ("mma", np.float16),
        ("wgmma", BF16),
        ("wgmma", np.float16),
    ],
)
def test_bounds_that_differ_between_rows(tier: str, dtype: Any):
    arrays = [random(n, 1, 100, 32, dtype=dtype) for n in range(3)]
    q, k, v = arrays
    s = hidden(scores(q, k), np.tri(100, dtype=bool))
    check(library.attention, arrays, weighted(s, v), tier=tier, is_causal=True)


def in_a_window(s: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return hidden(s, (j <= i) & (i - j < 30))


def capped(s: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return 2.0 * np.tanh(s / 2.0)


def sloping(s: Any, i: Any, j: Any) -> Any:
    return s - 0.1 * (i - j)


def sloping_score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return sloping(s, i, j)


@pytest.mark.parametrize(
    ("tier", "options", "change"),
    [
        ("portable", {"window": 30, "is_causal": True}, in_a_window),
        ("wgmma", {"window": 30, "is_causal": True}, in_a_window),
        ("mma", {"softcap": 2.0}, capped),
        ("wgmma", {"score_mod": sloping_score}, sloping),
    ],
)
def test_changed_scores(tier: str, options: dict[str, Any], change: Callable[..., Any]):
    arrays = [random(n, 1, 70, 32, dtype=BF16) for n in range(3)]
    q, k, v = arrays
    i, j = np.indices((70, 70))
    wanted = weighted(change(scores(q, k), i, j), v)
    check(library.attention, arrays, wanted, tier=tier, **options)


@pytest.mark.parametrize("tier", ["portable", "wgmma"])
def test_grouped_heads(tier: str):
    q, k = random(0, 4, 40, 64, dtype=BF16), random(1, 2, 50, 64, dtype=BF16)
    v = random(2, 2, 50, 64, dtype=BF16)
    wanted = weighted(scores(q, k), v)
    check(library.attention, [q, k, v], wanted, tier=tier)


@pytest.mark.parametrize(
    ("schedule", "depth"),
    [
        ("j=grid,warps:4,regs:2;p=chunk:64,stages:1,wgmma", 128),
        ("j=grid,warps:8,regs:2;p=chunk:64,block:32,stages:2,wgmma", 64),
        ("j=grid,warps:4,regs:4;p=chunk:64,stages:2,mma", 128),
        ("j=grid,warps:2,regs:2;p=chunk:32,block:16,stages:2,mma", 64),
        ("j=grid,warps:2,regs:2;p=chunk:32,stages:1", 64),
    ],
)
def test_schedules(schedule: str, depth: int):
    arrays = [random(n, 1, 140, depth, dtype=BF16) for n in range(3)]
    wanted = weighted(scores(*arrays[:2]), arrays[2])
    text = check(library.attention, arrays, wanted, schedule)
    assert ("nvgpu.device_async_copy" in text) == ("mma" in schedule)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((64, 32, 64), np.float64),
        ((70, 50, 41), np.float32),
        ((70, 50, 41), np.float64),
        ((1, 90, 130), np.float32),
    ],
)
def test_product_of_matrices(dtype: Any, shape: tuple[int, int, int]):
    n, m, k = shape
    a, b = random(0, n, m, dtype=dtype), random(1, m, k, dtype=dtype)
    wanted = a.astype(np.float64) @ b.astype(np.float64)

    check(product, [a, b], wanted)


@pytest.mark.parametrize(
    ("tier", "dtype"),
    [("portable", BF16), ("mma", BF16), ("mma", np.float16), ("wgmma", np.float16)],
)
def test_a_product_of_half_precision(tier: str, dtype: Any) -> None:
    """A sum of half precision is made in f32, and rounded chunk by chunk."""
    a, b = random(0, 40, 70, dtype=dtype), random(1, 70, 24, dtype=dtype)
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    check(product, [a, b], wanted, tier=tier)


def triangular(a: Any, b: Any) -> Any:
    """Row i of the result is a sum over the first i + 1 terms."""
    i = moa.iota(a.shape[0])
    lower = moa.where(moa.outer("sub", i, i) >= 0, a, 0.0)
    return moa.inner("add", "mul", lower, b)


@pytest.mark.parametrize(
    ("tier", "dtype", "tf32"),
    [
        ("portable", np.float32, False),
        ("mma", np.float64, False),
        ("mma", BF16, False),
        ("mma", np.float32, True),
        ("wgmma", np.float16, False),
    ],
)
def test_rows_that_take_different_terms(tier: str, dtype: Any, tf32: bool) -> None:
    """What a row leaves out is not added, though others of its group have it."""
    a = random(0, 72, 72, dtype=BF16 if tf32 else dtype).astype(dtype)
    b = random(1, 72, 24, dtype=BF16 if tf32 else dtype).astype(dtype)
    wanted = np.tril(a.astype(np.float64)) @ b.astype(np.float64)
    jit = moa.jit(triangular, target="cuda", emulate=True, tier=tier, tf32=tf32)
    compiled = jit.lower(a, b)
    assert "gpu.dynamic_shared_memory" in compiled.text("target")
    error = np.linalg.norm(compiled(a, b) - wanted) / np.linalg.norm(wanted)
    assert error < TOLERANCES[np.dtype(dtype).name]


@pytest.mark.parametrize("columns", [100, 1024, 5000])
def test_rows_over_all_threads(columns: int):
    x = random(0, 3, columns)
    wide = x.astype(np.float64)
    exponentials = np.exp(wide - wide.max(-1, keepdims=True))
    softmax = exponentials / exponentials.sum(-1, keepdims=True)
    check(library.softmax, [x], softmax, launches="threads")
    total = np.log(np.exp(wide).sum(-1))
    check(library.logsumexp, [x], total, launches="threads")
    check(library.variance, [x], wide.var(-1), launches="threads")


@pytest.mark.parametrize("columns", [70, 1500])
def test_truth_values_over_all_threads(columns: int) -> None:
    x = random(0, 2, columns) > 2.0
    x[1] = False
    for function, wanted in (("or", x.any(-1)), ("xor", x.sum(-1) % 2 == 1)):

        def folded(row: Any, function: str = function) -> Any:
            return moa.reduce(function, row)

        def program(a: Any, cell: Callable[..., Any] = folded) -> Any:
            return moa.omega(cell, 1, a)

        found = moa.jit(program, target="cuda", emulate=True)(x)
        np.testing.assert_array_equal(found, wanted)


def test_rows_that_begin_anywhere() -> None:
    """Their elements are loaded one by one, in part of an array and in a bias."""
    x = random(0, 3, 513)
    wide = x[:, :512].astype(np.float64)

    def part(x: moa.Array) -> moa.Array:
        return library.logsumexp(moa.take([3, 512], x))

    check(part, [x], np.log(np.exp(wide).sum(-1)), launches="threads")

    def turned(x: moa.Array) -> moa.Array:
        return moa.transpose(library.softmax(moa.take([3, 512], x)))

    exponentials = np.exp(wide - wide.max(-1, keepdims=True))
    softmax = exponentials / exponentials.sum(-1, keepdims=True)
    check(turned, [x], softmax.T, launches="threads")
    q, k, v = random(1, 1, 9, 16), random(2, 1, 77, 16), random(3, 1, 77, 16)
    bias = random(4, 9, 77)
    wanted = weighted(scores(q, k) + bias, v)
    jit = moa.jit(library.attention, target="cuda", emulate=True)
    np.testing.assert_allclose(jit(q, k, v, bias=bias), wanted, atol=1e-5)


def test_rows_without_a_key_are_zero():
    """The first of the keys that a row sees may be none; its sum is of nothing."""
    arrays = [random(n, 1, 70, 16) for n in range(3)]
    bias = np.zeros((70, 70), np.float32)
    bias[5] = -np.inf
    jit = moa.jit(library.attention, target="cuda", emulate=True)
    found = jit(*arrays, bias=bias)
    assert not found[0, 5].any()
    assert np.isfinite(found).all()


def test_large_scores_do_not_overflow():
    for dtype in (BF16, np.float16):
        arrays = [(100 * random(n, 1, 64, 32)).astype(dtype) for n in range(3)]
        wanted = weighted(scores(*arrays[:2]), arrays[2])
        check(library.attention, arrays, wanted)


@pytest.mark.parametrize("tier", ["mma", "wgmma"])
def test_weights_in_f16_that_are_very_small(tier: str) -> None:
    """Of the largest weight, 1, one is off by 2^-25 at most, however small it is."""
    n, depth = 80, 16
    q = np.zeros((1, 64, depth), np.float16)
    q[..., 0] = 4 * np.sqrt(depth)
    k = np.zeros((1, n, depth), np.float16)
    k[0, :, 0] = -np.linspace(0, 5, n)  # Weights from 1 to 2e-9.
    k = k[:, np.random.default_rng(0).permutation(n)]
    v = random(2, 1, n, 16, dtype=np.float16)
    wanted = weighted(scores(q, k), v)
    jit = moa.jit(library.attention, target="cuda", emulate=True, tier=tier)
    found = jit(q, k, v)
    weights = np.exp(scores(q, k))
    most = np.abs(v.astype(float)).max()
    off = (2.0**-11 * weights.sum(-1) + n * 2.0**-25) / weights.sum(-1) * most
    rounding = 2.0**-11 * np.abs(wanted)
    assert (np.abs(found - wanted) <= off[..., None] + rounding + 1e-5).all()


def checked(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], order: str
) -> None:
    """Let the emulator look for races, in kernels whose text is changed."""

    class Checked(emulator.Emulator):
        def __init__(self, text: str) -> None:
            super().__init__(change(text), checks=True)

        def launch(self, *arguments: Any) -> None:  # pyright: ignore
            super().launch(*arguments, order=order)

    monkeypatch.setattr(emulator, "Emulator", Checked)
    engine._PLANNED.clear()


RACES = [
    ("j=grid,warps:2,regs:2;p=chunk:32,stages:2,mma", BF16),
    ("j=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma", BF16),
    ("j=grid,warps:2,regs:2;p=chunk:16,stages:2", np.float32),
    ("j=grid,warps:2,regs:2;p=chunk:16,stages:1", np.float32),
]


@pytest.mark.parametrize(("schedule", "dtype"), RACES)
def test_there_are_no_races(
    schedule: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(monkeypatch, lambda text: text, "random")
    arrays = [random(n, 1, 70, 32, dtype=dtype) for n in range(3)]
    s = hidden(scores(*arrays[:2]), np.tri(70, dtype=bool))
    wanted = weighted(s, arrays[2])
    check(library.attention, arrays, wanted, schedule, is_causal=True)


def test_a_missing_barrier_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_first(text: str) -> str:
        barrier = '"gpu.barrier"() : () -> ()'
        assert barrier in text
        return text.replace(barrier, "", 1)

    checked(monkeypatch, without_the_first, "reverse")
    arrays = [random(n, 1, 70, 32) for n in range(3)]
    schedule = "j=grid,warps:2,regs:2;p=chunk:16,stages:2"
    jit = moa.jit(library.attention, target="cuda", emulate=True, schedule=schedule)
    with pytest.raises(KernelError, match="race"):
        jit(*arrays)


def test_a_schedule_reads_as_it_prints():
    for text in (
        "i=grid,warps:4,regs:2;p=chunk:64,stages:2,mma",
        "i=grid,groups:2,warps:8,regs:2;p=chunk:128,block:64,stages:2,wgmma",
        "j=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2",
        "p=chunk:4096,threads:256",
        "i=grid,warps:4,regs:2;p=chunk:64,stages:2,mma,tf32,aligned",
        "i=grid,groups:2,span:8,warps:4,regs:2;p=chunk:64,stages:3,wgmma,tma,ahead",
        "i=grid,warps:4,regs:2;p=chunk:64,stages:2,split:32,mma",
        "i=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma,behind,turns",
        "i=grid,persistent:132,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma",
        "i=grid,warps:4,regs:4;p=chunk:32,stages:2,mma,square",
        "i=grid,warps:4,regs:4;p=chunk:32,stages:2,mma,tall:8",
        "i=grid,warps:4,regs:1,lanes:8;p=chunk:128,stages:1",
        "j=grid,block:1024;p=chunk:256,threads:128",
    ):
        assert str(parse_grid(text, ["i", "j"])) == text
    assert parse_grid("p=chunk:512,threads:64", []) == Grid(
        "", 2, chunk=512, stages=1, tier=""
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("i", "schedule: expected axis=resource:extent"),
        ("i=grid,tiles:4", "schedule: expected one of grid, groups, warps"),
        ("i=grid,warps:0", "schedule: warps of at least 1, got 0"),
        ("p=chunk:64", "schedule: no axis has warps or threads in 'p=chunk:64'"),
        ("p=chunk:64,threads:40", "schedule: threads of folded axes in whole warps"),
        ("p=chunk:100,threads:64", "expected a chunk of a multiple of 64 threads"),
        ("i=grid,warps:1;p=chunk:20", "a chunk of a multiple of 8, got 20"),
        ("i=grid,warps:1;p=chunk:24,mma", "a chunk of a multiple of 16, got 24"),
        ("i=grid,warps:1;p=chunk:16,square", "a chunk of a multiple of 32, got 16"),
        (
            "i=grid,warps:4;p=chunk:32,wgmma,square",
            "square: expected rows, and neither wgmma nor tma nor tf32",
        ),
        ("i=grid,warps:1;p=chunk:16,tall:8", "tall: expected mma as well"),
        ("i=grid,warps:1;p=chunk:16,mma,tall:5", "tall: expected 4, 8 or 16 terms"),
        (
            "i=grid,persistent:9,warps:4;p=chunk:16,wgmma",
            "persistent: expected tma, and neither ahead, behind nor turns",
        ),
        ("i=grid,warps:1;p=chunk:48,block:32", "whole blocks of 32, got 48"),
        ("i=grid,warps:1,regs:1;p=chunk:16,mma", "a regs of a multiple of 2, got 1"),
        ("j=grid,block:9;i=grid,warps:1;p=chunk:16", "multiple of 8, got 9"),
        ("i=grid,warps:1;p=chunk:16,stages:3", "stages of at most 2, got 3"),
        ("i=grid,warps:64;p=chunk:16", "warps of at most 32, got 64"),
        ("i=grid,warps:1;p=chunk:16,tf32", "tf32: expected mma or wgmma as well"),
        ("i=grid,warps:1;i=grid,warps:2", "expected each axis once, got i again"),
        ("p=chunk:64,threads:32,wgmma", "wgmma: expected an axis of rows"),
        (
            "i=grid,warps:6;p=chunk:16,wgmma",
            "wgmma: expected warps of a multiple of 4, and regs of 2, got 6 and 2",
        ),
        (
            "i=grid,warps:4,regs:4;p=chunk:16,wgmma",
            "wgmma: expected warps of a multiple of 4, and regs of 2, got 4 and 4",
        ),
        (
            "i=grid,groups:6,warps:8;p=chunk:16,wgmma,tma",
            "expected groups of at most 2048 threads together, got 6 of 384",
        ),
    ],
)
def test_schedules_that_are_none(text: str, message: str):
    with pytest.raises(CompileError, match=re.escape(message)):
        parse_grid(text, ["i", "j"])


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (
            "i=grid,block:64;j=grid,warps:8,regs:2;p=chunk:64,mma",
            "factors that depend on the columns of a group",
        ),
        (
            "p=chunk:64,threads:32",
            "a fold over a chunk that is no product of matrices",
        ),
    ],
)
def test_schedules_by_hand_that_there_is_no_code_for(schedule: str, reason: str):
    specs = [moa.ArraySpec((2, 70, 64), BF16)] * 3
    compiled = moa.jit(library.attention, target="cuda", schedule=schedule).lower(
        *specs
    )
    message = f"schedule: there is no code for {reason}"
    with pytest.raises(CompileError, match=message):
        compiled.module("target")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": "tma"}, "unknown tier: expected one of portable, mma, wgmma"),
        (
            {"tier": "wgmma", "chip": "sm_80"},
            "tier wgmma: expected at most mma for chip sm_80",
        ),
        (
            {"tier": "mma", "chip": "sm_75"},
            "tier mma: expected at most portable for chip sm_75",
        ),
    ],
)
def test_tiers_that_there_are_not(options: dict[str, Any], message: str):
    with pytest.raises(CompileError, match=re.escape(message)):
        moa.jit(library.softmax, target="cuda", **options)


@pytest.mark.parametrize(
    ("chip", "instruction"),
    [("sm_90a", "wgmma.mma_async"), ("sm_80", "mma.sync"), ("sm_75", "fma.rn")],
)
def test_the_tier_follows_from_the_chip(chip: str, instruction: str):
    spec = moa.ArraySpec((2, 128, 64), "bfloat16")
    compiled = moa.jit(library.attention, target="cuda", chip=chip).lower(*[spec] * 3)
    text = compiled.text("asm")
    assert instruction in text
    assert ("cp.async" in text) == (chip != "sm_75")


def product(a: moa.Array, b: moa.Array) -> moa.Array:
    return moa.inner("add", "mul", a, b)


@pytest.mark.parametrize(
    ("chip", "kib"),
    [
        ("sm_75", 64),
        ("sm_80", 163),
        ("sm_86", 99),
        ("sm_87", 163),
        ("sm_89", 99),
        ("sm_90", 227),
        ("sm_90a", 227),
        ("sm_100a", 227),
        ("sm_120", 99),
    ],
)
def test_a_chip_has_so_much_shared_memory(chip: str, kib: int) -> None:
    assert shared_bytes(chip) == kib << 10


FACTORS = [(200, 96), (96, 150)]
HEADS = [(2, 256, 128)] * 3
SIZES = [
    (library.attention, HEADS, "bfloat16"),
    (library.attention, HEADS, "float16"),
    (library.attention, HEADS, "float32"),
    (library.attention, HEADS, "float64"),
    (library.attention, [(2, 77, 40), (2, 78, 40), (2, 78, 24)], "bfloat16"),
    (library.attention, [(32, 1, 128), *[(8, 8192, 128)] * 2], "bfloat16"),
    (product, FACTORS, "float32"),
    (product, FACTORS, "float64"),
    (triangular, [(96, 96), (96, 40)], "float32"),
]


@pytest.mark.parametrize("chip", ["sm_90a", "sm_80", "sm_86", "sm_75"])
@pytest.mark.parametrize(("program", "shapes", "dtype"), SIZES)
def test_tiles_take_what_was_counted_and_fit_the_chip(
    program: Callable[..., Any], shapes: list[tuple[int, ...]], dtype: str, chip: str
) -> None:
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    compiled = moa.jit(program, target="cuda", chip=chip).lower(*specs)
    lifted = compiled.module("fused")
    options = Options(target="cuda", chip=chip)
    for pass_ in cuda_target(options):
        pass_.apply(Context(), lifted)
        if isinstance(pass_, LiftPass):
            break
    counted: list[int] = []
    for function in functions_of(lifted):
        for op in comprehensions(function):
            text = op.attributes.get(SCHEDULE)
            if isinstance(text, StringAttr):
                kernel = read_kernel(op, function)
                grid = read_grid(text.data, kernel)
                let_folds_be_passes(kernel, grid)
                counted.append(taken_bytes(kernel, grid))
    taken: list[int] = []
    for op in compiled.module("target").walk():
        if isinstance(op, gpu.LaunchFuncOp) and op.dynamicSharedMemorySize is not None:
            size = op.dynamicSharedMemorySize.owner
            assert isinstance(size, arith.ConstantOp)
            assert isinstance(size.value, IntegerAttr)
            taken += [size.value.value.data] if size.value.value.data else []
    assert taken == [size for size in counted if size]  # What merges has none.
    assert len(taken) == 1
    assert taken[0] <= shared_bytes(chip)


def test_smaller_tiles_for_a_smaller_chip() -> None:
    """The same program in 64 KiB; there it runs all the same."""
    arrays = [random(n, 1, 70, 128) for n in range(3)]
    jit = moa.jit(library.attention, target="cuda", chip="sm_75", emulate=True)
    wanted = weighted(scores(*arrays[:2]), arrays[2])
    np.testing.assert_allclose(jit(*arrays), wanted, atol=1e-5)
    largest = moa.jit(library.attention, target="cuda").lower(*arrays)
    assert jit.lower(*arrays).schedules != largest.schedules


@pytest.mark.parametrize(
    ("chip", "most", "schedule", "taken"),
    [
        ("sm_86", 101376, "j=grid,warps:4,regs:4;p=chunk:64,stages:2,mma", 104448),
        ("sm_75", 65536, "j=grid,warps:4,regs:4;p=chunk:32,stages:2", 79872),
        ("sm_90a", 232448, "j=grid,warps:8,regs:2;p=chunk:256,stages:2,wgmma", 294912),
    ],
)
def test_a_schedule_that_does_not_fit_a_chip(
    chip: str, most: int, schedule: str, taken: int
) -> None:
    specs = [moa.ArraySpec((2, 256, 128), "bfloat16")] * 3
    jit = moa.jit(library.attention, target="cuda", chip=chip, schedule=schedule)
    message = f"expected at most {most} bytes of shared memory, got {taken}"
    with pytest.raises(CompileError, match=message):
        jit.lower(*specs).text("target")


def normalized(x: np.ndarray) -> np.ndarray:
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def centred(x: np.ndarray) -> np.ndarray:
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / deviation


@pytest.mark.parametrize("columns", [3, 1500])
@pytest.mark.parametrize(
    ("program", "of"), [(library.softmax, normalized), (library.layernorm, centred)]
)
def test_rows_of_any_length(
    program: Callable[..., Any], of: Callable[..., Any], columns: int
) -> None:
    """One kernel for all lengths, of which a row is all threads' of a group."""
    specs = [moa.ArraySpec(("n", "m"), "float32")]
    jit = moa.jit(program, target="cuda", emulate=True, specs=specs)
    x = random(0, 3, columns)
    np.testing.assert_allclose(jit(x), of(x.astype(float)), rtol=1e-4, atol=2e-6)
    assert jit.lower(*specs).schedules == ["p=chunk:1024,threads:128"]


def softmax_of_product(a: moa.Array, b: moa.Array) -> moa.Array:
    return library.softmax(product(a, b))


def below(x: np.ndarray) -> np.ndarray:
    return x - x.max(-1, keepdims=True)


def below_the_maximum(a: moa.Array, b: moa.Array) -> moa.Array:
    """No cascade: a fold, then what needs it."""
    rows = product(a, b)

    def cell(row: moa.Array) -> moa.Array:
        return row - moa.reduce("max", row)

    return moa.omega(cell, 1, rows)


def layernorm_of_product(a: moa.Array, b: moa.Array) -> moa.Array:
    return library.layernorm(product(a, b))


@pytest.mark.parametrize(
    ("program", "of", "dtype", "names", "tier"),
    [
        (below_the_maximum, below, np.float32, ("n", "k", "m"), "portable"),
        (softmax_of_product, normalized, np.float32, None, "portable"),
        (softmax_of_product, normalized, np.float32, ("n", "k", "m"), "mma"),
        (layernorm_of_product, centred, np.float64, None, "mma"),
        (layernorm_of_product, centred, np.float32, ("n", 70, "m"), "portable"),
    ],
)
def test_normalized_rows_of_a_product(
    program: Callable[..., Any],
    of: Callable[..., Any],
    dtype: Any,
    names: tuple[Any, ...] | None,
    tier: str,
) -> None:
    """The rows are computed twice, in the pass and in the output, chunk by chunk."""
    a, b = random(0, 30, 70, dtype=dtype), random(1, 70, 50, dtype=dtype)
    specs = None
    if names:
        n, k, m = names
        name = np.dtype(dtype).name
        specs = [moa.ArraySpec((n, k), name), moa.ArraySpec((k, m), name)]
    jit = moa.jit(program, target="cuda", emulate=True, tier=tier, specs=specs)
    wanted = of(a.astype(float) @ b)
    np.testing.assert_allclose(jit(a, b), wanted, rtol=1e-3, atol=1e-5)
    text = jit.lower(*(specs or [a, b])).text("target")
    assert "gpu.dynamic_shared_memory" in text


WIDE = [
    ("portable", np.float32, 24, 300),
    ("mma", BF16, 24, 264),
    ("wgmma", BF16, 24, 264),
    ("portable", np.float32, 300, 24),
    ("mma", BF16, 296, 24),
    ("wgmma", BF16, 296, 24),
]


@pytest.mark.parametrize(("tier", "dtype", "depth", "width"), WIDE)
def test_rows_that_are_longer_than_registers(
    tier: str, dtype: Any, depth: int, width: int
) -> None:
    """Of values: blocks of the grid; of queries and keys: loaded piece by piece."""
    q, k = random(0, 1, 40, depth, dtype=dtype), random(1, 1, 50, depth, dtype=dtype)
    v = random(2, 1, 50, width, dtype=dtype)
    check(library.attention, [q, k, v], weighted(scores(q, k), v), tier=tier)


@pytest.mark.parametrize("tier", ["portable", "wgmma"])
def test_heads_of_any_width(tier: str) -> None:
    name = "float32" if tier == "portable" else "bfloat16"
    specs = [
        moa.ArraySpec((1, "n", "d"), name),
        moa.ArraySpec((1, "m", "d"), name),
        moa.ArraySpec((1, "m", "e"), name),
    ]
    jit = moa.jit(library.attention, "cuda", specs=specs, emulate=True, tier=tier)
    dtype = np.float32 if tier == "portable" else BF16
    for depth, width in ((40, 24), (70, 140)):
        q, k = (random(n, 1, 30, depth, dtype=dtype) for n in range(2))
        v = random(2, 1, 30, width, dtype=dtype)
        wanted = weighted(scores(q, k), v)
        error = np.linalg.norm(jit(q, k, v).astype(float) - wanted)
        assert error < TOLERANCES[name] * np.linalg.norm(wanted)
    assert "gpu.dynamic_shared_memory" in jit.lower(*specs).text("target")


def test_what_all_blocks_of_a_row_share_is_stored_once() -> None:
    q, k, v = random(0, 2, 20, 32), random(1, 2, 33, 32), random(2, 2, 33, 300)
    jit = moa.jit(library.attention, target="cuda", emulate=True)
    found, logarithm = jit(q, k, v, return_lse=True)
    s = scores(q, k)
    np.testing.assert_allclose(found, weighted(s, v), atol=2e-6)
    np.testing.assert_allclose(logarithm, np.log(np.exp(s).sum(-1)), atol=2e-6)


def test_pieces_make_no_races(monkeypatch: pytest.MonkeyPatch) -> None:
    checked(monkeypatch, lambda text: text, "random")
    q, k = (random(n, 1, 30, 296, dtype=BF16) for n in range(2))
    v = random(2, 1, 30, 264, dtype=BF16)
    check(library.attention, [q, k, v], weighted(scores(q, k), v))


@pytest.mark.parametrize("tier", ["mma", "wgmma"])
def test_products_in_tf32(tier: str) -> None:
    """Each factor is rounded to nearest, to 10 bits, so a product is off by 2^-10."""
    a, b = random(0, 40, 70), random(1, 70, 41)
    jit = moa.jit(product, target="cuda", emulate=True, tier=tier, tf32=True)
    compiled = jit.lower(a, b)
    assert "nvvm.mma.sync" in compiled.text("target")
    assert compiled.schedules[0].endswith(",mma,tf32")
    exact = a.astype(float) @ b
    bound = (2.0**-10 + 2.0**-18) * (np.abs(a).astype(float) @ np.abs(b))
    off = np.abs(jit(a, b) - exact)
    assert (off <= bound).all()
    assert off.max() > 1e-5  # It is off, unlike without the option.


@pytest.mark.parametrize("depth", [36, 296])
def test_attention_in_tf32(depth: int) -> None:
    """A factor that is computed, too; and factors that are loaded piece by piece."""
    q, k = random(0, 1, 40, depth), random(1, 1, 50, depth)
    v = random(2, 1, 50, 24)
    jit = moa.jit(library.attention, target="cuda", emulate=True, tf32=True)
    s = scores(q, k)
    size = np.abs(q).astype(float) @ np.abs(k[0]).T * depth**-0.5
    # Scores that are off by d change a weight by the factor e^2d at most, with its sum.
    shift = 2.0**-10 * size.max()
    off = np.abs(jit(q, k, v) - weighted(s, v))
    assert off.max() <= (np.exp(2 * shift) - 1 + 2.0**-9) * np.abs(v).max()


def test_tf32_is_off_by_default_and_compiles() -> None:
    specs = [moa.ArraySpec((2, 128, 64), "float32")] * 3
    plain = moa.jit(library.attention, target="cuda").lower(*specs).text("asm")
    assert "tf32" not in plain
    jit = moa.jit(library.attention, target="cuda", chip="sm_80", tf32=True)
    text = jit.lower(*specs).text("asm")
    assert "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" in text
    assert "cvt.rna.tf32.f32" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tf32": True}, "tf32: expected with target cuda, got it with cpu"),
        (
            {"tf32": True, "target": "cuda", "tier": "portable"},
            "tf32: expected with the tier mma or wgmma, got it with portable",
        ),
        (
            {"tf32": True, "target": "cuda", "chip": "sm_75"},
            "tf32: expected with the tier mma or wgmma, got it with portable",
        ),
    ],
)
def test_tf32_where_there_is_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        moa.jit(library.softmax, **options)


SUMS_OF_ROWS = """
func.func @main(%a: tensor<20x40xf32>, %b: tensor<40x{width}xf32>)
    -> tensor<20x{width}xf32> {{
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<20x40xf32>
  %k = moa.extent %a, 1 : tensor<20x40xf32>
  %m = moa.extent %b, 1 : tensor<40x{width}xf32>
  %r = moa.comprehension [%i < %n] -> tensor<20x{width}xf32> {{
    %s = moa.fold add [%p = %0 to %k] -> tensor<{width}xf32> {{
      %row = moa.comprehension [%l < %m] -> tensor<{width}xf32> {{
        %x = moa.at %a[%i, %p] : tensor<20x40xf32>
        %y = moa.at %b[%p, %l] : tensor<40x{width}xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }}
      moa.yield %row : tensor<{width}xf32>
    }}
    {fold}
    %out = moa.comprehension [%l < %m] -> tensor<{width}xf32> {{
      %v = moa.at %s[%l] : tensor<{width}xf32>
      %w = arith.subf %v, %t : f32
      moa.yield %w : f32
    }}
    moa.yield %out : tensor<{width}xf32>
  }}
  func.return %r : tensor<20x{width}xf32>
}}
"""
WHOLE = """%t = moa.fold max [%q = %0 to %m] -> f32 {{
      %v = moa.at %s[%q] : tensor<{width}xf32>
      moa.yield %v : f32
    }}"""
PART = WHOLE.replace("%0 to", "%two to").replace(
    "%t =", "%two = arith.constant 2 : index\n    %t ="
)


def largest(x: np.ndarray) -> np.ndarray:
    return x.max(-1, keepdims=True)


def largest_but_two(x: np.ndarray) -> np.ndarray:
    return largest(x[:, 2:])


def first_one(x: np.ndarray) -> np.ndarray:
    return x[:, :1]


ONE = "%t = moa.at %s[%0] : tensor<{width}xf32>"


@pytest.mark.parametrize("width", [24, 100, 300])
@pytest.mark.parametrize(
    ("fold", "of"),
    [
        (WHOLE, largest),
        (PART, largest_but_two),
        (ONE, first_one),
    ],
    ids=["whole", "part", "one"],
)
def test_what_is_folded_over_a_row_in_registers(
    fold: str, of: Callable[[np.ndarray], np.ndarray], width: int
) -> None:
    """An index of a row is where its element is, in no other thread's registers.

    Folds over whole rows that fit are done there; others are left to loops.
    """
    text = SUMS_OF_ROWS.format(width=width, fold=fold.format(width=width))
    context = Context()
    register_dialects(context)
    module = Parser(context, text).parse_module()
    options = Options(target="cuda", emulate=True)
    a, b = random(0, 20, 40), random(1, 40, width)
    found = engine.compile_for_cuda(module, "main", options)(a, b)
    rows = a.astype(float) @ b
    np.testing.assert_allclose(found, rows - of(rows), atol=2e-5)
