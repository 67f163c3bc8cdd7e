"""Symbolic extents: one kernel for all extents, guards, and the errors they raise."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.dialect import ALGEBRA
from moa_dialect.frontend.jit import STAGES
from moa_dialect.interpreter import interpret_module

Spec = moa.ArraySpec
INTERPRETED = STAGES[: STAGES.index("target")]


@dataclass(frozen=True)
class Case:
    """A program around one operation, whose extents only the call tells.

    Attributes:
        program: it takes arrays.
        specs: the arguments' extents by name, and their dtypes.
        calls: arrays of different extents, all within the preconditions.
        broken: arrays that violate a precondition, and the error's text.
    """

    program: Callable[..., Any]
    specs: Sequence[moa.ArraySpec]
    calls: Sequence[Sequence[np.ndarray]]
    broken: tuple[Sequence[np.ndarray], str]


def table(*shape: int) -> np.ndarray:
    return np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)


def mask(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def vector(*entries: int) -> np.ndarray:
    return np.array(entries, np.int64)


def scalar(value: int) -> np.ndarray:
    return np.array(value, np.int64)


A = Spec(("n", "m"))
B = Spec(("n", "m"))
V = Spec(("n",))
TWO_TABLES = ((table(2, 3), table(2, 3)), (table(5, 1), table(5, 1)))
OTHER_ROWS = (
    (table(2, 3), table(4, 3)),
    "extent n: axis 0 of b must equal axis 0 of a: expected 2, got 4",
)
OTHER_LENGTH = (
    (table(2), table(3)),
    "extent n: axis 0 of w must equal axis 0 of v: expected 2, got 3",
)
TWO_VECTORS = ((table(2), table(2)), (table(5), table(5)))


def with_equal(op: Callable[[Any], Any], needs: str = "vector") -> Case:
    """A case of an operation without precondition: of the sum of two arguments."""
    if needs == "vector":
        return Case(lambda v, w: op(v + w), (V, V), TWO_VECTORS, OTHER_LENGTH)
    return Case(lambda a, b: op(a + b), (A, B), TWO_TABLES, OTHER_ROWS)


CASES: dict[str, Case] = {
    "constant": with_equal(lambda a: a + 3.0, "table"),
    "iota": Case(
        lambda k, v: moa.iota(k) + moa.iota(moa.psi([0], moa.shape(v))),
        (Spec((), "i64"), V),
        ((scalar(3), table(3)), (scalar(5), table(5))),
        (
            (scalar(4), table(3)),
            "add: extents of axis 0 must be equal: expected 4 (the value of k), "
            "got 3 (n, axis 0 of v)",
        ),
    ),
    "shape": with_equal(lambda a: moa.shape(a), "table"),
    "dim": with_equal(lambda a: moa.dim(a), "table"),
    "total": with_equal(lambda a: moa.total(a), "table"),
    "psi": Case(
        lambda a: moa.psi([1], a),
        (A,),
        ((table(2, 3),), (table(4, 1),)),
        (
            (table(1, 3),),
            "psi: index entry 0 out of range of axis 0: expected less than 1 "
            "(n, axis 0 of a), got 1",
        ),
    ),
    "take": Case(
        lambda v, a: moa.take(v, a),
        (Spec((1,), "i64"), A),
        ((vector(2), table(3, 2)), (vector(-1), table(1, 4))),
        (
            (vector(-4), table(3, 2)),
            "take: the count for axis 0 must not exceed the extent: expected at most 3 "
            "(n, axis 0 of a), got 4 (the absolute value of element 0 of v)",
        ),
    ),
    "drop": Case(
        lambda v, a: moa.drop(v, a),
        (Spec((1,), "i64"), A),
        ((vector(2), table(3, 2)), (vector(-1), table(1, 4))),
        (
            (vector(4), table(3, 2)),
            "drop: the count for axis 0 must not exceed the extent: expected at most 3 "
            "(n, axis 0 of a), got 4 (the absolute value of element 0 of v)",
        ),
    ),
    "cat": Case(
        lambda a, b, c: moa.cat(a, b) + c,
        (Spec(("n", "k")), Spec(("m", "k")), Spec((None, "k"))),
        (
            (table(2, 3), table(1, 3), table(3, 3)),
            (table(0, 2), table(4, 2), table(4, 2)),
        ),
        (
            (table(2, 3), table(1, 3), table(4, 3)),
            "add: extents of axis 0 must be equal: expected 3 "
            "(n + m, axis 0 of a + axis 0 of b), got 4 (axis 0 of c)",
        ),
    ),
    "reverse": with_equal(moa.reverse),
    "rotate": with_equal(lambda v: moa.rotate(1, v)),
    "transpose": Case(
        lambda a, b: moa.transpose(a) + b,
        (A, Spec((None, "n"))),
        ((table(2, 3), table(3, 2)), (table(4, 1), table(1, 4))),
        (
            (table(2, 3), table(2, 2)),
            "add: extents of axis 0 must be equal: expected 3 (m, axis 1 of a), "
            "got 2 (axis 0 of b)",
        ),
    ),
    "reshape": Case(
        lambda t, a: moa.reshape(t, a),
        (Spec((2,), "i64"), A),
        ((vector(3, 2), table(2, 3)), (vector(1, 4), table(2, 2))),
        (
            (vector(2, 4), table(2, 3)),
            "reshape: the number of elements must stay: expected 6 "
            "(n * m, axis 0 of a * axis 1 of a), got 8 (element 0 of t * element 1 of t)",
        ),
    ),
    "ravel": Case(
        lambda a, v: moa.ravel(a) + v,
        (A, Spec((None,))),
        ((table(2, 3), table(6)), (table(4, 1), table(4))),
        (
            (table(2, 3), table(5)),
            "add: extents of axis 0 must be equal: expected 6 "
            "(n * m, axis 0 of a * axis 1 of a), got 5 (axis 0 of v)",
        ),
    ),
    "compress": Case(
        lambda u, a: moa.compress(u, a),
        (Spec((None,), "i1"), A),
        ((mask("101"), table(3, 2)), (mask("1"), table(1, 4))),
        (
            (mask("10"), table(3, 2)),
            "compress: the mask must be as long as axis 0: expected 3 "
            "(n, axis 0 of a), got 2 (axis 0 of u)",
        ),
    ),
    "expand": Case(
        lambda u, a: moa.expand(u, a),
        (Spec(("k",), "i1"), A),
        ((mask("0101"), table(2, 3)), (mask("1"), table(1, 2))),
        (
            (mask("0111"), table(2, 3)),
            "expand: the mask must hold as often as axis 0 is long: expected 2 "
            "(n, axis 0 of a), got 3 (the number of true elements of u)",
        ),
    ),
    "grade_up": with_equal(moa.grade_up),
    "grade_down": with_equal(moa.grade_down),
    "pointwise": Case(
        lambda a, b: a * b,
        (A, Spec(("n", None))),
        TWO_TABLES,
        (
            (table(2, 3), table(2, 4)),
            "mul: extents of axis 1 must be equal: expected 3 (m, axis 1 of a), "
            "got 4 (axis 1 of b)",
        ),
    ),
    "map": with_equal(moa.sqrt, "table"),
    "cast": with_equal(lambda a: moa.cast(a, "f32"), "table"),
    "where": Case(
        lambda u, v: moa.where(u, v, 0.0),
        (Spec(("k",), "i1"), V),
        ((mask("101"), table(3)), (mask("1"), table(1))),
        (
            (mask("10"), table(3)),
            "where: extents of axis 0 must be equal: expected 2 (k, axis 0 of u), "
            "got 3 (n, axis 0 of v)",
        ),
    ),
    "reduce": Case(
        lambda a: moa.reduce("sub", a),
        (A,),
        ((table(2, 3),), (table(4, 1),)),
        (
            (table(0, 3),),
            "reduce: sub has no identity element, so the folded axis must not be "
            "empty: expected at least 1, got 0 (n, axis 0 of a)",
        ),
    ),
    "scan": with_equal(lambda v: moa.scan("add", v)),
    "outer": Case(
        lambda v, w, a: moa.outer("mul", v, w) + a,
        (V, Spec(("m",)), Spec((None, "m"))),
        ((table(2), table(3), table(2, 3)), (table(4), table(1), table(4, 1))),
        (
            (table(2), table(3), table(3, 3)),
            "add: extents of axis 0 must be equal: expected 2 (n, axis 0 of v), "
            "got 3 (axis 0 of a)",
        ),
    ),
    "inner": Case(
        lambda a, b: moa.inner("add", "mul", a, b),
        (A, Spec((None, "d"))),
        ((table(2, 3), table(3, 4)), (table(4, 1), table(1, 2))),
        (
            (table(2, 3), table(2, 4)),
            "inner: the last extent of the left operand must equal the first of the "
            "right: expected 3 (m, axis 1 of a), got 2 (axis 0 of b)",
        ),
    ),
    "omega": Case(
        lambda a, b: moa.omega(
            lambda x, y: moa.inner("add", "mul", x, y), (1, 1), a, b
        ),
        (A, Spec(("n", None))),
        TWO_TABLES,
        (
            (table(2, 3), table(2, 4)),
            "inner: the last extent of the left operand must equal the first of the "
            "right: expected 3 (m, axis 1 of a), got 4 (axis 1 of b)",
        ),
    ),
}
"""A case for each operation of the algebra, by the operation's name."""

