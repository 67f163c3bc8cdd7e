"""The interpreter against NumPy: every operation, its edge cases and its errors."""

import math
import operator
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, reduce
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from xdsl.context import Context
from xdsl.dialects import arith, builtin, func, memref, scf
from xdsl.dialects import math as math_dialect
from xdsl.dialects.builtin import DYNAMIC_INDEX, MemRefType, TensorType, f64, i64
from xdsl.parser import Parser

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.arguments import array_type, check_arguments
from moa_dialect.dialect import Moa
from moa_dialect.errors import (
    DTypeError,
    IndexRangeError,
    LayoutError,
    MoaError,
    ShapeError,
)
from moa_dialect.interpreter import count_operations, interpret_module
from moa_dialect.types import dtype_of, element_type_of

DTYPES = {name: dtype_of(element_type_of(name)) for name in ("f64", "f32", "bf16")}


@cache
def parse(text: str) -> builtin.ModuleOp:
    context = Context()
    for dialect in (
        builtin.Builtin,
        func.Func,
        arith.Arith,
        math_dialect.Math,
        scf.Scf,
        memref.MemRef,
        Moa,
    ):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def run(text: str, *arrays: object, entry: str = "f") -> np.ndarray:
    (result,) = interpret_module(parse(text), entry, [np.asarray(a) for a in arrays])
    return result


@contextmanager
def fails(error: type[MoaError], message: str) -> Generator[None]:
    with pytest.raises(error) as caught:
        yield
    assert str(caught.value) == message
    assert not hasattr(caught.value, "__notes__")


def program(body: str, arguments: str, result: str, more: str = "") -> str:
    """A function f that returns %r."""
    return f"""
      func.func @f({arguments}) -> {result} {{
        {body}
        func.return %r : {result}
      }}
      {more}
    """


def scalar(body: str, arguments: str, result: str) -> str:
    """A function f of scalars that returns %r."""
    return program(body, arguments, result)


def same(actual: np.ndarray, expected: object) -> None:
    """Equal in dtype, shape and every bit but the payload of NaN."""
    expected = np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(actual, expected)
        return
    wide_actual, wide_expected = actual.astype(float), expected.astype(float)
    np.testing.assert_array_equal(wide_actual, wide_expected)
    zero = wide_expected == 0
    np.testing.assert_array_equal(
        np.signbit(wide_actual)[zero], np.signbit(wide_expected)[zero]
    )


def index(*values: object) -> np.ndarray:
    return np.array(values, np.int64)


A34 = np.arange(12.0).reshape(3, 4)
A234 = np.arange(24.0).reshape(2, 3, 4)


# Structural operations


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("3.5", "tensor<f64>", np.float64(3.5)),
        ("[1.0, 2.5]", "tensor<2xbf16>", np.array([1, 2.5], ml_dtypes.bfloat16)),
        ("[[1, -2], [3, 4]]", "tensor<2x2xi32>", np.array([[1, -2], [3, 4]], np.int32)),
        ("7", "tensor<2x0x3xindex>", np.empty((2, 0, 3), np.int64)),
        ("[true, false]", "tensor<2xi1>", np.array([True, False])),
        ("1.5", "tensor<3xf16>", np.full(3, 1.5, np.float16)),
    ],
)
def test_constant(value: str, type_: str, expected: np.ndarray):
    same(
        run(program(f"%r = moa.constant dense<{value}> : {type_}", "", type_)), expected
    )


def test_iota_of_a_scalar():
    text = program(
        "%r = moa.iota %n : tensor<index> -> tensor<?xindex>",
        "%n: tensor<index>",
        "tensor<?xindex>",
    )
    same(run(text, np.int64(4)), index(0, 1, 2, 3))
    same(run(text, np.int64(0)), np.empty(0, np.int64))
    with fails(
        ShapeError,
        "iota: an extent must not be negative: expected at least 0, got "
        "-1 (the value of n)",
    ):
        run(text, np.int64(-1))


def test_iota_of_a_vector_gives_all_indices():
    text = program(
        "%r = moa.iota %v : tensor<2xi32> -> tensor<?x?x2xindex>",
        "%v: tensor<2xi32>",
        "tensor<?x?x2xindex>",
    )
    result = run(text, np.array([2, 3], np.int32))
    assert result.shape == (2, 3, 2)
    assert all((result[i, j] == (i, j)).all() for i in range(2) for j in range(3))
    assert run(text, np.array([2, 0], np.int32)).shape == (2, 0, 2)


def test_iota_of_the_empty_vector():
    text = program(
        "%r = moa.iota %v : tensor<0xindex> -> tensor<0xindex>",
        "%v: tensor<0xindex>",
        "tensor<0xindex>",
    )
    same(run(text, np.empty(0, np.int64)), np.empty(0, np.int64))


def test_shape_dim_total():
    text = """
      func.func @f(%a: tensor<?x?xf64>)
          -> (tensor<2xindex>, tensor<index>, tensor<index>) {
        %s = moa.shape %a : tensor<?x?xf64> -> tensor<2xindex>
        %d = moa.dim %a : tensor<?x?xf64> -> tensor<index>
        %t = moa.total %a : tensor<?x?xf64> -> tensor<index>
        func.return %s, %d, %t : tensor<2xindex>, tensor<index>, tensor<index>
      }
    """
    for shape in ((3, 4), (3, 0)):
        s, d, t = interpret_module(parse(text), "f", [np.zeros(shape)])
        same(s, index(*shape))
        same(d, np.int64(2))
        same(t, np.int64(math.prod(shape)))


def test_total_of_a_scalar_is_one():
    text = program(
        "%r = moa.total %a : tensor<f64> -> tensor<index>",
        "%a: tensor<f64>",
        "tensor<index>",
    )
    same(run(text, 3.0), np.int64(1))


PSI = "%r = moa.psi %i, %a : {}, {} -> {}"


def psi(index_type: str, array_type: str, result_type: str) -> str:
    return program(
        PSI.format(index_type, array_type, result_type),
        f"%i: {index_type}, %a: {array_type}",
        result_type,
    )


def test_psi_with_partial_and_full_index():
    partial = psi("tensor<1xindex>", "tensor<?x?xf64>", "tensor<?xf64>")
    full = psi("tensor<2xi32>", "tensor<?x?xf64>", "tensor<f64>")
    same(run(partial, index(1), A34), A34[1])
    same(run(full, np.array([2, 3], np.int32), A34), A34[2, 3])


def test_psi_with_the_empty_index_is_the_array():
    text = psi("tensor<0xindex>", "tensor<?x?xf64>", "tensor<?x?xf64>")
    same(run(text, np.empty(0, np.int64), A34), A34)
    empty = np.empty((0, 4))
    same(run(text, np.empty(0, np.int64), empty), empty)


def test_psi_with_an_array_of_indices():
    text = psi("tensor<?x2xindex>", "tensor<?x?x?xf64>", "tensor<?x?xf64>")
    rows = np.array([[0, 2], [1, 1], [0, 0]])
    same(run(text, rows, A234), A234[rows[:, 0], rows[:, 1]])
    no_rows = np.empty((0, 2), np.int64)
    assert run(text, no_rows, np.empty((0, 0, 4))).shape == (0, 4)


