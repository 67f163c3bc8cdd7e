"""Finite differences on a grid, periodic or with a halo.

A neighbour is the grid rotated, or the part of it that drop leaves. In the normal form
it is an access with another index; no rotated or padded grid is stored.
"""

from __future__ import annotations

from typing import Any

from moa_dialect.errors import ShapeError
from moa_dialect.frontend import functions as moa


def _check_axis(name: str, a: Any, axis: int) -> None:
    if not 0 <= axis < a.ndim:
        raise ShapeError(
            f"{name}: expected an axis of an array of rank {a.ndim}, got {axis}"
        )


def _on_axis(f: Any, a: Any, axis: int) -> Any:
    """A function of axis 0 applied to another axis: exchange both, before and after."""
    exchange = list(range(a.ndim))
    exchange[0], exchange[axis] = axis, 0
    return moa.transpose(f(moa.transpose(a, exchange)), exchange)


def shift(a: Any, count: int, axis: int = 0) -> Any:
    """The neighbour at a distance on a periodic grid: `count θ A` along an axis.

    Args:
        a: an array of rank 1 or more.
        count: element i of the axis becomes element `i + count`, around the end.
        axis: an axis of a, from 0.

    Returns:
        The shape of a.

    Raises:
        ShapeError: for an axis that is not there.
    """
    _check_axis("shift", a, axis)

    def rotated(x: Any) -> Any:
        return moa.rotate(count, x)

    return _on_axis(rotated, a, axis)


def central_difference(a: Any, spacing: float = 1.0, axis: int = 0) -> Any:
    """`(A[i+1] - A[i-1]) / (2 h)` along an axis of a periodic grid.

    Args:
        a: an array of rank 1 or more, floating point.
        spacing: the distance h of two points.
        axis: an axis of a, from 0.

    Returns:
        The shape of a.

    Raises:
        ShapeError: for an axis that is not there.
    """
    _check_axis("central_difference", a, axis)
    return (shift(a, 1, axis) - shift(a, -1, axis)) / (2 * spacing)


def laplacian(a: Any, spacing: float = 1.0) -> Any:
    """The sum over all axes of `(A[i-1] - 2 A[i] + A[i+1]) / h²`, periodic.

    Args:
        a: an array of rank 1 or more, floating point.
        spacing: the distance h of two points.

    Returns:
        The shape of a.

    Raises:
        ShapeError: for a scalar.
    """
    _check_axis("laplacian", a, 0)
    total = -2 * a.ndim * a
    for axis in range(a.ndim):
        total = total + shift(a, -1, axis) + shift(a, 1, axis)
    return total / (spacing * spacing)


def with_halo(a: Any) -> Any:
    """A grid with its periodic neighbours around it: `(-1 △ A) ++ A ++ (1 △ A)`.

    On every axis in turn, so that the corners are there as well.

    Args:
        a: an array of rank 1 or more, no extent 0.

    Returns:
        Two more on every axis.

    Raises:
        ShapeError: for a scalar, or an extent 0.
    """
    _check_axis("with_halo", a, 0)
    for axis in range(a.ndim):
        a = _on_axis(_extended, a, axis)
    return a


def _extended(a: Any) -> Any:
    return moa.cat(moa.cat(moa.take(-1, a), a), moa.take(1, a))


def laplacian_inside(a: Any, spacing: float = 1.0) -> Any:
    """The Laplacian at the points of a grid that have all their neighbours.

    Neighbours are parts of the grid: `2 ▽ A` after, `-2 ▽ A` before, along one axis,
    without the outermost points of the others.

    Args:
        a: an array of rank 1 or more, floating point, 2 points or more on each axis.
        spacing: the distance h of two points.

    Returns:
        Two less on every axis: the grid without its halo.

    Raises:
        ShapeError: for a scalar, or an axis with less than 2 points.
    """
    _check_axis("laplacian_inside", a, 0)
    rank = a.ndim

    def part(axis: int, offset: int) -> Any:
        """The points inside, moved along an axis."""
        before = [1 + offset * (k == axis) for k in range(rank)]
        after = [-(1 - offset * (k == axis)) for k in range(rank)]
        return moa.drop(after, moa.drop(before, a))

    total = -2 * rank * part(0, 0)
    for axis in range(rank):
        total = total + part(axis, -1) + part(axis, 1)
    return total / (spacing * spacing)


def burgers_step(
    u: Any, *velocity: Any, dt: float, spacing: float = 1.0, viscosity: float = 0.0
) -> Any:
    """One explicit step of the Burgers equation for a component of the velocity.

    `u + dt (ν Δu - Σ_k v_k ∂_k u)` with central differences on a periodic grid.

    Args:
        u: the component, rank 1 or more, floating point.
        velocity: the components along the axes of u, one for each, of the shape and
            dtype of u; none: the grid is one-dimensional and u is its own velocity.
        dt: the step in time.
        spacing: the distance of two points.
        viscosity: ν.

    Returns:
        The shape of u. After the solver in Chetioui et al., *Padding in the Mathematics
        of Arrays* (ARRAY 2021).

    Raises:
        ShapeError: unless there are as many velocities as axes, of the shape of u.
    """
    components = velocity or (u,)
    if len(components) != u.ndim:
        raise ShapeError(
            f"burgers_step: expected a velocity for each of {u.ndim} axes, "
            f"got {len(components)}"
        )
    change = viscosity * laplacian(u, spacing)
    for axis, component in enumerate(components):
        change = change - component * central_difference(u, spacing, axis)
    return u + dt * change
