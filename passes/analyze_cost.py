"""moa-analyze-cost: what functions cost, as formulas attached to them."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FloatAttr,
    ModuleOp,
    StringAttr,
    f64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute
from xdsl.passes import ModulePass

from moa_dialect.errors import CompileError
from moa_dialect.passes.infer_shapes import functions_of, is_one_block

COST = "moa.cost"
"""The attribute of a function that says what it costs."""


@dataclass(frozen=True)
class AnalyzeCostPass(ModulePass):
    """Attaches to each function what it costs, as formulas in its extents.

    Functions are at the stage dnf, fused or onf; those whose comprehensions all have
    schedules (moa-lift) are analysed as these say. The attribute `moa.cost` has the
    operations by kind and element type, the compulsory bytes, those of scratch memory,
    the lower bound, and for each level of the memory of the `machine` the bytes between
    it and the level before, with the conditions under which the formula holds; besides
    seconds and joules for the extents at hand. An extent that types do not give counts
    as `extent`.

    With `explain` the functions are arrays of the stage moa, and `moa.cost` says what
    they cost fused and with each array operation a kernel of its own, and which form
    is cheaper; both sides are printed too.
    """

    name = "moa-analyze-cost"

    machine: str = "host"
    extent: int = 1024
    explain: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Attach costs.

        Raises:
            MoaError: for an unknown machine, or a file that is no description of one.
            CompileError: for functions at another stage.
        """
        if self.extent < 1:
            raise CompileError(
                f"moa-analyze-cost: expected an extent above 0, got {self.extent}"
            )
        for function in filter(is_one_block, functions_of(op)):
            is_private = function.sym_visibility is not None
            if self.explain and not is_private:
                self._explain(op, function)
            elif not self.explain:
                self._attach(function)

    def _attach(self, function: FuncOp) -> None:
        from moa_dialect import cost as costs

        machine = costs.machine(self.machine)
        sizes = _Sizes(self.extent)
        plain = costs.read_function(function, None, sizes)
        lifted = costs.read_lifted(function, None, sizes)
        nest = plain if lifted is None else lifted
        if lifted is None:
            nest.scalar = list(nest.body)
        found = costs.cost_of_nest(
            nest,
            machine,
            costs.lower_bound(plain),
            function.sym_name.data,
            "onf" if lifted is None else "lifted",
            least=costs.compulsory(plain),
        )
        operations = {
            f"{kind} {dtype}": StringAttr(f"{count}")
            for (kind, dtype), count in sorted(found.operations.items())
        }
        levels: dict[str, Attribute] = {}
        for level in found.levels:
            if level.traffic is not None:
                levels[level.level.name] = DictionaryAttr(
                    {
                        "bytes": StringAttr(f"{level.traffic.total}"),
                        "when": ArrayAttr(
                            StringAttr(f"{c}") for c in level.traffic.conditions
                        ),
                    }
                )
        function.attributes[COST] = DictionaryAttr(
            {
                "machine": StringAttr(machine.name),
                "operations": DictionaryAttr(operations),
                "compulsory": StringAttr(f"{found.compulsory}"),
                "storage": StringAttr(f"{found.storage}"),
                "bound": StringAttr(f"{found.bound.bytes}"),
                "levels": DictionaryAttr(levels),
                "seconds": FloatAttr(found.seconds, f64),
                "joules": FloatAttr(found.energy, f64),
            }
        )

    def _explain(self, module: ModuleOp, function: FuncOp) -> None:
        from moa_dialect import cost as costs

        name = function.sym_name.data
        if any(op.name == "moa.comprehension" for op in function.walk()):
            raise CompileError(
                f"moa-analyze-cost: explain: expected @{name} at the stage moa"
            )
        machine = costs.machine(self.machine)
        program = costs.Program(module, name, sizes=_Sizes(self.extent))
        decision = program.decision(machine)
        print(f"@{name}:\n{decision.explain()}")
        sides = {
            side: DictionaryAttr(
                {
                    "seconds": FloatAttr(cost.seconds, f64),
                    "joules": FloatAttr(cost.energy, f64),
                }
            )
            for side, cost in (
                ("fused", decision.fused),
                ("materialised", decision.materialised),
            )
        }
        choice = "fuse" if decision.fuse else "materialise"
        function.attributes[COST] = DictionaryAttr(
            {"machine": StringAttr(machine.name), "choice": StringAttr(choice), **sides}
        )


class _Sizes(dict[str, int]):
    """A number for every name of an extent."""

    def __init__(self, extent: int):
        super().__init__()
        self.extent = extent

    def get(self, key: str, default: int | None = None) -> int:  # pyright: ignore
        """The number: always the same."""
        return self.extent
