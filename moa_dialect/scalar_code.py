"""Scalar operations as upstream code: which arith or math operation computes what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import (
    AnyFloat,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    StringAttr,
    SymbolRefAttr,
    f32,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.ops.function import FunctionAttr
from moa_dialect.ops.normal_form import FoldOp, YieldOp
from moa_dialect.types import identity_value, kind_of

_BINARY: dict[tuple[str, str], Callable[[SSAValue, SSAValue], Operation]] = {
    ("add", "float"): arith.AddfOp,
    ("sub", "float"): arith.SubfOp,
    ("mul", "float"): arith.MulfOp,
    ("div", "float"): arith.DivfOp,
    ("max", "float"): arith.MaximumfOp,
    ("min", "float"): arith.MinimumfOp,
    ("pow", "float"): math.PowFOp,
    ("add", "int"): arith.AddiOp,
    ("sub", "int"): arith.SubiOp,
    ("mul", "int"): arith.MuliOp,
    ("max", "int"): arith.MaxSIOp,
    ("min", "int"): arith.MinSIOp,
    ("and", "bool"): arith.AndIOp,
    ("or", "bool"): arith.OrIOp,
    ("xor", "bool"): arith.XOrIOp,
}
_UNARY: dict[str, Callable[[SSAValue], Operation]] = {
    "neg": arith.NegfOp,
    "abs": math.AbsFOp,
    "exp": math.ExpOp,
    "exp2": math.Exp2Op,
    "log": math.LogOp,
    "log2": math.Log2Op,
    "sqrt": math.SqrtOp,
    "rsqrt": math.RsqrtOp,
    "tanh": math.TanhOp,
    "erf": math.ErfOp,
    "sin": math.SinOp,
    "cos": math.CosOp,
    "floor": math.FloorOp,
    "ceil": math.CeilOp,
}
_FLOAT_PREDICATES = {
    "eq": "oeq",
    "ne": "une",
    "lt": "olt",
    "le": "ole",
    "gt": "ogt",
    "ge": "oge",
}
_INTEGER_PREDICATES = {
    "eq": "eq",
    "ne": "ne",
    "lt": "slt",
    "le": "sle",
    "gt": "sgt",
    "ge": "sge",
}


def fold_below(
    builder: Builder,
    function: FunctionAttr | str,
    end: SSAValue,
    type_: Attribute,
    body: Callable[[Builder, SSAValue], SSAValue],
) -> SSAValue:
    """A fold over the indices from 0 to an end.

    Args:
        builder: where it is written.
        function: what combines the values.
        end: the end, which is no index any more.
        type_: the type of the values.
        body: writes the value of an index.
    """
    block = Block(arg_types=[IndexType()])
    block.args[0].name_hint = "p"
    inner = Builder(InsertPoint.at_end(block))
    inner.insert(YieldOp(body(inner, block.args[0])))
    zero = builder.insert(constant(0, IndexType())).result
    return builder.insert(FoldOp(function, zero, end, Region(block), type_)).result


def constant(value: float, type_: Attribute) -> arith.ConstantOp:
    """A scalar constant of any element type."""
    if isinstance(type_, AnyFloat):
        return arith.ConstantOp(FloatAttr(float(value), type_))
    integer = type_ if isinstance(type_, IndexType) else _integer(type_)
    return arith.ConstantOp(IntegerAttr(int(value), integer, truncate_bits=True))


def identity_of(function: FunctionAttr, type_: Attribute) -> float | int:
    """The identity element of a named function of the table that has one."""
    assert not isinstance(function, SymbolRefAttr)
    identity = SCALAR_OPERATIONS[function.data].identity
    assert identity is not None
    return identity_value(identity, type_)


def fold_start(
    fold: FoldOp,
    type_: Attribute,
    lower: SSAValue,
    upper: SSAValue,
    builder: Builder,
) -> SSAValue:
    """Emit what a fold over `lower <= index < upper` starts from.

    That is the identity element; but a sum of floats that is not empty starts from -0,
    which alone leaves every number as it is, -0 included.
    """
    if fold.domain is not None:
        start = identity_of(fold.function, type_)
        return builder.insert(constant(start, type_)).result
    return accumulator_start(fold.function, type_, lower, upper, builder)


def accumulator_start(
    function: FunctionAttr,
    type_: Attribute,
    lower: SSAValue,
    upper: SSAValue,
    builder: Builder,
) -> SSAValue:
    """Emit what an accumulator for every `lower <= index < upper` starts from."""
    start = identity_of(function, type_)
    identity = builder.insert(constant(start, type_)).result
    if not (function == StringAttr("add") and isinstance(type_, AnyFloat)):
        return identity
    neutral = builder.insert(constant(-0.0, type_)).result
    is_some = builder.insert(arith.CmpiOp(lower, upper, "slt")).result
    return builder.insert(arith.SelectOp(is_some, neutral, identity)).result


def _select(
    condition: SSAValue, then: SSAValue, otherwise: SSAValue, builder: Builder
) -> SSAValue:
    return builder.insert(arith.SelectOp(condition, then, otherwise)).result


def _divided(
    arguments: Sequence[SSAValue], builder: Builder
) -> tuple[SSAValue, SSAValue, SSAValue, SSAValue]:
    """Quotient and remainder towards zero, and what there is to know of them.

    No division is by 0, nor overflows: where the divisor is 0 or -1, it is by 1.

    Returns:
        The quotient, the remainder, whether the divisor is 0, and whether the quotient
        is one more than rounded down.
    """
    dividend, divisor = arguments

    def number(value: int) -> SSAValue:
        return builder.insert(constant(value, divisor.type)).results[0]

    def emit(name: str, *values: SSAValue) -> SSAValue:
        return apply_named(name, values, builder)

    zero, one = number(0), number(1)
    is_zero, is_minus_one = emit("eq", divisor, zero), emit("eq", divisor, number(-1))
    by_one = emit("or", is_zero, is_minus_one)
    safe = _select(by_one, one, divisor, builder)
    quotient = builder.insert(arith.DivSIOp(dividend, safe)).result
    remainder = builder.insert(arith.RemSIOp(dividend, safe)).result
    differ = emit("xor", emit("lt", remainder, zero), emit("lt", divisor, zero))
    is_above = emit("and", emit("ne", remainder, zero), differ)
    negated = emit("sub", zero, dividend)
    quotient = _select(is_minus_one, negated, quotient, builder)
    return quotient, remainder, is_zero, is_above


def _floor_division(arguments: Sequence[SSAValue], builder: Builder) -> SSAValue:
    """`⌊x ÷ y⌋`, 0 for y = 0."""
    quotient, _, is_zero, is_above = _divided(arguments, builder)
    zero, one = (builder.insert(constant(n, quotient.type)).results[0] for n in (0, 1))
    below = apply_named("sub", (quotient, one), builder)
    floor = _select(is_above, below, quotient, builder)
    return _select(is_zero, zero, floor, builder)


def _modulo(arguments: Sequence[SSAValue], builder: Builder) -> SSAValue:
    """`x - y × ⌊x ÷ y⌋`, x for y = 0."""
    _, remainder, is_zero, is_above = _divided(arguments, builder)
    above = apply_named("add", (remainder, arguments[1]), builder)
    modulus = _select(is_above, above, remainder, builder)
    return _select(is_zero, arguments[0], modulus, builder)


def _sign(arguments: Sequence[SSAValue], builder: Builder) -> SSAValue:
    """1, 0 or -1; NaN of NaN."""
    (value,) = arguments
    zero, one, minus_one = (
        builder.insert(constant(n, value.type)).results[0] for n in (0, 1, -1)
    )
    is_positive = apply_named("gt", (value, zero), builder)
    is_negative = apply_named("lt", (value, zero), builder)
    is_zero = apply_named("eq", (value, zero), builder)
    rest = _select(is_zero, zero, value, builder)
    rest = _select(is_negative, minus_one, rest, builder)
    return _select(is_positive, one, rest, builder)


_EMITTED: dict[str, Callable[[Sequence[SSAValue], Builder], SSAValue]] = {
    "floordiv": _floor_division,
    "mod": _modulo,
    "sign": _sign,
}
"""The operations that are several upstream operations."""


def apply_named(name: str, arguments: Sequence[SSAValue], builder: Builder) -> SSAValue:
    """Emit the scalar operation `name` of the table; its arguments have one type."""
    type_ = arguments[0].type
    kind = kind_of(type_)
    if name in _EMITTED:
        return _EMITTED[name](arguments, builder)
    if SCALAR_OPERATIONS[name].is_predicate:
        left, right = arguments
        if kind == "float":
            op = arith.CmpfOp(left, right, _FLOAT_PREDICATES[name])
        else:
            op = arith.CmpiOp(left, right, _INTEGER_PREDICATES[name])
    elif (name, kind) in _BINARY:
        op = _BINARY[name, kind](*arguments)
    elif kind == "float":
        op = _UNARY[name](*arguments)
    elif name == "not":
        op = arith.XOrIOp(arguments[0], builder.insert(constant(1, type_)).result)
    else:
        zero = builder.insert(constant(0, type_)).result
        negated = arith.SubiOp(zero, arguments[0])
        if name == "neg":
            op = negated
        else:
            assert name == "abs", name
            op = arith.MaxSIOp(arguments[0], builder.insert(negated).result)
    return builder.insert(op).results[0]


def inline(function: FuncOp, arguments: Sequence[SSAValue], builder: Builder):
    """Emit a copy of a function's body; returns the values it would return."""
    mapper: dict[SSAValue, SSAValue] = dict(
        zip(function.body.block.args, arguments, strict=True)
    )
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            return [mapper.get(value, value) for value in op.operands]
        builder.insert(op.clone(mapper))
    raise AssertionError("a function body ends with func.return")


