"""Rules of arithmetic on terms, as real numbers have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite

import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import (
    Float32Type,
    Float64Type,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    i1,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation
from xdsl.utils.hints import isa

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.ops.function import FunctionAttr
from moa_dialect.passes.symbolic import is_real, is_truth, real
from moa_dialect.passes.terms import (
    Choice,
    ChunkFold,
    Combination,
    Computed,
    Folded,
    Reader,
    Term,
    Terms,
    walk,
)
from moa_dialect.scalar_code import identity_of
from moa_dialect.types import dtype_of

_NO_FLAGS = {"fastmath": arith.FastMathFlagsAttr("none")}

_GREATER, _LESS = ("ogt", "oge", "ugt", "uge"), ("olt", "ole", "ult", "ule")
_FLOAT_PREDICATES = (
    *("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord"),
    *("ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true"),
)
_INTEGER_PREDICATES = (
    "eq",
    "ne",
    "slt",
    "sle",
    "sgt",
    "sge",
    "ult",
    "ule",
    "ugt",
    "uge",
)


def compare(terms: Terms, predicate: str, left: Term, right: Term) -> Term:
    """A comparison of floats."""
    number = _FLOAT_PREDICATES.index(predicate)
    properties = _NO_FLAGS | {"predicate": IntegerAttr(number, 64)}
    return terms.compute(arith.CmpfOp, (left, right), i1, properties)


def predicate_of(term: Term) -> str | None:
    """The predicate of a comparison."""
    if not term.computes("arith.cmpf", "arith.cmpi"):
        return None
    assert isinstance(term.kind, Computed)
    attribute = dict(term.kind.properties)["predicate"]
    assert isa(attribute, IntegerAttr)
    names = _FLOAT_PREDICATES if term.kind.name == "arith.cmpf" else _INTEGER_PREDICATES
    return names[attribute.value.data]


def factors(term: Term) -> tuple[list[Term], list[Term], bool]:
    """A product as factors above and below the line, and whether it is negated."""
    if term.computes("arith.mulf", "arith.divf"):
        a, b, negative = factors(term.args[0])
        c, d, other = factors(term.args[1])
        if term.computes("arith.divf"):
            c, d = d, c
        return a + c, b + d, negative != other
    if term.computes("arith.negf"):
        a, b, negative = factors(term.args[0])
        return a, b, not negative
    return [term], [], False


def product(terms: Terms, above: Sequence[Term], below: Sequence[Term]) -> Term:
    """The product of factors above the line by those below; there is at least one."""
    one = terms.number(1.0, (*above, *below)[0].type)
    result = chain(terms, arith.MulfOp, [f for f in above if f.number != 1]) or one
    if (divisor := chain(terms, arith.MulfOp, below)) is not None:
        result = real(terms, arith.DivfOp, result, divisor)
    return result


def chain(
    terms: Terms, operation: type[Operation], parts: Sequence[Term]
) -> Term | None:
    """An operation between all parts, None if there are none."""
    result: Term | None = None
    for part in parts:
        result = part if result is None else real(terms, operation, result, part)
    return result


def summands(term: Term) -> list[tuple[bool, Term]]:
    """A sum as terms and whether each is subtracted."""
    if term.computes("arith.addf", "arith.subf"):
        left, right = map(summands, term.args)
        flip = term.computes("arith.subf")
        return left + [(negative != flip, part) for negative, part in right]
    if term.computes("arith.negf"):
        return [(not negative, part) for negative, part in summands(term.args[0])]
    return [(False, term)]


def total(terms: Terms, parts: Sequence[tuple[bool, Term]]) -> Term:
    """The sum of terms, those marked subtracted; there is at least one."""
    added = chain(terms, arith.AddfOp, [p for negative, p in parts if not negative])
    for negative, part in parts:
        if negative:
            added = (
                real(terms, arith.NegfOp, part)
                if added is None
                else real(terms, arith.SubfOp, added, part)
            )
    assert added is not None
    return added


def is_scope_value(term: Term) -> bool:
    """Whether a term folds something and depends on no index of a fold around it."""
    return not any(name.startswith("$") for name in term.free) and any(
        inner.is_fold for inner in walk(term)
    )


class Normalize:
    """Brings different ways of writing one thing to one form, as for real numbers."""

    def __init__(self, terms: Terms, lookup: Callable[[SymbolRefAttr], FuncOp]):
        self.terms = terms
        self.lookup = lookup

    def __call__(self, term: Term) -> Term:
        """The normal form of a term."""
        return self.terms.rewrite(term, self.rule)

    def rule(self, term: Term) -> Term:
        """The rules for one term whose operands are in normal form."""
        if term.is_fold:
            return self._fold(self._named(term))
        if not isinstance(term.kind, Computed):
            return term
        match term.kind.name:
            case "arith.addf" | "arith.subf":
                return self._sum(term)
            case "arith.select":
                return self._select(term)
            case "math.exp":
                return self._exponential(term)
            case "math.log":
                return self._logarithm(term)
            case "arith.andi" | "arith.ori" | "arith.xori" if is_truth(term):
                return self._truth(term)
            case "arith.cmpf":
                return self._comparison(term)
            case _:
                return term

    def _truth(self, term: Term) -> Term:
        """Truth values with constants: `c and true = c`, `not not c = c`."""
        left, right = term.args
        if left.number is not None:
            left, right = right, left
        if right.number is None:
            return term
        is_true = bool(right.number)
        if not term.computes("arith.xori"):
            return left if is_true == term.computes("arith.andi") else right
        if not is_true:
            return left
        if left.computes("arith.xori"):
            for constant, other in (left.args, reversed(left.args)):
                if constant.number:
                    return other
        return term

    def _comparison(self, term: Term) -> Term:
        """A wider number compared with one that the narrow type has: the narrow ones.

        Extending keeps the order, and every number.
        """
        left, right = term.args
        wide, constant = (right, left) if left.number is not None else (left, right)
        number = constant.number
        if number is None or not wide.computes("arith.extf"):
            return term
        (narrow,) = wide.args
        if not _fits(number, narrow.type):
            return term
        other = self.terms.number(number, narrow.type)
        pair = (narrow, other) if wide is left else (other, narrow)
        assert isinstance(term.kind, Computed)
        return self.terms.compute(
            term.kind.operation, pair, term.type, dict(term.kind.properties)
        )

    def _fold(self, fold: Term) -> Term:
        """What of a fold's body is the same for every index, taken out.

        A sum of `(0 if c else e) x` is `0 if c else` that of `e x`, for c that does not
        depend on the index. And all x are -inf if and only if their maximum is, NaN and
        an empty range included.
        """
        terms, (lower, upper) = self.terms, fold.args[:2]
        assert isinstance(fold.kind, Folded)
        closed = fold.args[2]
        is_choice = any(f.computes("arith.select") for f in factors(closed)[0])
        if not (closed.computes("arith.cmpf") or is_choice):
            return fold
        index, body = terms.open(fold)
        if fold.function == StringAttr("and") and body.computes("arith.cmpf"):
            value, lowest = body.args
            if predicate_of(body) == "oeq" and lowest.number == -inf:
                maximum = terms.fold(StringAttr("max"), lower, upper, index, value)
                return compare(terms, "oeq", maximum, lowest)
        if fold.function != StringAttr("add") or not is_real(body):
            return fold
        above, below, negative = factors(body)
        for place, factor in enumerate(above):
            if not factor.computes("arith.select") or index in factor.args[0].free:
                continue
            condition, then, otherwise = factor.args
            if 0 not in (then.number, otherwise.number):
                continue
            kept = otherwise if then.number == 0 else then
            rest = product(terms, [*above[:place], kept, *above[place + 1 :]], below)
            if negative:
                rest = real(terms, arith.NegfOp, rest)
            total = self.rule(terms.fold(fold.function, lower, upper, index, rest))
            zero = terms.number(0.0, total.type)
            sides = (zero, total) if then.number == 0 else (total, zero)
            return terms.select(condition, *sides)
        return fold

    def _named(self, fold: Term) -> Term:
        """A fold by a function of the user that is one of the table's."""
        if not isinstance(fold.function, SymbolRefAttr):
            return fold
        function = self.lookup(fold.function)
        block, terms = function.body.block, self.terms
        reader = Reader(terms, block)
        last = block.last_op
        assert isinstance(last, ReturnOp)
        pair = [terms.value(arg) for arg in block.args]
        result = self(reader.read(last.operands[0]))
        for name, operation in _NAMED.items():
            if is_real(pair[0]) and result in (
                real(terms, operation, *pair),
                real(terms, operation, *reversed(pair)),
            ):
                assert isinstance(fold.kind, Folded)
                index, body = terms.open(fold)
                return terms.fold(
                    StringAttr(name), fold.args[0], fold.args[1], index, body
                )
        return fold

    def _sum(self, term: Term) -> Term:
        """`a + -b` is `a - b`; a mask of 0 and -inf that is added is a choice."""
        left, right = term.args
        terms, is_sum = self.terms, term.computes("arith.addf")
        if right.computes("arith.negf"):
            operation = arith.SubfOp if is_sum else arith.AddfOp
            return self.rule(real(terms, operation, left, right.args[0]))
        if is_sum and left.computes("arith.negf"):
            return self.rule(real(terms, arith.SubfOp, right, left.args[0]))
        for mask, other in (
            ((right, left), (left, right)) if is_sum else ((right, left),)
        ):
            if not mask.computes("arith.select"):
                continue
            condition, *sides = mask.args
            numbers = [s.number if is_sum else _negated(s.number) for s in sides]
            if sorted(map(_shown, numbers)) != ["-inf", "0.0"]:
                continue
            lowest = terms.number(-inf, term.type)
            chosen = [lowest if n == -inf else other for n in numbers]
            return self.rule(terms.select(condition, *chosen))
        return term

    def _select(self, term: Term) -> Term:
        """A choice of the larger of two values is their maximum."""
        condition, then, otherwise = term.args
        if then is otherwise:
            return then
        if condition.number is not None:
            return then if condition.number else otherwise
        if condition.computes("arith.cmpf") and {then, otherwise} == {*condition.args}:
            predicate = predicate_of(condition)
            first = then is condition.args[0]
            if predicate in _GREATER:
                operation = arith.MaximumfOp if first else arith.MinimumfOp
            elif predicate in _LESS:
                operation = arith.MinimumfOp if first else arith.MaximumfOp
            else:
                return term
            return real(self.terms, operation, *condition.args)
        return term

    def _exponential(self, term: Term) -> Term:
        """`exp(a - log y) = exp(a) / y`, for y that folds over the index."""
        parts = summands(term.args[0])
        logs = [
            part
            for part in parts
            if part[1].computes("math.log") and is_scope_value(part[1])
        ]
        rest = [part for part in parts if part not in logs]
        if not logs or not rest:
            return term
        return product(
            self.terms,
            [
                real(self.terms, math.ExpOp, total(self.terms, rest)),
                *(part.args[0] for negative, part in logs if not negative),
            ],
            [part.args[0] for negative, part in logs if negative],
        )

    def _logarithm(self, term: Term) -> Term:
        """`log(exp(a) / y) = a - log y`."""
        above, below, negative = factors(term.args[0])
        if negative or not any(f.computes("math.exp") for f in (*above, *below)):
            return term
        parts: list[tuple[bool, Term]] = []
        kept: tuple[list[Term], list[Term]] = [], []
        for side, found in enumerate((above, below)):
            for factor in found:
                if factor.computes("math.exp"):
                    parts.append((side == 1, factor.args[0]))
                elif factor.number != 1:
                    kept[side].append(factor)
        for side in (0, 1):
            if kept[side]:
                inside = product(self.terms, kept[side], ())
                parts.append((side == 1, real(self.terms, math.LogOp, inside)))
        return total(self.terms, parts)


