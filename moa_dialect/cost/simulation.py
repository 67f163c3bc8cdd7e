"""Caches, simulated line by line: what moves between the levels of memory.

A level is a cache with sets of lines, each in the order of their last use: a line that
is not there is fetched from the level below, for writes too, and the one that was used
least recently makes room. It is written back if it was written to. Every level below
has what the levels above have, if caches are inclusive: a line that leaves it leaves
those too.

Several cores have caches of their own in levels that are not shared. Tasks are given to
them as threads take them, and in each turn each core makes one access. A line that one
core writes to leaves the caches of the others; one that it reads and another core wrote
to is written back there first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.cost.addresses import Memory, Run, run
from moa_dialect.cost.machines import CostMachine
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
        cores: how many cores share one such cache; None if all do.
    """

    size: int
    line: int = LINE
    ways: int | None = None
    cores: int | None = 1

    def __post_init__(self) -> None:
        if self.line < 1 or self.line & (self.line - 1):
            raise MoaError(f"line: expected a power of two, got {self.line}")
        if self.ways is not None and self.ways < 1:
            raise MoaError(f"ways: expected 1 or more, got {self.ways}")
        if self.cores is not None and self.cores < 1:
            raise MoaError(f"cores: expected 1 or more, got {self.cores}")
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
        of_cache: for each cache of the level, those of the first cores first, how many
            lines it fetches and writes back.
    """

    level: CacheLevel
    fetches: int
    write_backs: int
    fetches_of: dict[str, int]
    write_backs_of: dict[str, int]
    of_cache: tuple[int, ...] = ()

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
        accesses_of: for each core how many lines it reads and writes.
    """

    levels: tuple[LevelTraffic, ...]
    reads: int
    writes: int
    compulsory_bytes: int
    results: list[np.ndarray]
    accesses_of: tuple[int, ...] = ()


def caches_of(machine: CostMachine) -> list[CacheLevel]:
    """The caches of a machine, each of one set: descriptions say nothing of ways."""
    return [
        CacheLevel(level.capacity, level.line, cores=level.sharers)
        for level in machine.levels[:-1]
    ]


def simulate(
    program: Compiled | ModuleOp | Workload,
    levels: Sequence[CacheLevel],
    arguments: Sequence[np.ndarray] | None = None,
    stage: str = "target",
    machine: str = "host",
    inclusive: bool = True,
    flush: bool = True,
    cores: int = 1,
) -> Traffic:
    """What a program moves between levels of memory.

    Caches are empty at first. Several cores share the tasks of vector code as threads
    do, a few tasks at a time to whoever has none; what is not in tasks the first core
    does. In each turn each core that has a task makes one access.

    Args:
        program: a compiled program, a module at the stage `onf` or `target` with one
            function, or a workload of several calls.
        levels: caches from the first to the last one, with lines of one size.
        arguments: what it is run on; if None, small numbers.
        stage: of a compiled program, `target` for vector code, `onf` for loops.
        machine: for which machine vector code is made, as for `moa-lift`.
        inclusive: whether a line that leaves a level leaves the levels above it.
        flush: whether lines that are written to are written back at the end.
        cores: how many cores there are.

    Raises:
        MoaError: for levels that do not fit together, arguments that do not fit, or
            less than one core.
        CompileError: for accesses that are not known.
    """
    simulator = _Simulator(tuple(levels), inclusive, cores)
    workload = workload_of(program, stage, machine, arguments)
    if cores > 1:
        counted = run(workload, _Longest(levels[0].line, cores), arguments)
        simulator = replace(simulator, longest=int(counted.counters[0]))
    return simulator.traffic(run(workload, simulator, arguments), flush)


# The simulator


_NONE = -1


@dataclass(frozen=True)
class _Places:
    """Where the state of a level lies: from `start` on, `size` words for each cache.

    In each, by line: the next and the previous line of the set, flags, how often it was
    fetched and written back; by set: the first and the last line, and how many.
    """

    start: int
    lines: int
    sets: int

    @property
    def size(self) -> int:
        return 5 * self.lines + 3 * self.sets

    @property
    def by_line(self) -> list[int]:
        return [self.lines * number for number in range(5)]

    @property
    def by_set(self) -> list[int]:
        return [5 * self.lines + self.sets * number for number in range(3)]


_STATE = ("next", "previous", "flags", "fetches", "write_backs")
_SETS = ("heads", "tails", "counts")


