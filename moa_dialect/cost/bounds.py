"""Lower bounds on the bytes that any order of the same operations moves.

What is found is structural. A *contraction* is a fold of products of which each factor
lacks an axis that the other one has. Two contractions are *chained* if one runs along
an axis of the other's result, with a function that is not linear between. Nothing here
knows a program.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from moa_dialect.cost.nests import (
    Access,
    Array,
    Expr,
    Loop,
    Nest,
    Node,
    Ranges,
    Work,
    accesses_in,
    number_of,
)
from moa_dialect.cost.traffic import Analysis

CAPACITY = sp.Symbol("C", positive=True)
"""Bytes that the fast memory holds, in formulas."""


@dataclass(frozen=True)
class Bound:
    """A lower bound on the bytes that are moved into a memory of `C` bytes.

    Attributes:
        bytes: the bound, with the symbol `C`.
        kind: `chained contractions`, `contraction` or `compulsory`.
        source: where it is proved.
        is_order: whether it is proved up to a constant only.
    """

    bytes: Expr
    kind: str
    source: str
    is_order: bool

    def at(self, capacity: float, compulsory: float, nest: Nest) -> float:
        """The bound for a capacity: that many bytes, or what is compulsory if more."""
        if not capacity:
            return compulsory
        found = sp.sympify(self.bytes).subs(CAPACITY, capacity)
        return max(number_of(found, nest.values), compulsory)


def compulsory(nest: Nest, line: int = 1) -> Expr:
    """The bytes that are read or written once at least: what is used of arguments, and
    the results.
    """
    analysis = Analysis(nest, line, lambda footprint, of: True)
    touched = analysis.footprint(nest.body)
    total: Expr = sp.Integer(0)
    for array, boxes in touched.all.items():
        if array.role != "scratch":
            total += analysis.bytes_of(array, boxes)
    return sp.expand(total)


@dataclass(frozen=True)
class _Contraction:
    """A fold of products of elements of two arrays.

    Attributes:
        loop: the loop of the fold.
        left: loops around that the first factor goes along.
        right: loops around that the second factor goes along.
        around: all loops around, outermost first.
    """

    loop: Loop
    left: frozenset[Expr]
    right: frozenset[Expr]
    around: tuple[Loop, ...]


def lower_bound(nest: Nest) -> Bound:
    """The best bound that is known for what a nest computes.

    Args:
        nest: the nest of a normal form at the stage dnf, where nothing is in chunks.
    """
    chained = _chained(nest)
    if chained is not None:
        return chained
    products = _contractions(nest.body)
    best: Bound | None = None
    for product in products:
        found = _of_one(product, nest)
        if found is not None and (best is None or _at(found, nest) > _at(best, nest)):
            best = found
    if best is not None:
        return best
    return Bound(compulsory(nest), "compulsory", "each byte used once", False)


def _at(bound: Bound, nest: Nest) -> float:
    return number_of(sp.sympify(bound.bytes).subs(CAPACITY, 1 << 15), nest.values)


def _of_one(product: _Contraction, nest: Nest) -> Bound | None:
    """`2 n m k / sqrt(S) - 2 S` elements for a product of two matrices."""
    rows = product.left - product.right
    columns = product.right - product.left
    if not rows or not columns:
        return None
    trips = {loop.index: loop.trips for loop in product.around}
    n = sp.Mul(*(trips[i] for i in rows))
    m = sp.Mul(*(trips[i] for i in columns))
    both = sp.Mul(*(trips[i] for i in product.left & product.right))
    element = _element(product.loop)
    size = CAPACITY / element
    k = product.loop.trips
    words = both * (2 * n * m * k / sp.sqrt(size) - 2 * size)
    return Bound(
        element * words,
        "contraction",
        "Smith, Lowery, Langou, van de Geijn, arXiv 1702.02017",
        False,
    )


def _element(loop: Loop) -> int:
    found = [a.array.element_bytes for a, _ in accesses_in([loop])]
    return min(found, default=4)


def _contractions(
    nodes: Sequence[Node], around: tuple[Loop, ...] = ()
) -> list[_Contraction]:
    """All folds of products of two elements."""
    found: list[_Contraction] = []
    for node in nodes:
        if not isinstance(node, Loop):
            continue
        reads = [n for n in node.body if isinstance(n, Access) and not n.writes]
        kinds = [n.kind for n in node.body if isinstance(n, Work)]
        if len(reads) == 2 and "mul" in kinds and "add" in kinds:
            outside = {loop.index for loop in around}
            sides = [_free(read) & outside for read in reads]
            if all(node.index in _free(read) for read in reads):
                left, right = map(frozenset, sides)
                found.append(_Contraction(node, left, right, around))
        found += _contractions(node.body, (*around, node))
    return found


def _free(access: Access) -> set[Expr]:
    return {s for i in access.indices for s in sp.sympify(i).free_symbols}


def _chained(nest: Nest) -> Bound | None:
    """`n m d e / S` elements for contractions along d and then along m.

    That is for S of at least `d e` elements; for fewer, that of a product of matrices.
    """
    for product in _contractions(nest.body):
        for shared in reversed(product.around):
            found = _second(product, shared, nest)
            if found is not None:
                return found
    return None


def _second(product: _Contraction, shared: Loop, nest: Nest) -> Bound | None:
    """The bound if the fold over `shared` is a contraction of what `product` gives."""
    p = shared.index
    if (p in product.left) == (p in product.right):
        return None
    rows = (product.left if p in product.right else product.right) - {p}
    others = product.right if p in product.right else product.left
    kinds = {work.kind for work in _works(shared.body)}
    if not kinds & {"exp", "math", "div"}:
        return None  # Between the contractions there is nothing that is not linear.
    rows -= others
    if not rows:
        return None
    trips = {loop.index: loop.trips for loop in product.around}
    for access, inside in accesses_in(shared.body):
        free = _free(access)
        if access.writes or p not in free or product.loop.index in free:
            continue
        if free & rows:
            continue
        columns = [
            loop
            for loop in (*product.around, *inside)
            if loop.index in free and loop is not shared and loop.index not in others
        ]
        if not columns:
            continue
        n = sp.Mul(*(trips[i] for i in rows))
        e = sp.Mul(*(loop.trips for loop in columns))
        batch = sp.Mul(*(trips[i] for i in others if i != p))
        return _order(nest, access, batch, n, shared.trips, product.loop.trips, e)
    return None


def _order(
    nest: Nest, access: Access, batch: Expr, n: Expr, m: Expr, d: Expr, e: Expr
) -> Bound:
    element = access.array.element_bytes
    size = CAPACITY / element
    large = n * m * d * e / size
    small = n * m * sp.Max(d, e) / sp.sqrt(size)
    words = sp.Piecewise((large, size >= d * e), (small, True))
    return Bound(
        element * batch * words,
        "chained contractions",
        "Saha and Ye, ICML 2024, arXiv 2402.07443",
        True,
    )


def _works(nodes: Sequence[Node]) -> list[Work]:
    found: list[Work] = []
    for node in nodes:
        if isinstance(node, Work):
            found.append(node)
        elif isinstance(node, Loop):
            found += _works(node.body)
    return found


def storage(nest: Nest) -> Expr:
    """The bytes of scratch memory that a nest has, all arrays at a time."""
    used = {access.array for access, _ in accesses_in(nest.body)}
    arrays = [a for a in nest.arrays if a.role == "scratch" and a in used]
    return sp.expand(sp.Add(*(a.bytes for a in arrays)))


__all__ = [
    "CAPACITY",
    "Array",
    "Bound",
    "Ranges",
    "compulsory",
    "lower_bound",
    "storage",
]
