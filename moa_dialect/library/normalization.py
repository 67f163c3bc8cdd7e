"""Normalisation over the last axis."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32
from moa_dialect.library.statistics import centred, variance


@in_f32
def layernorm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis.

    Args:
        x: shape (..., n), floating point.
        weight: shape (n,), or None for 1.
        bias: shape (n,), or None for 0.
        eps: added to the variance.

    Returns:
        The shape of x. Source: Ba, Kiros and Hinton, *Layer Normalization* (2016).
    """
    deviation = moa.sqrt(variance(x) + eps)
    result = moa.omega("div", (1, 0), centred(x), deviation)
    if weight is not None:
        result = moa.omega("mul", (1, 1), result, weight)
    if bias is not None:
        result = moa.omega("add", (1, 1), result, bias)
    return result
