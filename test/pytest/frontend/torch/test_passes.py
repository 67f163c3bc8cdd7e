"""Attention written by hand is one kernel, without an array of queries by keys."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from moa_dialect.frontend.torch import backend, report  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh")

MINUS_INFINITY = float("-inf")


def _compiled(function, dynamic=True, **options):
    return torch.compile(function, backend=backend, dynamic=dynamic, options=options)


def _scores(q, k):
    return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5


def _by_einsum(q, k, v):
    weights = torch.einsum("bhnd,bhmd->bhnm", q, k).mul(0.3).softmax(-1)
    return torch.einsum("bhnm,bhmd->bhnd", weights, v)


def _by_einsum_of_rows(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).mul(0.3).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def _in_f32(q, k, v):
    weights = functional.softmax(_scores(q, k), dim=-1, dtype=torch.float32)
    return weights.to(q.dtype) @ v


def _by_baddbmm(q, k, v):
    b, h, n, _ = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = torch.arange(k.shape[1], dtype=q.dtype).expand(b * h, 1, -1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=0.1, alpha=0.3)
    return torch.bmm(scores.softmax(-1), v).view(b, h, n, -1)


def _causal(q, k, v):
    scores = _scores(q, k)
    rows, columns = (torch.arange(e) for e in scores.shape[-2:])
    hidden = columns > rows[:, None]
    return scores.masked_fill(hidden, MINUS_INFINITY).softmax(-1) @ v


def _lower_triangle(q, k, v):
    scores = _scores(q, k)
    seen = torch.tril(torch.ones(scores.shape[-2:], dtype=torch.bool))
    return torch.where(seen, scores, MINUS_INFINITY).softmax(-1) @ v


def _by_hand(q, k, v):
    scores = _scores(q, k)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights @ v / weights.sum(-1, keepdim=True)


def _of_shared_heads(q, k, v):
    k, v = (x[:, :1].expand(-1, q.shape[1], -1, -1) for x in (k, v))
    return _scores(q, k).softmax(-1) @ v


ATTENTIONS = {
    "plain": lambda q, k, v: _scores(q, k).softmax(-1) @ v,
    "soft caps": lambda q, k, v: (5 * torch.tanh(_scores(q, k) / 5)).softmax(-1) @ v,
    "matrices": lambda q, k, v: _scores(q[0, 0], k[0, 0]).softmax(-1) @ v[0, 0],
    "three axes": lambda q, k, v: _scores(q[0], k[0]).softmax(-1) @ v[0],
    "dropout of nothing": lambda q, k, v: (
        functional.dropout(_scores(q, k).softmax(-1), 0.1, False) @ v
    ),
    "einsum": _by_einsum,
    "einsum of rows": _by_einsum_of_rows,
    "in f32": _in_f32,
    "baddbmm": _by_baddbmm,
    "causal": _causal,
    "lower triangle": _lower_triangle,
    "softmax by hand": _by_hand,
    "shared heads": _of_shared_heads,
}


def _qkv(n=7, m=9, d=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n)
    shapes = (2, 3, n, d), (2, 3, m, d), (2, 3, m, d)
    return [torch.randn(s, generator=generator).to(dtype) for s in shapes]


def _products() -> list[int]:
    """How many products the regions of the only graph have."""
    (graph,) = report()
    assert not graph.failed
    assert not any("mm" in name for name in graph.left)
    found = [sum("mm" in name for name in r.operators) for r in graph.regions]
    return [count for count in found if count]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_by_hand_is_one_kernel(name: str) -> None:
    function = ATTENTIONS[name]
    compiled = _compiled(function)
    for n, m in ((7, 9), (12, 11)):
        arguments = _qkv(n, m)
        torch.testing.assert_close(compiled(*arguments), function(*arguments))
    assert _products() == [2]


def test_a_mask_is_read_where_it_is() -> None:
    def function(q, k, v, seen, added):
        scores = _scores(q, k).masked_fill(~seen, MINUS_INFINITY) + added
        return scores.softmax(-1) @ v

    q, k, v = _qkv()
    arguments = q, k, v, torch.rand(2, 1, 1, 9) > 0.3, torch.randn(7, 9)
    expected = function(*arguments)
    torch.testing.assert_close(_compiled(function)(*arguments), expected)
    assert _products() == [2]
    (graph,) = report()
    assert not graph.left


def test_half_precision_is_rounded_once() -> None:
    arguments = _qkv(dtype=torch.bfloat16)
    found = _compiled(_in_f32)(*arguments)
    exact = _in_f32(*(x.double() for x in arguments))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=8e-3, atol=1e-3)
    assert _products() == [2]


def test_nothing_of_queries_by_keys_is_allocated() -> None:
    n = 600
    arguments = _qkv(n, n)
    compiled = _compiled(_causal)
    compiled(*arguments)
    with torch.profiler.profile(profile_memory=True) as profile:
        found = compiled(*arguments)
    torch.testing.assert_close(found, _causal(*arguments))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 4 * found.numel() < 4 * n * n


def test_weights_that_are_a_result_are_stored() -> None:
    def function(q, k, v):
        weights = _scores(q, k).softmax(-1)
        return weights @ v, weights

    arguments = _qkv()
    torch.testing.assert_close(_compiled(function)(*arguments), function(*arguments))
    (graph,) = report()
    assert graph.left["aten.bmm.default"][0] == 2


def test_what_takes_more_than_one_pass_is_left() -> None:
    def function(q, k, v):
        scores = functional.layer_norm(_scores(q, k), (k.shape[-2],))
        return scores.softmax(-1) @ v

    arguments = _qkv()
    torch.testing.assert_close(_compiled(function)(*arguments), function(*arguments))
    (graph,) = report()
    assert graph.left["aten.bmm.default"][0] == 2


def test_products_stay_with_pytorch_where_the_option_says() -> None:
    function, arguments = ATTENTIONS["plain"], _qkv()
    compiled = _compiled(function, products="torch")
    torch.testing.assert_close(compiled(*arguments), function(*arguments))
    assert report()[0].left["aten.bmm.default"][0] == 2


def test_gradients_of_attention_by_hand() -> None:
    function = ATTENTIONS["plain"]
    found, expected = ([x.requires_grad_() for x in _qkv()] for _ in range(2))
    _compiled(function)(*found).square().sum().backward()
    function(*expected).square().sum().backward()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
