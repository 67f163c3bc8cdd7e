"""Programs in the notation of the Mathematics of Arrays.

`notation` prints a module at one of the stages moa, dnf and fused, one definition for
each function:

    attention(Q ^ <n d>, K ^ <m d>, V ^ <m e>) → O ^ <n e>:
      P = exp(Q +•× ⊘K)
      O = (P ÷Ω<1 0> ((+ red) Ω<1> P)) +•× V

Extents that a program requires to be equal have one letter. A value that is used more
than once, or under an index it does not depend on, has a line of its own; any other
stands where it is used.

Reading: prefix signs bind closest, then ψ, then × and ÷, + and -, comparisons, and
logical signs, from left to right as in mathematics (not from right to left as in APL).
Every other operation has its operands in parentheses unless they are bound by a prefix
or by ψ.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count

from xdsl.dialects.arith import AddiOp, CmpfOp, CmpiOp, MuliOp, SubiOp
from xdsl.dialects.arith import ConstantOp as ScalarConstantOp
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnregisteredOp,
)
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.dialects.scf import IfOp
from xdsl.dialects.scf import YieldOp as BranchYieldOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineBinaryOpKind,
    AffineConstantExpr,
    AffineConstraintExpr,
    AffineConstraintKind,
    AffineDimExpr,
    AffineExpr,
    AffineSymExpr,
)
from xdsl.utils.hints import isa

from moa_dialect.algebra.layout import Order
from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import Fixed
from moa_dialect.errors import MoaError
from moa_dialect.ops.addresses import GammaInverseOp, GammaOp, ProductOp
from moa_dialect.ops.base import ArrayOperation
from moa_dialect.ops.computational import (
    CastOp,
    InnerOp,
    MapOp,
    OmegaOp,
    OuterOp,
    PointwiseOp,
    ReduceOp,
    WhereOp,
)
from moa_dialect.ops.extents import (
    Root,
    RootAtom,
    ValueAxis,
    as_polynomial,
    equal_by_name,
    extent_names,
    extent_root,
    root_of,
    root_text,
    simplified,
)
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
    body_of,
)
from moa_dialect.ops.structural import (
    CellOp,
    ConstantOp,
    DimOp,
    IotaOp,
    PsiOp,
    ShapeOp,
    TotalOp,
    TransposeOp,
)
from moa_dialect.pretty import (
    EMPTY,
    SPACE,
    Break,
    Document,
    Group,
    Nest,
    concat,
    join,
    layout,
)
from moa_dialect.spelling import (
    WORDS,
    Expression,
    Level,
    Spelling,
    atom,
    call,
    clean,
    vector,
)
from moa_dialect.types import shape_of

WIDTH = 99
EXTENT_LETTERS = "nmdehbcgaf"
INDEX_LETTERS = "ijklmnpqrstuvw"
ARRAY_LETTERS = "ABCDEFGHIJKLMNPQRSTUVWXYZ"
SCALAR_LETTERS = "xyzabcefgh"


_INFIX = {
    **dict.fromkeys(("arith.addf", "arith.addi"), "+"),
    **dict.fromkeys(("arith.subf", "arith.subi"), "-"),
    **dict.fromkeys(("arith.mulf", "arith.muli"), "×"),
    "arith.divf": "÷",
    **dict.fromkeys(("arith.divsi", "arith.divui", "arith.floordivsi"), "div"),
    **dict.fromkeys(("arith.remsi", "arith.remui"), "mod"),
    **dict.fromkeys(("arith.maximumf", "arith.maxsi", "arith.maxui"), "⌈"),
    **dict.fromkeys(("arith.minimumf", "arith.minsi", "arith.minui"), "⌊"),
    "arith.andi": "∧",
    "arith.ori": "∨",
    "arith.xori": "⊻",
    "math.powf": "*",
}
"""Scalar operations written with an infix sign; most others are written as calls."""

_PREFIX: dict[type[Operation], str] = {
    IotaOp: "ι",
    ShapeOp: "ρ",
    DimOp: "δ",
    TotalOp: "τ",
    ProductOp: "π",
}
_CALLED = {"arith.select": "where", "math.absf": "abs", "math.absi": "abs"}
_CONVERSIONS = {
    *("arith.extf", "arith.truncf", "arith.extsi", "arith.extui", "arith.trunci"),
    *("arith.sitofp", "arith.uitofp", "arith.fptosi", "arith.fptoui"),
}
_COMPARISONS = {
    **dict.fromkeys(("eq", "oeq"), "="),
    **dict.fromkeys(("ne", "une"), "≠"),
    **dict.fromkeys(("slt", "ult", "olt"), "<"),
    **dict.fromkeys(("sle", "ule", "ole"), "≤"),
    **dict.fromkeys(("sgt", "ugt", "ogt"), ">"),
    **dict.fromkeys(("sge", "uge", "oge"), "≥"),
}
_AFFINE = {
    AffineBinaryOpKind.Mul: "×",
    AffineBinaryOpKind.Mod: "mod",
    AffineBinaryOpKind.FloorDiv: "div",
    AffineBinaryOpKind.CeilDiv: "ceildiv",
}
_SILENT = {"fastmath", "overflowFlags", "callee"}
"""Attributes of scalar operations that the notation leaves out."""


@dataclass
class _Names:
    """Names in one function; no name stands for two things in nested scopes.

    Indices are named per scope, so that folds next to each other use the same letters;
    all other names are unique in the function and never those of an index.
    """

    taken: set[str]
    used: set[str] = field(default_factory=set[str])
    indices: list[str] = field(default_factory=list[str])

    def fresh(self, hint: str | None, letters: Sequence[str]) -> str:
        """A name for a value: its hint, with a number if need be, or a letter."""
        stems = [clean(hint)] if hint else letters
        name = self._first_free((), stems, self.taken | self.used)
        self.taken.add(name)
        return name

    def index(self, hint: str | None) -> str:
        """A name for an index, free again at the end of the current scope."""
        preferred = [clean(hint)] if hint else ()
        taken = {*self.taken, *self.indices}
        name = self._first_free(preferred, INDEX_LETTERS, taken)
        self.indices.append(name)
        self.used.add(name)
        return name

    @contextmanager
    def scope(self) -> Generator[None]:
        """A scope of indices."""
        outer = len(self.indices)
        yield
        del self.indices[outer:]

    @staticmethod
    def _first_free(
        preferred: Sequence[str], stems: Sequence[str], taken: set[str]
    ) -> str:
        numbered = (f"{stem}{number}" for number in count(1) for stem in stems)
        names = chain(preferred, stems, numbered)
        return next(name for name in names if name not in taken)


class _Extents:
    """The extents of one function: equal ones by its requirements are one extent.

    They are called as `moa.extents` says, as their operation's result, or by a letter.
    """

    def __init__(self, function: FuncOp, names: _Names, spelling: Spelling):
        self._times = spelling.sign("×")
        self._parent: dict[Root, Root] = {}
        axes = [
            (ValueAxis(argument, axis), extent)
            for argument in function.body.block.args
            for axis, extent in enumerate(_shape(argument.type))
        ]
        for root, extent in axes:
            if extent >= 0:
                self._unite(root, Fixed(extent))
        given_names = extent_names(function)
        hints: dict[Root, str | None] = {**given_names}
        for left, right, _ in equal_by_name(given_names):
            self._unite(left, right)
        for op in function.body.walk():
            if isinstance(op, ArrayOperation):
                for r in op.requirements():
                    if r.relation == "eq":
                        self._unite(
                            root_of(op.operands, r.given),
                            root_of(op.operands, r.expected),
                        )
            elif isinstance(op, RequireOp) and op.relation_name == "eq":
                given, expected = _extent_of(op.given), _extent_of(op.expected)
                if given is not None and expected is not None:
                    self._unite(given, expected)
            elif isinstance(op, ExtentOp) and op.result.name_hint:
                root = extent_root(op.array, op.axis_number)
                hints.setdefault(root, op.result.name_hint)
        by_class: dict[Root, str | None] = {}
        for root, hint in hints.items():
            by_class.setdefault(self._find(root), hint)
        self._names: dict[Root, str] = {}
        for axis, _ in axes:
            root = self._find(axis)
            if not isinstance(root, Fixed) and root not in self._names:
                hint = by_class.get(root)
                self._names[root] = names.fresh(hint, EXTENT_LETTERS)

    def text(self, root: Root) -> str | None:
        """The number or name for an extent, or both computed with: `(n + m)`."""
        found = self._find(root)
        if isinstance(found, Fixed):
            return str(found.value)
        if (name := self._names.get(found)) is not None:
            return name
        for computed in (found, root):
            if isinstance(computed, Polynomial):
                text = root_text(computed, self.text, self._times)
                if text is not None:
                    return f"({text})" if " " in text else text
        return None

    def _find(self, root: Root) -> Root:
        while root in self._parent:
            root = self._parent[root]
        return root

    def _unite(self, left: Root, right: Root) -> None:
        left, right = self._find(left), self._find(right)
        if isinstance(left, Fixed):
            left, right = right, left
        if left != right and not isinstance(left, Fixed):
            self._parent[left] = right


_COMPUTED: dict[type[Operation], Callable[..., Polynomial[RootAtom]]] = {
    AddiOp: operator.add,
    SubiOp: operator.sub,
    MuliOp: operator.mul,
}


def _extent_of(value: SSAValue) -> Root | None:
    if isinstance(value, OpResult):
        match value.op:
            case ExtentOp() as op:
                return extent_root(op.array, op.axis_number)
            case FixedExtentOp() as op:
                return Fixed(op.static_value)
            case ScalarConstantOp(value=IntegerAttr() as number):
                return Fixed(number.value.data)
            case AddiOp() | SubiOp() | MuliOp() as op:
                left, right = _extent_of(op.lhs), _extent_of(op.rhs)
                if left is None or right is None:
                    return None
                combine = _COMPUTED[type(op)]
                return simplified(combine(as_polynomial(left), as_polynomial(right)))
            case _:
                pass
    return None


def _shape(type_: Attribute) -> tuple[int, ...]:
    """The shape of an array type, none for a scalar type."""
    is_array = isa(type_, TensorType) or isa(type_, MemRefType)
    return shape_of(type_) if is_array else ()


def is_array(value: SSAValue) -> bool:
    """Whether a value is an array."""
    return isa(value.type, TensorType)


def _definitions(module: ModuleOp) -> dict[str, FuncOp]:
    """The functions of a module by name.

    Raises:
        MoaError: if there is anything else in it.
    """
    functions: dict[str, FuncOp] = {}
    for op in module.ops:
        if not isinstance(op, FuncOp):
            raise MoaError(f"notation expects a module of functions, got {op.name}")
        functions[op.sym_name.data] = op
    return functions


def _references(op: Operation) -> list[str]:
    """The names of the functions an operation refers to."""
    attributes = (*op.properties.values(), *op.attributes.values())
    return [
        attribute.root_reference.data
        for attribute in attributes
        if isinstance(attribute, SymbolRefAttr)
    ]


@dataclass
class Definitions:
    """What the definitions of one module share."""

    functions: dict[str, FuncOp]
    spelling: Spelling

    def operator(self, function: FuncOp) -> str | None:
        """A function that is a single operation, such as `(⌈ red)` for omega."""
        block = function.body.blocks.first if function.body.blocks else None
        if block is None or len(block.ops) != 2:
            return None
        op, terminator = block.ops
        if tuple(op.operands) != tuple(block.args):
            return None
        if tuple(terminator.operands) != tuple(op.results):
            return None
        spelling = self.spelling
        match op:
            case ReduceOp():
                return f"({spelling.sign(spelling.function(op.function))} red)"
            case InnerOp():
                return f"({spelling.product(op.combine, op.function)})"
            case OmegaOp():
                return f"({spelling.omega(self.cell_function(op), op.cell_ranks)})"
            case _:
                return None

    def cell_function(self, op: OmegaOp) -> str:
        """How omega's function is written: a sign, `(⌈ red)` or a name."""
        spelling = self.spelling
        if isinstance(op.function, SymbolRefAttr):
            function = self.functions.get(op.function.root_reference.data)
            operator = None if function is None else self.operator(function)
            return operator or spelling.function(op.function)
        return spelling.sign(spelling.function(op.function))

    def in_order(self) -> list[FuncOp]:
        """The functions to define: each after those that it refers to.

        A private function that is always written as an operator needs no definition.
        """
        needed: dict[FuncOp, list[str]] = {}
        inlined: set[str] = set()
        for function in self.functions.values():
            needed[function] = []
            for op in function.body.walk():
                for name in _references(op):
                    referred = self.functions.get(name)
                    if isinstance(op, OmegaOp) and referred and self.operator(referred):
                        inlined.add(name)
                    else:
                        needed[function].append(name)
        named = set(chain.from_iterable(needed.values()))
        done: dict[FuncOp, None] = {}

        def visit(function: FuncOp, path: frozenset[FuncOp]) -> None:
            for name in needed[function]:
                referred = self.functions.get(name)
                if referred and referred not in done and referred not in path:
                    visit(referred, path | {referred})
            done[function] = None

        for name, function in self.functions.items():
            is_private = function.sym_visibility == StringAttr("private")
            is_written = is_private and name in inlined and name not in named
            if not is_written and function not in done:
                visit(function, frozenset((function,)))
        return list(done)


