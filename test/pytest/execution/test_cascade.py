"""Cascades written by hand: against NumPy, the folds they stand for, at every stage.

A cascade with chunks rounds as its chunks say. Apart from calls of the mathematical
library, interpreter and kernel agree bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from moa_dialect.interpreter import count_operations, interpret_module
from moa_dialect.lowering.engine import compile_module
from moa_dialect.lowering.pipelines import STAGES
from moa_dialect.ops.normal_form import CascadeOp
from moa_dialect.ops.operational import BufferOp, LoadOp, LoopOp, StoreOp
from moa_dialect.options import Options
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes.check_storage import scratch_bytes
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.sink import SinkPass
from moa_dialect.passes.to_onf import ToOnfPass
from moa_dialect.passes.work import COSTLY, weight
from moa_dialect.universe import register_dialects

CHUNKS = (None, 1, 3, 4, 96)
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 95, 96, 97, 193)
DTYPES = {"f64": np.float64, "f32": np.float32}
TOLERANCE = {"f64": 1e-12, "f32": 2e-4}

each_chunk = pytest.mark.parametrize("chunk", CHUNKS)
each_type = pytest.mark.parametrize("element", DTYPES)


def parse(text: str) -> ModuleOp:
    context = Context()
    register_dialects(context)
    module = ModuleParser(context, text).parse_module()
    module.verify()
    return module


def written(text: str, element: str, chunk: int | None) -> ModuleOp:
    """A program with an element type and a chunk."""
    chosen = "" if chunk is None else f"chunk {chunk}"
    return parse(text.replace("ELEMENT", element).replace("CHUNK", chosen))


def lowered(module: ModuleOp, stage: str = "onf") -> ModuleOp:
    """The module at a stage after the fused one."""
    copy = module.clone()
    for pass_ in STAGES[stage]:
        pass_.apply(Context(), copy)
    copy.verify()
    return copy


def run_everywhere(
    module: ModuleOp,
    arrays: Sequence[np.ndarray],
    tolerance: float | None = None,
    absolute: float | None = None,
) -> list[np.ndarray]:
    """The results, which must be the same interpreted, in loops and compiled.

    They are compared bit by bit, compiled ones up to a tolerance if one is given,
    relative and absolute. If another one is given that is absolute, only vector code
    may differ: loops agree bit by bit when they are compiled.
    """
    results = list(interpret_module(module, "f", arrays))
    shared = module.clone()
    for pass_ in (SharePass(), SinkPass()):
        pass_.apply(Context(), shared)
    shared.verify()
    onf = interpret_module(lowered(module), "f", arrays)
    for other in (onf, interpret_module(shared, "f", arrays)):
        for expected, got in zip(results, other, strict=True):
            np.testing.assert_array_equal(got, expected, strict=True)
    if absolute is not None:
        loops = compile_module(module, options=Options(fuse=False))(*arrays)
        outputs = loops if isinstance(loops, tuple) else (loops,)
        for expected, got in zip(results, outputs, strict=True):
            np.testing.assert_array_equal(got, expected, strict=True)
    compiled = compile_module(module)(*arrays)
    outputs = compiled if isinstance(compiled, tuple) else (compiled,)
    for expected, got in zip(results, outputs, strict=True):
        if tolerance is None:
            np.testing.assert_array_equal(got, expected, strict=True)
        else:
            most = tolerance if absolute is None else absolute
            np.testing.assert_allclose(got, expected, tolerance, most)
    return results


def random(*shape: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


LOGSUMEXP = """
func.func @f(%a: tensor<?x?xELEMENT>) -> tensor<?xELEMENT> {
  %m = moa.extent %a, 0 : tensor<?x?xELEMENT>
  %n = moa.extent %a, 1 : tensor<?x?xELEMENT>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -1.0e30 : ELEMENT
  %r = moa.comprehension [%i < %m] -> tensor<?xELEMENT> {
    %max, %sum, %pivot = moa.cascade [%c0 to %n] CHUNK -> ELEMENT, ELEMENT, ELEMENT
    data {
    ^bb0(%p: index):
      %x = moa.at %a[%i, %p] : tensor<?x?xELEMENT>
      moa.yield %x : ELEMENT
    } group max part {
    ^bb0(%p: index, %x: ELEMENT):
      moa.yield %x : ELEMENT
    } group add pivot %lowest {
    ^bb0(%count: index, %top: ELEMENT, %r: ELEMENT, %s: ELEMENT):
      %f = arith.maximumf %top, %lowest : ELEMENT
      moa.yield %f : ELEMENT
    } part {
    ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
      %d = arith.subf %x, %r : ELEMENT
      %e = math.exp %d : ELEMENT
      moa.yield %e : ELEMENT
    } move {
    ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %s: ELEMENT):
      %d = arith.subf %old, %new : ELEMENT
      %e = math.exp %d : ELEMENT
      %t = arith.mulf %e, %s : ELEMENT
      moa.yield %t : ELEMENT
    }
    %log = math.log %sum : ELEMENT
    %result = arith.addf %pivot, %log : ELEMENT
    moa.yield %result : ELEMENT
  }
  func.return %r : tensor<?xELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", LENGTHS)