def _fits(number: float, type_: Attribute) -> bool:
    """Whether a float type has a number."""
    if not isfinite(number) or number == 0:
        return number == number
    dtype = dtype_of(type_)
    return float(np.array(number, np.float64).astype(dtype)) == number


def with_one_factor(terms: Terms, term: Term) -> Term:
    """A value in which `(a x) / b` is `(a / b) x`, for numbers a and b, not in folds.

    So it is for real numbers. A product is rounded once then, and a division takes
    several times as long as a product.
    """
    done: dict[Term, Term] = {}

    def visit(term: Term) -> Term:
        if (
            not term.args
            or term.is_fold
            or not isinstance(term.kind, Computed | ChunkFold | Combination)
        ):
            return term
        if term not in done:
            found = terms.remake(term, [visit(arg) for arg in term.args])
            done[term] = _scaled(terms, found)
        return done[term]

    return visit(term)


def _scaled(terms: Terms, term: Term) -> Term:
    """A product with a number, or a quotient by one, whose other factor is none."""
    found = _factor(term)
    if found is None:
        return term
    value, number = found
    if (inner := _factor(value)) is not None:
        value, number = inner[0], inner[1] * number
    least, most = _SCALES.get(type(term.type), (inf, 0.0))
    if not least <= abs(number) <= most:
        return term
    return real(terms, arith.MulfOp, value, terms.number(number, term.type))


