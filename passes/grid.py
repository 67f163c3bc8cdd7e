"""Schedules of kernels on a GPU: which axes go to the grid, warps and registers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    Float64Type,
    StringAttr,
)

from moa_dialect.errors import CompileError
from moa_dialect.lowering.chips import LARGEST
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import (
    Kernel,
    Pass,
    length_of,
    split_folds,
    static_extent,
)
from moa_dialect.passes.lift_rows import (
    find_long_row,
    find_output_row,
    lift_named,
    lift_row,
)
from moa_dialect.passes.products import (
    ENGINE_WARPS,
    check_boxes,
    check_clusters,
    late_widths,
    shared_bytes,
)
from moa_dialect.passes.share_rows import find_shared, share_rows
from moa_dialect.passes.terms import Term, walk
from moa_dialect.passes.work import NOMINAL_EXTENT


@dataclass(frozen=True)
class Grid:
    """How a kernel runs on a GPU.

    In text, resources for axes: in `i=grid,warps:4,regs:2;p=chunk:64,stages:2,mma` a
    group of 4 warps has 2 times 8 rows of i in each, takes 64 indices of folded axes at
    a time and loads those ahead, and multiplies matrices by instructions for that. With
    `j=grid,block:128` besides, a group has 128 indices of j as columns. In
    `p=chunk:4096,threads:256` a group of 256 threads has one index of every axis, and
    4096 of the folded axes at a time. The rows may be an axis that is put together of
    others (see moa_dialect.passes.share_rows).

    Attributes:
        rows: the axis of rows, by its name in the text; empty if folded axes are over
            all threads.
        warps: the warps of a group.
        blocks: how many times 8 rows a warp has.
        chunk: how many indices of a folded axis are taken at a time.
        block: how many of those are in registers at a time, the next ones' products
            being computed in the background; 0 for all.
        stages: how many chunks are in shared memory.
        columns: an axis of the kernel of which a group has several indices; or empty.
        width: how many.
        groups: how many groups a multiprocessor should have room for; 0 for any.
        tier: what products of matrices are made of: `mma` for instructions of a warp
            and background copies, `wgmma` for those of four warps; else multiply-adds.
        tf32: whether factors of f32 are rounded to tf32, for which there are
            instructions of a warp.
        has_engine: whether a warp that does nothing else has the copy engine load the
            chunks (`tma`), into a ring of as many stages; those that compute wait for
            them, and never for each other.
        is_ahead: whether products that need nothing of a chunk before are computed one
            chunk ahead, in the background of what is done with the chunk (`ahead`).
        is_behind: whether products that only go into sums are computed one chunk
            behind, in the background of what is done with the next one (`behind`).
        has_turns: whether the warp groups of a group begin the products of a chunk in
            turn, so that one's are computed while the others do all else (`turns`).
        span: how many indices of the other axes take their rows in turn, longest first,
            where the bounds of a fold depend on the rows; 1 for one after the other.
        split: how many parts the folded axis is cut into before, by moa-split-cascades,
            side by side; 0 for none.
        tall: how many terms the instructions of 16 rows add up that products of f64
            are made of (`tall:8`), 4, 8 or 16; 0 for those of 8 rows and 4 terms.
        persistent: how many groups there are at most, which take the tiles in turn; the
            copy engine loads of the next one meanwhile; 0 for a group for each.
        is_square: whether a thread has about as many rows as columns, of products by
            multiply-adds (`square`): what is read of the factors then serves most. With
            `mma` besides, copies run in the background.
        aligned: whether the value of an element does not depend on which others its
            group has: chunks begin at multiples of their length, whatever the bounds,
            and nothing is rounded otherwise where some are masked.
        clusters: axes along which neighbouring groups are a cluster, by their names in
            the text, and how many of them are (`cluster:2`): what does not depend on
            the axis is loaded once for all of these.
        merged: how many groups are a cluster that has parts of the folded axes, whose
            states are merged in each other's shared memory (`p=chunk:64,cluster:4`); 1
            for a group for all.
    """

    rows: str
    warps: int = 4
    blocks: int = 2
    chunk: int = 64
    stages: int = 2
    columns: str = ""
    width: int = 1
    tier: str = "mma"
    block: int = 0
    groups: int = 0
    tf32: bool = False
    aligned: bool = False
    has_engine: bool = False
    is_ahead: bool = False
    span: int = 1
    split: int = 0
    is_behind: bool = False
    has_turns: bool = False
    tall: int = 0
    is_square: bool = False
    persistent: int = 0
    clusters: tuple[tuple[str, int], ...] = ()
    merged: int = 1

    @property
    def cluster(self) -> int:
        """How many groups a cluster has; 1 if there are none."""
        return prod(count for _, count in self.clusters) * self.merged

    def clusters_of(self, kernel: Kernel) -> dict[str, int]:
        """How many groups a cluster has along each axis of a kernel.

        Those that have parts of the folded axes are along one without a name.
        """
        found = {kernel.named(axis): count for axis, count in self.clusters}
        return found | ({FOLDED: self.merged} if self.merged > 1 else {})

    def __str__(self) -> str:
        tier = f",split:{self.split}" if self.split else ""
        tier += f",cluster:{self.merged}" if self.merged > 1 else ""
        tier += f",{self.tier}" if self.tier else ""
        tier += ",tma" if self.has_engine else ""
        tier += ",ahead" if self.is_ahead else ""
        tier += ",behind" if self.is_behind else ""
        tier += ",turns" if self.has_turns else ""
        tier += f",tall:{self.tall}" if self.tall else ""
        tier += ",square" if self.is_square else ""
        tier += ",tf32" if self.tf32 else ""
        tier += ",aligned" if self.aligned else ""
        of = {axis: f",cluster:{count}" for axis, count in self.clusters}
        columns = ""
        if self.columns:
            own = of.pop(self.columns, "")
            columns = f"{self.columns}=grid,block:{self.width}{own};"
        own = of.pop(self.rows, "")
        columns = "".join(f"{axis}=grid{text};" for axis, text in of.items()) + columns
        if not self.rows:
            return f"{columns}p=chunk:{self.chunk},threads:{32 * self.warps}{tier}"
        block = f",block:{self.block}" if self.block else ""
        groups = f",groups:{self.groups}" if self.groups else ""
        groups += f",span:{self.span}" if self.span > 1 else ""
        groups += f",persistent:{self.persistent}" if self.persistent else ""
        return (
            f"{columns}{self.rows}=grid{groups},warps:{self.warps},"
            f"regs:{self.blocks}{own};"
            f"p=chunk:{self.chunk}{block},stages:{self.stages}{tier}"
        )


TIERS = ("mma", "wgmma")
"""Instructions for products of matrices."""

_ITEM = re.compile(r"(?P<name>[a-z][a-z0-9]*)(:(?P<number>[0-9]+))?$")

_RESOURCES = (
    "grid",
    "groups",
    "warps",
    "regs",
    "block",
    "chunk",
    "stages",
    "threads",
    "span",
    "split",
    *TIERS,
    "tma",
    "ahead",
    "behind",
    "turns",
    "tall",
    "square",
    "persistent",
    "cluster",
    "tf32",
    "aligned",
)

MULTIPROCESSORS = 132
"""How many multiprocessors a large GPU has."""

_THREADS = 2048
"""How many threads a large multiprocessor has room for."""

MOST_STAGES = 8
"""The most chunks that the copy engine has under way."""

FOLDED = ""
"""What folded axes are called among those of a cluster."""

CLUSTERS = (2, 4, 8)
"""How many groups a cluster may have: as many as every chip that has clusters takes."""


def parse_grid(text: str, axes: Sequence[str]) -> Grid:
    """Read a schedule for a kernel whose axes have these names.

    Raises:
        CompileError: if it is none.
    """
    rows, columns = "", ""
    named: set[str] = set()
    clusters: list[tuple[str, int]] = []
    found = {"warps": 4, "regs": 2, "chunk": 64, "stages": 1, "block": 1}
    for part in filter(None, text.replace(" ", "").split(";")):
        axis, equals, resources = part.partition("=")
        if axis in named:
            raise CompileError(f"schedule: expected each axis once, got {axis} again")
        named.add(axis)
        names: set[str] = set()
        for item in resources.split(","):
            match = _ITEM.match(item)
            if not equals or match is None:
                raise CompileError(
                    "schedule: expected axis=resource:extent,..., separated by "
                    f"semicolons, got {part!r}"
                )
            name, number = match["name"], int(match["number"] or 1)
            if name not in _RESOURCES:
                raise CompileError(
                    f"schedule: expected one of {', '.join(_RESOURCES)}, got {name}"
                )
            if number < 1:
                raise CompileError(f"schedule: {name} of at least 1, got {number}")
            if name == "block" and axis not in axes:
                name = "part"
            if name == "cluster":
                clusters.append((axis if axis in axes else FOLDED, number))
            found[name] = number
            names.add(name)
        if axis in axes and "warps" in names:
            rows = axis
        elif axis in axes and "block" in names:
            columns = axis
    if threads := found.get("threads"):
        if rows or threads % 32:
            raise CompileError(
                f"schedule: threads of folded axes in whole warps, got {text!r}"
            )
        found["warps"] = threads // 32
        if found["chunk"] % threads:
            raise CompileError(
                f"schedule: expected a chunk of a multiple of {threads} threads, "
                f"got {found['chunk']}"
            )
    elif not rows:
        raise CompileError(f"schedule: no axis has warps or threads in {text!r}")
    _check(found, rows)
    _check_clusters(found, clusters)
    return Grid(
        rows,
        found["warps"],
        found["regs"],
        found["chunk"],
        found["stages"],
        columns,
        found["block"],
        block=found.get("part", 0),
        groups=found.get("groups", 0),
        tier=next((tier for tier in reversed(TIERS) if tier in found), ""),
        tf32="tf32" in found,
        aligned="aligned" in found,
        has_engine="tma" in found,
        is_ahead="ahead" in found,
        span=found.get("span", 1),
        split=found.get("split", 0),
        is_behind="behind" in found,
        has_turns="turns" in found,
        tall=found.get("tall", 0),
        is_square="square" in found,
        persistent=found.get("persistent", 0),
        clusters=tuple(each for each in clusters if each[0] != FOLDED),
        merged=dict(clusters).get(FOLDED, 1),
    )


def split_of(text: str) -> int:
    """How many parts a schedule cuts a folded axis into; 0 if it does not say."""
    found = re.search(r"[,=]\s*split:([0-9]+)", text)
    return int(found[1]) if found else 0


def _check(found: dict[str, int], rows: str) -> None:
    """Check that the numbers of a schedule are such as there is code for.

    Raises:
        CompileError: if one is not.
    """
    tiers = [tier for tier in TIERS if tier in found]
    if tiers and not rows:
        raise CompileError(f"schedule: {tiers[0]}: expected an axis of rows")
    if "wgmma" in found and (found["warps"] % 4 or found["regs"] != 2):
        raise CompileError(
            "schedule: wgmma: expected warps of a multiple of 4, and regs of 2, "
            f"got {found['warps']} and {found['regs']}"
        )
    threads = 32 * found["warps"] + 32 * ENGINE_WARPS * ("tma" in found)
    if (groups := found.get("groups", 1)) * threads > _THREADS:
        raise CompileError(
            f"schedule: expected groups of at most {_THREADS} threads together, got "
            f"{groups} of {threads}"
        )
    if "tf32" in found and not found.keys() & set(TIERS):
        raise CompileError("schedule: tf32: expected mma or wgmma as well")
    if "square" in found and (not rows or found.keys() & {"wgmma", "tf32", "tma"}):
        raise CompileError(
            "schedule: square: expected rows, and neither wgmma nor tma nor tf32"
        )
    if "persistent" in found and (
        "tma" not in found or found.keys() & {"ahead", "behind", "turns"}
    ):
        raise CompileError(
            "schedule: persistent: expected tma, and neither ahead, behind nor turns"
        )
    if "tall" in found:
        if "mma" not in found:
            raise CompileError("schedule: tall: expected mma as well")
        if found["tall"] not in (4, 8, 16):
            raise CompileError(
                f"schedule: tall: expected 4, 8 or 16 terms, got {found['tall']}"
            )
    if "tma" in found and (not rows or not found.keys() & set(TIERS)):
        raise CompileError("schedule: tma: expected rows, and mma or wgmma as well")
    if "ahead" in found and ("part" in found or not found.keys() >= {"wgmma", "tma"}):
        raise CompileError(
            "schedule: ahead: expected wgmma and tma as well, and no block of folded "
            "indices"
        )
    if "behind" in found and ("part" in found or not found.keys() >= {"wgmma", "tma"}):
        raise CompileError(
            "schedule: behind: expected wgmma and tma as well, and no block of folded "
            "indices"
        )
    if "behind" in found and found["stages"] < 2:
        raise CompileError("schedule: behind: expected stages of at least 2, got 1")
    if "turns" in found and (
        not found.keys() >= {"wgmma", "tma"} or found["warps"] < 8
    ):
        raise CompileError(
            "schedule: turns: expected wgmma and tma as well, and at least 8 warps"
        )
    part = found.get("part", found["chunk"])
    unit = 16 if found.keys() & set(TIERS) else 8
    unit = 32 if "square" in found else unit
    multiples = {
        "chunk": (found["chunk"], unit),
        "block of folded indices": (part, unit),
    }
    if found.keys() & set(TIERS) and "square" not in found:
        multiples["regs"] = (found["regs"], 2)
    if found["block"] != 1:
        multiples["block of columns"] = (found["block"], 8)
    for name, (number, unit) in multiples.items() if rows else ():
        if number % unit:
            raise CompileError(
                f"schedule: expected a {name} of a multiple of {unit}, got {number}"
            )
    if found["chunk"] % part:
        raise CompileError(
            f"schedule: expected a chunk of whole blocks of {part}, "
            f"got {found['chunk']}"
        )
    stages = MOST_STAGES if "tma" in found else 2
    warps = 32 - ENGINE_WARPS if "tma" in found else 32
    for name, most in (("stages", stages), ("warps", warps)):
        if found[name] > most:
            raise CompileError(f"schedule: {name} of at most {most}, got {found[name]}")


def _check_clusters(found: dict[str, int], clusters: list[tuple[str, int]]) -> None:
    """Check that there is code for the clusters of a schedule.

    Raises:
        CompileError: if there is not.
    """
    size = prod(count for _, count in clusters)
    for number in (*(count for _, count in clusters), size):
        if clusters and number not in CLUSTERS:
            *others, last = CLUSTERS
            raise CompileError(
                "schedule: cluster: expected "
                f"{', '.join(map(str, others))} or {last} groups, got {number}"
            )
    if "tma" not in found and any(axis != FOLDED for axis, _ in clusters):
        raise CompileError(
            "schedule: cluster: expected tma as well, for an axis that is not folded"
        )
    if "persistent" in found and FOLDED in dict(clusters):
        raise CompileError(
            "schedule: persistent: expected no cluster with parts of folded axes"
        )
    if found.get("persistent", 0) % size:
        raise CompileError(
            f"schedule: persistent: expected whole clusters of {size} groups, "
            f"got {found['persistent']}"
        )


def choose_grid(
    kernel: Kernel,
    tier: str,
    shared: int = LARGEST,
    has_tf32: bool = False,
    deterministic: bool = False,
    engine: bool = False,
) -> Grid | None:
    """The schedule of a kernel in closed form, None if one thread an element is best.

    Rows are along an axis that the first factors of its sums of products have and the
    second ones do not. Registers then hold the accumulators: with 16-bit factors 32
    rows a warp, so that what is read of the second factors serves twice.

    Args:
        kernel: the kernel; its outputs' folds may become passes.
        tier: the best instructions for products of matrices that there are: `wgmma`,
            `mma`, or none with `portable`.
        shared: how many bytes of shared memory a group of threads may have; tiles are
            made smaller until they fit.
        has_tf32: whether factors of f32 may be rounded to tf32.
        deterministic: whether the order of every sum, and what it is made of, is the
            same whatever the extents of results.
        engine: whether the copy engine may be used, where it can and is faster.
    """
    grid = _chosen(kernel, tier, shared, has_tf32, deterministic, engine)
    if engine and not deterministic and grid is not None:
        grid = overlapped(kernel, grid, shared) or grid
    return None if grid is None else replace(grid, aligned=deterministic)


def _chosen(
    kernel: Kernel,
    tier: str,
    shared: int,
    has_tf32: bool,
    deterministic: bool,
    engine: bool,
) -> Grid | None:
    rows = rows_of(kernel)
    same = None if deterministic else find_shared(kernel, rows)
    if same is not None:
        rows = share_rows(kernel, same)
    if rows:
        types = _products(kernel, rows)
        if types:
            if row := find_long_row(kernel):
                lift_row(kernel, row)
            grid = _for_rows(kernel, rows, types, tier, has_tf32, deterministic)
            if row:
                width = _LIFTED if types <= {"f16", "bf16"} else _LIFTED // 2
                # Of two groups one would have too few registers.
                hint = kernel.hints[row]
                grid = replace(grid, columns=hint, width=width, groups=0)
            grid = _tall(grid, types, engine)
            is_reading = grid.tier == "mma" and grid.warps == 1 and not row
            if engine and is_reading and types <= {"f16", "bf16"}:
                # Two groups on a multiprocessor have all that they read under way.
                boxed = replace(grid, stages=3, has_engine=True)
                if found := _boxed(kernel, boxed, shared // 2):
                    return found
            return _fitted(kernel, grid, shared)
    if not kernel.passes:
        for rows in reversed(kernel.axes[:-1]):
            columns = kernel.axes[-1]
            types = _products_of_outputs(kernel, rows, columns)
            if types:
                grid = _for_rows(
                    kernel, rows, types, tier, has_tf32, deterministic, columns
                )
                grid = _tall(grid, types, engine)
                larger = replace(grid, blocks=4)
                if grid.tall and tiles_of(kernel, larger) >= MULTIPROCESSORS:
                    grid = larger
                is_narrow = types <= {"f16", "bf16"}
                if engine and is_narrow and grid.tier:
                    boxed = replace(grid, stages=_STAGES, has_engine=True)
                    if grid.tier == "mma" and grid.warps <= 2:
                        # Few rows: what counts is how much is under way.
                        boxed = replace(boxed, chunk=128, stages=6)
                    if found := _boxed(kernel, boxed, shared):
                        return found
                return _fitted(kernel, grid, shared)
        split_folds(kernel)
        if (rows := rows_of(kernel)) and (types := _products(kernel, rows)):
            grid = _for_rows(kernel, rows, types, tier, has_tf32, deterministic)
            return _fitted(kernel, grid, shared)
    longest = max(map(_length, kernel.passes), default=0)
    if not deterministic and (grid := _for_few(kernel, longest)):
        return grid
    if not deterministic and (grid := _for_long_output(kernel, longest)):
        return grid
    if not deterministic and (grid := _for_short_rows(kernel, longest)):
        return grid
    if (
        longest < (_SHORT if kernel.axes else _SHORTEST)
        or any(a.axes for pass_ in kernel.passes for a in pass_.accumulators)
        or any(_is_across(kernel, pass_) for pass_ in kernel.passes)
    ):
        return None
    warps = 8 if longest >= 4096 else 4 if longest >= 1024 else 1
    extents = [static_extent(kernel.extents[axis]) for axis in kernel.axes]
    count = prod(extent or NOMINAL_EXTENT for extent in extents)
    has_few = count <= MULTIPROCESSORS and not deterministic
    if longest >= 4096 and has_few and tier != "portable":
        warps = 32  # A row has a multiprocessor to itself.
    most = 32 * warps * 16
    chunk = min(most, -(-longest // (128 * warps)) * 128 * warps)
    return Grid("", warps, chunk=chunk, stages=1, tier="")


def _for_few(kernel: Kernel, longest: int) -> Grid | None:
    """The schedule of short folds for each of few elements, as of parts merged.

    With one thread an element the device would wait for one load after the other. So
    four threads have a row, as of a product of matrices, and load all of it at once.
    """
    extents = [static_extent(kernel.extents[axis]) for axis in kernel.axes]
    known = [extent for extent in extents if extent is not None]
    if (
        not _SHORTEST <= longest <= _LONGEST
        or len(known) != len(extents)
        or not 0 < prod(known) <= _ELEMENTS
        or not kernel.axes
        or any(a.axes for pass_ in kernel.passes for a in pass_.accumulators)
        or any(output.axes for output in kernel.outputs)
    ):
        return None
    chunk = min(64, -(-longest // 8) * 8)
    rows = kernel.axes[-1]
    warps = 4 if known[-1] > 16 else 2 if known[-1] > 8 else 1
    return Grid(kernel.hints[rows], warps, 1, chunk, 1, tier="")


_SHORTEST, _LONGEST = 4, 256
"""How long folds are that four threads share."""

_ELEMENTS = MULTIPROCESSORS * 512
"""Of so many elements each is a thread's: there are threads enough."""


