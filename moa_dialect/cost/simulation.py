"""Caches, simulated line by line: what moves between the levels of memory.

A level is a cache with sets of lines, each in the order of their last use: a line that
is not there is fetched from the level below, for writes too, and the one that was used
least recently makes room. It is written back if it was written to. Every level below
has what the levels above have, if caches are inclusive: a line that leaves it leaves
those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.cost.addresses import Run, run
from moa_dialect.cost.workload import LINE, Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import Compiled


@dataclass(frozen=True)
class CacheLevel:
    """A cache.

    Attributes:
        size: how many bytes it holds.
        line: how many bytes a line has.
        ways: how many lines a set has; None if there is one set, of all lines.
    """

    size: int
    line: int = LINE
    ways: int | None = None

    def __post_init__(self) -> None:
        if self.line < 1 or self.line & (self.line - 1):
            raise MoaError(f"line: expected a power of two, got {self.line}")
        if self.ways is not None and self.ways < 1:
            raise MoaError(f"ways: expected 1 or more, got {self.ways}")
        unit = self.line * (self.ways or 1)
        if self.size < unit or self.size % unit:
            raise MoaError(
                f"size: expected a multiple of {unit} bytes, got {self.size}"
            )

    @property
    def sets(self) -> int:
        """How many sets it has."""
        return 1 if self.ways is None else self.size // (self.line * self.ways)

    @property
    def lines_of_set(self) -> int:
        """How many lines a set has."""
        return self.ways or self.size // self.line


@dataclass(frozen=True)
class LevelTraffic:
    """What moves between a level and the one below it, in lines.

    Attributes:
        level: the level.
        fetches: how many lines are fetched: its misses.
        write_backs: how many lines are written back.
        fetches_of: the fetches of each array; of scratch memory under the name "".
        write_backs_of: the same for the lines written back.
    """

    level: CacheLevel
    fetches: int
    write_backs: int
    fetches_of: dict[str, int]
    write_backs_of: dict[str, int]

    @property
    def bytes(self) -> int:
        """How many bytes move, both ways."""
        return (self.fetches + self.write_backs) * self.level.line

    def bytes_of(self, name: str) -> int:
        """How many bytes of an array move, both ways; "" for scratch memory."""
        return (self.fetches_of[name] + self.write_backs_of[name]) * self.level.line


@dataclass(frozen=True)
class Traffic:
    """What a workload moves.

    Attributes:
        levels: for each level what moves between it and the one below.
        reads: how many lines are read, one for each access and line it touches.
        writes: how many lines are written to, likewise.
        compulsory_bytes: each argument read, each result written once.
        results: the results of the workload, which say that it was run as it is.
    """

    levels: tuple[LevelTraffic, ...]
    reads: int
    writes: int
    compulsory_bytes: int
    results: list[np.ndarray]


def simulate(
    program: Compiled | ModuleOp | Workload,
    levels: Sequence[CacheLevel],
    arguments: Sequence[np.ndarray] | None = None,
    stage: str = "target",
    machine: str = "host",
    inclusive: bool = True,
    flush: bool = True,
) -> Traffic:
    """What a program moves between levels of memory, run by one thread.

    Caches are empty at first.

    Args:
        program: a compiled program, a module at the stage `onf` or `target` with one
            function, or a workload of several calls.
        levels: caches from the first to the last one, with lines of one size.
        arguments: what it is run on; if None, small numbers.
        stage: of a compiled program, `target` for vector code, `onf` for loops.
        machine: for which machine vector code is made, as for `moa-lift`.
        inclusive: whether a line that leaves a level leaves the levels above it.
        flush: whether lines that are written to are written back at the end.

    Raises:
        MoaError: for levels that do not fit together, or arguments that do not fit.
        CompileError: for accesses that are not known.
    """
    simulator = _Simulator(tuple(levels), inclusive)
    workload = workload_of(program, stage, machine, arguments)
    return simulator.traffic(run(workload, simulator, arguments), flush)


# The simulator


_NONE = -1


@dataclass(frozen=True)
class _Places:
    """Where a level's state lies among the words."""

    next: int
    previous: int
    flags: int
    fetches: int
    write_backs: int
    heads: int
    tails: int
    counts: int
    end: int

    @staticmethod
    def at(start: int, lines: int, sets: int) -> _Places:
        """From a word on."""
        by_line = [start + lines * number for number in range(6)]
        by_set = [by_line[-1] + sets * number for number in range(1, 4)]
        return _Places(*by_line, *by_set)


