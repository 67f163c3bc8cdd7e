"""The suites: which cases are measured, and who takes part in each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from moa_dialect.tools.bench.cases import Case, Metric
from moa_dialect.tools.bench.programs import ROWS

Values: TypeAlias = tuple[Any, ...]
Axes: TypeAlias = Mapping[str, Values]

ATTENTION = (
    "moa",
    "torch-sdpa",
    "torch-flex",
    "torch",
    "torch-compile",
    "onnxruntime",
    "openvino",
)


class SuiteError(Exception):
    """A suite does not have what is asked for. The message is one line."""


@dataclass(frozen=True)
class Grid:
    """Cases for every combination of some values.

    Attributes:
        program: the program, or `` if it is the axis `program`.
        axes: the values of each extent or option, first varying slowest.
        contenders: who takes part.
        metric: what is measured.
        quick: other values, for a run of a minute or so.
        others: axes that are there if they are given values.
    """

    program: str
    axes: Axes
    contenders: tuple[str, ...]
    metric: Metric = "time"
    quick: Axes = field(default_factory=dict[str, Values])
    others: tuple[str, ...] = ()

    def cases(
        self, suite: str, given: Axes, threads: Sequence[int], quick: bool
    ) -> list[Case]:
        """The cases, with the values given in place of the suite's own."""
        axes = {**self.axes, **(self.quick if quick else {}), **given}
        known = {*self.axes, *self.others}
        axes = {name: values for name, values in axes.items() if name in known}
        found: list[Case] = []
        for point in itertools.product(*axes.values()):
            size = dict(zip(axes, point, strict=True))
            dtype = size.pop("dtype")
            program = size.pop("program", self.program)
            found += [
                Case(suite, program, dtype, size, t, self.metric, self.contenders)
                for t in threads
            ]
        return found


def _option(axis: str) -> str:
    """How the command line has an axis."""
    return f"--{axis.replace('_', '-')}"


@dataclass(frozen=True)
class Suite:
    """Cases that belong together.

    Attributes:
        name: as the command line has it.
        summary: what it is, in a line.
        grids: the cases.
        all_threads: whether it runs with 1, 2, 4, ... threads if none are given.
    """

    name: str
    summary: str
    grids: tuple[Grid, ...]
    all_threads: bool = False

    def cases(
        self, given: Axes, threads: Sequence[int], cores: int, quick: bool = False
    ) -> list[Case]:
        """The cases of a suite.

        Args:
            given: values of axes in place of the suite's own.
            threads: how many threads, or nothing for the suite's own.
            cores: how many cores there are.
            quick: fewer and smaller cases.

        Raises:
            SuiteError: for an axis that no grid of the suite has.
        """
        known = list(
            dict.fromkeys(n for grid in self.grids for n in (*grid.axes, *grid.others))
        )
        for name in given:
            if name not in known:
                options = ", ".join(map(_option, known))
                raise SuiteError(
                    f"suite {self.name} has no {_option(name)}; it has {options}"
                )
        if not threads:
            powers = [1 << k for k in range(cores.bit_length()) if 1 << k < cores]
            threads = [*powers, cores] if self.all_threads else [cores]
        return [
            case
            for grid in self.grids
            for case in grid.cases(self.name, given, threads, quick)
        ]


def _attention(
    dtypes: Values, n: Values, summary: str, name: str, others: tuple[str, ...] = ()
) -> Suite:
    grid = Grid(
        "attention",
        {
            "dtype": dtypes,
            "d": (64, 128),
            "causal": (False, True),
            "heads": (8,),
            "n": n,
        },
        ATTENTION,
        quick={"n": (128, 256), "d": (64,)},
        others=others,
    )
    return Suite(name, summary, (grid,))


N = (512, 1024, 2048, 4096, 8192, 16384)

