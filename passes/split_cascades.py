"""moa-split-cascades: the range of a cascade in parts that run side by side.

The transport theorem (fusion.md) merges what a cascade makes of disjoint sets of
indices. So a comprehension with a cascade over `lower <= p < upper` becomes two: the
first has one more axis s, whose cascade goes over the s-th block of the range, and
gives all accumulators and pivots as arrays; in the second a cascade over s merges them.

The merge is a cascade with the same functions, pivots and moves: what s contributes to
an accumulator is the partial one moved from its own pivots to the new ones. It goes
over the blocks that have some index of the range, so nothing is merged with the state
of no index. Where the pivots or moves of a group depend on how many indices there are,
the count is one more of its accumulators, which does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    AnyFloat,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    f64,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.ops.base import as_tensor
from moa_dialect.ops.function import FunctionAttr, has_identity
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeGroup,
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    FixedExtentOp,
    FoldOp,
    YieldOp,
    body_of,
    cell_element,
    cell_shape,
)
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.machine import host_machine
from moa_dialect.passes.parts import Copier, static
from moa_dialect.passes.rebuild import comprehensions, tidy
from moa_dialect.passes.share import captured
from moa_dialect.passes.terms import INDEX
from moa_dialect.passes.to_dnf import erase_dead
from moa_dialect.passes.to_onf import PARTS, result_extents
from moa_dialect.passes.work import extent_of, weight
from moa_dialect.scalar_code import constant

AUTO = "auto"

ROWS = 128
"""How many indices of the axes around, that read the same, a task has at most."""

SHORTEST = 128
"""How many indices of the range a part has at least, where the number is chosen."""

WORK = 1 << 14
"""How much work a part is at least then, in additions."""

MOST = 64
"""The most parts of a range whose length types do not give."""


class _NotSplit(Exception):
    """What a cascade counts cannot be an accumulator."""


def number_of(value: SSAValue) -> int | None:
    """A value as a number, None if types and constants do not give it."""
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    if isinstance(owner, arith.MuliOp):  # The number of elements of an array.
        left, right = map(number_of, owner.operands)
        return None if left is None or right is None else left * right
    return static(value)


def _operands(value: SSAValue, operation: type[Operation]) -> list[SSAValue]:
    """What a value is the least or largest of."""
    if isinstance(value.owner, operation):
        return [v for arg in value.owner.operands for v in _operands(arg, operation)]
    return [value]


@dataclass
class _Range:
    """The range of a cascade, cut into blocks.

    Attributes:
        cascade: the cascade.
        parts: the number of blocks.
        base: where the first block starts, if that is the same everywhere.
        end: a bound of the range, if there is one that is the same everywhere.
        align: what the length of a block is a multiple of.
        is_bounded: whether what merges them says how many there are at most, where the
            call tells how many have some index.
    """

    cascade: CascadeOp
    parts: int
    base: SSAValue | None
    end: SSAValue | None
    align: int
    is_bounded: bool = False

    def __post_init__(self) -> None:
        if self.base is None or self.end is None:
            self.base = self.end = None

    @property
    def span(self) -> int | None:
        """How long the range is at most, if it is known."""
        if self.base is None or self.end is None:
            return None
        low, high = number_of(self.base), number_of(self.end)
        return None if low is None or high is None else max(high - low, 0)

    @property
    def block(self) -> int | None:
        """How long a block is, if it is known."""
        span = self.span
        if span is None:
            return None
        return max(-(-span // (self.parts * self.align)), 1) * self.align

    def settle(self) -> None:
        """Leave out blocks beyond the end."""
        if self.block is not None and self.span:
            self.parts = -(-self.span // self.block)

    def _block(self, scope: Copier, low: SSAValue, high: SSAValue) -> SSAValue:
        """How long a block is; at least 1."""
        if self.block is not None:
            return scope.insert(constant(self.block, INDEX))
        unit = self.parts * self.align
        span = high
        if number_of(low) != 0:
            span = scope.insert(arith.SubiOp(high, low))
        span = scope.insert(arith.MaxSIOp(span, _constant(scope, 1)))
        span = scope.insert(arith.AddiOp(span, _constant(scope, unit - 1)))
        count = scope.insert(arith.DivUIOp(span, _constant(scope, unit)))
        if self.align == 1:
            return count
        return scope.insert(arith.MuliOp(count, _constant(scope, self.align)))

    def _frame(self, scope: Copier) -> tuple[SSAValue, SSAValue, SSAValue, SSAValue]:
        """Lower and upper bound, where the first block starts, and a block's length."""
        lower, upper = scope.get(self.cascade.lower), scope.get(self.cascade.upper)
        low, high = lower, upper
        if self.base is not None and self.end is not None:
            low, high = scope.get(self.base), scope.get(self.end)
        return lower, upper, low, self._block(scope, low, high)

    def bounds(self, scope: Copier, part: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The bounds of a part."""
        lower, upper, base, length = self._frame(scope)
        start = scope.insert(arith.MuliOp(part, length))
        if number_of(base) != 0:
            start = scope.insert(arith.AddiOp(base, start))
        stop = scope.insert(arith.AddiOp(start, length))
        if lower is not base:
            start = scope.insert(arith.MaxSIOp(lower, start))
        if not self._is_even(upper):
            stop = scope.insert(arith.MinSIOp(upper, stop))
        return start, stop

    def _is_even(self, upper: SSAValue) -> bool:
        """Whether the blocks end where the range does."""
        span, block, high = self.span, self.block, number_of(upper)
        return (
            high is not None
            and self.base is not None
            and span == self.parts * (block or 0)
            and high - (number_of(self.base) or 0) == span
        )

    def some(self, scope: Copier) -> tuple[SSAValue, SSAValue]:
        """The bounds of the parts that have some index."""
        lower, upper, base, length = self._frame(scope)
        zero = _constant(scope, 0)
        if lower is base and number_of(upper) is not None and self.span:
            return zero, _constant(scope, self.parts)
        more = scope.insert(arith.SubiOp(length, _constant(scope, 1)))
        if number_of(base) != 0:
            upper_ = scope.insert(arith.SubiOp(upper, base))
        else:
            upper_ = upper
        last = scope.insert(arith.MaxSIOp(upper_, zero))
        last = scope.insert(arith.AddiOp(last, more))
        last = scope.insert(arith.DivUIOp(last, length))
        if self.is_bounded:
            last = scope.insert(arith.MinSIOp(last, _constant(scope, self.parts)))
        if lower is base:
            return zero, last
        first = scope.insert(arith.SubiOp(lower, base))
        first = scope.insert(arith.DivUIOp(first, length))
        is_some = scope.insert(arith.CmpiOp(lower, upper, "slt"))
        return first, scope.insert(arith.SelectOp(is_some, last, first))


def _constant(scope: Copier, number: int) -> SSAValue:
    return scope.insert(constant(number, INDEX))


def _range(host: ComprehensionOp, cascade: CascadeOp, parts: int) -> _Range:
    """The range of a cascade in blocks that are the same everywhere, if they can be."""
    ends: list[SSAValue | None] = []
    for bound, operation in (
        (cascade.lower, arith.MaxSIOp),
        (cascade.upper, arith.MinSIOp),
    ):
        same = [v for v in _operands(bound, operation) if not _is_inside(v, host)]
        same.sort(key=lambda v: number_of(v) is None)
        ends.append(same[0] if same else None)
    return _Range(cascade, parts, ends[0], ends[1], cascade.chunk_length)


def _is_inside(value: SSAValue, host: ComprehensionOp) -> bool:
    """Whether a value is made in a comprehension."""
    owner = value.owner
    block = owner if isinstance(owner, Block) else owner.parent
    while block is not None:
        if block is host.body.block:
            return True
        block = block.parent_block()
    return False


@dataclass
class _Group:
    """A group of the merge, while it is built."""

    functions: list[FunctionAttr | str]
    types: list[Attribute]
    starts: list[SSAValue]
    view: CascadeView
    count: AnyFloat | None
    """The type of the count, which is then the last accumulator."""


@dataclass
class _Split:
    """The splitting of one comprehension.

    Attributes:
        host: the comprehension.
        cascade: the cascade in it.
        range: the parts.
        leads: whether the parts are the outermost axis, not the innermost one: where
            elements along the range lie apart, and those along the last axis do not.
        raised: the cells of the results, whose axes become axes of the merge.
    """

    host: ComprehensionOp
    cascade: CascadeOp
    range: _Range
    leads: bool = False
    raised: list[ComprehensionOp] = field(init=False)
    cells: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def __post_init__(self) -> None:
        self.views = self.cascade.views()
        self.raised = self._cells()
        self.root = Copier(Builder(InsertPoint.before(self.host)), self._special)
        self.root.known.update((value, value) for value in captured(self.host))
        self.counts = [_type_of_count(view) for view in self.views]

    def _special(self, op: Operation, copier: Copier) -> bool:
        """An element of an accumulator whose axes are those of the merge."""
        if not isinstance(op, AtOp) or op.array not in self.cells:
            return False
        copier.known[op.result] = self.cells[op.array]
        return True

    def run(self) -> ComprehensionOp:
        """Put the two comprehensions in the place of the one; gives the second one."""
        arrays = self._partial()
        merged = self._merged(arrays)
        for old, new in zip(self.host.arrays, merged.arrays, strict=True):
            new.name_hint = old.name_hint
        Rewriter.replace_op(self.host, [], merged.arrays)
        return merged

    def _enter(
        self, hints: Sequence[tuple[str | None, SSAValue | None]]
    ) -> tuple[Block, Copier]:
        """A body over axes: their names, and the indices that they stand for."""
        block = Block(arg_types=[INDEX] * len(hints))
        scope = self.root.within(block)
        for arg, (hint, old) in zip(block.args, hints, strict=True):
            arg.name_hint = hint
            if old is not None:
                scope.known[old] = arg
        return block, scope

    # The parts.

    def _partial(self) -> dict[OpResult, SSAValue]:
        """The states of the parts: for each result of the cascade an array."""
        cascade, host = self.cascade, self.host
        old = [(arg.name_hint, arg) for arg in host.body.block.args]
        block, scope = self._enter(
            [("s", None), *old] if self.leads else [*old, ("s", None)]
        )
        part = block.args[0 if self.leads else -1]
        lower, upper = self.range.bounds(scope, part)
        inside = {v for r in cascade.regions for op in r.walk() for v in op.operands}
        inside |= set(cascade.starts)
        copy = cascade.clone({v: scope.get(v) for v in captured(cascade) & inside})
        copy.operands[0], copy.operands[1] = lower, upper
        scope.builder.insert(copy)
        scope.builder.insert(YieldOp(*copy.outputs))
        count = self.root.insert(FixedExtentOp(self.range.parts))
        outer = [static(extent) for extent in (*host.extents, count)]
        extents = [count, *host.extents] if self.leads else [*host.extents, count]
        order = [len(old), *range(len(old))] if self.leads else None
        types = [
            as_tensor([*outer, *_shape(v.type)], cell_element(v.type))
            for v in copy.outputs
        ]
        op = ComprehensionOp(extents, Region(block), types, order)
        op.attributes[PARTS] = UnitAttr()
        self.root.builder.insert(op)
        return dict(zip(cascade.outputs, op.arrays, strict=True))

    # The merge.

    def _cells(self) -> list[ComprehensionOp]:
        """The cells of the results, if each needs no others of any accumulator."""
        values = body_of(self.host.body)[1].values
        arrays = [a for a in self.cascade.accumulators if isa(a.type, TensorType)]
        if not arrays or any(isa(r.type, TensorType) for r in self.cascade.pivots):
            return []
        found: dict[ComprehensionOp, None] = {}
        for value in values:
            op = value.owner
            if (
                not isinstance(op, ComprehensionOp)
                or op.parent is not self.host.body.block
                or not _is_plain(op)
            ):
                return []
            found[op] = None
        cells = list(found)
        extents = tuple(cells[0].extents)
        if any(tuple(op.extents) != extents for op in cells):
            return []
        for array in arrays:
            if tuple(result_extents(array)) != extents:
                return []
            if not all(_is_cellwise(use.operation, cells) for use in array.uses):
                return []
        for view in self.views:
            if view.pivot is not None and any(
                arg.uses and isa(arg.type, TensorType) for arg in view.pivot.block.args
            ):
                return []
            if view.move is not None and not _moves_cellwise(view):
                return []
        return cells

    def _merged(self, arrays: dict[OpResult, SSAValue]) -> ComprehensionOp:
        """The comprehension that merges the parts, and what follows."""
        host = self.host
        hints: list[tuple[str | None, SSAValue | None]] = [
            (arg.name_hint, arg) for arg in host.body.block.args
        ]
        extents = list(host.extents)
        values = body_of(host.body)[1].values
        if self.raised:
            inner = self.raised[0].body.block.args
            hints += [(arg.name_hint, None) for arg in inner]
            extents += [self.root.get(extent) for extent in self.raised[0].extents]
        block, scope = self._enter(hints)
        count = len(host.extents)
        outer, cells = block.args[:count], block.args[count:]
        self._cascade(scope, arrays, outer, cells)
        if self.raised:
            for op in self.raised:
                scope.known.update(zip(op.body.block.args, cells, strict=True))
            values = [_cell(value) for value in values]
        scope.builder.insert(YieldOp(*(scope.get(value) for value in values)))
        order = None if host.order is None else host.order.get_values()
        types = [array.type for array in host.arrays]
        op = ComprehensionOp(extents, Region(block), types, order)
        self.root.builder.insert(op)
        return op

    def _type(self, type_: Attribute) -> Attribute:
        """The type of an accumulator in the merge."""
        return cell_element(type_) if self.raised else type_

    def _groups(self, scope: Copier) -> list[_Group]:
        """The groups of the merge."""
        groups: list[_Group] = []
        for view, count in zip(self.views, self.counts, strict=True):
            starts = [scope.get(start) for start in view.starts]
            types = [self._type(a.type) for a in view.accumulators]
            functions: list[FunctionAttr | str] = list(view.functions)
            if count is not None:
                functions.append("add")
                types.append(count)
            groups.append(_Group(functions, types, starts, view, count))
        return groups

    def _cascade(
        self,
        scope: Copier,
        arrays: dict[OpResult, SSAValue],
        outer: Sequence[SSAValue],
        cells: Sequence[SSAValue],
    ) -> None:
        """Insert the merge; what the cascade gave is known in the scope."""
        lower, upper = self.range.some(scope)
        groups = self._groups(scope)
        kept = [
            value
            for value in self.cascade.outputs
            if self.raised or not isa(value.type, TensorType)
        ]
        # What the parts share: the states' scalars, and how many indices there are.
        block = Block(arg_types=[INDEX])
        block.args[0].name_hint = "s"
        data = scope.within(block)
        found: list[SSAValue] = []
        for value in kept:
            rest = cells if isa(value.type, TensorType) else ()
            found.append(
                data.insert(AtOp(arrays[value], [*outer, block.args[0], *rest]))
            )
        counted = list(dict.fromkeys(c for c in self.counts if c is not None))
        if counted:
            start, stop = self.range.bounds(data, block.args[0])
            count = data.insert(arith.SubiOp(stop, start))
            whole = data.insert(arith.IndexCastOp(count, i64))
            found += [data.insert(arith.SIToFPOp(whole, type_)) for type_ in counted]
        data.builder.insert(YieldOp(*found))
        made: list[CascadeGroup] = []
        for number, group in enumerate(groups):
            part = self._part(scope, group, found, kept, arrays, outer, cells)
            regions = [part]
            if group.starts:
                pivot = self._pivot(scope, group, groups[:number])
                regions = [pivot, part, self._move(scope, group, cells)]
            made.append(
                CascadeGroup(
                    tuple(group.functions),
                    tuple(group.types),
                    tuple(group.starts),
                    tuple(regions),
                )
            )
        chunk = None if self.cascade.chunk is None else self.cascade.chunk_length
        op = CascadeOp(lower, upper, Region(block), made, chunk)
        scope.builder.insert(op)
        self.cells = {}
        for group, view in zip(groups, op.views(), strict=True):
            old = group.view
            for was, new in zip(old.accumulators, view.accumulators, strict=False):
                if self.raised and isa(was.type, TensorType):
                    self.cells[was] = new
                else:
                    scope.known[was] = new
            scope.known.update(zip(old.pivots, view.pivots, strict=False))

    def _part(
        self,
        scope: Copier,
        group: _Group,
        data: Sequence[SSAValue],
        kept: Sequence[OpResult],
        arrays: dict[OpResult, SSAValue],
        outer: Sequence[SSAValue],
        cells: Sequence[SSAValue],
    ) -> Region:
        """What a part contributes: its state, moved to the new pivots."""
        types = [v.type for v in data]
        block = Block(arg_types=[INDEX, *types, *(v.type for v in group.starts)])
        block.args[0].name_hint = "s"
        inner = scope.within(block)
        shared = block.args[1 : 1 + len(data)]
        pivots = block.args[1 + len(data) :]
        for arg in pivots:
            arg.name_hint = "r"
        values = dict(zip(kept, shared, strict=False))
        views = {
            array: (arrays[array], (*outer, block.args[0]))
            for array in self.cascade.accumulators
            if array not in values
        }
        self.cells = {}
        view = group.view
        count = next((v for v in shared[len(kept) :] if v.type == group.count), None)
        results: Sequence[SSAValue] = view.accumulators
        stands: Sequence[SSAValue] = view.accumulators
        if view.move is not None:
            args = view.move.block.args[1:]
            size = len(view.pivots)
            if count is not None:
                inner.known.update((v, count) for v in _float_counts(view.move))
            for arg, pivot in zip(args, view.pivots, strict=False):
                inner.known[arg] = values[pivot]
            inner.known.update(zip(args[size : 2 * size], pivots, strict=True))
            stands = args[2 * size :]
            results = body_of(view.move)[1].values
        self._bind(inner, view, stands, values)
        for array, arg in zip(view.accumulators, stands, strict=True):
            if array in views:
                inner.views[arg] = views[array]
        yielded = self._yielded(inner, view, results, cells)
        if count is not None:
            yielded.append(count)
        inner.builder.insert(YieldOp(*yielded))
        return Region(block)

    def _bind(
        self,
        inner: Copier,
        view: CascadeView,
        args: Sequence[SSAValue],
        values: Mapping[OpResult, SSAValue],
    ) -> None:
        """Let the accumulators that the old regions know be these values."""
        for result, arg in zip(view.accumulators, args, strict=True):
            if result not in values:
                continue
            if isa(result.type, TensorType) and self.raised:
                self.cells[arg] = values[result]
            else:
                inner.known[arg] = values[result]

    def _yielded(
        self,
        inner: Copier,
        view: CascadeView,
        values: Sequence[SSAValue],
        cells: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """What a region of the merge yields for accumulators; arrays cell by cell."""
        found: list[SSAValue] = []
        for result, value in zip(view.accumulators, values, strict=True):
            if not isa(result.type, TensorType):
                found.append(inner.get(value))
            elif self.raised:
                found.append(self._element(inner, value, cells))
            else:
                extents = [inner.get(e) for e in result_extents(result)]
                block = Block(arg_types=[INDEX] * len(extents))
                for arg in block.args:
                    arg.name_hint = "l"
                cell = inner.within(block)
                cell.builder.insert(YieldOp(cell.element(value, block.args)))
                op = ComprehensionOp(extents, Region(block), [result.type])
                found.append(inner.insert(op))
        return found

    def _element(
        self, inner: Copier, value: SSAValue, cells: Sequence[SSAValue]
    ) -> SSAValue:
        """The cell of an array that a move yields."""
        if value in self.cells:
            return self.cells[value]
        scope = inner.within()
        scope.known.update(zip(_body(value).args, cells, strict=True))
        return scope.get(_cell(value))

    def _pivot(self, scope: Copier, group: _Group, before: Sequence[_Group]) -> Region:
        """The new pivots: computed as those of the cascade are."""
        view = group.view
        assert view.pivot is not None
        types: list[Attribute] = [INDEX]
        for other in (*before, group):
            types += [v.type for v in other.starts] + other.types
        block = Block(arg_types=types)
        inner = scope.within(block)
        old = list(view.pivot.block.args[1:])
        block.args[0].name_hint = "count"
        rest = list(block.args[1:])
        for other in (*before, group):
            pivots = [rest.pop(0) for _ in other.starts]
            accumulators = [rest.pop(0) for _ in other.types]
            if other.count is not None:
                count = accumulators.pop()
                count.name_hint = "n"
                if other is group:
                    inner.known.update((v, count) for v in _float_counts(view.pivot))
            for new in (*pivots, *accumulators):
                was = old.pop(0)
                new.name_hint = was.name_hint
                inner.known[was] = new
        values = [inner.get(value) for value in body_of(view.pivot)[1].values]
        inner.builder.insert(YieldOp(*values))
        return Region(block)

    def _move(self, scope: Copier, group: _Group, cells: Sequence[SSAValue]) -> Region:
        """How accumulators move: as those of the cascade do; the count does not."""
        view = group.view
        assert view.move is not None
        pivots = [value.type for value in group.starts]
        block = Block(arg_types=[INDEX, *pivots, *pivots, *group.types])
        inner = scope.within(block)
        old = view.move.block.args[1:]
        size = len(pivots)
        for new, name in zip(
            block.args, ("count", *["old"] * size, *["new"] * size), strict=False
        ):
            new.name_hint = name
        accumulators = block.args[1 + 2 * size :]
        for arg in accumulators:
            arg.name_hint = "a"
        inner.known.update(zip(old[: 2 * size], block.args[1:], strict=False))
        self.cells = {}
        values = dict(zip(view.accumulators, accumulators, strict=False))
        self._bind(inner, view, old[2 * size :], values)
        if group.count is not None:
            count = accumulators[-1]
            inner.known.update((v, count) for v in _float_counts(view.move))
        results = body_of(view.move)[1].values
        yielded = self._yielded(inner, view, results, cells)
        if group.count is not None:
            yielded.append(accumulators[-1])
        inner.builder.insert(YieldOp(*yielded))
        return Region(block)


def _float_counts(region: Region) -> list[SSAValue]:
    """The count of a region as floats; empty if it is not used.

    Raises:
        _NotSplit: if it is used otherwise.
    """
    found: list[SSAValue] = []
    for use in region.block.args[0].uses:
        cast = use.operation
        floats = [other.operation for result in cast.results for other in result.uses]
        for op in (cast, *floats):
            kind = arith.IndexCastOp if op is cast else arith.SIToFPOp
            if not isinstance(op, kind) or op.parent is not region.block:
                raise _NotSplit("a count that is no float")
        found += [op.results[0] for op in floats]
    return found


def _type_of_count(view: CascadeView) -> AnyFloat | None:
    """The type of a group's count, None if it needs none.

    Raises:
        _NotSplit: if it is no float that may be summed.
    """
    regions = [region for region in (view.pivot, view.move) if region is not None]
    types = {value.type for region in regions for value in _float_counts(region)}
    if not types:
        return None
    found = next((type_ for type_ in (f32, f64) if types == {type_}), None)
    if found is None:
        raise _NotSplit("a count of several types, or narrow")
    return found


def _shape(type_: Attribute) -> list[int | None]:
    return [None if extent < 0 else extent for extent in cell_shape(type_)]


def _body(value: SSAValue) -> Block:
    assert isinstance(value.owner, ComprehensionOp)
    return value.owner.body.block


def _cell(value: SSAValue) -> SSAValue:
    """What a comprehension yields for a result."""
    assert isinstance(value, OpResult)
    assert isinstance(value.owner, ComprehensionOp)
    return body_of(value.owner.body)[1].values[value.index]


def _is_plain(op: ComprehensionOp) -> bool:
    """Whether a comprehension is one of scalars in the order of its axes."""
    _, terminator = body_of(op.body)
    return op.order is None and not any(
        isa(value.type, TensorType) for value in terminator.values
    )


def _is_cellwise(user: Operation, cells: Sequence[Operation]) -> bool:
    """Whether a use of an array is of the cell of the comprehension it is in."""
    parent = user.parent_op()
    return (
        isinstance(user, AtOp)
        and isinstance(parent, ComprehensionOp)
        and parent in cells
        and tuple(user.indices) == tuple(parent.body.block.args)
    )


def _moves_cellwise(view: CascadeView) -> bool:
    """Whether a move reads arrays at the cell that it writes."""
    assert view.move is not None
    block, terminator = body_of(view.move)
    arrays = [arg for arg in block.args if isa(arg.type, TensorType)]
    rows: list[Operation] = []
    for value in terminator.values:
        if not isa(value.type, TensorType) or value in arrays:
            continue
        op = value.owner
        if not isinstance(op, ComprehensionOp) or not _is_plain(op):
            return False
        rows.append(op)
    return all(
        user is terminator or _is_cellwise(user, rows)
        for array in arrays
        for user in (use.operation for use in array.uses)
    )


def _only_cascade(host: ComprehensionOp) -> CascadeOp | None:
    """The cascade of a comprehension that has one, and no array from another fold."""
    found = [op for op in host.body.walk() if isinstance(op, CascadeOp)]
    if len(found) != 1 or found[0].parent is not host.body.block:
        return None
    (cascade,) = found
    if any(isa(pivot.type, TensorType) for pivot in cascade.pivots):
        return None
    return cascade


def shared_rows(host: ComprehensionOp, cascade: CascadeOp) -> int:
    """How many indices of the axes around read the same elements along the range."""
    indices = [cascade.data.block.args[0]]
    indices += [view.part.block.args[0] for view in cascade.views()]
    shared: list[int] = []
    for op in cascade.walk():
        if not isinstance(op, AtOp) or not set(op.indices) & set(indices):
            continue
        count = 1
        for arg, extent in zip(host.body.block.args, host.extents, strict=True):
            count *= _shared(op.indices, arg, extent_of(extent))
        shared.append(count)
    return min(shared, default=1)


def _shared(indices: Sequence[SSAValue], axis: SSAValue, extent: int) -> int:
    """How many indices of an axis give the same indices."""
    counts: list[int] = []
    for index in indices:
        owner = index.owner
        if index is axis:
            return 1
        if isinstance(owner, arith.DivUIOp) and owner.lhs is axis:
            counts.append(number_of(owner.rhs) or 1)
        elif not isinstance(owner, Block) and axis in owner.operands:
            return 1
    return min(counts, default=extent)


def chosen_parts(
    host: ComprehensionOp, cascade: CascadeOp, places: int, work: int = WORK
) -> int:
    """How many parts occupy so many places; 1 if there are tasks enough without.

    A task has up to `ROWS` indices that read the same. How many tasks there are must
    follow from types. A part is so much work at least, for one index of the axes.
    """
    if any(static(extent) is None for extent in host.extents):
        return 1
    count = prod(map(extent_of, host.extents))
    rows = max(1, min(shared_rows(host, cascade), ROWS))
    tasks = max(1, -(-count // rows))
    if tasks >= places:
        return 1
    parts = -(-places // tasks)
    span = _range(host, cascade, 1).span
    if span is None:
        return max(min(parts, MOST), 1)
    regions = [cascade.data, *(view.part for view in cascade.views())]
    each = sum(weight(op) for region in regions for op in region.block.ops)
    shortest = max(SHORTEST, -(-work // max(each, 1)))
    return max(min(parts, span // shortest), 1)


ALONG, ACROSS = "along", "across"
"""How tasks of one thread after the other read: along the range, or across it."""


def how_it_reads(host: ComprehensionOp, cascade: CascadeOp) -> str:
    """How the elements of a cascade of scalars lie that is no product of matrices.

    Returns:
        `across` if elements that lie side by side are those of the last axis around,
        else `along`; empty for any other cascade.
    """
    inner = [op for op in cascade.walk() if isinstance(op, FoldOp | ComprehensionOp)]
    if inner or any(isa(value.type, TensorType) for value in cascade.outputs):
        return ""
    if host.extents and shared_rows(host, cascade) > 1:
        return ""
    last = host.body.block.args[-1] if host.extents else None
    range_ = [cascade.data.block.args[0]]
    range_ += [view.part.block.args[0] for view in cascade.views()]
    reads = [op for op in cascade.walk() if isinstance(op, AtOp)]
    is_across = any(
        len(op.indices) > 1 and op.indices[-1] is last and set(op.indices) & set(range_)
        for op in reads
    )
    return ACROSS if is_across else ALONG


def device_parts(
    host: ComprehensionOp, cascade: CascadeOp, places: int, threads: int, work: int
) -> int:
    """How many parts occupy a device of so many places, of so many threads each.

    Where groups of threads go along the range, a part is as long as one has under way
    at a time (`SPAN`). Where each thread goes along it by itself, since the elements
    that lie side by side are others, there are threads enough.
    """
    how = how_it_reads(host, cascade)
    if not how:
        is_fold = not cascade.pivots and not any(
            isa(value.type, TensorType) for value in cascade.outputs
        )
        return 1 if is_fold else chosen_parts(host, cascade, places, work)
    if any(static(extent) is None for extent in host.extents):
        return 1
    count = prod(map(extent_of, host.extents))
    if how == ALONG:
        wanted, shortest = (4 * places // max(count, 1), SPAN)
        wanted = wanted if count < places else 1
    else:
        wanted, shortest = min(places * threads // max(count, 1), WIDEST), FEW
    span = _range(host, cascade, 1).span
    parts = min(wanted, MOST if span is None else -(-span // shortest))
    # A second kernel takes as long as it takes to make a row a few times longer.
    return parts if parts >= 4 else 1


SPAN = 4096
"""How many indices a group of threads has under way at a time."""

ALIGN = 64
"""What the length of a part is a multiple of that groups of threads go along."""

FEW = 32
"""How many indices a thread goes along by itself at least."""

WIDEST = 8192
"""The most parts that one merge has."""


def _with_cascade(host: ComprehensionOp) -> ComprehensionOp | None:
    """A copy of a comprehension whose folds over one range are a cascade.

    It is before the comprehension; None if its folds are no such.
    """
    folds = [op for op in host.body.block.ops if isinstance(op, FoldOp)]
    every = [op for op in host.body.walk() if isinstance(op, FoldOp | CascadeOp)]
    if not folds or len(folds) != len(every):
        return None
    known = set(takewhile(lambda op: op is not folds[0], host.body.block.ops))
    if any(
        value.owner not in known and _is_inside(value, host)
        for fold in folds
        for value in captured(fold)
        if value not in host.body.block.args
    ):
        return None  # One that is computed from another one.
    bounds = folds[0].lower, folds[0].upper
    if any(
        (op.lower, op.upper) != bounds
        or op.initial is not None
        or op.domain is not None
        or isa(op.result.type, TensorType)
        or not isinstance(op.function, StringAttr)
        or not has_identity(op.function)
        for op in folds
    ):
        return None
    copies: dict[SSAValue, SSAValue] = {}
    copy = host.clone(copies)
    Rewriter.insert_op(copy, InsertPoint.before(host))
    found = [op for op in copy.body.block.ops if isinstance(op, FoldOp)]
    block = Block(arg_types=[INDEX])
    block.args[0].name_hint = found[0].body.block.args[0].name_hint
    values: list[SSAValue] = []
    for fold in found:
        inner, terminator = body_of(fold.body)
        inner.args[0].replace_all_uses_with(block.args[0])
        values += terminator.values
        for op in list(inner.ops):
            op.detach()
            if op is not terminator:
                block.add_op(op)
    block.add_op(YieldOp(*values))
    groups: list[CascadeGroup] = []
    for number, fold in enumerate(found):
        part = Block(arg_types=[INDEX, *(value.type for value in values)])
        part.add_op(YieldOp(part.args[1 + number]))
        function, type_ = fold.function, fold.result.type
        groups.append(CascadeGroup((function,), (type_,), (), (Region(part),)))
    cascade = CascadeOp(found[0].lower, found[0].upper, Region(block), groups)
    Rewriter.insert_op(cascade, InsertPoint.before(found[0]))
    for fold, value in zip(found, cascade.accumulators, strict=True):
        fold.result.replace_all_uses_with(value)
        fold.detach()
    return copy


def split(
    function: FuncOp,
    parts: Callable[[ComprehensionOp, CascadeOp], int],
    folds: bool = False,
) -> bool:
    """Split the cascades of a function; returns whether any was.

    Args:
        function: the function.
        parts: how many parts a cascade should have.
        folds: whether folds are split as cascades are.
    """
    changed = False
    for host in comprehensions(function):
        if PARTS in host.attributes:
            continue
        copy = _with_cascade(host) if folds else None
        merge = _split(copy or host, parts, folds)
        changed |= merge is not None
        if copy is None:
            continue
        if merge is None:
            Rewriter.erase_op(copy)
        else:
            for old, new in zip(host.arrays, merge.arrays, strict=True):
                new.name_hint = old.name_hint
            Rewriter.replace_op(host, [], merge.arrays)
    if changed and not folds:
        tidy(function)
    elif changed:  # Folds that are the element of an array stay there.
        erase_dead(function.body.block)
    return changed


def _split(
    host: ComprehensionOp,
    parts: Callable[[ComprehensionOp, CascadeOp], int],
    on_device: bool,
) -> ComprehensionOp | None:
    """Split the cascade of a comprehension; gives what merges, None if it stays."""
    cascade = _only_cascade(host)
    if cascade is None:
        return None
    number = parts(host, cascade)
    range_ = _range(host, cascade, number)
    how = how_it_reads(host, cascade)
    range_.is_bounded = on_device
    if on_device and how == ALONG:
        range_.align = max(range_.align, ALIGN)
    range_.settle()
    if number < 2 or range_.parts < 2:
        return None
    try:
        splitting = _Split(host, cascade, range_, how == ACROSS)
    except _NotSplit:
        return None  # What it counts cannot be an accumulator.
    return splitting.run()


@dataclass(frozen=True)
class SplitCascadesPass(ModulePass):
    """Splits the ranges of cascades into parts that run side by side.

    A cascade in a comprehension at the top of a function is split if it is the only one
    there. `parts` is the number of parts, or `auto` for as many as it takes to occupy
    `places`, or with 0 the cores of this machine: none where the comprehension has as
    many tasks, or the range is short. A part is as much `work` as so many additions at
    least. The state of a part lies in an array over the axes and the parts; that is
    memory for so many results.

    With `threads`, how many of them a place of a device has, folds of scalars are split
    as well, where few elements have one each and it is no product of matrices; and what
    counts for such folds and cascades is how many threads there are. Parts that groups
    of threads go along are of a multiple of 64 indices, so that each begins where loads
    of several elements may.
    """

    name = "moa-split-cascades"

    parts: str | int = AUTO
    places: int = 1
    work: int = WORK
    threads: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Split the cascades of all functions.

        Raises:
            CompileError: for a number of parts, places or work that is none.
        """
        if self.parts != AUTO and (not isinstance(self.parts, int) or self.parts < 1):
            raise CompileError(
                f"moa-split-cascades: parts is auto or at least 1, got {self.parts}"
            )
        if self.places < 0 or self.work < 1:
            raise CompileError(
                "moa-split-cascades: places is at least 0 and work at least 1, "
                f"got {self.places} and {self.work}"
            )
        if self.threads < 0:
            raise CompileError(
                f"moa-split-cascades: threads is at least 0, got {self.threads}"
            )
        places = self.places or host_machine().cores

        def parts(host: ComprehensionOp, cascade: CascadeOp) -> int:
            if isinstance(self.parts, int):
                return self.parts
            if self.threads:
                return device_parts(host, cascade, places, self.threads, self.work)
            return chosen_parts(host, cascade, places, self.work)

        for function in functions_of(op):
            split(function, parts, folds=self.threads > 0)
            record(function, self)
