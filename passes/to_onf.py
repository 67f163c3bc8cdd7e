"""moa-to-onf: the operational normal form, loops over flat addresses.

Arrays become memory. An element `<i j> ψ A` becomes the flat address
`gamma(<i j>; ρA) = start + i * stride + j * stride` with the strides of the layout
(Mullin and Jenkins 1996, the Psi Correspondence Theorem); a comprehension becomes a
nest of loops with start, stop and stride that stores into its result; a fold of scalars
stays a value; a fold of arrays runs over accumulators that lie in the result itself,
or in a buffer of their own where the result cannot hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IndexType,
    IntegerType,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    i1,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    OpResult,
    Region,
    SSAValue,
    Use,
)
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.algebra.layout import Order, stride_axes, strides
from moa_dialect.errors import CompileError
from moa_dialect.ops.function import FunctionAttr, has_identity, lookup_function
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
    body_of,
    cell_element,
    needed,
)
from moa_dialect.ops.operational import BufferOp, LoadOp, LoopOp, RavOp, StoreOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.passes.affine_code import emit_set
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import programs_of
from moa_dialect.passes.share import captured
from moa_dialect.passes.work import COSTLY, weight
from moa_dialect.scalar_code import (
    accumulator_start,
    apply_function,
    constant,
    fold_start,
)
from moa_dialect.types import (
    array_of,
    dense,
    element_of,
    kind_of,
    memory_element,
    shape_of,
)
from moa_dialect.walking import operations

RESULT = "moa.result"
"""The attribute of a function argument that is the memory of a result."""

STATUS = "moa.status"
"""The attribute of the function argument that receives a failed check's number."""


PARTS = "moa.parts"
"""The attribute of a comprehension whose arrays are states of parts, and of memory for
those: it is so many results, which stays until they are merged."""

PARALLEL = "moa.parallel"
"""The attribute of a loop whose iterations are independent of each other."""


@dataclass(frozen=True)
class Place:
    """Where elements lie: a flat buffer, the indices bound so far, strides of the rest.

    Attributes:
        buffer: the flat buffer.
        bound: pairs of an index and its stride.
        free: the strides of the axes that are not bound yet.
    """

    buffer: SSAValue
    bound: tuple[tuple[SSAValue, SSAValue], ...]
    free: tuple[SSAValue, ...]

    def bind(self, indices: Sequence[SSAValue]) -> Place:
        """Bind the next axes to these indices."""
        pairs = tuple(zip(indices, self.free, strict=False))
        return replace(self, bound=self.bound + pairs, free=self.free[len(indices) :])

    def permuted(self, order: Sequence[int]) -> Place:
        """The place whose k-th free axis is this one's axis `order[k]`."""
        return replace(self, free=tuple(self.free[axis] for axis in order))


def memory_type(array: Attribute, order: Order) -> MemRefType:
    """The memref type of an array argument or result in a layout."""
    shape, element = shape_of(array), memory_element(element_of(array))
    if order is Order.ROW or len(shape) < 2:
        return MemRefType(element, shape)
    known = [
        None
        if any(shape[k] < 0 for k in stride_axes(len(shape), axis, order))
        else stride
        for axis, stride in enumerate(strides(shape, order))
    ]
    layout = StridedLayoutAttr(
        [NoneAttr() if stride is None else stride for stride in known]  # pyright: ignore
    )
    return MemRefType(element, shape, layout)


def result_extents(value: SSAValue) -> list[SSAValue]:
    """The extents of an array of the normal forms, as the values its loops run to."""
    op = value.owner
    if isinstance(op, FoldOp):
        return result_extents(body_of(op.body)[1].values[0])
    if isinstance(op, CascadeOp):
        assert isinstance(value, OpResult)
        return result_extents(op.defining(value))
    if not isinstance(op, ComprehensionOp):
        name = f"argument {value.index}" if isinstance(value, BlockArgument) else value
        raise CompileError(
            f"expected an array made by a comprehension or a fold, got {name}"
        )
    assert isinstance(value, OpResult)
    cell = body_of(op.body)[1].values[value.index]
    extents = list(op.extents)
    if isa(cell.type, TensorType):
        extents.extend(result_extents(cell))
    placed = list(extents)
    for axis, position in enumerate(op.positions(len(extents))):
        placed[position] = extents[axis]
    return placed


