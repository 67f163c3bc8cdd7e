"""Few queries and many keys on a GPU: parts of the keys, heads that share keys as rows."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects import gpu
from xdsl.dialects.builtin import StringAttr

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.outline_kernels import number_of
from moa_dialect.lowering.pipelines import PLACES
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, Kernel, all_terms, read_kernel
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.share_rows import find_shared, share_rows, split_axis
from moa_dialect.passes.split_cascades import SplitCascadesPass

TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2, "float16": 2e-3}


def arrays_of(
    queries: tuple[int, ...], keys: tuple[int, ...], dtype: Any
) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    shapes = (queries, keys, (*keys[:-1], 16))
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def expected_of(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    times = q.shape[0] // k.shape[0]
    k, v = np.repeat(k, times, 0), np.repeat(v, times, 0)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


def attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


@pytest.mark.parametrize(
    ("heads", "keys", "n", "m", "dtype"),
    [
        (4, 1, 1, 700, np.float32),
        (4, 2, 3, 300, np.float32),
        (2, 2, 1, 513, np.float32),
        (2, 2, 3, 100, np.float32),
        (8, 2, 1, 512, ml_dtypes.bfloat16),
        (8, 2, 1, 512, np.float16),
        (4, 1, 3, 333, ml_dtypes.bfloat16),
        (2, 2, 1, 640, ml_dtypes.bfloat16),
        (6, 2, 3, 100, ml_dtypes.bfloat16),
    ],
)
def test_decode(heads: int, keys: int, n: int, m: int, dtype: Any) -> None:
    """With and without heads that share keys, whole chunks or not."""
    arrays = arrays_of((heads, n, 32), (keys, m, 32), dtype)
    given = moa.jit(attention, target="cuda", emulate=True)(*arrays)
    tolerance = TOLERANCE[np.dtype(dtype).name]
    expected = expected_of(*arrays)
    np.testing.assert_allclose(given.astype(float), expected, tolerance, tolerance)


def test_decode_of_any_length() -> None:
    """One kernel for all lengths: parts beyond the end are empty."""
    spec = moa.ArraySpec((1, "m", 16), "float32")
    q = moa.ArraySpec((2, 1, 16), "float32")
    program = moa.jit(attention, "cuda", specs=[q, spec, spec], emulate=True)
    for m in (1, 130):
        arrays = arrays_of((2, 1, 16), (1, m, 16), np.float32)
        np.testing.assert_allclose(program(*arrays), expected_of(*arrays), 2e-6, 2e-6)


@pytest.mark.parametrize("name", ["logsumexp", "variance", "softmax"])
def test_rows_in_parts(name: str) -> None:
    program = getattr(library, name)
    x = np.random.default_rng(0).standard_normal((2, 1700)).astype(np.float32) + 10
    given = moa.jit(program, target="cuda", emulate=True)(x)
    np.testing.assert_allclose(given, moa.interpret(program, x), 1e-5, 1e-5)


def lifted(heads: int, keys: int, n: int, m: int) -> list[ComprehensionOp]:
    specs = [
        moa.ArraySpec(shape, "bfloat16")
        for shape in ((heads, n, 128), (keys, m, 128), (keys, m, 128))
    ]
    module = moa.jit(attention).lower(*specs).module("fused")
    SplitCascadesPass(places=PLACES).apply(Context(), module)
    LiftPass(target="nvptx").apply(Context(), module)
    return [op for op in module.walk() if isinstance(op, ComprehensionOp)]


def schedule_of(op: ComprehensionOp) -> str:
    text = op.attributes.get(SCHEDULE)
    return text.data if isinstance(text, StringAttr) else ""


def test_heads_that_share_keys_are_rows() -> None:
    assert schedule_of(lifted(32, 8, 1, 8192)[0]).startswith("i_g=grid,warps:1,regs:2;")
    assert schedule_of(lifted(32, 8, 3, 8192)[0]).startswith("ij_g=grid")
    # Queries enough, or nothing that is shared.
    assert schedule_of(lifted(32, 8, 256, 8192)[0]).startswith("j=grid")
    assert schedule_of(lifted(8, 8, 1, 8192)[0]).startswith("j=grid")


def test_keys_are_read_once_for_a_group_of_heads() -> None:
    """As many groups of threads as parts of key heads, each for all their queries."""
    specs = [
        moa.ArraySpec(shape, "bfloat16")
        for shape in ((32, 1, 128), (8, 8192, 128), (8, 8192, 128))
    ]
    module = moa.jit(attention, target="cuda").lower(*specs).module("target")
    launch = next(op for op in module.walk() if isinstance(op, gpu.LaunchFuncOp))
    assert number_of(launch.gridSizeX) == 8 * 32
    assert number_of(launch.blockSizeX) == 2 * 32  # One warp loads.


def kernel_of(heads: int, keys: int, n: int) -> Kernel:
    specs = [
        moa.ArraySpec(shape, "float32")
        for shape in ((heads, n, 8), (keys, 50, 8), (keys, 50, 8))
    ]
    module = moa.jit(attention).lower(*specs).module("fused")
    (function,) = functions_of(module)
    (op,) = comprehensions(function)
    return read_kernel(op, function)


def test_split_axis_leaves_no_quotients() -> None:
    kernel = kernel_of(6, 2, 1)
    outer, inner = split_axis(kernel, "#0", 3)
    assert kernel.axes == [outer, inner, "#1"]
    assert not any(term.computes("arith.divui") for term in all_terms(kernel))
    assert not any("#0" in term.free for term in all_terms(kernel))
    reads = [t for t in all_terms(kernel) if t.computes("moa.at")]
    assert {inner in t.free for t in reads if outer in t.free} == {True, False}


def test_rows_are_shared_only_where_that_helps() -> None:
    shared = find_shared(kernel := kernel_of(6, 2, 5), "#1")
    assert shared is not None
    assert (shared.axis, shared.group, shared.rows) == ("#0", 3, "#1")
    assert share_rows(kernel, shared) in kernel.axes
    assert len(kernel.axes) == 2
    assert find_shared(kernel_of(2, 2, 5), "#1") is None
    assert find_shared(kernel_of(6, 2, 64), "#1") is None
