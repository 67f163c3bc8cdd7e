"""Signs of MoA notation, their ASCII spellings, and how closely they bind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.pretty import (
    EMPTY,
    SPACE,
    Document,
    Group,
    Nest,
    concat,
    join,
)
from moa_dialect.types import ELEMENT_TYPE_NAMES, array_of, dtype_of

MAX_LITERAL = 12
"""A vector constant with more entries is abridged."""

_ASCII = {
    "ψ": "psi",
    "ρ": "rho",
    "ρ̂": "reshape",
    "δ": "dim",
    "τ": "tau",
    "π": "pi",
    "γ": "gamma",
    "γ'": "gamma'",
    "ι": "iota",
    "⊘": "tran",
    "Ω": "omega",
    "•": ".",
    "∀": "forall",
    "→": "->",
    "…": "...",
    "∞": "inf",
    "×": "*",
    "÷": "/",
    "*": "**",
    "⌈": "max",
    "⌊": "min",
    "∧": "and",
    "∨": "or",
    "⊻": "xor",
    "¬": "not",
    "≠": "!=",
    "≤": "<=",
    "≥": ">=",
}

WORDS = {
    *(word for word in _ASCII.values() if word.isidentifier()),
    *SCALAR_OPERATIONS,
    *(name for name in ELEMENT_TYPE_NAMES if name != "i1"),
    *("red", "fold", "let", "where", "require", "within", "mod", "div"),
    *("nan", "true", "false"),
}
"""What no value may be called."""


class Level(IntEnum):
    """How closely an expression is bound."""

    LOOSE = 1
    LOGIC = 2
    COMPARISON = 3
    SUM = 4
    PRODUCT = 5
    PSI = 6
    PREFIX = 7
    ATOM = 8


@dataclass(frozen=True)
class _Rule:
    """How an infix sign binds: its level, what its operands need, what it continues."""

    level: Level
    operands: Level
    continues: str = ""


_RULES = {
    "×": _Rule(Level.PRODUCT, Level.PSI, "×"),
    "÷": _Rule(Level.PRODUCT, Level.PSI, "×"),
    "+": _Rule(Level.SUM, Level.PRODUCT, "+-"),
    "-": _Rule(Level.SUM, Level.PRODUCT, "+-"),
    **{sign: _Rule(Level.COMPARISON, Level.SUM) for sign in "=≠<≤>≥"},
    **{sign: _Rule(Level.LOGIC, Level.COMPARISON, sign) for sign in "∧∨⊻"},
    **{sign: _Rule(Level.LOOSE, Level.PSI, sign) for sign in "⌈⌊"},
    "ψ": _Rule(Level.PSI, Level.PREFIX),
    "ρ̂": _Rule(Level.PSI, Level.PREFIX),
}
_OTHER = _Rule(Level.LOOSE, Level.PSI)


@dataclass(frozen=True)
class Expression:
    """A piece of notation: a document and how closely it is bound.

    Attributes:
        first: the document, or the first operand of a chain of infix operations.
        level: the level of the outermost operation.
        links: the further operands of the chain, each with its sign.
        sign: the last sign of the chain.
        is_plain: whether it may stand wherever it is used, however often that is.
        is_enclosed: whether it ends in a bracket, so that its lines need no indent.
    """

    first: Document
    level: Level = Level.ATOM
    links: tuple[Document, ...] = ()
    sign: str = ""
    is_plain: bool = False
    is_enclosed: bool = False

    @property
    def document(self) -> Document:
        """The expression as a document."""
        if not self.links:
            return self.first
        return Group(concat(self.first, Nest(concat(*self.links))))

    def at(self, level: Level) -> Document:
        """The expression where operands of this level are expected."""
        if self.level >= level:
            return self.document
        inner = self.document if self.is_enclosed else Nest(self.document, 1)
        return concat("(", inner, ")")


def atom(text: str) -> Expression:
    """A name or a number."""
    return Expression(text, is_plain=True)


def vector(entries: Sequence[Expression]) -> Expression:
    """`<i j>`: entries that are not names or numbers stand in parentheses."""
    document = concat("<", join(" ", (e.at(Level.ATOM) for e in entries)), ">")
    return Expression(document, is_plain=all(e.is_plain for e in entries))


def call(function: str, *arguments: Expression) -> Expression:
    """`f(x, y)`."""
    listed = join(concat(",", SPACE), (a.document for a in arguments))
    document = Group(concat(function, "(", Nest(concat(EMPTY, listed)), EMPTY, ")"))
    return Expression(document, is_enclosed=True)


def clean(name: str) -> str:
    """A symbol or hint as an identifier."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


