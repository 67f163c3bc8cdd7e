"""The rules applied to the functions of a module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.cf import AssertOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.hints import isa

from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.raising import FURTHER
from moa_dialect.passes.raising.indexed import RULES as INDEXED
from moa_dialect.passes.raising.rule import CannotRaise, Raising, Rule
from moa_dialect.passes.raising.shapes import RULES as SHAPES
from moa_dialect.passes.raising.source import location_of, name_of
from moa_dialect.passes.raising.structured import RaiseStructured

_RULES: dict[str, Rule] = {
    name: rule for rule in (*SHAPES, *INDEXED) for name in rule.names
}
_STRUCTURED = RaiseStructured()

_PURE = ("arith.", "math.", "linalg.", "tensor.", "tm_tensor.", "moa.")


@dataclass(frozen=True)
class Unraised:
    """An operation that stays as it is."""

    name: str
    place: str
    function: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.name}: {self.reason}"


def raise_module(module: ModuleOp) -> list[Unraised]:
    """Raise what can be raised in every function; what could not be, with reasons."""
    return [
        each for function in functions_of(module) for each in raise_function(function)
    ]


def raise_function(function: FuncOp) -> list[Unraised]:
    """Raise what can be raised in a function; what could not be, with reasons."""
    left: list[Unraised] = []
    name = function.sym_name.data
    if len(function.body.blocks) > 1:
        reason = f"expected one block, got {len(function.body.blocks)}"
        return [Unraised(name_of(function), location_of(function), name, reason)]
    for block in function.body.blocks:
        _erase_unused(block)
        _erase_assertions(block)
        raising = Raising(function)
        for op in list(block.ops):
            rule = rule_for(op)
            if rule is None:
                continue
            raising.at(op)
            try:
                results = rule.apply(op, raising)
            except CannotRaise as error:
                raising.forget()
                place = location_of(op)
                left.append(Unraised(name_of(op), place, name, str(error)))
                continue
            raising.state()
            for old, new in zip(op.results, results, strict=True):
                if new is not None:
                    new.name_hint = old.name_hint
                    old.replace_all_uses_with(new)
            op.detach()
            op.erase()
        _erase_unused(block)
        if not left:
            # What nothing has written may only be what is written next.
            left += [
                Unraised(name_of(op), location_of(op), name, "it is never written")
                for op in block.ops
                if name_of(op) == "tensor.empty"
            ]
    return left


def rule_for(op: Operation) -> Rule | None:
    """The rule for an operation; None if there is nothing to raise."""
    name = name_of(op)
    if name in _RULES:
        return _RULES[name]
    for module in FURTHER:
        if name in (rules := _rules_of(module)):
            return rules[name]
    if name.startswith("linalg.") and op.regions:
        return _STRUCTURED
    is_on_tensors = any(isa(result.type, TensorType) for result in op.results)
    if name.startswith(("arith.", "math.")) and is_on_tensors:
        return _RULES["elementwise"]
    if name == "tensor.empty" or name.startswith(("moa.", "func.")):
        return None
    if name.startswith(("linalg.", "tensor.", "tm_tensor.")) or is_on_tensors:
        return _RULES["unknown"]
    return None


@cache
def _rules_of(module: str) -> dict[str, Rule]:
    """The rules of a front end, by the names of operations."""
    rules: Iterable[Rule] = import_module(module).RULES
    return {name: rule for rule in rules for name in rule.names}


def _erase_assertions(block: Block) -> None:
    """Erase assertions about extents: what operations need of them is required."""
    for op in list(block.ops):
        if isinstance(op, AssertOp) and not _reads(op.operands[0]):
            Rewriter.erase_op(op)


def _reads(value: SSAValue) -> bool:
    """Whether a scalar is computed from elements of arrays, or is an argument."""
    owner = value.owner
    if isinstance(owner, Block):
        return True
    if name_of(owner) == "tensor.dim":
        return False
    return name_of(owner) == "tensor.extract" or any(map(_reads, owner.operands))


def _erase_unused(block: Block) -> None:
    """Erase what nobody uses: operations on tensors have no other effect."""
    for op in reversed(list(block.ops)):
        if isinstance(op, AssertOp):
            continue
        name = name_of(op)
        if not name.startswith(_PURE) or name == "moa.require":
            continue
        if any(list(result.uses) for result in op.results) or not op.results:
            continue
        Rewriter.erase_op(op)
