"""Linear maps of rows, with what is applied to each element of the result.

AOTAutograd makes `linear` a view, a transposition of the weight, a product and another
view. Here they become one call again. It runs a kernel of moa if there are enough rows,
and PyTorch's `linear` if there are few.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.jit import Compiled, jit
from moa_dialect.frontend.torch.calls import Caller
from moa_dialect.frontend.torch.regions import VIEWS
from moa_dialect.frontend.torch.translation import gelu, sigmoid
from moa_dialect.frontend.torch.values import extents
from moa_dialect.frontend.trace import ArraySpec

aten = torch.ops.aten
Tensor = torch.Tensor

ENOUGH_ROWS = 12
"""From how many rows on the kernel is used; with fewer, PyTorch's product is faster."""

WIDE = 64
"""How wide rows have to be on both sides."""

EPILOGUES: dict[Any, Callable[..., Any]] = {
    aten.gelu.default: gelu,
    aten.relu.default: lambda x: moa.maximum(x, 0.0),
    aten.sigmoid.default: sigmoid,
    aten.silu.default: lambda x: x / (1.0 + moa.exp(-x)),
    aten.tanh.default: moa.tanh,
}
"""Operators that are applied to each element before it is stored."""


class Linear(torch.nn.Module):
    """A linear map, and operators applied to its result.

    Args:
        wide: the extents of the weight.
        with_bias: whether there is a bias.
        after: the operators, each with its further arguments.
        rows: from how many rows on the kernel is used.
    """

    def __init__(
        self,
        wide: tuple[int, int],
        with_bias: bool,
        after: Sequence[tuple[Any, tuple[Any, ...], dict[str, Any]]],
        rows: int = ENOUGH_ROWS,
    ) -> None:
        super().__init__()
        self._wide, self._rows = wide, rows
        self._after = list(after)
        frozen = tuple((f, a, tuple(sorted(k.items()))) for f, a, k in after)
        self._kernel = linear_kernel(wide, with_bias, frozen)
        count = 3 if with_bias else 2
        dtypes, orders = [torch.float32] * count, [None] * count
        self._call = Caller(self._kernel, dtypes, orders, [None])

    @property
    def schedules(self) -> tuple[str, ...]:
        """How the kernel runs."""
        return tuple(self._kernel.schedules)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x @ weight.T + bias`, and what is applied to it."""
        outputs, inputs = self._wide
        if x.numel() < self._rows * inputs:
            result = functional.linear(x, weight, bias)
            for function, arguments, options in self._after:
                result = function(result, *arguments, **options)
            return result
        rows = x.reshape(-1, inputs)
        given = (rows, weight) if bias is None else (rows, weight, bias)
        return self._call(given)[0].view(*x.shape[:-1], outputs)


@cache
def linear_kernel(
    wide: tuple[int, int],
    with_bias: bool,
    after: tuple[tuple[Any, tuple[Any, ...], tuple[tuple[str, Any], ...]], ...],
) -> Compiled:
    """The kernel for rows in any number: of rows, weight and perhaps bias, in f32."""

    def linear(x: Any, weight: Any, bias: Any = None) -> Any:
        result = moa.inner("add", "mul", x, moa.transpose(weight))
        if bias is not None:
            result = moa.omega("add", (1, 1), result, bias)
        for function, arguments, options in after:
            result = EPILOGUES[function](result, *arguments, **dict(options))
        return result

    outputs, inputs = wide
    specs = [ArraySpec((None, inputs), "f32"), ArraySpec(wide, "f32")]
    if with_bias:
        specs.append(ArraySpec((outputs,), "f32"))
    kernel = jit(linear).lower(*specs)
    _ = kernel.kernel  # compiled now
    return kernel


def take_linear(graph: fx.GraphModule, prefix: str) -> list[tuple[str, ...]]:
    """Make linear maps of a graph calls of `Linear`; the operators of each."""
    found: list[tuple[str, ...]] = []
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in (
            aten.addmm.default,
            aten.mm.default,
        ):
            continue
        match = _match(node)
        if match is None:
            continue
        x, weight, bias, result, after = match
        name = f"{prefix}{len(found)}"
        wide = extents(weight.meta["val"].shape)
        assert len(wide) == 2
        module = Linear(
            (int(wide[0]), int(wide[1])),
            bias is not None,
            [(n.target, tuple(n.args[1:]), dict(n.kwargs)) for n in after],
        )
        graph.add_submodule(name, module)
        arguments = (x, weight) if bias is None else (x, weight, bias)
        # After the last of them: the bias may come after the product's other operand.
        with graph.graph.inserting_before(result):
            new = graph.graph.call_module(name, arguments)
        new.meta["val"] = result.meta["val"]
        result.replace_all_uses_with(new)
        _erase(graph, result)
        found.append((str(node.target), *(str(n.target) for n in after)))
    return found


_Match = tuple[fx.Node, fx.Node, "fx.Node | None", fx.Node, list[fx.Node]]


def _match(node: fx.Node) -> _Match | None:
    """Input, weight, bias, last node and operators after the product, if it fits."""
    bias: Any = None
    if node.target is aten.addmm.default:
        bias, x, turned = node.args
        if node.kwargs or bias.meta["val"].dim() != 1:
            return None
    else:
        x, turned = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(turned, fx.Node)
    if turned.target is not aten.t.default:
        return None
    weight = turned.args[0]
    assert isinstance(weight, fx.Node)
    values = [n.meta["val"] for n in (x, weight)]
    if any(value.dtype != torch.float32 or not value.is_cpu for value in values):
        return None
    wide = extents(values[1].shape)
    if not all(isinstance(e, int) and e >= WIDE for e in wide):
        return None
    if bias is not None and extents(bias.meta["val"].shape) != wide[:1]:
        return None
    result = node
    user = _only_user(node)
    if x.target in VIEWS and user is not None and user.target in VIEWS:
        source = x.args[0]
        assert isinstance(source, fx.Node)
        before = extents(source.meta["val"].shape)
        after = extents(user.meta["val"].shape)
        if after[:-1] == before[:-1] and after[-1:] + before[-1:] == wide:
            x, result = source, user
    after_it: list[fx.Node] = []
    while (user := _only_user(result)) is not None and user.target in EPILOGUES:
        if user.all_input_nodes != [result] or user.meta["val"].dtype != torch.float32:
            break
        after_it.append(user)
        result = user
    return x, weight, bias, result, after_it


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _erase(graph: fx.GraphModule, node: fx.Node) -> None:
    """Remove a node that is not used any more, and what is only used for it."""
    if node.users or node.op != "call_function":
        return
    sources = node.all_input_nodes
    graph.graph.erase_node(node)
    for source in sources:
        _erase(graph, source)
