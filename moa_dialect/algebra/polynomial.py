"""Polynomials with integer coefficients: extents that are computed from extents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Polynomial(Generic[A]):
    """A sum of products of atoms, e.g. the extent `a + b` of a catenation.

    Attributes:
        terms: pairs of a product (its atoms; none for the constant term) and its
            coefficient, which is not zero. Equal polynomials may list them in another
            order; they compare equal.
    """

    terms: tuple[tuple[tuple[A, ...], int], ...]

    @staticmethod
    def collect(terms: Iterable[tuple[tuple[A, ...], int]]) -> Polynomial[A]:
        """The sum of terms, equal products collected."""
        first: dict[Hashable, tuple[A, ...]] = {}
        total: dict[Hashable, int] = {}
        for atoms, coefficient in terms:
            key = frozenset(Counter(atoms).items())
            first.setdefault(key, atoms)
            total[key] = total.get(key, 0) + coefficient
        return Polynomial[A](tuple((first[k], c) for k, c in total.items() if c))

    @staticmethod
    def constant(value: int) -> Polynomial[A]:
        """A number."""
        return Polynomial((((), value),) if value else ())

    @staticmethod
    def atom(atom: A) -> Polynomial[A]:
        """One atom."""
        return Polynomial((((atom,), 1),))

    @cached_property
    def _key(self) -> Hashable:
        return frozenset((frozenset(Counter(a).items()), c) for a, c in self.terms)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._key == cast(Any, other)._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __add__(self, other: Polynomial[A]) -> Polynomial[A]:
        return Polynomial[A].collect((*self.terms, *other.terms))

    def __sub__(self, other: Polynomial[A]) -> Polynomial[A]:
        return self + Polynomial[A](tuple((a, -c) for a, c in other.terms))

    def __mul__(self, other: Polynomial[A]) -> Polynomial[A]:
        return Polynomial[A].collect(
            (a + b, c * d) for a, c in self.terms for b, d in other.terms
        )

    @property
    def number(self) -> int | None:
        """The polynomial's value if it has no atoms."""
        if not self.terms:
            return 0
        ((atoms, coefficient), *more) = self.terms
        return None if atoms or more else coefficient

    @property
    def single(self) -> A | None:
        """The atom, if the polynomial is one atom."""
        match self.terms:
            case (((atom,), 1),):
                return atom
            case _:
                return None

    def substitute(self, value: Callable[[A], Polynomial[B]]) -> Polynomial[B]:
        """Replace every atom by a polynomial."""
        total = Polynomial[B](())
        for atoms, coefficient in self.terms:
            product = Polynomial[B].constant(coefficient)
            for atom in atoms:
                product = product * value(atom)
            total = total + product
        return total
