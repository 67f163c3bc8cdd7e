"""What programs cost on machines, from the algebra alone: see docs/cost-model.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moa_dialect.cost.lifted import read_lifted
from moa_dialect.cost.machines import (
    CostMachine,
    Level,
    MachineError,
    machine,
    read_machine,
    shipped,
)
from moa_dialect.cost.nests import Access, Array, Loop, Nest, Work, counts_of
from moa_dialect.cost.traffic import Traffic, regimes, traffic

if TYPE_CHECKING:
    from moa_dialect.cost.bounds import Bound, compulsory, lower_bound, storage
    from moa_dialect.cost.model import Cost, LevelCost, cost_of_nest
    from moa_dialect.cost.programs import Program
    from moa_dialect.cost.reader import CostError, read_function
    from moa_dialect.cost.report import Decision, cost_text, regimes_text

_FORMULAS = {
    "bounds": ("Bound", "compulsory", "lower_bound", "storage"),
    "model": ("Cost", "LevelCost", "cost_of_nest"),
    "programs": ("Program",),
    "reader": ("CostError", "read_function"),
    "report": ("Decision", "cost_text", "regimes_text"),
}
"""Modules that compute with formulas, and load SymPy: not before they are asked for."""


def __getattr__(name: str) -> Any:
    for module, names in _FORMULAS.items():
        if name in names:
            return getattr(import_module(f"moa_dialect.cost.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Access",
    "Array",
    "Bound",
    "Cost",
    "CostError",
    "CostMachine",
    "Decision",
    "Level",
    "LevelCost",
    "Loop",
    "MachineError",
    "Nest",
    "Program",
    "Traffic",
    "Work",
    "compulsory",
    "cost_of_nest",
    "cost_text",
    "counts_of",
    "lower_bound",
    "machine",
    "read_function",
    "read_lifted",
    "read_machine",
    "regimes",
    "regimes_text",
    "shipped",
    "storage",
    "traffic",
]
