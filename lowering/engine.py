"""The engine: from a module to a function on NumPy arrays, by LLVM.

Inputs are passed without a copy if they are contiguous in the kernel's layout and
aligned; others are copied first, or refused with `copy=False`. Results are fresh
arrays. A call releases the interpreter lock; a kernel may be called from several
threads at once.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING

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
from xdsl.rewriter import Rewriter
from xdsl.utils.hints import isa

from moa_dialect.arguments import array_type
from moa_dialect.errors import (
    CompileError,
    MoaError,
)
from moa_dialect.lowering import host, upstream
from moa_dialect.lowering.kernel import STATUS_WORDS, Kernel, Memory, Signature
from moa_dialect.lowering.loader import loaded
from moa_dialect.lowering.pipelines import TO_LLVM, lower_to
from moa_dialect.lowering.threads import OutlineTasksPass
from moa_dialect.lowering.to_scf import CHECKS, has_status, unlowered
from moa_dialect.passes.check_storage import is_result
from moa_dialect.passes.infer_shapes import functions_of

if TYPE_CHECKING:
    from mlir import ir

WITHOUT_WRAPPERS = TO_LLVM.replace("func.func(llvm-request-c-wrappers),", "")
"""The pipeline to LLVM without a C interface beside each function."""


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


def _memory(type_: Attribute) -> Memory:
    """How values of a memref type lie in memory."""
    dtype, shape = array_type(type_)
    return Memory(dtype.name, shape, "F" if _is_fortran(type_) else "C")


def llvm_dialect(module: ModuleOp, for_callers: bool = True) -> ir.Module:
    """A module at the target stage in the LLVM dialect, upstream.

    Args:
        module: the module; its parallel loops are outlined in place.
        for_callers: have functions with C interfaces beside the others.
    """
    OutlineTasksPass().apply(Context(), module)
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    upstream.run_pipeline(native, TO_LLVM if for_callers else WITHOUT_WRAPPERS)
    return native


def llvm_dialect_text(module: ModuleOp) -> str:
    """A module at the target stage as text in the LLVM dialect."""
    return f"{llvm_dialect(module)}"


def llvm_ir_text(module: ModuleOp, for_callers: bool = True) -> str:
    """A module at the target stage as LLVM IR.

    Raises:
        CompileError: if operations of other dialects are left.
    """
    from mlir.dialects.llvm import translate_module_to_llvmir

    native = llvm_dialect(module, for_callers)
    # What cannot be translated would end the process.
    if left := upstream.operations_beside(native, ("llvm.", "builtin.module")):
        raise CompileError(f"upstream does not lower {', '.join(left)}")
    with native.context:
        return translate_module_to_llvmir(native.operation)


@dataclass(frozen=True)
class Compilation:
    """A kernel that is compiled but not loaded."""

    signature: Signature
    code: bytes


def entry_points(signature: Signature, has_status: bool) -> str:
    """LLVM IR of the functions of a frame (`moa_dialect.lowering.kernel`).

    They call the function itself, and the one that gives the results' extents.
    """
    arrays = [*signature.inputs, *signature.outputs]
    at = STATUS_WORDS + len(arrays)
    lines: list[str] = []
    arguments: list[str] = []

    def load(word: int, type_: str) -> str:
        name = f"%w{word}"
        lines.append(f"{name}.at = getelementptr i64, ptr %frame, i64 {word}")
        lines.append(f"{name} = load {type_}, ptr {name}.at")
        return name

    inputs, prelude, results_at = [""], [""], 0
    for number, array in enumerate(arrays):
        if number == len(signature.inputs):
            inputs, prelude, results_at = list(arguments), list(lines), at
        pointer = load(STATUS_WORDS + number, "ptr")
        extents = list(map(str, array.shape))
        for axis in array.dynamic_axes:
            extents[axis] = load(at, "i64")
            at += 1
        strides, step = ["1"] * len(extents), "1"
        order = range(len(extents))
        for axis in order if array.order == "F" else reversed(order):
            strides[axis] = step
            following = f"%a{number}.{axis}"
            lines.append(f"{following} = mul i64 {step}, {extents[axis]}")
            step = following
        arguments += (f"ptr {pointer}", f"ptr {pointer}", "i64 0")
        arguments += (f"i64 {word}" for word in (*extents, *strides))
    if has_status:
        arguments += ("ptr %frame", "ptr %frame", "i64 0", "i64 3", "i64 1")
    name = _quoted(signature.name)
    lines.append(f"call void @{name}({', '.join(arguments)})")
    text = _ir_function(signature.symbol, lines)
    if signature.extents_symbol is None:
        return text
    count = sum(len(output.dynamic_axes) for output in signature.outputs)
    type_ = "i64" if count == 1 else f"{{ {', '.join(['i64'] * count)} }}"
    callee = _quoted(f"{signature.name}.extents")
    lines = [*prelude, f"%found = call {type_} @{callee}({', '.join(inputs)})"]
    for number in range(count):
        value = "%found"
        if count > 1:
            value = f"%e{number}"
            lines.append(f"{value} = extractvalue {type_} %found, {number}")
        word = results_at + number
        lines.append(f"%r{number} = getelementptr i64, ptr %frame, i64 {word}")
        lines.append(f"store i64 {value}, ptr %r{number}")
    return text + _ir_function(signature.extents_symbol, lines)


def _quoted(name: str) -> str:
    """A name as LLVM IR writes it."""
    safe = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}"
        for byte in name.encode()
    )
    return f'"{safe}"'


def _ir_function(symbol: str, lines: Sequence[str]) -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"\ndefine void @{_quoted(symbol)}(ptr %frame) {{\n{body}\n  ret void\n}}\n"


def compilation_of(module: ModuleOp, entry: str | None) -> Compilation:
    """Compile a module at the target stage (upstream dialects only).

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    function = find_entry(module, entry)
    if left := unlowered(module):
        raise CompileError(f"not lowered: {', '.join(left)}")
    checks = function.attributes.get(CHECKS)
    types = function.function_type.inputs.data
    arguments = function.body.block.args
    status = has_status(function)
    array_arguments = [
        number
        for number in range(len(types) - (1 if status else 0))
        if not is_result(function, arguments[number])
    ]
    for number in array_arguments:
        if not isa(types[number], MemRefType):
            raise CompileError(
                f"@{function.sym_name.data}: expected arrays as arguments, "
                f"got {types[number]}"
            )
    inputs = [types[number] for number in array_arguments]
    outputs = [
        types[number]
        for number in range(len(types))
        if is_result(function, arguments[number])
    ]
    code = llvm_ir_text(module, for_callers=False)
    signature = Signature(
        name=function.sym_name.data,
        symbol=f"moa.{hashlib.sha256(code.encode()).hexdigest()[:32]}",
        names=tuple(
            arguments[number].name_hint or f"arg{number}" for number in array_arguments
        ),
        inputs=tuple(map(_memory, inputs)),
        outputs=tuple(map(_memory, outputs)),
        checks=tuple(
            text.data
            for text in (checks.data if isa(checks, ArrayAttr[StringAttr]) else ())
        ),
    )
    code += entry_points(signature, status)
    return Compilation(signature, host.object_code(code, signature.symbols))


def kernel_of(module: ModuleOp, entry: str | None) -> Kernel:
    """Compile a module at the target stage (upstream dialects only) and load it.

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    return load(compilation_of(module, entry))


def load(compilation: Compilation) -> Kernel:
    """Make an object file callable.

    Raises:
        CompileError: if LLVM does not take it.
    """
    signature = compilation.signature
    return Kernel(signature, loaded(compilation.code, signature.symbols))


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
    key = cache_key(alone, entry) + ".target"
    with _LOCK:
        if key in _KERNELS:
            return _KERNELS[key]
    kernel = kernel_of(alone, entry)
    with _LOCK:
        return _KERNELS.setdefault(key, kernel)
