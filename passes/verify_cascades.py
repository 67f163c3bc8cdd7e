"""Certificates of cascades: why the accumulators may move, checked from the text alone.

For a cascade the transport theorem needs, of each accumulator k that pivots change,

- (C1) `move_k(1, r, r', part(x; r)) = part_k(x; r')` for all data x and pivots r, r';
- (C2) `move_k(n + m, a f b) = move_k(n, a) f move_k(m, b)` for its function f, whose
  identity is kept: for add, the move is additive in the count and the accumulators;
  for max and min, it is `q a + c` with q > 0.

And of each pivot that is computed from accumulators of its own group, as a mean is,
that the value aimed at does not depend on the way: it is the same after any move.

All is read off the regions, whatever they come from: the parts and moves as terms,
these as real expressions over symbols for the data (x0, x1...), the pivots (r0, and r0'
after they move), the accumulators (a0, a1...), the count (n) and values that do not
change (c0, c1...); of arrays, cell by cell. Choices by conditions that do not depend on
pivots are proved case by case. See `identities` for what proves the statements.

That a pivot is positive is used where its start is, and its region keeps it so. Parts
and moves must be defined for all pivots: they do not divide by what may be 0.

What is not understood is *unproved*, with the reason. What is wrong is an error, with
numbers for which both sides differ.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

import sympy as sp
from sympy.printing.str import StrPrinter
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.ops.function import print_name
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    body_of,
)
from moa_dialect.passes.identities import (
    BY_SYMPY,
    BY_Z3,
    NotProved,
    Point,
    prove_equal,
    prove_nonnegative,
    prove_nonzero,
    prove_positive,
)
from moa_dialect.passes.means import is_cast_of
from moa_dialect.passes.simplify import factors, predicate_of
from moa_dialect.passes.symbolic import (
    ROUNDED,
    NotReal,
    is_real,
    is_rounding,
    is_truth,
    is_understood,
    to_sympy,
)
from moa_dialect.passes.terms import (
    Choice,
    NotATerm,
    Reader,
    Term,
    Terms,
    contains,
    walk,
)
from moa_dialect.types import shape_of

Expression: TypeAlias = Any
"""An expression of SymPy, whose classes have no types."""

CERTIFICATE = "moa.certificate"
"""The attribute of a cascade that says why its accumulators may move."""

NOTHING = "nothing to prove"
"""What is said of a condition that no pivot enters."""

UNPROVED = "unproved: "
"""What a condition that is not proved is said to be, before the reason."""

_MOST_CONDITIONS = 6
_INDEX = "p"


# What is found


@dataclass(frozen=True)
class Aim:
    """What was found of one pivot, as readable text.

    Attributes:
        pivot: its name.
        value: what it becomes.
        aim: how it was decided that this does not depend on the way.
        identities: the statements that this needed.
    """

    pivot: str
    value: str
    aim: str
    identities: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """What was found of one accumulator, as readable text.

    Attributes:
        accumulator: its name.
        function: the function it folds by.
        rule: what the move is: none, rank one (`q a`), added (`a + c`), affine (both),
            finite rank (it takes other accumulators, or the count), or another.
        part: what it folds.
        T: its move.
        C1: how C1 was decided.
        C2: how C2 was decided.
        identities: the statements that this needed.
    """

    accumulator: str
    function: str
    rule: str
    part: str
    T: str
    C1: str
    C2: str
    identities: tuple[str, ...]


def _to_attribute(of: Aim | Edge) -> DictionaryAttr:
    return DictionaryAttr(
        {
            key: StringAttr(said)
            if isinstance(said, str)
            else ArrayAttr(map(StringAttr, said))
            for key, said in vars(of).items()
        }
    )


@dataclass(frozen=True)
class Finding:
    """What was found of one cascade: of its pivots, and of its accumulators."""

    pivots: tuple[Aim, ...]
    edges: tuple[Edge, ...]

    def to_attribute(self) -> DictionaryAttr:
        """The certificate of the cascade."""
        return DictionaryAttr(
            {
                "pivots": ArrayAttr(map(_to_attribute, self.pivots)),
                "edges": ArrayAttr(map(_to_attribute, self.edges)),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The same for `json.dumps`."""
        return {
            name: [
                {
                    key: said if isinstance(said, str) else list(said)
                    for key, said in vars(each).items()
                }
                for each in entries
            ]
            for name, entries in vars(self).items()
        }


