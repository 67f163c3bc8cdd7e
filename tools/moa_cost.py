"""`moa-cost`: what a program costs on a machine, predicted before there is any code.

    moa-cost attention --machine h200 --sizes n=1024:65536 --compare eager,fused
    moa-cost matmul.mlir --machine my-machine.toml --json

A program is one of the library's, or a function of an `.mlir` file: at the stage moa,
or linalg on tensors, which is raised.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdsl.dialects.func import FuncOp

from moa_dialect.cost import (
    Cost,
    CostMachine,
    Decision,
    MachineError,
    Program,
    cost_text,
    machine,
    regimes_text,
    shipped,
)
from moa_dialect.cost.algebra import NOMINAL
from moa_dialect.cost.extents import is_array
from moa_dialect.cost.programs import names_of, specialised
from moa_dialect.cost.report import amount, joules, seconds, table
from moa_dialect.diagnostics import BadInputError, reported
from moa_dialect.lowering.engine import find_entry
from moa_dialect.options import Options
from moa_dialect.tools.cost_paper import literal_rows, paper_rows
from moa_dialect.tools.cost_programs import PROGRAMS
from moa_dialect.tools.moa_run import load_module
from moa_dialect.types import shape_of

FORMS = ("eager", "fused")

_SIZE = re.compile(r"([A-Za-z_]\w*)=([0-9]+)(?::([0-9]+))?$")

MOST = 1 << 40
"""A larger extent is a mistake."""


def parse_sizes(text: str) -> list[dict[str, int]]:
    """Sizes: `n=1024,d=64`, or with a range `n=1024:65536`, doubled at each step.

    Raises:
        BadInputError: if it is not that.
    """
    fixed: dict[str, int] = {}
    ranged: tuple[str, list[int]] | None = None
    for part in filter(None, text.split(",")):
        match = _SIZE.match(part.strip())
        if match is None:
            raise BadInputError(
                f"--sizes: expected name=number or name=from:to, got {part.strip()!r}"
            )
        name, first = match[1], int(match[2])
        last = int(match[3]) if match[3] is not None else first
        if first < 1 or last > MOST:
            raise BadInputError(
                f"--sizes: {name}: expected 1 to {MOST}, got {match[2]}"
                + (f":{match[3]}" if match[3] is not None else "")
            )
        if last < first:
            raise BadInputError(f"--sizes: {name}: a range goes up, got {first}:{last}")
        if name in fixed or (ranged is not None and ranged[0] == name):
            raise BadInputError(f"--sizes: {name} is given twice")
        if match[3] is None:
            fixed[name] = first
            continue
        if ranged is not None:
            raise BadInputError(
                f"--sizes: expected one range, got {ranged[0]} and {name}"
            )
        values: list[int] = []
        while first <= last:
            values.append(first)
            first *= 2
        ranged = name, values
    if ranged is None:
        return [fixed]
    return [{**fixed, ranged[0]: value} for value in ranged[1]]


@dataclass(frozen=True)
class Source:
    """Where programs come from: a name of the library, or a file.

    Attributes:
        name: what the user called it.
        entry: the function of a file; or empty.
        dtype: the element type of a program of the library.
    """

    name: str
    entry: str | None = None
    dtype: str = "f32"

    @property
    def is_known(self) -> bool:
        """Whether it is a program of the library."""
        return self.name in PROGRAMS

    def program(self, sizes: Mapping[str, int]) -> Program:
        """The program for some sizes.

        Raises:
            BadInputError: for a size that it does not have, or an unknown program.
        """
        if self.is_known:
            if self.entry is not None:
                raise BadInputError(
                    f"--entry: expected with a file, got it with {self.name}"
                )
            known = PROGRAMS[self.name]
            self._check(sizes, list(known.sizes))
            return known.at(sizes, self.dtype)
        path = Path(self.name)
        if path.suffix != ".mlir":
            names = ", ".join(PROGRAMS)
            raise BadInputError(
                f"unknown program: expected a file .mlir or one of {names}, "
                f"got {self.name}"
            )
        module = load_module(path, self.entry)
        function = find_entry(module, self.entry)
        names = extent_names(function)
        known = extents_named(function, names)
        self._check(sizes, sorted(known))
        for extent, number in sizes.items():
            if known[extent] not in (number, None):
                raise BadInputError(
                    f"--sizes: {extent} is {known[extent]} in {self.name}, got {number}"
                )
        name = function.sym_name.data
        module = specialised(module, name, names, sizes)
        return Program(module, name, Options(), names, dict(sizes))

    def assumed(self, sizes: Mapping[str, int]) -> list[str]:
        """The names of extents that neither types nor sizes give."""
        if self.is_known:
            return []
        function = find_entry(load_module(Path(self.name), self.entry), self.entry)
        known = extents_named(function, extent_names(function))
        return [n for n, extent in known.items() if extent is None and n not in sizes]

    def _check(self, sizes: Mapping[str, int], known: Sequence[str]) -> None:
        for name in sizes:
            if name not in known:
                names = ", ".join(known) or "none"
                raise BadInputError(
                    f"--sizes: {self.name} has no extent {name}; it has {names}"
                )


def extent_names(function: FuncOp) -> list[list[str | None]]:
    """The names of extents of a function's arguments; those that are not known, too."""
    found = names_of(function)
    for number, argument in enumerate(function.body.block.args):
        if not is_array(argument.type):
            continue
        shape = shape_of(argument.type)
        unnamed: list[str | None] = [None] * len(shape)
        given = found[number]
        names = given if len(given) == len(shape) else unnamed
        hint = argument.name_hint or f"x{number}"
        found[number] = [
            f"{hint}_{axis}" if name is None and extent < 0 else name
            for axis, (name, extent) in enumerate(zip(names, shape, strict=True))
        ]
    return found


