"""What a rule of raising is, and what it may ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    FloatAttr,
    IndexType,
    IntegerAttr,
    TensorType,
    UnregisteredOp,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import Fixed, Relation
from moa_dialect.ops.extents import (
    Root,
    RootAtom,
    RootCache,
    ValueAxis,
    extent_root,
)
from moa_dialect.ops.normal_form import (
    AtOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    RequireOp,
    YieldOp,
)
from moa_dialect.passes.raising.sizes import Sizes
from moa_dialect.passes.raising.source import name_of
from moa_dialect.scalar_code import constant
from moa_dialect.types import element_of, is_element_type, shape_of

_NAMES = "ijklmn"


class CannotRaise(Exception):
    """Why an operation stays as it is: one line, lower case."""


Number = FloatAttr | IntegerAttr
"""A scalar constant."""


@dataclass
class Raising:
    """The raising of one function: new code goes in front of the operation at hand."""

    function: FuncOp
    builder: Builder = field(init=False)
    sizes: Sizes = field(init=False)
    """What the numbers at the top are in terms of extents."""
    splats: dict[SSAValue, Number] = field(default_factory=dict[SSAValue, Number])
    """Arrays of which all elements are one number that the program gives."""
    lists: dict[SSAValue, list[SSAValue]] = field(
        default_factory=dict[SSAValue, list[SSAValue]]
    )
    """Vectors made of scalars: shapes, for one."""
    _roots: RootCache = field(default_factory=RootCache)
    _extents: dict[tuple[SSAValue, int], SSAValue] = field(
        default_factory=dict[tuple[SSAValue, int], SSAValue]
    )
    _sizes: dict[Root, SSAValue] = field(default_factory=dict[Root, SSAValue])
    _required: list[RequireOp] = field(default_factory=list[RequireOp])
    _fixed: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])

    def __post_init__(self) -> None:
        self.sizes = Sizes(self._roots)

    def at(self, op: Operation) -> None:
        """Let new code go in front of an operation."""
        self.builder = Builder(InsertPoint.before(op))

    def index(self, value: int) -> SSAValue:
        """A number as an index, at the top."""
        return self.builder.insert(constant(value, IndexType())).result

    def fixed(self, value: int) -> SSAValue:
        """An extent that is a number of the program."""
        known = self._fixed.get(value)
        if known is None:
            known = self.builder.insert(FixedExtentOp(value)).result
            self._fixed[value] = known
        return known

    def extent(self, value: SSAValue, axis: int) -> SSAValue:
        """The extent of an axis of an array.

        Raises:
            CannotRaise: if it is computed from more than extents.
        """
        known = self._extents.get((value, axis))
        if known is None:
            known = self._extent(value, axis)
            self._extents[value, axis] = known
        return known

    def _extent(self, value: SSAValue, axis: int) -> SSAValue:
        owner = value.owner
        if isinstance(owner, Operation) and is_unwritten(value):
            # There is nothing to take the extent of: it is what it was made with.
            shape = shape_of(value.type)
            if shape[axis] != DYNAMIC_INDEX:
                return self.fixed(shape[axis])
            place = sum(1 for extent in shape[:axis] if extent == DYNAMIC_INDEX)
            return self.known(owner.operands[place])
        return self.builder.insert(ExtentOp(value, axis)).result

    def known(self, value: SSAValue) -> SSAValue:
        """An index at the top that is an extent, or computed from extents.

        Raises:
            CannotRaise: if it is anything else.
        """
        root = self.sizes.root(value)
        found = None if root is None else self.computed(root)
        if found is None:
            raise CannotRaise("an extent depends on data")
        return found

    def computed(self, root: Root) -> SSAValue | None:
        """An extent in terms of others, as an index at the top.

        None if it depends on more than the extents of arrays.
        """
        if root not in self._sizes:
            found = self._computed(root)
            if found is None:
                return None
            self._sizes[root] = found
        return self._sizes[root]

    def _computed(self, root: Root) -> SSAValue | None:
        match root:
            case Fixed(value):
                return self.fixed(value) if value >= 0 else None
            case ValueAxis(value, axis):
                return self.extent(value, axis)
            case Polynomial():
                return self._sum(root)
            case _:
                return None

    def _sum(self, polynomial: Polynomial[RootAtom]) -> SSAValue | None:
        """A sum of products, those that are subtracted last."""
        total: SSAValue | None = None
        for atoms, factor in sorted(polynomial.terms, key=lambda term: term[1] < 0):
            product: SSAValue | None = None
            if abs(factor) != 1 or not atoms:
                product = self.fixed(abs(factor))
            for atom in atoms:
                value = self.computed(atom)
                if value is None:
                    return None
                product = self._emit(arith.MuliOp, product, value)
            assert product is not None
            if factor < 0 and total is None:
                total = self.index(0)
            operation = arith.SubiOp if factor < 0 else arith.AddiOp
            total = self._emit(operation, total, product)
        return total

    def _emit(
        self,
        operation: Callable[[SSAValue, SSAValue], Operation],
        left: SSAValue | None,
        right: SSAValue,
    ) -> SSAValue:
        """An operation on indices at the top; the right one if there is no left one."""
        if left is None:
            return right
        return self.builder.insert(operation(left, right)).results[0]

    def is_same(self, left: SSAValue, right: SSAValue) -> bool:
        """Whether two extents come from the same."""
        roots = self.sizes.root(left), self.sizes.root(right)
        return roots[0] is not None and roots[0] == roots[1]

    def root(self, value: SSAValue, axis: int) -> Root:
        """Where the extent of an axis comes from."""
        if is_unwritten(value):
            found = self.sizes.root(self.extent(value, axis))
            assert found is not None
            return found
        return extent_root(value, axis, self._roots)

    def require(
        self, relation: Relation, given: SSAValue, expected: SSAValue, message: str
    ) -> None:
        """State a relation between extents, unless they are the same one."""
        roots = self.sizes.root(given), self.sizes.root(expected)
        if roots[0] == roots[1] and relation != "lt":
            return
        self._required.append(RequireOp(relation, given, expected, message))

    def state(self) -> None:
        """Put down what the operation that has just been raised requires."""
        for op in self._required:
            self.builder.insert(op)
        self._required.clear()

    def forget(self) -> None:
        """Let go of what was written for an operation that cannot be raised."""
        self._required.clear()
        for op in self.function.walk():
            for value in op.results:
                _release(value, self.function)
        for block in self.function.body.blocks:
            for value in block.args:
                _release(value, self.function)

    def number(self, value: SSAValue) -> Number | None:
        """The number that a scalar is, if the program gives it."""
        owner = value.owner
        if isinstance(owner, arith.ConstantOp) and isinstance(
            owner.value, FloatAttr | IntegerAttr
        ):
            return owner.value
        return None

    def unwritten(self, extents: Sequence[SSAValue], type_: Attribute) -> SSAValue:
        """An array that nothing has been written to, of these extents."""
        sizes = [
            extent
            for extent, stated in zip(extents, shape_of(type_), strict=True)
            if stated == DYNAMIC_INDEX
        ]
        empty = UnregisteredOp.with_name("tensor.empty")
        made = empty.create(operands=sizes, result_types=[type_])
        return self.builder.insert(made).results[0]

    def moved(
        self,
        source: SSAValue,
        extents: Sequence[SSAValue],
        type_: Attribute,
        emit: Callable[[Builder, Sequence[SSAValue]], SSAValue],
    ) -> SSAValue:
        """An array of elements of a source, of which `emit` writes one.

        If nothing has been written to the source, nothing has to the array.
        """
        if is_unwritten(source):
            return self.unwritten(extents, type_)
        result = self.comprehension(extents, type_, emit)
        if source in self.splats:
            self.splats[result] = self.splats[source]
        return result

    def comprehension(
        self,
        extents: Sequence[SSAValue],
        type_: Attribute,
        emit: Callable[[Builder, Sequence[SSAValue]], SSAValue],
    ) -> SSAValue:
        """An array of which `emit` writes the element for an index."""
        assert isa(type_, TensorType)
        check_element(element_of(type_))
        body = Block(arg_types=[IndexType()] * len(extents))
        for arg, name in zip(body.args, _NAMES, strict=False):
            arg.name_hint = name
        builder = Builder(InsertPoint.at_end(body))
        builder.insert(YieldOp(emit(builder, body.args)))
        op = ComprehensionOp(extents, Region(body), [type_])
        return self.builder.insert(op).arrays[0]


def is_unwritten(value: SSAValue) -> bool:
    """Whether an array is one that nothing has been written to."""
    owner = value.owner
    return isinstance(owner, Operation) and name_of(owner) == "tensor.empty"


def _release(value: SSAValue, function: FuncOp) -> None:
    """Remove the uses of a value in code that belongs to no function."""
    for use in list(value.uses):
        if not function.is_ancestor(use.operation):
            use.operation.drop_all_references()


def at(builder: Builder, array: SSAValue, indices: Sequence[SSAValue]) -> SSAValue:
    """An element of an array, written here."""
    check_element(element_of(array.type))
    return builder.insert(AtOp(array, indices)).result


def check_element(type_: Attribute) -> None:
    """Check that arrays here may have elements of this type.

    Raises:
        CannotRaise: if they may not.
    """
    if not is_element_type(type_):
        raise CannotRaise(f"elements of type {type_}")


def check_tensors(op: Operation) -> None:
    """Check that an operation is on tensors of known rank.

    Raises:
        CannotRaise: if it is on memory, say.
    """
    for value in (*op.operands, *op.results):
        type_ = value.type
        if isa(type_, TensorType):
            if not isinstance(type_.encoding, type(TensorType(type_, []).encoding)):
                raise CannotRaise(f"a tensor with an encoding, {type_}")
            check_element(type_.get_element_type())
        elif not is_element_type(type_):
            raise CannotRaise(f"a value of type {type_}")


class Rule(ABC):
    """How operations of one kind are raised."""

    names: ClassVar[tuple[str, ...]]
    """The operations' names."""

    @abstractmethod
    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        """What takes the place of each result; None of one that nobody uses.

        Raises:
            CannotRaise: with the reason.
        """
