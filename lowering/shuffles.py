"""Vectors put together from the elements of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xdsl.dialects import vector
from xdsl.dialects.builtin import DenseArrayBase, VectorType, i64
from xdsl.ir import SSAValue
from xdsl.utils.hints import isa

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


def shuffled(
    code: VectorCode, left: SSAValue, right: SSAValue, mask: Sequence[int]
) -> SSAValue:
    """Elements of two vectors; the second's come after the first's in numbers."""
    type_ = left.type
    assert isa(type_, VectorType)
    type_ = VectorType(type_.element_type, [len(mask)])
    order = DenseArrayBase.from_list(i64, list(mask))
    return code.emit(vector.ShuffleOp(left, right, order, result_type=type_))
