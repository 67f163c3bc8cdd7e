"""Every error path of the front end and the kernel: one line, expected and given."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import ArraySpec
from moa_dialect.errors import (
    CompileError,
    DTypeError,
    IndexRangeError,
    LayoutError,
    MoaError,
    ShapeError,
)
from moa_dialect.types import dtype_of, element_type_of

torch: Any = pytest.importorskip("torch")

A = np.ones((2, 3))
B = np.ones((4, 3))
V = np.arange(3.0)
N = np.arange(3)
T = np.array([True, False, True])


def run(program: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
    """Calls of a program, not made yet."""
    return lambda: moa.jit(program)(*arrays)


def fails(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    """The call raises this error (no subclass), whose message has this in it."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    text = str(caught.value)
    assert message in text
    assert "\n" not in text


def fails_everywhere(
    error: type[MoaError], message: str, program: Callable[..., Any], *arrays: Any
) -> None:
    """The same error compiled for these shapes, for any shape, and interpreted."""
    arrays = tuple(map(np.asarray, arrays))
    fails(error, message, run(program, *arrays))
    fails(error, message, lambda: moa.interpret(program, *arrays))


def fails_at_the_call(
    error: type[MoaError], message: str, program: Callable[..., Any], *arrays: Any
) -> None:
    """As `fails_everywhere`, and also if all extents are known only at the call."""
    fails_everywhere(error, message, program, *arrays)
    arrays = tuple(map(np.asarray, arrays))
    specs = [ArraySpec((None,) * array.ndim, array.dtype) for array in arrays]
    # What a constant of the program decides is found before any call.
    fails(error, message, lambda: moa.jit(program).lower(*specs)(*arrays))


def test_the_errors_are_of_the_kind_python_has() -> None:
    for error, kind in (
        (ShapeError, ValueError),
        (IndexRangeError, IndexError),
        (DTypeError, TypeError),
        (LayoutError, ValueError),
        (CompileError, MoaError),
    ):
        assert issubclass(error, kind)
        assert issubclass(error, MoaError)


# Extents and ranks


@pytest.mark.parametrize(
    ("program", "arrays", "message"),
    [
        (
            lambda a, b: a + b,
            (A, B),
            "add: extents of axis 0 must be equal: expected 2 "
            "(axis 0 of a), got 4 (axis 0 of b)",
        ),
        (
            lambda a, b: moa.maximum(a, b),
            (A, A[:, :1]),
            "max: extents of axis 1 must be equal: expected 3 "
            "(axis 1 of a), got 1 (axis 1 of b)",
        ),
        (
            lambda a, b: a < b,
            (V, V[:1]),
            "lt: extents of axis 0 must be equal: expected 3 "
            "(axis 0 of a), got 1 (axis 0 of b)",
        ),
        (
            lambda a, b: moa.where(a > 0.0, a, b),
            (A, B),
            "where: extents of axis 0 must be equal: expected 2 "
            "(axis 0 of a), got 4 (axis 0 of b)",
        ),
        (
            lambda a, b: a @ b,
            (A, B),
            "inner: the last extent of the left operand must equal the first of the "
            "right: expected 3 (axis 1 of a), got 4 (axis 0 of b)",
        ),
        (
            lambda a, b: moa.omega("add", (0, 0), a, b),
            (A, B),
            "omega: frames must agree on their trailing axes: expected 2 "
            "(axis 0 of a), got 4 (axis 0 of b)",
        ),
        (
            lambda a, b: moa.omega("add", (1, 1), a, b),
            (A, A[:, :2]),
            "add: extents of cell axis 0 must be equal: expected 3 "
            "(axis 1 of a), got 2 (axis 1 of b)",
        ),
        (
            lambda a, b: moa.omega(lambda x, y: x @ y, (1, 1), a, b),
            (A, B[0, :2]),
            "inner: the last extent of the left operand must equal the first of the "
            "right: expected 3 (axis ",
        ),
        (
            lambda a: moa.reduce("sub", a),
            (A[:0],),
            "reduce: sub has no identity element, so the folded axis must not be "
            "empty: expected at least 1, got 0",
        ),
        (
            lambda a: moa.reduce(lambda x, y: x - y, a),
            (V[:0],),
            "has no identity element, so the folded axis must not be empty: expected "
            "at least 1, got 0",
        ),
        (
            lambda a, b: moa.inner("div", "mul", a, b),
            (A[:, :0], B[:0]),
            "inner: div has no identity element, so the folded axis must not be "
            "empty: expected at least 1, got 0",
        ),
    ],
)
def test_extents_that_do_not_fit(
    program: Callable[..., Any], arrays: tuple[np.ndarray, ...], message: str
) -> None:
    fails_at_the_call(ShapeError, message, program, *arrays)


