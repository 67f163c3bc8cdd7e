"""Kernels whose statements have lane axes of their own give what the interpreter does.

Extents are around the numbers of lanes, of indices of a chunk, of rows in registers.
"""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.rebuild import comprehensions

Program = Callable[..., Any]
BF16 = ml_dtypes.bfloat16
RTOL = {"float64": 1e-13, "float32": 3e-6, "float16": 4e-3, "bfloat16": 2e-2}


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE", "0")


def full(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def heads_of(
    heads: int, keys: int, n: int, m: int, d: int, columns: int, dtype: Any = np.float32
) -> list[np.ndarray]:
    shapes = [(heads, n, d), (keys, m, d), (keys, m, columns)]
    return [numbers(*s, dtype=dtype, seed=k) for k, s in enumerate(shapes)]


def schedule_of(heads: int, keys: int, n: int, lanes: int = 16) -> str:
    """A schedule of attention with all the queries of a key head in a task."""
    group = heads // keys
    axis = "j" if group == 1 else "i" if keys == 1 else "i_g"
    if group > 1 and n > 1:
        axis = "ij_g"
    rows = f"{axis}=procs,block:{group * n};" if group * n > 1 else ""
    fold = f"p=chunk:{8 * lanes},block:4,regs:4,lanes:{lanes}"
    return f"{rows}{fold},pairs,ahead,each"


def under(
    program: Program,
    arrays: list[np.ndarray],
    schedule: str = "auto",
    machine: str = "avx512bf16",
    is_lifted: bool = True,
) -> tuple[np.ndarray, ...]:
    """What a program gives, compiled under a schedule with lanes for each statement."""
    module = moa.jit(program).lower(*arrays).module("fused")
    LiftPass(schedule, machine=machine).apply(Context(), module)
    for op in comprehensions(functions_of(module)[0]):
        assert str(op.attributes[SCHEDULE]).endswith('each"')
    for pass_ in FUSING["target"][1:]:
        pass_.apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk()) == is_lifted
    result = kernel_of(module, entries(module)[0])(*arrays)
    return result if isinstance(result, tuple) else (result,)


def agree(given: Any, program: Program, arrays: list[np.ndarray]) -> None:
    expected = moa.interpret(program, *arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype
        rtol = RTOL[other.dtype.name]
        one, other = (np.asarray(x, float) for x in (one, other))
        np.testing.assert_allclose(one, other, rtol, rtol)


@pytest.mark.parametrize(
    ("heads", "keys", "n", "m", "d", "columns", "dtype"),
    [
        (4, 1, 1, 128, 32, 64, np.float32),
        (4, 2, 1, 129, 17, 15, np.float32),
        (2, 2, 1, 145, 1, 130, np.float32),
        (2, 2, 3, 17, 15, 33, np.float32),
        (4, 2, 3, 1, 33, 16, np.float32),
        (2, 2, 7, 31, 8, 80, np.float32),
        (3, 1, 1, 131, 9, 7, np.float64),
        (6, 2, 4, 130, 33, 47, BF16),
        (5, 1, 1, 35, 40, 70, np.float32),
        (8, 1, 1, 131, 8, 72, np.float32),
        (12, 1, 1, 3, 17, 33, np.float32),
        (16, 1, 1, 35, 17, 64, BF16),
        (9, 1, 1, 18, 8, 24, np.float64),
        (3, 1, 2, 17, 64, 16, BF16),
        (2, 1, 1, 33, 17, 17, np.float16),
    ],
)
def test_extents_around_those_of_vectors(
    heads: int, keys: int, n: int, m: int, d: int, columns: int, dtype: Any
) -> None:
    arrays = heads_of(heads, keys, n, m, d, columns, dtype)
    schedule = schedule_of(heads, keys, n, 8 if dtype == np.float64 else 16)
    agree(under(full, arrays, schedule), full, arrays)


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        ("avx512", BF16),
        ("avx2", np.float32),
        ("avx2", np.float64),
        ("neon", np.float32),
    ],
)
def test_other_machines(machine: str, dtype: Any) -> None:
    """Vectors of other lengths, and bf16 without an instruction for pairs."""
    rows = 1 if dtype == np.float64 else 3
    arrays = heads_of(2, 2, rows, 37, 21, 19, dtype)
    agree(under(full, arrays, machine=machine), full, arrays)


@pytest.mark.parametrize(
    "schedule",
    [
        "i_g=procs,block:6;p=chunk:7,block:4,regs:2,lanes:4,each",
        "i_g=procs,block:4;p=chunk:32,block:1,regs:3,lanes:8,ahead,each",
        "p=chunk:16,block:2,regs:2,lanes:16,each",
        "i=procs,block:5;p=chunk:16,block:2,regs:2,lanes:2,each",
    ],
)
def test_any_block_of_rows(schedule: str) -> None:
    """The last block is shifted back to end with the rows."""
    arrays = heads_of(6, 1, 1, 45, 20, 21)
    if schedule.startswith("i_g"):
        arrays = heads_of(12, 2, 1, 45, 20, 21)
    agree(under(full, arrays, schedule), full, arrays)