def test_psi_with_empty_indices_repeats_the_array():
    text = psi("tensor<?x0xindex>", "tensor<?xf64>", "tensor<?x?xf64>")
    same(run(text, np.empty((2, 0), np.int64), [1.0, 2.0]), [[1.0, 2.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((3, 0), "index entry 0 out of range of axis 0: expected less than 3, got 3"),
        ((0, 4), "index entry 1 out of range of axis 1: expected less than 4, got 4"),
        ((-1, 9), "index entry 0 out of range of axis 0: expected at least 0, got -1"),
        ((2, -2), "index entry 1 out of range of axis 1: expected at least 0, got -2"),
    ],
)
def test_psi_out_of_range(entries: tuple[int, int], message: str):
    text = psi("tensor<2xindex>", "tensor<?x?xf64>", "tensor<f64>")
    with fails(IndexRangeError, f"psi: {message}"):
        run(text, index(*entries), A34)
    if "less than" in message:
        axis = message.split(" ")[2]
        message = message.replace(", got", f" (axis {axis} of a), got")
    constant = program(
        f"%i = moa.constant dense<{list(entries)}> : tensor<2xindex>"
        + PSI.format("tensor<2xindex>", "tensor<?x?xf64>", "tensor<f64>"),
        "%a: tensor<?x?xf64>",
        "tensor<f64>",
    )
    if min(entries) >= 0:
        with fails(IndexRangeError, f"psi: {message}"):
            run(constant, A34)


def test_psi_reports_the_first_index_out_of_range():
    text = psi("tensor<?x2xindex>", "tensor<?x?xf64>", "tensor<?xf64>")
    with fails(
        IndexRangeError,
        "psi: index entry 1 out of range of axis 1: expected less than 4, got 7",
    ):
        run(text, np.array([[0, 0], [0, 7], [9, 0]]), A34)


def test_psi_into_an_empty_axis():
    text = psi("tensor<1xindex>", "tensor<?xf64>", "tensor<f64>")
    with fails(
        IndexRangeError,
        "psi: an index into axis 0 needs a non-empty axis: expected at least 1, got 0"
        " (axis 0 of a)",
    ):
        run(text, index(0), np.empty(0))


def test_cell():
    text = program(
        """
        %i = arith.constant 1 : index
        %r = moa.cell %a[%i, %i] : tensor<?x?x?xf64> -> tensor<?xf64>
        """,
        "%a: tensor<?x?x?xf64>",
        "tensor<?xf64>",
    )
    same(run(text, A234), A234[1, 1])
    with fails(
        IndexRangeError,
        "cell: index entry 1 out of range of axis 1: expected less than 1, got 1",
    ):
        run(text, np.zeros((2, 1, 3)))


def test_transpose_reverses_the_axes():
    text = program(
        "%r = moa.transpose %a : tensor<?x?x?xf64> -> tensor<?x?x?xf64>",
        "%a: tensor<?x?x?xf64>",
        "tensor<?x?x?xf64>",
    )
    same(run(text, A234), A234.T)


def test_general_transpose_by_a_cycle_is_not_numpys():
    text = program(
        "%r = moa.transpose %a [1, 2, 0] : tensor<2x3x4xf64> -> tensor<4x2x3xf64>",
        "%a: tensor<2x3x4xf64>",
        "tensor<4x2x3xf64>",
    )
    result = run(text, A234)
    # Source axis k is result axis t[k]: i ψ (t ⊘ A) = i[t] ψ A.
    for i in np.ndindex(4, 2, 3):
        assert result[i] == A234[i[1], i[2], i[0]]
    same(result, np.transpose(A234, (2, 0, 1)))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_general_transpose(data: st.DataObject):
    array = data.draw(hnp.arrays(np.float64, hnp.array_shapes(min_side=0, max_dims=4)))
    t = data.draw(st.permutations(range(array.ndim)))
    type_ = f"tensor<{'?x' * array.ndim}f64>"
    text = program(
        f"%r = moa.transpose %a {list(t)} : {type_} -> {type_}", f"%a: {type_}", type_
    )
    result = run(text, array)
    same(result, np.transpose(array, np.argsort(t)))
    for i in np.ndindex(result.shape):
        np.testing.assert_equal(result[i], array[tuple(i[k] for k in t)])


# Computational operations

BINARY_FLOAT = [
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "max",
    "min",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
]
UNARY_FLOAT = [
    "neg",
    "abs",
    "exp",
    "exp2",
    "log",
    "log2",
    "sqrt",
    "rsqrt",
    "tanh",
    "erf",
    "sin",
    "cos",
    "floor",
    "ceil",
    "sign",
]
SPECIAL = [0.0, -0.0, 1.0, -1.5, 2.5, math.inf, -math.inf, math.nan]


def pointwise(function: str, lhs: str, rhs: str, result: str, more: str = "") -> str:
    return program(
        f"%r = moa.pointwise {function} %a, %b : {lhs}, {rhs} -> {result}",
        f"%a: {lhs}, %b: {rhs}",
        result,
        more,
    )


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("function", BINARY_FLOAT)
def test_pointwise_on_floats(function: str, element: str):
    values = np.array(SPECIAL, DTYPES[element])
    lhs, rhs = np.repeat(values, len(values)), np.tile(values, len(values))
    operation = SCALAR_OPERATIONS[function]
    type_ = f"tensor<?x{element}>"
    out = "tensor<?xi1>" if operation.is_predicate else type_
    with np.errstate(all="ignore"):
        expected = operation.compute(lhs, rhs)
    result = run(pointwise(function, type_, type_, out), lhs, rhs)
    if function in ("max", "min"):
        np.testing.assert_array_equal(result.astype(float), expected.astype(float))
        same(run(pointwise(function, type_, type_, out), rhs, lhs), result)
    else:
        same(result, expected)


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("function", UNARY_FLOAT)
def test_map_on_floats(function: str, element: str):
    values = np.array(SPECIAL, DTYPES[element])
    type_ = f"tensor<?x{element}>"
    text = program(
        f"%r = moa.map {function} %a : {type_} -> {type_}", f"%a: {type_}", type_
    )
    with np.errstate(all="ignore"):
        same(run(text, values), SCALAR_OPERATIONS[function].compute(values))
    assert run(text, values[:0]).shape == (0,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(text, values)


def test_maximum_and_minimum_of_zeros():
    zeros = np.array([0.0, -0.0, 0.0, -0.0]), np.array([-0.0, 0.0, 0.0, -0.0])
    type_ = "tensor<?xf64>"
    same(run(pointwise("max", type_, type_, type_), *zeros), [0.0, 0.0, 0.0, -0.0])
    same(run(pointwise("min", type_, type_, type_), *zeros), [-0.0, -0.0, 0.0, -0.0])


@pytest.mark.parametrize("element", ["i32", "i64", "index"])
@pytest.mark.parametrize(
    "function", ["add", "sub", "mul", "max", "min", "lt", "ge", "eq"]
)
def test_pointwise_on_integers_wraps(function: str, element: str):
    dtype = dtype_of(element_type_of(element))
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, -1, 0, 2], dtype)
    lhs, rhs = np.repeat(values, 5), np.tile(values, 5)
    type_ = f"tensor<?x{element}>"
    operation = SCALAR_OPERATIONS[function]
    out = "tensor<?xi1>" if operation.is_predicate else type_
    same(
        run(pointwise(function, type_, type_, out), lhs, rhs),
        operation.compute(lhs, rhs),
    )


@pytest.mark.parametrize("function", ["and", "or", "xor", "eq", "ne"])
def test_pointwise_on_truth_values(function: str):
    lhs, rhs = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    type_ = "tensor<4xi1>"
    expected = SCALAR_OPERATIONS[function].compute(lhs, rhs)
    same(run(pointwise(function, type_, type_, type_), lhs, rhs), expected)


def test_map_not():
    text = program(
        "%r = moa.map not %a : tensor<2xi1> -> tensor<2xi1>",
        "%a: tensor<2xi1>",
        "tensor<2xi1>",
    )
    same(run(text, [True, False]), [False, True])


@settings(deadline=None, max_examples=40)
@given(
    arrays=hnp.mutually_broadcastable_shapes(
        num_shapes=1, min_side=0, max_dims=3
    ).flatmap(lambda s: st.tuples(*[hnp.arrays(np.float32, s.input_shapes[0])] * 2)),
    function=st.sampled_from(["add", "sub", "mul", "div"]),
    scalars=st.tuples(st.booleans(), st.booleans()),
)
def test_pointwise_with_scalar_extension(
    arrays: tuple[np.ndarray, np.ndarray], function: str, scalars: tuple[bool, bool]
):
    operands = [
        np.float32(3) if is_scalar else array
        for is_scalar, array in zip(scalars, arrays, strict=True)
    ]
    types = [f"tensor<{'?x' * np.ndim(o)}f32>" for o in operands]
    lhs, rhs = types
    text = pointwise(function, lhs, rhs, max(types, key=len))
    with np.errstate(all="ignore"):
        expected = SCALAR_OPERATIONS[function].compute(*map(np.asarray, operands))
    same(run(text, *operands), expected)


