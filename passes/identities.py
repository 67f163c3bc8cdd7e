"""Statements about real expressions: proved by SymPy or z3, or refuted at a point.

A statement holds for all real values of its symbols (positive ones where a symbol is)
for which both sides are defined. First it is evaluated with 50 digits at points chosen
once and for all, which refutes most that is wrong and says where. Then SymPy is asked
to prove it, then z3, for which exponentials are any positive numbers.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from random import Random
from typing import Any, TypeAlias

import mpmath

from moa_dialect.lazy import sympy as sp

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""

BY_SYMPY = "proved by sympy"
BY_Z3 = "proved by z3"

_POINTS = 16
_DIGITS = 50
_CLOSE = mpmath.mpf(10) ** -30
_MILLISECONDS = 5000
_LARGEST = 2000
"""Expressions with more operations are not simplified, which could take forever."""


@dataclass(frozen=True)
class Point:
    """Values of symbols, and those of expressions there."""

    values: tuple[tuple[str, str], ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.values)


class NotProved(Exception):
    """A statement is wrong, or not known to be right.

    Attributes:
        point: where it is wrong; None if no such point was found.
    """

    def __init__(self, point: Point | None = None) -> None:
        super().__init__(point)
        self.point = point


@cache
def prove_equal(left: Expression, right: Expression) -> str:
    """Prove that two expressions are equal.

    Returns:
        How it was proved.

    Raises:
        NotProved: if it was not; the results at its point are those of both sides.
    """
    if left == right:
        return BY_SYMPY
    if point := _find((left, right), _random_points, _differ):
        raise NotProved(point)
    if _is_zero(left - right) or (right != 0 and _is_zero(left / right - 1)):
        return BY_SYMPY
    if _holds(lambda convert: convert(left) == convert(right)):
        return BY_Z3
    raise NotProved


@cache
def prove_positive(expression: Expression) -> str:
    """Prove that an expression is positive.

    Returns:
        How it was proved.

    Raises:
        NotProved: if it was not; the result at its point is not positive.
    """
    if any(form.is_positive for form in _forms(expression)):
        return BY_SYMPY
    if point := _find((expression,), _points, lambda value: value <= 0):
        raise NotProved(point)
    if _holds(lambda convert: convert(expression) > 0):
        return BY_Z3
    raise NotProved


@cache
def prove_nonnegative(expression: Expression) -> str:
    """Prove that an expression is never below 0.

    Returns:
        How it was proved.

    Raises:
        NotProved: if it was not; the result at its point is below 0.
    """
    if any(form.is_nonnegative for form in _forms(expression)):
        return BY_SYMPY
    if point := _find((expression,), _points, lambda value: value < 0):
        raise NotProved(point)
    if _holds(lambda convert: convert(expression) >= 0):
        return BY_Z3
    raise NotProved


@cache
def prove_nonzero(expression: Expression) -> str:
    """Prove that an expression is never 0.

    Returns:
        How it was proved.

    Raises:
        NotProved: if it was not; the result at its point is 0.
    """
    if any(form.is_nonzero for form in _forms(expression)):
        return BY_SYMPY
    if point := _find((expression,), _points, lambda value: abs(value) < _CLOSE):
        raise NotProved(point)
    if _holds(lambda convert: convert(expression) != 0):
        return BY_Z3
    raise NotProved


# Evaluation


def _random_points(symbols: Sequence[Expression]) -> Iterator[tuple[Expression, ...]]:
    """Quarters between -3 and 3, without 0."""
    random = Random(0)
    for _ in range(_POINTS):
        yield tuple(_random_value(random, symbol) for symbol in symbols)


def _random_value(random: Random, symbol: Expression) -> Expression:
    if symbol.is_integer:
        return sp.Integer(random.randint(1, 5))
    sign = 1 if symbol.is_positive else random.choice((1, -1))
    return sp.Rational(sign * random.randint(1, 12), 4)


def _points(symbols: Sequence[Expression]) -> Iterator[tuple[Expression, ...]]:
    """Also small numbers, where expressions tend to be 0."""
    small = [sp.Integer(number) for number in (0, 1, -1)]
    choices = [
        [n for n in small if n > 0 or not symbol.is_positive] for symbol in symbols
    ]
    yield from islice(product(*choices), 243)
    yield from _random_points(symbols)


def _find(
    expressions: Sequence[Expression],
    points: Callable[[Sequence[Expression]], Iterator[tuple[Expression, ...]]],
    is_wrong: Callable[..., bool],
) -> Point | None:
    """The first point where the expressions are numbers and something is wrong."""
    free = set().union(*(expression.free_symbols for expression in expressions))
    symbols = sorted(free, key=lambda symbol: symbol.name)
    evaluate = sp.lambdify(symbols, list(expressions), "mpmath")
    with mpmath.workdps(_DIGITS):
        for values in points(symbols):
            exact = [mpmath.mpf(int(v.p)) / int(v.q) for v in values]
            try:
                results = [_real(result) for result in evaluate(*exact)]
            except (ArithmeticError, ValueError, TypeError):  # undefined there
                continue
            if is_wrong(*results):
                return Point(
                    tuple(
                        (s.name, str(v)) for s, v in zip(symbols, values, strict=True)
                    ),
                    tuple(str(mpmath.nstr(result, 6)) for result in results),
                )
    return None


def _real(value: Any) -> Any:
    number = mpmath.mpmathify(value)
    if isinstance(number, mpmath.mpc):
        if number.imag != 0:
            raise ValueError
        number = number.real
    if not mpmath.isfinite(number):
        raise ValueError
    return number


def _differ(left: Any, right: Any) -> bool:
    return abs(left - right) > _CLOSE * max(1, abs(left), abs(right))


# SymPy


def _forms(expression: Expression) -> Iterator[Expression]:
    """The expression, and others that are equal to it."""
    yield expression
    if expression.count_ops() <= _LARGEST:
        yield sp.expand(expression)
        yield sp.powsimp(sp.expand(expression))
        yield sp.factor(expression)
        yield sp.simplify(expression)


def _is_zero(expression: Expression) -> bool:
    return any(form == 0 for form in _forms(expression))


# z3


class _NoFormula(Exception):
    """An expression is not one of numbers, sums, products and powers."""


def _holds(statement: Callable[[Callable[[Expression], Any]], Any]) -> bool:
    """Whether z3 proves a statement, given how to convert an expression."""
    import z3

    solver = z3.Solver()
    solver.set("timeout", _MILLISECONDS)
    names: dict[Expression, Any] = {}

    def variable(of: Expression, is_positive: bool) -> Any:
        if of not in names:
            names[of] = z3.Real(f"v{len(names)}")
            if is_positive:
                solver.add(names[of] > 0)
        return names[of]

    def convert(expression: Expression) -> Any:
        if expression.is_Rational:
            return z3.Q(int(expression.p), int(expression.q))
        if expression.is_Symbol or isinstance(expression, sp.exp):
            positive = bool(expression.is_positive)
            return variable(expression, positive)
        if expression.is_Add or expression.is_Mul:
            first, *others = map(convert, expression.args)
            for other in others:
                first = first + other if expression.is_Add else first * other
            return first
        if isinstance(expression, sp.Max | sp.Min):
            first, *others = map(convert, expression.args)
            for other in others:
                is_first = first >= other
                if isinstance(expression, sp.Min):
                    is_first = first <= other
                first = z3.If(is_first, first, other)
            return first
        if isinstance(expression, sp.Abs):
            inner = convert(expression.args[0])
            return z3.If(inner >= 0, inner, -inner)
        base, exponent = expression.as_base_exp()
        if not (expression.is_Pow and exponent.is_Integer and abs(exponent) <= 16):
            raise _NoFormula
        result = convert(base)
        for _ in range(abs(int(exponent)) - 1):
            result = result * convert(base)
        if exponent > 0:
            return result
        solver.add(result != 0)
        return 1 / result

    try:
        solver.add(z3.Not(statement(convert)))
    except _NoFormula:
        return False
    return solver.check() == z3.unsat
