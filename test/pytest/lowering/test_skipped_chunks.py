"""Chunks of which no index takes part are skipped, by conditions on data."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.skips import taking_part

Program = Callable[..., Any]
N = 210


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Attention to the keys that a mask has."""
    scores = library.matmul(q, moa.transpose(k)) * 0.25
    return library.matmul(library.softmax(moa.where(mask, scores, -np.inf)), v)


def biased(q: Any, k: Any, v: Any, bias: Any) -> Any:
    return moa.attention(q, k, v, bias=bias)


def of_documents(documents: np.ndarray, is_causal: bool = False) -> Program:
    """Attention within documents."""

    def number(place: Any) -> Any:
        return moa.psi(moa.reshape([1], place), documents)

    def same(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return moa.where(number(i) == number(j), s, -np.inf)

    return lambda q, k, v: moa.attention(q, k, v, score_mod=same, is_causal=is_causal)


def reference(q: Any, k: Any, v: Any, mask: np.ndarray) -> np.ndarray:
    q, k, v = (np.asarray(x, float) for x in (q, k, v))
    scores = np.where(mask, q @ k.T / 4, -np.inf)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e300))
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights @ v, total, np.zeros_like(q), where=total > 0)


def conditions(program: Program, *arrays: Any) -> list[bool]:
    """For each pass of a program's kernels whether there is a condition to test."""
    (function,) = functions_of(moa.jit(program).lower(*arrays).module("fused"))
    kernels = [read_kernel(op, function) for op in comprehensions(function)]
    return [
        taking_part(kernel.terms, pass_) is not None
        for kernel in kernels
        for pass_ in kernel.passes
    ]


