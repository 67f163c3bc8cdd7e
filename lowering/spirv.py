"""Kernels of a GPU as SPIR-V for OpenCL, by upstream MLIR."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from math import log
from typing import TYPE_CHECKING

from xdsl.builder import Builder
from xdsl.dialects import arith, gpu, llvm, math, memref, vector
from xdsl.dialects.builtin import (
    BFloat16Type,
    DenseArrayBase,
    FunctionType,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    NoneAttr,
    VectorType,
    i64,
)
from xdsl.dialects.memref import ViewOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering import upstream
from moa_dialect.lowering.gpu_ops import (
    WORKGROUP,
    AlignedLoadOp,
    AlignedStoreOp,
    DynamicSharedMemoryOp,
    upstream_attribute,
)
from moa_dialect.lowering.groups import WARP
from moa_dialect.lowering.nvvm import (
    device_module,
    expand_divisions,
    refuse_clusters,
    replace_by,
    without_assembly,
)
from moa_dialect.scalar_code import constant

if TYPE_CHECKING:
    from mlir import ir

CAPABILITIES = (
    *("Kernel", "Addresses", "Linkage", "GenericPointer", "Vector16"),
    *("Int64", "Int16", "Int8", "Float16", "Float64"),
    *("Groups", "GroupNonUniform", "GroupNonUniformShuffle", "SubgroupDispatch"),
)
"""What kernels may use; a module requires those of them that it does use."""

SHARED_BYTES = 32 << 10
"""The local memory that every OpenCL device has for a work-group."""

TO_SPIRV = (
    "builtin.module(spirv-attach-target{{ver=v1.4 caps={caps} client_api=OpenCL}},"
    "gpu.module(canonicalize,cse,loop-invariant-code-motion,expand-strided-metadata,"
    "lower-affine,convert-math-to-spirv),"
    "convert-gpu-to-spirv{{use-64bit-index=true}},"
    "gpu.module(spirv.module(spirv-lower-abi-attrs,spirv-update-vce)))"
).format(caps=",".join(CAPABILITIES))
"""The upstream passes from gpu, scf, memref, vector, arith and math to SPIR-V."""

_SPACES = {
    "Workgroup": upstream_attribute("spirv.storage_class", "Workgroup"),
    "CrossWorkgroup": upstream_attribute("spirv.storage_class", "CrossWorkgroup"),
    "Function": upstream_attribute("spirv.storage_class", "Function"),
}
"""Where memory lies: of a group of threads, of all, of one."""


def spirv_dialect(module: ModuleOp) -> ir.Module:
    """The kernels of a module in the SPIR-V dialect, upstream.

    Args:
        module: a module after moa-outline-kernels, of the tier `portable`.

    Raises:
        CompileError: for what SPIR-V has not, or upstream does not convert to it.
    """
    device = device_module(module)
    refuse_clusters(device, "SPIR-V")
    expand_divisions(device)
    without_assembly(device)
    for op in list(device.walk()):
        _expect_types(op)
        _prepare(op)
    caps = ", ".join(CAPABILITIES)
    device.attributes["spirv.target_env"] = upstream_attribute(
        "spirv.target_env",
        f"#spirv.vce<v1.4, [{caps}], []>, api=OpenCL, #spirv.resource_limits<>",
    )
    context = upstream.new_context()
    said: list[str] = []
    with context:
        native = upstream.parse(upstream.generic_text(device), context)
        handler = context.attach_diagnostic_handler(
            lambda found: said.append(found.message) or True
        )
        try:
            upstream.run_pipeline(native, TO_SPIRV, verify_each=False)
        except CompileError as error:
            reason = said[0] if said else str(error)
            raise CompileError(
                f"moa-spirv: upstream does not convert a kernel: {reason}"
            ) from None
        finally:
            handler.detach()
    _say_version(native)
    known = ("spirv.", "builtin.module", "gpu.module", "func.")
    if left := upstream.operations_beside(native, known):
        raise CompileError(f"moa-spirv: upstream does not convert {', '.join(left)}")
    return native


def _say_version(native: ir.Module) -> None:
    """Let modules be of the version that their entry points are written for.

    Upstream says the first version that has all operations. But from 1.4 on an entry
    point lists all variables, as these do, and before only some.
    """
    from mlir import ir

    for outer in native.body.operations:
        if outer.operation.name != "gpu.module":
            continue
        for op in outer.operation.regions[0].blocks[0].operations:
            found = op.operation
            if found.name == "spirv.module":
                triple = str(found.attributes["vce_triple"])
                text = re.sub(r"v1\.[0-3]", "v1.4", triple)
                found.attributes["vce_triple"] = ir.Attribute.parse(
                    text, native.context
                )


def replace_kernels(module: ModuleOp) -> None:
    """Put the kernels of a module into the SPIR-V dialect, in place.

    Raises:
        CompileError: for what SPIR-V has not, or upstream does not convert to it.
    """
    if any(isinstance(op, gpu.ModuleOp) for op in module.ops):
        replace_by(module, spirv_dialect(module))


def _expect_types(op: Operation) -> None:
    """Check that SPIR-V has the types of an operation.

    Raises:
        CompileError: if it has not.
    """
    args = [arg for region in op.regions for b in region.blocks for arg in b.args]
    for value in (*op.results, *args):
        type_ = value.type
        if isa(type_, MemRefType) or isa(type_, VectorType):
            type_ = type_.element_type
        if isinstance(type_, BFloat16Type):
            raise CompileError(
                "moa-spirv: expected f16, f32, f64 or integers, got bf16, which "
                "SPIR-V 1.4 does not have"
            )


def _prepare(op: Operation) -> None:
    """Write an operation so that upstream converts it.

    Memory has a storage class; tiles, which are parts of one block whose size a launch
    gives, are arrays of their own.
    """
    if isinstance(op, gpu.FuncOp):
        op.attributes["spirv.entry_point_abi"] = upstream_attribute(
            "spirv.entry_point_abi", f"subgroup_size = {WARP}"
        )
    if isinstance(op, ViewOp):
        type_ = _placed(op.results[0].type, "Workgroup")
        assert isa(type_, MemRefType)
        Rewriter.replace_op(op, memref.AllocOp([], [], type_))
        return
    if isinstance(op, math.Exp2Op):  # Upstream knows `exp` alone.
        builder = Builder(InsertPoint.before(op))
        factor = builder.insert(constant(log(2), op.result.type)).result
        scaled = builder.insert(arith.MulfOp(op.operand, factor)).result
        Rewriter.replace_op(op, math.ExpOp(scaled))
        return
    if isinstance(op, AlignedLoadOp | AlignedStoreOp):
        _in_halves(op)
        return
    if isinstance(op, llvm.BitcastOp):  # Of halves to words, and back.
        builder = Builder(InsertPoint.before(op))
        type_ = op.result.type
        if isa(type_, VectorType):
            Rewriter.replace_op(op, vector.BitcastOp(op.arg, type_))
            return
        word = vector.BitcastOp(op.arg, VectorType(type_, [1]))
        builder.insert(word)
        Rewriter.replace_op(op, vector.ExtractOp(word.result, [0], type_))
        return
    if isinstance(op, DynamicSharedMemoryOp):
        Rewriter.erase_op(op, safe_erase=False)
        return
    space = "Function" if isinstance(op, memref.AllocaOp) else "CrossWorkgroup"
    values: list[SSAValue] = list(op.results)
    values += [arg for region in op.regions for b in region.blocks for arg in b.args]
    for value in values:
        if (placed := _placed(value.type, space)) != value.type:
            Rewriter.replace_value_with_new_type(value, placed)
    if isinstance(op, gpu.FuncOp):
        inputs = [arg.type for arg in op.body.blocks[0].args]
        op.properties["function_type"] = FunctionType.from_lists(inputs, [])


_LONGEST = 4
"""How long vectors in memory are, for upstream to read their types in text."""


def _in_halves(op: AlignedLoadOp | AlignedStoreOp) -> None:
    """Load or store a vector that is longer than those in two of half its length."""
    is_load = isinstance(op, AlignedLoadOp)
    whole = op.result.type if is_load else op.value.type
    assert isa(whole, VectorType)
    (count,) = whole.get_shape()
    if count <= _LONGEST:
        return
    builder = Builder(InsertPoint.before(op))
    half = VectorType(whole.element_type, [count // 2])
    alignment = op.alignment.value.data // 2
    parts: list[SSAValue] = []
    for first in (0, count // 2):
        *outer, last = op.indices
        step = builder.insert(constant(first, last.type)).result
        place = [*outer, builder.insert(arith.AddiOp(last, step)).result]
        if is_load:
            load = AlignedLoadOp(op.base, place, half, alignment)
            parts.append(builder.insert(load).result)
        else:
            lanes = DenseArrayBase.from_list(i64, range(first, first + count // 2))
            part = vector.ShuffleOp(op.value, op.value, lanes, result_type=half)
            builder.insert(part)
            builder.insert(AlignedStoreOp(part.result, op.base, place, alignment))
    if is_load:
        lanes = DenseArrayBase.from_list(i64, range(count))
        low, high = parts
        joined = vector.ShuffleOp(low, high, lanes, result_type=whole)
        Rewriter.replace_op(op, joined)
    else:
        Rewriter.erase_op(op)


def _placed(type_: Attribute, space: str) -> Attribute:
    """A type of memory with a storage class; another type as it is."""
    if not isa(type_, MemRefType):
        return type_
    if type_.memory_space == WORKGROUP:
        space = "Workgroup"
    elif not isinstance(type_.memory_space, NoneAttr | IntegerAttr):
        return type_
    return MemRefType(
        type_.element_type, type_.get_shape(), type_.layout, _SPACES[space]
    )
