"""Arithmetic on terms, as real numbers have it."""

from __future__ import annotations

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import StringAttr, f32

from moa_dialect.passes.simplify import with_one_factor
from moa_dialect.passes.symbolic import real
from moa_dialect.passes.terms import Held, Term, Terms

TERMS = Terms()
X = TERMS.held(Held("x"), (), f32)


def number(value: float) -> Term:
    return TERMS.number(value, f32)


def test_a_quotient_by_a_number_is_a_product() -> None:
    found = with_one_factor(TERMS, real(TERMS, arith.DivfOp, X, number(20.0)))
    assert found is real(TERMS, arith.MulfOp, X, number(1 / 20))


def test_numbers_that_a_value_is_multiplied_by_are_one() -> None:
    scaled = real(TERMS, arith.MulfOp, number(0.125), X)
    found = with_one_factor(TERMS, real(TERMS, arith.DivfOp, scaled, number(20.0)))
    assert found is real(TERMS, arith.MulfOp, X, number(0.125 / 20))


def test_within_functions_too() -> None:
    quotient = real(TERMS, arith.DivfOp, X, number(4.0))
    found = with_one_factor(TERMS, real(TERMS, math.TanhOp, quotient))
    assert found.args == (real(TERMS, arith.MulfOp, X, number(0.25)),)


def test_not_by_numbers_whose_reciprocal_is_none_or_near_the_ends() -> None:
    for divisor in (0.0, float("inf"), float("nan"), 1e-38, 1e38):
        quotient = real(TERMS, arith.DivfOp, X, number(divisor))
        assert with_one_factor(TERMS, quotient) is quotient


def test_what_is_folded_stays() -> None:
    index = TERMS.index("p")
    body = real(TERMS, arith.DivfOp, X, number(20.0))
    fold = TERMS.fold(StringAttr("add"), index, index, "q", body)
    assert with_one_factor(TERMS, fold) is fold
