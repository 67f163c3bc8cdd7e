"""Simulated caches: against cachegrind, and what programs move.

Prints tables in Markdown. Code is that for AVX2, so they are the same on every x86. See
`docs/cache-simulation.md`.

    python -m moa_dialect.tools.cache_check [--largest N] [--skip-valgrind]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

import moa_dialect as moa
from moa_dialect.cost import Nest, machine, traffic
from moa_dialect.cost.cachegrind import MACHINE, count_misses, is_available
from moa_dialect.cost.materialised import materialised
from moa_dialect.cost.reuse import ReuseDistances, reuse_distances
from moa_dialect.cost.simulation import CacheLevel, simulate
from moa_dialect.cost.workload import LINE, Workload, workload_of
from moa_dialect.frontend import functions
from moa_dialect.frontend.jit import Compiled
from moa_dialect.library import attention, layernorm, matmul, softmax
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

KIB = 1 << 10
WIDTH = 64
"""How many elements a query, a key and a value have."""


def compiled(
    program: Callable[..., Any], *shapes: Sequence[int], **options: Any
) -> Compiled:
    """A program for f32 arrays of some shapes."""
    specs = [moa.ArraySpec(tuple(shape), "float32") for shape in shapes]
    return moa.jit(program, **options).lower(*specs)


def program_named(name: str, n: int) -> Compiled:
    """A program of size n, by its name.

    `attention` of n queries and keys, `decode` of one query and n keys; `matmul` of
    two arrays [n, n], `softmax` and `layer norm` of one.
    """
    one, all_ = (1, WIDTH), (n, WIDTH)
    match name:
        case "attention":
            return compiled(attention, all_, all_, all_)
        case "decode":
            return compiled(attention, one, all_, all_)
        case "matmul":
            return compiled(matmul, (n, n), (n, n))
        case "softmax":
            return compiled(softmax, (n, n))
        case _:
            return compiled(layernorm, (n, n), (n,), (n,))


PROGRAMS = ("attention", "decode", "matmul", "softmax", "layer norm")

WAYS: dict[str, Callable[[Compiled], Workload]] = {
    "op by op, loops": lambda program: materialised(program, False, MACHINE),
    "op by op, vectors": lambda program: materialised(program, True, MACHINE),
    "row at a time": lambda program: workload_of(program, "onf"),
    "vector code": lambda program: workload_of(program, "target", MACHINE),
}
"""How a program is run: each operation a kernel, or one kernel derived for all."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def size(bytes_: int) -> str:
    """A size in words."""
    return f"{bytes_ >> 20} MiB" if bytes_ % (1 << 20) == 0 else f"{bytes_ >> 10} KiB"


