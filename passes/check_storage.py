"""moa-check-storage: scratch memory does not grow with the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from moa_dialect.errors import CompileError
from moa_dialect.ops.normal_form import ExtentOp, FixedExtentOp, FoldOp
from moa_dialect.ops.operational import BufferOp, LoopOp, RavOp, StoreOp
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_onf import PARTS, RESULT
from moa_dialect.types import dtype_of, element_of, shape_of
from moa_dialect.walking import operations


def is_result(function: FuncOp, value: SSAValue) -> bool:
    """Whether a value is the memory of a result: an argument marked `moa.result`."""
    return (
        isinstance(value, BlockArgument)
        and value.owner is function.body.block
        and function.arg_attrs is not None
        and RESULT in function.arg_attrs.data[value.index].data
    )


def output_extents(function: FuncOp) -> set[SSAValue]:
    """The values that are the extent of an axis of a result.

    They are the stops of the loops whose index a store into the result steps by, and
    the extents of the result's own memory.
    """
    found: set[SSAValue] = set()
    for op in operations(function):
        if isinstance(op, ExtentOp) and is_result(function, op.array):
            found.add(op.result)
        if not isinstance(op, StoreOp) or not isinstance(op.buffer.owner, RavOp):
            continue
        if is_result(function, op.buffer.owner.array):
            for index in op.indices:
                loop = (
                    index.owner.parent_op() if isinstance(index.owner, Block) else None
                )
                if isinstance(loop, LoopOp) and loop.stride_value == 1:
                    found.add(loop.stop)
    return found


def _grows(value: SSAValue) -> bool:
    """Whether a size depends on an extent of an array (or on data)."""
    owner = value.owner
    if isinstance(owner, Block):
        return True
    if isinstance(owner, arith.ConstantOp | FixedExtentOp):
        return False
    if isinstance(owner, ExtentOp) or owner.regions:
        return True  # A fold reads what its operands do not show.
    return not owner.operands or any(map(_grows, owner.operands))


def _enclosing_loops(op: Operation) -> Iterator[Operation]:
    parent = op.parent_op()
    while parent is not None:
        if isinstance(parent, LoopOp | FoldOp):
            yield parent
        parent = parent.parent_op()


def scratch_bytes(module: ModuleOp) -> int:
    """The bytes that all buffers of a module in operational normal form take.

    Raises:
        CompileError: if a buffer's size depends on extents that types do not give.
    """
    total = 0
    for op in operations(module):
        if not isinstance(op, BufferOp):
            continue
        count = prod(map(static_size, op.extents))
        total += count * dtype_of(element_of(op.result.type)).itemsize
    return total


def static_size(value: SSAValue) -> int:
    """The number a size is, from the types.

    Raises:
        CompileError: if types do not give it.
    """
    match value.owner:
        case ExtentOp() | FixedExtentOp() as op if op.static_value is not None:
            return op.static_value
        case arith.ConstantOp(value=IntegerAttr() as number):
            return number.value.data
        case arith.AddiOp(lhs=left, rhs=right):
            return static_size(left) + static_size(right)
        case arith.SubiOp(lhs=left, rhs=right):
            return static_size(left) - static_size(right)
        case arith.MuliOp(lhs=left, rhs=right):
            return static_size(left) * static_size(right)
        case _:
            raise CompileError("the size of the scratch is known only at the call")


@dataclass(frozen=True)
class CheckStoragePass(ModulePass):
    """Fails if a function allocates memory that grows with an extent of its input.

    Allowed are sizes that are numbers, up to `tile_bytes`, and accumulators of a fold
    over an output axis, one axis each and inside a loop: a row of the result at a time.
    So is, outside of loops, memory for the states of parts that moa-split-cascades
    makes: as many elements as so many results, whatever the folded axis is.
    """

    name = "moa-check-storage"

    tile_bytes: int = 1 << 18

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            outputs = output_extents(function)
            for inner in operations(function):
                reason = self._objection(inner, outputs)
                if reason is not None:
                    raise VerifyException(
                        f"@{function.sym_name.data}: scratch memory must not grow with "
                        f"the input: expected tile sizes or an accumulator over one "
                        f"output axis, got {inner.name} {reason}"
                    )

    def _objection(self, op: Operation, outputs: set[SSAValue]) -> str | None:
        """Why an allocation is not allowed; None if it is, or is no allocation."""
        if isinstance(op, BufferOp):
            sizes = [size for size in op.extents if _grows(size)]
            if PARTS in op.attributes and not any(_enclosing_loops(op)):
                return None
            if not sizes:
                return self._too_large(op.extents, element_of(op.result.type))
            if op.accumulator is None:
                return f"of {len(sizes)} extents of the input"
            if len(sizes) > 1 or not set(sizes) <= outputs:
                return "for accumulators over other than one output axis"
            if not any(_enclosing_loops(op)):
                return "for accumulators outside of every loop"
            return None
        if isinstance(op, memref.AllocOp | memref.AllocaOp):
            sizes = [size for size in op.dynamic_sizes if _grows(size)]
            if sizes:
                return f"of {len(sizes)} extents of the input"
            type_ = op.memref.type
            fixed = [extent for extent in shape_of(type_) if extent >= 0]
            return self._too_large(op.dynamic_sizes, element_of(type_), prod(fixed))
        return None

    def _too_large(
        self, sizes: Sequence[SSAValue], element: Attribute, factor: int = 1
    ) -> str | None:
        """Why memory of sizes that are numbers is not a tile; None if it is."""
        count = factor * prod(map(static_size, sizes))
        bytes_ = count * dtype_of(element).itemsize
        if bytes_ > self.tile_bytes:
            return f"of {bytes_} bytes, more than {self.tile_bytes}"
        return None
