"""`moa-bench`: time programs beside other software.

    moa-bench attention --dtype f32 --n 512,1024 --d 64 --causal
    moa-bench rows --rounds 3 --json rows.json
    moa-bench all --quick
    moa-bench all --target cuda

Bad input ends with a message and exit status 2, a measurement that cannot be made with
1. A contender that fails or is wrong is reported in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from moa_dialect.tools.bench import cuda_suite, machine
from moa_dialect.tools.bench.cases import DTYPES, Case
from moa_dialect.tools.bench.contenders import CONTENDERS
from moa_dialect.tools.bench.cuda_suite import GROUPS
from moa_dialect.tools.bench.harness import BenchError, Harness
from moa_dialect.tools.bench.programs import ROWS
from moa_dialect.tools.bench.report import (
    FORMAT,
    Document,
    check_plot,
    entries_of,
    save_plot,
    table_text,
)
from moa_dialect.tools.bench.suites import ALL, SUITES, SuiteError

BUSY = 0.5
"""With more processes than this at work before it starts, it says so."""

INTEGERS = ("n", "m", "d", "e", "heads", "kv-heads", "window", "rows", "columns")
VARIANTS = ("plain", "alibi", "softcap", "document", "bias")


def positive(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return value


def listed(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Several values with commas between."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(","))

    return parse


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """One of some names."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(names)}, got {text}"
            )
        return text

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="moa-bench",
        description="Time moa's programs beside other software, in turn.",
        epilog="Lists are written with commas: --n 512,1024.",
    )
    parser.add_argument(
        "suites", metavar="SUITE", nargs="*", help="suites to run, `all` or `peaks`"
    )
    parser.add_argument(
        "--list", action="store_true", help="show suites and contenders, and stop"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few small cases, two short rounds"
    )
    parser.add_argument(
        "--target",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda for the suites of a GPU: " + ", ".join([*GROUPS, "all"]),
    )
    parser.add_argument(
        "--emulate",
        action="store_true",
        help="with --target cuda, without a GPU: the emulator, which is not timed",
    )
    cases = parser.add_argument_group("cases, in place of the suite's own")
    cases.add_argument("--dtype", metavar="T,...", type=listed(one_of([*DTYPES])))
    for name in INTEGERS:
        cases.add_argument(f"--{name}", metavar="N,...", type=listed(positive))
    cases.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        help="only causal attention, or only the other",
    )
    cases.add_argument("--variant", metavar="NAME,...", type=listed(one_of(VARIANTS)))
    cases.add_argument("--program", metavar="NAME,...", type=listed(one_of([*ROWS])))
    cases.add_argument(
        "--contenders", metavar="NAME,...", type=listed(one_of([*CONTENDERS]))
    )
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--threads", metavar="N,...", type=listed(positive), help="cores to use"
    )
    how.add_argument(
        "--rounds", metavar="N", type=positive, help="turns of each contender: 5"
    )
    how.add_argument(
        "--budget",
        metavar="S",
        type=seconds,
        help="seconds a case is timed for in a round: 0.3",
    )
    how.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=300.0,
        help="seconds a case may take in a round: 300",
    )
    how.add_argument(
        "--no-peaks", action="store_true", help="do not measure the machine's peaks"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", type=Path, help="save everything")
    output.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw, as .png, .svg or .pdf"
    )
    output.add_argument("--markdown", action="store_true", help="tables as Markdown")
    output.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        type=Path,
        help="show what --json saved instead of measuring",
    )
    return parser


def list_text() -> str:
    """The suites with their cases, and the contenders with what they lack."""
    lines = ["suites"]
    count = machine.cores()
    for suite in SUITES.values():
        cases = suite.cases({}, (), count)
        lines.append(f"  {suite.name:14} {suite.summary} ({len(cases)} cases)")
    lines.append(f"  {'peaks':14} multiply-adds, reading and copying: the machine")
    lines.append(f"  {'all':14} every suite but attention")
    lines.append("contenders")
    for contender in CONTENDERS.values():
        state = contender.missing() or "available"
        lines.append(f"  {contender.name:16} {state}")
    return "\n".join(lines)


