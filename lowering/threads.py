"""moa-outline-tasks: loops whose iterations are independent, shared among threads.

The outermost `scf.parallel` over one axis becomes functions of its own, and their
distribution over the threads of OpenMP's runtime (libgomp), through the one entry of it
that compiled code needs. Its threads are those that PyTorch uses, where that is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, func, llvm, memref, scf
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    ModuleOp,
    StringAttr,
    UnrealizedConversionCastOp,
    VectorType,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import Pure
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering.to_scf import has_status
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.scalar_code import constant
from moa_dialect.walking import operations

WORK = "moa.work"
"""The attribute of an `scf.parallel` that says how much work an iteration is, about.

In the unit of `moa_dialect.passes.work`: an addition of scalars.
"""

RUNS, AT_A_TIME = "moa.runs", "moa.at_a_time"
"""The attributes of an `scf.parallel` that say how its iterations are dealt out.

In so many runs of iterations that follow each other, or so many at a time, in turn.
"""

SETTING = "moa_num_threads"
"""The i32 of the process that says how many threads to use; 0 leaves it to OpenMP."""

PARALLEL = "GOMP_parallel"
MAX_THREADS = "omp_get_max_threads"

GET_ENVIRONMENT, SET_ENVIRONMENT = "fegetenv", "fesetenv"
"""Rounding, and whether small numbers are flushed to zero, are a thread's own."""

ENVIRONMENT_BYTES = 64
"""More than any `fenv_t` has."""

CHUNKS_PER_THREAD = 8
"""How often a thread comes back for more, if all tasks take the same time."""

AT_ONCE = 1 << 23
"""So much work a thread takes at a time at most: tasks may differ in length."""

THRESHOLD = 20_000
"""Less work than this, in additions, one thread does alone."""