def test_logsumexp(n: int, chunk: int | None, element: str) -> None:
    a = 5 * random(2, n, dtype=DTYPES[element])
    module = written(LOGSUMEXP, element, chunk)
    (got,) = run_everywhere(module, [a], TOLERANCE[element])
    with np.errstate(divide="ignore"):
        expected = np.logaddexp.reduce(a, axis=1, initial=-np.inf)
    np.testing.assert_allclose(got, expected, TOLERANCE[element])


def test_the_plain_folds_give_the_same() -> None:
    folds = """
    func.func @f(%a: tensor<?x?xf64>) -> tensor<?xf64> {
      %m = moa.extent %a, 0 : tensor<?x?xf64>
      %n = moa.extent %a, 1 : tensor<?x?xf64>
      %c0 = arith.constant 0 : index
      %r = moa.comprehension [%i < %m] -> tensor<?xf64> {
        %max = moa.fold max [%p = %c0 to %n] -> f64 {
          %x = moa.at %a[%i, %p] : tensor<?x?xf64>
          moa.yield %x : f64
        }
        %sum = moa.fold add [%p = %c0 to %n] -> f64 {
          %x = moa.at %a[%i, %p] : tensor<?x?xf64>
          %d = arith.subf %x, %max : f64
          %e = math.exp %d : f64
          moa.yield %e : f64
        }
        %log = math.log %sum : f64
        %result = arith.addf %max, %log : f64
        moa.yield %result : f64
      }
      func.return %r : tensor<?xf64>
    }
    """
    a = random(4, 50)
    (expected,) = interpret_module(parse(folds), "f", [a])
    for chunk in CHUNKS:
        (got,) = interpret_module(written(LOGSUMEXP, "f64", chunk), "f", [a])
        np.testing.assert_allclose(got, expected, 1e-14)


