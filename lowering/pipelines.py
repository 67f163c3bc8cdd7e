"""Named pipelines: the whole way from the algebra to LLVM."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp, StringAttr
from xdsl.passes import ModulePass

from moa_dialect.collector import uncollected
from moa_dialect.lowering.chips import (
    CHIP,
    PLACES,
    has_engine,
    has_tall_doubles,
)
from moa_dialect.lowering.expand_math import ExpandMathPass
from moa_dialect.lowering.mlir_pipeline import run_upstream
from moa_dialect.lowering.threads import OutlineTasksPass
from moa_dialect.lowering.to_scf import ToScfPass
from moa_dialect.lowering.to_vector import ToVectorPass
from moa_dialect.options import AUTO, DEFAULTS, Options
from moa_dialect.passes.check_storage import CheckStoragePass
from moa_dialect.passes.enclose_folds import EncloseFoldsPass
from moa_dialect.passes.fold_addresses import FoldAddressesPass
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.grid import split_of
from moa_dialect.passes.infer_shapes import InferShapesPass
from moa_dialect.passes.kernels import SCHEDULE
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.restrict import RestrictDomainsPass
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.sink import SinkPass
from moa_dialect.passes.split_cascades import SplitCascadesPass
from moa_dialect.passes.split_loops import SplitLoopsPass
from moa_dialect.passes.to_dnf import ToDnfPass
from moa_dialect.passes.to_onf import ToOnfPass

STAGES: dict[str, tuple[ModulePass, ...]] = {
    "moa": (InferShapesPass(),),
    "dnf": (ToDnfPass(),),
    "fused": (SharePass(), SinkPass()),
    "onf": (
        ToOnfPass(),
        SplitLoopsPass(),
        FoldAddressesPass(),
        CheckStoragePass(),
    ),
    "target": (ToScfPass(), ExpandMathPass()),
}
"""The passes that lead to each stage from the one before; the first reads programs."""

FUSING: dict[str, tuple[ModulePass, ...]] = STAGES | {
    "fused": (
        SharePass(),
        RestrictDomainsPass(),
        FuseReductionsPass(chunk=64),
        SinkPass(),
    ),
    "target": (
        LiftPass(),
        ToVectorPass(),
        SplitLoopsPass(),
        FoldAddressesPass(),
        CheckStoragePass(),
        ToScfPass(),
        ExpandMathPass(target="host"),
    ),
}
"""The same with dependent folds in one pass: values are those of real arithmetic.