@pytest.mark.parametrize(
    ("program", "arrays", "message"),
    [
        (
            lambda a, b: a + b,
            (A, V),
            "add expects operands of equal rank or scalars, got tensor<2x3xf64>, "
            "tensor<3xf64>",
        ),
        (
            lambda a, b: moa.where(a > 0.0, a, b),
            (A, V),
            "where expects operands of equal rank or scalars",
        ),
        (
            lambda a: moa.reduce("add", a),
            (np.float64(1),),
            "reduce expects an array of rank 1 or more, got tensor<f64>",
        ),
        (
            lambda a, b: a @ b,
            (A, 1.0),
            "inner expects two arrays of rank 1 or more, got tensor<2x3xf64> and "
            "tensor<f64>",
        ),
        (
            lambda a: moa.transpose(a, [0, 0]),
            (A,),
            "transpose expects a permutation of the axes 0 to 1, got [0, 0]",
        ),
        (
            lambda a: moa.transpose(a, [0]),
            (A,),
            "transpose expects a permutation of the axes 0 to 1, got [0]",
        ),
        (
            lambda a: moa.transpose(a, [0, 2]),
            (A,),
            "transpose expects a permutation of the axes 0 to 1, got [0, 2]",
        ),
        (
            lambda a: moa.psi([0, 0], a),
            (V,),
            "psi: the index is longer than the rank: expected at most 1 entries, got 2",
        ),
        (
            lambda a, i: moa.psi(i, a),
            (V, N[0]),
            "psi expects a vector as its index",
        ),
        (lambda a: moa.iota(-1), (V,), "expected at least 0, got -1"),
        (lambda a: moa.iota([2, -1]), (V,), "expected at least 0, got -1"),
        (
            lambda a: moa.omega("exp", 3, a),
            (A,),
            "omega: a cell rank must be between 0 and the rank of its array: expected "
            "at most 2, got 3",
        ),
        (
            lambda a: moa.omega("exp", -1, a),
            (A,),
            "omega: a cell rank must be between 0 and the rank of its array",
        ),
        (
            lambda a: moa.omega("exp", (0, 0, 0), a, a, a),
            (A,),
            "omega expects one or two arrays and as many cell ranks, got 3 arrays",
        ),
        (
            lambda a: moa.omega("exp", ()),
            (A,),
            "omega expects one or two arrays and as many cell ranks, got 0 arrays",
        ),
        (
            lambda a, b: moa.omega("add", (0,), a, b),
            (A, A),
            "omega expects one or two arrays and as many cell ranks, got 2 arrays and "
            "ranks [0]",
        ),
        (
            lambda a, b: moa.omega("add", (2, 1), a, b),
            (A, V),
            "omega: a scalar operation needs cells of equal rank or scalars, got ranks "
            "[2, 1]",
        ),
        (
            lambda a: moa.omega(lambda r: (r, r), 1, a),
            (A,),
            "omega: a cell function gives one array, got 2",
        ),
        (
            lambda a: moa.omega(lambda n: moa.iota(n), 0, a),
            (N,),
            "the shape of its result depends on data",
        ),
    ],
)
def test_ranks_that_do_not_fit(
    program: Callable[..., Any], arrays: tuple[Any, ...], message: str
) -> None:
    fails_everywhere(ShapeError, message, program, *arrays)


def test_iota_of_a_matrix() -> None:
    fails_everywhere(ShapeError, "iota expects", lambda a: moa.iota([[1], [2]]), V)


def test_iota_of_a_vector_of_unknown_length() -> None:
    spec = ArraySpec((None,), "i64")
    message = "iota expects a scalar or a vector of static length, got tensor<?xi64>"
    fails(ShapeError, message, lambda: moa.jit(moa.iota).lower(spec))


@pytest.mark.parametrize("extents", [np.int64(-3), np.array([2, -1])])
def test_negative_extents_in_the_data(extents: Any) -> None:
    fails_everywhere(
        ShapeError,
        f"iota: an extent must not be negative: expected at least 0, "
        f"got {np.min(extents)}",
        lambda n: moa.iota(n),
        extents,
    )


def test_an_iota_that_memory_cannot_hold() -> None:
    with pytest.raises((MemoryError, MoaError)):
        moa.jit(moa.iota)(np.int64(2**50))


# Indices


