"""Comprehensions read as kernels: passes over folded axes, then outputs, as terms.

A kernel is what a comprehension at the top of a function computes for each index of its
axes: first the passes of its cascades and of its folds of arrays, which leave
accumulators and pivots, then the elements of its results. Everything is a term, so that
what runs where, and in what, may be decided freely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, IntegerAttr, StringAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.ops.function import FunctionAttr, has_identity, print_name
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    body_of,
    cell_element,
)
from moa_dialect.passes.rebuild import LONGEST_CHAIN, longest_chain
from moa_dialect.passes.terms import (
    Computed,
    Folded,
    Held,
    NotATerm,
    Reader,
    Term,
    Terms,
    walk,
)
from moa_dialect.passes.work import COSTLY, NOMINAL_EXTENT
from moa_dialect.types import element_of

SCHEDULE = "moa.schedule"
"""The attribute of a comprehension that says how it runs."""

OTHER_SCHEDULE = "moa.other_schedule"
"""The attribute that says how it runs if there is no code for its schedule."""

BY_HAND = "moa.by_hand"
"""The attribute of a comprehension whose schedule was given, not chosen."""

FEW_SCHEDULE = "moa.few_schedule"
"""The attribute that says how it runs with few rows, if types do not give how many, and
with columns enough for the pieces of that schedule."""

FEW_ROWS = "moa.few_rows"
"""The attribute that says up to how many rows are few."""

FOLDED = "p"
"""What folded axes are called in the text of schedules; so no other axis is."""

AFTER = Held("count", "after")
"""How many indices are accounted for, those that are being added included."""

BEFORE = Held("count", "before")
"""How many indices were accounted for before those that are being added."""


@dataclass
class Accumulator:
    """What a pass accumulates: a scalar, or an array over row axes.

    Attributes:
        name: its name among what the kernel holds.
        function: the name of the scalar operation it folds with.
        axes: the row axes.
        type: the element type.
        part: what an index contributes, in terms of the new pivots.
        move: what it becomes when the pivots change; None in a group without.
    """

    name: str
    function: str
    axes: tuple[str, ...]
    type: Attribute
    part: Term
    move: Term | None = None


@dataclass
class Pivot:
    """A value that accumulators are relative to: its start, and how it changes."""

    name: str
    type: Attribute
    start: Term
    value: Term


@dataclass
class Group:
    """Accumulators that share their pivots."""

    accumulators: list[Accumulator]
    pivots: list[Pivot]


@dataclass
class Pass:
    """One pass over the indices `lower <= index < upper` of a folded axis."""

    index: str
    hint: str
    lower: Term
    upper: Term
    groups: list[Group]

    @property
    def bounds(self) -> tuple[Term, Term]:
        """The first index, and one more than the last."""
        return self.lower, self.upper

    @property
    def accumulators(self) -> list[Accumulator]:
        """All accumulators, group by group."""
        return [a for group in self.groups for a in group.accumulators]

    @property
    def pivots(self) -> list[Pivot]:
        """All pivots, group by group."""
        return [r for group in self.groups for r in group.pivots]


@dataclass
class Output:
    """What the elements of a result are, in terms of the kernel's and the row axes.

    Attributes:
        number: the number of the result.
        axes: the row axes that it has.
        value: its elements.
        is_shared: whether it lacks the row axis that is the kernel's, if one is.
    """

    number: int
    axes: tuple[str, ...]
    value: Term
    is_shared: bool = False


@dataclass
class Kernel:
    """A comprehension as a kernel.

    Attributes:
        op: the comprehension.
        terms: where its terms are made.
        axes: the names of its axes' indices.
        extents: for each axis, and for each row axis, its extent.
        hints: for each axis the name it has in the text.
        passes: the passes, in the order in which they must run.
        outputs: the results.
        origins: for an axis made of others the one along which results go, and how many
            of its indices one of the axis is.
        lifted: the row axis that is one of the kernel's; or empty.
    """

    op: ComprehensionOp
    terms: Terms
    axes: list[str]
    extents: dict[str, SSAValue]
    hints: dict[str, str]
    passes: list[Pass] = field(default_factory=list[Pass])
    outputs: list[Output] = field(default_factory=list[Output])
    origins: dict[str, tuple[str, int]] = field(
        default_factory=dict[str, tuple[str, int]]
    )
    lifted: str = ""

    def named(self, hint: str) -> str:
        """The axis that has a name in the text; empty if there is none."""
        return next((axis for axis in self.axes if self.hints[axis] == hint), "")

    def copy(self) -> Kernel:
        """The same kernel, whose folds may become passes without changing this one."""
        return replace(
            self,
            passes=list(self.passes),
            outputs=[replace(output) for output in self.outputs],
        )


def read_kernel(op: ComprehensionOp, function: FuncOp) -> Kernel:
    """Read a comprehension at the top of a function.

    Raises:
        NotATerm: if it holds what a kernel cannot, with the reason.
    """
    if longest_chain(op) > LONGEST_CHAIN:
        raise NotATerm(f"a chain of more than {LONGEST_CHAIN} operations")
    return _KernelReader(op, function).read_kernel()


class _KernelReader(Reader):
    """Reads a comprehension whose arrays are rows, as terms of their elements."""

    def __init__(self, op: ComprehensionOp, function: FuncOp):
        super().__init__(Terms(), function.body.block)
        block = op.body.block
        axes = [f"#{number}" for number in range(len(block.args))]
        hints: dict[str, str] = {}
        for number, (name, arg) in enumerate(zip(axes, block.args, strict=True)):
            hint = arg.name_hint or "i"
            is_free = hint != FOLDED and hint not in hints.values()
            hints[name] = hint if is_free else f"{hint}_{number}"
        extents = dict(zip(axes, op.extents, strict=True))
        self.kernel = Kernel(op, self.terms, axes, extents, hints)
        for arg, name in zip(block.args, axes, strict=True):
            self.bind(arg, name)
        self.inner = op.body
        self.rows: dict[SSAValue, tuple[tuple[str, ...], Term]] = {}
        self.held: dict[SSAValue, Held] = {}
        self.count = 0

    def read_kernel(self) -> Kernel:
        """Read the whole comprehension."""
        kernel = self.kernel
        _, terminator = body_of(kernel.op.body)
        for number, value in enumerate(terminator.values):
            if isa(value.type, TensorType):
                axes, term = self.row(value)
            else:
                axes, term = (), self.read(value)
            kernel.outputs.append(Output(number, axes, term))
        return kernel

    # Rows: arrays that are made within the comprehension.

    def row_axes(self, extents: Sequence[SSAValue], hints: Sequence[str | None]):
        """Names for row axes: equal extents in the same place have equal names."""
        names: list[str] = []
        for extent, hint in zip(extents, hints, strict=True):
            number = sum(self.kernel.extents[name] is extent for name in names)
            known = [
                name
                for name, other in self.kernel.extents.items()
                if other is extent and name.startswith("@")
            ]
            if number < len(known):
                names.append(known[number])
                continue
            name = f"@{len(self.kernel.extents)}"
            self.kernel.extents[name] = extent
            self.kernel.hints[name] = hint or "l"
            names.append(name)
        return tuple(names)

    def row(self, value: SSAValue) -> tuple[tuple[str, ...], Term]:
        """The row axes of an array, and its element as a term of their indices."""
        if value not in self.rows:
            self.rows[value] = self._row(value)
        return self.rows[value]

    def _row(self, value: SSAValue) -> tuple[tuple[str, ...], Term]:
        owner = value.owner
        if isinstance(owner, CascadeOp):
            self.cascade(owner)
            return self.rows[value]
        if isinstance(owner, FoldOp):
            self.array_fold(owner)
            return self.rows[value]
        if not isinstance(owner, ComprehensionOp) or owner.order is not None:
            raise NotATerm("an array that is no comprehension in the order of its axes")
        assert isinstance(value, OpResult)
        block, terminator = body_of(owner.body)
        hints = [arg.name_hint for arg in block.args]
        names = self.row_axes(owner.extents, hints)
        for arg, name in zip(block.args, names, strict=True):
            self.bind(arg, name)
        cell = terminator.values[value.index]
        if not isa(cell.type, TensorType):
            return names, self.read(cell)
        inner, term = self.row(cell)
        return (*names, *inner), term

    def _read(self, value: SSAValue) -> Term:
        owner = value.owner
        if value in self.held:
            return self.terms.held(self.held[value], (), value.type)
        if isinstance(owner, CascadeOp):
            self.cascade(owner)
            return self.read(value)
        if isinstance(owner, AtOp) and self._is_local(owner.array):
            indices = [self.read(index) for index in owner.indices]
            if owner.array in self.held:
                held = self.held[owner.array]
                return self.terms.held(held, indices, value.type)
            axes, term = self.row(owner.array)
            names = dict(zip(axes, indices, strict=True))
            return self.terms.substitute(term, names)
        return super()._read(value)

    def _is_local(self, value: SSAValue) -> bool:
        """Whether a value is made within the comprehension."""
        owner = value.owner
        block = owner if isinstance(owner, Block) else owner.parent
        region = None if block is None else block.parent
        while region is not None:
            if region is self.inner:
                return True
            region = _parent_region(region)
        return False

    # Passes.

    def array_fold(self, op: FoldOp) -> None:
        """Read a fold of arrays as a pass with one accumulator."""
        if op.initial is not None or op.domain is not None:
            raise NotATerm("a fold from a given start, or with a domain")
        self._expect_outside(op)
        block, terminator = body_of(op.body)
        number = self._number()
        index, hint = self._index(block, number)
        lower, upper = self.read(op.lower), self.read(op.upper)
        axes, part = self.row(terminator.values[0])
        name = f"a{number}.0"
        type_ = element_of(op.result.type)
        function = _named(op.function)
        accumulator = Accumulator(name, function, axes, type_, part)
        group = Group([accumulator], [])
        self.kernel.passes.append(Pass(index, hint, lower, upper, [group]))
        self.rows[op.result] = (axes, self._final(name, axes, type_))

    def cascade(self, op: CascadeOp) -> None:
        """Read a cascade as a pass."""
        self._expect_outside(op)
        if any(isa(r.type, TensorType) for r in op.pivots):
            raise NotATerm("a pivot that is an array")
        block, terminator = body_of(op.data)
        number = self._number()
        index, hint = self._index(block, number)
        lower, upper = self.read(op.lower), self.read(op.upper)
        place = Pass(index, hint, lower, upper, [])
        views = op.views()
        names = {
            result: f"{letter}{number}.{k}"
            for letter, results in (("a", op.accumulators), ("r", op.pivots))
            for k, result in enumerate(results)
        }
        data = [self.read(value) for value in terminator.values]
        for k, view in enumerate(views):
            place.groups.append(
                self._group(view, names, views[:k], block.args[0], data, index)
            )
        self.kernel.passes.append(place)
        for result, accumulator in zip(
            op.accumulators, place.accumulators, strict=True
        ):
            name, axes, type_ = accumulator.name, accumulator.axes, accumulator.type
            final = self._final(name, axes, type_)
            if axes:
                self.rows[result] = (axes, final)
            else:
                self.known[result] = final
        for result in op.pivots:
            final = self.terms.held(Held(names[result], "final"), (), result.type)
            self.known[result] = final

    def _group(
        self,
        view: CascadeView,
        names: dict[OpResult, str],
        before: Sequence[CascadeView],
        index: SSAValue,
        data: Sequence[Term],
        index_name: str,
    ) -> Group:
        block, terminator = body_of(view.part)
        self.bind(block.args[0], index_name)
        for arg, term in zip(block.args[1:], data, strict=False):
            self.known[arg] = term
        pivots = list(view.pivots)
        for arg, result in zip(block.args[1 + len(data) :], pivots, strict=True):
            self.held[arg] = Held(names[result], "new")
        accumulators: list[Accumulator] = []
        for function, result, value in zip(
            view.functions, view.accumulators, terminator.values, strict=True
        ):
            if isa(value.type, TensorType):
                axes, part = self.row(value)
            else:
                axes, part = (), self.read(value)
            accumulators.append(
                Accumulator(
                    names[result],
                    _named(function),
                    axes,
                    cell_element(result.type),
                    part,
                )
            )
        group = Group(accumulators, [])
        if view.pivot is None or view.move is None:
            return group
        block, terminator = body_of(view.pivot)
        versions = [
            *(("new", r) for v in before for r in (*v.pivots, *v.accumulators)),
            *(("old", r) for r in view.pivots),
            *(("peek", r) for r in view.accumulators),
        ]
        self._hold(block.args[0], AFTER)
        for arg, (version, result) in zip(block.args[1:], versions, strict=True):
            self._hold(arg, Held(names[result], version))
        for result, start, value in zip(
            view.pivots, view.starts, terminator.values, strict=True
        ):
            group.pivots.append(
                Pivot(names[result], result.type, self.read(start), self.read(value))
            )
        block, terminator = body_of(view.move)
        self._hold(block.args[0], BEFORE)
        rest = [("new", r) for r in view.pivots]
        versions = [("old", r) for r in view.pivots] + rest
        versions += [("old", r) for r in view.accumulators]
        for arg, (version, result) in zip(block.args[1:], versions, strict=True):
            self._hold(arg, Held(names[result], version))
        for accumulator, value in zip(accumulators, terminator.values, strict=True):
            accumulator.move = self._moved(accumulator, value)
        return group

    def _moved(self, accumulator: Accumulator, value: SSAValue) -> Term:
        """What a move yields for an accumulator, over its row axes."""
        if not accumulator.axes:
            return self.read(value)
        if value in self.held:
            indices = [self.terms.index(axis) for axis in accumulator.axes]
            return self.terms.held(self.held[value], indices, accumulator.type)
        axes, term = self.row(value)
        if axes != accumulator.axes:
            raise NotATerm("a move over other extents than the part's")
        return term

    def _hold(self, value: SSAValue, held: Held) -> None:
        self.held[value] = held

    def _final(self, name: str, axes: Sequence[str], type_: Attribute) -> Term:
        indices = [self.terms.index(axis) for axis in axes]
        return self.terms.held(Held(name, "final"), indices, type_)

    def _number(self) -> int:
        """A number for a pass; passes that it needs are read later, and get others."""
        self.count += 1
        return self.count - 1

    def _index(self, block: Block, number: int) -> tuple[str, str]:
        """The name of a pass's index."""
        name = f"p{number}"
        self.bind(block.args[0], name)
        return name, block.args[0].name_hint or "p"

    def _expect_outside(self, op: Operation) -> None:
        """A pass runs before the elements of rows are computed."""
        if op.parent is not self.inner.block:
            raise NotATerm(f"{op.name} for each element of a row")


