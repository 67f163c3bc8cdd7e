"""The front end: arrays in and out, tracing, caching, threads."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.lowering import engine

torch: Any = pytest.importorskip("torch")

A = np.arange(12.0).reshape(3, 4)
V = np.arange(3.0)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries that are compiled from here on; the kernel cache starts empty."""
    seen: list[str] = []
    compilation_of = engine.compilation_of

    def counting(module: Any, entry: str | None) -> engine.Compilation:
        seen.append(str(entry))
        return compilation_of(module, entry)

    monkeypatch.setattr(engine, "compilation_of", counting)
    monkeypatch.setattr(engine, "_KERNELS", {})
    return seen


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of the inputs that kernels are given from here on."""
    seen: list[int] = []
    run_at = engine.Kernel.run_at

    def watching(self: Any, addresses: list[int], extents: list[int]) -> None:
        seen.extend(addresses[: len(self.names)])
        run_at(self, addresses, extents)

    monkeypatch.setattr(engine.Kernel, "run_at", watching)
    return seen


# Arguments that are NumPy arrays


double = moa.jit(lambda a: a + a)


def test_contiguous_arrays_are_not_copied(passed_on: list[int]) -> None:
    double(A)
    assert passed_on == [A.ctypes.data]


def unaligned(array: np.ndarray) -> np.ndarray:
    data = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:]
    return data.view(array.dtype).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, np.ndarray] = {
    "strided": np.arange(48.0).reshape(6, 8)[::2, ::2],
    "transposed": A.T,
    "reversed": A[::-1],
    "both axes reversed": A[::-1, ::-1],
    "unaligned": unaligned(A),
    "broadcast": np.broadcast_to(np.float64(3), (3, 4)),
    "a column": A[:, 1],
    "a Fortran array": np.asfortranarray(A),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_are_copied(layout: str, passed_on: list[int]) -> None:
    array = LAYOUTS[layout]
    np.testing.assert_array_equal(double(array), array + array)
    assert passed_on != [array.ctypes.data]


@pytest.mark.parametrize(
    "array",
    [read_only(A), A[1:], A[:1, :], A[::2][:1], A[:0].T, np.float64(2), A[1, 1]],
    ids=["read-only", "rows", "a row", "one of strided rows", "empty", "0-d", "number"],
)
def test_layouts_that_need_no_copy(array: Any) -> None:
    strict = moa.jit(lambda a: a + a, copy=False)
    np.testing.assert_array_equal(strict(array), array + array)


def test_read_only_arrays_are_not_copied(passed_on: list[int]) -> None:
    array = read_only(A)
    double(array)
    assert passed_on == [array.ctypes.data]


def test_subclasses_count_as_arrays() -> None:
    result = double(A.view(np.recarray))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, A + A)


def test_arguments_are_not_written_to() -> None:
    array = A.copy()
    moa.jit(lambda a, b: moa.inner("add", "mul", a, b))(array, array.T)
    np.testing.assert_array_equal(array, A)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        (2.5, np.float64),
        (3, np.int64),
        (True, np.bool_),
        (np.float32(2.5), np.float32),
        (np.int32(7), np.int32),
    ],
)
def test_numbers_are_arrays_of_rank_0(number: Any, dtype: type) -> None:
    result = moa.jit(lambda a: moa.where(a == a, a, a))(number)
    assert (result.shape, result.dtype) == ((), np.dtype(dtype))
    assert result == number


def test_numbers_beside_arrays() -> None:
    np.testing.assert_array_equal(moa.jit(lambda a, s: a * s)(A, 3.0), 3 * A)


# Results


def test_results_are_fresh() -> None:
    array = A.copy()
    compiled = moa.jit(lambda a: a)
    first, second = compiled(array), compiled(array)
    assert first.flags.writeable
    assert not np.shares_memory(first, array)
    assert not np.shares_memory(first, second)
    first[:] = -1
    np.testing.assert_array_equal(second, A)
    np.testing.assert_array_equal(array, A)


def test_one_array_as_two_results() -> None:
    first, second = moa.jit(lambda a: (a, a))(A)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, second)


def test_interpreted_results_are_fresh() -> None:
    array = A.copy()
    result = moa.interpret(lambda a: a, array)
    assert not np.shares_memory(result, array)
    transposed = moa.interpret(lambda a: moa.transpose(a), array)
    assert not np.shares_memory(transposed, array)


def test_several_results_of_different_dtypes() -> None:
    total, positive, rank = moa.jit(
        lambda a: (moa.reduce("add", a), a > 5.0, moa.dim(a))
    )(A)
    np.testing.assert_array_equal(total, A.sum(0))
    np.testing.assert_array_equal(positive, A > 5)
    assert (rank, rank.dtype) == (2, np.int64)


def test_constant_results() -> None:
    np.testing.assert_array_equal(moa.jit(lambda a: V)(A), V)
    assert moa.jit(lambda a: 3.0)(A) == 3.0


def test_no_arguments() -> None:
    np.testing.assert_array_equal(moa.jit(lambda: moa.iota(4))(), range(4))


# Empty arrays


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (0, 0), (2, 0, 3)])
def test_empty_arrays_through_pointwise_operations(shape: tuple[int, ...]) -> None:
    def program(a: Any) -> Any:
        return moa.exp(a) * 2.0

    array = np.ones(shape)
    assert moa.jit(program)(array).shape == shape
    assert moa.interpret(program, array).shape == shape
    dynamic = moa.jit(program).lower(moa.ArraySpec((None,) * len(shape)))
    assert dynamic(array).shape == shape


@pytest.mark.parametrize(
    ("op", "dtype", "identity"),
    [
        ("add", np.float64, 0.0),
        ("mul", np.float64, 1.0),
        ("max", np.float64, -np.inf),
        ("min", np.float64, np.inf),
        ("max", np.float32, -np.inf),
        ("add", np.int64, 0),
        ("mul", np.int32, 1),
        ("max", np.int32, -(2**31)),
        ("min", np.int64, 2**63 - 1),
        ("and", np.bool_, True),
        ("or", np.bool_, False),
        ("xor", np.bool_, False),
    ],
)
def test_reducing_nothing_gives_the_identity(
    op: str, dtype: type, identity: object
) -> None:
    def program(a: Any) -> Any:
        return moa.reduce(op, a)

    for shape in ((0,), (0, 2)):
        array = np.zeros(shape, dtype)
        dynamic = moa.jit(program).lower(moa.ArraySpec((None,) * len(shape), dtype))
        for run in (
            moa.jit(program),
            dynamic,
            lambda a: moa.interpret(program, a),
        ):
            result = run(array)
            assert result.dtype == dtype
            assert result.shape == shape[1:]
            assert (result == identity).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_products_of_narrow_floats_are_summed_in_f32(dtype: Any) -> None:
    ones = np.ones((3, 5000), dtype)
    product = moa.jit(lambda a: a @ moa.transpose(a))(ones)
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, np.array(5000).astype(dtype))
    with pytest.raises(moa.DTypeError, match="must have one element type, got f"):
        moa.jit(lambda a, b: a @ b)(np.ones((2, 2), np.float16), np.ones((2, 2)))


def test_empty_products() -> None:
    matmul = moa.jit(lambda a, b: a @ b)
    np.testing.assert_array_equal(
        matmul(np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3))
    )
    assert matmul(np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    outer = moa.jit(lambda a, b: moa.outer("mul", a, b))
    assert outer(np.ones(0), np.ones((2, 3))).shape == (0, 2, 3)


def test_omega_over_an_empty_frame_and_empty_cells() -> None:
    row_sums = moa.jit(lambda a: moa.omega(lambda r: moa.reduce("add", r), 1, a))
    assert row_sums(np.ones((0, 3))).shape == (0,)
    np.testing.assert_array_equal(row_sums(np.ones((3, 0))), np.zeros(3))
    shape = moa.interpret(
        lambda a: moa.omega(lambda r: moa.reduce("add", r), 1, a), np.ones((0, 3))
    ).shape
    assert shape == (0,)


def test_empty_index_arrays() -> None:
    result = moa.jit(lambda a, i: moa.psi(i, a))(A, np.zeros((0, 1), np.int64))
    assert result.shape == (0, 4)
    nothing = moa.jit(lambda a, i: moa.psi(i, a))(A[:0], np.zeros((0, 1), np.int64))
    assert nothing.shape == (0, 4)


@pytest.mark.parametrize("extents", [0, [0], [0, 3], [2, 0]])
def test_empty_iotas(extents: Any) -> None:
    expected = (0,) if extents == 0 else (*extents, len(extents))
    assert moa.jit(lambda: moa.iota(extents))().shape == expected


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_shape_dim_and_total_of_any_rank(shape: tuple[int, ...]) -> None:
    """The shape of a scalar is the empty vector, and it has one element."""

    def program(a: Any) -> Any:
        return moa.shape(a), moa.dim(a), moa.total(a)

    for run in (moa.jit(program), lambda a: moa.interpret(program, a)):
        extents, rank, total = run(np.ones(shape))
        assert extents.tolist() == list(shape)
        assert extents.shape == (len(shape),)
        assert (rank, total) == (len(shape), np.prod(shape, dtype=int))


# The sign of zero


def test_the_sign_of_zero_survives_a_sum() -> None:
    """`+ red <-0>` is -0, as the right fold has it: 0 is not added to it."""

    def program(a: Any) -> Any:
        return moa.reduce("add", a)

    for array in (np.array([-0.0]), np.array([-0.0, -0.0, -0.0])):
        assert np.signbit(moa.interpret(program, array))
        assert np.signbit(moa.jit(program)(array))


# Torch


TORCH_DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"]


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_torch_tensors_in_and_out(name: str, passed_on: list[int]) -> None:
    dtype = getattr(torch, name)
    tensor = torch.tensor([[1, 0, 2], [3, 1, 0]]).to(dtype)
    result = moa.jit(lambda a: moa.where(a == a, a, a))(tensor)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == dtype
    assert torch.equal(result, tensor)
    assert result.data_ptr() != tensor.data_ptr()
    assert passed_on == [tensor.data_ptr()]


@pytest.mark.parametrize("name", TORCH_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_torch_tensors_of_rank_0_and_empty_ones(
    name: str, shape: tuple[int, ...]
) -> None:
    tensor = torch.ones(shape).to(getattr(torch, name))
    result = moa.jit(lambda a: moa.where(a == a, a, a))(tensor)
    assert result.shape == tensor.shape
    assert torch.equal(result, tensor)


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
def test_torch_views(name: str) -> None:
    base = torch.arange(24).reshape(4, 6).to(getattr(torch, name))
    for view in (base.T, base[::2, 1:], base[1], base[:1].expand(3, 6), base[:, 2]):
        assert torch.equal(double(view), view + view)


def test_results_are_tensors_if_one_argument_is() -> None:
    add = moa.jit(lambda a, b: (a + b, a - b))
    for arguments in ((torch.tensor(V), V), (V, torch.tensor(V))):
        total, difference = add(*arguments)
        assert torch.equal(total, torch.tensor(V + V))
        assert torch.equal(difference, torch.zeros(3, dtype=torch.float64))
    assert isinstance(add(V, V)[0], np.ndarray)


def test_tensors_that_require_grad_where_grad_is_off() -> None:
    tensor = torch.ones(3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        result = double(tensor)
    assert not result.requires_grad
    assert torch.equal(double(tensor.detach()), result)


def test_torch_results_may_be_written_to() -> None:
    tensor = torch.ones(3)
    result = double(tensor)
    result += 1
    assert torch.equal(tensor, torch.ones(3))


def test_bfloat16_of_numpy() -> None:
    array = np.array([1, 2.5], ml_dtypes.bfloat16)
    result = double(array)
    assert result.dtype == array.dtype
    assert result.tolist() == [2, 5]


# DLPack


class Exporter:
    """What speaks DLPack and is neither of NumPy nor of torch."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_dlpack_without_a_copy(passed_on: list[int]) -> None:
    array = A.copy()
    np.testing.assert_array_equal(double(Exporter(array)), A + A)
    tensor = torch.tensor(V)
    np.testing.assert_array_equal(double(Exporter(tensor)), V + V)
    assert passed_on == [array.ctypes.data, tensor.data_ptr()]


