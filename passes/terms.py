"""Scalar expressions of the normal forms as terms: immutable, equal ones identical.

A term is what a value in the body of a comprehension or fold is computed by. Equal
terms are one object, and folds are equal up to the names of their indices: a fold binds
a name that is made from the number of folds in each other in its body. So sharing needs
no pass, and whether a term depends on an index is a look at its free names.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    AffineSetAttr,
    AnyFloat,
    BFloat16Type,
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    TensorType,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.traits import is_side_effect_free
from xdsl.utils.hints import isa

from moa_dialect.ops.function import FunctionAttr
from moa_dialect.ops.normal_form import FoldOp, YieldOp, body_of
from moa_dialect.passes.share import may_move
from moa_dialect.scalar_code import constant

INDEX = IndexType()


class NotATerm(Exception):
    """A value is not computed by scalar operations, folds and choices alone."""


@dataclass(frozen=True)
class Computed:
    """How an operation makes its result from operands: its class and properties."""

    operation: type[Operation]
    properties: tuple[tuple[str, Attribute], ...]

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name


@dataclass(frozen=True)
class Folded:
    """The function of a fold and the name that its body has for the index."""

    function: FunctionAttr
    index: str


@dataclass(frozen=True)
class Choice:
    """A choice of which only one side is evaluated (`scf.if`)."""


@dataclass(frozen=True)
class Chosen:
    """An element of one of two arrays, whichever a condition says; only it is read.

    The operands are the condition and two loads, each of which may be chosen itself, or
    be nowhere.
    """


@dataclass(frozen=True)
class Nowhere:
    """What is chosen where nothing is read: any value."""


@dataclass(frozen=True)
class Held:
    """An element of what is held while a kernel runs: an accumulator, a pivot, a tile.

    The operands of the term are the indices. A version tells before from after.
    """

    name: str
    version: str = ""


@dataclass(frozen=True)
class ChunkFold:
    """A fold over the indices that a chunk has; they keep their name."""

    function: str
    index: str


@dataclass(frozen=True)
class InPairs:
    """A factor of a sum of products that takes two indices at a time.

    The operands are the value, of a narrow type, and the index; it is extended.
    """


@dataclass(frozen=True)
class Combination:
    """Two values combined by the function of a fold."""

    function: str


Kind = (
    SSAValue
    | str
    | float
    | int
    | Computed
    | Folded
    | Choice
    | Chosen
    | Nowhere
    | Held
    | ChunkFold
    | InPairs
    | Combination
)
"""A value from outside, the name of an index, a number, or how it is computed."""


@dataclass(frozen=True, eq=False)
class Term:
    """A scalar expression. Make terms with `Terms`, which keeps equal ones identical.

    Attributes:
        kind: what it is; see `Kind`.
        args: its operands. Of a fold: the lower and upper bound, then the body.
        type: its type.
        free: the names of indices it depends on.
        depth: how many folds it nests in each other.
    """

    kind: Kind
    args: tuple[Term, ...]
    type: Attribute
    free: frozenset[str]
    depth: int

    @property
    def is_fold(self) -> bool:
        """Whether it is a fold."""
        return isinstance(self.kind, Folded)

    @property
    def function(self) -> FunctionAttr:
        """The function of a fold."""
        assert isinstance(self.kind, Folded)
        return self.kind.function

    @property
    def number(self) -> float | int | None:
        """Its value if it is a number."""
        return self.kind if isinstance(self.kind, float | int) else None

    def computes(self, *names: str) -> bool:
        """Whether it is the result of an operation with one of these names."""
        return isinstance(self.kind, Computed) and self.kind.name in names


def walk(*terms: Term) -> Iterator[Term]:
    """All terms in these, each once, operands first."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        for arg in term.args:
            if arg not in found:
                visit(arg)
        found[term] = None

    for term in terms:
        if term not in found:
            visit(term)
    return iter(found)


def contains(term: Term, wanted: set[Term] | frozenset[Term]) -> bool:
    """Whether a term has one of the wanted ones in it, itself included."""
    if not wanted:
        return False
    seen, pending = {term}, [term]
    while pending:
        inner = pending.pop()
        if inner in wanted:
            return True
        for arg in inner.args:
            if arg not in seen:
                seen.add(arg)
                pending.append(arg)
    return False


