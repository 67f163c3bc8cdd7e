"""PyTorch's front end on a GPU: attention with gradients, and compiled models.

Skipped where PyTorch finds no CUDA device.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"
)

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from moa_dialect.frontend.torch import (  # noqa: E402
    backend,
    report,
    sdpa,
    use_moa_attention,
)
from moa_dialect.frontend.torch.attention import reason_against  # noqa: E402

stock = functional.scaled_dot_product_attention

LIMITS = {torch.float64: 1e-11, torch.float32: 5e-5, torch.bfloat16: 2e-2}


def normal(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, device="cuda").to(dtype)


def close(found: Any, wanted: Any, limit: float) -> None:
    assert found.device == wanted.device
    assert found.shape == wanted.shape
    wanted = wanted.double()
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error <= limit, float(error)


def heads_inside(b: int, h: int, n: int, d: int) -> Any:
    return normal(b, n, h, d).transpose(1, 2)


def grown(b: int, h: int, n: int, d: int) -> Any:
    return normal(b, h, n + 9, d)[:, :, :n]


ARGUMENTS: dict[str, Any] = {
    "plain": lambda: ([normal(2, 3, 65, 64) for _ in range(3)], {}),
    "causal": lambda: ([normal(2, 3, 70, 32) for _ in range(3)], {"is_causal": True}),
    "bf16": lambda: (
        [normal(2, 3, 65, 64, dtype=torch.bfloat16) for _ in range(3)],
        {},
    ),
    "f64": lambda: ([normal(3, 30, 16, dtype=torch.float64) for _ in range(3)], {}),
    "two axes": lambda: ([normal(n, 16) for n in (5, 40, 40)], {"scale": 0.3}),
    "grouped": lambda: (
        [normal(2, h, 33, 64) for h in (8, 2, 2)],
        {"enable_gqa": True, "is_causal": True},
    ),
    "heads inside": lambda: ([heads_inside(2, 4, 50, 32) for _ in range(3)], {}),
    "a cache": lambda: (
        [normal(2, 4, 1, 64), grown(2, 4, 100, 64), grown(2, 4, 100, 64)],
        {},
    ),
    "a mask": lambda: (
        [normal(2, 3, 20, 32) for _ in range(3)],
        {"attn_mask": torch.rand(2, 1, 1, 20, device="cuda") > 0.3},
    ),
    "a bias": lambda: (
        [normal(2, 3, 20, 32) for _ in range(3)],
        {"attn_mask": normal(3, 20, 20)},
    ),
}


def doubled(arguments: list[Any], options: dict[str, Any]) -> Any:
    mask = options.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        options = {**options, "attn_mask": mask.double()}
    return stock(*[each.double() for each in arguments], **options)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_attention(name: str) -> None:
    arguments, options = ARGUMENTS[name]()
    assert reason_against(*arguments, **options) is None
    for _ in range(2):
        found = sdpa(*arguments, **options)
        assert found.dtype == arguments[0].dtype
        limit = LIMITS[arguments[0].dtype]
        close(found, doubled(arguments, options), limit)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gradients(name: str) -> None:
    arguments, options = ARGUMENTS[name]()
    given = [each.detach().requires_grad_() for each in arguments]
    wide = [each.detach().double().requires_grad_() for each in arguments]
    options = dict(options)
    mask, wide_options = options.get("attn_mask"), dict(options)
    if mask is not None and mask.dtype != torch.bool:
        options["attn_mask"] = mask.detach().requires_grad_()
        wide_options["attn_mask"] = mask.detach().double().requires_grad_()
        given.append(options["attn_mask"])
        wide.append(wide_options["attn_mask"])
    found = sdpa(*given[:3], **options)
    wanted = stock(*wide[:3], **wide_options)
    of_result = torch.randn_like(wanted)
    found = torch.autograd.grad(found, given, of_result.to(found.dtype))
    wanted = torch.autograd.grad(wanted, wide, of_result)
    for each, expected in zip(found, wanted, strict=True):
        close(each, expected, 4 * LIMITS[arguments[0].dtype])


def test_what_goes_to_pytorch() -> None:
    q, k, v = (normal(2, 3, 5, 8) for _ in range(3))
    assert reason_against(q, k.cpu(), v) == "tensors on different devices"
    with pytest.raises(RuntimeError):
        sdpa(q, k.cpu(), v)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert reason_against(q, k, v) == "autocast"
        assert sdpa(q, k, v).dtype == torch.bfloat16


class Block(nn.Module):
    """A layer of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        b, n, width = x.shape
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (p.view(b, n, self.heads, -1).transpose(1, 2) for p in parts)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(out.transpose(1, 2).reshape(b, n, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


def test_a_model_with_its_calls_routed() -> None:
    torch.manual_seed(0)
    model = Block(64, 4).cuda()
    x = normal(3, 50, 64)
    with torch.no_grad():
        wanted = model.double()(x.double())
        model.float()
        with use_moa_attention() as routing:
            found = model(x)
    assert (routing.routed, routing.left) == (1, 0)
    close(found, wanted, 1e-4)


def gradients(model: Any, call: Any, x: Any) -> list[Any]:
    return list(torch.autograd.grad(call(x).square().mean(), list(model.parameters())))


def test_a_compiled_model_and_its_gradients() -> None:
    torch.manual_seed(0)
    model = Block(64, 4).cuda()
    report(clear=True)
    compiled = torch.compile(model, backend=backend, dynamic=True)
    for n in (50, 70):
        x = normal(3, n, 64)
        wanted = model.double()(x.double()).detach()
        of_wide = gradients(model, model, x.double())
        model.float()
        close(compiled(x), wanted, 1e-4)
        for found, expected in zip(gradients(model, compiled, x), of_wide, strict=True):
            close(found, expected, 1e-3)
    operators = [o for graph in report() for r in graph.regions for o in r.operators]
    assert "moa.attention" in operators
    assert "moa.attention_backward" in operators
    assert any("layer_norm" in operator for operator in operators)
    assert not any(graph.failed for graph in report()), report()


def by_hand(q: Any, k: Any, v: Any, seen: Any) -> Any:
    scores = q @ k.transpose(-2, -1) * 8**-0.5
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v


def test_attention_written_by_hand_is_one_kernel() -> None:
    report(clear=True)
    compiled = torch.compile(by_hand, backend=backend, dynamic=True)
    q, k, v = (normal(2, 4, 37, 8) for _ in range(3))
    seen = torch.rand(2, 1, 1, 37, device="cuda") > 0.2
    close(
        compiled(q, k, v, seen), by_hand(q.double(), k.double(), v.double(), seen), 1e-4
    )
    assert [len(region.operators) for region in report()[-1].regions] == [6]


def rows(x: Any, weight: Any) -> Any:
    x = functional.silu(x) * weight + 1
    return functional.layer_norm(x, x.shape[-1:]), x.sum(-1), torch.softmax(x, -1)


def test_rows_of_a_compiled_function() -> None:
    report(clear=True)
    compiled = torch.compile(rows, backend=backend, dynamic=True)
    for shape in ((5, 300), (17, 1000)):
        x, weight = normal(*shape), normal(shape[-1])
        wanted = rows(x.double(), weight.double())
        for found, expected in zip(compiled(x, weight), wanted, strict=True):
            close(found, expected, 1e-4)
    assert report()[-1].regions
    assert not report()[-1].failed


def test_a_compiled_model_can_be_recorded_in_a_graph() -> None:
    torch.manual_seed(0)
    model = Block(64, 4).cuda().eval()
    compiled = torch.compile(model, backend=backend, dynamic=False)
    x = normal(2, 40, 64)
    with torch.no_grad():
        compiled(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = compiled(x)
        x.normal_()
        graph.replay()
        close(result, model(x), 1e-4)
