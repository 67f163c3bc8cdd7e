"""The formulas of the paper's own model, beside those of this one.

L. Mullin and G. Hains count elements: each array once, of every intermediate one too,
and no capacity. Formulas are those of their Proposition 4.1 and of the later papers of
the series; n queries and keys, d columns of keys and of values.
"""

from __future__ import annotations

import sympy as sp

from moa_dialect.cost import Cost
from moa_dialect.cost.nests import Expr, number_of
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


def paper_sizes(cost: Cost) -> dict[Expr, int] | None:
    """The numbers that the paper's symbols stand for, None if a program has none."""
    values = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    if "n" not in values or "d" not in values:
        return None
    return {n: values["n"], d: values["d"], e: values.get("e", values["d"])}


def paper_rows(cost: Cost, eager: Cost | None = None) -> list[list[str]]:
    """The paper's quantities with the numbers of a cost, and what there is here.

    For several heads the paper's formulas are of one.
    """
    sizes = paper_sizes(cost) or {n: 4096, d: 64, e: 64}
    values = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    heads = values.get("h", 1)
    element = max(
        (a.element_bytes for a in cost.nest.arrays if a.role == "argument"), default=4
    )
    here: dict[str, float] = {
        "MoA, forward": cost.number(cost.compulsory) / element / heads,
    }
    if eager is not None:
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
