"""Whether the statements of a kernel may have lane axes of their own.

Each fold reads elements that lie next to each other along its own index or along an
axis of its result, and what is computed element by element does along its last axis.
"""

from __future__ import annotations

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


def have_lanes(kernel: Kernel, rows: str) -> bool:
    """Whether each statement of a kernel's passes has an axis that may be in its lanes.

    Args:
        kernel: the kernel, with passes.
        rows: the axis of which a task has all indices; or empty.
    """
    if any(
        term.computes(InBoundsOp.name) or isinstance(term.kind, Choice)
        for term in all_terms(kernel)
    ):
        return False
    for pass_ in kernel.passes:
        if rows and rows in pass_.lower.free | pass_.upper.free:
            return False
        if not all(_has_lanes(kernel, pass_, a, rows) for a in pass_.accumulators):
            return False
    return True


def _has_lanes(kernel: Kernel, pass_: Pass, a: Accumulator, rows: str) -> bool:
    if any(static_extent(kernel.extents[axis]) is None for axis in a.axes):
        return False
    folds = [term for term in walk(a.part) if isinstance(term.kind, Folded)]
    for fold in folds:
        assert isinstance(fold.kind, Folded)
        index, body = fold.kind.index, fold.args[2]
        if any(name[0] == "%" for name in fold.free):
            return False  # It depends on the index of another one.
        if not _is_read_in_turn(body, index):
            last = _last(fold, pass_, a, rows)
            if not last or not _is_read_in_turn(body, last):
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


def _last(term: Term, pass_: Pass, a: Accumulator, rows: str) -> str:
    """The last of the tile axes that a term depends on; empty if it does on none."""
    axes = (rows, pass_.index, *a.axes)
    return next((axis for axis in reversed(axes) if axis in term.free), "")


def _is_read_in_turn(term: Term, axis: str) -> bool:
    """Whether what loads read along an axis lies next to each other."""
    return all(
        advances(load, axis)
        for load in walk(term)
        if load.computes(AtOp.name) and axis in load.free
    )
