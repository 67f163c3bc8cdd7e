"""The engine: from a module to a function on NumPy arrays, by MLIR's ExecutionEngine.

Inputs are passed without a copy if they are contiguous in the kernel's layout and
aligned; others are copied first, or refused with `copy=False`. Results are fresh
arrays. A call releases the interpreter lock; a kernel may be called from several
threads at once.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StringAttr,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import Relation, failure_message
from moa_dialect.arguments import array_type, check_arguments
from moa_dialect.errors import (
    CompileError,
    LayoutError,
    MoaError,
    precondition_error,
)
from moa_dialect.lowering import host, upstream
from moa_dialect.lowering.pipelines import TO_LLVM, lower_to
from moa_dialect.lowering.to_scf import CHECKS, has_status, unlowered
from moa_dialect.passes.check_storage import is_result
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.types import shape_of

if TYPE_CHECKING:
    from mlir import ir
    from mlir.execution_engine import ExecutionEngine


def entries(module: ModuleOp) -> list[str]:
    """The names of the functions of a module that can be run."""
    return [
        function.sym_name.data
        for function in functions_of(module)
        if function.sym_visibility != StringAttr("private")
        and not function.sym_name.data.endswith(".extents")
    ]


def find_entry(module: ModuleOp, entry: str | None) -> FuncOp:
    """The function to run: the named one, or the only one.

    Raises:
        MoaError: if there is none of that name, or no name and several functions.
    """
    names = entries(module)
    if entry is None and len(names) == 1:
        (entry,) = names
    for function in functions_of(module):
        if function.sym_name.data == entry and entry in names:
            return function
    given = "none" if entry is None else f"'{entry}'"
    raise MoaError(
        f"unknown entry: expected one of {', '.join(names) or '(no function)'}, "
        f"got {given}"
    )


def _is_fortran(type_: Attribute) -> bool:
    return isa(type_, MemRefType) and not isinstance(type_.layout, NoneAttr)


@dataclass(frozen=True)
class _Result:
    """What a kernel's result is allocated as."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]

    @staticmethod
    def of(type_: Attribute) -> _Result:
        dtype, shape = array_type(type_)
        return _Result(shape, dtype, "F" if _is_fortran(type_) else "C")

    def allocate(self, shape: Sequence[int]) -> np.ndarray:
        return np.empty(shape, self.dtype, self.order)


