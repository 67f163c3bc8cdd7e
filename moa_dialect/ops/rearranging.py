"""Operations that select and rearrange: take, drop, cat, reverse, rotate, reshape."""

from __future__ import annotations

from xdsl.dialects.builtin import IndexType, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from moa_dialect.algebra.shape import (
    AbsoluteOf,
    AxisOf,
    ElementCountOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    TrueCountOf,
    axes_of,
    minus,
    plus,
    times,
)
from moa_dialect.ops.base import ArrayOperation, UnaryOperation, rank
from moa_dialect.ops.function import ElementTypeException
from moa_dialect.ops.structural import expect_integers
from moa_dialect.types import element_of, element_type_of, shape_of


class CountedOperation(ArrayOperation):
    """An operation on the leading axes of an array, as many as it has counts."""

    counts = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$counts `,` $array attr-dict `:` "
        "type($counts) `,` type($array) `->` type($result)"
    )

    def __init__(self, counts: SSAValue, array: SSAValue):
        super().__init__(operands=[counts, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def length(self) -> int:
        """The number of leading axes it acts on; a scalar count is one."""
        return shape_of(self.counts.type)[0] if rank(self.counts) else 1

    @property
    def operator(self) -> str:
        """The operation's name in messages."""
        return self.name.removeprefix("moa.")

    def verify_ranks(self) -> None:
        expect_integers(self.operator, self.counts)
        if rank(self.counts) > 1 or self.length < 0:
            raise VerifyException(
                f"{self.operator} expects a scalar or a vector of static length, "
                f"got {self.counts.type}"
            )
        if self.length > rank(self.array):
            raise VerifyException(
                f"{self.operator}: more counts than axes: expected at most "
                f"{rank(self.array)}, got {self.length}"
            )

    def requirements(self) -> tuple[Requirement, ...]:
        return tuple(
            Requirement(
                "le",
                AbsoluteOf(0, axis),
                AxisOf(1, axis),
                f"{self.operator}: the count for axis {axis} must not exceed the "
                f"extent",
            )
            for axis in range(self.length)
        )

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class TakeOp(CountedOperation):
    """The first `v_j` of each leading axis, or the last `-v_j` if that is negative.

    Shape `|v| ++ (τv ▽ s)`. A scalar count acts on axis 0. It is an error to take more
    than there is (no padding).

    ```mlir
    %b = moa.take %v, %a : tensor<1xindex>, tensor<4x5xf64> -> tensor<?x5xf64>
    ```
    """

    name = "moa.take"

    def result_extents(self) -> tuple[Extent, ...]:
        return tuple(AbsoluteOf(0, axis) for axis in range(self.length)) + axes_of(
            1, range(self.length, rank(self.array))
        )


@irdl_op_definition
class DropOp(CountedOperation):
    """All but the first `v_j` of each leading axis, or but the last `-v_j`.

    Shape `s_j - |v_j|`, then the other axes. It is an error to drop more than there is.

    ```mlir
    %b = moa.drop %v, %a : tensor<1xindex>, tensor<4x5xf64> -> tensor<?x5xf64>
    ```
    """

    name = "moa.drop"

    def result_extents(self) -> tuple[Extent, ...]:
        return tuple(
            minus(AxisOf(1, axis), AbsoluteOf(0, axis)) for axis in range(self.length)
        ) + axes_of(1, range(self.length, rank(self.array)))


@irdl_op_definition
class CatOp(ArrayOperation):
    """Catenation along axis 0: `A ++ B`, shape `<a0 + b0> ++ (1 ▽ ρA)`.

    The other axes must agree. A scalar beside an array is one plane of that scalar; two
    scalars give a vector of two.

    ```mlir
    %c = moa.cat %a, %b : tensor<2x3xf64>, tensor<4x3xf64> -> tensor<6x3xf64>
    ```
    """

    name = "moa.cat"
    lhs = operand_def(TensorType.constr())
    rhs = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$lhs `,` $rhs attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)"
    )

    def __init__(self, lhs: SSAValue, rhs: SSAValue):
        super().__init__(operands=[lhs, rhs], result_types=[lhs.type])
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        ranks = rank(self.lhs), rank(self.rhs)
        if 0 not in ranks and ranks[0] != ranks[1]:
            raise VerifyException(
                f"cat expects arrays of equal rank or a scalar, "
                f"got {self.lhs.type} and {self.rhs.type}"
            )

    def planes(self, operand: int) -> Extent:
        """How many planes along axis 0 an operand contributes."""
        return AxisOf(operand, 0) if rank(self.operands[operand]) else Fixed(1)

    def result_extents(self) -> tuple[Extent, ...]:
        larger = 0 if rank(self.lhs) >= rank(self.rhs) else 1
        others = axes_of(larger, range(1, rank(self.operands[larger])))
        return (plus(self.planes(0), self.planes(1)), *others)

    def requirements(self) -> tuple[Requirement, ...]:
        return tuple(
            Requirement(
                "eq",
                AxisOf(1, axis),
                AxisOf(0, axis),
                f"cat: extents of axis {axis} must be equal",
            )
            for axis in range(1, min(rank(self.lhs), rank(self.rhs)))
        )

    def result_element(self) -> Attribute:
        left, right = element_of(self.lhs.type), element_of(self.rhs.type)
        if left != right:
            raise ElementTypeException(
                f"cat: operands must have one element type, got {left}, {right}"
            )
        return left


