"""Building blocks of linalg on tensors: axes, arrays over them, generic operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects import arith, tensor
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AffineMapAttr,
    AnyFloat,
    IndexType,
    IntegerAttr,
    IntegerType,
    TensorType,
    i1,
)
from xdsl.dialects.linalg.attrs import IteratorType, IteratorTypeAttr
from xdsl.dialects.linalg.ops import FillOp, GenericOp, IndexOp, YieldOp
from xdsl.dialects.utils import split_dynamic_index_list
from xdsl.ir import Attribute, Block, OpResult, Region, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.scalar_code import constant
from moa_dialect.types import element_of, memory_element, shape_of

Size = SSAValue | int
"""An extent or an offset: a value of type index, or a number."""


@dataclass(frozen=True, eq=False)
class Axis:
    """A loop of linalg operations: the indices `offset <= index < offset + extent`."""

    extent: Size
    offset: Size = 0

    @property
    def static(self) -> int:
        """The extent as a tensor type has it."""
        return self.extent if isinstance(self.extent, int) else DYNAMIC_INDEX


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor that has a value, or the cells of one, for each index of some axes."""

    tensor: SSAValue
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Linear:
    """An index as a sum: axes with coefficients, a number, and values from outside."""

    axes: tuple[tuple[Axis, int], ...] = ()
    number: int = 0
    values: tuple[tuple[int, SSAValue], ...] = ()

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        """The sum of two indices, or the difference."""
        scaled = other.times(sign)
        return Linear(
            _collected((*self.axes, *scaled.axes)),
            self.number + scaled.number,
            (*self.values, *scaled.values),
        )

    def times(self, factor: int) -> Linear:
        """A multiple of an index."""
        return Linear(
            tuple((axis, c * factor) for axis, c in self.axes),
            self.number * factor,
            tuple((c * factor, value) for c, value in self.values),
        )


def _collected(terms: Sequence[tuple[Axis, int]]) -> tuple[tuple[Axis, int], ...]:
    total: dict[Axis, int] = {}
    for axis, factor in terms:
        total[axis] = total.get(axis, 0) + factor
    return tuple((axis, factor) for axis, factor in total.items() if factor)


def number_of(value: SSAValue) -> int | None:
    """The number that a constant of type index is."""
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
        return op.value.value.data
    return None


def as_size(value: SSAValue) -> Size:
    """A value of type index, as a number if it is one."""
    number = number_of(value)
    return value if number is None else number


def emit_size(size: Size, builder: Builder) -> SSAValue:
    """An extent or an offset as a value."""
    if isinstance(size, int):
        return builder.insert(constant(size, IndexType())).result
    return size


def add_sizes(left: Size, right: Size, builder: Builder, sign: int = 1) -> Size:
    """The sum of two sizes, or their difference."""
    if isinstance(left, int) and isinstance(right, int):
        return left + sign * right
    if right == 0:
        return left
    if left == 0 and sign == 1:
        return right
    kind = arith.AddiOp if sign == 1 else arith.SubiOp
    return builder.insert(
        kind(emit_size(left, builder), emit_size(right, builder))
    ).result


def tensor_type(axes: Sequence[Axis], element: Attribute) -> TensorType[Attribute]:
    """The type of an array over some axes."""
    return TensorType(element, [axis.static for axis in axes])


def empty(axes: Sequence[Axis], element: Attribute, builder: Builder) -> SSAValue:
    """An array over some axes without values."""
    sizes = [axis.extent for axis in axes if not isinstance(axis.extent, int)]
    type_ = tensor_type(axes, memory_element(element))
    return builder.insert(tensor.EmptyOp(sizes, type_)).results[0]


def stored(value: SSAValue, array: SSAValue, builder: Builder) -> SSAValue:
    """A scalar as the elements of an array are: truth values may take a byte there."""
    element = element_of(array.type)
    if value.type == element:
        return value
    return builder.insert(arith.ExtUIOp(value, _integer(element))).result


def loaded(value: SSAValue, builder: Builder) -> SSAValue:
    """An element of an array as a scalar; the inverse of `stored`."""
    if value.type != _BYTE:
        return value
    return builder.insert(arith.TruncIOp(value, i1)).result


