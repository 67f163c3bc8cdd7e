"""Kernels of a GPU in the NVVM dialect, and as PTX, by upstream MLIR and LLVM."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, gpu, llvm, math
from xdsl.dialects.builtin import Builtin, ModuleOp, UnitAttr
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from moa_dialect.errors import CompileError
from moa_dialect.lowering import upstream
from moa_dialect.lowering.chips import CHIP, check_chip, has_engine
from moa_dialect.lowering.expand_math import expand_products
from moa_dialect.lowering.gpu_ops import (
    CLUSTER_SHAPE,
    MAP_ALIGNMENT,
    MAP_BYTES,
    CopyBoxOp,
)
from moa_dialect.lowering.groups import FAST_EXP2
from moa_dialect.passes.products import SWIZZLE_BYTES
from moa_dialect.scalar_code import constant

if TYPE_CHECKING:
    from mlir import ir

TO_NVVM = (
    "builtin.module(nvvm-attach-target{{chip={chip}{features} O=3}},"
    "convert-nvgpu-to-nvvm,"
    "gpu.module(canonicalize,cse,loop-invariant-code-motion,convert-vector-to-scf,"
    "convert-scf-to-cf,expand-strided-metadata,lower-affine,convert-gpu-to-nvvm,"
    "canonicalize,cse,reconcile-unrealized-casts),"
    "convert-vector-to-llvm,convert-nvvm-to-llvm,convert-to-llvm,"
    "canonicalize,cse,reconcile-unrealized-casts)"
)
"""The upstream passes from gpu, scf, memref, arith and math to the NVVM dialect."""


def device_module(module: ModuleOp) -> ModuleOp:
    """A module with copies of the kernels of a module, and nothing else.

    Squares and cubes in them are products.
    """
    kernels = [op.clone() for op in module.ops if isinstance(op, gpu.ModuleOp)]
    device = ModuleOp(list(kernels), {"gpu.container_module": UnitAttr()})
    expand_products(device)
    return device


def device_text(module: ModuleOp) -> str:
    """The kernels of a module as upstream and the emulator read them."""
    return upstream.generic_text(device_module(module))


def refuse_clusters(module: ModuleOp, place: str) -> None:
    """Check that no kernel has clusters of blocks, for what has none.

    Raises:
        CompileError: if one has.
    """
    for op in module.walk():
        if isinstance(op, gpu.FuncOp) and CLUSTER_SHAPE in op.attributes:
            raise CompileError(
                f"clusters of blocks: expected a chip from sm_90 on, got {place}"
            )


def nvvm_dialect(module: ModuleOp, chip: str = CHIP, features: str = "") -> ir.Module:
    """The kernels of a module in the NVVM dialect, upstream.

    Args:
        module: a module after moa-outline-kernels.
        chip: the chip, for instance `sm_90a`.
        features: features for LLVM, for instance `+ptx83`.

    Raises:
        CompileError: for an unknown chip, or what has no code for a GPU.
    """
    check_chip(chip)
    device = device_module(module)
    if not has_engine(chip):
        refuse_clusters(device, chip)
    expand_divisions(device)
    for op in device.walk():
        if isinstance(op, gpu.FuncOp) and op.known_block_size is not None:
            op.attributes["nvvm.reqntid"] = op.known_block_size
    native = upstream.parse(upstream.generic_text(device), upstream.new_context())
    if any(isinstance(op, CopyBoxOp) for op in device.walk()):
        features = _with_boxes(chip, features)
    wanted = f" features={features}" if features else ""
    pipeline = TO_NVVM.format(chip=chip, features=wanted)
    upstream.run_pipeline(native, pipeline, verify_each=False)
    _share_externally(native)
    _pass_by_value(native)
    known = ("llvm.", "nvvm.", "builtin.module", "gpu.module")
    if left := upstream.operations_beside(native, known):
        raise CompileError(f"upstream does not lower {', '.join(left)} for a GPU")
    return native


def _with_boxes(chip: str, features: str) -> str:
    """Features with a version of PTX that has the copy engine; sm_90's first has not.

    Raises:
        CompileError: if an older one is asked for, at which LLVM ends the process.
    """
    found = re.search(r"\+ptx(\d+)", features)
    if found is None:
        if chip != "sm_90":  # All others have one at least as new.
            return features
        return ",".join(filter(None, (features, f"+ptx{BOXES_SINCE}")))
    if int(found[1]) < BOXES_SINCE:
        raise CompileError(
            f"features: expected +ptx{BOXES_SINCE} or later for schedules with tma, "
            f"got {found[0]}"
        )
    return features


BOXES_SINCE = 80
"""The first version of PTX that has the copy engine, as LLVM counts them."""


def _share_externally(native: ir.Module) -> None:
    """Let the shared memory whose size a launch gives be none of a module's own.

    Upstream makes it an internal array without elements, for which LLVM sets aside a
    byte that the launch does not know of.
    """
    from mlir import ir

    external = ir.Attribute.parse("#llvm.linkage<external>", native.context)
    alignment = ir.Attribute.parse(f"{SWIZZLE_BYTES} : i64", native.context)
    for module in native.body.operations:
        for op in module.operation.regions[0].blocks[0].operations:
            found = op.operation
            if found.name == "llvm.mlir.global" and "dynamic_shmem" in str(
                found.attributes["sym_name"]
            ):
                found.attributes["linkage"] = external
                found.attributes["alignment"] = alignment


def _pass_by_value(native: ir.Module) -> None:
    """Let tensor maps be parameters as they are, not where they are.

    Upstream drops `llvm.byval` from the arguments of a `gpu.func`, and takes
    `nvvm.grid_constant` for those of a kernel in the LLVM dialect only.
    """
    from mlir import ir

    more = {
        "llvm.byval": f"!llvm.array<{MAP_BYTES // 8} x i64>",
        "nvvm.grid_constant": "unit",
    }
    parsed = {n: ir.Attribute.parse(text, native.context) for n, text in more.items()}
    for module in native.body.operations:
        for op in module.operation.regions[0].blocks[0].operations:
            found = op.operation
            if found.name != "llvm.func" or "arg_attrs" not in found.attributes:
                continue
            marks: list[ir.Attribute] = []
            for mark in ir.ArrayAttr(found.attributes["arg_attrs"]):
                entries = {each.name: each.attr for each in ir.DictAttr(mark)}
                if MAP_ALIGNMENT in entries:
                    entries |= parsed
                marks.append(ir.DictAttr.get(entries, native.context))
            found.attributes["arg_attrs"] = ir.ArrayAttr.get(marks, native.context)


def replace_kernels(module: ModuleOp, chip: str = CHIP, features: str = "") -> None:
    """Put the kernels of a module into the NVVM dialect, in place.

    Raises:
        CompileError: for an unknown chip, or what has no code for a GPU.
    """
    if not any(isinstance(op, gpu.ModuleOp) for op in module.ops):
        return
    replace_by(module, nvvm_dialect(module, chip, features))


def replace_by(module: ModuleOp, native: ir.Module) -> None:
    """Put upstream's kernels into a module, in the place of its own."""
    # xDSL's own llvm dialect does not read all that upstream writes.
    bare = Context(allow_unregistered=True)
    bare.load_dialect(Builtin)
    converted = ModuleOp([])
    text = native.operation.get_asm(print_generic_op_form=True)
    upstream.replace_by_text(converted, str(text), bare)
    for op in list(module.ops):
        if isinstance(op, gpu.ModuleOp):
            Rewriter.erase_op(op)
    for op in list(converted.ops):
        op.detach()
        module.body.block.add_op(op)


