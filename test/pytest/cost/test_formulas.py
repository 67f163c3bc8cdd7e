"""The bytes of the closed forms, against the accesses of the program that is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import moa_dialect as moa
from moa_dialect.cost import traffic
from moa_dialect.cost.simulation import CacheLevel, simulate

KIB = 1 << 10

Shape = tuple[int | str, ...]


def attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


KEYS: tuple[Shape, Shape] = (("n", 64), ("n", 64))
ROWS: tuple[Shape, ...] = (("n", "d"),)
LONG = {"n": 16, "d": 8192}

CASES: dict[
    str, tuple[Callable[..., Any], tuple[Shape, ...], dict[str, int], tuple[int, ...]]
] = {
    "attention, 256": (attention, (("n", 64), *KEYS), {"n": 256}, (16, 64, 256)),
    "attention, 1024": (attention, (("n", 64), *KEYS), {"n": 1024}, (64, 256, 1024)),
    "decode": (attention, ((1, 64), *KEYS), {"n": 4096}, (16, 256, 4096)),
    "matmul": (
        matmul,
        (("n", "k"), ("k", "m")),
        {"n": 160, "k": 192, "m": 224},
        (1, 8, 32, 64, 256, 1024),
    ),
    "softmax": (moa.library.softmax, ROWS, LONG, (4, 16, 64, 2048)),
    "layernorm": (moa.library.layernorm, ROWS, LONG, (4, 16, 64, 2048)),
}
POINTS = [(name, kib) for name, case in CASES.items() for kib in case[3]]


@pytest.mark.parametrize(("name", "kib"), POINTS)
def test_formula_gives_what_the_program_moves(name: str, kib: int) -> None:
    program, shapes, sizes, _ = CASES[name]
    numbers = [tuple(sizes.get(str(e), e) for e in shape) for shape in shapes]
    specs = [moa.ArraySpec(tuple(map(int, shape)), "f32") for shape in numbers]
    names = [[e if isinstance(e, str) else None for e in shape] for shape in shapes]
    compiled = moa.jit(program).lower(*specs)
    formula = traffic(compiled.program(names).nest("onf"), kib * KIB, 64)
    simulated = simulate(compiled, [CacheLevel(kib * KIB)], stage="onf")
    assert formula.bytes == pytest.approx(simulated.levels[0].bytes, rel=0.05)
