"""Calls of compiled kernels: what the short way of a repeated call must not change."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.errors import DTypeError, LayoutError, MoaError, ShapeError
from moa_dialect.lowering import engine
from moa_dialect.lowering import kernel as kernels
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def doubled(a: Any) -> Any:
    return a + a


def scaled(a: Any, *, by: Any = None, also: Any = None) -> Any:
    result = a if by is None else a * float(by)
    return result if also is None else result + also


# Which kernel a call takes


def test_options_that_are_equal_in_python_are_told_apart():
    program = moa.jit(lambda a, *, by: a + (1 if type(by) is bool else type(by)(3)))
    for _ in range(2):
        np.testing.assert_array_equal(program(A, by=1), A + 3)
        np.testing.assert_array_equal(program(A, by=True), A + 1)
        np.testing.assert_array_equal(program(A, by=1.0), A + 3)
    zero = moa.jit(lambda a, *, by: a * by)
    for _ in range(2):
        assert np.signbit(zero(np.ones(1), by=-0.0))[0]
        assert not np.signbit(zero(np.ones(1), by=0.0))[0]


def test_arrays_by_keyword_are_told_from_options():
    program = moa.jit(scaled)
    b = np.array([1, 2, 3], np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(program(A, by=2.0), 2 * A)
        np.testing.assert_array_equal(program(A, also=A), A + A)
        np.testing.assert_array_equal(program(A, by=2, also=2 * A), 4 * A)
        with pytest.raises(MoaError):
            program(A, also=b)


def test_functions_and_tuples_may_be_options():
    program = moa.jit(lambda a, *, f, t: f(a) * float(t[0]))
    for _ in range(2):
        np.testing.assert_array_equal(program(A, f=doubled, t=(2,)), 4 * A)
        np.testing.assert_array_equal(program(A, f=doubled, t=(3,)), 6 * A)


def test_options_that_cannot_be_hashed_are_an_error_every_time():
    program = moa.jit(scaled)
    for _ in range(2):
        with pytest.raises(MoaError, match="must be hashable values"):
            program(A, by=[1])


def test_the_number_of_arguments_is_checked_every_time():
    program = moa.jit(doubled, specs=[moa.ArraySpec((None, 3), np.float32)])
    for _ in range(2):
        np.testing.assert_array_equal(program(A), 2 * A)
        with pytest.raises(MoaError, match="expected as many arguments"):
            program(A, A)


def test_functions_of_one_module_are_told_apart():
    text = """
func.func @sum(%a: tensor<3xf64>) -> tensor<f64> {
  %s = moa.reduce add %a : tensor<3xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}