def unproved_conditions(cascades: Sequence[Mapping[str, Any]]) -> list[str]:
    """What certificates say is not proved, each with the reason."""
    found: list[str] = []
    for number, cascade in enumerate(cascades):
        for entry in (*cascade["pivots"], *cascade["edges"]):
            name = entry.get("pivot", entry.get("accumulator"))
            for key in ("aim", "C1", "C2"):
                said = entry.get(key, "")
                if said.startswith(UNPROVED):
                    reason = said.removeprefix(UNPROVED)
                    found.append(f"cascade {number}: {key} of {name}: {reason}")
    return found


# Checking and certifying


def cascades_of(function: FuncOp) -> list[CascadeOp]:
    """The cascades of a function, in order."""
    return [op for op in function.walk() if isinstance(op, CascadeOp)]


def certify_cascades(function: FuncOp) -> ArrayAttr[DictionaryAttr]:
    """Attach to each cascade of a function its certificate.

    Returns:
        The certificates, in the order of the cascades.

    Raises:
        VerifyException: if a condition does not hold.
    """
    found: list[DictionaryAttr] = []
    for number, op in enumerate(cascades_of(function)):
        attribute = examine(op, function, number).to_attribute()
        op.attributes[CERTIFICATE] = attribute
        found.append(attribute)
    return ArrayAttr(found)


def check_cascades(function: FuncOp) -> None:
    """Check the cascades of a function, and certificates of them.

    Raises:
        VerifyException: if a condition does not hold or is not proved, or a certificate
            says otherwise.
    """
    found: list[dict[str, Any]] = []
    for number, op in enumerate(cascades_of(function)):
        finding = examine(op, function, number)
        found.append(finding.to_json())
        expected, given = finding.to_attribute(), op.attributes.get(CERTIFICATE)
        if given is not None and given != expected:
            difference = _difference("the certificate", expected, given)
            raise VerifyException(f"{_where(function, number)}: {difference}")
    for what in unproved_conditions(found):
        raise VerifyException(f"@{function.sym_name.data}: not proved: {what}")


def _where(function: FuncOp, number: int) -> str:
    return f"@{function.sym_name.data}: cascade {number}"


def _difference(name: str, expected: Attribute, given: Attribute | None) -> str:
    """The first place where an attribute is not what it should be."""
    if isinstance(expected, DictionaryAttr) and isinstance(given, DictionaryAttr):
        for key in (*expected.data, *sorted(given.data.keys() - expected.data.keys())):
            wanted, got = expected.data.get(key), given.data.get(key)
            if wanted is None:
                return f"{key} of {name}: expected nothing, got {got}"
            if wanted != got:
                return _difference(f"{key} of {name}", wanted, got)
    if (
        isa(expected, ArrayAttr)
        and isa(given, ArrayAttr)
        and len(expected.data) == len(given.data)
    ):
        for number, pair in enumerate(zip(expected.data, given.data, strict=True)):
            if pair[0] != pair[1]:
                return _difference(f"entry {number} of {name}", *pair)
    got = "nothing" if given is None else str(given)
    return f"{name}: expected {expected}, got {got}"


# Reading


class _Reader(Reader):
    """A reader for which what is not computed by scalar operations is opaque."""

    def _read(self, value: SSAValue) -> Term:
        try:
            return super()._read(value)
        except NotATerm:
            owner = value.owner
            if isinstance(owner, Block):
                return self.terms.value(value)
            used = dict.fromkeys(
                operand
                for inner in owner.walk()
                for operand in inner.operands
                if not _is_made_in(operand, owner)
            )
            return self.terms.opaque(value, [self.read(operand) for operand in used])


def _is_made_in(value: SSAValue, op: Operation) -> bool:
    """Whether a value is an argument or a result within an operation's regions."""
    owner = value.owner
    block = owner if isinstance(owner, Block) else owner.parent
    while block is not None:
        parent = block.parent_op()
        if parent is op:
            return True
        block = None if parent is None else parent.parent
    return False


@dataclass(frozen=True)
class _Cells:
    """What a region yields: a scalar, or the cells of an array.

    Attributes:
        term: the value of a cell.
        axes: the names of the indices it has there.
    """

    term: Term
    axes: tuple[str, ...] = ()

    def at(self, terms: Terms, indices: Sequence[Term]) -> Term:
        """The value of another cell."""
        return terms.substitute(self.term, dict(zip(self.axes, indices, strict=True)))


