"""moa-split-loops: a choice by a loop's index becomes two loops without the choice.

A catenation reads one array below an index and another from there on. In a loop over
that index the question need not be asked each time: the loop is split at the index,
unless the bounds of the loop answer it for all indices.
This is the domain split of the Psi Compiler (Mullin and Thibault 1994), which turns a
catenation into two judgements over disjoint parts of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, ModuleOp, i1
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.ops.function import has_identity
from moa_dialect.ops.normal_form import FixedExtentOp, FoldOp
from moa_dialect.ops.operational import LoopOp
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_dnf import erase_dead
from moa_dialect.passes.to_onf import PARALLEL
from moa_dialect.scalar_code import constant
from moa_dialect.walking import operations

Sum: TypeAlias = Polynomial[SSAValue]
"""A number as a sum of values, by which bounds are compared."""


def _sum(value: SSAValue) -> Sum:
    """A value as the sum that it is computed as."""
    match value.owner:
        case arith.ConstantOp(value=IntegerAttr() as number):
            return Sum.constant(number.value.data)
        case FixedExtentOp() as op:
            return Sum.constant(op.static_value)
        case arith.AddiOp() as op:
            return _sum(op.lhs) + _sum(op.rhs)
        case arith.SubiOp() as op:
            return _sum(op.lhs) - _sum(op.rhs)
        case _:
            return Sum.atom(value)


@dataclass(frozen=True)
class Range:
    """What is known of a loop's index: `low <= index` for all lows, `index < high`."""

    lows: tuple[Sum, ...]
    highs: tuple[Sum, ...]

    @staticmethod
    def of(loop: LoopOp | FoldOp) -> Range:
        """What a loop's bounds say."""
        if isinstance(loop, FoldOp):
            return Range((_sum(loop.lower),), (_sum(loop.upper),))
        start, stop, one = _sum(loop.start), _sum(loop.stop), Sum.constant(1)
        if loop.stride_value > 0:
            return Range((start,), (stop,))
        return Range((stop + one,), (start + one,))

    def is_below(self, bound: Sum) -> bool | None:
        """Whether every index is below a bound; None if that is not known of all."""
        for high in self.highs:
            number = (bound - high).number
            if number is not None and number >= 0:
                return True
        for low in self.lows:
            number = (low - bound).number
            if number is not None and number >= 0:
                return False
        return None

    def below(self, bound: Sum) -> Range:
        """The indices of the range that are below a bound."""
        return Range(self.lows, (*self.highs, bound))

    def from_(self, bound: Sum) -> Range:
        """The indices of the range from a bound on."""
        return Range((*self.lows, bound), self.highs)


@dataclass(frozen=True)
class Choice:
    """A comparison of a loop's index with a bound that the loop does not change.

    It holds exactly if `index < bound`, or if `index >= bound` when it is reversed.
    """

    comparison: arith.CmpiOp
    terms: tuple[tuple[int, SSAValue], ...]
    constant: int
    is_reversed: bool

    def bound(self, builder: Builder) -> SSAValue:
        """Emit the bound: the sum of the terms and the constant."""
        total: SSAValue = builder.insert(constant(self.constant, IndexType())).result
        for sign, value in self.terms:
            combine = arith.AddiOp if sign > 0 else arith.SubiOp
            total = builder.insert(combine(total, value)).result
        return total

    @property
    def sum(self) -> Sum:
        """The bound, to be compared with others."""
        total = Sum.constant(self.constant)
        for sign, value in self.terms:
            total = total + _sum(value) if sign > 0 else total - _sum(value)
        return total

    def holds(self, is_below: bool) -> bool:
        """Whether the comparison holds for indices below the bound, or from it on."""
        return is_below is not self.is_reversed


def _is_outside(value: SSAValue, loop: Operation) -> bool:
    """Whether a value is there before the loop starts."""
    owner = value.owner
    op = owner.parent_op() if isinstance(owner, Block) else owner
    while op is not None and op is not loop:
        op = op.parent_op()
    return op is None


