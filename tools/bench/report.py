"""What was measured, as a document for JSON, as tables and as a plot.

Tables and plots are made from the document alone, so that they can be made later.
"""
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from moa_dialect.tools.bench.cases import Case
from moa_dialect.tools.bench.harness import BenchError, Result
from moa_dialect.tools.bench.programs import PROGRAMS

Document: TypeAlias = dict[str, Any]
Entry: TypeAlias = dict[str, Any]
Row: TypeAlias = list[str]

FORMAT = 1
"""The version of the document's layout."""

OURS = ("moa", "moa-jit", "moa-kernel")
"""The contenders that are no peers."""


# The document


def entries_of(
    results: Sequence[Result], peaks: dict[str, dict[str, float]]
) -> list[Entry]:
    """A dictionary for each result, with the rates that follow from the time.

    Args:
        results: what was measured.
        peaks: of the machine, for each number of threads; may be empty.
    """
    entries = [_entry(result, peaks) for result in results]
    cases: dict[int, list[Entry]] = {}
    for result, entry in zip(results, entries, strict=True):
        cases.setdefault(id(result.case), []).append(entry)
    for of_case in cases.values():
        _compare_with_peers(of_case)
    _compare_with_plain(entries)
    return entries


def _entry(result: Result, peaks: dict[str, dict[str, float]]) -> Entry:
    case = result.case
    work = PROGRAMS[case.program].work(case)
    entry: Entry = {
        "case": case.to_json(),
        "label": case.label,
        "contender": result.contender,
        "status": result.status,
        "reason": result.reason,
        "error": result.error,
        "flops": work.flops,
        "bytes": work.bytes,
        "bound": work.bound,
    }
    if result.status != "ok":
        return entry
    entry |= {
        "best": result.best,
        "median": result.median,
        "build_s": result.build_s,
        "rounds": result.rounds,
    }
    if case.metric != "time":
        return entry
    if work.flops:
        entry["gflop_per_s"] = work.flops / result.best / 1e9
    if work.bound in ("read", "copy"):
        entry["gb_per_s"] = work.bytes / result.best / 1e9
    measured = peaks.get(str(case.threads), {})
    peak = measured.get(case.dtype if work.bound == "flops" else work.bound)
    if peak:
        rate = entry["gflop_per_s" if work.bound == "flops" else "gb_per_s"]
        entry["of_peak"] = rate / peak
    return entry


def _compare_with_peers(entries: Sequence[Entry]) -> None:
    """Add `of_best_peer`: the least time of a peer over one's own time."""
    times = [
        entry["best"]
        for entry in entries
        if entry["status"] == "ok" and entry["contender"] not in OURS
    ]
    for entry in entries:
        if entry["status"] == "ok" and times and entry["best"]:
            entry["of_best_peer"] = min(times) / entry["best"]


def _compare_with_plain(entries: Sequence[Entry]) -> None:
    """Add `of_plain` to variants: one's rate over one's rate on plain attention."""
    plain = {
        _without_variant(entry): entry["gflop_per_s"]
        for entry in entries
        if entry["case"]["size"].get("variant") == "plain" and "gflop_per_s" in entry
    }
    for entry in entries:
        rate = plain.get(_without_variant(entry))
        if rate and "variant" in entry["case"]["size"] and "gflop_per_s" in entry:
            entry["of_plain"] = entry["gflop_per_s"] / rate


def _without_variant(entry: Entry) -> str:
    case: dict[str, Any] = entry["case"]
    size = {name: v for name, v in case["size"].items() if name != "variant"}
    return f"{entry['contender']} {case['dtype']} {case['threads']} {size}"


# Tables


def milliseconds(seconds: float) -> str:
    """A time in milliseconds with three digits or more."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def rate(value: float) -> str:
    """A rate with three digits or more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float) -> str:
    """A part of one as a percentage."""
    return f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.1f}"


HEADERS = {
    "time": ("best ms", "median ms", "GFLOP/s", "GB/s", "% peak", "x peer", "x plain"),
    "build": ("best ms", "median ms", "x peer"),
    "memory": ("MiB", "x peer"),
}