_BYTE = memory_element(i1)


def _integer(type_: Attribute) -> IntegerType:
    assert isa(type_, IntegerType)
    return type_


def extracted(
    array: SSAValue, indices: Sequence[SSAValue], builder: Builder
) -> SSAValue:
    """An element of an array."""
    element = element_of(array.type)
    op = builder.insert(tensor.ExtractOp(array, indices, element))
    return loaded(op.result, builder)


def filled(axes: Sequence[Axis], value: SSAValue, builder: Builder) -> SSAValue:
    """An array over some axes that has one value everywhere."""
    target = empty(axes, value.type, builder)
    value = stored(value, target, builder)
    if isinstance(value.type, AnyFloat | IntegerType):
        fill = FillOp([value], [target], [target.type])
        return builder.insert(fill).results[0]
    block = Block(arg_types=[value.type])
    block.add_op(YieldOp(value))
    order = tuple(range(len(axes)))
    return builder.insert(
        GenericOp(
            [],
            [target],
            Region(block),
            [AffineMapAttr(_map(len(axes), [AffineDimExpr(k) for k in order]))],
            [_PARALLEL] * len(axes),
            [target.type],
        )
    ).results[0]


_PARALLEL = IteratorTypeAttr(IteratorType.PARALLEL)
_REDUCTION = IteratorTypeAttr(IteratorType.REDUCTION)


def _map(count: int, results: Sequence[AffineExpr]) -> AffineMap:
    return AffineMap(count, 0, tuple(results))


@dataclass
class Generic:
    """A `linalg.generic` under construction; `body` is where its scalars go.

    Attributes:
        axes: its loops.
        reductions: which of them fold.
        outputs: the tensors it starts from, with the axes of their dimensions.
    """

    axes: Sequence[Axis]
    reductions: Sequence[Axis]
    outputs: Sequence[tuple[SSAValue, Sequence[Axis]]]
    block: Block = field(init=False)
    body: Builder = field(init=False)
    _inputs: list[SSAValue] = field(default_factory=list[SSAValue])
    _maps: list[AffineMap] = field(default_factory=list[AffineMap])
    _scalars: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _positions: dict[Axis, SSAValue] = field(default_factory=dict[Axis, SSAValue])
    _indices: dict[Axis, SSAValue] = field(default_factory=dict[Axis, SSAValue])

    def __post_init__(self) -> None:
        self.block = Block(arg_types=[element_of(t.type) for t, _ in self.outputs])
        self.body = Builder(InsertPoint.at_end(self.block))

    @property
    def started(self) -> list[SSAValue]:
        """The elements of the outputs: what they start from, or have so far."""
        return list(map(self._loaded, self.block.args[len(self._inputs) :]))

    def _loaded(self, argument: SSAValue) -> SSAValue:
        """An argument of the body as a scalar."""
        if argument.type != _BYTE:
            return argument
        if argument not in self._scalars:
            start = Builder(InsertPoint.at_start(self.block))
            self._scalars[argument] = loaded(argument, start)
        return self._scalars[argument]

    def plain(self, axes: Sequence[Axis]) -> AffineMap:
        """The map of an array over some of the axes."""
        dims = [AffineDimExpr(self.axes.index(axis)) for axis in axes]
        return _map(len(self.axes), dims)

    def sum(self, terms: Sequence[tuple[Axis, int]]) -> AffineExpr:
        """A sum of indices as an expression of the loops."""
        total: AffineExpr = AffineConstantExpr(0)
        for number, (axis, factor) in enumerate(terms):
            term: AffineExpr = AffineDimExpr(self.axes.index(axis))
            if factor != 1:
                term = term * factor
            total = term if number == 0 else total + term
        return total

    def element(self, array: SSAValue, results: Sequence[AffineExpr]) -> SSAValue:
        """The element of an operand, by the expressions of its indices."""
        map_ = _map(len(self.axes), results)
        for number, (output, axes) in enumerate(self.outputs):
            if output is array and map_ == self.plain(axes):
                return self.started[number]
        for number, known in enumerate(zip(self._inputs, self._maps, strict=True)):
            if known[0] is array and known[1] == map_:
                return self._loaded(self.block.args[number])
        self._inputs.append(array)
        self._maps.append(map_)
        place = len(self._inputs) - 1
        return self._loaded(self.block.insert_arg(element_of(array.type), place))

    def position(self, axis: Axis) -> SSAValue:
        """Where in its range the index of an axis is, at the start of the body."""
        if axis not in self._positions:
            start = Builder(InsertPoint.at_start(self.block))
            op = start.insert(IndexOp(self.axes.index(axis)))
            self._positions[axis] = op.results[0]
        return self._positions[axis]

    def index(self, axis: Axis) -> SSAValue:
        """The index of an axis: its offset and where in its range it is."""
        if axis not in self._indices:
            position = self.position(axis)
            assert isinstance(position, OpResult)
            after = Builder(InsertPoint.after(position.op))
            index = add_sizes(position, axis.offset, after)
            assert isinstance(index, SSAValue)
            self._indices[axis] = index
        return self._indices[axis]

    def finish(self, values: Sequence[SSAValue], builder: Builder) -> list[SSAValue]:
        """Insert the operation, whose body gives these values; returns its results."""
        for axis in self.axes:
            self._cover(axis, builder)
        ends = [
            stored(value, output, self.body)
            for value, (output, _) in zip(values, self.outputs, strict=True)
        ]
        self.block.add_op(YieldOp(*ends))
        maps = [*self._maps, *(self.plain(axes) for _, axes in self.outputs)]
        kinds = [
            _REDUCTION if axis in self.reductions else _PARALLEL for axis in self.axes
        ]
        outputs = [output for output, _ in self.outputs]
        op = GenericOp(
            self._inputs,
            outputs,
            Region(self.block),
            list(map(AffineMapAttr, maps)),
            kinds,
            [output.type for output in outputs],
        )
        return list(builder.insert(op).results)

    def _cover(self, axis: Axis, builder: Builder) -> None:
        """Have an operand that tells how long an axis is."""
        dim = AffineDimExpr(self.axes.index(axis))
        maps = [*self._maps, *(self.plain(axes) for _, axes in self.outputs)]
        if not any(dim in map_.results for map_ in maps):
            (output, _), *_ = self.outputs
            type_ = tensor_type([axis], element_of(output.type))
            sizes = [] if isinstance(axis.extent, int) else [axis.extent]
            shape = builder.insert(tensor.EmptyOp(sizes, type_)).results[0]
            self.element(shape, [dim])


