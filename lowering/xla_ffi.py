"""Kernels as handlers of XLA's foreign function interface, on CPUs.

A handler takes XLA's call frame (`xla/ffi/api/c_api.h`, version 0), puts the addresses
of its buffers into a frame of the kernel (`moa_dialect.lowering.kernel`), and calls it
in the thread that XLA calls it in. Neither Python nor a copy is between.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from moa_dialect.errors import CompileError
from moa_dialect.lowering import host
from moa_dialect.lowering.kernel import STATUS_WORDS, Kernel, Signature
from moa_dialect.lowering.loader import loaded

# Offsets in bytes, of fields of the structures of version 0 of the interface.
_EXTENSION, _API, _STAGE = 8, 16, 32
_ARGUMENTS, _RESULTS = 72, 112
_DATA = 24
_EXTENSION_TYPE, _METADATA = 8, 24
_MAJOR, _MINOR = 24, 28
_ERROR_CREATE = 48

_EXECUTE = 3
_IS_METADATA = 1
_FAILED_PRECONDITION = 9
_VERSION = (0, 3)


def handler(kernel: Kernel) -> int:
    """The address of a handler that runs a kernel of static shapes.

    Raises:
        CompileError: if its results have extents that only a call tells.
    """
    signature = kernel.signature
    symbol = f"{signature.symbol}.xla"
    if any(m.dynamic_axes for m in (*signature.inputs, *signature.outputs)):
        raise CompileError(f"@{signature.name}: expected static shapes for XLA")
    code = host.object_code(handler_text(signature, symbol), [symbol])
    (entry,) = loaded(code, [symbol])
    address = ctypes.cast(entry, ctypes.c_void_p).value  # pyright: ignore[reportArgumentType]
    assert address is not None
    return address


def handler_text(signature: Signature, symbol: str) -> str:
    """LLVM IR of the handler of a kernel."""
    inputs, outputs = len(signature.inputs), len(signature.outputs)
    words = STATUS_WORDS + inputs + outputs
    lines = [*_introduction()]
    lines.append(f"%own = alloca [{words} x i64]")
    lines.append(
        f"call void @llvm.memset.p0.i64(ptr %own, i8 0, i64 {8 * words}, i1 0)"
    )
    for at, count, name in (
        (_ARGUMENTS, inputs, "a"),
        (_RESULTS, outputs, "r"),
    ):
        lines += _loaded(f"{name}.all", "%frame", at)
        for number in range(count):
            lines += _loaded(f"{name}{number}", f"%{name}.all", 8 * number)
            lines += _loaded(f"{name}{number}.data", f"%{name}{number}", _DATA)
            word = STATUS_WORDS + number + (inputs if name == "r" else 0)
            lines.append(
                f"%{name}{number}.to = getelementptr i64, ptr %own, i64 {word}"
            )
            lines.append(f"store ptr %{name}{number}.data, ptr %{name}{number}.to")
    lines.append(f'call void @"{signature.symbol}"(ptr %own)')
    lines.append("%status = load i64, ptr %own")
    lines.append("%is.well = icmp eq i64 %status, 0")
    lines.append("br i1 %is.well, label %done, label %failed")
    lines.append("done:")
    lines.append("ret ptr null")
    lines += _failure(len(signature.checks))
    body = "\n".join(f"  {line}" for line in lines)
    texts = [
        text.split(": ", 1)[1].split(": expected {")[0] for text in signature.checks
    ]
    return "\n".join(
        (
            *(_constant(f"check{k}", text) for k, text in enumerate(texts)),
            f"@checks = private constant [{len(texts)} x ptr] "
            f"[{', '.join(f'ptr @check{k}' for k in range(len(texts)))}]",
            f'declare void @"{signature.symbol}"(ptr)',
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
            f'define ptr @"{symbol}"(ptr %frame) {{',
            body,
            "}",
            "",
        )
    )


def _loaded(name: str, base: str, offset: int, type_: str = "ptr") -> list[str]:
    return [
        f"%{name}.at = getelementptr i8, ptr {base}, i64 {offset}",
        f"%{name} = load {type_}, ptr %{name}.at",
    ]


def _introduction() -> Sequence[str]:
    """Answer what version it is, and do nothing but execute."""
    major, minor = _VERSION
    return (
        *_loaded("extension", "%frame", _EXTENSION),
        "%is.plain = icmp eq ptr %extension, null",
        "br i1 %is.plain, label %asked, label %extended",
        "extended:",
        *_loaded("type", "%extension", _EXTENSION_TYPE, "i32"),
        f"%is.metadata = icmp eq i32 %type, {_IS_METADATA}",
        "br i1 %is.metadata, label %metadata, label %asked",
        "metadata:",
        *_loaded("about", "%extension", _METADATA),
        f"%major = getelementptr i8, ptr %about, i64 {_MAJOR}",
        f"store i32 {major}, ptr %major",
        f"%minor = getelementptr i8, ptr %about, i64 {_MINOR}",
        f"store i32 {minor}, ptr %minor",
        "ret ptr null",
        "asked:",
        *_loaded("stage", "%frame", _STAGE, "i32"),
        f"%is.execute = icmp eq i32 %stage, {_EXECUTE}",
        "br i1 %is.execute, label %execute, label %nothing",
        "nothing:",
        "ret ptr null",
        "execute:",
    )


def _failure(checks: int) -> Sequence[str]:
    """Give XLA the message of the check that failed."""
    return (
        "failed:",
        "%number = sub i64 %status, 1",
        f"%text.at = getelementptr [{checks} x ptr], ptr @checks, i64 0, i64 %number",
        "%text = load ptr, ptr %text.at",
        "%error = alloca { i64, ptr, ptr, i32 }",
        "store i64 32, ptr %error",
        "%error.extension = getelementptr i8, ptr %error, i64 8",
        "store ptr null, ptr %error.extension",
        "%error.message = getelementptr i8, ptr %error, i64 16",
        "store ptr %text, ptr %error.message",
        "%error.code = getelementptr i8, ptr %error, i64 24",
        f"store i32 {_FAILED_PRECONDITION}, ptr %error.code",
        *_loaded("api", "%frame", _API),
        *_loaded("create", "%api", _ERROR_CREATE),
        "%made = call ptr %create(ptr %error)",
        "ret ptr %made",
    )


def _constant(name: str, text: str) -> str:
    data = text.encode() + b"\0"
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}"
        for byte in data
    )
    return f'@{name} = private constant [{len(data)} x i8] c"{escaped}"'
