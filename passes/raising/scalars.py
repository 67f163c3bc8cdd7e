"""Scalar bodies: the same operations, or what stands for those there are none of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log, pi
from typing import ClassVar

from xdsl.builder import Builder
from xdsl.dialects import arith, math, scf
from xdsl.dialects.builtin import (
    AffineMapAttr,
    AnyFloat,
    Float64Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    TensorType,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineBinaryOpKind,
    AffineConstantExpr,
    AffineDimExpr,
    AffineExpr,
    AffineSymExpr,
)
from xdsl.irdl import IRDLOperation
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import Fixed
from moa_dialect.ops.normal_form import ExtentOp, InBoundsOp
from moa_dialect.passes.raising.rule import CannotRaise, at, check_element
from moa_dialect.passes.raising.sizes import Sizes
from moa_dialect.passes.raising.source import name_of, property_of
from moa_dialect.scalar_code import apply_named, constant
from moa_dialect.types import is_element_type, kind_of

_SAME: tuple[type[Operation], ...] = (
    *(arith.AddfOp, arith.SubfOp, arith.MulfOp, arith.DivfOp, arith.NegfOp),
    *(arith.MaximumfOp, arith.MinimumfOp),
    *(arith.AddiOp, arith.SubiOp, arith.MuliOp),
    *(arith.MaxSIOp, arith.MinSIOp, arith.MaxUIOp, arith.MinUIOp),
    *(arith.AndIOp, arith.OrIOp, arith.XOrIOp, arith.SelectOp),
    *(arith.CmpfOp, arith.CmpiOp),
    *(arith.IndexCastOp, arith.ExtSIOp, arith.ExtUIOp, arith.TruncIOp),
    *(arith.SIToFPOp, arith.UIToFPOp, arith.FPToSIOp, arith.ExtFOp, arith.TruncFOp),
    *(math.ExpOp, math.Exp2Op, math.LogOp, math.Log2Op, math.SqrtOp, math.RsqrtOp),
    *(math.TanhOp, math.ErfOp, math.SinOp, math.CosOp, math.FloorOp, math.CeilOp),
    *(math.AbsFOp, math.PowFOp),
)
"""The operations that a body here may have too."""

_DEFAULTS: dict[str, Attribute] = {
    "fastmath": arith.FastMathFlagsAttr("none"),
    "overflowFlags": arith.IntegerOverflowAttr("none"),
}
"""Permissions that are not made use of."""


class Scalars:
    """Writes the values of a body that are asked for, in the form of this dialect.

    Args:
        builder: where they are written.
        given: what stands for the arguments of the body.
        indices: the indices of the iteration space.
        sizes: what numbers are in terms of extents.
        extents: what the indices are below.
    """

    def __init__(
        self,
        builder: Builder,
        given: Mapping[SSAValue, SSAValue],
        indices: Sequence[SSAValue],
        sizes: Sizes | None = None,
        extents: Sequence[SSAValue] = (),
    ):
        self.builder = builder
        self.indices = indices
        self.sizes, self.extents = sizes, extents
        self.known: dict[SSAValue, SSAValue] = dict(given)

    def emit(self, op: Operation) -> SSAValue:
        """Insert an operation; its result."""
        return self.builder.insert(op).results[0]

    def number(self, value: float, type_: Attribute) -> SSAValue:
        """A number of a type."""
        return self.emit(constant(value, type_))

    def named(self, name: str, *arguments: SSAValue) -> SSAValue:
        """A scalar operation of the table."""
        return apply_named(name, arguments, self.builder)

    def select(
        self, condition: SSAValue, then: SSAValue, otherwise: SSAValue
    ) -> SSAValue:
        """A choice between two values."""
        return self.emit(arith.SelectOp(condition, then, otherwise))

    def value(self, value: SSAValue, body: Block) -> SSAValue:
        """What a value is here: of the body, or of what is around it.

        Raises:
            CannotRaise: if an operation has no counterpart.
        """
        if value in self.known:
            return self.known[value]
        owner = value.owner
        check_element(value.type)
        if isinstance(owner, arith.ConstantOp):
            if not isinstance(owner.value, FloatAttr | IntegerAttr):
                raise CannotRaise(f"the constant {owner.value}")
            found = self.emit(arith.ConstantOp(owner.value))
        elif isinstance(owner, Block) or not _is_within(owner, body):
            return value
        else:
            found = self._operation(owner, body)
        self.known[value] = found
        return found

    def _operation(self, op: Operation, body: Block) -> SSAValue:
        name = name_of(op)
        if name == "linalg.index":
            dimension = property_of(op, "dim")
            assert isinstance(dimension, IntegerAttr)
            return self.indices[dimension.value.data]
        if name == "tensor.extract":
            array, *entries = op.operands
            return element(
                self.builder, array, [self.value(entry, body) for entry in entries]
            )
        if name == "tensor.dim":
            return self._extent(op, body)
        if isinstance(op, scf.IfOp):
            return self._choice(op, body)
        if isinstance(op, arith.SelectOp) and (known := self._decided(op)) is not None:
            return self.value(known, body)
        operands = [self.value(operand, body) for operand in op.operands]
        if name == "affine.apply":
            map_ = property_of(op, "map")
            assert isinstance(map_, AffineMapAttr)
            count = map_.data.num_dims
            return affine(
                map_.data.results[0], operands[:count], self.builder, operands[count:]
            )
        if isinstance(op, _SAME):
            _check_width(op)
            assert isinstance(op, IRDLOperation)
            defined = type(op).get_irdl_definition().properties
            properties = {
                key: _DEFAULTS.get(key, value)
                for key, value in op.properties.items()
                if key in defined
            }
            return self.emit(
                type(op).create(
                    operands=operands,
                    result_types=[op.results[0].type],
                    properties=properties,
                )
            )
        composed = _COMPOSED.get(name)
        if composed is None:
            raise CannotRaise(f"{name} in a body")
        return composed(self, op, operands)

    def _extent(self, op: Operation, body: Block) -> SSAValue:
        """The extent of an axis that the program gives."""
        array, axis = op.operands
        number = axis.owner
        if not isinstance(number, arith.ConstantOp) or not isinstance(
            number.value, IntegerAttr
        ):
            raise CannotRaise("the extent of an axis that is data")
        place = number.value.value.data
        if (
            not isa(array.type, TensorType)
            or not 0 <= place < array.type.get_num_dims()
        ):
            raise CannotRaise(f"the extent of an axis that is not there, {place}")
        return self.emit(ExtentOp(array, place))

    def _decided(self, op: arith.SelectOp) -> SSAValue | None:
        """The side of a choice that extents decide.

        So they do of `select(n = 1, 0, i)` for an index i below n, which is i.
        """
        if self.sizes is None or not isinstance(op.cond.owner, arith.CmpiOp):
            return None
        holds = self.sizes.size(op.cond)
        if holds is not None and holds.number is not None:
            return op.lhs if holds.number else op.rhs
        compare = op.cond.owner
        predicate = arith.CMPI_COMPARISON_OPERATIONS[compare.predicate.value.data]
        extent, one, chosen = (
            self.sizes.root(value) for value in (compare.lhs, compare.rhs, op.lhs)
        )
        index = op.rhs.owner
        if (predicate, one, chosen) != ("eq", Fixed(1), Fixed(0)) or extent is None:
            return None
        if isinstance(index, Block) or name_of(index) != "linalg.index":
            return None
        dimension = property_of(index, "dim")
        assert isinstance(dimension, IntegerAttr)
        bounds = self.extents
        place = dimension.value.data
        is_below = place < len(bounds) and self.sizes.root(bounds[place]) == extent
        return op.rhs if is_below else None

    def _choice(self, op: scf.IfOp, body: Block) -> SSAValue:
        if len(op.results) != 1:
            raise CannotRaise("scf.if with several results in a body")
        condition = self.value(op.cond, body)
        regions: list[Region] = []
        for region in op.regions:
            last = region.block.last_op
            assert last is not None
            block = Block()
            inner = Scalars(
                Builder(InsertPoint.at_end(block)),
                self.known,
                self.indices,
                self.sizes,
                self.extents,
            )
            result = inner.value(last.operands[0], body)
            inner.builder.insert(scf.YieldOp(result))
            regions.append(Region(block))
        return self.emit(
            scf.IfOp(condition, (op.results[0].type,), regions[0], regions[1])
        )


def _is_within(op: Operation, body: Block) -> bool:
    block = op.parent
    while block is not None:
        if block is body:
            return True
        block = block.parent_block()
    return False


def _check_width(op: Operation) -> None:
    for value in (*op.operands, *op.results):
        if not is_element_type(value.type):
            raise CannotRaise(f"{op.name} on {value.type}")


def element(builder: Builder, array: SSAValue, entries: Sequence[SSAValue]) -> SSAValue:
    """An element at an index that data decides, checked."""
    checked: list[SSAValue] = []
    for axis, entry in enumerate(entries):
        if not isinstance(entry.type, IndexType):
            raise CannotRaise(f"an index of type {entry.type}")
        extent = builder.insert(ExtentOp(array, axis)).result
        message = f"psi: index entry {axis} out of range of axis {axis}"
        checked.append(builder.insert(InBoundsOp(entry, extent, message)).result)
    return at(builder, array, checked)


# Operations that are several here.

_Composed = Callable[[Scalars, Operation, Sequence[SSAValue]], SSAValue]


def _log1p(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`log(1 + x)`: `log(u) x / (u - 1)` for `u = 1 + x`, which rounds as x does."""
    (x,) = args
    one = s.number(1, x.type)
    u = s.named("add", one, x)
    ratio = s.named("div", x, s.named("sub", u, one))
    # Where u is 1 so is the quotient's limit; where it is infinite, so is the result.
    log = s.named("log", u)
    is_one = s.named("eq", u, one)
    is_infinite = s.named("eq", u, s.number(float("inf"), x.type))
    scaled = s.named("mul", log, ratio)
    return s.select(is_one, x, s.select(is_infinite, log, scaled))


