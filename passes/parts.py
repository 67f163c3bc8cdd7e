"""Partial states: what a cascade has found so far, by functions of their own.

A cascade can fold disjoint sets of indices A and B one by one: with r the pivot of both
together, the accumulators of both are `T(r_A -> r) a_A f T(r_B -> r) a_B` (the
transport theorem; see fusion.md). So a function with one cascade comes apart into

- `@f.state`: what the cascade makes of a part of the folded axis,
- `@f.identity`: the state of no index,
- `@f.merge`: the state of two parts together, and
- `@f.finish`: the results of f, from the state of all parts.

A *state* is a tuple of arrays over the axes around the cascade: the accumulators; the
pivots that are carried, which are computed from themselves or from accumulators
relative to them (any other is computed anew); `count`, the number of indices that are
accounted for; and, where `@f.finish` needs it and it is another number, `extent`, how
long the parts of the folded axis are. All is put together from the regions of the
cascade. Nothing is derived here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    FunctionType,
    IndexType,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    OpResult,
    Region,
    SSAValue,
)
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.ops.base import as_tensor
from moa_dialect.ops.function import lookup_function, print_name
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeGroup,
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    RequireOp,
    YieldOp,
    body_of,
    cell_element,
    cell_shape,
)
from moa_dialect.passes.rebuild import tidy
from moa_dialect.passes.share import captured, structural_key
from moa_dialect.passes.to_dnf import erase_dead
from moa_dialect.passes.to_onf import result_extents
from moa_dialect.scalar_code import apply_function, constant, identity_of
from moa_dialect.types import element_of, shape_of

INDEX = IndexType()

Axis = tuple[SSAValue, int]
"""An argument and the number of an axis."""

View = tuple[SSAValue, tuple[SSAValue, ...]]
"""An array and the first indices into it."""


class Copier:
    """Copies values of one function into another, with what they are computed from.

    Attributes:
        builder: where copies are inserted.
        known: what stands for a value.
        views: what stands for an array: part of another one.
        special: copies an operation in its own way; returns whether it did.
    """

    def __init__(
        self,
        builder: Builder,
        special: Callable[[Operation, Copier], bool],
        parent: Copier | None = None,
    ) -> None:
        self.builder = builder
        self.special = special
        self.parent = parent
        self.known: dict[SSAValue, SSAValue] = {}
        self.views: dict[SSAValue, View] = {}

    def within(self, block: Block | None = None) -> Copier:
        """A scope of its own: in a block that is being built, or here."""
        if block is None:
            return Copier(self.builder, self.special, self)
        return Copier(Builder(InsertPoint.at_end(block)), self.special, self)

    def insert(self, op: Operation) -> SSAValue:
        """Insert an operation with one result."""
        return self.builder.insert(op).results[0]

    def find(self, value: SSAValue) -> SSAValue | View | None:
        """What stands for a value, if anything does."""
        copier: Copier | None = self
        while copier is not None:
            if value in copier.known:
                return copier.known[value]
            if value in copier.views:
                return copier.views[value]
            copier = copier.parent
        return None

    def get(self, value: SSAValue) -> SSAValue:
        """What stands for a value, copied if need be."""
        found = self.find(value)
        if found is None:
            assert isinstance(value, OpResult)
            self._copy(value.op)
            found = self.find(value)
        assert found is not None
        return found if isinstance(found, SSAValue) else self._array(*found)

    def _array(self, array: SSAValue, first: Sequence[SSAValue]) -> SSAValue:
        """Part of an array as an array of its own."""
        if not first:
            return array
        axes = range(len(first), len(shape_of(array.type)))
        block = Block(arg_types=[INDEX] * len(axes))
        inner = self.within(block)
        element = inner.insert(AtOp(array, [*first, *block.args]))
        inner.builder.insert(YieldOp(element))
        extents = [self.insert(ExtentOp(array, axis)) for axis in axes]
        type_ = as_tensor([static(e) for e in extents], element_of(array.type))
        return self.insert(ComprehensionOp(extents, Region(block), [type_]))

    def _copy(self, op: Operation) -> None:
        if self.special(op, self):
            return
        mapping: dict[SSAValue, SSAValue] = {}
        for value in used(op):
            found = self.find(value)
            mapping[value] = found[0] if isinstance(found, tuple) else self.get(value)
        self.add(op, op.clone(mapping))

    def add(self, op: Operation, copy: Operation) -> None:
        """Insert the copy of an operation."""
        self.builder.insert(copy)
        self.known.update(zip(op.results, copy.results, strict=True))
        for old, new in list(zip(op.walk(), copy.walk(), strict=True)):
            if not isinstance(old, AtOp) or not isinstance(new, AtOp):
                continue
            if isinstance(view := self.find(old.array), tuple):
                at = AtOp(view[0], [*view[1], *new.indices])
                Rewriter.replace_op(new, at)
                if old is op:
                    self.known[old.result] = at.result

    def element(self, value: SSAValue, indices: Sequence[SSAValue]) -> SSAValue:
        """One element of an array."""
        found, op = self.find(value), value.owner
        if isinstance(found, tuple):
            return self.insert(AtOp(found[0], [*found[1], *indices]))
        if found is None and isinstance(op, ComprehensionOp) and op.order is None:
            assert isinstance(value, OpResult)
            inner = self.within()
            inner.known.update(zip(op.body.block.args, indices, strict=True))
            return inner.get(body_of(op.body)[1].values[value.index])
        return self.insert(AtOp(self.get(value), indices))


def used(op: Operation) -> list[SSAValue]:
    """The values an operation captures, in the order of their uses."""
    values = captured(op)
    operands = (value for inner in op.walk() for value in inner.operands)
    return [value for value in dict.fromkeys(operands) if value in values]


def static(extent: SSAValue) -> int | None:
    """The number of an extent, if it is one."""
    owner = extent.owner
    return owner.static_value if isinstance(owner, ExtentOp | FixedExtentOp) else None


@dataclass(frozen=True)
class Component:
    """One array of a state.

    Attributes:
        name: what it is called.
        element: the type of its elements.
        extents: its extents, as values of the function the cascade is in.
        is_outer: whether its first axes are those around the cascade.
    """

    name: str
    element: Attribute
    extents: tuple[SSAValue, ...]
    is_outer: bool = True

    @property
    def type(self) -> TensorType:
        """The type of the array."""
        return as_tensor([static(extent) for extent in self.extents], self.element)


class Program:
    """A function with one cascade, and what its states are made of.

    Attributes:
        function: the function.
        cascade: its cascade.
        kept: further cascades that accumulate some of the same, each with the numbers
            of the accumulators that it shares with the first.
        split: the arguments that are given in parts, each with the axis.
        components: the arrays of a state.
        places: the numbers of the components that are results of the cascade.

    Raises:
        CompileError: if there is no cascade or more than one, or it does not go along a
            whole axis of arguments.
    """

    def __init__(self, function: FuncOp) -> None:
        self.function = function
        self.kept: dict[CascadeOp, Sequence[int]] = {}
        self.cascade = self._find()
        self.views = self.cascade.views()
        self.host = self.host_of(self.cascade)
        self.split = self._split()
        self.members = self._members()
        self._check_pivots()
        self._check_reads()
        self.components: list[Component] = []
        self.places: dict[SSAValue, int] = {}
        self._add_components()

    def error(self, text: str) -> CompileError:
        """An error that names the function."""
        return CompileError(
            f"moa-fuse-reductions: @{self.function.sym_name.data}: {text}"
        )

    # The cascade.

    def _find(self) -> CascadeOp:
        found = list(_outermost(self.function))
        wanted = "emit=merge expects one fused cascade"
        if not found:
            raise self.error(f"{wanted}, got none")
        first = max(found, key=lambda op: len(op.outputs))
        for other in found:
            keep = self._shared(first, other)
            if keep is None:
                raise self.error(f"{wanted}, got {len(found)}")
            self.kept[other] = keep
        return first

    def _shared(self, first: CascadeOp, other: CascadeOp) -> Sequence[int] | None:
        """Which accumulators of a cascade are those of another, if all of them are."""
        if other is first:
            return range(len(first.functions))
        hosts = self.host_of(first), self.host_of(other)
        wanted = _alone(other, hosts[1], range(len(other.functions)))
        for keep in combinations(range(len(first.functions)), len(other.functions)):
            if _alone(first, hosts[0], keep) == wanted:
                return keep
        return None

    def host_of(self, cascade: CascadeOp) -> ComprehensionOp | None:
        """The comprehension around a cascade; None if it is at the top."""
        parent = cascade.parent_op()
        if parent is self.function:
            return None
        if (
            isinstance(parent, ComprehensionOp)
            and parent.parent is self.function.body.block
        ):
            return parent
        assert parent is not None
        raise self.error(
            f"expected a cascade at the top or in one comprehension there, got one "
            f"inside {parent.name}"
        )

    @property
    def outer(self) -> tuple[SSAValue, ...]:
        """The extents of the axes around the cascade."""
        return () if self.host is None else tuple(self.host.extents)

    # The folded axis.

    def indices(self) -> Iterator[SSAValue]:
        """The folded index, as the regions know it."""
        yield self.cascade.data.block.args[0]
        for view in self.views:
            yield view.part.block.args[0]

    def is_argument(self, value: SSAValue) -> bool:
        """Whether a value is an argument of the function."""
        return value.owner is self.function.body.block

    def _split(self) -> dict[SSAValue, int]:
        split: dict[SSAValue, int] = {}
        for index in self.indices():
            for use in index.uses:
                op = use.operation
                if not isinstance(op, AtOp) or not self.is_argument(op.array):
                    continue
                axis = use.index - 1
                if split.setdefault(op.array, axis) != axis:
                    raise self.error(
                        f"the folded index goes along two axes of {name_of(op.array)}"
                    )
        if not split:
            raise self.error("the folded index goes along no axis of an argument")
        return split

    def _members(self) -> set[Axis]:
        """The axes that are as long as the folded one: it, and those required to be."""
        members = set(self.split.items())
        first, *others = self.split.items()
        equal = self._equal(first)
        for other in others:
            numbers = {shape_of(array.type)[axis] for array, axis in (first, other)}
            if other not in equal and (len(numbers) > 1 or min(numbers) < 0):
                raise self.error(
                    f"axis {other[1]} of {name_of(other[0])} is not known to be as "
                    f"long as axis {first[1]} of {name_of(first[0])}"
                )
            equal |= self._equal(other)
        members |= equal
        if not any(map(self._is_whole, _least(self.cascade.upper))):
            raise self.error("the folded index does not go along a whole axis")
        return members

    def _equal(self, axis: Axis) -> set[Axis]:
        """The axes that are required to be as long as one, itself included."""
        found = {axis}
        pairs = [
            pair
            for op in self.function.body.block.ops
            if isinstance(op, RequireOp) and op.relation_name == "eq"
            for pair in [(_axis(op.given), _axis(op.expected))]
        ]
        for _ in pairs:
            for left, right in pairs:
                if left and right and {left, right} & found:
                    found |= {left, right}
        return found

    @property
    def number(self) -> int | None:
        """How long the folded axis of the whole is, if the types say so."""
        numbers = [shape_of(array.type)[axis] for array, axis in self.split.items()]
        return max(numbers) if max(numbers) >= 0 else None

    def _is_whole(self, value: SSAValue) -> bool:
        """Whether an extent is that of the folded axis."""
        equal = {m for axis in self.split.items() for m in self._equal(axis)}
        return _axis(value) in equal or (
            self.number is not None and static(value) == self.number
        )

    def _check_pivots(self) -> None:
        """Check that pivots are scalars and made of scalars."""
        for view in self.views:
            if view.pivot is None:
                continue
            if any(isa(pivot.type, TensorType) for pivot in view.pivots):
                raise self.error("a pivot is an array")
            if any(a.uses and isa(a.type, TensorType) for a in view.pivot.block.args):
                raise self.error("a pivot depends on an accumulator that is an array")

    def _check_reads(self) -> None:
        """Check that the cascade reads what is split at the folded index only."""
        folded = set(self.indices())
        pending: list[Operation] = [self.cascade]
        seen: set[Operation] = set()
        while pending:
            op = pending.pop()
            if op in seen:
                continue
            seen.add(op)
            pending.extend(
                value.op for value in captured(op) if isinstance(value, OpResult)
            )
            for inner in op.walk():
                if isinstance(inner, AtOp) and inner.array in self.split:
                    index = inner.indices[self.split[inner.array]]
                    if index not in folded:
                        raise self.error(
                            f"the cascade reads {name_of(inner.array)} along the "
                            f"folded axis by another index too"
                        )

    @cached_property
    def is_plain(self) -> bool:
        """Whether the cascade goes along the whole axis."""
        owner = self.cascade.lower.owner
        return (
            isinstance(owner, arith.ConstantOp)
            and owner.value == constant(0, INDEX).value
            and self._is_whole(self.cascade.upper)
        )

    @cached_property
    def needs_offset(self) -> bool:
        """Whether the state of a part depends on where the part begins."""
        return not self.is_plain or any(
            not (isinstance(use.operation, AtOp) and use.operation.array in self.split)
            for index in self.indices()
            for use in index.uses
        )

    def whole_extent(self, copier: Copier) -> SSAValue:
        """The extent of the folded axis of the whole, where only a part is given."""
        if self.number is not None:
            return copier.insert(FixedExtentOp(self.number))
        for array, axis in sorted(self.members, key=_argument_number):
            if array not in self.split:
                return copier.insert(ExtentOp(copier.get(array), axis))
        raise self.error(
            "what the cascade folds depends on the extent of the whole axis, which a "
            "part does not have"
        )

    def bounds(
        self, scope: Copier, length: SSAValue, offset: SSAValue | None
    ) -> tuple[SSAValue, SSAValue]:
        """The bounds of the cascade within a part of this length."""
        zero = scope.insert(constant(0, INDEX))
        if self.is_plain:
            return zero, length
        assert offset is not None
        end = scope.insert(arith.AddiOp(offset, length))

        def least(value: SSAValue) -> SSAValue:
            if isinstance(value.owner, arith.MinSIOp):
                sides = least(value.owner.lhs), least(value.owner.rhs)
                return scope.insert(arith.MinSIOp(*sides))
            return end if self._is_whole(value) else scope.get(value)

        upper = scope.insert(arith.SubiOp(least(self.cascade.upper), offset))
        lower = scope.insert(arith.SubiOp(scope.get(self.cascade.lower), offset))
        lower = scope.insert(arith.MaxSIOp(lower, zero))
        return lower, scope.insert(arith.MaxSIOp(lower, upper))

    # States.

    def is_carried(self, view: CascadeView) -> bool:
        """Whether a group's pivots depend on what only the state knows."""
        assert view.pivot is not None
        own = len(view.pivots) + len(view.accumulators)
        return any(arg.uses for arg in view.pivot.block.args[-own:])

    def _add_components(self) -> None:
        names: dict[str, int] = {}

        def add(result: OpResult, name: str) -> None:
            number = names[name] = names.get(name, 0) + 1
            inner = result_extents(result) if isa(result.type, TensorType) else ()
            self.places[result] = len(self.components)
            self.components.append(
                Component(
                    f"{name}{number}" if number > 1 else name,
                    cell_element(result.type),
                    (*self.outer, *inner),
                )
            )

        for view in self.views:
            for function, result in zip(view.functions, view.accumulators, strict=True):
                add(result, print_name(function).strip("@"))
            if view.pivot is not None and self.is_carried(view):
                for result in view.pivots:
                    add(result, "pivot")
        bounds = (self.cascade.lower, self.cascade.upper)
        is_outer = self.host is not None and any(
            b in self.host.body.block.args or b.owner.parent is self.host.body.block
            for b in bounds
            if isinstance(b.owner, Operation)
        )
        self.count_place = len(self.components)
        extents = self.outer if is_outer else ()
        self.components.append(Component("count", INDEX, extents, is_outer))

    @property
    def extent_place(self) -> int | None:
        """Which component says how long the parts of the folded axis are."""
        if self.is_plain:
            return self.count_place
        return len(self.components) - 1 if self.has_extent else None

    @property
    def has_extent(self) -> bool:
        """Whether states have a component for that besides the count."""
        return self.components[-1].name == "extent"

    def add_extent(self) -> None:
        """Let states say how long the parts of the folded axis are."""
        if self.extent_place is None:
            self.components.append(Component("extent", INDEX, (), False))

    def bound_pivot(
        self, scope: Copier, view: CascadeView, count: SSAValue, earlier: State | Merged
    ) -> Copier:
        """A scope for a pivot region, in which what comes before the group is known."""
        assert view.pivot is not None
        inner, args = scope.within(), list(view.pivot.block.args)
        inner.known[args.pop(0)] = count
        for other in self.views[: self.views.index(view)]:
            for result in (*other.pivots, *other.accumulators):
                if (arg := args.pop(0)).uses and not isa(result.type, TensorType):
                    inner.known[arg] = earlier.scalar(result)
        return inner


