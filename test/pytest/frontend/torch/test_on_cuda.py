"""What PyTorch's front end does with tensors on a GPU, in the emulator.

The same on a GPU is in `test/pytest/gpu`.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from typing import NamedTuple

import pytest
import torch
from torch.nn import functional

from moa_dialect.frontend.torch import backend, calls, dynamo, kernels, report

stock = functional.scaled_dot_product_attention


class Emulated(NamedTuple):
    """The target of tensors on the CPU, as if they were on a GPU."""

    target: str = "cuda"
    chip: str = "sm_90a"
    emulate: bool = True


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dynamo, kernels):
        monkeypatch.setattr(module, "target_of", lambda device: Emulated())


def heads_inside(*shape: int) -> torch.Tensor:
    batch, heads, rows, width = shape
    return torch.randn(batch, rows, heads, width).transpose(1, 2)


@pytest.mark.parametrize("name", ["causal", "grouped"])
def test_attention(name: str) -> None:
    of_keys = 1 if name == "grouped" else 2
    q, k, v = (torch.randn(1, heads, 5, 8) for heads in (2, of_keys, of_keys))
    is_causal = name == "causal"
    call = kernels._OnDevice(0, is_causal, None, with_lse=False)
    wanted = stock(q, k, v, is_causal=is_causal, enable_gqa=True)
    for _ in range(2):
        out, lse = call(q, k, v, None)
        torch.testing.assert_close(out, wanted)
        assert lse is None


def test_gradients_with_the_heads_inside_of_the_rows_and_a_mask() -> None:
    given = [heads_inside(1, 2, 5, 8).requires_grad_() for _ in range(3)]
    mask = torch.rand(1, 1, 5, 5) > 0.2
    q, k, v = (each.detach() for each in given)
    out, lse = kernels._OnDevice(0, False, None, with_lse=True)(q, k, v, mask)
    wanted = stock(*given, attn_mask=mask)
    torch.testing.assert_close(out, wanted)
    assert out.stride() == wanted.stride()
    gradient = torch.randn_like(wanted)
    assert lse is not None
    wanted = torch.autograd.grad(wanted, given, gradient)
    of_all = [True] * 3 + [False]
    found = kernels.run_backward(gradient, q, k, v, mask, out, lse, False, None, of_all)
    for each, expected in zip(found, wanted, strict=False):
        torch.testing.assert_close(each, expected)


def test_a_result_has_the_strides_of_pytorch() -> None:
    q = torch.randn(1, 2, 8, 5).transpose(2, 3)
    out, lse = kernels._OnDevice(0, False, None, with_lse=False)(q, q, q, None)
    assert lse is None
    assert out.stride() == torch.empty_like(q).stride()
    torch.testing.assert_close(out, stock(q, q, q))


def few(heads: int, of_keys: int, rows: int, keys: int) -> list[torch.Tensor]:
    counts = ((heads, rows), (of_keys, keys), (of_keys, keys))
    return [torch.randn(1, count, length, 8) for count, length in counts]


def test_few_queries_have_a_kernel_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One for all numbers of keys, which is cut into parts."""
    monkeypatch.setattr(kernels, "MANY_KEYS", 100)
    made = kernels.forward_kernel.cache_info().misses
    for keys in (100, 230):
        q, k, v = few(4, 2, 1, keys)
        call = kernels._OnDevice(0, False, None, with_lse=False)
        wanted = stock(q, k, v, enable_gqa=True)
        torch.testing.assert_close(call(q, k, v, None)[0], wanted)
        problem, kernel, _ = call._prepared
        assert problem.queries == (1, 4, 1)
        assert len(kernel.schedules) == 2
    assert kernels.forward_kernel.cache_info().misses == made + 1


@pytest.mark.parametrize(
    ("queries", "keys", "wanted"),
    [
        ((1, 32, 1, 128), (1, 8, 8192, 128), True),
        ((4, 32, 1, 128), (4, 32, 8192, 128), True),
        ((2, 8, 16, 64), (2, 2, 600, 64), True),
        ((2, 8, 17, 64), (2, 2, 600, 64), False),  # More rows.
        ((64, 32, 1, 128), (64, 8, 8192, 128), False),  # Enough to do without parts.
        ((1, 32, 1, 128), (1, 8, 511, 128), False),
        ((1, 128), (8192, 128), False),
        ((1, 0, 1, 128), (1, 0, 8192, 128), False),
    ],
)
def test_which_queries_are_few(
    queries: tuple[int, ...], keys: tuple[int, ...], wanted: bool
) -> None:
    assert kernels.are_few(queries, keys) == wanted


def test_one_query_lies_both_ways() -> None:
    """Keys are not copied for it, whether heads are inside of their rows or not."""
    q = heads_inside(1, 2, 1, 8)
    assert kernels.is_interleaved(q)
    for k in (torch.randn(1, 2, 5, 8), heads_inside(1, 2, 5, 8)):
        call = kernels._OnDevice(0, False, None, with_lse=False)
        out, _ = call(q, k, k, None)
        torch.testing.assert_close(out, stock(q, k, k))
        problem, *_ = call._prepared
        assert problem.interleaved == kernels.is_interleaved(k)
        given = kernels._in_order(problem, (q, k))
        assert [x.data_ptr() for x in given] == [q.data_ptr(), k.data_ptr()]


def rows(x: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return functional.silu(x).sum(-1) * n, torch.softmax(x + n, -1).mT


def test_regions_of_a_graph_run_there() -> None:
    torch.compiler.reset()
    report(clear=True)
    compiled = torch.compile(rows, backend=backend, dynamic=True)
    for shape, n in (((3, 7), 5), ((4, 9), 6)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x, n), rows(x, n))
    assert report()[-1].regions
    assert not report()[-1].failed


def test_a_part_on_several_devices_or_none_of_them() -> None:
    tensors = [torch.empty(2), torch.empty(2, device="meta")]
    with pytest.raises(dynamo.UntranslatableError, match="several devices"):
        dynamo._target(tensors)


def test_devices_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls.target_of(torch.device("cpu")) == calls.ON_CPU
    assert calls.target_of(torch.device("meta")) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (8, 6))
    of_number = calls._target_of_device.__wrapped__
    assert of_number(0) == calls.Target("cuda", "sm_86")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (6, 1))
    assert of_number(0) is None
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert of_number(0) is None