Vector code for several threads is made from the fused form, not from the loops of
`onf`, which say the same one scalar at a time.
"""

FOR_CORES = SplitCascadesPass(places=0, work=1 << 18, threads=1)
"""Splits cascades and folds where there are fewer tasks than cores, but work for 50 us
each."""


def cuda_target(options: Options) -> tuple[ModulePass, ...]:
    """The passes from the fused form to the stage `target` for a GPU.

    Without fusion, which may not reassociate, an element is one thread's. Cascades are
    split where there are few groups of threads, or as a schedule says (`split`), unless
    one is given that says nothing, or values must not depend on how many there are.
    """
    # What a CPU has no use for is not loaded for one.
    from moa_dialect.lowering.outline_kernels import OutlineKernelsPass
    from moa_dialect.lowering.to_gpu import ToGpuPass

    to_kernels: tuple[ModulePass, ...] = (
        SplitLoopsPass(),
        FoldAddressesPass(),
        CheckStoragePass(),
        ToScfPass(),
        OutlineKernelsPass(),
    )
    if not options.fuse:
        return ToOnfPass(parallel=True), *to_kernels
    shared = options.shared_bytes
    lift = LiftPass(
        target="nvptx",
        tier=options.best_tier,
        shared_bytes=shared,
        tf32=options.tf32,
        engine=has_engine(options.chip),
        tall=has_tall_doubles(options.chip),
    )
    grouped = (lift, ToGpuPass(shared), *to_kernels)
    if not options.deterministic and (parts := split_of(options.schedule)):
        return SplitCascadesPass(parts), *grouped
    if options.schedule != AUTO or options.deterministic:
        return EncloseFoldsPass(), *grouped
    split = SplitCascadesPass(places=PLACES, threads=1024)
    return EncloseFoldsPass(), split, *grouped


TO_LLVM = (
    "builtin.module(func.func(llvm-request-c-wrappers),canonicalize,cse,"
    "loop-invariant-code-motion,convert-vector-to-scf,convert-scf-to-cf,"
    "expand-strided-metadata,lower-affine,arith-expand,"
    "convert-vector-to-llvm{enable-x86vector=true},"
    "convert-math-to-llvm,convert-math-to-libm,"
    "finalize-memref-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,canonicalize,cse,reconcile-unrealized-casts)"
)
"""The upstream passes from scf, memref, arith and math to the LLVM dialect."""


@uncollected()
def lower_to(
    module: ModuleOp,
    stage: str,
    ctx: Context,
    options: Options = DEFAULTS,
    certify: bool = False,
    parts: bool = False,
) -> None:
    """Lower a module in place from the algebra up to a stage before `llvm`.

    With `certify` the functions say how they were derived, up to the stage `onf`, and
    cascades why their accumulators may move.
    With `parts`, which takes fusion, functions for partial states are added.
    """
    fuse, is_cuda = options.fuse, options.is_cuda
    for name, passes in (FUSING if fuse else STAGES).items():
        if (fuse or is_cuda) and name == "onf" and stage == "target":
            continue
        if is_cuda and name == "target":
            passes = cuda_target(options)
        elif fuse and name == "target":
            split = () if options.deterministic else (FOR_CORES,)
            passes = (EncloseFoldsPass(), *split, *passes)
        for pass_ in passes:
            if certify and isinstance(pass_, ToDnfPass | FuseReductionsPass):
                pass_ = replace(pass_, certify=True)
            if parts and isinstance(pass_, FuseReductionsPass):
                pass_ = replace(pass_, emit="merge")
            if options.deterministic and isinstance(
                pass_, FuseReductionsPass | SinkPass | LiftPass
            ):
                pass_ = replace(pass_, deterministic=True)
            if isinstance(pass_, LiftPass):
                pass_ = replace(pass_, schedule=options.schedule)
            pass_.apply(ctx, module)
        if name == stage:
            return


def schedules_of(module: ModuleOp, options: Options) -> list[str]:
    """The schedules that kernels of a module at the stage `fused` get."""
    if not options.fuse:
        return []
    here = EncloseFoldsPass(), LiftPass()
    for pass_ in cuda_target(options) if options.is_cuda else here:
        if isinstance(pass_, LiftPass):
            pass_ = replace(
                pass_, schedule=options.schedule, deterministic=options.deterministic
            )
        pass_.apply(Context(), module)
        if isinstance(pass_, LiftPass):
            break
    found = [op.attributes.get(SCHEDULE) for op in module.walk()]
    return [text.data for text in found if isinstance(text, StringAttr)]


@dataclass(frozen=True)
class CpuPipelinePass(ModulePass):
    """The pipeline from the algebra to the LLVM dialect, for the CPU.

    moa-infer-shapes, moa-to-dnf, moa-share, moa-restrict-domains, moa-fuse-reductions,
    moa-sink, moa-enclose-folds, moa-split-cascades, moa-lift, moa-to-vector,
    moa-split-loops, moa-fold-addresses, moa-check-storage, moa-to-scf, moa-expand-math,
    moa-outline-tasks, then upstream's conversions. Modules at a later stage may enter
    too. Without `fuse`, moa-restrict-domains and moa-fuse-reductions are left out, and
    moa-to-onf is in the place of moa-enclose-folds, moa-split-cascades, moa-lift and
    moa-to-vector.
    `deterministic` is that of moa-lift, and leaves moa-split-cascades out.
    """

    name = "moa-cpu"

    fuse: bool = True
    deterministic: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        options = Options(fuse=self.fuse, deterministic=self.deterministic)
        lower_to(op, "target", ctx, options)
        OutlineTasksPass().apply(ctx, op)
        # xDSL's own llvm dialect has comparisons and choices of scalars only.
        bare = Context(allow_unregistered=True)
        bare.load_dialect(Builtin)
        run_upstream(op, TO_LLVM, bare)


@dataclass(frozen=True)
class NvvmPipelinePass(ModulePass):
    """The pipeline from the algebra to the NVVM dialect, for a GPU.

    moa-infer-shapes, moa-to-dnf, moa-share, moa-restrict-domains, moa-fuse-reductions,
    moa-sink, moa-enclose-folds, moa-split-cascades{places=264 threads=1024},
    moa-lift{target=nvptx}, moa-to-gpu,
    moa-split-loops, moa-fold-addresses, moa-check-storage, moa-to-scf,
    moa-outline-kernels, then upstream's conversions of the kernels. Modules at a later
    stage may enter too. Without `fuse`, moa-restrict-domains and moa-fuse-reductions
    are left out, and moa-to-onf{parallel=true} is in the place of moa-split-cascades,
    moa-lift and moa-to-gpu.

    `tier` says what products of matrices are made of: `wgmma`, `mma` or `portable`;
    the best of the chip if empty. With `tf32` factors of f32 are rounded to tf32.
    `deterministic` is that of moa-lift, and leaves moa-split-cascades out.

    The result has `gpu.module @kernels` in the dialects llvm and nvvm, for `chip` and
    with LLVM's `features` such as `+ptx83`, beside the functions of the host, which
    launch the kernels by `gpu.launch_func`. Upstream's gpu-module-to-binary takes it.
    """

    name = "moa-nvvm"

    chip: str = CHIP
    features: str = ""
    fuse: bool = True
    tier: str = ""
    tf32: bool = False
    deterministic: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower a module.

        Raises:
            CompileError: for an unknown chip or tier, or what has no code for a GPU.
        """
        from moa_dialect.lowering import nvvm

        options = Options(
            self.fuse,
            self.deterministic,
            target="cuda",
            chip=self.chip,
            tier=self.tier,
            tf32=self.tf32,
        )
        options.check()
        lower_to(op, "target", ctx, options)
        nvvm.replace_kernels(op, self.chip, self.features)


