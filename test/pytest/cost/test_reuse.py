"""Reuse distances, and what they say of caches of every size."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.cost.addresses import accesses
from moa_dialect.cost.reuse import reuse_distances
from moa_dialect.cost.simulation import CacheLevel, simulate
from moa_dialect.cost.workload import Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.library import attention, matmul


def workload(program: Any, *shapes: tuple[int, ...], stage: str = "onf") -> Workload:
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    return workload_of(moa.jit(program).lower(*specs), stage, "avx2")


PROGRAMS = {
    "loops": lambda: workload(matmul, (24, 40), (40, 33)),
    "vectors": lambda: workload(matmul, (30, 50), (50, 40), stage="target"),
    "rows": lambda: workload(attention, (20, 16), (70, 16), (70, 16)),
    "lifted": lambda: workload(attention, (40, 16), (70, 16), (70, 16), stage="target"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_distances_are_those_of_a_stack(name: str):
    """The definition: how far down the stack of lines, the last used one on top."""
    program = PROGRAMS[name]()
    stack: list[int] = []
    expected: Counter[int] = Counter()
    for place in accesses(program)[:, 0].tolist():
        if place in stack:
            distance = stack.index(place)
            expected[distance] += 1
            stack.pop(distance)
        else:
            expected[-1] += 1
        stack.insert(0, place)
    found = reuse_distances(program)
    total = found.counts.sum(axis=0)
    assert {d: n for d, n in enumerate(total.tolist()) if n} == {
        d: n for d, n in expected.items() if d >= 0
    }
    assert int(found.cold.sum()) == expected[-1] == len(stack)
    assert found.accesses == expected.total()
    assert found.footprint == 64 * len(stack)
    assert sum(count for _, _, count in found.histogram()) == total.sum()


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("name", ["loops", "rows", "lifted"])
def test_one_run_gives_the_traffic_of_every_capacity(name: str, flush: bool):
    program = PROGRAMS[name]()
    found = reuse_distances(program)
    sizes = (1, 8, 100, 333) if name == "lifted" else (1, 2, 3, 7, 8, 9, 16, 50, 2000)
    for lines in sizes:
        capacity = 64 * lines
        (level,) = simulate(program, [CacheLevel(capacity)], flush=flush).levels
        assert found.misses(capacity) == level.fetches
        assert found.misses(capacity, True) == level.fetches_of[""]
        assert found.write_backs(capacity, flush=flush) == level.write_backs
        scratch = found.write_backs(capacity, True, flush)
        assert scratch == level.write_backs_of[""]
        assert found.bytes(capacity, flush=flush) == level.bytes
        assert found.bytes(capacity, False, flush) == level.bytes - level.bytes_of("")


def test_times_are_counted_anew_when_they_run_out():
    """Columns of 100 lines, walked often: more uses than there are times."""
    program = workload(matmul, (16, 100), (100, 16))
    found = reuse_distances(program)
    far = int(found.counts[:, 8:].sum())
    assert far > 4096
    (level,) = simulate(program, [CacheLevel(64 * 90)]).levels
    assert found.misses(64 * 90) == level.fetches


def test_distances_do_not_depend_on_where_memory_lies():
    program = PROGRAMS["lifted"]()
    first, second = reuse_distances(program), reuse_distances(program)
    np.testing.assert_array_equal(first.counts, second.counts)
    np.testing.assert_array_equal(first.dirty, second.dirty)


def test_shorter_lines():
    program = PROGRAMS["loops"]()
    found = reuse_distances(program, line=16)
    (level,) = simulate(program, [CacheLevel(1024, 16)]).levels
    assert found.misses(1024) == level.fetches


def test_capacities_and_lines_that_are_none():
    program = PROGRAMS["loops"]()
    with pytest.raises(MoaError, match="line: expected a power of two, got 3"):
        reuse_distances(program, line=3)
    found = reuse_distances(program)
    for capacity in (0, 100):
        with pytest.raises(MoaError, match=f"multiple of 64 bytes, got {capacity}"):
            found.misses(capacity)
