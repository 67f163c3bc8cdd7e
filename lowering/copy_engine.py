"""The copy engine of Hopper, emulated: boxes of tensors to and from shared memory.

A copy to shared memory lands when no thread can go on, thus as late as possible; until
then its destination is filled with 0xFF bytes. A copy to global memory lands when the
thread that issued it waits for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from moa_dialect.errors import KernelError
from moa_dialect.lowering.races import Races

Bytes = npt.NDArray[np.uint8]

_MAGIC = 0x6D6F615F746D6170
_SWIZZLES = {0: 0, 32: 1, 64: 3, 128: 7}
"""Which of the bits 7 to 9 of an address are added to its bits 4 to 6."""

_RECORD = np.dtype(
    {
        "names": ["magic", "address", "item", "rank", "swizzle", "e", "s", "b"],
        "formats": ["u8", "u8", "u4", "u4", "u4", "5u4", "4u8", "5u4"],
        "offsets": [0, 8, 16, 20, 24, 28, 48, 80],
        "itemsize": 128,
    }
)


@dataclass(frozen=True)
class TensorMap:
    """A tensor in global memory and the box of it that one copy moves.

    The fields are the arguments of the driver's `cuTensorMapEncodeTiled`; the first
    axis is the innermost one.

    Attributes:
        address: where the tensor is.
        item_bytes: the size of an element.
        extents: the extents of the tensor.
        strides: the distances in bytes along all axes but the first.
        box: the extents of the box.
        swizzle: 0, 32, 64 or 128 bytes.
    """

    address: int
    item_bytes: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 0

    def __post_init__(self) -> None:
        """Check what the driver checks.

        Raises:
            KernelError: for a tensor or a box that the hardware does not take.
        """
        rank = len(self.extents)
        inner = self.box[0] * self.item_bytes if self.box else 0
        for holds, expected, got in (
            (1 <= rank <= 5, "rank 1 to 5", rank),
            (len(self.strides) == rank - 1, f"{rank - 1} strides", len(self.strides)),
            (len(self.box) == rank, f"a box of rank {rank}", len(self.box)),
            (self.address % 16 == 0, "an address that 16 divides", self.address),
            (all(s % 16 == 0 for s in self.strides), "strides that 16 divides",
             self.strides),
            (all(1 <= b <= 256 for b in self.box), "extents of the box of 1 to 256",
             self.box),
            (inner % 16 == 0, "rows of the box of a multiple of 16 bytes", inner),
            (self.swizzle in _SWIZZLES, "a swizzle of 0, 32, 64 or 128", self.swizzle),
            (not self.swizzle or inner <= self.swizzle,
             f"rows of the box of at most {self.swizzle} bytes", inner),
        ):  # fmt: skip
            if not holds:
                raise KernelError(f"tensor map: expected {expected}, got {got}")

    @property
    def box_bytes(self) -> int:
        """How many bytes a copy moves."""
        return prod(self.box) * self.item_bytes

    def encoded(self) -> Bytes:
        """The descriptor that a kernel is given: 128 bytes, aligned to 64."""
        memory = np.zeros(128 + 64, np.uint8)
        start = -memory.ctypes.data % 64
        found = memory[start : start + 128]
        record = found.view(_RECORD)[0]
        record["magic"], record["address"] = _MAGIC, self.address
        record["item"], record["rank"] = self.item_bytes, len(self.extents)
        record["swizzle"] = self.swizzle
        parts = {"e": self.extents, "s": self.strides, "b": self.box}
        for name, values in parts.items():
            record[name][: len(values)] = values
        return found

    @staticmethod
    def at(address: int) -> TensorMap:
        """Read a descriptor back.

        Raises:
            KernelError: if there is none at the address.
        """
        record: Any = _memory(address, 128).view(_RECORD)[0]
        if record["magic"] != _MAGIC:
            raise KernelError("a copy by what is no tensor map of the emulator")
        rank = int(record["rank"])
        extents, strides, box = (
            tuple(map(int, record[name][:count]))
            for name, count in (("e", rank), ("s", rank - 1), ("b", rank))
        )
        return TensorMap(
            int(record["address"]),
            int(record["item"]),
            extents,
            strides,
            box,
            int(record["swizzle"]),
        )

    def _window(
        self, at: Sequence[int]
    ) -> tuple[tuple[slice, ...], npt.NDArray[np.uint8]] | None:
        """The part of a box that is in the tensor, and that part of the tensor."""
        first = [max(0, -c) for c in at]
        last = [
            min(b, e - c) for b, e, c in zip(self.box, self.extents, at, strict=True)
        ]
        if any(a >= b for a, b in zip(first, last, strict=True)):
            return None
        strides = (self.item_bytes, *self.strides)
        start = self.address + sum(
            (c + a) * s for c, a, s in zip(at, first, strides, strict=True)
        )
        shape = [b - a for a, b in zip(first, last, strict=True)]
        tensor = np.lib.stride_tricks.as_strided(
            _memory(start, 1), (*shape[::-1], self.item_bytes), (*strides[::-1], 1)
        )
        within = tuple(slice(a, b) for a, b in zip(first, last, strict=True))[::-1]
        return within, tensor

    def read(self, at: Sequence[int]) -> Bytes:
        """The bytes of a box of the tensor; those beyond it are zero."""
        box = np.zeros((*self.box[::-1], self.item_bytes), np.uint8)
        found = self._window(at)
        if found is not None:
            within, tensor = found
            box[within] = tensor
        return box.reshape(-1)

    def write(self, at: Sequence[int], data: Bytes) -> None:
        """Write a box into the tensor, but for what is beyond it."""
        found = self._window(at)
        if found is not None:
            within, tensor = found
            tensor[...] = data.reshape((*self.box[::-1], self.item_bytes))[within]


def _memory(address: int, size: int) -> Bytes:
    """Bytes of the process."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def swizzled(addresses: npt.NDArray[np.int64], swizzle: int) -> npt.NDArray[np.int64]:
    """Addresses in shared memory, permuted within lines of 128 bytes."""
    return addresses ^ ((addresses >> 7 & _SWIZZLES[swizzle]) << 4)


