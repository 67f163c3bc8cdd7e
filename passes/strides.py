"""How far apart the elements are that a load reads along an axis."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from xdsl.ir import SSAValue

from moa_dialect.passes.terms import Term
from moa_dialect.types import shape_of


def coefficient(index: Term, axis: str) -> int | None:
    """How much an index advances when that of an axis does by one; None if not so."""
    if axis not in index.free:
        return 0
    if isinstance(index.kind, str):
        return 1
    if index.computes("arith.addi", "arith.subi"):
        left, right = (coefficient(arg, axis) for arg in index.args)
        if left is None or right is None:
            return None
        return left + right if index.computes("arith.addi") else left - right
    if index.computes("arith.muli"):
        for factor, other in (index.args, index.args[::-1]):
            number, inner = factor.number, coefficient(other, axis)
            if number is not None and inner is not None:
                return int(number) * inner
    return None


def advances(load: Term, axis: str) -> bool:
    """Whether the addresses of a load advance by one with an axis, in row-major."""
    array, *indices = load.args
    assert isinstance(array.kind, SSAValue)
    shape = shape_of(array.kind.type)
    while (
        len(indices) > 1
        and shape[len(indices) - 1] == 1
        and (axis not in indices[-1].free)
    ):
        indices.pop()  # An axis of extent 1 is no distance.
    *others, last = indices
    if any(axis in index.free for index in others):
        return False
    return last.kind == axis or (
        last.computes("arith.addi") and any(arg.kind == axis for arg in last.args)
    )


def is_affine(load: Term, axis: str) -> bool:
    """Whether the addresses of a load advance by a fixed number with an axis."""
    return all(coefficient(index, axis) is not None for index in load.args[1:])


def step(load: Term, axis: str) -> int | None:
    """How much the addresses of a load advance with an axis, in row-major.

    None if that depends on extents that types do not give, or on the index.
    """
    array, *indices = load.args
    assert isinstance(array.kind, SSAValue)
    shape, total = shape_of(array.kind.type), 0
    for place, index in enumerate(indices):
        times = coefficient(index, axis)
        if times is None or (times and min(shape[place + 1 :], default=0) < 0):
            return None
        total += times * prod(shape[place + 1 :]) if times else 0
    return total


def turning_axis(load: Term, grid: Collection[str]) -> str | None:
    """An axis along which squares of a load can be turned: its addresses advance by 1.

    Args:
        load: the load, whose lanes are strided.
        grid: the axes of which a task has one index, or that are in the lanes: there
            are no squares along these.
    """
    return next((a for a in sorted(load.free - set(grid)) if advances(load, a)), None)


def spelled(load: Term, names: dict[str, str]) -> str:
    """A load as a reader of the program knows it; `names` are those of indices."""
    array, *indices = load.args
    assert isinstance(array.kind, SSAValue)

    def index(term: Term) -> str:
        if isinstance(term.kind, str):
            return f"%{names.get(term.kind, 'k')}"
        if term.number is not None:
            return f"{int(term.number)}"
        return "..."

    inside = ", ".join(map(index, indices))
    return f"%{array.kind.name_hint or 'array'}[{inside}]"
