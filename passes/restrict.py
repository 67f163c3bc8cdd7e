"""moa-restrict-domains: conditions on indices become bounds of folds.

A condition c *restricts* a fold if its body is the identity element of the fold's
function wherever c does not hold: minus infinity under max, `exp(-inf)` or `0 x` under
add. Then the indices where c fails take no part: they are neither read nor weighed (the
body there counts as the identity, whatever infinities or NaN its other operands hold).
Where c compares the folded index with something that does not depend on it, the fold
runs between bounds, and the condition is gone; what no bounds express stays.

It is derived from the condition: causal and sliding-window masks, bands, prefixes,
blocks of documents are cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i1
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.rebuild import Body, rebuild
from moa_dialect.passes.simplify import assume, is_identity, predicate_of
from moa_dialect.passes.symbolic import is_truth
from moa_dialect.passes.terms import INDEX, Choice, Term, Terms, walk

_CASTS = ("arith.index_cast", "arith.extsi")
_FLIPPED = {"sge": "sle", "sle": "sge", "sgt": "slt", "slt": "sgt", "eq": "eq"}
_OPPOSITE = {"sge": "slt", "slt": "sge", "sgt": "sle", "sle": "sgt"}


@dataclass(frozen=True)
class Interval:
    """The indices at which a condition holds: `lower <= p < upper`, if it is exact.

    Otherwise it holds at none outside of these. None is no bound.
    """

    lower: Term | None = None
    upper: Term | None = None
    exact: bool = True


def _sum(terms: Terms, left: Term, right: Term) -> Term:
    if left.number is not None and right.number is not None:
        return terms.number(left.number + right.number, INDEX)
    if right.number == 0:
        return left
    return right if left.number == 0 else _indexed(terms, arith.AddiOp, left, right)


def _difference(terms: Terms, left: Term, right: Term) -> Term:
    if left.number is not None and right.number is not None:
        return terms.number(left.number - right.number, INDEX)
    return left if right.number == 0 else _indexed(terms, arith.SubiOp, left, right)


def _scaled(terms: Terms, left: Term, factor: int) -> Term:
    if left.number is not None:
        return terms.number(left.number * factor, INDEX)
    if factor == 1:
        return left
    return _indexed(terms, arith.MuliOp, left, terms.number(factor, INDEX))


def _indexed(terms: Terms, operation: type, *args: Term) -> Term:
    """Index arithmetic with the properties that operations have by default."""
    properties = {"overflowFlags": arith.IntegerOverflowAttr("none")}
    return terms.compute(operation, args, properties=properties)


def larger(terms: Terms, left: Term | None, right: Term | None) -> Term | None:
    """The larger of two bounds."""
    return _chosen(terms, arith.MaxSIOp, left, right)


def smaller(terms: Terms, left: Term | None, right: Term | None) -> Term | None:
    """The smaller of two bounds."""
    return _chosen(terms, arith.MinSIOp, left, right)


def _chosen(
    terms: Terms, operation: type, left: Term | None, right: Term | None
) -> Term | None:
    if left is None or right is None or left is right:
        return left or right
    if left.number is not None and right.number is not None:
        choose = max if operation is arith.MaxSIOp else min
        return terms.number(choose(left.number, right.number), INDEX)
    return terms.compute(operation, (left, right))


def linear(terms: Terms, term: Term, index: str) -> tuple[int, Term] | None:
    """A term of integers as `factor * index + rest`, None if it is not known as one."""
    if index not in term.free:
        rest = term
        if term.type != INDEX:
            if (number := term.number) is not None:
                rest = terms.number(number, INDEX)
            elif term.computes(*_CASTS) and term.args[0].type == INDEX:
                rest = term.args[0]
            else:
                rest = terms.compute(arith.IndexCastOp, (term,), INDEX)
        return 0, rest
    if term.kind == index:
        return 1, terms.number(0, INDEX)
    if term.computes(*_CASTS):
        return linear(terms, term.args[0], index)
    if term.computes("arith.addi", "arith.subi"):
        parts = [linear(terms, arg, index) for arg in term.args]
        if parts[0] is None or parts[1] is None:
            return None
        (a, left), (b, right) = parts[0], parts[1]
        if term.computes("arith.addi"):
            return a + b, _sum(terms, left, right)
        return a - b, _difference(terms, left, right)
    if term.computes("arith.muli"):
        for factor, other in (term.args, reversed(term.args)):
            if (
                factor.number is not None
                and (part := linear(terms, other, index)) is not None
            ):
                number = int(factor.number)
                return part[0] * number, _scaled(terms, part[1], number)
    return None


def interval(terms: Terms, condition: Term, index: str) -> Interval:
    """Where a condition may hold."""
    if condition.number is not None and condition.number:
        return Interval()
    if condition.computes("arith.andi") and is_truth(condition):
        a, b = (interval(terms, arg, index) for arg in condition.args)
        return Interval(
            larger(terms, a.lower, b.lower),
            smaller(terms, a.upper, b.upper),
            a.exact and b.exact,
        )
    if condition.computes("arith.ori") and is_truth(condition):
        a, b = (interval(terms, arg, index) for arg in condition.args)
        return _either(terms, a, b)
    if (opposite := negated(terms, condition)) is not None:
        return interval(terms, opposite, index)
    return _comparison(terms, condition, index)


def negated(terms: Terms, condition: Term) -> Term | None:
    """The condition that is written out for the negation of another, if it is one."""
    if not condition.computes("arith.xori") or not is_truth(condition):
        return None
    for constant, other in (condition.args, reversed(condition.args)):
        if constant.number:
            return opposite(terms, other)
    return None


def opposite(terms: Terms, condition: Term) -> Term | None:
    """The condition that holds where another does not."""
    if condition.computes("arith.andi", "arith.ori"):
        sides = [opposite(terms, arg) for arg in condition.args]
        if sides[0] is None or sides[1] is None:
            return None
        joined = arith.OrIOp if condition.computes("arith.andi") else arith.AndIOp
        return terms.compute(joined, (sides[0], sides[1]))
    if condition.computes("arith.xori"):
        for constant, other in (condition.args, reversed(condition.args)):
            if constant.number:
                return other
    if condition.computes("arith.cmpi"):
        predicate = _OPPOSITE.get(predicate_of(condition) or "")
        if predicate is not None:
            return comparison(terms, predicate, *condition.args)
    return None


def comparison(terms: Terms, predicate: str, left: Term, right: Term) -> Term:
    """A comparison of integers."""
    names = ("eq", "ne", "slt", "sle", "sgt", "sge")
    number = IntegerAttr(names.index(predicate), 64)
    return terms.compute(arith.CmpiOp, (left, right), i1, {"predicate": number})


def _either(terms: Terms, a: Interval, b: Interval) -> Interval:
    """Where one of two conditions holds, or an interval around that."""
    lower = None if a.lower is None or b.lower is None else a.lower
    upper = None if a.upper is None or b.upper is None else a.upper
    if lower is not None:
        lower = _chosen(terms, arith.MinSIOp, a.lower, b.lower)
    if upper is not None:
        upper = _chosen(terms, arith.MaxSIOp, a.upper, b.upper)
    only_upper = a.lower is None and b.lower is None
    only_lower = a.upper is None and b.upper is None
    exact = a.exact and b.exact and (only_upper != only_lower)
    return Interval(lower, upper, exact)


def _comparison(terms: Terms, condition: Term, index: str) -> Interval:
    """Where a comparison of the index with something else holds."""
    nothing = Interval(exact=False)
    predicate = predicate_of(condition)
    if not condition.computes("arith.cmpi") or predicate not in _FLIPPED:
        return nothing
    left, right = condition.args
    if index not in left.free:
        left, right, predicate = right, left, _FLIPPED[predicate]
    divisor = 1
    if left.computes("arith.divui", "arith.divsi", "arith.floordivsi"):
        # p / c against e, for p that is not negative: p against multiples of c.
        by = left.args[1].number
        if by is None or by < 1 or left.args[0].kind != index:
            return nothing
        left, divisor = left.args[0], int(by)
    parts = linear(terms, left, index), linear(terms, right, index)
    if parts[0] is None or parts[1] is None:
        return nothing
    factor = parts[0][0] - parts[1][0]
    if factor not in (1, -1) or (divisor > 1 and parts[1][0]):
        return nothing
    rest = _difference(terms, parts[1][1], parts[0][1])
    if factor == -1:
        zero = terms.number(0, INDEX)
        rest, predicate = _difference(terms, zero, rest), _FLIPPED[predicate]
    one = terms.number(1, INDEX)
    first = _scaled(terms, rest, divisor)
    after = _scaled(terms, _sum(terms, rest, one), divisor)
    match predicate:
        case "sge":
            return Interval(lower=first)
        case "sgt":
            return Interval(lower=after)
        case "slt":
            return Interval(upper=first)
        case "sle":
            return Interval(upper=after)
        case _:
            return Interval(first, after)


def conditions(body: Term, index: str) -> list[Term]:
    """The conditions on an index that choose values in a body, outermost first."""
    found: dict[Term, None] = {}
    for term in walk(body):
        if (
            isinstance(term.kind, Choice)
            or term.computes("arith.select")
            or (term.computes("arith.uitofp") and is_truth(term.args[0]))
        ):
            found[term.args[0]] = None
    return [c for c in reversed(found) if index in c.free]


def _exact_part(terms: Terms, condition: Term, index: str) -> Term:
    """What of a condition its interval does not express."""
    if condition.computes("arith.andi") and is_truth(condition):
        sides = [_exact_part(terms, arg, index) for arg in condition.args]
        kept = [side for side in sides if side.number is None]
        if len(kept) == 2:
            return terms.compute(arith.AndIOp, kept)
        return kept[0] if kept else sides[0]
    if interval(terms, condition, index).exact:
        return terms.number(1, condition.type)
    return condition


def restrict(terms: Terms, fold: Term) -> Term:
    """A fold between the bounds that its body's conditions give."""
    index, body = terms.open(fold)
    lower, upper = fold.args[:2]
    for condition in conditions(body, index):
        for holds in (True, False):
            if not is_identity(
                assume(terms, body, condition, not holds), fold.function
            ):
                continue
            inside = condition if holds else opposite(terms, condition)
            if inside is None:
                continue
            found = interval(terms, inside, index)
            if found == replace(Interval(), exact=found.exact):
                continue
            lower = larger(terms, lower, found.lower) or lower
            upper = smaller(terms, upper, found.upper) or upper
            rest = _exact_part(terms, inside, index)
            if rest.number is not None:
                body = _settled(terms, body, condition, holds)
            elif holds:
                body = terms.replace(body, {condition: rest})
            break
    return terms.fold(fold.function, lower, upper, index, body)


