"""The table of the programs of the library that fusion is for, filled in from evidence.

    python -m moa_dialect.tools.derived          # write docs/derived.md
    python -m moa_dialect.tools.derived --check  # fail if it is not up to date

Each program is lowered with symbolic extents, and what `moa-fuse-reductions` explains
and certifies is the table; then it is compiled and compared with NumPy in f64. Errors
differ between machines. So the page has bounds, powers of ten, and a bound that is
there already stays if it holds and is not far too large.
"""
# Lambdas where any function is taken have no types.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.tools.reference import DOCS, table

COMMAND = "python -m moa_dialect.tools.derived"
PAGE = "derived.md"
SEEDS = (0, 1, 2)
SLACK = 3.0
"""A bound is at least this many times what was measured when it was written."""
LOOSEST = 1000.0
"""A bound that is more than this many times what is measured is written anew."""

Array: TypeAlias = Any
Shape: TypeAlias = tuple[str | int, ...]

EXTENTS = {"b": 2, "h": 4, "g": 2, "n": 37, "m": 150, "d": 24, "e": 17, "c": 70}
"""What the extents that types leave open are in the data."""


# References in NumPy


def softmax(x: Array) -> Array:
    """By its definition, as everything here."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def logsumexp(x: Array) -> Array:
    """The logarithm of the sum of exponentials of each row."""
    top = x.max(-1)
    return top + np.log(np.exp(x - top[..., None]).sum(-1))


def log_softmax(x: Array) -> Array:
    """The logarithm of softmax."""
    return x - logsumexp(x)[..., None]


def centred(x: Array) -> Array:
    """Each row less its mean."""
    return x - x.mean(-1, keepdims=True)


def moment(x: Array, order: int) -> Array:
    """A central moment of each row."""
    return (centred(x) ** order).mean(-1)


def attention(
    q: Array,
    k: Array,
    v: Array,
    change: Callable[[Array, Array, Array], Array] | None = None,
    sink: Array | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention whose scores are changed by a function of them, of rows and columns."""
    if q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        k, v = (np.repeat(a, q.shape[-3] // a.shape[-3], axis=-3) for a in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if change is not None:
        rows, columns = np.indices(scores.shape[-2:])
        scores = change(scores, rows, columns)
    top = scores.max(-1, keepdims=True)
    if sink is not None:
        top = np.maximum(top, sink[:, None, None])
    powers = np.exp(scores - top)
    sums = powers.sum(-1, keepdims=True)
    if sink is not None:
        sums = sums + np.exp(sink[:, None, None] - top)
    result = powers / sums @ v
    return (result, (top + np.log(sums))[..., 0]) if return_lse else result


def masked(visible: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """Scores are minus infinity where a key is not visible."""
    return lambda s, i, j: np.where(visible(i, j), s, -np.inf)


def linear(q: Array, k: Array, v: Array) -> Array:
    """Linear attention."""
    q, k = (np.where(a > 0, a + 1, np.exp(a)) for a in (q, k))
    return (q @ (k.T @ v)) / (q @ k.sum(0))[:, None]


# Programs


@dataclass(frozen=True)
class Row:
    """A row of the first table.

    Attributes:
        name: what it is.
        program: the program.
        shapes: of its arguments; extents that are names are open in the types.
        reference: in NumPy.
        options: of the program.
        change: of the normally distributed data.
        classes: the last argument is a class of each row.
    """

    name: str
    program: Callable[..., Any]
    shapes: Sequence[Shape]
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    change: Callable[[Array], Array] | None = None
    classes: bool = False

    def data(self, seed: int, dtype: str = "f4") -> list[Array]:
        """Arguments."""
        random = np.random.default_rng(seed)
        found: list[Array] = []
        for number, shape in enumerate(self.shapes):
            extents = [EXTENTS[n] if isinstance(n, str) else n for n in shape]
            if self.classes and number == len(self.shapes) - 1:
                found.append(random.integers(0, EXTENTS["c"], extents))
                continue
            array = random.normal(size=extents).astype(dtype)
            found.append(array if self.change is None else self.change(array))
        return found

    def lowered(self, dtype: str = "f32") -> Compiled:
        """The program for symbolic extents."""
        specs = [
            moa.ArraySpec(
                shape,
                "i64" if self.classes and number == len(self.shapes) - 1 else dtype,
            )
            for number, shape in enumerate(self.shapes)
        ]
        return moa.jit(self.program).lower(*specs, **self.options)


ROW, MATRIX = ("n", "m"), [("n", "d"), ("m", "d"), ("m", "e")]
HEADS: list[Shape] = [("h", "n", "d"), ("h", "m", "d"), ("h", "m", "e")]
GROUPED: list[Shape] = [("b", 4, "n", "d"), ("b", 2, "m", "d"), ("b", 2, "m", "e")]
SINGLE: list[Shape] = [("b", 4, "n", "d"), ("b", 1, "m", "d"), ("b", 1, "m", "e")]


def _slopes(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return s + 0.25 * (j - i)


def _any(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return moa.where(i + j > 5, 2.0 * moa.tanh(s), s)


def _same_document(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return moa.where(i // 16 == j // 16, s, -math.inf)


def with_bias(q: Any, k: Any, v: Any, bias: Any) -> Any:
    """Attention with a bias for each query and key."""
    return library.attention(q, k, v, bias=bias)


def with_sink(q: Any, k: Any, v: Any, sink: Any) -> Any:
    """Attention with a sink for each head."""
    return library.attention(q, k, v, sink=sink)


def differential(q1: Any, k1: Any, q2: Any, k2: Any, v: Any) -> Any:
    """Differential attention with a weight of 0.3."""
    return library.differential_attention(q1, k1, q2, k2, v, 0.3)


def top_3(x: Any) -> Any:
    """The 3 largest of softmax."""
    return library.softmax_top_k(x, 3)


def at_a_computed_place(x: Any) -> Any:
    """A pivot that is read from the data, at a place that depends on them."""

    def cell(row: Any) -> Any:
        place = moa.reduce("add", moa.cast(row > 0.0, "index"))
        pivot = moa.psi(moa.reshape([1], place), row)
        return moa.reduce("add", moa.exp(row - pivot))

    return moa.omega(cell, 1, x)


ROWS = [
    Row("softmax", library.softmax, [ROW], softmax),
    Row("log-softmax", library.log_softmax, [ROW], log_softmax),
    Row("logsumexp", library.logsumexp, [ROW], logsumexp),
    Row(
        "cross-entropy, classes",
        library.cross_entropy,
        [("n", "c"), ("n",)],
        lambda x, t: -np.take_along_axis(log_softmax(x), t[:, None], 1)[:, 0],
        classes=True,
    ),
    Row(
        "cross-entropy, probabilities",
        library.cross_entropy,
        [ROW, ROW],
        lambda x, t: -(t * log_softmax(x)).sum(-1),
    ),
    Row(
        "cross-entropy of a linear layer",
        library.linear_cross_entropy,
        [("n", "d"), ("c", "d"), ("n",)],
        lambda x, w, t: -np.take_along_axis(log_softmax(x @ w.T), t[:, None], 1)[:, 0],
        classes=True,
    ),
    Row(
        "entropy",
        library.entropy,
        [ROW],
        lambda x: -(softmax(x) * log_softmax(x)).sum(-1),
    ),
    Row(
        "KL divergence",
        library.kl_divergence,
        [ROW, ROW],
        lambda x, y: (softmax(x) * (log_softmax(x) - log_softmax(y))).sum(-1),
    ),
    Row("variance", library.variance, [ROW], lambda x: moment(x, 2)),
    Row(
        "covariance",
        library.covariance,
        [ROW, ROW],
        lambda x, y: (centred(x) * centred(y)).mean(-1),
    ),
    Row(
        "covariance matrix",
        library.covariance_matrix,
        [("m", "d")],
        lambda x: centred(x.T) @ centred(x.T).T / x.shape[0],
    ),
    Row(
        "skewness",
        library.skewness,
        [ROW],
        lambda x: moment(x, 3) / moment(x, 2) ** 1.5,
    ),
    Row(
        "kurtosis",
        library.kurtosis,
        [ROW],
        lambda x: moment(x, 4) / moment(x, 2) ** 2,
        {"excess": False},
    ),
    Row(
        "layer norm",
        library.layernorm,
        [ROW],
        lambda x: centred(x) / np.sqrt(moment(x, 2) + 1e-5)[:, None],
    ),
    Row(
        "RMS norm",
        library.rms_norm,
        [ROW],
        lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6),
    ),
    Row(
        "L2 norm, of data of 1e30",
        library.l2_norm,
        [ROW],
        lambda x: np.sqrt((x * x).sum(-1)),
        change=lambda x: x * np.asarray(1e30, x.dtype),
    ),
    Row(
        "softmax, then top 3",
        top_3,
        [ROW],
        lambda x: (-np.sort(-softmax(x))[:, :3], np.argsort(-x)[:, :3]),
    ),
    Row("attention", library.attention, MATRIX, attention),
    Row(
        "attention, causal",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(q, k, v, masked(lambda i, j: j <= i)),
        {"is_causal": True},
    ),
    Row(
        "attention, window",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(
            q, k, v, masked(lambda i, j: (j <= i) & (i - j < 20))
        ),
        {"is_causal": True, "window": 20},
    ),
    Row(
        "attention, documents",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(q, k, v, masked(lambda i, j: i // 16 == j // 16)),
        {"score_mod": _same_document},
    ),
    Row(
        "attention, ALiBi",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(q, k, v, lambda s, i, j: s + 0.25 * (j - i)),
        {"score_mod": _slopes},
    ),
    Row(
        "attention, bias",
        with_bias,
        [*MATRIX, ("n", "m")],
        lambda q, k, v, b: attention(q, k, v, lambda s, i, j: s + b),
    ),
    Row(
        "attention, softcap",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(q, k, v, lambda s, i, j: 5 * np.tanh(s / 5)),
        {"softcap": 5.0},
    ),
    Row(
        "attention, sink",
        with_sink,
        [*HEADS, ("h",)],
        lambda q, k, v, s: attention(q, k, v, sink=s),
    ),
    Row(
        "attention, any score function",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(
            q, k, v, lambda s, i, j: np.where(i + j > 5, 2 * np.tanh(s), s)
        ),
        {"score_mod": _any},
    ),
    Row("attention, grouped heads", library.attention, GROUPED, attention),
    Row("attention, one head of keys", library.attention, SINGLE, attention),
    Row(
        "attention and its logarithms",
        library.attention,
        MATRIX,
        lambda q, k, v: attention(q, k, v, return_lse=True),
        {"return_lse": True},
    ),
    Row(
        "differential attention",
        differential,
        [("n", "d"), ("m", "d"), ("n", "d"), ("m", "d"), ("m", "e")],
        lambda q, k, r, s, v: attention(q, k, v) - 0.3 * attention(r, s, v),
    ),
    Row(
        "sigmoid attention",
        library.sigmoid_attention,
        MATRIX,
        lambda q, k, v: (
            (1 / (1 + k.shape[0] * np.exp(-(q @ k.T) / math.sqrt(q.shape[1])))) @ v
        ),
    ),
    Row("linear attention", library.linear_attention, MATRIX, linear),
    Row(
        "sum of exp(x - y), y at a place that is a sum",
        at_a_computed_place,
        [ROW],
        lambda x: np.exp(x - np.take_along_axis(x, (x > 0).sum(-1)[:, None], -1)).sum(
            -1
        ),
    ),
    Row(
        "absmax-scaled product",
        library.absmax_scaled_product,
        [("n", "m"), ("m", "e")],
        lambda x, w: x @ w,
    ),
]


# What the naive form loses


@dataclass(frozen=True)
class Hard:
    """A row of the second table: data for which a formula that is often used fails.

    Attributes:
        name: the program and the data.
        program: the program.
        data: gives one row in f64, exactly representable in f32.
        naive: the formula, computed in f32.
        formula: the formula in text.
        reference: in f64.
    """

    name: str
    program: Callable[..., Any]
    data: Callable[[Any], Array]
    naive: Callable[[Array], Array]
    formula: str
    reference: Callable[[Array], Array]


def _naive_entropy(x: Array) -> Array:
    powers = np.exp(x)
    p = powers / powers.sum()
    return -(p * np.log(p)).sum()


def _entropy(x: Array) -> Array:
    return -(softmax(x) * log_softmax(x)).sum(-1)


HARD = [
    Hard(
        "variance, data near 1000 with a deviation of 1",
        library.variance,
        lambda random: 1000 + np.round(random.normal(size=500) * 256) / 256,
        lambda x: np.mean(x * x) - np.mean(x) ** 2,
        "mean(x²) - mean(x)²",
        lambda x: moment(x, 2),
    ),
    Hard(
        "entropy, logits near 1000",
        library.entropy,
        lambda random: 1000 + np.round(random.normal(size=500) * 256) / 256,
        _naive_entropy,
        "p = exp(x) / sum exp(x), -sum p log(p)",
        _entropy,
    ),
    Hard(
        "entropy, logits within ±100",
        library.entropy,
        lambda random: np.round(random.uniform(-100, 100, size=500) * 256) / 256,
        _naive_entropy,
        "p = exp(x) / sum exp(x), -sum p log(p)",
        _entropy,
    ),
    Hard(
        "L2 norm, data of 1e25",
        library.l2_norm,
        lambda random: np.ldexp(np.round(random.normal(size=500) * 256), 75),
        lambda x: np.sqrt((x * x).sum()),
        "sqrt(sum x²)",
        lambda x: np.sqrt((x * x).sum(-1)),
    ),
]


# Refusals


def _less_max(x: Any) -> Any:
    return x - moa.reduce("max", x)


def _rounded(x: Any) -> Any:
    return moa.reduce("add", moa.cast(moa.cast(_less_max(x), "f16"), "f32"))


def _median(x: Any) -> Any:
    return moa.psi(moa.reshape([1], moa.psi([75], moa.grade_up(x))), x)


REFUSED: list[tuple[str, Callable[..., Any], Callable[[Array], Array]]] = [
    (
        "sum of `tanh(x - m)`",
        lambda x: moa.reduce("add", moa.tanh(_less_max(x))),
        lambda x: np.tanh(x - x.max()).sum(),
    ),
    (
        "sum of `log(1 + exp(x - m))`",
        lambda x: moa.reduce("add", moa.log(1.0 + moa.exp(_less_max(x)))),
        lambda x: np.log1p(np.exp(x - x.max())).sum(),
    ),
    (
        "sum of `exp(-(x - m)²)`",
        lambda x: moa.reduce("add", moa.exp(moa.negative(_less_max(x) * _less_max(x)))),
        lambda x: np.exp(-((x - x.max()) ** 2)).sum(),
    ),
    (
        "sum of `x - m` rounded to f16",
        _rounded,
        lambda x: (x - x.max()).sum(),
    ),
    (
        "maximum of `(x - mean)²`",
        lambda x: moa.reduce("max", (x - moa.reduce("add", x) / 150.0) ** 2.0),
        lambda x: ((x - x.mean()) ** 2).max(),
    ),
    (
        "product of `x - m + 1`",
        lambda x: moa.reduce("mul", _less_max(x * 0.01) + 1.0),
        lambda x: (0.01 * x - (0.01 * x).max() + 1).prod(),
    ),
    (
        "sum of distances from the median",
        lambda x: moa.reduce("add", moa.absolute(x - _median(x))),
        lambda x: np.abs(x - np.sort(x)[75]).sum(),
    ),
]
"""Programs of one row, each applied to rows; m is the maximum of x."""


# What is found


_LINE = re.compile(r"pass \d+: a fold of \w+, (?P<rule>[a-z ]+): T = ")
_PASSES = re.compile(r"passes over the data: (\d+) before, (\d+) after")


def explained(compiled: Compiled) -> str:
    """What fusion explains of a program."""
    module, printed = compiled.module("dnf"), StringIO()
    for pass_ in FUSING["fused"]:
        if isinstance(pass_, FuseReductionsPass):
            pass_ = replace(pass_, explain=True)
        with redirect_stdout(printed):
            pass_.apply(Context(), module)
    return printed.getvalue()


def passes(text: str) -> tuple[str, str]:
    """The passes over the data before and after, of each comprehension."""
    found = _PASSES.findall(text)
    before, after = (" + ".join(side) for side in zip(*found, strict=True))
    return before, before if "undone: " in text else after


def rules(text: str) -> str:
    """By which rules folds moved, and what was done before, with how often."""
    count = Counter(match["rule"] for match in _LINE.finditer(text))
    for note in ("deferral", "splitting"):
        if f"   {note}: " in text:
            count[note] = 1
    if "undone: " in text or not count:
        return "none"
    order = ("deferral", "splitting", "rank one", "added", "finite rank")
    return ", ".join(
        f"{name} ({count[name]})" if count[name] > 1 else name
        for name in order
        if count[name]
    )


def certificate(compiled: Compiled) -> str:
    """That the conditions of all that moves are proved, and found again in the text.

    Raises:
        MoaError: if they are not.
    """
    unproved: list[str] = compiled.certificate["unproved"]
    cascades = [what for what in unproved if what.startswith("cascade ")]
    if cascades:
        raise moa.MoaError(f"not proved: {', '.join(cascades)}")
    edges = [
        edge
        for cascade in compiled.certificate["cascades"]
        for edge in cascade["edges"]
        if edge["identities"]
    ]
    if not edges:
        return "nothing moves"
    if not unproved:
        compiled.verify("fused")
    rest = ", ".join(f"`{what}`" for what in unproved)
    return f"{len(edges)} proved" + (f"; not proved: {rest}" if rest else "")


def worst(row: Row) -> float:
    """The largest error in f32, relative to the largest magnitude of the result."""
    compiled, found = row.lowered(), 0.0
    for seed in SEEDS:
        data = row.data(seed)
        results = compiled(*data)
        exact = [a.astype("f8") if a.dtype.kind == "f" else a for a in data]
        expected = row.reference(*exact)
        if not isinstance(expected, tuple):
            results, expected = (results,), (expected,)
        for got, wanted in zip(results, expected, strict=True):
            if got.shape != wanted.shape or not np.all(np.isfinite(got)):
                return math.inf
            if got.dtype.kind != "f":
                found = found if np.array_equal(got, wanted) else math.inf
                continue
            error = np.abs(got - wanted).max() / np.abs(wanted).max()
            found = max(found, float(error))
    return found


def hard(row: Hard) -> tuple[float, float]:
    """The relative error of the naive formula, and that of the program in ulp."""
    compiled = moa.jit(row.program).lower(moa.ArraySpec(("m",), "f32"))
    naive, derived = math.inf, 0.0
    for seed in SEEDS:
        exact = row.data(np.random.default_rng(seed))
        x = exact.astype("f4")
        assert np.array_equal(x, exact)
        wanted = row.reference(exact)
        with np.errstate(all="ignore"):
            found = float(row.naive(x))
        error = abs(found - wanted) / abs(wanted)
        naive = min(naive, math.inf if math.isnan(error) else float(error))
        ulp = float(np.spacing(np.float32(wanted)))
        derived = max(derived, abs(float(compiled(x)) - float(wanted)) / ulp)
    return naive, derived


# The page

INTRODUCTION = """\
What [fusion](fusion.md) makes of the programs of the library that it is for. No cell
is written by hand: passes and rules are what `moa-fuse-reductions` explains, proofs are
those of the certificate, errors are measured. Extents are symbolic, except those of
heads.

- before, after: passes over the data one after the other, without fusion and with it;
  for several comprehensions, of each. Passes over other axes count too: in the loss
  of a linear layer, that of the logit of the target.
- rules: by which accumulators move, and how many; *deferral* and *splitting*, if they
  came before.
- error: of the compiled program in f32, the largest, relative to the largest magnitude
  of the result; against the definition in f64 by NumPy, with normally distributed
  data. The page has a power of ten, which a test measures again.
- certificate: of how many accumulators C1 and C2 are proved, and found again by
  `moa-verify` in the text; and which laws of the algebra were applied at a rank for
  which they are not proved."""

NAIVE = """\
A formula in one pass that is often used, in f32 by NumPy, and the derived program on
the same data: the largest error in units of the last place of the result."""

REFUSALS = """\
Programs of one row x, applied to rows; m is its maximum. There is no transport: they
keep their passes, and have the values of NumPy."""


def bound(measured: float, before: float | None) -> float:
    """A power of ten above what is measured: the one before, if it still will do."""
    if before is not None and measured <= before <= measured * LOOSEST:
        return before
    if measured == math.inf:
        return measured
    return 10.0 ** math.ceil(math.log10(max(measured, 1e-300) * SLACK))


def written(text: str) -> dict[str, float]:
    """The bounds on a page, by the first cell of their rows."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = re.match(r"\| ([^|]+) \|.*≤ ([0-9e+.-]+)", line)
        if match is not None:
            found[match[1]] = float(match[2])
    return found


def _number(value: float) -> str:
    if value == math.inf:
        return "inf"
    return f"{value:g}" if value >= 1 else f"1e{round(math.log10(value))}"


def first_table(before: dict[str, float]) -> list[list[str]]:
    """The rows of the programs."""
    found: list[list[str]] = []
    for row in ROWS:
        compiled = row.lowered()
        text = explained(compiled)
        limit = bound(worst(row), before.get(row.name))
        found.append(
            [
                row.name,
                *passes(text),
                rules(text),
                f"≤ {_number(limit)}",
                certificate(compiled),
            ]
        )
    return found


def second_table(before: dict[str, float]) -> list[list[str]]:
    """The rows of hard data."""
    found: list[list[str]] = []
    for row in HARD:
        naive, derived = hard(row)
        loses = "no number" if naive == math.inf else "above 1 %"
        assert naive > 0.01, row.name
        limit = before.get(row.name, 0.0)
        if not derived <= limit <= 4 * max(derived, 1.0):
            limit = math.ceil(1.5 * derived)
        found.append([row.name, f"`{row.formula}`", loses, f"≤ {_number(limit)}"])
    return found


def third_table() -> list[list[str]]:
    """The rows of what is refused."""
    found: list[list[str]] = []
    random = np.random.default_rng(0)
    for name, program, reference in REFUSED:
        compiled = moa.jit(lambda x, p=program: moa.omega(p, 1, x)).lower(
            moa.ArraySpec(ROW, "f32")
        )
        text = explained(compiled)
        reasons = re.findall(r"stays in a later pass: (.*)", text)
        x = random.normal(size=(3, EXTENTS["m"])).astype("f4")
        wanted = np.array([reference(line) for line in x.astype("f8")])
        close = np.allclose(compiled(x), wanted, rtol=1e-4)
        found.append([name, *passes(text), reasons[0], "equal" if close else ""])
    return found


def page(before: str = "") -> tuple[str, list[str]]:
    """The text of docs/derived.md, given the page before, and what is missing in it."""
    bounds = written(before)
    first, second, third = first_table(bounds), second_table(bounds), third_table()
    gaps = [f"{row[0]}: an error of {row[4]}" for row in first if "inf" in row[4]]
    gaps += [f"{row[0]}: not the value of NumPy" for row in third if not row[4]]
    parts = [
        f"<!-- Written by `{COMMAND}` from what it finds; do not edit. -->",
        "# Programs derived by fusion",
        INTRODUCTION,
        table(
            ("program", "before", "after", "rules", "error", "certificate"),
            first,
        ),
        "## Where the naive form fails",
        NAIVE,
        table(("program and data", "naive form", "its error", "derived, ulp"), second),
        "## Refused",
        REFUSALS,
        table(("program", "before", "after", "why", "value"), third),
    ]
    return "\n\n".join(parts) + "\n", gaps


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it; the exit code is 1 for gaps or an outdated page."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Write or check the table of derived programs."
    )
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="the folder of the page"
    )
    options = parser.parse_args(arguments)
    folder: Path = options.docs
    if not folder.is_dir():
        print(f"derived: no folder {folder}", file=sys.stderr)
        return 1
    path = folder / PAGE
    before = path.read_text("utf-8") if path.exists() else ""
    text, gaps = page(before)
    for gap in gaps:
        print(f"derived: {gap}", file=sys.stderr)
    if gaps:
        return 1
    if options.check:
        if before == text:
            return 0
        print(f"docs/{PAGE} is not up to date: run `{COMMAND}`", file=sys.stderr)
        return 1
    path.write_text(text, "utf-8")
    print(f"wrote docs/{PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