def test_pointwise_does_not_stretch_an_extent_of_one():
    type_ = "tensor<?x?xf64>"
    text = pointwise("add", type_, type_, type_)
    message = (
        "add: extents of axis 0 must be equal: expected 3 (axis 0 of a), got 1 "
        "(axis 0 of b)"
    )
    with fails(ShapeError, message):
        run(text, A34, A34[:1])


def test_the_result_type_may_state_an_extent():
    text = pointwise("add", "tensor<?xf64>", "tensor<?xf64>", "tensor<3xf64>")
    same(run(text, np.ones(3), np.ones(3)), np.full(3, 2.0))
    with fails(
        ShapeError,
        "moa.pointwise: the result type states the extent of axis 0: expected 3, got "
        "4 (axis 0 of a)",
    ):
        run(text, np.ones(4), np.ones(4))


AXPY = """
  func.func private @g(%x: f64, %y: f64) -> f64 {
    %two = arith.constant 2.0 : f64
    %d = arith.mulf %two, %x : f64
    %z = arith.subf %d, %y : f64
    func.return %z : f64
  }
"""


def axpy(x: Any, y: Any) -> Any:
    return 2 * x - y


def test_pointwise_with_a_function_symbol():
    text = pointwise("@g", "tensor<?x?xf64>", "tensor<f64>", "tensor<?x?xf64>", AXPY)
    same(run(text, A34, 5.0), axpy(A34, np.float64(5)))


def test_map_with_a_function_symbol_of_another_type():
    text = program(
        "%r = moa.map @g %a : tensor<?xindex> -> tensor<?xi1>",
        "%a: tensor<?xindex>",
        "tensor<?xi1>",
        """
        func.func private @g(%x: index) -> i1 {
          %two = arith.constant 2 : index
          %y = arith.remui %x, %two : index
          %zero = arith.constant 0 : index
          %z = arith.cmpi eq, %y, %zero : index
          func.return %z : i1
        }
        """,
    )
    same(run(text, index(0, 1, 2, 7)), [True, False, True, False])


CASTS = [
    ("f64", "f32", [1.1, math.inf, -0.0]),
    ("f64", "bf16", [1.1, 3e38, -1e-40]),
    ("f64", "f16", [1.1, 1e6, 1e-8]),
    ("f32", "f64", [1.1, math.nan, 2.0]),
    ("bf16", "f16", [1.5, -3.0, 0.1]),
    ("f64", "i32", [1.9, -1.9, 0.5]),
    ("f32", "index", [2.9, -2.9, 1e9]),
    ("f64", "i1", [0.0, 0.3, math.nan]),
    ("i64", "i32", [1, 2**32 + 5, -1]),
    ("i32", "i64", [1, -7, 2**31 - 1]),
    ("i64", "f32", [2**53 + 1, -3, 16777217]),
    ("index", "bf16", [257, -3, 5]),
    ("index", "i1", [256, 0, -1]),
    ("i1", "f32", [True, False, True]),
    ("i1", "index", [True, False, True]),
]


@pytest.mark.parametrize(("source", "target", "values"), CASTS)
def test_cast(source: str, target: str, values: list[float]):
    text = program(
        f"%r = moa.cast %a : tensor<3x{source}> -> tensor<3x{target}>",
        f"%a: tensor<3x{source}>",
        f"tensor<3x{target}>",
    )
    array = np.array(values, dtype_of(element_type_of(source)))
    with np.errstate(all="ignore"):
        same(run(text, array), array.astype(dtype_of(element_type_of(target))))


@pytest.mark.parametrize(
    "value",
    [1 + 2**-8 + 2**-40, 1 + 3 * 2**-8 - 2**-40, 2.0**-133 * (0.5 + 2**-40), 3.3953e38],
)
def test_cast_to_bf16_rounds_once(value: float):
    text = program(
        "%r = moa.cast %a : tensor<f64> -> tensor<bf16>",
        "%a: tensor<f64>",
        "tensor<bf16>",
    )
    scalar_text = scalar("%r = arith.truncf %a : f64 to bf16", "%a: f64", "bf16")
    bits = np.arange(2**16, dtype=np.uint16)
    every = bits.view(ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        every = every[bits < 0x7F80].astype(np.float64)
    for sign in (1, -1):
        result = float(run(text, sign * value))
        assert result == float(run(scalar_text, sign * value))
        nearest = np.abs(every - value).min()
        limit = every.max() + 2.0**119
        if value < limit:
            assert abs(sign * result - value) == nearest
        else:
            assert result == sign * math.inf


def test_where():
    text = program(
        "%r = moa.where %c, %a, %b : tensor<3xi1>, tensor<3xbf16>, tensor<bf16> -> tensor<3xbf16>",
        "%c: tensor<3xi1>, %a: tensor<3xbf16>, %b: tensor<bf16>",
        "tensor<3xbf16>",
    )
    bf16 = ml_dtypes.bfloat16
    result = run(text, [True, False, True], np.array([1, 2, 3], bf16), bf16(9))
    same(result, np.array([1, 9, 3], bf16))


def test_where_with_a_scalar_condition():
    text = program(
        "%r = moa.where %c, %a, %b : tensor<i1>, tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>",
        "%c: tensor<i1>, %a: tensor<?xf64>, %b: tensor<?xf64>",
        "tensor<?xf64>",
    )
    same(run(text, False, [1.0, 2.0], [3.0, 4.0]), [3.0, 4.0])
    with fails(
        ShapeError,
        "where: extents of axis 0 must be equal: expected 2 (axis "
        "0 of a), got 1 (axis 0 of b)",
    ):
        run(text, False, [1.0, 2.0], [3.0])


def reduce_text(function: str, type_: str, result: str, more: str = "") -> str:
    return program(
        f"%r = moa.reduce {function} %a : {type_} -> {result}",
        f"%a: {type_}",
        result,
        more,
    )


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [("sub", [10, 3, 2, 1], 8), ("div", [8, 4, 2], 4), ("pow", [2, 3, 2], 512)],
)
def test_reduce_folds_from_the_right(
    function: str, values: list[float], expected: float
):
    result = run(
        reduce_text(function, "tensor<?xf64>", "tensor<f64>"), np.array(values, float)
    )
    same(result, np.float64(expected))


def right_fold(function: str, array: np.ndarray) -> np.ndarray:
    """Element by element, on scalars."""
    compute = SCALAR_OPERATIONS[function].compute
    result = np.empty(array.shape[1:], array.dtype)
    with np.errstate(all="ignore"):
        for i in np.ndindex(result.shape):
            column = array[(slice(None), *i)]
            result[i] = reduce(lambda acc, x: compute(x, acc), column[::-1])
    return result


@settings(deadline=None, max_examples=40)
@given(
    array=st.sampled_from(list(DTYPES.values())).flatmap(
        lambda dtype: hnp.arrays(
            np.float32,
            hnp.array_shapes(max_dims=3, max_side=5),
            elements=st.floats(-9, 9, width=16),
        ).map(lambda array: array.astype(dtype))
    ),
    function=st.sampled_from(["add", "sub", "mul", "div"]),
)
def test_reduce_is_a_right_fold_bit_for_bit(array: np.ndarray, function: str):
    (element,) = (name for name, dtype in DTYPES.items() if dtype == array.dtype)
    type_, out = (f"tensor<{'?x' * n}{element}>" for n in (array.ndim, array.ndim - 1))
    same(run(reduce_text(function, type_, out), array), right_fold(function, array))


@pytest.mark.parametrize(
    ("function", "element", "identity"),
    [
        ("add", "f32", 0),
        ("mul", "f64", 1),
        ("max", "bf16", -math.inf),
        ("min", "f64", math.inf),
        ("max", "i32", -(2**31)),
        ("min", "index", 2**63 - 1),
        ("and", "i1", True),
        ("or", "i1", False),
        ("xor", "i1", False),
    ],
)
def test_reduce_of_an_empty_axis(function: str, element: str, identity: float):
    dtype = dtype_of(element_type_of(element))
    text = reduce_text(function, f"tensor<?x?x{element}>", f"tensor<?x{element}>")
    same(run(text, np.empty((0, 2), dtype)), np.full(2, identity, dtype))
    assert run(text, np.empty((2, 0), dtype)).shape == (0,)


