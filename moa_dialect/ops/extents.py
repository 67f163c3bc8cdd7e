"""Where an extent comes from: following shape rules back to arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import BlockArgument, OpResult, SSAValue
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import (
    AbsoluteOf,
    AxisOf,
    ElementCountOf,
    ElementOf,
    Extent,
    Fixed,
    Requirement,
    TrueCountOf,
    polynomial,
)
from moa_dialect.ops.base import ArrayOperation, constant_array
from moa_dialect.ops.function import lookup_function
from moa_dialect.types import shape_of


@dataclass(frozen=True)
class ValueAxis:
    """The extent of one axis of an array that no rule of the algebra computes."""

    value: SSAValue
    axis: int


@dataclass(frozen=True)
class ValueElement:
    """An extent that is an element of an array (row-major position)."""

    value: SSAValue
    position: int


@dataclass(frozen=True)
class ValueCount:
    """One if the array has an element, else zero."""

    value: SSAValue


@dataclass(frozen=True)
class ValueAbsolute:
    """The absolute value of an element of an array (row-major position)."""

    value: SSAValue
    position: int


@dataclass(frozen=True)
class ValueTrueCount:
    """How many elements of a vector of truth values hold."""

    value: SSAValue


RootAtom: TypeAlias = (
    Fixed | ValueAxis | ValueElement | ValueCount | ValueAbsolute | ValueTrueCount
)
Root: TypeAlias = RootAtom | Polynomial[RootAtom]
"""An extent in terms of a function's arguments, or of data where it depends on them."""


class RootCache(dict[tuple[SSAValue, int], Root]):
    """Roots found already, by array and axis, while the program stays as it is."""


def extent_root(value: SSAValue, axis: int, cache: RootCache | None = None) -> Root:
    """Follow the shape rules from one axis of an array to where its extent is given."""
    cache = RootCache() if cache is None else cache
    path: list[tuple[SSAValue, int]] = []
    while (value, axis) not in cache:
        path.append((value, axis))
        operands, extent = _given(value, axis)
        if extent is None:
            cache[value, axis] = ValueAxis(value, axis)
            break
        if not isinstance(extent, AxisOf):
            cache[value, axis] = root_of(operands, extent, cache)
            break
        value, axis = operands[extent.operand], extent.axis
    root = cache[value, axis]
    cache.update((step, root) for step in path)
    return root


def _given(value: SSAValue, axis: int) -> tuple[Sequence[SSAValue], Extent | None]:
    """The extent of an axis in terms of the operands of what makes the array."""
    match value.owner:
        case ArrayOperation() as op:
            return op.operands, op.result_extents()[axis]
        case CallOp() as op if isinstance(value, OpResult):
            callee = lookup_function(op, op.callee)
            return op.operands, function_extents(callee, value.index)[axis]
        case _:
            return (), None


def root_of(
    operands: Sequence[SSAValue], extent: Extent, cache: RootCache | None = None
) -> Root:
    """The root of an extent that is given in terms of an operation's operands."""
    match extent:
        case Polynomial():
            return _simplified(
                extent.substitute(
                    lambda atom: as_polynomial(root_of(operands, atom, cache))
                )
            )
        case Fixed():
            return extent
        case AbsoluteOf(operand, position):
            array = constant_array(operands[operand])
            if array is not None:
                return Fixed(abs(int(array.flat[position])))
            return ValueAbsolute(operands[operand], position)
        case TrueCountOf(operand):
            array = constant_array(operands[operand])
            if array is not None:
                return Fixed(int(np.count_nonzero(array)))
            return ValueTrueCount(operands[operand])
        case AxisOf(operand, axis):
            return extent_root(operands[operand], axis, cache)
        case ElementCountOf(operand):
            shape = shape_of(operands[operand].type)
            if 0 in shape:
                return Fixed(0)
            return ValueCount(operands[operand]) if DYNAMIC_INDEX in shape else Fixed(1)
        case ElementOf(operand, position):
            value = operands[operand]
            array = constant_array(value)
            if array is not None:
                return Fixed(int(array.reshape(-1)[position]))
            return _shape_entry(value, position) or ValueElement(value, position)


