"""The array functions: what a MoA program in Python is written with.

Inside a traced function (`moa.jit`, `moa.interpret`) they record operations of the
dialect. Called on NumPy arrays they compute at once, by the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, SymbolRefAttr, TensorType, i1
from xdsl.ir import Attribute, SSAValue

from moa_dialect.algebra.layout import Order
from moa_dialect.arrays import to_numpy
from moa_dialect.errors import DTypeError, MoaError, ShapeError
from moa_dialect.frontend.trace import (
    Array,
    ArraySpec,
    Number,
    Scalar,
    Scope,
    active_trace,
    argument_names,
    as_array,
    checked,
    function_name,
    integers,
    record,
    trace_program,
)
from moa_dialect.ops.addresses import GammaInverseOp, GammaOp, ProductOp
from moa_dialect.ops.base import as_tensor
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
from moa_dialect.ops.extents import function_extents
from moa_dialect.ops.function import FunctionAttr, apply_type, as_function
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
    DimOp,
    IotaOp,
    PsiOp,
    ShapeOp,
    TotalOp,
    TransposeOp,
)
from moa_dialect.scalar_code import apply_named
from moa_dialect.scalar_code import cast as cast_scalar
from moa_dialect.scalar_code import constant as scalar_constant
from moa_dialect.types import element_of, element_type_of

ArrayLike: TypeAlias = "Array | Scalar | np.ndarray | Number | Sequence[Any]"
ScalarFunction: TypeAlias = "str | Callable[..., Any]"


def _array_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let a recording function compute at once when nothing is being traced."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if active_trace() is not None:
            return fn(*args, **kwargs)
        from moa_dialect.interpreter import interpret_module

        places = [n for n, arg in enumerate(args) if isinstance(arg, np.ndarray)]
        arrays = [to_numpy(n, args[n]) for n in places]

        def program(*traced: Array) -> Any:
            given = list(args)
            for n, array in zip(places, traced, strict=True):
                given[n] = array
            return fn(*given, **kwargs)

        names = argument_names(fn, len(args))
        # Arrays without a parameter of their own are numbered among the arrays.
        called = [
            f"arg{k}" if names[n] == f"arg{n}" else names[n]
            for k, n in enumerate(places)
        ]
        parameters = [Parameter(name, Parameter.POSITIONAL_ONLY) for name in called]
        vars(program)["__signature__"] = Signature(parameters)
        specs = [ArraySpec(array.shape, array.dtype) for array in arrays]
        module = trace_program(program, specs, "main")
        (result,) = interpret_module(module, "main", arrays)
        return result

    return call


# Structure.


@_array_function
def psi(index: ArrayLike, a: ArrayLike) -> Array:
    """`index ψ a`: the sub-array at an index; `j ψ (i ψ a) = (i ++ j) ψ a`.

    Args:
        index: an integer, a sequence of at most rank-many integers, or an integer array
            whose last axis holds indices.
        a: an array.

    Raises:
        IndexRangeError: unless `0 <= index < extent` on each axis (at run time for
            indices that are data).
        ShapeError: for an index longer than the rank.
    """
    array = as_array(a)
    if not isinstance(index, Array):
        index = np.atleast_1d(integers("psi", index))
        given = as_array(index, IndexType())
        return _recorded(lambda: PsiOp(given.value, array.value))
    position = as_array(index)
    if position.ndim == 0:
        raise ShapeError(f"psi expects a vector as its index, got {position}")
    return _recorded(lambda: PsiOp(position.value, array.value))


@_array_function
def shape(a: ArrayLike) -> Array:
    """`ρ a`: the vector of extents."""
    return record(ShapeOp(as_array(a).value))


@_array_function
def dim(a: ArrayLike) -> Array:
    """`δ a`: the number of axes, a scalar."""
    return record(DimOp(as_array(a).value))


@_array_function
def total(a: ArrayLike) -> Array:
    """`τ a = π(ρ a)`: the number of elements, a scalar."""
    return record(TotalOp(as_array(a).value))


@_array_function
def iota(n_or_shape: ArrayLike) -> Array:
    """`ι n`: the vector 0, 1, ..., n-1; for a shape v the array of all its indices.

    Args:
        n_or_shape: an integer (result shape `<n>`), or a vector of k extents (result
            shape `v ++ <k>`), or such a traced array.

    Raises:
        ShapeError: if an extent is negative.
    """
    if not isinstance(n_or_shape, Array):
        n_or_shape = integers("iota", n_or_shape)
    extents = as_array(n_or_shape, IndexType())
    return _recorded(lambda: IotaOp(extents.value))


def transpose(a: ArrayLike, t: Sequence[int] | None = None) -> Array:
    """`⊘ a` reverses all axes; `t ⊘ a` puts source axis k at result axis `t[k]`.

    This is the inverse of the axes argument of `numpy.transpose`.

    Raises:
        ShapeError: unless t is a permutation of the axes.
    """
    return _transposed(a, None if t is None else _axes(t))


@_array_function
def _transposed(a: ArrayLike, t: Sequence[int] | None) -> Array:
    array = as_array(a)
    return _recorded(lambda: TransposeOp(array.value, t))


def _axes(t: Any) -> list[int]:
    """The places of axes, which a program states."""
    if isinstance(t, Array):
        raise MoaError(
            "transpose: expected axes that are known now, got a traced value"
        )
    axes = integers("transpose", t)
    if axes.ndim != 1:
        raise ShapeError(f"transpose expects a vector of axes, got {t!r}")
    return [int(axis) for axis in axes]


# Shapes and addresses.


@_array_function
def product(v: ArrayLike) -> Array:
    """`π v`: the product of a vector, a scalar; 1 of the empty vector.

    Raises:
        ShapeError: for anything but a vector.
        DTypeError: for truth values.
    """
    array = as_array(v)
    return _recorded(lambda: ProductOp(array.value))


def _vector(operator: str, v: ArrayLike) -> Array:
    """An operand of integers, of which a number counts as a vector of one."""
    if isinstance(v, Array):
        return v
    return as_array(np.atleast_1d(integers(operator, v)), IndexType())


def _order(order: str) -> str:
    if order not in list(Order):
        raise MoaError(f"unknown order: expected row or column, got {order}")
    return order


@_array_function
def gamma(i: ArrayLike, s: ArrayLike, order: str = "row") -> Array:
    """`γ(i; s)`: the address of an index in an array of shape s.

    Args:
        i: as many integers as there are axes, or an integer array whose last axis holds
            indices.
        s: the extents, an integer for each axis.
        order: "row" for row-major addresses, "column" for column-major ones.

    Raises:
        IndexRangeError: unless `0 <= i < s` on each axis (at run time for data).
        ShapeError: if index and shape are of different lengths.
        MoaError: for another order.
    """
    layout = _order(order)
    index, extents = _vector("gamma", i), _vector("gamma", s)
    return _recorded(lambda: GammaOp(index.value, extents.value, layout))


@_array_function
def gamma_inverse(k: ArrayLike, s: ArrayLike, order: str = "row") -> Array:
    """`γ'(k; s)`: the index at an address of an array of shape s.

    Args:
        k: an address, or an integer array of addresses; the result has one more axis.
        s: the extents, an integer for each axis.
        order: "row" for row-major addresses, "column" for column-major ones.

    Raises:
        IndexRangeError: unless `0 <= k < πs` (at run time for data).
        ShapeError: for a negative extent, or an s that is not a vector.
        MoaError: for another order.
    """
    layout = _order(order)
    address, extents = _counts("gamma_inverse", k), _vector("gamma_inverse", s)
    return _recorded(lambda: GammaInverseOp(address.value, extents.value, layout))


# Selection and rearrangement.


def _counts(operator: str, v: ArrayLike) -> Array:
    return as_array(v if isinstance(v, Array) else integers(operator, v))


def _mask(v: ArrayLike) -> Array:
    if isinstance(v, Array):
        return v if v.dtype == np.bool_ else _apply_array("ne", v, 0)
    return as_array(np.asarray(v, np.bool_))


@_array_function
def take(v: ArrayLike, a: ArrayLike) -> Array:
    """`v △ a`: the first `v[j]` of leading axis j, or the last `-v[j]` if negative.

    Args:
        v: an integer (axis 0), or a sequence of at most rank-many integers, or such a
            traced array.
        a: an array; axes after those of v stay whole.

    Raises:
        ShapeError: if more is taken than there is.
    """
    counts, array = _counts("take", v), as_array(a)
    return _recorded(lambda: TakeOp(counts.value, array.value))


@_array_function
def drop(v: ArrayLike, a: ArrayLike) -> Array:
    """`v ▽ a`: all but the first `v[j]` of leading axis j, or but the last `-v[j]`.

    Raises:
        ShapeError: if more is dropped than there is.
    """
    counts, array = _counts("drop", v), as_array(a)
    return _recorded(lambda: DropOp(counts.value, array.value))


@_array_function
def cat(a: ArrayLike, b: ArrayLike) -> Array:
    """`a ++ b` along axis 0; a scalar counts as one plane, two scalars give a vector.

    Raises:
        ShapeError: if the other axes differ.
        DTypeError: if the dtypes differ.
    """
    element = _common_element((a, b))
    left, right = as_array(a, element), as_array(b, element)
    return _recorded(lambda: CatOp(left.value, right.value))


@_array_function
def reverse(a: ArrayLike) -> Array:
    """`Φ a`: axis 0 from its end; a scalar stays as it is."""
    array = as_array(a)
    return _recorded(lambda: ReverseOp(array.value))


@_array_function
def rotate(k: ArrayLike, a: ArrayLike) -> Array:
    """`k θ a`: element i is element `(i + k) mod s0` of axis 0; k is any integer."""
    count, array = _counts("rotate", k), as_array(a)
    return _recorded(lambda: RotateOp(count.value, array.value))


@_array_function
def reshape(t: ArrayLike, a: ArrayLike) -> Array:
    """`t ρ̂ a`: the elements of a, in row-major order, in shape t.

    Raises:
        ShapeError: unless `πt = τa`; elements are not recycled.
    """
    shape_, array = _counts("reshape", t), as_array(a)
    return _recorded(lambda: ReshapeOp(shape_.value, array.value))


@_array_function
def recycle(t: ArrayLike, a: ArrayLike) -> Array:
    """The elements of a over and over, in row-major order, in shape t.

    This is the reshape of APL: what is too much is left out.

    Raises:
        ShapeError: for a negative extent, or an array without elements unless the
            result has none either.
    """
    shape_, array = _counts("recycle", t), as_array(a)
    return _recorded(lambda: RecycleOp(shape_.value, array.value))


@_array_function
def pad(left: ArrayLike, right: ArrayLike, a: ArrayLike) -> Array:
    """Circular padding: axis j after its last `left[j]`, before its first `right[j]`.

    Args:
        left: an integer (axis 0), or a sequence of at most rank-many integers, or such
            a traced array.
        right: as many.
        a: an array; axes after those that are padded stay as they are.

    Raises:
        ShapeError: for a count that is negative or larger than the extent.
    """
    before, after = _counts("pad", left), _counts("pad", right)
    array = as_array(a)
    return _recorded(lambda: PadOp(before.value, after.value, array.value))


@_array_function
def insert(o: ArrayLike, b: ArrayLike, a: ArrayLike) -> Array:
    """The array a with its block that begins at o replaced by b.

    Args:
        o: the offset on axis 0, or a sequence of at most rank-many offsets, or such a
            traced array. On the axes after them b is as long as a.
        b: an array of the rank of a.
        a: an array.

    Raises:
        ShapeError: if the block does not lie within a, or the ranks differ.
        DTypeError: if the dtypes differ.
    """
    element = _common_element((a, b))
    offsets = _counts("insert", o)
    block, array = as_array(b, element), as_array(a, element)
    return _recorded(lambda: InsertOp(offsets.value, block.value, array.value))


@_array_function
def ravel(a: ArrayLike) -> Array:
    """`rav a`: the elements as a vector, in row-major order."""
    array = as_array(a)
    return _recorded(lambda: RavelOp(array.value))


@_array_function
def compress(v: ArrayLike, a: ArrayLike) -> Array:
    """`v ⌿ a`: the planes of axis 0 where the mask v holds.

    Args:
        v: a vector of truth values, or of integers (nonzero holds), as long as axis 0.
        a: an array of rank 1 or more.

    Raises:
        ShapeError: if v is not as long as axis 0.
    """
    mask, array = _mask(v), as_array(a)
    return _recorded(lambda: CompressOp(mask.value, array.value))


@_array_function
def expand(v: ArrayLike, a: ArrayLike) -> Array:
    """`v ⍀ a`: the planes of a put where the mask v holds, zeros elsewhere.

    Raises:
        ShapeError: unless v holds as often as axis 0 of a is long.
    """
    mask, array = _mask(v), as_array(a)
    return _recorded(lambda: ExpandOp(mask.value, array.value))


@_array_function
def grade_up(v: ArrayLike) -> Array:
    """`gu v`: the permutation that sorts a vector ascending, equal ones in place."""
    array = as_array(v)
    return _recorded(lambda: GradeUpOp(array.value))


@_array_function
def grade_down(v: ArrayLike) -> Array:
    """`gd v`: the permutation that sorts a vector descending, equal ones in place."""
    array = as_array(v)
    return _recorded(lambda: GradeDownOp(array.value))


# Pointwise.


def apply(name: str, *arguments: Any) -> Any:
    """A scalar operation of the table applied pointwise, with scalar extension.

    Raises:
        DTypeError: for element types it does not take, or that differ.
        ShapeError: for operands of different shapes, none of them a scalar.
    """
    if any(isinstance(argument, Scalar) for argument in arguments):
        return _apply_scalar(name, arguments)
    return _apply_array(name, *arguments)


@_array_function
def _apply_array(name: str, *arguments: ArrayLike) -> Array:
    element = _common_element(arguments)
    values = [as_array(argument, element).value for argument in arguments]
    if len(values) == 1:
        return _recorded(lambda: MapOp(name, values[0]))
    return _recorded(lambda: PointwiseOp(name, values[0], values[1]))


def _common_element(arguments: Sequence[Any]) -> Attribute | None:
    """The element type a Python number takes: that of the first array beside it."""
    for argument in arguments:
        if isinstance(argument, Array):
            return argument.element_type
        dtype = getattr(argument, "dtype", None)
        if dtype is not None:
            return element_type_of(dtype)
    return None


def _apply_scalar(name: str, arguments: Sequence[Any]) -> Scalar:
    scope, type_ = next(
        (a.scope, a.value.type) for a in arguments if isinstance(a, Scalar)
    )
    builder = scope.builder
    values = [_scalar_value(argument, type_, scope) for argument in arguments]
    function = as_function(name)
    checked(lambda: apply_type(_NO_MODULE, function, tuple(v.type for v in values)))
    return Scalar(scope, apply_named(name, values, builder))


def _scalar_value(argument: Any, type_: Attribute, scope: Scope) -> SSAValue:
    """An argument of a scalar function's operation: a scalar, or a Python number."""
    if isinstance(argument, Scalar):
        return argument.value
    if isinstance(argument, Array):
        raise MoaError("a scalar function must not use an array")
    try:
        return scope.builder.insert(scalar_constant(argument, type_)).result
    except OverflowError:
        raise DTypeError(
            f"expected a number of type {type_}, got one it cannot hold"
        ) from None