ATTENTION = """
func.func @f(%q: tensor<?x?xELEMENT>, %k: tensor<?x?xELEMENT>, %v: tensor<?x?xELEMENT>)
    -> tensor<?x?xELEMENT> {
  %n = moa.extent %q, 0 : tensor<?x?xELEMENT>
  %d = moa.extent %q, 1 : tensor<?x?xELEMENT>
  %m = moa.extent %k, 0 : tensor<?x?xELEMENT>
  %e = moa.extent %v, 1 : tensor<?x?xELEMENT>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %lowest = arith.constant -1.0e30 : ELEMENT
  %o = moa.comprehension [%i < %n] -> tensor<?x?xELEMENT> {
    %i1 = arith.addi %i, %c1 : index
    %stop = arith.minsi %i1, %m : index
    %max, %sum, %row, %pivot = moa.cascade [%c0 to UPPER] CHUNK
        -> ELEMENT, ELEMENT, tensor<?xELEMENT>, ELEMENT
    data {
    ^bb0(%p: index):
      %x = moa.fold add [%c = %c0 to %d] -> ELEMENT {
        %x0 = moa.at %q[%i, %c] : tensor<?x?xELEMENT>
        %x1 = moa.at %k[%p, %c] : tensor<?x?xELEMENT>
        %x2 = arith.mulf %x0, %x1 : ELEMENT
        moa.yield %x2 : ELEMENT
      }
      moa.yield %x : ELEMENT
    } group max part {
    ^bb0(%p: index, %x: ELEMENT):
      moa.yield %x : ELEMENT
    } group add, add pivot %lowest {
    ^bb0(%count: index, %top: ELEMENT, %r: ELEMENT, %s: ELEMENT, %w: tensor<?xELEMENT>):
      %f = arith.maximumf %top, %lowest : ELEMENT
      moa.yield %f : ELEMENT
    } part {
    ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
      %d0 = arith.subf %x, %r : ELEMENT
      %e0 = math.exp %d0 : ELEMENT
      %w = moa.comprehension [%l < %e] -> tensor<?xELEMENT> {
        %y = moa.at %v[%p, %l] : tensor<?x?xELEMENT>
        %z = arith.mulf %e0, %y : ELEMENT
        moa.yield %z : ELEMENT
      }
      moa.yield %e0, %w : ELEMENT, tensor<?xELEMENT>
    } move {
    ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %s: ELEMENT,
         %w: tensor<?xELEMENT>):
      %d0 = arith.subf %old, %new : ELEMENT
      %e0 = math.exp %d0 : ELEMENT
      %t = arith.mulf %e0, %s : ELEMENT
      %u = moa.comprehension [%l < %e] -> tensor<?xELEMENT> {
        %y = moa.at %w[%l] : tensor<?xELEMENT>
        %z = arith.mulf %e0, %y : ELEMENT
        moa.yield %z : ELEMENT
      }
      moa.yield %t, %u : ELEMENT, tensor<?xELEMENT>
    }
    %normal = moa.comprehension [%l < %e] -> tensor<?xELEMENT> {
      %y = moa.at %row[%l] : tensor<?xELEMENT>
      %z = arith.divf %y, %sum : ELEMENT
      moa.yield %z : ELEMENT
    }
    moa.yield %normal : tensor<?xELEMENT>
  }
  func.return %o : tensor<?x?xELEMENT>
}
"""


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> Any:
    scores = (q @ k.T).astype(np.float64)
    if causal:
        n, m = scores.shape
        scores[np.arange(m)[None] > np.arange(n)[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


@each_type
@each_chunk
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("m", [1, 3, 4, 5, 8, 97])
def test_attention(m: int, is_causal: bool, chunk: int | None, element: str) -> None:
    dtype = DTYPES[element]
    q, k = random(5, 3, dtype=dtype), random(m, 3, dtype=dtype, seed=1)
    v = random(m, 4, dtype=dtype, seed=2)
    text = ATTENTION.replace("UPPER", "%stop" if is_causal else "%m")
    module = written(text, element, chunk)
    (got,) = run_everywhere(module, [q, k, v], TOLERANCE[element])
    expected = attention(q, k, v, is_causal)
    np.testing.assert_allclose(got, expected, TOLERANCE[element], TOLERANCE[element])
    onf = lowered(module)
    assert not any(
        isinstance(op, BufferOp) and op.accumulator is not None for op in onf.walk()
    )


@pytest.mark.parametrize(("chunk", "chunks"), [(None, 10), (1, 10), (4, 3), (96, 1)])
def test_attention_counts(chunk: int | None, chunks: int) -> None:
    """One score, and one exponential, for each key; one more for each chunk."""
    n, m, d, e = 5, 10, 3, 4
    arrays = [random(n, d), random(m, d), random(m, e)]
    module = written(ATTENTION.replace("UPPER", "%m"), "f64", chunk)
    for program in (module, lowered(module)):
        counts = count_operations(program, "f", arrays)
        moved = n * (chunks - 1)
        assert counts["math.exp"] == n * m + moved
        assert counts["arith.mulf"] == n * m * (d + e) + moved * (1 + e)
        assert counts["moa.fold"] == n * m


def test_scores_of_a_chunk_lie_in_a_tile() -> None:
    module = written(ATTENTION.replace("UPPER", "%m"), "f64", 96)
    assert scratch_bytes(lowered(module)) == 96 * 8
    assert scratch_bytes(lowered(written(LOGSUMEXP, "f64", 96))) == 0


VARIANCE = """
func.func @f(%a: tensor<?xELEMENT>)
    -> (tensor<ELEMENT>, tensor<ELEMENT>, tensor<ELEMENT>) {
  %n = moa.extent %a, 0 : tensor<?xELEMENT>
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : ELEMENT
  %two = arith.constant 2.0 : ELEMENT
  %u, %s, %mean = moa.cascade [%c0 to %n] CHUNK -> ELEMENT, ELEMENT, ELEMENT
  data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xELEMENT>
    moa.yield %x : ELEMENT
  } group add, add pivot %zero {
  ^bb0(%count: index, %r: ELEMENT, %u: ELEMENT, %s: ELEMENT):
    %i = arith.index_cast %count : index to i64
    %k = arith.sitofp %i : i64 to ELEMENT
    %d = arith.divf %u, %k : ELEMENT
    %new = arith.addf %r, %d : ELEMENT
    moa.yield %new : ELEMENT
  } part {
  ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
    %d = arith.subf %x, %r : ELEMENT
    %q = arith.mulf %d, %d : ELEMENT
    moa.yield %d, %q : ELEMENT, ELEMENT
  } move {
  ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %u: ELEMENT, %s: ELEMENT):
    %d = arith.subf %old, %new : ELEMENT
    %i = arith.index_cast %count : index to i64
    %k = arith.sitofp %i : i64 to ELEMENT
    %kd = arith.mulf %k, %d : ELEMENT
    %u1 = arith.addf %u, %kd : ELEMENT
    %du = arith.mulf %d, %u : ELEMENT
    %du2 = arith.mulf %two, %du : ELEMENT
    %s1 = arith.addf %s, %du2 : ELEMENT
    %kdd = arith.mulf %kd, %d : ELEMENT
    %s2 = arith.addf %s1, %kdd : ELEMENT
    moa.yield %u1, %s2 : ELEMENT, ELEMENT
  }
  %ru = moa.comprehension [] -> tensor<ELEMENT> {
    moa.yield %u : ELEMENT
  }
  %rs = moa.comprehension [] -> tensor<ELEMENT> {
    moa.yield %s : ELEMENT
  }
  %rm = moa.comprehension [] -> tensor<ELEMENT> {
    moa.yield %mean : ELEMENT
  }
  func.return %ru, %rs, %rm : tensor<ELEMENT>, tensor<ELEMENT>, tensor<ELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", LENGTHS)
def test_variance_by_the_carried_mean(n: int, chunk: int | None, element: str) -> None:
    a = random(n, dtype=DTYPES[element]) + DTYPES[element](1000)
    tolerance = TOLERANCE[element]
    rounding = float(n * 1000 * np.finfo(a.dtype).eps)
    module = written(VARIANCE, element, chunk)
    rest, squares, mean = run_everywhere(module, [a], 20 * tolerance, 2 * rounding)
    exact = a.astype(np.float64)
    centre = exact.mean() if n else 0
    np.testing.assert_allclose(mean, centre, tolerance)
    np.testing.assert_allclose(rest, 0, atol=rounding)
    expected = np.square(exact - centre).sum()
    np.testing.assert_allclose(squares, expected, 20 * tolerance, n * 1e-5 * tolerance)


@each_chunk
def test_a_pivot_takes_only_the_accumulators_it_needs(chunk: int | None) -> None:
    """U for each index before and after the pivot moves, the squares only after."""
    n, chunks = 10, -(-10 // (chunk or 1))
    module = written(VARIANCE, "f64", chunk)
    for program in (module, lowered(module)):
        counts = count_operations(program, "f", [random(n)])
        moves = chunks - 1
        assert counts["arith.mulf"] == n + 4 * moves
        assert counts["arith.subf"] == 2 * n + moves
        assert counts["arith.divf"] == chunks


# Pivots that depend on groups that depend on pivots.

EXPECTATION = """
func.func @f(%a: tensor<?xELEMENT>) -> tensor<ELEMENT> {
  %n = moa.extent %a, 0 : tensor<?xELEMENT>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -1.0e30 : ELEMENT
  %top, %sum, %mean, %r1, %r2 = moa.cascade [%c0 to %n] CHUNK
      -> ELEMENT, ELEMENT, ELEMENT, ELEMENT, ELEMENT
  data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xELEMENT>
    moa.yield %x : ELEMENT
  } group max part {
  ^bb0(%p: index, %x: ELEMENT):
    moa.yield %x : ELEMENT
  } group add pivot %lowest {
  ^bb0(%count: index, %m: ELEMENT, %r: ELEMENT, %s: ELEMENT):
    moa.yield %m : ELEMENT
  } part {
  ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
    %d = arith.subf %x, %r : ELEMENT
    %e = math.exp %d : ELEMENT
    moa.yield %e : ELEMENT
  } move {
  ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %s: ELEMENT):
    %d = arith.subf %old, %new : ELEMENT
    %e = math.exp %d : ELEMENT
    %t = arith.mulf %e, %s : ELEMENT
    moa.yield %t : ELEMENT
  } group add pivot %lowest {
  ^bb0(%count: index, %m: ELEMENT, %r1: ELEMENT, %s: ELEMENT, %r: ELEMENT, %w: ELEMENT):
    %log = math.log %s : ELEMENT
    %new = arith.addf %r1, %log : ELEMENT
    moa.yield %new : ELEMENT
  } part {
  ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
    %d = arith.subf %x, %r : ELEMENT
    %e = math.exp %d : ELEMENT
    %y = arith.mulf %e, %x : ELEMENT
    moa.yield %y : ELEMENT
  } move {
  ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %w: ELEMENT):
    %d = arith.subf %old, %new : ELEMENT
    %e = math.exp %d : ELEMENT
    %t = arith.mulf %e, %w : ELEMENT
    moa.yield %t : ELEMENT
  }
  %o = moa.comprehension [] -> tensor<ELEMENT> {
    moa.yield %mean : ELEMENT
  }
  func.return %o : tensor<ELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 96, 97])