VARIANTS: dict[str, tuple[Program, bool]] = {
    "bias": (lambda q, k, v, b: moa.attention(q, k, v, bias=b), True),
    "softcap": (lambda q, k, v: moa.attention(q, k, v, softcap=2.0), False),
    "lse": (lambda q, k, v: moa.attention(q, k, v, return_lse=True), False),
    "score": (
        lambda q, k, v: moa.attention(
            q, k, v, score_mod=lambda s, b, h, i, j: s + 0.03125 * (j - i)
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_computed_of_scores(name: str) -> None:
    program, has_bias = VARIANTS[name]
    arrays = heads_of(4, 2, 2, 37, 20, 18)
    if has_bias:
        bias = numbers(4, 2, 37, seed=3)
        bias[:, :, ::3] = -np.inf
        arrays.append(bias)
    agree(under(program, arrays), program, arrays)


def asked(rows: int, array: str) -> int:
    """In how many places attention with some rows asks for more of an array."""
    module = moa.jit(full).lower(*heads_of(rows, 1, 1, 128, 64, 64)).module("fused")
    schedule = schedule_of(rows, 1, 1).replace(",pairs", "")
    LiftPass(schedule, machine="avx512").apply(Context(), module)
    FUSING["target"][1].apply(Context(), module)
    text = str(module)
    (flat,) = re.findall(rf"(%\S+) = moa.rav row %{array} ", text)
    return text.count(f'"memref.prefetch"({flat},')


def test_each_line_is_asked_for_once() -> None:
    """Blocks of eight rows read the same keys, of four the same values, in turn."""
    assert asked(8, "k") == asked(16, "k") > 0
    assert asked(4, "v") == 2 * asked(8, "v") == 4 * asked(16, "v") > 0


def test_short_sums_and_rows_have_other_lanes() -> None:
    """Where a sum, or the columns, leave lanes empty, `auto` has folded axes there."""
    for d, columns in ((15, 32), (32, 7)):
        specs = [moa.ArraySpec(s, "float32") for s in ((2, 1, d), (2, 99, d))]
        specs.append(moa.ArraySpec((2, 99, columns), "float32"))
        module = moa.jit(full).lower(*specs).module("fused")
        LiftPass(machine="avx512").apply(Context(), module)
        (op,) = comprehensions(functions_of(module)[0])
        assert "each" not in str(op.attributes[SCHEDULE])


def test_columns_in_memory_need_no_sums_over_lanes() -> None:
    """Each statement takes the axis along which its operands are: here others do."""

    def turned(q: Any, k: Any, v: Any) -> Any:
        k, v = (moa.transpose(x, (0, 2, 1)) for x in (k, v))
        return moa.attention(q, k, v)

    q, k, v = heads_of(4, 2, 1, 37, 20, 18)
    arrays = [q, np.swapaxes(k, 1, 2).copy(), np.swapaxes(v, 1, 2).copy()]
    agree(under(turned, arrays), turned, arrays)


def test_rows_that_are_no_attention() -> None:
    """Sums of squares of a product's elements, weighed: there is no maximum."""

    def energy(a: Any, b: Any, c: Any) -> Any:
        s = moa.inner("add", "mul", a, moa.transpose(b))
        return moa.inner("add", "mul", s * s, c)

    shapes = [(5, 21), (70, 21), (70, 33)]
    arrays = [abs(numbers(*shape, seed=k)) for k, shape in enumerate(shapes)]
    schedule = "i=procs,block:5;p=chunk:32,block:2,regs:2,lanes:8,each"
    module = moa.jit(energy).lower(*arrays).module("fused")
    assert len(comprehensions(functions_of(module)[0])) == 1
    agree(under(energy, arrays, schedule), energy, arrays)


def test_any_number_of_keys() -> None:
    """One kernel for all; sums over nothing are 0."""
    keys = moa.ArraySpec((1, "m", 20), "float32")
    program = moa.jit(full, specs=[moa.ArraySpec((3, 1, 20), "float32"), keys, keys])
    for m in (0, 1, 16, 130):
        arrays = heads_of(3, 1, 1, m, 20, 20)
        expected = moa.interpret(full, *arrays)
        np.testing.assert_allclose(program(*arrays), expected, 3e-6, 3e-6)


def test_rows_that_see_nothing_or_what_is_no_number() -> None:
    program, _ = VARIANTS["bias"]
    q, k, v = heads_of(4, 2, 1, 37, 20, 18)
    k[0, 36, 19] = np.nan
    bias = numbers(4, 1, 37, seed=3)
    bias[2] = -np.inf
    (given,) = under(program, [q, k, v, bias])
    assert np.isnan(given[:2]).all()
    assert (given[2] == 0).all()
    assert np.isfinite(given[3]).all()


def test_what_lies_beyond_a_row_is_not_read() -> None:
    """Neither after the last row of an array, nor what NaN there would do."""
    arrays = heads_of(2, 1, 1, 17, 17, 17)
    expected = moa.interpret(full, *arrays)
    views: list[np.ndarray] = []
    for array in arrays:
        around = np.full(array.size + 64, np.nan, array.dtype)
        views.append(around[: array.size].reshape(array.shape))
        views[-1][...] = array
    np.testing.assert_allclose(under(full, views)[0], expected, 3e-6, 3e-6)


def test_bounds_that_differ_between_rows_have_no_code() -> None:
    def causal(q: Any, k: Any, v: Any) -> Any:
        return moa.attention(q, k, v, is_causal=True)

    arrays = heads_of(1, 1, 4, 9, 20, 18)
    schedule = "j=procs,block:4;p=chunk:16,block:2,regs:2,lanes:8,each"
    agree(under(causal, arrays, schedule, is_lifted=False), causal, arrays)
    module = moa.jit(causal).lower(*arrays).module("fused")
    LiftPass().apply(Context(), module)
    (op,) = comprehensions(functions_of(module)[0])
    assert "each" not in str(op.attributes[SCHEDULE])


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("name", ["variance", "softmax"])
def test_rows_in_few_lanes(name: str, lanes: int) -> None:
    """Two lanes are not even a square of one row."""
    program = getattr(library, name)
    x = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    schedule = f"p=chunk:3,block:3,regs:2,lanes:{lanes},each"
    agree(under(program, [x], schedule), program, [x])
