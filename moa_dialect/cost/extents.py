"""Extents of arguments, element types and kinds of work, as all readers see them."""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from xdsl.dialects.builtin import (
    AnyFloat,
    IntegerType,
    MemRefType,
    TensorType,
)
from xdsl.ir import Attribute
from xdsl.utils.hints import isa

from moa_dialect.cost.algebra import (
    FORMULAS,
    NOMINAL,
    Algebra,
    Expr,
    replaced,
    symbols,
)
from moa_dialect.types import known_dtype, shape_of

Names = Sequence[Sequence[str | None]]
"""For each argument and axis the name of the extent, None if it has none."""

_KINDS = {
    "arith.addf": "add",
    "arith.subf": "add",
    "arith.mulf": "mul",
    "arith.divf": "div",
    "math.sqrt": "div",
    "math.rsqrt": "div",
    "math.exp": "exp",
    "math.exp2": "exp",
    "math.expm1": "exp",
    "math.absf": "other",
    "math.fma": "mul",
}


def kind_of(name: str) -> str | None:
    """The kind of work of an operation, None if it is none."""
    if name in _KINDS:
        return _KINDS[name]
    if name.startswith("math."):
        return "math"
    return "other" if name.startswith("arith.") else None


def element_name(type_: Attribute) -> str | None:
    """The element type of work, None for indices and truth values."""
    if isinstance(type_, AnyFloat):
        return type_.name
    if isinstance(type_, IntegerType) and type_.width.data > 1:
        return f"i{type_.width.data}"
    return None


def bytes_of(type_: Attribute) -> int:
    """The size of an element in memory."""
    dtype = known_dtype(type_)
    return 8 if dtype is None else dtype.itemsize


class Extents:
    """The extents of a function's arguments, as symbols or numbers."""

    def __init__(
        self,
        types: Sequence[Attribute],
        hints: Sequence[str],
        names: Names | None,
        sizes: Mapping[str, int] | None,
        of: Algebra = FORMULAS,
    ) -> None:
        self.values: dict[Expr, int] = {}
        self.of: list[tuple[Expr, ...]] = []
        sizes = {} if sizes is None else sizes
        for number, type_ in enumerate(types):
            shape = shape_of(type_) if is_array(type_) else ()
            given = names[number] if names and number < len(names) else ()
            found: list[Expr] = []
            for axis, extent in enumerate(shape):
                name = given[axis] if axis < len(given) else None
                if name is None and extent < 0:
                    name = f"{hints[number]}_{axis}"
                if of is not FORMULAS and extent < 0:
                    found.append(sizes.get(f"{name}", NOMINAL))
                    continue
                if name is None or of is not FORMULAS:
                    found.append(of.integer(extent))
                    continue
                import sympy as sp

                symbol = sp.Symbol(name, integer=True, positive=True)
                default = extent if extent >= 0 else NOMINAL
                self.values[symbol] = (
                    sizes.get(name, default) if extent < 0 else default
                )
                found.append(symbol)
            self.of.append(tuple(found))


def without_data(expression: Expr, opaque: AbstractSet[Expr]) -> Expr:
    """An extent that depends on data: as many as there may be, 1024 of no limit.

    Args:
        expression: the extent, a number for each index of loops put in.
        opaque: the symbols that stand for indices from data.
    """
    found = symbols(expression) & opaque
    return replaced(expression, dict.fromkeys(found, NOMINAL)) if found else expression


def is_array(type_: Attribute) -> bool:
    """Whether a type is one of arrays."""
    return isa(type_, TensorType) or isa(type_, MemRefType)
