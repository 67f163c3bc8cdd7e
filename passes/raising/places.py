"""Where an extreme is: a reduction to an index beside one to a maximum or minimum.

The body of such an operation yields `max(e, m)` for one result and `i if e > m else k`
for another, m and k what they have been. The second is the place of the first element
that is the maximum m' of those that count: those above the initial value and before
the first NaN, which no later element is greater than.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, IndexType
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.rewriter import InsertPoint

from moa_dialect.ops.function import as_function
from moa_dialect.ops.normal_form import FoldOp, YieldOp
from moa_dialect.passes.raising.parts import Reduction, Structured, depends
from moa_dialect.scalar_code import apply_named, constant, identity_of

_STRICT = {"ogt": "max", "sgt": "max", "olt": "min", "slt": "min"}
_SWAPPED = {"max": "min", "min": "max"}

Element = Callable[[Builder, SSAValue, SSAValue], SSAValue]
"""Writes a value of the body for an index of the dimension that is reduced."""


@dataclass(frozen=True)
class Place:
    """How a result is the place of an extreme.

    Attributes:
        function: `max` or `min`.
        partner: the result that is the extreme.
        element: the value of the body that it is the extreme of.
        place: the value of the body that says where it is.
        stops: whether nothing counts from the first NaN on.
    """

    function: str
    partner: int
    element: SSAValue
    place: SSAValue
    stops: bool


def find_place(
    s: Structured, number: int, reduction_of: Callable[[int], Reduction]
) -> Place | None:
    """A result as the place of an extreme that is another result, None if it is none.

    Args:
        s: the operation.
        number: the result.
        reduction_of: how another result is a reduction.
    """
    choice, own = s.yielded[number].owner, s.output_argument(number)
    if not isinstance(choice, arith.SelectOp) or choice.rhs is not own:
        return None
    compare = choice.cond.owner
    if isinstance(compare, arith.CmpfOp):
        names = arith.CMPF_COMPARISON_OPERATIONS
    elif isinstance(compare, arith.CmpiOp):
        names = arith.CMPI_COMPARISON_OPERATIONS
    else:
        return None
    function = _STRICT.get(names[compare.predicate.value.data])
    outputs = {s.output_argument(k): k for k in range(len(s.outputs)) if k != number}
    element, most = compare.lhs, compare.rhs
    if element in outputs:
        element, most = most, element
        function = None if function is None else _SWAPPED[function]
    partner = outputs.get(most)  # pyright: ignore[reportArgumentType]
    if function is None or partner is None:
        return None
    reduction = reduction_of(partner)
    if reduction.function != function or len(reduction.parts) != 1:
        return None
    (part,) = reduction.parts
    if part.value is not element or part.is_negated:
        return None
    if s.output_map(partner) != s.output_map(number):
        return None
    if any(depends(choice.lhs, argument, s.body) for argument in s.body.args):
        return None
    stops = isinstance(compare, arith.CmpfOp) and not part.skips_nan
    return Place(function, partner, element, choice.lhs, stops)


def write_place(
    place: Place,
    builder: Builder,
    extent: SSAValue,
    initial: tuple[SSAValue, SSAValue],
    element: Element,
) -> SSAValue:
    """Write the place of an extreme.

    Args:
        place: what it is the place of.
        builder: where it is written.
        extent: the extent of the dimension that is reduced.
        initial: what the extreme and the place are of nothing.
        element: writes values of the body.
    """
    start, nowhere = initial
    type_ = start.type
    comparison = "gt" if place.function == "max" else "lt"

    def fold(
        function: str, result: Attribute, body: Callable[[Builder, SSAValue], SSAValue]
    ) -> SSAValue:
        block = Block(arg_types=[IndexType()])
        block.args[0].name_hint = "p"
        inner = Builder(InsertPoint.at_end(block))
        inner.insert(YieldOp(body(inner, block.args[0])))
        zero = builder.insert(constant(0, IndexType())).result
        return builder.insert(
            FoldOp(function, zero, extent, Region(block), result)
        ).result

    def select(at: Builder, *values: SSAValue) -> SSAValue:
        return at.insert(arith.SelectOp(*values)).result

    end = extent
    if place.stops and isinstance(type_, AnyFloat):

        def first_nan(inner: Builder, p: SSAValue) -> SSAValue:
            x = element(inner, place.element, p)
            return select(inner, apply_named("ne", (x, x), inner), p, extent)

        end = fold("min", IndexType(), first_nan)

    def counted(inner: Builder, p: SSAValue) -> tuple[SSAValue, SSAValue]:
        """An element, and whether it counts."""
        x = element(inner, place.element, p)
        holds = apply_named(comparison, (x, start), inner)
        if end is not extent:
            before = apply_named("lt", (p, end), inner)
            holds = apply_named("and", (holds, before), inner)
        return x, holds

    def extreme(inner: Builder, p: SSAValue) -> SSAValue:
        x, holds = counted(inner, p)
        least = identity_of(as_function(place.function), type_)
        return select(inner, holds, x, inner.insert(constant(least, type_)).result)

    most = fold(place.function, type_, extreme)

    def position(inner: Builder, p: SSAValue) -> SSAValue:
        x, holds = counted(inner, p)
        is_most = apply_named("eq", (x, most), inner)
        both = apply_named("and", (holds, is_most), inner)
        return select(inner, both, p, extent)

    first = fold("min", IndexType(), position)
    found = apply_named("lt", (first, extent), builder)
    return select(builder, found, element(builder, place.place, first), nowhere)
