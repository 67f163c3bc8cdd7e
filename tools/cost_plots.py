"""Plots of moa-cost: a roofline, and the bytes of each level by the size."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from moa_dialect.cost import Cost
from moa_dialect.diagnostics import BadInputError

SUFFIXES = (".svg", ".png", ".html")

Pair = tuple[Cost, Cost | None]


_REGIMES = (("fits", "none"), ("copied", "left"), ("capacity-bound", "full"))
"""How regimes are marked."""


def check_plot(path: Path) -> None:
    """Check that a plot can be drawn.

    Raises:
        BadInputError: without matplotlib, or for another kind of file, or a folder that
            there is not.
    """
    if path.suffix not in SUFFIXES:
        raise BadInputError(
            f"--plot: expected a file {', '.join(SUFFIXES)}, got {path}"
        )
    if not path.parent.is_dir():
        raise BadInputError(f"--plot: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise BadInputError(
            "--plot needs matplotlib, which is not installed; "
            'pip install "moa-dialect[plot]"'
        )


def _moving(costs: Sequence[Cost]) -> str:
    """The name of the extent that differs between costs; empty if none does."""
    first = costs[0].nest.values
    for symbol, value in first.items():
        if any(cost.nest.values.get(symbol, value) != value for cost in costs):
            return f"{symbol}"
    return ""


def _size(cost: Cost, name: str) -> int:
    found = {f"{symbol}": value for symbol, value in cost.nest.values.items()}
    return found.get(name, 1)


def _roofline(axes: Any, pairs: Sequence[Pair]) -> None:
    """Operations a second by operations a byte, below what the machine can do."""
    machine = pairs[0][0].machine
    dtypes = {
        dtype
        for cost, _ in pairs
        for kind, dtype in cost.operations
        if kind in ("add", "mul") and dtype in machine.flops
    }
    peak = max(machine.flops[dtype] for dtype in dtypes or {"f32"})
    points: list[tuple[str, float, float]] = []
    for cost, eager in pairs:
        for label, one in (("fused", cost), ("eager", eager)):
            if one is None or not one.memory_bytes:
                continue
            points.append(
                (label, cost.flops / one.memory_bytes, cost.flops / one.seconds)
            )
    intensities = [x for _, x, _ in points] or [1.0]
    left = min(*intensities, 0.1) / 2
    right = max(*intensities, peak / machine.memory.bandwidth) * 4
    for level in machine.levels:
        knee = peak / level.bandwidth
        axes.plot(
            [left, knee, max(right, knee)],
            [left * level.bandwidth, peak, peak],
            linewidth=1,
            label=level.name,
        )
    for label, marker in (("fused", "o"), ("eager", "s")):
        chosen = [(x, y) for name, x, y in points if name == label]
        if chosen:
            axes.plot(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                marker=marker,
                linestyle="none",
                color="black",
                fillstyle="full" if label == "fused" else "none",
                label=label,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_xlabel(f"operations per byte of {machine.memory.name}")
    axes.set_ylabel("operations per second")
    axes.set_title(f"roofline of {machine.name}")
    axes.legend(fontsize="small")


def _traffic(axes: Any, pairs: Sequence[Pair], name: str) -> None:
    """Bytes of each level by the size, with the regimes marked."""
    costs = [cost for cost, _ in pairs]
    sizes = [_size(cost, name) for cost in costs]
    least = [cost.number(cost.compulsory) for cost in costs]
    axes.plot(sizes, least, color="gray", linestyle="--", label="compulsory")
    for position, level in enumerate(costs[0].levels[1:], 1):
        amounts = [cost.levels[position].bytes for cost in costs]
        (line,) = axes.plot(sizes, amounts, label=level.level.name, linewidth=1)
        for regime, fill in _REGIMES:
            chosen = [
                (size, cost.levels[position].bytes)
                for size, cost in zip(sizes, costs, strict=True)
                if cost.levels[position].regime == regime
            ]
            axes.plot(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                marker="o",
                linestyle="none",
                color=line.get_color(),
                fillstyle=fill,
            )
    eager = [
        (size, e.memory_bytes)
        for size, (_, e) in zip(sizes, pairs, strict=True)
        if e is not None
    ]
    if eager:
        memory = costs[0].machine.memory.name
        axes.plot(
            [x for x, _ in eager],
            [y for _, y in eager],
            color="black",
            linestyle=":",
            label=f"{memory}, eager",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(name or "size")
    axes.set_ylabel("bytes")
    axes.set_title("bytes moved: open fits, half is copied, full is capacity-bound")
    axes.legend(fontsize="small")


def plot(path: Path, program: str, pairs: Sequence[Pair]) -> None:
    """Draw a roofline and the bytes by size.

    Args:
        path: where to; `.html` is a page with the picture in it.
        program: what was analysed.
        pairs: what the program costs for each size, fused and eager.

    Raises:
        BadInputError: without matplotlib, or for another kind of file, or a folder that
            there is not.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _roofline(left, pairs)
    _traffic(right, pairs, _moving([cost for cost, _ in pairs]))
    figure.suptitle(program)
    if path.suffix != ".html":
        figure.savefig(path)
        return
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    picture = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(program)
    path.write_text(
        f'<!doctype html>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<img alt="roofline and bytes moved of {name}" '
        f'src="data:image/svg+xml;base64,{picture}">\n'
    )
