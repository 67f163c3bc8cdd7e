"""moa-split-programs: what no single kernel should compute becomes several.

The normal form stores no array between arguments and results. Where a program
multiplies computed matrices by computed matrices, that means to compute elements again
for every index that they do not depend on. One such step is mended by sinking an output
axis (docs/architecture.md); this pass cuts a program where one is not enough:

1. A sum over an index *crosses* an operand that does not have all axes of the result:
   without an array of it, it is computed anew for each of those. Of computed operands
   (those that fold something) one may be crossed, if nothing computed was crossed on
   the way to it; the others are cut. The one that is kept is that with most folds one
   after the other: for those there are passes that nothing need be stored for.
2. A computed value that several kernels need is cut.

A value that is cut becomes the result of a kernel, a function of its own. The program
that is left calls the kernels in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    IndexType,
    ModuleOp,
    StringAttr,
    TensorType,
    UnitAttr,
)
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.ops.base import ArrayOperation
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp, FoldOp, RequireOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_dnf import (
    PROGRAM,
    callers_first,
    erase_dead,
    inline_calls,
)
from moa_dialect.passes.work import COSTLY, weight
from moa_dialect.types import shape_of

LARGEST_CONSTANT = 1024
"""Constants of more elements are arguments of kernels, not part of their code."""


@dataclass
class _Value:
    """What is known of an array at the top of a program.

    Attributes:
        op: what makes it.
        folds: whether its own elements fold something.
        reads: the arrays that its elements are computed from.
        crossed: those of them that a fold crosses.
    """

    op: ComprehensionOp
    folds: bool
    reads: list[SSAValue]
    crossed: list[SSAValue]


@dataclass
class Cutter:
    """Finds where a program is cut."""

    function: FuncOp
    values: dict[SSAValue, _Value] = field(default_factory=dict[SSAValue, _Value])
    cut: dict[SSAValue, None] = field(default_factory=dict[SSAValue, None])
    level: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    depth: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])

    def run(self) -> list[SSAValue]:
        """The values to be cut, in the order of the program."""
        block = self.function.body.block
        for op in block.ops:
            if isinstance(op, ComprehensionOp):
                value = _read(op)
                self._choose(value)
                for array in op.arrays:
                    self.values[array] = value
                    self._measure(array, value)
        last = block.last_op
        assert last is not None
        for result in last.operands:
            origin = self._origin(result)
            if origin is not result and self._joins(result, origin):
                self.cut[origin] = None
        while (shared := self._shared(last.operands)) is not None:
            self._cut(shared)
        for value in list(self.cut):
            if self._is_cheap(value, last.operands):
                del self.cut[value]
        return [value for value in self.values if value in self.cut]

    def _computed(self, value: SSAValue) -> bool:
        """Whether elements of a value fold something, wherever they are computed."""
        return value not in self.cut and self.depth.get(value, 0) > 0

    def _choose(self, value: _Value) -> None:
        crossed = [v for v in dict.fromkeys(value.crossed) if self._computed(v)]
        for operand in crossed:
            if self.level[operand] > 0:
                self._cut(operand)
        crossed = [v for v in crossed if self._origin(v) not in self.cut]
        if len(crossed) < 2:
            return
        deepest = max(crossed, key=lambda v: self.depth[v])
        keeps = self.depth[deepest] > 1
        for operand in crossed:
            if operand is not deepest or not keeps:
                self._cut(operand)

    def _cut(self, value: SSAValue) -> None:
        """Cut a value, or the one that its elements are those of, moved."""
        self.cut[self._origin(value)] = None
        # What is only moved from there is not computed any more.
        while (source := self._moved(value)) is not None:
            self.depth[value] = self.level[value] = 0
            value = source

    def _origin(self, value: SSAValue) -> SSAValue:
        """The value of which all elements are moved into one, the value if none is."""
        while (source := self._moved(value)) is not None:
            value = source
        return value

    def _moved(self, value: SSAValue) -> SSAValue | None:
        """The computed array of the same elements in another shape."""
        known = self.values.get(value)
        if known is None or value in self.cut or len(known.op.arrays) > 1:
            return None
        last = known.op.body.block.last_op
        assert last is not None
        element = last.operands[0].owner
        if not isinstance(element, AtOp) or element.array not in self.values:
            return None
        sizes = [shape_of(array.type) for array in (value, element.array)]
        if any(DYNAMIC_INDEX in size for size in sizes) or prod(sizes[0]) != prod(
            sizes[1]
        ):
            return None
        return element.array

    def _joins(self, value: SSAValue, origin: SSAValue) -> bool:
        """Whether axes are joined on the way to a value from one of several passes.

        Then no axis of the value is one that folds could share.
        """
        if self.depth.get(origin, 0) < 2:
            return False
        while value is not origin:
            op = self.values[value].op
            if any(isinstance(o, arith.DivUIOp) for o in op.body.block.ops):
                return True
            source = self._moved(value)
            assert source is not None
            value = source
        return False

    def _measure(self, array: SSAValue, value: _Value) -> None:
        inner = [v for v in value.reads if v not in self.cut]
        depth = max((self.depth.get(v, 0) for v in inner), default=0)
        self.depth[array] = depth + value.folds
        levels = [
            self.level.get(v, 0) + (v in value.crossed and self._computed(v))
            for v in inner
        ]
        self.level[array] = max(levels, default=0)

    def _shared(self, results: Sequence[SSAValue]) -> SSAValue | None:
        """The last computed value that several kernels need, other than results."""
        users: dict[SSAValue, set[int]] = {}
        kernels: list[Sequence[SSAValue]] = [[value] for value in self.cut]
        kernels.append([value for value in results if value not in self.cut])
        for number, ends in enumerate(kernels):
            for value in self.needed(ends):
                users.setdefault(value, set()).add(number)
        found = [
            value
            for value in self.values
            if value not in self.cut
            and self._computed(value)
            and len(users.get(value, ())) > 1
        ]
        return found[-1] if found else None

    def _is_cheap(self, value: SSAValue, results: Sequence[SSAValue]) -> bool:
        """Whether a value is no more than elements that are stored, moved or scaled."""
        total = 0
        for part in self.needed([value]):
            op = self.values[part].op
            if self.values[part].folds:
                return False
            # Where elements are is worked out in any case, and so they are read.
            total += sum(
                weight(inner)
                for inner in op.body.block.ops
                if not isinstance(inner, AtOp)
                and not any(isinstance(r.type, IndexType) for r in inner.results)
            )
        return value not in results and total < COSTLY

    def needed(self, ends: Sequence[SSAValue]) -> set[SSAValue]:
        """What is computed in a kernel that gives these values."""
        seen: set[SSAValue] = set()
        pending = [value for value in ends if value in self.values]
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            pending += [
                v
                for v in self.values[value].reads
                if v in self.values and v not in self.cut
            ]
        return seen


def _read(op: ComprehensionOp) -> _Value:
    """What a comprehension reads, and how."""
    axes = set(op.body.block.args)
    reads: list[SSAValue] = []
    crossed: list[SSAValue] = []
    folds = False
    for inner in op.body.walk():
        folds = folds or isinstance(inner, FoldOp)
        if not isinstance(inner, AtOp):
            continue
        reads.append(inner.array)
        used = set(_sources(inner.indices))
        around = _folded(inner, op)
        # A fold crosses an operand if other ones have axes that this one has not.
        if used & around and not axes <= used:
            others = {
                source
                for other in op.body.walk()
                if isinstance(other, AtOp) and _folded(other, op) & around
                for source in _sources(other.indices)
            }
            if (axes - used) & others:
                crossed.append(inner.array)
    return _Value(op, folds, reads, crossed)


def _folded(op: Operation, top: ComprehensionOp) -> set[SSAValue]:
    """The indices of the folds around an operation."""
    found: set[SSAValue] = set()
    parent = op.parent_op()
    while parent is not None and parent is not top:
        if isinstance(parent, FoldOp):
            found.add(parent.body.block.args[0])
        parent = parent.parent_op()
    return found


def _sources(values: Sequence[SSAValue]) -> Iterator[SSAValue]:
    """The indices that values are computed from."""
    pending, seen = list(values), set[SSAValue]()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if isinstance(value.owner, Block):
            yield value
        else:
            pending += value.owner.operands


# Kernels.


def split(function: FuncOp) -> list[FuncOp]:
    """Cut a program into kernels; the function is changed to call them.

    Returns:
        The kernels, none if the program is one.
    """
    block = function.body.block
    terminator = block.last_op
    if not isinstance(terminator, ReturnOp):
        return []
    if any(
        isinstance(op, ArrayOperation) and not isinstance(op, ConstantOp)
        for op in block.ops
    ):
        return []
    cut = Cutter(function).run()
    large = [
        op
        for op in block.ops
        if isinstance(op, ConstantOp)
        and prod(shape_of(op.result.type)) > LARGEST_CONSTANT
    ]
    if not cut and not large:
        return []
    kernels: list[FuncOp] = []
    given = {*function.body.block.args, *cut, *(op.result for op in large)}
    made: dict[SSAValue, SSAValue] = {}
    builder = Builder(
        InsertPoint.at_end(body := Block(arg_types=[arg.type for arg in block.args]))
    )
    for old, new in zip(block.args, body.args, strict=True):
        new.name_hint = old.name_hint
        made[old] = new
    for op in large:
        made[op.result] = builder.insert(op.clone()).result
    results = [v for v in dict.fromkeys(terminator.operands) if v not in made]
    ends = [[value] for value in cut]
    rest = [value for value in results if value not in cut]
    if rest:
        ends.append(rest)
    stem = function.sym_name.data
    for number, outputs in enumerate(ends):
        kernel, inputs = _kernel(block, f"{stem}.{number}", outputs, given)
        call = CallOp(
            kernel.sym_name.data, [made[v] for v in inputs], [v.type for v in outputs]
        )
        builder.insert(call)
        made.update(zip(outputs, call.results, strict=True))
        kernels.append(kernel)
    builder.insert(ReturnOp(*(made[value] for value in terminator.operands)))
    function.detach_region(function.body).drop_all_references()
    function.add_region(Region(body))
    function.attributes[PROGRAM] = UnitAttr()
    return kernels


def _kernel(
    block: Block, name: str, outputs: Sequence[SSAValue], given: set[SSAValue]
) -> tuple[FuncOp, list[SSAValue]]:
    """The function that computes some values from others, and what it is given."""
    wanted: set[Operation] = set()
    inputs: dict[SSAValue, None] = {}
    stated = _stated(block)

    def need(value: SSAValue, is_end: bool = False) -> None:
        if value in given and not is_end:
            inputs[value] = None
            return
        owner = value.owner
        if isinstance(owner, Block):
            if owner is block:
                inputs[value] = None
            return
        if owner.parent is block:
            add(owner)

    def add(op: Operation) -> None:
        if op in wanted:
            return
        wanted.add(op)
        for inner in op.walk():
            for operand in inner.operands:
                need(operand)
        for requirement in stated.get(op, ()):
            add(requirement)

    for value in outputs:
        need(value, True)
    # What nothing is made of states itself: arguments in the order of the program.
    order = [v for v in [*block.args, *_results(block)] if v in inputs]
    kernel = FuncOp(
        name,
        ([v.type for v in order], [v.type for v in outputs]),
        visibility=StringAttr("private"),
    )
    body = kernel.body.block
    known: dict[SSAValue, SSAValue] = dict(zip(order, body.args, strict=True))
    for old, new in zip(order, body.args, strict=True):
        if isinstance(old, BlockArgument):
            new.name_hint = old.name_hint
    builder = Builder(InsertPoint.at_end(body))
    for op in block.ops:
        if op in wanted:
            builder.insert(op.clone(known))
    builder.insert(ReturnOp(*(known[value] for value in outputs)))
    return kernel, order


def _results(block: Block) -> Iterator[SSAValue]:
    for op in block.ops:
        yield from op.results


def _stated(block: Block) -> dict[Operation, list[RequireOp]]:
    """What is required for each comprehension: it stands after it."""
    found: dict[Operation, list[RequireOp]] = {}
    current: Operation | None = None
    for op in block.ops:
        if isinstance(op, ComprehensionOp):
            current = op
        elif isinstance(op, RequireOp) and current is not None:
            found.setdefault(current, []).append(op)
    return found


@dataclass(frozen=True)
class SplitProgramsPass(ModulePass):
    """Cuts programs that no single kernel should compute into several.

    A program of comprehensions, as `moa-raise-linalg` makes it, is cut where products
    of computed arrays would be computed again and again, and where several kernels need
    a computed value. Each piece becomes a private function; the function that is left
    has the attribute `moa.program` and calls them. Large constants become arguments of
    kernels. A program that is one kernel stays as it is.

    What folds over the rows of a value can follow in one pass is not cut.
    """

    name = "moa-split-programs"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Split the public functions of a module; what they call is inlined."""
        functions = functions_of(op)
        for function in reversed(callers_first(functions)):
            inline_calls(function)
        for function in functions:
            is_public = function.sym_visibility != StringAttr("private")
            if not is_public or len(function.body.blocks) != 1:
                continue
            if not any(isa(t, TensorType) for t in function.function_type.outputs):
                continue
            erase_dead(function.body.block)
            for kernel in split(function):
                Rewriter.insert_op(kernel, InsertPoint.before(function))
