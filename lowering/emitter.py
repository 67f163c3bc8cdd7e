"""What code generators for kernels share: emission, loops, and what is known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    AnyFloat,
    IndexType,
    StringAttr,
    UnitAttr,
    UnregisteredOp,
    VectorType,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.scalar_code import identity_of
from moa_dialect.types import kind_of

INDEX = IndexType()

ROLLED = "moa.rolled"
"""The attribute of a loop that is not to be unrolled: its registers are all taken."""

CHAINS = 8
"""How many sums have to be in progress for none to wait for the one before."""

FULL = 16
"""From how many sums on a loop is not unrolled: copies of it would spill registers."""


@cache
def vector_of(element: Attribute, count: int) -> VectorType:
    """The type of a vector; one object for each, since it takes long to make."""
    return VectorType(element, [count])


class NotLifted(Exception):
    """A kernel has no code under a schedule; says why."""


_SCALAR_ONLY: tuple[type[Operation], ...] = (
    arith.CmpiOp,
    arith.CmpfOp,
    arith.SelectOp,
    arith.IndexCastOp,
    arith.TruncIOp,
    arith.ExtUIOp,
    arith.ExtSIOp,
    arith.SIToFPOp,
    arith.UIToFPOp,
    arith.FPToSIOp,
    arith.FPToUIOp,
)
"""Operations that xDSL has for scalars only; upstream has them for vectors too."""

COMBINE: dict[tuple[str, str], type[Operation]] = {
    ("add", "float"): arith.AddfOp,
    ("mul", "float"): arith.MulfOp,
    ("max", "float"): arith.MaximumfOp,
    ("min", "float"): arith.MinimumfOp,
    ("add", "int"): arith.AddiOp,
    ("mul", "int"): arith.MuliOp,
    ("max", "int"): arith.MaxSIOp,
    ("min", "int"): arith.MinSIOp,
    ("and", "bool"): arith.AndIOp,
    ("or", "bool"): arith.OrIOp,
    ("xor", "bool"): arith.XOrIOp,
}


def neutral(function: str, element: Attribute) -> float:
    """What leaves every value as it is.

    Raises:
        NotLifted: if values must be combined from the right.
    """
    if (function, kind_of(element)) not in COMBINE:
        raise NotLifted(f"a fold with {function}")
    if function == "add" and isinstance(element, AnyFloat):
        return -0.0
    return identity_of(StringAttr(function), element)


class Emitter:
    """Emits operations, with a memory of what they compute.

    Attributes:
        builder: where code goes.
        number: gives a number at the entry of the function.
        scopes: what is known, by a key of the user's, in nested regions.
    """

    builder: Builder
    number: Callable[[int], SSAValue]
    scopes: list[dict[Hashable, Any]]

    def emit(self, op: Operation) -> SSAValue:
        """Insert an operation with one result."""
        return self.builder.insert(op).results[0]

    def make(
        self,
        operation: type[Operation],
        operands: Sequence[SSAValue],
        type_: Attribute,
        properties: dict[str, Attribute] | None = None,
    ) -> SSAValue:
        """Insert an operation, which may be one that xDSL has for scalars only."""
        properties = properties or {}
        if operation in _SCALAR_ONLY and isa(type_, VectorType):
            other = UnregisteredOp.with_name(operation.name)
            return self.emit(
                other.create(
                    operands=operands, result_types=[type_], properties=properties
                )
            )
        return self.emit(
            operation.create(
                operands=operands, result_types=[type_], properties=properties
            )
        )

    def add(self, left: SSAValue, right: SSAValue | int) -> SSAValue:
        """The sum of indices."""
        return self._arithmetic(arith.AddiOp, left, right)

    def sub(self, left: SSAValue, right: SSAValue | int) -> SSAValue:
        """The difference of indices."""
        return self._arithmetic(arith.SubiOp, left, right)

    def mul(self, left: SSAValue, right: SSAValue | int) -> SSAValue:
        """The product of indices."""
        return self._arithmetic(arith.MuliOp, left, right)

    def div(self, left: SSAValue, right: int) -> SSAValue:
        """The quotient of an index that is not negative."""
        return self._arithmetic(arith.DivUIOp, left, right)

    def min(self, left: SSAValue, right: SSAValue | int) -> SSAValue:
        """The smaller index."""
        return self._arithmetic(arith.MinSIOp, left, right)

    def max(self, left: SSAValue, right: SSAValue | int) -> SSAValue:
        """The larger index."""
        return self._arithmetic(arith.MaxSIOp, left, right)

    def _arithmetic(
        self, operation: type[Operation], left: SSAValue, right: SSAValue | int
    ) -> SSAValue:
        if isinstance(right, int):
            if right == 0 and operation in (arith.AddiOp, arith.SubiOp):
                return left
            if right == 1 and operation in (arith.MuliOp, arith.DivUIOp):
                return left
            right = self.number(right)
        return self.make(operation, (left, right), INDEX)

    @contextmanager
    def scope(self, block: Block | None = None) -> Generator[None]:
        """Values that are emitted within are known within only."""
        outer = self.builder
        self.scopes.append({})
        if block is not None:
            self.builder = Builder(InsertPoint.at_end(block))
        yield
        self.builder = outer
        self.scopes.pop()

    def loop(
        self,
        lower: SSAValue,
        upper: SSAValue,
        step: int,
        initial: Sequence[SSAValue],
        body: Callable[[SSAValue, list[SSAValue]], Sequence[SSAValue]],
        is_rolled: bool = False,
    ) -> list[SSAValue]:
        """A loop that carries values; if it `is_rolled` LLVM does not unroll it."""
        block = Block(arg_types=[INDEX, *(value.type for value in initial)])
        with self.scope(block):
            index, *carried = block.args
            self.builder.insert(scf.YieldOp(*body(index, list(carried))))
        loop = scf.ForOp(lower, upper, self.number(step), list(initial), Region(block))
        if is_rolled:
            loop.attributes[ROLLED] = UnitAttr()
        self.builder.insert(loop)
        return list(loop.results)

    def find(self, key: Hashable) -> Any:
        """What is known under a key, None if nothing."""
        for scope in reversed(self.scopes):
            if key in scope:
                return scope[key]
        return None

    def once(self, key: Hashable, emit: Callable[[], SSAValue]) -> SSAValue:
        """What is known under a key; emitted if nothing is."""
        if (known := self.find(key)) is None:
            known = self.scopes[-1][key] = emit()
        return known