def _recorded(make: Callable[[], Any]) -> Array:
    """Record an operation whose constructor may find a fault already."""
    return record(checked(make))


def _unary(name: str, text: str) -> Callable[[Any], Any]:
    def function(a: Any) -> Any:
        return apply(name, a)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{text}, element by element."
    return function


def _binary(python_name: str, name: str, text: str) -> Callable[[Any, Any], Any]:
    def function(a: Any, b: Any) -> Any:
        return apply(name, a, b)

    function.__name__ = function.__qualname__ = python_name
    function.__doc__ = f"{text}, element by element; a scalar is used for each."
    return function


exp = _unary("exp", "The exponential function")
exp2 = _unary("exp2", "Two to the power")
log = _unary("log", "The natural logarithm")
log2 = _unary("log2", "The logarithm to base two")
sqrt = _unary("sqrt", "The square root")
rsqrt = _unary("rsqrt", "One over the square root")
tanh = _unary("tanh", "The hyperbolic tangent")
erf = _unary("erf", "The error function")
sin = _unary("sin", "The sine")
cos = _unary("cos", "The cosine")
floor = _unary("floor", "The largest integer not above")
ceil = _unary("ceil", "The smallest integer not below")
sign = _unary("sign", "1, 0 or -1 (NaN of NaN)")
absolute = _unary("abs", "The absolute value")
negative = _unary("neg", "The negation")
logical_not = _unary("not", "The logical negation")
maximum = _binary("maximum", "max", "The larger (NaN if one is)")
minimum = _binary("minimum", "min", "The smaller (NaN if one is)")
floor_divide = _binary("floor_divide", "floordiv", "The quotient rounded down (0 by 0)")
mod = _binary("mod", "mod", "The remainder with the sign of b (a by 0)")
logical_and = _binary("logical_and", "and", "Whether both hold")
logical_or = _binary("logical_or", "or", "Whether one holds")
logical_xor = _binary("logical_xor", "xor", "Whether exactly one holds")


