"""Shapes as symbolic extents, and the preconditions the algebra puts on them.

An operation of the algebra states its result shape and its preconditions once, in
terms of its operands, as values of this module. The verifier evaluates them on static
types, shape inference turns what is left into guards, and the interpreter evaluates
them on arrays: one statement, three uses.

Source of the shape rules: Mullin, *A Mathematics of Arrays* (1988); Mullin and
Thibault, *A Reduction Semantics for Array Expressions: the Psi Compiler* (1994).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from moa_dialect.algebra.polynomial import Polynomial


@dataclass(frozen=True)
class Fixed:
    """An extent that is a number, e.g. the 3 of `iota 3`."""

    value: int


@dataclass(frozen=True)
class AxisOf:
    """The extent of axis `axis` of operand number `operand`."""

    operand: int
    axis: int


@dataclass(frozen=True)
class ElementOf:
    """Element `position` of operand `operand`, read in row-major order.

    The operand is a vector or scalar of integers: the shape argument of `iota`.
    """

    operand: int
    position: int


@dataclass(frozen=True)
class ElementCountOf:
    """The total number of elements of operand `operand`, capped at one.

    It is 0 when the operand is empty and 1 otherwise: "some index is used at all".
    """

    operand: int


@dataclass(frozen=True)
class AbsoluteOf:
    """The absolute value of an element: the length that `take` keeps."""

    operand: int
    position: int


@dataclass(frozen=True)
class TrueCountOf:
    """How many elements of operand `operand`, a vector of truth values, hold."""

    operand: int


Atom: TypeAlias = Fixed | AxisOf | ElementOf | ElementCountOf | AbsoluteOf | TrueCountOf
Extent: TypeAlias = Atom | Polynomial[Atom]


def polynomial(extent: Extent) -> Polynomial[Atom]:
    """An extent as a polynomial, so that it can be computed with."""
    match extent:
        case Polynomial():
            return extent
        case Fixed(value):
            return Polynomial[Atom].constant(value)
        case _:
            return Polynomial[Atom].atom(extent)


def plus(left: Extent, right: Extent) -> Extent:
    """The sum of two extents."""
    return polynomial(left) + polynomial(right)


def minus(left: Extent, right: Extent) -> Extent:
    """The difference of two extents."""
    return polynomial(left) - polynomial(right)


def times(extents: Iterable[Extent]) -> Extent:
    """The product of extents; 1 if there are none."""
    product = Polynomial[Atom].constant(1)
    for extent in extents:
        product = product * polynomial(extent)
    return product


def evaluate(extent: Extent, value: Callable[[Atom], int | None]) -> int | None:
    """The number an extent stands for, None if that of one of its atoms is not known.

    `value` gives the number of an atom that is not `Fixed`.
    """
    if isinstance(extent, Fixed):
        return extent.value
    if not isinstance(extent, Polynomial):
        return value(extent)
    total = 0
    for atoms, coefficient in extent.terms:
        term = coefficient
        for atom in atoms:
            number = value(atom)
            if number is None:
                return None
            term *= number
        total += term
    return total


Relation = Literal["eq", "lt", "le", "ge"]

RELATIONS: dict[Relation, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "ge": operator.ge,
}

_BOUND: dict[Relation, str] = {
    "eq": "",
    "lt": "less than ",
    "le": "at most ",
    "ge": "at least ",
}


@dataclass(frozen=True)
class Requirement:
    """A precondition: `given` stands in `relation` to `expected`.

    `message` names the operator and the axes; the numbers, and where they come from,
    are appended by `failure_template` and `failure_message`.
    """

    relation: Relation
    given: Extent
    expected: Extent
    message: str


def failure_template(
    relation: Relation, message: str, given: str | None, expected: str | None
) -> str:
    """A message with places for the numbers, `{expected}` and `{given}`.

    Args:
        relation: in which the given number must stand to the expected one.
        message: what is required.
        given: where the given number comes from, None if that has no name.
        expected: the same for the expected number.

    Returns:
        The message as it is if neither side has a source.

    >>> failure_template("le", "take: too many", "element 0 of v", None)
    'take: too many: expected at most {expected}, got {given} (element 0 of v)'
    """
    if given is None and expected is None:
        return message
    sources = ("" if source is None else f" ({source})" for source in (expected, given))
    return "{}: expected {}{{expected}}{}, got {{given}}{}".format(
        message, _BOUND[relation], *sources
    )


def failure_message(relation: Relation, message: str, given: int, expected: int) -> str:
    """One line: what was required, what was expected, what was given.

    A message made by `failure_template` has places for the numbers; to any other they
    are appended.

    >>> failure_message("eq", "inner: contracted extents must be equal", 5, 4)
    'inner: contracted extents must be equal: expected 4, got 5'
    >>> failure_message("eq", "add: expected {expected} (n), got {given} (m)", 5, 4)
    'add: expected 4 (n), got 5 (m)'
    """
    if "{expected}" in message and "{given}" in message:
        message = message.replace("{expected}", str(expected))
        return message.replace("{given}", str(given))
    return f"{message}: expected {_BOUND[relation]}{expected}, got {given}"


def axes_of(operand: int, axes: Sequence[int] | range) -> tuple[Extent, ...]:
    """The extents of the given axes of one operand."""
    return tuple(AxisOf(operand, axis) for axis in axes)


def transpose_source_axes(permutation: Sequence[int]) -> tuple[int, ...]:
    """For each result axis of `t ⊘ A`, the axis of A it is: the grade up of t.

    MoA's general transpose puts source axis k at result axis `t[k]`: `r[t_k] = s_k`.
    It is the inverse of the axes argument of `numpy.transpose`.

    >>> transpose_source_axes((1, 2, 0))
    (2, 0, 1)
    """
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


@dataclass(frozen=True)
class OmegaFrames:
    """How the frames of omega's two operands share their axes.

    Cells are the trailing axes; the frames agree on their *trailing* `common` axes and
    the longer frame's excess comes first in the result: shape `u ++ v ++ x ++ w` with
    excess u of the left, v of the right (one of them empty), common x, cells w.
    """

    left_frame: int
    right_frame: int

    @property
    def common(self) -> int:
        """The number of axes the two frames share."""
        return min(self.left_frame, self.right_frame)

    def left_axes(self) -> range:
        """Which result axes index the left frame, in order."""
        return range(self.result_frame - self.left_frame, self.result_frame)

    def right_axes(self) -> range:
        """Which result axes index the right frame, in order."""
        return range(self.result_frame - self.right_frame, self.result_frame)

    @property
    def result_frame(self) -> int:
        """The number of frame axes of the result."""
        return max(self.left_frame, self.right_frame)

    def shared_axes(self) -> list[tuple[int, int]]:
        """The pairs (left axis, right axis) that must have equal extents."""
        return [
            (self.left_frame - k, self.right_frame - k)
            for k in range(self.common, 0, -1)
        ]
