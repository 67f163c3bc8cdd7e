"""Relatives of attention, by definition."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa
from moa_dialect.library.attention import factor, products
from moa_dialect.library.broadcasting import extent
from moa_dialect.library.linear import matmul
from moa_dialect.library.narrow import in_f32
from moa_dialect.library.softmax import row_sum, softmax


@in_f32
def differential_attention(
    q1: Any,
    k1: Any,
    q2: Any,
    k2: Any,
    v: Any,
    weight: Any,
    scale: float | None = None,
) -> Any:
    """`(softmax(S1) - λ softmax(S2)) +•× V` with `S = scale * (Q +•× ⊘K)`.

    Args:
        q1: the first queries, shape (..., n, d), floating point.
        k1: the first keys, shape (..., m, d), the leading axes and dtype of q1.
        q2: the second queries, as q1.
        k2: the second keys, as k1.
        v: values, shape (..., m, e), likewise.
        weight: λ, a number or a scalar of the program.
        scale: multiplies both scores; 1 / sqrt(d) if None.

    Returns:
        Shape (..., n, e). Source: Ye et al., *Differential Transformer* (2024).
    """
    scale = factor(scale, q1)
    first = softmax(scale * products(q1, k1))
    second = softmax(scale * products(q2, k2))
    return matmul(first - weight * second, v)


@in_f32
def sigmoid_attention(
    q: Any,
    k: Any,
    v: Any,
    scale: float | None = None,
    bias: float | None = None,
    is_causal: bool = False,
) -> Any:
    """`σ(scale * (Q +•× ⊘K) + b) +•× V` with `σ(x) = 1 / (1 + exp(-x))`.

    Args:
        q: queries, shape (..., n, d), floating point.
        k: keys, shape (..., m, d), the leading axes and dtype of q.
        v: values, shape (..., m, e), likewise.
        scale: multiplies the scores; 1 / sqrt(d) if None.
        bias: b, a number; `-log m` if None.
        is_causal: query i sees key j only if j <= i.

    Returns:
        Shape (..., n, e). Source: Ramapuram et al., *Theory, Analysis, and Best
        Practices for Sigmoid Self-Attention* (2024).
    """
    scores = factor(scale, q) * products(q, k)
    if bias is None:
        scores = scores - moa.log(moa.cast(extent(k, k.ndim - 2), k.dtype))
    else:
        scores = scores + bias
    weights = 1.0 / (1.0 + moa.exp(moa.negative(scores)))
    return matmul(_causal(weights) if is_causal else weights, v)


@in_f32
def linear_attention(q: Any, k: Any, v: Any, is_causal: bool = False) -> Any:
    """`(ϕ(Q) +•× (⊘ϕ(K) +•× V)) / (ϕ(Q) +•× (+ red ϕ(K)))` with `ϕ(x) = elu(x) + 1`.

    With is_causal the products of queries and keys are the weights, those with j > i
    are 0, and every row is divided by its sum.

    Args:
        q: queries, shape (..., n, d), floating point.
        k: keys, shape (..., m, d), the leading axes and dtype of q.
        v: values, shape (..., m, e), likewise.
        is_causal: query i sees key j only if j <= i.

    Returns:
        Shape (..., n, e). Source: Katharopoulos et al., *Transformers are RNNs* (2020).
    """
    queries, keys = _feature(q), _feature(k)
    if is_causal:
        weights = _causal(products(queries, keys))
        return moa.omega("div", (1, 0), matmul(weights, v), row_sum(weights))
    moments = moa.omega(_moments, (2, 2), keys, v)
    sums = moa.omega(_column_sums, 2, keys)
    rows = moa.omega(_applied, (2, 1), queries, sums)
    return moa.omega("div", (1, 0), matmul(queries, moments), rows)


def _moments(keys: Any, values: Any) -> Any:
    return moa.inner("add", "mul", moa.transpose(keys), values)


def _column_sums(keys: Any) -> Any:
    return moa.reduce("add", keys)


def _applied(queries: Any, sums: Any) -> Any:
    return moa.inner("add", "mul", queries, sums)


def _feature(x: Any) -> Any:
    """`elu(x) + 1`, which is positive."""
    return moa.where(x > 0.0, x + 1.0, moa.exp(x))


def _causal(weights: Any) -> Any:
    """The weights of keys that the queries see, 0 for the others."""

    def masked(weights: Any) -> Any:
        rows, columns = moa.iota(extent(weights, 0)), moa.iota(extent(weights, 1))
        return moa.where(moa.outer("ge", rows, columns), weights, 0.0)

    return moa.omega(masked, 2, weights)