def test_dlpack_with_strides() -> None:
    np.testing.assert_array_equal(double(Exporter(A[:, ::2])), 2 * A[:, ::2])


# Compiling once


def test_a_program_is_compiled_once(compilations: list[str]) -> None:
    program = moa.jit(lambda a: a + 1.0)
    for _ in range(3):
        program(A)
    assert compilations == ["main"]


def test_equal_programs_share_a_kernel(compilations: list[str]) -> None:
    for _ in range(3):
        moa.jit(lambda a: a + 1.0)(A)
    assert len(compilations) == 1
    first, second = (moa.jit(lambda a: a + 1.0).lower(A) for _ in range(2))
    assert first.kernel is second.kernel


def test_other_shapes_dtypes_and_options_are_other_kernels(
    compilations: list[str],
) -> None:
    program = moa.jit(lambda a, k=1.0: a * k)
    arrays = (A, A.T, A[0], A.astype(np.float32))
    for count, array in enumerate(arrays, 1):
        program(array)
        program(array)
        assert len(compilations) == count
    program(A, k=2.0)
    program(A, k=2.0)
    assert len(compilations) == len(arrays) + 1
    np.testing.assert_array_equal(program(A, k=2.0), 2 * A)
    np.testing.assert_array_equal(program(A), A)


