"""The scalars of the normal forms, in bodies of linalg and outside of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith, cf, scf
from xdsl.dialects.builtin import (
    IndexType,
    StringAttr,
    TensorType,
    i1,
)
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    OpResult,
    Region,
    SSAValue,
)
from xdsl.ir.affine import AffineDimExpr, AffineExpr
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering.linalg_ops import (
    Axis,
    Generic,
    Linear,
    Size,
    Stored,
    dim_of,
    emit_size,
    extracted,
)
from moa_dialect.ops.function import has_identity
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    body_of,
)
from moa_dialect.passes.affine_code import emit_set
from moa_dialect.scalar_code import (
    constant,
)
from moa_dialect.types import element_of, memory_element, shape_of

if TYPE_CHECKING:
    from moa_dialect.lowering.to_linalg import Lowering

ORDER_FREE = {"add", "mul", "max", "min", "and", "or", "xor"}
"""The functions that linalg may fold with: their order is not said there."""

_CHEAP = {"math.absf", "math.absi", "math.floor", "math.ceil", "math.copysign"}

Bound: TypeAlias = Axis | Stored | SSAValue
"""What a value of the normal form is here: an index, an array, or a value."""


@dataclass(frozen=True)
class Element:
    """An element of an array: its index is that of these axes."""

    array: Stored
    dims: tuple[Axis, ...]


Root: TypeAlias = SSAValue | Element
"""The elements of an array: a scalar of the normal form, or those of another array."""


def is_costly(op: Operation) -> bool:
    """Whether an operation of scalars takes long."""
    return isinstance(op, arith.DivfOp) or (
        op.name.startswith("math.") and op.name not in _CHEAP
    )


def is_array(value: SSAValue) -> bool:
    """Whether a value is an array, not a scalar."""
    return isa(value.type, TensorType)


def scalar_type(array: SSAValue) -> Attribute:
    """The type of an array's elements as scalars."""
    element = element_of(array.type)
    return i1 if element == memory_element(i1) else element


# What has to be computed outside of linalg's bodies.


def _index_roots(values: Sequence[SSAValue]) -> set[SSAValue]:
    """The arguments of blocks that values are computed from."""
    found: set[SSAValue] = set()
    seen: set[SSAValue] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if isinstance(value, BlockArgument):
            found.add(value)
        elif isinstance(value, OpResult):
            pending += [v for op in value.op.walk() for v in op.operands]
    return found


def is_hard(op: Operation) -> bool:
    """Whether an operation has no code inside a body of linalg."""
    if isinstance(op, FoldOp | scf.IfOp):
        return any(map(is_array, op.results))
    return isinstance(op, CascadeOp)


def must_be_values(op: Operation) -> set[SSAValue]:
    """The indices that what is in an operation needs outside of linalg's loops."""
    found: set[SSAValue] = set()
    for inner in op.walk():
        match inner:
            case CascadeOp():
                found |= _index_roots((inner.lower, inner.upper))
            case FoldOp():
                controls = (inner.lower, inner.upper, *inner.domain_arguments)
                if is_array(inner.result):
                    found |= _index_roots(controls)
                    if not is_order_free(inner) or inner.domain is not None:
                        found.add(inner.body.block.args[0])
                elif contains_hard(inner) and (
                    not is_order_free(inner)
                    or inner.domain is not None
                    or _index_roots(controls)
                ):
                    found |= _index_roots(inner.results)
                    found.add(inner.body.block.args[0])
            case scf.IfOp():
                if is_hard(inner) or contains_hard(inner):
                    found |= _index_roots(inner.results)
            case _:
                pass
    return found


def contains_hard(op: Operation) -> bool:
    """Whether there is an operation inside that has no code in a body of linalg."""
    return any(inner is not op and is_hard(inner) for inner in op.walk())


def is_order_free(op: FoldOp) -> bool:
    """Whether linalg may do a fold, whose order it does not say."""
    return isinstance(op.function, StringAttr) and op.function.data in ORDER_FREE


def arguments_in(op: Operation) -> set[SSAValue]:
    """The arguments of the blocks in an operation."""
    return {argument for inner in op.walk() for argument in own_arguments(inner)}


def own_arguments(op: Operation) -> list[SSAValue]:
    """The arguments of the blocks of an operation."""
    return [
        argument
        for region in op.regions
        for block in region.blocks
        for argument in block.args
    ]


