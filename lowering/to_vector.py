"""moa-to-vector: kernels in the fused form as loops over vectors.

A kernel runs as tasks, each a block of indices of its lane axis (see `Schedule`). A
task stages what it reads with lanes that do not lie next to each other, runs the passes
chunk by chunk, and stores its outputs. What has no vector code is left to moa-to-onf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ModuleOp,
)
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from moa_dialect.algebra.layout import Order
from moa_dialect.errors import CompileError
from moa_dialect.lowering.kernel_axes import let_extents_be_known, strides_along
from moa_dialect.lowering.vector_code import (
    NotLifted,
)
from moa_dialect.lowering.vector_kernel import KernelCode
from moa_dialect.lowering.vector_outputs import Outputs
from moa_dialect.lowering.vector_passes import PassCode, SplitPass
from moa_dialect.lowering.vector_statements import StatementsPass
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.passes.guards import guard_choices
from moa_dialect.passes.kernels import (
    SCHEDULE,
    Kernel,
    read_kernel,
    split_folds,
    static_extent,
)
from moa_dialect.passes.schedules import Schedule, schedule_of
from moa_dialect.passes.terms import (
    NotATerm,
)
from moa_dialect.passes.to_onf import Lowering, lower_functions


def vectorize(lowering: Lowering, op: ComprehensionOp, strict: bool = False) -> bool:
    """Emit a comprehension at the top of a function as a kernel, if it has a schedule.

    Args:
        lowering: the function in the making.
        op: the comprehension.
        strict: whether it is an error that there is no vector code for it.

    Returns:
        Whether it is emitted: not if there is no vector code for it.

    Raises:
        CompileError: if there is none, and that is an error.
    """
    if SCHEDULE not in op.attributes:
        return False
    try:
        kernel = read_kernel(op, lowering.function)
        axes = list(kernel.axes)
        schedule = schedule_of(op, kernel)
        if schedule is None:
            return False
        _emit(lowering, kernel, schedule, axes)
    except (NotATerm, NotLifted) as reason:
        if strict:
            text = op.attributes[SCHEDULE]
            name = lowering.function.sym_name.data
            raise CompileError(
                f"@{name}: no vector code under the schedule {text}: {reason}"
            ) from None
        return False
    return True


def _emit(
    lowering: Lowering, kernel: Kernel, schedule: Schedule, axes: Sequence[str]
) -> None:
    """Emit a kernel, which had these axes; nothing is emitted if that fails.

    Raises:
        NotLifted: if there is no vector code for it.
    """
    op = kernel.op
    guard_choices(kernel)
    let_extents_be_known(lowering, kernel)
    blocked = kernel.named(schedule.blocked)
    if blocked:
        size = static_extent(kernel.extents[blocked])
        if size is not None and size < schedule.block:
            schedule = replace(schedule, block=max(size, 1))
        if kernel.passes and not schedule.each:
            raise NotLifted("a block of an axis of a kernel with passes")
    if blocked or not schedule.lane:
        split_folds(kernel, (blocked,) if blocked and not schedule.each else ())
    outputs: list[tuple[SSAValue, Sequence[SSAValue]]] = []
    for array in op.arrays:
        place, *copies = lowering.targets[array]
        if copies:
            raise NotLifted("a result in two places")
        place = place.permuted(op.positions(len(place.free)))
        strides = strides_along(lowering, kernel, axes, place.free)
        outputs.append((place.buffer, strides))

    def place_of(array: SSAValue) -> tuple[SSAValue, Sequence[SSAValue]]:
        place = lowering.places[array]
        return place.buffer, place.free

    block = Block()
    KernelCode(
        kernel,
        schedule,
        Builder(InsertPoint.at_end(block)),
        lowering.number,
        place_of,
        lowering.get,
        outputs,
    ).emit(_task)
    for inner in list(block.ops):
        inner.detach()
        lowering.builder.insert(inner)
    for array in op.arrays:
        lowering.places[array] = lowering.targets[array][0]


def _task(kernel: KernelCode) -> None:
    """Emit what a task does: the passes, then the outputs."""
    pass_code = PassCode if kernel.lane else SplitPass
    if kernel.schedule.each:
        pass_code = StatementsPass
    for pass_ in kernel.kernel.passes:
        pass_code(kernel, pass_).emit()
    Outputs(kernel).emit()


@dataclass(frozen=True)
class ToVectorPass(ModulePass):
    """Lowers functions with schedules to loops over vectors, the rest as moa-to-onf.

    A comprehension that has a schedule (moa-lift) becomes a parallel loop over tasks;
    one that has none, or for which there is no vector code, becomes a nest of loops
    over flat addresses. With `strict` the latter is an error, which says why.
    """

    name = "moa-to-vector"

    strict: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower functions.

        Raises:
            CompileError: with `strict`, for a schedule under which there is no code.
        """
        lower_functions(op, Order.ROW, partial(vectorize, strict=self.strict))