def extents_named(
    function: FuncOp, names: Sequence[Sequence[str | None]]
) -> dict[str, int | None]:
    """For each name of an extent its number, None if types do not give it."""
    found: dict[str, int | None] = {}
    for argument, given in zip(function.body.block.args, names, strict=True):
        if not is_array(argument.type):
            continue
        shape = shape_of(argument.type)
        for name, extent in zip(given, shape, strict=False):
            if name is not None:
                number = None if extent < 0 else extent
                found[name] = found.get(name) or number
    return found


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="moa-cost",
        description="Predict what a program costs on a machine.",
        epilog=f"programs: {', '.join(PROGRAMS)}; machines: host, "
        f"{', '.join(shipped())}",
    )
    parser.add_argument(
        "program",
        metavar="PROGRAM|FILE",
        help="a program of the library, or an MLIR file: at the stage moa, or linalg "
        "on tensors, which is raised",
    )
    parser.add_argument("--entry", metavar="NAME", help="the function of the file")
    parser.add_argument(
        "--machine",
        metavar="M",
        default="host",
        help="a machine's name or a TOML file that describes one (default: host)",
    )
    parser.add_argument(
        "--sizes",
        metavar="LIST",
        default="",
        help="extents: n=1024,d=64, or one range n=1024:65536, doubled at each step",
    )
    parser.add_argument(
        "--dtype",
        default="f32",
        choices=("f64", "f32", "bf16", "f16"),
        help="the element type of a program of the library (default: f32)",
    )
    parser.add_argument(
        "--compare",
        metavar="FORMS",
        default="",
        help="eager,fused: a kernel for each array operation beside the fused form",
    )
    parser.add_argument(
        "--regimes",
        action="store_true",
        help="the bytes moved for every capacity of a cache, as formulas",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the formulas of the paper's own model beside this one's",
    )
    parser.add_argument(
        "--explain", action="store_true", help="both sides of the decision to fuse"
    )
    parser.add_argument(
        "--schedules",
        action="store_true",
        help="the schedules to choose from on a CPU, with predicted times",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw a roofline and the bytes by size: .svg, .png or .html",
    )
    return parser.parse_args(arguments)


