"""moa-infer-shapes: the most static result types that operand types give."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import FunctionType, ModuleOp, TensorType, UnregisteredOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.ops.base import ArrayOperation, are_compatible, as_tensor
from moa_dialect.types import element_of, shape_of


def refine(op: ArrayOperation) -> None:
    """Make the result type of one operation as static as the operands allow."""
    declared = shape_of(op.array_result.type)
    inferred = shape_of(op.inferred_type())
    if len(declared) != len(inferred):
        return
    refined = as_tensor(
        [
            None if (extent := max(d, i)) < 0 else extent
            for d, i in zip(declared, inferred, strict=True)
        ],
        element_of(op.array_result.type),
    )
    if refined != op.array_result.type:
        Rewriter.replace_value_with_new_type(op.array_result, refined)


def _refine_results(function: FuncOp, terminator: ReturnOp) -> None:
    """Let the function's result types follow what it returns."""

    def joined(declared: object, value: SSAValue):
        if (
            isa(declared, TensorType)
            and isa(value.type, TensorType)
            and are_compatible(declared, value.type)
        ):
            return value.type
        return declared

    outputs = [
        joined(declared, value)
        for declared, value in zip(
            function.function_type.outputs, terminator.operands, strict=True
        )
    ]
    function.function_type = FunctionType.from_lists(
        function.function_type.inputs.data,
        outputs,  # pyright: ignore
    )


def infer_shapes(function: FuncOp) -> None:
    """Refine every array type in a function, then its result types.

    One of several blocks is another compiler's, and stays as it is.

    Raises:
        CompileError: if it is of several blocks and has operations of moa.
    """
    if not is_one_block(function):
        return
    for op in list(function.walk()):
        if isinstance(op, ArrayOperation):
            refine(op)
    terminator = function.body.block.last_op
    if isinstance(terminator, ReturnOp):
        _refine_results(function, terminator)


def is_one_block(function: FuncOp) -> bool:
    """Whether a function is one block; one of several has to be another compiler's.

    Raises:
        CompileError: for several blocks with operations of moa.
    """
    count = len(function.body.blocks)
    if count > 1 and any(op.name.startswith("moa.") for op in function.walk()):
        raise CompileError(
            f"function @{function.sym_name.data}: expected one block, got {count}"
        )
    return count == 1


def functions_of(module: Operation) -> list[FuncOp]:
    """All functions with a body in a module, in order; there are none in functions."""
    found: list[FuncOp] = []
    pending = [module]
    while pending:
        op = pending.pop()
        if isinstance(op, FuncOp):
            if not op.is_declaration:
                found.append(op)
            continue
        inside = [
            o for region in op.regions for block in region.blocks for o in block.ops
        ]
        pending += [o for o in reversed(inside) if o.regions]
    return found


_DIALECTS = {"moa", "builtin", "func", "arith", "math", "scf", "cf"}


def operation_name(op: Operation) -> str:
    """The name of an operation, also of one that is not registered."""
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


def is_of_moa(op: Operation) -> bool:
    """Whether an operation is of the dialects that programs are written in."""
    return op.name.split(".")[0] in _DIALECTS and not isinstance(op, UnregisteredOp)


def programs_of(module: Operation) -> list[FuncOp]:
    """The functions of a module that are moa's to lower.

    Those with operations of other dialects or several blocks, and none of moa, are
    other compilers'.

    Raises:
        CompileError: for several blocks with operations of moa.
    """
    return [
        function
        for function in functions_of(module)
        if is_one_block(function)
        and (
            all(map(is_of_moa, function.walk()))
            or any(op.name.startswith("moa.") for op in function.walk())
        )
    ]


@dataclass(frozen=True)
class InferShapesPass(ModulePass):
    """Refines dynamic extents of results that the operands' types determine.

    `tensor<?x?xf64>` becomes `tensor<3x?xf64>` where the shape rule says so; function
    result types follow. Extents that contradict each other are errors of the verifier;
    what types do not decide is checked at run time (`moa.require`, by `moa-to-dnf`).
    """

    name = "moa-infer-shapes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            infer_shapes(function)
