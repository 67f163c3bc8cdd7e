"""Fusion of dependent folds: what is derived, what is refused, and that it is right."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import example, given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import f64
from xdsl.utils.test_value import create_ssa_value

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.frontend.trace import as_array
from moa_dialect.interpreter import interpret_module
from moa_dialect.ops.normal_form import CascadeOp, FoldOp
from moa_dialect.passes import transport
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.identities import BY_SYMPY, BY_Z3
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.symbolic import from_sympy
from moa_dialect.passes.terms import Terms
from moa_dialect.passes.transport import NoTransport, pivot_symbols

Program = Callable[..., Any]

VECTOR = moa.ArraySpec(("n",))

R, S = pivot_symbols(0, False), pivot_symbols(1, False)
POSITIVE = pivot_symbols(0, True)
X, Y, V, C = (sp.Symbol(name, real=True) for name in "xyvc")


# Transports


SUMS: dict[str, tuple[Any, list[Any], list[Any], int]] = {
    "e^u": (sp.exp(X - R.old), [X], [R], 1),
    "e^u v": (sp.exp(X - R.old) * V, [X, V], [R], 1),
    "2^u": (2 ** (X - R.old), [X], [R], 1),
    "e^(c u)": (sp.exp(C * (X - R.old)), [X], [R], 1),
    "e^-u, the minimum": (sp.exp(R.old - X), [X], [R], 1),
    "(x/a)^2": ((X / POSITIVE.old) ** 2, [X], [POSITIVE], 1),
    "x (c/a) v": (X * (C / POSITIVE.old) * V, [X, V], [POSITIVE], 1),
    "u^2": ((X - R.old) ** 2, [X], [R], 3),
    "u^3": ((X - R.old) ** 3, [X], [R], 4),
    "u^4 v": ((X - R.old) ** 4 * V, [X, V], [R], 5),
    "u e^u": ((X - R.old) * sp.exp(X - R.old), [X], [R], 2),
    "sin u": (sp.sin(X - R.old), [X], [R], 2),
    "u w": ((X - R.old) * (Y - S.old), [X, Y], [R, S], 4),
    "e^u w": (sp.exp(X - R.old) * (Y - S.old), [X, Y], [R, S], 2),
    "u^2 e^w, of one x": ((X - R.old) ** 2 * sp.exp(X - S.old), [X], [R, S], 3),
    "u^2 e^u cos u": (
        (X - R.old) ** 2 * sp.exp(X - R.old) * sp.cos(X - R.old),
        [X],
        [R],
        6,
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_transport_fulfils_its_condition(name: str) -> None:
    """(C1): the moved basis of one element is its basis at the new pivot, exactly."""
    body, data, pivots, rank = SUMS[name]
    found = transport.find("add", body, data, pivots, 6)
    assert len(found.basis) == rank
    whole = sum(c * b for c, b in zip(found.coefficients, found.basis, strict=True))
    assert sp.simplify(whole - body) == 0
    later = {pivot.old: pivot.new for pivot in pivots}
    for row, added, basis in zip(found.moves, found.added, found.basis, strict=True):
        assert added == 0
        moved = sum(t * b for t, b in zip(row, found.basis, strict=True))
        wanted = basis.subs(later, simultaneous=True)
        assert sp.simplify(sp.expand(moved - wanted, trig=True)) == 0


@pytest.mark.parametrize(
    "body",
    [
        sp.tanh(X - R.old),
        sp.log(1 + sp.exp(X - R.old)),
        1 / (1 + (X - R.old) ** 2),
        sp.exp(-((X - R.old) ** 2)),
    ],
    ids=str,
)
def test_no_exponential_polynomial_no_transport(body: Any) -> None:
    with pytest.raises(NoTransport, match="not an exponential polynomial"):
        transport.find("add", body, [X], [R], 6)


@pytest.mark.parametrize(
    ("function", "body", "reason"),
    [
        ("mul", X - R.old, "no transport is known for folds of mul"),
        ("max", (X - R.old) ** 2, "need not keep the order that max goes by"),
        ("max", X * R.old, "not known to be positive"),
        ("add", X**2 - X * R.old, "not a function of the data minus the pivot"),
        ("add", X + sp.oo * R.old, "infinite constant"),
        ("add", (X - R.old) ** 7, "span more than 6 dimensions"),
    ],
)
def test_a_refusal_names_the_condition(function: str, body: Any, reason: str) -> None:
    with pytest.raises(NoTransport, match=reason):
        transport.find(function, body, [X], [R], 6)


@pytest.mark.parametrize(
    ("function", "body"),
    [("max", X - R.old), ("min", X * sp.exp(-R.old)), ("max", sp.exp(X - R.old))],
)
def test_maxima_follow_by_what_keeps_the_order(function: str, body: Any) -> None:
    found = transport.find(function, body, [X], [R], 6)
    (factor,), (added,) = found.moves[0], found.added
    assert factor.is_positive
    moved = body.subs(R.old, R.new)
    assert sp.simplify(factor * body + added - moved) == 0


def test_a_pivot_that_is_0_on_the_way_divides_nothing() -> None:
    """The last maximum is 1; 64 zeros, a whole chunk, are accumulated before."""

    def scaled(x: Any) -> Any:
        return moa.reduce("add", x / moa.reduce("max", x))

    x = np.array([1.0, -3.0, *[0.0] * 64, *[-1.0] * 62])
    assert moa.jit(scaled)(x) == x.sum()


def test_a_quotient_of_powers_is_a_power_of_a_quotient() -> None:
    """`a^2` may overflow where `(a / b)^2` does not."""
    terms = Terms()
    a, b = (terms.value(create_ssa_value(f64)) for _ in range(2))
    term = from_sympy(3 * X**2 / Y**2, {X: a, Y: b}, terms, f64)
    assert term.computes("arith.mulf")
    three, power = term.args
    assert three.number == 3.0
    assert power.computes("arith.mulf")
    (quotient,) = set(power.args)
    assert quotient.computes("arith.divf")
    assert quotient.args == (a, b)


def test_norms_over_chunks_of_different_size_do_not_overflow() -> None:
    x = np.repeat([1e-300, 1e200, 1e-200], 64)
    norm = moa.jit(library.l2_norm)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        values = x.reshape(3, 64)[order].reshape(-1)
        np.testing.assert_allclose(norm(values), 8e200, rtol=1e-14)


# One form, however it is written


def top(x: Any) -> Any:
    return moa.reduce("max", x)


def plain(x: Any, v: Any) -> Any:
    e = moa.exp(x - top(x))
    return moa.reduce("add", e / moa.reduce("add", e) * v)


def negated(x: Any, v: Any) -> Any:
    e = moa.exp(x + -top(x))
    return moa.reduce("add", v * (e / moa.reduce("add", e)))


def twice(x: Any, v: Any) -> Any:
    weights = moa.exp(x - top(x)) / moa.reduce("add", moa.exp(x - top(x)))
    return moa.reduce("add", weights * v)


def by_choice(x: Any, v: Any) -> Any:
    def larger(a: Any, b: Any) -> Any:
        return moa.where(a > b, a, b)

    m = moa.reduce(larger, x)
    e = moa.exp(x - m)
    return moa.reduce("add", e / moa.reduce("add", e) * v)


def by_logarithm(x: Any, v: Any) -> Any:
    m = top(x)
    lse = m + moa.log(moa.reduce("add", moa.exp(x - m)))
    return moa.reduce("add", moa.exp(x - lse) * v)


def by_logarithms(x: Any, v: Any) -> Any:
    m = top(x)
    shifted = x - m
    return moa.reduce(
        "add", moa.exp(shifted - moa.log(moa.reduce("add", moa.exp(shifted)))) * v
    )


def by_reciprocal(x: Any, v: Any) -> Any:
    e = moa.exp(x - top(x))
    return moa.reduce("add", e * (1.0 / moa.reduce("add", e)) * v)


def base_two(x: Any, v: Any) -> Any:
    e = moa.exp2(1.4426950408889634 * (x - top(x)))
    return moa.reduce("add", e / moa.reduce("add", e) * v)


def scaled_before(x: Any, v: Any) -> Any:
    return plain(0.5 * (2.0 * x), v)


def scaled_after(x: Any, v: Any) -> Any:
    half = 0.5 * x
    e = moa.exp(2.0 * (half - top(half)))
    return moa.reduce("add", e / moa.reduce("add", e) * v)


DISGUISES = (
    *(plain, negated, twice, by_choice, by_logarithm, by_logarithms, by_reciprocal),
    *(base_two, scaled_before, scaled_after),
)


def cascades(compiled: moa.Compiled) -> tuple[int, int]:
    """How many cascades there are, and folds outside of them."""
    module = compiled.module("fused")
    found = [op for op in module.walk() if isinstance(op, CascadeOp)]
    inside = {op for one in found for op in one.walk()}
    others = [op for op in module.walk() if isinstance(op, FoldOp) and op not in inside]
    return len(found), len(others)


def is_certified(compiled: moa.Compiled) -> bool:
    """Whether C1 and C2 are proved of all that moves, and found again in the text."""
    certificate = compiled.certificate
    compiled.verify("fused")
    edges = [edge for one in certificate["cascades"] for edge in one["edges"]]
    proofs = {BY_SYMPY, BY_Z3}
    return (
        any(edge["rule"] != "none" for edge in edges)
        and all(edge["rule"] == "none" or edge["C1"] in proofs for edge in edges)
        and all(edge["rule"] == "none" or edge["C2"] in proofs for edge in edges)
        and certificate["unproved"] == []
    )


@pytest.mark.parametrize("program", DISGUISES)
def test_one_pass_under_every_disguise(program: Program) -> None:
    spec = moa.ArraySpec(("n",))
    compiled = moa.jit(program).lower(spec, spec)
    assert cascades(compiled) == (1, 0)
    (cascade,) = [
        op for op in compiled.module("fused").walk() if isinstance(op, CascadeOp)
    ]
    assert [f.data for f in cascade.functions] == ["max", "add", "add"]  # pyright: ignore
    assert is_certified(compiled)
    random = np.random.default_rng(0)
    for n in (1, 5, 64, 65, 300):
        x, v = random.normal(size=(2, n)) * 3
        weights = np.exp(x - x.max())
        expected = weights @ v / weights.sum()
        np.testing.assert_allclose(compiled(x, v), expected, rtol=1e-12, atol=1e-14)


def causal(condition: Callable[[Any, Any], Any]) -> Program:
    def program(s: Any, v: Any) -> Any:
        i = moa.iota(moa.psi([0], moa.shape(s)))
        j = moa.iota(moa.psi([1], moa.shape(s)))
        visible = moa.outer("ge", i, j)
        e = library.softmax(condition(s, visible))
        return moa.inner("add", "mul", e, v)

    return program


MASKS: dict[str, Callable[[Any, Any], Any]] = {
    "where": lambda s, c: moa.where(c, s, -math.inf),
    "added": lambda s, c: s + moa.where(c, 0.0, -math.inf),
    "negated": lambda s, c: moa.where(~c, -math.inf, s),
    "subtracted": lambda s, c: s - moa.where(c, 0.0, math.inf),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_a_bound_however_it_is_written(name: str) -> None:
    n = 9
    random = np.random.default_rng(0)
    s, v = random.normal(size=(n, n)), random.normal(size=(n, 3))
    s[np.triu_indices(n, 1)] = math.nan  # neither read nor weighed
    compiled = moa.jit(causal(MASKS[name])).lower(s, v)
    assert cascades(compiled) == (1, 0)
    assert "arith.minsi" in compiled.text("fused")
    weights = np.exp(np.where(np.isnan(s), -math.inf, s))
    expected = weights / weights.sum(1, keepdims=True) @ v
    np.testing.assert_allclose(compiled(s, v), expected, rtol=1e-13)


# Programs: passes after, and what they give


def tanh_sum(x: Any) -> Any:
    return moa.reduce("add", moa.tanh(x - top(x)))


def softplus_sum(x: Any) -> Any:
    return moa.reduce("add", moa.log(1.0 + moa.exp(x - top(x))))


def gaussian_sum(x: Any) -> Any:
    d = x - top(x)
    return moa.reduce("add", moa.exp(-(d * d)))


def rounded_sum(x: Any) -> Any:
    e = moa.cast(moa.cast(moa.exp(x - top(x)), "f16"), "f64")
    return moa.reduce("add", e)


@pytest.mark.parametrize("program", [tanh_sum, softplus_sum, gaussian_sum, rounded_sum])
def test_what_is_refused_is_right_in_two_passes(program: Program) -> None:
    x = np.random.default_rng(0).normal(size=100)
    compiled = moa.jit(program).lower(x)
    assert cascades(compiled) == (0, 2)
    np.testing.assert_allclose(compiled(x), moa.jit(program, fuse=False)(x), rtol=1e-13)


ONE_PASS: dict[str, Program] = {
    name: getattr(library, name)
    for name in (
        *("softmax", "log_softmax", "logsumexp", "entropy", "variance", "skewness"),
        *("kurtosis", "layernorm", "l2_norm"),
    )
}


@pytest.mark.parametrize("name", ONE_PASS)
def test_statistics_take_one_pass(name: str) -> None:
    compiled = moa.jit(ONE_PASS[name]).lower(moa.ArraySpec(("n", "m")))
    assert cascades(compiled) == (1, 0)


@pytest.mark.parametrize("name", ONE_PASS)
def test_one_pass_is_certified(name: str) -> None:
    assert is_certified(moa.jit(ONE_PASS[name]).lower(moa.ArraySpec(("n", "m"))))


@pytest.mark.parametrize("name", ONE_PASS)
@given(
    n=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1, 30]),
)
def test_one_pass_gives_what_several_give(
    name: str, n: int, seed: int, scale: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(2, n)) * scale
    fused, apart = KERNELS[name](x), SEVERAL[name](x)
    np.testing.assert_allclose(fused, apart, rtol=1e-10, atol=1e-12)


SPECS = [moa.ArraySpec((None, None))]
KERNELS = {name: moa.jit(program, specs=SPECS) for name, program in ONE_PASS.items()}
SEVERAL = {
    name: moa.jit(program, specs=SPECS, fuse=False)
    for name, program in ONE_PASS.items()
}


def exact(values: np.ndarray) -> list[Any]:
    mpmath.mp.dps = 50
    return [mpmath.mpf(float(value)) for value in values]


@pytest.mark.parametrize("n", [10, 1000, 4096])
def test_the_variance_of_data_far_from_zero(n: int) -> None:
    """Where `mean of squares - square of the mean` has no digit left."""
    x = np.random.default_rng(1).normal(size=n) + 1e8
    values = exact(x)
    mean = mpmath.fsum(values) / n
    expected = mpmath.fsum((value - mean) ** 2 for value in values) / n
    error = abs(mpmath.mpf(float(moa.jit(library.variance)(x))) - expected) / expected
    assert error < 16 * 2**-52  # that of a chain of 4096 additions
    naive = np.mean(x * x) - np.mean(x) ** 2
    assert abs(naive - float(expected)) > 0.1


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_entropy_of_large_logits(offset: float) -> None:
    x = np.random.default_rng(2).normal(size=1000) * 3 + offset
    values = exact(x)
    top = max(values)
    powers = [mpmath.e ** (value - top) for value in values]
    total = mpmath.fsum(powers)
    expected = (
        mpmath.log(total)
        - mpmath.fsum(p * (v - top) for p, v in zip(powers, values, strict=True))
        / total
    )
    error = abs(mpmath.mpf(float(moa.jit(library.entropy)(x))) - expected) / expected
    assert error < 16 * 2**-52


# Edges


def test_nan_spoils_its_row_alone() -> None:
    x = np.random.default_rng(0).normal(size=(3, 70))
    x[1, 69] = math.nan
    result = moa.jit(library.softmax)(x)
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[[0, 2]]).all()


def test_infinities_that_come_first_do_not_spoil_a_row() -> None:
    """Indices run from the last down: a whole chunk of them before a number."""
    x = np.full((1, 200), -math.inf)
    x[0, 0] = 1.0
    assert moa.jit(library.logsumexp)(x).tolist() == [1.0]
    result = moa.jit(library.softmax)(x)
    assert result[0, 0] == 1
    assert not result[0, 1:].any()


def test_empty_rows() -> None:
    x = np.zeros((2, 0))
    assert moa.jit(library.logsumexp)(x).tolist() == [-math.inf] * 2
    assert moa.jit(library.softmax)(x).shape == (2, 0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_large_logits(dtype: str) -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4] * 50], dtype)
    result = moa.jit(library.softmax)(x)
    shifted = np.exp(x.astype("f8") - x.max())
    np.testing.assert_allclose(result, shifted / shifted.sum(), rtol=1e-5)


def test_the_same_bits_whatever_the_batch() -> None:
    x = np.random.default_rng(0).normal(size=(50, 333))
    kernel = moa.jit(library.entropy, specs=SPECS)
    whole = kernel(x)
    for row in (0, 17, 49):
        assert kernel(x[row : row + 1])[0] == whole[row]


def test_strict_keeps_every_bit() -> None:
    x = np.random.default_rng(0).normal(size=(5, 333))
    for program in (library.variance, library.logsumexp, library.layernorm):
        compiled = moa.jit(program, fuse=False).lower(x)
        assert cascades(compiled)[0] == 0
    compiled = moa.jit(library.variance, fuse=False).lower(x)
    (literal,) = interpret_module(compiled.module("moa"), "variance", [x])
    np.testing.assert_array_equal(compiled(x), literal)


def scaled_by_top(x: Any) -> Any:
    return moa.reduce("add", x * moa.reduce("max", x))


def divided_by_top(x: Any) -> Any:
    return moa.reduce("add", x / (1.0 + moa.reduce("max", moa.absolute(x)) - 1.0))


def top_of_scaled(x: Any) -> Any:
    return moa.reduce("max", x * moa.reduce("add", moa.absolute(x)))


@pytest.mark.parametrize("program", [scaled_by_top, divided_by_top, top_of_scaled])
def test_a_pivot_may_be_zero_on_the_way(program: Program) -> None:
    """Indices run from the last down: the pivot of the first chunks is 0."""
    x = np.zeros(200)
    x[[10, 50]] = 2, 3
    expected = moa.jit(program, fuse=False)(x)
    assert np.isfinite(expected)
    np.testing.assert_allclose(moa.jit(program)(x), expected, rtol=1e-13)


def weights_by_least(x: Any, seen: Any) -> Any:
    e = moa.exp(x - moa.reduce("min", x))
    return moa.reduce("add", moa.where(seen, e, 0.0))


def squares_by_least(x: Any, seen: Any) -> Any:
    u = x - moa.reduce("min", x)
    return moa.reduce("add", moa.where(seen, u * u, 0.0))


def rows_by_least(x: Any, seen: Any) -> Any:
    e = moa.where(seen, moa.exp(x - moa.reduce("min", x)), 0.0)
    return moa.inner(
        "add", "mul", e, moa.outer("mul", moa.where(seen, x, 0.0), [1.0, -2.0])
    )


@pytest.mark.parametrize(
    ("program", "huge"),
    [
        (weights_by_least, math.inf),
        (weights_by_least, 1e300),
        (weights_by_least, 1e4),
        (squares_by_least, math.inf),
        (squares_by_least, 1e300),
        (rows_by_least, math.inf),
    ],
)
def test_nothing_is_not_multiplied_by_infinity(program: Program, huge: float) -> None:
    """The first indices, those from the last down, are left out; their pivot is far."""
    x = np.random.default_rng(0).normal(size=200)
    x[136:] = huge
    seen = np.abs(x) < 10
    compiled = moa.jit(program).lower(x, seen)
    assert cascades(compiled) == (1, 0)
    assert is_certified(compiled)
    expected = moa.jit(program, fuse=False)(x, seen)
    assert np.all(np.isfinite(expected))
    name = program.__name__
    interpreted = interpret_module(compiled.module("fused"), name, [x, seen])
    results = [compiled(x, seen), interpreted[0]]
    if np.ndim(expected) == 0:
        parts = compiled.parts()
        whole = parts.identity(x, seen)
        for low, high in ((150, 200), (100, 150), (0, 100)):
            whole = parts.merge(whole, parts.state(x[low:high], seen[low:high]))
        results.append(parts.finish(whole))
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-9)
    x[70] = math.nan
    assert np.all(np.isnan(compiled(x, seen)))


def least_of_doubled(x: Any, y: Any) -> Any:
    return moa.reduce("min", moa.exp(x + moa.reduce("max", x)))


def sum_of_doubled(x: Any, y: Any) -> Any:
    return moa.reduce("add", moa.exp(x + moa.reduce("max", x)))


def weights_of_others(x: Any, y: Any) -> Any:
    return moa.reduce("add", moa.exp(y - moa.reduce("max", x)))


def weights_of_all(x: Any, y: Any) -> Any:
    top = moa.reduce("max", moa.where(y > 0.0, x, -math.inf))
    return moa.reduce("add", moa.exp(x - top))


def greatest_of_others(x: Any, y: Any) -> Any:
    return moa.reduce("max", y + moa.reduce("max", x - math.inf))


def scaled_by_infinity(x: Any, y: Any) -> Any:
    infinite = moa.where(as_array(np.zeros(200, bool)), x, -math.inf)
    return moa.reduce("max", infinite * moa.reduce("max", infinite))


def greatest_of_some(x: Any, y: Any) -> Any:
    weights = moa.exp(y - moa.reduce("min", y))
    return moa.reduce("max", moa.where(x > -10.0, weights, 0.0))


RELATIVE = "a pivot is not the extreme of the data beside it"
FACTOR = "may be infinite where the accumulator is 0"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (least_of_doubled, f"T = exp(-r0 + r0') {FACTOR}"),
        (sum_of_doubled, RELATIVE),
        (weights_of_others, RELATIVE),
        (weights_of_all, RELATIVE),
        (greatest_of_others, RELATIVE),
        (scaled_by_infinity, RELATIVE),
        (greatest_of_some, f"T = exp(r0 - r0') {FACTOR}"),
    ],
)
def test_what_is_not_relative_to_an_extreme_stays(
    program: Program, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pivot of the first indices, those from the last down, is far from the last.

    What is folded relative to it is 0 or infinite, and does not come back from there.
    """
    data = np.random.default_rng(0).normal(size=(2, 200))
    data[0, 100:] = -math.inf
    if program is greatest_of_some:
        data[1, 100:] = 1e4
    if program is weights_of_all:
        data[0], data[1] = 0.5, np.arange(200) < 100

    def of_rows(data: Any) -> Any:
        return program(moa.psi([0], data), moa.psi([1], data))

    compiled = moa.jit(of_rows).lower(data)
    expected = moa.jit(of_rows, fuse=False)(data)
    assert not np.isnan(expected)
    (interpreted,) = interpret_module(compiled.module("fused"), "of_rows", [data])
    for result in (compiled(data), interpreted):
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert reason in explained(of_rows, capsys, moa.ArraySpec((2, 200)))