@dataclass
class Lowering:
    """The lowering of one function into a new block."""

    function: FuncOp
    order: Order
    block: Block
    entry: Builder
    values: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    places: dict[SSAValue, Place] = field(default_factory=dict[SSAValue, Place])
    targets: dict[SSAValue, list[Place]] = field(
        default_factory=dict[SSAValue, list[Place]]
    )
    extents: dict[tuple[SSAValue, int], SSAValue] = field(
        default_factory=dict[tuple[SSAValue, int], SSAValue]
    )
    numbers: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])
    kernels: Kernels | None = None
    parallel: bool = False
    builder: Builder = field(init=False)

    # Values at the entry.

    def number(self, value: int) -> SSAValue:
        """An index constant, one for each number."""
        if value not in self.numbers:
            self.numbers[value] = self.entry.insert(constant(value, IndexType())).result
        return self.numbers[value]

    def extent(self, memory: SSAValue, axis: int) -> SSAValue:
        """The extent of an axis of an argument."""
        key = (memory, axis)
        if key not in self.extents:
            self.extents[key] = self.entry.insert(ExtentOp(memory, axis)).result
        return self.extents[key]

    def _strides(self, extents: Sequence[SSAValue], order: Order) -> list[SSAValue]:
        """The strides of an array with these extents."""
        found: list[SSAValue] = []
        for axis in range(len(extents)):
            stride: SSAValue | None = None
            for k in stride_axes(len(extents), axis, order):
                stride = (
                    extents[k]
                    if stride is None
                    else self.entry.insert(arith.MuliOp(stride, extents[k])).result
                )
            found.append(self.number(1) if stride is None else stride)
        return found

    def place_of(self, memory: SSAValue) -> Place:
        """Where the elements of an argument lie."""
        rank = len(shape_of(memory.type))
        extents = [self.extent(memory, axis) for axis in range(rank)]
        flat = self.entry.insert(RavOp(memory, self.order)).result
        return Place(flat, (), tuple(self._strides(extents, self.order)))

    def _constant_place(self, op: ConstantOp) -> Place:
        """Where the elements of a constant lie: in a global of the module."""
        block = self.function.parent_block()
        assert block is not None
        names = {
            other.sym_name.data
            for other in block.ops
            if isinstance(other, memref.GlobalOp)
        }
        number = next(n for n in range(len(names) + 1) if f"moa.c{n}" not in names)
        element = memory_element(op.result_element())
        type_ = MemRefType(element, op.value.get_shape())
        block.insert_op_before(
            memref.GlobalOp.get(
                StringAttr(f"moa.c{number}"),
                type_,
                dense(array_of(op.value), element),
                sym_visibility=StringAttr("private"),
                constant=UnitAttr(),
            ),
            self.function,
        )
        memory = self.entry.insert(memref.GetGlobalOp(f"moa.c{number}", type_)).memref
        flat = self.entry.insert(RavOp(memory, Order.ROW)).result
        steps = strides(op.value.get_shape(), Order.ROW)
        return Place(flat, (), tuple(self.number(step) for step in steps))

    # Operations.

    def get(self, value: SSAValue) -> SSAValue:
        """The new value for an old one."""
        return self.values.get(value, value)

    def load(self, place: Place) -> SSAValue:
        """Read the element at a place with all axes bound."""
        op = self.builder.insert(LoadOp(place.buffer, *self._address(place)))
        if kind_of(op.result.type) == "bool":
            return self.builder.insert(arith.TruncIOp(op.result, i1)).result
        return op.result

    def store(self, value: SSAValue, place: Place) -> None:
        """Write the element at a place with all axes bound."""
        if value.type == i1:
            memory = memory_element(i1)
            assert isa(memory, IntegerType)
            value = self.builder.insert(arith.ExtUIOp(value, memory)).result
        self.builder.insert(StoreOp(value, place.buffer, *self._address(place)))

    def _address(self, place: Place) -> tuple[SSAValue, list[SSAValue], list[SSAValue]]:
        """Start, indices and strides: constant indices go into the start."""
        start = self.number(0)
        terms: list[tuple[SSAValue, SSAValue]] = []
        for index, stride in place.bound:
            if index in self.numbers.values():
                if index is not self.number(0):
                    step = self.entry.insert(arith.MuliOp(index, stride)).result
                    start = self.entry.insert(arith.AddiOp(start, step)).result
            else:
                terms.append((index, stride))
        return start, [index for index, _ in terms], [stride for _, stride in terms]

    def lower(self, ops: Sequence[Operation]) -> None:
        """Lower operations in order at the builder's place."""
        for op in ops:
            self._lower(op)

    def _lower(self, op: Operation) -> None:
        match op:
            case YieldOp() | ReturnOp():
                pass
            case ExtentOp():
                array = self.get(op.array)
                self.values[op.result] = self.extent(array, op.axis_number)
            case ConstantOp():
                self.places[op.result] = self._constant_place(op)
            case arith.ConstantOp() if isinstance(op.result.type, IndexType):
                self.values[op.result] = self.number(op.value.value.data)  # pyright: ignore
            case FixedExtentOp():
                # An extent stays a value of its own, apart from equal constants.
                copy = self.entry.insert(FixedExtentOp(op.static_value))
                self.values[op.result] = copy.result
            case AtOp():
                place = self.places[op.array].bind([self.get(i) for i in op.indices])
                self.values[op.result] = self.load(place)
            case ComprehensionOp():
                self._buffers(op)
                is_outermost = op.parent is self.function.body.block
                if self.kernels is None or not (
                    is_outermost and self.kernels(self, op)
                ):
                    self.comprehension(op)
            case FoldOp() if isa(op.result.type, TensorType):
                self._buffers(op)
                for place in self.targets[op.result]:
                    self._array_fold(op, place)
                self.places[op.result] = self.targets[op.result][0]
            case FoldOp():
                self._scalar_fold(op)
            case CascadeOp():
                self._buffers(op)
                _CascadeLoops(self, op).lower()
            case scf.IfOp():
                self._branch(op)
            case _:
                self.builder.insert(op.clone(self.values))

    def _body(self, block: Block, places: Sequence[Sequence[Place]]) -> None:
        """Lower the body of a comprehension whose results' elements lie there."""
        terminator = block.last_op
        assert isinstance(terminator, YieldOp)
        self.plan(block, terminator.values, places)
        self.lower(list(block.ops))
        for value, found in zip(terminator.values, places, strict=True):
            if not isa(value.type, TensorType):
                for place in found:
                    self.store(self.get(value), place)
            elif isinstance(value.owner, Block) or value.owner.parent is not block:
                # It was made outside, where these places were not known.
                for place in found:
                    self._copy(value, place)

    def _copy(self, value: SSAValue, place: Place) -> None:
        """Copy an array that is made already to a place."""
        if isinstance(value.owner, Block):
            rank = len(shape_of(value.type))
            memory = self.get(value)
            extents = [self.extent(memory, axis) for axis in range(rank)]
        else:
            extents = [self.get(extent) for extent in result_extents(value)]
        indices, outer = self.loops(extents)
        self.store(self.load(self.places[value].bind(indices)), place.bind(indices))
        self.builder = outer

    def plan(
        self,
        block: Block,
        finals: Sequence[SSAValue],
        places: Sequence[Sequence[Place]],
    ) -> None:
        """Decide where the arrays made in a block lie.

        `finals` are what the block gives; they lie at `places`. An array that is only
        read where the same element of a final is written lies in that final; any other
        gets a buffer.
        """
        arrays = [v for op in block.ops for v in op.results if isa(v.type, TensorType)]
        for value in arrays:
            self.targets[value] = [
                place
                for final, found in zip(finals, places, strict=True)
                if final is value
                for place in found
            ]
        taken: set[SSAValue] = set()
        for value in arrays:
            if self.targets[value] or isinstance(value.owner, ConstantOp):
                continue
            free = [h for h in _hosts(value, block) if h not in taken]
            host = next((h for h in free if self.targets[h]), None)
            if host is not None:
                taken.add(host)
                self.targets[value] = self.targets[host][:1]

    def _buffers(self, op: Operation) -> None:
        """Give the arrays an operation makes a buffer where nothing else holds them."""
        for value in op.results:
            if isa(value.type, TensorType) and not self.targets.get(value):
                self.targets[value] = [self.buffer(value)]

    def buffer(self, value: SSAValue) -> Place:
        """Memory for an array, freed at the end of the block that is built."""
        extents = [self.get(extent) for extent in result_extents(value)]
        element = memory_element(element_of(value.type))
        buffer = BufferOp(extents, element, accumulator=True)
        if isinstance(value.owner, Operation) and PARTS in value.owner.attributes:
            buffer.attributes[PARTS] = UnitAttr()
        flat = self.builder.insert(buffer).result
        return Place(flat, (), tuple(self._strides(extents, Order.ROW)))

    def loops(self, extents: Sequence[SSAValue]) -> tuple[list[SSAValue], Builder]:
        """Open a nest of loops; returns its indices and the builder outside of it."""
        outer, indices = self.builder, list[SSAValue]()
        for extent in extents:
            block = self._loop(self.number(0), extent, 1)
            indices.append(block.args[0])
            loop = block.parent_op()
            assert loop is not None
            if self.parallel:
                loop.attributes[PARALLEL] = UnitAttr()
        return indices, outer

    def _loop(self, start: SSAValue, stop: SSAValue, stride: int) -> Block:
        """Open a loop: what is built next goes into its body."""
        block = Block([end := YieldOp()], arg_types=[IndexType()])
        self.builder.insert(LoopOp(start, stop, stride, Region(block)))
        self.builder = Builder(InsertPoint.before(end))
        return block

    def carrying(
        self,
        bounds: tuple[SSAValue, SSAValue],
        stride: int,
        initial: Sequence[SSAValue],
        body: Callable[[SSAValue, Sequence[SSAValue]], Sequence[SSAValue]],
    ) -> Sequence[SSAValue]:
        """A loop that carries scalars; the body maps index and scalars to scalars."""
        block = Block(arg_types=[IndexType(), *(value.type for value in initial)])
        outer, self.builder = self.builder, Builder(InsertPoint.at_end(block))
        index, *carried = block.args
        self.builder.insert(YieldOp(*body(index, carried)))
        self.builder = outer
        loop = LoopOp(*bounds, stride, Region(block), initial)
        return self.builder.insert(loop).carried

    def comprehension(self, op: ComprehensionOp) -> None:
        indices, outer = self.loops([self.get(extent) for extent in op.extents])
        for arg, index in zip(op.body.block.args, indices, strict=True):
            index.name_hint = arg.name_hint
            self.values[arg] = index
        places = [
            [
                place.permuted(op.positions(len(place.free))).bind(indices)
                for place in self.targets[array]
            ]
            for array in op.arrays
        ]
        self._body(op.body.block, places)
        self.builder = outer
        for array in op.arrays:
            self.places[array] = self.targets[array][0]

    def _scalar_fold(self, op: FoldOp) -> None:
        old, terminator = body_of(op.body)
        block = Block(arg_types=[IndexType()])
        block.args[0].name_hint = old.args[0].name_hint
        self.values[old.args[0]] = block.args[0]
        outer, self.builder = self.builder, Builder(InsertPoint.at_end(block))
        self.lower(list(old.ops))
        self.builder.insert(YieldOp(self.get(terminator.values[0])))
        self.builder = outer
        fold = FoldOp(
            op.function,
            self.get(op.lower),
            self.get(op.upper),
            Region(block),
            op.result.type,
            op.domain,
            [self.get(value) for value in op.domain_arguments],
            None if op.initial is None else self.get(op.initial),
        )
        self.values[op.result] = self.builder.insert(fold).result

    def _branch(self, op: scf.IfOp) -> None:
        """A choice between two scalars, each side lowered into its branch."""
        outer, regions = self.builder, list[Region]()
        for region in op.regions:
            old, block = region.block, Block()
            self.builder = Builder(InsertPoint.at_end(block))
            assert old.last_op is not None
            self.lower([inner for inner in old.ops if inner is not old.last_op])
            values = (self.get(value) for value in old.last_op.operands)
            self.builder.insert(scf.YieldOp(*values))
            regions.append(Region(block))
        self.builder = outer
        types = [value.type for value in op.results]
        new = scf.IfOp(self.get(op.cond), types, regions[0], regions[1])
        self.builder.insert(new)
        for value, result in zip(op.results, new.results, strict=True):
            self.values[value] = result

    def _array_fold(self, op: FoldOp, place: Place) -> None:
        """A fold of arrays: one loop, from the last index down, over accumulators."""
        body, terminator = body_of(op.body)
        row = terminator.values[0].owner
        if op.initial is not None:
            raise CompileError("a fold of arrays cannot start from an array yet")
        if not isinstance(row, ComprehensionOp) or row.order is not None:
            raise CompileError("a fold of arrays must yield a comprehension")
        if any(isa(v.type, TensorType) for v in body_of(row.body)[1].values):
            raise CompileError("a fold of arrays must yield a comprehension of scalars")
        lower, upper = self.get(op.lower), self.get(op.upper)
        last = self.builder.insert(arith.SubiOp(upper, self.number(1))).result
        stop = self.builder.insert(arith.SubiOp(lower, self.number(1))).result
        extents = [self.get(extent) for extent in row.extents]
        if has_identity(op.function):
            element = element_of(op.result.type)
            start = fold_start(op, element, lower, upper, self.builder)
            indices, outer = self.loops(extents)
            self.store(start, place.bind(indices))
            self.builder = outer
        else:
            self._fold_step(op, row, last, place, is_first=True)
            last = self.builder.insert(arith.SubiOp(last, self.number(1))).result
        outer = self.builder
        loop = self._loop(last, stop, -1)
        loop.args[0].name_hint = body.args[0].name_hint
        if op.domain is not None:
            arguments = [self.get(value) for value in op.domain_arguments]
            holds = emit_set(op.domain.data, (loop.args[0], *arguments), self.builder)
            inside = Block([end := scf.YieldOp()])
            self.builder.insert(scf.IfOp(holds, (), Region(inside)))
            self.builder = Builder(InsertPoint.before(end))
        self._fold_step(op, row, loop.args[0], place, is_first=False)
        self.builder = outer

    def _fold_step(
        self,
        op: FoldOp,
        row: ComprehensionOp,
        index: SSAValue,
        place: Place,
        is_first: bool,
    ) -> None:
        """Combine the array for one index with the accumulators, or start them."""
        body = op.body.block
        self.values[body.args[0]] = index
        self.lower([inner for inner in body.ops if inner is not row])
        indices, outer = self.loops([self.get(extent) for extent in row.extents])
        for arg, value in zip(row.body.block.args, indices, strict=True):
            value.name_hint = arg.name_hint
            self.values[arg] = value
        self.lower(list(row.body.block.ops))
        element = self.get(body_of(row.body)[1].values[0])
        target = place.bind(indices)
        if not is_first:
            element = apply_function(
                op.function, (element, self.load(target)), self.builder, self.lookup
            )
        self.store(element, target)
        self.builder = outer

    def lookup(self, symbol: SymbolRefAttr) -> FuncOp:
        """The function a symbol names."""
        return lookup_function(self.function, symbol)