def test_other_programs_are_other_kernels(compilations: list[str]) -> None:
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(moa.jit(lambda a: a + value)(A), A + value)  # noqa: B023
    assert len(compilations) == 2


def test_a_dynamic_kernel_serves_every_extent(compilations: list[str]) -> None:
    compiled = moa.jit(lambda a: a + a).lower(moa.ArraySpec((None, None)))
    for shape in ((1, 1), (0, 3), (7, 2)):
        np.testing.assert_array_equal(compiled(np.ones(shape)), 2 * np.ones(shape))
    assert len(compilations) == 1


def test_kernels_are_kept_by_arrays_of_other_layout(compilations: list[str]) -> None:
    program = moa.jit(lambda a: a + 1.0)
    program(np.ones((4, 4)))
    program(np.ones((4, 4)).T[::-1])
    assert len(compilations) == 1


# Threads


def slow() -> tuple[moa.Compiled, np.ndarray]:
    """A kernel and an argument that it takes some tenths of a second for."""
    compiled = moa.jit(lambda a, b: moa.inner("add", "mul", a, b)).lower(
        moa.ArraySpec((None, None)), moa.ArraySpec((None, None))
    )
    size = 256
    while True:
        matrix = np.random.default_rng(0).normal(size=(size, size))
        compiled(matrix, matrix)
        start = time.perf_counter()
        compiled(matrix, matrix)
        if time.perf_counter() - start > 0.15 or size > 2048:
            return compiled, matrix
        size = size * 5 // 4