def _cells(entry: Entry, kind: str) -> dict[str, str]:
    """The figures of a result by the header they stand under."""
    if entry["status"] != "ok":
        return {}
    cells: dict[str, str] = {}
    if kind == "memory":
        cells["MiB"] = f"{entry['best'] / 2**20:.2f}"
    else:
        cells["best ms"] = milliseconds(entry["best"])
        cells["median ms"] = milliseconds(entry["median"])
    for header, name, text in (
        ("GFLOP/s", "gflop_per_s", rate),
        ("GB/s", "gb_per_s", rate),
        ("% peak", "of_peak", percent),
        ("x peer", "of_best_peer", "{:.2f}".format),
        ("x plain", "of_plain", "{:.2f}".format),
    ):
        if name in entry:
            cells[header] = text(entry[name])
    return cells


def _kind(entry: Entry) -> str:
    metric = entry["case"]["metric"]
    return "build" if metric == "cached-build" else metric


def _tables(document: Document) -> Iterator[tuple[str, list[Row]]]:
    """A title and rows, the first of them headers, for each suite and metric."""
    titles: dict[tuple[str, str], list[Entry]] = {}
    for entry in document["results"]:
        key = (entry["case"]["suite"], _kind(entry))
        titles.setdefault(key, []).append(entry)
    for (suite, kind), entries in titles.items():
        cells = [_cells(entry, kind) for entry in entries]
        headers = [h for h in HEADERS[kind] if any(h in row for row in cells)]
        show_note = any(entry["status"] != "ok" for entry in entries)
        rows: list[Row] = [
            ["case", "threads", "contender", *headers, *(["note"] if show_note else [])]
        ]
        for entry, figures in zip(entries, cells, strict=True):
            note = "" if entry["status"] == "ok" else _note(entry)
            rows.append(
                [
                    entry["label"],
                    str(entry["case"]["threads"]),
                    entry["contender"],
                    *(figures.get(header, "-") for header in headers),
                    *([note] if show_note else []),
                ]
            )
        words = {"time": "", "build": ": to the first result", "memory": ": memory"}
        yield suite + words[kind], rows
    if document["peaks"]:
        yield "peaks", _peak_rows(document["peaks"])


def _note(entry: Entry) -> str:
    return f"{entry['status']}: {entry['reason']}"


def _peak_rows(peaks: dict[str, dict[str, float]]) -> list[Row]:
    names = list(dict.fromkeys(name for found in peaks.values() for name in found))
    units = {"read": "GB/s", "copy": "GB/s"}
    headers = [f"{name} {units.get(name, 'GFLOP/s')}" for name in names]
    rows = [["threads", *headers]]
    for threads, found in peaks.items():
        rows.append([threads, *(rate(found[n]) if n in found else "-" for n in names)])
    return rows


TEXT_COLUMNS = ("case", "contender", "note")


def table_text(document: Document, markdown: bool = False) -> str:
    """The tables of a document, aligned for reading or as Markdown."""
    parts: list[str] = []
    for title, rows in _tables(document):
        left = [header in TEXT_COLUMNS for header in rows[0]]
        layout = _markdown if markdown else _aligned
        heading = f"## {title}\n\n" if markdown else f"{title}\n"
        parts.append(heading + "\n".join(layout(rows, left)))
    return "\n\n".join(parts) + "\n\n" + machine_text(document) + "\n"


def _aligned(rows: Sequence[Row], left: Sequence[bool]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(left))]

    def line(row: Row) -> str:
        cells = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * max(len(line(row)) for row in rows)
    previous, lines = "", [line(rows[0]), rule]
    for row in rows[1:]:  # what a case is stands beside the first contender only
        is_same = left[0] and row[:2] == previous
        lines.append(line(["", "", *row[2:]] if is_same else row))
        previous = row[:2]
    return lines


def _markdown(rows: Sequence[Row], left: Sequence[bool]) -> list[str]:
    rule = ["---" if is_left else "---:" for is_left in left]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]


def machine_text(document: Document) -> str:
    """The machine, the versions and the date in two lines."""
    machine = document["machine"]
    versions = ", ".join(f"{n} {v}" for n, v in document["versions"].items())
    settings = document["options"]
    return (
        f"{machine['cpu']} ({machine['llvm_cpu']}), {machine['cores']} core(s), "
        f"{machine['system']}; {document['date']}; {settings['rounds']} round(s)\n"
        f"{versions}"
    )


# Plots


def check_plot(path: Path) -> None:
    """Check that a plot can be drawn into such a file, before much time is spent on it.

    Raises:
        BenchError: if matplotlib is not installed, or cannot write such a file.
    """
    try:
        import matplotlib
    except ImportError:
        raise BenchError(
            'a plot needs matplotlib; pip install "moa-dialect[bench]"'
        ) from None
    matplotlib.use("Agg")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise BenchError(
            f"{path}: expected a name that ends with one of .{', .'.join(kinds)}"
        )


