"""moa-to-scf: the operational normal form in upstream dialects (scf, memref, arith)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    IndexType,
    MemRefType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    i1,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.ops.function import has_identity, lookup_function
from moa_dialect.ops.normal_form import (
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    body_of,
)
from moa_dialect.ops.operational import BufferOp, LoadOp, LoopOp, RavOp, StoreOp
from moa_dialect.passes.affine_code import emit_set
from moa_dialect.passes.check_storage import static_size
from moa_dialect.passes.derivation import DERIVATION
from moa_dialect.passes.infer_shapes import functions_of, is_one_block
from moa_dialect.passes.to_onf import PARALLEL, STATUS
from moa_dialect.scalar_code import apply_function, constant, fold_start
from moa_dialect.types import dtype_of, element_of, shape_of
from moa_dialect.walking import operations

CHECKS = "moa.checks"
"""The attribute of a function that lists its checks as "relation: message".

The status argument receives `[number, given, expected]` of the first check that fails,
counted from 1; it is left alone if none does.
"""

STACK_BYTES = 1 << 16
"""How much of a function's scratch memory may lie on the stack."""

_PREDICATES = {"eq": "eq", "lt": "slt", "le": "sle", "ge": "sge"}


@dataclass
class _Lowering:
    """The lowering of one function, in place."""

    function: FuncOp
    checks: list[str] = field(default_factory=list[str])
    stack_bytes: int = 0

    @property
    def has_status(self) -> bool:
        """Whether the function reports failed checks."""
        return has_status(self.function)

    @property
    def status(self) -> SSAValue:
        """The status argument."""
        return self.function.body.block.args[-1]

    def lookup(self, symbol: SymbolRefAttr) -> FuncOp:
        """The function a symbol names."""
        return lookup_function(self.function, symbol)

    # Blocks, innermost first.

    def block(self, block: Block) -> None:
        """Lower the operations of a block in order."""
        for op in list(block.ops):
            for region in op.regions:
                for inner in region.blocks:
                    self.block(inner)
            self.operation(op)

    def operation(self, op: Operation) -> None:
        """Lower one operation whose regions are lowered already."""
        builder = Builder(InsertPoint.before(op))
        match op:
            case ExtentOp():
                self._extent(op, builder)
            case FixedExtentOp():
                Rewriter.replace_op(op, constant(op.static_value, IndexType()))
            case RavOp():
                self._rav(op, builder)
            case LoadOp():
                address = self._address(op, builder)
                Rewriter.replace_op(op, memref.LoadOp.get(op.buffer, [address]))
            case StoreOp():
                address = self._address(op, builder)
                store = memref.StoreOp.get(op.value, op.buffer, [address])
                Rewriter.replace_op(op, store, [])
            case BufferOp():
                self._buffer(op, builder)
            case LoopOp():
                self._loop(op, builder)
            case FoldOp():
                self._fold(op, builder)
            case InBoundsOp():
                self._in_bounds(op, builder)
            case _:
                pass

    def _extent(self, op: ExtentOp, builder: Builder) -> None:
        if op.static_value is not None:
            Rewriter.replace_op(op, constant(op.static_value, IndexType()))
            return
        axis = builder.insert(constant(op.axis_number, IndexType()))
        Rewriter.replace_op(op, memref.DimOp(op.array, axis))

    def _rav(self, op: RavOp, builder: Builder) -> None:
        """One flat view of the whole array: offset 0, stride 1."""
        total: SSAValue = builder.insert(constant(1, IndexType())).result
        for axis, number in enumerate(shape_of(op.array.type)):
            position = builder.insert(constant(axis, IndexType()))
            extent = (
                builder.insert(memref.DimOp(op.array, position))
                if number < 0
                else builder.insert(constant(number, IndexType()))
            )
            total = builder.insert(arith.MuliOp(total, extent)).result
        assert isa(op.result.type, MemRefType)
        view = memref.ReinterpretCastOp(
            source=op.array,
            offsets=[],
            sizes=[total],
            strides=[],
            static_offsets=[0],
            static_sizes=[DYNAMIC_INDEX],
            static_strides=[1],
            result_type=op.result.type,
        )
        Rewriter.replace_op(op, view)

    def _address(self, op: LoadOp | StoreOp, builder: Builder) -> SSAValue:
        """`start + sum of index * stride`."""
        address = op.start
        for index, stride in zip(op.indices, op.strides, strict=True):
            product = builder.insert(arith.MuliOp(index, stride))
            address = builder.insert(arith.AddiOp(address, product)).result
        return address

    def _buffer(self, op: BufferOp, builder: Builder) -> None:
        """Memory from here to the end of the block.

        A size that is a number, up to `STACK_BYTES` together, lies on the stack of the
        function: at its entry, so that no loop takes more of it.
        """
        if self._fits_the_stack(op):
            entry = Builder(InsertPoint.at_start(self.function.body.block))
            count = prod(map(static_size, op.extents))
            number = entry.insert(constant(count, IndexType())).result
            element = element_of(op.result.type)
            slot = memref.AllocaOp.get(element, None, [DYNAMIC_INDEX], [number])
            Rewriter.replace_op(op, [], [entry.insert(slot).memref])
            return
        size: SSAValue = builder.insert(constant(1, IndexType())).result
        for extent in op.extents:
            size = builder.insert(arith.MuliOp(size, extent)).result
        element = element_of(op.result.type)
        block = op.parent
        assert block is not None
        assert block.last_op is not None
        alloc = memref.AllocOp.get(element, None, [DYNAMIC_INDEX], [size])
        Rewriter.replace_op(op, alloc)
        release = memref.DeallocOp.get(alloc.memref)
        Rewriter.insert_op(release, InsertPoint.before(block.last_op))

    def _fits_the_stack(self, op: BufferOp) -> bool:
        """Whether a buffer goes onto the stack, which then has less left."""
        try:
            count = prod(map(static_size, op.extents))
        except CompileError:
            return False
        size = count * dtype_of(element_of(op.result.type)).itemsize
        if self.stack_bytes + size > STACK_BYTES:
            return False
        self.stack_bytes += size
        return True

    def _loop(self, op: LoopOp, builder: Builder) -> None:
        """A loop counts up from 0; the index is start + count * stride."""
        stride = op.stride_value
        if stride == 1:
            lower, upper = op.start, op.stop
        else:
            bounds = (op.start, op.stop) if stride > 0 else (op.stop, op.start)
            span = builder.insert(arith.SubiOp(bounds[1], bounds[0]))
            width = builder.insert(constant(abs(stride), IndexType()))
            lower = builder.insert(constant(0, IndexType())).result
            upper = builder.insert(arith.CeilDivSIOp(span, width)).result
        step = builder.insert(constant(1, IndexType()))
        body = op.body.block
        index = body.args[0]
        if stride != 1:
            inner = Builder(InsertPoint.at_start(body))
            count = body.insert_arg(IndexType(), 0)
            width = inner.insert(constant(stride, IndexType()))
            product = inner.insert(arith.MuliOp(count, width))
            actual = inner.insert(arith.AddiOp(op.start, product)).result
            index.replace_all_uses_with(actual)
            body.erase_arg(index)
        _, terminator = body_of(op.body)
        if PARALLEL in op.attributes:
            Rewriter.replace_op(terminator, scf.ReduceOp())
            region = op.detach_region(op.body)
            parallel = scf.ParallelOp([lower], [upper], [step.result], region)
            Rewriter.replace_op(op, parallel)
            return
        Rewriter.replace_op(terminator, scf.YieldOp(*terminator.values))
        region = op.detach_region(op.body)
        loop = scf.ForOp(lower, upper, step, list(op.initial), region)
        Rewriter.replace_op(op, loop)

    def _fold(self, op: FoldOp, builder: Builder) -> None:
        """A right fold: from the last index down, the accumulator on the right.

        It starts from the given value or the identity element; a function without one
        takes the first element it meets as it is.
        """
        one = builder.insert(constant(1, IndexType())).result
        zero = builder.insert(constant(0, IndexType())).result
        count = builder.insert(arith.SubiOp(op.upper, op.lower)).result
        last = builder.insert(arith.SubiOp(op.upper, one)).result
        type_ = op.result.type
        initial = op.initial
        has_start = initial is not None or has_identity(op.function)
        if initial is None and has_start:
            initial = fold_start(op, type_, op.lower, op.upper, builder)
        elif initial is None:
            initial = builder.insert(constant(0, type_)).result
        body = Block(arg_types=[IndexType(), type_])
        inner = Builder(InsertPoint.at_end(body))
        position, accumulated = body.args
        index = inner.insert(arith.SubiOp(last, position)).result
        index.name_hint = op.body.block.args[0].name_hint
        if op.domain is not None:
            values = (index, *op.domain_arguments)
            holds = emit_set(op.domain.data, values, inner)
            combined = self._choose(
                holds,
                lambda b: self._combine(
                    op, self._element(op, index, b), accumulated, b
                ),
                lambda b: accumulated,
                inner,
            )
        elif has_start:
            element = self._element(op, index, inner)
            combined = self._combine(op, element, accumulated, inner)
        else:
            element = self._element(op, index, inner)
            is_first = inner.insert(arith.CmpiOp(position, zero, "eq")).result
            combined = self._choose(
                is_first,
                lambda b: element,
                lambda b: self._combine(op, element, accumulated, b),
                inner,
            )
        inner.insert(scf.YieldOp(combined))
        loop = scf.ForOp(zero, count, one, [initial], Region(body))
        Rewriter.replace_op(op, loop)

    def _choose(
        self,
        condition: SSAValue,
        if_true: Callable[[Builder], SSAValue],
        if_false: Callable[[Builder], SSAValue],
        builder: Builder,
    ) -> SSAValue:
        """An scf.if that gives one value; each side is emitted into its branch."""
        blocks = Block(), Block()
        for block, side in zip(blocks, (if_true, if_false), strict=True):
            within = Builder(InsertPoint.at_end(block))
            within.insert(scf.YieldOp(side(within)))
        assert blocks[0].last_op is not None
        (type_,) = blocks[0].last_op.operand_types
        then, otherwise = map(Region, blocks)
        chosen = scf.IfOp(condition, (type_,), then, otherwise)
        return builder.insert(chosen).results[0]

    def _element(self, op: FoldOp, index: SSAValue, builder: Builder) -> SSAValue:
        """Move the fold's body here, for this index; gives what it yields."""
        body, terminator = body_of(op.body)
        body.args[0].replace_all_uses_with(index)
        element = terminator.values[0]
        for inner in list(body.ops):
            if inner is not terminator:
                inner.detach()
                builder.insert(inner)
        return element

    def _combine(
        self, op: FoldOp, element: SSAValue, accumulated: SSAValue, builder: Builder
    ) -> SSAValue:
        arguments = (element, accumulated)
        return apply_function(op.function, arguments, builder, self.lookup)

    # Checks.

    def _check(self, text: str) -> int:
        if text not in self.checks:
            self.checks.append(text)
        return self.checks.index(text) + 1

    def _report(
        self,
        number: SSAValue | int,
        given: SSAValue,
        expected: SSAValue,
        builder: Builder,
    ) -> None:
        """Store a failed check's number and values into the status."""
        if isinstance(number, int):
            number = builder.insert(constant(number, i64)).result
        values = (
            number,
            builder.insert(arith.IndexCastOp(given, i64)).result,
            builder.insert(arith.IndexCastOp(expected, i64)).result,
        )
        for position, value in enumerate(values):
            slot = builder.insert(constant(position, IndexType()))
            builder.insert(memref.StoreOp.get(value, self.status, [slot]))

    def _in_bounds(self, op: InBoundsOp, builder: Builder) -> None:
        """Use index 0 instead of one out of range; report the first such."""
        message = op.message.data
        zero = builder.insert(constant(0, IndexType())).result
        is_inside = builder.insert(arith.CmpiOp(op.index, op.extent, "ult")).result
        chosen = arith.SelectOp(is_inside, op.index, zero)
        if not self.has_status:
            Rewriter.replace_op(op, chosen)
            return
        block = Block()
        inner = Builder(InsertPoint.at_end(block))
        is_negative = inner.insert(arith.CmpiOp(op.index, zero, "slt"))
        below = inner.insert(constant(self._check(f"ge: {message}"), i64))
        above = inner.insert(constant(self._check(f"lt: {message}"), i64))
        number = inner.insert(arith.SelectOp(is_negative, below, above)).result
        bound = inner.insert(arith.SelectOp(is_negative, zero, op.extent)).result
        self._report(number, op.index, bound, inner)
        inner.insert(scf.YieldOp())
        true = builder.insert(constant(1, i1))
        outside = builder.insert(arith.XOrIOp(is_inside, true.result)).result
        so_far = builder.insert(memref.LoadOp.get(self.status, [zero]))
        none = builder.insert(constant(0, i64))
        is_first = builder.insert(arith.CmpiOp(so_far.res, none, "eq")).result
        report = builder.insert(arith.AndIOp(outside, is_first)).result
        builder.insert(scf.IfOp(report, (), Region(block)))
        Rewriter.replace_op(op, chosen)

    def requirements(self) -> None:
        """Check what the function requires; what comes after runs only if it holds.

        So the first failure is reported, and nothing is read that it forbids. Without a
        status argument nothing is reported, and the function gives zeros.
        """
        block = self.function.body.block
        end = block.last_op
        assert isinstance(end, ReturnOp)
        requires = [op for op in block.ops if isinstance(op, RequireOp)]
        numbers = [
            self._check(f"{op.relation_name}: {op.message.data}")
            for op in requires
            if self.has_status
        ]
        for op in reversed(requires):
            builder = Builder(InsertPoint.before(op))
            predicate = _PREDICATES[op.relation_name]
            compare = arith.CmpiOp(op.given, op.expected, predicate)
            holds = builder.insert(compare).result
            then, otherwise = Block(), Block()
            after = op.next_op
            while after is not None and after is not end:
                following = after.next_op
                after.detach()
                then.add_op(after)
                after = following
            then.add_op(scf.YieldOp(*end.operands))
            failed = Builder(InsertPoint.at_end(otherwise))
            if self.has_status:
                self._report(numbers.pop(), op.given, op.expected, failed)
            zeros = [failed.insert(constant(0, v.type)).result for v in end.operands]
            failed.insert(scf.YieldOp(*zeros))
            types = [value.type for value in end.operands]
            branch = scf.IfOp(holds, types, Region(then), Region(otherwise))
            builder.insert(branch)
            for number, value in enumerate(branch.results):
                end.operands[number] = value
            op.detach()
            op.erase()


