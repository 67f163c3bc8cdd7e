"""Operations that select and rearrange mean the same at every stage and in NumPy.

Each step of a chain has its parameters (counts, shapes, masks) either as constants or
as data, and the value that NumPy gives it, by indexing with lists of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect.interpreter import interpret_module

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

STAGES = ("moa", "dnf", "fused", "onf")
DTYPES = tuple(map(np.dtype, ("f8", "f8", "f4", "i8", "i4", "?")))
LARGEST = 400
"""How many elements a step may have: operations that fold cost their square."""


# What NumPy gives


def _planes(array: np.ndarray, axis: int, positions: Sequence[int]) -> np.ndarray:
    return np.take(array, np.array(positions, np.int64), axis)


def take(counts: Any, array: np.ndarray) -> np.ndarray:
    for axis, count in enumerate(np.atleast_1d(counts)):
        positions = list(range(array.shape[axis]))
        kept = positions[:count] if count >= 0 else positions[len(positions) + count :]
        array = _planes(array, axis, kept)
    return array


def drop(counts: Any, array: np.ndarray) -> np.ndarray:
    for axis, count in enumerate(np.atleast_1d(counts)):
        positions = list(range(array.shape[axis]))
        kept = positions[count:] if count >= 0 else positions[: len(positions) + count]
        array = _planes(array, axis, kept)
    return array


def cat(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    planes = [
        np.broadcast_to(part, (1, *other.shape[1:])) if part.ndim == 0 else part
        for part, other in ((left, right), (right, left))
    ]
    return np.concatenate(planes)


def rotate(count: Any, array: np.ndarray) -> np.ndarray:
    extent = len(array)
    return _planes(array, 0, [(i + int(count)) % extent for i in range(extent)])


def expand(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
    result = np.zeros((len(mask), *array.shape[1:]), array.dtype)
    result[mask] = array
    return result


def transpose(array: np.ndarray, t: Sequence[int]) -> np.ndarray:
    result = np.empty([array.shape[t.index(k)] for k in range(array.ndim)], array.dtype)
    for index in np.ndindex(*result.shape):
        result[index] = array[tuple(index[axis] for axis in t)]
    return result


def grade_up(array: np.ndarray) -> np.ndarray:
    order = sorted(range(len(array)), key=lambda k: (array[k], k))
    return np.array(order, np.int64)


def grade_down(array: np.ndarray) -> np.ndarray:
    order = sorted(range(len(array)), key=lambda k: (-array[k], k))
    return np.array(order, np.int64)


SCANS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "max": np.maximum,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def scan(name: str, array: np.ndarray) -> np.ndarray:
    result = np.empty_like(array)
    for k in range(len(array)):
        planes = list(array[: k + 1])
        result[k] = reduce(lambda rest, plane: SCANS[name](plane, rest), planes[::-1])
    return result


# Chains of operations


@dataclass
class Step:
    """One operation on the array so far.

    Attributes:
        emit: writes it with the front end, given the array and its parameter.
        value: what NumPy makes of the array.
        text: what a failing test shows.
        parameter: counts, a shape, a mask or another array; None if it needs none.
        is_data: whether the parameter is an argument of the program.
        length: how many of the parameter's last extents must be known statically.
    """

    emit: Callable[..., Any]
    value: np.ndarray
    text: str
    parameter: Any = None
    is_data: bool = False
    length: int = 0


@dataclass
class Chain:
    """A program that applies steps, one after the other, to its first argument."""

    array: np.ndarray
    steps: list[Step] = field(default_factory=list[Step])

    @property
    def value(self) -> np.ndarray:
        return self.steps[-1].value if self.steps else self.array

    @property
    def arguments(self) -> list[np.ndarray]:
        data = [np.asarray(step.parameter) for step in self.steps if step.is_data]
        return [self.array, *data]

    def specs(self, is_static: bool) -> list[moa.ArraySpec]:
        lengths = [0, *(step.length for step in self.steps if step.is_data)]
        shapes: list[tuple[int | None, ...]] = []
        for array, length in zip(self.arguments, lengths, strict=True):
            known = array.ndim if is_static else length
            unknown = array.ndim - known
            shapes.append((None,) * unknown + array.shape[unknown:])
        return [
            moa.ArraySpec(shape, array.dtype)
            for shape, array in zip(shapes, self.arguments, strict=True)
        ]

    def __call__(self, array: Any, *data: Any) -> Any:
        parameters = iter(data)
        for step in self.steps:
            parameter = next(parameters) if step.is_data else step.parameter
            array = step.emit(array, parameter)
        return array

    def __repr__(self) -> str:
        steps = "; ".join(
            f"{step.text} {step.parameter if step.parameter is not None else ''!r}"
            f"{' (data)' if step.is_data else ''}"
            for step in self.steps
        )
        return f"Chain({self.array!r}: {steps})"


def _values(draw: Draw, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Small integers: sums and differences of them are exact in each dtype."""
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def _extents(draw: Draw, rank: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, 5)) for _ in range(rank))


