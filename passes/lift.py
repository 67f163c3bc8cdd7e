"""moa-lift: which axes of a kernel go to lanes, registers, chunks and tasks.

To lift an axis is to reshape the index space: `i -> <procs, regs, lanes>`. A schedule
says for each axis which resources its parts are bound to. It is chosen in closed form:
for each axis that could be in the lanes the vector operations of a kernel are counted,
and the least count wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass

from moa_dialect.errors import CompileError
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp, ExtentOp, FixedExtentOp
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import Kernel, all_terms, read_kernel, split_folds
from moa_dialect.passes.machine import Machine, machine_named
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.terms import Computed, Folded, NotATerm, Term, walk
from moa_dialect.passes.work import NOMINAL_EXTENT
from moa_dialect.types import dtype_of

SCHEDULE = "moa.schedule"
"""The attribute of a comprehension that says how it runs."""

AUTO = "auto"


@dataclass(frozen=True)
class Schedule:
    """How a kernel runs.

    Attributes:
        lane: the axis in the lanes, by its name; empty if folded axes are.
        lanes: the lanes of a vector.
        vectors: the vectors that the lanes of a task are.
        registers: how many indices of a tile axis run at a time in a contraction.
        unroll: the same for statements without folds.
        chunk: how many indices of a folded axis make a chunk; rows of lanes, if folded
            axes are in the lanes.
    """

    lane: str
    lanes: int = 16
    vectors: int = 2
    registers: int = 12
    unroll: int = 4
    chunk: int = 96

    def __str__(self) -> str:
        lanes = f"regs:{self.vectors},lanes:{self.lanes}"
        fold = f"chunk:{self.chunk},regs:{self.registers},unroll:{self.unroll}"
        if self.lane:
            return f"{self.lane}=procs,{lanes};*={fold}"
        return f"*={fold},lanes:{self.vectors * self.lanes}x{self.lanes}"


def element_bytes(kernel: Kernel) -> int:
    """The size of the widest float, or else of the widest number, of a kernel."""
    types = {term.type for term in all_terms(kernel) if _is_element(term.type)}
    sizes = [dtype_of(type_).itemsize for type_ in types]
    floats = [dtype_of(t).itemsize for t in types if dtype_of(t).kind in "fV"]
    return max(4, *floats) if floats else max(sizes, default=8)


def _is_element(type_: Attribute) -> bool:
    try:
        dtype_of(type_)
    except Exception:
        return False
    return True
