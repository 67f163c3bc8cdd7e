"""What programs cost on machines, from the algebra alone: see docs/cost-model.md."""

from moa_dialect.cost.bounds import Bound, compulsory, lower_bound, storage
from moa_dialect.cost.lifted import read_lifted
from moa_dialect.cost.machines import (
    CostMachine,
    Level,
    MachineError,
    machine,
    read_machine,
    shipped,
)
from moa_dialect.cost.model import Cost, LevelCost, cost_of_nest
from moa_dialect.cost.nests import Access, Array, Loop, Nest, Work, counts_of
from moa_dialect.cost.programs import Program
from moa_dialect.cost.reader import CostError, read_function
from moa_dialect.cost.report import Decision, cost_text, regimes_text
from moa_dialect.cost.traffic import Traffic, regimes, traffic

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
