"""moa-sink: output axes move inside what does not depend on them.

In a comprehension over several axes every value of the body is evaluated for each
element. A value that costs something and depends on some of the axes only should be
evaluated once for those. Two steps bring that about, without storing it:

- *nest*: the comprehension is split into nested ones, in the order of axes that makes
  the least work, each value at the first level that binds its indices;
- *sink*: a fold whose body holds a costly value that depends on the folded index but
  not on the innermost axes takes those axes inside: instead of one fold for each index
  of the axes there is one fold of arrays over them. Its accumulators are an array over
  output axes, and can lie in the output itself.

Each fold still combines the same values in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import IndexType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from moa_dialect.ops.base import as_tensor, rank
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    FoldOp,
    YieldOp,
    body_of,
)
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.share import captured, has_elements
from moa_dialect.passes.work import (
    COSTLY,
    NOMINAL_EXTENT,
    extent_of,
    trip_count,
    weight,
)
from moa_dialect.types import element_of, shape_of
from moa_dialect.walking import operations

Axes = frozenset[int]

_MOST_PERMUTED_AXES = 6
"""Up to this rank all orders of the axes are compared."""


def dependences(block: Block, outer: dict[SSAValue, Axes]) -> dict[SSAValue, Axes]:
    """For each value defined in a block, the numbered axes it depends on.

    A value of elements that are not there depends on all: some axis has no index.
    """
    known = dict(outer)
    every = frozenset[int]().union(*outer.values())
    for op in block.ops:
        axes = frozenset[int]().union(*(known.get(v, Axes()) for v in captured(op)))
        if not has_elements(op):
            axes = every
        known.update((value, axes) for value in op.results)
    return known


@dataclass(frozen=True)
class _Term:
    """A part of the work: its weight, the axes it needs, whether it sits in a fold."""

    weight: int
    axes: Axes
    fold_axes: Axes | None = None

    def level(self, order: Sequence[int]) -> int:
        """How many leading axes of the order are bound where it is evaluated."""
        bound = _level(self.axes, order)
        if self.fold_axes is not None and _level(self.fold_axes, order) < len(order):
            # Only the fold of the innermost level takes axes inside.
            return _level(self.fold_axes, order)
        return bound


def _level(axes: Axes, order: Sequence[int]) -> int:
    return max((order.index(axis) + 1 for axis in axes), default=0)


def _terms(op: ComprehensionOp, nominal: bool) -> list[_Term]:
    """The costly parts of a comprehension's body."""
    block = op.body.block
    known = dependences(block, {a: Axes((n,)) for n, a in enumerate(block.args)})
    terms: list[_Term] = []
    for inner in block.ops:
        if not inner.results:
            continue
        axes = known[inner.results[0]]
        if isinstance(inner, FoldOp):
            within = dependences(inner.body.block, known)
            trips = trip_count(inner)
            terms.extend(
                _Term(trips * weight(part, nominal), within[part.results[0]], axes)
                for part in inner.body.block.ops
                if part.results and weight(part) >= COSTLY
            )
        if weight(inner) >= COSTLY:
            terms.append(_Term(weight(inner, nominal), axes))
    return terms


def _best_order(
    op: ComprehensionOp, terms: Sequence[_Term], nominal: bool
) -> tuple[int, ...]:
    """The order of the axes with the least work; the given one if none is better."""
    extents = [NOMINAL_EXTENT if nominal else extent_of(e) for e in op.extents]
    axes = tuple(range(len(extents)))
    if len(axes) > _MOST_PERMUTED_AXES:
        return axes

    def work(order: Sequence[int]) -> int:
        return sum(
            term.weight * prod(extents[axis] for axis in order[: term.level(order)])
            for term in terms
        )

    return min(permutations(axes), key=work)


