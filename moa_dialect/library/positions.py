"""Indices as a user's scalar function sees them: integers that mix with floats."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from moa_dialect.errors import DTypeError, OptionError
from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.trace import Array
from moa_dialect.types import element_type_of, kind_of


class Position(Array):
    """A scalar of type `index` that beside a float becomes one, of a given dtype.

    Sums, differences and products with integers are positions again. Division and
    power are those of floats. `//` and `%` take a positive Python integer and round
    down.
    """

    __slots__ = ("floating",)

    def __init__(self, index: Array, floating: Any) -> None:
        super().__init__(index.scope, index.value)
        self.floating = floating

    def as_float(self) -> Any:
        """The index as a float."""
        return moa.cast(self, self.floating)

    def _like(self, index: Any) -> Any:
        return Position(index, self.floating)

    def _combined(self, name: str, other: Any, is_swapped: bool) -> Any:
        mine: Any = self
        if name in ("div", "pow") or _is_float(other):
            mine = self.as_float()
            if isinstance(other, Position):
                other = other.as_float()
        result = moa.apply(name, *((other, mine) if is_swapped else (mine, other)))
        return self._like(result) if _is_index(result) else result

    def __neg__(self) -> Any:
        return self._like(moa.negative(self))

    def __abs__(self) -> Any:
        return self._like(moa.absolute(self))

    def __floordiv__(self, count: Any) -> Any:
        if isinstance(count, bool) or not isinstance(count, Integral):
            raise DTypeError(f"expected an integer as the divisor, got {count!r}")
        if count < 1:
            raise OptionError(f"expected a divisor of at least 1, got {count}")
        # Exact for what an f64 holds: i / n is off an integer by 1 / n or not at all.
        quotient = moa.floor(moa.cast(self, "f64") / float(count))
        return self._like(moa.cast(quotient, "index"))

    def __mod__(self, count: Any) -> Any:
        return self - self.__floordiv__(count) * int(count)


def _is_float(value: Any) -> bool:
    if isinstance(value, Array):
        return kind_of(value.element_type) == "float"
    return isinstance(value, float | np.floating)


def _is_index(value: Array) -> bool:
    return value.element_type == element_type_of("index")


def _operator(name: str, is_swapped: bool) -> Callable[[Position, Any], Any]:
    def operator(self: Position, other: Any) -> Any:
        return self._combined(name, other, is_swapped)  # pyright: ignore

    return operator


for _name in ("add", "sub", "mul", "div", "pow"):
    _dunder = {"div": "truediv"}.get(_name, _name)
    setattr(Position, f"__{_dunder}__", _operator(_name, False))
    setattr(Position, f"__r{_dunder}__", _operator(_name, True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Position, f"__{_name}__", _operator(_name, False))