Kernels: TypeAlias = Callable[[Lowering, ComprehensionOp], bool]
"""Lowers a comprehension at the top of a function in a way of its own, if it can."""

Item: TypeAlias = SSAValue | Place
"""What a pivot or an accumulator is while a cascade runs: a scalar, or memory."""


class _CascadeLoops:
    """A cascade as one loop: scalars are carried by it, arrays lie in memory.

    With a chunk the loop runs over chunks, and what is done for each index of a chunk
    is a loop in it. Arrays are updated in place: within a region all elements that a
    cell needs are read before one of the cell is written.
    """

    def __init__(self, lowering: Lowering, op: CascadeOp):
        self.lowering = lowering
        self.op = op
        self.views = op.views()
        self.results: dict[SSAValue, Item] = {}
        self.tiles: dict[SSAValue, Place] = {}
        self.spare: dict[SSAValue, Place] = {}
        self.stored: set[SSAValue] = set()
        self.upper = lowering.get(op.upper)
        self.low: SSAValue = self.upper
        self.high: SSAValue = self.upper

    def lower(self) -> None:
        """Emit the loop; the results are known afterwards."""
        lowering, op = self.lowering, self.op
        lower, outer = lowering.get(op.lower), lowering.builder
        for view in self.views:
            for function, result in zip(view.functions, view.accumulators, strict=True):
                type_ = cell_element(result.type)
                start = accumulator_start(
                    function, type_, lower, self.upper, lowering.builder
                )
                self._start(result, start)
            for result, start in zip(view.pivots, view.starts, strict=True):
                place = lowering.places.get(start)
                self._start(result, lowering.get(start) if place is None else place)
        self._allocate()
        scalars = [v for v in op.outputs if not isa(v.type, TensorType)]
        initial = [self._scalar(v) for v in scalars]
        if op.chunk is None:
            one = lowering.number(1)
            first = outer.insert(arith.SubiOp(self.upper, one)).result
            stop = outer.insert(arith.SubiOp(lower, one)).result
        else:
            first, stop = self.upper, lower

        def body(index: SSAValue, carried: Sequence[SSAValue]) -> Sequence[SSAValue]:
            self.results.update(zip(scalars, carried, strict=True))
            self._body(index, lower)
            return [self._scalar(v) for v in scalars]

        stride = -op.chunk_length
        last = lowering.carrying((first, stop), stride, initial, body)
        lowering.values.update(zip(scalars, last, strict=True))
        for result in op.outputs:
            if isa(result.type, TensorType):
                place, *copies = lowering.targets[result]
                lowering.places[result] = place
                for copy in copies:
                    self._fill(result, copy, place)

    def _scalar(self, result: SSAValue) -> SSAValue:
        item = self.results[result]
        assert isinstance(item, SSAValue)
        return item

    def _items(self, results: Sequence[OpResult]) -> list[Item]:
        return [self.results[result] for result in results]

    def _start(self, result: OpResult, start: Item) -> None:
        """Let a result start from a scalar, or from the array at a place."""
        if not isa(result.type, TensorType):
            self.results[result] = start
            return
        self.results[result] = place = self.lowering.targets[result][0]
        self._fill(result, place, start)

    def _fill(self, result: OpResult, place: Place, source: Item) -> None:
        """Fill memory with a scalar, or with the elements at another place."""
        lowering = self.lowering
        extents = [lowering.get(extent) for extent in result_extents(result)]
        indices, outer = lowering.loops(extents)
        if isinstance(source, Place):
            source = lowering.load(source.bind(indices))
        lowering.store(source, place.bind(indices))
        lowering.builder = outer

    # Memory besides the results.

    def _allocate(self) -> None:
        """Reserve tiles for data, and memory for arrays that are needed twice."""
        lowering = self.lowering
        if self.op.chunk is not None:
            chunk = lowering.number(self.op.chunk_length)
            for value in self._kept():
                element = memory_element(value.type)
                buffer = lowering.builder.insert(BufferOp([chunk], element))
                steps = (lowering.number(1),)
                self.tiles[value] = Place(buffer.result, (), steps)
        for view in self.views:
            own = [view.accumulators[k] for k in view.own_accumulators()]
            twice = [*own, *view.pivots, *_read_across(view)]
            for result in twice:
                if isa(result.type, TensorType) and result not in self.spare:
                    self.spare[result] = lowering.buffer(result)

    def _kept(self) -> list[SSAValue]:
        """The data that is costly and needed by more than one loop over a chunk."""
        block, terminator = body_of(self.op.data)
        uses = dict.fromkeys(terminator.values, 0)
        for view in self.views:
            for wanted in (view.own_accumulators(), range(len(view.accumulators))):
                for number in self._used(view, wanted) if wanted else ():
                    uses[terminator.values[number]] += 1
        slices = {v: {o for o in needed(block, [v]) if weight(o)} for v in uses}
        costs = {v: sum(map(weight, ops)) for v, ops in slices.items()}
        kept: list[SSAValue] = []
        for value in uses:
            if not uses[value] or costs[value] < COSTLY:
                continue
            shared = [
                other
                for other in uses
                if other is not value
                and uses[other]
                and sum(map(weight, slices[value] & slices[other])) >= COSTLY
            ]
            if uses[value] > 1 or shared:
                kept.append(value)
        return kept

    def _used(self, view: CascadeView, wanted: Sequence[int]) -> list[int]:
        """The numbers of the data that some accumulators' parts use."""
        block, terminator = body_of(view.part)
        values = [terminator.values[number] for number in wanted]
        used = set(values)
        for op in needed(block, values):
            used |= captured(op)
        count = len(body_of(self.op.data)[1].values)
        return [k for k in range(count) if block.args[1 + k] in used]

    # The loop's body.

    def _body(self, index: SSAValue, lower: SSAValue) -> None:
        """Add what an index, or the chunk that ends below it, contributes."""
        lowering, builder = self.lowering, self.lowering.builder
        self.stored = set()
        if self.op.chunk is None:
            one = lowering.number(1)
            index.name_hint = self.op.data.block.args[0].name_hint
            self.low = index
            self.high = builder.insert(arith.AddiOp(index, one)).result
            lowering.values[self.op.data.block.args[0]] = index
            self._again(self.op.data.block)
            lowering.lower(list(self.op.data.block.ops))
        else:
            chunk = lowering.number(self.op.chunk_length)
            below = builder.insert(arith.SubiOp(index, chunk)).result
            self.low = builder.insert(arith.MaxSIOp(below, lower)).result
            self.high = index
        earlier: list[Item] = []
        for view in self.views:
            self._group(view, earlier)
            earlier += [*self._items(view.pivots), *self._items(view.accumulators)]

    def _group(self, view: CascadeView, earlier: Sequence[Item]) -> None:
        """Move the pivots, then the accumulators, then add what the indices give."""
        every = range(len(view.accumulators))
        if view.pivot is not None and view.move is not None:
            old, accumulators = self._items(view.pivots), self._items(view.accumulators)
            new = self._pivot(view, view.pivot, earlier, old, accumulators)
            self._move(view, view.move, old, new, accumulators)
            for result, item in zip(view.pivots, new, strict=True):
                if isinstance(item, Place):
                    place = self.results[result]
                    assert isinstance(place, Place)
                    self._fill(result, place, item)
                else:
                    self.results[result] = item
        added = self._added(view, every, self._items(view.accumulators))
        self.results.update(zip(view.accumulators, added, strict=True))

    def _count(self, end: SSAValue) -> SSAValue:
        """How many indices there are from one on."""
        return self.lowering.builder.insert(arith.SubiOp(self.upper, end)).result

    def _pivot(
        self,
        view: CascadeView,
        region: Region,
        earlier: Sequence[Item],
        old: Sequence[Item],
        accumulators: Sequence[Item],
    ) -> list[Item]:
        """The new pivots; an array lies in spare memory."""
        own: list[Item] = list(accumulators)
        wanted = view.own_accumulators()
        for number in wanted:
            result, item = view.accumulators[number], own[number]
            if isinstance(item, Place):
                own[number] = self.spare[result]
                self._fill(result, self.spare[result], item)
        if wanted:
            current = [own[number] for number in wanted]
            added = self._added(view, wanted, current)
            for number, item in zip(wanted, added, strict=True):
                own[number] = item
        self._bind(region.block.args, [self._count(self.low), *earlier, *old, *own])
        into = [self.spare.get(result, self.results[result]) for result in view.pivots]
        return self._apply(region.block, range(len(into)), view.pivots, into)

    def _move(
        self,
        view: CascadeView,
        region: Region,
        old: Sequence[Item],
        new: Sequence[Item],
        accumulators: Sequence[Item],
    ) -> None:
        """Carry accumulators over to the new pivots, if there is something in them."""
        block, terminator = body_of(region)
        size = len(view.accumulators)
        if tuple(terminator.values) == tuple(block.args[-size:]):
            return
        lowering, outer = self.lowering, self.lowering.builder
        before = self._count(self.high)
        none = lowering.number(0)
        is_some = outer.insert(arith.CmpiOp(before, none, "ne")).result
        then, otherwise = Block(), Block()
        lowering.builder = Builder(InsertPoint.at_end(then))
        current = list(accumulators)
        for result in _read_across(view):
            number = view.accumulators.index(result)
            item = current[number]
            assert isinstance(item, Place)
            self._fill(result, self.spare[result], item)
            current[number] = self.spare[result]
        self._bind(block.args, [before, *old, *new, *current])
        moved = self._apply(block, range(size), view.accumulators, accumulators)
        lowering.builder.insert(scf.YieldOp(*_scalars(moved)))
        kept = _scalars(accumulators)
        Builder(InsertPoint.at_end(otherwise)).insert(scf.YieldOp(*kept))
        lowering.builder = outer
        types = [value.type for value in kept]
        other = Region(otherwise) if kept else None
        branch = outer.insert(scf.IfOp(is_some, types, Region(then), other))
        chosen = iter(branch.results)
        for result in view.accumulators:
            if not isa(result.type, TensorType):
                self.results[result] = next(chosen)

    def _added(
        self, view: CascadeView, wanted: Sequence[int], items: Sequence[Item]
    ) -> list[Item]:
        """Accumulators with what the indices contribute to them."""
        if self.op.chunk is None:
            return self._contribute(view, wanted, self.low, items)
        lowering = self.lowering
        one = lowering.number(1)
        first = lowering.builder.insert(arith.SubiOp(self.high, one)).result
        stop = lowering.builder.insert(arith.SubiOp(self.low, one)).result

        def body(index: SSAValue, carried: Sequence[SSAValue]) -> Sequence[SSAValue]:
            index.name_hint = self.op.data.block.args[0].name_hint
            current = _with_scalars(items, carried)
            return _scalars(self._contribute(view, wanted, index, current))

        found = lowering.carrying((first, stop), -1, _scalars(items), body)
        values = body_of(self.op.data)[1].values
        if any(values[k] in self.tiles for k in self._used(view, wanted)):
            self.stored = set(self.tiles)
        return _with_scalars(items, found)

    def _contribute(
        self,
        view: CascadeView,
        wanted: Sequence[int],
        index: SSAValue,
        items: Sequence[Item],
    ) -> list[Item]:
        """Accumulators with what one index contributes to them."""
        block = view.part.block
        data = self._data(index, self._used(view, wanted))
        for number, value in data.items():
            self.lowering.values[block.args[1 + number]] = value
        self._bind(block.args[:1], [index])
        count = len(view.pivots)
        if count:
            self._bind(block.args[-count:], self._items(view.pivots))
        results = [view.accumulators[number] for number in wanted]
        functions = [view.functions[number] for number in wanted]
        return self._apply(block, wanted, results, items, functions)

    def _data(self, index: SSAValue, used: Sequence[int]) -> dict[int, SSAValue]:
        """The data for an index: from its tile, or computed and put into its tile."""
        lowering = self.lowering
        block, terminator = body_of(self.op.data)
        values = {number: terminator.values[number] for number in used}
        if self.op.chunk is None:
            return {number: lowering.get(value) for number, value in values.items()}
        lowering.values[block.args[0]] = index
        missing = set(values.values()) - self.stored
        kept = self.tiles.keys() - self.stored
        if missing & kept:
            missing |= kept
        else:
            kept = set[SSAValue]()
        ops = needed(block, missing, self.stored)
        read = set(values.values()).union(*map(captured, ops)) & self.stored
        offset = self.low
        if read or kept:
            offset = lowering.builder.insert(arith.SubiOp(index, self.low)).result
        for value in self.tiles:
            if value in read:
                lowering.values[value] = lowering.load(self.tiles[value].bind([offset]))
        self._again(block)
        lowering.lower(ops)
        for value, tile in self.tiles.items():
            if value in kept:
                lowering.store(lowering.get(value), tile.bind([offset]))
        return {number: lowering.get(value) for number, value in values.items()}

    # Regions.

    def _again(self, block: Block) -> None:
        """Forget where the arrays of a block lay when it was lowered before."""
        for op in block.walk():
            for value in op.results:
                self.lowering.targets.pop(value, None)

    def _bind(self, arguments: Sequence[SSAValue], items: Sequence[Item]) -> None:
        for argument, item in zip(arguments, items, strict=True):
            if isinstance(item, Place):
                self.lowering.places[argument] = item
            else:
                self.lowering.values[argument] = item

    def _apply(
        self,
        block: Block,
        wanted: Sequence[int],
        results: Sequence[OpResult],
        items: Sequence[Item],
        functions: Sequence[FunctionAttr] | None = None,
    ) -> list[Item]:
        """What a region yields, or with functions, what it yields combined with items.

        Scalars are given as values, arrays are written to the places of the items.
        """
        lowering = self.lowering
        terminator = block.last_op
        assert isinstance(terminator, YieldOp)
        values = [terminator.values[number] for number in wanted]
        rows = [_row(value) for value in values]
        self._again(block)
        lowering.lower([op for op in needed(block, values) if op not in rows])
        new: list[Item] = []
        loops: dict[tuple[SSAValue, ...], list[int]] = {}
        for k, (value, item) in enumerate(zip(values, items, strict=True)):
            if isinstance(item, Place):
                row = rows[k]
                new.append(item)
                if row is None and functions is None and lowering.places[value] == item:
                    continue
                extents = result_extents(results[k]) if row is None else row.extents
                loops.setdefault(tuple(map(lowering.get, extents)), []).append(k)
            else:
                element = lowering.get(value)
                if functions is not None:
                    element = self._combined(functions[k], element, item)
                new.append(element)
        for extents, numbers in loops.items():
            indices, outer = lowering.loops(extents)
            written: list[tuple[SSAValue, Place]] = []
            done: set[ComprehensionOp] = set()
            for k in numbers:
                place = items[k]
                assert isinstance(place, Place)
                element = self._element(values[k], rows[k], indices, done)
                target = place.bind(indices)
                if functions is not None:
                    element = self._combined(
                        functions[k], element, lowering.load(target)
                    )
                written.append((element, target))
            for element, target in written:
                lowering.store(element, target)
            lowering.builder = outer
        return new

    def _element(
        self,
        value: SSAValue,
        row: ComprehensionOp | None,
        indices: Sequence[SSAValue],
        done: set[ComprehensionOp],
    ) -> SSAValue:
        """One element of an array that a region yields."""
        lowering = self.lowering
        if row is None:
            return lowering.load(lowering.places[value].bind(indices))
        block, terminator = body_of(row.body)
        if row not in done:
            done.add(row)
            for arg, index in zip(block.args, indices, strict=True):
                index.name_hint = arg.name_hint
                lowering.values[arg] = index
            lowering.lower(list(block.ops))
        assert isinstance(value, OpResult)
        return lowering.get(terminator.values[value.index])

    def _combined(
        self, function: FunctionAttr, element: SSAValue, accumulated: SSAValue
    ) -> SSAValue:
        arguments = (element, accumulated)
        builder = self.lowering.builder
        return apply_function(function, arguments, builder, self.lowering.lookup)


