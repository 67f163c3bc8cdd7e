"""moa-to-vector: kernels in the fused form as loops over vectors.

A kernel runs as tasks, each a block of indices of its lane axis (see `Schedule`). A
task stages what it reads with lanes that do not lie next to each other, runs the passes
chunk by chunk, and stores its outputs. What has no vector code is left to moa-to-onf.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint
from xdsl.utils.hints import isa

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
    FEW_ROWS,
    FEW_SCHEDULE,
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
    if not isinstance(op.attributes.get(SCHEDULE), StringAttr):
        return False
    try:
        block = _code_for(lowering, op, SCHEDULE)
    except (NotATerm, NotLifted) as reason:
        if strict:
            text = op.attributes[SCHEDULE]
            name = lowering.function.sym_name.data
            raise CompileError(
                f"@{name}: no vector code under the schedule {text}: {reason}"
            ) from None
        return False
    if FEW_SCHEDULE in op.attributes:
        with suppress(NotATerm, NotLifted):
            few = _code_for(lowering, op, FEW_SCHEDULE)
            block = _by_extents(lowering, op, few, block)
    for inner in list(block.ops):
        inner.detach()
        lowering.builder.insert(inner)
    for array in op.arrays:
        lowering.places[array] = lowering.targets[array][0]
    return True


def _code_for(
    lowering: Lowering, op: ComprehensionOp, name: str, is_bounded: bool = False
) -> Block:
    """The code under the schedule of this name, which is there.

    Raises:
        NotATerm: if the kernel has what there is no vector code for.
        NotLifted: if there is none under this schedule.
    """
    kernel = read_kernel(op, lowering.function)
    axes = list(kernel.axes)
    schedule = schedule_of(op, kernel, name)
    assert schedule is not None
    try:
        return _emit(lowering, kernel, schedule, axes, is_bounded)
    except NotLifted:
        if is_bounded:
            raise
    return _code_for(lowering, op, name, is_bounded=True)


def _by_extents(
    lowering: Lowering, op: ComprehensionOp, few: Block, others: Block
) -> Block:
    """A block that chooses the code for few rows where there are few.

    And columns enough for the pieces that its tasks have.
    """
    kernel = read_kernel(op, lowering.function)
    schedule = schedule_of(op, kernel, FEW_SCHEDULE)
    assert schedule is not None
    builder = Builder(InsertPoint.at_end(block := Block()))
    conditions: list[SSAValue] = []
    for name, most, predicate in (
        (schedule.blocked, op.attributes.get(FEW_ROWS), "sle"),
        (schedule.columns, IntegerAttr(schedule.piece, i64), "sge"),
    ):
        axis = kernel.named(name)
        if not isa(most, IntegerAttr) or static_extent(kernel.extents[axis]):
            continue
        extent = lowering.get(kernel.extents[axis])
        number = lowering.number(most.value.data)
        conditions.append(
            builder.insert(arith.CmpiOp(extent, number, predicate)).result
        )
    return _chosen(builder, block, conditions, few, others) if conditions else others


def _chosen(
    builder: Builder,
    block: Block,
    conditions: Sequence[SSAValue],
    one: Block,
    other: Block,
) -> Block:
    """A block that does what is in one block if all conditions hold, else the other."""
    condition = conditions[0]
    for more in conditions[1:]:
        condition = builder.insert(arith.AndIOp(condition, more)).result
    for each in (one, other):
        each.add_op(scf.YieldOp())
    builder.insert(scf.IfOp(condition, (), Region(one), Region(other)))
    return block


def _emit(
    lowering: Lowering,
    kernel: Kernel,
    schedule: Schedule,
    axes: Sequence[str],
    is_bounded: bool,
) -> Block:
    """The code of a kernel, which had these axes.

    If it `is_bounded`, it has tiles along axes whose extents types do not give, and
    takes those that are not too long; the others are left to loops of one element.

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
        rows = kernel.named(schedule.columns) if schedule.each else blocked
        split_folds(kernel, (rows,) if rows else ())
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
    code = KernelCode(
        kernel,
        schedule,
        Builder(InsertPoint.at_end(block)),
        lowering.number,
        place_of,
        lowering.get,
        outputs,
        is_bounded=is_bounded,
    )
    code.is_for_many = _has_other_code(op, kernel, code)
    code.emit(_task)
    return _where_small(lowering, op, block, code.limits) if code.limits else block


def _has_other_code(op: ComprehensionOp, kernel: Kernel, code: KernelCode) -> bool:
    """Whether blocks of few rows, which read what others pack, have other code."""
    most, few = op.attributes.get(FEW_ROWS), schedule_of(op, kernel, FEW_SCHEDULE)
    if few is None or not isa(most, IntegerAttr):
        return False
    columns = kernel.extents[kernel.named(few.columns)]
    return static_extent(columns) is not None and most.value.data >= code.many_rows


def _where_small(
    lowering: Lowering, op: ComprehensionOp, block: Block, limits: dict[SSAValue, int]
) -> Block:
    """A block that does what is in one if extents are small enough, else loops."""
    builder = Builder(InsertPoint.at_end(chosen := Block()))
    conditions: list[SSAValue] = []
    for extent, limit in limits.items():
        given, most = lowering.get(extent), lowering.number(limit)
        conditions.append(builder.insert(arith.CmpiOp(given, most, "sle")).result)
    outer, loops = lowering.builder, Block()
    lowering.builder = Builder(InsertPoint.at_end(loops))
    lowering.comprehension(op)
    lowering.builder = outer
    return _chosen(builder, chosen, conditions, block, loops)


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
    over flat addresses. Where the code depends on extents that types do not give, it
    chooses when it runs: between a schedule for few rows and the other one, and between
    vectors, if rows are short enough for tiles, and loops. With `strict` it is an error
    that there is no vector code, which says why.
    """

    name = "moa-to-vector"

    strict: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower functions.

        Raises:
            CompileError: with `strict`, for a schedule under which there is no code.
        """
        lower_functions(op, Order.ROW, partial(vectorize, strict=self.strict))
