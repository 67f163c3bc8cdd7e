"""`sdpa` against PyTorch's function: values, gradients, errors, routing."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from moa_dialect.frontend.torch import (  # noqa: E402
    attention,
    kernels,
    sdpa,
    use_moa_attention,
)
from moa_dialect.frontend.torch.attention import reason_against  # noqa: E402

stock = functional.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def _qkv(*leading, n=3, m=5, d=4, e=6, heads=None, dtype=torch.float32):
    shared = leading if heads is None else (*leading[:-1], heads)
    shapes = (*leading, n, d), (*shared, m, d), (*shared, m, e)
    return [torch.randn(shape).to(dtype) for shape in shapes]


CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "matrices": (_qkv(), {}),
    "three axes": (_qkv(2), {}),
    "five axes": (_qkv(2, 1, 3), {}),
    "causal": (_qkv(2, 3), {"is_causal": True}),
    "causal, fewer keys": (_qkv(2, 3, n=6, m=2), {"is_causal": True}),
    "scale": (_qkv(2, 3), {"scale": 2}),
    "truth values": (_qkv(2, 3), {"attn_mask": torch.rand(3, 5) > 0.4}),
    "truth values of keys": (_qkv(2, 3), {"attn_mask": torch.rand(2, 1, 1, 5) > 0.4}),
    "truth values, repeated": (
        _qkv(2, 3),
        {"attn_mask": (torch.rand(2, 1, 1, 5) > 0.4).expand(2, 3, 3, 5)},
    ),
    "nothing is seen": (_qkv(2, 3), {"attn_mask": torch.zeros(3, 5).bool()}),
    "one row sees nothing": (
        _qkv(2, 3),
        {"attn_mask": torch.tensor([[0], [1], [1]]).bool()},
    ),
    "numbers": (_qkv(2, 3), {"attn_mask": torch.randn(2, 1, 3, 5)}),
    "minus infinity": (_qkv(2, 3), {"attn_mask": torch.full((3, 5), -torch.inf)}),
    "numbers with three axes": (_qkv(2, 3), {"attn_mask": torch.randn(3, 1, 5)}),
    "grouped": (_qkv(2, 4, heads=2), {"enable_gqa": True}),
    "grouped, three axes": (_qkv(4, heads=2), {"enable_gqa": True}),
    "grouped, of one": (_qkv(2, 4, heads=1), {"enable_gqa": True, "is_causal": True}),
    "grouped by as many": (_qkv(2, 4), {"enable_gqa": True}),
    "f64": (_qkv(2, 3, dtype=torch.float64), {}),
    "f64 with a mask of f32": (
        _qkv(2, 3, dtype=torch.float64),
        {"attn_mask": torch.randn(3, 5)},
    ),
    "bf16": (_qkv(2, 3, dtype=torch.bfloat16), {}),
    "bf16 with a mask of f32": (
        _qkv(2, 3, dtype=torch.bfloat16),
        {"attn_mask": torch.randn(3, 5)},
    ),
    "f16": (_qkv(2, 3, dtype=torch.float16), {"is_causal": True}),
    "no keys": (_qkv(2, 3, m=0), {}),
    "no queries": (_qkv(2, 3, n=0), {}),
    "no batch": (_qkv(0, 3), {}),
    "heads inside of rows": (
        [x.transpose(1, 2) for x in _qkv(2, 7, n=3, m=3, e=4)],
        {"attn_mask": torch.randn(2, 1, 1, 7)},
    ),
    "parts of a tensor": (list(torch.randn(2, 3, 5, 12).chunk(3, -1)), {}),
    "parts of a projection": (
        [
            x.unflatten(-1, (3, 4)).transpose(1, 2)
            for x in torch.randn(2, 5, 36).chunk(3, -1)
        ],
        {},
    ),
    "rows before batches": (
        list(torch.randn(3, 5, 2, 3, 4).permute(0, 2, 3, 1, 4)),
        {},
    ),
    "the first rows of a cache": (
        [
            torch.randn(2, 5, 3, 4).transpose(1, 2),
            *torch.randn(2, 2, 3, 9, 4)[:, :, :, :7],
        ],
        {"attn_mask": torch.rand(2, 1, 1, 9)[..., :7] > 0.3},
    ),
    "one head for all": (
        [torch.randn(2, 3, 5, 4), *torch.randn(2, 2, 1, 7, 4).expand(2, 2, 3, 7, 4)],
        {},
    ),
    "one batch for all": (
        [*_qkv(2, 3)[:1], *torch.randn(2, 1, 3, 5, 4).expand(2, 2, 3, 5, 4)],
        {},
    ),
    "every other row": ([x[:, :, ::2] for x in _qkv(2, 3, n=6, m=9, e=4)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    arguments, options = CASES[name]
    expected = stock(*arguments, **options)
    with use_moa_attention() as routing:
        found = functional.scaled_dot_product_attention(*arguments, **options)
    assert routing.routed == 1
    assert found.stride() == expected.stride() or 1 in found.shape or not found.numel()
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if found.element_size() == 2 else {}
    torch.testing.assert_close(found, expected, **tolerance)


GRADIENTS = [
    "matrices", "causal", "truth values", "truth values of keys", "one row sees nothing",
    "numbers", "numbers with three axes", "grouped, of one", "heads inside of rows",
]  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    arguments, options = CASES[name]
    leaves = [x.double().requires_grad_() for x in arguments]
    options = dict(options)
    mask = options.pop("attn_mask", None)
    if mask is not None and mask.is_floating_point():
        leaves.append(mask.double().requires_grad_())
        mask = None

    def function(q, k, v, of_mask=None):
        return sdpa(q, k, v, attn_mask=mask if of_mask is None else of_mask, **options)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_pytorch(dtype) -> None:
    leaves = [x.requires_grad_() for x in _qkv(2, 4, n=40, m=50, heads=2, dtype=dtype)]
    gradient = torch.randn(2, 4, 40, 6).to(dtype)

    def gradients(function):
        out = function(*leaves, enable_gqa=True)
        return torch.autograd.grad(out, leaves, gradient)

    for found, expected in zip(gradients(sdpa), gradients(stock), strict=True):
        assert found.dtype == dtype
        error = (found - expected).float().norm() / expected.float().norm()
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)


def test_gradients_that_are_not_wanted_are_not_computed() -> None:
    q, k, v = _qkv(2, 3)
    v.requires_grad_()
    (found,) = torch.autograd.grad(sdpa(q, k, v).sum(), v)
    (expected,) = torch.autograd.grad(stock(q, k, v).sum(), v)
    torch.testing.assert_close(found, expected)


def test_there_are_no_second_derivatives() -> None:
    q, k, v = (x.double().requires_grad_() for x in _qkv())
    (once,) = torch.autograd.grad(sdpa(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(once.sum(), k)


WRONG: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "axes": ([torch.randn(4), *_qkv()[1:]], {}),
    "types": ([*_qkv()[:2], torch.randn(5, 6).double()], {}),
    "whole numbers": ([torch.ones(2, 3, 4).long()] * 3, {}),
    "widths": ([torch.randn(2, 3, 5), *_qkv(2)[1:]], {}),
    "rows": ([*_qkv(2)[:2], torch.randn(2, 7, 6)], {}),
    "heads": (_qkv(2, 6, heads=2), {}),
    "heads without an axis": (_qkv(), {"enable_gqa": True}),
    "a mask of whole numbers": (_qkv(2, 3), {"attn_mask": torch.ones(3, 5).int()}),
    "a mask of another type": (_qkv(2, 3), {"attn_mask": torch.ones(3, 5).double()}),
    "a mask that does not fit": (_qkv(2, 3), {"attn_mask": torch.ones(4, 5)}),
    "a mask with one axis": (_qkv(2, 3, e=4), {"attn_mask": torch.ones(5)}),
    "a mask and causal": (
        _qkv(2),
        {"attn_mask": torch.ones(3, 5).bool(), "is_causal": True},
    ),
    "dropout": (_qkv(2, 3), {"dropout_p": 1.5}),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_pytorch(name: str) -> None:
    arguments, options = WRONG[name]
    with pytest.raises((RuntimeError, IndexError)) as expected:
        stock(*arguments, **options)
    with pytest.raises(type(expected.value)) as found:
        sdpa(*arguments, **options)
    assert str(found.value) == str(expected.value)


REASONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "arguments that are no tensors": ([None] * 3, {}),
    "tensors that are not dense, or on a device without kernels": (
        [torch.empty(3, 4, device="meta")] * 3,
        {},
    ),
    "dropout": (_qkv(), {"dropout_p": 0.5}),
    "a mask with is_causal": (
        _qkv(),
        {"attn_mask": torch.ones(3, 5).bool(), "is_causal": True},
    ),
    "element types": (_qkv(dtype=torch.int64), {}),
    "numbers of axes": ([torch.randn(3, 4), *_qkv(2)[1:]], {}),
    "a scale that is no number": (_qkv(), {"scale": torch.tensor(1.0)}),
    "shapes": (_qkv(d=7)[:1] + _qkv()[1:], {}),
    "leading axes that differ": (_qkv(2, 3, heads=1), {}),
    "heads that are no multiple": (_qkv(2, 3, heads=2), {"enable_gqa": True}),
    "a mask of fewer than two axes": (_qkv(), {"attn_mask": torch.ones(5)}),
    "a mask of more axes than the scores": (
        _qkv(),
        {"attn_mask": torch.ones(1, 3, 5)},
    ),
    "a mask that does not broadcast": (_qkv(), {"attn_mask": torch.ones(2, 5)}),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_goes_to_pytorch(reason: str) -> None:
    arguments, options = REASONS[reason]
    assert reason_against(*arguments, **options) == reason


def test_autocast_goes_to_pytorch() -> None:
    arguments = _qkv()
    with torch.autocast("cpu", torch.bfloat16):
        assert reason_against(*arguments) == "autocast"
        assert sdpa(*arguments).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transformations_of_functions_go_to_pytorch() -> None:
    q, k, v = _qkv(2, 3)
    torch.testing.assert_close(torch.func.vmap(sdpa)(q, k, v), stock(q, k, v))

    def total(function):
        return torch.func.grad(lambda q: function(q, k, v).sum())

    torch.testing.assert_close(total(sdpa)(q), total(stock)(q))
    found, expected = (
        torch.func.jvp(lambda q, f=f: f(q, k, v), (q,), (torch.ones_like(q),))
        for f in (sdpa, stock)
    )
    torch.testing.assert_close(found, expected)


def test_arguments_of_one_outline_are_looked_at_again() -> None:
    q, k, v = _qkv(2, 3)
    expected = sdpa(q, k, v)
    sdpa(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        assert sdpa(q, k, v).dtype == torch.bfloat16
    assert sdpa(*(x.to("meta") for x in (q, k, v))).device.type == "meta"
    assert sdpa(*(x.clone().requires_grad_() for x in (q, k, v))).requires_grad
    with pytest.raises(RuntimeError):
        sdpa(q, k, v.double())
    with pytest.raises(RuntimeError):
        sdpa(q, k, v, dropout_p=1.5)
    z = torch.randn(*q.shape, dtype=torch.cfloat).conj().imag
    dense = z.clone()
    torch.testing.assert_close(sdpa(z, k, v), sdpa(dense, k, v))
    torch.testing.assert_close(sdpa(q, k, v), expected)
    with torch.inference_mode():
        assert sdpa(q, k, v).is_inference()


def test_unaligned_elements() -> None:
    q, k, v = _qkv(2, 3)
    buffer = torch.zeros(q.nbytes + 1, dtype=torch.uint8).numpy()[1:]
    torch.testing.assert_close(sdpa(q, k, v), stock(q, k, v))
    unaligned = torch.from_numpy(buffer.view("float32").reshape(q.shape))
    assert unaligned.data_ptr() % 4
    unaligned.copy_(q)
    torch.testing.assert_close(sdpa(unaligned, k, v), stock(q, k, v))


def test_one_kernel_serves_all_lengths() -> None:
    kernels.laid_out_kernel.cache_clear()
    kernels.CALLS.clear()
    attention._CALLS.clear()
    for batch, n, m in ((2, 3, 5), (1, 8, 8), (4, 1, 2)):
        arguments = _qkv(batch, 3, n=n, m=m)
        torch.testing.assert_close(sdpa(*arguments), stock(*arguments))
    assert kernels.laid_out_kernel.cache_info().misses == 1


@pytest.mark.parametrize("mask", [None, ("i1", (None, None)), ("f32", (None, 1, 1, 7))])
def test_no_array_of_queries_by_keys_is_stored(mask) -> None:
    problem = kernels.Problem("f32", 4, None, (8, 8), True, mask, mask is None, None)
    used = [
        kernels.forward_kernel(problem, True),
        kernels.gradient_kernel(problem, "query", ()),
        kernels.gradient_kernel(problem, "key", ()),
        kernels.value_kernel(problem),
    ]
    for kernel in used:
        assert kernel.intermediates == 0
        # The size of scratch memory does not depend on extents: that would raise.
        assert kernel.scratch_bytes < 1 << 20


def test_the_operators_are_well_formed() -> None:
    q, k, v = (x.requires_grad_() for x in _qkv(2, 3))
    operator = torch.ops.moa.attention.default
    for mask in (None, torch.rand(2, 1, 1, 5) > 0.4):
        torch.library.opcheck(operator, (q, k, v, mask, False, None))


# Routing.


def _attention(*arguments, **options):
    return functional.scaled_dot_product_attention(*arguments, **options)


def test_routing_counts() -> None:
    arguments = _qkv(2, 3)
    with use_moa_attention() as outer:
        _attention(*arguments)
        with use_moa_attention() as inner:
            _attention(*arguments, dropout_p=0.5)
            with outer:
                _attention(*arguments, is_causal=True)
    assert (outer.routed, outer.left) == (2, 0)
    assert (inner.routed, inner.left) == (0, 1)
    assert inner.reasons == {"dropout": 1}
    assert repr(outer) == "<use_moa_attention: 2 calls routed, 0 left>"
    assert functional.scaled_dot_product_attention is stock


def test_routing_is_of_one_thread() -> None:
    arguments = _qkv(2, 3)
    with use_moa_attention() as routing:
        thread = threading.Thread(target=lambda: _attention(*arguments))
        thread.start()
        thread.join()
    assert (routing.routed, routing.left) == (0, 0)


def test_routing_ends_with_an_exception() -> None:
    with pytest.raises(TypeError), use_moa_attention():
        _attention()
    assert functional.scaled_dot_product_attention is stock


def test_a_module_of_pytorch_is_routed() -> None:
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    expected, _ = module(x, x, x, need_weights=False)
    with use_moa_attention() as routing:
        found, _ = module(x, x, x, need_weights=False)
    assert routing.routed == 1
    torch.testing.assert_close(found, expected)
