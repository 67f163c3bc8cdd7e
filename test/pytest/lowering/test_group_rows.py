"""Folds that threads take by themselves, and rows that lanes share: in the emulator."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.dialects import gpu, scf

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.cost import machine
from moa_dialect.errors import CompileError
from moa_dialect.lowering.chips import MULTIPROCESSORS
from moa_dialect.lowering.gpu_ops import ShuffleOp

Program = Callable[..., Any]


def random(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def lowered(program: Program, *arrays: Any, **options: Any) -> Any:
    return moa.jit(program, target="cuda", emulate=True, **options).lower(*arrays)


def variance(x: Any) -> Any:
    return moa.reduce("add", (x - moa.reduce("add", x) / x.shape[0]) ** 2.0)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def layernorm(x: np.ndarray) -> np.ndarray:
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / deviation


def logsumexp(x: np.ndarray) -> np.ndarray:
    return np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1)) + x.max(-1)


# Threads by themselves.


def in_loops(compiled: Any, kind: type[Any]) -> int:
    """How many operations of a kind the loops of kernels have."""
    module = compiled.module("target")
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp)]
    return sum(isinstance(op, kind) for loop in loops for op in loop.walk())


@pytest.mark.parametrize(
    ("program", "length"),
    [
        (variance, 5000),
        (library.logsumexp, 5001),
        (lambda x: moa.reduce("add", x * x), 4500),
        (lambda x: moa.reduce("max", x), 1 << 15),
    ],
    ids=["variance", "logsumexp", "squares", "maximum"],
)
def test_no_thread_waits_before_the_last_chunk(program: Program, length: int) -> None:
    spec = moa.ArraySpec((length,), "f32")
    compiled = lowered(program, spec, schedule="p=chunk:1024,threads:128")
    assert in_loops(compiled, gpu.BarrierOp) == in_loops(compiled, ShuffleOp) == 0
    assert "bar.sync" in compiled.text("asm")


@pytest.mark.parametrize("length", [1, 127, 3072, 4097])
def test_states_of_threads_are_merged(length: int) -> None:
    """A variance is exact to rounding whatever the mean, as in one pass by one thread."""
    x = random(0, length) + np.float32(1000)
    program = moa.jit(
        variance,
        target="cuda",
        emulate=True,
        schedule="p=chunk:512,threads:128",
    )
    wanted = x.astype(float).var() * length
    np.testing.assert_allclose(program(x), wanted, rtol=3e-6, atol=1e-6)


def test_threads_may_have_nothing() -> None:
    """Of a length that the call tells some threads, or all, have no index."""
    specs = [moa.ArraySpec((2, "n"), "f32")]
    cases: list[tuple[Program, Program]] = [
        (library.logsumexp, logsumexp),
        (library.variance, lambda x: x.var(-1)),
    ]
    for program, wanted in cases:
        compiled = moa.jit(program, target="cuda", emulate=True, specs=specs)
        for length in (1, 130, 2000):
            x = random(1, 2, length)
            np.testing.assert_allclose(compiled(x), wanted(x.astype(float)), 1e-5, 1e-6)


def test_a_thread_that_sees_nothing_but_infinity() -> None:
    """Most weights are 0, so that the maximum of most threads is minus infinity."""
    x = np.full((2, 4096), -np.inf, np.float32)
    x[0, [5, 3000]] = 1.0, 2.0
    x[1, 4095] = 3.0
    program = moa.jit(
        library.softmax,
        target="cuda",
        emulate=True,
        schedule="p=chunk:256,threads:64",
    )
    np.testing.assert_allclose(program(x), softmax(x.astype(float)), 1e-6, 1e-7)


def test_chunks_have_as_many_elements() -> None:
    def schedule(length: int) -> str:
        program = lowered(library.logsumexp, moa.ArraySpec((1000, length), "f32"))
        return program.schedules[0]

    assert schedule(4096) == "p=chunk:4096,threads:256"
    assert schedule(6144) == "p=chunk:3072,threads:256"
    assert schedule(20000) == "p=chunk:4096,threads:256"


def test_several_groups_write_a_row_of_many_parts() -> None:
    """Each merges the parts again; the more there are, the more it writes."""
    program = lowered(library.softmax, moa.ArraySpec((1, 1 << 22), "f32"))
    _, merge = program.schedules
    assert merge == "j=grid,block:4096;p=chunk:1024,threads:128"


@pytest.mark.parametrize("power", [2.0, 3.0])
@pytest.mark.parametrize(
    "program",
    [lambda x, n: x**n, lambda x, n: moa.reduce("add", x**n)],
    ids=["elements", "sum"],
)
def test_squares_and_cubes_are_products(program: Program, power: float) -> None:
    """A power of the library takes a logarithm and an exponential, or a loop."""
    x = random(5, 300)
    compiled = lowered(lambda x: program(x, power), x)
    text = compiled.text("asm")
    assert "ex2" not in text
    assert "mul" in text
    found = compiled(x)
    np.testing.assert_allclose(found, program(x.astype(float), power), 1e-5, 1e-5)


# Rows that lanes share.


@pytest.mark.parametrize(
    ("length", "lanes"),
    [(64, 4), (100, 8), (128, 8), (200, 16), (257, 32), (512, 32), (1000, 32)],
)
def test_lanes_share_a_row(length: int, lanes: int) -> None:
    """Nothing but shuffles: no shared memory, no barrier, and whole vectors."""
    compiled = lowered(library.softmax, moa.ArraySpec((20000, length), "f32"))
    (schedule,) = compiled.schedules
    assert f"lanes:{lanes};" in schedule
    text = compiled.text("asm")
    assert "bar.sync" not in text
    assert ".shared" not in text
    assert ("v4.f32" in text or "v4.b32" in text) == (length % 4 == 0)


@pytest.mark.parametrize(
    ("program", "of", "length", "dtype"),
    [
        (library.softmax, softmax, 64, np.float32),
        (library.softmax, softmax, 257, np.float64),
        (library.layernorm, layernorm, 100, np.float32),
        (library.layernorm, layernorm, 1000, np.float64),
        (library.logsumexp, logsumexp, 200, np.float32),
    ],
)
def test_rows_in_lanes(program: Program, of: Program, length: int, dtype: Any) -> None:
    x = random(2, 7, length, dtype=dtype)
    compiled = lowered(program, x)
    (schedule,) = compiled.schedules
    assert "lanes:" in schedule
    limit = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(compiled(x), of(x.astype(float)), limit, limit)


def test_rows_are_along_the_axis_with_most_of_them() -> None:
    x = random(4, 37, 3, 100)
    compiled = lowered(library.softmax, x)
    assert compiled.schedules[0].startswith("i=grid,")
    np.testing.assert_allclose(compiled(x), softmax(x.astype(float)), 1e-5, 1e-6)


def test_a_warp_has_several_rows_and_chunks() -> None:
    x = random(3, 37, 100)
    for schedule in (
        "j=grid,warps:2,regs:3,lanes:8;p=chunk:128,stages:1",
        "j=grid,warps:1,regs:2,lanes:4;p=chunk:32,stages:1",
    ):
        program = moa.jit(
            lambda x: moa.omega(library.softmax, 1, x),
            target="cuda",
            emulate=True,
            schedule=schedule.replace("j=", "i="),
        )
        np.testing.assert_allclose(program(x), softmax(x.astype(float)), 1e-5, 1e-6)


def test_rows_of_a_product_in_lanes() -> None:
    """Rows of sums in registers, of a length that is no multiple of the lanes."""
    for columns in (40, 64):
        a, b = random(6, 6, 50), random(7, 50, columns)

        def program(a: Any, b: Any) -> Any:
            return library.softmax(moa.inner("add", "mul", a, b))

        compiled = lowered(program, a, b)
        assert "lanes:32" in compiled.schedules[0]
        wanted = softmax(a.astype(float) @ b.astype(float))
        np.testing.assert_allclose(compiled(a, b), wanted, 1e-5, 1e-6)


def test_lanes_have_no_matrix_instructions() -> None:
    schedule = "j=grid,warps:1,regs:4,lanes:32;p=chunk:32,stages:2,mma"
    spec = moa.ArraySpec((2, 4, 16), "bf16")
    compiled = lowered(moa.attention, *[spec] * 3, schedule=schedule)
    with pytest.raises(CompileError, match="products by matrix instructions"):
        compiled.text("target")


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("i=grid,warps:1,lanes:3;p=chunk:32", "a power of 2 up to 32, got 3"),
        ("i=grid,warps:1,lanes:8;p=chunk:32,mma,square", "lanes: expected rows, and"),
        ("p=chunk:32,threads:32,lanes:8", "lanes: expected rows, and"),
        ("i=grid,warps:1,lanes:32;p=chunk:16", "a chunk of a multiple of 32, got 16"),
    ],
)
def test_lanes_that_are_none(schedule: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        lowered(
            library.softmax, moa.ArraySpec((3, 100), "f32"), schedule=schedule
        ).text("target")


def test_schedules_are_for_the_machine_that_is_described() -> None:
    assert machine("h200").cores == MULTIPROCESSORS


# Few rows of a product by multiply-adds.


@pytest.mark.parametrize(
    ("heads", "of_keys", "rows", "dtype", "tier"),
    [
        (8, 2, 1, np.float32, ""),
        (4, 4, 1, np.float32, ""),
        (2, 1, 5, np.float32, "portable"),
        (3, 3, 16, np.float32, ""),
        (4, 2, 3, ml_dtypes.bfloat16, "portable"),
    ],
)
def test_few_queries_without_matrix_instructions(
    heads: int, of_keys: int, rows: int, dtype: Any, tier: str
) -> None:
    """Each lane has keys of its own for all queries: no row is there in vain."""
    shapes = [(heads, rows, 40), (of_keys, 70, 40), (of_keys, 70, 72)]
    given = [random(n, *shape).astype(dtype) for n, shape in enumerate(shapes)]
    compiled = lowered(moa.attention, *given, tier=tier)
    times = heads // of_keys
    assert f"warps:1,regs:{times * rows},lanes:32;" in compiled.schedules[0]
    q, k, v = (x.astype(float) for x in given)
    k, v = np.repeat(k, times, 0), np.repeat(v, times, 0)
    wanted = softmax(q @ k.mT / 40**0.5) @ v
    limit = 2e-5 if dtype == np.float32 else 1e-2
    np.testing.assert_allclose(compiled(*given).astype(float), wanted, limit, limit)


@pytest.mark.parametrize("rows", [2, 5, 16])
@pytest.mark.parametrize("is_turned", [False, True])
def test_few_rows_of_a_product_in_f32(rows: int, is_turned: bool) -> None:
    """Warps share rows, lanes columns; much is loaded at a time."""
    a, b = random(0, rows, 300), random(1, 300, 70)
    b = np.ascontiguousarray(b.T) if is_turned else b

    def product(a: Any, b: Any) -> Any:
        return moa.inner("add", "mul", a, moa.transpose(b) if is_turned else b)

    compiled = lowered(product, a, b)
    each = -(-rows // 4)
    assert compiled.schedules == [
        f"j=grid,block:32;i=grid,warps:{-(-rows // each)},regs:{each},lanes:32;"
        "p=chunk:256,stages:2,mma"
    ]
    # A lane has one column, and nothing of those beside.
    assert compiled.text("asm").count("st.global") == each
    wanted = a.astype(float) @ (b.T if is_turned else b).astype(float)
    np.testing.assert_allclose(compiled(a, b), wanted, 1e-5, 1e-4)