def test_a_pivot_of_a_group_with_a_pivot(
    n: int, chunk: int | None, element: str
) -> None:
    """The mean of x weighted by the softmax of x, its logarithm the second pivot."""
    a = random(n, dtype=DTYPES[element])
    module = written(EXPECTATION, element, chunk)
    (got,) = run_everywhere(module, [a], TOLERANCE[element])
    weights = np.exp(a.astype(np.float64) - a.max())
    expected = (weights * a).sum() / weights.sum()
    np.testing.assert_allclose(got, expected, 5 * TOLERANCE[element])


# Arrays as pivots, and a move that reads other cells than it writes.

COVARIANCE = """
func.func @f(%a: tensor<?x3xELEMENT>) -> (tensor<3x3xELEMENT>, tensor<3xELEMENT>) {
  %n = moa.extent %a, 0 : tensor<?x3xELEMENT>
  %e = moa.fixed_extent 3
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : ELEMENT
  %start = moa.comprehension [%l < %e] -> tensor<3xELEMENT> {
    moa.yield %zero : ELEMENT
  }
  %u, %s, %mean = moa.cascade [%c0 to %n] CHUNK
      -> tensor<3xELEMENT>, tensor<3x3xELEMENT>, tensor<3xELEMENT>
  data {
  ^bb0(%p: index):
    moa.yield
  } group add, add pivot %start {
  ^bb0(%count: index, %r: tensor<3xELEMENT>, %u: tensor<3xELEMENT>,
       %s: tensor<3x3xELEMENT>):
    %i = arith.index_cast %count : index to i64
    %k = arith.sitofp %i : i64 to ELEMENT
    %new = moa.comprehension [%l < %e] -> tensor<3xELEMENT> {
      %u0 = moa.at %u[%l] : tensor<3xELEMENT>
      %r0 = moa.at %r[%l] : tensor<3xELEMENT>
      %d = arith.divf %u0, %k : ELEMENT
      %r1 = arith.addf %r0, %d : ELEMENT
      moa.yield %r1 : ELEMENT
    }
    moa.yield %new : tensor<3xELEMENT>
  } part {
  ^bb0(%p: index, %r: tensor<3xELEMENT>):
    %d = moa.comprehension [%l < %e] -> tensor<3xELEMENT> {
      %x0 = moa.at %a[%p, %l] : tensor<?x3xELEMENT>
      %r0 = moa.at %r[%l] : tensor<3xELEMENT>
      %d0 = arith.subf %x0, %r0 : ELEMENT
      moa.yield %d0 : ELEMENT
    }
    %q = moa.comprehension [%l < %e, %m < %e] -> tensor<3x3xELEMENT> {
      %x0 = moa.at %a[%p, %l] : tensor<?x3xELEMENT>
      %r0 = moa.at %r[%l] : tensor<3xELEMENT>
      %d0 = arith.subf %x0, %r0 : ELEMENT
      %x1 = moa.at %a[%p, %m] : tensor<?x3xELEMENT>
      %r1 = moa.at %r[%m] : tensor<3xELEMENT>
      %d1 = arith.subf %x1, %r1 : ELEMENT
      %q0 = arith.mulf %d0, %d1 : ELEMENT
      moa.yield %q0 : ELEMENT
    }
    moa.yield %d, %q : tensor<3xELEMENT>, tensor<3x3xELEMENT>
  } move {
  ^bb0(%count: index, %old: tensor<3xELEMENT>, %new: tensor<3xELEMENT>,
       %u: tensor<3xELEMENT>, %s: tensor<3x3xELEMENT>):
    %i = arith.index_cast %count : index to i64
    %k = arith.sitofp %i : i64 to ELEMENT
    %u1 = moa.comprehension [%l < %e] -> tensor<3xELEMENT> {
      %r0 = moa.at %old[%l] : tensor<3xELEMENT>
      %r1 = moa.at %new[%l] : tensor<3xELEMENT>
      %d = arith.subf %r0, %r1 : ELEMENT
      %kd = arith.mulf %k, %d : ELEMENT
      %u0 = moa.at %u[%l] : tensor<3xELEMENT>
      %u2 = arith.addf %u0, %kd : ELEMENT
      moa.yield %u2 : ELEMENT
    }
    %s1 = moa.comprehension [%l < %e, %m < %e] -> tensor<3x3xELEMENT> {
      %r0 = moa.at %old[%l] : tensor<3xELEMENT>
      %r1 = moa.at %new[%l] : tensor<3xELEMENT>
      %d = arith.subf %r0, %r1 : ELEMENT
      %r2 = moa.at %old[%m] : tensor<3xELEMENT>
      %r3 = moa.at %new[%m] : tensor<3xELEMENT>
      %d2 = arith.subf %r2, %r3 : ELEMENT
      %u0 = moa.at %u[%l] : tensor<3xELEMENT>
      %u2 = moa.at %u[%m] : tensor<3xELEMENT>
      %s0 = moa.at %s[%l, %m] : tensor<3x3xELEMENT>
      %t0 = arith.mulf %d, %u2 : ELEMENT
      %t1 = arith.mulf %d2, %u0 : ELEMENT
      %t2 = arith.mulf %d, %d2 : ELEMENT
      %t3 = arith.mulf %k, %t2 : ELEMENT
      %t4 = arith.addf %s0, %t0 : ELEMENT
      %t5 = arith.addf %t4, %t1 : ELEMENT
      %t6 = arith.addf %t5, %t3 : ELEMENT
      moa.yield %t6 : ELEMENT
    }
    moa.yield %u1, %s1 : tensor<3xELEMENT>, tensor<3x3xELEMENT>
  }
  func.return %s, %mean : tensor<3x3xELEMENT>, tensor<3xELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 9, 97])
def test_covariance_by_the_carried_mean(
    n: int, chunk: int | None, element: str
) -> None:
    """What the move reads at other cells is copied: all results agree bit by bit."""
    a = random(n, 3, dtype=DTYPES[element]) + DTYPES[element](10)
    squares, mean = run_everywhere(written(COVARIANCE, element, chunk), [a])
    exact = a.astype(np.float64)
    centre = exact.mean(axis=0) if n else np.zeros(3)
    tolerance = TOLERANCE[element]
    np.testing.assert_allclose(mean, centre, tolerance)
    expected = (exact - centre).T @ (exact - centre)
    np.testing.assert_allclose(squares, expected, 20 * tolerance, 20 * tolerance)


def test_accumulators_of_different_axes_are_not_in_one_loop() -> None:
    """`u` is read under both indices of `s`, so it is copied before it is written."""
    onf = lowered(written(COVARIANCE, "f64", None))
    rows = [op for op in onf.walk() if isinstance(op, BufferOp)]
    # The accumulator u, its copy, the new pivot; the rest lies in the results. (The
    # comprehension of zeros that the pivot starts from is an array of its own.)
    assert [len(op.extents) for op in rows] == [1, 1, 1, 1]


# Rows that depend on each other, cell by cell.

COLUMNS = """
func.func @f(%a: tensor<?x?xELEMENT>, %c: tensor<?x?xELEMENT>) -> tensor<?x?xELEMENT> {
  %n = moa.extent %a, 0 : tensor<?x?xELEMENT>
  %e = moa.extent %a, 1 : tensor<?x?xELEMENT>
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : ELEMENT
  %two = arith.constant 2.0 : ELEMENT
  %rows = moa.extent %c, 0 : tensor<?x?xELEMENT>
  %o = moa.comprehension [%row < %rows] -> tensor<?x?xELEMENT> {
    %top, %s, %u, %r = moa.cascade [%c0 to %n] CHUNK
        -> ELEMENT, tensor<?xELEMENT>, tensor<?xELEMENT>, ELEMENT
    data {
    ^bb0(%p: index):
      %x = moa.at %c[%row, %p] : tensor<?x?xELEMENT>
      moa.yield %x : ELEMENT
    } group max part {
    ^bb0(%p: index, %x: ELEMENT):
      moa.yield %x : ELEMENT
    } group add, add pivot %zero {
    ^bb0(%count: index, %m: ELEMENT, %r: ELEMENT, %s: tensor<?xELEMENT>,
         %u: tensor<?xELEMENT>):
      moa.yield %m : ELEMENT
    } part {
    ^bb0(%p: index, %x: ELEMENT, %r: ELEMENT):
      %q, %d = moa.comprehension [%l < %e] -> tensor<?xELEMENT>, tensor<?xELEMENT> {
        %x0 = moa.at %a[%p, %l] : tensor<?x?xELEMENT>
        %d0 = arith.subf %x0, %r : ELEMENT
        %q0 = arith.mulf %d0, %d0 : ELEMENT
        moa.yield %q0, %d0 : ELEMENT, ELEMENT
      }
      moa.yield %q, %d : tensor<?xELEMENT>, tensor<?xELEMENT>
    } move {
    ^bb0(%count: index, %old: ELEMENT, %new: ELEMENT, %s: tensor<?xELEMENT>,
         %u: tensor<?xELEMENT>):
      %i = arith.index_cast %count : index to i64
      %k = arith.sitofp %i : i64 to ELEMENT
      %d = arith.subf %old, %new : ELEMENT
      %kd = arith.mulf %k, %d : ELEMENT
      %u1 = moa.comprehension [%l < %e] -> tensor<?xELEMENT> {
        %u0 = moa.at %u[%l] : tensor<?xELEMENT>
        %u2 = arith.addf %u0, %kd : ELEMENT
        moa.yield %u2 : ELEMENT
      }
      %s1 = moa.comprehension [%l < %e] -> tensor<?xELEMENT> {
        %u0 = moa.at %u[%l] : tensor<?xELEMENT>
        %s0 = moa.at %s[%l] : tensor<?xELEMENT>
        %t0 = arith.mulf %d, %u0 : ELEMENT
        %t1 = arith.mulf %two, %t0 : ELEMENT
        %t2 = arith.mulf %d, %kd : ELEMENT
        %t3 = arith.addf %s0, %t1 : ELEMENT
        %t4 = arith.addf %t3, %t2 : ELEMENT
        moa.yield %t4 : ELEMENT
      }
      moa.yield %s1, %u1 : tensor<?xELEMENT>, tensor<?xELEMENT>
    }
    moa.yield %s : tensor<?xELEMENT>
  }
  func.return %o : tensor<?x?xELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 97])
