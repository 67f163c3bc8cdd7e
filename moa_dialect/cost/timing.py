"""How long a loop nest takes on a machine: each resource its amount by its rate.

Where costs are shown, amounts are formulas; where a schedule is chosen, they are
numbers (`moa_dialect.cost.algebra`). Both go through these functions.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from moa_dialect.cost.algebra import Expr, number_of
from moa_dialect.cost.machines import CostMachine, Level
from moa_dialect.cost.nests import (
    Access,
    Array,
    Loop,
    Nest,
    Node,
    accesses_count,
    accesses_in,
    counts_of,
)
from moa_dialect.cost.traffic import Traffic, traffic

HIDDEN = ("load", "wait")
"""Kinds of work that are no operations of the program."""


@dataclass(frozen=True)
class Moved:
    """What a level of the memory hierarchy gives and takes, and how long that takes.

    Attributes:
        level: the level.
        traffic: the bytes between it and the level before; None for the first one,
            which registers are loaded from.
        bytes: their number.
        seconds: what they take.
        waiting: what those of them take that the core waits for: what is packed is
            copied ahead, and then read in one stream.
        inner: bytes that the level before holds; 0 for registers.
    """

    level: Level
    traffic: Traffic | None
    bytes: float
    seconds: float
    waiting: float
    inner: int


@dataclass(frozen=True)
class Timing:
    """How long a nest takes.

    Attributes:
        levels: the levels of the memory, the first-level cache first.
        parts: for each resource the seconds it takes.
        seconds: the time.
    """

    levels: list[Moved]
    parts: dict[str, float]
    seconds: float


def timing_of(nest: Nest, machine: CostMachine) -> Timing:
    """How long a nest takes on a machine."""
    vectors = vectors_of(nest)
    is_vector = bool(vectors)
    cores = machine.cores if is_vector else 1
    fresh = fresh_bytes(nest, machine) if machine.fresh else 0.0
    levels: list[Moved] = []
    inner: Level | None = None
    packed = {a.array for a, _ in accesses_in(nest.body) if a.packed}
    allocates = machine.kind == "cpu"
    for level in machine.levels:
        single = max(machine.single, 1 / machine.cores)
        part = level.share(1, machine.cores) if level.shared else single
        scale = 1.0 if is_vector else part
        if inner is None:
            amount, moved = register_bytes(nest, vectors, machine), None
        else:
            moved = traffic(
                nest, inner.capacity, inner.line, allocates, cores, inner.sharers
            )
            if inner is machine.levels[0]:
                # What is fetched into the memory of several cores comes once.
                for array, count in nest.sharers.items():
                    if array in moved.fetched:
                        moved.fetched[array] = moved.fetched[array] / count
            amount = moved.bytes
            if level is machine.memory and fresh:
                # What the system clears before is there when it is written.
                new = [a for a in moved.fetched if _is_fresh(a, nest, machine)]
                zero = nest.algebra.integer(0)
                moved.fetched |= dict.fromkeys(new, zero)
                amount = moved.bytes
        capacity = 0 if inner is None else inner.capacity
        rate = level.bandwidth * scale
        streams = 0.0
        if moved is not None:
            found = (moved.fetched.get(array, 0) for array in packed)
            streams = sum(number_of(part, nest.values) for part in found)
        waiting = (amount - streams) / rate
        levels.append(Moved(level, moved, amount, amount / rate, waiting, capacity))
        inner = level
    parts = computing_seconds(nest, machine)
    parts |= {moved.level.name: moved.seconds for moved in levels}
    if machine.pages is not None and is_vector:
        parts["pages"] = page_seconds(nest, machine)
    waiting = max((moved.waiting for moved in levels[1:]), default=0.0)
    seconds = overlapped(parts, machine, nest.ahead, waiting)
    parts["launch"] = machine.launch * nest.launches
    seconds += parts["launch"]
    if fresh:
        parts["fresh memory"] = fresh / machine.fresh
        seconds += parts["fresh memory"]
    return Timing(levels, parts, seconds)


def vectors_of(nest: Nest) -> list[Node]:
    """Those of the nests that are vector code."""
    return [node for node in nest.body if node not in nest.scalar]


def computing_seconds(nest: Nest, machine: CostMachine) -> dict[str, float]:
    """The seconds that each unit of the machine computes."""
    parts: dict[str, float] = {}
    for node in nest.body:
        factor = lanes_in_vain(nest, node, machine)
        if node in nest.scalar:
            factor = scalar_factor(machine)
        else:
            factor *= idle_factor(nest, node, machine)
        for unit, value in compute_seconds(counts_of([node]), nest, machine).items():
            parts[unit] = parts.get(unit, 0.0) + value * factor
    return parts


def least_seconds(nest: Nest, machine: CostMachine) -> float:
    """Less than a nest takes: what is known without the bytes that caches move."""
    first = machine.levels[0]
    vectors = vectors_of(nest)
    scale = 1.0 if vectors or first.shared else max(machine.single, 1 / machine.cores)
    loads = register_bytes(nest, vectors, machine) / (first.bandwidth * scale)
    core = max(loads, *computing_seconds(nest, machine).values())
    fresh = fresh_bytes(nest, machine) / machine.fresh if machine.fresh else 0.0
    return core + machine.launch * nest.launches + fresh


def register_bytes(nest: Nest, vectors: list[Node], machine: CostMachine) -> float:
    """The bytes that loads and stores move between registers and the first cache."""
    total = 0.0
    for node in nest.body:
        loads = counts_of([node]).get(("load", "bytes"))
        if loads is None or node not in vectors:
            loads = accesses_count([node], False) + accesses_count([node], True)
        factor = 1.0
        if node in vectors:
            factor = lanes_in_vain(nest, node, machine)
        total += number_of(loads, nest.values) * factor
    return total


def lanes_in_vain(nest: Nest, node: Node, machine: CostMachine) -> float:
    """How many times more lanes vector registers have than hold something used."""
    used = nest.used_bytes.get(id(node))
    if used is None or machine.kind == "gpu":
        return 1.0
    return max(1.0, machine.vector_bytes / used) * nest.in_vain.get(id(node), 1.0)


def idle_factor(nest: Nest, node: Node, machine: CostMachine) -> float:
    """How many times longer tasks take because some cores have none in the end."""
    tasks = float(nest.parts.get(id(node), 1))
    while isinstance(node, Loop) and node.parallel:
        tasks *= max(1.0, number_of(node.trips, nest.values))
        if len(node.body) != 1:
            break
        node = node.body[0]
    return ceil(tasks / machine.cores) * machine.cores / tasks


def page_seconds(nest: Nest, machine: CostMachine) -> float:
    """What it takes to look up pages that are not among those of a core.

    They are to the table of pages what lines are to a cache. A loop that only copies
    does not wait for them.
    """
    pages = machine.pages
    if pages is None:
        return 0.0
    size = pages.bytes * pages.entries
    apart, packed = _packed_apart(nest)
    moved = traffic(apart, size, pages.bytes, True, machine.cores)
    found = sum(
        number_of(amount, nest.values)
        for array, amount in moved.fetched.items()
        if array not in packed
    )
    return found / pages.bytes * pages.seconds / machine.cores


def _packed_apart(nest: Nest) -> tuple[Nest, set[Array]]:
    """A nest in which what is packed, and what is not, are arrays apart.

    An array that one kernel packs may be read as it is by another one, or by the same.
    """
    every = [access for access, _ in accesses_in(nest.body)]
    packed = {access.array for access in every if access.packed}
    plain = {access.array for access in every if not access.packed}
    if not packed & plain:
        return nest, packed
    twins = {array: replace(array) for array in packed & plain}

    def copied(node: Node) -> Node:
        if isinstance(node, Loop):
            return replace(node, body=[copied(inner) for inner in node.body])
        if isinstance(node, Access) and node.packed and node.array in twins:
            return replace(node, array=twins[node.array])
        return node

    apart = replace(nest, body=[copied(node) for node in nest.body])
    return apart, {twins.get(array, array) for array in packed}


def _is_fresh(array: Array, nest: Nest, machine: CostMachine) -> bool:
    """Whether the memory of an array was not used before."""
    is_new = array.role == "result" or array in nest.intermediates
    return is_new and number_of(array.bytes, nest.values) >= machine.fresh_from


def fresh_bytes(nest: Nest, machine: CostMachine) -> float:
    """The bytes of results whose memory was not used before."""
    found = [a for a in nest.arrays if _is_fresh(a, nest, machine)]
    return sum(number_of(array.bytes, nest.values) for array in found)


def compute_seconds(
    counts: Mapping[tuple[str, str], Expr], nest: Nest, machine: CostMachine
) -> dict[str, float]:
    """The seconds that operations take, for each unit of the machine.

    A multiplication and an addition together are two of the flops that the machine has;
    what is left over of one of both takes as long as both would.
    """
    numbers = {key: number_of(count, nest.values) for key, count in counts.items()}
    arithmetic = 0.0
    apart = 0.0
    for dtype in {dtype for _, dtype in numbers}:
        adds = numbers.get(("add", dtype), 0.0)
        products = numbers.get(("mul", dtype), 0.0)
        width = 2.0 if dtype in ("f64", "i64") else 1.0
        rate = machine.flops.get(dtype, machine.flops["f32"] / width)
        pairs = min(adds, products)
        arithmetic += 2 * pairs / rate
        single = machine.flops["f32"] / width
        arithmetic += 2 * (max(adds, products) - pairs) / single
        others = numbers.get(("other", dtype), 0.0) + numbers.get(("wait", dtype), 0.0)
        arithmetic += width * others / machine.rates["other"]
        arithmetic += width * numbers.get(("div", dtype), 0.0) / machine.rates["div"]
        arithmetic += width * numbers.get(("math", dtype), 0.0) / machine.rates["math"]
        exp = width * numbers.get(("exp", dtype), 0.0) / machine.rates["exp"]
        if machine.separate_exp:
            apart += exp
        else:
            arithmetic += exp
    found = {"compute": arithmetic / machine.efficiency}
    if machine.separate_exp:
        found["exp"] = apart
    return found


def scalar_factor(machine: CostMachine) -> float:
    """How much longer operations take one at a time, on one core.

    Lanes and cores, and half as much again for accumulations that wait for each other.
    """
    cores = 1 / max(machine.single, 1 / machine.cores)
    return SCALAR * machine.vector_bytes / 4 * cores


SCALAR = 1.5
"""How much longer a scalar operation takes than a lane's share of a vector one."""


