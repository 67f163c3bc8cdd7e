"""Where values stand: in front of what uses them, and arrays where memory holds them."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Callable
from typing import Any

import numpy as np

import moa_dialect as moa
from moa_dialect.frontend.trace import as_array
from moa_dialect.interpreter import interpret_module

VECTOR = moa.ArraySpec((None,))


def check(
    program: Callable[..., Any], specs: Any, arrays: list[np.ndarray], expected: Any
) -> None:
    """Interpreted and compiled, without and with fusion."""
    np.testing.assert_array_equal(moa.interpret(program, *arrays), expected)
    for fuse in (False, True):
        compiled = moa.jit(program, fuse=fuse, specs=specs).lower(*arrays)
        np.testing.assert_array_equal(compiled(*arrays), expected)


def test_a_count_of_constants_comes_after_them() -> None:
    """How many elements a result has is computed at the entry, here of a constant."""
    numbers = np.array([1.0, -2.0, 3.0])

    def program(v: Any) -> Any:
        return moa.compress(as_array(numbers) > 0.0, v)

    v = np.array([5.0, 6.0, 7.0])
    check(program, [VECTOR], [v], v[[0, 2]])


def test_an_empty_vector_has_no_entries() -> None:
    """`0 0 expand (shape of a scalar)` holds no element of it."""

    def program(s: Any) -> Any:
        return moa.expand(as_array(np.zeros(2, bool)), moa.shape(s))

    check(program, None, [np.array(1.0)], np.zeros(2, np.int64))


def test_a_fold_stays_behind_what_it_uses() -> None:
    """A scalar has no axis that a fold could take inside."""

    def program(b: Any, v: Any) -> Any:
        cells = moa.psi(b, moa.grade_up(v))
        return moa.psi(as_array(np.array([1, 0, 0], np.int32)), cells)

    arrays = [np.zeros((2, 3, 0), np.int64), np.array([3, -1], np.int32)]
    specs = [moa.ArraySpec((2, 3, 0), "index"), moa.ArraySpec((2,), "i32")]
    check(program, specs, arrays, 1)


def test_an_array_that_another_fold_reads_is_not_in_the_result() -> None:
    """Of two folds over the result's axis only one array can lie in the result."""

    def program(v: Any, mask: Any) -> Any:
        order = moa.grade_down(moa.grade_down(v))
        result = moa.rotate(1, moa.compress(mask, order))
        return result, result

    v = np.array([3.0, 5.0, 4.0, 1.0])
    specs = [moa.ArraySpec((4,)), moa.ArraySpec((None,), "i1")]
    mask = np.array([True, False, True, True])
    order = np.argsort(-np.argsort(-v))
    check(program, specs, [v, mask], [np.roll(order[mask], -1)] * 2)


def test_rows_may_have_a_length_that_is_counted() -> None:
    """How many rows are kept is a fold of constants, known only at the call."""

    def program(x: Any) -> Any:
        kept = as_array(np.array([-3, 4, 4])) > 0
        scale = moa.reduce("add", x) / 3.0
        return moa.compress(kept, moa.omega("mul", (1, 1), x, scale))

    x = np.array([[1.0], [3.0], [5.0]])
    check(program, None, [x], x[1:] * 3)
    moa.jit(program).lower(x).module("onf")


def test_a_fold_without_an_identity_element_shares_no_pass() -> None:
    def program(x: Any) -> Any:
        above = moa.omega("max", (1, 1), x, moa.reduce("min", x))
        return moa.reduce("sub", x), moa.reduce("max", above)

    x = np.array([[1.0], [3.0], [5.0]])
    check(program, None, [x], [[3.0], [5.0]])


def test_nothing_is_left_of_an_array_that_no_element_is_of() -> None:
    """The function of the cells does not use it; a precondition has the cells."""

    def program(s: Any, v: Any) -> Any:
        first = moa.omega(lambda x, y: x, (0, 0), s, moa.dim(moa.reverse(v)))
        return moa.gamma_inverse(first % 4, as_array(np.array([4])))

    arrays = [np.array(6, np.int32), np.ones(3)]
    check(program, None, arrays, [2])
    assert moa.jit(program).lower(*arrays).intermediates == 0


def test_an_element_that_is_not_there_is_not_read_early() -> None:
    """Of an array without elements none is read in front of a loop over nothing."""

    def program(places: Any) -> Any:
        indices = moa.gamma_inverse(places, as_array(np.zeros(0, np.int64)))
        return moa.recycle([0], indices)

    places = np.zeros((0, 4, 1), np.int32)
    check(program, None, [places], np.zeros(0, np.int64))
    module = moa.jit(program).lower(places).module("fused")
    (result,) = interpret_module(module, "program", [places])
    assert result.shape == (0,)


