"""moa-lift: which axes of a kernel go to lanes, registers, chunks and tasks.

To lift an axis is to reshape the index space: `i -> <procs, regs, lanes>`. A schedule
says for each axis which resources its parts are bound to. It is chosen in closed form:
for each axis that could be in the lanes the vector operations of a kernel are counted,
and the least count wins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from moa_dialect.errors import CompileError, DTypeError
from moa_dialect.lowering.chips import LARGEST
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp
from moa_dialect.options import AUTO
from moa_dialect.passes.grid import (
    Grid,
    check_fits,
    choose_grid,
    read_grid,
    rows_of,
    share_named,
)
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import (
    SCHEDULE,
    Kernel,
    Output,
    Pass,
    all_terms,
    read_kernel,
    split_folds,
    static_extent,
)
from moa_dialect.passes.machine import Machine, machine_named
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.share_rows import find_shared, share_rows
from moa_dialect.passes.statement_lanes import have_lanes
from moa_dialect.passes.strides import (
    advances,
    is_affine,
    spelled,
    step,
    turning_axis,
)
from moa_dialect.passes.terms import (
    Computed,
    Folded,
    NotATerm,
    Term,
    narrow_factors,
    walk,
)
from moa_dialect.passes.work import NOMINAL_EXTENT
from moa_dialect.types import dtype_of

TILE_BYTES = 1 << 18
"""A tile that is larger than this is none."""


@dataclass(frozen=True)
class Schedule:
    """How a kernel runs.

    In text, resources for axes: `i=procs,regs:2,lanes:16;p=chunk:96,regs:12` has the
    axis i in the lanes, `p=chunk:16,block:4,regs:2,lanes:16` the folded axes. With
    `j=procs,block:96` besides, a task has 96 indices of j, several in registers. With
    `pairs` among the resources of p, as in `p=chunk:96,regs:12,pairs`, products of bf16
    are summed two at a time. With `aligned` chunks begin at multiples of their length,
    so that what a chunk of one lane is does not depend on the bounds of the others.
    With `ahead` what p goes along is asked for early. With `each`, as in
    `i_g=procs,block:4;p=chunk:128,block:4,regs:4,lanes:16,each`, every statement of a
    task has the axis in the lanes along which it reads elements in turn: no axis is in
    the lanes of all.

    Attributes:
        lane: the axis in the lanes, by its name in the text; empty if folded axes are.
        lanes: the lanes of a vector.
        vectors: the vectors that the lanes of a task are.
        registers: how many indices of a tile axis run at a time in a contraction.
        chunk: how many indices of a folded axis make a chunk; rows of lanes, if folded
            axes are in the lanes.
        blocked: an axis of which a task has several indices, by its name; or empty.
        block: how many.
        pairs: whether sums of products of bf16 take two indices at a time.
        aligned: whether chunks begin at multiples of their length, whatever the bounds.
        ahead: whether rows that a pass reads are asked for early.
        each: whether each statement has a lane axis of its own.
    """

    lane: str
    lanes: int = 16
    vectors: int = 2
    registers: int = 12
    chunk: int = 96
    blocked: str = ""
    block: int = 1
    pairs: bool = False
    aligned: bool = False
    ahead: bool = False
    each: bool = False

    @property
    def width(self) -> int:
        """How many indices are in the lanes at a time."""
        return self.lanes * self.vectors

    @property
    def unroll(self) -> int:
        """How many indices of a tile axis run at a time in a statement without folds.

        Eight vectors at a time are enough to fill the pipelines.
        """
        return max(1, 8 // self.vectors)

    def __str__(self) -> str:
        lanes = f"regs:{self.vectors},lanes:{self.lanes}"
        pairs = ",pairs" if self.pairs else ""
        pairs += ",aligned" if self.aligned else ""
        pairs += ",ahead" if self.ahead else ""
        pairs += ",each" if self.each else ""
        block = f"{self.blocked}=procs,block:{self.block};" if self.blocked else ""
        if self.lane:
            fold = f"chunk:{self.chunk},regs:{self.registers}{pairs}"
            return f"{block}{self.lane}=procs,{lanes};p={fold}"
        return f"{block}p=chunk:{self.chunk},block:{self.registers},{lanes}{pairs}"


_RESOURCES = (
    *("procs", "chunk", "block", "regs", "lanes"),
    *("pairs", "aligned", "ahead", "each"),
)

_ITEM = re.compile(r"(?P<name>[a-z]+)(:(?P<number>[0-9]+))?$")


def parse_schedule(text: str, axes: Sequence[str]) -> Schedule:
    """Read a schedule for a kernel whose axes have these names.

    Raises:
        CompileError: if it is none.
    """
    lanes: dict[str, int] = {}
    fold: dict[str, int] = {}
    lane: str | None = None
    blocked, block = "", 1
    for part in filter(None, text.replace(" ", "").split(";")):
        axis, equals, resources = part.partition("=")
        found: dict[str, int] = {}
        for item in resources.split(","):
            match = _ITEM.match(item)
            if not equals or match is None:
                raise CompileError(
                    "schedule: expected axis=resource:extent,..., separated by "
                    f"semicolons, got {part!r}"
                )
            name = match["name"]
            if name not in _RESOURCES:
                *others, last_name = _RESOURCES
                raise CompileError(
                    f"schedule: expected {', '.join(others)} or {last_name}, got {name}"
                )
            number = int(match["number"] or 1)
            if number < 1:
                raise CompileError(f"schedule: {name} of at least 1, got {number}")
            found[name] = number
        if axis in axes:
            if "lanes" in found:
                lane, lanes = axis, found
            elif "block" in found:
                blocked, block = axis, found["block"]
        elif "lanes" in found:
            lane, lanes, fold = "", found, found
        else:
            fold = found
    if lane is None:
        raise CompileError("schedule: no axis has lanes")
    if lane and "chunk" in lanes:
        raise CompileError(f"schedule: {lane} is not folded and has no chunks")
    count = lanes["lanes"]
    if count & (count - 1):
        raise CompileError(f"schedule: lanes are a power of 2, got {count}")
    registers = fold.get("block" if not lane else "regs", 1)
    vectors, chunk = lanes.get("regs", 1), fold.get("chunk", 1)
    return Schedule(
        lane,
        count,
        vectors,
        registers,
        chunk,
        blocked,
        block,
        "pairs" in fold,
        "aligned" in fold,
        "ahead" in fold,
        "each" in fold,
    )


_UNKNOWN = 1024
"""What an extent counts as that types do not give: such rows are long as a rule."""


def _nominal(value: SSAValue) -> int:
    found = static_extent(value)
    return _UNKNOWN if found is None else found


def element_bytes(kernel: Kernel) -> int:
    """The size of the widest float of a kernel, 4 at least; or of its widest number."""
    floats, others = [0], [1]
    for term in all_terms(kernel):
        try:
            dtype = dtype_of(term.type)
        except DTypeError:
            continue  # An array.
        is_float = dtype.kind not in "iub"
        (floats if is_float else others).append(dtype.itemsize)
    return max(4, *floats) if max(floats) else max(others)


_MOST_INSIDE = 2
"""How much more work folded axes in the lanes may be where extents are not to count."""

_OPERATIONS = {"math.exp": 12, "math.exp2": 10, "math.log": 16, "math.tanh": 24}
_DIVISION = 8
_FUNCTION = 20
_SHUFFLES = 4
_MERGE = 12
"""Vector operations that a function, a division, a vector that is turned, and a
reduction over the lanes take."""


@dataclass
class _Count:
    """Counts the vector operations of terms with an axis in the lanes.

    Attributes:
        kernel: the kernel.
        lane: the axis, by the name of its index.
        extents: for the indices that are looped over how many there are.
        shared: an axis of which several indices share what does not depend on it.
        registers: how many.
        vectors: how many vectors the lanes are.
        lanes: how many lanes one has.
        nominal: whether extents of results are not to count.
    """

    kernel: Kernel
    lane: str
    extents: dict[str, int]
    shared: str = ""
    registers: int = 1
    vectors: int = 4
    lanes: int = 16
    nominal: bool = False
    seen: set[Term] = field(default_factory=set[Term])
    total: float = 0.0

    def add(self, term: Term) -> None:
        """Count what a term takes, each value once for the indices it depends on."""
        if term in self.seen or not term.args:
            return
        self.seen.add(term)
        if isinstance(term.kind, Folded):
            before = self.extents
            self.extents = before | {
                term.kind.index: _indices_below(self.kernel, term.args[1], self.nominal)
            }
            self.add(term.args[2])
            # An accumulation waits for the one before, unless there are others.
            waiting = max(1.0, _CHAINS / (self.vectors * self.registers))
            self.total += self._times(term.args[2]) * waiting
            self.extents = before
            return
        for arg in term.args:
            if not term.computes(AtOp.name):
                self.add(arg)
        self.total += self._cost(term) * self._times(term)

    def _times(self, term: Term) -> float:
        times = float(prod(n for axis, n in self.extents.items() if axis in term.free))
        if self.shared and self.shared not in term.free:
            times *= self.extents[self.shared] / self.registers
        return times

    def _cost(self, term: Term) -> float:
        if not isinstance(term.kind, Computed):
            return 0.0
        name = term.kind.name
        if name == AtOp.name:
            if self.lane not in term.free:
                return 0.25 / self.vectors  # One broadcast for all vectors.
            if advances(term, self.lane):
                return 0.5
            grid = {*self.kernel.axes, self.lane} - {self.shared}
            # What cannot be turned is read one by one.
            return 0.5 + (_SHUFFLES if turning_axis(term, grid) else self.lanes)
        # What has no lanes is computed once for all vectors.
        shared = self.vectors if self.lane and self.lane not in term.free else 1
        if name == arith.DivfOp.name:
            return _DIVISION / shared
        if name == arith.MulfOp.name:
            return 0.5 / shared  # Most are fused with an addition.
        if name.startswith("math."):
            return _OPERATIONS.get(name, _FUNCTION) / shared
        return 1.0 / shared


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


def vector_operations(
    kernel: Kernel, schedule: Schedule, machine: Machine, nominal: bool = False
) -> float:
    """How many vector operations a kernel takes on one core, about.

    With `nominal` as if the extents of its results were not known.
    """

    def size(axis: str) -> int:
        return NOMINAL_EXTENT if nominal else _nominal(kernel.extents[axis])

    name = kernel.named(schedule.lane)
    extents = {axis: size(axis) for axis in kernel.axes}
    tasks = prod(extents.values())
    width, vectors = schedule.width, schedule.vectors
    if name:
        tasks = tasks // max(extents[name], 1) * ceil(extents[name] / width)
    shared = kernel.named(schedule.blocked)
    if shared:
        tasks = tasks // extents[shared] * ceil(extents[shared] / schedule.block)
    rows = {axis: size(axis) for axis in kernel.extents if axis not in extents}
    each = 0.0
    for pass_ in kernel.passes:
        many = _range_of(kernel, pass_, nominal)
        if name and name in pass_.lower.free | pass_.upper.free:
            # Half of them on average, and what only some of the lanes have.
            many = ceil((many + width) / 2)
        if not name:
            many = ceil(many / width)
        count = _Count(
            kernel,
            name or pass_.index,
            {pass_.index: many, **rows},
            registers=schedule.registers,
            vectors=vectors,
            lanes=schedule.lanes,
            nominal=nominal,
        )
        for accumulator in pass_.accumulators:
            count.add(accumulator.part)
            # Without rows one vector's sum waits for itself.
            waiting = 1 if accumulator.axes or vectors > 1 else 2
            count.total += many * waiting * prod(rows[a] for a in accumulator.axes)
            if not name:
                count.total += _MERGE * prod(rows[axis] for axis in accumulator.axes)
        each += count.total * vectors
    lane = name
    for output in kernel.outputs:
        extents_of = {axis: rows[axis] for axis in output.axes}
        if not name and output.axes:
            lane = output.axes[-1]
            extents_of[lane] = ceil(rows[lane] / width)
        registers = 1
        if shared:
            extents_of[shared] = schedule.block
            registers = schedule.registers
        count = _Count(
            kernel,
            lane,
            extents_of,
            shared,
            registers,
            vectors,
            schedule.lanes,
            nominal,
        )
        count.add(output.value)
        is_vector = bool(lane)
        stores = prod(extents_of.values())
        if name and (last := _last_axis(kernel, output)) not in ("", name):
            stores *= 1 + (_SHUFFLES if last in output.axes else schedule.lanes)
        each += (count.total + stores) * (vectors if is_vector else 1)
    cores = 1 if nominal else machine.cores
    rounds = ceil(tasks / cores) * cores
    # A broadcast serves as many operations as there are vectors.
    return rounds * each * ((1 + 0.02 / vectors) if name else 1.0)


def _last_axis(kernel: Kernel, output: Output) -> str:
    """The axis along which the elements of a result lie next to each other.

    It is empty if axes are made of others, or there is none.
    """
    if kernel.origins:
        return ""
    axes = [*kernel.axes, *output.axes]
    places = kernel.op.positions(len(axes))
    return next(
        (a for a, k in zip(axes, places, strict=False) if k == len(axes) - 1), ""
    )


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
        most = lanes if extent is None else min(lanes, _power_below(extent))
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
    number = upper.number
    if number is None and isinstance(upper.kind, SSAValue):
        number = static_extent(upper.kind)
    return int(number) if lower.number == 0 and number is not None else 0


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
    for axis in kernel.axes:
        extent = static_extent(kernel.extents[axis])
        if axis == lane or extent is None or extent < 2 or _bounds(kernel, axis):
            continue
        registers = min(plain.registers, extent)
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


def _squares(kernel: Kernel, lane: str, plain: Schedule) -> list[Schedule]:
    """The schedules in which a task turns squares, as where axes change places."""
    loads = [term for term in all_terms(kernel) if term.computes(AtOp.name)]
    strided = [t for t in loads if lane in t.free and not advances(t, lane)]
    found: list[Schedule] = []
    for axis in kernel.axes:
        extent = static_extent(kernel.extents[axis])
        if axis == lane or extent is None or extent < plain.lanes:
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
    """The schedule that takes the fewest vector operations, None if there is none.

    With `deterministic` it depends on what one element of the results takes, not on how
    many there are, nor on the number of cores.
    """

    def work(schedule: Schedule) -> float:
        return vector_operations(kernel, schedule, machine, deterministic)

    found = candidates(kernel, machine, deterministic)
    best = min(found, key=work, default=None)
    least = 0.0 if best is None else work(best)
    # With folded axes in the lanes every fold is a pass.
    split_folds(kernel)
    others = [s for s in candidates(kernel, machine, deterministic) if not s.lane]
    inside = min(others, key=work, default=None)
    if inside is None or best is None:
        return inside or best
    # Should there be one element, others would have all lanes but one in vain.
    most = _MOST_INSIDE * least if deterministic else least
    return inside if work(inside) < most else best


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


_FEW = 4
"""So many rows are few."""

_PIECE = 256
"""How many bytes of a row are read at a time: several lines of each."""

_MOST_VECTORS = 8
"""How many vectors have their sums in registers at most."""


def _narrowest(kernel: Kernel) -> int:
    """The size of the narrowest float that a kernel reads."""
    loads = [term for term in all_terms(kernel) if term.computes(AtOp.name)]
    sizes = [dtype_of(t.type).itemsize for t in loads if isinstance(t.type, AnyFloat)]
    return min(sizes, default=4)


def choose_each(kernel: Kernel, machine: Machine) -> Schedule | None:
    """A schedule whose statements have lanes of their own; None if there is none.

    It is for few rows of products of matrices, which would leave most lanes empty: a
    task has all of them, and reads what they share once.

    Args:
        kernel: the kernel; what reads the same may be an axis of it afterwards.
        machine: the machine.
    """
    rows = rows_of(kernel)
    lanes = machine.vector_bytes // element_bytes(kernel)
    if not kernel.passes or not rows:
        return None
    shared = find_shared(kernel, rows)
    if shared is not None:
        rows = share_rows(kernel, shared)
    count = static_extent(kernel.extents[rows])
    if not count or count >= lanes:
        return None
    pairs = machine.has_bf16_dot and multiplies_bf16(kernel)
    if shared is not None and 2 * count >= lanes and not pairs:
        return None  # In the lanes they fill half of them.
    if count == 1:
        rows = ""
    if not have_lanes(kernel, rows, lanes):
        return None
    longest = max(_range_of(kernel, pass_) for pass_ in kernel.passes)
    # A few rows have more room for what is computed of them.
    chunk = 2 * _LONG if count <= _FEW else _LONG
    chunk = min(chunk, ceil(max(longest, 1) / lanes) * lanes)
    axes = {axis for p in kernel.passes for a in p.accumulators for axis in a.axes}
    columns = prod(_nominal(kernel.extents[axis]) for axis in axes)
    if count * max(columns, chunk) * element_bytes(kernel) > TILE_BYTES:
        return None
    # Sums of several rows and vectors are in half of the registers.
    sums = machine.registers // 2
    vectors = max(_PIECE // (lanes * _narrowest(kernel)), sums // count)
    vectors = max(1, min(vectors, _MOST_VECTORS, sums // min(count, 2)))
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
    lane = kernel.named(schedule.lane)
    return [
        output
        for output in kernel.outputs
        if lane
        and (last := _last_axis(kernel, output)) not in ("", lane)
        and last not in output.axes
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

    kernel = read()
    share_named(kernel, text)
    schedule = parse_schedule(text, [kernel.hints[axis] for axis in kernel.axes])
    operations = vector_operations(kernel, schedule, machine)
    if not schedule.lane:
        split_folds(kernel)  # So it is run, and counted.
        operations = vector_operations(kernel, schedule, machine)
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
    best, other = choose(read(), machine), read()
    if best is not None and not best.lane:
        split_folds(other)
    least = None if best is None else vector_operations(other, best, machine)
    message = (
        f"schedule: the lanes of {what} along {names[axis]} lie "
        f"{'a row' if far is None else far} apart, not 1, and no axis of a tile turns "
        f"them: {schedule.lanes} {how}s of one element instead of one {how}, "
        f"{operations:.3g} vector operations in all"
    )
    if least is not None and least < operations:
        message += f", where {best} takes {least:.3g}"
    raise CompileError(message)


_STREAMS = 8
"""How many rows of an array are read side by side where all is read once.

