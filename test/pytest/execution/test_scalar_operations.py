"""Scalar operations, and what folds and products make of each of them, compiled too."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.errors import DTypeError, MoaError, ShapeError
from moa_dialect.interpreter import interpret_module
from moa_dialect.scalar_semantics import ARRAY_FUNCTIONS

STAGES = ("moa", "dnf", "fused", "onf")
KINDS = {"f8": "float", "f4": "float", "i8": "int", "i4": "int", "?": "bool"}


def everywhere(
    program: Callable[..., Any], arrays: list[np.ndarray], is_static: bool = True
) -> list[tuple[str, Any]]:
    """What a program gives at every stage, interpreted, and compiled."""

    def main(*traced: Any) -> Any:
        return program(*traced)

    specs = [
        moa.ArraySpec(a.shape if is_static else (None,) * a.ndim, a.dtype)
        for a in arrays
    ]
    compiled = moa.jit(main).lower(*specs)
    results: list[tuple[str, Any]] = [
        (stage, interpret_module(compiled.module(stage), "main", arrays)[0])
        for stage in STAGES
    ]
    return [*results, ("compiled", compiled(*arrays))]


# Integer division


def wrapped(value: int, dtype: np.dtype) -> int:
    half = 1 << (8 * dtype.itemsize - 1)
    return (value + half) % (2 * half) - half


DIVISIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda x, y: x // y if y else 0,
    "mod": lambda x, y: x % y if y else x,
}
PYTHON: dict[str, Callable[[Any, Any], Any]] = {
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
}


def integers(dtype: str) -> list[int]:
    least = int(np.iinfo(dtype).min)
    return [least, least + 1, -8, -7, -2, -1, 0, 1, 2, 7, 8, -(least + 1)]


@pytest.mark.parametrize("name", DIVISIONS)
@pytest.mark.parametrize("dtype", ["i8", "i4"])
def test_division_of_integers(name: str, dtype: str) -> None:
    """By zero, and of the least number by -1, too."""
    numbers = integers(dtype)
    pairs = [(x, y) for x in numbers for y in numbers]
    x, y = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    expected = [wrapped(DIVISIONS[name](a, b), x.dtype) for a, b in pairs]
    for where, result in everywhere(PYTHON[name], [x, y], is_static=False):
        assert result.dtype == x.dtype, where
        assert result.tolist() == expected, where


@pytest.mark.parametrize("name", DIVISIONS)
def test_division_of_an_index(name: str) -> None:
    """Of type index, by each number that an index vector has."""

    def program(y: Any) -> Any:
        places = moa.iota(5) - 2
        return moa.outer(name, places, moa.cast(y, "index"))

    divisors = np.array([-3, -1, 0, 1, 2])
    expected = [
        [DIVISIONS[name](x, y) for y in divisors.tolist()] for x in range(-2, 3)
    ]
    for where, result in everywhere(program, [divisors]):
        assert result.tolist() == expected, where


@given(x=st.integers(-(2**63), 2**63 - 1), y=st.integers(-(2**63), 2**63 - 1))
def test_quotient_and_remainder_make_the_dividend(x: int, y: int) -> None:
    quotient, remainder = (
        int(apply(np.array(x), np.array(y))) for apply in (moa.floor_divide, moa.mod)
    )
    assert wrapped(quotient * y + remainder, np.dtype("i8")) == x
    assert y == 0 or (0 <= remainder < y if y > 0 else y < remainder <= 0)


def test_operators_of_python() -> None:
    numbers = np.array([7, -7, 0])
    for where, result in everywhere(lambda a: (a // 2) * 10 + a % 2, [numbers]):
        assert result.tolist() == [31, -39, 0], where
    for where, result in everywhere(lambda a: 7 // a - 7 % a, [numbers]):
        assert result.tolist() == [1, -1, -7], where
    for where, result in everywhere(
        lambda a: moa.scan(lambda x, y: x % 5 + y // 2, a), [numbers]
    ):
        assert result.tolist() == [7, -2, 3], where


@pytest.mark.parametrize("name", DIVISIONS)
def test_division_is_of_integers(name: str) -> None:
    message = f"{name}: expected elements of kind int, got f64 \\(float\\)"
    with pytest.raises(DTypeError, match=message):
        moa.interpret(lambda a: PYTHON[name](a, a), np.ones(2))


# Rounding and signs


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("name", ["ceil", "floor", "sign"])
def test_rounding_and_sign_of_floats(name: str, dtype: str) -> None:
    values = [-np.inf, -1.5, -1, -0.5, -0.0, 0.0, 0.3, 1, 2.7, np.inf, np.nan]
    array = np.array(values, dtype)
    expected = getattr(np, name)(array)
    for where, result in everywhere(getattr(moa, name), [array], is_static=False):
        assert result.tobytes() == expected.tobytes(), where


@pytest.mark.parametrize("dtype", ["i8", "i4"])
def test_sign_of_integers(dtype: str) -> None:
    array = np.array(integers(dtype), dtype)
    for where, result in everywhere(moa.sign, [array]):
        assert result.tolist() == np.sign(array).tolist(), where


# Folds and products of every operation


CASES = [
    (name, dtype)
    for name, operation in SCALAR_OPERATIONS.items()
    for dtype, kind in KINDS.items()
    if operation.arity == 2
    and kind in operation.kinds
    and (dtype == "?" or not operation.is_predicate)
]
"""What takes two elements to one of the same type."""


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers for which the order of evaluation matters, and powers stay finite."""
    generator = np.random.default_rng(sum(shape))
    if dtype == "?":
        return generator.random(shape) > 0.5
    if KINDS[dtype] == "int":
        return generator.integers(-5, 6, shape).astype(dtype)
    return (generator.random(shape) + 0.5).astype(dtype)