def apply_function(
    function: FunctionAttr,
    arguments: Sequence[SSAValue],
    builder: Builder,
    lookup: Callable[[SymbolRefAttr], FuncOp],
) -> SSAValue:
    """Emit a function of the table, or inline the scalar function a symbol names."""
    if isinstance(function, SymbolRefAttr):
        (result,) = inline(lookup(function), arguments, builder)
        return result
    return apply_named(function.data, arguments, builder)


def cast(value: SSAValue, target: Attribute, builder: Builder) -> SSAValue:
    """Emit the conversion of a scalar to another element type (see `moa.cast`)."""
    source = value.type
    if source == target:
        return value

    def emit(op: Operation) -> SSAValue:
        return builder.insert(op).results[0]

    kinds = kind_of(source), kind_of(target)
    if kinds[1] == "bool":
        return apply_named("ne", (value, emit(constant(0, source))), builder)
    if isinstance(source, IndexType):
        return cast(emit(arith.IndexCastOp(value, i64)), target, builder)
    if isinstance(target, IndexType):
        return emit(arith.IndexCastOp(cast(value, i64, builder), target))
    match kinds:
        case ("float", "float"):
            return _cast_float(value, _float(target), builder)
        case ("float", "int"):
            return emit(arith.FPToSIOp(value, _integer(target)))
        case ("int", "float"):
            return emit(arith.SIToFPOp(value, _float(target)))
        case ("bool", "float"):
            return emit(arith.UIToFPOp(value, _float(target)))
        case _:
            integer = _integer(target)
            if integer.width.data < _integer(source).width.data:
                return emit(arith.TruncIOp(value, integer))
            extend = arith.ExtUIOp if kinds[0] == "bool" else arith.ExtSIOp
            return emit(extend(value, integer))


def _cast_float(value: SSAValue, target: AnyFloat, builder: Builder) -> SSAValue:
    source = _float(value.type)
    if target.bitwidth > source.bitwidth:
        return builder.insert(arith.ExtFOp(value, target)).result
    if target.bitwidth == source.bitwidth:
        # f16 and bf16 have no conversion of their own; f32 holds both.
        value = builder.insert(arith.ExtFOp(value, f32)).result
    return builder.insert(arith.TruncFOp(value, target)).result


def _float(type_: Attribute) -> AnyFloat:
    assert isinstance(type_, AnyFloat)
    return type_


def _integer(type_: Attribute) -> IntegerType:
    assert isa(type_, IntegerType)
    return type_
