"""Which nodes of a graph go into one kernel.

PyTorch's partitioner joins supported nodes that feed each other. A kernel of moa stores
no intermediate array, so what several loops need is computed in each of them: that is
for the better within a row, and for the worse where every element of a row would need a
fold over another axis. `divided` cuts a partition where the second would happen.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from moa_dialect.frontend.torch.calls import target_of
from moa_dialect.frontend.torch.kernels import NAMES
from moa_dialect.frontend.torch.translation import SCATTERED, TABLE
from moa_dialect.frontend.torch.values import extents, order_in_memory

aten = torch.ops.aten

VIEWS = {aten.view.default, aten._unsafe_view.default}

FREE = {
    *VIEWS,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.alias.default,
    aten.detach.default,
    aten.full.default,
    aten.scalar_tensor.default,
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.zeros.default,
    aten.ones.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
}
"""Operators that cost nothing in PyTorch, or nothing to speak of."""

_SAME_AXES = {
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten._to_copy.default,
    torch.ops.prims.convert_element_type.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
}
"""Operators of kind "shape" that leave the order of elements as it is."""


_SORTED = "an order of elements, for which PyTorch sorts"
_WINDOWS = "windows of images, which are PyTorch's"
_RANDOM = "random numbers are PyTorch's"
_SCANNED = "a scan, which PyTorch does in one go"

LEFT: dict[Any, str] = {
    aten.reshape.default: "free in PyTorch",
    aten.mv.default: "products are PyTorch's",
    aten.dot.default: "products are PyTorch's",
    aten.addmv.default: "products are PyTorch's",
    aten.addbmm.default: "products are PyTorch's",
    aten.native_group_norm_backward.default: "PyTorch's kernel is faster",
    aten.sort.default: _SORTED,
    aten.sort.stable: _SORTED,
    aten.argsort.default: _SORTED,
    aten.argsort.stable: _SORTED,
    aten.topk.default: _SORTED,
    aten.kthvalue.default: _SORTED,
    aten.median.default: _SORTED,
    aten.median.dim: _SORTED,
    aten.cumprod.default: _SCANNED,
    aten.cummax.default: _SCANNED,
    aten.cummin.default: _SCANNED,
    aten.logcumsumexp.default: _SCANNED,
    aten.scatter_add.default: SCATTERED,
    aten.scatter_reduce.two: SCATTERED,
    aten.index_add.default: SCATTERED,
    aten.index_put.default: SCATTERED,
    aten._unsafe_index_put.default: SCATTERED,
    aten.embedding_dense_backward.default: SCATTERED,
    aten.convolution.default: _WINDOWS,
    aten.convolution_backward.default: _WINDOWS,
    aten.max_pool2d_with_indices.default: _WINDOWS,
    aten.avg_pool2d.default: _WINDOWS,
    aten.rand.default: _RANDOM,
    aten.randn.default: _RANDOM,
    aten.bernoulli.p: _RANDOM,
    aten.native_dropout.default: _RANDOM,
}
"""Why operators that are known have no translation."""


def is_tensor(node: fx.Node) -> bool:
    """Whether a node gives tensors."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(each, torch.Tensor) for each in values)


def name_of(node: fx.Node) -> str:
    """The name of a node's operator."""
    return str(node.target)


def reason_against(node: fx.Node, products: bool) -> str | None:
    """Why a node stays with PyTorch, None if moa takes it."""
    if node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return reason_against(source, products)
    translation = TABLE.get(node.target)
    if translation is None:
        return LEFT.get(node.target, "no translation")
    if translation.kind == "product" and not products:
        return "products are PyTorch's"
    values = [node.meta.get("val"), *(a.meta.get("val") for a in node.all_input_nodes)]
    for value in values:
        for each in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(each, torch.Tensor):
                continue
            if each.layout != torch.strided or target_of(each.device) is None:
                return "tensors that are not dense, or on a device without kernels"
            if each.dtype not in NAMES:
                return f"elements of type {each.dtype}"
    if node.target in VIEWS and not keeps_order(node):
        return "free in PyTorch"
    return None if translation.reason is None else translation.reason(node)


