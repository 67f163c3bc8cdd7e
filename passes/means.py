"""Pivots made of a sum, as means: what stands for the sum on the way to it.

Until the last index is met a sum is far from what it is in the end. The mean of what
has been met is not, so that distances from it keep their digits. So a pivot that is
affine in a sum is written as a mean, however it was spelled, and carried as one.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
from xdsl.dialects import arith

from moa_dialect.lazy import sympy as sp
from moa_dialect.passes.products import static_bound
from moa_dialect.passes.symbolic import (
    NotReal,
    from_sympy,
    is_real,
    name_in,
    number_of,
    real,
    to_sympy,
)
from moa_dialect.passes.terms import Term, Terms, contains
from moa_dialect.passes.transport import symbol
from moa_dialect.types import dtype_of

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""

_INDEX_CASTS = ("arith.sitofp", "arith.uitofp", "arith.index_cast", "arith.extsi")
_AFFINE = ("arith.addf", "arith.subf", "arith.mulf", "arith.divf", "arith.negf")


def is_cast_of(term: Term, index: Term) -> bool:
    """Whether a term is a number of indices as a float."""
    if not is_real(term):
        return False
    while term.computes(*_INDEX_CASTS, "arith.extf"):
        term = term.args[0]
    return term is index


def is_mean_of(pivot: Term, of: Term, upper: Term) -> bool:
    """Whether a term is a sum divided by this number of indices, and nothing else."""
    number, mean = symbol("N"), symbol("s")

    def atom(term: Term) -> Expression | None:
        if is_cast_of(term, upper):
            return number
        return None if contains(term, {of}) else symbol("other")

    try:
        value = to_sympy(pivot, {of: mean}, atom)
    except NotReal:
        return False
    return sp.simplify(value - mean / number) == 0


def as_mean(
    terms: Terms, pivot: Term, of: Term, count: Term
) -> tuple[Term, bool] | None:
    """`a (sum of g) + b = (sum of (a N g + b)) / N`, a and b without the folded index.

    Args:
        terms: where terms are made.
        pivot: what is affine in a sum.
        of: the sum, over as many indices as its upper bound says.
        count: that number as a float.

    Returns:
        The mean, and whether it is the same over nothing as well; None if the pivot is
        not affine in the sum, or nowhere near what is summed.
    """
    upper = of.args[1]
    index, body = terms.open(of)
    number: Expression = sp.Symbol("N", positive=True)
    known: dict[Expression, Term] = {number: count}
    if (bound := static_bound(of)) is not None:
        number = number_of(bound)

    def atom(term: Term) -> Expression | None:
        if is_cast_of(term, upper):
            return number
        return None if term.computes(*_AFFINE) else name_in(known, term)

    try:
        rise, start, inner = _affine(pivot, lambda t: contains(t, {of}), atom)
        scale, shift, datum = _affine(body, lambda t: index in t.free, atom)
        if inner is not of or rise == 0 or number == 0:
            return None
        scale = sp.simplify(number * rise * scale)
        if not _is_near_data(scale, number):
            return None
        shift = sp.simplify(number * rise * shift + start)
        if scale.is_number and abs(scale - 1) <= 4 * _precision(of):
            scale = sp.Integer(1)
        value = datum
        if scale != 1:
            factor = from_sympy(scale, known, terms, of.type)
            value = real(terms, arith.MulfOp, datum, factor)
        if shift != 0:
            added = from_sympy(shift, known, terms, of.type)
            value = real(terms, arith.AddfOp, value, added)
    except NotReal:
        return None
    whole = terms.fold(of.function, of.args[0], upper, index, value)
    is_same = bound is not None or (sp.simplify(rise * number) == 1 and start == 0)
    return real(terms, arith.DivfOp, whole, count), is_same


def _is_near_data(scale: Expression, number: Expression) -> bool:
    """Whether so many times the mean of data may be near them, as far as can be told.

    A sum itself is not, nor is a part of it that does not become smaller with more
    data; for a mean of data whose number is not known it is a small part.
    """
    if scale.is_number:
        return bool(abs(scale - 1) <= sp.Rational(1, 2))
    part = sp.simplify(scale / number)
    return not part.is_number or bool(abs(part) < sp.Rational(1, 2))


def _affine(
    term: Term,
    varies: Callable[[Term], bool],
    atom: Callable[[Term], Expression | None],
) -> tuple[Expression, Expression, Term]:
    """A term as `a inner + b`, a and b do not vary, inner is as small as can be.

    Raises:
        NotReal: if a or b is no expression of real numbers.
    """
    if not term.computes(*_AFFINE) or not varies(term):
        return sp.Integer(1), sp.Integer(0), term
    if term.computes("arith.negf"):
        factor, added, inner = _affine(term.args[0], varies, atom)
        return -factor, -added, inner
    left, right = term.args
    if varies(left) and varies(right):
        return sp.Integer(1), sp.Integer(0), term
    if varies(right) and term.computes("arith.divf"):
        return sp.Integer(1), sp.Integer(0), term
    factor, added, inner = _affine(left if varies(left) else right, varies, atom)
    other = to_sympy(right if varies(left) else left, {}, atom)
    if term.computes("arith.mulf"):
        return factor * other, added * other, inner
    if term.computes("arith.divf"):
        return factor / other, added / other, inner
    if term.computes("arith.addf"):
        return factor, added + other, inner
    if varies(left):
        return factor, added - other, inner
    return -factor, other - added, inner


def _precision(term: Term) -> Expression:
    """The distance from 1 to the next number of a term's type."""
    return number_of(float(ml_dtypes.finfo(dtype_of(term.type)).eps))
