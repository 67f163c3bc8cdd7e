"""Planning and launching in one call of machine code.

What a call of a kernel does once its plan's places are known, without Python between
the host function and the driver: the host function writes the plan, and its launches
are handed to the driver in the device's context. It is a function of LLVM's IR, made
once in a process, of the address of an `Order`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from moa_dialect.lowering import host
from moa_dialect.lowering.loader import Entry, loaded

DONE, FAILED, SCRATCH, SHARED, CONTEXT, LAUNCH = range(6)
"""What became of an order: it was carried out; the host function reports a failure;
it needs more scratch memory, or a launch more shared memory, than there is; the driver
did not take the context, or a launch. Nothing is launched but in the first case, and
before the launch that fails in the last."""

OUTCOME, STREAM, BYTES = 0, 2, 3
"""Words of an order: what became of it, where its launches go, and how many bytes of
scratch memory there are."""

_ERROR, _FIXED, _FIRST, _EACH = 1, 4, 12, 4


class Order:
    """The words that say what is to be done.

    Attributes:
        words: outcome, the driver's error, stream, and bytes of scratch memory; the
            functions that push and pop a context, the context, the host function, its
            frame, the plan, the function that launches, how many launches; and for each
            its function, its first word in the plan, its pointers to arguments and how
            much shared memory it may have.
        address: where they are.
        run: what carries it out, of its address.
    """

    def __init__(
        self, fixed: Sequence[int], launches: Sequence[tuple[int, int, int, int]]
    ) -> None:
        """Make one of what stays the same."""
        flat = [word for launch in launches for word in launch]
        listed = [0, 0, 0, 0, *fixed, len(launches), *flat]
        self.words: Any = (ctypes.c_int64 * len(listed))(*listed)
        self.address = ctypes.addressof(self.words)
        self.run = launcher()

    @property
    def error(self) -> tuple[int, int]:
        """The driver's error, and the number of the launch that it is of."""
        return self.words[_ERROR] & 0xFFFFFFFF, self.words[_ERROR] >> 32