def _parent_region(region: Region) -> Region | None:
    op = region.parent
    return None if op is None else op.parent_region()


def _named(function: FunctionAttr) -> str:
    """The name of a function that may be folded in any order."""
    if not isinstance(function, StringAttr) or not has_identity(function):
        raise NotATerm(f"a fold with {print_name(function)}")
    return function.data


_ARITHMETIC: dict[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: int.__add__,
    arith.SubiOp: int.__sub__,
    arith.MuliOp: int.__mul__,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
}
"""Operations on extents, as on those of a catenation, whose results are numbers too."""


def static_extent(value: SSAValue) -> int | None:
    """An extent as a number, None if types do not give it."""
    owner = value.owner
    if isinstance(owner, ExtentOp | FixedExtentOp):
        return owner.static_value
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    if type(owner) not in _ARITHMETIC:
        return None
    assert isinstance(owner, Operation)
    left, right = map(static_extent, owner.operands)
    if left is None or right is None:
        return None
    return _ARITHMETIC[type(owner)](left, right)


def known_number(term: Term) -> int | None:
    """An index or extent as a number, None if types do not give it."""
    if term.number is not None:
        return int(term.number)
    if isinstance(term.kind, SSAValue):
        return static_extent(term.kind)
    if not isinstance(term.kind, Computed) or term.kind.operation not in _ARITHMETIC:
        return None
    left, right = map(known_number, term.args)
    if left is None or right is None:
        return None
    return _ARITHMETIC[term.kind.operation](left, right)


