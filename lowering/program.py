"""Programs of several kernels: compiled one by one, run in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import SSAValue

from moa_dialect.errors import MoaError
from moa_dialect.lowering.engine import compile_for_cuda, compile_module, find_entry
from moa_dialect.ops.function import lookup_function
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.options import DEFAULTS, Options
from moa_dialect.passes.split_programs import SplitProgramsPass
from moa_dialect.passes.to_dnf import PROGRAM
from moa_dialect.types import array_of


@dataclass
class _Step:
    """One call: which values it takes, and which it gives."""

    name: str
    kernel: Any
    inputs: Sequence[SSAValue]
    outputs: Sequence[SSAValue]


@dataclass
class Program:
    """Kernels that run one after the other.

    Attributes:
        name: what it is called.
        arguments: the values that the program is called with.
        constants: arrays that the program brings.
        steps: the calls.
        results: what it returns.
    """

    name: str
    arguments: Sequence[SSAValue]
    constants: dict[SSAValue, np.ndarray]
    steps: list[_Step]
    results: Sequence[SSAValue]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the kernels, in the order in which they run."""
        return tuple(step.name for step in self.steps)

    def to_tensor(self, torch: Any, array: np.ndarray) -> Any:
        """A result as a tensor of PyTorch."""
        return self.steps[-1].kernel.to_tensor(torch, array)

    def __call__(self, *arrays: Any) -> Any:
        """Run the program on arrays, as a kernel is run.

        Raises:
            MoaError: for another number of arrays than it takes.
        """
        if len(arrays) != len(self.arguments):
            count = len(self.arguments)
            raise MoaError(
                f"{self.name}: expected {count} argument{'s' * (count != 1)}, "
                f"got {len(arrays)}"
            )
        values: dict[SSAValue, Any] = dict(self.constants)
        values.update(zip(self.arguments, arrays, strict=True))
        for step in self.steps:
            found = step.kernel(*(values[value] for value in step.inputs))
            outputs = found if isinstance(found, tuple) else (found,)
            values.update(zip(step.outputs, outputs, strict=True))
        found = tuple(values[value] for value in self.results)
        return found[0] if len(found) == 1 else found


def compile_program(
    module: ModuleOp, entry: str | None = None, options: Options = DEFAULTS
) -> Any:
    """Compile a function, split into kernels where one would not do.

    The module is kept.

    Returns:
        A kernel, or a `Program` of kernels.

    Raises:
        MoaError: for an unknown entry, or a program that cannot be lowered.
    """
    find_entry(module, entry)
    split = module.clone()
    SplitProgramsPass().apply(Context(), split)
    function = find_entry(split, entry)
    compile_ = compile_for_cuda if options.is_cuda else compile_module
    if PROGRAM not in function.attributes:
        return compile_(module, entry, options)
    block = function.body.block
    constants: dict[SSAValue, np.ndarray] = {}
    steps: list[_Step] = []
    for op in block.ops:
        if isinstance(op, ConstantOp):
            constants[op.result] = array_of(op.value)
        elif isinstance(op, CallOp):
            callee = lookup_function(op, op.callee)
            name = callee.sym_name.data
            kernel = compile_(_alone(callee), name, options)
            steps.append(_Step(name, kernel, list(op.operands), list(op.results)))
    last = block.last_op
    assert isinstance(last, ReturnOp)
    name = function.sym_name.data
    return Program(name, list(block.args), constants, steps, list(last.operands))


def _alone(function: FuncOp) -> ModuleOp:
    """A module with one function, which is public."""
    copy = function.clone()
    copy.properties.pop("sym_visibility", None)
    return ModuleOp([copy])