def _outermost(op: Operation) -> Iterator[CascadeOp]:
    """The cascades in an operation that are in no other."""
    if isinstance(op, CascadeOp):
        yield op
        return
    for region in op.regions:
        for block in region.blocks:
            for inner in block.ops:
                yield from _outermost(inner)


def _axis(value: SSAValue) -> Axis | None:
    owner = value.owner
    return (owner.array, owner.axis_number) if isinstance(owner, ExtentOp) else None


def _least(value: SSAValue) -> Iterator[SSAValue]:
    """What a bound is the least of."""
    if isinstance(value.owner, arith.MinSIOp):
        yield from _least(value.owner.lhs)
        yield from _least(value.owner.rhs)
    else:
        yield value


def _argument_number(axis: Axis) -> tuple[int, int]:
    assert isinstance(axis[0], BlockArgument)
    return axis[0].index, axis[1]


def name_of(array: SSAValue) -> str:
    """The name of an argument."""
    assert isinstance(array, BlockArgument)
    return array.name_hint or f"argument {array.index}"


def _alone(
    cascade: CascadeOp, host: ComprehensionOp | None, keep: Sequence[int]
) -> object:
    """What some of a cascade's accumulators are, in a form that can be compared."""
    outer = () if host is None else host.body.block.args
    block = Block(arg_types=[INDEX] * len(outer))
    root = Copier(Builder(InsertPoint.at_end(Block())), lambda op, copier: False)
    top = cascade if host is None else host
    root.known.update((value, value) for value in captured(top))
    inner = root.within(block)
    inner.known.update(zip(outer, block.args, strict=True))
    inner.get(cascade.outputs[0])
    copy = block.last_op
    assert isinstance(copy, CascadeOp)
    part = _reduced(copy, keep)
    if part is None:
        return None
    inner.builder.insert(part)
    inner.builder.insert(YieldOp(*part.outputs))
    erase_dead(block)
    extents = () if host is None else host.extents
    types = [
        as_tensor([None] * len(outer) + list(cell_shape(v.type)), cell_element(v.type))
        for v in part.outputs
    ]
    return structural_key(ComprehensionOp(extents, Region(block), types))


