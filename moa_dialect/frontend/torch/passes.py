"""Products that share a pass over the data with the product that reads their result.

A product of matrices, something done to each row of the result, and a product with
that: attention, written by hand. Such a part of a graph is tried: it is derived, and
taken if the derivation leaves one pass, in which no element of the first product is
computed twice or stored. Nothing here knows what the part computes.

PyTorch's graphs have products of batches with the axes of the batch made one, by views
that a kernel has no use for. They are taken back here: `_Part` copies the part into a
graph of its own, in which products keep their axes.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

import torch
from torch import fx
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from moa_dialect.frontend.torch.regions import (
    FREE,
    VIEWS,
    is_tensor,
    keeps_order,
    reason_against,
)
from moa_dialect.frontend.torch.translation import TABLE
from moa_dialect.frontend.torch.values import Extent, UntranslatableError, extents
from moa_dialect.ops.normal_form import CascadeOp, FoldOp

aten = torch.ops.aten

PRODUCTS = {aten.bmm.default, aten.mm.default, aten.baddbmm.default}

MOVES = {
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.alias.default,
    aten.detach.default,
    *VIEWS,
}
"""Operators that only say where elements are."""

_FURTHEST = 64
"""How many nodes a part has at most."""


def take_sizes_from_arguments(graph: fx.GraphModule) -> None:
    """Read extents of arguments instead of equal ones of what is computed of them."""
    symbols: dict[Any, fx.Node | tuple[fx.Node, int]] = {}
    for node in list(graph.graph.nodes):
        value = node.meta.get("val")
        if node.op == "placeholder" and "tangents" in node.name:
            continue  # not there in the forward pass of a joint graph
        if node.op == "placeholder" and isinstance(value, torch.SymInt):
            symbols[value.node.expr] = node
        elif node.op == "placeholder" and isinstance(value, torch.Tensor):
            for axis, each in enumerate(value.shape):
                if isinstance(each, torch.SymInt):
                    symbols.setdefault(each.node.expr, (node, axis))
        elif node.target is aten.sym_size.int and isinstance(value, torch.SymInt):
            found = symbols.get(value.node.expr)
            if isinstance(found, fx.Node):
                node.replace_all_uses_with(found)
                graph.graph.erase_node(node)
            elif found is not None:
                node.args = found


def take_passes(
    graph: fx.GraphModule, prefix: str, compiled: Callable[[fx.GraphModule], Any]
) -> list[tuple[tuple[str, ...], Any]]:
    """Make parts of a graph that are one pass calls of their kernels.

    Args:
        graph: a graph of ATen operators.
        prefix: what the names of the calls begin with.
        compiled: makes the kernel of a part, with its module at each stage as
            `module`.

    Returns:
        For each part its operators, and the kernel.
    """
    found: list[tuple[tuple[str, ...], Any]] = []
    known = dict[tuple[Any, ...], Any]()
    for product in list(graph.graph.nodes):
        if product.target not in PRODUCTS:
            continue
        for last, core in _ends(product):
            rows = _read_outside(core - {last})
            try:
                part = _Part(last, core, rows)
                outline = part.outline()
            except Exception:
                continue  # What is not expected stays as it is.
            if outline not in known:
                known[outline] = _kernel(part, compiled)
            kernel = known[outline]
            if kernel is None:
                continue
            _replace(graph, f"{prefix}{len(found)}", part, kernel, [last, *rows])
            found.append((part.operators, kernel))
            break
    if found:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return found


def _replace(
    graph: fx.GraphModule,
    name: str,
    part: _Part,
    kernel: Any,
    results: Sequence[fx.Node],
) -> fx.Node:
    """Let results of a part be those of its kernel; the call."""
    graph.add_submodule(name, kernel)
    # Where the first result is: others may be read before the last one.
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    given = [node for node in order if node.op == "placeholder"]
    for argument in part.arguments:
        each = argument if isinstance(argument, tuple) else (argument,)
        fx.map_arg(each[:2], given.append)
    latest = max(given, key=order.__getitem__)
    with graph.graph.inserting_after(latest):
        anchor = graph.graph.call_function(operator.getitem, ((), 0))
    with graph.graph.inserting_before(anchor):
        arguments = tuple(map(_argument, part.arguments))
        new = graph.graph.call_module(name, arguments)
        if len(results) == 1:
            new.meta["val"] = results[0].meta["val"]
            results[0].replace_all_uses_with(new)
        else:
            values = [node.meta["val"] for node in results]
            values = [values[0], *(value.squeeze(-1) for value in values[1:])]
            new.meta["val"] = tuple(values)
            for place, node in enumerate(results):
                each = graph.graph.call_function(operator.getitem, (new, place))
                each.meta["val"] = values[place]
                if place:
                    unsqueezed = aten.unsqueeze.default
                    each = graph.graph.call_function(unsqueezed, (each, -1))
                    each.meta["val"] = node.meta["val"]
                node.replace_all_uses_with(each)
    graph.graph.erase_node(anchor)
    return new


def _instead(given: Argument, new: Mapping[fx.Node, fx.Node]) -> Argument:
    """An argument with calls in place of what they have replaced."""
    if isinstance(given, fx.Node):
        return new.get(given, given)
    node, shape, value = given
    return new.get(node, node), shape, value


def take_cones(
    graph: fx.GraphModule, prefix: str, compiled: Callable[[fx.GraphModule], Any]
) -> list[tuple[tuple[str, ...], Any]]:
    """Make products that several results are made of once more for each of them.

    A product that is larger than its operands, and what has as many elements and is
    made of it, is not stored if each product or fold that reads it is one pass in which
    it is made. All of them have to be.

    Args:
        graph: as for `take_passes`.
        prefix: as there.
        compiled: as there.

    Returns:
        For each result its operators, and the kernel.
    """
    found: list[tuple[tuple[str, ...], Any]] = []
    known = dict[tuple[Any, ...], Any]()
    for large, ends in _large(graph):
        parts: list[tuple[_Part, Any, fx.Node]] = []
        for end in ends:
            part = _made_again(end, large, compiled, known)
            if part is None:
                break
            parts.append(part)
        if len(parts) < len(ends):
            continue
        new = dict[fx.Node, fx.Node]()
        for part, kernel, last in parts:
            part.arguments = [_instead(given, new) for given in part.arguments]
            made = _replace(graph, f"{prefix}{len(found)}", part, kernel, [last])
            new[last] = made
            found.append((part.operators, kernel))
    if found:
        graph.graph.eliminate_dead_code()
        graph.graph.lint()
        graph.recompile()
    return found


def _made_again(
    end: fx.Node,
    large: set[fx.Node],
    compiled: Callable[[fx.GraphModule], Any],
    known: dict[tuple[Any, ...], Any],
) -> tuple[_Part, Any, fx.Node] | None:
    """The part that ends with a node, its kernel, and its last node.

    None if there is no such kernel. Those that are known are used again.
    """
    core, last = _cone(end, large), end
    user = next(iter(end.users)) if len(end.users) == 1 else None
    if user is not None and _gives_back(user):
        last = user
        core.add(user)
    try:
        part = _Part(last, core)
        outline = part.outline()
    except Exception:
        return None  # What is not expected stays as it is.
    if outline not in known:
        folds = 0 if end.target in PRODUCTS else 1
        known[outline] = _kernel(part, compiled, folds)
    kernel = known[outline]
    return None if kernel is None else (part, kernel, last)


def _large(
    graph: fx.GraphModule,
) -> list[tuple[set[fx.Node], list[fx.Node]]]:
    """Sets of large nodes that hang together, and what reads them and is smaller.

    Those of which some are marked: see `recompute`.
    """
    owner: dict[fx.Node, int] = {}
    groups: dict[int, set[fx.Node]] = {}
    ends: dict[int, list[fx.Node]] = {}
    sizes: dict[int, int] = {}
    spoiled = set[int]()
    for place, node in enumerate(graph.graph.nodes):
        sources = {owner[n] for n in node.all_input_nodes if n in owner}
        starts = node.target in PRODUCTS and not sources and _outnumbers(node)
        if starts:
            owner[node], groups[place], ends[place] = place, {node}, []
            sizes[place] = count_of(node)
            continue
        if not sources:
            continue
        first = min(sources)
        for other in sources - {first}:  # They hang together.
            for each in groups[other]:
                owner[each] = first
            groups[first] |= groups.pop(other)
            ends[first] += ends.pop(other)
            if other in spoiled:
                spoiled.add(first)
        is_known = node.op == "call_function" and is_tensor(node)
        is_view = node.target in VIEWS
        if not is_known or not (is_view or reason_against(node, True) is None):
            spoiled.add(first)
        elif node.target not in PRODUCTS and count_of(node) >= sizes[first]:
            owner[node] = first
            groups[first].add(node)
        elif node.target in PRODUCTS or TABLE[node.target].kind == "fold":
            ends[first].append(node)
        else:
            spoiled.add(first)
    return [
        (groups[k], ends[k])
        for k in groups
        if k not in spoiled and any("recompute" in n.meta for n in groups[k])
    ]


def _outnumbers(product: fx.Node) -> bool:
    operands = [n for n in product.args[-2:] if isinstance(n, fx.Node)]
    return count_of(product) > sum(map(count_of, operands))


def _cone(end: fx.Node, large: set[fx.Node]) -> set[fx.Node]:
    """What of the large nodes an end is made of, and the end."""
    core, todo = {end}, [end]
    while todo:
        for source in todo.pop().all_input_nodes:
            if source in large and source not in core:
                core.add(source)
                todo.append(source)
    return core


def _read_outside(core: set[fx.Node]) -> list[fx.Node]:
    """What of a part is read elsewhere."""
    return [n for n in core if not all(u in core for u in n.users) and _is_row(n)]


def _is_row(node: fx.Node) -> bool:
    """Whether a node is a fold that leaves a number of each row."""
    if node.target not in (aten.amax.default, aten.sum.dim_IntList):
        return False
    value = node.meta["val"]
    return value.dim() > 0 and value.shape[-1] == 1


def _kernel(
    part: _Part, compiled: Callable[[fx.GraphModule], Any], folds: int = 0
) -> Any:
    """The kernel of a part, None if it is not derived as one pass."""
    try:
        kernel = compiled(part.module)
        passes = 2 if part.rows else 1
        loops = passes * part.products + folds
        if not is_one_pass(kernel.module("fused"), loops, passes):
            return None
        kernel.compile()
    except Exception:
        # PyTorch runs whatever a translation does not expect.
        return None
    return kernel


def is_one_pass(module: ModuleOp, products: int, passes: int = 1) -> bool:
    """Whether a program goes over its data once, and computes each product once.

    Args:
        module: the program, derived.
        products: how many products and further folds it has.
        passes: 2 where numbers of rows are results too: they are a pass of their own.
    """
    loops = [op for op in module.walk() if isinstance(op, FoldOp | CascadeOp)]
    outer = [op for op in loops if not _is_inside(op)]
    return len(outer) == passes and len(loops) == products


def _is_inside(op: Operation) -> bool:
    """Whether a fold is a part of another, and not that of a result."""
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, FoldOp | CascadeOp):
        parent = parent.parent_op()
    return parent is not None


def _ends(product: fx.Node) -> list[tuple[fx.Node, set[fx.Node]]]:
    """Where a part that begins with a product may end, the furthest end first.

    Each with the nodes between: what depends on the product, among which there are a
    fold and another product, and which nothing else reads.
    """
    core = {product}
    ends: list[tuple[fx.Node, set[fx.Node]]] = []
    has_fold, node = False, product.next
    size = 0
    while node.op != "output" and len(core) < _FURTHEST:
        if any(source in core for source in node.all_input_nodes):
            if not is_inner(node):
                break
            is_product = node.target in PRODUCTS
            if is_product and (ends or not has_fold):
                break
            kind = "shape" if node.target not in TABLE else TABLE[node.target].kind
            # After the second product, a fold may only make less of a row.
            if size and kind == "fold" and count_of(node) >= size:
                break
            has_fold = has_fold or kind == "fold"
            core.add(node)
            if is_product:
                size = count_of(node)
            is_whole = size and count_of(node) == size
            if is_whole and all(
                user in core
                for each in core - {node}
                if not _is_row(each)
                for user in each.users
            ):
                ends.append((node, set(core)))
        node = node.next
    ends.reverse()
    # A result can as well be seen in another order outside of the part.
    while ends and ends[0][0].target in FREE and not _gives_back(ends[0][0]):
        ends.pop(0)
    return ends


def is_inner(node: fx.Node) -> bool:
    """Whether a node can be of a part."""
    if node.op != "call_function" or not is_tensor(node):
        return False
    if node.target in VIEWS and not keeps_order(node):
        return _gives_back(node) or all(u.target in PRODUCTS for u in node.users)
    return reason_against(node, True) is None


def _gives_back(node: fx.Node) -> bool:
    """Whether a view gives back the axes of a product of batches."""
    source = node.args[0]
    return (
        node.target in VIEWS
        and isinstance(source, fx.Node)
        and source.target in PRODUCTS
    )


def count_of(node: fx.Node) -> int:
    """How many elements a node has, in the example that was traced."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    if not isinstance(value, torch.Tensor):
        return 0
    return prod(map(_hinted, value.shape))


