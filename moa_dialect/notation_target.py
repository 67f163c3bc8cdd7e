"""The target `moa`: MoA notation as an output of `moa-opt -t moa`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import DiagnosticException
from xdsl.utils.target import Target

from moa_dialect.errors import MoaError
from moa_dialect.notation import notation


@dataclass(frozen=True)
class NotationTarget(Target):
    """Prints a module at the stages moa, dnf and fused in MoA notation.

    `-t moa` writes glyphs, `-t 'moa{ascii=true}'` the ASCII spellings.
    """

    name = "moa"

    ascii: bool = False

    def emit(self, ctx: Context, module: ModuleOp, output: IO[str]) -> None:
        """Write the notation.

        Raises:
            DiagnosticException: if the module is at a later stage.
        """
        try:
            output.write(notation(module, ascii=self.ascii))
        except MoaError as error:
            raise DiagnosticException(str(error)) from error