@dataclass
class Scalars:
    """The code of scalars in one place: in a body of linalg, or outside of them all."""

    lowering: Lowering
    generic: Generic | None
    builder: Builder
    known: list[dict[SSAValue, SSAValue]] = field(
        default_factory=lambda: [dict[SSAValue, SSAValue]()]
    )
    guards: list[Block] = field(default_factory=list[Block])

    # Values

    def value(self, source: SSAValue) -> SSAValue:
        """The code of a scalar."""
        source = self.lowering.resolved(source)
        for scope in reversed(self.known):
            if source in scope:
                return scope[source]
        result = self._bound(source)
        if result is None:
            result = self._emitted(source)
        self.known[-1][source] = result
        return result

    def root(self, root: Root) -> SSAValue:
        """The code of an element."""
        if isinstance(root, Element):
            dims = [Linear(((axis, 1),)) for axis in root.dims]
            return self._access(root.array, dims, [])
        return self.value(root)

    def _bound(self, source: SSAValue) -> SSAValue | None:
        """What is bound outside to a value, or worth to be computed there."""
        lowering = self.lowering
        bound = lowering.env.get(source)
        if bound is None and not self._is_guarded(source):
            axes = () if self.generic is None else self.generic.axes
            bound = lowering.stored_if_worth(source, axes)
        match bound:
            case Axis():
                assert self.generic is not None
                return self.generic.index(bound)
            case Stored():
                return self._access(bound, [], [])
            case _:
                return bound

    def _is_guarded(self, source: SSAValue) -> bool:
        """Whether a value exists only where a branch is taken, or in a loop here."""
        block = source.owner if isinstance(source.owner, Block) else source.owner.parent
        while block is not None:
            if block in self.guards:
                return True
            parent = block.parent_op()
            block = None if parent is None else parent.parent
        return False

    def _emitted(self, source: SSAValue) -> SSAValue:
        assert isinstance(source, OpResult), f"{source} is not defined here"
        op = source.op
        match op:
            case AtOp():
                return self._at(op)
            case FoldOp():
                return self._fold(op)
            case InBoundsOp():
                return self._in_bounds(op)
            case scf.IfOp():
                return self._if(op, op.results.index(source))
            case ExtentOp():
                array = self.lowering.array(op.array)
                assert not array.axes
                size = dim_of(array.tensor, op.axis_number, self.builder)
                return emit_size(size, self.builder)
            case FixedExtentOp():
                return emit_size(op.static_value, self.builder)
            case _:
                pass
        if op.regions or op.name.startswith("moa."):
            raise CompileError(f"moa-to-linalg: {op.name} has no code here")
        mapper = {operand: self.value(operand) for operand in op.operands}
        copy = self.builder.insert(op.clone(mapper))
        return copy.results[op.results.index(source)]

    # Elements of arrays

    def _at(self, op: AtOp) -> SSAValue:
        array = self.lowering.resolved(op.array)
        owner = array.owner
        if isinstance(owner, ComprehensionOp) and self._is_guarded(array):
            return self._substituted(owner, array, op.indices)
        stored = self.lowering.array(array)
        if self.generic is None:
            return self._extracted(stored, op.indices)
        linear = [self.lowering.linear(index) for index in op.indices]
        if any(index is None for index in linear):
            return self._extracted(stored, op.indices)
        return self._access(stored, [i for i in linear if i is not None], op.indices)

    def _access(
        self, array: Stored, dims: Sequence[Linear], indices: Sequence[SSAValue]
    ) -> SSAValue:
        """An element as an operand of the operation, if linalg can say which."""
        if self.generic is None:
            assert not array.axes
            assert not dims
            return self._extracted(array, indices)
        own = len(array.axes)
        results: list[AffineExpr] = list(self.generic.plain(array.axes).results)
        offsets: list[Size] = [0] * own
        sizes: list[Size] = [axis.extent for axis in array.axes]
        strides, kept, is_part = [1] * own, [True] * own, False
        for number, index in enumerate(dims, own):
            whole = dim_of(array.tensor, number, self.lowering.builder)
            match index.axes:
                case ():
                    offset, size, stride = self.lowering.size_of(index), 1, 1
                case ((axis, factor),) if factor > 0:
                    offset, stride = self.lowering.size_of(index), factor
                    size = axis.extent
                    if (
                        stride == 1
                        and offset == 0
                        and self.lowering.is_same(axis, array.tensor, number)
                    ):
                        size = whole
                case _ if (
                    all(factor > 0 for _, factor in index.axes)
                    and not index.number
                    and not index.values
                ):
                    offset, size, stride = 0, whole, 1
                case _:
                    return self._extracted(array, indices)
            offsets.append(offset)
            sizes.append(size)
            strides.append(stride)
            kept.append(bool(index.axes))
            if index.axes:
                single = len(index.axes) == 1
                results.append(
                    AffineDimExpr(self.generic.axes.index(index.axes[0][0]))
                    if single
                    else self.generic.sum(index.axes)
                )
            is_part |= not (offset == 0 and stride == 1 and size is whole) and not (
                isinstance(size, int) and size == whole and offset == 0 and stride == 1
            )
        source = array.tensor
        if is_part or not all(kept):
            # Upstream has no parts of arrays without elements; none is read there.
            if self.guards or 0 in shape_of(source.type):
                return self._extracted(array, indices)
            source = self.lowering.part(source, offsets, sizes, strides, kept)
        return self.generic.element(source, results)

    def _extracted(self, array: Stored, indices: Sequence[SSAValue]) -> SSAValue:
        """An element, by its index computed here."""
        own = [self.generic.position(axis) for axis in array.axes if self.generic]
        at = [*own, *(self.value(index) for index in indices)]
        return extracted(array.tensor, at, self.builder)

    def _substituted(
        self, op: ComprehensionOp, array: SSAValue, indices: Sequence[SSAValue]
    ) -> SSAValue:
        """An element of an array that exists only here: its definition."""
        values = [self.value(index) for index in indices]
        block, terminator = body_of(op.body)
        if op.order is not None:
            values = [values[place] for place in op.positions(len(values))]
        source = terminator.values[op.arrays.index(array)]  # pyright: ignore[reportArgumentType]
        if is_array(source) or len(values) != len(block.args):
            raise CompileError("moa-to-linalg: an array of arrays has no code here")
        self.known.append(dict(zip(block.args, values, strict=True)))
        self.guards.append(block)
        result = self.value(source)
        self.guards.pop()
        self.known.pop()
        return result

    # Control flow

    @contextmanager
    def within(self, block: Block, source: Block) -> Generator[None]:
        """Emit into a block, what is in a block of the normal form."""
        outer, self.builder = self.builder, Builder(InsertPoint.at_end(block))
        self.known.append({})
        self.guards.append(source)
        yield
        self.guards.pop()
        self.known.pop()
        self.builder = outer

    def _if(self, op: scf.IfOp, number: int) -> SSAValue:
        condition = self.value(op.cond)
        regions: list[Region] = []
        for region in (op.true_region, op.false_region):
            block = Block()
            with self.within(block, region.block):
                end = region.block.last_op
                assert isinstance(end, scf.YieldOp)
                values = [self.value(value) for value in end.operands]
                self.builder.insert(scf.YieldOp(*values))
            regions.append(Region(block))
        types = [result.type for result in op.results]
        copy = self.builder.insert(scf.IfOp(condition, types, regions[0], regions[1]))
        for source, result in zip(op.results, copy.results, strict=True):
            self.known[-1][source] = result
        return copy.results[number]

    def chosen(
        self,
        condition: SSAValue,
        then: Callable[[], SSAValue],
        otherwise: Callable[[], SSAValue],
        source: Block,
    ) -> SSAValue:
        """A branch that gives a value."""
        regions: list[Region] = []
        type_: Attribute | None = None
        for side in (then, otherwise):
            block = Block()
            with self.within(block, source):
                value = side()
                type_ = value.type
                self.builder.insert(scf.YieldOp(value))
            regions.append(Region(block))
        assert type_ is not None
        return self.builder.insert(
            scf.IfOp(condition, [type_], regions[0], regions[1])
        ).results[0]

    def holds(self, op: FoldOp, index: SSAValue) -> SSAValue:
        """Whether an index is in a fold's domain."""
        assert op.domain is not None
        values = (index, *(self.value(v) for v in op.domain_arguments))
        return emit_set(op.domain.data, values, self.builder)

    def _fold(self, op: FoldOp) -> SSAValue:
        """A fold as a loop of scalars, from the last index down."""
        lower, upper = self.value(op.lower), self.value(op.upper)
        start = self.lowering.start_of(op, lower, upper, self)
        block = Block(arg_types=[IndexType(), op.result.type])
        zero = self.builder.insert(constant(0, IndexType())).result
        one = self.builder.insert(constant(1, IndexType())).result
        last = self.builder.insert(arith.SubiOp(upper, one)).result
        count = self.builder.insert(arith.SubiOp(upper, lower)).result
        source, terminator = body_of(op.body)
        with self.within(block, source):
            position, so_far = block.args
            index = self.builder.insert(arith.SubiOp(last, position)).result
            self.known[-1][source.args[0]] = index

            def combined() -> SSAValue:
                element = self.value(terminator.values[0])
                return self.lowering.combined(op, element, so_far, self.builder)

            if op.domain is not None:
                holds = self.holds(op, index)
                result = self.chosen(holds, combined, lambda: so_far, source)
            elif op.initial is None and not has_identity(op.function):
                is_first = arith.CmpiOp(position, zero, "eq")
                result = self.chosen(
                    self.builder.insert(is_first).result,
                    lambda: self.value(terminator.values[0]),
                    combined,
                    source,
                )
            else:
                result = combined()
            self.builder.insert(scf.YieldOp(result))
        loop = scf.ForOp(zero, count, one, [start], Region(block))
        return self.builder.insert(loop).results[0]

    def _in_bounds(self, op: InBoundsOp) -> SSAValue:
        index, extent = self.value(op.index), self.value(op.extent)
        inside = self.builder.insert(arith.CmpiOp(index, extent, "ult")).result
        if self.lowering.checks:
            self.builder.insert(cf.AssertOp(inside, op.message.data))
            return index
        zero = self.builder.insert(constant(0, IndexType()))
        return self.builder.insert(arith.SelectOp(inside, index, zero)).result
