"""Races in the memory of a block: who accesses which bytes, and what each knows.

Warps, warp groups that multiply in the background and the copy engine each have a
clock, and know how far the clocks of the others were when they last heard of them. An
arrival at a barrier tells the barrier what a warp knows, and a wait tells the warp what
the barrier was told. An access is a race if another one of the same byte, of which one
writes, is later than what is known of its maker. Source: Flanagan and Freund,
*FastTrack: Efficient and Precise Dynamic Race Detection* (2009).

The compiled runtime does this for threads (`moa_emulator_access`), in the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moa_dialect.errors import KernelError
from moa_dialect.lowering import emulator_runtime as runtime

_COPIERS = 16
"""As many mbarriers are told apart; more share copiers."""

Places = npt.NDArray[np.int64]


class Races:
    """What is known of the accesses of one block.

    Attributes:
        entities: how many there are: warps, then warp groups, then copiers: copies that
            arrive at different mbarriers do not order each other.
        shadow: for each byte who has written it last, and then for each byte and entity
            when it has read it; a writer is `clock << 11 | thread`, or for others than
            threads `clock << 11 | 1024 + entity`.
        clocks: a row of what is known for each entity, each barrier, and each place of
            an mbarrier.
    """

    def __init__(self, size: int, warps: int) -> None:
        """Take memory for a block of so many bytes and warps."""
        self.size, self.warps = size, warps
        self.engine = warps + -(-warps // 4)
        self.entities = self.engine + _COPIERS
        rows = self.entities + runtime.BARRIERS + -(-size // 8)
        self.shadow = np.zeros(size * (1 + self.entities), np.int32)
        self.clocks = np.zeros((rows, self.entities), np.int32)
        self.writers = self.shadow[:size].view(np.uint32)
        self.readers = self.shadow[size:].reshape(size, self.entities)

    def start(self) -> None:
        """Forget everything: the block begins."""
        self.shadow.fill(0)
        self.clocks.fill(0)
        np.fill_diagonal(self.clocks[: self.entities], 1)

    def group(self, thread: int) -> int:
        """The warp group of a thread."""
        return self.warps + thread // 128

    def copier(self, mbarrier: int) -> int:
        """Who makes the copies that arrive at an mbarrier."""
        return self.engine + mbarrier // 8 % _COPIERS

    def access(
        self, actor: int, knowing: Sequence[int], places: Places, writes: bool
    ) -> int:
        """Note an access in the background; gives the time of its actor.

        Args:
            actor: the entity that accesses.
            knowing: the warps that have it access: each has to know of all before.
            places: the bytes.
            writes: whether they are written.

        Raises:
            KernelError: if it is a race.
        """
        places = places.reshape(-1)
        places = places[(places >= 0) & (places < self.size)]
        found = self.writers[places]
        who = (found & 2047).astype(np.int64)
        writer = np.where(who < 1024, who >> 5, who - 1024)
        times = found >> 11
        for warp in knowing:
            known = self.clocks[warp]
            late = (times > known[writer]) & (writer != actor)
            if late.any():
                number = int(np.argmax(late))
                self._report(actor, int(places[number]), int(who[number]))
            if not writes:
                continue
            unread = self.readers[places] > known
            unread[:, actor] = False
            if unread.any():
                number, reader = map(int, np.argwhere(unread)[0])
                self._report(actor, int(places[number]), 2048 + reader)
        self.clocks[actor, actor] += 1
        time = int(self.clocks[actor, actor])
        if writes:
            self.writers[places] = time << 11 | 1024 + actor
        else:
            self.readers[places, actor] = time
        return time

    def _report(self, actor: int, place: int, who: int) -> None:
        raise KernelError(
            f"{runtime.FAILURES[runtime.RACE]}: byte {place}, by {self._name(actor)}, "
            f"after {self.name(who)}"
        )

    def name(self, who: int) -> str:
        """Who made an access, as the records have it."""
        if who < 1024:
            return f"thread {who}"
        if who < 2048:
            return self._name(who - 1024)
        return f"reads of {self._name(who - 2048)}"

    def _name(self, entity: int) -> str:
        if entity < self.warps:
            return f"warp {entity}"
        if entity >= self.engine:
            return "the copy engine"
        return f"products of warp group {entity - self.warps}"

    def learn(self, warps: Sequence[int], entity: int, time: int) -> None:
        """Let warps know that an entity has come to a time."""
        for warp in warps:
            self.clocks[warp, entity] = max(int(self.clocks[warp, entity]), time)

    def known(self, warp: int, copier: int, time: int) -> npt.NDArray[np.int32]:
        """What a warp knows, and that a copier has come to a time."""
        found = self.clocks[warp].copy()
        found[copier] = time
        return found

    def tell(self, mbarrier: int, known: npt.NDArray[np.int32]) -> None:
        """Tell an mbarrier what is known."""
        row = self.clocks[self.entities + runtime.BARRIERS + mbarrier // 8]
        np.maximum(row, known, out=row)