def is_multiple(term: Term, number: int) -> bool:
    """Whether an index is a multiple of a number, as far as its factors tell."""
    if (known := known_number(term)) is not None:
        return known % number == 0
    if term.computes("arith.muli"):
        return any(is_multiple(arg, number) for arg in term.args)
    if term.computes("arith.addi", "arith.subi", "arith.minsi", "arith.maxsi"):
        return all(is_multiple(arg, number) for arg in term.args)
    return False


def length_of(pass_: Pass) -> int | None:
    """How many indices a pass has at most, None if types do not give it."""

    def length(upper: Term) -> int | None:
        if upper.computes("arith.minsi"):
            found = [n for arg in upper.args if (n := length(arg)) is not None]
            return min(found, default=None)
        if upper.computes("arith.addi") and pass_.lower in upper.args:
            rest = upper.args[1 - upper.args.index(pass_.lower)]
            return None if rest.number is None else int(rest.number)
        return known_number(upper)

    return length(pass_.upper)


def work_of(kernel: Kernel) -> int:
    """How much work one index of all axes is, about, in additions."""

    def extent(axis: str) -> int:
        found = static_extent(kernel.extents[axis])
        return NOMINAL_EXTENT if found is None else found

    def rows(axes: Sequence[str]) -> int:
        return prod(map(extent, axes))

    total = 0
    for pass_ in kernel.passes:
        each = sum(rows(a.axes) + _additions(a.part) for a in pass_.accumulators)
        length = length_of(pass_)
        total += (NOMINAL_EXTENT if length is None else length) * each
    for output in kernel.outputs:
        total += rows(output.axes) * _additions(output.value)
    return total


