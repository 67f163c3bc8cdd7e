"""The steps of a reduction in MoA notation, one equation for each law applied.

    psi-inner: <i j> ψ O = <i j> ψ (A +•× B) = + fold_{p<m} (<i p> ψ A × <p j> ψ B)

The left side is the redex, psi with a full index of what one operation makes; the right
side is what the law puts in its place. Names mean the same in all steps of a function:
arrays have those of its definition, an index has one name wherever it is bound, and
what is too long to be repeated gets a name where it first occurs (`where x = ...`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import IndexType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, SSAValue

from moa_dialect.errors import MoaError
from moa_dialect.notation import (
    ARRAY_LETTERS,
    SCALAR_LETTERS,
    WIDTH,
    Definition,
    definitions_of,
    is_array,
)
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.pretty import SPACE, Document, Group, Nest, concat, join, layout
from moa_dialect.spelling import Expression, atom, call, vector

_LONGEST = 40
"""A longer expression is not repeated, but gets a name."""

_LONGEST_INDEX = 24
"""The same for an entry of an index."""


@dataclass(frozen=True)
class Step:
    """One application of a law.

    Attributes:
        rule: the law's name.
        ranks: the ranks its proofs are about here.
        redex: what it is applied to; if that has a name, by name and as it is defined.
        result: what the law puts in its place.
        where: names that the step introduces, each with what it stands for.
    """

    rule: str
    ranks: tuple[int, ...]
    redex: tuple[Document, ...]
    result: Document
    where: tuple[Document, ...]

    def texts(self) -> dict[str, str]:
        """Redex, result and, if there are any, names, each on one line."""
        texts = {
            "redex": " = ".join(map(_one_line, self.redex)),
            "result": _one_line(self.result),
        }
        if self.where:
            texts["where"] = ", ".join(map(_one_line, self.where))
        return texts

    def text(self, label: str) -> str:
        """The step as an equation, laid out on as many lines as it needs."""
        first, *others = self.redex
        sides = (concat(SPACE, "= ", Nest(side)) for side in (*others, self.result))
        equation = Group(concat(first, *sides))
        text = concat(label, self.rule, ": ", Nest(equation, 5))
        if self.where:
            names = join(concat(",", SPACE), self.where)
            text = concat(text, Nest(concat(SPACE, "where ", Nest(names)), 5))
        return layout(Group(text), WIDTH)


def _one_line(document: Document) -> str:
    """A document on one line; lines of a body are set apart by semicolons."""
    text = layout(document, 1 << 30)
    text = re.sub(r"\(\n\s*", "(", text)
    text = re.sub(r":\n\s*", ": ", text)
    return re.sub(r"\n\s*", "; ", re.sub(r"\n\s*\)", ")", text))


def _length(expression: Expression) -> int:
    return len(layout(expression.document, 1 << 30))


class StepNotation(Definition):
    """Writes the steps of one function's reduction while they are taken.

    It is made before the first step, with the function still in the algebra, and told
    each step before the redex is replaced.
    """

    def __init__(
        self, function: FuncOp, needed: Sequence[FuncOp], is_ascii: bool
    ) -> None:
        """Read the definition.

        Args:
            function: the function that is to be reduced.
            needed: it and the functions it refers to.
            is_ascii: spell the signs in ASCII.
        """
        named = {each.sym_name.data: each for each in needed}
        super().__init__(function, definitions_of(named, is_ascii))
        self._where: list[Document] = []
        try:
            self.header = layout(self.document(), WIDTH)
        except MoaError:  # it contains something that the notation has no sign for
            self.header = function.sym_name.data

    def begin(
        self, value: SSAValue, extents: Sequence[SSAValue], block: Block
    ) -> str | None:
        """`∀ 0 ≤ <i> < <n>: <i> ψ O`, what is to be reduced; None for a scalar."""
        self._where = []
        self._enter_scopes(block)
        if not extents:
            return None
        indices = [self._known[argument] for argument in block.args]
        element = self._spelling.access(vector(indices), self._short(value))
        bounds = [self._short(extent) for extent in extents]
        names = [_one_line(index.document) for index in indices]
        quantifier = self._quantifier(names, bounds)
        where = [concat(" where ", join(", ", self._where))] if self._where else []
        return _one_line(concat(quantifier, " ", element.document, *where))

    def step(
        self, rule: str, ranks: tuple[int, ...], op: AtOp, value: SSAValue
    ) -> Step:
        """The step that puts a value in the place of an element."""
        self._where = []
        assert op.parent is not None
        self._enter_scopes(op.parent)
        producer = op.array.owner
        assert isinstance(producer, Operation)
        indices = [self._short(index) for index in op.indices]
        for operand in producer.operands:
            self._short(operand)
        defining = self._of(producer)
        redex = [self._element(indices, defining).document]
        name = self._known.get(op.array)
        if name is not None and _is_name(name) and not isinstance(producer, ConstantOp):
            redex.insert(0, self._element(indices, name).document)
        result = self._describe(value).document
        if not indices and _one_line(redex[-1]) == _one_line(result):
            redex = [concat("<> ", self._spelling.sign("ψ"), " ", redex[-1])]
        return Step(rule, ranks, tuple(redex), result, tuple(self._where))

    def _element(self, indices: Sequence[Expression], array: Expression) -> Expression:
        return self._spelling.access(vector(indices), array) if indices else array

    # Names.

    def _name_results(self, returned: Sequence[SSAValue]) -> list[str]:
        """As in the normal form, whose results have no names of their own."""
        outputs: list[str] = []
        for number, value in enumerate(returned, 1):
            default = "O" if len(returned) == 1 else f"O{number}"
            outputs.append(self._names.fresh(default, ()))
            if isinstance(value, OpResult):
                self._results.setdefault(value, outputs[-1])
        return outputs

    def _enter_scopes(self, block: Block) -> None:
        """Name the indices that are bound around a block, the outermost first."""
        scopes: list[Block] = []
        scope: Block | None = block
        while scope is not None and scope is not self._function.body.block:
            scopes.append(scope)
            scope = scope.parent_block()
        self._names.indices.clear()
        for scope in reversed(scopes):
            for argument in scope.args:
                known = self._known.get(argument)
                if known is None:
                    name = self._names.index(argument.name_hint)
                    self._known[argument] = atom(name)
                else:
                    self._names.indices.append(_one_line(known.document))

    def _short(self, value: SSAValue) -> Expression:
        """An expression for a value that may be repeated: a name if it is long."""
        known = self._describe(value)
        most = _LONGEST_INDEX if isinstance(value.type, IndexType) else _LONGEST
        if known.is_plain or _length(known) <= most:
            return known
        letters = ARRAY_LETTERS if is_array(value) else SCALAR_LETTERS
        name = self._names.fresh(value.name_hint, letters)
        self._where.append(self._assign(name, known))
        self._known[value] = atom(name)
        return self._known[value]

    def _describe(self, value: SSAValue) -> Expression:
        """An expression for a value of the function."""
        known = self._known.get(value)
        if known is None:
            assert isinstance(value, OpResult)
            for operand in _captured(value.op):
                self._short(operand)
            known = self._known[value] = self._of(value.op)
        return known

    def _of(self, op: Operation) -> Expression:
        """The expression of an operation whose operands are known."""
        try:
            return self._expression(op)
        except MoaError:
            return call(op.name.rpartition(".")[2], *map(self._describe, op.operands))

    def _bind(self, value: OpResult, expression: Expression) -> list[Document]:
        """As in a definition, but what is long gets a name even if it is used once."""
        is_index = isinstance(value.type, IndexType)
        most = _LONGEST_INDEX if is_index else _LONGEST
        is_named = (is_index or is_array(value)) and not _is_yielded(value)
        is_long = not expression.is_plain and _length(expression) > most
        if value not in self._results and is_named and is_long:
            return [self._let(self._name(value), expression)]
        return super()._bind(value, expression)


def _is_yielded(value: SSAValue) -> bool:
    """Whether a value is what its block gives, and nothing else."""
    users = [use.operation for use in value.uses]
    return len(users) == 1 and not users[0].results


def _is_name(expression: Expression) -> bool:
    document = expression.document
    return isinstance(document, str) and document.isidentifier()


def _captured(op: Operation) -> Iterator[SSAValue]:
    """What an operation and its regions use and do not define, in order."""
    defined: set[SSAValue] = set()
    for inner in op.walk():
        for region in inner.regions:
            for block in region.blocks:
                defined.update(block.args)
        if inner is not op:
            defined.update(inner.results)
    for inner in op.walk():
        for operand in inner.operands:
            if operand not in defined:
                yield operand
