"""Transport: how accumulators of a fold follow the pivot that its body depends on.

For a fold of `f(x; r)` over x, with r a pivot that is known only when the pass is over,
a transport is a map T(r -> r') of accumulators with

- (C1) `T(r -> r') f(x; r) = f(x; r')` and
- (C2) `T(a + b) = T a + T b` for + the fold's function, whose identity element T keeps.

Then partial results for one pivot are carried over to the next one, and folds that
depend on each other need one pass. It is found symbolically, in this order:

1. *rank one*: `f(x; r') / f(x; r)` does not depend on x. That quotient, simplified
   before it is ever evaluated, is T for sums, and if it is positive for max and min.
   It must not divide by what may be 0 for a pivot on the way, if not for the last.
2. *added*: `f(x; r') - f(x; r)` does not depend on x: T for max and min.
3. *finite rank*, for sums: f is a function of `u = x - c r` alone, and the products of
   powers and exponentials of u it consists of go over into finitely many of their kind
   when u goes to u + d. They are the accumulators, the coefficients are T. (A linear
   summary of fixed size exists for no other functions of u: Levi-Civita; Anselone and
   Korevaar 1964.) With several pivots, each has its own u and d, of one x or several.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from moa_dialect.lazy import sympy as sp

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""


@dataclass(frozen=True)
class Pivot:
    """The symbols for one pivot: before and after it moves."""

    old: Expression
    new: Expression


def pivot_symbols(number: int, positive: bool) -> Pivot:
    """The symbols for pivot `number`: r0 and r0'."""
    name = f"r{number}"
    if positive:
        return Pivot(
            sp.Symbol(name, positive=True), sp.Symbol(f"{name}'", positive=True)
        )
    return Pivot(sp.Symbol(name, real=True), sp.Symbol(f"{name}'", real=True))


def symbol(name: str) -> Expression:
    """A symbol for a value that does not depend on a pivot."""
    return sp.Symbol(name, real=True)


class NoTransport(Exception):
    """There is no transport, or none of the kinds that are looked for."""


@dataclass(frozen=True)
class Transport:
    """A transport of the accumulators that a fold is computed from.

    The fold is the sum of `coefficients[k]` times accumulator k; accumulator k folds
    `basis[k]`. Its new value is the sum of `moves[k][l]` times accumulator l, plus
    `added[k]`. Where a basis is 1, its accumulator is the count. Expressions are over
    the symbols of the body and the pivots'.

    Attributes:
        rule: how it was found: rank one, added or finite rank.
        coefficients: how the fold is put together.
        basis: what the accumulators fold, relative to the pivots.
        moves: for each accumulator its factors for all.
        added: for each accumulator what is added: 0 for a linear transport.
    """

    rule: str
    coefficients: tuple[Expression, ...]
    basis: tuple[Expression, ...]
    moves: tuple[tuple[Expression, ...], ...]
    added: tuple[Expression, ...]


def quotient_of(transport: Transport, pivots: Sequence[Pivot]) -> Expression | None:
    """A factor of a move that divides by a pivot which may be 0; None if none does.

    A pivot may be 0 while it is accumulated, whatever it is in the end; then such a
    factor has no value. One that is never negative starts from the smallest number
    above 0, by which what has been accumulated can be multiplied, but not divided:
    only the pivot it moves to may be a divisor. An exponential is never 0.
    """
    symbols = [pivot.old for pivot in pivots]
    symbols += [pivot.new for pivot in pivots if not pivot.new.is_positive]
    for factor in (*(f for row in transport.moves for f in row), *transport.added):
        # In functions as well: |r / r'| is not written as a quotient.
        for inner in sp.preorder_traversal(sp.together(factor)):
            for part in sp.Mul.make_args(sp.fraction(inner)[1]):
                base, _ = part.as_base_exp()
                if _depends(base, symbols):
                    return factor
    return None


def exponential_of(factor: Expression) -> Expression:
    """The exponentials in a product."""
    found = sp.Integer(1)
    for part in sp.Mul.make_args(factor):
        base, power = part.as_base_exp()
        if isinstance(part, sp.exp) or (base.is_number and not power.is_number):
            found *= part
    return found


