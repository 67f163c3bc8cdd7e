"""Distances of points, and the nearest of them."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa


def squared_distances(x: Any, y: Any) -> Any:
    """The squared Euclidean distance of every pair, `X +•f ⊘Y`, `f(a, b) = (a - b)²`.

    Args:
        x: shape (n, d), float or integer.
        y: shape (m, d), the same dtype.

    Returns:
        Shape (n, m).

    Raises:
        ShapeError: unless both have points of the same d.
    """
    return moa.inner("add", _squared_difference, x, moa.transpose(y))


def _squared_difference(a: Any, b: Any) -> Any:
    difference = a - b
    return difference * difference


def nearest(x: Any, y: Any, k: int) -> Any:
    """The indices of the k nearest points: `k △ gu` of each row of distances.

    Args:
        x: shape (n, d), float or integer.
        y: shape (m, d), the same dtype, m at least k.
        k: how many, at least 0.

    Returns:
        Shape (n, k), integers, nearest first; of two at the same distance the first.

    Raises:
        ShapeError: if k is larger than m, or unless both have points of the same d.
    """

    def places(row: Any) -> Any:
        return moa.take(k, moa.grade_up(row))

    return moa.omega(places, 1, squared_distances(x, y))


def nearest_distances(x: Any, y: Any, k: int) -> Any:
    """The squared distances to the k nearest points, `(k △ gu d) ψ d` for each row d.

    Args:
        x: shape (n, d), float or integer.
        y: shape (m, d), the same dtype, m at least k.
        k: how many, at least 0.

    Returns:
        Shape (n, k), the dtype of x, ascending.

    Raises:
        ShapeError: if k is larger than m, or unless both have points of the same d.
    """

    def sorted_part(row: Any) -> Any:
        places = moa.take(k, moa.grade_up(row))
        return moa.psi(moa.reshape([k, 1], places), row)

    return moa.omega(sorted_part, 1, squared_distances(x, y))