def given_axes(options: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    """The axes that the command line gives values for."""
    given: dict[str, tuple[Any, ...]] = {}
    for name in ("dtype", *(n.replace("-", "_") for n in INTEGERS), "variant"):
        if (values := getattr(options, name)) is not None:
            given[name] = values
    if options.program is not None:
        given["program"] = options.program
    if options.causal is not None:
        given["causal"] = (options.causal,)
    return given


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """The cases that the command line asks for.

    Raises:
        SuiteError: for an unknown suite, one without an axis that is given, or more
            threads than cores.
    """
    names: list[str] = []
    for name in options.suites:
        if name in ("all", "peaks"):
            names += ALL if name == "all" else ()
        elif name in SUITES:
            names.append(name)
        else:
            known = ", ".join([*SUITES, "all", "peaks"])
            raise SuiteError(f"unknown suite: expected one of {known}, got {name}")
    count = machine.cores()
    for threads in options.threads or ():
        if threads > count:
            raise SuiteError(
                f"--threads: expected at most {count}, the number of cores, "
                f"got {threads}"
            )
    given = given_axes(options)
    cases = [
        case
        for name in dict.fromkeys(names)
        for case in SUITES[name].cases(given, options.threads, count, options.quick)
    ]
    for case in cases:
        check_heads(case)
    return cases


def check_heads(case: Case) -> None:
    """Check that heads of keys divide those of queries.

    Raises:
        SuiteError: if they do not.
    """
    heads, keys = case.size.get("heads"), case.size.get("kv_heads")
    if heads is not None and keys is not None and int(heads) % int(keys):
        raise SuiteError(f"--kv-heads: expected a divisor of {heads}, got {keys}")


def check_target(options: argparse.Namespace) -> None:
    """Check that options are such as the target has.

    Raises:
        SuiteError: if one is not.
    """
    if options.target == "cpu":
        if options.emulate:
            raise SuiteError("--emulate: expected with --target cuda")
        return
    given = [*given_axes(options)]
    given += [n for n in ("contenders", "threads", "plot") if getattr(options, n)]
    if given:
        raise SuiteError(f"--{given[0].replace('_', '-')}: not with --target cuda")


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> Document:
    """Measure what the command line asks for.

    Raises:
        SuiteError: if there is no such thing.
        BenchError: if it cannot be measured.
    """
    cases = chosen_cases(options)
    chosen = options.contenders or tuple(CONTENDERS)
    if cases and not any(name in chosen for c in cases for name in c.contenders):
        raise SuiteError(f"no case has {', '.join(chosen)} among its contenders")
    rounds = options.rounds or (2 if options.quick else 5)
    budget = options.budget or (0.05 if options.quick else 0.3)
    harness = Harness(
        {name: CONTENDERS[name] for name in chosen},
        rounds,
        budget,
        options.timeout,
        say=say,
    )
    described = machine.describe()
    load = described["load_before"]
    if load is not None and load > BUSY:
        say(f"the machine is busy (load {load}): times will be too long")
    threads = sorted({c.threads for c in cases} | {1, *(options.threads or ())})
    if "peaks" in options.suites:
        threads = sorted({*threads, machine.cores()})
    peaks = {} if options.no_peaks else harness.peaks(threads)
    results = harness.measure(cases)
    if peaks and cases:  # again, in case something else ran the first time
        for count, found in harness.peaks(threads).items():
            peaks[count] = {n: max(v, peaks[count][n]) for n, v in found.items()}
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**described, "load_after": machine.load()},
        "versions": machine.versions(),
        "options": {"rounds": rounds, "budget_s": budget, "quick": options.quick},
        "peaks": peaks,
        "results": entries_of(results, peaks),
    }


def read_document(path: Path) -> Document:
    """What `--json` saved.

    Raises:
        BenchError: if it is something else.
    """
    try:
        document: Any = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise BenchError(f"{path}: not a file that --json wrote") from None
    if isinstance(document, dict) and "results" in document:
        found = cast(Document, document)
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            table_text(found)
            if found.get("format") == FORMAT:
                return found
    raise BenchError(f"{path}: not a file that --json wrote")


def check_writable(path: Path | None) -> None:
    """Check that a file can be written before much time is spent on it.

    Raises:
        BenchError: if its folder does not exist.
    """
    if path is not None and not path.resolve().parent.is_dir():
        raise BenchError(f"{path}: no such folder")


def measure_on_gpu(options: argparse.Namespace) -> int:
    """Measure on a GPU; the exit status is 1 if a result is wrong."""
    document = cuda_suite.measure(options, show_progress)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(cuda_suite.report(document), end="")
    return 0 if all(result["correct"] for result in document["results"]) else 1


def show_progress(message: str) -> None:
    """Write a line to stderr, over the last one on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{message}")
    else:
        sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `moa-bench`; the exit status is 1 if nothing could be measured."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.list:
        print(list_text())
        return 0
    if bool(options.source) == bool(options.suites):
        parser.error("expected a suite, or --from FILE; --list shows the suites")
    try:
        check_writable(options.json)
        check_writable(options.plot)
        if options.plot:
            check_plot(options.plot)
        check_target(options)
        if options.target == "cuda" and options.suites:
            return measure_on_gpu(options)
        if options.source:
            document = read_document(options.source)
        else:
            document = measure(options, show_progress)
            if sys.stderr.isatty():
                sys.stderr.write("\r\x1b[K")
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        print(table_text(document, options.markdown), end="")
        if options.plot:
            save_plot(document, options.plot)
    except SuiteError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"moa-bench: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except BenchError as error:
        print(f"moa-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("moa-bench: interrupted", file=sys.stderr)
        return 130
    return 0
