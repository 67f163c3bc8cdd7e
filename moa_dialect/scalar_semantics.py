"""The meaning of scalar code, on NumPy scalars: the dialects arith and math.

A float is a NumPy scalar of its own precision, so that every operation rounds as it
should; an index is a Python `int`, every other integer a NumPy scalar; both wrap. A
truth value is an `np.bool_`, which signed operations read as 0 and -1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from fractions import Fraction
from math import inf, isfinite, nextafter
from typing import Any, TypeVar, cast

import ml_dtypes
import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IndexType,
    IntegerAttr,
)
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    impl,
    register_impls,
)
from xdsl.ir import Attribute, Operation

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS, Kind
from moa_dialect.errors import MoaError
from moa_dialect.types import array_of, dtype_of, kind_of

T = TypeVar("T")


def once(interpreter: Interpreter, key: Hashable, make: Callable[[], T]) -> T:
    """What depends on the IR alone, made once in an interpreter's life."""
    known = cast(dict[Hashable, T], interpreter.get_data(ScalarCode, "known", dict))
    if key not in known:
        known[key] = make()
    return known[key]


# Scalars


def element_at(array: np.ndarray, index: tuple[int, ...], type_: Attribute) -> Any:
    """One element of an array as a scalar of the element type."""
    value = array[index]
    return int(value) if isinstance(type_, IndexType) else value


def scalar_of(value: float, type_: Attribute) -> Any:
    """A number as a scalar of the element type; an integer wraps."""
    dtype = dtype_of(type_)
    if kind_of(type_) == "float":
        return dtype.type(value)
    return _wrapped(int(value), int if isinstance(type_, IndexType) else dtype.type)


def _wrapped(value: int, type_: type) -> Any:
    """A number as an integer scalar of this type, modulo what the type holds."""
    if type_ is np.bool_:
        return np.bool_(value & 1)
    half = 1 << (31 if type_ is np.int32 else 63)
    if not -half <= value < half:
        value = (value + half) % (2 * half) - half
    return type_(value)


def _signed(value: Any) -> int:
    """The number an integer scalar is."""
    number = int(value)
    return -number if type(value) is np.bool_ else number


def _unsigned(value: Any) -> int:
    """The number an integer scalar is if its sign bit counts as any other bit."""
    return int(value) % (1 << (32 if type(value) is np.int32 else 64))


def _on_integers(
    compute: Callable[[int, int], int], read: Callable[[Any], int] = _signed
) -> Callable[[Any, Any], Any]:
    """A function of numbers as one of two integer scalars of the same type."""

    def apply(lhs: Any, rhs: Any) -> Any:
        return _wrapped(compute(read(lhs), read(rhs)), lhs.__class__)

    return apply


def _maximum(lhs: Any, rhs: Any) -> Any:
    """NaN if one is NaN, and 0 is greater than -0."""
    if lhs > rhs:
        return lhs
    if lhs < rhs:
        return rhs
    return lhs if lhs == rhs != 0 else lhs + rhs


def _minimum(lhs: Any, rhs: Any) -> Any:
    """NaN if one is NaN, and -0 is less than 0."""
    return -_maximum(-lhs, -rhs)


