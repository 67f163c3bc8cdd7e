"""moa-lift: which axes of a kernel go to lanes, registers, chunks and tasks.

To lift an axis is to reshape the index space: `i -> <procs, regs, lanes>`. A schedule
says for each axis which resources its parts are bound to. It is chosen in closed form:
the cost model tells the time of each schedule that could be, and the least time wins.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, isqrt, prod

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, UnitAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from moa_dialect.cost.estimate import Estimator
from moa_dialect.errors import CompileError
from moa_dialect.lowering.chips import LARGEST
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp
from moa_dialect.options import AUTO
from moa_dialect.passes.grid import (
    TIERS,
    Grid,
    check_fits,
    choose_grid,
    products_of_outputs,
    read_grid,
    rows_of,
    share_named,
    split_of,
)
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import (
    BY_HAND,
    FEW_ROWS,
    FEW_SCHEDULE,
    OTHER_SCHEDULE,
    SCHEDULE,
    Kernel,
    Output,
    Pass,
    all_terms,
    known_number,
    read_kernel,
    split_folds,
    static_extent,
)
from moa_dialect.passes.machine import Machine, machine_named
from moa_dialect.passes.nests import flattened
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import (
    Schedule,
    axes_in,
    element_bytes,
    is_for,
    last_axis,
    names_of,
    parse_schedule,
)
from moa_dialect.passes.share_rows import find_shared, share_rows
from moa_dialect.passes.skips import taking_part
from moa_dialect.passes.statement_lanes import have_lanes, is_read_in_turn
from moa_dialect.passes.strides import (
    advances,
    is_affine,
    spelled,
    step,
    turning_axis,
)
from moa_dialect.passes.terms import (
    Folded,
    NotATerm,
    Term,
    narrow_factors,
    walk,
)
from moa_dialect.passes.to_onf import PARTS
from moa_dialect.passes.work import NOMINAL_EXTENT

TILE_BYTES = 1 << 18
"""A tile that is larger than this is none."""


_UNKNOWN = 1024
"""What an extent counts as that types do not give: such rows are long as a rule."""


def _nominal(value: SSAValue) -> int:
    found = static_extent(value)
    return _UNKNOWN if found is None else found


_MOST_INSIDE = 2
"""How much more work folded axes in the lanes may be where extents are not to count."""


def _indices_below(kernel: Kernel, upper: Term, nominal: bool = False) -> int:
    """How many indices there are from 0 up to a bound at most, about."""
    sizes = [
        _nominal(term.kind) if isinstance(term.kind, SSAValue) else int(term.kind)
        for term in walk(upper)
        if isinstance(term.kind, SSAValue | int)
        and not isinstance(term.kind, bool)
        and term.type == upper.type
    ]
    # As many as an index of the kernel may be, where the bound depends on it.
    sizes += [
        NOMINAL_EXTENT if nominal else _nominal(kernel.extents[axis])
        for axis in kernel.axes
        if axis in upper.free
    ]
    return max(sizes, default=NOMINAL_EXTENT)


def _range_of(kernel: Kernel, pass_: Pass, nominal: bool = False) -> int:
    """How many indices a pass has at most, about."""
    return _indices_below(kernel, pass_.upper, nominal)


def candidates(
    kernel: Kernel, machine: Machine, nominal: bool = False
) -> list[Schedule]:
    """The schedules to choose from; with `nominal` as if extents were not known."""
    lanes = machine.vector_bytes // element_bytes(kernel)
    has_folds = any(t.is_fold for o in kernel.outputs for t in walk(o.value))
    found: list[Schedule] = []
    for axis in kernel.axes:
        extent = None if nominal else static_extent(kernel.extents[axis])
        most = lanes if extent is None else min(lanes, _power_above(extent))
        for vectors in range(1, 5):
            if vectors > 1 and extent is not None and most * vectors > extent:
                break
            plain = _schedule(
                kernel, kernel.hints[axis], most, vectors, machine, nominal
            )
            if _has_code(kernel, axis) and _has_room(kernel, axis, plain):
                found.append(plain)
            is_even = not _bounds(kernel, axis)
            if has_folds and not kernel.passes and not nominal and is_even:
                found += _blocked(kernel, axis, plain)
            is_plain = not has_folds and not kernel.passes and not nominal
            if is_plain and vectors == 1:
                found += _squares(kernel, axis, plain)
        if not kernel.passes and extent is not None and _is_in_rows(kernel, axis):
            # Where rows are read once, long pieces of them at a time.
            one = _schedule(kernel, kernel.hints[axis], most, 1, machine)
            longer = [
                replace(one, vectors=vectors, registers=1)
                for vectors in _LONGER
                if most * vectors * machine.cores <= extent
            ]
            found += [s for s in longer if _has_room(kernel, axis, s)]
            if has_folds and not nominal and not _bounds(kernel, axis):
                found += _few_rows(kernel, axis, longer, machine)
    if kernel.passes:
        longest = max(_range_of(kernel, pass_, nominal) for pass_ in kernel.passes)
        most = min(lanes, _power_below(longest))
        for vectors in range(1, 5):
            if vectors > 1 and most * vectors > longest:
                break
            found.append(_schedule(kernel, "", most, vectors, machine, nominal))
    if not nominal:
        return found
    # Where a chunk begins otherwise than the one of another lane, so would its pairs.
    is_even = all(pass_.lower.number == 0 for pass_ in kernel.passes)
    return [replace(s, aligned=True, pairs=s.pairs and is_even) for s in found]


def _has_code(kernel: Kernel, lane: str) -> bool:
    """Whether what passes fold differs between lanes where their bounds do."""
    return all(
        lane in accumulator.part.free
        for pass_ in kernel.passes
        if lane in pass_.lower.free | pass_.upper.free
        for accumulator in pass_.accumulators
    )


def _has_room(kernel: Kernel, lane: str, schedule: Schedule) -> bool:
    """Whether a kernel without passes has code with an axis in the lanes.

    What is turned has to fit into tiles, for whole folds, and folds have the same
    bounds in all lanes.
    """
    if kernel.passes:
        return True
    if _bounds(kernel, lane):
        return False
    folds = {
        term.kind.index: _static_length(term)
        for term in all_terms(kernel)
        if isinstance(term.kind, Folded)
    }
    for term in all_terms(kernel):
        if not term.computes(AtOp.name) or lane not in term.free:
            continue
        if advances(term, lane):
            continue
        lengths = [folds.get(axis, 1) for axis in term.free]
        if 0 in lengths:
            return False
        size = prod(lengths) * schedule.width * element_bytes(kernel)
        if size > TILE_BYTES:
            return False
    return True


def _bounds(kernel: Kernel, axis: str) -> bool:
    """Whether the bounds of a fold in the results depend on an axis."""
    return any(
        axis in bound.free
        for term in walk(*(output.value for output in kernel.outputs))
        if term.is_fold
        for bound in term.args[:2]
    )


def _static_length(fold: Term) -> int:
    """How many indices a fold from 0 has, 0 if types do not give it."""
    lower, upper = fold.args[:2]
    return (known_number(upper) or 0) if lower.number == 0 else 0


def _is_in_rows(kernel: Kernel, axis: str) -> bool:
    """Whether a kernel has folds, and all that it reads lies in rows along an axis."""
    found = all_terms(kernel)
    return any(term.is_fold for term in found) and all(
        advances(term, axis)
        for term in found
        if term.computes(AtOp.name) and axis in term.free
    )


def _blocked(kernel: Kernel, lane: str, plain: Schedule) -> list[Schedule]:
    """The schedules in which a task has several indices of another axis."""
    found: list[Schedule] = []
    # Of axes that take the same time the innermost one: it has more indices as a rule.
    for axis in reversed(kernel.axes):
        extent = static_extent(kernel.extents[axis])
        if axis == lane or _bounds(kernel, axis) or extent in (0, 1):
            continue
        registers = plain.registers
        if _are_anywhere(kernel, lane, axis):
            registers = min(registers, _ROWS_ANYWHERE)
        if extent is None:
            # How many blocks are even is seen when it runs.
            block = _BLOCK // registers * registers
        else:
            registers = min(registers, extent)
            even = ceil(extent / ceil(extent / _BLOCK))
            block = min(extent, ceil(even / registers) * registers)
        found.append(
            replace(
                plain,
                registers=registers,
                chunk=_DEEP,
                blocked=kernel.hints[axis],
                block=block,
            )
        )
    return found


def _few_rows(
    kernel: Kernel, lane: str, longer: Sequence[Schedule], machine: Machine
) -> list[Schedule]:
    """The schedules in which a task has a few rows whole, and long pieces for them.

    All sums are in registers: what the rows share is read once.
    """
    found: list[Schedule] = []
    for axis in kernel.axes:
        extent = static_extent(kernel.extents[axis])
        if axis == lane or extent is None or extent < 2 or _bounds(kernel, axis):
            continue
        found += [
            replace(
                schedule,
                registers=extent,
                chunk=_DEEP,
                blocked=kernel.hints[axis],
                block=extent,
            )
            for schedule in longer
            if (schedule.vectors + 1) * extent < machine.registers
        ]
    return found


def _squares(kernel: Kernel, lane: str, plain: Schedule) -> list[Schedule]:
    """The schedules in which a task turns squares, as where axes change places."""
    loads = [term for term in all_terms(kernel) if term.computes(AtOp.name)]
    strided = [t for t in loads if lane in t.free and not advances(t, lane)]
    found: list[Schedule] = []
    for axis in kernel.axes:
        extent = static_extent(kernel.extents[axis])
        if axis == lane or (extent is not None and extent < plain.lanes):
            continue
        if any(advances(term, axis) for term in strided):
            name = kernel.hints[axis]
            found.append(replace(plain, blocked=name, block=plain.lanes))
    return found


_LONGER = (8, 16)
"""How many vectors may be in the lanes where there are sums of one row only."""

_BLOCK = 384
"""The most indices of an axis that a task has, with the sums in the second cache."""

_DEEP = 256
"""How many indices of a folded axis are summed before sums go back to memory."""


_STREAMS_READ = 12
"""How many rows are read side by side at most: the ways of a first-level cache."""


def _power_below(number: int) -> int:
    """The largest power of 2 that is not more than a number, 1 for 0."""
    return 1 << max(number.bit_length() - 1, 0)


def _power_above(number: int) -> int:
    """The smallest power of 2 that is not less than a number: some lanes have none."""
    return 1 << max(number - 1, 0).bit_length()


def _schedule(
    kernel: Kernel,
    lane: str,
    lanes: int,
    vectors: int,
    machine: Machine,
    nominal: bool = False,
) -> Schedule:
    """The schedule with these lanes: registers and first-level cache are used up.

    A contraction needs an accumulator for each copy and vector, one vector for each of
    the lanes and one for the broadcast: v r + v + 1 registers.
    """
    registers = max(1, (machine.registers - 1 - vectors) // vectors)
    registers = min({9: 8}.get(registers, registers), _STREAMS_READ)
    rows = {pass_.index for pass_ in kernel.passes}
    along = kernel.named(lane)
    if along and any(_are_anywhere(kernel, along, axis) for axis in rows):
        registers = min(registers, _ROWS_ANYWHERE)
    if not nominal:
        registers = _even(kernel, registers, vectors)
    width = lanes * vectors * element_bytes(kernel)
    ranges = [_range_of(kernel, pass_, nominal) for pass_ in kernel.passes]
    longest = max(ranges, default=1)
    if lane:
        chunk = machine.l1_bytes // 2 // width
        chunk = max(registers, min(chunk, 96) // registers * registers)
        chunk = min(chunk, max(longest, 1))
    else:
        # Two kilobytes or so, which are read in turns with what is computed of them.
        chunk = max(1, min(machine.l1_bytes // 4 // width, 32 // vectors))
        # What is read over a row axis has a tile for each of its elements.
        accumulators = [a for pass_ in kernel.passes for a in pass_.accumulators]
        axes = {axis for a in accumulators for axis in a.axes}
        rows = prod(_nominal(kernel.extents[axis]) for axis in axes)
        chunk = max(1, min(chunk, TILE_BYTES // width // max(rows, 1)))
        registers = min(registers, 4)
    pairs = machine.has_bf16_dot and multiplies_bf16(kernel)
    return Schedule(lane, lanes, vectors, registers, chunk, pairs=pairs)


_ROWS_ANYWHERE = 6
"""How many rows are read side by side at most if how far apart they are is not known.