def test_a_call_releases_the_interpreter_lock() -> None:
    compiled, matrix = slow()
    ticks: list[float] = []
    is_done = threading.Event()

    def tick() -> None:
        while not is_done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    time.sleep(0.02)
    start = time.perf_counter()
    compiled(matrix, matrix)
    end = time.perf_counter()
    is_done.set()
    ticker.join()
    # The middle of the call: neither what comes before it nor what comes after.
    middle = [t for t in ticks if start + 0.02 < t < end - 0.02]
    assert len(middle) >= 5


def test_threads_share_a_kernel() -> None:
    compiled = moa.jit(lambda a, b: moa.inner("add", "mul", a, b)).lower(
        moa.ArraySpec((None, None)), moa.ArraySpec((None, None))
    )
    assert compiled.kernel
    generator = np.random.default_rng(0)
    inputs = [generator.integers(-3, 4, (n, n)).astype(float) for n in range(20, 60)]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for repetition in range(3):
            for matrix in inputs[offset:] + inputs[:offset]:
                if not np.array_equal(compiled(matrix, matrix), matrix @ matrix):
                    wrong.append(repetition)

    threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_may_trace_and_compile_at_once() -> None:
    results: dict[int, np.ndarray] = {}

    def work(n: int) -> None:
        program = moa.jit(lambda a: moa.omega(lambda r: r * float(n), 1, a))
        results[n] = program(A)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        np.testing.assert_array_equal(results[n], n * A)


# Tracing: functions, names, closures


def test_the_entry_has_the_name_of_the_function() -> None:
    def scaled(values: Any, factor: Any) -> Any:
        return values * factor

    text = moa.jit(scaled).lower(A, 2.0).text("moa")
    assert "func.func @scaled(%values: tensor<3x4xf64>, %factor: tensor<f64>)" in text
    assert getattr(moa.jit(scaled), "__name__", None) == "scaled"


def test_a_lambda_is_main() -> None:
    assert "func.func @main(%x: " in moa.jit(lambda x: x).lower(A).text("moa")


def test_arguments_without_a_name() -> None:
    text = moa.jit(lambda *arrays: arrays[0] + arrays[1]).lower(A, A).text("moa")
    assert "%arg0: tensor<3x4xf64>, %arg1: tensor<3x4xf64>" in text