def save_plot(document: Document, path: Path) -> None:
    """Draw the results; the kind of file follows from the name.

    Lengths that grow are lines, other cases are bars.

    Raises:
        BenchError: if matplotlib is not installed, cannot write such a file, or there
            is nothing to draw.
    """
    check_plot(path)
    from matplotlib import pyplot

    panels = list(_panels(document))
    if not panels:
        raise BenchError("nothing was measured that can be drawn")
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(9, 3.6 * len(panels)), squeeze=False
    )
    contenders = list(dict.fromkeys(e["contender"] for _, es in panels for e in es))
    colors = {name: f"C{k % 10}" for k, name in enumerate(contenders)}
    for (title, entries), ax in zip(panels, axes[:, 0], strict=True):
        _draw(ax, title, entries, colors, document["peaks"])
    figure.tight_layout()
    try:
        figure.savefig(path)
    finally:
        pyplot.close(figure)


def _panels(document: Document) -> Iterator[tuple[str, list[Entry]]]:
    """A title and the results that are drawn together."""
    panels: dict[str, list[Entry]] = {}
    for entry in document["results"]:
        if entry["status"] == "ok":
            case = Case.from_json(entry["case"])
            _, unit = _figure(entry)
            title = f"{case.suite}, {case.dtype}, {case.threads} thread(s), {unit}"
            panels.setdefault(title, []).append(entry)
    for title, entries in panels.items():
        series: dict[str, list[Entry]] = {}
        for entry in entries:
            series.setdefault(_without_length(entry), []).append(entry)
        lengths = {entry["case"]["size"].get("n") for entry in entries}
        if len(lengths) < 3:
            yield title, entries
            continue
        for name, found in series.items():
            yield f"{title}: {name}", found


def _without_length(entry: Entry) -> str:
    words = entry["label"].split()
    return " ".join(w for w in words if not w.startswith("n="))


def _figure(entry: Entry) -> tuple[float, str]:
    """The figure of a result that is drawn, and its unit."""
    if entry["case"]["metric"] == "memory":
        return entry["best"] / 2**20, "MiB"
    if entry["bound"] == "flops" and "gflop_per_s" in entry:
        return entry["gflop_per_s"], "GFLOP/s"
    if "gb_per_s" in entry:
        return entry["gb_per_s"], "GB/s"
    return entry["best"] * 1e3, "ms"


def _draw(
    ax: Any,
    title: str,
    entries: Sequence[Entry],
    colors: dict[str, str],
    peaks: dict[str, dict[str, float]],
) -> None:
    names = list(dict.fromkeys(entry["contender"] for entry in entries))
    labels = list(dict.fromkeys(entry["label"] for entry in entries))
    lengths = sorted({entry["case"]["size"].get("n", 0) for entry in entries})
    is_line = len(lengths) >= 3 and len(lengths) == len(labels)
    for number, name in enumerate(names):
        own = [entry for entry in entries if entry["contender"] == name]
        heights = [_figure(entry)[0] for entry in own]
        if is_line:
            x = [entry["case"]["size"]["n"] for entry in own]
            ax.plot(x, heights, marker="o", label=name, color=colors[name])
        else:
            width = 0.8 / len(names)
            x = [labels.index(entry["label"]) + number * width for entry in own]
            ax.bar(x, heights, width, label=name, color=colors[name])
    if is_line:
        ax.set_xscale("log", base=2)
        ax.set_xticks(lengths, [str(n) for n in lengths])
        ax.set_xlabel("n")
    else:
        middle = 0.4 - 0.4 / len(names)
        ax.set_xticks(
            [k + middle for k in range(len(labels))],
            labels,
            rotation=20,
            ha="right",
            fontsize=7,
        )
    first = entries[0]
    unit = _figure(first)[1]
    measured = peaks.get(str(first["case"]["threads"]), {})
    name = first["case"]["dtype"] if unit == "GFLOP/s" else first["bound"]
    if name in measured and unit in ("GFLOP/s", "GB/s"):
        ax.axhline(measured[name], linestyle="--", color="grey", label="peak")
    ax.set_ylim(bottom=0)
    ax.set_ylabel(unit)
    ax.set_title(title, fontsize=9)
    ax.legend(fontsize=7)
