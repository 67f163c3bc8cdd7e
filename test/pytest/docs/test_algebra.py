"""The page on the algebra speaks of all there is; test_tutorial runs its examples."""

import inspect
import re
from pathlib import Path

import pytest
from xdsl.ir import Operation

import moa_dialect as moa
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.passes.to_dnf import LAWS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "algebra.md").read_text("utf-8")

FUNCTIONS = [
    name
    for name in moa.__all__
    if inspect.isfunction(function := getattr(moa, name))
    and function.__module__.startswith(
        ("moa_dialect.frontend.functions", "moa_dialect.library")
    )
]


@pytest.mark.parametrize("operation", LAWS, ids=lambda op: op.name)
def test_has_every_operation_with_its_example(operation: type[Operation]):
    text = inspect.getdoc(operation) or ""
    title = operation.name.removeprefix("moa.").replace("_", " ").capitalize()
    assert re.search(rf"^##+ {title}$", PAGE, re.MULTILINE)
    examples = re.findall(r"^```mlir\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    for example in examples:
        assert example in PAGE


@pytest.mark.parametrize("name", FUNCTIONS)
def test_has_every_function(name: str):
    assert f"moa.{name}" in PAGE


@pytest.mark.parametrize("name", SCALAR_OPERATIONS)
def test_has_every_scalar_operation(name: str):
    assert re.search(rf"^\| .*`{name}`.* \|$", PAGE, re.MULTILINE)
