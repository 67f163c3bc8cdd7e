"""Kernels as SPIR-V on an OpenCL device that shares the memory of the host.

They run where pyopencl finds one that takes SPIR-V, for instance Intel's runtime for
CPUs (the packages intel-opencl-rt and intel-cmplr-lib-rt), and are skipped elsewhere.
"""
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportMissingModuleSource=false
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.lowering import upstream
from moa_dialect.lowering.cuda import EmulatedKernel
from moa_dialect.lowering.device_compiler import compilation_of
from moa_dialect.lowering.engine import load_for_cuda
from moa_dialect.lowering.pipelines import lower_to
from moa_dialect.lowering.spirv import SHARED_BYTES, spirv_dialect
from moa_dialect.options import Options

cl = pytest.importorskip("pyopencl")

FINE_GRAINED_SYSTEM = 1 << 3
"""A kernel may access any memory of the host (CL_DEVICE_SVM_FINE_GRAIN_SYSTEM)."""


def _device() -> Any:
    """A device that takes SPIR-V 1.4 and shares the host's memory, or None."""
    try:
        platforms = cl.get_platforms()
    except cl.LogicError:  # There is none.
        return None
    for platform in platforms:
        for device in platform.get_devices():
            takes = "SPIR-V_1.4" in (getattr(device, "il_version", "") or "")
            if takes and device.svm_capabilities & FINE_GRAINED_SYSTEM:
                return device
    return None


DEVICE = _device()

pytestmark = pytest.mark.skipif(DEVICE is None, reason="no OpenCL device for SPIR-V")


class OpenCL:
    """What the emulator does, on an OpenCL device.

    Attributes:
        launched: the kernels that were launched.
    """

    def __init__(self, native: Any) -> None:
        self._context = cl.Context([DEVICE])
        self._queue = cl.CommandQueue(self._context)
        self._types = _parameters(native)
        with native.context:
            upstream.run_pipeline(native, "gpu-module-to-binary")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the compiler says how it went
            self._program = cl.Program(self._context, _binary(native)).build()
        self.launched: list[str] = []

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        words: Sequence[int],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel; memory of groups is part of it, whatever the launch says."""
        del shared_bytes
        self.launched.append(kernel)
        found = cl.Kernel(self._program, kernel)
        at = 0
        for number, is_pointer in enumerate(self._types[kernel]):
            if is_pointer:
                found.set_arg(number, cl.SVM(_bytes_at(words[at + 1])))
                at += 5  # two pointers, an offset, an extent, a stride
            else:
                found.set_arg(number, np.int64(words[at]))
                at += 1
        sizes = tuple(a * b for a, b in zip(grid, block, strict=True))
        cl.enqueue_nd_range_kernel(self._queue, found, sizes, block).wait()


def _bytes_at(address: int) -> np.ndarray:
    """An array that begins at an address; nothing reads it here."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * 1).from_address(address))


def _parameters(native: Any) -> dict[str, list[bool]]:
    """For each kernel which parameters are pointers."""
    found: dict[str, list[bool]] = {}

    def visit(op: Any) -> Any:
        if op.name == "spirv.func":
            name = str(op.attributes["sym_name"]).strip('"')
            inputs = op.regions[0].blocks[0].arguments
            found[name] = [str(each.type).startswith("!spirv.ptr") for each in inputs]
        return ir.WalkResult.ADVANCE

    from mlir import ir

    native.operation.walk(visit)
    return found


def _binary(native: Any) -> bytes:
    """The SPIR-V of the one `gpu.binary` of a module."""
    from mlir.dialects import gpu

    (op,) = (op for op in native.body.operations if op.operation.name == "gpu.binary")
    return gpu.ObjectAttr(op.operation.attributes["objects"][0]).object


def compiled(program: Callable[..., Any], *arrays: np.ndarray) -> EmulatedKernel:
    """A program for the device, of the shapes of some arrays."""
    specs = [moa.ArraySpec(array.shape, array.dtype.name) for array in arrays]
    options = Options(target="cuda", tier="portable", shared=SHARED_BYTES, emulate=True)
    module = moa.jit(program).lower(*specs).module("moa")
    lower_to(module, "target", Context(), options)
    kernel = load_for_cuda(compilation_of(module, None, options), emulate=True)
    assert isinstance(kernel, EmulatedKernel)
    kernel._emulator = OpenCL(spirv_dialect(module))  # pyright: ignore[reportPrivateUsage]
    return kernel


def attention(is_causal: bool) -> Callable[..., Any]:
    return lambda q, k, v: moa.attention(q, k, v, is_causal=is_causal)


def attended(is_causal: bool) -> Callable[..., np.ndarray]:
    def run(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        if is_causal:
            scores[..., ~np.tri(*scores.shape[-2:], dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights @ v / weights.sum(-1, keepdims=True)

    return run


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Any], float]] = {
    "elements": (lambda a, b: a * b + a, lambda a, b: a * b + a, [(37, 5)] * 2, 1e-6),
    "product": (product, np.matmul, [(70, 33), (33, 45)], 1e-5),
    "rows": (
        lambda x: moa.library.softmax(x),
        lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
        [(9, 1000)],
        1e-5,
    ),
    "normalized rows": (
        lambda x: moa.library.layernorm(x),
        normalized,
        [(9, 300)],
        1e-5,
    ),
    "two products": (attention(False), attended(False), [(2, 50, 32)] * 3, 1e-5),
    "with a mask": (attention(True), attended(True), [(2, 50, 64)] * 3, 1e-5),
    "in parts": (
        attention(False),
        attended(False),
        [(2, 1, 64), *[(2, 3000, 64)] * 2],
        1e-5,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_run_as_spirv(name: str, dtype: str) -> None:
    program, reference, shapes, tolerance = PROGRAMS[name]
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape).astype(dtype) for shape in shapes]
    kernel = compiled(program, *arrays)
    result = kernel(*arrays)
    wanted = reference(*(array.astype(np.float64) for array in arrays))
    np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance)
    assert kernel._emulator.launched  # pyright: ignore[reportPrivateUsage]
