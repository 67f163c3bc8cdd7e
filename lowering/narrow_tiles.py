"""Tiles of narrow floats: extended, or in pairs along the axis of a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xdsl.dialects import memref, vector
from xdsl.dialects.builtin import VectorType, i32
from xdsl.ir import SSAValue

from moa_dialect.lowering.chosen import elements
from moa_dialect.lowering.pairs import packed
from moa_dialect.lowering.shuffles import transposed
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.terms import Term

if TYPE_CHECKING:
    from moa_dialect.lowering.vector_code import VectorCode
    from moa_dialect.lowering.vector_kernel import KernelCode, Range, Staged

    Ranges = Callable[[str], Range]


def fill_extended(kernel: KernelCode, staged: Staged, ranges: Ranges) -> None:
    """Copy what a load without lanes reads into its tile, in a wider type."""
    code = kernel.code
    buffer = code.buffers[staged.name]

    def several(width: int) -> None:
        indices = [code.local[axis] for axis in buffer.axes]
        if width > 1 and not staged.load.computes(AtOp.name):
            value = elements(code, staged.load, along, width)
        else:
            value = _read(code, staged.load, width)
        _store(code, code.extended(value, buffer), buffer.memory, indices)

    *others, along = buffer.axes
    kernel.over(others, ranges, lambda: _along(code, along, ranges(along), several))


def _read(code: VectorCode, load: Term, width: int) -> SSAValue:
    """Some elements that lie next to each other, as a vector; one as it is."""
    with code.scope():
        if width == 1:
            return code.value(load)
        array = load.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = code.place(array)
        type_ = VectorType(load.type, [width])
        return code.emit(vector.LoadOp(memory, [code.address(load, 0)], type_))


def _store(
    code: VectorCode, value: SSAValue, memory: SSAValue, indices: Sequence[SSAValue]
) -> None:
    if isinstance(value.type, VectorType):
        code.builder.insert(vector.StoreOp(value, memory, indices))
    else:
        code.builder.insert(memref.StoreOp.get(value, memory, indices))


def _along(
    code: VectorCode, axis: str, range_: Range, several: Callable[[int], None]
) -> None:
    """A loop over an axis, as many indices at a time as vectors have; then the rest."""
    lower = code.number(0)
    for width in (code.lanes.lanes, 1):
        upper = range_.length
        if width > 1:
            upper = code.mul(code.div(upper, width), width)

        def body(
            index: SSAValue, _: list[SSAValue], width: int = width
        ) -> Sequence[SSAValue]:
            with code.bound(axis, code.add(range_.start, index), index):
                several(width)
            return []

        code.loop(lower, upper, width, [], body)
        lower = upper
        if code.lanes.lanes == 1:
            return


def fill_pairs(kernel: KernelCode, staged: Staged, ranges: Ranges) -> None:
    """Copy what a load reads into its tile, in pairs along an axis."""
    code, load = kernel.code, staged.load
    buffer = code.buffers[staged.name]
    along = staged.in_pairs
    range_ = ranges(along)
    others = [axis for axis in buffer.axes if axis != along]
    whole = code.div(range_.length, 2)
    count = code.lanes.lanes

    def by_two(lower: SSAValue, emit: Callable[[Sequence[int]], None]) -> None:
        """Loops over pairs, whose indices `emit` gets; the last may be one index."""
        end = code.div(code.add(range_.length, 1), 2)
        for first, last, steps in ((lower, whole, (0, 1)), (whole, end, (0,))):

            def body(
                pair: SSAValue, _: list[SSAValue], steps: Sequence[int] = steps
            ) -> Sequence[SSAValue]:
                with code.bound(along, code.mul(pair, 2), pair):
                    emit(steps)
                return []

            code.loop(first, last, 1, [], body)

    def put(steps: Sequence[int], width: int, more: Sequence[SSAValue] = ()) -> None:
        """Store one pair, or one of each of some lanes or row elements."""
        pair = code.local[along]
        values: list[SSAValue] = []
        for k in steps:
            index = code.add(range_.start, code.add(code.index[along], k))
            with code.bound(along, index, pair):
                values.append(_read(code, load, width))
        second = values[1] if len(steps) > 1 else None
        value = packed(code, values[0], second, buffer.has_lanes)
        indices = [code.local[axis] for axis in buffer.axes]
        _store(code, value, buffer.memory, [*indices, *more])

    def one_lane(steps: Sequence[int]) -> None:
        def body(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            with code.lane_index(code.lane_at(lane)):
                put(steps, 1, [lane])
            return []

        code.loop(code.number(0), code.number(code.lanes.width), 1, [], body)

    def lanes(steps: Sequence[int]) -> None:
        for number in range(code.lanes.vectors):
            lane = code.number(number * count)
            with code.lane_index(code.add(code.lanes.base, lane)):
                put(steps, count, [lane])

    def row(steps: Sequence[int]) -> None:
        axis = buffer.axes[-1]
        _along(code, axis, ranges(axis), lambda width: put(steps, width))

    if not buffer.has_lanes:
        last = buffer.axes[-1]
        if last != along and kernel.advances(load, last):
            kernel.over(others[:-1], ranges, lambda: by_two(code.number(0), row))
            return
        kernel.over(
            others, ranges, lambda: by_two(code.number(0), lambda steps: put(steps, 1))
        )
    elif code.lanes.last is None and code.is_contiguous(load):
        kernel.over(others, ranges, lambda: by_two(code.number(0), lanes))
    elif kernel.advances(load, along) and range_.size >= 2 * count:
        kernel.over(
            others, ranges, lambda: by_two(_turned(kernel, staged, range_), one_lane)
        )
    else:
        kernel.over(others, ranges, lambda: by_two(code.number(0), one_lane))


def _turned(kernel: KernelCode, staged: Staged, range_: Range) -> SSAValue:
    """Copy squares of lanes and pairs; returns at which pair the rest begins."""
    code, load = kernel.code, staged.load
    buffer = code.buffers[staged.name]
    along, count = staged.in_pairs, code.lanes.lanes
    array = load.args[0].kind
    assert isinstance(array, SSAValue)
    memory, _ = code.place(array)
    both = VectorType(load.type, [2 * count])
    whole = code.mul(code.div(range_.length, 2 * count), count)

    def square(pair: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
        def group(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            rows: list[SSAValue] = []
            first = code.add(range_.start, code.mul(pair, 2))
            with code.bound(along, first, pair):
                for k in range(count):
                    with code.lane_index(code.lane_at(code.add(lane, k))):
                        address = code.address(load, 0)
                    row = code.emit(vector.LoadOp(memory, [address], both))
                    rows.append(code.emit(vector.BitcastOp(row, code.vector_type(i32))))
                for k, column in enumerate(transposed(code, rows)):
                    indices = [
                        code.add(pair, k) if axis == along else code.local[axis]
                        for axis in buffer.axes
                    ]
                    _store(code, column, buffer.memory, [*indices, lane])
            return []

        code.loop(code.number(0), code.number(code.lanes.width), count, [], group)
        return []

    code.loop(code.number(0), whole, count, [], square)
    return whole
