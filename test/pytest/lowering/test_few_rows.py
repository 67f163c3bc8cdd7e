"""Products of few rows in long pieces of columns, and extents that types do not give."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.lowering.prefetch import PrefetchOp
from moa_dialect.lowering.vector_kernel import LIMIT
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import FEW_ROWS, FEW_SCHEDULE, SCHEDULE
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import parse_schedule

BF16 = ml_dtypes.bfloat16
DTYPES = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": BF16}


def narrow(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", moa.cast(a, "f32"), moa.cast(b, "f32"))


def narrow_linear(a: Any, b: Any) -> Any:
    return narrow(a, moa.transpose(b))


def plain(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def plain_linear(a: Any, b: Any) -> Any:
    return plain(a, moa.transpose(b))


def program_of(dtype: str, is_turned: bool) -> Callable[..., Any]:
    """A product, of narrow floats summed in f32; its right operand may be turned."""
    if dtype in ("bf16", "f16"):
        return narrow_linear if is_turned else narrow
    return plain_linear if is_turned else plain


def lifted(
    program: Callable[..., Any], specs: list[moa.ArraySpec], schedule: str = "auto"
) -> ModuleOp:
    """A program with a schedule for a machine with long vectors."""
    module = moa.jit(program).lower(*specs).module("fused")
    LiftPass(schedule, machine="avx512bf16").apply(Context(), module)
    return module


def in_vectors(module: ModuleOp) -> ModuleOp:
    """A program in vectors, which it has to have."""
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    return module


def kernel(module: ModuleOp) -> Callable[..., Any]:
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    return kernel_of(module, entries(module)[0])


def attribute(module: ModuleOp, name: str) -> str:
    """An attribute of the only comprehension, as text."""
    (op,) = comprehensions(functions_of(module)[0])
    return str(op.attributes.get(name))


def whole(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Small numbers without fractions: their sums are exact in any order."""
    random = np.random.default_rng(seed + sum(shape))
    return random.integers(-3, 4, shape).astype(dtype)


def operands(
    sizes: tuple[int, int, int], dtype: str, is_turned: bool
) -> list[np.ndarray]:
    m, k, n = sizes
    right = (n, k) if is_turned else (k, n)
    found = DTYPES[dtype]
    return [whole(m, k, dtype=found), whole(*right, dtype=found, seed=1)]


def expected(arrays: list[np.ndarray], is_turned: bool) -> np.ndarray:
    a, b = (array.astype(np.float64) for array in arrays)
    return a @ (b.T if is_turned else b)


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(
    ("dtype", "m", "k", "n", "chunk", "registers", "vectors", "piece"),
    [
        ("f32", 1, 19, 70, 8, 1, 4, 32),
        ("f32", 2, 8, 64, 8, 2, 2, 64),
        ("f32", 3, 33, 50, 8, 3, 1, 48),
        ("f32", 7, 100, 65, 16, 4, 2, 33),
        ("f32", 17, 45, 48, 32, 4, 2, 16),
        ("f64", 5, 31, 40, 8, 4, 2, 16),
        ("f16", 4, 31, 64, 16, 4, 2, 32),
        ("bf16", 1, 17, 64, 8, 1, 2, 32),
        ("bf16", 6, 34, 80, 8, 3, 2, 48),
        ("bf16", 9, 35, 64, 32, 4, 1, 64),
    ],
)
def test_pieces_of_columns(
    dtype: str,
    m: int,
    k: int,
    n: int,
    chunk: int,
    registers: int,
    vectors: int,
    piece: int,
    is_turned: bool,
) -> None:
    """The last piece is shifted back; rows and indices leave rests."""
    lanes = 8 if dtype == "f64" else 16
    rows = f"i=procs,block:{m};" if m > 1 else ""
    schedule = (
        f"{rows}j=procs,columns:{piece};p=chunk:{chunk},block:{registers},"
        f"regs:{vectors},lanes:{lanes},pairs,ahead,each"
    )
    arrays = operands((m, k, n), dtype, is_turned)
    specs = [moa.ArraySpec(array.shape, array.dtype) for array in arrays]
    module = in_vectors(lifted(program_of(dtype, is_turned), specs, schedule))
    assert any(isinstance(op, PrefetchOp) for op in module.walk())
    found = kernel(module)(*arrays)
    np.testing.assert_array_equal(found, expected(arrays, is_turned))


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("m", [2, 4, 8, 16])
def test_few_rows_read_long_pieces(m: int, is_turned: bool) -> None:
    specs = [moa.ArraySpec(shape, np.float32) for shape in ((m, 4096), (4096, 4096))]
    module = lifted(program_of("f32", is_turned), specs)
    assert "columns" in attribute(module, SCHEDULE)
    specs[0] = moa.ArraySpec((384, 4096), np.float32)
    module = lifted(program_of("f32", is_turned), specs)
    assert "columns" not in attribute(module, SCHEDULE)


def test_sums_of_columns_read_long_pieces() -> None:
    spec = moa.ArraySpec((1000, 4096), np.float32)
    module = lifted(lambda x: moa.reduce("add", x), [spec])
    assert "columns" in attribute(module, SCHEDULE)


ROWS = [0, 1, 2, 3, 4, 5, 8, 9, 15, 17, 23, 24, 31, 32, 33, 50]
COLUMNS = [1, 15, 16, 40, 511, 512, 513, 600]