NOT_WRITTEN = {"cell"}
"""Operations that only the compiler writes, in the normal form of omega."""


def as_tuple(results: Any) -> tuple[np.ndarray, ...]:
    return results if isinstance(results, tuple) else (results,)


def test_every_operation_has_a_case() -> None:
    names = {op.name.removeprefix("moa.") for op in ALGEBRA}
    assert names == {*CASES} | NOT_WRITTEN


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("are_named", [True, False])
def test_one_kernel_for_all_extents(name: str, are_named: bool) -> None:
    case = CASES[name]
    specs = case.specs
    if not are_named:
        specs = [
            Spec(tuple(e if isinstance(e, int) else None for e in s.shape), s.dtype)
            for s in specs
        ]
    compiled = moa.jit(case.program).lower(*specs)
    written = {op.name for op in compiled.module("moa").walk()}
    assert f"moa.{name}" in written
    for arrays in case.calls:
        wanted = as_tuple(moa.interpret(case.program, *arrays))
        for given, expected in zip(as_tuple(compiled(*arrays)), wanted, strict=True):
            assert given.dtype == expected.dtype
            np.testing.assert_allclose(given, expected, rtol=1e-6, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_a_violated_requirement_names_arguments_and_extents(name: str) -> None:
    case = CASES[name]
    arrays, message = case.broken
    compiled = moa.jit(case.program).lower(*case.specs)
    for stage in INTERPRETED:
        with pytest.raises((moa.ShapeError, moa.IndexRangeError)) as caught:
            interpret_module(compiled.module(stage), "main", arrays)
        assert str(caught.value) == message, stage
    with pytest.raises((moa.ShapeError, moa.IndexRangeError)) as caught:
        compiled(*arrays)
    assert str(caught.value) == message


# Names


def guards(compiled: Any) -> list[str]:
    return [
        op.properties["message"].data
        for op in compiled.module("dnf").walk()
        if op.name == "moa.require"
    ]


def test_what_names_settle_is_not_required_again() -> None:
    compiled = moa.jit(lambda a, b: a @ b).lower(Spec(("n", "m")), Spec(("m", "d")))
    assert guards(compiled) == ["extent m: axis 0 of b must equal axis 1 of a"]
    nothing = moa.jit(lambda a, b: a @ b).lower(Spec(("n", 3)), Spec((3, "d")))
    assert guards(nothing) == []


def test_sums_of_equal_names_are_equal() -> None:
    n, m = Spec(("n",)), Spec(("m",))
    compiled = moa.jit(lambda a, b, c, d: moa.cat(a, b) + moa.cat(c, d)).lower(
        n, m, n, m
    )
    assert guards(compiled) == [
        "extent n: axis 0 of c must equal axis 0 of a",
        "extent m: axis 0 of d must equal axis 0 of b",
    ]


def test_an_extent_that_equals_its_sum_with_another() -> None:
    """The other is empty then; finding the common extent ends."""

    def program(a: Any, b: Any) -> Any:
        joined = moa.cat(a, b)
        return (a + joined) + (joined + a) + moa.cat(b, joined)

    compiled = moa.jit(program).lower(Spec(("n",)), Spec(("m",)))
    given = compiled(table(3), table(0))
    np.testing.assert_array_equal(given, 5 * table(3))
    with pytest.raises(moa.ShapeError, match=r"expected 3 .*, got 4"):
        compiled(table(3), table(1))


def test_the_notation_shows_names() -> None:
    compiled = moa.jit(lambda a, b: a @ b).lower(Spec(("rows", "k")), Spec(("k", "d")))
    for stage in ("moa", "dnf", "fused"):
        header = compiled.notation(stage).split("\n")[0]
        assert header.endswith("(a ^ <rows k>, b ^ <k d>) → O ^ <rows d>:")


@pytest.mark.parametrize("stage", ["moa", "dnf", "fused"])
def test_the_notation_shows_computed_extents(stage: str) -> None:
    compiled = moa.jit(lambda a, b: moa.cat(moa.ravel(a), b)).lower(A, Spec(("k",)))
    header = compiled.notation(stage).split("\n")[0]
    assert header.endswith("(a ^ <n m>, b ^ <k>) → O ^ <(n × m + k)>:")


def test_specifications_of_a_program_give_one_kernel() -> None:
    product = moa.jit(lambda a, b: a @ b, specs=[Spec(("n", "m")), Spec(("m", "d"))])
    for n, m, d in ((2, 3, 4), (5, 1, 2)):
        given = product(table(n, m), table(m, d))
        np.testing.assert_allclose(given, table(n, m) @ table(m, d))
    with pytest.raises(moa.ShapeError, match=r"^extent m: axis 0 of b must equal axis"):
        product(table(2, 3), table(2, 3))
    with pytest.raises(moa.ShapeError, match="argument 1 'b': expected rank 2"):
        product(table(2, 3), table(3))


def test_specifications_must_be_specifications() -> None:
    wrong: Any = [(2, 3)]
    with pytest.raises(moa.MoaError, match="specs: expected an ArraySpec for argum"):
        moa.jit(lambda a: a, specs=wrong)