def _factor(term: Term) -> tuple[Term, float] | None:
    """What a term is the product of, if one factor is a number; None if it is not."""
    if not term.computes("arith.mulf", "arith.divf"):
        return None
    left, right = term.args
    if term.computes("arith.divf"):
        return (left, 1 / right.number) if right.number else None
    if right.number is not None:
        return left, right.number
    return None if left.number is None else (right, left.number)


_SCALES: dict[type[Attribute], tuple[float, float]] = {
    Float32Type: (2.0**-100, 2.0**100),
    Float64Type: (2.0**-1000, 2.0**1000),
}
"""The numbers by which a value is multiplied that no product of numbers may leave."""


_NAMED: dict[str, type[Operation]] = {
    "max": arith.MaximumfOp,
    "min": arith.MinimumfOp,
    "add": arith.AddfOp,
    "mul": arith.MulfOp,
}


def _negated(number: float | None) -> float | None:
    return None if number is None else -number


def _shown(number: float | None) -> str:
    return "0.0" if number == 0 else str(number)


def is_identity(term: Term, function: FunctionAttr) -> bool:
    """Whether a term is the number that is a function's identity element."""
    number = term.number
    if number is None or isinstance(function, SymbolRefAttr):
        return False
    if SCALAR_OPERATIONS[function.data].identity is None:
        return False
    if is_truth(term):
        return bool(number) == bool(identity_of(function, term.type))
    return number == identity_of(function, term.type)


