"""Structural operations: constants, shapes, indexing, transposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IndexType,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    ParamAttrConstraint,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import ConstantLike, Pure
from xdsl.utils.exceptions import VerifyException

from moa_dialect.algebra.shape import (
    AxisOf,
    ElementCountOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    axes_of,
    transpose_source_axes,
)
from moa_dialect.ops.base import (
    ArrayOperation,
    UnaryOperation,
    constant_array,
    rank,
)
from moa_dialect.ops.function import ElementTypeException
from moa_dialect.types import element_of, is_element_type, kind_of, shape_of


@irdl_op_definition
class ConstantOp(ArrayOperation):
    """An array given by its elements; a scalar is a tensor of rank 0.

    ```mlir
    %pi = moa.constant dense<3.14> : tensor<f64>
    ```
    """

    name = "moa.constant"
    T: ClassVar = VarConstraint("T", TensorType.constr())
    value = prop_def(ParamAttrConstraint(DenseIntOrFPElementsAttr, (T, AnyAttr())))
    result = result_def(T)
    traits = traits_def(Pure(), ConstantLike())
    assembly_format = "attr-dict $value"

    def __init__(self, value: DenseIntOrFPElementsAttr):
        super().__init__(result_types=[value.type], properties={"value": value})

    def result_extents(self) -> tuple[Extent, ...]:
        return tuple(map(Fixed, self.value.get_shape()))

    def result_element(self) -> Attribute:
        return self.value.get_element_type()


@irdl_op_definition
class IotaOp(ArrayOperation):
    """The array of all full indices of a shape.

    For a scalar n: shape `<n>`, `<k> ψ ιn = k`. For a vector v: shape `v ++ <τv>`,
    `i ψ ιv = i`. The elements of the operand must not be negative.

    ```mlir
    %k = moa.iota %n : tensor<index> -> tensor<?xindex>
    ```
    """

    name = "moa.iota"
    extents = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = "$extents attr-dict `:` type($extents) `->` type($result)"

    def __init__(self, extents: SSAValue):
        super().__init__(operands=[extents], result_types=[extents.type])
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        if rank(self.extents) > 1 or DYNAMIC_INDEX in shape_of(self.extents.type):
            raise VerifyException(
                f"iota expects a scalar or a vector of static length, "
                f"got {self.extents.type}"
            )
        expect_integers("iota", self.extents)

    def result_extents(self) -> tuple[Extent, ...]:
        if rank(self.extents) == 0:
            return (ElementOf(0, 0),)
        (length,) = shape_of(self.extents.type)
        return (*(ElementOf(0, k) for k in range(length)), Fixed(length))

    def requirements(self) -> tuple[Requirement, ...]:
        return tuple(
            Requirement("ge", extent, Fixed(0), "iota: an extent must not be negative")
            for extent in self.result_extents()
            if isinstance(extent, ElementOf)
        )

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class ShapeOp(UnaryOperation):
    """The shape of an array: `<k> ψ ρA` is the extent of axis k.

    ```mlir
    %s = moa.shape %a : tensor<3x?xf64> -> tensor<2xindex>
    ```
    """

    name = "moa.shape"

    def result_extents(self) -> tuple[Extent, ...]:
        return (Fixed(rank(self.array)),)

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class DimOp(UnaryOperation):
    """The number of axes of an array, `δA`, a scalar.

    ```mlir
    %r = moa.dim %a : tensor<3x?xf64> -> tensor<index>
    ```
    """

    name = "moa.dim"

    def result_extents(self) -> tuple[Extent, ...]:
        return ()

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class TotalOp(UnaryOperation):
    """The number of elements of an array, `τA = π(ρA)`, a scalar; 1 for a scalar.

    ```mlir
    %t = moa.total %a : tensor<3x?xf64> -> tensor<index>
    ```
    """

    name = "moa.total"

    def result_extents(self) -> tuple[Extent, ...]:
        return ()

    def result_element(self) -> Attribute:
        return IndexType()


@irdl_op_definition
class PsiOp(ArrayOperation):
    """Indexing: `j ψ (i ψ A) = (i ++ j) ψ A` for a vector i no longer than the rank.

    With an index array P of higher rank, each row along P's last axis is an index:
    shape `(-1 ▽ ρP) ++ ((-1 △ ρP) ▽ ρA)`. Every index must satisfy `0 <= i < extent`;
    negative indices are an error, not counted from the end.

    ```mlir
    %row = moa.psi %i, %a : tensor<1xindex>, tensor<3x4xf64> -> tensor<4xf64>
    ```
    """

    name = "moa.psi"
    index = operand_def(TensorType.constr())
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$index `,` $array attr-dict `:` "
        "type($index) `,` type($array) `->` type($result)"
    )

    def __init__(self, index: SSAValue, array: SSAValue):
        super().__init__(operands=[index, array], result_types=[array.type])
        self.set_inferred_type()

    @property
    def index_length(self) -> int:
        """The number of leading axes of the array that one index selects from."""
        return shape_of(self.index.type)[-1]

    def verify_ranks(self) -> None:
        expect_integers("psi", self.index)
        if rank(self.index) == 0:
            raise VerifyException(
                f"psi expects a vector (or array of vectors) as its index, "
                f"got the scalar {self.index.type}"
            )
        if self.index_length < 0:
            raise VerifyException(
                f"psi needs an index of static length, got {self.index.type}"
            )
        if self.index_length > rank(self.array):
            raise VerifyException(
                f"psi: the index is longer than the rank: expected at most "
                f"{rank(self.array)} entries, got {self.index_length}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.index) - 1)) + axes_of(
            1, range(self.index_length, rank(self.array))
        )

    def requirements(self) -> tuple[Requirement, ...]:
        entries = constant_array(self.index)
        found: list[Requirement] = []
        for axis in range(self.index_length):
            message = f"psi: index entry {axis} out of range of axis {axis}"
            if entries is None:
                some = f"psi: an index into axis {axis} needs a non-empty axis"
                found.append(
                    Requirement("ge", AxisOf(1, axis), ElementCountOf(0), some)
                )
            elif entries.size:
                column = entries.reshape(-1, self.index_length)[:, axis]
                lowest, highest = int(np.min(column)), int(np.max(column))
                found.append(Requirement("ge", Fixed(lowest), Fixed(0), message))
                found.append(
                    Requirement("lt", Fixed(highest), AxisOf(1, axis), message)
                )
        return tuple(found)

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class TransposeOp(ArrayOperation):
    """Transposition: `i ψ (t ⊘ A) = i[t] ψ A`, source axis k is result axis `t[k]`.

    Without a permutation all axes are reversed. `t` is the inverse of the axes
    argument of `numpy.transpose`.

    ```mlir
    %b = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
    %c = moa.transpose %a [1, 2, 0] : tensor<3x4x5xf64> -> tensor<5x3x4xf64>
    ```
    """

    name = "moa.transpose"
    array = operand_def(TensorType.constr())
    permutation = opt_prop_def(DenseArrayBase.constr(i64))
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$array ($permutation^)? attr-dict `:` type($array) `->` type($result)"
    )

    def __init__(self, array: SSAValue, permutation: Sequence[int] | None = None):
        attribute = (
            None if permutation is None else DenseArrayBase.from_list(i64, permutation)
        )
        super().__init__(
            operands=[array],
            result_types=[array.type],
            properties={"permutation": attribute},
        )
        self.set_inferred_type()

    @property
    def axes(self) -> tuple[int, ...]:
        """The permutation t; the reversal if none is given."""
        if self.permutation is None:
            return tuple(reversed(range(rank(self.array))))
        return tuple(self.permutation.get_values())

    def verify_ranks(self) -> None:
        if sorted(self.axes) != list(range(rank(self.array))):
            raise VerifyException(
                f"transpose expects a permutation of the axes "
                f"0 to {rank(self.array) - 1}, got {list(self.axes)}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, transpose_source_axes(self.axes))

    def result_element(self) -> Attribute:
        return element_of(self.array.type)


@irdl_op_definition
class CellOp(ArrayOperation):
    """Psi with a partial index of scalars: `<i j> ψ A`, an array of the other axes.

    It stands for a cell of omega while a cell function is being reduced.

    ```mlir
    %c = moa.cell %a[%i] : tensor<3x4xf64> -> tensor<4xf64>
    ```
    """

    name = "moa.cell"
    array = operand_def(TensorType.constr())
    indices = var_operand_def(IndexType())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$array `[` $indices `]` attr-dict `:` type($array) `->` type($result)"
    )

    def __init__(self, array: SSAValue, indices: Sequence[SSAValue]):
        super().__init__(operands=[array, indices], result_types=[array.type])
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        if len(self.indices) > rank(self.array):
            raise VerifyException(
                f"cell: the index is longer than the rank: expected at most "
                f"{rank(self.array)} entries, got {len(self.indices)}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(len(self.indices), rank(self.array)))

    def result_element(self) -> Attribute:
        return element_of(self.array.type)

    def array_operands(self) -> Sequence[SSAValue]:
        return (self.array,)


def expect_integers(operator: str, value: SSAValue) -> None:
    """Check that an operand holds integers.

    Raises:
        ElementTypeException: if it does not.
    """
    element = element_of(value.type)
    if not is_element_type(element) or kind_of(element) != "int":
        raise ElementTypeException(f"{operator} expects integers, got {value.type}")
