"""What the cost model computes with: formulas, or numbers alone.

Extents are symbols, and costs are formulas, where they are shown to people. Where a
schedule is chosen, only numbers count, and there must be an answer in a millisecond:
extents are numbers then, and all that is left of algebra are the indices of loops, in
affine expressions. Functions of this module take either; SymPy is loaded only for
formulas.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

Expr = Any
"""A number, an affine expression of indices, or an expression of SymPy, which has no
types of its own."""


class Affine:
    """A constant and multiples of indices, or of what is not affine in these.

    Attributes:
        constant: the constant.
        terms: for each index, or other function of indices, its factor.
    """

    __slots__ = ("_free", "constant", "terms")

    constant: float
    terms: dict[Affine, float]
    _free: frozenset[Affine] | None

    def __init__(self, constant: float, terms: dict[Affine, float]) -> None:
        self.constant = constant
        self.terms = terms
        self._free = None

    @property
    def free_symbols(self) -> frozenset[Affine]:
        """The indices."""
        if self._free is None:
            self._free = self._indices()
        return self._free

    def _indices(self) -> frozenset[Affine]:
        if len(self.terms) == 1:
            return next(iter(self.terms)).free_symbols
        return frozenset(s for atom in self.terms for s in atom.free_symbols)

    def replaced(self, numbers: Mapping[Any, Any]) -> Expr:
        """With expressions for some of the indices."""
        found: Expr = self.constant
        for atom, factor in self.terms.items():
            found = found + factor * atom.replaced(numbers)
        return found

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Affine)
            and self.constant == other.constant
            and self.terms == other.terms
        )

    def __hash__(self) -> int:
        return hash((self.constant, frozenset(self.terms.items())))

    def __add__(self, other: Expr) -> Expr:
        if not isinstance(other, Affine):
            return _affine(self.constant + other, self.terms)
        terms = dict(self.terms)
        for atom, factor in other.terms.items():
            terms[atom] = terms.get(atom, 0) + factor
        return _affine(self.constant + other.constant, terms)

    __radd__ = __add__

    def __neg__(self) -> Expr:
        return self * -1

    def __sub__(self, other: Expr) -> Expr:
        return self + other * -1

    def __rsub__(self, other: Expr) -> Expr:
        return self * -1 + other

    def __mul__(self, other: Expr) -> Expr:
        if isinstance(other, Affine):
            return Function("product", math.prod, (self, other))
        terms = {atom: factor * other for atom, factor in self.terms.items()}
        return _affine(self.constant * other, terms)

    __rmul__ = __mul__

    def __truediv__(self, other: Expr) -> Expr:
        if isinstance(other, Affine):
            return Function("quotient", quotient, (self, other))
        return self * quotient(1, other)

    def __rtruediv__(self, other: float) -> Expr:
        return Function("quotient", quotient, (other, self))


class Index(Affine):
    """The index of a loop.

    Attributes:
        name: what it is called.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(0, {self: 1})
        self.name = name

    def _indices(self) -> frozenset[Affine]:
        return frozenset((self,))

    def replaced(self, numbers: Mapping[Any, Any]) -> Expr:
        """What stands for it, or itself."""
        return numbers.get(self, self)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.name


class Function(Affine):
    """A function of affine expressions that is not affine.

    Attributes:
        name: `min`, `max`, `floor`, `ceiling`, `product` or `quotient`.
        apply: the function, of numbers.
        args: what it is a function of.
    """

    __slots__ = ("apply", "args", "name")

    def __init__(
        self, name: str, apply: Callable[..., Any], args: tuple[Expr, ...]
    ) -> None:
        self.name = name
        self.apply = apply
        self.args = args
        super().__init__(0, {self: 1})

    def _indices(self) -> frozenset[Affine]:
        return frozenset(s for arg in self.args for s in symbols(arg))

    def replaced(self, numbers: Mapping[Any, Any]) -> Expr:
        """With expressions for some of the indices."""
        return _function(
            self.name, self.apply, tuple(replaced(arg, numbers) for arg in self.args)
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Function)
            and self.name == other.name
            and self.args == other.args
        )

    def __hash__(self) -> int:
        return hash((self.name, self.args))


def _affine(constant: float, terms: dict[Affine, float]) -> Expr:
    if not all(terms.values()):
        terms = {atom: factor for atom, factor in terms.items() if factor}
    if not terms:
        return constant
    if not constant and len(terms) == 1:
        ((atom, factor),) = terms.items()
        if factor == 1:
            return atom
    return Affine(constant, terms)