@dataclass
class Spelling:
    """Signs as glyphs or in ASCII, and the names of a module's functions."""

    is_ascii: bool
    functions: dict[str, str] = field(default_factory=dict[str, str])

    def sign(self, glyph: str) -> str:
        """A sign of the notation."""
        return _ASCII.get(glyph, glyph) if self.is_ascii else glyph

    def function(self, function: Attribute) -> str:
        """A scalar operation's glyph, or the name of the function of a symbol."""
        if isinstance(function, StringAttr):
            return SCALAR_OPERATIONS[function.data].symbol
        assert isinstance(function, SymbolRefAttr)
        return self.symbol(function.root_reference.data)

    def symbol(self, name: str) -> str:
        """A function's name."""
        return self.functions.get(name, clean(name))

    def infix(self, glyph: str, left: Expression, right: Expression) -> Expression:
        """Two operands and a sign of the rules between them."""
        rule = _RULES.get(glyph, _OTHER)
        link = concat(SPACE, self.sign(glyph), " ", right.at(rule.operands))
        if left.level == rule.level and left.sign and left.sign in rule.continues:
            return Expression(left.first, rule.level, (*left.links, link), glyph)
        return Expression(left.at(rule.operands), rule.level, (link,), glyph)

    def joined(self, text: str, left: Expression, right: Expression) -> Expression:
        """Two operands and an operator such as `+•×` between them."""
        link = concat(SPACE, text, " ", right.at(Level.PSI))
        return Expression(left.at(Level.PSI), Level.LOOSE, (link,))

    def prefix(self, glyph: str, operand: Expression) -> Expression:
        """A glyph before its operand: plain if the operand is a name or number."""
        gap = " " if self.is_ascii else ""
        return Expression(
            concat(self.sign(glyph), gap, operand.at(Level.PREFIX)),
            Level.PREFIX,
            is_plain=operand.is_plain and operand.level is Level.ATOM,
        )

    def loose(self, text: str, operand: Expression) -> Expression:
        """Text before an operand, such as `+ red` or `f Ω<1>`."""
        return Expression(concat(text, operand.at(Level.PSI)), Level.LOOSE)

    def access(self, index: Expression, array: Expression) -> Expression:
        """Psi with an index; an array's element is plain if its index is."""
        return Expression(
            concat(index.document, f" {self.sign('ψ')} ", array.at(Level.PREFIX)),
            Level.PSI,
            is_plain=index.is_plain and array.is_plain,
        )

    def number(self, value: float, type_: Attribute) -> Expression:
        """A number of an element type."""
        dtype = dtype_of(type_)
        if dtype.kind == "b":
            return atom("true" if value else "false")
        text = str(dtype.type(value)).replace("inf", self.sign("∞"))
        level = Level.LOOSE if text.startswith("-") else Level.ATOM
        return Expression(text, level, is_plain=True)

    def constant(self, value: DenseIntOrFPElementsAttr) -> Expression:
        """A constant: a number, a vector, or a vector under reshape."""
        array, element = array_of(value), value.get_element_type()

        def number(entry: object) -> Expression:
            text = self.number(entry, element)  # pyright: ignore[reportArgumentType]
            return Expression(text.document, is_plain=True)

        entries = array.reshape(-1)
        if not array.shape:
            return self.number(entries[0], element)
        is_short = array.ndim == 1 and len(entries) <= MAX_LITERAL
        if len(entries) > 1 and value.is_splat() and not is_short:
            return self._reshaped(array.shape, number(entries[0]))
        if len(entries) <= MAX_LITERAL:
            listed = vector([number(entry) for entry in entries])
        else:
            head = [number(entry) for entry in entries[:3]]
            listed = vector([*head, atom(self.sign("…")), number(entries[-1])])
        return listed if array.ndim == 1 else self._reshaped(array.shape, listed)

    def _reshaped(self, shape: tuple[int, ...], entries: Expression) -> Expression:
        extents = vector([atom(str(extent)) for extent in shape])
        reshaped = self.infix("ρ̂", extents, entries)
        return Expression(reshaped.document, Level.PSI, is_plain=True)

    def omega(self, function: str, ranks: Sequence[int]) -> str:
        """`f Ω<1 0>`: signs stand close, words apart."""
        is_sign = not (function[-1].isalnum() or function[-1] in "_)")
        gap = "" if is_sign and not self.is_ascii else " "
        return f"{function}{gap}{self.sign('Ω')}<{' '.join(map(str, ranks))}>"

    def product(self, combine: Attribute, function: Attribute) -> str:
        """`+•×`."""
        left, right = (self.sign(self.function(f)) for f in (combine, function))
        return f"{left}{self.sign('•')}{right}"
