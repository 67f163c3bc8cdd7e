"""Products, contractions and elimination."""

from __future__ import annotations

from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32


@in_f32
def matmul(a: Any, b: Any) -> Any:
    """The matrix product `A +•× B`, over leading axes that both share.

    Args:
        a: shape (..., n, k).
        b: shape (..., k, m), the same dtype; its leading axes agree with a's trailing
            leading axes.

    Returns:
        Shape (..., n, m).
    """
    return moa.omega(_product, (2, 2), a, b)


def _product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


@in_f32
def matmul_omega(a: Any, b: Any) -> Any:
    """The matrix product as `(+ red) Ω<2> (A (× Ω<0 1>) Ω<1 2> B)`.

    Every row of a scales the rows of b, element by row; the sum over these is taken
    last. The array of rank 3 in the middle is not stored: the normal form is that of
    `matmul`.

    Args:
        a: shape (n, k), float or integer.
        b: shape (k, m), the same dtype.

    Returns:
        Shape (n, m). Source: Mullin and Thibault, *A Reduction Semantics for Array
        Expressions: The Psi Compiler* (1994).

    Raises:
        ShapeError: if the contracted extents differ.
    """
    return moa.omega(_sum, 2, moa.omega(_scaled_rows, (1, 2), a, b))


def _scaled_rows(row: Any, b: Any) -> Any:
    return moa.omega("mul", (0, 1), row, b)


def _sum(a: Any) -> Any:
    return moa.reduce("add", a)


@in_f32
def contract(a: Any, b: Any, axis_a: int, axis_b: int) -> Any:
    """The sum of products over axis `axis_a` of a and axis `axis_b` of b.

    `(s ⊘ A) +•× (t ⊘ B)`, with s that makes the one axis the last and t that makes the
    other the first. `contract(a, b, 2, 0)` of ranks 3 and 2 is `ijk,kl->ijl`.

    Args:
        a: an array of rank 1 or more, float or integer.
        b: an array of rank 1 or more, the same dtype.
        axis_a: an axis of a, from 0.
        axis_b: an axis of b, from 0, as long as that of a.

    Returns:
        The other axes of a, then the other axes of b, in order.

    Raises:
        ShapeError: for an axis that is not there, or if the extents differ.
    """
    _check_axis("contract", axis_a, a.ndim)
    _check_axis("contract", axis_b, b.ndim)
    last = [k - (k > axis_a) for k in range(a.ndim)]
    last[axis_a] = a.ndim - 1
    first = [k + (k < axis_b) for k in range(b.ndim)]
    first[axis_b] = 0
    return moa.inner("add", "mul", moa.transpose(a, last), moa.transpose(b, first))


def _check_axis(name: str, axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise ShapeError(
            f"{name}: expected an axis of an array of rank {rank}, got {axis}"
        )


@in_f32
def bilinear(x: Any, a: Any, y: Any) -> Any:
    """The bilinear form `x +•× A +•× y`.

    Args:
        x: shape (n,), float or integer.
        a: shape (n, m), the same dtype.
        y: shape (m,), the same dtype.

    Returns:
        A scalar.

    Raises:
        ShapeError: if the extents do not fit.
    """
    return moa.inner("add", "mul", x, moa.inner("add", "mul", a, y))


def diagonal(a: Any) -> Any:
    """The diagonal `P ψ A` with the indices `<k> ψ P = <k k>`.

    Args:
        a: shape (n, m, ...), n at most m.

    Returns:
        Shape (n, ...), of the first n columns.

    Raises:
        ShapeError: for an array of rank 0 or 1.
        IndexRangeError: if a has fewer columns than rows.
    """
    _check_axis("diagonal", 1, a.ndim)
    rows = moa.iota(moa.psi([0], moa.shape(a)))
    return moa.psi(moa.omega(_twice, 0, rows), a)


def _twice(k: Any) -> Any:
    return moa.cat(k, k)


def trace(a: Any) -> Any:
    """The sum of the diagonal, `+ red (P ψ A)`.

    Args:
        a: shape (n, m), n at most m, float or integer.

    Returns:
        A scalar, 0 if n is 0.

    Raises:
        ShapeError: for an array of rank 0 or 1.
        IndexRangeError: if a has fewer columns than rows.
    """
    return moa.reduce("add", diagonal(a))


def _beside(a: Any, b: Any) -> Any:
    """Matrices next to each other: `⊘((⊘A) ++ ⊘B)`."""
    return moa.transpose(moa.cat(moa.transpose(a), moa.transpose(b)))


def lu_step(a: Any, k: int) -> Any:
    """One step of Gaussian elimination, in place of the matrix, with pivot `<k k> ψ A`.

    Rows 0 to k stay. In the rows below, column k becomes the multipliers
    `m = A[i, k] / A[k, k]`, the columns after it become `A[i, j] - m[i] * A[k, j]` (the
    rank-1 update of the trailing block), and those before it, the multipliers of
    earlier steps, stay. After the steps 0, 1, ..., n-2 the matrix holds L below its
    diagonal (whose own diagonal is 1) and U from there on, so that A is L times U.

    Args:
        a: shape (n, m), floating point.
        k: the number of the step, `0 <= k < n` and `k < m`.

    Returns:
        Shape (n, m). A pivot 0 gives infinities and NaN as division does; there is no
        exchange of rows. Source: Golub and Van Loan, *Matrix Computations*, 3.2.

    Raises:
        ShapeError: for an array that is no matrix.
        IndexRangeError: for a k out of range.
    """
    if a.ndim != 2:
        raise ShapeError(f"lu_step: expected a matrix, got rank {a.ndim}")
    pivot = moa.psi([k, k], a)
    below = moa.drop(k + 1, a)
    columns = moa.transpose(below)
    multipliers = moa.take(1, moa.drop(k, columns)) / pivot
    done = moa.transpose(moa.cat(moa.take(k, columns), multipliers))
    right = moa.drop(k + 1, moa.psi([k], a))
    update = moa.outer("mul", moa.psi([0], multipliers), right)
    trailing = moa.drop([0, k + 1], below) - update
    return moa.cat(moa.take(k + 1, a), _beside(done, trailing))


def lu(a: Any) -> Any:
    """The LU decomposition without exchange of rows, all steps of `lu_step`.

    Every step reads the step before it, and the normal form keeps none of them: its
    size grows exponentially in n. It is for matrices of three rows or so.

    Args:
        a: shape (n, n), floating point, n known.

    Returns:
        Shape (n, n): L without its diagonal of ones, and U.

    Raises:
        ShapeError: unless the number of rows is known.
    """
    rows = a.shape[0] if a.ndim == 2 else None
    if rows is None:
        raise ShapeError(f"lu: expected a matrix with known rows, got shape {a.shape}")
    for k in range(rows - 1):
        a = lu_step(a, k)
    return a
