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


TIERS = ("portable", "mma", "wgmma")
"""What products of matrices are made of, from the oldest chips to the newest ones."""


def tier_of(chip: str) -> str:
    """The best tier of a chip: `wgmma` exists on sm_90a alone."""
    if chip == "sm_90a":
        return "wgmma"
    number = int("".join(filter(str.isdigit, chip)))
    return "mma" if number >= 80 else "portable"


def has_engine(chip: str) -> bool:
    """Whether a chip has a copy engine (TMA)."""
    return int("".join(filter(str.isdigit, chip))) >= 90


def has_tall_doubles(chip: str) -> bool:
    """Whether a chip has products of f64 by instructions of 16 rows.

    Source: PTX ISA, "mma": m16n8k4, m16n8k8 and m16n8k16 of f64 need sm_90.
    """
    return int("".join(filter(str.isdigit, chip))) >= 90


def chip_of(major: int, minor: int) -> str | None:
    """What kernels are compiled for on a device of a compute capability.

    A newer device than those that are known runs the code of the newest one that is
    not newer; one that is too old has none.
    """
    if (major, minor) == (9, 0):
        return "sm_90a"  # for the instructions of warp groups
    numbers = (int(chip[3:]) for chip in CHIPS if chip[3:].isdigit())
    known = [number for number in numbers if number <= 10 * major + minor]
    return f"sm_{max(known)}" if known else None


MULTIPROCESSORS = 132
"""How many multiprocessors a large GPU has."""

PLACES = 2 * MULTIPROCESSORS
"""How many groups of threads occupy it: two for each multiprocessor."""

LARGEST = 227 << 10
"""The most shared memory that a group of threads may have on any chip, in bytes."""

_SHARED_KIB = {
    **{70: 96, 72: 96, 75: 64, 80: 163, 86: 99, 87: 163, 89: 99},
    **{120: 99, 121: 99},
}
"""The same in KiB on chips that have less than the largest ones."""


def shared_bytes(chip: str) -> int:
    """The most shared memory that a group of threads may have on a chip, in bytes.

    Source: CUDA C++ Programming Guide, "Technical Specifications per Compute
    Capability": maximum amount of shared memory per thread block.
    """
    number = int("".join(filter(str.isdigit, chip)))
    return _SHARED_KIB.get(number, LARGEST >> 10) << 10


def check_tier(tier: str, chip: str) -> str:
    """The tier that is asked for, or the best one of a chip if that is empty.

    Raises:
        CompileError: if there is no such tier, or the chip does not have it.
    """
    best = tier_of(chip)
    if not tier:
        return best
    if tier not in TIERS:
        raise CompileError(
            f"unknown tier: expected one of {', '.join(TIERS)}, got '{tier}'"
        )
    if TIERS.index(tier) > TIERS.index(best):
        raise CompileError(f"tier {tier}: expected at most {best} for chip {chip}")
    return tier


def check_chip(chip: str) -> None:
    """Check that there is such a chip.

    Raises:
        CompileError: if there is none.
    """
    if chip not in CHIPS:
        raise CompileError(
            f"unknown chip: expected one of {', '.join(CHIPS)}, got '{chip}'"
        )