def test_rows_that_depend_on_each_other(
    n: int, chunk: int | None, element: str
) -> None:
    dtype = DTYPES[element]
    a, c = random(n, 5, dtype=dtype), random(2, n, dtype=dtype, seed=1)
    module = written(COLUMNS, element, chunk)
    tolerance = TOLERANCE[element]
    (got,) = run_everywhere(module, [a, c], tolerance, tolerance)
    shifted = a.astype(np.float64) - c.max(axis=1)[:, None, None]
    exact = np.square(shifted).sum(axis=1)
    np.testing.assert_allclose(got, exact, 20 * TOLERANCE[element])


def test_rows_that_depend_on_each_other_move_in_one_loop() -> None:
    """One row lies in the result, the other in a buffer; neither is copied."""
    onf = lowered(written(COLUMNS, "f64", None))
    buffers = [op for op in onf.walk() if isinstance(op, BufferOp)]
    assert [op.accumulator is not None for op in buffers] == [True]


def test_a_cell_that_does_not_depend_on_the_index_is_copied() -> None:
    module = written(COLUMNS.replace("[%row, %p]", "[%c0, %p]"), "f64", None)
    SharePass().apply(Context(), module)
    (cascade,) = [op for op in module.walk() if isinstance(op, CascadeOp)]
    assert isinstance(cascade.parent_op(), FuncOp)
    arrays = [random(7, 5), random(2, 7, seed=1)]
    (expected,) = interpret_module(module, "f", arrays)
    ToOnfPass().apply(Context(), module)
    (got,) = interpret_module(module, "f", arrays)
    np.testing.assert_array_equal(got, expected)