def _linear(
    value: SSAValue, loop: Operation, index: SSAValue
) -> tuple[int, list[tuple[int, SSAValue]]] | None:
    """A value as `c * index + terms`, with terms from outside the loop."""
    if value is index:
        return 1, []
    if _is_outside(value, loop):
        return 0, [(1, value)]
    if not isinstance(value.owner, arith.AddiOp | arith.SubiOp):
        return None
    left = _linear(value.owner.lhs, loop, index)
    right = _linear(value.owner.rhs, loop, index)
    if left is None or right is None:
        return None
    sign = 1 if isinstance(value.owner, arith.AddiOp) else -1
    return left[0] + sign * right[0], [
        *left[1],
        *((sign * s, term) for s, term in right[1]),
    ]


_LESS_THAN = 2
"""The number of the predicate `slt` of arith.cmpi."""


def find_choices(loop: LoopOp | FoldOp) -> Iterator[Choice]:
    """The comparisons in a loop that splitting the loop decides."""
    index = loop.body.block.args[0]
    for op in operations(loop):
        if not isinstance(op, arith.CmpiOp) or not isinstance(op.lhs.type, IndexType):
            continue
        if op.predicate.value.data != _LESS_THAN:
            continue
        left, right = _linear(op.lhs, loop, index), _linear(op.rhs, loop, index)
        if left is None or right is None:
            continue
        # left < right  <=>  coefficient * index < terms of right - terms of left
        coefficient = left[0] - right[0]
        terms = [*right[1], *((-sign, term) for sign, term in left[1])]
        if coefficient == 1:
            yield Choice(op, tuple(terms), 0, is_reversed=False)
        if coefficient == -1:
            # -index < t  <=>  index >= -t + 1
            flipped = tuple((-sign, term) for sign, term in terms)
            yield Choice(op, flipped, 1, is_reversed=True)


def _open_choice(loop: LoopOp | FoldOp, range_: Range) -> Choice | None:
    """Settle what the range of a loop's index decides; the first choice that is left.

    So a choice is made once, however many accesses it is a choice for, and no loop is
    split where nothing is on the other side, as for the neighbours in a stencil.
    """
    while True:
        for choice in find_choices(loop):
            is_below = range_.is_below(choice.sum)
            if is_below is not None:
                _settle(loop, choice.comparison, choice.holds(is_below))
                break
        else:
            return next(find_choices(loop), None)


def _settle(loop: LoopOp | FoldOp, comparison: Operation, holds: bool) -> None:
    known = arith.ConstantOp(IntegerAttr(int(holds), i1))
    Rewriter.replace_op(comparison, known)
    simplify(loop)


def _clamped(value: SSAValue, low: SSAValue, high: SSAValue, b: Builder) -> SSAValue:
    """The value, or the nearer end of an interval it is not in; low if it is empty."""
    below = b.insert(arith.MinSIOp(value, high)).result
    return b.insert(arith.MaxSIOp(below, low)).result


def _decided(loop: LoopOp | FoldOp, choice: Choice, holds: bool) -> LoopOp | FoldOp:
    """A copy of the loop in which the comparison is known."""
    position = operations(loop).index(choice.comparison)
    copy = loop.clone()
    _settle(copy, operations(copy)[position], holds)
    return copy


def simplify(loop: Operation) -> None:
    """Follow the branches whose condition is a constant."""
    for op in operations(loop):
        if not isinstance(op, scf.IfOp | arith.SelectOp) or op.parent is None:
            continue  # Without a parent, it was in a branch that was not taken.
        condition = op.cond.owner
        if not isinstance(condition, arith.ConstantOp):
            continue
        value = condition.value
        assert isa(value, IntegerAttr)
        holds = value.value.data != 0
        if isinstance(op, arith.SelectOp):
            Rewriter.replace_op(op, [], [op.lhs if holds else op.rhs])
            continue
        taken = op.true_region.block if holds else op.false_region.block
        terminator = taken.last_op
        assert terminator is not None
        results = list(terminator.operands)
        for inner in list(taken.ops):
            if inner is not terminator:
                inner.detach()
                Rewriter.insert_op(inner, InsertPoint.before(op))
        Rewriter.replace_op(op, [], results)
    for region in loop.regions:
        erase_dead(region.block)