def _hinted(value: Any) -> int:
    hint = value.node.hint if isinstance(value, torch.SymInt) else value
    return 1 << 10 if hint is None else int(hint)


Argument: TypeAlias = "fx.Node | tuple[fx.Node, tuple[Any, ...], torch.Tensor]"
"""A node, or one that is given another shape, with its value without elements."""


class _Part:
    """A part of a graph as a graph of its own.

    Args:
        last: its last node.
        core: the nodes that depend on its first product.
        rows: further results.

    Attributes:
        module: the part.
        arguments: what it takes from the graph around it.
        operators: its operators, in order.
        products: how many of them are products.
        rows: how many further results it has.

    Raises:
        UntranslatableError: if it is not of the form that is looked for.
    """

    def __init__(
        self, last: fx.Node, core: set[fx.Node], rows: Sequence[fx.Node] = ()
    ) -> None:
        self._last, self._core = last, core
        self._graph = fx.Graph()
        self._new: dict[fx.Node, fx.Node] = {}
        self.arguments: list[Argument] = []
        self.operators: tuple[str, ...] = ()
        self.products = 0
        self.rows = len(rows)
        results = [self._inner(last)]
        for row in rows:
            # Without the axis of extent 1 they are axes of the first result too.
            value = row.meta["val"].squeeze(-1)
            each = self._call(aten.squeeze.dim, (self._inner(row), -1), {}, value)
            results.append(each)
        self._graph.output(tuple(results) if rows else results[0])
        # A module takes its arguments first.
        nodes = list(self._graph.nodes)
        for node in nodes:
            if node.op == "placeholder" and node is not nodes[0]:
                nodes[0].prepend(node)
        if nodes[0].op == "placeholder":
            holders = [n for n in nodes if n.op == "placeholder"]
            for before, after in pairwise(holders):
                before.append(after)
        self.module = fx.GraphModule({}, self._graph)

    def outline(self) -> tuple[Any, ...]:
        """What parts that have the same kernel have in common."""
        places = {node: place for place, node in enumerate(self._graph.nodes)}
        return tuple(
            (
                "" if node.op == "placeholder" else str(node.target),
                str(fx.map_arg((node.args, node.kwargs), lambda n: places[n])),
                _described(node.meta.get("val")),
            )
            for node in places
        )

    def _call(self, target: Any, arguments: Any, options: Any, value: Any) -> fx.Node:
        node = self._graph.call_function(target, arguments, options)
        node.meta["val"] = value
        if target not in FREE:
            self.operators = (*self.operators, str(target))
        return node

    def _argument(self, node: fx.Node) -> fx.Node:
        """A value from outside."""
        return self._held(node, node.meta["val"])

    def _held(self, given: Argument, value: Any) -> fx.Node:
        self.arguments.append(given)
        new = self._graph.placeholder(f"x{len(self.arguments)}")
        new.meta["val"] = value
        return new

    def _inner(self, node: fx.Node) -> fx.Node:
        """A node as one of the part's graph."""
        if node not in self._new:
            self._new[node] = self._made(node)
        return self._new[node]

    def _made(self, node: fx.Node) -> fx.Node:
        if node not in self._core:
            return self._copy(node) if is_made_again(node) else self._argument(node)
        if node.target in VIEWS and not keeps_order(node):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if source not in self._core or source.target not in PRODUCTS:
                raise UntranslatableError("a view that changes the order of axes")
            return self._product_of_axes(source, node)
        if node.target in PRODUCTS:
            return self._product(node)
        value = node.meta["val"]
        if node.target is aten._to_copy.default and node is not self._last:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if value.is_floating_point() and source.meta["val"].is_floating_point():
                return self._inner(source)  # A region is rounded once, at its end.
        return self._copy(node)

    def _copy(self, node: fx.Node) -> fx.Node:
        arguments = fx.map_arg(node.args, self._inner)
        options = fx.map_arg(node.kwargs, self._inner)
        return self._call(node.target, arguments, options, node.meta["val"])

    def _operand(self, node: fx.Node) -> fx.Node:
        """An operand of a product; those from outside are read where they lie."""
        if node in self._core:
            return self._inner(node)
        if node not in self._new:
            source = node.args[0] if node.args else None
            if (
                node.target in MOVES
                and isinstance(source, fx.Node)
                and (node.target not in VIEWS or keeps_order(node))
                and reason_against(node, True) is None
            ):
                rest = fx.map_arg(node.args[1:], self._inner)
                arguments = self._operand(source), *rest
                value = node.meta["val"]
                self._new[node] = self._call(node.target, arguments, {}, value)
            else:
                self._new[node] = self._argument(node)
        return self._new[node]

    def _product(self, node: fx.Node) -> fx.Node:
        """A product as it is."""
        self.products += 1
        *added, a, b = node.args
        assert isinstance(a, fx.Node)
        assert isinstance(b, fx.Node)
        sides = self._operand(a), self._operand(b)
        if added:
            assert isinstance(added[0], fx.Node)
            # What counts nothing is not read.
            is_read = node.kwargs.get("beta", 1) != 0
            sides = (self._inner(added[0]) if is_read else sides[0], *sides)
        return self._call(node.target, sides, dict(node.kwargs), node.meta["val"])

    def _product_of_axes(self, node: fx.Node, view: fx.Node) -> fx.Node:
        """A product of batches with the axes that a view gives back.

        Raises:
            UntranslatableError: if it does not only give back axes of batches.
        """
        if node.target is aten.mm.default:
            raise UntranslatableError("a product of matrices that is split")
        self.products += 1
        wanted = extents(view.meta["val"].shape)
        leading = _leading(wanted, extents(node.meta["val"].shape))
        sizes = view.args[1]
        if leading is None or not isinstance(sizes, list | tuple):
            raise UntranslatableError("a view that splits matrices")
        places = [place for place, e in enumerate(leading) if e != 1]
        lead = [leading[place] for place in places]
        given = [sizes[place] for place in places]
        axes = [view.meta["val"].shape[place] for place in places]
        *added, a, b = node.args
        assert isinstance(a, fx.Node)
        assert isinstance(b, fx.Node)
        sides = [self._matrices(each, lead, given, axes) for each in (a, b)]
        options = dict(node.kwargs)
        value = node.meta["val"].new_empty([*axes, *node.meta["val"].shape[-2:]])
        if added:
            first = sides[0]
            if options.get("beta", 1) != 0:
                assert isinstance(added[0], fx.Node)
                first = self._matrices(added[0], lead, given, axes)
            sides = [first, *sides]
        new = self._call(node.target, tuple(sides), options, value)
        return self._shaped(new, view.meta["val"])

    def _shaped(self, node: fx.Node, value: Any) -> fx.Node:
        """A value with axes of extent 1 added or left out."""
        shape = extents(value.shape)
        if extents(node.meta["val"].shape) == shape:
            return node
        return self._call(aten.view.default, (node, [0] * len(shape)), {}, value)

    def _matrices(
        self,
        operand: fx.Node,
        lead: Sequence[Extent],
        given: Sequence[Any],
        axes: Sequence[Any],
    ) -> fx.Node:
        """An operand of a product of batches, with the axes of the batch.

        Args:
            operand: the operand, which has one axis for the batch.
            lead: the axes of the batch, without those of extent 1.
            given: these as the graph has them.
            axes: these as PyTorch has them.

        Raises:
            UntranslatableError: if it is of the part and has other axes.
        """
        value = operand.meta["val"]
        shape = extents(value.shape)
        if _is_turned(operand):
            turned = operand.args[0]
            assert isinstance(turned, fx.Node)
            inner = self._matrices(turned, lead, given, axes)
            shown = inner.meta["val"].transpose(-1, -2)
            return self._call(aten.transpose.int, (inner, -2, -1), {}, shown)
        source = _without_copies(operand)
        if operand.target in VIEWS and not keeps_order(operand):
            viewed = operand.args[0]
            source = _without_copies(viewed)
        found = _leading(extents(source.meta["val"].shape), shape)
        if found is not None and [e for e in found if e != 1] == list(lead):
            matrices = value.new_empty([*axes, *value.shape[-2:]])
            return self._shaped(self._operand(source), matrices)
        if operand in self._core:
            raise UntranslatableError("a batch with other axes")
        reshaped = value.reshape([*axes, *value.shape[-2:]])
        return self._held((operand, (*given, *_sizes(operand)), reshaped), reshaped)


