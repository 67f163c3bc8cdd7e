"""The pages on the library have every program; test_tutorial runs their examples."""

import inspect
import re
from pathlib import Path

import pytest

import moa_dialect as moa

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "library.md").read_text("utf-8")
IN_FULL = [
    (DOCS / f"{name}.md").read_text("utf-8") for name in ("attention", "reductions")
]
"""The pages that the table of all programs links to."""


def written(parameter: inspect.Parameter) -> str:
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    default = parameter.default
    shown = "" if default is parameter.empty else f"={default}"
    return f"{star}{parameter.name}{shown}"


@pytest.mark.parametrize("name", moa.library.__all__)
def test_has_every_program_with_its_parameters(name: str):
    parameters = inspect.signature(getattr(moa.library, name)).parameters.values()
    line = f"`{name}({', '.join(map(written, parameters))})`"
    assert line in re.sub(r"1e-(\d)\b", r"1e-0\1", PAGE)


@pytest.mark.parametrize("name", moa.library.__all__)
def test_has_an_example_of_every_program(name: str):
    used = re.compile(rf"^(>>> |normal_form\().*library\.{name}\b", re.MULTILINE)
    assert any(used.search(page) for page in (PAGE, *IN_FULL))


@pytest.mark.parametrize("name", moa.library.__all__)
def test_a_program_says_what_it_takes_and_gives(name: str):
    text = inspect.getdoc(getattr(moa.library, name)) or ""
    for section in ("Args:", "Returns:"):
        assert section in text