def address_of(function: Any) -> int:
    """Where a foreign function is."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@cache
def launcher() -> Entry:
    """The function that carries out the order at an address."""
    symbol = "moa.launch"
    (entry,) = loaded(host.object_code(_text(symbol), [symbol]), [symbol])
    return entry


def _text(symbol: str) -> str:
    """The function as LLVM's IR."""
    fixed = ("push", "pop", "context", "host", "frame", "plan", "launch", "count")
    types = ("ptr", "ptr", "ptr", "ptr", "ptr", "ptr", "ptr", "i64")
    lines = [f'define void @"{symbol}"(ptr %order) {{', "entry:"]
    lines.append("  %popped = alloca ptr")
    for number, (name, type_) in enumerate(zip(fixed, types, strict=True)):
        lines += _load(name, type_, "%order", f"{_FIXED + number}")
    lines += [
        *_load("stream", "ptr", "%order", f"{STREAM}"),
        *_load("scratch", "i64", "%order", f"{BYTES}"),
        "  call void %host(ptr %frame)",
        "  %status = load i64, ptr %frame",
        "  %fails = icmp ne i64 %status, 0",
        "  br i1 %fails, label %failed, label %planned",
        "planned:",
        *_load("needed", "i64", "%plan", "1"),
        "  %lacks = icmp sgt i64 %needed, %scratch",
        "  br i1 %lacks, label %more_scratch, label %check",
        # No launch may need more shared memory than it is allowed.
        *_loop("check", "enter"),
        *_load("check.shared", "i64", "%plan", "%check.shared.at"),
        *_load("check.allowed", "i64", "%order", "%check.allowed.at"),
        "  %check.lacks = icmp sgt i64 %check.shared, %check.allowed",
        "  br i1 %check.lacks, label %more_shared, label %check.next",
        "enter:",
        "  %pushed = call i32 %push(ptr %context)",
        "  %refused = icmp ne i32 %pushed, 0",
        "  br i1 %refused, label %no_context, label %go",
        *_loop("go", "leave"),
    ]
    lines += _load("number", "i64", "%plan", "%go.at")
    product = "%number"
    for k in range(6):
        lines += [
            f"  %size.at{k} = add i64 %go.at, {1 + k}",
            *_load(f"size{k}", "i64", "%plan", f"%size.at{k}"),
            f"  %narrow{k} = trunc i64 %size{k} to i32",
            f"  %empty{k} = icmp eq i64 %size{k}, 0",
            f"  %so_far{k} = select i1 %empty{k}, i64 0, i64 {product}",
        ]
        product = f"%so_far{k}"
    sizes = ", ".join(f"i32 %narrow{k}" for k in range(6))
    lines += [
        f"  %nothing = icmp eq i64 {product}, 0",
        "  br i1 %nothing, label %go.next, label %go.launch",
        "go.launch:",
        *_load("go.shared", "i64", "%plan", "%go.shared.at"),
        "  %go.bytes = trunc i64 %go.shared to i32",
        *_load("function", "ptr", "%order", "%go.first"),
        *_load("pointers", "ptr", "%order", "%go.pointers.at"),
        f"  %error = call i32 %launch(ptr %function, {sizes}, i32 %go.bytes, "
        "ptr %stream, ptr %pointers, ptr null)",
        "  %wrong = icmp ne i32 %error, 0",
        "  br i1 %wrong, label %launch_failed, label %go.next",
        "leave:",
        "  call i32 %pop(ptr %popped)",
        *_end(DONE),
        "launch_failed:",
        "  call i32 %pop(ptr %popped)",
        "  %low = zext i32 %error to i64",
        "  %high = shl i64 %go.i, 32",
        "  %both = or i64 %low, %high",
        *_store("%both", _ERROR, "launch"),
        *_end(LAUNCH),
        "no_context:",
        "  %why = zext i32 %pushed to i64",
        *_store("%why", _ERROR, "context"),
        *_end(CONTEXT),
        "failed:",
        *_end(FAILED),
        "more_scratch:",
        *_end(SCRATCH),
        "more_shared:",
        *_end(SHARED),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _load(name: str, type_: str, base: str, at: str) -> list[str]:
    """Load the word of a number."""
    return [
        f"  %{name}.p = getelementptr i64, ptr {base}, i64 {at}",
        f"  %{name} = load {type_}, ptr %{name}.p",
    ]


def _loop(name: str, after: str) -> list[str]:
    """The head of a loop over all launches, with the places of their words."""
    return [
        f"{name}:",
        f"  br label %{name}.head",
        f"{name}.next:",
        f"  %{name}.following = add i64 %{name}.i, 1",
        f"  br label %{name}.head",
        f"{name}.head:",
        f"  %{name}.i = phi i64 [ 0, %{name} ], [ %{name}.following, %{name}.next ]",
        f"  %{name}.more = icmp slt i64 %{name}.i, %count",
        f"  br i1 %{name}.more, label %{name}.body, label %{after}",
        f"{name}.body:",
        f"  %{name}.skipped = mul i64 %{name}.i, {_EACH}",
        f"  %{name}.first = add i64 %{name}.skipped, {_FIRST}",
        f"  %{name}.at.at = add i64 %{name}.first, 1",
        f"  %{name}.pointers.at = add i64 %{name}.first, 2",
        f"  %{name}.allowed.at = add i64 %{name}.first, 3",
        *_load(f"{name}.at", "i64", "%order", f"%{name}.at.at"),
        f"  %{name}.shared.at = add i64 %{name}.at, 7",
    ]


def _store(value: str, at: int, name: str) -> list[str]:
    """Store a word of the order."""
    return [
        f"  %to.{name} = getelementptr i64, ptr %order, i64 {at}",
        f"  store i64 {value}, ptr %to.{name}",
    ]


def _end(outcome: int) -> list[str]:
    """Say what became of the order."""
    return [*_store(f"{outcome}", OUTCOME, f"outcome{outcome}"), "  ret void"]