@pytest.mark.parametrize("function", ["sub", "@g"])
def test_reduce_of_an_empty_axis_without_identity(function: str):
    text = reduce_text(function, "tensor<?xf64>", "tensor<f64>", AXPY)
    message = (
        f"reduce: {function} has no identity element, "
        f"so the folded axis must not be empty: expected at least 1, got 0 "
        f"(axis 0 of a)"
    )
    with fails(ShapeError, message):
        run(text, np.empty(0))


def test_reduce_with_a_function_symbol():
    text = reduce_text("@g", "tensor<?x?xf64>", "tensor<?xf64>", AXPY)
    same(run(text, A34), axpy(A34[0], axpy(A34[1], A34[2])))


OUTER = "%r = moa.outer {} %a, %b : {}, {} -> {}"


def outer(function: str, lhs: int, rhs: int, more: str = "") -> str:
    types = [f"tensor<{'?x' * rank}f64>" for rank in (lhs, rhs, lhs + rhs)]
    return program(
        OUTER.format(function, *types),
        f"%a: {types[0]}, %b: {types[1]}",
        types[2],
        more,
    )


@pytest.mark.parametrize(
    ("lhs", "rhs"), [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (4,)), ((2, 0), (3,))]
)
def test_outer(lhs: tuple[int, ...], rhs: tuple[int, ...]):
    a, b = (
        np.arange(math.prod(shape), dtype=float).reshape(shape) for shape in (lhs, rhs)
    )
    same(run(outer("sub", len(lhs), len(rhs)), a, b), np.subtract.outer(a, b))


def test_outer_with_a_function_symbol():
    result = run(outer("@g", 1, 2, AXPY), A34[0], A34)
    same(result, axpy(A34[0][:, None, None], A34))


def inner(
    combine: str,
    function: str,
    lhs: int,
    rhs: int,
    more: str = "",
    element: str = "f64",
) -> str:
    types = [f"tensor<{'?x' * rank}{element}>" for rank in (lhs, rhs, lhs + rhs - 2)]
    return program(
        f"%r = moa.inner {combine} {function} %a, %b : {types[0]}, {types[1]} -> {types[2]}",
        f"%a: {types[0]}, %b: {types[1]}",
        types[2],
        more,
    )


@settings(deadline=None, max_examples=40)
@given(
    shapes=st.tuples(*[st.lists(st.integers(0, 3), max_size=2)] * 2),
    length=st.integers(1, 5),
    seed=st.integers(0, 99),
    functions=st.sampled_from(
        [("add", "mul"), ("sub", "add"), ("max", "div"), ("min", "sub")]
    ),
)
def test_inner_is_a_right_fold_bit_for_bit(
    shapes: tuple[list[int], list[int]],
    length: int,
    seed: int,
    functions: tuple[str, str],
):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((*shapes[0], length)).astype(np.float32)
    b = rng.standard_normal((length, *shapes[1])).astype(np.float32)
    combine, function = functions
    compute = SCALAR_OPERATIONS[function].compute
    outer_shape = (*shapes[0], *shapes[1])
    products = np.empty((length, *outer_shape), np.float32)
    for k in range(length):
        products[k] = compute(
            a[..., k].reshape((*shapes[0], *[1] * len(shapes[1]))), b[k]
        )
    text = inner(combine, function, a.ndim, b.ndim, element="f32")
    same(run(text, a, b), right_fold(combine, products))


def test_inner_product_of_vectors_is_a_scalar():
    same(run(inner("add", "mul", 1, 1), [1.0, 2.0], [3.0, 4.0]), np.float64(11))


def test_inner_over_an_empty_axis():
    same(
        run(inner("add", "mul", 2, 2), np.empty((2, 0)), np.empty((0, 3))),
        np.zeros((2, 3)),
    )
    with fails(
        ShapeError,
        "inner: sub has no identity element, so the folded axis must not be empty: "
        "expected at least 1, got 0 (axis 0 of a)",
    ):
        run(inner("sub", "mul", 1, 1), np.empty(0), np.empty(0))


def test_inner_with_function_symbols():
    result = run(inner("@g", "@g", 1, 2, AXPY), A34[0], A34.T)
    products = [axpy(A34[0][k], A34.T[k]) for k in range(4)]
    same(result, axpy(products[0], axpy(products[1], axpy(products[2], products[3]))))


def test_inner_extents_must_agree():
    with fails(
        ShapeError,
        "inner: the last extent of the left operand must equal the first of the "
        "right: expected 3 (axis 0 of a), got 2 (axis 0 of b)",
    ):
        run(inner("add", "mul", 1, 1), np.ones(3), np.ones(2))


# Omega


def omega(
    function: str, ranks: str, lhs: int, rhs: int | None, result: int, more: str = ""
) -> str:
    types = [f"tensor<{'?x' * rank}f64>" for rank in (lhs, rhs) if rank is not None]
    names = ["%a", "%b"][: len(types)]
    out = f"tensor<{'?x' * result}f64>"
    return program(
        f"%r = moa.omega {function} <{ranks}> ({', '.join(names)}) : ({', '.join(types)}) -> {out}",
        ", ".join(f"{name}: {type_}" for name, type_ in zip(names, types, strict=True)),
        out,
        more,
    )


SUM = """
  func.func private @sum(%c: tensor<?xf64>) -> tensor<f64> {
    %s = moa.reduce add %c : tensor<?xf64> -> tensor<f64>
    func.return %s : tensor<f64>
  }
"""
OUTER_CELLS = """
  func.func private @cells(%x: tensor<?xf64>, %y: tensor<?xf64>) -> tensor<?x?xf64> {
    %z = moa.outer sub %x, %y : tensor<?xf64>, tensor<?xf64> -> tensor<?x?xf64>
    func.return %z : tensor<?x?xf64>
  }
"""


def test_omega_applies_a_function_to_rows():
    same(run(omega("@sum", "1", 2, None, 1, SUM), A34), [6.0, 22.0, 38.0])
    same(run(omega("@sum", "1", 1, None, 0, SUM), A34[1]), np.float64(22))
    same(run(omega("exp", "1", 2, None, 2), A34), np.exp(A34))


def test_omega_with_an_empty_frame():
    same(
        run(omega("@sum", "1", 3, None, 2, SUM), np.empty((2, 0, 4))), np.empty((2, 0))
    )
    text = omega("@cells", "1, 1", 2, 1, 3, OUTER_CELLS)
    assert run(text, np.empty((0, 2)), np.empty(3)).shape == (0, 2, 3)


def test_omega_with_cells_that_are_empty():
    same(run(omega("@sum", "1", 2, None, 1, SUM), np.empty((2, 0))), np.zeros(2))


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((), ()),
        ((2, 3), (3,)),
        ((3,), (2, 3)),
        ((2, 3), ()),
        ((), (2,)),
        ((2,), (2,)),
        ((0, 3), (3,)),
        ((3,), (2, 0, 3)),
    ],
)
def test_omega_frames_agree_on_trailing_axes(
    left: tuple[int, ...], right: tuple[int, ...], as_function: bool
):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((*left, 4)), rng.standard_normal((*right, 4))
    # The longer frame's excess comes first in the result.
    frame = left if len(left) >= len(right) else right
    more = """
      func.func private @g(%x: tensor<?xf64>, %y: tensor<?xf64>) -> tensor<?xf64> {
        %z = moa.pointwise sub %x, %y : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
        func.return %z : tensor<?xf64>
      }
    """
    function = "@g" if as_function else "sub"
    text = omega(function, "1, 1", a.ndim, b.ndim, len(frame) + 1, more)
    expected = np.empty((*frame, 4))
    for i in np.ndindex(frame):
        expected[i] = a[i[len(frame) - len(left) :]] - b[i[len(frame) - len(right) :]]
    same(run(text, a, b), expected)


