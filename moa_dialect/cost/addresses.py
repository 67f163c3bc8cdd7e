"""The addresses that a program reads and writes, in order, given to a simulator.

A program is lowered to loops and memory accesses as if it were to be run. Then each
access gets a call before it, with the line of memory it touches, and the whole is
compiled and run on data: the stream is exact, whatever bounds and branches depend on,
and takes a few nanoseconds an access. What the calls do is a `Simulator`, code in MLIR
that is compiled with the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, cast

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, func, memref, scf, vector
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DictionaryAttr,
    IndexType,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    NoneAttr,
    VectorType,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import Relation, failure_message
from moa_dialect.cost.workload import (
    LINE,
    PAGE,
    PRIVATE,
    TASKS,
    Buffer,
    Workload,
    allocations,
    known_number,
    workload_of,
)
from moa_dialect.errors import CompileError, MoaError, precondition_error
from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.kernel import STATUS_WORDS, Signature
from moa_dialect.lowering.prefetch import PrefetchOp
from moa_dialect.lowering.threads import tasks_at_a_time
from moa_dialect.lowering.to_scf import has_status
from moa_dialect.lowering.unregistered import name_of
from moa_dialect.parsing import ModuleParser
from moa_dialect.types import dtype_of, element_of

INDEX = IndexType()


@dataclass(frozen=True)
class Memory:
    """The memory of a workload, in lines.

    Attributes:
        lines: how many there are.
        first_scratch: the first line of scratch memory.
        private_lines: how many lines of scratch memory, the last ones, each core has of
            its own, if there are several.
    """

    lines: int
    first_scratch: int
    private_lines: int = 0

    @property
    def first_private(self) -> int:
        """The first line that each core has of its own."""
        return self.lines - self.private_lines


class Simulator(Protocol):
    """What is told of each line that is touched."""

    @property
    def line(self) -> int:
        """How many bytes a line has."""
        ...

    @property
    def cores(self) -> int:
        """How many cores share the tasks."""
        ...

    def code(self, memory: Memory) -> str:
        """Functions in MLIR, among them `@touch`.

        It takes two memories of the simulator, the number of a line as an index, and 1
        as an i32 for a write, 0 for a read:
        `@touch(%s: memref<?xi32>, %h: memref<?xi64>, %line: index, %write: i32)`.
        If there are several cores, `@take(%s, %h)` is called before the first one of
        those tasks that a core takes at a time, and `@finish(%s, %h)` after all.

        Args:
            memory: the memory of the workload.
        """
        ...

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        """What the memories hold at first: int32 and int64."""
        ...


_SILENT = (
    memref.ReinterpretCastOp,
    memref.ExtractStridedMetaDataOp,
    memref.ExtractAlignedPointerAsIndexOp,
    memref.ViewOp,
    memref.CastOp,
    memref.DimOp,
    arith.SelectOp,
    PrefetchOp,
)
"""Operations on memory that touch none, or only ask for it."""


def placed(workload: Workload, name: str) -> ModuleOp:
    """A function of a workload, its scratch memory and constants as they are laid out.

    The memory, of bytes, is its first argument.

    Raises:
        CompileError: for a size that is known only at the call.
    """
    function = find_entry(workload.functions[name], name).clone()
    tracer = _Tracer(function, workload)
    tracer.add_arguments(i8)
    tracer.replace_memory()
    return ModuleOp([function])


@dataclass
class _Tracer:
    """Gives the accesses of one function calls, in place."""

    function: FuncOp
    workload: Workload
    line: int = LINE
    cores: int = 1

    def trace(self) -> None:
        """Add the arguments, move scratch memory and constants, add the calls.

        Raises:
            CompileError: for accesses that are not known.
        """
        first = self.function.body.block.first_op
        assert first is not None
        self.add_arguments(i8, i32, i64)
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(self.memories[0])
        self.base = Builder(InsertPoint.before(first)).insert(pointer).results[0]
        status = (
            self.function.body.block.args[-1] if has_status(self.function) else None
        )
        shared = {
            op: op.attributes[TASKS]
            for op in self.function.walk()
            if isinstance(op, scf.ForOp) and TASKS in op.attributes
        }
        self.replace_memory()
        for op in list(self.function.walk()):
            touched = [v for v in op.operands if isa(v.type, MemRefType)]
            if not touched or isinstance(op, _SILENT) or touched == [status]:
                continue
            self._access(op)
        for loop, work in shared.items() if self.cores > 1 else ():
            self._tasks(loop, work)

    def _tasks(self, loop: scf.ForOp, mark: Attribute) -> None:
        """Tell when tasks are taken, as threads take them, and when all are done.

        Raises:
            CompileError: if it is known only at the call how many there are.
        """
        bounds = (loop.lb, loop.ub, loop.step)
        try:
            lower, upper, step = map(known_number, bounds)
        except CompileError as error:
            raise CompileError(
                "how many tasks there are is known only at the call"
            ) from error
        work = mark.value.data if isa(mark, IntegerAttr) else None
        chunk = tasks_at_a_time(-(-(upper - lower) // step), self.cores, work)
        inner = Builder(InsertPoint.at_start(loop.body.block))
        shifted = inner.insert(
            arith.SubiOp(loop.body.block.args[0], self._number(lower, inner))
        )
        several = self._number(chunk * step, inner)
        rest = inner.insert(arith.RemUIOp(shifted.result, several)).result
        is_first = inner.insert(arith.CmpiOp(rest, self._number(0, inner), "eq"))
        block = Block([func.CallOp("take", self.memories[1:], []), scf.YieldOp()])
        inner.insert(scf.IfOp(is_first, [], Region(block)))
        after = Builder(InsertPoint.after(loop))
        after.insert(func.CallOp("finish", self.memories[1:], []))

    def add_arguments(self, *types: Attribute) -> None:
        """Let the function take memories first, of elements of some types."""
        block = self.function.body.block
        self.memories = [
            block.insert_arg(MemRefType(type_, [DYNAMIC_INDEX]), number)
            for number, type_ in enumerate(types)
        ]
        attributes = self.function.arg_attrs
        if attributes is not None:
            empty = [DictionaryAttr({})] * len(types)
            self.function.arg_attrs = type(attributes)([*empty, *attributes.data])
        self.function.update_function_type()

    def replace_memory(self) -> None:
        """Put scratch memory and constants into the first of the memories."""
        places: list[tuple[Operation, int, Sequence[SSAValue]]] = []
        at = self.workload.scratch
        own = at + self.workload.shared_bytes
        for op, size in allocations(self.function):
            if self.cores > 1 and PRIVATE in op.attributes:
                places.append((op, own, op.dynamic_sizes))
                own += -(-size // LINE) * LINE
                continue
            places.append((op, at, op.dynamic_sizes))
            at += -(-size // LINE) * LINE
        offsets = {buffer.name: buffer.offset for buffer in self.workload.buffers}
        for op in self.function.walk():
            if isinstance(op, memref.GetGlobalOp):
                places.append((op, offsets[op.name_.string_value()], ()))
        for op in list(self.function.walk()):
            op.attributes.pop(TASKS, None)
            if isinstance(op, memref.DeallocOp):
                Rewriter.erase_op(op)
        for op, offset, sizes in places:
            builder = Builder(InsertPoint.before(op))
            type_ = op.results[0].type
            assert isa(type_, MemRefType)
            shift = self._number(offset, builder)
            view = memref.ViewOp(self.memories[0], shift, sizes, type_)
            Rewriter.replace_op(op, view)

    def _number(self, value: int, builder: Builder) -> SSAValue:
        return builder.insert(arith.ConstantOp.from_int_and_width(value, INDEX)).result

    def _access(self, op: Operation) -> None:
        """Tell of an access before it happens."""
        write, mask = 0, None
        match op:
            case memref.LoadOp() | vector.LoadOp():
                memory, *indices = op.operands
                type_ = op.results[0].type
            case memref.StoreOp() | vector.StoreOp():
                value, memory, *indices = op.operands
                write, type_ = 1, value.type
            case vector.MaskedLoadOp():
                memory, *indices, mask, _ = op.operands
                type_ = op.results[0].type
            case vector.MaskedStoreOp():
                memory, *indices, mask, value = op.operands
                write, type_ = 1, value.type
            case _:
                raise CompileError(f"accesses of {name_of(op)} are not known")
        builder = Builder(InsertPoint.before(op))
        if mask is not None:
            self._masked(memory, indices, mask, write, builder)
            return
        address = self._address(memory, indices, builder)
        lanes = prod(type_.get_shape()) if isa(type_, VectorType) else 1
        size = dtype_of(element_of(memory.type)).itemsize
        last = None
        if lanes > 1:
            more = self._number(lanes * size - 1, builder)
            last = builder.insert(arith.AddiOp(address, more)).result
        self._call(address, last, write, builder)

    def _address(
        self, memory: SSAValue, indices: Sequence[SSAValue], builder: Builder
    ) -> SSAValue:
        """Where an element lies, in bytes from the beginning of the memory."""
        type_ = memory.type
        assert isa(type_, MemRefType)
        start: SSAValue | None = None
        if isinstance(type_.layout, NoneAttr):
            strides: list[SSAValue] = []
            shape = type_.get_shape()
            step, is_known = 1, True
            for extent in reversed(shape[1:]):
                strides.insert(0, self._number(step, builder))
                is_known = is_known and extent != DYNAMIC_INDEX
                step *= extent
            if not is_known:
                raise CompileError(f"accesses of {type_} are not known")
            if shape:
                strides.insert(0, self._number(step, builder))
        else:
            data = builder.insert(memref.ExtractStridedMetaDataOp(memory))
            strides, start = list(data.strides), data.offset
        linear = start
        for index, stride in zip(indices, strides, strict=True):
            term = builder.insert(arith.MuliOp(index, stride)).result
            if linear is not None:
                term = builder.insert(arith.AddiOp(linear, term)).result
            linear = term
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(memory)
        address = builder.insert(pointer).results[0]
        address = builder.insert(arith.SubiOp(address, self.base)).result
        if linear is None:
            return address
        size = self._number(dtype_of(element_of(type_)).itemsize, builder)
        offset = builder.insert(arith.MuliOp(linear, size)).result
        return builder.insert(arith.AddiOp(address, offset)).result

    def _masked(
        self,
        memory: SSAValue,
        indices: Sequence[SSAValue],
        mask: SSAValue,
        write: int,
        builder: Builder,
    ) -> None:
        """Tell of an access in those lanes that a mask has."""
        assert isa(mask.type, VectorType)
        (lanes,) = mask.type.get_shape()
        for lane in range(lanes):
            extract = vector.ExtractOp(mask, [lane], i1)
            is_active = builder.insert(extract).result
            block = Block()
            inner = Builder(InsertPoint.at_end(block))
            *outer, last = indices
            shifted = inner.insert(arith.AddiOp(last, self._number(lane, inner))).result
            address = self._address(memory, [*outer, shifted], inner)
            self._call(address, None, write, inner)
            inner.insert(scf.YieldOp())
            builder.insert(scf.IfOp(is_active, [], Region(block)))

    def _call(
        self,
        address: SSAValue,
        last: SSAValue | None,
        write: int,
        builder: Builder,
    ) -> None:
        line = self._number(self.line, builder)
        lines = [builder.insert(arith.DivUIOp(address, line)).result]
        if last is not None:
            lines.append(builder.insert(arith.DivUIOp(last, line)).result)
        kind = builder.insert(arith.ConstantOp.from_int_and_width(write, i32)).result
        callee = "touch" if last is None else "touch_lines"
        operands = [*self.memories[1:], *lines, kind]
        builder.insert(func.CallOp(callee, operands, []))


_LINES = """
func.func private @touch_lines(%s: memref<?xi32>, %h: memref<?xi64>, %first: index,
                               %last: index, %write: i32) {
  %one = arith.constant 1 : index
  %stop = arith.addi %last, %one : index
  scf.for %line = %first to %stop step %one {
    func.call @touch(%s, %h, %line, %write)
        : (memref<?xi32>, memref<?xi64>, index, i32) -> ()
  }
  func.return
}
"""
"""A vector may lie in two lines, or more."""


@dataclass(frozen=True)
class Run:
    """What a simulation left behind.

    Attributes:
        workload: what was run.
        memory: the memory, in lines.
        arrays: the arrays at the end.
        words: the memory of 32-bit words.
        counters: the memory of 64-bit words.
    """

    workload: Workload
    memory: Memory
    arrays: list[np.ndarray]
    words: np.ndarray
    counters: np.ndarray

    @property
    def results(self) -> list[np.ndarray]:
        """The arrays that are wanted of the workload."""
        return [self.arrays[number] for number in self.workload.ends[1]]


def example_data(buffer: Buffer) -> np.ndarray:
    """Data for an array: small numbers, the same ones in every run; integers are 0."""
    if buffer.dtype.kind in "iub":
        return np.zeros(buffer.shape, buffer.dtype)
    values = np.random.default_rng(buffer.offset).standard_normal(buffer.shape)
    return values.astype(buffer.dtype)


def run(
    workload: Workload,
    simulator: Simulator,
    arguments: Sequence[np.ndarray] | None = None,
) -> Run:
    """Run a workload, telling a simulator of each line that is touched.

    Args:
        workload: what is run.
        simulator: what is told.
        arguments: the arrays that are read before they are written, in order; if None,
            `example_data`.

    Raises:
        MoaError: if lines are longer than what arrays are aligned to, arguments do not
            fit, or a check of the program fails, then as the program would.
        CompileError: for accesses that are not known.
    """
    from moa_dialect.lowering.compiler import compilations_of
    from moa_dialect.lowering.loader import loaded
    from moa_dialect.universe import register_dialects

    scratch, size = workload.scratch, workload.bytes
    private = 0
    if simulator.cores > 1:
        private = workload.private_bytes + PAGE
        size = scratch + workload.shared_bytes + private
    # Of empty arrays at the end one line more may be read.
    memory = Memory(
        size // simulator.line + 1,
        scratch // simulator.line,
        private // simulator.line + 1 if private else 0,
    )
    if workload.line % simulator.line or PAGE % simulator.line:
        raise MoaError(
            f"line: expected a divisor of {workload.line}, got {simulator.line}"
        )
    context = Context()
    register_dialects(context)
    text = simulator.code(memory) + _LINES
    module = ModuleParser(context, text).parse_module()
    for name, original in workload.functions.items():
        function = find_entry(original, name).clone()
        module.body.block.add_op(function)
        _Tracer(function, workload, simulator.line, simulator.cores).trace()
    names = list(workload.functions)
    found = compilations_of(module, names) if names else []
    signatures = {each.signature.name: each.signature for each in found}
    symbols = [each.signature.symbol for each in found]
    entries = loaded(found[0].code, symbols) if found else []
    functions = dict(zip(names, entries, strict=True))

    held = np.zeros(size + PAGE, np.uint8)
    start = -held.ctypes.data % PAGE
    arena = held[start : start + size]
    arrays = [_view(arena, buffer) for buffer in workload.buffers]
    _fill(workload, arrays, arguments)
    words, counters = simulator.memories(memory)
    states = (arena, words, counters)
    for call in workload.calls:
        places = [*states, *(arrays[n] for n in (*call.inputs, *call.outputs))]
        frame = np.array(
            [
                *[0] * STATUS_WORDS,
                *(place.ctypes.data for place in places),
                *map(len, states),
            ],
            np.int64,
        )
        functions[call.function](frame.ctypes.data)
        if frame[0]:
            raise _failure(signatures[call.function], *map(int, frame[:STATUS_WORDS]))
    return Run(workload, memory, arrays, words, counters)


def _failure(signature: Signature, number: int, given: int, expected: int) -> MoaError:
    relation, message = signature.checks[number - 1].split(": ", 1)
    text = failure_message(cast(Relation, relation), message, given, expected)
    return precondition_error(text)


def _view(arena: np.ndarray, buffer: Buffer) -> np.ndarray:
    elements = arena[buffer.offset : buffer.stop].view(buffer.dtype)
    if buffer.order == "F":
        return elements.reshape(buffer.shape[::-1]).T
    return elements.reshape(buffer.shape)


def _fill(
    workload: Workload,
    arrays: Sequence[np.ndarray],
    arguments: Sequence[np.ndarray] | None,
) -> None:
    """Give arrays their elements at first."""
    read, _ = workload.ends
    if arguments is None:
        arguments = [example_data(workload.buffers[number]) for number in read]
    if len(arguments) != len(read):
        raise MoaError(f"expected {len(read)} arguments, got {len(arguments)}")
    for number, given in zip(read, arguments, strict=True):
        buffer = workload.buffers[number]
        if given.shape != buffer.shape or given.dtype != buffer.dtype:
            raise MoaError(
                f"argument {buffer.name}: expected {buffer.dtype} {buffer.shape}, got "
                f"{given.dtype} {given.shape}"
            )
        arrays[number][...] = given
    for buffer, array in zip(workload.buffers, arrays, strict=True):
        if buffer.content is not None:
            array[...] = buffer.content


# The stream itself


def accesses(
    program: Compiled | ModuleOp | Workload,
    arguments: Sequence[np.ndarray] | None = None,
    stage: str = "target",
    machine: str = "host",
    unit: int = LINE,
) -> np.ndarray:
    """What a program touches, in order: for each access a place, and 1 for a write.

    Meant for small programs: all of it is kept.

    Args:
        program: as for `workload_of`, as are `stage` and `machine`.
        arguments: as for `run`.
        stage: of a compiled program.
        machine: of a compiled program.
        unit: in how many bytes a place is counted, a power of two up to 64. A vector
            touches each place that it lies in.

    Returns:
        Shape [n, 2], int64: place and kind.

    Raises:
        MoaError: for another unit, or arguments that do not fit.
        CompileError: for accesses that are not known.
    """
    workload = workload_of(program, stage, machine, arguments)
    counted = run(workload, _Recorder(unit, 0), arguments).counters[0]
    recorded = run(workload, _Recorder(unit, int(counted)), arguments).counters[1:]
    return np.stack([recorded >> 1, recorded & 1], axis=1)


@dataclass(frozen=True)
class _Recorder:
    """Counts what is touched, and keeps the first so many."""

    line: int
    limit: int
    cores: int = 1

    def code(self, memory: Memory) -> str:
        return _RECORDER.format(limit=self.limit)

    def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(1, np.int32), np.zeros(1 + self.limit, np.int64)


_RECORDER = """
func.func private @touch(%s: memref<?xi32>, %h: memref<?xi64>, %line: index,
                         %write: i32) {{
  %c0 = arith.constant 0 : index
  %one = arith.constant 1 : i64
  %limit = arith.constant {limit} : i64
  %count = memref.load %h[%c0] : memref<?xi64>
  %more = arith.addi %count, %one : i64
  memref.store %more, %h[%c0] : memref<?xi64>
  %is_kept = arith.cmpi slt, %count, %limit : i64
  scf.if %is_kept {{
    %place = arith.index_cast %line : index to i64
    %twice = arith.shli %place, %one : i64
    %kind = arith.extui %write : i32 to i64
    %record = arith.ori %twice, %kind : i64
    %at = arith.index_cast %more : i64 to index
    memref.store %record, %h[%at] : memref<?xi64>
  }}
  func.return
}}
"""