Each takes a general register for its address.
"""


def _are_anywhere(kernel: Kernel, lane: str, axis: str) -> bool:
    """Whether rows along an axis are read, without lanes, types not giving how far."""
    return any(
        step(load, axis) is None
        for load in all_terms(kernel)
        if load.computes(AtOp.name) and axis in load.free and lane not in load.free
    )


def _even(kernel: Kernel, registers: int, vectors: int) -> int:
    """As many indices at a time as leave no rest of rows, if that fills pipelines."""
    axes = {axis for p in kernel.passes for a in p.accumulators for axis in a.axes}
    extents = [static_extent(kernel.extents[axis]) for axis in axes]
    for fewer in range(registers, 0, -1):
        if vectors * fewer < _CHAINS:
            break
        if all(extent is not None and extent % fewer == 0 for extent in extents):
            return fewer
    return registers


_CHAINS = 8
"""How many sums have to be in progress for none to wait for the one before."""


def multiplies_bf16(kernel: Kernel) -> bool:
    """Whether a kernel sums products of bf16 in f32."""
    accumulators = [a for pass_ in kernel.passes for a in pass_.accumulators]
    sums = [a.part for a in accumulators if a.function == "add"]
    for term in all_terms(kernel):
        if term.is_fold and term.function == StringAttr("add"):
            sums.append(term.args[2])
    return any(narrow_factors(term) is not None for term in sums)


def choose(
    kernel: Kernel, machine: Machine, deterministic: bool = False
) -> Schedule | None:
    """The schedule that takes the least time, None if there is none.

    With `deterministic` it depends on what one element of the results takes, not on how
    many there are, nor on the number of cores.
    """
    if deterministic:
        return _choose_nominal(kernel, machine)
    estimator, found = Estimator(kernel, machine.description), weighed(kernel, machine)
    best = estimator.best(found)
    if best is None or not best.lane or not _hides(kernel):
        return best
    most = (1 + _NARROWER) * estimator.seconds(best)
    narrow = [
        s
        for s in found
        if (s.lane, s.lanes) == (best.lane, best.lanes)
        and s.vectors <= best.vectors
        and estimator.least(s) <= most
        and estimator.seconds(s) <= most
    ]
    return min(narrow, key=lambda s: s.vectors)


_NARROWER = 0.04
"""How much longer fewer lanes may take by the model where data hides indices of a pass.