def test_omega_subtracts_a_scalar_from_each_row():
    same(run(omega("sub", "1, 0", 2, 1, 2), A34, A34[:, 1]), A34 - A34[:, 1:2])
    same(run(omega("sub", "0, 1", 1, 2, 2), A34[:, 1], A34), A34[:, 1:2] - A34)


def test_omega_with_cells_of_another_shape():
    a, b = A234, A34[:, :2]
    result = run(omega("@cells", "1, 1", 3, 2, 4, OUTER_CELLS), a, b)
    same(result, a[..., :, None] - b[:, None, :])


def test_omega_errors():
    text = omega("sub", "1, 1", 2, 2, 2)
    with fails(
        ShapeError,
        "omega: frames must agree on their trailing axes: expected 3 "
        "(axis 0 of a), got 2 (axis 0 of b)",
    ):
        run(text, np.ones((3, 4)), np.ones((2, 4)))
    with fails(
        ShapeError,
        "sub: extents of cell axis 0 must be equal: expected 4 (axis 1 of a), got 5 (axis 1 of b)",
    ):
        run(text, np.ones((3, 4)), np.ones((3, 5)))
    cells = """
      func.func private @g(%x: tensor<?xf64>, %y: tensor<?xf64>) -> tensor<?xf64> {
        %z = moa.pointwise sub %x, %y : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
        func.return %z : tensor<?xf64>
      }
    """
    text = omega("@g", "1, 1", 2, 2, 2, cells)
    with fails(
        ShapeError,
        "sub: extents of axis 0 must be equal: expected 4 (axis 1 of a), got 5 (axis 1 of b)",
    ):
        run(text, np.ones((0, 4)), np.ones((0, 5)))


# The denotational normal form


def test_extents_and_requirements():
    text = """
      func.func @f(%a: tensor<?x?xf64>) -> (index, index) {
        %n = moa.extent %a, 1 : tensor<?x?xf64>
        %k = moa.fixed_extent 3
        moa.require %n {relation} %k, "rows must fit"
        func.return %n, %k : index, index
      }
    """
    n, k = interpret_module(parse(text.replace("{relation}", "ge")), "f", [A34])
    assert (int(n), int(k)) == (4, 3)
    for relation, bound in (("eq", ""), ("lt", "less than "), ("le", "at most ")):
        with fails(ShapeError, f"rows must fit: expected {bound}3, got 4"):
            interpret_module(parse(text.replace("{relation}", relation)), "f", [A34])


@pytest.mark.parametrize(
    ("message", "error"),
    [("psi: index entry 0", IndexRangeError), ("which", ShapeError)],
)
def test_in_bounds(message: str, error: type[MoaError]):
    """The class of the error is that of a kernel, by its message."""
    text = scalar(
        f'%r = moa.in_bounds %i in %n, "{message}"', "%i: index, %n: index", "index"
    )
    same(run(text, np.int64(2), np.int64(3)), np.int64(2))
    with fails(error, f"{message}: expected less than 3, got 3"):
        run(text, np.int64(3), np.int64(3))
    with fails(error, f"{message}: expected at least 0, got -1"):
        run(text, np.int64(-1), np.int64(3))


def test_at():
    text = scalar(
        "%r = moa.at %a[%i, %i] : tensor<?x?xf64>",
        "%a: tensor<?x?xf64>, %i: index",
        "f64",
    )
    same(run(text, A34, np.int64(1)), np.float64(5))
    with fails(
        IndexRangeError,
        "at: index entry 0 out of range of axis 0: expected less than 3, got 3",
    ):
        run(text, A34, np.int64(3))
    with fails(
        IndexRangeError,
        "at: index entry 0 out of range of axis 0: expected at least 0, got -1",
    ):
        run(text, A34, np.int64(-1))


COMPREHENSION = """
  func.func @f(%a: tensor<?x?xf32>) -> tensor<?x?xf32> {
    %n = moa.extent %a, 0 : tensor<?x?xf32>
    %m = moa.extent %a, 1 : tensor<?x?xf32>
    %r = moa.comprehension [%i < %n, %j < %m] {order} -> tensor<?x?xf32> {
      %x = moa.at %a[%i, %j] : tensor<?x?xf32>
      %y = arith.addf %x, %x : f32
      moa.yield %y : f32
    }
    func.return %r : tensor<?x?xf32>
  }
"""


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_comprehension(shape: tuple[int, ...]):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    same(run(COMPREHENSION.replace("{order}", ""), array), array + array)
    same(
        run(COMPREHENSION.replace("{order}", "order [1, 0]"), array), (array + array).T
    )


def test_comprehension_of_rank_zero():
    text = """
      func.func @f(%a: tensor<bf16>) -> tensor<bf16> {
        %r = moa.comprehension [] -> tensor<bf16> {
          %x = moa.at %a[] : tensor<bf16>
          %y = arith.mulf %x, %x : bf16
          moa.yield %y : bf16
        }
        func.return %r : tensor<bf16>
      }
    """
    same(run(text, ml_dtypes.bfloat16(3)), ml_dtypes.bfloat16(9))


CELLS = """
  func.func @f(%a: tensor<?x?x?xf64>) -> (tensor<?x?x?xf64>, tensor<?xindex>) {
    %n = moa.extent %a, 0 : tensor<?x?x?xf64>
    %m = moa.extent %a, 1 : tensor<?x?x?xf64>
    %l = moa.extent %a, 2 : tensor<?x?x?xf64>
    %r:2 = moa.comprehension [%i < %n] -> tensor<?x?x?xf64>, tensor<?xindex> {
      %c = moa.comprehension [%j < %m, %k < %l] order [1, 0] -> tensor<?x?xf64> {
        %x = moa.at %a[%i, %j, %k] : tensor<?x?x?xf64>
        moa.yield %x : f64
      }
      moa.yield %c, %i : tensor<?x?xf64>, index
    }
    func.return %r#0, %r#1 : tensor<?x?x?xf64>, tensor<?xindex>
  }
"""


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 4), (2, 0, 4), (0, 0, 0)])
def test_comprehension_of_cells_with_several_results(shape: tuple[int, ...]):
    array = np.arange(math.prod(shape), dtype=float).reshape(shape)
    cells, numbers = interpret_module(parse(CELLS), "f", [array])
    same(cells, array.transpose(0, 2, 1))
    same(numbers, np.arange(shape[0]))


def test_comprehension_orders_axes_and_cell_axes_together():
    text = CELLS.replace("%r:2", "%r").replace(
        "-> tensor<?x?x?xf64>, tensor<?xindex> {",
        "order [1, 2, 0] -> tensor<?x?x?xf64> {",
    )
    text = text.replace(
        "moa.yield %c, %i : tensor<?x?xf64>, index", "moa.yield %c : tensor<?x?xf64>"
    )
    text = text.replace(
        "%r#0, %r#1 : tensor<?x?x?xf64>, tensor<?xindex>", "%r : tensor<?x?x?xf64>"
    )
    text = text.replace(
        "(tensor<?x?x?xf64>, tensor<?xindex>) {", "tensor<?x?x?xf64> {", 1
    )
    # Axes i, k, j of axes-then-cell go to places 1, 2, 0.
    same(run(text, A234), A234.transpose(0, 2, 1).transpose(2, 0, 1))


def fold_text(
    function: str, lower: int = 0, element: str = "f64", more: str = ""
) -> str:
    return program(
        f"""
        %lower = arith.constant {lower} : index
        %n = moa.extent %a, 0 : tensor<?x{element}>
        %r = moa.fold {function} [%k = %lower to %n] -> {element} {{
          %x = moa.at %a[%k] : tensor<?x{element}>
          moa.yield %x : {element}
        }}
        """,
        f"%a: tensor<?x{element}>",
        element,
        more,
    )


def test_fold_is_a_right_fold():
    same(run(fold_text("sub"), [10.0, 3.0, 2.0, 1.0]), np.float64(8))
    same(run(fold_text("div"), [8.0, 4.0, 2.0]), np.float64(4))
    same(run(fold_text("sub", lower=1), [10.0, 3.0, 2.0, 1.0]), np.float64(2))
    same(run(fold_text("@g", more=AXPY), [1.0, 2.0, 4.0]), np.float64(2))


