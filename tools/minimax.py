"""The polynomials of moa-expand-math, computed with mpmath.

    python -m moa_dialect.tools.minimax          # write lowering/math_tables.py
    python -m moa_dialect.tools.minimax --check  # fail if it is not up to date

Each polynomial is the best one for its weight on its interval, found by the exchange
algorithm of Remez; then its coefficients are rounded to floats of its type. That costs
little: the terms of low order, whose rounding would show, are exact in the formulas.
"""

# mpmath has no types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import mpmath as mp
import numpy as np

from moa_dialect.errors import MoaError

Real: TypeAlias = Any
Function = Callable[[Real], Real]

DIGITS = 60
"""Decimal digits that everything is computed with."""

GRID = 30
"""Points of the grid for each coefficient."""

PATH = Path(__file__).resolve().parents[1] / "lowering" / "math_tables.py"


@dataclass(frozen=True)
class Problem:
    """A function to be approximated by a sum of powers.

    Attributes:
        name: the name of the table.
        bits: 32 or 64, the width of the coefficients.
        function: what is approximated.
        interval: where.
        powers: the exponents of the free terms.
        weight: what the error is multiplied by at a point, up to its sign.
    """

    name: str
    bits: int
    function: Function
    interval: tuple[Real, Real]
    powers: Sequence[int]
    weight: Function


def rounded(value: Real, bits: int) -> float:
    """A real number as the nearest float of a width."""
    return float(np.float32(float(value))) if bits == 32 else float(value)


def _solve(
    values: Sequence[Real], rows: Sequence[Sequence[Real]]
) -> tuple[list[Real], Real]:
    """Coefficients for which the weighted error is ± the same level at the points."""
    count = len(values)
    system = mp.matrix(count, count)
    for i in range(count):
        for j, entry in enumerate(rows[i]):
            system[i, j] = entry
        system[i, count - 1] = 1 - 2 * (i % 2)
    solution = mp.lu_solve(system, mp.matrix(values))
    return [solution[j] for j in range(count - 1)], solution[count - 1]


