"""Indices of a pass that take no part, by a condition that is cheap to evaluate.

A mask that depends on data leaves no bounds of a loop. But where none of a chunk's
indices takes part in any lane, nothing the chunk contributes changes a state: all are
identity elements of the functions they are folded with. Whether that is so is known
before anything else of the chunk is read.
"""

from __future__ import annotations

from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, StringAttr

from moa_dialect.passes.kernels import Pass
from moa_dialect.passes.restrict import conditions, opposite
from moa_dialect.passes.simplify import absorbed, assume, is_identity
from moa_dialect.passes.terms import ChunkFold, Folded, Held, Term, Terms, walk
from moa_dialect.scalar_code import identity_of


def taking_part(terms: Terms, pass_: Pass) -> Term | None:
    """The condition under which an index takes part in a pass; None if all do.

    It needs no fold and nothing that the pass holds. Only passes are looked at that
    have a fold for each index, or rows: others are as cheap as the condition.
    """
    parts = [a.part for a in pass_.accumulators]
    has_folds = any(isinstance(t.kind, Folded) for t in walk(*parts))
    if not has_folds and not any(a.axes for a in pass_.accumulators):
        return None
    if not _pivots_stay(terms, pass_):
        return None
    found = {c: None for part in parts for c in conditions(part, pass_.index)}
    for condition in found:
        if any(isinstance(t.kind, Held | Folded | ChunkFold) for t in walk(condition)):
            continue
        if _rows(pass_) & condition.free:
            continue
        for holds in (True, False):
            if all(
                is_identity(
                    assume(terms, a.part, condition, not holds), StringAttr(a.function)
                )
                for a in pass_.accumulators
            ):
                return condition if holds else _not(terms, condition)
    return None


def _rows(pass_: Pass) -> set[str]:
    return {axis for a in pass_.accumulators for axis in a.axes}


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
        is_new = isinstance(kind, Held) and kind.version == "new"
        return nothing.get(kind.name, term) if is_new else term

    for pivot in pass_.pivots:
        value = absorbed(terms, terms.rewrite(pivot.value, rule))
        if value.number is None or value is not pivot.start:
            return False
    return True
