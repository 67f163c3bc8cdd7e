"""Operations on shapes and addresses: product, gamma and its inverse."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import IndexType, StringAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.irdl.declarative_assembly_format import (
    AttributeVariable,
    CustomDirective,
    ParsingState,
    PrintingState,
    irdl_custom_directive,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from moa_dialect.algebra.layout import Order
from moa_dialect.algebra.shape import (
    AxisOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    axes_of,
    times,
)
from moa_dialect.ops.base import ArrayOperation, UnaryOperation, constant_array, rank
from moa_dialect.ops.function import ElementTypeException
from moa_dialect.ops.structural import expect_integers
from moa_dialect.types import element_of, element_type_of, shape_of


@irdl_op_definition
class ProductOp(UnaryOperation):
    """The product of a vector, `π v`, a scalar; `π <> = 1`.

    It is the right fold `v0 × (v1 × (...))`. `τA = π(ρA)`.

    ```mlir
    %p = moa.product %v : tensor<3xindex> -> tensor<index>
    ```
    """

    name = "moa.product"

    def verify_ranks(self) -> None:
        if rank(self.array) != 1:
            raise VerifyException(f"product expects a vector, got {self.array.type}")
        if element_of(self.array.type) == element_type_of("i1"):
            raise ElementTypeException(
                f"product expects numbers, got {self.array.type}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return ()


@irdl_custom_directive
class LayoutOrder(CustomDirective):
    """`row` or `column`."""

    order: AttributeVariable

    def parse(self, parser: Parser, state: ParsingState) -> None:
        order = parser.parse_identifier(": order")
        self.order.set(state, StringAttr(order))

    def print(self, printer: Printer, state: PrintingState, op: IRDLOperation) -> None:
        state.print_whitespace(printer)
        order = self.order.get(op)
        assert isinstance(order, StringAttr)
        printer.print_string(order.data)


class AddressOperation(ArrayOperation):
    """A layout's function between the indices of a shape and addresses."""

    order = prop_def(StringAttr)
    custom_directives = (LayoutOrder,)

    @property
    def operator(self) -> str:
        """The operation's name in messages."""
        return self.name.removeprefix("moa.")

    @property
    def layout(self) -> Order:
        """Which address an index has: row- or column-major."""
        return Order(self.order.data)

    @property
    def length(self) -> int:
        """The number of axes of the shape."""
        return shape_of(self.operands[1].type)[0]

    def verify_ranks(self) -> None:
        if self.order.data not in list(Order):
            raise VerifyException(
                f"unknown order: expected row or column, got {self.order.data}"
            )
        for operand in self.operands:
            expect_integers(self.operator, operand)
        shape = self.operands[1]
        if rank(shape) != 1 or self.length < 0:
            raise VerifyException(
                f"{self.operator} expects a vector of static length as the shape, "
                f"got {shape.type}"
            )

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class GammaOp(AddressOperation):
    """The address of an index in a shape: `γ(i; s)`, by rows or by columns.

    By rows `x0 = i0; xk = x(k-1) × s_k + i_k`; by columns that of the reversed index in
    the reversed shape; `γ(<>; <>) = 0`. With an array of indices I, one in each row of
    its last axis, the addresses of all of them: shape `-1 ▽ ρI`. Every index must
    satisfy `0 <= i < s`.

    ```mlir
    %k = moa.gamma row %i, %s : tensor<2xindex>, tensor<2xindex> -> tensor<index>
    ```
    """

    name = "moa.gamma"
    index = operand_def(TensorType.constr())
    shape = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "custom<LayoutOrder>($order) $index `,` $shape attr-dict `:` "
        "type($index) `,` type($shape) `->` type($result)"
    )

    def __init__(self, index: SSAValue, shape: SSAValue, order: str = Order.ROW):
        super().__init__(
            operands=[index, shape],
            result_types=[index.type],
            properties={"order": StringAttr(order)},
        )
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        super().verify_ranks()
        if rank(self.index) == 0:
            raise VerifyException(
                f"gamma expects a vector (or array of vectors) as its index, "
                f"got the scalar {self.index.type}"
            )
        entries = shape_of(self.index.type)[-1]
        if entries != self.length:
            got = "any number" if entries < 0 else entries
            raise VerifyException(
                f"gamma needs as many index entries as there are extents: "
                f"expected {self.length}, got {got}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.index) - 1))

    def requirements(self) -> tuple[Requirement, ...]:
        entries = constant_array(self.index)
        found: list[Requirement] = []
        for axis in range(self.length):
            if rank(self.index) == 1:
                lowest = highest = ElementOf(0, axis)
            elif entries is None or entries.size == 0:
                continue  # Each index is checked where it is used.
            else:
                column = entries.reshape(-1, self.length)[:, axis]
                lowest, highest = Fixed(int(np.min(column))), Fixed(int(np.max(column)))
            message = f"gamma: index entry {axis} out of range of axis {axis}"
            found.append(Requirement("ge", lowest, Fixed(0), message))
            found.append(Requirement("lt", highest, ElementOf(1, axis), message))
        return tuple(found)


@irdl_op_definition
class GammaInverseOp(AddressOperation):
    """The index at an address of a shape: `γ'(k; s)`, by rows or by columns.

    `γ(γ'(k; s); s) = k` and `γ'(γ(i; s); s) = i`. With an array of addresses K, the
    indices at all of them: shape `ρK ++ <τs>`. Every address must satisfy
    `0 <= k < πs`.

    ```mlir
    %i = moa.gamma_inverse row %k, %s
      : tensor<index>, tensor<2xindex> -> tensor<2xindex>
    ```
    """

    name = "moa.gamma_inverse"
    address = operand_def(TensorType.constr())
    shape = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "custom<LayoutOrder>($order) $address `,` $shape attr-dict `:` "
        "type($address) `,` type($shape) `->` type($result)"
    )

    def __init__(self, address: SSAValue, shape: SSAValue, order: str = Order.ROW):
        super().__init__(
            operands=[address, shape],
            result_types=[shape.type],
            properties={"order": StringAttr(order)},
        )
        self.set_inferred_type()

    def result_extents(self) -> tuple[Extent, ...]:
        return (*axes_of(0, range(rank(self.address))), AxisOf(1, 0))

    def requirements(self) -> tuple[Requirement, ...]:
        extents = [ElementOf(1, axis) for axis in range(self.length)]
        message = "gamma_inverse: an extent must not be negative"
        found = [Requirement("ge", extent, Fixed(0), message) for extent in extents]
        addresses = constant_array(self.address)
        if rank(self.address) == 0:
            lowest = highest = ElementOf(0, 0)
        elif addresses is None or addresses.size == 0:
            return tuple(found)  # Each address is checked where it is used.
        else:
            lowest = Fixed(int(np.min(addresses)))
            highest = Fixed(int(np.max(addresses)))
        message = "gamma_inverse: the address is out of range"
        found.append(Requirement("ge", lowest, Fixed(0), message))
        found.append(Requirement("lt", highest, times(extents), message))
        return tuple(found)
