"""Statistics over the last axis, from centred values."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from moa_dialect.errors import DTypeError, OptionError
from moa_dialect.frontend import functions as moa
from moa_dialect.library.broadcasting import extent
from moa_dialect.library.narrow import in_f32
from moa_dialect.library.softmax import row_sum


@in_f32
def mean(x: Any) -> Any:
    """`sum x / n` over the last axis.

    Args:
        x: shape (..., n), floating point.

    Returns:
        Shape (...); NaN over an empty row.
    """
    return row_sum(x) / _count(x)


@in_f32
def variance(x: Any, ddof: int = 0) -> Any:
    """`sum (x - mean)² / (n - ddof)` over the last axis.

    Args:
        x: shape (..., n), floating point.
        ddof: what is taken off the number of elements: 1 for the unbiased estimate.

    Returns:
        Shape (...); for n <= ddof NaN or infinite, as in NumPy.

    Raises:
        OptionError: for a negative ddof.
    """
    deviations = centred(x)
    return row_sum(deviations * deviations) / _count(x, ddof)


@in_f32
def covariance(x: Any, y: Any, ddof: int = 0) -> Any:
    """`sum (x - mean)(y - mean) / (n - ddof)` over the last axes.

    Args:
        x: shape (..., n), floating point.
        y: likewise.
        ddof: as for variance.

    Returns:
        Shape (...).
    """
    return row_sum(centred(x) * centred(y)) / _count(x, ddof)


@in_f32
def covariance_matrix(x: Any, ddof: int = 0) -> Any:
    """`⊘C +•× C / (n - ddof)` with C the columns of x less their means.

    Args:
        x: shape (..., n, p): n observations of p variables, floating point.
        ddof: as for variance.

    Returns:
        Shape (..., p, p).
    """

    def cell(x: Any) -> Any:
        columns = moa.transpose(x)
        rows = centred(columns)
        products = moa.inner("add", "mul", rows, moa.transpose(rows))
        return products / _count(columns, ddof)

    return moa.omega(cell, 2, x)


@in_f32
def skewness(x: Any) -> Any:
    """`m3 / m2^(3/2)` over the last axis, of the central moments.

    Args:
        x: shape (..., n), floating point.

    Returns:
        Shape (...); NaN for a row of equal elements.
    """
    deviations = centred(x)
    squares = deviations * deviations
    second = mean(squares)
    return mean(squares * deviations) / (second * moa.sqrt(second))


@in_f32
def kurtosis(x: Any, excess: bool = True) -> Any:
    """`m4 / m2²` over the last axis, of the central moments; less 3 for the excess.

    Args:
        x: shape (..., n), floating point.
        excess: subtract the 3 of a normal distribution.

    Returns:
        Shape (...); NaN for a row of equal elements.
    """
    deviations = centred(x)
    squares = deviations * deviations
    second = mean(squares)
    ratio = mean(squares * squares) / (second * second)
    return ratio - 3.0 if excess else ratio


def centred(x: Any) -> Any:
    """Every element less the mean of its row."""
    return moa.omega("sub", (1, 0), x, mean(x))


def _count(x: Any, ddof: Any = 0) -> Any:
    """The number of elements of a row, less ddof, not below 0, in the dtype of x."""
    if isinstance(ddof, bool) or not isinstance(ddof, Integral):
        raise DTypeError(f"expected an integer as ddof, got {ddof!r}")
    if ddof < 0:
        raise OptionError(f"expected a ddof of at least 0, got {ddof}")
    count = extent(x, x.ndim - 1)
    return moa.cast(moa.maximum(count - int(ddof), 0) if ddof else count, x.dtype)
