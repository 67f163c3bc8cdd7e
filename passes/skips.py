"""Indices of a pass that take no part, by a condition that is cheap to evaluate.

A mask that depends on data leaves no bounds of a loop. But where none of a chunk's
indices takes part in any lane, nothing the chunk contributes changes a state: all are
identity elements of the functions they are folded with. Whether that is so is known
before anything else of the chunk is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, IntegerAttr, StringAttr, i1, i64

from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import Pass
from moa_dialect.passes.restrict import conditions, opposite
from moa_dialect.passes.simplify import absorbed, assume, is_identity
from moa_dialect.passes.terms import ChunkFold, Folded, Held, Term, Terms, walk
from moa_dialect.scalar_code import identity_of


def taking_part(terms: Terms, pass_: Pass) -> Term | None:
    """The condition under which an index takes part in a pass; None if all do.

    That is a condition that chooses, or that what an array adds is more than minus
    infinity. It needs no fold and nothing that the pass holds. Only passes are looked
    at that have a fold for each index, or rows: others are as cheap as the condition.
    """
    parts = [a.part for a in pass_.accumulators]
    has_folds = any(isinstance(t.kind, Folded) for t in walk(*parts))
    if not has_folds and not any(a.axes for a in pass_.accumulators):
        return None
    if not _pivots_stay(terms, pass_):
        return None
    for condition in _conditions(parts, pass_):
        for holds in (True, False):
            without = [assume(terms, part, condition, not holds) for part in parts]
            if _are_nothing(pass_, without):
                return condition if holds else _not(terms, condition)
    for added in _added(parts, pass_):
        least = terms.number(-inf, added.type)
        without = [absorbed(terms, terms.replace(p, {added: least})) for p in parts]
        if _are_nothing(pass_, without):
            other = {"predicate": IntegerAttr(_UNEQUAL, i64)}
            return terms.compute(arith.CmpfOp, (added, least), i1, other)
    return None


_UNEQUAL = 13
"""The predicate of a comparison of floats that are unequal, or no numbers."""


def _are_nothing(pass_: Pass, parts: Sequence[Term]) -> bool:
    """Whether these contributions are nothing to the accumulators of a pass."""
    return all(
        is_identity(part, StringAttr(a.function))
        for part, a in zip(parts, pass_.accumulators, strict=True)
    )


def _conditions(parts: Sequence[Term], pass_: Pass) -> list[Term]:
    """The conditions that choose values in what an index contributes."""
    found = {c: None for part in parts for c in conditions(part, pass_.index)}
    return [c for c in found if _is_cheap(c, pass_)]


def _added(parts: Sequence[Term], pass_: Pass) -> list[Term]:
    """The elements of arrays that are added: minus infinity hides an index."""
    found = {
        added: None
        for term in walk(*parts)
        if term.computes(arith.AddfOp.name)
        for added in term.args
        if pass_.index in added.free and _is_read(added)
    }
    return [added for added in found if _is_cheap(added, pass_)]


def _is_read(term: Term) -> bool:
    """Whether a term is an element of an array, extended perhaps."""
    if term.computes(arith.ExtFOp.name):
        return _is_read(term.args[0])
    return term.computes(AtOp.name)


def _is_cheap(term: Term, pass_: Pass) -> bool:
    """Whether a term needs no fold, no row and nothing that the pass holds."""
    rows = {axis for a in pass_.accumulators for axis in a.axes}
    return not rows & term.free and not any(
        isinstance(inner.kind, Held | Folded | ChunkFold) for inner in walk(term)
    )


def _not(terms: Terms, condition: Term) -> Term:
    found = opposite(terms, condition)
    if found is not None:
        return found
    true = terms.number(1, condition.type)
    return terms.compute(arith.XOrIOp, (condition, true))


def _pivots_stay(terms: Terms, pass_: Pass) -> bool:
    """Whether pivots are what they start from until an index takes part, and then stay.

    They do if they are functions of the accumulators before them alone, and start from
    the value for nothing.
    """
    nothing: dict[str, Term] = {}
    for a in pass_.accumulators:
        number = identity_of(StringAttr(a.function), a.type)
        if not a.axes and isinstance(a.type, AnyFloat):
            nothing[a.name] = terms.number(number, a.type)

    def rule(term: Term) -> Term:
        kind = term.kind
        if isinstance(kind, Held) and kind.version == "new":
            return nothing.get(kind.name, term)
        return term

    for pivot in pass_.pivots:
        value = absorbed(terms, terms.rewrite(pivot.value, rule))
        if value.number is None or value is not pivot.start:
            return False
    return True
