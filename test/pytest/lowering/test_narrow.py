"""Narrow floats in vector code: pairs of bf16, and what is extended once.

Results are compared with those of f64. Errors are norm-wise: the Frobenius norm of the
difference over that of the reference.
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
from xdsl.context import Context
from xdsl.dialects.builtin import MemRefType, ModuleOp, UnregisteredOp, i32

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.library.softmax import row_maximum
from moa_dialect.lowering.engine import kernel_of
from moa_dialect.lowering.pairs import DOT
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.kernels import SCHEDULE
from moa_dialect.passes.lift import LiftPass, parse_schedule
from moa_dialect.passes.machine import Machine, host_machine, machine_named

BF16, F16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype("f2"), np.dtype("f4")

needs_dot = pytest.mark.skipif(
    not host_machine().has_bf16_dot, reason="the machine has no dot of bf16"
)
MACHINES = [
    pytest.param("avx512", id="extended"),
    pytest.param("avx512bf16", id="in_pairs", marks=needs_dot),
]


def lifted(
    function: Callable[..., Any], arrays: Sequence[Any], machine: str, schedule: str
) -> ModuleOp:
    """A function lowered to vectors for a machine."""
    module = moa.jit(function).lower(*arrays).module("fused")
    LiftPass(schedule, machine, strided=True).apply(Context(), module)
    assert any(SCHEDULE in op.attributes for op in module.walk())
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    return module


def compiled(
    function: Callable[..., Any],
    arrays: Sequence[Any],
    machine: str,
    schedule: str = "auto",
) -> Callable[..., Any]:
    """A function compiled for a machine; calls give one result."""
    module = lifted(function, arrays, machine, schedule)
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    kernel = kernel_of(module, None)

    def call(*arrays: Any) -> Any:
        result = kernel(*arrays)
        is_one = isinstance(result, tuple | list) and len(result) == 1
        return result[0] if is_one else result

    return call


def dots(module: ModuleOp) -> int:
    """How many times a module adds products of pairs."""
    return sum(
        isinstance(op, UnregisteredOp) and op.op_name.data == DOT
        for op in module.walk()
    )


def relative(result: Any, expected: Any) -> float:
    error = np.linalg.norm(np.asarray(result, "f8") - expected)
    return float(error / np.linalg.norm(expected))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def wide_product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", moa.cast(a, "f32"), moa.cast(b, "f32"))


def product_with_turned(a: Any, b: Any) -> Any:
    return wide_product(a, moa.transpose(b))


# Products of matrices


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize(
    "shape", [(64, 64, 64), (70, 33, 50), (5, 7, 3), (20, 301, 97), (3, 1, 40)]
)
def test_products_of_matrices(
    machine: str, dtype: np.dtype, shape: tuple[int, int, int]
) -> None:
    """Products are exact: the error is that of sums in f32, whatever is odd."""
    n, k, m = shape
    a, b = normal(n, k).astype(dtype), normal(k, m, seed=1).astype(dtype)
    expected = a.astype("f8") @ b.astype("f8")
    assert relative(compiled(wide_product, [a, b], machine)(a, b), expected) <= 1e-6
    turned = np.ascontiguousarray(b.T)
    result = compiled(product_with_turned, [a, turned], machine)(a, turned)
    assert relative(result, expected) <= 1e-6


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "schedule",
    [
        "j=procs,regs:2,lanes:16;p=chunk:7,regs:3",
        "i=procs,block:5;j=procs,regs:1,lanes:8;p=chunk:9,regs:2",
        "i=procs,regs:3,lanes:4;p=chunk:64,regs:2",
        "j=procs,regs:1,lanes:2;p=chunk:64,regs:2",
    ],
)
def test_products_under_other_schedules(machine: str, schedule: str) -> None:
    """Chunks of odd length end with a pair of one; two lanes take no pairs."""
    if machine == "avx512bf16":
        schedule += ",pairs"
    a, b = normal(13, 31).astype(BF16), normal(31, 40, seed=1).astype(BF16)
    result = compiled(wide_product, [a, b], machine, schedule)(a, b)
    assert relative(result, a.astype("f8") @ b.astype("f8")) <= 1e-6


@pytest.mark.parametrize("machine", MACHINES)
def test_products_of_what_is_not_a_number(machine: str) -> None:
    a, b = normal(20, 33).astype(BF16), normal(33, 40, seed=1).astype(BF16)
    a[3, 32] = math.inf  # in the last pair, which is one
    a[5, 7] = math.nan
    b[0, 2] = math.inf
    result = compiled(wide_product, [a, b], machine)(a, b)
    with np.errstate(invalid="ignore"):
        expected = a.astype("f8") @ b.astype("f8")
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))
    assert np.isinf(expected).any()
    assert np.isfinite(expected).any()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("k", [1, 3, 4])
def test_sums_of_negative_zeros(machine: str, k: int) -> None:
    """A pair of one is filled up with what adds nothing, not even a sign."""
    a, b = np.full((16, k), -0.0, BF16), np.full((k, 16), 1, BF16)
    result = compiled(wide_product, [a, b], machine)(a, b)
    assert (result == 0).all()
    assert np.signbit(result).all()


@pytest.mark.parametrize("machine", MACHINES)
def test_subnormal_products(machine: str) -> None:
    """In pairs they count as 0: each of them is wrong by less than 2^-126."""
    a, b = np.full((16, 3), 2.0**-70, BF16), np.full((3, 16), 2.0**-60, BF16)
    result = compiled(wide_product, [a, b], machine)(a, b)
    assert np.abs(np.asarray(result, "f8") - 3 * 2.0**-130).max() <= 3 * 2.0**-126
    if machine == "avx512":
        assert (result == np.float32(3 * 2.0**-130)).all()


@needs_dot
def test_a_tile_in_pairs_that_is_read_one_by_one_too() -> None:
    """A row of rounded weights, summed with bf16 in pairs and with f32 alone."""

    def weighted(x: Any, v: Any, u: Any) -> Any:
        tops = row_maximum(x)
        powers = moa.exp(moa.omega("sub", (1, 0), x, tops))
        rounded = moa.cast(moa.cast(powers, "bf16"), "f32")
        first = moa.inner("add", "mul", rounded, moa.cast(v, "f32"))
        return first, moa.inner("add", "mul", rounded, u)

    x = normal(40, 75).astype(F32)
    v, u = normal(75, 20, seed=1).astype(BF16), normal(75, 20, seed=2).astype(F32)
    module = lifted(weighted, [x, v, u], "avx512bf16", "auto")
    assert dots(module)
    first, second = compiled(weighted, [x, v, u], "avx512bf16")(x, v, u)
    powers = np.exp(x.astype("f8") - x.max(1, keepdims=True))
    assert relative(first, powers @ v.astype("f8")) <= 3e-3
    assert relative(second, powers @ u.astype("f8")) <= 3e-3


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("lane", ["i", ""])
def test_sums_that_are_no_rows(machine: str, lane: str) -> None:
    """A vector of weights and one of bf16: a state without axes of its own."""

    def weighted(x: Any, v: Any) -> Any:
        powers = moa.exp(moa.omega("sub", (1, 0), x, row_maximum(x)))
        rounded = moa.cast(moa.cast(powers, "bf16"), "f32")
        return moa.inner("add", "mul", rounded, moa.cast(v, "f32"))

    def product(a: Any, v: Any) -> Any:
        return wide_product(a, v)

    pairs = ",pairs" if machine == "avx512bf16" else ""
    schedule = "i=procs,regs:2,lanes:16;p=chunk:9,regs:3"
    if not lane:
        schedule = "p=chunk:4,block:2,regs:2,lanes:8"
    schedule += pairs
    x, v = normal(40, 75).astype(F32), normal(75, seed=1).astype(BF16)
    powers = np.exp(x.astype("f8") - x.max(1, keepdims=True))
    result = compiled(weighted, [x, v], machine, schedule)(x, v)
    assert relative(result, powers @ v.astype("f8")) <= 3e-3
    a = x.astype(BF16)
    result = compiled(product, [a, v], machine, schedule)(a, v)
    assert relative(result, a.astype("f8") @ v.astype("f8")) <= 1e-6


# Attention


def attention_of(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    is_causal: bool = False,
    window: int | None = None,
) -> np.ndarray:
    """Attention in f64; keys that are hidden do not exist."""
    q, k, v = (a.astype("f8") for a in (q, k, v))
    group = len(q) // len(k)
    k, v = np.repeat(k, group, 0), np.repeat(v, group, 0)
    scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
    distance = np.subtract.outer(np.arange(q.shape[1]), np.arange(k.shape[1]))
    is_seen = np.ones(distance.shape, bool)
    if is_causal:
        is_seen &= distance >= 0
    if window is not None:
        is_seen &= np.abs(distance) < window
    scores = np.where(is_seen, scores, -math.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True) @ v


SHAPES = [
    (2, 2, 70, 66, 32, 32),
    (2, 1, 33, 67, 33, 17),
    (1, 1, 5, 7, 3, 9),
    (1, 1, 130, 129, 64, 64),
    (1, 1, 65, 191, 31, 33),
    (1, 1, 1, 50, 8, 8),
    (1, 1, 97, 97, 96, 1),
]
BOUND = {BF16: 4e-3, F16: 5e-4}


def some_attention(
    shape: Sequence[int], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    heads, key_heads, n, m, d, e = shape
    q, k = normal(heads, n, d), normal(key_heads, m, d, seed=1)
    v = normal(key_heads, m, e, seed=2)
    return q.astype(dtype), k.astype(dtype), v.astype(dtype)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention(
    machine: str, dtype: np.dtype, is_causal: bool, shape: Sequence[int]
) -> None:
    arrays = some_attention(shape, dtype)
    function = compiled(
        lambda q, k, v: moa.attention(q, k, v, is_causal=is_causal), arrays, machine
    )
    result = function(*arrays)
    assert result.dtype == dtype
    assert relative(result, attention_of(*arrays, is_causal)) <= BOUND[dtype]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("window", [(True, 20), (False, 9)])
def test_attention_with_a_window(machine: str, window: tuple[bool, int]) -> None:
    is_causal, size = window
    arrays = some_attention((1, 1, 200, 201, 40, 56), BF16)
    function = compiled(
        lambda q, k, v: moa.attention(q, k, v, is_causal=is_causal, window=size),
        arrays,
        machine,
    )
    assert relative(function(*arrays), attention_of(*arrays, is_causal, size)) <= 4e-3


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("chunk", [7, 10, 64])
def test_a_hidden_key_does_not_exist(machine: str, chunk: int) -> None:
    """NaN and infinity in a key and value matter to the rows that see them only."""
    q, k, v = some_attention((1, 1, 60, 60, 16, 16), BF16)
    at = 41
    k[:, at], v[:, at, ::2], v[:, at, 1::2] = math.nan, math.inf, math.nan
    pairs = ",pairs" if machine == "avx512bf16" else ""
    function = compiled(
        lambda q, k, v: moa.attention(q, k, v, is_causal=True),
        [q, k, v],
        machine,
        f"j=procs,regs:2,lanes:16;p=chunk:{chunk},regs:3{pairs}",
    )
    result = np.asarray(function(q, k, v), "f8")
    assert np.isnan(result[:, at:]).all()
    expected = attention_of(q[:, :at], k[:, :at], v[:, :at], True)
    assert relative(result[:, :at], expected) <= 4e-3


def test_an_infinite_value_that_is_seen() -> None:
    """Weight 0 by underflow times infinity is NaN, any other weight keeps it."""
    q, k, v = some_attention((1, 1, 40, 40, 16, 16), BF16)
    v[0, 3] = math.inf
    result = np.asarray(moa.attention(q, k, v), "f8")
    assert (result == math.inf).all()


# How it is decided


def test_pairs_are_for_products_of_bf16() -> None:
    """Not for f16, nor for a factor in f32, nor where the machine has no dot."""
    a, b = np.ones((64, 32), BF16), np.ones((32, 64), BF16)
    assert dots(lifted(wide_product, [a, b], "avx512bf16", "auto"))
    assert not dots(lifted(wide_product, [a, b], "avx512", "auto"))
    halves = [x.astype(F16) for x in (a, b)]
    assert not dots(lifted(wide_product, halves, "avx512bf16", "auto"))
    one_wide = [a, b.astype(F32)]
    assert not dots(lifted(wide_product, one_wide, "avx512bf16", "auto"))


def test_the_weights_of_attention_lie_in_pairs() -> None:
    """Queries, weights and values: three tiles of pairs, and three tiles of f32."""
    arrays = some_attention((1, 1, 128, 128, 64, 64), BF16)
    schedule = "j=procs,regs:4,lanes:16;p=chunk:96,regs:4,pairs"
    module = lifted(
        lambda q, k, v: moa.attention(q, k, v), arrays, "avx512bf16", schedule
    )
    tiles = [op.results[0].type for op in module.walk() if op.name == "memref.alloca"]
    pairs = [t for t in tiles if isinstance(t, MemRefType) and t.element_type == i32]
    assert len(pairs) == 3


def test_machines_say_whether_they_have_the_instruction() -> None:
    assert machine_named("avx512bf16").has_bf16_dot
    assert not machine_named("avx512").has_bf16_dot
    assert not Machine("some", 32, 16).has_bf16_dot


def test_pairs_in_the_text_of_a_schedule() -> None:
    for text in (
        "i=procs,regs:4,lanes:16;p=chunk:96,regs:6,pairs",
        "p=chunk:32,block:4,regs:1,lanes:16,pairs",
    ):
        schedule = parse_schedule(text, ["i"])
        assert schedule.pairs
        assert str(schedule) == text
    assert not parse_schedule("i=lanes:16;p=chunk:8,regs:2", ["i"]).pairs
    with pytest.raises(CompileError, match="pairs, aligned, ahead or each, got twos"):
        parse_schedule("i=lanes:16;p=chunk:8,twos", ["i"])


# Roundings that move


def test_a_rounding_to_bf16_lets_a_factor_through() -> None:
    """The exponentials are rounded, and there is one pass all the same."""
    arrays = some_attention((1, 1, 8, 8, 4, 4), BF16)
    module = moa.jit(moa.attention).lower(*arrays).module("fused")
    names = [op.name for op in module.walk()]
    assert names.count("moa.cascade") == 1
    cascade = next(op for op in module.walk() if op.name == "moa.cascade")
    assert sum(op.name == "arith.truncf" for op in cascade.walk()) == 1


def test_a_rounding_to_bf16_lets_no_other_function_through() -> None:
    """Squares of rounded differences from a mean stay in a pass of their own."""

    def spread(x: Any) -> Any:
        mean = moa.reduce("add", x) / x.shape[0]
        rounded = moa.cast(moa.cast(x - mean, "bf16"), "f32")
        return moa.reduce("add", rounded * rounded)

    x = normal(50).astype(F32)
    lowered = moa.jit(spread).lower(x)
    names = [op.name for op in lowered.module("fused").walk()]
    assert "moa.cascade" not in names
    expected = ((x - x.astype("f8").mean()) ** 2).sum()
    assert abs(float(moa.jit(spread)(x)) / expected - 1) <= 1e-2