def _scalars(items: Sequence[Item]) -> list[SSAValue]:
    return [item for item in items if isinstance(item, SSAValue)]


def _with_scalars(items: Sequence[Item], scalars: Sequence[SSAValue]) -> list[Item]:
    """The items with these scalars in the place of theirs."""
    given = iter(scalars)
    return [item if isinstance(item, Place) else next(given) for item in items]


def _row(value: SSAValue) -> ComprehensionOp | None:
    """The comprehension of scalars that an array is, if a region only yields it."""
    op = value.owner
    if not isinstance(op, ComprehensionOp) or op.order is not None:
        return None
    if any(isa(v.type, TensorType) for v in body_of(op.body)[1].values):
        return None
    block = op.parent
    uses = [use.operation for array in op.arrays for use in array.uses]
    is_yielded = all(user.parent is block for user in uses) and all(
        isinstance(user, YieldOp) for user in uses
    )
    return op if is_yielded else None


def _read_across(view: CascadeView) -> list[OpResult]:
    """The arrays that a move reads at other cells than the one it writes.

    They are copied before anything is written.
    """
    if view.move is None:
        return []
    block, terminator = body_of(view.move)
    rows = list(map(_row, terminator.values))
    found: list[OpResult] = []
    arguments = block.args[-len(view.accumulators) :]
    for k, argument in enumerate(arguments):
        if isa(argument.type, TensorType) and any(
            _is_read_across(use, k, rows, block) for use in argument.uses
        ):
            found.append(view.accumulators[k])
    return found


