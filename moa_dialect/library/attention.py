"""Scaled dot-product attention, by definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from moa_dialect.arrays import is_on_cuda
from moa_dialect.errors import DTypeError, OptionError, ShapeError
from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.functions import HALVES
from moa_dialect.frontend.jit import is_array, jit
from moa_dialect.frontend.trace import Array, active_trace, as_array
from moa_dialect.library.broadcasting import extent, repeated_along, stretched
from moa_dialect.library.linear import matmul
from moa_dialect.library.narrow import widened
from moa_dialect.library.positions import Position
from moa_dialect.library.softmax import row_maximum, row_sum
from moa_dialect.types import dtype_of, kind_of

ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: Any = None,
    is_causal: bool = False,
    window: int | None = None,
    bias: Any = None,
    softcap: float | None = None,
    sink: Any = None,
    score_mod: ScoreMod | None = None,
    return_lse: bool = False,
) -> Any:
    """`softmax(S) +•× V` with the scores `S = scale * (Q +•× ⊘K)`, changed as said.

    The scores of query i and key j are changed in this order: scale, softcap, bias,
    score_mod; then the keys that is_causal and window hide are taken out.

    In a program that is traced this records operations. Called on NumPy arrays, torch
    tensors or anything with DLPack it runs a kernel, compiled once for each set of
    shapes, dtypes and options, and kept; tensors on a CUDA device stay there. A
    score_mod counts as the same option if it is the same function object.

    Args:
        q: queries, shape (..., n, d), floating point.
        k: keys, shape (..., m, d), of the same dtype. Leading axes are those of q,
            except that the heads, the axis before the rows, may be fewer: query head h
            then uses key head `h // (H_q / H_kv)`.
        v: values, shape (..., m, e), the leading axes and dtype of k.
        scale: multiplies the scores, a number or a scalar of the program around it;
            1 / sqrt(d) if None.
        is_causal: query i sees key j only if j <= i, also if n and m differ.
        window: query i sees key j only if `i - window < j <= i` with is_causal, and
            only if `|i - j| < window` without.
        bias: added to the scores, in a shape that broadcasts to (..., n, m) as in
            NumPy; of the dtype of q, or f32 for half precision. -inf hides a key.
        softcap: c makes a score s into `c * tanh(s / c)`.
        sink: a logit for each head that joins the denominator of the softmax and
            nothing else, in a shape that broadcasts to the leading axes of q.
        score_mod: a function `(s, b, h, i, j)` of a score and its batch, head, query
            and key index to the score that takes its place, all scalars (rank 0). h is
            the index on the axis before the rows, b the row-major number of the index
            on all axes before that; each is 0 if there is no such axis. An index is an
            integer that becomes a float beside one; `//` and `%` are those of integers.
            The function may use constants, not arrays of the program around it.
        return_lse: also give the logarithm of the denominator.

    Returns:
        Shape (..., n, e), the dtype of q; with return_lse a pair of it and the natural
        logarithm of the sum of the exponentials of the scores (and of the sink), shape
        (..., n). For f16 and bf16 everything is computed in f32, the result is rounded
        and the logarithm stays in f32; the exponentials are rounded too where they
        multiply v, not in their sum. Source: Vaswani et al., *Attention Is All You
        Need* (2017), equation 1; in MoA: Mullin and Hains, *Attention at the
        Theoretical Minimum* (2026), equation 8.

    Raises:
        ShapeError: for shapes that do not fit.
        DTypeError: for dtypes that do not fit, or options of another type.
        OptionError: for a window below 1, or a softcap that is not positive.
    """
    _check_options(scale, is_causal, window, softcap, score_mod, return_lse)
    for name, array in (("bias", bias), ("sink", sink)):
        if array is not None and not is_array(array) and not _is_number(array):
            raise DTypeError(
                f"attention: expected an array as {name}, got {type(array).__name__}"
            )
    options: dict[str, Any] = {
        "scale": scale,
        "is_causal": bool(is_causal),
        "window": window,
        "bias": bias,
        "softcap": softcap,
        "sink": sink,
        "score_mod": score_mod,
        "return_lse": bool(return_lse),
    }
    if active_trace() is None:
        kernels = _cuda_kernels if is_on_cuda(q) else _kernels
        return kernels(q, k, v, **options)
    return _defined(as_array(q), as_array(k), as_array(v), **options)


_kernels = jit(attention)
_cuda_kernels = jit(attention, target="cuda")


def _defined(
    q: Any,
    k: Any,
    v: Any,
    scale: Any,
    is_causal: bool,
    window: int | None,
    bias: Any,
    softcap: float | None,
    sink: Any,
    score_mod: ScoreMod | None,
    return_lse: bool,
) -> Any:
    """The definition, on traced arrays."""
    _check_dtypes(q, k, v)
    _check_shapes(q, k, v)
    given = q.element_type
    q, k, v = map(widened, (q, k, v))
    k, v = for_each_head(k, q), for_each_head(v, q)

    scores = factor(scale, q) * products(q, k)
    if softcap is not None:
        scores = softcap * moa.tanh(scores / softcap)
    if bias is not None:
        bias = _operand("bias", bias, given, q)
        scores = scores + stretched(bias, scores, q.ndim, "attention: bias")
    if score_mod is not None:
        scores = _modified(scores, score_mod)
    if is_causal or window is not None:
        scores = moa.omega(with_visible_keys(is_causal, window), 2, scores)

    if sink is not None:
        sink = _operand("sink", sink, given, q)
        if q.ndim == 2 and sink.shape == (1,):
            sink = moa.psi([0], sink)
        sink = stretched(sink, scores, q.ndim - 2, "attention: sink")

    top = row_maximum(scores)
    if sink is not None:
        top = moa.omega("max", (1, 0), top, sink)
    powers = moa.exp(moa.omega("sub", (1, 0), scores, top))
    sums = row_sum(powers)
    if sink is not None:
        sums = sums + moa.exp(moa.omega(_less, (1, 0), top, sink))
    if given in HALVES:
        powers = moa.cast(moa.cast(powers, dtype_of(given)), q.dtype)
    result = matmul(moa.omega("div", (1, 0), powers, sums), v)
    if q.element_type != given:
        result = moa.cast(result, dtype_of(given))
    return (result, top + moa.log(sums)) if return_lse else result


def products(q: Any, k: Any) -> Any:
    """`Q +•× ⊘K` over leading axes: of every query with every key."""
    return moa.omega(_products, (2, 2), q, k)


def _products(queries: Any, keys: Any) -> Any:
    return moa.inner("add", "mul", queries, moa.transpose(keys))


def _less(tops: Any, sink: Any) -> Any:
    """`z - m`, for the maxima m of the rows of one head and its sink z."""
    return sink - tops


def factor(scale: Any, q: Any) -> Any:
    """The scale, by default 1 / sqrt(d); a score of width 0 is 0 with any."""
    if isinstance(scale, Array):
        return scale
    if scale is not None:
        return float(scale)
    width = q.shape[-1]
    if width is not None:
        return 1 / math.sqrt(max(width, 1))
    width = moa.maximum(extent(q, q.ndim - 1), 1)
    return 1.0 / moa.sqrt(moa.cast(width, q.dtype))


def for_each_head(a: Any, q: Any) -> Any:
    """Keys or values with as many heads as there are queries."""
    if q.ndim == 2:
        return a
    axis = q.ndim - 3
    given, wanted = a.shape[axis], q.shape[axis]
    if given == wanted or not given or not wanted:
        return a
    return repeated_along(a, axis, wanted // given)


def with_visible_keys(is_causal: bool, window: int | None) -> Callable[[Any], Any]:
    """The scores of one head, -inf where the query does not see the key."""

    def is_visible(row: Any, column: Any) -> Any:
        if window is None:
            return row >= column
        near = row - column < window
        return near & (row >= column if is_causal else column - row < window)

    def masked(scores: Any) -> Any:
        rows, columns = moa.iota(extent(scores, 0)), moa.iota(extent(scores, 1))
        return moa.where(moa.outer(is_visible, rows, columns), scores, -math.inf)

    return masked


def _modified(scores: Any, score_mod: ScoreMod) -> Any:
    """A function of every score and its index, given as scalars."""
    rank = scores.ndim
    numbers = moa.iota(moa.shape(scores))
    extents = scores.shape[: max(rank - 3, 0)]
    is_known = None not in extents[1:]
    if not is_known:
        # A cell function captures nothing: the extents go with the index.
        numbers = moa.omega(moa.cat, (1, 1), numbers, moa.shape(scores))

    def cell(score: Any, numbers: Any) -> Any:
        def entry(place: int) -> Any:
            return moa.psi([place], numbers)

        def index(axis: int) -> Any:
            place = entry(axis) if axis >= 0 else as_array(0, numbers.element_type)
            return Position(place, score.dtype)

        batch = index(0 if rank > 3 else -1)
        for axis, known in enumerate(extents[1:], 1):
            count = known if is_known else entry(rank + axis)
            batch = batch * count + index(axis)
        head, row, column = (index(rank - back) for back in (3, 2, 1))
        return _scalar(score_mod(score, batch, head, row, column), score)

    return moa.omega(cell, (0, 1), scores, numbers)


def _scalar(result: Any, score: Any) -> Any:
    """The result of a score_mod, checked."""
    if isinstance(result, Position):
        result = result.as_float()
    if not isinstance(result, Array):
        if not _is_number(result):
            raise DTypeError(
                f"attention: expected score_mod to give a scalar, "
                f"got {type(result).__name__}"
            )
        return as_array(float(result), score.element_type)
    if result.ndim:
        raise ShapeError(
            f"attention: expected score_mod to give a scalar, got {result.value.type}"
        )
    if result.element_type != score.element_type:
        raise DTypeError(
            f"attention: expected score_mod to give an element of type "
            f"{score.element_type}, got {result.element_type}"
        )
    return result


# Types


def _operand(name: str, value: Any, given: Any, q: Any) -> Any:
    """A bias or sink in the type that scores have."""
    array = as_array(value, q.element_type if _is_number(value) else None)
    if array.element_type == given:
        array = widened(array)
    if array.element_type != q.element_type:
        hint = (
            ", which moa.where(mask, 0.0, -inf) makes of truth values"
            if kind_of(array.element_type) == "bool"
            else ""
        )
        raise DTypeError(
            f"attention: expected {name} of element type {given}{hint}, "
            f"got {array.element_type}"
        )
    return array


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


# Checks


def _check_options(
    scale: Any, is_causal: Any, window: Any, softcap: Any, score_mod: Any, lse: Any
) -> None:
    for name, value in (("is_causal", is_causal), ("return_lse", lse)):
        if type(value) is not bool and not isinstance(value, np.bool_):
            raise DTypeError(
                f"attention: expected True or False as {name}, got {value!r}"
            )
    if window is not None:
        if isinstance(window, bool) or not isinstance(window, Integral):
            raise DTypeError(
                f"attention: expected an integer as window, got {window!r}"
            )
        if window < 1:
            raise OptionError(
                f"attention: expected a window of at least 1, got {window}"
            )
    if softcap is not None:
        if not _is_number(softcap):
            raise DTypeError(
                f"attention: expected a number as softcap, got {softcap!r}"
            )
        if not 0 < softcap < math.inf:
            raise OptionError(
                f"attention: expected a softcap above 0 and finite, got {softcap}"
            )
    if scale is not None and not _is_number(scale):
        if not isinstance(scale, Array):
            raise DTypeError(f"attention: expected a number as scale, got {scale!r}")
        if scale.ndim:
            raise ShapeError(f"attention: expected a scalar as scale, got {scale}")
    if score_mod is not None and not callable(score_mod):
        raise DTypeError(
            f"attention: expected a function as score_mod, got {score_mod!r}"
        )


def _check_dtypes(q: Any, k: Any, v: Any) -> None:
    for name, array in (("q", q), ("k", k), ("v", v)):
        if kind_of(array.element_type) != "float":
            raise DTypeError(
                f"attention: expected {name} of a floating-point type, "
                f"got {array.element_type}"
            )
    types = [str(array.element_type) for array in (q, k, v)]
    if len(set(types)) > 1:
        raise DTypeError(
            f"attention: q, k and v must have one element type, got {', '.join(types)}"
        )


def _check_shapes(q: Any, k: Any, v: Any) -> None:
    """What types tell of the shapes; what they leave open the operations check."""
    for name, array, rows, columns in (
        ("q", q, "n", "d"),
        ("k", k, "m", "d"),
        ("v", v, "m", "e"),
    ):
        if array.ndim < 2:
            raise ShapeError(
                f"attention: expected {name} of shape (..., {rows}, {columns}), "
                f"got {array.ndim} axes"
            )
        if array.ndim != q.ndim:
            raise ShapeError(
                f"attention: q and {name} must have as many axes as each other: "
                f"expected {q.ndim}, got {array.ndim}"
            )
    rank = q.ndim

    def check(what: str, wanted: int | None, given: int | None) -> None:
        if None not in (wanted, given) and wanted != given:
            raise ShapeError(
                f"attention: {what} must be equal: expected {wanted}, got {given}"
            )

    check("the last extents of q and k", q.shape[-1], k.shape[-1])
    check("the rows of k and v", k.shape[-2], v.shape[-2])
    for name, array in (("k", k), ("v", v)):
        for axis in range(rank - 3):
            what = f"the extents of axis {axis} of q and {name}"
            check(what, q.shape[axis], array.shape[axis])
    if rank > 2:
        heads, given = q.shape[-3], k.shape[-3]
        if heads and given is not None and (given == 0 or heads % given):
            raise ShapeError(
                f"attention: the heads of k must divide those of q: "
                f"expected a divisor of {heads}, got {given}"
            )
        if heads == 0:
            check("the heads of q and k", heads, given)
        check("the heads of k and v", given, v.shape[-3])
