"""Operations of upstream's gpu, nvgpu, nvvm and vector dialects that xDSL lacks.

They verify their types and print in the generic form, which upstream reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    BoolAttr,
    DenseArrayBase,
    IndexType,
    IntegerAttr,
    MemRefType,
    UnitAttr,
    UnregisteredAttr,
    VectorType,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.llvm import LLVMStructType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.utils.hints import isa


@cache
def upstream_attribute(name: str, value: str) -> Attribute:
    """An attribute of a dialect that xDSL does not know: `#name<value>`.

    Each is made once: xDSL makes a class for it, which takes a millisecond.
    """
    kind = UnregisteredAttr.with_name_and_type(name, False)
    return kind(name, False, False, value)


@cache
def _opaque(name: str, value: str, is_type: bool) -> Attribute:
    """An attribute or type as MLIR prints those without a short form."""
    kind = UnregisteredAttr.with_name_and_type(name, is_type)
    return kind(name, is_type, True, value)


WORKGROUP = upstream_attribute("gpu.address_space", "workgroup")
"""The memory that the threads of a block share."""

TOKEN = UnregisteredAttr.with_name_and_type("nvgpu.device.async.token", True)(
    "nvgpu.device.async.token", True, False, ""
)
"""The type of what waits for copies."""


@irdl_op_definition
class ShuffleOp(IRDLOperation):
    """Exchanges values between the lanes of a warp."""

    name = "gpu.shuffle"

    value = operand_def(AnyAttr())
    offset = operand_def(i32)
    width = operand_def(i32)
    mode = prop_def(AnyAttr())
    result = result_def(AnyAttr())
    valid = result_def(i1)

    def __init__(self, value: SSAValue, offset: SSAValue, width: SSAValue, mode: str):
        super().__init__(
            operands=[value, offset, width],
            properties={"mode": _opaque("gpu.shuffle_mode", f" {mode}", False)},
            result_types=[value.type, i1],
        )


@irdl_op_definition
class DynamicSharedMemoryOp(IRDLOperation):
    """The memory of a block whose size the launch gives."""

    name = "gpu.dynamic_shared_memory"

    result = result_def(MemRefType)

    def __init__(self) -> None:
        super().__init__(
            result_types=[MemRefType(i8, [DYNAMIC_INDEX], memory_space=WORKGROUP)]
        )


@irdl_op_definition
class AsyncCopyOp(IRDLOperation):
    """Copies elements to shared memory in the background; the rest is zeros."""

    name = "nvgpu.device_async_copy"

    dst = operand_def(MemRefType)
    dst_indices = var_operand_def(IndexType)
    src = operand_def(MemRefType)
    src_indices = var_operand_def(IndexType)
    src_elements = opt_operand_def(IndexType)
    dst_elements = prop_def(IntegerAttr, prop_name="dstElements")
    bypass_l1 = opt_prop_def(UnitAttr, prop_name="bypassL1")
    token = result_def()

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def __init__(
        self,
        dst: SSAValue,
        dst_indices: Sequence[SSAValue],
        src: SSAValue,
        src_index: SSAValue,
        count: int,
        present: SSAValue | None,
        bypass_l1: bool,
    ):
        super().__init__(
            operands=[dst, dst_indices, src, [src_index], present],
            properties={
                "dstElements": IntegerAttr(count, IndexType()),
                "bypassL1": UnitAttr() if bypass_l1 else None,
            },
            result_types=[TOKEN],
        )


@irdl_op_definition
class CreateGroupOp(IRDLOperation):
    """Makes a group of the copies of a thread that are in none."""

    name = "nvgpu.device_async_create_group"

    tokens = var_operand_def()
    token = result_def()

    def __init__(self, tokens: Sequence[SSAValue] = ()):
        super().__init__(operands=[tokens], result_types=[TOKEN])


@irdl_op_definition
class WaitOp(IRDLOperation):
    """Waits until all groups of copies of a thread but the last few are done."""

    name = "nvgpu.device_async_wait"

    token = operand_def()
    groups = opt_prop_def(IntegerAttr, prop_name="numGroups")

    def __init__(self, token: SSAValue, groups: int):
        super().__init__(
            operands=[token], properties={"numGroups": IntegerAttr(groups, i32)}
        )


@irdl_op_definition
class LdMatrixOp(IRDLOperation):
    """Loads 8x8 matrices of 16-bit elements; each lane gives the address of a row."""

    name = "nvgpu.ldmatrix"

    src = operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    transpose = prop_def(BoolAttr)
    tiles = prop_def(IntegerAttr, prop_name="numTiles")
    result = result_def(VectorType)

    def __init__(
        self, src: SSAValue, indices: Sequence[SSAValue], tiles: int, transpose: bool
    ):
        assert isa(src.type, MemRefType)
        super().__init__(
            operands=[src, indices],
            properties={
                "transpose": BoolAttr.from_bool(transpose),
                "numTiles": IntegerAttr(tiles, i32),
            },
            result_types=[VectorType(src.type.element_type, [tiles, 2])],
        )


@irdl_op_definition
class MmaOp(IRDLOperation):
    """Adds the product of two fragments of matrices to a third, warp-wide.

    The shapes and the elements of a lane are those of the PTX instruction
    `mma.sync.aligned.row.col`: m16n8k16 for f16 and bf16, m8n8k4 for f64, and m16n8k8
    for numbers of f32 that are rounded to tf32, as words.
    """

    name = "nvvm.mma.sync"

    a = var_operand_def()
    b = var_operand_def()
    c = var_operand_def()
    shape = prop_def(AnyAttr())
    layout_a = prop_def(AnyAttr(), prop_name="layoutA")
    layout_b = prop_def(AnyAttr(), prop_name="layoutB")
    type_a = opt_prop_def(AnyAttr(), prop_name="multiplicandAPtxType")
    type_b = opt_prop_def(AnyAttr(), prop_name="multiplicandBPtxType")
    result = result_def(LLVMStructType)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def __init__(
        self,
        a: Sequence[SSAValue],
        b: Sequence[SSAValue],
        c: Sequence[SSAValue],
        element: Attribute,
    ):
        shapes = {"f64": (8, 8, 4), "f32": (16, 8, 8)}
        m, n, k = shapes.get(f"{element}", (16, 8, 16))
        names = {"bf16": "bf16", "f16": "f16", "f64": "f64", "f32": "tf32"}
        type_ = upstream_attribute("nvvm.mma_type", names[f"{element}"])
        super().__init__(
            operands=[a, b, c],
            properties={
                "shape": upstream_attribute("nvvm.shape", f"m = {m}, n = {n}, k = {k}"),
                "layoutA": upstream_attribute("nvvm.mma_layout", "row"),
                "layoutB": upstream_attribute("nvvm.mma_layout", "col"),
                "multiplicandAPtxType": type_,
                "multiplicandBPtxType": type_,
            },
            result_types=[LLVMStructType.from_type_list([v.type for v in c])],
        )


class _ConvertPairOp(IRDLOperation):
    """Rounds two f32 to a pair of narrow floats; the first is the upper one."""

    high = operand_def(f32)
    low = operand_def(f32)
    rounding = prop_def(AnyAttr(), prop_name="rnd")
    result = result_def(VectorType)

    def __init__(self, high: SSAValue, low: SSAValue, element: Attribute):
        super().__init__(
            operands=[high, low],
            properties={"rnd": upstream_attribute("nvvm.fp_rnd_mode", "rn")},
            result_types=[VectorType(element, [2])],
        )


@irdl_op_definition
class ConvertToBf16x2Op(_ConvertPairOp):
    """Rounds two f32 to a pair of bf16; the first is the upper one."""

    name = "nvvm.convert.f32x2.to.bf16x2"


@irdl_op_definition
class ConvertToF16x2Op(_ConvertPairOp):
    """Rounds two f32 to a pair of f16; the first is the upper one."""

    name = "nvvm.convert.f32x2.to.f16x2"


@irdl_op_definition
class FenceProxyOp(IRDLOperation):
    """Lets instructions that read shared memory see what threads wrote."""

    name = "nvvm.fence.proxy"

    kind = prop_def(AnyAttr())
    space = prop_def(AnyAttr())

    def __init__(self) -> None:
        super().__init__(
            properties={
                "kind": upstream_attribute("nvvm.proxy_kind", "async.shared"),
                "space": upstream_attribute("nvvm.shared_space", "cta"),
            }
        )


@irdl_op_definition
class FromElementsOp(IRDLOperation):
    """A vector of scalars."""

    name = "vector.from_elements"

    elements = var_operand_def()
    result = result_def(VectorType)

    def __init__(self, elements: Sequence[SSAValue]):
        type_ = VectorType(elements[0].type, [len(elements)])
        super().__init__(operands=[elements], result_types=[type_])


def static_position(*indices: int) -> DenseArrayBase:
    """A position in a vector or struct."""
    return DenseArrayBase.from_list(i64, list(indices))


@irdl_op_definition
class AlignedLoadOp(IRDLOperation):
    """Loads a vector from an address that is a multiple of some bytes."""

    name = "vector.load"

    base = operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    alignment = prop_def(IntegerAttr)
    result = result_def(VectorType)

    def __init__(
        self,
        base: SSAValue,
        indices: Sequence[SSAValue],
        type_: VectorType,
        bytes_: int,
    ):
        super().__init__(
            operands=[base, indices],
            properties={"alignment": IntegerAttr(bytes_, i64)},
            result_types=[type_],
        )


@irdl_op_definition
class AlignedStoreOp(IRDLOperation):
    """Stores a vector at an address that is a multiple of some bytes."""

    name = "vector.store"

    value = operand_def(VectorType)
    base = operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    alignment = prop_def(IntegerAttr)

    def __init__(
        self, value: SSAValue, base: SSAValue, indices: Sequence[SSAValue], bytes_: int
    ):
        super().__init__(
            operands=[value, base, indices],
            properties={"alignment": IntegerAttr(bytes_, i64)},
        )