def _is_read_across(
    use: Use, own: int, rows: Sequence[ComprehensionOp | None], block: Block
) -> bool:
    """Whether a use of accumulator `own` may come after a cell of it was written."""
    user = use.operation
    if user is block.last_op:
        return use.index != own
    outer = block.find_ancestor_op_in_block(user)
    if not isinstance(outer, ComprehensionOp) or outer not in rows:
        return False  # Evaluated before anything is written.
    row = rows[own]
    return not (
        isinstance(user, AtOp)
        and user.parent is outer.body.block
        and tuple(user.indices) == tuple(outer.body.block.args)
        and row is not None
        and tuple(row.extents) == tuple(outer.extents)
    )


def _hosts(value: SSAValue, block: Block) -> list[SSAValue]:
    """The results of a comprehension of the block that can hold `value` until written.

    Its elements each read only the same element of `value`, and nothing else reads
    `value`.
    """
    users = [use.operation for use in value.uses]
    parents = {user.parent_op() for user in users}
    if len(parents) != 1:
        return []
    (host,) = parents
    if not isinstance(host, ComprehensionOp) or host.parent is not block:
        return []
    args = tuple(host.body.block.args)
    if host.order is not None or not all(
        isinstance(user, AtOp) and tuple(user.indices) == args for user in users
    ):
        return []
    return [a for a in host.arrays if element_of(a.type) == element_of(value.type)]