@dataclass
class Kernel:
    """A compiled function, callable on NumPy arrays.

    Attributes:
        name: the entry's name.
        names: the names of its arguments.
        inputs: the memref types of its arguments.
        outputs: the memref types of its results.
    """

    name: str
    names: list[str]
    inputs: list[Attribute]
    outputs: list[Attribute]
    checks: list[str]
    _status: bool
    _engine: ExecutionEngine
    _run: Callable[[int], None] = field(init=False)
    _extents: Callable[[int], None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._run = self._engine.lookup(self.name)
        if any(extent < 0 for type_ in self.outputs for extent in shape_of(type_)):
            self._extents = self._engine.lookup(f"{self.name}.extents")
        self._expected = [array_type(type_) for type_ in self.inputs]
        self._is_fortran = [_is_fortran(type_) for type_ in self.inputs]
        self._results = [_Result.of(type_) for type_ in self.outputs]

    def __call__(
        self, *arrays: np.ndarray, copy: bool | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the kernel; one result as an array, several as a tuple.

        Args:
            arrays: one NumPy array for each argument, of its dtype and shape.
            copy: False refuses arrays that would have to be copied.

        Raises:
            MoaError: for a wrong number of arrays.
            ShapeError: for a wrong rank or extent, or extents that do not fit together.
            DTypeError: for a wrong dtype.
            LayoutError: with `copy=False`, for an array that is not contiguous.
            IndexRangeError: for an index in the data that is out of range.
        """
        check_arguments(self.name, self.names, self._expected, arrays)
        ready = [
            self._contiguous(number, array, copy) for number, array in enumerate(arrays)
        ]
        results = self._allocate(ready)
        frame = _Frame([*ready, *results], 3 if self._status else 0)
        self._run(frame.address)
        if self._status and frame.status[0]:
            raise self._failure(*frame.status)
        return results[0] if len(results) == 1 else tuple(results)

    def _contiguous(
        self, number: int, array: np.ndarray, copy: bool | None
    ) -> np.ndarray:
        fortran = self._is_fortran[number]
        flags = array.flags
        fits = flags.f_contiguous if fortran else flags.c_contiguous
        if fits and flags.aligned:
            return array
        if copy is False:
            layout = "Fortran" if fortran else "C"
            raise LayoutError(
                f"argument {number} '{self.names[number]}': expected a "
                f"{layout}-contiguous array, got strides {array.strides} for shape "
                f"{array.shape}"
            )
        return np.require(array, requirements=["F" if fortran else "C", "A"])

    def _allocate(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._extents is None:
            return [result.allocate(result.shape) for result in self._results]
        shapes = [list(result.shape) for result in self._results]
        wanted = [
            (shape, axis)
            for shape in shapes
            for axis, extent in enumerate(shape)
            if extent < 0
        ]
        frame = _Frame(inputs, 0, results=len(wanted))
        self._extents(frame.address)
        for (shape, axis), extent in zip(wanted, frame.results, strict=True):
            # A negative extent is reported by the kernel itself.
            shape[axis] = max(extent, 0)
        return [
            result.allocate(shape)
            for result, shape in zip(self._results, shapes, strict=True)
        ]

    def _failure(self, number: int, given: int, expected: int) -> MoaError:
        relation, message = self.checks[number - 1].split(": ", 1)
        text = failure_message(cast(Relation, relation), message, given, expected)
        return precondition_error(text)


_NOTHING = (ctypes.c_int64 * 2)()
"""Where the elements of empty arrays lie: a failed check may leave index 0 to read."""


class _Frame:
    """The arguments of one call in memory, as the packed C interface takes them.

    For each array a memref descriptor (pointer, aligned pointer, offset, sizes,
    strides), then a slot with its address, and the list of the slots' addresses.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], status: int, results: int = 0
    ) -> None:
        words: list[int] = []
        starts: list[int] = []
        self._arrays = arrays
        for array in arrays:
            starts.append(len(words))
            data = array.ctypes.data if array.size else ctypes.addressof(_NOTHING)
            words += (data, data, 0, *array.shape)
            words += (step // array.itemsize for step in array.strides)
        if status:
            # [numbers..., descriptor]: the descriptor points at the numbers.
            self._status_at = len(words)
            words += [0] * status
            starts.append(len(words))
            words += (0, 0, 0, status, 1)
        self._results_at = len(words)
        self._result_count = results
        words += [0] * results
        slots = len(words)
        struct_first = results > 1
        count = len(starts) + (1 if results else 0)
        words += [0] * (2 * count)
        self._memory = (ctypes.c_int64 * max(len(words), 1))(*words)
        base = ctypes.addressof(self._memory)
        if status:
            at = starts[-1]
            self._memory[at] = self._memory[at + 1] = base + 8 * self._status_at
        pointers = [base + 8 * start for start in starts]
        list_at = slots + count
        result = base + 8 * self._results_at
        if struct_first:
            pointers.insert(0, result)
        for number, pointer in enumerate(pointers):
            self._memory[slots + number] = pointer
            self._memory[list_at + number] = base + 8 * (slots + number)
        if results == 1:
            self._memory[list_at + len(pointers)] = result
        self.address = base + 8 * list_at

    @property
    def status(self) -> tuple[int, int, int]:
        """Number of the failed check (0: none), given, expected."""
        at = self._status_at
        return self._memory[at], self._memory[at + 1], self._memory[at + 2]

    @property
    def results(self) -> list[int]:
        """The index results of the call."""
        return list(
            self._memory[self._results_at : self._results_at + self._result_count]
        )


def llvm_dialect(module: ModuleOp) -> ir.Module:
    """A module at the target stage in the LLVM dialect, upstream."""
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    upstream.run_pipeline(native, TO_LLVM)
    return native


def llvm_dialect_text(module: ModuleOp) -> str:
    """A module at the target stage as text in the LLVM dialect."""
    return f"{llvm_dialect(module)}"


def llvm_ir_text(module: ModuleOp) -> str:
    """A module at the target stage as LLVM IR."""
    from mlir.dialects.llvm import translate_module_to_llvmir

    native = llvm_dialect(module)
    with native.context:
        return translate_module_to_llvmir(native.operation)


def kernel_of(module: ModuleOp, entry: str | None) -> Kernel:
    """Compile a module at the target stage (upstream dialects only).

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    function = find_entry(module, entry)
    (kernel,) = _kernels(module, [function])
    return kernel


def kernels_of(module: ModuleOp) -> dict[str, Kernel]:
    """Compile a module at the target stage once, for all functions that can be run.

    Raises:
        CompileError: if operations of the dialect are left or upstream fails.
    """
    functions = [find_entry(module, name) for name in entries(module)]
    return {kernel.name: kernel for kernel in _kernels(module, functions)}


def _kernels(module: ModuleOp, functions: Sequence[FuncOp]) -> list[Kernel]:
    """The kernels of some functions, which share one engine."""
    from mlir import ir
    from mlir.execution_engine import ExecutionEngine

    if left := unlowered(module):
        raise CompileError(f"not lowered: {', '.join(left)}")
    for function in functions:
        for number in _array_arguments(function):
            type_ = function.function_type.inputs.data[number]
            if not isa(type_, MemRefType):
                raise CompileError(
                    f"@{function.sym_name.data}: expected arrays as arguments, "
                    f"got {type_}"
                )
    native = llvm_dialect(module)
    with native.context:
        try:
            engine = ExecutionEngine(
                native, opt_level=3, shared_libs=upstream.runtime_libraries()
            )
        except (RuntimeError, ir.MLIRError) as error:
            raise CompileError(f"LLVM cannot compile the module: {error}") from None
    return [_kernel(function, engine) for function in functions]


def _array_arguments(function: FuncOp) -> list[int]:
    """The arguments that are neither results nor the status."""
    arguments = function.body.block.args
    count = len(arguments) - (1 if has_status(function) else 0)
    return [n for n in range(count) if not is_result(function, arguments[n])]


def _kernel(function: FuncOp, engine: ExecutionEngine) -> Kernel:
    checks = function.attributes.get(CHECKS)
    types = function.function_type.inputs.data
    arguments = function.body.block.args
    numbers = _array_arguments(function)
    return Kernel(
        name=function.sym_name.data,
        names=[arguments[number].name_hint or f"arg{number}" for number in numbers],
        inputs=[types[number] for number in numbers],
        outputs=[
            types[number]
            for number in range(len(types))
            if is_result(function, arguments[number])
        ],
        checks=[
            text.data
            for text in (checks.data if isa(checks, ArrayAttr[StringAttr]) else ())
        ],
        _status=has_status(function),
        _engine=engine,
    )


_KERNELS: dict[str, Kernel] = {}
_LOCK = Lock()


def cache_key(module: ModuleOp, entry: str | None) -> str:
    """What a compiled kernel depends on: program, shapes and dtypes, CPU, versions."""
    parts = (
        upstream.generic_text(module),
        entry or "",
        host.cpu(),
        host.features(),
        version("xdsl"),
        version("xtc-mlir-python-bindings"),
        TO_LLVM,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_module(
    module: ModuleOp, entry: str | None = None, fuse: bool = True
) -> Kernel:
    """Compile a function of a module at any stage; the module itself is kept.

    Kernels are kept in memory, keyed by the module's text (which has the shapes and
    dtypes), the entry, the CPU and its features, and the versions of the tools.

    Raises:
        MoaError: for an unknown entry, or a program that cannot be lowered.
    """
    find_entry(module, entry)
    key = cache_key(module, entry) + (".fused" if fuse else "")
    with _LOCK:
        if key in _KERNELS:
            return _KERNELS[key]
    lowered = module.clone()
    lower_to(lowered, "target", Context(), fuse)
    kernel = kernel_of(lowered, entry)
    with _LOCK:
        return _KERNELS.setdefault(key, kernel)
