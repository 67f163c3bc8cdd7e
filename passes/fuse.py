"""moa-fuse-reductions: dependent folds in one pass over their indices.

The folds of a comprehension are placed into passes (`cascades`), found by algebra
whatever the program. A pass of several folds becomes a `moa.cascade`. Axes of the
comprehension that some of them do not use move inside: accumulators that do use them
become arrays over these axes, which lie in the result, or are one row at a time.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import inf, isfinite
from typing import Any

import ml_dtypes
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lazy import sympy as sp
from moa_dialect.ops.base import as_tensor
from moa_dialect.ops.function import print_name
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeGroup,
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    YieldOp,
)
from moa_dialect.passes.cascades import (
    Derivation,
    Group,
    Move,
    Pass,
    as_float,
    direct_folds,
    direction_of,
    is_nonnegative,
)
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.parts import emit_parts
from moa_dialect.passes.rebuild import Body, comprehensions, read_body, tidy
from moa_dialect.passes.restrict import conditions
from moa_dialect.passes.simplify import (
    absorbed,
    assume,
    chain,
    compare,
    is_identity,
)
from moa_dialect.passes.sink import sink_axes
from moa_dialect.passes.symbolic import evaluate, from_sympy, is_real, real
from moa_dialect.passes.terms import (
    INDEX,
    NotATerm,
    Term,
    Terms,
    Writer,
    contains,
    walk,
)
from moa_dialect.passes.transport import Expression, is_bounded
from moa_dialect.passes.work import NOMINAL_EXTENT, weight
from moa_dialect.scalar_code import identity_of
from moa_dialect.types import dtype_of, element_of, shape_of

_MOST_WORK = 2
"""How much more work, at most, fewer passes over the data are worth."""


@dataclass(frozen=True)
class Options:
    """What the pass was asked for; see `FuseReductionsPass`."""

    strict: bool = False
    chunk: int | None = None
    largest_rank: int = 6
    deterministic: bool = False


@dataclass
class _Axes:
    """The axes that move inside cascades.

    Attributes:
        extents: the names of their indices, and extents.
        apart: folds that share no pass and take them inside nevertheless.
    """

    extents: dict[str, Term]
    apart: set[Term] = field(default_factory=set[Term])

    def of(self, fold: Term) -> list[str]:
        """Those that a fold depends on, in order."""
        return [name for name in self.extents if name in fold.free]


class CascadeWriter(Writer):
    """Writes terms, and folds in passes as cascades."""

    def __init__(
        self,
        terms: Terms,
        builder: Builder,
        options: Options,
        notes: dict[str, None],
        parent: CascadeWriter | None = None,
    ):
        super().__init__(terms, builder, parent)
        self.options = options
        self.notes = notes
        self.arrays: dict[Term, tuple[SSAValue, list[str]]] = {}

    def within(self, block: Block) -> CascadeWriter:
        """A writer into a block in a region of an operation that is being built."""
        return CascadeWriter(
            self.terms,
            Builder(InsertPoint.at_end(block)),
            self.options,
            self.notes,
            self,
        )

    def _write(self, term: Term) -> SSAValue:
        writer: Writer | None = self
        while isinstance(writer, CascadeWriter):
            if term in writer.arrays:
                array, axes = writer.arrays[term]
                indices = [self.write(self.terms.index(axis)) for axis in axes]
                return self.builder.insert(AtOp(array, indices)).result
            writer = writer.parent
        return super()._write(term)

    def inner(self, index: str, body: Term) -> SSAValue:
        """Write a fold's body: the folds in it share passes too."""

        def in_scope(fold: Term) -> bool:
            return (
                index in fold.free
                and not any(name.startswith("%") for name in fold.free)
                and self.find(fold) is None
            )

        derivation = Derivation(
            self.terms,
            [body],
            in_scope,
            self.options.strict,
            self.options.largest_rank,
        )
        derivation.run()
        for one in derivation.passes:
            _note_what_is_seen(self.terms, one)
        if any(one.is_cascade for one in derivation.passes):
            self.notes.update(derivation.notes)
            self.passes(derivation.passes, _Axes({}))
            (body,) = derivation.outputs
        return self.write(body)

    def passes(self, passes: Sequence[Pass], axes: _Axes) -> None:
        """Write passes in their order: cascades, and folds that can be values here."""
        for one in passes:
            if one.is_cascade or not axes.apart.isdisjoint(one.folds):
                _Cascade(self, one, axes).write()
            else:
                for fold in one.folds:
                    if not axes.of(fold):
                        self.write(fold)


