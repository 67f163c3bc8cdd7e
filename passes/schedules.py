"""Schedules of kernels for vector code, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from xdsl.dialects.builtin import StringAttr

from moa_dialect.errors import CompileError
from moa_dialect.ops.normal_form import CascadeOp, ComprehensionOp, FoldOp
from moa_dialect.passes.grid import share_named
from moa_dialect.passes.kernels import (
    FOLDED,
    SCHEDULE,
    Kernel,
    Output,
    all_terms,
    static_extent,
)
from moa_dialect.types import known_dtype


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
    the lanes of all. With `j=procs,columns:2048` besides, a task has 2048 indices of j,
    with the sums of all of them in memory: rows along j are read in long pieces.
    the lanes of all. Threads take tasks as they come, unless the text says how they are
    dealt out: `procs:2` in two runs of tasks that follow each other, `cyclic` one by
    one in turn, `cyclic:4` four by four.

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
        columns: an axis of which a task has a piece then, by its name; or empty.
        piece: how many indices that is.
        dealt: the axis whose text says how tasks are dealt out; or empty.
        procs: into how many runs of tasks that follow each other; 0 if not so.
        cyclic: how many tasks at a time, in turn; 0 if not so.
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
    columns: str = ""
    piece: int = 1
    dealt: str = ""
    procs: int = 0
    cyclic: int = 0

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
        block = ""
        if self.blocked:
            block = f"{self.blocked}={self._procs(self.blocked)},block:{self.block};"
        if self.columns:
            procs = self._procs(self.columns)
            block += f"{self.columns}={procs},columns:{self.piece};"
        if self.dealt not in ("", self.blocked, self.columns, self.lane):
            block = f"{self.dealt}={self._procs(self.dealt)};{block}"
        if self.lane:
            fold = f"chunk:{self.chunk},regs:{self.registers}{pairs}"
            return f"{block}{self.lane}={self._procs(self.lane)},{lanes};p={fold}"
        return f"{block}p=chunk:{self.chunk},block:{self.registers},{lanes}{pairs}"

    def _procs(self, axis: str) -> str:
        """That an axis is shared among tasks, and how they are dealt out."""
        if axis != self.dealt:
            return "procs"
        return f"procs,cyclic:{self.cyclic}" if self.cyclic else f"procs:{self.procs}"


_FLAGS = ("pairs", "aligned", "ahead", "each")

_OF_LANES = ("procs", "cyclic", "regs", "lanes")
_OF_AXIS = ("procs", "cyclic", "block", "columns")
_OF_FOLDS = ("chunk", "regs", "pairs", "aligned", "ahead")
_OF_FOLDS_IN_LANES = ("chunk", "block", "regs", "lanes", *_FLAGS)
"""What the parts of an axis may be bound to: of one in the lanes, of another one, of
the folded axes, and of those if they are in the lanes."""

_RESOURCES = (
    *("procs", "cyclic", "chunk", "block", "regs", "lanes", "columns"),
    *_FLAGS,
)

_MOST = {"regs": 64, "lanes": 64}
"""The most registers and lanes: code for each of them is written out."""

_LARGEST = 1 << 20
"""No tile has as many indices."""

_ITEM = re.compile(r"(?P<name>[a-z]+)(:(?P<number>[0-9]+))?$")


def _lifts(text: str) -> dict[str, dict[str, int]]:
    """For each axis that a schedule names its resources, and how many of each.

    Raises:
        CompileError: if the text is no schedule.
    """
    lifts: dict[str, dict[str, int]] = {}
    for part in filter(None, text.replace(" ", "").split(";")):
        axis, equals, resources = part.partition("=")
        if axis in lifts:
            raise CompileError(f"schedule: expected each axis once, got {axis} twice")
        found = lifts[axis] = dict[str, int]()
        for item in resources.split(","):
            match = _ITEM.match(item)
            if not axis or not equals or match is None:
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
            if name in found:
                raise CompileError(f"schedule: {axis} has {name} twice")
            if name in _FLAGS and match["number"]:
                raise CompileError(f"schedule: {name} has no extent, got {item!r}")
            number = int(match["number"] or (0 if name == "procs" else 1))
            if number < 1 and match["number"]:
                raise CompileError(f"schedule: {name} of at least 1, got {number}")
            most = _MOST.get(name, _LARGEST)
            if number > most:
                raise CompileError(
                    f"schedule: {name} of at most {most}, got {match['number']}"
                )
            found[name] = number
    return lifts


def axes_in(text: str) -> list[str]:
    """The axes that a schedule names, the folded ones too.

    Raises:
        CompileError: if the text is no schedule.
    """
    return list(_lifts(text))


def parse_schedule(
    text: str, axes: Sequence[str], folded: Sequence[str] = (FOLDED,)
) -> Schedule:
    """Read a schedule for a kernel whose axes have these names.

    Args:
        text: the schedule.
        axes: the names of the kernel's axes.
        folded: what its folded axes may be called.

    Raises:
        CompileError: if it is none, or not one for such a kernel.
    """
    fold: dict[str, int] = {}
    lane: str | None = None
    lanes, dealt, blocked, columns = fold, "", "", ""
    lifts = _lifts(text)
    for axis, found in lifts.items():
        is_folded = axis not in axes
        if is_folded and axis not in folded:
            known = ", ".join(dict.fromkeys([*axes, *folded]))
            raise CompileError(f"schedule: expected axes {known}, got {axis}")
        if is_folded and fold:
            raise CompileError("schedule: expected folded axes once, got them twice")
        if "lanes" in found:
            if lane is not None:
                names = f"{lane or 'folded axes'} and {axis}"
                raise CompileError(f"schedule: expected one axis in lanes, got {names}")
            lane, lanes = "" if is_folded else axis, found
        if is_folded:
            fold = found
        elif "block" in found and "lanes" not in found:
            if blocked:
                raise CompileError(
                    "schedule: expected one axis with a block, got "
                    f"{blocked} and {axis}"
                )
            blocked = axis
        elif "columns" in found and "lanes" not in found:
            columns = axis
        if found.get("procs") or "cyclic" in found:
            if found.get("procs") and "cyclic" in found:
                raise CompileError(
                    f"schedule: {axis}: expected an extent of procs or cyclic, got both"
                )
            if dealt:
                raise CompileError(
                    "schedule: expected one axis that says how tasks are dealt out, "
                    f"got {dealt} and {axis}"
                )
            dealt = axis
    if lane is None:
        raise CompileError("schedule: no axis has lanes")
    if columns and "each" not in fold:
        raise CompileError(f"schedule: {columns} has columns, but no statement lanes")
    for axis, found in lifts.items():
        _check(axis, found, axis not in axes)
    count = lanes["lanes"]
    if count & (count - 1):
        raise CompileError(f"schedule: lanes are a power of 2, got {count}")
    registers = fold.get("block" if not lane else "regs", 1)
    if registers > _MOST["regs"]:
        raise CompileError(
            f"schedule: block of folded axes of at most {_MOST['regs']}, "
            f"got {registers}"
        )
    return Schedule(
        lane,
        count,
        lanes.get("regs", 1),
        registers,
        fold.get("chunk", 1),
        blocked,
        lifts[blocked]["block"] if blocked else 1,
        "pairs" in fold,
        "aligned" in fold,
        "ahead" in fold,
        "each" in fold,
        columns,
        lifts[columns]["columns"] if columns else 1,
        dealt,
        lifts[dealt].get("procs", 0) if dealt else 0,
        lifts[dealt].get("cyclic", 0) if dealt else 0,
    )


def _check(axis: str, found: dict[str, int], is_folded: bool) -> None:
    """Check that an axis has only such resources as mean something for it.

    Raises:
        CompileError: if it has others.
    """
    has_lanes = "lanes" in found
    allowed = _OF_LANES if has_lanes else _OF_AXIS
    if is_folded:
        allowed = _OF_FOLDS_IN_LANES if has_lanes else _OF_FOLDS
    for name in found:
        if name in allowed:
            continue
        if name == "chunk":
            raise CompileError(f"schedule: {axis} is not folded and has no chunks")
        what = "a folded axis" if is_folded else "an axis"
        where = " in the lanes" if has_lanes else ""
        raise CompileError(
            f"schedule: {axis}: expected {', '.join(allowed[:-1])} or {allowed[-1]} "
            f"for {what}{where}, got {name}"
        )


def element_bytes(kernel: Kernel) -> int:
    """The size of the widest float of a kernel, 4 at least; or of its widest number."""
    floats, others = [0], [1]
    for type_ in {term.type for term in all_terms(kernel)}:
        dtype = known_dtype(type_)
        if dtype is None:
            continue  # An array.
        is_float = dtype.kind not in "iub"
        (floats if is_float else others).append(dtype.itemsize)
    return max(4, *floats) if max(floats) else max(others)


def schedule_of(
    op: ComprehensionOp, kernel: Kernel, name: str = SCHEDULE
) -> Schedule | None:
    """The schedule that a comprehension has under a name, None if it has none."""
    text = op.attributes.get(name)
    if not isinstance(text, StringAttr):
        return None
    share_named(kernel, text.data)
    return parse_schedule(text.data, *names_of(kernel))


def is_for(text: str, kernel: Kernel) -> bool:
    """Whether a kernel has all axes that a schedule names.

    Indices that read the same are an axis of it afterwards, if it names that.

    Raises:
        CompileError: if the text is no schedule.
    """
    share_named(kernel, text)
    axes, folded = names_of(kernel)
    return {*_lifts(text)} <= {*axes, *folded}


def names_of(kernel: Kernel) -> tuple[list[str], list[str]]:
    """What the axes of a kernel are called in schedules, and what its folded axes."""
    folds = [op for op in kernel.op.walk() if isinstance(op, FoldOp | CascadeOp)]
    hints = [
        region.block.args[0].name_hint for op in folds for region in op.regions[:1]
    ]
    folded = dict.fromkeys([FOLDED, *(hint for hint in hints if hint)])
    return [kernel.hints[axis] for axis in kernel.axes], list(folded)


_SAVED = 20
"""The last task runs narrower code if that saves one part in so many of all lanes."""


def vectors_of_rest(kernel: Kernel, lane: str, lanes: int, vectors: int) -> int:
    """How many vectors the last task of a kernel with passes has; 0 if as the others.

    It is so where fewer hold what is left of the axis in the lanes, and enough is saved
    for code of its own. Where bounds differ between lanes, short axes have one vector
    in each task.

    Args:
        kernel: the kernel, which has one axis in the lanes and no other one blocked.
        lane: the name of that axis.
        lanes: the lanes of a vector.
        vectors: the vectors of a task.
    """
    extent = static_extent(kernel.extents[lane])
    width = lanes * vectors
    if not kernel.passes or extent is None or extent <= width:
        return 0
    if any(lane in bound.free for pass_ in kernel.passes for bound in pass_.bounds):
        return 0
    rest = ceil(extent % width / lanes)
    saved = (vectors - rest) * lanes if rest else 0
    whole = ceil(extent / width) * width
    return rest if saved * _SAVED >= whole else 0


def last_axis(kernel: Kernel, output: Output) -> str:
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