def _expm1(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`exp(x) - 1`: `(u - 1) x / log(u)` for `u = exp(x)`, which rounds as x does."""
    (x,) = args
    one = s.number(1, x.type)
    u = s.named("exp", x)
    less = s.named("sub", u, one)
    quotient = s.named("div", s.named("mul", less, x), s.named("log", u))
    is_one = s.named("eq", u, one)
    # Far from 0 the difference is as good as it gets.
    is_far = s.named("gt", s.named("abs", x), one)
    return s.select(is_one, x, s.select(is_far, less, quotient))


def _is_nan(s: Scalars, x: SSAValue) -> SSAValue:
    return s.named("ne", x, x)


def _number_first(name: str) -> _Composed:
    """The larger or smaller of two, of which NaN gives way."""

    def compose(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
        x, y = args
        either = s.named(name, x, y)
        return s.select(_is_nan(s, x), y, s.select(_is_nan(s, y), x, either))

    return compose


def _quotient(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return _division(s, args)[0]


def _remainder(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return _division(s, args)[1]


def _division(s: Scalars, args: Sequence[SSAValue]) -> tuple[SSAValue, SSAValue]:
    """Quotient and remainder towards zero; 0 and x for a divisor of 0."""
    x, y = args
    zero, one = s.number(0, y.type), s.number(1, y.type)
    minus_one = s.number(-1, y.type)
    is_zero, is_minus = s.named("eq", y, zero), s.named("eq", y, minus_one)
    safe = s.select(s.named("or", is_zero, is_minus), one, y)
    quotient = s.emit(arith.DivSIOp(x, safe))
    remainder = s.emit(arith.RemSIOp(x, safe))
    quotient = s.select(is_minus, s.named("sub", zero, x), quotient)
    return s.select(is_zero, zero, quotient), s.select(is_zero, x, remainder)


def _unsigned(operation: type[Operation]) -> _Composed:
    """A division of numbers without sign, by 1 where it would be by 0."""

    def compose(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
        x, y = args
        is_zero = s.named("eq", y, s.number(0, y.type))
        safe = s.select(is_zero, s.number(1, y.type), y)
        return s.emit(
            operation.create(operands=[x, safe], result_types=[op.results[0].type])
        )

    return compose


def _floor_division(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return s.named("floordiv", *args)


def _ceil_division(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`-(-x floordiv y)`."""
    x, y = args
    return s.named("neg", s.named("floordiv", s.named("neg", x), y))


def _trunc(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    (x,) = args
    is_negative = s.named("lt", x, s.number(0, x.type))
    return s.select(is_negative, s.named("ceil", x), s.named("floor", x))


def _round_even(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """To the nearest integer; of two, the even one."""
    (x,) = args
    low = s.named("floor", x)
    rest = s.named("sub", x, low)
    half = s.number(0.5, x.type)
    pairs = s.named("floor", s.named("mul", low, half))
    is_odd = s.named("ne", s.named("add", pairs, pairs), low)
    is_half = s.named("eq", rest, half)
    up = s.named("or", s.named("gt", rest, half), s.named("and", is_half, is_odd))
    return s.select(up, s.named("add", low, s.number(1, x.type)), low)


def _round(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """To the nearest integer; of two, the one farther from 0."""
    (x,) = args
    size = s.named("abs", x)
    low = s.named("floor", size)
    up = s.named("ge", s.named("sub", size, low), s.number(0.5, x.type))
    rounded = s.select(up, s.named("add", low, s.number(1, x.type)), low)
    is_negative = s.named("lt", x, s.number(0, x.type))
    return s.select(is_negative, s.named("neg", rounded), rounded)


def _tan(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return s.named("div", s.named("sin", *args), s.named("cos", *args))


def _log10(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    (x,) = args
    return s.named("mul", s.named("log", x), s.number(0.4342944819032518, x.type))


def _erfc(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    (x,) = args
    return s.named("sub", s.number(1, x.type), s.named("erf", x))


def _fma(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """A product and a sum, each rounded: sums of products are found by their shape."""
    x, y, z = args
    return s.named("add", s.named("mul", x, y), z)


def _absolute(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return s.named("abs", *args)


def _integer_power(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """A power by a small number that the program gives."""
    x, exponent = args
    owner = exponent.owner
    if not isinstance(owner, arith.ConstantOp) or not isinstance(
        owner.value, IntegerAttr
    ):
        raise CannotRaise(f"{name_of(op)} by an exponent that is data")
    count = owner.value.value.data
    if abs(count) > 16 or (count < 0 and kind_of(x.type) != "float"):
        raise CannotRaise(f"{name_of(op)} by {count}")
    result = s.number(1, x.type)
    if count:
        result = x
        for _ in range(abs(count) - 1):
            result = s.named("mul", result, x)
    return s.named("div", s.number(1, x.type), result) if count < 0 else result


def _copysign(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """The sign of -0 is that of a number below 0 too: `1 / -0` is."""
    x, y = args
    zero, one = s.number(0, y.type), s.number(1, y.type)
    size = s.named("abs", x)
    is_zero = s.named("eq", y, zero)
    tested = s.select(is_zero, s.named("div", one, y), y)
    return s.select(s.named("lt", tested, zero), s.named("neg", size), size)


def _unsigned_float(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """A number of 32 bits without sign, by way of 64."""
    (x,) = args
    target = op.results[0].type
    if target != i32 or not isinstance(x.type, AnyFloat):
        raise CannotRaise(f"arith.fptoui to {target}")
    return s.emit(arith.TruncIOp(s.emit(arith.FPToSIOp(x, i64)), i32))


def _unsigned_index(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    (x,) = args
    target = op.results[0].type
    if isinstance(x.type, IntegerType) and x.type.width.data < 64:
        x = s.emit(arith.ExtUIOp(x, i64))
    if target == i32:
        x = s.emit(arith.IndexCastOp(x, i64))
        return s.emit(arith.TruncIOp(x, i32))
    return s.emit(arith.IndexCastOp(x, target))


def _shifted(
    s: Scalars,
    op: Operation,
    args: Sequence[SSAValue],
    by: Callable[[SSAValue, int], SSAValue],
    beyond: SSAValue,
) -> SSAValue:
    """A shift as shifts by numbers: by one, or by those that the bits of a count say.

    Args:
        s: where it is written.
        op: the shift.
        args: what is shifted, and the count.
        by: a shift by a number.
        beyond: what there is for a count that no number has so many bits for.
    """
    x, count = args
    width = _width(x)
    owner = count.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        bits = owner.value.value.data
        return by(x, bits) if 0 <= bits < width else beyond
    zero, shifted = s.number(0, x.type), x
    for bit in range((width - 1).bit_length()):
        mask = s.emit(arith.AndIOp(count, s.number(1 << bit, x.type)))
        shifted = s.select(s.named("eq", mask, zero), shifted, by(shifted, 1 << bit))
    is_natural = s.named("ge", count, zero)
    is_within = s.named("lt", count, s.number(width, x.type))
    return s.select(s.named("and", is_natural, is_within), shifted, beyond)


def _shift_left(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    def by(x: SSAValue, bits: int) -> SSAValue:
        power = 1 << bits
        if bits == _width(x) - 1:
            power = -power
        return s.named("mul", x, s.number(power, x.type)) if bits else x

    return _shifted(s, op, args, by, s.number(0, args[0].type))


def _shift_right(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """A quotient by a power of 2, rounded down; the sign for a count beyond."""

    def by(x: SSAValue, bits: int) -> SSAValue:
        if bits == _width(x) - 1:
            is_negative = s.named("lt", x, s.number(0, x.type))
            return s.select(is_negative, s.number(-1, x.type), s.number(0, x.type))
        return s.named("floordiv", x, s.number(1 << bits, x.type)) if bits else x

    return _shifted(s, op, args, by, by(args[0], _width(args[0]) - 1))


def _shift_right_unsigned(
    s: Scalars, op: Operation, args: Sequence[SSAValue]
) -> SSAValue:
    """A quotient by a power of 2, of numbers without sign."""

    def by(x: SSAValue, bits: int) -> SSAValue:
        if not bits:
            return x
        if bits == _width(x) - 1:
            is_negative = s.named("lt", x, s.number(0, x.type))
            return s.select(is_negative, s.number(1, x.type), s.number(0, x.type))
        return s.emit(arith.DivUIOp(x, s.number(1 << bits, x.type)))

    return _shifted(s, op, args, by, s.number(0, args[0].type))


def _width(x: SSAValue) -> int:
    """How many bits an integer has."""
    type_ = x.type
    assert isa(type_, IntegerType)
    return type_.width.data


# Functions that are inverse to others, to some units in the last place.


def _arc_tangent(s: Scalars, x: SSAValue) -> SSAValue:
    """`atan(x)`: of the reciprocal beyond 1; halved twice, then a series.

    The tangent of half an angle is `t / (1 + sqrt(1 + t^2))`: at most tan(pi / 16) is
    left, where 12 terms of `t - t^3/3 + t^5/5 - ...` are all that f64 tells apart.
    """
    one, size = s.number(1, x.type), s.named("abs", x)
    is_large = s.named("gt", size, one)
    t = s.select(is_large, s.named("div", one, size), size)
    for _ in range(2):
        root = s.named("sqrt", s.named("add", one, s.named("mul", t, t)))
        t = s.named("div", t, s.named("add", one, root))
    square = s.named("mul", t, t)
    series = s.number(0, x.type)
    for order in reversed(range(12)):
        coefficient = s.number((-1) ** order / (2 * order + 1), x.type)
        series = s.named("add", s.named("mul", series, square), coefficient)
    angle = s.named("mul", s.named("mul", s.number(4, x.type), t), series)
    right = s.number(pi / 2, x.type)
    angle = s.select(is_large, s.named("sub", right, angle), angle)
    return _with_sign(s, angle, x)


def _float_remainder(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """What division leaves over, with the sign of the dividend, exactly; in f64.

    Multiples of the divisor by ever less powers of 2 are taken away. A quotient by one
    has 28 bits: with the 24 of the divisor a product of f64 is exact.
    """
    x, y = args
    if isinstance(x.type, Float64Type):
        raise CannotRaise(f"{name_of(op)} of f64 in a body")
    wide = Float64Type()
    rest, divisor = (
        s.named("abs", s.emit(arith.ExtFOp(value, wide))) for value in (x, y)
    )
    zero = s.number(0, wide)
    for step in reversed(range(10)):
        multiple = s.named("mul", divisor, s.number(2.0 ** (28 * step), wide))
        quotient = s.named("floor", s.named("div", rest, multiple))
        left = s.named("sub", rest, s.named("mul", quotient, multiple))
        # The quotient may have been rounded up to a whole number.
        again = s.named("add", left, multiple)
        rest = s.select(s.named("lt", left, zero), again, left)
    found = s.emit(arith.TruncFOp(rest, x.type))
    is_negative = s.named("lt", _sign(s, x), s.number(0, x.type))
    found = s.select(is_negative, s.named("neg", found), found)
    infinity = s.number(float("inf"), x.type)
    is_large = s.named("eq", s.named("abs", y), infinity)
    is_finite = s.named("lt", s.named("abs", x), infinity)
    return s.select(s.named("and", is_large, is_finite), x, found)


def _with_sign(s: Scalars, size: SSAValue, x: SSAValue) -> SSAValue:
    """A number of at least 0 with the sign of another one; 0 as the other has it."""
    zero = s.number(0, x.type)
    is_negative = s.named("lt", x, zero)
    signed = s.select(is_negative, s.named("neg", size), size)
    return s.select(s.named("eq", x, zero), x, signed)


def _atan(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    return _arc_tangent(s, args[0])


def _atan2(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """The angle of a point: `atan` of the smaller coordinate over the larger one."""
    y, x = args
    zero, one = s.number(0, x.type), s.number(1, x.type)
    height, width = s.named("abs", y), s.named("abs", x)
    is_steep = s.named("gt", height, width)
    small, large = (
        s.select(is_steep, width, height),
        s.select(is_steep, height, width),
    )
    # Two zeros are 0 apart, and so are two infinities 1.
    ratio = s.named("div", small, large)
    ratio = s.select(s.named("eq", large, zero), zero, ratio)
    infinity = s.number(float("inf"), x.type)
    ratio = s.select(s.named("eq", small, infinity), one, ratio)
    angle = _arc_tangent(s, ratio)
    right, half = s.number(pi / 2, x.type), s.number(pi, x.type)
    angle = s.select(is_steep, s.named("sub", right, angle), angle)
    is_left = s.named("lt", _sign(s, x), zero)
    angle = s.select(is_left, s.named("sub", half, angle), angle)
    is_below = s.named("lt", _sign(s, y), zero)
    angle = s.select(is_below, s.named("neg", angle), angle)
    is_nan = s.named("or", _is_nan(s, x), _is_nan(s, y))
    return s.select(is_nan, s.named("add", x, y), angle)


def _sign(s: Scalars, x: SSAValue) -> SSAValue:
    """A number with the sign of another one, which may be -0: `1 / -0` is below 0."""
    is_zero = s.named("eq", x, s.number(0, x.type))
    return s.select(is_zero, s.named("div", s.number(1, x.type), x), x)


def _asin(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`2 atan(x / (1 + sqrt(1 - x^2)))`."""
    (x,) = args
    one = s.number(1, x.type)
    inside = s.named("mul", s.named("sub", one, x), s.named("add", one, x))
    below = s.named("add", one, s.named("sqrt", inside))
    angle = _arc_tangent(s, s.named("div", x, below))
    return s.named("add", angle, angle)


def _acos(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`2 atan(sqrt((1 - x) / (1 + x)))`."""
    (x,) = args
    one = s.number(1, x.type)
    ratio = s.named("div", s.named("sub", one, x), s.named("add", one, x))
    angle = _arc_tangent(s, s.named("sqrt", ratio))
    return s.named("add", angle, angle)


def _sinh(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`(e + e / (e + 1)) / 2` for `e = expm1(|x|)`."""
    (x,) = args
    one, half, size = s.number(1, x.type), s.number(0.5, x.type), s.named("abs", x)
    e = _expm1(s, op, [size])
    sum_ = s.named("add", e, s.named("div", e, s.named("add", e, one)))
    small = s.named("mul", half, sum_)
    is_large = s.named("gt", size, s.number(40, x.type))
    return _with_sign(s, s.select(is_large, _half_power(s, size), small), x)


def _cosh(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    (x,) = args
    one, half, size = s.number(1, x.type), s.number(0.5, x.type), s.named("abs", x)
    e = s.named("exp", size)
    small = s.named("mul", half, s.named("add", e, s.named("div", one, e)))
    is_large = s.named("gt", size, s.number(40, x.type))
    return s.select(is_large, _half_power(s, size), small)


def _half_power(s: Scalars, x: SSAValue) -> SSAValue:
    """`exp(x) / 2`, also where `exp(x)` is more than the largest number."""
    half = s.number(0.5, x.type)
    root = s.named("exp", s.named("mul", half, x))
    return s.named("mul", s.named("mul", half, root), root)


def _asinh(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`log1p(x + x^2 / (1 + sqrt(1 + x^2)))`, and `log(2 x)` of large numbers."""
    (x,) = args
    one, size = s.number(1, x.type), s.named("abs", x)
    is_large = s.named("gt", size, s.number(1e5, x.type))
    near = s.select(is_large, one, size)
    square = s.named("mul", near, near)
    below = s.named("add", one, s.named("sqrt", s.named("add", one, square)))
    more = s.named("add", near, s.named("div", square, below))
    far = _log_twice(s, size)
    # 1 / (4 x^2) is what the logarithm of large numbers leaves out.
    inverse = s.named("div", s.number(0.5, x.type), size)
    far = s.named("add", far, s.named("mul", inverse, inverse))
    return _with_sign(s, s.select(is_large, far, _log1p(s, op, [more])), x)


def _acosh(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`log1p(t + sqrt(t) sqrt(t + 2))` for `t = x - 1`; of large numbers `log(2 x)`."""
    (x,) = args
    is_large = s.named("gt", x, s.number(1e5, x.type))
    t = s.named("sub", x, s.number(1, x.type))
    more = s.named("add", t, s.number(2, x.type))
    root = s.named("mul", s.named("sqrt", t), s.named("sqrt", more))
    near = _log1p(s, op, [s.named("add", t, root)])
    inverse = s.named("div", s.number(0.5, x.type), x)
    far = s.named("sub", _log_twice(s, x), s.named("mul", inverse, inverse))
    return s.select(is_large, far, near)


def _log_twice(s: Scalars, x: SSAValue) -> SSAValue:
    return s.named("add", s.named("log", x), s.number(log(2), x.type))


def _atanh(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """`log1p(2 x / (1 - x)) / 2`."""
    (x,) = args
    one, size = s.number(1, x.type), s.named("abs", x)
    ratio = s.named("div", s.named("add", size, size), s.named("sub", one, size))
    half = s.named("mul", s.number(0.5, x.type), _log1p(s, op, [ratio]))
    return _with_sign(s, half, x)


def _cube_root(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
    """A power, and a step of Newton's method: `y - (y - x / y^2) / 3`."""
    (x,) = args
    size, third = s.named("abs", x), s.number(1 / 3, x.type)
    y = s.named("exp", s.named("mul", third, s.named("log", size)))
    for _ in range(2):
        quotient = s.named("div", s.named("div", size, y), y)
        error = s.named("mul", third, s.named("sub", y, quotient))
        y = s.named("sub", y, error)
    infinity = s.number(float("inf"), x.type)
    y = s.select(s.named("eq", size, infinity), infinity, y)
    return _with_sign(s, y, x)


def _class_test(name: str) -> _Composed:
    def compose(s: Scalars, op: Operation, args: Sequence[SSAValue]) -> SSAValue:
        (x,) = args
        if name == "nan":
            return _is_nan(s, x)
        infinite = s.named("eq", s.named("abs", x), s.number(float("inf"), x.type))
        if name == "inf":
            return infinite
        neither = s.named("or", infinite, _is_nan(s, x))
        return s.emit(arith.XOrIOp(neither, s.number(1, i1)))

    return compose


_COMPOSED: dict[str, _Composed] = {
    "math.log1p": _log1p,
    "math.expm1": _expm1,
    "math.log10": _log10,
    "math.tan": _tan,
    "math.trunc": _trunc,
    "math.round": _round,
    "math.roundeven": _round_even,
    "math.erfc": _erfc,
    "math.fma": _fma,
    "math.absi": _absolute,
    "math.fpowi": _integer_power,
    "math.ipowi": _integer_power,
    "math.copysign": _copysign,
    "math.isnan": _class_test("nan"),
    "math.isinf": _class_test("inf"),
    "math.isfinite": _class_test("finite"),
    "arith.maxnumf": _number_first("max"),
    "arith.minnumf": _number_first("min"),
    "arith.divsi": _quotient,
    "arith.remsi": _remainder,
    "arith.divui": _unsigned(arith.DivUIOp),
    "arith.remui": _unsigned(arith.RemUIOp),
    "arith.floordivsi": _floor_division,
    "arith.ceildivsi": _ceil_division,
    "arith.fptoui": _unsigned_float,
    "arith.index_castui": _unsigned_index,
    "arith.remf": _float_remainder,
    "arith.shli": _shift_left,
    "arith.shrsi": _shift_right,
    "arith.shrui": _shift_right_unsigned,
    "math.atan": _atan,
    "math.atan2": _atan2,
    "math.asin": _asin,
    "math.acos": _acos,
    "math.sinh": _sinh,
    "math.cosh": _cosh,
    "math.asinh": _asinh,
    "math.acosh": _acosh,
    "math.atanh": _atanh,
    "math.cbrt": _cube_root,
}
"""What stands for operations that a body here has not."""


# Index expressions.


class _Arithmetic:
    """The code of affine expressions."""

    plain: ClassVar[dict[AffineBinaryOpKind, type[Operation]]] = {
        AffineBinaryOpKind.Add: arith.AddiOp,
        AffineBinaryOpKind.Mul: arith.MuliOp,
    }


def affine(
    expression: AffineExpr,
    dimensions: Sequence[SSAValue],
    builder: Builder,
    symbols: Sequence[SSAValue] = (),
) -> SSAValue:
    """The code of an affine expression over indices."""

    def number(value: int) -> SSAValue:
        return builder.insert(constant(value, IndexType())).result

    def visit(expression: AffineExpr) -> SSAValue:
        match expression:
            case AffineDimExpr():
                return dimensions[expression.position]
            case AffineSymExpr():
                if expression.position >= len(symbols):
                    raise CannotRaise("an indexing map with symbols")
                return symbols[expression.position]
            case AffineConstantExpr():
                return number(expression.value)
            case AffineBinaryOpExpr():
                left, right = visit(expression.lhs), visit(expression.rhs)
                return binary(expression, left, right)
            case _:
                raise CannotRaise(f"the expression {expression}")

    def binary(
        expression: AffineBinaryOpExpr, left: SSAValue, right: SSAValue
    ) -> SSAValue:
        plain = _Arithmetic.plain.get(expression.kind)
        if plain is not None:
            return builder.insert(plain(left, right)).results[0]  # pyright: ignore
        divisor = expression.rhs
        if not isinstance(divisor, AffineConstantExpr) or divisor.value <= 0:
            raise CannotRaise(f"the expression {expression}")
        if expression.kind is AffineBinaryOpKind.CeilDiv:
            less = number(divisor.value - 1)
            left = builder.insert(arith.AddiOp(left, less)).result
        is_mod = expression.kind is AffineBinaryOpKind.Mod
        if is_natural(expression.lhs):
            operation = arith.RemUIOp if is_mod else arith.DivUIOp
            return builder.insert(operation(left, right)).results[0]
        name = "mod" if is_mod else "floordiv"
        return apply_named(name, (left, right), builder)

    return visit(expression)


def is_natural(expression: AffineExpr) -> bool:
    """Whether an expression is at least 0 for all indices, as far as signs tell."""
    match expression:
        case AffineDimExpr():
            return True
        case AffineConstantExpr():
            return expression.value >= 0
        case AffineBinaryOpExpr():
            return is_natural(expression.lhs) and is_natural(expression.rhs)
        case _:
            return False
