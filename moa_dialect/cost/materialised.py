"""A program as it would be run one array operation after another.

Each operation on arrays is a kernel of its own, whose result is an array in memory, as
in a library of array functions. What a cell function of an omega does is one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.arguments import array_type
from moa_dialect.cost.workload import Workload
from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.engine import find_entry
from moa_dialect.ops.structural import ConstantOp, ShapeOp
from moa_dialect.options import Options

ENTRY = "kernel"


def materialised(
    program: Compiled, tiled: bool = False, machine: str = "host"
) -> Workload:
    """A program's array operations as kernels, each result an array in memory.

    What follows from constants and extents alone is computed where it is used.

    Args:
        program: the program.
        tiled: whether each kernel is vector code with a schedule of its own; else it is
            loops over scalars, in the order of the operation's definition.
        machine: for which machine vector code is made, as for `moa-lift`.

    Raises:
        MoaError: for extents that are not known, or a program without operations.
    """
    module = program.module("moa")
    function = find_entry(module, None)
    workload, options = Workload(), Options(fuse=tiled)
    places: dict[SSAValue, int] = {}
    for argument in function.body.block.args:
        places[argument] = _laid_out(workload, argument, argument.name_hint or "")
    known: set[SSAValue] = set()
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            workload.results = [
                places[value] for value in op.operands if value in places
            ]
            break
        if isinstance(op, ConstantOp | ShapeOp) or (
            op.operands and all(operand in known for operand in op.operands)
        ):
            known.update(op.results)
            continue
        kernel, operands = _kernel(module, function, op, known)
        results = [
            _laid_out(workload, result, f"{op.name.removeprefix('moa.')}{len(places)}")
            for result in op.results
        ]
        compiled = Compiled(kernel, ENTRY, options=options)
        inputs = [places[operand] for operand in operands]
        workload.call(compiled, inputs, results, machine=machine)
        places.update(zip(op.results, results, strict=True))
    if not workload.calls:
        raise MoaError("expected a program with operations on arrays, got none")
    return workload


def _laid_out(workload: Workload, value: SSAValue, name: str) -> int:
    if not isa(value.type, TensorType):
        raise MoaError(f"expected arrays only, got {value.type}")
    dtype, shape = array_type(value.type)
    if any(extent < 0 for extent in shape):
        raise MoaError(f"expected extents that are known, got {value.type}")
    return workload.array(shape, dtype, name)


def _kernel(
    module: ModuleOp, function: FuncOp, op: Operation, known: set[SSAValue]
) -> tuple[ModuleOp, Sequence[SSAValue]]:
    """A program of one operation, and the arrays it is of."""
    order: dict[Operation, None] = {}

    def need(operation: Operation) -> None:
        for operand in operation.operands:
            if operand in known and isinstance(operand.owner, Operation):
                need(operand.owner)
        order[operation] = None

    need(op)
    operands = list(
        dict.fromkeys(
            operand
            for operation in order
            for operand in operation.operands
            if operand not in known
        )
    )
    types: list[Attribute] = [operand.type for operand in operands]
    block = Block(arg_types=types)
    mapping: dict[SSAValue, SSAValue] = {}
    for operand, argument in zip(operands, block.args, strict=True):
        mapping[operand] = argument
        name = operand.name_hint if isinstance(operand, BlockArgument) else None
        argument.name_hint = name
    copy = op
    for operation in order:
        copy = operation.clone(mapping)
        block.add_op(copy)
    block.add_op(ReturnOp(*copy.results))
    made = FuncOp(ENTRY, (types, [r.type for r in op.results]), Region(block))
    others = [
        other.clone()
        for other in module.ops
        if isinstance(other, FuncOp) and other is not function
    ]
    return ModuleOp([*others, made]), operands
