"""Tasks of several cores that share a cache, as loops of one.

Cores take the next few tasks whenever they have none, and run side by side. What a
cache sees that some of them share is their accesses in turn: the same loops with the
one over tasks cut, the part with an iteration for each core moved to the accesses. The
bytes of that cache are those of these loops, by the rules for one core.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moa_dialect.cost.algebra import Expr, replaced, symbols
from moa_dialect.cost.nests import Access, Array, Loop, Nest, Node
from moa_dialect.lowering.threads import tasks_at_a_time


@dataclass(frozen=True)
class Side:
    """How a loop over tasks is taken by cores.

    Attributes:
        loop: the loop.
        cores: how many cores are at it side by side.
        step: how many of its iterations, one after the other, each of them takes.
    """

    loop: Loop
    cores: int
    step: int


def task_loops(node: Node) -> list[Loop]:
    """The loops over tasks that are around all else of a nest, the outer ones first."""
    found: list[Loop] = []
    while isinstance(node, Loop) and node.parallel:
        found.append(node)
        if len(node.body) != 1:
            break
        node = node.body[0]
    return found


def sides(nest: Nest, node: Node, sharers: int, cores: int) -> list[Side]:
    """How the loops over tasks of one nest are taken by cores that share a cache.

    Args:
        nest: all nests.
        node: the nest.
        sharers: how many cores share the cache.
        cores: how many there are in all.

    Returns:
        Those loops that are taken by several, the inner ones first.
    """
    loops = task_loops(node)
    counts = {id(loop): max(1, round(nest.number(loop.trips))) for loop in loops}
    total = 1
    for count in counts.values():
        total *= count
    work = node.work if isinstance(node, Loop) else None
    # Groups of threads of a GPU are given out one at a time.
    step = 1 if work is None else tasks_at_a_time(total, cores, work)
    left = min(sharers, total)
    found: list[Side] = []
    for loop in reversed(loops):
        count = counts[id(loop)]
        if step >= count:
            step = max(1, step // count)
            continue
        beside = min(left, count // step)
        if beside > 1:
            found.append(Side(loop, beside, step))
        left = -(-left // beside)
        step = 1
    return found


def at_loops(nest: Nest, sharers: int, cores: int) -> dict[int, int]:
    """For each loop over tasks, by identity, how many cores are at it side by side.

    If the tasks of an iteration are not shared out evenly, each one goes to another
    core in another iteration, so that all cores come to all of them in the end.
    """
    found: dict[int, int] = {}
    for node in nest.body:
        loops = task_loops(node)
        beside = {id(side.loop): side for side in sides(nest, node, sharers, cores)}
        inside, many, is_even = 1, 1, True
        for loop in reversed(loops):
            side = beside.get(id(loop))
            found[id(loop)] = side.cores if side else 1
            if not is_even:
                found[id(loop)] = sharers
            inside *= max(1, round(nest.number(loop.trips)))
            if side is not None:
                many *= side.cores * side.step
                is_even = is_even and inside % many == 0
    return found


def interleaved(nest: Nest, sharers: int, cores: int) -> Nest:
    """The loops that a cache sees which several cores share.

    Args:
        nest: the nests.
        sharers: how many cores share the cache.
        cores: how many there are in all.

    Returns:
        Nests in which a loop over tasks is one over tasks that run side by side.
    """
    known = nest.known.setdefault("interleaved", {})
    if (sharers, cores) not in known:
        body: list[Node] = []
        for node in nest.body:
            found = sides(nest, node, sharers, cores)
            body.append(_Interleaving(nest, found).node(node) if found else node)
        known[sharers, cores] = replace(nest, body=body)
    return known[sharers, cores]


@dataclass
class _Interleaving:
    """One nest, rewritten: see `interleaved`."""

    nest: Nest
    sides: Sequence[Side]

    def __post_init__(self) -> None:
        of = self.nest.algebra
        self.rounds: dict[int, Loop] = {}
        self.beside: list[Loop] = []
        self.indices: dict[Expr, Expr] = {}
        self.own: dict[Array, Array] = {}
        for side in self.sides:
            loop, many = side.loop, side.cores
            name = f"{loop.index}".lstrip("_")
            rounds, core = (of.index(f"{name}{k}") for k in ("", "'"))
            # Tasks of the cores lie `step` apart, but touch as much as if they did not.
            self.rounds[id(loop)] = replace(
                loop,
                index=rounds,
                trips=loop.trips / many,
                steps=loop.steps * many,
            )
            self.beside.insert(0, Loop(core, of.integer(many)))
            self.indices[loop.index] = many * rounds + core

    def node(self, node: Node) -> Node:
        """A node with its loops cut."""
        if not isinstance(node, Loop):
            return node
        body = self.together(node.body)
        return replace(self.rounds.get(id(node), node), body=body, work=None)

    def together(self, nodes: Sequence[Node]) -> list[Node]:
        """Nodes in order; accesses in a row once for each of the cores."""
        found: list[Node] = []
        row: list[Node] = []
        for node in (*nodes, None):
            if isinstance(node, Access):
                row.append(self.access(node))
                continue
            if row:
                found.append(self.all_cores(row))
                row = []
            if node is not None:
                found.append(self.node(node))
        return found

    def access(self, access: Access) -> Access:
        """An access by the new indices."""
        new = tuple(
            replaced(i, self.indices) if symbols(i) & self.indices.keys() else i
            for i in access.indices
        )
        array = access.array
        if array.is_own:
            places = tuple(loop.index for loop in self.beside)
            if array not in self.own:
                counts = tuple(loop.trips for loop in self.beside)
                self.own[array] = replace(array, shape=(*counts, *array.shape))
            array, new = self.own[array], (*places, *new)
        return replace(access, array=array, indices=new)

    def all_cores(self, row: list[Node]) -> Node:
        """Accesses for each of the cores, one after the other."""
        for loop in reversed(self.beside):
            row = [replace(loop, body=row)]
        return row[0]
