"""Simulated caches do what caches in Python do, line by line."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.cost.addresses import accesses
from moa_dialect.cost.simulation import CacheLevel, Traffic, simulate
from moa_dialect.cost.workload import Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.library import attention, layernorm, matmul


@cache
def workload(name: str, stage: str = "onf") -> Workload:
    programs: dict[str, tuple[Any, Sequence[tuple[int, ...]]]] = {
        "attention": (attention, [(20, 16), (70, 16), (70, 16)]),
        "matmul": (matmul, [(24, 40), (40, 33)]),
        "layer norm": (layernorm, [(12, 100), (100,), (100,)]),
    }
    program, shapes = programs[name]
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    return workload_of(moa.jit(program).lower(*specs), stage, "avx2")


@cache
def stream(name: str, stage: str, line: int) -> np.ndarray:
    return accesses(workload(name, stage), unit=line)


class Level:
    """A cache as a dictionary for each set, the line used last at the end."""

    def __init__(self, level: CacheLevel) -> None:
        self.level = level
        self.sets: list[OrderedDict[int, bool]] = [
            OrderedDict() for _ in range(level.sets)
        ]
        self.fetches = self.write_backs = 0

    def of(self, line: int) -> OrderedDict[int, bool]:
        return self.sets[line % self.level.sets]


class Caches:
    """The oracle: levels, written the plain way."""

    def __init__(self, levels: Sequence[CacheLevel], inclusive: bool) -> None:
        self.levels = [Level(level) for level in levels]
        self.inclusive = inclusive

    def access(self, number: int, line: int, write: bool) -> None:
        if number == len(self.levels):
            return
        level = self.levels[number]
        lines = level.of(line)
        if line not in lines:
            level.fetches += 1
            self.access(number + 1, line, False)
            if len(lines) == level.level.lines_of_set:
                victim = next(iter(lines))
                self.leave(number, victim)
            lines[line] = False
        lines.move_to_end(line)
        lines[line] |= write

    def leave(self, number: int, line: int) -> None:
        level = self.levels[number]
        dirty = level.of(line).pop(line)
        if self.inclusive:
            for above in self.levels[:number]:
                if above.of(line).pop(line, False):
                    above.write_backs += 1
                    dirty = True
        if dirty:
            level.write_backs += 1
            self.receive(number + 1, line)

    def receive(self, number: int, line: int) -> None:
        if number == len(self.levels):
            return
        level = self.levels[number]
        if line in level.of(line):
            level.of(line)[line] = True
        else:
            level.write_backs += 1
            self.receive(number + 1, line)

    def counts(self) -> list[tuple[int, int]]:
        return [(level.fetches, level.write_backs) for level in self.levels]


def counts(found: Traffic) -> list[tuple[int, int]]:
    return [(level.fetches, level.write_backs) for level in found.levels]


GEOMETRIES = [
    [CacheLevel(1024)],
    [CacheLevel(4096)],
    [CacheLevel(2048, ways=1)],
    [CacheLevel(2048, ways=2)],
    [CacheLevel(960, ways=3)],
    [CacheLevel(1024, ways=4), CacheLevel(4096, ways=8)],
    [CacheLevel(2048, ways=2), CacheLevel(2048, ways=1)],
    [CacheLevel(512), CacheLevel(2048, ways=4), CacheLevel(8192)],
    [CacheLevel(512, line=32), CacheLevel(4096, line=32, ways=2)],
]


@pytest.mark.parametrize(
    ("levels", "inclusive"),
    [(levels, True) for levels in GEOMETRIES]
    + [(levels, False) for levels in GEOMETRIES if len(levels) > 1],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "stage"),
    [("attention", "onf"), ("matmul", "target"), ("layer norm", "onf")],
)
def test_simulation_agrees_with_caches_in_python(
    name: str, stage: str, levels: list[CacheLevel], inclusive: bool
):
    oracle = Caches(levels, inclusive)
    for place, write in stream(name, stage, levels[0].line).tolist():
        oracle.access(0, place, bool(write))
    program = workload(name, stage)
    found = simulate(program, levels, inclusive=inclusive, flush=False)
    assert counts(found) == oracle.counts()


def test_reads_and_writes_are_counted():
    program = workload("matmul")
    found = simulate(program, [CacheLevel(1024)])
    stream = accesses(program)
    assert (found.reads, found.writes) == tuple(np.bincount(stream[:, 1]))


def test_traffic_is_told_apart_by_array():
    found = simulate(workload("matmul"), [CacheLevel(1 << 20)])
    (level,) = found.levels
    lines = {"a": 24 * 40 * 4 // 64, "b": 40 * 33 * 4 // 64 + 1, "result": 50}
    assert level.fetches_of == {**lines, "": 0}
    assert level.write_backs_of == {"a": 0, "b": 0, "result": 50, "": 0}
    assert level.bytes_of("result") == 6400
    assert level.bytes == (level.fetches + level.write_backs) * 64
    assert found.compulsory_bytes == 4 * (24 * 40 + 40 * 33 + 24 * 33)


def test_flush_writes_back_what_is_dirty_through_all_levels():
    levels = [CacheLevel(4096), CacheLevel(1 << 20)]
    program = workload("matmul")
    kept = simulate(program, levels, flush=False)
    flushed = simulate(program, levels)
    assert kept.levels[1].write_backs == 0
    assert flushed.levels[1].write_backs == 50
    first = flushed.levels[0].write_backs
    assert kept.levels[0].write_backs < first
    assert [level.fetches for level in kept.levels] == [
        level.fetches for level in flushed.levels
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1000}, "size: expected a multiple of 64 bytes, got 1000"),
        ({"size": 1024, "ways": 3}, "size: expected a multiple of 192 bytes, got 1024"),
        ({"size": 0}, "size: expected a multiple of 64 bytes, got 0"),
        ({"size": 960, "line": 48}, "line: expected a power of two, got 48"),
        ({"size": 1024, "ways": 0}, "ways: expected 1 or more, got 0"),
    ],
)
def test_levels_that_are_none(arguments: dict[str, int], message: str):
    with pytest.raises(MoaError, match=message):
        CacheLevel(**arguments)


def test_levels_that_do_not_fit_together():
    program = workload("matmul")
    with pytest.raises(MoaError, match="levels: expected one or more, got none"):
        simulate(program, [])
    with pytest.raises(
        MoaError, match="levels: expected lines of one size, got 32, 64"
    ):
        simulate(program, [CacheLevel(1024, 32), CacheLevel(4096)])
    with pytest.raises(MoaError, match="line: expected a divisor of 64, got 128"):
        simulate(program, [CacheLevel(1024, 128)])
