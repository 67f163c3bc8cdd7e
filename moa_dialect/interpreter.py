"""The meaning of every operation, on NumPy arrays: the reference for all stages.

Programs run at every stage up to the operational normal form, through xDSL's
interpreter. What a value is while a program runs:

- a tensor: an `np.ndarray` of the dtype of `types.dtype_of`, never written to;
- a memref: an `np.ndarray` that lies in memory as the type's layout says;
- a scalar: a NumPy scalar of that dtype, so that every step rounds as it should;
- an index: a Python `int`; a truth value: an `np.bool_`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, product
from math import prod
from typing import Any, Literal, TypeVar, cast

import numpy as np
from xdsl.dialects import func, memref, scf
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseIntOrFPElementsAttr,
    MemRefType,
    ModuleOp,
    StridedLayoutAttr,
    StringAttr,
    TensorType,
)
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    OpCounter,
    OpImpl,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_callable,
    impl_terminator,
    register_impls,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, SSAValue
from xdsl.ir.affine import AffineConstraintKind, AffineSet
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import InterpretationError
from xdsl.utils.hints import isa

from moa_dialect.algebra.layout import Order, strides
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.algebra.shape import (
    RELATIONS,
    AbsoluteOf,
    Atom,
    AxisOf,
    ElementCountOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    TrueCountOf,
    evaluate,
    failure_message,
    transpose_source_axes,
)
from moa_dialect.arguments import array_type, check_arguments, is_array_type
from moa_dialect.errors import (
    IndexRangeError,
    LayoutError,
    MoaError,
    ShapeError,
    precondition_error,
)
from moa_dialect.ops.addresses import GammaInverseOp, GammaOp, ProductOp
from moa_dialect.ops.base import ArrayOperation
from moa_dialect.ops.blocks import InsertOp, PadOp
from moa_dialect.ops.computational import (
    CastOp,
    InnerOp,
    MapOp,
    OmegaOp,
    OuterOp,
    PointwiseOp,
    ReduceOp,
    ScanOp,
    WhereOp,
)
from moa_dialect.ops.extents import (
    described,
    equal_by_name,
    extent_names,
)
from moa_dialect.ops.function import FunctionAttr, lookup_function, print_name
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
from moa_dialect.ops.rearranging import (
    CatOp,
    CompressOp,
    DropOp,
    ExpandOp,
    GradeDownOp,
    GradeUpOp,
    RavelOp,
    RecycleOp,
    ReshapeOp,
    ReverseOp,
    RotateOp,
    TakeOp,
)
from moa_dialect.ops.structural import (
    CellOp,
    ConstantOp,
    DimOp,
    IotaOp,
    PsiOp,
    ShapeOp,
    TotalOp,
    TransposeOp,
)
from moa_dialect.scalar_semantics import (
    ARRAY_FUNCTIONS,
    SCALAR_FUNCTIONS,
    ScalarCode,
    convert,
    element_at,
    once,
    scalar_of,
)
from moa_dialect.types import (
    array_of,
    dtype_of,
    element_of,
    identity_value,
    kind_of,
    shape_of,
)

T = TypeVar("T")
ArrayOperationT = TypeVar("ArrayOperationT", bound=ArrayOperation)


# Running a module


def interpret_module(
    module: ModuleOp,
    entry: str,
    arrays: Sequence[np.ndarray],
    listener: Interpreter.Listener | None = None,
) -> tuple[np.ndarray, ...]:
    """Run one function of a module on arrays.

    Tensor arguments and results are arrays of the type's shape and dtype, scalars are
    arrays of rank 0. A memref argument with the attribute `moa.result` is an output: it
    is allocated, its dynamic extents given by the function `<entry>.extents` of the
    inputs, and returned. An argument `moa.status` is not used: errors are raised.

    Args:
        module: the module, at any stage up to the operational normal form.
        entry: the name of the function.
        arrays: its inputs, none of which is converted or written to.
        listener: observes every operation that is executed.

    Returns:
        Fresh arrays: the outputs, then what the function returns.

    Raises:
        MoaError: if there is no such function, the number of inputs is wrong, or an
            operation has no meaning here.
        DTypeError: if an input has another dtype than its type.
        ShapeError: if ranks or extents do not fit, at the call or inside the program.
        IndexRangeError: if an index is not within the extent it indexes.
    """
    function = _find_entry(module, entry)
    interpreter = Interpreter(module, listeners=() if listener is None else (listener,))
    register_implementations(interpreter)
    with np.errstate(all="ignore"):
        try:
            return _run_entry(interpreter, function, arrays)
        except InterpretationError as error:
            raise MoaError(f"{entry}: cannot be interpreted: {error}") from error
        except MoaError as error:
            vars(error).pop("__notes__", None)  # the program, which xDSL adds
            raise


def count_operations(
    module: ModuleOp, entry: str, arrays: Sequence[np.ndarray]
) -> Counter[str]:
    """How often an operation of each name is executed when a function runs on arrays.

    Raises:
        MoaError: as `interpret_module`.
    """
    counter = OpCounter()
    interpret_module(module, entry, arrays, counter)
    return counter.ops


def register_implementations(interpreter: Interpreter) -> None:
    """Give an xDSL interpreter the meaning of all operations of this module."""
    for functions in (
        _Algebra(),
        _NormalForm(),
        _OperationalForm(),
        ScalarCode(),
        _Functions(),
        _ControlFlow(),
        _Memory(),
    ):
        interpreter.register_implementations(functions)


def _find_entry(module: ModuleOp, entry: str) -> func.FuncOp:
    public: list[str] = []
    for op in module.ops:
        if isinstance(op, func.FuncOp) and not op.is_declaration:
            if op.sym_name.data == entry:
                if (count := len(op.body.blocks)) > 1:
                    raise MoaError(f"{entry}: expected one block, got {count}")
                return op
            if op.sym_visibility is None or op.sym_visibility.data == "public":
                public.append(op.sym_name.data)
    expected = f"one of {', '.join(public)}" if public else "a function, there is none"
    raise MoaError(f"unknown entry '{entry}': expected {expected}")


def _run_entry(
    interpreter: Interpreter, function: func.FuncOp, arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    entry = function.sym_name.data
    outputs = _marked(function, "moa.result")
    status = _marked(function, "moa.status")
    arguments = function.body.block.args
    inputs = [a for a in arguments if a not in outputs and a not in status]
    types = [argument.type for argument in inputs]
    names = [a.name_hint or f"arg{number}" for number, a in enumerate(inputs)]
    check_arguments(entry, names, list(map(array_type, types)), arrays)
    _check_extent_names(function, inputs, arrays)
    values = tuple(map(_as_value, arrays, types))
    allocated = _allocate_outputs(interpreter, entry, outputs, values)
    unused = [_allocate(argument.type, []) for argument in status]
    returned = interpreter.call_op(function, (*values, *allocated, *unused))
    results = zip(returned, function.function_type.outputs, strict=True)
    return (
        *allocated,
        *(np.array(value, array_type(type_)[0]) for value, type_ in results),
    )


def _check_extent_names(
    function: func.FuncOp,
    inputs: Sequence[BlockArgument],
    arrays: Sequence[np.ndarray],
) -> None:
    """Check that extents of one name are equal."""
    shapes = {a: array.shape for a, array in zip(inputs, arrays, strict=True)}
    for given, expected, message in equal_by_name(extent_names(function)):
        n, m = (shapes[cast(BlockArgument, e.value)][e.axis] for e in (given, expected))
        if n != m:
            raise ShapeError(failure_message("eq", message, n, m))


def _marked(function: func.FuncOp, name: str) -> list[BlockArgument]:
    """The arguments that carry an attribute of this name."""
    attributes = function.arg_attrs or ()
    return [
        argument
        for argument, given in zip(function.body.block.args, attributes, strict=False)
        if name in given.data
    ]


def _as_value(array: np.ndarray, type_: Attribute) -> Any:
    """What an argument of this type is while the program runs."""
    if isa(type_, MemRefType):
        placed = np.asarray(array, order=_memory_order(type_)).view()
        placed.flags.writeable = False
        return placed
    return array if is_array_type(type_) else element_at(array, (), type_)


def _memory_order(type_: MemRefType) -> Literal["C", "F"]:
    """Row-major for the identity layout, column-major for an explicit one."""
    return "F" if isinstance(type_.layout, StridedLayoutAttr) else "C"


def _allocate_outputs(
    interpreter: Interpreter,
    entry: str,
    outputs: Sequence[BlockArgument],
    inputs: tuple[Any, ...],
) -> tuple[np.ndarray, ...]:
    types = [argument.type for argument in outputs]
    count = sum(shape_of(type_).count(DYNAMIC_INDEX) for type_ in types)
    dynamic: list[int] = []
    if count:
        try:
            extents = interpreter.get_op_for_symbol(f"{entry}.extents")
        except InterpretationError:
            raise MoaError(
                f"{entry}: the outputs have dynamic extents, "
                f"which need a function {entry}.extents"
            ) from None
        dynamic.extend(interpreter.call_op(extents, inputs))
    if len(dynamic) != count:
        raise MoaError(f"{entry}.extents: expected {count} extents, got {len(dynamic)}")
    return tuple(_allocate(type_, dynamic) for type_ in types)


def _allocate(type_: Attribute, dynamic: list[int]) -> np.ndarray:
    """Memory for a memref, whose dynamic extents are taken from the list."""
    assert isa(type_, MemRefType)
    shape = [
        dynamic.pop(0) if extent == DYNAMIC_INDEX else extent
        for extent in type_.get_shape()
    ]
    return _poisoned(shape, dtype_of(type_.element_type), _memory_order(type_))


def _poisoned(
    shape: Sequence[int], dtype: np.dtype, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    """Memory whose elements nobody mistakes for results, should they be read."""
    if dtype == np.bool_:
        return np.full(shape, True, dtype, order)
    is_integer = np.issubdtype(dtype, np.integer)
    return np.full(shape, -0x5A5A5A5A if is_integer else np.nan, dtype, order)


# Running regions


class _Body:
    """A block of a region, ready to be run many times.

    All regions of a function share the function's scope: every value of a block is
    set before it is used, each time the block is run.
    """

    def __init__(self, block: Block, wanted: Sequence[int] | None = None):
        """A block, or as much of it as the yielded values `wanted` need."""
        *ops, self.terminator = block.ops
        self.arguments = tuple(block.args)
        self.yielded = tuple(self.terminator.operands)
        self.is_whole = wanted is None
        if wanted is not None:
            self.yielded = tuple(self.yielded[number] for number in wanted)
            ops = needed(block, self.yielded)
        self.steps = [(op, tuple(op.operands), tuple(op.results)) for op in ops]

    def run(self, interpreter: Interpreter, arguments: PythonValues) -> PythonValues:
        """The values that the block's terminator is given."""
        interpreter.set_values(zip(self.arguments, arguments, strict=True))
        for op, operands, results in self.steps:
            values = interpreter.run_op(op, interpreter.get_values(operands))
            interpreter.set_values(zip(results, values, strict=True))
        values = interpreter.get_values(self.yielded)
        if interpreter.listeners and self.is_whole:
            interpreter.run_op(self.terminator, values)
        return values


