"""Affine expressions and sets as index arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Operation, SSAValue
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

_OPERATIONS: dict[AffineBinaryOpKind, Callable[[SSAValue, SSAValue], Operation]] = {
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
            left = emit_expression(expression.lhs, dims, symbols, builder)
            right = emit_expression(expression.rhs, dims, symbols, builder)
            return builder.insert(_OPERATIONS[expression.kind](left, right)).results[0]
        case _:
            raise AssertionError(f"unknown affine expression {expression}")


def emit_set(set_: AffineSet, values: Sequence[SSAValue], builder: Builder) -> SSAValue:
    """Emit whether values (dimensions, then symbols) lie in an affine set."""
    dims, symbols = values[: set_.num_dims], values[set_.num_dims :]
    predicates = {">=": "sge", "<=": "sle", "==": "eq"}
    holds: SSAValue | None = None
    for c in set_.constraints:
        left = emit_expression(c.lhs, dims, symbols, builder)
        right = emit_expression(c.rhs, dims, symbols, builder)
        compare = arith.CmpiOp(left, right, predicates[c.kind.value])
        one = builder.insert(compare).result
        holds = (
            one if holds is None else builder.insert(arith.AndIOp(holds, one)).result
        )
    assert holds is not None
    return holds