# Places a cascade can stand.

NESTED = """
func.func @f(%a: tensor<?x?xELEMENT>, %v: tensor<?x3xELEMENT>) -> tensor<ELEMENT> {
  %m = moa.extent %a, 0 : tensor<?x?xELEMENT>
  %n = moa.extent %a, 1 : tensor<?x?xELEMENT>
  %e = moa.fixed_extent 3
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %sum = moa.fold add [%i = %c0 to %m] -> ELEMENT {
    %top, %row = moa.cascade [%c2 to %n] CHUNK -> ELEMENT, tensor<3xELEMENT>
    data {
    ^bb0(%p: index):
      %x = moa.at %a[%i, %p] : tensor<?x?xELEMENT>
      %is_low = arith.cmpi slt, %p, %e : index
      %y = scf.if %is_low -> (ELEMENT) {
        %z = arith.negf %x : ELEMENT
        scf.yield %z : ELEMENT
      } else {
        scf.yield %x : ELEMENT
      }
      moa.yield %y : ELEMENT
    } group max, add part {
    ^bb0(%p: index, %y: ELEMENT):
      %w = moa.comprehension [%l < %e] -> tensor<3xELEMENT> {
        %z = moa.at %v[%p, %l] : tensor<?x3xELEMENT>
        %yz = arith.mulf %y, %z : ELEMENT
        moa.yield %yz : ELEMENT
      }
      moa.yield %y, %w : ELEMENT, tensor<3xELEMENT>
    }
    %total = moa.fold add [%l = %c0 to %e] -> ELEMENT {
      %z = moa.at %row[%l] : tensor<3xELEMENT>
      moa.yield %z : ELEMENT
    }
    %both = arith.addf %top, %total : ELEMENT
    moa.yield %both : ELEMENT
  }
  %o = moa.comprehension [] -> tensor<ELEMENT> {
    moa.yield %sum : ELEMENT
  }
  func.return %o : tensor<ELEMENT>
}
"""


