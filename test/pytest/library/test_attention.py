"""Every option of attention, against one reference in NumPy, and against PyTorch.

The reference computes in f64 and treats a masked key as one that is not there. Errors
are norm-wise: the Frobenius norm of the difference over that of the reference.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import (
    DTypeError,
    LayoutError,
    MoaError,
    OptionError,
    ShapeError,
)
from moa_dialect.frontend.jit import Jit

F64, F32 = np.dtype("f8"), np.dtype("f4")
BOUND = {F64: 1e-13, F32: 1e-5}


def reference(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    window: int | None = None,
    bias: Any = None,
    softcap: float | None = None,
    sink: Any = None,
    score_mod: Callable[..., Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The result and the logarithm of the denominator, by loops over heads and rows."""
    q, k, v = (np.asarray(a, F64) for a in (q, k, v))
    (*lead, n, d), (m, e) = q.shape, v.shape[-2:]
    group = q.shape[-3] // k.shape[-3] if lead else 1
    scores = np.empty((*lead, n, m))
    values = np.empty((*lead, m, e))
    for at in np.ndindex(*lead):
        of = (*at[:-1], at[-1] // group) if at else ()
        scores[at], values[at] = q[at] @ k[of].T, v[of]
    scores *= 1 / math.sqrt(d) if scale is None else scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + np.asarray(bias, F64)
    if score_mod is not None:
        for at in np.ndindex(*scores.shape):
            *batch, h, i, j = (0, 0, *at)[-max(len(at), 3) :]
            b = int(np.ravel_multi_index(batch, lead[:-1])) if len(at) > 3 else 0
            scores[at] = score_mod(scores[at], b, h, i, j)
    sinks = np.broadcast_to(-math.inf if sink is None else np.asarray(sink, F64), lead)
    result, lse = np.zeros((*lead, n, e)), np.empty((*lead, n))
    for at in np.ndindex(*lead, n):
        i = at[-1]
        keys = [j for j in range(m) if is_visible(i, j, is_causal, window)]
        keys = [j for j in keys if scores[(*at, j)] != -math.inf]
        row = np.array([scores[(*at, j)] for j in keys])
        top = max([*row, sinks[at[:-1]]])
        powers = np.exp(row - top) if keys else row
        denominator = sum(
            [*powers, np.exp(sinks[at[:-1]] - top) if top > -math.inf else 0]
        )
        lse[at] = top + math.log(denominator) if denominator else -math.inf
        if keys:
            result[at] = (powers / denominator) @ values[at[:-1]][keys]
    return result, lse


def is_visible(i: int, j: int, is_causal: bool, window: int | None) -> bool:
    if is_causal:
        return j <= i and (window is None or i - window < j)
    return window is None or abs(i - j) < window


def inputs(
    n: int,
    m: int,
    d: int,
    e: int,
    lead: Sequence[int] = (),
    heads: int | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Queries, keys and values; with fewer heads of the latter if `heads` is given."""
    random = np.random.default_rng(seed)
    of = lead if heads is None else (*lead[:-1], heads)
    shapes = (*lead, n, d), (*of, m, d), (*of, m, e)
    return [random.normal(size=shape) for shape in shapes]


def relative(actual: Any, expected: np.ndarray) -> float:
    """The distance by norm; infinities have to be equal."""
    given, wanted = np.asarray(actual, F64), np.asarray(expected, F64)
    finite = np.isfinite(wanted)
    if not np.array_equal(given[~finite], wanted[~finite], equal_nan=True):
        return math.inf
    distance = float(np.linalg.norm(given[finite] - wanted[finite]))
    return distance / (float(np.linalg.norm(wanted[finite])) or 1)


def check(
    arrays: list[np.ndarray], is_interpreted: bool = True, **options: Any
) -> None:
    """Called at once in both precisions, and interpreted, with the logarithm.

    A score_mod is given as a pair: for traced and for plain numbers.
    """
    plain = dict(options)
    if "score_mod" in options:
        options["score_mod"], plain["score_mod"] = options["score_mod"]
    for dtype, bound in BOUND.items():

        def rounded(value: Any, dtype: np.dtype = dtype) -> Any:
            return value.astype(dtype) if isinstance(value, np.ndarray) else value

        given = [rounded(a) for a in arrays]
        named: Any = {name: rounded(value) for name, value in options.items()}
        likewise: Any = {name: rounded(value) for name, value in plain.items()}
        expected = reference(*given, **likewise)
        result, lse = moa.attention(*given, return_lse=True, **named)
        assert result.dtype == lse.dtype == dtype
        assert relative(result, expected[0]) <= bound
        assert relative(lse, expected[1]) <= bound
        if dtype == F64 and is_interpreted:
            result = moa.interpret(moa.attention, *given, **named)
            assert relative(result, expected[0]) <= bound


# One option at a time


LEADS = [(), (3,), (2, 3), (2, 1, 2)]


@pytest.mark.parametrize("lead", LEADS)
def test_leading_axes(lead: Sequence[int]) -> None:
    check(inputs(5, 7, 4, 3, lead))


@pytest.mark.parametrize(
    ("n", "m", "d", "e"), [(1, 1, 1, 1), (1, 9, 3, 2), (9, 1, 3, 2), (4, 6, 1, 5)]
)
def test_extents(n: int, m: int, d: int, e: int) -> None:
    check(inputs(n, m, d, e))
    check(inputs(n, m, d, e), is_causal=True)


def test_no_width_no_keys_no_queries() -> None:
    """An empty score is 0, so all weights are equal; over no keys the sum is 0."""
    q, k, v = inputs(2, 3, 0, 4)
    expected = np.broadcast_to(v.mean(0), (2, 4))
    np.testing.assert_allclose(moa.attention(q, k, v), expected, rtol=1e-15)
    assert moa.attention(*inputs(2, 0, 3, 4)).tolist() == [[0] * 4] * 2
    assert moa.attention(*inputs(0, 2, 3, 4)).shape == (0, 4)
    assert moa.attention(*inputs(2, 3, 4, 5, (0,))).shape == (0, 2, 5)


def test_no_keys_have_a_logarithm_of_minus_infinity() -> None:
    _, lse = moa.attention(*inputs(2, 0, 3, 4), return_lse=True)
    assert lse.tolist() == [-math.inf] * 2


@pytest.mark.parametrize(("heads", "given"), [(6, 6), (6, 3), (6, 2), (6, 1), (1, 1)])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_grouped_heads(batch: Sequence[int], heads: int, given: int) -> None:
    check(inputs(3, 4, 2, 3, (*batch, heads), given), is_interpreted=False)


def test_grouped_heads_store_nothing_more_and_share_what_they_can() -> None:
    """A head of the keys is an index divided, once for a head."""
    spec = moa.ArraySpec
    shapes = (2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 3)
    compiled = moa.jit(moa.attention).lower(*map(spec, shapes))
    assert compiled.intermediates == 0
    assert compiled.scratch_bytes <= 64 * 8  # a tile of scores
    text = compiled.text("fused")
    assert text.count("arith.divui") == 1
    assert text.count("arith.remui") == 0


@pytest.mark.parametrize("scale", [None, 0, 0.3, -2.0, 3, np.float32(0.5)])
def test_scale(scale: Any) -> None:
    check(inputs(5, 4, 3, 2), scale=scale)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (4, 9), (9, 4)])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 100])
def test_causal_window(n: int, m: int, window: int | None) -> None:
    """Query i sees `i - window < j <= i`; rows that see nothing are looked at below."""
    if window is not None:
        n = min(n, m)
    check(inputs(n, m, 3, 2), is_causal=True, window=window)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (4, 9), (6, 4)])
@pytest.mark.parametrize("window", [3, np.int64(4), 100])
def test_window_to_both_sides(n: int, m: int, window: Any) -> None:
    check(inputs(n, m, 3, 2), window=window)


@pytest.mark.parametrize("window", [1, 2])
def test_small_window_to_both_sides(window: int) -> None:
    check(inputs(4, 5, 3, 2), window=window)


BIASES = [
    (),
    (7,),
    (1,),
    (5, 1),
    (5, 7),
    (1, 1),
    (3, 1, 1),
    (3, 5, 7),
    (1, 5, 1),
    (2, 1, 5, 7),
    (1, 3, 1, 7),
    (2, 3, 5, 7),
]


@pytest.mark.parametrize("shape", BIASES, ids=str)
def test_bias_broadcasts(shape: tuple[int, ...]) -> None:
    bias = np.random.default_rng(9).normal(size=shape)
    check(inputs(5, 7, 2, 3, (2, 3)), is_interpreted=False, bias=np.asarray(bias))


def test_bias_of_a_plain_head() -> None:
    bias = np.random.default_rng(9).normal(size=(5, 7))
    check(inputs(5, 7, 2, 3), bias=bias)
    check(inputs(5, 7, 2, 3), bias=bias[:1])
    check(inputs(5, 7, 2, 3), bias=0.5)


def test_minus_infinity_in_a_bias_hides_a_key() -> None:
    arrays = inputs(5, 7, 4, 3)
    hidden = np.random.default_rng(3).random((5, 7)) < 0.4
    hidden[:, 2] = False
    check(arrays, bias=np.where(hidden, -math.inf, 0.0))


def test_masks_agree_with_a_bias_that_says_the_same() -> None:
    q, k, v = inputs(6, 6, 4, 3)
    far = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) >= 2
    bias = np.where(far, -math.inf, 0.0)
    np.testing.assert_allclose(
        moa.attention(q, k, v, window=2), moa.attention(q, k, v, bias=bias), 1e-15
    )


@pytest.mark.parametrize("softcap", [0.1, 2, 50.0])
def test_softcap_comes_before_the_bias(softcap: float) -> None:
    bias = 100 * np.random.default_rng(9).normal(size=(5, 7))
    check(inputs(5, 7, 4, 3), softcap=softcap)
    check(inputs(5, 7, 4, 3), softcap=softcap, bias=bias)


@pytest.mark.parametrize(
    ("lead", "shape"),
    [
        ((), ()),
        ((3,), ()),
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((2, 3), (2, 1)),
        ((3,), (1,)),
    ],
    ids=str,
)
def test_sink(lead: Sequence[int], shape: tuple[int, ...]) -> None:
    sink = np.asarray(np.random.default_rng(9).normal(size=shape))
    check(inputs(5, 7, 4, 3, lead), sink=sink)


def test_a_sink_is_a_key_without_a_value() -> None:
    q, k, v = inputs(4, 5, 3, 2)
    logits = np.append(q @ k.T / math.sqrt(3), np.full((4, 1), 0.7), 1)
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for sink in (0.7, np.array(0.7), np.array([0.7])):
        actual = moa.attention(q, k, v, sink=sink)
        np.testing.assert_allclose(actual, weights[:, :-1] @ v, rtol=1e-13)


def test_a_sink_of_minus_infinity_is_none() -> None:
    q, k, v = inputs(4, 5, 3, 2)
    np.testing.assert_array_equal(
        moa.attention(q, k, v, sink=-math.inf), moa.attention(q, k, v)
    )


def test_a_large_sink_takes_everything() -> None:
    """It is a part of the maximum, so that nothing overflows."""
    result, lse = moa.attention(*inputs(4, 5, 3, 2), sink=1e4, return_lse=True)
    assert result.tolist() == [[0, 0]] * 4
    assert lse.tolist() == [1e4] * 4


def test_with_a_sink_a_row_without_keys_is_zero() -> None:
    """The denominator is then the sink's, and so is its logarithm."""
    arrays = inputs(6, 2, 3, 2)
    check(arrays, is_causal=True, window=2, sink=np.array(0.5))
    check(arrays, bias=np.full((6, 2), -math.inf), sink=np.array(0.5))


# Functions of the score

MODS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "scaled": (lambda s, b, h, i, j: s * 0.5 - 1, lambda s, b, h, i, j: s * 0.5 - 1),
    "constant": (lambda s, b, h, i, j: 0.0, lambda s, b, h, i, j: 0.0),
    "linear bias": (
        lambda s, b, h, i, j: s - moa.cast(h + 1, s.dtype) * moa.cast(i - j, s.dtype),
        lambda s, b, h, i, j: s - (h + 1) * (i - j),
    ),
    "all indices": (
        lambda s, b, h, i, j: (
            s + 0.01 * moa.cast(1000 * b + 100 * h + 10 * i - j, s.dtype)
        ),
        lambda s, b, h, i, j: s + 0.01 * (1000 * b + 100 * h + 10 * i - j),
    ),
    "prefix": (
        lambda s, b, h, i, j: moa.where((j <= i) | (j < 3), s, -math.inf),
        lambda s, b, h, i, j: s if j <= i or j < 3 else -math.inf,
    ),
    "even keys": (
        lambda s, b, h, i, j: moa.where(j % 2 == 0, s, -9.0),
        lambda s, b, h, i, j: s if j % 2 == 0 else -9.0,
    ),
    "indices as floats": (
        lambda s, b, h, i, j: s - 0.25 * (i - j) + j / 2 + (h + 1) ** 0.5 + (2 - b) * s,
        lambda s, b, h, i, j: s - 0.25 * (i - j) + j / 2 + (h + 1) ** 0.5 + (2 - b) * s,
    ),
    "blocks": (
        lambda s, b, h, i, j: moa.where(
            (i // 2 == j // 2) | (j % 3 == 0), s, -math.inf
        ),
        lambda s, b, h, i, j: s if i // 2 == j // 2 or j % 3 == 0 else -math.inf,
    ),
    "rounded down": (
        lambda s, b, h, i, j: s + (i - j) // 3 + ((-j) % 2) * 0.5 + abs(i - j) * 0.125,
        lambda s, b, h, i, j: s + (i - j) // 3 + ((-j) % 2) * 0.5 + abs(i - j) * 0.125,
    ),
    "divisors of any sign": (
        lambda s, b, h, i, j: s + i // -2 + (j % -3) * 0.5 + i // (j + 1) + 7 % (i + 1),
        lambda s, b, h, i, j: s + i // -2 + (j % -3) * 0.5 + i // (j + 1) + 7 % (i + 1),
    ),
    "an index": (lambda s, b, h, i, j: j - i, lambda s, b, h, i, j: j - i),
    "compared": (
        lambda s, b, h, i, j: moa.where(s > j, s, 2 * s) + moa.where(i > 0.5, 1.0, s),
        lambda s, b, h, i, j: (s if s > j else 2 * s) + (1.0 if i > 0.5 else s),
    ),
    "softcap": (
        lambda s, b, h, i, j: 2 * moa.tanh(s / 2),
        lambda s, b, h, i, j: 2 * math.tanh(s / 2),
    ),
}
every_mod = pytest.mark.parametrize("name", MODS)


@every_mod
def test_score_mod(name: str) -> None:
    check(inputs(4, 5, 3, 2, (2, 3)), score_mod=MODS[name])


@pytest.mark.parametrize("lead", LEADS)
def test_indices_of_axes_that_are_not_there_are_zero(lead: Sequence[int]) -> None:
    """And with more than one axis before the heads, b numbers them in row-major order."""
    check(inputs(4, 5, 3, 2, lead), score_mod=MODS["all indices"])


def test_score_mod_sees_the_head_of_the_query() -> None:
    check(inputs(4, 5, 3, 2, (2, 6), 2), score_mod=MODS["all indices"])


def test_score_mod_comes_after_the_bias_and_before_the_masks() -> None:
    bias = np.random.default_rng(9).normal(size=(4, 5))
    options: dict[str, Any] = {"bias": bias, "score_mod": MODS["scaled"]}
    check(inputs(4, 5, 3, 2), **options)
    check(inputs(4, 5, 3, 2), is_causal=True, **options)
    check(inputs(4, 5, 3, 2), is_causal=True, score_mod=MODS["constant"])


def test_score_mod_may_use_constants() -> None:
    documents = np.array([0, 0, 1, 1, 1])

    def same(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        of = [moa.psi(moa.reshape([1], place), documents) for place in (i, j)]
        return moa.where(of[0] == of[1], s, -math.inf)

    def expected(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s if documents[i] == documents[j] else -math.inf

    check(inputs(5, 5, 3, 2), score_mod=(same, expected))


def test_score_mod_must_not_use_arrays_of_the_program() -> None:
    def program(q: Any, k: Any, v: Any, slope: Any) -> Any:
        return moa.attention(q, k, v, score_mod=lambda s, b, h, i, j: s * slope)

    with pytest.raises(
        MoaError, match="must not use an array of the program around it"
    ):
        moa.jit(program)(*inputs(4, 5, 3, 2), np.array(2.0))


# All options together, on random shapes


@settings(max_examples=max(8, settings().max_examples // 8))
@given(data=st.data())
def test_any_options_on_any_shapes(data: st.DataObject) -> None:
    draw = data.draw
    n, m, d, e = (draw(st.integers(1, 9)) for _ in range(4))
    lead = draw(st.sampled_from([(), (1,), (4,), (2, 4), (3, 1), (2, 1, 2)]))
    heads = draw(
        st.sampled_from([h for h in (1, 2, 4) if lead and lead[-1] % h == 0] or [None])
    )
    q, k, v = inputs(n, m, d, e, lead, heads, draw(st.integers(0, 99)))
    options: dict[str, Any] = {}
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if draw(st.booleans()):
        options["is_causal"] = True
        options["window"] = draw(st.sampled_from([None, 1, 2, 5]))
    elif draw(st.booleans()):
        options["window"] = draw(st.integers(1, 12))
    if options.get("window"):
        # Rows that see nothing have tests of their own.
        n = min(n, m)
        q = q[..., :n, :]
    if draw(st.booleans()):
        options["scale"] = draw(st.floats(-2, 2))
    if draw(st.booleans()):
        full = (*lead, n, m)
        rank = draw(st.integers(0, len(full)))
        shape = [draw(st.sampled_from([1, x])) for x in full[len(full) - rank :]]
        options["bias"] = np.asarray(random.normal(size=shape))
    if draw(st.booleans()):
        options["softcap"] = draw(st.floats(0.5, 20))
    if draw(st.booleans()):
        options["sink"] = np.asarray(
            random.normal(size=draw(st.sampled_from([lead[-1:], ()])))
        )
    if draw(st.booleans()):
        options["score_mod"] = MODS[draw(st.sampled_from(["linear bias", "softcap"]))]
    check([q, k, v], is_interpreted=False, **options)


# Shapes that are known only at the call


OF_ANY_EXTENT: list[dict[str, Any]] = [
    {},
    {"is_causal": True, "window": 3},
    {"window": 100, "softcap": 2.0},
    {"bias": moa.ArraySpec((None, None)), "sink": 0.25},
    {"score_mod": MODS["all indices"]},
]


@pytest.mark.parametrize("options", OF_ANY_EXTENT, ids=lambda o: ", ".join(o))
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 2, 3)])
def test_one_kernel_for_every_extent(
    lead: tuple[int, ...], options: dict[str, Any]
) -> None:
    spec = moa.ArraySpec((None,) * (len(lead) + 2))
    named: dict[str, Any] = dict(options)
    plain: dict[str, Any] = dict(options)
    if "score_mod" in options:
        named["score_mod"], plain["score_mod"] = options["score_mod"]
    compiled = moa.jit(moa.attention).lower(spec, spec, spec, **named)
    for n, m, d, e in ((3, 3, 1, 2), (2, 5, 4, 1), (5, 9, 3, 3)):
        arrays = inputs(n, m, d, e, lead, seed=n)
        further: list[np.ndarray] = []
        if "bias" in options:
            plain["bias"] = np.random.default_rng(n).normal(size=(n, m))
            further = [plain["bias"]]
        expected, _ = reference(*arrays, **plain)
        assert relative(compiled(*arrays, *further), expected) <= 1e-13


def test_heads_that_differ_from_those_of_the_queries_have_to_be_known() -> None:
    compiled = moa.jit(moa.attention).lower(*[moa.ArraySpec((None,) * 3)] * 3)
    with pytest.raises(
        ShapeError, match=r"frames must agree .* expected 4 \(.*\), got 2"
    ):
        compiled(*inputs(3, 3, 2, 2, (4,), 2))


# Half precision


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("of", ["half", "single"])
def test_half_precision_accumulates_in_single(dtype: Any, of: str) -> None:
    """The only errors of that size are roundings to the type."""
    random = np.random.default_rng(0)
    arrays = [a.astype(dtype) for a in inputs(7, 300, 16, 4, (2, 4), 2)]
    wide = np.dtype(dtype if of == "half" else F32)
    options: dict[str, Any] = {
        "bias": random.normal(size=(7, 1)).astype(wide),
        "sink": random.normal(size=4).astype(wide),
        "is_causal": True,
    }
    result, lse = moa.attention(*arrays, return_lse=True, **options)
    assert result.dtype == dtype
    assert lse.dtype == F32
    expected = reference(*arrays, **options)
    rounding = float(ml_dtypes.finfo(dtype).eps) / 2
    assert relative(result, expected[0]) <= rounding
    assert relative(lse, expected[1]) <= 1e-6


def test_scores_above_what_half_precision_holds() -> None:
    """Products of 300 times 300 over 16 elements: an f16 holds 65504."""
    q = np.full((2, 16), 300, np.float16)
    v = np.array([[1.0], [3.0]], np.float16)
    assert moa.attention(q, q, v).tolist() == [[2], [2]]


# Extreme scores


def test_scores_of_ten_thousand() -> None:
    """Nothing overflows; the error is that of the scores, 1e4 times a rounding."""
    q, k, v = inputs(6, 9, 8, 3)
    for scale in (1e4, -1e4):
        result, lse = moa.attention(q, k, v, scale=scale, return_lse=True)
        expected = reference(q, k, v, scale=scale)
        assert relative(result, expected[0]) <= 1e-10
        assert relative(lse, expected[1]) <= 1e-14


def test_values_that_are_infinite_or_nan_spoil_the_rows_that_see_them() -> None:
    q, k, v = inputs(4, 4, 3, 2)
    v[1, 0] = math.inf
    k[3, 0] = math.nan
    result = moa.attention(q, k, v)
    assert np.isnan(result).all()
    kept = moa.attention(q, k[:3], v[:3])
    assert np.isposinf(kept[:, 0]).all()
    assert np.isfinite(kept[:, 1]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_masked_key_does_not_exist(bad: float) -> None:
    """Neither what it is nor what its value is plays a part."""
    q, k, v = inputs(4, 4, 3, 2)
    expected, _ = reference(q, k, v, is_causal=True)
    k[3], v[3] = bad, bad
    result = moa.attention(q, k, v, is_causal=True)
    assert relative(result[:3], expected[:3]) <= 1e-14


# Rows that see no key


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [1, 2])
def test_a_row_that_sees_no_key_is_zero(is_causal: bool, window: int) -> None:
    """And its logarithm is -inf: five queries, two keys."""
    options: dict[str, Any] = {"is_causal": is_causal, "window": window}
    result, lse = moa.attention(*inputs(5, 2, 3, 4), return_lse=True, **options)
    assert result[4].tolist() == [0] * 4
    assert lse[4] == -math.inf
    check(inputs(5, 2, 3, 4), is_interpreted=False, **options)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_a_row_hidden_by_a_bias_is_zero(m: int) -> None:
    """However few keys it has."""
    bias = np.zeros((5, m))
    bias[1] = -math.inf
    check(inputs(5, m, 5, 40), is_interpreted=False, bias=bias)


def test_a_row_hidden_by_a_score_mod_is_zero() -> None:
    mod = (
        lambda s, b, h, i, j: moa.where(i == 1, -math.inf, s),
        lambda s, b, h, i, j: -math.inf if i == 1 else s,
    )
    check(inputs(3, 4, 3, 2), is_interpreted=False, score_mod=mod)


# PyTorch


def test_against_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    for dtype, bound in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
        q, k, v = (torch.tensor(a, dtype=dtype) for a in inputs(5, 7, 4, 3, (2, 6), 2))
        bias = torch.randn(6, 1, 7, dtype=dtype)
        each: list[dict[str, Any]] = [{}, {"is_causal": True}, {"scale": 0.3}]
        for options in each:
            result = moa.attention(q, k, v, **options)
            assert result.dtype == dtype
            expected = sdpa(
                q.double(), k.double(), v.double(), enable_gqa=True, **options
            )
            assert relative(result.numpy(), expected.numpy()) <= bound
        result, lse = moa.attention(q, k, v, bias=bias, return_lse=True)
        wide = q.double(), k.double(), v.double()
        expected = sdpa(*wide, attn_mask=bias.double(), enable_gqa=True)
        assert relative(result.numpy(), expected.numpy()) <= bound
        repeated = wide[1].repeat_interleave(3, 1).mT
        scores = wide[0] @ repeated / 2 + bias.double()
        assert relative(lse.numpy(), torch.logsumexp(scores, -1).numpy()) <= bound


def test_pytorch_in_half_precision() -> None:
    torch: Any = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        q, k, v = (torch.tensor(a).to(dtype) for a in inputs(5, 7, 4, 3, (2, 2)))
        result, lse = moa.attention(q, k, v, is_causal=True, return_lse=True)
        assert (result.dtype, lse.dtype) == (dtype, torch.float32)
        expected, _ = reference(
            *(t.double().numpy() for t in (q, k, v)), is_causal=True
        )
        assert relative(result.double().numpy(), expected) <= torch.finfo(dtype).eps


def test_a_tensor_that_requires_grad() -> None:
    torch: Any = pytest.importorskip("torch")
    q = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(LayoutError, match="does not require grad"):
        moa.attention(q, q, q)


# How it is called


def test_it_is_the_program_of_the_library() -> None:
    assert moa.attention is library.attention


def test_kernels_are_kept_for_each_shape_dtype_and_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lowered: list[Any] = []
    lower = Jit._lower  # pyright: ignore[reportPrivateUsage]

    def counted(self: Jit, specs: Any, *rest: Any) -> Any:
        lowered.append(specs)
        return lower(self, specs, *rest)

    monkeypatch.setattr(Jit, "_lower", counted)
    q, k, v = inputs(3, 11, 5, 7)
    single = [a.astype(F32) for a in (q, k, v)]

    def mod(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s

    calls: list[tuple[list[np.ndarray], dict[str, Any]]] = [
        ([q, k, v], {}),
        (single, {}),
        ([q, k, v], {"is_causal": True}),
        ([q, k, v], {"window": 2}),
        ([q, k, v], {"bias": np.zeros((3, 11))}),
        ([q, k, v], {"bias": np.zeros((1, 11))}),
        ([q, k, v], {"bias": 0.0}),
        ([q, k, v], {"sink": np.array(0.0)}),
        ([q, k, v], {"score_mod": mod}),
        ([q, k, v], {"return_lse": True}),
        ([q, k, v[:, :6]], {}),
    ]
    for number, (arrays, options) in enumerate(calls, 1):
        first = moa.attention(*arrays, **options)
        again = moa.attention(*[a.copy() for a in arrays], **options)
        np.testing.assert_array_equal(np.asarray(first[0]), np.asarray(again[0]))
        assert len(lowered) == number
    moa.attention(q, k, v, is_causal=False, window=None)
    moa.attention(q, k, v, bias=np.ones((3, 11)))
    assert len(lowered) == len(calls)


def test_a_bias_is_an_argument_not_a_constant() -> None:
    """Another bias of the same shape is used, wherever it is given."""
    q, k, v = inputs(3, 4, 5, 6)
    jitted = moa.jit(moa.attention)
    for seed in range(3):
        bias = np.random.default_rng(seed).normal(size=(3, 4))
        expected, _ = reference(q, k, v, bias=bias)
        for run in (
            lambda q, k, v, bias: moa.attention(q, k, v, bias=bias),
            lambda q, k, v, bias: jitted(q, k, v, bias=bias),
            moa.jit(lambda q, k, v, bias: moa.attention(q, k, v, bias=bias)),
            lambda *a: moa.interpret(moa.attention, *a[:3], bias=a[3]),
        ):
            assert relative(run(q, k, v, bias), expected) <= 1e-14


def test_a_bias_given_as_a_tensor_is_read_at_each_call() -> None:
    torch: Any = pytest.importorskip("torch")
    q, k, v = map(torch.tensor, inputs(3, 4, 5, 6))
    bias = torch.zeros(3, 4, dtype=torch.float64)
    jitted = moa.jit(moa.attention)
    before = jitted(q, k, v, bias=bias)
    bias[:, 0] = 5
    after = jitted(q, k, v, bias=bias)
    assert not torch.equal(before, after)
    assert relative(after.numpy(), reference(q, k, v, bias=bias)[0]) <= 1e-14


def test_inside_of_a_program() -> None:
    """A part of a larger one, with a scale that is data."""

    def program(x: Any, weight: Any, scale: Any) -> Any:
        y = library.matmul(x, weight)
        return x + moa.attention(y, x, x, is_causal=True, scale=scale)

    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 6, 4)), random.normal(size=(4, 4))
    expected = x + reference(x @ weight, x, x, scale=0.3, is_causal=True)[0]
    for run in (moa.jit(program), lambda *a: moa.interpret(program, *a)):
        assert relative(run(x, weight, np.array(0.3)), expected) <= 1e-14


# Errors


def ones(*shape: int, dtype: Any = F64) -> np.ndarray:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4,), (5, 4), (5, 2)], r"expected q of shape \(..., n, d\), got 1 axes"),
        ([(3, 4), (4,), (5, 2)], r"expected k of shape \(..., m, d\), got 1 axes"),
        ([(3, 4), (5, 4), ()], r"expected v of shape \(..., m, e\), got 0 axes"),
        ([(3, 4), (2, 5, 4), (2, 5, 2)], "q and k must have as many axes .* 2, got 3"),
        ([(2, 3, 4), (2, 5, 4), (5, 2)], "q and v must have as many axes .* 3, got 2"),
        ([(3, 4), (5, 3), (5, 2)], "last extents of q and k .* expected 4, got 3"),
        ([(3, 4), (5, 4), (6, 2)], "rows of k and v .* expected 5, got 6"),
        (
            [(2, 6, 3, 4), (3, 6, 5, 4), (2, 6, 5, 4)],
            "extents of axis 0 of q and k .* expected 2, got 3",
        ),
        (
            [(2, 6, 3, 4), (2, 6, 5, 4), (1, 6, 5, 4)],
            "extents of axis 0 of q and v .* expected 2, got 1",
        ),
        ([(6, 3, 4), (4, 5, 4), (4, 5, 4)], "heads of k .* a divisor of 6, got 4"),
        ([(2, 3, 4), (4, 5, 4), (4, 5, 4)], "heads of k .* a divisor of 2, got 4"),
        ([(2, 3, 4), (0, 5, 4), (0, 5, 4)], "heads of k .* a divisor of 2, got 0"),
        ([(0, 3, 4), (2, 5, 4), (2, 5, 4)], "heads of q and k .* expected 0, got 2"),
        ([(6, 3, 4), (3, 5, 4), (6, 5, 4)], "heads of k and v .* expected 3, got 6"),
    ],
)
def test_shapes_that_do_not_fit(shapes: list[tuple[int, ...]], message: str) -> None:
    for call in (moa.attention, lambda *a: moa.interpret(moa.attention, *a)):
        with pytest.raises(ShapeError, match=f"attention: .*{message}"):
            call(*(ones(*shape) for shape in shapes))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"bias": ones(4, 5)},
            r"bias must broadcast to \(2, 6, 3, 5\): expected 3 or 1 for axis 0, got 4",
        ),
        ({"bias": ones(2, 1, 1, 1, 1)}, "bias must .*: expected at most 4 axes, got 5"),
        ({"bias": ones(0)}, "bias must .*: expected 5 or 1 for axis 0, got 0"),
        (
            {"sink": ones(2)},
            r"sink must broadcast to \(2, 6\): expected 6 or 1 for axis 0, got 2",
        ),
        ({"sink": ones(2, 6, 1)}, "sink must .*: expected at most 2 axes, got 3"),
        (
            {"score_mod": lambda s, b, h, i, j: moa.iota(3)},
            "expected score_mod to give a scalar, got tensor<3xindex>",
        ),
    ],
)
def test_options_of_a_wrong_shape(option: dict[str, Any], message: str) -> None:
    q, k, v = ones(2, 6, 3, 4), ones(2, 6, 5, 4), ones(2, 6, 5, 4)
    with pytest.raises(ShapeError, match=f"attention: {message}"):
        moa.attention(q, k, v, **option)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"window": 0}, OptionError, "a window of at least 1, got 0"),
        ({"window": -3}, OptionError, "a window of at least 1, got -3"),
        ({"window": 2.0}, DTypeError, "an integer as window, got 2.0"),
        ({"window": True}, DTypeError, "an integer as window, got True"),
        ({"softcap": 0}, OptionError, "a softcap above 0 and finite, got 0"),
        ({"softcap": -1.5}, OptionError, "a softcap above 0 and finite, got -1.5"),
        ({"softcap": math.nan}, OptionError, "a softcap above 0 and finite, got nan"),
        ({"softcap": math.inf}, OptionError, "a softcap above 0 and finite, got inf"),
        ({"softcap": "2"}, DTypeError, "a number as softcap, got '2'"),
        ({"is_causal": 1}, DTypeError, "True or False as is_causal, got 1"),
        ({"is_causal": None}, DTypeError, "True or False as is_causal, got None"),
        ({"return_lse": 0}, DTypeError, "True or False as return_lse, got 0"),
        ({"scale": "0.5"}, DTypeError, "a number as scale, got '0.5'"),
        ({"scale": True}, DTypeError, "a number as scale, got True"),
        ({"bias": "0"}, DTypeError, "an array as bias, got str"),
        ({"sink": "0"}, DTypeError, "an array as sink, got str"),
        (
            {"bias": ones(3, 5, dtype=F32)},
            DTypeError,
            "bias of element type f64, got f32",
        ),
        ({"sink": ones(dtype=F32)}, DTypeError, "sink of element type f64, got f32"),
        (
            {"bias": ones(3, 5, dtype=np.bool_)},
            DTypeError,
            r"bias of element type f64, which moa.where\(mask, 0.0, -inf\) makes of "
            "truth values, got i1",
        ),
        ({"score_mod": 2}, DTypeError, "a function as score_mod, got 2"),
        (
            {"score_mod": lambda s, b, h, i, j: moa.cast(i, "i64")},
            DTypeError,
            "score_mod to give an element of type f64, got i64",
        ),
        (
            {"score_mod": lambda s, b, h, i, j: None},
            DTypeError,
            "score_mod to give a scalar, got NoneType",
        ),
    ],
)
def test_options_that_are_not_possible(
    option: dict[str, Any], error: type[Exception], message: str
) -> None:
    q, k, v = ones(3, 4), ones(5, 4), ones(5, 2)
    for call in (moa.attention, moa.jit(moa.attention)):
        with pytest.raises(error, match=f"attention: expected {message}"):
            call(q, k, v, **option)


