"""The chips of NVIDIA that kernels can be compiled for."""

from __future__ import annotations

from moa_dialect.errors import CompileError

CHIP = "sm_90a"
"""The chip that kernels are compiled for unless another one is asked for."""

CHIPS = (
    *("sm_70", "sm_72", "sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_90a"),
    *("sm_100", "sm_100a", "sm_100f", "sm_103", "sm_103a", "sm_103f"),
    *("sm_110", "sm_110a", "sm_110f", "sm_120", "sm_120a", "sm_120f"),
    *("sm_121", "sm_121a", "sm_121f"),
)
"""The chips that LLVM knows and kernels can be compiled for."""


def check_chip(chip: str) -> None:
    """Check that there is such a chip.

    Raises:
        CompileError: if there is none.
    """
    if chip not in CHIPS:
        raise CompileError(
            f"unknown chip: expected one of {', '.join(CHIPS)}, got '{chip}'"
        )