def _counts(draw: Draw, array: np.ndarray) -> Any:
    """A scalar count, or counts for some of the leading axes, in bounds."""
    length = draw(st.integers(0, array.ndim))
    counts = [draw(st.integers(-n, n)) for n in array.shape[: max(length, 1)]]
    if length == 0:
        return counts[0]
    return counts


def _shape_of_total(draw: Draw, total: int) -> list[int]:
    """A shape of rank 0 to 4 of so many elements."""
    if total == 0:
        shape = [*_extents(draw, draw(st.integers(0, 3))), 0]
        return list(draw(st.permutations(shape)))
    shape: list[int] = []
    while total > 1:
        divisors = [n for n in range(2, total + 1) if total % n == 0]
        shape.append(draw(st.sampled_from(divisors)) if len(shape) < 3 else total)
        total //= shape[-1]
    if len(shape) < 4 and draw(st.booleans()):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return shape


def _with_parameter(
    draw: Draw,
    name: str,
    array: np.ndarray,
    parameter: Any,
    compute: Callable[[Any, np.ndarray], np.ndarray],
    dtypes: Sequence[str] = ("i8", "i8", "i4"),
) -> Step:
    function = getattr(moa, name)
    is_data = draw(st.booleans())
    value = compute(parameter, array)
    if is_data:
        parameter = np.array(parameter, draw(st.sampled_from(dtypes)))
    is_mask = dtypes == ("?",)
    return Step(
        lambda array, parameter: function(parameter, array),
        value,
        name,
        parameter,
        is_data,
        0 if is_mask else np.ndim(parameter),
    )