def _body(interpreter: Interpreter, block: Block) -> _Body:
    return once(interpreter, block, lambda: _Body(block))


# Functions of elements


def _scalar_function(
    interpreter: Interpreter, op: Operation, function: FunctionAttr, element: Attribute
) -> Callable[[Any, Any], Any]:
    """A function of two elements as a function of scalars."""
    if isinstance(function, StringAttr):
        name = function.data
        return SCALAR_FUNCTIONS.get((name, kind_of(element)), ARRAY_FUNCTIONS[name])
    callee = lookup_function(op, function)
    return lambda lhs, rhs: interpreter.call_op(callee, (lhs, rhs))[0]


def _array_function(
    interpreter: Interpreter, op: Operation, function: FunctionAttr
) -> Callable[..., np.ndarray]:
    """A function of elements as a function of arrays, whose shapes are broadcast."""
    if isinstance(function, StringAttr):
        return ARRAY_FUNCTIONS[function.data]
    callee = lookup_function(op, function)
    elements = callee.function_type.inputs.data
    (result,) = callee.function_type.outputs.data

    def apply(*arrays: np.ndarray) -> np.ndarray:
        arrays = np.broadcast_arrays(*arrays)
        values = np.empty(arrays[0].shape, dtype_of(result))
        for index in np.ndindex(values.shape):
            scalars = map(element_at, arrays, [index] * len(arrays), elements)
            (values[index],) = interpreter.call_op(callee, tuple(scalars))
        return values

    return apply


