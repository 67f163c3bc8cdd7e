"""moa-plan-launches: the host says what to launch, and does not launch it.

A plan is an array of 64-bit words:

    0                    where the device memory of the function is (set by the caller)
    1                    how many bytes of it the function needs
    2                    where the status that kernels write is (set by the caller)
    then, for each launch in order:
      number             1 + the number of the kernel; 0 if it is not launched
      grid               x, y and z
      block              x, y and z
      shared             the bytes of dynamic shared memory
      arguments          memory: 5 words (address, address, 0, size, 1); an index: 1;
                         a tensor map: the address, the extents, and the distances in
                         bytes along all axes but the last one

The arguments are those of upstream's calling convention, so that the words themselves
are what a driver is given; but for tensor maps, which the caller makes of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, gpu, memref
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IndexType,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    UnitAttr,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering.gpu_ops import TensorMapOp
from moa_dialect.lowering.kernel import STATUS_WORDS
from moa_dialect.lowering.to_scf import has_status
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_onf import RESULT, STATUS
from moa_dialect.scalar_code import constant
from moa_dialect.types import dtype_of

PLAN = "moa.plan"
"""The attribute of the argument that receives the plan."""

LAUNCHES = "moa.launches"
"""The attribute of a function that lists its launches, each a dictionary.

It has the `kernel`, in `arguments` how many words each argument of it takes, and in
`maps`, if some are tensor maps, for each of these a dictionary: its number, the element
type of the array, and the box that one copy moves.
"""

WORKSPACE, NEEDED, DEVICE_STATUS, FIRST = 0, 1, 2, 3
"""Words of a plan: those at its start, and where the launches begin."""

DEVICE_CHECKS = "moa.device_checks"
"""The attribute of a function whose kernels write a status."""

HEAD = 8
"""How many words a launch has before its arguments."""

ALIGNMENT = 256
"""What the address of every piece of device memory is a multiple of."""

_INDEX = IndexType()


def _argument_words(value: SSAValue) -> int:
    """How many words an argument of a kernel takes.

    Raises:
        CompileError: if a kernel cannot take it.
    """
    type_ = value.type
    if isinstance(value.owner, TensorMapOp):
        return 1 + len(value.owner.extents) + len(value.owner.strides)
    if isinstance(type_, IndexType):
        return 1
    if isa(type_, MemRefType) and len(type_.get_shape()) == 1:
        return 5
    raise CompileError(
        f"expected flat memory and indices as arguments of a kernel, got {type_}"
    )


@dataclass
class _Plan:
    """The plan of one function."""

    function: FuncOp
    words: SSAValue
    at: int = FIRST
    memory: dict[SSAValue, tuple[SSAValue, SSAValue]] = field(
        default_factory=dict[SSAValue, tuple[SSAValue, SSAValue]]
    )
    launches: list[DictionaryAttr] = field(default_factory=list[DictionaryAttr])

    def run(self, kernels: Sequence[str]) -> None:
        """Replace launches and device memory of the function."""
        found = [op for op in self.function.walk() if isinstance(op, gpu.LaunchFuncOp)]
        allocated = [op for op in self.function.walk() if isinstance(op, gpu.AllocOp)]
        entry = Builder(InsertPoint.at_start(self.function.body.block))
        self._store(NEEDED, 0, entry)
        for op in allocated:
            self._allocate(op)
        body = self.function.body.block
        for op in found:
            if op.parent is not body:
                self._store(self.at, 0, entry)
            self._launch(op, kernels)
        for op in list(self.function.walk()):
            if isinstance(op, TensorMapOp):
                Rewriter.erase_op(op)
        for op in allocated:
            Rewriter.erase_op(op)

    def _store(self, position: int, value: SSAValue | int, builder: Builder) -> None:
        if isinstance(value, int):
            value = builder.insert(constant(value, i64)).result
        elif isinstance(value.type, IndexType):
            value = builder.insert(arith.IndexCastOp(value, i64)).result
        elif value.type != i64:
            value = builder.insert(arith.ExtSIOp(value, i64)).result
        slot = builder.insert(constant(position, _INDEX)).result
        builder.insert(memref.StoreOp.get(value, self.words, [slot]))

    def _load(self, position: int, builder: Builder) -> SSAValue:
        slot = builder.insert(constant(position, _INDEX)).result
        return builder.insert(memref.LoadOp.get(self.words, [slot])).res

    def _allocate(self, op: gpu.AllocOp) -> None:
        """Take the next part of the function's device memory."""
        builder = Builder(InsertPoint.before(op))
        type_ = op.result.type
        assert isa(type_, MemRefType)
        if STATUS in op.attributes:
            self.function.attributes[DEVICE_CHECKS] = UnitAttr()
            words = builder.insert(constant(STATUS_WORDS + 1, i64)).result
            self.memory[op.result] = self._load(DEVICE_STATUS, builder), words
            return
        (size,) = op.dynamicSizes
        count = builder.insert(arith.IndexCastOp(size, i64)).result
        width = builder.insert(constant(dtype_of(type_.element_type).itemsize, i64))
        bytes_ = builder.insert(arith.MuliOp(count, width.result)).result
        more = builder.insert(constant(ALIGNMENT - 1, i64)).result
        mask = builder.insert(constant(-ALIGNMENT, i64)).result
        upper = builder.insert(arith.AddiOp(bytes_, more)).result
        rounded = builder.insert(arith.AndIOp(upper, mask)).result
        taken = self._load(NEEDED, builder)
        total = builder.insert(arith.AddiOp(taken, rounded)).result
        self._store(NEEDED, total, builder)
        start = self._load(WORKSPACE, builder)
        address = builder.insert(arith.AddiOp(start, taken)).result
        self.memory[op.result] = address, count

    def _launch(self, op: gpu.LaunchFuncOp, kernels: Sequence[str]) -> None:
        """Store a launch into the plan."""
        builder = Builder(InsertPoint.before(op))
        name = op.kernel.nested_references.data[0].data
        shared: SSAValue | int = op.dynamicSharedMemorySize or 0
        if op.clusterSizeX is not None:
            raise CompileError(f"@{name}: clusters of blocks cannot be planned yet")
        head = (
            1 + kernels.index(name),
            *(op.gridSizeX, op.gridSizeY, op.gridSizeZ),
            *(op.blockSizeX, op.blockSizeY, op.blockSizeZ),
            shared,
        )
        for value in head:
            self._store(self.at, value, builder)
            self.at += 1
        sizes: list[int] = []
        maps: list[Attribute] = []
        for number, operand in enumerate(op.kernelOperands):
            words = list(self._words(operand, builder))
            if isinstance(operand.owner, TensorMapOp):
                maps.append(_described(number, operand.owner))
            sizes.append(len(words))
            for word in words:
                self._store(self.at, word, builder)
                self.at += 1
        entries: dict[str, Attribute] = {
            "kernel": op.kernel,
            "arguments": ArrayAttr(IntegerAttr(size, i64) for size in sizes),
        }
        if maps:
            entries["maps"] = ArrayAttr(maps)
        self.launches.append(DictionaryAttr(entries))
        Rewriter.erase_op(op)

    def _words(self, value: SSAValue, builder: Builder) -> Iterator[SSAValue | int]:
        """The words of an argument."""
        if isinstance(value.type, IndexType):
            yield value
            return
        if isinstance(value.owner, TensorMapOp):
            yield from self._map_words(value.owner, builder)
            return
        if value in self.memory:
            address, size = self.memory[value]
        else:
            address = _address(value, builder)
            zero = builder.insert(constant(0, _INDEX))
            size = builder.insert(memref.DimOp(value, zero.result)).result
        yield from (address, address, 0, size, 1)

    def _map_words(self, op: TensorMapOp, builder: Builder) -> Iterator[SSAValue | int]:
        """What a tensor map is made of."""
        known = self.memory.get(op.memory)
        yield known[0] if known else _address(op.memory, builder)
        yield from op.extents
        assert isa(op.memory.type, MemRefType)
        width = constant(dtype_of(op.memory.type.element_type).itemsize, _INDEX)
        size = builder.insert(width).result
        for stride in op.strides:
            yield builder.insert(arith.MuliOp(stride, size)).result


