"""With `deterministic` on a GPU an element has the same bits whatever is beside it."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE", "0")


def causal(q: Any, k: Any, v: Any) -> Any:
    return library.attention(q, k, v, is_causal=True)


def window(q: Any, k: Any, v: Any) -> Any:
    return library.attention(q, k, v, is_causal=True, window=9)


def matmul(x: Any, w: Any) -> Any:
    return moa.inner("add", "mul", x, w)


def softmax_of_product(x: Any, w: Any) -> Any:
    return library.softmax(matmul(x, w))


@dataclass(frozen=True)
class Case:
    """A program, the shapes of its arguments for a batch, and which have it."""

    program: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    batched: Sequence[bool]
    tier: str
    dtype: Any

    def data(self, batch: int) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        found: list[np.ndarray] = []
        for shape, is_batched in zip(self.shapes, self.batched, strict=True):
            extents = (batch, *shape) if is_batched else shape
            found.append((3 * random.normal(size=extents)).astype(self.dtype))
        return found

    def part(self, arrays: Sequence[np.ndarray], first: int, size: int) -> list[Any]:
        return [
            array[first : first + size] if is_batched else array
            for array, is_batched in zip(arrays, self.batched, strict=True)
        ]


ROW = ((200,),)
HEAD = ((37, 24), (150, 24), (150, 16))
SELF = ((70, 24), (70, 24), (70, 16))
CASES = {
    "softmax": Case(library.softmax, ROW, (True,), "portable", np.float32),
    "layernorm": Case(library.layernorm, ROW, (True,), "portable", np.float32),
    "attention": Case(library.attention, HEAD, (True,) * 3, "portable", np.float32),
    "attention, mma": Case(library.attention, HEAD, (True,) * 3, "mma", BF16),
    "attention, f16": Case(library.attention, HEAD, (True,) * 3, "wgmma", np.float16),
    "queries": Case(
        library.attention,
        ((24,), (150, 24), (150, 16)),
        (True, False, False),
        "wgmma",
        BF16,
    ),
    "queries, f32": Case(
        library.attention,
        ((24,), (150, 24), (150, 16)),
        (True, False, False),
        "mma",
        np.float32,
    ),
    "a product": Case(matmul, ((300,), (300, 70)), (True, False), "mma", np.float32),
    "a product of f64": Case(matmul, ((90,), (90, 70)), (True, False), "mma", float),
    "softmax of a product": Case(
        softmax_of_product, ((90,), (90, 70)), (True, False), "mma", np.float32
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_the_same_alone_and_in_any_batch(name: str) -> None:
    case, most = CASES[name], 5
    program = moa.jit(
        case.program, target="cuda", emulate=True, deterministic=True, tier=case.tier
    )
    arrays = case.data(most)
    for first, size in ((0, most), (1, 3)):
        whole = program(*case.part(arrays, first, size))
        for row in range(size):
            alone = program(*case.part(arrays, first + row, 1))
            assert alone[0].tobytes() == whole[row].tobytes()
    schedules = program.lower(*arrays).schedules
    assert all("aligned" in text for text in schedules)


@pytest.mark.parametrize("count", [1, 33])
@pytest.mark.parametrize("program", [causal, window])
@pytest.mark.parametrize(("tier", "dtype"), [("portable", np.float32), ("wgmma", BF16)])
def test_queries_do_not_depend_on_later_ones(
    program: Callable[..., Any], tier: str, dtype: Any, count: int
) -> None:
    """Of which some would be in the same group, and have other bounds."""
    random = np.random.default_rng(0)
    q, k, v = ((3 * random.normal(size=(1, *s))).astype(dtype) for s in SELF)
    jit = moa.jit(program, target="cuda", emulate=True, deterministic=True, tier=tier)
    whole, first = jit(q, k, v), jit(q[:, :count], k, v)
    assert first.tobytes() == whole[:, :count].tobytes()


def test_a_schedule_depends_on_no_extent_of_results() -> None:
    """But for how many rows a group has, which changes none of them."""
    found: set[str] = set()
    for n in (1, 40, 1000):
        specs = [moa.ArraySpec((2, n, 64), "bfloat16")]
        specs += [moa.ArraySpec((2, 512, 64), "bfloat16")] * 2
        jit = moa.jit(library.attention, target="cuda", deterministic=True)
        compiled = jit.lower(*specs)
        (text,) = compiled.schedules
        rows, fold = text.split(";")
        assert rows.startswith("j=grid,")
        found.add(fold)
    assert found == {"p=chunk:64,stages:2,wgmma,aligned"}


def test_products_and_sums_are_rounded_one_by_one() -> None:
    """In PTX an `add` or `mul` without `.rn` may be fused with another one."""
    specs = [moa.ArraySpec((64, 300), "float32")]
    for exact in (False, True):
        jit = moa.jit(library.variance, target="cuda", deterministic=exact)
        text = jit.lower(*specs).text("asm")
        fused = "fma.rn.f32" in text or "mul.f32" in text
        assert fused != exact