def has_status(function: FuncOp) -> bool:
    """Whether the last argument receives the number of a failed check."""
    attributes = function.arg_attrs
    return bool(attributes) and STATUS in attributes.data[-1].data  # pyright: ignore


def to_scf(function: FuncOp) -> None:
    """Lower one function from the operational normal form to upstream dialects."""
    lowering = _Lowering(function)
    lowering.requirements()
    lowering.block(function.body.block)
    if lowering.checks:
        function.attributes[CHECKS] = ArrayAttr(map(StringAttr, lowering.checks))


@dataclass(frozen=True)
class ToScfPass(ModulePass):
    """Lowers loops, folds, flat accesses and checks to scf, memref and arith.

    Loops marked `moa.parallel` become `scf.parallel`. Folds run from the last index
    down with the accumulator on the right: no reassociation. A function that checks
    something lists its checks in the attribute `moa.checks` and reports through its
    status argument.
    """

    name = "moa-to-scf"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in filter(is_one_block, functions_of(op)):
            to_scf(function)
            # Upstream does not know it, and it says nothing of what comes from here on.
            function.attributes.pop(DERIVATION, None)


def unlowered(module: ModuleOp) -> Sequence[str]:
    """The names of operations of the dialect that are left in a module."""
    return sorted({op.name for op in operations(module) if op.name.startswith("moa.")})