@dataclass(frozen=True)
class _Simulator:
    """Levels as code: a list of lines for each set, the last used one first.

    A line has bit 0 of its flags in a level that it is in, bit 1 if it was written to.
    """

    levels: tuple[CacheLevel, ...]
    inclusive: bool

    def __post_init__(self) -> None:
        if not self.levels:
            raise MoaError("levels: expected one or more, got none")
        sizes = {level.line for level in self.levels}
        if len(sizes) > 1:
            raise MoaError(
                f"levels: expected lines of one size, got "
                f"{', '.join(map(str, sorted(sizes)))}"
            )

    @property
    def line(self) -> int:
        return self.levels[0].line

    def _places(self, lines: int) -> list[_Places]:
        found: list[_Places] = []
        for level in self.levels:
            start = found[-1].end if found else 0
            found.append(_Places.at(start, lines, level.sets))
        return found

    def memories(self, lines: int) -> tuple[np.ndarray, np.ndarray]:
        places = self._places(lines)
        words = np.zeros(places[-1].end, np.int32)
        for at in places:
            words[at.heads : at.counts] = _NONE
        return words, np.zeros(2, np.int64)

    def code(self, lines: int, first_scratch: int) -> str:
        places = self._places(lines)
        functions = [_TOUCH]
        for number, (level, at) in enumerate(zip(self.levels, places, strict=True)):
            is_last = number + 1 == len(self.levels)
            drops, all_ = "", "%flag"
            for above in range(number) if self.inclusive else ():
                drops += _DROP.format(above=above, before=all_)
                all_ = f"%all{above}"
            functions.append(
                _LEVEL.format(
                    k=number,
                    sets=level.sets,
                    ways=level.lines_of_set,
                    next=at.next,
                    previous=at.previous,
                    flags=at.flags,
                    fetches=at.fetches,
                    write_backs=at.write_backs,
                    heads=at.heads,
                    tails=at.tails,
                    counts=at.counts,
                    fetch="" if is_last else _FETCH.format(below=number + 1),
                    receive="" if is_last else _RECEIVE.format(below=number + 1),
                    drops=drops,
                    all=all_,
                )
            )
        return "\n".join(functions)

    def traffic(self, found: Run, flush: bool) -> Traffic:
        """What was counted."""
        lines, workload = found.lines, found.workload
        levels: list[LevelTraffic] = []
        dirty = np.zeros(lines, bool)
        for level, at in zip(self.levels, self._places(lines), strict=True):
            words = found.words
            fetches = words[at.fetches :][:lines]
            write_backs = words[at.write_backs :][:lines].copy()
            dirty |= words[at.flags :][:lines] > 1
            if flush:
                write_backs += dirty
            levels.append(
                LevelTraffic(
                    level,
                    int(fetches.sum(dtype=np.int64)),
                    int(write_backs.sum(dtype=np.int64)),
                    _by_array(workload, self.line, fetches),
                    _by_array(workload, self.line, write_backs),
                )
            )
        reads, writes = map(int, found.counters)
        compulsory = workload.compulsory_bytes
        return Traffic(tuple(levels), reads, writes, compulsory, found.results)


