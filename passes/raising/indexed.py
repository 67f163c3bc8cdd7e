"""Operations of torch-mlir's `tm_tensor`: scans, and updates where data says.

The element of a scan is a fold over the elements before it; an updated element is a
fold over the updates that are for it. Both are done for each element by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from moa_dialect.ops.function import as_function
from moa_dialect.passes.raising.rule import CannotRaise, Raising, Rule, check_tensors
from moa_dialect.passes.raising.shapes import Code, divided, joined
from moa_dialect.passes.raising.source import integers_of, name_of, property_of
from moa_dialect.passes.raising.structured import COMBINERS, read
from moa_dialect.scalar_code import apply_named, constant, fold_below, identity_of
from moa_dialect.types import element_of, shape_of

Index = Sequence[SSAValue]


def _combiner(op: Operation) -> str | None:
    """The scalar operation of a body of two arguments; None if it gives the first.

    Raises:
        CannotRaise: if it is any other.
    """
    block = op.regions[0].block
    last = block.last_op
    assert last is not None
    (value,) = last.operands
    owner = value.owner
    if isinstance(value, BlockArgument):
        if value.index == 0:
            return None
    elif isinstance(owner, Operation) and set(owner.operands) == set(block.args):
        function = COMBINERS.get(name_of(owner))
        if function is not None and function not in ("and", "or", "xor"):
            return function
    raise CannotRaise("a body that is no associative operation")


class RaiseScan(Rule):
    """`tm_tensor.scan`: a fold of the elements up to an index, or before it."""

    names = ("tm_tensor.scan",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        array, _, start = op.operands
        function = _combiner(op)
        dimension, inclusive = (
            property_of(op, name) for name in ("dimension", "inclusive")
        )
        assert isinstance(dimension, IntegerAttr)
        assert isinstance(inclusive, IntegerAttr)
        if function is None:
            raise CannotRaise("a body that is no associative operation")
        if list(op.results[1].uses):
            raise CannotRaise("a scan of which the last value is used")
        along, is_inclusive = dimension.value.data, bool(inclusive.value.data)
        type_ = element_of(array.type)
        extents = [r.extent(array, axis) for axis in range(len(shape_of(array.type)))]

        def emit(builder: Builder, index: Index) -> SSAValue:
            end = index[along]
            if is_inclusive:
                one = builder.insert(constant(1, IndexType())).result
                end = builder.insert(arith.AddiOp(end, one)).result

            def element(inner: Builder, p: SSAValue) -> SSAValue:
                place = list(index)
                place[along] = p
                return read(r, array, place, inner)

            folded = fold_below(builder, function, end, type_, element)
            if is_inclusive:
                return folded
            others = [entry for axis, entry in enumerate(index) if axis != along]
            first = read(r, start, others, builder)
            return apply_named(function, (first, folded), builder)

        return [r.comprehension(extents, op.results[0].type, emit), None]


@dataclass(frozen=True)
class Updates:
    """Updates of parts of an array, each at a place that data gives.

    Attributes:
        array: what is updated.
        counts: the extents of the axes over which there are updates.
        starts: the place of an update on each axis of the array, None for 0; written
            for the indices of the update.
        sizes: how large updates are on each axis, None for 1.
        element: an element of an update, for its indices and the place in the part.
        function: how an update is combined with what is there; None if it replaces it.
    """

    array: SSAValue
    counts: Sequence[SSAValue]
    starts: Callable[[Builder, Index], Sequence[SSAValue | None]]
    sizes: Sequence[SSAValue | None]
    element: Callable[[Builder, Index, Index], SSAValue]
    function: str | None

    def raised(self, r: Raising, type_: Attribute) -> SSAValue:
        """The array after all updates; those that do not lie within it are left out."""
        rank = len(shape_of(self.array.type))
        extents = [r.extent(self.array, axis) for axis in range(rank)]

        def emit(builder: Builder, index: Index) -> SSAValue:
            return _Updated(self, r, extents, index).element(builder)

        return r.comprehension(extents, type_, emit)


class _Updated:
    """One element after some updates."""

    def __init__(
        self, updates: Updates, r: Raising, extents: Sequence[SSAValue], index: Index
    ):
        self.updates, self.r, self.index = updates, r, index
        self.extents = extents
        self.type = element_of(updates.array.type)

    def element(self, builder: Builder) -> SSAValue:
        """The element."""
        updates, function = self.updates, self.updates.function
        if function is not None:
            own = read(self.r, updates.array, self.index, builder)
            folded = self._over(builder, function, self.type, self._part)
            return apply_named(function, (own, folded), builder)
        last = self._over(builder, "max", IndexType(), self._number)
        code = Code(builder)
        zero, one = code.number(0), code.number(1)
        is_there = code.compare("gt", last, zero)
        before = code.sub(apply_named("max", (last, one), builder), one)
        ps = divided(code, before, updates.counts)

        def replaced(inner: Builder) -> SSAValue:
            _, offsets = self._place(inner, ps)
            return updates.element(inner, ps, offsets)

        return code.choose(
            is_there,
            self.type,
            replaced,
            lambda inner: read(self.r, updates.array, self.index, inner),
        )

    def _over(
        self,
        builder: Builder,
        function: str,
        type_: Attribute,
        body: Callable[[Builder, Index], SSAValue],
        ps: Index = (),
    ) -> SSAValue:
        """A fold over all updates."""
        if len(ps) == len(self.updates.counts):
            return body(builder, ps)
        count = self.updates.counts[len(ps)]
        return fold_below(
            builder,
            function,
            count,
            type_,
            lambda inner, p: self._over(inner, function, type_, body, (*ps, p)),
        )

    def _part(self, builder: Builder, ps: Index) -> SSAValue:
        """What an update adds to the element: the identity element, if nothing."""
        holds, offsets = self._place(builder, ps)

        def nothing(inner: Builder) -> SSAValue:
            least = identity_of(as_function(self.updates.function or "add"), self.type)
            return inner.insert(constant(least, self.type)).result

        return Code(builder).choose(
            holds,
            self.type,
            lambda inner: self.updates.element(inner, ps, offsets),
            nothing,
        )

    def _number(self, builder: Builder, ps: Index) -> SSAValue:
        """One more than the number of an update that is for the element, else 0."""
        holds, _ = self._place(builder, ps)
        code = Code(builder)
        number = code.add(joined(code, ps, self.updates.counts), code.number(1))
        choice = arith.SelectOp(holds, number, code.number(0))
        return builder.insert(choice).result

    def _place(self, builder: Builder, ps: Index) -> tuple[SSAValue, Index]:
        """Whether an update is for the element, and which element of it."""
        code, holds = Code(builder), list[SSAValue]()
        offsets: list[SSAValue] = []
        starts = self.updates.starts(builder, ps)
        for axis, (start, size) in enumerate(
            zip(starts, self.updates.sizes, strict=True)
        ):
            entry, extent = self.index[axis], self.extents[axis]
            if start is None:
                # All of an axis, or its first elements.
                offsets.append(entry)
                if size is None or not self.r.is_same(size, extent):
                    end = code.number(1) if size is None else size
                    holds.append(code.compare("lt", entry, end))
                continue
            if size is None:
                offsets.append(code.number(0))
                holds.append(code.compare("eq", entry, start))
                continue
            offset = code.sub(entry, start)
            offsets.append(offset)
            zero, end = code.number(0), code.add(start, size)
            holds += [
                code.compare("ge", start, zero),
                code.compare("le", end, extent),
                code.compare("ge", entry, start),
                code.compare("lt", offset, size),
            ]
        return code.all_of(holds), offsets


class RaiseScatter(Rule):
    """`tm_tensor.scatter`: an element with the updates that are for it.

    An update has a place with a number for each axis of `dimension_map`. It is as large
    as the part of the array that it updates, or has only the axes that data does not
    index. Of updates that replace an element, the last one does.
    """

    names = ("tm_tensor.scatter",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        updates, places, array = op.operands
        axes = integers_of(op, "dimension_map")
        rank = len(shape_of(array.type))
        parts = list(range(rank))
        if len(shape_of(updates.type)) == 1 + rank - len(axes):
            parts = [axis for axis in parts if axis not in axes]
        elif len(shape_of(updates.type)) != 1 + rank:
            raise CannotRaise("updates of other axes than those of the array")
        sizes: list[SSAValue | None] = [None] * rank
        for position, axis in enumerate(parts):
            sizes[axis] = r.extent(updates, 1 + position)

        def starts(builder: Builder, ps: Index) -> Sequence[SSAValue | None]:
            found: list[SSAValue | None] = [None] * rank
            for position, axis in enumerate(axes):
                found[axis] = index_at(r, places, [*ps, position], builder)
            return found

        def element(builder: Builder, ps: Index, offsets: Index) -> SSAValue:
            return read(r, updates, [*ps, *(offsets[k] for k in parts)], builder)

        made = Updates(
            array, [r.extent(updates, 0)], starts, sizes, element, _combiner(op)
        )
        return [made.raised(r, op.results[0].type)]


def index_at(
    r: Raising, array: SSAValue, entries: Sequence[SSAValue | int], builder: Builder
) -> SSAValue:
    """An element of an array of numbers, as an index."""
    values = [
        builder.insert(constant(entry, IndexType())).result
        if isinstance(entry, int)
        else entry
        for entry in entries
    ]
    entry = read(r, array, values, builder)
    if isinstance(entry.type, IndexType):
        return entry
    return builder.insert(arith.IndexCastOp(entry, IndexType())).result


RULES: tuple[Rule, ...] = (RaiseScan(), RaiseScatter())
"""The rules for these operations."""
