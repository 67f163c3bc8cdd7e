"""Loads of which a condition says which one is made (see passes/guards.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from xdsl.dialects import arith, scf, vector
from xdsl.dialects.builtin import IntegerAttr, i1
from xdsl.dialects.vector import CombiningKindAttr, CombiningKindFlag
from xdsl.ir import Attribute, Block, Region, SSAValue

from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.strides import coefficient
from moa_dialect.passes.terms import Chosen, Computed, Nowhere, Term
from moa_dialect.types import memory_element

if TYPE_CHECKING:
    from moa_dialect.lowering.vector_code import VectorCode


def loads(term: Term) -> Iterator[Term]:
    """The loads that a term is computed of; a load alone is itself."""
    pending, seen = [term], set[Term]()
    while pending:
        inner = pending.pop()
        if inner in seen:
            continue
        seen.add(inner)
        if inner.computes(AtOp.name):
            yield inner
        else:
            is_chosen = isinstance(inner.kind, Chosen)
            pending += inner.args[1:] if is_chosen else inner.args


def load(code: VectorCode, term: Term, copy: int, number: int) -> SSAValue:
    """The value of a load that is chosen: a vector if it depends on the lanes.

    Where no condition depends on the lane, the place to read from is selected, and read
    once. Else each load is made in the lanes it is chosen for.
    """
    if not code.is_vector(term):
        return code.load(*_place(code, term, copy), term.type)
    mask = code.load_mask(term, copy, number)
    found = _in_lanes(code, term, copy, number, mask, None)
    assert found is not None
    return found


def elements(code: VectorCode, term: Term, axis: str, width: int) -> SSAValue:
    """Elements that lie next to each other along an axis.

    Args:
        code: the emitter, with one index in the lanes, or a term that has none.
        term: what is computed of loads.
        axis: the axis.
        width: how many elements.
    """
    lane = code.scalar_lane
    before = code.lanes, lane, code.scopes, code.mask
    with ExitStack() as stack:
        if lane is not None:
            stack.enter_context(code.bound(code.lanes.axis, lane, lane))
        first = code.index[axis]
        code.lanes = replace(
            code.lanes, axis=axis, base=first, lanes=width, vectors=1, last=None
        )
        code.scalar_lane, code.scopes, code.mask = None, [{}], None
        value = code.vector(term)
    code.lanes, code.scalar_lane, code.scopes, code.mask = before
    return value


def _in_lanes(
    code: VectorCode,
    term: Term,
    copy: int,
    number: int,
    mask: SSAValue | None,
    guard: SSAValue | None,
) -> SSAValue | None:
    """A vector of what is read; None if that is nothing.

    Args:
        code: the emitter.
        term: the load.
        copy: the register copy.
        number: the vector of the lanes.
        mask: the lanes of which there is an index, if not all.
        guard: the lanes for which the load is chosen, if not all.
    """
    every = list(loads(term))
    if not every:
        return None
    are_vectors = {code.is_vector(other) for other in every}
    if len(are_vectors) == 1 and not _conditions_differ(code, term):
        memory, address = _place(code, term, copy)
        if are_vectors == {True}:
            address = code.add(address, number * code.lanes.lanes)
            both = _both(code, mask, guard)
            return code.load_vector(memory, address, term.type, both)
        if guard is not None:
            place = memory, address
            memory, address = _select(code, _any(code, guard), place, term.type)
        return code.broadcast(code.load(memory, address, term.type))
    if mask is None and guard is None and _is_monotone(code, term.args[0]):
        return _where_lanes_agree(code, term, copy, number)
    return _in_masks(code, term, copy, number, mask, guard)


def _in_masks(
    code: VectorCode,
    term: Term,
    copy: int,
    number: int,
    mask: SSAValue | None,
    guard: SSAValue | None,
) -> SSAValue | None:
    """Both sides, each in the lanes for which it is chosen."""
    condition, *sides = term.args
    is_so = code.vector(condition, copy, number)
    is_not = code.make(arith.XOrIOp, (is_so, code.constant(1, i1, True)), is_so.type)
    then, otherwise = (
        _in_lanes(code, side, copy, number, mask, _both(code, guard, chosen))
        for side, chosen in zip(sides, (is_so, is_not), strict=True)
    )
    if then is None or otherwise is None:
        return then or otherwise
    return code.make(arith.SelectOp, (is_so, then, otherwise), then.type)


def _is_monotone(code: VectorCode, condition: Term) -> bool:
    """Whether a condition that the first and the last lane agree on is one of all."""
    if not condition.computes(arith.CmpiOp.name):
        return False
    assert isinstance(condition.kind, Computed)
    predicate = dict(condition.kind.properties)["predicate"]
    assert isinstance(predicate, IntegerAttr)
    is_order = predicate.value.data not in (0, 1)  # Neither eq nor ne.
    sides = [coefficient(arg, code.lanes.axis) for arg in condition.args]
    return is_order and None not in sides


def _where_lanes_agree(
    code: VectorCode, term: Term, copy: int, number: int
) -> SSAValue:
    """A vector of one side if all lanes choose it, as most vectors do; else of both."""
    condition, *sides = term.args
    first = code.add(code.lanes.base, number * code.lanes.lanes)
    ends: list[SSAValue] = []
    for lane in (first, code.add(first, code.lanes.lanes - 1)):
        with code.lane_index(lane):
            ends.append(code.value(condition, copy))
    differ = code.make(arith.XOrIOp, (ends[0], ends[1]), i1)
    type_ = code.vector_type(term.type)

    def choice(
        condition: SSAValue,
        then: Callable[[], SSAValue],
        otherwise: Callable[[], SSAValue],
    ) -> SSAValue:
        regions: list[Region] = []
        for emit in (then, otherwise):
            with code.scope(block := Block()):
                code.builder.insert(scf.YieldOp(emit()))
            regions.append(Region(block))
        return code.emit(scf.IfOp(condition, [type_], regions[0], regions[1]))

    def side(place: int) -> SSAValue:
        found = _in_lanes(code, sides[place], copy, number, None, None)
        return code.constant(0, term.type, True) if found is None else found

    def both() -> SSAValue:
        found = _in_masks(code, term, copy, number, None, None)
        assert found is not None
        return found

    return choice(
        differ, both, lambda: choice(ends[0], lambda: side(0), lambda: side(1))
    )


def _conditions_differ(code: VectorCode, term: Term) -> bool:
    """Whether a condition depends on the lane."""
    if not isinstance(term.kind, Chosen):
        return False
    condition, *sides = term.args
    return code.is_vector(condition) or any(_conditions_differ(code, s) for s in sides)


def _place(code: VectorCode, term: Term, copy: int) -> tuple[SSAValue, SSAValue]:
    """The memory and the address that are chosen; of the first lane if lanes differ."""
    if isinstance(term.kind, Nowhere):
        return code.elsewhere(memory_element(term.type)), code.number(0)
    if not isinstance(term.kind, Chosen):
        array = term.args[0].kind
        assert isinstance(array, SSAValue)
        return code.place(array)[0], code.address(term, copy)
    condition = code.value(term.args[0], copy)
    first, second = (_place(code, side, copy) for side in term.args[1:])
    return (
        code.make(arith.SelectOp, (condition, first[0], second[0]), first[0].type),
        code.make(arith.SelectOp, (condition, first[1], second[1]), first[1].type),
    )


def _select(
    code: VectorCode,
    condition: SSAValue,
    place: tuple[SSAValue, SSAValue],
    type_: Attribute,
) -> tuple[SSAValue, SSAValue]:
    """A place if a condition holds, else one that is read in vain."""
    other = code.elsewhere(memory_element(type_)), code.number(0)
    memory, address = (
        code.make(arith.SelectOp, (condition, *both), both[0].type)
        for both in zip(place, other, strict=True)
    )
    return memory, address


def _both(
    code: VectorCode, first: SSAValue | None, second: SSAValue | None
) -> SSAValue | None:
    """The lanes of both masks; None is all lanes."""
    if first is None or second is None:
        return second if first is None else first
    return code.make(arith.AndIOp, (first, second), first.type)


def _any(code: VectorCode, mask: SSAValue) -> SSAValue:
    """Whether a mask has a lane."""
    kind = CombiningKindAttr(CombiningKindFlag("or"))
    return code.emit(
        vector.ReductionOp.create(
            operands=[mask], result_types=[i1], properties={"kind": kind}
        )
    )