SHORT_N = (1, 7, 33, 100, 200)
ODD_D = (32, 40, 80, 96, 160, 256)
SHORT = ("moa", "torch-sdpa", "onnxruntime", "openvino")

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        _attention(
            ("f32",),
            N,
            "attention, full and causal",
            "attention",
            ("m", "e", "kv_heads", "window"),
        ),
        _attention(("f32",), N, "attention in f32, full and causal", "attention-f32"),
        _attention(("bf16",), N, "attention in bf16", "attention-bf16"),
        _attention(("f64",), N[:-1], "attention in f64", "attention-f64"),
        Suite(
            "window",
            "attention to the 256 keys up to the query",
            (
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "d": (64,),
                        "causal": (True,),
                        "heads": (8,),
                        "window": (256,),
                        "n": (4096,),
                    },
                    ("moa", "torch-sdpa", "torch-flex", "onnxruntime", "openvino"),
                    quick={"n": (256,), "window": (64,)},
                ),
            ),
        ),
        Suite(
            "variants",
            "ALiBi, soft cap, documents and bias, beside plain attention",
            (
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "d": (64,),
                        "heads": (8,),
                        "n": (2048,),
                        "variant": ("plain", "alibi", "softcap", "document", "bias"),
                    },
                    ATTENTION,
                    quick={"n": (128,)},
                ),
            ),
        ),
        Suite(
            "decode",
            "one query, 32 heads on 8, 8192 keys",
            (
                Grid(
                    "attention",
                    {
                        "dtype": ("f32", "bf16"),
                        "d": (128,),
                        "heads": (32,),
                        "kv_heads": (8,),
                        "n": (1,),
                        "m": (8192,),
                    },
                    (
                        "moa",
                        "torch-sdpa",
                        "torch-sdpa-rows",
                        "torch-flex",
                        "onnxruntime",
                        "openvino",
                    ),
                    quick={"m": (512,)},
                ),
            ),
        ),
        Suite(
            "short-odd",
            "short sequences, unusual head sizes, d_v other than d_k, cross attention",
            (
                Grid(
                    "attention",
                    {"dtype": ("f32",), "heads": (8,), "d": ODD_D, "n": SHORT_N},
                    SHORT,
                    quick={"d": (40, 160), "n": (1, 33)},
                ),
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "heads": (8,),
                        "d": (64, 192),
                        "e": (32, 128),
                        "n": (100,),
                    },
                    SHORT,
                    quick={"d": (64,), "e": (32,)},
                ),
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "heads": (8,),
                        "d": (40, 80, 160),
                        "n": (4096,),
                        "m": (77,),
                    },
                    SHORT,
                    quick={"d": (40,), "n": (200,)},
                ),
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "heads": (8,),
                        "d": (64,),
                        "n": (77,),
                        "m": (4096,),
                    },
                    SHORT,
                    quick={"n": (7,), "m": (200,)},
                ),
            ),
        ),
        Suite(
            "rows",
            "normalisations, losses and statistics of the rows of a matrix",
            (
                Grid(
                    "",
                    {
                        "program": tuple(ROWS),
                        "dtype": ("f32",),
                        "rows": (4096,),
                        "columns": (4096,),
                    },
                    ("moa", "torch", "torch-compile"),
                    quick={"rows": (256,), "columns": (256,)},
                ),
            ),
        ),
        Suite(
            "matmul",
            "square matrix products",
            (
                Grid(
                    "matmul",
                    {"dtype": ("f32", "f64", "bf16"), "n": (2048,)},
                    ("moa", "torch", "numpy", "openvino"),
                    quick={"n": (128,)},
                ),
            ),
        ),
        Suite(
            "memory",
            "memory of a call beyond inputs and result",
            (
                Grid(
                    "attention",
                    {"dtype": ("f32",), "d": (64,), "heads": (1,), "n": (32768,)},
                    ("moa", "torch-sdpa", "torch-flex", "onnxruntime", "openvino"),
                    "memory",
                    quick={"n": (1024,)},
                ),
            ),
        ),
        Suite(
            "compile",
            "time to the first result, from nothing and from disk; cost of a call",
            (
                *(
                    Grid(
                        "attention",
                        {"dtype": ("f32",), "d": (64,), "heads": (8,), "n": (256,)},
                        (
                            "moa",
                            "torch-flex",
                            "torch-compile",
                            "onnxruntime",
                            "openvino",
                        ),
                        metric,
                    )
                    for metric in ("build", "cached-build")
                ),
                Grid(
                    "increment",
                    {"dtype": ("f64",)},
                    (
                        "moa-jit",
                        "moa",
                        "moa-kernel",
                        "torch",
                        "torch-compile",
                        "numpy",
                    ),
                ),
            ),
        ),
        Suite(
            "scaling",
            "attention by length and by threads",
            (
                Grid(
                    "attention",
                    {
                        "dtype": ("f32",),
                        "d": (64,),
                        "heads": (8,),
                        "n": (256, 512, 1024, 2048, 4096, 8192),
                    },
                    ("moa", "torch-sdpa", "onnxruntime", "openvino"),
                    quick={"n": (128, 256)},
                ),
            ),
            all_threads=True,
        ),
    )
}
"""Every suite, by name."""

ALL = tuple(name for name in SUITES if name != "attention")
"""What `all` runs: `attention` is there to be given sizes, and has no others."""
