"""Configuration of Sphinx."""

from importlib.metadata import metadata
from typing import Any, ClassVar

from mlir_pygments.mlir import MLIRLexer
from pygments.token import Punctuation
from sphinx.application import Sphinx

project = "moa"
author = "the moa developers"
copyright = author
release = version = metadata("moa-dialect")["Version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "moa"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3  # a heading can be linked to as page.md#its-title

autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "ScalarFunction")}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False

# Docstrings are written in Markdown: single backquotes are code.
default_role = "code"


class Lexer(MLIRLexer):
    """MLIR with signs its lexer does not know: `-` in affine sets, `#` of results."""

    tokens: ClassVar[dict[str, Any]] = {
        **MLIRLexer.tokens,
        "root": [*MLIRLexer.tokens["root"], (r"[-#]", Punctuation)],
    }


def setup(app: Sphinx) -> None:
    """Register the lexer in place of the one that is installed."""
    app.add_lexer("mlir", Lexer)
