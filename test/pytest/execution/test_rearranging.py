"""Operations that select and rearrange mean the same at every stage and in NumPy.

Each step of a chain has its parameters (counts, shapes, masks) either as constants or
as data, and the value that NumPy gives it, by indexing with lists of positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

import moa_dialect as moa
from moa_dialect.errors import DTypeError, IndexRangeError, MoaError, ShapeError
from moa_dialect.interpreter import interpret_module

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Program: TypeAlias = (
    Callable[[Any], Any] | Callable[[Any, Any], Any] | Callable[[Any, Any, Any], Any]
)

STAGES = ("moa", "dnf", "fused", "onf")
DTYPES = tuple(map(np.dtype, ("f8", "f8", "f4", "i8", "i4", "?")))
LARGEST = 400
"""How many elements a step may have: operations that fold cost their square."""


def call(program: Program, *arguments: Any) -> Any:
    return cast(Callable[..., Any], program)(*arguments)


# What NumPy gives


def _planes(array: Array, axis: int, positions: Sequence[int]) -> Array:
    return np.take(array, np.array(positions, np.int64), axis)


def take(counts: Any, array: Array) -> Array:
    for axis, count in enumerate(np.atleast_1d(counts).tolist()):
        positions = list(range(array.shape[axis]))
        kept = positions[:count] if count >= 0 else positions[len(positions) + count :]
        array = _planes(array, axis, kept)
    return array


def drop(counts: Any, array: Array) -> Array:
    for axis, count in enumerate(np.atleast_1d(counts).tolist()):
        positions = list(range(array.shape[axis]))
        kept = positions[count:] if count >= 0 else positions[: len(positions) + count]
        array = _planes(array, axis, kept)
    return array


def cat(left: Array, right: Array) -> Array:
    parts = [
        np.broadcast_to(part, (1, *other.shape[1:])) if part.ndim == 0 else part
        for part, other in ((left, right), (right, left))
    ]
    return np.concatenate(parts)


def rotate(count: Any, array: Array) -> Array:
    extent = len(array)
    return _planes(array, 0, [(i + int(count)) % extent for i in range(extent)])


def recycle(shape: Sequence[int], array: Array) -> Array:
    """The elements of as many copies as there have to be, cut to size."""
    total = math.prod(shape)
    copies = [array.reshape(-1)] * (-(-total // max(array.size, 1)))
    elements = np.concatenate([np.empty(0, array.dtype), *copies])
    return elements[:total].reshape(shape)


def pad(left: Any, right: Any, array: Array) -> Array:
    sides = [np.atleast_1d(counts).tolist() for counts in (left, right)]
    for axis, (before, after) in enumerate(zip(*sides, strict=True)):
        parts = np.split(array, [array.shape[axis] - before], axis)
        parts = [parts[1], array, np.split(array, [after], axis)[0]]
        array = np.concatenate(parts, axis)
    return array


def insert(offsets: Any, block: Array, array: Array) -> Array:
    result = array.copy()
    for index in np.ndindex(*block.shape):
        place = list(index)
        for axis, offset in enumerate(np.atleast_1d(offsets).tolist()):
            place[axis] += offset
        result[tuple(place)] = block[index]
    return result


def compress(mask: Any, array: Array) -> Array:
    return np.compress(mask, array, 0)


def expand(mask: Any, array: Array) -> Array:
    result = np.zeros((len(mask), *array.shape[1:]), array.dtype)
    result[np.array(mask, "?")] = array
    return result


def transpose(array: Array, t: Sequence[int]) -> Array:
    result = np.empty([array.shape[t.index(k)] for k in range(array.ndim)], array.dtype)
    for index in np.ndindex(*result.shape):
        result[index] = array[tuple(index[axis] for axis in t)]
    return result


def grade_up(array: Array) -> Array:
    order = sorted(range(len(array)), key=lambda k: (np.isnan(array[k]), array[k], k))
    return np.array(order, np.int64)


def grade_down(array: Array) -> Array:
    order = sorted(range(len(array)), key=lambda k: (~np.isnan(array[k]), -array[k], k))
    return np.array(order, np.int64)


SCANS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "max": np.maximum,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def scan(name: str, array: Array) -> Array:
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
        text: what a failing test shows.
        value: what NumPy makes of the array.
        emit: writes it with the front end, given the array and its parameter.
        parameter: counts, a shape, a mask or another array; None if it needs none.
        is_data: whether the parameter is an argument of the program.
        is_counted: whether its length must be known.
    """

    text: str
    value: Array
    emit: Callable[[Any, Any], Any]
    parameter: Any = None
    is_data: bool = False
    is_counted: bool = False


@dataclass
class Chain:
    """A program that applies steps, one after the other, to an array.

    Attributes:
        array: what it begins with: its first argument, or a constant.
        is_constant: whether that is a constant.
        steps: the operations.
    """

    array: Array
    is_constant: bool = False
    steps: list[Step] = field(default_factory=list[Step])

    @property
    def value(self) -> Array:
        return self.steps[-1].value if self.steps else self.array

    @property
    def data(self) -> list[Step]:
        return [step for step in self.steps if step.is_data]

    @property
    def arguments(self) -> list[Array]:
        arrays = [] if self.is_constant else [self.array]
        return [*arrays, *(step.parameter for step in self.data)]

    def specs(self, is_static: bool) -> list[moa.ArraySpec]:
        known = [] if self.is_constant else [is_static]
        known += [is_static or step.is_counted for step in self.data]
        return [
            moa.ArraySpec(
                array.shape if is_known else (None,) * array.ndim, array.dtype
            )
            for array, is_known in zip(self.arguments, known, strict=True)
        ]

    def __call__(self, *arrays: Any) -> Any:
        given = iter(arrays)
        array = self.array if self.is_constant else next(given)
        for step in self.steps:
            array = step.emit(array, next(given) if step.is_data else step.parameter)
        return array

    def __repr__(self) -> str:
        steps = "".join(
            f"; {step.text} {step.parameter!r}{' as data' if step.is_data else ''}"
            for step in self.steps
        )
        constant = " as constant" if self.is_constant else ""
        return f"Chain({self.array!r}{constant}{steps})"