def _is_turned(node: fx.Node) -> bool:
    """Whether a node has the last two axes of another one in the other order."""
    if node.target is not aten.transpose.int or node.meta["val"].dim() != 3:
        return False
    return {axis % 3 for axis in node.args[1:] if isinstance(axis, int)} == {1, 2}


COLUMNS = "columns"
"""Stands for the last extent of an argument."""


def _sizes(operand: fx.Node) -> tuple[Any, ...]:
    """The extents of the matrices of a batch, one of them left for PyTorch to find."""
    rows, columns = operand.meta["val"].shape[-2:]
    if not isinstance(columns, torch.SymInt):
        return -1, columns
    return (-1, COLUMNS) if isinstance(rows, torch.SymInt) else (rows, -1)


def _argument(given: Argument) -> fx.Node:
    """An argument of a call, seen in another shape if need be."""
    if isinstance(given, fx.Node):
        return given
    node, shape, value = given
    sizes = list(shape)
    if COLUMNS in sizes:
        columns = node.graph.call_function(aten.sym_size.int, (node, value.dim() - 2))
        columns.meta["val"] = value.shape[-1]
        sizes[-1] = columns
    new = node.graph.call_function(aten.reshape.default, (node, sizes))
    new.meta["val"] = value
    return new


def _described(value: Any) -> Any:
    """What a kernel is compiled for, of a value."""
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    if not isinstance(value, torch.Tensor):
        return str(value)
    shape, strides = map(str, value.shape), map(str, value.stride())
    return tuple(shape), tuple(strides), str(value.dtype)


