"""What is simulated: kernels called one after another on arrays in one memory.

Addresses are those of a memory that is laid out here: arrays one after another in the
order they are declared, each at the beginning of a line, then scratch memory. So they
are the same in every run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod

import numpy as np
from xdsl.context import Context
from xdsl.dialects import arith, func, memref, scf
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseIntOrFPElementsAttr,
    IndexType,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import SymbolTable
from xdsl.utils.hints import isa

from moa_dialect.arguments import array_type
from moa_dialect.errors import CompileError, MoaError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.expand_math import ExpandMathPass
from moa_dialect.lowering.pipelines import FUSING, STAGES
from moa_dialect.lowering.threads import WORK, outermost
from moa_dialect.lowering.to_scf import has_status, unlowered
from moa_dialect.passes.check_storage import is_result
from moa_dialect.passes.enclose_folds import EncloseFoldsPass
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.lift import LiftPass
from moa_dialect.types import array_of, dtype_of, element_of, shape_of

PAGE = 4096
"""Where scratch memory is aligned to, in bytes."""

LINE = 64
"""How many bytes a line of a cache has, unless something else is said."""


TASKS = "moa.tasks"
"""The attribute of a loop over tasks that threads share: how much work a task is, if
that is known."""

PRIVATE = "moa.private"
"""The attribute of memory that each task has of its own."""


# From programs to loops


def at_target(
    program: Compiled | ModuleOp, stage: str = "target", machine: str = "host"
) -> ModuleOp:
    """A program as loops and memory accesses, in a module of its own, for one thread.

    Args:
        program: a compiled program, or a module at any stage up to `target`.
        stage: `target` for vector code, `onf` for loops over scalars.
        machine: for which machine vector code is made, see `moa-lift`; `host` is the
            one at hand, with all its cores.

    Raises:
        MoaError: for another stage, an unknown machine, or a program for a GPU.
        CompileError: if it cannot be lowered.
    """
    if stage not in ("onf", "target"):
        raise MoaError(f"unknown stage: expected onf or target, got {stage}")
    if isinstance(program, ModuleOp):
        module = program.clone()
        if unlowered(module):
            module = _lowered(Compiled(module, ""), stage, machine)
    elif program.target != "cpu":
        raise MoaError(f"expected a program for target cpu, got {program.target}")
    else:
        module = _lowered(program, stage, machine)
    if left := unlowered(module):
        raise CompileError(f"not lowered: {', '.join(left)}")
    for function in functions_of(module):
        sequential(function)
    return module


def _lowered(program: Compiled, stage: str, machine: str) -> ModuleOp:
    """A program as loops over vectors for a machine, or over scalars."""
    options = program.options
    if stage == "target" and options.fuse and machine == "host":
        return program.module("target")
    if stage == "onf" or not options.fuse:
        module, passes = program.module("onf"), STAGES["target"]
    else:
        module = program.module("fused")
        passes = (EncloseFoldsPass(), *FUSING["target"])
    math = ExpandMathPass(
        target="avx512" if machine.startswith("avx512") else "generic"
    )
    for pass_ in passes:
        if isinstance(pass_, LiftPass):
            pass_ = replace(
                pass_,
                machine=machine,
                schedule=options.schedule,
                deterministic=options.deterministic,
            )
        pass_ = math if isinstance(pass_, ExpandMathPass) else pass_
        pass_.apply(Context(), module)
    return module


def sequential(function: FuncOp) -> None:
    """Have the iterations of parallel loops run one after another, in place.

    What threads would share is marked, with the memory that tasks have of their own.

    Raises:
        CompileError: for a loop that reduces.
    """
    shared = outermost(function)
    for loop in [op for op in function.walk() if isinstance(op, scf.ParallelOp)]:
        if loop in shared:
            for op in loop.body.walk():
                if isinstance(op, memref.AllocaOp | memref.AllocOp):
                    op.attributes[PRIVATE] = UnitAttr()
        if loop.initVals:
            raise CompileError("parallel loop: expected none that reduces")
        body = loop.body.block
        assert body.last_op is not None
        Rewriter.erase_op(body.last_op)
        at, indices = InsertPoint.before(loop), list[SSAValue]()
        bounds = zip(loop.lowerBound, loop.upperBound, loop.step, strict=True)
        for lower, upper, step in bounds:
            block = Block([end := scf.YieldOp()], arg_types=[IndexType()])
            each = scf.ForOp(lower, upper, step, [], Region(block))
            if loop in shared:
                each.attributes[TASKS] = loop.attributes.get(WORK, UnitAttr())
            Rewriter.insert_op(each, at)
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


@dataclass
class Workload:
    """Kernels that are called one after another on arrays in one memory.

    Attributes:
        line: arrays begin at multiples of so many bytes.
        buffers: the arrays, in the order they lie in memory.
        calls: what is called.
        functions: the functions that are called, at the stage `target`, each in a
            module of its own, without calls of others.
        results: the arrays that are wanted; if None, those written last.
    """

    line: int = LINE
    buffers: list[Buffer] = field(default_factory=list[Buffer])
    calls: list[Call] = field(default_factory=list[Call])
    functions: dict[str, ModuleOp] = field(default_factory=dict[str, ModuleOp])
    results: list[int] | None = None

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
        shapes: Sequence[Sequence[int]] | None = None,
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
            shapes: those of its arguments, if types do not give all extents and no
                arrays do.

        Raises:
            MoaError: for arrays that do not fit, or extents that are not known.
            CompileError: if the program accesses memory in ways not known here.
        """
        module = at_target(program, stage, machine)
        function = find_entry(module, entry)
        if shapes is None and inputs is not None:
            shapes = [self.buffers[number].shape for number in inputs]
        if shapes is not None:
            _specialise(module, function, shapes)
        given, results = _arrays(function)
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
                    f"expected extents that are known, got {argument.type}: give the "
                    f"arrays it is run on"
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
    def shared_bytes(self) -> int:
        """How much of the scratch memory all tasks of a call have together, at most."""
        found = (_scratch_bytes(self._entry(n), False) for n in self.functions)
        return max(found, default=0)

    @property
    def private_bytes(self) -> int:
        """How much of it each task has of its own, at most."""
        found = (_scratch_bytes(self._entry(n), True) for n in self.functions)
        return max(found, default=0)

    @property
    def bytes(self) -> int:
        """How much memory there is, arrays and scratch memory."""
        return self.scratch + -(-self.scratch_bytes // PAGE) * PAGE

    def _entry(self, name: str) -> FuncOp:
        return find_entry(self.functions[name], name)

    @property
    def ends(self) -> tuple[list[int], list[int]]:
        """The arrays that are read before they are written, and those that are wanted.

        Constants are among neither. If no results are named, those are wanted that no
        later call reads.
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
        return sorted(read), list(final) if self.results is None else self.results

    @property
    def compulsory_bytes(self) -> int:
        """What must be moved at least: each argument read, each result written once."""
        read, written = self.ends
        return sum(self.buffers[number].size for number in (*read, *written))


def _arrays(function: FuncOp) -> tuple[list[SSAValue], list[SSAValue]]:
    """The arguments of a function, and where its results go."""
    arrays: list[SSAValue] = list(function.body.block.args)
    if has_status(function):
        arrays.pop()
    results = [value for value in arrays if is_result(function, value)]
    return [value for value in arrays if value not in results], results


def _specialise(
    module: ModuleOp, function: FuncOp, shapes: Sequence[Sequence[int]]
) -> None:
    """Let types have the extents of some shapes of the arguments, in place.

    Those of results are what the function beside it says, of extents alone.

    Raises:
        MoaError: if there is another number of shapes, or they do not fit.
        CompileError: if extents of results depend on data.
    """
    arguments, results = _arrays(function)
    if len(shapes) != len(arguments):
        raise MoaError(f"expected {len(arguments)} arguments, got {len(shapes)}")
    for argument, shape in zip(arguments, shapes, strict=True):
        _set_shape(argument, shape)
    found: list[int] = []
    name = f"{function.sym_name.data}.extents"
    beside = SymbolTable.lookup_symbol(module, name)
    if isinstance(beside, FuncOp):
        inputs = list(beside.body.block.args)
        for argument, shape in zip(inputs, shapes, strict=True):
            _set_shape(argument, shape)
        last = beside.body.block.last_op
        assert last is not None
        found += map(known_number, last.operands)
    for result in results:
        shape = shape_of(result.type)
        _set_shape(result, [found.pop(0) if n == DYNAMIC_INDEX else n for n in shape])
    function.update_function_type()


def _set_shape(value: SSAValue, shape: Sequence[int]) -> None:
    """Let a memref be of a shape.

    Raises:
        MoaError: if its type has other extents.
    """
    type_ = value.type
    assert isa(type_, MemRefType)
    given = type_.get_shape()
    if len(given) != len(shape) or any(
        extent not in (wanted, DYNAMIC_INDEX)
        for extent, wanted in zip(given, shape, strict=True)
    ):
        raise MoaError(f"expected an array for {type_}, got shape {tuple(shape)}")
    if DYNAMIC_INDEX in given:
        if not isinstance(type_.layout, NoneAttr):
            raise MoaError(f"expected extents that are known, got {type_}")
        new = MemRefType(type_.element_type, shape)
        Rewriter.replace_value_with_new_type(value, new)


def _order(type_: Attribute) -> str:
    assert isa(type_, MemRefType)
    return "C" if isinstance(type_.layout, NoneAttr) else "F"


def workload_of(
    program: Compiled | ModuleOp | Workload,
    stage: str = "target",
    machine: str = "host",
    arguments: Sequence[np.ndarray] | None = None,
    entry: str | None = None,
) -> Workload:
    """A workload of one call of a program, on arrays of its own.

    Args:
        program: a program, or a workload, which is given back.
        stage: as for `at_target`.
        machine: as for `at_target`.
        arguments: what it is run on, for extents that types do not give.
        entry: the function of the module, if it has several.

    Raises:
        MoaError: for arrays that do not fit, or extents that are not known.
        CompileError: for accesses that are not known.
    """
    if isinstance(program, Workload):
        return program
    workload = Workload()
    shapes = None if arguments is None else [array.shape for array in arguments]
    workload.call(program, stage=stage, machine=machine, entry=entry, shapes=shapes)
    return workload


# Scratch memory


def allocations(
    function: FuncOp,
) -> Iterator[tuple[memref.AllocOp | memref.AllocaOp, int]]:
    """The allocations of a function, and how many bytes each takes, in order.

    Raises:
        CompileError: for a size that is known only at the call.
    """
    for op in function.walk():
        if isinstance(op, memref.AllocOp | memref.AllocaOp):
            fixed = prod(n for n in shape_of(op.memref.type) if n != DYNAMIC_INDEX)
            elements = fixed * prod(map(known_number, op.dynamic_sizes))
            yield op, elements * dtype_of(element_of(op.memref.type)).itemsize


def known_number(value: SSAValue) -> int:
    """A value that follows from constants and extents that types give.

    Raises:
        CompileError: if it does not.
    """
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isa(op.value, IntegerAttr):
        return op.value.value.data
    if function := _NUMBERS.get(type(op)):
        assert isinstance(op, Operation)
        return function(*map(known_number, op.operands))
    if isinstance(op, arith.CmpiOp):
        relation = _RELATIONS.get(op.predicate.value.data)
        if relation is not None:
            return int(relation(known_number(op.lhs), known_number(op.rhs)))
    if isinstance(op, scf.IfOp) and isinstance(value, OpResult):
        region = op.true_region if known_number(op.cond) else op.false_region
        last = region.block.last_op
        assert last is not None
        return known_number(last.operands[value.index])
    if isinstance(op, memref.DimOp):
        extent = shape_of(op.source.type)[known_number(op.index)]
        if extent != DYNAMIC_INDEX:
            return extent
    raise CompileError("a size of memory is known only at the call")


def _divided_up(over: int, under: int) -> int:
    return -(-over // under)


_NUMBERS: dict[type, Callable[..., int]] = {
    arith.AddiOp: operator.add,
    arith.SubiOp: operator.sub,
    arith.MuliOp: operator.mul,
    arith.MaxSIOp: max,
    arith.MinSIOp: min,
    arith.DivUIOp: operator.floordiv,
    arith.CeilDivSIOp: _divided_up,
    arith.AndIOp: operator.and_,
    arith.OrIOp: operator.or_,
}

_RELATIONS: dict[int, Callable[[int, int], bool]] = {
    0: operator.eq,
    1: operator.ne,
    2: operator.lt,
    3: operator.le,
    4: operator.gt,
    5: operator.ge,
}
"""The signed comparisons, by the number of their predicate."""


def _scratch_bytes(function: FuncOp, private: bool | None = None) -> int:
    """The scratch memory of a function: all of it, or that which tasks have, or not."""
    return sum(
        -(-size // LINE) * LINE
        for op, size in allocations(function)
        if private is None or private == (PRIVATE in op.attributes)
    )
