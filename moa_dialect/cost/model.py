"""What a loop nest costs on a machine: operations, bytes, time, energy.

Operations and compulsory bytes are facts about the algebra. Bytes for each level are
those of a model of caches (`moa_dialect.cost.traffic`). Time is a model of the machine:
each resource takes its amount divided by its rate, and the longest one hides most of
the others.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import sympy as sp

from moa_dialect.cost.bounds import Bound, compulsory, storage
from moa_dialect.cost.machines import CostMachine, Level
from moa_dialect.cost.nests import (
    Array,
    Expr,
    Loop,
    Nest,
    Node,
    accesses_count,
    counts_of,
    number_of,
)
from moa_dialect.cost.traffic import Traffic, traffic

_HIDDEN = ("load", "wait")
"""Kinds of work that are no operations of the program."""


@dataclass(frozen=True)
class LevelCost:
    """What a level of the memory hierarchy gives and takes.

    Attributes:
        level: the level.
        traffic: the bytes between it and the level before; None for the first one,
            which registers are loaded from.
        bytes: their number.
        bound: a lower bound for these bytes.
        seconds: what they take.
        energy: joules they take.
        inner: bytes that the level before holds; 0 for registers.
    """

    level: Level
    traffic: Traffic | None
    bytes: float
    bound: float
    seconds: float
    energy: float
    inner: int

    @property
    def ratio(self) -> float:
        """How many times the bound the bytes are."""
        return self.bytes / self.bound if self.bound else 1.0

    @property
    def regime(self) -> str:
        """`fits`, `capacity-bound`, or `registers` for the first level."""
        return "registers" if self.traffic is None else self.traffic.regime


@dataclass
class Cost:
    """What a program costs on a machine.

    Attributes:
        name: the program.
        form: what was analysed: `lifted`, `onf`, or `materialised`.
        schedules: the schedules, if it was lifted.
        machine: the machine.
        nest: the loop nests.
        operations: for each kind and element type how many scalar operations.
        compulsory: the bytes that are used once at least.
        storage: bytes of scratch memory.
        levels: for each level the bytes, the first-level cache first.
        bound: the lower bound that levels are compared with.
        parts: for each resource the seconds it takes.
        seconds: the time.
        energy: joules.
    """

    name: str
    form: str
    schedules: list[str]
    machine: CostMachine
    nest: Nest
    operations: dict[tuple[str, str], Expr]
    compulsory: Expr
    storage: Expr
    levels: list[LevelCost]
    bound: Bound
    parts: dict[str, float]
    seconds: float
    energy: float

    def number(self, expression: Expr) -> float:
        """The number that a formula is, for the extents at hand."""
        return number_of(expression, self.nest.values)

    @property
    def flops(self) -> float:
        """Additions and multiplications of floats."""
        return sum(
            self.number(count)
            for (kind, dtype), count in self.operations.items()
            if kind in ("add", "mul") and not dtype.startswith("i")
        )

    def of_kind(self, kind: str) -> Expr:
        """How many operations there are of a kind, of all element types."""
        found = [count for (k, _), count in self.operations.items() if k == kind]
        return sp.expand(sp.Add(*found))

    def level(self, name: str) -> LevelCost:
        """What a level of this name gives and takes."""
        self.machine.level(name)
        return next(found for found in self.levels if found.level.name == name)

    @property
    def bottleneck(self) -> str:
        """The resource that takes longest."""
        return max(self.parts, key=lambda name: self.parts[name])

    @property
    def memory_bytes(self) -> float:
        """Bytes from and to the memory."""
        return self.levels[-1].bytes

    def to_json(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`: numbers, and formulas as text."""
        sizes = {f"{symbol}": value for symbol, value in self.nest.values.items()}
        return {
            "program": self.name,
            "form": self.form,
            "schedules": self.schedules,
            "machine": self.machine.name,
            "sizes": sizes,
            "operations": [
                {"kind": k, "dtype": d, "formula": f"{e}", "count": self.number(e)}
                for (k, d), e in sorted(self.operations.items())
            ],
            "compulsory": _entry(self.compulsory, self),
            "storage": _entry(self.storage, self),
            "bound": {
                "kind": self.bound.kind,
                "formula": f"{self.bound.bytes}",
                "source": self.bound.source,
                "up_to_constant": self.bound.is_order,
            },
            "levels": [_level_entry(level) for level in self.levels],
            "seconds": self.seconds,
            "parts": self.parts,
            "bottleneck": self.bottleneck,
            "energy": self.energy,
        }


def _entry(expression: Expr, cost: Cost) -> dict[str, Any]:
    return {"formula": f"{expression}", "bytes": cost.number(expression)}


def _level_entry(level: LevelCost) -> dict[str, Any]:
    moved = level.traffic
    return {
        "name": level.level.name,
        "bytes": level.bytes,
        "formula": None if moved is None else f"{moved.total}",
        "conditions": [] if moved is None else list(map(str, moved.conditions)),
        "regime": level.regime,
        "bound": level.bound,
        "ratio": level.ratio,
        "seconds": level.seconds,
        "energy": level.energy,
    }


