"""Machines as schedules and cost models see them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from moa_dialect.errors import MoaError


@dataclass(frozen=True)
class Machine:
    """A machine with vector registers.

    Attributes:
        name: its name.
        vector_bytes: how many bytes a vector register holds.
        registers: how many vector registers there are.
        l1_bytes: the first-level data cache of a core.
        l2_bytes: the second-level cache of a core.
        cores: how many cores share a kernel.
        has_bf16_dot: whether an instruction adds products of pairs of bf16 to f32.
    """

    name: str
    vector_bytes: int
    registers: int
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    cores: int = 1
    has_bf16_dot: bool = False


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("avx512", 64, 32),
        Machine("avx512bf16", 64, 32, has_bf16_dot=True),
        Machine("avx2", 32, 16),
        Machine("neon", 16, 32),
    )
}
"""Kinds of machine, with caches of a common size and one core."""


@cache
def host_machine() -> Machine:
    """The machine this runs on, as far as Linux tells; else one of a common size."""
    flags = _flags()
    if flags is None:
        kind = "neon" if os.uname().machine in ("aarch64", "arm64") else "avx2"
    else:
        kind = "avx512" if {"avx512f", "avx512vl", "avx512dq"} <= flags else "avx2"
        if kind == "avx512" and "avx512_bf16" in flags:
            kind = "avx512bf16"
    found = MACHINES[kind]
    return replace(
        found,
        name="host",
        l1_bytes=_cache_bytes(1) or found.l1_bytes,
        l2_bytes=_cache_bytes(2) or found.l2_bytes,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
    )


def machine_named(name: str) -> Machine:
    """A kind of machine by its name, `host` for the one this runs on.

    Raises:
        MoaError: if there is none of this name.
    """
    if name == "host":
        return host_machine()
    if name not in MACHINES:
        known = ", ".join(("host", *MACHINES))
        raise MoaError(f"unknown machine: expected one of {known}, got {name}")
    return MACHINES[name]


def _flags() -> set[str] | None:
    """The features of an x86 processor, None if this is none or does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return None


def _cache_bytes(level: int) -> int | None:
    """The size of a core's data cache of a level."""
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            is_level = int((folder / "level").read_text()) == level
            kind = (folder / "type").read_text().strip()
            size = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if is_level and kind in ("Data", "Unified") and size.endswith("K"):
            return int(size[:-1]) << 10
    return None
