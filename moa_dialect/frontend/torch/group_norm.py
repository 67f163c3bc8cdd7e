"""Group norm as a norm of rows, which is what it is in another shape.

A group of channels is a row of (batch, groups, elements of a group), a view that costs
nothing. The operator `moa::group_norm_rows` keeps the norm and the weights together for
AOTAutograd's graphs, which are made after gradients have been taken.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.torch.translation import Node, converted, register
from moa_dialect.frontend.torch.values import extent, with_axis
from moa_dialect.library.statistics import centred, mean, variance

aten = torch.ops.aten
Tensor = torch.Tensor

_LIBRARY = torch.library.Library("moa", "FRAGMENT")
_LIBRARY.define(
    "group_norm_rows(Tensor rows, Tensor? weight, Tensor? bias, float eps) "
    "-> (Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "group_norm_rows", "CPU")
def group_norm_rows(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Norm of rows of shape (batch, groups, n); PyTorch's, where moa has no kernel.

    Args:
        rows: the rows, n of them elements of channels one after the other.
        weight: a number for each channel of all groups, or None for 1.
        bias: likewise, or None for 0.
        eps: what is added to the variance.

    Returns:
        The norm, the means, and the reciprocals of the deviations, (batch, groups).
    """
    batch, groups, count = rows.shape
    channels = groups if weight is None else weight.numel()
    channels = channels if bias is None else bias.numel()
    planes = rows.reshape(batch, channels, (groups * count) // max(channels, 1))
    out, average, scale = aten.native_group_norm(
        planes, weight, bias, batch, channels, planes.shape[2], groups, eps
    )
    return out.view(rows.shape), average, scale


@torch.library.register_fake("moa::group_norm_rows", lib=_LIBRARY)  # pyright: ignore
def _shapes(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = rows.new_empty(rows.shape[:2])
    return rows.new_empty(rows.shape), statistics, torch.empty_like(statistics)


def decomposed(
    planes: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: Any,
    channels: Any,
    elements: Any,
    groups: Any,
    eps: float,
) -> Any:
    """`aten.native_group_norm` by way of `group_norm_rows`, or left as it is."""
    has_numbers = weight is not None or bias is not None
    if not isinstance(groups, int) or not (
        isinstance(channels, int) or not has_numbers
    ):
        return NotImplemented
    if any(x is not None and x.dtype != planes.dtype for x in (weight, bias)):
        return NotImplemented
    if not planes.is_contiguous():
        return NotImplemented  # The result has the order of its elements.
    count = (channels // groups) * elements
    rows = planes.view(batch, groups, count)
    out, average, scale = torch.ops.moa.group_norm_rows(rows, weight, bias, eps)
    return out.view(planes.shape), average, scale


def _unknown_channels(node: fx.Node) -> str | None:
    """Whether it is said which channels are of a group."""
    rows, *numbers = node.args[:3]
    assert isinstance(rows, fx.Node)
    of_channels = [each for each in numbers if isinstance(each, fx.Node)]
    counts = [rows.meta["val"].shape[1], *(n.meta["val"].shape[0] for n in of_channels)]
    if of_channels and not all(isinstance(extent(count), int) for count in counts):
        return "channels that a call says"
    return None


@register(
    "fold",
    torch.ops.moa.group_norm_rows.default,
    worth=True,
    reason=_unknown_channels,
)
def _group_norm_rows(node: Node, x: Any, weight: Any, bias: Any, eps: float) -> Any:
    out, statistics, _ = node.value
    groups, count = node.shape_of(0)[1:]
    x = converted(x, out.dtype)
    scale = moa.rsqrt(variance(x) + eps)
    result = moa.omega("mul", (1, 0), centred(x), scale)
    for name, place in (("mul", 1), ("add", 2)):
        numbers = (weight, bias)[place - 1]
        if numbers is None:
            continue
        assert isinstance(groups, int)
        numbers = converted(numbers, out.dtype)
        of_group = node.shape_of(place)[0] // groups
        each = moa.reshape([groups, int(of_group)], numbers)
        length = node.known.value(count)
        if isinstance(length, int):
            length = length // of_group
        elif of_group != 1:
            length = moa.floor_divide(length, int(of_group))
        each = with_axis(each, 2, length)
        if of_group == 1:
            each = moa.psi([0], moa.transpose(each, [1, 0, 2]))
        else:
            each = moa.reshape(node.known.vector((groups, count)), each)
        result = moa.omega(name, (2, 2), result, each)
    average = converted(mean(x), statistics.dtype)
    return result, average, converted(scale, statistics.dtype)
