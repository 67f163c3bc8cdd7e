"""Axes with fewer indices than lanes, and of extents that types do not give."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel, work_of
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import vectors_of_rest

Program = Callable[..., Any]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def attended(q: Any) -> Any:
    return moa.attention(q, q, q)


PROGRAMS: dict[str, tuple[Program, tuple[Any, ...]]] = {
    "pointwise": (lambda a: a * 2.0 + moa.exp(a), ("n",)),
    "transposed": (lambda a: moa.transpose(a), (5, "n")),
    "comparison": (lambda a: a > 0.1, (3, "n")),
    "product": (lambda a: moa.inner("add", "mul", moa.transpose(a), a), (6, "n")),
}


@cache
def compiled(name: str, dtype: str) -> Any:
    program, shape = PROGRAMS[name]
    return moa.jit(program).lower(moa.ArraySpec(shape, dtype))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in PROGRAMS), ("product", "float64")],
)
def test_extents_that_types_do_not_give(name: str, dtype: str) -> None:
    """Below, at and above one vector, and a block of vectors."""
    program, shape = PROGRAMS[name]
    for n in (0, 1, 7, 15, 16, 17, 65, 130):
        a = numbers(*(n if s == "n" else s for s in shape), seed=n).astype(dtype)
        expected = np.asarray(moa.interpret(program, a))
        tolerance = 1e-13 if dtype == "float64" else 3e-6
        found = compiled(name, dtype)(a)
        np.testing.assert_allclose(found, expected, tolerance, tolerance * 10)


@pytest.mark.parametrize("n", [1, 3, 5, 7, 11])
def test_few_queries(n: int) -> None:
    a = numbers(2, n, 19).astype(np.float32)
    expected = moa.interpret(attended, a)
    np.testing.assert_allclose(moa.jit(attended)(a), expected, 3e-6, 3e-6)


@pytest.mark.parametrize("n", [65, 97, 130])
def test_the_last_task_has_the_vectors_that_hold_what_is_left(n: int) -> None:
    a = numbers(2, n, 5).astype(np.float32)
    kernel = moa.jit(attended, schedule="j=procs,regs:4,lanes:16;p=chunk:96,regs:4")
    expected = moa.interpret(attended, a)
    np.testing.assert_allclose(kernel(a), expected, 3e-6, 3e-6)


def test_what_is_left_has_code_of_its_own_if_that_saves_enough() -> None:
    def rest(n: int, program: Program = attended) -> int:
        module = moa.jit(program).lower(numbers(1, n, 4)).module("fused")
        (function,) = functions_of(module)
        (op,) = comprehensions(function)
        kernel = read_kernel(op, function)
        return vectors_of_rest(kernel, kernel.axes[-1], 16, 4)

    assert [rest(n) for n in (65, 97, 130)] == [1, 3, 1]
    assert [rest(n) for n in (33, 64, 127, 128)] == [0, 0, 0, 0]
    assert rest(2049) == 0  # Of 33 tasks one.
    assert rest(97, lambda a: moa.attention(a, a, a, is_causal=True)) == 0
    assert rest(97, lambda a: a + a) == 0


def test_lanes_are_the_next_power_of_two() -> None:
    (schedule,) = moa.jit(lambda a: a + a).lower(numbers(5)).schedules
    assert "lanes:8" in schedule


def test_no_integer_is_divided_by_a_lane_without_index() -> None:
    kernel = moa.jit(lambda a, b: a // b).lower(*[moa.ArraySpec(("n",), np.int64)] * 2)
    for n in (1, 5, 8, 13):
        a, b = np.arange(n) * 7 - 3, np.arange(n) % 3 + 1
        np.testing.assert_array_equal(kernel(a, b), a // b)


def work(program: Program, *arrays: Any) -> int:
    module = moa.jit(program).lower(*arrays).module("fused")
    (function,) = functions_of(module)
    (comprehension,) = comprehensions(function)
    return work_of(read_kernel(comprehension, function))


def test_the_work_of_an_index() -> None:
    """In additions: a load and an addition; folds as often as they have indices."""
    assert work(lambda a: a + a, numbers(8)) == 2
    by_32, by_64 = (
        work(lambda a, b: moa.inner("add", "mul", a, b), numbers(4, n), numbers(n, 4))
        for n in (32, 64)
    )
    assert by_64 == 2 * by_32 == 64 * 4
    q = [numbers(2, 64, 16, seed=n) for n in range(3)]
    assert work(lambda q, k, v: moa.attention(q, k, v), *q) > 64 * (16 + 16)


def test_tasks_that_grow_are_run_longest_first() -> None:
    """Under a causal mask the last queries see most keys, and come first."""
    arrays = [numbers(1, 256, 16, seed=n) for n in range(3)]
    texts = [
        moa.jit(lambda *a, c=c: moa.attention(*a, is_causal=c)).lower(*arrays)
        for c in (False, True)
    ]
    full, causal = (text.module("target") for text in texts)

    def is_reversed(module: Any) -> bool:
        (loop,) = [op for op in module.walk() if op.name == "scf.parallel"]
        block = loop.regions[0].block
        (taken,) = [op for op in block.ops if op.name == "arith.remui"][:1]
        return any(use.operation.name == "arith.subi" for use in taken.results[0].uses)

    assert is_reversed(causal)
    assert not is_reversed(full)