def _start(
    function: FuncOp, types: Sequence[Attribute], order: Order
) -> tuple[Lowering, Operation]:
    """A lowering into a new block with these arguments, and the end of its entry."""
    block = Block(arg_types=types)
    block.add_op(marker := ReturnOp())
    block.insert_op_before(middle := YieldOp(), marker)
    lowering = Lowering(function, order, block, Builder(InsertPoint.before(middle)))
    lowering.builder = Builder(InsertPoint.before(marker))
    old = function.body.block.args
    for argument, new in zip(old, block.args, strict=False):
        new.name_hint = argument.name_hint
        lowering.values[argument] = new
        if isa(argument.type, TensorType):
            lowering.places[argument] = lowering.place_of(new)
    return lowering, middle


def _drop(op: Operation) -> None:
    op.detach()
    op.erase()


def _input_types(function: FuncOp, order: Order) -> list[Attribute]:
    return [
        memory_type(type_, order) if isa(type_, TensorType) else type_
        for type_ in function.function_type.inputs
    ]


def _needed(values: Sequence[SSAValue]) -> set[Operation]:
    """The operations that values are computed by."""
    needed: set[Operation] = set()
    pending = [value.owner for value in values]
    while pending:
        owner = pending.pop()
        if isinstance(owner, Operation) and owner not in needed:
            needed.add(owner)
            pending.extend(value.owner for value in captured(owner))
    return needed


