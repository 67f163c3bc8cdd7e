"""Repetition of axes, said by definition: what NumPy does by stretching."""

from __future__ import annotations

from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa


def _first(x: Any, y: Any) -> Any:
    return x


def repeated(a: Any, count: Any) -> Any:
    """`a` with a new last axis along which it is the same: `a •⊣ ιn`."""
    return moa.outer(_first, a, moa.iota(count))


def extent(a: Any, axis: int) -> Any:
    """One entry of `ρ a`, a scalar."""
    return moa.psi([axis], moa.shape(a))


def stretched(a: Any, like: Any, axes: int, name: str) -> Any:
    """`a` in the shape of the leading axes of another array, as NumPy broadcasts.

    Axes are matched from the last one. An axis that `a` does not have, or that has
    extent 1 in `a` alone, is left out and repeated. An extent that is known only when
    the program runs counts as equal, and is checked then.

    Args:
        a: an array of at most that many axes.
        like: an array of which only the shape is used.
        axes: how many axes of it.
        name: what `a` is called in an error.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    target = like.shape[:axes]
    shown = ", ".join("?" if e is None else str(e) for e in target)
    missing = axes - a.ndim
    if missing < 0:
        raise ShapeError(
            f"{name} must broadcast to ({shown}): "
            f"expected at most {axes} axes, got {a.ndim}"
        )
    ones: list[int] = []
    for axis, (given, wanted) in enumerate(zip(a.shape, target[missing:], strict=True)):
        if given == 1 and wanted != 1:
            ones.append(axis)
        elif given != wanted and None not in (given, wanted):
            expected = f"{wanted} or 1" if wanted != 1 else "1"
            raise ShapeError(
                f"{name} must broadcast to ({shown}): "
                f"expected {expected} for axis {axis}, got {given}"
            )
    kept = [axis for axis in range(a.ndim) if axis not in ones]
    new = [*range(missing), *(missing + axis for axis in ones)]
    if not new:
        return a
    if ones:
        order = ones + kept
        a = moa.transpose(a, [order.index(axis) for axis in range(a.ndim)])
        a = moa.psi([0] * len(ones), a)
    for axis in new:
        a = repeated(a, extent(like, axis))
    return moa.transpose(a, [missing + axis for axis in kept] + new)


def repeated_along(a: Any, axis: int, count: int) -> Any:
    """Every plane of one axis `count` times in a row: `<h> ψ B = <h div count> ψ A`.

    The extent of the axis has to be known.
    """
    rest = [other for other in range(a.ndim) if other != axis]
    order = [*rest, axis]
    turned = moa.transpose(a, [order.index(other) for other in range(a.ndim)])
    total = a.shape[axis] * count

    def joined(cell: Any) -> Any:
        return moa.reshape([total], cell)

    pairs = moa.omega(joined, 2, repeated(turned, count))
    return moa.transpose(pairs, order)
