"""The formulas of the paper's own model, beside those of this one.

L. Mullin and G. Hains count elements: each array once, of every intermediate one too,
and no capacity. Formulas are those of their Proposition 4.1 and of the later papers of
the series; n queries and keys, d columns of keys and of values.
"""

from __future__ import annotations

import sympy as sp

from moa_dialect.cost import Access, Array, Cost, Loop, Nest, Work, traffic
from moa_dialect.cost.algebra import Expr, number_of
from moa_dialect.cost.report import amount

n, d, e = sp.symbols("n d e", integer=True, positive=True)

FORMULAS: tuple[tuple[str, Expr, str], ...] = (
    (
        "classical, forward",
        2 * n**2 + n + n**2 + 2 * n * d + n * e,
        "each intermediate array once",
    ),
    ("MoA, forward", 2 * n * d + n * e, "the result is left out"),
    ("ratio", n / d, "of both, for long rows"),
    ("backward, weights from memory", n**2 + 4 * n * d + 3 * n * e, ""),
    ("forward and backward, fused", 4 * n * d + 4 * n * e, ""),
    ("decoding, one query", d + n * d + n * e + e, "what is compulsory"),
    ("norm, forward and backward", 4 * n * d, ""),
)
"""Quantities in elements."""

LITERAL: tuple[tuple[str, Expr, str], ...] = (
    ("scores", (2 + e) * n**2, "a row's maximum, its sum, each column of V"),
    ("multiplications", (2 + e) * n**2 * d + n**2 * e, ""),
    ("exponentials", (1 + e) * n**2, ""),
)
"""What equations 20 and 21 take if they are loops as they are written: nothing that is
evaluated is kept but a row's maximum and sum. These are counts of operations."""


def literal_nest(sizes: dict[Expr, int], element_bytes: int = 4) -> Nest:
    """Equations 20 and 21 as loops, without memory for scores or weights.

    Equation 20 is the softmax of a row of scores, whose maximum and sum are each a fold
    over its n scores; equation 21 a fold of n weights for each of the e columns of V.
    A score is a fold of d products, evaluated anew wherever it is named.
    """
    q, k = (Array(name, (n, d), element_bytes, "argument") for name in "QK")
    v = Array("V", (n, e), element_bytes, "argument")
    out = Array("Out", (n, e), element_bytes, "result")
    i, c = (sp.Dummy(name, integer=True, nonnegative=True) for name in "ic")

    def over_scores(*body: Access | Work) -> tuple[Loop, Expr]:
        p, x = (sp.Dummy(name, integer=True, nonnegative=True) for name in "px")
        score = Loop(x, d, [Access(q, (i, x)), Access(k, (p, x))])
        score.body += [Work("mul", "f32"), Work("add", "f32")]
        return Loop(p, n, [score, *body]), p

    largest, _ = over_scores(Work("other", "f32"))
    total, _ = over_scores(Work("exp", "f32"), Work("add", "f32"))
    weights, p = over_scores(Work("exp", "f32"), Work("mul", "f32"), Work("add", "f32"))
    weights.body.append(Access(v, (p, c)))
    column = Loop(c, e, [weights, Access(out, (i, c), True)])
    rows = Loop(i, n, [largest, total, column])
    return Nest([rows], [q, k, v, out], dict(sizes))


def paper_sizes(cost: Cost) -> dict[Expr, int] | None:
    """The numbers that the paper's symbols stand for, None if a program has none."""
    values = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    if "n" not in values or "d" not in values:
        return None
    return {n: values["n"], d: values["d"], e: values.get("e", values["d"])}


def is_attention(cost: Cost) -> bool:
    """Whether a program is what the paper's formulas are of: two products of matrices,
    with a function between that is not linear, by extents n and d.
    """
    is_chained = cost.bound.kind == "chained contractions"
    return is_chained and paper_sizes(cost) is not None


def paper_rows(cost: Cost, eager: Cost | None = None) -> list[list[str]]:
    """The paper's quantities with the numbers of a cost, and what there is here.

    For several heads the paper's formulas are of one. Beside a program that is not
    attention there are no numbers of its own.
    """
    sizes = paper_sizes(cost) or {n: 4096, d: 64, e: 64}
    values = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    heads = values.get("h", 1)
    element = max(
        (a.element_bytes for a in cost.nest.arrays if a.role == "argument"), default=4
    )
    here: dict[str, float] = {}
    if is_attention(cost):
        here["MoA, forward"] = cost.number(cost.compulsory) / element / heads
    if is_attention(cost) and eager is not None:
        here["classical, forward"] = eager.memory_bytes / element / heads
        here["ratio"] = eager.memory_bytes / cost.memory_bytes
    rows: list[list[str]] = []
    for name, formula, note in FORMULAS:
        number = number_of(formula, sizes)
        mine = f"{amount(here[name])}" if name in here else ""
        rows.append([name, f"{formula} = {amount(number)}", mine, note])
    last = cost.levels[-1]
    rows.append(
        [
            f"{last.level.name}, fused, with capacity",
            "",
            amount(last.bytes / element / heads),
            last.regime,
        ]
    )
    return rows


def literal_rows(cost: Cost) -> list[list[str]]:
    """Equations 20 and 21 as they are written, beside what is done here.

    Empty for a program that is not attention.
    """
    sizes = paper_sizes(cost)
    if sizes is None or not is_attention(cost):
        return []
    values = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    heads = values.get("h", 1)
    here = {
        "multiplications": cost.number(cost.of_kind("mul")) / heads,
        "exponentials": cost.number(cost.of_kind("exp")) / heads,
    }
    rows: list[list[str]] = []
    for name, formula, note in LITERAL:
        number = amount(number_of(formula, sizes))
        mine = amount(here[name]) if name in here else ""
        rows.append([name, f"{formula} = {number}", mine, note])
    element = max(
        (a.element_bytes for a in cost.nest.arrays if a.role == "argument"), default=4
    )
    nest = literal_nest(sizes, element)
    inner = cost.levels[0].level
    allocates = cost.machine.kind == "cpu"
    for level in cost.levels[1:]:
        moved = traffic(nest, inner.capacity, inner.line, allocates)
        mine = amount(level.bytes / heads, "B")
        row = [f"bytes, {level.level.name}", amount(moved.bytes, "B"), mine]
        rows.append([*row, f"a cache of {amount(inner.capacity, 'B')}, one core"])
        inner = level.level
    return rows
