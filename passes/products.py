"""Sums of products in kernels that are products of matrices, and their tiles.

A sum of products over an axis, for rows and columns, of a factor that depends on the
rows and one that depends on the columns is a product of matrices. On a GPU its factors
lie in tiles in the memory that a group of threads shares; how large those are says
`shared_bytes`, by which a schedule is chosen that fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    Float16Type,
    Float64Type,
    IndexType,
    StringAttr,
    f32,
)
from xdsl.ir import Attribute, SSAValue

from moa_dialect.errors import CompileError
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.kernels import Kernel, Pass, is_multiple, static_extent
from moa_dialect.passes.terms import ChunkFold, Folded, Held, Term, Terms, walk
from moa_dialect.types import dtype_of, memory_element, shape_of

if TYPE_CHECKING:
    from moa_dialect.passes.grid import Grid

COPY_BYTES = 16
"""How much a thread copies at a time; arrays of kernels are aligned to that."""

PANEL_BYTES = 128
"""The length of the rows of a panel of a swizzled tile."""

SWIZZLE_BYTES = 1024
"""What the address of a swizzled tile is a multiple of."""

WIDEST = 256
"""The most columns of an axis that are not folded that a group has at a time."""

DEPTH = 64
"""How much of an axis is loaded at a time that is summed over and longer than that."""


ENGINE_WARPS = 4
"""The most warps that a group has for nothing but loading."""

BOX_ROWS = 256
"""The most rows that the copy engine moves at a time."""

MAP_AXES = 5
"""The most axes of an array that the copy engine knows."""

SWIZZLED_ROWS = SWIZZLE_BYTES // PANEL_BYTES
"""After how many rows of a panel pieces are permuted as in the first one."""

BARRIER_BYTES = 8
"""The size of a barrier in memory."""


@dataclass(frozen=True)
class Product:
    """A sum of products that is a product of matrices.

    Attributes:
        fold: the sum.
        left: the factor that depends on the rows.
        right: the factor that depends on the columns.
        axis: the index that is summed over.
        columns: the axis of the columns.
        element: the type of the factors: a narrow one, if both are extended from it.
        is_tf32: whether factors of f32 are rounded to tf32.
    """

    fold: Term
    left: Term
    right: Term
    axis: str
    columns: str
    element: Attribute
    is_tf32: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether the factors are of half precision."""
        return isinstance(self.element, BFloat16Type | Float16Type)

    @property
    def sum_type(self) -> Attribute:
        """The type in which terms are added up; a sum of half precision is rounded."""
        type_ = self.fold.type
        return f32 if isinstance(type_, BFloat16Type | Float16Type) else type_

    def has_matrices(self, tier: str) -> bool:
        """Whether there are instructions for it in a tier; see `Grid`."""
        is_double = isinstance(self.element, Float64Type)
        return bool(tier) and (self.is_narrow or is_double or self.is_tf32)

    @property
    def depth(self) -> int:
        """How many terms an instruction adds up."""
        return 16 if self.is_narrow else 8 if self.is_tf32 else 4


def read_product(
    terms: Terms,
    fold: Term,
    rows: str,
    columns: Sequence[str],
    index: str,
    has_tf32: bool = False,
) -> Product | None:
    """A sum as a product of matrices, None if it is none.

    Args:
        terms: where terms are made.
        fold: the sum: over a chunk, or a fold whose index gets the name `index`.
        rows: the axis of the rows.
        columns: the axes of columns.
        index: a name for the index of a fold.
        has_tf32: whether factors of f32 may be rounded to tf32.
    """
    kind = fold.kind
    if isinstance(kind, ChunkFold):
        function, axis, body = kind.function, kind.index, fold.args[0]
    else:
        if not isinstance(kind, Folded) or fold.function != StringAttr("add"):
            return None
        function, (axis, body) = "add", terms.open(fold, index)
    found = [name for name in columns if name in fold.free]
    if (
        function != "add"
        or len(found) != 1
        or not body.computes("arith.mulf")
        or not isinstance(body.type, AnyFloat)
    ):
        return None
    (column,) = found
    for left, right in (body.args, body.args[::-1]):
        if column in left.free or column not in right.free or rows in right.free:
            continue
        if axis not in left.free & right.free or rows not in left.free:
            continue
        element = body.type
        if left.computes("arith.extf") and right.computes("arith.extf"):
            narrow = left.args[0], right.args[0]
            if narrow[0].type == narrow[1].type and element == f32:
                left, right = narrow
                element = left.type
        is_tf32 = has_tf32 and element == f32
        return Product(fold, left, right, axis, column, element, is_tf32)
    return None


