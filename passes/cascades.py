"""Which folds of an expression can share a pass, and how: the derivation of cascades.

Folds over the same indices are placed into passes, in the order of their dependences. A
fold that depends on none of a pass's folds joins it as it is. One that does is looked
at with the *pivots* in its body: the maximal parts that do not depend on the folded
index but on folds of the pass. In this order:

1. *Deferral*: a factor of a sum that holds pivots made of sums leaves the fold:
   `sum of g(p) h = h (sum of g(p))`. (Made of a maximum, it was put there to keep
   numbers small, and stays.) Where the sum is 0, so is the result, though h may then be
   infinite: a sum over nothing times one over nothing.
2. *Transport*: see `transport`. By a maximum or minimum only what is relative to it, so
   that it is neither too large nor too small for a float on the way.
3. *Splitting*: a sum in the body that separates pivots from the data becomes two folds:
   `sum of g(p) (a(p) + h) = sum of g(p) a(p) + h (sum of g(p))`. Only when there is no
   transport: it cancels digits. So is a sum of terms that have pivots of their own:
   `sum of (a(p) + b(p)) h = sum of a(p) h + sum of b(p) h`, if both then move.

Otherwise the fold stays in a later pass, and the reason is noted.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

from xdsl.dialects import arith
from xdsl.dialects.builtin import StringAttr, i64
from xdsl.ir import Attribute

from moa_dialect.lazy import sympy as sp
from moa_dialect.ops.function import has_identity, print_name
from moa_dialect.passes.means import as_mean, is_mean_of
from moa_dialect.passes.simplify import (
    assume,
    chain,
    compare,
    factors,
    predicate_of,
    product,
    summands,
    total,
)
from moa_dialect.passes.symbolic import (
    ROUNDED,
    NotReal,
    from_sympy,
    is_real,
    is_rounding,
    is_understood,
    name_in,
    real,
    to_sympy,
)
from moa_dialect.passes.terms import Choice, Term, Terms, contains, walk
from moa_dialect.passes.transport import (
    NoTransport,
    Pivot,
    Transport,
    exponential_of,
    find,
    is_bounded,
    pivot_symbols,
    quotient_of,
    symbol,
)

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""

ADD = StringAttr("add")
MAX = StringAttr("max")

SPLIT = "splitting: a sum in a fold that separates pivots from the data"
PARTED = "splitting: a sum in a fold of parts that have other pivots"


@dataclass(frozen=True)
class Move:
    """How an accumulator follows its pivots.

    Attributes:
        factors: what the accumulators are multiplied by; None stands for the count.
        added: what is added.
    """

    factors: tuple[tuple[Expression, Term | None], ...]
    added: Expression


@dataclass
class Group:
    """Accumulators of a pass that depend on the same pivots.

    Attributes:
        pivots: the pivots; none in the first group.
        symbols: the symbols of each pivot, by their terms.
        parameters: other symbols in the moves, with their terms.
        moves: for each accumulator, a fold, how it moves; None without pivots.
        rules: for each accumulator the rule its move comes from.
        means: for each pivot that is the mean of a sum in the pass: the sum, and the
            sum of the distances from the mean, which is an accumulator here.
        seen: for accumulators that a condition leaves elements out of, and whose
            factors may be infinite: an accumulator that is 0 as long as nothing else
            has been met.
    """

    pivots: list[Term] = field(default_factory=list[Term])
    symbols: dict[Term, Pivot] = field(default_factory=dict[Term, Pivot])
    parameters: dict[Expression, Term] = field(default_factory=dict[Any, Term])
    moves: dict[Term, Move | None] = field(default_factory=dict[Term, Move | None])
    rules: dict[Term, str] = field(default_factory=dict[Term, str])
    means: dict[Term, tuple[Term, Term]] = field(
        default_factory=dict[Term, tuple[Term, Term]]
    )
    seen: dict[Term, Term] = field(default_factory=dict[Term, Term])


@dataclass
class Pass:
    """One loop over `lower <= p < upper` and what it accumulates."""

    lower: Term
    upper: Term
    groups: list[Group] = field(default_factory=list[Group])

    @property
    def folds(self) -> set[Term]:
        """The folds that it computes."""
        return {fold for group in self.groups for fold in group.moves}

    @property
    def is_cascade(self) -> bool:
        """Whether it computes more than one fold, or one with pivots."""
        return len(self.folds) > 1 or any(group.pivots for group in self.groups)

    def free_group(self) -> Group:
        """The group without pivots."""
        for group in self.groups:
            if not group.pivots:
                return group
        self.groups.insert(0, Group())
        return self.groups[0]


class _Rewritten(Exception):
    """The outputs were written in another way: start again."""


@dataclass
class Derivation:
    """The derivation of passes for the folds of some outputs.

    Attributes:
        terms: where terms are made.
        outputs: the expressions; deferral and splitting rewrite them.
        in_scope: whether a fold is to be placed.
        strict: keep the value of every fold as it is, bit by bit.
        largest_rank: how many accumulators one fold may become.
        flags: the terms that are 1 or 0 for a choice in a body.
        may_split: whether sums in bodies may be split.
    """

    terms: Terms
    outputs: list[Term]
    in_scope: Callable[[Term], bool]
    strict: bool = False
    largest_rank: int = 6
    passes: list[Pass] = field(default_factory=list[Pass])
    notes: dict[str, None] = field(default_factory=dict[str, None])
    refusals: dict[str, None] = field(default_factory=dict[str, None])
    flags: set[Term] = field(default_factory=set[Term])
    may_split: bool = True

    def run(self) -> None:
        """Place all folds; `passes` and `outputs` are the result.

        What was split has lost digits: it is kept only if there are fewer passes so.
        """
        outputs, self.may_split = self.outputs, True
        self._derive()
        if any(note in self.notes for note in (SPLIT, PARTED)):
            kept = self.passes, self.outputs, self.notes, self.refusals, self.flags
            self.passes, self.outputs, self.may_split = [], outputs, False
            self.notes, self.refusals, self.flags = {}, {}, set()
            self._derive()
            if len(kept[0]) < len(self.passes):
                self.passes, self.outputs, self.notes, self.refusals, self.flags = kept
        for one in self.passes:
            for group in one.groups:
                for pivot in group.pivots:
                    self._anchor(one, group, pivot)

    def _derive(self) -> None:
        """Place all folds of the outputs, which are rewritten until they all are."""
        for _ in range(1000):
            self.passes.clear()
            self.refusals.clear()
            try:
                for fold in self.folds():
                    self._place(fold)
                for one in self.passes:
                    for group in one.groups:
                        for pivot in group.pivots:
                            self._as_mean(one, group, pivot)
            except _Rewritten:
                continue
            break
        else:
            raise AssertionError("the derivation of passes does not end")

    def folds(self) -> list[Term]:
        """The folds to be placed, each after those it depends on."""
        found: dict[Term, None] = {}

        def visit(term: Term) -> None:
            if term in seen:
                return
            seen.add(term)
            sides = term.args[:1] if isinstance(term.kind, Choice) else term.args
            for arg in sides:
                visit(arg)
            if term.is_fold and self.in_scope(term):
                found[term] = None

        seen: set[Term] = set()
        for output in self.outputs:
            visit(output)
        return list(found)

    def chain_length(self) -> int:
        """How many passes the folds take one after the other, each by itself."""
        length: dict[Term, int] = {}
        for fold in self.folds():
            before = [
                length[other]
                for other in walk(*fold.args)
                if other in length and other.args[:2] == fold.args[:2]
            ]
            length[fold] = 1 + max(before, default=0)
        deepest: dict[tuple[Term, ...], int] = {}
        for fold, number in length.items():
            domain = fold.args[:2]
            deepest[domain] = max(number, deepest.get(domain, 0))
        return sum(deepest.values())

    def _place(self, fold: Term) -> None:
        inside = set(walk(*fold.args))
        first = 0
        for number, one in enumerate(self.passes):
            if inside & one.folds:
                first = number
        for one in self.passes[first:]:
            bounds = set(walk(*fold.args[:2]))
            if (one.lower, one.upper) != fold.args[:2] or bounds & one.folds:
                continue
            if not all(has_identity(f.function) for f in (fold, *one.folds)):
                continue
            if not inside & one.folds:
                one.free_group().moves[fold] = None
                return
            if self._join(fold, one):
                return
        self.passes.append(Pass(fold.args[0], fold.args[1]))
        self.passes[-1].free_group().moves[fold] = None

    def _join(self, fold: Term, one: Pass) -> bool:
        """Let a fold that depends on folds of a pass join it, if it can."""
        if self.strict:
            self._refuse(fold, "strict: the value of a fold is kept as it is")
            return False
        index, body = self.terms.open(fold)
        if fold.function == ADD and is_real(fold):
            self._defer(fold, index, body, one, "add")
        pivots = pivots_of(body, index, one.folds)
        try:
            transport, symbols, names = self._transport(fold, index, body, pivots, one)
            if (factor := quotient_of(transport, list(symbols.values()))) is not None:
                if fold.function == ADD:
                    self._defer(fold, index, body, one, None)
                raise NoTransport(f"T = {factor} has no value for a pivot of 0")
            self._check_size(fold, index, body, one, symbols, names, transport)
            self._add(fold, index, one, pivots, symbols, names, transport)
        except (NoTransport, NotReal) as reason:
            if fold.function == ADD and is_real(fold) and self.may_split:
                self._split(fold, index, body, one, (ADD,))
                self._part(fold, index, body, one)
                self._split(fold, index, body, one, None)
            self._refuse(fold, str(reason))
            return False
        return True

    def _refuse(self, fold: Term, reason: str) -> None:
        name = print_name(fold.function)
        self.refusals[f"a fold of {name} stays in a later pass: {reason}"] = None

    def _note(self, note: str) -> None:
        self.notes[note] = None

    # Deferral and splitting.

    def _rewrite(self, old: Term, new: Term) -> None:
        self.outputs = [self.terms.replace(o, {old: new}) for o in self.outputs]
        raise _Rewritten

    def _defer(
        self, fold: Term, index: str, body: Term, one: Pass, made_of: str | None
    ) -> None:
        """`sum of g(p) h = h (sum of g(p))` for factors h with pivots.

        With `made_of` the pivots have to be made of folds of that operation.
        """
        above, below, negative = factors(body)

        def leaves(factor: Term) -> bool:
            if index in factor.free or not contains(factor, one.folds):
                return False
            return made_of is None or any(
                f.function == StringAttr(made_of)
                for f in direct_folds(factor, one.folds)
            )

        out = [f for f in above if leaves(f)], [f for f in below if leaves(f)]
        if not (out[0] or out[1]):
            return
        kept = (
            [f for f in above if f not in out[0]],
            [f for f in below if f not in out[1]],
        )
        if kept[0] or kept[1]:
            inner = product(self.terms, *kept)
        else:
            inner = self.terms.number(1.0, body.type)
        if negative:
            inner = real(self.terms, arith.NegfOp, inner)
        rest = self.terms.fold(ADD, fold.args[0], fold.args[1], index, inner)
        self._note("deferral: a factor of a sum that no index changes leaves the fold")
        self._rewrite(fold, self._weighted(rest, *out))

    def _weighted(
        self, rest: Term, above: Sequence[Term], below: Sequence[Term]
    ) -> Term:
        """`rest * above / below`, 0 where rest is 0 and no factor is NaN.

        Whatever the factors are it is 0 where rest counts nothing.
        """
        terms = self.terms
        whole = product(terms, [rest, *above], below)
        zero, one = terms.number(0.0, rest.type), terms.number(1.0, rest.type)
        numerator = chain(terms, arith.MulfOp, above) or one
        denominator = chain(terms, arith.MulfOp, below) or one
        guard = compare(terms, "oeq", rest, zero)
        if not (rest.is_fold and rest.args[2].number == 1):
            are_numbers = compare(terms, "ord", numerator, denominator)
            guard = terms.compute(arith.AndIOp, (guard, are_numbers))
        return terms.select(guard, rest, whole)

    def _split(
        self,
        fold: Term,
        index: str,
        body: Term,
        one: Pass,
        made_of: Sequence[Attribute] | None,
    ) -> None:
        """`sum of g (a + h) = sum of g a + h sum of g` for h with pivots, without p.

        With `made_of` the pivots have to be made of folds of these operations only: a
        maximum beside the data keeps it small, and stays there if it can.
        """
        above, below, negative = factors(body)
        for position, factor in enumerate(above):
            parts = summands(factor)
            apart = [
                part
                for part in parts
                if index not in part[1].free
                and contains(part[1], one.folds)
                and (
                    made_of is None
                    or all(
                        f.function in made_of for f in direct_folds(part[1], one.folds)
                    )
                )
            ]
            rest = [part for part in parts if part not in apart]
            if not apart or not rest:
                continue
            others = [*above[:position], *above[position + 1 :]]
            weight = [product(self.terms, others, below)] if others or below else []
            unit = self.terms.number(1.0, body.type)
            folded = [
                self.terms.fold(
                    ADD,
                    fold.args[0],
                    fold.args[1],
                    index,
                    product(self.terms, whole, ()) if whole else unit,
                )
                for whole in ([*weight, total(self.terms, rest)], weight)
            ]
            separate = self._weighted(folded[1], [total(self.terms, apart)], ())
            new = real(self.terms, arith.AddfOp, folded[0], separate)
            if negative:
                new = real(self.terms, arith.NegfOp, new)
            self._note(SPLIT)
            self._rewrite(fold, new)

    def _part(self, fold: Term, index: str, body: Term, one: Pass) -> None:
        """`sum of g (a + b) = sum of g a + sum of g b`, a and b with other pivots.

        Only if each of the sums then has a transport.
        """
        above, below, negative = factors(body)
        for position, factor in enumerate(above):
            found: dict[frozenset[Term], list[tuple[bool, Term]]] = {}
            for part in summands(factor):
                pivots = frozenset(pivots_of(part[1], index, one.folds))
                found.setdefault(pivots, []).append(part)
            if len(found) < 2:
                continue
            others = [*above[:position], *above[position + 1 :]]
            bodies = [
                product(self.terms, [total(self.terms, parts), *others], below)
                for parts in found.values()
            ]
            if not all(self._is_moved(fold, index, b, one) for b in bodies):
                continue
            sums = [self.terms.fold(ADD, *_bounds(fold), index, b) for b in bodies]
            new = chain(self.terms, arith.AddfOp, sums)
            assert new is not None
            if negative:
                new = real(self.terms, arith.NegfOp, new)
            self._note(PARTED)
            self._rewrite(fold, new)

    def _is_moved(self, fold: Term, index: str, body: Term, one: Pass) -> bool:
        """Whether there is a transport for a sum once factors have left it."""
        above, below, _ = factors(body)
        above, below = (
            [f for f in side if index in f.free or not contains(f, one.folds)]
            for side in (above, below)
        )
        if not above and not below:
            return True
        body = product(self.terms, above, below)
        pivots = pivots_of(body, index, one.folds)
        try:
            transport, symbols, names = self._transport(fold, index, body, pivots, one)
            if quotient_of(transport, list(symbols.values())) is not None:
                return False
            self._check_size(fold, index, body, one, symbols, names, transport)
        except (NoTransport, NotReal):
            return False
        return True

    # Transport.

    def _transport(
        self,
        fold: Term,
        index: str,
        body: Term,
        pivots: Sequence[Term],
        one: Pass,
    ) -> tuple[Transport, dict[Term, Pivot], dict[Expression, Term]]:
        """The transport of a fold, its pivots' symbols, and what other symbols mean."""
        if not isinstance(fold.function, StringAttr) or not is_real(fold):
            raise NoTransport("only folds of floats by an operation of the table move")
        if any(contains(bound, set(pivots)) for bound in fold.args[:2]):
            raise NoTransport("its bounds depend on the pass")
        if any(not is_real(pivot) for pivot in pivots):
            raise NoTransport("a pivot is not a float")
        if _depends_otherwise(body, set(pivots), one.folds):
            raise NoTransport("it depends on a fold of the pass by more than floats")
        symbols = {
            pivot: pivot_symbols(number, is_nonnegative(pivot))
            for number, pivot in enumerate(pivots)
        }
        known = {pivot: pair.old for pivot, pair in symbols.items()}
        names: dict[Expression, Term] = {}

        def atom(term: Term) -> Expression | None:
            if contains(term, set(pivots)):
                return None
            if not is_real(term):
                raise NotReal(f"{term.type} is no type of real numbers")
            return name_in(names, term)

        is_rounded = self._rounding(fold, index)
        expression = to_sympy(
            self._flags(body, set(pivots)), known, atom, rounded=is_rounded
        )
        data = [name for name, term in names.items() if index in term.free]
        found = find(
            fold.function.data,
            expression,
            data,
            [symbols[pivot] for pivot in pivots],
            self.largest_rank,
        )
        if found.rule != "rank one" and any(
            is_rounded(term) and contains(term, set(pivots)) for term in walk(body)
        ):
            raise NoTransport(ROUNDED)
        return found, symbols, names

    def _rounding(self, fold: Term, index: str) -> Callable[[Term], bool]:
        """What tells the roundings within a fold that stand for the number itself."""

        def is_at_most(value: Term, top: Term) -> bool:
            """Whether a maximum over the same indices has a value among others."""
            if top.computes("arith.maximumf"):
                return any(is_at_most(value, arg) for arg in top.args)
            if not top.is_fold or top.function != MAX or top.args[:2] != fold.args[:2]:
                return False
            return self.terms.open(top, index)[1] is value

        return lambda term: is_rounding(term, is_at_most)

    def _check_size(
        self,
        fold: Term,
        index: str,
        body: Term,
        one: Pass,
        symbols: dict[Term, Pivot],
        names: dict[Expression, Term],
        transport: Transport,
    ) -> None:
        """Check that what is folded keeps its size whatever extreme its pivot is.

        On the way a maximum or a minimum may be anything, and as long as infinities are
        all that has been met it is the largest float. What is folded is as large as
        before if it is relative to the pivot, and that one is the extreme of the very
        data: at x = r the body, or its factor with r, does not depend on r. Otherwise
        it is too large or too small for a float where in the end it is not: so it is
        with `exp(x + max(x))`, or for y that is not below the maximum with
        `exp(y - max(x))`.

        Raises:
            NoTransport: if it is not so.
        """
        if fold.function != ADD:
            signed = {
                name: sp.Symbol(name.name, nonnegative=True)
                for name, term in names.items()
                if is_nonnegative(term)
            }
            ways = [direction_of(pivot, one) for pivot in symbols]
            for factor in (factor for row in transport.moves for factor in row):
                power = exponential_of(factor).subs(signed)
                if not is_bounded(power, list(symbols.values()), ways):
                    raise NoTransport(
                        f"T = {factor} may be infinite where the accumulator is 0"
                    )
        # First in the symbols of the transport, then in those of plain data.
        if not any(
            self._is_relative(fold, index, body, one, symbols, known)
            for known in (names, {})
        ):
            raise NoTransport("a pivot is not the extreme of the data beside it")

    def _is_relative(
        self,
        fold: Term,
        index: str,
        body: Term,
        one: Pass,
        symbols: dict[Term, Pivot],
        names: dict[Expression, Term],
    ) -> bool:
        """Whether a body does not depend on extremes where data are equal to them."""
        names = dict(names)
        is_rounded = self._rounding(fold, index)
        known = {pivot: pair.old for pivot, pair in symbols.items()}
        extremes = [
            pivot
            for pivot in symbols
            if any(f.function in _ENDS for f in direct_folds(pivot, one.folds))
        ]
        ends = [known[pivot] for pivot in extremes]

        def atom(term: Term) -> Expression | None:
            is_named = any(other is term for other in names.values())
            if not is_named and (contains(term, set(symbols)) or is_understood(term)):
                return None
            return name_in(names, term)

        def express(term: Term) -> Expression:
            plain = self._flags(term, set(symbols))
            return to_sympy(plain, known, atom, rounded=is_rounded)

        def holds(value: Expression, pivots: Sequence[Term]) -> bool:
            if not pivots:
                is_free = value.free_symbols.isdisjoint(ends)
                return is_free or sp.simplify(value).free_symbols.isdisjoint(ends)
            pivot, *further = pivots
            for data in self._data_below(pivot, index, body, one, set(symbols)):
                try:
                    end = express(data).replace(sp.Abs, lambda a: a)
                except NotReal:
                    continue
                for x in sorted(end.free_symbols & names.keys(), key=str):
                    slope = sp.diff(end, x)
                    if index not in names[x].free or slope == 0 or slope.has(x):
                        continue
                    at = x + (known[pivot] - end) / slope
                    if holds(value.subs(x, sp.expand(at)), further):
                        return True
            return False

        whole = express(body)
        return holds(whole, extremes) or all(
            holds(_depending(term, ends), extremes) for term in sp.Add.make_args(whole)
        )

    def _data_below(
        self, pivot: Term, index: str, body: Term, one: Pass, pivots: set[Term]
    ) -> list[Term]:
        """The data that a pivot is the extreme of, for each index that has a part.

        Only one side of a choice counts, if the body has no pivots on the other.
        """
        found: dict[Term, None] = {}

        def see(data: Term) -> None:
            found[data] = None
            if isinstance(data.kind, Choice) or data.computes("arith.select"):
                condition, *sides = data.args
                for side, holds in zip(sides, (True, False), strict=True):
                    rest = assume(self.terms, body, condition, not holds)
                    if not contains(rest, pivots):
                        see(side)

        def visit(term: Term) -> None:
            if term in one.folds:
                see(self.terms.open(term, index)[1])
            elif term.computes("arith.maximumf", "arith.minimumf"):
                for arg in term.args:
                    visit(arg)
            elif (finite := unless_infinite(term)) is not None:
                visit(finite)
            else:
                folds = direct_folds(term, one.folds)
                inside = {f: self.terms.open(f, index)[1] for f in folds}
                if len(folds) == 1:
                    see(self.terms.replace(term, inside))

        visit(pivot)
        return list(found)

    def _flags(self, body: Term, pivots: set[Term]) -> Term:
        """Choices between values with pivots as products with 0 or 1.

        A value without pivots stays a choice: it is not multiplied where it is left
        out, since it may be infinite there.
        """
        terms = self.terms

        def rule(term: Term) -> Term:
            if not term.computes("arith.select") or not is_real(term):
                return term
            if term in pivots:
                return term
            condition, then, otherwise = term.args
            if contains(condition, pivots) or not contains(term, pivots):
                return term
            one, zero = terms.number(1.0, term.type), terms.number(0.0, term.type)
            parts: list[Term] = []
            for side, flags in ((then, (one, zero)), (otherwise, (zero, one))):
                if side.number == 0:
                    continue
                if not contains(side, pivots):
                    values = (side, zero) if side is then else (zero, side)
                    parts.append(terms.select(condition, *values))
                    continue
                flag = terms.select(condition, *flags)
                self.flags.add(flag)
                parts.append(real(terms, arith.MulfOp, flag, side))
            return chain(terms, arith.AddfOp, parts) or zero

        return terms.rewrite(body, rule)

    def _add(
        self,
        fold: Term,
        index: str,
        one: Pass,
        pivots: Sequence[Term],
        symbols: dict[Term, Pivot],
        names: dict[Expression, Term],
        transport: Transport,
    ) -> None:
        """Add the accumulators of a transported fold to a pass."""
        known = dict(names) | {pair.old: pivot for pivot, pair in symbols.items()}
        folds: list[Term | None] = []
        for number, basis in enumerate(transport.basis):
            if len(transport.basis) == 1:
                folds.append(fold)
            elif basis == 1:
                folds.append(None)
            elif (
                number == 0
                and transport.coefficients[0] == 1
                and not any(transport.coefficients[1:])
            ):
                folds.append(fold)
            else:
                element = self._element(basis, known, fold)
                folds.append(
                    self.terms.fold(ADD, fold.args[0], fold.args[1], index, element)
                )
        value = self._combined(fold, transport, folds, known)
        if value is not fold:
            self._note("finite rank: a fold is a sum of other folds")
            self._rewrite(fold, value)
        group = self._group(one, pivots, symbols)
        renamed = {
            mine: theirs
            for pivot in pivots
            for mine, theirs in (
                (symbols[pivot].old, group.symbols[pivot].old),
                (symbols[pivot].new, group.symbols[pivot].new),
            )
        }
        for name, term in names.items():
            if index not in term.free:
                number = len(group.parameters)
                renamed[name] = next(
                    (n for n, other in group.parameters.items() if other is term),
                    symbol(f"c{number}"),
                )
                group.parameters[renamed[name]] = term
        for row, added, accumulator in zip(
            transport.moves, transport.added, folds, strict=True
        ):
            if accumulator is not None and accumulator not in group.moves:
                group.moves[accumulator] = Move(
                    tuple(
                        (factor.subs(renamed, simultaneous=True), other)
                        for factor, other in zip(row, folds, strict=True)
                        if factor != 0
                    ),
                    added.subs(renamed, simultaneous=True),
                )
                group.rules[accumulator] = transport.rule

    def _element(
        self, basis: Expression, known: dict[Expression, Term], fold: Term
    ) -> Term:
        """What an accumulator folds: what a choice leaves out is not multiplied."""
        for name in sorted(basis.free_symbols, key=str):
            term = known.get(name)
            if term is None or term not in self.flags:
                continue
            rest, power = basis.as_coeff_exponent(name)
            if power.is_Integer and power > 0 and not rest.has(name):
                value = self._element(rest, known, fold)
                condition, then, otherwise = term.args
                chosen = (value, otherwise) if then.number == 1 else (then, value)
                return self.terms.select(condition, *chosen)
        return from_sympy(basis, known, self.terms, fold.type)

    def _combined(
        self,
        fold: Term,
        transport: Transport,
        folds: Sequence[Term | None],
        known: dict[Expression, Term],
    ) -> Term:
        """A fold as the sum of its accumulators."""
        parts: list[Term] = []
        for coefficient, accumulator in zip(transport.coefficients, folds, strict=True):
            if coefficient == 0:
                continue
            value = self.count(fold) if accumulator is None else accumulator
            if coefficient != 1:
                factor = from_sympy(coefficient, known, self.terms, fold.type)
                value = real(self.terms, arith.MulfOp, factor, value)
            parts.append(value)
        return chain(self.terms, arith.AddfOp, parts) or fold

    def count(self, fold: Term) -> Term:
        """How many indices a fold is over, as a float of its type."""
        terms = self.terms
        lower, upper = fold.args[:2]
        span = upper
        if lower.number != 0:
            flags = {"overflowFlags": arith.IntegerOverflowAttr("none")}
            span = terms.compute(arith.SubiOp, (upper, lower), properties=flags)
            zero = terms.number(0, span.type)
            span = terms.compute(arith.MaxSIOp, (span, zero))
        return as_float(terms, span, fold)

    def _group(
        self, one: Pass, pivots: Sequence[Term], symbols: dict[Term, Pivot]
    ) -> Group:
        """The group of a pass with these pivots, made if there is none."""
        for number, group in enumerate(one.groups):
            if not set(pivots) & set(group.pivots):
                continue
            later = {f for other in one.groups[number:] for f in other.moves}
            if any(contains(pivot, later) for pivot in pivots):
                continue
            break
        else:
            group = Group()
            one.groups.append(group)
        for pivot in pivots:
            if pivot not in group.symbols:
                positive = bool(symbols[pivot].old.is_positive)
                group.symbols[pivot] = pivot_symbols(len(group.pivots), positive)
                group.pivots.append(pivot)
        return group

    # Means.

    def _as_mean(self, one: Pass, group: Group, pivot: Term) -> None:
        """Write a pivot that is affine in a sum as a mean, which is then carried.

        Over nothing it may be another value: then only folds read the mean.
        """
        of = self._only_sum(one, pivot)
        if of is None or of.type != pivot.type or is_mean_of(pivot, of, one.upper):
            return
        dependent = [fold for fold in group.moves if contains(fold, {pivot})]
        rules = {group.rules[fold] for fold in dependent}
        if not rules or (is_nonnegative(pivot) and "finite rank" not in rules):
            return
        found = as_mean(self.terms, pivot, of, self.count(of))
        if found is None:
            return
        mean, is_same = found
        self._note("a pivot that is affine in a sum is the mean of other data")
        new = {pivot: mean}
        if not is_same:
            new = {fold: self.terms.replace(fold, new) for fold in dependent}
        self.outputs = [self.terms.replace(output, new) for output in self.outputs]
        raise _Rewritten

    def _only_sum(self, one: Pass, pivot: Term) -> Term | None:
        """The sum without pivots that a pivot is made of, if there is just one."""
        free = one.free_group().moves
        sums = [f for f in direct_folds(pivot, one.folds) if f in free]
        if len(sums) != 1 or sums[0].function != ADD or one.lower.number != 0:
            return None
        return sums[0]

    def _anchor(self, one: Pass, group: Group, pivot: Term) -> None:
        """Carry a mean itself instead of a sum: `r' = r + (sum of (g - r)) / count`.

        The sum of the data would lose the digits that the distances keep. Any pivots
        may be used on the way, as long as the last one is the one that is wanted.
        """
        of = self._only_sum(one, pivot)
        if of is None or not is_mean_of(pivot, of, one.upper):
            return
        index, body = self.terms.open(of)
        distance = real(self.terms, arith.SubfOp, body, pivot)
        distances = self.terms.fold(ADD, one.lower, one.upper, index, distance)
        if distances not in group.moves:
            pair = group.symbols[pivot]
            one_, shift = sp.Integer(1), pair.old - pair.new
            group.moves[distances] = Move(
                ((one_, distances), (shift, None)), sp.Integer(0)
            )
            group.rules[distances] = "finite rank"
        group.means[pivot] = (of, distances)