@settings(deadline=None, max_examples=30)
@given(
    array=hnp.arrays(
        np.float32, st.integers(1, 9), elements=st.floats(-9, 9, width=16)
    ),
    function=st.sampled_from(["add", "sub", "mul", "div", "max", "min", "pow"]),
    element=st.sampled_from(list(DTYPES)),
)
def test_fold_equals_reduce_bit_for_bit(array: np.ndarray, function: str, element: str):
    array = array.astype(DTYPES[element])
    reduced = run(
        reduce_text(function, f"tensor<?x{element}>", f"tensor<{element}>"), array
    )
    same(run(fold_text(function, element=element), array), reduced)


@pytest.mark.parametrize(
    ("function", "element", "identity"),
    [
        ("add", "f64", 0.0),
        ("max", "bf16", -math.inf),
        ("min", "index", 2**63 - 1),
        ("and", "i1", True),
    ],
)
def test_fold_over_nothing(function: str, element: str, identity: float):
    dtype = dtype_of(element_type_of(element))
    same(
        run(fold_text(function, element=element), np.empty(0, dtype)),
        np.array(identity, dtype),
    )


def test_fold_over_nothing_without_identity():
    for function in ("sub", "@g"):
        with fails(
            ShapeError,
            f"fold: {function} has no identity element, so the folded axis must not be empty: expected at least 1, got 0",
        ):
            run(fold_text(function, more=AXPY), np.empty(0))


CAUSAL = program(
    """
    %n = moa.extent %a, 0 : tensor<?xf64>
    %zero = arith.constant 0 : index
    %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
      %s = moa.fold FUNCTION [%k = %zero to %n] where SET -> f64 {
        %x = moa.at %a[%k] : tensor<?xf64>
        moa.yield %x : f64
      }
      moa.yield %s : f64
    }
    """,
    "%a: tensor<?xf64>",
    "tensor<?xf64>",
)


def test_fold_over_a_restricted_domain():
    array = np.array([math.nan, 1.0, 2.0, 4.0])
    even_below = CAUSAL.replace("FUNCTION", "add").replace(
        "SET", "affine_set<(d0, d1) : (d1 - d0 >= 0, d0 mod 2 - 1 == 0)>(%k, %i)"
    )
    # Excluded elements are not read: the NaN at 0 does not reach the sums.
    same(run(even_below, array), [0.0, 1.0, 1.0, 5.0])
    symbols = CAUSAL.replace("FUNCTION", "max").replace(
        "SET", "affine_set<(d0)[s0] : (d0 - s0 - 1 >= 0)>(%k, %i)"
    )
    same(run(symbols, array), [4.0, 4.0, 4.0, -math.inf])


FOLD_OF_ARRAYS = """
  func.func @f(%a: tensor<?x?xf64>) -> tensor<?xf64> {
    %zero = arith.constant 0 : index
    %n = moa.extent %a, 0 : tensor<?x?xf64>
    %s = moa.fold FUNCTION [%k = %zero to %n] -> tensor<?xf64> {
      %m = moa.extent %a, 1 : tensor<?x?xf64>
      %c = moa.comprehension [%j < %m] -> tensor<?xf64> {
        %x = moa.at %a[%k, %j] : tensor<?x?xf64>
        moa.yield %x : f64
      }
      moa.yield %c : tensor<?xf64>
    }
    func.return %s : tensor<?xf64>
  }
"""


def test_fold_of_arrays():
    same(
        run(FOLD_OF_ARRAYS.replace("FUNCTION", "sub"), A34), A34[0] - (A34[1] - A34[2])
    )
    text = FOLD_OF_ARRAYS.replace("FUNCTION", "@g") + AXPY
    same(run(text, A34), axpy(A34[0], axpy(A34[1], A34[2])))


def test_fold_of_arrays_over_nothing():
    text = FOLD_OF_ARRAYS.replace("FUNCTION", "max")
    same(run(text, np.empty((0, 2))), np.full(2, -math.inf))
    same(run(text, np.empty((2, 0))), np.empty(0))


# The operational normal form

COPY = """
  func.func @f.extents(%a: memref<?x?xf64>) -> (index, index) {
    %n = moa.extent %a, 0 : memref<?x?xf64>
    %m = moa.extent %a, 1 : memref<?x?xf64>
    func.return %n, %m : index, index
  }
  func.func @f(%a: memref<?x?xf64>, %r: memref<?x?xf64> {moa.result},
               %status: memref<3xi64> {moa.status}) {
    %zero = arith.constant 0 : index
    %one = arith.constant 1 : index
    %last = arith.constant -1 : index
    %n = moa.extent %a, 0 : memref<?x?xf64>
    %m = moa.extent %a, 1 : memref<?x?xf64>
    %top = arith.subi %n, %one : index
    %from = moa.rav row %a : memref<?x?xf64> -> memref<?xf64>
    %to = moa.rav row %r : memref<?x?xf64> -> memref<?xf64>
    moa.loop [%i = %top to %last by -1] {
      moa.loop [%j = %zero to %m by 1] {
        %x = moa.load %from[%zero, %i * %m, %j * %one] : memref<?xf64>
        %y = arith.negf %x : f64
        moa.store %y, %to[%zero, %i * %m, %j * %one] : memref<?xf64>
        moa.yield
      }
      moa.yield
    }
    func.return
  }
"""


@pytest.mark.parametrize("array", [A34, A34.T, np.empty((0, 3)), A34[::2, ::-1]])
def test_loops_loads_and_stores(array: np.ndarray):
    before = array.copy()
    same(run(COPY, array), -array)
    same(array, before)


def test_column_major_memory():
    layout = "memref<2x3xf64, strided<[1, 2]>>"
    text = f"""
      func.func @f(%a: {layout}, %r: {layout} {{moa.result}}) {{
        %zero = arith.constant 0 : index
        %six = arith.constant 6 : index
        %one = arith.constant 1 : index
        %from = moa.rav column %a : {layout} -> memref<?xf64>
        %to = moa.rav column %r : {layout} -> memref<?xf64>
        moa.loop [%k = %zero to %six by 1] {{
          %x = moa.load %from[%zero, %k * %one] : memref<?xf64>
          %kf = arith.index_cast %k : index to i64
          %kd = arith.sitofp %kf : i64 to f64
          %y = arith.addf %x, %kd : f64
          moa.store %y, %to[%k] : memref<?xf64>
          moa.yield
        }}
        func.return
      }}
    """
    array = np.arange(6.0).reshape(2, 3)
    result = run(text, array)
    same(result, array + np.arange(6.0).reshape(3, 2).T)
    with fails(
        LayoutError,
        "rav: the array does not lie in row order: shape (2, 3), strides (8, 16)",
    ):
        run(text.replace("rav column", "rav row"), array)


BUFFER = """
  func.func @f(%r: memref<2xf64> {moa.result}) {
    %zero = arith.constant 0 : index
    %one = arith.constant 1 : index
    %to = moa.rav row %r : memref<2xf64> -> memref<?xf64>
    %b = moa.buffer [%one, %one] : memref<?xf64>
    %x = moa.load %b[%zero] : memref<?xf64>
    moa.store %x, %to[%zero] : memref<?xf64>
    func.return
  }
"""


def test_memory_that_was_not_written_shows():
    result = run(BUFFER)
    assert result.shape == (2,)
    assert np.isnan(result).all()


@pytest.mark.parametrize(
    ("address", "message"),
    [("%one", "less than 1, got 1"), ("%last", "at least 0, got -1")],
)
def test_address_out_of_range(address: str, message: str):
    text = BUFFER.replace("%b[%zero]", f"%b[{address}]").replace(
        "%one =", "%last = arith.constant -1 : index\n    %one ="
    )
    with fails(IndexRangeError, f"load: address out of range: expected {message}"):
        run(text)


def test_dynamic_outputs_need_their_extents():
    text = COPY.replace("@f.extents", "@f.other")
    with fails(
        MoaError, "f: the outputs have dynamic extents, which need a function f.extents"
    ):
        run(text, A34)