AHEAD = 0.7
"""Which part is hidden at least of what is asked for early."""


TOGETHER = 4
"""The power in which loads and operations add up: they take each other's places."""


def overlapped(
    parts: Mapping[str, float],
    machine: CostMachine,
    ahead: bool = False,
    waiting: float | None = None,
) -> float:
    """The longer one of computing and moving, and what is not hidden of the other.

    A core loads from its first cache while it computes, whatever it computes, but it
    waits for a page. What comes from the memory goes through all levels at a time.

    Args:
        parts: for each resource the seconds it takes.
        machine: the machine.
        ahead: whether what is read is asked for early.
        waiting: what moving takes without what the core need not wait for; None if
            that is all.
    """
    first = machine.levels[0].name
    units = [parts.get(name, 0.0) for name in ("compute", "exp")]
    core = _together(max(units), parts.get(first, 0.0), machine)
    core += parts.get("pages", 0.0)
    moving = max(
        (parts.get(level.name, 0.0) for level in machine.levels[1:]), default=0.0
    )
    hidden = max(machine.overlap, AHEAD) if ahead else machine.overlap
    rest = moving if waiting is None else min(moving, waiting)
    return max(core, moving) + (1 - hidden) * min(core, rest)


def _together(computing: float, loading: float, machine: CostMachine) -> float:
    """How long a core takes that loads from its first cache while it computes."""
    if machine.kind == "gpu":
        return max(computing, loading)
    return (computing**TOGETHER + loading**TOGETHER) ** (1 / TOGETHER)
