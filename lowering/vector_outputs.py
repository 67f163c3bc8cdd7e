"""Outputs in vectors: what a kernel stores at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, prod

from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import (
    IndexType,
    VectorType,
    i1,
)
from xdsl.ir import Block, Operation, Region, SSAValue

from moa_dialect.lowering.shuffles import transposed
from moa_dialect.lowering.tiles import (
    Chunk,
    Nest,
    Statement,
    Target,
    arrange,
    live_tiles,
    materialize,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    NotLifted,
    is_unit,
)
from moa_dialect.lowering.vector_kernel import LIMIT, KernelCode
from moa_dialect.lowering.vector_passes import contracts
from moa_dialect.passes.kernels import (
    Output,
)
from moa_dialect.passes.lift import TILE_BYTES
from moa_dialect.passes.narrow_indices import narrowing_of
from moa_dialect.types import dtype_of, memory_element


class Outputs:
    """The outputs of a kernel."""

    def __init__(self, kernel: KernelCode):
        self.kernel = kernel
        self.code = kernel.code
        self.number = kernel.number

    def emit(self) -> None:
        """Emit the outputs, those over the same axes together."""
        groups: dict[tuple[str, ...], list[Output]] = {}
        for output in self.kernel.kernel.outputs:
            axes = output.axes
            if self.kernel.columns:
                if axes:
                    raise NotLifted("rows of a result, and columns of a task")
                axes = (self.kernel.columns,)
            groups.setdefault(axes, []).append(output)
        for axes, outputs in groups.items():
            if self.kernel.lane:
                self._group(axes, outputs)
            else:
                self._in_rows(axes, outputs)

    def _in_rows(self, axes: tuple[str, ...], outputs: Sequence[Output]) -> None:
        """Outputs of a kernel whose own axes are not in the lanes: a row axis is."""
        code, schedule = self.code, self.kernel.schedule
        if not axes:
            outer, code.lanes = code.lanes, replace(code.lanes, vectors=1)
            with code.lane_index(self.number(0)):
                self._group(axes, outputs)
            code.lanes = outer
            return
        *others, lane = axes
        for output in outputs:
            _, strides = self.kernel.outputs[output.number]
            every = (*self.kernel.kernel.axes, *output.axes)
            if not is_unit(strides[every.index(lane)]):
                raise NotLifted("rows whose elements do not lie next to each other")
        size = self.kernel.static(lane)
        outer = code.lanes
        if size is None:
            extent = self.kernel.extent(lane)
            for part in self._parts(extent):
                self._blocks(lane, *part, extent, tuple(others), outputs)
        elif size:
            lanes = min(schedule.lanes, 1 << (size.bit_length() - 1))
            vectors = max(1, min(schedule.vectors, size // lanes))
            end = self.number(size)
            self._blocks(
                lane, self.number(0), end, lanes, vectors, end, tuple(others), outputs
            )
        code.lanes = outer

    def _parts(self, extent: SSAValue) -> list[tuple[SSAValue, SSAValue, int, int]]:
        """How a row of any extent is cut: first, end, lanes and vectors of each part.

        Whole blocks come first, then single vectors, of which the last one is shifted
        back to end with the row; and where the row has not as many elements as a vector
        has lanes, all of it one by one.
        """
        code, schedule = self.code, self.kernel.schedule
        lanes, vectors = schedule.lanes, schedule.vectors
        zero, width = self.number(0), lanes * vectors
        whole = code.mul(code.div(extent, width), width)
        is_long = code.emit(arith.CmpiOp(extent, self.number(lanes), "sge"))
        end = code.emit(arith.SelectOp(is_long, extent, whole))
        short = code.emit(arith.SelectOp(is_long, zero, extent))
        parts = [(zero, whole, lanes, vectors), (whole, end, lanes, 1)]
        return [*parts, (zero, short, 1, 1)] if lanes > 1 else parts

    def _blocks(
        self,
        lane: str,
        first: SSAValue,
        end: SSAValue,
        lanes: int,
        vectors: int,
        extent: SSAValue,
        others: tuple[str, ...],
        outputs: Sequence[Output],
    ) -> None:
        """A loop over blocks of a row axis, which lies in the lanes."""
        code = self.code
        width = lanes * vectors

        def block(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            base = code.min(index, code.sub(extent, width))
            if lane != self.kernel.columns:
                code.lanes = Lanes(lane, base, lanes, vectors)
                self._group(others, outputs)
                return []
            first = code.add(self.kernel.start_of(lane), base)
            code.lanes = Lanes(lane, first, lanes, vectors)
            with code.bound(lane, first, base):
                self._group(others, outputs)
            return []

        code.loop(first, end, width, [], block)

    def _group(self, axes: tuple[str, ...], outputs: Sequence[Output]) -> None:
        kernel, code = self.kernel, self.code
        lane = code.lanes.axis
        own = lane if kernel.lane else kernel.blocked if kernel.schedule.each else ""
        states = kernel.state_axes((own,) if own else ())
        resolve = Chunk(code.terms, states).resolve
        narrow = narrowing_of(kernel.kernel, lane)
        if kernel.blocked:
            axes = (kernel.blocked, *axes)
        statements = [
            Statement(f"o{o.number}", axes, narrow(resolve(o.value)), Target.OUTPUT)
            for o in outputs
        ]
        tile_axes: dict[str, int] = {}
        for axis in axes:
            size = kernel.static(axis)
            if size is None and kernel.is_bounded:
                size = LIMIT
            if size is None:
                raise NotLifted("rows of an extent that types do not give")
            tile_axes[axis] = size
        tag = f"e{outputs[0].number}"
        statements, staged = kernel.stage(statements, tile_axes, "s" + tag)
        statements = materialize(code.terms, statements, axes, tag)
        are_turned = not all(map(self._is_contiguous, outputs))
        tiles = [*staged, *(s for s in statements if s.target is Target.TILE)]
        for axis in axes:
            is_tiled = are_turned or any(axis in tile.axes for tile in tiles)
            if is_tiled and kernel.static(axis) is None:
                kernel.most(kernel.kernel.extents[axis])

        for item in staged:
            kernel.fill(item, kernel.range_of)
        nests = arrange(statements, None)
        self._emit_nests(nests, tile_axes, {o.number: o for o in outputs})

    def _emit_nests(
        self, nests: Sequence[Nest], sizes: dict[str, int], outputs: dict[int, Output]
    ) -> None:
        kernel, code = self.kernel, self.code
        live = live_tiles(nests)
        for nest in nests:
            for item in nest.items:
                assert isinstance(item, Statement)
                if item.target is Target.TILE and item.axes and item.name in live:
                    dims = [sizes[axis] for axis in item.axes]
                    memory = kernel.allocate([*dims, code.lanes.width], item.value.type)
                    names = tuple(sorted(item.value.free))
                    code.buffers[item.name] = Buffer(memory, item.axes, names=names)

        turned: dict[int, Buffer] = {}
        along: dict[int, str] = {}
        for number, output in outputs.items():
            if not self._is_contiguous(output):
                element = memory_element(output.value.type)
                rows = kernel.rows_of(output)
                turns = along[number] = self._turned_along(output, sizes)
                dims = [self._padded(axis, sizes, turns) for axis in rows]
                memory = kernel.allocate([*dims, code.lanes.width], element)
                turned[number] = Buffer(memory, rows)

        def store(
            statement: Statement, value: SSAValue, copy: int, vector_: int
        ) -> None:
            number = int(statement.name[1:])
            lane = vector_ * code.lanes.lanes
            if number in turned:
                buffer = turned[number]
                indices = [code.local_index(axis, copy) for axis in buffer.axes]
                code.store(value, buffer.memory, [*indices, self.number(lane)])
                return
            memory, address = self._address(outputs[number], code.lanes.base, copy)
            mask = None if code.scalar_lane else code.lane_mask(vector_)
            code.store(value, memory, [code.add(address, lane)], mask)

        code.output, lengths = store, kernel.length_of
        for nest in nests:
            copies = (
                kernel.schedule.registers if contracts(nest) else kernel.schedule.unroll
            )
            if kernel.is_pair is not None:
                copies = 2
            if not nest.axes:
                for item in nest.items:
                    assert isinstance(item, Statement)
                    if item.target is Target.OUTPUT:
                        code.results(item.value)
                        vectors = code.lanes.vectors
                        for k in range(1 if code.scalar_lane else vectors):
                            store(item, code.vector(item.value, 0, k), 0, k)
                    else:
                        code.nest(Nest((), [item]), lengths, 1, live, kernel.start_of)
                continue
            code.nest(nest, lengths, copies, live, kernel.start_of)
        for number, buffer in turned.items():
            self._turn_out(outputs[number], buffer, along[number])

    def _is_contiguous(self, output: Output) -> bool:
        """Whether the lanes of an output lie next to each other."""
        code = self.code
        _, strides = self.kernel.outputs[output.number]
        if code.scalar_lane is not None:
            return True
        axes = (*self.kernel.kernel.axes, *output.axes)
        return is_unit(strides[axes.index(code.lanes.axis)])

    def _address(
        self, output: Output, lane: SSAValue, copy: int
    ) -> tuple[SSAValue, SSAValue]:
        """The memory of an output, and the address of its element in a lane."""
        code = self.code
        memory, strides = self.kernel.outputs[output.number]
        axes = (*self.kernel.kernel.axes, *output.axes)
        address = self.number(0)
        for axis, stride in zip(axes, strides, strict=True):
            if axis == code.lanes.axis:
                index = lane
            else:
                index = code.value(code.terms.index(axis), copy)
            address = code.add(
                address, code.make(arith.MuliOp, (index, stride), IndexType())
            )
        return memory, address

    def _turned_along(self, output: Output, sizes: dict[str, int]) -> str:
        """The axis of a tile along which a result lies in memory; empty if none does.

        Few elements of a row are not worth a square.
        """
        _, strides = self.kernel.outputs[output.number]
        axes = (*self.kernel.kernel.axes, *output.axes)
        found = ""
        for axis, stride in zip(axes, strides, strict=True):
            if is_unit(stride) and sizes.get(axis, 0) > sizes.get(found, 0):
                found = axis
        lanes = self.code.lanes.lanes
        if not found or 2 * sizes[found] < lanes:
            return ""
        rows = prod(self._padded(axis, sizes, found) for axis in sizes)
        size = rows * self.code.lanes.width * dtype_of(output.value.type).itemsize
        return found if size <= TILE_BYTES else ""

    def _padded(self, axis: str, sizes: dict[str, int], along: str) -> int:
        """How large a tile is along an axis: whole squares where it is turned."""
        lanes = self.code.lanes.lanes
        return ceil(sizes[axis] / lanes) * lanes if axis == along else sizes[axis]

    def _turn_out(self, output: Output, buffer: Buffer, along: str) -> None:
        """Copy an output from its tile to its memory, in squares along an axis.

        Without one element by element.
        """
        code, kernel = self.code, self.kernel
        count = code.lanes.lanes
        others = [axis for axis in buffer.axes if axis != along]
        skip = kernel.skip
        first = self.number(0) if skip is None else skip
        end = self.number(code.lanes.width)
        if code.lanes.last is not None:
            count_ = code.add(code.sub(code.lanes.last, code.lanes.base), 1)
            end = code.min(count_, code.lanes.width)
        type_ = VectorType(memory_element(output.value.type), [count])

        def one(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            indices = [code.local[axis] for axis in buffer.axes]
            value = code.emit(memref.LoadOp.get(buffer.memory, [*indices, lane]))
            target, address = self._address(output, code.add(code.lanes.base, lane), 0)
            code.builder.insert(memref.StoreOp.get(value, target, [address]))
            return []

        def square(index: SSAValue, mask: SSAValue | None) -> None:
            """The elements from an index on, in all lanes."""

            def group(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                rows: list[SSAValue] = []
                for k in range(count):
                    indices = [
                        code.add(index, k) if axis == along else code.local[axis]
                        for axis in buffer.axes
                    ]
                    rows.append(
                        code.emit(vector.LoadOp(buffer.memory, [*indices, lane], type_))
                    )
                columns = transposed(code, rows)
                place = code.add(kernel.start_of(along), index)
                with code.bound(along, place, index):
                    for k, column in enumerate(columns):
                        row = code.add(lane, k)
                        self._store_row(output, column, row, first, end, mask)
                return []

            code.loop(self.number(0), end, count, [], group)

        def squares() -> None:
            length, size = kernel.length_of(along)
            whole = code.mul(code.div(length, count), count)

            def full(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                square(index, None)
                return []

            def rest(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                left = code.sub(length, index)
                square(
                    index, code.emit(vector.CreateMaskOp([left], code.vector_type(i1)))
                )
                return []

            code.loop(self.number(0), whole, count, [], full)
            if size is None or size % count:
                code.loop(whole, length, count, [], rest)

        def loops(axes: Sequence[str]) -> None:
            if not axes:
                if along:
                    squares()
                else:
                    code.loop(first, end, 1, [], one)
                return
            axis, *more = axes

            def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                first = code.add(kernel.start_of(axis), index)
                with code.bound(axis, first, index):
                    loops(more)
                return []

            length, _ = kernel.length_of(axis)
            code.loop(self.number(0), length, 1, [], body)

        loops(others)

    def _store_row(
        self,
        output: Output,
        value: SSAValue,
        lane: SSAValue,
        first: SSAValue,
        end: SSAValue,
        mask: SSAValue | None,
    ) -> None:
        """Store what a lane has, unless another task does or it has no index.

        Of its elements those that a mask has, if there is one.
        """
        code, kernel = self.code, self.kernel
        target, address = self._address(output, code.add(code.lanes.base, lane), 0)
        store: Operation = vector.StoreOp(value, target, [address])
        if mask is not None:
            store = vector.MaskedStoreOp(target, [address], mask, value)
        conditions: list[SSAValue] = []
        if kernel.skip is not None:
            conditions.append(code.emit(arith.CmpiOp(lane, first, "sge")))
        if code.lanes.last is not None:
            conditions.append(code.emit(arith.CmpiOp(lane, end, "slt")))
        if not conditions:
            code.builder.insert(store)
            return
        condition = conditions[0]
        for other in conditions[1:]:
            condition = code.emit(arith.AndIOp(condition, other))
        block = Block([store, scf.YieldOp()])
        code.builder.insert(scf.IfOp(condition, (), Region(block)))
