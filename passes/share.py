"""moa-share: equal sub-expressions once, where their free indices are bound.

Three steps, each keeping every value:

- comprehensions over the same axes become one with several results;
- a value that does not depend on the index of the region around it moves out of it
  (everything in a body is pure, so this is only a question of where, not of what);
- of two equal values, folds compared up to the names of their indices, the first
  stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import is_side_effect_free

from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    YieldOp,
)
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.types import shape_of
from moa_dialect.walking import operations

_DIVISIONS = (
    arith.DivSIOp,
    arith.DivUIOp,
    arith.RemSIOp,
    arith.RemUIOp,
    arith.FloorDivSIOp,
    arith.CeilDivSIOp,
    arith.CeilDivUIOp,
)


def captured(op: Operation) -> set[SSAValue]:
    """The values an operation uses, its regions included, that it does not define."""
    used: set[SSAValue] = set()
    inside = operations(op)
    for inner in inside:
        used.update(inner.operands)
    for inner in inside:
        used.difference_update(inner.results)
        for region in inner.regions:
            for block in region.blocks:
                used.difference_update(block.args)
    return used


def may_move(op: Operation) -> bool:
    """Whether an operation may be evaluated where it would not have been.

    A fold that reads memory may not: what it reads may have changed. Nor may a value of
    elements that are not there.
    """
    if isinstance(op, AtOp) and not all(index < n for index, n in _numbers(op)):
        return False
    return _is_pure(op) and has_elements(op)


def _is_pure(op: Operation) -> bool:
    """Whether an operation gives the same wherever it is evaluated."""
    return not isinstance(op, YieldOp) and not any(
        # xDSL does not know that the unsigned remainder has no effect.
        not (is_side_effect_free(inner) or isinstance(inner, arith.RemUIOp))
        or (isinstance(inner, _DIVISIONS) and not _is_positive(inner.operands[1]))
        for inner in operations(op)
    )


def has_elements(op: Operation) -> bool:
    """Whether the elements that an operation reads are there, as far as types tell.

    A loop over nothing may hold elements of an array that has none.
    """
    return not any(
        0 in shape_of(inner.array.type)
        or any(0 <= extent <= index for index, extent in _numbers(inner))
        for inner in operations(op)
        if isinstance(inner, AtOp)
    )


def _numbers(op: AtOp) -> list[tuple[int, int]]:
    """The numbers among the indices of an element, each with the extent of its axis."""
    return [
        (index.owner.value.value.data, extent)
        for index, extent in zip(op.indices, shape_of(op.array.type), strict=True)
        if isinstance(index.owner, arith.ConstantOp)
        and isinstance(index.owner.value, IntegerAttr)
    ]


def _is_positive(value: SSAValue) -> bool:
    """Whether a value is a number above 0: a division by it is never undefined."""
    match value.owner:
        case FixedExtentOp() as op:
            return op.static_value > 0
        case arith.ConstantOp(value=IntegerAttr() as number):
            return number.value.data > 0
        case _:
            return False


def hoist(block: Block) -> None:
    """Move values out of the regions whose indices they do not depend on."""
    for op in list(block.ops):
        for body in _blocks(op):
            hoist(body)
            if not isinstance(op, ComprehensionOp | FoldOp | CascadeOp):
                # What a branch evaluates must not be evaluated without it.
                continue
            # What a restriction leaves out does not exist: it must not be read.
            is_restricted = isinstance(op, FoldOp) and op.domain is not None
            inside: set[SSAValue] = set(body.args)
            for inner in list(body.ops):
                may_leave = not (is_restricted and _reads(inner))
                if may_leave and may_move(inner) and not captured(inner) & inside:
                    inner.detach()
                    block.insert_op_before(inner, op)
                else:
                    inside.update(inner.results)


def _reads(op: Operation) -> bool:
    """Whether an operation reads an array or checks an index, at any depth."""
    return any(isinstance(inner, AtOp | InBoundsOp) for inner in operations(op))


def _blocks(op: Operation) -> Iterator[Block]:
    """The blocks of all regions of an operation."""
    for region in op.regions:
        yield from region.blocks


class _Numbering:
    """Structural keys: equal for operations that are equal up to index names."""

    def __init__(self) -> None:
        self.local: dict[SSAValue, Hashable] = {}

    def key(self, op: Operation) -> Hashable:
        """The key of an operation whose local values are numbered already."""
        return (
            op.name,
            tuple(self.local.get(value, value) for value in op.operands),
            tuple(sorted(op.properties.items(), key=_first)),
            tuple(sorted(op.attributes.items(), key=_first)),
            tuple(value.type for value in op.results),
            tuple(self._region_key(region) for region in op.regions),
        )

    def _region_key(self, region: Region) -> Hashable:
        keys: list[Hashable] = []
        for block in region.blocks:
            for arg in block.args:
                self.local[arg] = len(self.local)
            keys.append(tuple(arg.type for arg in block.args))
            for op in block.ops:
                keys.append(self.key(op))
                for value in op.results:
                    self.local[value] = len(self.local)
        return tuple(keys)


def structural_key(op: Operation) -> Hashable:
    """A key that is equal for operations that are equal up to index names."""
    return _Numbering().key(op)


def _first(pair: tuple[str, object]) -> str:
    return pair[0]


def merge_equal(block: Block, known: dict[Hashable, Operation] | None = None) -> None:
    """Keep the first of equal values; values of enclosing blocks count as earlier."""
    known = dict(known or {})
    for op in list(block.ops):
        for body in _blocks(op):
            merge_equal(body, known)
        if not _is_pure(op) or not op.results:
            continue
        key = _Numbering().key(op)
        if (first := known.setdefault(key, op)) is not op:
            Rewriter.replace_op(op, [], first.results)


def merge_comprehensions(block: Block) -> None:
    """Comprehensions of one block over the same axes become one, at the last's place.

    Only those are merged that are results of the function and nothing else.
    """
    groups: dict[Hashable, list[ComprehensionOp]] = {}
    for op in block.ops:
        if isinstance(op, ComprehensionOp) and all(
            isinstance(use.operation, ReturnOp) for a in op.arrays for use in a.uses
        ):
            groups.setdefault((tuple(op.extents), op.order), []).append(op)
    for group in groups.values():
        if len(group) > 1:
            _merge(group)


def _merge(group: Sequence[ComprehensionOp]) -> None:
    first, last = group[0], group[-1]
    body = Block(arg_types=[arg.type for arg in first.body.block.args])
    yielded: list[SSAValue] = []
    for op in group:
        block = op.body.block
        for old, new in zip(block.args, body.args, strict=True):
            new.name_hint = new.name_hint or old.name_hint
            old.replace_all_uses_with(new)
        terminator = block.last_op
        assert isinstance(terminator, YieldOp)
        yielded.extend(terminator.operands)
        terminator.detach()
        terminator.erase()
        for inner in list(block.ops):
            inner.detach()
            body.add_op(inner)
    body.add_op(YieldOp(*yielded))
    order = None if first.order is None else first.order.get_values()
    types = [array.type for op in group for array in op.arrays]
    merged = ComprehensionOp(first.extents, Region(body), types, order)
    assert last.parent is not None
    Rewriter.insert_op(merged, InsertPoint.before(last))
    results = iter(merged.arrays)
    for op in group:
        for array in op.arrays:
            array.replace_all_uses_with(next(results))
        op.detach()
        op.erase()


def share(function: FuncOp) -> None:
    """Make the sharing in one function's comprehensions explicit."""
    if len(function.body.blocks) != 1:
        return
    block = function.body.block
    merge_comprehensions(block)
    hoist(block)
    merge_equal(block)


@dataclass(frozen=True)
class SharePass(ModulePass):
    """Shares equal sub-expressions and moves each to where its indices are bound.

    Comprehensions over the same axes are merged into one with several results first,
    so that their common parts are shared too. Folds are equal if they are equal up to
    the name of their index.
    """

    name = "moa-share"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            share(function)
            record(function, self)