def _identity(function: FunctionAttr, element: Attribute) -> float | int:
    """The identity element of the function of a fold over nothing.

    Raises:
        ShapeError: if it has none.
    """
    if isinstance(function, StringAttr):
        identity = SCALAR_OPERATIONS[function.data].identity
        if identity is not None:
            return identity_value(identity, element)
    message = (
        f"fold: {print_name(function)} has no identity element, "
        f"so the folded axis must not be empty"
    )
    raise ShapeError(failure_message("ge", message, 0, 1))


def _identities(
    shape: Sequence[int], function: FunctionAttr, element: Attribute
) -> np.ndarray:
    return np.full(shape, _identity(function, element), dtype_of(element))


def _fold_from_last(
    elements: Iterator[T], combine: Callable[[T, T], T], empty: Callable[[], T]
) -> T:
    """The right fold of elements that are given from the last to the first."""
    for result in elements:
        for element in elements:
            result = combine(element, result)
        return result
    return empty()


# Extents and indices


def _pairs(counts: np.ndarray, array: np.ndarray) -> list[tuple[int, int]]:
    """Counts, as of take or drop, with the extents of the axes they are for."""
    numbers = [int(count) for count in np.atleast_1d(counts)]
    return list(zip(numbers, array.shape, strict=False))


def _check_index(message: str, index: int, extent: int) -> None:
    if index < 0:
        raise IndexRangeError(failure_message("ge", message, index, 0))
    if index >= extent:
        raise IndexRangeError(failure_message("lt", message, index, extent))


def _check_indices(name: str, indices: Sequence[int], shape: Sequence[int]) -> None:
    for axis, (index, extent) in enumerate(zip(indices, shape, strict=False)):
        if not 0 <= index < extent:
            entry = f"{name}: index entry {axis} out of range of axis {axis}"
            _check_index(entry, index, extent)


def _extent(operands: PythonValues, extent: Extent) -> int:
    """The number an extent stands for, given the operands' values."""
    number = evaluate(extent, lambda atom: _atom(operands, atom))
    assert number is not None
    return number


def _atom(operands: PythonValues, atom: Atom) -> int:
    match atom:
        case Fixed(value):
            return value
        case AxisOf(operand, axis):
            return operands[operand].shape[axis]
        case ElementCountOf(operand):
            return min(1, operands[operand].size)
        case ElementOf(operand, position):
            return int(operands[operand].flat[position])
        case AbsoluteOf(operand, position):
            return abs(int(operands[operand].flat[position]))
        case TrueCountOf(operand):
            return int(np.count_nonzero(operands[operand]))


def _check_requirements(
    interpreter: Interpreter, op: ArrayOperation, operands: PythonValues
) -> None:
    error = IndexRangeError if isinstance(op, PsiOp) else precondition_error
    for r in once(interpreter, ("requirements", op), op.requirements):
        given, expected = _extent(operands, r.given), _extent(operands, r.expected)
        if not RELATIONS[r.relation](given, expected):
            message = described(r, op.operands)
            raise error(failure_message(r.relation, message, given, expected))


def _result(result: OpResult, values: Any) -> np.ndarray:
    """An operation's result as an array of the type it states.

    Raises:
        ShapeError: if the type states another extent.
    """
    array = np.asarray(values)
    assert array.dtype == dtype_of(element_of(result.type)), (result, array.dtype)
    for axis, stated in enumerate(shape_of(result.type)):
        if stated not in (DYNAMIC_INDEX, given := array.shape[axis]):
            message = f"{result.op.name}: the result type states the extent of axis "
            message += str(axis)
            if isinstance(result.op, ArrayOperation):
                extent = result.op.result_extents()[axis]
                r = Requirement("eq", extent, Fixed(stated), message)
                message = described(r, result.op.operands)
            raise ShapeError(failure_message("eq", message, given, stated))
    return array


def _unrun_shape(
    interpreter: Interpreter, value: SSAValue, body: Block
) -> tuple[int, ...]:
    """The shape of the arrays that a body would yield that is run for no index.

    Raises:
        ShapeError: if it cannot be known without an index.
    """
    type_ = value.type
    if not isa(type_, TensorType):
        return ()
    if not _is_inside(value, body):
        return interpreter.get_values((value,))[0].shape
    if DYNAMIC_INDEX not in type_.get_shape():
        return type_.get_shape()
    match value.owner:
        case ComprehensionOp() as op:
            yielded = body_of(op.body)[1].values[op.results.index(value)]
            extents = [_unrun_index(interpreter, e, body) for e in op.extents]
            shape = (*extents, *_unrun_shape(interpreter, yielded, body))
            return _placed(shape, op.positions(len(shape)))
        case FoldOp() as op:
            return _unrun_shape(interpreter, body_of(op.body)[1].values[0], body)
        case CascadeOp() as op:
            assert isinstance(value, OpResult)
            return _unrun_shape(interpreter, op.defining(value), body)
        case owner:
            name = owner.name if isinstance(owner, Operation) else "an argument"
            raise ShapeError(
                f"the shape of an empty array's cells is not known from {name}"
            )


