"""Selection of the largest elements of rows."""

from __future__ import annotations

import math
from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.broadcasting import extent
from moa_dialect.library.softmax import softmax

MOST_MAXIMA = 4
"""Up to this many the largest are found one after the other."""


def softmax_top_k(x: Any, k: int) -> tuple[Any, Any]:
    """The k largest of softmax over the last axis: `(k △ gd x) ψ softmax x`.

    The order of the probabilities is that of the logits; equal logits stay in place. Up
    to 4 are found one after the other, each the maximum of what comes after the one
    before: `2 k` passes over a row. Beyond, by the order of the whole row, for which
    all pairs are compared.

    Args:
        x: shape (..., n), floating point; NaN counts as larger than every number.
        k: how many, at most n.

    Returns:
        The probabilities, largest first, and their places (index), both (..., k).

    Raises:
        ShapeError: if k is more than n.
    """

    def places(row: Any) -> Any:
        if 0 <= k <= MOST_MAXIMA:
            return _places_of_maxima(row, k)
        return moa.take(k, moa.grade_down(row))

    def values(row: Any, places: Any) -> Any:
        return moa.psi(moa.reshape([k, 1], places), row)

    chosen = moa.omega(places, 1, x)
    return moa.omega(values, (1, 1), softmax(x), chosen), chosen


def _places_of_maxima(row: Any, k: int) -> Any:
    """`k △ gd row` by maxima: NaN before all numbers, equal elements in their order."""
    count = extent(row, 0)
    numbers = moa.iota(count)
    slots = found = moa.take(k, numbers)
    is_left: Any = None
    for slot in range(k):
        left = row if is_left is None else moa.where(is_left, row, -math.inf)
        value = moa.reduce("max", left)
        is_equal = (row == value) | ((row != row) & (value != value))
        is_it = is_equal if is_left is None else is_equal & is_left
        place = moa.reduce("min", moa.where(is_it, numbers, count))
        found = moa.where(slots == slot, place, found)
        is_less = (row < value) | ((row == row) & (value != value))
        is_left = is_less | (is_equal & (numbers > place))
    return found