def narrow_factors(term: Term) -> tuple[Term, Term] | None:
    """The factors of a product of two bf16 that are extended to f32, None if none.

    Such a product is exact.
    """
    if not term.computes("arith.mulf") or not isinstance(term.type, Float32Type):
        return None
    found: list[Term] = []
    for factor in term.args:
        if not factor.computes("arith.extf"):
            return None
        (value,) = factor.args
        if not isinstance(value.type, BFloat16Type):
            return None
        found.append(value)
    return found[0], found[1]


class Terms:
    """The terms of one function."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Term] = {}
        self._fresh = count()

    def _make(
        self,
        kind: Kind,
        args: tuple[Term, ...],
        type_: Attribute,
        bound: str | None = None,
    ) -> Term:
        # True == 1 == 1.0 in Python, so numbers are told apart by their spelling.
        key = (repr(kind) if isinstance(kind, float | int) else kind, args, type_)
        if (known := self._known.get(key)) is not None:
            return known
        free = frozenset[str]().union(*(arg.free for arg in args))
        depth = max((arg.depth for arg in args), default=0)
        if isinstance(kind, str):
            free = frozenset((kind,))
        if bound is not None:
            free, depth = free - {bound}, depth + 1
        term = Term(kind, args, type_, free, depth)
        self._known[key] = term
        return term

    def value(self, value: SSAValue) -> Term:
        """A value from outside."""
        return self._make(value, (), value.type)

    def opaque(self, value: SSAValue, args: Sequence[Term]) -> Term:
        """A value that is not looked into, but depends on these terms."""
        return self._make(value, tuple(args), value.type)

    def index(self, name: str) -> Term:
        """An index by its name."""
        return self._make(name, (), INDEX)

    def held(
        self, held: Held, indices: Sequence[Term], type_: Attribute = INDEX
    ) -> Term:
        """An element of what a kernel holds."""
        return self._make(held, tuple(indices), type_)

    def chunk_fold(self, function: str, index: str, body: Term) -> Term:
        """A fold over the indices of a chunk."""
        return self._make(ChunkFold(function, index), (body,), body.type, index)

    def in_pairs(self, value: Term, index: Term, type_: Attribute) -> Term:
        """A factor of a sum of products that takes two indices at a time."""
        return self._make(InPairs(), (value, index), type_)

    def combine(self, function: str, left: Term, right: Term) -> Term:
        """Two values combined by the function of a fold."""
        return self._make(Combination(function), (left, right), left.type)

    def fresh(self) -> str:
        """A name that no index has."""
        return f"${next(self._fresh)}"

    def number(self, value: float, type_: Attribute) -> Term:
        """A number of a type."""
        number = float(value) if isinstance(type_, AnyFloat) else int(value)
        return self._make(number, (), type_)

    def compute(
        self,
        operation: type[Operation],
        args: Sequence[Term],
        type_: Attribute | None = None,
        properties: Mapping[str, Attribute] | None = None,
    ) -> Term:
        """The result of an operation; of its first operand's type if none is given."""
        pairs = tuple(sorted((properties or {}).items(), key=lambda pair: pair[0]))
        kind = Computed(operation, pairs)
        return self._make(kind, tuple(args), args[0].type if type_ is None else type_)

    def choose(self, condition: Term, then: Term, otherwise: Term) -> Term:
        """A choice that evaluates one side only."""
        return self._make(Choice(), (condition, then, otherwise), then.type)

    def chosen(self, condition: Term, then: Term, otherwise: Term) -> Term:
        """One of two loads, of which only that one is made."""
        return self._make(Chosen(), (condition, then, otherwise), then.type)

    def nowhere(self, type_: Attribute) -> Term:
        """What is chosen where nothing is read."""
        return self._make(Nowhere(), (), type_)

    def select(self, condition: Term, then: Term, otherwise: Term) -> Term:
        """A choice between two values."""
        return self.compute(
            arith.SelectOp, (condition, then, otherwise), type_=then.type
        )

    def fold(
        self, function: FunctionAttr, lower: Term, upper: Term, index: str, body: Term
    ) -> Term:
        """A fold of a body, in which the index has this name."""
        name = f"%{body.depth + 1}"
        closed = self.substitute(body, {index: self.index(name)})
        return self._make(
            Folded(function, name), (lower, upper, closed), body.type, name
        )

    def open(self, fold: Term, index: str | None = None) -> tuple[str, Term]:
        """A name for a fold's index, fresh if none is given, and the body with it."""
        assert isinstance(fold.kind, Folded)
        name = self.fresh() if index is None else index
        body = fold.args[2]
        return name, self.substitute(body, {fold.kind.index: self.index(name)})

    def remake(self, term: Term, args: Sequence[Term]) -> Term:
        """The same kind of term with other operands; not for a fold's body."""
        if tuple(args) == term.args:
            return term
        kind = term.kind
        bound = kind.index if isinstance(kind, Folded | ChunkFold) else None
        return self._make(kind, tuple(args), term.type, bound)

    def substitute(self, term: Term, names: Mapping[str, Term]) -> Term:
        """Put terms for free indices. None of them may have the name of a bound one."""
        done: dict[Term, Term] = {}

        def visit(term: Term) -> Term:
            if not term.free & names.keys():
                return term
            if term not in done:
                done[term] = (
                    names[term.kind]
                    if isinstance(term.kind, str)
                    else self.remake(term, [visit(arg) for arg in term.args])
                )
            return done[term]

        return visit(term)

    def rewrite(self, term: Term, rule: Callable[[Term], Term]) -> Term:
        """Apply a rule to every term in this one, operands first, bodies opened."""
        done: dict[Term, Term] = {}

        def visit(term: Term) -> Term:
            if term not in done:
                if term.is_fold:
                    index, body = self.open(term)
                    new = self.fold(
                        term.function,
                        visit(term.args[0]),
                        visit(term.args[1]),
                        index,
                        visit(body),
                    )
                else:
                    new = self.remake(term, [visit(arg) for arg in term.args])
                done[term] = rule(new)
            return done[term]

        return visit(term)

    def replace(self, term: Term, new: Mapping[Term, Term]) -> Term:
        """Put new terms for old ones, the outermost first.

        None of the old ones depends on the index of a fold around it.
        """
        done: dict[Term, Term] = {}

        def visit(term: Term) -> Term:
            if term in new:
                return new[term]
            if not term.args:
                return term
            if term not in done:
                if term.is_fold:
                    index, body = self.open(term)
                    done[term] = self.fold(
                        term.function,
                        visit(term.args[0]),
                        visit(term.args[1]),
                        index,
                        visit(body),
                    )
                else:
                    done[term] = self.remake(term, [visit(arg) for arg in term.args])
            return done[term]

        return visit(term)