def values(draw: Draw, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Small integers: sums and differences of them are exact in each dtype."""
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def extents(draw: Draw, rank: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, 5)) for _ in range(rank))


def counts(draw: Draw, array: Array) -> int | list[int]:
    """A scalar count, or counts for some of the leading axes, in bounds."""
    if draw(st.booleans()):
        return draw(st.integers(-len(array), len(array)))
    length = draw(st.integers(0, array.ndim))
    return [draw(st.integers(-n, n)) for n in array.shape[:length]]


def shape_of_total(draw: Draw, total: int) -> list[int]:
    """A shape of rank 0 to 4 with so many elements."""
    if total == 0:
        shape = [*extents(draw, draw(st.integers(0, 3))), 0]
        return list(draw(st.permutations(shape)))
    shape: list[int] = []
    while total > 1:
        divisors = [n for n in range(2, total + 1) if total % n == 0]
        shape.append(draw(st.sampled_from(divisors)) if len(shape) < 3 else total)
        total //= shape[-1]
    if len(shape) < 4 and draw(st.booleans()):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return shape


def _with(
    draw: Draw,
    name: str,
    value: Array,
    parameter: Any,
    dtypes: Sequence[str] = ("i8", "i8", "i4"),
) -> Step:
    function = getattr(moa, name)
    is_data = draw(st.booleans())
    if is_data:
        parameter = np.array(parameter, draw(st.sampled_from(dtypes)))

    def emit(array: Any, parameter: Any) -> Any:
        return function(parameter, array)

    return Step(name, value, emit, parameter, is_data, "?" not in dtypes)


def _without(name: str, value: Array) -> Step:
    function = getattr(moa, name)
    return Step(name, value, lambda array, _: function(array))


def _take(draw: Draw, array: Array) -> Step:
    count = counts(draw, array)
    return _with(draw, "take", take(count, array), count)


def _drop(draw: Draw, array: Array) -> Step:
    count = counts(draw, array)
    return _with(draw, "drop", drop(count, array), count)


def _rotate(draw: Draw, array: Array) -> Step:
    count = draw(st.integers(-12, 12))
    return _with(draw, "rotate", rotate(count, array), count)


def _reshape(draw: Draw, array: Array) -> Step:
    shape = shape_of_total(draw, array.size)
    return _with(draw, "reshape", array.reshape(shape), shape)


def _recycle(draw: Draw, array: Array) -> Step:
    shape = extents(draw, draw(st.integers(0, 3)))
    if array.size == 0:
        shape = draw(st.permutations([*shape, 0]))
    return _with(draw, "recycle", recycle(shape, array), list(shape))


def _pad(draw: Draw, array: Array) -> Step:
    length, is_scalar = draw(st.integers(0, array.ndim)), draw(st.booleans())
    axes = array.shape[:1] if is_scalar else array.shape[:length]
    sides = [[draw(st.integers(0, n)) for n in axes] for _ in range(2)]
    given = np.array(sides, np.int64).reshape((2,) if is_scalar else (2, length))
    is_data = draw(st.booleans())

    def emit(array: Any, sides: Any) -> Any:
        left, right = (moa.psi([k], sides) if is_data else sides[k] for k in (0, 1))
        return moa.pad(left, right, array)

    value = pad(given[0], given[1], array)
    return Step("pad", value, emit, given, is_data, is_counted=True)


def _insert(draw: Draw, array: Array) -> Step:
    length, is_scalar = draw(st.integers(0, array.ndim)), draw(st.booleans())
    counted = 1 if is_scalar else length
    shape = [draw(st.integers(0, n)) for n in array.shape[:counted]]
    offsets: Any = [
        draw(st.integers(0, n - m)) for n, m in zip(array.shape, shape, strict=False)
    ]
    if is_scalar:
        (offsets,) = offsets
    block = values(draw, (*shape, *array.shape[counted:]), array.dtype)
    step = _with(draw, "insert", insert(offsets, block, array), offsets)
    step.emit = lambda array, offsets: moa.insert(offsets, block, array)
    return step


def _compress(draw: Draw, array: Array) -> Step:
    size = len(array)
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return _with(draw, "compress", compress(mask, array), mask, "?")


def _expand(draw: Draw, array: Array) -> Step:
    holds = [True] * len(array) + [False] * draw(st.integers(0, 3))
    mask = list(draw(st.permutations(holds)))
    return _with(draw, "expand", expand(mask, array), mask, "?")


def _cat(draw: Draw, array: Array) -> Step:
    is_scalar = draw(st.sampled_from((False, False, True)))
    shape = () if is_scalar else (*extents(draw, 1), *array.shape[1:])
    other, is_data = values(draw, shape, array.dtype), draw(st.booleans())
    if draw(st.booleans()):
        return Step("cat", cat(array, other), moa.cat, other, is_data)
    value = cat(other, array)
    return Step("cat after", value, lambda a, b: moa.cat(b, a), other, is_data)


def _psi(draw: Draw, array: Array) -> Step:
    length = draw(st.integers(0, array.ndim))
    assume(0 not in array.shape[:length])
    index = [draw(st.integers(0, n - 1)) for n in array.shape[:length]]
    return _with(draw, "psi", array[(*index, ...)], index)


def _itself(draw: Draw, array: Array) -> Step:
    value = cat(array, array[::-1])
    return Step("cat ΦA", value, lambda a, _: moa.cat(a, moa.reverse(a)))


def _reverse(draw: Draw, array: Array) -> Step:
    return _without("reverse", array[::-1])


def _ravel(draw: Draw, array: Array) -> Step:
    return _without("ravel", array.ravel())


def _transpose(draw: Draw, array: Array) -> Step:
    t = draw(st.permutations(range(array.ndim)))
    return Step("transpose", transpose(array, t), moa.transpose, t)


def _scan(draw: Draw, array: Array) -> Step:
    names = ("or", "xor") if array.dtype == np.bool_ else ("add", "sub", "max")
    name = draw(st.sampled_from(names))
    return Step(f"scan {name}", scan(name, array), lambda a, _: moa.scan(name, a))


def _grade_up(draw: Draw, array: Array) -> Step:
    return _without("grade_up", grade_up(array))


def _grade_down(draw: Draw, array: Array) -> Step:
    return _without("grade_down", grade_down(array))


STEPS: dict[str, Callable[[Draw, Array], Step]] = {
    "take": _take,
    "drop": _drop,
    "cat": _cat,
    "itself": _itself,
    "psi": _psi,
    "reverse": _reverse,
    "rotate": _rotate,
    "transpose": _transpose,
    "pad": _pad,
    "insert": _insert,
    "reshape": _reshape,
    "recycle": _recycle,
    "ravel": _ravel,
    "compress": _compress,
    "expand": _expand,
    "scan": _scan,
    "grade_up": _grade_up,
    "grade_down": _grade_down,
}
GRADES = ("grade_up", "grade_down")
FOLDS = (*GRADES, "scan", "compress", "expand")
"""Operations that fold for each element."""


def possible(chain: Chain, folds: int) -> list[str]:
    """The operations that may follow."""
    array, done = chain.value, [step.text for step in chain.steps]
    names = set(STEPS)
    if array.ndim == 0:
        names = {"reshape", "recycle", "ravel", "cat"}
    if array.ndim != 1 or array.dtype == np.bool_:
        names -= set(GRADES)
    if set(done) & set(GRADES):
        names -= {"cat", "insert"}  # No argument has the element type index.
    if folds == 2:
        names -= set(FOLDS)
    return sorted(names)


@st.composite
def chains(draw: Draw, first: str | None = None, depth: int = 4) -> Chain:
    """A chain that begins with an operation, or with any."""
    is_graded = first in GRADES
    rank = 1 if is_graded else draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES[:-1] if is_graded else DTYPES))
    array = values(draw, extents(draw, rank), dtype)
    chain, folds = Chain(array, draw(st.sampled_from((False, False, True)))), 0
    for number in range(draw(st.integers(1, depth))):
        names = possible(chain, folds)
        name = first if first and not number else draw(st.sampled_from(names))
        step = STEPS[name](draw, chain.value)
        assume(step.value.size <= LARGEST)
        chain.steps.append(step)
        folds += name in FOLDS
    return chain


def check(actual: Any, expected: Array, where: str) -> None:
    """The same elements, bit by bit: nothing is computed with them."""
    assert isinstance(actual, np.ndarray), where
    assert actual.dtype == expected.dtype, where
    assert actual.shape == expected.shape, where
    assert actual.tobytes() == expected.tobytes(), (
        f"{where}: {actual} is not {expected}"
    )


def check_chain(chain: Chain, is_static: bool) -> None:
    compiled = moa.jit(chain).lower(*chain.specs(is_static))
    for stage in STAGES:
        module = compiled.module(stage)
        module.verify()
        (result,) = interpret_module(module, "main", chain.arguments)
        check(result, chain.value, f"{stage}, interpreted")
    check(compiled(*chain.arguments), chain.value, "compiled")
    assert compiled.intermediates == 0


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=max(5, settings().max_examples // 10))
@given(data=st.data(), is_static=st.booleans())
def test_every_operation(name: str, data: st.DataObject, is_static: bool) -> None:
    check_chain(data.draw(chains(name, depth=1)), is_static)


@settings(max_examples=max(20, settings().max_examples // 2))
@given(chain=chains(), is_static=st.booleans())
def test_chains_of_operations(chain: Chain, is_static: bool) -> None:
    check_chain(chain, is_static)


@pytest.mark.parametrize("name", GRADES)
def test_grade_has_an_order_of_all_numbers(name: str) -> None:
    """NaN is above infinity; the two zeros are equal."""
    array = np.array([1, np.nan, -np.inf, 0.0, -0.0, np.inf, np.nan, 0.0, -1])
    expected = {"grade_up": grade_up, "grade_down": grade_down}[name](array)
    check_chain(Chain(array, steps=[_without(name, expected)]), False)
    sign = 1 if name == "grade_up" else -1
    numbers = np.argsort(sign * array, kind="stable")[: len(array) - 2]
    assert set(expected[:7] if sign == 1 else expected[2:]) == set(numbers)


# Identities, for counts and shapes that are data


@dataclass(frozen=True)
class Identity:
    """Two programs of an array and some data that give equal arrays.

    Attributes:
        sides: the two programs.
        data: draws the data, for an array.
        most: the largest rank.
    """

    sides: Program
    data: Callable[[Draw, Array], Sequence[Any]] = lambda draw, array: ()
    most: int = 3


def _two(draw: Draw, most: int) -> tuple[int, int]:
    """Two counts that are in order and in bounds."""
    larger = draw(st.integers(0, most))
    return draw(st.integers(0, larger)), larger


def _summands(draw: Draw, most: int) -> tuple[int, int]:
    small, large = _two(draw, most)
    return small, large - small


def _any_two(draw: Draw, _: Array) -> tuple[int, int]:
    return draw(st.integers(-20, 20)), draw(st.integers(-20, 20))


def _shapes(draw: Draw, array: Array) -> tuple[list[int], list[int]]:
    """Two shapes of rank two: a program has ranks that are known."""
    if array.size == 0:
        return [0, draw(st.integers(0, 3))], [draw(st.integers(0, 3)), 0]
    divisors = [n for n in range(1, array.size + 1) if array.size % n == 0]
    n, m = (draw(st.sampled_from(divisors)) for _ in "nm")
    return [n, array.size // n], [m, array.size // m]


def _mask(draw: Draw, array: Array) -> list[Array]:
    holds = [True] * len(array) + [False] * draw(st.integers(0, 3))
    return [np.array(draw(st.permutations(holds)), bool)]


def _sides_of_transpose(a: Any) -> tuple[Any, Any]:
    """`t ⊘ (u ⊘ A) = t[u] ⊘ A`, with two permutations that are no involutions."""
    axes = range(len(a.shape))
    t, u = [*axes[1:], *axes[:1]], [*axes[-1:], *axes[:-1]]
    u[:2] = reversed(u[:2])
    once = moa.transpose(a, [t[axis] for axis in u])
    return moa.transpose(moa.transpose(a, u), t), once


IDENTITIES: dict[str, Identity] = {
    "ΦΦA = A": Identity(lambda a: (moa.reverse(moa.reverse(a)), a)),
    "k △ (j △ A) = k △ A": Identity(
        lambda a, k, j: (moa.take(k, moa.take(j, a)), moa.take(k, a)),
        lambda draw, array: _two(draw, len(array)),
    ),
    "-k △ (-j △ A) = -k △ A": Identity(
        lambda a, k, j: (moa.take(-k, moa.take(-j, a)), moa.take(-k, a)),
        lambda draw, array: _two(draw, len(array)),
    ),
    "k ▽ (j ▽ A) = (k + j) ▽ A": Identity(
        lambda a, k, j: (moa.drop(k, moa.drop(j, a)), moa.drop(k + j, a)),
        lambda draw, array: _summands(draw, len(array)),
    ),
    "k θ (j θ A) = (k + j) θ A": Identity(
        lambda a, k, j: (moa.rotate(k, moa.rotate(j, a)), moa.rotate(k + j, a)),
        _any_two,
    ),
    "(k △ A) ++ (k ▽ A) = A": Identity(
        lambda a, k: (moa.cat(moa.take(k, a), moa.drop(k, a)), a),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "(-k ▽ A) ++ (-k △ A) = A": Identity(
        lambda a, k: (moa.cat(moa.drop(-k, a), moa.take(-k, a)), a),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "k θ A = (k ▽ A) ++ (k △ A)": Identity(
        lambda a, k: (moa.rotate(k, a), moa.cat(moa.drop(k, a), moa.take(k, a))),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "-k θ A = (-k △ A) ++ (-k ▽ A)": Identity(
        lambda a, k: (moa.rotate(-k, a), moa.cat(moa.take(-k, a), moa.drop(-k, a))),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "Φ(k θ A) = -k θ ΦA": Identity(
        lambda a, k: (moa.reverse(moa.rotate(k, a)), moa.rotate(-k, moa.reverse(a))),
        lambda draw, array: _any_two(draw, array)[:1],
    ),
    "Φ(A ++ A) = ΦA ++ ΦA": Identity(
        lambda a: (
            moa.reverse(moa.cat(a, a)),
            moa.cat(moa.reverse(a), moa.reverse(a)),
        ),
    ),
    "Φ(k △ A) = -k △ ΦA": Identity(
        lambda a, k: (moa.reverse(moa.take(k, a)), moa.take(-k, moa.reverse(a))),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "t ρ̂ (u ρ̂ A) = t ρ̂ A": Identity(
        lambda a, t, u: (moa.reshape(t, moa.reshape(u, a)), moa.reshape(t, a)), _shapes
    ),
    "rav (t ρ̂ A) = rav A": Identity(
        lambda a, t: (moa.ravel(moa.reshape(t, a)), moa.ravel(a)),
        lambda draw, array: _shapes(draw, array)[:1],
    ),
    "(ρA) ρ̂ (rav A) = A": Identity(
        lambda a: (moa.reshape(moa.shape(a), moa.ravel(a)), a)
    ),
    "⊘⊘A = A": Identity(lambda a: (moa.transpose(moa.transpose(a)), a)),
    "t ⊘ (u ⊘ A) = t[u] ⊘ A": Identity(_sides_of_transpose),
    "-r ▽ (l ▽ pad(l, r, A)) = A": Identity(
        lambda a, k, j: (moa.drop(-j, moa.drop(k, moa.pad(k, j, a))), a),
        lambda draw, array: [draw(st.integers(0, len(array))) for _ in "lr"],
    ),
    "pad(l, r, A) = (-l △ A) ++ A ++ (r △ A)": Identity(
        lambda a, k, j: (
            moa.pad(k, j, a),
            moa.cat(moa.cat(moa.take(-k, a), a), moa.take(j, a)),
        ),
        lambda draw, array: [draw(st.integers(0, len(array))) for _ in "lr"],
    ),
    "insert(o, m △ (o ▽ A), A) = A": Identity(
        lambda a, o, m: (moa.insert(o, moa.take(m, moa.drop(o, a)), a), a),
        lambda draw, array: _summands(draw, len(array)),
    ),
    "insert(k, k ▽ A, A) = A": Identity(
        lambda a, k: (moa.insert(k, moa.drop(k, a), a), a),
        lambda draw, array: _two(draw, len(array))[:1],
    ),
    "recycle(ρA, A) = A": Identity(lambda a: (moa.recycle(moa.shape(a), a), a)),
    "recycle(<πt>, A) = rav (t ρ̂ A)": Identity(
        lambda a, t: (
            moa.recycle(moa.ravel(moa.product(t)), a),
            moa.ravel(moa.reshape(t, a)),
        ),
        lambda draw, array: _shapes(draw, array)[:1],
    ),
    "v ⌿ (v ⍀ A) = A": Identity(
        lambda a, v: (moa.compress(v, moa.expand(v, a)), a), _mask
    ),
    "(gu v) ψ v ascends": Identity(
        lambda a: (_sorted(moa.grade_up, a), _sorted(moa.grade_up, moa.reverse(a))),
        most=1,
    ),
    "(gd v) ψ v = Φ((gu v) ψ v)": Identity(
        lambda a: (
            _sorted(moa.grade_down, a),
            moa.reverse(_sorted(moa.grade_up, a)),
        ),
        most=1,
    ),
}


def _sorted(grade: Callable[[Any], Any], array: Any) -> Any:
    """The elements of a vector in the order of their places, each an index."""
    return moa.psi(moa.outer("add", grade(array), [0]), array)


@cache
def lowered(
    name: str, rank: int, kinds: tuple[tuple[str, int], ...]
) -> tuple[moa.Compiled, tuple[ModuleOp, ...]]:
    """Both sides of an identity for all extents, compiled once."""
    specs = [moa.ArraySpec((None,) * rank)]
    for dtype, length in kinds:
        shape = (None,) if dtype == "bool" else (2,) * length
        specs.append(moa.ArraySpec(shape, np.dtype(dtype)))

    def main(*arrays: Any) -> Any:
        return call(IDENTITIES[name].sides, *arrays)

    compiled = moa.jit(main).lower(*specs)
    return compiled, tuple(map(compiled.module, STAGES))


SPECIAL = (np.nan, -0.0, np.inf)


@pytest.mark.parametrize("name", IDENTITIES)
@settings(max_examples=max(10, settings().max_examples // 5))
@given(draw=st.data(), is_special=st.booleans())
def test_identities_hold(name: str, draw: st.DataObject, is_special: bool) -> None:
    identity = IDENTITIES[name]
    rank = draw.draw(st.integers(1, identity.most))
    array = values(draw.draw, extents(draw.draw, rank), np.dtype("f8"))
    if is_special and identity.most > 1:
        places = np.arange(array.size) % 4 == 1
        array[places.reshape(array.shape)] = draw.draw(st.sampled_from(SPECIAL))
    data = [np.array(datum) for datum in identity.data(draw.draw, array)]
    kinds = tuple((str(datum.dtype), datum.ndim) for datum in data)
    compiled, modules = lowered(name, rank, kinds)
    for stage, module in zip(STAGES, modules, strict=True):
        left, right = interpret_module(module, "main", [array, *data])
        check(left, right, f"{stage}, interpreted")
    left, right = compiled(array, *data)
    check(left, right, "compiled")


# Errors


def spec(*shape: int | None, dtype: Any = "f64") -> moa.ArraySpec:
    return moa.ArraySpec(shape, dtype)


STATIC: dict[str, tuple[Program, Sequence[moa.ArraySpec], type[MoaError], str]] = {
    "over-take": (
        lambda a: moa.take(4, a),
        [spec(3, 4)],
        ShapeError,
        "take: the count for axis 0 must not exceed the extent: expected at most 3 "
        "(axis 0 of a), got 4",
    ),
    "over-take from the end": (
        lambda a: moa.take([-3, -5], a),
        [spec(3, 4)],
        ShapeError,
        "take: the count for axis 1 must not exceed the extent: expected at most 4 "
        "(axis 1 of a), got 5",
    ),
    "take of an empty axis": (
        lambda a: moa.take(1, a),
        [spec(0, 4)],
        ShapeError,
        "take: the count for axis 0 must not exceed the extent: expected at most 0 "
        "(axis 0 of a), got 1",
    ),
    "over-drop": (
        lambda a: moa.drop(4, a),
        [spec(3, 4)],
        ShapeError,
        "drop: the count for axis 0 must not exceed the extent: expected at most 3 "
        "(axis 0 of a), got 4",
    ),
    "over-drop from the end": (
        lambda a: moa.drop([3, -5], a),
        [spec(None, 4)],
        ShapeError,
        "drop: the count for axis 1 must not exceed the extent: expected at most 4 "
        "(axis 1 of a), got 5",
    ),
    "take of more axes than there are": (
        lambda a: moa.take([1, 1, 1], a),
        [spec(3, 4)],
        ShapeError,
        "take: more counts than axes: expected at most 2, got 3",
    ),
    "drop of a scalar": (
        lambda a: moa.drop(0, a),
        [spec()],
        ShapeError,
        "drop: more counts than axes: expected at most 0, got 1",
    ),
    "take by a table": (
        lambda a: moa.take([[1]], a),
        [spec(3)],
        ShapeError,
        "take expects a scalar or a vector of static length, got tensor<1x1xi64>",
    ),
    "drop by a vector of any length": (
        lambda a, v: moa.drop(v, a),
        [spec(3), spec(None, dtype="i64")],
        ShapeError,
        "drop expects a scalar or a vector of static length, got tensor<?xi64>",
    ),
    "take by a float": (
        lambda a: moa.take(1.5, a),
        [spec(3)],
        DTypeError,
        "take expects integers, got 1.5",
    ),
    "take by floats": (
        lambda a, v: moa.take(v, a),
        [spec(3), spec(1)],
        DTypeError,
        "take expects integers, got tensor<1xf64>",
    ),
    "cat of a vector and a matrix": (
        moa.cat,
        [spec(4), spec(3, 4)],
        ShapeError,
        "cat expects arrays of equal rank or a scalar, got tensor<4xf64> and "
        "tensor<3x4xf64>",
    ),
    "cat of other extents": (
        moa.cat,
        [spec(None, 4), spec(3, 5)],
        ShapeError,
        "cat: extents of axis 1 must be equal: expected 4 (axis 1 of a), got 5 "
        "(axis 1 of b)",
    ),
    "cat of two dtypes": (
        moa.cat,
        [spec(3), spec(3, dtype="f32")],
        DTypeError,
        "cat: operands must have one element type, got f64, f32",
    ),
    "rotate of a scalar": (
        lambda a: moa.rotate(1, a),
        [spec()],
        ShapeError,
        "rotate expects an array of rank 1 or more, got tensor<f64>",
    ),
    "rotate by a vector": (
        lambda a: moa.rotate([1, 2], a),
        [spec(3, 4)],
        ShapeError,
        "rotate expects a scalar, got tensor<2xi64>",
    ),
    "rotate by a float": (
        lambda a, k: moa.rotate(k, a),
        [spec(3, 4), spec()],
        DTypeError,
        "rotate expects integers, got tensor<f64>",
    ),
    "reshape to other totals": (
        lambda a: moa.reshape([5, 2], a),
        [spec(3, 4)],
        ShapeError,
        "reshape: the number of elements must stay: expected 12 (axis 0 of a * "
        "axis 1 of a), got 10",
    ),
    "reshape to a negative extent": (
        lambda a: moa.reshape([-3, -4], a),
        [spec(3, 4)],
        ShapeError,
        "reshape: an extent must not be negative: expected at least 0, got -3",
    ),
    "reshape of nothing to a scalar": (
        lambda a: moa.reshape([], a),
        [spec(0)],
        ShapeError,
        "reshape: the number of elements must stay: expected 0 (axis 0 of a), got 1",
    ),
    "reshape to a number": (
        lambda a: moa.reshape(12, a),
        [spec(3, 4)],
        ShapeError,
        "reshape expects a vector of static length as the shape, got tensor<i64>",
    ),
    "reshape to any rank": (
        lambda a, t: moa.reshape(t, a),
        [spec(3, 4), spec(None, dtype="i64")],
        ShapeError,
        "reshape expects a vector of static length as the shape, got tensor<?xi64>",
    ),
    "recycle of nothing": (
        lambda a: moa.recycle([2, 3], a),
        [spec(0, 4)],
        ShapeError,
        "recycle: an array without elements has none to repeat: expected at least 6, "
        "got 0",
    ),
    "recycle to a negative extent": (
        lambda a: moa.recycle([-1], a),
        [spec(4)],
        ShapeError,
        "recycle: an extent must not be negative: expected at least 0, got -1",
    ),
    "recycle to a number": (
        lambda a: moa.recycle(4, a),
        [spec(4)],
        ShapeError,
        "recycle expects a vector of static length as the shape, got tensor<i64>",
    ),
    "pad by more than there is": (
        lambda a: moa.pad([1, 5], [1, 1], a),
        [spec(3, 4)],
        ShapeError,
        "pad: the left count for axis 1 must not exceed the extent: expected at most "
        "4, got 5",
    ),
    "pad of an empty axis": (
        lambda a: moa.pad(0, 1, a),
        [spec(0, 4)],
        ShapeError,
        "pad: the right count for axis 0 must not exceed the extent: expected at most "
        "0, got 1",
    ),
    "pad by a negative count": (
        lambda a: moa.pad(1, -1, a),
        [spec(3, 4)],
        ShapeError,
        "pad: the right count for axis 0 must not be negative: expected at least 0, "
        "got -1",
    ),
    "pad by other counts on the right": (
        lambda a: moa.pad([1, 1], 1, a),
        [spec(3, 4)],
        ShapeError,
        "pad expects as many counts on the right as on the left: expected 2, got 1",
    ),
    "pad of more axes than there are": (
        lambda a: moa.pad([1, 1], [1, 1], a),
        [spec(3)],
        ShapeError,
        "pad: more counts than axes: expected at most 1, got 2",
    ),
    "pad by a float": (
        lambda a: moa.pad(1.5, 1, a),
        [spec(3)],
        DTypeError,
        "pad expects integers, got 1.5",
    ),
    "insert of a block that is too long": (
        moa.insert,
        [spec(dtype="i64"), spec(4, 4), spec(3, 4)],
        ShapeError,
        "insert: the block must not be longer than axis 0: expected at most 3, got 4",
    ),
    "insert of a block that is too narrow": (
        moa.insert,
        [spec(dtype="i64"), spec(2, 3), spec(3, 4)],
        ShapeError,
        "insert: extents of axis 1 must be equal: expected 4, got 3",
    ),
    "insert of a row": (
        moa.insert,
        [spec(dtype="i64"), spec(4), spec(3, 4)],
        ShapeError,
        "insert expects a block of the array's rank, got tensor<4xf64> for "
        "tensor<3x4xf64>",
    ),
    "insert beyond the end": (
        lambda b, a: moa.insert([1, 2], b, a),
        [spec(2, 3), spec(3, 4)],
        ShapeError,
        "insert: the block must not reach beyond axis 1: offset: expected at most 1, "
        "got 2",
    ),
    "insert at a negative offset": (
        lambda b, a: moa.insert(-1, b, a),
        [spec(2, 4), spec(None, 4)],
        ShapeError,
        "insert: the offset for axis 0 must not be negative: expected at least 0, "
        "got -1",
    ),
    "insert of another dtype": (
        lambda b, a: moa.insert(0, b, a),
        [spec(2, 4, dtype="f32"), spec(3, 4)],
        DTypeError,
        "insert: operands must have one element type, got f32, f64",
    ),
    "insert with more offsets than axes": (
        lambda b, a: moa.insert([0, 0], b, a),
        [spec(2), spec(3)],
        ShapeError,
        "insert: more counts than axes: expected at most 1, got 2",
    ),
    "compress by a mask that is too short": (
        lambda a: moa.compress([True, False], a),
        [spec(3, 4)],
        ShapeError,
        "compress: the mask must be as long as axis 0: expected 3 (axis 0 of a), got 2",
    ),
    "compress of a scalar": (
        lambda a: moa.compress([True], a),
        [spec()],
        ShapeError,
        "compress expects a vector and an array of rank 1 or more, got tensor<1xi1> "
        "and tensor<f64>",
    ),
    "expand by too many ones": (
        lambda a: moa.expand([True, True, False, True, True], a),
        [spec(3, 4)],
        ShapeError,
        "expand: the mask must hold as often as axis 0 is long: expected 3 (axis 0 of"
        " a), got 4",
    ),
    "expand by a table": (
        lambda a, v: moa.expand(v, a),
        [spec(3), spec(1, 3, dtype="i1")],
        ShapeError,
        "expand expects a vector and an array of rank 1 or more, got tensor<1x3xi1> "
        "and tensor<3xf64>",
    ),
    "grade of a matrix": (
        moa.grade_up,
        [spec(3, 4)],
        ShapeError,
        "grade expects a vector, got tensor<3x4xf64>",
    ),
    "grade of truth values": (
        moa.grade_down,
        [spec(3, dtype="i1")],
        DTypeError,
        "grade expects numbers, got tensor<3xi1>",
    ),
    "scan of a scalar": (
        lambda a: moa.scan("add", a),
        [spec()],
        ShapeError,
        "scan expects an array of rank 1 or more, got tensor<f64>",
    ),
    "scan by a comparison": (
        lambda a: moa.scan("lt", a),
        [spec(3)],
        DTypeError,
        "a fold needs a function from two f64 to f64, lt gives i1",
    ),
    "scan of truth values": (
        lambda a: moa.scan("add", a),
        [spec(3, dtype="i1")],
        DTypeError,
        "add: expected elements of kind float or int, got i1 (bool)",
    ),
}


@pytest.mark.parametrize("name", STATIC)
def test_errors_that_types_show(name: str) -> None:
    program, specs, error, message = STATIC[name]
    with pytest.raises(error) as caught:
        moa.jit(program).lower(*specs)
    assert without_sources(caught.value) == without_sources(message)


LEAST = -(2**63)
"""Of this number the absolute value is no i64."""


def table(*shape: int) -> Array:
    return np.arange(0.5, math.prod(shape) + 0.5).reshape(shape)


DATA: dict[str, tuple[Program, Sequence[Any], str]] = {
    "over-take": (
        lambda a: moa.take([3, 5], a),
        [table(3, 4)],
        "take: the count for axis 1 must not exceed the extent: expected at most 4 "
        "(axis 1 of arg0), got 5",
    ),
    "over-take by data": (
        lambda a, v: moa.take(v, a),
        [table(3, 4), np.array([3, -5])],
        "take: the count for axis 1 must not exceed the extent: expected at most 4 "
        "(axis 1 of arg0), got 5 (the absolute value of element 1 of arg1)",
    ),
    "over-take by i32": (
        lambda a, v: moa.take(v, a),
        [table(3, 4), np.array(-(2**31), np.int32)],
        "take: the count for axis 0 must not exceed the extent: expected at most 3 "
        "(axis 0 of arg0), got 2147483648 (the absolute value of arg1)",
    ),
    "over-take of nothing": (
        lambda a, v: moa.take(v, a),
        [table(0, 4), np.array(1)],
        "take: the count for axis 0 must not exceed the extent: expected at most 0 "
        "(axis 0 of arg0), got 1 (the absolute value of arg1)",
    ),
    "over-drop": (
        lambda a: moa.drop(-4, a),
        [table(3, 4)],
        "drop: the count for axis 0 must not exceed the extent: expected at most 3 "
        "(axis 0 of arg0), got 4",
    ),
    "over-drop by data": (
        lambda a, v: moa.drop(v, a),
        [table(3, 4), np.array([0, 5])],
        "drop: the count for axis 1 must not exceed the extent: expected at most 4 "
        "(axis 1 of arg0), got 5 (the absolute value of element 1 of arg1)",
    ),
    "take of what is dropped": (
        lambda a, v: moa.take(3, moa.drop(v, a)),
        [table(4), np.array(2)],
        "take: the count for axis 0 must not exceed the extent: expected at most 2 "
        "(axis 0 of arg0 - the absolute value of arg1), got 3",
    ),
    "cat of other extents": (
        moa.cat,
        [table(3, 4), table(2, 5)],
        "cat: extents of axis 1 must be equal: expected 4 (axis 1 of arg0), got 5 "
        "(axis 1 of arg1)",
    ),
    "reshape to other totals": (
        lambda a, t: moa.reshape(t, a),
        [table(3, 4), np.array([3, 5])],
        "reshape: the number of elements must stay: expected 12 (axis 0 of arg0 * "
        "axis 1 of arg0), got 15 (element 0 of arg1 * element 1 of arg1)",
    ),
    "reshape to a scalar": (
        lambda a: moa.reshape([], a),
        [table(3)],
        "reshape: the number of elements must stay: expected 3 (axis 0 of arg0), got 1",
    ),
    "reshape of nothing": (
        lambda a, t: moa.reshape(t, a),
        [table(0, 4), np.array([1, 1])],
        "reshape: the number of elements must stay: expected 0 (axis 0 of arg0 * axis"
        " 1 of arg0), got 1 (element 0 of arg1 * element 1 of arg1)",
    ),
    "reshape to negative extents": (
        lambda a, t: moa.reshape(t, a),
        [table(3, 4), np.array([-3, -4])],
        "reshape: an extent must not be negative: expected at least 0, got -3 "
        "(element 0 of arg1)",
    ),
    "reshape to a negative extent, later": (
        lambda a, t: moa.reshape(t, a),
        [table(3, 4), np.array([12, -1])],
        "reshape: an extent must not be negative: expected at least 0, got -1 "
        "(element 1 of arg1)",
    ),
    "recycle of nothing": (
        lambda a, t: moa.recycle(t, a),
        [table(0, 4), np.array([2, 3])],
        "recycle: an array without elements has none to repeat: expected at least 6, "
        "got 0",
    ),
    "recycle to negative extents": (
        lambda a, t: moa.recycle(t, a),
        [table(4), np.array([-2, -3])],
        "recycle: an extent must not be negative: expected at least 0, got -2",
    ),
    "pad by more than there is": (
        lambda a, v: moa.pad([1, 1], v, a),
        [table(3, 4), np.array([3, 5])],
        "pad: the right count for axis 1 must not exceed the extent: expected at most "
        "4, got 5",
    ),
    "pad by a negative count": (
        lambda a, v: moa.pad(v, [0, 0], a),
        [table(3, 4), np.array([0, -1])],
        "pad: the left count for axis 1 must not be negative: expected at least 0, "
        "got -1",
    ),
    "pad of an empty axis": (
        lambda a: moa.pad(1, 0, a),
        [table(0, 4)],
        "pad: the left count for axis 0 must not exceed the extent: expected at most "
        "0, got 1",
    ),
    "insert of a block that is too long": (
        lambda b, a: moa.insert(0, b, a),
        [table(4, 4), table(3, 4)],
        "insert: the block must not be longer than axis 0: expected at most 3, got 4",
    ),
    "insert beyond the end": (
        lambda b, a, v: moa.insert(v, b, a),
        [table(2, 3), table(3, 4), np.array([1, 2])],
        "insert: the block must not reach beyond axis 1: offset: expected at most 1, "
        "got 2",
    ),
    "insert at the largest offset there is": (
        lambda b, a, v: moa.insert(v, b, a),
        [table(2, 4), table(3, 4), np.array(2**63 - 1)],
        "insert: the block must not reach beyond axis 0: offset: expected at most 1, "
        f"got {2**63 - 1}",
    ),
    "insert at a negative offset": (
        lambda b, a, v: moa.insert(v, b, a),
        [table(2, 4), table(3, 4), np.array(LEAST)],
        "insert: the offset for axis 0 must not be negative: expected at least 0, "
        f"got {LEAST}",
    ),
    "compress by a mask that is too long": (
        lambda a, v: moa.compress(v, a),
        [table(3, 4), np.array([True] * 4)],
        "compress: the mask must be as long as axis 0: expected 3 (axis 0 of arg0), "
        "got 4 (axis 0 of arg1)",
    ),
    "expand by too few ones": (
        lambda a, v: moa.expand(v, a),
        [table(3, 4), np.array([True, False, True])],
        "expand: the mask must hold as often as axis 0 is long: expected 3 (axis 0 of"
        " arg0), got 2 (the number of true elements of arg1)",
    ),
    "expand of nothing by ones": (
        lambda a, v: moa.expand(v, a),
        [table(0), np.array([True])],
        "expand: the mask must hold as often as axis 0 is long: expected 0 (axis 0 of"
        " arg0), got 1 (the number of true elements of arg1)",
    ),
    "a fold of nothing": (
        lambda a, v: moa.reduce("sub", moa.compress(v, a)),
        [table(3), np.array([False] * 3)],
        "reduce: sub has no identity element, so the folded axis must not be empty: "
        "expected at least 1, got 0 (the number of true elements of arg1)",
    ),
}


def dynamic(array: Array) -> moa.ArraySpec:
    """A spec in which only counts and shapes have extents."""
    is_counts = array.dtype.kind == "i"
    shape = array.shape if is_counts else (None,) * array.ndim
    return moa.ArraySpec(shape, array.dtype)


def without_sources(message: object) -> str:
    """A message without where its numbers come from; `test_extents` is about that."""
    return re.sub(
        r" \((?:axis|element|the (?:value|absolute)) [^()]*\)", "", str(message)
    )


def check_error(
    program: Program, arrays: Sequence[Any], error: type[MoaError], message: str
) -> None:
    """The same error for data, at every stage."""
    arrays, expected = list(map(np.asarray, arrays)), without_sources(message)
    compiled = moa.jit(program).lower(*map(dynamic, arrays))
    for stage in STAGES:
        with pytest.raises(error) as caught:
            interpret_module(compiled.module(stage), "main", arrays)
        assert without_sources(caught.value) == expected
    with pytest.raises(error) as caught:
        compiled(*arrays)
    assert without_sources(caught.value) == expected


@pytest.mark.parametrize("name", DATA)
def test_errors_that_extents_and_data_show(name: str) -> None:
    program, arrays, message = DATA[name]

    def main(*traced: Any) -> Any:
        return call(program, *traced)

    check_error(main, arrays, ShapeError, message)


def test_what_is_within_bounds_is_no_error() -> None:
    """All counts at their bounds."""

    def main(a: Any, v: Any) -> Any:
        return moa.cat(moa.take(v, a), moa.drop(v, a))

    array = table(3, 4)
    compiled = moa.jit(main).lower(spec(None, None), spec(1, dtype="i64"))
    for count in (-3, 0, 3):
        wanted = cat(take([count], array), drop([count], array))
        check(compiled(array, np.array([count])), wanted, f"{count}")


@pytest.mark.parametrize("name", ["take", "drop"])
def test_the_count_without_an_absolute_value(name: str) -> None:
    def main(a: Any, v: Any) -> Any:
        return getattr(moa, name)(v, a)

    with pytest.raises(ShapeError, match=f"{name}: the count for axis 0 must not"):
        moa.jit(main).lower(spec(None), spec(dtype="i64"))(table(3), np.array(LEAST))


def test_a_total_that_is_no_i64() -> None:
    def main(a: Any, t: Any) -> Any:
        return moa.reshape(t, a)

    with pytest.raises(ShapeError, match="reshape: the number of elements must stay"):
        moa.jit(main).lower(spec(None), spec(2, dtype="i64"))(
            table(0), np.array([2**32, 2**32])
        )


CELLS: dict[str, tuple[Program, list[int]]] = {
    "expand": (lambda v, row: moa.expand(v != 0, row), [1, 1, 1, 1]),
    "take": (lambda v, row: moa.psi([0], moa.take(v, row)), [-4]),
    "drop": (lambda v, row: moa.psi([0], moa.drop(v, row)), [4]),
    "pad": (lambda v, row: moa.psi([0], moa.pad(v, [0], row)), [4]),
    "insert": (lambda v, row: moa.insert(v, [7.5], row), [2]),
}
BEYOND: dict[str, tuple[Program, list[int]]] = {
    "expand": (lambda v, row: moa.expand(v != 0, row), [1, 0, 0, 0]),
    "take": (lambda v, row: moa.psi([1], moa.take(v, row)), [-3]),
    "drop": (lambda v, row: moa.psi([0], moa.drop(v, row)), [-3]),
}
"""What is wrong as well, but reads nothing out of bounds."""


def in_cells(program: Program, counts: list[int]) -> tuple[moa.Compiled, list[Array]]:
    """A program for each row of a matrix of two columns and its counts."""

    def main(a: Any, v: Any) -> Any:
        return moa.omega(cast(Any, program), (1, 1), v, a)

    compiled = moa.jit(main).lower(spec(1, 2), spec(1, len(counts), dtype="i64"))
    return compiled, [table(1, 2), np.array([counts])]


@pytest.mark.parametrize("name", CELLS)
def test_nothing_out_of_bounds_is_read_in_cells(name: str) -> None:
    compiled, arrays = in_cells(*CELLS[name])
    for stage in STAGES:
        with pytest.raises(MoaError, match=f"^{name}: "):
            interpret_module(compiled.module(stage), "main", arrays)
    with pytest.raises(MoaError, match=f"^{name}: "):
        compiled(*arrays)


@pytest.mark.parametrize("name", CELLS)
def test_errors_in_cells_have_one_class(name: str) -> None:
    compiled, arrays = in_cells(*CELLS[name])
    for stage in STAGES:
        with pytest.raises(ShapeError):
            interpret_module(compiled.module(stage), "main", arrays)
    with pytest.raises(ShapeError):
        compiled(*arrays)


@pytest.mark.parametrize("name", BEYOND)
def test_errors_in_cells_that_read_nothing_wrong(name: str) -> None:
    compiled, arrays = in_cells(*BEYOND[name])
    with pytest.raises(ShapeError):
        interpret_module(compiled.module("moa"), "main", arrays)
    with pytest.raises(MoaError):
        compiled(*arrays)


KNOWN: dict[str, Program] = {
    "an extent": lambda a, b: moa.psi([3], moa.cat(moa.shape(a), moa.shape(b))),
    "a constant": lambda a, b: moa.psi([3], moa.cat([4.0, 2.0], moa.ravel(a))),
}


@pytest.mark.parametrize("name", KNOWN)
def test_cat_at_an_index_that_is_known(name: str) -> None:
    def main(a: Any, b: Any) -> Any:
        return call(KNOWN[name], a, b)

    arrays = [table(3, 4), table(5, 6)]
    compiled = moa.jit(main).lower(spec(None, None), spec(None, None))
    (expected,) = interpret_module(compiled.module("moa"), "main", arrays)
    for stage in STAGES:
        (result,) = interpret_module(compiled.module(stage), "main", arrays)
        check(result, expected, stage)
    check(compiled(*arrays), expected, "compiled")


def test_an_access_that_has_no_index() -> None:
    """The only index of its row would be 0, of an array without rows."""

    def main(p: Any, b: Any) -> Any:
        return moa.reshape([0], moa.psi(p, b))

    compiled = moa.jit(main).lower(spec(None, 1, dtype="i64"), spec(None, 0))
    arrays = [np.zeros((0, 1), np.int64), table(3, 0)]
    for stage in STAGES:
        (result,) = interpret_module(compiled.module(stage), "main", arrays)
        check(result, table(0), stage)


def test_an_index_beyond_what_a_cell_compresses() -> None:
    def cell(v: Any, row: Any) -> Any:
        return moa.psi([1], moa.compress(v, row))

    def main(a: Any, v: Any) -> Any:
        return moa.omega(cell, (1, 1), v, a)

    compiled = moa.jit(main).lower(spec(1, 2), spec(1, 2, dtype="i1"))
    with pytest.raises(IndexRangeError, match="expected less than 1, got 1"):
        compiled(table(1, 2), np.array([[False, True]]))
