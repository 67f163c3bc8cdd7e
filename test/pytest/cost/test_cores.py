"""Caches of several cores do what caches in Python do, and what formulas say."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.utils.hints import isa

import moa_dialect as moa
from moa_dialect.cost import Access, Array, Loop, Nest, machine, traffic
from moa_dialect.cost.addresses import Memory, run
from moa_dialect.cost.algebra import NUMBERS
from moa_dialect.cost.cores import at_loops, interleaved, sides
from moa_dialect.cost.simulation import CacheLevel, Traffic, caches_of, simulate
from moa_dialect.cost.workload import Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.library import attention, matmul, softmax
from moa_dialect.lowering.threads import OutlineTasksPass, tasks_at_a_time
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

KIB = 1 << 10
TAKE, FINISH = -1, -2


@dataclass(frozen=True)
class Recorder:
    """Keeps all that is touched, and where tasks begin."""

    line: int
    cores: int
    limit: int

    def code(self, memory: Memory) -> str:
        return _RECORDER.format(limit=self.limit)

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(1, np.int32), np.zeros(1 + self.limit, np.int64)


_RECORDER = """
func.func private @keep(%s: memref<?xi32>, %h: memref<?xi64>, %record: i64) {{
  %c0 = arith.constant 0 : index
  %one = arith.constant 1 : i64
  %limit = arith.constant {limit} : i64
  %count = memref.load %h[%c0] : memref<?xi64>
  %more = arith.addi %count, %one : i64
  memref.store %more, %h[%c0] : memref<?xi64>
  %is_kept = arith.cmpi slt, %count, %limit : i64
  scf.if %is_kept {{
    %at = arith.index_cast %more : i64 to index
    memref.store %record, %h[%at] : memref<?xi64>
  }}
  func.return
}}
func.func private @touch(%s: memref<?xi32>, %h: memref<?xi64>, %line: index,
                         %write: i32) {{
  %one = arith.constant 1 : i64
  %place = arith.index_cast %line : index to i64
  %twice = arith.shli %place, %one : i64
  %kind = arith.extui %write : i32 to i64
  %record = arith.ori %twice, %kind : i64
  func.call @keep(%s, %h, %record) : (memref<?xi32>, memref<?xi64>, i64) -> ()
  func.return
}}
func.func private @take(%s: memref<?xi32>, %h: memref<?xi64>) {{
  %mark = arith.constant -1 : i64
  func.call @keep(%s, %h, %mark) : (memref<?xi32>, memref<?xi64>, i64) -> ()
  func.return
}}
func.func private @finish(%s: memref<?xi32>, %h: memref<?xi64>) {{
  %mark = arith.constant -2 : i64
  func.call @keep(%s, %h, %mark) : (memref<?xi32>, memref<?xi64>, i64) -> ()
  func.return
}}
"""


def _products(a: Any, b: Any, c: Any) -> Any:
    return matmul(matmul(a, b), c)


@cache
def workload(name: str) -> Workload:
    programs: dict[str, tuple[Any, Sequence[tuple[int, ...]], dict[str, Any]]] = {
        "attention": (
            attention,
            [(3, 40, 16), (3, 24, 16), (3, 24, 16)],
            {"schedule": "j=procs,regs:1,lanes:8;p=chunk:8,regs:1"},
        ),
        "matmul": (matmul, [(48, 40), (40, 64)], {}),
        "products": (_products, [(40, 40)] * 3, {}),
    }
    program, shapes, options = programs[name]
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    compiled = moa.jit(program, **options).lower(*specs)
    if name != "products":
        return workload_of(compiled, "target", "avx2")
    from moa_dialect.cost.materialised import materialised

    return materialised(compiled, True, "avx2")


@cache
def recorded(name: str, cores: int) -> tuple[list[int], Memory]:
    first = run(workload(name), Recorder(64, cores, 0))
    found = run(workload(name), Recorder(64, cores, int(first.counters[0])))
    return found.counters[1:].tolist(), found.memory


class Cache:
    """A cache as a dictionary for each set, the line used last at the end."""

    def __init__(self, level: CacheLevel, cores: range) -> None:
        self.level, self.cores = level, cores
        self.sets: list[OrderedDict[int, bool]] = [
            OrderedDict() for _ in range(level.sets)
        ]
        self.above: list[Cache] = []
        self.fetches = self.write_backs = 0

    def of(self, line: int) -> OrderedDict[int, bool]:
        return self.sets[line % self.level.sets]

    def inner(self) -> list[Cache]:
        """All caches above, the first level first."""
        found: list[Cache] = []
        for cache_ in self.above:
            found += cache_.inner()
        return [*found, *self.above]


class Cores:
    """The oracle: a tree of caches for some cores."""

    def __init__(
        self, levels: Sequence[CacheLevel], cores: int, inclusive: bool
    ) -> None:
        self.inclusive, self.cores = inclusive, cores
        self.levels: list[list[Cache]] = []
        for level in levels:
            share = min(level.cores or cores, cores)
            row = [
                Cache(level, range(start, min(start + share, cores)))
                for start in range(0, cores, share)
            ]
            for cache_ in row:
                for above in self.levels[-1] if self.levels else ():
                    if above.cores.start in cache_.cores:
                        cache_.above.append(above)
            self.levels.append(row)

    def at(self, number: int, core: int) -> Cache:
        return next(c for c in self.levels[number] if core in c.cores)

    def siblings(self, number: int, core: int) -> list[Cache]:
        own = self.at(number, core)
        row = self.levels[number]
        if number + 1 < len(self.levels):
            row = self.at(number + 1, core).above
        return [other for other in row if other is not own]

    def touch(self, core: int, line: int, write: bool) -> None:
        if write and not self.at(0, core).of(line).get(line, False):
            for number in range(len(self.levels)):
                for other in self.siblings(number, core):
                    self.give_up(number, other, line)
        self.access(0, core, line, write)

    def access(self, number: int, core: int, line: int, write: bool) -> None:
        if number == len(self.levels):
            return
        own = self.at(number, core)
        lines = own.of(line)
        if line not in lines:
            own.fetches += 1
            for other in self.siblings(number, core):
                self.clean(number, other, line)
            self.access(number + 1, core, line, False)
            if len(lines) == own.level.lines_of_set:
                victim = next(iter(lines))
                dirty = lines.pop(victim)
                if self.inclusive:
                    dirty |= self.drop(own, victim)
                self.pass_on(number, own, victim, dirty)
            lines[line] = False
        lines.move_to_end(line)
        lines[line] |= write

    def drop(self, below: Cache, line: int) -> bool:
        """Take a line from all caches above one."""
        dirty = False
        for above in below.inner():
            if above.of(line).pop(line, False):
                above.write_backs += 1
                dirty = True
        return dirty

    def give_up(self, number: int, other: Cache, line: int) -> None:
        dirty = other.of(line).pop(line, False)
        self.pass_on(number, other, line, self.drop(other, line) or dirty)

    def clean(self, number: int, other: Cache, line: int) -> None:
        """Write a line back that others have written to; they keep it."""
        dirty = False
        for cache_ in other.inner():
            if cache_.of(line).get(line, False):
                cache_.of(line)[line] = False
                cache_.write_backs += 1
                dirty = True
        if other.of(line).get(line, False):
            other.of(line)[line] = False
            dirty = True
        self.pass_on(number, other, line, dirty)

    def pass_on(self, number: int, cache_: Cache, line: int, dirty: bool) -> None:
        if dirty:
            cache_.write_backs += 1
            if number + 1 < len(self.levels):
                below = self.at(number + 1, cache_.cores.start)
                if line in below.of(line):
                    below.of(line)[line] = True
                else:
                    self.pass_on(number + 1, below, line, True)

    def replay(self, stream: Sequence[int], memory: Memory) -> None:
        """Tasks go to the first core that has none; each turn all make one access."""
        own: list[list[int]] = [[] for _ in range(self.cores)]
        taker: int | None = None

        def turn() -> None:
            for core, waiting in enumerate(own):
                if waiting:
                    self.perform(core, waiting.pop(0), memory)

        for record in stream:
            if record == TAKE:
                while all(own):
                    turn()
                taker = next(core for core in range(self.cores) if not own[core])
            elif record == FINISH:
                while any(own):
                    turn()
                taker = None
            elif taker is None:
                self.perform(0, record, memory)
            else:
                own[taker].append(record)

    def perform(self, core: int, record: int, memory: Memory) -> None:
        line = record >> 1
        if line >= memory.first_private:
            line += core * memory.private_lines
        self.touch(core, line, bool(record & 1))

    def counts(self) -> list[tuple[int, int]]:
        return [
            (sum(c.fetches for c in row), sum(c.write_backs for c in row))
            for row in self.levels
        ]


def counts(found: Traffic) -> list[tuple[int, int]]:
    return [(level.fetches, level.write_backs) for level in found.levels]


CASES = [
    ("attention", 2, [CacheLevel(1 * KIB), CacheLevel(4 * KIB, cores=None)], True),
    ("matmul", 3, [CacheLevel(1 * KIB, ways=2), CacheLevel(4 * KIB, ways=4)], False),
    (
        "products",
        4,
        [CacheLevel(512), CacheLevel(2 * KIB, cores=2), CacheLevel(8 * KIB, cores=4)],
        True,
    ),
    ("attention", 5, [CacheLevel(512), CacheLevel(2 * KIB, cores=2)], False),
    ("matmul", 2, [CacheLevel(2 * KIB, cores=None)], True),
]


@pytest.mark.parametrize(("name", "cores", "levels", "inclusive"), CASES, ids=str)
def test_simulation_agrees_with_caches_in_python(
    name: str, cores: int, levels: list[CacheLevel], inclusive: bool
) -> None:
    oracle = Cores(levels, cores, inclusive)
    oracle.replay(*recorded(name, cores))
    found = simulate(
        workload(name), levels, inclusive=inclusive, flush=False, cores=cores
    )
    assert counts(found) == oracle.counts()
    of_caches = [tuple(c.fetches + c.write_backs for c in row) for row in oracle.levels]
    assert [level.of_cache for level in found.levels] == of_caches
    assert sum(found.accesses_of) == found.reads + found.writes


def test_cores_share_the_tasks() -> None:
    """Three heads of five tasks, for four cores that take one at a time."""
    found = simulate(workload("attention"), [CacheLevel(KIB)], cores=4)
    least, most = min(found.accesses_of), max(found.accesses_of)
    assert least > 0
    assert most == pytest.approx(4 / 3 * least, rel=0.01)


def test_results_are_those_of_one_core() -> None:
    alone = simulate(workload("matmul"), [CacheLevel(KIB)])
    several = simulate(workload("matmul"), [CacheLevel(KIB)], cores=3)
    np.testing.assert_array_equal(alone.results[0], several.results[0])
    assert alone.reads == several.reads
    assert alone.accesses_of == (alone.reads + alone.writes,)


def test_at_the_end_what_is_dirty_is_written_back_once() -> None:
    levels = [CacheLevel(64 * KIB), CacheLevel(256 * KIB, cores=None)]
    found = simulate(workload("matmul"), levels, cores=2)
    # 48 rows of 256 bytes: 192 lines, each of which one core writes.
    assert [level.write_backs_of["result"] for level in found.levels] == [192, 192]


@pytest.mark.parametrize(
    ("levels", "cores", "message"),
    [
        ([CacheLevel(KIB)], 0, "cores: expected 1 or more, got 0"),
        (
            [CacheLevel(KIB, cores=2), CacheLevel(KIB)],
            4,
            "levels: expected 2 cores to share a level, or a multiple, as they share",
        ),
    ],
)
def test_cores_that_cannot_be(
    levels: list[CacheLevel], cores: int, message: str
) -> None:
    with pytest.raises(MoaError, match=message):
        simulate(workload("matmul"), levels, cores=cores)


def test_a_level_that_nobody_shares() -> None:
    with pytest.raises(MoaError, match="cores: expected 1 or more, got 0"):
        CacheLevel(KIB, cores=0)


def test_caches_of_a_machine_are_as_its_description_says() -> None:
    first, second, third = caches_of(machine("server-x86"))
    assert (first.size, first.cores) == (32 * KIB, 1)
    assert (second.size, second.cores) == (1024 * KIB, 1)
    assert (third.size, third.cores) == (32 * KIB * KIB, 8)
    assert caches_of(machine("edge"))[-1].cores is None


@pytest.mark.parametrize(
    ("count", "threads", "work", "expected"),
    [
        (128, 2, 1000, 8),
        (128, 1, 1000, 128),
        (128, 2, 100, 128),
        (128, 2, 1 << 22, 2),
        (128, 2, 1 << 30, 1),
        (128, 4, None, 4),
        (5, 4, 1 << 20, 1),
        (1, 4, 1 << 20, 1),
        (0, 4, None, 1),
    ],
)
def test_tasks_at_a_time(
    count: int, threads: int, work: int | None, expected: int
) -> None:
    assert tasks_at_a_time(count, threads, work) == expected


_LOOP = """
func.func @f(%n: index) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  "scf.parallel"(%c0, %n, %c1) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}> ({{
  ^bb0(%t: index):
    scf.reduce
  }}) {{{work}}} : (index, index, index) -> ()
  func.return
}}
"""

_ARITHMETIC: dict[type, Any] = {
    arith.MuliOp: operator.mul,
    arith.DivSIOp: operator.floordiv,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
}


@pytest.mark.parametrize("work", [None, 1000, 1 << 22, 1 << 30])
def test_tasks_at_a_time_are_what_the_code_computes(work: int | None) -> None:
    """The length of a part, in what moa-outline-tasks makes of a loop."""
    context = Context()
    register_dialects(context)
    attribute = "" if work is None else f"moa.work = {work} : i64"
    module = ModuleParser(context, _LOOP.format(work=attribute)).parse_module()
    OutlineTasksPass().apply(context, module)
    (function,) = (
        op
        for op in module.walk()
        if isinstance(op, FuncOp) and op.sym_name.data == "f.parallel"
    )
    (part,) = (op for op in function.walk() if isinstance(op, arith.MaxSIOp))

    def value(of: SSAValue, count: int, threads: int) -> int:
        op = of.owner
        if isinstance(op, arith.ConstantOp):
            assert isa(op.value, IntegerAttr)
            return op.value.value.data
        if function_ := _ARITHMETIC.get(type(op)):
            assert isinstance(op, Operation)
            return function_(*(value(v, count, threads) for v in op.operands))
        return threads if isinstance(op, arith.IndexCastOp) else count

    for count in (1000, 128, 33, 5):
        for threads in (2, 3, 8):
            expected = value(part.result, count, threads)
            assert tasks_at_a_time(count, threads, work, 0) == expected


# Formulas.


@cache
def case(name: str) -> tuple[Workload, Nest]:
    """A program as vector code, and its loops under the same schedule."""
    programs: dict[str, tuple[Any, Sequence[tuple[int, ...]], str]] = {
        "attention": (
            attention,
            [(4, 256, 32)] * 3,
            "j=procs,regs:1,lanes:8;p=chunk:32,regs:1",
        ),
        "matmul": (
            matmul,
            [(256, 256)] * 2,
            "i=procs,block:32;j=procs,regs:2,lanes:8;p=chunk:64,regs:4",
        ),
        "softmax": (softmax, [(64, 2048)], "auto"),
    }
    program, shapes, schedule = programs[name]
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    compiled = moa.jit(program, schedule=schedule).lower(*specs)
    lifted = compiled.program().lifted(machine("avx2"))
    assert lifted is not None
    return workload_of(compiled, "target", "avx2"), lifted[0]


@pytest.mark.parametrize(
    ("name", "cores", "sharers", "kib"),
    [
        # K and V of a head are 64 KiB: in a cache of less they come for each round.
        ("attention", 2, 1, 32),
        ("attention", 2, 1, 100),
        ("attention", 2, 2, 32),
        ("attention", 4, 4, 100),
        ("attention", 4, 2, 100),
        ("attention", 4, 2, 32),
        ("matmul", 2, 1, 400),
        ("matmul", 4, 1, 400),
        ("matmul", 4, 4, 48),
        ("softmax", 4, 4, 4),
        ("softmax", 2, 2, 64),
    ],
)
def test_formulas_are_what_several_cores_move(
    name: str, cores: int, sharers: int, kib: int
) -> None:
    """Arguments and results, as the formulas count no tiles."""
    workload, nest = case(name)
    level = CacheLevel(kib * KIB, cores=sharers)
    found = simulate(workload, [level], cores=cores).levels[0]
    expected = found.bytes - found.bytes_of("")
    moved = traffic(nest, level.size, 64, True, cores, sharers)
    predicted = sum(
        nest.number(amount)
        for part in (moved.fetched, moved.written)
        for array, amount in part.items()
        if array.role != "scratch"
    )
    assert predicted == pytest.approx(expected, rel=0.05)


def nested(outer: int, inner: int, work: int | None) -> Nest:
    """Two loops over tasks, each of which reads an element of its own."""
    i, j = NUMBERS.index("i"), NUMBERS.index("j")
    array = Array("a", (outer, inner), 4, "argument")
    within = Loop(j, inner, [Access(array, (i, j))], span=inner, parallel=True)
    around = Loop(i, outer, [within], span=outer, parallel=True, work=work)
    return Nest([around], [array], {}, algebra=NUMBERS)


@pytest.mark.parametrize(
    ("outer", "inner", "work", "cores", "expected"),
    [
        # Of 128 tasks two cores take 8 at a time: half of an iteration of the outer loop.
        (8, 16, 1000, 2, {"j": (2, 8)}),
        # Of 256 tasks they take 16: four iterations.
        (64, 4, 1000, 2, {"i": (2, 4)}),
        # More cores than tasks of an iteration.
        (8, 4, 1 << 30, 8, {"j": (4, 1), "i": (2, 1)}),
        # Groups of threads are given out one at a time.
        (64, 4, None, 2, {"j": (2, 1)}),
        # Too little work to share.
        (2, 2, 10, 2, {}),
    ],
)
def test_cores_are_side_by_side_at_some_loops(
    outer: int,
    inner: int,
    work: int | None,
    cores: int,
    expected: dict[str, tuple[int, int]],
) -> None:
    nest = nested(outer, inner, work)
    found = sides(nest, nest.body[0], cores, cores)
    assert {f"{s.loop.index}": (s.cores, s.step) for s in found} == expected


@pytest.mark.parametrize(("inner", "expected"), [(16, 1), (15, 2)])
def test_tasks_that_are_not_shared_out_evenly_come_to_all_cores(
    inner: int, expected: int
) -> None:
    nest = nested(8, inner, 1 << 30)
    assert at_loops(nest, 2, 2)[id(nest.body[0])] == expected


def test_tasks_of_cores_are_cut_into_rounds() -> None:
    """`i < 8` becomes `2 r + c`, and the loop of c goes around the access."""
    found = interleaved(nested(1, 8, 1 << 30), 2, 2)
    (around,) = found.body
    assert isinstance(around, Loop)
    (rounds,) = around.body
    assert isinstance(rounds, Loop)
    (beside,) = rounds.body
    assert isinstance(beside, Loop)
    (access,) = beside.body
    assert isinstance(access, Access)
    assert (rounds.trips, rounds.steps, beside.trips) == (4, 2, 2)
    assert access.indices[1] == 2 * rounds.index + beside.index


def test_a_level_of_which_cores_have_copies_says_so() -> None:
    _, nest = case("attention")
    once, each = (traffic(nest, 1 << 20, 64, True, 4, n) for n in (4, 1))
    assert (once.regime, each.regime) == ("fits", "copied")
    assert traffic(nest, 1 << 15, 64, True, 4, 4).regime == "capacity-bound"
