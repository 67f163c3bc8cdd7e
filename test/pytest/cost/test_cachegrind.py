"""The simulation against valgrind's cachegrind, and against known traffic."""

from __future__ import annotations

import pytest

from moa_dialect.cost import cachegrind
from moa_dialect.cost.cachegrind import count_misses
from moa_dialect.cost.reuse import reuse_distances
from moa_dialect.cost.simulation import CacheLevel
from moa_dialect.cost.workload import Workload, workload_of
from moa_dialect.errors import MoaError
from moa_dialect.tools import cache_check
from moa_dialect.tools.cache_check import (
    CACHES,
    FOUR_WAYS,
    PROGRAMS,
    REFERENCE,
    WAYS,
    attention_by,
    attention_table,
    compared,
    comparison_table,
    lifted,
    program_named,
    regime_table,
    rows_for,
)

needs_valgrind = pytest.mark.skipif(
    not cachegrind.is_available(), reason="needs valgrind and a C compiler"
)


@needs_valgrind
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_simulation_is_within_a_tenth_of_cachegrind(name: str, way: str):
    n = 500 if name == "decode" else 72
    for found in compared(name, n, way, CACHES):
        assert all(abs(off) < 0.1 for off in found.differences), found


@needs_valgrind
def test_comparison_table():
    found = compared("softmax", 16, "row at a time", CACHES[:1])
    text = comparison_table(list(found)).splitlines()
    assert len(text) == 3
    assert text[2].startswith("| softmax, 16 | row at a time | 16 KiB, 128 KiB | 32 |")


def test_without_valgrind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cachegrind, "is_available", bool)
    with pytest.raises(MoaError, match="expected valgrind and a C compiler, got none"):
        count_misses(Workload(), CACHES)


@needs_valgrind
def test_caches_that_cachegrind_does_not_have():
    workload = workload_of(program_named("softmax", 16), "onf")
    with pytest.raises(MoaError, match="valgrind: "):
        count_misses(workload, [(CacheLevel(960, ways=3), CACHES[0][1])])


KIB = 1 << 10


@pytest.mark.parametrize("capacity", [64 * KIB, 256 * KIB])
def test_attention_in_four_ways_moves_what_the_reference_moves(capacity: int):
    n = 256
    tolerances = (0.01, 0.25, 0.01, 0.001)
    expected = zip(FOUR_WAYS, REFERENCE[n, capacity], tolerances, strict=True)
    for way, known, tolerance in expected:
        found = reuse_distances(attention_by(way, n, rows_for(n, capacity)))
        moved = found.bytes(capacity, scratch=False) / found.compulsory_bytes
        assert moved == pytest.approx(known, rel=tolerance), way


@pytest.mark.parametrize("rows", [32, 64, 128])
def test_lifted_attention_moves_what_its_closed_form_says(rows: int):
    """Q once, O fetched and written, K and V once for each block of queries."""
    n, capacity = 256, rows * 16 * 64
    found = reuse_distances(lifted(n, rows))
    moved = found.bytes(capacity, scratch=False) / found.compulsory_bytes
    assert moved == (3 + 2 * n / rows) / 4


def test_decoding_moves_each_key_and_value_once_whatever_the_cache():
    found = reuse_distances(workload_of(program_named("decode", 1024), "onf"))
    for capacity in (16 * KIB, 64 * KIB, 1024 * KIB):
        assert found.bytes(capacity) / found.compulsory_bytes < 1.04


def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cache_check, "REGIMES", {"softmax": (16, (1, 16))})
    rows = regime_table("softmax").splitlines()
    assert [row.split(" | ")[0] for row in rows] == [
        "| M",
        "| ---",
        "| 1 KiB",
        "| 16 KiB",
    ]
    assert len(attention_table(128).splitlines()) == 2
    arguments = ["cache_check", "--largest", "128", "--skip-valgrind"]
    monkeypatch.setattr(cache_check.sys, "argv", arguments)
    monkeypatch.setattr(cache_check, "HISTOGRAM", "softmax")
    cache_check.main()
    printed = capsys.readouterr().out
    assert "## softmax, 16" in printed
    assert "| distance in lines |" in printed
    assert "cachegrind" not in printed
