"""`torch.compile` with moa: regions, what is left, symbolic extents, training."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402
from torch.nn import functional  # noqa: E402

from moa_dialect.errors import MoaError, OptionError  # noqa: E402
from moa_dialect.frontend.torch import backend, graph_breaks, report  # noqa: E402
from moa_dialect.frontend.torch.dynamo import Region, Settings  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh")


def _compiled(function, dynamic=True, **options):
    return torch.compile(function, backend=backend, dynamic=dynamic, options=options)


def _regions() -> list[tuple[str, ...]]:
    return [each.operators for graph in report() for each in graph.regions]


def test_pointwise_operators_are_one_region() -> None:
    function = _compiled(lambda x, y: torch.tanh(x * y + 1))
    x, y = torch.randn(4, 7), torch.randn(7)
    torch.testing.assert_close(function(x, y), torch.tanh(x * y + 1))
    assert _regions() == [("aten.mul.Tensor", "aten.add.Tensor", "aten.tanh.default")]


def test_an_operator_without_translation_breaks_no_graph() -> None:
    def function(x):
        return torch.cumsum(torch.exp(x) * 2, 0).sin() + 1

    x = torch.randn(4, 7)
    torch.testing.assert_close(_compiled(function)(x), function(x))
    (graph,) = report()
    reason = "a scan, which PyTorch does in one go"
    assert graph.left == {"aten.cumsum.default": (1, reason)}
    assert len(graph.regions) == 2
    assert not graph_breaks()


def test_a_graph_break_is_reported() -> None:
    def function(x):
        y = x.exp() + 1
        torch._dynamo.graph_break()
        return y * y - 1

    x = torch.ones(3)
    torch.testing.assert_close(_compiled(function)(x), function(x))
    assert sum(graph_breaks().values()) == 1


def test_one_compilation_serves_all_lengths() -> None:
    def function(x, y):
        rows = functional.layer_norm(x + y, (8,))
        return (
            torch.cat([rows, rows * 2], 1).view(-1, 8) - rows.mean(1, keepdim=True)[0]
        )

    compiled = _compiled(function)
    for batch, n in ((2, 3), (4, 5), (3, 11)):
        x, y = torch.randn(batch, n, 8), torch.randn(n, 8)
        torch.testing.assert_close(compiled(x, y), function(x, y))
    assert len(report()) == 1
    assert counters["stats"]["unique_graphs"] == 1


def test_extents_are_values_where_no_argument_has_them() -> None:
    def function(x, n):
        return (torch.full((n, 1), 0.5) + 1) * x.sum()

    compiled = _compiled(function)
    for n in (3, 5):
        x = torch.randn(7)
        torch.testing.assert_close(compiled(x, n), function(x, n))
    assert len(report()) == 1


def test_strides_are_read_and_kept() -> None:
    def function(x):
        return torch.exp(x.transpose(1, 2)) * 2

    x = torch.randn(2, 5, 3).transpose(1, 2)
    found, expected = _compiled(function)(x), function(x)
    torch.testing.assert_close(found, expected)
    assert found.stride() == expected.stride()


def test_parts_of_tensors_are_arguments() -> None:
    def function(x):
        a, b = x.chunk(2, -1)
        return torch.sigmoid(a) * b + 1

    x = torch.randn(3, 8)
    torch.testing.assert_close(_compiled(function)(x), function(x))


def test_an_argument_that_is_changed() -> None:
    def function(x):
        x.mul_(2).add_(1)
        return x.exp() + x

    x = torch.randn(3, 4)
    y = x.clone()
    torch.testing.assert_close(_compiled(function)(x), function(y))
    torch.testing.assert_close(x, y)


def test_a_loss_of_all_elements() -> None:
    x, y = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    loss = _compiled(functional.mse_loss)(x, y)
    expected = functional.mse_loss(x, y)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, x) + torch.autograd.grad(expected, x)
    torch.testing.assert_close(*found)
    assert [len(graph.regions) for graph in report()] == [1, 1]
    assert "no translation" not in str(report())


def test_a_number_that_is_computed_of_extents() -> None:
    x = torch.randn(4, 7, requires_grad=True)
    compiled = _compiled(lambda x: x.std(-1))
    (found,) = torch.autograd.grad(compiled(x).sum(), x)
    (expected,) = torch.autograd.grad(x.std(-1).sum(), x)
    torch.testing.assert_close(found, expected)
    assert not any(graph.failed for graph in report())


def test_parts_of_a_tensor_are_read_where_they_lie() -> None:
    def function(x):
        a, b = x.chunk(2, -1)
        return functional.silu(a) * b

    x = torch.randn(3, 8)
    compiled = _compiled(function, dynamic=False)
    torch.testing.assert_close(compiled(x), function(x))
    assert _regions() == [("aten.split.Tensor", "aten.silu.default", "aten.mul.Tensor")]


def test_embeddings_are_read_by_what_follows() -> None:
    words, places = nn.Embedding(11, 8), nn.Embedding(9, 8)

    def function(numbers):
        rows = words(numbers) + places(torch.arange(numbers.shape[1]))
        return functional.layer_norm(rows, (8,))

    compiled = _compiled(function)
    with torch.no_grad():
        for shape in ((2, 5), (3, 9)):
            numbers = torch.randint(0, 11, shape)
            torch.testing.assert_close(compiled(numbers), function(numbers))
        with pytest.raises(IndexError):
            compiled(torch.full((2, 5), 11))
    assert len(_regions()) == 1


def test_calls_look_at_the_arguments_they_get() -> None:
    compiled = _compiled(lambda x, y: torch.exp(x) * y)
    for n in (4, 6):
        x, y = torch.randn(n, 3), torch.randn(n, 3)
        for a in (x, torch.randn(3, n).t(), torch.randn(n, 6)[:, ::2]):
            torch.testing.assert_close(compiled(a, y), torch.exp(a) * y)
    negative = torch.randn(4, 3, dtype=torch.cfloat).conj().imag
    assert negative.is_neg()
    y = torch.randn(4, 3)
    torch.testing.assert_close(compiled(negative, y), torch.exp(negative) * y)


def test_attention_is_one_region() -> None:
    def function(q, k, v, mask):
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    q, k, v = (torch.randn(2, 5, 3, 4).transpose(1, 2) for _ in range(3))
    mask = torch.rand(2, 1, 1, 5) > 0.3
    compiled = _compiled(function)
    torch.testing.assert_close(compiled(q, k, v, mask), function(q, k, v, mask))
    assert _regions() == [("moa.attention",)]


def test_attention_without_kernel_is_left() -> None:
    def function(q):
        return functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)

    _compiled(function)(torch.randn(2, 3, 5, 4))
    assert "moa.attention" not in str(report())


def test_linear_maps_of_many_rows_are_kernels() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64, bias=False))
    compiled = _compiled(model)
    with torch.no_grad():
        for rows in ((2, 3), (4, 50)):
            x = torch.randn(*rows, 64)
            torch.testing.assert_close(compiled(x), model(x))
    (graph,) = report()
    assert _regions() == [
        ("aten.addmm.default", "aten.gelu.default"),
        ("aten.mm.default",),
    ]
    assert not graph.left


@pytest.mark.parametrize("products", ["torch", "moa"])
def test_products_go_where_the_option_says(products: str) -> None:
    a, b = torch.randn(4, 5), torch.randn(5, 3)
    compiled = _compiled(lambda a, b: (a @ b).exp() * 2, products=products)
    torch.testing.assert_close(compiled(a, b), (a @ b).exp() * 2)
    (graph,) = report()
    assert ("aten.mm.default" in graph.left) == (products == "torch")


def test_everything_takes_single_operators() -> None:
    x = torch.randn(4)
    for everything in (False, True):
        torch._dynamo.reset()
        report(clear=True)
        compiled = _compiled(lambda x: x.exp(), everything=everything)
        torch.testing.assert_close(compiled(x), x.exp())
        assert len(_regions()) == everything


def test_wrong_options() -> None:
    assert Settings.of(None) == Settings()
    with pytest.raises(
        OptionError, match="expected one of products, everything, got p"
    ):
        Settings.of({"p": 1})
    with pytest.raises(
        OptionError, match=r"products: expected 'auto' or .*, got 'all'"
    ):
        Settings.of({"products": "all"})


def test_folds_over_other_axes_are_kernels_of_their_own() -> None:
    def function(x):
        y = torch.softmax(x, -1)
        return (y * 2).sum(0).exp() + 1

    x = torch.randn(6, 5)
    torch.testing.assert_close(_compiled(function)(x), function(x))
    assert [len(region) for region in _regions()] == [2, 3]


def test_a_region_that_cannot_be_compiled_is_left(monkeypatch) -> None:
    def refuse(self, module):
        raise MoaError("refused")

    monkeypatch.setattr(Region, "__init__", refuse)
    x = torch.randn(3)
    torch.testing.assert_close(_compiled(lambda x: x.exp() + 1)(x), x.exp() + 1)
    (graph,) = report()
    assert graph.failed == [(("aten.exp.default", "aten.add.Tensor"), "refused")]
    assert "not compiled: aten.exp.default, aten.add.Tensor: refused" in str(graph)
    assert graph.left["aten.exp.default"][0] == 1


def test_a_report_is_text() -> None:
    _compiled(lambda x: torch.cumsum(x.exp() + 1, 0))(torch.randn(3))
    assert str(report()[0]) == (
        "inference graph: 1 regions of moa\n"
        "  1 x aten.exp.default, aten.add.Tensor\n"
        "left to PyTorch:\n"
        "  1 x aten.cumsum.default: a scan, which PyTorch does in one go"
    )


def test_the_backend_by_its_name() -> None:
    from torch._dynamo import list_backends, register_backend

    if "moa" not in list_backends():
        register_backend(backend, name="moa")
    x = torch.randn(3)
    compiled = torch.compile(lambda x: x.exp() + 1, backend="moa")
    torch.testing.assert_close(compiled(x), x.exp() + 1)
    assert _regions()


# Training.


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 128), nn.Linear(128, width)

    def forward(self, x):
        b, n, width = x.shape
        parts = self.projections(self.norms[0](x)).chunk(3, -1)
        q, k, v = (p.view(b, n, self.heads, -1).transpose(1, 2) for p in parts)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(out.transpose(1, 2).reshape(b, n, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Model(nn.Module):
    """A small transformer that predicts the next of some numbers."""

    def __init__(self, numbers: int = 31, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(numbers, width)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.last = nn.Linear(width, numbers)

    def forward(self, numbers):
        return self.last(self.blocks(self.embedding(numbers)))


def _losses(model, call, steps: int = 50) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    losses: list[float] = []
    for step in range(steps):
        first = torch.randint(0, 31, (8, 1), generator=generator)
        numbers = (first + 7 * torch.arange(14 + step % 3)) % 31
        logits = call(numbers[:, :-1].contiguous())
        loss = functional.cross_entropy(logits.flatten(0, 1), numbers[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_model_is_trained_as_without_moa() -> None:
    torch.manual_seed(0)
    stock = Model()
    model = copy.deepcopy(stock)
    compiled = _compiled(model)

    numbers = torch.randint(0, 31, (8, 13))
    for each, call in ((stock, stock), (model, compiled)):
        call(numbers).square().mean().backward()
        assert all(p.grad is not None for p in each.parameters())
    for (name, a), b in zip(stock.named_parameters(), model.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() <= 1e-5 * a.grad.norm(), name

    expected, found = _losses(stock, stock), _losses(model, compiled)
    assert expected[-1] < 0.5 * expected[0]
    assert max(abs(a - b) / a for a, b in zip(expected, found, strict=True)) < 1e-4
    assert [graph.kind for graph in report()] == ["forward", "backward"]
    assert not any(graph.failed for graph in report())
    assert not graph_breaks()
    assert ("moa.attention",) in _regions()
    assert ("moa.attention_backward",) in _regions()
