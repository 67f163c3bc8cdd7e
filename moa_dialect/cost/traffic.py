"""Bytes that a loop nest moves into and out of a cache, in closed form.

The cache is fully associative, replaces the line that was not used for longest, and
fetches a line that is written. In such a cache a line is still there if fewer bytes
than the capacity were touched since it was last used. So for each loop the *footprint*
of one iteration decides: if it fits, what the next iteration touches again is there,
and the loop fetches its own footprint once; if not, each iteration fetches anew.

Everything is a formula in extents. Which side of a comparison holds is decided by
numbers for the extents; the comparisons are kept, so that the formula says when it
holds, and all regimes can be found by trying both sides.
"""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from moa_dialect.cost.algebra import (
    Expr,
    expanded,
    is_whole,
    number_of,
    parted,
    replaced,
    symbols,
)
from moa_dialect.cost.cores import at_loops, interleaved
from moa_dialect.cost.nests import (
    Access,
    Array,
    Loop,
    Nest,
    Node,
    Ranges,
    Work,
    accesses_in,
)


@dataclass(frozen=True)
class Condition:
    """A comparison that a formula depends on: whether a footprint fits.

    Attributes:
        footprint: bytes that are touched between uses.
        fits: whether they are at most the capacity.
        of: the loop, by the name of its index.
    """

    footprint: Expr
    fits: bool
    of: str

    def __str__(self) -> str:
        sign = "<=" if self.fits else ">"
        return f"{tidy(self.footprint)} {sign} C ({self.of})"


@dataclass
class Traffic:
    """Bytes between a cache and what is behind it.

    Attributes:
        fetched: for each array the bytes that come in.
        written: for each array the bytes that go out.
        conditions: the comparisons this depends on.
        values: a number for each symbol.
        roomy: the bytes of arguments and results that would come in if all caches held
            everything: of what several of them need, a copy for each.
    """

    fetched: dict[Array, Expr]
    written: dict[Array, Expr]
    conditions: list[Condition]
    values: dict[Expr, int]
    roomy: Callable[[], float]

    @property
    def total(self) -> Expr:
        """All bytes."""
        every = [*self.fetched.values(), *self.written.values()]
        return sum(every)

    @property
    def bytes(self) -> float:
        """All bytes, as a number."""
        return number_of(self.total, self.values)

    @property
    def regime(self) -> str:
        """`fits` if arguments and results are fetched once, `copied` if several caches
        fetch the same, each of them what more room would not save, else
        `capacity-bound`.
        """
        found = _of_arrays(self.fetched, self.values)
        arrays = [array for array in self.fetched if array.role != "scratch"]
        once = sum(max(number_of(a.bytes, self.values), 64.0) for a in arrays)
        if found <= 1.05 * once:
            return "fits"
        return "copied" if found <= 1.05 * self.roomy() else "capacity-bound"


def _of_arrays(fetched: dict[Array, Expr], values: dict[Expr, int]) -> float:
    """The bytes of arguments and results."""
    arrays = [array for array in fetched if array.role != "scratch"]
    return sum(number_of(fetched[array], values) for array in arrays)


def tidy(expression: Expr) -> Expr:
    """An expression as people write it."""
    import sympy as sp

    expression = sp.sympify(expression)
    if expression.has(sp.ceiling) or expression.has(sp.floor):
        return sp.factor_terms(expression)
    return sp.factor(expression)


@dataclass(frozen=True, eq=False)
class _Box:
    """Part of an array: for each axis what is fixed, and what is touched around that.

    Attributes:
        fixed: for each axis the index without loops inside and constants.
        least: for each axis the least constant.
        most: for each axis the largest one.
        spans: for each axis how many indices lie between the first and the last.
        used: for each axis how many of these are touched.
    """

    fixed: tuple[Expr, ...]
    least: tuple[int, ...]
    most: tuple[int, ...]
    spans: tuple[Expr, ...]
    used: tuple[Expr, ...]


@dataclass
class _Footprint:
    """What some nodes touch: boxes of each array, all of it and what is written."""

    all: dict[Array, list[_Box]] = field(default_factory=dict[Array, list[_Box]])
    writes: dict[Array, list[_Box]] = field(default_factory=dict[Array, list[_Box]])


FEW_LINES = 16
"""With so many lines, one more or less does not matter."""

