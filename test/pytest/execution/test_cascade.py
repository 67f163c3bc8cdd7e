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

from moa_dialect.interpreter import count_operations, interpret_module
from moa_dialect.lowering.engine import compile_module
from moa_dialect.lowering.pipelines import STAGES
from moa_dialect.ops.normal_form import CascadeOp
from moa_dialect.ops.operational import BufferOp, LoadOp, StoreOp
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes.check_storage import scratch_bytes
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.sink import SinkPass
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
    module: ModuleOp, arrays: Sequence[np.ndarray], tolerance: float | None = None
) -> list[np.ndarray]:
    """The results, which must be the same interpreted, in loops and compiled.

    They are compared bit by bit, compiled ones up to a tolerance if one is given.
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
    compiled = compile_module(module)(*arrays)
    outputs = compiled if isinstance(compiled, tuple) else (compiled,)
    for expected, got in zip(results, outputs, strict=True):
        if tolerance is None:
            np.testing.assert_array_equal(got, expected, strict=True)
        else:
            np.testing.assert_allclose(got, expected, tolerance, tolerance)
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
    """No call of the mathematical library: the kernel agrees bit by bit."""
    a = random(n, dtype=DTYPES[element]) + DTYPES[element](1000)
    rest, squares, mean = run_everywhere(written(VARIANCE, element, chunk), [a])
    exact = a.astype(np.float64)
    centre = exact.mean() if n else 0
    tolerance = TOLERANCE[element]
    np.testing.assert_allclose(mean, centre, tolerance)
    np.testing.assert_allclose(rest, 0, atol=n * 1000 * np.finfo(a.dtype).eps)
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
