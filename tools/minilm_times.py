"""Times of a real language model: PyTorch alone, and with moa.

all-MiniLM-L6-v2, loaded by transformers from the files of a package, makes embeddings
of texts in batches of several sizes and lengths, padded. Each way to run it is measured
in a process of its own, in turn, and its embeddings are compared with PyTorch's:

    python -m moa_dialect.tools.minilm_times --rounds 3

The attention of one layer alone, in one process, by turns:

    python -m moa_dialect.tools.minilm_times --layer
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
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


LENGTHS = ((1, 1), (1, 16), (2, 43), (8, 52), (2, 295), (32, 155))
"""Batches and tokens for which the attention of one layer is measured."""


def layer_times() -> Iterator[tuple[str, float, float]]:
    """Microseconds of PyTorch's attention and of `sdpa`, with a mask of keys."""
    import torch
    from torch.nn import functional

    from moa_dialect.frontend.torch import sdpa

    torch.manual_seed(0)
    for batch, tokens in LENGTHS:
        shape = batch, tokens, 12, 32
        q, k, v = (torch.randn(shape).transpose(1, 2) for _ in range(3))
        seen = torch.ones(batch, 1, 1, tokens, dtype=torch.bool)
        mask = seen.expand(batch, 1, tokens, tokens)
        calls = (
            partial(functional.scaled_dot_product_attention, q, k, v, attn_mask=mask),
            partial(sdpa, q, k, v, attn_mask=mask),
        )
        times = [float("inf")] * 2
        with torch.no_grad():
            start = time.perf_counter()
            rounds = 0
            while rounds < 20 or time.perf_counter() - start < BUDGET_S:
                rounds += 1
                for place, call in enumerate(calls):
                    before = time.perf_counter()
                    call()
                    times[place] = min(times[place], time.perf_counter() - before)
        yield f"{batch} x {tokens}", 1e6 * times[0], 1e6 * times[1]


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
    parser.add_argument(
        "--layer", action="store_true", help="only the attention of one layer"
    )
    options = parser.parse_args()
    if options.layer:
        print("| tokens | PyTorch, us | `sdpa`, us |\n| --- | ---: | ---: |")
        for name, stock, ours in layer_times():
            print(f"| {name} | {stock:.0f} | {ours:.0f} |")
        return 0
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
