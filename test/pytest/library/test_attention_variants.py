"""The relatives of attention against their definitions in NumPy."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import DTypeError, ShapeError

LEADS = [(), (3,), (2, 1, 2)]
SIZES = [(1, 1, 1, 1), (5, 7, 4, 3), (7, 5, 3, 1), (1, 40, 8, 2)]

every_lead = pytest.mark.parametrize("lead", LEADS)


def inputs(
    n: int, m: int, d: int, e: int, lead: Sequence[int] = (), seed: int = 0
) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = (*lead, n, d), (*lead, m, d), (*lead, m, e)
    return [random.normal(size=shape) for shape in shapes]


def products(q: np.ndarray, k: np.ndarray, scale: float | None = None) -> np.ndarray:
    return (
        q
        @ k.swapaxes(-1, -2)
        * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    )


def weights(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def visible(scores: np.ndarray) -> np.ndarray:
    return np.tril(np.ones(scores.shape[-2:]))


def check(program: Any, reference: Any, *arrays: np.ndarray, **options: Any) -> None:
    """In both precisions, compiled for these and for any extents, and interpreted."""
    kernel = moa.jit(program)
    for dtype, bound in ((np.float64, 1e-13), (np.float32, 1e-5)):
        given = [a.astype(dtype) for a in arrays]
        expected = reference(*(a.astype(np.float64) for a in given))
        specs = [moa.ArraySpec((None,) * a.ndim, dtype) for a in given]
        runs: list[Callable[..., Any]] = [
            lambda *a: kernel(*a, **options),
            lambda *a: moa.interpret(program, *a, **options),
            kernel.lower(*specs, **options),
        ]
        for run in runs:
            actual = run(*given)
            assert (actual.shape, actual.dtype) == (expected.shape, dtype)
            distance = np.linalg.norm(actual - expected)
            assert distance <= bound * max(np.linalg.norm(expected), 1)


def cases() -> list[tuple[list[np.ndarray], tuple[int, ...]]]:
    of_sizes = [(inputs(*size), ()) for size in SIZES]
    return of_sizes + [(inputs(4, 5, 3, 2, lead), lead) for lead in LEADS[1:]]


@pytest.mark.parametrize("weight", [0.8, 0.0, -1.5])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_differential_attention(weight: float, scale: float | None) -> None:
    for number, ((q, k, v), lead) in enumerate(cases()):
        if (weight, scale) != (0.8, None) and number != 1:
            continue
        q2, k2, _ = inputs(q.shape[-2], k.shape[-2], q.shape[-1], 1, lead, seed=7)

        def reference(q1: Any, k1: Any, q2: Any, k2: Any, v: Any) -> np.ndarray:
            first, second = (
                weights(products(q, k, scale)) for q, k in ((q1, k1), (q2, k2))
            )
            return (first - weight * second) @ v

        program = library.differential_attention
        check(program, reference, q, k, q2, k2, v, weight=weight, scale=scale)


def test_differential_attention_of_weight_zero_is_attention() -> None:
    q, k, v = inputs(5, 7, 4, 3)
    actual = moa.jit(library.differential_attention)(q, k, k[:5], k, v, weight=0.0)
    np.testing.assert_allclose(actual, moa.attention(q, k, v), rtol=1e-14)


def test_the_weight_may_be_data() -> None:
    q, k, v = inputs(5, 7, 4, 3)

    def program(q: Any, k: Any, v: Any, weight: Any) -> Any:
        return library.differential_attention(q, k, q, k, v, weight)

    actual = moa.jit(program)(q, k, v, np.array(0.25))
    np.testing.assert_allclose(actual, 0.75 * moa.attention(q, k, v), rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"bias": -2.0}, {"scale": 0.1, "bias": 0.0}],
    ids=str,
)
def test_sigmoid_attention(options: dict[str, Any]) -> None:
    for number, (arrays, _) in enumerate(cases()):
        if options and number not in (1, 2):
            continue

        def reference(q: Any, k: Any, v: Any) -> np.ndarray:
            bias = options.get("bias", -math.log(k.shape[-2]))
            scores = products(q, k, options.get("scale")) + bias
            rates = 1 / (1 + np.exp(-scores))
            return (rates * visible(rates) if "is_causal" in options else rates) @ v

        check(library.sigmoid_attention, reference, *arrays, **options)


def test_sigmoids_of_ten_thousand() -> None:
    """The exponential overflows to infinity, of which the reciprocal is 0."""
    q, k = np.array([[1e4]]), np.array([[1.0], [-1.0]])
    result = moa.jit(library.sigmoid_attention)(q, k, np.array([[2.0], [3.0]]))
    assert result.tolist() == [[2.0]]


@pytest.mark.parametrize("is_causal", [False, True])
def test_linear_attention(is_causal: bool) -> None:
    for arrays, _ in cases():

        def reference(q: Any, k: Any, v: Any) -> np.ndarray:
            queries, keys = (
                np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k)
            )
            scores = products(queries, keys, 1)
            scores = scores * visible(scores) if is_causal else scores
            return scores / scores.sum(-1, keepdims=True) @ v

        check(library.linear_attention, reference, *arrays, is_causal=is_causal)


def test_linear_attention_of_the_last_query_sees_all_keys() -> None:
    q, k, v = inputs(6, 6, 4, 3)
    program = moa.jit(library.linear_attention)
    full, causal = program(q, k, v), program(q, k, v, is_causal=True)
    np.testing.assert_allclose(causal[-1], full[-1], rtol=1e-13)
    np.testing.assert_allclose(causal[0], v[0], rtol=1e-14)


def test_features_of_large_inputs() -> None:
    """The exponential is not chosen where it overflows."""
    q = np.array([[1e4, -1e4]])
    result = moa.jit(library.linear_attention)(q, q, np.array([[3.0]]))
    assert result.tolist() == [[3.0]]


PROGRAMS = [library.sigmoid_attention, library.linear_attention]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 4), (5, 3), (5, 2)), "expected 4, got 3|expected 3, got 4"),
        (((3, 4), (5, 4), (6, 2)), "expected 5, got 6"),
        (((4,), (5, 4), (5, 2)), "expected at most 1, got 2"),
    ],
)
def test_shapes_that_do_not_fit(
    program: Any, shapes: Sequence[Sequence[int]], message: str
) -> None:
    sourced = message.replace(", got", r"(?: \([^()]*\))?, got")
    with pytest.raises(ShapeError, match=sourced):
        moa.jit(program)(*(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_integers(program: Any) -> None:
    with pytest.raises(DTypeError, match=r"float|expected a number of type i64"):
        moa.jit(program)(*[np.ones((2, 2), np.int64)] * 3)
