"""The engine: from a module to a function on NumPy arrays, by LLVM.

Inputs are passed without a copy if they are contiguous in the kernel's layout and
aligned; others are copied first, or refused with `copy=False`. Results are fresh
arrays. A call releases the interpreter lock; a kernel may be called from several
threads at once.

The compiler is imported when something has to be compiled: a kernel from the cache on
disk does not need it, and importing it takes longer than loading the kernel.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.rewriter import Rewriter

from moa_dialect.errors import CompileError, MoaError
from moa_dialect.lowering import cache, upstream
from moa_dialect.lowering.cache import Compilation
from moa_dialect.lowering.kernel import Kernel
from moa_dialect.lowering.loader import loaded
from moa_dialect.options import DEFAULTS, FOR_CUDA, Options

if TYPE_CHECKING:
    from moa_dialect.lowering.cuda import DeviceCompilation, PlannedKernel


def functions_of(module: ModuleOp) -> list[FuncOp]:
    """The functions with a body that are in a module, in order."""
    return [op for op in module.ops if isinstance(op, FuncOp) and not op.is_declaration]


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
        CompileError: if it is of several blocks.
    """
    names = entries(module)
    if entry is None and len(names) == 1:
        (entry,) = names
    for function in functions_of(module):
        if function.sym_name.data == entry and entry in names:
            if (count := len(function.body.blocks)) > 1:
                raise CompileError(f"{entry}: expected one block, got {count}")
            return function
    given = "none" if entry is None else f"'{entry}'"
    raise MoaError(
        f"unknown entry: expected one of {', '.join(names) or '(no function)'}, "
        f"got {given}"
    )


def compilation_of(module: ModuleOp, entry: str | None) -> Compilation:
    """Compile a module at the target stage (upstream dialects only).

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    from moa_dialect.lowering.compiler import compilation_of

    return compilation_of(module, entry)


def kernel_of(module: ModuleOp, entry: str | None) -> Kernel:
    """Compile a module at the target stage (upstream dialects only) and load it.

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    return load(compilation_of(module, entry))


def kernels_of(module: ModuleOp) -> dict[str, Kernel]:
    """Compile a module at the target stage once, for all functions that can be run.

    Raises:
        CompileError: if operations of the dialect are left or upstream fails.
    """
    from moa_dialect.lowering.compiler import compilations_of

    found = compilations_of(module, entries(module))
    symbols = [symbol for each in found for symbol in each.signature.symbols]
    if found:
        loaded(found[0].code, symbols)
    return {each.signature.name: load(each) for each in found}


def load(compilation: Compilation) -> Kernel:
    """Make an object file callable.

    Raises:
        CompileError: if LLVM does not take it.
    """
    signature = compilation.signature
    return Kernel(signature, loaded(compilation.code, signature.symbols))


_KERNELS: dict[str, Kernel] = {}
_LOCK = Lock()


def compile_module(
    module: ModuleOp, entry: str | None = None, options: Options = DEFAULTS
) -> Kernel:
    """Compile a function of a module at any stage; the module itself is kept.

    Kernels are kept in memory and on disk, keyed by the module's text (which has the
    shapes and dtypes), the entry, the options, the CPU and its features, the package's
    own code and the versions of the tools.

    Raises:
        MoaError: for an unknown entry, or a program that cannot be lowered.
    """
    find_entry(module, entry)
    key = cache.key((upstream.generic_text(module), entry or "", f"{options}"))
    with _LOCK:
        if key in _KERNELS:
            return _KERNELS[key]
    kernel = _from_disk(key)
    if kernel is None:
        from moa_dialect.lowering.pipelines import lower_to

        lowered = module.clone()
        lower_to(lowered, "target", Context(), options)
        compilation = compilation_of(lowered, entry)
        kernel = load(compilation)
        cache.write(key, compilation)
    with _LOCK:
        return _KERNELS.setdefault(key, kernel)


def compile_alone(module: ModuleOp, entry: str) -> Kernel:
    """Compile one function of a module at the target stage without the others.

    Kernels are kept as by `compile_module`.

    Raises:
        CompileError: if upstream fails.
    """
    alone = module.clone()
    for function in functions_of(alone):
        if function.sym_name.data not in (entry, f"{entry}.extents"):
            Rewriter.erase_op(function)
    key = cache.key((upstream.generic_text(alone), entry, "target"))
    with _LOCK:
        if key in _KERNELS:
            return _KERNELS[key]
    kernel = kernel_of(alone, entry)
    with _LOCK:
        return _KERNELS.setdefault(key, kernel)


_PLANNED: dict[str, PlannedKernel] = {}


def compile_for_cuda(
    module: ModuleOp,
    entry: str | None = None,
    options: Options = FOR_CUDA,
) -> PlannedKernel:
    """Compile a function of a module at any stage for a GPU; the module is kept.

    Kernels are kept in memory and on disk, as by `compile_module`.

    Raises:
        MoaError: for an unknown entry, or a program that cannot be lowered.
        CompileError: for options that are none.
    """
    from moa_dialect.lowering.cuda import DeviceCompilation

    find_entry(module, entry)
    key = cache.key((upstream.generic_text(module), entry or "", f"{options}"))
    with _LOCK:
        if key in _PLANNED:
            return _PLANNED[key]
    compilation = cache.read_as(key, DeviceCompilation.from_bytes)
    kernel: PlannedKernel | None = None
    if compilation is not None:
        with suppress(CompileError):
            kernel = load_for_cuda(compilation, options.emulate)
    if kernel is None:
        from moa_dialect.lowering.device_compiler import compilation_of
        from moa_dialect.lowering.pipelines import lower_to

        options.check()
        lowered = module.clone()
        lower_to(lowered, "target", Context(), options)
        compilation = compilation_of(lowered, entry, options)
        kernel = load_for_cuda(compilation, options.emulate)
        cache.write(key, compilation)
    with _LOCK:
        return _PLANNED.setdefault(key, kernel)


def load_for_cuda(
    compilation: DeviceCompilation, emulate: bool = False
) -> PlannedKernel:
    """Make compiled code for a GPU callable; the driver is not needed yet.

    Raises:
        CompileError: if LLVM does not take the host's code.
    """
    from moa_dialect.lowering.cuda import CudaKernel, EmulatedKernel

    host = compilation.host
    entries = loaded(host.code, host.signature.symbols)
    kind = EmulatedKernel if emulate else CudaKernel
    return kind(compilation, entries)


def _from_disk(key: str) -> Kernel | None:
    """The kernel of a key, if it is on disk and can be loaded."""
    compilation = cache.read(key)
    if compilation is None:
        return None
    try:
        return load(compilation)
    except CompileError:
        return None
