"""Shapes of tensors whose extents may be symbols, and arrays in those shapes."""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import sympy
import torch

from moa_dialect.errors import MoaError
from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.trace import Array, as_array
from moa_dialect.library.broadcasting import extent as extent_of
from moa_dialect.library.broadcasting import repeated

Extent: TypeAlias = "int | sympy.Expr"
"""A number, or an expression of symbols that a call gives values."""


class UntranslatableError(MoaError):
    """A part of a graph has no translation; it stays with PyTorch."""


def extent(value: Any) -> Extent:
    """An extent as PyTorch gives it."""
    if isinstance(value, torch.SymInt):
        expression = value.node.expr
        return int(expression) if expression.is_Integer else expression
    return int(value)


def extents(shape: Sequence[Any]) -> tuple[Extent, ...]:
    """A shape as PyTorch gives it."""
    return tuple(map(extent, shape))


def order_in_memory(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The axes from the slowest to the fastest, None if elements do not lie densely.

    Axes of extent 1 keep their place as far as possible.
    """
    shape = [_hint(e) for e in tensor.shape]
    strides = [_hint(s) for s in tensor.stride()]
    if None in shape or None in strides:
        return None
    axes = [axis for axis, e in enumerate(shape) if e != 1]
    axes.sort(key=lambda axis: -strides[axis])  # pyright: ignore
    expected = 1
    for axis in reversed(axes):
        if strides[axis] != expected:
            return None
        expected *= shape[axis] or 1
    if axes == sorted(axes):
        return tuple(range(len(shape)))
    ones = [axis for axis, e in enumerate(shape) if e == 1]
    return (*ones, *axes)


def _hint(value: Any) -> int | None:
    if isinstance(value, torch.SymInt):
        hint = value.node.hint
        return None if hint is None else int(hint)
    return int(value)


class Extents:
    """Where the value of a symbol is found while a program is traced."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Array, int | None]] = {}

    def learn(self, array: Array, shape: Sequence[Extent]) -> None:
        """The extents of an argument are those of a tensor."""
        for axis, value in enumerate(shape):
            if not isinstance(value, int):
                self._known.setdefault(value, (array, axis))

    def learn_scalar(self, array: Array, value: Extent) -> None:
        """An argument is the value of an extent."""
        self._known.setdefault(value, (array, None))

    def __contains__(self, value: Any) -> bool:
        return value in self._known

    def value(self, of: Extent) -> Any:
        """An extent as a number, or as a scalar of the program.

        Raises:
            UntranslatableError: for an expression of something unknown.
        """
        if isinstance(of, int):
            return of
        if of.is_Integer:
            return int(of)
        if of in self._known:
            array, axis = self._known[of]
            return array if axis is None else extent_of(array, axis)
        for other in self._known:
            times, more = other / of, other - of
            if times.is_Integer and times > 1:
                return moa.floor_divide(self.value(other), int(times))
            if more.is_Integer:
                return self.value(other) - int(more)
        if isinstance(of, sympy.Add | sympy.Mul):
            first, *rest = map(self.value, of.args)
            for other in rest:
                first = first + other if isinstance(of, sympy.Add) else first * other
            return first
        raise UntranslatableError(f"no value is known for the extent {of}")

    def vector(self, shape: Sequence[Extent]) -> Any:
        """A shape as the vector that `moa.reshape` takes."""
        if all(isinstance(e, int) for e in shape):
            return list(shape)
        entries = [
            as_array([e]) if isinstance(e, int) else moa.reshape([1], self.value(e))
            for e in shape
        ]
        result = entries[0]
        for entry in entries[1:]:
            result = moa.cat(_as_index(result), _as_index(entry))
        return result


def _as_index(a: Any) -> Any:
    return moa.cast(a, "index") if str(a.element_type) != "index" else a


def permuted(a: Any, axes: Sequence[int]) -> Any:
    """The array whose axis k is axis `axes[k]`: what PyTorch calls permute."""
    if list(axes) == list(range(a.ndim)):
        return a
    return moa.transpose(a, [list(axes).index(axis) for axis in range(a.ndim)])


def with_axis(a: Any, axis: int, count: Any) -> Any:
    """An array with a new axis along which it is the same."""
    axes = list(range(a.ndim))
    return permuted(repeated(a, count), [*axes[:axis], a.ndim, *axes[axis:]])


def without_axis(a: Any, axis: int) -> Any:
    """An array without an axis of extent 1."""
    axes = [axis, *(other for other in range(a.ndim) if other != axis)]
    return moa.psi([0], permuted(a, axes))


def broadcast(
    a: Any, shape: Sequence[Extent], target: Sequence[Extent], known: Extents
) -> Any:
    """An array in a larger shape, as PyTorch expands it.

    Raises:
        UntranslatableError: if an extent has no value.
    """
    missing = len(target) - len(shape)
    result = a
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1 and target[missing + axis] != 1:
            result = without_axis(result, axis)
            result = with_axis(result, axis, known.value(target[missing + axis]))
    for axis in reversed(range(missing)):
        result = with_axis(result, 0, known.value(target[axis]))
    return result