def ratio(value: float) -> str:
    """A number with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# Against cachegrind


@dataclass(frozen=True)
class Comparison:
    """Misses of one program and pair of caches, simulated and by cachegrind."""

    program: str
    way: str
    first: CacheLevel
    last: CacheLevel
    simulated: tuple[int, int]
    counted: tuple[int, int]

    @property
    def differences(self) -> list[float]:
        """By how much the simulation is off, of each level."""
        pairs = zip(self.simulated, self.counted, strict=True)
        return [simulated / counted - 1 for simulated, counted in pairs]


CACHES = (
    (CacheLevel(16 * KIB, ways=4), CacheLevel(128 * KIB, ways=8)),
    (CacheLevel(32 * KIB, ways=8), CacheLevel(1024 * KIB, ways=16)),
)
"""Pairs of caches for the comparison."""


def compared(
    name: str, n: int, way: str, pairs: Sequence[tuple[CacheLevel, CacheLevel]]
) -> Iterator[Comparison]:
    """Simulate a program in pairs of caches, and count.

    Raises:
        MoaError: if valgrind or a C compiler is missing.
    """
    workload = WAYS[way](program_named(name, n))
    for pair, counts in zip(pairs, count_misses(workload, pairs), strict=True):
        first, last = simulate(workload, pair, inclusive=False).levels
        yield Comparison(
            f"{name}, {n}",
            way,
            *pair,
            (first.fetches, last.fetches),
            (counts.first_misses, counts.last_misses),
        )


def comparisons() -> Iterator[Comparison]:
    """Every program in every way, in each pair of caches."""
    for name in PROGRAMS:
        n = 1000 if name == "decode" else 200
        for way in WAYS:
            yield from compared(name, n, way, CACHES)


def comparison_table(found: Sequence[Comparison]) -> str:
    """The comparisons as a table."""
    header = ["program", "way", "D1, LL"]
    for level in ("D1", "LL"):
        header += [f"{level} simulated", "cachegrind", "off by"]
    rows: list[list[str]] = []
    for each in found:
        row = [each.program, each.way]
        row.append(f"{size(each.first.size)}, {size(each.last.size)}")
        for simulated, counted, off in zip(
            each.simulated, each.counted, each.differences, strict=True
        ):
            row += [f"{simulated:,}", f"{counted:,}", f"{100 * off:+.1f} %"]
        rows.append(row)
    return table(header, rows)


# Attention in four ways


def _scores(q: Any, k: Any) -> Any:
    return functions.inner("add", "mul", q, functions.transpose(k)) * (WIDTH**-0.5)


_PRODUCT = """
func.func @product(%p: memref<{n}x{n}xf32>, %v: memref<{n}x{d}xf32>,
                   %o: memref<{n}x{d}xf32> {{moa.result}}) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = arith.constant {n} : index
  %d = arith.constant {d} : index
  %zero = arith.constant 0.0 : f32
  %P = moa.rav row %p : memref<{n}x{n}xf32> -> memref<?xf32>
  %V = moa.rav row %v : memref<{n}x{d}xf32> -> memref<?xf32>
  %O = moa.rav row %o : memref<{n}x{d}xf32> -> memref<?xf32>
  moa.loop [%i = %c0 to %n by 1] {{
    moa.loop [%l = %c0 to %d by 1] {{
      moa.store %zero, %O[%c0, %i * %d, %l * %c1] : memref<?xf32>
      moa.yield
    }}
    moa.loop [%j = %c0 to %n by 1] {{
      %x = moa.load %P[%c0, %i * %n, %j * %c1] : memref<?xf32>
      moa.loop [%l = %c0 to %d by 1] {{
        %y = moa.load %V[%c0, %j * %d, %l * %c1] : memref<?xf32>
        %s = moa.load %O[%c0, %i * %d, %l * %c1] : memref<?xf32>
        %t = arith.mulf %x, %y : f32
        %u = arith.addf %s, %t : f32
        moa.store %u, %O[%c0, %i * %d, %l * %c1] : memref<?xf32>
        moa.yield
      }}
      moa.yield
    }}
    moa.yield
  }}
  func.return
}}
"""
"""The product in the order that reads rows of V, which no elements wait for."""


def _parsed(text: str) -> ModuleOp:
    context = Context()
    register_dialects(context)
    return ModuleParser(context, text).parse_module()


def three_kernels(n: int, block: int | None = None) -> Workload:
    """Attention as three kernels: scores, softmax in their place, product.

    Args:
        n: how many queries and keys there are.
        block: how many rows the products have at a time; if None, they are loops.
    """
    row, square = (n, WIDTH), (n, n)
    workload = Workload()
    q, k, v = (workload.array(row, name=name) for name in "qkv")
    if block is None:
        first = compiled(_scores, row, row, fuse=False)
        second = compiled(softmax, square, fuse=False)
        third = _parsed(_PRODUCT.format(n=n, d=WIDTH))
    else:
        rows, inner = f"i=procs,block:{block};j=procs", f"p=chunk:{WIDTH}"
        schedule = f"{rows},regs:1,lanes:8;{inner},regs:8"
        first = compiled(_scores, row, row, schedule=schedule)
        second = compiled(softmax, square)
        schedule = f"{rows},regs:{WIDTH // 8},lanes:8;{inner},regs:1"
        third = compiled(matmul, square, row, schedule=schedule)
    scores = workload.call(first, (q, k), machine=MACHINE)
    workload.call(second, scores, scores, machine=MACHINE)
    workload.call(third, (*scores, v), machine=MACHINE)
    return workload


def lifted(n: int, rows: int) -> Workload:
    """Attention in one kernel, as many queries at a time."""
    schedule = f"i=procs,regs:4,lanes:{rows // 4};p=chunk:8,regs:1"
    shape = (n, WIDTH)
    program = compiled(attention, shape, shape, shape, schedule=schedule)
    return workload_of(program, "target", MACHINE)


REFERENCE = {
    (256, 64 * KIB): (134, 9.8, 129, 2.75),
    (256, 256 * KIB): (6.3, 6.1, 1.26, 1.25),
    (1024, 64 * KIB): (533, 36.8, 530, 8.75),
    (1024, 256 * KIB): (533, 28.8, 521, 2.75),
    (1024, 1024 * KIB): (21.3, 22.8, 1.26, 1.25),
    (4096, 256 * KIB): (2129, 113, 2118, 8.75),
    (4096, 1024 * KIB): (2129, 88.8, 2082, 2.75),
    (4096, 4096 * KIB): (81, 85, 1.26, 1.25),
}
"""What a simulation of the same four ways gave that were written as loops by hand."""


def rows_for(n: int, capacity: int) -> int:
    """How many queries fill half of a cache with their states, up to 1024."""
    return min(n, capacity // (4 * 4 * WIDTH), 1024)


FOUR_WAYS = ("three kernels", "tiled", "row at a time", "lifted")


def attention_by(way: str, n: int, rows: int) -> Workload:
    """Attention in one of four ways; `tiled` and `lifted` so many rows at a time."""
    match way:
        case "three kernels":
            return three_kernels(n)
        case "tiled":
            return three_kernels(n, rows)
        case "lifted":
            return lifted(n, rows)
        case _:
            return WAYS[way](program_named("attention", n))


def attention_table(largest: int) -> str:
    """Attention in four ways: bytes over the least, and the reference in brackets."""
    found: dict[tuple[str, int, int], ReuseDistances] = {}

    def distances(way: str, n: int, rows: int) -> ReuseDistances:
        rows = rows if way in ("tiled", "lifted") else 0
        key = way, n, rows
        if key not in found:
            found[key] = reuse_distances(attention_by(way, n, rows))
        return found[key]

    rows: list[list[str]] = []
    for (n, capacity), known in REFERENCE.items():
        if n > largest:
            continue
        count = rows_for(n, capacity)
        row = [f"{n}", size(capacity)]
        for way, number in zip(FOUR_WAYS, known, strict=True):
            each = distances(way, n, count)
            least = each.compulsory_bytes
            shown = ratio(each.bytes(capacity, scratch=False) / least)
            row.append(f"{shown} ({number})")
            if way == "lifted":
                row.append(ratio(each.bytes(capacity) / least))
                row.append(f"{count}")
                is_resident = 2 * n * WIDTH * 4 <= capacity
                passes = 1 if is_resident else -(-n // count)
                row.append(ratio((3 + 2 * passes) / 4))
        row.append(ratio(n * WIDTH * 4 / capacity))
        rows.append(row)
    header = [
        "n", "M", "three kernels", "tiled", "row at a time", "lifted", "with scratch",
        "B_r", "(3 + 2⌈n/B_r⌉) / 4", "n²d²/M ÷ nd",
    ]  # fmt: skip
    return table(header, rows)


# Every program in every regime


REGIMES: dict[str, tuple[int, tuple[int, ...]]] = {
    "attention": (512, (16, 64, 256, 1024, 4096)),
    "decode": (4096, (4, 16, 64, 1024, 4096)),
    "matmul": (256, (4, 16, 64, 256, 1024)),
    "softmax": (1024, (1, 4, 16, 1024, 16384)),
    "layer norm": (1024, (1, 4, 16, 1024, 16384)),
}
"""For each program a size, and capacities in KiB from next to nothing to everything."""


def regime_table(name: str) -> str:
    """One program in every way: bytes of arrays over the least, with scratch memory."""
    n, capacities = REGIMES[name]
    program = program_named(name, n)
    columns: list[list[str]] = []
    for way in WAYS.values():
        each = reuse_distances(way(program))
        least = each.compulsory_bytes
        cells: list[str] = []
        for capacity in capacities:
            arrays, both = (
                ratio(each.bytes(capacity * KIB, scratch) / least)
                for scratch in (False, None)
            )
            cells.append(arrays if arrays == both else f"{arrays} ({both})")
        columns.append(cells)
    rows = [
        [size(capacity * KIB), *cells]
        for capacity, *cells in zip(capacities, *columns, strict=True)
    ]
    return table(["M", *WAYS], rows)


HISTOGRAM = "attention"
"""The program whose distances are printed."""


def histogram_table(name: str) -> str:
    """The reuse distances of one program, in vector code and a row at a time."""
    n, _ = REGIMES[name]
    program = program_named(name, n)
    found: dict[tuple[int, int], list[int]] = {}
    for place, way in enumerate(("row at a time", "vector code")):
        for low, high, count in reuse_distances(WAYS[way](program)).histogram():
            found.setdefault((low, high), [0, 0])[place] = count
    rows = [
        [f"{low} to {high - 1}", *(f"{count:,}" for count in counts)]
        for (low, high), counts in sorted(found.items())
    ]
    return table(["distance in lines", "row at a time", "vector code"], rows)


# Several cores


SHARED: dict[str, tuple[Sequence[Sequence[int]], str, tuple[int, ...]]] = {
    "attention": (
        [(4, 256, 32)] * 3,
        "j=procs,regs:1,lanes:8;p=chunk:32,regs:1",
        (32, 180),
    ),
    "matmul": (
        [(256, 256)] * 2,
        "i=procs,block:32;j=procs,regs:2,lanes:8;p=chunk:64,regs:4",
        (64, 400),
    ),
    "softmax": ([(64, 2048)], "auto", (4, 180)),
}
"""Programs for several cores: the shapes, the schedule, and capacities in KiB."""

CORES = ((2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 4))
"""How many cores there are, and how many share a cache."""


def formula_bytes(nest: Nest, capacity: int, cores: int = 1, sharers: int = 1) -> float:
    """The bytes of arguments and results by the formulas."""
    moved = traffic(nest, capacity, LINE, True, cores, sharers)
    return sum(
        nest.number(amount)
        for part in (moved.fetched, moved.written)
        for array, amount in part.items()
        if array.role != "scratch"
    )


def cores_table() -> str:
    """Bytes of arguments and results for several cores: simulated, and by formulas."""
    programs = {"attention": attention, "matmul": matmul, "softmax": softmax}
    rows: list[list[str]] = []
    for name, (shapes, schedule, capacities) in SHARED.items():
        program = compiled(programs[name], *shapes, schedule=schedule)
        workload = workload_of(program, "target", MACHINE)
        lifted_nest = program.program().lifted(machine(MACHINE))
        assert lifted_nest is not None
        for capacity in capacities:
            for cores, sharers in CORES:
                level = CacheLevel(capacity * KIB, cores=sharers)
                (found,) = simulate(workload, [level], cores=cores).levels
                simulated = found.bytes - found.bytes_of("")
                predicted = formula_bytes(lifted_nest[0], level.size, cores, sharers)
                rows.append(
                    [
                        f"{name}, {' × '.join(map(str, shapes[0]))}",
                        size(level.size),
                        f"{cores}",
                        f"{sharers}",
                        f"{simulated:,}",
                        f"{predicted:,.0f}",
                        f"{100 * (predicted / simulated - 1):+.1f} %",
                    ]
                )
    header = ["program", "M", "cores", "share one", "simulated", "formula", "off by"]
    return table(header, rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--largest", type=int, default=1024, help="the largest n of attention"
    )
    parser.add_argument("--skip-valgrind", action="store_true")
    options = parser.parse_args(sys.argv[1:])
    np.seterr(all="ignore")
    print("## Attention in four ways\n")
    print(attention_table(options.largest), flush=True)
    for name, (n, _) in REGIMES.items():
        print(f"\n## {name}, {n}\n\n{regime_table(name)}", flush=True)
    print(f"\n## Several cores\n\n{cores_table()}", flush=True)
    print(f"\n## Reuse distances of {HISTOGRAM}\n\n{histogram_table(HISTOGRAM)}")
    if options.skip_valgrind or not is_available():
        return
    found = list(comparisons())
    most = [max(abs(each.differences[level]) for each in found) for level in (0, 1)]
    print(f"\n## Against cachegrind\n\n{comparison_table(found)}\n")
    print(f"Off by {100 * most[0]:.1f} % at most in D1, {100 * most[1]:.1f} % in LL.")


if __name__ == "__main__":
    main()
