"""Operations on tensors that move elements, and scalars made of or into tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    IndexType,
    IntegerAttr,
    TensorType,
    i1,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.ops.normal_form import InBoundsOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.passes.raising.rule import (
    CannotRaise,
    Raising,
    Rule,
    check_element,
    check_tensors,
    is_unwritten,
)
from moa_dialect.passes.raising.scalars import Scalars, element
from moa_dialect.passes.raising.sizes import Size
from moa_dialect.passes.raising.source import integers_of, name_of, property_of
from moa_dialect.passes.raising.structured import read
from moa_dialect.scalar_code import apply_named, constant
from moa_dialect.types import element_of, shape_of

Index = Sequence[SSAValue]


def _static(value: SSAValue) -> int | None:
    """The number that an index is, if the program gives it."""
    if isinstance(value.owner, arith.ConstantOp) and isinstance(
        value.owner.value, IntegerAttr
    ):
        return value.owner.value.value.data
    return None


class Code:
    """Index arithmetic written at one place."""

    def __init__(self, builder: Builder):
        self.builder = builder

    def number(self, value: int) -> SSAValue:
        return self.builder.insert(constant(value, IndexType())).result

    def _emit(self, operation: Callable[..., Operation], *args: SSAValue) -> SSAValue:
        return self.builder.insert(operation(*args)).results[0]

    def add(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return b if _static(a) == 0 else a if _static(b) == 0 else self._add(a, b)

    def _add(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._emit(arith.AddiOp, a, b)

    def sub(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return a if _static(b) == 0 else self._emit(arith.SubiOp, a, b)

    def mul(self, a: SSAValue, b: SSAValue) -> SSAValue:
        if _static(b) == 1:
            return a
        return b if _static(a) == 1 else self._emit(arith.MuliOp, a, b)

    def div(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return a if _static(b) == 1 else self._emit(arith.DivUIOp, a, b)

    def mod(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._emit(arith.RemUIOp, a, b)

    def all_of(self, conditions: Sequence[SSAValue]) -> SSAValue:
        """Whether all conditions hold."""
        if not conditions:
            return self.builder.insert(constant(1, i1)).result
        first, *rest = conditions
        for condition in rest:
            first = self._emit(arith.AndIOp, first, condition)
        return first

    def compare(self, name: str, a: SSAValue, b: SSAValue) -> SSAValue:
        return apply_named(name, (a, b), self.builder)

    def choose(
        self,
        condition: SSAValue,
        type_: Attribute,
        then: Callable[[Builder], SSAValue],
        otherwise: Callable[[Builder], SSAValue],
    ) -> SSAValue:
        """One of two values, the other one not evaluated."""
        regions: list[Region] = []
        for emit in (then, otherwise):
            block = Block()
            inner = Builder(InsertPoint.at_end(block))
            inner.insert(scf.YieldOp(emit(inner)))
            regions.append(Region(block))
        op = scf.IfOp(condition, (type_,), regions[0], regions[1])
        return self.builder.insert(op).results[0]


def _mixed(
    op: Operation, name: str, dynamic: Sequence[SSAValue], r: Raising
) -> list[SSAValue]:
    """A list of numbers of which some are operands, as indices at the top."""
    rest = iter(dynamic)
    return [
        next(rest) if number == DYNAMIC_INDEX else r.index(number)
        for number in integers_of(op, name)
    ]


def _segments(op: Operation) -> list[Sequence[SSAValue]]:
    """The operands of an operation by groups."""
    groups: list[Sequence[SSAValue]] = []
    start = 0
    for size in integers_of(op, "operandSegmentSizes"):
        groups.append(op.operands[start : start + size])
        start += size
    return groups


def _groups(op: Operation) -> list[tuple[int, ...]]:
    """Which axes of the longer shape each axis of the shorter one is."""
    found = property_of(op, "reassociation")
    assert isa(found, ArrayAttr[ArrayAttr[IntegerAttr]])
    return [tuple(axis.value.data for axis in group) for group in found]


def divided(code: Code, index: SSAValue, extents: Sequence[SSAValue]) -> Index:
    """An address taken apart into an index, by rows."""
    entries: list[SSAValue] = []
    for place in range(len(extents)):
        inner = [e for e in extents[place + 1 :] if _number(e) != 1]
        if _number(extents[place]) == 1:
            entries.append(code.number(0))
            continue
        outer = any(_number(e) != 1 for e in extents[:place])
        entry = index
        for extent in reversed(inner):
            entry = code.div(entry, extent)
        entries.append(code.mod(entry, extents[place]) if outer else entry)
    return entries


def joined(code: Code, index: Index, extents: Sequence[SSAValue]) -> SSAValue:
    """The address of an index, by rows."""
    total: SSAValue | None = None
    for entry, extent in zip(index, extents, strict=True):
        if _number(extent) == 1:
            continue
        if total is None:
            total = entry
            continue
        total = code.add(code.mul(total, extent), entry)
    return code.number(0) if total is None else total


def _number(extent: SSAValue) -> int | None:
    """The number of an extent or index, if types give it."""
    static = getattr(extent.owner, "static_value", None)
    return static if static is not None else _static(extent)


class RaiseCollapse(Rule):
    """`tensor.collapse_shape`: an index of joined axes is taken apart."""

    names = ("tensor.collapse_shape",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        (source,) = op.operands
        groups = _groups(op)
        inner = [[r.extent(source, axis) for axis in group] for group in groups]
        extents = [_product(r, group) for group in inner]

        def emit(builder: Builder, index: Index) -> SSAValue:
            code = Code(builder)
            entries: list[SSAValue] = []
            for entry, shape in zip(index, inner, strict=True):
                entries += divided(code, entry, shape)
            if not index:
                entries = [code.number(0) for _ in shape_of(source.type)]
            return read(r, source, entries, builder)

        return [r.moved(source, extents, op.results[0].type, emit)]


def _product(r: Raising, extents: Sequence[SSAValue]) -> SSAValue:
    """The extent of joined axes."""
    rest = [extent for extent in extents if _number(extent) != 1]
    if not rest:
        return r.fixed(1)
    if len(rest) == 1:
        return rest[0]
    numbers = [_number(extent) for extent in rest]
    if None not in numbers:
        return r.fixed(prod(n for n in numbers if n is not None))
    total = rest[0]
    for extent in rest[1:]:
        total = r.builder.insert(arith.MuliOp(total, extent)).result
    return total


class RaiseExpand(Rule):
    """`tensor.expand_shape`: the indices of a split axis are put together."""

    names = ("tensor.expand_shape",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        source, *sizes = op.operands
        type_ = op.results[0].type
        shape = shape_of(type_)
        given = iter(sizes)
        stated = [next(given, None) if n == DYNAMIC_INDEX else None for n in shape]
        extents = [r.fixed(1)] * len(shape)
        groups = _groups(op)
        for axis, group in enumerate(groups):
            found = r.extent(source, axis)
            others = [k for k in group if shape[k] != 1]
            if len(others) == 1:
                extents[others[0]] = found
                continue
            for k in others:
                if shape[k] != DYNAMIC_INDEX:
                    extents[k] = r.fixed(shape[k])
                    continue
                size = stated[k]
                if size is None:
                    raise CannotRaise("a dynamic extent that is not given")
                extents[k] = r.known(size)
            if len(others) > 1 and _number(found) is None:
                total = _product(r, [extents[k] for k in others])
                message = "tensor.expand_shape: the number of elements must stay"
                r.require("eq", total, found, message)

        def emit(builder: Builder, index: Index) -> SSAValue:
            code = Code(builder)
            entries = [
                joined(code, [index[k] for k in group], [extents[k] for k in group])
                for group in groups
            ]
            return read(r, source, entries, builder)

        return [r.moved(source, extents, type_, emit)]


class RaiseReshape(Rule):
    """`tensor.reshape`: axes are joined and split, where both shapes tell which.

    The shapes are taken apart, from the left, into the shortest pieces that have as
    many elements. Where they cannot be, all axes are joined, and split again.
    """

    names = ("tensor.reshape",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        source, type_ = op.operands[0], op.results[0].type
        check_element(element_of(source.type))
        inner = [r.extent(source, axis) for axis in range(len(shape_of(source.type)))]
        given = r.lists.get(op.operands[1])
        stated = shape_of(type_)
        if given is None and DYNAMIC_INDEX in stated:
            raise CannotRaise("a reshape to a shape that is data")
        extents = [
            r.known(given[axis])
            if given is not None and extent == DYNAMIC_INDEX
            else r.fixed(extent)
            for axis, extent in enumerate(stated)
        ]
        pieces = _pieces(r, inner, extents)
        if pieces is None:
            pieces = [(range(len(inner)), range(len(extents)))]
            message = "tensor.reshape: the number of elements must stay"
            r.require("eq", _product(r, extents), _product(r, inner), message)
        # An axis that stays is the one that it was.
        for olds, news in pieces:
            if len(news) == len(olds) == 1:
                extents[news[0]] = inner[olds[0]]

        def emit(builder: Builder, index: Index) -> SSAValue:
            code = Code(builder)
            entries: list[SSAValue] = []
            for olds, news in pieces:
                address = joined(
                    code, [index[k] for k in news], [extents[k] for k in news]
                )
                entries += divided(code, address, [inner[k] for k in olds])
            return read(r, source, entries, builder)

        return [r.moved(source, extents, type_, emit)]


def _pieces(
    r: Raising, olds: Sequence[SSAValue], news: Sequence[SSAValue]
) -> list[tuple[range, range]] | None:
    """Runs of axes with as many elements before as after, None if there are none."""
    found: list[tuple[range, range]] = []
    start = first = 0
    while start < len(olds) or first < len(news):
        piece = _first_piece(r, olds[start:], news[first:])
        if piece is None:
            return None
        old, new = piece
        found.append((range(start, start + old), range(first, first + new)))
        start, first = start + old, first + new
    return found


def _first_piece(
    r: Raising, olds: Sequence[SSAValue], news: Sequence[SSAValue]
) -> tuple[int, int] | None:
    """The fewest axes with which both shapes may begin.

    The last piece has all axes that are left, of extent 1 if the other one has none.
    """
    for total in range(1, len(olds) + len(news) + 1):
        for old in range(max(0, total - len(news)), min(total, len(olds)) + 1):
            new = total - old
            if (old and new) or not (olds and news):
                left, right = (
                    _elements(r, values) for values in (olds[:old], news[:new])
                )
                if left is not None and left == right:
                    return old, new
    return None


def _elements(r: Raising, extents: Sequence[SSAValue]) -> Size | None:
    """How many elements there are, in terms of extents."""
    total = Size.constant(1)
    for extent in extents:
        size = r.sizes.size(extent)
        if size is None:
            return None
        total = total * size
    return total


class RaiseExtractSlice(Rule):
    """`tensor.extract_slice`: the source at offset plus stride times index."""

    names = ("tensor.extract_slice",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        source, *_ = op.operands
        check_element(element_of(source.type))
        _, offsets, sizes, strides = _segments(op)
        starts = _mixed(op, "static_offsets", offsets, r)
        counts = _mixed(op, "static_sizes", sizes, r)
        steps = _mixed(op, "static_strides", strides, r)
        type_ = op.results[0].type
        kept = kept_axes(counts, shape_of(type_))
        extents: list[SSAValue] = []
        for axis in kept:
            extents.append(_slice_extent(r, source, axis, starts, counts, steps))
        checks = [
            _needs_check(source, axis, start, count, step)
            for axis, (start, count, step) in enumerate(
                zip(starts, counts, steps, strict=True)
            )
        ]
        bounds = [r.extent(source, axis) for axis in range(len(starts))]

        def emit(builder: Builder, index: Index) -> SSAValue:
            code = Code(builder)
            entries = list(starts)
            for axis, entry in zip(kept, index, strict=True):
                entries[axis] = code.add(code.mul(entry, steps[axis]), starts[axis])
            for axis, is_checked in enumerate(checks):
                if is_checked:
                    message = f"psi: index entry {axis} out of range of axis {axis}"
                    checked = InBoundsOp(entries[axis], bounds[axis], message)
                    entries[axis] = builder.insert(checked).result
            return read(r, source, entries, builder)

        return [r.moved(source, extents, type_, emit)]


def kept_axes(counts: Sequence[SSAValue], shape: Sequence[int]) -> list[int]:
    """The axes of a slice that its type has: of extents of 1 some may be dropped.

    Raises:
        CannotRaise: if the type does not follow from the slice.
    """
    kept: list[int] = []
    numbers = [_static(count) for count in counts]
    surplus = len(counts) - len(shape)
    for axis, number in enumerate(numbers):
        wanted = shape[len(kept)] if len(kept) < len(shape) else None
        given = DYNAMIC_INDEX if number is None else number
        is_equal = wanted is not None and (
            given == wanted or DYNAMIC_INDEX in (wanted, given)
        )
        if number == 1 and surplus and not (is_equal and wanted == 1):
            surplus -= 1
        elif is_equal:
            kept.append(axis)
        else:
            raise CannotRaise("a slice whose type does not follow from its sizes")
    if len(kept) != len(shape):
        raise CannotRaise("a slice whose type does not follow from its sizes")
    return kept


def _slice_extent(
    r: Raising,
    source: SSAValue,
    axis: int,
    starts: Index,
    counts: Index,
    steps: Index,
) -> SSAValue:
    """The extent of a slice: that of the source, where it is all of the axis."""
    is_whole = _static(starts[axis]) == 0 and _static(steps[axis]) == 1
    number = _static(counts[axis])
    if is_whole and number is not None and number == shape_of(source.type)[axis]:
        return r.extent(source, axis)
    return r.known(counts[axis])


def _needs_check(
    source: SSAValue, axis: int, start: SSAValue, count: SSAValue, step: SSAValue
) -> bool:
    """Whether only running the program can tell that a slice is within its source.

    Raises:
        CannotRaise: if it is known not to be.
    """
    numbers = [_static(value) for value in (start, count, step)]
    extent = shape_of(source.type)[axis]
    if numbers[0] == 0 and numbers[2] == 1 and numbers[1] is None:
        return True
    if None in numbers or extent == DYNAMIC_INDEX:
        return True
    first, number, by = (n for n in numbers if n is not None)
    last = first + (number - 1) * by
    if number and not (0 <= first < extent and 0 <= last < extent):
        raise CannotRaise(f"a slice out of range of axis {axis}")
    return False


class RaiseInsertSlice(Rule):
    """`tensor.insert_slice`: within the slice the source, elsewhere the destination."""

    names = ("tensor.insert_slice",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_element(element_of(op.operands[0].type))
        (source,), (target,), offsets, sizes, strides = _segments(op)
        starts = _mixed(op, "static_offsets", offsets, r)
        counts = _mixed(op, "static_sizes", sizes, r)
        steps = _mixed(op, "static_strides", strides, r)
        kept = kept_axes(counts, shape_of(source.type))
        rank = len(starts)
        extents = [r.extent(target, axis) for axis in range(rank)]
        rooms: dict[int, SSAValue] = {}
        for axis in range(rank):
            if _static(steps[axis]) is None or _static(steps[axis]) == 0:
                raise CannotRaise("a stride that is data, or 0")
            if not _needs_check(target, axis, starts[axis], counts[axis], steps[axis]):
                continue
            # The last element must be there; a slice of nothing is anywhere.
            step = steps[axis]
            one, end = r.index(1), r.known(counts[axis])
            code = Code(r.builder)
            if r.sizes.root(starts[axis]) is None:
                # What data says is checked where it is used.
                last = code.mul(code.sub(end, one), step)
                rooms[axis] = code.sub(extents[axis], last)
                continue
            last = code.mul(code.sub(end, one), step)
            after = code.add(code.add(r.known(starts[axis]), last), one)
            message = f"tensor.insert_slice: the slice must lie within axis {axis}"
            r.require("le", after, extents[axis], message)
        for place, axis in enumerate(kept):
            message = "tensor.insert_slice: the source must be as large as the slice"
            r.require("eq", r.extent(source, place), r.known(counts[axis]), message)

        def emit(builder: Builder, index: Index) -> SSAValue:
            code, conditions = Code(builder), list[SSAValue]()
            entries: dict[int, SSAValue] = {}
            places = list(starts)
            for axis in range(rank):
                if axis in rooms:
                    message = f"tensor.insert_slice: the slice leaves axis {axis}"
                    checked = InBoundsOp(starts[axis], rooms[axis], message)
                    places[axis] = builder.insert(checked).result
                entry = code.sub(index[axis], places[axis])
                if not _covers(target, axis, starts[axis], counts[axis], steps[axis]):
                    conditions += _inside(
                        code, index[axis], entry, places, counts, steps, axis
                    )
                entries[axis] = (
                    entry if _static(steps[axis]) == 1 else code.div(entry, steps[axis])
                )

            def inside(inner: Builder) -> SSAValue:
                return read(r, source, [entries[axis] for axis in kept], inner)

            def outside(inner: Builder) -> SSAValue:
                if is_unwritten(target):
                    # Any number would do: another slice has the element, or nobody.
                    type_ = element_of(target.type)
                    return inner.insert(constant(0, type_)).result
                return read(r, target, index, inner)

            if not conditions:
                return inside(builder)
            return code.choose(
                code.all_of(conditions), element_of(target.type), inside, outside
            )

        return [r.comprehension(extents, op.results[0].type, emit)]


def _covers(
    target: SSAValue, axis: int, start: SSAValue, count: SSAValue, step: SSAValue
) -> bool:
    extent = shape_of(target.type)[axis]
    return (_static(start), _static(count), _static(step)) == (0, extent, 1)


def _inside(
    code: Code,
    index: SSAValue,
    entry: SSAValue,
    starts: Index,
    counts: Index,
    steps: Index,
    axis: int,
) -> list[SSAValue]:
    """When an index is in a slice."""
    start, count, step = starts[axis], counts[axis], steps[axis]
    found: list[SSAValue] = []
    if _static(start) != 0:
        found.append(code.compare("ge", index, start))
    end = code.mul(count, step)
    found.append(code.compare("lt", entry, end))
    if _static(step) != 1:
        zero = code.number(0)
        natural = apply_named("max", (entry, zero), code.builder)
        found.append(code.compare("eq", code.mod(natural, step), zero))
    return found


class RaisePad(Rule):
    """`tensor.pad`: the source within, what the body yields around it.

    Padding by less than 0 leaves elements of the source out.
    """

    names = ("tensor.pad",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_element(element_of(op.operands[0].type))
        (source,), low, high = _segments(op)
        before = _mixed(op, "static_low", low, r)
        after = _mixed(op, "static_high", high, r)
        shape = shape_of(source.type)
        inner = [r.extent(source, axis) for axis in range(len(shape))]
        extents: list[SSAValue] = []
        for extent, left, right in zip(inner, before, after, strict=True):
            numbers = [_number(extent), _static(left), _static(right)]
            if numbers[1:] == [0, 0]:
                extents.append(extent)
            elif None not in numbers:
                extents.append(r.fixed(sum(n for n in numbers if n is not None)))
            else:
                code = Code(r.builder)
                left, right = (
                    r.known(count) if _static(count) is None else count
                    for count in (left, right)
                )
                extents.append(code.add(code.add(left, extent), right))
        for count in (*before, *after):
            if _static(count) is None:
                message = "tensor.pad: padding must not be less than 0"
                r.require("ge", r.known(count), r.fixed(0), message)
        body = op.regions[0].block
        last = body.last_op
        assert last is not None
        value = last.operands[0]

        def emit(builder: Builder, index: Index) -> SSAValue:
            code, conditions = Code(builder), list[SSAValue]()
            entries: list[SSAValue] = []
            for axis, (entry, left, right) in enumerate(
                zip(index, before, after, strict=True)
            ):
                place = code.sub(entry, left)
                entries.append(place)
                if _static(left) != 0:
                    conditions.append(code.compare("ge", entry, left))
                if _static(right) != 0:
                    conditions.append(code.compare("lt", place, inner[axis]))

            def padding(inside: Builder) -> SSAValue:
                given: dict[SSAValue, SSAValue] = dict(
                    zip(body.args, index, strict=True)
                )
                return Scalars(inside, given, ()).value(value, body)

            def kept(inside: Builder) -> SSAValue:
                return read(r, source, entries, inside)

            if not conditions:
                return kept(builder)
            return code.choose(
                code.all_of(conditions), element_of(source.type), kept, padding
            )

        return [r.comprehension(extents, op.results[0].type, emit)]


class RaiseConcat(Rule):
    """`tensor.concat`: the first operand up to its extent, then the next."""

    names = ("tensor.concat",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        dimension = property_of(op, "dim")
        assert isinstance(dimension, IntegerAttr)
        along = dimension.value.data
        arrays = list(op.operands)
        type_ = op.results[0].type
        extents: list[SSAValue] = []
        for axis in range(len(shape_of(type_))):
            first = r.extent(arrays[0], axis)
            if axis != along:
                for other in arrays[1:]:
                    message = f"tensor.concat: operands must agree on axis {axis}"
                    r.require("eq", r.extent(other, axis), first, message)
                extents.append(first)
                continue
            parts = [r.extent(array, axis) for array in arrays]
            numbers = [_number(part) for part in parts]
            if None not in numbers:
                extents.append(r.fixed(sum(n for n in numbers if n is not None)))
                continue
            code, total = Code(r.builder), parts[0]
            for part in parts[1:]:
                total = code.add(total, part)
            extents.append(total)
        parts = [r.extent(array, along) for array in arrays]

        def element(builder: Builder, index: list[SSAValue], number: int) -> SSAValue:
            array = arrays[number]
            if number == len(arrays) - 1:
                return read(r, array, index, builder)
            code = Code(builder)

            def rest(inner: Builder) -> SSAValue:
                moved = list(index)
                moved[along] = Code(inner).sub(index[along], parts[number])
                return element(inner, moved, number + 1)

            return code.choose(
                code.compare("lt", index[along], parts[number]),
                element_of(type_),
                lambda inner: read(r, array, index, inner),
                rest,
            )

        return [
            r.comprehension(
                extents, type_, lambda builder, index: element(builder, [*index], 0)
            )
        ]


class RaiseGenerate(Rule):
    """`tensor.generate`: the element for an index is what the body yields."""

    names = ("tensor.generate",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        type_ = op.results[0].type
        check_element(element_of(type_))
        sizes = iter(op.operands)
        extents = [
            r.known(next(sizes)) if extent == DYNAMIC_INDEX else r.fixed(extent)
            for extent in shape_of(type_)
        ]
        body = op.regions[0].block
        last = body.last_op
        assert last is not None
        value = last.operands[0]

        def emit(builder: Builder, index: Index) -> SSAValue:
            given: dict[SSAValue, SSAValue] = dict(zip(body.args, index, strict=True))
            return Scalars(builder, given, ()).value(value, body)

        return [r.comprehension(extents, type_, emit)]


class RaiseFromElements(Rule):
    """`tensor.from_elements` and `tensor.splat`: the element at a row-major address."""

    names = ("tensor.from_elements", "tensor.splat")

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        type_ = op.results[0].type
        check_element(element_of(type_))
        is_splat = name_of(op) == "tensor.splat"
        sizes = iter(op.operands[1:])
        extents = [
            r.known(next(sizes)) if extent == DYNAMIC_INDEX else r.fixed(extent)
            for extent in shape_of(type_)
        ]
        values = list(op.operands[:1] if is_splat else op.operands)
        if len(values) > 64:
            raise CannotRaise(f"{len(values)} elements")
        numbers = [r.number(value) for value in values]

        def emit(builder: Builder, index: Index) -> SSAValue:
            code, scalars = Code(builder), Scalars(builder, {}, ())
            written = [scalars.value(value, Block()) for value in values]
            chosen = written[-1]
            if len(written) > 1:
                address = joined(code, index, extents)
                for place in reversed(range(len(written) - 1)):
                    is_there = code.compare("eq", address, code.number(place))
                    chosen = scalars.select(is_there, written[place], chosen)
            return chosen

        result = r.comprehension(extents, type_, emit)
        r.lists[result] = values
        if numbers and numbers[0] is not None and len(set(numbers)) == 1:
            r.splats[result] = numbers[0]
        return [result]


class RaiseExtract(Rule):
    """`tensor.extract` outside of bodies: an element at the top."""

    names = ("tensor.extract",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        array, *entries = op.operands
        check_element(element_of(array.type))
        return [element(r.builder, array, entries)]


class RaiseDim(Rule):
    """`tensor.dim` is the extent of an axis."""

    names = ("tensor.dim",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        array, axis = op.operands
        number = _static(axis)
        if number is None or not isa(array.type, TensorType):
            raise CannotRaise("the extent of an axis that is data")
        if not 0 <= number < len(shape_of(array.type)):
            raise CannotRaise(f"the extent of an axis that is not there, {number}")
        return [r.extent(array, number)]


class RaiseCast(Rule):
    """`tensor.cast` changes what is known of extents: where more is, it is checked."""

    names = ("tensor.cast",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        (source,), type_ = op.operands, op.results[0].type
        extents = [r.extent(source, axis) for axis in range(len(shape_of(type_)))]
        for axis, (extent, stated) in enumerate(
            zip(extents, shape_of(type_), strict=True)
        ):
            if stated != DYNAMIC_INDEX and _number(extent) is None:
                message = f"tensor.cast: the type states the extent of axis {axis}"
                r.require("eq", extent, r.fixed(stated), message)
        return [
            r.moved(
                source,
                extents,
                type_,
                lambda builder, index: read(r, source, index, builder),
            )
        ]


class RaiseElementwise(Rule):
    """Operations of arith and math on tensors, element by element; constants."""

    names = ("elementwise",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        check_tensors(op)
        type_ = op.results[0].type
        if isinstance(op, arith.ConstantOp):
            if not isa(op.value, DenseIntOrFPElementsAttr):
                raise CannotRaise(f"a constant of the form {op.value.name}")
            made = r.builder.insert(ConstantOp(op.value)).result
            _note_splat(op.value, made, r)
            return [made]
        arrays = [value for value in op.operands if isa(value.type, TensorType)]
        extents = [r.extent(arrays[0], axis) for axis in range(len(shape_of(type_)))]
        for other in arrays[1:]:
            for axis, extent in enumerate(extents):
                message = f"{op.name}: operands must agree on axis {axis}"
                r.require("eq", r.extent(other, axis), extent, message)

        def emit(builder: Builder, index: Index) -> SSAValue:
            # The same operation on scalars, as a body would have it.
            operands = [
                read(r, value, index, builder) if isa(value.type, TensorType) else value
                for value in op.operands
            ]
            scalar = type(op).create(
                operands=operands,
                result_types=[element_of(type_)],
                properties=op.properties.copy(),
                attributes={},
            )
            block = Block([scalar])
            given = {operand: operand for operand in operands}
            found = Scalars(builder, given, ()).value(scalar.results[0], block)
            scalar.detach()
            scalar.erase()
            return found

        return [r.comprehension(extents, type_, emit)]


def _note_splat(value: DenseIntOrFPElementsAttr, result: SSAValue, r: Raising) -> None:
    if value.is_splat():
        number = next(iter(value.iter_attrs()), None)
        if number is not None:
            r.splats[result] = number


class RefuseUnknown(Rule):
    """Any other operation of linalg or tensor stays."""

    names = ("unknown",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        if name_of(op).rsplit(".", 1)[-1] in ("sort", "topk", "top_k"):
            raise CannotRaise(
                "a sort is no program of folds over fixed places; it stays with the "
                "caller"
            )
        raise CannotRaise("there is no rule for it")


RULES: tuple[Rule, ...] = (
    RaiseCollapse(),
    RaiseExpand(),
    RaiseReshape(),
    RaiseExtractSlice(),
    RaiseInsertSlice(),
    RaisePad(),
    RaiseConcat(),
    RaiseGenerate(),
    RaiseFromElements(),
    RaiseExtract(),
    RaiseDim(),
    RaiseCast(),
    RaiseElementwise(),
    RefuseUnknown(),
)
"""The rules for operations on tensors."""
