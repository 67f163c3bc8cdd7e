"""Certificates of cascades: why the accumulators may move, checked from the text alone.

For a cascade the transport theorem needs, of each accumulator k that moves,

- (C1) `move_k(1, r, r', part(x; r)) = part_k(x; r')` for all data x and pivots r, r';
- (C2) `move_k(T a f T b) = T (a f b)` for its function f, whose identity is kept: for
  add, the move is additive in the count and the accumulators; for max and min, it is
  `q a + c` with q > 0; for any other function, it is the accumulator unchanged.

Both are read off the regions, whatever they come from: the parts and moves as terms,
these as real expressions over symbols for the data (x0, x1...), the pivots (r0, and r0'
after they move), the accumulators (a0, a1...), the count (n) and values that do not
change (c0, c1...); of arrays, cell by cell. Choices by such values are proved case by
case. See `identities` for what proves the statements.

That a pivot is positive is used where its start is, and its region keeps it so. Parts
and moves must be defined for all pivots: they do not divide by what may be 0.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, TypeAlias

import sympy as sp
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
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
    NotProved,
    Point,
    prove_equal,
    prove_nonzero,
    prove_positive,
)
from moa_dialect.passes.symbolic import (
    NotReal,
    describe,
    is_real,
    is_truth,
    is_understood,
    to_sympy,
)
from moa_dialect.passes.terms import (
    Choice,
    Computed,
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
"""What is said of an accumulator that no pivot changes."""

_MOST_CONDITIONS = 6
_RULES = ("none", "rank one", "added", "affine", "finite rank")


@dataclass(frozen=True)
class Finding:
    """What was found of one accumulator, as readable text.

    Attributes:
        function: the function it folds by.
        rule: what the move is: none, rank one (`q a`), added (`a + c`), affine (both)
            or finite rank (it takes other accumulators, or the count).
        pivots: what each pivot becomes, as an assignment.
        part: what it folds.
        T: its move.
        C1: how C1 was decided.
        C2: how C2 was decided.
    """

    function: str
    rule: str
    pivots: tuple[str, ...]
    part: str
    T: str
    C1: str
    C2: str

    def to_json(self) -> dict[str, Any]:
        """The same for `json.dumps`."""
        return {**vars(self), "pivots": list(self.pivots)}

    def to_attribute(self) -> DictionaryAttr:
        """The same as an attribute."""
        texts = {key: StringAttr(text) for key, text in vars(self).items() if key != _P}
        return DictionaryAttr({**texts, _P: ArrayAttr(map(StringAttr, self.pivots))})


_P = "pivots"


def cascades_of(function: FuncOp) -> list[CascadeOp]:
    """The cascades of a function, in order."""
    return [op for op in function.walk() if isinstance(op, CascadeOp)]


def check_cascades(function: FuncOp) -> list[list[Finding]]:
    """Check the cascades of a function, and certificates of them.

    Returns:
        For each cascade, for each of its accumulators what was found.

    Raises:
        VerifyException: if a condition does not hold, or is not proved to, or a
            certificate says otherwise.
    """
    found: list[list[Finding]] = []
    for number, op in enumerate(cascades_of(function)):
        findings = prove_cascade(op, function, number)
        if (given := op.attributes.get(CERTIFICATE)) is not None:
            where = f"@{function.sym_name.data}: cascade {number}"
            _check_certificate(where, given, findings)
        found.append(findings)
    return found


def certify_cascades(function: FuncOp) -> None:
    """Attach to each cascade of a function its certificate.

    Raises:
        VerifyException: if a condition does not hold, or is not proved to.
    """
    for number, op in enumerate(cascades_of(function)):
        findings = prove_cascade(op, function, number)
        op.attributes[CERTIFICATE] = ArrayAttr(f.to_attribute() for f in findings)


def _check_certificate(
    where: str, given: Attribute, findings: Sequence[Finding]
) -> None:
    entries = given.data if isa(given, ArrayAttr) else ()
    if len(entries) != len(findings):
        raise VerifyException(
            f"{where}: a certificate is an array with an entry for each accumulator: "
            f"expected {len(findings)}, got {len(entries)}"
        )
    for number, (entry, finding) in enumerate(zip(entries, findings, strict=True)):
        said = entry.data if isinstance(entry, DictionaryAttr) else {}
        expected = finding.to_attribute().data
        for key in (*expected, *sorted(said.keys() - expected.keys())):
            if said.get(key) != expected.get(key):
                texts = [
                    "nothing" if each is None else str(each)
                    for each in (expected.get(key), said.get(key))
                ]
                raise VerifyException(
                    f"{where}: {key} of accumulator {number} in the certificate: "
                    f"expected {texts[0]}, got {texts[1]}"
                )


def prove_cascade(op: CascadeOp, function: FuncOp, number: int) -> list[Finding]:
    """Prove the conditions for all accumulators of a cascade.

    Args:
        op: the cascade.
        function: the function it is in.
        number: which of the function's cascades it is, for messages.

    Raises:
        VerifyException: if a condition does not hold, or is not proved to.
    """
    names = _Names(Terms(), function.body.block)
    data, (_, shared) = op.data.block, body_of(op.data)
    names.reader().read_all(data)
    shared_terms = [names.terms.value(value) for value in shared.values]
    for position, term in enumerate(shared_terms):
        names.give(term, f"x{position}")
    found: list[Finding] = []
    before: list[_Group] = []
    for view in op.views():
        where = f"@{function.sym_name.data}: cascade {number}"
        accumulators = sum(len(group.view.accumulators) for group in before)
        pivots = sum(len(group.view.pivots) for group in before)
        group = _Group(names, view, shared_terms, where, accumulators, pivots)
        before.append(group)
        group.bind_pivots(before)
        found += [group.prove(k) for k in range(len(view.accumulators))]
    return found
