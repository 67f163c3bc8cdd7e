"""From a module at the target stage to an object file."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
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
from xdsl.utils.hints import isa

from moa_dialect.arguments import array_type
from moa_dialect.collector import uncollected
from moa_dialect.errors import CompileError
from moa_dialect.lowering import host, upstream
from moa_dialect.lowering.cache import Compilation
from moa_dialect.lowering.emitter import ROLLED
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.kernel import STATUS_WORDS, Memory, Signature
from moa_dialect.lowering.pipelines import TO_LLVM
from moa_dialect.lowering.threads import OutlineTasksPass
from moa_dialect.lowering.to_scf import CHECKS, has_status, unlowered
from moa_dialect.lowering.unregistered import attribute
from moa_dialect.passes.check_storage import is_result
from moa_dialect.walking import operations

if TYPE_CHECKING:
    from mlir import ir

WITHOUT_WRAPPERS = TO_LLVM.replace("func.func(llvm-request-c-wrappers),", "")
"""The pipeline to LLVM without a C interface beside each function."""


_ROLLED_LOOP = "#llvm.loop_annotation<unroll = <disable = true>>"


def _is_fortran(type_: Attribute) -> bool:
    return isa(type_, MemRefType) and not isinstance(type_.layout, NoneAttr)


def _memory(type_: Attribute) -> Memory:
    """How values of a memref type lie in memory."""
    dtype, shape = array_type(type_)
    return Memory(dtype.name, shape, "F" if _is_fortran(type_) else "C")


def _pipeline(for_callers: bool, processor: host.Processor | None) -> str:
    """Upstream's passes for a processor.

    LLVM has x86 call a function for each number that is rounded to bf16, where there is
    no instruction for that. So arithmetic on bf16 is on f32 before, and rounding is
    arithmetic on the bits, in vectors.
    """
    found = TO_LLVM if for_callers else WITHOUT_WRAPPERS
    if host.rounds_to_bf16(processor):
        return found
    return found.replace("arith-expand,", _BF16_BY_BITS)


_BF16_BY_BITS = (
    "arith-emulate-unsupported-floats{source-types=bf16 target-type=f32},"
    "arith-expand{include-bf16=true},"
)


def llvm_dialect(
    module: ModuleOp,
    for_callers: bool = True,
    processor: host.Processor | None = None,
) -> ir.Module:
    """A module at the target stage in the LLVM dialect, upstream.

    Args:
        module: the module; its parallel loops are outlined in place.
        for_callers: have functions with C interfaces beside the others.
        processor: what it is for; None for the host.
    """
    OutlineTasksPass().apply(Context(), module)
    for op in operations(module):
        if op.attributes.pop(ROLLED, None) is not None:
            op.attributes["loop_annotation"] = attribute(_ROLLED_LOOP)
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    pipeline = _pipeline(for_callers, processor)
    upstream.run_pipeline(native, pipeline, verify_each=False)
    return native


def llvm_dialect_text(module: ModuleOp) -> str:
    """A module at the target stage as text in the LLVM dialect."""
    return f"{llvm_dialect(module)}"


def llvm_ir_text(
    module: ModuleOp,
    for_callers: bool = True,
    processor: host.Processor | None = None,
) -> str:
    """A module at the target stage as LLVM IR.

    Args:
        module: the module; its parallel loops are outlined in place.
        for_callers: have functions with C interfaces beside the others.
        processor: what it is for; None for the host.

    Raises:
        CompileError: if operations of other dialects are left.
    """
    return upstream.llvm_ir(llvm_dialect(module, for_callers, processor))


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


def compilation_of(
    module: ModuleOp, entry: str | None, processor: host.Processor | None = None
) -> Compilation:
    """Compile a module at the target stage (upstream dialects only).

    Args:
        module: the module.
        entry: the function; may be None if there is one only.
        processor: what the code is for; None for the host.

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    name = find_entry(module, entry).sym_name.data
    (found,) = compilations_of(module, [name], processor)
    return found


@uncollected()
def compilations_of(
    module: ModuleOp, names: Sequence[str], processor: host.Processor | None = None
) -> list[Compilation]:
    """Compile a module at the target stage once, for some of its functions.

    Args:
        module: the module.
        names: the functions.
        processor: what the code is for; None for the host.

    Raises:
        MoaError: for an unknown entry.
        CompileError: if operations of the dialect are left or upstream fails.
    """
    functions = [find_entry(module, name) for name in names]
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
    text = llvm_ir_text(module, for_callers=False, processor=processor)
    # Equal code may be called in different ways.
    plain = [_signature(function, "") for function in functions]
    digest = hashlib.sha256(f"{text}{plain}{processor}".encode()).hexdigest()[:32]
    signatures = [
        replace(signature, symbol=f"moa.{digest}" + (f".{number}" if number else ""))
        for number, signature in enumerate(plain)
    ]
    for function, signature in zip(functions, signatures, strict=True):
        text += entry_points(signature, has_status(function))
    symbols = [symbol for each in signatures for symbol in each.symbols]
    code = host.object_code(text, symbols, processor=processor)
    return [Compilation(signature, code) for signature in signatures]


def _array_arguments(function: FuncOp) -> list[int]:
    """The arguments that are neither results nor the status."""
    arguments = function.body.block.args
    count = len(arguments) - (1 if has_status(function) else 0)
    return [n for n in range(count) if not is_result(function, arguments[n])]


def _signature(function: FuncOp, symbol: str) -> Signature:
    """What a caller must know of a function."""
    checks = function.attributes.get(CHECKS)
    types = function.function_type.inputs.data
    arguments = function.body.block.args
    numbers = _array_arguments(function)
    outputs = [t for n, t in enumerate(types) if is_result(function, arguments[n])]
    return Signature(
        name=function.sym_name.data,
        symbol=symbol,
        names=tuple(
            arguments[number].name_hint or f"arg{number}" for number in numbers
        ),
        inputs=tuple(_memory(types[n]) for n in numbers),
        outputs=tuple(map(_memory, outputs)),
        checks=tuple(
            text.data
            for text in (checks.data if isa(checks, ArrayAttr[StringAttr]) else ())
        ),
    )
