"""all-MiniLM-L6-v2 as PyTorch runs it, and with kernels of moa."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moa_dialect.frontend.torch import (  # noqa: E402
    backend,
    graph_breaks,
    report,
    use_moa_attention,
)
from moa_dialect.tools.minilm import MiniLMError  # noqa: E402
from moa_dialect.tools.minilm_times import BATCHES, WAYS, embeddings, load, table  # noqa: E402

NAMES = ("2 sentences", "8 sentences", "2 long texts")


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    try:
        return load()
    except MiniLMError as error:
        pytest.skip(str(error))


def _batches(tokenizer: Any) -> list[Any]:
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    return [tokenizer(BATCHES[name], **options) for name in NAMES]


def _least_cosine(found: Any, expected: Any) -> float:
    return float((found.double() * expected.double()).sum(-1).min())


def test_embeddings_with_attention_routed(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    for batch in _batches(tokenizer):
        assert not bool(batch["attention_mask"].all())
        expected = embeddings(model, batch)
        with use_moa_attention() as routing:
            found = embeddings(model, batch)
        assert (routing.routed, routing.left) == (6, 0)
        assert _least_cosine(found, expected) > 0.999999


@pytest.mark.usefixtures("fresh")
def test_embeddings_of_the_compiled_model(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    compiled = torch.compile(model, backend=backend, dynamic=True)
    for batch in _batches(tokenizer):
        found = embeddings(compiled, batch)
        assert _least_cosine(found, embeddings(model, batch)) > 0.999999
    (graph,) = report()
    assert not graph_breaks()
    assert not graph.failed
    operators = [each.operators for each in graph.regions]
    assert operators.count(("moa.attention",)) == 6
    assert operators.count(("aten.addmm.default", "aten.gelu.default")) == 6
    norm = ("aten.clone.default", "aten.add.Tensor", "aten.native_layer_norm.default")
    assert operators.count(norm) == 12
    assert "aten.addmm.default" not in graph.left
    (looked_up,) = (each for each in operators if "aten.embedding.default" in each)
    assert looked_up.count("aten.embedding.default") == 3
    assert "aten.native_layer_norm.default" in looked_up
    assert "aten.embedding.default" not in graph.left


def test_the_table_has_ratios() -> None:
    shape = {name: [2, 9] for name in BATCHES}
    ms = {"eager": 3.0, "attention": 2.0, "compiled": 1.0}
    results = {
        way: [{"ms": dict.fromkeys(BATCHES, ms[way]), "shape": shape}] for way in WAYS
    }
    lines = table(results).splitlines()
    assert lines[2] == "| 1 sentence | 2 x 9 | 3.00 | 2.00 (1.50) | 1.00 (3.00) |"
    assert len(lines) == 2 + len(BATCHES)