@dataclass
class Point:
    """What a program costs for one set of sizes."""

    sizes: dict[str, int]
    fused: Cost
    eager: Cost | None
    assumed: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`."""
        found: dict[str, Any] = {"fused": self.fused.to_json()}
        if self.assumed:
            found["assumed"] = dict.fromkeys(self.assumed, NOMINAL)
        if self.eager is not None:
            decision = Decision(self.fused, self.eager)
            found |= {
                "eager": self.eager.to_json(),
                "speedup": decision.speedup,
                "energy_ratio": decision.energy_ratio,
                "fuse": decision.fuse,
            }
        return found


def compared(text: str) -> bool:
    """Whether forms are compared.

    Raises:
        BadInputError: for an unknown form.
    """
    forms = [form for form in text.split(",") if form]
    for form in forms:
        if form not in FORMS:
            raise BadInputError(f"--compare: expected {' or '.join(FORMS)}, got {form}")
    return "eager" in forms


def points_of(options: argparse.Namespace, here: CostMachine) -> list[Point]:
    """What the program costs, for each of the sizes."""
    source = Source(options.program, options.entry, options.dtype)
    compares = compared(options.compare) or options.explain
    found: list[Point] = []
    for sizes in parse_sizes(options.sizes):
        program = source.program(sizes)
        fused = program.cost(here)
        if source.is_known:
            fused.name = options.program
        eager = program.materialised(here) if compares else None
        found.append(Point(sizes, fused, eager, source.assumed(sizes)))
    return found


def sweep_text(points: Sequence[Point]) -> str:
    """A table of costs, a line for each of the sizes."""
    first = points[0]
    (name,) = [
        n for n in first.sizes if any(p.sizes[n] != first.sizes[n] for p in points)
    ]
    levels = [level.level.name for level in first.fused.levels[1:]]
    head = [name, "time", "bottleneck", "energy", *levels, "regime"]
    if first.eager is not None:
        head += ["eager", "speedup", "energy ratio", "choice"]
    rows = [head]
    for point in points:
        cost = point.fused
        regimes: dict[str, list[str]] = {"capacity-bound": [], "copied": []}
        for level in cost.levels[1:]:
            if level.regime in regimes:
                regimes[level.regime].append(level.level.name)
        bound = [
            f"{k} from {', '.join(names)}" for k, names in regimes.items() if names
        ]
        row = [
            f"{point.sizes[name]}",
            seconds(cost.seconds),
            cost.bottleneck,
            joules(cost.energy),
            *(amount(level.bytes, "B") for level in cost.levels[1:]),
            "; ".join(bound) or "fits",
        ]
        if point.eager is not None:
            decision = Decision(cost, point.eager)
            row += [
                seconds(point.eager.seconds),
                f"{decision.speedup:.3g}",
                f"{decision.energy_ratio:.3g}",
                "fuse" if decision.fuse else "do not fuse",
            ]
        rows.append(row)
    return table(rows)


def text_of(options: argparse.Namespace, points: Sequence[Point]) -> str:
    """What is printed."""
    blocks: list[str] = []
    if len(points) == 1:
        blocks.append(cost_text(points[0].fused))
        if points[0].eager is not None:
            blocks.append(Decision(points[0].fused, points[0].eager).explain())
    else:
        blocks.append(f"{options.program} on {points[0].fused.machine.name}")
        blocks.append(sweep_text(points))
        if options.explain:
            for point in points:
                assert point.eager is not None
                sizes = ", ".join(f"{k}={v}" for k, v in point.sizes.items())
                text = Decision(point.fused, point.eager).explain()
                blocks.append(f"{sizes}\n{text}")
    if points[-1].assumed:
        names = ", ".join(points[-1].assumed)
        blocks.append(
            f"assumed: {NOMINAL} for {names}, which --sizes does not give; the code is "
            "that for any number"
        )
    if options.schedules:
        source = Source(options.program, options.entry, options.dtype)
        here = points[-1].fused.machine
        chosen = points[-1].fused.schedules
        rows = [["schedule", "predicted", ""]]
        for text, time in source.program(points[-1].sizes).schedules(here):
            rows.append([text, seconds(time), "chosen" if text in chosen else ""])
        blocks.append(table(rows))
    if options.regimes:
        blocks.append(regimes_text(points[-1].fused.nest))
    if options.paper:
        rows = [["quantity", "the paper's model", "the same here", "note"]]
        rows += paper_rows(points[-1].fused, points[-1].eager)
        blocks.append("The paper's model (Mullin and Hains), in elements:")
        blocks.append(table(rows))
        if literal := literal_rows(points[-1].fused):
            blocks.append(
                "The paper's equations 20 and 21 as they are written, for one head:"
            )
            blocks.append(table([["quantity", "as written", "here", "note"], *literal]))
    return "\n\n".join(blocks)


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        BadInputError: for sizes, forms or a file that cannot be.
        MachineError: for an unknown machine or a description that is none.
        MoaError: if the program has no cost.
    """
    if options.plot is not None:
        from moa_dialect.tools.cost_plots import check_plot

        check_plot(options.plot)
    compared(options.compare)
    parse_sizes(options.sizes)
    here = machine(options.machine)
    points = points_of(options, here)
    if options.json:
        found = [point.to_json() for point in points]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    else:
        print(text_of(options, points))
    if options.plot is not None:
        from moa_dialect.tools.cost_plots import plot

        plot(options.plot, options.program, [(p.fused, p.eager) for p in points])


def main() -> None:
    """Run `moa-cost` on the command line's arguments."""
    with reported("moa-cost"):
        run(parse_arguments())


__all__ = ["MachineError", "main", "parse_sizes", "run"]


if __name__ == "__main__":
    main()
