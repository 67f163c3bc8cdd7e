"""Reads kernels with a schedule as loop nests: tasks, chunks, and what a chunk reads.

The axes of a kernel are loops over tasks, in the order in which these are taken. A task
runs its passes in chunks. What a chunk reads once, however often it uses it, is one
access for each element: the schedule chose it so that it stays in the first cache.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, gcd, prod

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from moa_dialect.cost import algebra
from moa_dialect.cost.algebra import (
    NOMINAL,
    NUMBERS,
    Algebra,
    Expr,
    cancelled,
    ceiling,
    expanded,
    number_of,
    symbols,
)
from moa_dialect.cost.extents import (
    Extents,
    Names,
    bytes_of,
    element_name,
    is_array,
    kind_of,
    without_data,
)
from moa_dialect.cost.nests import (
    Access,
    Array,
    Loop,
    Nest,
    Node,
    Work,
    average,
)
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp, ExtentOp, FixedExtentOp
from moa_dialect.passes.grid import Grid, share_named
from moa_dialect.passes.kernels import (
    Kernel,
    Output,
    Pass,
    all_terms,
    read_kernel,
    split_folds,
    static_extent,
    work_of,
)
from moa_dialect.passes.products import sharers
from moa_dialect.passes.schedules import (
    Schedule,
    element_bytes,
    last_axis,
    schedule_of,
)
from moa_dialect.passes.statement_lanes import is_read_in_turn
from moa_dialect.passes.strides import advances, is_affine, step, turning_axis
from moa_dialect.passes.terms import (
    Choice,
    Computed,
    Folded,
    Held,
    NotATerm,
    Term,
    walk,
)
from moa_dialect.types import element_of, shape_of


@dataclass(frozen=True)
class Tiling:
    """What of a schedule the cost model needs, for a CPU or a GPU.

    Attributes:
        lane: the name of the axis of which a task has several indices side by side;
            empty if folded axes are there.
        width: how many.
        chunk: how many indices of a folded axis are taken at a time; rows of `width`,
            if these are in the lanes.
        blocked: the name of another axis of which a task has several indices; or empty.
        block: how many.
        lanes: elements of a vector; 1 if there are none.
        vectors: vectors side by side.
        registers: indices of another axis that share what does not depend on it.
        pairs: whether products of bf16 are summed in pairs.
        ahead: whether what a pass reads is asked for early.
        is_vector: whether lanes are those of a vector register.
        on_threads: whether tasks are those of threads of a CPU.
    """

    lane: str
    width: int
    chunk: int
    blocked: str = ""
    block: int = 1
    lanes: int = 1
    vectors: int = 1
    registers: int = 1
    pairs: bool = False
    ahead: bool = False
    is_vector: bool = False
    on_threads: bool = False

    @staticmethod
    def of(schedule: Schedule | Grid) -> Tiling:
        """The tiling of a schedule."""
        if isinstance(schedule, Schedule) and schedule.each:
            # Rows side by side; or of one row what the lanes of a statement have.
            chunk = schedule.chunk
            if not schedule.blocked:
                chunk = max(1, chunk // schedule.width)
            return Tiling(
                schedule.blocked,
                schedule.block if schedule.blocked else schedule.width,
                chunk,
                lanes=schedule.lanes,
                vectors=schedule.vectors,
                registers=schedule.registers,
                pairs=schedule.pairs,
                ahead=schedule.ahead,
                on_threads=True,
            )
        if isinstance(schedule, Schedule):
            return Tiling(
                schedule.lane,
                schedule.width,
                schedule.chunk,
                schedule.blocked,
                schedule.block,
                schedule.lanes,
                schedule.vectors,
                schedule.registers,
                schedule.pairs,
                schedule.ahead,
                True,
                True,
            )
        if not schedule.rows:
            threads = 32 * schedule.warps
            return Tiling("", threads, max(1, schedule.chunk // threads))
        if not schedule.chunk:
            return Tiling(schedule.rows, 32 * schedule.warps, 1 << 30)
        # How many products a number that is loaded serves: as many as instructions
        # for products of matrices have rows or columns, else a thread's own.
        columns = schedule.width if schedule.columns else schedule.chunk
        registers, vectors = {
            "wgmma": (64, min(max(columns, 64), 256)),
            "mma": (8 * schedule.blocks, 64),
        }.get(schedule.tier, (8, schedule.blocks))
        return Tiling(
            schedule.rows,
            schedule.warps * schedule.blocks * 8,
            schedule.chunk,
            schedule.columns,
            schedule.width,
            vectors=vectors,
            registers=registers,
            pairs=bool(schedule.tier),
        )


def read_lifted(
    function: FuncOp,
    names: Names | None = None,
    sizes: Mapping[str, int] | None = None,
    grids: Mapping[Operation, Grid] | None = None,
) -> Nest | None:
    """Read a function at the stage fused whose comprehensions all have schedules.

    Args:
        function: the function, after moa-lift.
        names: names for the extents of its arguments, which are numbers otherwise.
        sizes: numbers for names of extents that types do not give.
        grids: for comprehensions that have a schedule for a GPU, that schedule.

    Returns:
        The loop nests, or None if a comprehension is left to plain loops.
    """
    block = function.body.block
    found = [op for op in block.ops if isinstance(op, ComprehensionOp)]
    hints = [a.name_hint or f"x{k}" for k, a in enumerate(block.args)]
    extents = Extents([a.type for a in block.args], hints, names, sizes)
    arrays = arrays_of(function, extents)
    nest = Nest([], list(arrays.values()), extents.values, launches=len(found))
    if not found:
        return None
    for op in found:
        try:
            kernel = read_kernel(op, function)
        except NotATerm:
            return None
        schedule = (grids or {}).get(op)
        if schedule is not None:
            share_named(kernel, f"{schedule}")
        else:
            schedule = schedule_of(op, kernel)
        if schedule is None:
            return None
        if isinstance(schedule, Grid) and schedule.clusters:
            _share(nest, kernel, schedule, arrays)
        before = len(nest.body)
        _add(nest, kernel, Tiling.of(schedule), arrays)
        if isinstance(schedule, Grid) and schedule.merged > 1:
            nodes = nest.body[before:]
            nest.parts |= {id(node): schedule.merged for node in nodes}
        nest.ahead = nest.ahead and len(found) == 1
    _mark_results(function, arrays)
    return nest


def _share(
    nest: Nest, kernel: Kernel, grid: Grid, arrays: dict[SSAValue, Array]
) -> None:
    """Note which arrays the groups of a cluster have loaded once for all of them."""
    clusters = {kernel.named(axis): count for axis, count in grid.clusters}
    for term in all_terms(kernel):
        array = term.args[0].kind if term.computes(AtOp.name) else None
        if isinstance(array, SSAValue) and array in arrays:
            count = sharers(term, clusters)
            known = nest.sharers.get(arrays[array], count)
            nest.sharers[arrays[array]] = min(known, count)


def arrays_of(function: FuncOp, extents: Extents) -> dict[SSAValue, Array]:
    """The arrays that a function has as arguments."""
    arrays: dict[SSAValue, Array] = {}
    for number, arg in enumerate(function.body.block.args):
        if extents.of[number] or shape_of_or_none(arg.type) == ():
            element = bytes_of(element_of(arg.type))
            hint = arg.name_hint or f"x{number}"
            arrays[arg] = Array(hint, extents.of[number], element, "argument")
    return arrays


def nest_of(
    kernel: Kernel,
    function: FuncOp,
    tiling: Tiling,
    arrays: dict[SSAValue, Array],
    nominal: int | None = None,
) -> Nest:
    """The loop nest of one kernel of a function, in numbers.

    Args:
        kernel: the kernel; its folds are passes afterwards, if the tiling needs that.
        function: the function.
        tiling: the tiling.
        arrays: the arrays that it reads, as far as they are known.
        nominal: what the extents of its results count as, if they are not to matter.
    """
    nest = Nest([], list(arrays.values()), {}, algebra=NUMBERS)
    _add(nest, kernel, tiling, arrays, nominal)
    _mark_results(function, arrays)
    return nest


def _add(
    nest: Nest,
    kernel: Kernel,
    tiling: Tiling,
    arrays: dict[SSAValue, Array],
    nominal: int | None = None,
) -> None:
    """Add the loops of a kernel to a nest."""
    reader = _Lifted(kernel, tiling, arrays, nest, nominal)
    indices = (tiling.width if tiling.lane else 1) * tiling.block
    made = reader.read()
    nest.body += made
    nest.ahead = tiling.ahead
    if tiling.is_vector:
        used = tiling.lanes * element_bytes(kernel)
        nest.used_bytes |= {id(node): used for node in made}
        nest.in_vain |= {id(node): reader.vain for node in made}
    if tiling.on_threads:
        for node in made:
            if isinstance(node, Loop):
                node.work = work_of(kernel) * indices


def _mark_results(function: FuncOp, arrays: Mapping[SSAValue, Array]) -> None:
    block = function.body.block
    returned = set(block.last_op.operands) if block.last_op is not None else set()
    for value, array in arrays.items():
        if value in returned and not isinstance(value, BlockArgument):
            array.role = "result"


def shape_of_or_none(type_: Attribute) -> tuple[int, ...] | None:
    """The shape of an array type, None for any other."""
    return shape_of(type_) if is_array(type_) else None


@dataclass
class _Lifted:
    kernel: Kernel
    tiling: Tiling
    arrays: dict[SSAValue, Array]
    nest: Nest
    nominal: int | None = None
    names: dict[str, Expr] = field(default_factory=dict[str, Expr])
    inner: dict[Expr, Loop] = field(default_factory=dict[Expr, Loop])
    tasks: list[Loop] = field(default_factory=list[Loop])
    group: Expr = None
    group_trips: Expr = None
    inside: bool = False
    folds: list[tuple[str, frozenset[str]]] = field(
        default_factory=list[tuple[str, frozenset[str]]]
    )
    repeats: frozenset[str] = frozenset()
    along: str = ""
    copies: int = 1
    chunks: Loop | None = None
    tile_axes: tuple[str, ...] = ()
    masked: float = 1.0
    rounded: float = 1.0

    @property
    def vain(self) -> float:
        """How many times more indices lanes have than there are."""
        return self.masked * self.rounded

    @property
    def values(self) -> dict[Expr, int]:
        return self.nest.values

    @property
    def of(self) -> Algebra:
        return self.nest.algebra

    def number(self, expression: Expr) -> float:
        return number_of(expression, self.values)

    def symbol(self, name: str) -> Expr:
        return self.of.index(name)

    def extent(self, axis: str) -> Expr:
        if self.nominal is not None and axis in self.kernel.axes:
            return self.of.integer(self.nominal)
        return self.size(self.kernel.extents[axis])

    def size(self, value: SSAValue) -> Expr:
        """An extent as an expression."""
        owner = value.owner
        if isinstance(owner, FixedExtentOp):
            return self.of.integer(owner.static_value)
        if isinstance(owner, ExtentOp):
            array = self.arrays.get(owner.array)
            if array is not None:
                return array.shape[owner.axis_number]
            static = owner.static_value
            return self.of.integer(NOMINAL if static is None else static)
        if isinstance(owner, Operation) and owner.operands:
            parts = [self.size(operand) for operand in owner.operands]
            match owner.name:
                case "arith.muli":
                    return self.of.product(parts)
                case "arith.addi":
                    return self.of.total(parts)
                case "arith.subi":
                    return parts[0] - parts[1]
                case "arith.divui" | "arith.divsi" | "arith.floordivsi":
                    return algebra.floor(algebra.quotient(*parts))
                case "arith.minsi":
                    return algebra.smallest(*parts)
                case _:
                    pass
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return self.of.integer(owner.value.value.data)
        data = self.of.index("data")
        self.nest.opaque.add(data)
        return data

    def mean(self, expression: Expr) -> Expr:
        """An expression without the indices of loops, and without data."""
        loops = [*self.tasks, *self.inner.values()]
        found = average(expression, loops, self.values)
        return without_data(found, self.nest.opaque)

    # Terms of indices.

    def index(self, term: Term) -> Expr:
        """A term of type index as an expression of loops' indices."""
        kind = term.kind
        if isinstance(kind, bool | int | float):
            return self.of.integer(int(kind))
        if isinstance(kind, str):
            return self.names.get(kind, self.of.integer(0))
        if isinstance(kind, SSAValue):
            return self.size(kind)
        if isinstance(kind, Computed):
            args = [self.index(arg) for arg in term.args]
            match kind.name:
                case "arith.addi":
                    return args[0] + args[1]
                case "arith.subi":
                    return args[0] - args[1]
                case "arith.muli":
                    return args[0] * args[1]
                case "arith.minsi":
                    return algebra.smallest(*args)
                case "arith.maxsi":
                    return algebra.largest(*args)
                case "arith.divui" | "arith.divsi" | "arith.floordivsi":
                    return algebra.floor(algebra.quotient(*args))
                case "arith.index_cast":
                    return args[0]
                case _:
                    pass
        data = self.of.index("data")
        self.nest.opaque.add(data)
        return data

    # The kernel.

    def read(self) -> list[Node]:
        kernel, tiling = self.kernel, self.tiling
        blocked = kernel.named(tiling.blocked)
        if blocked or not tiling.lane:
            split_folds(kernel, (blocked,) if blocked else ())
        lane = kernel.named(tiling.lane)
        order = [axis for axis in kernel.axes if axis != lane]
        order += [lane] if lane else []
        for axis in order:
            extent = self.extent(axis)
            index = self.symbol(kernel.hints[axis])
            width = {lane: tiling.width, blocked: tiling.block}.get(axis, 1)
            if axis not in (lane, blocked) or width == 1:
                self.tasks.append(Loop(index, extent, span=extent, parallel=True))
                self.names[axis] = index
                continue
            number = self.number(extent)
            size: Expr = self.of.integer(width)
            count = ceiling(extent / size)
            if axis == lane and number:
                self.rounded = width * self.number(count) / number
                if self.nominal is None and static_extent(kernel.extents[axis]) is None:
                    # Of the last ones all but one may have no index.
                    self.rounded += width / number
            if number <= width:
                count, size = self.of.integer(1), extent
            self.tasks.append(
                Loop(index, count, span=extent, steps=size, parallel=True)
            )
            within = self.symbol(kernel.hints[axis])
            each = cancelled(extent / count) if number else extent
            self.names[axis] = size * index + within
            if axis == blocked:
                # Some indices at a time share what does not depend on them.
                self.group = self.symbol("g")
                registers = self.of.integer(tiling.registers)
                self.group_trips = cancelled(each / registers)
                self.names[axis] = size * index + registers * self.group + within
                each = registers
            self.inner[within] = Loop(within, each, span=size)
        for axis in kernel.extents:
            if axis not in self.names:
                row = self.symbol(kernel.hints[axis])
                extent = self.extent(axis)
                self.inner[row] = Loop(row, extent, span=extent)
                self.names[axis] = row
        body: list[Node] = []
        for pass_ in kernel.passes:
            body += self._pass(pass_)
        body += self._outputs()
        if self.tiling.is_vector:
            body.append(Work("wait", "f32", self.of.integer(TASK * tiling.lanes)))
        for loop in reversed(self.tasks):
            loop.body = body
            body = [loop]
        return body

    def _pass(self, pass_: Pass) -> list[Node]:
        tiling = self.tiling
        length = self.index(pass_.upper) - self.index(pass_.lower)
        mean = self.mean(length)
        if self.number(mean) < 0:
            mean = self.of.integer(0)
        self.masked = max(self.masked, self._masked(pass_, self.number(mean)))
        steps = tiling.chunk * (1 if tiling.lane else tiling.width)
        size: Expr = self.of.integer(steps)
        is_fixed = not symbols(length) - set(self.values)
        count = ceiling(mean / size) if is_fixed else expanded(mean / size)
        if self.number(mean) <= self.number(size):
            count, size = self.of.integer(1), mean
        index, within = self.symbol("c"), self.symbol(pass_.hint)
        each = cancelled(mean / count) if self.number(count) else self.of.integer(0)
        chunks = Loop(index, count, span=mean, steps=size)
        start = self.index(pass_.lower)
        self.names[pass_.index] = start + size * index + within
        self.inner[within] = Loop(within, each, span=size)
        terms = [a.part for a in pass_.accumulators]
        self.along = self.kernel.named(tiling.lane) or pass_.index
        axes = dict.fromkeys(axis for a in pass_.accumulators for axis in a.axes)
        self.tile_axes = (self.along, pass_.index, *axes)
        self.copies, self.chunks = tiling.registers, chunks
        body = self._terms(terms)
        tile = self._tile(terms, within)
        if tile is not None:
            body.append(self._around(Access(tile, (within,), True)))
            body.append(self._around(Access(tile, (within,))))
        states = self._states(pass_)
        for a in pass_.accumulators:
            kind = {"add": "add", "mul": "mul"}.get(a.function, "other")
            rows = [self.names[axis] for axis in a.axes]
            free = [within, *rows, *self._lanes(a.part.free)]
            dtype = element_name(a.type) or "i64"
            if tiling.pairs:
                dtype = _narrow(a.part) or dtype
            count = self._times(free)
            body.append(Work(kind, dtype, count))
            is_rounded = not (tiling.pairs and _narrow(a.part)) and _is_narrow(a.type)
            if is_rounded:
                body += self._rounds(count)
            if a.axes and _is_product(a.part):
                body += self._contracts(a.part, count)
            elif not a.axes and tiling.lanes > 1:
                wait = self.of.ratio(LATENCY, min(tiling.vectors, MOST_CHAINS))
                if is_rounded:
                    wait = self.of.ratio(LATENCY_ROUNDED, tiling.vectors)
                body.append(Work("wait", element_name(a.type) or "i64", wait * count))
            if a.name in states:
                array, indices = states[a.name]
                body.append(self._around(Access(array, indices)))
                body.append(self._around(Access(array, indices, True)))
        self.inner.pop(within)
        moves = [a.move for a in pass_.accumulators if a.move is not None]
        moves += [pivot.value for pivot in pass_.pivots]
        body += self._terms(moves, all_lanes=True)
        chunks.body = self._grouped(body)
        self.chunks = None
        return [chunks, *self._grouped(self._merges(pass_))]

    def _merges(self, pass_: Pass) -> list[Node]:
        """What it takes to combine the lanes, if folded axes are in them."""
        if self.tiling.lane or not self.tiling.is_vector:
            return []
        return [
            Work("wait", element_name(a.type) or "i64", each * self.tiling.width * n)
            for a in pass_.accumulators
            for each in (MERGE_ROUNDED if _is_narrow(a.type) else MERGE,)
            for n in (self._times([self.names[axis] for axis in a.axes]),)
        ]

    def _masked(self, pass_: Pass, mean: float) -> float:
        """How many times more indices of a pass lanes have than are in its bounds.

        Where bounds differ between lanes, all run as long as the one that runs longest,
        and with folded axes in the lanes the last vectors are not full.
        """
        if mean <= 0 or not self.tiling.is_vector:
            return 1.0
        if not self.tiling.lane:
            width = self.tiling.width
            return ceil(mean / width - 1e-9) * width / mean
        lane = self.kernel.named(self.tiling.lane)
        if lane not in pass_.lower.free | pass_.upper.free:
            return 1.0
        (within,) = self._lanes(frozenset((lane,))) or (None,)
        if within is None:
            return 1.0
        ends = (0, self.tiling.width - 1)

        def means(bound: Term) -> list[float]:
            every = (algebra.replaced(self.index(bound), {within: e}) for e in ends)
            return [self.number(self.mean(bound)) for bound in every]

        longest = max(means(pass_.upper)) - min(means(pass_.lower))
        return max(1.0, longest / mean)

    def _grouped(self, body: list[Node]) -> list[Node]:
        """The loop over groups of indices of a blocked axis, if there is one."""
        if self.group is None:
            return body
        return [Loop(self.group, self.group_trips, body, span=self.group_trips)]

    def _lanes(self, axes: frozenset[str]) -> list[Expr]:
        """The indices within a task of the kernel's axes that a term depends on."""
        found: list[Expr] = []
        for axis in self.kernel.axes:
            if axis in axes:
                free = symbols(self.names[axis])
                found += [s for s in self.inner if s in free]
        return found

    def _states(self, pass_: Pass) -> dict[str, tuple[Array, tuple[Expr, ...]]]:
        """Memory for accumulators with row axes, and the index of an element."""
        found: dict[str, tuple[Array, tuple[Expr, ...]]] = {}
        for a in pass_.accumulators:
            if not a.axes:
                continue
            lanes = self._lanes(frozenset(self.kernel.axes))
            rows = [axis for axis in a.axes if axis not in self.kernel.axes]
            indices = (*(self.names[axis] for axis in rows), *lanes)
            if self.group is not None and self.group not in lanes:
                indices = (self.group, *indices)
            shape = tuple(self._states_trips(i) for i in indices)
            array = Array(f"state {a.name}", shape, bytes_of(a.type), "scratch", True)
            self.nest.arrays.append(array)
            found[a.name] = array, indices
        return found

    def _states_trips(self, index: Expr) -> Expr:
        if index == self.group and self.group_trips is not None:
            return self.group_trips
        return self._trips(index)

    def _tile(self, terms: Sequence[Term], within: Expr) -> Array | None:
        """Memory for a costly value of each index of a chunk, if it has one."""
        has_folds = any(t.is_fold for term in terms for t in walk(term))
        if not has_folds:
            return None
        trips = [self._trips(s) for s in self._lanes(frozenset(self.kernel.axes))]
        size = self.of.product((self.inner[within].trips, *trips))
        element = max(bytes_of(term.type) for term in terms)
        array = Array("tile", (size,), element, "scratch", True)
        self.nest.arrays.append(array)
        return array

    def _trips(self, index: Expr) -> Expr:
        """How many values the part of an index within a task has."""
        return self.of.product(
            self.inner[s].trips for s in symbols(index) if s in self.inner
        )

    def _times(self, free: Sequence[Expr]) -> Expr:
        """How often something is computed in a task that depends on these indices."""
        every = {s for expression in free for s in symbols(expression)}
        found = [s for s in every if s in self.inner]
        return self.of.product(self.mean(self.inner[s].trips) for s in found)

    def _around(self, access: Access) -> Node:
        """Put loops within a task around an access, in the order of the axes."""
        order: list[Expr] = []
        for index in access.indices:
            for symbol in sorted(symbols(index), key=str):
                if symbol in self.inner and symbol not in order:
                    order.append(symbol)
        node: Node = access
        for symbol in reversed(order):
            loop = self.inner[symbol]
            node = Loop(symbol, self.mean(loop.trips), [node], loop.span)
        return node

    def _terms(self, terms: Sequence[Term], all_lanes: bool = False) -> list[Node]:
        """What terms read and compute, each once for the indices it depends on.

        What a fold within a fold does, it does whenever the one around it runs, unless
        it does not depend on the index of that one.
        """
        found: list[Node] = []
        seen: set[Term] = set()
        free: set[Term] = set()

        def visit(term: Term) -> None:
            if term in seen or (not term.args and not term.computes(AtOp.name)):
                return
            seen.add(term)
            kind = term.kind
            if isinstance(kind, Folded):
                lower, upper = self.index(term.args[0]), self.index(term.args[1])
                symbol = self.symbol("p")
                length = self.mean(upper - lower)
                before = self.names.get(kind.index)
                self.names[kind.index] = lower + symbol
                self.inner[symbol] = Loop(symbol, length, span=length)
                outer, self.inside = self.inside, _is_product(term.args[2])
                repeats = self.repeats
                self.repeats = repeats.union(
                    *(free for fold, free in self.folds if fold in term.free)
                )
                self.folds.append((kind.index, term.free))
                visit(term.args[2])
                count = times(term.args[2], symbol)
                if self.inside:
                    found.extend(self._contracts(term, count))
                elif self.tiling.is_vector:
                    found.extend(self._waits(term, count))
                self.inside = outer
                name = term.function
                which = name.data if isinstance(name, StringAttr) else ""
                work = {"add": "add", "mul": "mul"}.get(which, "other")
                dtype = narrow(term.args[2]) or element_name(term.type) or "i64"
                found.append(Work(work, dtype, times(term.args[2], symbol)))
                if not narrow(term.args[2]) and _is_narrow(term.type):
                    found.extend(self._rounds(times(term.args[2], symbol)))
                del self.inner[symbol]
                found.extend(self._mixes(term, length, times(term)))
                if before is not None:
                    self.names[kind.index] = before
                self.folds.pop()
                self.repeats = repeats
                return
            if isinstance(kind, Computed) and kind.name == AtOp.name:
                access = self._load(term)
                if access is not None:
                    access.packed = self._is_packed(access)
                    found.append(self._around(access))
                    found.extend(self._loads(term, access, times(term)))
                return
            if self.tiling.pairs and _narrow(term):
                free.update(term.args)  # Extended by what multiplies them.
            for arg in term.args:
                visit(arg)
            if isinstance(kind, Held):
                return
            if isinstance(kind, Choice):
                return
            if isinstance(kind, Computed):
                work = kind_of(kind.name)
                of = term.args[0] if "cmp" in kind.name else term
                dtype = narrow(term) or element_name(of.type)
                if term in free:
                    return
                if work is not None and dtype is not None and _counts(kind.name):
                    found.append(Work(work, dtype, times(term)))
                    is_rounded = not narrow(term) and _is_narrow(term.type)
                    if is_rounded and not term.computes("arith.truncf"):
                        found.extend(self._rounds(times(term)))

        def narrow(term: Term) -> str | None:
            return _narrow(term) if self.tiling.pairs else None

        lane = self.kernel.named(self.tiling.lane)

        def held_lane(term: Term) -> set[str]:
            """The axis in the lanes, each of which has states of its own."""
            held = any(isinstance(inner.kind, Held) for inner in walk(term))
            return {lane} if lane and held else set()

        def times(term: Term, *besides: Expr) -> Expr:
            axes = sorted(term.free | self.repeats | held_lane(term))
            free = [self.names[n] for n in axes if n in self.names]
            lanes = self._lanes(frozenset(self.kernel.axes)) if all_lanes else []
            found = self._times([*free, *lanes, *besides])
            if all_lanes and self.tiling.is_vector and not self.tiling.lane:
                found *= self.tiling.width  # Each lane has a state of its own.
            return found

        for term in terms:
            visit(term)
        return found

    def _rounds(self, count: Expr) -> list[Work]:
        """What it takes to extend operands of 16 bits and to round the result."""
        return [Work("wait", "f32", ROUNDED * count)] if self.tiling.is_vector else []

    def _contracts(self, term: Term, count: Expr) -> list[Work]:
        """What a sum of products loads: a vector for each copy, the copies for each
        vector; and what it waits if there are few of both.
        """
        tiling = self.tiling
        ratio = self.of.ratio
        # With folded axes in the lanes both factors have lanes, and none is shared.
        shared = self.copies if tiling.lane or not tiling.is_vector else 1
        each = ratio(1, shared) + ratio(1, tiling.vectors)
        loads = bytes_of(term.type) * count * min(each, 2)
        body = term.args[2] if isinstance(term.kind, Folded) else term
        if tiling.pairs and _narrow(body):
            loads = loads / 2  # Factors are loaded as they are, of 16 bits.
        found = [Work("load", "bytes", loads)]
        return found + self._waits(term, count)

    def _waits(self, term: Term, count: Expr) -> list[Work]:
        """What accumulations wait for each other, if few are side by side."""
        chains = self.copies * self.tiling.vectors
        if self.tiling.lanes == 1 or chains >= CHAINS:
            return []
        ratio = self.of.ratio
        wait = ratio(3, 2) * (ratio(CHAINS, chains) - 1) * count
        return [Work("wait", element_name(term.type) or "i64", wait)]

    def _mixes(self, fold: Term, length: Expr, count: Expr) -> list[Work]:
        """What it takes to combine lanes that are the index of a fold, for each result.

        So it is in statements with lanes of their own, where what is folded does not
        lie next to each other along the last axis. Lanes beyond the end compute too.
        """
        lanes = self.tiling.lanes
        if lanes == 1 or self.tiling.is_vector or self.chunks is None:
            return []
        last = [axis for axis in self.tile_axes if axis in fold.free]
        if last and is_read_in_turn(fold.args[2], last[-1]):
            return []
        vain = -self.number(length) % lanes
        each = round(MIX * (lanes - 1) + vain)
        return [Work("wait", element_name(fold.type) or "i64", each * count)]

    def _loads(self, term: Term, access: Access, count: Expr) -> list[Work]:
        """What is loaded outside of sums of products, and turned if need be."""
        found: list[Work] = []
        if not self.inside:
            found.append(Work("load", "bytes", access.array.element_bytes * count))
        if not self.tiling.is_vector:
            lane = self.kernel.named(self.tiling.lane)
            lanes = set(self._lanes(frozenset((lane,)))) if lane else set[Expr]()
            others = [symbols(i) for i in access.indices[:-1]]
            # Instructions for products of matrices take either order.
            is_apart = any(lanes & free for free in others) and not self.tiling.pairs
            if not self.inside and is_apart:
                found.append(Work("wait", "f32", SHUFFLES * count))
            return found
        if self.along not in term.free or self.tiling.lanes == 1:
            return found
        if advances(term, self.along):
            return found
        grid = {*self.kernel.axes, self.along}
        grid.discard(self.kernel.named(self.tiling.blocked))
        is_even = is_affine(term, self.along)
        is_turned = is_even and turning_axis(term, grid) is not None
        each: Expr = APART * self.tiling.lanes
        if is_turned:
            element = access.array.element_bytes
            each = self._shuffles() * self._streams(term, element)
            if self.number(element * count) > TILE:
                each *= SPILLED
        if self.chunks is not None and not self._is_of_chunk(access):
            each = each / self.chunks.trips  # Kept from one chunk to the next.
        read = {s for index in access.indices for s in symbols(index)}
        if self.group is not None and self.group not in read:
            each = each / self.group_trips  # And for all groups of a task.
        return [*found, Work("wait", element_name(term.type) or "i64", each * count)]

    def _shuffles(self) -> int:
        """What it takes to turn a vector, in a square of as many as it has lanes."""
        return TURN * (self.tiling.lanes.bit_length() - 1)

    def _streams(self, term: Term, element: int) -> Expr:
        """How many times more rows are read side by side than are read ahead.

        Rows that lie a page apart, or more, are a stream each.
        """
        far = step(term, self.along)
        if far is not None and far * element < PAGE:
            return 1
        return max(1, self.of.ratio(self.tiling.width, STREAMS))

    def _is_of_chunk(self, access: Access) -> bool:
        """Whether what an access reads differs between chunks."""
        assert self.chunks is not None
        return any(self.chunks.index in symbols(i) for i in access.indices)

    def _load(self, term: Term) -> Access | None:
        array = term.args[0].kind
        if not isinstance(array, SSAValue):
            return None
        known = self.arrays.get(array)
        if known is None:
            if not is_array(array.type):
                return None
            known = self.arrays[array] = self._array(array)
            self.nest.arrays.append(known)
        return Access(known, tuple(self.index(arg) for arg in term.args[1:]))

    def _array(self, value: SSAValue) -> Array:
        """An array that is no argument: a constant, or what another kernel gives."""
        shape = shape_of(value.type)
        extents = [self.of.integer(NOMINAL if n < 0 else n) for n in shape]
        hint = value.name_hint or "constant"
        element = bytes_of(element_of(value.type))
        return Array(hint, tuple(extents), element, "argument")

    def _is_packed(self, access: Access) -> bool:
        """Whether rows of lanes are put next to each other first: if read often.

        What vector code does, see `moa_dialect.lowering.vector_kernel`.
        """
        if self.group is None or self.tiling.lanes == 1 or not access.indices:
            return False
        lane = self.kernel.named(self.tiling.lane)
        lanes = set(self._lanes(frozenset((lane,)))) if lane else set[Expr]()
        *others, last = (symbols(i) for i in access.indices)
        return (
            bool(lanes & last)
            and not any(self.group in free for free in (*others, last))
            and any(free & self.inner.keys() for free in others)
            and self.number(self.mean(self.group_trips)) >= OFTEN
        )

    def _outputs(self) -> list[Node]:
        kernel = self.kernel
        rows = [output.axes[-1] for output in kernel.outputs if output.axes]
        self.along = kernel.named(self.tiling.lane) or (rows[-1] if rows else "")
        has_copies = self.group is not None or rows or not self.tiling.is_vector
        self.copies = self.tiling.registers if has_copies else 1
        found = self._terms([output.value for output in kernel.outputs])
        for output in kernel.outputs:
            value = kernel.op.arrays[output.number]
            axes = len(kernel.op.extents) + len(output.axes)
            whole = self._origins()
            whole += [(self.extent(axis), self.names[axis]) for axis in output.axes]
            positions = kernel.op.positions(axes)
            shape: list[Expr] = [self.of.integer(1)] * axes
            indices: list[Expr] = [self.of.integer(0)] * axes
            for (extent, index), position in zip(whole, positions, strict=True):
                shape[position], indices[position] = extent, index
            if value not in self.arrays:
                element = bytes_of(element_of(value.type))
                hint = value.name_hint or "result"
                self.arrays[value] = Array(hint, tuple(shape), element, "scratch")
                self.nest.arrays.append(self.arrays[value])
            access = Access(self.arrays[value], tuple(indices), True)
            found.append(self._around(access))
            count = self._times(indices)
            found.append(Work("load", "bytes", access.array.element_bytes * count))
            if (each := self._turns(output)) > 0:
                dtype = element_name(element_of(value.type)) or "i64"
                found.append(Work("wait", dtype, each * count))
        return self._grouped(found)

    def _turns(self, output: Output) -> float:
        """What it takes to store an element whose lanes do not lie side by side."""
        lane = self.kernel.named(self.tiling.lane)
        last = last_axis(self.kernel, output)
        if not self.tiling.is_vector or not lane or last in ("", lane):
            return 0
        blocked = self.kernel.named(self.tiling.blocked)
        is_square = last == blocked and 2 * self.tiling.block >= self.tiling.lanes
        if last in output.axes or is_square:
            return self._shuffles()
        return (APART + LOST * self._lost(output, lane)) * self.tiling.lanes

    def _lost(self, output: Output, lane: str) -> float:
        """The part of the lines that leave the first cache before they are full.

        Elements of a column are stored, one column after the other, so that a line of
        each row is to stay. Lines a page apart have the same place, and as many as
        there are ways.
        """
        kernel = self.kernel
        axes = [*kernel.axes, *output.axes]
        places = dict(zip(axes, kernel.op.positions(len(axes)), strict=True))
        inner = [axis for axis in axes if places[axis] > places[lane]]
        extents = [static_extent(kernel.extents[axis]) for axis in inner]
        if None in extents:
            return 0.0
        element = bytes_of(element_of(kernel.op.arrays[output.number].type))
        apart = element * prod(extent or 0 for extent in extents)
        room = WAYS * PAGE // max(gcd(apart, PAGE), LINE)
        return max(0.0, 1 - room / self.tiling.width)

    def _origins(self) -> list[tuple[Expr, Expr]]:
        """The extent and the index of each axis that the comprehension had."""
        kernel = self.kernel
        found: list[tuple[Expr, Expr]] = []
        for number, extent in enumerate(kernel.op.extents):
            index: Expr = self.of.integer(0)
            for axis in kernel.axes:
                origin, steps = kernel.origins.get(axis, (axis, 1))
                if origin == f"#{number}":
                    index += steps * self.names[axis]
            found.append((self.size(extent), index))
        return found


