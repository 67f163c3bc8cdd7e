"""Reuse distances: how many other lines are touched between two uses of a line.

A fully associative cache of C lines that drops the line used least recently has a line
exactly if fewer than C others were touched since its last use. So one run gives the
misses of such caches of every size, and what they write back:

- a use at distance d misses if d >= C;
- a line is dirty in a cache of C lines if it has stayed there since it was written to,
  that is if C is more than each distance since. If m is the most of these, a use at
  distance d writes it back where m < C <= d.

The most recent lines are kept in a short list, the others in a tree over the times of
their last use, which counts those after a time (Bennett and Kruskal 1975; Olken 1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.cost.addresses import Memory, Run, run
from moa_dialect.cost.workload import LINE, Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import Compiled


@dataclass(frozen=True)
class ReuseDistances:
    """How often which distance occurred, and what follows for caches of any size.

    Counts have two rows: of arrays, and of scratch memory.

    Attributes:
        line: how many bytes a line has.
        counts: [2, d]: how many uses were at distance d.
        cold: [2]: how many lines were touched.
        dirty: [2, c]: what is to be added up to c for the lines that a cache of c lines
            writes back before the end.
        last: [2, c]: the same for those that are dirty at the end.
        compulsory_bytes: each argument read, each result written once.
        results: the results of the workload.
    """

    line: int
    counts: np.ndarray
    cold: np.ndarray
    dirty: np.ndarray
    last: np.ndarray
    compulsory_bytes: int
    results: list[np.ndarray]

    @property
    def accesses(self) -> int:
        """How many times a line was touched."""
        return int(self.counts.sum() + self.cold.sum())

    @property
    def footprint(self) -> int:
        """How many bytes are touched, in whole lines."""
        return int(self.cold.sum()) * self.line

    def _lines(self, capacity: int) -> int:
        if capacity < self.line or capacity % self.line:
            raise MoaError(
                f"capacity: expected a multiple of {self.line} bytes, got {capacity}"
            )
        return capacity // self.line

    def misses(self, capacity: int, scratch: bool | None = None) -> int:
        """How many uses miss in a cache of so many bytes, the first ones too.

        Args:
            capacity: a multiple of the line.
            scratch: True for those of scratch memory, False for those of arrays, None
                for all.

        Raises:
            MoaError: for another capacity.
        """
        lines = self._lines(capacity)
        found = self.cold + self.counts[:, lines:].sum(axis=1)
        return int(_chosen(found, scratch))

    def write_backs(
        self, capacity: int, scratch: bool | None = None, flush: bool = True
    ) -> int:
        """How many lines a cache of so many bytes writes back.

        Args:
            capacity: as for `misses`, as is `scratch`.
            scratch: of which memory.
            flush: whether lines that are dirty at the end are written back.

        Raises:
            MoaError: for another capacity.
        """
        lines = self._lines(capacity) + 1
        found = self.dirty[:, :lines].sum(axis=1)
        if flush:
            found = found + self.last[:, :lines].sum(axis=1)
        return int(_chosen(found, scratch))

    def bytes(
        self, capacity: int, scratch: bool | None = None, flush: bool = True
    ) -> int:
        """How many bytes a cache of so many bytes fetches and writes back.

        Raises:
            MoaError: for another capacity than `misses` takes.
        """
        misses = self.misses(capacity, scratch)
        return (misses + self.write_backs(capacity, scratch, flush)) * self.line

    def histogram(self) -> list[tuple[int, int, int]]:
        """How many uses were at distances from a, below b: rows (a, b, count).

        Distances are in lines; a row for 0, and one from each power of two to the next.
        First uses are not among them.
        """
        total = self.counts.sum(axis=0)
        edges = [0, 1]
        while edges[-1] < len(total):
            edges.append(2 * edges[-1])
        rows = [
            (low, high, int(total[low:high].sum())) for low, high in pairwise(edges)
        ]
        while rows and rows[-1][2] == 0:
            rows.pop()
        return rows


def _chosen(found: np.ndarray, scratch: bool | None) -> int:
    return found.sum() if scratch is None else found[int(scratch)]


def reuse_distances(
    program: Compiled | ModuleOp | Workload,
    arguments: Sequence[np.ndarray] | None = None,
    stage: str = "target",
    machine: str = "host",
    line: int = LINE,
) -> ReuseDistances:
    """The reuse distances of a program, run by one thread.

    Args:
        program: as for `simulate`, as are the others.
        arguments: what it is run on; if None, small numbers.
        stage: of a compiled program, `target` for vector code, `onf` for loops.
        machine: for which machine vector code is made.
        line: how many bytes a line has.

    Raises:
        MoaError: for a line that is no power of two up to 64, or arguments that do not
            fit.
        CompileError: for accesses that are not known.
    """
    if line < 1 or line & (line - 1):
        raise MoaError(f"line: expected a power of two, got {line}")
    simulator = _Distances(line)
    workload = workload_of(program, stage, machine, arguments)
    return simulator.found(run(workload, simulator, arguments))


_RECENT = 8
"""How many lines are in the list."""


@dataclass(frozen=True)
class _Distances:
    """The simulator.

    Words: the list of recent lines; for each line the time of its last use, counted
    from 1, 0 if it is not in the tree, -1 if it was never touched; for each line 1 more
    than the most distance since it was written to, 0 if it is clean; for each time its
    line, -1 if none; the tree. Counters: the time, the number of lines in the tree,
    then for arrays, and for scratch memory, the first uses and the counts by distance.
    """

    line: int
    cores: int = 1

    def _times(self, lines: int) -> int:
        return 1 << max(4 * lines, 1024).bit_length()

    def _words(self, lines: int) -> list[int]:
        """Where things lie among the words."""
        times = self._times(lines)
        sizes = (_RECENT, lines, lines, times + 1, times + 1)
        return [sum(sizes[:number]) for number in range(len(sizes) + 1)]

    def _counters(self, lines: int) -> list[int]:
        """Where things lie among the counters, for arrays, then where they end."""
        width = lines + 2
        return [2, 3, 3 + width, 3 + 2 * width]

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        lines = memory.lines
        _, _, dirty, line_at, tree, end = self._words(lines)
        words = np.zeros(end, np.int32)
        words[:dirty] = -1
        words[line_at:tree] = -1
        cold, *_, stop = self._counters(lines)
        return words, np.zeros(2 * stop - cold, np.int64)

    def code(self, memory: Memory) -> str:
        lines = memory.lines
        _, time, dirty, line_at, tree, _ = self._words(lines)
        cold, counts, dirties, stop = self._counters(lines)
        return _CODE.format(
            recent=_RECENT,
            deepest=_RECENT - 1,
            time=time,
            dirty=dirty,
            line_at=line_at,
            tree=tree,
            times=self._times(lines),
            lines=lines,
            cold=cold,
            counts=counts,
            dirties=dirties,
            scratch_counters=stop - cold,
            first_scratch=memory.first_scratch,
        )

    def found(self, run: Run) -> ReuseDistances:
        """What was counted."""
        lines = run.memory.lines
        cold, counts, dirties, stop = self._counters(lines)
        width = stop - dirties
        both = run.counters[cold:].reshape(2, stop - cold)
        recent, _, dirty, line_at, _, _ = self._words(lines)
        # The stack at the end: recent lines, then the others by their last use.
        by_time = run.words[line_at : line_at + self._times(lines) + 1][::-1]
        stack = np.concatenate([run.words[recent : recent + _RECENT], by_time])
        stack = stack[stack >= 0]
        since = run.words[dirty : dirty + lines][stack]
        depth = np.arange(len(stack))
        changes = both[:, counts - cold :][:, width:].copy()
        last = np.zeros((2, width), np.int64)
        is_scratch = stack >= run.workload.scratch // self.line
        for row, is_here in enumerate((~is_scratch, is_scratch)):
            has_left = is_here & (since > 0) & (depth >= since)
            np.add.at(changes[row], since[has_left], 1)
            np.add.at(changes[row], depth[has_left] + 1, -1)
            stays_from = np.maximum(since, depth + 1)[is_here & (since > 0)]
            np.add.at(last[row], stays_from, 1)
        return ReuseDistances(
            line=self.line,
            counts=both[:, counts - cold :][:, :width].copy(),
            cold=both[:, 0].copy(),
            dirty=changes,
            last=last,
            compulsory_bytes=run.workload.compulsory_bytes,
            results=run.results,
        )


_ARGUMENTS = "%s: memref<?xi32>, %h: memref<?xi64>"
_TYPES = "memref<?xi32>, memref<?xi64>"

_CODE = f"""
func.func private @touch({_ARGUMENTS}, %line: index, %write: i32)
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %recent = arith.constant {{recent}} : index
  %number = arith.index_cast %line : index to i32
  %depth = scf.while (%j = %c0) : (index) -> index {{{{
    %is_inside = arith.cmpi ult, %j, %recent : index
    %goes_on = scf.if %is_inside -> (i1) {{{{
      %other = memref.load %s[%j] : memref<?xi32>
      %differs = arith.cmpi ne, %other, %number : i32
      scf.yield %differs : i1
    }}}} else {{{{
      %false = arith.constant false
      scf.yield %false : i1
    }}}}
    scf.condition(%goes_on) %j : index
  }}}} do {{{{
  ^bb0(%j: index):
    %following = arith.addi %j, %c1 : index
    scf.yield %following : index
  }}}}
  %is_recent = arith.cmpi ult, %depth, %recent : index
  scf.if %is_recent {{{{
    func.call @to_front(%s, %h, %depth, %number) : ({_TYPES}, index, i32) -> ()
    func.call @note(%s, %h, %line, %write, %depth)
        : ({_TYPES}, index, i32, index) -> ()
  }}}} else {{{{
    func.call @recall(%s, %h, %line, %write) : ({_TYPES}, index, i32) -> ()
  }}}}
  func.return
}}}}
func.func private @to_front({_ARGUMENTS}, %depth: index, %number: i32) {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.for %k = %c0 to %depth step %c1 {{{{
    %to = arith.subi %depth, %k : index
    %from = arith.subi %to, %c1 : index
    %other = memref.load %s[%from] : memref<?xi32>
    memref.store %other, %s[%to] : memref<?xi32>
  }}}}
  memref.store %number, %s[%c0] : memref<?xi32>
  func.return
}}}}
func.func private @count({_ARGUMENTS}, %at: index, %line: index, %by: i64) {{{{
  %first_scratch = arith.constant {{first_scratch}} : index
  %beyond = arith.constant {{scratch_counters}} : index
  %is_scratch = arith.cmpi uge, %line, %first_scratch : index
  %other = arith.addi %at, %beyond : index
  %place = arith.select %is_scratch, %other, %at : index
  %old = memref.load %h[%place] : memref<?xi64>
  %new = arith.addi %old, %by : i64
  memref.store %new, %h[%place] : memref<?xi64>
  func.return
}}}}
func.func private @note({_ARGUMENTS}, %line: index, %write: i32, %distance: index) {{{{
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  %up = arith.constant 1 : i64
  %down = arith.constant -1 : i64
  %counts = arith.constant {{counts}} : index
  %dirties = arith.constant {{dirties}} : index
  %dirty = arith.constant {{dirty}} : index
  %at = arith.addi %counts, %distance : index
  func.call @count(%s, %h, %at, %line, %up) : ({_TYPES}, index, index, i64) -> ()
  %most_at = arith.addi %dirty, %line : index
  %most = memref.load %s[%most_at] : memref<?xi32>
  %d = arith.index_cast %distance : index to i32
  %next = arith.addi %d, %one : i32
  %is_dirty = arith.cmpi sgt, %most, %zero : i32
  scf.if %is_dirty {{{{
    %leaves = arith.cmpi sge, %d, %most : i32
    scf.if %leaves {{{{
      %low = arith.index_cast %most : i32 to index
      %from = arith.addi %dirties, %low : index
      func.call @count(%s, %h, %from, %line, %up) : ({_TYPES}, index, index, i64) -> ()
      %high = arith.index_cast %next : i32 to index
      %to = arith.addi %dirties, %high : index
      func.call @count(%s, %h, %to, %line, %down) : ({_TYPES}, index, index, i64) -> ()
      memref.store %next, %s[%most_at] : memref<?xi32>
    }}}}
  }}}}
  %is_write = arith.cmpi ne, %write, %zero : i32
  scf.if %is_write {{{{
    memref.store %one, %s[%most_at] : memref<?xi32>
  }}}}
  func.return
}}}}
func.func private @recall({_ARGUMENTS}, %line: index, %write: i32)
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %none = arith.constant -1 : i32
  %up = arith.constant 1 : i64
  %down = arith.constant -1 : i64
  %recent = arith.constant {{recent}} : index
  %deepest = arith.constant {{deepest}} : index
  %times = arith.constant {{time}} : index
  %dirty = arith.constant {{dirty}} : index
  %line_at = arith.constant {{line_at}} : index
  %cold = arith.constant {{cold}} : index
  %number = arith.index_cast %line : index to i32
  %time_at = arith.addi %times, %line : index
  %time = memref.load %s[%time_at] : memref<?xi32>
  %is_new = arith.cmpi slt, %time, %zero : i32
  scf.if %is_new {{{{
    func.call @count(%s, %h, %cold, %line, %up) : ({_TYPES}, index, index, i64) -> ()
    %most_at = arith.addi %dirty, %line : index
    memref.store %write, %s[%most_at] : memref<?xi32>
  }}}} else {{{{
    %t = arith.index_cast %time : i32 to index
    %until = func.call @until(%s, %h, %t) : ({_TYPES}, index) -> i64
    %all = memref.load %h[%c1] : memref<?xi64>
    %later = arith.subi %all, %until : i64
    %later_index = arith.index_cast %later : i64 to index
    %distance = arith.addi %recent, %later_index : index
    func.call @add(%s, %h, %t, %down) : ({_TYPES}, index, i64) -> ()
    %place = arith.addi %line_at, %t : index
    memref.store %none, %s[%place] : memref<?xi32>
    func.call @note(%s, %h, %line, %write, %distance)
        : ({_TYPES}, index, i32, index) -> ()
  }}}}
  memref.store %zero, %s[%time_at] : memref<?xi32>
  %oldest = memref.load %s[%deepest] : memref<?xi32>
  func.call @to_front(%s, %h, %deepest, %number) : ({_TYPES}, index, i32) -> ()
  %leaves = arith.cmpi sge, %oldest, %zero : i32
  scf.if %leaves {{{{
    %last = memref.load %h[%c0] : memref<?xi64>
    %full = arith.constant {{times}} : i64
    %is_full = arith.cmpi sge, %last, %full : i64
    scf.if %is_full {{{{
      func.call @compact(%s, %h) : ({_TYPES}) -> ()
    }}}}
    %before = memref.load %h[%c0] : memref<?xi64>
    %now = arith.addi %before, %up : i64
    memref.store %now, %h[%c0] : memref<?xi64>
    %now_index = arith.index_cast %now : i64 to index
    %now32 = arith.trunci %now : i64 to i32
    %old = arith.index_cast %oldest : i32 to index
    %old_at = arith.addi %times, %old : index
    memref.store %now32, %s[%old_at] : memref<?xi32>
    %place = arith.addi %line_at, %now_index : index
    memref.store %oldest, %s[%place] : memref<?xi32>
    func.call @add(%s, %h, %now_index, %up) : ({_TYPES}, index, i64) -> ()
  }}}}
  func.return
}}}}
func.func private @until({_ARGUMENTS}, %time: index) -> i64 {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %tree = arith.constant {{tree}} : index
  %zero = arith.constant 0 : i64
  %end, %sum = scf.while (%t = %time, %so_far = %zero)
      : (index, i64) -> (index, i64) {{{{
    %goes_on = arith.cmpi ugt, %t, %c0 : index
    scf.condition(%goes_on) %t, %so_far : index, i64
  }}}} do {{{{
  ^bb0(%t: index, %so_far: i64):
    %at = arith.addi %tree, %t : index
    %part = memref.load %s[%at] : memref<?xi32>
    %wide = arith.extsi %part : i32 to i64
    %more = arith.addi %so_far, %wide : i64
    %less = arith.subi %t, %c1 : index
    %rest = arith.andi %t, %less : index
    scf.yield %rest, %more : index, i64
  }}}}
  func.return %sum : i64
}}}}
func.func private @add({_ARGUMENTS}, %time: index, %by: i64) {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %tree = arith.constant {{tree}} : index
  %last = arith.constant {{times}} : index
  %all = memref.load %h[%c1] : memref<?xi64>
  %new_all = arith.addi %all, %by : i64
  memref.store %new_all, %h[%c1] : memref<?xi64>
  %by32 = arith.trunci %by : i64 to i32
  %end = scf.while (%t = %time) : (index) -> index {{{{
    %goes_on = arith.cmpi ule, %t, %last : index
    scf.condition(%goes_on) %t : index
  }}}} do {{{{
  ^bb0(%t: index):
    %at = arith.addi %tree, %t : index
    %old = memref.load %s[%at] : memref<?xi32>
    %new = arith.addi %old, %by32 : i32
    memref.store %new, %s[%at] : memref<?xi32>
    %minus = arith.subi %c0, %t : index
    %bit = arith.andi %t, %minus : index
    %following = arith.addi %t, %bit : index
    scf.yield %following : index
  }}}}
  func.return
}}}}
func.func private @compact({_ARGUMENTS})
    attributes {{{{passthrough = ["noinline"]}}}} {{{{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %none = arith.constant -1 : i32
  %zero = arith.constant 0 : i32
  %times = arith.constant {{time}} : index
  %line_at = arith.constant {{line_at}} : index
  %tree = arith.constant {{tree}} : index
  %last = arith.constant {{times}} : index
  %end = arith.addi %last, %c1 : index
  %used = scf.for %t = %c1 to %end step %c1 iter_args(%now = %c0) -> (index) {{{{
    %at = arith.addi %line_at, %t : index
    %line = memref.load %s[%at] : memref<?xi32>
    %is_used = arith.cmpi sge, %line, %zero : i32
    %then = scf.if %is_used -> (index) {{{{
      %new = arith.addi %now, %c1 : index
      memref.store %none, %s[%at] : memref<?xi32>
      %to = arith.addi %line_at, %new : index
      memref.store %line, %s[%to] : memref<?xi32>
      %line_index = arith.index_cast %line : i32 to index
      %time_at = arith.addi %times, %line_index : index
      %new32 = arith.index_cast %new : index to i32
      memref.store %new32, %s[%time_at] : memref<?xi32>
      scf.yield %new : index
    }}}} else {{{{
      scf.yield %now : index
    }}}}
    scf.yield %then : index
  }}}}
  scf.for %t = %c1 to %end step %c1 {{{{
    %minus = arith.subi %c0, %t : index
    %bit = arith.andi %t, %minus : index
    %start = arith.subi %t, %bit : index
    %over = arith.subi %used, %start : index
    %below = arith.minsi %over, %bit : index
    %count = arith.maxsi %below, %c0 : index
    %count32 = arith.index_cast %count : index to i32
    %at = arith.addi %tree, %t : index
    memref.store %count32, %s[%at] : memref<?xi32>
  }}}}
  %now64 = arith.index_cast %used : index to i64
  memref.store %now64, %h[%c0] : memref<?xi64>
  func.return
}}}}
"""