def relative_to_scaled(x: Any) -> Any:
    top = moa.reduce("max", x)
    return moa.reduce("add", moa.exp(0.5 * (x - top)) * x)


def relative_to_scaled_top(x: Any) -> Any:
    return moa.reduce("add", moa.exp(0.5 * x - 0.5 * moa.reduce("max", x)))


def relative_to_clamped(x: Any) -> Any:
    return moa.reduce("add", moa.exp(x - moa.maximum(moa.reduce("max", x), 0.5)))


def relative_to_masked(x: Any) -> Any:
    seen = moa.absolute(x) < 1.0
    top = moa.reduce("max", moa.where(seen, x, -math.inf))
    return moa.reduce("add", moa.where(seen, moa.exp(x - top), 0.0))


def relative_to_distances(x: Any) -> Any:
    mean = moa.reduce("add", x) / 200.0
    return moa.reduce("add", moa.exp(x - mean - moa.reduce("max", x - mean)))


def relative_to_two(x: Any) -> Any:
    y = moa.reverse(x)
    return moa.reduce(
        "add", moa.exp(x + y - moa.reduce("max", x) - moa.reduce("max", y))
    )


def most_of_weights(x: Any) -> Any:
    return moa.reduce("max", library.softmax(x))


@pytest.mark.parametrize(
    "program",
    [
        relative_to_two,
        most_of_weights,
        relative_to_scaled,
        relative_to_scaled_top,
        relative_to_clamped,
        relative_to_masked,
        relative_to_distances,
    ],
)
def test_what_is_relative_to_an_extreme_moves(program: Program) -> None:
    x = np.random.default_rng(0).normal(size=200)
    compiled = moa.jit(program).lower(x)
    assert cascades(compiled) == (1, 0)
    expected = moa.jit(program, fuse=False)(x)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-12)