# Scalar code of upstream dialects

INT = {"i32": np.int32, "i64": np.int64, "index": np.int64}
EDGES = {t: [np.iinfo(d).min, -7, -1, 1, 3, np.iinfo(d).max] for t, d in INT.items()}


def wrap(value: int, element: str) -> int:
    half = -int(np.iinfo(INT[element]).min)
    return (value + half) % (2 * half) - half


def unsigned(value: int, element: str) -> int:
    return value % (-2 * int(np.iinfo(INT[element]).min))


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


SIGNED: dict[str, Callable[[int, int], int]] = {
    "addi": int.__add__,
    "subi": int.__sub__,
    "muli": int.__mul__,
    "maxsi": max,
    "minsi": min,
    "andi": int.__and__,
    "ori": int.__or__,
    "xori": int.__xor__,
    "divsi": truncated,
    "remsi": lambda a, b: a - b * truncated(a, b),
    "floordivsi": int.__floordiv__,
    "ceildivsi": lambda a, b: -(-a // b),
}
UNSIGNED: dict[str, Callable[[int, int], int]] = {
    "maxui": max,
    "minui": min,
    "divui": int.__floordiv__,
    "remui": int.__mod__,
}


@pytest.mark.parametrize("element", INT)
@pytest.mark.parametrize("name", [*SIGNED, *UNSIGNED])
def test_integer_arithmetic(name: str, element: str):
    text = scalar(
        f"%r = arith.{name} %a, %b : {element}",
        f"%a: {element}, %b: {element}",
        element,
    )
    for a, b in product(EDGES[element], repeat=2):
        if name in SIGNED:
            expected = SIGNED[name](a, b)
        else:
            expected = UNSIGNED[name](unsigned(a, element), unsigned(b, element))
        result = run(text, INT[element](a), INT[element](b))
        same(result, INT[element](wrap(expected, element)))


def test_division_by_zero():
    text = scalar("%r = arith.divsi %a, %b : i64", "%a: i64, %b: i64", "i64")
    with fails(MoaError, "integer division by zero: 3 / 0"):
        run(text, np.int64(3), np.int64(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("addi", [0, 1, 1, 0]),
        ("muli", [0, 0, 0, 1]),
        ("xori", [0, 1, 1, 0]),
        ("ori", [0, 1, 1, 1]),
        ("maxsi", [0, 0, 0, 1]),
        ("maxui", [0, 1, 1, 1]),
    ],
)
def test_arithmetic_on_truth_values(name: str, expected: list[int]):
    text = scalar(f"%r = arith.{name} %a, %b : i1", "%a: i1, %b: i1", "i1")
    for (a, b), value in zip(product((False, True), repeat=2), expected, strict=True):
        same(run(text, a, b), bool(value))


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("addf", "add"),
        ("subf", "sub"),
        ("mulf", "mul"),
        ("divf", "div"),
        ("maximumf", "max"),
        ("minimumf", "min"),
    ],
)
def test_float_arithmetic(name: str, function: str, element: str):
    text = scalar(
        f"%r = arith.{name} %a, %b : {element}",
        f"%a: {element}, %b: {element}",
        element,
    )
    type_ = f"tensor<{element}>"
    whole = pointwise(function, type_, type_, type_)
    for a, b in product(SPECIAL, repeat=2):
        scalars = DTYPES[element].type(a), DTYPES[element].type(b)
        same(run(text, *scalars), run(whole, *scalars))


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize(
    ("name", "function"),
    [("arith.negf", "neg"), ("math.absf", "abs")]
    + [
        (f"math.{name}", name)
        for name in UNARY_FLOAT
        if name not in ("neg", "abs", "sign")
    ],
)
def test_math(name: str, function: str, element: str):
    text = scalar(f"%r = {name} %a : {element}", f"%a: {element}", element)
    for value in np.array([*SPECIAL, 0.3], DTYPES[element]):
        with np.errstate(all="ignore"):
            same(run(text, value), SCALAR_OPERATIONS[function].compute(value))


def test_powf():
    text = scalar("%r = math.powf %a, %b : f64", "%a: f64, %b: f64", "f64")
    same(run(text, 2.0, 0.5), np.sqrt(np.float64(2)))


@pytest.mark.parametrize(
    ("element", "operands", "expected"),
    [
        ("f64", (1 + 2**-30, 1 - 2**-30, -1.0), -(2.0**-60)),
        ("f32", (1 + 2**-12, 1 - 2**-12, -1.0), -(2.0**-24)),
        ("f32", (1 + 2**-23, 1 + 2**-23, 2.0**-60), 1 + 2**-22),
        ("f32", (3e38, 2.0, -math.inf), -math.inf),
        ("f64", (1e300, -1e300, 1.0), -math.inf),
        ("bf16", (1.0078125, 1.0078125, 2.0**-20), 1.015625),
        ("f64", (-0.0, 1.0, -0.0), -0.0),
        ("f64", (math.inf, 0.0, 1.0), math.nan),
    ],
)
def test_fma_rounds_once(element: str, operands: tuple[float, ...], expected: float):
    text = scalar(
        f"%r = math.fma %a, %b, %c : {element}",
        f"%a: {element}, %b: {element}, %c: {element}",
        element,
    )
    dtype = DTYPES[element]
    same(run(text, *(dtype.type(o) for o in operands)), dtype.type(expected))


def test_fma_in_f32_does_not_round_twice():
    # The sum in f64 is half way between two f32, though the exact one is above.
    a, c = np.float32(1 + 2**-12), np.float32(2.0**-80)
    b = np.float32(1 + 2**-12)
    text = scalar("%r = math.fma %a, %b, %c : f32", "%a: f32, %b: f32, %c: f32", "f32")
    assert np.float32(float(a) * float(b) + float(c)) == np.float32(1 + 2**-11)
    same(run(text, a, b, c), np.float32(1 + 2**-11 + 2**-23))


PREDICATES: dict[str, Callable[[float, float], bool]] = {
    "oeq": operator.eq,
    "ogt": operator.gt,
    "oge": operator.ge,
    "olt": operator.lt,
    "ole": operator.le,
    "one": operator.ne,
}


@pytest.mark.parametrize(
    "name",
    [
        "false",
        "true",
        "ord",
        "uno",
        *PREDICATES,
        "ueq",
        "ugt",
        "uge",
        "ult",
        "ule",
        "une",
    ],
)
def test_cmpf(name: str):
    text = scalar(f"%r = arith.cmpf {name}, %a, %b : f32", "%a: f32, %b: f32", "i1")
    for a, b in product((1.0, 2.0, -0.0, 0.0, math.nan), repeat=2):
        is_unordered = math.isnan(a) or math.isnan(b)
        if name in ("false", "true"):
            expected = name == "true"
        elif name in ("ord", "uno"):
            expected = is_unordered == (name == "uno")
        elif is_unordered:
            expected = name[0] == "u"
        else:
            expected = PREDICATES["o" + name[1:]](a, b)
        same(run(text, np.float32(a), np.float32(b)), expected)


@pytest.mark.parametrize("element", INT)
@pytest.mark.parametrize(
    "name", ["eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge"]
)
def test_cmpi(name: str, element: str):
    text = scalar(
        f"%r = arith.cmpi {name}, %a, %b : {element}",
        f"%a: {element}, %b: {element}",
        "i1",
    )
    relation = {"eq": "oeq", "ne": "one"}.get(name, "o" + name[1:])
    for a, b in product(EDGES[element], repeat=2):
        pair = (
            (unsigned(a, element), unsigned(b, element)) if name[0] == "u" else (a, b)
        )
        same(run(text, INT[element](a), INT[element](b)), PREDICATES[relation](*pair))


def test_cmpi_reads_truth_values_as_numbers_of_one_bit():
    for name, expected in (("slt", False), ("ult", True), ("eq", False)):
        text = scalar(f"%r = arith.cmpi {name}, %a, %b : i1", "%a: i1, %b: i1", "i1")
        same(run(text, False, True), expected)


