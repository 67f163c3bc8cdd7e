"""Choices of which one side is evaluated have vector code, as catenations are."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.rebuild import comprehensions

Program = Callable[..., Any]


def beside(a: Any, b: Any) -> Any:
    """Rows of two matrices, one after the other."""
    return moa.omega(moa.cat, [1, 1], a, b)


def rotated_halves(x: Any) -> Any:
    """The second half of each row negated, then the first."""
    half = x.shape[1] // 2
    first = moa.omega(lambda row: moa.take((half,), row), [1], x)
    second = moa.omega(lambda row: moa.drop((half,), row), [1], x)
    return beside(0.0 - second, first)


def padded(x: Any) -> Any:
    """Rows between two zeros."""
    zero = moa.omega(lambda row: moa.take((1,), row) * 0.0, [1], x)
    return beside(beside(zero, x), zero)


def attended(q: Any, k: Any, more: Any, v: Any, others: Any) -> Any:
    """Attention to keys in two arrays."""
    keys = moa.omega(moa.cat, [2, 2], k, more)
    return moa.attention(q, keys, moa.omega(moa.cat, [2, 2], v, others))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agree(program: Program, arrays: list[Any]) -> None:
    """Check that a program has vector code, and that results are the interpreter's."""
    compiled = moa.jit(program).lower(*arrays)
    (function,) = functions_of(compiled.module("fused"))
    kernels = len(comprehensions(function))
    target = compiled.module("target")
    assert sum(op.name == "scf.parallel" for op in target.walk()) == kernels
    expected = np.asarray(moa.interpret(program, *arrays))
    size = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(compiled(*arrays), expected, 3e-6, 3e-6 * size)


ON_ROWS: dict[str, Program] = {
    "cat of rows": beside,
    "cat of planes": lambda a, b: moa.cat(a, moa.transpose(moa.transpose(b))),
    "sum": lambda a, b: moa.omega(lambda r: moa.reduce("add", r), [1], beside(a, b)),
    "softmax": lambda a, b: library.softmax(beside(a, b)),
    "three": lambda a, b: beside(beside(a, b), a),
    "both sides computed": lambda a, b: beside(moa.exp(a), 1.0 / (b * b + 1.0)),
    "turned": lambda a, b: moa.transpose(beside(a, b)),
    "product over the cat": lambda a, b: library.matmul(
        beside(a, b), moa.transpose(beside(b, a))
    ),
    "product of rows": lambda a, b: library.matmul(
        moa.cat(a, a), moa.transpose(moa.cat(a, a) * 2.0)
    ),
    "halves": lambda a, b: rotated_halves(beside(a, a)),
    "padded": lambda a, b: padded(a),
}


@pytest.mark.parametrize("name", ON_ROWS)
def test_catenations(name: str) -> None:
    a, b = (numbers(5, n, seed=n) for n in (17, 31))
    agree(ON_ROWS[name], [a, a * 2.0 if name == "cat of planes" else b])


@pytest.mark.parametrize("name", ["cat of rows", "sum", "three", "turned", "padded"])
def test_pieces_of_every_length(name: str) -> None:
    """Where they meet below, at and above lanes, in one kernel."""
    specs = [moa.ArraySpec(("m", n), np.float32) for n in "nk"]
    kernel = moa.jit(ON_ROWS[name]).lower(*specs)
    for columns in ((1, 1), (7, 2), (16, 16), (17, 31), (40, 3), (4, 0), (0, 18)):
        a, b = (numbers(5, n, seed=n) for n in columns)
        if name == "padded" and not columns[0]:
            continue
        expected = moa.interpret(ON_ROWS[name], a, b)
        np.testing.assert_allclose(kernel(a, b), expected, 2e-6, 2e-6)


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16, np.int32, np.bool_])
def test_element_types(dtype: Any) -> None:
    a, b = (numbers(5, n, seed=n).astype(dtype) for n in (19, 14))
    for program in (beside, lambda a, b: moa.transpose(beside(a, b))):
        result = moa.jit(program)(a, b)
        np.testing.assert_array_equal(result, moa.interpret(program, a, b))


def test_keys_in_two_arrays() -> None:
    q, k, more = (numbers(2, m, 16, seed=m) for m in (21, 3, 17))
    agree(attended, [q, k, more, k, more])


@pytest.mark.parametrize("shape", [(4, 0, 5), (0, 3, 2), (3, 7, 5)])
def test_an_index_is_not_divided_by_an_extent_of_0(shape: tuple[int, ...]) -> None:
    """What is not chosen has an index, too: of an array without elements."""

    def program(a: Any, b: Any) -> Any:
        return moa.cat(moa.reverse(moa.ravel(a)), b)

    kernel = moa.jit(program).lower(moa.ArraySpec((None,) * 3), moa.ArraySpec((None,)))
    assert kernel.schedules
    a, b = np.random.default_rng(0).normal(size=shape), np.arange(3.0)
    np.testing.assert_array_equal(kernel(a, b), np.append(a.ravel()[::-1], b))
