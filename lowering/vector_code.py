"""Vector code for kernels: one generator for every tile statement.

A value that depends on the lane axis is `vectors` vectors of `lanes` elements; any
other is a scalar, broadcast where it meets a vector. The loop over a tile axis runs
several indices at a time, the register copies: what depends on that axis exists once
for each copy, what does not is shared. Folds inside become one loop with an accumulator
for each copy and vector (unroll and jam).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith, math, memref, vector
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import (
    AnyFloat,
    DenseIntOrFPElementsAttr,
    IndexType,
    IntegerAttr,
    VectorType,
    i1,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering import chosen, pairs
from moa_dialect.lowering.emitter import (
    CHAINS,
    COMBINE,
    FULL,
    INDEX,
    Emitter,
    NotLifted,
    neutral,
    vector_of,
)
from moa_dialect.lowering.prefetch import ask
from moa_dialect.lowering.tiles import Nest, Reduction, Statement, Target
from moa_dialect.ops.normal_form import AtOp, InBoundsOp
from moa_dialect.passes.kernels import known_number, static_extent
from moa_dialect.passes.strides import coefficient
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
    walk,
)
from moa_dialect.scalar_code import apply_named, constant
from moa_dialect.types import element_of, kind_of, memory_element

Values: TypeAlias = list[SSAValue]
"""One value for each vector of the lanes, or one scalar."""


@dataclass(frozen=True)
class Buffer:
    """Memory of a kernel: over `axes`, and then over the lanes if it has any.

    Along the axis `pairs`, if there is one, bf16 elements lie in pairs: an i32 holds
    those of two indices, the even one in its lower half.
    """

    memory: SSAValue
    axes: tuple[str, ...]
    has_lanes: bool = True
    pairs: str = ""
    names: tuple[str, ...] = ()
    """Of a tile: the names that its arguments had, the axes among them.

    In a fold inside, indices have other names when its body becomes simpler.
    """


@dataclass
class Lanes:
    """The lane axis: which indices the lanes have.

    Attributes:
        axis: the name of the axis.
        base: the index of the first lane.
        lanes: the lanes of a vector.
        vectors: how many vectors there are.
        last: the largest index there is; None if every lane has one.
    """

    axis: str
    base: SSAValue
    lanes: int
    vectors: int
    last: SSAValue | None = None

    @property
    def width(self) -> int:
        """How many indices the lanes have together."""
        return self.lanes * self.vectors


def _no_output(statement: Statement, value: SSAValue, copy: int, number: int) -> None:
    raise AssertionError(f"{statement.name}: a pass has no outputs")


@dataclass
class VectorCode(Emitter):
    """Emits the values of terms.

    Attributes:
        terms: where terms are made.
        builder: where code goes.
        entry: the entry of the function, for numbers.
        places: for an array its flat memory and the strides of its axes.
        values: the values of what comes from outside.
        lanes: the lane axis.
        index: for each axis the value of its index.
        local: for each axis its index within the tiles.
        scale: how far apart consecutive indices of an axis are, if not 1.
        buffers: the memory of states and tiles that have axes.
        held: the values of those that have none.
        length: how many indices the chunk has.
        start: the first of them.
        mask: which lanes have an index of the chunk; None if all have.
        register: the axis of which several indices run at a time.
        copies: how many.
        scalar_lane: the index of the lane axis where it is one index, not many.
        quiet: the states that may leave out elements that are NaN.
        uneven: the axes of rows of which there may be a few.
        ahead: the index of a pass whose contractions ask for what they read early.
        elsewhere: gives memory that is read, in vain, instead of what is not to be.
        divides: whether integers are divided, which traps if it is by 0.
    """

    terms: Terms
    builder: Builder
    number: Callable[[int], SSAValue]
    place: Callable[[SSAValue], tuple[SSAValue, Sequence[SSAValue]]]
    value_of: Callable[[SSAValue], SSAValue]
    lanes: Lanes
    elsewhere: Callable[[Attribute], SSAValue]
    divides: bool = False
    index: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    local: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    scale: dict[str, int] = field(default_factory=dict[str, int])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    held: dict[Held, Values] = field(default_factory=dict[Held, Values])
    length: SSAValue | None = None
    start: SSAValue | None = None
    mask: Callable[[int, int], SSAValue] | None = None
    register: str | None = None
    copies: int = 1
    scalar_lane: SSAValue | None = None
    quiet: set[str] = field(default_factory=set[str])
    uneven: set[str] = field(default_factory=set[str])
    ahead: str = ""
    scopes: list[dict[Hashable, Any]] = field(
        default_factory=lambda: list[dict[Hashable, Any]]([{}])
    )

    def vector_type(self, element: Attribute) -> VectorType:
        """The type of a vector of lanes."""
        return vector_of(element, self.lanes.lanes)

    def constant(self, value: float, element: Attribute, is_vector: bool) -> SSAValue:
        """A number, in all lanes if it is a vector."""
        if not is_vector:
            return self.emit(constant(value, element))
        return self.broadcast(self.emit(constant(value, element)))

    def vector_constant(self, values: Sequence[int], element: Attribute) -> SSAValue:
        """A vector of numbers."""
        type_: Any = VectorType(element, [len(values)])
        dense: Any = DenseIntOrFPElementsAttr.from_list(type_, list(values))
        return self.emit(arith.ConstantOp(dense))

    def broadcast(self, value: SSAValue) -> SSAValue:
        """A scalar in all lanes."""
        return self.emit(vector.BroadcastOp(value, self.vector_type(value.type)))

    @contextmanager
    def bound(self, axis: str, index: SSAValue, local: SSAValue) -> Generator[None]:
        """Let an axis have an index, and one within the tiles."""
        before = self.index.get(axis), self.local.get(axis)
        self.index[axis], self.local[axis] = index, local
        yield
        for table, value in zip((self.index, self.local), before, strict=True):
            if value is None:
                del table[axis]
            else:
                table[axis] = value

    # What is known.

    def key(self, term: Term, copy: int, number: int) -> Hashable:
        """What tells values of a term apart."""
        copy = self.copy_of(term, copy)
        if self.lanes.axis not in term.free:
            return term, copy, 0
        if self.scalar_lane is not None:
            return term, copy, self.scalar_lane
        return term, copy, number

    def copy_of(self, term: Term, copy: int) -> int:
        """Of the copies that have the same value of a term, the first."""
        return copy if self.register in term.free else 0

    def know(self, term: Term, copy: int, number: int, value: SSAValue) -> None:
        """Let a value of a term be known in this scope."""
        self.scopes[-1][self.key(term, copy, number)] = value

    def is_vector(self, term: Term) -> bool:
        """Whether the values of a term are vectors."""
        return self.lanes.axis in term.free and self.scalar_lane is None

    @contextmanager
    def lane_index(self, value: SSAValue) -> Generator[None]:
        """Within, the lane axis has one index, and nothing is a vector."""
        before, self.scalar_lane = self.scalar_lane, value
        self.scopes.append({})
        yield
        self.scopes.pop()
        self.scalar_lane = before

    # Values of terms.

    def vector(self, term: Term, copy: int = 0, number: int = 0) -> SSAValue:
        """The value of a term as a vector."""
        value = self.value(term, copy, number)
        if self.is_vector(term) or self.scalar_lane is not None:
            return value
        key = ("broadcast", self.lanes.lanes, self.key(term, copy, number))
        if (known := self.find(key)) is None:
            known = self.scopes[-1][key] = self.broadcast(value)
        return known

    def value(self, term: Term, copy: int = 0, number: int = 0) -> SSAValue:
        """The value of a term: a vector if it depends on the lanes."""
        key = self.key(term, copy, number)
        if (known := self.find(key)) is None:
            known = self._value(term, copy, number)
            self.scopes[-1][key] = known
        return known

    def _value(self, term: Term, copy: int, number: int) -> SSAValue:
        kind = term.kind
        is_vector = self.is_vector(term)
        match kind:
            case float() | int():
                if isinstance(term.type, IndexType):
                    return self.number(int(kind))
                return self.constant(kind, term.type, False)
            case SSAValue():
                return self.value_of(kind)
            case str():
                return self._index(kind, copy, number)
            case Held():
                return self._held(term, kind, copy, number)
            case Computed(operation, properties):
                if operation is AtOp:
                    return self._load(term, copy, number)
                if operation is InBoundsOp:
                    return self._checked(term, dict(properties), copy)
                if not operation.name.startswith(("arith.", "math.")):
                    raise NotLifted(f"{operation.name} in lanes")
                args = self._operands(term, copy, number)
                type_ = self.vector_type(term.type) if is_vector else term.type
                return self.make(operation, args, type_, dict(properties))
            case Combination(function):
                args = [
                    self.vector(arg, copy, number)
                    if is_vector
                    else self.value(arg, copy, number)
                    for arg in term.args
                ]
                return self.apply(function, args[0], args[1])
            case Folded() | ChunkFold():
                found = self.jam(term, None)
                for (other, vector_), value in found.items():
                    self.know(term, other, vector_, value)
                value = self.find(self.key(term, copy, number))
                assert value is not None
                return value
            case InPairs():
                raise AssertionError("a factor of a sum of products, by itself")
            case Chosen():
                return chosen.load(self, term, copy, number)
            case Choice() | Nowhere():
                raise AssertionError(f"{kind} by itself")

    def _checked(
        self, term: Term, properties: dict[str, Attribute], copy: int
    ) -> SSAValue:
        """An index that comes from data and is checked: of one lane at a time.

        What is read there is staged, lane by lane.
        """
        if self.is_vector(term):
            raise NotLifted("an index that is checked, in all lanes at a time")
        args = [self.value(arg, copy) for arg in term.args]
        return self.make(InBoundsOp, args, INDEX, properties)

    def _operands(self, term: Term, copy: int, number: int) -> list[SSAValue]:
        is_select = term.computes("arith.select")
        return [
            self.value(arg, copy, number)
            if not self.is_vector(term) or (is_select and position == 0)
            else self.vector(arg, copy, number)
            for position, arg in enumerate(term.args)
        ]

    def _index(self, axis: str, copy: int, number: int) -> SSAValue:
        if axis == self.lanes.axis:
            if self.scalar_lane is not None:
                return self.scalar_lane
            count = self.lanes.lanes
            first = number * count
            steps = self.vector_constant(range(first, first + count), INDEX)
            base = self.broadcast(self.lanes.base)
            found = self.make(arith.AddiOp, (base, steps), base.type)
            if self.lanes.last is not None:
                last = self.broadcast(self.lanes.last)
                found = self.make(arith.MinSIOp, (found, last), base.type)
            return found
        base = self.index[axis]
        if axis != self.register:
            return base
        return self.add(base, copy * self.scale.get(axis, 1))

    def _held(self, term: Term, kind: Held, copy: int, number: int) -> SSAValue:
        buffer = self.buffers.get(kind.name)
        if buffer is None:
            values = self.held[kind]
            value = values[number if len(values) > 1 else 0]
            if self.is_vector(term) and not isa(value.type, VectorType):
                return self.broadcast(value)  # Lanes might differ, but do not.
            if self.scalar_lane is not None and isa(value.type, VectorType):
                raise NotLifted("one lane of a state, which is in vectors")
            return value
        if buffer.pairs:
            return pairs.read_one(self, buffer, term, copy, number)
        found = self._element(buffer, term, copy, number)
        return found if term.type != i1 else self._truth(found)

    def _element(self, buffer: Buffer, term: Term, copy: int, number: int) -> SSAValue:
        """An element of a state or tile as it lies in memory."""
        indices = self.buffer_indices(buffer, term, copy)
        memory = buffer.memory
        result = self.vector_type(element_of(memory.type))
        if not buffer.has_lanes:
            if not self.is_vector(term):
                return self.emit(memref.LoadOp.get(memory, indices))
            *_, last = term.args
            if coefficient(last, self.lanes.axis) != 1 or any(
                self.lanes.axis in arg.free for arg in term.args[:-1]
            ):
                raise NotLifted("rows that are read across lanes")
            first = self.add(indices[-1], number * self.lanes.lanes)
            return self.emit(vector.LoadOp(memory, [*indices[:-1], first], result))
        if self.scalar_lane is not None:
            lane = self.sub(self.scalar_lane, self.lanes.base)
            return self.emit(memref.LoadOp.get(memory, [*indices, lane]))
        if not self.is_vector(term):  # All lanes have the same.
            return self.emit(memref.LoadOp.get(memory, [*indices, self.number(0)]))
        lane = self.number(number * self.lanes.lanes)
        return self.emit(vector.LoadOp(memory, [*indices, lane], result))

    def store(
        self,
        value: SSAValue,
        memory: SSAValue,
        indices: Sequence[SSAValue],
        mask: SSAValue | None = None,
    ) -> None:
        """Put a scalar or a vector into memory; truth values take a byte.

        Of a vector the lanes of a mask are put there, if one is given.
        """
        element = element_of_vector(value.type)
        is_vector = isa(value.type, VectorType)
        if element == i1:
            byte = memory_element(element)
            type_ = self.vector_type(byte) if is_vector else byte
            value = self.make(arith.ExtUIOp, (value,), type_)
        if is_vector and mask is not None:
            self.builder.insert(vector.MaskedStoreOp(memory, indices, mask, value))
        elif is_vector:
            self.builder.insert(vector.StoreOp(value, memory, indices))
        else:
            self.builder.insert(memref.StoreOp.get(value, memory, indices))

    def buffer_indices(self, buffer: Buffer, term: Term, copy: int) -> list[SSAValue]:
        """Where in its memory an element of a state or tile is."""
        assert isinstance(term.kind, Held)
        if term.kind.version:  # A state: its row indices come last.
            count = len(buffer.axes)
            rows = term.args[len(term.args) - count :]
            if not buffer.has_lanes and self.is_vector(term):
                with self.lane_index(self.lanes.base):
                    return [self.value(row, copy) for row in rows]
            if any(map(self.is_vector, rows)):
                raise NotLifted("rows that are read across lanes")
            return [
                self.local_index(row.kind, copy)
                if isinstance(row.kind, str) and row.kind in self.local
                else self.value(row, copy)
                for row in rows
            ]
        indices: list[SSAValue] = []
        for axis in buffer.axes:
            name = term.args[buffer.names.index(axis)].kind
            assert isinstance(name, str)
            indices.append(self.local_index(name, copy))
        return indices

    def local_index(self, axis: str, copy: int) -> SSAValue:
        """The index of an axis within the tiles."""
        base = self.local[axis]
        return self.add(base, copy) if axis == self.register else base

    def extended(self, value: SSAValue, buffer: Buffer) -> SSAValue:
        """A float as a tile has it: in a wider type, if the tile's is one."""
        element = element_of(buffer.memory.type)
        if memory_element(element_of_vector(value.type)) == element:
            return value  # Truth values are extended when they are stored.
        type_: Attribute = element
        if isa(value.type, VectorType):
            type_ = VectorType(element, value.type.get_shape())
        return self.make(arith.ExtFOp, (value,), type_)

    # Memory of arrays.

    def address(self, term: Term, copy: int) -> SSAValue:
        """The flat address of an element; that of the first lane, if lanes differ."""
        key = ("address", self.key(term, copy, 0))
        if (known := self.find(key)) is not None:
            return known
        apart = self._apart(term, copy) if copy else None
        if apart is not None:
            # The number comes last, for it to be part of the load.
            found = self.add(self.address(term, 0), apart)
        elif self.is_vector(term):
            with self.lane_index(self.lanes.base):
                found = self._address(term, copy)
        else:
            found = self._address(term, copy)
        self.scopes[-1][key] = found
        return found

    def moved(self, copy: int) -> dict[str, int] | None:
        """How far indices are from those of the first copy; None if that varies."""
        if self.register is None:
            return None
        return {self.register: copy * self.scale.get(self.register, 1)}

    def _apart(self, term: Term, copy: int) -> int | None:
        """How far an element is from that of the first copy, None if not known."""
        moved = self.moved(copy)
        if moved is None:
            return None
        array, *indices = term.args
        assert isinstance(array.kind, SSAValue)
        total = 0
        _, strides = self.place(array.kind)
        for index, stride in zip(indices, strides, strict=True):
            for axis in moved.keys() & index.free:
                times, size = coefficient(index, axis), static_stride(stride)
                if times is None or size is None:
                    return None
                total += times * size * moved[axis]
        return total

    def _address(self, term: Term, copy: int) -> SSAValue:
        array, *indices = term.args
        assert isinstance(array.kind, SSAValue)
        _, strides = self.place(array.kind)
        found = self.number(0)
        for index, stride in zip(indices, strides, strict=True):
            value = self.value(index, copy)
            product = value
            if not is_unit(stride):
                product = self.make(arith.MuliOp, (value, stride), INDEX)
            found = product if found is self.number(0) else self.add(found, product)
        return found

    def _load(self, term: Term, copy: int, number: int) -> SSAValue:
        array = term.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = self.place(array)
        address = self.address(term, copy)
        if not self.is_vector(term):
            return self.load(memory, address, term.type)
        if not self.is_contiguous(term):
            raise NotLifted("lanes whose addresses do not advance by one")
        address = self.add(address, number * self.lanes.lanes)
        mask = self.load_mask(term, copy, number)
        return self.load_vector(memory, address, term.type, mask)

    def load_mask(self, term: Term, copy: int, number: int) -> SSAValue | None:
        """The lanes in which there is what a load reads, None for all."""
        found = self.lane_mask(number)
        if self.mask is not None and self.is_masked_load(term):
            mask = self.mask(copy, number)
            if found is None:
                return mask
            found = self.make(arith.AndIOp, (found, mask), mask.type)
        return found

    def lane_mask(self, number: int) -> SSAValue | None:
        """The lanes of a vector that have an index, None for all."""
        last, count = self.lanes.last, self.lanes.lanes
        if last is None:
            return None

        def emit() -> SSAValue:
            left = self.sub(self.sub(last, self.lanes.base), number * count - 1)
            mask = vector.CreateMaskOp([left], self.vector_type(i1))
            return self.emit(mask)

        return self.once(("lane mask", last, self.lanes.base, count, number), emit)

    def load(self, memory: SSAValue, address: SSAValue, type_: Attribute) -> SSAValue:
        """An element of a type from the memory of an array."""
        found = self.emit(memref.LoadOp.get(memory, [address]))
        return found if memory_element(type_) == type_ else self._truth(found)

    def load_vector(
        self,
        memory: SSAValue,
        address: SSAValue,
        type_: Attribute,
        mask: SSAValue | None = None,
    ) -> SSAValue:
        """Elements of a type, one after the other; those that a mask has, else 0."""
        element = memory_element(type_)
        if mask is not None:
            rest = self.constant(0, element, True)
            found = self.emit(vector.MaskedLoadOp(memory, [address], mask, rest))
        else:
            vector_type = self.vector_type(element)
            found = self.emit(vector.LoadOp(memory, [address], vector_type))
        return found if element == type_ else self._truth(found)

    def _truth(self, value: SSAValue) -> SSAValue:
        type_ = value.type
        if isa(type_, VectorType):
            return self.make(arith.TruncIOp, (value,), self.vector_type(i1))
        return self.emit(arith.TruncIOp(value, i1))

    masked_axis: str | None = None
    """The axis whose indices may be beyond its end in a masked chunk."""

    def is_masked_load(self, term: Term) -> bool:
        """Whether a load is of indices of which some may not exist."""
        return self.masked_axis is not None and self.masked_axis in term.free

    def is_contiguous(self, term: Term) -> bool:
        """Whether the addresses of a load's lanes advance by one.

        Lanes without an index have 0 then, by which integers must not be divided.
        """
        if not term.computes(AtOp.name):
            return all(
                not self.is_vector(load) or self.is_contiguous(load)
                for load in chosen.loads(term)
            )
        array, *indices = term.args
        assert isinstance(array.kind, SSAValue)
        if self.lanes.last is not None and self.divides:
            return False
        _, strides = self.place(array.kind)
        for index, stride in zip(indices, strides, strict=True):
            if self.lanes.axis in index.free and not (
                is_unit(stride) and coefficient(index, self.lanes.axis) == 1
            ):
                return False
        return True

    # Folds.

    def apply(self, function: str, left: SSAValue, right: SSAValue) -> SSAValue:
        """Combine two values of one type."""
        if not isa(left.type, VectorType):
            return apply_named(function, (left, right), self.builder)
        kind = kind_of(element_of_vector(left.type))
        operation = COMBINE.get((function, kind))
        if operation is None:
            raise NotLifted(f"a fold with {function} of vectors")
        return self.make(operation, (left, right), left.type)

    def accumulate(
        self, function: str, before: SSAValue, body: Term, copy: int, number: int
    ) -> SSAValue:
        """An accumulator with one more value, fused with the product that it is."""
        is_vector = isa(before.type, VectorType)
        get = self.vector if is_vector else self.value
        if (
            function == "add"
            and body.computes("arith.mulf")
            and isinstance(body.type, AnyFloat)
        ):
            left, right = (get(arg, copy, number) for arg in body.args)
            after = self.fma(left, right, before)
        else:
            after = self.apply(function, before, get(body, copy, number))
        return after

    def extreme(self, function: str, value: SSAValue, before: SSAValue) -> SSAValue:
        """The larger or smaller of two values, the second if the first is NaN.

        That is one instruction of most processors; `maximumf` is several.
        """
        number = {"max": 2, "min": 4}[function]  # ogt, olt
        is_more = self.make(
            arith.CmpfOp,
            (value, before),
            self.vector_type(i1),
            {
                "predicate": IntegerAttr(number, i64),
                "fastmath": FastMathFlagsAttr("none"),
            },
        )
        return self.make(arith.SelectOp, (is_more, value, before), before.type)

    def fma(self, left: SSAValue, right: SSAValue, to: SSAValue) -> SSAValue:
        """`left * right + to`, rounded once."""
        if isa(to.type, VectorType):
            return self.emit(vector.FMAOp(left, right, to))
        return self.emit(math.FmaOp(left, right, to))

    def masked(
        self, before: SSAValue, after: SSAValue, copy: int, number: int
    ) -> SSAValue:
        """An accumulator, as it was in lanes whose index is not in the chunk."""
        if self.mask is None or not isa(after.type, VectorType):
            return after
        mask = self.mask(copy, number)
        return self.make(arith.SelectOp, (mask, after, before), after.type)

    def folds(self, term: Term) -> None:
        """Emit the folds in a term that are not in another fold."""
        for fold in _outermost_folds(term):
            self.value(fold)

    def jam(
        self,
        fold: Term,
        initial: Term | None,
        part: tuple[SSAValue, SSAValue] | None = None,
    ) -> dict[tuple[int, int], SSAValue]:
        """A fold as one loop, an accumulator for each copy and vector.

        Starts from `initial` if given, which depends on the same copies and lanes. Of a
        fold over a chunk only a part of the chunk is folded, if one is given.
        """
        kind = fold.kind
        assert isinstance(kind, Folded | ChunkFold)
        is_vector = self.is_vector(fold)
        copies = range(self.copies) if self.register in fold.free else range(1)
        numbers = range(self.lanes.vectors) if is_vector else range(1)
        every = [(copy, number) for copy in copies for number in numbers]
        if isinstance(kind, ChunkFold):
            function, body = kind.function, fold.args[0]
            assert self.length is not None
            lower, upper = part or (self.number(0), self.length)
        else:
            function, body = _name(kind), fold.args[2]
            if checks(body) and not is_some(*fold.args[:2]):
                raise NotLifted("a check in a fold that may have no index")
            for bound in fold.args[:2]:
                if self.lanes.axis in bound.free or (
                    self.register is not None and self.register in bound.free
                ):
                    raise NotLifted("a fold whose bounds differ between lanes")
            lower, upper = (self.value(bound) for bound in fold.args[:2])
        if initial is not None:
            get = self.vector if is_vector else self.value
            start = [get(initial, copy, number) for copy, number in every]
        else:
            start = [self._neutral_start(function, fold, lower, upper, is_vector)]
            start *= len(every)
        if pairs.factors_of(body) is not None:
            results = pairs.sums(self, fold, every, start, lower, upper)
            return dict(zip(every, results, strict=True))
        self.hoist(body, kind.index)

        def step(count: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            index = count
            if isinstance(kind, ChunkFold):
                assert self.start is not None
                index = self.add(
                    self.start, self.mul(count, self.scale.get(kind.index, 1))
                )
            with self.bound(kind.index, index, count):
                self.folds(body)
                self.ask_ahead(body, kind.index)
                after: list[SSAValue] = []
                for before, (copy, number) in zip(carried, every, strict=True):
                    value = self.accumulate(function, before, body, copy, number)
                    if isinstance(kind, ChunkFold):
                        value = self.masked(before, value, copy, number)
                    after.append(value)
                return after

        results = self.loop(lower, upper, 1, start, step, len(every) >= FULL)
        return dict(zip(every, results, strict=True))

    def ask_ahead(self, body: Term, index: str) -> None:
        """Ask for what the loop of a contraction reads of a pass's rows."""
        if not self.ahead or self.ahead not in (index, self.register):
            return
        for load in walk(body):
            if (
                not load.computes(AtOp.name)
                or self.is_vector(load)
                or len(load.args) < 3
                or load.args[-2].kind != self.ahead
                or load.args[-1].kind not in (index, self.register)
            ):
                continue
            array = load.args[0].kind
            assert isinstance(array, SSAValue)
            memory, strides = self.place(array)
            if not is_unit(strides[-1]):
                continue
            along = self.index[index] if load.args[-1].kind == index else None
            address = self.address(load, 0)
            ask(self, memory, address, along, strides[-2], self.copies)

    def _neutral_start(
        self,
        function: str,
        fold: Term,
        lower: SSAValue,
        upper: SSAValue,
        is_vector: bool,
    ) -> SSAValue:
        """What a fold starts from: a sum over nothing is 0, not -0."""
        unit = neutral(function, fold.type)
        start = self.emit(constant(unit, fold.type))
        if isinstance(fold.kind, Folded) and str(unit) == "-0.0":
            zero = self.emit(constant(0.0, fold.type))
            is_some = self.emit(arith.CmpiOp(lower, upper, "slt"))
            start = self.emit(arith.SelectOp(is_some, start, zero))
        return self.broadcast(start) if is_vector else start

    def hoist(self, body: Term, index: str) -> None:
        """Evaluate the largest terms in a body that do not depend on its index."""
        seen: set[Term] = set()
        pending = [body]
        while pending:
            term = pending.pop()
            if term in seen or not term.args:
                continue
            seen.add(term)
            if index not in term.free:
                self._evaluate(term)
            elif not (
                isinstance(term.kind, Held | ChunkFold | Folded | Chosen)
                or term.computes(AtOp.name)
            ):
                pending.extend(reversed(term.args))

    def _evaluate(self, body: Term) -> None:
        """Evaluate a term for all copies and vectors, if its indices are bound."""
        if any(name.startswith("%") and name not in self.index for name in body.free):
            return
        self.folds(body)
        for copy in range(self.copies) if self.register in body.free else range(1):
            for number in range(self.lanes.vectors if self.is_vector(body) else 1):
                self.vector(body, copy, number)

    # Statements.

    def results(self, term: Term) -> None:
        """Evaluate a term for all copies and vectors: they are known afterwards."""
        if isinstance(term.kind, Combination):
            fold, start = term.args
            same = (self.register in fold.free) == (self.register in term.free)
            if (
                isinstance(fold.kind, ChunkFold)
                and same
                and self.is_vector(fold) == self.is_vector(term)
                and self.find(self.key(fold, 0, 0)) is None
            ):
                self.folds(start)
                if term.kind.function == "add" and isinstance(term.type, AnyFloat):
                    # The chunk's sum apart: fewer additions on the way to each sum.
                    for (copy, number), part in self.jam(fold, None).items():
                        value = self.accumulate("add", part, start, copy, number)
                        self.know(term, copy, number, value)
                    return
                for (copy, number), value in self.jam(fold, start).items():
                    self.know(term, copy, number, value)
                return
        self.folds(term)

    def nest(
        self,
        nest: Nest,
        extents: Callable[[str], tuple[SSAValue, int | None]],
        copies: int,
        live: set[str],
        start: Callable[[str], SSAValue],
    ) -> None:
        """Emit a nest.

        Args:
            nest: the nest.
            extents: for an axis how many indices there are, also as a number if known.
            copies: how many indices of the innermost axis run at a time.
            live: the tiles that are read in other nests; others are not stored.
            start: the first index of an axis.
        """
        if not nest.axes:
            for item in nest.items:
                assert isinstance(item, Statement)
                self.results(item.value)
                count = self.lanes.vectors if self.is_vector(item.value) else 1
                values = [self.value(item.value, 0, k) for k in range(count)]
                self._define(item, values)
            return
        reductions = [item for item in nest.items if isinstance(item, Reduction)]
        carried: list[SSAValue] = []
        for item in reductions:
            self.folds(item.start)
            carried += [
                self.vector(item.start, 0, k) for k in range(self.lanes.vectors)
            ]
        assert not (reductions and len(nest.axes) > 1)

        def outer(axes: Sequence[str], carried: list[SSAValue]) -> list[SSAValue]:
            axis, *rest = axes
            if not rest:
                return self._innermost(
                    nest, axis, extents, copies, live, start, carried
                )
            length, _ = extents(axis)

            def body(index: SSAValue, _: list[SSAValue]) -> Sequence[SSAValue]:
                with self.bound(axis, self.add(start(axis), index), index):
                    outer(rest, [])
                return []

            self.loop(self.number(0), length, 1, [], body)
            return []

        results = outer(nest.axes, carried)
        count = self.lanes.vectors
        for k, item in enumerate(reductions):
            self._define(item.statement, results[k * count : (k + 1) * count])

    def _define(self, statement: Statement, values: Values) -> None:
        """Let what a statement without axes gives be known."""
        version = "new" if statement.target is Target.STATE else ""
        self.held[Held(statement.name, version)] = values

    def _innermost(
        self,
        nest: Nest,
        axis: str,
        extents: Callable[[str], tuple[SSAValue, int | None]],
        copies: int,
        live: set[str],
        start: Callable[[str], SSAValue],
        carried: list[SSAValue],
    ) -> list[SSAValue]:
        """The innermost loop of a nest: copies at a time, then what is left."""
        length, number = extents(axis)
        if number is not None:
            copies = min(copies, number)
            if not copies:
                return carried
            whole = self.number(number - number % copies)
            rest = number % copies
            parts = [(self.number(0), whole, copies)]
            if rest:
                parts.append((whole, length, rest))
        else:
            parts: list[tuple[SSAValue, SSAValue, int]] = []
            lower = self.number(0)
            for step in (copies, *self._steps_of_rest(axis, copies)):
                upper = length
                if step > 1:
                    left = self.sub(length, lower)
                    whole = self.mul(self.div(left, step), step)
                    upper = self.add(lower, whole)
                parts.append((lower, upper, step))
                lower = upper
        for lower, upper, step in parts:

            def body(
                index: SSAValue, carried: list[SSAValue], step: int = step
            ) -> Sequence[SSAValue]:
                scale = self.scale.get(axis, 1)
                first = self.add(start(axis), self.mul(index, scale))
                before = self.register, self.copies
                self.register, self.copies = axis, step
                with self.bound(axis, first, index):
                    after = self._items(nest, axis, live, carried)
                self.register, self.copies = before
                return after

            is_full = step * self.lanes.vectors >= FULL
            carried = self.loop(lower, upper, step, carried, body, is_full)
        return carried

    def _steps_of_rest(self, axis: str, copies: int) -> list[int]:
        """How many indices at a time what is left of a loop runs.

        One; of rows half as many as keep pipelines full, then half of that, and so on:
        there may be few rows.
        """
        if copies == 1:
            return []
        if axis not in self.uneven:
            return [1]
        most = min(max(CHAINS // self.lanes.vectors, 1), copies - 1)
        return [1 << k for k in reversed(range(most.bit_length()))]

    def _items(
        self, nest: Nest, axis: str, live: set[str], carried: list[SSAValue]
    ) -> list[SSAValue]:
        """What a nest does for some indices at a time."""
        count = self.lanes.vectors
        position = 0
        for item in nest.items:
            if isinstance(item, Reduction):
                self.folds(item.body)
                for copy in range(self.copies):
                    for number in range(count):
                        before = carried[position + number]
                        if item.statement.name in self.quiet:
                            element = self.vector(item.body, copy, number)
                            after = self.extreme(item.function, element, before)
                        else:
                            after = self.accumulate(
                                item.function, before, item.body, copy, number
                            )
                        carried[position + number] = self.masked(
                            before, after, copy, number
                        )
                position += count
                continue
            self.results(item.value)
            for copy in range(self.copies):
                for number in range(count):
                    value = self.vector(item.value, copy, number)
                    self._store(item, value, copy, number, live)
            if self._is_in_pairs(item, live):
                pairs.store(self, self.buffers[item.name], item.value)
        return carried

    def _is_in_pairs(self, statement: Statement, live: set[str]) -> bool:
        """Whether the elements of a statement are stored two at a time."""
        if statement.target is not Target.TILE or statement.name not in live:
            return False
        return bool(self.buffers[statement.name].pairs)

    def _store(
        self,
        statement: Statement,
        value: SSAValue,
        copy: int,
        number: int,
        live: set[str],
    ) -> None:
        """Put an element of a statement into its memory, and let it be known."""
        if statement.target is Target.OUTPUT:
            self.output(statement, value, copy, number)
            return
        if statement.target is Target.TILE:
            indices = [self.terms.index(axis) for axis in sorted(statement.value.free)]
            me = self.terms.held(Held(statement.name), indices, statement.value.type)
            # One that is the same in all lanes is a scalar.
            known = value
            if self.lanes.axis not in me.free:
                known = self.value(statement.value, copy, number)
            self.know(me, copy, number, known)
            if statement.name not in live or self._is_in_pairs(statement, live):
                return
        buffer = self.buffers[statement.name]
        places = [self.local_index(axis, copy) for axis in buffer.axes]
        lane = self.number(number * self.lanes.lanes)
        self.store(value, buffer.memory, [*places, lane])

    output: Callable[[Statement, SSAValue, int, int], None] = _no_output

    # Moving between memory of arrays and tiles.

    def lane_at(self, offset: SSAValue) -> SSAValue:
        """The index of a lane, the last there is if it has none of its own."""
        found = self.add(self.lanes.base, offset)
        return found if self.lanes.last is None else self.min(found, self.lanes.last)


def element_of_vector(type_: Attribute) -> Attribute:
    """The element type of a vector; of anything else itself."""
    return type_.element_type if isa(type_, VectorType) else type_


def checks(term: Term) -> bool:
    """Whether a term checks an index that comes from data."""
    return any(inner.computes(InBoundsOp.name) for inner in walk(term))


def is_unit(stride: SSAValue) -> bool:
    """Whether a stride is 1: axes after its own are of extent 1, or there are none."""
    if isinstance(stride.owner, arith.MuliOp):
        return all(is_unit(factor) for factor in stride.owner.operands)
    return static_extent(stride) == 1


def static_stride(stride: SSAValue) -> int | None:
    """A stride as a number, None if it is not known."""
    if isinstance(stride.owner, arith.MuliOp):
        factors = [static_stride(factor) for factor in stride.owner.operands]
        return None if None in factors else prod(f for f in factors if f is not None)
    return static_extent(stride)


def is_some(lower: Term, upper: Term) -> bool:
    """Whether bounds are known to have an index between them."""
    first, last = map(known_number, (lower, upper))
    return first is not None and last is not None and first < last


def _outermost_folds(term: Term) -> list[Term]:
    """The folds in a term that are not in another fold, each once."""
    found: list[Term] = []
    seen: set[Term] = set()
    pending = [term]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current.kind, Folded | ChunkFold):
            found.append(current)
        else:
            pending.extend(reversed(current.args))
    return found


def _name(kind: Folded) -> str:
    from xdsl.dialects.builtin import StringAttr

    if not isinstance(kind.function, StringAttr):
        raise NotLifted("a fold with a function of the program")
    return kind.function.data
