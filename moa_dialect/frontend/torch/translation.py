"""ATen operators as functions of arrays.

`TABLE` has a translation for each operator that moa takes over. A translation is a
function of a `Node` and the operator's arguments, in which arrays take the place of
tensors. What an operator does to shapes and element types is not computed again: it is
read from the graph, which PyTorch has traced with symbolic extents.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as PROMOTION
from torch._prims_common import elementwise_dtypes

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.torch import scalars
from moa_dialect.frontend.torch.kernels import NAMES, computed_type
from moa_dialect.frontend.torch.values import (
    Extent,
    Extents,
    UntranslatableError,
    broadcast,
    extent,
    extents,
    permuted,
    with_axis,
    without_axis,
)
from moa_dialect.frontend.trace import Array, as_array
from moa_dialect.library.broadcasting import extent as extent_of
from moa_dialect.library.losses import log_softmax
from moa_dialect.library.normalization import layernorm
from moa_dialect.library.softmax import row_maximum, row_sum, softmax
from moa_dialect.library.statistics import mean, variance
from moa_dialect.types import element_type_of, kind_of

aten = torch.ops.aten

Kind = Literal["pointwise", "fold", "product", "shape"]
"""What an operator is for the division of graphs into regions."""


@dataclass(frozen=True)
class Translation:
    """How an operator becomes a function of arrays.

    Attributes:
        kind: what it is for the division into regions.
        translate: the function, of a `Node` and the operator's arguments.
        worth: whether a kernel of its own pays for this operator alone.
        reason: a function that says why a node is left to PyTorch, None if it is not.
    """

    kind: Kind
    translate: Callable[..., Any]
    worth: bool = False
    reason: Callable[[fx.Node], str | None] | None = None


TABLE: dict[Any, Translation] = {}
"""The operators that are translated."""


@dataclass(frozen=True)
class Node:
    """A node of a graph while it is translated.

    Attributes:
        node: the node; `meta["val"]` is its value without elements.
        known: the extents of the program.
    """

    node: fx.Node
    known: Extents

    def value_of(self, argument: Any) -> Any:
        """The value without elements of an argument that is a node, or a number."""
        return argument.meta["val"] if isinstance(argument, fx.Node) else argument

    @property
    def value(self) -> Any:
        """The result without elements."""
        return self.node.meta["val"]

    @property
    def shape(self) -> tuple[Extent, ...]:
        """The shape of the result."""
        return extents(self.value.shape)

    def shape_of(self, place: int) -> tuple[Extent, ...]:
        """The shape of an argument."""
        return extents(self.value_of(self.node.args[place]).shape)


def element(dtype: torch.dtype) -> str:
    """The element type in which values of a dtype are computed.

    Raises:
        UntranslatableError: for a dtype that moa does not have.
    """
    try:
        return NAMES[computed_type(dtype)]
    except KeyError:
        raise UntranslatableError(f"elements of type {dtype}") from None


def converted(a: Any, dtype: torch.dtype) -> Any:
    """An array in the type that values of a dtype are computed in."""
    name = element(dtype)
    if not isinstance(a, Array):
        return as_array(a, element_type_of(name))
    if a.element_type == element_type_of(name):
        return a
    if name == "i1":
        return a != 0
    return moa.cast(a, name)


def register(
    kind: Kind, *operators: Any, worth: bool = False, reason: Any = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function the translation of operators."""

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        for operator in operators:
            TABLE[operator] = Translation(kind, function, worth, reason)
        return function

    return note


# Pointwise.


def _pointwise(
    function: Callable[..., Any],
    promotion: PROMOTION = PROMOTION.DEFAULT,
    count: int | None = None,
) -> Callable[..., Any]:
    """A scalar function of the first `count` arguments, which are broadcast."""

    def translate(node: Node, *arguments: Any, **options: Any) -> Any:
        number = len(arguments) if count is None else count
        operands, rest = arguments[:number], arguments[number:]
        values = [node.value_of(argument) for argument in node.node.args[:number]]
        dtype, _ = elementwise_dtypes(
            *[_probe(value) for value in values], type_promotion_kind=promotion
        )
        ready = [
            _spread(node, converted(operand, dtype), value)
            for operand, value in zip(operands, values, strict=True)
        ]
        result = function(*ready, *rest, **options)
        return converted(result, node.value.dtype)

    return translate


def _probe(value: Any) -> Any:
    """A value as the promotion of types sees it; a symbol is a whole number."""
    if isinstance(value, torch.SymInt):
        return 1
    return value


def _spread(node: Node, operand: Any, value: Any) -> Any:
    """An operand in the shape of the result; a scalar stays one."""
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return operand
    return broadcast(operand, extents(value.shape), node.shape, node.known)


def _filled(node: Node, a: Any) -> Any:
    """A result of scalars alone, in the shape it has."""
    return a if a.ndim == node.value.dim() else broadcast(a, (), node.shape, node.known)


def _are_truths(a: Any) -> bool:
    return isinstance(a, Array) and a.element_type == element_type_of("i1")


def _add(a: Any, b: Any, alpha: Any = 1) -> Any:
    if _are_truths(a):
        return moa.logical_or(a, b)
    return a + (b if alpha == 1 else b * alpha)


def _multiply(a: Any, b: Any) -> Any:
    return moa.logical_and(a, b) if _are_truths(a) else a * b


def _maximum(a: Any, b: Any) -> Any:
    return moa.logical_or(a, b) if _are_truths(a) else moa.maximum(a, b)


def _minimum(a: Any, b: Any) -> Any:
    return moa.logical_and(a, b) if _are_truths(a) else moa.minimum(a, b)


def _subtract(a: Any, b: Any, alpha: Any = 1) -> Any:
    return a - (b if alpha == 1 else b * alpha)


