"""Convolutions by windows, and the discrete Fourier transform by factors.

Complex numbers are two arrays, their real and imaginary parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa


def _known_extent(name: str, a: Any, multiple: int = 1) -> int:
    """The extent of axis 0, known and a multiple of a number."""
    extent = a.shape[0] if a.ndim else None
    if extent is None or extent % multiple:
        kind = f"a multiple of {multiple}" if multiple > 1 else "known"
        got = (
            "a scalar" if not a.ndim else "an unknown one" if extent is None else extent
        )
        raise ShapeError(f"{name}: expected axis 0 of an extent {kind}, got {got}")
    return extent


def _leading(a: Any, count: int) -> Any:
    """The first extents of an array, as numbers if they are known."""
    known = a.shape[:count]
    return known if None not in known else moa.take(count, moa.shape(a))


def _in_place_of_axis_0(extents: Sequence[int], a: Any) -> Any:
    """Extents, then those of all axes of an array but the first."""
    known = a.shape[1:]
    if None not in known:
        return [*extents, *known]
    return moa.cat(extents, moa.drop(1, moa.shape(a)))


def windows(a: Any, extents: Sequence[int]) -> Any:
    """All windows of some extents: `P ψ A`, P the sums of two arrays of indices.

    `(i ++ j) ψ P = i + j` with i a position of the window, j one in the window.

    Args:
        a: shape s of rank d or more.
        extents: the extents e of the windows on the first d axes, each at least 1 and
            at most one more than s.

    Returns:
        Shape `(s - e + 1) ++ e ++ (d ▽ s)`, s and e on the first d axes.

    Raises:
        ShapeError: for more extents than axes, none, or a window that is too large.
    """
    extents = list(extents)
    if not 0 < len(extents) <= a.ndim:
        raise ShapeError(
            f"windows: expected from 1 to {a.ndim} extents, got {len(extents)}"
        )
    if min(extents) < 1:
        raise ShapeError(f"windows: expected extents of at least 1, got {min(extents)}")
    last = moa.drop([extent - 1 for extent in extents], a)
    positions, offsets = moa.iota(_leading(last, len(extents))), moa.iota(extents)
    indices = moa.omega(_moved, (1, len(extents) + 1), positions, offsets)
    return moa.psi(indices, a)


def _moved(position: Any, offsets: Any) -> Any:
    return moa.omega("add", (1, 1), position, offsets)


def correlate(a: Any, kernel: Any) -> Any:
    """The correlation with a kernel where it fits: `Σ_j A[i + j] K[j]`.

    Args:
        a: shape s of rank 1 or more, float or integer.
        kernel: known shape e of the same rank, each extent at least 1 and at most one
            more than that of a, the dtype of a.

    Returns:
        Shape `s - e + 1`.

    Raises:
        ShapeError: for different ranks, an unknown kernel shape, a kernel without
            elements, or one that is too large.
    """
    if a.ndim != kernel.ndim or None in kernel.shape:
        raise ShapeError(
            f"correlate: expected a kernel of rank {a.ndim} and known shape, "
            f"got shape {kernel.shape}"
        )
    rank = a.ndim
    return moa.omega(_dot, (rank, rank), windows(a, kernel.shape), kernel)


def _dot(a: Any, b: Any) -> Any:
    """The sum of the products of all elements."""
    products = a * b
    for _ in range(a.ndim):
        products = moa.reduce("add", products)
    return products


def convolve(a: Any, kernel: Any) -> Any:
    """The convolution where the kernel fits: `correlate` with it reversed on all axes.

    Args:
        a: shape s of rank 1 or more, float or integer.
        kernel: known shape e of the same rank, each extent at least 1 and at most one
            more than that of a, the dtype of a.

    Returns:
        Shape `s - e + 1`.

    Raises:
        ShapeError: as for correlate.
    """
    for _ in range(kernel.ndim):
        # Reverse axis 0, then make it the last: after all turns each is in its place.
        turn = [(k - 1) % kernel.ndim for k in range(kernel.ndim)]
        kernel = moa.transpose(moa.reverse(kernel), turn)
    return correlate(a, kernel)


def correlate_channels(a: Any, kernels: Any) -> Any:
    """Several kernels on an image with channels, as in a convolutional layer.

    Args:
        a: shape (h, w, c), float or integer.
        kernels: known shape (o, p, q, c), p and q at least 1, the dtype of a.

    Returns:
        Shape (h - p + 1, w - q + 1, o).

    Raises:
        ShapeError: for other ranks, an unknown kernel shape, different numbers of
            channels, or a kernel that is too large.
    """
    if a.ndim != 3 or kernels.ndim != 4 or None in kernels.shape:
        raise ShapeError(
            "correlate_channels: expected ranks 3 and 4 and a known kernel shape, "
            f"got shapes {a.shape} and {kernels.shape}"
        )
    return moa.omega(_each_kernel, (3, 4), windows(a, kernels.shape[1:3]), kernels)


def _each_kernel(window: Any, kernels: Any) -> Any:
    return moa.omega(_dot, (3, 3), window, kernels)


def perfect_shuffle(a: Any) -> Any:
    """The two halves of axis 0 interleaved: `n ρ̂ ⊘ <2 n/2> ρ̂ A`.

    Args:
        a: shape (n, ...), n known and even.

    Returns:
        The shape of a: planes 0, n/2, 1, n/2 + 1, ...

    Raises:
        ShapeError: unless n is known and even.
    """
    n = _known_extent("perfect_shuffle", a, 2)
    halves = moa.reshape(_in_place_of_axis_0([2, n // 2], a), a)
    pairs = moa.transpose(halves, [1, 0, *range(2, halves.ndim)])
    return moa.reshape(_in_place_of_axis_0([n], a), pairs)


def bit_reversal(v: Any) -> Any:
    """Element i is element i with its bits reversed: `<n> ρ̂ ⊘ <2 2 ... 2> ρ̂ v`.

    Args:
        v: shape (n,), n known and a power of 2.

    Returns:
        The shape of v.

    Raises:
        ShapeError: unless v is a vector and n a known power of 2.
    """
    n = _known_extent("bit_reversal", v)
    if v.ndim != 1 or n < 1 or n & (n - 1):
        raise ShapeError(
            f"bit_reversal: expected a vector of 2 to some power, got shape {v.shape}"
        )
    bits = moa.reshape([2] * (n.bit_length() - 1), v)
    return moa.reshape([n], moa.transpose(bits))


def butterfly(a: Any) -> Any:
    """Sums and differences of the two halves of axis 0, a stage of radix 2.

    With `B = <2 n/2> ρ̂ A`: `(B[0] + B[1]) ++ (B[0] - B[1])`.

    Args:
        a: shape (n, ...), n known and even, float or integer.

    Returns:
        The shape of a.

    Raises:
        ShapeError: unless n is known and even.
    """
    n = _known_extent("butterfly", a, 2)
    halves = moa.reshape(_in_place_of_axis_0([2, n // 2], a), a)
    first, second = moa.psi([0], halves), moa.psi([1], halves)
    return moa.cat(first + second, first - second)


def dft(re: Any, im: Any) -> tuple[Any, Any]:
    """The discrete Fourier transform along axis 0, by definition.

    `Y[k] = Σ_j X[j] exp(-2 π i j k / n)`: an inner product with a matrix whose elements
    are computed where they are used.

    Args:
        re: the real part, shape (n, ...), floating point, n known.
        im: the imaginary part, the same shape and dtype.

    Returns:
        The real and the imaginary part of the result, of the shape of re.

    Raises:
        ShapeError: unless n is known, or if the parts differ in shape.
    """
    return _by_definition(_known_extent("dft", re), re, im)


def _by_definition(n: int, re: Any, im: Any) -> tuple[Any, Any]:
    numbers = moa.iota(n)
    return _product(_roots(numbers, numbers, n, re.dtype), (re, im))


def _roots(j: Any, k: Any, n: int, dtype: Any) -> tuple[Any, Any]:
    """`exp(-2 π i j k / n)` for all pairs, its real and imaginary part."""
    angles = moa.cast(moa.outer("mul", j, k), dtype) * (-2 * math.pi / max(n, 1))
    return moa.cos(angles), moa.sin(angles)


def _product(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """The inner product of complex arrays."""

    def product(x: Any, y: Any) -> Any:
        return moa.inner("add", "mul", x, y)

    real = product(a[0], b[0]) - product(a[1], b[1])
    return real, product(a[0], b[1]) + product(a[1], b[0])


def cooley_tukey(re: Any, im: Any, factors: Sequence[int]) -> tuple[Any, Any]:
    """The discrete Fourier transform along axis 0, n split into factors.

    With `n = p q`, `X = <p q> ρ̂ x`: transforms of length p along axis 0, the twiddle
    factors `exp(-2 π i k j / n)`, transforms of length q along axis 1 by the factors
    that are left. Element `<k l>` of that is element `k + p l` of the result, which is
    `<n> ρ̂ ⊘` of it. `factors` of 2 only is the radix-2 transform.

    Args:
        re: the real part, shape (n, ...), floating point, n known.
        im: the imaginary part, the same shape and dtype.
        factors: numbers of at least 1 whose product is n.

    Returns:
        The real and the imaginary part of the result, of the shape of re. The normal
        form stores no stage, so a kernel does the work of the definition; the program
        shows that the factorisation is a matter of indices. Source: Cooley and Tukey,
        *An Algorithm for the Machine Calculation of Complex Fourier Series* (1965).

    Raises:
        ShapeError: unless n is known and the product of the factors, or if the parts
            differ in shape.
    """
    factors = list(factors)
    n = _known_extent("cooley_tukey", re)
    if any(factor < 1 for factor in factors) or math.prod(factors) != n:
        raise ShapeError(
            f"cooley_tukey: expected factors with the product {n}, got {factors}"
        )
    return _by_factors(n, re, im, factors)


def _by_factors(n: int, re: Any, im: Any, factors: Sequence[int]) -> tuple[Any, Any]:
    if len(factors) < 2:
        return _by_definition(n, re, im)
    p, q = factors[0], n // factors[0]
    split = _in_place_of_axis_0([p, q], re)
    columns = moa.reshape(split, re), moa.reshape(split, im)
    roots = _roots(moa.iota(p), moa.iota(q), n, re.dtype)
    turned = _turned(roots, _by_definition(p, *columns))
    swap = [1, 0, *range(2, re.ndim + 1)]
    rows = [moa.transpose(part, swap) for part in turned]
    parts = _by_factors(q, rows[0], rows[1], factors[1:])
    whole = _in_place_of_axis_0([n], re)
    return moa.reshape(whole, parts[0]), moa.reshape(whole, parts[1])


def _turned(roots: tuple[Any, Any], a: tuple[Any, Any]) -> tuple[Any, Any]:
    """Complex numbers times the twiddle factors of their first two axes."""
    rest = a[0].ndim - 2

    def times(factor: Any, x: Any) -> Any:
        return moa.omega("mul", (0, rest), factor, x)

    real = times(roots[0], a[0]) - times(roots[1], a[1])
    return real, times(roots[0], a[1]) + times(roots[1], a[0])