@dataclass
class _Cascade:
    """The writing of one pass as a cascade."""

    writer: CascadeWriter
    one: Pass
    axes: _Axes
    index: str = field(init=False)
    bodies: dict[Term, Term] = field(init=False)
    groups: list[Group] = field(init=False)

    def __post_init__(self) -> None:
        terms = self.writer.terms
        self.index = terms.fresh()
        replaced = {of for g in self.one.groups for of, _ in g.means.values()}
        self.bodies = {
            fold: terms.open(fold, self.index)[1]
            for group in self.one.groups
            for fold in group.moves
            if fold not in replaced
        }
        self.groups = [
            group
            for group in self.one.groups
            if any(fold in self.bodies for fold in group.moves)
        ]

    def accumulators(self, group: Group) -> list[Term]:
        """The accumulators of a group."""
        return [fold for fold in group.moves if fold in self.bodies]

    def data(self) -> list[Term]:
        """What the parts share: the maximal terms without pivots and inner axes."""
        pivots = {pivot for group in self.groups for pivot in group.pivots}
        found: dict[Term, None] = {}

        def visit(term: Term) -> None:
            if self.index not in term.free or term.kind == self.index:
                return
            is_data = not contains(term, pivots) and not (
                term.free & self.axes.extents.keys()
            )
            if is_data and term.type != INDEX:
                found[term] = None
                return
            if not term.is_fold:
                for arg in term.args:
                    visit(arg)

        for body in self.bodies.values():
            visit(body)
        return list(found)

    def type_of(self, fold: Term) -> Attribute:
        """The type of an accumulator: an array if it depends on inner axes."""
        axes = self.axes.of(fold)
        if not axes:
            return fold.type
        extents = [_static(self.axes.extents[axis]) for axis in axes]
        return as_tensor(extents, fold.type)

    def write(self) -> None:
        """Write the cascade; its results become known to the writer."""
        writer = self.writer
        bounds = writer.write(self.one.lower), writer.write(self.one.upper)
        data = self.data()
        region = self._region([("p", INDEX)], self._data(data))
        groups: list[CascadeGroup] = []
        before: list[Group] = []
        for group in self.groups:
            folds = self.accumulators(group)
            regions = [self._part(group, data)]
            starts: list[SSAValue] = []
            if group.pivots:
                starts = [writer.write(self.start(pivot)) for pivot in group.pivots]
                regions = [self._pivot(group, before), *regions, self._move(group)]
            groups.append(
                CascadeGroup(
                    tuple(fold.function for fold in folds),
                    tuple(self.type_of(fold) for fold in folds),
                    tuple(starts),
                    tuple(regions),
                )
            )
            before.append(group)
        op = CascadeOp(bounds[0], bounds[1], region, groups, writer.options.chunk)
        writer.builder.insert(op)
        for group, view in zip(self.groups, op.views(), strict=True):
            folds = self.accumulators(group)
            for fold, result in zip(folds, view.accumulators, strict=True):
                if axes := self.axes.of(fold):
                    writer.arrays[fold] = result, axes
                else:
                    writer.known[fold] = result
            for pivot, result in zip(group.pivots, view.pivots, strict=True):
                if pivot in group.means:
                    writer.known[pivot] = result
        for group in self.groups:
            for pivot, (of, distances) in group.means.items():
                count = as_float(writer.terms, self.one.upper, pivot)
                writer.known[of] = writer.write(self._sum(count, pivot, distances))

    def _sum(self, count: Term, pivot: Term, distances: Term) -> Term:
        """The sum that a mean is of: `count * mean + distances`."""
        terms = self.writer.terms
        whole = real(terms, arith.MulfOp, count, pivot)
        return real(terms, arith.AddfOp, whole, distances)

    def start(self, pivot: Term) -> Term:
        """The value a pivot starts from: finite, and at its end of the numbers."""
        terms = self.writer.terms
        if is_nonnegative(pivot):
            return terms.number(_smallest(pivot.type), pivot.type)
        end = self._end(pivot)
        if end is not None:
            return terms.number(end * _largest(pivot.type), pivot.type)
        value = self._at_start(pivot, 1.0)
        if value is None or not isfinite(value):
            value = 0.0
        return terms.number(value, pivot.type)

    def _end(self, pivot: Term) -> int | None:
        """At which end of the numbers a pivot starts, -1 or 1; None within them."""
        for value in (self._at_start(pivot, 1.0), self._at_start(pivot, -inf)):
            if value in (inf, -inf):
                return 1 if value == inf else -1
        return None

    def _at_start(self, pivot: Term, other: float) -> float | None:
        """The value of a pivot when nothing is accumulated, if it can be told.

        Values that do not change during the pass count as `other`.
        """
        known: dict[Term, float] = {}
        for fold in direct_folds(pivot, self.one.folds):
            known[fold] = float(identity_of(fold.function, fold.type))
        return evaluate(pivot, known, other)

    def _clamped(self, pivot: Term, value: Term) -> Term:
        """A pivot kept finite at the end where it starts, so that it can move.

        With nothing but infinities accumulated a maximum is infinite, and differences
        from it are no numbers. Any other pivot gives the same in the end.
        """
        end = -1 if is_nonnegative(pivot) else self._end(pivot)
        if end is None:
            return value
        operation = arith.MaximumfOp if end < 0 else arith.MinimumfOp
        return real(self.writer.terms, operation, value, self.start(pivot))

    # Regions.

    def _region(
        self,
        arguments: Sequence[tuple[str, Attribute]],
        emit: Callable[[CascadeWriter, Sequence[SSAValue]], list[SSAValue]],
    ) -> Region:
        block = Block(arg_types=[type_ for _, type_ in arguments])
        for arg, (name, _) in zip(block.args, arguments, strict=True):
            arg.name_hint = name
        inner = self.writer.within(block)
        inner.builder.insert(YieldOp(*emit(inner, block.args)))
        return Region(block)

    def _data(self, data: Sequence[Term]):
        def emit(inner: CascadeWriter, args: Sequence[SSAValue]) -> list[SSAValue]:
            inner.known[inner.terms.index(self.index)] = args[0]
            return [inner.inner(self.index, term) for term in data]

        return emit

    def _arguments(self, group: Group) -> list[tuple[str, Attribute]]:
        return [
            *(("r", pivot.type) for pivot in group.pivots),
            *(("a", self.type_of(fold)) for fold in self.accumulators(group)),
        ]

    def _part(self, group: Group, data: Sequence[Term]) -> Region:
        arguments = [
            ("p", INDEX),
            *(("x", term.type) for term in data),
            *(("r", pivot.type) for pivot in group.pivots),
        ]

        def emit(inner: CascadeWriter, args: Sequence[SSAValue]) -> list[SSAValue]:
            names = [inner.terms.index(self.index), *data, *group.pivots]
            inner.known.update(zip(names, args, strict=True))
            return [
                self._cells(
                    inner, fold, lambda w, fold=fold: w.write(self.bodies[fold])
                )
                for fold in self.accumulators(group)
            ]

        return self._region(arguments, emit)

    def _cells(
        self,
        inner: CascadeWriter,
        fold: Term,
        emit: Callable[[CascadeWriter], SSAValue],
    ) -> SSAValue:
        """A value for each cell of an accumulator: an array over its axes."""
        axes = self.axes.of(fold)
        if not axes:
            return emit(inner)
        block = Block(arg_types=[INDEX] * len(axes))
        cell = inner.within(block)
        for axis, arg in zip(axes, block.args, strict=True):
            arg.name_hint = "l"
            cell.known[inner.terms.index(axis)] = arg
        cell.builder.insert(YieldOp(emit(cell)))
        extents = [inner.write(self.axes.extents[axis]) for axis in axes]
        type_ = self.type_of(fold)
        assert isa(type_, TensorType)
        op = ComprehensionOp(extents, Region(block), [type_])
        return inner.builder.insert(op).arrays[0]

    def _bind(
        self,
        inner: CascadeWriter,
        folds: Sequence[Term],
        args: Sequence[SSAValue],
    ) -> None:
        """Let accumulators be the arguments of a region."""
        for fold, arg in zip(folds, args, strict=True):
            if axes := self.axes.of(fold):
                inner.arrays[fold] = arg, axes
            else:
                inner.known[fold] = arg

    def _pivot(self, group: Group, before: Sequence[Group]) -> Region:
        arguments = [("count", INDEX)]
        for earlier in (*before, group):
            arguments += self._arguments(earlier)

        def emit(inner: CascadeWriter, args: Sequence[SSAValue]) -> list[SSAValue]:
            terms = inner.terms
            count = terms.value(args[0])
            position = 1
            current: dict[Term, SSAValue] = {}
            known: dict[Term, Term] = {}
            bound: set[Term] = set()
            for earlier in (*before, group):
                for pivot in earlier.pivots:
                    if earlier is not group or pivot not in current:
                        current[pivot] = args[position]
                    position += 1
                for fold in self.accumulators(earlier):
                    # Two groups may have it: here it is the one that moved already.
                    if fold not in bound:
                        self._bind(inner, [fold], [args[position]])
                    bound.add(fold)
                    position += 1
                for pivot, (of, distances) in earlier.means.items():
                    so_far = as_float(terms, count, pivot)
                    mean = terms.value(current[pivot])
                    known[of] = self._sum(so_far, mean, distances)
            settled = {pivot for earlier in before for pivot in earlier.pivots}
            values: list[SSAValue] = []
            for pivot in group.pivots:
                if pivot in settled:
                    values.append(current[pivot])
                elif pivot in group.means:
                    _, distances = group.means[pivot]
                    so_far = as_float(terms, count, pivot)
                    step = real(terms, arith.DivfOp, distances, so_far)
                    old = terms.value(current[pivot])
                    values.append(inner.write(real(terms, arith.AddfOp, old, step)))
                else:
                    value = terms.replace(pivot, known)
                    values.append(inner.write(self._clamped(pivot, value)))
            return values

        return self._region(arguments, emit)

    def _move(self, group: Group) -> Region:
        arguments = [
            ("count", INDEX),
            *(("old", pivot.type) for pivot in group.pivots),
            *(("new", pivot.type) for pivot in group.pivots),
            *(("a", self.type_of(fold)) for fold in self.accumulators(group)),
        ]

        def emit(inner: CascadeWriter, args: Sequence[SSAValue]) -> list[SSAValue]:
            terms = inner.terms
            pivots = len(group.pivots)
            known = dict(group.parameters)
            for number, pivot in enumerate(group.pivots):
                pair = group.symbols[pivot]
                known[pair.old] = terms.value(args[1 + number])
                known[pair.new] = terms.value(args[1 + pivots + number])
            folds = self.accumulators(group)
            self._bind(inner, folds, args[1 + 2 * pivots :])
            return [
                self._cells(
                    inner,
                    fold,
                    lambda w, fold=fold: w.write(
                        self._moved(group, fold, terms.value(args[0]), known)
                    ),
                )
                for fold in folds
            ]

        return self._region(arguments, emit)

    def _moved(
        self, group: Group, fold: Term, count: Term, known: dict[Any, Term]
    ) -> Term:
        """The value of an accumulator relative to the new pivots."""
        terms = self.writer.terms
        move = group.moves[fold]
        assert move is not None
        known = {key: _rounded(terms, each, fold) for key, each in known.items()}
        parts: list[Term] = []
        for factor, other in move.factors:
            value = as_float(terms, count, fold) if other is None else other
            value = _rounded(terms, value, fold)
            if factor != 1:
                weight = from_sympy(factor, known, terms, fold.type)
                moved = real(terms, arith.MulfOp, weight, value)
                if other in group.seen and _may_overflow(self.one, group, factor):
                    moved = self._unless_nothing(group, value, moved, known)
                value = moved
            parts.append(value)
        if move.added != 0:
            parts.append(from_sympy(move.added, known, terms, fold.type))
        result = chain(terms, arith.AddfOp, parts)
        assert result is not None
        return result

    def _unless_nothing(
        self, group: Group, value: Term, moved: Term, known: dict[Any, Term]
    ) -> Term:
        """An accumulator of nothing as it is, unless a new pivot is NaN.

        By infinity 0 must not be multiplied. But a sum that is too small for a float
        is 0 as well, and is not kept.
        """
        terms = self.writer.terms
        sums = dict.fromkeys([value, group.seen[value]])
        guards = [
            compare(terms, "oeq", each, terms.number(0.0, each.type)) for each in sums
        ]
        for pivot in group.pivots:
            new = known[group.symbols[pivot].new]
            guards.append(compare(terms, "ord", new, new))
        guard = reduce(lambda a, b: terms.compute(arith.AndIOp, (a, b)), guards)
        return terms.select(guard, value, moved)


