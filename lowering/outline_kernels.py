"""moa-outline-kernels: the work on memory of a function, as kernels of a GPU.

After moa-to-scf a function is host code, extents and checks, in which the top-level
operations that read or write the memory of arrays belong on the device: parallel loops,
kernels that are written already (`gpu.launch`), and what is left. Each becomes a
`gpu.func` in the module's `gpu.module @kernels`, and a `gpu.launch_func` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, gpu, memref, scf
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DictionaryAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    i1,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import is_side_effect_free
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering.gpu_ops import MAP_ALIGNMENT, MAP_BYTES, TensorMapOp
from moa_dialect.lowering.kernel import STATUS_WORDS
from moa_dialect.lowering.to_scf import has_status
from moa_dialect.passes.infer_shapes import functions_of, is_one_block
from moa_dialect.passes.to_onf import STATUS
from moa_dialect.scalar_code import constant
from moa_dialect.types import dtype_of

KERNELS = "kernels"
"""The name of the `gpu.module` of a module."""

LOCAL_BYTES = 1 << 12
"""How much scratch memory of a task may lie in its thread's local memory.

The driver sets aside as much for each thread that the device can hold at a time.
"""

_ATOMIC_ADD = 1
_INDEX = IndexType()
_AXES = (gpu.DimensionEnum.X, gpu.DimensionEnum.Y, gpu.DimensionEnum.Z)


def _dimension(axis: int) -> gpu.DimensionAttr:
    return gpu.DimensionAttr(_AXES[axis])


def _ceil_divided(a: int, b: int) -> int | None:
    return -(-a // b) if b else None


_ARITHMETIC: dict[type[Operation], Callable[[int, int], int | None]] = {
    arith.AddiOp: int.__add__,
    arith.SubiOp: int.__sub__,
    arith.MuliOp: int.__mul__,
    arith.MaxSIOp: max,
    arith.MinSIOp: min,
    arith.CeilDivSIOp: _ceil_divided,
}


def number_of(value: SSAValue) -> int | None:
    """The number that an integer is, if it follows from constants."""
    op = value.owner
    if isinstance(op, arith.ConstantOp):
        return op.value.value.data if isa(op.value, IntegerAttr) else None
    if not isinstance(op, Operation) or type(op) not in _ARITHMETIC:
        return None
    left, right = map(number_of, op.operands)
    if left is None or right is None:
        return None
    return _ARITHMETIC[type(op)](left, right)


def _is_pure(op: Operation) -> bool:
    """Whether an operation only computes scalars, without a loop."""
    return is_side_effect_free(op) and not any(
        isinstance(inner, scf.ForOp | scf.WhileOp | scf.ParallelOp)
        for inner in op.walk()
    )


def captured(ops: Sequence[Operation]) -> list[SSAValue]:
    """The values that operations use and do not define, in the order of first use."""
    inside: set[object] = {
        region_block
        for op in ops
        for inner in op.walk()
        for region in inner.regions
        for region_block in region.blocks
    }
    inside |= set(ops)
    found: dict[SSAValue, None] = {}
    for op in ops:
        for inner in op.walk():
            for operand in inner.operands:
                owner = operand.owner
                block = owner if isinstance(owner, Block) else owner.parent
                if owner not in inside and block not in inside:
                    found[operand] = None
    return list(found)


@dataclass(eq=False)
class _Group:
    """What becomes one kernel: its operations, which lie in one block of the host."""

    ops: list[Operation]

    @property
    def loop(self) -> scf.ParallelOp | None:
        """The parallel loop that it is, if it is one."""
        op = self.ops[0]
        return op if isinstance(op, scf.ParallelOp) else None

    @property
    def launch(self) -> gpu.LaunchOp | None:
        """The kernel that it is already, if it is one."""
        op = self.ops[0]
        return op if isinstance(op, gpu.LaunchOp) else None


@dataclass
class _Outlining:
    """The kernels of one function."""

    function: FuncOp
    kernels: gpu.ModuleOp
    block_size: int
    groups: list[_Group] = field(default_factory=list[_Group])
    group_of: dict[Operation, _Group] = field(default_factory=dict[Operation, _Group])
    device: set[SSAValue] = field(default_factory=set[SSAValue])
    temporaries: list[memref.AllocOp | memref.AllocaOp] = field(
        default_factory=list[memref.AllocOp | memref.AllocaOp]
    )
    cells: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    shared: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    own: dict[SSAValue, _Group] = field(default_factory=dict[SSAValue, _Group])

    def __post_init__(self) -> None:
        self.name = self.function.sym_name.data
        self.status = (
            self.function.body.block.args[-1] if has_status(self.function) else None
        )

    def run(self) -> None:
        """Outline all work on memory."""
        block = self.function.body.block
        self._host(block)
        self._place()
        for group in self.groups:
            _Kernel(self, group).emit()
        for op in self.temporaries:
            for use in list(op.memref.uses):
                if isinstance(use.operation, memref.DeallocOp):
                    _erase(use.operation)
            _erase(op)
        _erase_dead(block)

    # What runs where.

    def _host(self, block: Block) -> None:
        """Tell the operations of a block apart that the host runs."""
        pending: list[Operation] = []

        def flush() -> None:
            if pending:
                self._add(_Group(list(pending)))
                pending.clear()

        for op in list(block.ops):
            is_host = not any(value in self.device for value in captured([op]))
            match op:
                case ReturnOp() | scf.YieldOp():
                    flush()
                    if not is_host:
                        raise CompileError(
                            f"@{self.name}: a shape that depends on values in arrays "
                            f"is not known without the device"
                        )
                case memref.AllocOp() | memref.AllocaOp():
                    self.temporaries.append(op)
                case memref.DeallocOp():
                    pass
                case gpu.LaunchFuncOp() | gpu.AllocOp():
                    flush()
                case _ if _is_pure(op):
                    if not is_host:
                        self.device.update(op.results)
                    # In the kernel that is being made, what follows may need it.
                    if any(value.owner in pending for value in captured([op])):
                        pending.append(op)
                case memref.StoreOp() if op.memref is self.status and is_host:
                    pass
                case scf.ParallelOp() if not op.res and not self._are_on_device(op):
                    flush()
                    self._add(_Group([collapse(op)]))
                case scf.ParallelOp():
                    if op.res:
                        raise CompileError(
                            f"@{self.name}: a parallel loop with results is not "
                            f"supported"
                        )
                    pending.append(_serialize_loop(op))
                case gpu.LaunchOp():
                    flush()
                    self._add(_Group([op]))
                case scf.IfOp() if not op.results and op.cond not in self.device:
                    flush()
                    for region in op.regions:
                        for inner in region.blocks:
                            self._host(inner)
                case _:
                    pending.append(op)
                    self.device.update(op.results)
        flush()

    def _are_on_device(self, loop: scf.ParallelOp) -> bool:
        """Whether only the device knows the bounds of a loop."""
        bounds = (*loop.lowerBound, *loop.upperBound, *loop.step)
        return any(value in self.device for value in bounds)

    def _add(self, group: _Group) -> None:
        self.groups.append(group)
        for op in group.ops:
            self.group_of[op] = group
            for inner in op.walk():
                if isinstance(inner, gpu.LaunchOp) and inner is not op:
                    raise CompileError(
                        f"@{self.name}: a kernel cannot be launched from a loop or a "
                        f"branch that runs on the device"
                    )
                if self.status is not None and self.status in inner.operands:
                    self._check_on_device(self.status)

    def _check_on_device(self, status: SSAValue) -> None:
        """Have a status that kernels write beside that of the host."""
        if status not in self.shared:
            entry = Builder(InsertPoint.at_start(self.function.body.block))
            size = entry.insert(constant(STATUS_WORDS + 1, _INDEX)).result
            memory = device_memory(i64, size, entry)
            assert isinstance(memory.owner, gpu.AllocOp)
            memory.owner.attributes[STATUS] = UnitAttr()
            self.shared[status] = memory

    def _groups_using(self, value: SSAValue) -> set[_Group]:
        """The kernels that a value is used in."""
        found: set[_Group] = set()
        for use in value.uses:
            group = self._group_around(use.operation)
            if group is not None:
                found.add(group)
                continue
            for result in use.operation.results:
                found |= self._groups_using(result)
        return found

    def _group_around(self, op: Operation | None) -> _Group | None:
        while op is not None:
            if op in self.group_of:
                return self.group_of[op]
            op = op.parent_op()
        return None

    # Memory that kernels share.

    def _place(self) -> None:
        """Decide where temporary memory lies, and what one kernel hands to others."""
        for op in self.temporaries:
            users = self._groups_using(op.memref)
            if len(users) == 1 and (user := users.copy().pop()).launch is None:
                self.own[op.memref] = user
            elif users:
                if (size := _size(op)) is None:
                    raise CompileError(
                        f"@{self.name}: expected flat temporary memory, "
                        f"got {op.memref.type}"
                    )
                builder = Builder(InsertPoint.before(op))
                count = _size_value(op, size, builder)
                self.shared[op.memref] = device_memory(
                    op.memref.type.element_type, count, builder
                )
        for group in self.groups:
            for value in self._device_inputs(group):
                self._hand_over(value)

    def _device_inputs(self, group: _Group) -> Iterator[SSAValue]:
        """The scalars of other kernels that a kernel needs."""
        pending, seen = list(captured(group.ops)), set[SSAValue]()
        while pending:
            value = pending.pop()
            if value in seen or value not in self.device:
                continue
            seen.add(value)
            owner = value.owner
            assert isinstance(owner, Operation)
            if owner in self.group_of:
                if self.group_of[owner] is not group:
                    yield value
            else:
                pending.extend(captured([owner]))

    def _hand_over(self, value: SSAValue) -> None:
        """Give a scalar a cell in device memory."""
        if value in self.cells:
            return
        owner = value.owner
        assert isinstance(owner, Operation)
        builder = Builder(InsertPoint.before(self.group_of[owner].ops[0]))
        element = IntegerType(8) if value.type == i1 else value.type
        one = builder.insert(constant(1, _INDEX)).result
        self.cells[value] = device_memory(element, one, builder)


def device_memory(element: Attribute, count: SSAValue, builder: Builder) -> SSAValue:
    """Device memory of the function: flat, of so many elements."""
    type_ = MemRefType(element, [DYNAMIC_INDEX])
    return builder.insert(gpu.AllocOp(type_, [count])).result


def _size(op: memref.AllocOp | memref.AllocaOp) -> Sequence[SSAValue] | None:
    """The dynamic sizes of flat memory, none for a number; None if it is not flat."""
    type_ = op.memref.type
    if len(type_.get_shape()) != 1 or not isinstance(type_.layout, NoneAttr):
        return None
    return op.dynamic_sizes


def _size_value(
    op: memref.AllocOp | memref.AllocaOp, size: Sequence[SSAValue], builder: Builder
) -> SSAValue:
    if size:
        return size[0]
    return builder.insert(constant(op.memref.type.get_shape()[0], _INDEX)).result


def _erase(op: Operation) -> None:
    op.detach()
    op.erase(safe_erase=False)


def _erase_dead(block: Block) -> None:
    """Erase what nothing uses, in a block of the host and below."""
    for op in reversed(list(block.ops)):
        for region in op.regions:
            for inner in region.blocks:
                _erase_dead(inner)
        is_dead = bool(op.results) and is_side_effect_free(op)
        if is_dead and not any(True for value in op.results for _ in value.uses):
            _erase(op)


def collapse(loop: scf.ParallelOp) -> scf.ParallelOp:
    """Make a loop, and the parallel loop that is all it does, one over more axes."""
    while (inner := _only_inner(loop)) is not None:
        block, body = loop.body.block, inner.body.block
        between = [
            op for op in block.ops if op is not inner and op is not block.last_op
        ]
        kept: list[Operation] = []
        for op in between:
            used = captured([op])
            if any(v.owner is block or v.owner in kept for v in used):
                kept.append(op)
            else:
                op.detach()
                Rewriter.insert_op(op, InsertPoint.before(loop))
        bounds = (*inner.lowerBound, *inner.upperBound, *inner.step)
        if any(value.owner is block or value.owner in kept for value in bounds):
            return loop
        for op in reversed(kept):
            op.detach()
            Rewriter.insert_op(op, InsertPoint.at_start(body))
        for number, argument in enumerate(list(block.args)):
            new = body.insert_arg(argument.type, number)
            new.name_hint = argument.name_hint
            argument.replace_all_uses_with(new)
        merged = scf.ParallelOp(
            [*loop.lowerBound, *inner.lowerBound],
            [*loop.upperBound, *inner.upperBound],
            [*loop.step, *inner.step],
            inner.detach_region(inner.body),
        )
        Rewriter.replace_op(loop, merged, [])
        loop = merged
    return loop


def _only_inner(loop: scf.ParallelOp) -> scf.ParallelOp | None:
    """The parallel loop that is all a parallel loop does, beside scalars."""
    found = [
        op
        for op in loop.body.block.ops
        if not isinstance(op, scf.ReduceOp) and not _is_pure(op)
    ]
    if len(found) != 1:
        return None
    (inner,) = found
    if not isinstance(inner, scf.ParallelOp) or inner.res or loop.res:
        return None
    return inner


def serialize(op: Operation) -> None:
    """Make the parallel loops inside an operation sequential."""
    for loop in list(op.walk(reverse=True)):
        if isinstance(loop, scf.ParallelOp) and loop is not op:
            _serialize_loop(loop)


def _serialize_loop(loop: scf.ParallelOp) -> scf.ForOp:
    """Make a parallel loop without results sequential."""
    block = loop.body.block
    end = block.last_op
    assert isinstance(end, scf.ReduceOp)
    assert not loop.res, "moa-to-scf emits no parallel loops with results"
    Rewriter.replace_op(end, scf.YieldOp(), [])
    ranges = list(zip(loop.lowerBound, loop.upperBound, loop.step, strict=True))
    outer: list[Block] = []
    for argument in list(block.args)[:-1]:
        around = Block(arg_types=[_INDEX])
        around.args[0].name_hint = argument.name_hint
        argument.replace_all_uses_with(around.args[0])
        block.erase_arg(argument)
        outer.append(around)
    nest = scf.ForOp(*ranges[-1], [], loop.detach_region(loop.body))
    for around, bounds in zip(reversed(outer), reversed(ranges[:-1]), strict=True):
        around.add_ops((nest, scf.YieldOp()))
        nest = scf.ForOp(*bounds, [], Region(around))
    Rewriter.replace_op(loop, nest, [])
    return nest


def _is_flat(type_: Attribute) -> bool:
    return (
        isa(type_, MemRefType)
        and len(type_.get_shape()) == 1
        and isinstance(type_.layout, NoneAttr)
        and isinstance(type_.memory_space, NoneAttr)
    )


def report_once(status: SSAValue, ops: Sequence[Operation]) -> list[Operation]:
    """Let one thread alone store into a status, of all threads whose checks fail.

    The word after the status counts them, so that none has to look at the status
    before, which may be memory of the host. Gives what the operations are then.
    """
    kept: list[Operation] = []
    stores: dict[Block, list[memref.StoreOp]] = {}
    for op in ops:
        for inner in list(op.walk()):
            if isinstance(inner, memref.StoreOp) and inner.memref is status:
                assert inner.parent is not None
                stores.setdefault(inner.parent, []).append(inner)
            elif isinstance(inner, memref.LoadOp) and inner.memref is status:
                none = constant(0, i64)
                Rewriter.replace_op(inner, none)
                op = none if op is inner else op
        kept.append(op)
    for found in stores.values():
        builder = Builder(InsertPoint.before(found[-1]))
        one = builder.insert(constant(1, i64)).result
        slot = builder.insert(constant(STATUS_WORDS, _INDEX)).result
        before = memref.AtomicRMWOp.build(
            operands=[one, status, [slot]],
            properties={"kind": IntegerAttr(_ATOMIC_ADD, i64)},
            result_types=[i64],
        )
        builder.insert(before)
        none = builder.insert(constant(0, i64)).result
        is_first = arith.CmpiOp(before.results[0], none, "eq")
        builder.insert(is_first)
        inside = Block()
        builder.insert(scf.IfOp(is_first.result, (), Region(inside)))
        for store in found:
            store.detach()
            inside.add_op(store)
        inside.add_op(scf.YieldOp())
    return kept


WARP = 32

AT_ONCE = 4
"""How many iterations a thread has where there are many."""

MANY = 1 << 19
"""So many iterations occupy a device even if a thread has several."""

_LONGEST = 100
"""Bodies of more operations have one iteration for a thread."""


def many(loop: scf.ParallelOp) -> list[int] | None:
    """The extents of a loop of which a thread may have several iterations.

    None if there are few or nobody knows how many, or if its body is more than scalar
    operations, loads and then stores.
    """
    counts: list[int] = []
    for lower, upper, step in zip(
        loop.lowerBound, loop.upperBound, loop.step, strict=True
    ):
        extent = number_of(upper)
        if number_of(lower) != 0 or number_of(step) != 1 or extent is None:
            return None
        counts.append(extent)
    ops = [op for op in loop.body.block.ops if not isinstance(op, scf.ReduceOp)]
    stored = False
    for op in ops:
        if isinstance(op, memref.StoreOp):
            stored = True
        elif (
            op.regions
            or (stored and isinstance(op, memref.LoadOp))
            or (not isinstance(op, memref.LoadOp) and not _is_pure(op))
        ):
            return None
    is_short = stored and len(ops) <= _LONGEST
    return counts if is_short and prod(counts) >= MANY else None


def _at_once(ops: Sequence[Operation]) -> int:
    """How many iterations a thread has: of narrow elements twice as many."""
    loads = [op for op in ops if isinstance(op, memref.LoadOp)]
    sizes = [dtype_of(op.results[0].type).itemsize for op in loads]
    return 2 * AT_ONCE if max(sizes, default=4) <= 2 else AT_ONCE


def turned_axis(loop: scf.ParallelOp, counts: Sequence[int]) -> int:
    """The axis that some loads run along which lie apart along the last one, or -1."""
    args = list(loop.body.block.args)
    if len(args) < 2 or counts[-1] < WARP:
        return -1
    for op in loop.body.block.ops:
        if not isinstance(op, memref.LoadOp) or len(op.indices) != 1:
            continue
        (address,) = op.indices
        last = _coefficient(address, args[-1])
        if last is None or last in (0, 1):
            continue
        for axis, arg in enumerate(args[:-1]):
            if _coefficient(address, arg) == 1 and counts[axis] >= WARP:
                return axis
    return -1


def _coefficient(address: SSAValue, index: SSAValue) -> int | None:
    """What an index is multiplied by in an address; None if nobody knows."""
    if address is index:
        return 1
    op = address.owner
    if number_of(address) is not None or not isinstance(op, Operation):
        return 0
    if isinstance(op, arith.AddiOp):
        parts = [_coefficient(operand, index) for operand in op.operands]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None
    if isinstance(op, arith.MuliOp):
        for factor, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            if (number := number_of(factor)) is not None:
                inner = _coefficient(other, index)
                return None if inner is None else number * inner
    return 0 if index not in _used(address) else None


def _used(value: SSAValue) -> set[SSAValue]:
    """A value, and what it is computed from."""
    found, pending = set[SSAValue](), [value]
    while pending:
        if (value := pending.pop()) not in found:
            found.add(value)
            if isinstance(value.owner, Operation):
                pending += value.owner.operands
    return found


@dataclass
class _Kernel:
    """One kernel in the making."""

    outlining: _Outlining
    group: _Group
    known: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    operands: list[SSAValue] = field(default_factory=list[SSAValue])
    maps: list[SSAValue] = field(default_factory=list[SSAValue])
    local_bytes: int = 0

    def __post_init__(self) -> None:
        self.name = self.outlining.function.sym_name.data
        status = self.outlining.status
        if status is not None and status in self.outlining.shared:
            self.group.ops = report_once(status, self.group.ops)
        launch = self.group.launch
        if launch is None:
            self.region = Region(Block())
            self.entry = Builder(InsertPoint.at_end(self.region.block))
        else:
            self.region = launch.detach_region(launch.body)
            self.entry = Builder(InsertPoint.at_start(self.region.blocks[0]))
        self.block = self.region.blocks[0]
        after = self.group.ops[-1].next_op
        assert after is not None
        self.host = Builder(InsertPoint.before(after))

    def _error(self, message: str) -> CompileError:
        return CompileError(f"@{self.name}: {message}")

    def emit(self) -> None:
        """Write the kernel; its launch takes the place of the operations."""
        if (launch := self.group.launch) is not None:
            self._of_launch(launch)
        elif (loop := self.group.loop) is not None:
            serialize(loop)
            self._of_loop(loop)
        else:
            for op in self.group.ops:
                serialize(op)
            self._of_one_thread()

    # The three kinds.

    def _of_launch(self, launch: gpu.LaunchOp) -> None:
        """A kernel that is written already."""
        grid = (launch.gridSizeX, launch.gridSizeY, launch.gridSizeZ)
        block = (launch.blockSizeX, launch.blockSizeY, launch.blockSizeZ)
        cluster = (launch.clusterSizeX, launch.clusterSizeY, launch.clusterSizeZ)
        kinds = (gpu.BlockIdOp, gpu.ThreadIdOp, gpu.GridDimOp, gpu.BlockDimOp)
        for number, argument in enumerate(list(self.block.args)):
            if any(True for _ in argument.uses):
                own = self.entry.insert(kinds[number // 3](_dimension(number % 3)))
                own.result.name_hint = argument.name_hint
                argument.replace_all_uses_with(own.result)
            self.block.erase_arg(argument)
        ops = [op for each in self.region.blocks for op in each.ops]
        self._capture(ops)
        self._rename(ops)
        for op in list(self.region.walk()):
            if isinstance(op, gpu.TerminatorOp):
                Rewriter.replace_op(op, gpu.ReturnOp([]))
        clusters = [value for value in cluster if value is not None]
        symbol = self._function(block, launch.attributes)
        self._launch(symbol, grid, block, launch.dynamicSharedMemorySize, clusters)
        _erase(launch)

    # Many iterations: several for a thread, whose loads are under way together.

    def _of_many(self, loop: scf.ParallelOp, counts: Sequence[int], turned: int):
        """A thread for `AT_ONCE` iterations.

        All loads of a thread come before its first store: iterations do not depend on
        each other. A block has iterations that follow each other; or, if some load runs
        along another axis (`turned`), a square of that axis and the last one.
        """
        body = loop.body.block
        ops = [op for op in body.ops if not isinstance(op, scf.ReduceOp)]
        self._capture(ops, body=body)
        self._rename(ops)
        build = self.entry
        at_once = AT_ONCE if turned >= 0 else _at_once(ops)
        threads = 2 * WARP * AT_ONCE if turned >= 0 else self.outlining.block_size
        block_id = build.insert(gpu.BlockIdOp(_dimension(0))).result
        thread = build.insert(gpu.ThreadIdOp(_dimension(0))).result

        def number(value: int) -> SSAValue:
            return self.entry.insert(constant(value, _INDEX)).result

        def apply(op: type[Any], left: SSAValue, right: int | SSAValue) -> SSAValue:
            other = number(right) if isinstance(right, int) else right
            return self.entry.insert(op(left, other)).result

        def decoded(rest: SSAValue, extents: Sequence[int]) -> list[SSAValue]:
            found: list[SSAValue] = []
            for extent in reversed(extents[1:]):
                found.insert(0, apply(arith.RemUIOp, rest, extent))
                rest = apply(arith.DivUIOp, rest, extent)
            return [rest, *found]

        if turned < 0:
            blocks = -(-prod(counts) // (threads * at_once))
            start = apply(arith.MuliOp, block_id, threads * at_once)
            first = apply(arith.AddiOp, start, thread)
            places = [
                [apply(arith.AddiOp, first, threads * turn)] for turn in range(at_once)
            ]
            limits = [prod(counts)]
        else:
            tiles = [
                -(-count // WARP) if axis in (turned, len(counts) - 1) else count
                for axis, count in enumerate(counts)
            ]
            blocks = prod(tiles)
            corner = decoded(block_id, tiles)
            lane = apply(arith.RemUIOp, thread, WARP)
            warp = apply(arith.DivUIOp, thread, WARP)
            # A warp has 4 x 8 of the square: what it writes are whole sectors.
            across = apply(arith.MuliOp, apply(arith.RemUIOp, warp, 4), 8)
            across = apply(arith.AddiOp, across, apply(arith.RemUIOp, lane, 8))
            down = apply(arith.MuliOp, apply(arith.DivUIOp, warp, 4), 4)
            down = apply(arith.AddiOp, down, apply(arith.DivUIOp, lane, 8))
            for axis, within in ((turned, down), (len(counts) - 1, across)):
                start = apply(arith.MuliOp, corner[axis], WARP)
                corner[axis] = apply(arith.AddiOp, start, within)
            step = WARP // AT_ONCE
            places = [
                [
                    apply(arith.AddiOp, index, step * turn) if axis == turned else index
                    for axis, index in enumerate(corner)
                ]
                for turn in range(AT_ONCE)
            ]
            limits = list(counts)

        def exists(place: Sequence[SSAValue]) -> SSAValue:
            found: SSAValue | None = None
            for index, limit in zip(place, limits, strict=True):
                inside = self.entry.insert(arith.CmpiOp(index, number(limit), "slt"))
                if found is None:
                    found = inside.result
                else:
                    both = arith.AndIOp(found, inside.result)
                    found = self.entry.insert(both).result
            assert found is not None
            return found

        def emit(chosen: Sequence[Sequence[SSAValue]]) -> None:
            maps: list[dict[SSAValue, SSAValue]] = []
            for place in chosen:
                indices = place if turned >= 0 else decoded(place[0], counts)
                maps.append(dict(zip(body.args, indices, strict=True)))
            for op in ops:
                for known in maps:
                    self.entry.insert(op.clone(known))

        def when(condition: SSAValue, chosen: Sequence[Sequence[SSAValue]]) -> Block:
            outer, inside = self.entry, Block()
            self.entry = Builder(InsertPoint.at_end(inside))
            emit(chosen)
            self.entry.insert(scf.YieldOp())
            self.entry = outer
            return inside

        has_last = exists(places[-1])
        full = when(has_last, places)
        outer, some = self.entry, Block()
        self.entry = Builder(InsertPoint.at_end(some))
        for place in places[:-1]:
            is_there = exists(place)
            single = Region(when(is_there, [place]))
            self.entry.insert(scf.IfOp(is_there, (), single))
        self.entry.insert(scf.YieldOp())
        self.entry = outer
        build.insert(scf.IfOp(has_last, (), Region(full), Region(some)))
        one = self.host.insert(constant(1, _INDEX)).result
        width = self.host.insert(constant(threads, _INDEX)).result
        grid = self.host.insert(constant(blocks, _INDEX)).result
        block = (width, one, one)
        self._launch(self._function(block), (grid, one, one), block)
        _erase(loop)

    def _of_loop(self, loop: scf.ParallelOp) -> None:
        """A thread for each iteration, the last index fastest."""
        if (extents := many(loop)) is not None:
            self._of_many(loop, extents, turned_axis(loop, extents))
            return
        counts = [
            self._count(*bounds)
            for bounds in zip(loop.lowerBound, loop.upperBound, loop.step, strict=True)
        ]
        total = counts[0]
        for count in counts[1:]:
            total = self.host.insert(arith.MuliOp(total, count)).result
        width = self.host.insert(constant(self.outlining.block_size, _INDEX)).result
        blocks = self.host.insert(arith.CeilDivSIOp(total, width)).result
        body = loop.body.block
        ops = [op for op in body.ops if not isinstance(op, scf.ReduceOp)]

        self._capture(ops, [*loop.lowerBound, *loop.step, *counts, total], body)
        block_id = self.entry.insert(gpu.BlockIdOp(_dimension(0))).result
        thread_id = self.entry.insert(gpu.ThreadIdOp(_dimension(0))).result
        own_width = self.entry.insert(constant(self.outlining.block_size, _INDEX))
        start = self.entry.insert(arith.MuliOp(block_id, own_width.result))
        task = self.entry.insert(arith.AddiOp(start.result, thread_id)).result
        task.name_hint = "task"
        is_task = arith.CmpiOp(task, self.known[total], "slt")
        self.entry.insert(is_task)
        place = self.entry.insertion_point
        inside = Block()
        inner = Builder(InsertPoint.at_end(inside))
        rest = task
        for axis in reversed(range(len(counts))):
            index = rest
            if axis:
                count = self.known[counts[axis]]
                index = inner.insert(arith.RemUIOp(rest, count)).result
                rest = inner.insert(arith.DivUIOp(rest, count)).result
            lower, step = loop.lowerBound[axis], loop.step[axis]
            if number_of(step) != 1:
                index = inner.insert(arith.MuliOp(index, self.known[step])).result
            if number_of(lower) != 0:
                index = inner.insert(arith.AddiOp(self.known[lower], index)).result
            argument = body.args[axis]
            if index is not task:
                index.name_hint = argument.name_hint
            argument.replace_all_uses_with(index)
        ops = self._scratch(ops, task, total, inner)
        self._rename(ops)
        for op in ops:
            op.detach()
            inner.insert(op)
        inner.insert(scf.YieldOp())
        self.entry.insertion_point = place
        self.entry.insert(scf.IfOp(is_task.result, (), Region(inside)))
        one = self.host.insert(constant(1, _INDEX)).result
        block = (width, one, one)
        self._launch(self._function(block), (blocks, one, one), block)
        _erase(loop)

    def _count(self, lower: SSAValue, upper: SSAValue, step: SSAValue) -> SSAValue:
        """How many iterations an axis of a loop has."""
        count = upper
        if number_of(lower) != 0:
            count = self.host.insert(arith.SubiOp(upper, lower)).result
        if number_of(step) != 1:
            count = self.host.insert(arith.CeilDivSIOp(count, step)).result
        if number_of(count) is None:
            none = self.host.insert(constant(0, _INDEX))
            count = self.host.insert(arith.MaxSIOp(count, none.result)).result
        return count

    def _of_one_thread(self) -> None:
        """The operations, in order."""
        ops, cells = self.group.ops, self.outlining.cells
        one = self.host.insert(constant(1, _INDEX)).result
        self._capture(ops)
        ops = self._scratch(ops, None, one, self.entry)
        self._rename(ops)
        for op in ops:
            op.detach()
            self.entry.insert(op)
        zero = self.entry.insert(constant(0, _INDEX)).result
        for value in [v for op in ops for v in op.results if v in cells]:
            kept = value
            if value.type == i1:
                kept = self.entry.insert(arith.ExtUIOp(value, IntegerType(8))).result
            cell = self._argument(cells[value])
            self.entry.insert(memref.StoreOp.get(kept, cell, [zero]))
        sizes = (one, one, one)
        self._launch(self._function(sizes), sizes, sizes)

    # The function and its launch.

    def _function(
        self, block: Sequence[SSAValue], attributes: dict[str, Attribute] | None = None
    ) -> SymbolRefAttr:
        """Add the kernel to the module of kernels; gives its symbol."""
        if not isinstance(self.block.last_op, gpu.ReturnOp):
            self.region.blocks[-1].add_op(gpu.ReturnOp([]))
        inside = self.outlining.kernels.body.block
        taken = {op.sym_name.data for op in inside.ops if isinstance(op, gpu.FuncOp)}
        base = re.sub(r"[^A-Za-z0-9_]", "_", self.name) + "_kernel"
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        sizes = [number_of(value) for value in block]
        types = [argument.type for argument in self.block.args]
        function = gpu.FuncOp(
            name,
            (types, []),
            self.region,
            known_block_size=[n for n in sizes if n] if all(sizes) else None,
        )
        # Upstream's own mark, which is not the one that xDSL has.
        function.attributes |= {"gpu.kernel": UnitAttr()} | (attributes or {})
        if self.maps:
            mark: dict[str, Attribute] = {
                MAP_ALIGNMENT: IntegerAttr(MAP_BYTES // 2, i64)
            }
            function.attributes["arg_attrs"] = ArrayAttr(
                DictionaryAttr(mark if argument in self.maps else {})
                for argument in self.block.args
            )
        inside.add_op(function)
        return SymbolRefAttr(KERNELS, [name])

    def _launch(
        self,
        symbol: SymbolRefAttr,
        grid: Sequence[SSAValue],
        block: Sequence[SSAValue],
        shared: SSAValue | None = None,
        clusters: Sequence[SSAValue] = (),
    ) -> None:
        """Launch the kernel."""
        self.host.insert(
            gpu.LaunchFuncOp(
                symbol,
                grid,
                block,
                clusterSize=clusters or None,
                kernelOperands=self.operands,
                asyncDependencies=[],
                dynamicSharedMemorySize=shared,
            )
        )

    # Values of the host.

    def _capture(
        self,
        ops: Sequence[Operation],
        more: Sequence[SSAValue] = (),
        body: Block | None = None,
    ) -> None:
        """Have the values of the host that operations use, in the kernel."""
        for value in (*captured(ops), *more):
            is_own = self.outlining.own.get(value) is self.group
            if value.owner is not body and not is_own:
                self._inside(value)

    def _rename(self, ops: Sequence[Operation]) -> None:
        """Let operations use the values in the kernel."""
        for op in ops:
            for inner in op.walk():
                if any(operand in self.known for operand in inner.operands):
                    inner.operands = [self.known.get(v, v) for v in inner.operands]

    def _argument(self, value: SSAValue) -> SSAValue:
        """A value of the host that is passed."""
        if value not in self.known:
            argument = self.block.insert_arg(value.type, len(self.block.args))
            argument.name_hint = value.name_hint
            self.operands.append(value)
            self.known[value] = argument
        return self.known[value]

    def _inside(self, value: SSAValue) -> SSAValue:
        """A value of the host in the kernel: computed again, passed or loaded."""
        if value in self.known:
            return self.known[value]
        outlining, owner = self.outlining, value.owner
        number = number_of(value)
        if number is not None:
            found = self.entry.insert(constant(number, value.type)).result
        elif value in outlining.shared:
            found = self._argument(outlining.shared[value])
        elif isinstance(owner, TensorMapOp):
            return self._map(owner)
        elif value in outlining.cells:
            cell = self._argument(outlining.cells[value])
            zero = self.entry.insert(constant(0, _INDEX)).result
            found = self.entry.insert(memref.LoadOp.get(cell, [zero])).res
            if value.type == i1:
                found = self.entry.insert(arith.TruncIOp(found, i1)).result
        elif isinstance(owner, Operation) and _follows_from_constants(owner):
            found = self._again(owner, value)
        elif value not in outlining.device and (
            isinstance(value.type, IndexType) or _is_flat(value.type)
        ):
            return self._argument(value)
        elif isinstance(owner, Operation) and _is_pure(owner):
            found = self._again(owner, value)
        else:
            raise self._error(
                f"a kernel cannot use a value of type {value.type} from outside"
            )
        found.name_hint = value.name_hint
        self.known[value] = found
        return found

    def _map(self, op: TensorMapOp) -> SSAValue:
        """A tensor map, which the host makes and passes."""
        memory = self.outlining.shared.get(op.memory, op.memory)
        copy = self.host.insert(op.clone({op.memory: memory}))
        argument = self.known[op.result] = self._argument(copy.result)
        self.maps.append(argument)
        return argument

    def _again(self, op: Operation, value: SSAValue) -> SSAValue:
        """Compute a value of the host once more, in the kernel."""
        if isinstance(op, memref.GetGlobalOp):
            self._global(op.name_.root_reference)
        for operand in captured([op]):
            self._inside(operand)
        copy = self.entry.insert(op.clone(dict(self.known)))
        for old, new in zip(op.results, copy.results, strict=True):
            self.known[old] = new
        return self.known[value]

    def _global(self, name: StringAttr) -> None:
        """Have a constant of the module in the module of kernels, too."""
        inside = self.outlining.kernels.body.block
        module = self.outlining.kernels.parent_op()
        assert isinstance(module, ModuleOp)

        def found(block: Block) -> memref.GlobalOp | None:
            return next(
                (
                    op
                    for op in block.ops
                    if isinstance(op, memref.GlobalOp) and op.sym_name == name
                ),
                None,
            )

        if found(inside) is None:
            original = found(module.body.block)
            if original is None:
                raise self._error(f"there is no constant {name.data}")
            first = inside.first_op
            if first is None:
                inside.add_op(original.clone())
            else:
                inside.insert_op_before(original.clone(), first)

    # Memory of a task.

    def _scratch(
        self,
        ops: Sequence[Operation],
        task: SSAValue | None,
        total: SSAValue,
        inner: Builder,
    ) -> list[Operation]:
        """Give the memory that a task has for itself a place; gives what is left."""
        used = set(captured(ops))
        for op in self.outlining.temporaries:
            if op.memref in used and self.outlining.own.get(op.memref) is self.group:
                self.known[op.memref] = self._memory(op, task, total, inner)
        for outer in ops:
            for op in list(outer.walk()):
                if isinstance(op, memref.AllocOp | memref.AllocaOp):
                    place = self._memory(op, task, total, inner)
                    for use in list(op.memref.uses):
                        if isinstance(use.operation, memref.DeallocOp):
                            _erase(use.operation)
                    Rewriter.replace_op(op, [], [place])
        return [op for op in ops if op.parent is not None]

    def _memory(
        self,
        op: memref.AllocOp | memref.AllocaOp,
        task: SSAValue | None,
        total: SSAValue,
        inner: Builder,
    ) -> SSAValue:
        """Local memory if it is little, or else a task's part of device memory."""
        type_ = op.memref.type
        element = type_.element_type
        shape = list(type_.get_shape())
        sizes = iter(op.dynamic_sizes)
        numbers = [number_of(next(sizes)) if n == DYNAMIC_INDEX else n for n in shape]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            bytes_ = prod(known) * dtype_of(element).itemsize
            if self.local_bytes + bytes_ <= LOCAL_BYTES:
                self.local_bytes += bytes_
                slot = memref.AllocaOp.get(element, None, known)
                first = self.block.first_op
                if first is None:
                    return self.entry.insert(slot).memref
                Rewriter.insert_op(slot, InsertPoint.before(first))
                return slot.memref
        if (size := _size(op)) is None:
            raise self._error(f"expected flat scratch memory, got {type_}")
        count = self._on_host(_size_value(op, size, self.host))
        all_ = self.host.insert(arith.MuliOp(total, count)).result
        memory = self._argument(device_memory(element, all_, self.host))
        if task is None:
            return memory
        extent = self._inside(count)
        start = inner.insert(arith.MuliOp(task, extent)).result
        part = MemRefType(element, [DYNAMIC_INDEX], StridedLayoutAttr([1], NoneAttr()))
        view = memref.ReinterpretCastOp(
            source=memory,
            offsets=[start],
            sizes=[extent],
            strides=[],
            static_offsets=[DYNAMIC_INDEX],
            static_sizes=[DYNAMIC_INDEX],
            static_strides=[1],
            result_type=part,
        )
        return inner.insert(view).result

    def _on_host(self, value: SSAValue) -> SSAValue:
        """A value that operations of the kernel compute, computed by the host."""
        op = value.owner
        if isinstance(op, Operation) and self._is_inside(op):
            if not _is_pure(op) or op.regions:
                raise self._error("the size of scratch memory depends on a task")
            values = {operand: self._on_host(operand) for operand in op.operands}
            copy = self.host.insert(op.clone(values))
            return copy.results[op.results.index(value)]
        if value in self.outlining.device or (
            isinstance(op, Block) and self._is_inside(op.parent_op())
        ):
            raise self._error("the size of scratch memory depends on a task")
        return value

    def _is_inside(self, op: Operation | None) -> bool:
        while op is not None:
            if op in self.group.ops:
                return True
            op = op.parent_op()
        return False


