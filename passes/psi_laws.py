"""The laws of psi reduction: what an element of each operation's result is.

Every law rewrites `moa.at %x[full index]`, where `%x` is the result of one operation of
the algebra, into scalar code over elements of that operation's operands. Source: the
reduction rules of Mullin and Thibault, *A Reduction Semantics for Array Expressions:
the Psi Compiler* (1994), in the numbering R1 to R25 of Mullin's lineage; the docstring
of each law states it in MoA notation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, SSAValue

from moa_dialect.ops.base import rank
from moa_dialect.ops.computational import (
    CastOp,
    InnerOp,
    MapOp,
    OmegaOp,
    OuterOp,
    PointwiseOp,
    ReduceOp,
    WhereOp,
)
from moa_dialect.ops.function import FunctionAttr
from moa_dialect.ops.normal_form import ComprehensionOp, FoldOp, InBoundsOp
from moa_dialect.ops.structural import (
    CellOp,
    ConstantOp,
    DimOp,
    IotaOp,
    PsiOp,
    ShapeOp,
    TotalOp,
    TransposeOp,
)
from moa_dialect.scalar_code import apply_function, cast, constant
from moa_dialect.types import array_of

Index: TypeAlias = Sequence[SSAValue]
FoldBody: TypeAlias = Callable[[SSAValue], SSAValue]
"""Emits the element of a fold for one index."""


class Reduction(Protocol):
    """What a law may ask of the reduction it is applied in."""

    builder: Builder
    """Inserts where the element being reduced is needed."""

    def element(self, array: SSAValue, index: Index) -> SSAValue:
        """`index ψ array` for a full index, to be reduced further."""
        ...

    def extent(self, array: SSAValue, axis: int) -> SSAValue:
        """The extent of an axis, in terms of the function's arguments."""
        ...

    def number(self, value: int) -> SSAValue:
        """An index constant."""
        ...

    def fold(self, function: FunctionAttr, extent: SSAValue, body: FoldBody) -> FoldOp:
        """A right fold over `0 <= k < extent`; `body` emits the element for k."""
        ...

    def choose(
        self,
        condition: SSAValue,
        element: Attribute,
        then: Callable[[], SSAValue],
        otherwise: Callable[[], SSAValue],
    ) -> SSAValue:
        """The element that one of two emits, only the chosen one evaluated."""
        ...

    def once(
        self, key: Hashable, value: SSAValue, emit: Callable[[], SSAValue]
    ) -> SSAValue:
        """A number computed from an array, once at the function's entry if it can be.

        It can be if the array is not one of a cell function.
        """
        ...

    def checked(
        self, op: Operation, index: SSAValue, extent: SSAValue, message: str
    ) -> SSAValue:
        """An index that data of a cell decides, checked; of data outside, as it is.

        What an operation of the function itself requires is checked at the entry.
        """
        ...

    def extent_in_cell(self, array: SSAValue, axis: int) -> SSAValue | None:
        """An extent that data of a cell decide, computed here; None for others."""
        ...

    def constant_element(self, values: np.ndarray, position: SSAValue) -> SSAValue:
        """An element of a vector of index constants."""
        ...

    def is_same_total(
        self,
        left: SSAValue,
        axes: Sequence[int],
        right: SSAValue,
        others: Sequence[int],
    ) -> bool:
        """Whether two groups of axes are known to have equally many indices."""
        ...

    def cells(self, op: OmegaOp, frame: Index) -> SSAValue:
        """The result array of omega's cell function for one index of the frame."""
        ...

    def lookup(self, symbol: SymbolRefAttr) -> FuncOp:
        """The function a symbol names."""
        ...

    def body(self, op: ComprehensionOp, index: Index) -> Sequence[SSAValue]:
        """What a comprehension's body yields at an index of its axes."""
        ...


OperationT = TypeVar("OperationT", bound=Operation)


class PsiLaw(ABC, Generic[OperationT]):
    """One law: `index ψ operation` in terms of the operation's operands."""

    name: ClassVar[str]
    """The law's name in traces and tests."""

    @abstractmethod
    def reduce(self, op: OperationT, index: Index, r: Reduction) -> SSAValue:
        """Emit the element of `op`'s result at a full index."""

    def proof_ranks(self, op: OperationT) -> tuple[int, ...]:
        """The ranks for which the law's proofs are needed here.

        Those of the operands that are indexed: `array`, or `lhs` and `rhs`. A law of
        other operands says itself what its proofs are about.
        """
        indexed = (getattr(op, name, None) for name in ("array", "lhs", "rhs"))
        return _ranks(rank(operand) for operand in indexed if operand is not None)


def _ranks(ranks: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({*ranks})) or (0,)