def ptx(native: ir.Module) -> str:
    """The PTX of kernels in the NVVM dialect; the module is used up.

    Raises:
        CompileError: if upstream fails.
    """
    from mlir import ir
    from mlir.dialects import gpu as upstream_gpu

    upstream.run_pipeline(native, "gpu-module-to-binary{format=isa}")
    for op in native.body.operations:
        if op.operation.name == "gpu.binary":
            (found,) = ir.ArrayAttr(op.attributes["objects"])
            content: bytes = upstream_gpu.ObjectAttr(found).object
            return content.rstrip(b"\0").decode()
    raise CompileError("there are no kernels")


def without_assembly(module: ModuleOp) -> None:
    """Write what is an instruction of NVIDIA's chips as the function it computes."""
    for op in list(module.walk()):
        if isinstance(op, llvm.InlineAsmOp) and op.asm_string.data == FAST_EXP2:
            (value,) = op.operands
            Rewriter.replace_op(op, math.Exp2Op(value))


def expand_divisions(module: ModuleOp) -> None:
    """Expand divisions that round up or down, which upstream has no code for.

    (Its pass that does also expands minima and maxima, for which a GPU has
    instructions.)
    """
    for op in list(module.walk()):
        if not isinstance(op, arith.CeilDivSIOp | arith.FloorDivSIOp):
            continue
        builder = Builder(InsertPoint.before(op))
        quotient = builder.insert(arith.DivSIOp(op.lhs, op.rhs)).result
        product = builder.insert(arith.MuliOp(quotient, op.rhs)).result
        rest = builder.insert(arith.SubiOp(op.lhs, product)).result
        zero = builder.insert(constant(0, op.result.type)).result
        one = builder.insert(constant(1, op.result.type)).result

        def compared(
            value: SSAValue, how: str, zero: SSAValue = zero, b: Builder = builder
        ) -> SSAValue:
            return b.insert(arith.CmpiOp(value, zero, how)).result

        is_inexact = compared(rest, "ne")
        signs = compared(rest, "slt"), compared(op.rhs, "slt")
        # The quotient was rounded towards zero; is that down, or up?
        is_up = isinstance(op, arith.CeilDivSIOp)
        differ = builder.insert(arith.CmpiOp(*signs, "eq" if is_up else "ne")).result
        moves = builder.insert(arith.AndIOp(is_inexact, differ)).result
        step = arith.AddiOp if is_up else arith.SubiOp
        moved = builder.insert(step(quotient, one)).result
        Rewriter.replace_op(op, arith.SelectOp(moves, moved, quotient))
