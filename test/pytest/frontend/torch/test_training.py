"""Losses, norms and attention under `torch.compile`, forward and backward."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from moa_dialect.frontend.torch import backend, report  # noqa: E402
from moa_dialect.tools.random_torch import Function, difference  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh")


def _compiled(function, dynamic=True, **options):
    return torch.compile(function, backend=backend, dynamic=dynamic, options=options)


def _gradients(function, *arguments):
    """Results and gradients of an unlike sum of them."""
    given = [
        a.detach().clone().requires_grad_() if a.is_floating_point() else a
        for a in arguments
    ]
    result = function(*given)
    (
        result * torch.linspace(0.5, 1.5, result.numel()).view(result.shape)
    ).sum().backward()
    return [result.detach(), *[a.grad for a in given if a.is_floating_point()]]


def _same(function, *arguments, dynamic=True) -> None:
    expected = _gradients(function, *arguments)
    found = _gradients(_compiled(function, dynamic), *arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not [graph.failed for graph in report() if graph.failed]


def _left() -> set[str]:
    """What is left to PyTorch and is not free there."""
    return {
        name
        for graph in report()
        for name, (_, reason) in graph.left.items()
        if reason != "free in PyTorch"
    }


WEIGHT = torch.linspace(0.5, 1.5, 7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_index": 3, "reduction": "sum"},
        {"weight": WEIGHT, "label_smoothing": 0.1},
        {"weight": WEIGHT, "reduction": "none"},
    ],
    ids=["mean", "sum, one ignored", "smoothed, weighted", "none, weighted"],
)
def test_cross_entropy(options) -> None:
    def loss(x, target):
        return functional.cross_entropy(x * 2, target, **options)

    ignored = options.get("ignore_index", -100)
    _same(loss, torch.randn(5, 7), torch.tensor([0, 3, ignored, 6, 3]))
    names = {name for g in report() for r in g.regions for name in r.operators}
    assert "aten.gather.default" in names
    assert not {name for name in _left() if "nll" in name or "scatter" in name}


def test_cross_entropy_of_planes() -> None:
    def loss(x, target):
        return functional.cross_entropy(x, target, WEIGHT)

    _same(loss, torch.randn(2, 7, 3, 4), torch.randint(0, 7, (2, 3, 4)))


def test_a_class_out_of_range_is_an_error() -> None:
    loss = _compiled(functional.cross_entropy)
    with pytest.raises(IndexError):
        loss(torch.randn(5, 7), torch.full((5,), 7))


@pytest.mark.parametrize("groups", [2, 6])
def test_group_norm(groups: int) -> None:
    def norm(x, weight, bias):
        return functional.group_norm(x, groups, weight, bias).sin()

    # Channels that a call says would be left to PyTorch.
    _same(norm, torch.randn(2, 6, 3, 5), torch.randn(6), torch.randn(6), dynamic=False)
    forward = report()[0].regions[0].operators
    assert forward[0] == "moa.group_norm_rows.default"


def test_group_norm_of_channels_last() -> None:
    x = torch.randn(2, 6, 3, 5).to(memory_format=torch.channels_last)
    function = _compiled(lambda x: functional.group_norm(x, 3))
    found, expected = function(x), functional.group_norm(x, 3)
    torch.testing.assert_close(found, expected)
    assert found.stride() == expected.stride()


def test_group_norm_of_two_types() -> None:
    def norm(x, weight):
        return functional.group_norm(x, 2, weight, weight)

    x = torch.randn(2, 6, 5, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(6)
    found = _compiled(norm, dynamic=False)(x, weight)
    torch.testing.assert_close(found, norm(x, weight), rtol=0.02, atol=0.02)
    found.sum().backward()


def test_batch_norm_in_training() -> None:
    stock = torch.nn.BatchNorm2d(3)
    compiled = torch.compile(stock, backend=backend)
    other = torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 7)
    torch.testing.assert_close(compiled(x), other(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stock.running_var, other.running_var)
    assert not report()[0].failed


# Attention written by hand.


def _attention(q, k, v, seen):
    scores = (q @ k.transpose(-2, -1) * 8**-0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


def _written_out(q, k, v, seen):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 8**0.5
    scores = torch.where(seen, scores, -1e9)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True).detach())
    return weights / weights.sum(-1, keepdim=True) @ v


def _operands(n):
    generator = torch.Generator().manual_seed(n)
    q, k, v = torch.randn(3, 2, 3, n, 8, generator=generator)
    return q, k, v, torch.ones(n, n, dtype=torch.bool).tril()


@pytest.mark.parametrize(
    ("function", "dynamic"), [(_attention, True), (_written_out, False)]
)
def test_weights_are_made_again_for_gradients(function, dynamic: bool) -> None:
    n = 80
    saved: list[int] = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    q, k, v, seen = _operands(n)
    expected = _gradients(function, q, k, v, seen)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = _gradients(_compiled(function, dynamic), q, k, v, seen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The mask is the largest of what is kept, and no product is PyTorch's.
    assert max(saved) <= max(n * n, q.numel())
    assert not [name for name in _left() if "mm" in name]
    forward, backward = report()
    assert len(forward.regions) == 1
    assert len([r for r in backward.regions if "bmm" in str(r.operators)]) >= 4


def test_layers_share_kernels() -> None:
    def function(q, k, v, seen):
        return _attention(_attention(q, k, v, seen), k, v, seen)

    q, k, v, seen = _operands(80)
    compiled = _compiled(function, dynamic=False)
    found = _gradients(compiled, q, k, v, seen)
    torch.testing.assert_close(
        found, _gradients(function, q, k, v, seen), rtol=1e-5, atol=1e-5
    )
    _, backward = report()
    operators = [r.operators for r in backward.regions if "bmm" in str(r.operators)]
    assert len(operators) == 8
    assert len(set(operators)) == 3


def test_weights_that_are_compared_are_kept() -> None:
    def function(q, k, v, seen):
        # The gradient of a maximum asks which score it is, to the last bit.
        scores = q @ k.transpose(-2, -1)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return weights / weights.sum(-1, keepdim=True) @ v

    q, k, v, seen = _operands(80)
    expected = _gradients(function, q, k, v, seen)
    found = _gradients(_compiled(function), q, k, v, seen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_hidden_layers_are_kept() -> None:
    def function(x, up, down):
        return functional.gelu(x @ up) @ down

    arguments = torch.randn(200, 4), torch.randn(4, 64), torch.randn(64, 4)
    expected = _gradients(function, *arguments)
    found = _gradients(_compiled(function), *arguments)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert "aten.mm.default" in _left()
    names = {name for g in report() for r in g.regions for name in r.operators}
    assert "aten.mm.default" not in names


def test_small_weights_are_kept() -> None:
    q, k, v, seen = _operands(12)
    expected = _gradients(_attention, q, k, v, seen)
    found = _gradients(_compiled(_attention), q, k, v, seen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert "aten.bmm.default" in _left()


def test_weights_that_are_a_result_are_not_made_again() -> None:
    def function(q, k, v, seen):
        scores = (q @ k.transpose(-2, -1)).masked_fill(~seen, -torch.inf)
        weights = scores.softmax(-1)
        return weights, weights @ v

    q, k, v, seen = _operands(80)
    q.requires_grad_()
    weights, out = _compiled(function)(q, k, v, seen)
    expected = function(q, k, v, seen)
    torch.testing.assert_close((weights, out), expected, rtol=1e-5, atol=1e-5)


# What is left.


def test_what_is_left_says_why() -> None:
    def function(x):
        y = x.exp() * 2
        values, places = y.topk(3)
        return (
            values,
            places,
            y.sort()[0],
            y.cumsum(0),
            y.scatter_add(1, places, values),
        )

    x = torch.randn(4, 20)
    torch.testing.assert_close(_compiled(function)(x), function(x))
    (graph,) = report()
    reasons = {name: reason for name, (_, reason) in graph.left.items()}
    assert (
        reasons["aten.topk.default"] == "an order of elements, for which PyTorch sorts"
    )
    assert (
        reasons["aten.sort.default"] == "an order of elements, for which PyTorch sorts"
    )
    assert reasons["aten.cumsum.default"] == "a scan, which PyTorch does in one go"
    assert reasons["aten.scatter_add.default"].startswith("updates where data say")


# Random functions.


@pytest.mark.parametrize("seed", range(5))
def test_random_functions(seed: int) -> None:
    assert difference(seed, seed % 2 == 1, seed % 4 > 1) is None, Function(seed).text