def _address(memory: SSAValue, builder: Builder) -> SSAValue:
    pointer = memref.ExtractAlignedPointerAsIndexOp.get(memory)
    return builder.insert(pointer).aligned_pointer


def _described(number: int, op: TensorMapOp) -> DictionaryAttr:
    """What the plan does not say of a tensor map."""
    assert isa(op.memory.type, MemRefType)
    return DictionaryAttr(
        {
            "argument": IntegerAttr(number, i64),
            "element": op.memory.type.element_type,
            "box": op.box,
        }
    )


def _plan(function: FuncOp, kernels: Sequence[str]) -> None:
    """Give a function a plan as its last argument but the status."""
    block = function.body.block
    attributes = list(function.arg_attrs or [DictionaryAttr({}) for _ in block.args])
    position = len(block.args) - (1 if has_status(function) else 0)
    length = FIRST
    for op in function.walk():
        if isinstance(op, gpu.LaunchFuncOp):
            length += HEAD + sum(map(_argument_words, op.kernelOperands))
    words = block.insert_arg(MemRefType(i64, [length]), position)
    words.name_hint = "plan"
    marks: dict[str, Attribute] = {RESULT: UnitAttr(), PLAN: UnitAttr()}
    attributes.insert(position, DictionaryAttr(marks))
    plan = _Plan(function, words)
    plan.run(kernels)
    function.arg_attrs = ArrayAttr(attributes)
    function.function_type = FunctionType.from_lists(
        [argument.type for argument in block.args], function.function_type.outputs.data
    )
    function.attributes[LAUNCHES] = ArrayAttr(plan.launches)


def _has_results(function: FuncOp) -> bool:
    """Whether a function writes results; one that gives extents does not."""
    marks = function.arg_attrs
    return marks is not None and any(RESULT in mark.data for mark in marks)


@dataclass(frozen=True)
class PlanLaunchesPass(ModulePass):
    """Has functions write the launches of kernels, instead of launching them.

    A function that has results gets one more argument, marked `moa.plan`, in front of
    the status: a flat array of 64-bit words. Word 0 is the address of the device memory
    that `gpu.alloc` takes parts of, which the caller provides, and word 1 receives how
    many bytes that takes; word 2 is the address of the status that kernels write, if
    the function has `moa.device_checks`. After them come the launches in order: 1 + the
    number of the kernel in its module, or 0 if the launch is in a branch that is not
    taken; grid and block (x, y, z); bytes of dynamic shared memory; the words of the
    arguments. The attribute `moa.launches` of the function lists kernels and sizes of
    arguments.

    What is left is code of the host alone, and the kernels beside it.
    """

    name = "moa-plan-launches"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Plan the launches of all functions.

        Raises:
            CompileError: for a launch that a plan cannot say.
        """
        kernels = kernel_names(op)
        for function in functions_of(op):
            if _has_results(function):
                _plan(function, kernels)


def kernel_names(module: ModuleOp) -> list[str]:
    """The kernels of a module, in the order of their numbers."""
    return [
        op.sym_name.data
        for kernels in module.ops
        if isinstance(kernels, gpu.ModuleOp)
        for op in kernels.body.block.ops
        if isinstance(op, gpu.FuncOp)
    ]