def cost_of_nest(
    nest: Nest,
    machine: CostMachine,
    bound: Bound,
    name: str = "",
    form: str = "onf",
    schedules: list[str] | None = None,
    least: Expr = None,
) -> Cost:
    """What a nest costs on a machine.

    Args:
        nest: the nest.
        machine: the machine.
        bound: the lower bound to compare with.
        name: what to call it.
        form: what the nest is of.
        schedules: the schedules, if there are.
        least: the compulsory bytes, if they are not those of the nest.
    """
    every = counts_of(nest.body)
    counts = {key: count for key, count in every.items() if key[0] not in _HIDDEN}
    needed = compulsory(nest) if least is None else least
    least_number = number_of(needed, nest.values)
    vectors = [node for node in nest.body if node not in nest.scalar]
    is_vector = bool(vectors)
    cores = machine.cores if is_vector else 1
    fresh = fresh_bytes(nest, machine) if machine.fresh else 0.0
    levels: list[LevelCost] = []
    inner: Level | None = None
    allocates = machine.kind == "cpu"
    for level in machine.levels:
        single = max(machine.single, 1 / machine.cores)
        scale = 1.0 if is_vector or level.shared else single
        if inner is None:
            amount, moved = register_bytes(nest, vectors, machine), None
        else:
            moved = traffic(
                nest, inner.capacity, inner.line, allocates, cores, inner.shared
            )
            amount = moved.bytes
            if level is machine.memory and fresh:
                # What the system clears before is there when it is written.
                new = [a for a in moved.fetched if _is_fresh(a, nest, machine)]
                moved.fetched |= dict.fromkeys(new, sp.Integer(0))
                amount = moved.bytes
        capacity = 0 if inner is None else inner.capacity
        least_here = bound.at(capacity, least_number, nest)
        levels.append(
            LevelCost(
                level,
                moved,
                amount,
                least_here,
                amount / (level.bandwidth * scale),
                amount * level.energy,
                capacity,
            )
        )
        inner = level
    parts: dict[str, float] = {}
    for node in nest.body:
        factor = _lanes_in_vain(nest, node, machine)
        if node in nest.scalar:
            factor = scalar_factor(machine)
        else:
            factor *= idle_factor(nest, node, machine)
        for unit, value in compute_seconds(counts_of([node]), nest, machine).items():
            parts[unit] = parts.get(unit, 0.0) + value * factor
    parts |= {level.level.name: level.seconds for level in levels}
    if machine.pages is not None and is_vector:
        parts["pages"] = page_seconds(nest, machine)
    seconds = overlapped(parts, machine, nest.ahead)
    parts["launch"] = machine.launch * nest.launches
    seconds += parts["launch"]
    if fresh:
        parts["fresh memory"] = fresh / machine.fresh
        seconds += parts["fresh memory"]
    energy = sum(level.energy for level in levels)
    energy += operation_energy(counts, nest, machine) + machine.idle_watts * seconds
    return Cost(
        name,
        form,
        schedules or [],
        machine,
        nest,
        counts,
        needed,
        storage(nest),
        levels,
        bound,
        parts,
        seconds,
        energy,
    )


def register_bytes(nest: Nest, vectors: list[Node], machine: CostMachine) -> float:
    """The bytes that loads and stores move between registers and the first cache."""
    total = 0.0
    for node in nest.body:
        loads = counts_of([node]).get(("load", "bytes"))
        if loads is None or node not in vectors:
            loads = accesses_count([node], False) + accesses_count([node], True)
        factor = 1.0
        if node in vectors:
            factor = _lanes_in_vain(nest, node, machine)
        total += number_of(loads, nest.values) * factor
    return total


def _lanes_in_vain(nest: Nest, node: Node, machine: CostMachine) -> float:
    """How many times more lanes a vector register has than a nest uses."""
    used = nest.used_bytes.get(id(node))
    if used is None or machine.kind == "gpu":
        return 1.0
    return max(1.0, machine.vector_bytes / used)


def idle_factor(nest: Nest, node: Node, machine: CostMachine) -> float:
    """How many times longer tasks take because some cores have none in the end."""
    tasks = 1.0
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
    moved = traffic(nest, size, pages.bytes, True, machine.cores)
    found = sum(
        number_of(amount, nest.values)
        for array, amount in moved.fetched.items()
        if array not in nest.packed
    )
    return found / pages.bytes * pages.seconds / machine.cores


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


def overlapped(
    parts: Mapping[str, float], machine: CostMachine, ahead: bool = False
) -> float:
    """The longer one of computing and moving, and what is not hidden of the other.

    A core loads from its first cache while it computes, whatever it computes, but it
    waits for a page. What comes from the memory goes through all levels at a time.
    """
    first = machine.levels[0].name
    units = [parts.get(name, 0.0) for name in ("compute", "exp", first)]
    core = max(units) + parts.get("pages", 0.0)
    moving = max(
        (parts.get(level.name, 0.0) for level in machine.levels[1:]), default=0.0
    )
    hidden = max(machine.overlap, AHEAD) if ahead else machine.overlap
    return max(core, moving) + (1 - hidden) * min(core, moving)


def operation_energy(
    counts: Mapping[tuple[str, str], Expr], nest: Nest, machine: CostMachine
) -> float:
    """Joules that operations take."""
    total = 0.0
    for (kind, dtype), count in counts.items():
        each = machine.op_energy.get(dtype, machine.op_energy["f32"])
        if kind in ("exp", "math"):
            each = machine.op_energy["exp"]
        elif kind == "div":
            each = 4 * each
        total += each * number_of(count, nest.values)
    return total