Of what is hidden from some lanes only the others' indices are visited in vain.
"""


def _hides(kernel: Kernel) -> bool:
    """Whether some indices of a pass take no part, which data says."""
    return any(taking_part(kernel.terms, pass_) for pass_ in kernel.passes)


def weighed(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The schedules that are weighed, with folded axes in the lanes too."""
    found = [*candidates(kernel, machine), *_inside(kernel, machine)]
    return list(dict.fromkeys(found))


def _inside(kernel: Kernel, machine: Machine, nominal: bool = False) -> list[Schedule]:
    """The schedules with folded axes in the lanes: every fold is a pass then."""
    copy = kernel.copy()
    split_folds(copy)
    return [s for s in candidates(copy, machine, nominal) if not s.lane]


def _choose_nominal(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule that would be chosen for some number of results, on one core."""
    alone = replace(machine, cores=1).description.limited(1)
    estimator = Estimator(kernel, alone, NOMINAL_EXTENT)
    best = estimator.best(candidates(kernel, machine, nominal=True))
    inside = estimator.best(_inside(kernel, machine, nominal=True))
    if inside is None or best is None:
        return inside or best
    # Should there be one element, others would have all lanes but one in vain.
    most = _MOST_INSIDE * estimator.seconds(best)
    return inside if estimator.seconds(inside) < most else best


def choose_any(
    read: Callable[[], Kernel], machine: Machine
) -> tuple[Schedule | None, Kernel]:
    """The schedule that takes the least time, and the kernel it is one of.

    Args:
        read: reads the kernel, of which indices that read the same may become an axis.
        machine: the machine.
    """
    kernels = [read() for _ in range(4)]
    ways = (choose, choose_shared, choose_each, choose_columns)
    chosen = [way(kernel, machine) for way, kernel in zip(ways, kernels, strict=True)]
    pairs = zip(chosen, kernels, strict=True)
    found = [(schedule, kernel) for schedule, kernel in pairs if schedule is not None]
    if len(found) < 2:
        return found[0] if found else (None, kernels[0])

    def seconds(one: tuple[Schedule, Kernel]) -> float:
        schedule, kernel = one
        return Estimator(kernel, machine.description).seconds(schedule)

    return min(found, key=seconds)


def narrowed(kernel: Kernel, schedule: Schedule) -> Schedule:
    """A schedule without lanes that have no index: what the others do is the same."""
    name = kernel.named(schedule.lane)
    extent = static_extent(kernel.extents[name]) if name else None
    if extent is None:
        return schedule
    lanes = min(schedule.lanes, _power_below(extent))
    vectors = max(1, min(schedule.vectors, extent // lanes))
    return replace(schedule, lanes=lanes, vectors=vectors)


def choose_shared(kernel: Kernel, machine: Machine) -> Schedule | None:
    """A schedule with indices in the lanes that read the same, None if none is better.

    Then what they share is read once for all of them, and broadcast. With folded axes
    in the lanes it would be read, and turned, for each of them. The axis that is rows
    without goes to the lanes alone if it fills them.

    Args:
        kernel: the kernel; those indices are an axis of it afterwards.
        machine: the machine.
    """
    rows = rows_of(kernel)
    lanes = machine.vector_bytes // element_bytes(kernel)
    if not kernel.passes or (rows and _nominal(kernel.extents[rows]) >= lanes):
        return None
    shared = find_shared(kernel, rows)
    if shared is None:
        return None
    axis = share_rows(kernel, shared)
    count = _nominal(kernel.extents[axis])
    lanes = min(lanes, 2 * _power_below(count - 1))
    vectors = min(4, ceil(count / lanes))
    schedule = _schedule(kernel, kernel.hints[axis], lanes, vectors, machine)
    registers = 2 * _STREAMS if schedule.pairs else _STREAMS
    return replace(schedule, registers=registers, chunk=_LONG, ahead=True)


_MOST_VECTORS = 8
"""How many vectors have their sums in registers at most."""


def choose_each(kernel: Kernel, machine: Machine) -> Schedule | None:
    """A schedule whose statements have lanes of their own; None if there is none.

    It is for few rows of products of matrices, which would leave most lanes empty: a
    task has all of them, and reads what they share once. A kernel without axes is one
    row, and where no axis is rows, accumulators that are arrays are those of one.

    Args:
        kernel: the kernel; what reads the same may be an axis of it afterwards.
        machine: the machine.
    """
    if not kernel.axes and not kernel.passes:
        split_folds(kernel, ())
    rows = rows_of(kernel)
    lanes = machine.vector_bytes // element_bytes(kernel)
    axes = {axis for p in kernel.passes for a in p.accumulators for axis in a.axes}
    if not kernel.passes or not (rows or axes or not kernel.axes):
        return None
    shared = find_shared(kernel, rows) if rows else None
    if shared is not None:
        rows = share_rows(kernel, shared)
    count = static_extent(kernel.extents[rows]) if rows else 1
    if not count or count > lanes:
        return None
    pairs = machine.has_bf16_dot and multiplies_bf16(kernel)
    if count == 1:
        rows = ""
    if not have_lanes(kernel, rows, lanes):
        return None
    longest = max(_range_of(kernel, pass_) for pass_ in kernel.passes)
    chunk = min(2 * _LONG, ceil(max(longest, 1) / lanes) * lanes)
    columns = prod(_nominal(kernel.extents[axis]) for axis in axes)
    if count * max(columns, chunk) * element_bytes(kernel) > TILE_BYTES:
        return None
    # Sums of several rows and vectors are in half of the registers, as many of either
    # as there are of the other: then they read least.
    sums = machine.registers // 2
    vectors = max(2 * _power_below(isqrt(sums - 1)), _power_below(sums // count))
    vectors = min(vectors, _MOST_VECTORS)
    registers = min(count, sums // vectors)
    return Schedule(
        "",
        lanes,
        vectors,
        registers,
        chunk,
        kernel.hints[rows] if rows else "",
        count,
        pairs=pairs,
        ahead=True,
        each=True,
    )


def choose_columns(kernel: Kernel, machine: Machine) -> Schedule | None:
    """A schedule with sums of few rows and many columns in memory; None if none is.

    It is for products of few rows, which read an array once, and take no longer than
    that if they read it in long pieces. Statements have lanes of their own.
    """
    return Estimator(kernel, machine.description).best(in_pieces(kernel, machine))


def choose_few(
    kernel: Kernel, machine: Machine, usual: Schedule
) -> tuple[Schedule, int | None] | None:
    """A schedule for few rows, where types do not give how many there are.

    Args:
        kernel: the kernel.
        machine: the machine.
        usual: the schedule of other numbers of rows.

    Returns:
        The schedule, which takes less time for as many columns as are usual, and up to
        how many rows; None instead of a number if types give it. None if it is of no
        use.
    """
    schedules = in_pieces(kernel, machine, unknown=True)
    found = rows_and_columns(kernel)
    if not schedules or found is None:
        return None
    rows, _ = found
    if not rows or static_extent(kernel.extents[rows]) is not None:
        estimator = Estimator(kernel, machine.description)
        best = estimator.best(schedules)
        if best is None or estimator.seconds(best) >= estimator.seconds(usual):
            return None
        return best, None
    most = 0
    few = schedules[0]
    for count in (1, 4, 8, 12, 16, 24, 32):
        if count > schedules[0].block:
            break
        estimator = Estimator(kernel, machine.description, sizes={rows: count})
        best = estimator.best(schedules)
        if best is None or estimator.seconds(best) >= estimator.seconds(usual):
            break
        few, most = best, count
    return (few, most) if most else None


def in_pieces(
    kernel: Kernel, machine: Machine, unknown: bool = False
) -> list[Schedule]:
    """The schedules whose tasks have few rows whole, and pieces of columns.

    If the extents of either are `unknown` they are for few rows and columns enough.
    """
    found = rows_and_columns(kernel)
    if found is None:
        return []
    rows, columns = found
    lanes = machine.vector_bytes // element_bytes(kernel)
    count = static_extent(kernel.extents[rows]) if rows else 1
    extent = static_extent(kernel.extents[columns])
    if unknown != (count is None or extent is None):
        return []
    count = min(_FEW, 2 * lanes) if count is None else count
    if not 0 < count <= 2 * lanes or (extent is not None and extent < 2 * lanes):
        return []
    if count == 1:
        rows = ""
    copy = kernel.copy()
    split_folds(copy, (columns,))
    if any(t.is_fold for o in copy.outputs for t in walk(o.value)):
        return []
    if not copy.passes or not have_lanes(copy, rows, lanes, columns):
        return []
    if not all(
        advances(load, columns)
        for output in copy.outputs
        for load in walk(output.value)
        if load.computes(AtOp.name) and columns in load.free
    ):
        return []
    # The fewer rows, the longer the pieces of them; of many four at a time.
    groups = ceil(count / (_ROWS_ALONE if count <= _ROWS_ALONE else _ROWS_AT_A_TIME))
    registers = ceil(count / groups)
    sums = machine.registers // 2
    if registers > 1:
        sums += sums // 2
    vectors = max(1, _power_below(sums // registers))
    pairs = machine.has_bf16_dot and multiplies_bf16(kernel)
    size = element_bytes(kernel)
    longest = max(_range_of(copy, pass_) for pass_ in copy.passes)
    is_along = all(
        is_read_in_turn(a.part, columns) for p in copy.passes for a in p.accumulators
    )
    if not is_along and count == 1:
        return []  # Nothing is shared.
    chunk = _SIDE_BY_SIDE
    if not is_along:
        chunk = _power_below(_ROWS_BYTES // size // count)
        chunk = min(max(lanes, chunk), 8 * _LONG, ceil(max(longest, 1) / lanes) * lanes)
    schedules: list[Schedule] = []
    for parts in (1, 2, 4, 8):
        tasks = parts * machine.cores
        piece = _PIECE // parts
        if extent is not None:
            piece = ceil(extent / tasks / (vectors * lanes)) * vectors * lanes
        is_long = extent is not None and piece > extent
        if is_long or (piece + 2 * lanes) * count * size > TILE_BYTES // 2:
            continue
        schedules.append(
            Schedule(
                "",
                lanes,
                vectors,
                registers,
                # Where all sums are in registers nothing is read in between.
                _DEEP if is_along and piece == vectors * lanes else chunk,
                kernel.hints[rows] if rows else "",
                count,
                pairs=pairs,
                ahead=count > 1,
                each=True,
                columns=kernel.hints[columns],
                piece=piece,
            )
        )
    return schedules


_ROWS_AT_A_TIME = 4
"""How many rows have their sums in registers, where a task has some."""

_ROWS_ALONE = 6
"""How many at most if these are all."""

_FEW = 32
"""How many rows are few, at most, if types do not give how many there are."""

_PIECE = 512
"""How many columns a piece has at most, if types do not give how many there are."""

_SIDE_BY_SIDE = 8
"""How many rows are read side by side, a piece of each, where pieces are long."""

_ROWS_BYTES = 16 << 10
"""How many bytes of the few rows a chunk has: a part of the first cache."""


def rows_and_columns(kernel: Kernel) -> tuple[str, str] | None:
    """The rows of a product, or none, and the columns; None if it is no product.

    Results lie next to each other along the columns.
    """
    if kernel.passes or not kernel.axes or kernel.origins:
        return None
    last = {last_axis(kernel, output) for output in kernel.outputs}
    if len(last) != 1 or any(output.axes for output in kernel.outputs):
        return None
    (columns,) = last
    if not columns:
        return None
    others = [axis for axis in reversed(kernel.axes) if axis != columns]
    rows = next((a for a in others if products_of_outputs(kernel, a, columns)), "")
    return rows, columns


def strided_loads(kernel: Kernel, schedule: Schedule) -> list[tuple[Term, str]]:
    """The loads whose lanes lie a fixed step apart that is not 1, with no turn.

    Each with the axis in the lanes. There is a turn where the load depends on an axis
    of a tile besides, along which its addresses advance by 1: then squares are read
    along that and transposed in registers.

    Args:
        kernel: the kernel; its folds are passes, if folded axes are in the lanes.
        schedule: the schedule.
    """
    if schedule.each:
        return []  # Other axes are not in the lanes of a statement.
    lane, blocked = kernel.named(schedule.lane), kernel.named(schedule.blocked)
    grid = {axis for axis in kernel.axes if axis != blocked}
    places: list[tuple[str, list[Term]]] = []
    for pass_ in kernel.passes:
        parts = [a.part for a in pass_.accumulators]
        places.append((lane or pass_.index, parts))
    for output in kernel.outputs:
        along = lane or (output.axes[-1] if output.axes else "")
        places.append((along, [output.value]))
    found: dict[tuple[Term, str], None] = {}
    for axis, roots in places:
        for term in walk(*roots):
            if (
                term.computes(AtOp.name)
                and axis in term.free
                and is_affine(term, axis)
                and not advances(term, axis)
                and turning_axis(term, {*grid, axis}) is None
            ):
                found[term, axis] = None
    return list(found)


def strided_stores(kernel: Kernel, schedule: Schedule) -> list[Output]:
    """The results whose lanes do not lie next to each other, with no turn."""
    lane, blocked = kernel.named(schedule.lane), kernel.named(schedule.blocked)
    turned = {blocked} if 2 * schedule.block >= schedule.lanes else set[str]()
    return [
        output
        for output in kernel.outputs
        if lane
        and (last := last_axis(kernel, output)) not in ("", lane)
        and last not in {*output.axes, *turned}
    ]


def refuse_strided(
    comprehension: ComprehensionOp, function: FuncOp, text: str, machine: Machine
) -> None:
    """The lint of a schedule by hand: lanes that lie apart are to be turned.

    Raises:
        CompileError: if a load has strided lanes and no turn; says which, how far they
            are apart, and what it would cost.
    """

    def read() -> Kernel:
        return read_kernel(comprehension, function)

    kernel, costs = read(), machine.description
    share_named(kernel, text)
    schedule = parse_schedule(text, *names_of(kernel))
    taken = Estimator(kernel, costs).seconds(schedule)
    if not schedule.lane:
        split_folds(kernel)  # So it is run.
    loads = strided_loads(kernel, schedule)
    stores = strided_stores(kernel, schedule)
    if not loads and not stores:
        return
    names = dict(kernel.hints)
    names |= {pass_.index: pass_.hint for pass_ in kernel.passes}
    if loads:
        load, axis = loads[0]
        what, how, far = spelled(load, names), "load", step(load, axis)
    else:
        axis, how, far = kernel.named(schedule.lane), "store", None
        what = f"result {stores[0].number}"
    best, other = choose_any(read, machine)
    least = taken if best is None else Estimator(other, costs).seconds(best)
    message = (
        f"schedule: the lanes of {what} along {names[axis]} lie "
        f"{'a row' if far is None else far} apart, not 1, and no axis of a tile turns "
        f"them: {schedule.lanes} {how}s of one element instead of one {how}, "
        f"{taken * 1e6:.3g} us in all"
    )
    if least < taken:
        message += f", where {best} takes {least * 1e6:.3g} us"
    raise CompileError(message)


_STREAMS = 8
"""How many rows of an array are read side by side where all is read once.

At each step each gives four bytes, which pairs of bf16 are as well; so a step asks for
half a line, and for a whole one with pairs, of which there are half as many steps.
"""

_LONG = 128
"""How many of them a chunk has then."""


@contextmanager
def _named(function: FuncOp) -> Generator[None]:
    """Let errors about a schedule by hand say which function it does not fit."""
    try:
        yield
    except CompileError as error:
        raise CompileError(f"@{function.sym_name.data}: {error}") from None


def _schedule_few(
    op: ComprehensionOp, kernel: Kernel, machine: Machine, schedule: Schedule
) -> None:
    """Say how a comprehension runs with few rows, if that differs."""
    few = choose_few(kernel, machine, schedule)
    if few is None:
        return
    op.attributes[FEW_SCHEDULE] = StringAttr(str(few[0]))
    if few[1] is not None:
        op.attributes[FEW_ROWS] = IntegerAttr(few[1], i64)


@dataclass(frozen=True)
class LiftPass(ModulePass):
    """Chooses how the comprehensions at the top of functions run.

    `schedule` is a schedule in text, or `auto` for the one that takes the least time by
    the cost model on the machine: a kind of processor, `avx512bf16`, `avx512`, `avx2`
    or `neon`, `host` for the one this runs on, or the description of a CPU, one that
    comes with the package (`server-x86`) or a file (`"own.toml"`).

    With the `target` nvptx it is a schedule for a GPU (see moa_dialect.passes.grid),
    whose products of matrices are made of what the `tier` has: `wgmma`, `mma` or
    `portable`, and whose tiles take at most `shared_bytes` of shared memory. With
    `tf32` factors of f32 are rounded to tf32 where the tier has instructions for that.
    A schedule by hand is refused if it needs more than the tier has, or a copy engine
    (`tma`) where there is none by `engine`, or instructions of 16 rows for f64 where
    there are none by `tall`. Beside one with `tma` that is chosen goes
    the one without, as `moa.other_schedule`, should there be no code for the first.

    Where types do not give how many rows a product has, or how many columns, a schedule
    for few rows goes beside the one that is chosen: `moa.few_schedule`, for up to
    `moa.few_rows` rows, and as many columns as its tasks have.

    A schedule by hand is for all kernels that have the axes it names; for others one is
    chosen. It is refused where lanes do not lie next to each other and cannot
    be turned, unless `strided` allows such lanes.

    With `deterministic` the schedule, and with it the order of every sum, depends
    neither on the extents of results nor on the number of cores.
    """

    name = "moa-lift"

    schedule: str = AUTO
    machine: str = "host"
    target: str = "cpu"
    tier: str = "wgmma"
    shared_bytes: int = LARGEST
    tf32: bool = False
    deterministic: bool = False
    strided: bool = False
    engine: bool = True
    tall: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Give comprehensions schedules.

        Raises:
            CompileError: for a schedule that is none or has strided lanes, or an
                unknown target or tier.
            MoaError: for an unknown machine.
        """
        if self.target not in ("cpu", "nvptx"):
            raise CompileError(
                f"moa-lift: unknown target: expected cpu or nvptx, got {self.target}"
            )
        if self.tier not in ("portable", "mma", "wgmma"):
            raise CompileError(
                "moa-lift: unknown tier: expected portable, mma or wgmma, "
                f"got {self.tier}"
            )
        machine = machine_named(self.machine)
        is_given = self.target == "cpu" and self.schedule != AUTO
        if is_given:
            self._check_axes(op)
        for function in functions_of(op):
            has_parts = any(PARTS in c.attributes for c in comprehensions(function))
            for comprehension in map(flattened, comprehensions(function)):
                # What merges parts is not what a schedule that splits is for.
                is_merge = has_parts and PARTS not in comprehension.attributes
                try:
                    kernel = read_kernel(comprehension, function)
                except NotATerm:
                    continue  # Left to moa-to-onf.
                schedule = None
                if is_given and is_for(self.schedule, kernel):
                    with _named(function):
                        schedule = parse_schedule(self.schedule, *names_of(kernel))
                        if not self.strided:
                            text = self.schedule
                            refuse_strided(comprehension, function, text, machine)
                elif self.target == "cpu" and not self.deterministic:
                    read = partial(read_kernel, comprehension, function)
                    schedule, _ = choose_any(read, machine)
                    if isinstance(schedule, Schedule):
                        _schedule_few(comprehension, read(), machine, schedule)
                else:
                    schedule = self._schedule(kernel, machine, is_merge)
                if schedule is not None:
                    comprehension.attributes[SCHEDULE] = StringAttr(str(schedule))
                is_chosen = self.schedule == AUTO or is_merge
                if isinstance(schedule, Grid) and not is_chosen:
                    comprehension.attributes[BY_HAND] = UnitAttr()
                if isinstance(schedule, Grid) and schedule.has_engine and is_chosen:
                    other = self._grid(read_kernel(comprehension, function), False)
                    if other is not None:
                        text = StringAttr(str(other))
                        comprehension.attributes[OTHER_SCHEDULE] = text

    def _check_axes(self, op: ModuleOp) -> None:
        """Check that a schedule by hand names axes of some kernel.

        Raises:
            CompileError: if it names one that no kernel has, or is no schedule.
        """
        named, known = axes_in(self.schedule), dict[str, None]()
        for function in functions_of(op):
            for comprehension in map(flattened, comprehensions(function)):
                try:
                    kernel = read_kernel(comprehension, function)
                except NotATerm:
                    continue
                share_named(kernel, self.schedule)
                axes, folded = names_of(kernel)
                known |= dict.fromkeys([*axes, *folded])
        for axis in named:
            if known and axis not in known:
                raise CompileError(
                    f"schedule: expected axes {', '.join(known)}, got {axis}"
                )

    def _schedule(
        self, kernel: Kernel, machine: Machine, is_merge: bool
    ) -> Schedule | Grid | None:
        if self.target == "nvptx":
            if self.schedule != AUTO and not (is_merge and split_of(self.schedule)):
                grid = read_grid(self.schedule, kernel)
                self._check(grid)
                check_fits(kernel, grid, self.shared_bytes)
                return grid
            return self._grid(kernel, self.engine)
        found = choose(kernel, machine, self.deterministic)
        if found is None or not self.deterministic:
            return found
        return narrowed(kernel, found)

    def _grid(self, kernel: Kernel, engine: bool) -> Grid | None:
        options = self.tier, self.shared_bytes, self.tf32, self.deterministic
        return choose_grid(kernel, *options, engine, self.tall)

    def _check(self, grid: Grid) -> None:
        """Check that a chip has what a schedule for a GPU needs.

        Raises:
            CompileError: if it does not.
        """
        tiers = ("", *TIERS)
        best = self.tier if self.tier in TIERS else ""
        if tiers.index(grid.tier) > tiers.index(best):
            raise CompileError(
                f"schedule: {grid.tier}: expected at most the tier {self.tier}"
            )
        if grid.cluster > 1 and not self.engine:
            raise CompileError("schedule: cluster: expected a chip from sm_90 on")
        if grid.has_engine and not self.engine:
            raise CompileError("schedule: tma: expected a chip from sm_90 on")
        if grid.tall and not self.tall:
            raise CompileError("schedule: tall: expected a chip from sm_90 on")
