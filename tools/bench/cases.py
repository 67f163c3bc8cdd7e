"""What is measured: a program on inputs of one shape and dtype, and the work it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Size: TypeAlias = Mapping[str, int | str | bool]
Metric: TypeAlias = Literal["time", "build", "cached-build", "memory"]
Bound: TypeAlias = Literal["flops", "read", "copy", "none"]

DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype(np.float16),
}

TOLERANCES = {"f64": 1e-12, "f32": 2e-5, "bf16": 3e-2, "f16": 4e-3}
"""The largest relative error of a row of a result that still counts as right."""


class UnsupportedError(Exception):
    """A contender has nothing for a case; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """A program on inputs of one shape and dtype.

    Attributes:
        suite: the suite it belongs to.
        program: a name in `programs.PROGRAMS`.
        dtype: of the inputs, a name in `DTYPES`.
        size: extents and options, as the program has them.
        threads: how many cores a contender may use.
        metric: what is measured; `build` is from the program to its first result,
            `cached-build` the same when another process has done so before.
        contenders: who takes part, in the order in which they take turns.
    """

    suite: str
    program: str
    dtype: str
    size: Size = field(default_factory=dict[str, "int | str | bool"])
    threads: int = 1
    metric: Metric = "time"
    contenders: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The case in a few words, without the suite."""
        words = [] if self.program == "attention" else [self.program]
        words.append(self.dtype)
        for name, value in self.size.items():
            if value is True:
                words.append(name)
            elif isinstance(value, str):
                words.append(value)
            elif value is not False:
                words.append(f"{name}={value}")
        if self.metric in ("build", "cached-build"):
            words.append("cold" if self.metric == "build" else "from disk")
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The case as a dictionary of plain values."""
        return {
            "suite": self.suite,
            "program": self.program,
            "dtype": self.dtype,
            "size": dict(self.size),
            "threads": self.threads,
            "metric": self.metric,
            "contenders": list(self.contenders),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Case:
        """The case that `to_json` made a dictionary of."""
        names: list[str] = value["contenders"]
        return Case(
            value["suite"],
            value["program"],
            value["dtype"],
            value["size"],
            value["threads"],
            value["metric"],
            tuple(names),
        )


@dataclass(frozen=True)
class Work:
    """What a case costs on paper, and what bounds it.

    Attributes:
        flops: floating-point operations of products and sums, 0 if not counted.
        bytes: what has to be read and written once.
        bound: the machine peak that the time is compared with.
    """

    flops: float
    bytes: float
    bound: Bound


def row_error(result: Array, expected: Array) -> float:
    """The largest relative error of a row, over the last axis; infinite with NaN.

    A row whose norm is small beside the others' is measured by a tenth of theirs.
    For results of rank 1 each element is a row.

    Raises:
        ValueError: for a result of another shape.
    """
    if result.shape != expected.shape:
        raise ValueError(f"expected shape {expected.shape}, got {result.shape}")
    if expected.size == 0:
        return 0.0
    given = result.astype(np.float64)
    if expected.ndim < 2:
        given, expected = given.reshape(-1, 1), expected.reshape(-1, 1)
    sizes: Array = np.linalg.norm(expected, axis=-1)
    floor = 0.1 * np.sqrt(np.mean(sizes**2))
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.linalg.norm(given - expected, axis=-1)
    errors = distances / np.maximum(np.maximum(sizes, floor), 1e-300)
    return float(np.max(errors)) if np.isfinite(errors).all() else float("inf")
