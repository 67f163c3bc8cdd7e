"""Comprehensions of comprehensions as one over all their axes."""

from __future__ import annotations

from xdsl.dialects import arith
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.hints import isa

from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    FoldOp,
    body_of,
)


def flattened(op: ComprehensionOp) -> ComprehensionOp:
    """A comprehension as one over the axes of its cells too, if it folds for each.

    It is if its cells are comprehensions that have folds of arrays or cascades, which
    then run for each index of all axes, and it computes nothing costly besides.

    Returns:
        The comprehension that takes its place; itself if there is nothing to flatten.
    """
    block, terminator = body_of(op.body)
    inner = terminator.values[0].owner
    if not isinstance(inner, ComprehensionOp) or inner.order is not None:
        return op
    if tuple(terminator.values) != tuple(inner.arrays):
        return op
    if not any(_runs_passes(other) for other in inner.body.block.ops):
        return op
    others = [o for o in block.ops if o is not inner and o is not terminator]
    if not all(isinstance(o, AtOp) or _is_cheap(o.name) for o in others):
        return op
    if any(_is_within(extent, block) for extent in inner.extents):
        return op
    _, last = body_of(inner.body)
    for arg in list(inner.body.block.args):
        new = block.insert_arg(arg.type, len(block.args))
        new.name_hint = arg.name_hint
        arg.replace_all_uses_with(new)
    terminator.detach()
    terminator.erase()
    for moved in list(inner.body.block.ops):
        moved.detach()
        block.add_op(moved)
    assert block.last_op is last
    inner_extents = list(inner.extents)
    inner.detach()
    inner.erase()
    region = Region(op.body.detach_block(block))
    order = None if op.order is None else op.order.get_values()
    types = [array.type for array in op.arrays]
    flat = ComprehensionOp([*op.extents, *inner_extents], region, types, order)
    flat.attributes |= op.attributes
    Rewriter.replace_op(op, flat)
    return flattened(flat)


def _runs_passes(op: Operation) -> bool:
    """Whether an operation is a cascade or a fold of arrays."""
    if isinstance(op, CascadeOp):
        return True
    return isinstance(op, FoldOp) and isa(op.result.type, TensorType)


def _is_within(value: SSAValue, block: Block) -> bool:
    """Whether a value is an argument of a block, or computed in it."""
    owner = value.owner
    return owner is block if isinstance(owner, Block) else owner.parent is block


def _is_cheap(name: str) -> bool:
    return name.startswith("arith.") and name != arith.DivfOp.name
