"""Kernels in vectors: tasks, the memory of tiles, and loads that are staged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    bf16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from moa_dialect.lowering import chosen
from moa_dialect.lowering.narrow_tiles import fill_extended, fill_pairs
from moa_dialect.lowering.pairs import LANES
from moa_dialect.lowering.shuffles import transposed
from moa_dialect.lowering.statement_code import StatementCode
from moa_dialect.lowering.threads import AT_A_TIME, RUNS, WORK
from moa_dialect.lowering.tiles import (
    COSTLY,
    Statement,
    cost,
    steps_of,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    NotLifted,
    VectorCode,
    is_unit,
)
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.guards import divides
from moa_dialect.passes.kernels import (
    Kernel,
    Output,
    known_number,
    static_extent,
    work_of,
)
from moa_dialect.passes.lift import TILE_BYTES
from moa_dialect.passes.schedules import Schedule, vectors_of_rest
from moa_dialect.passes.strides import coefficient
from moa_dialect.passes.terms import (
    Chosen,
    ChunkFold,
    Folded,
    Held,
    Term,
    narrow_factors,
    walk,
)
from moa_dialect.types import dtype_of, memory_element

INDEX = IndexType()


_SEVERAL = 2
"""From so many operations on a factor is computed before the loop that takes it."""

LIMIT = 512
"""How many indices tiles have along axes whose extents types do not give."""

_OFTEN = 4
"""So many times rows of lanes must be read to be put next to each other first."""


_MOST_COPIES = 12
"""How many indices of an axis run at a time at most; see `moa-lift`."""


@dataclass
class Staged:
    """A load that is copied into a tile first.

    Its lanes do not lie next to each other; or it is narrow and read often, so that it
    is extended or put in pairs once.

    Attributes:
        name: the tile.
        load: what is read.
        axes: the tile axes.
        sizes: how large the tile is along them.
        element: the type it has in the tile: its own, or a wider one.
        in_pairs: the axis along which it lies in pairs (see `pairs`); or empty.
    """

    name: str
    load: Term
    axes: tuple[str, ...]
    sizes: dict[str, int]
    element: Attribute
    in_pairs: str = ""

    @property
    def key(self) -> Hashable:
        """What tells tiles apart."""
        sizes = tuple(self.sizes[axis] for axis in sorted(self.axes))
        return self.load, sizes, self.element, self.in_pairs


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
        block_length: how many of them there are, where types do not give the extent.
        is_pair: whether these are two at most; None where that makes no difference.
        columns: another axis of which a task has several indices; or empty.
        column_start: the first of those.
        skip: how many lanes have indices that the task before has too.
        before: the width of the tasks before the last one, if it is not as wide; or 0.
        packed: the tiles of rows of lanes that are packed as they are read often.
        is_for_many: whether few rows of a number that is not known have other code.
        is_bounded: whether tiles may lie along axes whose extents types do not give:
            the code is right if these are at most `limits`.
        limits: what those extents are at most.
        lengths: for the index of a fold inside how many it has, if so.
    """

    kernel: Kernel
    schedule: Schedule
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    outputs: Sequence[tuple[SSAValue, Sequence[SSAValue]]]
    code: VectorCode = field(init=False)
    tiles: list[Operation] = field(default_factory=list[Operation])
    lane: str = field(init=False)
    blocked: str = field(init=False)
    block_start: SSAValue | None = None
    block_length: SSAValue | None = None
    is_pair: SSAValue | None = None
    columns: str = field(init=False)
    column_start: SSAValue | None = None
    skip: SSAValue | None = None
    before: int = 0
    packed: set[str] = field(default_factory=set[str])
    is_for_many: bool = False
    is_bounded: bool = False
    limits: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    lengths: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])

    def __post_init__(self) -> None:
        self.lane = self.kernel.named(self.schedule.lane)
        self.blocked = self.kernel.named(self.schedule.blocked)
        self.columns = self.kernel.named(self.schedule.columns)

    def emit(self, body: Callable[[KernelCode], None]) -> None:
        """Emit a parallel loop over tasks, with what `body` emits in each."""
        kernel, schedule = self.kernel, self.schedule
        grid = [axis for axis in kernel.axes if axis != self.lane]
        # An extent that depends on data may have wrapped around.
        extents = {
            axis: self._index(arith.MaxSIOp, self.extent(axis), self.number(0))
            for axis in kernel.axes
        }
        extent: SSAValue | None = None
        if self.blocked:
            extent, size = extents[self.blocked], self.number(schedule.block)
            extents[self.blocked] = self._index(arith.CeilDivSIOp, extent, size)
        if self.columns:
            size = self.number(schedule.piece)
            all_columns = extents[self.columns]
            extents[self.columns] = self._index(arith.CeilDivSIOp, all_columns, size)
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
        rest = self._rest()

        def do() -> None:
            self._begin(task.args[0], grid, extents, blocks, extent)
            body(self)

        if rest is None:
            do()
        else:
            self._either(task.args[0], blocks, rest, do)
        self.builder.insert(scf.ReduceOp())
        self.builder = outer
        first = task.first_op
        assert first is not None
        for op in self.tiles:
            task.insert_op_before(op, first)
        zero, one = self.number(0), self.number(1)
        loop = scf.ParallelOp([zero], [tasks], [one], Region(task))
        per_task = work_of(kernel) * schedule.block * schedule.piece
        per_task *= schedule.width if self.lane else 1
        loop.attributes[WORK] = IntegerAttr(min(per_task, 2**63 - 1), i64)
        for name, number in ((RUNS, schedule.procs), (AT_A_TIME, schedule.cyclic)):
            if number:
                loop.attributes[name] = IntegerAttr(number, i64)
        outer.insert(loop)

    def _rest(self) -> Schedule | None:
        """How the last task of an axis in the lanes runs, if not as the others do."""
        schedule = self.schedule
        if not self.lane or self.blocked or schedule.aligned:
            return None
        lanes, most = schedule.lanes, schedule.vectors
        vectors = vectors_of_rest(self.kernel, self.lane, lanes, most)
        if not vectors:
            return None
        times = max(1, min(most // vectors, _MOST_COPIES // schedule.registers))
        registers = schedule.registers * times
        return replace(schedule, vectors=vectors, registers=registers)

    def _either(
        self,
        task: SSAValue,
        blocks: SSAValue,
        rest: Schedule,
        emit: Callable[[], None],
    ) -> None:
        """What a task does, the last one of an axis under a schedule of its own."""
        block = self._index(arith.RemUIOp, task, blocks)
        last = self._index(arith.SubiOp, blocks, self.number(1))
        is_last = self.builder.insert(arith.CmpiOp(block, last, "eq")).result
        usual, outer = self.schedule, self.builder
        sides: list[Region] = []
        for schedule, before in ((rest, usual.width), (usual, 0)):
            side = Block()
            self.schedule, self.before = schedule, before
            self.builder = Builder(InsertPoint.at_end(side))
            emit()
            self.builder.insert(scf.YieldOp())
            sides.append(Region(side))
        self.schedule, self.builder, self.before = usual, outer, 0
        outer.insert(scf.IfOp(is_last, [], sides[0], sides[1]))

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

        That of the blocked axis is the block's, unless the `whole` one is asked for;
        that of columns the piece's.
        """
        if axis == self.blocked and not whole:
            return self.schedule.block
        if axis == self.columns and not whole:
            return self.schedule.piece
        return static_extent(self.kernel.extents[axis])

    def most(self, extent: SSAValue) -> int | None:
        """How large an extent is at most that a tile has, None if that is not known."""
        found = static_extent(extent)
        if found is None and self.is_bounded:
            found = self.limits[extent] = LIMIT
        return found

    def length_of(self, axis: str) -> tuple[SSAValue, int | None]:
        """How many indices a task has of a row axis, also as a number if it is known.

        Raises:
            NotLifted: for rows of an extent that types do not give.
        """
        if axis == self.blocked and self.block_length is not None:
            return self.block_length, None
        size = self.static(axis)
        if size is None:
            if self.is_bounded:
                return self.extent(axis), None
            raise NotLifted("rows of an extent that types do not give")
        return self.number(size), size

    def range_of(self, axis: str) -> Range:
        """The indices that a task has of a row axis."""
        length, size = self.length_of(axis)
        size = size or self.static(axis) or LIMIT
        return Range(self.start_of(axis), length, size)

    def start_of(self, axis: str) -> SSAValue:
        """The first index that a task has of a row axis, or of the blocked axis."""
        if axis == self.columns and self.column_start is not None:
            return self.column_start
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
        extent: SSAValue | None,
    ) -> None:
        """Decode which indices a task has; `extent` is that of the blocked axis."""
        schedule = self.schedule
        index: dict[str, SSAValue] = {}
        rest = task
        if self.lane:
            block = self._index(arith.RemUIOp, task, blocks)
            if self._grows():
                # The tasks at the end are short, so that no thread waits for long.
                last = self._index(arith.SubiOp, blocks, self.number(1))
                block = self._index(arith.SubiOp, last, block)
            rest = self._index(arith.DivUIOp, task, blocks)
            width = self.before or schedule.width
            lanes = self._lane_block(block, extents[self.lane], width)
        else:
            lanes = Lanes("", self.number(0), schedule.lanes, schedule.vectors)
        for axis in reversed(grid):
            index[axis] = self._index(arith.RemUIOp, rest, extents[axis])
            rest = self._index(arith.DivUIOp, rest, extents[axis])
        if extent is not None:
            self._begin_block(index.pop(self.blocked), extents[self.blocked], extent)
        if self.columns:
            size = self.schedule.piece
            whole = self.static(self.columns, whole=True)
            if whole is not None and whole < size:
                raise NotLifted("a piece of columns of which there are fewer")
            piece = index.pop(self.columns)
            first = self._index(arith.MuliOp, piece, self.number(size))
            if whole is not None:
                last = self.number(whole - size)
            else:  # There are as many, or this code is not run.
                end = self.extent(self.columns)
                last = self._index(arith.SubiOp, end, self.number(size))
            self.column_start = self._index(arith.MinSIOp, first, last)
        code = StatementCode if schedule.each else VectorCode
        self.code = code(
            self.kernel.terms,
            self.builder,
            self.number,
            self.place,
            self.value_of,
            lanes,
            self.elsewhere,
            divides(self.kernel),
            index=index,
        )
        if self.block_length is not None:
            self.code.uneven.add(self.blocked)
            if isinstance(self.code, StatementCode):
                last = self._index(
                    arith.SubiOp, self.extent(self.blocked), self.number(1)
                )
                self.code.ends[self.blocked] = last

    def _begin_block(self, block: SSAValue, blocks: SSAValue, extent: SSAValue) -> None:
        """The indices that a task has of the blocked axis.

        If the extent is known the last block is shifted back to end with the axis. Else
        blocks are as long as makes them even, and the last one has what is left.
        """
        size = self.number(self.schedule.block)
        static = self.static(self.blocked, whole=True)
        if static is not None:
            first = self._index(arith.MuliOp, block, size)
            last = self.number(static - self.schedule.block)
            self.block_start = self._index(arith.MinSIOp, first, last)
            return
        registers = self.number(self.schedule.registers)
        if self.schedule.each:
            if not self.columns:
                raise NotLifted("rows of an extent that types do not give")
            # A pair, or as many as run at a time: the last row is there again then.
            self.block_start = self._index(arith.MuliOp, block, size)
            left = self._index(arith.SubiOp, extent, self.block_start)
            pair, is_pair = self.number(2), arith.CmpiOp(left, self.number(2), "sle")
            self.is_pair = self.builder.insert(is_pair).result
            left = self._index(arith.CeilDivSIOp, left, registers)
            left = self._index(arith.MuliOp, left, registers)
            left = self._index(arith.MinSIOp, left, size)
            choice = arith.SelectOp(self.is_pair, pair, left)
            self.block_length = self.builder.insert(choice).result
            return
        some = self._index(arith.MaxSIOp, blocks, self.number(1))
        even = self._index(arith.CeilDivSIOp, extent, some)
        even = self._index(arith.CeilDivSIOp, even, registers)
        even = self._index(arith.MuliOp, even, registers)
        even = self._index(arith.MinSIOp, even, size)
        first = self._index(arith.MuliOp, block, even)
        self.block_start = self._index(arith.MinSIOp, first, extent)
        left = self._index(arith.SubiOp, extent, self.block_start)
        self.block_length = self._index(arith.MinSIOp, left, even)

    def _grows(self) -> bool:
        """Whether tasks take longer from one to the next, as under a causal mask."""
        return any(
            self.lane in pass_.upper.free and self.lane not in pass_.lower.free
            for pass_ in self.kernel.passes
        )

    def _lane_block(self, block: SSAValue, extent: SSAValue, width: int) -> Lanes:
        """The lanes of a block; the last block is shifted back to end with the axis.

        Blocks before have this `width`.
        """
        schedule = self.schedule
        static = self.static(self.lane)
        first = self._index(arith.MuliOp, block, self.number(width))
        last: SSAValue | None = None
        base = first
        if static is None or static % width:
            own = self.number(schedule.width)
            end = self._index(arith.SubiOp, extent, own)
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

    def elsewhere(self, element: Attribute) -> SSAValue:
        """Memory that is read, in vain, instead of what is not to be read."""
        known = self.code.scopes[0]
        if (found := known.get(("elsewhere", element))) is None:
            width = self.schedule.lanes
            op = memref.AllocaOp.get(element, 64, [width])
            cast = memref.CastOp.get(op.memref, MemRefType(element, [DYNAMIC_INDEX]))
            self.tiles += [op, cast]
            found = known["elsewhere", element] = cast.dest
        return found

    def tile(
        self,
        element: Attribute,
        axes: tuple[str, ...],
        sizes: Mapping[str, int],
        names: tuple[str, ...],
        has_lanes: bool = True,
        in_pairs: str = "",
    ) -> Buffer:
        """A tile over some axes and the lanes, perhaps in pairs along an axis.

        Its arguments have these names.
        """
        dims = _dims(axes, sizes, in_pairs)
        if has_lanes:
            dims.append(self.code.lanes.width)
        memory = self.allocate(dims, i32 if in_pairs else element)
        return Buffer(memory, axes, has_lanes, in_pairs, names)

    # Staging.

    def stage(
        self,
        statements: Sequence[Statement],
        axes: dict[str, int],
        tag: str,
        unpacked: Sequence[Staged] | None = None,
    ) -> tuple[list[Statement], list[Staged]]:
        """Replace loads by tiles.

        Those whose lanes do not lie next to each other, and narrow ones that folds read
        to extend them. Sums of products of bf16 take pairs if the schedule says so.

        Args:
            statements: the statements.
            axes: the tile axes and how large tiles are along them.
            tag: how names of tiles begin.
            unpacked: the tiles there are, if rows of lanes are to be read as they are.
        """
        made: dict[Hashable, Staged] = {}
        for item in unpacked or ():
            made[item.key] = item
        known = dict(axes)
        folded: set[str] = set()
        around: tuple[str, ...] = ()
        inside: list[Term | None] = [None]
        within: list[bool] = [False]
        done: dict[Hashable, Term] = {}

        def visit(term: Term) -> Term:
            if not term.args:
                return term
            key = (
                term,
                frozenset(item for item in known.items() if item[0] in term.free),
                frozenset(folded & term.free),
                around,
                inside[-1],
                within[-1],
            )
            if key not in done:
                done[key] = staged(term)
            return done[key]

        def staged(term: Term) -> Term:
            kind = term.kind
            if isinstance(kind, ChunkFold):
                folded.add(kind.index)
                inside.append(term)
                within.append(False)
                body = self._with_pairs(term, axes, known, made, tag, visit)
                within.pop()
                inside.pop()
                folded.discard(kind.index)
                return self.kernel.terms.remake(term, [body])
            if isinstance(kind, Folded):
                bounds = [visit(arg) for arg in term.args[:2]]
                size, outer = self._fold_size(term), known.pop(kind.index, None)
                if size is not None:
                    known[kind.index] = size
                folded.add(kind.index)
                inside.append(term)
                within.append(False)
                body = self._with_pairs(term, axes, known, made, tag, visit)
                within.pop()
                inside.pop()
                folded.discard(kind.index)
                known.pop(kind.index, None)
                if outer is not None:
                    known[kind.index] = outer
                return self.kernel.terms.remake(term, [*bounds, body])
            is_load = term.computes(AtOp.name) or isinstance(kind, Chosen)
            if is_load and self.code.is_vector(term):
                if not self.code.is_contiguous(term):
                    return self._staged(term, known, made, tag)
                rows = prod(axes[axis] for axis in around if axis not in term.free)
                is_packed = self._is_packed(term, rows, folded, known)
                if unpacked is None and is_packed:
                    found = self._staged(term, known, made, tag)
                    assert isinstance(found.kind, Held)
                    self.packed.add(found.kind.name)
                    return found
            if term.computes(arith.ExtFOp.name) and (
                term.args[0].computes(AtOp.name) or self._is_apart(term.args[0])
            ):
                found = self._extended(term, folded, known, made, tag)
                if found is not None:
                    return found
            once = not within[-1] and self._is_computed_once(term, inside[-1], known)
            if once:
                return self._staged(term, known, made, tag)
            if isinstance(kind, Chosen):
                return chosen_of(term)
            # A tile of its own has what it is computed of in one piece.
            within.append(within[-1] or is_tile(term))
            args = [visit(arg) for arg in term.args]
            within.pop()
            return self.kernel.terms.remake(term, args)

        def is_tile(term: Term) -> bool:
            """Whether a term in a fold is to be a tile: see `materialize`."""
            fold = inside[-1]
            if fold is None or fold.args[-1] is term or cost(term) < COSTLY:
                return False
            assert isinstance(fold.kind, Folded | ChunkFold)
            return not {*around, fold.kind.index} <= term.free

        def chosen_of(term: Term) -> Term:
            """A load that is chosen: only what it takes to find it may be staged."""
            if not term.args:
                return term
            sides = [chosen_of(s) for s in term.args[1:]]
            if term.computes(AtOp.name):
                sides = [visit(index) for index in term.args[1:]]
            return self.kernel.terms.remake(term, [visit(term.args[0]), *sides])

        found: list[Statement] = []
        for s in statements:
            around = s.axes
            found.append(Statement(s.name, s.axes, visit(s.value), s.target))
        return found, list(made.values())

    def _is_computed_once(
        self, term: Term, fold: Term | None, known: Mapping[str, int]
    ) -> bool:
        """Whether a factor in a fold is computed into a tile first.

        In lanes if the fold reads it often; else in vectors along the axis that it is
        read along, not where it is broadcast.
        """
        if fold is None or not isinstance(term.type, AnyFloat):
            return False
        assert isinstance(fold.kind, Folded | ChunkFold)
        if fold.kind.index not in term.free or not self.code.is_vector(fold):
            return False
        if steps_of(term) < _SEVERAL or not self._fits(term, known, term.type, ""):
            return False
        if not self.code.is_vector(term):
            return self.advances(term, self._in_order(term)[-1])
        loops = [known[axis] for axis in fold.free - term.free if axis in known]
        return prod(loops) >= _OFTEN * self.schedule.registers

    def _is_apart(self, load: Term) -> bool:
        """Whether a load is one that is chosen, whose lanes have to be staged."""
        return (
            isinstance(load.kind, Chosen)
            and self.code.is_vector(load)
            and not self.code.is_contiguous(load)
        )

    @property
    def many_rows(self) -> int:
        """How many rows have to read rows of lanes for these to be packed."""
        return _OFTEN * self.schedule.registers

    def _is_packed(
        self, load: Term, rows: int, folded: set[str], known: Mapping[str, int]
    ) -> bool:
        """Whether rows of lanes are put next to each other, since they are read often.

        In the array they are a row apart: in as many pages, and where a row's length is
        a power of 2, in few sets of the caches.
        """
        return (
            rows >= self.many_rows
            and bool(load.free & folded)
            and self._fits(load, known, load.type, "")
        )

    def _fold_size(self, fold: Term) -> int | None:
        """How many indices a fold has, if it starts from 0."""
        lower, upper = fold.args[:2]
        if lower.number != 0:
            return None
        known = known_number(upper)
        if known is None and self.is_bounded and isinstance(upper.kind, SSAValue):
            assert isinstance(fold.kind, Folded)
            self.lengths[fold.kind.index] = upper.kind
            return LIMIT
        return known

    def _staged(
        self,
        load: Term,
        known: Mapping[str, int],
        made: dict[Hashable, Staged],
        tag: str,
        element: Attribute | None = None,
        in_pairs: str = "",
    ) -> Term:
        element = element or load.type
        axes = self._axes_of(load)
        if not all(axis in known for axis in axes):
            raise NotLifted("lanes that do not lie next to each other, over no tile")
        sizes = tuple(known[axis] for axis in axes)
        key = (load, sizes, element, in_pairs)
        if key not in made:
            name = f"{tag}.{len(made)}"
            has_lanes = self.code.is_vector(load)
            if not has_lanes:
                axes = self._in_order(load, in_pairs)
            where = {axis: known[axis] for axis in axes}
            made[key] = Staged(name, load, axes, where, element, in_pairs)
            names = tuple(sorted(load.free))
            self.code.buffers[name] = self.tile(
                element, axes, where, names, has_lanes, in_pairs
            )
        indices = [self.kernel.terms.index(axis) for axis in sorted(load.free)]
        return self.kernel.terms.held(Held(made[key].name), indices, element)

    def _axes_of(self, load: Term) -> tuple[str, ...]:
        """The tile axes that a load depends on."""
        grid = {*self.kernel.axes, self.code.lanes.axis} - {self.blocked}
        return tuple(sorted(load.free - grid))

    def _in_order(self, load: Term, besides: str = "") -> tuple[str, ...]:
        """The tile axes of a load, the one last along which it can be read in vectors.

        Not that one `besides` which others come.
        """
        axes = self._axes_of(load)
        last = [a for a in axes if a != besides and self.advances(load, a)]
        return (*(axis for axis in axes if axis not in last[:1]), *last[:1])

    def _fits(
        self, load: Term, known: Mapping[str, int], element: Attribute, in_pairs: str
    ) -> bool:
        """Whether a load that has no lanes, or is put in pairs, may have a tile."""
        axes = self._axes_of(load)
        if not all(axis in known for axis in axes):
            return False
        size = prod(_dims(axes, known, in_pairs))
        if self.code.is_vector(load):
            size *= self.code.lanes.width
        return size * dtype_of(i32 if in_pairs else element).itemsize <= TILE_BYTES

    def _extended(
        self,
        term: Term,
        folded: set[str],
        known: Mapping[str, int],
        made: dict[Hashable, Staged],
        tag: str,
    ) -> Term | None:
        """The tile for a load that is extended; None if it is read as it is.

        What has no lanes is extended in vectors, once, not where it is broadcast.
        """
        load = term.args[0]
        if self.code.is_vector(load):
            is_better = not self.code.is_contiguous(load)
        else:
            is_better = (
                bool(load.free & folded)
                and self._fits(load, known, term.type, "")
                and self.advances(load, self._in_order(load)[-1])
            )
        if not is_better:
            return None
        return self._staged(load, known, made, tag, term.type)

    def _with_pairs(
        self,
        fold: Term,
        axes: Mapping[str, int],
        known: Mapping[str, int],
        made: dict[Hashable, Staged],
        tag: str,
        visit: Callable[[Term], Term],
    ) -> Term:
        """The body of a fold, with its factors in pairs if it can take pairs."""
        body, kind, code = fold.args[-1], fold.kind, self.code
        assert isinstance(kind, Folded | ChunkFold)
        index, is_chunk = kind.index, isinstance(kind, ChunkFold)
        factors = narrow_factors(body)
        is_sum = kind.function == ("add" if is_chunk else StringAttr("add"))
        if not self.schedule.pairs or not is_sum or factors is None:
            return visit(body)
        if index not in known or code.scale.get(index, 1) != 1:
            return visit(body)
        if code.lanes.lanes not in LANES or code.scalar_lane is not None:
            return visit(body)
        if not code.is_vector(factors[0]):
            factors = factors[::-1]
        lanes, other = factors
        if (
            not all(index in factor.free for factor in factors)
            or not code.is_vector(lanes)
            or code.is_vector(other)
            or not other.computes(AtOp.name)
        ):
            return visit(body)
        terms = self.kernel.terms
        place = terms.index(index)
        is_direct = self.advances(other, index)
        if not is_direct and not self._fits(other, known, bf16, index):
            return visit(body)
        if lanes.computes(AtOp.name):
            if not self._fits(lanes, known, bf16, index):
                return visit(body)
            left = self._staged(lanes, known, made, tag, in_pairs=index)
        else:
            inner = any(name.startswith("%") for name in lanes.free)
            nested = any(isinstance(t.kind, ChunkFold) for t in walk(lanes))
            if not is_chunk or index not in axes or inner or nested:
                return visit(body)
            left = visit(lanes)
        right = other
        if not is_direct:
            right = self._staged(other, known, made, tag, in_pairs=index)
        pair = [terms.in_pairs(x, place, body.type) for x in (left, right)]
        return terms.remake(body, pair)

    def fill(self, staged: Staged, ranges: Callable[[str], Range]) -> None:
        """Copy what a staged load reads into its tile."""
        code = self.code
        load = staged.load
        buffer = code.buffers[staged.name]

        def range_of(axis: str) -> Range:
            if not axis.startswith("%"):
                return ranges(axis)
            size = staged.sizes[axis]  # The index of a fold inside.
            if axis in self.lengths:
                self.limits[self.lengths[axis]] = LIMIT
                length = self.value_of(self.lengths[axis])
                return Range(self.number(0), length, size)
            return Range(self.number(0), self.number(size), size)

        if staged.in_pairs:
            fill_pairs(self, staged, range_of)
            return
        if not buffer.has_lanes:
            fill_extended(self, staged, range_of)
            return
        along = ""
        # Truth values are bytes there.
        is_whole = load.type == memory_element(load.type) or load.computes(AtOp.name)
        if is_whole and not code.is_contiguous(load):
            count = code.lanes.lanes
            for axis in staged.axes:
                if self.advances(load, axis) and range_of(axis).size >= count:
                    along = axis
        others = [axis for axis in staged.axes if axis != along]

        def inner() -> None:
            if not along:
                if code.is_contiguous(load):
                    self._copy_vectors(load, buffer)
                else:
                    self._copy_lanes(load, buffer)
                return
            whole = self._turn(load, buffer, along, range_of(along))
            axis = range_of(along)

            def rest(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with code.bound(along, code.add(axis.start, index), index):
                    self._copy_lanes(load, buffer)
                return []

            code.loop(whole, axis.length, 1, [], rest)

        self.over(others, range_of, inner)

    def over(
        self,
        axes: Sequence[str],
        ranges: Callable[[str], Range],
        body: Callable[[], None],
    ) -> None:
        """Loops over tile axes, around what `body` emits."""
        if not axes:
            body()
            return
        code = self.code
        axis, *more = axes
        range_ = ranges(axis)
        scale = code.scale.get(axis, 1)

        def one(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            first = code.add(range_.start, code.mul(index, scale))
            with code.bound(axis, first, index):
                self.over(more, ranges, body)
            return []

        code.loop(self.number(0), range_.length, 1, [], one)

    def advances(self, load: Term, axis: str) -> bool:
        """Whether the address of a load advances by one with an axis."""
        if not load.computes(AtOp.name):
            found = [x for x in chosen.loads(load) if axis in x.free]
            return bool(found) and all(self.advances(other, axis) for other in found)
        array, *indices = load.args
        assert isinstance(array.kind, SSAValue)
        if self.code.scale.get(axis, 1) != 1:
            return False
        _, strides = self.place(array.kind)
        found = False
        for index, stride in zip(indices, strides, strict=True):
            if axis not in index.free:
                continue
            if not is_unit(stride) or coefficient(index, axis) != 1:
                return False
            found = True
        return found

    def _copy_vectors(self, load: Term, buffer: Buffer) -> None:
        """Copy the elements of all lanes, which lie next to each other."""
        code = self.code
        indices = [code.local[axis] for axis in buffer.axes]
        for number in range(code.lanes.vectors):
            value = code.extended(code.value(load, 0, number), buffer)
            lane = self.number(number * code.lanes.lanes)
            code.store(value, buffer.memory, [*indices, lane])

    def _copy_lanes(self, load: Term, buffer: Buffer) -> None:
        """Copy the elements of all lanes, one by one."""
        code = self.code

        def body(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            with code.lane_index(code.lane_at(lane)):
                value = code.extended(code.value(load), buffer)
            indices = [code.local[axis] for axis in buffer.axes]
            code.store(value, buffer.memory, [*indices, lane])
            return []

        code.loop(self.number(0), self.number(code.lanes.width), 1, [], body)

    def _turn(self, load: Term, buffer: Buffer, axis: str, range_: Range) -> SSAValue:
        """Copy whole squares of lanes and indices; returns where the rest begins."""
        code = self.code
        count = code.lanes.lanes
        whole = code.mul(code.div(range_.length, count), count)
        type_ = code.vector_type(memory_element(load.type))

        def elements() -> SSAValue:
            if not load.computes(AtOp.name):
                return chosen.elements(code, load, axis, count)
            array = load.args[0].kind
            assert isinstance(array, SSAValue)
            memory, _ = self.place(array)
            address = code.address(load, 0)
            return code.emit(vector.LoadOp(memory, [address], type_))

        def square(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            def group(lane: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                rows: list[SSAValue] = []
                with code.bound(axis, code.add(range_.start, index), index):
                    for k in range(count):
                        with code.lane_index(code.lane_at(code.add(lane, k))):
                            rows.append(elements())
                for k, row in enumerate(transposed(code, rows)):
                    column = code.extended(row, buffer)
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


def _dims(axes: Sequence[str], sizes: Mapping[str, int], in_pairs: str) -> list[int]:
    """How large a tile is along its axes: half of it along the one in pairs."""
    return [(sizes[a] + 1) // 2 if a == in_pairs else sizes[a] for a in axes]