def remez(values: Sequence[Real], rows: Sequence[Sequence[Real]]) -> list[Real]:
    """The best coefficients on a grid, by exchanging all points of the reference.

    Args:
        values: the weighted function at each point.
        rows: each weighted power at each point; the points are in increasing order.
    """
    count = len(rows[0])
    size = len(values)
    chosen = [round(i * (size - 1) / count) for i in range(count + 1)]
    coefficients: list[Real] = []
    for _ in range(60):
        coefficients, level = _solve(
            [values[i] for i in chosen],
            [rows[i] for i in chosen],
        )
        errors = [
            value - mp.fdot(coefficients, row)
            for value, row in zip(values, rows, strict=True)
        ]
        # The largest error of each run of one sign.
        runs: list[int] = []
        for i, error in enumerate(errors):
            if runs and (error >= 0) == (errors[runs[-1]] >= 0):
                if abs(error) > abs(errors[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        while len(runs) > count + 1:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        worst = max(abs(error) for error in errors)
        if worst <= abs(level) * (1 + mp.mpf(10) ** -6) or len(runs) <= count:
            return coefficients
        chosen = runs
    return coefficients


def solve(problem: Problem) -> tuple[list[float], Real]:
    """The coefficients, rounded to their type, and the largest error on the grid."""
    low, high = problem.interval
    size = GRID * len(problem.powers)
    middle, radius = (low + high) / 2, (high - low) / 2
    points = [
        middle - radius * mp.cos(mp.pi * (2 * i + 1) / (2 * size)) for i in range(size)
    ]
    points = [low, *points, high]
    weights = [abs(problem.weight(x)) for x in points]
    # What weighs nothing has no influence, and would make the equations singular.
    points = [x for x, weight in zip(points, weights, strict=True) if weight]
    weights = [weight for weight in weights if weight]
    exact = [problem.function(x) for x in points]
    values = [value * weight for value, weight in zip(exact, weights, strict=True)]
    rows = [
        [weight * x**power for power in problem.powers]
        for x, weight in zip(points, weights, strict=True)
    ]
    coefficients = [rounded(c, problem.bits) for c in remez(values, rows)]
    errors = (
        abs(value - mp.fdot(row, map(mp.mpf, coefficients)))
        for value, row in zip(values, rows, strict=True)
    )
    return coefficients, max(errors)


def _problems() -> list[Problem]:
    half = mp.log(2) / 2 * (1 + mp.mpf(2) ** -12)

    def exp_tail(x: Real) -> Real:
        return mp.fsum(x**k / mp.factorial(k + 2) for k in range(40))

    def exp2_tail(x: Real) -> Real:
        return mp.fsum(
            x**k * mp.log(2) ** (k + 1) / mp.factorial(k + 1) for k in range(40)
        )

    def log_tail(f: Real) -> Real:
        """(log(1 + f) - f + f² / 2) / f³."""
        if abs(f) < mp.mpf(10) ** -6:
            return mp.mpf(1) / 3 - f / 4 + f**2 / 5 - f**3 / 6
        return (mp.log1p(f) - f + f**2 / 2) / f**3

    def atanh_tail(z: Real) -> Real:
        """(log((1 + s) / (1 - s)) - 2 s) / (s z) for z = s²."""
        return mp.fsum(2 * z**k / (2 * k + 3) for k in range(40))

    def erf_tail(z: Real) -> Real:
        """Erf(x) / x - 1 for z = x²."""
        scale = 2 / mp.sqrt(mp.pi)
        return (
            scale
            * mp.fsum((-z) ** k / (mp.factorial(k) * (2 * k + 1)) for k in range(60))
            - 1
        )

    def half_expm1_tail(x: Real) -> Real:
        """(expm1(2 x) / 2 - x) / x²."""
        return mp.fsum(2 ** (k + 1) * x**k / mp.factorial(k + 2) for k in range(50))

    def log_erfc(center: Real) -> Function:
        return lambda u: -mp.log(mp.erfc(u + center))

    def erfc_weight(center: Real) -> Function:
        return lambda u: mp.erfc(u + center) / mp.erf(u + center)

    interval = (-half, half)
    # In tanh n is nearest to a number that is less by TANH_DELAY = 0.2.
    delayed = -half / 2, half * mp.mpf("0.7")
    unit = (-mp.mpf(1) / 2, mp.mpf(1) / 2)
    edges = mp.sqrt(mp.mpf(1) / 2) - 1, mp.sqrt(2) - 1
    small = (mp.mpf(0), (edges[1] / (2 + edges[1])) ** 2 * (1 + mp.mpf(2) ** -20))
    problems: list[Problem] = []
    for bits, exp_degree, exp2_degree, tanh_degree in ((32, 6, 6, 7), (64, 11, 11, 13)):
        problems += [
            # exp(x) = 1 + x + x² p(x); relative to exp(x).
            Problem(
                f"EXP_{bits}", bits, exp_tail, interval, range(exp_degree - 1),
                lambda x: x**2 / mp.exp(x),
            ),
            # exp2(x) = 1 + x p(x).
            Problem(
                f"EXP2_{bits}", bits, exp2_tail, unit, range(exp2_degree),
                lambda x: x / mp.power(2, x),
            ),
            # expm1(2 x) / 2 = x + x² p(x).
            Problem(
                f"HALF_EXPM1_{bits}", bits, half_expm1_tail, delayed,
                range(tanh_degree - 1), lambda x: x,
            ),
        ]  # fmt: skip
    problems += [
        # log(1 + f) = f - f² / 2 + f³ p(f).
        Problem(
            "LOG_32", 32, log_tail, edges, range(9),
            lambda f: f**3 / mp.log1p(f) if f else f,
        ),
        # log((1 + s) / (1 - s)) = 2 s + s z p(z), z = s².
        Problem("LOG_64", 64, atanh_tail, small, range(7), lambda z: z),
        # log2((1 + s) / (1 - s)) = s p(s²) and exp2(x) = 1 + x p(x), for powers of f32.
        Problem(
            "POWER_LOG2", 64, lambda z: (2 + z * atanh_tail(z)) / mp.log(2), small,
            range(6), lambda z: mp.mpf(1),
        ),
        Problem(
            "POWER_EXP2", 64, exp2_tail, unit, range(7), lambda x: x / mp.power(2, x)
        ),
        # erf(x) = x + x p(x²) below 0.921875 and 1.
        Problem(
            "ERF_32", 32, erf_tail, (mp.mpf(0), mp.mpf("0.921875") ** 2), range(7),
            lambda z: 1 / (1 + erf_tail(z)),
        ),
        Problem(
            "ERF_64", 64, erf_tail, (mp.mpf(0), mp.mpf(1)), range(12),
            lambda z: 1 / (1 + erf_tail(z)),
        ),
        # erfc(1 + u) = exp(-p(u)); relative to erf.
        Problem(
            "LOG_ERFC_32", 32, log_erfc(mp.mpf("1")),
            (mp.mpf("0.921875") - mp.mpf("1"), mp.mpf(4) - mp.mpf("1")),
            range(8), erfc_weight(mp.mpf("1")),
        ),
        Problem(
            "LOG_ERFC_64", 64, log_erfc(mp.mpf("1")),
            (mp.mpf(0), mp.mpf(5)), range(20), erfc_weight(mp.mpf("1")),
        ),
    ]  # fmt: skip
    return problems


def _constants() -> list[tuple[str, float]]:
    """Constants as sums of two floats; those with few bits have exact multiples."""
    ln2, log2e = mp.log(2), 1 / mp.log(2)
    constants: list[tuple[str, float]] = []
    for bits, few in ((32, 15), (64, 41)):
        for name, value in (("LN2", ln2), ("LOG2_E", log2e)):
            high = rounded(value, bits)
            constants += [
                (f"{name}_HIGH_{bits}", high),
                (f"{name}_LOW_{bits}", rounded(value - high, bits)),
            ]
        high = float(mp.nint(ln2 * 2**few)) / 2**few
        constants += [
            (f"LN2_SHORT_{bits}", high),
            (f"LN2_REST_{bits}", rounded(ln2 - high, bits)),
        ]
    return constants


def tables() -> str:
    """The text of lowering/math_tables.py."""
    lines = [
        '"""The constants and polynomials of moa-expand-math, lowest terms first.',
        "",
        "Written by `python -m moa_dialect.tools.minimax`, which says what of.",
        '"""',
    ]
    with mp.workdps(DIGITS):
        lines += [""]
        lines += [f"{name} = {value!r}" for name, value in _constants()]
        for problem in _problems():
            coefficients, error = solve(problem)
            level = mp.nstr(mp.log(error, 2), 4)
            lines += ["", f"{problem.name} = (  # error below 2^{level}"]
            lines += [f"    {value!r}," for value in coefficients]
            lines += [")"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the tables; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    text = tables()
    if not options.check:
        PATH.write_text(text)
    elif not PATH.exists() or PATH.read_text() != text:
        print(f"{PATH.name} is not up to date", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MoaError as error:
        sys.exit(str(error))
