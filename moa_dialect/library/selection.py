"""Selection of the largest elements of rows."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.softmax import softmax


def softmax_top_k(x: Any, k: int) -> tuple[Any, Any]:
    """The k largest of softmax over the last axis: `(k △ gd x) ψ softmax x`.

    The order of the probabilities is that of the logits; equal logits stay in place.

    Args:
        x: shape (..., n), floating point; NaN counts as larger than every number.
        k: how many, at most n.

    Returns:
        The probabilities, largest first, and their places (index), both (..., k).

    Raises:
        ShapeError: if k is more than n.
    """

    def places(row: Any) -> Any:
        return moa.take(k, moa.grade_down(row))

    def values(row: Any, places: Any) -> Any:
        return moa.psi(moa.reshape([k, 1], places), row)

    chosen = moa.omega(places, 1, x)
    return moa.omega(values, (1, 1), softmax(x), chosen), chosen
