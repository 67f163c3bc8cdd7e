"""Passes in which each statement has a lane axis of its own.

Where few rows share what they read, neither the rows nor the folded axis fill the lanes
of all that a pass does. So a task has all of the rows, and each statement takes the
axis along which what it reads lies next to each other: a sum of products the index it
folds, with one sum over the lanes at its end, or the axis of its columns; what is
computed element by element its last axis. Every fold is a statement of its own, tiles
and states are plain memory, and so lanes may change from statement to statement.

What lies beyond the end of an axis in the last vector is never read from arrays, and
never counts in a fold; tiles have room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import (
    IntegerAttr,
    StringAttr,
    VectorType,
    bf16,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue

from moa_dialect.lowering import pairs
from moa_dialect.lowering.emitter import NotLifted, neutral
from moa_dialect.lowering.shuffles import across, shuffled, sums_of_rows
from moa_dialect.lowering.statement_code import (
    OLD,
    ROW,
    Share,
    StatementCode,
    is_last,
)
from moa_dialect.lowering.tiles import (
    Chunk,
    Statement,
    Target,
    compare,
    materialize,
)
from moa_dialect.lowering.vector_code import (
    Buffer,
    Lanes,
    checks,
    element_of_vector,
    is_unit,
)
from moa_dialect.lowering.vector_kernel import KernelCode, Range
from moa_dialect.lowering.vector_passes import PassCode
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import Pass, static_extent
from moa_dialect.passes.lift import TILE_BYTES
from moa_dialect.passes.narrow_indices import narrowing_of
from moa_dialect.passes.simplify import with_one_factor
from moa_dialect.passes.strides import coefficient
from moa_dialect.passes.terms import (
    ChunkFold,
    Combination,
    Computed,
    Folded,
    Held,
    Term,
    narrow_factors,
    walk,
)
from moa_dialect.scalar_code import constant
from moa_dialect.types import dtype_of, element_of, shape_of

_MOST_VECTORS = 8
"""How many vectors a row of sums has in registers at most."""

_BELOW = 4
"""How many rows further on are asked for where rows are read a piece of each."""

_PART = 8 << 10
"""How many bytes of rows are summed before the next: a part of the first cache."""


class StatementsPass(PassCode):
    """One pass of a kernel, each statement with lanes of its own."""

    code: StatementCode

    def __init__(self, kernel: KernelCode, pass_: Pass):
        super().__init__(kernel, pass_)
        self.rows = (kernel.blocked,) if kernel.blocked else ()
        self.lanes = kernel.schedule.lanes
        self.written: dict[str, Statement] = {}

    def emit(self) -> None:
        """Emit the pass; the accumulators and pivots are known afterwards."""
        code, pass_ = self.code, self.pass_
        if set(self.rows) & (pass_.lower.free | pass_.upper.free):
            raise NotLifted("bounds of a pass that differ between the rows of a task")
        self._bounds()
        axes = self._tile_axes()
        chunk = Chunk(code.terms, self.kernel.state_axes(self.rows))
        found: list[Statement] = []
        narrow = narrowing_of(self.kernel.kernel, pass_.index, pass_)
        for s in chunk.statements(pass_):
            s = replace(s, value=narrow(with_one_factor(code.terms, s.value)))
            own = (*self.rows, *s.axes)
            if s.target is Target.TILE:
                own = tuple(axis for axis in axes if axis in s.value.free)
            found.append(replace(s, axes=own))
        if any(checks(s.value) for s in found):
            raise NotLifted("an index that is checked, in lanes that change")
        found = self._with_narrow_tiles(found)
        found = self._with_rows(found)
        found = materialize(code.terms, found, list(axes), pass_.index)
        found = self._apart(found)
        early = self._early(found)
        late = self._ordered([s for s in found if s not in early])
        self.written = {s.name: s for s in found}
        self._make_memory(found)
        code.quiet = self.quiet
        self._start_states()
        self._emit(self._ordered(early))
        self.late = late
        code.ahead = pass_.index if self.kernel.schedule.ahead else ""
        self._segments([])
        code.ahead = ""
        code.length = code.start = None

    def _tile_axes(self) -> dict[str, int]:
        if self.kernel.is_bounded:
            raise NotLifted("rows of an extent that types do not give")
        sizes = super()._tile_axes()
        rows = dict.fromkeys(self.rows, self.kernel.schedule.block)
        return rows | sizes

    def _range(self, axis: str) -> Range:
        if axis in self.rows:
            size = self.kernel.schedule.block
            length, _ = self.kernel.length_of(axis)
            return Range(self.kernel.start_of(axis), length, size)
        return super()._range(axis)

    def _static(self, axis: str) -> int | None:
        """How many indices a tile axis has, None if that differs between chunks.

        Or between tasks.
        """
        if axis == self.pass_.index or axis in self.code.uneven:
            return None
        return self._tile_axes()[axis]

    # Statements.

    def _apart(self, statements: Sequence[Statement]) -> list[Statement]:
        """Let each fold be a statement, and what it broadcasts too, if computed."""
        found = list(statements)
        while True:
            wanted = self._fold_inside(found) or self._broadcast(found)
            if wanted is None:
                return found
            if not self._is_within(wanted):
                raise NotLifted("a fold that depends on the index of another one")
            found = self._with_tile(found, wanted)

    def _is_within(self, term: Term) -> bool:
        """Whether a term depends on the axes of tiles and of the task only."""
        return term.free <= set(self._tile_axes()) | set(self.code.index)

    def _with_tile(
        self, statements: Sequence[Statement], value: Term
    ) -> list[Statement]:
        """Statements that read a value from a tile, and the one that gives it."""
        terms = self.code.terms
        axes = tuple(axis for axis in self._tile_axes() if axis in value.free)
        name = f"{self.pass_.index}.{len(statements)}"
        indices = [terms.index(axis) for axis in sorted(value.free)]
        tile = terms.held(Held(name), indices, value.type)
        found = [
            replace(s, value=terms.replace(s.value, {value: tile})) for s in statements
        ]
        return [*found, Statement(name, axes, value, Target.TILE)]

    def _with_narrow_tiles(self, statements: Sequence[Statement]) -> list[Statement]:
        """Let what is computed to be a narrow factor of a sum in pairs be a tile."""
        found = list(statements)
        for fold in [t for s in statements for t in walk(s.value) if _is_fold(t)]:
            factors = self._narrow(fold)
            if factors is None:
                continue
            for one, other in (factors, factors[::-1]):
                is_computed = isinstance(one.kind, Computed) and not _reads(one)
                is_new = all(s.value is not one for s in found)
                if is_computed and is_new and _reads(other) and self._is_within(one):
                    found = self._with_tile(found, one)
        return found

    def _with_rows(self, statements: Sequence[Statement]) -> list[Statement]:
        """Let what is read of rows for all columns of a task be a tile.

        Else rows of an array that lie a page apart would be in few sets of the caches.
        """
        columns, size = self.kernel.columns, self._tile_axes()
        found = list(statements)
        if not columns:
            return found
        for fold in [t for s in statements for t in walk(s.value) if _is_fold(t)]:
            body, index = fold.args[-1], _index_of(fold)
            if not body.computes("arith.mulf") or self._narrow(fold) is not None:
                continue
            for factor in body.args:
                bytes_ = dtype_of(factor.type).itemsize
                if (
                    columns not in factor.free
                    and {index, *self.rows} <= factor.free
                    and self.rows
                    and self._is_within(factor)
                    and self._is_in_lanes(body, index)
                    and size[self.rows[0]] * self.size * bytes_ <= TILE_BYTES // 4
                ):
                    found = self._with_tile(found, factor)
        return found

    def _fold_inside(self, statements: Sequence[Statement]) -> Term | None:
        """A fold that is not a statement yet and has no other one in it."""
        known = {s.value for s in statements if s.target is Target.TILE}
        known |= {self._fold(s) for s in statements}
        for s in statements:
            for term in walk(s.value):
                if _is_fold(term) and term not in known:
                    return term
        return None

    def _fold(self, statement: Statement) -> Term | None:
        """The fold that a statement is; None if it is none.

        It may be one that is added to a state where that lies, if columns are in the
        lanes and all of a task's are in memory.
        """
        value = statement.value
        if _is_fold(value):
            return value
        if not self.kernel.columns or not isinstance(value.kind, Combination):
            return None
        fold, before = value.args
        is_plain = isinstance(before.kind, Held) and isinstance(fold.kind, ChunkFold)
        columns = statement.axes[-1:] == (self.kernel.columns,)
        if not is_plain or not columns or self._has_folds(fold.args[0]):
            return None
        return fold if self._is_in_lanes(fold.args[0], statement.axes[-1]) else None

    def _has_folds(self, term: Term) -> bool:
        return any(_is_fold(inner) for inner in walk(term))

    def _broadcast(self, statements: Sequence[Statement]) -> Term | None:
        """A value that a fold would compute for each index, and put into all lanes."""
        for s in statements:
            if (fold := self._fold(s)) is None:
                continue
            body, index = fold.args[-1], _index_of(fold)
            lane = self._lane_of(s)
            paired = self._paired(s, lane)
            parts = [body] if paired is None else paired
            for term in (t for p in parts for t in _outermost_without(p, lane)):
                if index in term.free and self._is_within(term):
                    return term
        return None

    def _lane_of(self, statement: Statement) -> str:
        """The axis that goes to the lanes: the last one, or the one that is folded.

        Raises:
            NotLifted: if what is read lies next to each other along neither.
        """
        value = self._fold(statement) or statement.value
        last = statement.axes[-1] if statement.axes else ""
        if not _is_fold(value):
            if last and not self._is_in_lanes(value, last):
                raise NotLifted("lanes whose addresses do not advance by one")
            return last
        body = value.args[-1]
        if last and self._is_in_lanes(body, last):
            return last
        if self._is_in_lanes(body, _index_of(value)):
            return _index_of(value)
        raise NotLifted("a fold without an axis along which it reads elements in turn")

    def _is_in_lanes(self, term: Term, axis: str) -> bool:
        """Whether all that a term reads along an axis lies next to each other."""
        order = list(self._tile_axes())
        for inner in walk(term):
            if axis not in inner.free:
                continue
            if inner.computes(AtOp.name):
                if not self._advances(inner, axis):
                    return False
            elif isinstance(inner.kind, Held):
                places = inner.args
                if not inner.kind.version:
                    # A tile, whose axes are in this order.
                    named = {str(place.kind): place for place in inner.args}
                    places = [named[name] for name in order if name in named]
                if not is_last(places, axis):
                    return False
        return True

    def _advances(self, load: Term, axis: str) -> bool:
        array, *indices = load.args
        assert isinstance(array.kind, SSAValue)
        _, strides = self.kernel.place(array.kind)
        return all(
            axis not in index.free
            or (is_unit(stride) and coefficient(index, axis) == 1)
            for index, stride in zip(indices, strides, strict=True)
        )

    def _ordered(self, statements: Sequence[Statement]) -> list[Statement]:
        """Statements in an order in which each has what it reads.

        What reads a row of a state before the chunk comes before it is overwritten.
        """
        left, order = list(statements), list[Statement]()
        while left:
            ready = next((s for s in left if not self._waits(s, left)), None)
            if ready is None:
                raise NotLifted("rows of states that need each other")
            order.append(ready)
            left.remove(ready)
        return order

    def _waits(self, statement: Statement, left: Sequence[Statement]) -> bool:
        read = {
            (t.kind.name, t.kind.version)
            for t in walk(statement.value)
            if isinstance(t.kind, Held)
        }
        for other in left:
            if other is statement:
                continue
            name = other.name
            if (name, "new") in read or (name, "") in read:
                return True
            if self._is_in_place(statement) and any(
                t.kind == Held(statement.name, "old") for t in walk(other.value)
            ):
                return True
        return False

    def _is_in_place(self, statement: Statement) -> bool:
        """Whether a statement overwrites a state of which no copy is kept."""
        return statement.target is Target.STATE and statement.axes != self.rows

    # Memory.

    def _make_memory(self, statements: Sequence[Statement]) -> None:
        for s in statements:
            names = tuple(sorted(s.value.free))
            self._memory(s.name, s.axes, s.value.type, names)
            if s.target is Target.STATE and not self._is_in_place(s):
                self._memory(s.name + OLD, s.axes, s.value.type)

    def _memory(
        self,
        name: str,
        axes: tuple[str, ...],
        type_: Attribute,
        names: tuple[str, ...] = (),
    ) -> None:
        dims = [self._tile_axes()[axis] for axis in axes]
        if dims:
            dims[-1] = -(-dims[-1] // self.lanes) * self.lanes
            if self.kernel.columns and len(axes) > 1:
                # Rows begin in other lines of a page than those before.
                dims[-1] += (self.kernel.schedule.vectors + 1) * self.lanes
        memory = self.kernel.allocate(dims, type_)
        self.code.buffers[name] = Buffer(memory, axes, False, "", names)

    def _start_states(self) -> None:
        """Put what states start from into memory."""
        terms, pass_ = self.code.terms, self.pass_
        for a in pass_.accumulators:
            start = terms.number(neutral(a.function, a.type), a.type)
            if str(start.number) == "-0.0":
                # A sum over nothing is 0, not -0.
                is_some = compare(terms, "slt", pass_.lower, pass_.upper)
                start = terms.select(is_some, start, terms.number(0.0, a.type))
            axes = (*self.rows, *a.axes)
            self._elementwise([Statement(a.name, axes, start, Target.STATE)])
        for r in pass_.pivots:
            self._elementwise([Statement(r.name, self.rows, r.start, Target.STATE)])

    # Chunks.

    def _chunk(
        self,
        index: SSAValue,
        length: SSAValue,
        masked: bool,
        states: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """What one chunk does to the states, which are in memory."""
        self.code.length, self.code.start = length, index
        self._counts(index, length, masked)
        self._keep_old()
        self._emit(self.late)
        return []

    def _finish(self, states: list[SSAValue]) -> None:
        """The accumulators and pivots are in memory."""

    def _keep_old(self) -> None:
        """Copy the states that are read as they were before the chunk."""
        code = self.code
        for statement in self.written.values():
            copy = code.buffers.get(statement.name + OLD)
            if copy is None:
                continue
            state = code.buffers[statement.name].memory
            if not copy.axes:
                value = code.emit(memref.LoadOp.get(state, []))
                code.store(value, copy.memory, [])
                continue

            def body(state: SSAValue = state, copy: Buffer = copy) -> None:
                at = [code.local[axis] for axis in copy.axes]
                type_ = code.vector_type(element_of(state.type))
                value = code.emit(vector.LoadOp(state, at, type_))
                code.builder.insert(vector.StoreOp(value, copy.memory, at))

            self._blocks(copy.axes[-1], 1, body)

    def _emit(self, statements: Sequence[Statement]) -> None:
        """Emit statements; those that have no folds and the same axes share loops."""
        together: list[Statement] = []
        for s in statements:
            fold = self._fold(s)
            if together and (fold is not None or s.axes != together[0].axes):
                self._elementwise(together)
                together = []
            if fold is None:
                together.append(s)
            elif (lane := self._lane_of(s)) == _index_of(fold):
                self._fold_across(s)
            else:
                self._fold_along(s, lane)
        if together:
            self._elementwise(together)

    def _elementwise(self, statements: Sequence[Statement]) -> None:
        """Statements without folds, over the same axes."""
        code, axes = self.code, statements[0].axes
        zero = self.number(0)

        def every() -> None:
            for s in statements:
                for number in range(code.lanes.vectors):
                    self._put(s, code.vector(s.value, 0, number), 0, number)

        if not axes:
            with self._lanes("", zero, zero, 1):
                for s in statements:
                    self._put(s, code.value(s.value), 0, 0)
            return
        for s in statements:
            self._lane_of(s)
        *others, lane = axes
        several = self.kernel.schedule.vectors
        self.kernel.over(
            others, self._range, lambda: self._blocks(lane, several, every)
        )

    def _put(
        self, statement: Statement, value: SSAValue, copy: int, number: int
    ) -> None:
        """Put an element of a statement, or one for each lane, into its memory."""
        code = self.code
        indices = [code.local_index(axis, copy) for axis in statement.axes]
        if number:
            indices[-1] = code.add(indices[-1], number * self.lanes)
        code.store(value, code.buffers[statement.name].memory, indices)

    # Loops.

    @contextmanager
    def _lanes(
        self,
        axis: str,
        base: SSAValue,
        local: SSAValue,
        vectors: int,
        mask: SSAValue | None = None,
    ) -> Generator[None]:
        """Within, an axis is in the lanes, from an index on, one within the tiles.

        Args:
            axis: the axis; empty for none.
            base: the index of the first lane.
            local: the same within the tiles.
            vectors: how many vectors there are.
            mask: which lanes have an index; None if all have.
        """
        code = self.code
        before = code.lanes, code.mask, code.masked_axis
        code.lanes = Lanes(axis, base, self.lanes, vectors)
        code.mask, code.masked_axis = None, None
        if mask is not None:
            code.mask, code.masked_axis = (lambda copy, number: mask), axis
        with code.scope(), code.bound(axis, base, local):
            yield
        code.lanes, code.mask, code.masked_axis = before

    def _below(self, count: SSAValue, lanes: int) -> SSAValue:
        """Which lanes have a number below a count."""
        code = self.code
        lane = code.vector_constant(range(lanes), i32)
        small = code.emit(arith.IndexCastOp(count, i32))
        bound = code.emit(vector.BroadcastOp(small, VectorType(i32, [lanes])))
        less = {"predicate": IntegerAttr(2, i64)}
        return code.make(arith.CmpiOp, (lane, bound), VectorType(i1, [lanes]), {**less})

    def _blocks(self, axis: str, vectors: int, body: Callable[[], None]) -> None:
        """Loops over an axis in the lanes: several vectors, one, then part of one."""
        code, lanes = self.code, self.lanes
        range_, static = self._range(axis), self._static(axis)
        width = vectors * lanes
        if static is None:
            whole = code.mul(code.div(range_.length, width), width)
            full = code.mul(code.div(range_.length, lanes), lanes)
            loops = [(self.number(0), whole, vectors), (whole, full, 1)]
            if vectors == 1:
                loops.pop()
        else:
            many = static // width * width
            whole, full = self.number(many), self.number(static // lanes * lanes)
            rest = (static - many) // lanes
            loops = [(self.number(0), whole, vectors)] if many else []
            loops += [(whole, full, rest)] if rest else []

        def emit(
            lower: SSAValue, upper: SSAValue, vectors: int, masked: bool = False
        ) -> None:
            def one(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                mask = None
                if masked:
                    mask = self._below(code.sub(range_.length, index), lanes)
                first = code.add(range_.start, index)
                with self._lanes(axis, first, index, vectors, mask):
                    body()
                return []

            code.loop(lower, upper, vectors * lanes, [], one)

        for lower, upper, count in loops:
            emit(lower, upper, count)
        if static is None or static % lanes:
            emit(full, range_.length, 1, True)

    def _copies(self, axis: str, copies: int, body: Callable[[], None]) -> None:
        """A loop over the register axis, several indices at a time; then the rest."""
        code = self.code
        if not axis:
            body()
            return
        range_, static = self._range(axis), self._static(axis)
        if static is None:
            whole = code.mul(code.div(range_.length, copies), copies)
            parts = [(self.number(0), whole, copies)]
            if copies > 1:
                least = 2 if axis in code.uneven else 1
                parts.append((whole, range_.length, least))
        else:
            rest = static % copies
            whole = self.number(static - rest)
            parts = [(self.number(0), whole, copies)] if static >= copies else []
            parts += [(whole, range_.length, rest)] if rest else []
        for lower, upper, step in parts:

            def one(
                index: SSAValue, _: list[SSAValue], step: int = step
            ) -> Sequence[SSAValue]:
                first = code.add(range_.start, index)
                with self._register(axis, step), code.bound(axis, first, index):
                    body()
                return []

            code.loop(lower, upper, step, [], one)

    @contextmanager
    def _register(self, axis: str, copies: int) -> Generator[None]:
        """Within, several indices of an axis run at a time."""
        code = self.code
        before = code.register, code.copies
        code.register, code.copies = axis, copies
        yield
        code.register, code.copies = before

    # Folds.

    def _fold_along(self, statement: Statement, lane: str) -> None:
        """A fold with an axis of its result in the lanes."""
        code, fold = self.code, self._fold(statement)
        assert fold is not None
        is_added = fold is not statement.value
        *others, _ = statement.axes
        register = others.pop() if others else ""
        schedule = self.kernel.schedule
        copies = schedule.registers if register else 1
        if register and (many := self._static(register)) is not None:
            copies = min(copies, many)
        # As many sums as the schedule has.
        vectors = min(_MOST_VECTORS, schedule.vectors * schedule.registers // copies)
        if is_added:
            vectors = schedule.vectors
        if (size := self._static(lane)) is not None:
            vectors = max(1, min(vectors, size // self.lanes))

        paired = self._paired(statement, lane)
        part = None
        if not is_added:
            part = self._part_of(fold, (*others, register, lane), copies, vectors)

        def sums(
            initial: Term | None = None,
            part: tuple[SSAValue, SSAValue] | None = None,
        ) -> None:
            if is_added:
                code.along = schedule.piece, schedule.chunk
            elif part is not None:
                code.share = self._share(statement, copies, vectors, part[0])
            if paired:
                found = self._jam(fold, *paired, initial, part)
            else:
                found = code.jam(fold, initial, part)
            code.share = code.along = None
            for (copy, number), value in found.items():
                self._put(statement, value, copy, number)

        def every(body: Callable[[], None]) -> None:
            def rows() -> None:
                self.kernel.over(
                    others, self._range, lambda: self._copies(register, copies, body)
                )

            self._blocks(lane, vectors, rows)

        if part is None:
            every(lambda: sums(statement.value.args[1] if is_added else None))
            return
        assert code.length is not None
        unit = code.terms.number(neutral(_function_of(fold), fold.type), fold.type)
        self._elementwise([replace(statement, value=unit)])
        before = self._tile_of(statement)

        def some(lower: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            assert code.length is not None
            upper = code.min(code.add(lower, part), code.length)
            every(lambda: sums(before, (lower, upper)))
            return []

        code.loop(self.number(0), code.length, part, [], some)

    def _share(
        self, statement: Statement, copies: int, vectors: int, lower: SSAValue
    ) -> Share | None:
        """What each reading of a part of a chunk asks for; None for what it reads.

        The rows that come next are read as many times as there are blocks of sums.
        """
        code, number, count = self.code, self.number(0), 1
        *others, lane = statement.axes
        steps = dict.fromkeys(others, 1) | {lane: vectors * self.lanes}
        if others:
            steps[others[-1]] = copies
        for axis, step in steps.items():
            size = self._static(axis)
            if size is None or size % step:
                return None
            block = code.div(code.local[axis], step)
            number = code.add(code.mul(number, size // step), block)
            count *= size // step
        columns = self._static(lane)
        assert columns is not None
        part = self._rows_of_part(statement.value, lane)
        return Share(number, count, lower, part, columns)

    def _rows_of_part(self, fold: Term, lane: str) -> int:
        """How many rows are summed before the next ones."""
        loads = [t for t in walk(fold) if t.computes(AtOp.name) and lane in t.free]
        bytes_ = max(map(_row_bytes, loads), default=_PART)
        return max(2, _PART // bytes_ // 2 * 2)

    def _part_of(
        self, fold: Term, axes: Sequence[str], copies: int, vectors: int
    ) -> int | None:
        """How many indices of a chunk are folded for all of a result, then the next.

        So what is read for one part of the result is in the first cache for the others,
        and rows are read one after the other. None if that makes no difference.
        """
        if not isinstance(fold.kind, ChunkFold):
            return None
        *_, register, lane = axes
        several = [axis for axis in axes if axis and self._static(axis) != 1]
        loads = [t for t in walk(fold) if t.computes(AtOp.name) and lane in t.free]
        if not loads or not several:
            return None
        sizes = [self._static(axis) for axis in (lane, register) if axis]
        if sizes == [vectors * self.lanes, copies][: len(sizes)] and len(several) <= 2:
            return None
        part = self._rows_of_part(fold, lane)
        return part if part < self.size else None

    def _tile_of(self, statement: Statement) -> Term:
        """What is in the tile of a statement."""
        terms, value = self.code.terms, statement.value
        indices = [terms.index(axis) for axis in sorted(value.free)]
        return terms.held(Held(statement.name), indices, value.type)

    def _paired(self, statement: Statement, lane: str) -> tuple[Term, Term] | None:
        """The factors of a sum of products of bf16 that is taken two at a time.

        The one in the lanes first, which is an axis of the result; None if it is not.
        """
        fold = self._fold(statement)
        assert fold is not None
        index, factors = _index_of(fold), self._narrow(fold)
        if factors is None or lane == index:
            return None
        if lane not in factors[0].free:
            factors = factors[::-1]
        in_lanes, other = factors
        if (
            not all(index in factor.free for factor in factors)
            or not in_lanes.computes(AtOp.name)
            or lane in other.free
            or (other.computes(AtOp.name) and not self._advances(other, index))
            or not self._is_within(other)
        ):
            return None
        return in_lanes, other

    def _narrow(self, fold: Term) -> tuple[Term, Term] | None:
        """The factors of a sum of products of bf16, if the schedule has pairs."""
        is_wide = self.lanes not in pairs.LANES or not self.kernel.schedule.pairs
        if is_wide or _function_of(fold) != "add":
            return None
        return narrow_factors(fold.args[-1])

    def _jam(
        self,
        fold: Term,
        in_lanes: Term,
        other: Term,
        initial: Term | None,
        part: tuple[SSAValue, SSAValue] | None,
    ) -> dict[tuple[int, int], SSAValue]:
        """A sum of products of bf16 with its columns in the lanes, two at a time.

        It starts from `initial` if that is given, as for a `part` of a chunk, which
        begins at an even place.
        """
        code, index, zero = self.code, _index_of(fold), self.number(0)
        copies = range(code.copies) if code.register in fold.free else range(1)
        every = [(k, number) for k in copies for number in range(code.lanes.vectors)]
        lower, upper, start = self._start_of(fold)
        if part is not None:
            lower, upper = part
        length = code.max(code.sub(upper, lower), 0)
        sums = [start] * len(every)
        if initial is not None:
            sums = [code.vector(initial, *which) for which in every]

        def read(place: SSAValue, step: int) -> list[SSAValue]:
            local = code.add(code.add(lower, place), step)
            first = local
            if isinstance(fold.kind, ChunkFold):
                assert code.start is not None
                first = code.add(code.start, local)
            with code.scope(), code.bound(index, first, local):
                code.ask_ahead(fold.args[-1], index)
                numbers = range(0, code.lanes.vectors, 2 if by_two else 1)
                return [vectors(number) for number in numbers]

        # Two vectors are read at a time where there are two, with no mask.
        by_two = code.lanes.vectors % 2 == 0 and code.mask is None

        def vectors(number: int) -> SSAValue:
            if not by_two:
                return code.vector(in_lanes, 0, number)
            array = in_lanes.args[0].kind
            assert isinstance(array, SSAValue)
            memory, _ = code.place(array)
            address = code.add(code.address(in_lanes, 0), number * self.lanes)
            type_ = VectorType(bf16, [2 * self.lanes])
            return code.emit(vector.LoadOp(memory, [address], type_))

        def step(is_last: bool) -> Callable[..., Sequence[SSAValue]]:
            def one(pair: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
                place = code.mul(pair, 2)
                low = read(place, 0)
                high = [None] * len(low) if is_last else read(place, 1)
                left = [
                    pair
                    for both in zip(low, high, strict=True)
                    for pair in pairs.packed_each(code, *both)
                ]
                local = code.add(lower, place)
                first = local
                if isinstance(fold.kind, ChunkFold):
                    assert code.start is not None
                    first = code.add(code.start, local)
                with code.bound(index, first, local):
                    right = [self._pair(other, copy, is_last) for copy in copies]
                return [
                    pairs.dot(code, before, left[number], right[copy])
                    for before, (copy, number) in zip(carried, every, strict=True)
                ]

            return one

        whole = code.div(length, 2)
        found = code.loop(zero, whole, 1, sums, step(False))
        end = code.div(code.add(length, 1), 2)
        found = code.loop(whole, end, 1, found, step(True))
        return dict(zip(every, found, strict=True))

    def _pair(self, factor: Term, copy: int, is_last: bool) -> SSAValue:
        """Two elements of a factor in all lanes; the second is 0 if there is none."""
        code = self.code
        if is_last:
            alone = pairs.packed(code, code.value(factor, copy), None, in_lanes=False)
            return code.broadcast(alone)
        if isinstance(factor.kind, Held):
            buffer = code.buffers[factor.kind.name]
            return pairs.pair_at(code, buffer.memory, code.places(buffer, factor, copy))
        array = factor.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = code.place(array)
        return pairs.pair_at(code, memory, [code.address(factor, copy)])

    def _start_of(self, fold: Term) -> tuple[SSAValue, SSAValue, SSAValue]:
        """The bounds of a fold within the tiles, and what its lanes start from."""
        code, unit = self.code, neutral(_function_of(fold), fold.type)
        start = code.emit(constant(unit, fold.type))
        if isinstance(fold.kind, ChunkFold):
            assert code.length is not None
            lower, upper = self.number(0), code.length
        else:
            lower, upper = (code.value(bound) for bound in fold.args[:2])
            if str(unit) == "-0.0":
                # A sum over nothing is 0, not -0.
                none = code.emit(constant(0.0, fold.type))
                is_some = code.emit(arith.CmpiOp(lower, upper, "slt"))
                start = code.emit(arith.SelectOp(is_some, start, none))
        type_ = VectorType(fold.type, [self.lanes])
        return lower, upper, code.emit(vector.BroadcastOp(start, type_))

    def _fold_across(self, statement: Statement) -> None:
        """A fold with its own index in the lanes, which are combined at the end."""
        code, lanes = self.code, self.lanes
        combine = self._combine(statement)
        *others, along = statement.axes or ("",)
        size = self._static(along) if along else 1
        if not along or (size is not None and size < lanes // 2):

            def singly() -> None:
                for copy, value in enumerate(self._partial(statement)):
                    self._put(statement, across(code, value, combine), copy, 0)

            copies = min(size or 1, _MOST_VECTORS)
            self.kernel.over(
                others, self._range, lambda: self._copies(along, copies, singly)
            )
            return
        rows, many = others[-1] if others else "", 1
        if rows:
            many = self._static(rows)
            if rows in code.uneven:
                many = self.kernel.schedule.registers
            if many is None:
                rows, many = "", 1
            else:
                others.pop()
        # So many rows that what is read of them is not all that is read.
        most = min(max(1, lanes // 2), _power_above(many))
        if rows not in code.uneven:
            self._squares(statement, others, rows, many, most)
            return
        assert self.kernel.is_pair is not None
        blocks: list[Block] = []
        for count in (2, most):
            with code.scope(block := Block()):
                self._squares(statement, others, rows, count, count)
                code.builder.insert(scf.YieldOp())
            blocks.append(block)
        pair, several = (Region(block) for block in blocks)
        code.builder.insert(scf.IfOp(self.kernel.is_pair, (), pair, several))

    def _squares(
        self,
        statement: Statement,
        others: Sequence[str],
        rows: str,
        many: int,
        most: int,
    ) -> None:
        """A fold with its own index in the lanes, as many sums at a time as lanes.

        Args:
            statement: the statement.
            others: the axes around.
            rows: an axis of which several indices share what is read; or empty.
            many: how many indices it has.
            most: how many share it.
        """
        code, lanes = self.code, self.lanes
        combine, along = self._combine(statement), statement.axes[-1]
        range_, size = self._range(along), self._static(along)
        columns = lanes // most

        def square() -> None:
            parts = self._partial(statement)
            # Beyond the last row it is there again.
            parts += parts[-columns:] * ((lanes - len(parts)) // columns)
            self._put_rows(statement, sums_of_rows(code, parts, combine), columns)

        def some(row: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
            code.rows, code.columns = rows, columns
            with (
                self._register(along, most * columns),
                code.bound(rows, code.add(self._range(rows).start, row), row),
            ):
                square()
            code.rows, code.columns = "", 1
            return []

        def block() -> None:
            if not rows:
                square()
                return
            if rows in code.uneven:
                code.loop(self.number(0), self._range(rows).length, most, [], some)
                return
            first, ahead = self._range(rows).start, code.ahead
            for row in range(0, many, most):
                local, count = self.number(row), min(most, many - row)
                code.rows, code.columns = rows, columns
                if row:
                    code.ahead = ""  # It was asked for.
                with (
                    code.scope(),
                    self._register(along, count * columns),
                    code.bound(rows, code.add(first, row), local),
                ):
                    square()
                code.rows, code.columns = "", 1
            code.ahead = ahead

        def emit(lower: SSAValue, upper: SSAValue, is_part: bool) -> None:
            def one(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                first = code.add(range_.start, index)
                if is_part:
                    # Beyond the last row it is read again.
                    last = code.sub(range_.length, 1)
                    code.last = code.add(range_.start, last), last
                if along == self.kernel.columns:
                    code.below = _BELOW
                with self._register(along, columns), code.bound(along, first, index):
                    self.kernel.over(others, self._range, block)
                code.last, code.below = None, 0
                return []

            code.loop(lower, upper, columns, [], one)

        whole = code.mul(code.div(range_.length, columns), columns)
        emit(self.number(0), whole, False)
        if size is None or size % columns:
            emit(whole, range_.length, True)

    def _put_rows(self, statement: Statement, value: SSAValue, columns: int) -> None:
        """Put what the lanes are for several rows into memory, so many for each row."""
        code = self.code
        memory = code.buffers[statement.name].memory
        if not code.rows:
            places = [code.local[axis] for axis in statement.axes]
            code.store(value, memory, places)
            return
        for copy in range(0, code.copies, columns):
            places = [code.local_index(axis, copy) for axis in statement.axes]
            if columns == 1:
                part = code.emit(
                    vector.ExtractOp(value, [copy], element_of_vector(value.type))
                )
            else:
                part = shuffled(code, value, value, range(copy, copy + columns))
            code.store(part, memory, places)

    def _combine(
        self, statement: Statement
    ) -> Callable[[SSAValue, SSAValue], SSAValue]:
        """How a fold combines two values."""
        code, function = self.code, _function_of(statement.value)
        if self._is_quiet(statement):
            return lambda left, right: code.extreme(function, left, right)
        return lambda left, right: code.apply(function, left, right)

    def _is_quiet(self, statement: Statement) -> bool:
        """Whether a maximum or minimum may leave out elements that are NaN."""
        readers = {
            s.name
            for s in self.written.values()
            if any(t.kind == Held(statement.name) for t in walk(s.value))
        }
        return bool(readers) and readers <= self.quiet

    def _partial(self, statement: Statement) -> list[SSAValue]:
        """For each copy what the lanes have of a fold."""
        code, fold = self.code, statement.value
        kind, body, index = fold.kind, fold.args[-1], _index_of(fold)
        function, zero = _function_of(fold), self.number(0)
        combine = self._combine(statement) if self._is_quiet(statement) else None
        count = code.copies if code.register in fold.free else 1
        lower, upper, splat = self._start_of(fold)
        static = None if isinstance(kind, ChunkFold) else _length(fold)
        if static is None:
            upper = code.max(upper, lower)
        loads = self._in_pairs(fold)
        width = 2 * self.lanes if loads else self.lanes

        def step(is_part: bool) -> Callable[..., Sequence[SSAValue]]:
            def one(place: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
                first = place
                if isinstance(kind, ChunkFold):
                    assert code.start is not None
                    first = code.add(code.start, place)
                mask = self._below(code.sub(upper, place), width) if is_part else None
                after: list[SSAValue] = []
                with self._lanes(index, first, place, 1, mask):
                    code.wide, code.whole = bool(loads), static or 0
                    code.ask_ahead(body, index)
                    code.wide, code.whole = False, 0
                    for copy, before in enumerate(carried):
                        if loads:
                            value = self._dot(before, loads, copy, mask)
                        elif combine is not None:
                            value = combine(code.vector(body, copy), before)
                        else:
                            value = code.accumulate(function, before, body, copy, 0)
                        if not loads:
                            value = code.masked(before, value, copy, 0)
                        after.append(value)
                return after

            return one

        with self._lanes(index, zero, zero, 1):
            # Only the lanes' number counts for what is the same in all of them.
            code.hoist(body, index)
            whole = code.add(
                lower, code.mul(code.div(code.sub(upper, lower), width), width)
            )
            found = code.loop(lower, whole, width, [splat] * count, step(False))
            if static is None or static % width:
                found = code.loop(whole, upper, width, found, step(True))
        return found

    def _in_pairs(self, fold: Term) -> tuple[Term, Term] | None:
        """The factors of a sum of products of bf16 that lie in pairs; None if not."""
        factors = self._narrow(fold)
        if factors is None:
            return None
        index = _index_of(fold)
        if not all(
            f.computes(AtOp.name) and index in f.free and self._advances(f, index)
            for f in factors
        ):
            return None
        return factors

    def _dot(
        self,
        before: SSAValue,
        loads: tuple[Term, Term],
        copy: int,
        mask: SSAValue | None,
    ) -> SSAValue:
        """A sum with the products of two elements for each lane more.

        Where there is no element one factor is 0 and the other -0, which adds nothing.
        """
        code = self.code
        type_ = VectorType(bf16, [2 * self.lanes])

        def read(load: Term, rest: float) -> SSAValue:
            array = load.args[0].kind
            assert isinstance(array, SSAValue)
            memory, _ = code.place(array)
            address = code.address(load, copy)
            if mask is None:
                return code.emit(vector.LoadOp(memory, [address], type_))
            nothing = code.emit(constant(rest, bf16))
            nothing = code.emit(vector.BroadcastOp(nothing, type_))
            return code.emit(vector.MaskedLoadOp(memory, [address], mask, nothing))

        values: list[SSAValue] = []
        for load, rest in zip(loads, (0.0, -0.0), strict=True):
            key = ("wide", code.key(load, copy, 0))
            values.append(code.once(key, lambda load=load, rest=rest: read(load, rest)))
        return pairs.dot(code, before, *values)


def _is_fold(term: Term) -> bool:
    return isinstance(term.kind, Folded | ChunkFold)


def _index_of(fold: Term) -> str:
    assert isinstance(fold.kind, Folded | ChunkFold)
    return fold.kind.index


def _function_of(fold: Term) -> str:
    """The name of the function of a fold.

    Raises:
        NotLifted: if it is one of the program.
    """
    kind = fold.kind
    if isinstance(kind, ChunkFold):
        return kind.function
    if not isinstance(kind, Folded) or not isinstance(kind.function, StringAttr):
        raise NotLifted("a fold with a function of the program")
    return kind.function.data


def _row_bytes(load: Term) -> int:
    """How many bytes a row of the array of a load has."""
    length = shape_of(load.args[0].type)[-1]
    return dtype_of(load.type).itemsize * (length if length > 0 else ROW)


def _power_above(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << (count - 1).bit_length()


def _length(fold: Term) -> int | None:
    """How many indices a fold has, None if types do not give it."""
    bounds: list[int] = []
    for bound in fold.args[:2]:
        number = bound.number
        if isinstance(bound.kind, SSAValue):
            number = static_extent(bound.kind)
        if number is None:
            return None
        bounds.append(int(number))
    return max(0, bounds[1] - bounds[0])


def _outermost_without(term: Term, axis: str) -> list[Term]:
    """The largest terms in one that are computed without an axis."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if axis in term.free:
            for arg in term.args if not _reads(term) else ():
                visit(arg)
        elif isinstance(term.kind, Computed) and not _reads(term):
            found[term] = None

    visit(term)
    return list(found)


def _reads(term: Term) -> bool:
    return term.computes(AtOp.name)
