"""Losses and divergences of logits, over the last axis."""

from __future__ import annotations

from typing import Any

from moa_dialect.errors import DTypeError
from moa_dialect.frontend import functions as moa
from moa_dialect.library.narrow import in_f32
from moa_dialect.library.softmax import row_maximum, row_sum, softmax
from moa_dialect.types import element_type_of, kind_of


@in_f32
def log_softmax(x: Any) -> Any:
    """`(x - max) - log(sum exp(x - max))` over the last axis.

    Args:
        x: shape (..., n), floating point; -inf counts as probability 0 as long as one
            element of the row is finite.

    Returns:
        The same shape: the logarithm of softmax.
    """
    shifted = moa.omega("sub", (1, 0), x, row_maximum(x))
    return moa.omega("sub", (1, 0), shifted, moa.log(row_sum(moa.exp(shifted))))


@in_f32
def cross_entropy(logits: Any, targets: Any) -> Any:
    """`-log_softmax(logits)` at the target, or weighted by the targets: one per row.

    Args:
        logits: shape (..., n), floating point.
        targets: either the class of each row, integers of shape (...) with
            `0 <= target < n`; or the probability of each class, shape and dtype of the
            logits.

    Returns:
        Shape (...), a loss for each row; nothing is averaged.

    Raises:
        DTypeError: for targets of truth values.
        IndexRangeError: for a class out of range.
    """
    element = element_type_of(targets.dtype)
    match kind_of(element):
        case "int":
            return moa.negative(
                moa.omega(_element, (1, 0), log_softmax(logits), targets)
            )
        case "float":
            return moa.negative(row_sum(targets * log_softmax(logits)))
        case _:
            raise DTypeError(
                f"cross_entropy: expected targets of an integer or floating-point "
                f"type, got {element}"
            )


def _element(row: Any, place: Any) -> Any:
    return moa.psi(moa.reshape([1], place), row)


@in_f32
def linear_cross_entropy(x: Any, weight: Any, targets: Any) -> Any:
    """`cross_entropy(X +•× ⊘W, targets)`: the loss of a linear classifier.

    Args:
        x: shape (..., d), floating point.
        weight: shape (n, d): a row for each of n classes, the same dtype.
        targets: as for cross_entropy.

    Returns:
        Shape (...), a loss for each row of x.
    """
    return cross_entropy(moa.omega(_logits, (1, 2), x, weight), targets)


def _logits(x: Any, weight: Any) -> Any:
    return moa.inner("add", "mul", weight, x)


@in_f32
def entropy(logits: Any) -> Any:
    """`-sum p log p` with p the softmax of the last axis, in nats.

    Args:
        logits: shape (..., n), floating point, finite.

    Returns:
        Shape (...).
    """
    return moa.negative(row_sum(softmax(logits) * log_softmax(logits)))


@in_f32
def kl_divergence(p_logits: Any, q_logits: Any) -> Any:
    """`sum p (log p - log q)` with p and q the softmax of the last axes, in nats.

    Args:
        p_logits: shape (..., n), floating point, finite.
        q_logits: likewise.

    Returns:
        Shape (...).
    """
    difference = log_softmax(p_logits) - log_softmax(q_logits)
    return row_sum(softmax(p_logits) * difference)