def _reduced(cascade: CascadeOp, keep: Sequence[int]) -> CascadeOp | None:
    """A cascade of some accumulators only, if they do not depend on the others."""
    views, start = cascade.views(), 0
    numbers: list[list[int]] = []
    for view in views:
        size = len(view.accumulators)
        numbers.append([k - start for k in keep if start <= k < start + size])
        start += size
    data = cascade.data.clone()
    needed: set[int] = set()
    regions: list[list[Region]] = []
    for place, (view, kept) in enumerate(zip(views, numbers, strict=True)):
        if not kept:
            regions.append([])
            continue
        pivots, dropped = len(view.pivots), set(range(len(view.accumulators)))
        dropped -= set(kept)
        part = _yielding(view.part, kept)
        shared = part.block.args[1 : len(part.block.args) - pivots]
        needed |= {k for k, arg in enumerate(shared) if arg.uses}
        found = [part]
        if view.pivot is not None and view.move is not None:
            pivot, move = view.pivot.clone(), _yielding(view.move, kept)
            unused = [*pivot.block.args[-len(view.accumulators) :]]
            gone = [unused[k] for k in dropped]
            at = 1
            for other, others in zip(views[:place], numbers[:place], strict=True):
                at += len(other.pivots) if others else 0
                args = pivot.block.args[at : at + len(other.accumulators)]
                if not others:
                    args = pivot.block.args[at:][
                        : len(other.pivots) + len(other.accumulators)
                    ]
                    gone.extend(args)
                else:
                    gone.extend(a for k, a in enumerate(args) if k not in others)
                at += len(args)
            accumulators = move.block.args[-len(view.accumulators) :]
            gone.extend(accumulators[k] for k in dropped)
            if any(arg.uses for arg in gone):
                return None
            for arg in gone:
                arg.block.erase_arg(arg)
            found = [pivot, part, move]
        regions.append(found)
    for view, found in zip(views, regions, strict=True):
        for part in found[-2:-1] or found[:1]:
            count = len(part.block.args) - 1 - len(view.pivots)
            for k in reversed(range(count)):
                if k not in needed:
                    part.block.erase_arg(part.block.args[1 + k])
    groups = [
        CascadeGroup(
            tuple(view.functions[k] for k in kept),
            tuple(view.accumulators[k].type for k in kept),
            view.starts,
            tuple(found),
        )
        for view, kept, found in zip(views, numbers, regions, strict=True)
        if kept
    ]
    chunk = None if cascade.chunk is None else cascade.chunk_length
    return CascadeOp(
        cascade.lower, cascade.upper, _yielding(data, sorted(needed)), groups, chunk
    )