def _follows_from_constants(op: Operation) -> bool:
    return _is_pure(op) and all(
        isinstance(operand.owner, Operation) and _follows_from_constants(operand.owner)
        for operand in captured([op])
    )


@dataclass(frozen=True)
class OutlineKernelsPass(ModulePass):
    """Makes the work on memory at the top of functions kernels of a GPU.

    In a function after moa-to-scf,

    - an `scf.parallel` becomes a kernel in which each thread does one iteration;
      parallel loops that are nested perfectly become one over all their axes, and
      parallel loops deeper inside become sequential;
    - a `gpu.launch` becomes a kernel as it is, with its attributes;
    - what else reads or writes memory becomes kernels of one thread, one for all such
      operations in a row.

    A kernel is a `gpu.func` in the module's `gpu.module @kernels`, called by a
    `gpu.launch_func`. It is passed flat memory and indices; other scalars of the host
    are computed again in it. What kernels hand on to others lies in device memory
    (`gpu.alloc`), as does scratch memory of a task that is too large, or of a size too
    uncertain, to be local. `block` is the number of threads of a block.

    The host does not read elements of arrays: a shape that depends on them is an error
    here. A check of them, such as of an index that data give, is made in the kernel,
    which stores a failure into a status of four words in device memory (`gpu.alloc`
    with the attribute `moa.status`): the last word counts the threads whose checks
    fail, and the first of them stores.
    """

    name = "moa-outline-kernels"

    block: int = 128

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Outline the kernels of all functions.

        Raises:
            CompileError: for what a kernel cannot do, or a block that is no block.
        """
        if not 1 <= self.block <= 1024:
            raise CompileError(
                f"moa-outline-kernels: expected a block of 1 to 1024 threads, "
                f"got {self.block}"
            )
        functions = list(filter(is_one_block, functions_of(op)))
        kernels = next((k for k in op.ops if isinstance(k, gpu.ModuleOp)), None)
        if kernels is None:
            name = StringAttr(KERNELS)
            kernels = gpu.ModuleOp(name, Region(Block()))  # pyright: ignore
            op.body.block.add_op(kernels)
        for function in functions:
            is_inside = function.parent_op() is not op
            if is_inside and any(
                isinstance(o, scf.ParallelOp) for o in function.walk()
            ):
                raise CompileError(
                    f"@{function.sym_name.data}: expected a function of the outermost "
                    "module: a GPU's kernels are there"
                )
            _Outlining(function, kernels, self.block).run()
        if kernels.body.block.first_op is None:
            _erase(kernels)
        else:
            op.attributes["gpu.container_module"] = UnitAttr()
