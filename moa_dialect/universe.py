"""What moa offers to xDSL's tools: its dialect, passes and targets, loaded when used.

Installed, this is found through the entry-point group `xdsl.universe`, so that
`xdsl-opt` knows everything here; `moa-opt` and `moa-run` register it in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdsl.universe import Universe

if TYPE_CHECKING:
    from xdsl.context import Context
    from xdsl.ir import Dialect
    from xdsl.passes import ModulePass
    from xdsl.utils.target import Target


def _moa() -> Dialect:
    from moa_dialect.dialect import Moa

    return Moa


def _raise_linalg() -> type[ModulePass]:
    from moa_dialect.passes.raise_linalg import RaiseLinalgPass

    return RaiseLinalgPass


def _split_programs() -> type[ModulePass]:
    from moa_dialect.passes.split_programs import SplitProgramsPass

    return SplitProgramsPass


def _infer_shapes() -> type[ModulePass]:
    from moa_dialect.passes.infer_shapes import InferShapesPass

    return InferShapesPass


def _to_dnf() -> type[ModulePass]:
    from moa_dialect.passes.to_dnf import ToDnfPass

    return ToDnfPass


def _check_dnf() -> type[ModulePass]:
    from moa_dialect.passes.check_dnf import CheckDnfPass

    return CheckDnfPass


def _verify() -> type[ModulePass]:
    from moa_dialect.passes.verify import VerifyPass

    return VerifyPass


def _share() -> type[ModulePass]:
    from moa_dialect.passes.share import SharePass

    return SharePass


def _restrict_domains() -> type[ModulePass]:
    from moa_dialect.passes.restrict import RestrictDomainsPass

    return RestrictDomainsPass


def _fuse_reductions() -> type[ModulePass]:
    from moa_dialect.passes.fuse import FuseReductionsPass

    return FuseReductionsPass


def _enclose_folds() -> type[ModulePass]:
    from moa_dialect.passes.enclose_folds import EncloseFoldsPass

    return EncloseFoldsPass


def _split_cascades() -> type[ModulePass]:
    from moa_dialect.passes.split_cascades import SplitCascadesPass

    return SplitCascadesPass


def _sink() -> type[ModulePass]:
    from moa_dialect.passes.sink import SinkPass

    return SinkPass


def _to_onf() -> type[ModulePass]:
    from moa_dialect.passes.to_onf import ToOnfPass

    return ToOnfPass


def _split_loops() -> type[ModulePass]:
    from moa_dialect.passes.split_loops import SplitLoopsPass

    return SplitLoopsPass


def _fold_addresses() -> type[ModulePass]:
    from moa_dialect.passes.fold_addresses import FoldAddressesPass

    return FoldAddressesPass


def _analyze_cost() -> type[ModulePass]:
    from moa_dialect.passes.analyze_cost import AnalyzeCostPass

    return AnalyzeCostPass


def _check_storage() -> type[ModulePass]:
    from moa_dialect.passes.check_storage import CheckStoragePass

    return CheckStoragePass


def _to_scf() -> type[ModulePass]:
    from moa_dialect.lowering.to_scf import ToScfPass

    return ToScfPass


def _lift() -> type[ModulePass]:
    from moa_dialect.passes.lift import LiftPass

    return LiftPass


def _to_vector() -> type[ModulePass]:
    from moa_dialect.lowering.to_vector import ToVectorPass

    return ToVectorPass


def _to_gpu() -> type[ModulePass]:
    from moa_dialect.lowering.to_gpu import ToGpuPass

    return ToGpuPass


def _expand_math() -> type[ModulePass]:
    from moa_dialect.lowering.expand_math import ExpandMathPass

    return ExpandMathPass


def _outline_tasks() -> type[ModulePass]:
    from moa_dialect.lowering.threads import OutlineTasksPass

    return OutlineTasksPass


def _outline_kernels() -> type[ModulePass]:
    from moa_dialect.lowering.outline_kernels import OutlineKernelsPass

    return OutlineKernelsPass


def _plan_launches() -> type[ModulePass]:
    from moa_dialect.lowering.plan_launches import PlanLaunchesPass

    return PlanLaunchesPass


def _to_linalg() -> type[ModulePass]:
    from moa_dialect.lowering.to_linalg import ToLinalgPass

    return ToLinalgPass


def _mlir_pipeline() -> type[ModulePass]:
    from moa_dialect.lowering.mlir_pipeline import MLIRPipelinePass

    return MLIRPipelinePass


def _cpu() -> type[ModulePass]:
    from moa_dialect.lowering.pipelines import CpuPipelinePass

    return CpuPipelinePass


def _nvvm() -> type[ModulePass]:
    from moa_dialect.lowering.pipelines import NvvmPipelinePass

    return NvvmPipelinePass


def _rocdl() -> type[ModulePass]:
    from moa_dialect.lowering.pipelines import RocdlPipelinePass

    return RocdlPipelinePass


def _spirv() -> type[ModulePass]:
    from moa_dialect.lowering.pipelines import SpirvPipelinePass

    return SpirvPipelinePass


def _notation() -> type[Target]:
    from moa_dialect.notation_target import NotationTarget

    return NotationTarget


MOA_UNIVERSE = Universe(
    all_dialects={"moa": _moa},
    all_passes={
        "moa-raise-linalg": _raise_linalg,
        "moa-split-programs": _split_programs,
        "moa-infer-shapes": _infer_shapes,
        "moa-to-dnf": _to_dnf,
        "moa-check-dnf": _check_dnf,
        "moa-verify": _verify,
        "moa-share": _share,
        "moa-restrict-domains": _restrict_domains,
        "moa-fuse-reductions": _fuse_reductions,
        "moa-sink": _sink,
        "moa-enclose-folds": _enclose_folds,
        "moa-split-cascades": _split_cascades,
        "moa-to-onf": _to_onf,
        "moa-split-loops": _split_loops,
        "moa-fold-addresses": _fold_addresses,
        "moa-check-storage": _check_storage,
        "moa-analyze-cost": _analyze_cost,
        "moa-lift": _lift,
        "moa-to-vector": _to_vector,
        "moa-to-gpu": _to_gpu,
        "moa-to-scf": _to_scf,
        "moa-to-linalg": _to_linalg,
        "moa-expand-math": _expand_math,
        "moa-outline-tasks": _outline_tasks,
        "moa-outline-kernels": _outline_kernels,
        "moa-plan-launches": _plan_launches,
        "mlir-pipeline": _mlir_pipeline,
        "moa-cpu": _cpu,
        "moa-nvvm": _nvvm,
        "moa-rocdl": _rocdl,
        "moa-spirv": _spirv,
    },
    all_targets={"moa": _notation},
)


def register_dialects(context: Context) -> None:
    """Add every dialect there is to a context: xDSL's, plug-ins', this one.

    An installed copy of moa is a plug-in already; a bare checkout is not.
    """
    dialects = Universe.get_multiverse().all_dialects | MOA_UNIVERSE.all_dialects
    for name, factory in dialects.items():
        if name not in set(context.registered_dialect_names):
            context.register_dialect(name, factory)