def is_bounded(
    factor: Expression, pivots: Sequence[Pivot], directions: Sequence[int]
) -> bool:
    """Whether a factor of a move is known not to overflow while pivots are finite.

    It is at most 1, as exponentials are that fall as the pivots move; these also times
    a difference of pivots, which is taken to have a value itself.

    Args:
        factor: the factor.
        pivots: the pivots that may be in it.
        directions: for each of them 1 if it never falls as it moves, -1 if it never
            rises, 0 if neither is known.
    """
    later = {
        pivot.new: pivot.old + way * sp.Symbol(f"t{number}", nonnegative=True)
        for number, (pivot, way) in enumerate(zip(pivots, directions, strict=True))
        if way
    }
    above, below = sp.fraction(sp.together(factor))
    exponent: Expression = sp.Integer(0)
    rest: Expression = sp.Integer(1)
    part: Expression
    for part in sp.Mul.make_args(above):
        base, power = part.as_base_exp()
        if isinstance(part, sp.exp):
            exponent += part.args[0]
        elif base.is_number and base > 1 and not power.is_number:
            exponent += power * sp.log(base)
        elif not isinstance(part, sp.sin | sp.cos):
            rest *= part
    if exponent != 0:
        if not sp.expand(exponent.subs(later)).is_nonpositive:
            return False
        rest = sp.expand(rest)
        parts = sp.Add.make_args(rest)
        symbols = {s for pivot in pivots for s in (pivot.old, pivot.new)}
        if below == 1 and all(part in symbols or -part in symbols for part in parts):
            return True
    larger, smaller = (sp.expand(e.subs(later)) for e in (below, rest))
    if smaller.is_number and larger.is_number:
        return bool(abs(smaller) <= larger)
    return bool(
        larger.is_positive
        and smaller.is_nonnegative
        and sp.expand(larger - smaller).is_nonnegative
    )


def _single(rule: str, body: Expression, factor: Any, added: Any) -> Transport:
    one = sp.Integer(1)
    return Transport(rule, (one,), (body,), ((factor,),), (added,))


def find(
    function: str,
    body: Expression,
    data: Sequence[Expression],
    pivots: Sequence[Pivot],
    largest_rank: int,
) -> Transport:
    """The transport of a fold.

    Args:
        function: the name of the fold's function.
        body: what it folds, over `data`, the pivots and other symbols that do not
            change during the pass.
        data: the symbols that depend on the folded index.
        pivots: the pivots it depends on.
        largest_rank: how many accumulators one fold may take.

    Raises:
        NoTransport: with the first condition that fails.
    """
    return _find(function, body, tuple(data), tuple(pivots), largest_rank)


@cache
def _find(
    function: str,
    body: Expression,
    data: tuple[Expression, ...],
    pivots: tuple[Pivot, ...],
    largest_rank: int,
) -> Transport:
    one, nil = sp.Integer(1), sp.Integer(0)
    if function not in ("add", "max", "min"):
        raise NoTransport(f"no transport is known for folds of {function}")
    if body.has(sp.oo, -sp.oo, sp.zoo, sp.nan):
        raise NoTransport("the body has an infinite constant")
    moved = body.subs({pivot.old: pivot.new for pivot in pivots}, simultaneous=True)
    if function in ("max", "min") and not _varies(moved - body, data):
        difference = sp.simplify(moved - body)
        if not _depends(difference, data):
            return _single("added", body, one, difference)
    quotient = None
    if body != 0 and not _varies(moved / body, data):
        quotient = _simplified(moved / body)
    if quotient is not None and not _depends(quotient, data):
        if function != "add" and not quotient.is_positive:
            raise NoTransport(
                f"f(x; r') / f(x; r) = {quotient} is not known to be positive, so it "
                f"need not keep the order that {function} goes by"
            )
        return _single("rank one", body, quotient, nil)
    if function != "add":
        raise NoTransport(
            f"f(x; r') is neither f(x; r) times nor plus something that does not "
            f"depend on x, so it need not keep the order that {function} goes by"
        )
    return _finite_rank(body, data, pivots, largest_rank)