def _settled(terms: Terms, body: Term, condition: Term, holds: bool) -> Term:
    """A body in which a condition is decided, nothing else simplified."""

    def rule(term: Term) -> Term:
        if term is condition:
            return terms.number(int(holds), term.type)
        decides = isinstance(term.kind, Choice) or term.computes("arith.select")
        if decides and term.args[0].number is not None:
            return term.args[1] if term.args[0].number else term.args[2]
        return term

    return terms.rewrite(body, rule)


def restricted(
    terms: Terms, outputs: list[Term], explain: Callable[[str], None] | None = None
) -> list[Term]:
    """Terms with all folds restricted."""

    def rule(term: Term) -> Term:
        if not term.is_fold:
            return term
        new = restrict(terms, term)
        if explain is not None and new.args[:2] != term.args[:2]:
            explain(f"a fold of {term.function} runs between bounds of a condition")
        return new

    return [terms.rewrite(output, rule) for output in outputs]


def restrict_domains(function: FuncOp) -> None:
    """Restrict the folds of one function's comprehensions."""

    def change(body: Body) -> bool:
        normal = body.normalized()
        new = restricted(body.terms, normal)
        if new == normal:
            return False
        body.outputs = new
        return True

    rebuild(function, change)


@dataclass(frozen=True)
class RestrictDomainsPass(ModulePass):
    """Turns conditions on indices into bounds of folds.

    Where a condition does not hold, the element a fold would combine must be the
    identity element of its function; it then takes no part.
    """

    name = "moa-restrict-domains"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            restrict_domains(function)
            record(function, self)
