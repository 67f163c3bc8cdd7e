"""Whether the statements of a kernel may have lane axes of their own.

Each fold reads elements that lie next to each other along its own index or along an
axis of its result, and what is computed element by element does along its last axis.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from moa_dialect.ops.normal_form import AtOp, InBoundsOp
from moa_dialect.passes.kernels import (
    Accumulator,
    Kernel,
    Pass,
    all_terms,
    static_extent,
)
from moa_dialect.passes.strides import advances
from moa_dialect.passes.terms import Choice, Folded, Term, walk


def have_lanes(kernel: Kernel, rows: str, lanes: int, columns: str = "") -> bool:
    """Whether each statement of a kernel's passes has an axis that may be in its lanes.

    Folds whose own index is to be there have to fill them, rows half of them.

    Args:
        kernel: the kernel, with passes.
        rows: the axis of which a task has all indices; or empty.
        lanes: how many lanes a vector has.
        columns: an axis of which a task has enough indices, however many there are.
    """
    if any(
        term.computes(InBoundsOp.name) or isinstance(term.kind, Choice)
        for term in all_terms(kernel)
    ):
        return False
    for pass_ in kernel.passes:
        if rows and rows in pass_.lower.free | pass_.upper.free:
            return False
        if not all(
            _has_lanes(kernel, pass_, a, rows, lanes, columns)
            for a in pass_.accumulators
        ):
            return False
    return True


def _has_lanes(
    kernel: Kernel, pass_: Pass, a: Accumulator, rows: str, lanes: int, columns: str
) -> bool:
    sizes = [
        lanes if axis == columns else static_extent(kernel.extents[axis])
        for axis in a.axes
    ]
    if any(size is None for size in sizes) or (sizes and (sizes[-1] or 0) < lanes // 2):
        return False
    folds = [term for term in walk(a.part) if isinstance(term.kind, Folded)]
    for fold in folds:
        assert isinstance(fold.kind, Folded)
        index, body = fold.kind.index, fold.args[2]
        if any(name[0] == "%" for name in fold.free):
            return False  # It depends on the index of another one.
        last = _last(fold, pass_, a, rows)
        if last and is_read_in_turn(body, last):
            continue
        if not is_read_in_turn(body, index) or _is_short(fold, lanes):
            return False
    inside = {term for fold in folds for term in walk(fold.args[2])}
    loads = [t for t in walk(a.part) if t.computes(AtOp.name) and t not in inside]
    in_rows = [load for load in loads if load.free & set(a.axes)]
    for load in loads:
        last = _last(load, pass_, a, rows)
        if load not in in_rows and last and not advances(load, last):
            return False
    # The pass folds these: its index may be in the lanes as well.
    return not in_rows or any(
        all(axis not in load.free or advances(load, axis) for load in in_rows)
        for axis in (a.axes[-1], pass_.index)
    )


def _is_short(fold: Term, count: int) -> bool:
    """Whether a fold is known to have fewer indices than some number."""
    upper = fold.args[1]
    number = upper.number
    if isinstance(upper.kind, SSAValue):
        number = static_extent(upper.kind)
    return number is not None and number < count


def _last(term: Term, pass_: Pass, a: Accumulator, rows: str) -> str:
    """The last of the tile axes that a term depends on; empty if it does on none."""
    axes = (rows, pass_.index, *a.axes)
    return next((axis for axis in reversed(axes) if axis in term.free), "")


def is_read_in_turn(term: Term, axis: str) -> bool:
    """Whether what loads read along an axis lies next to each other."""
    return all(
        advances(load, axis)
        for load in walk(term)
        if load.computes(AtOp.name) and axis in load.free
    )
