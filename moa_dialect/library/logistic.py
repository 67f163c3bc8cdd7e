"""The logistic function, element by element."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32


@in_f32
def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`, with no exponential above 1.

    With `e = exp(-|x|)` it is `1 / (1 + e)`, and `e / (1 + e)` for x below 0. So
    nothing overflows, and small results are as exact as others.

    Args:
        x: any shape, floating point.

    Returns:
        The same shape.
    """
    small = moa.exp(moa.negative(moa.absolute(x)))
    return moa.where(x < 0.0, small, 1.0) / (1.0 + small)