def assume(terms: Terms, term: Term, condition: Term, holds: bool) -> Term:
    """A term where a condition is known, simplified as if all values were finite.

    That is right for values that are left out where the condition does not hold: such
    an element is neither read nor weighed.
    """

    def rule(term: Term) -> Term:
        if term is condition:
            return terms.number(int(holds), term.type)
        return _absorb(terms, term)

    return terms.rewrite(term, rule)


def absorbed(terms: Terms, term: Term) -> Term:
    """A term with what constants decide, as if all other values were finite."""
    return terms.rewrite(term, lambda part: _absorb(terms, part))


def _absorb(terms: Terms, term: Term) -> Term:
    """Constants that decide the result of an operation, or leave its operand alone."""
    if isinstance(term.kind, Choice):
        condition, then, otherwise = term.args
        if condition.number is None:
            return term
        return then if condition.number else otherwise
    if not isinstance(term.kind, Computed):
        return term
    numbers = [arg.number for arg in term.args]

    def known(value: float) -> Term:
        return terms.number(value, term.type)

    match term.kind.name, numbers:
        case "arith.select", [number, _, _] if number is not None:
            return term.args[1] if number else term.args[2]
        case "arith.select", _ if term.args[1] is term.args[2]:
            return term.args[1]
        case "arith.mulf", _ if 0 in numbers:
            return known(0.0)
        case "arith.mulf", [a, b] if -inf in numbers:
            other = b if a == -inf else a
            return known(-inf) if other is not None and other > 0 else term
        case "arith.divf", [0, _]:
            return known(0.0)
        case "arith.addf", _ if -inf in numbers and inf not in numbers:
            return known(-inf)
        case "arith.addf", _ if inf in numbers and -inf not in numbers:
            return known(inf)
        case "arith.addf", [0, _]:
            return term.args[1]
        case (("arith.addf" | "arith.subf"), [_, 0]):
            return term.args[0]
        case "arith.subf", [a, b] if a in (inf, -inf) and b != a:
            assert a is not None
            return known(a)
        case "arith.subf", [a, b] if b in (inf, -inf) and a != b:
            assert b is not None
            return known(-b)
        case "arith.negf", [a] if a is not None:
            return known(-a)
        case (("math.exp" | "math.exp2"), [a]) if a == -inf:
            return known(0.0)
        case (("arith.extf" | "arith.truncf"), [a]) if a is not None and (
            a == 0 or not isfinite(a)
        ):
            return known(a)
        case (("arith.uitofp" | "arith.sitofp"), [0]):
            return known(0.0)
        case "arith.maximumf", _ if -inf in numbers:
            return term.args[1 if numbers[0] == -inf else 0]
        case "arith.minimumf", _ if inf in numbers:
            return term.args[1 if numbers[0] == inf else 0]
        case "arith.andi", [a, b] if is_truth(term) and None in numbers and a != b:
            known_, other = (a, term.args[1]) if a is not None else (b, term.args[0])
            return other if known_ else terms.number(0, term.type)
        case "arith.ori", [a, b] if is_truth(term) and None in numbers and a != b:
            known_, other = (a, term.args[1]) if a is not None else (b, term.args[0])
            return terms.number(1, term.type) if known_ else other
        case "arith.xori", [a, b] if is_truth(term) and a is not None and b is not None:
            return terms.number(int(bool(a) != bool(b)), term.type)
        case _:
            return term
