"""Indices that come from data are checked beside vector code, each where it is used."""

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

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import IndexRangeError
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.lift import LiftPass

Program = Callable[..., Any]

IN_LANES = {
    "auto": "auto",
    "rows": "i=procs,regs:2,lanes:4;p=chunk:8,regs:3",
    "columns": "p=chunk:2,block:2,regs:2,lanes:4",
}


def vectorized(program: Program, arrays: list[Any], schedule: str) -> Program:
    """A program compiled under a schedule, which has to have vector code."""
    module = moa.jit(program).lower(*arrays).module("fused")
    LiftPass(schedule).apply(Context(), module)
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    return kernel_of(module, entries(module)[0])


def rows_and_classes(rows: int, columns: int) -> list[np.ndarray]:
    random = np.random.default_rng(rows * columns)
    logits = random.standard_normal((rows, columns)).astype(np.float32)
    return [logits, random.integers(0, columns, rows)]


def chosen(x: Any, places: Any) -> Any:
    """The element of each row at a place of its own."""
    return moa.omega(lambda r, k: moa.psi(moa.reshape([1], k), r), (1, 0), x, places)


def sum_of_chosen(x: Any, places: Any) -> Any:
    return moa.reduce("add", chosen(x, places))


@pytest.mark.parametrize("schedule", IN_LANES.values(), ids=IN_LANES)
@settings(max_examples=8, deadline=None)
@given(rows=st.sampled_from([1, 2, 7, 8, 9, 17]), columns=st.sampled_from([1, 15, 33]))
def test_losses_of_classes(schedule: str, rows: int, columns: int) -> None:
    arrays = rows_and_classes(rows, columns)
    run = vectorized(library.cross_entropy, arrays, schedule)
    expected = moa.interpret(library.cross_entropy, *arrays)
    np.testing.assert_allclose(run(*arrays), expected, 3e-6, 3e-6)


@pytest.mark.parametrize("schedule", IN_LANES.values(), ids=IN_LANES)
def test_a_class_out_of_range_is_an_error(schedule: str) -> None:
    logits, classes = rows_and_classes(9, 33)
    run = vectorized(library.cross_entropy, [logits, classes], schedule)
    for wrong in (33, -1):
        classes[5] = wrong
        with pytest.raises(IndexRangeError, match="out of range of axis 0"):
            run(logits, classes)
        classes[5] = 0
    run(logits, classes)


@pytest.mark.parametrize("rows", [1, 7, 8, 15, 16, 17, 40])
def test_a_fold_of_chosen_elements(rows: int) -> None:
    """In the last row of lanes only those that have an index read, and check."""
    arrays = rows_and_classes(rows, 5)
    run = vectorized(sum_of_chosen, arrays, IN_LANES["columns"])
    np.testing.assert_allclose(
        run(*arrays), moa.interpret(sum_of_chosen, *arrays), 1e-5, 1e-5
    )
    arrays[1][-1] = 5
    with pytest.raises(IndexRangeError, match="expected less than 5, got 5"):
        run(*arrays)


def test_a_check_is_made_even_where_a_fold_has_no_index() -> None:
    """What is checked does not depend on the extent of what is folded."""

    def columns(x: Any, places: Any) -> Any:
        return moa.omega(
            lambda a, k: moa.reduce("add", moa.psi(moa.reshape([1], k), moa.transpose(a))),
            (2, 0), x, places,
        )  # fmt: skip

    specs = [moa.ArraySpec((2, "n", 4), np.float32), moa.ArraySpec((2,), np.int64)]
    run = moa.jit(columns).lower(*specs)
    for n in (0, 3):
        x = np.ones((2, n, 4), np.float32)
        np.testing.assert_array_equal(run(x, np.array([3, 0])), [n, n])
        with pytest.raises(IndexRangeError, match="expected less than 4, got 7"):
            run(x, np.array([1, 7]))


def test_losses_of_a_linear_classifier() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((19, 8)).astype(np.float32)
    weight = random.standard_normal((21, 8)).astype(np.float32)
    arrays = [x, weight, random.integers(0, 21, 19)]
    run = vectorized(library.linear_cross_entropy, arrays, "auto")
    expected = moa.interpret(library.linear_cross_entropy, *arrays)
    np.testing.assert_allclose(run(*arrays), expected, 1e-5, 1e-5)
    arrays[2][3] = 21
    with pytest.raises(IndexRangeError):
        run(*arrays)


@pytest.mark.parametrize("columns", [5, 16, 40, 150])
def test_the_largest_of_each_row(columns: int) -> None:
    """Results of few elements in lanes of their own, after passes with more of them."""
    x = np.random.default_rng(columns).standard_normal((7, columns)).astype(np.float32)

    def program(x: Any) -> Any:
        return library.softmax_top_k(x, 3)

    found = moa.jit(program)(x)
    for one, other in zip(found, moa.interpret(program, x), strict=True):
        np.testing.assert_allclose(one, other, 3e-6)
    if columns > 5:  # There rows are in the lanes, and each reads where it found them.
        vectorized(program, [x], "auto")
