"""moa-lift: which axes of a kernel go to lanes, registers, chunks and tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How a kernel runs.

    Attributes:
        lane: the axis in the lanes; empty if a folded axis is.
        lanes: the lanes of a vector.
        vectors: the vectors that the lanes are.
        registers: how many indices of a tile axis run at a time in a contraction.
        unroll: the same for statements without folds.
        chunk: how many indices of a folded axis make a chunk.
    """

    lane: str
    lanes: int = 16
    vectors: int = 2
    registers: int = 12
    unroll: int = 4
    chunk: int = 96