@pytest.mark.parametrize(
    ("index", "axis", "message"),
    [
        ([2], 0, "expected less than 2, got 2"),
        ([-1], 0, "expected at least 0, got -1"),
        ([0, 3], 1, "expected less than 3, got 3"),
        ([1, -1], 1, "expected at least 0, got -1"),
        ([[0, 0], [1, 2], [1, 3]], 1, "expected less than 3, got 3"),
        ([[0], [7]], 0, "expected less than 2, got 7"),
    ],
)
def test_index_out_of_range(index: Any, axis: int, message: str) -> None:
    """The index equal to the extent is out of range; negative ones do not wrap."""
    message = f"psi: index entry {axis} out of range of axis {axis}: {message}"
    bound = message
    if "less than" in message:
        bound = message.replace(", got", f" (axis {axis} of a), got")
    fails_at_the_call(IndexRangeError, bound, lambda a: moa.psi(index, a), A)
    for dtype in (np.int64, np.int32):
        fails_everywhere(
            IndexRangeError,
            message,
            lambda a, i: moa.psi(i, a),
            A,
            np.array(index, dtype),
        )


def test_index_out_of_range_where_extents_are_dynamic() -> None:
    compiled = moa.jit(lambda a, i: moa.psi(i, a)).lower(
        ArraySpec((None, None)), ArraySpec((None, 1), "i64")
    )
    np.testing.assert_array_equal(compiled(A, np.array([[1], [0]])), A)
    for index, message in ((2, "less than 2, got 2"), (-1, "at least 0, got -1")):
        fails(
            IndexRangeError,
            f"psi: index entry 0 out of range of axis 0: expected {message}",
            lambda index=index: compiled(A, np.array([[0], [index]])),
        )


@pytest.mark.parametrize("index", [2**62, -(2**62), 2**31, -(2**63), 2**63 - 1])
def test_huge_indices_in_the_data(index: int) -> None:
    fails_everywhere(
        IndexRangeError,
        f"got {index}",
        lambda a, i: moa.psi(i, a),
        V,
        np.array([index]),
    )


def test_index_into_an_empty_axis() -> None:
    message = (
        "psi: index entry 0 out of range of axis 0: expected less than 0 "
        "(axis 0 of a), got 0"
    )
    fails_at_the_call(IndexRangeError, message, lambda a: moa.psi([0], a), V[:0])
    with pytest.raises(
        (IndexRangeError, ShapeError), match="expected at least 1, got 0"
    ):
        moa.jit(lambda a, i: moa.psi(i, a))(V[:0], np.array([0]))


def test_an_index_out_of_range_that_decides_nothing_is_still_one() -> None:
    """Both sides of a where are evaluated, and masked indices are no exception."""

    def program(a: Any, i: Any) -> Any:
        return moa.where(False, moa.psi(i, a), 0.0)

    fails_everywhere(IndexRangeError, "got 5", program, V, np.array([5]))


def test_brackets_take_integers() -> None:
    for index, text in (
        (slice(0, 1), "slice(0, 1, None)"),
        (0.5, "0.5"),
        (None, "None"),
        ("a", "'a'"),
        ((0, slice(None)), "(0, slice(None, None, None))"),
        (Ellipsis, "Ellipsis"),
    ):
        message = f"indexing takes integers (psi of a leading index), got {text}"
        fails(MoaError, message, run(lambda a, index=index: a[index], A))
    fails(IndexRangeError, "got -1", run(lambda a: a[-1], A))
    fails(IndexRangeError, "got 2", run(lambda a: a[2], A))


# Element types


