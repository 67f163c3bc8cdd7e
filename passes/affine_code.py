"""Affine expressions and sets as index arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineBinaryOpKind,
    AffineConstantExpr,
    AffineDimExpr,
    AffineExpr,
    AffineSet,
    AffineSymExpr,
)

from moa_dialect.scalar_code import constant

_OPERATIONS = {
    AffineBinaryOpKind.Add: arith.AddiOp,
    AffineBinaryOpKind.Mul: arith.MuliOp,
    AffineBinaryOpKind.FloorDiv: arith.FloorDivSIOp,
    AffineBinaryOpKind.CeilDiv: arith.CeilDivSIOp,
    AffineBinaryOpKind.Mod: arith.RemSIOp,
}


def emit_expression(
    expression: AffineExpr,
    dims: Sequence[SSAValue],
    symbols: Sequence[SSAValue],
    builder: Builder,
) -> SSAValue:
    """Emit an affine expression; `mod` is of numbers that are not negative."""
    match expression:
        case AffineConstantExpr():
            return builder.insert(constant(expression.value, IndexType())).result
        case AffineDimExpr():
            return dims[expression.position]
        case AffineSymExpr():
            return symbols[expression.position]
        case AffineBinaryOpExpr():
            operands = (
                emit_expression(side, dims, symbols, builder)
                for side in (expression.lhs, expression.rhs)
            )
            return builder.insert(_OPERATIONS[expression.kind](*operands)).result
        case _:
            raise AssertionError(f"unknown affine expression {expression}")


def emit_set(
    set_: AffineSet, values: Sequence[SSAValue], builder: Builder
) -> SSAValue:
    """Emit whether values (dimensions, then symbols) lie in an affine set."""
    dims, symbols = values[: set_.num_dims], values[set_.num_dims :]
    predicates = {">=": "sge", "<=": "sle", "==": "eq"}
    holds: SSAValue | None = None
    for c in set_.constraints:
        sides = (emit_expression(e, dims, symbols, builder) for e in (c.lhs, c.rhs))
        one = builder.insert(arith.CmpiOp(*sides, predicates[c.kind.value])).result
        holds = one if holds is None else builder.insert(arith.AndIOp(holds, one)).result
    assert holds is not None
    return holds
