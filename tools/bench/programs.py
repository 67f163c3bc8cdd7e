"""The programs that are measured: inputs, reference in f64, and work on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from moa_dialect.tools.bench.cases import DTYPES, Array, Case, Work

Inputs: TypeAlias = dict[str, Array]

REFERENCE_SCORES = 2**26
"""How many scores a reference evaluates at most; of larger cases it has some rows."""


@dataclass(frozen=True)
class Program:
    """How a program is measured.

    Attributes:
        inputs: the arrays of a case, the same in every process.
        reference: the result in f64, from the inputs as they are after rounding: of
            the rows that are given, or of all for None.
        work: what the case costs on paper.
        rows: the rows a reference is computed of, None for all.
    """

    inputs: Callable[[Case], Inputs]
    reference: Callable[[Case, Inputs, Array | None], Array]
    work: Callable[[Case], Work]
    rows: Callable[[Case], Array | None] = lambda case: None


def normal(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Normally distributed numbers."""
    generator = np.random.default_rng(seed)
    if dtype == "f64":
        return generator.standard_normal(shape)
    return generator.standard_normal(shape, np.float32).astype(DTYPES[dtype])


# Attention


@dataclass(frozen=True)
class AttentionSize:
    """The extents of an attention, and which keys a query sees.

    Query head h uses key head `h // (heads / kv_heads)`. `variant` is `plain`,
    `alibi`, `softcap`, `document` or `bias`.
    """

    heads: int
    kv_heads: int
    n: int
    m: int
    d: int
    e: int
    causal: bool
    window: int
    variant: str

    @staticmethod
    def of(case: Case) -> AttentionSize:
        """The sizes of a case, completed: m is n, e is d unless said."""
        size: Mapping[str, Any] = case.size
        n, d = size["n"], size["d"]
        heads = size.get("heads", 8)
        return AttentionSize(
            heads,
            size.get("kv_heads", heads),
            n,
            size.get("m", n),
            d,
            size.get("e", d),
            bool(size.get("causal")),
            size.get("window", 0),
            size.get("variant", "plain"),
        )

    @property
    def pairs(self) -> int:
        """How many keys all queries of a head see together."""
        rows = np.arange(self.n)
        if self.variant == "document":
            return int((np.bincount(documents(self.n)) ** 2).sum())
        first, last = np.zeros_like(rows), np.full_like(rows, self.m)
        if self.causal:
            last = np.minimum(last, rows + 1)
        if self.window:
            first = np.maximum(first, rows - self.window + 1)
            last = last if self.causal else np.minimum(last, rows + self.window)
        return int(np.maximum(last - first, 0).sum())

    def slopes(self) -> Array:
        """The slopes of ALiBi (Press, Smith and Lewis, 2022): 2^(-8 (h + 1) / H)."""
        return 2.0 ** (-8.0 * (np.arange(self.heads) + 1) / self.heads)

    def visible(self, rows: Array) -> Array | None:
        """Which keys the given queries see, or None if all."""
        i, j = rows[:, None], np.arange(self.m)[None, :]
        mask: Array | None = None
        if self.causal:
            mask = j <= i
        if self.window:
            near = (i - j < self.window) & (self.causal | (j - i < self.window))
            mask = near if mask is None else mask & near
        if self.variant == "document":
            of = documents(self.n)
            same = of[i] == of[j]
            mask = same if mask is None else mask & same
        return mask

    def distances(self, rows: Array) -> Array:
        """What ALiBi adds: `-slope |i - j|`, shape (heads, rows, m)."""
        away = np.abs(rows[:, None] - np.arange(self.m)[None, :])
        return -self.slopes()[:, None, None] * away


SOFTCAP = 20.0
"""The bound of the scores in the variant `softcap`."""


def documents(n: int) -> Array:
    """The document of each of n places: eight of different lengths, in order."""
    lengths = np.array([5, 1, 2, 8, 4, 6, 3, 3])
    ends = np.cumsum(lengths) * n // lengths.sum()
    return np.searchsorted(ends, np.arange(n), side="right").astype(np.int64)


def attention_inputs(case: Case) -> Inputs:
    """Arrays q, k and v, and `bias` for the variant of that name."""
    size = AttentionSize.of(case)
    arrays = {
        "q": normal((size.heads, size.n, size.d), case.dtype, 0),
        "k": normal((size.kv_heads, size.m, size.d), case.dtype, 1),
        "v": normal((size.kv_heads, size.m, size.e), case.dtype, 2),
    }
    if size.variant == "bias":
        arrays["bias"] = normal((size.heads, size.n, size.m), case.dtype, 3)
    return arrays