DOCUMENTS = {
    "at both ends": np.repeat([7, -2, 7], [50, 110, 50]),
    "far apart": np.repeat([1 << 40, -(1 << 40), 3], [100, 100, 10]),
    "in order": np.repeat([0, 1, 2, 3, 4], [3, 120, 1, 40, 46]),
    "mixed": np.arange(N) * 7 % 5,
    "each alone": np.arange(N),
}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str, is_causal: bool) -> None:
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    documents = DOCUMENTS[name]
    mask = documents[:, None] == documents
    if is_causal:
        mask &= np.tri(N, dtype=bool)
    found = moa.jit(of_documents(documents, is_causal))(q, k, v)
    np.testing.assert_allclose(found, reference(q, k, v, mask), 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_masks_of_data(dtype: Any) -> None:
    """Dense, sparse, by blocks, and rows that see nothing."""
    q, k, v = (numbers(N, 16, seed=n).astype(dtype) for n in range(3))
    kernel = moa.jit(biased)
    random = np.random.default_rng(3)
    sparse = random.random((N, N)) < 0.003
    sparse[np.arange(N), np.arange(N)[::-1]] = True
    blocks = np.kron(np.eye(7, dtype=bool), np.ones((30, 30), bool))
    blocks[5:9] = False
    for mask in (np.ones((N, N), bool), sparse, blocks, np.zeros((N, N), bool)):
        bias = np.where(mask, 0.0, -np.inf).astype(dtype)
        expected = reference(q, k, v, mask)
        tolerance = 2e-2 if dtype is ml_dtypes.bfloat16 else 1e-5
        found = np.asarray(kernel(q, k, v, bias), float)
        np.testing.assert_allclose(found, expected, tolerance, tolerance)
        if dtype is np.float32:
            found = moa.jit(masked)(q, k, v, mask)
            seen = mask.any(-1)
            np.testing.assert_allclose(found[seen], expected[seen], 1e-5, 1e-6)


def test_what_is_skipped_is_not_read() -> None:
    """A masked key does not exist: NaN in a chunk of them is no matter."""
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    v[:96] = np.nan
    bias = np.zeros((N, N), np.float32)
    bias[:, :96] = -np.inf
    schedule = "i=procs,regs:1,lanes:16;p=chunk:32,regs:4"
    found = moa.jit(biased, schedule=schedule)(q, k, v, bias)
    expected = reference(q, k, np.nan_to_num(v), bias == 0)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def test_what_is_hidden_at_the_ends_of_a_chunk_is_not_read() -> None:
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    documents = np.repeat([0, 1], [104, N - 104])
    v[:104] = np.nan
    schedule = "i=procs,regs:1,lanes:8;p=chunk:96,regs:4"
    found = moa.jit(of_documents(documents), schedule=schedule)(q, k, v)
    mask = documents[:, None] == documents
    expected = reference(q, k, np.nan_to_num(v), mask)
    np.testing.assert_allclose(found[104:], expected[104:], 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_an_order_of_keys_that_is_data(dtype: Any) -> None:
    """A query sees the keys whose place is not after its own."""
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    places = np.random.default_rng(5).permutation(N).astype(dtype)
    places = np.sort(places.reshape(7, 30), 1).ravel()

    def seen(q: Any, k: Any, v: Any, places: Any) -> Any:
        return masked(q, k, v, moa.outer("ge", places, places))

    found = moa.jit(seen)(q, k, v, places)
    expected = reference(q, k, v, places[:, None] >= places)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def test_keys_that_are_padding() -> None:
    def kept(q: Any, k: Any, v: Any, shown: Any) -> Any:
        return masked(q, k, v, moa.omega("and", (0, 1), moa.iota(N) >= 0, shown))

    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    kernel, places = moa.jit(kept), np.arange(N)
    for first, last in ((0, 1), (5, 22), (0, 96), (95, 97), (150, N), (0, N)):
        shown = (places >= first) & (places < last)
        expected = reference(q, k, v, np.broadcast_to(shown, (N, N)))
        np.testing.assert_allclose(kernel(q, k, v, shown), expected, 1e-5, 1e-6)


def test_a_mask_of_data_and_one_of_bounds() -> None:
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    mask = (np.arange(N)[:, None] // 70 == np.arange(N) // 70) & np.tri(N, dtype=bool)
    bias = np.where(mask, 0, -np.inf).astype(np.float32)
    found = moa.attention(q, k, v, bias=bias, is_causal=True)
    np.testing.assert_allclose(found, reference(q, k, v, mask), 1e-5, 1e-6)


def test_chunks_are_the_same_whatever_other_lanes_see() -> None:
    """With `deterministic`: a query's result does not depend on the others'."""
    q, k, v = (numbers(N, 16, seed=n) for n in range(3))
    some = np.arange(N)[:, None] // 70 == np.arange(N) // 70
    more = some.copy()
    more[1::2] = True
    kernel = moa.jit(masked, deterministic=True)
    found, other = kernel(q, k, v, some), kernel(q, k, v, more)
    np.testing.assert_array_equal(found[::2], other[::2])


def test_tasks_are_narrower_where_data_hides_keys() -> None:
    arrays = [moa.ArraySpec((8, 2048, 64), np.float32)] * 3

    def vectors(program: Program) -> int:
        (schedule,) = moa.jit(program).lower(*arrays).schedules
        return int(schedule.split("regs:")[1][0])

    plain = vectors(lambda q, k, v: moa.attention(q, k, v))
    assert vectors(of_documents(np.arange(2048) // 100)) < plain


def test_there_is_a_condition_where_a_choice_leaves_nothing() -> None:
    arrays = [numbers(N, 16, seed=n) for n in range(3)]
    mask = np.ones((N, N), bool)
    assert conditions(masked, *arrays, mask) == [True]
    assert conditions(biased, *arrays, mask.astype(np.float32)) == [True]
    assert conditions(of_documents(np.arange(N)), *arrays) == [True]


def test_there_is_none_where_all_take_part_or_little_is_saved() -> None:
    arrays = [numbers(N, 16, seed=n) for n in range(3)]
    assert conditions(lambda q, k, v: moa.attention(q, k, v), *arrays) == [False]

    def half(q: Any, k: Any, v: Any, mask: Any) -> Any:
        scores = library.matmul(q, moa.transpose(k))
        return library.matmul(library.softmax(moa.where(mask, scores, 0.5)), v)

    mask = np.ones((N, N), bool)
    assert conditions(half, *arrays, mask) == [False]

    def rows(x: Any, mask: Any) -> Any:
        return library.logsumexp(moa.where(mask, x, -np.inf))

    assert conditions(rows, numbers(N, N), mask) == [False]