def tasks_at_a_time(
    count: int, threads: int, work: int | None, threshold: int = THRESHOLD
) -> int:
    """How many tasks a thread takes at a time: what the code of a loop computes.

    Args:
        count: how many tasks there are.
        threads: how many threads there are.
        work: how much work a task is, in additions; None if that is not known.
        threshold: from how much work on it is shared.

    Returns:
        That number; all of them if one thread does them.
    """
    is_little = work is not None and count * work < threshold
    if count <= 1 or threads <= 1 or is_little:
        return max(count, 1)
    part = count // (threads * CHUNKS_PER_THREAD)
    if work is not None:
        part = min(part, max(AT_ONCE // max(work, 1), 1))
    return max(part, 1)


_ATOMIC_ADD, _ATOMIC_MIN = 1, 11
_POINTER = llvm.LLVMPointerType()


def _descriptor(type_: MemRefType) -> llvm.LLVMStructType:
    """The LLVM type of a memref, as upstream lowers it."""
    axes = len(type_.get_shape())
    numbers = (llvm.LLVMArrayType(axes, i64),) * 2 if axes else ()
    return llvm.LLVMStructType.from_type_list([_POINTER, _POINTER, i64, *numbers])


def _in_memory(name: str, type_: Attribute) -> tuple[Attribute, int]:
    """The LLVM type that a value is passed in between threads, and its size in bytes.

    Raises:
        CompileError: if there is none.
    """
    if isa(type_, MemRefType):
        return _descriptor(type_), 8 * (3 + 2 * len(type_.get_shape()))
    if isa(type_, VectorType) and not type_.get_num_scalable_dims():
        scalar, size = _in_memory(name, type_.element_type)
        *outer, last = type_.get_shape() or (1,)
        held: Attribute = VectorType(scalar, [last])
        for extent in reversed(outer):
            held = llvm.LLVMArrayType(extent, held)
        return held, size * prod(type_.get_shape())
    if isinstance(type_, IndexType):
        return i64, 8
    if isinstance(type_, llvm.LLVMPointerType):
        return type_, 8
    if isa(type_, IntegerType) or isinstance(type_, AnyFloat):
        return type_, -(-type_.bitwidth // 8)
    raise CompileError(
        f"@{name}: a task cannot use a value of type {type_} from outside"
    )


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the memory through which one thread passes them to others."""

    types: list[Attribute]
    held: list[Attribute]
    offsets: list[int]
    size: int
    alignment: int

    @staticmethod
    def of(name: str, types: Sequence[Attribute]) -> _Frame:
        """Lay out values of some types in order; `name` is for the error message."""
        held: list[Attribute] = []
        offsets: list[int] = []
        at, alignment = 0, 64
        for type_ in types:
            stored, size = _in_memory(name, type_)
            natural = 8 if isa(type_, MemRefType) else 1 << (size - 1).bit_length()
            at = -(-at // natural) * natural
            alignment = max(alignment, natural)
            held.append(stored)
            offsets.append(at)
            at += size
        return _Frame(list(types), held, offsets, at, alignment)

    def store(
        self, values: Sequence[SSAValue], frame: SSAValue, builder: Builder
    ) -> None:
        """Store the values."""
        fields = zip(values, self.held, self.offsets, strict=True)
        for value, held, offset in fields:
            value = _converted(value, held, builder)
            builder.insert(llvm.StoreOp(value, _field(frame, offset, builder)))

    def load(self, frame: SSAValue, builder: Builder) -> list[SSAValue]:
        """Load the values."""
        values: list[SSAValue] = []
        fields = zip(self.types, self.held, self.offsets, strict=True)
        for type_, held, offset in fields:
            load = llvm.LoadOp(_field(frame, offset, builder), held)
            value = builder.insert(load).dereferenced_value
            values.append(_converted(value, type_, builder))
        return values


def _field(frame: SSAValue, offset: int, builder: Builder) -> SSAValue:
    return builder.insert(llvm.GEPOp(frame, [offset], IntegerType(8))).result


def _converted(value: SSAValue, type_: Attribute, builder: Builder) -> SSAValue:
    """A value as the LLVM type that upstream lowers its type to, or back."""
    if value.type == type_:
        return value
    cast = UnrealizedConversionCastOp.get([value], [type_])
    return builder.insert(cast).results[0]


def _is_computed_anew(value: SSAValue, known: dict[SSAValue, bool]) -> bool:
    """Whether a value follows from constants: cheaper to have again than to pass.

    `known` has what was found out before.
    """
    if value not in known:
        op = value.owner
        known[value] = (
            isinstance(op, Operation)
            and not op.regions
            and (op.has_trait(Pure) or isinstance(op, memref.GetGlobalOp))
            and all(_is_computed_anew(operand, known) for operand in op.operands)
        )
    return known[value]


def _emit_anew(
    value: SSAValue, known: dict[SSAValue, SSAValue], builder: Builder
) -> SSAValue:
    """Compute a value that follows from constants once more, here."""
    if value not in known:
        op = value.owner
        assert isinstance(op, Operation)
        for operand in op.operands:
            _emit_anew(operand, known, builder)
        copy = builder.insert(op.clone(known))
        for old, new in zip(op.results, copy.results, strict=True):
            known[old] = new
            new.name_hint = old.name_hint
    return known[value]


def _captured(loop: scf.ParallelOp) -> list[SSAValue]:
    """The values from outside that the body uses, in the order of their first use."""
    inside = {
        block
        for op in operations(loop)
        for region in op.regions
        for block in region.blocks
    }
    found: dict[SSAValue, None] = {}
    for op in operations(loop)[1:]:
        for operand in op.operands:
            owner = operand.owner
            block = owner if isinstance(owner, Block) else owner.parent
            if block not in inside:
                found[operand] = None
    return list(found)


@dataclass
class _Outlining:
    """One loop in the making: its functions are inserted before the loop's function."""

    function: FuncOp
    loop: scf.ParallelOp
    prefix: str
    threshold: int

    def __post_init__(self) -> None:
        self.name = self.function.sym_name.data
        (self.lower,), (self.upper,) = self.loop.lowerBound, self.loop.upperBound
        (self.step,) = self.loop.step
        self.is_simple = _is_number(self.lower, 0) and _is_number(self.step, 1)
        used = _captured(self.loop)
        if not self.is_simple:
            used += [value for value in (self.lower, self.step) if value not in used]
        known: dict[SSAValue, bool] = {}
        self.again = [value for value in used if _is_computed_anew(value, known)]
        self.values = [value for value in used if value not in self.again]
        self.types = [value.type for value in self.values]
        self.status = next(
            (
                number
                for number, value in enumerate(self.values)
                if has_status(self.function)
                and value is self.function.body.block.args[-1]
            ),
            None,
        )
        cells = MemRefType(i64, [2])
        self.passed = [cells, IndexType(), IndexType(), *self.types]
        self.frame = _Frame.of(self.name, self.passed)
        self.environment_at = -(-self.frame.size // 64) * 64

    def run(self) -> None:
        """Outline the loop; a call takes its place."""
        self._task()
        self._tasks()
        if self.is_alone:
            self._replace("tasks", [0])
            return
        self._share()
        self._thread()
        self._parallel()
        self._replace("parallel")

    @property
    def is_alone(self) -> bool:
        """Whether it is known here that one thread does all, however many there are."""
        count = _count_of(self.upper, {})
        if not self.is_simple or count is None:
            return False
        work = self.loop.attributes.get(WORK)
        is_little = isa(work, IntegerAttr) and count * work.value.data < self.threshold
        return count <= 1 or is_little

    def _replace(self, name: str, ahead: Sequence[int] = ()) -> None:
        """Put a call in the place of the loop, with numbers ahead of the tasks'."""
        builder = Builder(InsertPoint.before(self.loop))
        first = [builder.insert(constant(n, IndexType())).result for n in ahead]
        count = self.upper
        if not self.is_simple:
            span = builder.insert(arith.SubiOp(self.upper, self.lower))
            count = builder.insert(arith.CeilDivSIOp(span, self.step)).result
        call = self._call(name, [*self.values, *first, count])
        Rewriter.replace_op(self.loop, call, [])

    # The functions, each in terms of the one before.

    def _function(
        self, name: str, types: Sequence[Attribute], inline: bool = True
    ) -> tuple[list[SSAValue], Builder]:
        """A private function of the captured values and others; gives its arguments."""
        function = FuncOp(
            f"{self.prefix}.{name}", ([*self.types, *types], []), visibility="private"
        )
        function.attributes["llvm.linkage"] = llvm.LinkageAttr("internal")
        if not inline:
            function.attributes["passthrough"] = ArrayAttr([StringAttr("noinline")])
        Rewriter.insert_op(function, InsertPoint.before(self.function))
        block = function.body.block
        for argument, value in zip(block.args, self.values, strict=False):
            argument.name_hint = value.name_hint
        return list(block.args), Builder(InsertPoint.at_end(block))

    def _call(self, name: str, arguments: Sequence[SSAValue]) -> func.CallOp:
        return func.CallOp(f"{self.prefix}.{name}", arguments, [])

    def _task(self) -> None:
        """`f.task(captured, t)`: the body. Stack memory is free again at its end."""
        (*arguments, number), builder = self._function("task", [IndexType()])
        known = dict(zip(self.values, arguments, strict=True))
        for value in self.again:
            _emit_anew(value, known, builder)
        index: SSAValue = number
        if not self.is_simple:
            distance = builder.insert(arith.MuliOp(number, known[self.step]))
            index = builder.insert(arith.AddiOp(known[self.lower], distance)).result
        # What remains in the loop, which goes away, is its end.
        body = self.loop.body.block
        body.args[0].replace_all_uses_with(index)
        for op in operations(self.loop)[1:]:
            if any(operand in known for operand in op.operands):
                op.operands = [known.get(operand, operand) for operand in op.operands]
        for op in list(body.ops):
            if not isinstance(op, scf.ReduceOp):
                op.detach()
                builder.insert(op)
        builder.insert(func.ReturnOp())

    def _tasks(self) -> None:
        """`f.tasks(captured, from, to)`: a range of tasks, one after the other."""
        arguments, builder = self._function(
            "tasks", [IndexType(), IndexType()], inline=False
        )
        *captured, start, stop = arguments
        one = builder.insert(constant(1, IndexType()))
        body = Block(arg_types=[IndexType()])
        inner = Builder(InsertPoint.at_end(body))
        inner.insert(self._call("task", [*captured, body.args[0]]))
        inner.insert(scf.YieldOp())
        builder.insert(scf.ForOp(start, stop, one, [], Region(body)))
        builder.insert(func.ReturnOp())

    def _share(self) -> None:
        """`f.share(captured, cells, count, chunk)`: what one thread does.

        It takes `chunk` tasks after those that are taken, until all are. The first cell
        counts what is taken. If tasks check something, each thread has a status of its
        own, and the second cell receives the first task of the first chunk that fails.
        """
        types = (MemRefType(i64, [2]), IndexType(), IndexType())
        arguments, builder = self._function("share", types)
        *captured, cells, count, chunk = arguments
        zero = builder.insert(constant(0, IndexType())).result
        amount = builder.insert(arith.IndexCastOp(chunk, i64)).result
        status: SSAValue | None = None
        if self.status is not None:
            own = self.types[self.status]
            assert isa(own, MemRefType)
            slot = memref.AllocaOp.get(own.element_type, None, own.get_shape())
            status = captured[self.status] = builder.insert(slot).memref
            _store(0, status, zero, builder)

        before = Block()
        inner = Builder(InsertPoint.at_end(before))
        taken = inner.insert(_atomic(_ATOMIC_ADD, amount, cells, zero)).results[0]
        first = inner.insert(arith.IndexCastOp(taken, IndexType())).result
        is_left = inner.insert(arith.CmpiOp(first, count, "slt"))
        inner.insert(scf.ConditionOp(is_left, first))

        after = Block(arg_types=[IndexType()])
        inner = Builder(InsertPoint.at_end(after))
        (first,) = after.args
        end = inner.insert(arith.AddiOp(first, chunk))
        stop = inner.insert(arith.MinSIOp(end, count)).result
        inner.insert(self._call("tasks", [*captured, first, stop]))
        if status is not None:
            none = inner.insert(constant(0, i64))
            number = inner.insert(memref.LoadOp.get(status, [zero]))
            has_failed = inner.insert(arith.CmpiOp(number.res, none, "ne"))
            branch = Block()
            failed = Builder(InsertPoint.at_end(branch))
            one = failed.insert(constant(1, IndexType())).result
            at = failed.insert(arith.IndexCastOp(first, i64)).result
            failed.insert(_atomic(_ATOMIC_MIN, at, cells, one))
            _store(0, status, zero, failed)
            failed.insert(scf.YieldOp())
            inner.insert(scf.IfOp(has_failed, (), Region(branch)))
        inner.insert(scf.YieldOp())
        builder.insert(scf.WhileOp([], [IndexType()], Region(before), Region(after)))
        builder.insert(func.ReturnOp())

    def _thread(self) -> None:
        """`f.thread(frame)`: the same, called by OpenMP's runtime with one pointer.

        The thread computes as the calling one does, in its floating-point environment.
        """
        block = Block(arg_types=[_POINTER])
        (frame,) = block.args
        builder = Builder(InsertPoint.at_end(block))
        size = builder.insert(constant(ENVIRONMENT_BYTES, i32))
        own = builder.insert(llvm.AllocaOp(size, IntegerType(8), 64)).res
        builder.insert(llvm.CallOp(GET_ENVIRONMENT, own, return_type=i32))
        callers = _field(frame, self.environment_at, builder)
        builder.insert(llvm.CallOp(SET_ENVIRONMENT, callers, return_type=i32))
        values = self.frame.load(frame, builder)
        builder.insert(self._call("share", [*values[3:], *values[:3]]))
        builder.insert(llvm.CallOp(SET_ENVIRONMENT, own, return_type=i32))
        builder.insert(llvm.ReturnOp())
        thread = llvm.FuncOp(
            f"{self.prefix}.thread",
            llvm.LLVMFunctionType([_POINTER]),
            body=Region(block),
        )
        Rewriter.insert_op(thread, InsertPoint.before(self.function))

    def _part(self, count: SSAValue, threads: SSAValue, builder: Builder) -> SSAValue:
        """How many tasks a thread takes at a time: as the loop says, or for balance."""
        attributes = self.loop.attributes
        if isa(given := attributes.get(AT_A_TIME), IntegerAttr):
            return builder.insert(constant(given.value.data, IndexType())).result
        if isa(given := attributes.get(RUNS), IntegerAttr):
            runs = builder.insert(constant(given.value.data, IndexType()))
            return builder.insert(arith.CeilDivSIOp(count, runs)).result
        share = builder.insert(constant(CHUNKS_PER_THREAD, IndexType()))
        chunks = builder.insert(arith.MuliOp(threads, share))
        part = builder.insert(arith.DivSIOp(count, chunks)).result
        if isa(work := attributes.get(WORK), IntegerAttr):
            few = max(AT_ONCE // max(work.value.data, 1), 1)
            most = builder.insert(constant(few, IndexType()))
            part = builder.insert(arith.MinSIOp(part, most)).result
        return part

    def _parallel(self) -> None:
        """`f.parallel(captured, count)`: all tasks, by several threads if it pays.

        A chunk that fails is run once more, by one thread and with the status of the
        caller: what is reported is what one thread would have reported.
        """
        (*captured, count), builder = self._function("parallel", [IndexType()])
        zero = builder.insert(constant(0, IndexType())).result
        one = builder.insert(constant(1, IndexType())).result
        bytes_ = self.environment_at + ENVIRONMENT_BYTES
        size = builder.insert(constant(bytes_, i32))
        frame = llvm.AllocaOp(size, IntegerType(8), self.frame.alignment)
        builder.insert(frame)
        cells = builder.insert(memref.AllocaOp.get(i64, 64, [2])).memref

        setting, threads = _thread_count(builder)
        pays = builder.insert(arith.CmpiOp(count, one, "sgt")).result
        is_alone = builder.insert(arith.CmpiOp(threads, one, "sle")).result
        work = self.loop.attributes.get(WORK)
        if isa(work, IntegerAttr):
            per_task = builder.insert(constant(work.value.data, IndexType()))
            total = builder.insert(arith.MuliOp(count, per_task))
            least = builder.insert(constant(self.threshold, IndexType()))
            is_enough = builder.insert(arith.CmpiOp(total, least, "sge"))
            pays = builder.insert(arith.AndIOp(pays, is_enough)).result

        together, alone = Block(), Block()
        inner = Builder(InsertPoint.at_end(alone))
        inner.insert(self._call("tasks", [*captured, zero, count]))
        inner.insert(scf.YieldOp())

        inner = Builder(InsertPoint.at_end(together))
        part = self._part(count, threads, inner)
        chunk = inner.insert(arith.MaxSIOp(part, one)).result
        _store(0, cells, zero, inner)
        if self.status is not None:
            none = inner.insert(arith.IndexCastOp(count, i64)).result
            inner.insert(memref.StoreOp.get(none, cells, [one]))
        self.frame.store([cells, count, chunk, *captured], frame.res, inner)
        environment = _field(frame.res, self.environment_at, inner)
        inner.insert(llvm.CallOp(GET_ENVIRONMENT, environment, return_type=i32))
        thread = inner.insert(llvm.AddressOfOp(f"{self.prefix}.thread", _POINTER))
        flags = inner.insert(constant(0, i32))
        inner.insert(llvm.CallOp(PARALLEL, thread.result, frame.res, setting, flags))
        if self.status is not None:
            number = inner.insert(memref.LoadOp.get(cells, [one]))
            first = inner.insert(arith.IndexCastOp(number.res, IndexType())).result
            has_failed = inner.insert(arith.CmpiOp(first, count, "slt"))
            branch = Block()
            failed = Builder(InsertPoint.at_end(branch))
            end = failed.insert(arith.AddiOp(first, chunk))
            stop = failed.insert(arith.MinSIOp(end, count)).result
            failed.insert(self._call("tasks", [*captured, first, stop]))
            failed.insert(scf.YieldOp())
            inner.insert(scf.IfOp(has_failed, (), Region(branch)))
        inner.insert(scf.YieldOp())

        truth = builder.insert(constant(1, IntegerType(1)))
        are_several = builder.insert(arith.XOrIOp(is_alone, truth.result))
        condition = builder.insert(arith.AndIOp(pays, are_several))
        builder.insert(scf.IfOp(condition, (), Region(together), Region(alone)))
        builder.insert(func.ReturnOp())


def _is_number(value: SSAValue, number: int) -> bool:
    op = value.owner
    return (
        isinstance(op, arith.ConstantOp)
        and isa(op.value, IntegerAttr)
        and op.value.value.data == number
    )


_COUNTING: dict[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.MuliOp: lambda a, b: a * b,
    arith.CeilDivSIOp: lambda a, b: -(-a // b),
    arith.DivUIOp: lambda a, b: a // b,
    arith.MaxSIOp: max,
    arith.MinSIOp: min,
}
"""What numbers of tasks are computed by, all of numbers from 0 on."""


def _count_of(value: SSAValue, known: dict[SSAValue, int | None]) -> int | None:
    """The number that a value is, if it follows from constants and is 0 or more.

    `known` has what was found out before.
    """
    if value not in known:
        known[value] = _counted(value, known)
    return known[value]


def _counted(value: SSAValue, known: dict[SSAValue, int | None]) -> int | None:
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isa(op.value, IntegerAttr):
        number = op.value.value.data
        return number if number >= 0 else None
    if not isinstance(op, Operation) or (combine := _COUNTING.get(type(op))) is None:
        return None
    left, right = (_count_of(operand, known) for operand in op.operands)
    is_division = isinstance(op, arith.CeilDivSIOp | arith.DivUIOp)
    if left is None or right is None or (is_division and not right):
        return None
    return combine(left, right)


def _store(number: int, target: SSAValue, at: SSAValue, builder: Builder) -> None:
    value = builder.insert(constant(number, i64))
    builder.insert(memref.StoreOp.get(value, target, [at]))


def _atomic(
    kind: int, value: SSAValue, target: SSAValue, at: SSAValue
) -> memref.AtomicRMWOp:
    return memref.AtomicRMWOp.build(
        operands=[value, target, [at]],
        properties={"kind": IntegerAttr(kind, i64)},
        result_types=[i64],
    )


def _thread_count(builder: Builder) -> tuple[SSAValue, SSAValue]:
    """The setting of the process, and how many threads there are by it."""
    address = builder.insert(llvm.AddressOfOp(SETTING, _POINTER))
    setting = builder.insert(llvm.LoadOp(address, i32)).dereferenced_value
    none = builder.insert(constant(0, i32)).result
    is_set = builder.insert(arith.CmpiOp(setting, none, "sgt"))
    given, default = Block(), Block()
    Builder(InsertPoint.at_end(given)).insert(scf.YieldOp(setting))
    inner = Builder(InsertPoint.at_end(default))
    call = inner.insert(llvm.CallOp(MAX_THREADS, return_type=i32))
    assert call.returned is not None
    inner.insert(scf.YieldOp(call.returned))
    chosen = builder.insert(scf.IfOp(is_set, (i32,), Region(given), Region(default)))
    threads = builder.insert(arith.IndexCastOp(chosen.results[0], IndexType()))
    return setting, threads.result


def _declare_runtime(function: FuncOp) -> None:
    """Declare what compiled code needs of the process, in a function's module."""
    external = llvm.LinkageAttr("external")
    declared = [
        llvm.GlobalOp(i32, SETTING, external),
        llvm.FuncOp(
            PARALLEL, llvm.LLVMFunctionType([_POINTER, _POINTER, i32, i32]), external
        ),
        llvm.FuncOp(MAX_THREADS, llvm.LLVMFunctionType([], i32), external),
        *(
            llvm.FuncOp(name, llvm.LLVMFunctionType([_POINTER], i32), external)
            for name in (GET_ENVIRONMENT, SET_ENVIRONMENT)
        ),
    ]
    block = function.parent_block()
    assert block is not None
    first = block.first_op
    assert first is not None
    Rewriter.insert_op(declared, InsertPoint.before(first))


def _is_task_loop(op: Operation) -> bool:
    return isinstance(op, scf.ParallelOp) and len(op.lowerBound) == 1 and not op.res


def outermost(function: FuncOp) -> list[scf.ParallelOp]:
    """The parallel loops of a function that threads share, in no other one."""
    found: list[scf.ParallelOp] = []
    for op in operations(function):
        if not isinstance(op, scf.ParallelOp) or not _is_task_loop(op):
            continue
        parent = op.parent_op()
        while parent is not function and not isinstance(parent, scf.ParallelOp):
            assert parent is not None
            parent = parent.parent_op()
        if parent is function:
            found.append(op)
    return found


@dataclass(frozen=True)
class OutlineTasksPass(ModulePass):
    """Distributes the iterations of outermost `scf.parallel` loops over threads.

    A loop over one axis, without reductions, in function `f` becomes private functions:

    - `f.task`, one iteration, of the values it uses from outside and its number;
    - `f.tasks`, a range of iterations;
    - `f.share`, what one thread does: it takes the next few from a counter that all
      threads share until none is left, so that long ones and short ones balance;
    - `f.parallel`, which runs `f.share` in all threads of OpenMP's runtime, or
      `f.tasks` in the calling one where there is one iteration, one thread or not
      enough work.

    The functions of a second loop in `f` are called `f.1.task` and so on. What follows
    from constants is computed again in the task. Iterations must be independent of each
    other; then results are the same for any number of threads. The status of a function
    is no exception: a failed check is reported as one thread would report it. Loops
    over several axes or with reductions are left to one thread.

    The attribute `moa.work` of a loop says how much work an iteration is, in additions.
    If all together are less than `threshold`, one thread does them. Where that is known
    from constants, and where there is one iteration, there are `f.task` and `f.tasks`
    alone. With `moa.runs` the iterations are dealt out in so many runs that follow each
    other, with `moa.at_a_time` so many at a time, in turn.
    """

    name = "moa-outline-tasks"

    threshold: int = THRESHOLD

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        declared: set[Block] = set()
        for function in functions_of(op):
            block = function.parent_block()
            assert block is not None
            for number, loop in enumerate(outermost(function)):
                name = function.sym_name.data
                prefix = f"{name}.{number}" if number else name
                outlining = _Outlining(function, loop, prefix, self.threshold)
                if block not in declared and not outlining.is_alone:
                    _declare_runtime(function)
                    declared.add(block)
                outlining.run()
