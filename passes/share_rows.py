"""Axes of kernels that read the same in groups: the index in a group as rows.

An array that is read at `i div g` is the same for g indices of i, as keys are for a
group of heads. Lifted to `i -> <a, b>` with b < g, its elements do not depend on b, and
so b may be rows of products of matrices, or lanes, alone or together with the axis that
is so already, where that one is short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import arith
from xdsl.ir import SSAValue

from moa_dialect.ops.normal_form import AtOp, FixedExtentOp
from moa_dialect.passes.kernels import Kernel, all_terms, static_extent
from moa_dialect.passes.terms import INDEX, Term, Terms

_QUOTIENTS = ("arith.divui", "arith.divsi", "arith.floordivsi")
_REMAINDERS = ("arith.remui", "arith.remsi")

ENOUGH = 64
"""With so many rows without, there are enough of them."""


@dataclass(frozen=True)
class SharedRows:
    """How indices that read the same become rows.

    Attributes:
        axis: the axis that is read in groups.
        group: how many indices read the same; 0 for all.
        rows: the axis of rows that the index in a group is put together with; or empty.
        hint: the name in the text of the axis of rows that there is then.
    """

    axis: str
    group: int
    rows: str
    hint: str


def find_shared(kernel: Kernel, rows: str) -> SharedRows | None:
    """What may become rows, None if nothing does.

    Args:
        kernel: the kernel.
        rows: the axis that is rows without; or empty.
    """
    extent = static_extent(kernel.extents[rows]) if rows else 1
    bounds = {
        axis for p in kernel.passes for b in (p.lower, p.upper) for axis in b.free
    }
    if extent is not None and extent >= ENOUGH:
        return None
    for axis in kernel.axes:
        group = _group(kernel, axis)
        size = static_extent(kernel.extents[axis])
        if group is None or size is None or axis == rows or axis in bounds:
            continue
        if size < 2 or (group and size % group):
            continue
        together = (
            extent is not None
            and extent > 1
            and rows not in bounds
            and _are_adjacent(kernel, axis, rows)
        )
        hint = kernel.hints[axis] + (kernel.hints[rows] if together else "")
        if group or together:
            hint += "_g"
            while hint in kernel.hints.values():
                hint += "_"
        return SharedRows(axis, group, rows if together else "", hint)
    return None


def _group(kernel: Kernel, axis: str) -> int | None:
    """How many indices of an axis read the same along a pass, None if not several.

    It is 0 if all do, though what they fold depends on the axis.
    """
    groups: set[int] = set()
    if not any(axis in a.part.free for p in kernel.passes for a in p.accumulators):
        return None
    for pass_ in kernel.passes:
        for term in all_terms(kernel):
            if not term.computes(AtOp.name) or pass_.index not in term.free:
                continue
            for index in term.args[1:]:
                if axis not in index.free:
                    continue
                number = _number(index.args[1]) if index.computes(*_QUOTIENTS) else None
                if number is None or index.args[0].kind != axis:
                    return None
                groups.add(number)
    if not groups:
        return 0
    return found if len(groups) == 1 and (found := groups.pop()) > 1 else None


def _number(term: Term) -> int | None:
    """An index as a number, None if types do not give it."""
    if isinstance(term.kind, SSAValue):
        return static_extent(term.kind)
    return None if term.number is None else int(term.number)


def _are_adjacent(kernel: Kernel, first: str, second: str) -> bool:
    """Whether in each result an axis comes right after another one."""
    numbers = kernel.axes.index(first), kernel.axes.index(second)
    for output in kernel.outputs:
        places = kernel.op.positions(len(kernel.axes) + len(output.axes))
        if places[numbers[1]] != places[numbers[0]] + 1:
            return False
    return True


def share_rows(kernel: Kernel, shared: SharedRows) -> str:
    """Let indices that read the same be rows; returns the axis of rows."""
    inner = shared.axis
    if shared.group:
        _, inner = split_axis(kernel, shared.axis, shared.group)
    if shared.rows:
        inner = join_axes(kernel, inner, shared.rows)
    kernel.hints[inner] = shared.hint
    return inner


def split_axis(kernel: Kernel, axis: str, factor: int) -> tuple[str, str]:
    """Lift an axis to two: `i = factor a + b`, with b below the factor.

    The extent of the axis is a number that the factor divides.

    Returns:
        The new axes.
    """
    terms = kernel.terms
    size = static_extent(kernel.extents[axis])
    assert size is not None
    assert size % factor == 0
    outer, inner = f"{axis}/{factor}", f"{axis}%{factor}"
    number = terms.number(factor, INDEX)
    a, b = terms.index(outer), terms.index(inner)
    whole = terms.compute(arith.AddiOp, (terms.compute(arith.MuliOp, (a, number)), b))

    def rule(term: Term) -> Term:
        if len(term.args) == 2 and term.args[0] is whole:
            if _number(term.args[1]) != factor:
                return term
            if term.computes(*_QUOTIENTS):
                return a
            if term.computes(*_REMAINDERS):
                return b
        return term

    at = kernel.axes.index(axis)
    kernel.axes[at : at + 1] = [outer, inner]
    _extend(kernel, outer, size // factor, axis, factor)
    _extend(kernel, inner, factor, axis, 1)
    _substitute(kernel, {axis: whole}, rule)
    return outer, inner


def join_axes(kernel: Kernel, first: str, second: str) -> str:
    """Make two axes one: `i = r div n` and `j = r mod n`, n the extent of the second.

    Both extents are numbers, and in results the second axis comes right after the
    first one.

    Returns:
        The new axis.
    """
    terms = kernel.terms
    sizes = [static_extent(kernel.extents[axis]) for axis in (first, second)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    name = f"{first}{second}"
    number, index = terms.number(sizes[1], INDEX), terms.index(name)
    at = kernel.axes.index(second)
    kernel.axes[at] = name
    kernel.axes.remove(first)
    _extend(kernel, name, sizes[0] * sizes[1], second, 1)
    new = {
        first: terms.compute(arith.DivUIOp, (index, number)),
        second: terms.compute(arith.RemUIOp, (index, number)),
    }
    _substitute(kernel, new, lambda term: term)
    return name


def _extend(kernel: Kernel, axis: str, size: int, old: str, steps: int) -> None:
    """Let a new axis be known: its extent, and how results go along it."""
    # It stands for a number: the operation is in no block.
    kernel.extents[axis] = FixedExtentOp(size).result
    kernel.hints[axis] = kernel.hints[old]
    origin, times = kernel.origins.get(old, (old, 1))
    kernel.origins[axis] = origin, times * steps


def _substitute(
    kernel: Kernel, new: dict[str, Term], rule: Callable[[Term], Term]
) -> None:
    """Put terms for indices in all of a kernel, and simplify by a rule."""
    terms: Terms = kernel.terms

    def changed(term: Term) -> Term:
        if not term.free & new.keys():
            return term
        return terms.rewrite(terms.substitute(term, new), rule)

    for pass_ in kernel.passes:
        pass_.lower, pass_.upper = changed(pass_.lower), changed(pass_.upper)
        for a in pass_.accumulators:
            a.part = changed(a.part)
            a.move = None if a.move is None else changed(a.move)
        for r in pass_.pivots:
            r.start, r.value = changed(r.start), changed(r.value)
    for output in kernel.outputs:
        output.value = changed(output.value)