@dataclass
class _Affine:
    """Affine expressions over values: dimensions, then symbols."""

    spelling: Spelling
    values: Sequence[Expression]
    dimensions: int

    def condition(self, constraint: AffineConstraintExpr) -> Document:
        """A constraint with positive terms on either side: `p + 1 ≤ i`."""
        difference = constraint.lhs - constraint.rhs
        if constraint.kind is AffineConstraintKind.le:
            difference = difference * -1
        terms, number = self._terms(difference)
        smaller = [self._scaled(term, -factor) for term, factor in terms if factor < 0]
        larger = [self._scaled(term, factor) for term, factor in terms if factor > 0]
        is_equal = constraint.kind is AffineConstraintKind.eq
        is_strict = not is_equal and number == -1 and bool(smaller)
        is_one_sided = not smaller
        if number and not is_strict:
            (larger if number > 0 else smaller).append(atom(str(abs(number))))
        sides = [self._sum(smaller), self._sum(larger)]
        if is_equal and is_one_sided:
            sides.reverse()
        sign = "=" if is_equal else "<" if is_strict else "≤"
        return self.spelling.infix(sign, *sides).document

    def _terms(
        self, expression: AffineExpr
    ) -> tuple[list[tuple[Expression, int]], int]:
        """An expression as terms with their factors, and a number."""
        match expression:
            case AffineConstantExpr(number):
                return [], number
            case AffineDimExpr(position):
                return [(self.values[position], 1)], 0
            case AffineSymExpr(position):
                return [(self.values[self.dimensions + position], 1)], 0
            case AffineBinaryOpExpr(AffineBinaryOpKind.Add, left, right):
                terms, number = self._terms(left)
                others, other = self._terms(right)
                return [*terms, *others], number + other
            case AffineBinaryOpExpr(
                AffineBinaryOpKind.Mul, left, AffineConstantExpr(factor)
            ):
                terms, number = self._terms(left)
                return [(term, factor * f) for term, f in terms], number * factor
            case AffineBinaryOpExpr(kind, left, right):
                sides = self._expression(left), self._expression(right)
                return [(self.spelling.infix(_AFFINE[kind], *sides), 1)], 0
            case _:
                raise AssertionError(f"unknown affine expression {expression}")

    def _expression(self, expression: AffineExpr) -> Expression:
        terms, number = self._terms(expression)
        if number or not terms:
            terms.append((atom(str(abs(number))), 1 if number >= 0 else -1))
        (first, factor), *rest = terms
        total = self._scaled(first, abs(factor))
        if factor < 0:
            total = self.spelling.loose("-", total)
        for term, factor in rest:
            sign = "-" if factor < 0 else "+"
            total = self.spelling.infix(sign, total, self._scaled(term, abs(factor)))
        return total

    def _scaled(self, term: Expression, factor: int) -> Expression:
        return (
            term if factor == 1 else self.spelling.infix("×", atom(str(factor)), term)
        )

    def _sum(self, terms: Sequence[Expression]) -> Expression:
        total, *rest = terms or [atom("0")]
        for term in rest:
            total = self.spelling.infix("+", total, term)
        return total