def _unrun_index(interpreter: Interpreter, value: SSAValue, body: Block) -> int:
    if not _is_inside(value, body):
        return interpreter.get_values((value,))[0]
    op = value.owner
    if isinstance(op, ExtentOp):
        return _unrun_shape(interpreter, op.array, body)[op.axis_number]
    if isinstance(op, Block) or op.regions:
        raise ShapeError("the shape of cells must not depend on their index")
    operands = [_unrun_index(interpreter, operand, body) for operand in op.operands]
    return interpreter.run_op(op, tuple(operands))[0]


def _is_inside(value: SSAValue, body: Block) -> bool:
    block = value.owner if isinstance(value.owner, Block) else value.owner.parent
    while block is not None and block is not body:
        block = block.parent_block()
    return block is body


def _placed(shape: Sequence[int], positions: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in transpose_source_axes(positions))


# The algebra


def _algebra(
    op_type: type[ArrayOperationT],
) -> Callable[
    [Callable[[Any, Interpreter, ArrayOperationT, PythonValues], Any]],
    OpImpl[Any, ArrayOperationT],
]:
    """An operation's function of arrays, behind the checks that all have in common."""

    def decorate(
        compute: Callable[[Any, Interpreter, ArrayOperationT, PythonValues], Any],
    ) -> OpImpl[Any, ArrayOperationT]:
        def run(
            self: Any, interpreter: Interpreter, op: ArrayOperationT, args: PythonValues
        ) -> PythonValues:
            _check_requirements(interpreter, op, args)
            return (_result(op.array_result, compute(self, interpreter, op, args)),)

        return impl(op_type)(run)

    return decorate


