"""Kernels for groups of threads: the launch, passes chunk by chunk, outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import arith, gpu, llvm, memref, scf
from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    DenseArrayBase,
    Float16Type,
    IndexType,
    IntegerAttr,
    MemRefType,
    VectorType,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.rewriter import InsertPoint

from moa_dialect.errors import CompileError
from moa_dialect.lowering.chips import LARGEST
from moa_dialect.lowering.emitter import INDEX, NotLifted, neutral
from moa_dialect.lowering.gpu_ops import (
    CLUSTER_POINTER,
    CLUSTER_SHAPE,
    SHARED_POINTER,
    FenceInitOp,
    IntToPointerOp,
    SetRegistersOp,
    TensorMapOp,
    VoteOp,
)
from moa_dialect.lowering.group_cluster import Cluster, Peers
from moa_dialect.lowering.group_products import Products
from moa_dialect.lowering.group_ring import Boxed, Ring
from moa_dialect.lowering.group_tiles import Extent, SharedMemory, Tile
from moa_dialect.lowering.group_turns import Turns
from moa_dialect.lowering.groups import (
    Across,
    Columns,
    Fragments,
    GroupCode,
    Layout,
    Pending,
    Square,
    Values,
    divides,
)
from moa_dialect.lowering.tiles import Chunk, compare
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.grid import FOLDED, Grid
from moa_dialect.passes.kernels import (
    AFTER,
    BEFORE,
    Accumulator,
    Group,
    Kernel,
    Output,
    Pass,
    all_terms,
    is_multiple,
    static_extent,
)
from moa_dialect.passes.products import (
    COPY_BYTES,
    DEPTH,
    ENGINE_WARPS,
    WIDEST,
    Ahead,
    Product,
    check_box,
    has_left_tile,
    is_long,
    is_stored,
    must_be_zero,
    padded_sizes,
    read_product,
    share_of,
    static_bound,
)
from moa_dialect.passes.terms import (
    ChunkFold,
    Combination,
    Folded,
    Held,
    Term,
    walk,
)
from moa_dialect.scalar_code import constant
from moa_dialect.types import dtype_of, memory_element


@dataclass
class GroupKernel:
    """Emits one kernel.

    Attributes:
        kernel: the kernel.
        grid: how it runs.
        builder: where code goes.
        number: gives a number at the entry of the function.
        place: gives for an array its flat memory and the strides of its axes.
        value_of: gives the value of what comes from outside.
        outputs: for each output its flat memory and the strides of its axes, those of
            the kernel first.
        extents_of: gives the extents of an array.
        most: how many bytes of shared memory a group may have.
    """

    kernel: Kernel
    grid: Grid
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    outputs: Sequence[tuple[SSAValue, Sequence[SSAValue]]]
    extents_of: Callable[[SSAValue], Sequence[SSAValue]]
    most: int = LARGEST
    code: GroupCode = field(init=False)
    shared: SharedMemory = field(init=False)
    row_axis: str = field(init=False)
    column_axis: str = field(init=False)
    row_start: SSAValue | None = None
    row_lead: SSAValue | None = None
    column_start: SSAValue | None = None
    exists: list[SSAValue | None] = field(default_factory=list[SSAValue | None])
    cluster: Cluster | None = None
    present: SSAValue | None = None

    def __post_init__(self) -> None:
        self.row_axis = self.kernel.named(self.grid.rows)
        self.column_axis = self.kernel.named(self.grid.columns)
        self.exchanges: dict[Attribute, SSAValue] = {}
        self.host = self.builder
        self.loading: list[GroupPass] = []
        self.events: list[GroupPass | None] = []
        self.count = self.chunks = self.number(0)
        self.clusters = self.grid.clusters_of(self.kernel)
        self.groups: dict[str, SSAValue] = {}

    @property
    def loaders(self) -> int:
        """How many warps have chunks loaded, and do nothing else."""
        if not self.grid.has_engine:
            return 0
        # Registers are handed over by warp groups.
        return ENGINE_WARPS if self.grid.tier == "wgmma" else 1

    @property
    def height(self) -> int:
        """How many rows a group has."""
        return 8 * self.grid.blocks * self.grid.warps if self.row_axis else 1

    def extent(self, axis: str) -> SSAValue:
        """The extent of an axis."""
        return self.value_of(self.kernel.extents[axis])

    def static(self, axis: str) -> int | None:
        """The extent of an axis as a number, None if it is not known."""
        return static_extent(self.kernel.extents[axis])

    # The launch.

    def emit(self) -> None:
        """Emit the launch of the kernel."""
        builder, entry = self.builder, self.number
        sizes: dict[str, SSAValue] = {}
        for axis in self.kernel.axes:
            # An extent that depends on data may have wrapped around.
            op = arith.MaxSIOp(self.extent(axis), entry(0))
            size = builder.insert(op).result
            if (step := self._step(axis)) > 1:
                size = builder.insert(arith.CeilDivSIOp(size, entry(step))).result
            if axis in self.clusters:
                # The last cluster may have groups that there is nothing for.
                self.groups[axis] = size
                op = arith.CeilDivSIOp(size, entry(self.clusters[axis]))
                size = builder.insert(op).result
            sizes[axis] = size
        count = entry(self.grid.cluster)
        for size in sizes.values():
            count = builder.insert(arith.MuliOp(count, size)).result
        self.count = count
        if self.grid.persistent:
            most = entry(self.grid.persistent)
            count = builder.insert(arith.MinSIOp(count, most)).result
        body = Block(arg_types=[INDEX] * 12)
        self.builder = Builder(InsertPoint.at_end(body))
        self._group(body.args[0], body.args[3], sizes)
        self.builder.insert(gpu.TerminatorOp())
        self.builder = builder
        one, threads = entry(1), entry(32 * (self.grid.warps + self.loaders))
        bytes_ = builder.insert(constant(self.shared.bytes, i32)).result
        launch = gpu.LaunchOp(
            Region(body),
            (count, one, one),
            (threads, one, one),
            dynamicSharedMemorySize=bytes_,
        )
        # Registers are handed over only if the assembler knows how many there are.
        if groups := self.grid.groups or int(self.grid.has_engine):
            number = IntegerAttr(groups, i32)
            launch.attributes["nvvm.minctasm"] = number
        if self.clusters:
            shape = DenseArrayBase.from_list(i32, [self.grid.cluster, 1, 1])
            launch.attributes[CLUSTER_SHAPE] = shape
        builder.insert(launch)

    def _group(
        self, group: SSAValue, thread: SSAValue, sizes: dict[str, SSAValue]
    ) -> None:
        """What one group of threads does."""
        layout: Layout
        if self.grid.tier == "wgmma" and (self.grid.blocks != 2 or self.grid.warps % 4):
            raise NotLifted("warp groups of four warps with 16 rows each")
        if self.row_axis and self.grid.is_square:
            layout = Square(self.grid.blocks, self.grid.warps)
        elif self.row_axis:
            layout = Fragments(self.grid.blocks, self.grid.warps)
        else:
            layout = Across(32 * self.grid.warps, self.vector())
        self.code = code = GroupCode(
            self.kernel.terms,
            self.builder,
            self.number,
            self.place,
            self.value_of,
            layout,
            thread,
            self._exchange,
            is_fast=self._is_narrow(),
            contracts=not self.grid.aligned,
        )
        if self.clusters:
            self.cluster = Cluster(code, group, self.clusters)
        self.shared = SharedMemory(
            code,
            bool(self.grid.tier),
            has_groups=self.grid.tier == "wgmma",
            most=self.most,
        )
        if self.grid.has_engine:
            self._with_engine(group, sizes)
        else:
            self._decode(group, sizes)
            self._compute()
            if self.cluster is not None:
                self.cluster.meet()  # Others may still read what the group has.
        if not self.shared.bytes:
            self.shared.base.detach()

    def _compute(self) -> None:
        """What is computed: the passes, then the outputs."""
        for pass_ in self.kernel.passes:
            GroupPass(self, pass_).emit()
        GroupOutputs(self).emit()

    def _for_tiles(
        self,
        group: SSAValue,
        sizes: dict[str, SSAValue],
        body: Callable[[], None],
    ) -> None:
        """What is done for each tile that a group has: one, or by turns.

        The ring of chunks goes on from tile to tile: how many chunks there were is
        carried.
        """
        code = self.code
        if not self.grid.persistent:
            self._decode(group, sizes)
            body()
            return

        def tile(number: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
            self._decode(number, sizes)
            self.chunks = carried[0]
            body()
            return [self.chunks]

        start = [self.number(0)]
        code.loop(group, self.count, self.grid.persistent, start, tile)
        self.chunks = self.number(0)

    def _with_engine(self, group: SSAValue, sizes: dict[str, SSAValue]) -> None:
        """The warps that compute, and those that have chunks loaded for them."""
        code = self.code
        first = 32 * self.grid.warps
        registers = registers_of(self.grid) if self.grid.tier == "wgmma" else None
        code.has_others = True
        with code.scope(computing := Block()):
            if registers is not None:
                code.builder.insert(SetRegistersOp(registers[1], True))
            self._for_tiles(group, sizes, self._compute)
            code.builder.insert(scf.YieldOp())
        code.has_others = False
        if not self.loading:
            raise NotLifted("nothing is loaded chunk by chunk")
        if self.grid.persistent and sum(len(p.rings) for p in self.loading) > 1:
            raise NotLifted("persistent: several passes")  # Each has a ring.
        if self.grid.is_behind and not any(pass_.behind for pass_ in self.loading):
            raise NotLifted("behind: expected a computed factor of a sum")
        with code.scope(making := Block()):
            for pass_ in self.loading:
                for ring in pass_.rings:
                    ring.init()
            code.builder.insert(FenceInitOp())
            code.builder.insert(scf.YieldOp())
        is_first = code.equals(code.thread, 0)
        code.builder.insert(scf.IfOp(is_first, (), Region(making)))
        if self.cluster is None:
            code.barrier()
        else:
            self.cluster.meet()
        with code.scope(loading := Block()):
            if registers is not None:
                code.builder.insert(SetRegistersOp(registers[0], False))
            is_loader = code.equals(code.thread, first)
            for number, passes in enumerate(self._until_meetings()):
                if number:  # Of all threads of the cluster, to merge states.
                    assert self.cluster is not None
                    self.cluster.meet()
                if not passes:
                    continue
                with code.scope(one := Block()):
                    for pass_ in passes:
                        for ring in pass_.rings:
                            ring.prefetch()
                    self._for_tiles(group, sizes, partial(_load, passes))
                    code.builder.insert(scf.YieldOp())
                code.builder.insert(scf.IfOp(is_loader, (), Region(one)))
            code.builder.insert(scf.YieldOp())
        computes = code.compare("slt", code.thread, first)
        regions = Region(computing), Region(loading)
        code.builder.insert(scf.IfOp(computes, (), *regions))
        if self.cluster is not None:
            self.cluster.meet()  # Others may still write to what the group has.

    def _until_meetings(self) -> list[list[GroupPass]]:
        """The passes that are loaded before each meeting of a cluster, and after all.

        A meeting is there for states to be merged, at which all threads have to come.
        """
        found: list[list[GroupPass]] = [[]]
        for event in self.events:
            if event is None:
                found.append([])
            else:
                found[-1].append(event)
        return found

    def _is_narrow(self) -> bool:
        """Whether all arrays of floats have half precision."""
        types = {
            term.type
            for term in all_terms(self.kernel)
            if term.computes(AtOp.name) and isinstance(term.type, AnyFloat)
        }
        return bool(types) and all(
            isinstance(type_, BFloat16Type | Float16Type) for type_ in types
        )

    def vector(self) -> int:
        """How many columns that lie next to each other are loaded at a time."""
        rows = [self.static(axis) for o in self.kernel.outputs for axis in o.axes[-1:]]
        bounds = [b for pass_ in self.kernel.passes for b in (pass_.lower, pass_.upper)]
        found = self.vector_of(self.grid.chunk, rows)
        while found > 1 and not all(is_multiple(b, found) for b in bounds):
            found //= 2
        return found

    def vector_of(self, chunk: int, rows: Sequence[int | None]) -> int:
        """The same of chunks of rows that have so many elements."""
        sizes = [
            dtype_of(memory_element(term.type)).itemsize
            for term in all_terms(self.kernel)
            if term.computes(AtOp.name)
        ]
        count = 16 // max(sizes, default=4)
        threads = 32 * self.grid.warps
        while count > 1 and (
            chunk % (threads * count)
            or any(size is None or size % count for size in rows)
        ):
            count //= 2
        return count

    def _exchange(self, type_: Attribute, count: int) -> SSAValue:
        """Memory in which the warps of a group exchange values of a type."""
        if type_ not in self.exchanges:
            self.exchanges[type_] = self.shared.allocate([count], type_)
        return self.exchanges[type_]

    def _decode(self, group: SSAValue, sizes: dict[str, SSAValue]) -> None:
        """Decode which indices a group has: those of rows differ first."""
        code, rest = self.code, group
        self.present = None
        if self.cluster is not None:
            group = rest = code.div(group, self.cluster.size)
        axes = [axis for axis in reversed(self.kernel.axes) if axis != self.row_axis]
        number: dict[str, SSAValue] = {}
        if self.row_axis and self.grid.span > 1 and self._is_ragged():
            number[self.row_axis], rest = self._spanned(
                group, sizes[self.row_axis], [sizes[axis] for axis in axes]
            )
        elif self.row_axis:
            axes.insert(0, self.row_axis)
        for axis in axes:
            number[axis] = code.make(arith.RemUIOp, (rest, sizes[axis]), INDEX)
            rest = code.make(arith.DivUIOp, (rest, sizes[axis]), INDEX)
        for axis in number:
            if axis == self.row_axis:
                self._decode_rows(number[axis], sizes[axis])
            elif axis == self.column_axis:
                place = self._in_cluster(axis, number[axis])
                self.column_start = code.mul(place, self.grid.width)
            else:
                code.index[axis] = self._in_cluster(axis, number[axis])

    def _in_cluster(self, axis: str, number: SSAValue) -> SSAValue:
        """Which indices of an axis a group has, by the number of its cluster.

        Where the last cluster has more groups than there are indices for, the others
        do what the last one does, and store nothing.
        """
        if self.cluster is None or axis not in self.clusters:
            return number
        code, count = self.code, self.clusters[axis]
        number = code.add(code.mul(number, count), self.cluster.digit(axis))
        static, step = self.static(axis), self._step(axis)
        if static is not None and -(-static // step) % count == 0:
            return number
        groups = self.groups[axis]
        exists = code.compare("slt", number, groups)
        if self.present is not None:
            exists = code.emit(arith.AndIOp(self.present, exists))
        self.present = exists
        return code.min(number, code.sub(groups, 1))

    def _step(self, axis: str) -> int:
        """How many indices of an axis a group has."""
        if axis == self.row_axis:
            return self.height
        return self.grid.width if axis == self.column_axis else 1

    def _is_ragged(self) -> bool:
        """Whether some rows have more to do than others."""
        return any(
            self.row_axis in bound.free
            for pass_ in self.kernel.passes
            for bound in (pass_.lower, pass_.upper)
        )

    def _spanned(
        self, group: SSAValue, rows: SSAValue, others: Sequence[SSAValue]
    ) -> tuple[SSAValue, SSAValue]:
        """Which rows, and which indices of the other axes as one number, a group has.

        The first groups have the first rows of so many indices (`Grid.span`), the next
        ones their second rows; then come the next indices, the last time fewer of them.
        """
        code, span = self.code, self.number(self.grid.span)
        all_ = self.number(1)
        for size in others:
            all_ = code.make(arith.MuliOp, (all_, size), INDEX)
        groups = code.make(arith.MuliOp, (rows, span), INDEX)
        first = code.make(arith.DivUIOp, (group, groups), INDEX)
        rest = code.make(arith.RemUIOp, (group, groups), INDEX)
        start = code.make(arith.MuliOp, (first, span), INDEX)
        count = code.min(code.sub(all_, start), span)
        row = code.make(arith.DivUIOp, (rest, count), INDEX)
        within = code.make(arith.RemUIOp, (rest, count), INDEX)
        return row, code.add(start, within)

    def _decode_rows(self, block: SSAValue, count: SSAValue) -> None:
        code, axis = self.code, self.row_axis
        if any(axis in pass_.upper.free for pass_ in self.kernel.passes):
            # The longest run first, so that no group is left over at the end.
            block = code.sub(code.sub(count, block), 1)
        along = self.clusters.get(axis, 1)
        self.row_lead = code.mul(block, self.height * along)
        self.row_start = code.mul(self._in_cluster(axis, block), self.height)
        static, extent = self.static(axis), self.extent(axis)
        code.row_axis = axis
        code.rows, self.exists = [], []
        for number in range(code.layout.rows):
            row = code.add(self.row_start, code.layout.row(code, number))
            if static is not None and static % self.height == 0:
                self.exists.append(None)
            else:
                self.exists.append(code.compare("slt", row, extent))
                row = code.min(row, code.sub(extent, 1))
            code.rows.append(row)

    def bound(self, term: Term) -> SSAValue:
        """A bound that the host knows, as a value of the host."""
        if isinstance(term.kind, SSAValue):
            return self.value_of(term.kind)
        assert term.number is not None
        return self.number(int(term.number))

    # Columns.

    def size_of(self, axis: str) -> int:
        """How many indices of an axis of columns a group has at a time."""
        if axis == self.column_axis:
            return self.grid.width
        size = self.static(axis)
        if size is None or size > WIDEST:
            raise NotLifted("rows of an extent that is long or not known")
        return size

    def columns_of(self, axis: str) -> Columns:
        """The columns of an axis that is not folded."""
        code, size = self.code, self.size_of(axis)
        extent = self.extent_of(axis)
        indices: list[SSAValue] = []
        for number in range(code.layout.count(size)):
            index = code.add(extent.start, code.layout.column(code, number))
            limit = extent.limit
            if size % 8 and limit is None:
                limit = self.extent(axis)
            if limit is not None:
                index = code.min(index, code.sub(limit, 1))
            indices.append(index)
        return Columns(indices)

    def extent_of(self, axis: str) -> Extent:
        """What a group has of an axis of rows or columns."""
        if axis == self.row_axis:
            assert self.row_start is not None
            static = self.static(axis)
            whole = static is not None and static % self.height == 0
            return Extent(self.row_start, None if whole else self.extent(axis))
        if axis == self.column_axis:
            assert self.column_start is not None
            static = self.static(axis)
            whole = static is not None and static % self.grid.width == 0
            return Extent(self.column_start, None if whole else self.extent(axis))
        return Extent(self.number(0), self.extent(axis))


@dataclass(frozen=True)
class Behind:
    """A sum to which products of matrices are added one chunk late.

    Attributes:
        name: the accumulator.
        product: what is added to it.
        start: what it is added to.
        tile: the number of the tile of the second factor.
    """

    name: str
    product: Product
    start: Term
    tile: int


class GroupPass:
    """One pass of a kernel: its states, and the loop over chunks."""

    def __init__(self, kernel: GroupKernel, pass_: Pass):
        self.kernel = kernel
        self.code = kernel.code
        self.pass_ = pass_
        self.number = kernel.number
        self.size = kernel.grid.chunk
        self.block = kernel.grid.block or self.size
        self.offset = 0
        self.products: dict[Term, Product | None] = {}
        self.tiles: dict[Term, Tile] = {}
        self.spilled: dict[Term, Tile] = {}
        self.streamed: dict[Term, dict[Term, Tile]] = {}
        self.chunk: SSAValue = kernel.number(0)
        self.ahead: list[Tile] = []
        self.rings: list[Ring] = []
        self.unread: dict[int, int] = {}
        self.place: Block | None = None
        self.early: list[Term] = []
        self.known: dict[Hashable, SSAValue] = {}
        self.under_way: list[Pending] = []
        self.pending: dict[int, int] = {}
        self.behind: list[Behind] = []
        self.partial: dict[str, str] = {}
        self.turns: Turns | None = None
        self.is_split = False
        self.part: SSAValue = kernel.number(0)
        self.whole: tuple[SSAValue, SSAValue] = self.part, self.part

    @property
    def ring(self) -> Ring:
        """The ring that its chunks are loaded into by other warps."""
        return self.rings[0]

    @property
    def once(self) -> Ring | None:
        """The tiles that other warps load once for all chunks; None if there are none.

        It is a ring of one stage, which is not filled again.
        """
        return self.rings[1] if len(self.rings) > 1 else None

    def emit(self) -> None:
        """Emit the pass; the accumulators and pivots are known afterwards."""
        kernel, code, pass_ = self.kernel, self.code, self.pass_
        code.scopes.append({})
        row = self._row()
        self.is_split = kernel.grid.merged > 1 and not row
        if row:
            # In registers as a whole: an index is where its element is.
            self.size = self.block = -(-kernel.size_of(row) // 8) * 8
            code.alike[pass_.index] = row
        self._bounds()
        axes = {
            state.name: (kernel.row_axis,) if kernel.row_axis else ()
            for other in kernel.kernel.passes
            for state in (*other.accumulators, *other.pivots)
        }
        keeps = kernel.grid.aligned and any(self.differs)
        chunk = Chunk(code.terms, axes, self._count_axes(), keeps)
        values = self.statements(chunk)
        for a in pass_.accumulators:
            for axis in a.axes:
                code.columns.setdefault(axis, kernel.columns_of(axis))
        code.columns[pass_.index] = Columns([])
        self._find_tiles(values)
        before = code.contraction
        code.contraction = self._contraction
        states = self._loop(self.start())
        if self.is_split and states:
            states = Merge(self, chunk).emit(states)
        code.contraction = before
        del code.columns[pass_.index]
        code.given, code.partial = {}, set()
        code.scopes.pop()
        self.hold("final", states)
        if self._has_shared():
            code.barrier()

    def _has_shared(self) -> bool:
        """Whether threads have filled tiles for each other."""
        loaded = [each.tile for ring in self.rings for each in ring.boxed]
        return bool(self.spilled or self.streamed) or any(
            tile not in loaded for tile in self.tiles.values()
        )

    def statements(self, chunk: Chunk) -> list[Term]:
        """What is computed of a chunk: the new states, and what they need."""
        statements = chunk.statements(self.pass_)
        self.code.given = {s.name: s.value for s in statements}
        return [s.value for s in statements]

    def _row(self) -> str:
        """The axis of states of earlier passes that this one goes over, if it does."""
        kernel, pass_ = self.kernel, self.pass_
        axes = {
            a.name: a.axes[0]
            for other in kernel.kernel.passes
            for a in other.accumulators
            if len(a.axes) == 1
        }
        terms = [a.part for a in pass_.accumulators]
        found = {
            axes[term.kind.name]
            for term in walk(*terms)
            if isinstance(term.kind, Held)
            and term.kind.name in axes
            and any(arg.kind == pass_.index for arg in term.args)
        }
        if not found:
            return ""
        row = found.pop()
        static, upper = kernel.static(row), pass_.upper
        is_whole = upper.kind is kernel.kernel.extents[row] or (
            static is not None
            and isinstance(upper.kind, SSAValue)
            and static_extent(upper.kind) == static
        )
        if found or pass_.lower.number != 0 or not is_whole:
            raise NotLifted("a pass over a part of a row")
        return row

    # Bounds.

    def _bounds(self) -> None:
        """Evaluate the bounds for the group: of the first and of the last row."""
        kernel, code, pass_ = self.kernel, self.code, self.pass_
        row = kernel.row_axis
        self.differs = [row != "" and row in b.free for b in (pass_.lower, pass_.upper)]
        ends: list[tuple[SSAValue, SSAValue]] = []
        for bound, differs in zip(
            (pass_.lower, pass_.upper), self.differs, strict=True
        ):
            if not differs:
                value = code.value(bound)
                ends.append((value, value))
                continue
            if not is_monotone(bound, row):
                raise NotLifted("a bound that does not grow with the rows")
            assert kernel.row_start is not None
            last = code.sub(kernel.extent(row), 1)
            values: list[SSAValue] = []
            for offset in (0, kernel.height - 1):
                index = code.min(code.add(kernel.row_start, offset), last)
                with code.at({row: index}):
                    values.append(code.value(bound))
            ends.append((values[0], values[1]))
        (self.first, self.full_first), (self.full_last, self.last) = ends
        if row in kernel.clusters and any(self.differs):
            self._bounds_of_cluster()
        if kernel.grid.aligned and self.differs[0]:
            self.first = code.sub(self.first, code.rem(self.first, self.size))
        if self.is_split:
            self._take_part()

    def _take_part(self) -> None:
        """Let the chunks be those of the group's part: as many in all but the last."""
        kernel, code, size = self.kernel, self.code, self.size
        assert kernel.cluster is not None
        self.whole = first, last = self.first, self.last
        span = code.max(code.sub(last, first), 0)
        chunks = code.div(code.add(span, size - 1), size)
        count = kernel.grid.merged
        each = code.div(code.add(chunks, count - 1), count)
        self.part = code.mul(each, size)
        self.first, self.last = self.part_of(kernel.cluster.digit(FOLDED))
        self.full_last = code.min(self.full_last, self.last)

    def part_of(self, number: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The bounds of the part of a group of the cluster."""
        code, (first, last) = self.code, self.whole
        skipped = code.make(arith.MuliOp, (number, self.part), INDEX)
        start = code.min(code.add(first, skipped), last)
        return start, code.min(code.add(start, self.part), last)

    def _bounds_of_cluster(self) -> None:
        """Let the chunks be those of all rows of the cluster.

        Each group of a cluster then has every chunk that one of them needs: all have
        as many loaded as they let go. Of those that it does not need itself it leaves
        out all indices, as it does for the rows that need none of a chunk.
        """
        kernel, code, pass_ = self.kernel, self.code, self.pass_
        row = kernel.row_axis
        assert kernel.row_lead is not None
        last = code.sub(kernel.extent(row), 1)
        end = kernel.height * kernel.clusters[row] - 1
        for bound, offset in ((pass_.lower, 0), (pass_.upper, end)):
            index = code.min(code.add(kernel.row_lead, offset), last)
            with code.at({row: index}):
                value = code.value(bound)
            if offset:
                self.last = value
            else:
                self.first = value

    def _count_axes(self) -> tuple[str, ...]:
        return (self.kernel.row_axis,) if any(self.differs) else ()

    def _is_whole(self) -> bool:
        """Whether every chunk is complete."""
        return not any(self.differs) and all(
            is_multiple(bound, self.size)
            for bound in (self.pass_.lower, self.pass_.upper)
        )

    # Tiles.

    def _find_tiles(self, values: Sequence[Term]) -> None:
        """Find the products of matrices, and give their factors tiles."""
        kernel, code = self.kernel, self.code
        if not kernel.row_axis:
            return
        for term in walk(*values):
            if not isinstance(term.kind, ChunkFold | Folded) or term in self.products:
                continue
            if isinstance(term.kind, ChunkFold) and not any(
                axis in term.free for axis in code.columns
            ):
                continue
            product = read_product(
                code.terms,
                term,
                kernel.row_axis,
                list(code.columns),
                f"k{len(self.products)}",
                kernel.grid.tf32,
            )
            if product is not None and not self._has_tiles(product):
                product = None
            self.products[term] = product
        if kernel.grid.has_engine and self.ahead:
            self._make_ring()

    def _has_tiles(self, product: Product) -> bool:
        """Give the factors of a product tiles, if they can have some."""
        size = self.size
        is_streamed = is_long(product)
        if product.axis != self.pass_.index:
            size = DEPTH if is_streamed else static_bound(product.fold)
            if size is None:
                return False
        if not is_stored(product.right):
            return False
        if is_streamed and not self._may_stream(product):
            return False
        sizes = {product.axis: size, self.kernel.row_axis: self.kernel.height}
        if product.columns != self.pass_.index:
            sizes[product.columns] = self.kernel.size_of(product.columns)
        else:
            sizes[product.columns] = self.size
        if has_left_tile(product, self.pass_.index, any(self.differs)):
            axes = (self.kernel.row_axis, product.axis)
            self._tile(product, product.left, axes, sizes, is_streamed)
        elif product.axis != self.pass_.index:
            return False
        axes = (product.columns, product.axis)
        self._tile(product, product.right, axes, sizes, is_streamed)
        return True

    def _may_stream(self, product: Product) -> bool:
        """Whether all threads take the same pieces of the axis of a sum."""
        own = {self.kernel.row_axis, *self.code.columns}
        return is_stored(product.left) and not product.fold.args[1].free & own

    def _tile(
        self,
        product: Product,
        term: Term,
        axes: tuple[str, str],
        sizes: dict[str, int],
        is_streamed: bool,
    ) -> None:
        tiles = self.tiles
        if is_streamed:
            tiles = self.streamed.setdefault(product.fold, {})
        if term in tiles:
            return
        across, axis = axes
        if term.computes(AtOp.name) and self.code.is_contiguous(term, across):
            axes = (axis, across)
        element = product.element
        is_chunk = self.pass_.index in term.free and not is_streamed
        stages = self.kernel.grid.stages if is_chunk else 1
        is_grouped = self.kernel.grid.tier == "wgmma" and product.is_narrow
        is_boxed = self.kernel.grid.has_engine and is_chunk
        tile = self.kernel.shared.tile(
            term,
            axes,
            padded_sizes(product, axes, sizes),
            element,
            stages,
            (is_grouped or is_boxed) and not is_streamed,
        )
        tiles[term] = tile
        if is_chunk:
            self.ahead.append(tile)

    # Chunks that other warps load.

    def _make_ring(self) -> None:
        kernel = self.kernel
        grid, count = kernel.grid, len(self.ahead)
        ring = Ring.of(kernel.shared, count, grid.stages, grid.warps)
        self.rings.append(ring)
        kernel.loading.append(self)
        kernel.events.append(self)
        for tile in self.ahead:
            ring.boxed.append(self._boxed(tile))
        still: list[Boxed] = []
        for tile in self.tiles.values():
            if tile not in self.ahead and tile.is_swizzled:
                with suppress(CompileError):
                    still.append(self._boxed(tile))
        if still:
            once = Ring.of(kernel.shared, len(still), 1, grid.warps)
            once.boxed = still
            self.rings.append(once)
        if grid.is_ahead:
            self.early = [
                fold
                for fold, product in self.products.items()
                if product is not None and self._is_early(product)
            ]
        if grid.is_behind:
            self._find_behind()
        if self.behind:
            self._find_partial()
        if grid.has_turns:
            self.turns = Turns(self.code, grid.warps // 4)

    def _find_behind(self) -> None:
        """Find what is added to accumulators, and read by nothing else."""
        given = self.code.given
        for a in self.pass_.accumulators:
            value = given[a.name]
            if not isinstance(value.kind, Combination) or len(a.axes) != 1:
                continue
            fold, start = value.args
            product = self.products.get(fold)
            if product is None or product.axis != self.pass_.index:
                continue
            numbers = self._numbers(product)
            others = [term for name, term in given.items() if name != a.name]
            is_read = any(
                isinstance(t.kind, Held) and t.kind.name == a.name
                for t in walk(*others, product.left)
            )
            if (
                product.is_narrow
                and product.left not in self.tiles
                and product.sum_type == a.type
                and len(numbers) == 1
                and self._readers(self.ring.boxed[numbers[0]].tile) == [product]
                and not is_read
            ):
                self.behind.append(Behind(a.name, product, start, numbers[0]))

    def _find_partial(self) -> None:
        """Find sums of which each thread may keep a part until the end of the pass.

        They become themselves times a factor, in each row, and the terms of a chunk.
        """
        given = self.code.given
        for a in self.pass_.accumulators:
            value = given[a.name]
            if not isinstance(value.kind, Combination) or a.axes or a.function != "add":
                continue
            fold, start = value.args
            others = [term for name, term in given.items() if name != a.name]
            is_read = any(
                t is fold or (isinstance(t.kind, Held) and t.kind.name == a.name)
                for t in walk(*others)
            )
            is_old = start.kind == Held(a.name, "old")
            is_scaled = self._factor(start, a.name) is not None
            is_kept = (is_old or is_scaled) and not is_read
            if isinstance(fold.kind, ChunkFold) and is_kept:
                self.partial[a.name] = a.function
                self.code.partial.add(fold)

    def _is_early(self, product: Product) -> bool:
        """Whether a product may be computed before a chunk is begun.

        It needs no state, and nothing else reads its tile of the chunk.
        """
        if product.fold in self.streamed or not isinstance(product.fold.kind, Folded):
            return False
        numbers = self._numbers(product)
        return bool(numbers) and all(
            self._readers(self.ring.boxed[number].tile) == [product]
            for number in numbers
        )

    def _is_read_early(self, number: int) -> bool:
        """Whether a tile is read one chunk ahead."""
        products = [self.products[fold] for fold in self.early]
        return any(p is not None and number in self._numbers(p) for p in products)

    def _boxed(self, tile: Tile) -> Boxed:
        """How the copy engine loads a tile.

        Raises:
            CompileError: if it cannot.
        """
        kernel, term = self.kernel, tile.term
        array = term.args[0].kind
        assert isinstance(array, SSAValue)
        axes = (0, 0)
        ends: dict[int, Term] = {}
        for product in self._readers(tile):
            has_left = has_left_tile(product, self.pass_.index, any(self.differs))
            of_pass = product.axis == self.pass_.index
            upper = self.pass_.upper if of_pass else product.fold.args[1]
            size = tile.sizes[tile.axes.index(product.axis)]
            must_end = must_be_zero(
                product, self.pass_.index, has_left, self._is_whole(), size
            )
            ahead = Ahead(product, term, tile.axes, tile.sizes, must_end, upper)
            axes = check_box(ahead, kernel.grid)
            if must_end:
                ends[axes[tile.axes.index(product.axis)]] = upper
        memory, strides = kernel.place(array)
        extents = list(kernel.extents_of(array))
        for axis, end in ends.items():
            extents[axis] = kernel.bound(end)
        peers: Peers | None = None
        if kernel.cluster is not None:
            found = kernel.cluster.peers(term, tile in self.ahead)
            peers = found if found.count > 1 else None
        groups = 1 if peers is None else peers.count
        rows, panels = share_of(tile.sizes, tile.element, groups)
        box = [1] * len(extents)
        box[axes[0]], box[axes[1]] = rows, tile.panel
        map_ = kernel.host.insert(TensorMapOp(memory, extents, strides[:-1], box))
        return Boxed(tile, map_.result, axes, rows, panels, peers)

    def _readers(self, tile: Tile) -> list[Product]:
        """The products that read a tile."""
        return [
            product
            for fold, product in self.products.items()
            if product is not None
            and fold not in self.streamed
            and any(self.tiles.get(f) is tile for f in (product.left, product.right))
        ]

    def load(self) -> None:
        """Have all chunks of the pass loaded; one thread does."""
        code, kernel, ring = self.code, self.kernel, self.ring
        code.scopes.append({})
        self._bounds()
        if (once := self.once) is not None:
            once.turn(self.number(0))
            for number, boxed in enumerate(once.boxed):
                self._load_tile(once, number, boxed.tile, self.first)

        numbers = range(len(ring.boxed))
        early = [number for number in numbers if self._is_read_early(number)]
        others = [number for number in numbers if number not in early]

        def one(number: int, index: SSAValue) -> None:
            self._load_tile(ring, number, ring.boxed[number].tile, index)

        def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
            (count,) = carried
            after = code.add(count, 1)
            if early:
                ring.turn(after)
                for number in early:
                    one(number, code.add(index, self.size))
            ring.turn(count)
            for number in others:
                one(number, index)
            return [after]

        zero = kernel.chunks
        if early:  # What is beyond the last chunk is loaded, too, and not used.
            with code.scope(block := Block()):
                ring.turn(zero)
                for number in early:
                    one(number, self.first)
                code.builder.insert(scf.YieldOp())
            exists = code.compare("slt", self.first, self.last)
            code.builder.insert(scf.IfOp(exists, (), Region(block)))
        found = code.loop(self.first, self.last, self.size, [zero], body)
        if kernel.grid.persistent:
            kernel.chunks = found[0]
        code.scopes.pop()

    def _load_tile(self, ring: Ring, number: int, tile: Tile, index: SSAValue) -> None:
        assert isinstance(tile.memory.type, MemRefType)
        panels = tile.memory.type.get_shape()[-3]
        ring.load(number, self._corner(tile, index), panels)

    def _corner(self, tile: Tile, start: SSAValue) -> list[SSAValue]:
        """The indices of the first element of a tile in its array."""
        code, kernel = self.code, self.kernel
        places: dict[str, SSAValue] = {}
        for axis in tile.axes:
            if axis == self.pass_.index:
                places[axis] = start
            elif axis == kernel.row_axis:
                assert kernel.row_start is not None
                places[axis] = kernel.row_start
            elif axis == kernel.column_axis:
                assert kernel.column_start is not None
                places[axis] = kernel.column_start
            else:
                places[axis] = self.number(0)
        with code.at(places):
            return [code.value(index) for index in tile.term.args[1:]]

    def _begin_reading(self, is_early: bool = False) -> None:
        """Before a chunk: which tiles are read how often."""
        if self.rings:
            blocks = self.size // self.block
            self.unread = {
                number: blocks * len(self._readers(boxed.tile))
                for number, boxed in enumerate(self.ring.boxed)
                if self._is_read_early(number) == is_early
                and not any(each.tile == number for each in self.behind)
            }
            self.place = self.code.builder.insertion_point.block

    def _end_reading(self) -> None:
        """After a chunk: no tile is read any more."""
        for number, count in self.unread.items():
            if count > 0:
                self._await(number)
                self.ring.release(number)
        self.unread = {}

    def _await(self, number: int) -> None:
        code = self.code
        key = ("filled", self.ring.memory, number)
        if code.find(key) is None:
            self.ring.await_chunk(number)
            code.scopes[-1][key] = True

    def _before_reading(self, product: Product) -> None:
        """Wait until the tiles of a product are filled, and for the turn."""
        if self.turns is not None:
            self.turns.take()
        for number in self._numbers(product):
            if self.unread.get(number, 0) < 1:
                raise NotLifted("a tile that is read again when it was let go")
            self._await(number)

    def _after_reading(self, product: Product) -> None:
        """Let the tiles of a product be filled again, if it was the last one."""
        for number in self._numbers(product):
            # What follows a branch must know whether it was let go.
            if self.unread[number] == 1 and (
                self.code.builder.insertion_point.block is not self.place
            ):
                continue
            self.unread[number] -= 1
            if not self.unread[number]:
                self.ring.release(number)

    def _numbers(self, product: Product) -> list[int]:
        if not self.rings:
            return []
        tiles = [self.tiles.get(term) for term in (product.left, product.right)]
        numbers = [self.ring.number(tile) for tile in tiles if tile is not None]
        return [number for number in numbers if number is not None]

    def _extents(self, tile: Tile, start: SSAValue) -> dict[str, Extent]:
        found: dict[str, Extent] = {}
        for axis in tile.axes:
            if axis == self.pass_.index:
                limit = None if self._is_whole() else self.last
                is_aligned = is_multiple(self.pass_.lower, COPY_BYTES)
                found[axis] = Extent(start, limit, is_aligned)
            elif axis.startswith("k"):
                fold = next(
                    p.fold for p in self.products.values() if p and p.axis == axis
                )
                upper = self.code.value(fold.args[1])
                size = tile.sizes[tile.axes.index(axis)]
                limit = None if static_bound(fold) == size else upper
                found[axis] = Extent(self.number(0), limit)
            else:
                extent = self.kernel.extent_of(axis)
                size = tile.sizes[tile.axes.index(axis)]
                if axis not in (self.kernel.row_axis, self.kernel.column_axis) and (
                    self.kernel.static(axis) == size
                ):
                    extent = Extent(extent.start)
                found[axis] = extent
        return found

    def _spill(self, product: Product) -> Tile:
        """Put the values of a computed factor into a tile that its warp reads."""
        kernel, code = self.kernel, self.code
        term = product.left
        if term not in self.spilled:
            axes = (kernel.row_axis, product.axis)
            sizes = (kernel.height, self.size)
            self.spilled[term] = kernel.shared.tile(term, axes, sizes, product.element)
        tile = self.spilled[term]
        mask = code.columns[product.axis].valid
        code.barrier()
        for row in range(len(code.rows)):
            for column in range(len(code.columns[product.axis].indices)):
                value = code.value(term, row, column)
                if mask is not None:
                    zero = code.constant(0.0, value.type)
                    value = code.select(mask(row, column), value, zero)
                place = {
                    kernel.row_axis: code.layout.row(code, row),
                    product.axis: code.layout.column(code, column),
                }
                code.store(value, tile.memory, tile.indices(code, place))
        code.barrier()
        return tile

    def _emitter(self) -> Products:
        """What emits the products of the block of a chunk."""
        return Products(
            self.code,
            self.kernel.grid.tier,
            self.tiles,
            self._spill,
            self.pass_.index,
            self.block,
            self.offset,
            self._before_reading,
            self._after_reading,
            self.kernel.grid.tall,
        )

    def _contraction(self, fold: Term, start: Term | None) -> Values | Pending:
        code = self.code
        product = self.products.get(fold)
        emitter = self._emitter()
        if product is not None and fold in self.streamed:
            return self._streamed(product, start)
        if product is not None:
            return emitter.emit(product, start)
        values: Values | None = None
        if start is not None:
            values = {place: code.value(start, *place) for place in code.every(fold)}
        return emitter.loop(fold, values)

    def _streamed(self, product: Product, start: Term | None) -> Values:
        """A product whose factors are loaded piece by piece of what is summed over."""
        kernel, code = self.kernel, self.code
        tiles = self.streamed[product.fold]
        tier = "mma" if kernel.grid.tier else ""
        emitter = Products(
            code,
            tier,
            tiles,
            self._spill,
            self.pass_.index,
            self.block,
            tall=kernel.grid.tall,
        )
        every = code.every(product.fold)
        values = emitter.start(product, start)
        upper = product.fold.args[1]
        limit = code.value(upper)
        chunk = code.add(self.chunk, self.offset)

        def step(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            code.barrier()  # Of what is read still of the piece before.
            for tile in tiles.values():
                extents = self._extents(tile, chunk)
                is_whole = is_multiple(upper, DEPTH)
                extents[product.axis] = Extent(index, None if is_whole else limit)
                kernel.shared.fill(tile, extents)
            kernel.shared.arrive()
            found = emitter.added(product, dict(zip(every, carried, strict=True)))
            return [found[place] for place in every]

        first = [values[place] for place in every]
        found = code.loop(self.number(0), limit, DEPTH, first, step)
        return emitter.rounded(product, dict(zip(every, found, strict=True)))

    # States.

    def state_places(self) -> list[tuple[str, tuple[int, int]]]:
        """The names of the states, and rows and columns of each, in their order."""
        return [
            (name, place)
            for name, _, axis in self._states()
            for place in self._places(axis)
        ]

    def _states(self) -> list[tuple[str, Attribute, str]]:
        """The states: name, type, and the axis of columns or nothing."""
        found: list[tuple[str, Attribute, str]] = []
        for a in self.pass_.accumulators:
            if len(a.axes) > 1:
                raise NotLifted("an accumulator over several axes")
            found.append((a.name, a.type, a.axes[0] if a.axes else ""))
        found += [(r.name, r.type, "") for r in self.pass_.pivots]
        return found

    def _places(self, axis: str) -> list[tuple[int, int]]:
        columns = len(self.code.columns[axis].indices) if axis else 1
        rows = max(1, len(self.code.rows))
        return [(row, column) for row in range(rows) for column in range(columns)]

    def start(self) -> list[SSAValue]:
        """What states start from."""
        code, pass_ = self.code, self.pass_
        functions = {a.name: a.function for a in pass_.accumulators}
        starts = {r.name: r.start for r in pass_.pivots}
        found: list[SSAValue] = []
        for name, type_, axis in self._states():
            for row, _ in self._places(axis):
                if name in starts:
                    found.append(code.value(starts[name], row))
                else:
                    found.append(self._identity(functions[name], type_, row))
        return found

    def _identity(self, function: str, type_: Attribute, row: int) -> SSAValue:
        """What an accumulator starts from: a sum over nothing is 0, not -0."""
        code = self.code
        unit = neutral(function, type_)
        start = code.constant(unit, type_)
        if str(unit) != "-0.0":
            return start
        if self._is_whole():
            return start
        bounds = [code.value(b, row) for b in (self.pass_.lower, self.pass_.upper)]
        key = ("some", bounds[0], bounds[1])
        is_some = code.once(key, lambda: code.compare("slt", bounds[0], bounds[1]))
        return code.select(is_some, start, code.constant(0.0, type_))

    def hold(self, version: str, values: Sequence[SSAValue]) -> None:
        """Let the values of all states be known as those of a version."""
        rest = list(values)
        for name, _, axis in self._states():
            self.code.axes[name] = axis
            places = self._places(axis)
            self.code.states[Held(name, version)] = dict(
                zip(places, rest[: len(places)], strict=True)
            )
            rest = rest[len(places) :]

    # Chunks.

    def _loop(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loop over chunks; what they need is loaded one chunk ahead."""
        kernel, code = self.kernel, self.code
        boxed = [] if self.once is None else [each.tile for each in self.once.boxed]
        still = [
            tile
            for tile in self.tiles.values()
            if tile not in self.ahead and tile not in boxed
        ]
        for tile in still:
            kernel.shared.fill(tile, self._extents(tile, self.first))
        if not self.ahead:
            if still:
                kernel.shared.arrive()

            def plain(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
                return self._chunk(index, carried)

            return code.loop(self.first, self.last, self.size, states, plain)
        stages = kernel.grid.stages
        zero = self.number(0)
        if self.rings:
            if still:
                kernel.shared.arrive()

            return self._ring_loop(states)
        self._fill(self.first, zero)

        def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
            stage, *old = carried
            if stages == 1:
                kernel.shared.arrive()
                new = self._chunk(index, old)
                code.barrier()
                self._fill(code.add(index, self.size), zero)
                return [stage, *new]
            kernel.shared.arrive()
            other = code.sub(self.number(1), stage)
            self._fill(code.add(index, self.size), other)
            for tile in self.ahead:
                tile.stage = stage
            return [other, *self._chunk(index, old)]

        results = code.loop(self.first, self.last, self.size, [zero, *states], body)
        kernel.shared.arrive()  # Of what was loaded ahead, and is not there.
        return results[1:]

    def _ring_loop(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loop over chunks that other warps load.

        Products that are computed one chunk ahead begin before all else that is done
        with a chunk, and are waited for after it.
        """
        if (once := self.once) is not None:
            once.turn(self.number(0))
            for number in range(len(once.boxed)):
                once.await_chunk(number)
        if self.turns is not None:
            self.turns.begin()
        loop = self._behind_loop if self.behind else self._ahead_loop
        found = loop(states)
        if self.turns is not None:
            self.turns.end()
        return found

    def _ahead_loop(self, states: list[SSAValue]) -> list[SSAValue]:
        code, ring, turns = self.code, self.ring, self.turns

        def body(
            index: SSAValue, carried: list[SSAValue], is_masked: bool
        ) -> list[SSAValue]:
            count, *old = carried
            after = code.add(count, 1)
            early, old = old[: len(keys)], old[len(keys) :]
            if turns is not None:
                turns.has_turn = True
            begun = self._begin_ahead(code.add(index, self.size), after)
            self.known = dict(zip(keys, early, strict=True))
            ring.turn(count)
            new = self._read(index, old, is_masked)
            if turns is not None:
                turns.take()
            return [after, *self._finish_ahead(begun, after), *new]

        zero, keys = self.kernel.chunks, self._early_keys()
        first = self._first_ahead(zero) if self.early else []
        if turns is not None:
            turns.take()
        found = self._loops(self.first, [zero, *first, *states], body)
        if self.kernel.grid.persistent:
            self.kernel.chunks = found[0]
        if turns is not None:
            turns.give()
        return found[1 + len(first) :]

    def _loops(
        self,
        first: SSAValue,
        states: list[SSAValue],
        body: Callable[[SSAValue, list[SSAValue], bool], list[SSAValue]],
    ) -> list[SSAValue]:
        """Loops over the chunks from one on: those that all rows have without masks."""
        for lower, upper, is_masked in self._parts(first):
            states = self.code.loop(
                lower,
                upper,
                self.size,
                states,
                lambda index, carried, m=is_masked: body(index, carried, m),
            )
        return states

    def _parts(self, first: SSAValue) -> list[tuple[SSAValue, SSAValue, bool]]:
        """Which chunks from one on are computed with masks."""
        code, size, last = self.code, self.size, self.last
        if self._is_whole():
            return [(first, last, False)]
        found: list[tuple[SSAValue, SSAValue, bool]] = []
        start = first
        if self.differs[0]:
            before = code.max(code.sub(self.full_first, first), 0)
            chunks = code.div(code.add(before, size - 1), size)
            start = code.min(code.add(first, code.mul(chunks, size)), last)
            found.append((first, start, True))
        inside = code.max(code.sub(self.full_last, start), 0)
        end = code.add(start, code.mul(code.div(inside, size), size))
        return [*found, (start, end, False), (end, last, True)]

    # Products that are added to sums one chunk late.

    def _behind_loop(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loop over chunks, in which sums are one chunk late.

        The products of the chunk before are begun after those that need no state, and
        computed in the background of all else. First comes a chunk for which there is
        none, at the end a product alone.
        """
        code = self.code

        def body(
            index: SSAValue, carried: list[SSAValue], is_masked: bool
        ) -> list[SSAValue]:
            count, *rest = carried
            new = self._behind_chunk(index, count, rest, len(states), is_masked)
            return [code.add(count, 1), *new]

        with code.scope(some := Block()):
            zero = self.number(0)
            begun = self._begin_ahead(self.first, zero)
            carried = [*self._finish_ahead(begun, zero), *states]
            found = self._when_full(
                self.first,
                lambda is_masked: self._behind_chunk(
                    self.first, zero, carried, len(states), is_masked
                ),
            )
            start = code.add(self.first, self.size)
            found = self._loops(start, [self.number(1), *found], body)
            count, *rest = found
            rest = rest[len(self._early_keys()) :]
            old, factors = rest[: len(states)], rest[len(states) :]
            self.hold("old", old)
            code.in_flight = []
            with self._at_turn(code.sub(count, 1)):
                self._begin_behind(factors)
                code.builder.insert(scf.YieldOp(*self._held_old()))
        with code.scope(none := Block()):
            code.builder.insert(scf.YieldOp(*states))
        return self._if_any(some, none, states)

    def _if_any(
        self, some: Block, none: Block, values: Sequence[SSAValue]
    ) -> list[SSAValue]:
        """What the first block yields if there are chunks, else what the other does.

        Args:
            some: for chunks.
            none: for no chunk.
            values: values of the types of the results.
        """
        exists = self.code.compare("slt", self.first, self.last)
        types = [value.type for value in values]
        op = scf.IfOp(exists, types, Region(some), Region(none))
        self.code.builder.insert(op)
        return list(op.results)

    def _started(self, behind: Behind) -> Values:
        """What the products of a chunk are added to.

        Where it is what there was times a factor for each row, and that is 1 for all
        rows of a warp, as it is while a maximum stays, nothing is multiplied.
        """
        code, term = self.code, behind.start
        places = code.every(behind.product.fold)
        factor = self._factor(term, behind.name)
        if factor is None:
            return {place: code.value(term, *place) for place in places}
        one = code.constant(1.0, factor.type)
        stays: SSAValue | None = None
        for row in range(len(code.rows)):
            value = code.value(factor, row)
            is_one = code.emit(arith.CmpfOp(value, one, "oeq"))
            stays = is_one if stays is None else code.emit(arith.AndIOp(stays, is_one))
        assert stays is not None
        stays = code.emit(VoteOp(code.constant(-1, i32), stays))
        old = code.states[Held(behind.name, "old")]
        values = code.finished(old) if isinstance(old, Pending) else old
        with code.scope(then := Block()):
            code.builder.insert(scf.YieldOp(*(values[place] for place in places)))
        with code.scope(other := Block()):
            found = [code.value(term, *place) for place in places]
            code.builder.insert(scf.YieldOp(*found))
        types = [values[place].type for place in places]
        op = scf.IfOp(stays, types, Region(then), Region(other))
        code.builder.insert(op)
        return dict(zip(places, op.results, strict=True))

    def _factor(self, term: Term, name: str) -> Term | None:
        """What a state is multiplied by in each row, if a term is that."""
        if not term.computes("arith.mulf"):
            return None
        for state, factor in (term.args, term.args[::-1]):
            if (
                isinstance(state.kind, Held)
                and state.kind == Held(name, "old")
                and not self.code.column_axis(factor)
            ):
                return factor
        return None

    def _held_old(self) -> list[SSAValue]:
        """The values of all states, when what is computed of them is there."""
        code = self.code
        found: list[SSAValue] = []
        for name, _, axis in self._states():
            values = code.states[Held(name, "old")]
            if isinstance(values, Pending):
                values = code.finished(values)
            parts = [values[place] for place in self._places(axis)]
            if function := self.partial.get(name):
                parts = [code.layout.reduce(code, function, part) for part in parts]
            found += parts
        return found

    @contextmanager
    def _at_turn(self, count: SSAValue) -> Generator[None]:
        """Within, tiles are those of the chunk of a number."""
        before = self.ring.stage, self.ring.phase
        self.ring.turn(count)
        yield
        self.ring.set(*before)

    def _begin_behind(self, factors: Sequence[SSAValue]) -> None:
        """Begin the products of the chunk before; the tiles are those of it."""
        code, ring = self.code, self.ring
        stage, phase = ring.stage, ring.phase
        rest = list(factors)
        for each in self.behind:

            def release(product: Product, number: int = each.tile) -> None:
                before = ring.stage, ring.phase
                ring.set(stage, phase)
                ring.release(number)
                ring.set(*before)

            emitter = self._emitter()
            emitter.before = _ready
            emitter.after = release
            held = Held(each.name, "old")
            start = code.states[held]
            assert not isinstance(start, Pending)
            count = emitter.fragments(each.product)
            code.states[held] = emitter.later(each.product, start, rest[:count])
            rest = rest[count:]

    def _behind_chunk(
        self,
        index: SSAValue,
        count: SSAValue,
        carried: list[SSAValue],
        states: int,
        is_masked: bool,
    ) -> list[SSAValue]:
        """The states after a chunk, but for its products; and their first factors.

        Before them come the products that are computed one chunk ahead.

        Args:
            index: the first index of the chunk.
            count: its number.
            carried: the products that were computed ahead for it; the states before,
                but for the products of the chunk before; the first factors of those,
                or nothing for the first chunk.
            states: how many values the states are.
            is_masked: whether some rows do not have all of its indices.
        """
        code, pass_ = self.code, self.pass_
        keys, after = self._early_keys(), code.add(count, 1)
        known = dict(zip(keys, carried, strict=False))
        rest = carried[len(keys) :]
        factors = rest[states:]
        if self.turns is not None:
            self.turns.take()
        begun = self._begin_ahead(code.add(index, self.size), after)
        self.ring.turn(count)
        self._begin_reading()
        code.in_flight = list(begun)
        self.chunk = index
        self.hold("old", rest[:states])
        code.scopes.append(dict(known))
        code.columns[pass_.index] = self._chunk_columns(index, is_masked)
        self._begin_early()
        if factors:
            with self._at_turn(code.sub(count, 1)):
                self._begin_behind(factors)
        if self.turns is not None:
            self.turns.give()
        self._counts(index, is_masked)
        late = {each.name: each for each in self.behind}
        new: dict[str, Values] = {}
        for name, _, axis in self._states():
            if name not in late:
                value = code.given[name]
                places = self._places(axis)
                new[name] = {place: code.value(value, *place) for place in places}
        # The wait for the tile keeps the one for the products before where it is: an
        # assembler does not move it over a loop.
        for each in self.behind:
            self._emitter().prepare(each.product)
            self.ring.await_chunk(each.tile)
        for name, each in late.items():
            new[name] = self._started(each)
        found: list[SSAValue] = []
        for name, _, axis in self._states():
            values = new[name]
            for row, column in self._places(axis):
                place = (row, column) if (row, column) in values else (0, column)
                found.append(values[place])
        for each in self.behind:
            found += self._emitter().words(each.product)
        code.scopes.pop()
        self._end_reading()
        return [*self._finish_ahead(begun, after), *found]

    def _first_ahead(self, count: SSAValue) -> list[SSAValue]:
        """The products that are computed ahead of the first chunk, if there is one."""
        code = self.code
        with code.scope(some := Block()):
            begun = self._begin_ahead(self.first, count)
            found = self._finish_ahead(begun, count)
            code.builder.insert(scf.YieldOp(*found))
        with code.scope(none := Block()):
            zeros = [code.constant(0.0, value.type) for value in found]
            code.builder.insert(scf.YieldOp(*zeros))
        return self._if_any(some, none, found)

    def _early_keys(self) -> list[Hashable]:
        """What the values of the products that are computed ahead are known under."""
        return [
            self.code.key(fold, *place)
            for fold in self.early
            for place in self._places_of(fold)
        ]

    def _places_of(self, fold: Term) -> list[tuple[int, int]]:
        """The rows and columns of a product over a chunk."""
        columns = self.code.layout.count(self.size)
        rows = len(self.code.rows)
        return [(row, column) for row in range(rows) for column in range(columns)]

    def _begin_ahead(self, index: SSAValue, count: SSAValue) -> list[Pending]:
        """Begin the products of a chunk that are computed ahead, if there are any."""
        code, axis = self.code, self.pass_.index
        self.under_way = []
        if not self.early:
            return []
        self.ring.turn(count)
        self._begin_reading(is_early=True)
        code.in_flight = []
        code.scopes.append({})
        code.columns[axis] = self._chunk_columns(index, is_masked=False)
        for fold in self.early:
            found = code.begin(fold)
            if not isinstance(found, Pending):
                raise NotLifted("a product that is not in the background")
            self.under_way.append(found)
        code.scopes.pop()
        self.pending = self.unread
        return self.under_way

    def _finish_ahead(self, begun: list[Pending], count: SSAValue) -> list[SSAValue]:
        """Wait for the products that are computed ahead; gives their values."""
        if not begun:
            return []
        code = self.code
        self.ring.turn(count)
        self.unread, self.place = self.pending, code.builder.insertion_point.block
        code.in_flight = list(begun)
        found: list[SSAValue] = []
        for fold, pending in zip(self.early, begun, strict=True):
            values = code.finished(pending)
            found += [values[place] for place in self._places_of(fold)]
        self._end_reading()
        return found

    def _fill(self, index: SSAValue, stage: SSAValue) -> None:
        """Load the tiles of a chunk, if it exists."""
        code = self.code
        with code.scope(block := Block()):
            for tile in self.ahead:
                tile.stage = stage
                self.kernel.shared.fill(tile, self._extents(tile, index))
            code.builder.insert(scf.YieldOp())
        exists = code.compare("slt", index, self.last)
        code.builder.insert(scf.IfOp(exists, (), Region(block)))

    def _chunk(self, index: SSAValue, states: Sequence[SSAValue]) -> list[SSAValue]:
        """What one chunk does to the states."""
        return self._when_full(index, lambda m: self._read(index, states, m))

    def _when_full(
        self, index: SSAValue, emit: Callable[[bool], list[SSAValue]]
    ) -> list[SSAValue]:
        """Emit a chunk, with masks unless all rows have all of its indices."""
        code = self.code
        if self._is_whole():
            return emit(False)
        end = code.add(index, self.size)
        is_full = code.compare("sle", end, self.full_last)
        if self.differs[0]:
            starts = code.compare("sge", index, self.full_first)
            is_full = code.emit(arith.AndIOp(is_full, starts))
        regions: list[Region] = []
        types: list[Attribute] = []
        for is_masked in (False, True):
            with code.scope(block := Block()):
                new = emit(is_masked)
                code.builder.insert(scf.YieldOp(*new))
            types = [value.type for value in new]
            regions.append(Region(block))
        op = scf.IfOp(is_full, types, regions[0], regions[1])
        code.builder.insert(op)
        return list(op.results)

    def _read(
        self, index: SSAValue, states: Sequence[SSAValue], is_masked: bool
    ) -> list[SSAValue]:
        """The states after a chunk, whose tiles may be filled again then."""
        self._begin_reading()
        new = self._new(index, states, is_masked)
        self._end_reading()
        return new

    def _new(
        self, index: SSAValue, states: Sequence[SSAValue], is_masked: bool
    ) -> list[SSAValue]:
        """The states after a chunk, which is taken block by block.

        Products that need no state begin before all else.
        """
        code, pass_ = self.code, self.pass_
        code.in_flight = list(self.under_way)
        self.chunk = index
        self.hold("old", states)
        before = code.vectors
        if not is_masked and is_multiple(pass_.lower, code.layout.vector):
            code.vectors = before | {pass_.index}
        blocks = range(0, self.size, self.block)
        scopes: list[dict[Hashable, Any]] = [{} for _ in blocks]
        columns: list[Columns] = []
        for self.offset, scope in zip(blocks, scopes, strict=True):
            code.scopes.append(scope)
            scope |= self.known
            start = code.add(index, self.offset)
            columns.append(self._chunk_columns(start, is_masked))
            code.columns[pass_.index] = columns[-1]
            if len(blocks) > 1 or self.turns is not None:
                self._begin_early()
            code.scopes.pop()
        if self.turns is not None:
            self.turns.give()
        new: list[Values | Pending] = []
        for number, (self.offset, scope) in enumerate(zip(blocks, scopes, strict=True)):
            if number:
                for (name, _, _), values in zip(self._states(), new, strict=True):
                    code.states[Held(name, "old")] = values
            code.scopes.append(scope)
            code.columns[pass_.index] = columns[number]
            self._counts(code.add(index, self.offset), is_masked)
            new = []
            for name, _, axis in self._states():
                value = code.given[name]
                found = code.begin(value)
                if found is None:
                    places = self._places(axis)
                    found = {place: code.value(value, *place) for place in places}
                new.append(found)
            code.scopes.pop()
        self.offset = 0
        code.vectors = before
        results: list[SSAValue] = []
        for values, (_, _, axis) in zip(new, self._states(), strict=True):
            ready = code.finished(values) if isinstance(values, Pending) else values
            for row, column in self._places(axis):
                place = (row, column) if (row, column) in ready else (0, column)
                results.append(ready[place])
        return results

    def _begin_early(self) -> None:
        """Begin the products in the background that depend on no states."""
        for fold, product in self.products.items():
            if product is not None and isinstance(fold.kind, Folded):
                self.code.begin(fold)

    def _counts(self, index: SSAValue, is_masked: bool) -> None:
        """How many indices are accounted for before and after a chunk."""
        code = self.code
        end = code.add(index, self.block)
        if is_masked:
            index, end = code.min(index, self.last), code.min(end, self.last)
        for held, at in ((BEFORE, index), (AFTER, end)):
            code.states[held] = self.counted(self.first, at)

    def counted(self, first: SSAValue, last: SSAValue) -> Values:
        """How many indices there are from one on and before another one."""
        code, pass_ = self.code, self.pass_
        if not any(self.differs):
            return {(0, 0): code.sub(last, first)}
        counts: Values = {}
        for row in range(len(code.rows)):
            low, high = (code.value(b, row) for b in (pass_.lower, pass_.upper))
            if self.is_split:
                low = code.max(low, first)
            count = code.max(code.sub(code.min(high, last), low), 0)
            counts[row, 0] = count
        return counts

    def _chunk_columns(self, index: SSAValue, is_masked: bool) -> Columns:
        code, layout, pass_ = self.code, self.code.layout, self.pass_
        found: list[SSAValue] = []
        for number in range(layout.count(self.block)):
            column = code.add(index, layout.column(code, number))
            if is_masked:
                column = code.min(column, code.sub(self.last, 1))
            found.append(column)
        if not is_masked:
            return Columns(found)

        def valid(row: int, column: int) -> SSAValue:
            row = row if any(self.differs) else 0
            key = ("valid", row, column)
            return code.once(key, lambda: emit_valid(row, column))

        def within(bound: Term, row: int) -> SSAValue:
            """Where a bound is, from a thread's first column: in 32 bits."""
            first = code.add(index, layout.column(code, 0))
            distance = code.sub(code.value(bound, row), first)
            distance = code.min(code.max(distance, 0), self.block)
            return code.emit(arith.IndexCastOp(distance, i32))

        def emit_valid(row: int, column: int) -> SSAValue:
            offset = code.constant(layout.offset(column), i32)
            key = ("within", row)
            end = code.once(key, lambda: within(pass_.upper, row))
            inside = code.emit(arith.CmpiOp(offset, end, "slt"))
            if self.differs[0]:
                key = ("from", row)
                start = code.once(key, lambda: within(pass_.lower, row))
                above = code.emit(arith.CmpiOp(offset, start, "sge"))
                inside = code.emit(arith.AndIOp(inside, above))
            return inside

        return Columns(found, valid)


class Merge:
    """The states of the groups of a cluster that have parts of a pass, merged.

    What a group contributes is what its part made of the accumulators, moved from its
    pivots to new ones; so it is a pass over the groups, with the same functions, pivots
    and moves. Each thread reads what the thread of the same number has in the shared
    memory of each group, in their order, and all groups have the states afterwards.
    """

    def __init__(self, pass_: GroupPass, chunk: Chunk):
        self.of, self.chunk = pass_, chunk
        self.kernel, self.code = pass_.kernel, pass_.code
        assert pass_.kernel.cluster is not None
        self.cluster = pass_.kernel.cluster

    def emit(self, states: Sequence[SSAValue]) -> list[SSAValue]:
        """Merge what the groups have of the states; gives the states."""
        of, code = self.of, self.code
        places = self._publish(states)
        self.cluster.meet()
        self.kernel.events.append(None)
        before = code.given
        merge = replace(
            of.pass_,
            groups=[
                replace(
                    group,
                    accumulators=[
                        replace(a, part=self._part(a, group))
                        for a in group.accumulators
                    ],
                )
                for group in of.pass_.groups
            ],
        )
        code.given = {
            statement.name: code.terms.rewrite(statement.value, _single)
            for statement in self.chunk.statements(merge)
        }

        def body(number: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
            of.hold("old", carried)
            of.hold("peer", self._fetch(places, states, number))
            start, end = of.part_of(number)
            first, _ = of.whole
            code.states[BEFORE] = of.counted(first, start)
            code.states[AFTER] = of.counted(first, end)
            code.states[_COUNT] = of.counted(start, end)
            return [
                code.value(code.given[name], *place)
                for name, place in of.state_places()
            ]

        count = self.kernel.number(self.kernel.grid.merged)
        found = code.loop(self.kernel.number(0), count, 1, of.start(), body)
        code.given = before
        return found

    def _part(self, a: Accumulator, group: Group) -> Term:
        """What a group contributes to an accumulator: its own, moved to new pivots."""
        terms = self.code.terms
        indices = [terms.index(axis) for axis in a.axes]
        own = terms.held(Held(a.name, "peer"), indices, a.type)
        if a.move is None:
            return own
        names = {state.name for state in (*group.pivots, *group.accumulators)}

        def of_peer(term: Term) -> Term:
            kind = term.kind
            if not isinstance(kind, Held):
                return term
            if kind == BEFORE or (kind.name in names and kind.version == "old"):
                peer = replace(kind, version="peer")
                return terms.held(peer, term.args, term.type)
            return term

        many = terms.held(_COUNT, ())
        is_some = compare(terms, "sgt", many, terms.number(0, many.type))
        return terms.select(is_some, terms.rewrite(a.move, of_peer), own)

    def _publish(self, states: Sequence[SSAValue]) -> list[tuple[SSAValue, int]]:
        """Store what each thread has of the states; gives memory and number of each."""
        code, threads = self.code, self.code.layout.threads
        counts = Counter(value.type for value in states)
        memory = {
            type_: self.kernel.shared.allocate([count, threads], _stored(type_))
            for type_, count in counts.items()
        }
        places: list[tuple[SSAValue, int]] = []
        numbers: Counter[Attribute] = Counter()
        for value in states:
            number = numbers[value.type]
            numbers[value.type] += 1
            place = [code.number(number), code.thread]
            places.append((memory[value.type], number))
            if isinstance(value.type, IndexType):
                value = code.emit(arith.IndexCastOp(value, i64))
            code.store(value, places[-1][0], place)
        return places

    def _fetch(
        self,
        places: Sequence[tuple[SSAValue, int]],
        states: Sequence[SSAValue],
        number: SSAValue,
    ) -> list[SSAValue]:
        """What the thread of the same number has in the group with a part."""
        code, threads = self.code, self.code.layout.threads
        found: list[SSAValue] = []
        for (memory, place), state in zip(places, states, strict=True):
            element = _stored(state.type)

            def start(memory: SSAValue = memory, element: Attribute = element):
                base = code.emit(memref.ExtractAlignedPointerAsIndexOp.get(memory))
                own = code.mul(code.thread, dtype_of(element).itemsize)
                word = code.emit(arith.IndexCastOp(code.add(base, own), i64))
                pointer = code.emit(IntToPointerOp(word, SHARED_POINTER))
                rank = Peers(self.cluster, (FOLDED,)).rank(number)
                return self.cluster.there(pointer, rank)

            there = code.once(("there", memory, number), start)
            pointer = llvm.GEPOp(
                there, [place * threads], element, result_type=CLUSTER_POINTER
            )
            value = code.emit(llvm.LoadOp(code.emit(pointer), element))
            if state.type == i1:
                value = code.emit(arith.TruncIOp(value, i1))
            elif isinstance(state.type, IndexType):
                value = code.emit(arith.IndexCastOp(value, INDEX))
            found.append(value)
        return found


_COUNT = Held("count", "peer")
"""How many indices the part of a group of the cluster has."""


def _stored(type_: Attribute) -> Attribute:
    """The type that values of a type have in memory."""
    return i64 if isinstance(type_, IndexType) else memory_element(type_)


def _single(term: Term) -> Term:
    """A fold over one index is what that contributes."""
    return term.args[0] if isinstance(term.kind, ChunkFold) else term


def _load(passes: Sequence[GroupPass]) -> None:
    """Have the chunks of passes loaded."""
    for pass_ in passes:
        pass_.load()


def _ready(product: Product) -> None:
    """The tiles of a product are there."""


class GroupOutputs:
    """The outputs of a kernel."""

    def __init__(self, kernel: GroupKernel):
        self.kernel = kernel
        self.code = kernel.code
        self.number = kernel.number
        self.is_by_chunks = False

    def _turn(self, row: int) -> SSAValue | None:
        """Whether a group stores the row of a number, if several have the states.

        None if it does. What is computed by chunks each of them has a part of.
        """
        kernel, code = self.kernel, self.code
        count = kernel.grid.merged
        if kernel.cluster is None or count == 1 or self.is_by_chunks:
            return None
        digit = kernel.cluster.digit(FOLDED)
        key = ("turn", row % count)
        return code.once(key, lambda: code.equals(digit, row % count))

    def emit(self) -> None:
        """Emit the outputs, one after the other."""
        kernel, code = self.kernel, self.code
        states = {
            state.name: (kernel.row_axis,) if kernel.row_axis else ()
            for pass_ in kernel.kernel.passes
            for state in (*pass_.accumulators, *pass_.pivots)
        }
        resolve = Chunk(code.terms, states).resolve
        for output in kernel.kernel.outputs:
            value = resolve(output.value)
            axes = output.axes
            if kernel.column_axis and not output.is_shared:
                axes = (kernel.column_axis, *axes)
            if len(axes) > 1:
                raise NotLifted("an output over several axes of columns")
            if not axes:
                self._rows_only(output, value)
            elif kernel.row_axis and self._is_pass(value, axes[0]):
                self._by_chunks(output, value, axes[0])
            elif kernel.row_axis:
                self._columns(output, value, axes[0])
            else:
                self._long_row(output, value, axes[0])

    def _address(self, output: Output, indices: dict[str, SSAValue]) -> SSAValue:
        """The address of an element of an output."""
        kernel, code = self.kernel, self.code
        _, strides = kernel.outputs[output.number]
        axes = [*kernel.kernel.axes, *output.axes]
        if output.is_shared:
            axes.remove(kernel.kernel.lifted)
        address = self.number(0)
        # What rows and columns share comes first.
        parts = sorted(
            zip(axes, strides, strict=True), key=lambda part: part[0] in indices
        )
        for axis, stride in parts:
            index = indices[axis] if axis in indices else code.index[axis]
            product = index
            if stride is not self.number(1):
                key = ("stride", index, stride)
                product = code.once(
                    key,
                    lambda i=index, s=stride: code.make(arith.MuliOp, (i, s), INDEX),
                )
            before, key = address, ("sum", address, product)
            address = (
                product
                if address is self.number(0)
                else code.once(key, lambda b=before, p=product: code.add(b, p))
            )
        return address

    def _store(self, output: Output, value: SSAValue, address: SSAValue) -> None:
        memory, _ = self.kernel.outputs[output.number]
        self.code.store(value, memory, [address])

    def _when(self, conditions: Sequence[SSAValue | None], body: Callable[[], None]):
        """Emit what is done only if all conditions hold."""
        code = self.code
        conditions = [self.kernel.present, *conditions]
        found = [condition for condition in conditions if condition is not None]
        if not found:
            body()
            return
        condition = found[0]
        for other in found[1:]:
            condition = code.emit(arith.AndIOp(condition, other))
        with code.scope(block := Block()):
            body()
            code.builder.insert(scf.YieldOp())
        code.builder.insert(scf.IfOp(condition, (), Region(block)))

    def _rows_only(self, output: Output, value: Term) -> None:
        """An output with one element for each row."""
        kernel, code = self.kernel, self.code
        for row in range(max(1, len(code.rows))):
            element = code.value(value, row)

            def store(row: int = row, element: SSAValue = element) -> None:
                rows = {kernel.row_axis: code.rows[row]} if code.rows else {}
                self._store(output, element, self._address(output, rows))

            exists = kernel.exists[row] if kernel.exists else None
            first = None
            if output.is_shared:  # By the groups that have the first columns.
                assert kernel.column_start is not None
                first = code.equals(kernel.column_start, 0)
            turn = self._turn(row)
            self._when([exists, turn, first, code.layout.is_first(code)], store)

    def _is_pass(self, value: Term, axis: str) -> bool:
        """Whether an output is computed by chunks of columns, which have no state.

        There may be any number of them, and sums over other indices in each.
        """
        kernel = self.kernel
        if axis in self.code.columns or axis == kernel.column_axis:
            return False
        size = kernel.static(axis)
        has_folds = any(isinstance(t.kind, Folded) for t in walk(value))
        return size is None or size > WIDEST or has_folds

    def _by_chunks(self, output: Output, value: Term, axis: str) -> None:
        """An output over rows and columns, some columns at a time."""
        terms = self.kernel.kernel.terms
        upper = terms.value(self.kernel.kernel.extents[axis])
        pass_ = Pass(axis, "", terms.number(0, INDEX), upper, [])
        self.is_by_chunks = True
        OutputPass(self, output, value, pass_).emit()
        self.is_by_chunks = False

    def _columns(self, output: Output, value: Term, axis: str) -> None:
        """An output over rows and columns."""
        kernel, code = self.kernel, self.code
        code.columns.setdefault(axis, kernel.columns_of(axis))
        extent, size = kernel.extent_of(axis), kernel.size_of(axis)
        static = kernel.static(axis)
        has_all = size % 8 == 0 and static is not None and static % size == 0

        def inside(column: int) -> SSAValue | None:
            return None if has_all else self._is_inside(extent, column, axis)

        self.store_columns(output, value, axis, inside)

    def store_columns(
        self,
        output: Output,
        value: Term,
        axis: str,
        inside: Callable[[int], SSAValue | None],
    ) -> None:
        """Store what a thread has of an output over rows and columns.

        Args:
            output: the output.
            value: its elements.
            axis: the axis of the columns, which are known.
            inside: for a column whether it exists; None if all do.
        """
        kernel, code = self.kernel, self.code
        columns = code.columns[axis]
        static = kernel.static(axis)
        _, strides = kernel.outputs[output.number]
        number = (*kernel.kernel.axes, *output.axes).index(axis)
        others = [stride for k, stride in enumerate(strides) if k != number]
        step = code.layout.vector
        while step > 1 and (
            strides[number] is not self.number(1)
            or output.value.type == i1
            or static is None
            or static % step
            or not all(divides(stride, step) for stride in others)
        ):
            step //= 2
        is_narrow = isinstance(output.value.type, BFloat16Type | Float16Type)
        in_quads = (
            is_narrow
            and step == 2
            and isinstance(code.layout, Fragments)
            and len(columns.indices) % 8 == 0
            and static is not None
            and static % 8 == 0
            and all(divides(stride, 8) for stride in others)
            and inside(0) is None
        )
        for row, index in enumerate(code.rows):
            if in_quads:
                self._store_quads(output, value, axis, row)
                continue

            def store_row(row: int = row, index: SSAValue = index) -> None:
                for column in range(0, len(columns.indices), step):
                    self._when([inside(column)], lambda c=column: store(row, index, c))

            def store(row: int, index: SSAValue, column: int) -> None:
                place = {kernel.row_axis: index, axis: columns.indices[column]}
                address = self._address(output, place)
                values = [code.value(value, row, column + k) for k in range(step)]
                if step == 1:
                    self._store(output, values[0], address)
                    return
                memory, _ = kernel.outputs[output.number]
                code.store_vector(code.joined(values), memory, [address])

            self._when([kernel.exists[row], self._turn(row)], store_row)

    def _store_quads(self, output: Output, value: Term, axis: str, row: int) -> None:
        """Store a row of narrow elements, 16 bytes at a time.

        The four lanes that share a row have two elements of each eight. Of four times
        eight each gets eight that lie side by side: their words, as a matrix of 4 x 4,
        are transposed by exchanging them with the lane beside, then with the one after.
        """
        kernel, code = self.kernel, self.code
        columns = code.columns[axis]
        memory, _ = kernel.outputs[output.number]
        lane = code.rem(code.lane, 4)
        odd = code.equals(code.rem(lane, 2), 1)
        high = code.equals(code.div(lane, 2), 1)
        for first in range(0, len(columns.indices), 8):
            words: list[SSAValue] = []
            for number in range(first, first + 8, 2):
                pair = [code.value(value, row, number + k) for k in (0, 1)]
                words.append(code.emit(llvm.BitcastOp(code.joined(pair), i32)))
            near: list[list[SSAValue]] = []  # Of two blocks the words of two lanes.
            for low, up in (words[:2], words[2:]):
                own, other = code.select(odd, up, low), code.select(odd, low, up)
                found = code.shuffled(other, 1)
                near.append(
                    [code.select(odd, found, own), code.select(odd, own, found)]
                )
            mine: list[SSAValue] = []
            theirs: list[SSAValue] = []
            for low, up in zip(*near, strict=True):
                own, other = code.select(high, up, low), code.select(high, low, up)
                found = code.shuffled(other, 2)
                mine.append(code.select(high, found, own))
                theirs.append(code.select(high, own, found))
            joined = code.joined([*mine, *theirs])
            type_ = VectorType(output.value.type, [8])
            narrow = code.emit(llvm.BitcastOp(joined, type_))
            start = code.add(columns.indices[first], code.mul(lane, 6))

            def store(start: SSAValue = start, narrow: SSAValue = narrow) -> None:
                place = {kernel.row_axis: code.rows[row], axis: start}
                address = self._address(output, place)
                code.store_vector(narrow, memory, [address])

            self._when([kernel.exists[row], self._turn(row)], store)

    def _is_inside(self, extent: Extent, column: int, axis: str) -> SSAValue:
        code = self.code
        index = code.add(extent.start, code.layout.column(code, column))
        limit = extent.limit or self.kernel.extent(axis)
        return code.compare("slt", index, limit)

    def _long_row(self, output: Output, value: Term, axis: str) -> None:
        """An output over a row that all threads share, some columns at a time."""
        kernel, code = self.kernel, self.code
        layout, start, limit = code.layout, self.number(0), kernel.extent(axis)
        _, strides = kernel.outputs[output.number]
        if strides[-1] is not self.number(1):
            raise NotLifted("rows whose elements do not lie next to each other")
        static, size = kernel.static(axis), kernel.grid.chunk
        end, before = limit, layout
        if axis == kernel.column_axis:
            assert kernel.column_start is not None
            start, size = kernel.column_start, kernel.grid.width
            end = code.add(start, 1)
            layout = Across(layout.threads, kernel.vector_of(size, [static]))
            code.layout = layout
        count = layout.vector
        has_all = static is not None and static % size == 0
        memory, _ = kernel.outputs[output.number]
        is_vector = count > 1 and output.value.type != i1

        def body(index: SSAValue, _: list[SSAValue]) -> list[SSAValue]:
            plain = [
                code.add(index, layout.column(code, number))
                for number in range(layout.count(size))
            ]
            for first in range(0, len(plain), count):
                inside = None
                if not has_all:
                    inside = code.compare("slt", plain[first], limit)
                self._when([inside], lambda f=first: store(plain, f))
            return []

        def store(plain: list[SSAValue], first: int) -> None:
            code.columns[axis] = Columns(plain)
            code.vectors = code.vectors | {axis}
            values = [code.value(value, 0, first + k) for k in range(count)]
            address = self._address(output, {axis: plain[first]})
            if is_vector:
                code.store_vector(code.joined(values), memory, [address])
            else:
                for number, element in enumerate(values):
                    self._store(output, element, code.add(address, number))
            del code.columns[axis]
            code.vectors = code.vectors - {axis}

        step = size
        if kernel.cluster is not None and kernel.grid.merged > 1:
            # Each of the groups that have the states has blocks of the row.
            skipped = code.mul(kernel.cluster.digit(FOLDED), size)
            start, step = code.add(start, skipped), size * kernel.grid.merged
        code.loop(start, end, step, [], body)
        code.layout = before


class OutputPass(GroupPass):
    """An output as a pass over chunks of its columns, which leaves no state."""

    def __init__(self, outputs: GroupOutputs, output: Output, value: Term, pass_: Pass):
        super().__init__(outputs.kernel, pass_)
        self.block = self.size
        self.outputs, self.output, self.value = outputs, output, value

    def statements(self, chunk: Chunk) -> list[Term]:
        """What is computed of a chunk."""
        return [self.value]

    def _new(
        self, index: SSAValue, states: Sequence[SSAValue], is_masked: bool
    ) -> list[SSAValue]:
        code, axis = self.code, self.pass_.index
        code.in_flight = []
        self.chunk = index
        with code.scope():
            columns = self._chunk_columns(index, is_masked)
            code.columns[axis] = columns
            # Products take all threads: not only those that have something to store.
            for place in code.every(self.value):
                code.value(self.value, *place)

            def inside(column: int) -> SSAValue | None:
                return None if columns.valid is None else columns.valid(0, column)

            self.outputs.store_columns(self.output, self.value, axis, inside)
        return []


def registers_of(grid: Grid) -> tuple[int, int] | None:
    """How many registers a thread that loads has, and one that computes.

    None if those that compute cannot have more than all have at the start: as many as
    fit a multiprocessor's 65536, which the assembler gives them if it is told how many
    groups should fit (`nvvm.minctasm`). The numbers are multiples of 8.
    """
    groups, computing = max(grid.groups, 1), grid.warps // 4
    threads = 32 * (grid.warps + ENGINE_WARPS)
    each = min(REGISTERS // (groups * threads), 255) // 8 * 8
    few = 40 if computing < 2 else 24 if computing == 2 else 32
    spare = each * (computing + 1) - few
    many = min(spare // computing // 8 * 8, 240)
    return (few, many) if each > few and many > each else None


REGISTERS = 1 << 16
"""The registers of a multiprocessor."""


def is_monotone(term: Term, axis: str, is_falling: bool = False) -> bool:
    """Whether an index never becomes less, or more, when that of an axis grows."""
    if axis not in term.free:
        return True
    if isinstance(term.kind, str):
        return not is_falling
    if term.computes("arith.addi", "arith.minsi", "arith.maxsi"):
        return all(is_monotone(arg, axis, is_falling) for arg in term.args)
    if term.computes("arith.subi"):
        left, right = term.args
        return is_monotone(left, axis, is_falling) and is_monotone(
            right, axis, not is_falling
        )
    if term.computes("arith.muli", "arith.divsi", "arith.floordivsi", "arith.divui"):
        left, right = term.args
        number = right.number
        return number is not None and number > 0 and is_monotone(left, axis, is_falling)
    return False