def test_cell_functions_are_named_and_kept_once() -> None:
    def row_sum(row: Any) -> Any:
        return moa.reduce("add", row)

    def program(a: Any, b: Any) -> Any:
        return moa.omega(row_sum, 1, a) + moa.omega(row_sum, 1, b)

    text = moa.jit(program).lower(A, A).text("moa")
    assert text.count("func.func private @row_sum(%x: tensor<4xf64>)") == 1
    assert text.count("moa.omega @row_sum <1>") == 2


def test_cell_functions_of_one_name_for_different_cells() -> None:
    def total(cell: Any) -> Any:
        return moa.reduce("add", cell)

    def program(a: Any) -> Any:
        return moa.omega(total, 1, a), moa.omega(total, 2, a)

    text = moa.jit(program).lower(A).text("moa")
    assert "@total(" in text
    assert "@total_2(" in text
    rows, columns = moa.jit(program)(A)
    np.testing.assert_array_equal(rows, A.sum(1))
    np.testing.assert_array_equal(columns, A.sum(0))


def test_a_cell_function_may_have_the_name_of_the_program() -> None:
    def same(a: Any) -> Any:
        def inner_same(row: Any) -> Any:
            return row + 1.0

        inner_same.__name__ = "same"
        return moa.omega(inner_same, 1, a)

    np.testing.assert_array_equal(moa.jit(same)(A), A + 1)


def test_omega_nests() -> None:
    """Sums of the rows of the planes, and a scalar operation inside."""

    def program(a: Any) -> Any:
        return moa.omega(
            lambda plane: moa.omega(lambda row: moa.reduce("add", row) * 2.0, 1, plane),
            2,
            a,
        )

    a = np.arange(24.0).reshape(2, 3, 4)
    for run in (moa.jit(program), lambda a: moa.interpret(program, a)):
        np.testing.assert_array_equal(run(a), 2 * a.sum(-1))


def test_omega_of_two_arrays_agrees_on_trailing_frame_axes() -> None:
    """The excess of the longer frame comes first, unlike in J."""
    a = np.arange(24.0).reshape(2, 3, 4)
    b = np.arange(6.0).reshape(3, 2)

    def program(a: Any, b: Any) -> Any:
        return moa.omega(lambda x, y: moa.outer("mul", x, y), (1, 1), a, b)

    expected = a[..., :, None] * b[None, :, None, :]
    for run in (moa.jit(program), lambda *arrays: moa.interpret(program, *arrays)):
        np.testing.assert_array_equal(run(a, b), expected)
    flipped = moa.jit(
        lambda b, a: moa.omega(lambda y, x: moa.outer("mul", y, x), (1, 1), b, a)
    )
    np.testing.assert_array_equal(flipped(b, a), expected.swapaxes(-1, -2))


def test_cell_functions_that_differ_in_the_last_bit_of_a_number() -> None:
    low, high = 0.1, float(np.nextafter(0.1, 1))

    def program(a: Any) -> Any:
        return moa.omega(lambda r: r * low, 0, a) - moa.omega(lambda r: r * high, 0, a)

    assert moa.jit(program)(np.ones(1)) == low - high
    assert moa.interpret(program, np.ones(1)) == low - high


def test_closures_over_numbers_and_arrays_of_numpy() -> None:
    def scale_by(factor: float, offset: np.ndarray) -> Callable[..., Any]:
        return moa.jit(lambda a: a * factor + offset)

    np.testing.assert_array_equal(scale_by(3.0, A)(A), 3 * A + A)
    rows = moa.jit(lambda a: moa.omega(lambda r: r * V[1] + np.arange(4.0), 1, a))
    np.testing.assert_array_equal(rows(A), A + np.arange(4.0))


def test_functions_as_scalar_operations() -> None:
    """A right fold: 1 - (2 - (3 - 4))."""
    fold = moa.jit(lambda v: moa.reduce(lambda x, y: x - y, v))
    assert fold(np.array([1.0, 2, 3, 4])) == -2
    assert fold(np.array([1, 2, 3, 4], np.int32)) == -2

    def larger(x: Any, y: Any) -> Any:
        return moa.maximum(x, abs(y)) + 1

    table = moa.jit(lambda v: moa.outer(larger, v, v))
    np.testing.assert_array_equal(table(V), np.maximum.outer(V, V) + 1)
    product = moa.jit(
        lambda a, b: moa.inner(lambda x, y: x + y, lambda x, y: x * y, a, b)
    )
    np.testing.assert_array_equal(product(A, A.T), A @ A.T)