def _yielding(region: Region, numbers: Sequence[int]) -> Region:
    """A copy of a region that yields some of the values only."""
    copy = region.clone()
    block, terminator = body_of(copy)
    Rewriter.replace_op(terminator, YieldOp(*(terminator.values[k] for k in numbers)))
    erase_dead(block)
    return copy


@dataclass
class State:
    """A state at one place of the axes around the cascade.

    Attributes:
        program: what it is a state of.
        scope: where its elements are read.
        arrays: its components.
        indices: the place.
    """

    program: Program
    scope: Copier
    arrays: Sequence[SSAValue]
    indices: Sequence[SSAValue]
    found: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def _read(self, place: int) -> SSAValue:
        is_outer = self.program.components[place].is_outer
        indices = self.indices if is_outer else ()
        return self.scope.insert(AtOp(self.arrays[place], indices))

    @cached_property
    def count(self) -> SSAValue:
        """How many indices are accounted for."""
        return self._read(self.program.count_place)

    @cached_property
    def is_empty(self) -> SSAValue:
        """Whether there is none."""
        zero = self.scope.insert(constant(0, INDEX))
        return self.scope.insert(arith.CmpiOp(self.count, zero, "eq"))

    def row(self, result: SSAValue) -> View:
        """An accumulator that is an array."""
        return self.arrays[self.program.places[result]], tuple(self.indices)

    def scalar(self, result: SSAValue) -> SSAValue:
        """An accumulator or pivot that is a scalar."""
        if result not in self.found:
            place = self.program.places.get(result)
            self.found[result] = (
                self._pivot(result) if place is None else self._read(place)
            )
        return self.found[result]

    def _pivot(self, result: SSAValue) -> SSAValue:
        """A pivot that is not carried; of no index, the value it starts from."""
        for view in self.program.views:
            if result in view.pivots and view.pivot is not None:
                number = view.pivots.index(result)  # pyright: ignore
                inner = self.program.bound_pivot(self.scope, view, self.count, self)
                value = inner.get(body_of(view.pivot)[1].values[number])
                start = self.scope.get(view.starts[number])
                return self.scope.insert(arith.SelectOp(self.is_empty, start, value))
        raise AssertionError(f"{result} is no result of the cascade")

    def bind(
        self, copier: Copier, results: Sequence[SSAValue], stands: Sequence[SSAValue]
    ) -> None:
        """Let values of the old function be accumulators and pivots of this state."""
        for result, value in zip(results, stands, strict=True):
            if isa(result.type, TensorType):
                copier.views[value] = self.row(result)
            else:
                copier.known[value] = self.scalar(result)