def attention_rows(case: Case) -> Array | None:
    """The queries that are checked: all, or the first, the last and some between."""
    size = AttentionSize.of(case)
    count = max(REFERENCE_SCORES // max(size.heads * size.m, 1), 2)
    if count >= size.n:
        return None
    between = np.random.default_rng(4).choice(size.n - 2, count - 2, replace=False)
    return np.sort(np.concatenate([[0, size.n - 1], between + 1]))


def attention_reference(case: Case, inputs: Inputs, rows: Array | None) -> Array:
    """Attention by definition, head by head."""
    size = AttentionSize.of(case)
    rows = np.arange(size.n) if rows is None else rows
    result = np.zeros((size.heads, len(rows), size.e))
    mask = size.visible(rows)
    distances = size.distances(rows) if size.variant == "alibi" else None
    for head in range(size.heads):
        group = head * size.kv_heads // size.heads
        q = inputs["q"][head, rows].astype(np.float64)
        k = inputs["k"][group].astype(np.float64)
        v = inputs["v"][group].astype(np.float64)
        scores = (q @ k.T) / math.sqrt(size.d)
        if size.variant == "softcap":
            scores = SOFTCAP * np.tanh(scores / SOFTCAP)
        if size.variant == "bias":
            scores += inputs["bias"][head, rows].astype(np.float64)
        if distances is not None:
            scores += distances[head]
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        largest = np.maximum(scores.max(axis=-1, keepdims=True), np.finfo(float).min)
        powers = np.exp(scores - largest)
        total = powers.sum(axis=-1, keepdims=True)
        result[head] = (powers / np.where(total, total, 1)) @ v  # 0 without a key.
    return result


def attention_work(case: Case) -> Work:
    """Two operations for each visible pair and column of k and of v."""
    size = AttentionSize.of(case)
    width = DTYPES[case.dtype].itemsize
    queries = size.heads * size.n * (size.d + size.e)
    keys = size.kv_heads * size.m * (size.d + size.e)
    scores = size.heads * size.n * size.m if size.variant == "bias" else 0
    return Work(
        2.0 * size.heads * size.pairs * (size.d + size.e),
        float(width * (queries + keys + scores)),
        "read" if size.n == 1 else "flops",
    )


# Rows


def row_inputs(case: Case) -> Inputs:
    """A matrix `x`, and the classes `targets` for the cross-entropy."""
    rows, columns = _extents(case, "rows", "columns")
    arrays = {"x": normal((rows, columns), case.dtype, 0)}
    if case.program == "cross_entropy":
        arrays["targets"] = np.random.default_rng(1).integers(0, columns, rows)
    return arrays


def _extents(case: Case, *names: str) -> list[int]:
    return [int(case.size[name]) for name in names]


def _layernorm(x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def _rms_norm(x: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def _logsumexp(x: Array) -> Array:
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=-1))


def _log_softmax(x: Array) -> Array:
    return x - _logsumexp(x)[:, None]


def _entropy(x: Array) -> Array:
    logs = _log_softmax(x)
    return -(np.exp(logs) * logs).sum(axis=-1)


ROWS: dict[str, Callable[[Array], Array]] = {
    "layernorm": _layernorm,
    "rms_norm": _rms_norm,
    "logsumexp": _logsumexp,
    "cross_entropy": _log_softmax,
    "entropy": _entropy,
    "variance": lambda x: x.var(axis=-1),
    "softmax": lambda x: np.exp(_log_softmax(x)),
    "log_softmax": _log_softmax,
}
"""Programs over the rows of a matrix, by definition."""

STORING = ("layernorm", "rms_norm", "softmax", "log_softmax")
"""Those whose result is as large as the matrix; of the others it is a column."""


def row_reference(case: Case, inputs: Inputs, rows: Array | None) -> Array:
    """The program by definition, of all rows."""
    result = ROWS[case.program](inputs["x"].astype(np.float64))
    if case.program == "cross_entropy":
        targets = inputs["targets"]
        return -result[np.arange(len(targets)), targets]
    return result


def row_work(case: Case) -> Work:
    """The matrix is read once, and written once if the result is as large."""
    rows, columns = _extents(case, "rows", "columns")
    width = DTYPES[case.dtype].itemsize
    read = float(width * rows * columns)
    if case.program in STORING:
        return Work(0.0, 2 * read, "copy")
    return Work(0.0, read + width * rows, "read")


# Matrix products


def matmul_inputs(case: Case) -> Inputs:
    """Matrices `a` and `b`."""
    (n,) = _extents(case, "n")
    return {"a": normal((n, n), case.dtype, 0), "b": normal((n, n), case.dtype, 1)}


def matmul_reference(case: Case, inputs: Inputs, rows: Array | None) -> Array:
    """The product in f64."""
    return inputs["a"].astype(np.float64) @ inputs["b"].astype(np.float64)


def matmul_work(case: Case) -> Work:
    """`2 n³` operations."""
    (n,) = _extents(case, "n")
    return Work(2.0 * n**3, 3.0 * DTYPES[case.dtype].itemsize * n**2, "flops")


# Next to nothing


def increment_inputs(case: Case) -> Inputs:
    """One number."""
    return {"x": np.zeros(1, DTYPES[case.dtype])}


def increment_reference(case: Case, inputs: Inputs, rows: Array | None) -> Array:
    """One more."""
    return inputs["x"].astype(np.float64) + 1


ATTENTION = Program(
    attention_inputs, attention_reference, attention_work, attention_rows
)
PROGRAMS: dict[str, Program] = {
    "attention": ATTENTION,
    **dict.fromkeys(ROWS, Program(row_inputs, row_reference, row_work)),
    "matmul": Program(matmul_inputs, matmul_reference, matmul_work),
    "increment": Program(
        increment_inputs, increment_reference, lambda case: Work(0.0, 0.0, "none")
    ),
}
"""Every program that a suite has, by name."""
