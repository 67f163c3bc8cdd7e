"""Operations of linalg taken apart: operands, maps, body, and how they reduce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.ir.affine import AffineMap

from moa_dialect.passes.raising.rule import CannotRaise, check_tensors
from moa_dialect.passes.raising.source import maps_of


@dataclass
class Part:
    """What one index contributes to a fold: a value of the body, negated or guarded.

    With `skips_nan` a NaN counts as the identity element.
    """

    value: SSAValue
    is_negated: bool = False
    skips_nan: bool = False


@dataclass
class Structured:
    """An operation of linalg as its parts."""

    op: Operation
    inputs: Sequence[SSAValue]
    outputs: Sequence[SSAValue]
    maps: Sequence[AffineMap]
    body: Block
    yielded: Sequence[SSAValue]
    extents: list[SSAValue] = field(default_factory=list[SSAValue])

    @classmethod
    def read(cls, op: Operation) -> Structured:
        """Take an operation apart.

        Raises:
            CannotRaise: if it is not on tensors, or its body is not one block.
        """
        check_tensors(op)
        count = len(op.results)
        if not op.results or len(op.regions) != 1 or len(op.regions[0].blocks) != 1:
            raise CannotRaise("an operation on memory")
        body = op.regions[0].block
        terminator = body.last_op
        maps = maps_of(op)
        if terminator is None or len(maps) != len(op.operands):
            raise CannotRaise("an operation without indexing maps")
        if any(map_.num_symbols for map_ in maps):
            raise CannotRaise("an indexing map with symbols")
        split = len(op.operands) - count
        yielded = list(terminator.operands)
        return cls(op, op.operands[:split], op.operands[split:], maps, body, yielded)

    @property
    def dimensions(self) -> int:
        """How many dimensions the iteration space has."""
        return self.maps[0].num_dims

    def argument(self, operand: int) -> BlockArgument | None:
        """The argument of the body for an operand."""
        arguments = self.body.args
        return arguments[operand] if operand < len(arguments) else None

    def output_argument(self, result: int) -> BlockArgument | None:
        """The argument of the body for what a result has been so far."""
        return self.argument(len(self.inputs) + result)

    def output_map(self, result: int) -> AffineMap:
        """The indexing map of a result."""
        return self.maps[len(self.inputs) + result]


def depends(value: SSAValue, on: SSAValue | None, body: Block) -> bool:
    """Whether a value of a body is computed from an argument."""
    seen: set[SSAValue] = set()
    pending = [value]
    while pending:
        current = pending.pop()
        if current is on:
            return True
        if current in seen or isinstance(current.owner, Block):
            continue
        seen.add(current)
        pending += current.owner.operands
        for region in current.owner.regions:
            for inner in region.walk():
                pending += inner.operands
    return False


@dataclass
class Reduction:
    """A body's way to combine what a result has been so far with what comes.

    Attributes:
        function: the scalar operation; None if the result stays what it was.
        parts: what is combined with it for an index, by the same operation.
    """

    function: str | None
    parts: list[Part]