def nest(op: ComprehensionOp, nominal: bool = False) -> ComprehensionOp:
    """Split a comprehension of scalars into nested ones; returns the innermost."""
    count = len(op.extents)
    terms = _terms(op, nominal)
    order = _best_order(op, terms, nominal)
    levels = {term.level(order) for term in terms}
    cuts = sorted(level for level in levels if 0 < level < count)
    if not cuts:
        return op
    bounds = [0, *cuts, count]
    block = op.body.block
    known = dependences(block, {a: Axes((n,)) for n, a in enumerate(block.args)})
    positions = op.positions(count)
    *inner_ops, terminator = block.ops
    current: ComprehensionOp | None = None
    innermost: ComprehensionOp | None = None
    yielded: Sequence[SSAValue] = terminator.operands
    groups = list(pairwise(bounds))
    placed = {
        inner: max(_level(known[inner.results[0]], order), 1) for inner in inner_ops
    }
    for start, stop in reversed(groups):
        axes = order[start:stop]
        body = Block(arg_types=[IndexType()] * len(axes))
        for axis, arg in zip(axes, body.args, strict=True):
            arg.name_hint = block.args[axis].name_hint
            block.args[axis].replace_all_uses_with(arg)
        for inner in inner_ops:
            if start < placed[inner] <= stop:
                inner.detach()
                body.add_op(inner)
        if current is not None:
            body.add_op(current)
        body.add_op(YieldOp(*yielded))
        types = [
            as_tensor(
                [
                    None if (e := shape_of(array.type)[positions[axis]]) < 0 else e
                    for axis in order[start:]
                ],
                element_of(array.type),
            )
            for array in op.arrays
        ]
        current = ComprehensionOp(
            [op.extents[axis] for axis in axes], Region(body), types
        )
        innermost = innermost or current
        yielded = current.arrays
    assert current is not None
    assert innermost is not None
    place = tuple(positions[axis] for axis in order)
    outer = ComprehensionOp(
        current.extents,
        current.detach_region(current.body),
        [array.type for array in op.arrays],
        None if place == tuple(range(count)) else place,
    )
    Rewriter.replace_op(op, outer)
    return innermost


def _slice(values: Sequence[SSAValue], block: Block) -> list[Operation]:
    """The operations of a block that these values need, in order."""
    needed: set[Operation] = set()
    pending = [value.owner for value in values]
    while pending:
        owner = pending.pop()
        if not isinstance(owner, Operation) or owner.parent is not block:
            continue
        if owner not in needed:
            needed.add(owner)
            pending.extend(value.owner for value in captured(owner))
    return [op for op in block.ops if op in needed]


def sink_into(inner: ComprehensionOp, fold: FoldOp) -> AtOp | None:
    """Let a fold of scalars in a comprehension fold arrays over its axes instead.

    Done, and what reads the fold's element returned, if the fold's body holds a costly
    value that none of the axes enters and the fold's domain does not depend on them.
    """
    block = inner.body.block
    all_axes: dict[SSAValue, Axes] = {arg: Axes((0,)) for arg in block.args}
    outside = dependences(block, all_axes)
    if not block.args or fold.initial is not None:
        return None
    if any(outside.get(v) for v in fold.operands):
        return None
    within = dependences(fold.body.block, outside)
    *body_ops, terminator = fold.body.block.ops
    dependent = [op for op in body_ops if within[op.results[0]]]
    independent = [op for op in body_ops if not within[op.results[0]]]
    if not any(weight(op) >= COSTLY for op in independent):
        return None
    used = captured(fold)
    if any(
        not outside[value] for op in block.ops for value in op.results if value in used
    ):
        return None  # It stands in front of the comprehension, this does not.
    entering = [value for value in used if outside.get(value)]
    needed = _slice(entering, block)
    if any(weight(op) >= COSTLY for op in needed):
        return None

    cell = Block(arg_types=[IndexType()] * len(block.args))
    mapper: dict[SSAValue, SSAValue] = {}
    for old, new in zip(block.args, cell.args, strict=True):
        new.name_hint = old.name_hint
        mapper[old] = new
    for op in needed:
        cell.add_op(op.clone(mapper))
    for op in dependent:
        cell.add_op(op.clone(mapper))
    (element,) = terminator.operands
    cell.add_op(YieldOp(mapper.get(element, element)))
    extents = shape_of(inner.arrays[0].type)
    type_ = as_tensor([None if e < 0 else e for e in extents], element.type)
    row = ComprehensionOp(inner.extents, Region(cell), [type_])

    body = Block(arg_types=[IndexType()])
    old_index = fold.body.block.args[0]
    body.args[0].name_hint = old_index.name_hint
    moved: dict[SSAValue, SSAValue] = {old_index: body.args[0]}
    for op in independent:
        body.add_op(op.clone(moved))
    body.add_op(row.clone(moved))
    assert body.last_op is not None
    body.add_op(YieldOp(*body.last_op.results))
    folded = FoldOp(
        fold.function,
        fold.lower,
        fold.upper,
        Region(body),
        type_,
        fold.domain,
        fold.domain_arguments,
    )
    Rewriter.insert_op(folded, InsertPoint.before(inner))
    at = AtOp(folded.result, block.args)
    Rewriter.replace_op(fold, at)
    return at


