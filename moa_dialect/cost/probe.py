"""The machine this runs on: sizes as the system tells, rates as measured, kept on disk.

Rates are the best of some short runs of small kernels: multiply-adds in registers,
reads of arrays that fit each level, exponentials and divisions of an array in the first
cache. Energies are not measured; they are those of a server processor.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from moa_dialect.cost.machines import FOLDER, CostMachine, Level, read_machine
from moa_dialect.passes.machine import host_machine

BUDGET_S = 0.1
"""How long a measurement takes."""

BASIS = {
    "cores": "source 1",
    "vector_bytes": "source 1",
    "registers": "derived: the instructions of the processor",
    "flops": "measured",
    "rates": "measured",
    "launch": "measured",
    "single": "measured",
    "fresh": "measured",
    "fresh_from": "derived: from so many bytes on the C library asks the system",
    "overlap": "assumption: fitted on the server of docs/performance.md",
    "efficiency": "assumption: fitted on the server of docs/performance.md",
    "idle_watts": "assumption: not known, and so not counted",
    "pages": "assumption: those of server-x86",
    "levels.capacity": "source 1",
    "levels.bandwidth": "measured",
    "levels.line": "assumption: that of all such processors",
    "levels.energy": "assumption: that of server-x86, source 2",
    "op_energy": "assumption: that of server-x86, source 2",
}
"""What the numbers of this machine are from."""

VERSION = 5
"""Changes with what is measured."""


def host_file() -> Path | None:
    """Where the measurements of this machine are kept, None if the cache is off."""
    from moa_dialect.lowering import cache as disk
    from moa_dialect.lowering import host

    folder = disk.directory()
    if folder is None:
        return None
    cores = host_machine().cores
    kind = f"{host.cpu()}-{cores}".replace("/", "-")
    return folder / f"machine-{VERSION}-{kind}.json"


@cache
def probed_host() -> CostMachine:
    """The machine this runs on; measured if that was not done before."""
    path = host_file()
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return described(json.loads(path.read_text()))
    measured = measure()
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(measured))
            temporary.replace(path)
    return described(measured)


def described(measured: dict[str, float]) -> CostMachine:
    """The machine of some measurements, the rest as of a server processor."""
    base = read_machine(FOLDER / "server-x86.toml")
    here = host_machine()
    flops = {name: measured[name] for name in ("f32", "f64", "bf16", "f16")}
    rates = {name: measured[name] for name in ("exp", "div", "math", "other")}
    energies = {level.name: level.energy for level in base.levels}
    levels = [
        Level("L1", measured["L1"], energies["L1"], here.l1_bytes),
        Level("L2", measured["L2"], energies["L2"], here.l2_bytes),
    ]
    if measured["L3_bytes"]:
        size = int(measured["L3_bytes"])
        levels.append(Level("L3", measured["L3"], energies["L3"], size, shared=True))
    levels.append(Level("DRAM", measured["DRAM"], energies["DRAM"], shared=True))
    return replace(
        base,
        name="host",
        description="the machine this runs on",
        cores=here.cores,
        vector_bytes=here.vector_bytes,
        registers=here.registers,
        flops=flops,
        rates=rates,
        levels=tuple(levels),
        checked=(),
        basis=BASIS,
        idle_watts=0.0,
        single=measured["single"],
        launch=measured["launch"],
        fresh=measured["fresh"],
        fresh_from=32 << 20,
        sources=(
            "sizes: /sys/devices/system/cpu; rates: measured by moa_dialect.cost.probe",
            *(source for source in base.sources if source.startswith("energy")),
        ),
    )


def measure(budget_s: float = BUDGET_S) -> dict[str, float]:
    """Measure this machine: rates in operations, elements or bytes a second.

    All but the reading of memory is measured on one thread, by processor time, which
    others on the machine disturb least, and multiplied by how much faster all threads
    multiply.
    """
    from moa_dialect.lowering import runtime
    from moa_dialect.tools.bench.peaks import measure_peaks

    here = host_machine()
    one = {name: _flops(name, budget_s) for name in ("f32", "f64", "bf16")}
    every = measure_peaks(here.cores, budget_s, 1 << 28)
    # Others on the machine use its memory too: the best of some time.
    for _ in range(3):
        again = measure_peaks(here.cores, budget_s, 1 << 28)
        every["read"] = max(every["read"], again["read"])
    many = max(1.0, 1e9 * every["f32"] / one["f32"])
    found = {name: many * one[name] for name in ("f32", "f64", "bf16")}
    # Without an instruction for it, bf16 is extended, as f16 always is.
    found["f16"] = found["f32"]
    found["bf16"] = found["bf16"] or found["f32"]
    alone = _read_rate(1 << 28, budget_s)
    found["DRAM"] = max(1e9 * every["read"], alone)
    found["single"] = 1 / many
    shared = _shared_bytes()
    found["L3_bytes"] = float(shared)
    for name, size in (
        ("L1", here.l1_bytes // 2),
        ("L2", here.l2_bytes // 2),
        ("L3", min(shared // 4, 8 << 20)),
    ):
        found[name] = many * _read_rate(size, budget_s) if size else 0.0
    threads = runtime.get_num_threads()
    runtime.set_num_threads(1)
    try:
        of_one = _operations(budget_s)
    finally:
        runtime.set_num_threads(threads)
    found |= {name: many * rate for name, rate in of_one.items()}
    found["launch"] = many / found["launch"]
    found["fresh"] = _fresh_rate(budget_s)
    return found


def _operations(budget_s: float) -> dict[str, float]:
    """Elements a second of scalar operations, and kernels a second, on one thread."""
    import moa_dialect as moa

    numbers = np.random.default_rng(0).random(1 << 14, np.float32) + 1.0
    steps: dict[str, Callable[[Any, float], Any]] = {
        "other": lambda a, c: abs(a - c),
        "exp": lambda a, c: moa.exp(c - a),
        "div": lambda a, c: c / (a + c),
        "math": lambda a, c: moa.log(a + (2.0 + c)),
    }
    launch = _seconds(_call(moa.jit(lambda a: a + 1.0), numbers[:1]), budget_s)
    found: dict[str, float] = {}
    for name, step in steps.items():
        call = _call(moa.jit(_sum(step)), numbers)
        taken = max(_seconds(call, budget_s) - launch, 1e-9)
        found[name] = MANY * numbers.size / taken
    # Each one has two additions or subtractions besides.
    found["other"] *= 3
    for name in ("exp", "div", "math"):
        alone = 1 / found[name] - 2 / found["other"]
        found[name] = 1 / max(alone, 0.1 / found[name])
    return found | {"launch": 1 / launch}


MANY = 12
"""How often an operation is applied to an element, so that memory does not count."""


def _sum(step: Callable[[Any, float], Any]) -> Callable[[Any], Any]:
    """A program that applies an operation to many numbers that an element gives."""

    def total(a: Any) -> Any:
        found = step(a, 1.0)
        for number in range(1, MANY):
            found = found + step(a, 1.0 + number / 16)
        return found

    return total


def _call(kernel: Callable[..., Any], array: Any) -> Callable[[], Any]:
    return lambda: kernel(array)


def _seconds(call: Callable[[], Any], budget_s: float) -> float:
    """The best processor time of a call on this thread."""
    call()
    best, end = float("inf"), time.perf_counter() + budget_s
    times = 1
    while time.perf_counter() < end:
        start = time.thread_time()
        for _ in range(times):
            call()
        taken = time.thread_time() - start
        best = min(best, taken / times) if taken > 2e-5 else best
        if taken < 1e-4:
            times *= 2
    return best


def _flops(dtype: str, budget_s: float) -> float:
    """Operations a second of a thread, 0 if there is no instruction for the type."""
    from moa_dialect.lowering import host
    from moa_dialect.tools.bench.peaks import Multiplier, aligned, compile_kernel

    multiplier = Multiplier.of(dtype, host.features(), 400_000)
    if multiplier is None:
        return 0.0
    kernel = compile_kernel(multiplier.text())
    part = aligned(256).view(np.float64 if dtype == "f64" else np.float32)
    part.fill(1e-3)
    return multiplier.flops / _seconds(lambda: kernel(part), budget_s)


def _fresh_rate(budget_s: float, size: int = 1 << 26) -> float:
    """Bytes a second that first use of memory costs, beyond writing it."""
    array = np.empty(size, np.uint8)
    again = _seconds(lambda: array.fill(1), budget_s)
    first = _seconds(lambda: np.empty(size, np.uint8).fill(1), budget_s)
    return size / max(first - again, 1e-9)


def _read_rate(size: int, budget_s: float) -> float:
    """Bytes a second at which a thread reads an array of a size again and again."""
    from moa_dialect.lowering import host
    from moa_dialect.tools.bench.peaks import (
        UNROLLED,
        aligned,
        compile_kernel,
        stream_text,
        vector_bytes,
    )

    lanes = vector_bytes(host.features()) // 4
    unit = lanes * UNROLLED * 4
    size = max(size // unit, 1) * unit
    times = max(1, (128 << 20) // size)
    kernel = compile_kernel(stream_text(lanes, is_copy=False, times=times))
    array = aligned(size).view(np.int32)
    return size * times / _seconds(lambda: kernel(array), budget_s)


def _shared_bytes() -> int:
    """The size of the third-level cache, 0 if there is none or it is not told."""
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with suppress(OSError, ValueError):
            if int((folder / "level").read_text()) == 3:
                size = (folder / "size").read_text().strip()
                return int(size[:-1]) << (20 if size.endswith("M") else 10)
    return 0