@irdl_op_definition
class ReverseOp(UnaryOperation):
    """Reversal of axis 0: `i ψ ΦA = (<s0 - 1 - i0> ++ (1 ▽ i)) ψ A`; a scalar stays.

    ```mlir
    %b = moa.reverse %a : tensor<4x5xf64> -> tensor<4x5xf64>
    ```
    """

    name = "moa.reverse"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.array)))


@irdl_op_definition
class RotateOp(ArrayOperation):
    """Rotation of axis 0: `i ψ (kθA) = (<(i0 + k) mod s0> ++ (1 ▽ i)) ψ A`.

    k is any integer; `kθA = (k ▽ A) ++ (k △ A)` for `0 <= k <= s0`.

    ```mlir
    %b = moa.rotate %k, %a : tensor<index>, tensor<4x5xf64> -> tensor<4x5xf64>
    ```
    """

    name = "moa.rotate"
    count = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$count `,` $array attr-dict `:` "
        "type($count) `,` type($array) `->` type($result)"
    )

    def __init__(self, count: SSAValue, array: SSAValue):
        super().__init__(operands=[count, array], result_types=[array.type])
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        expect_integers("rotate", self.count)
        if rank(self.count) != 0:
            raise VerifyException(f"rotate expects a scalar, got {self.count.type}")
        if rank(self.array) == 0:
            raise VerifyException(
                f"rotate expects an array of rank 1 or more, got {self.array.type}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(1, range(rank(self.array)))

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


class ShapedOperation(ArrayOperation):
    """The elements of an array, in row-major order, in a shape that is given."""

    shape = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$shape `,` $array attr-dict `:` "
        "type($shape) `,` type($array) `->` type($result)"
    )

    def __init__(self, shape: SSAValue, array: SSAValue):
        super().__init__(operands=[shape, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def operator(self) -> str:
        """The operation's name in messages."""
        return self.name.removeprefix("moa.")

    def verify_ranks(self) -> None:
        expect_integers(self.operator, self.shape)
        if rank(self.shape) != 1 or shape_of(self.shape.type)[0] < 0:
            raise VerifyException(
                f"{self.operator} expects a vector of static length as the shape, "
                f"got {self.shape.type}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        (length,) = shape_of(self.shape.type)
        return tuple(ElementOf(0, axis) for axis in range(length))

    def requirements(self) -> tuple[Requirement, ...]:
        message = f"{self.operator}: an extent must not be negative"
        return tuple(
            Requirement("ge", extent, Fixed(0), message)
            for extent in self.result_extents()
        )

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class ReshapeOp(ShapedOperation):
    """The same elements in another shape: `i ψ (t ρ̂ A) = γ'(γ(i; t); ρA) ψ A`.

    γ is row-major. The total must stay: `πt = τA`; nothing is recycled.

    ```mlir
    %b = moa.reshape %t, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<?x?xf64>
    ```
    """

    name = "moa.reshape"

    def requirements(self) -> tuple[Requirement, ...]:
        return (
            *super().requirements(),
            Requirement(
                "eq",
                times(self.result_extents()),
                times(axes_of(1, range(rank(self.array)))),
                "reshape: the number of elements must stay",
            ),
        )


@irdl_op_definition
class RecycleOp(ShapedOperation):
    """The elements, over and over, in a shape: `γ'(γ(i; t) mod τA; ρA) ψ A` at i.

    γ is row-major. It is the reshape of APL and of the early MoA: what is too much is
    left out, and what is missing begins anew. Of an array without elements there is
    only an array without elements: `πt = 0` unless `τA > 0`.

    ```mlir
    %b = moa.recycle %t, %a : tensor<2xindex>, tensor<4xf64> -> tensor<?x?xf64>
    ```
    """

    name = "moa.recycle"

    def requirements(self) -> tuple[Requirement, ...]:
        wanted = times(self.result_extents())
        there = times((ElementCountOf(1), wanted))
        message = "recycle: an array without elements has none to repeat"
        return (*super().requirements(), Requirement("ge", there, wanted, message))


@irdl_op_definition
class RavelOp(UnaryOperation):
    """The elements as a vector, in row-major order: `<k> ψ rav A = γ'(k; ρA) ψ A`.

    ```mlir
    %b = moa.ravel %a : tensor<4x6xf64> -> tensor<24xf64>
    ```
    """

    name = "moa.ravel"

    def result_extents(self) -> tuple[Extent, ...]:
        return (times(axes_of(0, range(rank(self.array)))),)


class MaskedOperation(ArrayOperation):
    """An operation on axis 0 of an array by a vector of truth values."""

    mask = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$mask `,` $array attr-dict `:` type($mask) `,` type($array) `->` type($result)"
    )

    def __init__(self, mask: SSAValue, array: SSAValue):
        super().__init__(operands=[mask, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def operator(self) -> str:
        """The operation's name in messages."""
        return self.name.removeprefix("moa.")

    def verify_ranks(self) -> None:
        if rank(self.mask) != 1 or rank(self.array) == 0:
            raise VerifyException(
                f"{self.operator} expects a vector and an array of rank 1 or more, "
                f"got {self.mask.type} and {self.array.type}"
            )
        if element_of(self.mask.type) != element_type_of("i1"):
            raise ElementTypeException(
                f"{self.operator} expects i1 as its mask, got {self.mask.type}"
            )

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class CompressOp(MaskedOperation):
    """The planes of axis 0 where the mask holds: `v ⌿ A`, shape `<Σv> ++ (1 ▽ s)`.

    ```mlir
    %b = moa.compress %v, %a : tensor<4xi1>, tensor<4x6xf64> -> tensor<?x6xf64>
    ```
    """

    name = "moa.compress"

    def result_extents(self) -> tuple[Extent, ...]:
        return (TrueCountOf(0), *axes_of(1, range(1, rank(self.array))))

    def requirements(self) -> tuple[Requirement, ...]:
        message = "compress: the mask must be as long as axis 0"
        return (Requirement("eq", AxisOf(0, 0), AxisOf(1, 0), message),)


@irdl_op_definition
class ExpandOp(MaskedOperation):
    """The planes of axis 0 put where the mask holds, zeros elsewhere: `v ⍀ A`.

    Shape `<τv> ++ (1 ▽ s)`; the mask holds as often as A has planes.

    ```mlir
    %b = moa.expand %v, %a : tensor<4xi1>, tensor<2x6xf64> -> tensor<4x6xf64>
    ```
    """

    name = "moa.expand"

    def result_extents(self) -> tuple[Extent, ...]:
        return (AxisOf(0, 0), *axes_of(1, range(1, rank(self.array))))

    def requirements(self) -> tuple[Requirement, ...]:
        message = "expand: the mask must hold as often as axis 0 is long"
        return (Requirement("eq", TrueCountOf(0), AxisOf(1, 0), message),)


class GradeOperation(UnaryOperation):
    """A permutation that sorts a vector, stably."""

    def verify_ranks(self) -> None:
        if rank(self.array) != 1:
            raise VerifyException(f"grade expects a vector, got {self.array.type}")
        if element_of(self.array.type) == element_type_of("i1"):
            raise ElementTypeException(f"grade expects numbers, got {self.array.type}")

    def result_extents(self) -> tuple[Extent, ...]:
        return (AxisOf(0, 0),)

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class GradeUpOp(GradeOperation):
    """The permutation that sorts a vector in ascending order, equal elements in place.

    `(gu v) ψ v` is sorted. NaN counts as larger than every number.

    ```mlir
    %p = moa.grade_up %v : tensor<4xf64> -> tensor<4xindex>
    ```
    """

    name = "moa.grade_up"


@irdl_op_definition
class GradeDownOp(GradeOperation):
    """The permutation that sorts a vector in descending order, equal elements in place.

    ```mlir
    %p = moa.grade_down %v : tensor<4xf64> -> tensor<4xindex>
    ```
    """

    name = "moa.grade_down"
