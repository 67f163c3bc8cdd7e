"""One kernel in vectors serves rows of every length."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel
from moa_dialect.passes.lift import LiftPass, choose
from moa_dialect.passes.machine import MACHINES
from moa_dialect.passes.rebuild import comprehensions


def centred_and_squares(x: Any) -> Any:
    """Two results over the elements of a row, and one for each row."""

    def one(row: Any) -> Any:
        return row - library.mean(row)

    return moa.omega(one, [1], x), library.softmax(x * x), library.logsumexp(x)


ROWS: dict[str, Callable[..., Any]] = {
    "softmax": library.softmax,
    "log_softmax": library.log_softmax,
    "layernorm": library.layernorm,
    "rms_norm": library.rms_norm,
    "variance": library.variance,
    "entropy": library.entropy,
    "several": centred_and_squares,
}
SCHEDULES = ("auto", "p=chunk:2,block:2,regs:2,lanes:4")
SPEC = moa.ArraySpec(("m", "n"), np.float64)


@cache
def vectorized(name: str, schedule: str) -> Callable[..., Any]:
    """A program for rows of any length, which has to have vector code."""
    module = moa.jit(ROWS[name]).lower(SPEC).module("fused")
    LiftPass(schedule).apply(Context(), module)
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    return kernel_of(module, entries(module)[0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=20, deadline=None)
@given(
    m=st.sampled_from([0, 1, 3]),
    n=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 300]),
)
def test_rows_of_any_length(name: str, schedule: str, m: int, n: int) -> None:
    """Below, at and above one vector, a block of vectors and a chunk of those."""
    x = np.random.default_rng(n).standard_normal((m, n)) + 10
    found = vectorized(name, schedule)(x)
    expected = moa.interpret(ROWS[name], x)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, 1e-12, 1e-12)


def test_rows_without_elements() -> None:
    """There is nothing to store, and the mean of nothing is not a number."""
    assert vectorized("softmax", "auto")(np.zeros((3, 0))).shape == (3, 0)
    assert np.isnan(vectorized("variance", "auto")(np.zeros((3, 0)))).all()


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"several"}))
def test_rows_of_unknown_length_are_in_the_lanes(name: str) -> None:
    module = moa.jit(ROWS[name]).lower(SPEC).module("fused")
    (function,) = functions_of(module)
    (comprehension,) = comprehensions(function)
    schedule = choose(read_kernel(comprehension, function), MACHINES["avx512"])
    assert schedule is not None
    assert not schedule.lane