def test_a_sum_over_nothing_is_0_whatever_its_factors_are() -> None:
    """The maximum of nothing is minus infinity, and its quotient by itself NaN."""

    def program(x: Any, end: Any) -> Any:
        infinite = moa.where(False, x, -math.inf)
        top = moa.maximum(infinite, moa.reduce("max", infinite))
        return moa.reduce("add", moa.absolute(top / end))

    arrays = [np.zeros(0), np.array(-math.inf)]
    assert moa.jit(program, fuse=False)(*arrays) == 0
    compiled = moa.jit(program).lower(VECTOR, moa.ArraySpec(()))
    assert cascades(compiled) == (1, 0)
    assert compiled(*arrays) == 0


@pytest.mark.parametrize("other", [math.inf, math.nan])
def test_what_a_choice_leaves_out_is_not_multiplied(other: float) -> None:
    """A value without pivots may be infinite where it is not chosen, too."""

    def chosen(x: Any, y: Any) -> Any:
        total = moa.reduce("add", x)
        return moa.reduce("add", moa.where(x > -10.0, x - total, y))

    x, y = np.random.default_rng(0).normal(size=200), np.full(200, other)
    compiled = moa.jit(chosen).lower(x, y)
    assert cascades(compiled) == (1, 0)
    np.testing.assert_allclose(compiled(x, y), np.sum(x - np.sum(x)), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_a_norm_keeps_its_scale(scale: float) -> None:
    x = np.zeros(200)
    x[[10, 50]] = 3 * scale, 4 * scale
    compiled = moa.jit(library.l2_norm).lower(x)
    assert cascades(compiled) == (1, 0)
    np.testing.assert_allclose(compiled(x), 5 * scale, rtol=1e-13)


def test_what_divides_by_a_pivot_leaves_the_sum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "deferral: a factor of a sum" in explained(scaled_by_top, capsys)
    text = explained(top_of_scaled, capsys)
    assert "T = r0'/r0 has no value for a pivot of 0" in text


def explained(
    program: Program,
    capsys: pytest.CaptureFixture[str],
    spec: moa.ArraySpec = VECTOR,
) -> str:
    module = moa.jit(program).lower(spec).module("dnf")
    for pass_ in (SharePass(), FuseReductionsPass(chunk=64, explain=True)):
        pass_.apply(Context(), module)
    return capsys.readouterr().out


def largest_after_the_first(x: Any) -> Any:
    place = moa.reduce("min", moa.where(x > 0.0, moa.iota(200), 200))
    return moa.reduce("max", moa.where(moa.iota(200) > place, x, -math.inf))


def test_a_fold_needs_another_pass_by_an_index_too() -> None:
    x = np.random.default_rng(0).normal(size=(3, 200))
    x[:, :5] = -1

    def rows(x: Any) -> Any:
        return moa.omega(largest_after_the_first, 1, x)

    compiled = moa.jit(rows).lower(x)
    assert cascades(compiled) == (0, 2)
    expected = [row[np.argmax(row > 0) + 1 :].max() for row in x]
    np.testing.assert_array_equal(compiled(x), expected)


def difference_of_two(x: Any, y: Any, v: Any) -> Any:
    p, q = library.softmax(x), library.softmax(y)
    return moa.inner("add", "mul", p - 0.3 * q, v)


def difference_of_tanh(x: Any, y: Any) -> Any:
    u = moa.tanh(x - moa.reduce("max", x))
    return moa.reduce("add", u - moa.exp(y - moa.reduce("max", y)))


def test_a_sum_of_parts_with_other_pivots_is_split() -> None:
    random = np.random.default_rng(0)
    x, y = 30 * random.normal(size=(2, 5, 200))
    v = random.normal(size=(200, 3))
    compiled = moa.jit(difference_of_two).lower(x, y, v)
    assert cascades(compiled) == (1, 0)
    assert is_certified(compiled)
    expected = moa.jit(difference_of_two, fuse=False)(x, y, v)
    np.testing.assert_allclose(compiled(x, y, v), expected, rtol=1e-12)


def test_a_sum_is_not_split_if_a_part_does_not_move() -> None:
    spec = moa.ArraySpec(("n",))
    module = moa.jit(difference_of_tanh).lower(spec, spec).module("fused")
    assert sum(isinstance(op, FoldOp) for op in module.walk()) == 1


def prefixes_beside_a_total(x: Any) -> Any:
    e = moa.exp(x)
    total = moa.reduce("add", moa.exp(x - moa.reduce("max", x)))
    return moa.scan("add", e) * moa.scan("max", e) + total


def product_of_weights(x: Any) -> Any:
    e = moa.exp(x - moa.reduce("max", x))
    return moa.scan("mul", e + moa.reduce("add", e))


@pytest.mark.parametrize("program", [prefixes_beside_a_total, product_of_weights])
def test_bounds_that_depend_on_an_axis_keep_it_outside(program: Program) -> None:
    x = np.random.default_rng(0).normal(size=70)
    expected = moa.jit(program, fuse=False)(x)
    np.testing.assert_allclose(moa.jit(program)(x), expected, rtol=1e-12)


def test_prefixes_beside_a_total_are_not_fused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "the bounds of a pass depend on an axis that would move inside"
    assert f"not fused: {reason}" in explained(prefixes_beside_a_total, capsys)


def _mean(x: Any) -> Any:
    return moa.reduce("add", x) / moa.cast(moa.total(x), "f64")


MEANS: dict[str, Program] = {
    "by the total": _mean,
    "by a number": lambda x: moa.reduce("add", x) / 300.0,
    "times a number": lambda x: moa.reduce("add", x) * (1 / 300),
    "of quotients": lambda x: moa.reduce("add", x / 300.0),
    "of negations": lambda x: -_mean(-x),
    "of distances": lambda x: _mean(x - 7.0) + 7.0,
    "of multiples": lambda x: _mean(3.0 * x) / 3.0,
}


@pytest.mark.parametrize("name", MEANS)
def test_distances_from_a_mean_keep_their_digits(name: str) -> None:
    """In one pass, however the mean is spelled."""

    def program(x: Any) -> Any:
        distance = x - MEANS[name](x)
        return MEANS[name](distance * distance)

    x = np.random.default_rng(0).normal(1e7, 1, 300)
    compiled = moa.jit(program).lower(moa.ArraySpec((300,)))
    assert cascades(compiled) == (1, 0)
    np.testing.assert_allclose(compiled(x), np.var(x), rtol=1e-13)


def test_a_sum_of_nothing_stays_what_it_is() -> None:
    """Only distances read the mean that stands for it: that of nothing is NaN."""

    def program(x: Any) -> Any:
        center = moa.reduce("add", x) / 50.0 + 3.0
        return moa.reduce("add", (x - center) * (x - center)) + center

    compiled = moa.jit(program).lower(VECTOR)
    for x in (np.zeros(0), np.arange(3.0)):
        center = x.sum() / 50 + 3
        wanted = np.sum((x - center) ** 2) + center
        np.testing.assert_allclose(compiled(x), wanted, rtol=1e-13)


def test_two_pivots_of_the_same_data() -> None:
    """The variance of a softmax: distances from a mean, weighted by a maximum."""

    def program(x: Any) -> Any:
        weights = library.softmax(x)
        distance = x - moa.reduce("add", weights * x)
        return moa.reduce("add", weights * distance * distance)

    x = np.random.default_rng(0).normal(1e4, 1, 200)
    compiled = moa.jit(program).lower(VECTOR)
    assert cascades(compiled) == (1, 0)
    literal = moa.jit(program, fuse=False).lower(VECTOR)
    np.testing.assert_allclose(compiled(x), literal(x), rtol=1e-11)
    compiled.verify("fused")


def test_a_sum_is_not_split_in_vain() -> None:
    """Residuals of a line take a second pass, from distances that keep digits."""

    def program(x: Any, y: Any) -> Any:
        u, v = x - _mean(x), y - _mean(y)
        slope = moa.reduce("add", u * v) / moa.reduce("add", u * u)
        rest = v - slope * u
        return moa.reduce("add", rest * rest)

    x, y = np.random.default_rng(0).normal(1e6, 1, (2, 200))
    u, v = x - x.mean(), y - y.mean()
    wanted = np.sum((v - (u @ v) / (u @ u) * u) ** 2)
    compiled = moa.jit(program).lower(VECTOR, VECTOR)
    np.testing.assert_allclose(compiled(x, y), wanted, rtol=1e-12)


def test_a_maximum_stays_beside_the_data_where_a_sum_is_split() -> None:
    """A cross entropy with targets that are a mixture, of large logits."""

    def program(x: Any, y: Any) -> Any:
        target = 0.9 * library.softmax(y) + 0.001
        return moa.reduce("add", target * library.log_softmax(x))

    random = np.random.default_rng(0)
    x, y = random.normal(1e7, 1, 100), random.normal(0, 1, 100)
    compiled = moa.jit(program).lower(VECTOR, VECTOR)
    assert cascades(compiled) == (1, 0)
    literal = moa.jit(program, fuse=False).lower(VECTOR, VECTOR)
    np.testing.assert_allclose(compiled(x, y), literal(x, y), rtol=1e-13)


@pytest.mark.parametrize("function", [abs, moa.sin, lambda q: abs(q) ** 1.5])
def test_a_quotient_of_pivots_in_a_function_has_no_value_at_0(
    function: Program,
) -> None:
    """`T = |r / r'|`, of a minimum that is 0 on the way."""

    def program(x: Any) -> Any:
        return moa.reduce("add", function(x / moa.reduce("min", x)))

    x = np.concatenate([[0.0, -1.0, 3.0], np.zeros(70)])
    for data in (x, x[::-1].copy()):
        literal = moa.jit(program, fuse=False)(data)
        np.testing.assert_allclose(moa.jit(program)(data), literal, rtol=1e-14)


# Random bodies


@st.composite
def bodies(draw: st.DrawFn) -> tuple[int, int, bool]:
    """A power of u, how often an exponential, whether there is a payload."""
    return draw(st.integers(0, 4)), draw(st.integers(0, 2)), draw(st.booleans())


@given(parts=st.lists(bodies(), min_size=1, max_size=3), n=st.integers(0, 150))
@example(parts=[(0, 1, False), (1, 1, False)], n=0)  # values that have no memory
def test_random_cascades_of_fusable_bodies(
    parts: list[tuple[int, int, bool]], n: int
) -> None:
    def program(x: Any, v: Any) -> Any:
        u = x - top(x)
        total: Any = 0.0
        for power, exponentials, has_payload in parts:
            body = moa.exp(float(exponentials) * u)
            for _ in range(power):
                body = body * u
            total = total + moa.reduce("add", body * v if has_payload else body)
        return total

    random = np.random.default_rng(n)
    x, v = random.normal(size=(2, n))
    compiled = moa.jit(program).lower(x, v)
    literal = moa.jit(program, fuse=False)(x, v)
    np.testing.assert_allclose(compiled(x, v), literal, rtol=1e-9, atol=1e-9)
