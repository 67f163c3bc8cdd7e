"""The addresses that a program reads and writes, in order, given to a simulator.

A program is lowered to loops and memory accesses as if it were to be run. Then each
access gets a call before it, with the line of memory it touches, and the whole is
compiled and run on data: the stream is exact, whatever bounds and branches depend on,
and takes a few nanoseconds an access. What the calls do is a `Simulator`, code in MLIR
that is compiled with the program.

Addresses are those of a memory that is laid out here: arrays one after another in the
order they are declared, each at the beginning of a line, then scratch memory. So they
are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from typing import Protocol

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, func, memref, scf, vector
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    IndexType,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StringAttr,
    SymbolRefAttr,
    UnregisteredOp,
    VectorType,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import SymbolTable
from xdsl.utils.hints import isa

from moa_dialect.arguments import array_type
from moa_dialect.errors import CompileError, MoaError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.expand_math import ExpandMathPass
from moa_dialect.lowering.kernel import STATUS_WORDS
from moa_dialect.lowering.pipelines import FUSING, STAGES
from moa_dialect.lowering.prefetch import PrefetchOp
from moa_dialect.lowering.to_scf import has_status, unlowered
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes.check_storage import is_result
from moa_dialect.passes.lift import LiftPass
from moa_dialect.types import array_of, dtype_of, element_of, shape_of

INDEX = IndexType()

PAGE = 4096
"""Where memory is aligned to, in bytes."""

LINE = 64
"""How many bytes a line of a cache has, unless something else is said."""


# From programs to loops


def at_target(
    program: Compiled | ModuleOp, stage: str = "target", machine: str = "host"
) -> ModuleOp:
    """A program as loops and memory accesses, run by one thread, in a module of its own.

    Args:
        program: a compiled program, or a module at the stage `onf` or `target`, which
            is taken as it is.
        stage: of a compiled program, `target` for its vector code and `onf` for the
            loops over scalars.
        machine: for which machine vector code is made, see `moa-lift`; `host` is the
            one at hand, with all its cores.

    Raises:
        MoaError: for another stage, an unknown machine, or a program for a GPU.
    """
    context = Context()
    if isinstance(program, ModuleOp):
        module = program.clone()
        if unlowered(module):
            for pass_ in STAGES["target"]:
                pass_.apply(context, module)
    elif stage not in ("onf", "target"):
        raise MoaError(f"unknown stage: expected onf or target, got {stage}")
    elif program.target != "cpu":
        raise MoaError(f"expected a program for target cpu, got {program.target}")
    elif stage == "onf" or not program.options.fuse:
        module = program.module("onf")
        for pass_ in STAGES["target"]:
            pass_.apply(context, module)
    elif machine == "host":
        module = program.module("target")
    else:
        module = program.module("fused")
        width = "avx512" if machine.startswith("avx512") else "generic"
        options = program.options
        for pass_ in FUSING["target"]:
            if isinstance(pass_, LiftPass):
                pass_ = replace(
                    pass_,
                    machine=machine,
                    schedule=options.schedule,
                    deterministic=options.deterministic,
                )
            elif isinstance(pass_, ExpandMathPass):
                pass_ = ExpandMathPass(target=width)
            pass_.apply(context, module)
    for function in module.walk():
        if isinstance(function, FuncOp):
            sequential(function)
    return module


def sequential(function: FuncOp) -> None:
    """Have the iterations of parallel loops run one after another, in place.

    Raises:
        CompileError: for a loop that reduces.
    """
    for loop in [op for op in function.walk() if isinstance(op, scf.ParallelOp)]:
        if loop.initVals:
            raise CompileError("a parallel loop that reduces is not run in order")
        body = loop.body.block
        assert body.last_op is not None
        Rewriter.erase_op(body.last_op)
        at, indices = InsertPoint.before(loop), list[SSAValue]()
        bounds = zip(loop.lowerBound, loop.upperBound, loop.step, strict=True)
        for lower, upper, step in bounds:
            block = Block([end := scf.YieldOp()], arg_types=[INDEX])
            Rewriter.insert_op(scf.ForOp(lower, upper, step, [], Region(block)), at)
            at = InsertPoint.before(end)
            indices.append(block.args[0])
        for op in list(body.ops):
            if isinstance(op, memref.AllocaOp) and not op.operands:
                op.detach()  # Else each iteration would take more of the stack.
                Rewriter.insert_op(op, InsertPoint.at_start(function.body.block))
        Rewriter.inline_block(body, at, indices)
        Rewriter.erase_op(loop)


# What is run


@dataclass(frozen=True)
class Buffer:
    """An array of a workload.

    Attributes:
        name: its name.
        dtype: the dtype of its elements.
        shape: its shape.
        order: how it lies in memory, `C` or `F`.
        offset: where it begins, in bytes.
        content: its elements, if they are constants of the program.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    offset: int
    content: np.ndarray | None = None

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """Where it ends, in bytes."""
        return self.offset + self.size


