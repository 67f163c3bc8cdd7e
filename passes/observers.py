"""What watches a psi reduction: one records its steps, one prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, SSAValue

from moa_dialect.notation import WIDTH, Definition, definitions_of
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.derivation import with_callees
from moa_dialect.passes.psi_laws import PsiLaw
from moa_dialect.pretty import layout
from moa_dialect.steps import Step, StepNotation


@dataclass
class Recorder:
    """Keeps the steps of one function, and which proofs justify them."""

    steps: list[Step] = field(default_factory=list[Step])
    _notation: StepNotation | None = None

    def observe(self, function: FuncOp) -> Recorder:
        """Read the definition of the function that is reduced next."""
        self._notation = StepNotation(function, with_callees(function), is_ascii=True)
        return self

    def begin(self, value: SSAValue, extents: Sequence[SSAValue], body: Block) -> None:
        assert self._notation is not None
        self._notation.begin(value, extents, body)

    def step(self, law: PsiLaw[Any], element: AtOp, value: SSAValue) -> None:
        assert self._notation is not None
        ranks = law.proof_ranks(element.array.owner)
        self.steps.append(self._notation.step(law.name, ranks, element, value))

    def fields(self) -> dict[str, Attribute]:
        """What a derivation says of the reduction.

        `steps` has rule, redex and result of each step, in order; `proofs` for each
        rule the identifiers of the proofs it needed; `unproved` the rules that were
        applied at a rank there are no proofs for, each with the rank.
        """
        from moa_dialect import proofs

        cited: dict[str, dict[str, None]] = {}
        unproved: dict[str, None] = {}
        for step in self.steps:
            identifiers = cited.setdefault(step.rule, {})
            for rank in step.ranks:
                identifiers.update(dict.fromkeys(proofs.citations(step.rule, rank)))
                if proofs.is_unproved(step.rule, rank):
                    unproved[f"{step.rule}/rank{rank}"] = None
        fields: dict[str, Attribute] = {
            "steps": ArrayAttr(
                _texts({"rule": step.rule, **step.texts()}) for step in self.steps
            ),
            "proofs": DictionaryAttr(
                {rule: _list(identifiers) for rule, identifiers in cited.items()}
            ),
        }
        if unproved:
            fields["unproved"] = _list(unproved)
        return fields


def _texts(texts: dict[str, str]) -> DictionaryAttr:
    return DictionaryAttr({key: StringAttr(text) for key, text in texts.items()})


def _list(texts: dict[str, None]) -> ArrayAttr[StringAttr]:
    return ArrayAttr(map(StringAttr, texts))


@dataclass
class Tracer:
    """Prints the derivation of each function as comments."""

    is_ascii: bool
    _notation: StepNotation | None = None
    _count: int = 0

    def observe(self, function: FuncOp) -> Tracer:
        """Print the definition of the function that is reduced next."""
        needed = with_callees(function)
        self._notation = StepNotation(function, needed, self.is_ascii)
        self._count = 0
        _comment(f"moa-to-dnf @{function.sym_name.data}")
        _comment(self._notation.header, "  ")
        return self

    def begin(self, value: SSAValue, extents: Sequence[SSAValue], body: Block) -> None:
        assert self._notation is not None
        text = self._notation.begin(value, extents, body)
        if text is not None:
            _comment(text, "  ")

    def step(self, law: PsiLaw[Any], element: AtOp, value: SSAValue) -> None:
        assert self._notation is not None
        self._count += 1
        ranks = law.proof_ranks(element.array.owner)
        step = self._notation.step(law.name, ranks, element, value)
        _comment(step.text(f"{self._count}. "), "  ")

    def end(self, function: FuncOp) -> None:
        """Print the normal form."""
        needed = {each.sym_name.data: each for each in with_callees(function)}
        definition = Definition(function, definitions_of(needed, self.is_ascii))
        _comment("normal form:", "  ")
        _comment(layout(definition.document(), WIDTH), "  ")


def _comment(text: str, indent: str = "") -> None:
    for line in text.split("\n"):
        print(f"// {indent}{line}".rstrip())