def slice_of(
    array: SSAValue,
    offsets: Sequence[Size],
    sizes: Sequence[Size],
    strides: Sequence[int],
    kept: Sequence[bool],
    builder: Builder,
) -> SSAValue:
    """A part of an array, without the axes that are not kept, of which it has one."""
    shape = [
        size if isinstance(size, int) else DYNAMIC_INDEX
        for size, keep in zip(sizes, kept, strict=True)
        if keep
    ]
    type_ = TensorType(element_of(array.type), shape)
    return builder.insert(
        tensor.ExtractSliceOp(array, offsets, sizes, strides, type_)
    ).result


def inserted(
    part: SSAValue,
    array: SSAValue,
    offsets: Sequence[Size],
    sizes: Sequence[Size],
    builder: Builder,
) -> SSAValue:
    """An array with a part of it replaced; the part may lack axes of extent 1."""
    static_offsets, dynamic_offsets = split_dynamic_index_list(offsets, DYNAMIC_INDEX)
    static_sizes, dynamic_sizes = split_dynamic_index_list(sizes, DYNAMIC_INDEX)
    return builder.insert(
        tensor.InsertSliceOp.get(
            part,
            array,
            static_sizes,
            static_offsets,
            [1] * len(sizes),
            dynamic_offsets,
            dynamic_sizes,
        )
    ).result


def dim_of(array: SSAValue, axis: int, builder: Builder) -> Size:
    """The extent of an axis of an array."""
    number = shape_of(array.type)[axis]
    if number >= 0:
        return number
    place = builder.insert(constant(axis, IndexType()))
    return builder.insert(tensor.DimOp(array, place)).result
