"""What torch-mlir exports: raised, fused, compiled, equal to PyTorch.

Attention and the normalisations are one pass over the keys or the row; nothing as large
as the matrix of scores is stored.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp

from moa_dialect import compile_linalg
from moa_dialect.frontend.linalg import read
from moa_dialect.lowering.pipelines import lower_to
from moa_dialect.ops.normal_form import CascadeOp, ComprehensionOp, FoldOp
from moa_dialect.passes.check_dnf import intermediate_arrays
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.split_programs import SplitProgramsPass
from moa_dialect.types import shape_of

torch = pytest.importorskip("torch")
pytest.importorskip("torch_mlir")

DATA = Path(__file__).parent / "data"
TOLERANCE = 2e-6

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

Function = Callable[..., Any]


def exported(model: Any, arrays: Sequence[Any], **options: Any) -> str:
    """A model as linalg on tensors."""
    from torch_mlir import fx

    return str(
        fx.export_and_import(
            model,
            *arrays,
            output_type="linalg-on-tensors",
            func_name="main",
            **options,
        )
    )


def module_of(function: Function) -> Any:
    """A function as a module of PyTorch."""

    class Model(torch.nn.Module):
        def forward(self, *arrays: Any) -> Any:
            return function(*arrays)

    return Model()


def fused(text: str) -> ModuleOp:
    """The raised program after fusion, not split into kernels."""
    module = read(text).module
    lower_to(module, "fused", Context())
    return module


def passes_of(module: ModuleOp) -> list[str]:
    """What goes over an axis in the results of a program, innermost folds aside."""
    found: list[str] = []
    for op in module.walk():
        if isinstance(op, FoldOp | CascadeOp):
            parent = op.parent_op()
            while isinstance(parent, ComprehensionOp):
                parent = parent.parent_op()
            if not isinstance(parent, FoldOp | CascadeOp):
                found.append(op.name)
    return found


def check(model: Any, arrays: Sequence[Any], text: str | None = None) -> Any:
    """Compile what is exported and compare it with PyTorch."""
    text = exported(model, arrays) if text is None else text
    compiled = compile_linalg(text, "main")
    with torch.no_grad():
        expected = model(*arrays)
    given = compiled(*arrays)
    pairs = (
        zip(given, expected, strict=True)
        if isinstance(given, tuple)
        else [(given, expected)]
    )
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        scale = theirs.double().abs().max().item() if theirs.numel() else 0.0
        error = (ours.double() - theirs.double()).abs()
        assert not theirs.numel() or error.max().item() <= TOLERANCE * max(scale, 1e-30)
    return compiled


def heads(count: int, keys: int | None = None) -> list[Any]:
    """Queries, keys and values of some heads."""
    torch.manual_seed(0)
    keys = count if keys is None else keys
    return [torch.randn(2, n, 19, 8) for n in (count, keys, keys)]


def plain(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(-1, -2) / 8**0.5
    return torch.softmax(scores, -1) @ v


def causal(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(-1, -2) / 8**0.5
    seen = torch.ones(19, 19, dtype=torch.bool).tril()
    return torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ v


def added_mask(q: Any, k: Any, v: Any) -> Any:
    mask = torch.triu(torch.full((19, 19), float("-inf")), 1)
    return torch.softmax(q @ k.transpose(-1, -2) + mask, -1) @ v


def compared(q: Any, k: Any, v: Any) -> Any:
    i, j = torch.arange(19)[:, None], torch.arange(19)[None]
    scores = torch.where(i >= j, q @ k.transpose(-1, -2), float("-inf"))
    return torch.softmax(scores, -1) @ v


def grouped(q: Any, k: Any, v: Any) -> Any:
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    return plain(q, k, v)


def fused_function(q: Any, k: Any, v: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def fused_causal(q: Any, k: Any, v: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


ATTENTION: dict[str, tuple[Function, int, int]] = {
    "plain": (plain, 3, 3),
    "causal": (causal, 3, 3),
    "added mask": (added_mask, 3, 3),
    "compared": (compared, 3, 3),
    "grouped": (grouped, 4, 2),
    "sdpa": (fused_function, 3, 3),
    "causal sdpa": (fused_causal, 3, 3),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_one_pass_over_the_keys(name: str):
    function, count, keys = ATTENTION[name]
    arrays = heads(count, keys)
    text = exported(module_of(function), arrays)
    compiled = check(module_of(function), arrays, text)
    assert compiled.kernels == ("main",)
    module = fused(text)
    assert passes_of(module) == ["moa.cascade"]
    (function_,) = functions_of(module)
    # Rows of accumulators, and nothing else.
    for value in intermediate_arrays(function_):
        assert shape_of(value.type) in ((8,), (2, count, 19, 8))


@pytest.mark.parametrize("name", ["causal", "added mask", "compared", "causal sdpa"])
def test_masked_keys_are_not_visited(name: str):
    function, count, keys = ATTENTION[name]
    module = fused(exported(module_of(function), heads(count, keys)))
    (cascade,) = [op for op in module.walk() if isinstance(op, CascadeOp)]
    assert cascade.upper.owner.name == "arith.minsi"  # pyright: ignore


def test_a_row_without_a_visible_key():
    arrays = heads(3)
    mask = torch.ones(19, 19, dtype=torch.bool)
    mask[4] = False

    def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    compiled = compile_linalg(exported(module_of(masked), [*arrays, mask]), "main")
    q, k, v = arrays
    given, expected = compiled(q, k, v, mask), masked(q, k, v, mask)
    torch.testing.assert_close(given, expected, rtol=2e-6, atol=2e-6)
    assert not given[:, :, 4].any()


def _rows(*shape: int) -> list[Any]:
    torch.manual_seed(1)
    return [torch.randn(*shape)]


def rms_norm(x: Any) -> Any:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def entropy(x: Any) -> Any:
    f = torch.nn.functional
    return -(f.softmax(x, -1) * f.log_softmax(x, -1)).sum(-1)


STATISTICS: dict[str, Function] = {
    "layer norm": lambda x: torch.nn.functional.layer_norm(x, (33,)),
    "rms norm": rms_norm,
    "softmax": lambda x: torch.softmax(x, -1),
    "log-softmax": lambda x: torch.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "entropy": entropy,
    "variance": lambda x: torch.var(x, -1),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_one_pass_over_the_row(name: str):
    model, arrays = module_of(STATISTICS[name]), _rows(5, 33)
    text = exported(model, arrays)
    check(model, arrays, text)
    module = fused(text)
    assert len(passes_of(module)) == 1
    (function,) = functions_of(module)
    # A row of the result is written after its pass.
    for value in intermediate_arrays(function):
        assert shape_of(value.type) == (33,)


def test_logsumexp_of_infinities():
    x = torch.full((4, 200), -100.0)
    x[0, :70] = x[1] = x[3, :130] = -float("inf")
    x[2, 3], x[3, 130:] = float("inf"), -200.0
    model = module_of(STATISTICS["logsumexp"])
    given = compile_linalg(exported(model, [x]), "main")(x)
    torch.testing.assert_close(given, model(x), rtol=2e-6, atol=0)


def _mlp() -> Any:
    torch.manual_seed(2)
    n = torch.nn
    return n.Sequential(n.Linear(16, 40), n.GELU(), n.Linear(40, 16)).eval()


def test_mlp_with_gelu_is_one_kernel():
    compiled = check(_mlp(), _rows(5, 16))
    assert compiled.kernels == ("main",)


def test_encoder_layer():
    torch.manual_seed(3)
    layer = torch.nn.TransformerEncoderLayer(
        16, 2, 32, batch_first=True, dropout=0.0
    ).eval()
    n = 37
    arrays = _rows(2, n, 16)
    text = exported(layer, arrays)
    compiled = check(layer, arrays, text)
    # The projections, the attention, the two norms with what follows them.
    assert len(compiled.kernels) == 5
    module = read(text).module
    SplitProgramsPass().apply(Context(), module)
    for function in functions_of(module):
        for op in function.walk():
            if isinstance(op, CallOp):
                for value in op.results:
                    shape = shape_of(value.type)
                    assert shape.count(n) < 2, f"{value.type} is stored"
    lower_to(module, "fused", Context())
    cascades = [op for op in module.walk() if isinstance(op, CascadeOp)]
    # The attention, and for each norm what it needs of a row.
    assert len(cascades) == 3


def test_heads_that_are_joined_are_stored_before():
    def joined(q: Any, k: Any, v: Any) -> Any:
        return plain(q, k, v).transpose(1, 2).reshape(2, 19, 24)

    arrays = heads(3)
    text = exported(module_of(joined), arrays)
    compiled = check(module_of(joined), arrays, text)
    assert len(compiled.kernels) == 2
    module = read(text).module
    SplitProgramsPass().apply(Context(), module)
    lower_to(module, "fused", Context())
    assert passes_of(module) == ["moa.cascade"]


def test_large_weights_are_arguments_of_kernels():
    torch.manual_seed(4)
    model = torch.nn.Linear(64, 48).eval()
    compiled = check(model, _rows(5, 64))
    assert compiled.kernels == ("main.0",)


def test_dynamic_extents():
    from torch.export import Dim

    n, m = Dim("n", min=2), Dim("m", min=2)
    arrays = [torch.randn(2, n_, 8) for n_ in (7, 9, 9)]
    model = module_of(plain)
    text = exported(
        model,
        arrays,
        dynamic_shapes={"arrays": ({1: n}, {1: m}, {1: m})},
    )
    assert "?" in text
    compiled = check(model, arrays, text)
    assert compiled.kernels == ("main",)
    for rows, keys in ((3, 20), (65, 130)):
        q, k, v = (torch.randn(2, n_, 8) for n_ in (rows, keys, keys))
        torch.testing.assert_close(
            compiled(q, k, v), plain(q, k, v), rtol=2e-6, atol=2e-6
        )


@pytest.mark.parametrize("name", ["plain", "causal", "grouped"])
def test_heads_of_any_length_are_one_pass(name: str):
    from torch.export import Dim

    def any_causal(q: Any, k: Any, v: Any) -> Any:
        n = q.shape[-2]
        hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-1, -2)).masked_fill(hidden, float("-inf"))
        return torch.softmax(scores, -1) @ v

    function = {"plain": plain, "causal": any_causal, "grouped": grouped}[name]
    n, m = Dim("n", min=2), Dim("m", min=2)
    if name == "causal":
        m = n
    arrays = heads(4, 2 if name == "grouped" else 4)
    model = module_of(function)
    shapes = {"arrays": ({2: n}, {2: m}, {2: m})}
    text = exported(model, arrays, dynamic_shapes=shapes)
    compiled = check(model, arrays, text)
    assert passes_of(fused(text)) == ["moa.cascade"]
    rows, keys = (70, 70) if name == "causal" else (1, 70)
    q, k, v = (
        torch.randn(2, a.shape[1], count, 8)
        for a, count in zip(arrays, (rows, keys, keys), strict=True)
    )
    torch.testing.assert_close(
        compiled(q, k, v), function(q, k, v), rtol=2e-6, atol=2e-6
    )


def test_scans_and_updates_at_places():
    torch.manual_seed(8)
    x, places = torch.randn(4, 6), torch.tensor([[5, 0], [2, 2], [1, 3], [4, 0]])
    check(module_of(lambda x: torch.cumsum(x, 1)), [x])
    check(module_of(lambda x: torch.cumprod(x, 0)), [x])
    check(
        module_of(lambda x, i, u: x.scatter_add(1, i, u)),
        [x, places, torch.randn(4, 2)],
    )
    check(
        module_of(lambda x, i, u: x.index_put((i,), u)),
        [x, torch.tensor([3, 1]), torch.randn(2, 6)],
    )


OTHERS: dict[str, tuple[Function, list[Any]]] = {
    "group norm": (
        lambda x: torch.nn.functional.group_norm(x, 2),
        [(3, 4, 5, 6)],
    ),
    "convolution": (
        lambda x, w: torch.nn.functional.conv2d(x, w, stride=2, padding=1),
        [(2, 3, 8, 8), (4, 3, 3, 3)],
    ),
    "max pooling": (lambda x: torch.nn.functional.max_pool2d(x, 2), [(2, 3, 8, 8)]),
    "average pooling": (lambda x: torch.nn.functional.avg_pool2d(x, 2), [(2, 3, 8, 8)]),
    "rotary": (
        lambda x, c, s: x * c + torch.cat([-x[..., 4:], x[..., :4]], -1) * s,
        [(2, 5, 8), (5, 8), (5, 8)],
    ),
    "silu": (torch.nn.functional.silu, [(3, 7)]),
    "softplus": (torch.nn.functional.softplus, [(3, 7)]),
    "expm1": (torch.expm1, [(3, 7)]),
    "flip": (lambda x: torch.flip(x, [1]), [(3, 7)]),
    "strided slice": (lambda x: x[:, 1::2], [(3, 7)]),
    "stack": (lambda x, y: torch.stack([x, y], 1), [(3, 7), (3, 7)]),
    "padding": (lambda x: torch.nn.functional.pad(x, (1, 2)), [(3, 7)]),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=-1), [(3, 7)]),
    "total": (lambda x: x.sum(), [(3, 7)]),
    "any": (lambda x: (x > 1).any(-1), [(3, 7)]),
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [(2, 3, 4), (2, 5, 4)]),
    "products": (lambda a, b, c: (a @ b) @ c, [(4, 5), (5, 6), (6, 3)]),
    "round": (lambda x: torch.round(3 * x), [(9,)]),
    "no rows": (lambda x: torch.softmax(x, -1), [(0, 7)]),
    "empty sum": (lambda x: x.sum(-1), [(3, 0)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_programs(name: str):
    function, shapes = OTHERS[name]
    torch.manual_seed(5)
    check(module_of(function), [torch.randn(*shape) for shape in shapes])


def test_places_of_extremes():
    torch.manual_seed(7)
    x = torch.randint(-3, 4, (6, 9)).float()
    check(module_of(lambda x: torch.argmax(x, -1)), [x])
    check(module_of(lambda x: torch.min(x, 0)), [x])


def test_rows_of_a_table_and_a_loss():
    torch.manual_seed(6)
    f = torch.nn.functional
    places = torch.randint(0, 7, (3,))
    check(module_of(lambda x, i: x[i]), [torch.randn(7, 4), places])
    check(module_of(f.cross_entropy), [torch.randn(3, 7), places])


@pytest.mark.parametrize("name", ["causal_attention", "layer_norm"])
def test_files_as_they_were_exported(name: str):
    compiled = compile_linalg(DATA / f"{name}.mlir", "main")
    rng = np.random.default_rng(0)
    if name == "layer_norm":
        x = torch.from_numpy(rng.standard_normal((5, 16), np.float32))
        expected = torch.nn.functional.layer_norm(x, (16,))
        torch.testing.assert_close(compiled(x), expected, rtol=2e-6, atol=2e-6)
        return
    q, k, v = (
        torch.from_numpy(rng.standard_normal((2, 3, 16, 8), np.float32))
        for _ in range(3)
    )
    expected = fused_causal(q, k, v)
    torch.testing.assert_close(compiled(q, k, v), expected, rtol=2e-6, atol=2e-6)
