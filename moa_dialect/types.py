"""Element types of the IR, NumPy dtypes, and how they correspond."""

from __future__ import annotations

from typing import Any, cast

import ml_dtypes
import numpy as np
from xdsl.dialects.builtin import (
    BFloat16Type,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    IndexType,
    IntegerType,
    MemRefType,
    TensorType,
)
from xdsl.ir import Attribute
from xdsl.utils.hints import isa

from moa_dialect.algebra.scalar import Identity, Kind
from moa_dialect.errors import DTypeError

_FLOATS: dict[str, tuple[Attribute, np.dtype]] = {
    "f64": (Float64Type(), np.dtype(np.float64)),
    "f32": (Float32Type(), np.dtype(np.float32)),
    "f16": (Float16Type(), np.dtype(np.float16)),
    "bf16": (BFloat16Type(), np.dtype(ml_dtypes.bfloat16)),
}
_INTEGERS: dict[str, tuple[Attribute, np.dtype]] = {
    "i64": (IntegerType(64), np.dtype(np.int64)),
    "i32": (IntegerType(32), np.dtype(np.int32)),
    "i1": (IntegerType(1), np.dtype(np.bool_)),
}
_BY_NAME = {**_FLOATS, **_INTEGERS, "index": (IndexType(), np.dtype(np.int64))}
_DTYPES: dict[Attribute, np.dtype] = dict(_BY_NAME.values())
_TYPES: dict[np.dtype, Attribute] = {
    dtype: type_ for type_, dtype in (_FLOATS | _INTEGERS).values()
}

ELEMENT_TYPE_NAMES = tuple(_BY_NAME)

_BOOL = IntegerType(1)
_BOOL_IN_MEMORY = IntegerType(8)
_DTYPES[_BOOL_IN_MEMORY] = np.dtype(np.bool_)


def memory_element(element_type: Attribute) -> Attribute:
    """The type that elements have in memory: truth values take a byte, 0 or 1."""
    return _BOOL_IN_MEMORY if element_type == _BOOL else element_type


def dtype_of(element_type: Attribute) -> np.dtype:
    """The NumPy dtype that holds elements of this type (index as int64)."""
    try:
        return _DTYPES[element_type]
    except KeyError:
        raise DTypeError(
            f"unsupported element type: expected one of "
            f"{', '.join(ELEMENT_TYPE_NAMES)}, got {element_type}"
        ) from None


def known_dtype(type_: Attribute) -> np.dtype | None:
    """The NumPy dtype that holds elements of this type; None for any other type."""
    return _DTYPES.get(type_)


def element_type_of(dtype: Any) -> Attribute:
    """The element type for a NumPy dtype or for a name such as "f32".

    Raises:
        DTypeError: if there is none.
    """
    if isinstance(dtype, str) and dtype in _BY_NAME:
        return _BY_NAME[dtype][0]
    try:
        # To NumPy, None is a float and "i8" has eight bytes.
        found = np.dtype("O" if dtype is None else dtype)
        if isinstance(dtype, str) and dtype != found.name:
            raise KeyError
        return _TYPES[found]
    except (KeyError, TypeError):
        raise DTypeError(
            f"unsupported element type: expected one of "
            f"{', '.join(ELEMENT_TYPE_NAMES)}, got {dtype}"
        ) from None


def is_element_type(type_: Attribute) -> bool:
    """Whether arrays of the dialect may have this element type."""
    return type_ in _DTYPES and type_ != _BOOL_IN_MEMORY


def kind_of(element_type: Attribute) -> Kind:
    """What the scalar operations need to know of an element type."""
    dtype = dtype_of(element_type)
    if dtype == np.bool_:
        return "bool"
    return "int" if np.issubdtype(dtype, np.integer) else "float"


def identity_value(identity: Identity, element_type: Attribute) -> float | int:
    """The identity element as a number of this type."""
    dtype = dtype_of(element_type)
    is_float = kind_of(element_type) == "float"
    match identity:
        case "zero" | "false":
            return 0.0 if is_float else 0
        case "one" | "true":
            return 1.0 if is_float else 1
        case "lowest":
            return float("-inf") if is_float else int(np.iinfo(dtype).min)
        case "highest":
            return float("inf") if is_float else int(np.iinfo(dtype).max)


def dense(array: np.ndarray, element_type: Attribute) -> DenseIntOrFPElementsAttr:
    """A NumPy array as a dense attribute of a tensor with this element type."""
    type_: Any = TensorType(element_type, array.shape)
    values: list[Any] = array.reshape(-1).tolist()
    return cast(
        DenseIntOrFPElementsAttr, DenseIntOrFPElementsAttr.from_list(type_, values)
    )


def array_of(attribute: DenseIntOrFPElementsAttr) -> np.ndarray:
    """A dense attribute as a NumPy array."""
    values = np.array(attribute.get_values(), dtype_of(attribute.get_element_type()))
    return values.reshape(attribute.get_shape())


def shape_of(type_: Attribute) -> tuple[int, ...]:
    """The shape of a tensor or memref type, below zero for a dynamic extent."""
    assert isa(type_, TensorType) or isa(type_, MemRefType)
    return type_.get_shape()


def element_of(type_: Attribute) -> Attribute:
    """The element type of a tensor or memref type."""
    assert isa(type_, TensorType) or isa(type_, MemRefType)
    return type_.get_element_type()