def extents_function(
    function: FuncOp, returned: Sequence[SSAValue], order: Order
) -> FuncOp | None:
    """A function from the inputs to the dynamic extents of the results, if any."""
    wanted = [
        extent
        for value in returned
        for extent, number in zip(
            result_extents(value), shape_of(value.type), strict=True
        )
        if number < 0
    ]
    if not wanted:
        return None
    types = _input_types(function, order)
    lowering, middle = _start(function, types, order)
    block = function.body.block
    needed = _needed(wanted)
    for op in block.ops:
        if isinstance(op, RequireOp):
            needed |= {op, *_needed(op.operands)}
    lowering.lower([op for op in block.ops if op in needed])
    end = lowering.block.last_op
    assert end is not None
    Builder(InsertPoint.before(end)).insert(
        ReturnOp(*(lowering.get(value) for value in wanted))
    )
    _drop(end)
    _drop(middle)
    _erase_unused(lowering.block)
    return FuncOp(
        f"{function.sym_name.data}.extents",
        FunctionType.from_lists(types, [IndexType()] * len(wanted)),
        Region(lowering.block),
    )


def _erase_unused(block: Block) -> None:
    """Erase pure operations at the top of a block whose results nobody uses."""
    from moa_dialect.passes.to_dnf import erase_dead

    erase_dead(block)