def _split_loop(loop: LoopOp, choice: Choice) -> tuple[LoopOp, LoopOp]:
    b = Builder(InsertPoint.before(loop))
    is_up = loop.stride_value > 0
    bound = choice.bound(b)
    if is_up:
        middle = _clamped(bound, loop.start, loop.stop, b)
    else:
        # Counting down the indices from the bound on come first.
        one = b.insert(constant(1, IndexType())).result
        last_below = b.insert(arith.SubiOp(bound, one)).result
        middle = _clamped(last_below, loop.stop, loop.start, b)
    first = _decided(loop, choice, choice.holds(is_up))
    second = _decided(loop, choice, choice.holds(not is_up))
    assert isinstance(first, LoopOp)
    assert isinstance(second, LoopOp)
    first.operands[1] = middle
    second.operands[0] = middle
    for position, value in enumerate(first.carried, 2):
        second.operands[position] = value
    Rewriter.replace_op(loop, [first, second], second.carried)
    return first, second


def _split_fold(fold: FoldOp, choice: Choice) -> tuple[FoldOp, FoldOp]:
    b = Builder(InsertPoint.before(fold))
    middle = _clamped(choice.bound(b), fold.lower, fold.upper, b)
    upper = _decided(fold, choice, choice.holds(False))
    lower = _decided(fold, choice, choice.holds(True))
    assert isinstance(upper, FoldOp)
    assert isinstance(lower, FoldOp)
    upper.operands[0] = middle
    b.insert(upper)
    seeded = FoldOp(
        lower.function,
        lower.lower,
        middle,
        lower.detach_region(lower.body),
        lower.result.type,
        lower.domain,
        lower.domain_arguments,
        upper.result,
    )
    lower.erase()
    Rewriter.replace_op(fold, seeded)
    return upper, seeded


def _is_splittable(op: Operation) -> bool:
    if isinstance(op, LoopOp):
        # Where all iterations run at once, a choice costs less than a second loop.
        return PARALLEL not in op.attributes and abs(op.stride_value) == 1
    # The part with the last indices may be empty: it needs something to give then.
    return isinstance(op, FoldOp) and (
        has_identity(op.function) or op.initial is not None
    )


def _loops(block: Block) -> Iterator[Operation]:
    """The loops and folds of a block and below, outermost first."""
    for op in list(block.ops):
        if isinstance(op, LoopOp | FoldOp):
            yield op
        elif op.regions:
            for region in op.regions:
                for inner in region.blocks:
                    yield from _loops(inner)


def split_loops(block: Block, pieces: int) -> None:
    """Split the loops of a block into at most so many pieces each."""
    for outer in list(_loops(block)):
        assert isinstance(outer, LoopOp | FoldOp)
        pending = [(outer, Range.of(outer))]
        left = pieces - 1
        while pending:
            loop, range_ = pending.pop()
            has_range = not isinstance(loop, LoopOp) or abs(loop.stride_value) == 1
            choice = _open_choice(loop, range_) if has_range else None
            if choice is None or not left or not _is_splittable(loop):
                split_loops(loop.body.block, pieces)
                continue
            left -= 1
            below, after = range_.below(choice.sum), range_.from_(choice.sum)
            if isinstance(loop, LoopOp):
                two = _split_loop(loop, choice)
                ranges = (below, after) if loop.stride_value > 0 else (after, below)
            else:
                two, ranges = _split_fold(loop, choice), (after, below)
            pending.extend(zip(two, ranges, strict=True))


def split_function(function: FuncOp, pieces: int) -> None:
    """Split the loops of one function."""
    for block in function.body.blocks:
        split_loops(block, pieces)


@dataclass(frozen=True)
class SplitLoopsPass(ModulePass):
    """Splits loops and folds at the indices where a choice in their body changes.

    Each value is computed as before, in the same order; the branch is gone. `pieces`
    bounds how many loops one loop may become. A choice that the bounds of a loop settle
    for all its indices, compared as sums, is made without a split. Loops marked
    `moa.parallel` are not split.
    """

    name = "moa-split-loops"

    pieces: int = 8

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            split_function(function, self.pieces)
            record(function, self)
