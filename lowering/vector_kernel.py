"""Kernels in vectors: tasks, the memory of tiles, and loads that are staged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import (
    DenseArrayBase,
    IndexType,
    MemRefType,
    VectorType,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.lowering.tiles import (
    Statement,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    NotLifted,
    VectorCode,
    coefficient,
)
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import (
    Kernel,
    Output,
)
from moa_dialect.passes.lift import (
    Schedule,
    static_extent,
)
from moa_dialect.passes.terms import (
    Computed,
    Folded,
    Held,
    Term,
)
from moa_dialect.types import dtype_of, memory_element

INDEX = IndexType()

TILE_BYTES = 1 << 18
"""A tile that is larger than this is none."""


@dataclass
class Staged:
    """A load that is copied into a tile first: its lanes do not lie next to each other.

    Attributes:
        name: the tile.
        load: what is read.
        axes: the tile axes.
        sizes: how large the tile is along them.
    """

    name: str
    load: Term
    axes: tuple[str, ...]
    sizes: dict[str, int]


@dataclass
class Range:
    """The indices of a tile axis: from `start`, `length` many, `size` at most."""

    start: SSAValue
    length: SSAValue
    size: int


@dataclass
class KernelCode:
    """Emits one kernel.

    Attributes:
        kernel: the kernel.
        schedule: how it runs.
        builder: where code goes.
        number: gives a number at the entry of the function.
        place: gives for an array its flat memory and the strides of its axes.
        value_of: gives the value of what comes from outside.
        outputs: for each output its flat memory and the strides of its axes, those of
            the kernel first.
        code: the emitter of values.
        tiles: the memory of the tiles.
        lane: the axis in the lanes; empty if folded axes are.
        blocked: the axis of which a task has several indices; or empty.
        block_start: the first of them.
        skip: how many lanes have indices that the task before has too.
    """

    kernel: Kernel
    schedule: Schedule
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    outputs: Sequence[tuple[SSAValue, Sequence[SSAValue]]]
    code: VectorCode = field(init=False)
    tiles: list[memref.AllocaOp] = field(default_factory=list[memref.AllocaOp])
    lane: str = field(init=False)
    blocked: str = field(init=False)
    block_start: SSAValue | None = None
    skip: SSAValue | None = None

    def __post_init__(self) -> None:
        self.lane = self.kernel.named(self.schedule.lane)
        self.blocked = self.kernel.named(self.schedule.blocked)

    def emit(self, body: Callable[[KernelCode], None]) -> None:
        """Emit a parallel loop over tasks, with what `body` emits in each."""
        kernel, schedule = self.kernel, self.schedule
        grid = [axis for axis in kernel.axes if axis != self.lane]
        # An extent that depends on data may have wrapped around.
        extents = {
            axis: self._index(arith.MaxSIOp, self.extent(axis), self.number(0))
            for axis in kernel.axes
        }
        if self.blocked:
            size = self.number(schedule.block)
            extents[self.blocked] = self._index(
                arith.CeilDivSIOp, extents[self.blocked], size
            )
        blocks = self.number(1)
        if self.lane:
            rest = self.number(schedule.width - 1)
            total = self._index(arith.AddiOp, extents[self.lane], rest)
            blocks = self._index(arith.DivUIOp, total, self.number(schedule.width))
        tasks = blocks
        for axis in grid:
            tasks = self._index(arith.MuliOp, tasks, extents[axis])
        outer, task = self.builder, Block(arg_types=[INDEX])
        self.builder = Builder(InsertPoint.at_end(task))
        self._begin(task.args[0], grid, extents, blocks)
        body(self)
        self.builder.insert(scf.ReduceOp())
        self.builder = outer
        first = task.first_op
        assert first is not None
        for op in self.tiles:
            task.insert_op_before(op, first)
        zero, one = self.number(0), self.number(1)
        outer.insert(scf.ParallelOp([zero], [tasks], [one], Region(task)))

    def _index(
        self, operation: type[Operation], left: SSAValue, right: SSAValue
    ) -> SSAValue:
        op = operation.create(operands=[left, right], result_types=[INDEX])
        return self.builder.insert(op).results[0]

    def extent(self, axis: str) -> SSAValue:
        """The extent of an axis."""
        return self.value_of(self.kernel.extents[axis])

    def static(self, axis: str, whole: bool = False) -> int | None:
        """The extent of an axis as a number, None if it is not known.

        That of the blocked axis is the block's, unless the `whole` one is asked for.
        """
        if axis == self.blocked and not whole:
            return self.schedule.block
        return static_extent(self.kernel.extents[axis])

    def start_of(self, axis: str) -> SSAValue:
        """The first index that a task has of a row axis, or of the blocked axis."""
        if axis != self.blocked:
            return self.number(0)
        assert self.block_start is not None
        return self.block_start

    def rows_of(self, output: Output) -> tuple[str, ...]:
        """The axes over which a task has elements of an output, besides the lanes."""
        return (*((self.blocked,) if self.blocked else ()), *output.axes)

    # One task.

    def _begin(
        self,
        task: SSAValue,
        grid: Sequence[str],
        extents: dict[str, SSAValue],
        blocks: SSAValue,
    ) -> None:
        """Decode which indices a task has."""
        schedule = self.schedule
        index: dict[str, SSAValue] = {}
        rest = task
        if self.lane:
            block = self._index(arith.RemUIOp, task, blocks)
            rest = self._index(arith.DivUIOp, task, blocks)
            lanes = self._lane_block(block, extents[self.lane], schedule.width)
        else:
            lanes = Lanes("", self.number(0), schedule.lanes, schedule.vectors)
        for axis in reversed(grid):
            index[axis] = self._index(arith.RemUIOp, rest, extents[axis])
            rest = self._index(arith.DivUIOp, rest, extents[axis])
        if self.blocked:
            # The last block is shifted back to end with the axis.
            size = schedule.block
            first = self._index(arith.MuliOp, index[self.blocked], self.number(size))
            extent = self.static(self.blocked, whole=True)
            assert extent is not None
            index[self.blocked] = self._index(
                arith.MinSIOp, first, self.number(extent - size)
            )
            self.block_start = index.pop(self.blocked)
        self.code = VectorCode(
            self.kernel.terms,
            self.builder,
            self.number,
            self.place,
            self.value_of,
            lanes,
            index=index,
        )

    def _lane_block(self, block: SSAValue, extent: SSAValue, width: int) -> Lanes:
        """The lanes of a block; the last block is shifted back to end with the axis."""
        schedule = self.schedule
        static = self.static(self.lane)
        first = self._index(arith.MuliOp, block, self.number(width))
        last: SSAValue | None = None
        base = first
        if static is None or static % width:
            end = self._index(arith.SubiOp, extent, self.number(width))
            base = self._index(arith.MinSIOp, first, end)
            if static is None or static < width:
                base = self._index(arith.MaxSIOp, base, self.number(0))
                last = self._index(arith.SubiOp, extent, self.number(1))
            self.skip = self._index(arith.SubiOp, first, base)
        return Lanes(self.lane, base, schedule.lanes, schedule.vectors, last)

    def state_axes(self, axes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """For every accumulator and pivot these axes."""
        return {
            state.name: axes
            for pass_ in self.kernel.passes
            for state in (*pass_.accumulators, *pass_.pivots)
        }

    # Memory.

    def allocate(self, dims: Sequence[int], element: Attribute) -> SSAValue:
        """Memory for a tile, on the stack."""
        element = memory_element(element)
        size = prod(dims) * dtype_of(element).itemsize
        if size > TILE_BYTES:
            raise NotLifted(f"a tile of {size} bytes")
        type_ = MemRefType(element, dims)
        op = memref.AllocaOp.get(element, 64, dims)
        assert op.memref.type == type_
        self.tiles.append(op)
        return op.memref

    # Staging.

    def stage(
        self,
        statements: Sequence[Statement],
        axes: dict[str, int],
        tag: str,
    ) -> tuple[list[Statement], list[Staged]]:
        """Replace loads whose lanes do not lie next to each other by tiles.

        Args:
            statements: the statements.
            axes: the tile axes and how large tiles are along them.
            tag: how names of tiles begin.
        """
        made: dict[tuple[Term, tuple[int, ...]], Staged] = {}
        known = dict(axes)
        done: dict[tuple[Term, frozenset[tuple[str, int]]], Term] = {}

        def visit(term: Term) -> Term:
            if not term.args:
                return term
            key = (
                term,
                frozenset(item for item in known.items() if item[0] in term.free),
            )
            if key not in done:
                done[key] = staged(term)
            return done[key]

        def staged(term: Term) -> Term:
            kind = term.kind
            if isinstance(kind, Folded):
                bounds = [visit(arg) for arg in term.args[:2]]
                size, outer = self._fold_size(term), known.pop(kind.index, None)
                if size is not None:
                    known[kind.index] = size
                body = visit(term.args[2])
                known.pop(kind.index, None)
                if outer is not None:
                    known[kind.index] = outer
                return self.kernel.terms.remake(term, [*bounds, body])
            if (
                isinstance(kind, Computed)
                and kind.operation is AtOp
                and self.code.is_vector(term)
                and not self.code.is_contiguous(term)
            ):
                return self._staged(term, known, made, tag)
            return self.kernel.terms.remake(term, [visit(arg) for arg in term.args])

        found = [
            Statement(s.name, s.axes, visit(s.value), s.target) for s in statements
        ]
        return found, list(made.values())

    def _fold_size(self, fold: Term) -> int | None:
        """How many indices a fold has, if it starts from 0."""
        lower, upper = fold.args[:2]
        if lower.number != 0:
            return None
        if upper.number is not None:
            return int(upper.number)
        if isinstance(upper.kind, SSAValue):
            return static_extent(upper.kind)
        return None

    def _staged(
        self,
        load: Term,
        known: dict[str, int],
        made: dict[tuple[Term, tuple[int, ...]], Staged],
        tag: str,
    ) -> Term:
        grid = {*self.kernel.axes, self.code.lanes.axis} - {self.blocked}
        axes = tuple(sorted(load.free - grid))
        if not all(axis in known for axis in axes):
            raise NotLifted("lanes that do not lie next to each other, over no tile")
        sizes = tuple(known[axis] for axis in axes)
        key = (load, sizes)
        if key not in made:
            name = f"{tag}.{len(made)}"
            made[key] = Staged(name, load, axes, dict(zip(axes, sizes, strict=True)))
            element = load.type
            width = self.code.lanes.width
            memory = self.allocate([*sizes, width], element)
            names = tuple(sorted(load.free))
            self.code.buffers[name] = Buffer(memory, axes, names=names)
        indices = [self.kernel.terms.index(axis) for axis in sorted(load.free)]
        return self.kernel.terms.held(Held(made[key].name), indices, load.type)

    def fill(self, staged: Staged, ranges: Callable[[str], Range]) -> None:
        """Copy what a staged load reads into its tile."""
        code = self.code
        load = staged.load
        buffer = code.buffers[staged.name]

        def range_of(axis: str) -> Range:
            if not axis.startswith("%"):
                return ranges(axis)
            size = staged.sizes[axis]  # The index of a fold inside.
            return Range(self.number(0), self.number(size), size)

        along = ""
        if load.type == memory_element(load.type):
            count = code.lanes.lanes
            for axis in staged.axes:
                if self._advances(load, axis) and range_of(axis).size >= count:
                    along = axis
        others = [axis for axis in staged.axes if axis != along]

        def inner() -> None:
            if not along:
                self._copy_lanes(load, buffer)
                return
            whole = self._turn(load, buffer, along, range_of(along))
            axis = range_of(along)

            def rest(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with code.bound(along, code.add(axis.start, index), index):
                    self._copy_lanes(load, buffer)
                return []

            code.loop(whole, axis.length, 1, [], rest)

        def loops(axes: Sequence[str]) -> None:
            if not axes:
                inner()
                return
            axis, *more = axes
            range_ = range_of(axis)
            scale = code.scale.get(axis, 1)

            def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                first = code.add(range_.start, code.mul(index, scale))
                with code.bound(axis, first, index):
                    loops(more)
                return []

            code.loop(self.number(0), range_.length, 1, [], body)

        loops(others)

    def _advances(self, load: Term, axis: str) -> bool:
        """Whether the address of a load advances by one with an axis."""
        array, *indices = load.args
        assert isinstance(array.kind, SSAValue)
        if self.code.scale.get(axis, 1) != 1:
            return False
        _, strides = self.place(array.kind)
        found = False
        for index, stride in zip(indices, strides, strict=True):
            if axis not in index.free:
                continue
            if stride is not self.number(1) or coefficient(index, axis) != 1:
                return False
            found = True
        return found

    def _copy_lanes(self, load: Term, buffer: Buffer) -> None:
        """Copy the elements of all lanes, one by one."""
        code = self.code

        def body(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            with code.lane_index(code.lane_at(lane)):
                value = code.value(load)
            indices = [code.local[axis] for axis in buffer.axes]
            code.store(value, buffer.memory, [*indices, lane])
            return []

        code.loop(self.number(0), self.number(code.lanes.width), 1, [], body)

    def _turn(self, load: Term, buffer: Buffer, axis: str, range_: Range) -> SSAValue:
        """Copy whole squares of lanes and indices; returns where the rest begins."""
        code = self.code
        count = code.lanes.lanes
        whole = code.mul(code.div(range_.length, count), count)
        type_ = code.vector_type(load.type)
        array = load.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = self.place(array)

        def square(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            def group(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                rows: list[SSAValue] = []
                with code.bound(axis, code.add(range_.start, index), index):
                    for k in range(count):
                        with code.lane_index(code.lane_at(code.add(lane, k))):
                            address = code.address(load, 0)
                        rows.append(code.emit(vector.LoadOp(memory, [address], type_)))
                for k, column in enumerate(transposed(code, rows)):
                    indices = [
                        code.add(index, k) if other == axis else code.local[other]
                        for other in buffer.axes
                    ]
                    code.store(column, buffer.memory, [*indices, lane])
                return []

            code.loop(self.number(0), self.number(code.lanes.width), count, [], group)
            return []

        code.loop(self.number(0), whole, count, [], square)
        return whole


def transposed(code: VectorCode, rows: Sequence[SSAValue]) -> list[SSAValue]:
    """The transpose of a square of vectors, in log2 steps of shuffles of two."""
    count = len(rows)
    current = list(rows)
    step = 1
    while step < count:
        after = list(current)
        for low in range(count):
            if low & step:
                continue
            high = low | step
            first = [count + k - step if k & step else k for k in range(count)]
            second = [count + k if k & step else k + step for k in range(count)]
            after[low] = _shuffle(code, current[low], current[high], first)
            after[high] = _shuffle(code, current[low], current[high], second)
        current = after
        step *= 2
    return current


def _shuffle(
    code: VectorCode, left: SSAValue, right: SSAValue, mask: Sequence[int]
) -> SSAValue:
    type_ = left.type
    assert isa(type_, VectorType)
    order = DenseArrayBase.from_list(i64, list(mask))
    return code.emit(vector.ShuffleOp(left, right, order, result_type=type_))