def test_no_element_of_an_empty_constant_is_read_early() -> None:
    """Whatever its index is: a computed one, too."""

    def program() -> Any:
        rows = moa.compress(np.array([False]), np.zeros((1, 0, 0)))
        both = moa.cat(rows, moa.reverse(rows))
        return moa.ravel(moa.drop(np.zeros(0, np.int64), both))

    check(program, None, [], np.zeros(0))
    module = moa.jit(program).lower().module("fused")
    (result,) = interpret_module(module, "program", [])
    assert result.shape == (0,)


def test_a_number_beyond_a_constant_is_of_no_element() -> None:
    """Nothing of the one element is expanded; where it would be is behind its end."""

    def program() -> Any:
        nothing = moa.drop(1, as_array(np.array([5])))
        return moa.expand(as_array(np.array([False])), nothing)

    check(program, None, [], [0])


def test_a_number_beyond_a_vector_is_of_no_element() -> None:
    """The one entry of an index is dropped; the next one is behind its end."""

    def entry(shape: Any) -> Any:
        index = moa.gamma_inverse(as_array(np.array(3)), shape)
        return moa.expand(as_array(np.zeros(2, bool)), moa.drop(1, index))

    def address(shape: Any) -> Any:
        addresses = moa.gamma(as_array(np.array([[3]])), shape)
        return moa.expand(as_array(np.zeros(1, bool)), moa.drop(1, addresses))

    check(entry, None, [np.array([4])], [0, 0])
    check(address, None, [np.array([4])], [0])


def test_a_fold_of_elements_that_are_not_there_is_not_read_early() -> None:
    """Prefixes of no columns do not depend on the index of the loop over nothing."""

    def program(places: Any) -> Any:
        sums = moa.scan("add", places)
        indices = moa.gamma_inverse(sums, as_array(np.zeros(0, np.int64)))
        return moa.ravel(indices)

    places = np.zeros((2, 0), np.int32)
    check(program, None, [places], np.zeros(0, np.int64))
    module = moa.jit(program).lower(places).module("fused")
    (result,) = interpret_module(module, "program", [places])
    assert result.shape == (0,)


def test_an_element_that_is_not_there_stays_with_its_axis() -> None:
    """Of no planes each has the same place in the rows, which are none: none is read."""

    def program(planes: Any, keep: Any) -> Any:
        places = np.zeros((0, 2, 1), np.int64)
        cells = moa.omega(lambda rows: moa.psi(as_array(places), rows), 2, planes)
        return moa.ravel(moa.scan("add", moa.compress(keep, cells)))

    arrays = [np.zeros((3, 1, 0)), np.zeros(3, bool)]
    check(program, None, arrays, np.zeros(0))
    module = moa.jit(program, fuse=False).lower(*arrays).module("fused")
    (result,) = interpret_module(module, "program", arrays)
    assert result.shape == (0,)


def test_a_fold_that_no_result_can_hold_as_an_array_stays_a_scalar() -> None:
    """The places that a mask keeps are no floats, and no axis is around them."""

    def once(keep: Any, x: Any) -> Any:
        return moa.compress(keep, moa.library.softmax(x))

    def twice(again: Any, keep: Any, x: Any) -> Any:
        return moa.compress(again, moa.compress(keep, moa.library.softmax(x)))

    def columns(keep: Any, x: Any) -> Any:
        """An axis is around them, but they do not depend on it: they leave it."""
        weights = moa.exp(moa.omega("sub", (1, 1), x, moa.reduce("max", x)))
        sums = moa.reduce("add", weights)
        return moa.compress(keep, moa.omega("div", (1, 1), x, sums))

    def rows(keep: Any, x: Any) -> Any:
        return moa.compress(keep, moa.library.softmax(x))

    keep, again = np.array([True, False, True, True]), np.array([False, True, True])
    x = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.5, 2.0, 0.0]])
    for program, masks, array in (
        (once, [keep], x[:, 1]),
        (twice, [again, keep], x[:, 1]),
        (columns, [keep], x),
        (rows, [keep], x),
    ):
        expected = moa.jit(program, fuse=False)(*masks, array)
        compiled = moa.jit(program).lower(*masks, array)
        np.testing.assert_allclose(compiled(*masks, array), expected, rtol=1e-14)
