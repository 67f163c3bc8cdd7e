"""Predicted times beside measured ones, on the machine at hand.

    python -m moa_dialect.tools.cost_check --out results.md

Each case is compiled, its time predicted, and then measured: the best of several calls,
between which memory is written that fills all caches. Prints and writes tables in
Markdown: every case with its error, the order of schedules, and the fused form beside a
kernel for each array operation. On any machine, `--recorded` sets predictions beside
times that were measured on an H200.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import moa_dialect as moa
from moa_dialect.cost.machines import CostMachine, machine
from moa_dialect.cost.probe import described, measure
from moa_dialect.cost.programs import Program, entry_function
from moa_dialect.cost.report import seconds
from moa_dialect.errors import MoaError
from moa_dialect.frontend.materialised import kernels_of
from moa_dialect.lowering.engine import compile_module
from moa_dialect.options import AUTO
from moa_dialect.tools.cost_programs import PROGRAMS
from moa_dialect.types import dtype_of, element_of, shape_of

FLUSHED_BYTES = 1 << 27

CASES: tuple[tuple[str, dict[str, int], str], ...] = (
    ("attention", {"n": 512}, "f32"),
    ("attention", {"n": 1024}, "f32"),
    ("attention", {"n": 2048}, "f32"),
    ("attention", {"n": 4096}, "f32"),
    ("attention", {"n": 2048, "d": 128}, "f32"),
    ("attention", {"n": 2048}, "f64"),
    ("attention", {"n": 2048}, "bf16"),
    ("causal", {"n": 1024}, "f32"),
    ("causal", {"n": 2048}, "f32"),
    ("causal", {"n": 4096}, "f32"),
    ("decode", {}, "f32"),
    ("decode", {"n": 32768}, "f32"),
    ("matmul", {"n": 1024, "k": 1024, "m": 1024}, "f32"),
    ("matmul", {}, "f32"),
    ("matmul", {}, "f64"),
    ("softmax", {}, "f32"),
    ("log_softmax", {}, "f32"),
    ("layernorm", {}, "f32"),
    ("rms_norm", {}, "f32"),
    ("logsumexp", {}, "f32"),
    ("variance", {}, "f32"),
    ("entropy", {}, "f32"),
    ("cross_entropy", {}, "f32"),
)
"""The cases: those of moa-bench that the model has a program for."""

SCHEDULES: tuple[tuple[str, dict[str, int], tuple[str, ...]], ...] = (
    (
        "attention",
        {"h": 2, "n": 2048},
        (
            "j=procs,regs:4,lanes:16;p=chunk:96,regs:6",
            "j=procs,regs:2,lanes:16;p=chunk:96,regs:12",
            "j=procs,regs:1,lanes:16;p=chunk:96,regs:24",
            "j=procs,regs:4,lanes:16;p=chunk:96,regs:1",
            "j=procs,regs:1,lanes:4;p=chunk:96,regs:24",
        ),
    ),
    (
        "matmul",
        {"n": 1024, "k": 1024, "m": 1024},
        (
            "i=procs,block:96;j=procs,regs:4,lanes:16;p=chunk:256,regs:6",
            "i=procs,block:96;j=procs,regs:2,lanes:16;p=chunk:256,regs:12",
            "i=procs,block:96;j=procs,regs:1,lanes:16;p=chunk:256,regs:6",
            "i=procs,block:96;j=procs,regs:4,lanes:16;p=chunk:256,regs:1",
        ),
    ),
)
"""Programs, each with schedules whose order is predicted."""

_ATTENTION = {"h": 64, "n": 4096, "d": 64}
_DECODE = {"h": 32, "q": 1, "g": 8, "n": 8192, "d": 128}
_FEW = {"h": 4, "q": 8, "g": 4, "n": 131072, "d": 128}
_LARGE = {"n": 4096, "k": 4096, "m": 4096}
_ROWS = {"n": 8192, "d": 4096}

_FLASH = "j=grid,groups:2,warps:8,regs:2;p=chunk:{},stages:2,wgmma"
_ENGINE = "j=grid,warps:8,regs:2;p=chunk:{},stages:{},wgmma,tma"
_SPLIT = "i_g=grid,warps:1,regs:2;p=chunk:64,stages:3,split:32,mma,tma"

RECORDED: tuple[tuple[str, dict[str, int], str, str, float], ...] = (
    ("attention", _ATTENTION, "bf16", "auto", 549.9e-6),
    ("causal", _ATTENTION, "bf16", "auto", 335.1e-6),
    ("attention", {**_ATTENTION, "d": 128}, "bf16", "auto", 814.3e-6),
    ("causal", {**_ATTENTION, "d": 128}, "bf16", "auto", 460.7e-6),
    ("attention", {"h": 32, "n": 8192, "d": 128}, "bf16", "auto", 1568.2e-6),
    ("attention", {"h": 16, "n": 16384, "d": 128}, "bf16", "auto", 3054.8e-6),
    ("matmul", _LARGE, "bf16", "auto", 182.9e-6),
    ("matmul", _LARGE, "f32", "auto", 3160.5e-6),
    ("matmul", _LARGE, "f64", "auto", 2545.1e-6),
    ("attention", _ATTENTION, "bf16", _FLASH.format(128), 585.3e-6),
    ("attention", _ATTENTION, "bf16", _ENGINE.format(128, 2), 696.6e-6),
    ("attention", _ATTENTION, "bf16", _ENGINE.format(64, 3), 848.9e-6),
    ("causal", _ATTENTION, "bf16", _FLASH.format(128), 399.3e-6),
    ("attention", {**_ATTENTION, "d": 128}, "bf16", _FLASH.format(64), 1017.3e-6),
    ("attention", {**_ATTENTION, "d": 128}, "bf16", _ENGINE.format(128, 2), 951.5e-6),
    ("causal", {**_ATTENTION, "d": 128}, "bf16", _FLASH.format(64), 674.5e-6),
    ("attention", {"h": 32, "n": 8192, "d": 128}, "bf16", _FLASH.format(64), 1977.1e-6),
    ("attention", {"h": 16, "n": 16384, "d": 128}, "bf16", _FLASH.format(64), 3925e-6),
    (
        "attention",
        {"h": 32, "n": 2048, "d": 64},
        "f32",
        "j=grid,warps:4,regs:4;p=chunk:32,stages:2",
        1055.1e-6,
    ),
    ("attention", {"h": 2, "n": 8192, "d": 64}, "f64", "auto", 1357.8e-6),
    ("decode", _DECODE, "bf16", "auto", 19.6e-6),
    ("decode", _DECODE, "bf16", _SPLIT, 23.7e-6),
    ("decode", {**_DECODE, "n": 131072}, "bf16", "auto", 135.7e-6),
    ("decode", {**_DECODE, "n": 131072}, "bf16", _SPLIT, 142.3e-6),
    ("decode", _DECODE, "f32", "auto", 46.6e-6),
    (
        "decode",
        {**_DECODE, "h": 4, "q": 8, "g": 4, "n": 131072},
        "bf16",
        "auto",
        79.1e-6,
    ),
    (
        "decode",
        {**_DECODE, "h": 4, "q": 16, "g": 4, "n": 131072},
        "bf16",
        "auto",
        79.8e-6,
    ),
    (
        "matmul",
        _LARGE,
        "f32",
        "j=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2",
        4218.7e-6,
    ),
    (
        "matmul",
        _LARGE,
        "f64",
        "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:2,mma",
        4614.6e-6,
    ),
    (
        "matmul",
        _LARGE,
        "bf16",
        "j=grid,block:128;i=grid,warps:4,regs:4;p=chunk:32,stages:2,mma",
        526.0e-6,
    ),
    (
        "matmul",
        _LARGE,
        "bf16",
        "j=grid,block:128;i=grid,warps:8,regs:2;p=chunk:64,stages:4,wgmma,tma",
        226.6e-6,
    ),
    (
        "matmul",
        _LARGE,
        "bf16",
        "j=grid,block:256;i=grid,warps:8,regs:2;p=chunk:64,stages:4,wgmma,tma",
        205.1e-6,
    ),
    ("softmax", _ROWS, "f32", "p=chunk:4096,threads:256", 75.6e-6),
    ("layernorm", _ROWS, "f32", "p=chunk:4096,threads:256", 75.1e-6),
    ("logsumexp", _ROWS, "f32", "p=chunk:4096,threads:256", 41.7e-6),
)
"""What `gpu_check` measured on an H200 in November 2026, under these schedules (`auto`
where the one that was chosen splits): the better one of two runs, nothing in caches
before decoding and before rows."""

BESIDE = ("softmax", "layernorm", "cross_entropy", "products")
"""Programs that are compared with their materialised form."""

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
"""Rows of the attention that is compared with its materialised form."""


@dataclass(frozen=True)
class Row:
    """A case: what was predicted and what was measured, in seconds."""

    name: str
    predicted: float
    measured: float
    bottleneck: str

    @property
    def error(self) -> float:
        """How far the prediction is off, of what was measured."""
        return abs(self.predicted - self.measured) / self.measured


def inputs_of(program: Program) -> list[Any]:
    """Normally distributed numbers for a program; small indices."""
    function = entry_function(program.module, program.entry)
    generator = np.random.default_rng(0)
    found: list[Any] = []
    for argument in function.body.block.args:
        shape, dtype = shape_of(argument.type), dtype_of(element_of(argument.type))
        if dtype.kind in "iu":
            found.append(generator.integers(0, 16, shape).astype(dtype))
        else:
            found.append(generator.standard_normal(shape, np.float32).astype(dtype))
    return found


def recorded_rows(here: CostMachine, only: str = "") -> list[Row]:
    """The recorded cases, with the times that are predicted for the machine."""
    found: list[Row] = []
    for name, sizes, dtype, schedule, measured in RECORDED:
        numbers = {**PROGRAMS[name].sizes, **sizes}
        label = f"{name} {dtype}, {' '.join(map(str, numbers.values()))}"
        label += "" if schedule == AUTO else f", `{schedule}`"
        if only in label:
            program = PROGRAMS[name].at(sizes, dtype)
            options = replace(program.options, schedule=schedule)
            cost = replace(program, options=options).cost(here)
            found.append(Row(label, cost.seconds, measured, cost.bottleneck))
    return found


def rows_text(rows: Sequence[Row]) -> str:
    """Cases as a table, with their errors."""
    head = ["case", "predicted", "measured", "error", "bottleneck"]
    body = [
        [
            row.name,
            seconds(row.predicted),
            seconds(row.measured),
            f"{row.predicted / row.measured - 1:+.0%}",
            row.bottleneck,
        ]
        for row in rows
    ]
    return markdown([head, *body])


def best_time(call: Callable[[], Any], budget_s: float, least: int = 3) -> float:
    """The best time of several calls, with caches that hold none of their data.

    On one thread it is processor time, which others on the machine disturb less.
    """
    clock = time.thread_time if moa.get_num_threads() == 1 else time.perf_counter
    scratch = np.zeros(FLUSHED_BYTES, np.uint8)
    call()
    best, count, end = float("inf"), 0, time.perf_counter() + budget_s
    while count < least or time.perf_counter() < end:
        np.add(scratch, 1, out=scratch)
        start = clock()
        call()
        best, count = min(best, clock() - start), count + 1
    return best


def fused_call(program: Program) -> Callable[[], Any]:
    """A call of a program's kernel."""
    kernel = compile_module(program.module, program.entry, program.options)
    arrays = inputs_of(program)
    return lambda: kernel(*arrays)