def quotient(dividend: Expr, divisor: Expr) -> Expr:
    """A quotient; over nothing it is 0, since there is nothing to count then."""
    is_nothing = type(divisor) in (int, float) and not divisor
    return 0 if is_nothing else dividend / divisor


def _function(name: str, apply: Callable[..., Any], args: tuple[Expr, ...]) -> Expr:
    if any(isinstance(arg, Affine) for arg in args):
        if name == "product":
            affine = [arg for arg in args if isinstance(arg, Affine)]
            if len(affine) == 1:
                return math.prod(args)
        return Function(name, apply, args)
    return apply(args) if name == "product" else apply(*args)


def is_numeric(expression: Expr) -> bool:
    """Whether an expression is a number, or affine in indices, and none of SymPy."""
    return type(expression) in _PLAIN or isinstance(expression, (int, float, Affine))


_PLAIN = (int, float, Affine, Index, Function)
_NONE: frozenset[Any] = frozenset()


def symbols(expression: Expr) -> AbstractSet[Any]:
    """The indices, and names of extents, that an expression depends on."""
    if type(expression) in (int, float):
        return _NONE
    return expression.free_symbols


def replaced(expression: Expr, values: Mapping[Any, Any]) -> Expr:
    """An expression with others for some of its symbols."""
    if type(expression) in (int, float):
        return expression
    if isinstance(expression, Affine):
        return expression.replaced(values)
    import sympy as sp

    return expression.xreplace({s: sp.sympify(v) for s, v in values.items()})


def expanded(expression: Expr) -> Expr:
    """A sum of products; numbers are what they are."""
    return expression if is_numeric(expression) else _sympy().expand(expression)


def cancelled(expression: Expr) -> Expr:
    """A fraction in lowest terms; numbers are what they are."""
    return expression if is_numeric(expression) else _sympy().cancel(expression)


def coefficient(expression: Expr, symbol: Expr) -> Expr:
    """What a symbol is multiplied by in a sum."""
    if isinstance(expression, Affine):
        return expression.terms.get(symbol, 0)
    if type(expression) in (int, float):
        return 0
    return expression.coeff(symbol, 1)


def parted(expression: Expr) -> tuple[Expr, Expr]:
    """The constant of a sum, and the rest."""
    if isinstance(expression, Affine):
        return expression.constant, expression - expression.constant
    if type(expression) in (int, float):
        return expression, 0
    return expression.as_coeff_Add()


def is_whole(expression: Expr) -> bool:
    """Whether an expression is a whole number."""
    if isinstance(expression, int):
        return True
    if isinstance(expression, float):
        return abs(expression - round(expression)) < 1e-9 * max(1.0, abs(expression))
    return bool(getattr(expression, "is_Integer", False))


def ceiling(expression: Expr) -> Expr:
    """Rounded up."""
    if is_numeric(expression):
        return _function("ceiling", _ceil, (expression,))
    return _sympy().ceiling(expression)


def _ceil(number: float) -> int:
    return math.ceil(number - 1e-9)


def floor(expression: Expr) -> Expr:
    """Rounded down."""
    if is_numeric(expression):
        return _function("floor", math.floor, (expression,))
    return _sympy().floor(expression)


def is_floor(expression: Expr) -> bool:
    """Whether an expression is another one, rounded down."""
    if is_numeric(expression):
        return isinstance(expression, Function) and expression.name == "floor"
    return isinstance(expression, _sympy().floor)


def smallest(*expressions: Expr) -> Expr:
    """The smallest one."""
    if all(map(is_numeric, expressions)):
        return _function("min", min, expressions)
    return _sympy().Min(*expressions)


def largest(*expressions: Expr) -> Expr:
    """The largest one."""
    if all(map(is_numeric, expressions)):
        return _function("max", max, expressions)
    return _sympy().Max(*expressions)


def extreme(expression: Expr) -> str:
    """`min` or `max` if an expression is the smallest or largest, else empty."""
    if isinstance(expression, Function):
        return expression.name if expression.name in ("min", "max") else ""
    if is_numeric(expression):
        return ""
    sp = _sympy()
    if isinstance(expression, sp.Min):
        return "min"
    return "max" if isinstance(expression, sp.Max) else ""


