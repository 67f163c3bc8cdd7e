"""Schedules of kernels for vector code, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import StringAttr

from moa_dialect.errors import CompileError
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.passes.grid import share_named
from moa_dialect.passes.kernels import SCHEDULE, Kernel, Output, all_terms
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


def schedule_of(op: ComprehensionOp, kernel: Kernel) -> Schedule | None:
    """The schedule that a comprehension has, None if it has none."""
    text = op.attributes.get(SCHEDULE)
    if not isinstance(text, StringAttr):
        return None
    share_named(kernel, text.data)
    return parse_schedule(text.data, [kernel.hints[axis] for axis in kernel.axes])


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
