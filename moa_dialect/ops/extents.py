"""Where an extent comes from: following shape rules back to arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, OpResult, SSAValue
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
    failure_template,
    polynomial,
)
from moa_dialect.errors import CompileError, MoaError
from moa_dialect.ops.base import ArrayOperation, constant_array
from moa_dialect.ops.function import lookup_function
from moa_dialect.ops.normal_form import ComprehensionOp, ExtentOp, FixedExtentOp
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
        if isinstance(value.owner, ComprehensionOp):
            place = value.owner.axis_at(axis)
            root = None
            if place is not None:
                root = index_root(value.owner.extents[place], cache)
            cache[value, axis] = ValueAxis(value, axis) if root is None else root
            break
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


def index_root(value: SSAValue, cache: RootCache | None = None) -> Root | None:
    """The root of an extent that is a value at the top of a function.

    That is an extent, a number, or sums, differences and products of them; of a choice
    by whether one is below 0 it is the side that is chosen. None for any other.
    """
    match value.owner:
        case arith.IndexCastOp() as op:
            return index_root(op.input, cache)
        case arith.SelectOp() as op:
            holds = _is_known(op.cond, cache)
            if holds is None:
                return None
            return index_root(op.lhs if holds else op.rhs, cache)
        case ExtentOp() as op:
            return extent_root(op.array, op.axis_number, cache)
        case FixedExtentOp() as op:
            return Fixed(op.static_value)
        case arith.ConstantOp() as op if isinstance(op.value, IntegerAttr):
            return Fixed(op.value.value.data)
        case arith.AddiOp() | arith.SubiOp() | arith.MuliOp() as op:
            left, right = index_root(op.lhs, cache), index_root(op.rhs, cache)
            if left is None or right is None:
                return None
            lhs, rhs = as_polynomial(left), as_polynomial(right)
            if isinstance(op, arith.MuliOp):
                return simplified(lhs * rhs)
            return simplified(lhs + rhs if isinstance(op, arith.AddiOp) else lhs - rhs)
        case _:
            return None


def _is_known(condition: SSAValue, cache: RootCache | None) -> bool | None:
    """Whether a comparison with 0 holds because extents are not below it."""
    op = condition.owner
    if not isinstance(op, arith.CmpiOp):
        return None
    predicate = arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data]
    if index_root(op.rhs, cache) != Fixed(0) or predicate not in ("slt", "sge"):
        return None
    root = index_root(op.lhs, cache)
    if root is None or any(c < 0 for _, c in as_polynomial(root).terms):
        return None
    return predicate == "sge"


def root_of(
    operands: Sequence[SSAValue], extent: Extent, cache: RootCache | None = None
) -> Root:
    """The root of an extent that is given in terms of an operation's operands."""
    match extent:
        case Polynomial():
            return simplified(
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
            return _shape_entry(value, position, cache) or ValueElement(value, position)


def as_polynomial(root: Root) -> Polynomial[RootAtom]:
    """A root as a polynomial, so that it can be computed with."""
    match root:
        case Polynomial():
            return root
        case Fixed(value):
            return Polynomial[RootAtom].constant(value)
        case _:
            return Polynomial[RootAtom].atom(root)


def simplified(root: Polynomial[RootAtom]) -> Root:
    """A polynomial that is one number or one atom as that."""
    if (number := root.number) is not None:
        return Fixed(number)
    atom = root.single
    return root if atom is None else atom


def _shape_entry(
    value: SSAValue, position: int, cache: RootCache | None = None
) -> Root | None:
    """The extent that an entry of a shape is, also when picked by a constant psi.

    So are the number of all elements and that of the axes.
    """
    if isinstance(value, OpResult) and value.op.name == "moa.psi":
        index = constant_array(value.op.operands[0])
        if index is None or index.shape != (1,):
            return None
        value, position = value.op.operands[1], int(index[0])
    if not isinstance(value, OpResult):
        return None
    operands = value.op.operands
    match value.op.name:
        case "moa.shape":
            return extent_root(operands[0], position, cache)
        case "moa.dim":
            return Fixed(len(shape_of(operands[0].type)))
        case "moa.total":
            total = Polynomial[RootAtom].constant(1)
            for axis in range(len(shape_of(operands[0].type))):
                total = total * as_polynomial(extent_root(operands[0], axis, cache))
            return simplified(total)
        case _:
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


# Names of extents, and where an extent comes from in words.

EXTENTS = "moa.extents"
"""The attribute of a function's argument that names its extents: `["n", "?", "64"]`."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_LONGEST_SOURCE = 100
"""Beyond that many characters, where a number comes from does not help the reader."""


def is_extent_name(text: str) -> bool:
    """Whether an extent may be called so: a letter, then letters, digits and `_`."""
    return _NAME.fullmatch(text) is not None


def argument_name(argument: BlockArgument) -> str:
    """What messages call an argument: its SSA name, or `arg0` and so on."""
    return argument.name_hint or f"arg{argument.index}"


ExtentNames: TypeAlias = Mapping[ValueAxis, str]
"""The names of arguments' extents, in the arguments' order."""


def extent_names(function: FuncOp) -> dict[ValueAxis, str]:
    """The extents of a function's arguments that `moa.extents` names.

    Raises:
        CompileError: if an attribute does not fit its argument's type.
    """
    named: dict[ValueAxis, str] = {}
    attributes = function.arg_attrs or ()
    for argument, given in zip(function.body.block.args, attributes, strict=False):
        if (entries := given.data.get(EXTENTS)) is not None:
            for axis, name in _entry_names(argument, entries):
                named[ValueAxis(argument, axis)] = name
    return named


def _entry_names(
    argument: BlockArgument, entries: Attribute
) -> Iterator[tuple[int, str]]:
    """The axes of an argument that have a name, checked against its type."""
    what = f"{EXTENTS} of argument {argument_name(argument)}"
    if not isa(entries, ArrayAttr[StringAttr]):
        raise CompileError(f"{what}: expected an array of strings, got {entries}")
    shape = shape_of(argument.type) if isa(argument.type, TensorType) else ()
    if len(entries) != len(shape):
        raise CompileError(
            f"{what}: expected one entry for each axis, {len(shape)}, "
            f"got {len(entries)}"
        )
    for axis, (entry, stated) in enumerate(zip(entries, shape, strict=True)):
        text = entry.data
        if text in ("", "?"):
            continue
        if is_extent_name(text):
            yield axis, text
        elif not text.isascii() or not text.isdigit():
            raise CompileError(
                f'{what}: expected a name, a number or "?" for axis {axis}, '
                f'got "{text}"'
            )
        elif stated != int(text):
            extent = "a name" if stated < 0 else stated
            raise CompileError(
                f"{what}: expected {extent} for axis {axis} of {argument.type}, "
                f"got {text}"
            )


def without_extent_names(function: FuncOp) -> None:
    """Remove the attributes that `extent_names` reads."""
    if (attributes := function.arg_attrs) is None:
        return
    kept = [
        DictionaryAttr({k: v for k, v in given.data.items() if k != EXTENTS})
        for given in attributes
    ]
    function.arg_attrs = ArrayAttr(kept) if any(k.data for k in kept) else None


def equal_by_name(names: ExtentNames) -> Iterator[tuple[ValueAxis, ValueAxis, str]]:
    """The pairs of extents that a common name makes equal: given, expected, message.

    Every extent of a name is compared with the first one.
    """
    first: dict[str, ValueAxis] = {}
    for given, name in names.items():
        expected = first.setdefault(name, given)
        if given is not expected:
            yield (
                given,
                expected,
                f"extent {name}: {_axis_text(given)} must equal {_axis_text(expected)}",
            )


def _axis_text(extent: ValueAxis) -> str | None:
    """`axis 0 of a`, None for an array that is no argument."""
    if not isinstance(extent.value, BlockArgument):
        return None
    return f"axis {extent.axis} of {argument_name(extent.value)}"


def _atom_text(atom: RootAtom) -> str | None:
    """Where an extent comes from, in words; None if it is no argument's."""
    match atom:
        case Fixed(value):
            return str(value)
        case ValueAxis():
            return _axis_text(atom)
        case ValueElement(BlockArgument() as argument, position):
            return _element_text(argument, position)
        case ValueAbsolute(BlockArgument() as argument, position):
            element = _element_text(argument, position)
            return f"the absolute value of {element.removeprefix('the value of ')}"
        case ValueTrueCount(BlockArgument() as argument):
            return f"the number of true elements of {argument_name(argument)}"
        case _:
            return None


def _element_text(argument: BlockArgument, position: int) -> str:
    name = argument_name(argument)
    if not shape_of(argument.type):
        return f"the value of {name}"
    return f"element {position} of {name}"


def root_text(
    root: Root, text: Callable[[RootAtom], str | None], times: str = "*"
) -> str | None:
    """An extent as a sum of products, None if one of its atoms has no text.

    >>> root_text(Fixed(3), lambda atom: None)
    '3'
    """
    if isinstance(root, Fixed):
        return str(root.value)
    total = ""
    for atoms, coefficient in as_polynomial(root).terms:
        factors = [text(atom) for atom in atoms]
        if abs(coefficient) != 1 or not atoms:
            factors.insert(0, str(abs(coefficient)))
        known = [factor for factor in factors if factor is not None]
        if len(known) < len(factors):
            return None
        sign = "-" if coefficient < 0 else "+"
        lead = f" {sign} " if total else sign.replace("+", "")
        total += lead + f" {times} ".join(known)
    return total or "0"


def source_text(root: Root, names: ExtentNames) -> str | None:
    """Where a number comes from, for a message: `n, axis 0 of a`.

    Args:
        root: the extent.
        names: the names of the arguments' extents.

    Returns:
        None for a number of the program, and if arguments alone do not give the number.
    """
    text = None if isinstance(root, Fixed) else root_text(root, _atom_text)
    if text is None or len(text) > _LONGEST_SOURCE:
        return None

    def name_of(atom: RootAtom) -> str | None:
        return names.get(atom) if isinstance(atom, ValueAxis) else None

    name = root_text(root, name_of)
    return text if name is None else f"{name}, {text}"


def described(
    requirement: Requirement,
    operands: Sequence[SSAValue],
    names: ExtentNames | None = None,
    cache: RootCache | None = None,
) -> str:
    """A requirement's message, with where its numbers come from.

    Args:
        requirement: the precondition of an operation.
        operands: the operation's operands.
        names: the extents' names if they are known already.
        cache: roots found already.

    Returns:
        What `failure_message` completes.
    """
    try:
        given, expected = (
            root_of(operands, extent, cache)
            for extent in (requirement.given, requirement.expected)
        )
        known = _names_around(operands) if names is None else names
        sources = source_text(given, known), source_text(expected, known)
    except (MoaError, VerifyException):
        # Something else is wrong with the program, and is reported where it stands.
        return requirement.message
    return failure_template(requirement.relation, requirement.message, *sources)


def _names_around(operands: Sequence[SSAValue]) -> ExtentNames:
    """The names of extents in the function that operands belong to."""
    for operand in operands:
        owner = operand.owner
        op = owner.parent_op() if isinstance(owner, Block) else owner
        while op is not None and not isinstance(op, FuncOp):
            op = op.parent_op()
        if op is not None:
            return extent_names(op)
    return {}