def _for_short_rows(kernel: Kernel, longest: int) -> Grid | None:
    """The schedule of short rows: four threads have one, and eight rows a warp.

    What a warp reads then lies side by side.
    """
    accumulators = [a for pass_ in kernel.passes for a in pass_.accumulators]
    sizes = [
        static_extent(kernel.extents[axis])
        for output in kernel.outputs
        for axis in output.axes
    ]
    if (
        not 4 <= longest < _SHORT
        or not kernel.axes
        or any(a.axes for a in accumulators)
        or any(len(output.axes) > 1 for output in kernel.outputs)
        or any(size is None or size > 2 * _SHORT for size in sizes)
        or any(length_of(pass_) is None for pass_ in kernel.passes)
        or any(_is_across(kernel, pass_) for pass_ in kernel.passes)
    ):
        return None
    chunk = -(-longest // 8) * 8
    return Grid(kernel.hints[kernel.axes[-1]], 4, 1, chunk, 1, tier="")


def _tall(grid: Grid, types: set[str], engine: bool) -> Grid:
    """A schedule with the instructions of 16 rows for f64, if there are any."""
    is_tall = engine and "f64" in types and grid.tier and grid.blocks % 2 == 0
    return replace(grid, tall=4) if is_tall else grid


def tiles_of(kernel: Kernel, grid: Grid) -> int:
    """How many groups a schedule has, about."""
    sizes = {
        kernel.named(grid.rows): 8 * grid.blocks * grid.warps,
        kernel.named(grid.columns): grid.width,
    }
    return prod(
        -(
            -(static_extent(kernel.extents[axis]) or NOMINAL_EXTENT)
            // sizes.get(axis, 1)
        )
        for axis in kernel.axes
    )


def _for_long_output(kernel: Kernel, longest: int) -> Grid | None:
    """The schedule of few rows that take short folds each: several groups have a row.

    Each computes the folds again, as of parts merged, and has a block of the row.
    """
    row = find_output_row(kernel)
    extents = [static_extent(kernel.extents[axis]) for axis in kernel.axes]
    known = [extent for extent in extents if extent is not None]
    size = static_extent(kernel.extents[row]) if row else None
    if (
        size is None
        or size < 4 * _BLOCK
        or len(known) != len(extents)
        or not 0 < longest <= _LONGEST
        or prod(known) >= 4 * MULTIPROCESSORS
        or any(_is_across(kernel, pass_) for pass_ in kernel.passes)
    ):
        return None
    lift_row(kernel, row)
    count = -(-longest // 128) * 128
    return Grid(
        "", 4, chunk=count, stages=1, columns=kernel.hints[row], width=_BLOCK, tier=""
    )


_BLOCK = 1024
"""How many elements of a row a group has where several have one."""


def _fitted(kernel: Kernel, grid: Grid, shared: int) -> Grid | None:
    """A schedule with tiles as small as they have to be; None if none fits."""
    let_folds_be_passes(kernel, grid)
    return next((g for g in _smaller(grid) if shared_bytes(kernel, g) <= shared), None)


def _boxed(kernel: Kernel, grid: Grid, shared: int) -> Grid | None:
    """A schedule by which the copy engine loads; None if it cannot, or none fits."""
    found = _fitted(kernel, grid, shared)
    if found is None or found.stages < 2:
        return None
    try:
        check_boxes(kernel, found)
    except CompileError:
        return None
    return found


def _smaller(grid: Grid) -> Iterator[Grid]:
    """A schedule, then such as take less and less shared memory.

    What is read of the second factors serves all rows, so there are fewer rows only
    where no chunk fits.
    """
    is_grouped, fewest = grid.tier == "wgmma", 2 if grid.tier else 1
    warps, blocks = grid.warps, grid.blocks
    while True:
        for stages in range(grid.stages, 0, -1):
            chunk = grid.chunk
            least = 32 if stages > 1 or grid.is_square else 16
            while chunk >= least and chunk % least == 0:
                yield replace(
                    grid, warps=warps, blocks=blocks, chunk=chunk, stages=stages
                )
                chunk //= 2
        if blocks > fewest and not is_grouped:
            blocks //= 2
        elif warps > (4 if is_grouped else 1):
            warps //= 2
        else:
            return


# Chained products: sums are computed in the background of the next chunk.


def overlapped(kernel: Kernel, grid: Grid, shared: int) -> Grid | None:
    """A schedule with sums one chunk late, whose chunks the copy engine loads.

    For products of matrices by warp groups whose first factor is computed from other
    such products, as weights are from scores; None if there are none, or if the copy
    engine cannot load the chunks of both.

    What is best was measured on an H200. With sums over rows of up to 64
    elements three warp groups have registers enough, and share what is loaded; where
    rows take different terms two small groups of one each leave less to masks.

    Args:
        kernel: the kernel, whose folds are passes as the schedule wants them.
        grid: the schedule without.
        shared: how many bytes of shared memory a group may have.
    """
    is_chained = grid.tier == "wgmma" and not grid.columns and grid.warps == 8
    widths = late_widths(kernel, grid) if is_chained else []
    if not widths or sum(widths) > _LATE:
        return None
    rows = kernel.named(grid.rows)
    is_ragged = any(
        rows in bound.free for pass_ in kernel.passes for bound in pass_.bounds
    )
    warps, groups = 8, 0
    if sum(widths) <= _FEW and is_ragged:
        warps, groups = 4, 2
    elif sum(widths) <= _FEW and _fills(static_extent(kernel.extents[rows]), 12, 8):
        warps = 12
    found = replace(
        grid,
        warps=warps,
        groups=groups,
        chunk=128,
        block=0,
        stages=2,
        has_engine=True,
        is_behind=True,
        span=_SPAN if is_ragged else 1,
    )
    try:
        check_boxes(kernel, found)
    except CompileError:
        return None
    return found if shared_bytes(kernel, found) <= shared // max(groups, 1) else None


def _fills(extent: int | None, warps: int, others: int) -> bool:
    """Whether groups of so many warps have few rows more than with so many others."""
    if extent is None:
        return True
    taken, least = (-(-extent // (16 * n)) * n for n in (warps, others))
    return 8 * taken <= 9 * least


_FEW = 64
"""How many of them leave registers to three warp groups."""

_LATE = 128
"""How many accumulators a row may have beside a chunk's products of 128 columns."""

_SPAN = 16
"""How many indices of other axes take rows of different lengths in turn."""

_LIFTED = 128
"""How many elements a group has of a row that is too long for it, if narrow."""

_ANY = 1024
"""As many indices a fold is taken to have that is as long as the call says."""

_SHORT = 64
"""Folds over fewer indices are left to one thread."""


def _for_rows(
    kernel: Kernel,
    rows: str,
    types: set[str],
    tier: str,
    has_tf32: bool,
    deterministic: bool,
    columns: str = "",
) -> Grid:
    is_narrow = types <= {"f16", "bf16"} and tier != "portable"
    is_double = "f64" in types
    extent = static_extent(kernel.extents[rows]) or NOMINAL_EXTENT
    widths = [
        static_extent(kernel.extents[axis]) or 1
        for pass_ in kernel.passes
        for a in pass_.accumulators
        for axis in a.axes
    ]
    widest = _LIFTED if kernel.lifted else max(widths, default=1)
    warps, blocks = 4, 2 if is_double or widest > 128 else 4
    while warps * blocks * 8 >= 2 * extent and blocks * warps > 2:
        if blocks > 2:
            blocks //= 2
        else:
            warps //= 2
    chunk = 64 if is_narrow else 32
    # With few rows all is copying: f32 has it in the background, if no instructions.
    is_read = extent <= 32 and not deterministic
    is_rounded = has_tf32 and "f32" in types and tier != "portable"
    has_matrices = is_narrow or is_double or is_rounded
    uses = "mma" if tier != "portable" and (has_matrices or is_read) else ""
    # How many rows a group has does not change them; of what products are made does.
    has_many = extent > 32 or deterministic
    if is_narrow and tier == "wgmma" and not columns and has_many:
        grid = _for_warp_groups(kernel.hints[rows], extent, widest)
        return replace(grid, chunk=64) if deterministic else grid
    if is_narrow and tier == "wgmma" and columns and has_many:
        return _for_tiles(kernel, rows, columns)
    if not columns:
        return Grid(
            kernel.hints[rows], warps, blocks, chunk, 2, tier=uses, tf32=is_rounded
        )
    number = static_extent(kernel.extents[columns]) or NOMINAL_EXTENT
    # Few rows have all that is loaded to themselves: many groups load it.
    width = min(128 if is_narrow and has_many else 64, -(-number // 8) * 8)
    grid = Grid(
        kernel.hints[rows],
        warps,
        blocks,
        32 if has_many else chunk,
        2,
        kernel.hints[columns],
        width,
        uses,
        tf32=is_rounded,
    )
    is_square = types == {"f32"} and not is_rounded and width % 32 == 0 and has_many
    if not is_square:
        return grid
    if not deterministic:
        while grid.blocks > 1 and tiles_of(kernel, grid) < MULTIPROCESSORS:
            grid = replace(grid, blocks=grid.blocks // 2)
    return replace(grid, is_square=True, tier="mma" if tier != "portable" else "")


def _for_tiles(kernel: Kernel, rows: str, columns: str) -> Grid:
    """The schedule of a product of matrices with instructions of four warps.

    Of the tiles that a group may have the one that takes least: all multiprocessors
    take so many turns, and a turn is as long as the tile is large. Large tiles read
    each element of a factor less often. An extent that types do not give is taken to
    be long.
    """

    def extent(axis: str) -> int:
        return static_extent(kernel.extents[axis]) or NOMINAL_EXTENT

    others = prod(extent(axis) for axis in kernel.axes if axis not in (rows, columns))

    def taken(tile: tuple[int, int, float]) -> float:
        height, width, rate = tile
        count = -(-extent(rows) // height) * -(-extent(columns) // width) * others
        return -(-count // MULTIPROCESSORS) * height * width / rate

    height, width, _ = min(_TILES, key=taken)
    return Grid(
        kernel.hints[rows],
        height // 16,
        2,
        64,
        2,
        kernel.hints[columns],
        width,
        "wgmma",
    )


_STAGES = 4
"""How many chunks of a product of matrices are under way."""

_TILES = (
    (128, 256, 1.0),
    (128, 128, 0.9),
    (64, 256, 0.8),
    (128, 64, 0.7),
    (64, 128, 0.7),
    (64, 64, 0.5),
)
"""Tiles of a product: rows, columns, and how fast one is beside the first one."""


def _for_warp_groups(rows: str, extent: int, widest: int) -> Grid:
    """The schedule with instructions of four warps, which have 64 rows.

    Two groups should fit a multiprocessor, in 128 registers a thread: while one of them
    multiplies the other one does all else. So rows of more than 64 elements take fewer
    folded indices at a time.
    """
    warps = 8 if extent > 64 else 4
    chunk = 128 if widest <= 64 else 64
    groups = 2 if widest <= 128 else 0
    return Grid(rows, warps, 2, chunk, 2, tier="wgmma", groups=groups)


def _length(pass_: Pass) -> int:
    """How many indices a pass has, about."""
    known = length_of(pass_)
    return _ANY if known is None else known


def _is_across(kernel: Kernel, pass_: Pass) -> bool:
    """Whether elements that lie next to each other are those of the last axis."""
    last = kernel.axes[-1] if kernel.axes else ""
    return any(
        term.computes(AtOp.name)
        and len(term.args) > 1
        and term.args[-1].kind == last
        and pass_.index in term.free
        for a in pass_.accumulators
        for term in walk(a.part)
    )


def rows_of(kernel: Kernel) -> str:
    """The last axis that is rows of a product of matrices; empty if there is none."""
    return next((axis for axis in reversed(kernel.axes) if _products(kernel, axis)), "")


def _products(kernel: Kernel, rows: str) -> set[str]:
    """The types of the factors of a kernel's products for an axis of rows."""
    found: set[str] = set()
    for pass_ in kernel.passes:
        for a in pass_.accumulators:
            for term in walk(a.part):
                if term.is_fold and term.function == StringAttr("add"):
                    found |= _factors(term.args[2], rows, pass_.index)
            for axis in a.axes:
                if a.function == "add":
                    found |= _factors(a.part, rows, axis)
    return found


def _products_of_outputs(kernel: Kernel, rows: str, columns: str) -> set[str]:
    """The same for the folds in the outputs of a kernel without passes."""
    found: set[str] = set()
    for output in kernel.outputs:
        if output.axes:
            return set()
        for term in walk(output.value):
            if term.is_fold and term.function == StringAttr("add"):
                found |= _factors(term.args[2], rows, columns)
    return found


def _factors(body: Term, rows: str, columns: str) -> set[str]:
    """The type of the factors, if one has the rows and the other one the columns."""
    if not body.computes("arith.mulf"):
        return set()
    for left, right in (body.args, body.args[::-1]):
        if (
            rows in left.free
            and columns in right.free
            and rows not in right.free
            and columns not in left.free
        ):
            types: set[str] = set()
            for factor in (left, right):
                inner = factor.args[0] if factor.computes("arith.extf") else factor
                is_known = isinstance(
                    inner.type, BFloat16Type | Float16Type | Float64Type
                )
                types.add(f"{inner.type}" if is_known else "f32")
            return types
    return set()


def read_grid(text: str, kernel: Kernel) -> Grid:
    """Read a schedule for a kernel; its rows may be such as read the same.

    Raises:
        CompileError: if it is none.
    """
    share_named(kernel, text)
    lift_named(kernel, text)
    return parse_grid(text, [kernel.hints[axis] for axis in kernel.axes])


def let_folds_be_passes(kernel: Kernel, grid: Grid) -> None:
    """Make the folds in outputs passes, over the columns of a group if it has some."""
    if grid.columns and not kernel.lifted:
        split_folds(kernel, (kernel.named(grid.columns),))
    else:
        split_folds(kernel)


def check_fits(kernel: Kernel, grid: Grid, shared: int) -> None:
    """Check that the tiles of a kernel fit so many bytes of shared memory.

    With `tma` that the copy engine can load them, too, and with `cluster` that groups
    have some to share. The kernel is not used
    afterwards: its folds become passes.

    Raises:
        CompileError: if they do not, or it cannot.
    """
    let_folds_be_passes(kernel, grid)
    if grid.clusters:
        check_clusters(kernel, grid)
    if grid.has_engine:
        check_boxes(kernel, grid)
    if (taken := shared_bytes(kernel, grid)) > shared:
        raise CompileError(
            f"schedule: expected at most {shared} bytes of shared memory, got {taken}"
        )


def share_named(kernel: Kernel, text: str) -> None:
    """Let indices that read the same be an axis, if a schedule names it."""
    shared = find_shared(kernel, rows_of(kernel))
    names = {part.partition("=")[0].strip() for part in text.split(";")}
    if shared is not None and shared.hint in names:
        share_rows(kernel, shared)
