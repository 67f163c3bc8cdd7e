"""Vectors put together from the elements of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xdsl.dialects import vector
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import AnyFloat, DenseArrayBase, VectorType, i64
from xdsl.dialects.utils import FastMathFlag
from xdsl.dialects.vector import CombiningKindAttr, CombiningKindFlag
from xdsl.ir import SSAValue
from xdsl.utils.hints import isa

from moa_dialect.types import dtype_of

if TYPE_CHECKING:
    from moa_dialect.lowering.vector_code import VectorCode


def transposed(code: VectorCode, rows: Sequence[SSAValue]) -> list[SSAValue]:
    """The transpose of a square of vectors, in log2 steps of shuffles of two."""
    count = len(rows)
    current = list(rows)
    step = 1
    while step < count:
        after = list(current)
        for low in range(count):
            if low & step:
                continue
            high = low | step
            first = [count + k - step if k & step else k for k in range(count)]
            second = [count + k if k & step else k + step for k in range(count)]
            after[low] = shuffled(code, current[low], current[high], first)
            after[high] = shuffled(code, current[low], current[high], second)
        current = after
        step *= 2
    return current


def across(
    code: VectorCode,
    value: SSAValue,
    combine: Callable[[SSAValue, SSAValue], SSAValue],
) -> SSAValue:
    """All lanes of a vector combined into one scalar, in log2 steps."""
    type_ = value.type
    assert isa(type_, VectorType)
    (count,) = type_.get_shape()
    step = count // 2
    while step:
        turned = [(k + step) % count for k in range(count)]
        value = combine(value, shuffled(code, value, value, turned))
        step //= 2
    return code.emit(vector.ExtractOp(value, [0], type_.element_type))


def reduced(code: VectorCode, kind: str, value: SSAValue) -> SSAValue:
    """All lanes of a vector combined into one scalar."""
    type_ = value.type
    assert isa(type_, VectorType)
    operands = [value]
    if kind == "add" and isinstance(type_.element_type, AnyFloat):
        # Otherwise sums start from 0, and -0 is lost.
        operands.append(code.constant(-0.0, type_.element_type, False))
    # xDSL's constructor gives the result the type of the vector.
    op = vector.ReductionOp.create(
        operands=operands,
        result_types=[type_.element_type],
        properties={
            "kind": CombiningKindAttr(CombiningKindFlag(kind)),
            "fastmath": FastMathFlagsAttr([FastMathFlag.REASSOC]),
        },
    )
    return code.emit(op)


_GROUP = 16
"""How many bytes of a vector shuffles go between at no more than the least cost."""


def sums_of_rows(
    code: VectorCode,
    rows: Sequence[SSAValue],
    combine: Callable[[SSAValue, SSAValue], SSAValue],
) -> SSAValue:
    """A vector of what the lanes of each row combine to, of as many rows as lanes.

    Two rows are mixed and their halves combined, then what two such gave, and so on:
    elements within groups of 16 bytes first, then whole groups.
    """
    type_ = rows[0].type
    assert isa(type_, VectorType)
    (count,) = type_.get_shape()
    group = min(count, _GROUP // dtype_of(type_.element_type).itemsize)
    current, unit = list(rows), 1
    while len(current) > 1:
        low: list[int] = []
        if unit < group:
            for first in range(0, count, group):
                for at in range(first, first + group // 2, unit):
                    low += [
                        *range(at, at + unit),
                        *range(count + at, count + at + unit),
                    ]
            high = [k + group // 2 for k in low]
        else:
            for row in (0, count):
                for first in range(row, row + count, 2 * group):
                    low += range(first, first + group)
            high = [k + group for k in low]
        current = [
            combine(shuffled(code, left, right, low), shuffled(code, left, right, high))
            for left, right in zip(current[::2], current[1::2], strict=True)
        ]
        unit *= 2
    return current[0]


def shuffled(
    code: VectorCode, left: SSAValue, right: SSAValue, mask: Sequence[int]
) -> SSAValue:
    """Elements of two vectors; the second's come after the first's in numbers."""
    type_ = left.type
    assert isa(type_, VectorType)
    type_ = VectorType(type_.element_type, [len(mask)])
    order = DenseArrayBase.from_list(i64, list(mask))
    return code.emit(vector.ShuffleOp(left, right, order, result_type=type_))