def _depending(product: Expression, symbols: Sequence[Expression]) -> Expression:
    """The factors of a product that depend on some symbols."""
    factors = sp.Mul.make_args(product)
    return sp.Mul(*(f for f in factors if not f.free_symbols.isdisjoint(symbols)))


def _bounds(fold: Term) -> tuple[Term, Term]:
    return fold.args[0], fold.args[1]


def as_float(terms: Terms, count: Term, like: Term) -> Term:
    """A number of indices as a float of the type of another term."""
    whole = terms.compute(arith.IndexCastOp, (count,), i64)
    return terms.compute(arith.SIToFPOp, (whole,), like.type)


def direct_folds(term: Term, folds: set[Term]) -> list[Term]:
    """The folds among these that a term is computed from without another between."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term in folds:
            found[term] = None
            return
        for arg in term.args:
            visit(arg)

    visit(term)
    return list(found)


def unless_infinite(term: Term) -> Term | None:
    """The value of a choice that puts a number for it only where it is infinite."""
    if not term.computes("arith.select") or term.args[1].number is None:
        return None
    condition, _, value = term.args
    if not condition.computes("arith.cmpf") or predicate_of(condition) != "oeq":
        return None
    left, right = condition.args
    if left.computes("math.absf"):
        (left,) = left.args
    is_infinite = left is value and abs(right.number or 0) == inf
    return value if is_infinite else None


def pivots_of(body: Term, index: str, folds: set[Term]) -> list[Term]:
    """The maximal parts of a body with folds of a pass but without its index."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if not contains(term, folds):
            return
        if index not in term.free and is_real(term):
            found[term] = None
            return
        for arg in term.args:
            visit(arg)

    visit(body)
    return list(found)