def where(c: Any, a: Any, b: Any) -> Any:
    """`a` where `c` holds, else `b`, element by element with scalar extension.

    In a scalar function, a choice between scalars.
    """
    if any(isinstance(value, Scalar) for value in (c, a, b)):
        return _choose_scalar(c, a, b)
    return _where_array(c, a, b)


def _choose_scalar(c: Any, a: Any, b: Any) -> Scalar:
    scope, type_ = next(
        (x.scope, x.value.type) for x in (a, b, c) if isinstance(x, Scalar)
    )
    if not isinstance(c, Scalar) or c.value.type != i1:
        raise DTypeError(f"where: expected a truth value as the condition, got {c!r}")
    sides = [_scalar_value(x, type_, scope) for x in (a, b)]
    if sides[0].type != sides[1].type:
        raise DTypeError(
            f"where: both values must have one type, got {sides[0].type}, "
            f"{sides[1].type}"
        )
    chosen = scope.builder.insert(arith.SelectOp(c.value, *sides))
    return Scalar(scope, chosen.result)


@_array_function
def _where_array(c: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    element = _common_element((a, b))
    condition, if_true, if_false = as_array(c), as_array(a, element), b
    if element is None:
        element = if_true.element_type
    values = condition.value, if_true.value, as_array(if_false, element).value
    return _recorded(lambda: WhereOp(*values))


def cast(a: Any, dtype: Any) -> Any:
    """Convert the elements to another dtype (a NumPy dtype or a name such as "f32")."""
    target = element_type_of(dtype)
    if isinstance(a, Scalar):
        return Scalar(a.scope, cast_scalar(a.value, target, a.scope.builder))
    return _cast_array(a, target)


@_array_function
def _cast_array(a: ArrayLike, target: Attribute) -> Array:
    return record(CastOp(as_array(a).value, target))


# Folds, products and omega.


@_array_function
def all_of(op: ScalarFunction, a: ArrayLike, b: ArrayLike) -> Array:
    """`a op* b`: whether a relation holds for all elements, a scalar truth value.

    It is the fold of `a op b` by `and`, and so true for arrays without elements.

    Args:
        op: the name of a scalar operation to truth values such as "eq" or "le", or a
            Python function of two scalars.
        a: an array.
        b: an array of the same shape; either may be a scalar.

    Raises:
        ShapeError: for arrays of different shapes, none of them a scalar.
        DTypeError: unless op gives truth values.
    """
    element = _common_element((a, b))
    left, right = as_array(a, element), as_array(b, element)
    function, result = _function(op, (left.element_type, right.element_type))
    holds = _recorded(lambda: PointwiseOp(function, left.value, right.value, result))
    return reduce("and", ravel(holds))


@_array_function
def reduce(op: ScalarFunction, a: ArrayLike) -> Array:
    """`op red a`: the right fold of the planes along axis 0.

    Args:
        op: the name of a scalar operation, or a Python function of two scalars.
        a: an array of rank 1 or more; the result has the remaining axes.

    Raises:
        ShapeError: for a scalar, or an empty axis when op has no identity element.
    """
    array = as_array(a)
    element = array.element_type
    function, _ = _function(op, (element, element))
    return _recorded(lambda: ReduceOp(function, array.value))


@_array_function
def scan(op: ScalarFunction, a: ArrayLike) -> Array:
    """`op scan a`: plane k of the result is the right fold of planes 0 to k.

    Raises:
        ShapeError: for a scalar.
    """
    array = as_array(a)
    element = array.element_type
    function, _ = _function(op, (element, element))
    return _recorded(lambda: ScanOp(function, array.value))


@_array_function
def outer(op: ScalarFunction, a: ArrayLike, b: ArrayLike) -> Array:
    """`a •op b`: op of every element of a with every element of b, shape `ρa ++ ρb`."""
    element = _common_element((a, b))
    left, right = as_array(a, element), as_array(b, element)
    elements = left.element_type, right.element_type
    function, result = _function(op, elements)
    return _recorded(lambda: OuterOp(function, left.value, right.value, result))


@_array_function
def inner(
    op1: ScalarFunction, op2: ScalarFunction, a: ArrayLike, b: ArrayLike
) -> Array:
    """`a op1•op2 b`: contract the last axis of a with the first of b.

    `inner("add", "mul", a, b)` is the matrix product; shape `(-1 ▽ ρa) ++ (1 ▽ ρb)`.

    Raises:
        ShapeError: if an operand is a scalar or the contracted extents differ.
    """
    left, right = as_array(a), as_array(b)
    elements = left.element_type, right.element_type
    function, result = _function(op2, elements)
    combine, _ = _function(op1, (result, result))
    return _recorded(
        lambda: InnerOp(combine, function, left.value, right.value, result)
    )


HALVES = (element_type_of("f16"), element_type_of("bf16"))
"""Types in which sums of many elements would be of no use."""


@_array_function
def product_of(a: ArrayLike, b: ArrayLike) -> Array:
    """`a @ b`: `a +•× b`. Of f16 or bf16 it is computed in f32, and rounded once.

    Raises:
        ShapeError: as for `inner`.
    """
    left, right = as_array(a), as_array(b)
    given = left.element_type
    if given not in HALVES or right.element_type != given:
        return inner("add", "mul", left, right)
    wide = element_type_of("f32")
    found = inner("add", "mul", _cast_array(left, wide), _cast_array(right, wide))
    return _cast_array(found, given)


@_array_function
def omega(f: ScalarFunction, ranks: int | Sequence[int], *arrays: ArrayLike) -> Array:
    """`f Ω<ranks> arrays`: apply f to the cells of one or two arrays.

    The cells of an array are its trailing `rank` axes. The frames of two arrays agree
    on their trailing axes; the longer frame's excess comes first in the result.

    Args:
        f: the name of a scalar operation, or a Python function of the cells to one
            array; it must not use arrays from outside.
        ranks: the rank of the cells of each array.
        arrays: one or two arrays.

    Raises:
        ShapeError: if the frames do not agree or a cell rank is not possible.
    """
    ranks = tuple(int(rank) for rank in np.atleast_1d(integers("omega", ranks)))
    element = _common_element(arrays)
    values = [as_array(array, element) for array in arrays]
    if len(values) not in (1, 2) or len(values) != len(ranks):
        raise ShapeError(
            f"omega expects one or two arrays and as many cell ranks, "
            f"got {len(values)} arrays and ranks {list(ranks)}"
        )
    for value, rank in zip(values, ranks, strict=True):
        if not 0 <= rank <= value.ndim:
            raise ShapeError(
                f"omega: a cell rank must be between 0 and the rank of its array: "
                f"expected at most {value.ndim}, got {rank}"
            )
    trace = active_trace()
    assert trace is not None
    if isinstance(f, str):
        function = as_function(f)
        elements = tuple(value.element_type for value in values)
        result: Attribute = checked(lambda: apply_type(_NO_MODULE, function, elements))
    else:
        types = [
            as_tensor(value.shape[value.ndim - rank :], value.element_type)
            for value, rank in zip(values, ranks, strict=True)
        ]
        traced = trace.function(
            function_name(f, "cell"),
            Array,
            types,
            ["x", "y"],
            f,
            lambda value: as_array(value).value,
            private=True,
        )
        if len(traced.function_type.outputs) != 1:
            raise ShapeError(
                f"omega: a cell function gives one array, "
                f"got {len(traced.function_type.outputs)}"
            )
        checked(lambda: function_extents(traced))
        result = element_of(traced.function_type.outputs.data[0])
        function = trace.private_function(traced)
    operands = [value.value for value in values]

    def make() -> OmegaOp:
        return OmegaOp(function, ranks, operands, TensorType(result, []))

    op = _placed(make)
    return record(op)


def _placed(make: Callable[[], OmegaOp]) -> OmegaOp:
    """An omega with the result type that its cell function, found by symbol, gives."""
    trace = active_trace()
    assert trace is not None
    op = trace.scope.builder.insert(make())
    checked(op.verify_ranks)
    op.array_result._type = checked(op.inferred_type)  # pyright: ignore
    op.detach()
    return op


_NO_MODULE = TotalOp.create(operands=[], result_types=[TensorType(IndexType(), [])])
"""Where named functions are looked up: needs no module."""


def _function(
    op: ScalarFunction, elements: tuple[Attribute, ...]
) -> tuple[FunctionAttr, Attribute]:
    """A scalar function for these element types: its attribute and its result type."""
    if isinstance(op, str):
        function = as_function(op)
        return function, checked(lambda: apply_type(_NO_MODULE, function, elements))
    if not callable(op):
        raise MoaError(
            f"expected the name of a scalar operation or a function of two scalars, "
            f"got {op!r}"
        )
    trace = active_trace()
    assert trace is not None

    def unwrap(value: Any) -> Any:
        if not isinstance(value, Scalar):
            raise DTypeError(f"a scalar function must give a scalar, got {value!r}")
        return value.value

    names = ["x", "y"]
    name = function_name(op, "scalar")
    traced = trace.function(name, Scalar, elements, names, op, unwrap, private=True)
    results = traced.function_type.outputs.data
    if len(results) != 1:
        raise DTypeError(f"a scalar function gives one scalar, got {len(results)}")
    (result,) = results
    symbol: SymbolRefAttr = trace.private_function(traced)
    return symbol, result
