"""Kernels of a GPU in the ROCDL dialect, for AMD's, by upstream MLIR."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdsl.dialects import gpu
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.errors import CompileError
from moa_dialect.lowering import upstream
from moa_dialect.lowering.nvvm import (
    device_module,
    expand_divisions,
    refuse_clusters,
    replace_by,
    without_assembly,
)

if TYPE_CHECKING:
    from mlir import ir

TO_ROCDL = (
    "builtin.module(rocdl-attach-target{{chip={chip} O=3}},"
    "gpu.module(canonicalize,cse,loop-invariant-code-motion,convert-vector-to-scf,"
    "convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-gpu-to-rocdl{{chipset={chip}}},"
    "canonicalize,cse,reconcile-unrealized-casts),"
    "convert-vector-to-llvm,convert-to-llvm,"
    "canonicalize,cse,reconcile-unrealized-casts)"
)
"""The upstream passes from gpu, scf, memref, arith and math to the ROCDL dialect."""


SHARED_BYTES = 64 << 10
"""The memory that a work-group may have on AMD's GPUs, but for the newest ones."""


def check_chip(chip: str) -> None:
    """Check that a chip has the form of AMD's names.

    Raises:
        CompileError: if it has not.
    """
    if not re.fullmatch(r"gfx[0-9]{2,3}[0-9a-f]", chip):
        raise CompileError(
            f"unknown chip: expected a name such as gfx90a, gfx942 or gfx1100, "
            f"got '{chip}'"
        )


def rocdl_dialect(module: ModuleOp, chip: str) -> ir.Module:
    """The kernels of a module in the ROCDL dialect, upstream.

    Args:
        module: a module after moa-outline-kernels, of the tier `portable`.
        chip: the chip, for instance `gfx942`.

    Raises:
        CompileError: for an unknown chip, or what has no code for it.
    """
    check_chip(chip)
    device = device_module(module)
    refuse_clusters(device, chip)
    expand_divisions(device)
    without_assembly(device)
    native = upstream.parse(upstream.generic_text(device), upstream.new_context())
    upstream.run_pipeline(native, TO_ROCDL.format(chip=chip), verify_each=False)
    known = ("llvm.", "rocdl.", "builtin.module", "gpu.module")
    if left := upstream.operations_beside(native, known):
        raise CompileError(f"upstream does not lower {', '.join(left)} for {chip}")
    return native


def replace_kernels(module: ModuleOp, chip: str) -> None:
    """Put the kernels of a module into the ROCDL dialect, in place.

    Raises:
        CompileError: for an unknown chip, or what has no code for it.
    """
    if any(isinstance(op, gpu.ModuleOp) for op in module.ops):
        replace_by(module, rocdl_dialect(module, chip))
