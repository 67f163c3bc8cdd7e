"""Options of a compilation, one value from the front end to the cache."""

from __future__ import annotations

from dataclasses import dataclass

from moa_dialect.errors import CompileError, OptionError
from moa_dialect.lowering.chips import CHIP, check_chip, check_tier, shared_bytes

TARGETS = ("cpu", "cuda")
"""Where programs run."""

AUTO = "auto"
"""The schedule that is chosen."""


@dataclass(frozen=True)
class Options:
    """How a program is compiled.

    Attributes:
        fuse: folds that depend on each other may share a pass, which reassociates them.
        deterministic: the value of an element does not depend on how many there are.
        target: where it runs, `cpu` or `cuda`.
        schedule: how kernels run; `auto` if that is chosen.
        chip: for `cuda`, the chip.
        features: for `cuda`, features for LLVM, for instance `+ptx83`.
        tier: for `cuda`, what products of matrices are made of: `wgmma`, `mma` or
            `portable`; the best of the chip if empty.
        emulate: for `cuda`, whether the emulator runs it, on NumPy arrays.
        shared: for `cuda`, how many bytes of shared memory a group of threads may have;
            as many as on the chip if 0.
        tf32: for `cuda`, whether factors of products of f32 are rounded to tf32.
    """

    fuse: bool = True
    deterministic: bool = False
    target: str = "cpu"
    schedule: str = AUTO
    chip: str = CHIP
    features: str = ""
    tier: str = ""
    emulate: bool = False
    shared: int = 0
    tf32: bool = False

    @property
    def shared_bytes(self) -> int:
        """How many bytes of shared memory a group of threads may have."""
        return self.shared or shared_bytes(self.chip)

    @property
    def is_cuda(self) -> bool:
        """Whether it runs on a GPU, or as if on one."""
        return self.target == "cuda"

    @property
    def best_tier(self) -> str:
        """The tier that is asked for, or the best one of the chip."""
        return check_tier(self.tier, self.chip)

    def check(self) -> None:
        """Check that the options are some, and fit together.

        Raises:
            CompileError: for an unknown target, chip or tier.
            OptionError: for an option of another target, or no value that it may have.
        """
        for name in ("deterministic", "emulate", "tf32"):
            if not isinstance(value := getattr(self, name), bool):
                raise OptionError(f"{name}: expected True or False, got {value!r}")
        if not isinstance(self.schedule, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"schedule: expected text, got {self.schedule!r}")
        if self.schedule != AUTO and not self.fuse:
            raise OptionError("schedule: expected with fuse=True, got it with False")
        if self.target not in TARGETS:
            raise CompileError(
                f"unknown target: expected {' or '.join(TARGETS)}, got {self.target}"
            )
        if self.is_cuda:
            check_chip(self.chip)
            check_tier(self.tier, self.chip)
            if self.tf32 and self.best_tier == "portable":
                raise OptionError(
                    "tf32: expected with the tier mma or wgmma, got it with portable"
                )
            return
        for name in ("emulate", "chip", "tier", "features", "tf32"):
            if getattr(self, name) != getattr(DEFAULTS, name):
                raise OptionError(
                    f"{name}: expected with target cuda, got it with {self.target}"
                )


DEFAULTS = Options()
"""What is not asked for otherwise."""

FOR_CUDA = Options(target="cuda")
"""The same on a GPU."""
