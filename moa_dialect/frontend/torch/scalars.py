"""Scalar functions of PyTorch that are composed of those of the dialect."""

from __future__ import annotations

import math
from typing import Any

from moa_dialect.frontend import functions as moa


def trunc(a: Any) -> Any:
    """The integer next to a number on the side of 0."""
    return moa.where(a < 0.0, moa.ceil(a), moa.floor(a))


def round_even(a: Any) -> Any:
    """The nearest integer; of two, the even one."""
    low = moa.floor(a)
    rest = a - low
    pairs = moa.floor(low * 0.5)
    is_odd = pairs + pairs != low
    up = (rest > 0.5) | ((rest == 0.5) & is_odd)
    # Numbers that large are whole, infinity among them.
    rounded = moa.where(up, low + 1.0, low)
    return moa.where(moa.absolute(a) == math.inf, a, rounded)


def log1p(a: Any) -> Any:
    """`log(1 + x)`: `log(u) x / (u - 1)` for `u = 1 + x`, which rounds as x does.

    Source: Kahan; see Goldberg, *What every computer scientist should know about
    floating-point arithmetic* (1991), theorem 4.
    """
    u = 1.0 + a
    log = moa.log(u)
    scaled = log * (a / (u - 1.0))
    return moa.where(u == 1.0, a, moa.where(u == math.inf, log, scaled))


def expm1(a: Any) -> Any:
    """`exp(x) - 1`: `(u - 1) x / log(u)` for `u = exp(x)`, which rounds as x does.

    Source: Kahan; see Higham, *Accuracy and Stability of Numerical Algorithms* (2002),
    section 1.14.1.
    """
    u = moa.exp(a)
    less = u - 1.0
    quotient = less * a / moa.log(u)
    is_far = moa.absolute(a) > 1.0
    return moa.where(u == 1.0, a, moa.where(is_far, less, quotient))


def sinh(a: Any) -> Any:
    """`(e + e / (e + 1)) / 2` for `e = expm1(|x|)`, with the sign of x."""
    size = moa.absolute(a)
    e = expm1(size)
    near = 0.5 * (e + e / (e + 1.0))
    # Half of the power, where the power is more than the largest number.
    half = moa.exp(0.5 * size)
    result = moa.where(size > 20.0, 0.5 * half * half, near)
    return moa.where(a < 0.0, -result, result)


def cosh(a: Any) -> Any:
    """`(exp(x) + exp(-x)) / 2`."""
    half = moa.exp(0.5 * moa.absolute(a))
    return 0.5 * half * half + 0.5 / (half * half)