@register_impls
class _Algebra(InterpreterFunctions):
    @_algebra(ConstantOp)
    def constant(self, interpreter: Interpreter, op: ConstantOp, args: PythonValues):
        return once(interpreter, op, lambda: array_of(op.value))

    @_algebra(IotaOp)
    def iota(self, interpreter: Interpreter, op: IotaOp, args: PythonValues) -> Any:
        (extents,) = args
        if extents.ndim == 0:
            return np.arange(extents, dtype=np.int64)
        return np.moveaxis(np.indices(tuple(extents), np.int64), 0, -1)

    @_algebra(ShapeOp)
    def shape(self, interpreter: Interpreter, op: ShapeOp, args: PythonValues):
        return np.array(args[0].shape, np.int64)

    @_algebra(DimOp)
    def dim(self, interpreter: Interpreter, op: DimOp, args: PythonValues):
        return np.int64(args[0].ndim)

    @_algebra(TotalOp)
    def total(self, interpreter: Interpreter, op: TotalOp, args: PythonValues):
        return np.int64(args[0].size)

    @_algebra(ProductOp)
    def product(self, interpreter: Interpreter, op: ProductOp, args: PythonValues):
        (array,) = args
        element = element_of(op.result.type)
        return _fold_from_last(
            (array[(k, ...)] for k in reversed(range(len(array)))),
            ARRAY_FUNCTIONS["mul"],
            lambda: _identities((), StringAttr("mul"), element),
        )

    @_algebra(GammaOp)
    def gamma(self, interpreter: Interpreter, op: GammaOp, args: PythonValues):
        index, shape = args
        extents = [int(extent) for extent in shape]
        wrong = np.argwhere((index < 0) | (index >= shape))
        if len(wrong):
            _check_indices("gamma", index[tuple(wrong[0][:-1])].tolist(), extents)
        steps = np.array(strides(extents, op.layout), np.int64)
        return np.sum(index * steps, axis=-1, dtype=np.int64)

    @_algebra(GammaInverseOp)
    def gamma_inverse(
        self, interpreter: Interpreter, op: GammaInverseOp, args: PythonValues
    ):
        address, shape = args
        extents = [int(extent) for extent in shape]
        for wrong in address[(address < 0) | (address >= prod(extents))]:
            message = "gamma_inverse: the address is out of range"
            _check_index(message, int(wrong), prod(extents))
        steps = strides(extents, op.layout)
        entries = [
            address // max(step, 1) % max(extent, 1)
            for step, extent in zip(steps, extents, strict=True)
        ]
        result = np.empty((*address.shape, len(extents)), np.int64)
        for axis, entry in enumerate(entries):
            result[..., axis] = entry
        return result

    @_algebra(PsiOp)
    def psi(self, interpreter: Interpreter, op: PsiOp, args: PythonValues):
        index, array = args
        length = op.index_length
        extents = array.shape[:length]
        wrong = np.argwhere((index < 0) | (index >= np.array(extents, np.int64)))
        if len(wrong):
            # The first index that has one decides, as if they were tried in order.
            _check_indices("psi", index[tuple(wrong[0][:-1])].tolist(), extents)
        if length == 0:
            return np.broadcast_to(array, (*index.shape[:-1], *array.shape))
        return array[tuple(np.moveaxis(index, -1, 0))]

    @_algebra(CellOp)
    def cell(self, interpreter: Interpreter, op: CellOp, args: PythonValues):
        array, *index = args
        _check_indices("cell", index, array.shape)
        return array[(*index, ...)]

    @_algebra(TransposeOp)
    def transpose(self, interpreter: Interpreter, op: TransposeOp, args: PythonValues):
        return np.transpose(args[0], transpose_source_axes(op.axes))

    @_algebra(TakeOp)
    def take(self, interpreter: Interpreter, op: TakeOp, args: PythonValues):
        counts, array = args
        kept = [
            slice(c) if c >= 0 else slice(n + c, n) for c, n in _pairs(counts, array)
        ]
        return array[tuple(kept)]

    @_algebra(DropOp)
    def drop(self, interpreter: Interpreter, op: DropOp, args: PythonValues):
        counts, array = args
        kept = [
            slice(c, n) if c >= 0 else slice(n + c) for c, n in _pairs(counts, array)
        ]
        return array[tuple(kept)]

    @_algebra(CatOp)
    def cat(self, interpreter: Interpreter, op: CatOp, args: PythonValues):
        larger = max(args, key=np.ndim)
        plane = (1, *larger.shape[1:])
        parts = [a if a.ndim else np.broadcast_to(a, plane) for a in args]
        return np.concatenate(parts)

    @_algebra(ReverseOp)
    def reverse(self, interpreter: Interpreter, op: ReverseOp, args: PythonValues):
        (array,) = args
        return array[::-1] if array.ndim else array

    @_algebra(RotateOp)
    def rotate(self, interpreter: Interpreter, op: RotateOp, args: PythonValues):
        count, array = args
        return np.roll(array, -int(count), axis=0)

    @_algebra(ReshapeOp)
    def reshape(self, interpreter: Interpreter, op: ReshapeOp, args: PythonValues):
        shape, array = args
        return array.reshape([int(extent) for extent in shape])

    @_algebra(RecycleOp)
    def recycle(self, interpreter: Interpreter, op: RecycleOp, args: PythonValues):
        shape, array = args
        extents = [int(extent) for extent in shape]
        addresses = np.arange(prod(extents)) % max(array.size, 1)
        return array.reshape(-1)[addresses].reshape(extents)

    @_algebra(PadOp)
    def pad(self, interpreter: Interpreter, op: PadOp, args: PythonValues):
        left, right, array = args
        sides = zip(_pairs(left, array), _pairs(right, array), strict=True)
        for axis, ((before, extent), (after, _)) in enumerate(sides):
            places = [i % extent for i in range(-before, extent + after)]
            array = np.take(array, np.array(places, np.int64), axis)
        return array

    @_algebra(InsertOp)
    def insert(self, interpreter: Interpreter, op: InsertOp, args: PythonValues):
        offsets, block, array = args
        result = array.copy()
        places = [slice(o, o + n) for o, n in _pairs(offsets, block)]
        result[tuple(places)] = block
        return result

    @_algebra(RavelOp)
    def ravel(self, interpreter: Interpreter, op: RavelOp, args: PythonValues):
        return args[0].reshape(-1)

    @_algebra(CompressOp)
    def compress(self, interpreter: Interpreter, op: CompressOp, args: PythonValues):
        mask, array = args
        return array[np.flatnonzero(mask)]

    @_algebra(ExpandOp)
    def expand(self, interpreter: Interpreter, op: ExpandOp, args: PythonValues):
        mask, array = args
        result = np.zeros((len(mask), *array.shape[1:]), array.dtype)
        result[np.flatnonzero(mask)] = array
        return result

    @_algebra(GradeUpOp)
    def grade_up(self, interpreter: Interpreter, op: GradeUpOp, args: PythonValues):
        return np.argsort(args[0], kind="stable")

    @_algebra(GradeDownOp)
    def grade_down(self, interpreter: Interpreter, op: GradeDownOp, args: PythonValues):
        # Reversed twice: equal elements stay in their order.
        (array,) = args
        return len(array) - 1 - np.argsort(array[::-1], kind="stable")[::-1]

    @_algebra(ScanOp)
    def scan(self, interpreter: Interpreter, op: ScanOp, args: PythonValues):
        (array,) = args
        apply = _array_function(interpreter, op, op.function)
        result = np.empty_like(array)
        for k in range(len(array)):
            planes = (array[(p, ...)] for p in reversed(range(k + 1)))
            result[k] = _fold_from_last(planes, apply, lambda: array[0])
        return result

    @_algebra(PointwiseOp)
    def pointwise(self, interpreter: Interpreter, op: PointwiseOp, args: PythonValues):
        return _array_function(interpreter, op, op.function)(*args)

    @_algebra(MapOp)
    def map(self, interpreter: Interpreter, op: MapOp, args: PythonValues):
        return _array_function(interpreter, op, op.function)(*args)

    @_algebra(CastOp)
    def cast(self, interpreter: Interpreter, op: CastOp, args: PythonValues):
        return convert(args[0], dtype_of(op.result_element()))

    @_algebra(WhereOp)
    def where(self, interpreter: Interpreter, op: WhereOp, args: PythonValues):
        return cast(Callable[..., np.ndarray], np.where)(*args)

    @_algebra(ReduceOp)
    def reduce(self, interpreter: Interpreter, op: ReduceOp, args: PythonValues):
        (array,) = args
        element = element_of(op.result.type)
        return _fold_from_last(
            (array[(k, ...)] for k in reversed(range(array.shape[0]))),
            _array_function(interpreter, op, op.function),
            lambda: _identities(array.shape[1:], op.function, element),
        )

    @_algebra(OuterOp)
    def outer(self, interpreter: Interpreter, op: OuterOp, args: PythonValues):
        lhs, rhs = args
        apply = _array_function(interpreter, op, op.function)
        return apply(lhs[(..., *[None] * rhs.ndim)], rhs)

    @_algebra(InnerOp)
    def inner(self, interpreter: Interpreter, op: InnerOp, args: PythonValues):
        lhs, rhs = args
        apply = _array_function(interpreter, op, op.function)
        element = element_of(op.result.type)
        shape = (*lhs.shape[:-1], *rhs.shape[1:])
        return _fold_from_last(
            (
                apply(lhs[(..., k, *[None] * (rhs.ndim - 1))], rhs[(k, ...)])
                for k in reversed(range(rhs.shape[0]))
            ),
            _array_function(interpreter, op, op.combine),
            lambda: _identities(shape, op.combine, element),
        )

    @_algebra(OmegaOp)
    def omega(self, interpreter: Interpreter, op: OmegaOp, args: PythonValues):
        frame_ranks, cell_ranks = op.frame_ranks, op.cell_ranks
        depth, width = max(frame_ranks), max(cell_ranks)
        function = op.cell_function()
        if function is None:
            apply = _array_function(interpreter, op, op.function)
            return apply(
                *(
                    array.reshape(
                        (1,) * (depth - frame)
                        + array.shape[:frame]
                        + (1,) * (width - cell)
                        + array.shape[frame:]
                    )
                    for array, frame, cell in zip(
                        args, frame_ranks, cell_ranks, strict=True
                    )
                )
            )
        shape = [_extent(args, extent) for extent in op.result_extents()]
        values = np.empty(shape, dtype_of(element_of(op.result.type)))
        for index in np.ndindex(*shape[:depth]):
            # Frames are aligned at their last axes.
            cells = (
                array[(*index[depth - frame :], ...)]
                for array, frame in zip(args, frame_ranks, strict=True)
            )
            (values[index],) = interpreter.call_op(function, tuple(cells))
        return values


