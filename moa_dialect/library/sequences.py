"""Prefix sums and polynomials."""

from __future__ import annotations

from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa


def prefix_sums(a: Any) -> Any:
    """`+ scan A`: plane k is the sum of the planes 0 to k.

    Args:
        a: shape (n, ...), float or integer.

    Returns:
        The shape of a.

    Raises:
        ShapeError: for a scalar.
    """
    return moa.scan("add", a)


def exclusive_prefix_sums(a: Any) -> Any:
    """`-1 ▽ (0 ++ + scan A)`: plane k is the sum of the planes before plane k.

    Args:
        a: shape (n, ...), float or integer.

    Returns:
        The shape of a; plane 0 is 0.

    Raises:
        ShapeError: for a scalar.
    """
    return moa.drop(-1, moa.cat(0, moa.scan("add", a)))


def horner(coefficients: Any, x: float) -> Any:
    """A polynomial at a number, `f red c` with `f(c, r) = c + x r`, by Horner's rule.

    Args:
        coefficients: shape (n, ...), n at least 1, floating point; plane k belongs to
            x to the power k.
        x: a Python number.

    Returns:
        Shape (...), one value for each column of coefficients.

    Raises:
        ShapeError: for a scalar, or without coefficients.
    """

    def step(coefficient: Any, rest: Any) -> Any:
        return coefficient + x * rest

    return moa.reduce(step, coefficients)


def polynomial(coefficients: Any, points: Any) -> Any:
    """A polynomial at every point: `(p •pow ι n) +•× c`.

    Args:
        coefficients: shape (n, ...), floating point; plane k belongs to power k.
        points: any shape, the dtype of the coefficients.

    Returns:
        The shape of points, then the other axes of coefficients; 0 if n is 0.

    Raises:
        ShapeError: if coefficients is a scalar.
    """
    if not coefficients.ndim:
        raise ShapeError("polynomial: expected an axis of coefficients, got a scalar")
    count = moa.iota(moa.psi([0], moa.shape(coefficients)))
    powers = moa.outer("pow", points, moa.cast(count, points.dtype))
    return moa.inner("add", "mul", powers, coefficients)
