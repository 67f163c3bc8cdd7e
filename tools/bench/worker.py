"""The process of one contender: reads a request from stdin, answers line by line.

A request is a JSON object: the contender's factory and some jobs, each a case, what to
measure and where the reference is. There is one line of JSON for each job, in order,
written as soon as the job is done: if the process dies, it is known in which.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from moa_dialect.errors import MoaError
from moa_dialect.tools.bench.cases import (
    TOLERANCES,
    Array,
    Case,
    UnsupportedError,
    row_error,
)
from moa_dialect.tools.bench.programs import PROGRAMS

Answer = dict[str, Any]

MIN_CALLS = 3
"""A round has at least so many samples."""

MAX_CALLS = 200
"""A round has at most so many samples."""

SAMPLE_S = 2e-4
"""Calls shorter than this are timed several at a time."""

FLUSHED_BYTES = 2**27
"""What is read between two samples of a case that memory bounds."""


def confine(threads: int) -> None:
    """Let this process run on so many cores only, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if threads < len(cores):
            os.sched_setaffinity(0, cores[:threads])


def load(factory: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, name = factory.split(":")
    return getattr(importlib.import_module(module), name)


def write_reference(case: Case, path: Path) -> None:
    """Save the rows that are checked, and what they should be in f64."""
    program = PROGRAMS[case.program]
    rows = program.rows(case)
    expected = program.reference(case, program.inputs(case), rows)
    np.savez(path, expected=expected, rows=np.array([]) if rows is None else rows)


def error_of(result: Array, path: Path) -> float:
    """The largest relative error of the rows that are checked."""
    with np.load(path) as saved:
        expected, rows = saved["expected"], saved["rows"]
    if rows.size:
        result = result[:, rows]
    return row_error(np.asarray(result), expected)


def time_calls(call: Callable[[], Any], budget_s: float, flush: bool) -> list[float]:
    """Samples of the time of a call, in seconds.

    Args:
        call: what is timed; it has been called before.
        budget_s: how long to go on.
        flush: read so much memory between calls that no cache keeps the inputs. If it
            were written, it would go back to memory while the call is timed.
    """
    scratch = np.ones(FLUSHED_BYTES // 8 if flush else 0, np.uint64)

    def sample(count: int) -> float:
        if flush:
            scratch.max()
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    first = sample(1)  # the last call of the warm-up
    count = 1 if flush else max(1, math.ceil(SAMPLE_S / max(first, 1e-8)))
    samples: list[float] = []
    end = time.perf_counter() + budget_s
    while len(samples) < MIN_CALLS or (
        len(samples) < MAX_CALLS and time.perf_counter() < end
    ):
        samples.append(sample(count))
    return samples


def status_bytes(field: str) -> int:
    """A field of `/proc/self/status`, such as VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise UnsupportedError(f"the system does not tell {field}")


def extra_memory(call: Callable[[], Any]) -> tuple[int, Any]:
    """How far a call raises the resident memory at its peak, in bytes; and its result.

    Raises:
        UnsupportedError: if the system cannot tell.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is no longer resident
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    except OSError:
        raise UnsupportedError("the system does not reset VmHWM") from None
    before = status_bytes("VmRSS")
    result = call()
    return status_bytes("VmHWM") - before, result


def run_job(request: dict[str, Any], job: dict[str, Any]) -> Answer:
    """Measure one case; what goes wrong is an answer too."""
    try:
        return _run_job(request, job)
    except (UnsupportedError, MoaError, NotImplementedError) as error:
        return {"status": "unsupported", "reason": _first_line(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        return {"status": "failed", "reason": reason}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no message"])[0][:300]


def _run_job(request: dict[str, Any], job: dict[str, Any]) -> Answer:
    case = Case.from_json(job["case"])
    program = PROGRAMS[case.program]
    inputs = program.inputs(case)
    build = load(request["factory"])
    if request["imports"]:
        importlib.import_module(request["imports"])
    if case.metric == "memory":
        _warm_small(build, case)  # so that libraries and threads are there
    start = time.perf_counter()
    built = build(case, inputs, case.threads)
    if case.metric == "memory":
        if request["compiles_at_call"]:
            built.call()
        extra, result = extra_memory(built.call)
    else:
        extra, result = 0, built.call()
    build_s = time.perf_counter() - start
    output = built.output(result)
    error = error_of(output, Path(job["reference"]))
    answer: Answer = {"status": "ok", "error": error, "build_s": build_s}
    if not error <= TOLERANCES[case.dtype]:
        limit = TOLERANCES[case.dtype]
        reason = f"relative error {error:.2g}, at most {limit:.2g} is right"
        return answer | {"status": "wrong", "reason": reason}
    match case.metric:
        case "memory":
            answer["samples"] = [max(extra - output.nbytes, 0)]
        case "build" | "cached-build":
            answer["samples"] = [build_s]
        case "time":
            flush = program.work(case).bound in ("read", "copy")
            answer["samples"] = time_calls(built.call, request["budget_s"], flush)
    return answer


def _warm_small(build: Callable[..., Any], case: Case) -> None:
    """Run a contender on a small case."""
    small = Case(
        case.suite,
        case.program,
        case.dtype,
        {**case.size, "n": min(int(case.size["n"]), 128)},
        case.threads,
    )
    build(small, PROGRAMS[case.program].inputs(small), case.threads).call()


def run_request(request: dict[str, Any], answers: IO[str]) -> None:
    """Do what a request says."""
    confine(request["threads"])
    for job in request["jobs"]:
        if request["kind"] == "reference":
            write_reference(Case.from_json(job["case"]), Path(job["reference"]))
            answer: Answer = {"status": "ok"}
        elif request["kind"] == "peaks":
            from moa_dialect.tools.bench.peaks import measure_peaks

            answer = measure_peaks(request["threads"], request["budget_s"])
        else:
            answer = run_job(request, job)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Answer on what was stdout; libraries that print there print to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        run_request(json.load(sys.stdin), answers)
        # Exit without the teardown of other libraries: the answers are complete.
        answers.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
