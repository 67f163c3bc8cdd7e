"""Which schedules there are, how long each takes, and how far the chosen one is off.

    python -m moa_dialect.tools.search_schedules --out schedules.json

For each program of a suite all schedules are enumerated that have code: the axis in the
lanes, how many vectors, registers, chunks and blocks. Each is compiled, its result is
compared with that of the schedule `auto` chooses, and all take turns; the best of many
runs counts. The fastest and the chosen one then take turns again, more often. What was
measured is kept in the file, and not measured again: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.lowering.vector_code import NotLifted
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, Kernel, read_kernel
from moa_dialect.passes.lift import (
    TILE_BYTES,
    LiftPass,
    Schedule,
    candidates,
    element_bytes,
    parse_schedule,
)
from moa_dialect.passes.machine import Machine, machine_named
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.terms import walk
from moa_dialect.tools.bench.cases import Case, row_error
from moa_dialect.tools.bench.contenders import moa_call
from moa_dialect.tools.bench.programs import PROGRAMS

Record: TypeAlias = dict[str, Any]
Call: TypeAlias = Callable[[], Any]

AUTO = "auto"


def _case(program: str, dtype: str, **size: int | bool) -> Case:
    return Case("schedules", program, dtype, size)


SUITES: dict[str, tuple[Case, ...]] = {
    "default": (
        _case("attention", "f32", heads=2, n=512, d=64),
        _case("attention", "f32", heads=2, n=512, d=64, causal=True),
        _case("attention", "bf16", heads=2, n=512, d=64),
        _case("matmul", "f32", n=512),
        _case("matmul", "f64", n=512),
        _case("matmul", "bf16", n=512),
        _case("softmax", "f32", rows=512, columns=4096),
        _case("layernorm", "f32", rows=512, columns=4096),
        _case("logsumexp", "f32", rows=512, columns=4096),
        _case("cross_entropy", "f32", rows=512, columns=4096),
        _case("attention", "f32", heads=32, kv_heads=8, n=1, m=2048, d=128),
    ),
    "smoke": (
        _case("logsumexp", "f32", rows=8, columns=64),
        _case("matmul", "f32", n=24),
    ),
}


def name_of(case: Case) -> str:
    """A case in a few words, its program among them."""
    is_named = case.label.startswith(case.program)
    return case.label if is_named else f"{case.program} {case.label}"


VECTORS = (1, 2, 3, 4)
REGISTERS = (4, 6, 8, 12)
CHUNKS = (32, 64, 96, 128, 256)
ROWS_OF_LANES = (8, 16, 32, 64)
BLOCKS = (96, 384)
DEPTHS = (256, 512)


def enumerated(kernel: Kernel, machine: Machine, chosen: Schedule) -> list[Schedule]:
    """All schedules of a kernel from the lists above, and those that `auto` weighs.

    Left out is what needs more vector registers than there are, or a tile that is none.
    """
    known = candidates(kernel, machine)
    plain = known[0] if known else chosen
    lanes = machine.vector_bytes // element_bytes(kernel)
    found = [chosen, *known]
    contracts = has_blocks = any(schedule.blocked for schedule in known)
    for pass_ in kernel.passes:
        parts = [a.part for a in pass_.accumulators]
        contracts = contracts or any(a.axes for a in pass_.accumulators)
        contracts = contracts or any(term.is_fold for term in walk(*parts))
    for hint in (kernel.hints[axis] for axis in kernel.axes):
        extent = next(s.lanes for s in known if s.lane == hint) if known else 1
        if extent < lanes:
            continue  # Not even one vector is filled.
        for vectors in VECTORS:
            for registers in REGISTERS if contracts else (plain.registers,):
                new = replace(
                    plain, lane=hint, lanes=lanes, vectors=vectors, registers=registers
                )
                new = replace(new, blocked="", block=1, ahead=False)
                if has_blocks:
                    found += [
                        replace(new, blocked=other, block=block, chunk=depth)
                        for other in kernel.hints.values()
                        if other != hint
                        for block in BLOCKS
                        for depth in DEPTHS
                    ]
                elif kernel.passes:
                    found += [replace(new, chunk=chunk) for chunk in CHUNKS]
    if kernel.passes:
        inside = next((s for s in known if not s.lane), None)
        for vectors in VECTORS if inside else ():
            assert inside is not None
            found += [
                replace(inside, lanes=lanes, vectors=vectors, chunk=rows)
                for rows in ROWS_OF_LANES
            ]
    found += _near(chosen)
    return [s for s in dict.fromkeys(found) if _fits(s, kernel, machine)]


def _near(chosen: Schedule) -> Iterator[Schedule]:
    """A schedule with half and twice as many registers and indices in a chunk."""
    for registers in (chosen.registers // 2, chosen.registers, 2 * chosen.registers):
        for chunk in (chosen.chunk // 2, chosen.chunk, 2 * chosen.chunk):
            if registers and chunk:
                yield replace(chosen, registers=registers, chunk=chunk)
    if chosen.ahead:
        yield replace(chosen, ahead=False)


def _fits(schedule: Schedule, kernel: Kernel, machine: Machine) -> bool:
    vectors, registers = schedule.vectors, schedule.registers
    if schedule.lane and vectors > 1:
        if vectors * registers + vectors + 1 > machine.registers:
            return False
        size = schedule.width * schedule.block * element_bytes(kernel)
        return size <= TILE_BYTES
    return True


@dataclass
class Search:
    """The search for one program.

    Attributes:
        case: the program, and what it is given.
        machine: the machine.
        seconds: how long each round of all schedules may take, about.
    """

    case: Case
    machine: Machine
    seconds: float

    def run(self, known: Record, limit: float, say: Callable[[str], None]) -> Record:
        """Measure what is not known yet, until a time."""
        inputs = PROGRAMS[self.case.program].inputs(self.case)
        program, arrays = moa_call(self.case, inputs)
        lowered = moa.jit(program).lower(*arrays)
        fused = lowered.module("fused")
        chosen = self._chosen(fused)
        (function,) = functions_of(fused)
        found = comprehensions(function)
        if len(found) != 1:
            raise CompileError(
                f"{name_of(self.case)}: {len(found)} kernels, expected one"
            )
        kernel = read_kernel(found[0], function)
        names = [kernel.hints[axis] for axis in kernel.axes]
        schedules = [chosen]
        if (parsed := self._parsed(chosen, names)) is not None:
            others = enumerated(kernel, self.machine, parsed)
            schedules += [text for text in map(str, others) if text != chosen]
        times: dict[str, float] = known.setdefault("times", {})
        refused: dict[str, str] = known.setdefault("refused", {})
        expected = np.asarray(lowered(*arrays))
        calls: dict[str, Call] = {}
        left = [s for s in schedules if s not in times and s not in refused]
        for schedule in left:
            if time.monotonic() > limit:
                break
            try:
                calls[schedule] = self._compiled(fused, schedule, arrays)
            except (CompileError, NotLifted) as error:
                refused[schedule] = f"{error}".split("\n")[0]
                continue
            if not self._agrees(calls[schedule](), expected):
                refused[schedule] = "another result"
                del calls[schedule]
        self._race(calls, times)
        known |= {"chosen": chosen, "schedules": len(schedules)}
        best = sorted(times, key=lambda s: times[s])[:4]
        finalists = {
            s: calls.get(s) or self._compiled(fused, s, arrays)
            for s in dict.fromkeys([chosen, *best])
            if s in times
        }
        final: dict[str, float] = {}
        for _ in range(3):
            self._race(finalists, final)
        known["final"] = final
        say(_line(name_of(self.case), known))
        return known

    def _chosen(self, fused: ModuleOp) -> str:
        """The schedule that `auto` chooses."""
        module = fused.clone()
        LiftPass().apply(Context(), module)
        for op in module.walk():
            text = op.attributes.get(SCHEDULE)
            if isinstance(text, StringAttr):
                return text.data
        raise CompileError(f"{name_of(self.case)}: no schedule is chosen")

    def _parsed(self, text: str, names: Sequence[str]) -> Schedule | None:
        """A schedule as text, None if its axis is made of others."""
        try:
            return parse_schedule(text, names)
        except CompileError:
            return None

    def _compiled(self, fused: ModuleOp, schedule: str, arrays: Sequence[Any]) -> Call:
        """A program under a schedule.

        Raises:
            CompileError: for a schedule that is refused, or has no code.
        """
        module = fused.clone()
        LiftPass(schedule).apply(Context(), module)
        to_vector, *rest = FUSING["target"][1:]
        to_vector.apply(Context(), module)
        if not any(op.name == "scf.parallel" for op in module.walk()):
            raise CompileError("no vector code")
        for pass_ in rest:
            pass_.apply(Context(), module)
        kernel = kernel_of(module, entries(module)[0])
        return lambda: kernel(*arrays)

    def _agrees(self, given: Any, expected: np.ndarray) -> bool:
        tolerance = {"bf16": 3e-2, "f64": 1e-11}.get(self.case.dtype, 1e-4)
        return row_error(np.asarray(given), expected) <= tolerance

    def _race(self, calls: dict[str, Call], times: dict[str, float]) -> None:
        """Let all take turns, and keep the best time of each."""
        if not calls:
            return
        start, rounds = time.monotonic(), 0
        while rounds < 3 or (rounds < 50 and time.monotonic() < start + self.seconds):
            for schedule, call in calls.items():
                before = time.process_time()
                call()
                taken = time.process_time() - before
                times[schedule] = min(taken, times.get(schedule, taken))
            rounds += 1


def ratio(record: Record) -> float | None:
    """The time of the chosen schedule over that of the fastest one."""
    final: dict[str, float] = record.get("final", {})
    if record.get("chosen") not in final:
        return None
    return final[record["chosen"]] / min(final.values())


def _line(label: str, record: Record) -> str:
    found = ratio(record)
    count = f"{len(record['times'])} of {record['schedules']}"
    if found is None:
        return f"{label}: {count}"
    return f"{label}: {count}, the chosen one takes {found:.3f} of the fastest one"


def markdown(records: dict[str, Record]) -> str:
    """A table: the fastest schedule, the chosen one, and how their times compare."""
    lines = [
        "| program | measured | fastest | chosen | chosen, ms | ratio |",
        "| --- | ---: | --- | --- | ---: | ---: |",
    ]
    for label, record in records.items():
        final, found = record.get("final", {}), ratio(record)
        if not final or found is None:
            continue
        best = min(final, key=lambda s: final[s])
        chosen = record["chosen"]
        shown = "the same" if best == chosen else f"`{chosen}`"
        lines.append(
            f"| {label} | {len(record['times'])} | `{best}` | {shown} | "
            f"{final[chosen] * 1e3:.3g} | {found:.2f} |"
        )
    return "\n".join(lines) + "\n"


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m moa_dialect.tools.search_schedules",
        description="Measure every schedule of some programs, and the chosen one.",
    )
    parser.add_argument("--suite", choices=sorted(SUITES), default="default")
    parser.add_argument("--only", help="programs whose label has this in it")
    parser.add_argument("--out", type=Path, help="a JSON file to keep and resume")
    parser.add_argument("--markdown", type=Path, help="a file for the table")
    parser.add_argument("--limit", type=float, default=840.0, help="seconds in all")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each race")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print what was found; 1 if the time was not enough for all."""
    options = make_parser().parse_args(arguments)
    moa.set_num_threads(1)
    machine = replace(machine_named("host"), cores=1)
    end = time.monotonic() + options.limit
    records: dict[str, Record] = {}
    if options.out is not None and options.out.exists():
        records = json.loads(options.out.read_text())
    is_done = True
    for case in SUITES[options.suite]:
        if options.only and options.only not in name_of(case):
            continue
        record = records.setdefault(name_of(case), {})
        known = len(record.get("times", {})) + len(record.get("refused", {}))
        if known and known >= record.get("schedules", 0):
            continue
        if time.monotonic() > end:
            is_done = False
            continue
        Search(case, machine, options.seconds).run(
            record, end, lambda text: print(text, file=sys.stderr, flush=True)
        )
        known = len(record["times"]) + len(record["refused"])
        is_done = is_done and known >= record["schedules"]
        if options.out is not None:
            options.out.write_text(json.dumps(records, indent=1))
    table = markdown(records)
    print(table, end="")
    if options.markdown is not None:
        options.markdown.write_text(table)
    return 0 if is_done else 1


if __name__ == "__main__":
    sys.exit(main())
