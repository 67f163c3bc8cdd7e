"""Where an extreme is: a reduction to an index beside one to a maximum or minimum.

The body of such an operation yields `max(e, m)` for one result and `i if e > m else k`
for another, m and k what they have been. The second is the place of the first element
that is the maximum m' of those that count: those above the initial value and before
the first NaN, which no later element is greater than.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, IndexType, IntegerAttr, i1
from xdsl.ir import Attribute, Block, SSAValue

from moa_dialect.ops.function import as_function
from moa_dialect.passes.raising.parts import Reduction, Structured, depends
from moa_dialect.scalar_code import apply_named, constant, fold_below, identity_of

_STRICT = {"ogt": "max", "sgt": "max", "olt": "min", "slt": "min"}
_SWAPPED = {"max": "min", "min": "max"}

Element = Callable[[Builder, SSAValue, SSAValue], SSAValue]
"""Writes a value of the body for an index of the dimension that is reduced."""

Indices = Sequence[SSAValue]

ElementAt = Callable[[Builder, SSAValue, Indices], SSAValue]
"""Writes a value of the body for an index of the iteration space."""

Fold = Callable[
    [Builder, str, Attribute, Callable[[Builder, Indices], SSAValue]], SSAValue
]
"""Writes a fold over all that is reduced, of what is written for such an index."""


@dataclass(frozen=True)
class Pair:
    """Two results that are an extreme and where it is, as StableHLO has it.

    A NaN is more than any number, and of equal elements the one with the least number
    counts.

    Attributes:
        function: `max` or `min`.
        results: the number of the result that is the extreme, and of the other one.
        element: the argument of the body that it is the extreme of.
        number: the argument that says where it is.
    """

    function: str
    results: tuple[int, int]
    element: SSAValue
    number: SSAValue


_X, _M, _NAN = 2.0, 1.0, float("nan")

_CASES = {
    "above": (_X, _M),
    "below": (_M, _X),
    "equal": (_X, _X),
    "NaN": (_NAN, _M),
    "before a NaN": (_M, _NAN),
}
"""How an element and the extreme so far may compare."""


def find_pair(s: Structured) -> Pair | None:
    """The results of an operation as an extreme and its place, None if they are not.

    What the body does is tried for all ways in which its arguments may compare. That
    decides it, for the body has nothing but comparisons and choices.
    """
    if len(s.inputs) != 2 or len(s.outputs) != 2:
        return None
    if s.output_map(0) != s.output_map(1) or s.maps[0] != s.maps[1]:
        return None
    for extreme, place in ((0, 1), (1, 0)):
        element, number = s.argument(extreme), s.argument(place)
        most, own = s.output_argument(extreme), s.output_argument(place)
        if element is None or number is None or most is None or own is None:
            return None
        if isinstance(number.type, AnyFloat) or element.type != most.type:
            continue
        if number.type != own.type:
            continue
        arguments = element, most, number, own
        for function in ("max", "min"):
            if _is_pair(s, function, (extreme, place), arguments):
                return Pair(function, (extreme, place), element, number)
    return None


def _is_pair(
    s: Structured,
    function: str,
    results: tuple[int, int],
    arguments: tuple[SSAValue, ...],
) -> bool:
    is_float = isinstance(arguments[0].type, AnyFloat)
    for name, (x, most) in _CASES.items():
        if "NaN" in name and not is_float:
            continue
        is_taken = name == ("above" if function == "max" else "below") or name == "NaN"
        for number, own in ((1, 2), (2, 1)):
            known = dict(zip(arguments, (x, most, number, own), strict=True))
            try:
                value, place = (_tried(s.yielded[k], known) for k in results)
            except KeyError:
                return False
            takes = is_taken or (name == "equal" and number < own)
            expected = x if is_taken else most
            if place != (number if takes else own):
                return False
            if value != expected and not (value != value and expected != expected):
                return False
    return True


def _tried(value: SSAValue, known: Mapping[SSAValue, float]) -> float:
    """A value of a body for some arguments.

    Raises:
        KeyError: if it is of more than comparisons and choices.
    """
    if value in known:
        return known[value]
    op = value.owner
    if isinstance(op, Block):
        raise KeyError(value)
    if isinstance(op, arith.CmpfOp | arith.CmpiOp):
        is_float = isinstance(op, arith.CmpfOp)
        names = (
            arith.CMPF_COMPARISON_OPERATIONS
            if is_float
            else arith.CMPI_COMPARISON_OPERATIONS
        )
        predicate = names[op.predicate.value.data]
        if not is_float and predicate.startswith("u"):
            raise KeyError(predicate)
        return _compared(predicate, _tried(op.lhs, known), _tried(op.rhs, known))
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
        if value.type == i1:
            return op.value.value.data & 1
        raise KeyError(value)
    if isinstance(op, arith.SelectOp):
        holds = _tried(op.cond, known)
        return _tried(op.lhs if holds else op.rhs, known)
    operands = [_tried(operand, known) for operand in op.operands]
    if isinstance(op, arith.MaximumfOp | arith.MinimumfOp):
        if any(x != x for x in operands):
            return _NAN
        return (max if isinstance(op, arith.MaximumfOp) else min)(operands)
    return _LOGIC[op.name](int(operands[0]), int(operands[1]))


_LOGIC: dict[str, Callable[[int, int], int]] = {
    "arith.andi": lambda x, y: x & y,
    "arith.ori": lambda x, y: x | y,
    "arith.xori": lambda x, y: x ^ y,
    "arith.maxsi": max,
    "arith.minsi": min,
}


def _compared(predicate: str, x: float, y: float) -> bool:
    """Whether a comparison holds, `u...` of floats also if one is NaN."""
    is_unordered = x != x or y != y
    kind = predicate[-2:]
    if predicate in ("ord", "uno"):
        return is_unordered == (predicate == "uno")
    holds = {
        "eq": x == y,
        "ne": x != y,
        "gt": x > y,
        "ge": x >= y,
        "lt": x < y,
        "le": x <= y,
    }[kind]
    if not is_unordered or len(predicate) == 2:
        return holds
    return predicate[0] == "u"


def write_pair(
    pair: Pair,
    result: int,
    builder: Builder,
    fold: Fold,
    element: ElementAt,
    initial: tuple[SSAValue, SSAValue],
) -> SSAValue:
    """Write the extreme, or its place.

    Args:
        pair: what they are.
        result: which of both.
        builder: where it is written.
        fold: writes a fold over what is reduced, of a body for indices.
        element: writes an argument of the body for such indices.
        initial: what the extreme and the place are of nothing.
    """
    start, nowhere = initial
    most = fold(
        builder,
        pair.function,
        start.type,
        lambda inner, p: element(inner, pair.element, p),
    )
    most = apply_named(pair.function, (start, most), builder)
    if result == pair.results[0]:
        return most
    highest = identity_of(as_function("min"), nowhere.type)

    def candidate(at: Builder, x: SSAValue, number: SSAValue) -> SSAValue:
        """The number of an element that is the extreme."""
        is_most = apply_named("eq", (x, most), at)
        if isinstance(x.type, AnyFloat):
            is_nan = apply_named("ne", (x, x), at)
            is_most = apply_named("or", (is_most, is_nan), at)
        none = at.insert(constant(highest, nowhere.type)).result
        return at.insert(arith.SelectOp(is_most, number, none)).result

    first = fold(
        builder,
        "min",
        nowhere.type,
        lambda inner, p: candidate(
            inner, element(inner, pair.element, p), element(inner, pair.number, p)
        ),
    )
    return apply_named("min", (candidate(builder, start, nowhere), first), builder)


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

    def select(at: Builder, *values: SSAValue) -> SSAValue:
        return at.insert(arith.SelectOp(*values)).result

    end = extent
    if place.stops and isinstance(type_, AnyFloat):

        def first_nan(inner: Builder, p: SSAValue) -> SSAValue:
            x = element(inner, place.element, p)
            return select(inner, apply_named("ne", (x, x), inner), p, extent)

        end = fold_below(builder, "min", extent, IndexType(), first_nan)

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

    most = fold_below(builder, place.function, extent, type_, extreme)

    def position(inner: Builder, p: SSAValue) -> SSAValue:
        x, holds = counted(inner, p)
        is_most = apply_named("eq", (x, most), inner)
        both = apply_named("and", (holds, is_most), inner)
        return select(inner, both, p, extent)

    first = fold_below(builder, "min", extent, IndexType(), position)
    found = apply_named("lt", (first, extent), builder)
    return select(builder, found, element(builder, place.place, first), nowhere)
