"""Attention of a real language model, through the whole pipeline (`make run`).

A paragraph is tokenised and embedded with the weights of all-MiniLM-L6-v2
(`minilm.py`). The queries, keys and values of the first layer then go through the
library program `attention`, compiled in f64 and in f32. The result is compared with
PyTorch's `scaled_dot_product_attention` in f64, and both are timed.
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import moa_dialect as moa
from moa_dialect.tools.minilm import FirstLayer, MiniLMError, first_layer_qkv

TEXT = """\
An array has a shape, and its shape is again an array. From this one remark a whole \
mathematics unfolds. A full index selects a scalar, a shorter index selects a \
subarray, and every operation on arrays, however large, is defined by saying which \
scalar stands at which index of the result. To transpose is to permute the index; to \
reverse is to count it from the other end; to concatenate is to ask on which side of a \
border it falls. Since each operation is only a change of indices, a long expression \
of many operations collapses into one: we follow an index of the result back through \
all of them, until it reaches the arguments, and no array in between has ever to be \
stored. What remains is a normal form that says what each element is, and nothing \
about the order in which the elements are computed. That order is a second question. \
The machine has memory that runs in one dimension, registers that hold a few lanes, \
and several processors; each of these is one more axis, and a loop nest is no more \
than a shape chosen to fit them. A sum along an axis may be cut into parts and joined \
again, because addition is associative, and the same holds for a maximum. Thus a \
program about meaning becomes a program about motion, and each step from the one to \
the other is an equation that a reader, or a machine, can check.
"""

Outputs = NDArray[np.floating]

THRESHOLDS = {"f64": 1e-14, "f32": 1e-6}
"""The norm-wise relative error each precision may have."""

BUDGET_S = 2.0
"""How long one timing may take, in seconds."""

MAX_RUNS = 200
"""How often one timing calls at most."""


class DemoError(Exception):
    """The demonstration cannot run. The message is one line."""


@dataclass(frozen=True)
class Timing:
    """The best of several calls."""

    best_s: float
    runs: int


@dataclass(frozen=True)
class Precision:
    """What was measured at one precision. Errors are against SDPA in f64."""

    relative_error: float
    max_abs_error: float
    threshold: float
    passed: bool
    torch_relative_error: float
    scratch_bytes: int
    first_call_s: float
    kernel: Timing
    torch: Timing


@dataclass(frozen=True)
class Figures:
    """Everything the demonstration measures."""

    tokens: int
    heads: int
    head_size: int
    intermediates: int
    scores_bytes_f64: int
    cores: int
    torch_version: str
    torch_threads: int
    precisions: dict[str, Precision]
    passed: bool


@dataclass(frozen=True)
class Texts:
    """The program in MoA notation."""

    source: str
    normal_form: str


def measure(layer: FirstLayer) -> tuple[Figures, Texts]:
    """Compile attention for `layer`, run it, and compare it with PyTorch's.

    Raises:
        DemoError: If PyTorch is not installed, or the result has a wrong shape.
    """
    try:
        import torch
    except ImportError as error:
        raise DemoError(
            "PyTorch, the reference, is missing: install it with `make venv` or "
            "`pip install torch`"
        ) from error
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def reference(q: Outputs, k: Outputs, v: Outputs) -> Callable[[], Outputs]:
        # With a batch axis, as PyTorch's own fast path wants it.
        tq, tk, tv = (torch.as_tensor(x).unsqueeze(0) for x in (q, k, v))
        return lambda: sdpa(tq, tk, tv).squeeze(0).numpy()

    kernel = moa.jit(moa.library.attention)
    heads, n, head_size = layer.q.shape
    precisions: dict[str, Precision] = {}
    intermediates = 0
    texts = Texts("", "")
    for name, dtype in (("f64", np.float64), ("f32", np.float32)):
        q, k, v = (x.astype(dtype) for x in (layer.q, layer.k, layer.v))
        start = time.perf_counter()
        actual = np.asarray(kernel(q, k, v))
        first_call_s = time.perf_counter() - start

        compiled = kernel.lower(q, k, v)
        if name == "f64":
            intermediates = int(compiled.intermediates)
            texts = Texts(compiled.notation("moa"), compiled.notation("dnf"))
        # The reference reads the values that the kernel read, f32 widened to f64.
        expected = reference(*(x.astype(np.float64) for x in (q, k, v)))()
        torch_call = reference(q, k, v)
        relative_error, max_abs_error = errors(actual, expected)
        precisions[name] = Precision(
            relative_error=relative_error,
            max_abs_error=max_abs_error,
            threshold=THRESHOLDS[name],
            passed=relative_error <= THRESHOLDS[name],  # false for NaN
            torch_relative_error=errors(torch_call(), expected)[0],
            scratch_bytes=int(compiled.scratch_bytes),
            first_call_s=first_call_s,
            kernel=best_of(lambda q=q, k=k, v=v: kernel(q, k, v)),
            torch=best_of(torch_call),
        )
    figures = Figures(
        tokens=n,
        heads=heads,
        head_size=head_size,
        intermediates=intermediates,
        scores_bytes_f64=heads * n * n * 8,
        cores=available_cores(),
        torch_version=str(torch.__version__),
        torch_threads=torch.get_num_threads(),
        precisions=precisions,
        passed=all(precision.passed for precision in precisions.values()),
    )
    return figures, texts


def errors(actual: Outputs, expected: Outputs) -> tuple[float, float]:
    """The relative error ||x - y|| / ||y|| and the largest absolute error, in f64."""
    if actual.shape != expected.shape:
        raise DemoError(
            f"the kernel's result has shape {actual.shape}, expected {expected.shape}"
        )
    difference = actual.astype(np.float64) - expected
    relative = np.linalg.norm(difference) / np.linalg.norm(expected)
    return float(relative), float(np.abs(difference).max())


def best_of(call: Callable[[], object]) -> Timing:
    """The best time of `call` over at least 3 runs and about `BUDGET_S` seconds."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (
        len(times) < MAX_RUNS and time.perf_counter() - start < BUDGET_S
    ):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return Timing(min(times), len(times))


