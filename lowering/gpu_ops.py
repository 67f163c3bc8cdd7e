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
    IntAttr,
    IntegerAttr,
    IntegerType,
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
from xdsl.dialects.llvm import LLVMPointerType, LLVMStructType
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
    traits_def,
    var_operand_def,
)
from xdsl.traits import NoMemoryEffect
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

POINTER = LLVMPointerType()
"""An address."""

SHARED_POINTER = LLVMPointerType(IntAttr(3))
"""An address in the memory of a block."""

MAP_BYTES = 128
"""The size of a tensor map, twice what its address is a multiple of."""

MAP_ALIGNMENT = "llvm.align"
"""The attribute of a kernel's argument that is a tensor map, by value."""

CLUSTER_SHAPE = "nvvm.cluster_dim"
"""The attribute of a kernel that says how many blocks a cluster has along each axis."""

CLUSTER_POINTER = LLVMPointerType(IntAttr(7))
"""An address in the memory of a block of the same cluster."""


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
class VoteOp(IRDLOperation):
    """Whether something holds in all lanes of a warp."""

    name = "nvvm.vote.sync"

    mask = operand_def(i32)
    value = operand_def(i1)
    kind = prop_def(AnyAttr())
    result = result_def(i1)

    def __init__(self, mask: SSAValue, value: SSAValue):
        super().__init__(
            operands=[mask, value],
            properties={"kind": _opaque("nvvm.vote_sync_kind", " all", False)},
            result_types=[i1],
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


# The copy engine of Hopper, and barriers in memory.


@irdl_op_definition
class TensorMapOp(IRDLOperation):
    """What the copy engine has to know of an array: a tensor map, made by the host.

    An operation of the host only; moa-plan-launches says in the plan what is in it. The
    extents are those of the array, the strides its distances in elements along all axes
    but the last one, along which elements lie next to each other; `box` is what a copy
    moves.
    """

    name = "moa_gpu.tensor_map"

    memory = operand_def(MemRefType)
    extents = var_operand_def(IndexType)
    strides = var_operand_def(IndexType)
    box = prop_def(DenseArrayBase)
    result = result_def(LLVMPointerType)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(NoMemoryEffect())

    def __init__(
        self,
        memory: SSAValue,
        extents: Sequence[SSAValue],
        strides: Sequence[SSAValue],
        box: Sequence[int],
    ):
        super().__init__(
            operands=[memory, extents, strides],
            properties={"box": DenseArrayBase.from_list(i64, list(box))},
            result_types=[POINTER],
        )


@irdl_op_definition
class IntToPointerOp(IRDLOperation):
    """A number as an address in a space."""

    name = "llvm.inttoptr"

    arg = operand_def(i64)
    res = result_def(LLVMPointerType)

    def __init__(self, arg: SSAValue, type_: LLVMPointerType):
        super().__init__(operands=[arg], result_types=[type_])


@irdl_op_definition
class CastSpaceOp(IRDLOperation):
    """The same address in another space."""

    name = "llvm.addrspacecast"

    arg = operand_def(LLVMPointerType)
    res = result_def(LLVMPointerType)

    def __init__(self, arg: SSAValue, type_: LLVMPointerType):
        super().__init__(operands=[arg], result_types=[type_])


@irdl_op_definition
class InitBarrierOp(IRDLOperation):
    """Makes a barrier in memory that expects so many arrivals in each phase."""

    name = "nvvm.mbarrier.init"

    addr = operand_def(LLVMPointerType)
    count = operand_def(i32)

    def __init__(self, addr: SSAValue, count: SSAValue):
        super().__init__(operands=[addr, count])


@irdl_op_definition
class FenceInitOp(IRDLOperation):
    """Lets other threads, and the copy engine, see barriers that were made."""

    name = "nvvm.fence.mbarrier.init"


_OF_BLOCK = ("nvvm.mem_scope", "cta")

_OF_CLUSTER = ("nvvm.mem_scope", "cluster")


@irdl_op_definition
class ArriveOp(IRDLOperation):
    """Arrives at a barrier in memory; what was read and written is done by then."""

    name = "nvvm.mbarrier.arrive"

    addr = operand_def(LLVMPointerType)
    scope = prop_def(AnyAttr())
    relaxed = prop_def(BoolAttr)
    result = result_def(i64)

    def __init__(self, addr: SSAValue):
        super().__init__(
            operands=[addr],
            properties={
                "scope": upstream_attribute(*_OF_BLOCK),
                "relaxed": BoolAttr.from_bool(False),
            },
            result_types=[i64],
        )


@irdl_op_definition
class ArriveRemotelyOp(IRDLOperation):
    """Arrives at a barrier in the memory of a block of the cluster."""

    name = "nvvm.mbarrier.arrive"

    addr = operand_def(LLVMPointerType)
    scope = prop_def(AnyAttr())
    relaxed = prop_def(BoolAttr)

    def __init__(self, addr: SSAValue):
        super().__init__(
            operands=[addr],
            properties={
                "scope": upstream_attribute(*_OF_CLUSTER),
                "relaxed": BoolAttr.from_bool(False),
            },
        )


@irdl_op_definition
class MapToBlockOp(IRDLOperation):
    """Where an address of a block's memory is in that of another of the cluster."""

    name = "nvvm.mapa"

    addr = operand_def(LLVMPointerType)
    rank = operand_def(i32)
    result = result_def(LLVMPointerType)

    def __init__(self, addr: SSAValue, rank: SSAValue):
        super().__init__(operands=[addr, rank], result_types=[CLUSTER_POINTER])


@irdl_op_definition
class ClusterArriveOp(IRDLOperation):
    """Counts a thread at the barrier of its cluster, which it does not wait at."""

    name = "nvvm.cluster.arrive"


@irdl_op_definition
class ClusterWaitOp(IRDLOperation):
    """Waits until all threads of the cluster have arrived at its barrier."""

    name = "nvvm.cluster.wait"


@irdl_op_definition
class ArriveExpectingOp(IRDLOperation):
    """Arrives at a barrier in memory that so many bytes are to arrive at as well."""

    name = "nvvm.mbarrier.arrive.expect_tx"

    addr = operand_def(LLVMPointerType)
    bytes = operand_def(i32)
    scope = prop_def(AnyAttr())
    relaxed = prop_def(BoolAttr)

    def __init__(self, addr: SSAValue, bytes_: SSAValue):
        super().__init__(
            operands=[addr, bytes_],
            properties={
                "scope": upstream_attribute(*_OF_BLOCK),
                "relaxed": BoolAttr.from_bool(False),
            },
        )


@irdl_op_definition
class CopyBoxOp(IRDLOperation):
    """Has the copy engine copy a box of an array into the memory of the block.

    What is beyond the array is zero. The bytes arrive at a barrier in memory. The first
    coordinate is that along which elements lie next to each other. With a mask it is
    copied to the same place in the memory of each block of the cluster that has a bit,
    and arrives at the barrier there.
    """

    name = "nvvm.cp.async.bulk.tensor.shared.cluster.global"

    dst = operand_def(LLVMPointerType)
    map = operand_def(LLVMPointerType)
    coordinates = var_operand_def(i32)
    barrier = operand_def(LLVMPointerType)
    offsets = var_operand_def(IntegerType(16))
    mask = opt_operand_def(IntegerType(16))
    hint = opt_operand_def(i64)
    predicate = opt_operand_def(i1)
    mode = prop_def(AnyAttr())
    is_cta_only = prop_def(BoolAttr, prop_name="isCTAOnly")

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def __init__(
        self,
        dst: SSAValue,
        map_: SSAValue,
        coordinates: Sequence[SSAValue],
        barrier: SSAValue,
        mask: SSAValue | None = None,
    ):
        super().__init__(
            operands=[dst, map_, coordinates, barrier, [], mask, None, None],
            properties={
                "mode": upstream_attribute("nvvm.tma_load_mode", "tile"),
                "isCTAOnly": BoolAttr.from_bool(False),
            },
        )


@irdl_op_definition
class PrefetchMapOp(IRDLOperation):
    """Has a tensor map at hand before it is used."""

    name = "nvvm.prefetch"

    addr = operand_def(LLVMPointerType)
    tensormap = prop_def(UnitAttr)

    def __init__(self, addr: SSAValue):
        super().__init__(operands=[addr], properties={"tensormap": UnitAttr()})


@irdl_op_definition
class SetRegistersOp(IRDLOperation):
    """Gives registers of the threads of a warp group back, or takes more."""

    name = "nvvm.setmaxregister"

    count = prop_def(IntegerAttr, prop_name="regCount")
    action = prop_def(AnyAttr())

    def __init__(self, count: int, increases: bool):
        action = "increase" if increases else "decrease"
        super().__init__(
            properties={
                "regCount": IntegerAttr(count, i32),
                "action": _opaque("nvvm.action", f" {action}", False),
            }
        )


@irdl_op_definition
class NamedBarrierOp(IRDLOperation):
    """Waits until so many threads of a block are at the barrier of a number."""

    name = "nvvm.barrier"

    id = operand_def(i32)
    count = operand_def(i32)
    segments = prop_def(DenseArrayBase, prop_name="operandSegmentSizes")

    def __init__(self, id_: SSAValue, count: SSAValue):
        super().__init__(
            operands=[id_, count],
            properties={
                "operandSegmentSizes": DenseArrayBase.from_list(i32, [1, 1, 0])
            },
        )


@irdl_op_definition
class NamedArriveOp(IRDLOperation):
    """Counts a thread at the barrier of a number, which it does not wait at."""

    name = "nvvm.barrier.arrive"

    id = operand_def(i32)
    count = operand_def(i32)

    def __init__(self, id_: SSAValue, count: SSAValue):
        super().__init__(operands=[id_, count])


@irdl_op_definition
class WarpBarrierOp(IRDLOperation):
    """Waits until all lanes of a warp are here."""

    name = "nvvm.bar.warp.sync"

    mask = operand_def(i32)

    def __init__(self, mask: SSAValue):
        super().__init__(operands=[mask])