def _additions(*terms: Term) -> int:
    """How much work terms are, about; a fold as often as it has indices."""
    total = 0
    seen: set[Term] = set()
    pending = list(terms)
    while pending:
        term = pending.pop()
        if term in seen or not term.args:
            continue
        seen.add(term)
        if isinstance(term.kind, Folded):
            lower, upper = map(known_number, term.args[:2])
            length = NOMINAL_EXTENT
            if lower is not None and upper is not None:
                length = max(upper - lower, 0)
            total += length * (1 + _additions(term.args[2]))
            continue
        name = term.kind.name if isinstance(term.kind, Computed) else ""
        is_costly = name == "arith.divf" or name.startswith("math.")
        total += COSTLY if is_costly else 1
        pending += term.args
    return total


def all_terms(kernel: Kernel) -> list[Term]:
    """The terms of a kernel, operands first."""
    found = [term for pass_ in kernel.passes for term in _pass_terms(pass_)]
    found += [output.value for output in kernel.outputs]
    return list(walk(*found))


def _pass_terms(pass_: Pass) -> list[Term]:
    """The terms a pass is made of."""
    found = [pass_.lower, pass_.upper]
    for accumulator in pass_.accumulators:
        found.append(accumulator.part)
        if accumulator.move is not None:
            found.append(accumulator.move)
    return found + [term for r in pass_.pivots for term in (r.start, r.value)]