@dataclass
class Reader:
    """Reads values of a body as terms.

    Attributes:
        terms: where the terms are made.
        scope: the block around all bodies; values defined there are from outside.
        known: the terms of values that were read, or are given.
    """

    terms: Terms
    scope: Block
    known: dict[SSAValue, Term] = field(default_factory=dict[SSAValue, Term])

    def bind(self, value: SSAValue, name: str) -> None:
        """Let a value be the index of this name."""
        self.known[value] = self.terms.index(name)

    def let(self, value: SSAValue, term: Term) -> None:
        """Let a value be this term."""
        self.known[value] = term

    def read(self, value: SSAValue) -> Term:
        """The term that computes a value.

        Raises:
            NotATerm: if there is none.
        """
        if value not in self.known:
            self.known[value] = self._read(value)
        return self.known[value]

    def _read(self, value: SSAValue) -> Term:
        owner = value.owner
        if isinstance(owner, arith.ConstantOp) and isinstance(
            owner.value, FloatAttr | IntegerAttr
        ):
            return self.terms.number(owner.value.value.data, value.type)
        block = owner if isinstance(owner, Block) else owner.parent
        if block is self.scope and not _is_arithmetic(owner):
            return self.terms.value(value)
        if _is_outside(block, self.scope):
            return self.terms.value(value)
        if isinstance(owner, Block):
            raise NotATerm(f"an argument of {owner.parent_op()}")
        if isinstance(owner, FoldOp):
            return self._fold(owner)
        if isinstance(owner, scf.IfOp) and len(owner.results) == 1:
            sides: list[Term] = []
            for region in owner.regions:
                last = region.block.last_op
                assert last is not None
                sides.append(self.read(last.operands[0]))
            return self.terms.choose(self.read(owner.cond), sides[0], sides[1])
        if (
            owner.regions
            or owner.attributes
            or len(owner.results) != 1
            or not _is_pure(owner)
            or isa(value.type, TensorType)
        ):
            raise NotATerm(owner.name)
        args = [self.read(operand) for operand in owner.operands]
        return self.terms.compute(type(owner), args, value.type, owner.properties)

    def _fold(self, op: FoldOp) -> Term:
        if op.initial is not None or isa(op.result.type, TensorType):
            raise NotATerm("a fold of arrays, or from a given start")
        if isinstance(op.domain, AffineSetAttr):
            raise NotATerm("a fold with a domain")
        block, terminator = body_of(op.body)
        name = self.terms.fresh()
        self.bind(block.args[0], name)
        return self.terms.fold(
            op.function,
            self.read(op.lower),
            self.read(op.upper),
            name,
            self.read(terminator.values[0]),
        )


