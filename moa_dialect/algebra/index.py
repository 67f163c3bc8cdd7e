"""Index functions: where an element of a result lies in an operand.

Each is written once, over anything that has numbers' arithmetic (`Arithmetic`): the
laws of psi reduction emit code with it, tests run it on integers, and the proofs give
it to a solver as symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

N = TypeVar("N")


class Arithmetic(Protocol[N]):
    """Integer arithmetic on some representation of numbers."""

    def number(self, value: int) -> N:
        """A number."""
        ...

    def add(self, a: N, b: N) -> N:
        """The sum."""
        ...

    def sub(self, a: N, b: N) -> N:
        """The difference."""
        ...

    def mul(self, a: N, b: N) -> N:
        """The product."""
        ...

    def div(self, a: N, b: N) -> N:
        """The quotient, rounded down, of a >= 0 by b > 0."""
        ...

    def mod(self, a: N, b: N) -> N:
        """The remainder of a >= 0 by b > 0."""
        ...

    def if_less(self, a: N, b: N, then: N, otherwise: N) -> N:
        """`then` if a < b, else `otherwise`."""
        ...

    def choose_less(
        self, a: N, b: N, then: Callable[[], N], otherwise: Callable[[], N]
    ) -> N:
        """As `if_less`, but only the chosen one is computed."""
        ...


def take(m: Arithmetic[N], i: N, count: N, extent: N) -> N:
    """The source index of `count △ A`: from the front, or the end if negative."""
    zero = m.number(0)
    return m.add(i, m.if_less(count, zero, m.add(extent, count), zero))


def drop(m: Arithmetic[N], i: N, count: N) -> N:
    """The source index of `count ▽ A`: past the front, unless negative."""
    zero = m.number(0)
    return m.add(i, m.if_less(zero, count, count, zero))


def reverse(m: Arithmetic[N], i: N, extent: N) -> N:
    """The source index of `Φ A`: counted from the end."""
    return m.sub(m.sub(extent, m.number(1)), i)


def rotation(m: Arithmetic[N], count: N, extent: N) -> N:
    """A rotation count as a number from 0 to below the extent; 0 for no extent."""
    one, zero = m.number(1), m.number(0)
    size = m.if_less(extent, one, one, extent)
    forward = m.mod(m.if_less(count, zero, zero, count), size)
    back = m.mod(m.if_less(count, zero, m.sub(zero, count), zero), size)
    return m.if_less(
        zero, back, m.sub(extent, back), m.if_less(extent, one, zero, forward)
    )


def rotate(m: Arithmetic[N], i: N, shift: N, extent: N) -> N:
    """The source index of a rotation by `0 <= shift < extent`: `(i + shift) mod s`."""
    wrap = m.sub(extent, shift)
    return m.if_less(i, wrap, m.add(i, shift), m.sub(i, wrap))


def gamma(m: Arithmetic[N], index: Sequence[N], shape: Sequence[N]) -> N:
    """The row-major address of a full index, by Horner's scheme."""
    address = m.number(0)
    for entry, extent in zip(index, shape, strict=True):
        address = m.add(m.mul(address, extent), entry)
    return address


def gamma_inverse(m: Arithmetic[N], address: N, shape: Sequence[N]) -> tuple[N, ...]:
    """The full index of a row-major address, by successive division."""
    index: list[N] = []
    for axis in range(len(shape) - 1, 0, -1):
        index.append(m.mod(address, shape[axis]))
        address = m.div(address, shape[axis])
    if shape:
        index.append(address)
    return tuple(reversed(index))


def gamma_column(m: Arithmetic[N], index: Sequence[N], shape: Sequence[N]) -> N:
    """The column-major address: that of the reversed index in the reversed shape."""
    return gamma(m, tuple(reversed(index)), tuple(reversed(shape)))


def gamma_inverse_column(
    m: Arithmetic[N], address: N, shape: Sequence[N]
) -> tuple[N, ...]:
    """The full index of a column-major address."""
    return tuple(reversed(gamma_inverse(m, address, tuple(reversed(shape)))))


def recycle(m: Arithmetic[N], address: N, total: N) -> N:
    """The source address of a recycled element: `address mod total`, 0 for none."""
    one = m.number(1)
    return m.mod(address, m.if_less(total, one, one, total))


def pad(m: Arithmetic[N], i: N, left: N, extent: N) -> N:
    """The source index of circular padding: `(i - left) mod s`."""
    at = m.sub(i, left)

    def inside_or_after() -> N:
        end = m.add(left, extent)
        return m.choose_less(i, end, lambda: at, lambda: m.sub(at, extent))

    return m.choose_less(i, left, lambda: m.add(at, extent), inside_or_after)


def within(
    m: Arithmetic[N],
    i: N,
    offset: N,
    extent: N,
    then: Callable[[], N],
    otherwise: Callable[[], N],
) -> N:
    """`then` if i is in the block of an extent at an offset, else `otherwise`."""

    def inside_or_after() -> N:
        return m.choose_less(i, m.add(offset, extent), then, otherwise)

    return m.choose_less(i, offset, otherwise, inside_or_after)


class Integers:
    """The arithmetic of Python's integers."""

    def number(self, value: int) -> int:
        """A number."""
        return value

    def add(self, a: int, b: int) -> int:
        """The sum."""
        return a + b

    def sub(self, a: int, b: int) -> int:
        """The difference."""
        return a - b

    def mul(self, a: int, b: int) -> int:
        """The product."""
        return a * b

    def div(self, a: int, b: int) -> int:
        """The quotient, rounded down."""
        return a // b

    def mod(self, a: int, b: int) -> int:
        """The remainder."""
        return a % b

    def if_less(self, a: int, b: int, then: int, otherwise: int) -> int:
        """`then` if a < b, else `otherwise`."""
        return then if a < b else otherwise

    def choose_less(
        self, a: int, b: int, then: Callable[[], int], otherwise: Callable[[], int]
    ) -> int:
        """As `if_less`, but only the chosen one is computed."""
        return then() if a < b else otherwise()
