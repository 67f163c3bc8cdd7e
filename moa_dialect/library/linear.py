"""Products of matrices."""

from __future__ import annotations

from typing import Any

from moa_dialect.frontend import functions as moa


def matmul(a: Any, b: Any) -> Any:
    """The matrix product `A +•× B`, over leading axes that both share.

    Args:
        a: shape (..., n, k).
        b: shape (..., k, m), the same dtype; its leading axes agree with a's trailing
            leading axes.

    Returns:
        Shape (..., n, m).
    """
    return moa.omega(_product, (2, 2), a, b)


def _product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)
