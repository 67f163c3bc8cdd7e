"""The table of what there is: up to date, without gaps, and it notices what is missing.

An operation that is added without a law, code, documentation or tests fails here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.ir import Operation
from xdsl.irdl import irdl_op_definition

from moa_dialect import proofs, scalar_code
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS, ScalarOperation
from moa_dialect.algebra.shape import Extent, axes_of
from moa_dialect.dialect import ALGEBRA, Moa
from moa_dialect.errors import MoaError
from moa_dialect.ops.base import UnaryOperation, rank
from moa_dialect.ops.rearranging import ReverseOp, TakeOp
from moa_dialect.ops.structural import CellOp
from moa_dialect.passes.laws import LAWS
from moa_dialect.tools import coverage
from moa_dialect.tools.examples import runnable


@pytest.fixture(scope="module")
def page() -> tuple[str, list[str]]:
    """The page as it should be, and its gaps."""
    return coverage.page()


def rows(text: str, title: str) -> list[list[str]]:
    """The rows of the table below a heading, the header first."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = (part for part in section if part.startswith(f"{title}\n"))
    lines = [line for line in found.splitlines() if line.startswith("| ")]
    header, _, *rest = ([c.strip() for c in line.split("|")[1:-1]] for line in lines)
    return [header, *rest]


def test_has_no_gap(page: tuple[str, list[str]]):
    assert page[1] == []


def test_page_is_up_to_date(page: tuple[str, list[str]]):
    written = (coverage.DOCS / coverage.PAGE).read_text("utf-8")
    assert written == page[0], f"run `{coverage.COMMAND}`"


def test_has_every_operation_and_no_empty_cell(page: tuple[str, list[str]]):
    header, *found = rows(page[0], "Operations of the algebra")
    assert header == ["operation", *coverage.COLUMNS]
    assert [row[0] for row in found] == [f"`{op.name}`" for op in ALGEBRA]
    assert all(len(row) == len(header) and all(row) for row in found)


def test_has_every_scalar_operation_and_no_empty_cell(page: tuple[str, list[str]]):
    header, *found = rows(page[0], "Scalar operations")
    assert [row[0] for row in found] == [f"`{name}`" for name in SCALAR_OPERATIONS]
    assert all(len(row) == len(header) and all(row) for row in found)


def test_not_applicable_has_its_reason(page: tuple[str, list[str]]):
    numbers = set(map(int, re.findall(r"n/a \((\d+)\)", page[0])))
    reasons = re.findall(r"^(\d+)\. \w.*\.$", page[0], re.MULTILINE)
    assert numbers == set(map(int, reasons)) == set(range(1, len(reasons) + 1))


def test_reasons_are_for_operations_and_columns():
    for name, column in coverage.NOT_APPLICABLE:
        assert name in {op.name for op in ALGEBRA}
        assert column in coverage.COLUMNS


# What is missing is a gap


def gaps(*operations: type[Operation]) -> set[str]:
    return set(coverage.operation_table(operations, []).gaps)


def nothing(operation: type[Operation], *columns: str) -> set[str]:
    return {f"{operation.name}, {column}: nothing found" for column in columns}


def test_law_that_is_missing_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    assert not gaps(TakeOp)
    monkeypatch.delitem(LAWS, TakeOp)
    missing = nothing(TakeOp, "law", "DNF", "ONF", "compiled", "proof")
    assert gaps(TakeOp) == missing


def test_proof_that_is_missing_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    kept = [rule for rule in proofs.rules() if rule != "take"]
    monkeypatch.setattr(proofs, "rules", lambda: kept)
    assert gaps(TakeOp) == nothing(TakeOp, "proof")


def test_function_that_is_missing_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(coverage.PUBLIC, "take")
    assert gaps(TakeOp) == nothing(TakeOp, "Python")


def test_function_that_records_something_else_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(coverage.PUBLIC, "take", coverage.PUBLIC["drop"])
    assert gaps(TakeOp) == nothing(TakeOp, "Python")


def test_documentation_that_is_missing_is_a_gap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    text = (coverage.DOCS / "algebra.md").read_text("utf-8")
    (tmp_path / "algebra.md").write_text(text.replace("- Rule: `i ψ (v △ A)", "`"))
    monkeypatch.setattr(coverage, "DOCS", tmp_path)
    assert gaps(TakeOp) == nothing(TakeOp, "documentation")