@each_type
@each_chunk
@pytest.mark.parametrize("n", [3, 4, 5, 8, 98, 99])
def test_a_cascade_in_a_fold_with_a_choice(
    n: int, chunk: int | None, element: str
) -> None:
    dtype = DTYPES[element]
    a, v = random(4, n, dtype=dtype), random(n, 3, dtype=dtype, seed=1)
    module = written(NESTED, element, chunk)
    (got,) = run_everywhere(module, [a, v])
    y = a[:, 2:].astype(np.float64)
    y[:, 0] *= -1
    expected = y.max(axis=1).sum() + (y @ v[2:]).sum()
    np.testing.assert_allclose(got, expected, 10 * TOLERANCE[element])


def test_a_choice_by_the_index_splits_the_loop() -> None:
    onf = lowered(written(NESTED, "f64", None))
    assert not any(op.name == "scf.if" for op in onf.walk())


@each_chunk
@pytest.mark.parametrize("n", [0, 2])
def test_a_domain_that_ends_before_it_begins(n: int, chunk: int | None) -> None:
    text = VARIANCE.replace("[%c0 to", "[%c5 to")
    text = text.replace("%zero = arith.constant 0.0", "%zero = arith.constant 7.0")
    text = text.replace("%c0 = arith.constant 0", "%c5 = arith.constant 5")
    results = run_everywhere(written(text, "f64", chunk), [random(n)])
    assert results == [0.0, 0.0, 7.0]


