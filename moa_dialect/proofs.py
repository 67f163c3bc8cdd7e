"""Machine proofs of the index rules, for all extents and all valid indices.

The laws of psi reduction rewrite an index of a result into an index of an operand. Here
the index functions they do it with (`moa_dialect.algebra.index`) are applied to
symbols, and a solver (z3) is asked for extents and an index for which the outcome is
wrong. That there are none is the proof. What is shown of each rule, for each rank up to
four:

- the rewritten index is in bounds, if the operation's preconditions hold and the index
  of the result is valid;
- it denotes the element that the operation's definition says, where the definition is
  stated another way: rotation as drop ++ take and as a remainder, reversal as the
  involution that reverses the order, take from the end as a drop, transposition by
  where it puts each element, a cell as a block of adjacent addresses, reshape by equal
  addresses.

Where products and quotients of symbols are more than the solver finds by itself, it is
given instances of lemmas about them. The lemmas are obligations themselves (the rule
`division`); an instance is the lemma's formula for other terms.

What is put together by hand, outside of the solver:

- An obligation may assume what another one has proved, for symbols in place of its
  terms; a comment says so.
- `reshape` works by groups of axes. Shown are one group by itself (equal addresses), an
  address by groups, and the axes that are in no group; and that equal addresses of the
  groups make the address of the whole equal. How the groups are found is not part of
  it: the code that does compares the totals.
- `compress` and `expand` are proved by induction over the mask: the start, the step and
  what follows at the end are obligations; that an induction has these parts is not, nor
  that the ones before a position are as many counted from either end.
- `grade_up`, `grade_down`: the order is shown to be strict and total. That each place
  in it is then taken by exactly one element is left to the reader.

The laws of `cat`, `transpose`, `psi`, the folds, products and omega have no function of
their own, but put an index together from parts: they are repeated here. So is the chain
of `insert` over its axes. The symbols are
unbounded integers, while the code computes with 64 bits.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import combinations, pairwise, permutations, product
from math import prod
from typing import Any, TypeAlias, cast

import z3
from z3 import z3util

from moa_dialect.algebra import index
from moa_dialect.algebra.layout import Order, strides
from moa_dialect.algebra.shape import OmegaFrames, transpose_source_axes

Term: TypeAlias = Any
"""An integer term of the solver, whose Python interface has no types."""

Formula: TypeAlias = Any
"""A truth value of the solver."""

Terms: TypeAlias = Sequence[Term]

LARGEST_RANK = 4


class Z3Arithmetic:
    """The arithmetic of terms: what an index function computes is a term."""

    def number(self, value: int) -> Term:
        """A number."""
        return z3.IntVal(value)

    def add(self, a: Term, b: Term) -> Term:
        """The sum."""
        return a + b

    def sub(self, a: Term, b: Term) -> Term:
        """The difference."""
        return a - b

    def mul(self, a: Term, b: Term) -> Term:
        """The product."""
        return a * b

    def div(self, a: Term, b: Term) -> Term:
        """The quotient, rounded down for a positive divisor."""
        return a / b

    def mod(self, a: Term, b: Term) -> Term:
        """The remainder, not negative for a positive divisor."""
        return a % b

    def if_less(self, a: Term, b: Term, then: Term, otherwise: Term) -> Term:
        """`then` if a < b, else `otherwise`."""
        return z3.If(a < b, then, otherwise)

    def choose_less(
        self, a: Term, b: Term, then: Callable[[], Term], otherwise: Callable[[], Term]
    ) -> Term:
        """As `if_less`."""
        return z3.If(a < b, then(), otherwise())


M = Z3Arithmetic()


@dataclass(frozen=True)
class IndexFunctions:
    """The functions that are proved. Tests put wrong ones in their place."""

    take: Callable[..., Any] = index.take
    drop: Callable[..., Any] = index.drop
    reverse: Callable[..., Any] = index.reverse
    rotation: Callable[..., Any] = index.rotation
    rotate: Callable[..., Any] = index.rotate
    gamma: Callable[..., Any] = index.gamma
    gamma_inverse: Callable[..., Any] = index.gamma_inverse
    gamma_column: Callable[..., Any] = index.gamma_column
    gamma_inverse_column: Callable[..., Any] = index.gamma_inverse_column
    recycle: Callable[..., Any] = index.recycle
    pad: Callable[..., Any] = index.pad
    within: Callable[..., Any] = index.within


@dataclass(frozen=True)
class Obligation:
    """Something to be proved of a rule.

    Attributes:
        rule: the rule: the name of its law without the prefix `psi-`, or a function.
        rank: the rank it is about; that of the first operand, if there are several.
        statement: what is to be proved, in words or in MoA notation.
        given: what is assumed: preconditions, valid indices, instances of lemmas.
        claim: what then holds, for all values of the symbols.
    """

    rule: str
    rank: int
    statement: str
    given: tuple[Formula, ...]
    claim: Formula

    @property
    def formula(self) -> Formula:
        """The whole: what is given implies the claim."""
        return z3.Implies(z3.And(*self.given), self.claim)

    @property
    def identifier(self) -> str:
        """What certificates cite: `psi-take/rank2/1-counts-in-bounds`.

        The rule, with the prefix of its law if it has one, the rank, the statement.
        """
        return f"{cited_as(self.rule)}/rank{self.rank}/{_slug(self.statement)}"

    def __str__(self) -> str:
        return f"{self.rule}, rank {self.rank}: {self.statement}"


class Outcome(StrEnum):
    """What the solver says about an obligation."""

    PROVED = "proved"
    COUNTEREXAMPLE = "counterexample"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """The solver's answer.

    Attributes:
        outcome: unknown if it has no answer within its time.
        counterexample: values for which the obligation does not hold.
    """

    outcome: Outcome
    counterexample: str | None = None


def prove(obligation: Obligation, timeout_ms: int = 30_000) -> Answer:
    """Whether an obligation holds for all values of its symbols.

    If that is not settled soon, a counterexample of small numbers is looked for before
    the solver is given its time.
    """
    answer = _refute(obligation, min(timeout_ms, _SOON_MS), [])
    if answer.outcome is not Outcome.UNKNOWN:
        return answer
    symbols = z3util.get_vars(obligation.formula)
    numbers = [symbol for symbol in symbols if symbol.sort() == z3.IntSort()]
    small = [_absolute(number) <= _SMALL for number in numbers]
    answer = _refute(obligation, timeout_ms, small)
    if answer.outcome is Outcome.COUNTEREXAMPLE:
        return answer
    return _refute(obligation, timeout_ms, [])


_SOON_MS = 1_000
_SMALL = 4


def _refute(obligation: Obligation, timeout_ms: int, more: list[Formula]) -> Answer:
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    solver.add(*obligation.given, z3.Not(obligation.claim), *more)
    answer = solver.check()
    if answer == z3.unsat:
        return Answer(Outcome.PROVED)
    if answer == z3.sat:
        return Answer(Outcome.COUNTEREXAMPLE, f"{solver.model()}")
    return Answer(Outcome.UNKNOWN)


# Symbols and formulas

_Part: TypeAlias = tuple[int, str, tuple[Formula, ...], Formula]
"""An obligation of the rule at hand: rank, statement, what is given, claim."""


def _symbols(name: str, count: int) -> list[Term]:
    return [z3.Int(f"{name}{k}") for k in range(count)]


def _ints(names: str) -> list[Term]:
    return list(z3.Ints(names))


def _function(name: str, arguments: int, kind: Any) -> Callable[..., Term]:
    """A function of integers of which nothing is known, such as an array."""
    return cast(Any, z3.Function(name, *[z3.IntSort()] * arguments, kind))


def _array(name: str, rank: int) -> Callable[..., Term]:
    return _function(name, rank, z3.DeclareSort("Element"))


def _valid(indices: Terms, shape: Terms) -> Formula:
    """`0 <= i < s` on each axis: no extent is zero then."""
    pairs = zip(indices, shape, strict=True)
    return z3.And(*(bound for i, s in pairs for bound in (i >= 0, i < s)))


def _equal(left: Terms, right: Terms) -> Formula:
    return z3.And(*(a == b for a, b in zip(left, right, strict=True)))


def _choose(condition: Formula, then: Term, otherwise: Term) -> Term:
    return z3.If(condition, then, otherwise)


def _absolute(value: Term) -> Term:
    return _choose(value < 0, -value, value)


def _dot(left: Terms, right: Terms) -> Term:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _pick(values: Terms, axes: Sequence[int]) -> list[Term]:
    return [values[axis] for axis in axes]


def _ranks(first: int = 1) -> range:
    return range(first, LARGEST_RANK + 1)


def _groupings(rank: int) -> Iterator[list[range]]:
    """All ways to part axes into adjacent groups, none of them empty."""
    for count in range(rank):
        for cuts in combinations(range(1, rank), count):
            yield [range(a, b) for a, b in pairwise((0, *cuts, rank))]


# The lemmas


def remainder_is_unique(q: Term, r: Term, p: Term, t: Term, y: Term) -> Formula:
    """If `q y + r = p y + t` with remainders r and t by y, then q = p and r = t."""
    given = (r >= 0, r < y, t >= 0, t < y, q * y + r == p * y + t)
    return z3.Implies(z3.And(*given), z3.And(q == p, r == t))


def quotient_and_remainder(a: Term, y: Term) -> Formula:
    """Of a >= 0 by y > 0: `(a / y) y + a mod y = a` and `0 <= a mod y < y`."""
    claim = (a / y * y + a % y == a, a % y >= 0, a % y < y, a / y >= 0)
    return z3.Implies(z3.And(a >= 0, y > 0), z3.And(*claim))


def quotient_in_bounds(a: Term, x: Term, y: Term) -> Formula:
    """If `0 <= a < x y` then `0 <= a / y < x`, for y >= 0."""
    given = (a >= 0, a < x * y, y >= 0)
    return z3.Implies(z3.And(*given), z3.And(a / y >= 0, a / y < x))


def quotient_of_address(x: Term, i: Term, y: Term) -> Formula:
    """If `0 <= i < y` and x >= 0 then `(x y + i) / y = x` and the remainder is i."""
    claim = z3.And((x * y + i) / y == x, (x * y + i) % y == i)
    return z3.Implies(z3.And(x >= 0, i >= 0, i < y), claim)


def address_in_bounds(x: Term, p: Term, i: Term, y: Term) -> Formula:
    """If `0 <= x < p` and `0 <= i < y` then `0 <= x y + i < p y`."""
    claim = z3.And(x * y + i >= 0, x * y + i < p * y)
    return z3.Implies(z3.And(x >= 0, x < p, i >= 0, i < y), claim)


def factors_of_one(x: Term, y: Term) -> Formula:
    """If `x y = 1` for numbers that are not negative, both are 1."""
    return z3.Implies(z3.And(x >= 0, y >= 0, x * y == 1), z3.And(x == 1, y == 1))


def factor_that_keeps(x: Term, y: Term) -> Formula:
    """If `x y = x` for a positive x, then y = 1."""
    return z3.Implies(z3.And(x > 0, x * y == x), y == 1)


def _division(f: IndexFunctions) -> Iterator[_Part]:
    for lemma, names in (
        (remainder_is_unique, "q r p t y"),
        (quotient_and_remainder, "a y"),
        (quotient_in_bounds, "a x y"),
        (quotient_of_address, "x i y"),
        (address_in_bounds, "x p i y"),
        (factors_of_one, "x y"),
        (factor_that_keeps, "x y"),
    ):
        claim = cast(Callable[..., Formula], lemma)(*_ints(names))
        yield 0, lemma.__name__.replace("_", " "), (), claim


# Take and drop


def _counted(
    source: Callable[[Term, Term, Term], Term],
    extent: Callable[[Term, Term], Term],
    shift: Callable[[Term, Term], Term],
) -> Iterator[_Part]:
    """Counts for leading axes, the other axes as they are.

    Args:
        source: the index of the operand, of that of the result, the count, the extent.
        extent: the extent of the result, of the count and that of the operand.
        shift: by how much the definition shifts the index.
    """
    for rank in _ranks():
        array = _array("A", rank)
        for length in range(rank + 1):
            i, s, v = _symbols("i", rank), _symbols("s", rank), _symbols("v", length)
            counted = list(zip(i, v, s, strict=False))
            shape = [*(extent(c, n) for _, c, n in counted), *s[length:]]
            given = (_valid(i, shape), *(_absolute(c) <= n for _, c, n in counted))
            found = [*(source(*axis) for axis in counted), *i[length:]]
            wanted = [*(a + shift(c, n) for a, c, n in counted), *i[length:]]
            yield rank, f"{length} counts: in bounds", given, _valid(found, s)
            statement = f"{length} counts: the element where the definition says"
            yield rank, statement, given, array(*found) == array(*wanted)


def _take(f: IndexFunctions) -> Iterator[_Part]:
    def source(i: Term, count: Term, extent: Term) -> Term:
        return f.take(M, i, count, extent)

    yield from _counted(
        source,
        lambda count, extent: _absolute(count),
        lambda count, extent: _choose(count < 0, extent - _absolute(count), 0),
    )
    i, j, v, s = _ints("i j v s")
    at, given = source(i, v, s), (i >= 0, i < _absolute(v), _absolute(v) <= s)
    following = (*given, i + 1 < _absolute(v))
    yield 1, "in order, without gaps", following, source(i + 1, v, s) == at + 1
    yield 1, "v >= 0 begins at the first", (*given, v >= 0, i == 0), at == 0
    yield 1, "v < 0 ends at the last", (*given, v < 0, i == -v - 1), at == s - 1
    statement = "v △ A = (s + v) ▽ A for v < 0"
    yield 1, statement, (*given, v < 0), at == f.drop(M, i, s + v)
    statement = "v △ (j △ A) = v △ A for 0 <= v <= j"
    twice = source(source(i, v, j), j, s)
    yield 1, statement, (*given, v >= 0, v <= j, j <= s), twice == at


def _drop(f: IndexFunctions) -> Iterator[_Part]:
    def source(i: Term, count: Term, extent: Term) -> Term:
        return f.drop(M, i, count)

    yield from _counted(
        source,
        lambda count, extent: extent - _absolute(count),
        lambda count, extent: _choose(count < 0, 0, count),
    )
    i, v, w, s = _ints("i v w s")
    size = s - _absolute(v)
    at, given = f.drop(M, i, v), (i >= 0, i < size)
    following = (*given, i + 1 < size)
    yield 1, "in order, without gaps", following, f.drop(M, i + 1, v) == at + 1
    yield 1, "v >= 0 ends at the last", (*given, v >= 0, i == size - 1), at == s - 1
    yield 1, "v < 0 begins at the first", (*given, v < 0, i == 0), at == 0
    statement = "w ▽ (v ▽ A) = (v + w) ▽ A for v, w >= 0"
    twice, once = f.drop(M, f.drop(M, i, w), v), f.drop(M, i, v + w)
    yield 1, statement, (*given, v >= 0, w >= 0, i < size - w), twice == once


# Reverse, rotate, cat, transpose


def _reverse(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        i, s, array = _symbols("i", rank), _symbols("s", rank), _array("A", rank)
        given = (_valid(i, s),)
        found = [f.reverse(M, i[0], s[0]), *i[1:]]
        yield rank, "in bounds", given, _valid(found, s)
        again = [f.reverse(M, found[0], s[0]), *i[1:]]
        yield rank, "ΦΦA = A", given, array(*again) == array(*i)
    i, j, s = _ints("i j s")
    falls = f.reverse(M, i, s) > f.reverse(M, j, s)
    yield 1, "the order is reversed", (i >= 0, i < j, j < s), falls


def _rotate(f: IndexFunctions) -> Iterator[_Part]:
    i, k, s = _ints("i k s")
    shift = f.rotation(M, k, s)
    at = f.rotate(M, i, shift, s)
    # How often the extent is in the count, and in the index and the count.
    down = -((-k) / s)
    times = _choose(k < 0, _choose((-k) % s == 0, down, down - 1), k / s)
    wraps = times + _choose(i < s - shift, 0, 1)

    def is_remainder(value: Term, number: Term, quotient: Term) -> Formula:
        """The instance of the lemma by which a value is a number modulo s."""
        return remainder_is_unique(number / s, number % s, quotient, value, s)

    yield 1, "the shift is in bounds", (s > 0,), z3.And(shift >= 0, shift < s)
    yield 1, "the shift of an empty axis is 0", (s == 0,), shift == 0
    given = (s > 0, is_remainder(shift, k, times))
    yield 1, "the shift is k mod s", given, shift == k % s
    statement = "i + k is a multiple of s more"
    yield 1, statement, (i >= 0, i < s), i + k == wraps * s + at
    for rank in _ranks():
        rest, extents = _symbols("r", rank - 1), _symbols("e", rank - 1)
        array, given = _array("A", rank), (i >= 0, i < s, _valid(rest, extents))
        element = array(at, *rest)

        def taken(n: Term, array: Any = array, rest: Any = rest) -> Term:
            return array(f.take(M, n, k, s), *rest)

        def dropped(n: Term, array: Any = array, rest: Any = rest) -> Term:
            return array(f.drop(M, n, k), *rest)

        yield rank, "in bounds", given, _valid([at, *rest], [s, *extents])
        statement, instance = "at (i + k) mod s", is_remainder(at, i + k, wraps)
        yield rank, statement, (*given, instance), element == array((i + k) % s, *rest)
        statement = "k θ A = (k ▽ A) ++ (k △ A) for 0 <= k <= s"
        claim = element == _catenated(i, s - k, dropped, taken)
        yield rank, statement, (*given, k >= 0, k <= s), claim
        statement = "k θ A = (k △ A) ++ (k ▽ A) for -s <= k < 0"
        claim = element == _catenated(i, -k, taken, dropped)
        yield rank, statement, (*given, -s <= k, k < 0), claim
    # Proved above, for symbols: rotated by k to a, then by j to b; at once to c.
    j, a, b, c, p, q, r = _ints("j a b c p q r")
    yield (
        1,
        "j θ (k θ A) = (k + j) θ A",
        (
            _valid([a, b, c], [s, s, s]),
            i + k == p * s + a,
            a + j == q * s + b,
            i + (k + j) == r * s + c,
            remainder_is_unique(p + q, b, r, c, s),
        ),
        b == c,
    )


def _catenated(
    i: Term, first: Term, left: Callable[[Term], Term], right: Callable[[Term], Term]
) -> Term:
    """The law of cat: the left operand below its extent, else the right one."""
    return _choose(i < first, left(i), right(M.sub(i, first)))


def _cat(f: IndexFunctions) -> Iterator[_Part]:
    i, j, k, a, b = _ints("i j k a b")
    zero, one = z3.IntVal(0), z3.IntVal(1)
    for rank in _ranks():
        rest, extents = _symbols("r", rank - 1), _symbols("e", rank - 1)
        arrays = _array("A", rank), _array("B", rank)

        def left(n: Term, arrays: Any = arrays, rest: Any = rest) -> Term:
            return arrays[0](n, *rest)

        def right(n: Term, arrays: Any = arrays, rest: Any = rest) -> Term:
            return arrays[1](n, *rest)

        given = (a >= 0, b >= 0, _valid(rest, extents))
        chosen = _choose(
            i < a,
            _valid([i, *rest], [a, *extents]),
            _valid([M.sub(i, a), *rest], [b, *extents]),
        )
        yield rank, "in bounds of the chosen", (*given, i >= 0, i < a + b), chosen
        in_left, in_right = (*given, j >= 0, j < a), (*given, j >= 0, j < b)
        claim = _catenated(j, a, left, right) == left(j)
        yield rank, "all of A comes first", in_left, claim
        claim = _catenated(a + j, a, left, right) == right(j)
        yield rank, "all of B comes after it", in_right, claim
        claim = _catenated(1 + j, one, left, right) == right(j)
        claim = z3.And(_catenated(zero, one, left, right) == left(zero), claim)
        yield rank, "a scalar on the left is one plane", in_right, claim
        claim = left(i) == _catenated(
            i,
            k,
            lambda n, left=left: left(f.take(M, n, k, a)),
            lambda n, left=left: left(f.drop(M, n, k)),
        )
        bounds = (*given, i >= 0, i < a, k >= 0, k <= a)
        yield rank, "(k △ A) ++ (k ▽ A) = A for 0 <= k <= a", bounds, claim


def _transposed(entries: Terms, t: Sequence[int]) -> list[Term]:
    """The law of transpose: `i[t]`."""
    return [entries[axis] for axis in t]


def _transpose(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        array = _array("A", rank)
        i, s, x = _symbols("i", rank), _symbols("s", rank), _symbols("x", rank)
        for t in permutations(range(rank)):
            given = (_valid(i, _pick(s, transpose_source_axes(t))),)
            found = _transposed(i, t)
            yield rank, f"{t}: in bounds", given, _valid(found, s)
            put = z3.And(*(i[axis] == x[k] for k, axis in enumerate(t)))
            statement = f"{t}: entry k of an index of A is entry t[k] of the result's"
            yield rank, statement, (*given, put), array(*found) == array(*x)
            for u in permutations(range(rank)) if rank < LARGEST_RANK else ():
                both = _transposed(i, [t[axis] for axis in u])
                statement = f"t ⊘ (u ⊘ A) = t[u] ⊘ A for t = {t}, u = {u}"
                yield rank, statement, (), _equal(_transposed(found, u), both)
        back = range(rank)[::-1]
        again = _transposed(_transposed(i, back), back)
        yield rank, "⊘⊘A = A", (), array(*again) == array(*i)


# Indexing: a cell is a block of adjacent addresses


def _block(f: IndexFunctions, i: Terms, j: Terms, s: Terms) -> Term:
    """The address of j in the cell at i, from the start and the size of the cell."""
    start = f.gamma(M, i, s[: len(i)]) * prod(s[len(i) :])
    return start + f.gamma(M, j, s[len(i) :])


def _psi(f: IndexFunctions) -> Iterator[_Part]:
    """An index that is an array of indices: the entries are checked, hence valid."""
    for rank in _ranks():
        s = _symbols("s", rank)
        for length, rows in product(range(rank + 1), range(3)):
            i, j = _symbols("i", rows), _symbols("j", rank - length)
            table = _function("P", rows + 1, z3.IntSort())
            entries = [table(*i, axis) for axis in range(length)]
            given = (_valid(entries, s[:length]), _valid(j, s[length:]))
            name = f"{length} entries in an array of rank {rows + 1}"
            found = [*entries, *j]
            yield rank, f"{name}: in bounds", given, _valid(found, s)
            claim = f.gamma(M, found, s) == _block(f, entries, j, s)
            yield rank, f"{name}: a block", given, claim


def _cell(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        i, s = _symbols("i", rank), _symbols("s", rank)
        for first in range(rank + 1):
            head, tail = i[:first], i[first:]
            given = (_valid(head, s[:first]), _valid(tail, s[first:]))
            found = [*head, *tail]
            yield rank, f"{first} entries: in bounds", given, _valid(found, s)
            claim = f.gamma(M, found, s) == _block(f, head, tail, s)
            yield rank, f"{first} entries: a block", given, claim
            for second in range(first, rank + 1):
                start = _block(f, head, i[first:second], s[:second])
                inner = f.gamma(M, i[second:], s[second:])
                claim = f.gamma(M, i, s) == start * prod(s[second:]) + inner
                lengths = f"{first} and {second - first} entries"
                yield rank, f"j ψ (i ψ A) = (i ++ j) ψ A, {lengths}", given, claim


# Addresses


def _in_bounds(f: IndexFunctions, i: Terms, s: Terms) -> list[Formula]:
    """Instances by which an address is in bounds, one for each axis."""
    return [
        address_in_bounds(f.gamma(M, i[:k], s[:k]), prod(s[:k]), i[k], s[k])
        for k in range(1, len(s))
    ]


def _successive(x: Term, s: Terms) -> list[Formula]:
    """Instances for the successive divisions of an address, from the last axis."""
    found: list[Formula] = []
    for k in range(len(s) - 1, 0, -1):
        found.append(quotient_and_remainder(x, s[k]))
        found.append(quotient_in_bounds(x, prod(s[:k]), s[k]))
        x = x / s[k]
    return found


def _gamma(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks(0):
        i, j, s = (_symbols(name, rank) for name in "ijs")
        valid, address = _valid(i, s), f.gamma(M, i, s)
        given = (valid, *_in_bounds(f, i, s))
        yield rank, "in bounds", given, _valid([address], [prod(s)])
        by_strides = _dot(i, strides(s, Order.ROW))
        yield rank, "the sum of i times the strides", (valid,), address == by_strides
        column, back = f.gamma_column(M, i, s), (i[::-1], s[::-1])
        statement = "by columns: the address of Φi in the shape Φs"
        yield rank, statement, (valid,), column == f.gamma(M, *back)
        statement = "by columns: the sum of i times the strides"
        claim = column == _dot(i, strides(s, Order.COLUMN))
        yield rank, statement, (valid,), claim
        given = (valid, *_in_bounds(f, *back))
        yield rank, "by columns: in bounds", given, _valid([column], [prod(s)])
        given = (valid, _valid(j, s), address == f.gamma(M, j, s))
        given = (*given, *_distinct(f, i, j, s))
        yield rank, "of different indices different", given, _equal(i, j)
        given = (valid, _valid(j, s), column == f.gamma_column(M, j, s))
        given = (*given, *_distinct(f, i[::-1], j[::-1], s[::-1]))
        yield rank, "by columns: of different ones different", given, _equal(i, j)


def _distinct(f: IndexFunctions, i: Terms, j: Terms, s: Terms) -> list[Formula]:
    """Instances by which equal addresses are those of equal indices."""
    return [
        remainder_is_unique(
            f.gamma(M, i[:k], s[:k]), i[k], f.gamma(M, j[:k], s[:k]), j[k], s[k]
        )
        for k in range(1, len(s))
    ]


def _gamma_inverse(f: IndexFunctions) -> Iterator[_Part]:
    by_rows = "", f.gamma, f.gamma_inverse
    by_columns = "by columns: ", f.gamma_column, f.gamma_inverse_column
    for rank, (name, gamma, inverse) in product(_ranks(0), (by_rows, by_columns)):
        i, s, x = _symbols("i", rank), _symbols("s", rank), z3.Int("x")
        # The divisions are by the last extent first, by columns by the first.
        i_, s_ = (i[::-1], s[::-1]) if name else (i, s)
        extents = [extent >= 0 for extent in s]
        given = (_valid([x], [prod(s_)]), *extents, *_successive(x, s_))
        entries = inverse(M, x, s)
        yield rank, f"{name}in bounds", given, _valid(entries, s)
        yield rank, f"{name}γ(γ'(x; s); s) = x", given, gamma(M, entries, s) == x
        instances = [
            quotient_of_address(f.gamma(M, i_[:k], s_[:k]), i_[k], s_[k])
            for k in range(1, rank)
        ]
        given = (_valid(i, s), *_in_bounds(f, i_, s_), *instances)
        claim = _equal(inverse(M, gamma(M, i, s), s), i)
        yield rank, f"{name}γ'(γ(i; s); s) = i", given, claim
    x, s, t = _ints("x s t")
    # What is checked where no address is valid: each extent as not less than 0.
    clamped = _choose(s < 0, 0, s) * _choose(t < 0, 0, t)
    given = (x >= 0, x < clamped)
    yield 2, "an address within has positive extents", given, z3.And(s > 0, t > 0)


def _group(f: IndexFunctions, result: int, source: int) -> Iterator[_Part]:
    """One group of axes: an index of t to the index of s at the same address."""
    i, t, s = _symbols("i", result), _symbols("t", result), _symbols("s", source)
    x = z3.Int("x")
    given = (
        _valid(i, t),
        *(extent >= 0 for extent in s),
        prod(t) == prod(s),
        x == f.gamma(M, i, t),
        _valid([x], [prod(t)]),  # Proved: an address is in bounds.
        *_successive(x, s),
    )
    entries = f.gamma_inverse(M, x, s)
    name = f"{result} axes of {source}"
    yield source, f"{name}: in bounds", given, _valid(entries, s)
    claim = f.gamma(M, entries, s) == f.gamma(M, i, t)
    yield source, f"{name}: γ(i'; s) = γ(i; t)", given, claim


def _reshape(f: IndexFunctions) -> Iterator[_Part]:
    for result, source in product(_ranks(), _ranks()):
        yield from _group(f, result, source)
    for rank in _ranks():
        i, s = _symbols("i", rank), _symbols("s", rank)
        valid, address = _valid(i, s), f.gamma(M, i, s)
        for groups in _groupings(rank):
            addresses = [f.gamma(M, _pick(i, g), _pick(s, g)) for g in groups]
            claim = address == f.gamma(
                M, addresses, [prod(_pick(s, g)) for g in groups]
            )
            sizes = [len(group) for group in groups]
            yield rank, f"the address by groups of {sizes} axes", (valid,), claim
        x, y, a, b = (_symbols(name, rank) for name in "xyab")
        statement = f"{rank} groups: equal addresses and totals give an equal address"
        claim = f.gamma(M, x, a) == f.gamma(M, y, b)
        yield rank, statement, (_equal(x, y), _equal(a, b)), claim
        for axis in range(rank):
            others = [k for k in range(rank) if k != axis]
            given = (_valid(_pick(i, others), _pick(s, others)), i[axis] == 0)
            claim = address == f.gamma(M, _pick(i, others), _pick(s, others))
            claim = z3.And(valid, claim)
            statement = (
                f"axis {axis} of extent 1 has index 0 and no part in the address"
            )
            yield rank, statement, (*given, s[axis] == 1), claim
        # The other groups have a total m on both sides, positive if an index is valid.
        m = z3.Int("m")
        given = (
            *(extent >= 0 for extent in s),
            m > 0,
            m * prod(s) == m,
            factor_that_keeps(m, prod(s)),
            *(factors_of_one(prod(s[:k]), s[k]) for k in range(1, rank)),
            *(prod(s[:k]) >= 0 for k in range(2, rank)),  # A product of such extents.
        )
        ones = z3.And(*(extent == 1 for extent in s))
        yield rank, "axes of the operand in no group have extent 1", given, ones
        zeros = z3.And(*(entry == 0 for entry in i))
        yield rank, "axes of the result in no group: index 0", (*given, valid), zeros


def _ravel(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        yield from _group(f, 1, rank)


def _recycle(f: IndexFunctions) -> Iterator[_Part]:
    for result, source in product(_ranks(0), _ranks(0)):
        i, t, s = _symbols("i", result), _symbols("t", result), _symbols("s", source)
        x, y = _ints("x y")
        given = (
            _valid(i, t),
            *(extent >= 0 for extent in s),
            prod(s) > 0,  # Proved below, from what is required.
            x == f.gamma(M, i, t),
            x >= 0,  # Proved: an address is in bounds.
            y == f.recycle(M, x, prod(s)),
        )
        name = f"{result} axes of {source}"
        division = quotient_and_remainder(x, prod(s))
        within = _valid([y], [prod(s)])
        yield source, f"{name}: an address of A", (*given, division), within
        entries, given = f.gamma_inverse(M, y, s), (*given, within, *_successive(y, s))
        yield source, f"{name}: in bounds", given, _valid(entries, s)
        claim = f.gamma(M, entries, s) == x % prod(s)
        yield source, f"{name}: γ(i'; s) = γ(i; t) mod πs", given, claim
    p, total = _ints("p n")
    given = (p > 0, total >= 0, _choose(total > 0, 1, 0) * p >= p)
    yield 0, "a valid index and what is required: A has elements", given, total > 0
    for rank in _ranks():
        i, t = _symbols("i", rank), _symbols("t", rank)
        for first in range(rank):
            start = f.gamma(M, i[:first], t[:first]) * prod(t[first:])
            rest = f.gamma(M, i[first:], t[first:])
            name, claim = f"axes from {first}", f.gamma(M, i, t) == start + rest
            yield rank, f"{name}: the address in two parts", (_valid(i, t),), claim
    a, x, y = _ints("a x y")
    given = (a >= 0, x >= 0, x < y, quotient_of_address(a, x, y))
    statement = "trailing axes of the total of A: their address is that in A"
    yield 1, statement, given, f.recycle(M, a * y + x, y) == x


# Blocks


def _pad(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        array = _array("A", rank)
        for length in range(rank + 1):
            i, s = _symbols("i", rank), _symbols("s", rank)
            left, right = _symbols("l", length), _symbols("r", length)
            padded = list(zip(i, left, right, s, strict=False))
            shape = [*(n + a + b for _, a, b, n in padded), *s[length:]]
            counts = [z3.And(c >= 0, c <= n) for _, *two, n in padded for c in two]
            given = (_valid(i, shape), *counts)
            found = [f.pad(M, k, a, n) for k, a, _, n in padded]
            yield rank, f"{length} counts: in bounds", given, _valid(found, s[:length])
            turns = [
                _choose(k < a, -1, _choose(k < a + n, 0, 1)) for k, a, _, n in padded
            ]
            instances = [
                remainder_is_unique((k - a) / n, (k - a) % n, turn, at, n)
                for (k, a, _, n), turn, at in zip(padded, turns, found, strict=True)
            ]
            wanted = [(k - a) % n for k, a, _, n in padded]
            claim = array(*found, *i[length:]) == array(*wanted, *i[length:])
            statement = f"{length} counts: at (i - l) mod s"
            yield rank, statement, (*given, *instances), claim
    i, j, a, b, s = _ints("i j l r s")
    given = (a >= 0, a <= s, b >= 0, b <= s)
    claim = f.pad(M, f.drop(M, j, a), a, s) == j
    yield 1, "-r ▽ (l ▽ pad(l, r, A)) = A", (*given, j >= 0, j < s), claim
    array = _array("A", 1)
    parts = _catenated(
        i,
        a,
        lambda n: array(f.take(M, n, -a, s)),
        lambda n: _catenated(n, s, array, lambda n: array(f.take(M, n, b, s))),
    )
    # A count of 0 takes nothing, of either sign.
    given = (*given, i >= 0, i < a + s + b)
    statement = "pad(l, r, A) = (-l △ A) ++ A ++ (r △ A)"
    yield 1, statement, given, array(f.pad(M, i, a, s)) == parts


def _insert(f: IndexFunctions) -> Iterator[_Part]:
    def is_inside(i: Terms, o: Terms, b: Terms) -> Formula:
        """The law: an axis is asked if the index is within on the axes before."""
        if not o:
            return z3.BoolVal(True)
        return f.within(
            M,
            *(i[0], o[0], b[0]),
            lambda: is_inside(i[1:], o[1:], b[1:]),
            lambda: z3.BoolVal(False),
        )

    for rank in _ranks():
        for length in range(rank + 1):
            i, s = _symbols("i", rank), _symbols("s", rank)
            j, o, b = (
                _symbols(n, k) for n, k in (("j", rank), ("o", length), ("b", rank))
            )
            required = [
                *(z3.And(o[k] >= 0, o[k] <= s[k] - b[k]) for k in range(length)),
                *(extent >= 0 for extent in b),
                *(b[k] == s[k] for k in range(length, rank)),
            ]
            starts = [*o, *[z3.IntVal(0)] * (rank - length)]
            given, inside = (_valid(i, s), *required), is_inside(i, o, b)
            name = f"{length} offsets"
            shifted = [M.sub(k, start) for k, start in zip(i, o, strict=False)]
            claim = _valid([*shifted, *i[length:]], b)
            yield rank, f"{name}: in bounds of the block", (*given, inside), claim
            bounds = zip(i, starts, b, strict=True)
            within = z3.And(*(z3.And(a <= k, k < a + n) for k, a, n in bounds))
            yield rank, f"{name}: where o <= i < o + ρB", given, inside == within
            at = [a + k for a, k in zip(starts, j, strict=True)]
            back = [M.sub(k, a) for k, a in zip(at, starts, strict=True)]
            claim = z3.And(_valid(at, s), is_inside(at, o, b), _equal(back, j))
            given = (_valid(j, b), *required)
            yield rank, f"{name}: all of the block is there", given, claim


# Masks and orders, by induction


def _mask() -> tuple[Callable[..., Formula], Callable[..., Term]]:
    """A mask, and how many ones it has before a position."""
    return _function("v", 1, z3.BoolSort()), _function("before", 1, z3.IntSort())


def _counts_one(mask: Callable[..., Formula], before: Any, j: Term) -> Formula:
    return before(j + 1) == before(j) + _choose(mask(j), 1, 0)


def _compress(f: IndexFunctions) -> Iterator[_Part]:
    """The sum of the positions that are the k-th one, from the last position down."""
    j, k, n, p = _ints("j k n p")
    mask, before = _mask()
    total = _function("sum", 1, z3.IntSort())

    def found(start: Term, position: Term) -> Formula:
        """The sum from a start: the position of the k-th one, 0 if that is before."""
        is_kth = z3.And(mask(position), before(position) == k)
        later = z3.And(start <= position, position < n, total(start) == position)
        return _choose(before(start) <= k, z3.And(is_kth, later), total(start) == 0)

    given = (total(n) == 0, n >= 0, k >= 0, k < before(n))
    yield 1, "the start: nothing is left at the end", given, found(n, p)
    term = _choose(z3.And(mask(j), before(j) == k), j, 0)
    step = (total(j) == term + total(j + 1), _counts_one(mask, before, j))
    given = (j >= 0, j < n, k >= 0, *step, found(j + 1, p))
    yield 1, "the step: one position more", given, z3.Or(found(j, p), found(j, j))
    at, zero = total(0), z3.IntVal(0)
    given = (before(0) == 0, k >= 0, found(zero, p))
    yield 1, "the end: in bounds", given, _valid([at], [n])
    claim = z3.And(mask(at), before(at) == k)
    yield 1, "the end: a one with k ones before it", given, claim


def _expand(f: IndexFunctions) -> Iterator[_Part]:
    i, j, n, s = _ints("i j n s")
    mask, before = _mask()
    yield 1, "the start: none before 0", (before(0) == 0,), before(0) >= 0
    given = (j >= 0, _counts_one(mask, before, j), before(j) >= 0)
    claim = z3.And(before(j) <= before(j + 1), before(j + 1) >= 0)
    yield 1, "the step: one position more has no fewer before it", given, claim
    one = (i >= 0, i < n, mask(i), _counts_one(mask, before, i), before(i) >= 0)
    given = (*one, before(i + 1) <= before(n), before(n) == s)
    yield 1, "the end: in bounds where the mask holds", given, _valid([before(i)], [s])
    given = (*one, i < j, before(i + 1) <= before(j))
    yield 1, "the end: planes in order", given, before(i) < before(j)


def _grade(
    is_less: Callable[[Term, Term], Formula], nan_first: bool
) -> Iterator[_Part]:
    """The order that decides the places: it is strict and total, with NaN in it."""
    i, j, k = _ints("i j k")
    value = _function("v", 1, z3.RealSort())
    is_nan = _function("nan", 1, z3.BoolSort())

    def compare(holds: Formula, a: Term, b: Term) -> Formula:
        """A comparison of elements: none holds of NaN."""
        return z3.And(z3.Not(is_nan(a)), z3.Not(is_nan(b)), holds)

    def is_before(a: Term, b: Term) -> Formula:
        larger = is_nan(a) if nan_first else is_nan(b)
        one = z3.And(z3.Xor(is_nan(a), is_nan(b)), larger)
        return z3.Or(compare(is_less(value(a), value(b)), a, b), one)

    def is_equal(a: Term, b: Term) -> Formula:
        both = z3.And(is_nan(a), is_nan(b))
        return z3.Or(compare(value(a) == value(b), a, b), both)

    def precedes(a: Term, b: Term) -> Formula:
        return z3.Or(is_before(a, b), z3.And(is_equal(a, b), a < b))

    yield 1, "nothing precedes itself", (), z3.Not(precedes(i, i))
    given = (precedes(i, j), precedes(j, k))
    yield 1, "what precedes is transitive", given, precedes(i, k)
    one = z3.Xor(precedes(i, j), precedes(j, i))
    yield 1, "of two, exactly one precedes", (i != j,), one
    given, is_last = (precedes(i, j),), is_nan(i) if nan_first else is_nan(j)
    in_order = z3.Or(is_last, z3.Not(is_less(value(j), value(i))))
    claim = z3.And(in_order, z3.Implies(is_equal(i, j), i < j))
    yield 1, "in order, equal ones in place", given, claim


def _grade_up(f: IndexFunctions) -> Iterator[_Part]:
    yield from _grade(lambda a, b: a < b, nan_first=False)


def _grade_down(f: IndexFunctions) -> Iterator[_Part]:
    yield from _grade(lambda a, b: a > b, nan_first=True)


# Folds, products and omega


def _reduce(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        i, s, k = _symbols("i", rank - 1), _symbols("s", rank), z3.Int("k")
        given = (_valid(i, s[1:]), k >= 0, k < s[0])
        yield rank, "in bounds", given, _valid([k, *i], s)


def _product(f: IndexFunctions) -> Iterator[_Part]:
    k, s = _ints("k s")
    yield 1, "in bounds", (k >= 0, k < s), _valid([k], [s])


def _scan(f: IndexFunctions) -> Iterator[_Part]:
    for rank in _ranks():
        array = _array("A", rank)
        i, s, p = _symbols("i", rank), _symbols("s", rank), z3.Int("p")
        given = (_valid(i, s), p >= 0, p < M.add(i[0], M.number(1)))
        yield rank, "in bounds", given, _valid([p, *i[1:]], s)
        count = i[0] + 1
        taken = array(f.take(M, p, count, s[0]), *i[1:])
        claim = z3.And(count <= s[0], array(p, *i[1:]) == taken)
        yield rank, "plane k folds (k + 1) △ A", given, claim


def _outer(f: IndexFunctions) -> Iterator[_Part]:
    for rank, other in product(_ranks(0), _ranks(0)):
        s, t = _symbols("s", rank), _symbols("t", other)
        i = _symbols("i", rank + other)
        claim = z3.And(_valid(i[:rank], s), _valid(i[rank:], t))
        yield rank, f"with rank {other}: in bounds", (_valid(i, [*s, *t]),), claim


def _inner(f: IndexFunctions) -> Iterator[_Part]:
    for rank, other in product(_ranks(), _ranks()):
        s, t, k = _symbols("s", rank), _symbols("t", other), z3.Int("k")
        i = _symbols("i", rank + other - 2)
        split = rank - 1
        shape = [*s[:-1], *t[1:]]
        given = (_valid(i, shape), t[0] == s[-1], k >= 0, k < s[-1])
        claim = z3.And(_valid([*i[:split], k], s), _valid([k, *i[split:]], t))
        yield rank, f"with rank {other}: in bounds", given, claim


def _omega(f: IndexFunctions) -> Iterator[_Part]:
    for left, right in product(_ranks(0), _ranks(0)):
        frames = OmegaFrames(left, right)
        s, t = _symbols("s", left), _symbols("t", right)
        frame = _symbols("i", frames.result_frame)
        agree = [t[b] == s[a] for a, b in frames.shared_axes()]
        given = (_valid(frame, s if left >= right else t), *agree)
        found = _pick(frame, frames.left_axes()), _pick(frame, frames.right_axes())
        claim = z3.And(_valid(found[0], s), _valid(found[1], t))
        name = f"frames of {left} and {right} axes"
        yield left, f"{name}: in bounds", given, claim
        # One of i and j is empty.
        excess = frame[: len(frame) - frames.common]
        i, j = (excess, []) if left >= right else ([], excess)
        k = frame[len(excess) :]
        claim = z3.And(_equal(found[0], [*i, *k]), _equal(found[1], [*j, *k]))
        yield left, f"{name}: i ++ k and j ++ k", given, claim


def _comprehension(f: IndexFunctions) -> Iterator[_Part]:
    """What is put together and taken apart again when a body is written at an index.

    By the lemma that a remainder is unique, an index that is `q n + r` with
    `0 <= r < n` has the quotient q and the remainder r.
    """
    x, y, m, n, q, r = _ints("x y m n q r")
    divided = y == q * n + r, r >= 0, r < n
    claim = x * (m * n) + y == (x * m + q) * n + r
    yield 0, "x m n + y by n: the quotient x m + q, the remainder r", divided, claim
    claim = (q * m + x) * n + y == q * (m * n) + (x * n + y)
    yield 0, "q m + x and y put together: by m n the quotient q", (), claim
    inside = x >= 0, x < m, y >= 0, y < n
    claim = z3.And(x * n + y >= 0, x * n + y <= (m - 1) * n + (n - 1))
    yield 0, "x n + y: below m n", inside, claim
    claim = (x + q) * n + r == x * n + y
    yield 0, "a quotient and its remainder put together", divided, claim


_RULES: dict[str, Callable[[IndexFunctions], Iterator[_Part]]] = {
    "division": _division,
    "gamma": _gamma,
    "gamma-inverse": _gamma_inverse,
    "product": _product,
    "psi": _psi,
    "cell": _cell,
    "take": _take,
    "drop": _drop,
    "cat": _cat,
    "reverse": _reverse,
    "rotate": _rotate,
    "transpose": _transpose,
    "pad": _pad,
    "insert": _insert,
    "reshape": _reshape,
    "recycle": _recycle,
    "ravel": _ravel,
    "compress": _compress,
    "expand": _expand,
    "grade-up": _grade_up,
    "grade-down": _grade_down,
    "reduce": _reduce,
    "scan": _scan,
    "outer": _outer,
    "inner": _inner,
    "omega": _omega,
    "comprehension": _comprehension,
}

WITHOUT_INDEX_REWRITING: dict[str, str] = {
    "constant": "it has no operand: the element at the index is known",
    "iota": "it has no operand to index: an element is an entry of its index",
    "shape": "it asks for an extent of the operand, for no element",
    "dim": "it asks for the rank of the operand, for no element",
    "total": "it asks for extents of the operand, for no element",
    "pointwise": "the operands are indexed as the result is",
    "map": "the operand is indexed as the result is",
    "cast": "the operand is indexed as the result is",
    "where": "the operands are indexed as the result is",
}
"""The laws of which nothing is to be proved, by name, and why."""


def rules() -> list[str]:
    """What is proved: the lemmas, the functions of addresses, and the laws by name."""
    return list(_RULES)


def obligations(
    rule: str | None = None, functions: IndexFunctions | None = None
) -> list[Obligation]:
    """What is to be proved of one rule, or of all.

    Args:
        rule: one of `rules()`.
        functions: the index functions to prove it of, those of the compiler unless
            given.
    """
    functions = IndexFunctions() if functions is None else functions
    return [
        Obligation(name, *part)
        for name in (rules() if rule is None else [rule])
        for part in _RULES[name](functions)
    ]


# What certificates cite

ASSUMED: dict[str, tuple[str, ...]] = {
    "rotate": ("division",),
    "gamma": ("division",),
    "gamma-inverse": ("division", "gamma", "gamma-inverse"),
    "pad": ("division",),
    "reshape": ("division", "gamma", "gamma-inverse", "reshape"),
    "recycle": ("division", "gamma", "gamma-inverse", "reshape", "recycle"),
    "ravel": ("division", "gamma", "gamma-inverse", "reshape", "ravel"),
    "comprehension": ("division",),
}
"""The rules whose obligations the proofs of a rule assume or use instances of.

