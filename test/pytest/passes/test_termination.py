"""Compiling ends: shared programs quickly, programs that explode with an error.

Psi reduction is call by name: what is used at several indices is derived for each, so
that a normal form can be exponentially larger than its program. A limit on the number
of reduction steps turns that into an error. Times here are generous bounds on hangs, a
factor of ten and more above what is measured, never performance.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError
from moa_dialect.passes.to_dnf import ToDnfPass

V = np.arange(3.0)
A = np.arange(6.0).reshape(2, 3) / 8


@contextmanager
def within(seconds: float) -> Generator[None]:
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < seconds


def lower(program: Callable[..., Any], *arrays: np.ndarray) -> moa.Compiled:
    return moa.jit(program).lower(*arrays)


# Programs that share


@pytest.mark.parametrize("count", [1, 10, 40, 200])
def test_doublings_are_shared(count: int) -> None:
    """`y = y + y`, 40 times: 2^40 additions if each y were derived for both uses."""

    def program(y: Any) -> Any:
        for _ in range(count):
            y = y + y
        return y

    with within(20):
        np.testing.assert_array_equal(moa.jit(program)(V), V * 2.0**count)
        np.testing.assert_array_equal(moa.interpret(program, V), V * 2.0**count)
        text = lower(program, V).text("dnf")
    assert text.count("arith.addf") == count


def test_doublings_under_transposition_are_shared() -> None:
    """Of a matrix only two elements matter, however often it is turned."""

    def program(a: Any) -> Any:
        for _ in range(40):
            a = a + moa.transpose(a)
        return a

    square = np.arange(9.0).reshape(3, 3)
    expected = (square + square.T) * 2.0**39
    with within(20):
        np.testing.assert_array_equal(moa.jit(program)(square), expected)


def test_doublings_inside_of_cells_are_shared() -> None:
    def cell(row: Any) -> Any:
        for _ in range(40):
            row = row + row
        return row

    with within(20):
        result = moa.jit(lambda a: moa.omega(cell, 1, a))(A)
    np.testing.assert_array_equal(result, A * 2.0**40)


def test_doublings_inside_of_scalar_functions_are_shared() -> None:
    def scalar(x: Any, y: Any) -> Any:
        for _ in range(40):
            y = y + y
        return x + y

    with within(20):
        result = moa.jit(lambda v: moa.reduce(scalar, v))(np.array([1.0, 3.0]))
    assert result == 1 + 3 * 2.0**40


def test_doublings_through_cells_of_cells() -> None:
    """Each level applies the one below twice, to the same array."""

    def level(depth: int) -> Callable[[Any], Any]:
        def apply(x: Any) -> Any:
            if depth == 0:
                return x + x
            below = moa.omega(level(depth - 1), 0, x)
            return below + below

        return apply

    with within(20):
        np.testing.assert_array_equal(moa.jit(level(10))(V), V * 2.0**11)


def test_normalisations_of_the_same_rows_are_shared() -> None:
    """25 times softmax of every row: maxima and sums belong to the row."""

    def program(x: Any) -> Any:
        for _ in range(25):
            x = library.softmax(x)
        return x

    with within(60):
        result = moa.jit(program)(A)
    expected = A
    for _ in range(25):
        exponentials = np.exp(expected - expected.max(1, keepdims=True))
        expected = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


# Programs that explode


def alternating(count: int) -> Callable[[Any], Any]:
    """Softmax of the rows, of the columns, of the rows, ...: nothing can be shared."""

    def program(x: Any) -> Any:
        for _ in range(count):
            x = moa.transpose(library.softmax(x))
        return x

    return program


def powers(count: int) -> Callable[[Any], Any]:
    """The square of a sum, over and over: each fold holds two different elements."""

    def program(v: Any) -> Any:
        for _ in range(count):
            v = moa.reduce("add", moa.outer("mul", v, v))
        return v

    return program


@pytest.mark.parametrize(
    ("program", "array"),
    [(alternating(25), A), (powers(25), V), (powers(200), V)],
    ids=["alternating 25", "powers 25", "powers 200"],
)
def test_exponential_programs_are_refused(
    program: Callable[[Any], Any], array: np.ndarray
) -> None:
    with within(60), pytest.raises(CompileError) as caught:
        moa.jit(program)(array)
    message = str(caught.value)
    assert re.search(r"more than \d+ (reduction steps|folds in each other)", message)
    assert "\n" not in message


def test_exponential_programs_can_be_interpreted() -> None:
    """Their meaning does not depend on the normal form."""
    result = moa.interpret(alternating(24), A)
    np.testing.assert_allclose(result.sum(0), 1, rtol=1e-14)


def test_short_chains_compile_and_are_right() -> None:
    for count in (1, 2, 3, 4):
        expected = moa.interpret(alternating(count), A)
        with within(60):
            result = moa.jit(alternating(count))(A)
        np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_the_limit_is_an_option() -> None:
    module = lower(powers(4), V).module("moa")
    ToDnfPass().apply(Context(), module.clone())
    with pytest.raises(CompileError, match="more than 10 reduction steps"):
        ToDnfPass(limit=10).apply(Context(), module)


def test_what_is_within_the_limit_is_compiled_in_bounded_time() -> None:
    """The largest normal form that is not refused is one that can still be compiled.

    The time of what follows psi reduction, upstream's most of all, grows with the
    square of the normal form: 4,100 operations in it (16,000 before LLVM) took 11 s of
    one core, 8,200 took 43 s, 16,400 took 214 s.
    """
    for count in range(8, 25):
        compiled = lower(powers(count), V[:2])
        try:
            size = sum(1 for _ in compiled.module("dnf").walk())
        except CompileError:
            return
        assert size < 8_000, f"accepted: a normal form of {size} operations"


# Programs that are long or deep


def test_long_pointwise_chains() -> None:
    """2,000 operations, one after the other: no stack is as deep as the program."""

    def program(y: Any) -> Any:
        for _ in range(1000):
            y = y * 0.5 + 1.0
        return y

    with within(60):
        result = moa.jit(program)(V)
        interpreted = moa.interpret(program, V)
    expected = V
    for _ in range(1000):
        expected = expected * 0.5 + 1.0
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(interpreted, expected)


def test_long_chains_of_structural_operations() -> None:
    def program(a: Any) -> Any:
        for _ in range(1000):
            a = moa.transpose(a)
        return a

    with within(60):
        np.testing.assert_array_equal(moa.jit(program)(A), A)


def test_long_chains_of_unknown_extents() -> None:
    """Each addition asks for equal extents; one check of them is enough."""

    def program(a: Any, b: Any) -> Any:
        for _ in range(300):
            a = a + b
        return a

    spec = moa.ArraySpec((None, None))
    with within(60):
        compiled = moa.jit(program).lower(spec, spec)
        np.testing.assert_array_equal(compiled(A, np.ones((2, 3))), A + 300)
    assert compiled.text("dnf").count("moa.require") == 2


def test_many_results() -> None:
    with within(60):
        results = moa.jit(lambda a: tuple(a + float(k) for k in range(100)))(V)
    for k, result in enumerate(results):
        np.testing.assert_array_equal(result, V + k)


def test_many_arguments() -> None:
    with within(60):
        result = moa.jit(lambda *arrays: sum(arrays[1:], arrays[0]))(*[V] * 100)
    np.testing.assert_array_equal(result, 100 * V)


@pytest.mark.parametrize("depth", [1, 10, 25])
def test_deeply_nested_omega(depth: int) -> None:
    def nest(level: int) -> Callable[[Any], Any]:
        def apply(x: Any) -> Any:
            return x + 1.0 if level == 0 else moa.omega(nest(level - 1), 0, x)

        return apply

    with within(60):
        np.testing.assert_array_equal(moa.jit(nest(depth))(V), V + 1)


def test_deeply_nested_folds() -> None:
    """Six folds inside of one another; LLVM sees as many loops."""

    def program(v: Any) -> Any:
        outer = v
        for _ in range(5):
            outer = moa.outer("mul", outer, v)
        for _ in range(6):
            outer = moa.reduce("add", outer)
        return outer

    with within(60):
        result = moa.jit(program)(np.array([1.0, 2.0]))
    assert result == 3.0**6


def test_high_ranks() -> None:
    """All orders of up to six axes are compared by `moa-sink`, not of twelve."""
    array = np.arange(2.0**12).reshape((2,) * 12)
    with within(60):
        result = moa.jit(lambda a: moa.transpose(a) + a)(array)
    np.testing.assert_array_equal(result, array.T + array)