def test_law_that_is_wrong_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    """Reversal by a law that leaves the index as it is."""

    class Stays(type(LAWS[ReverseOp])):
        def reduce(self, op: Any, index: Any, r: Any) -> Any:
            return r.element(op.array, index)

    monkeypatch.setitem(LAWS, ReverseOp, Stays())
    assert gaps(ReverseOp) == nothing(ReverseOp, "DNF", "ONF", "compiled")


@irdl_op_definition
class Twice(UnaryOperation):
    """An operation of which nothing but this is there.

    ```mlir
    %b = moa.twice %a : tensor<3xf64> -> tensor<3xf64>
    ```
    """

    name = "moa.twice"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.array)))


def test_operation_with_nothing_has_a_gap_in_each_column(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Moa, "_operations", [*Moa.operations, Twice])
    has = {"verifier", "syntax"}
    assert gaps(Twice) == nothing(Twice, *(set(coverage.COLUMNS) - has))


def test_operation_that_is_not_registered_has_only_gaps():
    assert gaps(Twice) == nothing(Twice, *coverage.COLUMNS)


def test_operation_without_example_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TakeOp, "__doc__", "No example.")
    missing = set(coverage.COLUMNS) - {"law", "proof"}
    assert gaps(TakeOp) == nothing(TakeOp, *missing)


def test_reason_for_what_is_there_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(coverage.NOT_APPLICABLE, ("moa.take", "law"), "none needed")
    expected = "moa.take, law: not applicable is said, `psi-take` found"
    assert gaps(TakeOp) == {expected}


def test_reason_that_is_missing_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(coverage.NOT_APPLICABLE, ("moa.cell", "Python"))
    assert gaps(CellOp) == nothing(CellOp, "Python")


def test_example_that_nothing_fits_is_an_error():
    text = "%b = moa.take %v, %a : tensor<1xindex>, tensor<0xf64> -> tensor<?xf64>\n"
    with pytest.raises(MoaError, match="no arguments were found"):
        coverage.sample(runnable(text), 0)


# Scalar operations


def scalar_gaps(*operations: ScalarOperation) -> Sequence[str]:
    return coverage.scalar_table(operations, []).gaps


def test_scalar_operation_without_code_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    square = ScalarOperation("square", 1, frozenset({"float"}), "square", np.square)
    monkeypatch.setitem(SCALAR_OPERATIONS, "square", square)
    assert scalar_gaps(SCALAR_OPERATIONS["exp"], square) == [
        "square, interpreter: expected f64 f32 f16 bf16, found nothing",
        "square, element by element: expected f64 f32 f16 bf16, found nothing",
        "square, documentation: nothing found",
    ]


def test_wrong_code_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    table = vars(scalar_code)["_BINARY"]
    monkeypatch.setitem(table, ("sub", "int"), table["add", "int"])
    floats = "found f64 f32 f16 bf16"
    everywhere = "expected f64 f32 f16 bf16 i64 i32 index"
    assert scalar_gaps(SCALAR_OPERATIONS["sub"]) == [
        f"sub, {column}: {everywhere}, {floats}"
        for column in ("element by element", "reduce", "scan")
    ]


def test_other_meaning_than_the_interpreters_is_a_gap():
    table = SCALAR_OPERATIONS["sub"]
    other = ScalarOperation("sub", 2, table.kinds, "-", np.add)
    expected = "expected f64 f32 f16 bf16 i64 i32 index, found nothing"
    assert scalar_gaps(other) == [f"sub, interpreter: {expected}"]


# The command


def test_check_tells_what_is_outdated(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    page: tuple[str, list[str]],
):
    monkeypatch.setattr(coverage, "page", lambda: page)
    options = ["--docs", str(tmp_path)]
    assert coverage.main([*options, "--check"]) == 1
    assert "docs/coverage.md is not up to date" in capsys.readouterr().err
    assert coverage.main(options) == 0
    assert coverage.main([*options, "--check"]) == 0


def test_gap_ends_with_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(coverage, "page", lambda: ("", ["moa.take, law: nothing"]))
    assert coverage.main(["--docs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "coverage: moa.take, law: nothing\n"
    assert not (tmp_path / coverage.PAGE).exists()


def test_folder_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert coverage.main(["--docs", str(tmp_path / "none")]) == 1
    assert "no folder" in capsys.readouterr().err