def _is_pure(op: Operation) -> bool:
    """Whether an operation has no effect; xDSL does not know it of a remainder."""
    return isinstance(op, arith.RemUIOp) or is_side_effect_free(op)


def _is_arithmetic(owner: Operation | Block) -> bool:
    """Whether a value at the top is worth looking into: a fold, or `1 / n`."""
    return isinstance(owner, FoldOp) or (
        isinstance(owner, Operation)
        and owner.name.startswith(("arith.", "math."))
        and may_move(owner)
    )


def _is_outside(block: Block | None, scope: Block) -> bool:
    """Whether a block is not within a scope."""
    while block is not None:
        if block is scope:
            return False
        block = block.parent_block()
    return True


class Writer:
    """Writes terms as code, each once in a scope and the scopes within."""

    def __init__(self, terms: Terms, builder: Builder, parent: Writer | None = None):
        self.terms = terms
        self.builder = builder
        self.parent = parent
        self.known: dict[Term, SSAValue] = {}

    def within(self, block: Block) -> Writer:
        """A writer into a block in a region of an operation that is being built."""
        return Writer(self.terms, Builder(InsertPoint.at_end(block)), self)

    def find(self, term: Term) -> SSAValue | None:
        """The value of a term here, if it has been written."""
        writer: Writer | None = self
        while writer is not None:
            if term in writer.known:
                return writer.known[term]
            writer = writer.parent
        return None

    def write(self, term: Term) -> SSAValue:
        """The value of a term, written if need be."""
        if (value := self.find(term)) is None:
            value = self.known[term] = self._write(term)
        return value

    def fold(self, term: Term) -> SSAValue:
        """Write a fold."""
        bounds = [self.write(arg) for arg in term.args[:2]]
        index, body = self.terms.open(term)
        block = Block(arg_types=[INDEX])
        block.args[0].name_hint = "p"
        inner = self.within(block)
        inner.known[self.terms.index(index)] = block.args[0]
        inner.builder.insert(YieldOp(inner.write(body)))
        op = FoldOp(term.function, bounds[0], bounds[1], Region(block), term.type)
        return self.builder.insert(op).result

    def _write(self, term: Term) -> SSAValue:
        match term.kind:
            case float() | int():
                return self.builder.insert(constant(term.kind, term.type)).result
            case SSAValue():
                return term.kind
            case str():
                raise AssertionError(f"index {term.kind} is not bound here")
            case Computed(operation, properties):
                op = operation.create(
                    operands=[self.write(arg) for arg in term.args],
                    result_types=[term.type],
                    properties=dict(properties),
                )
                return self.builder.insert(op).results[0]
            case Folded():
                return self.fold(term)
            case (
                Held() | ChunkFold() | Combination() | InPairs() | Chosen() | Nowhere()
            ):
                raise AssertionError(f"{term.kind} is of a kernel that runs")
            case Choice():
                condition = self.write(term.args[0])
                regions: list[Region] = []
                for side in term.args[1:]:
                    inner = self.within(block := Block())
                    inner.builder.insert(scf.YieldOp(inner.write(side)))
                    regions.append(Region(block))
                op = scf.IfOp(condition, (term.type,), regions[0], regions[1])
                return cast(SSAValue, self.builder.insert(op).results[0])
