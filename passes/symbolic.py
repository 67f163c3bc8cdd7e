"""Terms as expressions of SymPy, and back: the arithmetic of real numbers."""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    Float16Type,
    Float32Type,
    IntegerType,
)
from xdsl.ir import Attribute, Operation

from moa_dialect.lazy import sympy as sp
from moa_dialect.passes.terms import Computed, Term, Terms
from moa_dialect.passes.transport import symbol

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""

_COMPUTE: dict[str, Callable[..., Expression]] = {
    "arith.addf": lambda a, b: a + b,
    "arith.subf": lambda a, b: a - b,
    "arith.mulf": lambda a, b: a * b,
    "arith.divf": lambda a, b: a / b,
    "arith.negf": lambda a: -a,
    "arith.extf": lambda a: a,
    "math.exp": lambda a: sp.exp(a),
    "math.exp2": lambda a: sp.Integer(2) ** a,
    "math.log": lambda a: sp.log(a),
    "math.log2": lambda a: sp.log(a) / sp.log(2),
    "math.sqrt": lambda a: sp.sqrt(a),
    "math.rsqrt": lambda a: 1 / sp.sqrt(a),
    "math.absf": lambda a: sp.Abs(a),
    "math.sin": lambda a: sp.sin(a),
    "math.cos": lambda a: sp.cos(a),
    "math.tanh": lambda a: sp.tanh(a),
    "math.erf": lambda a: sp.erf(a),
    "math.powf": lambda a, b: a**b,
}
"""What operations mean on real numbers. A conversion to a wider type keeps a number."""


ROUNDED = "rounding to bf16 commutes with factors only"

AtMost = Callable[[Term, Term], bool]
"""Whether a value is known never to be more than another one."""


def is_rounding(term: Term, is_at_most: AtMost | None = None) -> bool:
    """Whether a term is one of f32 that is rounded, and keeps its range.

    To bf16 that keeps a number to within a relative error of 2^-8, and so commutes with
    a factor to within that error, but not with other functions. To f16 it is so for
    what is known to be from 0 to 1, to within 2^-11 of it or, below 2^-14, to within
    2^-25: a factor of at most 1 makes neither more.
    """
    if not term.computes("arith.truncf") or not isinstance(
        term.args[0].type, Float32Type
    ):
        return False
    if isinstance(term.type, BFloat16Type):
        return True
    return (
        isinstance(term.type, Float16Type)
        and is_at_most is not None
        and _is_weight(term.args[0], is_at_most)
    )


def _is_weight(term: Term, is_at_most: AtMost) -> bool:
    """Whether a term is an exponential of a difference that is never positive."""
    if not term.computes("math.exp", "math.exp2"):
        return False
    difference = term.args[0]
    return difference.computes("arith.subf") and is_at_most(*difference.args)


def is_understood(term: Term) -> bool:
    """Whether a term is made by an operation that means something on real numbers."""
    return isinstance(term.kind, Computed) and term.kind.name in _COMPUTE


_EVALUATE: dict[str, Callable[..., Any]] = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "arith.divf": np.divide,
    "arith.negf": np.negative,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.extf": np.positive,
    "math.exp": np.exp,
    "math.exp2": np.exp2,
    "math.log": np.log,
    "math.log2": np.log2,
    "math.sqrt": np.sqrt,
    "math.absf": np.abs,
}


def evaluate(term: Term, known: Mapping[Term, float], other: float) -> float | None:
    """The value of a term of floats, None if it holds an operation not known here.

    Terms that are not numbers, known or computed count as `other`.
    """
    if term in known:
        return known[term]
    if (number := term.number) is not None:
        return float(number)
    if not isinstance(term.kind, Computed) or not is_real(term.args[0]):
        return other
    if term.kind.name not in _EVALUATE:
        return None
    values = [evaluate(arg, known, other) for arg in term.args]
    if any(value is None for value in values):
        return None
    with np.errstate(all="ignore"):
        return float(_EVALUATE[term.kind.name](*values))


class NotReal(Exception):
    """A term that is no expression of real numbers, or none that is understood."""


def to_sympy(
    term: Term,
    known: Mapping[Term, Expression],
    atom: Callable[[Term], Expression] | None = None,
    rounded: Callable[[Term], bool] | None = None,
) -> Expression:
    """A term as an expression.

    Args:
        term: the term.
        known: expressions for terms that are not looked into.
        atom: gives an expression for a term that is not to be looked into, or None.
        rounded: tells the roundings that stand for the number itself.

    Raises:
        NotReal: if an operation is not one of real numbers.
    """
    done: dict[Term, Expression] = {}

    def visit(term: Term) -> Expression:
        if term in known:
            return known[term]
        if term not in done:
            done[term] = convert(term)
        return done[term]

    def convert(term: Term) -> Expression:
        if (number := term.number) is not None:
            return number_of(number)
        if atom is not None and (found := atom(term)) is not None:
            return found
        if isinstance(term.kind, Computed) and term.kind.name in _COMPUTE:
            return _COMPUTE[term.kind.name](*map(visit, term.args))
        if rounded is not None and rounded(term):
            return visit(term.args[0])
        raise NotReal(describe(term))

    return visit(term)


def name_in(names: dict[Expression, Term], term: Term) -> Expression:
    """The symbol that stands for a term; a new one if there is none yet."""
    for name, other in names.items():
        if other is term:
            return name
    name = symbol(f"x{len(names)}")
    names[name] = term
    return name


