"""Gradients of attention, by recomputation of its weights.

With the logarithm L of the denominators, which `attention(..., return_lse=True)` gives,
every weight is an expression of its own score: no sum over keys is needed again, and
none of the matrices below is stored.

    S = scale × (Q +•× ⊘K) + B         P = exp(S -Ω<1 0> L)
    D = + red Ω<1> (dO × O)            dS = P × ((dO +•× ⊘V) -Ω<1 0> D)
    dV = (⊘P) +•× dO                   dQ = scale × (dS +•× K)
    dB = dS                            dK = scale × ((⊘dS) +•× Q)

Source: Dao et al., *FlashAttention* (2022), appendix B.2, where the same is derived by
hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa
from moa_dialect.library.attention import (
    factor,
    for_each_head,
    products,
    with_visible_keys,
)
from moa_dialect.library.broadcasting import stretched
from moa_dialect.library.linear import matmul
from moa_dialect.library.narrow import widened
from moa_dialect.library.softmax import row_sum
from moa_dialect.types import dtype_of


def attention_gradients(
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    gradient: Any,
    *,
    bias: Any = None,
    scale: Any = None,
    is_causal: bool = False,
) -> tuple[Any, Any, Any]:
    """The gradients of `attention(q, k, v)` for q, k and v.

    Args:
        q: queries, shape (..., n, d), floating point.
        k: keys, shape (..., m, d), perhaps of fewer heads.
        v: values, shape (..., m, e), of as many heads as the keys.
        out: the result of attention, shape (..., n, e).
        lse: the logarithm of the denominators, shape (..., n); f32 for f16 and bf16.
        gradient: that of the result, shape (..., n, e).
        bias: as for attention.
        scale: as for attention.
        is_causal: as for attention.

    Returns:
        Three arrays in the shapes and the dtype of q, k and v. A row that sees no key
        has the gradient 0.

    Raises:
        ShapeError: for shapes that do not fit.
    """
    delta = row_products(gradient, out)
    options = {"bias": bias, "scale": scale, "is_causal": is_causal}
    of_keys = key_gradient(q, k, v, lse, delta, gradient, **options)
    of_values = value_gradient(q, k, lse, gradient, **options)
    return (
        query_gradient(q, k, v, lse, delta, gradient, **options),
        _narrowed(summed_by_head(of_keys, k), k),
        _narrowed(summed_by_head(of_values, v), v),
    )


def row_products(a: Any, b: Any) -> Any:
    """`+ red Ω<1> (A × B)`, of half precision in f32: shape (..., n, e) to (..., n)."""
    return row_sum(widened(a) * widened(b))


def query_gradient(
    q: Any,
    k: Any,
    v: Any,
    lse: Any,
    delta: Any,
    gradient: Any,
    *,
    bias: Any = None,
    scale: Any = None,
    is_causal: bool = False,
) -> Any:
    """`scale × (dS +•× K)`, the gradient for q.

    Args:
        q: shape (..., n, d).
        k: shape (..., m, d).
        v: shape (..., m, e).
        lse: shape (..., n).
        delta: `row_products` of the gradient and the result, shape (..., n).
        gradient: shape (..., n, e).
        bias: as for attention.
        scale: as for attention.
        is_causal: as for attention.

    Returns:
        Shape (..., n, d), the dtype of q.

    Raises:
        ShapeError: for shapes that do not fit.
    """
    keys = for_each_head(widened(k), q)
    changes = _score_gradients(q, k, v, lse, delta, gradient, bias, scale, is_causal)
    return _narrowed(factor(scale, q) * matmul(changes, keys), q)


def key_gradient(
    q: Any,
    k: Any,
    v: Any,
    lse: Any,
    delta: Any,
    gradient: Any,
    *,
    bias: Any = None,
    scale: Any = None,
    is_causal: bool = False,
) -> Any:
    """`scale × (⊘dS +•× Q)`, the gradient for the keys as each query head sees them.

    Args, errors: as for `query_gradient`.

    Returns:
        Shape (..., m, d) with the leading axes of q: if heads share a key, the gradient
        for k is the sum over them, `summed_by_head`. f32 for half precision.
    """
    changes = _score_gradients(q, k, v, lse, delta, gradient, bias, scale, is_causal)
    turned = moa.omega(moa.transpose, 2, changes)
    return factor(scale, q) * matmul(turned, widened(q))


def value_gradient(
    q: Any,
    k: Any,
    lse: Any,
    gradient: Any,
    *,
    bias: Any = None,
    scale: Any = None,
    is_causal: bool = False,
) -> Any:
    """`⊘P +•× dO`, the gradient for the values as each query head sees them.

    Args:
        q: shape (..., n, d).
        k: shape (..., m, d).
        lse: shape (..., n).
        gradient: shape (..., n, e).
        bias: as for attention.
        scale: as for attention.
        is_causal: as for attention.

    Returns:
        Shape (..., m, e) with the leading axes of q, as `key_gradient`.

    Raises:
        ShapeError: for shapes that do not fit.
    """
    weights = _weights(q, k, lse, bias, scale, is_causal)
    return matmul(moa.omega(moa.transpose, 2, weights), widened(gradient))


def summed_by_head(each: Any, like: Any) -> Any:
    """Planes of query heads, summed over those that share a head of `like`.

    Args:
        each: shape (..., H_q, m, d).
        like: an array of which only the number of heads is used, shape (..., H, *, *).

    Returns:
        Shape (..., H, m, d); each itself if it has as many heads.
    """
    if each.ndim < 3:
        return each
    axis = each.ndim - 3
    heads, wanted = each.shape[axis], like.shape[axis]
    if heads == wanted or not heads or not wanted:
        return each
    rest = [other for other in range(each.ndim) if other != axis]
    order = [*rest, axis]
    last = moa.transpose(each, [order.index(other) for other in range(each.ndim)])

    def joined(cell: Any) -> Any:
        return row_sum(moa.reshape([wanted, heads // wanted], cell))

    return moa.transpose(moa.omega(joined, 1, last), order)


def bias_gradient(
    q: Any,
    k: Any,
    v: Any,
    lse: Any,
    delta: Any,
    gradient: Any,
    *,
    bias: Any,
    summed: Sequence[int] = (),
    scale: Any = None,
    is_causal: bool = False,
) -> Any:
    """`dS`, the gradient for the bias, summed over axes that the bias repeats.

    Args:
        q: as for `query_gradient`, and so k, v, lse, delta, gradient and the rest.
        k: keys.
        v: values.
        lse: logarithms.
        delta: sums of the rows.
        gradient: that of the result.
        bias: as for attention.
        summed: the axes of (..., n, m) to sum over, ascending.
        scale: as for attention.
        is_causal: as for attention.

    Returns:
        Shape (..., n, m) without the axes summed over; f32 for half precision.

    Raises:
        ShapeError: for shapes that do not fit, or an axis that is not there.
    """
    result = _score_gradients(q, k, v, lse, delta, gradient, bias, scale, is_causal)
    for axis in reversed(summed):
        if not 0 <= axis < result.ndim:
            raise ShapeError(
                f"bias_gradient: expected an axis of {result.ndim}, got {axis}"
            )
        order = [other + (other < axis) for other in range(result.ndim)]
        order[axis] = 0
        result = moa.reduce("add", moa.transpose(result, order))
    return result


def _weights(q: Any, k: Any, lse: Any, bias: Any, scale: Any, is_causal: bool) -> Any:
    """`exp(S - L)`, and 0 in rows that see no key."""
    q, k = widened(q), for_each_head(widened(k), q)
    scores = factor(scale, q) * products(q, k)
    if bias is not None:
        bias = stretched(widened(bias), scores, q.ndim, "attention_gradients: bias")
        scores = scores + bias
    if is_causal:
        scores = moa.omega(with_visible_keys(True, None), 2, scores)
    # The logarithm of no keys is -inf, and -inf - -inf is NaN.
    known = moa.where(lse == -math.inf, math.inf, lse)
    return moa.exp(moa.omega("sub", (1, 0), scores, known))


def _score_gradients(
    q: Any,
    k: Any,
    v: Any,
    lse: Any,
    delta: Any,
    gradient: Any,
    bias: Any,
    scale: Any,
    is_causal: bool,
) -> Any:
    """`P × ((dO +•× ⊘V) -Ω<1 0> D)`."""
    weights = _weights(q, k, lse, bias, scale, is_causal)
    values = for_each_head(widened(v), q)
    changes = moa.omega("sub", (1, 0), products(widened(gradient), values), delta)
    return weights * changes


def _narrowed(a: Any, like: Any) -> Any:
    if a.element_type == like.element_type:
        return a
    return moa.cast(a, dtype_of(like.element_type))
