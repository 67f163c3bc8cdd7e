"""Operations on blocks of an array: circular padding, and replacing a block."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from moa_dialect.algebra.shape import (
    AxisOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    axes_of,
    minus,
    plus,
)
from moa_dialect.ops.base import ArrayOperation, rank
from moa_dialect.ops.function import ElementTypeException
from moa_dialect.ops.structural import expect_integers
from moa_dialect.types import element_of, shape_of


def counted_axes(counts: SSAValue) -> int:
    """The number of leading axes that counts are for; a scalar is for one."""
    return shape_of(counts.type)[0] if rank(counts) else 1


def _verify_counts(operator: str, counts: SSAValue, array: SSAValue) -> None:
    """Check counts for leading axes of an array.

    Raises:
        VerifyException: unless they are integers, a scalar or a vector of static
            length, and not more than there are axes.
    """
    expect_integers(operator, counts)
    if rank(counts) > 1 or counted_axes(counts) < 0:
        raise VerifyException(
            f"{operator} expects a scalar or a vector of static length, "
            f"got {counts.type}"
        )
    if counted_axes(counts) > rank(array):
        raise VerifyException(
            f"{operator}: more counts than axes: expected at most "
            f"{rank(array)}, got {counted_axes(counts)}"
        )


@irdl_op_definition
class PadOp(ArrayOperation):
    """Circular padding: the last l planes before each leading axis, the first r after it.

    Shape `s_j + l_j + r_j`, then the other axes;
    `i ψ pad(l, r, A) = (<(i_j - l_j) mod s_j> ++ (τl ▽ i)) ψ A`. Counts are not
    negative, and at most the extent: an axis of extent 0 is padded by nothing. A scalar
    count acts on axis 0. Dropping both sides is the inverse.

    ```mlir
    %b = moa.pad %l, %r, %a
      : tensor<1xindex>, tensor<1xindex>, tensor<4x5xf64> -> tensor<?x5xf64>
    ```
    """  # noqa: E501

    name = "moa.pad"
    left = operand_def(TensorType.constr())
    right = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$left `,` $right `,` $array attr-dict `:` "
        "type($left) `,` type($right) `,` type($array) `->` type($result)"
    )

    def __init__(self, left: SSAValue, right: SSAValue, array: SSAValue):
        super().__init__(operands=[left, right, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def length(self) -> int:
        """The number of leading axes it acts on."""
        return counted_axes(self.left)

    def verify_ranks(self) -> None:
        for counts in (self.left, self.right):
            _verify_counts("pad", counts, self.array)
        if self.length != counted_axes(self.right):
            raise VerifyException(
                f"pad expects as many counts on the right as on the left: "
                f"expected {self.length}, got {counted_axes(self.right)}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return tuple(
            plus(plus(AxisOf(2, axis), ElementOf(0, axis)), ElementOf(1, axis))
            for axis in range(self.length)
        ) + axes_of(2, range(self.length, rank(self.array)))

    def requirements(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        for axis in range(self.length):
            for operand, side in enumerate(("left", "right")):
                count = ElementOf(operand, axis)
                negative = f"pad: the {side} count for axis {axis} must not be negative"
                large = f"pad: the {side} count for axis {axis} must not exceed the "
                found.append(Requirement("ge", count, Fixed(0), negative))
                found.append(
                    Requirement("le", count, AxisOf(2, axis), f"{large}extent")
                )
        return tuple(found)

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class InsertOp(ArrayOperation):
    """An array with one block replaced: the block B of A that begins at o.

    Shape `ρA`; `i ψ insert(o, B, A)` is `(i - o) ψ B` where `o <= i < o + ρB` on every
    axis, else `i ψ A`. The offsets are for leading axes, a scalar for axis 0; on the
    axes after them B is as long as A. The block must lie within: `0 <= o <= ρA - ρB`.
    It is the assignment of B to a part of A, as a value.

    ```mlir
    %c = moa.insert %o, %b, %a
      : tensor<2xindex>, tensor<2x3xf64>, tensor<4x5xf64> -> tensor<4x5xf64>
    ```
    """

    name = "moa.insert"
    offsets = operand_def(TensorType.constr())
    block = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$offsets `,` $block `,` $array attr-dict `:` "
        "type($offsets) `,` type($block) `,` type($array) `->` type($result)"
    )

    def __init__(self, offsets: SSAValue, block: SSAValue, array: SSAValue):
        super().__init__(operands=[offsets, block, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def length(self) -> int:
        """The number of leading axes it has offsets for."""
        return counted_axes(self.offsets)

    def verify_ranks(self) -> None:
        _verify_counts("insert", self.offsets, self.array)
        if rank(self.block) != rank(self.array):
            raise VerifyException(
                f"insert expects a block of the array's rank, "
                f"got {self.block.type} for {self.array.type}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(2, range(rank(self.array)))

    def requirements(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        for axis in range(rank(self.array)):
            block, array = AxisOf(1, axis), AxisOf(2, axis)
            if axis >= self.length:
                message = f"insert: extents of axis {axis} must be equal"
                found.append(Requirement("eq", block, array, message))
                continue
            offset = ElementOf(0, axis)
            large = f"insert: the block must not be longer than axis {axis}"
            negative = f"insert: the offset for axis {axis} must not be negative"
            beyond = f"insert: the block must not reach beyond axis {axis}: offset"
            found.append(Requirement("le", block, array, large))
            found.append(Requirement("ge", offset, Fixed(0), negative))
            found.append(Requirement("le", offset, minus(array, block), beyond))
        return tuple(found)

    def result_element(self) -> Attribute:
        block, array = element_of(self.block.type), element_of(self.array.type)
        if block != array:
            raise ElementTypeException(
                f"insert: operands must have one element type, got {block}, {array}"
            )
        return array