@dataclass
class _Copy:
    tensor: TensorMap
    at: tuple[int, ...]
    offset: int
    barrier: int = 0
    group: int = 0
    time: int = 0
    known: npt.NDArray[np.int32] | None = None


@dataclass
class CopyEngine:
    """The copies of one block.

    Attributes:
        shared: the memory of the block.
        size: how many bytes of it the block has.
        races: what is known of accesses; None if races are not looked for.
    """

    shared: Bytes
    size: int
    races: Races | None = None
    loads: list[_Copy] = field(default_factory=list[_Copy])
    stores: dict[int, list[_Copy]] = field(default_factory=dict[int, list[_Copy]])
    groups: dict[int, int] = field(default_factory=dict[int, int])

    def _chunks(self, copy: _Copy) -> npt.NDArray[np.int64]:
        """Which 16 bytes of shared memory each 16 bytes of a box are at."""
        offsets = copy.offset + np.arange(0, copy.tensor.box_bytes, 16)
        return swizzled(offsets, copy.tensor.swizzle) // 16

    def _access(self, copy: _Copy, thread: int, copier: int, writes: bool) -> int:
        """Note the access of a copy to the memory of the block; gives its time."""
        assert self.races is not None
        places = np.arange(copy.offset, copy.offset + copy.tensor.box_bytes)
        return self.races.access(copier, [thread // 32], places, writes)

    def _checked(self, descriptor: int, at: tuple[int, ...], offset: int) -> _Copy:
        tensor = TensorMap.at(descriptor)
        if len(at) != len(tensor.box):
            raise KernelError(
                f"a copy by a tensor map of rank {len(tensor.box)}: "
                f"got {len(at)} coordinates"
            )
        if offset % 128:
            raise KernelError("a copy of a box whose address 128 does not divide")
        if not 0 <= offset <= self.size - tensor.box_bytes:
            raise KernelError(
                f"a copy of {tensor.box_bytes} bytes at byte {offset} of "
                f"{self.size} bytes of shared memory"
            )
        return _Copy(tensor, at, offset)

    def load(
        self,
        descriptor: int,
        at: tuple[int, ...],
        offset: int,
        barrier: int,
        thread: int = 0,
    ) -> None:
        """Begin a copy to shared memory that an mbarrier counts the bytes of."""
        copy = self._checked(descriptor, at, offset)
        copy.barrier = barrier
        if self.races is not None:
            copier = self.races.copier(barrier)
            time = self._access(copy, thread, copier, True)
            copy.known = self.races.known(thread // 32, copier, time)
        self.shared[offset : offset + copy.tensor.box_bytes] = 0xFF
        self.loads.append(copy)

    def land(self, number: int = 0) -> bool:
        """Let one copy to shared memory land, if any is under way."""
        if not self.loads:
            return False
        copy = self.loads.pop(number)
        data = copy.tensor.read(copy.at).reshape(-1, 16)
        self.shared.reshape(-1, 16)[self._chunks(copy)] = data
        if self.races is not None and copy.known is not None:
            self.races.tell(copy.barrier, copy.known)
        complete(self.shared, copy.barrier, copy.tensor.box_bytes)
        return True

    def store(
        self, thread: int, descriptor: int, at: tuple[int, ...], offset: int
    ) -> None:
        """Begin a copy from shared memory."""
        copy = self._checked(descriptor, at, offset)
        copy.group = self.groups.get(thread, 0)
        if self.races is not None:
            copy.time = self._access(copy, thread, self.races.engine, False)
        self.stores.setdefault(thread, []).append(copy)

    def commit(self, thread: int) -> None:
        """End a group of copies from shared memory."""
        self.groups[thread] = self.groups.get(thread, 0) + 1

    def wait(self, thread: int, pending: int) -> None:
        """Let all groups of a thread's copies from shared memory land but the last."""
        last = self.groups.get(thread, 0) - pending
        copies = self.stores.get(thread, [])
        while copies and copies[0].group < last:
            copy = copies.pop(0)
            data = self.shared.reshape(-1, 16)[self._chunks(copy)]
            copy.tensor.write(copy.at, data.reshape(-1))
            if self.races is not None:
                self.races.learn([thread // 32], self.races.engine, copy.time)

    def end(self) -> None:
        """Check that nothing is under way when the block ends.

        Raises:
            KernelError: for copies that nobody waited for.
        """
        if self.loads:
            raise KernelError(f"ended with {len(self.loads)} copies under way")
        left = sum(map(len, self.stores.values()))
        if left:
            raise KernelError(
                f"ended with {left} copies to global memory that no thread waited for"
            )


# An mbarrier is a word of 64 bits: the phase in bit 0, then 20 bits of arrivals that
# are pending, 20 bits of those expected, and the bytes that are pending, with a sign.
PENDING_AT, EXPECTED_AT, BYTES_AT = 1, 21, 41


def complete(shared: Bytes, offset: int, count: int) -> None:
    """Count bytes that have come at an mbarrier.

    Raises:
        KernelError: if there is none.
    """
    word = shared[offset : offset + 8].view(np.int64)
    state = int(word[0]) - (count << BYTES_AT)
    expected = state >> EXPECTED_AT & 0xFFFFF
    if expected == 0xFFFFF:
        raise KernelError("a copy that arrives at an mbarrier not initialised")
    if state >> BYTES_AT == 0 and state >> PENDING_AT & 0xFFFFF == 0:
        state = (state & 1 ^ 1) | expected << PENDING_AT | expected << EXPECTED_AT
    word[0] = state