@dataclass(frozen=True)
class Call:
    """A call of a function on arrays of a workload, by number."""

    function: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Simulator(Protocol):
    """What is told of each line that is touched."""

    @property
    def line(self) -> int:
        """How many bytes a line has."""
        ...

    def code(self, lines: int, first_scratch: int) -> str:
        """Functions in MLIR, among them `@touch`.

        It takes the two memories, the number of a line as an index, and 1 as an i32 for
        a write, 0 for a read:
        `@touch(%s: memref<?xi32>, %h: memref<?xi64>, %line: index, %write: i32)`.

        Args:
            lines: how many lines of memory there are.
            first_scratch: the first line of scratch memory.
        """
        ...

    def memories(self, lines: int) -> tuple[np.ndarray, np.ndarray]:
        """What the memories hold at first: int32 and int64."""
        ...


@dataclass
class Workload:
    """Kernels that are called one after another on arrays in one memory.

    Attributes:
        line: arrays begin at multiples of so many bytes.
        buffers: the arrays, in the order they lie in memory.
        calls: what is called.
        functions: the functions that are called, at the stage `target`, each in a module
            of its own, without calls of others.
    """

    line: int = LINE
    buffers: list[Buffer] = field(default_factory=list[Buffer])
    calls: list[Call] = field(default_factory=list[Call])
    functions: dict[str, ModuleOp] = field(default_factory=dict[str, ModuleOp])

    def array(
        self,
        shape: Sequence[int],
        dtype: np.dtype | type = np.float32,
        name: str = "",
        order: str = "C",
        content: np.ndarray | None = None,
    ) -> int:
        """Lay out an array after the others; gives its number.

        Its name gets a number if there is another one of that name.
        """
        end = self.buffers[-1].stop if self.buffers else 0
        offset = -(-end // self.line) * self.line
        taken, name = {buffer.name for buffer in self.buffers}, name or "array"
        if name in taken:
            numbered = (f"{name}{number}" for number in count(2))
            name = next(other for other in numbered if other not in taken)
        found = Buffer(name, np.dtype(dtype), tuple(shape), order, offset, content)
        self.buffers.append(found)
        return len(self.buffers) - 1

    def call(
        self,
        program: Compiled | ModuleOp,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
        stage: str = "target",
        machine: str = "host",
        entry: str | None = None,
    ) -> list[int]:
        """Call a program on arrays; gives the numbers of its results.

        Args:
            program: as for `at_target`, as are `stage` and `machine`.
            inputs: the arrays it is called on; if None, new ones for its arguments.
            outputs: the arrays its results are written to, which may be inputs that are
                read no more when they are written; if None, new ones.
            stage: of a compiled program.
            machine: of a compiled program.
            entry: the function of the module, if it has several.

        Raises:
            MoaError: for arrays that do not fit, or extents that types do not give.
            CompileError: if the program accesses memory in ways not known here.
        """
        module = at_target(program, stage, machine)
        function = find_entry(module, entry)
        arguments = function.body.block.args
        arrays = [a for a in arguments if not _is_status(function, a)]
        results = [a for a in arrays if is_result(function, a)]
        given = [a for a in arrays if a not in results]
        taken = self._placed(given, inputs, "argument")
        written = self._placed(results, outputs, "result")
        name = f"step{len(self.functions)}"
        self._prepare(module, function, name)
        self.functions[name] = module
        self.calls.append(Call(name, tuple(taken), tuple(written)))
        return written

    def _placed(
        self, arguments: Sequence[SSAValue], numbers: Sequence[int] | None, kind: str
    ) -> list[int]:
        """The arrays for arguments, new ones if none are given."""
        types = [array_type(argument.type) for argument in arguments]
        for (_, shape), argument in zip(types, arguments, strict=True):
            if any(extent < 0 for extent in shape):
                raise MoaError(
                    f"expected extents that are known, got {argument.type}: lower the "
                    f"program for arrays"
                )
        orders = [_order(argument.type) for argument in arguments]
        if numbers is None:
            return [
                self.array(shape, dtype, argument.name_hint or "", order)
                for (dtype, shape), argument, order in zip(
                    types, arguments, orders, strict=True
                )
            ]
        if len(numbers) != len(arguments):
            raise MoaError(f"expected {len(arguments)} {kind}s, got {len(numbers)}")
        for number, (dtype, shape), order in zip(numbers, types, orders, strict=True):
            buffer = self.buffers[number]
            if (buffer.dtype, buffer.shape, buffer.order) != (dtype, shape, order):
                raise MoaError(
                    f"{kind} {buffer.name}: expected {dtype} {shape} in order {order}, "
                    f"got {buffer.dtype} {buffer.shape} in order {buffer.order}"
                )
        return list(numbers)

    def _prepare(self, module: ModuleOp, function: FuncOp, name: str) -> None:
        """Rename a function, leave out others, and lay out the constants it reads."""
        constants: dict[str, str] = {}
        for op in list(module.ops):
            if isinstance(op, FuncOp) and op is not function:
                Rewriter.erase_op(op, safe_erase=False)
            elif isinstance(op, memref.GlobalOp):
                value = op.initial_value
                assert isa(value, DenseIntOrFPElementsAttr)
                content = array_of(value)
                place = self.array(
                    content.shape, content.dtype, op.sym_name.data, content=content
                )
                constants[op.sym_name.data] = self.buffers[place].name
                op.sym_name = StringAttr(self.buffers[place].name)
        for op in function.walk():
            if isinstance(op, memref.GetGlobalOp):
                op.name_ = SymbolRefAttr(constants[op.name_.string_value()])
            elif isinstance(op, func.CallOp):
                raise CompileError(f"accesses of a call of {op.callee} are not known")
        function.sym_name = StringAttr(name)

    @property
    def scratch(self) -> int:
        """Where scratch memory begins, in bytes."""
        end = self.buffers[-1].stop if self.buffers else 0
        return -(-end // PAGE) * PAGE

    @property
    def scratch_bytes(self) -> int:
        """How much scratch memory there is: that of the call that has most."""
        return max((_scratch_bytes(self._entry(n)) for n in self.functions), default=0)

    @property
    def bytes(self) -> int:
        """How much memory there is, arrays and scratch memory."""
        return self.scratch + -(-self.scratch_bytes // PAGE) * PAGE

    def _entry(self, name: str) -> FuncOp:
        return find_entry(self.functions[name], name)

    @property
    def ends(self) -> tuple[list[int], list[int]]:
        """The arrays that are read before they are written, and those written last.

        Constants are among neither; of the results, those that no later call reads.
        """
        read: dict[int, None] = {}
        made: set[int] = set()
        final: dict[int, None] = {}
        for call in self.calls:
            for number in call.inputs:
                if number not in made:
                    read[number] = None
                final.pop(number, None)
            made.update(call.outputs)
            final.update(dict.fromkeys(call.outputs))
        return list(read), list(final)

    @property
    def compulsory_bytes(self) -> int:
        """What must be moved at least: each argument read, each result written once."""
        read, written = self.ends
        return sum(self.buffers[number].size for number in (*read, *written))


def _order(type_: Attribute) -> str:
    assert isa(type_, MemRefType)
    return "C" if isinstance(type_.layout, NoneAttr) else "F"


def _is_status(function: FuncOp, value: SSAValue) -> bool:
    return has_status(function) and value is function.body.block.args[-1]


def workload_of(
    program: Compiled | ModuleOp | Workload,
    stage: str = "target",
    machine: str = "host",
    entry: str | None = None,
) -> Workload:
    """A workload of one call of a program, on arrays of its own."""
    if isinstance(program, Workload):
        return program
    workload = Workload()
    workload.call(program, stage=stage, machine=machine, entry=entry)
    return workload


# Scratch memory


def _allocations(function: FuncOp) -> Iterator[tuple[memref.AllocOp | memref.AllocaOp, int]]:
    """The allocations of a function, and how many bytes each takes, in order.

    Raises:
        CompileError: for a size that is known only at the call.
    """
    for op in function.walk():
        if isinstance(op, memref.AllocOp | memref.AllocaOp):
            fixed = prod(n for n in shape_of(op.memref.type) if n != DYNAMIC_INDEX)
            elements = fixed * prod(map(_number, op.dynamic_sizes))
            yield op, elements * dtype_of(element_of(op.memref.type)).itemsize


def _number(value: SSAValue) -> int:
    """A value that follows from constants and extents that types give.

    Raises:
        CompileError: if it does not.
    """
    match value.owner:
        case arith.ConstantOp(value=number) if hasattr(number, "value"):
            return int(number.value.data)  # pyright: ignore
        case arith.AddiOp(lhs=left, rhs=right):
            return _number(left) + _number(right)
        case arith.SubiOp(lhs=left, rhs=right):
            return _number(left) - _number(right)
        case arith.MuliOp(lhs=left, rhs=right):
            return _number(left) * _number(right)
        case arith.MaxSIOp(lhs=left, rhs=right):
            return max(_number(left), _number(right))
        case arith.MinSIOp(lhs=left, rhs=right):
            return min(_number(left), _number(right))
        case arith.DivUIOp(lhs=left, rhs=right):
            return _number(left) // _number(right)
        case memref.DimOp(source=source, index=index):
            extent = shape_of(source.type)[_number(index)]
            if extent != DYNAMIC_INDEX:
                return extent
        case _:
            pass
    raise CompileError("the size of the scratch memory is known only at the call")


def _scratch_bytes(function: FuncOp) -> int:
    sizes = (-(-size // LINE) * LINE for _, size in _allocations(function))
    return sum(sizes)


# Accesses as calls


_SILENT = (
    memref.ReinterpretCastOp,
    memref.ExtractStridedMetaDataOp,
    memref.ExtractAlignedPointerAsIndexOp,
    memref.ViewOp,
    memref.DimOp,
    PrefetchOp,
)
"""Operations on memory that touch none, or only ask for it."""


@dataclass
class _Tracer:
    """Gives the accesses of one function calls, in place."""

    function: FuncOp
    line: int
    scratch: int
    buffers: dict[str, Buffer]

    def trace(self) -> None:
        """Add the arguments, move scratch memory and constants, add the calls.

        Raises:
            CompileError: for accesses that are not known.
        """
        block = self.function.body.block
        first = block.first_op
        assert first is not None
        self.states = [
            block.insert_arg(MemRefType(type_, [DYNAMIC_INDEX]), number)
            for number, type_ in enumerate((i32, i64, i8))
        ]
        attributes = self.function.arg_attrs
        if attributes is not None:
            empty = [DictionaryAttr({})] * 3
            self.function.arg_attrs = type(attributes)([*empty, *attributes.data])
        self.function.update_function_type()
        arena = self.states[2]
        self.entry = Builder(InsertPoint.before(first))
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(arena)
        self.base = self.entry.insert(pointer).results[0]
        status = block.args[-1] if has_status(self.function) else None
        self._replace_memory(arena)
        for op in list(self.function.walk()):
            touched = [v for v in op.operands if isa(v.type, MemRefType)]
            if not touched or isinstance(op, _SILENT) or touched == [status]:
                continue
            self._access(op)

    def _number(self, value: int, builder: Builder) -> SSAValue:
        return builder.insert(arith.ConstantOp.from_int_and_width(value, INDEX)).result

    def _replace_memory(self, arena: SSAValue) -> None:
        """Put scratch memory and constants into the memory that is simulated."""
        places: list[tuple[Operation, int, Sequence[SSAValue]]] = []
        at = self.scratch
        for op, size in _allocations(self.function):
            places.append((op, at, op.dynamic_sizes))
            at += -(-size // LINE) * LINE
        for op in self.function.walk():
            if isinstance(op, memref.GetGlobalOp):
                offset = self.buffers[op.name_.string_value()].offset
                places.append((op, offset, ()))
        for op in list(self.function.walk()):
            if isinstance(op, memref.DeallocOp):
                Rewriter.erase_op(op)
        for op, offset, sizes in places:
            builder = Builder(InsertPoint.before(op))
            type_ = op.results[0].type
            assert isa(type_, MemRefType)
            shift = self._number(offset, builder)
            Rewriter.replace_op(op, memref.ViewOp(arena, shift, sizes, type_))

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
            case _:
                raise CompileError(f"accesses of {_name(op)} are not known")
        builder = Builder(InsertPoint.before(op))
        if mask is not None:
            self._masked(memory, indices, mask, builder)
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
        builder: Builder,
    ) -> None:
        """Tell of a load of those lanes that a mask has."""
        assert isa(mask.type, VectorType)
        (lanes,) = mask.type.get_shape()
        for lane in range(lanes):
            extract = vector.ExtractOp(mask, [lane], i1)
            is_active = builder.insert(extract).result
            block = Block()
            inner = Builder(InsertPoint.at_end(block))
            *outer, last = indices
            shifted = inner.insert(
                arith.AddiOp(last, self._number(lane, inner))
            ).result
            address = self._address(memory, [*outer, shifted], inner)
            self._call(address, None, 0, inner)
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
        operands = [*self.states[:2], *lines, kind]
        builder.insert(func.CallOp(callee, operands, []))


def _name(op: Operation) -> str:
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


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
        lines: how many lines of memory there are.
        arrays: the arrays at the end.
        words: the memory of 32-bit words.
        counters: the memory of 64-bit words.
    """

    workload: Workload
    lines: int
    arrays: list[np.ndarray]
    words: np.ndarray
    counters: np.ndarray

    @property
    def results(self) -> list[np.ndarray]:
        """The arrays that were written last."""
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
            fit, or a check of the program fails.
        CompileError: for accesses that are not known.
    """
    from moa_dialect.lowering.compiler import compilations_of
    from moa_dialect.lowering.loader import loaded
    from moa_dialect.universe import register_dialects

    scratch, size = workload.scratch, workload.bytes
    lines = -(-size // simulator.line)
    first_scratch = scratch // simulator.line
    if workload.line % simulator.line or PAGE % simulator.line:
        raise MoaError(
            f"line: expected a divisor of {workload.line}, got {simulator.line}"
        )
    context = Context()
    register_dialects(context)
    text = simulator.code(lines, first_scratch) + _LINES
    module = ModuleParser(context, text).parse_module()
    by_name = {buffer.name: buffer for buffer in workload.buffers}
    for name, original in workload.functions.items():
        function = find_entry(original, name).clone()
        module.body.block.add_op(function)
        _Tracer(function, simulator.line, scratch, by_name).trace()
    names = list(workload.functions)
    found = compilations_of(module, names)
    symbols = [c.signature.symbol for c in found]
    entries = dict(zip(names, loaded(found[0].code, symbols), strict=True)) if found else {}

    memory = np.zeros(size + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    arena = memory[start : start + size]
    arrays = [_view(arena, buffer) for buffer in workload.buffers]
    _fill(workload, arrays, arguments)
    words, counters = simulator.memories(lines)
    states = (words, counters, arena)
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
        entries[call.function](frame.ctypes.data)
        if frame[0]:
            raise MoaError(
                f"check {frame[0]} failed: given {frame[1]}, expected {frame[2]}"
            )
    return Run(workload, lines, arrays, words, counters)


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
    workload = workload_of(program, stage, machine)
    counted = run(workload, _Recorder(unit, 0), arguments).counters[0]
    recorded = run(workload, _Recorder(unit, int(counted)), arguments).counters[1:]
    return np.stack([recorded >> 1, recorded & 1], axis=1)


@dataclass(frozen=True)
class _Recorder:
    """Counts what is touched, and keeps the first so many."""

    line: int
    limit: int

    def code(self, lines: int, first_scratch: int) -> str:
        return _RECORDER.format(limit=self.limit)

    def memories(self, lines: int) -> tuple[np.ndarray, np.ndarray]:
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
