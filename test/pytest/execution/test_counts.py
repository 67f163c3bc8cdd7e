"""The work of derived programs, counted by the interpreter: exact, never timed."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.interpreter import count_operations
from moa_dialect.lowering.engine import entries
from moa_dialect.ops.operational import BufferOp
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.to_onf import ToOnfPass

Sizes = Sequence[tuple[int, ...]]


def random(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape) for shape in shapes]


def lower(program: Callable[..., Any], shapes: Sizes, **options: Any) -> moa.Compiled:
    return moa.jit(program).lower(*(moa.ArraySpec(s) for s in shapes), **options)


def counted(compiled: moa.Compiled, stage: str, arrays: list[np.ndarray]) -> Any:
    """How often each operation is executed at a stage."""
    module = compiled.module(stage)
    (entry,) = entries(module)
    return count_operations(module, entry, arrays)


# Attention: each score is evaluated once, and so is its exponential.


CHUNK = 64
"""How many keys are accumulated before the accumulators move."""


def attention_counts(n: int, m: int, d: int, e: int) -> dict[str, int]:
    """What the fused stage evaluates, for n queries, m keys, widths d and e.

    Scores: d products and one with the scale; weights: one exponential, e products with
    values. For each query and each chunk but the first, one exponential and 1 + e
    products move the accumulators. For each element of the result one division.
    """
    moves = n * (-(-m // CHUNK) - 1)
    return {
        "arith.mulf": n * m * (d + 1 + e) + moves * (1 + e),
        "math.exp": n * m + moves,
        "arith.subf": n * m + moves,
        "arith.divf": n * e,
        "moa.fold": n * m,
        "moa.cascade": n,
    }


@pytest.mark.parametrize(
    ("n", "m", "d", "e"),
    [
        (6, 6, 4, 5),
        (6, 9, 4, 5),
        (1, 7, 5, 3),
        (12, 12, 8, 8),
        (3, 64, 4, 5),
        (3, 65, 4, 5),
        (2, 200, 3, 4),
    ],
)
def test_attention_evaluates_each_score_once(n: int, m: int, d: int, e: int) -> None:
    shapes = ((n, d), (m, d), (m, e))
    compiled = lower(library.attention, shapes)
    counts = counted(compiled, "fused", random(*shapes))
    expected = attention_counts(n, m, d, e)
    assert {name: counts[name] for name in expected} == expected


def test_attention_of_six_in_numbers() -> None:
    assert attention_counts(6, 6, 4, 5) == {
        "arith.mulf": 360,
        "math.exp": 36,
        "arith.subf": 36,
        "arith.divf": 30,
        "moa.fold": 36,
        "moa.cascade": 6,
    }


def test_causal_attention_evaluates_the_scores_it_sees() -> None:
    n, d, e = 9, 4, 5
    shapes = ((n, d), (n, d), (n, e))
    compiled = lower(library.attention, shapes, is_causal=True)
    counts = counted(compiled, "fused", random(*shapes))
    seen = n * (n + 1) // 2
    assert counts["math.exp"] == seen
    assert counts["arith.mulf"] == seen * (d + 1 + e)


def test_without_fusion_attention_evaluates_each_score_three_times() -> None:
    n, m, d, e = 6, 9, 4, 5
    shapes = ((n, d), (m, d), (m, e))
    compiled = moa.jit(library.attention, fuse=False).lower(*map(moa.ArraySpec, shapes))
    counts = counted(compiled, "fused", random(*shapes))
    assert counts["arith.mulf"] == 3 * n * m * (d + 1) + n * m * e
    assert counts["math.exp"] == 2 * n * m


@pytest.mark.parametrize("m", [6, 100])
def test_attention_does_the_same_work_in_loops(m: int) -> None:
    """At the operational normal form: the same work, the weighted sum in the output."""
    n, d, e = 6, 4, 5
    shapes = ((n, d), (m, d), (m, e))
    arrays = random(*shapes)
    compiled = lower(library.attention, shapes)
    fused, onf = (counted(compiled, stage, arrays) for stage in ("fused", "onf"))
    for name in ("arith.mulf", "math.exp", "arith.subf", "arith.divf"):
        assert onf[name] == fused[name]
    # Starts, scores of a chunk, weighted sums, moves, the quotients.
    moves = n * (-(-m // CHUNK) - 1)
    assert onf["moa.store"] == n * e + n * m + n * m * e + moves * e + n * e


def test_attention_without_sharing_evaluates_each_score_for_every_element() -> None:
    """The normal form as it comes out of psi reduction is call by name."""
    n, m, d, e = 6, 6, 4, 5
    shapes = ((n, d), (m, d), (m, e))
    counts = counted(lower(library.attention, shapes), "dnf", random(*shapes))
    # For each (i, c) and key: its own exponential, and the sum over all keys.
    assert counts["math.exp"] == n * e * m * (1 + m)


@pytest.mark.parametrize("frame", [(2,), (2, 3)])
def test_heads_multiply_the_work(frame: tuple[int, ...]) -> None:
    n, m, d, e = 3, 4, 5, 6
    shapes = ((*frame, n, d), (*frame, m, d), (*frame, m, e))
    counts = counted(lower(library.attention, shapes), "fused", random(*shapes))
    heads = int(np.prod(frame))
    expected = attention_counts(n, m, d, e)
    assert {name: counts[name] for name in expected} == {
        name: heads * count for name, count in expected.items()
    }


# The product of three matrices: two products, not one inside the other.


def left_first(a: Any, b: Any, c: Any) -> Any:
    return library.matmul(library.matmul(a, b), c)


def right_first(a: Any, b: Any, c: Any) -> Any:
    return library.matmul(a, library.matmul(b, c))


DYNAMIC = [(None, None)] * 3


def chain(program: Any, *specs: Any) -> moa.Compiled:
    return moa.jit(program).lower(*(moa.ArraySpec(shape) for shape in specs))


def products(compiled: moa.Compiled, stage: str, arrays: list[np.ndarray]) -> int:
    return counted(compiled, stage, arrays)["arith.mulf"]


@pytest.mark.parametrize("stage", ["fused", "onf"])
@pytest.mark.parametrize("n", [4, 6, 9])
def test_product_of_three_is_cubic(n: int, stage: str) -> None:
    shapes = [(n, n)] * 3
    compiled = lower(left_first, shapes)
    assert products(compiled, stage, random(*shapes)) == n**2 * n + n**2 * n


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9])
def test_product_of_three_is_cubic_for_all_extents(n: int) -> None:
    """One kernel for every n, 3 among them.

    With extents known to be as small as 3, recomputing four products and additions is
    cheaper than a loop of its own to the pass's cost model: at most n = 3, so that this
    does not change the order.
    """
    compiled = chain(left_first, *DYNAMIC)
    arrays = random(*[(n, n)] * 3)
    for stage in ("fused", "onf"):
        assert products(compiled, stage, arrays) == n**2 * n + n**2 * n


def test_product_of_three_without_sinking_is_quartic() -> None:
    """What the counts above would be if `moa-sink` did nothing."""
    for n in (3, 4, 6):
        module = chain(left_first, *DYNAMIC).module("dnf")
        SharePass().apply(Context(), module)
        ToOnfPass().apply(Context(), module)
        counts = count_operations(module, "left_first", random(*[(n, n)] * 3))
        assert counts["arith.mulf"] == n**4 + n**3


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (left_first, lambda p, q, r, s: p * q * r + p * r * s),
        (right_first, lambda p, q, r, s: q * r * s + p * q * s),
    ],
    ids=["(AB)C", "A(BC)"],
)
@pytest.mark.parametrize("sizes", [(4, 5, 6, 7), (7, 6, 5, 4), (5, 8, 4, 9)])
def test_each_association_costs_its_two_products(
    program: Any, expected: Callable[..., int], sizes: tuple[int, int, int, int]
) -> None:
    p, q, r, s = sizes
    shapes = [(p, q), (q, r), (r, s)]
    arrays = random(*shapes)
    for compiled in (lower(program, shapes), chain(program, *DYNAMIC)):
        for stage in ("fused", "onf"):
            assert products(compiled, stage, arrays) == expected(p, q, r, s)


@pytest.mark.parametrize("program", [left_first, right_first])
@pytest.mark.parametrize("specs", [[(6, 6)] * 3, DYNAMIC], ids=["static", "dynamic"])
def test_product_of_three_stores_no_intermediate(program: Any, specs: Any) -> None:
    """Not even a row: the accumulators are the row of the output."""
    compiled = chain(program, *specs)
    assert compiled.intermediates == 0
    assert compiled.scratch_bytes == 0
    assert not any(isinstance(op, BufferOp) for op in compiled.module("onf").walk())
    arrays = random(*[(6, 6)] * 3)
    a, b, c = arrays
    np.testing.assert_allclose(compiled(*arrays), a @ b @ c, rtol=1e-13, atol=1e-13)


def test_product_of_four_is_within_its_known_limit() -> None:
    """`((AB)C)D` takes one fold too many: only the innermost fold takes axes inside.

    The row of AB is evaluated again for each element of the row of (AB)C. Cubic would
    be 3 n^3; recorded here, so that it does not get worse unseen.
    """
    n = 5
    shapes = [(n, n)] * 4

    def program(a: Any, b: Any, c: Any, d: Any) -> Any:
        return library.matmul(left_first(a, b, c), d)

    compiled = lower(program, shapes)
    assert products(compiled, "onf", random(*shapes)) <= n**4 + 2 * n**3
    assert compiled.scratch_bytes == 0


def test_counting_counts_every_evaluation() -> None:
    """The instrument itself, on a program whose counts are plain."""
    compiled = lower(lambda a, b: moa.inner("add", "mul", a, b), [(2, 3), (3, 4)])
    arrays = random((2, 3), (3, 4))
    counts = counted(compiled, "fused", arrays)
    assert isinstance(counts, Counter)
    assert counts["arith.mulf"] == 2 * 3 * 4
    assert counts["moa.at"] == 2 * 2 * 3 * 4
    assert counts["moa.fold"] == 2 * 4
