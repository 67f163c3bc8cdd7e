"""Layouts: the bijection gamma between full indices and flat addresses.

Row-major gamma is the Horner scheme `x_0 = i_0; x_k = x_(k-1) * s_k + i_k`,
column-major the same with the axes reversed (Mullin 1988; Mullin and Jenkins 1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import prod


class Order(StrEnum):
    """The two layouts of the family that need no parameter."""

    ROW = "row"
    COLUMN = "column"


def stride_axes(rank: int, axis: int, order: Order) -> range:
    """The axes whose extents multiply to the stride of `axis`.

    >>> list(stride_axes(3, 0, Order.ROW)), list(stride_axes(3, 2, Order.COLUMN))
    ([1, 2], [0, 1])
    """
    return range(axis + 1, rank) if order is Order.ROW else range(0, axis)


def strides(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """The stride, in elements, of each axis of an array of this shape.

    >>> strides((3, 4, 5), Order.ROW), strides((3, 4, 5), Order.COLUMN)
    ((20, 5, 1), (1, 3, 12))
    """
    rank = len(shape)
    return tuple(
        prod(shape[k] for k in stride_axes(rank, axis, order)) for axis in range(rank)
    )


def gamma(index: Sequence[int], shape: Sequence[int], order: Order = Order.ROW) -> int:
    """The flat address of a full index.

    Raises:
        IndexError: if the index is longer or shorter than the shape, or not within it.

    >>> gamma((1, 2), (3, 4)), gamma((1, 2), (3, 4), Order.COLUMN)
    (6, 7)
    """
    if len(index) != len(shape):
        raise IndexError(
            f"gamma needs a full index: expected {len(shape)} entries, got {len(index)}"
        )
    for position, (entry, extent) in enumerate(zip(index, shape, strict=True)):
        if not 0 <= entry < extent:
            raise IndexError(
                f"index entry {position} out of range: expected 0 <= entry < {extent}, "
                f"got {entry}"
            )
    return sum(i * s for i, s in zip(index, strides(shape, order), strict=True))


def gamma_inverse(
    address: int, shape: Sequence[int], order: Order = Order.ROW
) -> tuple[int, ...]:
    """The full index of a flat address: the inverse of `gamma`.

    Raises:
        IndexError: if the address is not within `0 <= address < total`.

    >>> gamma_inverse(6, (3, 4)), gamma_inverse(7, (3, 4), Order.COLUMN)
    ((1, 2), (1, 2))
    """
    if not 0 <= address < prod(shape):
        raise IndexError(
            f"address out of range: expected 0 <= address < {prod(shape)}, "
            f"got {address}"
        )
    steps = zip(strides(shape, order), shape, strict=True)
    return tuple(address // stride % extent for stride, extent in steps)
