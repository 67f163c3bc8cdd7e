"""Axes that a kernel has instead of those of its comprehension, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import arith
from xdsl.ir import SSAValue

from moa_dialect.passes.kernels import Kernel, static_extent
from moa_dialect.passes.to_onf import Lowering


def let_extents_be_known(lowering: Lowering, kernel: Kernel) -> None:
    """Let the extents of axes made of others, which are numbers, have values."""
    for axis in kernel.axes:
        if axis in kernel.origins:
            size = static_extent(kernel.extents[axis])
            assert size is not None
            lowering.values[kernel.extents[axis]] = lowering.number(size)


def strides_along(
    lowering: Lowering, kernel: Kernel, old: Sequence[str], strides: Sequence[SSAValue]
) -> list[SSAValue]:
    """The strides of a result along the axes that a kernel has now.

    Args:
        lowering: the lowering.
        kernel: the kernel.
        old: the axes it had.
        strides: the strides along those, then along what comes after them.
    """
    known = dict(zip(old, strides, strict=False))
    found: list[SSAValue] = []
    for axis in kernel.axes:
        origin, steps = kernel.origins.get(axis, (axis, 1))
        if origin == kernel.lifted and origin not in known:
            continue  # The result does not have it.
        stride = known[origin]
        if steps > 1:
            factor = lowering.number(steps)
            stride = lowering.entry.insert(arith.MuliOp(stride, factor)).result
        found.append(stride)
    return [*found, *strides[len(old) :]]
