"""Products whose results are larger than what they are made of, made again.

A product of queries and keys has a number for each pair of them. PyTorch keeps such an
array, or what is made of it, from the forward to the backward pass. Here the operators
from such a product to the next one are marked to be computed again, from the operands
and from numbers for each row, which are kept: the results of folds. `passes` then makes
kernels of them that store nothing of that size. Nothing here knows what is computed.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from functorch.compile import default_partition
from torch import fx
from torch.utils.checkpoint import CheckpointPolicy

from moa_dialect.frontend.torch.passes import (
    PRODUCTS,
    count_of,
    is_inner,
    is_made_again,
    take_sizes_from_arguments,
)
from moa_dialect.frontend.torch.regions import VIEWS, is_tensor
from moa_dialect.frontend.torch.translation import TABLE

aten = torch.ops.aten

TIMES = 4
"""How many times as large as its operands a product is that is made again."""

_RELATIONS = {
    getattr(aten, name).Tensor for name in ("eq", "ne", "lt", "le", "gt", "ge")
}


def partition(
    joint: fx.GraphModule, inputs: Any, *, num_fwd_outputs: int, **options: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """PyTorch's partition of a joint graph, with large products made again.

    Args:
        joint: the graph of a forward and backward pass.
        inputs: its arguments.
        num_fwd_outputs: how many of its results are those of the forward pass.
        options: what else PyTorch's partition takes.
    """
    try:
        mark(joint, num_fwd_outputs)
    except Exception:
        for node in joint.graph.nodes:  # What is not expected stays as it is.
            node.meta.pop("recompute", None)
    return default_partition(joint, inputs, num_fwd_outputs=num_fwd_outputs, **options)


def mark(joint: fx.GraphModule, results: int) -> int:
    """Mark what is made again; the number of products from which it begins."""
    if not any(n.target in PRODUCTS and _is_large(n) for n in _forward(joint)):
        return 0
    take_sizes_from_arguments(joint)
    _without_detaching(joint)
    forward = _forward(joint)
    (output,) = (node for node in joint.graph.nodes if node.op == "output")
    kept = {node for node in output.args[0][:results] if isinstance(node, fx.Node)}
    found = 0
    for product in list(forward):
        if product.target not in PRODUCTS or not _is_large(product):
            continue
        whole = _core(product, forward, kept)
        if whole is None:
            continue
        _take_apart(joint, whole)
        forward = _forward(joint)
        core = _core(product, forward, kept)
        if core is None or any(map(_is_fold, core)):
            continue
        for node in core:
            node.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE
            for source in node.all_input_nodes:
                if source not in core:
                    _mark_source(source)
        found += 1
    if found:
        joint.recompile()
    return found


def _mark_source(node: fx.Node) -> None:
    """What is made of fewer elements is made again too, such as a mask."""
    if is_made_again(node) and "recompute" not in node.meta:
        node.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE
        for source in node.all_input_nodes:
            _mark_source(source)


def _without_detaching(joint: fx.GraphModule) -> None:
    """Leave out operators that are there for autograd, which has been done."""
    for node in list(joint.graph.nodes):
        if node.target not in (aten.detach.default, aten.alias.default):
            continue
        if all(user.op != "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            joint.graph.erase_node(node)


def _forward(joint: fx.GraphModule) -> dict[fx.Node, None]:
    """The nodes of the forward pass, in order."""
    nodes = list(joint.graph.nodes)
    last = max(
        (
            place
            for place, node in enumerate(nodes)
            if node.meta.get("partitioner_tag") == "is_forward"
            or (node.op == "placeholder" and "tangents" not in node.name)
        ),
        default=-1,
    )
    return dict.fromkeys(
        node
        for node in nodes[: last + 1]
        if node.op != "placeholder" or "tangents" not in node.name
    )


def _is_large(product: fx.Node) -> bool:
    operands = [n for n in product.args[-2:] if isinstance(n, fx.Node)]
    return count_of(product) >= TIMES * sum(map(count_of, operands))


def _core(
    product: fx.Node, forward: Iterable[fx.Node], kept: set[fx.Node]
) -> dict[fx.Node, None] | None:
    """What has as many elements as a product and is made of it, up to the next one.

    None unless all that reads it in the forward pass is a product, or a fold, and there
    is a fold: without one, as in a layer between two linear maps, PyTorch's products
    are faster.
    """
    size = count_of(product)
    core, rows = {product: None}, set[fx.Node]()
    has_end = has_fold = False
    for node in forward:
        if node is product or not any(
            n in core or n in rows for n in node.all_input_nodes
        ):
            continue
        is_view = node.target in VIEWS
        if node.op == "call_function" and not is_tensor(node):
            continue  # an extent
        if node.op != "call_function" or not (is_view or is_inner(node)):
            if any(n in core for n in node.all_input_nodes):
                return None
            continue
        if node.target in PRODUCTS:
            has_end = has_end or any(n in core for n in node.all_input_nodes)
        elif count_of(node) >= size:
            core[node] = None
            has_fold = has_fold or _is_fold(node)
        elif _is_fold(node):
            rows.add(node)
        elif any(n in core for n in node.all_input_nodes):
            return None
    if not has_end or not (has_fold or rows) or kept & core.keys():
        return None
    return None if any(map(_is_compared, core)) else core


def _is_fold(node: fx.Node) -> bool:
    return node.target in TABLE and TABLE[node.target].kind == "fold"


def _is_compared(node: fx.Node) -> bool:
    """Whether a value is compared with another one, such as its row's maximum.

    One that is computed again by another kernel may be rounded otherwise.
    """
    return any(
        user.target in _RELATIONS and len(user.all_input_nodes) > 1
        for user in node.users
    )


def _take_apart(joint: fx.GraphModule, core: Iterable[fx.Node]) -> None:
    """Let softmax be its definition, with a maximum and a sum that can be kept."""
    for node in core:
        if node.target is not aten._softmax.default:
            continue
        source, dim, to_float = node.args
        assert isinstance(source, fx.Node)
        value = node.meta["val"]
        if to_float or value.dtype not in (torch.float32, torch.float64):
            continue
        with joint.graph.inserting_before(node):

            def call(target: Any, *arguments: Any, like: fx.Node = node) -> fx.Node:
                new = joint.graph.call_function(target, arguments)
                values = fx.map_arg(arguments, lambda n: n.meta["val"])
                new.meta = dict(like.meta)
                new.meta["val"] = target(*values)
                new.meta.pop("tensor_meta", None)
                return new

            top = call(aten.amax.default, source, [dim], True)
            power = call(aten.exp.default, call(aten.sub.Tensor, source, top))
            total = call(aten.sum.dim_IntList, power, [dim], True)
            whole = call(aten.div.Tensor, power, total)
        node.replace_all_uses_with(whole)
        joint.graph.erase_node(node)
