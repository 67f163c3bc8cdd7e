"""moa-enclose-folds: folds at the top of a function as comprehensions without axes.

A fold that depends on no axis is outside of all comprehensions; what reads it would
compute it again for each of its elements if it ran side by side. As the one element of
an array it is computed once, and may be split (moa-split-cascades). Scalars that are
computed from it are computed where they are used.

A fold of arrays is the cell of such a comprehension, and so is the array that is
computed from it, if it is the only one: its accumulators then need no memory but the
result's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import is_side_effect_free
from xdsl.utils.hints import isa

from moa_dialect.ops.base import as_tensor
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    FoldOp,
    YieldOp,
)
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.share import captured
from moa_dialect.passes.split_cascades import number_of
from moa_dialect.passes.to_dnf import erase_dead
from moa_dialect.walking import operations

SHORT = 64
"""Folds of scalars over fewer indices are computed where they are used."""


def _is_computed_once(op: Operation) -> bool:
    """Whether an operation is a fold that is not to be repeated.

    It is over many indices, or nobody knows how many, it folds something for each of
    them, or its accumulators are arrays, which have no kernel but their own.
    """
    if not isinstance(op, FoldOp | CascadeOp):
        return False
    if any(isa(result.type, TensorType) for result in op.results):
        return True
    inside = (inner for inner in operations(op) if inner is not op)
    if any(isinstance(inner, FoldOp | CascadeOp) for inner in inside):
        return True
    lower, upper = number_of(op.lower), number_of(op.upper)
    return lower is None or upper is None or upper - lower >= SHORT


def enclose(function: FuncOp) -> bool:
    """Enclose the folds at the top of a function; returns whether any was."""
    if len(function.body.blocks) != 1:
        return False
    elements: set[Operation] = set()
    is_changed = False
    for op in list(function.body.block.ops):
        if not _is_computed_once(op):
            continue
        is_changed = True
        if (group := _with_only_user(op)) is not None:
            _enclose_together(group)
            continue
        using = [h for h in comprehensions(function) if _is_from(h, {op})]
        if len(using) == 1 and not using[0].extents:
            # There is such a comprehension already.
            _bring_inside(using[0], {op})
            continue
        block = Block()
        types = [_array_of(result) for result in op.results]
        array = ComprehensionOp([], Region(block), types)
        Rewriter.insert_op(array, InsertPoint.before(op))
        reads: list[AtOp] = []
        for result, found in zip(op.results, array.arrays, strict=True):
            if found.type == result.type:
                result.replace_all_uses_with(found)
                continue
            reads.append(AtOp(found, []))
            result.replace_all_uses_with(reads[-1].result)
        Rewriter.insert_op(reads, InsertPoint.before(op))
        op.detach()
        block.add_ops((op, YieldOp(*op.results)))
        elements |= set(reads)
    for host in comprehensions(function) if elements else ():
        _bring_inside(host, elements)
    if is_changed:
        erase_dead(function.body.block)
    return is_changed


def _with_only_user(op: Operation) -> list[Operation] | None:
    """A fold of arrays with all that is computed from it, if one array is in the end.

    Returns:
        The fold, operations on scalars and last the comprehension of that array, in the
        order of the block; None if there is no such array.
    """
    if not any(isa(result.type, TensorType) for result in op.results):
        return None
    found: dict[Operation, None] = {op: None}
    last: ComprehensionOp | None = None
    for user in _after(op):
        if not any(value.owner in found for value in captured(user)):
            continue
        if last is not None:
            return None
        if isinstance(user, ComprehensionOp):
            last = user
        elif is_side_effect_free(user) and not user.regions:
            found[user] = None
        else:
            return None
    return None if last is None else [*found, last]


def _after(op: Operation) -> list[Operation]:
    """The operations of a block after one."""
    found: list[Operation] = []
    while (following := (found[-1] if found else op).next_op) is not None:
        found.append(following)
    return found


def _enclose_together(group: Sequence[Operation]) -> None:
    """Make operations, of which the last is a comprehension, one without axes."""
    last = group[-1]
    assert isinstance(last, ComprehensionOp)
    block = Block()
    types = [array.type for array in last.arrays]
    whole = ComprehensionOp([], Region(block), types)
    Rewriter.insert_op(whole, InsertPoint.before(last))
    for old, new in zip(last.arrays, whole.arrays, strict=True):
        old.replace_all_uses_with(new)
    for op in group:
        op.detach()
    block.add_ops((*group, YieldOp(*last.arrays)))


def _array_of(result: SSAValue) -> TensorType[Attribute]:
    """The type of an array whose cell is a result: its own, or of no axes."""
    type_ = result.type
    return type_ if isa(type_, TensorType) else as_tensor([], type_)


def _is_from(op: Operation, sources: set[Operation]) -> bool:
    """Whether some operations are used by one, or for what it uses; not for arrays."""
    pending, seen = list(captured(op)), set[SSAValue]()
    while pending:
        value = pending.pop()
        owner = value.owner
        if value in seen or not isinstance(owner, Operation):
            continue
        seen.add(value)
        if owner in sources:
            return True
        if not isinstance(owner, ComprehensionOp) and is_side_effect_free(owner):
            pending += captured(owner)
    return False


def _bring_inside(host: ComprehensionOp, sources: set[Operation]) -> None:
    """Compute in a comprehension what it takes of what is computed from some values."""
    first = host.body.block.first_op
    assert first is not None
    builder = Builder(InsertPoint.before(first))
    copies: dict[SSAValue, SSAValue] = {}

    def inside(value: SSAValue) -> SSAValue:
        op = value.owner
        if not isinstance(op, Operation) or isinstance(op, ComprehensionOp):
            return value
        if op not in sources and not _is_from(op, sources):
            return value
        if value not in copies:
            known = {operand: inside(operand) for operand in captured(op)}
            copy = builder.insert(op.clone(known))
            copies.update(zip(op.results, copy.results, strict=True))
        return copies[value]

    used = captured(host)
    assert host.parent is not None
    results = [result for op in host.parent.ops for result in op.results]
    for value in results:
        if value not in used or value in host.operands:
            continue
        copy = inside(value)
        if copy is not value:
            value.replace_uses_with_if(copy, lambda use: _is_in(use.operation, host))


def _is_in(user: Operation, host: ComprehensionOp) -> bool:
    """Whether an operation is in a comprehension."""
    above = user.parent_op()
    while above is not None:
        if above is host:
            return True
        above = above.parent_op()
    return False


@dataclass(frozen=True)
class EncloseFoldsPass(ModulePass):
    """Makes folds at the top of functions comprehensions without axes.

    What is computed from their results alone, at the top of a function, is computed in
    the comprehensions that use it.
    """

    name = "moa-enclose-folds"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Enclose the folds of all functions."""
        for function in functions_of(op):
            enclose(function)
            record(function, self)
