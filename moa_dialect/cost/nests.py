"""Normal forms as loop nests: loops with trip counts, accesses with index functions.

What the cost model knows of a program: which loops there are, in which order, how often
each runs, and for each access to an array its index, a function of those of loops.
Extents are symbols, or numbers where types give them; `Nest.values` has a number for
each symbol, which decides what formulas alone do not.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import ceil, prod
from typing import Any, Literal

from moa_dialect.cost import algebra
from moa_dialect.cost.algebra import (
    FORMULAS,
    Algebra,
    Expr,
    algebra_of,
    coefficient,
    expanded,
    number_of,
    replaced,
    symbols,
)

Role = Literal["argument", "result", "scratch"]


@dataclass(eq=False)
class Array:
    """An array in memory, in row-major order.

    Attributes:
        name: its name.
        shape: its extents.
        element_bytes: the size of an element.
        role: an argument, a result, or scratch memory.
        is_own: whether each core has one of its own.
    """

    name: str
    shape: tuple[Expr, ...]
    element_bytes: int
    role: Role
    is_own: bool = False

    @property
    def bytes(self) -> Expr:
        """How large it is."""
        return prod((self.element_bytes, *self.shape))


@dataclass(eq=False)
class Access:
    """A read or write of one element, each time the loops around it come there.

    Attributes:
        array: the array.
        indices: for each axis the index, of the indices of loops.
        writes: whether it writes.
        packed: whether what a chunk reads of it is copied together first.
    """

    array: Array
    indices: tuple[Expr, ...]
    writes: bool = False
    packed: bool = False


@dataclass(eq=False)
class Work:
    """Scalar operations, each time the loops around come there.

    Attributes:
        kind: `add`, `mul`, `div`, `exp`, `math` or `other`; of vector code also `load`,
            the bytes that it loads and stores, and `wait`, as many other operations as
            accumulations wait for those before.
        dtype: the element type, such as f32.
        count: how many.
    """

    kind: str
    dtype: str
    count: Expr = 1


@dataclass(eq=False)
class Loop:
    """A loop: its index runs over 0, 1, ..., trips - 1.

    Attributes:
        index: the index.
        trips: how often it runs; on average, if that depends on loops around.
        body: what it does each time, in order.
        span: how many indices of an axis all its iterations together have.
        backwards: whether the addresses go down while the index goes up.
        steps: how many indices of the axis an iteration stands for.
        parallel: whether its iterations are shared among cores.
        work: of the outermost loop over tasks of a CPU, how much work one is, in
            additions.
    """

    index: Expr
    trips: Expr
    body: list[Node] = field(default_factory=list["Node"])
    span: Expr = None
    backwards: bool = False
    steps: Expr = 1
    parallel: bool = False
    work: int | None = None


Node = Loop | Access | Work


@dataclass
class Nest:
    """A program as loop nests, one after the other.

    Attributes:
        body: the nests, in order.
        arrays: the arrays, arguments first.
        values: a number for each symbol.
        opaque: symbols that stand for indices from data.
        launches: how many kernels it is.
        scalar: those of the nests that are no vector code.
        ahead: whether what is read from memory is asked for early.
        used_bytes: for a nest how many bytes of a vector register hold something.
        in_vain: for a nest how many times more indices its lanes have than there are.
        intermediates: arrays between kernels.
        parts: for a nest how many cores have parts of the folds of a task, if several.
        sharers: for an array how many cores get what is fetched once for all of them.
        algebra: where numbers and symbols come from.
        known: what was found out about the nest, which is not changed any more.
    """

    body: list[Node]
    arrays: list[Array]
    values: dict[Expr, int]
    opaque: set[Expr] = field(default_factory=set[Any])
    launches: int = 1
    scalar: list[Node] = field(default_factory=list["Node"])
    ahead: bool = False
    used_bytes: dict[int, int] = field(default_factory=dict[int, int])
    in_vain: dict[int, float] = field(default_factory=dict[int, float])
    intermediates: set[Array] = field(default_factory=set[Array])
    parts: dict[int, int] = field(default_factory=dict[int, int])
    sharers: dict[Array, int] = field(default_factory=dict[Array, int])
    algebra: Algebra = FORMULAS
    known: dict[str, dict[Any, Any]] = field(
        default_factory=dict[str, dict[Any, Any]], init=False, repr=False
    )

    def number(self, expression: Expr) -> float:
        """The number that an expression is."""
        return number_of(expression, self.values)


def loops_in(nodes: Sequence[Node]) -> Iterator[Loop]:
    """All loops in some nodes, the outer ones first."""
    for node in nodes:
        if isinstance(node, Loop):
            yield node
            yield from loops_in(node.body)


def accesses_in(
    nodes: Sequence[Node], around: tuple[Loop, ...] = ()
) -> Iterator[tuple[Access, tuple[Loop, ...]]]:
    """All accesses in some nodes, each with the loops around it among these."""
    for node in nodes:
        if isinstance(node, Access):
            yield node, around
        elif isinstance(node, Loop):
            yield from accesses_in(node.body, (*around, node))


def counts_of(nodes: Sequence[Node]) -> dict[tuple[str, str], Expr]:
    """For each kind of operation and element type, how many there are in all."""
    found: dict[tuple[str, str], Expr] = {}

    def add(nodes: Sequence[Node], times: Expr) -> None:
        for node in nodes:
            if isinstance(node, Work):
                key = node.kind, node.dtype
                found[key] = found.get(key, 0) + times * node.count
            elif isinstance(node, Loop):
                add(node.body, times * node.trips)

    add(nodes, 1)
    return {key: expanded(count) for key, count in found.items()}


def accesses_count(nodes: Sequence[Node], writes: bool) -> Expr:
    """How many elements are read, or written, counting each time; in bytes."""
    total: Expr = 0
    for access, around in accesses_in(nodes):
        if access.writes == writes:
            times = prod(loop.trips for loop in around)
            total += access.array.element_bytes * times
    return expanded(total)


@dataclass
class Ranges:
    """How far indices go while some loops run.

    Attributes:
        values: a number for each symbol.
        trips: for the index of each loop how often it runs.
        opaque: symbols that stand for indices from data.
        loops: for the index of each loop that runs to its end the loop.
    """

    values: Mapping[Expr, int]
    trips: dict[Expr, Expr] = field(default_factory=dict[Any, Any])
    opaque: set[Expr] = field(default_factory=set[Any])
    loops: dict[Expr, Loop] = field(default_factory=dict[Any, Loop])

    def number(self, expression: Expr) -> float:
        """The number that an expression is."""
        return number_of(expression, self.values)

    def smaller(self, left: Expr, right: Expr) -> Expr:
        """The smaller one of two expressions, by their numbers."""
        return left if self.number(left) <= self.number(right) else right

    def larger(self, left: Expr, right: Expr) -> Expr:
        """The larger one of two expressions, by their numbers."""
        return left if self.number(left) >= self.number(right) else right

    def span(self, index: Expr, extent: Expr) -> tuple[Expr, Expr]:
        """How many indices of an axis lie between the first and the last, and how many
        of these are used, while the loops of `trips` run.

        Args:
            index: the index, of the indices of loops.
            extent: the extent of the axis, which is the most there can be.
        """
        free = symbols(index)
        if free & self.opaque:
            return extent, extent
        inner = [s for s in free if s in self.trips]
        if not inner:
            return 1, 1
        affine = expanded(index)
        span: Expr = 1
        used: Expr = 1
        rest = affine
        for symbol in inner:
            factor = coefficient(affine, symbol)
            if symbols(factor) & set(self.trips):
                return self._corners(index, inner, extent)
            rest -= factor * symbol
            span += abs(factor) * (self.trips[symbol] - 1)
            used *= self.trips[symbol]
        if symbols(expanded(rest)) & set(inner):
            return self._corners(index, inner, extent)
        whole = self._whole_axis(affine, inner)
        if whole is not None:
            span = used = whole
        span = self.smaller(expanded(span), extent)
        return span, self.smaller(used, span)

    def _whole_axis(self, index: Expr, inner: Sequence[Expr]) -> Expr | None:
        """The length of the axis if an index is one of it, cut into parts.

        In `c t + q` with q < c, all loops together go along what the loop of t does.
        """
        factors = {symbol: abs(coefficient(index, symbol)) for symbol in inner}
        first = max(inner, key=lambda symbol: self.number(factors[symbol]))
        loop = self.loops.get(first)
        if (
            loop is None
            or loop.span is None
            or self.number(loop.steps) <= 1
            or expanded(factors[first] - loop.steps) != 0
        ):
            return None
        parts = prod(self.trips[symbol] for symbol in inner if symbol != first)
        is_all = _close(self.number(parts * loop.trips), self.number(loop.span))
        return loop.span if is_all and len(inner) > 1 else None

    def _corners(
        self, index: Expr, inner: Sequence[Expr], extent: Expr
    ) -> tuple[Expr, Expr]:
        """The same for an index that is not affine, by the ends of the loops."""
        if algebra.is_floor(index) and len(inner) == 1:
            (argument,) = index.args
            factor = coefficient(expanded(argument), inner[0])
            span = algebra.ceiling(self.trips[inner[0]] * factor)
            span = self.smaller(span, extent)
            return span, span
        found: list[float] = []
        for ends in product((0, 1), repeat=min(len(inner), 6)):
            at = {
                symbol: max(0, ceil(self.number(self.trips[symbol])) - 1) * end
                for symbol, end in zip(inner, ends, strict=False)
            }
            others = {s: 0 for s in inner if s not in at}
            value = replaced(index, {**at, **others})
            unknown = {s: 0 for s in symbols(value) if s not in self.values}
            found.append(self.number(replaced(value, unknown)))
        of = algebra_of(index)
        span = self.smaller(of.integer(round(max(found) - min(found)) + 1), extent)
        return span, span


def average(
    expression: Expr, loops: Sequence[Loop], values: Mapping[Expr, int]
) -> Expr:
    """The average of an expression over the iterations of loops around.

    Args:
        expression: what depends on the indices of loops.
        loops: the loops around, outermost first.
        values: a number for each symbol.
    """
    for loop in reversed(loops):
        if loop.index in symbols(expression):
            expression = _average_over(expression, loop, loops, values)
    return expression


def _average_over(
    expression: Expr, loop: Loop, loops: Sequence[Loop], values: Mapping[Expr, int]
) -> Expr:
    index, trips = loop.index, loop.trips
    others = [s for s in symbols(expression) if s not in values and s != index]
    if not others and loop.span is not None and not algebra.is_numeric(expression):
        # The parts that a range is cut into, the last one shorter, have a formula.
        mean = _sampled(expression, loop, values)
        whole = loop.span / trips
        if not symbols(whole) - set(values) and _close(mean, number_of(whole, values)):
            return whole
    of = algebra_of(expression)
    terms = algebra.summands(expression)
    if len(terms) > 1:
        return of.total(
            average(term, loops, values) if index in symbols(term) else term
            for term in terms
        )
    factors = algebra.factors(expression)
    free = [factor for factor in factors if index not in symbols(factor)]
    rest = [factor for factor in factors if index in symbols(factor)]
    if len(rest) == 1 and free:
        return of.product((*free, _average_over(rest[0], loop, loops, values)))
    if expression == index:
        return (trips - 1) / 2
    if algebra.extreme(expression) and not others:
        found = _average_of_extreme(expression, loop, values)
        if found is not None:
            return found
    if others:
        return replaced(expression, {index: (trips - 1) / 2})
    return _plain(_sampled(expression, loop, values), of)


def _average_of_extreme(
    expression: Expr, loop: Loop, values: Mapping[Expr, int]
) -> Expr | None:
    """The average of `min(a, i + c)` or `max(a, i + c)` over i, in closed form.

    From i = k = a - c on, i + c is not the smaller one: the sum of the smaller ones is
    `k (k - 1) / 2 + c k + (n - k) a`.
    """
    index, n = loop.index, loop.trips
    if len(expression.args) != 2:
        return None
    moving = [a for a in expression.args if index in symbols(a)]
    fixed = [a for a in expression.args if index not in symbols(a)]
    if len(moving) != 1 or coefficient(expanded(moving[0]), index) != 1:
        return None
    a, c = fixed[0], expanded(moving[0] - index)
    if index in symbols(c):
        return None
    k = a - c
    number = number_of(k, values)
    if number >= number_of(n, values):
        least = (n - 1) / 2 + c
    elif number <= 0:
        least = a
    else:
        least = expanded(k * (k - 1) / 2 + c * k + (n - k) * a) / n
    if algebra.extreme(expression) == "min":
        return expanded(least)
    return expanded(a + (n - 1) / 2 + c - least)


MOST_SAMPLES = 512
"""So many indices of a loop are enough for an average."""


def _sampled(expression: Expr, loop: Loop, values: Mapping[Expr, int]) -> float:
    """The average by evaluation, of some indices."""
    count = max(1, ceil(number_of(loop.trips, values) - 1e-9))
    step = max(1, count // MOST_SAMPLES)
    function = algebra.evaluator(expression, loop.index, values)
    found = [float(function(i)) for i in range(0, count, step)]
    return sum(found) / len(found)


def _plain(value: float, of: Algebra) -> Expr:
    """A number as a fraction, if it is a short one."""
    if of is not FORMULAS:
        return value
    found = Fraction(value).limit_denominator(1024)
    if _close(float(found), value):
        return of.ratio(found.numerator, found.denominator)
    return of.integer(0) + value


def _close(left: float, right: float) -> bool:
    return abs(left - right) <= 1e-6 * max(1.0, abs(left), abs(right))