class Definition:
    """The definition of one function."""

    def __init__(self, function: FuncOp, module: Definitions):
        self._function = function
        self._module = module
        self._spelling = module.spelling
        self._names = _Names({*WORDS, *module.spelling.functions.values()})
        self._known: dict[SSAValue, Expression] = {}
        self._results: dict[SSAValue, str] = {}
        self._merged: set[Operation] = set()
        self._depth = 0

    def document(self) -> Document:
        """Header and lines."""
        function = self._function
        if function.is_declaration:
            return concat(self._spelling.symbol(function.sym_name.data), " is external")
        if len(function.body.blocks) != 1:
            raise MoaError(
                f"notation expects functions of one block, "
                f"@{function.sym_name.data} has {len(function.body.blocks)}"
            )
        block = function.body.block
        for argument in block.args:
            letters = ARRAY_LETTERS if _shape(argument.type) else SCALAR_LETTERS
            letters = ARRAY_LETTERS if is_array(argument) else letters
            name = self._names.fresh(argument.name_hint, letters)
            self._known[argument] = atom(name)
        terminator = block.last_op
        returned = list(terminator.operands) if terminator else []
        is_scalar = not any(is_array(value) for value in returned)
        outputs = [] if is_scalar else self._name_results(returned)
        self._extents = _Extents(function, self._names, self._spelling)
        lines = self._lines(block)
        for value, name in zip(returned, outputs, strict=False):
            if self._results.get(value) != name:
                lines.append(self._assign(name, self._known[value]))
        arguments = [self._declared(a, self._known[a].document) for a in block.args]
        name = self._spelling.symbol(function.sym_name.data)
        listed = join(concat(",", SPACE), arguments)
        header = Group(concat(name, "(", Nest(concat(EMPTY, listed), 4), EMPTY, ")"))
        if is_scalar:
            values = [self._known[value] for value in returned]
            result = join(", ", (value.document for value in values))
            if not lines and len(values) == 1:
                return self._assign(header, values[0])
            return concat(header, " =", Nest(concat(Break(), _stack([*lines, result]))))
        declared = join(
            ", ", (self._declared(v, o) for v, o in zip(returned, outputs, strict=True))
        )
        arrow = f" {self._spelling.sign('→')} "
        return concat(
            header, arrow, declared, ":", Nest(concat(Break(), _stack(lines)))
        )

    def _name_results(self, returned: Sequence[SSAValue]) -> list[str]:
        outputs: list[str] = []
        for number, value in enumerate(returned, 1):
            default = "O" if len(returned) == 1 else f"O{number}"
            is_new = isinstance(value, OpResult) and value not in self._results
            hint = value.name_hint if is_new else None
            name = self._names.fresh(hint or default, ())
            outputs.append(name)
            if is_new:
                self._results[value] = name
        return outputs

    # Shapes.

    def _declared(self, value: SSAValue, name: Document) -> Document:
        if not is_array(value):
            return name
        return concat(name, " ^ <", " ".join(self._shape_of(value)), ">")

    def _shape_of(self, value: SSAValue) -> list[str]:
        """The extents of an array, `?` for one that has no name."""
        types = _shape(value.type)
        if isinstance(value, OpResult) and isinstance(value.op, ComprehensionOp):
            texts = self._comprehension_shape(value.op, value.index)
        elif isinstance(value, OpResult) and isinstance(value.op, FoldOp):
            texts = self._shape_of(_yielded(value.op)[0])
        elif isinstance(value, OpResult) and isinstance(value.op, CascadeOp):
            texts = self._shape_of(value.op.defining(value))
        else:
            texts = [
                self._extents.text(extent_root(value, axis)) or "?"
                for axis in range(len(types))
            ]
        return [
            str(extent) if extent >= 0 else text
            for extent, text in zip(types, texts, strict=True)
        ]

    def _comprehension_shape(self, op: ComprehensionOp, number: int) -> list[str]:
        cell = self._shape_of(_yielded(op)[number])
        axes = [self._extent_text(extent) for extent in op.extents]
        texts = [*axes, *cell]
        placed = [""] * len(texts)
        for text, position in zip(texts, op.positions(len(texts)), strict=True):
            placed[position] = text
        return placed

    def _extent_text(self, value: SSAValue) -> str:
        root = _extent_of(value)
        text = None if root is None else self._extents.text(root)
        if text is None and (known := self._known.get(value)) is not None:
            document = known.document
            return document if isinstance(document, str) else "?"
        return text or "?"

    # Statements.

    def _lines(self, block: Block) -> list[Document]:
        """The lines of a block without its terminator."""
        lines: list[Document] = []
        for op in block.ops:
            if isinstance(op, ReturnOp | YieldOp | BranchYieldOp) or op in self._merged:
                continue
            if isinstance(op, RequireOp):
                lines += self._requirement(op)
            elif isinstance(op, ComprehensionOp) and not self._is_anonymous(op):
                lines += self._defining(op)
            elif isinstance(op, CascadeOp):
                lines.append(self._cascade(op))
            elif not op.results:
                raise self._unknown(op)
            elif len(op.results) == 1:
                lines += self._bind(op.results[0], self._expression(op))
            else:
                expression = self._expression(op)
                names = [self._name(result) for result in op.results]
                lines.append(self._let(", ".join(names), expression))
        return lines

    def _bind(self, value: OpResult, expression: Expression) -> list[Document]:
        """Make a value known, by a line if it needs a name."""
        if value not in self._results and (expression.is_plain or _used_once(value)):
            self._known[value] = expression
            return []
        return [self._let(self._name(value), expression)]

    def _name(self, value: OpResult) -> str:
        name = self._results.get(value)
        if name is None:
            letters = ARRAY_LETTERS if is_array(value) else SCALAR_LETTERS
            name = self._names.fresh(value.name_hint, letters)
        self._known[value] = atom(name)
        return name

    def _let(self, name: str, expression: Expression) -> Document:
        """`let x = ...` in a body, `S = ...` outside."""
        return self._assign(f"let {name}" if self._depth else name, expression)

    def _assign(self, target: Document, expression: Expression) -> Document:
        if expression.is_enclosed:
            return concat(target, " = ", expression.document)
        value = Group(Nest(concat(SPACE, expression.document)))
        return concat(target, " =", value)

    def _requirement(self, op: RequireOp) -> list[Document]:
        signs = {"eq": "=", "lt": "<", "le": "≤", "ge": "≥"}
        left, right = self._known[op.given], self._known[op.expected]
        if op.relation_name == "eq" and left.document == right.document:
            return []  # shown by the letters of the header
        relation = self._spelling.infix(signs[op.relation_name], left, right)
        return [concat("require ", relation.document)]

    def _is_anonymous(self, op: ComprehensionOp) -> bool:
        """Whether a comprehension can stand as an expression where it is used."""
        if len(op.results) != 1 or op.results[0] in self._results:
            return False
        return _used_once(op.results[0])

    def _defining(self, op: ComprehensionOp) -> list[Document]:
        """A comprehension as the equations of its results' elements."""
        names = [self._name(result) for result in op.results]
        ranks = [len(_shape(result.type)) for result in op.results]
        places = [op.positions(rank) for rank in ranks]
        return self._equations(op, [], list(zip(names, places, strict=True)))

    def _equations(
        self,
        op: ComprehensionOp,
        outer: list[str],
        targets: list[tuple[str, tuple[int, ...]]],
    ) -> list[Document]:
        with self._names.scope():
            indices = self._enter(op.body.block)
            cells = [
                value.op
                for value in _yielded(op)
                if isinstance(value, OpResult)
                and isinstance(value.op, ComprehensionOp)
                and value.op.order is None
                and len(value.op.results) == 1
                and _used_once(value)
            ]
            self._merged.update(cells)
            lines = self._lines(op.body.block)
            index = [*outer, *indices]
            for value, target in zip(_yielded(op), targets, strict=True):
                if isinstance(value, OpResult) and value.op in cells:
                    assert isinstance(value.op, ComprehensionOp)
                    lines += self._equations(value.op, index, [target])
                else:
                    lines.append(self._equation(value, index, target))
            self._depth -= 1
        if not indices:
            return lines
        quantifier = self._quantifier(indices, self._arguments(op))
        if len(lines) == 1:
            return [concat(quantifier, " ", lines[0])]
        return [concat(quantifier, Nest(concat(Break(), _stack(lines))))]

    def _equation(
        self, value: SSAValue, index: list[str], target: tuple[str, tuple[int, ...]]
    ) -> Document:
        """`<i j> ψ O = ...`; a cell that is moved by an order gets indices too."""
        name, places = target
        value_known = self._known[value]
        if not places:
            return self._let(name, value_known)
        quantifier: Document = ""
        if len(places) > len(index) and list(places) != sorted(places):
            extents = self._shape_of(value)
            inner = [self._names.fresh(None, INDEX_LETTERS) for _ in extents]
            quantifier = concat(
                self._quantifier(inner, [atom(extent) for extent in extents]), " "
            )
            index = [*index, *inner]
            entries = vector([atom(entry) for entry in inner])
            value_known = self._spelling.access(entries, value_known)
        entries = dict(zip(places, index, strict=False))
        placed = vector([atom(entries[place]) for place in sorted(entries)])
        element = self._spelling.access(placed, atom(name))
        return concat(quantifier, self._assign(element.document, value_known))

    def _enter(self, block: Block) -> list[str]:
        """Start a body: name its indices."""
        self._depth += 1
        names = [self._names.index(argument.name_hint) for argument in block.args]
        for argument, name in zip(block.args, names, strict=True):
            self._known[argument] = atom(name)
        return names

    def _quantifier(
        self, indices: Sequence[str], extents: Sequence[Expression]
    ) -> Document:
        index = vector([atom(name) for name in indices]).document
        bound = vector(extents).document
        sign = self._spelling.sign
        return concat(sign("∀"), " 0 ", sign("≤"), " ", index, " < ", bound, ":")

    def _cascade(self, op: CascadeOp) -> Document:
        """One pass over the indices, from the last down, as what happens in it.

            let m, s, r = pass_{0≤p<n} (
              let x = <p> ψ A
              m := x ⌈ m
              r from -∞: r' := m
              r → r': s := exp(r - r') × s
              s := exp(x - r') + s
            )

        A pivot r starts from a value and becomes r'; then what is kept relative to it
        moves. An accumulator s that a pivot is computed from is s' there: s with the
        indices that are being added, still relative to r. A pivot may also take their
        `count`, and a move that of the indices `before` them.
        """
        names = {result: self._name(result) for result in op.outputs}
        known = {result: atom(name) for result, name in names.items()}
        primed = {result: atom(f"{name}'") for result, name in names.items()}
        listed = ", ".join(names.values())
        lower, upper = self._known[op.lower], self._known[op.upper]
        less = self._spelling.sign("≤")
        earlier: list[Expression] = []
        with self._names.scope():
            (index,) = self._enter(op.data.block)
            lines = self._lines(op.data.block)
            data: list[Expression] = []
            for value in body_of(op.data)[1].values:
                data.append(self._known[value])
                if data[-1].level is not Level.ATOM:
                    name = self._names.fresh(value.name_hint, SCALAR_LETTERS)
                    lines.append(self._let(name, data[-1]))
                    data[-1] = atom(name)
            for view in op.views():
                accumulators = [known[result] for result in view.accumulators]
                new = [primed[result] for result in view.pivots]
                if view.pivot is not None and view.move is not None:
                    old = [known[result] for result in view.pivots]
                    own = [primed[result] for result in view.accumulators]
                    count = self._count(view.pivot, "count")
                    values = self._region(
                        view.pivot, [count, *earlier, *old, *own], lines
                    )
                    for name, target, value, start in zip(
                        map(names.__getitem__, view.pivots),
                        new,
                        values,
                        view.starts,
                        strict=True,
                    ):
                        first = self._known[start].at(Level.ATOM)
                        update = self._update(target, value)
                        lines.append(concat(name, " from ", first, ": ", update))
                    count = self._count(view.move, "before")
                    values = self._region(
                        view.move, [count, *old, *new, *accumulators], lines
                    )
                    moved = join(", ", map(self._moved, old, new))
                    for target, value in zip(accumulators, values, strict=True):
                        if value.document != target.document:
                            update = self._update(target, value)
                            lines.append(concat(moved, ": ", update))
                values = self._region(view.part, [atom(index), *data, *new], lines)
                for function, target, value in zip(
                    view.functions, accumulators, values, strict=True
                ):
                    sign = self._spelling.function(function)
                    combined = self._spelling.infix(sign, value, target)
                    lines.append(self._update(target, combined))
                earlier += [*new, *accumulators]
            self._depth -= 1
        length = f", {op.chunk_length} at a time" if op.chunk is not None else ""
        start = [] if lower.document == "0" else [lower.at(Level.ATOM), less]
        bounds = concat(*start, index, "<", upper.at(Level.ATOM), length)
        target = f"let {listed}" if self._depth else listed
        body = Nest(concat(Break(), _stack(lines)))
        return concat(target, " = pass_{", bounds, "} (", body, Break(), ")")

    def _region(
        self, region: Region, arguments: Sequence[Expression], lines: list[Document]
    ) -> list[Expression]:
        """What a region of a cascade yields; its lines are added to the given ones."""
        self._known.update(zip(region.block.args, arguments, strict=True))
        lines += self._lines(region.block)
        return [self._known[value] for value in body_of(region)[1].values]

    def _count(self, region: Region, name: str) -> Expression:
        """The name of the count that a region takes."""
        is_used = bool(region.block.args[0].uses)
        return atom(self._names.fresh(name, ()) if is_used else name)

    def _update(self, target: Expression, value: Expression) -> Document:
        return Group(
            concat(target.document, " :=", Nest(concat(SPACE, value.document)))
        )

    def _moved(self, old: Expression, new: Expression) -> Document:
        return concat(old.document, f" {self._spelling.sign('→')} ", new.document)

    # Expressions.

    def _arguments(self, op: Operation) -> list[Expression]:
        return [self._known[operand] for operand in op.operands]

    def _expression(self, op: Operation) -> Expression:
        spelling = self._spelling
        match op:
            case ConstantOp():
                return spelling.constant(op.value)
            case IotaOp() | ShapeOp() | DimOp() | TotalOp() | ProductOp():
                return spelling.prefix(_PREFIX[type(op)], *self._arguments(op))
            case GammaOp() | GammaInverseOp():
                glyph = "γ" if isinstance(op, GammaOp) else "γ'"
                order = "" if op.layout is Order.ROW else "_col"
                return call(spelling.sign(glyph) + order, *self._arguments(op))
            case PsiOp():
                return spelling.infix("ψ", *self._arguments(op))
            case CellOp() | AtOp():
                array, *index = self._arguments(op)
                return spelling.access(vector(index), array) if index else array
            case TransposeOp():
                return self._transpose(op)
            case PointwiseOp():
                return spelling.infix(
                    spelling.function(op.function), *self._arguments(op)
                )
            case MapOp():
                (argument,) = self._arguments(op)
                return self._applied(spelling.function(op.function), argument)
            case CastOp():
                return call(str(op.result_element()), *self._arguments(op))
            case WhereOp():
                return call("where", *self._arguments(op))
            case ReduceOp():
                sign = spelling.sign(spelling.function(op.function))
                return spelling.loose(f"{sign} red ", *self._arguments(op))
            case OuterOp():
                text = spelling.sign("•") + spelling.sign(
                    spelling.function(op.function)
                )
                return spelling.joined(text, *self._arguments(op))
            case InnerOp():
                text = spelling.product(op.combine, op.function)
                return spelling.joined(text, *self._arguments(op))
            case OmegaOp():
                return self._omega(op)
            case ExtentOp():
                return self._axis(op)
            case FixedExtentOp():
                return atom(str(op.static_value))
            case InBoundsOp():
                return call("within", *self._arguments(op))
            case ComprehensionOp():
                return self._anonymous(op)
            case FoldOp():
                return self._fold(op)
            case IfOp():
                return self._branch(op)
            case _:
                return self._scalar(op)

    def _transpose(self, op: TransposeOp) -> Expression:
        (array,) = self._arguments(op)
        if op.permutation is None:
            return self._spelling.prefix("⊘", array)
        order = vector([atom(str(axis)) for axis in op.axes])
        sign = self._spelling.sign("⊘")
        document = concat(order.document, f" {sign} ", array.at(Level.PREFIX))
        return Expression(document, Level.PSI)

    def _applied(self, function: str, argument: Expression) -> Expression:
        """A function of one argument: a sign before it or a call."""
        if function == "-":
            return self._spelling.loose("-", argument)
        if function == "¬":
            gap = " " if self._spelling.is_ascii else ""
            return self._spelling.loose(self._spelling.sign("¬") + gap, argument)
        return call(function, argument)

    def _omega(self, op: OmegaOp) -> Expression:
        function = self._module.cell_function(op)
        text = self._spelling.omega(function, op.cell_ranks)
        if len(op.arrays) == 1:
            return self._spelling.loose(f"{text} ", *self._arguments(op))
        return self._spelling.joined(text, *self._arguments(op))

    def _axis(self, op: ExtentOp) -> Expression:
        text = self._extents.text(extent_root(op.array, op.axis_number))
        if text is not None:
            return atom(text)
        shape = self._spelling.prefix("ρ", self._known[op.array])
        return self._spelling.access(vector([atom(str(op.axis_number))]), shape)

    def _anonymous(self, op: ComprehensionOp) -> Expression:
        with self._names.scope():
            indices = self._enter(op.body.block)
            lines = self._lines(op.body.block)
            self._depth -= 1
            (value,) = _yielded(op)
            element = self._known[value].document
        extents = self._arguments(op)
        body = Break() if lines else SPACE
        inner = Nest(concat(body, _stack([*lines, element])))
        document = Group(concat(self._quantifier(indices, extents), inner))
        expression = Expression(document, Level.LOOSE)
        if op.order is None:
            return expression
        order = vector([atom(str(place)) for place in op.order.get_values()])
        sign = self._spelling.sign("⊘")
        return Expression(
            concat(order.document, f" {sign} ", expression.at(Level.PREFIX)), Level.PSI
        )

    def _fold(self, op: FoldOp) -> Expression:
        lower = self._known[op.lower]
        upper = self._known[op.upper]
        with self._names.scope():
            (index,) = self._enter(op.body.block)
            domain = self._domain(op)
            lines = self._lines(op.body.block)
            self._depth -= 1
            (value,) = _yielded(op)
            element = self._known[value].document
        less = self._spelling.sign("≤")
        start = [] if lower.document == "0" else [lower.at(Level.ATOM), less]
        bounds = concat(*start, index, "<", upper.at(Level.ATOM), domain)
        sign = self._spelling.sign(self._spelling.function(op.function))
        inner = Nest(concat(EMPTY, _stack([*lines, element])))
        body = concat(sign, " fold_{", bounds, "} (", inner, EMPTY, ")")
        if op.initial is not None:
            body = concat(body, " from ", self._known[op.initial].at(Level.ATOM))
        document = Group(body)
        return Expression(document, Level.LOOSE, is_enclosed=True)

    def _branch(self, op: IfOp) -> Expression:
        """`if c then (x) else (y)`."""
        sides: list[Document] = []
        self._depth += 1
        for region in op.regions:
            block = region.block
            with self._names.scope():
                lines = self._lines(block)
                assert block.last_op is not None
                (value,) = block.last_op.operands
                sides.append(_stack([*lines, self._known[value].document]))
        self._depth -= 1
        then, otherwise = (Nest(concat(EMPTY, side)) for side in sides)
        condition = self._known[op.cond].document
        return Expression(
            Group(
                concat(
                    *("if ", condition, " then (", then, EMPTY),
                    *(") else (", otherwise, EMPTY, ")"),
                )
            ),
            Level.LOOSE,
        )

    def _domain(self, op: FoldOp) -> Document:
        """` | p ≤ i, ...`: where the fold's index is not skipped."""
        if op.domain is None:
            return ""
        values = (op.body.block.args[0], *op.domain_arguments)
        affine = _Affine(
            self._spelling,
            [self._known[value] for value in values],
            op.domain.data.num_dims,
        )
        conditions = map(affine.condition, op.domain.data.constraints)
        return concat(" | ", join(", ", conditions))

    def _scalar(self, op: Operation) -> Expression:
        """An operation of arith, math or func, or any other as a call."""
        if op.regions or not op.results:
            raise self._unknown(op)
        arguments = self._arguments(op)
        spelling = self._spelling
        match op:
            case ScalarConstantOp():
                return self._scalar_constant(op.value)
            case CmpiOp() | CmpfOp():
                predicates = _CMPI if isinstance(op, CmpiOp) else _CMPF
                predicate = predicates[op.predicate.value.data]
                sign = _COMPARISONS.get(predicate)
                if sign is None or (isinstance(op, CmpfOp) and predicate[0] == "u"):
                    return call(predicate, *arguments)
                return spelling.infix(sign, *arguments)
            case CallOp():
                name = spelling.symbol(op.callee.root_reference.data)
                return call(name, *arguments)
            case _:
                pass
        if op.name in _INFIX:
            return self._scalar_infix(op, *arguments)
        if op.name == "arith.negf":
            return self._applied("-", *arguments)
        if op.name == "arith.index_cast":
            return arguments[0]
        if op.name == "math.fma":
            x, y, z = arguments
            return spelling.infix("+", spelling.infix("×", x, y), z)
        if op.name in _CONVERSIONS:
            converted = call(str(op.results[0].type), *arguments)
            return Expression(converted.document, is_plain=arguments[0].is_plain)
        return call(_CALLED.get(op.name) or _described(op), *arguments)

    def _scalar_infix(
        self, op: Operation, left: Expression, right: Expression
    ) -> Expression:
        sign = _INFIX[op.name]
        if sign == "⊻" and right.document == "true":
            return self._applied("¬", left)
        expression = self._spelling.infix(sign, left, right)
        is_index = str(op.results[0].type) == "index"
        if is_index and left.level is right.level is Level.ATOM:
            return Expression(expression.document, expression.level, is_plain=True)
        return expression

    def _scalar_constant(self, value: Attribute) -> Expression:
        if isa(value, IntegerAttr) or isa(value, FloatAttr):
            return self._spelling.number(value.value.data, value.type)
        if isa(value, DenseIntOrFPElementsAttr):
            return self._spelling.constant(value)
        raise MoaError(f"notation has no numbers of this kind: {value}")

    def _unknown(self, op: Operation) -> MoaError:
        return MoaError(
            f"notation covers the stages moa, dnf and fused, "
            f"@{self._function.sym_name.data} contains {op.name}"
        )


