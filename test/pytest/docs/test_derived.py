"""The table of derived programs is what is found, and tells of what is not as it says."""

from pathlib import Path

import numpy as np
import pytest

from moa_dialect import library
from moa_dialect.tools import derived
from moa_dialect.tools.derived import ROWS, Row, bound, explained, passes, rules


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]):
    """Passes, rules and certificates are as written; no error is above its bound."""
    assert derived.main(["--check"]) == 0, capsys.readouterr().err


def test_a_softmax_takes_one_pass_and_an_unfused_one_two():
    (row,) = (row for row in ROWS if row.name == "softmax")
    text = explained(row.lowered())
    assert (passes(text), rules(text)) == (("2", "1"), "rank one")


def test_bounds_stay_while_they_hold_and_are_near():
    assert bound(2e-7, None) == 1e-6
    assert bound(2e-7, 1e-5) == 1e-5
    assert bound(2e-5, 1e-5) == 1e-4
    assert bound(2e-7, 1e-3) == 1e-6


def test_bounds_are_read_from_the_page():
    page = (
        "| a, b | 2 | 1 | none | ≤ 1e-6 | 1 proved |\n| c | `f` | no number | ≤ 8 |\n"
    )
    assert derived.written(page) == {"a, b": 1e-6, "c": 8.0}


def test_a_wrong_value_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    wrong = Row("wrong", library.logsumexp, [("n", "m")], np.exp)
    monkeypatch.setattr(derived, "ROWS", [wrong])
    monkeypatch.setattr(derived, "HARD", [])
    monkeypatch.setattr(derived, "REFUSED", [])
    assert derived.main(["--docs", str(tmp_path)]) == 1
    assert "wrong: an error of ≤ inf" in capsys.readouterr().err
    assert not (tmp_path / derived.PAGE).exists()


def test_check_tells_what_is_outdated(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(derived, "ROWS", ROWS[:1])
    monkeypatch.setattr(derived, "HARD", [])
    monkeypatch.setattr(derived, "REFUSED", [])
    options = ["--docs", str(tmp_path)]
    assert derived.main([*options, "--check"]) == 1
    assert "docs/derived.md is not up to date" in capsys.readouterr().err
    assert derived.main(options) == 0
    assert derived.main([*options, "--check"]) == 0
    path = tmp_path / derived.PAGE
    path.write_text(path.read_text("utf-8").replace("rank one", "added"), "utf-8")
    assert derived.main([*options, "--check"]) == 1


def test_folder_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert derived.main(["--docs", str(tmp_path / "none")]) == 1
    assert "no folder" in capsys.readouterr().err