def _power(a: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float):
        if exponent == 0:
            one = as_array(1, a.element_type)
            return moa.where(a == a, one, one)  # also of what is no number
        if kind_of(a.element_type) == "int":
            result = a
            for _ in range(int(exponent) - 1):
                result = result * a
            return result
        if exponent == 2:
            return a * a
        if exponent == 3:
            return a * a * a
        if exponent == 1:
            return a
        if exponent == 0.5:
            return moa.sqrt(a)
        if exponent == -0.5:
            return moa.rsqrt(a)
        if exponent == -1:
            return 1.0 / a
    return a**exponent


def gelu(x: Any, approximate: str = "none") -> Any:
    """`x` times the probability that a normal number is below it.

    Source: Hendrycks and Gimpel, *Gaussian Error Linear Units* (2016).
    """
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1.0 + moa.tanh(inner))
    return 0.5 * x * (1.0 + moa.erf(x * math.sqrt(0.5)))


def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`."""
    return 1.0 / (1.0 + moa.exp(-x))


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else moa.maximum(x, low)
    return x if high is None else moa.minimum(x, high)


def _float_only(node: fx.Node) -> str | None:
    """Division of whole numbers and the like is left to PyTorch."""
    for argument in node.all_input_nodes:
        value = argument.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.dtype.is_floating_point:
            return "whole numbers"
    return None


def _of_numbers(node: fx.Node) -> str | None:
    """Truth values have no order, and few operations."""
    for argument in node.all_input_nodes:
        value = argument.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
            return "truth values"
    return None


_UNARY: dict[Any, Callable[[Any], Any]] = {
    aten.exp.default: moa.exp,
    aten.exp2.default: moa.exp2,
    aten.log.default: moa.log,
    aten.log2.default: moa.log2,
    aten.sqrt.default: moa.sqrt,
    aten.rsqrt.default: moa.rsqrt,
    aten.reciprocal.default: lambda a: 1.0 / a,
    aten.tanh.default: moa.tanh,
    aten.erf.default: moa.erf,
    aten.sin.default: moa.sin,
    aten.cos.default: moa.cos,
    aten.sigmoid.default: sigmoid,
    aten.log10.default: lambda a: moa.log(a) * math.log10(math.e),
    aten.log1p.default: scalars.log1p,
    aten.expm1.default: scalars.expm1,
    aten.tan.default: lambda a: moa.sin(a) / moa.cos(a),
    aten.sinh.default: scalars.sinh,
    aten.cosh.default: scalars.cosh,
    aten.erfc.default: lambda a: 1.0 - moa.erf(a),
}
for _operator, _function in _UNARY.items():
    register("pointwise", _operator)(_pointwise(_function, PROMOTION.INT_TO_FLOAT))

_OF_FLOATS: dict[Any, Callable[[Any], Any]] = {
    aten.floor.default: moa.floor,
    aten.ceil.default: moa.ceil,
    aten.trunc.default: scalars.trunc,
    aten.round.default: scalars.round_even,
    aten.silu.default: lambda a: a / (1.0 + moa.exp(-a)),
    aten.isnan.default: lambda a: a != a,
    aten.isinf.default: lambda a: moa.absolute(a) == math.inf,
}
for _operator, _function in _OF_FLOATS.items():
    register("pointwise", _operator, reason=_float_only)(_pointwise(_function))

register("pointwise", aten.gelu.default, reason=_float_only)(_pointwise(gelu, count=1))
register("pointwise", aten.sgn.default, aten.sign.default, reason=_of_numbers)(
    _pointwise(moa.sign)
)
register("pointwise", aten.neg.default)(_pointwise(moa.negative))
register("pointwise", aten.abs.default)(_pointwise(moa.absolute))
register("pointwise", aten.relu.default)(_pointwise(lambda a: moa.maximum(a, 0)))
register("pointwise", aten.add.Tensor, aten.add.Scalar)(_pointwise(_add, count=2))
register("pointwise", aten.sub.Tensor, aten.sub.Scalar)(_pointwise(_subtract, count=2))
register("pointwise", aten.rsub.Scalar, aten.rsub.Tensor)(
    _pointwise(lambda a, b, alpha=1: _subtract(b, a, alpha), count=2)
)
register("pointwise", aten.mul.Tensor, aten.mul.Scalar)(_pointwise(_multiply))
register("pointwise", aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)(
    _pointwise(lambda a, b: a / b, PROMOTION.INT_TO_FLOAT)
)
register("pointwise", aten.maximum.default)(_pointwise(_maximum))
register("pointwise", aten.minimum.default)(_pointwise(_minimum))


def _known_divisor(node: fx.Node) -> str | None:
    """Whole numbers by a number other than 0: PyTorch raises an error for 0."""
    divisor = node.args[1]
    if node.meta["val"].dtype.is_floating_point:
        return "a quotient of floats that is rounded"
    is_known = isinstance(divisor, int) and not isinstance(divisor, bool)
    return None if is_known and divisor != 0 else "a divisor that may be 0"


def _rounded_quotient(a: Any, b: Any, rounding_mode: str = "floor") -> Any:
    if rounding_mode == "floor":
        return moa.floor_divide(a, b)
    # Towards 0: that of the sizes, with the sign of a quotient.
    size = moa.floor_divide(moa.absolute(a), moa.absolute(b))
    return moa.sign(a) * moa.sign(b) * size


register(
    "pointwise",
    aten.div.Tensor_mode,
    aten.floor_divide.default,
    reason=_known_divisor,
)(_pointwise(_rounded_quotient, count=2))
register("pointwise", aten.remainder.Scalar, reason=_known_divisor)(_pointwise(moa.mod))


def _small_power(node: fx.Node) -> str | None:
    """Powers of whole numbers are products."""
    operand, exponent = node.args[:2]
    assert isinstance(operand, fx.Node)
    dtype = node.meta["val"].dtype
    if operand.meta["val"].dtype != dtype:
        return "a power of another type"
    if dtype.is_floating_point:
        return None
    is_small = isinstance(exponent, int) and 0 <= exponent <= 8
    return None if is_small else "a power of whole numbers"


register("pointwise", aten.pow.Tensor_Scalar, reason=_small_power)(
    _pointwise(_power, count=1)
)
register("pointwise", aten.pow.Scalar, aten.pow.Tensor_Tensor, reason=_float_only)(
    _pointwise(lambda a, b: a**b)
)
register("pointwise", aten.lerp.Scalar, reason=_float_only)(
    _pointwise(lambda a, b, weight: a + weight * (b - a), count=2)
)
register("pointwise", aten.clamp.Tensor)(
    _pointwise(lambda a, low=None, high=None: _clamp(a, low, high))
)
register("pointwise", aten.clamp_min.Tensor)(_pointwise(moa.maximum))
register("pointwise", aten.clamp_max.Tensor)(_pointwise(moa.minimum))


@register("pointwise", aten.clamp.default, aten.clamp_min.default)
def _clamped(node: Node, a: Any, low: Any = None, high: Any = None) -> Any:
    dtype = node.value.dtype
    bounds = (each if each is None else converted(each, dtype) for each in (low, high))
    return _clamp(converted(a, dtype), *bounds)


@register("pointwise", aten.clamp_max.default)
def _clamped_above(node: Node, a: Any, high: Any) -> Any:
    return _clamped(node, a, None, high)


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


for _name, _function in _RELATIONS.items():
    _reason = None if _name in ("eq", "ne") else _of_numbers
    for _overload in ("Tensor", "Scalar"):
        register("pointwise", getattr(getattr(aten, _name), _overload), reason=_reason)(
            _pointwise(_function)
        )


def _of_truths(node: fx.Node) -> str | None:
    for argument in node.all_input_nodes:
        value = argument.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype != torch.bool:
            return "bits of whole numbers"
    return None


def _on_truths(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of whether elements are other than 0."""

    def translate(node: Node, *arguments: Any) -> Any:
        places = node.node.args[: len(arguments)]
        return function(
            *(
                _spread(node, converted(each, torch.bool), node.value_of(place))
                for each, place in zip(arguments, places, strict=True)
            )
        )

    return translate


for _names, _function in (
    (("logical_and", "bitwise_and"), moa.logical_and),
    (("logical_or", "bitwise_or"), moa.logical_or),
    (("logical_xor", "bitwise_xor"), moa.logical_xor),
    (("logical_not", "bitwise_not"), moa.logical_not),
):
    _of_any, _of_bits = (getattr(aten, _name) for _name in _names)
    register("pointwise", _of_any.default)(_on_truths(_function))
    _of_bits = _of_bits.default if _function is moa.logical_not else _of_bits.Tensor
    register("pointwise", _of_bits, reason=_of_truths)(_on_truths(_function))


@register("pointwise", aten.where.self)
def _where(node: Node, condition: Any, a: Any, b: Any) -> Any:
    places = [node.value_of(argument) for argument in node.node.args]
    chosen = _spread(node, condition, places[0])
    sides = [
        _spread(node, converted(side, node.value.dtype), place)
        for side, place in zip((a, b), places[1:], strict=True)
    ]
    if all(x.ndim == 0 for x in (chosen, *sides)) or chosen.ndim:
        return moa.where(chosen, *sides)
    return moa.where(_filled(node, chosen), *(_filled(node, side) for side in sides))


@register(
    "shape",
    aten._to_copy.default,
    torch.ops.prims.convert_element_type.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
)
def _copied(node: Node, a: Any, *types: Any, **options: Any) -> Any:
    dtype = node.value.dtype
    result = converted(a, dtype)
    if (
        computed_type(dtype) != dtype
        and node.value_of(node.node.args[0]).dtype != dtype
    ):
        result = moa.cast(moa.cast(result, NAMES[dtype]), element(dtype))
    return result


@register("shape", aten.copy.default)
def _copied_from(node: Node, a: Any, b: Any, *options: Any) -> Any:
    source = converted(b, node.value.dtype)
    return broadcast(source, node.shape_of(1), node.shape, node.known)


@register("shape", aten.scalar_tensor.default, aten.full.default)
def _constant(node: Node, *arguments: Any, **options: Any) -> Any:
    number = converted(arguments[-1], node.value.dtype)
    return _filled(node, number)


@register("shape", aten.full_like.default)
def _constant_like(node: Node, a: Any, number: Any, **options: Any) -> Any:
    return _filled(node, converted(number, node.value.dtype))


@register("shape", aten.new_full.default)
def _new_constant(node: Node, a: Any, size: Any, number: Any, **options: Any) -> Any:
    return _filled(node, converted(number, node.value.dtype))


@register("shape", aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default)
def _zeros(node: Node, *arguments: Any, **options: Any) -> Any:
    return _filled(node, converted(0, node.value.dtype))


@register("shape", aten.ones_like.default, aten.ones.default, aten.new_ones.default)
def _ones(node: Node, *arguments: Any, **options: Any) -> Any:
    return _filled(node, converted(1, node.value.dtype))


@register("shape", aten.arange.default, aten.arange.start, aten.arange.start_step)
def _arange(node: Node, *limits: Any, **options: Any) -> Any:
    start = 0 if len(limits) == 1 else limits[0]
    step = limits[2] if len(limits) > 2 else 1
    if not all(isinstance(each, int | float) for each in (start, step)):
        raise UntranslatableError("numbers that begin where a call says")
    (count,) = node.shape
    numbers = converted(moa.iota(node.known.value(count)), node.value.dtype)
    if step != 1:
        numbers = numbers * converted(step, node.value.dtype)
    return numbers if start == 0 else numbers + converted(start, node.value.dtype)


@register("pointwise", aten.tril.default, aten.triu.default)
def _triangle(node: Node, a: Any, diagonal: int = 0) -> Any:
    *_, rows, columns = node.shape
    row, column = moa.iota(node.known.value(rows)), moa.iota(node.known.value(columns))
    first = converted(row, torch.int64) + diagonal
    second = converted(column, torch.int64)
    kept = moa.outer("ge" if node.node.target is aten.tril.default else "le",
                     first, second)  # fmt: skip
    kept = broadcast(kept, (rows, columns), node.shape, node.known)
    return moa.where(kept, a, converted(0, node.value.dtype))


@register("pointwise", aten._native_batch_norm_legit_no_training.default)
def _batch_norm(
    node: Node,
    a: Any,
    weight: Any,
    bias: Any,
    average: Any,
    spread: Any,
    momentum: float,
    eps: float,
) -> Any:
    out, *empty = node.value
    shape = extents(out.shape)

    def of_channels(v: Any) -> Any:
        wide = converted(v, out.dtype)
        for axis in range(len(shape)):
            if axis != 1:
                wide = with_axis(wide, axis, node.known.value(shape[axis]))
        return wide

    scale = moa.rsqrt(converted(spread, out.dtype) + eps)
    if weight is not None:
        scale = scale * converted(weight, out.dtype)
    result = (converted(a, out.dtype) - of_channels(average)) * of_channels(scale)
    result = result if bias is None else result + of_channels(bias)
    nothing = converted(0.0, out.dtype)
    rest = (broadcast(nothing, (), extents(e.shape), node.known) for e in empty)
    return result, *rest


# Folds.


def _axes(node: Node, dims: Any) -> list[int]:
    """The axes that are folded, ascending."""
    rank = len(node.shape_of(0))
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(rank))
    dims = [dims] if isinstance(dims, int) else dims
    return sorted(dim % rank for dim in dims)


def _rows(a: Any, axes: Sequence[int]) -> tuple[Any, list[int]]:
    """An array with some axes last, and the others."""
    kept = [axis for axis in range(a.ndim) if axis not in axes]
    return permuted(a, [*kept, *axes]), kept


def _is_euclidean(node: fx.Node) -> str | None:
    """A norm that is the root of a sum of squares."""
    if len(node.args) > 1 and node.args[1] != 2:
        return "another norm"
    return _float_only(node)


def _folded(name: str, a: Any, axes: Sequence[int]) -> Any:
    rows, _ = _rows(a, axes)

    def fold(cell: Any) -> Any:
        for _axis in axes:
            cell = moa.reduce(name, cell)
        return cell

    return moa.omega(fold, len(axes), rows)


def _kept(a: Any, axes: Sequence[int], keep: bool) -> Any:
    """A result with the axes that were folded as axes of extent 1, if asked for."""
    if keep:
        for axis in axes:
            a = with_axis(a, axis, 1)
    return a


@register("fold", aten.linalg_vector_norm.default, reason=_is_euclidean)
def _norm(
    node: Node,
    a: Any,
    order: Any = 2,
    dims: Any = None,
    keepdim: bool = False,
    **options: Any,
) -> Any:
    axes = _axes(node, dims)
    a = converted(a, node.value.dtype)
    return _kept(moa.sqrt(_folded("add", a * a, axes)), axes, keepdim)


def _count(node: Node, axes: Sequence[int]) -> Any:
    shape = node.shape_of(0)
    result: Any = 1
    for axis in axes:
        result = result * node.known.value(shape[axis])
    return result


@register("fold", aten.sum.dim_IntList, aten.sum.default)
def _sum(
    node: Node, a: Any, dims: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    axes = _axes(node, dims)
    result = _folded("add", converted(a, node.value.dtype), axes)
    return _kept(result, axes, keepdim)


@register("fold", aten.mean.dim, aten.mean.default, reason=_float_only)
def _mean(
    node: Node, a: Any, dims: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    axes = _axes(node, dims)
    a = converted(a, node.value.dtype)
    count = _count(node, axes)
    total = _folded("add", a, axes)
    result = total / converted(
        float(count) if isinstance(count, int) else count, node.value.dtype
    )
    return _kept(result, axes, keepdim)


def _extreme(name: str, of_truths: str) -> Callable[..., Any]:
    def translate(node: Node, a: Any, dims: Any = (), keepdim: bool = False) -> Any:
        axes = _axes(node, dims)
        function = of_truths if _are_truths(a) else name
        return _kept(_folded(function, a, axes), axes, keepdim)

    return translate


register("fold", aten.amax.default, aten.max.default)(_extreme("max", "or"))
register("fold", aten.amin.default, aten.min.default)(_extreme("min", "and"))


def _whether(name: str) -> Callable[..., Any]:
    """Whether elements are other than 0: some of them, or all."""

    def translate(node: Node, a: Any, dims: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dims, list | tuple) and not dims:
            return converted(a, torch.bool)
        axes = _axes(node, dims)
        found = _kept(_folded(name, converted(a, torch.bool), axes), axes, keepdim)
        return converted(found, node.value.dtype)

    return translate


for _operator in (aten.any.default, aten.any.dim, aten.any.dims):
    register("fold", _operator)(_whether("or"))
for _operator in (aten.all.default, aten.all.dim, aten.all.dims):
    register("fold", _operator)(_whether("and"))


@register("fold", aten.prod.default, aten.prod.dim_int)
def _product_of(
    node: Node, a: Any, dims: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    axes = _axes(node, dims)
    result = _folded("mul", converted(a, node.value.dtype), axes)
    return _kept(result, axes, keepdim)


def _place_of(name: str, rows: Any) -> tuple[Any, Any]:
    """The extreme of each row, and where it is first; NaN comes before numbers."""

    def place(row: Any) -> Any:
        count = extent_of(row, 0)
        numbers = moa.iota(count)
        is_it = (row == moa.reduce(name, row)) | (row != row)
        return moa.reduce("min", moa.where(is_it, numbers, count))

    return moa.omega(lambda row: moa.reduce(name, row), 1, rows), moa.omega(
        place, 1, rows
    )


def _one_extreme(name: str, with_value: bool) -> Callable[..., Any]:
    def translate(node: Node, a: Any, dim: Any = None, keepdim: bool = False) -> Any:
        value = node.value[1] if with_value else node.value
        axes = _axes(node, dim)
        rows, _ = _rows(a, axes)
        if len(axes) > 1:
            rows = moa.ravel(rows)
        found = _place_of(name, rows)
        axes = axes if keepdim else []
        first = _kept(found[0], axes, keepdim)
        second = _kept(converted(found[1], value.dtype), axes, keepdim)
        return (first, second) if with_value else second

    return translate


def _orders(node: fx.Node) -> str | None:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    value = operand.meta["val"]
    if value.dim() == 0:
        return "a scalar"
    return _of_numbers(node)


register("fold", aten.argmax.default, reason=_orders)(_one_extreme("max", False))
register("fold", aten.argmin.default, reason=_orders)(_one_extreme("min", False))
register("fold", aten.max.dim, reason=_orders)(_one_extreme("max", True))
register("fold", aten.min.dim, reason=_orders)(_one_extreme("min", True))


def _long_scan(node: fx.Node) -> str | None:
    """Each element of a scan is a fold; PyTorch goes through an axis once."""
    operand, dim = node.args[:2]
    assert isinstance(operand, fx.Node)
    assert isinstance(dim, int)
    shape = extents(operand.meta["val"].shape)
    length = shape[dim] if shape else None
    is_short = isinstance(length, int) and length <= LONGEST_SCAN
    return None if is_short else "a scan, which PyTorch does in one go"


LONGEST_SCAN = 16
"""The most elements of which a region computes a scan."""


@register("fold", aten.cumsum.default, reason=_long_scan)
def _cumulated(node: Node, a: Any, dim: int, **options: Any) -> Any:
    first, back = _axis_first(dim % a.ndim, a.ndim)
    planes = permuted(converted(a, node.value.dtype), first)
    return permuted(moa.scan("add", planes), back)


def _on_last_axis(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function of rows, applied along another axis."""

    def translate(node: Node, a: Any, dim: int, *rest: Any) -> Any:
        axis = dim % a.ndim if a.ndim else 0
        rows, kept = _rows(converted(a, node.value.dtype), [axis])
        order = [*kept, axis]
        result = function(rows)
        return permuted(result, [order.index(k) for k in range(a.ndim)])

    return translate


def _has_rows(node: fx.Node) -> str | None:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    value = operand.meta["val"]
    if not value.dtype.is_floating_point:
        return "whole numbers"
    return None if value.dim() else "a scalar"


def safe_softmax(x: Any) -> Any:
    """The softmax of rows, 0 in rows that are minus infinity throughout."""
    top = row_maximum(x)
    top = moa.where(top == -math.inf, 0.0, top)
    powers = moa.exp(moa.omega("sub", (1, 0), x, top))
    sums = row_sum(powers)
    return moa.omega("div", (1, 0), powers, moa.where(sums == 0.0, 1.0, sums))


register("fold", aten._softmax.default, worth=True, reason=_has_rows)(
    _on_last_axis(softmax)
)
register("fold", aten._safe_softmax.default, worth=True, reason=_has_rows)(
    _on_last_axis(safe_softmax)
)
register("fold", aten._log_softmax.default, worth=True, reason=_has_rows)(
    _on_last_axis(log_softmax)
)


@register("fold", aten.native_layer_norm.default, worth=True, reason=_has_rows)
def _layer_norm(
    node: Node, x: Any, shape: Any, weight: Any, bias: Any, eps: float
) -> Any:
    dtype = node.value[0].dtype
    x = converted(x, dtype)
    weight = None if weight is None else converted(weight, dtype)
    bias = None if bias is None else converted(bias, dtype)
    axes = list(range(x.ndim - len(shape), x.ndim))
    if len(axes) == 1:
        average, scale = mean(x), moa.rsqrt(variance(x) + eps)
        result = layernorm(x, weight, bias, eps)
    else:
        average, deviations, squares = _moments(node, x, axes)
        scale = moa.rsqrt(squares / converted(_count(node, axes), dtype) + eps)
        frame = scale.ndim
        result = moa.omega("mul", (len(axes), 0), deviations, scale) if frame else (
            deviations * scale
        )  # fmt: skip
        if weight is not None:
            result = moa.omega("mul", (len(axes),) * 2, result, weight)
        if bias is not None:
            result = moa.omega("add", (len(axes),) * 2, result, bias)
    return result, _kept(average, axes, True), _kept(scale, axes, True)


def _moments(node: Node, a: Any, axes: Sequence[int]) -> tuple[Any, Any, Any]:
    """Means over axes, the deviations with these axes last, the sums of squares."""
    rows, _ = _rows(a, axes)
    count = moa.cast(converted(_count(node, axes), torch.float64), a.dtype)
    average = _folded("add", a, axes) / count
    spread = average
    shape = node.shape_of(0)
    for axis in axes:
        spread = with_axis(spread, spread.ndim, node.known.value(shape[axis]))
    deviations = rows - spread
    squares = _folded("add", deviations * deviations, range(average.ndim, a.ndim))
    return average, deviations, squares


@register("fold", aten.logsumexp.default, worth=True, reason=_has_rows)
def _logsumexp(node: Node, a: Any, dims: Any, keepdim: bool = False) -> Any:
    axes = _axes(node, dims)
    rows, kept = _rows(converted(a, node.value.dtype), axes)
    top = _folded("max", a, axes)
    # Rows of one infinity are that: the difference of two would be NaN.
    top = moa.where(moa.absolute(top) == math.inf, 0.0, top)
    spread, shape = top, node.shape_of(0)
    for axis in axes:
        spread = with_axis(spread, spread.ndim, node.known.value(shape[axis]))
    sums = _folded("add", moa.exp(rows - spread), range(len(kept), a.ndim))
    return _kept(top + moa.log(sums), axes, keepdim)


@register(
    "fold",
    aten.var.correction,
    aten.var_mean.correction,
    aten.std.correction,
    worth=True,
    reason=_has_rows,
)
def _variance(
    node: Node, a: Any, dims: Any = None, correction: Any = 1, keepdim: bool = False
) -> Any:
    axes = _axes(node, dims)
    average, _, squares = _moments(node, a, axes)
    count = converted(_count(node, axes), torch.float64)
    less = count - float(1 if correction is None else correction)
    # With as many elements as are taken off or fewer, the sum is divided by 0.
    less = moa.cast(moa.maximum(less, 0.0), a.dtype)
    found = _kept(squares / less, axes, keepdim)
    if node.node.target is aten.var.correction:
        return found
    if node.node.target is aten.std.correction:
        return moa.sqrt(found)
    return found, _kept(average, axes, keepdim)


# Products.


def _product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


@register("product", aten.mm.default, worth=True, reason=_float_only)
def _mm(node: Node, a: Any, b: Any) -> Any:
    return _product(a, b)


@register("product", aten.bmm.default, worth=True, reason=_float_only)
def _bmm(node: Node, a: Any, b: Any) -> Any:
    return moa.omega(_product, (2, 2), a, b)


@register("product", aten.addmm.default, worth=True, reason=_float_only)
def _addmm(node: Node, c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    result = _product(a, b)
    result = result if alpha == 1 else alpha * result
    if beta == 0:
        return result
    added = broadcast(c, node.shape_of(0), node.shape, node.known)
    return result + (added if beta == 1 else beta * added)


@register("product", aten.baddbmm.default, worth=True, reason=_float_only)
def _baddbmm(node: Node, c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    result = _bmm(node, a, b)
    result = result if alpha == 1 else alpha * result
    if beta == 0:
        return result
    added = broadcast(c, node.shape_of(0), node.shape, node.known)
    return result + (added if beta == 1 else beta * added)


# Shapes.


@register("shape", aten.permute.default)
def _permute(node: Node, a: Any, dims: Sequence[int]) -> Any:
    return permuted(a, [dim % a.ndim for dim in dims])


@register("shape", aten.transpose.int)
def _transpose(node: Node, a: Any, first: int, second: int) -> Any:
    axes = list(range(a.ndim))
    if not axes:
        return a
    first, second = first % a.ndim, second % a.ndim
    axes[first], axes[second] = second, first
    return permuted(a, axes)


@register("shape", aten.t.default)
def _turned(node: Node, a: Any) -> Any:
    return moa.transpose(a)


@register("shape", aten.unsqueeze.default)
def _unsqueeze(node: Node, a: Any, dim: int) -> Any:
    return with_axis(a, dim % (a.ndim + 1), 1)


@register("shape", aten.squeeze.dim, aten.squeeze.dims)
def _squeeze(node: Node, a: Any, dims: Any) -> Any:
    dims = [dims] if isinstance(dims, int) else dims
    shape = node.shape_of(0)
    for axis in sorted(
        {dim % len(shape) for dim in dims} if shape else (), reverse=True
    ):
        if shape[axis] == 1:
            a = without_axis(a, axis)
    return a


@register("shape", aten.expand.default)
def _expand(node: Node, a: Any, shape: Any, **options: Any) -> Any:
    return broadcast(a, node.shape_of(0), node.shape, node.known)


@register("shape", aten.view.default, aten._unsafe_view.default)
def _view(node: Node, a: Any, shape: Any) -> Any:
    before, after = list(node.shape_of(0)), list(node.shape)
    # Axes of extent 1 come and go without a new order of elements.
    if [e for e in before if e != 1] == [e for e in after if e != 1]:
        for axis in reversed(range(len(before))):
            if before[axis] == 1:
                a = without_axis(a, axis)
        for axis, e in enumerate(after):
            if e == 1:
                a = with_axis(a, axis, 1)
        return a
    return moa.reshape(node.known.vector(after), a)


def _begins_where(place: int) -> Callable[[fx.Node], str | None]:
    """Whether a slice begins, or a plane is, where the graph says."""

    def reason(node: fx.Node) -> str | None:
        start: Any = node.args[place] if len(node.args) > place else 0
        start = 0 if start is None else start
        rest: Any = node.args[4:] if place == 2 else ()
        step = rest[0] if rest else 1
        source = node.args[0]
        assert isinstance(source, fx.Node)
        axis: Any = node.args[1] if len(node.args) > 1 else 0
        is_known = isinstance(extent(source.meta["val"].shape[axis]), int)
        if not isinstance(start, int) or (start < 0 and not is_known):
            return "a place that a call says"
        return None if step == 1 else "a slice with steps"

    return reason


@register("shape", aten.select.int, reason=_begins_where(2))
def _select(node: Node, a: Any, dim: int, index: Any) -> Any:
    axis = dim % a.ndim
    length = node.shape_of(0)[axis]
    if not isinstance(index, int) or (index < 0 and not isinstance(length, int)):
        raise UntranslatableError("an index that a call gives")
    if index < 0:
        assert isinstance(length, int)
        index += length
    return moa.psi(
        [index], permuted(a, [axis, *(k for k in range(a.ndim) if k != axis)])
    )


@register("shape", aten.slice.Tensor, reason=_begins_where(2))
def _slice(
    node: Node, a: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Any:
    axis = dim % a.ndim
    before, after = node.shape_of(0)[axis], node.shape[axis]
    if before == after:
        return a
    if step != 1:
        raise UntranslatableError("a slice with steps")
    start = 0 if start is None else start
    if not isinstance(start, int) or (start < 0 and not isinstance(before, int)):
        raise UntranslatableError("a slice that begins where a call says")
    if start < 0:
        assert isinstance(before, int)
        start = max(start + before, 0)
    return _part(a, axis, start, node.known.value(after))


def _part(a: Any, axis: int, start: int, count: Any) -> Any:
    """So many planes along an axis, from one on."""
    first, back = _axis_first(axis, a.ndim)
    planes = permuted(a, first)
    planes = moa.take(_vector(count), moa.drop([start], planes) if start else planes)
    return permuted(planes, back)


def _replaced_where(node: fx.Node) -> str | None:
    """Whether the planes that are replaced begin where the graph says."""
    _, _, *rest = node.args
    start: Any = rest[1] if len(rest) > 1 else 0
    step = rest[3] if len(rest) > 3 else 1
    is_known = start is None or (isinstance(start, int) and start >= 0)
    return None if is_known and step == 1 else "a place that a call says, or steps"


@register("shape", aten.slice_scatter.default, reason=_replaced_where)
def _slice_scatter(
    node: Node,
    a: Any,
    b: Any,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Any:
    axis = dim % a.ndim
    count, length = node.shape_of(1)[axis], node.shape[axis]
    if count == length:
        return b
    first, back = _axis_first(axis, a.ndim)
    planes, joined = permuted(a, first), permuted(b, first)
    start = 0 if start is None else start
    if start:
        joined = moa.cat(moa.take([start], planes), joined)
    if start + count != length:
        rest = moa.drop(_vector(node.known.value(start + count)), planes)
        joined = moa.cat(joined, rest)
    return permuted(joined, back)


def _axis_first(axis: int, rank: int) -> tuple[list[int], list[int]]:
    """The orders of axes that bring one to the front, and back."""
    first = [axis, *(k for k in range(rank) if k != axis)]
    return first, [*range(1, axis + 1), 0, *range(axis + 1, rank)]


def _is_split_where(node: fx.Node) -> str | None:
    """Whether the parts begin where the graph says."""
    axis: Any = node.args[2] if len(node.args) > 2 else 0
    counts = [extent(value.shape[axis]) for value in node.meta["val"]]
    if not all(isinstance(count, int) for count in counts[:-1]):
        return "a place that a call says"
    return None


@register(
    "shape",
    aten.split.Tensor,
    aten.split_with_sizes.default,
    reason=_is_split_where,
)
def _split(node: Node, a: Any, sizes: Any, dim: int = 0) -> Any:
    axis, parts, start = dim % a.ndim, [], 0
    for value in node.value:
        count = extent(value.shape[axis])
        if not isinstance(start, int):
            raise UntranslatableError("a part that begins where a call says")
        parts.append(_part(a, axis, start, node.known.value(count)))
        start = start + count
    return tuple(parts)


@register("shape", aten.unbind.int)
def _unbound(node: Node, a: Any, dim: int = 0) -> Any:
    planes = permuted(a, _axis_first(dim % a.ndim, a.ndim)[0])
    return tuple(moa.psi([place], planes) for place in range(len(node.value)))


def _is_rolled(node: fx.Node) -> str | None:
    return None if len(node.args) > 2 and node.args[2] else "no axis"


@register("shape", aten.roll.default, reason=_is_rolled)
def _roll(node: Node, a: Any, shifts: Any, dims: Any = ()) -> Any:
    for shift, dim in zip(shifts, dims, strict=True):
        if not isinstance(shift, int):
            raise UntranslatableError("a shift that a call gives")
        first, back = _axis_first(dim % a.ndim, a.ndim)
        a = permuted(moa.rotate(-shift, permuted(a, first)), back)
    return a


def _from_the_start(node: fx.Node) -> str | None:
    """What is known of a slice whose gradient this is."""
    start, step = node.args[3], node.args[5] if len(node.args) > 5 else 1
    if not isinstance(start, int) or start < 0 or step != 1:
        return "a slice that begins where a call says, or has steps"
    return None


@register("shape", aten.slice_backward.default, reason=_from_the_start)
def _slice_gradient(
    node: Node, a: Any, sizes: Any, dim: int, start: int, end: Any, step: int = 1
) -> Any:
    axis = dim % a.ndim
    after = node.shape[axis] - node.shape_of(0)[axis] - start
    return _between_zeros(node, a, axis, start, after)


def _at_a_number(node: fx.Node) -> str | None:
    return None if isinstance(node.args[3], int) else "a place that a call says"


@register("shape", aten.select_backward.default, reason=_at_a_number)
def _select_gradient(node: Node, a: Any, sizes: Any, dim: int, index: int) -> Any:
    axis = dim % (a.ndim + 1)
    length: Any = node.shape[axis]
    index = index + length if index < 0 else index
    return _between_zeros(node, with_axis(a, axis, 1), axis, index, length - index - 1)


def _between_zeros(node: Node, a: Any, axis: int, before: Extent, after: Extent) -> Any:
    """An array with so many planes of zeros along an axis before and after it."""
    first, back = _axis_first(axis, a.ndim)
    joined = permuted(a, first)
    rest = [node.shape[k] for k in first[1:]]

    def zeros(count: Extent) -> Any:
        zero = converted(0, node.value.dtype)
        return broadcast(zero, (), (count, *rest), node.known)

    if before != 0:
        joined = moa.cat(zeros(before), joined)
    if after != 0:
        joined = moa.cat(joined, zeros(after))
    return permuted(joined, back)


# Elements at places that data say.


def _whole_places(node: fx.Node) -> str | None:
    """Places are whole numbers, on axes next to each other."""
    axes = [k for k, each in enumerate(node.args[1]) if each is not None]  # pyright: ignore
    if axes != list(range(axes[0], axes[-1] + 1)):
        return "indices of axes apart"
    for axis in axes:
        places = node.args[1][axis]  # pyright: ignore
        if places.meta["val"].dtype not in (torch.int64, torch.int32):  # pyright: ignore
            return "truth values as indices"
    return None


def _planes_at(a: Any, places: Any) -> Any:
    """The planes of the first axis at places."""

    def plane(place: Any, planes: Any) -> Any:
        return moa.psi(moa.reshape([1], place), planes)

    return moa.omega(plane, (0, a.ndim), places, a)


@register("shape", aten.embedding.default)
def _embedding(node: Node, weight: Any, places: Any, *options: Any) -> Any:
    return _planes_at(weight, places)


@register("shape", aten.index_select.default)
def _index_select(node: Node, a: Any, dim: int, places: Any) -> Any:
    first, back = _axis_first(dim % a.ndim, a.ndim)
    return permuted(_planes_at(permuted(a, first), places), back)


@register("shape", aten.index.Tensor, aten._unsafe_index.Tensor, reason=_whole_places)
def _index(node: Node, a: Any, indices: Sequence[Any]) -> Any:
    axes = [axis for axis, each in enumerate(indices) if each is not None]
    given: Any = node.node.args[1]
    shapes = [extents(given[axis].meta["val"].shape) for axis in axes]
    rank = max(map(len, shapes))
    wanted = node.shape[axes[0] : axes[0] + rank]
    entries: list[Any] = []
    for axis, shape in zip(axes, shapes, strict=True):
        places = converted(indices[axis], torch.int64)
        count = converted(node.known.value(node.shape_of(0)[axis]), torch.int64)
        places = moa.where(places < 0, places + count, places)
        entries.append(broadcast(places, shape, wanted, node.known))
    others = [axis for axis in range(a.ndim) if axis not in axes]
    planes = permuted(a, [*axes, *others])
    if len(entries) == 1:
        found = _planes_at(planes, entries[0])
    else:
        found = moa.psi(_together(entries), planes)
    axis = axes[0]
    order = [*range(rank, rank + axis), *range(rank), *range(rank + axis, found.ndim)]
    return permuted(found, order)


def _together(entries: Sequence[Any]) -> Any:
    """Arrays of places as one array of indices, which are its last axis."""
    joined = with_axis(entries[0], 0, 1)
    for entry in entries[1:]:
        joined = moa.cat(joined, with_axis(entry, 0, 1))
    return permuted(joined, [*range(1, joined.ndim), 0])


def _is_row(node: fx.Node) -> str | None:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    return None if operand.meta["val"].dim() else "a scalar"


@register("shape", aten.gather.default, reason=_is_row)
def _gather(node: Node, a: Any, dim: int, places: Any, **options: Any) -> Any:
    axis = dim % a.ndim
    last, _ = _axis_last(axis, a.ndim)
    before, after = node.shape_of(0), node.shape
    for other in range(a.ndim):
        if other != axis and before[other] != after[other]:
            a = _part(a, other, 0, node.known.value(after[other]))

    def row(cells: Any, places: Any) -> Any:
        def element(place: Any, cells: Any) -> Any:
            return moa.psi(moa.reshape([1], place), cells)

        return moa.omega(element, (0, 1), places, cells)

    found = moa.omega(row, (1, 1), permuted(a, last), permuted(places, last))
    return permuted(found, _axis_last(axis, a.ndim)[1])


def _axis_last(axis: int, rank: int) -> tuple[list[int], list[int]]:
    """The orders of axes that bring one to the end, and back."""
    last = [*(k for k in range(rank) if k != axis), axis]
    return last, [*range(axis), rank - 1, *range(axis, rank - 1)]


def _one_place(node: fx.Node) -> str | None:
    """One update for each row."""
    operand, dim, places = node.args[:3]
    assert isinstance(operand, fx.Node)
    assert isinstance(places, fx.Node)
    before = extents(operand.meta["val"].shape)
    here = extents(places.meta["val"].shape)
    if not before or not isinstance(dim, int):
        return "a scalar"
    axis = dim % len(before)
    wanted = (*before[:axis], 1, *before[axis + 1 :])
    return None if here == wanted else SCATTERED


SCATTERED = "updates where data say, which PyTorch does in one go"


@register("pointwise", aten.scatter.value, aten.scatter.src, reason=_one_place)
def _scatter(node: Node, a: Any, dim: int, places: Any, update: Any) -> Any:
    axis = dim % a.ndim
    length = node.known.value(node.shape[axis])
    numbers = converted(moa.iota(length), torch.int64)
    for other in range(a.ndim):
        if other != axis:
            count = node.known.value(node.shape[other])
            numbers = with_axis(numbers, min(other, numbers.ndim), count)
    spread = with_axis(without_axis(places, axis), axis, length)
    update = converted(update, node.value.dtype)
    if update.ndim:
        update = with_axis(without_axis(update, axis), axis, length)
    return moa.where(numbers == converted(spread, torch.int64), update, a)


@register("shape", aten.constant_pad_nd.default)
def _pad(node: Node, a: Any, widths: Sequence[Any], number: Any = 0) -> Any:
    if not all(isinstance(width, int) for width in widths):
        raise UntranslatableError("a width that a call gives")
    shape = list(node.shape_of(0))
    for place in range(len(widths) // 2):
        axis = a.ndim - 1 - place
        low, high = widths[2 * place : 2 * place + 2]
        kept = shape[axis] + min(low, 0) + min(high, 0)
        if min(low, high) < 0:
            a = _part(a, axis, max(-low, 0), node.known.value(kept))
        first, back = _axis_first(axis, a.ndim)
        planes = permuted(a, first)
        rest = [shape[k] for k in first[1:]]
        filled = converted(number, node.value.dtype)
        if low > 0:
            planes = moa.cat(broadcast(filled, (), (low, *rest), node.known), planes)
        if high > 0:
            planes = moa.cat(planes, broadcast(filled, (), (high, *rest), node.known))
        a = permuted(planes, back)
        shape[axis] = kept + max(low, 0) + max(high, 0)
    return a


def _vector(count: Any) -> Any:
    return [count] if isinstance(count, int) else moa.reshape([1], count)


@register("shape", aten.flip.default)
def _flip(node: Node, a: Any, dims: Sequence[int]) -> Any:
    for dim in dims:
        axis = dim % a.ndim
        planes = permuted(a, [axis, *(k for k in range(a.ndim) if k != axis)])
        back = [*range(1, axis + 1), 0, *range(axis + 1, a.ndim)]
        a = permuted(moa.reverse(planes), back)
    return a


@register("shape", aten.cat.default)
def _cat(node: Node, tensors: Sequence[Any], dim: int = 0) -> Any:
    rank = len(node.shape)
    if any(tensor.ndim != rank for tensor in tensors):
        raise UntranslatableError("empty tensors to be joined")
    axis = dim % rank
    first = [axis, *(k for k in range(rank) if k != axis)]
    parts = [permuted(converted(t, node.value.dtype), first) for t in tensors]
    joined = parts[0]
    for part in parts[1:]:
        joined = moa.cat(joined, part)
    return permuted(joined, [*range(1, axis + 1), 0, *range(axis + 1, rank)])