def _rounded(terms: Terms, value: Term, like: Term) -> Term:
    """A float in the type of another term: a sum may be wider than its pivots."""
    if value.type == like.type or not (is_real(value) and is_real(like)):
        return value
    widens = value.type.bitwidth < like.type.bitwidth  # pyright: ignore
    operation = arith.ExtFOp if widens else arith.TruncFOp
    return terms.compute(operation, (value,), like.type)


def _may_overflow(one: Pass, group: Group, factor: Expression) -> bool:
    """Whether a factor of a move may be infinite though the fold is not.

    A power of the distance between means is infinite only where distances from the mean
    are. Where there are means, parts are merged relative to the pivots of one of them,
    be they larger or smaller.
    """
    pairs = [group.symbols[pivot] for pivot in group.pivots]
    apart = [group.symbols[p] for p in group.pivots if p not in group.means]
    symbols = [s for pair in pairs for s in (pair.old, pair.new)]
    others = [s for pair in apart for s in (pair.old, pair.new)]
    if factor.is_polynomial(*symbols) and not factor.has(*others):
        return False
    signed = {
        name: sp.Symbol(name.name, nonnegative=True)
        for name, term in group.parameters.items()
        if is_nonnegative(term)
    }
    ways = [0 if group.means else direction_of(pivot, one) for pivot in group.pivots]
    return not is_bounded(factor.subs(signed), pairs, ways)