def summands(expression: Expr) -> list[Expr]:
    """What an expression is the sum of; itself if it is no sum."""
    if isinstance(expression, Affine):
        found = [factor * atom for atom, factor in expression.terms.items()]
        return [expression.constant, *found] if expression.constant else found
    if is_numeric(expression) or not isinstance(expression, _sympy().Add):
        return [expression]
    return list(expression.args)


def factors(expression: Expr) -> list[Expr]:
    """What an expression is the product of; itself if it is no product."""
    if isinstance(expression, Function):
        is_product = expression.name == "product"
        return list(expression.args) if is_product else [expression]
    if isinstance(expression, Affine):
        if expression.constant or len(expression.terms) != 1:
            return [expression]
        ((atom, factor),) = expression.terms.items()
        return [atom] if factor == 1 else [factor, atom]
    if is_numeric(expression) or not isinstance(expression, _sympy().Mul):
        return [expression]
    return list(expression.args)


NOMINAL = 1024
"""The number of an extent that nobody gives."""


def number_of(expression: Expr, values: Mapping[Expr, int]) -> float:
    """The number that an expression of symbols is, given the symbols' numbers.

    A symbol without a number, as of an extent that depends on data, counts as 1024.
    """
    if type(expression) in (int, float):
        return float(expression)
    if isinstance(expression, Affine):
        found = expression.replaced(values)
        return float(replaced(found, dict.fromkeys(symbols(found), NOMINAL)))
    if expression.is_Number:
        return float(expression)
    sp = _sympy()
    found = expression.xreplace({s: sp.Integer(n) for s, n in values.items()})
    unknown = found.free_symbols
    if unknown:
        found = found.xreplace(dict.fromkeys(unknown, sp.Integer(NOMINAL)))
    return float(found)


def evaluator(
    expression: Expr, index: Expr, values: Mapping[Expr, int]
) -> Callable[[int], Any]:
    """An expression as a function of one index, for numbers."""
    if is_numeric(expression):

        def numeric(i: int) -> Any:
            return replaced(expression, {index: i})

        return numeric
    sp = _sympy()
    numbers = {symbol: sp.Integer(n) for symbol, n in values.items()}
    return sp.lambdify([index], expression.xreplace(numbers), "math")


class Algebra(Protocol):
    """Where the numbers and symbols of a nest come from."""

    def integer(self, number: int) -> Expr:
        """A whole number."""
        ...

    def ratio(self, over: int, under: int) -> Expr:
        """A fraction."""
        ...

    def index(self, name: str) -> Expr:
        """The index of a loop, another one each time."""
        ...

    def total(self, expressions: Iterable[Expr]) -> Expr:
        """A sum."""
        ...

    def product(self, expressions: Iterable[Expr]) -> Expr:
        """A product."""
        ...


class Numbers:
    """Extents are numbers."""

    def integer(self, number: int) -> Expr:
        """The number."""
        return number

    def ratio(self, over: int, under: int) -> Expr:
        """The quotient."""
        return over / under

    def index(self, name: str) -> Expr:
        """The index of a loop, another one each time."""
        return Index(name)

    def total(self, expressions: Iterable[Expr]) -> Expr:
        """A sum."""
        return sum(expressions)

    def product(self, expressions: Iterable[Expr]) -> Expr:
        """A product."""
        return math.prod(expressions)


class Formulas:
    """Extents are symbols of SymPy, and numbers its numbers."""

    def integer(self, number: int) -> Expr:
        """A whole number."""
        return _sympy().Integer(number)

    def ratio(self, over: int, under: int) -> Expr:
        """A fraction."""
        return _sympy().Rational(over, under)

    def index(self, name: str) -> Expr:
        """The index of a loop, another one each time."""
        return _sympy().Dummy(name, integer=True, nonnegative=True)

    def total(self, expressions: Iterable[Expr]) -> Expr:
        """A sum."""
        return _sympy().Add(*expressions)

    def product(self, expressions: Iterable[Expr]) -> Expr:
        """A product."""
        return _sympy().Mul(*expressions)


NUMBERS: Algebra = Numbers()
FORMULAS: Algebra = Formulas()


def algebra_of(expression: Expr) -> Algebra:
    """Where an expression comes from."""
    return NUMBERS if is_numeric(expression) else FORMULAS


def _sympy() -> Any:
    """SymPy, which takes a third of a second to load."""
    import sympy

    return sympy
