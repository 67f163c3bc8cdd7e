"""The time of a kernel under a schedule, as a number: what schedules are chosen by.

These are the functions of the cost model (`moa_dialect.cost.lifted` reads the kernel,
`moa_dialect.cost.timing` says how long it takes), on numbers in place of formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from moa_dialect.cost.algebra import NUMBERS
from moa_dialect.cost.extents import Extents
from moa_dialect.cost.lifted import Tiling, arrays_of, nest_of
from moa_dialect.cost.machines import CostMachine
from moa_dialect.cost.nests import Array, Nest
from moa_dialect.cost.timing import least_seconds, timing_of
from moa_dialect.passes.kernels import Kernel
from moa_dialect.passes.schedules import Schedule

NEARLY = 1e-6
"""Times that differ by less than this part are the same."""


@dataclass
class Estimator:
    """Tells how long a kernel takes under schedules.

    Attributes:
        kernel: the kernel, which is not changed.
        machine: the machine.
        nominal: what the extents of results count as, if they are not to matter.
        sizes: the extents of axes of the kernel that types do not give.
    """

    kernel: Kernel
    machine: CostMachine
    nominal: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    _nests: dict[Schedule, Nest] = field(default_factory=dict[Schedule, Nest])
    _least: dict[Schedule, float] = field(default_factory=dict[Schedule, float])
    _seconds: dict[Schedule, float] = field(default_factory=dict[Schedule, float])

    def nest(self, schedule: Schedule) -> Nest:
        """The loops of the kernel under a schedule."""
        if schedule not in self._nests:
            function = self.kernel.op.parent_op()
            assert isinstance(function, FuncOp)
            arguments = function.body.block.args
            hints = [a.name_hint or f"x{k}" for k, a in enumerate(arguments)]
            types = [argument.type for argument in arguments]
            extents = Extents(types, hints, None, None, NUMBERS)
            arrays: dict[SSAValue, Array] = arrays_of(function, extents)
            self._nests[schedule] = nest_of(
                self.kernel.copy(),
                function,
                Tiling.of(schedule),
                arrays,
                self.nominal,
                self.sizes,
            )
        return self._nests[schedule]

    def least(self, schedule: Schedule) -> float:
        """Less than `seconds`, and known sooner."""
        if schedule not in self._least:
            self._least[schedule] = least_seconds(self.nest(schedule), self.machine)
        return self._least[schedule]

    def seconds(self, schedule: Schedule) -> float:
        """How long the kernel takes under a schedule."""
        if schedule not in self._seconds:
            self._seconds[schedule] = timing_of(
                self.nest(schedule), self.machine
            ).seconds
        return self._seconds[schedule]

    @property
    def analysed(self) -> list[Schedule]:
        """The schedules whose time was asked for."""
        return list(self._seconds)

    def best(self, schedules: Sequence[Schedule]) -> Schedule | None:
        """The schedule that takes least, the first one of several; None if none is.

        What cannot be the one, as computing alone takes longer, is not looked at.
        """
        if len(schedules) == 1:
            return schedules[0]
        found: Schedule | None = None
        for schedule in sorted(schedules, key=self.least):
            if found is None:
                found = schedule
                continue
            if self.least(schedule) >= self.seconds(found):
                break
            if self.seconds(schedule) < (1 - NEARLY) * self.seconds(found):
                found = schedule
        return found