def test_scalar_functions_may_close_over_numbers() -> None:
    half = 0.5
    fold = moa.jit(lambda v: moa.reduce(lambda x, y: x + half * y, v))
    assert fold(np.array([1.0, 2, 4])) == 1 + 0.5 * (2 + 0.5 * 4)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (lambda a: 1.0 - a, 1 - A),
        (lambda a: 2.0 / (a + 1.0), 2 / (A + 1)),
        (lambda a: 2.0**a, 2**A),
        (lambda a: 1.0 + 2.0 * a, 1 + 2 * A),
        (lambda a: moa.where(a < 3.0, a, -a), np.where(A < 3, A, -A)),
        (lambda a: moa.where(a == 3.0, 1.0, a), np.where(A == 3, 1, A)),
        (lambda a: moa.where(True ^ (a > 1.0), 1.0, a), np.where(A > 1, A, 1)),
        (lambda a: abs(-a), A),
    ],
)
def test_operators_with_the_number_on_the_left(
    program: Callable[..., Any], expected: np.ndarray
) -> None:
    np.testing.assert_array_equal(moa.jit(program)(A), expected)
    np.testing.assert_array_equal(moa.interpret(program, A), expected)


def test_numpy_arrays_on_the_left_of_operators() -> None:
    np.testing.assert_array_equal(moa.jit(lambda a: A + a)(A), A + A)
    np.testing.assert_array_equal(moa.jit(lambda a: A @ a)(A.T), A @ A.T)
    np.testing.assert_array_equal(moa.jit(lambda a: np.float64(2) * a)(A), 2 * A)


def test_indexing_with_brackets() -> None:
    np.testing.assert_array_equal(moa.jit(lambda a: a[1])(A), A[1])
    np.testing.assert_array_equal(moa.jit(lambda a: a[1, 2])(A), A[1, 2])
    np.testing.assert_array_equal(moa.jit(lambda a: a[()])(A), A)


def test_transpose_is_the_inverse_of_numpy() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    result = moa.jit(lambda a: moa.transpose(a, [1, 2, 0]))(a)
    assert result.shape == (4, 2, 3)
    np.testing.assert_array_equal(result, np.transpose(a, np.argsort([1, 2, 0])))


def test_options_are_keyword_arguments() -> None:
    program = moa.jit(lambda a, *, power=1, sign="plus": a**power * (sign == "plus"))
    np.testing.assert_array_equal(program(A, power=2.0, sign="plus"), A**2)


def test_keyword_arguments_that_are_arrays_are_arguments() -> None:
    """They are read at each call, and their shapes and names tell kernels apart."""

    def program(a: Any, *, left: Any = None, right: Any = None, power: Any = 1) -> Any:
        a = a if left is None else left - a
        return a**power if right is None else a**power - right

    jitted = moa.jit(program)
    for b in (V, V + 1, V[:1]):
        a = A[0, : len(b)]
        for run in (jitted, lambda *a, **named: moa.interpret(program, *a, **named)):
            np.testing.assert_array_equal(run(a, left=b), b - a)
            np.testing.assert_array_equal(run(a, right=b, power=2.0), a**2 - b)
            np.testing.assert_array_equal(run(a, right=b, left=a), -b)
    lowered = jitted.lower(A[0], right=moa.ArraySpec((None,)), power=1.0)
    np.testing.assert_array_equal(lowered(A[0], A[1]), A[0] - A[1])
    assert "%right" in lowered.text("moa")


def test_a_keyword_tensor_is_no_constant() -> None:
    torch: Any = pytest.importorskip("torch")
    program = moa.jit(lambda a, *, b: a + b)
    a, b = torch.ones(2), torch.zeros(2)
    assert program(a, b=b).tolist() == [1, 1]
    b += 1
    assert program(a, b=b).tolist() == [2, 2]


def test_a_compiled_program_used_while_another_is_traced() -> None:
    """On arrays of NumPy: its result is a constant of the program."""
    inner = moa.jit(lambda b: b + 1.0)
    np.testing.assert_array_equal(moa.jit(lambda a: a + inner(A))(A), A + (A + 1))


# Functions called on NumPy arrays compute at once


