"""moa-to-gpu: kernels in the fused form as launches of groups of threads.

What a group has of a kernel, and in which of its threads, says the schedule (`Grid`).
A comprehension without one, or for which there is no such code, is left to moa-to-onf:
its loops become one thread for each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from moa_dialect.algebra.layout import Order
from moa_dialect.errors import CompileError
from moa_dialect.lowering.chips import LARGEST
from moa_dialect.lowering.emitter import NotLifted
from moa_dialect.lowering.group_kernel import GroupKernel
from moa_dialect.lowering.kernel_axes import let_extents_be_known, strides_along
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.passes.grid import Grid, let_folds_be_passes, read_grid
from moa_dialect.passes.kernels import (
    BY_HAND,
    OTHER_SCHEDULE,
    SCHEDULE,
    Kernel,
    read_kernel,
)
from moa_dialect.passes.terms import NotATerm
from moa_dialect.passes.to_onf import Lowering, lower_functions, result_extents
from moa_dialect.types import shape_of


def to_groups(
    lowering: Lowering, op: ComprehensionOp, shared_bytes: int = LARGEST
) -> bool:
    """Emit a comprehension at the top of a function as a launch, if it has a schedule.

    Returns:
        Whether it is emitted: not if there is no such code for it.
    """
    text = op.attributes.get(SCHEDULE)
    if not isinstance(text, StringAttr):
        return False
    other = op.attributes.pop(OTHER_SCHEDULE, None)
    is_by_hand = op.attributes.pop(BY_HAND, None) is not None
    try:
        kernel = read_kernel(op, lowering.function)
        axes = list(kernel.axes)
        grid = read_grid(text.data, kernel)
        _emit(lowering, kernel, grid, axes, shared_bytes)
    except (NotATerm, NotLifted, CompileError) as error:
        if other is not None:
            op.attributes[SCHEDULE] = other
            return to_groups(lowering, op, shared_bytes)
        if isinstance(error, CompileError):
            raise
        if is_by_hand:
            raise CompileError(f"schedule: there is no code for {error}") from None
        return False
    return True


def _emit(
    lowering: Lowering,
    kernel: Kernel,
    grid: Grid,
    axes: Sequence[str],
    shared_bytes: int,
) -> None:
    """Emit a kernel, which had these axes; nothing is emitted if that fails.

    Raises:
        NotLifted: if there is no code for it.
    """
    op = kernel.op
    let_extents_be_known(lowering, kernel)
    let_folds_be_passes(kernel, grid)
    outputs: list[tuple[SSAValue, Sequence[SSAValue]]] = []
    for array, output in zip(op.arrays, kernel.outputs, strict=True):
        place, *copies = lowering.targets[array]
        if copies:
            raise NotLifted("a result in two places")
        place = place.permuted(op.positions(len(place.free)))
        has_row = bool(kernel.lifted) and not output.is_shared
        old = [*axes, kernel.lifted] if has_row else axes
        strides = strides_along(lowering, kernel, old, place.free)
        outputs.append((place.buffer, strides))

    def place_of(array: SSAValue) -> tuple[SSAValue, Sequence[SSAValue]]:
        place = lowering.places[array]
        return place.buffer, place.free

    def extents_of(array: SSAValue) -> Sequence[SSAValue]:
        shape = shape_of(array.type)
        if all(extent >= 0 for extent in shape):
            return [lowering.number(extent) for extent in shape]
        if isinstance(array, BlockArgument):
            memory = lowering.block.args[array.index]
            return [lowering.extent(memory, axis) for axis in range(len(shape))]
        return [lowering.get(extent) for extent in result_extents(array)]

    block = Block()
    GroupKernel(
        kernel,
        grid,
        Builder(InsertPoint.at_end(block)),
        lowering.number,
        place_of,
        lowering.get,
        outputs,
        extents_of,
        shared_bytes,
    ).emit()
    for inner in list(block.ops):
        inner.detach()
        lowering.builder.insert(inner)
    for array in op.arrays:
        lowering.places[array] = lowering.targets[array][0]


@dataclass(frozen=True)
class ToGpuPass(ModulePass):
    """Lowers functions with schedules for a GPU to launches, the rest as moa-to-onf.

    A comprehension that has a schedule (moa-lift{target=nvptx}) becomes a `gpu.launch`
    of groups of threads; one that has none, or for which there is no such code, becomes
    a nest of loops over flat addresses, parallel over its elements. So does one whose
    tiles take more than `shared_bytes` of shared memory. A schedule that is given by
    hand (`moa.by_hand`) is refused where there is no such code; for one with `tma` that
    was chosen there is another one beside it (`moa.other_schedule`), which is taken
    then.
    """

    name = "moa-to-gpu"

    shared_bytes: int = LARGEST

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower all functions.

        Raises:
            CompileError: for a schedule by hand that there is no code for.
        """
        emit = partial(to_groups, shared_bytes=self.shared_bytes)
        lower_functions(op, Order.ROW, emit, parallel=True)
