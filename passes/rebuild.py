"""Comprehensions of scalars read as terms, changed, and written again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from moa_dialect.ops.base import rank
from moa_dialect.ops.function import lookup_function
from moa_dialect.ops.normal_form import ComprehensionOp, YieldOp, body_of
from moa_dialect.passes.share import hoist, merge_equal
from moa_dialect.passes.simplify import Normalize
from moa_dialect.passes.terms import INDEX, NotATerm, Reader, Term, Terms, Writer

LONGEST_CHAIN = 200
"""Longer ones are left alone: terms are walked by recursion."""


@dataclass
class Body:
    """A comprehension of scalars as terms.

    Attributes:
        op: the comprehension.
        terms: where its terms are made.
        axes: the names of its axes' indices.
        extents: its extents.
        outputs: what it yields.
    """

    op: ComprehensionOp
    terms: Terms
    axes: list[str]
    extents: list[Term]
    outputs: list[Term]
    function: FuncOp = field(repr=False)

    def normalized(self) -> list[Term]:
        """The outputs in the normal form of real arithmetic."""
        normalize = Normalize(self.terms, lambda s: lookup_function(self.function, s))
        return [normalize(output) for output in self.outputs]


def read_body(op: ComprehensionOp, function: FuncOp) -> Body:
    """Read a comprehension.

    Raises:
        NotATerm: if it holds arrays or operations with effects.
    """
    if any(rank(array) != len(op.extents) for array in op.arrays):
        raise NotATerm("a comprehension of arrays")
    if longest_chain(op) > LONGEST_CHAIN:
        raise NotATerm(f"a chain of more than {LONGEST_CHAIN} operations")
    terms = Terms()
    reader = Reader(terms, function.body.block)
    block, terminator = body_of(op.body)
    axes = [f"#{number}" for number in range(len(block.args))]
    for arg, name in zip(block.args, axes, strict=True):
        reader.bind(arg, name)
    outputs = [reader.read(value) for value in terminator.values]
    extents = [terms.value(extent) for extent in op.extents]
    return Body(op, terms, axes, extents, outputs, function)


def longest_chain(op: ComprehensionOp) -> int:
    """How many operations of a body depend on each other, one after the other."""
    length: dict[SSAValue, int] = {}
    for inner in op.body.walk():
        longest = 1 + max((length.get(v, 0) for v in inner.operands), default=0)
        length.update(dict.fromkeys(inner.results, longest))
    return max(length.values(), default=0)


def write_body(body: Body) -> None:
    """Write a changed comprehension in place of the one that was read."""
    old = body.op.body.block
    block = Block(arg_types=[INDEX] * len(body.axes))
    top = Writer(body.terms, Builder(InsertPoint.before(body.op)))
    writer = top.within(block)
    for name, arg, was in zip(body.axes, block.args, old.args, strict=True):
        arg.name_hint = was.name_hint
        writer.known[body.terms.index(name)] = arg
    values = [writer.write(output) for output in body.outputs]
    writer.builder.insert(YieldOp(*values))
    types = [array.type for array in body.op.arrays]
    order = None if body.op.order is None else body.op.order.get_values()
    new = ComprehensionOp(body.op.extents, Region(block), types, order)
    Rewriter.replace_op(body.op, new)


def comprehensions(function: FuncOp) -> Sequence[ComprehensionOp]:
    """The comprehensions at the top of a function."""
    if len(function.body.blocks) != 1:
        return []
    block = function.body.block
    return [op for op in block.ops if isinstance(op, ComprehensionOp)]


def rebuild(function: FuncOp, change: Callable[[Body], bool]) -> None:
    """Write the comprehensions again whose terms a function changes."""
    changed = False
    for op in comprehensions(function):
        try:
            body = read_body(op, function)
        except NotATerm:
            continue
        if change(body):
            write_body(body)
            changed = True
    if changed:
        tidy(function)


def tidy(function: FuncOp) -> None:
    """Move values to where their indices are bound; no equal or unused ones."""
    from moa_dialect.passes.to_dnf import erase_dead

    block = function.body.block
    hoist(block)
    merge_equal(block)
    erase_dead(block)
