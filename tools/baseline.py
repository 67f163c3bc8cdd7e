"""What the kernels cost today, beside PyTorch, as Markdown tables.

    python -m moa_dialect.tools.baseline                  # everything, some minutes
    python -m moa_dialect.tools.baseline --only softmax   # one program

Every contender runs in a process of its own, moa first, then PyTorch. The time of a
contender is the best of five calls or more, after one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

import moa_dialect as moa

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = Callable[[], object]
Figures: TypeAlias = dict[str, float]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables that bound the threads of libraries."""


class BaselineError(Exception):
    """A measurement failed. The message is one line."""


@dataclass(frozen=True)
class Case:
    """One program on inputs of one shape and dtype."""

    program: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """The case in a word, as `--only` and `--measure` take it."""
        return f"{self.program}-{self.dtype}-{'x'.join(map(str, self.shapes[0]))}"

    def inputs(self) -> list[Array]:
        """Normally distributed numbers, the same in every process."""
        generator = np.random.default_rng(0)
        dtype = {"f64": np.float64, "f32": np.float32}[self.dtype]
        return [generator.standard_normal(s).astype(dtype) for s in self.shapes]


CASES = (
    *(
        Case("attention", dtype, ((8, n, 64),) * 3)
        for dtype in ("f64", "f32")
        for n in (512, 1024, 2304)
    ),
    *(Case("matmul", dtype, ((512, 512),) * 2) for dtype in ("f64", "f32")),
    *(Case("softmax", dtype, ((1024, 1024),)) for dtype in ("f64", "f32")),
)


BUDGET_S = 0.5
"""How long the calls of one measurement take at least, in seconds."""


def best_of(call: Call, repeat: int) -> float:
    """The best time of `repeat` calls or more in seconds; one before is not counted."""
    call()
    times: list[float] = []
    while len(times) < repeat or sum(times) < BUDGET_S:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_moa(case: Case, repeat: int) -> Figures:
    """Compile a program of the library, then call it.

    The compile time is the first in its process: from tracing to a kernel that can be
    called, upstream's libraries loaded on the way.
    """
    program = getattr(moa.library, case.program)
    arrays = case.inputs()
    start = time.perf_counter()
    compiled = moa.jit(program).lower(*arrays)
    _ = compiled.kernel
    compile_s = time.perf_counter() - start
    call_s = best_of(lambda: compiled(*arrays), repeat)
    return {"compile_s": compile_s, "call_s": call_s}


def measure_torch(case: Case, repeat: int) -> Figures:
    """Call what PyTorch has for the program."""
    import torch

    torch.set_num_threads(1)
    functions: dict[str, Callable[..., Any]] = {
        "attention": torch.nn.functional.scaled_dot_product_attention,
        "matmul": torch.matmul,
        "softmax": partial(torch.softmax, dim=-1),
    }
    function = functions[case.program]
    tensors = [torch.from_numpy(array) for array in case.inputs()]
    if case.program == "attention":  # with a batch axis, as its fast paths want it
        tensors = [tensor.unsqueeze(0) for tensor in tensors]
    return {"call_s": best_of(lambda: function(*tensors), repeat)}


def measure_overhead(repeat: int) -> Figures:
    """The time of a call that computes next to nothing, on one element."""

    def increment(x: Any) -> Any:
        return x + 1

    program = moa.jit(increment)
    x = np.zeros(1)
    compiled = program.lower(x)
    kernel = compiled.kernel
    calls: dict[str, Call] = {
        "moa.jit": lambda: program(x),
        "Compiled": lambda: compiled(x),
        "Kernel": lambda: kernel(x),
    }
    return {name: best_of(call, repeat) for name, call in calls.items()}


def measure(name: str, contender: str, repeat: int) -> Figures:
    """One measurement, in this process.

    Raises:
        BaselineError: if there is no such case.
    """
    if name == "overhead":
        return measure_overhead(repeat)
    case = next((case for case in CASES if case.name == name), None)
    if case is None:
        raise BaselineError(f"unknown case: {name}")
    run = measure_moa if contender == "moa" else measure_torch
    return run(case, repeat)


def in_process(name: str, contender: str, repeat: int) -> Figures:
    """One measurement, in a process of its own with one thread.

    Raises:
        BaselineError: if the process fails.
    """
    command = [sys.executable, "-m", "moa_dialect.tools.baseline"]
    command += ["--measure", name, contender, "--repeat", str(repeat)]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"MOA_CACHE": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise BaselineError(f"{name}, {contender}: {last}")
    return cast(Figures, json.loads(result.stdout))


def milliseconds(seconds: float) -> str:
    """A time in milliseconds with three digits or more."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio with two digits or more."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def row(*cells: str) -> None:
    """Print one row of a table at once: the next may take a while."""
    print(f"| {' | '.join(cells)} |", flush=True)


def print_tables(only: str, repeat: int) -> None:
    """Measure and print.

    Raises:
        BaselineError: if a measurement fails, or no case fits `only`.
    """
    cases = [case for case in CASES if only in case.name]
    if not cases and only not in "overhead":
        names = ", ".join(case.name for case in CASES)
        raise BaselineError(f"no case has {only!r} in its name: {names}, overhead")
    if cases:
        row("program", "type", "shape", "compile, s", "moa, ms", "torch, ms", "ratio")
        row("---", "---", "---", "---:", "---:", "---:", "---:")
    for case in cases:
        ours = in_process(case.name, "moa", repeat)
        theirs = in_process(case.name, "torch", repeat)
        row(
            case.program,
            case.dtype,
            ", ".join(" ".join(map(str, shape)) for shape in sorted({*case.shapes})),
            f"{ours['compile_s']:.2f}",
            milliseconds(ours["call_s"]),
            milliseconds(theirs["call_s"]),
            ratio(ours["call_s"] / theirs["call_s"]),
        )
    if only in "overhead":
        print()
        row("call on one element", "us")
        row("---", "---:")
        for name, seconds in in_process("overhead", "moa", repeat).items():
            row(f"`{name}`", f"{seconds * 1e6:.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code is 1 if something cannot be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m moa_dialect.tools.baseline",
        description="Time the kernels beside PyTorch, one thread each.",
    )
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="cases with this in their names"
    )
    parser.add_argument(
        "--repeat",
        metavar="N",
        type=int,
        default=5,
        help="calls at least, of which the best counts",
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error(f"--repeat: expected at least 1, got {options.repeat}")
    try:
        if options.measure:
            print(json.dumps(measure(*options.measure, repeat=options.repeat)))
        else:
            print_tables(options.only, options.repeat)
    except (BaselineError, moa.MoaError) as error:
        print(f"baseline: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