def test_indices_are_divided_as_integers() -> None:
    for mod in (
        lambda s, b, h, i, j: s + i // 2.0,
        lambda s, b, h, i, j: s + i % 2.0,
    ):
        with pytest.raises(DTypeError, match="expected elements of kind int, got f64"):
            moa.attention(ones(3, 4), ones(5, 4), ones(5, 2), score_mod=mod)


def test_a_scale_with_axes() -> None:
    with pytest.raises(ShapeError, match="attention: expected a scalar as scale"):
        moa.jit(lambda q, s: moa.attention(q, q, q, scale=s))(ones(2, 3), ones(2))


def test_an_option_that_is_an_error_of_a_value_or_type() -> None:
    """As Python would have them, for who does not know moa's errors."""
    q = ones(2, 3)
    with pytest.raises(ValueError, match="window"):
        moa.attention(q, q, q, window=0)
    with pytest.raises(TypeError, match="is_causal"):
        moa.attention(q, q, q, is_causal="yes")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize(("dtype", "text"), [(np.int64, "i64"), (np.bool_, "i1")])
def test_integers(name: str, dtype: Any, text: str) -> None:
    given = {n: ones(3, 3, dtype=dtype if n == name else F64) for n in "qkv"}
    message = f"attention: expected {name} of a floating-point type, got {text}"
    with pytest.raises(DTypeError, match=message):
        moa.attention(*given.values())


def test_dtypes_that_differ() -> None:
    message = "attention: q, k and v must have one element type, got f64, f32, f64"
    with pytest.raises(DTypeError, match=message):
        moa.attention(ones(3, 3), ones(3, 3, dtype=F32), ones(3, 3))


def test_what_is_no_array() -> None:
    with pytest.raises(
        DTypeError, match="attention: expected an array as bias, got list"
    ):
        moa.attention(ones(3, 4), ones(5, 4), ones(5, 2), bias=[[0.0]])
    with pytest.raises(DTypeError, match=r"argument 1: expected an array .* got list"):
        moa.attention(ones(3, 3), [[1.0]], ones(3, 3))