class PsiOfConstant(PsiLaw[ConstantOp]):
    """A constant's element at a constant index, or of a splat, is a scalar constant."""

    name = "psi-constant"

    @staticmethod
    def applies(op: ConstantOp, index: Index) -> bool:
        """Whether the element is known: one value, or an index of constants."""
        values = array_of(op.value)
        if values.size == 0:
            return False
        return _is_splat(values) or all(number_of(entry) is not None for entry in index)

    def reduce(self, op: ConstantOp, index: Index, r: Reduction) -> SSAValue:
        values = array_of(op.value)
        numbers = [number_of(entry) for entry in index]
        position = tuple(0 if n is None else n for n in numbers)
        is_there = all(
            n < extent for n, extent in zip(position, values.shape, strict=True)
        )
        # An element that is not there is one that no result is made of.
        is_known = None not in numbers and is_there
        element = values[position] if is_known else values.flat[0]
        return r.builder.insert(constant(element, op.result_element())).result


def _is_splat(values: np.ndarray) -> bool:
    """Whether all elements are the same number: 0 and -0 are not."""
    flat = np.ascontiguousarray(values).reshape(-1)
    bits = flat.view(np.uint8).reshape(flat.size, -1)
    return bool((bits == bits[0]).all())


def number_of(value: SSAValue) -> int | None:
    """The number of an index constant."""
    if isinstance(value.owner, arith.ConstantOp):
        attribute = value.owner.value
        return attribute.value.data  # pyright: ignore
    return None


class PsiOfIota(PsiLaw[IotaOp]):
    """`<k> ψ ιn = k` and `(i ++ <a>) ψ ιv = i[a]`."""

    name = "psi-iota"

    def reduce(self, op: IotaOp, index: Index, r: Reduction) -> SSAValue:
        if rank(op.extents) == 0:
            return index[0]
        return entry_at(index[:-1], index[-1], r)


def entry_at(vector: Index, position: SSAValue, r: Reduction) -> SSAValue:
    """The entry of a vector of index values at a position, by selection.

    A number beyond its end, as any is of an empty vector, is of no element: it is 0.
    """
    number = number_of(position)
    if number is not None:
        return vector[number] if 0 <= number < len(vector) else r.number(0)
    if not vector:
        return r.number(0)
    chosen = vector[-1]
    for k in reversed(range(len(vector) - 1)):
        is_k = r.builder.insert(arith.CmpiOp(position, r.number(k), "eq"))
        chosen = r.builder.insert(arith.SelectOp(is_k, vector[k], chosen)).result
    return chosen


class PsiOfShape(PsiLaw[ShapeOp]):
    """`<k> ψ ρA` is the extent of axis k of A."""

    name = "psi-shape"

    def reduce(self, op: ShapeOp, index: Index, r: Reduction) -> SSAValue:
        extents = [r.extent(op.array, axis) for axis in range(rank(op.array))]
        return entry_at(extents, index[0], r)


class PsiOfDim(PsiLaw[DimOp]):
    """`δA` is the number of axes of A."""

    name = "psi-dim"

    def reduce(self, op: DimOp, index: Index, r: Reduction) -> SSAValue:
        return r.number(rank(op.array))


class PsiOfTotal(PsiLaw[TotalOp]):
    """`τA = π(ρA)`, the product of the extents."""

    name = "psi-total"

    def reduce(self, op: TotalOp, index: Index, r: Reduction) -> SSAValue:
        extents = [r.extent(op.array, axis) for axis in range(rank(op.array))]
        if not extents:
            return r.number(1)
        total, *others = extents
        for extent in others:
            total = r.builder.insert(arith.MuliOp(total, extent)).result
        return total


class PsiOfPsi(PsiLaw[PsiOp]):
    """`(i ++ j) ψ (P ψ A) = ((i ψ P) ++ j) ψ A`; for a vector P, i is empty."""

    name = "psi-psi"

    def reduce(self, op: PsiOp, index: Index, r: Reduction) -> SSAValue:
        rows = rank(op.index) - 1
        entries: list[SSAValue] = []
        for axis in range(op.index_length):
            entry = r.element(op.index, (*index[:rows], r.number(axis)))
            position = cast(entry, IndexType(), r.builder)
            extent = r.extent_in_cell(op.array, axis)
            if extent is None and not isinstance(op.index.owner, ConstantOp):
                extent = r.extent(op.array, axis)
            if extent is not None:
                message = f"psi: index entry {axis} out of range of axis {axis}"
                checked = InBoundsOp(position, extent, message)
                position = r.builder.insert(checked).result
            entries.append(position)
        return r.element(op.array, (*entries, *index[rows:]))


class PsiOfCell(PsiLaw[CellOp]):
    """`j ψ (i ψ A) = (i ++ j) ψ A`."""

    name = "psi-cell"

    def reduce(self, op: CellOp, index: Index, r: Reduction) -> SSAValue:
        return r.element(op.array, (*op.indices, *index))


class PsiOfTranspose(PsiLaw[TransposeOp]):
    """`i ψ (t ⊘ A) = i[t] ψ A`: source axis k is result axis t[k]."""

    name = "psi-transpose"

    def reduce(self, op: TransposeOp, index: Index, r: Reduction) -> SSAValue:
        return r.element(op.array, [index[axis] for axis in op.axes])