@dataclass
class Merged:
    """What is known so far of the state of two parts together, at one place."""

    found: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def scalar(self, result: SSAValue) -> SSAValue:
        """An accumulator or pivot that is a scalar."""
        return self.found[result]


class _Emitter:
    """Builds one of the functions.

    Attributes:
        program: the function that comes apart, and its states.
        root: the copier into the new function's block.
        arguments: the arguments of the old function that the new one has, with its own.
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.name = name
        self.block = Block()
        self.root = Copier(Builder(InsertPoint.at_end(self.block)), self.special)
        self.arguments: dict[SSAValue, BlockArgument] = {}
        self.first = 0

    def argument(self, old: SSAValue) -> SSAValue:
        """The new function's argument for one of the old; they keep their order."""
        if old not in self.arguments:
            assert isinstance(old, BlockArgument)
            before = sum(other.index < old.index for other in self.arguments)  # pyright: ignore
            new = self.block.insert_arg(old.type, self.first + before)
            new.name_hint = old.name_hint
            self.arguments[old] = self.root.known[old] = new
        return self.arguments[old]

    def all_arguments(self) -> None:
        """Take all arguments of the old function, the split ones of any length."""
        for old in self.program.function.body.block.args:
            new = self.argument(old)
            if old in self.program.split:
                extents = [None if e < 0 else e for e in shape_of(old.type)]
                extents[self.program.split[old]] = None
                Rewriter.replace_value_with_new_type(
                    new, as_tensor(extents, element_of(old.type))
                )
                self.arguments[old] = self.root.known[old] = self.block.args[old.index]

    def add_state(self, prefix: str) -> list[SSAValue]:
        """Arguments for the arrays of a state, before those of the old function."""
        arrays: list[SSAValue] = []
        for component in self.program.components:
            arg = self.block.insert_arg(component.type, self.first)
            arg.name_hint = f"{prefix}{component.name}"
            arrays.append(arg)
            self.first += 1
        return arrays

    def special(self, op: Operation, copier: Copier) -> bool:
        """Extents of the folded axis are those of the whole."""
        return isinstance(op, ExtentOp) and self.extent(op, copier)

    def extent(self, op: ExtentOp, copier: Copier) -> bool:
        """Find what stands for an extent of the folded axis."""
        if self.program.split.get(op.array) != op.axis_number:
            self.argument(op.array)
            return False
        copier.known[op.result] = self.program.whole_extent(copier)
        return True

    # Preconditions.

    def entry(self) -> Copier:
        """A copier to the entry of the function."""
        first = self.block.first_op
        at = InsertPoint.at_end(self.block) if first is None else None
        copier = Copier(Builder(at or InsertPoint.before(first)), self.special)  # pyright: ignore
        copier.known.update(self.arguments)
        return copier

    def require(
        self, copier: Copier, given: Axis, expected: Axis, message: str
    ) -> None:
        """Require two extents to be equal, unless types say so."""
        left, right = (copier.insert(ExtentOp(*axis)) for axis in (given, expected))
        if static(left) is None or static(left) != static(right):
            copier.builder.insert(
                RequireOp("eq", left, right, f"{self.name}: {message}")
            )

    def copy_requirements(
        self, copier: Copier, may_copy: Callable[[set[Axis], bool], bool]
    ) -> None:
        """Copy the preconditions that make sense here."""
        for op in self.program.function.body.block.ops:
            if not isinstance(op, RequireOp):
                continue
            axes, reads = _sources(op)
            if not may_copy(axes, reads):
                continue
            copier.builder.insert(
                RequireOp(
                    op.relation_name,
                    copier.get(op.given),
                    copier.get(op.expected),
                    op.message.data,
                )
            )

    # The end.

    def function(self, values: Sequence[SSAValue]) -> FuncOp:
        """The function that gives these values."""
        self.root.builder.insert(ReturnOp(*values))
        name = f"{self.program.function.sym_name.data}.{self.name}"
        types = [arg.type for arg in self.block.args], [value.type for value in values]
        function = FuncOp(name, FunctionType.from_lists(*types), Region(self.block))
        tidy(function)
        return function

    def state_of(
        self,
        emit: Callable[[Copier, Sequence[SSAValue]], Sequence[SSAValue]],
        constants: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """The arrays of a state.

        Args:
            emit: gives a value for each component with the outer axes.
            constants: the values of the others.
        """
        program = self.program
        block = Block(arg_types=[INDEX] * len(program.outer))
        if program.host is not None:
            for new, old in zip(block.args, program.host.body.block.args, strict=True):
                new.name_hint = old.name_hint
        inner = self.root.within(block)
        if program.host is not None:
            old = program.host.body.block.args
            inner.known.update(zip(old, block.args, strict=True))
        inner.builder.insert(YieldOp(*emit(inner, block.args)))
        extents = [self.root.get(extent) for extent in program.outer]
        types = [c.type for c in program.components if c.is_outer]
        op = ComprehensionOp(extents, Region(block), types)
        arrays: list[SSAValue] = list(self.root.builder.insert(op).arrays)
        for value in constants:
            block = Block()
            Builder(InsertPoint.at_end(block)).insert(YieldOp(value))
            type_ = as_tensor([], INDEX)
            arrays.append(self.root.insert(ComprehensionOp([], Region(block), [type_])))
        return arrays

    def cells(
        self,
        scope: Copier,
        result: OpResult,
        emit: Callable[[Copier, Sequence[SSAValue]], SSAValue],
    ) -> SSAValue:
        """An accumulator that is an array, element by element."""
        program = self.program
        component = program.components[program.places[result]]
        inner = component.extents[len(program.outer) :]
        block = Block(arg_types=[INDEX] * len(inner))
        for arg in block.args:
            arg.name_hint = "l"
        cell = scope.within(block)
        cell.builder.insert(YieldOp(emit(cell, block.args)))
        extents = [scope.get(extent) for extent in inner]
        return scope.insert(ComprehensionOp(extents, Region(block), [result.type]))


def _sources(op: RequireOp) -> tuple[set[Axis], bool]:
    """The axes a precondition is about, and whether it reads an array as well."""
    axes: set[Axis] = set()
    reads = False
    pending = [op.given, op.expected]
    while pending:
        value = pending.pop()
        if (axis := _axis(value)) is not None:
            axes.add(axis)
        elif isinstance(value, OpResult):
            reads |= isa(value.type, TensorType)
            pending.extend(captured(value.op))
        else:
            reads = True
    return axes, reads


class _State(_Emitter):
    """`@f.state` and `@f.identity`, which take the arguments of f."""

    def _entry(self, offset: bool) -> tuple[SSAValue, SSAValue | None]:
        """The length of the part, and where it begins."""
        program, root = self.program, self.root
        self.all_arguments()
        entry = self.entry()
        first, *others = ((self.arguments[a], k) for a, k in program.split.items())
        for axis in others:
            self.require(
                entry,
                axis,
                first,
                f"axis {axis[1]} of {name_of(axis[0])} must be as long as axis "
                f"{first[1]} of {name_of(first[0])}",
            )
        self.copy_requirements(
            entry,
            lambda axes, reads: not any(a in program.split.items() for a in axes),
        )
        length = root.insert(ExtentOp(*first))
        if not offset:
            return length, None
        arg = self.block.insert_arg(as_tensor([], INDEX), len(self.block.args))
        arg.name_hint = "offset"
        return length, root.insert(AtOp(arg, []))

    def state(self) -> FuncOp:
        """What the cascade makes of a part."""
        program = self.program
        length, offset = self._entry(program.needs_offset)
        shared: list[SSAValue] = []
        is_outer = program.components[program.count_place].is_outer

        def emit(scope: Copier, indices: Sequence[SSAValue]) -> list[SSAValue]:
            lower, upper = program.bounds(scope, length, offset)
            cascade = self._cascade(scope, lower, upper, offset)
            pairs = zip(program.cascade.outputs, cascade.outputs, strict=True)
            found = {
                program.places[old]: new for old, new in pairs if old in program.places
            }
            values: list[SSAValue] = [found[place] for place in sorted(found)]
            if is_outer:
                values.append(scope.insert(arith.SubiOp(upper, lower)))
            return values

        if not is_outer:
            bounds = program.bounds(self.root, length, offset)
            shared.append(self.root.insert(arith.SubiOp(bounds[1], bounds[0])))
            if program.is_plain:
                shared = [length]
        if program.has_extent:
            shared.append(length)
        return self.function(self.state_of(emit, shared))

    def _cascade(
        self,
        scope: Copier,
        lower: SSAValue,
        upper: SSAValue,
        offset: SSAValue | None,
    ) -> CascadeOp:
        """The cascade over a part."""
        old = self.program.cascade
        inside = {v for r in old.regions for op in r.walk() for v in op.operands}
        inside.update(old.starts)
        copy = old.clone({v: scope.get(v) for v in used(old) if v in inside})
        copy.operands[0], copy.operands[1] = lower, upper
        scope.builder.insert(copy)
        split = self.program.split.items()
        new: dict[SSAValue, int] = {self.arguments[array]: k for array, k in split}
        blocks = [copy.data.block, *(view.part.block for view in copy.views())]
        for block in blocks:
            index = block.args[0]
            places = [
                use
                for use in list(index.uses)
                if not (
                    isinstance(use.operation, AtOp)
                    and new.get(use.operation.array) == use.index - 1
                )
            ]
            if not places:
                continue
            assert offset is not None
            add = arith.AddiOp(index, offset)
            assert block.first_op is not None
            block.insert_op_before(add, block.first_op)
            for use in places:
                use.operation.operands[use.index] = add.result
            if _is_address(add.result):
                raise self.program.error(
                    "an array is read at a place that is computed from the folded index"
                )
        return copy

    def identity(self) -> FuncOp:
        """The state of no index."""
        program = self.program
        self._entry(False)

        values: dict[int, SSAValue] = {}
        for view in program.views:
            for function, result in zip(view.functions, view.accumulators, strict=True):
                element = cell_element(result.type)
                number = constant(identity_of(function, element), element)
                values[program.places[result]] = self.root.insert(number)
        arrays: list[SSAValue] = []
        zero = self.root.insert(constant(0, INDEX))
        for place, component in enumerate(program.components):
            block = Block(arg_types=[INDEX] * len(component.extents))
            inner = self.root.within(block)
            if program.host is not None and component.is_outer:
                outer = program.host.body.block.args
                inner.known.update(zip(outer, block.args, strict=False))
            value = values.get(place, zero)
            for view in program.views:
                for result, start in zip(view.pivots, view.starts, strict=True):
                    if program.places.get(result) == place:
                        value = inner.get(start)
            inner.builder.insert(YieldOp(value))
            extents = [self.root.get(extent) for extent in component.extents]
            op = ComprehensionOp(extents, Region(block), [component.type])
            arrays.append(self.root.insert(op))
        return self.function(arrays)


def _is_address(value: SSAValue) -> bool:
    """Whether an index into an array is computed from a value."""
    pending, seen = [value], set[SSAValue]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for use in current.uses:
            op, parent = use.operation, use.operation.parent_op()
            if isinstance(op, AtOp):
                return True
            pending.extend(op.results)
            if isinstance(op, YieldOp | scf.YieldOp) and parent is not None:
                pending.extend(parent.results)
                if isinstance(parent, CascadeOp) and op.parent is parent.data.block:
                    pending.extend(
                        view.part.block.args[1 + use.index] for view in parent.views()
                    )
    return False


class _FromStates(_Emitter):
    """Functions whose first arguments are states."""

    def __init__(self, program: Program, name: str, prefixes: Sequence[str]) -> None:
        super().__init__(program, name)
        self.states = [self.add_state(prefix) for prefix in prefixes]
        self.shape: dict[SSAValue, Axis] = {}
        for arrays in self.states:
            for array, component in zip(arrays, program.components, strict=True):
                for axis, extent in enumerate(component.extents):
                    self.shape.setdefault(extent, (array, axis))

    def special(self, op: Operation, copier: Copier) -> bool:
        for result in op.results:
            if result in self.shape and copier.find(result) is None:
                copier.known[result] = copier.insert(ExtentOp(*self.shape[result]))
        if all(copier.find(result) is not None for result in op.results):
            return True
        for value in captured(op):
            if self.program.is_argument(value):
                self.argument(value)
        return super().special(op, copier)

    def requirements(self) -> None:
        """Require states to fit together, and arguments to fit to them."""
        program, entry = self.program, self.entry()
        for arrays in self.states:
            for array, component in zip(arrays, program.components, strict=True):
                for axis, extent in enumerate(component.extents):
                    given, expected = (array, axis), self.shape[extent]
                    if given != expected:
                        self._require(entry, given, expected)
        for extent, axis in self.shape.items():
            own = _axis(extent)
            if own is not None and own[0] in self.arguments:
                self._require(entry, (self.arguments[own[0]], own[1]), axis)
        self.copy_requirements(entry, self._may_copy)

    def _require(self, entry: Copier, given: Axis, expected: Axis) -> None:
        self.require(
            entry,
            given,
            expected,
            f"axis {given[1]} of {name_of(given[0])} must be as long as axis "
            f"{expected[1]} of {name_of(expected[0])}",
        )

    def _may_copy(self, axes: set[Axis], reads: bool) -> bool:
        known = {_axis(extent) for extent in self.shape}
        return (
            not reads
            and any(array in self.arguments for array, _ in axes)
            and all(a in known or self.is_given(a) for a in axes)
        )

    def is_given(self, axis: Axis) -> bool:
        """Whether the extent of an axis is that of an argument here."""
        is_split = self.program.split.get(axis[0]) == axis[1]
        return axis[0] in self.arguments and not is_split


class _Merge(_FromStates):
    """`@f.merge`."""

    def merge(self) -> FuncOp:
        """The state of two parts together."""
        program = self.program
        left, right = self.states

        def emit(scope: Copier, indices: Sequence[SSAValue]) -> list[SSAValue]:
            return self._merged(
                scope,
                State(program, scope, left, indices),
                State(program, scope, right, indices),
            )

        shared: list[SSAValue] = []
        for place, component in enumerate(program.components):
            if not component.is_outer:
                a, b = (self.root.insert(AtOp(s[place], [])) for s in self.states)
                shared.append(self.root.insert(arith.AddiOp(a, b)))
        arrays = self.state_of(emit, shared)
        self.requirements()
        return self.function(arrays)

    def _merged(self, scope: Copier, a: State, b: State) -> list[SSAValue]:
        program, merged = self.program, Merged()
        count = scope.insert(arith.AddiOp(a.count, b.count))
        rows: dict[int, SSAValue] = {}
        for view in program.views:
            old = [[s.scalar(r) for r in view.pivots] for s in (a, b)]
            moved = scope.within(), scope.within()
            yielded: Sequence[SSAValue] = view.accumulators
            if view.pivot is not None and view.move is not None:
                new = self._pivots(scope, view, a, b, count, merged)
                merged.found.update(zip(view.pivots, new, strict=True))
                moved = (
                    self._moved(scope, view, a, old[0], new),
                    self._moved(scope, view, b, old[1], new),
                )
                yielded = body_of(view.move)[1].values
            else:
                for state, copier in zip((a, b), moved, strict=True):
                    state.bind(copier, view.accumulators, view.accumulators)
            for number, result in enumerate(view.accumulators):
                value = yielded[number]
                if not isa(result.type, TensorType):
                    sides = [copier.get(value) for copier in moved]
                    merged.found[result] = self._combined(scope, view, number, sides)
                    continue

                def emit(
                    cell: Copier,
                    indices: Sequence[SSAValue],
                    view: CascadeView = view,
                    number: int = number,
                    value: SSAValue = value,
                    moved: tuple[Copier, Copier] = moved,
                ) -> SSAValue:
                    result = view.accumulators[number]
                    sides = [
                        _inside(copier, cell).element(value, indices)
                        for copier in moved
                    ]
                    whole = self._combined(cell, view, number, sides)
                    alone = [
                        cell.insert(AtOp(array, [*first, *indices]))
                        for array, first in (a.row(result), b.row(result))
                    ]
                    return _chosen(cell, a, b, alone, whole)

                rows[program.places[result]] = self.cells(scope, result, emit)
        values = dict(rows)
        for result, place in program.places.items():
            if place not in rows:
                alone = [a.scalar(result), b.scalar(result)]
                values[place] = _chosen(scope, a, b, alone, merged.found[result])
        if program.components[program.count_place].is_outer:
            values[program.count_place] = count
        return [values[place] for place in sorted(values)]

    def _pivots(
        self,
        scope: Copier,
        view: CascadeView,
        a: State,
        b: State,
        count: SSAValue,
        merged: Merged,
    ) -> list[SSAValue]:
        """The pivots of both parts together."""
        assert view.pivot is not None
        assert view.move is not None
        inner = self.program.bound_pivot(scope, view, count, merged)
        size = len(view.accumulators)
        args = view.pivot.block.args
        old = [[s.scalar(r) for r in view.pivots] for s in (a, b)]
        for arg, value in zip(args[-size - len(old[0]) : -size], old[0], strict=True):
            inner.known[arg] = value
        if own := view.own_accumulators():
            # They are relative to the pivots of a.
            moved = self._moved(scope, view, b, old[1], old[0])
            for number in own:
                if not isa(view.accumulators[number].type, TensorType):
                    left = a.scalar(view.accumulators[number])
                    right = moved.get(body_of(view.move)[1].values[number])
                    sides = [left, right]
                    value = self._combined(scope, view, number, sides)
                    inner.known[args[number - size]] = value
        return [inner.get(value) for value in body_of(view.pivot)[1].values]

    def _moved(
        self,
        scope: Copier,
        view: CascadeView,
        state: State,
        old: Sequence[SSAValue],
        new: Sequence[SSAValue],
    ) -> Copier:
        """A scope in which what `move` yields is a state relative to new pivots."""
        assert view.move is not None
        inner, args = scope.within(), view.move.block.args
        values = [state.count, *old, *new]
        inner.known.update(zip(args, values, strict=False))
        state.bind(inner, view.accumulators, args[len(values) :])
        return inner

    def _combined(
        self,
        scope: Copier,
        view: CascadeView,
        number: int,
        sides: Sequence[SSAValue],
    ) -> SSAValue:
        """Two values of an accumulator by its function."""
        function = self.program.function
        return apply_function(
            view.functions[number],
            sides,
            scope.builder,
            lambda symbol: lookup_function(function, symbol),
        )


def _inside(copier: Copier, cell: Copier) -> Copier:
    """A scope of its own that inserts where another one does."""
    return Copier(cell.builder, copier.special, copier)


def _chosen(
    scope: Copier, a: State, b: State, alone: Sequence[SSAValue], both: SSAValue
) -> SSAValue:
    """What is merged of both, unless one of them is of no index."""
    value = scope.insert(arith.SelectOp(b.is_empty, alone[0], both))
    return scope.insert(arith.SelectOp(a.is_empty, alone[1], value))


class _Finish(_FromStates):
    """`@f.finish`."""

    def finish(self) -> FuncOp:
        """The results of the function, from the state of all parts."""
        last = self.program.function.body.block.last_op
        assert isinstance(last, ReturnOp)
        for value in last.arguments:
            if self.program.is_argument(value):
                self.argument(value)
        values = [self.root.get(value) for value in last.arguments]
        self.requirements()
        function = self.function(values)
        self._check_lengths(function)
        return function

    def special(self, op: Operation, copier: Copier) -> bool:
        program = self.program
        if isinstance(op, CascadeOp) and op in program.kept:
            host = program.host_of(op)
            block = () if host is None else host.body.block.args
            indices = [copier.get(index) for index in block]
            state = State(program, copier, self.states[0], indices)
            first = program.cascade
            accumulators = [first.accumulators[k] for k in program.kept[op]]
            pivots = [
                pivot
                for view in first.views()
                if set(view.accumulators) & set(accumulators)
                for pivot in view.pivots
            ]
            state.bind(copier, accumulators, op.accumulators)
            state.bind(copier, pivots, op.pivots)
            return True
        hosts = [program.host_of(cascade) for cascade in program.kept]
        if isinstance(op, ComprehensionOp) and op in hosts:
            self._comprehension(op, copier)
            return True
        if op.name.startswith("arith.") and any(map(self._is_length, op.operands)):
            # As a number, the length of the axis is that of all parts together.
            length = self.length(copier)
            mapping = {
                value: length if self._is_length(value) else copier.get(value)
                for value in used(op)
            }
            copier.add(op, op.clone(mapping))
            return True
        return super().special(op, copier)

    def _is_length(self, value: SSAValue) -> bool:
        """Whether a value is the extent of the folded axis, and not of a state's."""
        return _axis(value) in self.program.members and value not in self.shape

    def length(self, copier: Copier) -> SSAValue:
        """How long the folded axis of all parts together is."""
        program = self.program
        if program.extent_place is None:
            program.add_extent()
            arg = self.block.insert_arg(as_tensor([], INDEX), self.first)
            arg.name_hint = program.components[-1].name
            self.states[0].append(arg)
            self.first += 1
        assert program.extent_place is not None
        return copier.insert(AtOp(self.states[0][program.extent_place], []))

    def _comprehension(self, op: ComprehensionOp, copier: Copier) -> None:
        old = op.body.block
        block = Block(arg_types=[INDEX] * len(old.args))
        inner = copier.within(block)
        for new, arg in zip(block.args, old.args, strict=True):
            new.name_hint = arg.name_hint
            inner.known[arg] = new
        values = [inner.get(value) for value in body_of(op.body)[1].values]
        inner.builder.insert(YieldOp(*values))
        extents = [copier.get(extent) for extent in op.extents]
        types = [array.type for array in op.arrays]
        order = None if op.order is None else op.order.get_values()
        new = ComprehensionOp(extents, Region(block), types, order)
        copier.builder.insert(new)
        copier.known.update(zip(op.arrays, new.arrays, strict=True))

    def extent(self, op: ExtentOp, copier: Copier) -> bool:
        """An argument that is there has its own extents."""
        self.argument(op.array)
        return False

    def is_given(self, axis: Axis) -> bool:
        return axis[0] in self.arguments

    def _check_lengths(self, function: FuncOp) -> None:
        """Require arguments that are read in another way than cell by cell whole."""
        program = self.program
        for old, axis in program.split.items():
            new = self.arguments.get(old)
            if new is None or _is_cellwise(function, new, axis):
                continue
            entry = self.entry()
            given, expected = entry.insert(ExtentOp(new, axis)), self.length(entry)
            message = f"finish: axis {axis} of {name_of(new)} must be whole"
            entry.builder.insert(RequireOp("eq", given, expected, message))
            function.function_type = FunctionType.from_lists(
                [arg.type for arg in self.block.args],
                function.function_type.outputs.data,
            )


def _is_cellwise(function: FuncOp, array: SSAValue, axis: int) -> bool:
    """Whether each result cell needs the argument at its own index only.

    Then a part of the argument gives the same part of the result.
    """
    for op in function.walk():
        if isinstance(op, ExtentOp) and _axis(op.result) == (array, axis):
            users = [use.operation for use in op.result.uses]
            if not all(isinstance(u, ComprehensionOp | RequireOp) for u in users):
                return False
        if isinstance(op, AtOp) and op.array is array:
            index = op.indices[axis]
            loop = index.owner.parent_op() if isinstance(index.owner, Block) else None
            if not isinstance(loop, ComprehensionOp):
                return False
            assert isinstance(index, BlockArgument)
            if _axis(loop.extents[index.index]) != (array, axis):
                return False
            if any(
                not isinstance(use.operation, AtOp)
                or not isinstance(use.operation.array, BlockArgument)
                for use in index.uses
            ):
                return False
    return True


def emit_parts(function: FuncOp) -> list[FuncOp]:
    """The functions that a function with a cascade comes apart into.

    Raises:
        CompileError: if there are none, with the reason.
    """
    program = Program(function)
    finish = _Finish(program, "finish", [""]).finish()
    state = _State(program, "state").state()
    identity = _State(program, "identity").identity()
    merge = _Merge(program, "merge", ["a_", "b_"]).merge()
    return [state, identity, merge, finish]
