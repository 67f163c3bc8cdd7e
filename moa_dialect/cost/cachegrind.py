"""The native code of a workload under valgrind's cachegrind, for a comparison.

The functions are compiled as the engine does, with the features that valgrind knows,
and linked to a program that calls them on arrays laid out as in the simulation; scratch
memory too lies where the simulation has it, as conflicts in a set depend on that. The
program is run twice, with the calls and without: the difference is what the calls do.
Needs `valgrind` and a C compiler.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from moa_dialect.cost.addresses import placed
from moa_dialect.cost.simulation import CacheLevel
from moa_dialect.cost.workload import Workload
from moa_dialect.errors import MoaError
from moa_dialect.lowering import host
from moa_dialect.lowering.kernel import STATUS_WORDS

MACHINE = "avx2"
"""The kind of machine that valgrind runs the code of."""

_INSTRUCTIONS = CacheLevel(32 << 10, ways=8)


@dataclass(frozen=True)
class Counts:
    """What cachegrind counted of data.

    Attributes:
        reads: how many times data is read.
        writes: how many times data is written.
        first_misses: how many accesses miss the first level.
        last_misses: how many miss the last level.
    """

    reads: int
    writes: int
    first_misses: int
    last_misses: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.reads - other.reads,
            self.writes - other.writes,
            self.first_misses - other.first_misses,
            self.last_misses - other.last_misses,
        )


def c_compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def is_available() -> bool:
    """Whether there are valgrind and a C compiler."""
    return bool(shutil.which("valgrind") and c_compiler())


def count_misses(
    workload: Workload, caches: Sequence[tuple[CacheLevel, CacheLevel]]
) -> list[Counts]:
    """What cachegrind counts of a workload's native code, its caches empty at first.

    Args:
        workload: what is run, on zeros. Its vector code should be that for `MACHINE`.
        caches: pairs of a first and a last level, with powers of two of sets.

    Returns:
        For each pair what is counted.

    Raises:
        MoaError: if valgrind or a C compiler is missing, or fails.
    """
    if not is_available():
        raise MoaError("cachegrind: expected valgrind and a C compiler, got none")
    with TemporaryDirectory() as folder:
        program = _linked(workload, Path(folder))
        return [
            _counted(program, "1", *pair) - _counted(program, "0", *pair)
            for pair in caches
        ]


def _run(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit status {found.returncode}"
        raise MoaError(f"{Path(command[0]).name}: {reason}")


def _counted(program: Path, times: str, first: CacheLevel, last: CacheLevel) -> Counts:
    result = program.with_suffix(f".{times}")
    caches = zip(("I1", "D1", "LL"), (_INSTRUCTIONS, first, last), strict=True)
    options = (
        f"--{name}={level.size},{level.lines_of_set},{level.line}"
        for name, level in caches
    )
    _run(
        "valgrind", "--tool=cachegrind", "--cache-sim=yes", *options,
        f"--cachegrind-out-file={result}", str(program), times,
    )  # fmt: skip
    lines = dict(
        line.split(": ", 1) for line in result.read_text().splitlines() if ": " in line
    )
    numbers = map(int, lines["summary"].split())
    events = dict(zip(lines["events"].split(), numbers, strict=True))
    return Counts(
        events["Dr"],
        events["Dw"],
        events["D1mr"] + events["D1mw"],
        events["DLmr"] + events["DLmw"],
    )


def _linked(workload: Workload, folder: Path) -> Path:
    """An executable that makes all calls as often as its argument says."""
    from moa_dialect.lowering.compiler import compilations_of

    processor = host.PROCESSORS[MACHINE]
    objects: list[str] = []
    symbols: dict[str, str] = {}
    for name in workload.functions:
        (found,) = compilations_of(placed(workload, name), [name], processor)
        path = folder / f"{name}.o"
        path.write_bytes(found.code)
        objects.append(str(path))
        symbols[name] = found.signature.symbol
    source = folder / "main.c"
    source.write_text(_source(workload, symbols))
    program = folder / "program"
    compiler = c_compiler()
    assert compiler is not None
    _run(
        compiler, "-O1", "-Wl,-z,now", "-o", str(program), str(source), *objects, "-lm"
    )
    return program


def _source(workload: Workload, symbols: dict[str, str]) -> str:
    """A program in C that makes the calls of a workload."""
    lines = ["#include <stdlib.h>", "#include <unistd.h>"]
    for name, symbol in symbols.items():
        lines.append(f'extern void {name}(void *) __asm__("{symbol}");')
    size = max(workload.bytes, 1)
    lines.append(f"static char memory[{size}] __attribute__((aligned(1 << 20)));")
    calls: list[str] = []
    for number, call in enumerate(workload.calls):
        words = [*["0"] * STATUS_WORDS, "memory"]
        for array in (*call.inputs, *call.outputs):
            words.append(f"memory + {workload.buffers[array].offset}")
        words.append(f"(void *){size}")
        lines.append(f"static void *frame{number}[] = {{{', '.join(words)}}};")
        calls.append(f"    {call.function}(frame{number});")
    lines += [
        "int main(int count, char **values) {",
        "  for (int n = count > 1 ? atoi(values[1]) : 0; n > 0; --n) {",
        *calls,
        "  }",
        "  _exit(0);  // What the library does at the end would count, too.",
        "}",
    ]
    return "\n".join(lines) + "\n"