def _maximum_of_arrays(lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.where((lhs == 0) & (rhs == 0), lhs + rhs, np.maximum(lhs, rhs))


def _minimum_of_arrays(lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.where((lhs == 0) & (rhs == 0), -(-lhs + -rhs), np.minimum(lhs, rhs))


ARRAY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: operation.compute for name, operation in SCALAR_OPERATIONS.items()
} | {"max": _maximum_of_arrays, "min": _minimum_of_arrays}
"""The functions of the scalar table on arrays; NumPy's maximum may give 0 or -0."""

SCALAR_FUNCTIONS: dict[tuple[str, Kind], Callable[[Any, Any], Any]] = {
    ("add", "float"): operator.add,
    ("sub", "float"): operator.sub,
    ("mul", "float"): operator.mul,
    ("div", "float"): operator.truediv,
    ("max", "float"): _maximum,
    ("min", "float"): _minimum,
    ("add", "int"): _on_integers(int.__add__),
    ("sub", "int"): _on_integers(int.__sub__),
    ("mul", "int"): _on_integers(int.__mul__),
    ("max", "int"): _on_integers(max),
    ("min", "int"): _on_integers(min),
    ("floordiv", "int"): _on_integers(lambda lhs, rhs: lhs // rhs if rhs else 0),
    ("mod", "int"): _on_integers(lambda lhs, rhs: lhs % rhs if rhs else lhs),
}
"""Functions of the scalar table that differ on scalars: faster, or index is an int."""


# Conversions


def convert(values: Any, dtype: np.dtype) -> Any:
    """An array or scalar converted, each element rounded once; not for index."""
    array = np.asarray(values)
    if array.dtype == np.float64 and dtype == ml_dtypes.bfloat16:
        array = _rounded_to_odd(array)
    return array.astype(dtype)[()]


def _rounded_to_odd(values: np.ndarray) -> np.ndarray:
    """Float32 of float64: inexact ones are odd, so that rounding again is harmless."""
    near = values.astype(np.float32)
    bits = near.view(np.uint32)
    bits = np.where(np.abs(near) > np.abs(values), bits - 1, bits)
    is_inexact = (near != values) & ~np.isnan(values)
    return np.where(is_inexact, bits | 1, bits).view(np.float32)


def _fma(lhs: Any, rhs: Any, addend: Any) -> Any:
    """`lhs * rhs + addend`, rounded once."""
    near = lhs * rhs + addend
    if not (isfinite(lhs) and isfinite(rhs)):
        return near
    if not isfinite(addend):
        return addend
    exact = Fraction(float(lhs)) * Fraction(float(rhs)) + Fraction(float(addend))
    if exact == 0:
        return near
    try:
        rounded = float(exact)
    except OverflowError:
        return type(near)(inf if exact > 0 else -inf)
    if type(near) is np.float64:
        return np.float64(rounded)
    is_even = not np.float64(rounded).view(np.int64) & 1
    if is_even and Fraction(rounded) != exact:
        rounded = nextafter(rounded, inf if exact > rounded else -inf)
    return convert(np.float64(rounded), np.asarray(near).dtype)


# The operations


def _truncating_division(lhs: int, rhs: int) -> int:
    quotient = abs(lhs) // abs(rhs)
    return quotient if (lhs < 0) == (rhs < 0) else -quotient


def _divided(compute: Callable[[int, int], int]) -> Callable[[int, int], int]:
    def apply(lhs: int, rhs: int) -> int:
        if rhs == 0:
            raise MoaError(f"integer division by zero: {lhs} / 0")
        return compute(lhs, rhs)

    return apply


def _select(condition: Any, lhs: Any, rhs: Any) -> Any:
    return lhs if condition else rhs


_CODE: dict[type[Operation], Callable[..., Any]] = {
    arith.AddfOp: operator.add,
    arith.SubfOp: operator.sub,
    arith.MulfOp: operator.mul,
    arith.DivfOp: operator.truediv,
    arith.NegfOp: operator.neg,
    arith.MaximumfOp: _maximum,
    arith.MinimumfOp: _minimum,
    arith.AddiOp: SCALAR_FUNCTIONS["add", "int"],
    arith.SubiOp: SCALAR_FUNCTIONS["sub", "int"],
    arith.MuliOp: SCALAR_FUNCTIONS["mul", "int"],
    arith.MaxSIOp: SCALAR_FUNCTIONS["max", "int"],
    arith.MinSIOp: SCALAR_FUNCTIONS["min", "int"],
    arith.MaxUIOp: _on_integers(max, _unsigned),
    arith.MinUIOp: _on_integers(min, _unsigned),
    arith.AndIOp: _on_integers(int.__and__),
    arith.OrIOp: _on_integers(int.__or__),
    arith.XOrIOp: _on_integers(int.__xor__),
    arith.DivUIOp: _on_integers(_divided(int.__floordiv__), _unsigned),
    arith.RemUIOp: _on_integers(_divided(int.__mod__), _unsigned),
    arith.DivSIOp: _on_integers(_divided(_truncating_division)),
    arith.RemSIOp: _on_integers(
        _divided(lambda lhs, rhs: lhs - rhs * _truncating_division(lhs, rhs))
    ),
    arith.FloorDivSIOp: _on_integers(_divided(int.__floordiv__)),
    arith.CeilDivSIOp: _on_integers(_divided(lambda lhs, rhs: -(-lhs // rhs))),
    arith.SelectOp: _select,
    math.FmaOp: _fma,
}
"""The operations whose meaning does not depend on attributes or types."""

_TABLE: dict[type[Operation], str] = {
    math.ExpOp: "exp",
    math.Exp2Op: "exp2",
    math.LogOp: "log",
    math.Log2Op: "log2",
    math.SqrtOp: "sqrt",
    math.RsqrtOp: "rsqrt",
    math.TanhOp: "tanh",
    math.ErfOp: "erf",
    math.SinOp: "sin",
    math.CosOp: "cos",
    math.FloorOp: "floor",
    math.CeilOp: "ceil",
    math.AbsFOp: "abs",
    math.PowFOp: "pow",
}
"""The operations that compute what a function of the scalar table says."""

_CONVERSIONS: dict[type[Operation], Callable[[Any, Attribute], Any]] = {
    arith.IndexCastOp: lambda value, t: scalar_of(_signed(value), t),
    arith.ExtSIOp: lambda value, t: scalar_of(_signed(value), t),
    arith.ExtUIOp: lambda value, t: scalar_of(_unsigned(value), t),
    arith.TruncIOp: lambda value, t: scalar_of(_signed(value), t),
    arith.SIToFPOp: lambda value, t: convert(np.int64(_signed(value)), dtype_of(t)),
    arith.UIToFPOp: lambda value, t: convert(np.uint64(_unsigned(value)), dtype_of(t)),
    arith.FPToSIOp: lambda value, t: convert(value, dtype_of(t)),
    arith.ExtFOp: lambda value, t: convert(value, dtype_of(t)),
    arith.TruncFOp: lambda value, t: convert(value, dtype_of(t)),
}
"""The operations from a scalar to one of another type."""


def _is_ordered(lhs: Any, rhs: Any) -> bool:
    return lhs == lhs and rhs == rhs


_FLOAT_PREDICATES: dict[str, Callable[[Any, Any], bool]] = {
    "false": lambda lhs, rhs: False,
    "oeq": operator.eq,
    "ogt": operator.gt,
    "oge": operator.ge,
    "olt": operator.lt,
    "ole": operator.le,
    "one": lambda lhs, rhs: lhs < rhs or lhs > rhs,
    "ord": _is_ordered,
    "ueq": lambda lhs, rhs: not (lhs < rhs or lhs > rhs),
    "ugt": lambda lhs, rhs: not lhs <= rhs,
    "uge": lambda lhs, rhs: not lhs < rhs,
    "ult": lambda lhs, rhs: not lhs >= rhs,
    "ule": lambda lhs, rhs: not lhs > rhs,
    "une": operator.ne,
    "uno": lambda lhs, rhs: not _is_ordered(lhs, rhs),
    "true": lambda lhs, rhs: True,
}

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def _float_predicate(op: arith.CmpfOp) -> Callable[[Any, Any], bool]:
    name = arith.CMPF_COMPARISON_OPERATIONS[op.predicate.value.data]
    return _FLOAT_PREDICATES[name]


def _integer_predicate(op: arith.CmpiOp) -> Callable[[Any, Any], bool]:
    name = arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data]
    read = _unsigned if name[0] == "u" else _signed
    compare = _RELATIONS[name[-2:]]
    return lambda lhs, rhs: compare(read(lhs), read(rhs))


def _constant(op: arith.ConstantOp) -> Any:
    match op.value:
        case IntegerAttr() | FloatAttr() as attribute:
            return scalar_of(attribute.value.data, op.result.type)
        case DenseIntOrFPElementsAttr() as attribute:
            return array_of(attribute)
        case attribute:
            raise MoaError(f"arith.constant: cannot interpret {attribute}")


def _of_operands(op_type: type[Operation], compute: Callable[..., Any]) -> Any:
    """The implementation of an operation by a function of its operands."""

    def run(
        self: Any, interpreter: Interpreter, op: Operation, args: PythonValues
    ) -> PythonValues:
        return (compute(*args),)

    return impl(op_type)(run)


def _of_type(op_type: type[Operation], compute: Callable[[Any, Attribute], Any]) -> Any:
    """The implementation of an operation by a function of operand and result type."""

    def run(
        self: Any, interpreter: Interpreter, op: Operation, args: PythonValues
    ) -> PythonValues:
        return (compute(args[0], op.results[0].type),)

    return impl(op_type)(run)


class ScalarCode(InterpreterFunctions):
    """The operations of the dialects arith and math that scalar code consists of."""

    @impl(arith.ConstantOp)
    def _constant(
        self, interpreter: Interpreter, op: arith.ConstantOp, args: PythonValues
    ) -> PythonValues:
        return (once(interpreter, op, lambda: _constant(op)),)

    @impl(arith.CmpfOp)
    def _cmpf(
        self, interpreter: Interpreter, op: arith.CmpfOp, args: PythonValues
    ) -> PythonValues:
        holds = once(interpreter, op, lambda: _float_predicate(op))
        return (np.bool_(holds(*args)),)

    @impl(arith.CmpiOp)
    def _cmpi(
        self, interpreter: Interpreter, op: arith.CmpiOp, args: PythonValues
    ) -> PythonValues:
        holds = once(interpreter, op, lambda: _integer_predicate(op))
        return (np.bool_(holds(*args)),)


for _type, _compute in _CODE.items():
    setattr(ScalarCode, _type.name, _of_operands(_type, _compute))
for _type, _name in _TABLE.items():
    _compute = SCALAR_OPERATIONS[_name].compute
    setattr(ScalarCode, _type.name, _of_operands(_type, _compute))
for _type, _convert in _CONVERSIONS.items():
    setattr(ScalarCode, _type.name, _of_type(_type, _convert))
register_impls(ScalarCode)
