"""The laws of psi for operations that select and rearrange.

The index functions are those of `moa_dialect.algebra.index`, applied to code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, StringAttr
from xdsl.ir import Attribute, OpResult, SSAValue

from moa_dialect.algebra import index as maps
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.ops.base import constant_array, rank
from moa_dialect.ops.computational import ScanOp
from moa_dialect.ops.rearranging import (
    CatOp,
    CompressOp,
    CountedOperation,
    DropOp,
    ExpandOp,
    GradeDownOp,
    GradeOperation,
    GradeUpOp,
    RavelOp,
    RecycleOp,
    ReshapeOp,
    ReverseOp,
    RotateOp,
    TakeOp,
)
from moa_dialect.passes.psi_laws import Index, PsiLaw, Reduction, number_of
from moa_dialect.scalar_code import apply_named, cast, constant
from moa_dialect.types import element_of, kind_of, shape_of

ADD = StringAttr("add")


class IndexCode:
    """Integer arithmetic as index arithmetic in the code a law emits.

    What `choose_less` chooses from may be of another type, `chosen`.
    """

    def __init__(self, reduction: Reduction, chosen: Attribute | None = None) -> None:
        self.r = reduction
        self.chosen = IndexType() if chosen is None else chosen

    def number(self, value: int) -> SSAValue:
        return self.r.number(value)

    def _binary(self, name: str, a: SSAValue, b: SSAValue) -> SSAValue:
        numbers = number_of(a), number_of(b)
        if numbers[0] is not None and numbers[1] is not None:
            compute = SCALAR_OPERATIONS[name].compute
            return self.number(int(compute(numbers[0], numbers[1])))
        if numbers[1] == 0 and name in ("add", "sub"):
            return a
        if numbers[0] == 0 and name == "add":
            return b
        if name == "mul" and 0 in numbers:
            return self.number(0)
        if name == "mul" and 1 in numbers:
            return b if numbers[0] == 1 else a
        return apply_named(name, (a, b), self.r.builder)

    def add(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._binary("add", a, b)

    def sub(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._binary("sub", a, b)

    def mul(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._binary("mul", a, b)

    def div(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.r.builder.insert(arith.DivUIOp(a, b)).result

    def mod(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.r.builder.insert(arith.RemUIOp(a, b)).result

    def if_less(
        self, a: SSAValue, b: SSAValue, then: SSAValue, otherwise: SSAValue
    ) -> SSAValue:
        numbers = number_of(a), number_of(b)
        if numbers[0] is not None and numbers[1] is not None:
            return then if numbers[0] < numbers[1] else otherwise
        if then is otherwise:
            return then
        less = apply_named("lt", (a, b), self.r.builder)
        return self.r.builder.insert(arith.SelectOp(less, then, otherwise)).result

    def choose_less(
        self,
        a: SSAValue,
        b: SSAValue,
        then: Callable[[], SSAValue],
        otherwise: Callable[[], SSAValue],
    ) -> SSAValue:
        numbers = number_of(a), number_of(b)
        if numbers[0] is not None and numbers[1] is not None:
            return then() if numbers[0] < numbers[1] else otherwise()
        less = apply_named("lt", (a, b), self.r.builder)
        return self.r.choose(less, self.chosen, then, otherwise)


def natural(m: IndexCode, value: SSAValue) -> SSAValue:
    """A number as an extent that nothing negative passes for: 0 if it is negative."""
    zero = m.number(0)
    return m.if_less(value, zero, zero, value)


def integer_at(array: SSAValue, index: Index, r: Reduction) -> SSAValue:
    """An element of an array of integers as an index; a constant's as a number.

    One that is not there, of which no result is made, is 0.
    """
    values = constant_array(array)
    if values is not None:
        numbers = [n for entry in index if (n := number_of(entry)) is not None]
        if len(numbers) == len(index):
            extents = map(range, values.shape)
            is_there = all(
                n in there for n, there in zip(numbers, extents, strict=True)
            )
            return r.number(int(values[tuple(numbers)]) if is_there else 0)
    return cast(r.element(array, index), IndexType(), r.builder)


def _counts(op: CountedOperation, r: Reduction) -> list[SSAValue]:
    if rank(op.counts) == 0:
        return [integer_at(op.counts, (), r)]
    return [integer_at(op.counts, (r.number(axis),), r) for axis in range(op.length)]


def _selected(
    op: CountedOperation,
    index: Index,
    r: Reduction,
    source: Callable[[SSAValue, SSAValue, SSAValue], SSAValue],
) -> SSAValue:
    """The element at the source index of each leading axis; the others stay."""
    leading: list[SSAValue] = []
    for axis, (entry, count) in enumerate(zip(index, _counts(op, r), strict=False)):
        extent = r.extent(op.array, axis)
        position = source(entry, count, extent)
        if number_of(count) is None:
            message = f"{op.operator}: the count for axis {axis} exceeds the extent"
            position = r.checked(op, position, extent, message)
        leading.append(position)
    return r.element(op.array, (*leading, *index[op.length :]))


class PsiOfTake(PsiLaw[TakeOp]):
    """`i ψ (v △ A) = i' ψ A` with `i'_j = i_j + (s_j - |v_j| if v_j < 0 else 0)`."""

    name = "psi-take"

    def reduce(self, op: TakeOp, index: Index, r: Reduction) -> SSAValue:
        m = IndexCode(r)
        return _selected(op, index, r, lambda i, count, s: maps.take(m, i, count, s))


class PsiOfDrop(PsiLaw[DropOp]):
    """`i ψ (v ▽ A) = i' ψ A` with `i'_j = i_j + max(v_j, 0)`."""

    name = "psi-drop"

    def reduce(self, op: DropOp, index: Index, r: Reduction) -> SSAValue:
        m = IndexCode(r)
        return _selected(op, index, r, lambda i, count, _: maps.drop(m, i, count))


class PsiOfCat(PsiLaw[CatOp]):
    """`i ψ (A ++ B) = i ψ A` if `i0 < a0`, else `(<i0 - a0> ++ (1 ▽ i)) ψ B`."""

    name = "psi-cat"

    def proof_ranks(self, op: CatOp) -> tuple[int, ...]:
        return (rank(op.array_result),)

    def reduce(self, op: CatOp, index: Index, r: Reduction) -> SSAValue:
        first = r.extent(op.lhs, 0) if rank(op.lhs) else r.number(1)

        def left() -> SSAValue:
            return r.element(op.lhs, index if rank(op.lhs) else ())

        def right() -> SSAValue:
            entry = IndexCode(r).sub(index[0], first)
            return r.element(op.rhs, (entry, *index[1:]) if rank(op.rhs) else ())

        number = number_of(index[0])
        planes = shape_of(op.lhs.type)[0] if rank(op.lhs) else 1
        if number is not None and planes >= 0:
            return left() if number < planes else right()
        is_left = apply_named("lt", (index[0], first), r.builder)
        return r.choose(is_left, element_of(op.lhs.type), left, right)


class PsiOfReverse(PsiLaw[ReverseOp]):
    """`i ψ ΦA = (<s0 - 1 - i0> ++ (1 ▽ i)) ψ A`; of a scalar, the scalar."""

    name = "psi-reverse"

    def reduce(self, op: ReverseOp, index: Index, r: Reduction) -> SSAValue:
        if not index:
            return r.element(op.array, index)
        entry = maps.reverse(IndexCode(r), index[0], r.extent(op.array, 0))
        return r.element(op.array, (entry, *index[1:]))


class PsiOfRotate(PsiLaw[RotateOp]):
    """`i ψ (kθA) = (<(i0 + k) mod s0> ++ (1 ▽ i)) ψ A`."""

    name = "psi-rotate"

    def reduce(self, op: RotateOp, index: Index, r: Reduction) -> SSAValue:
        m, extent = IndexCode(r), r.extent(op.array, 0)
        shift = r.once(
            op,
            op.count,
            lambda: maps.rotation(m, integer_at(op.count, (), r), extent),
        )
        entry = maps.rotate(m, index[0], shift, extent)
        return r.element(op.array, (entry, *index[1:]))


def _unshaped(array: SSAValue) -> SSAValue:
    """The array behind reshapes and ravels: they keep the order of the elements."""
    while isinstance(array, OpResult) and isinstance(array.op, ReshapeOp | RavelOp):
        array = array.op.array
    return array


def _groups(
    target: SSAValue, axes: Sequence[int], source: SSAValue, r: Reduction
) -> list[tuple[list[int], list[int]]]:
    """Matching groups of axes of two shapes of one total, the trailing ones first.

    Of the target they are among the axes given. A group is as small as the extents
    known to be equal allow; axes known to be of extent 1 are in none.
    """
    t, s = (
        [k for k in some if not r.is_same_total(a, [k], a, [])]
        for a, some in ((target, axes), (source, range(rank(source))))
    )
    groups: list[tuple[list[int], list[int]]] = []
    while t and s:
        a, b = next(
            (
                (a, size - a)
                for size in range(2, len(t) + len(s))
                for a in range(max(1, size - len(s)), min(len(t), size - 1) + 1)
                if r.is_same_total(target, t[-a:], source, s[a - size :])
            ),
            (len(t), len(s)),
        )
        groups.append((t[-a:], s[-b:]))
        t, s = t[:-a], s[:-b]
    return groups


def _reshaped(
    op: ReshapeOp | RavelOp | RecycleOp, first: int, index: Index, r: Reduction
) -> SSAValue:
    """An element by its row-major address, group by group of the axes from the first.

    So there is division only where an axis really is split. Axes that are in no group
    have extent 1, or no index is valid.
    """
    m, source, target = IndexCode(r), _unshaped(op.array), op.array_result
    entries = [r.number(0)] * rank(source)
    for axes, others in _groups(target, range(first, rank(target)), source, r):
        group = [index[axis] for axis in axes]
        if len(axes) > 1 or len(others) > 1:
            shape = [r.extent(target, axis) for axis in axes]
            inner = [r.extent(source, axis) for axis in others]
            group = maps.gamma_inverse(m, maps.gamma(m, group, shape), inner)
        for axis, entry in zip(others, group, strict=True):
            entries[axis] = entry
    return r.element(source, entries)


def _ranks(op: ReshapeOp | RavelOp | RecycleOp) -> tuple[int, ...]:
    """Groups of axes there are on both sides."""
    return tuple(sorted({rank(_unshaped(op.array)), rank(op.array_result)}))


class PsiOfReshape(PsiLaw[ReshapeOp]):
    """`i ψ (t ρ̂ A) = γ'(γ(i; t); ρA) ψ A`, and `t ρ̂ (u ρ̂ A) = t ρ̂ A`."""

    name = "psi-reshape"

    def proof_ranks(self, op: ReshapeOp) -> tuple[int, ...]:
        return _ranks(op)

    def reduce(self, op: ReshapeOp, index: Index, r: Reduction) -> SSAValue:
        return _reshaped(op, 0, index, r)


class PsiOfRavel(PsiLaw[RavelOp]):
    """`<k> ψ rav A = γ'(k; ρA) ψ A`."""

    name = "psi-ravel"

    def proof_ranks(self, op: RavelOp) -> tuple[int, ...]:
        return _ranks(op)

    def reduce(self, op: RavelOp, index: Index, r: Reduction) -> SSAValue:
        return _reshaped(op, 0, index, r)


class PsiOfRecycle(PsiLaw[RecycleOp]):
    """`i ψ recycle(t, A) = γ'(γ(i; t) mod τA; ρA) ψ A`."""

    name = "psi-recycle"

    def proof_ranks(self, op: RecycleOp) -> tuple[int, ...]:
        return _ranks(op)

    def reduce(self, op: RecycleOp, index: Index, r: Reduction) -> SSAValue:
        m, axes, source = IndexCode(r), range(rank(op.array)), op.array
        for first in range(len(index) + 1):
            # Trailing axes with the total of A run through A once.
            trailing = range(first, len(index))
            if r.is_same_total(op.array_result, trailing, source, axes):
                return _reshaped(op, first, index, r)
        shape = [r.extent(op.array_result, axis) for axis in range(len(index))]
        extents = [r.extent(source, axis) for axis in axes]
        total = r.number(1)
        for extent in extents:
            total = m.mul(total, extent)
        address = maps.recycle(m, maps.gamma(m, index, shape), total)
        if not all(extent > 0 for extent in shape_of(source.type)):
            message = "recycle: an array without elements has none to repeat"
            address = r.checked(op, address, total, message)
        return r.element(source, maps.gamma_inverse(m, address, extents))


def _true_before(mask: SSAValue, position: SSAValue, r: Reduction) -> SSAValue:
    """How many elements of a mask hold before a position."""
    return r.fold(
        ADD, position, lambda j: cast(r.element(mask, (j,)), IndexType(), r.builder)
    ).result


class PsiOfCompress(PsiLaw[CompressOp]):
    """`i ψ (v ⌿ A) = (<p> ++ (1 ▽ i)) ψ A`, p the position of the i0-th one in v."""

    name = "psi-compress"

    def reduce(self, op: CompressOp, index: Index, r: Reduction) -> SSAValue:
        values = constant_array(op.mask)
        if values is not None:
            position = r.constant_element(np.flatnonzero(values), index[0])
        else:
            position = self._position(op, index[0], r)
        return r.element(op.array, (position, *index[1:]))

    def _position(self, op: CompressOp, k: SSAValue, r: Reduction) -> SSAValue:
        """The sum of j where v_j holds and k ones come before: there is one such j."""

        def term(j: SSAValue) -> SSAValue:
            holds = r.element(op.mask, (j,))
            before = _true_before(op.mask, j, r)
            is_kth = apply_named("eq", (before, k), r.builder)
            both = apply_named("and", (holds, is_kth), r.builder)
            return r.builder.insert(arith.SelectOp(both, j, r.number(0))).result

        return r.fold(ADD, r.extent(op.mask, 0), term).result


class PsiOfExpand(PsiLaw[ExpandOp]):
    """`i ψ (v ⍀ A) = (<n> ++ (1 ▽ i)) ψ A` if v holds at i0, n the ones before, else 0."""  # noqa: E501

    name = "psi-expand"

    def reduce(self, op: ExpandOp, index: Index, r: Reduction) -> SSAValue:
        element = element_of(op.array.type)
        values = constant_array(op.mask)

        def kept() -> SSAValue:
            if values is not None:
                counts = np.cumsum(values) - values.astype(np.int64)
                position = r.constant_element(counts, index[0])
            else:
                before = _true_before(op.mask, index[0], r)
                message = "expand: the mask holds more often than axis 0 is long"
                position = r.checked(op, before, r.extent(op.array, 0), message)
            return r.element(op.array, (position, *index[1:]))

        def filled() -> SSAValue:
            return r.builder.insert(constant(0, element)).result

        return r.choose(r.element(op.mask, index[:1]), element, kept, filled)


class PsiOfScan(PsiLaw[ScanOp]):
    """`(<k> ++ i) ψ (f scan A) = f fold_(p <= k) ((<p> ++ i) ψ A)`."""

    name = "psi-scan"

    def reduce(self, op: ScanOp, index: Index, r: Reduction) -> SSAValue:
        upper = IndexCode(r).add(index[0], r.number(1))
        return r.fold(
            op.function, upper, lambda p: r.element(op.array, (p, *index[1:]))
        ).result


def _compare(
    before: str, theirs: SSAValue, mine: SSAValue, r: Reduction
) -> tuple[SSAValue, SSAValue]:
    """Whether an element comes before another, and whether they are equal.

    The order is total: NaN is equal to NaN and above every number, as NumPy sorts.
    """

    def emit(name: str, a: SSAValue, b: SSAValue) -> SSAValue:
        return apply_named(name, (a, b), r.builder)

    is_before, is_equal = emit(before, theirs, mine), emit("eq", theirs, mine)
    if kind_of(mine.type) == "float":
        theirs_nan, mine_nan = emit("ne", theirs, theirs), emit("ne", mine, mine)
        differ = emit("xor", theirs_nan, mine_nan)
        larger = mine_nan if before == "lt" else theirs_nan
        is_before = emit("or", is_before, emit("and", differ, larger))
        is_equal = emit("or", is_equal, emit("and", theirs_nan, mine_nan))
    return is_before, is_equal


def _grade(op: GradeOperation, before: str, k: SSAValue, r: Reduction) -> SSAValue:
    """The sum of j that have k elements before them in the order: one such j."""
    extent = r.extent(op.array, 0)

    def term(j: SSAValue) -> SSAValue:
        mine = r.element(op.array, (j,))

        def precedes(other: SSAValue) -> SSAValue:
            theirs = r.element(op.array, (other,))
            is_before, is_equal = _compare(before, theirs, mine, r)
            is_earlier = apply_named("lt", (other, j), r.builder)
            tie = apply_named("and", (is_equal, is_earlier), r.builder)
            either = apply_named("or", (is_before, tie), r.builder)
            return cast(either, IndexType(), r.builder)

        place = r.fold(ADD, extent, precedes).result
        is_kth = apply_named("eq", (place, k), r.builder)
        return r.builder.insert(arith.SelectOp(is_kth, j, r.number(0))).result

    return r.fold(ADD, extent, term).result


class PsiOfGradeUp(PsiLaw[GradeUpOp]):
    """`<k> ψ gu v` is the j before which k elements come in ascending order."""

    name = "psi-grade-up"

    def reduce(self, op: GradeUpOp, index: Index, r: Reduction) -> SSAValue:
        return _grade(op, "lt", index[0], r)


class PsiOfGradeDown(PsiLaw[GradeDownOp]):
    """`<k> ψ gd v` is the j before which k elements come in descending order."""

    name = "psi-grade-down"

    def reduce(self, op: GradeDownOp, index: Index, r: Reduction) -> SSAValue:
        return _grade(op, "gt", index[0], r)
