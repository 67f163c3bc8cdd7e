"""The scalar operations: one table for verifier, interpreter, notation and code.

A scalar operation is named by a string wherever it appears: as the function of
`moa.pointwise`, `moa.map`, `moa.reduce`, `moa.outer`, `moa.inner`, `moa.omega` and
`moa.fold`. Which upstream operation computes it, `moa_dialect.scalar_code` decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

Kind = Literal["float", "int", "bool"]
"""What the element types have in common: index counts as an int."""

_NUMBER: frozenset[Kind] = frozenset({"float", "int"})
_FLOAT: frozenset[Kind] = frozenset({"float"})
_INT: frozenset[Kind] = frozenset({"int"})
_BOOL: frozenset[Kind] = frozenset({"bool"})
_ANY: frozenset[Kind] = frozenset({"float", "int", "bool"})

Identity = Literal["zero", "one", "lowest", "highest", "true", "false"]


@dataclass(frozen=True)
class ScalarOperation:
    """A scalar function of the algebra.

    Attributes:
        name: the string that names it in the IR and in Python.
        arity: the number of arguments, one or two.
        kinds: the kinds of element type it accepts.
        symbol: how MoA notation writes it, infix for arity two.
        compute: its meaning on NumPy scalars or arrays.
        is_predicate: whether the result is a truth value whatever the arguments.
        identity: its two-sided identity element, None if it has none.
    """

    name: str
    arity: int
    kinds: frozenset[Kind]
    symbol: str
    compute: Callable[..., Any]
    is_predicate: bool = False
    identity: Identity | None = None


def _erf(x: Any) -> Any:
    values = np.vectorize(math.erf, otypes=[np.float64])(x)
    return values.astype(np.asarray(x).dtype)[()]


def _chosen(condition: Any, then: Any, otherwise: Any) -> Any:
    return cast(Callable[..., Any], np.where)(condition, then, otherwise)[()]


def floor_divide(x: Any, y: Any) -> Any:
    """`⌊x ÷ y⌋` of integers, 0 for y = 0; of the least number by -1 it wraps around."""
    is_zero = np.equal(y, 0)
    quotient = np.floor_divide(x, _chosen(is_zero, np.ones_like(y), y))
    return _chosen(is_zero, np.zeros_like(x), quotient)


def modulo(x: Any, y: Any) -> Any:
    """`x - y × ⌊x ÷ y⌋` of integers, with the sign of y; x for y = 0."""
    is_zero = np.equal(y, 0)
    return _chosen(is_zero, x, np.remainder(x, _chosen(is_zero, np.ones_like(y), y)))


def _rsqrt(x: Any) -> Any:
    return np.asarray(1, np.asarray(x).dtype)[()] / np.sqrt(x)


_TABLE = (
    ScalarOperation("add", 2, _NUMBER, "+", np.add, identity="zero"),
    ScalarOperation("sub", 2, _NUMBER, "-", np.subtract),
    ScalarOperation("mul", 2, _NUMBER, "×", np.multiply, identity="one"),
    ScalarOperation("div", 2, _FLOAT, "÷", np.divide),
    ScalarOperation("pow", 2, _FLOAT, "*", np.power),
    ScalarOperation("floordiv", 2, _INT, "div", floor_divide),
    ScalarOperation("mod", 2, _INT, "mod", modulo),
    ScalarOperation("max", 2, _NUMBER, "⌈", np.maximum, identity="lowest"),
    ScalarOperation("min", 2, _NUMBER, "⌊", np.minimum, identity="highest"),
    ScalarOperation("and", 2, _BOOL, "∧", np.logical_and, identity="true"),
    ScalarOperation("or", 2, _BOOL, "∨", np.logical_or, identity="false"),
    ScalarOperation("xor", 2, _BOOL, "⊻", np.logical_xor, identity="false"),
    ScalarOperation("eq", 2, _ANY, "=", np.equal, is_predicate=True),
    ScalarOperation("ne", 2, _ANY, "≠", np.not_equal, is_predicate=True),
    ScalarOperation("lt", 2, _NUMBER, "<", np.less, is_predicate=True),
    ScalarOperation("le", 2, _NUMBER, "≤", np.less_equal, is_predicate=True),
    ScalarOperation("gt", 2, _NUMBER, ">", np.greater, is_predicate=True),
    ScalarOperation("ge", 2, _NUMBER, "≥", np.greater_equal, is_predicate=True),
    ScalarOperation("neg", 1, _NUMBER, "-", np.negative),
    ScalarOperation("abs", 1, _NUMBER, "abs", np.abs),
    ScalarOperation("exp", 1, _FLOAT, "exp", np.exp),
    ScalarOperation("exp2", 1, _FLOAT, "exp2", np.exp2),
    ScalarOperation("log", 1, _FLOAT, "log", np.log),
    ScalarOperation("log2", 1, _FLOAT, "log2", np.log2),
    ScalarOperation("sqrt", 1, _FLOAT, "sqrt", np.sqrt),
    ScalarOperation("rsqrt", 1, _FLOAT, "rsqrt", _rsqrt),
    ScalarOperation("tanh", 1, _FLOAT, "tanh", np.tanh),
    ScalarOperation("erf", 1, _FLOAT, "erf", _erf),
    ScalarOperation("sin", 1, _FLOAT, "sin", np.sin),
    ScalarOperation("cos", 1, _FLOAT, "cos", np.cos),
    ScalarOperation("floor", 1, _FLOAT, "floor", np.floor),
    ScalarOperation("ceil", 1, _FLOAT, "ceil", np.ceil),
    ScalarOperation("sign", 1, _NUMBER, "sign", np.sign),
    ScalarOperation("not", 1, _BOOL, "¬", np.logical_not),
)

SCALAR_OPERATIONS: dict[str, ScalarOperation] = {op.name: op for op in _TABLE}


def names(arity: int | None = None) -> list[str]:
    """The names of all scalar operations, or of those with this arity."""
    return [op.name for op in _TABLE if arity is None or op.arity == arity]
