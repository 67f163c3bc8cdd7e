"""Programs of which every array operation is a kernel of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from xdsl.ir import BlockArgument, SSAValue

from moa_dialect.cost.programs import Part, Program, entry_function
from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.types import shape_of


class Kernels:
    """Kernels that run one after the other, and give what the program gives."""

    def __init__(self, parts: list[Part], returned: list[SSAValue], count: int) -> None:
        from moa_dialect.lowering.engine import compile_module

        self.parts = parts
        self.count = count
        self.returned = returned
        self.kernels = [
            compile_module(p.program.module, p.program.entry, p.program.options)
            for p in parts
        ]
        self.last = {v: k for k, part in enumerate(parts) for v in part.operands}

    def __call__(self, *arrays: Any, copy: bool | None = None) -> Any:
        """Run the kernels.

        Raises:
            MoaError: if arrays are not those of the program.
        """
        if len(arrays) != self.count:
            raise MoaError(f"expected {self.count} arguments, got {len(arrays)}")
        known: dict[SSAValue, Any] = {}
        kept = set(self.returned)
        for number, part in enumerate(self.parts):
            operands = [
                arrays[value.index]
                if isinstance(value, BlockArgument)
                else known[value]
                for value in part.operands
            ]
            result = self.kernels[number](*operands, copy=copy)
            results = result if isinstance(result, tuple) else (result,)
            known |= dict(
                zip(part.results, cast(tuple[Any, ...], results), strict=True)
            )
            del operands
            for value in part.operands:  # What is used up makes room.
                if self.last[value] == number and value not in kept:
                    known.pop(value, None)
        found = tuple(known[value] for value in self.returned)
        return found[0] if len(found) == 1 else found

    def call_tensors(self, torch: Any, tensors: Any) -> None:
        """Tensors are converted."""
        return None

    def to_tensor(self, torch: Any, array: Any) -> Any:
        """A result as a tensor."""
        return self.kernels[-1].to_tensor(torch, array)


def kernels_of(program: Program) -> Kernels:
    """The kernels of a program, one for each array operation."""
    function = entry_function(program.module, program.entry)
    return Kernels(*program.operations_and_results(), len(function.body.block.args))


def can_be_materialised(compiled: Compiled) -> bool:
    """Whether all extents are known, and each result is that of an operation."""
    program = compiled.program()
    function = entry_function(program.module, program.entry)
    shapes = [shape_of(argument.type) for argument in function.body.block.args]
    if any(extent < 0 for shape in shapes for extent in shape):
        return False
    parts, returned = program.operations_and_results()
    made = {value for part in parts for value in part.results}
    return bool(parts) and all(value in made for value in returned)


class Materialised(Compiled):
    """A program whose kernel is a kernel for each array operation."""

    @cached_property
    def kernel(self) -> Kernels:
        """The kernels, as one.

        Raises:
            MoaError: if there are extents that only a call tells.
        """
        if not can_be_materialised(self):
            raise MoaError("a kernel for each operation needs extents that are known")
        return kernels_of(self.program())