LATENCY = 5
"""Operations that could be done while an accumulation waits for the one before."""

MOST_CHAINS = 2
"""More accumulations side by side than this wait no less: other things are slower."""

CHAINS = 8
"""So many accumulations side by side keep the units for multiply-adds busy."""

PAGE = 4096
"""Rows that lie so many bytes apart are not read ahead together."""

STREAMS = 16
"""So many rows are read ahead at a time."""

TASK = 4
"""Operations that it takes to go from one task to the next."""

OFTEN = 4
"""So many groups of a task's rows must read a row of lanes for it to be packed."""


SHUFFLES = 4
"""Operations of a GPU for an element whose lanes do not lie next to each other."""

TURN = 2
"""Operations for a vector at each step in which a square is turned."""

TILE = 1 << 17
"""What is turned and takes more bytes than this in a chunk is slow, as measured."""

MIX = 5
"""Operations for a lane less one to add up the lanes: two shuffles and an addition."""

SPILLED = 8
"""How many times longer that takes."""

APART = 2
"""Operations that a lane takes where nothing turns them: it is loaded by itself."""

WAYS = 12
"""Lines of the first cache at the same place of a page."""

LINE = 64
"""The bytes of a line there."""

LOST = 64
"""Operations that a lane waits whose line has left the first cache."""

