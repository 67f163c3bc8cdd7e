"""Reads functions at the stages dnf, fused and onf as loop nests.

Comprehensions and folds are loops over their axes, a cascade is a loop over chunks with
loops over their indices; at the stage onf loops are what they are. A full index of an
array is an access, a scalar operation is work.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.cost.algebra import NOMINAL, Expr, number_of
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
from moa_dialect.errors import MoaError
from moa_dialect.ops.function import FunctionAttr, print_name
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
    cell_shape,
)
from moa_dialect.ops.operational import BufferOp, LoadOp, LoopOp, RavOp, StoreOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.types import element_of, shape_of

_FOLDS = {"add": "add", "mul": "mul"}


_NOT_READ = ("moa", "memref", "vector", "linalg", "affine", "llvm", "gpu")
"""Dialects whose other operations are of stages that are not read."""


class CostError(MoaError):
    """A program has no cost: it is at a stage that has no loops."""


@dataclass(frozen=True)
class Place:
    """Where the elements of an array value lie: in an array, after some indices.

    Attributes:
        array: the array.
        prefix: the indices before those of the value.
        positions: for each index, prefix first, the axis of the array it belongs to;
            in order if empty.
        combines: the kind of work that combines what is stored with what is there.
    """

    array: Array
    prefix: tuple[Expr, ...] = ()
    positions: tuple[int, ...] = ()
    combines: str = ""

    def index(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        """The index of the array for an index of the value."""
        whole = (*self.prefix, *indices)
        if not self.positions:
            return whole
        found = list(whole)
        for entry, position in zip(whole, self.positions, strict=True):
            found[position] = entry
        return tuple(found)


def read_function(
    function: FuncOp,
    names: Names | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Nest:
    """Read a function at the stage dnf, fused or onf.

    Args:
        function: the function.
        names: names for the extents of its arguments, which are numbers otherwise.
        sizes: numbers for names of extents that types do not give.

    Raises:
        CostError: for an operation of another stage.
    """
    return _Reader(function, names, sizes).read()


class _Reader:
    def __init__(
        self,
        function: FuncOp,
        names: Names | None,
        sizes: Mapping[str, int] | None,
    ) -> None:
        self.function = function
        block = function.body.block
        hints = [a.name_hint or f"x{k}" for k, a in enumerate(block.args)]
        types = [arg.type for arg in block.args]
        extents = Extents(types, hints, names, sizes)
        self.extents = extents
        self.values = extents.values
        self.index: dict[SSAValue, Expr] = {}
        self.places: dict[SSAValue, Place] = {}
        self.arrays: list[Array] = []
        self.opaque: set[Expr] = set()
        self.loops: list[Loop] = []
        self.strides: dict[SSAValue, tuple[Place, tuple[Expr, ...]]] = {}
        self.results: dict[SSAValue, int] = {}
        last = block.last_op
        if isinstance(last, ReturnOp):
            for number, value in enumerate(last.arguments):
                self.results[value] = number
        marks = function.arg_attrs.data if function.arg_attrs is not None else ()
        for number, arg in enumerate(block.args):
            mark = marks[number].data if number < len(marks) else {}
            if not is_array(arg.type) or "moa.status" in mark:
                continue
            role = "result" if "moa.result" in mark else "argument"
            array = Array(
                hints[number],
                extents.of[number],
                bytes_of(element_of(arg.type)),
                role,
            )
            self.arrays.append(array)
            self.places[arg] = Place(array)

    def read(self) -> Nest:
        body = self.block(self.function.body.block)
        return Nest(body, self.arrays, self.values, self.opaque)

    def block(self, block: Block) -> list[Node]:
        """What the operations of a block do."""
        found: list[Node] = []
        for op in block.ops:
            found += self.operation(op)
        return found

    # Indices.

    def value(self, value: SSAValue) -> Expr:
        """An index as an expression."""
        if value not in self.index:
            symbol = sp.Dummy("data", integer=True, nonnegative=True)
            self.opaque.add(symbol)
            self.index[value] = symbol
        return self.index[value]

    def extent_of(self, value: SSAValue, axis: int) -> Expr:
        """The extent of an axis of an array."""
        if value in self.places:
            place = self.places[value]
            return place.array.shape[len(place.prefix) + axis]
        return sp.Integer(max(shape_of(value.type)[axis], 1))

    def arithmetic(self, op: Operation) -> Expr | None:
        """What an operation on indices gives, None if it is not known."""
        if isinstance(op, arith.ConstantOp):
            if isinstance(op.value, IntegerAttr):
                return sp.Integer(op.value.value.data)
            return None
        args: list[Expr] = [self.index.get(operand) for operand in op.operands]
        if any(arg is None for arg in args):
            return None
        match op.name:
            case "arith.addi":
                return args[0] + args[1]
            case "arith.subi":
                return args[0] - args[1]
            case "arith.muli":
                return args[0] * args[1]
            case "arith.minsi":
                return sp.Min(args[0], args[1])
            case "arith.maxsi":
                return sp.Max(args[0], args[1])
            case "arith.divui" | "arith.divsi" | "arith.floordivsi":
                return sp.floor(args[0] / args[1])
            case "arith.index_cast":
                return args[0]
            case _:
                return None

    def average(self, expression: Expr) -> Expr:
        """An expression without the indices of the loops around."""
        found = average(sp.sympify(expression), self.loops, self.values)
        return without_data(found, self.opaque)

    def loop(self, hint: str | None, count: Expr, span: Expr = None) -> Loop:
        """A loop that runs so often; on average, if that depends on loops around."""
        symbol = sp.Dummy(hint or "i", integer=True, nonnegative=True)
        trips = self.average(count)
        if number_of(trips, self.values) < 0:
            trips = sp.Integer(0)
        return Loop(symbol, trips, span=None if span is None else self.average(span))

    def within(self, loop: Loop, block: Block | None = None) -> list[Node]:
        """Read a block as the body of a loop."""
        self.loops.append(loop)
        if block is not None:
            loop.body += self.block(block)
        self.loops.pop()
        return loop.body

    # Operations.

    def operation(self, op: Operation) -> list[Node]:
        match op:
            case ExtentOp():
                self.index[op.result] = self.extent_of(op.array, op.axis_number)
            case FixedExtentOp():
                self.index[op.result] = sp.Integer(op.static_value)
            case ConstantOp():
                shape = tuple(map(sp.Integer, shape_of(op.result.type)))
                element = bytes_of(element_of(op.result.type))
                hint = op.result.name_hint or "constant"
                array = Array(hint, shape, element, "argument")
                self.arrays.append(array)
                self.places[op.result] = Place(array)
            case InBoundsOp():
                self.index[op.result] = self.value(op.index)
            case ComprehensionOp():
                return self.comprehension(op)
            case FoldOp():
                return self.fold(op)
            case CascadeOp():
                return self.cascade(op)
            case AtOp():
                return self.access(op.array, op.indices, writes=False)
            case LoopOp():
                return self.onf_loop(op)
            case RavOp():
                self.rav(op)
            case BufferOp():
                shape = sp.Mul(*(self.average(self.value(e)) for e in op.extents))
                place = self.scratch(op.result, "buffer", (shape,))
                self.strides[op.result] = place, (sp.Integer(1),)
            case LoadOp() | StoreOp():
                return self.flat_access(op)
            case scf.IfOp():
                return [
                    node
                    for region in op.regions
                    if region.blocks
                    for node in self.block(region.block)
                ]
            case RequireOp():
                self.require(op)
            case YieldOp() | ReturnOp() | scf.YieldOp():
                pass
            case _:
                return self.scalar(op)
        return []

    def require(self, op: RequireOp) -> None:
        """Let extents that must be equal be one symbol."""
        pair = [self.index.get(op.given), self.index.get(op.expected)]
        if op.relation_name != "eq" or not all(p in self.values for p in pair):
            return
        old, new = pair
        if old == new:
            return
        number = self.values.pop(old)
        if self.values[new] == NOMINAL:
            self.values[new] = number
        for array in self.arrays:
            array.shape = tuple(e.xreplace({old: new}) for e in array.shape)
        self.index = {v: e.xreplace({old: new}) for v, e in self.index.items()}

    def scalar(self, op: Operation) -> list[Node]:
        """An operation on scalars."""
        if len(op.results) != 1 or op.regions:
            return self._other(op)
        (result,) = op.results
        if isinstance(result.type, IndexType):
            found = self.arithmetic(op)
            if found is not None:
                self.index[result] = found
            return []
        if isinstance(result.type, IntegerType):
            found = self.arithmetic(op)
            if found is not None:
                self.index[result] = found
                return []
        kind = kind_of(op.name)
        if kind is None:
            return self._other(op)
        if op.name in ("arith.constant", "arith.index_cast", "arith.sitofp"):
            return []
        if op.name in ("arith.andi", "arith.ori", "arith.xori"):
            return []
        of = op.operands[0] if op.name in ("arith.cmpf", "arith.cmpi") else result
        dtype = element_name(of.type)
        return [] if dtype is None else [Work(kind, dtype)]

    def _other(self, op: Operation) -> list[Node]:
        """An operation that is none of a normal form."""
        if op.name.split(".")[0] in _NOT_READ:
            raise CostError(
                f"expected a function at the stage dnf, fused or onf, got {op.name}"
            )
        return [n for r in op.regions for b in r.blocks for n in self.block(b)]

    def access(
        self, array: SSAValue, indices: Sequence[SSAValue], writes: bool
    ) -> list[Node]:
        place = self.places.get(array)
        if place is None:
            return []
        index = place.index([self.value(i) for i in indices])
        return [Access(place.array, index, writes)]

    # Normal forms.

    def scratch(self, value: SSAValue, name: str, shape: Sequence[Expr]) -> Place:
        """Memory for a value that has no other place."""
        known = self.places.get(value)
        if known is not None:
            return known
        element = bytes_of(cell_element(_as_cell(value.type)))
        array = Array(value.name_hint or name, tuple(shape), element, "scratch")
        self.arrays.append(array)
        self.places[value] = Place(array)
        return self.places[value]

    def comprehension(self, op: ComprehensionOp) -> list[Node]:
        block, terminator = body_of(op.body)
        loops: list[Loop] = []
        for arg, extent in zip(block.args, op.extents, strict=True):
            count = self.value(extent)
            loop = self.loop(arg.name_hint, count, count)
            self.index[arg] = loop.index
            loops.append(loop)
        indices = tuple(loop.index for loop in loops)
        stores: list[tuple[SSAValue, Place]] = []
        for result, value in zip(op.arrays, terminator.values, strict=True):
            cell = [self.cell_extent(value, k) for k in range(_rank(value.type))]
            shape = (*(loop.trips for loop in loops), *cell)
            place = self.places.get(result)
            positions = op.positions(len(shape)) if op.order is not None else ()
            if place is None:
                ordered = list(shape)
                for extent, position in zip(shape, positions, strict=False):
                    ordered[position] = extent
                place = self.scratch(result, "t", ordered)
                if result in self.results:
                    place.array.role = "result"
                    place.array.name = result.name_hint or "result"
            place = replace(place, prefix=(*place.prefix, *indices))
            if positions:
                place = replace(place, positions=positions)
            if _rank(value.type) and not isinstance(value.owner, Block):
                self.places.setdefault(value, place)
            stores.append((value, place))
        self.loops += loops
        inner: list[Node] = list(self.block(block))
        for value, place in stores:
            if _rank(value.type):
                continue
            if place.combines:
                inner.append(Access(place.array, place.index(())))
                dtype = element_name(value.type)
                if dtype is not None:
                    inner.append(Work(place.combines, dtype))
            inner.append(Access(place.array, place.index(()), writes=True))
        del self.loops[len(self.loops) - len(loops) :]
        for loop in reversed(loops):
            loop.body = inner
            inner = list[Node]([loop])
        return inner

    def cell_extent(self, value: SSAValue, axis: int) -> Expr:
        """The extent of an axis of what a body yields."""
        static = cell_shape(value.type)[axis]
        owner = value.owner
        if isinstance(owner, ComprehensionOp):
            if axis < len(owner.extents):
                return self.average(self.value_later(owner.extents[axis]))
            _, terminator = body_of(owner.body)
            position = list(owner.arrays).index(value)  # pyright: ignore
            inner = terminator.values[position]
            return self.cell_extent(inner, axis - len(owner.extents))
        if isinstance(owner, FoldOp):
            _, terminator = body_of(owner.body)
            return self.cell_extent(terminator.values[0], axis)
        if isinstance(owner, CascadeOp):
            return self.cell_extent(owner.defining(value), axis)  # pyright: ignore
        return sp.Integer(max(static, 1))

    def value_later(self, value: SSAValue) -> Expr:
        """An index that may be computed by what is not read yet."""
        if value not in self.index and isinstance(value.owner, Operation):
            owner = value.owner
            if isinstance(owner, ExtentOp | FixedExtentOp):
                self.operation(owner)
            else:
                for operand in owner.operands:
                    self.value_later(operand)
                found = self.arithmetic(owner)
                if found is not None:
                    self.index[value] = found
        return self.value(value)

    def fold(self, op: FoldOp) -> list[Node]:
        block, terminator = body_of(op.body)
        lower, upper = self.value(op.lower), self.value(op.upper)
        loop = self.loop(block.args[0].name_hint, upper - lower, upper - lower)
        # A right fold begins with its last index.
        self.index[block.args[0]] = upper - 1 - loop.index
        loop.backwards = True
        value = terminator.values[0]
        kind = _fold_kind(op.function)
        dtype = element_name(cell_element(value.type)) or "i64"
        if _rank(value.type):
            shape = [self.cell_extent(value, k) for k in range(_rank(value.type))]
            place = self.scratch(op.result, "a", shape)
            self.places[value] = replace(place, combines=kind)
            self.within(loop, block)
            return [loop]
        self.within(loop, block)
        loop.body.append(Work(kind, dtype))
        return [loop]

    def cascade(self, op: CascadeOp) -> list[Node]:
        lower, upper = self.value(op.lower), self.value(op.upper)
        length = upper - lower
        for result in op.accumulators:
            if _rank(result.type):
                value = op.defining(result)
                shape = [self.cell_extent(value, k) for k in range(_rank(value.type))]
                self.scratch(result, "a", shape)
        size = sp.Integer(op.chunk_length)
        mean = self.average(length)
        is_fixed = not sp.sympify(length).free_symbols - set(self.values)
        count = sp.ceiling(mean / size) if is_fixed else sp.expand(mean / size)
        if number_of(mean, self.values) <= op.chunk_length:
            count, size = sp.Integer(1), mean
        chunks = self.loop("c", count, mean)
        chunks.trips = count
        self.loops.append(chunks)
        start = upper - 1 - size * chunks.index  # the last index comes first
        views = op.views()
        block, terminator = body_of(op.data)
        each = sp.cancel(mean / count) if not is_fixed else mean / count
        data = self._part(chunks, start, each, block)
        is_costly = any(
            isinstance(inner, FoldOp) or inner.name.startswith("math.")
            for inner in op.data.walk()
        )
        tiles: list[Place] = []
        if is_costly and op.chunk_length > 1 and len(views) > 1:
            for number, value in enumerate(terminator.values):
                element = bytes_of(value.type)
                array = Array(f"tile{number}", (size,), element, "scratch")
                self.arrays.append(array)
                tiles.append(Place(array))
        chunks.body.append(data)
        offset = data.index
        data.body += [Access(t.array, (offset,), writes=True) for t in tiles]
        for number, view in enumerate(views):
            target = data
            if number or view.own_accumulators():
                if view.pivot is not None:
                    self._pivot(chunks, view, views[:number])
                if view.own_accumulators() or not tiles:
                    target = self._part(chunks, start, each, block)
                else:
                    target = self._part(chunks, start, each, None)
                    offset = target.index
                    target.body += [Access(t.array, (offset,)) for t in tiles]
                if view.own_accumulators():
                    # The sums that pivots need are those of a pass of their own.
                    self._parts(data, start, view, view.own_accumulators())
                chunks.body.append(target)
            self._parts(target, start, view, None)
        self.loops.pop()
        return [chunks]

    def _part(
        self, chunks: Loop, start: Expr, trips: Expr, block: Block | None
    ) -> Loop:
        """A loop over the indices of a chunk, with what a block of them does."""
        symbol = sp.Dummy("p", integer=True, nonnegative=True)
        loop = Loop(symbol, trips, span=trips, backwards=True)
        if block is not None:
            self.index[block.args[0]] = start - symbol
            self.within(loop, block)
        return loop

    def _parts(
        self, loop: Loop, start: Expr, view: CascadeView, which: list[int] | None
    ) -> None:
        """What the indices of a chunk contribute to accumulators of a group."""
        block, terminator = body_of(view.part)
        self.index[block.args[0]] = start - loop.index
        pairs = list(
            zip(view.functions, view.accumulators, terminator.values, strict=True)
        )
        chosen = [pair for k, pair in enumerate(pairs) if which is None or k in which]
        for function, result, value in chosen:
            if _rank(value.type):
                kind = _fold_kind(function)
                self.places[value] = replace(self.places[result], combines=kind)
        if which is None:
            self.within(loop, block)
        for function, _, value in chosen:
            if not _rank(value.type):
                dtype = element_name(value.type) or "i64"
                loop.body.append(Work(_fold_kind(function), dtype))

    def _pivot(
        self, chunks: Loop, view: CascadeView, before: Sequence[CascadeView]
    ) -> None:
        """The pivots of a group, and the move of its accumulators."""
        assert view.pivot is not None
        assert view.move is not None
        block, _ = body_of(view.pivot)
        results = [r for v in before for r in (*v.pivots, *v.accumulators)]
        results += [*view.pivots, *view.accumulators]
        self._bind(block.args[1:], results)
        chunks.body += self.block(block)
        block, terminator = body_of(view.move)
        self._bind(block.args[1:], [*view.pivots, *view.pivots, *view.accumulators])
        for result, value in zip(view.accumulators, terminator.values, strict=True):
            if _rank(value.type) and not isinstance(value.owner, Block):
                self.places[value] = self.places[result]
        chunks.body += self.block(block)

    def _bind(self, args: Sequence[BlockArgument], results: Sequence[SSAValue]) -> None:
        for arg, result in zip(args, results, strict=True):
            if result in self.places:
                self.places[arg] = self.places[result]

    # The operational normal form.

    def onf_loop(self, op: LoopOp) -> list[Node]:
        block, _ = body_of(op.body)
        start, stop, stride = self.value(op.start), self.value(op.stop), op.stride_value
        span = (stop - start) if stride > 0 else (start - stop)
        free = sp.sympify(span).free_symbols - set(self.values)
        size = abs(stride)
        if size == 1:
            count = span
        elif not free:
            count = sp.ceiling(span / size)
        else:
            count = span / size
        parts = [
            around
            for around in self.loops
            if around.index in free and number_of(around.steps, self.values) > 1
        ]
        if size == 1 and parts:
            # The indices of a chunk: all chunks together have those of the loop around.
            count = span = sp.cancel(parts[-1].span / parts[-1].trips)
        loop = self.loop(block.args[0].name_hint, count, span)
        loop.steps = sp.Integer(size)
        if number_of(loop.trips, self.values) < 1 and size > 1:
            loop.trips = sp.Integer(1)
        loop.backwards = stride < 0
        self.index[block.args[0]] = start + stride * loop.index
        self.within(loop, block)
        return [loop]

    def rav(self, op: RavOp) -> None:
        place = self.places.get(op.array)
        if place is None:
            return
        self.places[op.result] = place
        shape = place.array.shape
        order = range(len(shape))
        if op.order.data == "column":
            order = reversed(order)
        strides: dict[int, Expr] = {}
        step: Expr = sp.Integer(1)
        for axis in reversed(list(order)):
            strides[axis] = step
            step = step * shape[axis]
        self.strides[op.result] = place, tuple(strides[k] for k in range(len(shape)))

    def _begin(self, start: Expr) -> Expr:
        """A start without the bound that only the last chunk of an axis reaches."""
        chunks = {
            loop.index for loop in self.loops if number_of(loop.steps, self.values) > 1
        }
        bounds = {
            bound: next(a for a in bound.args if a.free_symbols & chunks)
            for bound in sp.sympify(start).atoms(sp.Max)
            if len([a for a in bound.args if a.free_symbols & chunks]) == 1
        }
        return start.xreplace(bounds) if bounds else start

    def flat_access(self, op: LoadOp | StoreOp) -> list[Node]:
        known = self.strides.get(op.buffer)
        if known is None:
            return []
        place, strides = known
        steps = [number_of(stride, self.values) for stride in strides]
        indices: list[Expr] = [sp.Integer(0)] * len(strides)
        for index, stride in zip(op.indices, op.strides, strict=True):
            step = number_of(self.average(self.value(stride)), self.values)
            fitting = [k for k, s in enumerate(steps) if s <= max(step, 1)]
            if not fitting:
                continue
            # Of axes with equal strides, the one that is long.
            most = max(steps[k] for k in fitting)
            equal = [k for k in fitting if steps[k] == most]
            axis = max(
                equal, key=lambda k: number_of(place.array.shape[k], self.values)
            )
            factor = round(step / steps[axis]) if steps[axis] else 1
            indices[axis] += factor * self.value(index)
        # Where a chunk begins, but for the last one, which may be shorter.
        start = self._begin(self.value(op.start))
        if len(strides) == 1:
            indices[0] = sp.expand(indices[0] + start)
        return [Access(place.array, tuple(indices), isinstance(op, StoreOp))]


def _as_cell(type_: Attribute) -> Attribute:
    return element_of(type_) if isa(type_, MemRefType) else type_


def _rank(type_: Attribute) -> int:
    return len(cell_shape(type_))


def _fold_kind(function: FunctionAttr) -> str:
    return _FOLDS.get(print_name(function), "other")
