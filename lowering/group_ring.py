"""Chunks that a warp of their own loads: a ring of tiles that the copy engine fills.

Each tile has two barriers in memory for each stage. At the first one the bytes of a
chunk arrive: who computes waits there before it reads. At the second one the warps that
compute arrive when they have read: who loads waits there before the stage is filled
again. Both go from one phase to the next each time around the ring.

Where the groups of a cluster have the same tile, each has a part of it loaded into the
memory of all. The bytes of all parts arrive at each one's first barrier; and at each
one's second barrier arrive the warps of all of them, for it fills the memory of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import MemRefType, i32, i64
from xdsl.ir import Block, Region, SSAValue

from moa_dialect.lowering.gpu_ops import (
    CLUSTER_POINTER,
    SHARED_POINTER,
    ArriveExpectingOp,
    ArriveOp,
    ArriveRemotelyOp,
    CastSpaceOp,
    CopyBoxOp,
    InitBarrierOp,
    IntToPointerOp,
    PrefetchMapOp,
    WarpBarrierOp,
)
from moa_dialect.lowering.group_cluster import Peers
from moa_dialect.lowering.group_tiles import SharedMemory, Tile
from moa_dialect.lowering.groups import GroupCode
from moa_dialect.passes.products import BARRIER_BYTES
from moa_dialect.types import dtype_of

WAIT = (
    "{{ .reg .pred P; WAIT: mbarrier.try_wait.parity{}.shared::cta.b64 P, [$0], $1; "
    "@P bra DONE; bra WAIT; DONE: }}"
)
"""Waits for the phase of a parity to end. (Upstream's operation does not say that it
reads memory, and reads would be moved over it.)"""

OF_CLUSTER = ".acquire.cluster"
"""Those that arrive are threads of other groups, too."""

_EVERYONE = -1
"""All lanes of a warp."""


@dataclass(frozen=True)
class Boxed:
    """A tile that is loaded as boxes of an array.

    Attributes:
        tile: the tile.
        map: the array's tensor map.
        axes: which axes of the array are those of the tile.
        rows: how many rows of the tile a box has.
        panels: how many panels of the tile the group has loaded.
        peers: the groups that have the same tile; None if it has no other one.
    """

    tile: Tile
    map: SSAValue
    axes: tuple[int, int]
    rows: int
    panels: int
    peers: Peers | None = None

    @property
    def groups(self) -> int:
        """How many groups have the tile."""
        return 1 if self.peers is None else self.peers.count


@dataclass
class Ring:
    """The tiles of a pass, and their barriers.

    Attributes:
        code: the emitter.
        memory: where the barriers are.
        stages: how many chunks it holds.
        warps: how many warps compute.
        boxed: the tiles.
        stage: the stage of the chunk that is computed or loaded.
        phase: the parity of its phase.
    """

    code: GroupCode
    memory: SSAValue
    stages: int
    warps: int
    boxed: list[Boxed] = field(default_factory=list[Boxed])
    stage: SSAValue | None = None
    phase: SSAValue | None = None

    @staticmethod
    def of(shared: SharedMemory, tiles: int, stages: int, warps: int) -> Ring:
        """A ring for so many tiles, with barriers in shared memory."""
        memory = shared.allocate([2 * tiles * stages], i64)
        return Ring(shared.code, memory, stages, warps)

    def turn(self, count: SSAValue) -> None:
        """Go on to the chunk of a number; the numbers are counted by the loop."""
        code = self.code
        self.stage = code.rem(count, self.stages)
        around = code.rem(code.div(count, self.stages), 2)
        self.phase = code.emit(arith.IndexCastOp(around, i32))
        self.set(self.stage, self.phase)

    def set(self, stage: SSAValue | None, phase: SSAValue | None) -> None:
        """Go to a stage, and a parity of its phase."""
        self.stage, self.phase = stage, phase
        for each in self.boxed:
            each.tile.stage = stage

    def number(self, tile: Tile) -> int | None:
        """The number of a tile, None if the ring does not have it."""
        tiles = [each.tile for each in self.boxed]
        return tiles.index(tile) if tile in tiles else None

    def init(self) -> None:
        """Make the barriers; one thread does."""
        code = self.code
        for number, boxed in enumerate(self.boxed):
            for kind, arrivals in enumerate((1, self.warps * boxed.groups)):
                count = code.constant(arrivals, i32)
                for stage in range(self.stages):
                    place = self._place(number, kind) + stage
                    pointer = self._pointer(code.number(place))
                    code.builder.insert(InitBarrierOp(pointer, count))

    # Those that compute.

    def await_chunk(self, number: int) -> None:
        """Wait until a tile is filled."""
        assert self.phase is not None
        self._wait(self._barrier(number, 0), self.phase)

    def release(self, number: int) -> None:
        """Say that a warp has read a tile, to all groups that have parts of it loaded.

        One lane says it, or to each of several groups one.
        """
        code, peers = self.code, self.boxed[number].peers
        code.builder.insert(WarpBarrierOp(code.constant(_EVERYONE, i32)))
        if peers is not None:
            with code.scope(block := Block()):
                barrier, rank = self._barrier(number, 1), peers.rank(code.lane)
                there = peers.cluster.there(barrier, rank)
                code.builder.insert(ArriveRemotelyOp(there))
                code.builder.insert(scf.YieldOp())
            has_one = code.compare("ult", code.lane, peers.count)
            code.builder.insert(scf.IfOp(has_one, (), Region(block)))
            return
        with code.scope(block := Block()):
            code.builder.insert(ArriveOp(self._barrier(number, 1)))
            code.builder.insert(scf.YieldOp())
        first = code.equals(code.lane, 0)
        code.builder.insert(scf.IfOp(first, (), Region(block)))

    # The one that loads.

    def prefetch(self) -> None:
        """Have the tensor maps at hand."""
        for each in self.boxed:
            self.code.builder.insert(PrefetchMapOp(each.map))

    def load(self, number: int, coordinates: Sequence[SSAValue], panels: int) -> None:
        """Have a tile filled, or the group's part of it, when it was read.

        Args:
            number: the number of the tile.
            coordinates: where its first box begins, the last axis last.
            panels: how many panels it has, side by side along the last axis.
        """
        code, boxed = self.code, self.boxed[number]
        tile = boxed.tile
        assert self.phase is not None
        assert isinstance(tile.memory.type, MemRefType)
        *_, rows, width = tile.memory.type.get_shape()
        size = prod((rows, width)) * dtype_of(tile.element).itemsize
        one = code.constant(1, i32)
        before = code.emit(arith.XOrIOp(self.phase, one))
        peers = boxed.peers
        self._wait(self._barrier(number, 1), before, peers is not None)
        full = self._barrier(number, 0)
        expected = code.constant(panels * size, i32)
        code.builder.insert(ArriveExpectingOp(full, expected))
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(tile.memory)
        address = code.emit(pointer)
        if tile.stages > 1:
            assert tile.stage is not None
            address = code.add(address, code.mul(tile.stage, tile.stage_bytes))
        *others, last = coordinates
        mask: SSAValue | None = None
        if peers is not None:
            mask, own = peers.mask(), peers.own()
            if boxed.panels < panels:
                last = code.add(last, code.mul(own, boxed.panels * width))
                address = code.add(address, code.mul(own, boxed.panels * size))
            else:
                outer = boxed.axes[0]
                first = code.mul(own, boxed.rows)
                others[outer] = code.add(others[outer], first)
                line = size // rows
                address = code.add(address, code.mul(own, boxed.rows * line))
        for panel in range(boxed.panels):
            at = [*others, code.add(last, panel * width)]
            words = [code.emit(arith.IndexCastOp(value, i32)) for value in at]
            target = self._address(code.add(address, panel * size))
            target = code.emit(CastSpaceOp(target, CLUSTER_POINTER))
            code.builder.insert(CopyBoxOp(target, boxed.map, words[::-1], full, mask))

    # Barriers.

    def _place(self, number: int, kind: int) -> int:
        return (2 * number + kind) * self.stages

    def _barrier(self, number: int, kind: int) -> SSAValue:
        """A barrier of the chunk: 0 for what has come, 1 for what was read."""
        assert self.stage is not None
        place = self.code.add(self.stage, self._place(number, kind))
        key = ("barrier", self.memory, self.stage, number, kind)
        return self.code.once(key, lambda: self._pointer(place))

    def _pointer(self, place: SSAValue) -> SSAValue:
        code = self.code
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(self.memory)
        base = code.emit(pointer)
        return self._address(code.add(base, code.mul(place, BARRIER_BYTES)))

    def _address(self, address: SSAValue) -> SSAValue:
        word = self.code.emit(arith.IndexCastOp(address, i64))
        return self.code.emit(IntToPointerOp(word, SHARED_POINTER))

    def _wait(
        self, barrier: SSAValue, parity: SSAValue, is_shared: bool = False
    ) -> None:
        text = WAIT.format(OF_CLUSTER if is_shared else "")
        self.code.assembly(text, "r,r,~{memory}", [barrier, parity])
