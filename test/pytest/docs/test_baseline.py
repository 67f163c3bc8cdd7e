"""The measurements that the page on performance quotes can be repeated."""

import re
from pathlib import Path

import pytest

from moa_dialect.tools import baseline

PAGE = Path(__file__).resolve().parents[3] / "docs" / "performance.md"


def test_prints_a_table(capsys: pytest.CaptureFixture[str]):
    assert baseline.main(["--only", "softmax-f32", "--repeat", "1"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("| program | type | shape |")
    assert set(rule) <= set("|-: ")
    (row,) = rows
    assert re.match(r"\| softmax \| f32 \| 1024 1024 \|( [\d.]+ \|){4}$", row)


def test_page_has_every_case():
    text = PAGE.read_text("utf-8")
    for case in baseline.CASES:
        shape = " ".join(map(str, case.shapes[0]))
        assert f"| {case.program} | {case.dtype} | {shape} |" in text


def test_unknown_case(capsys: pytest.CaptureFixture[str]):
    assert baseline.main(["--only", "sorting"]) == 1
    assert capsys.readouterr().err.startswith("baseline: error: no case has 'sorting'")


def test_failure_of_a_contender_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    case = baseline.Case("softmax", "f32", ((2, 2),))
    monkeypatch.setattr(baseline, "CASES", (case,))
    assert baseline.main(["--only", "softmax"]) == 1
    assert "softmax-f32-2x2, moa: " in capsys.readouterr().err