def split_folds(kernel: Kernel, rows: Sequence[str] = ()) -> None:
    """Let the folds in outputs that need no row axis be passes of their own.

    Those over the same range that do not need each other share a pass.

    Args:
        kernel: the kernel.
        rows: axes of the kernel over which what is accumulated is an array.
    """
    terms = kernel.terms
    made: dict[Term, Term] = {}
    started = len(kernel.passes)
    for term in list(walk(*(output.value for output in kernel.outputs))):
        if not term.is_fold or any(name[0] in "%@" for name in term.free):
            continue
        if not isinstance(term.function, StringAttr) or not has_identity(term.function):
            continue
        wanted = terms.replace(term, made)
        lower, upper = wanted.args[:2]
        if (lower.free | upper.free) & set(rows):
            continue  # Its range differs between the elements of a row.
        # Not before any of the passes that it needs.
        first = started
        for number, place in enumerate(kernel.passes):
            if _reads(wanted, place):
                first = max(first, number + 1)
        shared = next(
            (
                place
                for place in kernel.passes[first:]
                if (place.lower, place.upper) == (lower, upper)
            ),
            None,
        )
        if shared is None:
            name = f"f{len(kernel.passes)}"
            shared = Pass(name, "p", lower, upper, [Group([], [])])
            kernel.passes.append(shared)
        number = kernel.passes.index(shared)
        _, part = terms.open(wanted, shared.index)
        group = shared.groups[0]
        name = f"a{number}.{len(group.accumulators)}"
        function = _named(term.function)
        axes = tuple(axis for axis in rows if axis in term.free)
        group.accumulators.append(Accumulator(name, function, axes, term.type, part))
        indices = [terms.index(axis) for axis in axes]
        made[term] = terms.held(Held(name, "final"), indices, term.type)
    for output in kernel.outputs:
        output.value = terms.replace(output.value, made)


