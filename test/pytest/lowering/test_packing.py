"""Rows of lanes that are read often lie next to each other; long rows have many lanes."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects import vector
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.memref import AllocaOp

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel
from moa_dialect.passes.lift import LiftPass, choose
from moa_dialect.passes.machine import MACHINES
from moa_dialect.passes.rebuild import comprehensions


def product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def matrices(m: int, k: int, n: int, dtype: Any = np.float64) -> list[np.ndarray]:
    random = np.random.default_rng(m + k + n)
    return [random.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n))]


def lifted(
    arrays: list[np.ndarray], schedule: str, program: Callable[..., Any] = product
) -> ModuleOp:
    """A program of two arrays in vectors under a schedule."""
    module = moa.jit(program).lower(*arrays).module("fused")
    LiftPass(schedule).apply(Context(), module)
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    return module


def vectorized(
    arrays: list[np.ndarray], schedule: str, program: Callable[..., Any] = product
) -> Callable[..., Any]:
    module = lifted(arrays, schedule, program)
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    return kernel_of(module, entries(module)[0])


PACKED = "i=procs,block:8;j=procs,regs:2,lanes:4;p=chunk:9,regs:2"


@settings(max_examples=25, deadline=None)
@given(
    m=st.sampled_from([8, 9, 15, 16, 17]),
    k=st.sampled_from([1, 2, 8, 9, 10, 18, 19]),
    n=st.sampled_from([1, 3, 4, 7, 8, 9, 16, 17]),
)
def test_products_of_packed_rows(m: int, k: int, n: int) -> None:
    """Extents below, at and above lanes, blocks and chunks."""
    a, b = matrices(m, k, n)
    np.testing.assert_allclose(
        vectorized([a, b], PACKED)(a, b), a @ b, 1e-13, 1e-13 * k
    )


@pytest.mark.parametrize("m", [1, 2, 3, 6, 7, 16])
@pytest.mark.parametrize(("k", "n"), [(257, 33), (40, 1024), (256, 1025), (300, 1)])
def test_products_of_few_rows(m: int, k: int, n: int) -> None:
    a, b = matrices(m, k, n)
    np.testing.assert_allclose(vectorized([a, b], "auto")(a, b), a @ b, 1e-12, 1e-12)


def reads_of_arrays(module: ModuleOp) -> int:
    """How many loads of vectors, in the innermost loops, read an array itself."""
    return sum(
        isinstance(op, vector.LoadOp)
        and not isinstance(op.base.owner, AllocaOp)
        and any(isinstance(other, vector.FMAOp) for other in op.parent.ops)
        for op in module.walk()
        if op.parent is not None
    )


def test_rows_are_packed_where_they_are_read_often() -> None:
    arrays = matrices(16, 18, 16)
    assert not reads_of_arrays(lifted(arrays, PACKED))
    rarely = "i=procs,block:4;j=procs,regs:2,lanes:4;p=chunk:9,regs:2"
    assert reads_of_arrays(lifted(arrays, rarely))
    tiles = [op for op in lifted(arrays, PACKED).walk() if isinstance(op, AllocaOp)]
    # The sums of a block, and a chunk of rows.
    assert sorted(
        tuple(d.data for d in tile.memref.type.shape.data)
        for tile in tiles
        if isinstance(tile.memref.type, MemRefType)
    ) == [(8, 8), (9, 8)]


@pytest.mark.parametrize(
    ("shape", "schedule"),
    [
        ((1, 4096, 4096), "j=procs,regs:16,lanes:16;p=chunk:1,regs:1"),
        ((4096, 4096, 1), "p=chunk:16,block:4,regs:2,lanes:16"),
        ((1, 64, 64), "j=procs,regs:4,lanes:16;p=chunk:1,regs:6"),
    ],
)
def test_schedules_of_products_with_a_vector(
    shape: tuple[int, int, int], schedule: str
) -> None:
    """A matrix is read along its rows, whichever side the vector is on."""
    module = moa.jit(product).lower(*matrices(*shape, np.float32)).module("fused")
    (function,) = functions_of(module)
    (comprehension,) = comprehensions(function)
    kernel = read_kernel(comprehension, function)
    assert str(choose(kernel, MACHINES["avx512"])) == schedule


def sum_with_transposed(a: Any, b: Any) -> Any:
    return a + moa.transpose(b)


SQUARES = "i=procs,block:4;j=procs,regs:2,lanes:4"


@pytest.mark.parametrize("schedule", ["auto", SQUARES])
@settings(max_examples=20, deadline=None)
@given(
    m=st.sampled_from([4, 5, 7, 8, 9, 16, 17, 33]),
    n=st.sampled_from([1, 3, 4, 7, 8, 9, 16, 17, 33]),
    dtype=st.sampled_from([np.float32, np.float64, np.int32]),
)
def test_axes_that_change_places(schedule: str, m: int, n: int, dtype: Any) -> None:
    """Squares are turned in registers, also where the last ones overlap."""
    a = np.arange(m * n).reshape(m, n).astype(dtype)
    b = (7 * a.T).copy()
    found = vectorized([a, b], schedule, sum_with_transposed)(a, b)
    np.testing.assert_array_equal(found, a + b.T)


def test_strided_lanes_are_refused_unless_they_are_allowed() -> None:
    a, b = np.zeros((64, 80), np.float32), np.zeros((80, 64), np.float32)
    strided = "j=procs,regs:1,lanes:16"
    message = r"lanes of %b\[%j, %i\] along j lie 64 apart, not 1.*16 loads"
    with pytest.raises(CompileError, match=message):
        lifted([a, b], strided, sum_with_transposed)
    module = moa.jit(sum_with_transposed).lower(a, b).module("fused")
    LiftPass(strided, strided=True).apply(Context(), module)
    lifted([a, b], SQUARES, sum_with_transposed)


def test_products_are_not_summed_along_strided_lanes() -> None:
    """The sum's own index is a row apart in the right operand."""
    message = r"lanes of %b\[%p, %j\] along p lie 24 apart.*where i=procs,block:"
    with pytest.raises(CompileError, match=message):
        lifted(matrices(16, 40, 24), "p=chunk:2,block:1,regs:1,lanes:8")


def test_what_a_weight_is_computed_of_is_no_factor_by_itself() -> None:
    """A weight is a tile: its exponential is computed once, whatever is in it."""

    def attended(is_changed: bool) -> Callable[..., Any]:
        def changed(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            return s - moa.exp2((h + 1.0) * -0.5) * (i - j)

        mod = changed if is_changed else None
        return lambda q, k, v: moa.attention(q, k, v, score_mod=mod)

    arrays = [np.zeros((2, 96, 64), np.float32)] * 3
    schedule = "j=procs,regs:2,lanes:16;p=chunk:96,regs:4"

    def exponentials(is_changed: bool) -> int:
        module = lifted(arrays, schedule, attended(is_changed))
        return sum(op.name == "math.exp" for op in module.walk())

    assert exponentials(True) == exponentials(False)