def materialised_call(program: Program) -> Callable[[], Any]:
    """A call of one kernel after the other, for each array operation."""
    kernels = kernels_of(program)
    arrays = inputs_of(program)
    return lambda: kernels(*arrays)


def check_cases(here: CostMachine, budget_s: float, only: str) -> list[Row]:
    """Predict and measure every case."""
    rows: list[Row] = []
    for name, sizes, dtype in CASES:
        if only and only not in name:
            continue
        known = PROGRAMS[name]
        program = known.at(sizes, dtype)
        cost = program.cost(here)
        measured = best_time(fused_call(program), budget_s)
        numbers = " ".join(str(v) for v in {**known.sizes, **sizes}.values())
        label = f"{name} {dtype}, {numbers}"
        rows.append(Row(label, cost.seconds, measured, cost.bottleneck))
        print(
            f"{label}: predicted {seconds(cost.seconds)}, measured {seconds(measured)}"
            f" ({', '.join(f'{k} {seconds(v)}' for k, v in cost.parts.items())})",
            flush=True,
        )
    return rows


def check_schedules(here: CostMachine, budget_s: float) -> tuple[list[Row], int, int]:
    """Predict and measure schedules; how many pairs there are, and in right order.

    Pairs whose measured times are within a tenth of each other are left out.
    """
    rows: list[Row] = []
    pairs = right = 0
    for name, sizes, texts in SCHEDULES:
        found: list[Row] = []
        for text in texts:
            program = PROGRAMS[name].at(sizes)
            program = replace(program, options=replace(program.options, schedule=text))
            cost = program.cost(here)
            measured = best_time(fused_call(program), budget_s)
            found.append(
                Row(f"{name}: `{text}`", cost.seconds, measured, cost.bottleneck)
            )
        for one, other in itertools.combinations(found, 2):
            if abs(one.measured - other.measured) < 0.1 * one.measured:
                continue
            pairs += 1
            right += (one.predicted < other.predicted) == (
                one.measured < other.measured
            )
        rows += found
    return rows, right, pairs


