"""Index arithmetic in lanes is narrow where its range is, and means the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr, f32, f64, i1, i32, i64
from xdsl.ir import Attribute, Operation

from moa_dialect.passes.narrow_indices import Narrowing
from moa_dialect.passes.simplify import predicate_of
from moa_dialect.passes.terms import Computed, Term, Terms

INDEX = IndexType()


class Written:
    """Terms of an index i in the lanes, p of a pass, and q, both below 2^20."""

    def __init__(self, extent: int = 1 << 20, is_causal: bool = False) -> None:
        self.terms = Terms()
        self.i, self.p, self.q = map(self.terms.index, "ipq")
        ranges = dict.fromkeys("ipq", (0, extent - 1))
        self.narrow = Narrowing(self.terms, "i", ranges)
        if is_causal:
            after = self.make(arith.AddiOp, self.i, self.number(1))
            self.narrow.below = {"p": [after]}

    def number(self, value: int, type_: Attribute = INDEX) -> Term:
        return self.terms.number(value, type_)

    def make(self, operation: type[Operation], *args: Term) -> Term:
        return self.terms.compute(operation, args)

    def magnitude(self, term: Term) -> Term:
        minus = self.make(arith.SubiOp, self.number(0), term)
        return self.make(arith.MaxSIOp, term, minus)

    def as_float(self, term: Term, type_: Attribute = f32) -> Term:
        wide = self.terms.compute(arith.IndexCastOp, (term,), i64)
        return self.terms.compute(arith.SIToFPOp, (wide,), type_)

    def less(self, left: Term, right: Term) -> Term:
        properties = {"predicate": IntegerAttr(2, 64)}
        return self.terms.compute(arith.CmpiOp, (left, right), i1, properties)


def test_the_float_of_a_difference_is_the_difference_of_floats() -> None:
    w = Written()
    found = w.narrow(w.as_float(w.make(arith.SubiOp, w.i, w.p)))
    assert found.computes("arith.subf")
    assert found.args == (w.as_float(w.i), w.as_float(w.p))


def test_the_float_of_a_magnitude_is_the_magnitude_of_the_float() -> None:
    w = Written()
    found = w.narrow(w.as_float(w.magnitude(w.make(arith.SubiOp, w.i, w.p))))
    assert found.computes("math.absf")
    assert found.args[0].computes("arith.subf")


def test_no_magnitude_is_taken_of_what_is_not_negative() -> None:
    w = Written(is_causal=True)
    found = w.narrow(w.as_float(w.magnitude(w.make(arith.SubiOp, w.i, w.p))))
    assert found.computes("arith.subf")
    assert found.args == (w.as_float(w.i), w.as_float(w.p))


def test_the_magnitude_of_what_is_negative_is_the_other_difference() -> None:
    w = Written(is_causal=True)
    found = w.narrow(w.as_float(w.magnitude(w.make(arith.SubiOp, w.p, w.i))))
    assert found.computes("arith.subf")
    assert found.args == (w.as_float(w.i), w.as_float(w.p))


def test_integers_that_floats_do_not_have_are_added_in_32_bits() -> None:
    """2^24 + 1 is none of f32, but one of f64."""
    w = Written(1 << 24)
    total = w.make(arith.AddiOp, w.i, w.p)
    found = w.narrow(w.as_float(total))
    assert found.computes("arith.sitofp")
    assert found.args[0].computes("arith.addi")
    assert found.args[0].type == i32
    assert w.narrow(w.as_float(total, f64)).computes("arith.addf")


def test_what_does_not_fit_32_bits_stays() -> None:
    w = Written(1 << 31)
    whole = w.as_float(w.make(arith.AddiOp, w.i, w.p))
    assert w.narrow(whole) is whole


def test_a_product_is_one_of_floats_if_it_cannot_be_minus_0() -> None:
    w = Written(1 << 10)
    product = w.make(arith.MuliOp, w.make(arith.SubiOp, w.i, w.p), w.number(3))
    assert w.narrow(w.as_float(product)).computes("arith.mulf")
    product = w.make(arith.MuliOp, w.make(arith.SubiOp, w.i, w.p), w.q)
    assert w.narrow(w.as_float(product)).args[0].type == i32


def test_a_comparison_is_of_32_bits_where_both_sides_are() -> None:
    w = Written()
    found = w.narrow(w.less(w.make(arith.SubiOp, w.i, w.p), w.number(5)))
    assert [arg.type for arg in found.args] == [i32, i32]


def test_a_comparison_that_ranges_decide_is_not_made() -> None:
    w = Written(is_causal=True)
    zero = w.number(0)
    assert w.narrow(w.less(w.make(arith.SubiOp, w.i, w.p), zero)).number == 0
    after = w.make(arith.AddiOp, w.i, w.number(1))
    assert w.narrow(w.less(w.p, after)).number == 1


def test_the_larger_of_two_is_known_where_their_difference_is() -> None:
    w = Written(is_causal=True)
    larger = w.make(arith.MaxSIOp, w.i, w.p)
    assert w.narrow(w.as_float(larger)) == w.as_float(w.i)
    smaller = w.make(arith.MinSIOp, w.i, w.p)
    assert w.narrow(w.as_float(smaller)) == w.as_float(w.p)


def test_what_is_the_same_in_all_lanes_stays() -> None:
    w = Written()
    scalar = w.as_float(w.make(arith.SubiOp, w.q, w.p))
    assert w.narrow(scalar) is scalar


def test_sums_of_indices_of_any_extent_stay() -> None:
    """They might wrap around."""
    w = Written()
    w.narrow.ranges = dict.fromkeys("ipq", (0, float("inf")))
    total = w.as_float(w.make(arith.AddiOp, w.i, w.p))
    assert w.narrow(total) is total


def evaluated(term: Term, places: dict[str, int]) -> Any:
    """The value of a term; integers wrap around as those of their type do."""
    kind = term.kind
    if isinstance(kind, str):
        return places[kind]
    if term.number is not None:
        return np.float32(term.number) if term.type == f32 else term.number
    args = [evaluated(arg, places) for arg in term.args]
    assert isinstance(kind, Computed)
    if kind.name in COMPUTED:
        found = COMPUTED[kind.name](*args)
        return wrapped(found, 32 if term.type == i32 else 64)
    if kind.name in ("arith.cmpi", "arith.cmpf"):
        less = predicate_of(term) in ("slt", "olt")
        return args[0] < args[1] if less else args[0] > args[1]
    if kind.name in ("arith.index_cast", "arith.trunci"):
        return wrapped(args[0], 32 if term.type == i32 else 64)
    if kind.name == "arith.select":
        return args[1] if args[0] else args[2]
    return FLOATS[kind.name](*args)


def wrapped(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


COMPUTED: dict[str, Callable[[int, int], int]] = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.maxsi": max,
    "arith.minsi": min,
    "arith.divsi": lambda a, b: abs(a) // b * (1 if a >= 0 else -1),
    "arith.remsi": lambda a, b: abs(a) % b * (1 if a >= 0 else -1),
}
FLOATS: dict[str, Callable[..., Any]] = {
    "arith.sitofp": np.float32,
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "math.absf": np.abs,
}


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_expression_has_the_same_value(random: Any) -> None:
    """Bit by bit, for all indices below a causal mask, of extents up to 2^33."""
    w = Written(1 << random.choice([3, 10, 20, 24, 31, 33]), random.random() < 0.5)

    def expression(depth: int) -> Term:
        if depth == 0 or random.random() < 0.1:
            number = w.number(random.choice([-3, -1, 0, 1, 2, 5, 1 << 12]))
            return random.choice([w.i, w.p, w.q, number])
        one = expression(depth - 1)
        kind = random.choice(["add", "sub", "mul", "max", "by", "abs", "choose"])
        if kind == "abs":
            return w.magnitude(one)
        if kind == "by":
            operation = random.choice([arith.DivSIOp, arith.RemSIOp])
            return w.make(operation, one, w.number(random.choice([1, 2, 7])))
        other = expression(depth - 1)
        if kind == "choose":
            return w.terms.select(w.less(one, other), one, w.number(4))
        if kind == "max":
            return w.make(random.choice([arith.MaxSIOp, arith.MinSIOp]), one, other)
        operations = {"add": arith.AddiOp, "sub": arith.SubiOp, "mul": arith.MuliOp}
        return w.make(operations[kind], one, other)

    value = w.as_float(expression(random.randint(1, 4)))
    condition = w.less(expression(2), expression(2))
    last = int(w.narrow.ranges["i"][1])
    for _ in range(8):
        places = {n: random.choice([0, last, random.randint(0, last)]) for n in "iq"}
        most = places["i"] if w.narrow.below else last
        places["p"] = random.choice([0, most, random.randint(0, most)])
        expected, found = (evaluated(t, places) for t in (value, w.narrow(value)))
        assert expected.tobytes() == found.tobytes(), (value, places)
        narrow = w.narrow(condition)
        assert bool(evaluated(condition, places)) == bool(evaluated(narrow, places))


EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "distance": lambda i, j: abs(i - j),
    "other way": lambda i, j: abs(j - i),
    "sum": lambda i, j: 3 * i + j + 1,
    "bucket": lambda i, j: (i + j) // 8,
    "bucket below 0": lambda i, j: (i - j) // 8,
    "cyclic": lambda i, j: (i - j) % 5,
    "product": lambda i, j: (i - j) * (j - 3),
    "nested": lambda i, j: abs(abs(i - j) - 7) % 4 - j // 3,
}


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_positions_in_scores(name: str, is_causal: bool) -> None:
    """What is added to scores, of any index arithmetic, signs of zero included."""
    import moa_dialect as moa

    def changed(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s + 0.125 * EXPRESSIONS[name](i, j)

    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((1, 41, 8)).astype(np.float32) for _ in range(3))
    found = moa.attention(q, k, v, score_mod=changed, is_causal=is_causal)
    places = np.arange(41)
    added = EXPRESSIONS[name](places[:, None], places[None, :])
    bias = np.where((not is_causal) | np.tri(41, dtype=bool), 0.125 * added, -np.inf)
    scores = np.einsum("hid,hjd->hij", q, k) / np.sqrt(8) + bias
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
