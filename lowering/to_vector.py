"""moa-to-vector: kernels in the fused form as loops over vectors.

A kernel runs as tasks, each a block of indices of its lane axis (see `Schedule`). A
task stages what it reads with lanes that do not lie next to each other, runs the passes
chunk by chunk, and stores its outputs. What has no vector code is left to moa-to-onf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import (
    DenseArrayBase,
    IndexType,
    MemRefType,
    ModuleOp,
    VectorType,
    i1,
    i32,
    i64,
)
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from moa_dialect.algebra.layout import Order
from moa_dialect.lowering.tiles import (
    Chunk,
    Nest,
    Statement,
    Target,
    arrange,
    compare,
    live_tiles,
    materialize,
    shared_memory,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    NotLifted,
    Values,
    VectorCode,
    coefficient,
)
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp
from moa_dialect.passes.kernels import (
    AFTER,
    BEFORE,
    Accumulator,
    Group,
    Kernel,
    Output,
    Pass,
    ignores_nan,
    read_kernel,
    split_folds,
)
from moa_dialect.passes.lift import (
    SCHEDULE,
    Schedule,
    schedule_of,
    static_extent,
)
from moa_dialect.passes.terms import (
    ChunkFold,
    Computed,
    Folded,
    Held,
    NotATerm,
    Term,
    walk,
)
from moa_dialect.passes.to_onf import Lowering, lower_functions
from moa_dialect.types import dtype_of, kind_of, memory_element

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
        ranges: for each axis the first index, the number of indices, and that as the
            size of the tile.
    """

    name: str
    load: Term
    axes: tuple[str, ...]


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
        code: the emitter of values.
        outputs: for each output its flat memory and the strides of its axes, those of
            the kernel first.
        extent: the value of an extent.
    """

    kernel: Kernel
    schedule: Schedule
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    outputs: Sequence[tuple[SSAValue, Sequence[SSAValue]]]
    code: VectorCode = field(init=False)
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    tiles: list[memref.AllocaOp] = field(default_factory=list[memref.AllocaOp])

    def emit(self) -> None:
        """Emit the whole kernel."""
        kernel, schedule = self.kernel, self.schedule
        self.lane = kernel.named(schedule.lane)
        self.blocked = kernel.named(schedule.blocked)
        grid = [axis for axis in kernel.axes if axis != self.lane]
        extents = {axis: self.extent(axis) for axis in kernel.axes}
        if self.blocked:
            size = self.number(schedule.block)
            extents[self.blocked] = self._index(
                arith.CeilDivSIOp, extents[self.blocked], size
            )
        blocks = self.number(1)
        builder = self.builder
        width = schedule.lanes * schedule.vectors
        if self.lane:
            lane_extent = extents[self.lane]
            total = self._index(arith.AddiOp, lane_extent, self.number(width - 1))
            blocks = self._index(arith.DivUIOp, total, self.number(width))
        tasks = blocks
        for axis in grid:
            tasks = self._index(arith.MuliOp, tasks, extents[axis])
        body = Block(arg_types=[INDEX])
        region = Region(body)
        task = Block()
        self.builder = Builder(InsertPoint.at_end(task))
        self._task(body.args[0], grid, extents, blocks)
        self.builder.insert(memref.AllocaScopeReturnOp.create())
        for op in self.tiles[::-1]:
            task.insert_op_before(op, task.first_op)
        scope = memref.AllocaScopeOp.create(regions=[Region(task)])
        body.add_ops([scope, scf.ReduceOp()])
        self.builder = builder
        builder.insert(
            scf.ParallelOp([self.number(0)], [tasks], [self.number(1)], region)
        )

    def _index(
        self, operation: type[arith.AddiOp], left: SSAValue, right: SSAValue
    ) -> SSAValue:
        return self.builder.insert(operation(left, right)).result

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
        return self.block_start if axis == self.blocked else self.number(0)

    def rows_of(self, output: Output) -> tuple[str, ...]:
        """The axes over which a task has elements of an output, besides the lanes."""
        return (*((self.blocked,) if self.blocked else ()), *output.axes)

    # One task.

    def _task(
        self,
        task: SSAValue,
        grid: Sequence[str],
        extents: dict[str, SSAValue],
        blocks: SSAValue,
    ) -> None:
        schedule = self.schedule
        width = schedule.lanes * schedule.vectors
        index: dict[str, SSAValue] = {}
        rest = task
        self.skip: SSAValue | None = None
        if self.lane:
            block = self._index(arith.RemUIOp, task, blocks)
            rest = self._index(arith.DivUIOp, task, blocks)
            lanes = self._lane_block(block, extents[self.lane], width)
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
        pass_code = _PassCode if self.lane else _SplitPass
        for pass_ in self.kernel.passes:
            pass_code(self, pass_).emit()
        _Epilogue(self).emit()

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

        def visit(term: Term) -> Term:
            if not term.args:
                return term
            kind = term.kind
            if isinstance(kind, Folded):
                bounds = [visit(arg) for arg in term.args[:2]]
                size = self._fold_size(term)
                if size is not None:
                    known[kind.index] = size
                body = visit(term.args[2])
                known.pop(kind.index, None)
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
        grid = {*self.kernel.axes, self.code.lanes.axis}
        axes = tuple(sorted(load.free - grid))
        if not all(axis in known for axis in axes):
            raise NotLifted("lanes that do not lie next to each other, over no tile")
        sizes = tuple(known[axis] for axis in axes)
        key = (load, sizes)
        if key not in made:
            name = f"{tag}.{len(made)}"
            self.sizes |= dict(zip(axes, sizes, strict=True))
            made[key] = Staged(name, load, axes)
            element = load.type
            width = self.code.lanes.width
            memory = self.allocate([*sizes, width], element)
            self.code.buffers[name] = Buffer(memory, axes)
        indices = [self.kernel.terms.index(axis) for axis in sorted(load.free)]
        return self.kernel.terms.held(Held(made[key].name), indices, load.type)

    def fill(self, staged: Staged, ranges: Callable[[str], Range]) -> None:
        """Copy what a staged load reads into its tile."""
        code = self.code
        load = staged.load
        buffer = code.buffers[staged.name]
        along = next(
            (
                axis
                for axis in staged.axes
                if self._advances(load, axis) and ranges(axis).size >= code.lanes.lanes
            ),
            None,
        )
        others = [axis for axis in staged.axes if axis != along]
        if load.type != memory_element(load.type):
            along, others = None, list(staged.axes)

        def inner() -> None:
            if along is None:
                self._copy_lanes(load, buffer)
                return
            whole = self._turn(load, buffer, along, ranges(along))
            axis = ranges(along)

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
            range_ = ranges(axis)
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
            code.builder.insert(
                memref.StoreOp.get(value, buffer.memory, [*indices, lane])
            )
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
                    code.builder.insert(
                        vector.StoreOp(column, buffer.memory, [*indices, lane])
                    )
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
    assert isinstance(type_, VectorType)
    order = DenseArrayBase.from_list(i64, list(mask))
    return code.emit(vector.ShuffleOp(left, right, order, result_type=type_))


class _PassCode:
    """One pass of a kernel: its states, and the loops over chunks."""

    def __init__(self, kernel: KernelCode, pass_: Pass):
        self.kernel = kernel
        self.code = kernel.code
        self.pass_ = pass_
        self.number = kernel.number
        self.size = kernel.schedule.chunk
        self.lows: Values = []
        self.highs: Values = []
        self.quiet = {
            a.name for a in pass_.accumulators if ignores_nan(kernel.kernel, pass_, a)
        }
        self.differs = [
            self.code.lanes.axis in bound.free for bound in (pass_.lower, pass_.upper)
        ]

    def emit(self) -> None:
        """Emit the pass; the accumulators and pivots are known afterwards."""
        code, pass_ = self.code, self.pass_
        self._bounds()
        chunk = Chunk(code.terms, self._axes(), self._count_axes())
        statements = chunk.statements(pass_)
        tile_axes = self._tile_axes()
        statements, staged = self.kernel.stage(statements, tile_axes, f"s{pass_.index}")
        statements = materialize(code.terms, statements, list(tile_axes), pass_.index)
        self.during = [s for s in staged if pass_.index in s.load.free]
        for item in staged:
            if item not in self.during:
                self.kernel.fill(item, self._range)
        early = self._early(statements)
        self._prologue(early)
        self.nests = arrange([s for s in statements if s not in early], pass_.index)
        self._allocate(self.nests)
        code.quiet = self.quiet
        states = self._segments(self._start())
        code.length = code.start = None
        self._finish(states)

    # How the lanes differ: in their bounds. See `_SplitPass` for the other way.

    def _bounds(self) -> None:
        """Evaluate the bounds, for each lane if they differ."""
        code, pass_ = self.code, self.pass_
        if not any(self.differs):
            self.first = self.full_first = code.value(pass_.lower)
            self.last = self.full_last = code.value(pass_.upper)
            return
        self.lows = [code.vector(pass_.lower, 0, k) for k in self.numbers()]
        self.highs = [code.vector(pass_.upper, 0, k) for k in self.numbers()]
        self.first, self.full_first = self._ends(self.lows, pass_.lower)
        self.full_last, self.last = self._ends(self.highs, pass_.upper)

    def _axes(self) -> dict[str, tuple[str, ...]]:
        """For each state of the kernel the lanes, if it depends on them."""
        lane = self.code.lanes.axis
        return self.kernel.state_axes((lane,) if lane else ())

    def _count_axes(self) -> tuple[str, ...]:
        return (self.code.lanes.axis,) if any(self.differs) else ()

    def _segments(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loops: over chunks that only some lanes have, then all, then some."""
        code = self.code
        if not any(self.differs):
            return self._segment(self.first, self.last, False, states)
        end = code.max(self.last, self.first)
        middle = code.max(code.min(self.full_first, end), self.first)
        late = code.max(code.min(self.full_last, end), middle)
        if self.differs[0]:
            states = self._segment(self.first, middle, True, states)
        states = self._segment(middle, late, False, states)
        return self._segment(late, end, True, states)

    def _segment(
        self, start: SSAValue, stop: SSAValue, masked: bool, states: list[SSAValue]
    ) -> list[SSAValue]:
        """A loop over chunks."""
        code = self.code

        def body(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            return self._chunk(
                index, code.min(code.sub(stop, index), self.size), masked, carried
            )

        return code.loop(start, stop, self.size, states, body)

    def _chunk(
        self,
        index: SSAValue,
        length: SSAValue,
        masked: bool,
        states: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """What one chunk does to the states."""
        code = self.code
        self._hold("old", states)
        code.length, code.start = length, index
        if masked:
            code.mask = self._mask(index)
        self._counts(index, length, masked)
        for item in self.during:
            self._fill_chunk(item, masked)
        self._nests(self.nests)
        code.mask = None
        return self._held("new")

    def _fill_chunk(self, staged: Staged, masked: bool) -> None:
        self.kernel.fill(staged, self._range)

    def _finish(self, states: list[SSAValue]) -> None:
        """Let the accumulators and pivots be known."""
        self._hold("final", states)

    def numbers(self) -> range:
        """The numbers of the vectors of the lanes."""
        return range(self.code.lanes.vectors)

    def _ends(
        self, values: Sequence[SSAValue], term: Term
    ) -> tuple[SSAValue, SSAValue]:
        """The smallest and the largest of a bound over all lanes."""
        code = self.code
        if code.lanes.axis not in term.free:
            value = code.value(term)
            return value, value
        found: list[SSAValue] = []
        for operation, kind in ((arith.MinSIOp, "minsi"), (arith.MaxSIOp, "maxsi")):
            total = values[0]
            for value in values[1:]:
                total = code.make(operation, (total, value), total.type)
            found.append(reduced(code, kind, total))
        return found[0], found[1]

    def _tile_axes(self) -> dict[str, int]:
        """The tile axes of the pass, and how large tiles are along them."""
        axes = {self.pass_.index: self.size}
        for a in self.pass_.accumulators:
            for axis in a.axes:
                size = self.kernel.static(axis)
                if size is None:
                    raise NotLifted("rows of an extent that types do not give")
                axes[axis] = size
        return axes

    def _range(self, axis: str) -> Range:
        code = self.code
        if axis == self.pass_.index:
            assert code.start is not None
            assert code.length is not None
            return Range(code.start, code.length, self.size)
        size = self._tile_axes().get(axis, self.kernel.sizes.get(axis))
        assert size is not None
        return Range(self.kernel.start_of(axis), self.number(size), size)

    def _early(self, statements: Sequence[Statement]) -> list[Statement]:
        """Tiles that are the same for every chunk."""
        late = {self.pass_.index}
        found: list[Statement] = []
        names: set[str] = set()
        while True:
            more = [
                s
                for s in statements
                if s.target is Target.TILE
                and s not in found
                and not (s.value.free & late)
                and all(
                    inner.kind.name in names or inner.kind.version == "final"
                    for inner in walk(s.value)
                    if isinstance(inner.kind, Held)
                    and not inner.kind.name.startswith("s")
                )
                and not any(isinstance(t.kind, ChunkFold) for t in walk(s.value))
            ]
            if not more:
                return found
            found += more
            names |= {s.name for s in more}

    def _prologue(self, statements: Sequence[Statement]) -> None:
        nests = arrange(statements, None)
        self._allocate(nests, all_live=True)
        self._nests(nests, all_live=True)

    def _allocate(self, nests: Sequence[Nest], all_live: bool = False) -> None:
        code = self.code
        live = live_tiles(nests)
        taken = {} if all_live else shared_memory(nests, live)
        sizes = self._tile_axes()
        for nest in nests:
            for item in nest.items:
                if (
                    isinstance(item, Statement)
                    and item.target is Target.TILE
                    and item.axes
                    and (all_live or item.name in live)
                    and item.name not in taken
                ):
                    dims = [sizes[axis] for axis in item.axes]
                    memory = self.kernel.allocate(
                        [*dims, code.lanes.width], item.value.type
                    )
                    code.buffers[item.name] = Buffer(memory, item.axes)
        for name in taken:
            other = taken[name]
            while other in taken:
                other = taken[other]
            code.buffers[name] = code.buffers[other]
        self.live = {s.name for n in nests for s in n.items if isinstance(s, Statement)}
        if not all_live:
            self.live = live

    def _nests(self, nests: Sequence[Nest], all_live: bool = False) -> None:
        code, schedule = self.code, self.kernel.schedule
        live = live_tiles(nests)
        if all_live:
            live = {s.name for n in nests for s in n.items if isinstance(s, Statement)}

        def extents(axis: str) -> tuple[SSAValue, int | None]:
            if axis == self.pass_.index:
                assert code.length is not None
                return code.length, None
            size = self._tile_axes()[axis]
            return self.number(size), size

        def start(axis: str) -> SSAValue:
            if axis == self.pass_.index:
                assert code.start is not None
                return code.start
            return self.kernel.start_of(axis)

        for nest in nests:
            copies = schedule.registers if _contracts(nest) else schedule.unroll
            code.nest(nest, extents, copies, live, start)

    # States.

    def _registers(self) -> list[tuple[str, Attribute]]:
        """The states without axes: accumulators, then pivots."""
        found = [(a.name, a.type) for a in self.pass_.accumulators if not a.axes]
        return found + [(r.name, r.type) for r in self.pass_.pivots]

    def _start(self) -> list[SSAValue]:
        """What states start from; those with axes are put into memory."""
        code = self.code
        states: list[SSAValue] = []
        for a in self.pass_.accumulators:
            starts = [
                self._identity(a.function, a.type, number) for number in self.numbers()
            ]
            if not a.axes:
                states += starts
                continue
            sizes = [self._tile_axes()[axis] for axis in a.axes]
            memory = self.kernel.allocate([*sizes, code.lanes.width], a.type)
            code.buffers[a.name] = Buffer(memory, a.axes)
            self._fill(memory, sizes, [], starts)
        for r in self.pass_.pivots:
            states += [code.vector(r.start, 0, k) for k in self.numbers()]
        return states

    def _fill(
        self,
        memory: SSAValue,
        sizes: Sequence[int],
        indices: list[SSAValue],
        values: Sequence[SSAValue],
    ) -> None:
        code = self.code
        if not sizes:
            for number, value in enumerate(values):
                lane = self.number(number * code.lanes.lanes)
                code.builder.insert(vector.StoreOp(value, memory, [*indices, lane]))
            return

        def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            self._fill(memory, sizes[1:], [*indices, index], values)
            return []

        code.loop(self.number(0), self.number(sizes[0]), 1, [], body)

    def _identity(self, function: str, type_: Attribute, number: int) -> SSAValue:
        """What an accumulator starts from: a sum over nothing is 0, not -0."""
        code = self.code
        neutral = code.neutral(function, type_)
        start = code.constant(neutral, type_, True)
        if str(neutral) != "-0.0":
            return start
        zero = code.constant(0.0, type_, True)
        if self.lows:
            less = _compare(code, "slt", self.lows[number], self.highs[number])
        else:
            bounds = [code.value(b) for b in (self.pass_.lower, self.pass_.upper)]
            less = code.emit(arith.CmpiOp(bounds[0], bounds[1], "slt"))
        return code.make(arith.SelectOp, (less, start, zero), start.type)

    def _hold(self, version: str, values: Sequence[SSAValue]) -> None:
        count = self.code.lanes.vectors
        for k, (name, _) in enumerate(self._registers()):
            self.code.held[Held(name, version)] = list(
                values[k * count : (k + 1) * count]
            )

    def _held(self, version: str) -> Values:
        found: Values = []
        for name, _ in self._registers():
            values = self.code.held[Held(name, version)]
            for number in self.numbers():
                value = values[number if len(values) > 1 else 0]
                if not isinstance(value.type, VectorType):
                    value = self.code.broadcast(value)
                found.append(value)
        return found

    # Chunks.

    def _counts(self, index: SSAValue, length: SSAValue, masked: bool) -> None:
        """How many indices are accounted for before and after a chunk."""
        code = self.code
        for held, end in ((BEFORE, index), (AFTER, code.add(index, length))):
            if not self.lows:
                code.held[held] = [code.sub(end, self.first)]
                continue
            found: Values = []
            for low, high in zip(self.lows, self.highs, strict=True):
                value = code.broadcast(end)
                for operation, other in (
                    (arith.MinSIOp, high),
                    (arith.MaxSIOp, low),
                    (arith.SubiOp, low),
                ):
                    value = code.make(operation, (value, other), value.type)
                found.append(value)
            code.held[held] = found

    def _mask(self, index: SSAValue) -> Callable[[int, int], SSAValue]:
        """Which lanes have an index of the chunk, as a function of copy and vector."""
        code, differs = self.code, self.differs
        base = code.broadcast(index)
        small = code.vector_type(i32)
        bounds: list[list[SSAValue]] = []
        for values in (self.lows, self.highs):
            found: list[SSAValue] = []
            for value in values:
                relative = code.make(arith.SubiOp, (value, base), value.type)
                for operation, limit in (
                    (arith.MaxSIOp, 0),
                    (arith.MinSIOp, self.size),
                ):
                    limits = code.broadcast(self.number(limit))
                    relative = code.make(operation, (relative, limits), value.type)
                found.append(code.make(arith.IndexCastOp, (relative,), small))
            bounds.append(found)
        axis = self.pass_.index

        def mask(copy: int, number: int) -> SSAValue:
            is_register = code.register == axis
            key = ("mask", copy if is_register else 0, number)
            if (known := code.find(key)) is not None:
                return known
            local = code.local_index(axis, copy)
            narrow = code.emit(arith.IndexCastOp(local, i32))
            position = code.broadcast(narrow)
            parts: list[SSAValue] = []
            if differs[0]:
                parts.append(_compare(code, "sge", position, bounds[0][number]))
            if differs[1]:
                parts.append(_compare(code, "slt", position, bounds[1][number]))
            result = parts[0]
            if len(parts) > 1:
                result = code.make(arith.AndIOp, (parts[0], parts[1]), result.type)
            code.scopes[-1][key] = result
            return result

        return mask


class _SplitPass(_PassCode):
    """A pass whose own indices are in the lanes: each lane folds every so manieth.

    An index is the sum of the first one of a row of lanes and of the lane. At the end
    the lanes' partial states are merged, each carried over to common pivots.
    """

    LANE = "q"

    def __init__(self, kernel: KernelCode, pass_: Pass):
        super().__init__(kernel, pass_)
        schedule = kernel.schedule
        self.outer = self.code.lanes
        self.lanes = Lanes(
            self.LANE, kernel.number(0), schedule.lanes, schedule.vectors
        )
        terms = self.code.terms
        index = terms.index(pass_.index)
        both = terms.compute(arith.AddiOp, (index, terms.index(self.LANE)))

        def split(term: Term) -> Term:
            return terms.substitute(term, {pass_.index: both})

        groups = [
            replace(
                group,
                accumulators=[
                    replace(a, part=split(a.part)) for a in group.accumulators
                ],
            )
            for group in pass_.groups
        ]
        self.pass_ = replace(pass_, groups=groups)

    def emit(self) -> None:
        """Emit the pass with its indices in the lanes."""
        code = self.code
        code.lanes = self.lanes
        code.scale[self.pass_.index] = self.lanes.width
        super().emit()
        del code.scale[self.pass_.index]
        code.lanes = self.outer

    def _bounds(self) -> None:
        code, width = self.code, self.lanes.width
        self.first = code.value(self.pass_.lower)
        self.last = code.max(code.value(self.pass_.upper), self.first)
        self.span = code.sub(self.last, self.first)
        self.rows = code.div(self.span, width)
        self.whole = code.add(self.first, code.mul(self.rows, width))
        left = code.emit(arith.IndexCastOp(code.sub(self.last, self.whole), i32))
        bound = code.broadcast(left)
        self.is_left: Values = []
        for number in self.numbers():
            first = number * self.lanes.lanes
            steps = range(first, first + self.lanes.lanes)
            lane = code.vector_constant(steps, i32)
            self.is_left.append(_compare(code, "slt", lane, bound))

    def _axes(self) -> dict[str, tuple[str, ...]]:
        states = self.kernel.state_axes(())
        own = [a.name for a in self.pass_.accumulators]
        own += [r.name for r in self.pass_.pivots]
        return states | dict.fromkeys(own, (self.LANE,))

    def _count_axes(self) -> tuple[str, ...]:
        return (self.LANE,)

    def _segments(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loops: over chunks of whole rows of lanes, then the last row's part."""
        code, width = self.code, self.lanes.width

        def whole(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            rows = code.div(code.sub(self.whole, index), width)
            return self._chunk(index, code.min(rows, self.size), False, carried)

        def rest(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            return self._chunk(index, self.number(1), True, carried)

        step = self.size * width
        states = code.loop(self.first, self.whole, step, states, whole)
        return code.loop(self.whole, self.last, width, states, rest)

    def _counts(self, index: SSAValue, length: SSAValue, masked: bool) -> None:
        code = self.code
        before = code.div(code.sub(index, self.first), self.lanes.width)
        code.held[BEFORE] = [code.broadcast(before)]
        if masked:
            code.held[AFTER] = [
                self._with_one_more(before, number) for number in self.numbers()
            ]
        else:
            code.held[AFTER] = [code.broadcast(code.add(before, length))]

    def _with_one_more(self, count: SSAValue, number: int) -> SSAValue:
        """A count in all lanes, one more in lanes that have an index of the rest."""
        code = self.code
        less = code.broadcast(count)
        more = code.broadcast(code.add(count, 1))
        return code.make(arith.SelectOp, (self.is_left[number], more, less), less.type)

    def _mask(self, index: SSAValue) -> Callable[[int, int], SSAValue]:
        return lambda copy, number: self.is_left[number]

    def _chunk(
        self,
        index: SSAValue,
        length: SSAValue,
        masked: bool,
        states: Sequence[SSAValue],
    ) -> list[SSAValue]:
        self.code.masked_axis = self.LANE if masked else None
        found = super()._chunk(index, length, masked, states)
        self.code.masked_axis = None
        return found

    def _fill_chunk(self, staged: Staged, masked: bool) -> None:
        code = self.code
        if masked:
            last = code.sub(code.sub(self.last, self.whole), 1)
            code.lanes = replace(self.lanes, last=last)
        self.kernel.fill(staged, self._range)
        code.lanes = self.lanes

    # Merging.

    def _finish(self, states: list[SSAValue]) -> None:
        """Merge what the lanes have, and let it be known as scalars."""
        code = self.code
        self._hold("lane", states)
        counts = [self._with_one_more(self.rows, number) for number in self.numbers()]
        code.held[Held("count", "lane")] = counts
        code.held[Held("count", "total")] = [self.span]
        for group in self.pass_.groups:
            self._merge(group)

    def _merge(self, group: Group) -> None:
        code = self.code
        if not group.pivots:
            for a in group.accumulators:
                self._combine_lanes(a, self._state(a, "lane", True), "final")
            return
        own = any(
            isinstance(t.kind, Held) and t.kind.version in ("old", "peek")
            for r in group.pivots
            for t in walk(r.value)
        )
        if not own:
            for r in group.pivots:
                value = code.value(self._bind(r.value, group, "", "final"))
                code.held[Held(r.name, "final")] = [value]
            for a in group.accumulators:
                self._combine_lanes(a, self._moved(a, group, "final"), "final")
            return
        if any(a.axes for a in group.accumulators):
            raise NotLifted("rows relative to pivots that depend on them, in lanes")
        # All lanes are carried over to the pivots of the first one.
        for r in group.pivots:
            first = code.held[Held(r.name, "lane")][0]
            lane = code.emit(vector.ExtractOp(first, [0], r.type))
            code.held[Held(r.name, "first")] = [lane]
        for a in group.accumulators:
            self._combine_lanes(a, self._moved(a, group, "first"), "together")
        for r in group.pivots:
            value = code.value(self._bind(r.value, group, "first", "final"))
            code.held[Held(r.name, "final")] = [value]
        for a in group.accumulators:
            together = self._state(a, "together", False)
            moved = together
            if a.move is not None:
                move = self._bind(a.move, group, "first", "final", "together")
                moved = self._if_any(move, together, "total", ())
            code.held[Held(a.name, "final")] = [code.value(moved)]

    def _state(self, a: Accumulator, version: str, in_lanes: bool) -> Term:
        axes = (*((self.LANE,) if in_lanes else ()), *a.axes)
        indices = [self.code.terms.index(axis) for axis in axes]
        return self.code.terms.held(Held(a.name, version), indices, a.type)

    def _moved(self, a: Accumulator, group: Group, to: str) -> Term:
        """An accumulator of each lane, carried over to common pivots."""
        state = self._state(a, "lane", True)
        if a.move is None:
            return state
        move = self._bind(a.move, group, "lane", to, "lane")
        return self._if_any(move, state, "lane", (self.LANE,))

    def _if_any(
        self, moved: Term, state: Term, count: str, axes: tuple[str, ...]
    ) -> Term:
        """What a state becomes, where there is something in it."""
        terms = self.code.terms
        indices = [terms.index(axis) for axis in axes]
        many = terms.held(Held("count", count), indices)
        some = compare(terms, "sgt", many, terms.number(0, many.type))
        return terms.select(some, moved, state)

    def _bind(
        self, term: Term, group: Group, old: str, new: str, state: str = "together"
    ) -> Term:
        """Read old and new pivots, accumulators and counts of these versions."""
        terms = self.code.terms
        pivots = {r.name for r in group.pivots}
        accumulators = {a.name for a in group.accumulators}

        def visit(term: Term) -> Term:
            kind = term.kind
            if not isinstance(kind, Held) or kind.version == "final":
                return term
            if kind.name == "count":
                is_before = kind == BEFORE and old == "lane"
                version = "lane" if is_before else "total"
            elif kind.name in pivots:
                version = old if kind.version == "old" else new
            elif kind.name in accumulators:
                version = state
            else:
                version = "final"
            lane = (terms.index(self.LANE),) if version == "lane" else ()
            return terms.held(Held(kind.name, version), (*lane, *term.args), term.type)

        return terms.rewrite(term, visit)

    def _combine_lanes(self, a: Accumulator, value: Term, version: str) -> None:
        """Combine what the lanes have of an accumulator; a row in memory of its own."""
        code = self.code
        if not a.axes:
            code.held[Held(a.name, version)] = [self._across(a, value)]
            return
        sizes = [self._tile_axes()[axis] for axis in a.axes]
        memory = self.kernel.allocate(sizes, a.type)

        def loops(axes: Sequence[str], indices: list[SSAValue]) -> None:
            if not axes:
                store = memref.StoreOp.get(self._across(a, value), memory, indices)
                code.builder.insert(store)
                return

            def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with code.bound(axes[0], index, index):
                    loops(axes[1:], [*indices, index])
                return []

            size = self.number(self._tile_axes()[axes[0]])
            code.loop(self.number(0), size, 1, [], body)

        loops(a.axes, [])
        code.buffers[a.name] = Buffer(memory, a.axes, has_lanes=False)

    def _across(self, a: Accumulator, value: Term) -> SSAValue:
        code = self.code
        found = [code.vector(value, 0, number) for number in self.numbers()]
        total = found[0]
        for other in found[1:]:
            total = code.apply(a.function, total, other)
        kind = _REDUCTIONS[a.function, kind_of(a.type)]
        return reduced(code, kind, total)


_REDUCTIONS = {
    ("add", "float"): "add",
    ("mul", "float"): "mul",
    ("max", "float"): "maximumf",
    ("min", "float"): "minimumf",
    ("add", "int"): "add",
    ("mul", "int"): "mul",
    ("max", "int"): "maxsi",
    ("min", "int"): "minsi",
    ("and", "bool"): "and",
    ("or", "bool"): "or",
    ("xor", "bool"): "xor",
}


def _compare(
    code: VectorCode, predicate: str, left: SSAValue, right: SSAValue
) -> SSAValue:
    from xdsl.dialects.builtin import IntegerAttr

    number = {"slt": 2, "sge": 5}[predicate]
    type_ = left.type
    result: Attribute = i1
    if isinstance(type_, VectorType):
        result = VectorType(i1, type_.get_shape())
    properties: dict[str, Attribute] = {"predicate": IntegerAttr(number, i64)}
    return code.make(arith.CmpiOp, (left, right), result, properties)


def reduced(code: VectorCode, kind: str, value: SSAValue) -> SSAValue:
    """All lanes of a vector combined into one scalar."""
    from xdsl.dialects.vector import CombiningKindAttr, CombiningKindFlag

    type_ = value.type
    assert isinstance(type_, VectorType)
    # xDSL's constructor gives the result the type of the vector.
    op = vector.ReductionOp.create(
        operands=[value],
        result_types=[type_.element_type],
        properties={
            "kind": CombiningKindAttr(CombiningKindFlag(kind)),
            "fastmath": FastMathFlagsAttr([FastMathFlag.REASSOC]),
        },
    )
    return code.emit(op)


def _contracts(nest: Nest) -> bool:
    """Whether a nest has folds inside."""
    from moa_dialect.lowering.tiles import item_terms

    return any(
        isinstance(inner.kind, Folded | ChunkFold)
        for item in nest.items
        for term in item_terms(item)
        for inner in walk(term)
    )


class _Epilogue:
    """The outputs of a kernel."""

    def __init__(self, kernel: KernelCode):
        self.kernel = kernel
        self.code = kernel.code
        self.number = kernel.number

    def emit(self) -> None:
        """Emit the outputs, those over the same axes together."""
        groups: dict[tuple[str, ...], list[Output]] = {}
        for output in self.kernel.kernel.outputs:
            groups.setdefault(output.axes, []).append(output)
        for axes, outputs in groups.items():
            if self.kernel.lane:
                self._group(axes, outputs)
            else:
                self._in_rows(axes, outputs)

    def _in_rows(self, axes: tuple[str, ...], outputs: Sequence[Output]) -> None:
        """Outputs of a kernel whose own axes are not in the lanes: a row axis is."""
        code, schedule = self.code, self.kernel.schedule
        if not axes:
            with code.lane_index(self.number(0)):
                self._group(axes, outputs)
            return
        *others, lane = axes
        size = self.kernel.static(lane)
        if size is None:
            raise NotLifted("rows of an extent that types do not give")
        for output in outputs:
            _, strides = self.kernel.outputs[output.number]
            if strides[-1] is not self.number(1):
                raise NotLifted("rows whose elements do not lie next to each other")
        if not size:
            return
        lanes = min(schedule.lanes, 1 << (size.bit_length() - 1))
        vectors = max(1, min(schedule.vectors, size // lanes))
        width = lanes * vectors

        def block(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            base = code.min(index, size - width)
            code.lanes = Lanes(lane, base, lanes, vectors)
            self._group(tuple(others), outputs)
            return []

        outer = code.lanes
        code.loop(self.number(0), self.number(size), width, [], block)
        code.lanes = outer

    def _group(self, axes: tuple[str, ...], outputs: Sequence[Output]) -> None:
        kernel, code = self.kernel, self.code
        lane = code.lanes.axis
        states = kernel.state_axes((lane,) if kernel.lane else ())
        resolve = Chunk(code.terms, states).resolve
        if kernel.blocked:
            axes = (kernel.blocked, *axes)
        statements = [
            Statement(f"o{o.number}", axes, resolve(o.value), Target.OUTPUT)
            for o in outputs
        ]
        tile_axes: dict[str, int] = {}
        for axis in axes:
            size = kernel.static(axis)
            if size is None:
                raise NotLifted("rows of an extent that types do not give")
            tile_axes[axis] = size
        tag = f"e{outputs[0].number}"
        statements, staged = kernel.stage(statements, tile_axes, "s" + tag)
        statements = materialize(code.terms, statements, axes, tag)

        def whole(axis: str) -> Range:
            size = tile_axes.get(axis, kernel.sizes.get(axis))
            assert size is not None
            return Range(kernel.start_of(axis), self.number(size), size)

        for item in staged:
            kernel.fill(item, whole)
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
                    code.buffers[item.name] = Buffer(memory, item.axes)

        def extents(axis: str) -> tuple[SSAValue, int | None]:
            return self.number(sizes[axis]), sizes[axis]

        turned: dict[int, Buffer] = {}
        for number, output in outputs.items():
            if not self._is_contiguous(output):
                element = memory_element(output.value.type)
                rows = kernel.rows_of(output)
                dims = [sizes[axis] for axis in rows]
                memory = kernel.allocate([*dims, code.lanes.width], element)
                turned[number] = Buffer(memory, rows)

        def store(
            statement: Statement, value: SSAValue, copy: int, vector_: int
        ) -> None:
            number = int(statement.name[1:])
            value = _stored(code, value)
            lane = vector_ * code.lanes.lanes
            if number in turned:
                buffer = turned[number]
                indices = [code.local_index(axis, copy) for axis in buffer.axes]
                code.builder.insert(
                    vector.StoreOp(value, buffer.memory, [*indices, self.number(lane)])
                )
                return
            memory, address = self._address(outputs[number], code.lanes.base, copy)
            if code.scalar_lane is not None:
                code.builder.insert(memref.StoreOp.get(value, memory, [address]))
                return
            address = code.add(address, lane)
            code.builder.insert(vector.StoreOp(value, memory, [address]))

        code.output = store
        for nest in nests:
            copies = (
                kernel.schedule.registers
                if _contracts(nest)
                else kernel.schedule.unroll
            )
            if not nest.axes:
                for item in nest.items:
                    assert isinstance(item, Statement)
                    if item.target is Target.OUTPUT:
                        code.results(item.value)
                        vectors = code.lanes.vectors
                        for k in range(1 if code.scalar_lane else vectors):
                            store(item, code.vector(item.value, 0, k), 0, k)
                    else:
                        code.nest(Nest((), [item]), extents, 1, live, kernel.start_of)
                continue
            code.nest(nest, extents, copies, live, kernel.start_of)
        for number, buffer in turned.items():
            self._turn_out(outputs[number], buffer, sizes)

    def _is_contiguous(self, output: Output) -> bool:
        """Whether the lanes of an output lie next to each other, all of them."""
        code = self.code
        if code.lanes.last is not None:
            return False
        _, strides = self.kernel.outputs[output.number]
        if code.scalar_lane is not None:
            return True
        axes = (*self.kernel.kernel.axes, *output.axes)
        return strides[axes.index(code.lanes.axis)] is self.number(1)

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

    def _turn_out(self, output: Output, buffer: Buffer, sizes: dict[str, int]) -> None:
        """Copy an output from its tile to its memory, lane by lane."""
        code, kernel = self.code, self.kernel
        count = code.lanes.lanes
        _, strides = kernel.outputs[output.number]
        rank = len(kernel.kernel.axes)
        along = next(
            (
                axis
                for axis, stride in zip(output.axes, strides[rank:], strict=True)
                if stride is self.number(1) and sizes[axis] >= count
            ),
            None,
        )
        others = [axis for axis in buffer.axes if axis != along]
        skip = getattr(kernel, "skip", None)
        first = self.number(0) if skip is None else skip
        end = self.number(code.lanes.width)
        if code.lanes.last is not None:
            count_ = code.add(code.sub(code.lanes.last, code.lanes.base), 1)
            end = code.min(count_, code.lanes.width)

        def one(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            indices = [code.local[axis] for axis in buffer.axes]
            value = code.emit(memref.LoadOp.get(buffer.memory, [*indices, lane]))
            target, address = self._address(output, code.add(code.lanes.base, lane), 0)
            code.builder.insert(memref.StoreOp.get(value, target, [address]))
            return []

        def squares() -> None:
            assert along is not None
            size = sizes[along]
            whole = size - size % count

            def square(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                def group(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                    rows: list[SSAValue] = []
                    type_ = VectorType(memory_element(output.value.type), [count])
                    for k in range(count):
                        indices = [
                            code.add(index, k) if axis == along else code.local[axis]
                            for axis in buffer.axes
                        ]
                        rows.append(
                            code.emit(
                                vector.LoadOp(buffer.memory, [*indices, lane], type_)
                            )
                        )
                    columns = transposed(code, rows)
                    with code.bound(along, index, index):
                        for k, column in enumerate(columns):
                            self._store_row(
                                output, column, code.add(lane, k), first, end
                            )
                    return []

                code.loop(self.number(0), end, count, [], group)
                return []

            code.loop(self.number(0), self.number(whole), count, [], square)

            def rest(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with code.bound(along, index, index):
                    code.loop(first, end, 1, [], one)
                return []

            if size % count:
                code.loop(self.number(whole), self.number(size), 1, [], rest)

        def loops(axes: Sequence[str]) -> None:
            if not axes:
                if along is not None:
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

            code.loop(self.number(0), self.number(sizes[axis]), 1, [], body)

        loops(others)

    def _store_row(
        self,
        output: Output,
        value: SSAValue,
        lane: SSAValue,
        first: SSAValue,
        end: SSAValue,
    ) -> None:
        """Store what a lane has, unless another task does or it has no index."""
        code, kernel = self.code, self.kernel
        target, address = self._address(output, code.add(code.lanes.base, lane), 0)
        store = vector.StoreOp(value, target, [address])
        conditions: list[SSAValue] = []
        if getattr(kernel, "skip", None) is not None:
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


def _stored(code: VectorCode, value: SSAValue) -> SSAValue:
    """A value as it lies in memory: truth values take a byte."""
    type_ = value.type
    is_vector = isinstance(type_, VectorType)
    element = type_.element_type if is_vector else type_
    stored = memory_element(element)
    if stored == element:
        return value
    result = code.vector_type(stored) if is_vector else stored
    return code.make(arith.ExtUIOp, (value,), result)


def vectorize(lowering: Lowering, op: ComprehensionOp) -> bool:
    """Emit a comprehension at the top of a function as a kernel, if it has a schedule.

    Returns:
        Whether it is emitted: not if there is no vector code for it.
    """
    if SCHEDULE not in op.attributes:
        return False
    try:
        kernel = read_kernel(op, lowering.function)
        schedule = schedule_of(op, kernel)
        if schedule is None:
            return False
        _emit(lowering, kernel, schedule)
    except (NotATerm, NotLifted):
        return False
    return True


def _emit(lowering: Lowering, kernel: Kernel, schedule: Schedule) -> None:
    """Emit a kernel; nothing is emitted if that fails.

    Raises:
        NotLifted: if there is no vector code for it.
    """
    op = kernel.op
    blocked = kernel.named(schedule.blocked)
    if blocked:
        size = static_extent(kernel.extents[blocked])
        if size is None or size < schedule.block:
            raise NotLifted("a block of an axis that may be shorter")
        if kernel.passes:
            raise NotLifted("a block of an axis of a kernel with passes")
    if blocked or not schedule.lane:
        split_folds(kernel, (blocked,) if blocked else ())
    outputs: list[tuple[SSAValue, Sequence[SSAValue]]] = []
    for array in op.arrays:
        place, *copies = lowering.targets[array]
        if copies:
            raise NotLifted("a result in two places")
        place = place.permuted(op.positions(len(place.free)))
        outputs.append((place.buffer, place.free))

    def place_of(array: SSAValue) -> tuple[SSAValue, Sequence[SSAValue]]:
        place = lowering.places[array]
        return place.buffer, place.free

    block = Block()
    KernelCode(
        kernel,
        schedule,
        Builder(InsertPoint.at_end(block)),
        lowering.number,
        place_of,
        lowering.get,
        outputs,
    ).emit()
    for inner in list(block.ops):
        inner.detach()
        lowering.builder.insert(inner)
    for array in op.arrays:
        lowering.places[array] = lowering.targets[array][0]


@dataclass(frozen=True)
class ToVectorPass(ModulePass):
    """Lowers functions with schedules to loops over vectors, the rest as moa-to-onf.

    A comprehension that has a schedule (moa-lift) becomes a parallel loop over tasks;
    one that has none, or for which there is no vector code, becomes a nest of loops
    over flat addresses.
    """

    name = "moa-to-vector"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        lower_functions(op, Order.ROW, vectorize)