A rule that is among its own also needs its obligations for fewer axes.
"""

_FUNCTIONS = ("division", "gamma", "gamma-inverse")
"""The lemmas and the functions of addresses: identifiers name them without psi."""

_IN_WORDS = {
    **{"<=": " le ", ">=": " ge ", "<": " lt ", ">": " gt ", "=": " is "},
    **{"++": " cat ", "+": " plus ", "-": " minus ", "'": " inverse "},
    **{"△": " take ", "▽": " drop ", "Φ": " reverse ", "θ": " rotate "},
    **{"⊘": " transpose ", "ψ": " psi ", "γ": " gamma "},
}


def _slug(statement: str) -> str:
    """A statement in lower case letters, digits and hyphens."""
    signs = sorted(_IN_WORDS, key=len, reverse=True)
    # A hyphen inside of a word is no minus, a genitive no inverse.
    text = re.sub(r"(?<=[a-z])-(?=[a-z])|'s\b", " ", statement)
    text = re.sub("|".join(map(re.escape, signs)), lambda m: _IN_WORDS[m[0]], text)
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def cited_as(rule: str) -> str:
    """What identifiers call a rule: its law, if it has one."""
    return rule if rule in _FUNCTIONS else f"psi-{rule}"


def rule_of(law: str) -> str:
    """The rule that a law's name stands for."""
    return law.removeprefix("psi-")