@dataclass(frozen=True)
class _Simulator:
    """Levels as code: a list of lines for each set, the last used one first.

    A line has bit 0 of its flags in a cache that it is in, bit 1 if it was written to.

    Attributes:
        levels: the levels.
        inclusive: whether a line that leaves a level leaves those above.
        cores: how many cores there are.
        longest: how many accesses those tasks have at most that are taken at a time.
    """

    levels: tuple[CacheLevel, ...]
    inclusive: bool
    cores: int = 1
    longest: int = 0

    def __post_init__(self) -> None:
        if not self.levels:
            raise MoaError("levels: expected one or more, got none")
        if self.cores < 1:
            raise MoaError(f"cores: expected 1 or more, got {self.cores}")
        sizes = {level.line for level in self.levels}
        if len(sizes) > 1:
            raise MoaError(
                f"levels: expected lines of one size, got "
                f"{', '.join(map(str, sorted(sizes)))}"
            )
        for above, below in pairwise(map(self.sharing, self.levels)):
            if below % above and below < self.cores:
                raise MoaError(
                    f"levels: expected {above} cores to share a level, or a multiple, "
                    f"as they share the one before, got {below}"
                )

    def sharing(self, level: CacheLevel) -> int:
        """How many cores share a cache of a level."""
        return min(level.cores or self.cores, self.cores)

    def caches(self, number: int) -> int:
        """How many caches a level has."""
        return -(-self.cores // self.sharing(self.levels[number]))

    def _has_others(self, number: int) -> bool:
        """Whether several caches of a level are above the same one of the next."""
        share = self.sharing(self.levels[number])
        below = self.levels[number + 1 : number + 2]
        return share < (self.sharing(below[0]) if below else self.cores)

    @property
    def line(self) -> int:
        return self.levels[0].line

    def _all_lines(self, memory: Memory) -> int:
        """The lines of memory, with those that each core has of its own."""
        return memory.lines + (self.cores - 1) * memory.private_lines

    def _places(self, lines: int) -> list[_Places]:
        found: list[_Places] = []
        start = 0
        for number, level in enumerate(self.levels):
            found.append(_Places(start, lines, level.sets))
            start += self.caches(number) * found[-1].size
        return found

    def _slots(self, lines: int) -> int:
        """Where accesses of tasks are kept until they are simulated."""
        last = len(self.levels) - 1
        at = self._places(lines)[last]
        return at.start + self.caches(last) * at.size

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        lines = self._all_lines(memory)
        words = np.zeros(self._slots(lines) + self.cores * self.longest, np.int32)
        for number, at in enumerate(self._places(lines)):
            state = words[at.start :][: self.caches(number) * at.size]
            heads, _, counts = at.by_set
            state.reshape(-1, at.size)[:, heads:counts] = _NONE
        counters = np.zeros(3 + 3 * self.cores, np.int64)
        counters[2] = _NONE
        return words, counters

    def code(self, memory: Memory) -> str:
        lines = self._all_lines(memory)
        places = self._places(lines)
        functions = [_BUMP, self._touch(memory, lines)]
        for number, (level, at) in enumerate(zip(self.levels, places, strict=True)):
            constants = dict(zip(_STATE, at.by_line, strict=True))
            constants |= dict(zip(_SETS, at.by_set, strict=True))
            constants |= {"start": at.start, "size": at.size, "sets": at.sets}
            constants |= {"k": number, "below": number + 1}
            constants["ways"] = level.lines_of_set
            constants["share"] = self.sharing(level)
            is_last = number + 1 == len(self.levels)
            # Caches of this level below which the next one is the same.
            group = self.cores if is_last else self.sharing(self.levels[number + 1])
            has_others = self._has_others(number)
            constants |= {
                "group": group // constants["share"],
                "caches": self.caches(number),
                "fetch": "" if is_last else _FETCH.format(**constants),
                "receive": "" if is_last else _RECEIVE.format(**constants),
                "clean": _CLEAN_OTHERS.format(**constants) if has_others else "",
            }
            drops, all_ = self._inner(number, "drop")
            kept, own = ("", "%flag") if not self.inclusive else (drops, all_)
            functions.append(_LEVEL.format(drops=kept, all=own, **constants))
            if self.cores > 1:
                functions.append(_WASH.format(**constants))
            if has_others:
                functions.append(_OTHERS.format(drops=drops, all=all_, **constants))
                washes, washed = self._inner(number, "wash")
                functions.append(
                    _CLEAN.format(washes=washes, washed=washed, **constants)
                )
        return "\n".join(functions)

    def _inner(self, number: int, what: str) -> tuple[str, str]:
        """A line in all caches above one, and the flags of all of them together."""
        text, all_ = "", "%flag"
        for above in range(number):
            share = self.sharing(self.levels[above])
            text += _INNER.format(
                above=above,
                before=all_,
                what=what,
                count=self.sharing(self.levels[number]) // share,
                caches=self.caches(above),
            )
            all_ = f"%all{above}"
        return text, all_

    def _touch(self, memory: Memory, lines: int) -> str:
        """What is called for each access."""
        if self.cores == 1:
            return _ALONE
        others = "".join(
            _LEAVE_OTHERS.format(k=number, share=self.sharing(level))
            for number, level in enumerate(self.levels)
            if self._has_others(number)
        )
        first = self._places(lines)[0]
        return _TOGETHER.format(
            cores=self.cores,
            last=self.cores - 1,
            positions=3 + self.cores,
            lengths=3 + 2 * self.cores,
            slots=self._slots(lines),
            longest=self.longest,
            first_private=memory.first_private,
            private_lines=memory.private_lines,
            flags=first.start + first.by_line[2],
            size=first.size,
            share=self.sharing(self.levels[0]),
            others=others,
        )

    def traffic(self, found: Run, flush: bool) -> Traffic:
        """What was counted."""
        lines, workload = self._all_lines(found.memory), found.workload
        levels: list[LevelTraffic] = []
        dirty = np.zeros((self.cores, lines), bool)  # By core, not by cache.
        for number, at in enumerate(self._places(lines)):
            level, caches = self.levels[number], self.caches(number)
            state = found.words[at.start :][: caches * at.size].reshape(caches, -1)
            _, _, flags, fetched, written = (
                state[:, p:][:, :lines] for p in at.by_line
            )
            own = np.arange(self.cores) // self.sharing(level)
            dirty |= (flags > 1)[own]
            write_backs = written.astype(np.int64)
            if flush:
                for core in range(self.cores):
                    dirty[own == own[core]] |= dirty[core]
                write_backs += dirty[:: self.sharing(level)]
            both = (fetched.sum(1, dtype=np.int64), write_backs.sum(1))
            fetches, backs = fetched.sum(0, dtype=np.int64), write_backs.sum(0)
            levels.append(
                LevelTraffic(
                    level,
                    int(both[0].sum()),
                    int(both[1].sum()),
                    _by_array(workload, self.line, fetches),
                    _by_array(workload, self.line, backs),
                    tuple(map(int, both[0] + both[1])),
                )
            )
        reads, writes = map(int, found.counters[:2])
        by_core = (reads + writes,) if self.cores == 1 else found.counters[3:]
        return Traffic(
            tuple(levels),
            reads,
            writes,
            workload.compulsory_bytes,
            found.results,
            tuple(map(int, by_core[: self.cores])),
        )


def _by_array(workload: Workload, line: int, counts: np.ndarray) -> dict[str, int]:
    found = {
        buffer.name: int(
            counts[buffer.offset // line : -(-buffer.stop // line)].sum(dtype=np.int64)
        )
        for buffer in workload.buffers
    }
    found[""] = int(counts[workload.scratch // line :].sum(dtype=np.int64))
    return found


@dataclass(frozen=True)
class _Longest:
    """Counts how many accesses those tasks have at most that are taken at a time."""

    line: int
    cores: int

    def code(self, memory: Memory) -> str:
        return _COUNT

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(1, np.int32), np.zeros(2, np.int64)


# What the functions are: memory %s holds the state of all caches, `%at` is where that
# of one begins; memory %h counts reads and writes.

_BOTH = "%s: memref<?xi32>, %h: memref<?xi64>"
_TYPES = "memref<?xi32>, memref<?xi64>"

_COUNT = f"""
func.func private @touch({_BOTH}, %line: index, %write: i32) {{
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i64
  %count = memref.load %h[%c1] : memref<?xi64>
  %more = arith.addi %count, %one : i64
  memref.store %more, %h[%c1] : memref<?xi64>
  func.return
}}
func.func private @take({_BOTH}) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i64
  %count = memref.load %h[%c1] : memref<?xi64>
  %most = memref.load %h[%c0] : memref<?xi64>
  %larger = arith.maxsi %count, %most : i64
  memref.store %larger, %h[%c0] : memref<?xi64>
  memref.store %zero, %h[%c1] : memref<?xi64>
  func.return
}}
func.func private @finish({_BOTH}) {{
  func.call @take(%s, %h) : ({_TYPES}) -> ()
  func.return
}}
"""
"""What is touched outside of tasks may count for the first ones: that is but more."""

_BUMP = f"""
func.func private @bump({_BOTH}, %at: index) {{
  %one = arith.constant 1 : i32
  %count = memref.load %s[%at] : memref<?xi32>
  %more = arith.addi %count, %one : i32
  memref.store %more, %s[%at] : memref<?xi32>
  func.return
}}
func.func private @count({_BOTH}, %at: index) {{
  %one = arith.constant 1 : i64
  %count = memref.load %h[%at] : memref<?xi64>
  %more = arith.addi %count, %one : i64
  memref.store %more, %h[%at] : memref<?xi64>
  func.return
}}
"""

_ALONE = f"""
func.func private @touch({_BOTH}, %line: index, %write: i32)
    attributes {{passthrough = ["noinline"]}} {{
  %c0 = arith.constant 0 : index
  %kind = arith.index_cast %write : i32 to index
  func.call @count(%s, %h, %kind) : ({_TYPES}, index) -> ()
  func.call @access0(%s, %h, %c0, %line, %write)
      : ({_TYPES}, index, index, i32) -> ()
  func.return
}}
"""

_TOGETHER = f"""
func.func private @touch({_BOTH}, %line: index, %write: i32)
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %none = arith.constant 0 : i64
  %kind = arith.index_cast %write : i32 to index
  func.call @count(%s, %h, %kind) : ({_TYPES}, index) -> ()
  %taker = memref.load %h[%c2] : memref<?xi64>
  %is_task = arith.cmpi sge, %taker, %none : i64
  scf.if %is_task {{{{
    %one = arith.constant 1 : i32
    %lengths = arith.constant {{lengths}} : index
    %longest = arith.constant {{longest}} : index
    %slots = arith.constant {{slots}} : index
    %core = arith.index_cast %taker : i64 to index
    %length_at = arith.addi %lengths, %core : index
    %length = memref.load %h[%length_at] : memref<?xi64>
    %place = arith.index_cast %length : i64 to index
    %before = arith.muli %core, %longest : index
    %slot = arith.addi %slots, %before : index
    %at = arith.addi %slot, %place : index
    %number = arith.index_cast %line : index to i32
    %twice = arith.shli %number, %one : i32
    %entry = arith.ori %twice, %write : i32
    memref.store %entry, %s[%at] : memref<?xi32>
    func.call @count(%s, %h, %length_at) : ({_TYPES}, index) -> ()
  }}}} else {{{{
    func.call @perform(%s, %h, %c0, %line, %write)
        : ({_TYPES}, index, index, i32) -> ()
  }}}}
  func.return
}}}}
func.func private @perform({_BOTH}, %core: index, %line: index, %write: i32)
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %first = arith.constant {{first_private}} : index
  %count = arith.constant {{private_lines}} : index
  %c3 = arith.constant 3 : index
  %count_at = arith.addi %c3, %core : index
  func.call @count(%s, %h, %count_at) : ({_TYPES}, index) -> ()
  %is_own = arith.cmpi uge, %line, %first : index
  %shift = arith.muli %core, %count : index
  %own = arith.addi %line, %shift : index
  %there = arith.select %is_own, %own, %line : index
  %zero = arith.constant 0 : i32
  %is_write = arith.cmpi ne, %write, %zero : i32
  scf.if %is_write {{{{
    %two = arith.constant 2 : i32
    %flags = arith.constant {{flags}} : index
    %size = arith.constant {{size}} : index
    %share = arith.constant {{share}} : index
    %cache = arith.divui %core, %share : index
    %before = arith.muli %cache, %size : index
    %state = arith.addi %flags, %before : index
    %flag_at = arith.addi %state, %there : index
    %flag = memref.load %s[%flag_at] : memref<?xi32>
    %is_clean = arith.cmpi slt, %flag, %two : i32
    scf.if %is_clean {{{{
      func.call @own(%s, %h, %core, %there) : ({_TYPES}, index, index) -> ()
    }}}}
  }}}}
  func.call @access0(%s, %h, %core, %there, %write)
      : ({_TYPES}, index, index, i32) -> ()
  func.return
}}}}
func.func private @own({_BOTH}, %core: index, %line: index) {{{{{{others}}
  func.return
}}}}
func.func private @take({_BOTH}) {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %zero = arith.constant 0 : i64
  %cores = arith.constant {{cores}} : index
  %positions = arith.constant {{positions}} : index
  %lengths = arith.constant {{lengths}} : index
  %idle = func.call @idle(%s, %h) : ({_TYPES}) -> index
  %is_none = arith.cmpi eq, %idle, %cores : index
  %core = scf.if %is_none -> (index) {{{{
    func.call @turns(%s, %h) : ({_TYPES}) -> ()
    %free = func.call @idle(%s, %h) : ({_TYPES}) -> index
    scf.yield %free : index
  }}}} else {{{{
    scf.yield %idle : index
  }}}}
  %position = arith.addi %positions, %core : index
  %length = arith.addi %lengths, %core : index
  memref.store %zero, %h[%position] : memref<?xi64>
  memref.store %zero, %h[%length] : memref<?xi64>
  %number = arith.index_cast %core : index to i64
  memref.store %number, %h[%c2] : memref<?xi64>
  func.return
}}}}
func.func private @idle({_BOTH}) -> index {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %cores = arith.constant {{cores}} : index
  %last = arith.constant {{last}} : index
  %positions = arith.constant {{positions}} : index
  %lengths = arith.constant {{lengths}} : index
  %found = scf.for %k = %c0 to %cores step %c1 iter_args(%best = %cores) -> (index) {{{{
    %core = arith.subi %last, %k : index
    %position_at = arith.addi %positions, %core : index
    %length_at = arith.addi %lengths, %core : index
    %position = memref.load %h[%position_at] : memref<?xi64>
    %length = memref.load %h[%length_at] : memref<?xi64>
    %is_idle = arith.cmpi sge, %position, %length : i64
    %next = arith.select %is_idle, %core, %best : index
    scf.yield %next : index
  }}}}
  func.return %found : index
}}}}
func.func private @shortest({_BOTH}) -> i64 {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i64
  %cores = arith.constant {{cores}} : index
  %positions = arith.constant {{positions}} : index
  %lengths = arith.constant {{lengths}} : index
  %found = scf.for %core = %c0 to %cores step %c1 iter_args(%best = %zero) -> (i64) {{{{
    %position_at = arith.addi %positions, %core : index
    %length_at = arith.addi %lengths, %core : index
    %position = memref.load %h[%position_at] : memref<?xi64>
    %length = memref.load %h[%length_at] : memref<?xi64>
    %left = arith.subi %length, %position : i64
    %is_idle = arith.cmpi sle, %left, %zero : i64
    %is_first = arith.cmpi eq, %best, %zero : i64
    %fewer = arith.minsi %left, %best : i64
    %least = arith.select %is_first, %left, %fewer : i64
    %next = arith.select %is_idle, %best, %least : i64
    scf.yield %next : i64
  }}}}
  func.return %found : i64
}}}}
func.func private @turns({_BOTH})
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i32
  %cores = arith.constant {{cores}} : index
  %positions = arith.constant {{positions}} : index
  %lengths = arith.constant {{lengths}} : index
  %slots = arith.constant {{slots}} : index
  %longest = arith.constant {{longest}} : index
  %least = func.call @shortest(%s, %h) : ({_TYPES}) -> i64
  %turns = arith.index_cast %least : i64 to index
  scf.for %turn = %c0 to %turns step %c1 {{{{
    scf.for %core = %c0 to %cores step %c1 {{{{
      %position_at = arith.addi %positions, %core : index
      %length_at = arith.addi %lengths, %core : index
      %position = memref.load %h[%position_at] : memref<?xi64>
      %length = memref.load %h[%length_at] : memref<?xi64>
      %is_busy = arith.cmpi slt, %position, %length : i64
      scf.if %is_busy {{{{
        %place = arith.index_cast %position : i64 to index
        %before = arith.muli %core, %longest : index
        %slot = arith.addi %slots, %before : index
        %at = arith.addi %slot, %place : index
        %entry = memref.load %s[%at] : memref<?xi32>
        %number = arith.shrui %entry, %one : i32
        %line = arith.index_cast %number : i32 to index
        %write = arith.andi %entry, %one : i32
        func.call @perform(%s, %h, %core, %line, %write)
            : ({_TYPES}, index, index, i32) -> ()
        func.call @count(%s, %h, %position_at) : ({_TYPES}, index) -> ()
      }}}}
    }}}}
  }}}}
  func.return
}}}}
func.func private @finish({_BOTH}) {{{{
  %c2 = arith.constant 2 : index
  %none = arith.constant {_NONE} : i64
  %zero = arith.constant 0 : i64
  %first = func.call @shortest(%s, %h) : ({_TYPES}) -> i64
  %end = scf.while (%left = %first) : (i64) -> i64 {{{{
    %is_busy = arith.cmpi sgt, %left, %zero : i64
    scf.condition(%is_busy) %left : i64
  }}}} do {{{{
  ^bb0(%left: i64):
    func.call @turns(%s, %h) : ({_TYPES}) -> ()
    %next = func.call @shortest(%s, %h) : ({_TYPES}) -> i64
    scf.yield %next : i64
  }}}}
  memref.store %none, %h[%c2] : memref<?xi64>
  func.return
}}}}
"""
"""Accesses of tasks are kept, for each core those of what it took last. Once all cores
have some, each makes one in a turn, until one has none left and takes the next tasks.
"""

_LEAVE_OTHERS = f"""
  %share{{k}} = arith.constant {{share}} : index
  %cache{{k}} = arith.divui %core, %share{{k}} : index
  func.call @leave_others{{k}}(%s, %h, %cache{{k}}, %line)
      : ({_TYPES}, index, index) -> ()"""

_FETCH = f"""
      func.call @access{{below}}(%s, %h, %core, %line, %zero)
          : ({_TYPES}, index, index, i32) -> ()"""

_RECEIVE = f"""
    %core = arith.muli %cache, %share : index
    func.call @receive{{below}}(%s, %h, %core, %line)
        : ({_TYPES}, index, index) -> ()"""

_CLEAN_OTHERS = f"""
      func.call @clean_others{{k}}(%s, %h, %cache, %line)
          : ({_TYPES}, index, index) -> ()"""

_INNER = f"""
  %count{{above}} = arith.constant {{count}} : index
  %caches{{above}} = arith.constant {{caches}} : index
  %first{{above}} = arith.muli %cache, %count{{above}} : index
  %beyond{{above}} = arith.addi %first{{above}}, %count{{above}} : index
  %end{{above}} = arith.minui %beyond{{above}}, %caches{{above}} : index
  %step{{above}} = arith.constant 1 : index
  %all{{above}} = scf.for %j = %first{{above}} to %end{{above}} step %step{{above}}
      iter_args(%so_far = {{before}}) -> (i32) {{{{
    %inner = func.call @{{what}}{{above}}(%s, %h, %j, %line)
        : ({_TYPES}, index, index) -> i32
    %both = arith.ori %so_far, %inner : i32
    scf.yield %both : i32
  }}}}"""

_STATE_OF = """
  %start = arith.constant {start} : index
  %size = arith.constant {size} : index
  %before = arith.muli %cache, %size : index
  %at = arith.addi %start, %before : index
  %flags = arith.constant {flags} : index
  %state = arith.addi %at, %flags : index
  %flag_at = arith.addi %state, %line : index"""
"""Where a cache has its state, and the flags of a line."""

_LISTS = f"""
  %none = arith.constant {_NONE} : i32
  %sets = arith.constant {{sets}} : index
  %heads = arith.constant {{heads}} : index
  %tails = arith.constant {{tails}} : index
  %counts = arith.constant {{counts}} : index
  %nexts = arith.constant {{next}} : index
  %previouses = arith.constant {{previous}} : index"""
"""Where in its state a cache has the lists of lines in use, of each set."""

_WRITE_BACK = f"""
    %write_backs = arith.constant {{write_backs}} : index
    %counted = arith.addi %at, %write_backs : index
    %back_at = arith.addi %counted, %line : index
    func.call @bump(%s, %h, %back_at) : ({_TYPES}, index) -> ()"""

_LEVEL = f"""
func.func private @access{{k}}({_BOTH}, %core: index, %line: index, %write: i32) {{{{
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  %share = arith.constant {{share}} : index
  %cache = arith.divui %core, %share : index{_STATE_OF}
  %ways = arith.constant {{ways}} : i32
  %sets = arith.constant {{sets}} : index
  %heads = arith.constant {{heads}} : index
  %counts = arith.constant {{counts}} : index
  %fetches = arith.constant {{fetches}} : index
  %number = arith.index_cast %line : index to i32
  %set = arith.remui %line, %sets : index
  %first_head = arith.addi %at, %heads : index
  %head_at = arith.addi %first_head, %set : index
  %head = memref.load %s[%head_at] : memref<?xi32>
  %is_first = arith.cmpi eq, %head, %number : i32
  scf.if %is_first {{{{
  }}}} else {{{{
    %old = memref.load %s[%flag_at] : memref<?xi32>
    %is_here = arith.cmpi ne, %old, %zero : i32
    scf.if %is_here {{{{
      func.call @unlink{{k}}(%s, %h, %at, %line) : ({_TYPES}, index, index) -> ()
    }}}} else {{{{
      %first_fetch = arith.addi %at, %fetches : index
      %fetch_at = arith.addi %first_fetch, %line : index
      func.call @bump(%s, %h, %fetch_at) : ({_TYPES}, index) -> (){{clean}}{{fetch}}
      %first_count = arith.addi %at, %counts : index
      %count_at = arith.addi %first_count, %set : index
      %count = memref.load %s[%count_at] : memref<?xi32>
      %is_full = arith.cmpi sge, %count, %ways : i32
      scf.if %is_full {{{{
        %tails = arith.constant {{tails}} : index
        %first_tail = arith.addi %at, %tails : index
        %tail_at = arith.addi %first_tail, %set : index
        %tail = memref.load %s[%tail_at] : memref<?xi32>
        %oldest = arith.index_cast %tail : i32 to index
        func.call @leave{{k}}(%s, %h, %cache, %oldest)
            : ({_TYPES}, index, index) -> ()
      }}}}
    }}}}
    func.call @push{{k}}(%s, %h, %at, %line) : ({_TYPES}, index, index) -> ()
  }}}}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %written = arith.shli %write, %one : i32
  %here = arith.ori %flag, %one : i32
  %new = arith.ori %here, %written : i32
  memref.store %new, %s[%flag_at] : memref<?xi32>
  func.return
}}}}
func.func private @push{{k}}({_BOTH}, %at: index, %line: index) {{{{{_LISTS}
  %number = arith.index_cast %line : index to i32
  %set = arith.remui %line, %sets : index
  %first_head = arith.addi %at, %heads : index
  %head_at = arith.addi %first_head, %set : index
  %head = memref.load %s[%head_at] : memref<?xi32>
  memref.store %number, %s[%head_at] : memref<?xi32>
  %first_next = arith.addi %at, %nexts : index
  %next_at = arith.addi %first_next, %line : index
  memref.store %head, %s[%next_at] : memref<?xi32>
  %first_previous = arith.addi %at, %previouses : index
  %previous_at = arith.addi %first_previous, %line : index
  memref.store %none, %s[%previous_at] : memref<?xi32>
  %is_empty = arith.cmpi eq, %head, %none : i32
  %head_index = arith.index_cast %head : i32 to index
  %of_head = arith.addi %first_previous, %head_index : index
  %first_tail = arith.addi %at, %tails : index
  %tail_at = arith.addi %first_tail, %set : index
  %to = arith.select %is_empty, %tail_at, %of_head : index
  memref.store %number, %s[%to] : memref<?xi32>
  %first_count = arith.addi %at, %counts : index
  %count_at = arith.addi %first_count, %set : index
  func.call @bump(%s, %h, %count_at) : ({_TYPES}, index) -> ()
  func.return
}}}}
func.func private @unlink{{k}}({_BOTH}, %at: index, %line: index) {{{{{_LISTS}
  %set = arith.remui %line, %sets : index
  %first_next = arith.addi %at, %nexts : index
  %next_at = arith.addi %first_next, %line : index
  %next = memref.load %s[%next_at] : memref<?xi32>
  %first_previous = arith.addi %at, %previouses : index
  %previous_at = arith.addi %first_previous, %line : index
  %previous = memref.load %s[%previous_at] : memref<?xi32>
  %is_head = arith.cmpi eq, %previous, %none : i32
  %previous_index = arith.index_cast %previous : i32 to index
  %first_head = arith.addi %at, %heads : index
  %head_at = arith.addi %first_head, %set : index
  %of_previous = arith.addi %first_next, %previous_index : index
  %ahead = arith.select %is_head, %head_at, %of_previous : index
  memref.store %next, %s[%ahead] : memref<?xi32>
  %is_tail = arith.cmpi eq, %next, %none : i32
  %next_index = arith.index_cast %next : i32 to index
  %first_tail = arith.addi %at, %tails : index
  %tail_at = arith.addi %first_tail, %set : index
  %of_next = arith.addi %first_previous, %next_index : index
  %behind = arith.select %is_tail, %tail_at, %of_next : index
  memref.store %previous, %s[%behind] : memref<?xi32>
  %first_count = arith.addi %at, %counts : index
  %count_at = arith.addi %first_count, %set : index
  %count = memref.load %s[%count_at] : memref<?xi32>
  %less = arith.addi %count, %none : i32
  memref.store %less, %s[%count_at] : memref<?xi32>
  func.return
}}}}
func.func private @leave{{k}}({_BOTH}, %cache: index, %line: index) {{{{
  %share = arith.constant {{share}} : index
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  func.call @unlink{{k}}(%s, %h, %at, %line) : ({_TYPES}, index, index) -> ()
  memref.store %zero, %s[%flag_at] : memref<?xi32>{{drops}}
  %dirty = arith.andi {{all}}, %two : i32
  %is_dirty = arith.cmpi ne, %dirty, %zero : i32
  scf.if %is_dirty {{{{{_WRITE_BACK}{{receive}}
  }}}}
  func.return
}}}}
func.func private @drop{{k}}({_BOTH}, %cache: index, %line: index) -> i32 {{{{
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_here = arith.cmpi ne, %flag, %zero : i32
  scf.if %is_here {{{{
    func.call @unlink{{k}}(%s, %h, %at, %line) : ({_TYPES}, index, index) -> ()
    memref.store %zero, %s[%flag_at] : memref<?xi32>
  }}}}
  %is_dirty = arith.cmpi sge, %flag, %two : i32
  scf.if %is_dirty {{{{{_WRITE_BACK}
  }}}}
  func.return %flag : i32
}}}}
func.func private @receive{{k}}({_BOTH}, %writer: index, %line: index) {{{{
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32
  %share = arith.constant {{share}} : index
  %cache = arith.divui %writer, %share : index{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_here = arith.cmpi ne, %flag, %zero : i32
  scf.if %is_here {{{{
    %new = arith.ori %flag, %two : i32
    memref.store %new, %s[%flag_at] : memref<?xi32>
  }}}} else {{{{{_WRITE_BACK}{{receive}}
  }}}}
  func.return
}}}}
"""

_EACH_OTHER = """
  %c1 = arith.constant 1 : index
  %group = arith.constant {group} : index
  %caches = arith.constant {caches} : index
  %rest = arith.remui %mine, %group : index
  %first = arith.subi %mine, %rest : index
  %beyond = arith.addi %first, %group : index
  %end = arith.minui %beyond, %caches : index
  scf.for %other = %first to %end step %c1 {{
    %is_other = arith.cmpi ne, %other, %mine : index
    scf.if %is_other {{"""
"""The other caches of a level that are above the same one of the next level."""

_OTHERS = f"""
func.func private @leave_others{{k}}({_BOTH}, %mine: index, %line: index) {{{{
{_EACH_OTHER}
      func.call @yield{{k}}(%s, %h, %other, %line) : ({_TYPES}, index, index) -> ()
    }}}}
  }}}}
  func.return
}}}}
func.func private @clean_others{{k}}({_BOTH}, %mine: index, %line: index) {{{{
{_EACH_OTHER}
      func.call @clean{{k}}(%s, %h, %other, %line) : ({_TYPES}, index, index) -> ()
    }}}}
  }}}}
  func.return
}}}}
func.func private @yield{{k}}({_BOTH}, %cache: index, %line: index) {{{{
  %share = arith.constant {{share}} : index
  %zero = arith.constant 0 : i32
  %two = arith.constant 2 : i32{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_here = arith.cmpi ne, %flag, %zero : i32
  scf.if %is_here {{{{
    func.call @unlink{{k}}(%s, %h, %at, %line) : ({_TYPES}, index, index) -> ()
    memref.store %zero, %s[%flag_at] : memref<?xi32>
  }}}}{{drops}}
  %dirty = arith.andi {{all}}, %two : i32
  %is_dirty = arith.cmpi ne, %dirty, %zero : i32
  scf.if %is_dirty {{{{{_WRITE_BACK}{{receive}}
  }}}}
  func.return
}}}}
"""

_WASH = f"""
func.func private @wash{{k}}({_BOTH}, %cache: index, %line: index) -> i32 {{{{
  %one = arith.constant 1 : i32
  %two = arith.constant 2 : i32{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_dirty = arith.cmpi sge, %flag, %two : i32
  scf.if %is_dirty {{{{
    memref.store %one, %s[%flag_at] : memref<?xi32>{_WRITE_BACK}
  }}}}
  func.return %flag : i32
}}}}
"""

_CLEAN = f"""
func.func private @clean{{k}}({_BOTH}, %cache: index, %line: index) {{{{
  %share = arith.constant {{share}} : index
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  %two = arith.constant 2 : i32{_STATE_OF}
  %flag = memref.load %s[%flag_at] : memref<?xi32>
  %is_written = arith.cmpi sge, %flag, %two : i32
  scf.if %is_written {{{{
    memref.store %one, %s[%flag_at] : memref<?xi32>
  }}}}{{washes}}
  %dirty = arith.andi {{washed}}, %two : i32
  %is_dirty = arith.cmpi ne, %dirty, %zero : i32
  scf.if %is_dirty {{{{{_WRITE_BACK}{{receive}}
  }}}}
  func.return
}}}}
"""