# The denotational normal form


def _combining(
    interpreter: Interpreter, op: Operation, function: FunctionAttr, type_: Attribute
) -> Callable[[Any, Any], Any]:
    """A function of elements as a function of two scalars, or arrays of one shape."""
    if is_array_type(type_):
        return _of_equal_shapes(_array_function(interpreter, op, function))
    return _scalar_function(interpreter, op, function, type_)


class _Fold:
    """What does not change between the runs of a fold."""

    def __init__(self, interpreter: Interpreter, op: FoldOp):
        self.op = op
        self.body = _body(interpreter, op.body.block)
        self.domain = None if op.domain is None else op.domain.data
        self.element = cell_element(op.result.type)
        self.combine = _combining(interpreter, op, op.function, op.result.type)

    def run(self, interpreter: Interpreter, args: PythonValues) -> Any:
        """The right fold over the indices of the domain."""
        lower, upper, *arguments = args
        domain = self.domain
        first = [] if self.op.initial is None else [arguments.pop()]
        return _fold_from_last(
            chain(
                first,
                (
                    self.body.run(interpreter, (k,))[0]
                    for k in reversed(range(lower, upper))
                    if domain is None or _is_in(domain, (k, *arguments))
                ),
            ),
            self.combine,
            lambda: self.empty(interpreter),
        )

    def empty(self, interpreter: Interpreter) -> Any:
        """The fold over no index."""
        function, block = self.op.function, self.op.body.block
        if not is_array_type(self.op.result.type):
            return scalar_of(_identity(function, self.element), self.element)
        shape = _unrun_shape(interpreter, self.body.yielded[0], block)
        return _identities(shape, function, self.element)


class _CascadeGroup:
    """What does not change between the runs of a cascade: one group's functions."""

    def __init__(self, interpreter: Interpreter, op: CascadeOp, view: CascadeView):
        self.view = view
        self.part = _Body(view.part.block)
        self.own = view.own_accumulators()
        self.own_part = _Body(view.part.block, self.own)
        self.pivot = None if view.pivot is None else _Body(view.pivot.block)
        self.move = None if view.move is None else _Body(view.move.block)
        self.combine = [
            _combining(interpreter, op, function, result.type)
            for function, result in zip(view.functions, view.accumulators, strict=True)
        ]

    def added(
        self,
        interpreter: Interpreter,
        rows: Sequence[PythonValues],
        pivots: PythonValues,
        accumulators: PythonValues | None,
        own: bool = False,
    ) -> PythonValues | None:
        """Accumulators with what some indices contribute, the last index first.

        Nothing accumulated yet is None: the first contribution is taken as it is. With
        `own` it is only those that the pivots are computed from.
        """
        part, combine = self.part, self.combine
        if own:
            part, combine = self.own_part, [combine[k] for k in self.own]
        for row in rows:
            new = part.run(interpreter, (*row, *pivots))
            if accumulators is not None:
                pairs = zip(combine, new, accumulators, strict=True)
                new = tuple(apply(x, a) for apply, x, a in pairs)
            accumulators = new
        return accumulators

    def step(
        self,
        interpreter: Interpreter,
        rows: Sequence[PythonValues],
        counts: tuple[int, int],
        earlier: PythonValues,
        state: tuple[PythonValues, PythonValues | None],
    ) -> tuple[PythonValues, PythonValues | None]:
        """Pivots and accumulators after these indices; counts before and after."""
        old, accumulators = state
        before, count = counts
        if self.pivot is None or self.move is None:
            return old, self.added(interpreter, rows, old, accumulators)
        own: list[Any] = [None] * len(self.combine)
        if self.own:
            so_far = None
            if accumulators is not None:
                so_far = tuple(accumulators[k] for k in self.own)
            known = self.added(interpreter, rows, old, so_far, own=True)
            assert known is not None
            for number, value in zip(self.own, known, strict=True):
                own[number] = value
        new = self.pivot.run(interpreter, (count, *earlier, *old, *own))
        if accumulators is not None:
            arguments = (before, *old, *new, *accumulators)
            accumulators = self.move.run(interpreter, arguments)
        return new, self.added(interpreter, rows, new, accumulators)

    def empty(self, interpreter: Interpreter) -> PythonValues:
        """The accumulators of no index: the identity elements."""
        values: list[Any] = []
        block = self.view.part.block
        for function, result, value in zip(
            self.view.functions, self.view.accumulators, self.part.yielded, strict=True
        ):
            element = cell_element(result.type)
            if is_array_type(result.type):
                shape = _unrun_shape(interpreter, value, block)
                values.append(_identities(shape, function, element))
            else:
                values.append(scalar_of(_identity(function, element), element))
        return tuple(values)