@pytest.mark.parametrize(
    ("program", "arrays", "message"),
    [
        (
            lambda a, b: a + b,
            (V, V.astype(np.float32)),
            "add: operands must have one element type, got f64, f32",
        ),
        (
            lambda a, b: a + b,
            (V, N),
            "add: operands must have one element type, got f64, i64",
        ),
        (
            lambda a, b: a @ b,
            (V, V.astype(np.float32)),
            "mul: operands must have one element type, got f64, f32",
        ),
        (
            lambda a: a / 2,
            (N,),
            "div: expected elements of kind float, got i64 (int)",
        ),
        (
            lambda a: 1 / a,
            (N.astype(np.int32),),
            "div: expected elements of kind float, got i32 (int)",
        ),
        (lambda a: moa.exp(a), (N,), "exp: expected elements of kind float, got i64"),
        (lambda a: a**2, (N,), "pow: expected elements of kind float, got i64"),
        (lambda a: a // a, (V,), "floordiv: expected elements of kind int, got f64"),
        (lambda a: 5.0 % a, (V,), "mod: expected elements of kind int, got f64"),
        (lambda a: a // 2.0, (N,), "expected a number of type i64, got 2.0"),
        (lambda a: moa.ceil(a), (N,), "ceil: expected elements of kind float, got i64"),
        (lambda a: moa.sign(a), (T,), "sign: expected elements of kind float or int"),
        (lambda a: a + 0.5, (N,), "expected a number of type i64, got 0.5"),
        (lambda a: a + 1, (T,), "add: expected elements of kind float or int, got i1"),
        (lambda a: -a, (T,), "neg: expected elements of kind float or int, got i1"),
        (lambda a: a < a, (T,), "lt: expected elements of kind float or int, got i1"),
        (lambda a: ~a, (V,), "not: expected elements of kind bool, got f64 (float)"),
        (lambda a: a & a, (V,), "and: expected elements of kind bool, got f64 (float)"),
        (
            lambda a: moa.reduce("lt", a),
            (V,),
            "a fold needs a function from two f64 to f64, lt gives i1",
        ),
        (
            lambda a: moa.reduce("and", a),
            (V,),
            "and: expected elements of kind bool, got f64 (float)",
        ),
        (
            lambda a: moa.reduce(lambda x, y: x < y, a),
            (V,),
            "a fold needs a function from two f64 to f64",
        ),
        (
            lambda a: moa.reduce(lambda x, y: 1.0, a),
            (V,),
            "a scalar function must give a scalar, got 1.0",
        ),
        (
            lambda a: moa.where(a, a, a),
            (V,),
            "where expects i1 as its condition, got tensor<3xf64>",
        ),
        (
            lambda a: moa.where(a > 0.0, a, moa.cast(a, "f32")),
            (V,),
            "where: operands must have one element type, got f64, f32",
        ),
        (lambda a, i: moa.psi(i, a), (V, V), "psi expects integers, got tensor<3xf64>"),
        (lambda a, i: moa.psi(i, a), (V, T), "psi expects integers, got tensor<3xi1>"),
        (lambda a: moa.iota(a), (np.float64(2),), "iota expects integers"),
        (
            lambda a: moa.cast(a, "f8x"),
            (V,),
            "unsupported element type: expected one of",
        ),
        (lambda a: moa.cast(a, np.uint8), (V,), "unsupported element type"),
        (lambda a: moa.cast(a, object()), (V,), "unsupported element type"),
    ],
)
def test_element_types_that_do_not_fit(
    program: Callable[..., Any], arrays: tuple[Any, ...], message: str
) -> None:
    fails_everywhere(DTypeError, message, program, *arrays)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u8", "c16", "O", "U3", "M8[D]", ">f8", "f8,f8", "g"]
)
def test_unsupported_dtypes_of_arguments(dtype: str) -> None:
    array = np.zeros(3, dtype)
    fails(
        DTypeError,
        "unsupported element type: expected one of f64, f32",
        run(abs, array),
    )


@pytest.mark.parametrize("value", ["x", [1.0, 2.0], None, {}, object(), 1j, (V,)])
def test_arguments_that_are_no_arrays(value: Any) -> None:
    message = (
        "argument 1: expected an array (NumPy, torch, DLPack), "
        f"got {type(value).__name__}"
    )
    fails(DTypeError, message, run(lambda a, b: a + b, V, value))
    fails(DTypeError, message, lambda: moa.interpret(lambda a, b: a + b, V, value))


@pytest.mark.parametrize("name", ["foo", "exp", "", "moa.add"])
def test_unknown_scalar_operations(name: str) -> None:
    with pytest.raises(MoaError, match="unknown scalar operation of 2 argument"):
        moa.jit(lambda a: moa.reduce(name, a))(V)


# Numbers that silently became others


@pytest.mark.parametrize(
    "program",
    [lambda a: moa.psi([0.5], a), lambda a: moa.psi(1.7, a), lambda a: moa.iota(2.5)],
    ids=["psi([0.5])", "psi(1.7)", "iota(2.5)"],
)
def test_indices_and_extents_are_not_truncated(program: Callable[..., Any]) -> None:
    fails_everywhere(DTypeError, "expects integers", program, V)


@pytest.mark.parametrize(
    "program",
    [
        lambda a: moa.psi("a", a),
        lambda a: moa.psi([None], a),
        lambda a: moa.iota("a"),
        lambda a: a + "a",
    ],
    ids=["psi('a')", "psi([None])", "iota('a')", "a + 'a'"],
)
def test_constants_that_are_no_numbers(program: Callable[..., Any]) -> None:
    with pytest.raises(MoaError):
        moa.jit(program)(V)


@pytest.mark.parametrize(
    ("program", "array"),
    [
        (lambda a: a + 2**31, N.astype(np.int32)),
        (lambda a: a + 2**63, N),
        (lambda a: a + 10**400, V),
        (lambda a: moa.psi([2**70], a), V),
        (lambda a: moa.iota(2**70), V),
    ],
    ids=["2**31 as i32", "2**63 as i64", "10**400 as f64", "psi", "iota"],
)
def test_numbers_that_the_type_cannot_hold(
    program: Callable[..., Any], array: np.ndarray
) -> None:
    with pytest.raises(MoaError):
        moa.jit(program)(array)


def test_options_that_are_equal_but_not_the_same() -> None:
    """0.0 == -0.0 and 1 == 1.0 == True, yet the programs differ."""
    divide = moa.jit(lambda a, by: a / by)
    assert divide(np.ones(1), by=0.0) == np.inf
    assert divide(np.ones(1), by=-0.0) == -np.inf
    add = moa.jit(lambda a, number: a + number)
    np.testing.assert_array_equal(add(N, number=1), N + 1)
    fails(DTypeError, "expected a number of type i64", lambda: add(N, number=1.0))


def test_constants_that_are_equal_but_not_the_same() -> None:
    zeros = np.array([0.0, -0.0])
    for run_it in (moa.jit, lambda f: lambda a: moa.interpret(f, a)):
        result = run_it(lambda a: a / zeros)(np.ones(2))
        np.testing.assert_array_equal(result, [np.inf, -np.inf])


# What tracing cannot do


@pytest.mark.parametrize(
    "program",
    [
        lambda a: a if a > 0.0 else -a,
        lambda a: a and a,
        lambda a: not a,
        lambda a: bool(a),
        lambda a: 0.0 < a < 1.0,
        lambda a: moa.reduce(lambda x, y: x if x > y else y, moa.outer("mul", a, V)),
        lambda a: max(a, 0.0),
    ],
)
def test_branching_on_data(program: Callable[..., Any]) -> None:
    message = "a traced value has no truth value: the program cannot branch on data"
    fails(MoaError, message, run(program, np.float64(1)))


@pytest.mark.parametrize(
    "program",
    [
        lambda a: sum(a),
        lambda a: list(a),
        lambda a: 1.0 in a,
        lambda a: [x for x in a],  # noqa: C416
        lambda a: max(*a),
    ],
)
def test_iterating(program: Callable[..., Any]) -> None:
    message = "a traced value cannot be iterated over; use moa.omega"
    fails(MoaError, message, run(program, V))


@pytest.mark.parametrize(
    "program",
    [
        lambda a: np.sum(a),
        lambda a: np.exp(a),
        lambda a: np.add(V, a),
        lambda a: np.asarray(a),
        lambda a: np.max(a),
        lambda a: float(a),
        lambda a: len(a),
        lambda a: a // 2.0,
        lambda a: a % 2.0,
        lambda a: hash(a),
    ],
    ids=[
        *("np.sum", "np.exp", "np.add", "np.asarray", "np.max", "float", "len", "//"),
        *("%", "hash"),
    ],
)
def test_functions_that_do_not_know_traced_arrays_are_refused(
    program: Callable[..., Any],
) -> None:
    """An error, whosever it is: never a silently different program."""
    with pytest.raises((TypeError, MoaError)):
        moa.jit(program)(V)


def test_a_cell_function_with_an_array_from_outside() -> None:
    message = (
        "a cell function must not use an array of the program around it: "
        "pass the array to omega as well"
    )
    for program in (
        lambda a: moa.omega(lambda r: r + moa.psi([0], a), 1, a),
        lambda a: moa.omega(lambda r: a, 1, a),
        lambda a: moa.omega(lambda p: moa.omega(lambda s: s + p, 0, p), 1, a),
    ):
        fails_everywhere(MoaError, message, program, A)


def test_a_scalar_function_with_an_array_from_outside() -> None:
    message = "a scalar function must not use an array"
    fails(MoaError, message, run(lambda a: moa.reduce(lambda x, y: x + a, a), V))


def test_an_array_that_outlives_its_program() -> None:
    kept: list[Any] = []

    def program(a: Any) -> Any:
        kept.append(a)
        return a + 1.0

    moa.jit(program)(V)
    with pytest.raises(MoaError):
        moa.jit(lambda b: b + kept[0])(V)
    with pytest.raises(MoaError):
        moa.exp(kept[0])


def test_a_compiled_program_inside_of_a_program() -> None:
    inner = moa.jit(lambda b: b + 1.0)
    fails(DTypeError, "got Array", run(lambda a: inner(a), V))
    fails(DTypeError, "got Array", run(lambda a: moa.interpret(lambda b: b, a), V))


def test_a_compiled_program_that_calls_itself() -> None:
    def program(a: Any) -> Any:
        return compiled(a)

    compiled = moa.jit(program)
    fails(DTypeError, "got Array", lambda: compiled(V))


def test_a_python_function_that_calls_itself() -> None:
    def program(a: Any) -> Any:
        return program(a + 1.0)

    with pytest.raises((RecursionError, MoaError)):
        moa.jit(program)(V)


def test_errors_of_the_program_itself_are_passed_on() -> None:
    def program(a: Any) -> Any:
        raise LookupError("mine")

    for call in (run(program, V), lambda: moa.interpret(program, V)):
        with pytest.raises(LookupError, match="mine"):
            call()
    # And the front end works on.
    np.testing.assert_array_equal(moa.exp(np.zeros(2)), np.ones(2))


@pytest.mark.parametrize("value", [None, "x", {}, 1j], ids=repr)
def test_results_that_are_no_arrays(value: Any) -> None:
    with pytest.raises(MoaError):
        moa.jit(lambda a: value)(V)
    with pytest.raises(MoaError):
        moa.jit(lambda a: moa.omega(lambda _: value, 0, a))(V)


def test_a_program_that_returns_nothing_or_a_mapping() -> None:
    message = "expected a program that returns an array or a tuple of arrays, got "
    fails(MoaError, message + "None", run(lambda x: None, A))
    fails(MoaError, message + "a dict", run(lambda x: {"y": x}, A))


@pytest.mark.parametrize("value", [3, None, "softmax"])
def test_what_is_no_function(value: Any) -> None:
    fails(
        MoaError,
        f"jit: expected a function of arrays, got {value!r}",
        lambda: moa.jit(value),
    )


def test_several_results_are_a_tuple_not_a_list() -> None:
    with pytest.raises(MoaError):
        moa.jit(lambda a: [a, a])(V)


# Calling


def test_wrong_number_of_arguments() -> None:
    def add(a: Any, b: Any) -> Any:
        return a + b

    program = moa.jit(add)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        program(V)
    with pytest.raises(
        TypeError, match="takes 2 positional arguments but 3 were given"
    ):
        program(V, V, V)
    compiled = program.lower(V, V)
    fails(MoaError, "add: expected 2 arguments, got 1", lambda: compiled(V))
    fails(MoaError, "add: expected 2 arguments, got 3", lambda: compiled(V, V, V))
    fails(MoaError, "add: expected 2 arguments, got 0", lambda: compiled())


def test_wrong_arguments_of_a_compiled_program() -> None:
    compiled = moa.jit(lambda a, b: a + b).lower(A, A)
    for error, message, array in (
        (ShapeError, "argument 1 'b': expected rank 2, got rank 1 with shape (3,)", V),
        (ShapeError, "argument 1 'b': expected extent 2 on axis 0, got 4", B),
        (ShapeError, "argument 1 'b': expected extent 3 on axis 1, got 2", A[:, :2]),
        (DTypeError, "argument 1 'b': expected float64, got float32", A.astype("f4")),
        (DTypeError, "argument 1 'b': expected float64, got int64", A.astype("i8")),
        (DTypeError, "argument 1: expected an array", "x"),
    ):
        fails(error, message, lambda array=array: compiled(A, array))


def test_after_an_error_the_kernel_works_on() -> None:
    compiled = moa.jit(lambda a, i: moa.psi(i, a)).lower(V, N[:1])
    for _ in range(3):
        fails(IndexRangeError, "got 3", lambda: compiled(V, np.array([3])))
        assert compiled(V, np.array([2])) == 2


def test_options_that_cannot_be_hashed() -> None:
    program = moa.jit(lambda a, k: a)
    message = "keyword arguments must be hashable values, got {'k': [1]}"
    fails(MoaError, message, lambda: program(V, k=[1]))


def test_options_that_the_function_does_not_have() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'k'"):
        moa.jit(lambda a: a)(V, k=1)


def test_scalar_and_cell_functions_of_other_arity() -> None:
    for program in (
        lambda a: moa.reduce(lambda x: x, a),
        lambda a: moa.omega(lambda x, y: x, 0, a),
        lambda a: moa.outer(lambda x, y, z: x, a, a),
    ):
        with pytest.raises(TypeError, match=r"positional argument"):
            moa.jit(program)(V)


@pytest.mark.parametrize(
    ("array", "layout"),
    [
        (A.T, "strides (8, 24) for shape (3, 2)"),
        (A[:, ::2], "strides (24, 16) for shape (2, 2)"),
        (A[::-1], "strides (-24, 8) for shape (2, 3)"),
        (np.broadcast_to(V, (2, 3)), "strides (0, 8) for shape (2, 3)"),
    ],
    ids=["transposed", "strided", "reversed", "broadcast"],
)
def test_no_copies(array: np.ndarray, layout: str) -> None:
    program = moa.jit(lambda a: a + 1.0, copy=False)
    message = f"argument 0 'a': expected a C-contiguous array, got {layout}"
    fails(LayoutError, message, lambda: program(array))
    compiled = program.lower(array)
    fails(LayoutError, message, lambda: compiled(array))


def test_no_copies_of_unaligned_arrays() -> None:
    array = np.frombuffer(b"\0" + A.tobytes(), np.uint8)[1:].view(np.float64)
    assert not array.flags.aligned
    with pytest.raises(LayoutError, match="argument 0 'a'"):
        moa.jit(lambda a: a + 1.0, copy=False)(array)


# Torch and DLPack


def test_tensors_that_require_grad() -> None:
    tensor = torch.ones(3, requires_grad=True)
    message = "argument 0: expected a tensor that does not require grad"
    fails(LayoutError, message, run(lambda a: a, tensor))
    fails(LayoutError, "pass tensor.detach()", run(lambda a: a, tensor * 2))


def test_tensors_elsewhere() -> None:
    tensor = torch.ones(3, device="meta")
    message = "argument 0: expected a tensor on device cpu, got meta"
    fails(LayoutError, message, run(lambda a: a, tensor))


def test_sparse_tensors() -> None:
    message = "argument 0: expected a strided tensor, got torch.sparse_coo"
    fails(LayoutError, message, run(lambda a: a, torch.eye(3).to_sparse()))


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "complex64", "complex128"])
def test_unsupported_dtypes_of_tensors(name: str) -> None:
    tensor = torch.ones(3).to(getattr(torch, name))
    fails(DTypeError, "unsupported element type", run(lambda a: a, tensor))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_dtypes_of_tensors_that_numpy_does_not_know(name: str) -> None:
    tensor = torch.ones(3).to(getattr(torch, name))
    with pytest.raises(MoaError):
        moa.jit(lambda a: a)(tensor)


