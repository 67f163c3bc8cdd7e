"""How much work an operation of the normal forms is, roughly, per evaluation.

Enough to tell what must not be evaluated again and again from what may: weights in
units of an addition, extents as the types give them or a nominal number. What is fused
must not depend on the machine, so weights do not; they are rounded from the rates of
the CPUs in `moa_dialect/machines`, where a division takes as long as 8 to 20 additions
and an exponential as 24 or 25, and a test keeps them in line.
"""

from __future__ import annotations

from math import prod

from xdsl.dialects import arith, math, scf
from xdsl.ir import Operation, Region, SSAValue

from moa_dialect.ops.normal_form import (
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    YieldOp,
)

NOMINAL_EXTENT = 128
"""What an extent that types do not give counts as."""

COSTLY = 10
"""From this weight on a value is not to be evaluated twice: a division, say."""

_FREE = (arith.ConstantOp, ExtentOp, FixedExtentOp, YieldOp)
_SLOW = (arith.DivfOp, math.SqrtOp, math.RsqrtOp)


def extent_of(extent: SSAValue) -> int:
    """The number an extent value stands for here."""
    if isinstance(extent.owner, ExtentOp | FixedExtentOp):
        static = extent.owner.static_value
        return NOMINAL_EXTENT if static is None else static
    return NOMINAL_EXTENT


def trip_count(
    op: FoldOp | CascadeOp | ComprehensionOp, nominal: bool = False, least: int = 0
) -> int:
    """How often the body is evaluated; with `nominal` as if no extent were known.

    The extents of folds count in any case, shorter ones as `least`.
    """
    if isinstance(op, FoldOp | CascadeOp):
        return max(extent_of(op.upper), least)
    if nominal:
        return NOMINAL_EXTENT ** len(op.extents)
    return prod(map(extent_of, op.extents))


def weight(op: Operation, nominal: bool = False, least: int = 0) -> int:
    """The work of one evaluation of an operation, its regions included.

    With `nominal` axes of results count as if their extents were not known; folds that
    are shorter than `least` count as that long.
    """
    if isinstance(op, FoldOp | ComprehensionOp):
        # However short it is, a fold is not to be evaluated again for each element.
        trips = trip_count(op, nominal, least)
        return max(COSTLY, trips * _region_weight(op.body, nominal, least))
    if isinstance(op, CascadeOp):
        return max(COSTLY, _cascade_weight(op, nominal, least))
    if isinstance(op, scf.IfOp):
        return sum(_region_weight(region, nominal, least) for region in op.regions)
    if isinstance(op, _FREE):
        return 0
    if isinstance(op, _SLOW):
        return COSTLY
    return 2 * COSTLY if op.name.startswith("math.") else 1


def _cascade_weight(op: CascadeOp, nominal: bool, least: int) -> int:
    """Data and parts for each index, pivots and moves for each chunk.

    A part counts twice if the pivots need its accumulators.
    """
    trips = trip_count(op, nominal, least)
    chunks = -(-trips // op.chunk_length)
    total = trips * _region_weight(op.data, nominal, least)
    for view in op.views():
        times = 2 if view.own_accumulators() else 1
        total += times * trips * _region_weight(view.part, nominal, least)
        for region in (view.pivot, view.move):
            if region is not None:
                total += chunks * _region_weight(region, nominal, least)
    return total


def _region_weight(region: Region, nominal: bool, least: int) -> int:
    return sum(weight(op, nominal, least) for op in region.block.ops)