class _Cascade:
    """What does not change between the runs of a cascade."""

    def __init__(self, interpreter: Interpreter, op: CascadeOp):
        self.data = _Body(op.data.block)
        self.chunk = op.chunk_length
        self.groups = [_CascadeGroup(interpreter, op, view) for view in op.views()]

    def run(self, interpreter: Interpreter, args: PythonValues) -> PythonValues:
        """All accumulators, then all pivots."""
        lower, upper, *starts = args
        state: list[tuple[PythonValues, PythonValues | None]] = []
        for group in self.groups:
            count = len(group.view.pivots)
            state.append((tuple(starts[:count]), None))
            del starts[:count]
        for high in range(upper, lower, -self.chunk):
            low = max(high - self.chunk, lower)
            rows = [
                (index, *self.data.run(interpreter, (index,)))
                for index in range(high - 1, low - 1, -1)
            ]
            counts = upper - high, upper - low
            earlier: PythonValues = ()
            for number, group in enumerate(self.groups):
                pivots, accumulators = group.step(
                    interpreter, rows, counts, earlier, state[number]
                )
                state[number] = pivots, accumulators
                earlier = (*earlier, *pivots, *(accumulators or ()))
        found = [
            group.empty(interpreter) if accumulators is None else accumulators
            for group, (_, accumulators) in zip(self.groups, state, strict=True)
        ]
        pivots = (values for values, _ in state)
        return (*chain.from_iterable(found), *chain.from_iterable(pivots))