def _leading(
    before: Sequence[Extent], after: Sequence[Extent]
) -> tuple[Extent, ...] | None:
    """The first axes of `before` that are one in `after`, which has three.

    None if the last two of `after` are not an axis of `before` each.
    """
    for first in range(1, len(before)):
        for second in range(first, len(before)):
            parts = before[:first], before[first:second], before[second:]
            if all(
                _is_product(part, whole)
                for part, whole in zip(parts, after, strict=True)
            ) and all(len([e for e in part if e != 1]) < 2 for part in parts[1:]):
                return tuple(parts[0])
    return None


def _is_product(factors: Sequence[Extent], whole: Extent) -> bool:
    result: Any = 1
    for factor in factors:
        result = result * factor
    return bool(result == whole)


def _without_copies(node: Any) -> fx.Node:
    """What a node is a copy of, or an expansion that repeats nothing."""
    while node.args and isinstance(source := node.args[0], fx.Node):
        is_same = node.target is aten.expand.default and extents(
            node.meta["val"].shape
        ) == extents(source.meta["val"].shape)
        if node.target is not aten.clone.default and not is_same:
            break
        node = source
    return node


def is_made_again(node: fx.Node) -> bool:
    """Whether a value is made from fewer elements than it has, such as a mask.

    One that only the part reads may be made from as many.
    """
    if node.op != "call_function" or not _is_elementwise(node):
        return False
    read, size = _read(node), count_of(node)
    if not node.all_input_nodes:
        return True
    return 2 * read <= size or (len(node.users) == 1 and read <= size)


def _is_elementwise(node: fx.Node) -> bool:
    """Whether each element is made of elements at places that are known."""
    translation = TABLE.get(node.target)
    return (
        translation is not None
        and translation.kind in ("pointwise", "shape")
        and node.target not in (aten.cat.default, aten.clone.default)
        and (node.target not in VIEWS or keeps_order(node))
        and is_tensor(node)
        and reason_against(node, True) is None
    )


def _read(node: fx.Node) -> int:
    """How many elements are read to make a value again."""
    total = 0
    for source in node.all_input_nodes:
        if is_tensor(source):
            here = count_of(source)
            total += min(here, _read(source)) if _is_elementwise(source) else here
    return total
