"""Which part of a chunk changes anything: the indices that take part in some lane.

A mask that is data leaves no bounds of a loop, but what it hides at the ends of a
chunk, or all of it, need not be done. A condition is looked at in three ways, each
where the one before does not tell: at both ends of the chunk; with the chunk's own
indices in the lanes, for what the lanes of the task have at least and at most; and
index by index.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    IndexType,
    IntegerAttr,
    IntegerType,
    VectorType,
    i1,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering.emitter import INDEX
from moa_dialect.lowering.shuffles import reduced
from moa_dialect.lowering.vector_code import Lanes, VectorCode, checks
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.simplify import predicate_of
from moa_dialect.passes.symbolic import is_truth
from moa_dialect.passes.terms import Chosen, Held, Term, walk
from moa_dialect.scalar_code import constant

_FLIPPED = {"sle": "sge", "slt": "sgt", "sge": "sle", "sgt": "slt", "eq": "eq"}

_PREDICATES = {"slt": 2, "sle": 3, "sgt": 4, "sge": 5}

Possible = Callable[[], SSAValue]
"""Gives for indices in the lanes whether a condition may hold in a lane of the task."""


@dataclass
class Visible:
    """Finds the part of a chunk in which a condition holds for an index in some lane.

    Attributes:
        code: the emitter of values.
        axis: the index of the pass.
        condition: the condition, of the index and the lanes.
        granule: parts begin at multiples of it, and have as many indices if they can:
            what runs several indices at a time has no rest then.
        advances: whether the addresses of a load advance by one with an axis.
        possible: gives for indices in the lanes whether the condition may hold for them
            in a lane of the task; None if nothing is known of that.
    """

    code: VectorCode
    axis: str
    condition: Term
    granule: int
    advances: Callable[[Term, str], bool]
    possible: Possible | None = None

    @property
    def is_direct(self) -> bool:
        """Whether arrays are read as they lie, along the index, lane by lane.

        So it is where an array has an element for each index and lane: to put lanes
        next to each other first would take longer than the rest.
        """
        mine = {self.axis, self.code.lanes.axis}
        loads = [t for t in walk(self.condition) if t.computes(AtOp.name)]
        has_both = any(mine <= load.free for load in loads)
        return has_both and self._is_along(self.condition)

    def prepare(self) -> None:
        """Emit what is the same for all chunks."""
        if not self.is_direct:
            self.possible = self._possible(self.condition)

    def range(
        self, first: SSAValue, last: SSAValue, apart: int
    ) -> tuple[SSAValue, SSAValue]:
        """What of a range is left without what takes no part at its ends.

        It begins at a multiple of `apart` in the range.
        """
        code, zero = self.code, self.code.number(0)
        total = code.max(code.sub(last, first), 0)
        step = code.lanes.lanes
        holds = self._group if self.is_direct else self._may_hold
        if not self.is_direct and self.possible is None:
            step, holds = 1, self._holds_at
        outer, code.start = code.start, first

        def until(
            start: SSAValue,
            is_left: Callable[[SSAValue], SSAValue],
            found: Callable[[SSAValue], SSAValue],
            after: Callable[[SSAValue], SSAValue],
        ) -> SSAValue:
            """The first place at which something is found, or none are left."""
            before, body = Block(arg_types=[INDEX]), Block(arg_types=[INDEX])
            with code.scope(before):
                (place,) = before.args
                some = is_left(place)
                with code.scope(block := Block()):
                    one = code.emit(constant(1, i1))
                    is_not = code.make(arith.XOrIOp, (found(place), one), i1)
                    code.builder.insert(scf.YieldOp(is_not))
                other = Block()
                with code.scope(other):
                    code.builder.insert(scf.YieldOp(code.emit(constant(0, i1))))
                goes_on = code.emit(scf.IfOp(some, [i1], Region(block), Region(other)))
                code.builder.insert(scf.ConditionOp(goes_on, place))
            with code.scope(body):
                code.builder.insert(scf.YieldOp(after(body.args[0])))
            loop = scf.WhileOp([start], [INDEX], Region(before), Region(body))
            return code.emit(loop)

        def less(left: SSAValue, right: SSAValue) -> SSAValue:
            return code.emit(arith.CmpiOp(left, right, "slt"))

        def back(place: SSAValue) -> SSAValue:
            return code.max(code.sub(place, step), 0)

        begin = until(
            zero,
            lambda place: less(place, total),
            lambda place: holds(place, total),
            lambda place: code.add(place, step),
        )
        end = until(
            total,
            lambda place: less(begin, place),
            lambda place: holds(back(place), place),
            back,
        )
        code.start = outer
        begin = code.mul(code.div(begin, apart), apart)
        return code.add(first, begin), code.add(first, end)

    def part(self, length: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The first index of the part, within the chunk, and one more than its last.

        They are the same if it has none.
        """
        code, zero = self.code, self.code.number(0)
        both = code.make(arith.AndIOp, self._ends(length), i1)
        with code.scope(block := Block()):
            code.builder.insert(scf.YieldOp(zero, length))
        with code.scope(other := Block()):
            code.builder.insert(scf.YieldOp(*self._searched(length)))
        choice = scf.IfOp(both, [INDEX, INDEX], Region(block), Region(other))
        code.builder.insert(choice)
        return choice.results[0], choice.results[1]

    def _ends(self, length: SSAValue) -> Sequence[SSAValue]:
        """Whether the first and the last index take part.

        Or of as many indices as there are lanes some, in the first or last lane.
        """
        code, zero = self.code, self.code.number(0)
        if not self.is_direct:
            return [self._holds(place) for place in (zero, code.sub(length, 1))]
        ends: list[SSAValue] = []
        outermost = zero, code.number(code.lanes.width - 1)
        for place in (zero, code.max(code.sub(length, code.lanes.lanes), 0)):
            found = [self._of_lane(place, length, offset) for offset in outermost]
            ends.append(self._any(self._either(*found)))
        return ends

    def _searched(self, length: SSAValue) -> Sequence[SSAValue]:
        """The part where not both ends take part."""
        code, first, end = self.code, self.code.number(0), length
        if self.is_direct:
            first, end = self._scan(first, end, code.lanes.lanes, self._group)
        else:
            if self.possible is not None:
                first, end = self._scan(first, end, code.lanes.lanes, self._may_hold)
            if self.possible is None or code.is_vector(self.condition):
                first, end = self._scan(first, end, 1, self._holds_at)
        granule = self.granule
        first = code.mul(code.div(first, granule), granule)
        count = code.add(code.sub(end, first), granule - 1)
        count = code.mul(code.div(count, granule), granule)
        end = code.min(code.add(first, count), length)
        return first, end

    def _scan(
        self,
        lower: SSAValue,
        upper: SSAValue,
        step: int,
        holds: Callable[[SSAValue, SSAValue], SSAValue],
    ) -> tuple[SSAValue, SSAValue]:
        """The first and last group of which an index takes part; 0 and 0 for none."""
        code = self.code

        def one(place: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            first, end = carried
            found = holds(place, upper)
            sooner = code.min(first, place)
            after = code.min(code.add(place, step), upper)
            return [
                code.emit(arith.SelectOp(found, sooner, first)),
                code.emit(arith.SelectOp(found, after, end)),
            ]

        first, end = code.loop(lower, upper, step, [upper, code.number(0)], one)
        return code.min(first, end), end

    def _holds_at(self, place: SSAValue, upper: SSAValue) -> SSAValue:
        return self._holds(place)

    def _holds(self, place: SSAValue) -> SSAValue:
        """Whether the condition holds for an index of the chunk, in any lane."""
        code, total = self.code, None
        numbers = range(code.lanes.vectors if code.is_vector(self.condition) else 1)
        assert code.start is not None
        index = code.add(code.start, place)
        with code.scope(), code.bound(self.axis, index, place):
            for number in numbers:
                value = code.value(self.condition, 0, number)
                total = value if total is None else self._either(total, value)
        assert total is not None
        return self._any(total)

    def _may_hold(self, place: SSAValue, upper: SSAValue) -> SSAValue:
        """Whether the condition may hold for one of the indices from here on."""
        assert self.possible is not None
        with self._along(place, upper):
            return self._any(self._existing(self.possible()))

    def _group(self, place: SSAValue, upper: SSAValue) -> SSAValue:
        """The same, by the elements for each lane of the task."""
        code = self.code

        def one(offset: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            return [self._either(carried[0], self._of_lane(place, upper, offset))]

        zero, width = code.number(0), code.number(code.lanes.width)
        nothing = code.constant(0, i1, True)
        (found,) = code.loop(zero, width, 1, [nothing], one)
        return self._any(found)

    def _of_lane(self, place: SSAValue, upper: SSAValue, offset: SSAValue) -> SSAValue:
        """Whether the condition holds for indices from a place on, in one lane."""
        code, lanes = self.code, self.code.lanes
        index = code.add(lanes.base, offset)
        if lanes.last is not None:
            index = code.min(index, lanes.last)
        with self._along(place, upper), code.bound(lanes.axis, index, offset):
            return self._existing(code.vector(self.condition))

    @contextmanager
    def _along(self, place: SSAValue, upper: SSAValue) -> Generator[None]:
        """Within, indices of the chunk from a place on are in the lanes."""
        code, outer, scopes = self.code, self.code.lanes, self.code.scopes
        assert code.start is not None
        first = code.add(code.start, place)
        last = code.add(code.start, code.sub(upper, 1))
        code.lanes = Lanes(self.axis, first, outer.lanes, 1, last)
        code.scopes = [{}]  # What is known is of other lanes.
        yield
        code.lanes, code.scopes = outer, scopes

    def _existing(self, value: SSAValue) -> SSAValue:
        """Truth values of those lanes that have an index."""
        mask = self.code.lane_mask(0)
        assert mask is not None
        return self.code.make(arith.AndIOp, (value, mask), mask.type)

    def _either(self, left: SSAValue, right: SSAValue) -> SSAValue:
        return self.code.make(arith.OrIOp, (left, right), left.type)

    def _any(self, value: SSAValue) -> SSAValue:
        if not isa(value.type, VectorType):
            return value
        return reduced(self.code, "or", value)

    # With the indices of the chunk in the lanes.

    def _possible(self, condition: Term) -> Possible | None:
        """Whether a condition may hold for an index in any lane; None if all may.

        Of `a = b` with a in the lanes of the task, b is between the least and the
        largest a; of `a < b` it is more than the least one.
        """
        if not self.code.is_vector(condition):
            if not self._is_along(condition):
                return None
            return lambda: self.code.vector(condition)
        if condition.computes("arith.andi", "arith.ori") and is_truth(condition):
            found = [self._possible(arg) for arg in condition.args]
            some = [part for part in found if part is not None]
            if len(some) == 2:
                return lambda: self._joined(condition, some)
            return some[0] if some and condition.computes("arith.andi") else None
        predicate = predicate_of(condition)
        if not condition.computes("arith.cmpi") or predicate not in _FLIPPED:
            return None
        mine, other = condition.args
        if not self.code.is_vector(mine):
            mine, other, predicate = other, mine, _FLIPPED[predicate]
        if self.code.is_vector(other) or self.axis in mine.free:
            return None
        if not self._is_along(other) or not _is_integer(mine.type):
            return None
        least, most = self._least_and_most(mine)
        wanted = {
            "eq": (("sge", least), ("sle", most)),
            "sge": (("sle", most),),
            "sgt": (("slt", most),),
            "sle": (("sge", least),),
            "slt": (("sgt", least),),
        }[predicate]

        def possible() -> SSAValue:
            value = self.code.vector(other)
            found = [self._compared(name, value, bound) for name, bound in wanted]
            if len(found) == 1:
                return found[0]
            return self.code.make(arith.AndIOp, found, found[0].type)

        return possible

    def _joined(self, condition: Term, parts: Sequence[Possible]) -> SSAValue:
        values = [part() for part in parts]
        is_both = condition.computes("arith.andi")
        operation = arith.AndIOp if is_both else arith.OrIOp
        return self.code.make(operation, values, values[0].type)

    def _compared(self, predicate: str, value: SSAValue, bound: SSAValue) -> SSAValue:
        code = self.code
        number = IntegerAttr(_PREDICATES[predicate], i64)
        pair = value, code.broadcast(bound)
        return code.make(
            arith.CmpiOp, pair, code.vector_type(i1), {"predicate": number}
        )

    def _least_and_most(self, term: Term) -> list[SSAValue]:
        """The least and the most that a term is in any lane."""
        code, found = self.code, list[SSAValue]()
        for operation, kind in ((arith.MinSIOp, "minsi"), (arith.MaxSIOp, "maxsi")):
            total = code.vector(term, 0, 0)
            for number in range(1, code.lanes.vectors):
                other = code.vector(term, 0, number)
                total = code.make(operation, (total, other), total.type)
            found.append(reduced(code, kind, total))
        return found

    def _is_along(self, term: Term) -> bool:
        """Whether a term can be evaluated with indices of the pass in the lanes."""
        if checks(term):
            return False
        for inner in walk(term):
            if isinstance(inner.kind, Held | Chosen):
                return False
            is_load = inner.computes(AtOp.name) and self.axis in inner.free
            if is_load and not self.advances(inner, self.axis):
                return False
        return True


def _is_integer(type_: Attribute) -> bool:
    return isinstance(type_, IndexType | IntegerType)