def _take(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return _with_parameter(draw, "take", array, _counts(draw, array), take)


def _drop(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return _with_parameter(draw, "drop", array, _counts(draw, array), drop)


def _rotate(draw: Draw, array: np.ndarray, _: bool) -> Step:
    count = draw(st.integers(-12, 12))
    return _with_parameter(draw, "rotate", array, count, rotate)


def _reshape(draw: Draw, array: np.ndarray, _: bool) -> Step:
    shape = _shape_of_total(draw, array.size)
    return _with_parameter(draw, "reshape", array, shape, lambda t, a: a.reshape(t))


def _compress(draw: Draw, array: np.ndarray, _: bool) -> Step:
    size = len(array)
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    compute = lambda v, a: np.compress(v, a, 0)  # noqa: E731
    return _with_parameter(draw, "compress", array, mask, compute, ("?",))


def _expand(draw: Draw, array: np.ndarray, _: bool) -> Step:
    holds = [True] * len(array) + [False] * draw(st.integers(0, 3))
    mask = list(draw(st.permutations(holds)))
    compute = lambda v, a: expand(np.array(v, "?"), a)  # noqa: E731
    return _with_parameter(draw, "expand", array, mask, compute, ("?",))


def _cat(draw: Draw, array: np.ndarray, is_index: bool) -> Step:
    if is_index:
        emit = lambda array, _: moa.cat(array, moa.reverse(array))  # noqa: E731
        return Step(emit, cat(array, array[::-1]), "cat with its reverse")
    if draw(st.sampled_from((False, False, True))):
        other = _values(draw, (), array.dtype)
    else:
        other = _values(draw, (*_extents(draw, 1), *array.shape[1:]), array.dtype)
    if draw(st.booleans()):
        emit, value = moa.cat, cat(array, other)
    else:
        emit, value = lambda a, b: moa.cat(b, a), cat(other, array)
    return Step(emit, value, "cat", other, draw(st.booleans()))


def _reverse(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return Step(lambda a, _: moa.reverse(a), np.flip(array, 0), "reverse")


def _ravel(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return Step(lambda a, _: moa.ravel(a), array.ravel(), "ravel")


def _transpose(draw: Draw, array: np.ndarray, _: bool) -> Step:
    t = draw(st.permutations(range(array.ndim)))
    return Step(moa.transpose, transpose(array, t), "transpose", t)


def _scan(draw: Draw, array: np.ndarray, _: bool) -> Step:
    names = ("or", "xor") if array.dtype == np.bool_ else ("add", "sub", "max")
    name = draw(st.sampled_from(names))
    return Step(lambda a, _: moa.scan(name, a), scan(name, array), f"scan {name}")


def _grade_up(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return Step(lambda a, _: moa.grade_up(a), grade_up(array), "grade_up")


def _grade_down(draw: Draw, array: np.ndarray, _: bool) -> Step:
    return Step(lambda a, _: moa.grade_down(a), grade_down(array), "grade_down")


STEPS: dict[str, Callable[[Draw, np.ndarray, bool], Step]] = {
    "take": _take,
    "drop": _drop,
    "cat": _cat,
    "reverse": _reverse,
    "rotate": _rotate,
    "transpose": _transpose,
    "reshape": _reshape,
    "ravel": _ravel,
    "compress": _compress,
    "expand": _expand,
    "scan": _scan,
    "grade_up": _grade_up,
    "grade_down": _grade_down,
}
GRADES = ("grade_up", "grade_down")
COSTLY = (*GRADES, "scan", "compress", "expand")
"""Operations that fold for each element."""


def _possible(array: np.ndarray) -> list[str]:
    """The operations that take such an array."""
    if array.ndim == 0:
        return ["reshape", "ravel", "cat"]
    is_gradable = array.ndim == 1 and array.dtype != np.bool_
    return [name for name in STEPS if is_gradable or name not in GRADES]


@st.composite
def chains(draw: Draw, first: str | None = None, depth: int = 4) -> Chain:
    """A chain that begins with an operation, or with any."""
    rank = 1 if first in GRADES else draw(st.integers(1, 3))
    numbers = DTYPES[:-1] if first in GRADES else DTYPES
    dtype = draw(st.sampled_from(numbers))
    chain = Chain(_values(draw, _extents(draw, rank), dtype))
    costly, is_index = 0, False
    for _ in range(draw(st.integers(1, depth))):
        names = [n for n in _possible(chain.value) if costly < 2 or n not in COSTLY]
        name = first if first and not chain.steps else draw(st.sampled_from(names))
        step = STEPS[name](draw, chain.value, is_index)
        assume(step.value.size <= LARGEST)
        chain.steps.append(step)
        costly += name in COSTLY
        is_index = is_index or name in GRADES
    return chain


def check(actual: Any, expected: np.ndarray, where: str) -> None:
    assert isinstance(actual, np.ndarray), where
    assert actual.dtype == expected.dtype, where
    assert actual.shape == expected.shape, where
    np.testing.assert_array_equal(actual, expected, where)


def check_stages(
    program: Callable[..., Any],
    specs: Sequence[moa.ArraySpec],
    arrays: Sequence[np.ndarray],
    expected: np.ndarray,
) -> None:
    compiled = moa.jit(program).lower(*specs)
    for stage in STAGES:
        module = compiled.module(stage)
        module.verify()
        (result,) = interpret_module(module, "main", arrays)
        check(result, expected, f"{stage}, interpreted")
    check(compiled(*arrays), expected, "compiled")
    assert compiled.intermediates == 0


@settings(max_examples=max(10, settings().max_examples // 2))
@given(chain=chains(), is_static=st.booleans())
def test_chains_mean_the_same_at_every_stage(chain: Chain, is_static: bool) -> None:
    check_stages(chain, chain.specs(is_static), chain.arguments, chain.value)
