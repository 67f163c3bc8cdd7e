"""Machines as schedules and cost models see them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from moa_dialect.cost.machines import CostMachine, shipped
from moa_dialect.cost.machines import machine as described
from moa_dialect.errors import MoaError
from moa_dialect.lowering.host import kind_by_setting


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
        kind: which of `MACHINES` it is one of.
        costs: what things cost on it; None if that is known of its kind only.
    """

    name: str
    vector_bytes: int
    registers: int
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    cores: int = 1
    has_bf16_dot: bool = False
    kind: str = ""
    costs: CostMachine | None = field(default=None, compare=False)

    @property
    def description(self) -> CostMachine:
        """What things cost on it: as described, or on its kind with its caches.

        Rates are not measured, so that the same program has the same schedules on all
        machines of a kind that have the same caches and cores.
        """
        if self.costs is not None:
            return self.costs
        return _described(self)


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("avx512", 64, 32, kind="avx512"),
        Machine("avx512bf16", 64, 32, has_bf16_dot=True, kind="avx512bf16"),
        Machine("avx2", 32, 16, kind="avx2"),
        Machine("neon", 16, 32, kind="neon"),
    )
}
"""Kinds of machine, with caches of a common size and one core."""


@cache
def _described(machine: Machine) -> CostMachine:
    known = described(machine.kind or _kind_like(machine))
    sizes = {"L1": machine.l1_bytes, "L2": machine.l2_bytes}
    levels = [
        replace(
            level,
            capacity=sizes.get(level.name, level.capacity),
            bandwidth=level.bandwidth * machine.cores,
        )
        for level in known.levels
    ]
    return replace(
        known,
        name=machine.name,
        cores=machine.cores,
        vector_bytes=machine.vector_bytes,
        registers=machine.registers,
        flops={name: rate * machine.cores for name, rate in known.flops.items()},
        rates={name: rate * machine.cores for name, rate in known.rates.items()},
        levels=tuple(levels),
    )


def _kind_like(machine: Machine) -> str:
    """The kind of machine with such vectors."""
    if machine.vector_bytes >= 64:
        return "avx512bf16" if machine.has_bf16_dot else "avx512"
    return "avx2" if machine.vector_bytes >= 32 else "neon"


def machine_like(costs: CostMachine) -> Machine:
    """A machine as schedules see it, from what things cost on it."""
    caches = [level.capacity for level in costs.levels if level.capacity]
    return Machine(
        costs.name,
        costs.vector_bytes,
        costs.registers,
        caches[0] if caches else 32 << 10,
        caches[1] if len(caches) > 1 else 1 << 20,
        costs.cores,
        costs.flops.get("bf16", 0.0) > 1.5 * costs.flops["f32"],
        costs=costs,
    )


@cache
def host_machine() -> Machine:
    """The machine this runs on, as far as Linux tells; else one of a common size.

    It has the vectors of the CPU that code is made for.
    """
    flags = _flags()
    if (named := kind_by_setting()) is not None:
        kind = named
    elif flags is None:
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
    """A machine by its name, `host` for the one this runs on, or by its description.

    Args:
        name: a kind of machine, or a description of a CPU: one that comes with the
            package, or a file `.toml`.

    Raises:
        MoaError: if there is none of this name, or it is no CPU.
    """
    if name == "host":
        return host_machine()
    if name in MACHINES:
        return MACHINES[name]
    if not name.endswith(".toml") and name not in shipped():
        others = [other for other in shipped() if other not in MACHINES]
        known = ", ".join(("host", *MACHINES, *others))
        raise MoaError(
            f"unknown machine: expected one of {known}, or a .toml file, got {name}"
        )
    found = described(name)
    if found.kind != "cpu":
        raise MoaError(f"machine {name}: expected one of kind cpu, got {found.kind}")
    return machine_like(found)


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