def test_tensors_with_a_pending_negation() -> None:
    """A real view with torch's negative bit: taken, or refused by an error of moa."""
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert tensor.is_neg()
    try:
        result = moa.jit(lambda a: a)(tensor)
    except MoaError:
        return
    assert torch.equal(result, tensor)


class Exporter:
    """An object that exports something else by DLPack, or refuses."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return (1, 0)


def test_dlpack_that_fails() -> None:
    refusal = Exporter(BufferError("not now"))
    fails(LayoutError, "argument 0: not now", run(lambda a: a, refusal))
    bfloat = Exporter(torch.ones(3, dtype=torch.bfloat16))
    with pytest.raises(MoaError, match="argument 0"):
        moa.jit(lambda a: a)(bfloat)


# Specifications, stages and targets


def test_unknown_target() -> None:
    message = "unknown target: expected cpu or cuda, got abacus"
    fails(CompileError, message, lambda: moa.jit(lambda a: a, target="abacus"))


@pytest.mark.parametrize("stage", ["foo", "", "MOA"])
def test_unknown_stage(stage: str) -> None:
    compiled = moa.jit(lambda a: a).lower(V)
    message = (
        "unknown stage: expected one of moa, dnf, fused, onf, target, llvm, asm, "
        f"got {stage}"
    )
    fails(MoaError, message, lambda: compiled.text(stage))
    fails(MoaError, message, lambda: compiled.module(stage))
    fails(MoaError, message, lambda: compiled.notation(stage))


def test_stages_without_notation() -> None:
    compiled = moa.jit(lambda a: a).lower(V)
    message = "notation covers the stages moa, dnf and fused"
    fails(MoaError, message, lambda: compiled.notation("onf"))


@pytest.mark.parametrize("dtype", ["f8x", "f80", np.uint16, object, "", None])
def test_specifications_of_unknown_dtype(dtype: Any) -> None:
    spec = ArraySpec((3,), dtype)
    fails(
        DTypeError,
        "unsupported element type: expected one of f64",
        lambda: moa.jit(lambda a: a).lower(spec),
    )


@pytest.mark.parametrize("shape", [(-3,), (2.5,), ("3",), ("?",), "ab", (2, -1)])
def test_specifications_of_impossible_shape(shape: Any) -> None:
    with pytest.raises(ShapeError, match="a shape is a tuple of extents"):
        moa.jit(lambda a: a).lower(ArraySpec(shape))


@pytest.mark.parametrize(
    "dtype",
    ["f64", "f32", "f16", "bf16", "i64", "i32", "i1", np.float32, ml_dtypes.bfloat16],
)
def test_specifications_of_every_dtype(dtype: Any) -> None:
    compiled = moa.jit(lambda a: moa.where(a == a, a, a)).lower(ArraySpec((2,), dtype))
    array = np.ones(2).astype(dtype_of(element_type_of(dtype)))
    np.testing.assert_array_equal(compiled(array), array)


# What is no array, no number, no function

V3, A23 = np.arange(3.0), np.arange(6.0).reshape(2, 3)

BAD_OPERANDS: dict[str, tuple[type[MoaError], str, Callable[[], Any]]] = {
    "rows of an index": (
        ShapeError,
        "expected rows of one length",
        lambda: moa.psi([[0, 0], [1]], A23),
    ),
    "rows of an array": (
        ShapeError,
        "expected rows of one length",
        lambda: moa.psi(0, [[1, 2], [3]]),
    ),
    "axes that are no integers": (
        DTypeError,
        "transpose expects integers",
        lambda: moa.transpose(A23, cast(Any, [1.0, 0.0])),
    ),
    "one axis": (
        ShapeError,
        "transpose expects a vector of axes, got 1",
        lambda: moa.transpose(A23, cast(Any, 1)),
    ),
    "axes that are computed": (
        MoaError,
        "transpose: expected axes that are known now, got a traced value",
        lambda: moa.jit(lambda a: moa.transpose(a, moa.iota(2)))(A23),
    ),
    "no function": (
        MoaError,
        "expected the name of a scalar operation or a function of two scalars, got 5",
        lambda: moa.reduce(cast(Any, 5), V3),
    ),
    "a function of two results": (
        DTypeError,
        "a scalar function gives one scalar, got 2",
        lambda: moa.reduce(lambda a, b: (a, b), V3),
    ),
    "a cell rank that is no integer": (
        DTypeError,
        "omega expects integers",
        lambda: moa.omega("neg", cast(Any, 1.0), A23),
    ),
    "a number too large": (
        DTypeError,
        "expected a number of type f32, got one it cannot hold",
        lambda: moa.jit(lambda a: a + 1e39)(V3.astype("f4")),
    ),
    "a number too large in a scalar function": (
        DTypeError,
        "expected a number of type f32, got one it cannot hold",
        lambda: moa.scan(lambda a, b: a + b + 1e39, V3.astype("f4")),
    ),
    "a masked array": (
        DTypeError,
        "argument 1: expected an array, got a masked array",
        lambda: moa.psi(0, np.ma.array(V3, mask=[False, True, False])),
    ),
    "a schedule": (
        moa.OptionError,
        "schedule: expected text, got 5",
        lambda: moa.jit(moa.exp, schedule=cast(Any, 5)),
    ),
    "a schedule without fusion": (
        moa.OptionError,
        "schedule: expected with fuse=True, got it with False",
        lambda: moa.jit(moa.exp, schedule="i=lanes:4", fuse=False),
    ),
    "whether it is deterministic": (
        moa.OptionError,
        "deterministic: expected True or False, got 'yes'",
        lambda: moa.jit(moa.exp, deterministic=cast(Any, "yes")),
    ),
    "whether it copies": (
        moa.OptionError,
        "copy: expected None, True or False, got 'x'",
        lambda: moa.jit(moa.exp, copy=cast(Any, "x")),
    ),
    "specifications": (
        MoaError,
        "specs: expected a list of ArraySpec values, got 5",
        lambda: moa.jit(moa.exp, specs=cast(Any, 5)),
    ),
    "a result too large for memory": (
        ShapeError,
        "a result of shape (4611686018427387904,)",
        lambda: moa.jit(moa.iota, specs=[ArraySpec((), "i64")])(np.array(2**62)),
    ),
}


@pytest.mark.parametrize("name", BAD_OPERANDS)
def test_operands_that_are_none(name: str) -> None:
    error, message, call = BAD_OPERANDS[name]
    fails(error, message, call)


def test_axes_of_a_transpose_may_be_an_array() -> None:
    axes = np.array([1, 0])
    np.testing.assert_array_equal(moa.transpose(A23, cast(Any, axes)), A23.T)


def test_infinity_is_a_number_of_every_float_type() -> None:
    added = moa.jit(lambda a: a + float("inf"))(V3.astype("f4"))
    np.testing.assert_array_equal(added, np.full(3, np.inf, np.float32))


def test_the_length_of_a_cell_is_no_data() -> None:
    program = moa.jit(lambda a: moa.omega(lambda r: moa.iota(moa.total(r)), 1, a))
    np.testing.assert_array_equal(
        program.lower(ArraySpec((None, None)))(A23), [[0, 1, 2]] * 2
    )


# Programs that must compile


def test_a_product_with_a_vector_compared() -> None:
    """Its accumulators cannot lie in the result, which is of another type."""
    random = np.random.default_rng(0)
    v, a, b = (random.normal(size=shape) for shape in ((20,), (20, 20), (20, 20)))
    expected = v @ a @ b
    positive = moa.jit(lambda v, a, b: (v @ a) @ b > 0.0)(v, a, b)
    np.testing.assert_array_equal(positive, expected > 0)
    single = moa.jit(lambda v, a: moa.cast(moa.tanh(v) @ a, "f32"))(v, a)
    np.testing.assert_allclose(single, np.tanh(v) @ a, rtol=1e-5)


def test_a_constant_choice_inside_of_a_joined_array() -> None:
    """The loop over the result is split at the seam, the choice known in both parts."""
    program = moa.jit(lambda a: moa.cat(a, moa.where(False, a, a + 1.0)))
    np.testing.assert_array_equal(program(V), [0, 1, 2, 1, 2, 3])