def _note_what_is_seen(terms: Terms, one: Pass) -> None:
    """Let a pass count what conditions leave in sums whose factors may be infinite.

    As long as that is nothing the sum is 0 and stays so, however far the pivots move.
    """
    for group in one.groups:
        for move in list(group.moves.values()):
            for factor, other in () if move is None else move.factors:
                if (
                    other is None
                    or other in group.seen
                    or not _may_overflow(one, group, factor)
                ):
                    continue
                index, body = terms.open(other)
                present = _presence(terms, other, index, body, one.folds)
                if present is None:
                    continue
                lower, upper = other.args[:2]
                seen = terms.fold(other.function, lower, upper, index, present)
                group.seen[other] = seen
                if seen not in group.moves:
                    itself = Move(((sp.Integer(1), seen),), sp.Integer(0))
                    group.moves[seen] = itself
                    group.rules[seen] = "none"


def _presence(
    terms: Terms, fold: Term, index: str, body: Term, folds: set[Term]
) -> Term | None:
    """1 where no condition makes the body of a sum 0, else 0; None without any."""
    one, zero = terms.number(1.0, fold.type), terms.number(0.0, fold.type)
    present = one
    for condition in conditions(body, index):
        if contains(condition, folds):
            continue
        for holds in (True, False):
            if is_identity(assume(terms, body, condition, not holds), fold.function):
                sides = (present, zero) if holds else (zero, present)
                present = terms.select(condition, *sides)
                break
    # An infinity among the data may leave nothing as well.
    lowest = terms.number(-inf, fold.type)
    for data in _data(body, index, folds):
        without = absorbed(terms, terms.replace(body, {data: lowest}))
        if data.type == fold.type and is_identity(without, fold.function):
            is_there = compare(terms, "une", data, lowest)
            present = terms.select(is_there, present, zero)
    return None if present is one else present


