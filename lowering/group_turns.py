"""Warp groups that begin their products in turn.

While the products of one warp group are computed, the others do all else that a chunk
takes. Each has a barrier of its own (`bar.sync`), at which it waits for its turn; the
one before it arrives there (`bar.arrive`) when its products are begun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import i32
from xdsl.ir import Block, Region, SSAValue

from moa_dialect.lowering.gpu_ops import NamedArriveOp, NamedBarrierOp
from moa_dialect.lowering.groups import NAMED_BARRIER, WARP, GroupCode

FIRST_TURN = NAMED_BARRIER + 1
"""The barrier of the first warp group; the next ones follow."""


@dataclass
class Turns:
    """The turns of the warp groups of a group of threads.

    Attributes:
        code: the emitter.
        count: how many warp groups there are.
        has_turn: whether the code that is emitted next has its turn.
    """

    code: GroupCode
    count: int
    has_turn: bool = field(default=False)

    def _own(self) -> SSAValue:
        return self.code.div(self.code.warp, 4)

    def _barrier(self, group: SSAValue) -> SSAValue:
        code = self.code
        number = code.emit(arith.IndexCastOp(code.add(group, FIRST_TURN), i32))
        return number

    def _threads(self) -> SSAValue:
        """Those of the one that waits, and of the one before it."""
        return self.code.constant(2 * 4 * WARP, i32)

    def take(self) -> None:
        """Wait for the turn, unless the warp group has it."""
        if not self.has_turn:
            barrier = self._barrier(self._own())
            self.code.builder.insert(NamedBarrierOp(barrier, self._threads()))
        self.has_turn = True

    def give(self) -> None:
        """Let the next warp group have its turn."""
        after = self.code.rem(self.code.add(self._own(), 1), self.count)
        barrier = self._barrier(after)
        self.code.builder.insert(NamedArriveOp(barrier, self._threads()))
        self.has_turn = False

    def begin(self) -> None:
        """Before all turns: the first warp group may have its own."""
        self._only(self.count - 1, self.give)
        self.has_turn = False

    def end(self) -> None:
        """After all turns: the last one that was given is taken."""
        self.has_turn = False
        self._only(0, self.take)
        self.has_turn = False

    def _only(self, group: int, action: Callable[[], None]) -> None:
        code = self.code
        with code.scope(block := Block()):
            action()
            code.builder.insert(scf.YieldOp())
        is_one = code.equals(self._own(), group)
        code.builder.insert(scf.IfOp(is_one, (), Region(block)))