def is_stored(term: Term) -> bool:
    """Whether a term is computed from arrays alone, so that a tile may hold it."""
    return not any(isinstance(t.kind, Held | ChunkFold | Folded) for t in walk(term))


def has_left_tile(product: Product, index: str, differs: bool) -> bool:
    """Whether the first factor of a product lies in a tile.

    Not if it is computed, nor if rows take different indices of a pass (`differs`) that
    are summed over: then each thread has the values of its rows, and 0 for the others.

    Args:
        product: the product.
        index: the index of the pass.
        differs: whether the bounds of the pass depend on the rows.
    """
    is_ragged = differs and product.axis == index
    return is_stored(product.left) and not is_ragged


def static_bound(fold: Term) -> int | None:
    """One more than the last index of a fold as a number, None if types do not give it.

    It is none either if the first index is not 0.
    """
    upper = fold.args[1]
    known = upper.number
    if known is None and isinstance(upper.kind, SSAValue):
        known = static_extent(upper.kind)
    return None if known is None or fold.args[0].number != 0 else int(known)


def is_long(product: Product) -> bool:
    """Whether a sum within a chunk is over more than tiles hold, or nobody knows."""
    if not isinstance(product.fold.kind, Folded) or product.fold.args[0].number != 0:
        return False
    bound = static_bound(product.fold)
    return bound is None or bound > WIDEST


