"""Softmax and the logarithm of a sum of exponentials, over the last axis."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32


def row_maximum(x: Any) -> Any:
    """`⌈ red` of every row: shape (..., n) to (...)."""
    return moa.omega(_maximum, 1, x)


def row_sum(x: Any) -> Any:
    """`+ red` of every row: shape (..., n) to (...)."""
    return moa.omega(_sum, 1, x)


def _maximum(row: Any) -> Any:
    return moa.reduce("max", row)


def _sum(row: Any) -> Any:
    return moa.reduce("add", row)


@in_f32
def softmax(x: Any) -> Any:
    """`exp(x - max) / sum exp(x - max)` over the last axis.

    Args:
        x: shape (..., n), floating point.

    Returns:
        The same shape; every row sums to 1.
    """
    shifted = moa.omega("sub", (1, 0), x, row_maximum(x))
    exponentials = moa.exp(shifted)
    return moa.omega("div", (1, 0), exponentials, row_sum(exponentials))


@in_f32
def logsumexp(x: Any) -> Any:
    """`max + log(sum exp(x - max))` over the last axis.

    Args:
        x: shape (..., n), floating point, finite.

    Returns:
        Shape (...).
    """
    maximum = row_maximum(x)
    shifted = moa.omega("sub", (1, 0), x, maximum)
    return maximum + moa.log(row_sum(moa.exp(shifted)))