def available_cores() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report(text: str, figures: Figures, texts: Texts) -> str:
    """What the demonstration prints, as plain text."""
    width = max(80, min(100, shutil.get_terminal_size((88, 24)).columns))
    lines = [
        heading("Input: the first attention layer of all-MiniLM-L6-v2", width),
        textwrap.fill(
            textwrap.shorten(text, 150, placeholder=" ..."),
            width,
            initial_indent="  ",
            subsequent_indent="  ",
        ),
        "",
        row("tokens", f"{figures.tokens}"),
        row("heads", f"{figures.heads}, each of size {figures.head_size}"),
        "",
        heading("Program: attention, in MoA notation", width),
        notation(texts.source, width),
        "",
        heading("Denotational normal form (DNF)", width),
        notation(texts.normal_form, width),
        "",
        heading("Storage", width),
        row("intermediate arrays", f"{figures.intermediates}"),
    ]
    for name, precision in figures.precisions.items():
        lines.append(row(f"scratch, {name}", f"{precision.scratch_bytes:,} bytes"))
    lines += [
        row("all scores, f64", f"{figures.scores_bytes_f64:,} bytes, if stored"),
        "",
        heading("Error against PyTorch's SDPA in f64 on the same values", width),
        table("", "relative", "threshold", "", "largest", "PyTorch's"),
    ]
    for name, precision in figures.precisions.items():
        lines.append(
            table(
                name,
                f"{precision.relative_error:.2e}",
                f"{precision.threshold:.0e}",
                "ok" if precision.passed else "EXCEEDED",
                f"{precision.max_abs_error:.2e}",
                f"{precision.torch_relative_error:.2e}",
            )
        )
    lines += [
        "  relative: ||x - y|| / ||y||; largest: max |x - y|; "
        "PyTorch's: its relative error",
        "",
        heading("Time", width),
        table("", "first call", "kernel", "best of", "PyTorch", "best of"),
    ]
    for name, precision in figures.precisions.items():
        lines.append(
            table(
                name,
                f"{precision.first_call_s:.2f} s",
                milliseconds(precision.kernel.best_s),
                f"{precision.kernel.runs}",
                milliseconds(precision.torch.best_s),
                f"{precision.torch.runs}",
            )
        )
    lines += [
        "  first call: compiles and runs once",
        f"  PyTorch {figures.torch_version} with {figures.torch_threads} threads; "
        f"cores available: {figures.cores}",
    ]
    return "\n".join(lines)


def heading(title: str, width: int) -> str:
    """A title underlined by a rule of `width` columns."""
    return f"{title}\n{'-' * width}"


def row(name: str, value: str) -> str:
    """One named figure."""
    return f"  {name:<22}{value}"


def table(name: str, *cells: str) -> str:
    """One row of a table, right-aligned after the row's name."""
    return f"  {name:<6}" + "".join(f"{cell:>14}" for cell in cells)


def notation(text: str, width: int) -> str:
    """MoA notation, indented; only lines longer than `width` are broken."""
    lines: list[str] = []
    for line in text.strip("\n").splitlines():
        indent = " " * (2 + len(line) - len(line.lstrip()))
        if len(line) + 2 <= width:
            lines.append(f"  {line}".rstrip())
        else:
            lines += textwrap.wrap(
                line.strip(),
                width,
                initial_indent=indent,
                subsequent_indent=f"{indent}    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, to three or more digits."""
    return f"{seconds * 1e3:.3f} ms"


def read_text(path: Path | None) -> str:
    """The text of `path`, or the built-in paragraph."""
    if path is None:
        return TEXT
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DemoError(f"cannot read {path}: {reason}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; the exit code is 1 on any error or excess of error."""
    parser = argparse.ArgumentParser(
        prog="moa demo",
        description="Attention of a real language model, compiled, compared and timed.",
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="the text to read, at most 510 tokens (default: a paragraph on arrays)",
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    options = parser.parse_args(arguments)

    try:
        text = read_text(options.text)
        figures, texts = measure(first_layer_qkv(text))
    except (DemoError, MiniLMError) as error:
        print(f"moa demo: error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        print(report(text, figures, texts))
    for name, precision in figures.precisions.items():
        if not precision.passed:
            print(
                f"moa demo: error: the relative error in {name} is "
                f"{precision.relative_error:.2e}, more than {precision.threshold:.0e}",
                file=sys.stderr,
            )
    return 0 if figures.passed else 1


if __name__ == "__main__":
    sys.exit(main())