def test_eager_functions() -> None:
    np.testing.assert_array_equal(moa.reduce("add", A), A.sum(0))
    np.testing.assert_array_equal(moa.transpose(A), A.T)
    np.testing.assert_array_equal(moa.psi([1], A), A[1])
    np.testing.assert_array_equal(moa.iota(3), [0, 1, 2])
    np.testing.assert_array_equal(moa.shape(A), [3, 4])
    np.testing.assert_array_equal(moa.outer("mul", V, V), np.outer(V, V))
    np.testing.assert_array_equal(moa.inner("add", "mul", A, A.T), A @ A.T)
    np.testing.assert_array_equal(moa.where(A > 3, A, 0.0), np.where(A > 3, A, 0))
    np.testing.assert_array_equal(moa.maximum(A, 5.0), np.maximum(A, 5))
    np.testing.assert_array_equal(moa.cast(A, "i32"), A.astype(np.int32))
    np.testing.assert_array_equal(moa.exp(V), np.exp(V))
    assert (moa.dim(A), moa.total(A)) == (2, 12)
    rows = moa.omega(lambda r: moa.reduce("max", r), 1, A)
    np.testing.assert_array_equal(rows, A.max(1))


def test_library_programs_compute_at_once_too() -> None:
    weights = moa.library.softmax(A)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-15)


def test_import_does_not_load_the_heavy_dependencies() -> None:
    """Neither torch nor the upstream bindings, before something is compiled.

    To compile what has no folds that depend on each other takes no algebra, and to
    compile for a CPU none of the code for GPUs.
    """
    code = (
        "import sys, numpy, moa_dialect; "
        "loaded = lambda *names: print([m for m in names if m in sys.modules]); "
        "loaded('torch', 'mlir', 'sympy', 'z3'); "
        "moa_dialect.jit(lambda a, b: a @ b)(numpy.eye(2), numpy.eye(2)); "
        "loaded('torch', 'sympy', 'z3', 'moa_dialect.lowering.to_gpu')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[]", "[]"]


# Stages


@pytest.mark.parametrize(
    ("stage", "sign"),
    [
        ("moa", "moa.inner add mul"),
        ("dnf", "moa.comprehension"),
        ("fused", "moa.fold add"),
        ("onf", "moa.load"),
        ("target", "scf.for"),
        ("llvm", "llvm.func"),
        ("asm", "main:"),
    ],
)
def test_text_of_every_stage(stage: str, sign: str) -> None:
    compiled = moa.jit(lambda a, b: a @ b).lower(A, A.T)
    assert sign in compiled.text(stage)
    assert compiled.text(stage) == compiled.text(stage)


def test_stages_do_not_change_the_program() -> None:
    compiled = moa.jit(lambda a, b: a @ b).lower(A, A.T)
    before = compiled.text("moa")
    for stage in ("asm", "llvm", "target", "onf", "fused", "dnf"):
        compiled.text(stage)
    assert compiled.text("moa") == before
    np.testing.assert_array_equal(compiled(A, A.T), A @ A.T)


def test_notation() -> None:
    compiled = moa.jit(lambda a, b: a @ b).lower(A, A.T)
    assert "+•×" in compiled.notation()
    assert compiled.notation(ascii=True).isascii()


# A choice between scalars


def test_where_in_a_scalar_function() -> None:
    def larger(a: Any, b: Any) -> Any:
        return moa.where(a > b, a, b)

    x = np.array([1.0, 4.0, -2.0])
    assert moa.jit(lambda x: moa.reduce(larger, x))(x) == 4
    assert moa.interpret(lambda x: moa.reduce(larger, x), x) == 4
    clipped = moa.omega(lambda a: moa.where(a > 0, a, 0.0), 0, x)
    np.testing.assert_array_equal(clipped, [1, 4, 0])


def test_where_in_a_scalar_function_needs_a_truth_value() -> None:
    with pytest.raises(moa.DTypeError, match="expected a truth value as the condition"):
        moa.reduce(lambda a, b: moa.where(a, a, b), np.ones(3))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_conversions_that_no_processor_has(dtype: str) -> None:
    x = np.array([1.0, 1 / 3, 70000.0, -0.0])
    result = moa.jit(lambda x: moa.cast(moa.cast(x, dtype), "f64"))(x)
    expected = moa.interpret(lambda x: moa.cast(moa.cast(x, dtype), "f64"), x)
    np.testing.assert_array_equal(result, expected)