def _by_array(workload: Workload, line: int, counts: np.ndarray) -> dict[str, int]:
    found = {
        buffer.name: int(
            counts[buffer.offset // line : -(-buffer.stop // line)].sum(dtype=np.int64)
        )
        for buffer in workload.buffers
    }
    found[""] = int(counts[workload.scratch // line :].sum(dtype=np.int64))
    return found


_ARGUMENTS = "%s: memref<?xi32>, %h: memref<?xi64>, %line: index"
_TYPES = "memref<?xi32>, memref<?xi64>, index"

_TOUCH = f"""
func.func private @touch({_ARGUMENTS}, %write: i32)
    attributes {{passthrough = ["noinline"]}} {{
  %one = arith.constant 1 : i64
  %kind = arith.index_cast %write : i32 to index
  %count = memref.load %h[%kind] : memref<?xi64>
  %more = arith.addi %count, %one : i64
  memref.store %more, %h[%kind] : memref<?xi64>
  func.call @access0(%s, %h, %line, %write) : ({_TYPES}, i32) -> ()
  func.return
}}
func.func private @bump(%s: memref<?xi32>, %h: memref<?xi64>, %at: index) {{
  %one = arith.constant 1 : i32
  %count = memref.load %s[%at] : memref<?xi32>
  %more = arith.addi %count, %one : i32
  memref.store %more, %s[%at] : memref<?xi32>
  func.return
}}
"""

_FETCH = f"""
      func.call @access{{below}}(%s, %h, %line, %zero) : ({_TYPES}, i32) -> ()"""

_RECEIVE = f"""
    func.call @receive{{below}}(%s, %h, %line) : ({_TYPES}) -> ()"""

_DROP = f"""
  %flag{{above}} = func.call @drop{{above}}(%s, %h, %line) : ({_TYPES}) -> i32
  %all{{above}} = arith.ori {{before}}, %flag{{above}} : i32"""

_LEVEL = f"""
func.func private @access{{k}}({_ARGUMENTS}, %write: i32) {{{{
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  %ways = arith.constant {{ways}} : i32
  %sets = arith.constant {{sets}} : index
  %heads = arith.constant {{heads}} : index
  %counts = arith.constant {{counts}} : index
  %flags = arith.constant {{flags}} : index
  %fetches = arith.constant {{fetches}} : index
  %number = arith.index_cast %line : index to i32
  %set = arith.remui %line, %sets : index
  %head_at = arith.addi %heads, %set : index
  %flag_at = arith.addi %flags, %line : index
  %head = memref.load %s[%head_at] : memref<?xi32>
  %is_first = arith.cmpi eq, %head, %number : i32
  scf.if %is_first {{{{
  }}}} else {{{{
    %old = memref.load %s[%flag_at] : memref<?xi32>
    %is_here = arith.cmpi ne, %old, %zero : i32
    scf.if %is_here {{{{
      func.call @unlink{{k}}(%s, %h, %line) : ({_TYPES}) -> ()
    }}}} else {{{{
      %fetch_at = arith.addi %fetches, %line : index
      func.call @bump(%s, %h, %fetch_at) : ({_TYPES}) -> (){{fetch}}
      %count_at = arith.addi %counts, %set : index
      %count = memref.load %s[%count_at] : memref<?xi32>
      %is_full = arith.cmpi sge, %count, %ways : i32
      scf.if %is_full {{{{
        func.call @evict{{k}}(%s, %h, %set) : ({_TYPES}) -> ()
      }}}}
    }}}}
    func.call @push{{k}}(%s, %h, %line) : ({_TYPES}) -> ()
  }}}}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %written = arith.shli %write, %one : i32
  %here = arith.ori %flag, %one : i32
  %new = arith.ori %here, %written : i32
  memref.store %new, %s[%flag_at] : memref<?xi32>
  func.return
}}}}
func.func private @push{{k}}({_ARGUMENTS}) {{{{
  %none = arith.constant {_NONE} : i32
  %sets = arith.constant {{sets}} : index
  %heads = arith.constant {{heads}} : index
  %tails = arith.constant {{tails}} : index
  %counts = arith.constant {{counts}} : index
  %nexts = arith.constant {{next}} : index
  %previouses = arith.constant {{previous}} : index
  %number = arith.index_cast %line : index to i32
  %set = arith.remui %line, %sets : index
  %head_at = arith.addi %heads, %set : index
  %head = memref.load %s[%head_at] : memref<?xi32>
  memref.store %number, %s[%head_at] : memref<?xi32>
  %next_at = arith.addi %nexts, %line : index
  memref.store %head, %s[%next_at] : memref<?xi32>
  %previous_at = arith.addi %previouses, %line : index
  memref.store %none, %s[%previous_at] : memref<?xi32>
  %is_empty = arith.cmpi eq, %head, %none : i32
  %head_index = arith.index_cast %head : i32 to index
  %of_head = arith.addi %previouses, %head_index : index
  %tail_at = arith.addi %tails, %set : index
  %at = arith.select %is_empty, %tail_at, %of_head : index
  memref.store %number, %s[%at] : memref<?xi32>
  %count_at = arith.addi %counts, %set : index
  func.call @bump(%s, %h, %count_at) : ({_TYPES}) -> ()
  func.return
}}}}
func.func private @unlink{{k}}({_ARGUMENTS}) {{{{
  %none = arith.constant {_NONE} : i32
  %sets = arith.constant {{sets}} : index
  %heads = arith.constant {{heads}} : index
  %tails = arith.constant {{tails}} : index
  %counts = arith.constant {{counts}} : index
  %nexts = arith.constant {{next}} : index
  %previouses = arith.constant {{previous}} : index
  %set = arith.remui %line, %sets : index
  %next_at = arith.addi %nexts, %line : index
  %next = memref.load %s[%next_at] : memref<?xi32>
  %previous_at = arith.addi %previouses, %line : index
  %previous = memref.load %s[%previous_at] : memref<?xi32>
  %is_head = arith.cmpi eq, %previous, %none : i32
  %previous_index = arith.index_cast %previous : i32 to index
  %head_at = arith.addi %heads, %set : index
  %of_previous = arith.addi %nexts, %previous_index : index
  %before = arith.select %is_head, %head_at, %of_previous : index
  memref.store %next, %s[%before] : memref<?xi32>
  %is_tail = arith.cmpi eq, %next, %none : i32
  %next_index = arith.index_cast %next : i32 to index
  %tail_at = arith.addi %tails, %set : index
  %of_next = arith.addi %previouses, %next_index : index
  %after = arith.select %is_tail, %tail_at, %of_next : index
  memref.store %previous, %s[%after] : memref<?xi32>
  %count_at = arith.addi %counts, %set : index
  %count = memref.load %s[%count_at] : memref<?xi32>
  %less = arith.addi %count, %none : i32
  memref.store %less, %s[%count_at] : memref<?xi32>
  func.return
}}}}
func.func private @evict{{k}}(%s: memref<?xi32>, %h: memref<?xi64>, %set: index) {{{{
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32
  %tails = arith.constant {{tails}} : index
  %flags = arith.constant {{flags}} : index
  %write_backs = arith.constant {{write_backs}} : index
  %tail_at = arith.addi %tails, %set : index
  %tail = memref.load %s[%tail_at] : memref<?xi32>
  %line = arith.index_cast %tail : i32 to index
  %flag_at = arith.addi %flags, %line : index
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  func.call @unlink{{k}}(%s, %h, %line) : ({_TYPES}) -> ()
  memref.store %zero, %s[%flag_at] : memref<?xi32>{{drops}}
  %dirty = arith.andi {{all}}, %two : i32
  %is_dirty = arith.cmpi ne, %dirty, %zero : i32
  scf.if %is_dirty {{{{
    %at = arith.addi %write_backs, %line : index
    func.call @bump(%s, %h, %at) : ({_TYPES}) -> (){{receive}}
  }}}}
  func.return
}}}}
func.func private @drop{{k}}({_ARGUMENTS}) -> i32 {{{{
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32
  %flags = arith.constant {{flags}} : index
  %write_backs = arith.constant {{write_backs}} : index
  %flag_at = arith.addi %flags, %line : index
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_here = arith.cmpi ne, %flag, %zero : i32
  scf.if %is_here {{{{
    func.call @unlink{{k}}(%s, %h, %line) : ({_TYPES}) -> ()
    memref.store %zero, %s[%flag_at] : memref<?xi32>
  }}}}
  %is_dirty = arith.cmpi sge, %flag, %two : i32
  scf.if %is_dirty {{{{
    %at = arith.addi %write_backs, %line : index
    func.call @bump(%s, %h, %at) : ({_TYPES}) -> ()
  }}}}
  func.return %flag : i32
}}}}
func.func private @receive{{k}}({_ARGUMENTS}) {{{{
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32
  %flags = arith.constant {{flags}} : index
  %write_backs = arith.constant {{write_backs}} : index
  %flag_at = arith.addi %flags, %line : index
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_here = arith.cmpi ne, %flag, %zero : i32
  scf.if %is_here {{{{
    %new = arith.ori %flag, %two : i32
    memref.store %new, %s[%flag_at] : memref<?xi32>
  }}}} else {{{{
    %at = arith.addi %write_backs, %line : index
    func.call @bump(%s, %h, %at) : ({_TYPES}) -> (){{receive}}
  }}}}
  func.return
}}}}
"""
