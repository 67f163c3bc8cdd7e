"""Choices of which one side is evaluated, as values that may all be computed.

A catenation reads one array below an index and another from there on, and neither may
be read where the other one is. What is computed of the elements may be computed anyway.
So a choice becomes a `select` of both sides, in which each load is one that is made
only where its side is chosen (`Chosen`). Such a value may be evaluated early, ahead of
a loop, for many lanes at a time, or not be needed, as any other.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects import arith

from moa_dialect.ops.normal_form import AtOp, InBoundsOp
from moa_dialect.passes.kernels import Kernel, Pass, all_terms
from moa_dialect.passes.terms import Choice, Chosen, NotATerm, Term, Terms

_DIVISIONS = (
    *("arith.divsi", "arith.ceildivsi", "arith.floordivsi", "arith.remsi"),
    *("arith.divui", "arith.ceildivui", "arith.remui"),
)
"""Operations that must not be evaluated where the second operand is 0."""


def guard_choices(kernel: Kernel) -> None:
    """Replace all choices in what a kernel computes.

    Raises:
        NotATerm: if a side has what must not be evaluated where it is not chosen.
    """
    terms = kernel.terms
    for pass_ in kernel.passes:
        _guard_pass(terms, pass_)
    for output in kernel.outputs:
        output.value = guarded(terms, output.value)


def _guard_pass(terms: Terms, pass_: Pass) -> None:
    pass_.lower = guarded(terms, pass_.lower)
    pass_.upper = guarded(terms, pass_.upper)
    for accumulator in pass_.accumulators:
        accumulator.part = guarded(terms, accumulator.part)
        if accumulator.move is not None:
            accumulator.move = guarded(terms, accumulator.move)
    for pivot in pass_.pivots:
        pivot.start = guarded(terms, pivot.start)
        pivot.value = guarded(terms, pivot.value)


def guarded(terms: Terms, term: Term) -> Term:
    """A term without choices, of the same value.

    Raises:
        NotATerm: if a side has what must not be evaluated where it is not chosen.
    """

    def rule(term: Term) -> Term:
        if not isinstance(term.kind, Choice):
            return term
        condition, then, otherwise = term.args
        if reads_one(then) and reads_one(otherwise):
            sides = (_without_traps(terms, side) for side in (then, otherwise))
            return terms.chosen(condition, *sides)

        def if_so(load: Term) -> Term:
            return terms.chosen(condition, load, terms.nowhere(load.type))

        def if_not(load: Term) -> Term:
            return terms.chosen(condition, terms.nowhere(load.type), load)

        return terms.select(
            condition, _guard(terms, then, if_so), _guard(terms, otherwise, if_not)
        )

    return terms.rewrite(term, rule)


def _without_traps(terms: Terms, term: Term) -> Term:
    """An element whose index may be computed where it is not chosen.

    An extent that the index is divided by may be 0 there: 1 takes its place.

    Raises:
        NotATerm: if the index holds what must not be evaluated there.
    """

    def rule(term: Term) -> Term:
        if not _may_trap(term):
            return term
        dividend, divisor = term.args
        if not term.computes("arith.divui", "arith.remui"):
            raise NotATerm("a division on one side of a choice")
        one = terms.number(1, divisor.type)
        positive = terms.compute(arith.MaxSIOp, (divisor, one))
        return terms.remake(term, [dividend, positive])

    return terms.rewrite(term, rule)


def _guard(terms: Terms, term: Term, guard: Callable[[Term], Term]) -> Term:
    """A side of a choice whose loads are guarded."""
    done: dict[Term, Term] = {}

    def visit(term: Term) -> Term:
        if term not in done:
            done[term] = guard(remade(term)) if reads_one(term) else remade(term)
        return done[term]

    def remade(term: Term) -> Term:
        if term.computes(InBoundsOp.name):
            raise NotATerm("a check on one side of a choice")
        if _may_trap(term):
            raise NotATerm("a division on one side of a choice")
        if isinstance(term.kind, Chosen):  # What it chooses from is guarded with it.
            condition, *loads = term.args
            return terms.remake(term, [visit(condition), *map(remade, loads)])
        if term.is_fold:
            index, body = terms.open(term)
            lower, upper = map(visit, term.args[:2])
            return terms.fold(term.function, lower, upper, index, visit(body))
        return terms.remake(term, [visit(arg) for arg in term.args])

    return visit(term)


def _may_trap(term: Term) -> bool:
    """Whether a term divides integers, by what may be 0."""
    if not term.computes(*_DIVISIONS):
        return False
    divisor = term.args[1]
    is_positive = divisor.computes("arith.maxsi") and any(
        (arg.number or 0) > 0 for arg in divisor.args
    )
    return not (divisor.number or is_positive)


def divides(kernel: Kernel) -> bool:
    """Whether a kernel divides integers, by what may be 0."""
    return any(map(_may_trap, all_terms(kernel)))


def reads_one(term: Term) -> bool:
    """Whether a term is one element of an array, or of one of several."""
    return term.computes(AtOp.name) or isinstance(term.kind, Chosen)
