"""moa-raise-linalg: linalg on tensors as programs of the algebra."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from moa_dialect.errors import CompileError
from moa_dialect.lowering.upstream import generic_text
from moa_dialect.parsing import file_locations
from moa_dialect.passes.raising import source
from moa_dialect.passes.raising.driver import Unraised, raise_module


def raise_linalg(module: ModuleOp) -> list[Unraised]:
    """Raise a module in place; what could not be raised, with reasons.

    Raises:
        CompileError: if upstream does not accept the module.
    """
    for op in module.walk():
        # The text that goes through upstream has no locations.
        for place in islice(file_locations(op.location), 1):
            text = f"{place.filename.data}:{place.line.data}:{place.column.data}"
            op.attributes[source.LOCATION] = StringAttr(text)
    parsed = source.parse(source.annotated_text(generic_text(module), "<module>"))
    left = raise_module(parsed)
    region = parsed.detach_region(parsed.body)
    module.detach_region(module.body).drop_all_references()
    module.add_region(region)
    source.without_annotations(module)
    return left


@dataclass(frozen=True)
class RaiseLinalgPass(ModulePass):
    """Raises linalg on tensors: an operation becomes the array that it computes.

    Each result of a linalg operation becomes a comprehension over its axes; dimensions
    that it does not have become folds, if the body combines by an associative
    operation. Results that nobody uses are dropped. Operations of tensor that move
    elements become comprehensions too, and constants `moa.constant`. What an operation
    takes for granted of dynamic extents becomes `moa.require`. `moa-to-dnf` puts the
    comprehensions together.

    What cannot be raised stays as it is, and the rest around it is raised. With
    `strict` it is an error that says what and why.

    The module goes through upstream MLIR, which verifies it.
    """

    name = "moa-raise-linalg"

    strict: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Raise a module.

        Raises:
            CompileError: if upstream does not accept it, or with `strict`.
        """
        left = raise_linalg(op)
        if self.strict and left:
            raise CompileError(f"cannot raise {left[0]}")
