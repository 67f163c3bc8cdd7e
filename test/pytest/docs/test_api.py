"""The page on the Python interface has every public name."""

from pathlib import Path

import pytest

import moa_dialect as moa

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text("utf-8")


@pytest.mark.parametrize("name", moa.__all__)
def test_has_every_public_name(name: str):
    directives = ("autofunction", "autoclass", "autoexception", "automodule")
    assert any(f".. {d}:: moa_dialect.{name}\n" in PAGE for d in directives)
