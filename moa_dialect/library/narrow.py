"""Programs of f16 and bf16, which compute in f32."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.functions import HALVES
from moa_dialect.frontend.trace import Array
from moa_dialect.types import dtype_of

P = ParamSpec("P")


def widened(a: Any) -> Any:
    """An array of f16 or bf16 as one of f32, any other value as it is."""
    is_narrow = isinstance(a, Array) and a.element_type in HALVES
    return moa.cast(a, "f32") if is_narrow else a


def in_f32(program: Callable[P, Any]) -> Callable[P, Any]:
    """Let a program of arrays of f16 or bf16 compute in f32, and round its result."""

    @wraps(program)
    def rounded(*arrays: P.args, **options: P.kwargs) -> Any:
        given = next(
            (
                a.element_type
                for a in (*arrays, *options.values())
                if isinstance(a, Array) and a.element_type in HALVES
            ),
            None,
        )
        if given is None:
            return program(*arrays, **options)
        wide: Any = program
        result = wide(
            *map(widened, arrays), **{n: widened(a) for n, a in options.items()}
        )
        return moa.cast(result, dtype_of(given))

    return rounded