def _data(body: Term, index: str, folds: set[Term]) -> list[Term]:
    """The largest parts of a body of floats that hold no fold of the pass."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if index not in term.free:
            return
        if is_real(term) and not contains(term, folds):
            found[term] = None
            return
        for arg in term.args:
            visit(arg)

    visit(body)
    return list(found)


def _static(extent: Term) -> int | None:
    """The number of an extent, if it is one."""
    owner = extent.kind.owner if isinstance(extent.kind, SSAValue) else None
    return owner.static_value if isinstance(owner, ExtentOp | FixedExtentOp) else None


def _smallest(type_: Attribute) -> float:
    """The smallest number of a float type above 0."""
    return float(ml_dtypes.finfo(dtype_of(type_)).smallest_subnormal)


def _largest(type_: Attribute) -> float:
    """The largest number of a float type."""
    return float(ml_dtypes.finfo(dtype_of(type_)).max)


def is_costly_without(terms: Terms, fold: Term, axes: dict[str, Term]) -> bool:
    """Whether some inner axis of a fold does not enter a costly part of its body."""
    index, body = terms.open(fold)
    inner = fold.free & axes.keys()
    return any(
        index in term.free and not inner <= term.free and is_costly(term)
        for term in walk(body)
    )


def is_costly(term: Term) -> bool:
    """Whether a term is not to be evaluated again and again."""
    return term.is_fold or (
        term.computes("arith.divf", "math.sqrt", "math.rsqrt")
        or any(
            term.computes(op.name)
            for op in (math.ExpOp, math.Exp2Op, math.LogOp, math.TanhOp, math.ErfOp)
        )
    )


def _bounds_use(one: Pass, axes: Iterable[str]) -> bool:
    """Whether the bounds of a pass depend on any of these axes."""
    return not (one.lower.free | one.upper.free).isdisjoint(axes)


def _sunk_axes(body: Body, passes: Sequence[Pass]) -> list[str]:
    """The axes that some fold of a cascade does not use."""
    folds = [f for one in passes if one.is_cascade for f in one.folds]
    return [a for a in body.axes if any(a not in fold.free for fold in folds)]


def _storage_error(
    body: Body, passes: Sequence[Pass], sunk: Sequence[str], apart: set[Term]
) -> str:
    """Why accumulators over these axes cannot be stored; empty if they can.

    They lie in a result that has elements of their type, each in one of its own, or
    are a row, where there are axes around them.

    Args:
        body: the comprehension.
        passes: its passes.
        sunk: the axes.
        apart: gets the folds outside of cascades that are to take them inside, because
            they would evaluate something costly for each index, and can.
    """
    extents = dict(zip(body.axes, body.extents, strict=True))
    axes = _Axes({axis: extents[axis] for axis in sunk})
    outer = set(body.axes) - set(sunk)
    hosts = [element_of(array.type) for array in body.op.arrays]
    folds = [fold for one in passes for fold in one.folds]

    def is_stored(fold: Term) -> bool:
        inner = axes.of(fold)
        if outer and outer.isdisjoint(fold.free):
            return False  # What no axis around it enters does not stay inside of it.
        # A result holds an array for the comprehension, not for another fold.
        is_read = any(fold in set(walk(*other.args)) for other in folds)
        is_in_order = bool(outer) or body.op.order is None
        if inner == list(sunk) and fold.type in hosts and is_in_order and not is_read:
            hosts.remove(fold.type)
            return True
        return bool(outer) and len(inner) == 1

    for one in passes:
        if not one.is_cascade:
            continue
        if _bounds_use(one, sunk):
            return "the bounds of a pass depend on an axis that would move inside"
        for group in one.groups:
            for pivot in group.pivots:
                if pivot.free & set(sunk):
                    return "a pivot depends on an axis that would move inside"
            for fold in group.moves:
                if axes.of(fold) and not is_stored(fold):
                    return "accumulators would be arrays that no result can hold"
    apart.update(
        fold
        for one in passes
        if not one.is_cascade and not _bounds_use(one, sunk)
        for fold in one.folds
        if axes.of(fold)
        and is_costly_without(body.terms, fold, axes.extents)
        and is_stored(fold)
    )
    return ""


def fuse(body: Body, options: Options, explain: Callable[[str], None] | None) -> bool:
    """Fuse the folds of one comprehension; returns whether it was written anew."""
    terms = body.terms
    outputs = body.outputs if options.strict else body.normalized()

    def in_scope(fold: Term) -> bool:
        return not any(name.startswith(("%", "$")) for name in fold.free)

    derivation = Derivation(
        terms, list(outputs), in_scope, options.strict, options.largest_rank
    )
    before = derivation.chain_length()
    derivation.run()
    passes = derivation.passes
    for one in passes:
        _note_what_is_seen(terms, one)
    notes = dict(derivation.notes)
    storage = ""
    sunk = _sunk_axes(body, passes)
    apart: set[Term] = set()
    if sunk and (storage := _storage_error(body, passes, sunk, apart)):
        folds = [f for one in passes if one.is_cascade for f in one.folds]
        cheap = not any(
            is_costly_without(terms, fold, {axis: fold})
            for fold in folds
            for axis in sunk
            if axis in fold.free
        )
        sunk = [axis for axis in sunk if all(axis not in fold.free for fold in folds)]
        if cheap and not _storage_error(body, passes, sunk, apart):
            storage = ""
    if explain is not None:
        _explain(explain, derivation, before, storage, notes)
    if storage or not any(one.is_cascade for one in passes):
        return False
    _write(body, derivation, sunk, apart, options, notes)
    return True


def _explain(
    explain: Callable[[str], None],
    derivation: Derivation,
    before: int,
    storage: str,
    notes: dict[str, None],
) -> None:
    after = before if storage else len(derivation.passes)
    explain(f"passes over the data: {before} before, {after} after")
    if storage:
        explain(f"not fused: {storage}")
        return
    for note in notes:
        explain(note)
    for number, one in enumerate(derivation.passes):
        for group in one.groups:
            for fold in group.moves:
                explain(_line(number, group, fold))
    for reason in derivation.refusals:
        explain(reason)


def _line(number: int, group: Group, fold: Term) -> str:
    name = print_name(fold.function)
    move = group.moves[fold]
    if move is None:
        return f"pass {number}: a fold of {name} without pivot"
    parts = [f"({factor}) {_named(other, fold)}" for factor, other in move.factors]
    if move.added != 0:
        parts.append(f"({move.added})")
    return (
        f"pass {number}: a fold of {name}, {group.rules[fold]}: T = {' + '.join(parts)}"
    )


def _named(other: Term | None, fold: Term) -> str:
    if other is None:
        return "count"
    return "itself" if other is fold else "another"


def _write(
    body: Body,
    derivation: Derivation,
    sunk: Sequence[str],
    apart: set[Term],
    options: Options,
    notes: dict[str, None],
) -> None:
    """Write a comprehension with cascades in place of the one that was read."""
    terms = body.terms
    extents = dict(zip(body.axes, body.extents, strict=True))
    outer = [axis for axis in body.axes if axis not in sunk]
    old = body.op.body.block
    hints = {name: arg.name_hint for name, arg in zip(body.axes, old.args, strict=True)}
    top = CascadeWriter(
        terms, Builder(InsertPoint.before(body.op)), options, notes, None
    )
    axes = _Axes({axis: extents[axis] for axis in sunk}, apart)
    order = body.op.positions(len(body.axes))
    types = [array.type for array in body.op.arrays]

    def enter(
        parent: CascadeWriter, names: Sequence[str]
    ) -> tuple[Block, CascadeWriter]:
        block = Block(arg_types=[INDEX] * len(names))
        inner = parent.within(block)
        for name, arg in zip(names, block.args, strict=True):
            arg.name_hint = hints[name]
            inner.known[terms.index(name)] = arg
        return block, inner

    def leave(
        writer: CascadeWriter,
        block: Block,
        names: Sequence[str],
        values: Sequence[SSAValue],
    ) -> Sequence[SSAValue]:
        """Close a comprehension over the last axes of the results."""
        Builder(InsertPoint.at_end(block)).insert(YieldOp(*values))
        is_whole = len(names) == len(body.axes) or names == outer
        following = [*outer, *sunk] if is_whole else list(names)
        places = [order[body.axes.index(name)] for name in following]
        tensors = [
            as_tensor(
                [None if (e := shape_of(type_)[place]) < 0 else e for place in places],
                element_of(type_),
            )
            for type_ in types
        ]
        final = None
        if is_whole:
            final = None if places == sorted(places) else places
            tensors = types
        op = ComprehensionOp(
            [writer.write(extents[name]) for name in names],
            Region(block),
            tensors,
            final,
        )
        return writer.builder.insert(op).arrays

    writer = top
    block = None
    if outer or not sunk:
        block, writer = enter(top, outer)
    writer.passes(derivation.passes, axes)
    if sunk:
        cells, inner = enter(writer, sunk)
        values = [inner.write(output) for output in derivation.outputs]
        values = leave(writer, cells, sunk, values)
    else:
        values = [writer.write(output) for output in derivation.outputs]
    if block is not None:
        values = leave(top, block, outer, values)
    for array, value in zip(body.op.arrays, values, strict=True):
        array.replace_all_uses_with(value)
    Rewriter.erase_op(body.op)


def fuse_reductions(
    function: FuncOp, options: Options, explain: Callable[[str], None] | None = None
) -> None:
    """Fuse the folds in one function's comprehensions."""
    before = function.clone()
    changed = False
    for op in comprehensions(function):
        try:
            body = read_body(op, function)
        except NotATerm as reason:
            if explain is not None:
                explain(f"not looked into: it holds {reason}")
            continue
        changed |= fuse(body, options, explain)
    if not changed:
        return
    tidy(function)
    nominal = options.deterministic
    apart, together = work_sunk(before, nominal), work_sunk(function, nominal)
    if together > _MOST_WORK * apart:
        if explain is not None:
            explain(
                f"undone: fewer passes, but more work in all: {together} for {apart}"
            )
        function.detach_region(function.body).drop_all_references()
        function.add_region(before.detach_region(before.body))


