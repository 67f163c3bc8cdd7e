"""Scaled dot-product attention, by definition."""

from __future__ import annotations

import math
from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa
from moa_dialect.library.linear import matmul
from moa_dialect.library.softmax import softmax


def attention(
    q: Any, k: Any, v: Any, scale: float | None = None, is_causal: bool = False
) -> Any:
    """`softmax(scale * (Q +•× ⊘K)) +•× V`.

    Args:
        q: queries, shape (..., n, d), floating point.
        k: keys, shape (..., m, d), the leading axes and dtype of q.
        v: values, shape (..., m, e), likewise.
        scale: multiplies the scores; 1 / sqrt(d) if None.
        is_causal: query i sees key j only if j <= i.

    Returns:
        Shape (..., n, e). Source: Vaswani et al., *Attention Is All You Need* (2017),
        equation 1; in MoA: Mullin and Hains, *Attention at the Theoretical Minimum*
        (2026), equation 8.

    Raises:
        ShapeError: if the last extent of q is unknown and no scale is given.
    """
    if scale is None:
        width = q.shape[-1]
        if width is None:
            raise ShapeError(
                "attention: expected a scale or queries of known width, got neither"
            )
        scale = 1 / math.sqrt(width)

    def scores(queries: Any, keys: Any) -> Any:
        products = moa.inner("add", "mul", queries, moa.transpose(keys))
        scaled = scale * products
        if not is_causal:
            return scaled
        rows = moa.iota(moa.psi([0], moa.shape(queries)))
        columns = moa.iota(moa.psi([0], moa.shape(keys)))
        visible = moa.outer("ge", rows, columns)
        return moa.where(visible, scaled, -math.inf)

    return matmul(softmax(moa.omega(scores, (2, 2), q, k)), v)