MERGE = 12
"""Operations that it takes to combine the lanes of a vector."""

ROUNDED = 10
"""Operations that an operation on numbers of 16 bits takes besides: it is one on f32,
whose operands are extended and whose result is rounded."""

LATENCY_ROUNDED = 36
"""Operations that could be done while an accumulation that is rounded waits."""

MERGE_ROUNDED = 100
"""Operations that it takes to combine lanes if each result is rounded."""


def _is_product(body: Term) -> bool:
    """Whether a fold sums products of two values that both depend on its index."""
    if not body.computes("arith.mulf"):
        return False
    return len(body.args) == 2 and all(arg.free for arg in body.args)


def _is_narrow(type_: Attribute) -> bool:
    """Whether numbers of a type are computed with as f32, and rounded."""
    return f"{type_}" in ("bf16", "f16")


def _narrow(term: Term) -> str | None:
    """The type of the factors of a product, if both are extended from 16 bits."""
    if not term.computes("arith.mulf"):
        return None
    types = {
        f"{factor.args[0].type}" if factor.computes("arith.extf") else ""
        for factor in term.args
    }
    return types.pop() if len(types) == 1 and types <= {"bf16", "f16"} else None


def _counts(name: str) -> bool:
    """Whether an operation is work, not only a choice of a number."""
    return name not in (
        "arith.constant",
        "arith.index_cast",
        "arith.sitofp",
        "arith.andi",
        "arith.ori",
        "arith.xori",
    )