@cache
def compiled(
    dtype: str, is_turned: bool, given: tuple[int | str, ...]
) -> Callable[..., Any]:
    """A product for any number of rows; with few of them it has other code."""
    m, k, n = given
    right = (n, k) if is_turned else (k, n)
    specs = [moa.ArraySpec(shape, DTYPES[dtype]) for shape in ((m, k), right)]
    module = lifted(program_of(dtype, is_turned), specs)
    assert "columns" in attribute(module, FEW_SCHEDULE)
    assert "i64" in attribute(module, FEW_ROWS)
    return kernel(in_vectors(module))


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@settings(max_examples=15, deadline=None)
@given(m=st.sampled_from(ROWS))
def test_any_number_of_rows(dtype: str, is_turned: bool, m: int) -> None:
    """Beyond the last row of a few it is there again."""
    arrays = operands((m, 70, 160), dtype, is_turned)
    found = compiled(dtype, is_turned, ("m", 70, 160))(*arrays)
    np.testing.assert_array_equal(found, expected(arrays, is_turned))


@pytest.mark.parametrize("is_turned", [False, True])
@settings(max_examples=30, deadline=None)
@given(
    m=st.sampled_from(ROWS),
    k=st.sampled_from([0, 1, 8, 19, 300]),
    n=st.sampled_from(COLUMNS),
)
def test_extents_that_are_all_unknown(is_turned: bool, m: int, k: int, n: int) -> None:
    """With columns too few for a piece there is the usual code."""
    arrays = operands((m, k, n), "f32", is_turned)
    found = compiled("f32", is_turned, ("m", "k", "n"))(*arrays)
    np.testing.assert_array_equal(found, expected(arrays, is_turned))


@settings(max_examples=20, deadline=None)
@given(k=st.sampled_from([0, 1, 7, 8, 9, 100]), n=st.sampled_from(COLUMNS))
def test_sums_of_any_number_of_columns(k: int, n: int) -> None:
    x = whole(k, n)
    np.testing.assert_array_equal(_sums()(x), x.sum(0))


@cache
def _sums() -> Callable[..., Any]:
    spec = moa.ArraySpec(("m", "n"), np.float32)
    module = lifted(lambda x: moa.reduce("add", x), [spec])
    assert "columns" in attribute(module, FEW_SCHEDULE)
    return kernel(in_vectors(module))


def test_blocks_of_few_rows_read_what_many_pack() -> None:
    """Both are in the code of a block, under a condition."""
    specs = [moa.ArraySpec(shape, np.float32) for shape in (("m", 300), (300, 80))]
    schedule = "i=procs,block:24;j=procs,regs:2,lanes:16;p=chunk:256,regs:2"
    module = in_vectors(lifted(plain, specs, schedule))
    (loop,) = (op for op in module.walk() if op.name == "scf.parallel")
    assert any(isinstance(op, scf.IfOp) for op in loop.walk())
    run = kernel(module)
    for m in (1, 3, 7, 8, 9, 24, 30):
        arrays = operands((m, 300, 80), "f32", False)
        np.testing.assert_array_equal(run(*arrays), expected(arrays, False))


# Tiles along axes whose extents types do not give.


def chain(a: Any, b: Any, c: Any) -> Any:
    return plain(plain(a, b), c)


def columns_of(x: Any) -> Any:
    """A softmax along the leading axis."""
    return moa.transpose(library.softmax(moa.transpose(x)))


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[tuple[str, ...], ...]]] = {
    "attention": (
        lambda q, k, v: moa.attention(q, k, v),
        (("h", "n", "d"), ("h", "m", "d"), ("h", "m", "e")),
    ),
    "causal": (
        lambda q, k, v: moa.attention(q, k, v, is_causal=True),
        (("h", "n", "d"), ("h", "n", "d"), ("h", "n", "e")),
    ),
    "chain": (chain, (("n", "d"), ("d", "m"), ("m", "e"))),
    "softmax": (columns_of, (("n", "e"),)),
}


@cache
def bounded(name: str) -> Callable[..., Any]:
    program, shapes = PROGRAMS[name]
    specs = [moa.ArraySpec(shape, np.float64) for shape in shapes]
    return kernel(in_vectors(lifted(program, specs)))


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("n", "m", "d", "e"),
    [
        (1, 1, 1, 1),
        (3, 5, 7, 9),
        (17, 33, 16, 15),
        (20, 40, 64, 80),
        (9, 12, LIMIT, 3),
        (2, 3, LIMIT + 1, 2),
        (2, 3, 4, LIMIT + 1),
    ],
)
def test_rows_of_unknown_extents(name: str, n: int, m: int, d: int, e: int) -> None:
    """In vectors up to a limit, one element at a time beyond."""
    program, shapes = PROGRAMS[name]
    sizes = {"h": 2, "n": n, "m": m, "d": d, "e": e}
    arrays = [
        np.random.default_rng(k).standard_normal([sizes[axis] for axis in shape])
        for k, shape in enumerate(shapes)
    ]
    found = bounded(name)(*arrays)
    np.testing.assert_allclose(found, moa.interpret(program, *arrays), 1e-10, 1e-12)


def test_a_schedule_of_columns_in_text() -> None:
    text = "i=procs,block:4;j=procs,columns:256;p=chunk:8,block:4,regs:4,lanes:16,each"
    schedule = parse_schedule(text, ["i", "j"])
    assert (schedule.columns, schedule.piece) == ("j", 256)
    assert str(schedule) == text


def test_columns_without_lanes_of_statements_are_refused() -> None:
    text = "j=procs,columns:256;p=chunk:8,block:4,regs:4,lanes:16"
    message = "schedule: j has columns, but no statement lanes"
    with pytest.raises(CompileError, match=message):
        parse_schedule(text, ["i", "j"])
