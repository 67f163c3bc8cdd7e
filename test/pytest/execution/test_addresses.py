"""Products, addresses and indices: the same at every stage, compiled, and in NumPy."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect.errors import DTypeError, IndexRangeError, MoaError, ShapeError
from moa_dialect.interpreter import interpret_module

STAGES = ("moa", "dnf", "fused", "onf")
ORDERS = {"row": "C", "column": "F"}
Program = Callable[..., Any]


def lower(program: Program, *specs: moa.ArraySpec) -> moa.Compiled:
    def main(*arrays: Any) -> Any:
        return program(*arrays)

    return moa.jit(main).lower(*specs)


def static(*arrays: Any) -> list[moa.ArraySpec]:
    return [moa.ArraySpec(np.shape(a), np.asarray(a).dtype) for a in arrays]


def dynamic(*arrays: Any) -> list[moa.ArraySpec]:
    """All extents unknown but the last: index and shape vectors have known lengths."""
    return [
        moa.ArraySpec((*[None] * (a.ndim - 1), *a.shape[-1:]), a.dtype)
        for a in map(np.asarray, arrays)
    ]


def check(program: Program, arrays: Sequence[Any], expected: Any) -> None:
    arrays, expected = list(map(np.asarray, arrays)), np.asarray(expected)
    for specs in (static(*arrays), dynamic(*arrays)):
        compiled = lower(program, *specs)
        results = [
            *(interpret_module(compiled.module(s), "main", arrays)[0] for s in STAGES),
            compiled(*arrays),
        ]
        for where, result in zip((*STAGES, "compiled"), results, strict=True):
            assert result.dtype == expected.dtype, where
            np.testing.assert_array_equal(result, expected, where, strict=True)
    np.testing.assert_array_equal(program(*arrays), expected, strict=True)


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
    compiled = lower(program, *dynamic(*arrays))
    for stage in STAGES:
        with pytest.raises(error) as caught:
            interpret_module(compiled.module(stage), "main", arrays)
        assert without_sources(caught.value) == expected
    with pytest.raises(error) as caught:
        compiled(*arrays)
    assert without_sources(caught.value) == expected


def sourced(message: str) -> str:
    """A pattern for a message with or without where its numbers come from."""
    source = r"(?: \([^()]*\))?"
    before, after = map(re.escape, message.split(", got"))
    return f"^{before}{source}, got{after}{source}$"


# Product


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4"])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_product_of_a_vector(length: int, dtype: str) -> None:
    vector = np.array([3, -2, 5, 7][:length], dtype)
    expected = np.array(math.prod([3, -2, 5, 7][:length]), dtype)
    check(moa.product, [vector], expected)
    check(lambda v: moa.reduce("mul", v), [vector], expected)
    any_length = lower(moa.product, moa.ArraySpec((None,), vector.dtype))
    np.testing.assert_array_equal(any_length(vector), expected, strict=True)


def test_product_is_a_right_fold() -> None:
    """From the left it overflows."""
    check(moa.product, [[1e200, 1e200, 1e-300]], 1e200 * (1e200 * 1e-300))


def test_product_of_the_shape_is_the_total() -> None:
    array = np.zeros((3, 4, 5))
    check(lambda a: moa.product(moa.shape(a)), [array], 60)
    check(lambda a: moa.product(moa.shape(a)), [np.float64(7)], 1)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        (np.zeros((2, 2)), ShapeError, "product expects a vector, got tensor<2x2xf64>"),
        (np.float64(2), ShapeError, "product expects a vector, got tensor<f64>"),
        (
            np.array([True]),
            DTypeError,
            "product expects numbers, got tensor<1xi1>",
        ),
    ],
)
def test_product_of_what_has_none(
    argument: Any, error: type[MoaError], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        moa.product(argument)


# Gamma and its inverse


shapes = st.lists(st.integers(1, 4), max_size=4)
orders = st.sampled_from(list(ORDERS))


@given(shape=shapes, order=orders, data=st.data())
def test_gamma_is_numpys_address(
    shape: list[int], order: str, data: st.DataObject
) -> None:
    index = [data.draw(st.integers(0, n - 1)) for n in shape]
    expected = np.ravel_multi_index(index, shape, order=ORDERS[order]) if shape else 0  # pyright: ignore
    assert moa.gamma(index, shape, order) == expected
    assert moa.gamma_inverse(expected, shape, order).tolist() == index


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4), (2, 1, 3, 2)])
def test_gamma_and_its_inverse(shape: tuple[int, ...], order: str) -> None:
    """Data for the index, the shape, or both."""
    extents = np.array(shape, np.int64)
    address = math.prod(shape) * 3 // 5
    index = np.array(np.unravel_index(address, shape, ORDERS[order]), np.int64)  # pyright: ignore

    check(lambda i, s: moa.gamma(i, s, order), [index, extents], address)
    check(lambda i: moa.gamma(i, shape, order), [index], address)
    check(lambda s: moa.gamma(index.tolist(), s, order), [extents], address)
    check(lambda k, s: moa.gamma_inverse(k, s, order), [address, extents], index)
    check(lambda k: moa.gamma_inverse(k, shape, order), [address], index)
    check(lambda s: moa.gamma_inverse(address, s, order), [extents], index)


@pytest.mark.parametrize("order", ORDERS)
def test_gamma_of_an_array_of_indices(order: str) -> None:
    """All addresses of a shape, each once; and back."""
    shape = (2, 3, 4)
    indices = np.moveaxis(np.indices(shape), 0, -1)
    addresses = np.arange(24).reshape(shape, order=ORDERS[order])  # pyright: ignore
    check(lambda i, s: moa.gamma(i, s, order), [indices, shape], addresses)
    check(lambda k, s: moa.gamma_inverse(k, s, order), [addresses, shape], indices)
    check(lambda i: moa.gamma(moa.iota(shape), shape, order), [0], addresses)
    check(lambda k, s: moa.gamma_inverse(k, s, order), [np.array([7, 7]), shape],
          [np.unravel_index(7, shape, ORDERS[order])] * 2)  # pyright: ignore  # fmt: skip


def test_gamma_of_an_array_of_indices_in_negative_extents() -> None:
    with pytest.raises(IndexRangeError, match="gamma: index entry 0 out of range"):
        lower(moa.gamma, *static([[0, 0]], [0, 0]))(
            np.array([[0, 0]]), np.array([-3, -4])
        )


def test_no_indices_have_no_addresses() -> None:
    none = np.zeros((0, 2), np.int64)
    check(moa.gamma, [none, [3, 4]], np.zeros(0, np.int64))
    check(moa.gamma, [none, [0, 4]], np.zeros(0, np.int64))
    check(moa.gamma_inverse, [none[:, 0], [0, 0]], none)
    check(lambda s: moa.gamma_inverse(none[:, 0], s), [[0, 0]], none)


def test_ravel_and_reshape_by_addresses() -> None:
    """`γ'(ι τA; ρA) ψ A = rav A`, and by columns that of ⊘A."""
    array = np.arange(12.0).reshape(3, 4)

    def raveled(order: str) -> Program:
        return lambda a: moa.psi(
            moa.gamma_inverse(moa.iota(moa.total(a)), moa.shape(a), order), a
        )

    check(raveled("row"), [array], array.ravel())
    check(raveled("column"), [array], array.T.ravel())


def test_gamma_in_integers_of_32_bits() -> None:
    check(moa.gamma, [np.array([1, 2], np.int32), np.array([3, 4], np.int32)], 6)
    check(moa.gamma_inverse, [np.int32(6), np.array([3, 4], np.int32)], [1, 2])


OUT_OF_RANGE = {
    "too large": ([1, 4], "expected less than 4, got 4"),
    "negative": ([1, -1], "expected at least 0, got -1"),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_gamma_of_no_index(case: str, order: str) -> None:
    index, numbers = OUT_OF_RANGE[case]
    message = f"gamma: index entry 1 out of range of axis 1: {numbers}"
    text = sourced(message)

    def program(i: Any, s: Any) -> Any:
        return moa.gamma(i, s, order)

    check_error(program, [index, [3, 4]], IndexRangeError, message)
    check_error(program, [[[0, 0], index], [3, 4]], IndexRangeError, message)
    for wrong in (index, np.array([[0, 0], index])):
        with pytest.raises(IndexRangeError, match=text):
            moa.gamma(wrong, [3, 4], order)
        with pytest.raises(IndexRangeError, match=text):
            lower(lambda s, g=wrong: moa.gamma(g, s, order), *static([3, 4]))(
                np.array([3, 4])
            )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("address", "shape", "numbers"),
    [
        (12, [3, 4], "expected less than 12, got 12"),
        (-1, [3, 4], "expected at least 0, got -1"),
        (0, [0, 4], "expected less than 0, got 0"),
        (1, [], "expected less than 1, got 1"),
    ],
)
def test_gamma_inverse_of_no_address(
    address: int, shape: list[int], numbers: str, order: str
) -> None:
    message = f"gamma_inverse: the address is out of range: {numbers}"
    given = np.array(shape, np.int64)

    def program(k: Any, s: Any) -> Any:
        return moa.gamma_inverse(k, s, order)

    check_error(program, [address, given], IndexRangeError, message)
    if shape:
        check_error(program, [[0, address][address == 0 :], given], IndexRangeError,
                    message)  # fmt: skip
    with pytest.raises(IndexRangeError, match=f"^{re.escape(message)}$"):
        moa.gamma_inverse(address, shape, order)


@pytest.mark.parametrize("order", ORDERS)
def test_gamma_inverse_of_negative_extents(order: str) -> None:
    """Their product is positive, and the address less than it."""
    message = (
        "gamma_inverse: an extent must not be negative: expected at least 0, got -3"
    )
    check_error(
        lambda k, s: moa.gamma_inverse(k, s, order), [5, [-3, -4]], ShapeError, message
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        moa.gamma_inverse(5, [-3, -4], order)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: moa.gamma([1], [2], "diagonal"),
            MoaError,
            "unknown order: expected row or column, got diagonal",
        ),
        (
            lambda: moa.gamma_inverse(1, [2], "C"),
            MoaError,
            "unknown order: expected row or column, got C",
        ),
        (
            lambda: moa.gamma([1, 2], [3]),
            ShapeError,
            "gamma needs as many index entries as there are extents: expected 1, got 2",
        ),
        (
            lambda: moa.gamma([1.5], [3]),
            DTypeError,
            "gamma expects integers, got [1.5]",
        ),
        (
            lambda: moa.gamma_inverse(1, [3.0]),
            DTypeError,
            "gamma_inverse expects integers, got [3.0]",
        ),
        (
            lambda: moa.gamma(np.int64(1), np.array([[3]])),
            ShapeError,
            "gamma expects a vector of static length as the shape, got tensor<1x1xi64>",
        ),
    ],
)
def test_errors_that_types_show(
    call: Callable[[], Any], error: type[MoaError], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


# In cells of omega, where nothing is known at the entry


def in_cells(cell: Program, rows: Sequence[Sequence[int]]) -> Any:
    """A function of each row of a matrix, compiled; equal to what is interpreted."""
    table = np.array(rows, np.int64)

    def main(v: Any) -> Any:
        return moa.omega(cell, 1, v)

    compiled = moa.jit(main).lower(moa.ArraySpec((None, table.shape[1]), "i64"))
    results: list[Any] = []
    for stage in STAGES:
        try:
            (result,) = interpret_module(compiled.module(stage), "main", [table])
        except MoaError as error:
            result = str(error)
        results.append(result)
    try:
        results.append(compiled(table))
    except MoaError as error:
        results.append(str(error))
    if all(isinstance(result, str) for result in results):
        return results
    for result in results:
        np.testing.assert_array_equal(result, results[0], strict=True)
    return results[0]


def test_gamma_in_cells() -> None:
    rows = [[1, 2, 3, 4], [0, 1, 1, 2], [4, 0, 5, 1]]

    def cell(v: Any) -> Any:
        return moa.gamma(moa.take(2, v), moa.drop(2, v))

    assert in_cells(cell, rows).tolist() == [6, 1, 4]
    for wrong in ([3, 2, 3, 4], [-1, 0, 3, 4], [0, 0, -3, -4], [0, 0, 0, 0]):
        found = in_cells(cell, [wrong])
        assert all(text.startswith("gamma: index entry 0 out of") for text in found)


def test_gamma_inverse_in_cells() -> None:
    rows = [[6, 3, 4], [1, 1, 2], [4, 5, 1]]

    def cell(v: Any) -> Any:
        return moa.gamma_inverse(moa.psi([0], v), moa.drop(1, v))

    assert in_cells(cell, rows).tolist() == [[1, 2], [0, 1], [4, 0]]
    for wrong in ([12, 3, 4], [-1, 3, 4], [5, -3, -4], [0, 0, 0], [0, 3, 0]):
        found = in_cells(cell, [wrong])
        assert all(text.startswith("gamma_inverse: ") for text in found), found
