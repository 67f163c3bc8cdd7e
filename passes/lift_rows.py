"""Row axes of kernels that are long, or of any length: axes of the grid instead.

A kernel has what it accumulates over a row axis in registers, which holds so many and
no more. What a pass does to the elements of such a row does not depend on the other
ones; so the axis may be one of the comprehension's as well, of which a group of threads
has some. What depends on no element of the row is then computed by each such group.
"""

from __future__ import annotations

from moa_dialect.passes.kernels import Kernel, all_terms, static_extent
from moa_dialect.passes.products import WIDEST
from moa_dialect.passes.terms import Held


def find_long_row(kernel: Kernel) -> str:
    """A row axis that is too long for registers; empty if there is none.

    All that is accumulated over rows has this axis and no other one, and is read at its
    own index only.
    """
    accumulators = [a for pass_ in kernel.passes for a in pass_.accumulators]
    axes = {a.axes for a in accumulators if a.axes}
    axes |= {output.axes for output in kernel.outputs if output.axes}
    if len(axes) != 1 or len(found := next(iter(axes))) != 1:
        return ""
    (axis,) = found
    names = {a.name for a in accumulators if a.axes}
    size = static_extent(kernel.extents[axis])
    if not names or (size is not None and size <= WIDEST):
        return ""
    for term in all_terms(kernel):
        is_row = isinstance(term.kind, Held) and term.kind.name in names
        if is_row and [arg.kind for arg in term.args] != [axis]:
            return ""
    return axis


def find_output_row(kernel: Kernel) -> str:
    """The row axis of all results with one, if nothing is accumulated over any.

    Empty if there is none, or several.
    """
    accumulators = [a for pass_ in kernel.passes for a in pass_.accumulators]
    axes = {output.axes for output in kernel.outputs if output.axes}
    if any(a.axes for a in accumulators) or len(axes) != 1:
        return ""
    return next(iter(axes))[0] if len(next(iter(axes))) == 1 else ""


def lift_row(kernel: Kernel, axis: str) -> None:
    """Let a row axis be an axis of the comprehension, the last one, in a kernel."""
    kernel.hints[axis] = _name(kernel, axis)
    kernel.axes.append(axis)
    kernel.lifted = axis
    for output in kernel.outputs:
        output.is_shared = axis not in output.axes
        output.axes = tuple(other for other in output.axes if other != axis)


def _name(kernel: Kernel, axis: str) -> str:
    """A name for a row axis among those of the comprehension."""
    name = kernel.hints[axis]
    while name in (kernel.hints[other] for other in kernel.axes):
        name += "_"
    return name


def lift_named(kernel: Kernel, text: str) -> None:
    """Lift a long row, if a schedule has a block of its indices."""
    axis = find_long_row(kernel)
    if not axis and "threads" in text:
        axis = find_output_row(kernel)
    parts = [part.partition("=") for part in text.replace(" ", "").split(";")]
    blocked = {name for name, _, found in parts if "block" in found}
    if axis and _name(kernel, axis) in blocked:
        lift_row(kernel, axis)