def right_fold(name: str, elements: list[Any], dtype: np.dtype) -> Any:
    """`e0 f (e1 f (...))` in plain Python, on arrays of one shape."""
    compute = ARRAY_FUNCTIONS[name]
    *rest, last = map(np.asarray, elements)
    with np.errstate(all="ignore"):
        return reduce(lambda acc, e: compute(e, acc).astype(dtype), rest[::-1], last)


def agrees(result: Any, expected: np.ndarray, where: str) -> None:
    assert result.dtype == expected.dtype, where
    if expected.dtype.kind == "f":
        rtol = 64 * float(np.finfo(expected.dtype).eps)
        np.testing.assert_allclose(result, expected, rtol, err_msg=where)
    else:
        np.testing.assert_array_equal(result, expected, where)


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_reduce_and_scan_are_right_folds(
    name: str, dtype: str, is_static: bool
) -> None:
    for shape in ((1,), (5,), (4, 3)):
        a = values(dtype, shape)
        folds = [right_fold(name, list(a[: k + 1]), a.dtype) for k in range(len(a))]
        for where, result in everywhere(lambda a: moa.reduce(name, a), [a], is_static):
            agrees(result, folds[-1], where)
        for where, result in everywhere(lambda a: moa.scan(name, a), [a], is_static):
            agrees(result, np.stack(folds), where)


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_inner_is_a_right_fold_of_products(
    name: str, dtype: str, is_static: bool
) -> None:
    """Each operation to combine, and each for the products."""
    other = "ne" if dtype == "?" else "add"
    a, b = values(dtype, (2, 4)), values(dtype, (4, 3))
    for combine, function in ((name, other), (other, name)):
        compute = ARRAY_FUNCTIONS[function]
        with np.errstate(all="ignore"):
            products = [compute(a[:, k, None], b[None, k, :]) for k in range(4)]
        expected = right_fold(combine, products, a.dtype)
        for where, result in everywhere(
            lambda a, b, f=combine, g=function: moa.inner(f, g, a, b), [a, b], is_static
        ):
            agrees(result, expected, where)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name, operation in SCALAR_OPERATIONS.items()
        for dtype, kind in KINDS.items()
        if operation.arity == 2 and kind in operation.kinds
    ],
)
def test_outer_has_every_pair(name: str, dtype: str) -> None:
    a, b = values(dtype, (4,)), values(dtype, (2, 3))
    with np.errstate(all="ignore"):
        expected = ARRAY_FUNCTIONS[name](a[:, None, None], b)
    for where, result in everywhere(lambda a, b: moa.outer(name, a, b), [a, b]):
        agrees(result, expected, where)


# Relations for all elements


ROW = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("relation", "a", "b", "holds"),
    [
        ("eq", ROW, ROW, True),
        ("eq", ROW, ROW[::-1], False),
        ("le", ROW, np.float64(3), True),
        ("lt", ROW, np.float64(3), False),
        ("ne", ROW, np.float64(2), False),
        ("eq", np.array([np.nan]), np.array([np.nan]), False),
        ("lt", np.zeros((0, 3)), np.zeros((0, 3)), True),
        ("eq", np.float64(2), np.float64(2), True),
        ("or", ROW > 1, ROW < 2, True),
    ],
)
def test_all_of(relation: str, a: Any, b: Any, holds: bool) -> None:
    for is_static in (True, False):
        for where, result in everywhere(
            lambda a, b: moa.all_of(relation, a, b),
            [*map(np.asarray, (a, b))],
            is_static,
        ):
            assert result.shape == (), where
            assert bool(result) is holds, where


def test_all_of_a_function_and_of_a_constant() -> None:
    def close(x: Any, y: Any) -> Any:
        return abs(x - y) < 0.25

    assert moa.all_of(close, ROW, ROW + 0.125)
    assert not moa.all_of(close, ROW, ROW + 0.5)
    assert moa.all_of("ge", ROW, 1)


@pytest.mark.parametrize(
    ("relation", "other", "error", "message"),
    [
        (
            "add",
            ROW,
            DTypeError,
            r"and: expected elements of kind bool, got f64 \(float\)",
        ),
        (
            "eq",
            ROW[:2],
            ShapeError,
            "eq: extents of axis 0 must be equal: "
            r"expected 3 \(axis 0 of \w+\), got 2 \(axis 0 of \w+\)",
        ),
        (
            "eq",
            ROW.astype("f4"),
            DTypeError,
            "eq: operands must have one element type, got f64, f32",
        ),
    ],
)
def test_all_of_what_is_no_relation(
    relation: str, other: Any, error: type[MoaError], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        moa.all_of(relation, ROW, other)