def _expect_normal_form(function: FuncOp) -> None:
    name = function.sym_name.data
    if len(function.body.blocks) != 1:
        raise CompileError(
            f"@{name}: expected one block, got {len(function.body.blocks)}"
        )
    for op in operations(function):
        makes_array = any(isa(value.type, TensorType) for value in op.results)
        if makes_array and not isinstance(
            op, ComprehensionOp | FoldOp | CascadeOp | ConstantOp
        ):
            raise CompileError(
                f"@{name} is not in normal form (moa-to-dnf makes it so): expected "
                f"comprehensions, folds and constants as arrays, got {op.name}"
            )


def to_onf(
    function: FuncOp,
    order: Order,
    kernels: Kernels | None = None,
    parallel: bool = False,
) -> FuncOp | None:
    """Lower one function; returns the function that computes its results' extents.

    The function's arguments become memory in the given layout, its results further
    arguments with the attribute `moa.result`; a function that checks something gets a
    last argument with the attribute `moa.status`.
    """
    _expect_normal_form(function)
    old = function.body.block
    terminator = old.last_op
    assert isinstance(terminator, ReturnOp)
    returned = terminator.operands
    for value in returned:
        if not isa(value.type, TensorType):
            raise CompileError(
                f"@{function.sym_name.data}: expected arrays as results, "
                f"got {value.type}"
            )
    companion = extents_function(function, returned, order)
    types = _input_types(function, order)
    outputs = [memory_type(value.type, order) for value in returned]
    checks = any(isinstance(op, RequireOp | InBoundsOp) for op in operations(function))
    status = [MemRefType(i64, [3])] if checks else []

    lowering, middle = _start(function, [*types, *outputs, *status], order)
    lowering.kernels, lowering.parallel = kernels, parallel
    memories = lowering.block.args[len(types) : len(types) + len(outputs)]
    places: list[list[Place]] = []
    for number, memory in enumerate(memories):
        memory.name_hint = "result" if len(memories) == 1 else f"result{number}"
        places.append([lowering.place_of(memory)])
    if status:
        lowering.block.args[-1].name_hint = "status"
    lowering.plan(old, returned, places)
    lowering.lower(list(old.ops))
    _drop(middle)
    _erase_unused(lowering.block)

    attributes: list[dict[str, Attribute]] = [
        *({} for _ in types),
        *({RESULT: UnitAttr()} for _ in outputs),
        *({STATUS: UnitAttr()} for _ in status),
    ]
    function.arg_attrs = ArrayAttr(map(DictionaryAttr, attributes))
    function.res_attrs = None
    function.function_type = FunctionType.from_lists([*types, *outputs, *status], [])
    new = Region(lowering.block)
    function.detach_region(function.body).drop_all_references()
    function.add_region(new)
    return companion


def lower_functions(
    module: ModuleOp,
    order: Order,
    kernels: Kernels | None = None,
    parallel: bool = False,
) -> list[FuncOp]:
    """Lower all functions of arrays in a module; returns them.

    With `parallel` loops over the elements of an array are marked `moa.parallel`.
    """
    found: list[FuncOp] = []
    for function in programs_of(module):
        type_ = function.function_type
        if any(isa(t, TensorType) for t in (*type_.inputs, *type_.outputs)):
            companion = to_onf(function, order, kernels, parallel)
            found.append(function)
            if companion is not None:
                Rewriter.insert_op(companion, InsertPoint.after(function))
    return found


@dataclass(frozen=True)
class ToOnfPass(ModulePass):
    """Lowers normal forms to loops over flat addresses in a layout.

    `layout` is the gamma of all arguments and results: `row` or `column`. With
    `parallel`, loops over the elements of an array, which are independent of each
    other, have the attribute `moa.parallel`.
    """

    name = "moa-to-onf"

    layout: str = "row"
    parallel: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.layout not in list(Order):
            raise CompileError(
                f"moa-to-onf: unknown layout: expected row or column, got {self.layout}"
            )
        order = Order(self.layout)
        for function in lower_functions(op, order, parallel=self.parallel):
            record(function, self)