func.func @product(%a: tensor<3xf64>) -> tensor<f64> {
  %s = moa.reduce mul %a : tensor<3xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}"""
    context = Context()
    register_dialects(context)
    module = ModuleParser(context, text).parse_module()
    a = np.array([2.0, 3.0, 4.0])
    assert engine.compile_module(module, "sum")(a) == 9
    assert engine.compile_module(module, "product")(a) == 24


# What a kernel takes


@pytest.fixture(params=["static", "dynamic"])
def kernel(request: pytest.FixtureRequest) -> Any:
    """A kernel that doubles f32 arrays of shape (2, 3), or of (n, 3)."""
    if request.param == "static":
        return moa.jit(doubled).lower(A)
    return moa.jit(doubled).lower(moa.ArraySpec((None, 3), np.float32))


ODD = np.zeros(4 * 6 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
ODD[:] = A


@pytest.mark.parametrize(
    "array",
    [A, A.T.copy().T, np.repeat(A, 2, 1)[:, ::2], A[::-1], ODD],
    ids=["dense", "column-major", "strided", "reversed", "unaligned"],
)
def test_any_layout_is_right_every_time(kernel: Any, array: np.ndarray):
    for _ in range(2):
        np.testing.assert_array_equal(kernel(array), 2 * array)


def test_what_does_not_fit_is_an_error_every_time(kernel: Any):
    for _ in range(2):
        np.testing.assert_array_equal(kernel(A), 2 * A)
        with pytest.raises(DTypeError, match="expected float32, got float64"):
            kernel(A.astype(np.float64))
        with pytest.raises(DTypeError, match="expected float32, got >f4"):
            kernel(A.astype(">f4"))
        with pytest.raises(ShapeError, match="expected extent 3 on axis 1, got 2"):
            kernel(A[:, :2].copy())
        with pytest.raises(ShapeError, match="expected rank 2, got rank 1"):
            kernel(A[0])
        with pytest.raises(DTypeError, match="masked array"):
            kernel(np.ma.masked_array(A))
        with pytest.raises(MoaError, match="expected 1 argument, got 2"):
            kernel(A, A)


def test_without_a_copy_elements_have_to_be_aligned():
    program = moa.jit(doubled, copy=False)
    with pytest.raises(LayoutError, match=r"at multiples of 4 bytes, got one at 0x"):
        program(ODD)


def test_a_batch_of_vmap_is_no_tensor():
    torch = pytest.importorskip("torch")
    compiled = moa.jit(doubled).lower(A)
    with pytest.raises(DTypeError, match="argument 0: unsupported tensor"):
        torch.vmap(compiled)(torch.zeros(4, 2, 3))


def test_results_are_fresh_arrays(kernel: Any):
    first, second = kernel(A), kernel(A)
    second[:] = 0
    np.testing.assert_array_equal(first, 2 * A)


def test_a_dynamic_extent_may_be_anything():
    kernel = moa.jit(doubled).lower(moa.ArraySpec((None, 3), np.float32))
    for count in (2, 5, 0, 1, 2):
        array = np.ones((count, 3), np.float32)
        np.testing.assert_array_equal(kernel(array), 2 * array)


def test_a_failed_check_leaves_the_kernel_usable():
    pick = moa.jit(lambda a, i: moa.psi(i, a))
    a, good, bad = np.arange(4.0), np.array([3]), np.array([4])
    for _ in range(3):
        assert pick(a, good) == 3
        with pytest.raises(moa.IndexRangeError, match="4"):
            pick(a, bad)


def test_the_address_is_found_without_the_field(monkeypatch: pytest.MonkeyPatch):
    assert kernels._by_layout(A) == kernels._by_attribute(A) == A.ctypes.data
    monkeypatch.setattr(kernels, "_HEAD", kernels._HEAD + 8)
    assert kernels._fastest() is kernels._by_attribute
    monkeypatch.undo()
    assert kernels._fastest() is kernels._by_layout


# Tensors of PyTorch


def tensors() -> dict[str, Callable[[Any], Any]]:
    """Tensors with the values of A."""

    def unaligned(torch: Any) -> Any:
        return torch.from_numpy(ODD)

    return {
        "dense": lambda torch: torch.from_numpy(A),
        "transposed": lambda torch: torch.from_numpy(A.T.copy()).T,
        "strided": lambda torch: torch.from_numpy(np.repeat(A, 2, 1))[:, ::2],
        "negated": lambda torch: torch._neg_view(torch.from_numpy(-A)),
        "unaligned": unaligned,
        "parameter": lambda torch: torch.nn.Parameter(
            torch.from_numpy(A), requires_grad=False
        ),
        "offset": lambda torch: torch.from_numpy(np.concatenate([A, A]))[2:],
    }


@pytest.mark.filterwarnings("ignore:The given NumPy array is not aligned")
@pytest.mark.parametrize("name", tensors())
def test_tensors_of_any_layout_are_right_every_time(kernel: Any, name: str):
    torch: Any = pytest.importorskip("torch")
    tensor = tensors()[name](torch)
    for _ in range(2):
        result = kernel(tensor)
        assert type(result) is torch.Tensor
        np.testing.assert_array_equal(result.numpy(), 2 * A)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int32", "bool"])
def test_tensors_of_any_dtype(dtype: str):
    torch: Any = pytest.importorskip("torch")
    program = moa.jit(lambda a: moa.reverse(a))
    tensor = torch.arange(4).to(getattr(torch, dtype))
    for _ in range(2):
        result = program(tensor)
        assert result.dtype == tensor.dtype
        assert torch.equal(result, tensor.flip(0))


def test_tensors_that_do_not_fit_are_errors_every_time(kernel: Any):
    torch: Any = pytest.importorskip("torch")
    tensor = torch.from_numpy(A)
    for _ in range(2):
        assert torch.equal(kernel(tensor), 2 * tensor)
        with pytest.raises(LayoutError, match="does not require grad"):
            kernel(tensor.clone().requires_grad_())
        with torch.no_grad():
            assert torch.equal(kernel(tensor.clone().requires_grad_()), 2 * tensor)
        with pytest.raises(LayoutError, match="expected a tensor on device cpu"):
            kernel(tensor.to("meta"))
        with pytest.raises(LayoutError, match="expected a strided tensor"):
            kernel(tensor.to_sparse())
        with pytest.raises(DTypeError, match="expected float32, got float64"):
            kernel(tensor.double())
        with pytest.raises(ShapeError, match="expected extent 3 on axis 1, got 2"):
            kernel(tensor[:, :2].contiguous())
        with pytest.raises(MoaError, match="expected 1 argument, got 2"):
            kernel(tensor, tensor)


def test_several_results_and_mixed_arguments():
    torch: Any = pytest.importorskip("torch")
    program = moa.jit(lambda a, b: (a + b, a - b))
    tensor = torch.from_numpy(A)
    for _ in range(2):
        total, difference = program(tensor, tensor)
        assert torch.equal(total, 2 * tensor)
        assert torch.equal(difference, 0 * tensor)
        total, difference = program(tensor, A)
        assert torch.equal(total, 2 * tensor)
        total, difference = program(A, A)
        assert type(total) is np.ndarray


def test_a_dynamic_kernel_takes_empty_tensors():
    torch: Any = pytest.importorskip("torch")
    kernel = moa.jit(doubled).lower(moa.ArraySpec((None, 3), np.float32))
    for count in (2, 0, 1):
        assert torch.equal(kernel(torch.ones(count, 3)), 2 * torch.ones(count, 3))


# Several threads of Python


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_eight_threads_call_one_kernel(kind: str):
    program = moa.jit(moa.attention)

    def softmax(s: np.ndarray) -> np.ndarray:
        e = np.exp(s - s.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def check(seed: int) -> float:
        q, k, v = np.random.default_rng(seed).standard_normal((3, 1, 4, 8))
        expected = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(8)) @ v
        given = (q, k, v)
        if kind == "torch":
            torch: Any = pytest.importorskip("torch")
            given = tuple(map(torch.from_numpy, given))
        return max(
            float(np.abs(np.asarray(program(*given)) - expected).max())
            for _ in range(300)
        )

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(check, range(8))) < 1e-12
