"""Checking NumPy arrays against the types of a function's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
from xdsl.dialects.builtin import DYNAMIC_INDEX, MemRefType, TensorType
from xdsl.ir import Attribute
from xdsl.utils.hints import isa

from moa_dialect.errors import DTypeError, MoaError, ShapeError
from moa_dialect.types import dtype_of, element_of, shape_of

ArrayType: TypeAlias = tuple[np.dtype, tuple[int, ...]]
"""A dtype, and a shape that is below zero where an extent is dynamic."""


def is_array_type(type_: Attribute) -> bool:
    """Whether values of the type are arrays: ranked tensors and memrefs."""
    return isa(type_, TensorType) or isa(type_, MemRefType)


def array_type(type_: Attribute) -> ArrayType:
    """The dtype and shape (-1 where dynamic) of a type's values; a scalar has rank 0.

    Raises:
        DTypeError: if the element type is not one of the dialect's.
    """
    if is_array_type(type_):
        return dtype_of(element_of(type_)), shape_of(type_)
    return dtype_of(type_), ()


def check_arguments(
    function_name: str,
    names: Sequence[str],
    expected: Sequence[ArrayType],
    arrays: Sequence[np.ndarray],
) -> None:
    """Check arrays against the dtypes and shapes they are passed for.

    Nothing is converted. Extents that are dynamic are not compared:
    what must be equal is for the program to require.

    Args:
        function_name: named in the message about the number of arguments.
        names: the arguments' names, one for each type.
        expected: the arguments' dtypes and shapes, as `array_type` gives them.
        arrays: what is passed.

    Raises:
        MoaError: if the number of arrays is not the number of types.
        DTypeError: if an argument is no NumPy array or of another dtype.
        ShapeError: if a rank or a static extent differs.
    """
    if len(arrays) != len(expected):
        raise MoaError(
            f"{function_name}: expected {len(expected)} argument"
            f"{'' if len(expected) == 1 else 's'}, got {len(arrays)}"
        )
    for number, (type_, array) in enumerate(zip(expected, arrays, strict=True)):
        if type(array) is np.ndarray and (array.dtype, array.shape) == type_:
            continue
        _check(f"argument {number} '{names[number]}'", *type_, array)


def _check(
    argument: str, dtype: np.dtype, shape: tuple[int, ...], given: object
) -> None:
    if not isinstance(given, np.ndarray):
        raise DTypeError(
            f"{argument}: expected a NumPy array, got {type(given).__name__}"
        )
    array = cast(np.ndarray, given)
    if array.dtype != dtype:
        raise DTypeError(f"{argument}: expected {dtype}, got {array.dtype}")
    if array.ndim != len(shape):
        raise ShapeError(
            f"{argument}: expected rank {len(shape)}, got rank {array.ndim} with "
            f"shape {array.shape}"
        )
    for axis, (expected, extent) in enumerate(zip(shape, array.shape, strict=True)):
        if expected not in (DYNAMIC_INDEX, extent):
            raise ShapeError(
                f"{argument}: expected extent {expected} on axis {axis}, got {extent}"
            )