def _varies(expression: Expression, data: Sequence[Expression]) -> bool:
    """Whether an expression depends on data, as its values at two points show.

    If so no form of it does without them, and none is to be looked for, which takes
    long. If not it still may.
    """
    symbols = sorted(expression.free_symbols, key=str)
    values: list[Expression] = []
    for shift in (0, 3):
        point = {
            symbol: sp.Rational(7 + 4 * n + (shift if symbol in data else 0), 9 + n)
            for n, symbol in enumerate(symbols)
        }
        value = expression.xreplace(point).evalf(30)
        if not (value.is_number and value.is_finite):
            return False
        values.append(value)
    one, other = values
    return bool(abs(one - other) > sp.Float("1e-15") * (abs(one) + abs(other)))


def _simplified(quotient: Expression) -> Expression:
    """A quotient in a simple form, which most are by what powers do alone."""
    combined = sp.powsimp(quotient)
    if all(map(_is_plain, sp.Mul.make_args(combined))):
        return combined
    return sp.powsimp(sp.simplify(quotient))


def _is_plain(factor: Expression) -> bool:
    """Whether a factor is a number, a power of a symbol, or `exp(2 x - y)`."""
    base, exponent = factor.as_base_exp()
    if not base.is_number:
        return base.is_Symbol and exponent.is_number
    parts = [part.as_coeff_Mul()[1] for part in sp.Add.make_args(exponent)]
    return all(part.is_Symbol or part.is_number for part in parts)


def _depends(expression: Expression, symbols: Sequence[Expression]) -> bool:
    return not expression.free_symbols.isdisjoint(symbols)


@dataclass(frozen=True)
class _Shift:
    """u = x - slope * r for one pivot, and d, by which u grows when r moves."""

    u: Expression
    d: Expression
    x: Expression
    slope: Expression
    pivot: Pivot


def _finite_rank(
    body: Expression,
    data: tuple[Expression, ...],
    pivots: tuple[Pivot, ...],
    largest_rank: int,
) -> Transport:
    """The finite-rank rule: exponential polynomials of differences from pivots."""
    try:
        body, shifts = _as_shifts(body, pivots, data)
    except NoTransport:
        if (found := _as_shifts_of_one(body, pivots, data)) is None:
            raise
        body, shifts = found
    payload = [s for s in data if all(s is not shift.x for shift in shifts)]
    variables = [shift.u for shift in shifts]
    collected = _collect(body, variables, payload)
    basis, rows = list(collected), list[dict[Expression, Expression]]()
    back = {s.u: s.x - s.slope * s.pivot.old for s in shifts}
    for monomial in basis:  # grows
        if not _is_closed(monomial, variables):
            raise NoTransport(
                f"f(u + d) is no finite sum of products of functions of u and d for "
                f"f = {monomial}, u = {', '.join(map(str, back.values()))}: f is not "
                f"an exponential polynomial"
            )
        further = {s.u: s.u + s.d for s in shifts}
        row = _collect(monomial.subs(further, simultaneous=True), variables, payload)
        rows.append(row)
        basis.extend(m for m in row if m not in basis)
        if len(basis) > largest_rank:
            raise NoTransport(
                f"the translates of f span more than {largest_rank} dimensions"
            )
    distance = {s.d: s.slope * (s.pivot.old - s.pivot.new) for s in shifts}
    moves = tuple(
        tuple(_tidy(row.get(m, sp.Integer(0)).subs(distance)) for m in basis)
        for row in rows
    )
    return Transport(
        "finite rank",
        tuple(collected.get(m, sp.Integer(0)) for m in basis),
        tuple(m.subs(back) for m in basis),
        moves,
        (sp.Integer(0),) * len(basis),
    )


def _tidy(factor: Expression) -> Expression:
    """A factor with differences of pivots kept whole: `3 (r - r')`."""
    return sp.factor_terms(sp.powsimp(factor))


def _as_shifts(
    body: Expression, pivots: Sequence[Pivot], data: Sequence[Expression]
) -> tuple[Expression, list[_Shift]]:
    """The body as a function of differences, each of other data from a pivot."""
    shifts: list[_Shift] = []
    for pivot in pivots:
        body, shift = _as_shift(body, pivot, data, shifts)
        shifts.append(shift)
    return body, shifts


