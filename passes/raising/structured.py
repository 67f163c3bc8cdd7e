"""Operations of linalg with a body: elementwise ones, reductions and both in one.

An operation over the iteration space d gives, for each output axis, the element

    init[o] f (f fold over the other dimensions of e(ins at their maps))

where the body yields `f(out, e)`. Named operations have a body and maps like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    FloatAttr,
    IntegerType,
    StringAttr,
    TensorType,
    i1,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineConstantExpr,
    AffineDimExpr,
    AffineExpr,
    AffineMap,
)
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import Fixed
from moa_dialect.ops.normal_form import ExtentOp, InBoundsOp
from moa_dialect.passes.raising.parts import Part, Reduction, Structured, depends
from moa_dialect.passes.raising.places import (
    find_pair,
    find_place,
    write_pair,
    write_place,
)
from moa_dialect.passes.raising.rule import (
    CannotRaise,
    Number,
    Raising,
    Rule,
    at,
    is_unwritten,
)
from moa_dialect.passes.raising.scalars import Scalars, affine
from moa_dialect.passes.raising.source import name_of
from moa_dialect.scalar_code import apply_named, constant, fold_below, identity_of
from moa_dialect.types import element_of, shape_of

COMBINERS: dict[str, str] = {
    "arith.addf": "add",
    "arith.addi": "add",
    "arith.mulf": "mul",
    "arith.muli": "mul",
    "arith.maximumf": "max",
    "arith.minimumf": "min",
    "arith.maxsi": "max",
    "arith.minsi": "min",
    "arith.andi": "and",
    "arith.ori": "or",
    "arith.xori": "xor",
}
"""Operations that are associative and commutative, and what folds call them."""

_ORDERS = {
    **{"sgt": "max", "sge": "max", "slt": "min", "sle": "min"},
    **{"ogt": "max", "oge": "max", "olt": "min", "ole": "min"},
}


class RaiseStructured(Rule):
    """Any operation of linalg with a body becomes a comprehension for each result."""

    names = ()

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        s = Structured.read(op)
        used = [bool(list(result.uses)) for result in op.results]
        if not any(used):
            return [None] * len(used)
        s.extents = iteration_extents(s, r)
        results: list[SSAValue | None] = []
        for number, is_used in enumerate(used):
            results.append(self._result(s, number, r) if is_used else None)
        self._note_fill(s, results, r)
        return results

    def _note_fill(
        self, s: Structured, results: Sequence[SSAValue | None], r: Raising
    ) -> None:
        """Remember that an array is one number everywhere."""
        for value, result in zip(s.yielded, results, strict=True):
            if result is None:
                continue
            argument = value if isinstance(value, BlockArgument) else None
            source = value
            if argument is not None and argument.index < len(s.inputs):
                source = s.inputs[argument.index]
            number = r.splats.get(source) or r.number(source)
            if number is not None:
                r.splats[result] = number

    def _result(self, s: Structured, number: int, r: Raising) -> SSAValue:
        map_ = s.output_map(number)
        axes = _output_axes(map_)
        parallel = {axis for axis in axes if axis is not None}
        rest = [d for d in range(s.dimensions) if d not in parallel]
        type_ = s.op.results[number].type
        output = s.outputs[number]
        outer = [r.fixed(1) if axis is None else s.extents[axis] for axis in axes]
        place = None
        pair = find_pair(s) if rest else None
        if len(rest) == 1 and pair is None:
            place = find_place(s, number, lambda other: find_reduction(s, other))
        is_plain = place is None and pair is None
        reduction = find_reduction(s, number) if rest and is_plain else None

        def emit(builder: Builder, indices: Sequence[SSAValue]) -> SSAValue:
            bound: list[SSAValue | None] = [None] * s.dimensions
            for axis, index in zip(axes, indices, strict=True):
                if axis is not None:
                    bound[axis] = index
            if place is not None:
                (dimension,) = rest
                initial = (
                    _initial(s.outputs[place.partner], indices, builder, r),
                    _initial(output, indices, builder, r),
                )

                def element(at: Builder, value: SSAValue, p: SSAValue) -> SSAValue:
                    values = [p if index is None else index for index in bound]
                    return _Body(s, r, at, values, number).element(value)

                extent = s.extents[dimension]
                return write_place(place, builder, extent, initial, element)
            if pair is not None:
                first, second = (
                    _initial(s.outputs[result], indices, builder, r)
                    for result in pair.results
                )

                def fold(
                    at: Builder,
                    function: str,
                    kind: Attribute,
                    body: Callable[[Builder, Sequence[SSAValue]], SSAValue],
                ) -> SSAValue:
                    return _nested(s, at, bound, rest, function, kind, body)

                def part(
                    at: Builder, value: SSAValue, entries: Sequence[SSAValue]
                ) -> SSAValue:
                    return _Body(s, r, at, entries, number).element(value)

                return write_pair(pair, number, builder, fold, part, (first, second))
            if reduction is None:
                values = [index for index in bound if index is not None]
                return _Body(s, r, builder, values, number).element(s.yielded[number])
            if reduction.function is None:
                return _initial(output, indices, builder, r)
            folded = _folds(s, r, builder, bound, rest, number, reduction)
            return _started(reduction, output, indices, folded, builder, r)

        return r.comprehension(outer, type_, emit)


def _output_axes(map_: AffineMap) -> list[int | None]:
    """The dimension of each axis of a result; None for one that is indexed by 0.

    Raises:
        CannotRaise: for any other map.
    """
    axes: list[int | None] = []
    for expression in map_.results:
        match expression:
            case AffineDimExpr() if expression.position not in axes:
                axes.append(expression.position)
            case AffineConstantExpr() if expression.value == 0:
                axes.append(None)
            case _:
                raise CannotRaise(f"a result with the map {map_}")
    return axes


# The iteration space.


def iteration_extents(s: Structured, r: Raising) -> list[SSAValue]:
    """The extent of each dimension, and what must hold of the operands' extents.

    Raises:
        CannotRaise: if the extent of a dimension is no operand's.
    """
    places: list[list[tuple[SSAValue, int]]] = [[] for _ in range(s.dimensions)]
    operands = [*s.inputs, *s.outputs]
    for operand, map_ in zip(operands, s.maps, strict=True):
        for axis, expression in enumerate(map_.results):
            if isinstance(expression, AffineDimExpr):
                places[expression.position].append((operand, axis))
    extents: list[SSAValue] = []
    for dimension, found in enumerate(places):
        if not found:
            raise CannotRaise(f"the extent of dimension {dimension} is no operand's")
        # An extent of an argument says more than a number.
        roots = [r.root(*place) for place in found]
        best = next(
            (n for n, root in enumerate(roots) if not isinstance(root, Fixed)), 0
        )
        chosen = r.extent(*found[best])
        extents.append(chosen)
        for place, root in zip(found, roots, strict=True):
            if root == roots[best]:
                continue
            statics = [shape_of(v.type)[axis] for v, axis in (place, found[best])]
            if isinstance(root, Fixed) and DYNAMIC_INDEX not in statics:
                continue
            r.require("eq", r.extent(*place), chosen, _message(s, dimension))
    for operand, map_ in zip(s.outputs, s.maps[len(s.inputs) :], strict=True):
        for axis, expression in enumerate(map_.results):
            if not isinstance(expression, AffineDimExpr):
                r.require("eq", r.extent(operand, axis), r.fixed(1), _message(s, None))
    return extents


def _message(s: Structured, dimension: int | None) -> str:
    name = name_of(s.op)
    if dimension is None:
        return f"{name}: an axis of the result that is indexed by 0 must have extent 1"
    return f"{name}: operands must have one extent for dimension {dimension}"


# Elements.


class _Body:
    """The body of an operation at one index of its iteration space."""

    def __init__(
        self,
        s: Structured,
        r: Raising,
        builder: Builder,
        indices: Sequence[SSAValue],
        result: int,
    ):
        self.s, self.r, self.builder, self.indices = s, r, builder, indices
        self.result = result
        self.scalars = Scalars(builder, {}, indices, r.sizes, s.extents)

    def element(self, value: SSAValue) -> SSAValue:
        """A value of the body, operands read where the maps say.

        Raises:
            CannotRaise: if it needs what was never written.
        """
        self._read_operands(value)
        return self.scalars.value(value, self.s.body)

    def _read_operands(self, value: SSAValue) -> None:
        for operand in range(len(self.s.op.operands)):
            argument = self.s.argument(operand)
            if argument is None or argument in self.scalars.known:
                continue
            if depends(value, argument, self.s.body):
                self.scalars.known[argument] = self._read(operand)

    def _read(self, operand: int) -> SSAValue:
        value, map_ = self.s.op.operands[operand], self.s.maps[operand]
        if not isa(value.type, TensorType):
            return self.scalars.value(value, self.s.body)
        entries = [
            self._entry(value, axis, expression)
            for axis, expression in enumerate(map_.results)
        ]
        return read(self.r, value, entries, self.builder)

    def _entry(self, array: SSAValue, axis: int, expression: AffineExpr) -> SSAValue:
        index = affine(expression, self.indices, self.builder)
        if isinstance(expression, AffineDimExpr) or self._is_within(
            array, axis, expression
        ):
            return index
        extent = self.builder.insert(ExtentOp(array, axis)).result
        message = f"psi: index entry {axis} out of range of axis {axis}"
        return self.builder.insert(InBoundsOp(index, extent, message)).result

    def _is_within(self, array: SSAValue, axis: int, expression: AffineExpr) -> bool:
        """Whether an index is within an axis because all extents are known."""
        extent = shape_of(array.type)[axis]
        if extent == DYNAMIC_INDEX:
            return False
        ranges = [_static_range(self.r, value) for value in self.s.extents]
        found = _range_of(expression, ranges)
        return found is not None and found[0] >= 0 and found[1] < extent


_Range = tuple[int, int]


def _static_range(r: Raising, extent: SSAValue) -> _Range | None:
    owner = extent.owner
    static = getattr(owner, "static_value", None)
    return None if static is None else (0, max(0, static - 1))


def _range_of(expression: AffineExpr, ranges: Sequence[_Range | None]) -> _Range | None:
    """The least and the largest value of an expression, as intervals give them."""
    match expression:
        case AffineDimExpr():
            return ranges[expression.position]
        case AffineConstantExpr():
            return expression.value, expression.value
        case AffineBinaryOpExpr():
            left = _range_of(expression.lhs, ranges)
            right = _range_of(expression.rhs, ranges)
            if left is None or right is None:
                return None
            kind = expression.kind.name
            if kind == "Add":
                return left[0] + right[0], left[1] + right[1]
            if kind == "Mul":
                products = [a * b for a in left for b in right]
                return min(products), max(products)
            divisor = right[0]
            if right[0] != right[1] or divisor <= 0:
                return None
            if kind == "FloorDiv":
                return left[0] // divisor, left[1] // divisor
            if kind == "CeilDiv":
                return -(-left[0] // divisor), -(-left[1] // divisor)
            return 0, divisor - 1
        case _:
            return None


def read(
    r: Raising, array: SSAValue, entries: Sequence[SSAValue], builder: Builder
) -> SSAValue:
    """An element of an array, a number where all are.

    Raises:
        CannotRaise: if the array has never been written.
    """
    number = r.splats.get(array)
    if number is not None:
        return builder.insert(arith.ConstantOp(number)).result
    if is_unwritten(array):
        raise CannotRaise("it reads a tensor that has never been written")
    return at(builder, array, entries)


# Reductions.


def find_reduction(s: Structured, number: int) -> Reduction:
    """How a body reduces.

    Raises:
        CannotRaise: if it is no fold of an associative operation.
    """
    own = s.output_argument(number)
    others = [
        argument
        for result in range(len(s.outputs))
        if result != number and (argument := s.output_argument(result)) is not None
    ]
    value, parts, function = s.yielded[number], list[Part](), None
    if own is None or not depends(value, own, s.body):
        raise CannotRaise(
            "a result that does not have every dimension is not a reduction"
        )
    while value is not own:
        step = _step(value, own, s.body)
        if step is None or function not in (None, step[0]):
            raise CannotRaise("a reduction by other than an associative operation")
        function, value, part = step
        parts.append(part)
    for part in parts:
        if any(depends(part.value, argument, s.body) for argument in others):
            raise CannotRaise("a reduction that needs another one as it goes")
    return Reduction(function, parts)


def _step(
    value: SSAValue, own: SSAValue, body: Block
) -> tuple[str, SSAValue, Part] | None:
    """A value as one combined with what the result has been: function, that, part."""
    op = value.owner
    if isinstance(op, Block):
        return None
    if isinstance(op, arith.SelectOp):
        return _by_comparison(op, own, body)
    if isinstance(op, arith.SubfOp | arith.SubiOp):
        left, right = op.operands
        if depends(left, own, body) and not depends(right, own, body):
            return "add", left, Part(right, is_negated=True)
        return None
    function = COMBINERS.get(name_of(op))
    if function is None:
        return None
    if function in ("and", "or", "xor") and value.type != i1:
        return None
    if function in ("add", "mul", "max", "min") and value.type == i1:
        return None
    left, right = op.operands
    on_left, on_right = (depends(side, own, body) for side in (left, right))
    if on_left == on_right:
        return None
    return (function, left, Part(right)) if on_left else (function, right, Part(left))


def _by_comparison(
    op: arith.SelectOp, own: SSAValue, body: Block
) -> tuple[str, SSAValue, Part] | None:
    """`select(x > out, x, out)`: a NaN of x is passed over."""
    compare, then, otherwise = op.cond.owner, op.lhs, op.rhs
    if otherwise is not own or then is own or depends(then, own, body):
        return None
    if isinstance(compare, arith.CmpiOp):
        names = arith.CMPI_COMPARISON_OPERATIONS
    elif isinstance(compare, arith.CmpfOp):
        names = arith.CMPF_COMPARISON_OPERATIONS
    else:
        return None
    function = _ORDERS.get(names[compare.predicate.value.data])
    if function is None:
        return None
    if (compare.lhs, compare.rhs) == (own, then):
        function = "min" if function == "max" else "max"
    elif (compare.lhs, compare.rhs) != (then, own):
        return None
    return function, own, Part(then, skips_nan=isinstance(compare, arith.CmpfOp))


def _folds(
    s: Structured,
    r: Raising,
    builder: Builder,
    bound: list[SSAValue | None],
    rest: Sequence[int],
    number: int,
    reduction: Reduction,
) -> SSAValue:
    """Folds over the dimensions that are left, one in the other."""
    type_ = element_of(s.op.results[number].type)
    assert reduction.function is not None
    if not rest:
        indices = [index for index in bound if index is not None]
        body = _Body(s, r, builder, indices, number)
        total: SSAValue | None = None
        # The part that is combined last is the one found first.
        for part in reversed(reduction.parts):
            value = body.element(part.value)
            if part.is_negated:
                value = apply_named("neg", (value,), builder)
            if part.skips_nan:
                start = identity_of(StringAttr(reduction.function), type_)
                identity = builder.insert(constant(start, type_)).result
                is_nan = apply_named("ne", (value, value), builder)
                value = builder.insert(arith.SelectOp(is_nan, identity, value)).result
            total = (
                value
                if total is None
                else apply_named(reduction.function, (total, value), builder)
            )
        assert total is not None
        return total
    dimension, *inner = rest

    def folded(inside: Builder, index: SSAValue) -> SSAValue:
        now = [*bound[:dimension], index, *bound[dimension + 1 :]]
        return _folds(s, r, inside, now, inner, number, reduction)

    end = s.extents[dimension]
    return fold_below(builder, reduction.function, end, type_, folded)


def _nested(
    s: Structured,
    builder: Builder,
    bound: Sequence[SSAValue | None],
    rest: Sequence[int],
    function: str,
    type_: Attribute,
    body: Callable[[Builder, Sequence[SSAValue]], SSAValue],
) -> SSAValue:
    """Folds over the dimensions that are left, of what is written for an index."""
    if not rest:
        return body(builder, [index for index in bound if index is not None])
    dimension, *inner = rest

    def folded(inside: Builder, index: SSAValue) -> SSAValue:
        now = [*bound[:dimension], index, *bound[dimension + 1 :]]
        return _nested(s, inside, now, inner, function, type_, body)

    return fold_below(builder, function, s.extents[dimension], type_, folded)


def _initial(
    output: SSAValue, indices: Sequence[SSAValue], builder: Builder, r: Raising
) -> SSAValue:
    return read(r, output, indices, builder)


def _started(
    reduction: Reduction,
    output: SSAValue,
    indices: Sequence[SSAValue],
    folded: SSAValue,
    builder: Builder,
    r: Raising,
) -> SSAValue:
    """A fold combined with what the result was before, unless that changes nothing."""
    assert reduction.function is not None
    number = r.splats.get(output)
    if number is not None and is_identity(reduction.function, number):
        return folded
    before = _initial(output, indices, builder, r)
    return apply_named(reduction.function, (before, folded), builder)


def is_identity(function: str, number: Number) -> bool:
    """Whether a number is the identity element of a scalar operation; 0 and -0 are."""
    type_ = number.type
    identity = identity_of(StringAttr(function), type_)
    if isinstance(number, FloatAttr):
        return number.value.data == identity
    if not isinstance(type_, IntegerType):
        return number.value.data == identity
    mask = (1 << type_.width.data) - 1
    return number.value.data & mask == int(identity) & mask
