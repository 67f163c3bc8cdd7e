"""The array algebra in upstream MLIR, by a definition in IRDL that ships with moa.

    mlir-opt --irdl-file="$(python -m moa_dialect.irdl)" program.mlir

The definition is written from the operations by `moa_dialect.tools.irdl`; it says what
IRDL can say. What that leaves out only moa's own verifier checks (docs/upstream.md).
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer

if TYPE_CHECKING:
    from mlir import ir

FILE = Path(__file__).resolve().with_name("moa.irdl.mlir")


def path() -> Path:
    """The file with the definition, for `mlir-opt --irdl-file`."""
    return FILE


def text() -> str:
    """The definition."""
    return FILE.read_text("utf-8")


def load(context: ir.Context) -> None:
    """Make the algebra known to an upstream context; one that knows it stays as it is.

    Operations of the algebra are then parsed and verified there, in generic form and
    without properties, which upstream does not have for such dialects.
    """
    from mlir import ir
    from mlir.dialects import irdl

    if context.is_registered_operation("moa.constant"):
        return  # To define an operation twice would abort the process.
    with context:
        irdl.load_dialects(ir.Module.parse(text()))  # pyright: ignore[reportAttributeAccessIssue]


def generic_text(module: ModuleOp) -> str:
    """A module in the form that upstream reads: generic, with attributes alone.

    moa reads it back without loss: it knows which attributes are properties.
    """
    stream = StringIO()
    printer = Printer(
        stream, print_generic_format=True, print_properties_as_attributes=True
    )
    printer.print_op(module)
    return stream.getvalue()


if __name__ == "__main__":
    print(path())
