"""The page on the library has every program; test_tutorial runs its examples."""

import inspect
from pathlib import Path

import pytest

import moa_dialect as moa

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "library.md").read_text("utf-8")


def written(parameter: inspect.Parameter) -> str:
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    default = parameter.default
    shown = "" if default is parameter.empty else f"={default}"
    return f"{star}{parameter.name}{shown}"


@pytest.mark.parametrize("name", moa.library.__all__)
def test_has_every_program_with_its_parameters(name: str):
    parameters = inspect.signature(getattr(moa.library, name)).parameters.values()
    line = f"`{name}({', '.join(map(written, parameters))})`"
    assert line in PAGE.replace("1e-5", "1e-05")


@pytest.mark.parametrize("name", moa.library.__all__)
def test_has_an_example_of_every_program(name: str):
    assert f"library.{name}" in PAGE


@pytest.mark.parametrize("name", moa.library.__all__)
def test_a_program_says_what_it_takes_and_gives(name: str):
    text = inspect.getdoc(getattr(moa.library, name)) or ""
    for section in ("Args:", "Returns:"):
        assert section in text