def _read_cells(reader: _Reader, value: SSAValue) -> _Cells | NotReal:
    """What a region yields, cell by cell; why not, if that is not understood."""
    terms = reader.terms
    if not isa(value.type, TensorType):
        return _Cells(reader.read(value))
    axes = tuple(f"l{axis}" for axis in range(len(shape_of(value.type))))
    if isinstance(value, BlockArgument):
        indices = [terms.index(axis) for axis in axes]
        element = terms.compute(
            AtOp, [reader.read(value), *indices], value.type.element_type
        )
        return _Cells(element, axes)
    op = value.owner
    if (
        isinstance(op, ComprehensionOp)
        and op.order is None
        and len(op.extents) == len(axes)
    ):
        block, terminator = body_of(op.body)
        for arg, axis in zip(block.args, axes, strict=True):
            reader.bind(arg, axis)
        return _Cells(reader.read(terminator.values[op.arrays.index(value)]), axes)
    return NotReal("an accumulator is an array that is no comprehension of scalars")


# Text


class _Text(StrPrinter):
    """Expressions as text in which numbers are short."""

    def _print_Float(self, expr: Expression) -> str:
        return repr(float(expr))


def _text(expression: Expression) -> str:
    long = {
        number: sp.Float(float(number), 17)
        for number in expression.atoms(sp.Rational)
        if len(str(number)) > 15
    }
    return _Text().doprint(expression.xreplace(long))


_LARGER = {
    "arith.maximumf": sp.Max,
    "arith.maxnumf": sp.Max,
    "arith.minimumf": sp.Min,
    "arith.minnumf": sp.Min,
}
_COMBINE: dict[str, Callable[[Expression, Expression], Expression]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": sp.Max,
    "min": sp.Min,
}
"""What the functions of accumulators mean on real numbers."""


