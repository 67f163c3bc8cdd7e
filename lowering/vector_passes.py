"""Passes in vectors: states, and the loops over chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects import arith, scf, vector
from xdsl.dialects.builtin import (
    IntegerAttr,
    VectorType,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering.emitter import neutral
from moa_dialect.lowering.shuffles import reduced
from moa_dialect.lowering.tiles import (
    Chunk,
    Nest,
    Statement,
    Target,
    arrange,
    compare,
    item_terms,
    live_tiles,
    materialize,
    shared_memory,
    tiles_in_pairs,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    NotLifted,
    Values,
    VectorCode,
    checks,
    is_some,
)
from moa_dialect.lowering.vector_kernel import KernelCode, Range, Staged
from moa_dialect.lowering.visible import Visible
from moa_dialect.passes.kernels import (
    AFTER,
    BEFORE,
    Accumulator,
    Group,
    Pass,
    Pivot,
    ignores_nan,
)
from moa_dialect.passes.narrow_indices import Narrowing, narrowing_of
from moa_dialect.passes.simplify import with_one_factor
from moa_dialect.passes.skips import taking_part
from moa_dialect.passes.terms import (
    ChunkFold,
    Folded,
    Held,
    Term,
    walk,
)
from moa_dialect.types import kind_of


@dataclass(frozen=True)
class FewRows:
    """What a chunk does in blocks of few rows, and when it does that.

    Attributes:
        are_many: whether a block has many rows.
        packed: the tiles that are not needed then.
        nests: what is done with few.
    """

    are_many: SSAValue
    packed: set[str]
    nests: Sequence[Nest]


class PassCode:
    """One pass of a kernel: its states, and the loops over chunks."""

    def __init__(self, kernel: KernelCode, pass_: Pass):
        self.kernel = kernel
        self.code = kernel.code
        self.pass_ = pass_
        self.number = kernel.number
        self.size = kernel.schedule.chunk
        self.lows: Values = []
        self.highs: Values = []
        self.visible: Visible | None = None
        self.few: FewRows | None = None
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
        keeps = self.kernel.schedule.aligned and any(self.differs)
        chunk = Chunk(code.terms, self._axes(), self._count_axes(), keeps)
        narrow = self._narrowing()
        statements = [
            replace(s, value=narrow(with_one_factor(code.terms, s.value)))
            for s in chunk.statements(pass_)
        ]
        if any(checks(s.value) for s in statements) and (
            any(self.differs) or not is_some(pass_.lower, pass_.upper)
        ):
            raise NotLifted("a check in a pass that may have no index, or not all")
        if any(self.differs) and any(
            isinstance(term.kind, ChunkFold) and not code.is_vector(term)
            for term in walk(*(s.value for s in statements))
        ):
            raise NotLifted("a fold that depends on the lane by its bounds alone")
        tile_axes = self._tile_axes()
        condition = self._condition()
        if condition is not None:
            condition = narrow(condition)
            self.visible = self._visible(condition)
            if not self.visible.is_direct:
                name, axes = f"{pass_.index}.part", (pass_.index,)
                statements.append(Statement(name, axes, condition, Target.TILE))
        given = statements
        statements, staged = self.kernel.stage(statements, tile_axes, f"s{pass_.index}")
        if self.visible is not None and not self.visible.is_direct:
            self.visible = self._visible(statements.pop().value)
        count = len(statements)
        statements = materialize(code.terms, statements, list(tile_axes), pass_.index)
        if condition is None and len(statements) == count:
            self._for_few_rows(given, tile_axes, staged)
        self.in_pairs = tiles_in_pairs(statements)
        self.during = [s for s in staged if pass_.index in s.load.free]
        self.before = [s for s in self.during if self._is_for_condition(s)]
        for item in staged:
            if item not in self.during:
                self.kernel.fill(item, self._range)
        early = self._early(statements)
        self._prologue(early)
        self.nests = arrange([s for s in statements if s not in early], pass_.index)
        self._allocate(self.nests)
        code.quiet = self.quiet
        if self.visible is not None:
            self.visible.prepare()
            if not self.before:
                # Pairs are those of the whole range.
                apart = self.size if self.kernel.schedule.aligned else 2
                range_ = self.visible.range(self.first, self.last, apart)
                self.begin, self.end = range_
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
            self.begin, self.end = self.first, self.last
            return
        self.lows = [code.vector(pass_.lower, 0, k) for k in self.numbers()]
        self.highs = [code.vector(pass_.upper, 0, k) for k in self.numbers()]
        self.first, self.full_first = self._ends(self.lows, pass_.lower)
        self.full_last, self.last = self._ends(self.highs, pass_.upper)
        self.begin, self.end = self.first, self.last

    def _narrowing(self) -> Narrowing:
        """How index arithmetic becomes narrow in the lanes."""
        return narrowing_of(self.kernel.kernel, self.code.lanes.axis, self.pass_)

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
            return self._segment(self.begin, self.end, False, states)
        if self.kernel.schedule.aligned:
            return self._aligned(states)
        # Those in the middle as many as registers take at a time: what is left of them
        # would go one by one, and those with masks as well.
        registers = self.kernel.schedule.registers

        def multiple(value: SSAValue) -> SSAValue:
            return code.mul(code.div(value, registers), registers)

        end = code.max(self.end, self.begin)
        middle = code.max(code.min(self.full_first, end), self.begin)
        if self.differs[0]:
            before = code.add(code.sub(middle, self.begin), registers - 1)
            middle = code.min(code.add(self.begin, multiple(before)), end)
        late = code.max(code.min(self.full_last, end), middle)
        late = code.add(middle, multiple(code.sub(late, middle)))
        if self.differs[0]:
            states = self._segment(self.begin, middle, True, states)
        states = self._segment(middle, late, False, states)
        return self._segment(late, end, True, states)

    def _aligned(self, states: list[SSAValue]) -> list[SSAValue]:
        """The loops where chunks begin at multiples of their length.

        So the indices of a lane come in the same chunks whatever bounds others have.
        """
        code, size = self.code, self.size
        end = code.max(self.end, self.begin)

        def multiple(value: SSAValue) -> SSAValue:
            return code.mul(code.div(value, size), size)

        above = multiple(code.add(self.full_first, size - 1))
        middle = code.max(code.min(above, end), self.begin)
        late = code.max(code.min(multiple(self.full_last), end), middle)
        if self.differs[0]:

            def body(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
                first = code.max(index, self.begin)
                stop = code.min(code.add(index, size), middle)
                return self._chunk(first, code.sub(stop, first), True, carried)

            start = multiple(self.begin)
            states = code.loop(start, middle, size, states, body)
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
        found: list[SSAValue]
        if self.visible is None:
            found = self._states(self.during, masked)
        else:
            for item in self.before:
                self._fill_chunk(item, masked)
            rest = [item for item in self.during if item not in self.before]
            first, end = self.visible.part(length)
            is_some = code.emit(arith.CmpiOp(first, end, "slt"))
            with code.scope(block := Block()):
                if not self.before:
                    code.start = code.add(index, first)
                    code.length = code.sub(end, first)
                    code.mask = self._mask(code.start) if masked else None
                code.builder.insert(scf.YieldOp(*self._states(rest, masked)))
            other = Block([scf.YieldOp(*states)])
            types = [state.type for state in states]
            choice = scf.IfOp(is_some, types, Region(block), Region(other))
            code.builder.insert(choice)
            found = [*choice.results]
        code.mask = None
        return found

    def _states(self, staged: Sequence[Staged], masked: bool) -> list[SSAValue]:
        """The states after a chunk of which this is still to be staged."""
        code, few = self.code, self.few

        def states(staged: Sequence[Staged], nests: Sequence[Nest]) -> list[SSAValue]:
            for item in staged:
                self._fill_chunk(item, masked)
            self._nests(nests)
            return self._held("new")

        if few is None:
            return states(staged, self.nests)
        with code.scope(many := Block()):
            found = states(staged, self.nests)
            code.builder.insert(scf.YieldOp(*found))
        with code.scope(other := Block()):
            rest = [item for item in staged if item.name not in few.packed]
            code.builder.insert(scf.YieldOp(*states(rest, few.nests)))
        types = [value.type for value in found]
        choice = scf.IfOp(few.are_many, types, Region(many), Region(other))
        return [*code.builder.insert(choice).results]

    def _for_few_rows(
        self,
        statements: Sequence[Statement],
        tile_axes: dict[str, int],
        staged: Sequence[Staged],
    ) -> None:
        """Let blocks of few rows read what is packed for others as it is.

        How many rows there are is seen when it runs, if types do not give it.
        """
        kernel, code = self.kernel, self.code
        packed = {item.name for item in staged} & kernel.packed
        if kernel.block_length is None or kernel.is_for_many or not packed:
            return
        tag = f"u{self.pass_.index}"
        others, used = kernel.stage(statements, tile_axes, tag, staged)
        if len(used) != len(staged):
            return  # What is packed is read in another way besides.
        least = self.number(kernel.many_rows)
        are_many = code.emit(arith.CmpiOp(kernel.block_length, least, "sge"))
        nests = arrange(others, self.pass_.index)
        self.few = FewRows(are_many, packed, nests)

    # Chunks that change nothing.

    def _condition(self) -> Term | None:
        """The condition that tells chunks which change no state, if there is one."""
        if self.kernel.schedule.aligned and self.differs[0]:
            return None  # The first chunk may have no index to ask.
        return taking_part(self.code.terms, self.pass_)

    def _visible(self, condition: Term) -> Visible:
        """What tells which part of a chunk changes a state."""
        granule = self.kernel.schedule.registers
        if self.kernel.schedule.pairs and granule % 2:
            granule *= 2  # Pairs are those of the whole chunk.
        axis, advances = self.pass_.index, self.kernel.advances
        return Visible(self.code, axis, condition, granule, advances)

    def _is_for_condition(self, staged: Staged) -> bool:
        if self.visible is None or self.visible.is_direct:
            return False
        terms = walk(self.visible.condition)
        return staged.name in {t.kind.name for t in terms if isinstance(t.kind, Held)}

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
                    size = self.kernel.most(self.kernel.kernel.extents[axis])
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
        return self.kernel.range_of(axis)

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
        taken = {} if all_live else shared_memory(nests, live, self.in_pairs)
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
                    along = self.in_pairs.get(item.name, "")
                    code.buffers[item.name] = self.kernel.tile(
                        item.value.type,
                        item.axes,
                        sizes,
                        tuple(sorted(item.value.free)),
                        in_pairs=along,
                    )
        values = {
            s.name: s.value for n in nests for s in n.items if isinstance(s, Statement)
        }
        for name in taken:
            other = taken[name]
            while other in taken:
                other = taken[other]
            names = tuple(sorted(values[name].free))
            code.buffers[name] = replace(code.buffers[other], names=names)
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
            return self.kernel.length_of(axis)

        def start(axis: str) -> SSAValue:
            if axis == self.pass_.index:
                assert code.start is not None
                return code.start
            return self.kernel.start_of(axis)

        for nest in nests:
            copies = schedule.registers if contracts(nest) else schedule.unroll
            given = {s.name for s in nest.items if isinstance(s, Statement)}
            if given & self.in_pairs.keys():
                copies += copies % 2
            if schedule.ahead:
                code.ahead = self.pass_.index
            code.nest(nest, extents, copies, live, start)
            code.ahead = ""

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
            lengths = [self.kernel.length_of(axis)[0] for axis in a.axes]
            self._fill(memory, lengths, [], starts)
        for r in self.pass_.pivots:
            states += [code.vector(r.start, 0, k) for k in self.numbers()]
        return states

    def _fill(
        self,
        memory: SSAValue,
        lengths: Sequence[SSAValue],
        indices: list[SSAValue],
        values: Sequence[SSAValue],
    ) -> None:
        code = self.code
        if not lengths:
            for number, value in enumerate(values):
                lane = self.number(number * code.lanes.lanes)
                code.store(value, memory, [*indices, lane])
            return

        def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            self._fill(memory, lengths[1:], [*indices, index], values)
            return []

        code.loop(self.number(0), lengths[0], 1, [], body)

    def _identity(self, function: str, type_: Attribute, number: int) -> SSAValue:
        """What an accumulator starts from: a sum over nothing is 0, not -0."""
        code = self.code
        unit = neutral(function, type_)
        start = code.constant(unit, type_, True)
        if str(unit) != "-0.0":
            return start
        zero = code.constant(0.0, type_, True)
        if self.visible is not None:
            return zero
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
                if not isa(value.type, VectorType):
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


class SplitPass(PassCode):
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

        narrow = narrowing_of(kernel.kernel, pass_.index, pass_)

        def split(term: Term) -> Term:
            return terms.substitute(narrow(term), {pass_.index: both})

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

    def _narrowing(self) -> Narrowing:
        kernel, width = self.kernel.kernel, self.lanes.width
        return narrowing_of(kernel, self.LANE, self.pass_, width)

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

    def _condition(self) -> Term | None:
        return None  # Few lanes have an index each: most chunks have one that counts.

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
                self._merge_pivot(r, group, "")
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
            self._merge_pivot(r, group, "first")
        for a in group.accumulators:
            together = self._state(a, "together", False)
            moved = together
            if a.move is not None:
                move = self._bind(a.move, group, "first", "final", "together")
                moved = self._if_any(move, together, "total", ())
            code.held[Held(a.name, "final")] = [code.value(moved)]

    def _merge_pivot(self, r: Pivot, group: Group, old: str) -> None:
        """The pivot of all lanes together; of nothing it is what it starts from."""
        value = self._bind(r.value, group, old, "final")
        merged = self._if_any(value, r.start, "total", ())
        self.code.held[Held(r.name, "final")] = [self.code.value(merged)]

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
                code.store(self._across(a, value), memory, indices)
                return

            def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with code.bound(axes[0], index, index):
                    loops(axes[1:], [*indices, index])
                return []

            length, _ = self.kernel.length_of(axes[0])
            code.loop(self.number(0), length, 1, [], body)

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
    number = {"slt": 2, "sge": 5}[predicate]
    type_ = left.type
    result: Attribute = i1
    if isa(type_, VectorType):
        result = VectorType(i1, type_.get_shape())
    properties: dict[str, Attribute] = {"predicate": IntegerAttr(number, i64)}
    return code.make(arith.CmpiOp, (left, right), result, properties)


def contracts(nest: Nest) -> bool:
    """Whether a nest has folds inside."""
    return any(
        isinstance(inner.kind, Folded | ChunkFold)
        for item in nest.items
        for term in item_terms(item)
        for inner in walk(term)
    )
