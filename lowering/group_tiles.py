"""Tiles in the memory that a group of threads shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, MemRefType, VectorType
from xdsl.dialects.memref import ViewOp
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering.chips import LARGEST
from moa_dialect.lowering.emitter import NotLifted
from moa_dialect.lowering.gpu_ops import (
    WORKGROUP,
    AlignedLoadOp,
    AlignedStoreOp,
    AsyncCopyOp,
    CreateGroupOp,
    DynamicSharedMemoryOp,
    FenceProxyOp,
    WaitOp,
)
from moa_dialect.lowering.groups import GroupCode, divides, vector_bytes
from moa_dialect.ops.normal_form import AtOp
from moa_dialect.passes.products import (
    COPY_BYTES,
    PANEL_BYTES,
    SWIZZLE_BYTES,
    tile_dims,
)
from moa_dialect.passes.terms import Term
from moa_dialect.scalar_code import constant
from moa_dialect.types import dtype_of, memory_element


@dataclass(frozen=True)
class Extent:
    """What a tile has of an axis: from `start`, indices below `limit`.

    Attributes:
        start: the first index.
        limit: one more than the last index that exists; None if all of the tile do.
        is_aligned: whether the start is a multiple of what a thread copies.
    """

    start: SSAValue
    limit: SSAValue | None = None
    is_aligned: bool = True


@dataclass
class Tile:
    """The values of a term over two axes, in shared memory.

    Attributes:
        term: what it holds.
        axes: its axes; along the second one elements lie next to each other.
        sizes: how many indices it has of each.
        memory: where it is: by stage, if it has several, then by both axes.
        stages: how many copies there are, for chunks that are loaded ahead.
        stage: the copy that is filled or read.
        is_swizzled: whether it lies as instructions of warp groups want it: by panels
            of 128 bytes along the second axis, in whose rows the pieces of 16 bytes
            are permuted so that eight rows have theirs in different banks.
        is_loaded: whether a whole chunk is loaded; else it has the values of a block.
    """

    term: Term
    axes: tuple[str, str]
    sizes: tuple[int, int]
    memory: SSAValue
    stages: int = 1
    stage: SSAValue | None = None
    is_swizzled: bool = False
    is_loaded: bool = True

    @property
    def element(self) -> Attribute:
        """The element type."""
        assert isa(self.memory.type, MemRefType)
        return self.memory.type.element_type

    @property
    def panel(self) -> int:
        """How many elements a row of a panel has."""
        return PANEL_BYTES // dtype_of(self.element).itemsize

    @property
    def stage_bytes(self) -> int:
        """The size of one copy."""
        assert isinstance(self.memory.type, MemRefType)
        count = prod(self.memory.type.get_shape()) // self.stages
        return count * dtype_of(self.element).itemsize

    def indices(
        self, code: GroupCode, places: Mapping[str, SSAValue]
    ) -> list[SSAValue]:
        """The indices in its memory of an element."""
        found = [places[axis] for axis in self.axes]
        if self.is_swizzled:
            row, place = found
            piece = COPY_BYTES // dtype_of(self.element).itemsize
            within = code.rem(place, self.panel)
            number = code.make(
                arith.XOrIOp,
                (code.div(within, piece), code.rem(row, PANEL_BYTES // COPY_BYTES)),
                IndexType(),
            )
            permuted = code.add(code.mul(number, piece), code.rem(within, piece))
            found = [code.div(place, self.panel), row, permuted]
        if self.stages == 1:
            return found
        assert self.stage is not None
        return [self.stage, *found]


@dataclass
class SharedMemory:
    """The shared memory of a group, and what is copied there.

    Attributes:
        code: the emitter.
        is_async: whether copies run in the background.
        has_groups: whether instructions of warp groups read tiles.
        most: how much memory a group may have.
        bytes: how much memory is taken.
    """

    code: GroupCode
    is_async: bool
    has_groups: bool = False
    most: int = LARGEST
    bytes: int = 0
    base: DynamicSharedMemoryOp = field(init=False)

    def __post_init__(self) -> None:
        self.base = DynamicSharedMemoryOp()
        self.code.builder.insert(self.base)

    def allocate(
        self, dims: Sequence[int], element: Attribute, alignment: int = COPY_BYTES
    ) -> SSAValue:
        """Memory for so many elements, at a multiple of so many bytes."""
        element = memory_element(element)
        size = prod(dims) * dtype_of(element).itemsize
        type_ = MemRefType(element, dims, memory_space=WORKGROUP)
        self.bytes = -(-self.bytes // alignment) * alignment
        view = ViewOp.create(
            operands=[self.base.result, self.code.number(self.bytes)],
            result_types=[type_],
        )
        self.bytes += -(-size // COPY_BYTES) * COPY_BYTES
        if self.bytes > self.most:
            raise NotLifted(
                f"expected at most {self.most} bytes of shared memory, got {self.bytes}"
            )
        # Every part of the kernel may use it, not only the one that needs it first.
        block = self.base.parent
        assert block is not None
        block.insert_op_after(view, self.base)
        return view.results[0]

    def tile(
        self,
        term: Term,
        axes: tuple[str, str],
        sizes: tuple[int, int],
        element: Attribute,
        stages: int = 1,
        is_swizzled: bool = False,
    ) -> Tile:
        """Memory for a tile, with rows that begin in different banks."""
        dims = tile_dims(sizes, memory_element(element), stages, is_swizzled)
        alignment = SWIZZLE_BYTES if is_swizzled else COPY_BYTES
        memory = self.allocate(dims, element, alignment)
        return Tile(term, axes, sizes, memory, stages, is_swizzled=is_swizzled)

    # Copies.

    def fill(self, tile: Tile, extents: Mapping[str, Extent]) -> None:
        """Evaluate a tile: zeros where there are no indices.

        Args:
            tile: the tile; at its stage.
            extents: for each of its axes which indices it has.
        """
        code = self.code
        count = self._vector(tile, extents)
        outer, inner = tile.axes
        across = -(-tile.sizes[1] // count)
        total = tile.sizes[0] * across
        threads = code.layout.threads

        def one(number: SSAValue) -> None:
            places = {
                outer: code.div(number, across),
                inner: code.mul(code.rem(number, across), count),
            }
            self._copy(tile, extents, places, count)

        if count > 1:
            for first in range(0, total, threads):
                number = code.add(code.thread, first)
                if first + threads <= total:
                    with code.scope():
                        one(number)
                    continue
                with code.scope(block := Block()):
                    one(number)
                    code.builder.insert(scf.YieldOp())
                has_one = code.compare("slt", number, total)
                code.builder.insert(scf.IfOp(has_one, (), Region(block)))
            return

        def body(number: SSAValue, _: list[SSAValue]) -> list[SSAValue]:
            one(number)
            return []

        code.loop(code.thread, code.number(total), threads, [], body)

    def _vector(self, tile: Tile, extents: Mapping[str, Extent]) -> int:
        """How many elements of a tile are copied at a time."""
        term, (_, inner) = tile.term, tile.axes
        count = COPY_BYTES // dtype_of(memory_element(tile.element)).itemsize
        if (
            not term.computes(AtOp.name)
            or memory_element(term.type) != tile.element
            or tile.sizes[1] % count
        ):
            return 1
        code, extent = self.code, extents[inner]
        if not code.is_contiguous(term, inner) or not extent.is_aligned:
            return 1
        if extent.limit is not None and not divides(extent.limit, count):
            return 1
        array = term.args[0].kind
        assert isinstance(array, SSAValue)
        _, strides = code.place(array)
        if not all(divides(stride, count) for stride in strides[:-1]):
            return 1
        return count

    def _copy(
        self,
        tile: Tile,
        extents: Mapping[str, Extent],
        places: Mapping[str, SSAValue],
        count: int,
    ) -> None:
        code = self.code
        exists: SSAValue | None = None
        indices: dict[str, SSAValue] = {}
        for axis in tile.axes:
            extent = extents[axis]
            index = code.add(extent.start, places[axis])
            if extent.limit is not None:
                inside = code.compare("slt", index, extent.limit)
                exists = (
                    inside
                    if exists is None
                    else code.emit(arith.AndIOp(exists, inside))
                )
                step = count if axis == tile.axes[1] else 1
                last = code.max(code.sub(extent.limit, step), 0)
                index = code.min(index, last)
            indices[axis] = index
        target = tile.indices(code, places)
        with code.at(indices):
            if count == 1:
                value = code.value(tile.term)
                if exists is not None:
                    zero = code.emit(constant(0, value.type))
                    value = code.select(exists, value, zero)
                code.store(value, tile.memory, target)
                return
            array = tile.term.args[0].kind
            assert isinstance(array, SSAValue)
            memory, _ = code.place(array)
            address = code.address(tile.term, 0, 0)
        if self.is_async:
            present = None
            if exists is not None:
                number, zero = code.number(count), code.number(0)
                present = code.select(exists, number, zero)
            code.builder.insert(
                AsyncCopyOp(tile.memory, target, memory, address, count, present, True)
            )
            return
        type_ = VectorType(tile.element, [count])
        load = AlignedLoadOp(memory, [address], type_, COPY_BYTES)
        value = code.emit(load)
        if exists is not None:
            value = code.select(exists, value, code.zeros(type_))
        assert vector_bytes(type_) == COPY_BYTES
        code.builder.insert(AlignedStoreOp(value, tile.memory, target, COPY_BYTES))

    def arrive(self) -> None:
        """Wait until all that the group copied is in the tiles."""
        code = self.code
        if self.is_async:
            token = code.emit(CreateGroupOp())
            code.builder.insert(WaitOp(token, 0))
        if self.has_groups:
            code.builder.insert(FenceProxyOp())
        code.barrier()