def _reads(term: Term, place: Pass) -> bool:
    """Whether a term needs what a pass gives."""
    names = {a.name for a in place.accumulators}
    return any(
        isinstance(inner.kind, Held) and inner.kind.name in names
        for inner in walk(term)
    )


_SELECT = "arith.select"


def is_strict(term: Term, in_: Term) -> bool:
    """Whether a term is NaN whenever another one is, by how it is computed."""
    if term is in_:
        return True
    if term.computes(_SELECT):
        return all(is_strict(arg, in_) for arg in term.args[1:])
    if not isinstance(term.kind, Computed) or not isinstance(term.type, AnyFloat):
        return False
    name = term.kind.name
    if not name.startswith(("arith.", "math.")) or name in _LENIENT:
        return False
    return any(is_strict(arg, in_) for arg in term.args)


_LENIENT = ("arith.maxnumf", "arith.minnumf", "math.powf", "arith.bitcast")
"""Operations on floats that may give a number where an operand is NaN."""


def ignores_nan(kernel: Kernel, pass_: Pass, accumulator: Accumulator) -> bool:
    """Whether a maximum or minimum may leave out elements that are NaN.

    It may where each output that needs the pass is NaN all the same: by a sum over
    values each of which is NaN where the element is.
    """
    if accumulator.function not in ("max", "min") or accumulator.axes:
        return False
    terms = kernel.terms
    witnesses: list[Term] = []
    for a in pass_.accumulators:
        indices = [terms.index(axis) for axis in a.axes]
        old = terms.held(Held(a.name, "old"), indices, a.type)
        if (
            a.function == "add"
            and is_strict(a.part, accumulator.part)
            and (a.move is None or is_strict(a.move, old))
        ):
            witnesses.append(terms.held(Held(a.name, "final"), indices, a.type))
    names = {state.name for state in (*pass_.accumulators, *pass_.pivots)}
    later = kernel.passes[kernel.passes.index(pass_) + 1 :]
    if any(_names(term) & names for other in later for term in _pass_terms(other)):
        return False
    return all(
        any(is_strict(output.value, witness) for witness in witnesses)
        for output in kernel.outputs
        if _names(output.value) & names
    )


def _names(term: Term) -> set[str]:
    return {t.kind.name for t in walk(term) if isinstance(t.kind, Held)}