def as_polynomial(root: Root) -> Polynomial[RootAtom]:
    """A root as a polynomial, so that it can be computed with."""
    match root:
        case Polynomial():
            return root
        case Fixed(value):
            return Polynomial[RootAtom].constant(value)
        case _:
            return Polynomial[RootAtom].atom(root)


def _simplified(root: Polynomial[RootAtom]) -> Root:
    """A polynomial that is one number or one atom as that."""
    if (number := root.number) is not None:
        return Fixed(number)
    atom = root.single
    return root if atom is None else atom


def _shape_entry(value: SSAValue, position: int) -> Root | None:
    """The extent that an entry of a shape is, also when picked by a constant psi."""
    if isinstance(value, OpResult) and value.op.name == "moa.psi":
        index = constant_array(value.op.operands[0])
        if index is None or index.shape != (1,):
            return None
        value, position = value.op.operands[1], int(index[0])
    if isinstance(value, OpResult) and value.op.name == "moa.shape":
        return extent_root(value.op.operands[0], position)
    return None


def _as_extent(root: Root) -> Extent | None:
    """A root in terms of the function's arguments; None if it depends on data."""
    match root:
        case Fixed():
            return root
        case ValueAxis(BlockArgument() as argument, axis):
            return AxisOf(argument.index, axis)
        case Polynomial():
            atoms = {atom for product, _ in root.terms for atom in product}
            known = {atom: _as_extent(atom) for atom in atoms}
            if any(extent is None for extent in known.values()):
                return None
            return root.substitute(lambda atom: polynomial(known[atom] or Fixed(0)))
        case _:
            return None


def function_extents(function: FuncOp, result: int = 0) -> tuple[Extent, ...]:
    """The shape of one of a function's results in terms of its arguments.

    Raises:
        VerifyException: if the shape depends on data, not on extents alone.
    """
    terminator = function.body.block.last_op
    assert isinstance(terminator, ReturnOp)
    value = terminator.operands[result]
    extents: list[Extent] = []
    for axis in range(len(shape_of(value.type))):
        extent = _as_extent(extent_root(value, axis))
        if extent is None:
            raise VerifyException(
                f"function @{function.sym_name.data}: the shape of its result depends "
                f"on data, so cells need not give equal shapes"
            )
        extents.append(extent)
    return tuple(extents)


def declared(op: ArrayOperation) -> Iterator[Requirement]:
    """A static extent that the result type states and the operands do not give."""
    stated, inferred = shape_of(op.array_result.type), shape_of(op.inferred_type())
    for axis, extent in enumerate(op.result_extents()):
        if stated[axis] >= 0 and inferred[axis] < 0:
            message = f"{op.name}: the result type states the extent of axis {axis}"
            yield Requirement("eq", extent, Fixed(stated[axis]), message)


def function_requirements(function: FuncOp) -> tuple[Requirement, ...]:
    """The preconditions inside a function that its arguments' extents decide."""
    found = [
        Requirement(
            "eq",
            AxisOf(argument.index, axis),
            Fixed(extent),
            f"@{function.sym_name.data}: the type of argument {argument.index} states "
            f"the extent of axis {axis}",
        )
        for argument in function.body.block.args
        if isa(argument.type, TensorType)
        for axis, extent in enumerate(argument.type.get_shape())
        if extent >= 0
    ]
    for op in function.body.block.ops:
        if not isinstance(op, ArrayOperation):
            continue
        for r in (*op.requirements(), *declared(op)):
            given = _as_extent(root_of(op.operands, r.given))
            expected = _as_extent(root_of(op.operands, r.expected))
            if given is not None and expected is not None and given != expected:
                found.append(Requirement(r.relation, given, expected, r.message))
    return tuple(found)