def forward(inner: ComprehensionOp) -> None:
    """A comprehension that only copies arrays is those arrays."""
    block, terminator = body_of(inner.body)
    sources: list[SSAValue] = []
    for value in terminator.values:
        at = value.owner
        if not (
            isinstance(at, AtOp)
            and tuple(at.indices) == tuple(block.args)
            and isinstance(at.array.owner, FoldOp)
            and rank(at.array) == len(block.args)
        ):
            return
        sources.append(at.array)
    if inner.order is None:
        Rewriter.replace_op(inner, [], sources)


def sink(op: ComprehensionOp, nominal: bool = False) -> None:
    """Nest one comprehension of scalars and sink its innermost axes into its folds.

    A fold is left as it is if its accumulators would be more than an array over one
    output axis at a time and cannot lie in the output. A comprehension with a cascade
    is nested already, its axes are where they should be.
    """
    if any(rank(array) != len(op.extents) for array in op.arrays):
        return
    if any(isinstance(inner, CascadeOp) for inner in operations(op)):
        return
    innermost = nest(op, nominal)
    is_row = len(innermost.extents) == 1 and isinstance(
        innermost.parent_op(), ComprehensionOp
    )
    free = [element_of(array.type) for array in innermost.arrays]
    block = innermost.body.block
    held: set[SSAValue] = set()
    for inner in list(block.ops):
        if not isinstance(inner, FoldOp):
            continue
        in_output = innermost.order is None and inner.result.type in free
        if not is_row and any(
            # The output holds an array for the comprehension, not for another fold.
            isinstance(op, AtOp) and op.array in held
            for op in _slice(list(captured(inner)), block)
        ):
            continue
        if (in_output or is_row) and (at := sink_into(innermost, inner)) and in_output:
            free.remove(at.result.type)
            held.add(at.array)
    forward(innermost)


def sink_axes(function: FuncOp, nominal: bool = False) -> None:
    """Nest and sink every comprehension of one function.

    With `nominal` the extents of its axes do not count.
    """
    for op in list(function.body.blocks[0].ops):
        if isinstance(op, ComprehensionOp):
            sink(op, nominal)


@dataclass(frozen=True)
class SinkPass(ModulePass):
    """Moves output axes inside the folds that do not depend on them.

    Comprehensions are nested so that a costly value is evaluated once for the axes it
    depends on, and folds take the innermost axes inside where their body evaluates
    something costly that these do not enter; see the module's text.

    With `deterministic` the order of axes does not depend on their extents.
    """

    name = "moa-sink"

    deterministic: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            sink_axes(function, self.deterministic)
            record(function, self)