@cache
def by_identifier() -> dict[str, Obligation]:
    """All obligations by their identifiers."""
    return {obligation.identifier: obligation for obligation in obligations()}


@cache
def _of_rule(rule: str) -> tuple[Obligation, ...]:
    return tuple(obligations(rule))


def citations(law: str, rank: int) -> tuple[str, ...]:
    """The identifiers of the proofs that justify an application of a law.

    These are the obligations of its rule for the rank it is applied at, or for the next
    lower one if it is about fewer axes; and those of the rules they assume, up to that
    rank.

    Args:
        law: the name of the law, such as `psi-take`.
        rank: the rank of the operand that is indexed.
    """
    found: list[str] = []
    rule = rule_of(law)
    if rule not in _RULES:
        return ()
    own = _of_rule(rule)
    ranks = [obligation.rank for obligation in own if obligation.rank <= rank]
    at = max(ranks, default=None)
    found += [obligation.identifier for obligation in own if obligation.rank == at]
    for other in ASSUMED.get(rule, ()):
        found += [
            obligation.identifier
            for obligation in _of_rule(other)
            if obligation.rank <= rank
        ]
    return tuple(dict.fromkeys(found))


def is_unproved(law: str, rank: int) -> bool:
    """Whether something is to be proved of a law at a rank, and there is no proof.

    An array of rank 0 has no index that could be rewritten.
    """
    rule = rule_of(law)
    if rule in WITHOUT_INDEX_REWRITING:
        return False
    if rule not in _RULES:
        return True
    ranks = {obligation.rank for obligation in _of_rule(rule)}
    if rank > LARGEST_RANK:
        return max(ranks) == LARGEST_RANK
    return rank > 0 and min(ranks) > rank
