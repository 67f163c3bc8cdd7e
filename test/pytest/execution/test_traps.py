"""Cases that array languages and compilers like this one are known to get wrong.

Each program is interpreted at every stage and compiled, for known and for unknown
extents, and compared with NumPy or with a loop in plain Python.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.errors import DTypeError, IndexRangeError, MoaError, ShapeError
from moa_dialect.interpreter import interpret_module
from moa_dialect.lowering.engine import entries
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

CONTEXT = Context()
register_dialects(CONTEXT)

STAGES = ("moa", "dnf", "fused", "onf")
Program = Callable[..., Any]


def table(*shape: int, dtype: str = "f8") -> np.ndarray:
    """Elements that differ, of values that are exact in every dtype."""
    return np.arange(1, math.prod(shape) + 1).reshape(shape).astype(dtype)


def lowered(program: Program, arrays: Sequence[Any], is_static: bool) -> moa.Compiled:
    """The program for such arrays; the length of an index, which is of integers, is
    always known.
    """
    specs = [
        moa.ArraySpec(
            a.shape
            if is_static
            else (None,) * (a.ndim - 1) + a.shape[-1:]
            if a.dtype == np.int64
            else (None,) * a.ndim,
            a.dtype,
        )
        for a in arrays
    ]
    return moa.jit(program).lower(*specs)


def agree(program: Program, expected: Any, *arrays: Any, rtol: float = 0) -> None:
    """All stages and the kernel give what is expected."""
    arrays = tuple(map(np.asarray, arrays))
    expected = np.asarray(expected)
    for is_static in (True, False):
        compiled = lowered(program, arrays, is_static)
        results: dict[str, Any] = {}
        for stage in STAGES:
            module = compiled.module(stage)
            (entry,) = entries(module)
            (results[stage],) = interpret_module(module, entry, arrays)
        results["compiled"] = compiled(*arrays)
        for stage, result in results.items():
            assert np.shape(result) == expected.shape, (stage, is_static)
            assert np.asarray(result).dtype == expected.dtype, (stage, is_static)
            np.testing.assert_allclose(
                result, expected, rtol=rtol, err_msg=f"{stage}, static: {is_static}"
            )


def refused(program: Program, kind: type[MoaError], message: str, *arrays: Any) -> None:
    """Known and unknown extents, interpreted and compiled: the same error."""
    arrays = tuple(map(np.asarray, arrays))
    for run in (
        lambda: moa.interpret(program, *arrays),
        lambda: moa.jit(program)(*arrays),
        lambda: lowered(program, arrays, is_static=False)(*arrays),
    ):
        with pytest.raises(kind) as caught:
            run()
        # Without where the numbers come from, which `test_extents` is about.
        assert message in re.sub(r" \(axis [^()]*\)", "", str(caught.value))


# Transposition: t says where an axis goes, not where it comes from.


def transposed(array: np.ndarray, t: Sequence[int]) -> np.ndarray:
    """`result[i] = array[i[t[0]], i[t[1]], ...]`, element by element."""
    extents = dict(zip(t, array.shape, strict=True))
    result = np.empty([extents[axis] for axis in range(array.ndim)], array.dtype)
    for index in np.ndindex(*result.shape):
        result[index] = array[tuple(index[axis] for axis in t)]
    return result


def test_a_transposition_of_three_axes_is_not_its_inverse() -> None:
    a = table(2, 3, 4)
    forward, back = transposed(a, [1, 2, 0]), transposed(a, [2, 0, 1])
    assert forward.shape != back.shape
    agree(lambda a: moa.transpose(a, [1, 2, 0]), forward, a)
    agree(lambda a: moa.transpose(a, [2, 0, 1]), back, a)
    agree(lambda a: moa.transpose(moa.transpose(a, [1, 2, 0]), [2, 0, 1]), a, a)
    thrice = lambda a: reduce(lambda x, _: moa.transpose(x, [1, 2, 0]), range(3), a)  # noqa: E731
    agree(thrice, a, a)


@pytest.mark.parametrize("t", list(itertools.permutations(range(4))))
def test_all_transpositions_of_four_axes(t: tuple[int, ...]) -> None:
    a = table(2, 3, 4, 5)
    agree(lambda a: moa.transpose(a, t), transposed(a, t), a)
    assert np.array_equal(transposed(a, t), np.transpose(a, np.argsort(t)))


# Products


def test_matrix_times_vector_and_vector_times_matrix() -> None:
    a, v, w = table(3, 4), table(4), table(3)
    agree(lambda a, v: moa.inner("add", "mul", a, v), a @ v, a, v)
    agree(lambda w, a: moa.inner("add", "mul", w, a), w @ a, w, a)
    agree(lambda w, a, v: w @ a @ v, w @ a @ v, w, a, v)
    agree(lambda v: moa.inner("add", "mul", v, v), v @ v, v)


def test_inner_of_higher_ranks() -> None:
    a, b = table(2, 3, 4), table(4, 5, 2)
    agree(lambda a, b: moa.inner("add", "mul", a, b), np.tensordot(a, b, 1), a, b)


def test_inner_folds_from_the_right() -> None:
    a, v = table(2, 3), table(3)
    products = a * v
    expected = products[:, 0] - (products[:, 1] - products[:, 2])
    agree(lambda a, v: moa.inner("sub", "mul", a, v), expected, a, v)


def test_outer_with_a_scalar_on_either_side_and_on_both() -> None:
    a, s = table(2, 3), np.float64(3)
    agree(lambda a, s: moa.outer("sub", a, s), a - s, a, s)
    agree(lambda s, a: moa.outer("sub", s, a), s - a, s, a)
    agree(lambda s, t: moa.outer("sub", s, t), np.asarray(s - 5.0), s, np.float64(5))
    agree(lambda a: moa.outer("sub", a, 3.0), a - 3, a)
    agree(lambda a: moa.outer("sub", 3.0, a), 3 - a, a)
    agree(lambda a, b: moa.outer("sub", a, b), np.subtract.outer(a, a + 1), a, a + 1)


# Right folds


FOLDS: dict[str, Callable[[float, float], float]] = {
    "sub": lambda x, y: x - y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
}


def folded(f: Callable[[float, float], float], numbers: Sequence[float]) -> float:
    value = numbers[-1]
    for number in reversed(numbers[:-1]):
        value = f(number, value)
    return value


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", FOLDS)
def test_folds_are_right_folds(name: str, length: int) -> None:
    v = np.array([1.5, 2.0, 0.5, 1.25, 3.0])[:length]
    numbers = v.tolist()
    expected = np.float64(folded(FOLDS[name], numbers))
    agree(lambda v: moa.reduce(name, v), expected, v, rtol=1e-14)
    prefixes = [folded(FOLDS[name], numbers[: k + 1]) for k in range(length)]
    agree(lambda v: moa.scan(name, v), np.array(prefixes), v, rtol=1e-14)


def test_a_fold_of_planes_is_one_fold_for_each_column() -> None:
    a = table(3, 2)
    agree(lambda a: moa.reduce("sub", a), a[0] - (a[1] - a[2]), a)
    agree(lambda a: moa.reduce("sub", moa.reduce("sub", a)), np.float64(3 - 4), a)


# Names


def test_more_than_ten_indices_have_names_of_their_own() -> None:
    a, b = table(1, 2, 1, 2, 1, 2), table(2, 1, 2, 1, 2, 1) * 10
    program = lambda a, b: moa.outer("add", a, b)  # noqa: E731
    agree(program, np.add.outer(a, b), a, b)
    compiled = lowered(program, [a, b], is_static=False)
    found = re.search(r"∀ [^<]*<([^>]*)> <", compiled.notation("dnf"))
    assert found is not None
    names = found[1].split()
    assert len(names) == len(set(names)) == 12
    for ascii in (True, False):
        assert compiled.notation("dnf", ascii=ascii) == compiled.notation(
            "dnf", ascii=ascii
        )


def test_more_than_ten_folds_side_by_side_and_inside_each_other() -> None:
    shape = (2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1)
    a = table(*shape)

    def program(a: Any) -> Any:
        for _ in shape:
            a = moa.reduce("add", a)
        return a

    agree(program, np.float64(a.sum()), a)
    v = table(3)

    def siblings(v: Any) -> Any:
        total = moa.reduce("add", v)
        for n in range(1, 12):
            total = total + moa.reduce("max", v * float(n))
        return total

    agree(siblings, np.float64(6 + sum(3 * n for n in range(1, 12))), v)


@pytest.mark.parametrize("stage", [*STAGES, "target"])
def test_what_is_printed_with_many_names_can_be_read(stage: str) -> None:
    a = table(1, 2, 1, 2, 1, 2)
    text = lowered(lambda a: moa.outer("mul", a, a), [a], False).text(stage)
    again = ModuleParser(CONTEXT, text).parse_module()
    again.verify()
    assert str(again).strip() == text.strip()
    if stage != "target":
        (result,) = interpret_module(again, entries(again)[0], [a])
        np.testing.assert_array_equal(result, np.multiply.outer(a, a))


# Indices out of range


OUT_OF_RANGE = {
    "psi": ([3], "expected less than 3, got 3"),
    "psi of a column": ([0, 4], "expected less than 4, got 4"),
    "psi negative": ([-1], "expected at least 0, got -1"),
    "psi of a column, negative": ([1, -1], "expected at least 0, got -1"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_an_index_out_of_range_is_an_error(name: str) -> None:
    index, message = OUT_OF_RANGE[name]
    a = table(3, 4)
    refused(lambda a: moa.psi(index, a), IndexRangeError, message, a)
    refused(lambda a, i: moa.psi(i, a), IndexRangeError, message, a, np.array(index))
    refused(
        lambda a, p: moa.psi(p, a),
        IndexRangeError,
        message,
        a,
        np.array([[0, 0], [*index, 0][:2]]),
    )


def test_an_index_into_an_empty_axis_is_an_error() -> None:
    message = "expected less than 0, got 0"
    refused(lambda a: moa.psi([0], a), IndexRangeError, message, table(0, 2))


def test_the_last_index_is_no_error() -> None:
    a = table(3, 4)
    agree(lambda a: moa.psi([2, 3], a), a[2, 3], a)
    agree(lambda a, i: moa.psi(i, a), a[2], a, np.array([2]))


# Empty extents


EMPTY: dict[str, tuple[Program, Callable[..., Any], list[tuple[int, ...]]]] = {
    "cat before": (moa.cat, lambda a, b: np.concatenate([a, b]), [(0, 2), (3, 2)]),
    "cat after": (moa.cat, lambda a, b: np.concatenate([a, b]), [(3, 2), (0, 2)]),
    "cat both": (moa.cat, lambda a, b: np.concatenate([a, b]), [(0, 2), (0, 2)]),
    "cat of empty planes": (moa.cat, lambda a, b: np.zeros((5, 0)), [(2, 0), (3, 0)]),
    "cat with a scalar": (
        lambda a: moa.cat(a, 1.0),
        lambda a: np.ones((1, 2)),
        [(0, 2)],
    ),
    "take none": (lambda a: moa.take(0, a), lambda a: a[:0], [(3, 2)]),
    "take none of columns": (
        lambda a: moa.take([2, 0], a),
        lambda a: a[:2, :0],
        [(3, 2)],
    ),
    "take of none": (lambda a: moa.take(0, a), lambda a: a, [(0, 2)]),
    "drop all": (lambda a: moa.drop(3, a), lambda a: a[3:], [(3, 2)]),
    "drop all from the end": (lambda a: moa.drop(-3, a), lambda a: a[3:], [(3, 2)]),
    "drop of none": (lambda a: moa.drop(0, a), lambda a: a, [(0, 2)]),
    "reverse": (moa.reverse, lambda a: a, [(0, 2)]),
    "rotate": (lambda a: moa.rotate(2, a), lambda a: a, [(0, 2)]),
    "rotate of empty planes": (lambda a: moa.rotate(-1, a), lambda a: a, [(2, 0)]),
    "transpose": (moa.transpose, np.transpose, [(0, 2, 3)]),
    "general transpose": (
        lambda a: moa.transpose(a, [1, 2, 0]),
        lambda a: np.transpose(a, (2, 0, 1)),
        [(2, 0, 3)],
    ),
    "reshape": (
        lambda a: moa.reshape([3, 0, 2], a),
        lambda a: np.zeros((3, 0, 2)),
        [(0, 2)],
    ),
    "ravel": (moa.ravel, np.ravel, [(2, 0)]),
    "reduce add": (lambda a: moa.reduce("add", a), lambda a: np.zeros(2), [(0, 2)]),
    "reduce mul": (lambda a: moa.reduce("mul", a), lambda a: np.ones(2), [(0, 2)]),
    "reduce max": (
        lambda a: moa.reduce("max", a),
        lambda a: np.full(2, -np.inf),
        [(0, 2)],
    ),
    "reduce of empty planes": (
        lambda a: moa.reduce("sub", a),
        lambda a: np.zeros(0),
        [(2, 0)],
    ),
    "scan": (lambda a: moa.scan("sub", a), lambda a: a, [(0, 2)]),
    "scan of empty planes": (lambda a: moa.scan("add", a), lambda a: a, [(2, 0)]),
    "inner": (lambda a, b: moa.inner("add", "mul", a, b), np.matmul, [(2, 0), (0, 3)]),
    "inner min": (
        lambda a, b: moa.inner("min", "add", a, b),
        lambda a, b: np.full((2, 3), np.inf),
        [(2, 0), (0, 3)],
    ),
    "inner of no rows": (
        lambda a, b: moa.inner("add", "mul", a, b),
        np.matmul,
        [(0, 2), (2, 3)],
    ),
    "outer": (lambda a, b: moa.outer("mul", a, b), np.multiply.outer, [(2, 0), (3,)]),
    "outer with a scalar": (
        lambda a, b: moa.outer("mul", a, b),
        np.multiply,
        [(0,), ()],
    ),
    "omega": (
        lambda a: moa.omega(lambda r: moa.reduce("add", r), 1, a),
        lambda a: a.sum(1),
        [(3, 0)],
    ),
    "omega over nothing": (
        lambda a: moa.omega(lambda r: moa.reduce("sub", r), 1, a),
        lambda a: np.zeros(0),
        [(0, 3)],
    ),
    "pointwise": (lambda a, b: a + b, np.add, [(0, 2), (0, 2)]),
    "psi by no index": (lambda a: moa.psi([], a), lambda a: a, [(0, 2)]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_extents(name: str) -> None:
    program, expected, shapes = EMPTY[name]
    arrays = [table(*shape) for shape in shapes]
    agree(program, expected(*arrays), *arrays)


@pytest.mark.parametrize("name", ["sub", "div", "pow"])
def test_a_fold_without_identity_over_nothing_is_an_error(name: str) -> None:
    message = f"{name} has no identity element"
    a, b = table(0, 2), table(2, 0)
    refused(lambda a: moa.reduce(name, a), ShapeError, message, a)
    refused(lambda b, a: moa.inner(name, "mul", b, a), ShapeError, message, b, a)


# Scalars


S, T = np.float64(3), np.float64(5)
SCALARS: dict[str, tuple[Program, Any, list[Any]]] = {
    "psi": (lambda s: moa.psi([], s), S, [S]),
    "shape": (moa.shape, np.zeros(0, np.int64), [S]),
    "dim": (moa.dim, np.int64(0), [S]),
    "total": (moa.total, np.int64(1), [S]),
    "transpose": (moa.transpose, S, [S]),
    "transpose by <>": (lambda s: moa.transpose(s, []), S, [S]),
    "take nothing": (lambda s: moa.take([], s), S, [S]),
    "drop nothing": (lambda s: moa.drop([], s), S, [S]),
    "cat left": (moa.cat, np.array([3.0, 1.0, 2.0]), [S, table(2)]),
    "cat right": (moa.cat, np.array([1.0, 2.0, 3.0]), [table(2), S]),
    "cat both": (moa.cat, np.array([3.0, 5.0]), [S, T]),
    "reverse": (moa.reverse, S, [S]),
    "reshape to <1 1>": (lambda s: moa.reshape([1, 1], s), np.array([[3.0]]), [S]),
    "reshape to <>": (lambda a: moa.reshape([], a), S, [np.array([[3.0]])]),
    "ravel": (moa.ravel, np.array([3.0]), [S]),
    "pointwise left": (lambda s, a: s - a, 3 - table(2, 2), [S, table(2, 2)]),
    "pointwise right": (lambda a, s: a - s, table(2, 2) - 3, [table(2, 2), S]),
    "pointwise both": (lambda s, t: s - t, np.float64(-2), [S, T]),
    "map": (lambda s: -s, np.float64(-3), [S]),
    "cast": (lambda s: moa.cast(s, "i64"), np.int64(3), [S]),
    "where": (lambda s, t: moa.where(s < t, s, t), S, [S, T]),
    "where of arrays": (
        lambda s, t, a: moa.where(a > s, t, a),
        np.array([1.0, 2.0, 3.0, 5.0]),
        [S, T, table(4)],
    ),
    "outer both": (lambda s, t: moa.outer("mul", s, t), np.float64(15), [S, T]),
    "omega by name": (
        lambda a, s: moa.omega("sub", (1, 0), a, s),
        table(3) - 3,
        [table(3), S],
    ),
    "omega of a cell": (lambda s: moa.omega(lambda x: x + x, 0, s), np.float64(6), [S]),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_where_an_operation_takes_them(name: str) -> None:
    program, expected, arrays = SCALARS[name]
    agree(program, expected, *arrays)


NO_SCALARS: dict[str, tuple[Program, type[MoaError], list[Any]]] = {
    "reduce": (lambda s: moa.reduce("add", s), ShapeError, [S]),
    "scan": (lambda s: moa.scan("add", s), ShapeError, [S]),
    "inner left": (
        lambda s, a: moa.inner("add", "mul", s, a),
        ShapeError,
        [S, table(2)],
    ),
    "inner right": (
        lambda a, s: moa.inner("add", "mul", a, s),
        ShapeError,
        [table(2), S],
    ),
    "rotate": (lambda s: moa.rotate(1, s), ShapeError, [S]),
    "take": (lambda s: moa.take(1, s), ShapeError, [S]),
    "drop": (lambda s: moa.drop(1, s), ShapeError, [S]),
    "compress": (lambda s: moa.compress([True], s), ShapeError, [S]),
    "expand": (lambda s: moa.expand([True], s), ShapeError, [S]),
    "grade_up": (moa.grade_up, ShapeError, [S]),
    "grade_down": (moa.grade_down, ShapeError, [S]),
    "psi": (lambda s: moa.psi([0], s), ShapeError, [S]),
    "psi by a scalar": (
        lambda a, i: moa.psi(i, a),
        ShapeError,
        [table(2), np.int64(0)],
    ),
    "reshape by a scalar": (lambda a: moa.reshape(2, a), ShapeError, [table(2)]),
    "rotate by a vector": (lambda a: moa.rotate([1], a), ShapeError, [table(2)]),
    "take by a matrix": (lambda a: moa.take([[1]], a), ShapeError, [table(2)]),
    "take by floats": (lambda a, s: moa.take(s, a), DTypeError, [table(3), S]),
    "omega cell": (lambda s: moa.omega(lambda x: x, 1, s), ShapeError, [S]),
}


@pytest.mark.parametrize("name", NO_SCALARS)
def test_scalars_where_an_operation_does_not_take_them(name: str) -> None:
    program, kind, arrays = NO_SCALARS[name]
    refused(program, kind, re.split(r"[ _]", name)[0], *arrays)


# Views


def test_one_operand_under_two_views() -> None:
    a = table(3, 4)
    agree(lambda a: moa.transpose(a) @ a, a.T @ a, a)
    agree(lambda a: a @ moa.transpose(a), a @ a.T, a)
    agree(lambda a: moa.cat(a, moa.reverse(a)), np.concatenate([a, a[::-1]]), a)
    agree(
        lambda a: moa.rotate(1, a) - moa.rotate(-1, a),
        np.roll(a, -1, 0) - np.roll(a, 1, 0),
        a,
    )
    square = table(3, 3)
    agree(lambda a: a - moa.transpose(a), square - square.T, square)


def test_a_partial_index_of_a_transposed_array() -> None:
    a = table(2, 3, 4)
    agree(lambda a: moa.psi([1], moa.transpose(a)), a.T[1], a)
    agree(lambda a: moa.transpose(moa.psi([1], a)), a[1].T, a)
    agree(lambda a: moa.transpose(moa.psi([1], moa.transpose(a))), a[:, :, 1], a)
    agree(lambda a: moa.psi([3, 2], moa.transpose(a)), a[:, 2, 3], a)
    agree(lambda a: moa.psi([2], moa.transpose(a, [1, 0, 2])), a[:, 2], a)


# The loops that are derived


def loops(program: Program, *shapes: tuple[int | None, ...]) -> Counter[str]:
    """How often each operation is in the operational normal form."""
    compiled = moa.jit(program).lower(*map(moa.ArraySpec, shapes))
    return Counter(op.name for op in compiled.module("onf").walk())


CHOICES = ("scf.if", "arith.select", "arith.cmpi")
DIVISIONS = ("arith.divui", "arith.remui")

M, N = (4, 6), (None, None)
COPIES: dict[str, tuple[Program, tuple[int | None, ...], int]] = {
    "take": (lambda a: moa.take([2, -3], a), M, 2),
    "drop": (lambda a: moa.drop([1, -2], a), M, 2),
    "reverse": (moa.reverse, M, 2),
    "reverse of reverse": (lambda a: moa.reverse(moa.reverse(a)), M, 2),
    "transpose": (moa.transpose, M, 2),
    "take of reverse of drop": (
        lambda a: moa.take(2, moa.reverse(moa.drop(1, a))),
        M,
        2,
    ),
    "transpose of reverse of transpose of take": (
        lambda a: moa.transpose(moa.reverse(moa.transpose(moa.take(-2, a)))),
        M,
        2,
    ),
    "general transpose of drop of reverse": (
        lambda a: moa.transpose(moa.drop(1, moa.reverse(a)), [1, 2, 0]),
        (3, 4, 5),
        3,
    ),
    "psi of reverse": (lambda a: moa.psi([1], moa.reverse(a)), M, 1),
    "psi of transpose of drop": (
        lambda a: moa.psi([1], moa.transpose(moa.drop(1, a))),
        M,
        1,
    ),
    "ravel": (moa.ravel, M, 1),
    "ravel of drop of planes": (lambda a: moa.ravel(moa.drop(2, a)), (4, 3, 2), 1),
    "reshape of ravel": (lambda a: moa.reshape([3, 8], moa.ravel(a)), M, 2),
    "reshape of drop": (lambda a: moa.reshape([2, 3], moa.drop(2, a)), (8,), 2),
    "reshape of reverse": (lambda a: moa.reshape([2, 3], moa.reverse(a)), (6,), 2),
    "reshape to other rows": (lambda a: moa.reshape([2, 12], a), M, 2),
    "reshape that splits an axis": (lambda a: moa.reshape([2, 2, 6], a), M, 3),
    "transpose of reshape": (
        lambda a: moa.transpose(moa.reshape([2, 2, 2, 3], a), [0, 2, 1, 3]),
        M,
        4,
    ),
}


ROW_MUST_BE_KNOWN = ("reshape that splits an axis", "transpose of reshape")
"""Whether the extents divide each other decides: with unknown ones they divide."""


@pytest.mark.parametrize(
    ("name", "is_static"),
    [
        (name, is_static)
        for name in COPIES
        for is_static in (True, False)
        if is_static or name not in ROW_MUST_BE_KNOWN
    ],
)
def test_a_chain_is_one_strided_copy(name: str, is_static: bool) -> None:
    """One nest of loops, one load and one store, no choice and no division."""
    program, shape, rank = COPIES[name]
    known = shape if is_static else (None,) * len(shape)
    counts = loops(program, known)
    assert counts["moa.loop"] == rank
    assert counts["moa.load"] == counts["moa.store"] == 1
    assert not any(counts[choice] for choice in (*CHOICES, *DIVISIONS))
    assert counts["moa.buffer"] == 0


@pytest.mark.parametrize("name", COPIES)
def test_a_chain_that_is_one_copy_copies_the_right_elements(name: str) -> None:
    program, shape, _ = COPIES[name]
    a = table(*(extent or 0 for extent in shape))
    agree(program, moa.interpret(program, a), a)


CATS: dict[str, tuple[Program, list[tuple[int | None, ...]], int]] = {
    "cat": (moa.cat, [N, N], 2),
    "cat of cat": (lambda a, b: moa.cat(moa.cat(a, b), a), [N, N], 3),
    "reverse of cat": (lambda a, b: moa.reverse(moa.cat(a, b)), [N, N], 2),
    "transpose of cat": (lambda a, b: moa.transpose(moa.cat(a, b)), [N, N], 2),
    "take of drop of cat": (
        lambda a, b: moa.take(3, moa.drop(1, moa.cat(a, b))),
        [M, M],
        2,
    ),
}


@pytest.mark.parametrize("name", CATS)
def test_cat_splits_the_domain(name: str) -> None:
    """A copy for each part; nothing is asked for each element."""
    program, shapes, parts = CATS[name]
    counts = loops(program, *shapes)
    assert counts["moa.load"] == counts["moa.store"] == parts
    assert not any(counts[choice] for choice in CHOICES)
    assert counts["moa.buffer"] == 0


ROTATIONS: dict[str, Program] = {
    "rotate": lambda a: moa.rotate(2, a),
    "reverse of rotate": lambda a: moa.reverse(moa.rotate(2, a)),
    "rotate of reverse": lambda a: moa.rotate(-1, moa.reverse(a)),
    "take of rotate": lambda a: moa.take(3, moa.rotate(1, a)),
}


@pytest.mark.parametrize("shape", [M, N])
@pytest.mark.parametrize("name", ROTATIONS)
def test_rotate_splits_the_domain(name: str, shape: tuple[int | None, ...]) -> None:
    """Two copies; the count is brought into range in front of them."""
    compiled = moa.jit(ROTATIONS[name]).lower(moa.ArraySpec(shape))
    inside: Counter[str] = Counter()
    for op in compiled.module("onf").walk():
        if op.name == "moa.loop":
            inside.update(inner.name for inner in op.walk() if inner is not op)
    assert inside["moa.load"] > 0
    assert not any(inside[choice] for choice in (*CHOICES, *DIVISIONS))
    assert loops(ROTATIONS[name], shape)["moa.load"] == 2


@pytest.mark.parametrize(
    ("program", "start", "count", "stride"),
    [
        (lambda a: moa.psi([1], a), 6, 6, 1),
        (lambda a: moa.psi([2], moa.transpose(a)), 2, 4, 6),
        (lambda a: moa.psi([1], moa.reverse(a)), 12, 6, 1),
        (lambda a: moa.reverse(moa.psi([1], a)), 11, 6, -1),
        (lambda a: moa.psi([1], moa.drop(2, a)), 18, 6, 1),
        (lambda a: moa.reverse(moa.psi([5], moa.transpose(moa.drop(1, a)))), 23, 3, -6),
    ],
)
def test_a_partial_index_is_start_count_and_stride(
    program: Program, start: int, count: int, stride: int
) -> None:
    """The Psi Correspondence Theorem: what the loop reads, by the text of its access."""
    compiled = moa.jit(program).lower(moa.ArraySpec(M))
    (loop,) = [op for op in compiled.module("onf").walk() if op.name == "moa.loop"]
    (load,) = [op for op in loop.walk() if op.name == "moa.load"]
    assert constant_value(load.start) == start  # pyright: ignore
    (index,), (step,) = load.indices, load.strides  # pyright: ignore
    assert index is loop.body.block.args[0]  # pyright: ignore
    first, last = constant_value(loop.start), constant_value(loop.stop)  # pyright: ignore
    assert (first, last) == (0, count)
    assert constant_value(step) == stride
    a = table(*M)
    expected = a.ravel()[[start + k * stride for k in range(count)]]
    agree(program, expected, a)


def constant_value(value: Any) -> int:
    """A value of index arithmetic on constants and known extents."""
    op = value.owner
    match op.name:
        case "arith.constant":
            return op.value.value.data
        case "moa.extent":
            return op.operands[0].type.get_shape()[op.properties["axis"].value.data]
        case "arith.addi":
            return constant_value(op.lhs) + constant_value(op.rhs)
        case "arith.subi":
            return constant_value(op.lhs) - constant_value(op.rhs)
        case "arith.muli":
            return constant_value(op.lhs) * constant_value(op.rhs)
        case _:
            raise AssertionError(f"not constant: {op}")
