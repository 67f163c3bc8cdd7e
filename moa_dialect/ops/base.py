"""What every operation of the algebra level has in common.

An operation states its shape rule (`result_extents`), its preconditions
(`requirements`) and its element type rule (`result_element`) as values. The verifier
here, shape inference and the interpreter all read those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseIntOrFPElementsAttr,
    TensorType,
)
from xdsl.ir import Attribute, OpResult, SSAValue
from xdsl.irdl import IRDLOperation, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import (
    RELATIONS,
    AbsoluteOf,
    Atom,
    AxisOf,
    ElementCountOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    TrueCountOf,
    evaluate,
    failure_message,
)
from moa_dialect.types import array_of, element_of, is_element_type, shape_of


def rank(value: SSAValue) -> int:
    """The number of axes of an array value."""
    return len(shape_of(value.type))


def static_extent(operands: Sequence[SSAValue], extent: Extent) -> int | None:
    """The number an extent stands for, as far as types and constants tell."""
    return evaluate(extent, lambda atom: _static_atom(operands, atom))


def _static_atom(operands: Sequence[SSAValue], atom: Atom) -> int | None:
    match atom:
        case Fixed(value):
            return value
        case AxisOf(operand, axis):
            number = shape_of(operands[operand].type)[axis]
            return None if number == DYNAMIC_INDEX else number
        case ElementCountOf(operand):
            shape = shape_of(operands[operand].type)
            if 0 in shape:
                return 0
            return None if DYNAMIC_INDEX in shape else 1
        case ElementOf(operand, position):
            array = constant_array(operands[operand])
            return None if array is None else int(array.flat[position])
        case AbsoluteOf(operand, position):
            array = constant_array(operands[operand])
            return None if array is None else abs(int(array.flat[position]))
        case TrueCountOf(operand):
            array = constant_array(operands[operand])
            return None if array is None else int(np.count_nonzero(array))


def constant_array(value: SSAValue) -> np.ndarray | None:
    """The elements of a `moa.constant`, None for any other value."""
    if isinstance(value, OpResult) and value.op.name == "moa.constant":
        attribute = value.op.properties["value"]
        assert isa(attribute, DenseIntOrFPElementsAttr)
        return array_of(attribute)
    return None


def as_tensor(extents: Sequence[int | None], element: Attribute) -> TensorType:
    """A tensor type, dynamic where an extent is None."""
    return TensorType(element, [DYNAMIC_INDEX if e is None else e for e in extents])


class ArrayOperation(IRDLOperation, ABC):
    """An operation from arrays to one array, region-free and pure."""

    @property
    def array_result(self) -> OpResult:
        """The one result."""
        return self.results[0]

    @abstractmethod
    def result_extents(self) -> tuple[Extent, ...]:
        """The shape of the result in terms of the operands."""

    def requirements(self) -> tuple[Requirement, ...]:
        """The preconditions on extents and index constants."""
        return ()

    @abstractmethod
    def result_element(self) -> Attribute:
        """The element type of the result."""

    def array_operands(self) -> Sequence[SSAValue]:
        """The operands that are arrays: all, unless scalar indices are among them."""
        return self.operands

    def verify_ranks(self) -> None:
        """Check operand ranks and attributes; the shape rule may rely on them.

        Raises:
            VerifyException: with expected and given ranks.
        """

    def inferred_type(self, element: Attribute | None = None) -> TensorType:
        """The most static result type that the operand types give.

        The element type is inferred too, unless one is given: that of a function named
        by a symbol is known only inside a module.
        """
        return as_tensor(
            [static_extent(self.operands, e) for e in self.result_extents()],
            self.result_element() if element is None else element,
        )

    def set_inferred_type(self, element: Attribute | None = None) -> None:
        """Give the result its inferred type: the last step of a constructor.

        Raises:
            VerifyException: if ranks or element types do not fit.
        """
        self.verify_ranks()
        self.array_result._type = self.inferred_type(element)  # pyright: ignore[reportPrivateUsage]

    def verify_(self) -> None:
        from moa_dialect.ops.extents import described

        for value in (*self.array_operands(), *self.results):
            if not is_element_type(element := element_of(value.type)):
                raise VerifyException(f"unsupported element type: {element}")
        self.verify_ranks()
        for requirement in self.requirements():
            given = static_extent(self.operands, requirement.given)
            expected = static_extent(self.operands, requirement.expected)
            if given is None or expected is None:
                continue
            if not RELATIONS[requirement.relation](given, expected):
                raise VerifyException(
                    failure_message(
                        requirement.relation,
                        described(requirement, self.operands),
                        given,
                        expected,
                    )
                )
        inferred = self.inferred_type()
        if not are_compatible(inferred, self.array_result.type):
            raise VerifyException(
                f"result type does not follow from the operands: expected {inferred}, "
                f"got {self.array_result.type}"
            )


class UnaryOperation(ArrayOperation):
    """An operation on one array: the operand, the result and their syntax."""

    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = "$array attr-dict `:` type($array) `->` type($result)"

    def __init__(self, array: SSAValue):
        super().__init__(operands=[array], result_types=[array.type])
        self.set_inferred_type()

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


def are_compatible(left: Attribute, right: Attribute) -> bool:
    """Whether two array types may describe one array: equal up to dynamic extents."""
    a, b = shape_of(left), shape_of(right)
    return (
        len(a) == len(b)
        and element_of(left) == element_of(right)
        and all(x == y or DYNAMIC_INDEX in (x, y) for x, y in zip(a, b, strict=True))
    )