class _Wrong(Exception):
    """A statement does not hold.

    Attributes:
        symbols: the names of the symbols in it.
        statement: the statement.
        values: where it does not hold, and what is expected and got there.
        is_conditional: it is the case of a condition on data.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        statement: str,
        values: str,
        is_conditional: bool,
    ) -> None:
        super().__init__(statement)
        self.is_conditional = is_conditional
        self.symbols = symbols
        self.statement = statement
        self.values = values


class _Unproved(Exception):
    """A statement is not known to hold."""


@dataclass
class _Proof:
    """The statements of one condition, and how they were proved.

    Attributes:
        identities: the statements.
        by: how.
        is_conditional: what follows is the case of a condition on data.
    """

    identities: dict[str, None] = field(default_factory=dict[str, None])
    by: str = BY_SYMPY
    is_conditional: bool = False

    def case(self, truths: Mapping[Term, bool]) -> None:
        """What follows is the case in which these conditions hold or not."""
        self.is_conditional = any(
            is_real(term) and term.number is None for term in walk(*truths)
        )

    def equal(self, got: Expression, expected: Expression) -> None:
        """Prove that two expressions are equal."""
        sides = _text(expected), _text(got)

        def wrong(point: Point) -> str:
            wanted, found = point.results
            return f"expected {sides[0]} = {wanted}, got {sides[1]} = {found}"

        if got == expected and got.is_number:
            return
        statement = f"{sides[1]} = {sides[0]}"
        self._note(statement, wrong, lambda: prove_equal(expected, got))

    def positive(self, expression: Expression) -> None:
        """Prove that an expression is positive."""
        statement = f"{_text(expression)} > 0"
        wrong = _Single(statement)
        self._note(statement, wrong, lambda: prove_positive(expression))

    def nonnegative(self, expression: Expression) -> None:
        """Prove that an expression is never below 0."""
        statement = f"{_text(expression)} >= 0"
        wrong = _Single(statement)
        self._note(statement, wrong, lambda: prove_nonnegative(expression))

    def nonzero(self, expression: Expression) -> None:
        """Prove that an expression is never 0."""
        statement = f"{_text(expression)} != 0"
        wrong = _Single(statement)
        self._note(statement, wrong, lambda: prove_nonzero(expression))

    def _note(
        self, statement: str, wrong: Callable[[Point], str], prove: Callable[[], str]
    ) -> None:
        try:
            by = prove()
        except NotProved as reason:
            if reason.point is None:
                raise _Unproved(f"not decided: {statement}") from None
            raise _Wrong(
                [name for name, _ in reason.point.values],
                statement,
                f"at {reason.point}: {wrong(reason.point)}",
                self.is_conditional,
            ) from None
        self.identities[statement] = None
        self.by = BY_Z3 if by == BY_Z3 else self.by


@dataclass(frozen=True)
class _Single:
    """What is said of a statement about one expression where it is wrong."""

    statement: str

    def __call__(self, point: Point) -> str:
        return f"expected {self.statement}, got {point.results[0]}"


# Expressions


@dataclass
class _Names:
    """The symbols of one cascade.

    Attributes:
        terms: where its terms are made.
        index: the name of its index.
        known: the expressions of pivots and accumulators.
        counts: the terms that are the count.
        arrays: the accumulators that are arrays, with their numbers.
        cells: for symbols of accumulators, the number and the cell.
        moving: the terms that change when pivots move.
        derived: the names of symbols for what is computed from data, but not looked
            into: their values may depend on each other.
        below: for pivots what of an index is never more: a maximum of it is a part.
    """

    terms: Terms
    index: str
    known: dict[Term, Expression] = field(default_factory=dict[Term, Any])
    counts: set[Term] = field(default_factory=set[Term])
    arrays: dict[Term, int] = field(default_factory=dict[Term, int])
    cells: dict[Expression, tuple[int, tuple[Term, ...]]] = field(
        default_factory=dict[Any, tuple[int, tuple[Term, ...]]]
    )
    moving: set[Term] = field(default_factory=set[Term])
    derived: set[str] = field(default_factory=set[str])
    below: dict[Term, list[Term]] = field(default_factory=dict[Term, list[Term]])
    _data: dict[Term, Expression] = field(default_factory=dict[Term, Any])
    _constants: dict[Term, Expression] = field(default_factory=dict[Term, Any])
    _conditions: dict[Term, Expression] = field(default_factory=dict[Term, Any])

    def datum(self, term: Term) -> Expression:
        """The symbol of a term that no pivot changes."""
        known, letter = self._constants, "c"
        if self.index in term.free:
            known, letter = self._data, "x"
        if term not in known:
            known[term] = _symbol(f"{letter}{len(known)}")
            is_plain = term.computes(AtOp.name) or not term.args
            if not is_plain:
                self.derived.add(known[term].name)
        return known[term]

    def condition(self, term: Term) -> Expression:
        """The symbol of a condition, in text."""
        return self._conditions.setdefault(term, _symbol(f"b{len(self._conditions)}"))

    def accumulator(self, number: int, cell: tuple[Term, ...] = ()) -> Expression:
        """The symbol of an accumulator or one of its cells."""
        is_own = all(each.kind == f"l{axis}" for axis, each in enumerate(cell))
        place = "" if is_own else f"[{', '.join(map(_named, cell))}]"
        symbol = _symbol(f"a{number}{place}")
        self.cells[symbol] = number, cell
        return symbol

    def is_rounding(self, term: Term) -> bool:
        """Whether a term is a rounding that keeps the range of what is rounded."""
        return is_rounding(term, lambda value, top: value in self.below.get(top, ()))

    def moves(self, term: Term) -> bool:
        """Whether a term changes when pivots move."""
        return contains(term, self.moving)

    def expression(
        self, term: Term, truths: Mapping[Term, bool] | None, is_fine: bool
    ) -> Expression:
        """A term as an expression.

        Args:
            term: the term.
            truths: which conditions hold; None leaves choices as they are, for text.
            is_fine: look into what no pivot changes; else its largest parts are data.

        Raises:
            NotReal: if it is not understood.
        """
        done = dict(self.known)

        def visit(term: Term) -> Expression:
            if term not in done:
                done[term] = to_sympy(term, done, atom, rounded=self.is_rounding)
            return done[term]

        def atom(term: Term) -> Expression | None:
            if not self.moves(term):
                if not is_real(term) and truths is not None:
                    raise NotReal(f"{term.type} is no type of real numbers")
                if not is_fine or truths is None or not _is_open(term):
                    return self.datum(term)
            if any(is_cast_of(term, count) for count in self.counts):
                return N
            if term.computes(AtOp.name) and term.args[0] in self.arrays:
                return self.accumulator(self.arrays[term.args[0]], term.args[1:])
            if _keeps_zero(term):
                return visit(term.args[2])
            if _is_choice(term):
                condition, then, otherwise = term.args
                if truths is None:
                    return _WHERE(
                        self.condition(condition), visit(then), visit(otherwise)
                    )
                return visit(then if _holds(condition, truths) else otherwise)
            for name, function in _LARGER.items():
                if term.computes(name):
                    return function(*map(visit, term.args))
            if isinstance(term.kind, SSAValue):
                owner = term.kind.owner
                name = owner.name if isinstance(owner, Operation) else "an argument"
                raise NotReal(f"{name} is not looked into")
            return None

        return visit(term)

    def conditions(self, terms: Sequence[Term], is_fine: bool) -> list[Term]:
        """The conditions of choices, those between values that pivots change at least.

        Raises:
            NotReal: if there are too many, or one depends on pivots itself.
        """
        found: dict[Term, None] = {}

        def visit(condition: Term) -> None:
            if condition.number is not None:
                return
            if self.moves(condition):
                raise NotReal("a choice depends on what moves")
            if is_truth(condition) and condition.computes(*_CONNECTIVES):
                for arg in condition.args:
                    visit(arg)
                return
            found[condition] = None

        for term in walk(*terms):
            if _keeps_zero(term):
                continue
            if _is_choice(term) and (is_fine or self.moves(term)):
                visit(term.args[0])
        if len(found) > _MOST_CONDITIONS:
            raise NotReal(f"it has more than {_MOST_CONDITIONS} conditions")
        return list(found)

    def cases(self, terms: Sequence[Term], is_fine: bool) -> Iterator[dict[Term, bool]]:
        """All ways in which the conditions of choices may hold."""
        conditions = self.conditions(terms, is_fine)
        for truths in product((True, False), repeat=len(conditions)):
            yield dict(zip(conditions, truths, strict=True))


N, _M = (sp.Symbol(name, positive=True) for name in "nm")
_WHERE = sp.Function("where")
_CONNECTIVES = ("arith.andi", "arith.ori", "arith.xori")


def _symbol(name: str, is_positive: bool = False) -> Expression:
    assumption = {"positive": True} if is_positive else {"real": True}
    return sp.Symbol(name, **assumption)


def _named(index: Term) -> str:
    return str(index.kind) if isinstance(index.kind, str | int) else "?"


def _is_choice(term: Term) -> bool:
    is_choice = isinstance(term.kind, Choice) or term.computes("arith.select")
    return is_choice and is_real(term)


def _keeps_zero(term: Term) -> bool:
    """Whether a term is `where(a = 0 and ..., a, t a)`, which is `t a`."""
    if not _is_choice(term):
        return False
    condition, then, otherwise = term.args
    if not any(then is factor for factor in factors(otherwise)[0]):
        return False
    conditions = [condition]
    for each in conditions:  # grows
        if each.computes("arith.andi"):
            conditions += each.args
    return any(
        predicate_of(each) == "oeq"
        and each.args[0] is then
        and each.args[1].number == 0
        for each in conditions
    )


def _is_open(term: Term) -> bool:
    """Whether a term is computed by arithmetic or a choice of real numbers."""
    return is_understood(term) or term.computes(*_LARGER) or _is_choice(term)


def _holds(condition: Term, truths: Mapping[Term, bool]) -> bool:
    if (number := condition.number) is not None:
        return bool(number)
    if condition in truths:
        return truths[condition]
    left, right = (_holds(arg, truths) for arg in condition.args)
    if condition.computes("arith.andi"):
        return left and right
    return left or right if condition.computes("arith.ori") else left != right


# Groups


@dataclass
class _Group:
    """One group of a cascade, read.

    Attributes:
        names: the symbols.
        view: the group.
        old: the symbols of its pivots.
        new: those after they move.
        first: the number of its first accumulator.
        parts: what its accumulators fold.
        moves: how they move; none without pivots.
        aims: what its pivots become.
    """

    names: _Names
    view: CascadeView
    old: list[Expression]
    new: list[Expression]
    first: int
    parts: list[_Cells | NotReal]
    moves: list[_Cells | NotReal]
    aims: list[Term]

    def edge(self, k: int) -> Edge:
        """What is found of one accumulator.

        Raises:
            VerifyException: if a condition does not hold.
        """
        name = f"a{self.first + k}"
        function = print_name(self.view.functions[k])
        part, move = self.parts[k], self.moves[k] if self.moves else None
        folded = self._text(part)
        if move is None:
            return Edge(name, function, "none", folded, name, NOTHING, NOTHING, ())
        c1, first = self._decide(
            f"C1 of accumulator {name}",
            lambda is_fine: self._c1(k, part, move, is_fine),
        )
        c2, second = self._decide(
            f"C2 of accumulator {name}", lambda is_fine: self._c2(k, move, is_fine)
        )
        rule = self._rule(k, move)
        identities = tuple(dict.fromkeys([*first, *second]))
        moved = self._text(move)
        return Edge(name, function, rule, folded, moved, c1, c2, identities)

    def aim(self, j: int) -> Aim:
        """What is found of one pivot.

        Raises:
            VerifyException: if its value depends on the way.
        """
        name = self.old[j].name
        aim = _Cells(self.aims[j])
        outcome, identities = self._decide(
            f"the aim of pivot {name}", lambda is_fine: self._aim(aim.term, is_fine)
        )
        return Aim(name, self._text(aim), outcome, tuple(identities))

    def _text(self, cells: _Cells | NotReal) -> str:
        """What is folded or how it moves; of what is not understood, that it is not."""
        try:
            return _text(self.names.expression(_sure(cells).term, None, False))
        except NotReal:
            return "not understood"

    def _decide(
        self, what: str, prove: Callable[[bool], _Proof | None]
    ) -> tuple[str, list[str]]:
        """How a condition is decided, and the statements that were needed."""
        try:
            try:
                proof = prove(False)
            except (_Wrong, _Unproved, NotReal):
                proof = prove(True)  # perhaps data depend on each other
        except (NotReal, _Unproved) as reason:
            return f"{UNPROVED}{reason}", []
        except _Wrong as wrong:
            data = [name for name in wrong.symbols if name[0] in "xc"]
            is_related = len(self.names.derived.intersection(data)) > 1
            if is_related or (wrong.is_conditional and data):
                # Perhaps these values never occur together.
                return f"{UNPROVED}not decided: {wrong.statement}", []
            raise VerifyException(f"{what} does not hold: {wrong.values}") from None
        if proof is None:
            return NOTHING, []
        return proof.by, list(proof.identities)

    def _moved(self, expression: Expression) -> Expression:
        """An expression for the new pivots instead of the old."""
        return expression.xreplace(dict(zip(self.old, self.new, strict=True)))

    def _c1(
        self, k: int, part: _Cells | NotReal, move: _Cells | NotReal, is_fine: bool
    ) -> _Proof:
        part, move = _sure(part), _sure(move)
        names, proof = self.names, _Proof()
        if self._is_rounded(move) or (
            self._is_rounded(part) and self._rule(k, move) != "rank one"
        ):
            raise NotReal(ROUNDED)
        symbols = self._accumulators(move.term)
        parts = {
            symbol: _sure(self.parts[number - self.first]).at(names.terms, cell)
            for symbol, (number, cell) in symbols.items()
        }
        involved = [part.term, move.term, *parts.values()]
        for truths in names.cases(involved, is_fine):
            proof.case(truths)

            def read(term: Term, truths: Mapping[Term, bool] = truths) -> Expression:
                return names.expression(term, truths, is_fine)

            for term in involved:
                self._defined(term, read, proof)
            values = {symbol: read(term) for symbol, term in parts.items()}
            got = read(move.term).xreplace({**values, N: sp.Integer(1)})
            proof.equal(got, self._moved(read(part.term)))
        return proof

    def _is_rounded(self, cells: _Cells) -> bool:
        """Whether something that moves is rounded."""
        names = self.names
        return any(names.is_rounding(t) and names.moves(t) for t in walk(cells.term))

    def _c2(self, k: int, move: _Cells | NotReal, is_fine: bool) -> _Proof:
        move = _sure(move)
        names, proof = self.names, _Proof()
        function = print_name(self.view.functions[k])
        symbols = list(self._accumulators(move.term))
        others = {s: _symbol(f"b{s.name[1:]}") for s in symbols}
        own = names.accumulator(self.first + k)
        for truths in names.cases([move.term], is_fine):
            proof.case(truths)
            left = names.expression(move.term, truths, is_fine)
            if left == own:
                proof.equal(left, own)
                continue
            if function not in _COMBINE:
                raise NotReal(f"no law is known for accumulators of {function}")
            combine = _COMBINE[function]
            if function in ("max", "min") and _is_affine(left, own, symbols):
                try:
                    proof.positive(sp.diff(left, own))
                    continue
                except (_Wrong, _Unproved):
                    pass  # the statement itself tells more
            right = left.xreplace({**others, N: _M})
            both = left.xreplace(
                {**{s: combine(s, t) for s, t in others.items()}, N: N + _M}
            )
            proof.equal(both, combine(left, right))
            if function == "mul":
                one, nil = sp.Integer(1), sp.Integer(0)
                start = {**dict.fromkeys(symbols, one), N: nil}
                proof.equal(left.xreplace(start), one)
            elif function != "add":  # what is additive keeps 0
                raise _Unproved(
                    f"T is not q {own} + c with q > 0, so it need not keep "
                    f"the identity of {function}"
                )
        return proof

    def _aim(self, aim: Term, is_fine: bool) -> _Proof | None:
        names, proof = self.names, _Proof()
        symbols = self._accumulators(aim)
        moves = {
            symbol: _sure(self.moves[number - self.first]).at(names.terms, cell)
            for symbol, (number, cell) in symbols.items()
            if self.first <= number < self.first + len(self.moves)
        }
        pivots = {names.known[t] for t in walk(aim) if t in names.known}
        if not moves and pivots.isdisjoint(self.old):
            return None
        involved = [aim, *moves.values()]
        for truths in names.cases(involved, is_fine):
            proof.case(truths)
            value = names.expression(aim, truths, is_fine)
            # What is added up to now is what has moved: the count of both is the same.
            values = {
                symbol: names.expression(term, truths, is_fine)
                for symbol, term in moves.items()
            }
            later = value.xreplace(
                {**values, **dict(zip(self.old, self.new, strict=True))}
            )
            proof.equal(later, value)
        return proof

    def _accumulators(
        self, term: Term
    ) -> dict[Expression, tuple[int, tuple[Term, ...]]]:
        """The symbols of accumulators in a term, with their numbers and cells."""
        names = self.names
        found: dict[Expression, tuple[int, tuple[Term, ...]]] = {}
        for each in walk(term):
            if each.computes(AtOp.name) and each.args[0] in names.arrays:
                number, cell = names.arrays[each.args[0]], each.args[1:]
                found[names.accumulator(number, cell)] = number, cell
            elif each in names.known and names.known[each] in names.cells:
                symbol = names.known[each]
                found[symbol] = names.cells[symbol]
        return found

    def _rule(self, k: int, move: _Cells | NotReal) -> str:
        """What kind of move it is, by what it is made of."""
        names = self.names
        own = names.accumulator(self.first + k)
        try:
            term = _sure(move).term
            left = names.expression(term, next(names.cases([term], False)), False)
        except NotReal:
            return "another"
        if left == own:
            return "none"
        symbols = self._accumulators(term)
        if left.has(N) or any(left.has(s) for s in symbols if s != own):
            return "finite rank"
        if not _is_affine(left, own, list(symbols)):
            return "another"
        factor, added = sp.diff(left, own), left.xreplace({own: sp.Integer(0)})
        if added == 0:
            return "rank one"
        return "added" if factor == 1 else "affine"

    def _defined(
        self, term: Term, read: Callable[[Term], Expression], proof: _Proof
    ) -> None:
        """Prove that what pivots change in a term has a value for all of them."""
        for each in walk(term):
            if not self.names.moves(each):
                continue
            if each.computes("arith.divf") and self.names.moves(each.args[1]):
                proof.nonzero(read(each.args[1]))
            if each.computes("math.sqrt"):
                proof.nonnegative(read(each.args[0]))
            if each.computes("math.log", "math.log2", "math.rsqrt"):
                proof.positive(read(each.args[0]))
            if each.computes("math.powf"):
                base, exponent = map(read, each.args)
                if exponent.is_Integer and exponent < 0:
                    proof.nonzero(base)
                elif exponent.is_positive and not exponent.is_Integer:
                    proof.nonnegative(base)
                elif not exponent.is_Integer:
                    proof.positive(base)


def _sure(cells: _Cells | NotReal) -> _Cells:
    if isinstance(cells, NotReal):
        raise cells
    return cells


def _is_affine(
    expression: Expression, own: Expression, accumulators: Sequence[Expression]
) -> bool:
    """Whether it is `q own + c` with neither q nor c of accumulators or the count."""
    if expression.has(N, sp.Max, sp.Min, sp.Abs):
        return False
    factor = sp.diff(expression, own)
    rest = expression.xreplace({own: sp.Integer(0)})
    return not any(factor.has(s) or rest.has(s) for s in accumulators)


def examine(op: CascadeOp, function: FuncOp, number: int) -> Finding:
    """Decide the conditions for all pivots and accumulators of a cascade.

    Args:
        op: the cascade.
        function: the function it is in.
        number: which of the function's cascades it is, for messages.

    Raises:
        VerifyException: if a condition does not hold.
    """
    try:
        groups = _read(op, function)
        pivots = tuple(group.aim(j) for group in groups for j in range(len(group.old)))
        edges = tuple(
            group.edge(k)
            for group in groups
            for k in range(len(group.view.accumulators))
        )
    except VerifyException as error:
        raise VerifyException(f"{_where(function, number)}: {error}") from None
    return Finding(pivots, edges)


def _read(op: CascadeOp, function: FuncOp) -> list[_Group]:
    """The groups of a cascade."""
    terms = Terms()
    names = _Names(terms, _INDEX)
    index = terms.index(_INDEX)
    scope = function.body.block

    def read(region: Region, given: Sequence[Term]) -> list[_Cells | NotReal]:
        reader = _Reader(terms, scope)
        block, terminator = body_of(region)
        for arg, term in zip(block.args, given, strict=True):
            reader.let(arg, term)
        return [_read_cells(reader, value) for value in terminator.values]

    shared: list[Term] = []
    for value, cells in zip(
        body_of(op.data)[1].values, read(op.data, [index]), strict=True
    ):
        if isinstance(cells, _Cells) and not cells.axes:
            shared.append(cells.term)
        else:
            shared.append(terms.value(value))
        names.datum(shared[-1])
    earlier: list[Term] = []
    maxima: dict[Term, Term] = {}
    groups: list[_Group] = []
    for view in op.views():
        first = sum(len(group.view.accumulators) for group in groups)
        pivots = sum(len(group.view.pivots) for group in groups)
        before = [terms.value(pivot) for pivot in view.pivots]
        held = [terms.value(accumulator) for accumulator in view.accumulators]
        parts = read(view.part, [index, *shared, *before])
        moves, aims, positive = list[_Cells | NotReal](), list[Term](), list[bool]()
        earlier += [*before, *held]
        after: list[Term] = []
        if view.pivot is not None and view.move is not None:
            arguments = view.move.block.args
            count = terms.value(arguments[0])
            after = [
                terms.value(a) for a in arguments[1 + len(before) :][: len(before)]
            ]
            moves = read(view.move, [count, *before, *after, *held])
            aims = [
                cells.term if isinstance(cells, _Cells) else terms.value(pivot)
                for cells, pivot in zip(
                    read(view.pivot, [count, *earlier]), view.pivots, strict=True
                )
            ]
            names.counts.add(count)
            names.moving.add(count)
            starts = [_Reader(terms, scope).read(start) for start in view.starts]
            positive = [
                _is_positive(start) and (aim is old or _is_kept_positive(aim))
                for start, aim, old in zip(starts, aims, before, strict=True)
            ]
        for folded, accumulator, cells in zip(view.functions, held, parts, strict=True):
            if (
                folded == StringAttr("max")
                and isinstance(cells, _Cells)
                and not cells.axes
            ):
                maxima[accumulator] = cells.term
        for pivot, aim in zip(before, aims, strict=True):
            names.below[pivot] = [maxima[t] for t in _largest_of(aim) if t in maxima]
        names.moving |= {*before, *after, *held}
        old, new = (
            [_symbol(f"r{pivots + j}{mark}", is_) for j, is_ in enumerate(positive)]
            for mark in ("", "'")
        )
        names.known |= dict(zip([*before, *after], [*old, *new], strict=True))
        for number, term in enumerate(held, start=first):
            if isa(term.type, TensorType):
                names.arrays[term] = number
            else:
                names.known[term] = names.accumulator(number)
        groups.append(_Group(names, view, old, new, first, parts, moves, aims))
    return groups


def _largest_of(term: Term) -> list[Term]:
    """What a value is the largest of."""
    if term.computes("arith.maximumf"):
        return [each for arg in term.args for each in _largest_of(arg)]
    return [term]


def _is_positive(term: Term) -> bool:
    number = term.number
    return number is not None and number > 0


def _is_kept_positive(aim: Term) -> bool:
    """Whether a value is the larger of something and a positive number."""
    return aim.computes("arith.maximumf") and any(map(_is_positive, aim.args))