_CMPI: Sequence[str] = (
    *("eq", "ne", "slt", "sle", "sgt", "sge"),
    *("ult", "ule", "ugt", "uge"),
)
_CMPF: Sequence[str] = (
    *("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord"),
    *("ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true"),
)


def _described(op: Operation) -> str:
    """An operation without a sign: its name, with the attributes that matter."""
    if isinstance(op, UnregisteredOp):
        return op.op_name.data
    attributes = {**op.properties, **op.attributes}
    shown = [f"{k} = {v}" for k, v in attributes.items() if k not in _SILENT]
    name = op.name.rpartition(".")[2]
    return f"{name}{{{', '.join(shown)}}}" if shown else name


def _yielded(op: ComprehensionOp | FoldOp) -> Sequence[SSAValue]:
    terminator = op.body.block.last_op
    assert isinstance(terminator, YieldOp)
    return terminator.values


def _used_once(value: SSAValue) -> bool:
    """Whether a value is used exactly once, and not under an index bound later."""
    uses = list(value.uses)
    block = value.owner.parent if isinstance(value.owner, Operation) else value.owner
    return len(uses) == 1 and uses[0].operation.parent is block


def _stack(lines: Sequence[Document]) -> Document:
    return join(Break(), lines)


def definitions_of(functions: dict[str, FuncOp], ascii: bool) -> Definitions:
    """What the definitions of these functions share: how each function is called."""
    spelling = Spelling(ascii)
    names = _Names(set(WORDS))
    for name in functions:
        spelling.functions[name] = names.fresh(name, ())
    return Definitions(functions, spelling)


def notation(module: ModuleOp, ascii: bool = False) -> str:
    """A module at stage moa, dnf or fused in MoA notation.

    Args:
        module: a verified module of functions.
        ascii: spell the signs in ASCII, as the Psi Compiler did.

    Raises:
        MoaError: if the module is at a later stage.
    """
    shared = definitions_of(_definitions(module), ascii)
    texts = [
        layout(Definition(function, shared).document(), WIDTH)
        for function in shared.in_order()
    ]
    return "\n".join(f"{text}\n" for text in texts)
