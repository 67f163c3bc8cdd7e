"""Sizes that exporters compute, followed back to extents of arguments."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

import moa_dialect as moa
from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import Fixed
from moa_dialect.frontend.linalg import read
from moa_dialect.ops.extents import RootAtom
from moa_dialect.ops.normal_form import InBoundsOp, RequireOp
from moa_dialect.passes.raising.sizes import compared, quotient

Size = Polynomial[RootAtom]

N, M = (Size.atom(Fixed(k)) for k in (1000, 1001))
"""Two extents that nothing is known of."""


def number(value: int) -> Size:
    return Size.constant(value)


def test_a_quotient_without_a_rest():
    two = number(2)
    assert quotient(two * N * M, two * M) == N
    assert quotient(N * N + N, N) == N + number(1)
    assert quotient(N + number(1), two) is None
    assert quotient(N, M) is None
    assert quotient(N + M, N + M) == number(1)


def test_comparisons_that_hold_for_all_extents():
    one = number(1)
    assert compared("slt", N, number(0)) is False
    assert compared("sge", N * M, number(0)) is True
    assert compared("sgt", N + one, number(0)) is True
    assert compared("sle", N, N + M) is True
    assert compared("eq", N, N) is True
    assert compared("ne", N + one, N) is True
    assert compared("eq", N, one) is None
    assert compared("slt", N, M) is None


RESHAPE = """func.func @main(%a: tensor<6x?x?xf32>) -> tensor<2x3x?x?xf32> {
  %zero = arith.constant 0 : i64
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %c2 = arith.constant 2 : i64
  %c3 = arith.constant 3 : i64
  %n = tensor.dim %a, %one : tensor<6x?x?xf32>
  %m = tensor.dim %a, %two : tensor<6x?x?xf32>
  %n64 = arith.index_cast %n : index to i64
  %m64 = arith.index_cast %m : index to i64
  %all = arith.muli %n64, %m64 : i64
  %is_asked = arith.cmpi slt, %n64, %zero : i64
  %rest = arith.divsi %all, %m64 : i64
  %rows = arith.select %is_asked, %rest, %n64 : i64
  %shape = tensor.from_elements %c2, %c3, %rows, %m64 : tensor<4xi64>
  %r = tensor.reshape %a(%shape) : (tensor<6x?x?xf32>, tensor<4xi64>) -> tensor<2x3x?x?xf32>
  return %r : tensor<2x3x?x?xf32>
}"""


def operations(module: ModuleOp, kind: type) -> int:
    return sum(isinstance(op, kind) for op in module.walk())


def test_a_reshape_splits_an_axis_and_keeps_the_others():
    raised = read(RESHAPE)
    assert not raised.left
    assert operations(raised.module, RequireOp) == 0
    run = moa.compile_linalg(RESHAPE)
    for n, m in ((4, 5), (1, 1), (0, 3)):
        a = np.arange(6 * n * m, dtype=np.float32).reshape(6, n, m)
        np.testing.assert_array_equal(run(a), a.reshape(2, 3, n, m))


def test_a_reshape_of_what_does_not_fit_is_checked():
    text = RESHAPE.replace("%c2, %c3, %rows, %m64", "%c2, %c3, %m64, %m64")
    assert operations(read(text).module, RequireOp) == 1
    run = moa.compile_linalg(text)
    a = np.arange(6 * 9, dtype=np.float32).reshape(6, 3, 3)
    np.testing.assert_array_equal(run(a), a.reshape(2, 3, 3, 3))
    with pytest.raises(moa.ShapeError, match="the number of elements must stay"):
        run(np.zeros((6, 2, 3), np.float32))


def test_an_axis_that_is_expanded_if_it_is_of_extent_1():
    text = """#i = affine_map<(i) -> (i)>
func.func @main(%a: tensor<?xf32>) -> tensor<?xf32> {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %n = tensor.dim %a, %zero : tensor<?xf32>
  %e = tensor.empty(%n) : tensor<?xf32>
  %r = linalg.generic {indexing_maps = [#i], iterator_types = ["parallel"]}
    outs(%e : tensor<?xf32>) {
  ^bb0(%o: f32):
    %i = linalg.index 0 : index
    %d = tensor.dim %a, %zero : tensor<?xf32>
    %is_one = arith.cmpi eq, %d, %one : index
    %j = arith.select %is_one, %zero, %i : index
    %x = tensor.extract %a[%j] : tensor<?xf32>
    linalg.yield %x : f32
  } -> tensor<?xf32>
  return %r : tensor<?xf32>
}"""
    raised = read(text)
    (bounds,) = (op for op in raised.module.walk() if isinstance(op, InBoundsOp))
    assert bounds.operands[0].name_hint == "i"
    for n in (0, 1, 3):
        a = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(moa.compile_linalg(text)(a), a)


def test_a_slice_is_put_where_data_says():
    text = """func.func @main(%a: tensor<5xf32>, %u: tensor<2xf32>, %k: tensor<i64>)
    -> tensor<5xf32> {
  %n = tensor.extract %k[] : tensor<i64>
  %i = arith.index_cast %n : i64 to index
  %r = tensor.insert_slice %u into %a[%i] [2] [1] : tensor<2xf32> into tensor<5xf32>
  return %r : tensor<5xf32>
}"""
    run = moa.compile_linalg(text)
    a, u = np.zeros(5, np.float32), np.ones(2, np.float32)
    for k in range(4):
        expected = a.copy()
        expected[k : k + 2] = 1
        np.testing.assert_array_equal(run(a, u, np.array(k)), expected)
    for k in (-1, 4):
        with pytest.raises(moa.MoaError, match="the slice leaves axis 0"):
            run(a, u, np.array(k))


def test_what_nothing_was_written_to_may_change_its_shape():
    text = """func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %e = tensor.empty() : tensor<2x2xf32>
  %f = tensor.collapse_shape %e [[0, 1]] : tensor<2x2xf32> into tensor<4xf32>
  %r = linalg.exp ins(%a : tensor<4xf32>) outs(%f : tensor<4xf32>) -> tensor<4xf32>
  return %r : tensor<4xf32>
}"""
    assert not read(text).left
    a = np.zeros(4, np.float32)
    np.testing.assert_array_equal(moa.compile_linalg(text)(a), a + 1)


def test_padding_by_less_than_0_leaves_elements_out():
    text = """func.func @main(%a: tensor<?xf32>) -> tensor<?xf32> {
  %r = tensor.pad %a low[-1] high[2] {
  ^bb0(%i: index):
    %z = arith.constant 7.0 : f32
    tensor.yield %z : f32
  } : tensor<?xf32> to tensor<?xf32>
  return %r : tensor<?xf32>
}"""
    a = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(moa.compile_linalg(text)(a), [1, 2, 3, 7, 7])


def test_slices_together_write_an_array():
    text = """func.func @main(%a: tensor<3xf32>) -> tensor<5xf32> {
  %e = tensor.empty() : tensor<5xf32>
  %s = tensor.insert_slice %a into %e[2] [3] [1] : tensor<3xf32> into tensor<5xf32>
  %t = tensor.extract_slice %a[1] [2] [1] : tensor<3xf32> to tensor<2xf32>
  %r = tensor.insert_slice %t into %s[0] [2] [1] : tensor<2xf32> into tensor<5xf32>
  return %r : tensor<5xf32>
}"""
    a = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(moa.compile_linalg(text)(a), [1, 2, 0, 1, 2])
