"""Programs of the library by name, with sizes, for moa-cost and moa_dialect.tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import moa_dialect as moa
from moa_dialect.cost.programs import Program

Shapes = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Known:
    """A program that has a name.

    Attributes:
        summary: what it is.
        function: the program, a Python function of arrays.
        shapes: for each argument the names of its extents.
        sizes: a number for each name.
        dtypes: element types of arguments that differ from the others.
    """

    summary: str
    function: Callable[..., Any]
    shapes: Shapes
    sizes: Mapping[str, int]
    dtypes: Mapping[int, str] = field(default_factory=dict[int, str])

    def at(self, sizes: Mapping[str, int] | None = None, dtype: str = "f32") -> Program:
        """The program for sizes in place of its own."""
        numbers = {**self.sizes, **(sizes or {})}
        specs = [
            moa.ArraySpec(
                tuple(numbers[name] for name in shape), self.dtypes.get(k, dtype)
            )
            for k, shape in enumerate(self.shapes)
        ]
        compiled = moa.jit(self.function).lower(*specs)
        return compiled.program(self.shapes)


def _attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def _causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def _matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def _products(a: Any, b: Any, c: Any, d: Any) -> Any:
    return _matmul(_matmul(_matmul(a, b), c), d)


_HEADS = ("h", "n", "d")
_ROWS = ("n", "d")

PROGRAMS: dict[str, Known] = {
    "attention": Known(
        "softmax(Q K^T / sqrt d) V of h heads",
        _attention,
        (_HEADS, _HEADS, _HEADS),
        {"h": 8, "n": 2048, "d": 64},
    ),
    "causal": Known(
        "the same with a causal mask",
        _causal,
        (_HEADS, _HEADS, _HEADS),
        {"h": 8, "n": 2048, "d": 64},
    ),
    "decode": Known(
        "one query of h heads on g heads of n keys",
        _attention,
        (("h", "q", "d"), ("g", "n", "d"), ("g", "n", "d")),
        {"h": 32, "q": 1, "g": 8, "n": 8192, "d": 128},
    ),
    "matmul": Known(
        "the product of an n by k and a k by m matrix",
        _matmul,
        (("n", "k"), ("k", "m")),
        {"n": 2048, "k": 2048, "m": 2048},
    ),
    **{
        name: Known(
            f"{text} of n rows of d elements",
            getattr(moa.library, name),
            (_ROWS,),
            {"n": 4096, "d": 4096},
        )
        for name, text in (
            ("softmax", "softmax"),
            ("log_softmax", "log-softmax"),
            ("logsumexp", "the logarithm of the sum of exponentials"),
            ("layernorm", "layer norm"),
            ("rms_norm", "RMS norm"),
            ("variance", "variance"),
            ("entropy", "the entropy of the softmax"),
        )
    },
    "products": Known(
        "the product of four n by n matrices, a sum of sums of sums",
        _products,
        (("n", "n"),) * 4,
        {"n": 512},
    ),
    "cross_entropy": Known(
        "the cross-entropy of n rows of d logits",
        moa.library.cross_entropy,
        (_ROWS, ("n",)),
        {"n": 4096, "d": 4096},
        {1: "i64"},
    ),
}
"""The programs, by name."""
