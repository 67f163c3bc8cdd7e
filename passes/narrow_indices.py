"""Index arithmetic in vectors, in as few bits as its range needs.

Indices are 64 bits wide, and so would be each lane of `|i - j|` or `(i - j) mod 4`. But
types and bounds say from where to where an index goes, and with it what is computed of
it. What fits 32 bits is computed in 32, so that a vector has twice as many, and what is
converted to a float is computed of floats where all on the way are integers that these
have: then neither rounds. A choice that ranges decide is not made: `|i - j|` is `i - j`
under a causal mask, and `x div 4` needs no step for x below 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import (
    Float32Type,
    Float64Type,
    IndexType,
    IntegerType,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue

from moa_dialect.ops.normal_form import AtOp, InBoundsOp
from moa_dialect.passes.kernels import Kernel, Pass, static_extent
from moa_dialect.passes.simplify import compare, predicate_of
from moa_dialect.passes.symbolic import is_truth, real
from moa_dialect.passes.terms import Chosen, Computed, Held, Term, Terms

Interval: TypeAlias = tuple[float, float]
"""The least and the largest an integer may be; infinite where nothing is known."""

ANYTHING: Interval = (-inf, inf)

Linear: TypeAlias = tuple[dict[Term, int], int]
"""How often each term occurs in a sum, and the number that is added."""

_WIDE = ("arith.index_cast", "arith.extsi")
"""Operations that keep an integer where the result is not narrower."""

_NARROW: tuple[str, ...] = (
    "arith.addi",
    "arith.subi",
    "arith.muli",
    "arith.maxsi",
    "arith.minsi",
    "arith.divsi",
    "arith.remsi",
)
"""Operations whose result depends on the numbers alone, if all fit, not on the bits."""


def _is_wide(type_: Attribute) -> bool:
    """Whether a type is that of indices, or of integers as wide."""
    return isinstance(type_, IndexType) or type_ == i64


@dataclass
class Narrowing:
    """Makes index arithmetic in lanes narrow, in the terms of a kernel.

    Attributes:
        terms: where terms are made.
        lane: the axis in the lanes. What does not depend on it is a scalar, and what
            depends on nothing else is computed once for all.
        ranges: for the name of an index from where to where it goes.
        below: for an index terms that are more than it.
        above: for an index terms that are not more than it.
    """

    terms: Terms
    lane: str
    ranges: Mapping[str, Interval]
    below: Mapping[str, Sequence[Term]] = field(
        default_factory=dict[str, Sequence[Term]]
    )
    above: Mapping[str, Sequence[Term]] = field(
        default_factory=dict[str, Sequence[Term]]
    )
    _intervals: dict[Term, Interval] = field(default_factory=dict[Term, Interval])
    _done: dict[Term, Term] = field(default_factory=dict[Term, Term])
    _wholes: dict[Term, Term] = field(default_factory=dict[Term, Term])

    def __call__(self, term: Term) -> Term:
        """A term with the same value for all indices that there are."""
        if term not in self._done:
            self._done[term] = self._rewritten(term)
        return self._done[term]

    def _rewritten(self, term: Term) -> Term:
        if not term.args or isinstance(term.kind, Held | Chosen):
            return term
        if term.computes(AtOp.name, InBoundsOp.name) or _is_wide(term.type):
            return term
        is_mine = isinstance(term.kind, Computed) and self.lane in term.free
        if is_mine and term.computes("arith.sitofp") and _is_wide(term.args[0].type):
            return self._converted(term)
        if is_mine and term.computes("arith.cmpi") and _is_wide(term.args[0].type):
            return self._compared(term)
        found = self.terms.remake(term, [self(arg) for arg in term.args])
        return self._settled(found)

    # Ranges.

    def interval(self, term: Term) -> Interval:
        """From where to where an integer goes."""
        if term not in self._intervals:
            least, most = self._interval(term)
            is_kept = least >= -(2**63) and most < 2**63
            if isinstance(term.kind, str):
                is_kept = True  # An index is counted, not computed.
            self._intervals[term] = (least, most) if is_kept else ANYTHING
        return self._intervals[term]

    def _interval(self, term: Term) -> Interval:
        kind = term.kind
        if term.number is not None:
            return term.number, term.number
        if isinstance(kind, str):
            return self.ranges.get(kind, ANYTHING)
        if isinstance(kind, SSAValue):
            size = static_extent(kind) if isinstance(term.type, IndexType) else None
            return ANYTHING if size is None else (size, size)
        if not isinstance(kind, Computed):
            return ANYTHING
        if kind.name in _WIDE and _is_integer(term.args[0].type):
            is_whole = not is_truth(term.args[0])
            return self.interval(term.args[0]) if is_whole else ANYTHING
        if kind.name == "arith.select":
            (a, b), (c, d) = (self.interval(arg) for arg in term.args[1:])
            return min(a, c), max(b, d)
        if kind.name not in _INTERVALS or len(term.args) != 2:
            return ANYTHING
        one, other = (self.interval(arg) for arg in term.args)
        if kind.name in ("arith.maxsi", "arith.minsi"):
            return _INTERVALS[kind.name](one, other)
        if inf in (one[1], other[1], -one[0], -other[0]):
            return ANYTHING  # It might wrap around.
        return _INTERVALS[kind.name](one, other)

    def _fits(self, term: Term, limit: int) -> bool:
        """Whether an integer is from -limit to limit - 1."""
        least, most = self.interval(term)
        return -limit <= least and most < limit

    def least_difference(self, one: Term, other: Term) -> float:
        """What the difference of two integers is at least, in all that is counted."""
        sides = [_linear(term) for term in (one, other)]
        if not all(map(self._is_computed, sides)):
            return -inf
        difference = _added(sides[0], sides[1], -1)
        found = [self._least(difference)]
        for name, bounds, sign in self._bounds():
            index = self.terms.index(name)
            times = difference[0].get(index, 0)
            if times * sign <= 0:
                continue
            for bound in bounds:
                # At least the bound; or at most one less than that.
                place = _added(_linear(bound), ({}, 0 if sign > 0 else -1), 1)
                rest = _added(difference, ({index: 1}, 0), -times)
                found.append(self._least(_added(rest, place, times)))
        return max(found)

    def _bounds(self) -> Iterator[tuple[str, Sequence[Term], int]]:
        for name, bounds in self.above.items():
            yield name, bounds, 1
        for name, bounds in self.below.items():
            yield name, bounds, -1

    def _least(self, linear: Linear) -> float:
        counts, total = linear
        result: float = total
        for term, times in counts.items():
            result += times * self.interval(term)[0 if times > 0 else 1]
        return result

    def _is_computed(self, linear: Linear) -> bool:
        """Whether a sum has the value of the numbers: it does not wrap around."""
        counts, total = linear
        open_ = [c for t, c in counts.items() if inf in map(abs, self.interval(t))]
        if not open_:
            return abs(total) < 2**62
        # Two indices, neither of which is negative.
        is_positive = all(self.interval(t)[0] >= 0 for t in counts)
        return is_positive and sorted(counts.values()) in ([1], [-1, 1], [-1])

    # Choices.

    def _settled(self, term: Term) -> Term:
        """A term of which what is known is not asked; its operands are settled."""
        if not isinstance(term.kind, Computed):
            return term
        terms, args = self.terms, term.args
        match term.kind.name:
            case "arith.select":
                if args[0].number is not None:
                    return args[1] if args[0].number else args[2]
            case "arith.andi" | "arith.ori" | "arith.xori" if is_truth(term):
                for one, other in (args, args[::-1]):
                    if one.number is None:
                        continue
                    if term.computes("arith.xori"):
                        return other if not one.number else term
                    is_neutral = bool(one.number) == term.computes("arith.andi")
                    return other if is_neutral else one
            case "arith.cmpi" if _is_integer(args[0].type):
                holds = self._decided(term)
                if holds is not None:
                    return terms.number(int(holds), term.type)
            case "arith.subi" if args[0].number == 0 and args[1].computes("arith.subi"):
                return terms.compute(arith.SubiOp, args[1].args[::-1])
            case "arith.maxsi" | "arith.minsi":
                for one, other in (args, args[::-1]):
                    if self.least_difference(one, other) >= 0:
                        return one if term.computes("arith.maxsi") else other
            case _:
                pass
        return term

    def _decided(self, condition: Term) -> bool | None:
        """Whether a comparison holds for all indices, or for none; else None."""
        one, other = condition.args
        predicate = predicate_of(condition)
        if predicate in ("sge", "slt"):
            if self.least_difference(one, other) >= 0:
                return predicate == "sge"
            if self.least_difference(other, one) >= 1:
                return predicate == "slt"
        if predicate in ("sle", "sgt"):
            if self.least_difference(other, one) >= 0:
                return predicate == "sle"
            if self.least_difference(one, other) >= 1:
                return predicate == "sgt"
        if predicate in ("eq", "ne"):
            if one is other:
                return predicate == "eq"
            if max(self.least_difference(*pair) for pair in _ways(one, other)) >= 1:
                return predicate == "ne"
        return None

    def _whole(self, term: Term) -> Term:
        """An integer, simpler where ranges say so."""
        if not term.args or not isinstance(term.kind, Computed):
            return term
        if term.computes(AtOp.name, InBoundsOp.name):
            return term
        if not (_is_wide(term.type) or is_truth(term)):
            return term
        if term not in self._wholes:
            found = self.terms.remake(term, [self._whole(arg) for arg in term.args])
            self._wholes[term] = self._settled(found)
        return self._wholes[term]

    # In 32 bits.

    def _narrow(self, term: Term) -> Term | None:
        """An integer in 32 bits; None if it does not fit, or takes 64 to compute."""
        if not self._fits(term, 2**31):
            return None
        if term.number is not None:
            return self.terms.number(term.number, i32)
        if self._is_apart(term):
            return self._cast(term)
        assert isinstance(term.kind, Computed)
        if term.kind.name in _WIDE:
            return self._narrow(term.args[0])
        if term.kind.name == "arith.select":
            condition, *sides = term.args
            found = [self._narrow(side) for side in sides]
            if found[0] is None or found[1] is None:
                return None
            return self.terms.select(self(condition), found[0], found[1])
        if term.kind.name not in _NARROW:
            return None
        args: list[Term] = []
        for arg in term.args:
            found = self._narrow(arg)
            if found is None:
                return None
            args.append(found)
        properties = dict(term.kind.properties)
        return self.terms.compute(term.kind.operation, args, i32, properties)

    def _is_apart(self, term: Term) -> bool:
        """Whether a term is a scalar, or the same for all but the lanes."""
        return self.lane not in term.free or len(term.free) == 1

    def _cast(self, term: Term) -> Term:
        operation = arith.IndexCastOp if _is_index(term) else arith.TruncIOp
        return self.terms.compute(operation, (term,), i32)

    def _compared(self, term: Term) -> Term:
        """A comparison of integers, in 32 bits if both fit."""
        whole = self._whole(term)
        if not whole.computes("arith.cmpi"):
            return whole
        assert isinstance(whole.kind, Computed)
        found = [self._narrow(arg) for arg in whole.args]
        if found[0] is None or found[1] is None:
            return whole
        properties = dict(whole.kind.properties)
        return self.terms.compute(arith.CmpiOp, (found[0], found[1]), i1, properties)

    # As floats.

    def _converted(self, term: Term) -> Term:
        """An integer as a float: of floats, or of 32 bits, or as it is."""
        (given,) = term.args
        whole = self._whole(given)
        if self._is_apart(whole):
            return self._float(whole, term)
        if isinstance(term.type, Float32Type | Float64Type):
            found = self._floating(whole, term)
            if found is not None:
                return found
        narrow = self._narrow(whole)
        if narrow is not None:
            return self._float(narrow, term)
        return self._float(whole, term)

    def _float(self, whole: Term, like: Term) -> Term:
        """The conversion of an integer to the type of another conversion."""
        if _is_index(whole):
            whole = self.terms.compute(arith.IndexCastOp, (whole,), i64)
        assert isinstance(like.kind, Computed)
        properties = dict(like.kind.properties)
        return self.terms.compute(arith.SIToFPOp, (whole,), like.type, properties)

    def _floating(self, whole: Term, like: Term) -> Term | None:
        """An integer computed of floats; None where one might be rounded.

        Floats have all integers up to 2^p, p the bits of a significand. An operation on
        two gives the exact result, rounded, and if that is such an integer it is not.
        No result is -0: of a sum or difference of numbers that are not -0 none is, and
        of products only those are computed that have a positive factor.
        """
        exact = 2 ** (24 if isinstance(like.type, Float32Type) else 53)
        if not self._fits(whole, exact):
            return None
        if whole.number is not None:
            return self.terms.number(float(whole.number), like.type)
        if self._is_apart(whole):
            return self._float(whole, like)
        assert isinstance(whole.kind, Computed)
        if whole.kind.name in _WIDE:
            return self._floating(whole.args[0], like)
        if (inside := _magnitude(whole)) is not None:
            found = self._floating(inside, like)
            return None if found is None else real(self.terms, math.AbsFOp, found)
        if whole.kind.name not in _OF_FLOATS or len(whole.args) != 2:
            return None
        if whole.computes("arith.muli") and not any(
            self.interval(arg)[0] > 0 for arg in whole.args
        ):
            return None
        left, right = (self._floating(arg, like) for arg in whole.args)
        if left is None or right is None:
            return None
        return _OF_FLOATS[whole.kind.name](self.terms, left, right)


def _is_index(term: Term) -> bool:
    return isinstance(term.type, IndexType)


def _is_integer(type_: Attribute) -> bool:
    return isinstance(type_, IndexType | IntegerType)


def _ways(one: Term, other: Term) -> tuple[tuple[Term, Term], tuple[Term, Term]]:
    return (one, other), (other, one)


def _magnitude(term: Term) -> Term | None:
    """What a term is the magnitude of: the larger of it and 0 minus it."""
    if not term.computes("arith.maxsi"):
        return None
    for one, other in _ways(*term.args):
        if not other.computes("arith.subi"):
            continue
        if other.args[0].number == 0 and other.args[1] is one:
            return one
        if one.computes("arith.subi") and other.args == one.args[::-1]:
            return one
    return None


# Sums.


def _linear(term: Term) -> Linear:
    """A sum of terms as how often it has each."""
    if term.number is not None:
        return {}, int(term.number)
    if term.computes("arith.addi", "arith.subi"):
        left, right = map(_linear, term.args)
        return _added(left, right, 1 if term.computes("arith.addi") else -1)
    if term.computes("arith.muli"):
        for one, other in _ways(*term.args):
            if one.number is not None:
                return _added(({}, 0), _linear(other), int(one.number))
    if term.computes("arith.index_cast") and _is_wide(term.args[0].type):
        return _linear(term.args[0])
    return {term: 1}, 0


def _added(one: Linear, other: Linear, times: int) -> Linear:
    """A sum with another one so many times more."""
    counts = dict(one[0])
    for term, count in other[0].items():
        counts[term] = counts.get(term, 0) + times * count
    return {t: c for t, c in counts.items() if c}, one[1] + times * other[1]


# Intervals.


def _product(one: Interval, other: Interval) -> Interval:
    every = [a * b for a in one for b in other]
    return min(every), max(every)


def _quotient(one: Interval, other: Interval) -> Interval:
    """That of a quotient towards zero, by a number above 0."""
    if other[0] < 1:
        return ANYTHING
    every = [_towards_zero(a, b) for a in one for b in other]
    return min(every), max(every)


def _towards_zero(a: float, b: float) -> int:
    quotient = abs(int(a)) // int(b)
    return quotient if a >= 0 else -quotient


def _remainder(one: Interval, other: Interval) -> Interval:
    """That of a remainder with the sign of the dividend, by a number above 0."""
    if other[0] < 1:
        return ANYTHING
    most = other[1] - 1
    return max(min(one[0], 0), -most), min(max(one[1], 0), most)


_INTERVALS: dict[str, Callable[[Interval, Interval], Interval]] = {
    "arith.addi": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "arith.subi": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "arith.muli": _product,
    "arith.maxsi": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "arith.minsi": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "arith.divsi": _quotient,
    "arith.remsi": _remainder,
}


# Floats.


def _larger(terms: Terms, left: Term, right: Term) -> Term:
    return terms.select(compare(terms, "ogt", left, right), left, right)


def _smaller(terms: Terms, left: Term, right: Term) -> Term:
    return terms.select(compare(terms, "olt", left, right), left, right)


_OF_FLOATS: dict[str, Callable[[Terms, Term, Term], Term]] = {
    "arith.addi": lambda terms, a, b: real(terms, arith.AddfOp, a, b),
    "arith.subi": lambda terms, a, b: real(terms, arith.SubfOp, a, b),
    "arith.muli": lambda terms, a, b: real(terms, arith.MulfOp, a, b),
    "arith.maxsi": _larger,
    "arith.minsi": _smaller,
}
"""Operations on integers that floats have too."""


# Kernels.


def narrowing_of(
    kernel: Kernel, lane: str, pass_: Pass | None = None, width: int = 0
) -> Narrowing:
    """How index arithmetic of a kernel, or of one of its passes, becomes narrow.

    Args:
        kernel: the kernel.
        lane: the axis in the lanes.
        pass_: the pass; None for what comes after all.
        width: how many indices the lanes have, if theirs is no axis of the kernel.
    """
    ranges: dict[str, Interval] = {lane: (0, width - 1)} if width else {}
    for axis, extent in kernel.extents.items():
        size = static_extent(extent)
        ranges[axis] = (0, inf if size is None else max(size - 1, 0))
    found = Narrowing(kernel.terms, lane, ranges)
    if pass_ is None:
        return found
    index = pass_.index
    found.above = {index: _parts(pass_.lower, "arith.maxsi")}
    found.below = {index: _parts(pass_.upper, "arith.minsi")}
    least = found.interval(pass_.lower)[0]
    most = found.interval(pass_.upper)[1] - 1
    ranges[index] = (max(least, 0), max(most, 0))
    return found


def _parts(bound: Term, operation: str) -> list[Term]:
    """The terms of which a bound is the largest or smallest."""
    if bound.computes(operation):
        return [part for arg in bound.args for part in _parts(arg, operation)]
    return [bound]