TRUTH = """
func.func @f(%a: tensor<?xf64>) -> (tensor<i1>, tensor<i1>, tensor<i64>) {
  %n = moa.extent %a, 0 : tensor<?xf64>
  %c0 = arith.constant 0 : index
  %one = arith.constant 1.0 : f64
  %false = arith.constant false
  %any, %all, %count, %r = moa.cascade [%c0 to %n] CHUNK -> i1, i1, i64, i1
  data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    %y = math.sqrt %x : f64
    %t = arith.cmpf ogt, %y, %one : f64
    moa.yield %t : i1
  } group or, and part {
  ^bb0(%p: index, %t: i1):
    moa.yield %t, %t : i1, i1
  } group add pivot %false {
  ^bb0(%count: index, %any: i1, %all: i1, %r: i1, %s: i64):
    moa.yield %r : i1
  } part {
  ^bb0(%p: index, %t: i1, %r: i1):
    %i = arith.extui %t : i1 to i64
    moa.yield %i : i64
  } move {
  ^bb0(%count: index, %old: i1, %new: i1, %s: i64):
    moa.yield %s : i64
  }
  %r0 = moa.comprehension [] -> tensor<i1> {
    moa.yield %any : i1
  }
  %r1 = moa.comprehension [] -> tensor<i1> {
    moa.yield %all : i1
  }
  %r2 = moa.comprehension [] -> tensor<i64> {
    moa.yield %count : i64
  }
  func.return %r0, %r1, %r2 : tensor<i1>, tensor<i1>, tensor<i64>
}
"""


@each_chunk
@pytest.mark.parametrize("n", LENGTHS)
def test_truth_values_and_integers(n: int, chunk: int | None) -> None:
    """The data is costly: with chunks, truth values lie in a tile."""
    a = np.abs(3 * random(n))
    module = written(TRUTH, "f64", chunk)
    results = run_everywhere(module, [a])
    assert results == [(a > 1).any(), (a > 1).all(), (a > 1).sum()]
    counts = count_operations(lowered(module), "f", [a])
    assert counts["math.sqrt"] == n
    assert counts["scf.if"] == 0  # nothing moves


def test_a_sum_of_negative_zeros_is_one() -> None:
    a = np.array([[-0.0, -0.0]])
    text = LOGSUMEXP.replace("= arith.addf %pivot, %log", "= arith.addf %sum, %sum")
    text = text.replace("moa.yield %e : ELEMENT", "moa.yield %x : ELEMENT")
    text = text.replace("moa.yield %t : ELEMENT", "moa.yield %s : ELEMENT")
    (got,) = run_everywhere(written(text, "f64", None), [a])
    assert np.signbit(got[0])


# What the passes see of it.


def test_values_that_depend_on_no_argument_leave_the_cascade() -> None:
    text = LOGSUMEXP.replace(
        "%d = arith.subf %old, %new : ELEMENT",
        """%h = math.exp %lowest : ELEMENT
      %d0 = arith.subf %old, %new : ELEMENT
      %d = arith.addf %d0, %h : ELEMENT
      %twice = arith.addf %d0, %h : ELEMENT""",
    )
    module = written(text, "f64", None)
    SharePass().apply(Context(), module)
    (cascade,) = [op for op in module.walk() if isinstance(op, CascadeOp)]
    names = [op.name for op in cascade.walk()]
    assert names.count("math.exp") == 2
    assert names.count("arith.addf") == 1


def test_a_cascade_is_costly_and_the_longer_the_costlier() -> None:
    def cascade_weight(chunk: int | None, upper: str) -> int:
        text = LOGSUMEXP.replace("%c0 to %n", f"%c0 to {upper}")
        text = text.replace("%c0 = ", "%two = moa.fixed_extent 2\n  %c0 = ")
        module = written(text, "f64", chunk)
        (found,) = [op for op in module.walk() if isinstance(op, CascadeOp)]
        return weight(found)

    assert cascade_weight(None, "%n") > cascade_weight(4, "%n")
    assert cascade_weight(4, "%n") > cascade_weight(4, "%two") > COSTLY


def test_sinking_leaves_a_cascade_where_it_is() -> None:
    module = written(LOGSUMEXP, "f64", None)
    before = str(module)
    SinkPass().apply(Context(), module)
    assert str(module) == before


def test_buffers_of_a_known_size_lie_on_the_stack() -> None:
    module = written(ATTENTION.replace("UPPER", "%m"), "f64", 96)
    for stage in ("onf", "target"):
        module = lowered(module, stage)
    function = next(op for op in module.walk() if isinstance(op, FuncOp))
    names = {op.name for op in function.walk()}
    assert "memref.alloc" not in names
    slots = [op for op in function.walk() if op.name == "memref.alloca"]
    assert [op.parent for op in slots] == [function.body.block]


def test_what_does_not_fit_the_stack_is_allocated() -> None:
    module = written(ATTENTION.replace("UPPER", "%m"), "f64", 10_000)
    for stage in ("onf", "target"):
        module = lowered(module, stage)
    names = [op.name for op in module.walk()]
    assert names.count("memref.alloc") == 1
    assert "memref.alloca" not in names


def test_a_cascade_of_scalars_takes_no_memory() -> None:
    onf = lowered(written(LOGSUMEXP, "f64", None))
    (pass_,) = [op for op in onf.walk() if isinstance(op, LoopOp) and op.initial]
    inside = [op for op in pass_.walk() if isinstance(op, LoadOp | StoreOp | BufferOp)]
    assert [op.name for op in inside] == ["moa.load"]