class PsiOfPointwise(PsiLaw[PointwiseOp]):
    """`i ψ (A f B) = (i ψ A) f (i ψ B)`; a scalar operand is used for every index."""

    name = "psi-pointwise"

    def reduce(self, op: PointwiseOp, index: Index, r: Reduction) -> SSAValue:
        elements = _extended(op.operands, index, r)
        return apply_function(op.function, elements, r.builder, r.lookup)


def _extended(arrays: Sequence[SSAValue], index: Index, r: Reduction) -> list[SSAValue]:
    """The elements of each array at the index, of a scalar at the empty index."""
    return [r.element(array, index if rank(array) else ()) for array in arrays]


class PsiOfMap(PsiLaw[MapOp]):
    """`i ψ (f A) = f (i ψ A)`."""

    name = "psi-map"

    def reduce(self, op: MapOp, index: Index, r: Reduction) -> SSAValue:
        element = r.element(op.array, index)
        return apply_function(op.function, [element], r.builder, r.lookup)


class PsiOfCast(PsiLaw[CastOp]):
    """`i ψ (cast A) = cast (i ψ A)`."""

    name = "psi-cast"

    def reduce(self, op: CastOp, index: Index, r: Reduction) -> SSAValue:
        return cast(r.element(op.array, index), op.result_element(), r.builder)


class PsiOfWhere(PsiLaw[WhereOp]):
    """`i ψ where(C, A, B) = where(i ψ C, i ψ A, i ψ B)`."""

    name = "psi-where"

    def reduce(self, op: WhereOp, index: Index, r: Reduction) -> SSAValue:
        elements = _extended(op.operands, index, r)
        return r.builder.insert(arith.SelectOp(*elements)).result


class PsiOfReduce(PsiLaw[ReduceOp]):
    """`i ψ (f red A) = f fold_(k < s0) ((<k> ++ i) ψ A)`."""

    name = "psi-reduce"

    def reduce(self, op: ReduceOp, index: Index, r: Reduction) -> SSAValue:
        extent = r.extent(op.array, 0)
        return r.fold(
            op.function, extent, lambda k: r.element(op.array, (k, *index))
        ).result


class PsiOfOuter(PsiLaw[OuterOp]):
    """`(i ++ j) ψ (A •f B) = (i ψ A) f (j ψ B)`, the length of i the rank of A."""

    name = "psi-outer"

    def reduce(self, op: OuterOp, index: Index, r: Reduction) -> SSAValue:
        split = rank(op.lhs)
        elements = r.element(op.lhs, index[:split]), r.element(op.rhs, index[split:])
        return apply_function(op.function, elements, r.builder, r.lookup)


class PsiOfInner(PsiLaw[InnerOp]):
    """`(i ++ j) ψ (A f•g B) = f fold_k (((i ++ <k>) ψ A) g ((<k> ++ j) ψ B))`."""

    name = "psi-inner"

    def reduce(self, op: InnerOp, index: Index, r: Reduction) -> SSAValue:
        split = rank(op.lhs) - 1

        def product(k: SSAValue) -> SSAValue:
            left = r.element(op.lhs, (*index[:split], k))
            right = r.element(op.rhs, (k, *index[split:]))
            return apply_function(op.function, (left, right), r.builder, r.lookup)

        return r.fold(op.combine, r.extent(op.lhs, split), product).result


class PsiOfOmega(PsiLaw[OmegaOp]):
    """`(i ++ j ++ k ++ c) ψ (A fΩ<a b> B) = c ψ (((i++k) ψ A) f ((j++k) ψ B))`.

    i indexes the excess frame of A, j that of B, k the common trailing frame, c the
    cell of the result.
    """

    name = "psi-omega"

    def proof_ranks(self, op: OmegaOp) -> tuple[int, ...]:
        return _ranks((op.frames.left_frame, op.frames.right_frame))

    def reduce(self, op: OmegaOp, index: Index, r: Reduction) -> SSAValue:
        length = op.frames.result_frame
        frame, cell = index[:length], index[length:]
        if op.cell_function() is not None:
            return r.element(r.cells(op, frame), cell)
        elements = [
            r.element(array, (*(frame[axis] for axis in axes), *cell[:cell_rank]))
            for array, axes, cell_rank in zip(
                op.arrays, op.frame_axes(), op.cell_ranks, strict=True
            )
        ]
        return apply_function(op.function, elements, r.builder, r.lookup)


class PsiOfComprehension(PsiLaw[ComprehensionOp]):
    """`i ψ (e for every j) = e at j = i`, the axes of i in the order of the result."""

    name = "psi-comprehension"

    def proof_ranks(self, op: ComprehensionOp) -> tuple[int, ...]:
        return (len(op.extents),)

    def reduce(self, op: ComprehensionOp, index: Index, r: Reduction) -> SSAValue:
        ordered = [index[place] for place in op.positions(len(index))]
        return r.body(op, ordered)[0]