def _depends_otherwise(body: Term, pivots: set[Term], folds: set[Term]) -> bool:
    """Whether a body needs folds of a pass by anything but its pivots."""
    if body in pivots or not contains(body, folds):
        return False
    return body in folds or any(
        _depends_otherwise(arg, pivots, folds) for arg in body.args
    )


def is_nonnegative(term: Term) -> bool:
    """Whether a term is never below 0, by its signs; but a maximum over nothing is."""
    if (number := term.number) is not None:
        return number >= 0
    if term.is_fold:
        return term.function in _SIGNLESS and is_nonnegative(term.args[2])
    if term.computes("math.absf", "math.exp", "math.exp2", "math.sqrt"):
        return True
    if term.computes("arith.mulf") and term.args[0] is term.args[1]:
        return True
    if term.computes("arith.mulf", "arith.divf", "arith.addf", "arith.minimumf"):
        return all(map(is_nonnegative, term.args))
    if term.computes("arith.maximumf"):
        return any(map(is_nonnegative, term.args))
    return term.computes("arith.extf") and is_nonnegative(term.args[0])


def direction_of(pivot: Term, one: Pass) -> int:
    """How a pivot moves during a pass: 1 if it never falls, -1 if it never rises.

    It is 0 if neither is known. What the pass does not change has both: 0 too, and is
    looked for only as a part of something that moves.
    """
    folds = one.folds
    free = {fold for g in one.groups if not g.pivots for fold in g.moves}

    def visit(term: Term) -> int | None:
        if not contains(term, folds):
            return 0
        if term in folds:
            name = term.function
            if term not in free or name not in _ENDS:
                return None
            return _ENDS[name]
        if term.computes(*_RISING):
            found = {visit(arg) for arg in term.args} - {0}
            return found.pop() if len(found) == 1 else None
        if term.computes("arith.negf"):
            found = visit(term.args[0])
            return None if found is None else -found
        if term.computes("arith.subf"):
            left, right = map(visit, term.args)
            if left is None or right is None or left == right:
                return None
            return left or -right
        if term.computes("arith.mulf", "arith.divf"):
            left, right = term.args
            if term.computes("arith.mulf") and contains(right, folds):
                left, right = right, left
            if contains(right, folds) or not is_nonnegative(right):
                return None
            return visit(left)
        return None

    return visit(pivot) or 0


_ENDS = {StringAttr("max"): 1, StringAttr("min"): -1}
_RISING = (
    *("arith.addf", "arith.maximumf", "arith.minimumf", "arith.extf"),
    *("math.exp", "math.exp2", "math.log", "math.sqrt"),
)

_SIGNLESS = tuple(StringAttr(name) for name in ("add", "max", "min", "mul"))