def _of_equal_shapes(
    combine: Callable[..., np.ndarray],
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def apply(lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        if lhs.shape != rhs.shape:
            raise ShapeError(
                f"fold: all arrays must have one shape: expected {rhs.shape}, "
                f"got {lhs.shape}"
            )
        return np.asarray(combine(lhs, rhs))

    return apply


_CONSTRAINTS: dict[AffineConstraintKind, Callable[[int, int], bool]] = {
    AffineConstraintKind.eq: operator.eq,
    AffineConstraintKind.ge: operator.ge,
    AffineConstraintKind.le: operator.le,
}


def _is_in(domain: AffineSet, values: Sequence[int]) -> bool:
    dims, symbols = values[: domain.num_dims], values[domain.num_dims :]
    return all(
        _CONSTRAINTS[c.kind](c.lhs.eval(dims, symbols), c.rhs.eval(dims, symbols))
        for c in domain.constraints
    )


def _comprehended(
    interpreter: Interpreter, op: ComprehensionOp, extents: PythonValues
) -> PythonValues:
    body = _body(interpreter, op.body.block)
    yielded = [body.run(interpreter, i) for i in product(*map(range, extents))]
    arrays: list[np.ndarray] = []
    for number, (value, result) in enumerate(
        zip(body.yielded, op.results, strict=True)
    ):
        cells = [values[number] for values in yielded]
        if is_array_type(value.type):
            shapes = {cell.shape for cell in cells}
            if len(shapes) > 1:
                raise ShapeError(
                    f"comprehension: all cells must have one shape, "
                    f"got {', '.join(map(str, sorted(shapes)))}"
                )
            shape = (
                shapes.pop()
                if shapes
                else _unrun_shape(interpreter, value, op.body.block)
            )
        else:
            shape = ()
        array = np.array(cells, dtype_of(element_of(result.type)))
        array = array.reshape((*extents, *shape))
        if op.order is not None:
            array = array.transpose(transpose_source_axes(op.positions(array.ndim)))
        arrays.append(_result(result, array))
    return tuple(arrays)


@register_impls
class _NormalForm(InterpreterFunctions):
    @impl(ExtentOp)
    def extent(self, interpreter: Interpreter, op: ExtentOp, args: PythonValues):
        return (args[0].shape[op.axis_number],)

    @impl(FixedExtentOp)
    def fixed_extent(
        self, interpreter: Interpreter, op: FixedExtentOp, args: PythonValues
    ):
        return (op.static_value,)

    @impl(RequireOp)
    def require(self, interpreter: Interpreter, op: RequireOp, args: PythonValues):
        if not RELATIONS[op.relation_name](*args):
            raise precondition_error(
                failure_message(op.relation_name, op.message.data, *args)
            )
        return ()

    @impl(InBoundsOp)
    def in_bounds(self, interpreter: Interpreter, op: InBoundsOp, args: PythonValues):
        index, extent = args
        message = op.message.data
        if index < 0:
            raise precondition_error(failure_message("ge", message, index, 0))
        if index >= extent:
            raise precondition_error(failure_message("lt", message, index, extent))
        return (index,)

    @impl(AtOp)
    def at(self, interpreter: Interpreter, op: AtOp, args: PythonValues):
        array, index = args[0], args[1:]
        _check_indices("at", index, array.shape)
        return (element_at(array, index, op.results[0].type),)

    @impl(ComprehensionOp)
    def comprehension(
        self, interpreter: Interpreter, op: ComprehensionOp, args: PythonValues
    ):
        return _comprehended(interpreter, op, args)

    @impl(FoldOp)
    def fold(self, interpreter: Interpreter, op: FoldOp, args: PythonValues):
        fold = once(interpreter, op, lambda: _Fold(interpreter, op))
        return (fold.run(interpreter, args),)

    @impl(CascadeOp)
    def cascade(self, interpreter: Interpreter, op: CascadeOp, args: PythonValues):
        cascade = once(interpreter, op, lambda: _Cascade(interpreter, op))
        return cascade.run(interpreter, args)

    @impl_terminator(YieldOp)
    def yield_(self, interpreter: Interpreter, op: YieldOp, args: PythonValues):
        return _leave(args)


def _leave(values: PythonValues) -> tuple[TerminatorValue, PythonValues]:
    return ReturnedValues(values), ()


# The operational normal form


def _address(name: str, buffer: np.ndarray, start: int, terms: Sequence[int]) -> int:
    half = len(terms) // 2
    address = start + sum(map(operator.mul, terms[:half], terms[half:]))
    if not 0 <= address < len(buffer):
        _check_index(f"{name}: address out of range", address, len(buffer))
    return address


@register_impls
class _OperationalForm(InterpreterFunctions):
    @impl(RavOp)
    def rav(self, interpreter: Interpreter, op: RavOp, args: PythonValues):
        (array,) = args
        is_row = op.order.data == Order.ROW
        if not (array.flags.c_contiguous if is_row else array.flags.f_contiguous):
            raise LayoutError(
                f"rav: the array does not lie in {op.order.data} order: "
                f"shape {array.shape}, strides {array.strides}"
            )
        elements = array.reshape(-1, order="C" if is_row else "F")
        assert elements.size == 0 or np.shares_memory(elements, array)
        return (elements,)

    @impl(BufferOp)
    def buffer(self, interpreter: Interpreter, op: BufferOp, args: PythonValues):
        return (_poisoned((prod(args),), dtype_of(element_of(op.result.type))),)

    @impl(LoopOp)
    def loop(self, interpreter: Interpreter, op: LoopOp, args: PythonValues):
        body = _body(interpreter, op.body.block)
        start, stop, *carried = args
        for index in range(start, stop, op.stride_value):
            carried = body.run(interpreter, (index, *carried))
        return tuple(carried)

    @impl(LoadOp)
    def load(self, interpreter: Interpreter, op: LoadOp, args: PythonValues):
        buffer, start, *terms = args
        address = _address("load", buffer, start, terms)
        return (element_at(buffer, (address,), op.results[0].type),)

    @impl(StoreOp)
    def store(self, interpreter: Interpreter, op: StoreOp, args: PythonValues):
        value, buffer, start, *terms = args
        buffer[_address("store", buffer, start, terms)] = value
        return ()


# Functions, control flow and memory of upstream dialects


@register_impls
class _Functions(InterpreterFunctions):
    @impl_callable(func.FuncOp)
    def function(self, interpreter: Interpreter, op: func.FuncOp, args: PythonValues):
        if op.is_declaration:
            raise MoaError(f"function {op.sym_name.data} has no body")
        body = _body(interpreter, op.body.block)
        interpreter.push_scope()
        try:
            return body.run(interpreter, args)
        finally:
            interpreter.pop_scope()

    @impl(func.CallOp)
    def call(self, interpreter: Interpreter, op: func.CallOp, args: PythonValues):
        callee = once(interpreter, op, lambda: lookup_function(op, op.callee))
        return interpreter.call_op(callee, args)

    @impl_terminator(func.ReturnOp)
    def return_(self, interpreter: Interpreter, op: func.ReturnOp, args: PythonValues):
        return _leave(args)


@register_impls
class _ControlFlow(InterpreterFunctions):
    @impl(scf.ForOp)
    def for_(self, interpreter: Interpreter, op: scf.ForOp, args: PythonValues):
        lower, upper, step, *carried = args
        body = _body(interpreter, op.body.block)
        for index in range(lower, upper, step):
            carried = body.run(interpreter, (type(lower)(index), *carried))
        return tuple(carried)

    @impl(scf.IfOp)
    def if_(self, interpreter: Interpreter, op: scf.IfOp, args: PythonValues):
        region = op.true_region if args[0] else op.false_region
        if not region.blocks:
            return ()
        return _body(interpreter, region.block).run(interpreter, ())

    @impl_terminator(scf.YieldOp)
    def yield_(self, interpreter: Interpreter, op: scf.YieldOp, args: PythonValues):
        return _leave(args)


@register_impls
class _Memory(InterpreterFunctions):
    @impl(memref.AllocOp)
    def alloc(self, interpreter: Interpreter, op: memref.AllocOp, args: PythonValues):
        return (_allocate(op.memref.type, list(args)),)

    @impl(memref.AllocaOp)
    def alloca(self, interpreter: Interpreter, op: memref.AllocaOp, args: PythonValues):
        return (_allocate(op.memref.type, list(args)),)

    @impl(memref.GetGlobalOp)
    def get_global(
        self, interpreter: Interpreter, op: memref.GetGlobalOp, args: PythonValues
    ):
        found = SymbolTable.lookup_symbol(op, op.name_)
        assert isinstance(found, memref.GlobalOp)
        assert isa(found.initial_value, DenseIntOrFPElementsAttr)
        return (array_of(found.initial_value),)

    @impl(memref.DeallocOp)
    def dealloc(
        self, interpreter: Interpreter, op: memref.DeallocOp, args: PythonValues
    ):
        return ()

    @impl(memref.DimOp)
    def dim(self, interpreter: Interpreter, op: memref.DimOp, args: PythonValues):
        array, axis = args
        _check_index("memref.dim: axis out of range", axis, array.ndim)
        return (array.shape[axis],)

    @impl(memref.LoadOp)
    def load(self, interpreter: Interpreter, op: memref.LoadOp, args: PythonValues):
        array, index = args[0], args[1:]
        _check_indices("memref.load", index, array.shape)
        return (element_at(array, index, op.results[0].type),)

    @impl(memref.StoreOp)
    def store(self, interpreter: Interpreter, op: memref.StoreOp, args: PythonValues):
        value, array, *index = args
        _check_indices("memref.store", index, array.shape)
        array[tuple(index)] = value
        return ()