def tile_dims(
    sizes: Sequence[int], element: Attribute, stages: int, is_swizzled: bool
) -> list[int]:
    """The shape of a tile in shared memory: by stage, if it has several, then by axes.

    Rows begin in different banks: they are padded, or lie in panels of 128 bytes.
    """
    size = dtype_of(element).itemsize
    if is_swizzled:
        panel = PANEL_BYTES // size
        dims = [-(-sizes[1] // panel), sizes[0], panel]
    else:
        # Elements of 8 bytes are read four side by side, of four rows at a time.
        padding = 2 * COPY_BYTES if size == 8 else COPY_BYTES
        dims = [sizes[0], sizes[1] + padding // size]
    return [stages, *dims] if stages > 1 else dims


def padded_sizes(
    product: Product, axes: Sequence[str], sizes: dict[str, int]
) -> tuple[int, int]:
    """The extents of a tile of a factor, filled up to what instructions take."""
    found: list[int] = []
    for name in axes:
        across = 16 if product.is_narrow else 8
        unit = product.depth if name == product.axis else across
        found.append(-(-sizes[name] // unit) * unit)
    return found[0], found[1]


# What the copy engine loads.


@dataclass(frozen=True)
class Ahead:
    """A factor that is loaded chunk by chunk, before it is needed.

    Attributes:
        product: the product.
        term: the factor.
        axes: the axes of its tile; along the second one elements lie side by side.
        sizes: the extents of the tile.
        must_end: whether what is beyond the end of the sum has to be zero.
        upper: the end of the sum, or of the columns.
    """

    product: Product
    term: Term
    axes: tuple[str, str]
    sizes: tuple[int, int]
    must_end: bool
    upper: Term


def known_to_host(term: Term) -> bool:
    """Whether a bound is a number, or a value from outside of the kernel."""
    return term.number is not None or isinstance(term.kind, SSAValue)


def must_be_zero(
    product: Product, index: str, has_left: bool, is_whole: bool, size: int
) -> bool:
    """Whether terms beyond the end of a product's sum have to be zero in its tiles.

    Args:
        product: the product.
        index: the index of the pass.
        has_left: whether the first factor lies in a tile; if it is computed, it is zero
            there.
        is_whole: whether all chunks are complete.
        size: how many terms tiles hold.
    """
    if product.axis == index:
        return has_left and not is_whole
    return static_bound(product.fold) != size


def find_box(term: Term, axes: tuple[str, str], element: Attribute) -> tuple[int, int]:
    """Which axes of an array the axes of a tile are, if boxes of it are tiles.

    The index of either axis is that of the tile, or that and a number which the tile's
    indices do not change; all other indices are one for the whole tile.

    Raises:
        CompileError: if the copy engine cannot load it.
    """
    if not term.computes(AtOp.name) or memory_element(term.type) != element:
        raise CompileError(
            "schedule: tma: expected factors that are elements of arrays as they are, "
            "got one that is computed"
        )
    array, *indices = term.args
    assert isinstance(array.kind, SSAValue)
    found: list[int] = []
    for axis in axes:
        places = [n for n, index in enumerate(indices) if axis in index.free]
        if len(places) != 1 or not _is_shifted(indices[places[0]], axis, axes):
            raise CompileError(
                "schedule: tma: expected boxes of an array, got one whose indices are "
                "computed from those of the tile"
            )
        found += places
    outer, inner = found
    shape = shape_of(array.kind.type)
    if outer == inner or inner != len(shape) - 1:
        raise CompileError(
            "schedule: tma: expected rows whose elements lie next to each other"
        )
    if len(shape) > MAP_AXES:
        raise CompileError(
            f"schedule: tma: expected arrays of at most {MAP_AXES} axes, "
            f"got {len(shape)}"
        )
    unit = COPY_BYTES // dtype_of(element).itemsize
    if shape[-1] < 0 or shape[-1] % unit:
        length = "any" if shape[-1] < 0 else f"{shape[-1]}"
        raise CompileError(
            f"schedule: tma: expected rows of a multiple of {unit} elements "
            f"({COPY_BYTES} bytes), got {length}"
        )
    return outer, inner


def _is_shifted(index: Term, axis: str, axes: tuple[str, str]) -> bool:
    """Whether an index is that of an axis, and a number at most."""
    if index.kind == axis:
        return True
    if not index.computes("arith.addi"):
        return False
    left, right = index.args
    if right.kind == axis:
        left, right = right, left
    return left.kind == axis and not right.free & set(axes)


def check_boxes(kernel: Kernel, grid: Grid) -> None:
    """Check that the copy engine can load the chunks of a kernel.

    Raises:
        CompileError: if it cannot.
    """
    memory = _counted(kernel, grid)
    if not memory.ahead:
        raise CompileError(
            "schedule: tma: expected products whose factors are loaded chunk by chunk"
        )
    for each in memory.ahead:
        check_box(each, grid)


def sharers(term: Term, clusters: Mapping[str, int]) -> int:
    """How many groups of a cluster have the same tile of a term.

    Args:
        term: the term.
        clusters: how many groups a cluster has along each axis.
    """
    return prod(count for axis, count in clusters.items() if axis not in term.free)


def share_of(sizes: Sequence[int], element: Attribute, groups: int) -> tuple[int, int]:
    """How many rows and panels of a tile each of some groups loads for all of them.

    Raises:
        CompileError: if a tile cannot be cut into so many parts.
    """
    panels = -(-sizes[1] // (PANEL_BYTES // dtype_of(element).itemsize))
    if panels % groups == 0:
        return sizes[0], panels // groups
    if sizes[0] % (groups * SWIZZLED_ROWS):
        raise CompileError(
            "schedule: cluster: expected tiles of a multiple of "
            f"{groups * SWIZZLED_ROWS} rows, got {sizes[0]}"
        )
    return sizes[0] // groups, panels


def check_clusters(kernel: Kernel, grid: Grid) -> None:
    """Check that the groups of a cluster have tiles to share, and can.

    Raises:
        CompileError: if not.
    """
    clusters = {kernel.named(axis): count for axis, count in grid.clusters}
    rows = kernel.named(grid.rows)
    for pass_ in kernel.passes:
        for axis in clusters:
            if axis != rows and any(axis in bound.free for bound in pass_.bounds):
                raise CompileError(
                    "schedule: cluster: expected folds whose bounds do not depend on "
                    f"{kernel.hints[axis]}"
                )
    loaded = _counted(kernel, grid).ahead
    for axis in clusters:
        if all(axis in each.term.free for each in loaded):
            raise CompileError(
                "schedule: cluster: expected a factor of a product that does not "
                f"depend on {kernel.hints[axis]}"
            )
    for each in loaded:
        groups = sharers(each.term, clusters)
        share_of(each.sizes, each.product.element, groups)


def check_box(ahead: Ahead, grid: Grid) -> tuple[int, int]:
    """Which axes of an array the axes of a tile are, for the copy engine.

    Raises:
        CompileError: if it cannot load the tile.
    """
    product = ahead.product
    if not product.has_matrices(grid.tier):
        raise CompileError(
            "schedule: tma: expected products by matrix instructions, got one of "
            f"{product.element} with {grid.tier}"
        )
    found = find_box(ahead.term, ahead.axes, product.element)
    if ahead.sizes[0] > BOX_ROWS:
        raise CompileError(
            f"schedule: tma: expected boxes of at most {BOX_ROWS} rows, "
            f"got {ahead.sizes[0]}"
        )
    if ahead.must_end:
        place = found[ahead.axes.index(product.axis)]
        index = ahead.term.args[1 + place]
        if index.kind != product.axis or not known_to_host(ahead.upper):
            raise CompileError(
                "schedule: tma: expected sums that end where the array does, or at a "
                "number that the call gives"
            )
    return found


def has_box(ahead: Ahead, grid: Grid) -> bool:
    """Whether the copy engine can load a tile."""
    try:
        check_box(ahead, grid)
    except CompileError:
        return False
    return True


@dataclass
class _Memory:
    """Counts the shared memory of a kernel, in the order in which it is taken.

    Attributes:
        kernel: the kernel.
        grid: how it runs.
        bytes: how much is taken.
        ahead: the factors that are loaded chunk by chunk.
        still: how many factors of a pass the copy engine loads once.
    """

    kernel: Kernel
    grid: Grid
    bytes: int = 0
    still: int = 0
    ahead: list[Ahead] = field(default_factory=list[Ahead])

    @property
    def rows(self) -> str:
        return self.kernel.named(self.grid.rows)

    def take(
        self, sizes: Sequence[int], element: Attribute, stages: int, swizzled: bool
    ) -> None:
        dims = tile_dims(sizes, element, stages, swizzled)
        alignment = SWIZZLE_BYTES if swizzled else COPY_BYTES
        self._reserve(prod(dims) * dtype_of(element).itemsize, alignment)

    def _reserve(self, size: int, alignment: int = COPY_BYTES) -> None:
        self.bytes = -(-self.bytes // alignment) * alignment
        self.bytes += -(-size // COPY_BYTES) * COPY_BYTES

    def of_pass(self, pass_: Pass, axes: Sequence[str]) -> None:
        """Count the tiles of a pass, beside those of axes of passes before."""
        terms = self.kernel.terms
        folds: dict[Term, None] = {}
        for a in pass_.accumulators:
            folds |= dict.fromkeys(walk(a.part))
            if a.axes:
                folds[terms.chunk_fold(a.function, pass_.index, a.part)] = None
        self.of_folds(folds, pass_, axes)
        if self.grid.merged > 1:
            self._of_states(pass_)

    def _of_states(self, pass_: Pass) -> None:
        """Count what each thread has of the states, for the others of a cluster.

        Of a pass over a row in registers, which is not cut into parts, too much.
        """
        grid, counts = self.grid, dict[Attribute, int]()
        for a in pass_.accumulators:
            widths = [self._width(axis) for axis in a.axes]
            count = prod(2 * -(-width // 8) for width in widths)
            type_ = memory_element(a.type)
            counts[type_] = counts.get(type_, 0) + count * grid.blocks
        for r in pass_.pivots:
            type_ = memory_element(r.type)
            counts[type_] = counts.get(type_, 0) + grid.blocks
        for type_, count in counts.items():
            self._reserve(count * 32 * grid.warps * dtype_of(type_).itemsize)

    def _width(self, axis: str) -> int:
        if axis == self.kernel.named(self.grid.columns):
            return self.grid.width
        return static_extent(self.kernel.extents[axis]) or 0

    def of_folds(self, folds: Iterable[Term], pass_: Pass, axes: Sequence[str]) -> None:
        """Count the tiles of the products among some terms, in chunks of a pass."""
        index, before = pass_.index, len(self.ahead)
        self.still = 0
        tiles = set[Term]()
        for number, fold in enumerate(folds):
            product = read_product(
                self.kernel.terms,
                fold,
                self.rows,
                [*axes, index],
                f"k{number}",
                self.grid.tf32,
            )
            if product is not None:
                self._of_product(product, pass_, tiles)
        if self.grid.has_engine and (count := len(self.ahead) - before):
            self._reserve(2 * count * self.grid.stages * BARRIER_BYTES)
            if self.still:
                self._reserve(2 * self.still * BARRIER_BYTES)

    def _of_product(self, product: Product, pass_: Pass, tiles: set[Term]) -> None:
        grid, kernel, index = self.grid, self.kernel, pass_.index
        bounds = pass_.lower, pass_.upper
        differs = any(self.rows in bound.free for bound in bounds)
        is_whole = not differs and all(is_multiple(b, grid.chunk) for b in bounds)
        depth: int | None = grid.chunk
        is_streamed = is_long(product)
        if product.axis != index:
            depth = DEPTH if is_streamed else static_bound(product.fold)
            if depth is None:
                return
        if not is_stored(product.right):
            return
        width: int | None = grid.chunk
        if product.columns != index:
            width = static_extent(kernel.extents[product.columns])
            if product.columns == kernel.named(grid.columns):
                width = grid.width
            if width is None or width > WIDEST:
                return
        height = 8 * grid.blocks * grid.warps
        sizes = {product.axis: depth, self.rows: height, product.columns: width}
        swizzled = grid.tier == "wgmma" and product.is_narrow and not is_streamed
        factors = [(product.right, product.columns)]
        has_left = has_left_tile(product, index, differs)
        filled = -(-depth // product.depth) * product.depth
        must_end = must_be_zero(product, index, has_left, is_whole, filled)
        if has_left:
            factors.insert(0, (product.left, self.rows))
        elif product.axis != index:
            return
        for term, across in factors:
            if term in tiles and not is_streamed:
                continue
            if not is_streamed:
                tiles.add(term)
            axes = (across, product.axis)
            if _is_last(term, across):
                axes = (product.axis, across)
            is_ahead = index in term.free and not is_streamed
            stages = grid.stages if is_ahead else 1
            padded = padded_sizes(product, axes, sizes)
            of_pass = product.axis == index
            upper = pass_.upper if of_pass else product.fold.args[1]
            box = Ahead(product, term, axes, padded, must_end, upper)
            if is_ahead:
                self.ahead.append(box)
            elif swizzled and grid.has_engine and has_box(box, grid):
                self.still += 1
            is_boxed = is_ahead and grid.has_engine
            self.take(padded, product.element, stages, swizzled or is_boxed)
        is_spilled = not (has_left or product.has_matrices(grid.tier))
        if is_spilled and product.left not in tiles:
            tiles.add(product.left)
            self.take((height, grid.chunk), product.element, 1, False)


def late_widths(kernel: Kernel, grid: Grid) -> list[int]:
    """How wide the sums are to which products may be added one chunk late.

    The first factor of such a product is computed, and nothing but the sum itself reads
    it while it is made. None is of an extent that nobody knows.
    """
    found: list[int] = []
    terms, rows = kernel.terms, kernel.named(grid.rows)
    for pass_ in kernel.passes:
        index = pass_.index
        differs = any(rows in bound.free for bound in (pass_.lower, pass_.upper))
        for a in pass_.accumulators:
            if len(a.axes) != 1:
                continue
            others = [other.part for other in pass_.accumulators if other is not a]
            others += [a.part, *(pivot.value for pivot in pass_.pivots)]
            if any(
                isinstance(t.kind, Held) and t.kind.name == a.name
                for t in walk(*others)
            ):
                continue
            fold = terms.chunk_fold(a.function, index, a.part)
            product = read_product(terms, fold, rows, [*a.axes, index], "k")
            width = static_extent(kernel.extents[a.axes[0]])
            if (
                product is not None
                and width is not None
                and product.is_narrow
                and product.axis == index
                and product.sum_type == a.type
                and not has_left_tile(product, index, differs)
            ):
                found.append(width)
    return found


def _is_last(term: Term, axis: str) -> bool:
    """Whether a term reads an array in which an axis is the last one."""
    if not term.computes(AtOp.name) or len(term.args) < 2:
        return False
    *others, last = term.args[1:]
    return last.kind == axis and all(axis not in index.free for index in others)


def shared_bytes(kernel: Kernel, grid: Grid) -> int:
    """How many bytes of shared memory the tiles of a kernel take by a schedule.

    The kernel's folds have become passes as the schedule wants it.
    """
    return _counted(kernel, grid).bytes


def _counted(kernel: Kernel, grid: Grid) -> _Memory:
    """The shared memory of a kernel by a schedule, and what is loaded there."""
    memory = _Memory(kernel, grid)
    if not memory.rows:
        return memory
    axes: dict[str, None] = {}
    for pass_ in kernel.passes:
        for a in pass_.accumulators:
            axes |= dict.fromkeys(a.axes)
        memory.of_pass(pass_, list(axes))
    for output in kernel.outputs:
        # Those of columns for which there is no state are computed by chunks.
        for axis in output.axes:
            if axis not in axes:
                terms = kernel.terms
                upper = terms.value(kernel.extents[axis])
                start = terms.number(0, IndexType())
                columns = Pass(axis, "", start, upper, [])
                memory.of_folds(walk(output.value), columns, list(axes))
    return memory
