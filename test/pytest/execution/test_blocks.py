"""What padding and block assignment are for: stencils with halos, LU step by step."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.dialects import arith, scf
from xdsl.dialects.func import FuncOp

import moa_dialect as moa
from moa_dialect.interpreter import interpret_module
from moa_dialect.ops.operational import LoopOp, StoreOp

STAGES = ("moa", "dnf", "fused", "onf")


def window(p: Any, starts: list[int]) -> Any:
    """What is left of an array padded by 1, a neighbour of each element, at -1 to 1."""
    front = [1 + start for start in starts]
    return moa.drop([start - 1 for start in starts], moa.drop(front, p))


def five_points(a: Any) -> Any:
    p = moa.pad([1, 1], [1, 1], a)
    vertical = window(p, [-1, 0]) + window(p, [1, 0])
    horizontal = window(p, [0, -1]) + window(p, [0, 1])
    return vertical + horizontal - 4.0 * window(p, [0, 0])


def periodic(a: np.ndarray) -> np.ndarray:
    shifted = [np.roll(a, shift, axis) for axis in (0, 1) for shift in (1, -1)]
    return (shifted[0] + shifted[1]) + (shifted[2] + shifted[3]) - 4.0 * a


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 1), (5, 6)])
def test_a_stencil_around_the_ends(shape: tuple[int, int], is_static: bool) -> None:
    array = np.arange(float(np.prod(shape))).reshape(shape) ** 2
    spec = moa.ArraySpec(shape if is_static else (None, None))
    compiled = moa.jit(five_points).lower(spec)
    expected = periodic(array)
    for stage in STAGES:
        module = compiled.module(stage)
        (result,) = interpret_module(module, "five_points", [array])
        np.testing.assert_array_equal(result, expected, stage)
    np.testing.assert_array_equal(compiled(array), expected)
    assert compiled.intermediates == 0


def test_a_stencil_compares_no_index_in_its_loops() -> None:
    """Each axis has four parts: the first, the last, those between, and both ends."""
    module = moa.jit(five_points).lower(moa.ArraySpec((None, None))).module("onf")
    function = next(op for op in module.ops if isinstance(op, FuncOp))
    loops = [op for op in function.walk() if isinstance(op, LoopOp)]
    assert len(loops) == 4 + 4 * 4
    inside = [op for loop in loops for op in loop.walk()]
    assert not any(isinstance(op, scf.IfOp | arith.CmpiOp) for op in inside)


def test_the_border_of_a_block_is_not_asked_for() -> None:
    """Rows before, with and after the block; in those with it, columns as well."""

    def assign(o: Any, b: Any, a: Any) -> Any:
        return moa.insert(o, b, a)

    specs = moa.ArraySpec((2,), "i64"), *[moa.ArraySpec((None, None))] * 2
    module = moa.jit(assign).lower(*specs).module("onf")
    function = next(op for op in module.ops if isinstance(op, FuncOp))
    assert sum(isinstance(op, StoreOp) for op in function.walk()) == 1 + 3 + 1
    assert not any(isinstance(op, scf.IfOp | arith.CmpiOp) for op in function.walk())


def lu_step(a: Any, k: int, n: int) -> Any:
    """Column k of L and what is left to be factored, in place of what was there."""
    pivot = moa.psi([k, k], a)
    column = moa.drop([k + 1, k], moa.take([n, k + 1], a)) / pivot
    row = moa.drop([k, k + 1], moa.take([k + 1, n], a))
    rest = moa.drop([k + 1, k + 1], a) - moa.inner("add", "mul", column, row)
    return moa.insert([k + 1, k + 1], rest, moa.insert([k + 1, k], column, a))


@pytest.mark.parametrize("n", [2, 5])
def test_lu_step_by_step(n: int) -> None:
    matrix = np.random.default_rng(n).random((n, n)) + n * np.eye(n)
    factors = matrix
    for k in range(n - 1):
        step = moa.jit(lambda a, k=k: lu_step(a, k, n)).lower(moa.ArraySpec((n, n)))
        for stage in STAGES:
            (result,) = interpret_module(step.module(stage), "main", [factors])
            np.testing.assert_allclose(result, step(factors), 1e-13, err_msg=stage)
        factors = step(factors)
    lower, upper = np.tril(factors, -1) + np.eye(n), np.triu(factors)
    np.testing.assert_allclose(lower @ upper, matrix, rtol=1e-12)