def keeps_order(node: fx.Node) -> bool:
    """Whether a view adds or removes axes of extent 1, and nothing else."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before, after = extents(source.meta["val"].shape), extents(node.meta["val"].shape)
    return [e for e in before if e != 1] == [e for e in after if e != 1]


_ALONE: dict[str, Any] = {}
"""What keeps nodes apart that do not feed each other, if PyTorch has the option."""
if "skip_horizontal_fusion" in signature(CapabilityBasedPartitioner).parameters:
    _ALONE["skip_horizontal_fusion"] = True


class Support(OperatorSupportBase):
    """What moa takes, for PyTorch's partitioner."""

    def __init__(self, products: bool) -> None:
        self._products = products

    def is_node_supported(self, submodules: Mapping[str, Any], node: fx.Node) -> bool:
        """Whether moa has a translation for a node."""
        return (
            node.op == "call_function"
            and is_tensor(node)
            and reason_against(node, self._products) is None
        )


def partitions(
    graph: fx.GraphModule, products: bool, everything: bool
) -> list[list[fx.Node]]:
    """The nodes of each region, in the order of the graph.

    Args:
        graph: a graph of ATen operators.
        products: whether moa also takes products of matrices.
        everything: whether it takes operators for which PyTorch has a kernel as good.
    """
    proposed = CapabilityBasedPartitioner(
        graph,
        Support(products),
        allows_single_node_partition=True,
        **_ALONE,
    ).propose_partitions()
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    result: list[list[fx.Node]] = []
    for partition in proposed:
        nodes = sorted(partition.nodes, key=order.__getitem__)
        for part in divided(nodes):
            part = trimmed(part)
            if is_worth(part, everything):
                result.append(part)
    return sorted(result, key=lambda nodes: order[nodes[0]])


@dataclass(frozen=True)
class _State:
    """Where a node is, and over which axes what it depends on was folded.

    Attributes:
        stage: the number of its kernel in the partition.
        folds: None, or "last" for the last axis, or "other".
        is_whole: whether a row of it has more than one element.
    """

    stage: int
    folds: str | None
    is_whole: bool


def divided(nodes: list[fx.Node]) -> list[list[fx.Node]]:
    """A partition as the kernels that compute it, one after the other."""
    inside, states = set(nodes), dict[fx.Node, _State]()
    for node in nodes:
        sources = [states[n] for n in node.all_input_nodes if n in inside]
        stage = max((s.stage for s in sources), default=0)
        if node.target is operator.getitem:
            source = states.get(node.args[0])  # pyright: ignore
            stage = 0 if source is None else source.stage
            states[node] = _State(
                stage, source.folds if source else None, _is_whole(node)
            )
            continue
        here = [s for s in sources if s.stage == stage and s.folds is not None]
        folds = {s.folds for s in here}
        kind, axes = TABLE[node.target].kind, _folded_axes(node)
        is_apart = any(
            states[n].stage == stage
            and states[n].folds is not None
            and states[n].is_whole
            and not all(u in inside for u in n.users)
            for n in node.all_input_nodes
            if n in inside
        )
        if kind == "fold":
            is_apart = is_apart or folds - {axes} != set() or "other" in folds
            result = axes
        elif kind == "product":
            # An operand is read again for every row or column of the result.
            computed = (
                n.target not in FREE
                for n in node.all_input_nodes
                if n in inside and states[n].stage == stage
            )
            is_apart = is_apart or bool(folds) or any(computed)
            result = "other"
        else:
            moves = kind == "shape" and not _keeps_rows(node)
            grows = "other" in folds and any(
                _size(n) != _size(node)
                for n in node.all_input_nodes
                if n in inside and states[n].folds == "other"
            )
            is_apart = is_apart or len(folds) > 1 or grows or (moves and bool(folds))
            result = None if is_apart else next(iter(folds), None)
        if is_apart:
            stage += 1
            result = axes if kind == "fold" else "other" if kind == "product" else None
        states[node] = _State(stage, result, _is_whole(node))
    count = max((s.stage for s in states.values()), default=-1) + 1
    stages = [[n for n in nodes if states[n].stage == k] for k in range(count)]
    return [stage for stage in stages if stage]