At each step each gives four bytes, which pairs of bf16 are as well; so a step asks for
half a line, and for a whole one with pairs, of which there are half as many steps.
"""

_LONG = 128
"""How many of them a chunk has then."""


@dataclass(frozen=True)
class LiftPass(ModulePass):
    """Chooses how the comprehensions at the top of functions run.

    `schedule` is a schedule in text, or `auto` for one that is chosen for the machine:
    `avx512bf16`, `avx512`, `avx2`, `neon`, or `host` for the one this runs on.

    With the `target` nvptx it is a schedule for a GPU (see moa_dialect.passes.grid),
    whose products of matrices are made of what the `tier` has: `wgmma`, `mma` or
    `portable`, and whose tiles take at most `shared_bytes` of shared memory. With
    `tf32` factors of f32 are rounded to tf32 where the tier has instructions for that.

    A schedule by hand is refused where lanes do not lie next to each other and cannot
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
        for function in functions_of(op):
            for comprehension in comprehensions(function):
                try:
                    kernel = read_kernel(comprehension, function)
                except NotATerm:
                    continue  # Left to moa-to-onf.
                schedule = None
                is_free = self.schedule == AUTO and not self.deterministic
                if self.target == "cpu" and is_free:
                    for choice in (choose_each, choose_shared):
                        if schedule is None:
                            other = read_kernel(comprehension, function)
                            schedule = choice(other, machine)
                if schedule is None:
                    schedule = self._schedule(kernel, machine)
                is_linted = self.schedule != AUTO and not self.strided
                if self.target == "cpu" and is_linted:
                    refuse_strided(comprehension, function, self.schedule, machine)
                if schedule is not None:
                    comprehension.attributes[SCHEDULE] = StringAttr(str(schedule))

    def _schedule(self, kernel: Kernel, machine: Machine) -> Schedule | Grid | None:
        axes = [kernel.hints[axis] for axis in kernel.axes]
        if self.target == "nvptx":
            if self.schedule != AUTO:
                grid = read_grid(self.schedule, kernel)
                check_fits(kernel, grid, self.shared_bytes)
                return grid
            return choose_grid(
                kernel, self.tier, self.shared_bytes, self.tf32, self.deterministic
            )
        if self.schedule != AUTO:
            share_named(kernel, self.schedule)
            axes = [kernel.hints[axis] for axis in kernel.axes]
            return parse_schedule(self.schedule, axes)
        found = choose(kernel, machine, self.deterministic)
        if found is None or not self.deterministic:
            return found
        return narrowed(kernel, found)


def schedule_of(op: ComprehensionOp, kernel: Kernel) -> Schedule | None:
    """The schedule that a comprehension has, None if it has none."""
    text = op.attributes.get(SCHEDULE)
    if not isinstance(text, StringAttr):
        return None
    share_named(kernel, text.data)
    return parse_schedule(text.data, [kernel.hints[axis] for axis in kernel.axes])