def describe(term: Term) -> str:
    """Which kind of term is in the way, in a few words."""
    match term.kind:
        case Computed():
            if term.kind.name == "arith.truncf":
                return f"rounding to {term.type} is no function of real numbers"
            return f"{term.kind.name} is not an operation of real numbers"
        case _ if term.is_fold:
            return "it folds values that depend on the pivot"
        case _:
            return "a choice depends on it"


def number_of(value: float) -> Expression:
    """A number exactly: a float is a fraction."""
    if isinstance(value, float) and not isfinite(value):
        return sp.nan if value != value else sp.oo if value > 0 else -sp.oo
    exact = Fraction(value)
    return sp.Rational(exact.numerator, exact.denominator)


def from_sympy(
    expression: Expression,
    known: Mapping[Expression, Term],
    terms: Terms,
    type_: Attribute,
) -> Term:
    """An expression as a term of a float type.

    Raises:
        NotReal: if a function in it has no operation.
    """

    def emit(operation: type[Operation], *args: Term) -> Term:
        return real(terms, operation, *args)

    def product(factors: Sequence[Expression]) -> Term:
        above: list[Expression] = []
        below: list[Expression] = []
        negative = False
        for factor in factors:
            if factor == -1:
                negative = not negative
            elif factor.is_Rational and factor.p == 1 and factor.q != 1:
                below.append(sp.Integer(factor.q))
            elif factor.is_Pow and factor.exp.is_Number and factor.exp.is_negative:
                below.append(factor.base ** (-factor.exp))
            else:
                above.append(factor)
        # A quotient of powers is a power of a quotient: neither power overflows alone.
        ratios: list[Term] = []
        for lower in list(below):
            base, exponent = lower.as_base_exp()
            for upper in above:
                other, same = upper.as_base_exp()
                is_one = exponent.is_Integer or (other.is_positive and base.is_positive)
                if exponent == same != 1 and exponent.is_Number and is_one:
                    ratio = emit(arith.DivfOp, visit(other), visit(base))
                    ratios.append(raised(ratio, exponent))
                    above.remove(upper)
                    below.remove(lower)
                    break
        results = [*map(visit, above), *ratios]
        result = results[0] if results else terms.number(1.0, type_)
        for other in results[1:]:
            result = emit(arith.MulfOp, result, other)
        if below:
            result = emit(arith.DivfOp, result, chain(arith.MulfOp, below))
        return emit(arith.NegfOp, result) if negative else result

    def chain(operation: type[Operation], parts: Sequence[Expression]) -> Term:
        first, *others = map(visit, parts)
        for other in others:
            first = emit(operation, first, other)
        return first

    def total(parts: Sequence[Expression]) -> Term:
        positive = [p for p in parts if not p.could_extract_minus_sign()]
        negative = [-p for p in parts if p.could_extract_minus_sign()]
        if not positive:
            return emit(arith.NegfOp, chain(arith.AddfOp, negative))
        result = chain(arith.AddfOp, positive)
        for part in negative:
            result = emit(arith.SubfOp, result, visit(part))
        return result

    def power(base: Expression, exponent: Expression) -> Term:
        if base == sp.Integer(2) and not exponent.is_Number:
            return emit(math.Exp2Op, visit(exponent))
        if exponent.is_Number and exponent.is_negative:
            one = terms.number(1.0, type_)
            return emit(arith.DivfOp, one, visit(base ** (-exponent)))
        return raised(visit(base), exponent)

    def raised(base: Term, exponent: Expression) -> Term:
        if exponent.is_Integer and 0 < int(exponent) <= 64:
            result = base
            for _ in range(int(exponent) - 1):
                result = emit(arith.MulfOp, result, base)
            return result
        if exponent == sp.Rational(1, 2):
            return emit(math.SqrtOp, base)
        return emit(math.PowFOp, base, visit(exponent))

    def visit(expression: Expression) -> Term:
        if expression in known:
            return known[expression]
        if expression.is_Number:
            return terms.number(float(expression), type_)
        if expression.is_Add:
            return total(expression.args)
        if expression.is_Mul:
            return product(expression.args)
        if isinstance(expression, sp.exp):
            return emit(math.ExpOp, visit(expression.args[0]))
        if expression.is_Pow:
            return power(*expression.as_base_exp())
        if operation := _FUNCTIONS.get(expression.func.__name__):
            return emit(operation, visit(expression.args[0]))
        if expression.is_number:
            return terms.number(float(expression.evalf()), type_)
        raise NotReal(f"no operation computes {expression}")

    return visit(expression)


_FUNCTIONS: dict[str, type[Operation]] = {
    "log": math.LogOp,
    "Abs": math.AbsFOp,
    "sin": math.SinOp,
    "cos": math.CosOp,
    "tanh": math.TanhOp,
    "erf": math.ErfOp,
}
"""The operation of a function, by SymPy's name for it."""


def real(terms: Terms, operation: type[Operation], *args: Term) -> Term:
    """The result of an operation on floats."""
    return terms.compute(operation, args, properties=_NO_FLAGS)


_NO_FLAGS = {"fastmath": arith.FastMathFlagsAttr("none")}


def is_real(term: Term) -> bool:
    """Whether a term is of a float type."""
    return isinstance(term.type, AnyFloat)


def is_truth(term: Term) -> bool:
    """Whether a term is a truth value."""
    return isinstance(term.type, IntegerType) and term.type.width.data == 1
