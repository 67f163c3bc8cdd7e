"""Costs as text: tables that people read, and both sides of a decision."""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moa_dialect.cost.algebra import Expr, symbols
from moa_dialect.cost.model import Cost
from moa_dialect.cost.nests import Nest
from moa_dialect.cost.traffic import regimes, tidy

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix: `1.23 MB`."""
    for size, prefix in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def seconds(value: float) -> str:
    """A time: `1.23 ms`."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def joules(value: float) -> str:
    """An energy: `1.23 mJ`."""
    for size, unit in ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} nJ"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns; the first row is the head."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        first, *others = row
        cells = [first.ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    head, *body = rows
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(head), rule, *map(line, body)])


def cost_text(cost: Cost, formulas: bool = True) -> str:
    """A cost as text: operations, bytes for each level, time and energy."""
    used = {s for _, formula in formula_rows(cost) for s in symbols(formula)}
    values = cost.nest.values
    sizes = ", ".join(f"{s}={v}" for s, v in values.items() if s in used)
    lines = [f"{cost.name}{f' with {sizes}' if sizes else ''} on {cost.machine.name}"]
    form = {
        "lifted": "one kernel, scheduled",
        "onf": "plain loops on one core",
        "materialised": "a kernel for each array operation",
    }[cost.form]
    lines.append(f"form: {form}")
    lines += [f"schedule: {text}" for text in dict.fromkeys(cost.schedules)]
    lines.append("")
    rows = [["operations", "count", "formula"]]
    for (kind, dtype), count in sorted(cost.operations.items()):
        formula = f"{tidy(count)}" if formulas else ""
        rows.append([f"{kind} {dtype}", amount(cost.number(count)), formula])
    lines += [table(rows), ""]
    rows = [["bytes", "amount", "formula"]]
    for name, expression in (
        ("compulsory", cost.compulsory),
        ("scratch", cost.storage),
    ):
        formula = f"{tidy(expression)}" if formulas else ""
        rows.append([name, amount(cost.number(expression), "B"), formula])
    lines += [table(rows), ""]
    rows = [["level", "bytes", "bound", "ratio", "regime", "time", "energy"]]
    for level in cost.levels:
        rows.append(
            [
                level.level.name,
                amount(level.bytes, "B"),
                amount(level.bound, "B"),
                f"{level.ratio:.3g}",
                level.regime,
                seconds(level.seconds),
                joules(level.energy),
            ]
        )
    lines.append(table(rows))
    order = " up to a constant" if cost.bound.is_order else ""
    lines.append(f"bound: {cost.bound.kind}{order} ({cost.bound.source})")
    if formulas:
        for level in cost.levels:
            if level.traffic is not None:
                lines.append(f"{level.level.name}: {tidy(level.traffic.total)} bytes")
    lines.append("")
    parts = ", ".join(
        f"{name} {seconds(value)}"
        for name, value in sorted(cost.parts.items(), key=lambda p: -p[1])
        if value > 0
    )
    lines.append(f"time: {seconds(cost.seconds)} ({parts})")
    least, most = map(joules, cost.energy_range)
    lines.append(
        f"energy: {joules(cost.energy)}, by tables, within a factor of "
        f"{cost.machine.energy_within:g}: {least} to {most}"
    )
    return "\n".join(lines)


def regimes_text(nest: Nest, line: int = 64) -> str:
    """The bytes that a cache moves, for every capacity `C`, as a formula."""
    rows = [["capacity at least", "that is", "bytes moved"]]
    for capacity, threshold, total in regimes(nest, line):
        rows.append([amount(capacity, "B"), f"{tidy(threshold)}", f"{tidy(total)}"])
    return table(rows)


@dataclass(frozen=True)
class Decision:
    """Whether to fuse a program on a machine, and why.

    Attributes:
        fused: what the fused form costs.
        materialised: what a kernel for each array operation costs.
    """

    fused: Cost
    materialised: Cost

    @property
    def fuse(self) -> bool:
        """Whether the fused form takes less time."""
        return self.fused.seconds <= self.materialised.seconds

    @property
    def speedup(self) -> float:
        """How many times faster the fused form is."""
        return self.materialised.seconds / self.fused.seconds

    @property
    def energy_ratio(self) -> float:
        """How many times less energy it takes."""
        return self.materialised.energy / self.fused.energy

    def explain(self) -> str:
        """Both sides as text."""
        sides = {"fused": self.fused, "materialised": self.materialised}
        names = [level.level.name for level in self.fused.levels]
        rows = [["", "time", "bottleneck", "energy", *names, "scratch"]]
        for name, cost in sides.items():
            rows.append(
                [
                    name,
                    seconds(cost.seconds),
                    cost.bottleneck,
                    joules(cost.energy),
                    *(amount(level.bytes, "B") for level in cost.levels),
                    amount(cost.number(cost.storage), "B"),
                ]
            )
        verdict = "fuse" if self.fuse else "do not fuse"
        reason = f"the fused form takes 1/{self.speedup:.3g} of the time"
        if not self.fuse:
            reason = f"the fused form takes {1 / self.speedup:.3g} times as long"
        form = self.fused.form
        if form == "onf":
            reason += ", as it has no vector code"
        machine = self.fused.machine.name
        return f"{table(rows)}\non {machine}: {verdict}, {reason}"


def formula_rows(cost: Cost) -> list[tuple[str, Expr]]:
    """Names and formulas of what a cost states in closed form."""
    rows: list[tuple[str, Expr]] = [
        (f"{kind} {dtype}", count) for (kind, dtype), count in cost.operations.items()
    ]
    rows += [("compulsory", cost.compulsory), ("scratch", cost.storage)]
    rows += [
        (level.level.name, level.traffic.total)
        for level in cost.levels
        if level.traffic is not None
    ]
    return rows
