"""Tile statements: what a kernel does for one chunk of indices, or for its outputs.

A statement gives the elements of a state, a tile or an output, over tile axes. Lanes
are one more axis, which is not listed: all that depends on it is a vector. Statements
are found, not given: a costly value that is needed in several loops, or in a loop whose
index it does not depend on, becomes a tile of its own, the largest such values first.
Statements over the same axis share a loop where their order allows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, IntegerAttr, i1, i64

from moa_dialect.ops.normal_form import AtOp, InBoundsOp
from moa_dialect.passes.kernels import Accumulator, Pass, Pivot
from moa_dialect.passes.terms import (
    ChunkFold,
    Combination,
    Computed,
    Folded,
    Held,
    InPairs,
    Term,
    Terms,
    walk,
)

COSTLY = 10
"""From this on a value is not evaluated twice; see `cost`."""


class Target(Enum):
    """What a statement gives elements of."""

    STATE = "state"
    TILE = "tile"
    OUTPUT = "output"


@dataclass
class Statement:
    """`name[axes, lanes] = value`, for all indices of the axes."""

    name: str
    axes: tuple[str, ...]
    value: Term
    target: Target


@dataclass
class Reduction:
    """A state without axes, as a loop over the chunk: it starts from `start`."""

    statement: Statement
    function: str
    start: Term
    body: Term


Item = Statement | Reduction


@dataclass
class Nest:
    """Statements and reductions that share the loops over their axes."""

    axes: tuple[str, ...]
    items: list[Item] = field(default_factory=list[Item])


def cost(term: Term) -> int:
    """How costly the costliest step of a term is, in additions."""
    return max(map(_step, walk(term)), default=0)


def _step(term: Term) -> int:
    match term.kind:
        case Folded() | ChunkFold():
            return 10 * COSTLY
        case Computed(operation):
            if operation.name.startswith("math."):
                return 0 if operation.name == "math.absf" else 2 * COSTLY
            return COSTLY if operation is arith.DivfOp else 1
        case _:
            return 0


def steps_of(term: Term) -> int:
    """How many operations on elements of arrays a term is, 0 if of anything else."""
    found = 0
    for inner in walk(term):
        kind = inner.kind
        if isinstance(kind, Folded | ChunkFold | Held | InPairs | Combination):
            return 0
        if inner.computes(InBoundsOp.name):
            return 0
        is_load = inner.computes(AtOp.name) or not inner.args
        if not is_load and isinstance(inner.type, AnyFloat):
            found += 1
    return found


@dataclass
class Chunk:
    """The statements of a pass for one chunk of its indices.

    Attributes:
        terms: where terms are made.
        axes: for each state the names of all it depends on but its row axes, lanes
            included.
        count_axes: those that the count depends on.
        keeps: whether a pivot stays where a chunk has no index, bit by bit.
    """

    terms: Terms
    axes: Mapping[str, tuple[str, ...]]
    count_axes: tuple[str, ...] = ()
    keeps: bool = False

    def statements(self, pass_: Pass) -> list[Statement]:
        """New pivots and accumulators, in terms of the old ones."""
        found: list[Statement] = []
        for group in pass_.groups:
            peeks: dict[str, Term] = {}
            for a in group.accumulators:
                if any(_reads(pivot.value, a.name, "peek") for pivot in group.pivots):
                    peeks[a.name] = self._peek(a, pass_)
                    if not a.axes:
                        # A statement of its own may share its loop.
                        name = f"{a.name}.peek"
                        found.append(Statement(name, (), peeks[a.name], Target.TILE))
                        peeks[a.name] = self._tile(name, peeks[a.name])
            for pivot in group.pivots:
                value = self._resolve(pivot.value, peeks)
                if self.keeps:
                    value = self._kept(pivot, value)
                found.append(Statement(pivot.name, (), value, Target.STATE))
            for a in group.accumulators:
                part = self.terms.chunk_fold(
                    a.function, pass_.index, self._resolve(a.part)
                )
                value = self.terms.combine(a.function, part, self._moved(a))
                found.append(Statement(a.name, a.axes, value, Target.STATE))
        return found

    def _kept(self, pivot: Pivot, value: Term) -> Term:
        """A pivot where a chunk has an index; it may be a sum that is rounded."""
        before, after = (
            self.terms.held(
                Held("count", version),
                [self.terms.index(axis) for axis in self.count_axes],
            )
            for version in ("before", "after")
        )
        indices = [self.terms.index(axis) for axis in self.axes[pivot.name]]
        old = self.terms.held(Held(pivot.name, "old"), indices, pivot.type)
        is_more = compare(self.terms, "sgt", after, before)
        return self.terms.select(is_more, value, old)

    def resolve(self, term: Term) -> Term:
        """Give what is held all the indices it depends on."""
        return self.terms.rewrite(term, self._with_axes)

    def _with_axes(self, term: Term) -> Term:
        kind = term.kind
        if not isinstance(kind, Held):
            return term
        if kind.name == "count":
            axes = self.count_axes
        elif kind.name in self.axes:
            axes = self.axes[kind.name]
        else:
            return term
        indices = [self.terms.index(axis) for axis in axes]
        if not indices or term.args[: len(indices)] == tuple(indices):
            return term
        return self.terms.held(kind, (*indices, *term.args), term.type)

    def _resolve(self, term: Term, peeks: Mapping[str, Term] | None = None) -> Term:
        def visit(term: Term) -> Term:
            kind = term.kind
            if isinstance(kind, Held) and kind.version == "peek":
                assert peeks is not None
                return peeks[kind.name]
            return self._with_axes(term)

        return self.terms.rewrite(term, visit)

    def _tile(self, name: str, value: Term) -> Term:
        indices = [self.terms.index(axis) for axis in sorted(value.free)]
        return self.terms.held(Held(name), indices, value.type)

    def _peek(self, a: Accumulator, pass_: Pass) -> Term:
        """An accumulator with the chunk, still relative to the old pivots."""

        def old(term: Term) -> Term:
            kind = term.kind
            if isinstance(kind, Held) and kind.version == "new":
                kind = replace(kind, version="old")
                return self._with_axes(self.terms.held(kind, term.args, term.type))
            return self._with_axes(term)

        part = self.terms.rewrite(a.part, old)
        fold = self.terms.chunk_fold(a.function, pass_.index, part)
        return self.terms.combine(a.function, fold, self._state(a, "old"))

    def _state(self, a: Accumulator, version: str) -> Term:
        indices = [self.terms.index(axis) for axis in (*self.axes[a.name], *a.axes)]
        return self.terms.held(Held(a.name, version), indices, a.type)

    def _moved(self, a: Accumulator) -> Term:
        """An accumulator relative to the new pivots; where there is nothing, as it is.

        A factor without row axes is chosen once, not for each element.
        """
        old = self._state(a, "old")
        if a.move is None:
            return old
        moved = self._resolve(a.move)
        if moved is old:
            return old
        count = self.terms.held(
            Held("count", "before"),
            [self.terms.index(axis) for axis in self.count_axes],
        )
        zero = self.terms.number(0, count.type)
        is_some = compare(self.terms, "sgt", count, zero)
        if moved.computes("arith.mulf") and old in moved.args:
            factor = moved.args[1 - moved.args.index(old)]
            one = self.terms.number(1.0, factor.type)
            chosen = self.terms.select(is_some, factor, one)
            return self.terms.compute(arith.MulfOp, (chosen, old))
        return self.terms.select(is_some, moved, old)


def _reads(term: Term, name: str, version: str) -> bool:
    return Held(name, version) in (inner.kind for inner in walk(term))


def compare(terms: Terms, predicate: str, left: Term, right: Term) -> Term:
    """A comparison of two indices."""
    number = {"eq": 0, "ne": 1, "slt": 2, "sle": 3, "sgt": 4, "sge": 5}[predicate]
    properties = {"predicate": IntegerAttr(number, i64)}
    return terms.compute(arith.CmpiOp, (left, right), i1, properties)


def materialize(
    terms: Terms, statements: Sequence[Statement], tile_axes: Sequence[str], tag: str
) -> list[Statement]:
    """Give costly values that are needed in several contexts tiles of their own."""
    found = list(statements)
    while True:
        candidate = _candidate(found, tile_axes)
        if candidate is None:
            return found
        axes = tuple(axis for axis in tile_axes if axis in candidate.free)
        name = f"{tag}.{len(found)}"
        indices = [terms.index(axis) for axis in sorted(candidate.free)]
        tile = terms.held(Held(name), indices, candidate.type)
        found = [
            replace(s, value=terms.replace(s.value, {candidate: tile})) for s in found
        ]
        found.append(Statement(name, axes, candidate, Target.TILE))


def _candidate(statements: Sequence[Statement], axes: Sequence[str]) -> Term | None:
    """The first of the largest values that should be tiles."""
    contexts: dict[Term, set[tuple[int, Term | None, frozenset[str]]]] = {}

    def visit(
        term: Term, number: int, fold: Term | None, loops: frozenset[str]
    ) -> None:
        if not term.args:
            return
        context = (number, fold, loops)
        known = contexts.setdefault(term, set())
        if context in known:
            return
        known.add(context)
        kind = term.kind
        if isinstance(kind, ChunkFold):
            visit(term.args[0], number, term, loops | {kind.index})
        elif isinstance(kind, Folded):
            for bound in term.args[:2]:
                visit(bound, number, fold, loops)
            visit(term.args[2], number, fold, loops | {kind.index})
        else:
            for arg in term.args:
                visit(arg, number, fold, loops)

    for number, statement in enumerate(statements):
        visit(statement.value, number, None, frozenset(statement.axes))
    roots = {statement.value for statement in statements}
    # Factors that are taken two at a time are read from memory, be they costly or not.
    factors = {t.args[0] for t in contexts if isinstance(t.kind, InPairs)}
    factors = {f for f in factors if not f.computes(AtOp.name)}
    wanted: list[Term] = []
    for term, found in contexts.items():
        if term in roots or isinstance(term.kind, Combination | Held | InPairs):
            continue
        if _has_chunk_fold(term):
            continue
        if term in factors:
            wanted.append(term)
            continue
        if any(name.startswith("%") for name in term.free) or cost(term) < COSTLY:
            continue
        places = {(number, fold) for number, fold, _ in found}
        own = term.free & set(axes)
        if len(places) > 1 or any(loops - own for _, _, loops in found):
            wanted.append(term)
    chosen = frozenset(wanted)
    for term in wanted:
        inside = {t for other in chosen if other is not term for t in walk(other)}
        if term not in inside:
            return term
    return None


def _has_chunk_fold(term: Term) -> bool:
    return any(isinstance(inner.kind, ChunkFold) for inner in walk(term))


def _names(term: Term, version: str | None = None) -> set[str]:
    """The names of what a term reads, of one version if given."""
    return {
        inner.kind.name
        for inner in walk(term)
        if isinstance(inner.kind, Held)
        and inner.kind.name != "count"
        and (version is None or inner.kind.version == version)
    }


def needs(statement: Statement, statements: Iterable[Statement]) -> list[Statement]:
    """The statements that must come before one.

    They give what it reads; or they read the old value of the array it overwrites.
    """
    read = _names(statement.value, "new") | _names(statement.value, "")
    found = [s for s in statements if s.name in read and s is not statement]
    if statement.target is Target.STATE and statement.axes:
        found += [
            s
            for s in statements
            if s is not statement and statement.name in _names(s.value, "old")
        ]
    return found


def arrange(statements: Sequence[Statement], index: str | None) -> list[Nest]:
    """Order statements and let them share loops.

    Args:
        statements: all statements.
        index: the index of the chunk, over which states without axes are reduced.
    """
    order: list[Statement] = []
    left = list(statements)
    while left:
        ready = next(
            s for s in left if not any(n in left for n in needs(s, statements))
        )
        order.append(ready)
        left.remove(ready)
    nests: list[Nest] = []
    where: dict[str, int] = {}
    for statement in order:
        item, axes = _item(statement, index)
        first = 0
        for other in needs(statement, statements):
            at = where[other.name]
            is_pointwise = bool(axes) and nests[at].axes == axes == other.axes
            first = max(first, at if is_pointwise else at + 1)
        shared = [k for k in range(first, len(nests)) if nests[k].axes == axes]
        if shared and axes:
            number = shared[0]
        else:
            nests.append(Nest(axes))
            number = len(nests) - 1
        nests[number].items.append(item)
        where[statement.name] = number
    return nests


def _item(statement: Statement, index: str | None) -> tuple[Item, tuple[str, ...]]:
    """A statement, or the reduction it is, and the axes of its loops."""
    value = statement.value
    if statement.axes or index is None or not isinstance(value.kind, Combination):
        return statement, statement.axes
    fold, start = value.args
    if not isinstance(fold.kind, ChunkFold) or _has_chunk_fold(start):
        return statement, statement.axes
    if any(isinstance(arg.kind, InPairs) for arg in fold.args[0].args):
        return statement, ()  # A loop of its own, over pairs.
    reduction = Reduction(statement, value.kind.function, start, fold.args[0])
    return reduction, (index,)


def tiles_in_pairs(statements: Sequence[Statement]) -> dict[str, str]:
    """The tiles that sums of products read two indices at a time, with the axis."""
    found: dict[str, str] = {}
    for term in walk(*(statement.value for statement in statements)):
        if isinstance(term.kind, InPairs):
            value, index = term.args
            if isinstance(value.kind, Held) and isinstance(index.kind, str):
                found[value.kind.name] = index.kind
    return found


def live_tiles(nests: Sequence[Nest]) -> set[str]:
    """The tiles that are read in another nest than the one that gives them."""
    given = {
        item.name: number
        for number, nest in enumerate(nests)
        for item in nest.items
        if isinstance(item, Statement) and item.target is Target.TILE
    }
    live: set[str] = set()
    for number, nest in enumerate(nests):
        for item in nest.items:
            for term in item_terms(item):
                live |= {n for n in _names(term) if given.get(n, number) != number}
    return live


def item_terms(item: Item) -> tuple[Term, ...]:
    """The terms of an item."""
    if isinstance(item, Reduction):
        return item.start, item.body
    return (item.value,)


def shared_memory(
    nests: Sequence[Nest], live: set[str], in_pairs: Mapping[str, str]
) -> dict[str, str]:
    """For a tile the one whose memory it may take: that is last read where it is given.

    It is read there element by element, over the same axes.
    """
    given: dict[str, tuple[int, Statement]] = {}
    last: dict[str, int] = {}
    for number, nest in enumerate(nests):
        for item in nest.items:
            for term in item_terms(item):
                for name in _names(term):
                    last[name] = number
            if (
                isinstance(item, Statement)
                and item.target is Target.TILE
                and item.axes
                and item.name in live
            ):
                given[item.name] = (number, item)
    taken: dict[str, str] = {}
    for name, (number, statement) in given.items():
        for other, (at, candidate) in given.items():
            if (
                at < number == last.get(other)
                and candidate.axes == statement.axes
                and candidate.value.type == statement.value.type
                and not {name, other} & in_pairs.keys()
                and other not in taken.values()
                and _is_read_at(nests[number], other, statement.axes)
            ):
                taken[name] = other
                break
    return taken


def _is_read_at(nest: Nest, name: str, axes: tuple[str, ...]) -> bool:
    """Whether a nest reads a tile only at the indices of its own loops."""
    if nest.axes != axes:
        return False
    return not any(
        isinstance(inner.kind, ChunkFold | Folded) and name in _names(inner)
        for item in nest.items
        for term in item_terms(item)
        for inner in walk(term)
    )
