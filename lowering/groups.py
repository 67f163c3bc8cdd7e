"""Code for a group of threads: what each computes of a tile of values.

A tile is over rows and columns. Every thread has the same number of rows and of
columns of it, and computes the values of a term that are at them: of a term that
depends on neither one value, of one that depends on rows only one for each row. Which
rows and columns those are is the layout's to say; it also combines the values of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import e, log2
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import arith, llvm, math, memref, scf, vector
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import (
    AnyFloat,
    Float32Type,
    IndexType,
    VectorType,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.gpu import BarrierOp
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering.emitter import INDEX, Emitter, NotLifted, neutral
from moa_dialect.lowering.gpu_ops import (
    AlignedLoadOp,
    AlignedStoreOp,
    FromElementsOp,
    NamedBarrierOp,
    ShuffleOp,
    static_position,
)
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import static_extent
from moa_dialect.passes.terms import (
    Choice,
    Chosen,
    ChunkFold,
    Combination,
    Computed,
    Folded,
    Held,
    InPairs,
    Nowhere,
    Term,
    Terms,
)
from moa_dialect.scalar_code import apply_named, constant
from moa_dialect.types import dtype_of, memory_element

WARP = 32

NAMED_BARRIER = 1
"""The barrier of the threads that compute, where others load; 0 is that of all."""

FAST_EXP2 = "ex2.approx.ftz.f32 $0, $1;"
"""A power of 2 by the special function unit."""


class Layout(ABC):
    """Which rows and columns of a tile a thread has.

    Attributes:
        rows: how many rows.
        threads: how many threads a group has.
        vector: how many consecutive columns lie next to each other.
    """

    rows: int
    threads: int
    vector: int

    @abstractmethod
    def row(self, code: GroupCode, number: int) -> SSAValue:
        """The row of a number, from 0 in the tile."""

    def count(self, size: int) -> int:
        """How many columns a thread has of a tile with so many."""
        return self.vector * -(-size // self.unit)

    @abstractmethod
    def column(self, code: GroupCode, number: int) -> SSAValue:
        """The column of a number, from 0 in the tile."""

    def offset(self, number: int) -> int:
        """How far the column of a number is from the first one that a thread has."""
        around, within = divmod(number, self.vector)
        return around * self.unit + within

    @property
    @abstractmethod
    def unit(self) -> int:
        """Of how many columns the threads of a row have as many each."""

    @abstractmethod
    def reduce(self, code: GroupCode, function: str, value: SSAValue) -> SSAValue:
        """Combine the values that the threads have of a row; all get the result."""

    @abstractmethod
    def is_first(self, code: GroupCode) -> SSAValue:
        """Whether a thread is the one that stores what depends on rows only."""


@dataclass
class Fragments(Layout):
    """Rows and columns as the accumulators of matrix instructions have them.

    A warp has `blocks` times 8 rows; lane l has row l / 4 of each 8, and of each 8
    columns those at 2 (l % 4) and the next.
    """

    blocks: int
    warps: int

    def __post_init__(self) -> None:
        self.rows, self.threads, self.vector = self.blocks, self.warps * WARP, 2

    def row(self, code: GroupCode, number: int) -> SSAValue:
        first = code.mul(code.warp, 8 * self.blocks)
        return code.add(code.add(first, code.div(code.lane, 4)), 8 * number)

    def column(self, code: GroupCode, number: int) -> SSAValue:
        pair = code.mul(code.rem(code.lane, 4), 2)
        return code.add(pair, self.offset(number))

    @property
    def unit(self) -> int:
        return 8

    def reduce(self, code: GroupCode, function: str, value: SSAValue) -> SSAValue:
        for distance in (1, 2):
            value = code.apply(function, value, code.shuffled(value, distance))
        return value

    def is_first(self, code: GroupCode) -> SSAValue:
        return code.equals(code.rem(code.lane, 4), 0)


@dataclass
class Square(Layout):
    """Rows and columns of which a thread has about as many.

    A warp has `blocks` times 8 rows; the four rows of lanes have every fourth of them,
    and of each 32 columns eight columns of lanes have four each. Lanes that lie side by
    side share rows or columns in turn, so that what they read from shared memory is
    read once for several.
    """

    blocks: int
    warps: int

    def __post_init__(self) -> None:
        self.rows, self.threads, self.vector = 2 * self.blocks, self.warps * WARP, 4

    def row(self, code: GroupCode, number: int) -> SSAValue:
        first = code.mul(code.warp, 8 * self.blocks)
        lane = code.rem(code.div(code.lane, 2), 4)
        return code.add(code.add(first, lane), 4 * number)

    def count(self, size: int) -> int:
        if size % 32:
            raise NotLifted("square: columns that are no multiple of 32")
        return size // 8

    def column(self, code: GroupCode, number: int) -> SSAValue:
        return code.add(code.mul(self._place(code), 4), self.offset(number))

    @property
    def unit(self) -> int:
        return 32

    def _place(self, code: GroupCode) -> SSAValue:
        return code.add(code.rem(code.lane, 2), code.mul(code.div(code.lane, 8), 2))

    def reduce(self, code: GroupCode, function: str, value: SSAValue) -> SSAValue:
        for distance in (1, 8, 16):
            value = code.apply(function, value, code.shuffled(value, distance))
        return value

    def is_first(self, code: GroupCode) -> SSAValue:
        return code.equals(self._place(code), 0)


@dataclass
class Across(Layout):
    """One row over all threads: each has `vector` columns, then again further on."""

    threads: int
    vector: int

    def __post_init__(self) -> None:
        self.rows = 1

    def row(self, code: GroupCode, number: int) -> SSAValue:
        return code.number(0)

    def column(self, code: GroupCode, number: int) -> SSAValue:
        first = code.mul(code.thread, self.vector)
        return code.add(first, self.offset(number))

    @property
    def unit(self) -> int:
        return self.threads * self.vector

    def reduce(self, code: GroupCode, function: str, value: SSAValue) -> SSAValue:
        distance = WARP // 2
        while distance:
            value = code.apply(function, value, code.shuffled(value, distance))
            distance //= 2
        warps = self.threads // WARP
        if warps == 1:
            return value
        memory = code.exchange(value.type, warps)
        block = Block()
        with code.scope(block):
            code.store(value, memory, [code.warp])
            code.builder.insert(scf.YieldOp())
        first = code.equals(code.lane, 0)
        code.builder.insert(scf.IfOp(first, (), Region(block)))
        code.barrier()
        total: SSAValue | None = None
        for number in range(warps):
            place = [code.number(number)]
            other = code.load(memory, place, value.type)
            total = other if total is None else code.apply(function, total, other)
        assert total is not None
        code.barrier()
        return total

    def is_first(self, code: GroupCode) -> SSAValue:
        return code.equals(code.thread, 0)


@dataclass
class Lanes(Layout):
    """Rows that some lanes of a warp share, each: nothing leaves the warp.

    `lanes`, a power of 2, have a row: `vector` columns each, then again further on. A
    warp has `blocks` times as many rows as so many lanes go into it.
    """

    lanes: int
    blocks: int
    warps: int
    vector: int

    def __post_init__(self) -> None:
        self.rows, self.threads = self.blocks, self.warps * WARP

    def row(self, code: GroupCode, number: int) -> SSAValue:
        each = WARP // self.lanes
        first = code.mul(code.warp, self.blocks * each)
        row = code.add(first, code.div(code.lane, self.lanes))
        return code.add(row, number * each)

    def column(self, code: GroupCode, number: int) -> SSAValue:
        first = code.mul(code.rem(code.lane, self.lanes), self.vector)
        return code.add(first, self.offset(number))

    @property
    def unit(self) -> int:
        return self.lanes * self.vector

    def reduce(self, code: GroupCode, function: str, value: SSAValue) -> SSAValue:
        distance = self.lanes // 2
        while distance:
            value = code.apply(function, value, code.shuffled(value, distance))
            distance //= 2
        return value

    def is_first(self, code: GroupCode) -> SSAValue:
        return code.equals(code.rem(code.lane, self.lanes), 0)


@dataclass
class Columns:
    """The columns of an axis that a thread has.

    Attributes:
        indices: the index of each, never one that does not exist.
        valid: for each row and column whether its value counts; None if all do.
    """

    indices: list[SSAValue]
    valid: Callable[[int, int], SSAValue] | None = None


@dataclass
class Pending:
    """Values that an instruction computes in the background.

    Attributes:
        finish: waits for them, given how many later instructions may still run.
        values: the values, once they were waited for.
    """

    finish: Callable[[int], dict[tuple[int, int], SSAValue]]
    values: dict[tuple[int, int], SSAValue] | None = None


Values = dict[tuple[int, int], SSAValue]
"""A value for each row and column."""


def _no_fold(fold: Term, start: Term | None) -> Values | Pending:
    raise NotLifted("a fold in a value that is stored")


@dataclass
class GroupCode(Emitter):
    """Emits the values that a thread has of terms.

    Attributes:
        terms: where terms are made.
        builder: where code goes.
        number: gives a number at the entry of the function.
        place: gives for an array its flat memory and the strides of its axes.
        value_of: gives the value of what comes from outside.
        layout: which rows and columns a thread has.
        thread: the number of the thread in its group.
        is_fast: whether exponentials may be those of the special function unit.
        contracts: whether products and sums may be fused, with one rounding less.
        row_axis: the axis that the rows are of; or empty.
        rows: the index of each row.
        columns: the axes that columns are of.
        index: for each other axis the value of its index.
        states: the values of what is held, for each row and column.
        axes: for states the axis of their columns, if they have some.
        alike: for the index of a pass the axis of columns of states that it goes over.
        given: the terms of the new values of states, and of tiles.
        contraction: emits the folds that the layout does not reduce.
        in_flight: what is computed in the background, in order.
        has_others: whether a group has threads beside those of the layout.
        is_alone: whether each thread folds the columns that it has by itself.
        partial: the folds over a chunk of which each thread keeps its own part.
    """

    terms: Terms
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    layout: Layout
    thread: SSAValue
    exchange: Callable[[Attribute, int], SSAValue]
    is_fast: bool = False
    contracts: bool = True
    row_axis: str = ""
    rows: list[SSAValue] = field(default_factory=list[SSAValue])
    columns: dict[str, Columns] = field(default_factory=dict[str, Columns])
    index: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    states: dict[Held, Values | Pending] = field(
        default_factory=dict[Held, Values | Pending]
    )
    axes: dict[str, str] = field(default_factory=dict[str, str])
    alike: dict[str, str] = field(default_factory=dict[str, str])
    given: dict[str, Term] = field(default_factory=dict[str, Term])
    contraction: Callable[[Term, Term | None], Values | Pending] = _no_fold
    in_flight: list[Pending] = field(default_factory=list[Pending])
    has_others: bool = False
    is_alone: bool = False
    partial: set[Term] = field(default_factory=set[Term])
    scopes: list[dict[Hashable, Any]] = field(
        default_factory=lambda: list[dict[Hashable, Any]]([{}])
    )

    def __post_init__(self) -> None:
        self.lane = self.rem(self.thread, WARP)
        self.warp = self.div(self.thread, WARP)

    # Emission.

    def rem(self, left: SSAValue, right: int) -> SSAValue:
        """The remainder of an index that is not negative."""
        return self._arithmetic(arith.RemUIOp, left, right)

    def compare(
        self, predicate: str, left: SSAValue, right: SSAValue | int
    ) -> SSAValue:
        """A comparison of indices."""
        if isinstance(right, int):
            right = self.number(right)
        return self.emit(arith.CmpiOp(left, right, predicate))

    def equals(self, left: SSAValue, right: int) -> SSAValue:
        """Whether an index is a number."""
        return self.compare("eq", left, right)

    def select(self, condition: SSAValue, then: SSAValue, other: SSAValue) -> SSAValue:
        """A choice between two values."""
        return self.emit(arith.SelectOp(condition, then, other))

    def constant(self, value: float, type_: Attribute) -> SSAValue:
        """A number of a type."""
        key = ("constant", str(value), type_)
        return self.once(key, lambda: self.emit(constant(value, type_)))

    def joined(self, values: Sequence[SSAValue]) -> SSAValue:
        """A vector of scalars."""
        return self.emit(FromElementsOp(values))

    def zeros(self, type_: VectorType) -> SSAValue:
        """A vector of zeros."""
        zero = self.constant(0, type_.element_type)
        return self.emit(vector.BroadcastOp(zero, type_))

    def apply(self, function: str, left: SSAValue, right: SSAValue) -> SSAValue:
        """Combine two values by the function of a fold."""
        return apply_named(function, (left, right), self.builder)

    def shuffled(self, value: SSAValue, distance: int) -> SSAValue:
        """The value of the lane whose number differs in one bit."""
        offset = self.constant(distance, i32)
        if value.type == i1:
            wide = self.emit(arith.ExtUIOp(value, i32))
            return self.emit(arith.TruncIOp(self._xor(wide, offset), i1))
        if isinstance(value.type, IndexType):
            wide = self.emit(arith.IndexCastOp(value, i64))
            return self.emit(arith.IndexCastOp(self._xor(wide, offset), INDEX))
        if isinstance(value.type, AnyFloat) and value.type.bitwidth < 32:
            wide = self.emit(arith.ExtFOp(value, f32))
            return self.emit(arith.TruncFOp(self._xor(wide, offset), value.type))
        return self._xor(value, offset)

    def _xor(self, value: SSAValue, offset: SSAValue) -> SSAValue:
        return self.emit(ShuffleOp(value, offset, self.constant(WARP, i32), "xor"))

    def assembly(
        self,
        text: str,
        constraints: str = "~{memory}",
        operands: Sequence[SSAValue] = (),
        result: Attribute | None = None,
    ) -> SSAValue | None:
        """Insert PTX that has effects; gives its result if it has one."""
        op = llvm.InlineAsmOp(
            text,
            constraints,
            operands,
            None if result is None else [result],
            asm_dialect=0,
            has_side_effects=True,
        )
        self.builder.insert(op)
        return op.res

    def barrier(self) -> None:
        """Wait until all threads of the layout are here, and see what they stored."""
        if not self.has_others:
            self.builder.insert(BarrierOp())
            return
        number = self.constant(NAMED_BARRIER, i32)
        count = self.constant(self.layout.threads, i32)
        self.builder.insert(NamedBarrierOp(number, count))

    @contextmanager
    def at(self, indices: dict[str, SSAValue]) -> Generator[None]:
        """Within, axes of rows and columns have one index for the whole thread."""
        before = self.row_axis, dict(self.columns), dict(self.index)
        scopes, self.scopes = self.scopes, [{}]  # Values of rows are others here.
        if self.row_axis in indices:
            self.row_axis = ""
        for axis in indices:
            self.columns.pop(axis, None)
        self.index |= indices
        yield
        self.scopes = scopes
        self.row_axis, self.columns, self.index = before

    @contextmanager
    def bound(self, axis: str, index: SSAValue) -> Generator[None]:
        """Let an axis have an index."""
        before = self.index.get(axis)
        self.index[axis] = index
        yield
        if before is None:
            del self.index[axis]
        else:
            self.index[axis] = before

    # Values of terms.

    def column_axis(self, term: Term) -> str:
        """The axis of columns that a term depends on; empty if there is none."""
        found = [axis for axis in self.columns if axis in term.free]
        if len(found) > 1:
            raise NotLifted("a value over two axes of columns")
        return found[0] if found else ""

    def every(self, term: Term) -> list[tuple[int, int]]:
        """The rows and columns for which a term has values of its own."""
        axis = self.column_axis(term)
        columns = len(self.columns[axis].indices) if axis else 1
        rows = len(self.rows) if self.row_axis and self.row_axis in term.free else 1
        return [(row, column) for row in range(rows) for column in range(columns)]

    def key(self, term: Term, row: int, column: int) -> Hashable:
        """What tells values of a term apart."""
        if not (self.row_axis and self.row_axis in term.free):
            row = 0
        if not any(axis in term.free for axis in self.columns):
            column = 0
        return term, row, column

    def value(self, term: Term, row: int = 0, column: int = 0) -> SSAValue:
        """The value of a term at a row and column."""
        key = self.key(term, row, column)
        if (known := self.find(key)) is None:
            if isinstance(term.kind, Combination | ChunkFold | Folded):
                self.begin(term)
            known = self.find(key)
        if known is None:
            known = self._value(term, row, column)
            self.scopes[-1][key] = known
        if isinstance(known, Pending):
            return self.finished(known)[row, column]
        return known

    def begin(self, term: Term) -> Values | Pending | None:
        """Emit all values of a fold with columns, or begin to compute them.

        Returns:
            What is known then of all rows and columns; None for any other term.
        """
        fold, start = term, None
        if isinstance(term.kind, Combination):
            fold, start = term.args
        if not isinstance(fold.kind, Folded) and not self._is_contraction(fold):
            return None
        places = self.every(term)
        known = self.find(self.key(term, *places[0]))
        if isinstance(known, Pending):
            return known
        if known is None:
            found = self.contraction(fold, start)
            for row, column in places:
                value = found if isinstance(found, Pending) else found[row, column]
                self.scopes[-1][self.key(term, row, column)] = value
            return found
        return {place: self.value(term, *place) for place in places}

    def finished(self, pending: Pending) -> Values:
        """Wait for what is computed in the background."""
        if pending.values is None:
            later = len(self.in_flight) - 1 - self.in_flight.index(pending)
            pending.values = pending.finish(later)
        return pending.values

    def _value(self, term: Term, row: int, column: int) -> SSAValue:
        kind = term.kind
        match kind:
            case float() | int():
                if isinstance(term.type, IndexType):
                    return self.number(int(kind))
                return self.constant(kind, term.type)
            case SSAValue():
                return self.value_of(kind)
            case str():
                if kind == self.row_axis:
                    return self.rows[row]
                if kind in self.columns:
                    return self.columns[kind].indices[column]
                if kind not in self.index:  # It is several in a group, of no tile.
                    raise NotLifted("factors that depend on the columns of a group")
                return self.index[kind]
            case Held():
                return self._held(term, kind, row, column)
            case Computed(operation, properties):
                if operation is AtOp:
                    return self._load(term, row, column)
                if not operation.name.startswith(("arith.", "math.")):
                    raise NotLifted(operation.name)
                return self._computed(term, operation, dict(properties), row, column)
            case Combination(function):
                args = [self.value(arg, row, column) for arg in term.args]
                return self.apply(function, args[0], args[1])
            case ChunkFold():
                return self._reduction(term, kind, row)
            case Folded():
                raise AssertionError("a fold is emitted for all rows and columns")
            case Choice():
                return self._choice(term, row, column)
            case InPairs() | Chosen() | Nowhere():
                raise AssertionError(f"{kind} is of vector code")

    def _is_contraction(self, term: Term) -> bool:
        """Whether a fold over a chunk has a result for each column of another axis."""
        return isinstance(term.kind, ChunkFold) and bool(self.column_axis(term))

    def _computed(
        self,
        term: Term,
        operation: type[Operation],
        properties: dict[str, Attribute],
        row: int,
        column: int,
    ) -> SSAValue:
        is_float = isinstance(term.type, AnyFloat)
        if self.contracts and is_float and operation in _CONTRACTED:
            properties["fastmath"] = FastMathFlagsAttr([FastMathFlag.ALLOW_CONTRACT])
        if (
            self.is_fast
            and operation is math.ExpOp
            and isinstance(term.type, Float32Type)
        ):
            return self._fast_exp(term.args[0], row, column)
        if (
            self.is_fast
            and operation is arith.DivfOp
            and isinstance(term.type, Float32Type)
            and self.column_axis(term.args[0])
            and not self.column_axis(term.args[1])
        ):
            left, right = term.args
            one = self.terms.number(1.0, f32)
            once = self.terms.compute(arith.DivfOp, (one, right))
            product = self.terms.compute(arith.MulfOp, (left, once))
            return self.value(product, row, column)
        args = [self.value(arg, row, column) for arg in term.args]
        return self.make(operation, args, term.type, properties)

    def _fast_exp(self, argument: Term, row: int, column: int) -> SSAValue:
        """The exponential by the special function unit, within 2 ulp of its argument.

        The factor log2 e goes into the operands of a difference: one of them is the
        same for all columns, and the other becomes part of a fused multiply-add.
        """
        if argument.computes("arith.subf"):
            left, right = map(self._in_bits, argument.args)
            argument = self.terms.compute(arith.SubfOp, (left, right))
        else:
            argument = self._in_bits(argument)
        return self.exp2(self.value(argument, row, column))

    def _in_bits(self, term: Term) -> Term:
        """A term times log2 e; finite where it is, if columns share it."""
        terms, number, other = self.terms, 1.0, term
        if term.computes("arith.mulf"):
            for factor, rest in (term.args, term.args[::-1]):
                if factor.number is not None:
                    number, other = float(factor.number), rest
        factor = terms.number(number * log2(e), f32)
        found = terms.compute(arith.MulfOp, (other, factor))
        if self.column_axis(term):
            return found
        least = terms.number(-_LARGEST, f32)
        return terms.compute(arith.MaximumfOp, (found, least))

    def exp2(self, value: SSAValue) -> SSAValue:
        """A power of 2 by the special function unit."""
        return self.emit(
            llvm.InlineAsmOp(FAST_EXP2, "=f,f", [value], [f32], asm_dialect=0)
        )

    def _held(self, term: Term, kind: Held, row: int, column: int) -> SSAValue:
        values = self.states.get(kind)
        if isinstance(values, Pending):
            values = self.finished(values)
        if values is None:
            if kind.name not in self.given or kind.version not in ("new", ""):
                raise NotLifted(f"{kind.name} {kind.version}")
            return self.value(self.given[kind.name], row, column)
        own = self.axes.get(kind.name, "")
        for arg in term.args:
            name = arg.kind
            if isinstance(name, str) and name == self.row_axis:
                continue
            if not isinstance(name, str) or self.alike.get(name, name) != own:
                raise NotLifted("an element of a state at another index than its own")
        rows = 1 + max(r for r, _ in values)
        columns = 1 + max(c for _, c in values)
        return values[row if rows > 1 else 0, column if columns > 1 else 0]

    def _load(self, term: Term, row: int, column: int) -> SSAValue:
        array = term.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = self.place(array)
        element = memory_element(term.type)
        count = self.layout.vector
        if count > 1 and self._is_vector(term):
            first = column - column % count
            address = self.address(term, row, first)
            key = ("vector", self.key(term, row, first))
            type_ = VectorType(element, [count])
            values = self.once(key, lambda: self.load_vector(memory, address, type_))
            found = self.extracted(values, column % count)
        else:
            address = self.address(term, row, column)
            return self.load(memory, [address], term.type)
        return self._as(found, term.type)

    vectors: frozenset[str] = frozenset()
    """The axes whose columns may be loaded as vectors: they start where those do."""

    def _is_vector(self, load: Term) -> bool:
        """Whether the columns of a load that lie next to each other are a vector."""
        axis = self.column_axis(load)
        if axis not in self.vectors or not self.is_contiguous(load, axis):
            return False
        array = load.args[0].kind
        assert isinstance(array, SSAValue)
        _, strides = self.place(array)
        # Every row must begin where a vector may.
        return all(divides(stride, self.layout.vector) for stride in strides[:-1])

    def is_contiguous(self, load: Term, axis: str) -> bool:
        """Whether an axis is the last of an array, whose other strides are known."""
        array, *indices = load.args
        assert isinstance(array.kind, SSAValue)
        _, strides = self.place(array.kind)
        if not indices or indices[-1].kind != axis:
            return False
        return strides[-1] is self.number(1) and all(
            axis not in index.free for index in indices[:-1]
        )

    def _as(self, found: SSAValue, type_: Attribute) -> SSAValue:
        """What is in memory as a value: a truth value takes a byte there."""
        return found if found.type == type_ else self.emit(arith.TruncIOp(found, i1))

    def load(
        self, memory: SSAValue, indices: Sequence[SSAValue], type_: Attribute
    ) -> SSAValue:
        """Load a value of a type."""
        return self._as(self.emit(memref.LoadOp.get(memory, indices)), type_)

    def store(
        self, value: SSAValue, memory: SSAValue, indices: Sequence[SSAValue]
    ) -> None:
        """Store a value as it is in memory."""
        if value.type == i1:
            value = self.emit(arith.ExtUIOp(value, i8))
        self.builder.insert(memref.StoreOp.get(value, memory, indices))

    def load_vector(
        self, memory: SSAValue, address: SSAValue, type_: VectorType
    ) -> SSAValue:
        """Load a vector that is aligned to its size."""
        return self.emit(AlignedLoadOp(memory, [address], type_, vector_bytes(type_)))

    def store_vector(
        self, value: SSAValue, memory: SSAValue, indices: Sequence[SSAValue]
    ) -> None:
        """Store a vector that is aligned to its size."""
        assert isa(value.type, VectorType)
        size = vector_bytes(value.type)
        self.builder.insert(AlignedStoreOp(value, memory, indices, size))

    def extracted(self, value: SSAValue, position: int) -> SSAValue:
        """An element of a vector."""
        assert isa(value.type, VectorType)
        op = vector.ExtractOp.create(
            operands=[value],
            result_types=[value.type.element_type],
            properties={"static_position": static_position(position)},
        )
        return self.emit(op)

    def address(self, term: Term, row: int, column: int) -> SSAValue:
        """The flat address of an element."""
        array, *indices = term.args
        assert isinstance(array.kind, SSAValue)
        _, strides = self.place(array.kind)
        found = self.number(0)
        # What depends on rows and columns comes last, so that the rest is shared.
        parts = sorted(
            zip(indices, strides, strict=True),
            key=lambda part: len(self.every(part[0])) if part[0].free else 0,
        )
        for index, stride in parts:
            key = ("product", self.key(index, row, column), stride)
            product = self.once(
                key, lambda i=index, s=stride: self._product(i, s, row, column)
            )
            if found is self.number(0):
                found = product
                continue
            before = found
            key = ("sum", before, product)
            found = self.once(key, lambda b=before, p=product: self.add(b, p))
        return found

    def _product(
        self, index: Term, stride: SSAValue, row: int, column: int
    ) -> SSAValue:
        value = self.value(index, row, column)
        if stride is self.number(1):
            return value
        return self.make(arith.MuliOp, (value, stride), INDEX)

    # Folds.

    def _reduction(self, term: Term, kind: ChunkFold, row: int) -> SSAValue:
        """A fold over the columns of a chunk, for one row."""
        body, function = term.args[0], kind.function
        factor = _positive_factor(body) if function in ("max", "min") else None
        if factor is not None:  # Rounding a product keeps the order.
            number, other = factor
            inner = self.terms.chunk_fold(function, kind.index, other)
            return self.value(self.terms.compute(arith.MulfOp, (number, inner)), row)
        columns = self.columns[kind.index]
        unit = self.constant(neutral(function, term.type), term.type)
        # Of what has no order as many are combined at a time as need not wait.
        is_free = function in ("max", "min") or self.is_alone
        is_free = is_free or isinstance(self.layout, Lanes)
        chains = _CHAINS if is_free else 1
        totals: list[SSAValue] = []
        for column in range(len(columns.indices)):
            value = self.value(body, row, column)
            if columns.valid is not None:
                value = self.select(columns.valid(row, column), value, unit)
            if column < chains:
                totals.append(value)
            else:
                before = totals[column % chains]
                totals[column % chains] = self.apply(function, before, value)
        while len(totals) > 1:
            half = -(-len(totals) // 2)
            rest = totals[half:]
            totals = [
                self.apply(function, total, rest[number])
                if number < len(rest)
                else total
                for number, total in enumerate(totals[:half])
            ]
        (total,) = totals
        if self.is_alone or term in self.partial:
            return total
        return self.layout.reduce(self, function, total)

    def _choice(self, term: Term, row: int, column: int) -> SSAValue:
        """A choice of which one side is evaluated."""
        condition = self.value(term.args[0], row, column)
        regions: list[Region] = []
        for side in term.args[1:]:
            with self.scope(block := Block()):
                self.builder.insert(scf.YieldOp(self.value(side, row, column)))
            regions.append(Region(block))
        return self.emit(scf.IfOp(condition, (term.type,), regions[0], regions[1]))


def _positive_factor(term: Term) -> tuple[Term, Term] | None:
    """A positive number and what it multiplies, if a term is such a product."""
    if term.computes("arith.mulf"):
        for factor, other in (term.args, term.args[::-1]):
            if factor.number is not None and float(factor.number) > 0:
                return factor, other
    return None


_CHAINS = 4
"""How many values without an order are combined side by side."""

_LARGEST = 3.4028234663852886e38
"""The largest f32."""

_CONTRACTED: tuple[type[Operation], ...] = (arith.AddfOp, arith.SubfOp, arith.MulfOp)
"""Products and sums that may be fused, with one rounding less."""


def vector_bytes(type_: VectorType) -> int:
    """The size of a vector."""
    return type_.element_count() * dtype_of(type_.element_type).itemsize


def static_number(value: SSAValue) -> int | None:
    """A number as an integer, None if types do not give it."""
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(value.type, IndexType):
        return int(owner.value.value.data)  # pyright: ignore
    return static_extent(value)


def divides(value: SSAValue, number: int) -> bool:
    """Whether a number divides an index, as far as its factors tell."""
    known = static_number(value)
    if known is not None:
        return known % number == 0
    if isinstance(value.owner, arith.MuliOp):
        return any(divides(operand, number) for operand in value.owner.operands)
    return False
