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
from typing import Any

import sympy as sp

from moa_dialect.cost.algebra import Expr, number_of
from moa_dialect.cost.bounds import Bound, compulsory, storage
from moa_dialect.cost.machines import CostMachine, Level
from moa_dialect.cost.nests import Nest, counts_of
from moa_dialect.cost.timing import HIDDEN, timing_of
from moa_dialect.cost.traffic import Traffic


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
        """`fits`, `copied`, `capacity-bound`, or `registers` for the first level."""
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
    def energy_range(self) -> tuple[float, float]:
        """The least and the most joules, by how well energies are known."""
        within = self.machine.energy_within
        return self.energy / within, self.energy * within

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
            "energy_range": list(self.energy_range),
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
    timing = timing_of(nest, machine)
    counts = {
        key: count
        for key, count in counts_of(nest.body).items()
        if key[0] not in HIDDEN
    }
    needed = compulsory(nest) if least is None else least
    least_number = number_of(needed, nest.values)
    levels = [
        LevelCost(
            moved.level,
            moved.traffic,
            moved.bytes,
            bound.at(moved.inner, least_number, nest),
            moved.seconds,
            moved.bytes * moved.level.energy,
            moved.inner,
        )
        for moved in timing.levels
    ]
    seconds = timing.seconds
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
        timing.parts,
        seconds,
        energy,
    )


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