def _keeps_rows(node: fx.Node) -> bool:
    """Whether elements of a row of the result are of one row of the operand."""
    if node.target is aten.gather.default:
        dim = node.args[1]
        assert isinstance(dim, int)
        return dim % max(_first(node).dim(), 1) == _first(node).dim() - 1
    return node.target in _SAME_AXES


def _kind_of(node: fx.Node) -> str | None:
    """The kind of a node's operator."""
    translation = TABLE.get(node.target)
    return None if translation is None else translation.kind


def _first(node: fx.Node) -> Any:
    value = node.meta["val"]
    return value[0] if isinstance(value, list | tuple) else value


def _size(node: fx.Node) -> tuple[Any, ...]:
    return tuple(e for e in extents(_first(node).shape) if e != 1)


def _is_whole(node: fx.Node) -> bool:
    shape = extents(_first(node).shape)
    return bool(shape) and shape[-1] != 1


def _folded_axes(node: fx.Node) -> str | None:
    """Over which axes a fold goes: the "last" one alone, or "other" ones."""
    if _kind_of(node) != "fold":
        return None
    if node.target is torch.ops.moa.group_norm_rows.default:
        return "last"
    if node.target is aten.native_layer_norm.default:
        shape = node.args[1]
        return (
            "last" if isinstance(shape, list | tuple) and len(shape) == 1 else "other"
        )
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    rank = operand.meta["val"].dim()
    place = 2 if node.target is aten.linalg_vector_norm.default else 1
    dims = node.args[place] if len(node.args) > place else None
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(dims, list | tuple) or len(dims) != 1:
        return "other"
    (dim,) = dims
    assert isinstance(dim, int)
    # Without the axis that was folded, the last one is another.
    is_last = dim % max(rank, 1) == rank - 1 and _first(node).dim() == rank
    return "last" if is_last else "other"


def trimmed(nodes: list[fx.Node]) -> list[fx.Node]:
    """A region without what is free at its beginning and at its end.

    A view of an argument is an argument, and a result can be viewed.
    """
    kept = list(nodes)
    changed = True
    while changed:
        changed = False
        inside = set(kept)
        for node in kept:
            is_free = _is_free(node)
            is_first = not any(n in inside for n in node.all_input_nodes)
            is_last = not any(n in inside for n in node.users)
            has_inputs = bool(node.all_input_nodes)
            if is_free and (
                (is_first and has_inputs and not _reads_less(node)) or is_last
            ):
                kept.remove(node)
                changed = True
                break
    return kept


def _is_free(node: fx.Node) -> bool:
    """Whether an operator costs nothing; a part of what it gives costs as much."""
    if node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source.target in FREE
    return node.target in FREE


def _reads_less(node: fx.Node) -> bool:
    """Whether a kernel reads fewer elements, or need not copy them, with an operator.

    It reads repeated elements once, and parts of a tensor where they lie.
    """
    if node.target in (
        aten.expand.default,
        aten.full_like.default,
        aten.zeros_like.default,
        aten.ones_like.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
    ):
        return True
    value = node.meta["val"]
    values = value if isinstance(value, list | tuple) else (value,)
    return any(order_in_memory(each) is None for each in values)


def is_worth(nodes: Collection[fx.Node], everything: bool) -> bool:
    """Whether a kernel pays: for two operators that compute, or one that folds rows."""
    working = [
        node
        for node in nodes
        if node.target not in FREE and node.target is not operator.getitem
    ]
    if everything:
        return bool(working)
    if any(TABLE[node.target].worth for node in working):
        return True
    return len(working) > 1


def left(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The nodes that call operators of PyTorch on tensors."""
    return [
        node
        for node in nodes
        if node.op == "call_function"
        and isinstance(node.target, OpOverload)
        and is_tensor(node)
    ]


def reason_alone(node: fx.Node) -> str:
    """Why a node with a translation is in no region."""
    if node.target in FREE:
        return "free in PyTorch"
    return "alone, where PyTorch's kernel is as good"
