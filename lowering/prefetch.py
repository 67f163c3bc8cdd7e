"""What a contraction will read soon, asked for early.

A contraction reads several rows of an array side by side, or the same few elements of
many rows: no hardware takes that for a stream, and where a row is read once, waiting
for it takes as long as all else. So each step of its loop asks for one more line.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    BoolAttr,
    IndexType,
    IntegerAttr,
    MemRefType,
    i1,
    i32,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    var_operand_def,
)

from moa_dialect.lowering.emitter import INDEX, Emitter
from moa_dialect.types import dtype_of, element_of

LINE = 64
"""How many bytes come from memory at a time."""


@irdl_op_definition
class PrefetchOp(IRDLOperation):
    """Asks for a line of memory to be read; any address will do."""

    name = "memref.prefetch"

    memory = operand_def(MemRefType)
    indices = var_operand_def(IndexType())
    is_write = prop_def(BoolAttr, prop_name="isWrite")
    locality = prop_def(IntegerAttr, prop_name="localityHint")
    is_data = prop_def(BoolAttr, prop_name="isDataCache")

    def __init__(self, memory: SSAValue, indices: Sequence[SSAValue]):
        super().__init__(
            operands=[memory, indices],
            properties={
                "isWrite": IntegerAttr(0, i1),
                "localityHint": IntegerAttr(3, i32),
                "isDataCache": IntegerAttr(1, i1),
            },
        )


def ask(
    code: Emitter,
    memory: SSAValue,
    address: SSAValue,
    along: SSAValue | None,
    stride: SSAValue | None,
    copies: int,
) -> None:
    """Ask for what comes after what is read at an address.

    Args:
        code: the emitter.
        memory: the memory.
        address: what is read: in the first of several rows that are read side by side,
            or the first of several elements of a row.
        along: the place in the rows, if they are read side by side: then for twice as
            many rows further on, which lie next to each other, a part at each place.
        stride: how far apart rows are.
        copies: how many rows are read side by side.
    """
    if along is None or stride is None:
        size = dtype_of(element_of(memory.type)).itemsize
        at = code.add(address, LINE // size)
    else:
        rest = code.mul(along, copies - 1)
        rows = code.make(arith.MuliOp, (stride, code.number(2 * copies)), INDEX)
        at = code.add(code.add(address, rest), rows)
    code.builder.insert(PrefetchOp(memory, [at]))
