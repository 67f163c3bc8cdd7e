"""Programs that are linalg on tensors: read, raised, compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from moa_dialect.errors import CompileError
from moa_dialect.lowering.engine import find_entry
from moa_dialect.options import DEFAULTS, Options
from moa_dialect.passes.raising import source
from moa_dialect.passes.raising.driver import Unraised, raise_module


@dataclass(frozen=True)
class Raised:
    """A module that has been raised.

    Attributes:
        module: the module, at the stage `moa`.
        left: what could not be raised, with reasons.
    """

    module: ModuleOp
    left: Sequence[Unraised]

    def entry(self, name: str | None = None) -> FuncOp:
        """The function to run, all of it raised.

        Raises:
            MoaError: if there is none of that name.
            CompileError: with the place in the source, if something was not raised.
        """
        function = find_entry(self.module, name)
        for each in self.left:
            raise CompileError(f"cannot raise {each}")
        return function


def read(text: str, name: str = "<text>") -> Raised:
    """Read and raise MLIR text.

    Args:
        text: a module of linalg on tensors.
        name: what messages call it.

    Raises:
        CompileError: with file, line and column, if upstream does not accept it.
    """
    module = source.parse(source.annotated_text(text, name))
    return Raised(module, raise_module(module))


def compile_linalg(
    text: str | Path, entry: str | None = None, options: Options = DEFAULTS
) -> Callable[..., Any]:
    """Compile a function of a module of linalg on tensors.

    Args:
        text: MLIR text, or the path of a file.
        entry: the function; not needed if there is one.
        options: how it is compiled.

    Returns:
        A callable on NumPy arrays, torch tensors and anything with DLPack.

    Raises:
        MoaError: if it cannot be read, raised or compiled; with the place in the
            source, if there is one.
    """
    from moa_dialect.lowering.program import compile_program

    if isinstance(text, Path):
        raised = read(text.read_text("utf-8"), str(text))
    else:
        raised = read(text)
    function = raised.entry(entry)
    source.without_annotations(raised.module)
    return compile_program(raised.module, function.sym_name.data, options)
