"""The gradients of attention against their definitions in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import ShapeError
from moa_dialect.library.attention_gradients import bias_gradient, row_products

N, M, D, E = 5, 7, 4, 3


def inputs(
    lead: tuple[int, ...] = (), heads: int | None = None
) -> tuple[np.ndarray, ...]:
    """q, k, v and the gradient of the result."""
    random = np.random.default_rng(0)
    shared = lead if heads is None else (*lead[:-1], heads)
    shapes = (*lead, N, D), (*shared, M, D), (*shared, M, E), (*lead, N, E)
    return tuple(random.normal(size=shape) for shape in shapes)


def expected(
    q: Any,
    k: Any,
    v: Any,
    gradient: Any,
    *,
    bias: Any = 0.0,
    scale: float | None = None,
    is_causal: bool = False,
) -> tuple[np.ndarray, ...]:
    """The gradients for q, k, v and the scores, by the matrices of the definition."""
    scale = 1 / math.sqrt(D) if scale is None else scale
    groups = q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1
    keys, values = (np.repeat(a, groups, -3) if groups > 1 else a for a in (k, v))
    scores = scale * q @ keys.swapaxes(-1, -2) + bias
    if is_causal:
        scores = np.where(np.tril(np.ones((N, M))) > 0, scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    weights = powers / powers.sum(-1, keepdims=True)
    of_weights = gradient @ values.swapaxes(-1, -2)
    of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdims=True))

    def summed(a: np.ndarray) -> np.ndarray:
        if groups == 1:
            return a
        return a.reshape(*a.shape[:-3], -1, groups, *a.shape[-2:]).sum(-3)

    return (
        scale * of_scores @ keys,
        summed(scale * of_scores.swapaxes(-1, -2) @ q),
        summed(weights.swapaxes(-1, -2) @ gradient),
        of_scores,
    )


def gradients(*arrays: np.ndarray, **options: Any) -> Any:
    q, k, v, gradient = arrays
    out, lse = moa.attention(q, k, v, return_lse=True, **options)
    return moa.jit(library.attention_gradients)(q, k, v, out, lse, gradient, **options)


CASES: dict[str, tuple[tuple[np.ndarray, ...], dict[str, Any]]] = {
    "matrices": (inputs(), {}),
    "leading axes": (inputs((2, 3)), {"scale": 0.7}),
    "causal": (inputs((2,)), {"is_causal": True}),
    "bias": (inputs((2, 3)), {"bias": np.linspace(-1, 1, 2 * M).reshape(2, 1, 1, M)}),
    "grouped": (inputs((2, 4), heads=2), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_definition(name: str):
    arrays, options = CASES[name]
    found = gradients(*arrays, **options)
    for a, b in zip(found, expected(*arrays, **options), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_the_interpreter_gives_the_same():
    q, k, v, gradient = inputs()
    out, lse = moa.attention(q, k, v, return_lse=True)
    found = moa.interpret(library.attention_gradients, q, k, v, out, lse, gradient)
    for a, b in zip(found, expected(q, k, v, gradient), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_half_precision_is_computed_in_f32():
    arrays = [a.astype(np.float16) for a in inputs((2, 4), heads=2)]
    wide = [a.astype(np.float64) for a in arrays]
    for a, b in zip(gradients(*arrays), expected(*wide), strict=False):
        assert a.dtype == np.float16
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=4e-3, atol=4e-3)


def test_a_row_that_sees_no_key_has_no_gradient():
    arrays = inputs()
    bias = np.zeros((N, 1))
    bias[2] = -np.inf
    of_queries, of_keys, _ = gradients(*arrays, bias=bias)
    assert not of_queries[2].any()
    others = [np.delete(a, 2, 0) if a.shape[0] == N else a for a in arrays]
    _, wanted, _ = gradients(*others)
    np.testing.assert_allclose(of_keys, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("shape", "summed"),
    [((2, 3, N, M), ()), ((2, 1, 1, M), (1, 2)), ((N, 1), (0, 1, 3))],
)
def test_the_gradient_of_a_bias_is_summed_where_it_is_repeated(
    shape: tuple[int, ...], summed: tuple[int, ...]
):
    q, k, v, gradient = inputs((2, 3))
    bias = np.random.default_rng(1).normal(size=shape)
    out, lse = moa.attention(q, k, v, return_lse=True, bias=bias)
    delta = moa.jit(row_products)(gradient, out)
    found = moa.jit(bias_gradient)(
        q, k, v, lse, delta, gradient, bias=bias, summed=summed
    )
    *_, of_scores = expected(q, k, v, gradient, bias=bias)
    np.testing.assert_allclose(found, of_scores.sum(summed), rtol=1e-12, atol=1e-13)


def test_an_axis_that_is_not_there():
    q, k, v, gradient = inputs()
    rows = np.zeros(N)
    with pytest.raises(ShapeError, match="bias_gradient: expected an axis of 2, got 2"):
        moa.jit(bias_gradient)(
            q, k, v, rows, rows, gradient, bias=np.zeros((N, M)), summed=(2,)
        )


def test_no_matrix_is_stored():
    wide, row = moa.ArraySpec((None, D), "f32"), moa.ArraySpec((None,), "f32")
    other = moa.ArraySpec((None, E), "f32")
    specs = wide, wide, other, other, row, other
    program = moa.jit(library.attention_gradients).lower(*specs)
    assert program.intermediates == 0
