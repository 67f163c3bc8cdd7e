"""Extents that a program computes with: in terms of the extents of its arguments.

Exporters write the size of an array by arithmetic on numbers: products and quotients of
extents, with choices for sizes that are below 0 or 1. Extents are at least 0, which
decides most of the choices, and most quotients have no rest.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AffineMapAttr,
    IntegerAttr,
    TensorType,
    i1,
)
from xdsl.ir import Block, Operation, SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineConstantExpr,
    AffineDimExpr,
    AffineExpr,
    AffineSymExpr,
)
from xdsl.utils.hints import isa

from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.ops.extents import (
    Root,
    RootAtom,
    RootCache,
    ValueAxis,
    as_polynomial,
    extent_root,
    index_root,
    simplified,
)
from moa_dialect.passes.raising.source import name_of, property_of
from moa_dialect.types import shape_of

Size = Polynomial[RootAtom]
"""A number in terms of extents."""


class Sizes:
    """The sizes that a function computes, as polynomials of extents.

    Args:
        roots: the extents that are known already.
    """

    def __init__(self, roots: RootCache):
        self._roots = roots
        self._known: dict[SSAValue, Size | None] = {}

    def root(self, value: SSAValue) -> Root | None:
        """What a number is in terms of extents; None if it is anything else."""
        size = self.size(value)
        return None if size is None else simplified(size)

    def size(self, value: SSAValue) -> Size | None:
        """The same as a polynomial."""
        if value not in self._known:
            size = self._size(value)
            known = None if size is None else size.substitute(_stated)
            self._known[value] = known
        return self._known[value]

    def _size(self, value: SSAValue) -> Size | None:
        op = value.owner
        if isinstance(op, Block):
            return None
        match op:
            case arith.IndexCastOp() | arith.ExtUIOp():
                return self.size(op.operands[0])
            case arith.ExtSIOp() if op.operands[0].type != i1:
                return self.size(op.operands[0])
            case arith.ConstantOp() if isinstance(op.value, IntegerAttr):
                return Size.constant(op.value.value.data)
            case arith.SelectOp():
                holds = self.size(op.cond)
                if holds is None or holds.number is None:
                    return None
                return self.size(op.lhs if holds.number else op.rhs)
            case arith.CmpiOp():
                return self._comparison(op)
            case _:
                return self._arithmetic(op, value)

    def _arithmetic(self, op: Operation, value: SSAValue) -> Size | None:
        name = name_of(op)
        if name == "affine.apply":
            return self._applied(op)
        if name == "tensor.dim":
            return self._extent(op)
        combine = _COMBINE.get(name)
        if combine is None:
            root = index_root(value, self._roots)
            return None if root is None else as_polynomial(root)
        left, right = (self.size(operand) for operand in op.operands)
        return None if left is None or right is None else combine(left, right)

    def _extent(self, op: Operation) -> Size | None:
        """An extent of an array, by an axis that the program gives."""
        array, axis = op.operands
        number = self.size(axis)
        place = None if number is None else number.number
        if not isa(array.type, TensorType) or place is None:
            return None
        if not 0 <= place < len(array.type.get_shape()):
            return None
        return as_polynomial(extent_root(array, place, self._roots))

    def _comparison(self, op: arith.CmpiOp) -> Size | None:
        """A comparison that holds, or does not, whatever the extents are."""
        left, right = self.size(op.lhs), self.size(op.rhs)
        if left is None or right is None:
            return None
        holds = compared(
            arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data], left, right
        )
        return None if holds is None else Size.constant(int(holds))

    def _applied(self, op: Operation) -> Size | None:
        """What `affine.apply` gives."""
        map_ = property_of(op, "map")
        if not isinstance(map_, AffineMapAttr) or len(map_.data.results) != 1:
            return None
        operands = [self.size(operand) for operand in op.operands]
        count = map_.data.num_dims

        def visit(expression: AffineExpr) -> Size | None:
            match expression:
                case AffineConstantExpr():
                    return Size.constant(expression.value)
                case AffineDimExpr():
                    return operands[expression.position]
                case AffineSymExpr():
                    return operands[count + expression.position]
                case AffineBinaryOpExpr():
                    left, right = visit(expression.lhs), visit(expression.rhs)
                    combine = _AFFINE.get(expression.kind.name)
                    if left is None or right is None or combine is None:
                        return None
                    return combine(left, right)
                case _:
                    return None

        return visit(map_.data.results[0])


def _stated(atom: RootAtom) -> Size:
    """An extent, as the number that its type states if it states one."""
    if isinstance(atom, ValueAxis):
        extent = shape_of(atom.value.type)[atom.axis]
        if extent != DYNAMIC_INDEX:
            return Size.constant(extent)
    return Size.atom(atom)


def compared(predicate: str, left: Size, right: Size) -> bool | None:
    """Whether a comparison holds for all extents, None if that depends on them."""
    least, most = _least(left - right), _least(right - left)
    most = None if most is None else -most
    match predicate:
        case "slt":
            return _decide(
                most is not None and most < 0, least is not None and least >= 0
            )
        case "sge":
            return _decide(
                least is not None and least >= 0, most is not None and most < 0
            )
        case "sgt":
            return _decide(
                least is not None and least > 0, most is not None and most <= 0
            )
        case "sle":
            return _decide(
                most is not None and most <= 0, least is not None and least > 0
            )
        case "eq" | "ne":
            differs = (least is not None and least > 0) or (
                most is not None and most < 0
            )
            known = _decide(left == right, differs)
            return known if known is None or predicate == "eq" else not known
        case _:
            return None


def _decide(holds: bool, fails: bool) -> bool | None:
    return True if holds else False if fails else None


def _least(size: Size) -> int | None:
    """The least value that extents of at least 0 may give, if there is one."""
    constant = 0
    for atoms, coefficient in size.terms:
        if not atoms:
            constant = coefficient
        elif coefficient < 0:
            return None
    return constant


def quotient(left: Size, right: Size) -> Size | None:
    """A quotient that has no rest, whatever the extents are; None of any other."""
    if len(right.terms) != 1:
        return Size.constant(1) if left == right else None
    ((divisor, factor),) = right.terms
    terms: list[tuple[tuple[RootAtom, ...], int]] = []
    for atoms, coefficient in left.terms:
        rest = list(atoms)
        for atom in divisor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % factor:
            return None
        terms.append((tuple(rest), coefficient // factor))
    return Size(tuple(terms))


def _floor(left: Size, right: Size) -> Size | None:
    """A quotient of numbers, or one without a rest."""
    if left.number is not None and right.number:
        return Size.constant(left.number // right.number)
    return quotient(left, right)


def _toward_zero(left: Size, right: Size) -> Size | None:
    if left.number is not None and right.number:
        size = abs(left.number) // abs(right.number)
        sign = 1 if (left.number < 0) == (right.number < 0) else -1
        return Size.constant(sign * size)
    return quotient(left, right)


def _ceiling(left: Size, right: Size) -> Size | None:
    if left.number is not None and right.number:
        return Size.constant(-(-left.number // right.number))
    return quotient(left, right)


def _rest(left: Size, right: Size) -> Size | None:
    """What is left over: of numbers at least 0, or nothing."""
    if left.number is not None and right.number and min(left.number, right.number) >= 0:
        return Size.constant(left.number % right.number)
    return None if quotient(left, right) is None else Size.constant(0)


def _extreme(predicate: str) -> Callable[[Size, Size], Size | None]:
    """The one of two that the comparison with the other holds for."""

    def choose(left: Size, right: Size) -> Size | None:
        holds = compared(predicate, left, right)
        return None if holds is None else left if holds else right

    return choose


_COMBINE: dict[str, Callable[[Size, Size], Size | None]] = {
    "arith.addi": lambda left, right: left + right,
    "arith.subi": lambda left, right: left - right,
    "arith.muli": lambda left, right: left * right,
    "arith.divsi": _toward_zero,
    "arith.divui": _toward_zero,
    "arith.floordivsi": _floor,
    "arith.ceildivsi": _ceiling,
    "arith.ceildivui": _ceiling,
    "arith.remsi": _rest,
    "arith.remui": _rest,
    "arith.maxsi": _extreme("sge"),
    "arith.minsi": _extreme("sle"),
}

_AFFINE = {
    "Add": _COMBINE["arith.addi"],
    "Mul": _COMBINE["arith.muli"],
    "FloorDiv": _floor,
    "CeilDiv": _ceiling,
    "Mod": _rest,
}
