"""The generated reference: it is up to date, and its examples are valid."""

import re
from pathlib import Path

import pytest
from xdsl.ir import Operation

from moa_dialect.diagnostics import check_definitions
from moa_dialect.dialect import ALGEBRA, NORMAL_FORM, OPERATIONAL
from moa_dialect.tools import reference
from moa_dialect.tools.examples import completed, examples, parser
from moa_dialect.universe import MOA_UNIVERSE

OPERATIONS = (*ALGEBRA, *NORMAL_FORM, *OPERATIONAL)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_example_of_an_operation_is_valid(operation: type[Operation]):
    found = examples(operation)
    assert found, f"{operation.name} has no example"
    for text in found:
        module = parser(completed(text)).parse_module()
        check_definitions(module)
        module.verify()
        assert any(type(op) is operation for op in module.walk())


@pytest.mark.parametrize("name", reference.PAGES)
def test_page_is_up_to_date(name: str):
    expected = reference.PAGES[name]()
    assert (reference.DOCS / name).read_text("utf-8") == expected, (
        f"run `{reference.COMMAND}`"
    )


def test_pages_have_every_operation_and_pass():
    headings = re.findall(r"^##+ (\S+)$", reference.dialect_page(), re.MULTILINE)
    assert [name for name in headings if name.startswith("moa.")] == [
        operation.name for operation in OPERATIONS
    ]
    passes = re.findall(r"^## (\S+)$", reference.passes_page(), re.MULTILINE)
    assert passes == list(MOA_UNIVERSE.all_passes)


def test_no_constraint_is_left_as_python():
    assert "Constraint" not in reference.dialect_page()
    assert "(attr=" not in reference.dialect_page()


def test_check_tells_what_is_outdated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--docs", str(tmp_path)]
    assert reference.main([*options, "--check"]) == 1
    assert "docs/dialect.md is not up to date" in capsys.readouterr().err
    assert reference.main(options) == 0
    assert reference.main([*options, "--check"]) == 0
    (tmp_path / "passes.md").write_text("# Passes\n")
    assert reference.main([*options, "--check"]) == 1
    assert "passes.md" in capsys.readouterr().err


def test_folder_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert reference.main(["--docs", str(tmp_path / "none")]) == 1
    assert "no folder" in capsys.readouterr().err