def work_sunk(function: FuncOp, nominal: bool = False) -> int:
    """The work of a function once `moa-sink` has been at it, roughly.

    With `nominal` as if the extents of its results were not known. Folds count as long:
    whether they share a pass, which shows where data are infinite, is not to depend on
    how short they are.
    """
    copy = function.clone()
    sink_axes(copy, nominal)
    least = NOMINAL_EXTENT
    return sum(weight(op, nominal, least) for op in copy.body.block.ops)


@dataclass(frozen=True)
class FuseReductionsPass(ModulePass):
    """Fuses folds over the same indices, dependent ones too, into one pass.

    With `strict` only folds that do not depend on each other share a pass, and every
    fold keeps its value bit by bit. `chunk` is how many indices are accumulated before
    accumulators move. `explain` prints what was found for each fold.

    With `certify` each cascade says why its accumulators may move (the attribute
    `moa.certificate`), as `moa-verify` finds it again: that C1 and C2 were proved, and
    how, or why they are not.

    With `deterministic` what is fused does not depend on the extents of results:
    whether fewer passes are worth their work is told as if these were not known.

    `emit=merge` adds functions by which the results of parts of the folded axis are put
    together, for each function f, which must have one cascade then: `@f.state` takes
    the arguments of f, those along the folded axis in part, and gives the state of the
    part; `@f.merge` makes one state of two, `@f.identity` that of no index, and
    `@f.finish` the results of f, from a state and those arguments it still needs. See
    [Fusion](fusion.md).
    """

    name = "moa-fuse-reductions"

    strict: bool = False
    chunk: int | None = None
    largest_rank: int = 6
    explain: bool = False
    certify: bool = False
    deterministic: bool = False
    emit: str | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise CompileError(
                f"moa-fuse-reductions: a chunk has at least one index, got {self.chunk}"
            )
        if self.emit not in (None, "merge"):
            raise CompileError(
                f"moa-fuse-reductions: unknown functions to emit: expected merge, "
                f"got {self.emit}"
            )
        options = Options(
            self.strict, self.chunk, self.largest_rank, self.deterministic
        )
        for function in functions_of(op):
            if self.explain:
                print(f"// moa-fuse-reductions @{function.sym_name.data}")
            fuse_reductions(function, options, _print_line if self.explain else None)
            said: dict[str, Attribute] = {}
            if self.certify:
                from moa_dialect.passes.verify_cascades import certify_cascades

                said["cascades"] = certify_cascades(function)
            record(function, replace(self, explain=False, emit=None), said)
        if self.emit is None:
            return
        for function in functions_of(op):
            if function.sym_visibility != StringAttr("private"):
                for part in reversed(emit_parts(function)):
                    Rewriter.insert_op(part, InsertPoint.after(function))


def _print_line(line: str) -> None:
    print(f"//   {line}")
