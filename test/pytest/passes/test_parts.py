"""Partial states: parts of the data come together to the results of the whole."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects import arith
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError, MoaError, ShapeError
from moa_dialect.frontend.parts import Parts, State
from moa_dialect.interpreter import interpret_module
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp, YieldOp

Spec = moa.ArraySpec
Arrays = list[np.ndarray]
RNG = np.random.default_rng


# Programs


@dataclass(frozen=True)
class Case:
    """A program, and how its data come in parts.

    Attributes:
        program: the program.
        specs: the specifications of its arguments.
        shapes: their shapes; -1 is the folded axis.
        options: its keyword arguments.
        components: the names of a state's arrays.
        finish: the arguments that `finish` needs.
        least: the least length of the whole for which it is a number.
        scale: how large the data are.
    """

    program: Callable[..., Any]
    specs: Sequence[moa.ArraySpec]
    shapes: Sequence[tuple[int, ...]]
    components: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    finish: tuple[int, ...] = ()
    least: int = 0
    scale: float = 3.0

    def arrays(self, seed: int, length: int) -> Arrays:
        """Random arguments."""
        random = RNG(seed)
        shapes = [tuple(length if e < 0 else e for e in s) for s in self.shapes]
        return [random.normal(size=shape) * self.scale for shape in shapes]

    def part(self, arrays: Arrays, low: int, high: int) -> Arrays:
        """The arguments, in part along the folded axis."""
        return [
            np.take(array, range(low, high), shape.index(-1)) if -1 in shape else array
            for array, shape in zip(arrays, self.shapes, strict=True)
        ]


ROWS, ROW = [Spec(("b", "n"))], [(3, -1)]
KEYS = [Spec(("n", 4)), Spec(("m", 4)), Spec(("m", 2))]
KEY = [(5, 4), (-1, 4), (-1, 2)]
SOFTMAX = ("max", "add", "count")
ATTENTION = ("max", "add", "add2", "count")
WELFORD = ("add", "add2", "pivot", "count")


def by_place(x: Any) -> Any:
    """Values that depend on where they are; the result on how many there are."""
    n = moa.psi([0], moa.shape(x))
    place = moa.iota(n)
    shown = moa.where(place < 7, x + moa.cast(place, "f64"), -math.inf)
    return library.logsumexp(shown) / moa.cast(n, "f64")


def alibi(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return score - 0.5 * moa.cast(i - j, "f64")


CASES: dict[str, Case] = {
    "logsumexp": Case(library.logsumexp, ROWS, ROW, SOFTMAX),
    "logsumexp of a vector": Case(library.logsumexp, [Spec(("n",))], [(-1,)], SOFTMAX),
    "softmax": Case(library.softmax, ROWS, ROW, SOFTMAX, finish=(0,)),
    "log_softmax": Case(library.log_softmax, ROWS, ROW, SOFTMAX, finish=(0,)),
    "variance": Case(library.variance, ROWS, ROW, WELFORD, least=1),
    "sample variance": Case(library.variance, ROWS, ROW, WELFORD, {"ddof": 1}, least=2),
    "skewness": Case(
        library.skewness,
        ROWS,
        ROW,
        ("add", "add2", "add3", "pivot", "count"),
        least=4,
    ),
    "covariance": Case(
        library.covariance,
        ROWS * 2,
        ROW * 2,
        ("add", "add2", "add3", "pivot", "pivot2", "count"),
        least=1,
    ),
    "covariance_matrix": Case(
        library.covariance_matrix,
        [Spec(("n", "p"))],
        [(-1, 3)],
        ("add", "add2", "add3", "pivot", "pivot2", "count"),
        least=1,
    ),
    "kl_divergence": Case(
        library.kl_divergence,
        ROWS * 2,
        ROW * 2,
        ("max", "max2", "add", "add2", "add3", "add4", "count"),
        least=1,
    ),
    "absmax": Case(
        library.absmax_scaled_product,
        [Spec(("b", "n")), Spec(("n", "p"))],
        [(3, -1), (-1, 2)],
        ("add", "max", "count"),
    ),
    "weighted layernorm": Case(
        library.layernorm,
        [Spec(("b", "n")), Spec(("n",))],
        [(3, -1), (-1,)],
        WELFORD,
        finish=(0, 1),
        least=1,
    ),
    "layernorm": Case(library.layernorm, ROWS, ROW, WELFORD, finish=(0,), least=1),
    "entropy": Case(
        library.entropy, ROWS, ROW, ("max", "add", "add2", "count"), least=1
    ),
    "l2_norm": Case(library.l2_norm, ROWS, ROW, SOFTMAX, scale=1e200),
    "attention": Case(library.attention, KEYS, KEY, ATTENTION),
    "attention with lse": Case(
        library.attention, KEYS, KEY, ATTENTION, {"return_lse": True}
    ),
    "causal attention": Case(
        library.attention,
        KEYS,
        KEY,
        ATTENTION,
        {"is_causal": True, "return_lse": True},
    ),
    "windows": Case(library.attention, KEYS, KEY, ATTENTION, {"window": 2}),
    "score_mod": Case(library.attention, KEYS, KEY, ATTENTION, {"score_mod": alibi}),
    "grouped heads": Case(
        library.attention,
        [Spec((4, "n", 4)), Spec((2, "m", 4)), Spec((2, "m", 2))],
        [(4, 5, 4), (2, -1, 4), (2, -1, 2)],
        ATTENTION,
    ),
    "fixed length": Case(
        library.attention,
        [Spec((5, 4)), Spec((9, 4)), Spec((9, 2))],
        KEY,
        ATTENTION,
        least=9,
    ),
    "by place": Case(by_place, [Spec(("n",))], [(-1,)], (*SOFTMAX, "extent"), least=1),
}


@cache
def compiled(name: str) -> tuple[moa.Compiled, Parts]:
    case = CASES[name]
    program = moa.jit(case.program).lower(*case.specs, **case.options)
    return program, program.parts()


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def assert_close(given: Sequence[Any], expected: Sequence[Any], rtol: float) -> None:
    for one, other in zip(given, expected, strict=True):
        finite = np.abs(other, where=np.isfinite(other), out=np.zeros_like(other))
        # Sums that cancel, as those of distances from the mean, are rounding alone.
        size = max(float(np.max(finite, initial=0.0)), 0.1)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * size)


def put_together(parts: Parts, states: list[State], random: Any) -> State:
    """Merge states by a random tree, in a random order."""
    states = list(states)
    while len(states) > 1:
        left = states.pop(random.randrange(len(states)))
        right = states.pop(random.randrange(len(states)))
        states.append(parts.merge(left, right))
    return states[0]


LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=5)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20)
@given(
    lengths=LENGTHS, seed=st.integers(0, 99), random=st.randoms(use_true_random=False)
)
def test_parts_come_together_to_the_whole(
    name: str, lengths: list[int], seed: int, random: Any
) -> None:
    case, (program, parts) = CASES[name], compiled(name)
    if case.specs[-1].shape[-2:-1] == (9,):
        lengths = [max(0, min(9 - sum(lengths[:k]), e)) for k, e in enumerate(lengths)]
        lengths.append(9 - sum(lengths))
    length = sum(lengths)
    assume(length >= case.least)
    arrays = case.arrays(seed, length)
    ends = np.cumsum([0, *lengths])
    states = [
        parts.state(*case.part(arrays, low, high), offset=low)
        for low, high in pairwise(ends)
    ]
    assert parts.components == case.components
    whole = put_together(parts, states, random)
    results = as_tuple(parts.finish(whole, *(arrays[k] for k in case.finish)))
    expected = as_tuple(program(*arrays))
    assert_close(results, expected, 1e-6 if name == "skewness" else 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_identity_is_the_state_of_nothing(name: str) -> None:
    case, (_, parts) = CASES[name], compiled(name)
    arrays = case.arrays(1, 6)
    nothing = parts.identity(*arrays)
    for one, expected in zip(
        parts.state(*case.part(arrays, 3, 3), offset=3), nothing, strict=True
    ):
        np.testing.assert_array_equal(one, expected)
    state = parts.state(*arrays)
    for merged in (parts.merge(nothing, state), parts.merge(state, nothing)):
        for one, expected in zip(merged, state, strict=True):
            assert one.tobytes() == expected.tobytes()
    for one, expected in zip(parts.merge(nothing, nothing), nothing, strict=True):
        np.testing.assert_array_equal(one, expected)


FLOATS = st.floats(-30.0, 30.0, width=32)


@st.composite
def random_states(draw: st.DrawFn, name: str) -> State:
    """A state of any numbers: not only those that data lead to."""
    parts = compiled(name)[1]
    count = draw(st.integers(1, 50))
    values = [np.array([draw(FLOATS) for _ in range(3)]) for _ in parts.components[:-1]]
    return (*values, np.array(count))


@pytest.mark.parametrize("name", ["logsumexp", "entropy", "variance", "skewness"])
@settings(max_examples=50)
@given(data=st.data())
def test_merging_is_associative_and_commutative(name: str, data: Any) -> None:
    parts = compiled(name)[1]
    a, b, c = (data.draw(random_states(name)) for _ in range(3))
    left = parts.merge(parts.merge(a, b), c)
    right = parts.merge(a, parts.merge(b, c))
    size = max(float(np.max(np.abs(part))) for part in (*left, *right))
    # Third moments have terms as large as the distances' third powers.
    size = max(size, 1.0) * (1e4 if name == "skewness" else 1e2)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15 * size)
    for one, other in zip(parts.merge(a, b), parts.merge(b, a), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15 * size)


# In exact arithmetic


class Exact:
    """Evaluates `@f.merge` on expressions; neither state is that of nothing."""

    OPERATIONS: ClassVar[dict[str, Callable[..., Any]]] = {
        "arith.addf": lambda a, b: a + b,
        "arith.addi": lambda a, b: a + b,
        "arith.subf": lambda a, b: a - b,
        "arith.mulf": lambda a, b: a * b,
        "arith.divf": lambda a, b: a / b,
        "arith.maximumf": sp.Max,
        "arith.index_cast": lambda a: a,
        "arith.sitofp": lambda a: a,
        "arith.cmpi": lambda a, b: sp.false,
        "arith.select": lambda c, a, b: b if c == sp.false else sp.nan,
        "math.exp": sp.exp,
    }

    def __init__(self, parts: Parts, entry: str) -> None:
        module = parts.module("fused")
        self.function = next(
            op
            for op in module.walk()
            if isinstance(op, FuncOp) and op.sym_name.data == f"{entry}.merge"
        )

    def __call__(self, a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        self.known: dict[SSAValue, Any] = {}
        block = self.function.body.block
        self.known.update(zip(block.args, (*a, *b), strict=True))
        return self.run(block)

    def run(self, block: Block) -> list[Any]:
        for op in block.ops:
            if isinstance(op, YieldOp | ReturnOp):
                return [self.known[value] for value in op.operands]
            self.known.update(zip(op.results, self.evaluate(op), strict=True))
        raise AssertionError("a block without a terminator")

    def evaluate(self, op: Operation) -> list[Any]:
        if isinstance(op, ComprehensionOp):
            return self.run(op.body.block)
        if isinstance(op, AtOp):
            return [self.known[op.array]]
        if isinstance(op, arith.ConstantOp):
            value = float(op.value.value.data)  # pyright: ignore
            if abs(value) > 1e300:
                return [sp.oo if value > 0 else -sp.oo]
            return [0 if 0 < value < 1e-300 else int(value)]
        values = [self.known[value] for value in op.operands]
        return [self.OPERATIONS[op.name](*values)]


def symbols(parts: Parts, side: str, positive: bool) -> list[Any]:
    """A state of symbols."""
    return [
        sp.Symbol(f"{name}_{side}", real=True, positive=positive or name == "count")
        for name in parts.components
    ]


@pytest.mark.parametrize(
    ("program", "positive"),
    [(library.logsumexp, False), (library.l2_norm, True), (library.entropy, False)],
)
def test_merging_is_associative_exactly(program: Any, positive: bool) -> None:
    """For transports of rank one, logsumexp and l2_norm, and of rank two."""
    parts = moa.jit(program).lower(Spec(("n",))).parts()
    merge = Exact(parts, program.__name__)
    a, b, c = (symbols(parts, side, positive) for side in "abc")
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    for one, other in zip(left, right, strict=True):
        assert sp.simplify(sp.expand(sp.expand_power_exp(one - other))) == 0
    for one, other in zip(merge(a, b), merge(b, a), strict=True):
        assert sp.simplify(sp.expand(one - other)) == 0


@pytest.mark.parametrize("program", [library.variance, library.skewness])
def test_merging_moments_is_associative_exactly(program: Any) -> None:
    """For transports of rank three and four: all are rational functions."""
    parts = moa.jit(program).lower(Spec(("n",))).parts()
    merge = Exact(parts, program.__name__)
    names = [f"{name}_{side}" for side in "abc" for name in parts.components]
    field = sp.QQ.frac_field(*names)
    size = len(parts.components)
    a, b, c = (list(field.gens[k * size : (k + 1) * size]) for k in range(3))
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)


# Edges


def test_parts_that_no_query_sees() -> None:
    random = RNG(0)
    q, k, v = random.normal(size=(2, 4)), *random.normal(size=(2, 9, 4))
    bias = random.normal(size=(2, 9))
    bias[0, 3:6] = bias[1] = -math.inf
    program = moa.jit(library.attention).lower(q, k, v, bias=bias, return_lse=True)
    parts = program.parts()
    cuts = [(0, 3), (3, 6), (6, 9)]
    states = [parts.state(q, k[i:j], v[i:j], bias[:, i:j]) for i, j in cuts]
    assert (states[1][0] == -math.inf).all()
    whole = parts.merge(parts.merge(states[1], states[0]), states[2])
    out, lse = parts.finish(whole)
    assert_close((out, lse), program(q, k, v, bias), 1e-13)
    np.testing.assert_array_equal(out[1], 0.0)
    assert lse[1] == -math.inf
    # Of masked parts alone.
    out, lse = parts.finish(parts.merge(states[1], states[1]))
    np.testing.assert_array_equal(out, 0.0)
    np.testing.assert_array_equal(lse, -math.inf)


def test_a_part_after_all_queries_is_not_read() -> None:
    program, parts = compiled("causal attention")
    q, k, v = CASES["causal attention"].arrays(0, 9)
    k[6:] = v[6:] = math.nan
    states = [parts.state(q, k[i:j], v[i:j], offset=i) for i, j in ((0, 6), (6, 9))]
    assert_close(parts.finish(parts.merge(*states)), program(q, k, v), 1e-13)


def test_a_nan_spoils_its_row_only() -> None:
    program, parts = compiled("logsumexp")
    x = RNG(0).normal(size=(3, 8))
    x[1, 2] = math.nan
    merged = parts.merge(parts.state(x[:, :4].copy()), parts.state(x[:, 4:].copy()))
    assert_close([parts.finish(merged)], [program(x)], 1e-13)
    assert np.isnan(parts.finish(merged)).tolist() == [False, True, False]


def test_digits_of_data_far_from_zero_are_kept() -> None:
    _, parts = compiled("variance")
    x = RNG(0).normal(size=(3, 1000)) + 1e8
    cuts = [0, 1, 10, 500, 1000]
    states = [parts.state(x[:, i:j].copy()) for i, j in pairwise(cuts)]
    whole = states[0]
    for state in states[1:]:
        whole = parts.merge(state, whole)
    expected = (x - 1e8).var(axis=1)
    np.testing.assert_allclose(parts.finish(whole), expected, rtol=1e-9)


def test_norms_of_parts_of_different_size_do_not_overflow() -> None:
    _, parts = compiled("l2_norm")
    large, small = np.full((3, 4), 1e300), np.full((3, 4), 1e-300)
    states = [parts.state(array) for array in (large, small, np.zeros((3, 4)))]
    for a, b, c in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        whole = parts.merge(parts.merge(states[a], states[b]), states[c])
        np.testing.assert_allclose(parts.finish(whole), 2e300, rtol=1e-14)
    merged = parts.merge(states[1], states[2])
    np.testing.assert_allclose(parts.finish(merged), 2e-300, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float16", 2e-3)])
def test_other_dtypes(dtype: str, rtol: float) -> None:
    q, k, v = (a.astype(dtype) for a in CASES["attention"].arrays(0, 70))
    program = moa.jit(library.attention).lower(q, k, v)
    parts = program.parts()
    states = [parts.state(q, k[i:j], v[i:j]) for i, j in ((0, 64), (64, 70))]
    result = parts.finish(parts.merge(*states))
    assert result.dtype == np.dtype(dtype)
    assert states[0][0].dtype == np.float32
    assert_close([result.astype(float)], [program(q, k, v).astype(float)], rtol)


def test_a_part_of_the_result() -> None:
    program, parts = compiled("softmax")
    x = RNG(0).normal(size=(3, 8))
    x1, x2 = x[:, :5].copy(), x[:, 5:].copy()
    whole = parts.merge(parts.state(x1), parts.state(x2))
    results = [parts.finish(whole, part) for part in (x1, x2)]
    np.testing.assert_allclose(np.concatenate(results, 1), program(x), rtol=1e-14)


def test_arguments_that_the_transport_needs() -> None:
    def tempered(x: Any, t: Any) -> Any:
        top = moa.omega(lambda r: moa.reduce("max", r), 1, x)
        distances = moa.omega(lambda r, m: r - m, (1, 0), x, top)
        powers = moa.exp(moa.omega(lambda r, s: r / s, (1, 0), distances, t))
        return moa.omega(lambda r: moa.reduce("add", r), 1, powers)

    x, t = RNG(0).normal(size=(3, 8)), np.array([0.5, 1.0, 2.0])
    program = moa.jit(tempered).lower(Spec(("b", "n")), Spec(("b",)))
    parts = program.parts()
    assert parts.arguments("state") == parts.arguments("identity") == ("x", "t")
    assert parts.arguments("merge") == ("t",)
    assert parts.arguments("finish") == ()
    states = [parts.state(x[:, i:j].copy(), t) for i, j in ((0, 3), (3, 8))]
    whole = parts.merge(*states, t)
    np.testing.assert_allclose(parts.finish(whole), program(x, t), rtol=1e-13)
    with pytest.raises(ShapeError, match="axis 0 of t must equal axis 0 of x"):
        parts.merge(*states, t[:2])


def test_torch_tensors() -> None:
    torch: Any = pytest.importorskip("torch")
    program, parts = compiled("attention with lse")
    q, k, v = map(torch.tensor, CASES["attention"].arrays(0, 8))
    states = [parts.state(q, k[i:j], v[i:j]) for i, j in ((0, 3), (3, 8))]
    assert all(isinstance(array, torch.Tensor) for array in states[0])
    results = parts.finish(parts.merge(*states))
    for one, expected in zip(results, program(q, k, v), strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("name", ["attention with lse", "by place", "variance"])
def test_the_interpreter_agrees(name: str) -> None:
    case, (_, parts) = CASES[name], compiled(name)
    arrays = case.arrays(0, 6)
    (entry,) = {case.program.__name__}
    module = parts.module("fused")

    def run(part: str, *given: Any) -> State:
        return as_tuple(interpret_module(module, f"{entry}.{part}", given))

    offset = [[np.array(k)] if parts.needs_offset else [] for k in (0, 2)]
    states = [
        run("state", *case.part(arrays, 0, 2), *offset[0]),
        run("state", *case.part(arrays, 2, 6), *offset[1]),
    ]
    compiled_states = [
        parts.state(*case.part(arrays, low, high), offset=low)
        for low, high in ((0, 2), (2, 6))
    ]
    merged = run("merge", *states[0], *states[1])
    assert_close(merged, parts.merge(*compiled_states), 1e-13)
    results = run("finish", *merged)
    assert_close(results, as_tuple(parts.finish(merged)), 1e-13)
    nothing = run("identity", *arrays)
    for one, expected in zip(nothing, parts.identity(*arrays), strict=True):
        np.testing.assert_array_equal(one, expected)


# Refusals


def position(x: Any) -> Any:
    return moa.cast(moa.iota(moa.psi([0], moa.shape(x))), "f64")


REFUSED: dict[str, tuple[Callable[..., Any], list[Any], str]] = {
    "no cascade": (library.mean, ROWS, "@mean: emit=merge expects one fused .* none"),
    "no transport": (
        lambda x: moa.reduce("add", moa.tanh(x - moa.reduce("max", x))),
        [Spec(("n",))],
        "expects one fused cascade, got none",
    ),
    "two": (
        lambda x, y: library.logsumexp(x) * library.logsumexp(y),
        [Spec(("n",)), Spec(("m",))],
        "expects one fused cascade, got 2",
    ),
    "two of the same data": (
        lambda x: (library.logsumexp(x), library.logsumexp(moa.transpose(x))),
        ROWS,
        "expects one fused cascade, got 2",
    ),
    "reversed": (
        lambda x: library.logsumexp(x + moa.reverse(x)),
        [Spec(("n",))],
        "reads x along the folded axis by another index too",
    ),
    "self-attention": (
        lambda x: library.attention(x, x, x),
        [Spec(("n", 4))],
        "reads x along the folded axis by another index too",
    ),
    "a prefix": (
        lambda x: library.logsumexp(moa.take([5], x)),
        [Spec(("n",))],
        "does not go along a whole axis",
    ),
    "a suffix": (
        lambda x: library.logsumexp(moa.drop([1], x)),
        [Spec(("n",))],
        "goes along no axis of an argument",
    ),
    "how many": (
        lambda x: library.logsumexp(x / moa.cast(moa.psi([0], moa.shape(x)), "f64")),
        [Spec(("n",))],
        "depends on the extent of the whole axis",
    ),
    "a table": (
        lambda x, t: library.logsumexp(x + moa.take([5], moa.cat(t, moa.reverse(t)))),
        [Spec((5,)), Spec((3,))],
        "axis 0 of x is not known to be as long as axis 0 of t",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_why(name: str) -> None:
    program, specs, reason = REFUSED[name]
    compiled = moa.jit(program).lower(*specs)
    with pytest.raises(CompileError, match=reason):
        compiled.parts()


def test_parts_need_fusion() -> None:
    program = moa.jit(library.logsumexp, fuse=False).lower(*ROWS)
    with pytest.raises(CompileError, match="expected a program with fuse=True"):
        program.parts()


def test_wrong_parts() -> None:
    _, parts = compiled("attention")
    q, k, v = CASES["attention"].arrays(0, 8)
    with pytest.raises(ShapeError, match="state: axis 0 of v must be as long as"):
        parts.state(q, k[:3], v[:4])
    state, other = parts.state(q, k, v), parts.state(q[:2], k, v)
    with pytest.raises(ShapeError, match="merge: axis 0 of b_max must be as long as"):
        parts.merge(state, other)
    with pytest.raises(ShapeError, match="finish: axis 0 of add must be as long as"):
        parts.finish((state[0], *other[1:]))
    with pytest.raises(MoaError, match=r"a state of 4 arrays \(max, .*\), got 3"):
        parts.finish(state[:3])
    with pytest.raises(MoaError, match="got 5"):
        parts.merge(state, (*state, k))
    with pytest.raises(MoaError, match=r"expected one of state, .*, got half"):
        parts.arguments("half")
    with pytest.raises(MoaError, match="expected one of fused, onf, target, got moa"):
        parts.module("moa")


def test_an_argument_that_must_be_whole() -> None:
    """The target may be anywhere: a part of the logits does not do."""
    logits, targets = RNG(0).normal(size=(3, 8)), np.array([7, 0, 4])
    program = moa.jit(library.cross_entropy).lower(
        Spec(("b", "n")), Spec(("b",), "i64")
    )
    parts = program.parts()
    assert parts.arguments("finish") == ("logits", "targets")
    x1, x2 = logits[:, :5].copy(), logits[:, 5:].copy()
    whole = parts.merge(parts.state(x1, targets), parts.state(x2, targets))
    expected = program(logits, targets)
    np.testing.assert_allclose(parts.finish(whole, logits, targets), expected)
    with pytest.raises(ShapeError, match="finish: axis 1 of logits must be whole"):
        parts.finish(whole, x1, targets)
    with pytest.raises(ShapeError, match="axis 0 of targets must equal axis 0 of log"):
        parts.finish(whole, logits, targets[:2])


def test_notation_of_the_parts() -> None:
    text = compiled("logsumexp")[1].notation()
    for part in ("state", "identity", "merge", "finish"):
        assert f"logsumexp_{part}(" in text
