"""moa-check-dnf: no array stands between arguments and results."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import MemRefType, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.passes.infer_shapes import functions_of


def intermediate_arrays(function: FuncOp) -> list[SSAValue]:
    """The array values of a function that are neither arguments nor results.

    A constant of the program counts as an argument. A result is a comprehension at the
    top of the function that is only returned.
    """
    top = function.body.blocks[0]
    return [
        value
        for op in function.walk()
        if not isinstance(op, FuncOp | ConstantOp)
        for value in op.results
        if (isa(value.type, TensorType) or isa(value.type, MemRefType))
        and not _is_result(op, value, top)
    ]


def _is_result(op: Operation, value: SSAValue, top: object) -> bool:
    return (
        isinstance(op, ComprehensionOp)
        and op.parent is top
        and all(isinstance(use.operation, ReturnOp) for use in value.uses)
    )


@dataclass(frozen=True)
class CheckDnfPass(ModulePass):
    """Fails if a function has an array value besides arguments, constants, results.

    Such a value is an intermediate array; the error names the operation that makes it.
    """

    name = "moa-check-dnf"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            arrays = intermediate_arrays(function)
            if arrays:
                names = ", ".join(
                    f"{value.owner.name} of {value.type}"  # pyright: ignore
                    for value in arrays
                )
                raise VerifyException(
                    f"@{function.sym_name.data} is not in denotational normal form: "
                    f"expected no intermediate array, got {len(arrays)}: {names}"
                )
