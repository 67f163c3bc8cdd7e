"""Values of terms whose lanes change from statement to statement.

Tiles and states are plain memory there, read in vectors along their last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects import arith, memref, vector
from xdsl.dialects.builtin import i1
from xdsl.ir import SSAValue

from moa_dialect.lowering.emitter import INDEX, NotLifted
from moa_dialect.lowering.prefetch import LINE, PrefetchOp
from moa_dialect.lowering.vector_code import Buffer, VectorCode
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.strides import coefficient
from moa_dialect.passes.terms import Held, Term, walk
from moa_dialect.types import dtype_of, memory_element, shape_of

_AHEAD = 6 << 10
"""How many bytes before they are needed rows are asked for."""

_FURTHER = 1 << 10
"""How many bytes further on a row is asked for that is read in long pieces."""

ROW = 128
"""How many elements rows have whose extent types do not give."""


OLD = ".old"
"""After the name of a state: the memory of what it was before the chunk."""


@dataclass(frozen=True)
class Share:
    """Which part of the rows that come next is asked for, while some are read.

    Attributes:
        number: which one.
        count: how many there are.
        lower: where the rows that are read begin, within the chunk.
        rows: how many of them there are.
        columns: how long they are.
    """

    number: SSAValue
    count: int
    lower: SSAValue
    rows: int
    columns: int


@dataclass
class StatementCode(VectorCode):
    """Emits the values of terms whose lanes change from statement to statement.

    Attributes:
        last: of the register axis the last index there is, whole and within the tiles;
            None if every copy has one.
        wide: whether loads take twice as many elements as there are lanes: pairs.
        share: what is asked for where rows are read several times.
        along: how long pieces of rows are and how many are read side by side, if what
            comes next in these is asked for; else None.
        below: how many rows further on is asked for what the lanes go along, if several
            rows are read side by side; else 0.
        whole: how many indices the lanes go along, if types tell; else 0.
        rows: another register axis; or empty. The copies of the first one come one
            after the other, and again for each index of this one.
        columns: how many copies there are of the first one, if there is another.
        ends: the last index of axes of which copies may go beyond: they are that one
            again.
    """

    last: tuple[SSAValue, SSAValue] | None = None
    wide: bool = False
    share: Share | None = None
    along: tuple[int, int] | None = None
    below: int = 0
    whole: int = 0
    rows: str = ""
    columns: int = 1
    ends: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])

    def copy_of(self, term: Term, copy: int) -> int:
        """Of the copies that have the same value of a term, the first."""
        if not self.rows:
            return super().copy_of(term, copy)
        row, column = divmod(copy, self.columns)
        row = row if self.rows in term.free else 0
        return row * self.columns + (column if self.register in term.free else 0)

    def moved(self, copy: int) -> dict[str, int] | None:
        """As always, but for copies beyond the last index, which is there again."""
        if self.last is not None or {self.register, self.rows} & self.ends.keys():
            return None
        if not self.rows:
            return super().moved(copy)
        row, column = divmod(copy, self.columns)
        found = super().moved(column)
        return None if found is None else found | {self.rows: row}

    def _index(self, axis: str, copy: int, number: int) -> SSAValue:
        if self.rows:
            row, column = divmod(copy, self.columns)
            if axis == self.rows:
                return self._within(axis, self.add(self.index[axis], row))
            copy = column
        found = super()._index(axis, copy, number)
        if axis in self.ends and axis != self.lanes.axis:
            found = self._within(axis, found)
        if self.last is not None and axis == self.register != self.lanes.axis:
            return self.min(found, self.last[0])
        return found

    def _within(self, axis: str, index: SSAValue) -> SSAValue:
        """An index, the last there is of its axis if it is beyond."""
        return self.min(index, self.ends[axis]) if axis in self.ends else index

    def local_index(self, axis: str, copy: int) -> SSAValue:
        """The index of an axis within the tiles."""
        if self.rows:
            row, column = divmod(copy, self.columns)
            if axis == self.rows:
                return self.add(self.local[axis], row)
            copy = column
        found = super().local_index(axis, copy)
        if self.last is not None and axis == self.register:
            return self.min(found, self.last[1])
        return found

    def _held(self, term: Term, kind: Held, copy: int, number: int) -> SSAValue:
        old = kind.name + OLD
        if kind.version == "old" and old in self.buffers:
            buffer = self.buffers[old]
        elif (found := self.buffers.get(kind.name)) is not None:
            buffer = found
        else:
            return super()._held(term, kind, copy, number)
        value = self._element(buffer, term, copy, number)
        return value if term.type != i1 else self._truth(value)

    def _element(self, buffer: Buffer, term: Term, copy: int, number: int) -> SSAValue:
        indices = self.places(buffer, term, copy)
        if not self.is_vector(term):
            return self.emit(memref.LoadOp.get(buffer.memory, indices))
        if not is_last(places_of(buffer, term), self.lanes.axis):
            raise NotLifted("rows that are read across lanes")
        *others, first = indices
        first = self.add(first, number * self.lanes.lanes)
        type_ = self.vector_type(memory_element(term.type))
        return self.emit(vector.LoadOp(buffer.memory, [*others, first], type_))

    def places(self, buffer: Buffer, term: Term, copy: int) -> list[SSAValue]:
        """Where in its memory an element is; that of the first lane if lanes differ."""
        return [self._place(place, copy) for place in places_of(buffer, term)]

    def _place(self, place: Term, copy: int) -> SSAValue:
        """An index within a tile; that of the first lane, if lanes differ."""
        kind = place.kind
        if isinstance(kind, str) and kind in self.local:
            return self.local_index(kind, copy)
        with self.lane_index(self.lanes.base):
            return self.value(place, copy)

    def ask_ahead(self, body: Term, index: str) -> None:
        """Ask for the rows that loads along a pass will read soon."""
        if not self.ahead:
            return
        for load in walk(body):
            if not load.computes(AtOp.name) or self.ahead not in load.free:
                continue
            if not self.is_vector(load) or not self.is_contiguous(load):
                continue
            if self.below:
                self._ask_below(load)
            elif self.ahead == index:
                self._ask_columns(load)
            elif self.ahead == self.register:
                self._ask_rows(load)

    def _ask_columns(self, load: Term) -> None:
        """Ask for the same columns some rows further on.

        Or, if the rows are read more than once, for a share of these rows each time.
        """
        size = dtype_of(load.type).itemsize
        width = self.lanes.width * size
        if self.along:
            at = self._further(load, _FURTHER // size)
            for start in range(0, width, LINE):
                self._ask(load, self.add(at, start // size))
            return
        rows = self._rows_ahead(load)
        first = self.add(self.address(load, 0), self.mul(self._stride(load), rows))
        share = self.share
        if share is not None and self._are_whole(load, share.columns):
            each = share.columns // share.count
            if share.columns % share.count == 0 and each * size % LINE == 0:
                place = self.sub(self.local[self.ahead], share.lower)
                at = self.add(self.mul(share.number, share.rows), place)
                first = self.sub(first, self.lanes.base)
                first = self.sub(first, self.mul(place, share.columns))
                first, width = self.add(first, self.mul(at, each)), each * size
        for start in range(0, width, LINE):
            self._ask(load, self.add(first, start // size))

    def _ask_below(self, load: Term) -> None:
        """Ask for the same columns some rows further on, of rows read side by side."""
        if self.register not in load.free:
            return
        size = dtype_of(load.type).itemsize
        step = self.lanes.lanes * (2 if self.wide else 1) * size
        far = self.mul(self._stride(load, self.register), self.below)
        for copy in range(self.columns if self.rows else self.copies):
            at = self.add(self.address(load, copy), far)
            for start in range(0, step, LINE):
                self._ask(load, self.add(at, start // size))

    def _further(self, load: Term, many: int) -> SSAValue:
        """What is so many elements further on in rows that are read piece by piece.

        After the last element of a piece comes the first one some rows further on.
        """
        assert self.along is not None
        length, rows = self.along
        address = self.address(load, 0)
        if many >= length:
            return self.add(address, self.mul(self._stride(load), rows))

        def jump() -> SSAValue:
            local = self.local[self.lanes.axis]
            is_more = self.emit(arith.CmpiOp(local, self.number(length - many), "slt"))
            after = self.sub(self.mul(self._stride(load), rows), length - many)
            return self.emit(arith.SelectOp(is_more, self.number(many), after))

        key = ("further", load.args[0], self.local[self.lanes.axis], many)
        return self.add(address, self.once(key, jump))

    def _ask_rows(self, load: Term) -> None:
        """Ask for rows further on, at each step as much as is being read.

        In the order in which they lie in memory, if whole rows are read.
        """
        size = dtype_of(load.type).itemsize
        step = self.lanes.lanes * (2 if self.wide else 1)
        count = self.columns if self.rows else self.copies
        stride = self._stride(load)
        rows = self.number(max(count, self._rows_ahead(load)))
        address = self.address(load, 0)
        address = self.add(address, self.make(arith.MuliOp, (rows, stride), INDEX))
        if self._are_whole(load, self.whole):
            address = self.add(address, self.mul(self.lanes.base, count - 1))
            for start in range(0, count * step * size, LINE):
                self._ask(load, self.add(address, start // size))
        elif step * size >= LINE:
            # Else several times the same line: left to the hardware.
            for copy in range(count):
                self._ask(load, self.add(address, self.mul(stride, copy)))

    def _are_whole(self, load: Term, count: int) -> bool:
        """Whether the lanes' axis goes along rows, which lie one after the other.

        Args:
            load: what is read.
            count: how many indices the axis has; 0 if that is not known.
        """
        array, *indices = load.args
        if len(indices) < 2 or coefficient(indices[-2], self.ahead) != 1:
            return False
        length = shape_of(array.type)[-1]
        return indices[-1].kind == self.lanes.axis and length == count

    def _rows_ahead(self, load: Term) -> int:
        """How many rows before it is needed one is asked for."""
        length = shape_of(load.args[0].type)[-1]
        size = dtype_of(load.type).itemsize
        return max(1, _AHEAD // max(1, size * (length if length > 0 else ROW)))

    def _stride(self, load: Term, axis: str | None = None) -> SSAValue:
        """How far apart what is read for two indices of an axis is; of the pass's."""
        axis = self.ahead if axis is None else axis
        array, *indices = load.args
        assert isinstance(array.kind, SSAValue)
        _, strides = self.place(array.kind)
        total = self.number(0)
        for index, stride in zip(indices, strides, strict=True):
            times = coefficient(index, axis)
            if times:
                total = self.add(total, self.mul(stride, times))
        return total

    def _ask(self, load: Term, address: SSAValue) -> None:
        array = load.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = self.place(array)
        self.builder.insert(PrefetchOp(memory, [address]))


def places_of(buffer: Buffer, term: Term) -> Sequence[Term]:
    """For each axis of a tile or state the index at which it is read."""
    assert isinstance(term.kind, Held)
    if term.kind.version:
        return term.args[len(term.args) - len(buffer.axes) :]
    return [term.args[buffer.names.index(axis)] for axis in buffer.axes]


def is_last(places: Sequence[Term], axis: str) -> bool:
    """Whether elements along an axis lie next to each other in a tile."""
    *others, last = places
    return coefficient(last, axis) == 1 and not any(axis in p.free for p in others)