def check_fusion(
    here: CostMachine, budget_s: float, lengths: Sequence[int]
) -> list[tuple[str, list[float]]]:
    """The fused form and the materialised one: predicted and measured seconds."""
    cases: list[tuple[str, dict[str, int]]] = [
        ("attention", {"h": 1, "n": n}) for n in lengths
    ]
    cases += [(name, {}) for name in BESIDE]
    found: list[tuple[str, list[float]]] = []
    for name, sizes in cases:
        program = PROGRAMS[name].at(sizes)
        decision = program.decision(here)
        fused = best_time(fused_call(program), budget_s)
        apart = best_time(materialised_call(program), budget_s)
        predicted = [decision.fused.seconds, decision.materialised.seconds]
        numbers = {**PROGRAMS[name].sizes, **sizes}
        label = f"{name} {' '.join(map(str, numbers.values()))}"
        found.append((label, [*predicted, fused, apart]))
        print(
            f"{label}: materialised over fused predicted "
            f"{decision.speedup:.3g}, measured {apart / fused:.3g}",
            flush=True,
        )
    return found


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table in Markdown; the first row is the head."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def report(options: argparse.Namespace) -> str:
    """Do what the command line asks for, and give the tables."""
    if options.recorded:
        rows = recorded_rows(machine("h200"), options.only)
        errors = [row.error for row in rows]
        middle = f"Median error {statistics.median(errors):.0%}." if errors else ""
        return f"{middle}\n\n{rows_text(rows)}"
    found = described(measure()) if options.probe else machine("host")
    here = found.limited(options.threads)
    budget = options.budget
    blocks: list[str] = []
    rows = check_cases(here, budget, options.only)
    if rows:
        errors = [row.error for row in rows]
        blocks.append(
            f"On {options.threads} thread(s): median error "
            f"{statistics.median(errors):.0%}, worst {max(errors):.0%}."
        )
        blocks.append(rows_text(rows))
    if options.only:
        return "\n\n".join(blocks)
    ranked, right, pairs = check_schedules(here, budget)
    blocks.append(f"Of {pairs} pairs of schedules, {right} are in the right order.")
    blocks.append(
        markdown(
            [
                ["schedule", "predicted", "measured"],
                *(
                    [row.name, seconds(row.predicted), seconds(row.measured)]
                    for row in ranked
                ),
            ]
        )
    )
    lengths = LENGTHS[: options.lengths]
    head = ["case", "fused", "materialised", "ratio", "predicted", "choice", "right"]
    body: list[list[str]] = []
    for label, (fused, apart, fused_s, apart_s) in check_fusion(here, budget, lengths):
        choice = "fuse" if fused <= apart else "do not fuse"
        is_right = (fused <= apart) == (fused_s <= apart_s)
        body.append(
            [
                label,
                seconds(fused_s),
                seconds(apart_s),
                f"{apart_s / fused_s:.2f}",
                f"{apart / fused:.2f}",
                choice,
                "yes" if is_right else "no",
            ]
        )
    blocks.append(markdown([head, *body]))
    return "\n\n".join(blocks)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m moa_dialect.tools.cost_check",
        description="Predict times, measure them, and print both.",
    )
    cores = machine("host").cores
    parser.add_argument(
        "--threads", type=int, default=cores, help=f"threads (default: {cores})"
    )
    parser.add_argument(
        "--budget", type=float, default=1.0, help="seconds for each measurement"
    )
    parser.add_argument(
        "--lengths",
        type=int,
        default=len(LENGTHS),
        help="how many lengths of the materialised attention",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="measure the machine now, whatever is kept of it",
    )
    parser.add_argument(
        "--recorded",
        action="store_true",
        help="predict the times that were measured on an H200, and measure nothing",
    )
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    options = parser.parse_args(arguments)
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads: expected 1 to {cores}, got {options.threads}")
    return options


def main() -> None:
    """Run the check on the command line's arguments."""
    options = parse_arguments()
    moa.set_num_threads(options.threads)
    try:
        text = report(options)
    except MoaError as error:
        raise SystemExit(f"cost_check: {error}") from error
    print()
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
