"""Programs of linalg on tensors, lowered by upstream's own passes and run."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from moa_dialect.lowering import upstream

PIPELINE = (
    "builtin.module(func.func(linalg-generalize-named-ops),"
    "convert-tensor-to-linalg,one-shot-bufferize{bufferize-function-boundaries=true "
    "function-boundary-type-conversion=identity-layout-map},"
    "buffer-results-to-out-params{modify-public-functions=true},"
    "func.func(llvm-request-c-wrappers),convert-linalg-to-loops,"
    "expand-strided-metadata,lower-affine,convert-scf-to-cf,"
    "func.func(arith-expand),convert-math-to-llvm,convert-math-to-libm,"
    "finalize-memref-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts)"
)


def _descriptor(array: np.ndarray) -> Any:
    """A pointer to a pointer to the memref descriptor of an array."""
    rank = array.ndim
    fields = [("base", ctypes.c_void_p), ("data", ctypes.c_void_p),
              ("offset", ctypes.c_int64)]
    if rank:
        fields += [("shape", ctypes.c_int64 * rank), ("strides", ctypes.c_int64 * rank)]
    kind = type("Descriptor", (ctypes.Structure,), {"_fields_": fields})
    made: Any = kind()
    made.base = made.data = array.ctypes.data
    made.offset = 0
    if rank:
        made.shape[:] = array.shape
        made.strides[:] = [s // array.itemsize for s in array.strides]
    return ctypes.pointer(ctypes.pointer(made))


class UpstreamModule:
    """A module lowered by upstream alone.

    Args:
        text: functions that return one tensor each.
    """

    def __init__(self, text: str):
        import mlir
        from mlir.execution_engine import ExecutionEngine

        module = upstream.parse(text, upstream.new_context())
        upstream.run_pipeline(module, PIPELINE, verify_each=False)
        self._module = module
        (package,) = list(mlir.__path__)
        library = f"{package}/lib/libmlir_c_runner_utils.so"
        self._engine = ExecutionEngine(module, opt_level=0, shared_libs=[library])

    def __call__(
        self, name: str, arrays: Sequence[np.ndarray], result: np.ndarray
    ) -> np.ndarray:
        """Call a function; `result` has the shape and dtype, and is written."""
        # The function may write its arguments' memory: they are copied.
        copies = [np.array(array, order="C") for array in arrays]
        pointers = [_descriptor(array) for array in (*copies, result)]
        self._engine.invoke(name, *pointers)
        return result
