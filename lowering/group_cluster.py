"""Clusters of groups: neighbours along axes, which share what they load.

The groups of a cluster run at the same time and reach each other's shared memory. Along
each of its axes a cluster has neighbouring groups; its rank among them all is a number
whose digits say which ones. What does not depend on an axis is the same for all groups
along it: each has a part of it loaded, into the memory of all of them. Groups that have
parts of the folded axes read each other's states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerType, i32
from xdsl.ir import SSAValue

from moa_dialect.lowering.gpu_ops import ClusterArriveOp, ClusterWaitOp, MapToBlockOp
from moa_dialect.lowering.groups import GroupCode
from moa_dialect.passes.grid import FOLDED
from moa_dialect.passes.terms import Term


@dataclass
class Cluster:
    """The groups of a cluster.

    Attributes:
        code: the emitter.
        group: the number of the group in the grid; a cluster's follow each other.
        sizes: how many groups it has along each of its axes.
    """

    code: GroupCode
    group: SSAValue
    sizes: Mapping[str, int]

    @property
    def size(self) -> int:
        """How many groups it has."""
        return prod(self.sizes.values())

    def stride(self, axis: str) -> int:
        """How far the ranks of neighbours along an axis lie apart."""
        axes = list(self.sizes)
        return prod(self.sizes[other] for other in axes[: axes.index(axis)])

    def rank(self) -> SSAValue:
        """The number of the group among those of its cluster."""
        code = self.code
        return code.once("rank", lambda: code.rem(self.group, self.size))

    def digit(self, axis: str) -> SSAValue:
        """The number of the group among its neighbours along an axis."""
        code = self.code

        def found() -> SSAValue:
            place = code.div(self.rank(), self.stride(axis))
            return code.rem(place, self.sizes[axis])

        return code.once(("digit", axis), found)

    def there(self, pointer: SSAValue, rank: SSAValue) -> SSAValue:
        """Where an address of shared memory is in that of the group of a rank."""
        number = self.code.emit(arith.IndexCastOp(rank, i32))
        return self.code.emit(MapToBlockOp(pointer, number))

    def meet(self) -> None:
        """Wait until all threads of the cluster are here, and see what they stored."""
        self.code.builder.insert(ClusterArriveOp())
        self.code.builder.insert(ClusterWaitOp())

    def peers(self, term: Term, is_folded: bool) -> Peers:
        """The groups that have the same values of a term.

        Args:
            term: the term.
            is_folded: whether it depends on folded axes, of which each has a part.
        """
        free = {*term.free, *((FOLDED,) if is_folded else ())}
        return Peers(self, tuple(axis for axis in self.sizes if axis not in free))


@dataclass(frozen=True)
class Peers:
    """The groups of a cluster that have something in common.

    Attributes:
        cluster: the cluster.
        axes: those of its axes along which they are neighbours.
    """

    cluster: Cluster
    axes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many they are."""
        return prod(self.cluster.sizes[axis] for axis in self.axes)

    def own(self) -> SSAValue:
        """The number of the group among them."""
        code, cluster = self.cluster.code, self.cluster
        found, step = code.number(0), 1
        for axis in self.axes:
            found = code.add(code.mul(cluster.digit(axis), step), found)
            step *= cluster.sizes[axis]
        return found

    def first(self) -> SSAValue:
        """The rank of the first one."""
        code, cluster = self.cluster.code, self.cluster
        found = cluster.rank()
        for axis in self.axes:
            place = code.mul(cluster.digit(axis), cluster.stride(axis))
            found = code.sub(found, place)
        return found

    def rank(self, number: SSAValue) -> SSAValue:
        """The rank of the one of a number."""
        code, cluster = self.cluster.code, self.cluster
        found = self.first()
        for axis in self.axes:
            digit = code.rem(number, cluster.sizes[axis])
            number = code.div(number, cluster.sizes[axis])
            found = code.add(found, code.mul(digit, cluster.stride(axis)))
        return found

    def mask(self) -> SSAValue:
        """A bit for each of them, at its rank."""
        code, cluster = self.cluster.code, self.cluster
        digits = [
            [digit * cluster.stride(axis) for digit in range(cluster.sizes[axis])]
            for axis in self.axes
        ]
        bits = code.constant(sum(1 << sum(each) for each in product(*digits)), i32)
        first = code.emit(arith.IndexCastOp(self.first(), i32))
        mask = code.emit(arith.ShLIOp(bits, first))
        return code.emit(arith.TruncIOp(mask, IntegerType(16)))