@dataclass(frozen=True)
class RocdlPipelinePass(ModulePass):
    """The pipeline from the algebra to the ROCDL dialect, for AMD's GPUs.

    As moa-nvvm with the tier `portable`, but for the conversions of the kernels. The
    result has `gpu.module @kernels` in the dialects llvm and rocdl, for `chip`. It is
    compiled no further here, and has run on no device.
    """

    name = "moa-rocdl"

    chip: str = "gfx942"
    fuse: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower a module.

        Raises:
            CompileError: for an unknown chip, or what has no code for it.
        """
        from moa_dialect.lowering import rocdl

        rocdl.check_chip(self.chip)
        options = Options(
            self.fuse, target="cuda", tier="portable", shared=rocdl.SHARED_BYTES
        )
        lower_to(op, "target", ctx, options)
        rocdl.replace_kernels(op, self.chip)


@dataclass(frozen=True)
class SpirvPipelinePass(ModulePass):
    """The pipeline from the algebra to SPIR-V for OpenCL, for other GPUs.

    As moa-nvvm with the tier `portable`, but for the conversions of the kernels. The
    result has `gpu.module @kernels` with a `spirv.module` of version 1.4, of subgroups
    of 32 threads, beside the functions of the host. There is no bf16. Upstream's
    gpu-module-to-binary makes the binary of it.
    """

    name = "moa-spirv"

    fuse: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower a module.

        Raises:
            CompileError: for what SPIR-V has not, or upstream does not convert to it.
        """
        from moa_dialect.lowering import spirv

        options = Options(
            self.fuse, target="cuda", tier="portable", shared=spirv.SHARED_BYTES
        )
        lower_to(op, "target", ctx, options)
        spirv.replace_kernels(op)
