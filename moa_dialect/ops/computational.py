"""Operations that compute: pointwise functions, reductions, products and omega."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DenseArrayBase, SymbolRefAttr, TensorType, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import (
    AxisOf,
    Extent,
    Fixed,
    OmegaFrames,
    Requirement,
    axes_of,
    polynomial,
)
from moa_dialect.ops.base import (
    ArrayOperation,
    are_compatible,
    as_tensor,
    rank,
)
from moa_dialect.ops.extents import function_extents, function_requirements
from moa_dialect.ops.function import (
    FUNCTION,
    CellRanks,
    ElementTypeException,
    FunctionAttr,
    ScalarFunction,
    apply_type,
    as_function,
    has_identity,
    lookup_function,
    print_name,
    verify_combines,
)
from moa_dialect.types import element_of, element_type_of, shape_of


class FunctionOperation(ArrayOperation):
    """A scalar function and one array: the parts and their syntax.

    The element type may depend on a function of the module around the operation: the
    constructor takes it if the function is a symbol, and infers it otherwise.
    """

    function = prop_def(FUNCTION)
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    custom_directives = (ScalarFunction,)
    assembly_format = (
        "custom<ScalarFunction>($function) $array attr-dict `:` "
        "type($array) `->` type($result)"
    )

    def __init__(
        self,
        function: str | FunctionAttr,
        array: SSAValue,
        element: Attribute | None = None,
    ):
        super().__init__(
            operands=[array],
            result_types=[array.type],
            properties={"function": as_function(function)},
        )
        self.set_inferred_type(element)


class FoldingOperation(FunctionOperation):
    """A right fold along axis 0 of an array, of rank 1 or more."""

    def __init__(self, function: str | FunctionAttr, array: SSAValue):
        super().__init__(function, array, element_of(array.type))

    def verify_ranks(self) -> None:
        if rank(self.array) == 0:
            operator = self.name.removeprefix("moa.")
            raise VerifyException(
                f"{operator} expects an array of rank 1 or more, got {self.array.type}"
            )

    def result_element(self) -> Attribute:
        element = element_of(self.array.type)
        verify_combines(self, self.function, element)
        return element


class BinaryFunctionOperation(ArrayOperation):
    """A scalar function and two arrays: the parts and their syntax.

    For the element type see `FunctionOperation`.
    """

    function = prop_def(FUNCTION)
    lhs = operand_def(TensorType.constr())
    rhs = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    custom_directives = (ScalarFunction,)
    assembly_format = (
        "custom<ScalarFunction>($function) $lhs `,` $rhs attr-dict `:` "
        "type($lhs) `,` type($rhs) `->` type($result)"
    )

    def __init__(
        self,
        function: str | FunctionAttr,
        lhs: SSAValue,
        rhs: SSAValue,
        element: Attribute | None = None,
    ):
        super().__init__(
            operands=[lhs, rhs],
            result_types=[lhs.type],
            properties={"function": as_function(function)},
        )
        self.set_inferred_type(element)

    def result_element(self) -> Attribute:
        elements = element_of(self.lhs.type), element_of(self.rhs.type)
        return apply_type(self, self.function, elements)


def _pointwise_extents(operands: Sequence[SSAValue]) -> tuple[Extent, ...]:
    """The shape of the first operand that is not a scalar."""
    for number, operand in enumerate(operands):
        if rank(operand):
            return axes_of(number, range(rank(operand)))
    return ()


def _pointwise_requirements(
    operator: str, operands: Sequence[SSAValue]
) -> tuple[Requirement, ...]:
    """All operands that are not scalars have equal extents."""
    arrays = [n for n, operand in enumerate(operands) if rank(operand)]
    return tuple(
        Requirement(
            "eq",
            AxisOf(other, axis),
            AxisOf(arrays[0], axis),
            f"{operator}: extents of axis {axis} must be equal",
        )
        for other in arrays[1:]
        for axis in range(rank(operands[other]))
    )


def _pointwise_ranks(operator: str, operands: Sequence[SSAValue]) -> None:
    ranks = {rank(operand) for operand in operands if rank(operand)}
    if len(ranks) > 1:
        raise VerifyException(
            f"{operator} expects operands of equal rank or scalars, "
            f"got {', '.join(str(o.type) for o in operands)}"
        )


@irdl_op_definition
class PointwiseOp(BinaryFunctionOperation):
    """A scalar function of two arrays, element by element: `i ψ (A f B)`.

    The shapes are equal, or one operand is a scalar (rank 0), which is used for every
    element. An axis of extent 1 is not stretched.

    ```mlir
    %c = moa.pointwise add %a, %b : tensor<3xf64>, tensor<f64> -> tensor<3xf64>
    ```
    """

    name = "moa.pointwise"

    def verify_ranks(self) -> None:
        _pointwise_ranks(print_name(self.function), self.operands)

    def result_extents(self) -> tuple[Extent, ...]:
        return _pointwise_extents(self.operands)

    def requirements(self) -> tuple[Requirement, ...]:
        return _pointwise_requirements(print_name(self.function), self.operands)


@irdl_op_definition
class MapOp(FunctionOperation):
    """A scalar function of one array, element by element: `i ψ (f A) = f (i ψ A)`.

    ```mlir
    %b = moa.map exp %a : tensor<3xf64> -> tensor<3xf64>
    ```
    """

    name = "moa.map"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.array)))

    def result_element(self) -> Attribute:
        return apply_type(self, self.function, (element_of(self.array.type),))


@irdl_op_definition
class CastOp(ArrayOperation):
    """Conversion of every element to another element type.

    Float to integer rounds towards zero; a truth value becomes 0 or 1; a number
    becomes true unless it is zero.

    ```mlir
    %b = moa.cast %a : tensor<3xindex> -> tensor<3xf64>
    ```
    """

    name = "moa.cast"
    array = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = "$array attr-dict `:` type($array) `->` type($result)"

    def __init__(self, array: SSAValue, element: Attribute):
        super().__init__(
            operands=[array],
            result_types=[TensorType(element, shape_of(array.type))],
        )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.array)))

    def result_element(self) -> Attribute:
        return element_of(self.result.type)


@irdl_op_definition
class WhereOp(ArrayOperation):
    """Choice by a truth value, element by element, with scalar extension.

    ```mlir
    %d = moa.where %c, %a, %b : tensor<3xi1>, tensor<3xf64>, tensor<f64> -> tensor<3xf64>
    ```
    """  # noqa: E501

    name = "moa.where"
    condition = operand_def(TensorType.constr())
    if_true = operand_def(TensorType.constr())
    if_false = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    assembly_format = (
        "$condition `,` $if_true `,` $if_false attr-dict `:` type($condition) `,` "
        "type($if_true) `,` type($if_false) `->` type($result)"
    )

    def __init__(self, condition: SSAValue, if_true: SSAValue, if_false: SSAValue):
        super().__init__(
            operands=[condition, if_true, if_false], result_types=[if_true.type]
        )
        self.set_inferred_type()

    def verify_ranks(self) -> None:
        _pointwise_ranks("where", self.operands)

    def result_extents(self) -> tuple[Extent, ...]:
        return _pointwise_extents(self.operands)

    def requirements(self) -> tuple[Requirement, ...]:
        return _pointwise_requirements("where", self.operands)

    def result_element(self) -> Attribute:
        condition, if_true, if_false = (element_of(o.type) for o in self.operands)
        if condition != element_type_of("i1"):
            raise ElementTypeException(
                f"where expects i1 as its condition, got {self.condition.type}"
            )
        if if_true != if_false:
            raise ElementTypeException(
                f"where: operands must have one element type, got {if_true}, {if_false}"
            )
        return if_true


@irdl_op_definition
class ReduceOp(FoldingOperation):
    """Right fold over axis 0: `i ψ (f red A) = (0++i ψ A) f ((1++i ψ A) f (...))`.

    An empty axis gives f's identity element if it has one and is an error otherwise.
    Reassociation is not implied: the fold is evaluated from the last plane down.

    ```mlir
    %s = moa.reduce add %a : tensor<3x4xf64> -> tensor<4xf64>
    ```
    """

    name = "moa.reduce"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(1, rank(self.array)))

    def requirements(self) -> tuple[Requirement, ...]:
        return _fold_requirements("reduce", self.function, AxisOf(0, 0))


def _fold_requirements(
    operator: str, function: FunctionAttr, extent: Extent
) -> tuple[Requirement, ...]:
    """A fold without identity element needs something to fold."""
    if isinstance(function, SymbolRefAttr) or not has_identity(function):
        message = (
            f"{operator}: {print_name(function)} has no identity element, "
            f"so the folded axis must not be empty"
        )
        return (Requirement("ge", extent, Fixed(1), message),)
    return ()


@irdl_op_definition
class ScanOp(FoldingOperation):
    """The folds of all prefixes of axis 0: `(<k> ++ i) ψ (f scan A)` folds 0 to k.

    Each is a right fold, as of `moa.reduce`.

    ```mlir
    %s = moa.scan add %a : tensor<3x4xf64> -> tensor<3x4xf64>
    ```
    """

    name = "moa.scan"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.array)))


@irdl_op_definition
class OuterOp(BinaryFunctionOperation):
    """Outer product: `(i ++ j) ψ (A •f B) = (i ψ A) f (j ψ B)`, shape `ρA ++ ρB`.

    ```mlir
    %c = moa.outer mul %a, %b : tensor<3xf64>, tensor<4xf64> -> tensor<3x4xf64>
    ```
    """

    name = "moa.outer"

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.lhs))) + axes_of(1, range(rank(self.rhs)))


@irdl_op_definition
class InnerOp(ArrayOperation):
    """Inner product: `(i ++ j) ψ (A f•g B) = f red_l ((i++<l> ψ A) g (<l>++j ψ B))`.

    The last axis of A is contracted with the first of B; shape
    `(-1 ▽ ρA) ++ (1 ▽ ρB)`. The fold is the right fold of `moa.reduce`.

    ```mlir
    %c = moa.inner add mul %a, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
    ```
    """

    name = "moa.inner"
    combine = prop_def(FUNCTION)
    function = prop_def(FUNCTION)
    lhs = operand_def(TensorType.constr())
    rhs = operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    custom_directives = (ScalarFunction,)
    assembly_format = (
        "custom<ScalarFunction>($combine) custom<ScalarFunction>($function) "
        "$lhs `,` $rhs attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)"
    )

    def __init__(
        self,
        combine: str | FunctionAttr,
        function: str | FunctionAttr,
        lhs: SSAValue,
        rhs: SSAValue,
        element: Attribute | None = None,
    ):
        super().__init__(
            operands=[lhs, rhs],
            result_types=[lhs.type],
            properties={
                "combine": as_function(combine),
                "function": as_function(function),
            },
        )
        self.set_inferred_type(element)

    def verify_ranks(self) -> None:
        if rank(self.lhs) == 0 or rank(self.rhs) == 0:
            raise VerifyException(
                f"inner expects two arrays of rank 1 or more, "
                f"got {self.lhs.type} and {self.rhs.type}"
            )

    def result_extents(self) -> tuple[Extent, ...]:
        return axes_of(0, range(rank(self.lhs) - 1)) + axes_of(
            1, range(1, rank(self.rhs))
        )

    def requirements(self) -> tuple[Requirement, ...]:
        contracted = AxisOf(0, rank(self.lhs) - 1)
        return (
            Requirement(
                "eq",
                AxisOf(1, 0),
                contracted,
                "inner: the last extent of the left operand must equal the first of "
                "the right",
            ),
            *_fold_requirements("inner", self.combine, contracted),
        )

    def result_element(self) -> Attribute:
        elements = element_of(self.lhs.type), element_of(self.rhs.type)
        result = apply_type(self, self.function, elements)
        verify_combines(self, self.combine, result)
        return result


@irdl_op_definition
class OmegaOp(ArrayOperation):
    """A function applied to the trailing-axes cells of one or two arrays.

    `f Ω<r> A`: cells are the trailing r axes, the leading ones are the frame; shape
    `frame ++ ρ(f cell)`. `A f Ω<a b> B`: the frames agree on their *trailing* axes and
    the longer frame's excess comes first: shape `u ++ v ++ x ++ ρ(cell f cell)`.
    The function is a scalar operation (applied pointwise to the cells) or the symbol of
    a func.func from cells to one array.

    ```mlir
    %m = moa.omega @row_maximum <1> (%a) : (tensor<3x4xf64>) -> tensor<3xf64>
    %z = moa.omega sub <1, 0> (%a, %m)
      : (tensor<3x4xf64>, tensor<3xf64>) -> tensor<3x4xf64>
    ```
    """

    name = "moa.omega"
    function = prop_def(FUNCTION)
    ranks = prop_def(DenseArrayBase.constr(i64))
    arrays = var_operand_def(TensorType.constr())
    result = result_def(TensorType.constr())
    traits = traits_def(Pure())
    custom_directives = (ScalarFunction, CellRanks)
    assembly_format = (
        "custom<ScalarFunction>($function) custom<CellRanks>($ranks) "
        "`(` $arrays `)` attr-dict `:` `(` type($arrays) `)` `->` type($result)"
    )

    def __init__(
        self,
        function: str | FunctionAttr,
        ranks: Sequence[int],
        arrays: Sequence[SSAValue],
        result_type: TensorType,
    ):
        super().__init__(
            operands=[arrays],
            result_types=[result_type],
            properties={
                "function": as_function(function),
                "ranks": DenseArrayBase.from_list(i64, ranks),
            },
        )

    @property
    def cell_ranks(self) -> tuple[int, ...]:
        """The rank of the cells of each operand."""
        return tuple(self.ranks.get_values())

    @property
    def frame_ranks(self) -> tuple[int, ...]:
        """The number of frame axes of each operand."""
        return tuple(
            rank(array) - cell
            for array, cell in zip(self.arrays, self.cell_ranks, strict=True)
        )

    @property
    def frames(self) -> OmegaFrames:
        """How the frames map to result axes; the right frame is empty for one array."""
        left, *right = self.frame_ranks
        return OmegaFrames(left, right[0] if right else 0)

    def frame_axes(self) -> tuple[range, ...]:
        """For each operand, which result axes index its frame."""
        frames = self.frames
        return (frames.left_axes(), frames.right_axes())[: len(self.arrays)]

    def cell_function(self) -> FuncOp | None:
        """The function named by the symbol; None for a scalar operation."""
        if isinstance(self.function, SymbolRefAttr):
            return lookup_function(self, self.function)
        return None

    def verify_ranks(self) -> None:
        if len(self.arrays) not in (1, 2) or len(self.arrays) != len(self.cell_ranks):
            raise VerifyException(
                f"omega expects one or two arrays and as many cell ranks, "
                f"got {len(self.arrays)} arrays and ranks {list(self.cell_ranks)}"
            )
        for array, cell in zip(self.arrays, self.cell_ranks, strict=True):
            if not 0 <= cell <= rank(array):
                raise VerifyException(
                    f"omega: a cell rank must be between 0 and the rank of its array: "
                    f"expected at most {rank(array)}, got {cell}"
                )
        function = self.cell_function()
        if function is None:
            cells = [cell for cell in self.cell_ranks if cell]
            if len(set(cells)) > 1:
                raise VerifyException(
                    f"omega: a scalar operation needs cells of equal rank or scalars, "
                    f"got ranks {list(self.cell_ranks)}"
                )
            return
        given = [
            as_tensor(
                [None if e < 0 else e for e in shape_of(array.type)[frame:]],
                element_of(array.type),
            )
            for array, frame in zip(self.arrays, self.frame_ranks, strict=True)
        ]
        expected = function.function_type.inputs.data
        if len(function.function_type.outputs) != 1 or not (
            len(given) == len(expected)
            and all(map(_takes, expected, given))
            and isinstance(function.function_type.outputs.data[0], TensorType)
        ):
            raise VerifyException(
                f"omega: the cell function {self.function} must map the cells "
                f"({', '.join(map(str, given))}) to one array, "
                f"got {function.function_type}"
            )

    def _outward(self, extent: Extent) -> Extent:
        """An extent in terms of the cells, in terms of the arrays."""
        if isinstance(extent, Polynomial):
            return extent.substitute(lambda atom: polynomial(self._outward(atom)))
        if isinstance(extent, AxisOf):
            cell_axis = self.frame_ranks[extent.operand] + extent.axis
            return AxisOf(extent.operand, cell_axis)
        return extent

    def result_extents(self) -> tuple[Extent, ...]:
        frames = self.frames
        longer = 0 if frames.left_frame >= frames.right_frame else 1
        frame = axes_of(longer, range(frames.result_frame))
        function = self.cell_function()
        if function is None:
            number = next((n for n, c in enumerate(self.cell_ranks) if c), 0)
            cell = axes_of(number, range(self.cell_ranks[number]))
        else:
            cell = function_extents(function)
        return frame + tuple(map(self._outward, cell))

    def requirements(self) -> tuple[Requirement, ...]:
        shared = tuple(
            Requirement(
                "eq",
                AxisOf(1, right),
                AxisOf(0, left),
                "omega: frames must agree on their trailing axes",
            )
            for left, right in (
                self.frames.shared_axes() if len(self.arrays) == 2 else ()
            )
        )
        function = self.cell_function()
        if function is None:
            shared_axes = 0 if len(self.arrays) < 2 else min(self.cell_ranks)
            cells = tuple(
                Requirement(
                    "eq",
                    AxisOf(1, axis),
                    AxisOf(0, axis),
                    f"{print_name(self.function)}: extents of cell axis {axis} must be "
                    f"equal",
                )
                for axis in range(shared_axes)
            )
        else:
            cells = function_requirements(function)
        return shared + tuple(
            Requirement(
                r.relation, self._outward(r.given), self._outward(r.expected), r.message
            )
            for r in cells
        )

    def result_element(self) -> Attribute:
        function = self.cell_function()
        if function is None:
            elements = tuple(element_of(array.type) for array in self.arrays)
            return apply_type(self, self.function, elements)
        return element_of(function.function_type.outputs.data[0])


def _takes(expected: Attribute, given: TensorType) -> bool:
    return isa(expected, TensorType) and are_compatible(expected, given)
