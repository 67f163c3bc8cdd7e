"""The search of schedules: what is measured, kept, and not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moa_dialect.tools import search_schedules as search


def test_a_search_measures_every_schedule_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "found.json", tmp_path / "found.md"
    arguments = ["--suite", "smoke", "--only", "logsumexp", "--seconds", "0.1"]
    arguments += ["--out", str(out), "--markdown", str(table)]
    assert search.main([*arguments, "--limit", "0"]) == 1
    assert not out.exists()
    assert search.main(arguments) == 0
    (record,) = json.loads(out.read_text()).values()
    assert record["chosen"] in record["final"]
    assert len(record["times"]) + len(record["refused"]) == record["schedules"] > 10
    printed = capsys.readouterr().out
    assert table.read_text() in printed
    assert f"`{min(record['final'], key=record['final'].get)}`" in table.read_text()
    # Nothing is left to measure.
    before = out.read_text()
    assert search.main(arguments) == 0
    assert out.read_text() == before


def test_the_ratio_is_that_of_the_chosen_schedule_to_the_fastest() -> None:
    record = {"chosen": "a", "final": {"a": 3.0, "b": 2.0}}
    assert search.ratio(record) == 1.5
    assert search.ratio({"chosen": "a"}) is None