Decide = Callable[[Expr, str], bool]


class Analysis:
    """The traffic of a nest for one capacity.

    Args:
        nest: the nest.
        line: bytes of a line.
        decide: whether a footprint, for a loop of this name, fits.
        write_allocate: whether a line is fetched before it is written.
        cores: how many cores there are, each with such a cache.
        capacity: bytes that the cache holds, 0 if that is not known.
        beside: for a loop over tasks, by identity, how many cores with a cache of their
            own are at its iterations side by side.
    """

    def __init__(
        self,
        nest: Nest,
        line: int,
        decide: Decide,
        write_allocate: bool = True,
        cores: int = 1,
        capacity: float = 0.0,
        beside: dict[int, int] | None = None,
    ) -> None:
        self.beside = beside or {}
        self.capacity = capacity
        self.nest = nest
        self.line = line
        self.decide = decide
        self.write_allocate = write_allocate
        self.cores = cores
        # What is touched depends neither on the capacity nor on lines.
        self.boxes: dict[Any, _Box] = nest.known.setdefault("boxes", {})
        self.footprints: dict[Any, _Footprint] = nest.known.setdefault("footprints", {})
        self.numbers: dict[Expr, float] = nest.known.setdefault("numbers", {})
        self.sizes: dict[Any, Expr] = {}

    def number(self, expression: Expr) -> float:
        """The number that an expression is."""
        if type(expression) in (int, float):
            return expression
        found = self.numbers.get(expression)
        if found is None:
            found = self.numbers[expression] = number_of(expression, self.nest.values)
        return found

    def integer(self, number: int) -> Expr:
        """A whole number."""
        return self.nest.algebra.integer(number)

    def smaller(self, left: Expr, right: Expr) -> Expr:
        """The smaller one, by its number."""
        return left if self.number(left) <= self.number(right) else right

    def larger(self, left: Expr, right: Expr) -> Expr:
        """The larger one, by its number."""
        return left if self.number(left) >= self.number(right) else right

    # Footprints.

    def footprint(
        self, nodes: Sequence[Node], extra: Sequence[tuple[Loop, Expr]] = ()
    ) -> _Footprint:
        """What nodes touch, while the loops in them, and the extra ones, run."""
        key = tuple(nodes), tuple(extra)
        found = self.footprints.get(key)
        if found is not None:
            return found
        found = self.footprints[key] = _Footprint()
        for access, around in accesses_in(nodes):
            box = self._box(access, around, extra)
            _merge(found.all.setdefault(access.array, []), box, self)
            if access.writes:
                _merge(found.writes.setdefault(access.array, []), box, self)
        return found

    def _box(
        self,
        access: Access,
        around: Sequence[Loop],
        extra: Sequence[tuple[Loop, Expr]],
    ) -> _Box:
        trips = {loop.index: loop.trips for loop in around}
        trips |= {loop.index: count for loop, count in extra}
        key = access, frozenset(trips.items())
        if key not in self.boxes:
            loops = {loop.index: loop for loop in around}
            for loop, count in extra:
                if count is loop.trips:
                    loops[loop.index] = loop
            self.boxes[key] = self._make_box(access, trips, loops)
        return self.boxes[key]

    def _make_box(
        self, access: Access, trips: dict[Expr, Expr], loops: dict[Expr, Loop]
    ) -> _Box:
        ranges = Ranges(self.nest.values, trips, self.nest.opaque, loops)
        fixed: list[Expr] = []
        constants: list[int] = []
        spans: list[Expr] = []
        used: list[Expr] = []
        for index, extent in zip(access.indices, access.array.shape, strict=True):
            span, count = ranges.span(index, extent)
            outside = expanded(replaced(index, dict.fromkeys(trips, 0)))
            constant, rest = parted(outside)
            has_place = is_whole(constant)
            fixed.append(rest if has_place else outside)
            constants.append(int(constant) if has_place else 0)
            spans.append(span)
            used.append(count)
        at = tuple(constants)
        return _Box(tuple(fixed), at, at, tuple(spans), tuple(used))

    def bytes_of(self, array: Array, boxes: Iterable[_Box]) -> Expr:
        """The bytes of the lines that boxes lie in."""
        key = array, tuple(boxes)
        found = self.sizes.get(key)
        if found is None:
            total: Expr = 0
            for box in key[1]:
                total += self._lines(array, box)
            whole = self.larger(array.bytes, self.integer(self.line))
            found = self.sizes[key] = self.smaller(total, whole)
        return found

    def _lines(self, array: Array, box: _Box) -> Expr:
        element = array.element_bytes
        spans: list[Expr] = []
        used: list[Expr] = []
        for k, extent in enumerate(array.shape):
            shift = box.most[k] - box.least[k]
            spans.append(self.smaller(box.spans[k] + shift, extent))
            used.append(self.smaller(box.used[k] + shift, extent))
        run: Expr = 1
        axis = len(spans) - 1
        is_sparse = False
        while axis >= 0:
            gap = self.number(spans[axis]) / max(self.number(used[axis]), 1e-9)
            if axis == len(spans) - 1 and gap > 1 and gap * element >= self.line:
                is_sparse = True
                break
            is_outer = axis < len(spans) - 1 and gap > 1
            if is_outer and self.number(run) * element >= self.line:
                break  # What lies between is lines of its own.
            run *= spans[axis]
            if self.number(spans[axis]) < self.number(array.shape[axis]):
                axis -= 1
                break
            axis -= 1
        if is_sparse:
            return prod((max(self.line, element), *used))
        outer = prod(used[: axis + 1])
        size = element * run
        number = self.number(size)
        if number < self.line:
            size = self.integer(self.line)
        elif is_whole(size):
            size = self.integer(-(-round(size) // self.line) * self.line)
        return outer * size

    def total_of(self, footprint: _Footprint) -> Expr:
        """The bytes of all that is touched."""
        every = [self.bytes_of(a, boxes) for a, boxes in footprint.all.items()]
        return self.nest.algebra.total(every)

    # Misses.

    def run(self) -> tuple[dict[Array, Expr], dict[Array, Expr]]:
        """For each array the bytes fetched, and the bytes written back."""
        fetched, written = self._sequence(self.nest.body)
        if not self.write_allocate:
            read = {a for a, _ in accesses_in(self.nest.body) if not a.writes}
            arrays = {access.array for access in read}
            fetched = {a: m for a, m in fetched.items() if a in arrays}
        return fetched, written

    def _node(self, node: Node) -> tuple[dict[Array, Expr], dict[Array, Expr]]:
        if isinstance(node, Loop):
            return self._loop(node)
        if isinstance(node, Work):
            return {}, {}
        size = self.integer(self.line)
        return {node.array: size}, ({node.array: size} if node.writes else {})

    def _loop(self, loop: Loop) -> tuple[dict[Array, Expr], dict[Array, Expr]]:
        trips = loop.trips
        body = self._sequence(loop.body)
        if not body[0]:
            return {}, {}
        if self.number(trips) <= 1:
            factor = trips if self.number(trips) < 1 else self.integer(1)
            fetched, written = (
                {a: m * factor for a, m in part.items()} for part in body
            )
            return fetched, written
        one = self.footprint(loop.body)
        size = self.total_of(one)
        whole = self.footprint([loop])
        name = f"{loop.index}".lstrip("_")
        fetched: dict[Array, Expr] = {}
        written: dict[Array, Expr] = {}
        fitting: set[Array] = set()
        for array, miss in body[0].items():
            out = body[1].get(array)
            if self.decide(self._distance(size, array, one), name):
                fitting.add(array)
                fetched[array] = self.bytes_of(array, whole.all[array])
                if out is not None:
                    written[array] = self.bytes_of(array, whole.writes[array])
                continue
            fetched[array] = miss * trips
            if out is not None:
                written[array] = out * trips
        if loop.parallel and self.cores > 1:
            for array in fitting:
                fetched[array] = self._by_each(
                    loop, fetched[array], body[0][array], one.all[array], array
                )
        return fetched, written

    def _by_each(
        self, loop: Loop, whole: Expr, body: Expr, touched: list[_Box], array: Array
    ) -> Expr:
        """What all cores fetch of an array that stays in their caches.

        A core fetches for itself what others fetch too: of what iterations have in
        common, as many times as there are cores at them.

        Args:
            loop: a loop over tasks.
            whole: what one core would fetch.
            body: what all fetch in an iteration.
            touched: what an iteration touches.
            array: the array.
        """
        own = self.number(self.bytes_of(array, touched))
        inside = max(1, round(self.number(body) / max(own, 1.0)))
        times = min(self.cores, inside * self.beside.get(id(loop), 1))
        return self.smaller(whole * times, body * loop.trips)

    def _distance(self, size: Expr, array: Array, touched: _Footprint) -> Expr:
        """The bytes between two uses of a line of an array, out of all those touched.

        While the elements of one line are used, as much of all else is as one line is
        of the array: an array of few lines comes back sooner.
        """
        own = self.number(self.bytes_of(array, touched.all[array]))
        lines = max(1, round(own / self.line))
        if lines >= FEW_LINES:
            return size
        return size * self.nest.algebra.ratio(lines - 1, lines) + self.line

    def _sequence(
        self, nodes: Sequence[Node]
    ) -> tuple[dict[Array, Expr], dict[Array, Expr]]:
        parts: list[list[Node]] = []
        for node in nodes:
            if isinstance(node, Work):
                continue
            is_leaf = isinstance(node, Access)
            if is_leaf and parts and isinstance(parts[-1][-1], Access):
                parts[-1].append(node)
            else:
                parts.append([node])
        fetched: dict[Array, Expr] = {}
        written: dict[Array, Expr] = {}
        last: dict[Array, int] = {}
        for number, part in enumerate(parts):
            if isinstance(part[0], Access):
                own = self.footprint(part)
                misses = {a: self.bytes_of(a, b) for a, b in own.all.items()}
                dirty = {a: self.bytes_of(a, b) for a, b in own.writes.items()}
            else:
                misses, dirty = self._node(part[0])
            for array, miss in misses.items():
                out = dirty.get(array)
                if array in last:
                    kept = self._kept(parts, last[array], number, array)
                    if kept is not None:
                        new_in, new_out = kept
                        own_bytes = self._own(part, array)
                        # Beyond its own footprint it misses what it lost itself.
                        miss = self.larger(
                            new_in, expanded(miss - (own_bytes - new_in))
                        )
                        if out is not None:
                            out = self.smaller(out, new_out)
                    else:
                        miss = self._turned(parts, last[array], number, array, miss)
                fetched[array] = fetched.get(array, 0) + miss
                if out is not None:
                    written[array] = written.get(array, 0) + out
                last[array] = number
        return fetched, written

    def _own(self, part: Sequence[Node], array: Array) -> Expr:
        return self.bytes_of(array, self.footprint(part).all[array])

    def _kept(
        self, parts: Sequence[Sequence[Node]], first: int, number: int, array: Array
    ) -> tuple[Expr, Expr] | None:
        """What a part fetches and dirties anew of an array that one before touched.

        None if what that one touched is no longer there.
        """
        between = [node for part in parts[first : number + 1] for node in part]
        touched = self.footprint(between)
        distance = self._distance(self.total_of(touched), array, touched)
        if not self.decide(distance, f"reuse of {array.name}"):
            return None
        before = [node for part in parts[:number] for node in part]
        after = [*before, *parts[number]]
        was, now = self.footprint(before), self.footprint(after)

        def grown(old: dict[Array, list[_Box]], new: dict[Array, list[_Box]]) -> Expr:
            had = self.bytes_of(array, old.get(array, []))
            has = self.bytes_of(array, new.get(array, []))
            rest = expanded(has - had)
            return self.larger(rest, self.integer(0))

        return grown(was.all, now.all), grown(was.writes, now.writes)

    def _turned(
        self,
        parts: Sequence[Sequence[Node]],
        first: int,
        number: int,
        array: Array,
        miss: Expr,
    ) -> Expr:
        """The misses of a part that goes the other way than the one before it.

        What that one touched last is touched first: as much of it is there as fits.
        """
        before, after = parts[first][-1], parts[number][0]
        if (
            first + 1 != number
            or not isinstance(before, Loop)
            or not isinstance(after, Loop)
            or _is_backwards(before, array) == _is_backwards(after, array)
            or self.number(miss) > 1.01 * self.number(self._own(parts[number], array))
        ):
            return miss
        return self._without(miss, parts, first, number, array)

    def _without(
        self,
        miss: Expr,
        parts: Sequence[Sequence[Node]],
        first: int,
        number: int,
        array: Array,
    ) -> Expr:
        if not self.capacity:
            return miss
        both = [*parts[first], *parts[number]]
        touched = self.footprint(both)
        own = self.bytes_of(array, touched.all[array])
        # Lines of the array for each line touched, on the way back and forth.
        share = self.number(own) / max(self.number(self.total_of(touched)), 1.0)
        kept = self.integer(int(share * self.capacity) // self.line * self.line)
        return self.larger(expanded(miss - kept), self.integer(0))


def _is_backwards(node: Loop, array: Array) -> bool:
    """Whether the loop that the array's accesses go along runs backwards."""
    for access, around in accesses_in([node]):
        if access.array is array:
            for loop in around:
                if any(loop.index in symbols(i) for i in access.indices):
                    return loop.backwards
    return node.backwards


def _merge(boxes: list[_Box], box: _Box, analysis: Analysis) -> None:
    """Add a box to others, joining it with one at the same place."""
    for number, other in enumerate(boxes):
        if other.fixed == box.fixed:
            boxes[number] = _Box(
                other.fixed,
                tuple(map(min, other.least, box.least)),
                tuple(map(max, other.most, box.most)),
                tuple(map(analysis.larger, other.spans, box.spans)),
                tuple(map(analysis.larger, other.used, box.used)),
            )
            return
    boxes.append(box)


def traffic(
    nest: Nest,
    capacity: float,
    line: int = 64,
    write_allocate: bool = True,
    cores: int = 1,
    sharers: int | None = 1,
) -> Traffic:
    """The bytes that a nest moves into and out of a cache, in the regime of its values.

    Args:
        nest: the nest.
        capacity: bytes that the cache holds.
        line: bytes of a line.
        write_allocate: whether a line is fetched before it is written.
        cores: how many cores there are.
        sharers: how many of them share one such cache; None if all do.
    """
    beside = min(cores, sharers or cores)
    if beside > 1 and not _holds_all(nest, capacity, line):
        nest = interleaved(nest, beside, cores)
    caches = -(-cores // beside)
    around: dict[int, int] = {}
    if caches > 1:
        around = at_loops(nest, caches, cores if beside == 1 else caches)
    conditions: list[Condition] = []
    seen: set[tuple[Expr, str]] = set()

    def decide(footprint: Expr, of: str) -> bool:
        fits = number_of(footprint, nest.values) <= capacity
        if (footprint, of) not in seen:
            seen.add((footprint, of))
            conditions.append(Condition(footprint, fits, of))
        return fits

    analysis = Analysis(nest, line, decide, write_allocate, caches, capacity, around)
    fetched, written = analysis.run()

    def roomy() -> float:
        every = Analysis(
            nest, line, lambda _, __: True, write_allocate, caches, 0, around
        )
        return _of_arrays(every.run()[0], nest.values)

    return Traffic(fetched, written, conditions, nest.values, roomy)


def _holds_all(nest: Nest, capacity: float, line: int) -> bool:
    """Whether all arrays fit a cache: then it does not matter in which order."""
    known = nest.known.setdefault("sizes", {})
    if line not in known:
        known[line] = sum(nest.number(array.bytes) + line for array in nest.arrays)
    return known[line] <= capacity


MOST_REGIMES = 12
"""A formula has no more cases than this; there are seldom more than four."""


def regimes(
    nest: Nest, line: int = 64, write_allocate: bool = True
) -> list[tuple[float, Expr, Expr]]:
    """All regimes of a nest, from a cache that holds nothing to one that holds all.

    Returns:
        For each regime the least capacity by the nest's values, that capacity as a
        formula, and the bytes that are moved.
    """
    thresholds: dict[float, Expr] = {0.0: nest.algebra.integer(0)}
    pending = [0.0]
    found: dict[float, Expr] = {}
    while pending and len(found) < MOST_REGIMES:
        capacity = pending.pop(0)
        if capacity in found:
            continue
        result = traffic(nest, capacity, line, write_allocate)
        found[capacity] = result.total
        for condition in result.conditions:
            size = number_of(condition.footprint, nest.values)
            if size > capacity and size not in thresholds:
                thresholds[size] = condition.footprint
                pending.append(size)
        pending.sort()
    rows: list[tuple[float, Expr, Expr]] = []
    for capacity in sorted(found):
        total = found[capacity]
        if rows and expanded(rows[-1][2] - total) == 0:
            continue
        rows.append((capacity, thresholds[capacity], total))
    return rows