@pytest.mark.parametrize(
    ("op", "source", "target", "value", "expected"),
    [
        ("index_cast", "index", "i32", 2**32 + 5, 5),
        ("index_cast", "i32", "index", -5, -5),
        ("index_cast", "i1", "index", True, -1),
        ("index_cast", "index", "i1", 3, True),
        ("sitofp", "i64", "f32", 16777217, 16777216.0),
        ("sitofp", "i1", "f64", True, -1.0),
        ("uitofp", "i1", "f64", True, 1.0),
        ("uitofp", "i32", "f64", -1, 2.0**32 - 1),
        ("uitofp", "i64", "f64", -1, 2.0**64),
        ("fptosi", "f64", "i32", -2.9, -2),
        ("fptosi", "bf16", "i64", 2.5, 2),
        ("extf", "bf16", "f64", 1.5, 1.5),
        ("truncf", "f64", "f32", 1.1, np.float32(1.1)),
        ("truncf", "f32", "f16", 1e6, math.inf),
        ("extsi", "i1", "i32", True, -1),
        ("extsi", "i32", "i64", -3, -3),
        ("extui", "i1", "i64", True, 1),
        ("extui", "i32", "i64", -1, 2**32 - 1),
        ("trunci", "i64", "i32", 2**31, -(2**31)),
        ("trunci", "i32", "i1", 2, False),
    ],
)
def test_conversions(op: str, source: str, target: str, value: float, expected: float):
    text = scalar(f"%r = arith.{op} %a : {source} to {target}", f"%a: {source}", target)
    given, result = (dtype_of(element_type_of(name)) for name in (source, target))
    same(run(text, np.array(value, given)), np.array(expected, result))


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("2.5", "f32", np.float32(2.5)),
        ("0x7FC0", "bf16", ml_dtypes.bfloat16(math.nan)),
        ("-3", "i32", np.int32(-3)),
        ("7", "index", np.int64(7)),
        ("true", "i1", np.bool_(True)),
        ("dense<[1.0, 2.0]>", "tensor<2xf64>", np.array([1.0, 2.0])),
    ],
)
def test_arith_constant(value: str, type_: str, expected: np.generic):
    suffix = "" if value == "true" else f" : {type_}"
    same(run(scalar(f"%r = arith.constant {value}{suffix}", "", type_)), expected)


def test_select():
    text = scalar(
        "%r = arith.select %c, %a, %b : f64", "%c: i1, %a: f64, %b: f64", "f64"
    )
    same(run(text, True, 1.0, 2.0), np.float64(1))
    same(run(text, False, 1.0, 2.0), np.float64(2))


def test_calls():
    text = (
        scalar("%r = func.call @g(%a, %a) : (f64, f64) -> f64", "%a: f64", "f64") + AXPY
    )
    same(run(text, 3.0), np.float64(3))


def test_structured_control_flow():
    text = program(
        """
        %zero = arith.constant 0 : index
        %one = arith.constant 1 : index
        %two = arith.constant 2 : index
        %init = arith.constant 0.0 : f64
        %r = scf.for %i = %zero to %n step %one iter_args(%s = %init) -> (f64) {
          %m = arith.remui %i, %two : index
          %even = arith.cmpi eq, %m, %zero : index
          %k = arith.index_cast %i : index to i64
          %x = arith.sitofp %k : i64 to f64
          %t = scf.if %even -> (f64) {
            %u = arith.addf %s, %x : f64
            scf.yield %u : f64
          } else {
            scf.yield %s : f64
          }
          scf.yield %t : f64
        }
        """,
        "%n: index",
        "f64",
    )
    same(run(text, np.int64(7)), np.float64(12))
    same(run(text, np.int64(0)), np.float64(0))


def test_memory_operations():
    text = """
      func.func @f(%a: memref<?xi32>, %r: memref<2xindex> {moa.result}) {
        %zero = arith.constant 0 : index
        %one = arith.constant 1 : index
        %n = memref.dim %a, %zero : memref<?xi32>
        %b = memref.alloc(%n) : memref<?x2xi32>
        %x = memref.load %a[%one] : memref<?xi32>
        memref.store %x, %b[%zero, %one] : memref<?x2xi32>
        %y = memref.load %b[%zero, %one] : memref<?x2xi32>
        %k = arith.index_cast %y : i32 to index
        memref.store %k, %r[%zero] : memref<2xindex>
        memref.store %n, %r[%one] : memref<2xindex>
        memref.dealloc %b : memref<?x2xi32>
        %c = memref.alloca() : memref<3xi32>
        func.return
      }
    """
    same(run(text, np.array([4, 5, 6], np.int32)), index(5, 3))
    with fails(
        IndexRangeError,
        "memref.load: index entry 0 out of range of axis 0: expected less than 1, got 1",
    ):
        run(text, np.array([4], np.int32))


# Entries, arguments and counting

TWO = """
  func.func @a(%x: tensor<2xf64>) -> tensor<2xf64> { func.return %x : tensor<2xf64> }
  func.func @b() { func.return }
  func.func private @c(%x: f64) -> f64 { func.return %x : f64 }
"""


def test_entry():
    with fails(MoaError, "unknown entry 'x': expected one of a, b"):
        interpret_module(parse(TWO), "x", [])
    with fails(MoaError, "unknown entry 'x': expected a function, there is none"):
        interpret_module(parse("builtin.module {}"), "x", [])
    assert interpret_module(parse(TWO), "b", []) == ()
    same(run(TWO, 3.0, entry="c"), np.float64(3))


def test_results_are_fresh():
    array = np.ones(2)
    result = run(TWO, array, entry="a")
    result[0] = 5
    same(array, np.ones(2))


def test_an_operation_without_meaning():
    text = program("%r = arith.shli %a, %a : i64", "%a: i64", "i64")
    with fails(
        MoaError,
        "f: cannot be interpreted: Could not find interpretation function for op arith.shli",
    ):
        run(text, np.int64(1))


def test_arguments():
    q, k = np.zeros((3, 64)), np.zeros((2, 64))
    types = [TensorType(f64, [DYNAMIC_INDEX, 64]), MemRefType(f64, [DYNAMIC_INDEX, 64])]

    def check(*arrays: Any) -> None:
        expected = [array_type(type_) for type_ in types]
        check_arguments("attention", ["q", "k"], expected, arrays)

    check(q, k)
    cases: list[tuple[tuple[object, ...], type[MoaError], str]] = [
        ((q,), MoaError, "attention: expected 2 arguments, got 1"),
        (
            (q.astype(np.float32), k),
            DTypeError,
            "argument 0 'q': expected float64, got float32",
        ),
        (
            (q, k.tolist()),
            DTypeError,
            "argument 1 'k': expected a NumPy array, got list",
        ),
        (
            (q, np.zeros((2, 3, 4))),
            ShapeError,
            "argument 1 'k': expected rank 2, got rank 3 with shape (2, 3, 4)",
        ),
        (
            (q, k[:, :32]),
            ShapeError,
            "argument 1 'k': expected extent 64 on axis 1, got 32",
        ),
    ]
    for arrays, error, message in cases:
        with pytest.raises(error) as caught:
            check(*arrays)
        assert str(caught.value) == message
    with fails(MoaError, "f: expected 1 argument, got 0"):
        check_arguments("f", ["n"], [array_type(i64)], [])


def test_arguments_are_checked_by_name():
    with fails(ShapeError, "argument 0 'x': expected extent 2 on axis 0, got 3"):
        run(TWO, np.ones(3), entry="a")


def test_operations_are_counted():
    array = np.ones((3, 4), np.float32)
    counts = count_operations(parse(COMPREHENSION.replace("{order}", "")), "f", [array])
    assert counts["arith.addf"] == counts["moa.at"] == counts["moa.yield"] == 12
    assert counts["moa.comprehension"] == counts["func.return"] == 1
    array = np.array([1.0, 2.0, 4.0])
    counts = count_operations(parse(fold_text("@g", more=AXPY)), "f", [array])
    assert (counts["moa.at"], counts["arith.mulf"]) == (3, 2)
    assert count_operations(parse(COPY), "f", [A34])["moa.load"] == 12
