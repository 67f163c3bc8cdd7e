"""Times of a real language model: PyTorch alone, and with moa.

all-MiniLM-L6-v2, loaded by transformers from the files of a package, makes embeddings
of texts in batches of several sizes and lengths, padded. Each way to run it is measured
in a process of its own, in turn, and its embeddings are compared with PyTorch's:

    python -m moa_dialect.tools.minilm_times --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from moa_dialect.tools.demo import TEXT
from moa_dialect.tools.minilm import MiniLMError, model_folder

WAYS = {
    "eager": "PyTorch",
    "attention": "use_moa_attention()",
    "compiled": 'torch.compile(backend="moa")',
}

SENTENCES = [sentence.strip() + "." for sentence in TEXT.split(".") if sentence.strip()]

BATCHES = {
    "1 sentence": SENTENCES[:1],
    "2 sentences": SENTENCES[1:3],
    "8 sentences": SENTENCES[:8],
    "32 texts": [" ".join(SENTENCES[k % 7 : k % 7 + 1 + k % 4]) for k in range(32)],
    "2 long texts": [" ".join(SENTENCES), " ".join(SENTENCES[:6])],
}
"""Texts that are embedded together; the shorter ones are padded."""

BUDGET_S = 2.0
"""How long one batch is measured, in seconds."""


def load() -> tuple[Any, Any]:
    """The model and its tokenizer, without a network.

    Raises:
        MiniLMError: if the weights or transformers are missing.
    """
    folder = str(model_folder())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MiniLMError("the package transformers is missing") from error
    options = {"local_files_only": True}
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModel
    tokenizer = tokenizers.from_pretrained(folder, **options)
    model = models.from_pretrained(folder, attn_implementation="sdpa", **options)
    return model.eval(), tokenizer


def embeddings(model: Any, batch: Any) -> Any:
    """The means of the last states of the tokens that are no padding, of length 1."""
    import torch

    with torch.no_grad():
        states = model(**batch).last_hidden_state
        counted = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        means = (states * counted).sum(1) / counted.sum(1)
        return torch.nn.functional.normalize(means, dim=-1)


def measure(way: str, processor: bool) -> dict[str, Any]:
    """Milliseconds for each batch, and how embeddings compare with PyTorch's."""
    import torch

    from moa_dialect.frontend.torch import (
        backend,
        graph_breaks,
        report,
        use_moa_attention,
    )

    clock = time.process_time if processor else time.perf_counter
    if processor:
        torch.set_num_threads(1)
    model, tokenizer = load()
    call = model
    routing: Any = contextlib.nullcontext()
    if way == "compiled":
        call = torch.compile(model, backend=backend, dynamic=True)
    elif way == "attention":
        routing = use_moa_attention()
    result: dict[str, Any] = {"ms": {}, "shape": {}, "cosine": 1.0}
    for name, texts in BATCHES.items():
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        expected = embeddings(model, batch)
        with routing:
            found = embeddings(call, batch)
            seconds = best_of(lambda b=batch: embeddings(call, b), clock)
        cosine = float((found.double() * expected.double()).sum(-1).min())
        result["ms"][name] = 1e3 * seconds
        result["shape"][name] = list(batch["input_ids"].shape)
        result["cosine"] = min(result["cosine"], cosine)
    result["graphs"] = len(report())
    result["breaks"] = sum(graph_breaks().values())
    if way == "compiled":
        result["report"] = str(report()[-1])
    elif way == "attention":
        result["routed"], result["left"] = routing.routed, routing.left
    return result


def best_of(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The best time of a call, in seconds, over at least 5 runs."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < BUDGET_S:
        before = clock()
        call()
        times.append(clock() - before)
    return min(times)


def in_a_process(way: str, processor: bool) -> dict[str, Any]:
    """What `measure` gives, in a process of its own."""
    output = subprocess.run(
        [
            *(sys.executable, "-m", "moa_dialect.tools.minilm_times", way),
            *(["--processor"] if processor else []),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if output.returncode:
        raise MiniLMError(output.stderr.strip().rsplit("\n", 1)[-1])
    return json.loads(output.stdout.strip().rsplit("\n", 1)[-1])


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The best times as a table in Markdown, ratios to PyTorch's in brackets."""
    lines = [
        f"| batch | tokens | {' | '.join(f'{name}, ms' for name in WAYS.values())} |",
        f"| --- | --- |{' ---: |' * len(WAYS)}",
    ]
    for name in BATCHES:
        best = {
            way: min(run["ms"][name] for run in runs) for way, runs in results.items()
        }
        cells = [
            f"{ms:.2f}" + ("" if way == "eager" else f" ({best['eager'] / ms:.2f})")
            for way, ms in best.items()
        ]
        rows, length = results["eager"][0]["shape"][name]
        lines.append(f"| {name} | {rows} x {length} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure all ways in turn, or one in this process."""
    parser = argparse.ArgumentParser(description="Time all-MiniLM-L6-v2 with moa.")
    parser.add_argument("way", nargs="?", choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way")
    parser.add_argument(
        "--processor",
        action="store_true",
        help="processor time on one thread, for a machine that has other work to do",
    )
    options = parser.parse_args()
    try:
        if options.way is not None:
            print(json.dumps(measure(options.way, options.processor)))
            return 0
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, runs in results.items():
                runs.append(in_a_process(way, options.processor))
    except MiniLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(results))
    routed, compiled = results["attention"][-1], results["compiled"][-1]
    print("\nratios: PyTorch's time over moa's; above 1, moa is faster")
    for way in ("attention", "compiled"):
        cosine = min(run["cosine"] for run in results[way])
        print(f"least cosine with PyTorch's embeddings, {WAYS[way]}: {cosine:.9f}")
    print(f"calls of attention routed: {routed['routed']}, left: {routed['left']}")
    print(f"graphs: {compiled['graphs']}, graph breaks: {compiled['breaks']}")
    print(compiled["report"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
