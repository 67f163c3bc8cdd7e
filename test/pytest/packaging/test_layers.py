"""Layers import those below them, and of others only what is listed here."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3] / "moa_dialect"
LAYERS = (
    "algebra",
    "ops",
    "passes",
    "cost",
    "lowering",
    "frontend",
    "library",
    "tools",
)

AGAINST = {
    "passes": {
        "cost": {"estimate", "machines", "cost"},
        # What reads upstream's text, and what chips and this CPU are.
        "lowering": {"chips", "host", "unregistered", "upstream"},
    },
    "cost": {
        # Programs are lowered to tell what they cost, machines measured by kernels.
        "lowering": None,
        "frontend": {"jit"},
        "tools": {"bench"},
    },
    "frontend": {"library": None},
}
"""What a layer imports of one that is not below it: of which modules, None for all."""

_FROM = re.compile(r"^\s*from moa_dialect\.(\w+)(?:\.(\w+))?[\w.]* import", re.M)
_WHOLE = re.compile(r"^\s*from moa_dialect import (.*)", re.M)


def imports(text: str) -> list[tuple[str, str]]:
    """The layers that a file imports, and what of them."""
    whole = re.findall(r"\w+", " ".join(_WHOLE.findall(text)))
    pairs = [*_FROM.findall(text), *((name, name) for name in whole)]
    return [(layer, name or layer) for layer, name in pairs if layer in LAYERS]


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down(layer: str) -> None:
    below = LAYERS[: LAYERS.index(layer) + 1]
    against = AGAINST.get(layer, {})
    used: dict[str, set[str]] = {}
    for path in (ROOT / layer).rglob("*.py"):
        for found, name in imports(path.read_text("utf-8")):
            if found in below:
                continue
            assert found in against, f"{path} imports {found}"
            allowed = against[found]
            assert allowed is None or name in allowed, f"{path} imports {found}.{name}"
            used.setdefault(found, set()).add(name)
    assert used.keys() == against.keys()
    for found, names in used.items():
        assert against[found] is None or names == against[found]
