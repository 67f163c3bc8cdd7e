"""mlir-pipeline: upstream MLIR passes, run in process."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from moa_dialect.lowering import upstream


def run_upstream(module: ModuleOp, pipeline: str, ctx: Context) -> None:
    """Run an upstream pipeline over an xDSL module, in place.

    Operations of dialects that `ctx` does not know are kept as upstream prints them.
    """
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    upstream.run_pipeline(native, pipeline)
    text = native.operation.get_asm(print_generic_op_form=True)
    upstream.replace_by_text(module, str(text), ctx)


@dataclass(frozen=True)
class MLIRPipelinePass(ModulePass):
    """Runs passes of upstream MLIR: `mlir-pipeline{pipeline="canonicalize,cse"}`.

    The module crosses over as generic text and is verified upstream; operations of
    other dialects pass through.
    """

    name = "mlir-pipeline"

    pipeline: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        run_upstream(op, self.pipeline, ctx)