def _as_shifts_of_one(
    body: Expression, pivots: Sequence[Pivot], data: Sequence[Expression]
) -> tuple[Expression, list[_Shift]] | None:
    """The body as a function of differences, in which several pivots share an x.

    As `(x - r0)^2 exp(x - r1)` is of `u0 = x - r0` and `u1 = x - r1`. These are found
    as they are written.
    """
    shifts: list[_Shift] = []
    for number, pivot in enumerate(pivots):
        u, d = sp.Symbol(f"u{number}", real=True), sp.Symbol(f"d{number}", real=True)
        for term in sp.preorder_traversal(body):
            found = _difference_in(term, pivot, data) if term.is_Add else None
            if found is not None:
                shifts.append(_Shift(u, d, *found, pivot))
                break
        else:
            return None
    taken = {shift.x for shift in shifts}
    without = {s.pivot.old: (s.x - s.u) / s.slope for s in shifts}
    body = sp.expand(sp.powsimp(sp.expand(body.subs(without, simultaneous=True))))
    if body.has(*without, *taken):
        return None
    return body, shifts


def _difference_in(
    total: Expression, pivot: Pivot, data: Sequence[Expression]
) -> tuple[Expression, Expression] | None:
    """A datum x and a number c for which a sum has `a (x - c r)` in it."""
    weight = total.coeff(pivot.old)
    for x in data:
        if weight != 0 and (other := total.coeff(x)) != 0:
            slope = -weight / other
            if slope.is_number:
                return x, slope
    return None


def _as_shift(
    body: Expression,
    pivot: Pivot,
    data: Sequence[Expression],
    earlier: Sequence[_Shift],
) -> tuple[Expression, _Shift]:
    """The body as a function of u = x - slope * r alone, for some x of the data."""
    number = len(earlier)
    u, d = sp.Symbol(f"u{number}", real=True), sp.Symbol(f"d{number}", real=True)
    along_pivot = sp.diff(body, pivot.old)
    taken = [shift.x for shift in earlier]
    others = [*data, *(shift.u for shift in earlier)]
    for x in data:
        along_x = sp.diff(body, x)
        if x in taken or along_x == 0:
            continue
        slope = -along_pivot / along_x
        if not slope.is_Rational:
            slope = sp.simplify(slope)
        if slope == 0 or _depends(slope, [*others, pivot.old]):
            continue
        shifted = body.subs(x, u + slope * pivot.old)
        shifted = sp.expand(sp.powsimp(sp.expand(shifted)))
        if shifted.has(pivot.old):
            shifted = sp.simplify(shifted)
        if not shifted.has(pivot.old):
            return shifted, _Shift(u, d, x, slope, pivot)
    raise NoTransport("f is not a function of the data minus the pivot")


def _collect(
    expression: Expression,
    variables: Sequence[Expression],
    payload: Sequence[Expression],
) -> dict[Expression, Expression]:
    """A sum as coefficients of products of functions of the variables and payload."""
    found: dict[Expression, Expression] = {}
    expanded = sp.expand(sp.expand(expression), power_exp=True, trig=True)
    for term in sp.Add.make_args(expanded):
        coefficient, monomial = term.as_independent(*variables, *payload)
        monomial = sp.powsimp(monomial)
        found[monomial] = found.get(monomial, sp.Integer(0)) + coefficient
    return found


def _is_closed(monomial: Expression, variables: Sequence[Expression]) -> bool:
    """Whether functions of the variables in a product are powers and exponentials."""
    return all(
        _is_power_or_exponential(factor, variables)
        for factor in sp.Mul.make_args(monomial)
        if factor.has(*variables)
    )


def _is_power_or_exponential(factor: Expression, variables: Sequence[Expression]):
    base, exponent = factor.as_base_exp()
    if not base.has(*variables):
        return _is_linear(exponent, variables)
    if not (exponent.is_Integer and exponent > 0):
        return False
    is_wave = isinstance(base, sp.sin | sp.cos | sp.sinh | sp.cosh)
    return base in variables or (is_wave and _is_linear(base.args[0], variables))


def _is_linear(expression: Expression, variables: Sequence[Expression]) -> bool:
    second = (sp.diff(expression, a, b) for a in variables for b in variables)
    return all(each == 0 or not each.simplify() for each in second)
