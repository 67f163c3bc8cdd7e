"""`moa-bench --target cuda`: programs on a GPU beside PyTorch, in one process.

The cases are those of `moa_dialect.tools.gpu_check`. Each has fresh random data; its
result is compared with PyTorch in float64 first. Then moa and what PyTorch has for it
(for attention its cuDNN and flash backends, too) are timed in turn, round after round,
by CUDA events, with memory written in between that no cache keeps the arguments.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moa_dialect.errors import MoaError
from moa_dialect.tools import gpu_check
from moa_dialect.tools.bench.harness import BenchError
from moa_dialect.tools.bench.suites import SuiteError
from moa_dialect.tools.gpu_check import CASES, FLUSHED_BYTES, Case

FOLDS = (
    "total",
    "normalized",
    "columns",
    "column",
    "variance",
    "transposed",
    "elements",
)
"""Cases of folds of whole arrays and along columns, and of single elements."""

GROUPS: dict[str, Callable[[Case], bool]] = {
    "check": lambda case: not case.name.startswith(("fast", "try")),
    "attention": lambda case: (
        _is_fast(case) and "atten" in case.name and case.operations > 0
    ),
    "causal": lambda case: _is_fast(case) and "causal" in case.name,
    "decode": lambda case: _is_fast(case) and "atten" in case.name and case.bytes > 0,
    "matmul": lambda case: _is_fast(case) and "matmul" in case.name,
    "rows": lambda case: (
        _is_fast(case)
        and case.name.split("_")[1] in ("softmax", "layernorm", "logsumexp")
    ),
    "folds": lambda case: _is_fast(case) and case.name.split("_")[1] in FOLDS,
    "experiments": lambda case: case.name.startswith("try"),
}
"""The suites for a GPU, by name."""


def _is_fast(case: Case) -> bool:
    return case.name.startswith("fast")


def chosen_cases(names: Sequence[str]) -> list[Case]:
    """The cases of some suites; `all` is every one but `experiments`.

    Raises:
        SuiteError: for an unknown suite.
    """
    wanted: dict[str, None] = {}
    for name in names:
        if name == "all":
            wanted |= dict.fromkeys(n for n in GROUPS if n != "experiments")
        elif name in GROUPS:
            wanted[name] = None
        else:
            known = ", ".join([*GROUPS, "all"])
            raise SuiteError(
                f"unknown suite for a GPU: expected one of {known}, got {name}"
            )
    return [case for case in CASES if any(GROUPS[name](case) for name in wanted)]


@dataclass
class Suite:
    """Measures cases.

    Attributes:
        torch: PyTorch.
        emulate: whether kernels run in the emulator, on the CPU; then nothing is timed.
        rounds: how often each has its turn.
        count: how often it is timed in a turn.
        say: is told what is going on.
    """

    torch: Any
    emulate: bool
    rounds: int
    count: int
    say: Callable[[str], None]

    def run(self, case: Case) -> dict[str, Any]:
        """Run one case: its error, and times in seconds by name."""
        self.say(case.name)
        try:
            return self._run(case)
        except (MoaError, RuntimeError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = f"{type(error).__name__}: {(lines or ['no message'])[0][:200]}"
            return {"name": case.name, "correct": False, "reason": reason}

    def _run(self, case: Case) -> dict[str, Any]:
        import moa_dialect as moa

        torch = self.torch
        device = "cpu" if self.emulate else "cuda"
        dtype = getattr(torch, case.dtype)
        inputs = [torch.randn(s, device=device).to(dtype) for s in case.shapes]
        specs = [moa.ArraySpec(shape, case.dtype) for shape in case.shapes]
        jit = moa.jit(
            case.program(moa),
            target="cuda",
            emulate=self.emulate,
            schedule=case.schedule,
            **case.options,
        )
        compiled = jit.lower(*specs)
        found = compiled(*inputs)
        error = gpu_check.error_of(torch, case, inputs, found)
        limit = case.tolerance
        result: dict[str, Any] = {
            "name": case.name,
            "error": error,
            "limit": limit,
            "correct": error <= limit,  # a NaN is not
            "operations": case.operations,
            "bytes": case.bytes,
            "schedules": compiled.schedules,
        }
        if not self.emulate:
            result["seconds"] = self._times(case, lambda: compiled(*inputs), inputs)
        return result

    def _times(
        self, case: Case, call: Callable[[], Any], inputs: Sequence[Any]
    ) -> dict[str, float]:
        """The medians of rounds' medians, all contenders in turn."""
        torch = self.torch
        before = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
        calls = {"moa": call} | gpu_check.peers(torch, case, inputs)
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.rounds):
            for name in list(calls):
                try:
                    time = gpu_check.seconds(torch, calls[name], self.count, before)
                except RuntimeError:  # It does not do this.
                    if name == "moa":
                        raise
                    del calls[name], found[name]
                    continue
                found[name].append(time)
        return {name: statistics.median(times) for name, times in found.items()}


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what the command line asks for.

    Raises:
        SuiteError: if there is no such suite.
        BenchError: without PyTorch, a driver, or a device.
    """
    cases = chosen_cases(options.suites)
    try:
        import torch
    except ImportError:
        raise BenchError(
            "--target cuda: torch is not installed; pip install torch"
        ) from None
    device = "the emulator"
    if not options.emulate:
        device = find_device(torch)
    rounds = options.rounds or (1 if options.quick else 3)
    suite = Suite(torch, options.emulate, rounds, 5 if options.quick else 20, say)
    return {
        "target": "cuda",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "versions": {"torch": torch.__version__},
        "rounds": rounds,
        "results": [suite.run(case) for case in cases],
    }


def find_device(torch: Any) -> str:
    """The name of the GPU.

    Raises:
        BenchError: if there is none that can be used.
    """
    from moa_dialect.errors import DeviceError
    from moa_dialect.lowering.cuda_driver import driver

    try:
        driver()
    except DeviceError as error:
        raise BenchError(
            f"--target cuda: {error}; --emulate runs the cases without one, untimed"
        ) from None
    if not torch.cuda.is_available():
        raise BenchError("--target cuda: PyTorch finds no CUDA device")
    torch.cuda.init()
    torch.zeros(1, device="cuda")  # makes the context
    return str(torch.cuda.get_device_name())


def report(document: dict[str, Any]) -> str:
    """What was measured, a line for each case."""
    lines: list[str] = []
    for result in document["results"]:
        verdict = "ok  " if result["correct"] else "FAIL"
        text = f"{verdict} {result['name']}"
        if "reason" in result:
            lines.append(f"{text}: {result['reason']}")
            continue
        text += f" error {result['error']:.1e} of {result['limit']:.1e}"
        times = [
            f"{name} {gpu_check.rate(result, time)}"
            for name, time in result.get("seconds", {}).items()
        ]
        lines.append("; ".join([text, *([", ".join(times)] if times else [])]))
    versions = ", ".join(f"{n} {v}" for n, v in document["versions"].items())
    lines.append("")
    lines.append(
        f"{document['device']}; {document['date']}; {document['rounds']} round(s); "
        f"{versions}"
    )
    return "\n".join(lines) + "\n"
