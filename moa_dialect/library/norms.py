"""Norms of rows, and scaling by them, over the last axis."""

from __future__ import annotations

import math
from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32
from moa_dialect.library.softmax import row_maximum, row_sum
from moa_dialect.library.statistics import mean


@in_f32
def rms_norm(x: Any, weight: Any = None, eps: float = 1e-6) -> Any:
    """`x / sqrt(mean(x²) + eps) * weight` over the last axis.

    Args:
        x: shape (..., n), floating point.
        weight: shape (n,), or None for 1.
        eps: added to the mean square.

    Returns:
        The shape of x. Source: Zhang and Sennrich, *Root Mean Square Layer
        Normalization* (2019).
    """
    size = moa.sqrt(mean(x * x) + eps)
    result = moa.omega("div", (1, 0), x, size)
    return result if weight is None else moa.omega("mul", (1, 1), result, weight)


@in_f32
def l2_norm(x: Any) -> Any:
    """`a sqrt(sum (x / a)²)` with `a = max |x|`, over the last axis.

    No square overflows or vanishes that matters. If a is 0, infinite or NaN it is the
    norm itself.

    Args:
        x: shape (..., n), floating point.

    Returns:
        Shape (...): 0 for an empty row.
    """
    largest = magnitude(x)
    ratios = moa.omega("div", (1, 0), x, largest)
    length = largest * moa.sqrt(row_sum(ratios * ratios))
    return moa.where((largest > 0.0) & (largest < math.inf), length, largest)


@in_f32
def absmax_scaled_product(x: Any, weight: Any, bound: float = 127.0) -> Any:
    """`((x * (c / a)) +•× W) * (a / c)` with `a = max |x|` of each row and c a bound.

    What a quantised product computes, without its rounding: every row is scaled to at
    most c, and the product is scaled back. So it is the product itself up to rounding
    errors.

    Args:
        x: shape (..., k), floating point.
        weight: shape (k, m), the same dtype.
        bound: c, the largest magnitude after scaling.

    Returns:
        Shape (..., m). A row of zeros is not scaled; a row that is not finite gives
        NaN.
    """
    largest = magnitude(x)
    largest = moa.where(largest > 0.0, largest, bound)
    scaled = moa.omega("mul", (1, 0), x, bound / largest)
    products = moa.omega(_product, (1, 2), scaled, weight)
    return moa.omega("mul", (1, 0), products, largest / bound)


def magnitude(x: Any) -> Any:
    """`⌈ red |x|` of every row, 0 for an empty one: shape (..., n) to (...)."""
    return moa.maximum(row_maximum(moa.absolute(x)), 0)


def _product(row: Any, weight: Any) -> Any:
    return moa.inner("add", "mul", row, weight)
