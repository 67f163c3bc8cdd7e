"""The backend of `torch.compile`: regions of a graph as kernels of moa."""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch import fx
from torch._decomp import get_decompositions
from torch._dynamo.backends.common import aot_autograd
from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

from moa_dialect.errors import OptionError
from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.jit import Compiled, jit
from moa_dialect.frontend.torch import group_norm, kernels, regions
from moa_dialect.frontend.torch.attention import STOCK, sdpa
from moa_dialect.frontend.torch.calls import ON_CPU, Caller, Target, target_of
from moa_dialect.frontend.torch.kernels import NAMES
from moa_dialect.frontend.torch.linear import take_linear
from moa_dialect.frontend.torch.passes import (
    take_cones,
    take_passes,
    take_sizes_from_arguments,
)
from moa_dialect.frontend.torch.recompute import partition
from moa_dialect.frontend.torch.translation import TABLE, Node, converted, element
from moa_dialect.frontend.torch.values import (
    Extent,
    Extents,
    UntranslatableError,
    extent,
    extents,
    order_in_memory,
    permuted,
)
from moa_dialect.frontend.trace import ArraySpec

aten = torch.ops.aten

DECOMPOSED = (
    aten._log_softmax_backward_data,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._prelu_kernel,
    aten._prelu_kernel_backward,
    aten._softmax_backward_data,
    aten.addcdiv,
    aten.addcmul,
    aten.addr,
    aten.aminmax,
    aten.binary_cross_entropy,
    aten.binary_cross_entropy_backward,
    aten.binary_cross_entropy_with_logits,
    aten.celu,
    aten.count_nonzero,
    aten.elu,
    aten.elu_backward,
    aten.eye,
    aten.fill,
    aten.frac,
    aten.gelu_backward,
    aten.glu,
    aten.glu_backward,
    aten.hardshrink,
    aten.hardsigmoid,
    aten.hardsigmoid_backward,
    aten.hardswish,
    aten.hardswish_backward,
    aten.hardtanh,
    aten.hardtanh_backward,
    aten.heaviside,
    aten.huber_loss,
    aten.huber_loss_backward,
    aten.index_fill,
    aten.leaky_relu,
    aten.leaky_relu_backward,
    aten.lerp,
    aten.linspace,
    aten.log_sigmoid_backward,
    aten.log_sigmoid_forward,
    aten.logaddexp,
    aten.logaddexp2,
    aten.logit,
    aten.logit_backward,
    aten.masked_fill,
    aten.mish,
    aten.mish_backward,
    aten.mse_loss,
    aten.mse_loss_backward,
    aten.nan_to_num,
    aten.nansum,
    aten.native_batch_norm_backward,
    aten.native_layer_norm_backward,
    aten.nll_loss2d_backward,
    aten.nll_loss2d_forward,
    aten.nll_loss_backward,
    aten.nll_loss_forward,
    aten.select_scatter,
    aten.selu,
    aten.sigmoid_backward,
    aten.silu_backward,
    aten.sinc,
    aten.smooth_l1_loss,
    aten.smooth_l1_loss_backward,
    aten.soft_margin_loss,
    aten.soft_margin_loss_backward,
    aten.softplus,
    aten.softplus_backward,
    aten.softshrink,
    aten.special_entr,
    aten.stack,
    aten.std_mean,
    aten.tanh_backward,
    aten.threshold_backward,
    aten.upsample_nearest2d,
    aten.xlogy,
)
"""Operators that are taken apart before regions are looked for."""

PREFIX = "moa_region_"


@dataclass(frozen=True)
class Settings:
    """The options of the backend.

    Attributes:
        products: "torch" leaves products of matrices to PyTorch, "moa" takes them all,
            "auto" the linear maps of f32 that moa's kernel is faster for.
        everything: take also single operators for which PyTorch's kernel is as good.
    """

    products: str = "auto"
    everything: bool = False

    @staticmethod
    def of(options: Mapping[str, Any] | None) -> Settings:
        """The settings that options of `torch.compile` say.

        Raises:
            OptionError: for an unknown option or value.
        """
        given = dict(options or {})
        known = {"products": ("auto", "torch", "moa"), "everything": (False, True)}
        for name, value in given.items():
            if name not in known:
                raise OptionError(
                    f"unknown option: expected one of {', '.join(known)}, got {name}"
                )
            if value not in known[name]:
                expected = " or ".join(map(repr, known[name]))
                raise OptionError(f"{name}: expected {expected}, got {value!r}")
        return Settings(**given)


@dataclass(frozen=True)
class RegionReport:
    """A region of a graph that moa runs.

    Attributes:
        operators: its operators, in order.
        schedules: how its kernels run; see docs/schedules.md.
    """

    operators: tuple[str, ...]
    schedules: tuple[str, ...]


@dataclass
class GraphReport:
    """What became of one graph.

    Attributes:
        kind: "inference", "forward" or "backward".
        regions: what moa runs.
        left: how often each operator stays with PyTorch, and why, for the first.
        failed: the regions that could not be compiled, with the reason.
    """

    kind: str
    regions: list[RegionReport] = field(default_factory=list[RegionReport])
    left: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    failed: list[tuple[tuple[str, ...], str]] = field(
        default_factory=list[tuple[tuple[str, ...], str]]
    )

    def __str__(self) -> str:
        lines = [f"{self.kind} graph: {len(self.regions)} regions of moa"]
        counts = Counter(each.operators for each in self.regions)
        for operators, count in counts.items():
            lines.append(f"  {count} x {', '.join(operators)}")
        lines.append("left to PyTorch:")
        for name, (count, reason) in self.left.items():
            lines.append(f"  {count} x {name}: {reason}")
        for operators, reason in self.failed:
            lines.append(f"not compiled: {', '.join(operators)}: {reason}")
        return "\n".join(lines)


_REPORTS: list[GraphReport] = []


def report(clear: bool = False) -> list[GraphReport]:
    """What became of the graphs that were compiled in this process, in order.

    Args:
        clear: forget them afterwards.
    """
    result = list(_REPORTS)
    if clear:
        _REPORTS.clear()
    return result


def graph_breaks() -> dict[str, int]:
    """How often Dynamo had to break a graph in this process, by its reasons."""
    from torch._dynamo.utils import counters

    return dict(counters["graph_break"])


# The backend.


def backend(
    graph: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The backend of `torch.compile(model, backend="moa")`.

    Forward and backward graphs are those of AOTAutograd, with symbolic extents where
    torch.compile has them; a kernel is compiled for all their values.

    Args:
        graph: what Dynamo recorded.
        inputs: its arguments.
        options: see `Settings`.
        mode: no mode is different from another.

    Raises:
        OptionError: for an option that is none.
    """
    settings = Settings.of(options)
    _take_attention(graph)
    compilers = {
        f"{name}_compiler": partial(_compile, kind=kind, settings=settings)
        for name, kind in (
            ("fw", "forward"),
            ("bw", "backward"),
            ("inference", "inference"),
        )
    }
    decompositions = get_decompositions(list(DECOMPOSED))
    decompositions[aten.native_group_norm.default] = group_norm.decomposed
    options = {} if settings.products == "torch" else {"partition_fn": partition}
    compiled = aot_autograd(**compilers, **options, decompositions=decompositions)
    return compiled(graph, inputs)


def _take_attention(graph: fx.GraphModule) -> None:
    """Let the graph call `sdpa`, which keeps attention whole for AOTAutograd."""
    changed = False
    for module in graph.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if node.op == "call_function" and node.target is STOCK:
                node.target = sdpa
                changed = True
        if changed:
            module.recompile()


def _compile(
    graph: fx.GraphModule, inputs: Sequence[Any], kind: str, settings: Settings
) -> Callable[..., Any]:
    """A graph of AOTAutograd with its regions compiled."""
    found = GraphReport(kind)
    products = settings.products == "moa"
    take_sizes_from_arguments(graph)
    _run_attention(graph, found)
    if settings.products != "torch":
        for operators, region in take_passes(graph, "moa_pass_", Region):
            found.regions.append(RegionReport(operators, region.schedules))
        if kind == "backward":
            for operators, region in take_cones(graph, "moa_cone_", Region):
                found.regions.append(RegionReport(operators, region.schedules))
    if settings.products == "auto":
        for operators in take_linear(graph, "moa_linear_"):
            found.regions.append(RegionReport(operators, ()))
    parts = regions.partitions(graph, products, settings.everything)
    fused = fuse_by_partitions(graph, [dict.fromkeys(part) for part in parts], PREFIX)
    stay = regions.left(fused.graph.nodes)
    for name, module in list(fused.named_children()):
        if not name.startswith(PREFIX):
            continue
        assert isinstance(module, fx.GraphModule)
        inner = regions.left(module.graph.nodes)
        operators = tuple(map(regions.name_of, inner))
        try:
            region = Region(module)
            region.compile()
        except Exception as error:
            # PyTorch runs whatever a translation does not expect.
            found.failed.append((operators, str(error)))
            stay += inner
            continue
        setattr(fused, name, region)
        found.regions.append(RegionReport(operators, region.schedules))
    for node in stay:
        name = regions.name_of(node)
        reason = regions.reason_against(node, products) or regions.reason_alone(node)
        count, reason = found.left.get(name, (0, reason))
        found.left[name] = count + 1, reason
    fused.recompile()
    _REPORTS.append(found)
    return make_boxed_func(fused.forward)


# Attention.


def _run_attention(graph: fx.GraphModule, found: GraphReport) -> None:
    """Let operators of attention run without PyTorch's dispatch."""
    prepared: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.moa.attention.default:
            query, key, value, mask, is_causal, scale = node.args
            if mask is not None:
                dtype = query.meta["val"].dtype
                if (mask, dtype) not in prepared:
                    with graph.graph.inserting_after(mask):
                        prepared[mask, dtype] = graph.graph.call_function(
                            kernels.compact, (mask, dtype)
                        )
                mask = prepared[mask, dtype]
            with_lse = any(user.args[1] == 1 for user in node.users)
            node.args = (query, key, value, mask, is_causal, scale, with_lse)
            node.target = kernels.run_forward
            found.regions.append(RegionReport(("moa.attention",), ()))
        elif node.target is torch.ops.moa.attention_backward.default:
            node.target = kernels.run_backward
            found.regions.append(RegionReport(("moa.attention_backward",), ()))


# Regions.


class Region(torch.nn.Module):
    """A part of a graph as a kernel, called with the part's arguments.

    Args:
        module: the part, with values without elements in `meta["val"]`.

    Raises:
        MoaError: if it cannot be translated or compiled.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        nodes = list(module.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        (output,) = (node for node in nodes if node.op == "output")
        self._is_single = not isinstance(output.args[0], tuple | list)
        results = [output.args[0]] if self._is_single else list(output.args[0])
        names: dict[Any, str] = {}
        specs: list[ArraySpec] = []
        # Tensors are read in the order in which their elements lie.
        self._tensors: list[tuple[int, tuple[int, ...] | None]] = []
        self._extents: list[int] = []
        self._scalars: list[int] = []
        scalars: list[ArraySpec] = []
        known: set[Any] = set()
        for place, node in enumerate(inputs):
            value = node.meta["val"]
            if isinstance(value, torch.Tensor):
                order = order_in_memory(value)
                is_plain = order is None or order == tuple(range(value.dim()))
                self._tensors.append((place, None if is_plain else order))
                shape = extents(value.shape)
                known.update(e for e in shape if not isinstance(e, int))
                if not is_plain and order is not None:
                    shape = tuple(shape[axis] for axis in order)
                named = tuple(_named(e, names) for e in shape)
                specs.append(ArraySpec(named, NAMES[value.dtype]))
        for place, node in enumerate(inputs):
            value = node.meta["val"]
            if isinstance(value, torch.SymFloat):
                self._scalars.append(place)
                scalars.append(ArraySpec((), "f64"))
            elif isinstance(value, torch.SymInt):
                symbol = extent(value)
                if symbol in known:
                    continue
                known.add(symbol)
                if _is_extent(symbol):
                    # An extent of an argument is known before elements are read.
                    self._extents.append(place)
                    specs.append(ArraySpec((_named(symbol, names),), "i1"))
                else:
                    self._scalars.append(place)
                    scalars.append(ArraySpec((), "i64"))
            elif not isinstance(value, torch.Tensor):
                raise UntranslatableError(f"an argument {value!r}")
        specs += scalars
        self._orders = [_result_order(node) for node in results]

        def program(*arrays: Any) -> Any:
            return self._trace(nodes, inputs, results, arrays)

        program.__name__ = "region"
        target = _target(
            node.meta["val"] if isinstance(node, fx.Node) else node
            for node in (*inputs, *results)
        )
        if target != ON_CPU and not self._tensors:
            raise UntranslatableError("no argument that says which device")
        self._kernel: Compiled = jit(program, **target._asdict()).lower(*specs)
        dtypes = [inputs[place].meta["val"].dtype for place, _ in self._tensors]
        orders = [order for _, order in self._tensors]
        self._call = Caller(
            self._kernel,
            dtypes,
            orders,
            [None if order is None else order[0] for order in self._orders],
        )

    def compile(self) -> None:
        """Compile it now, so that a failure is seen now."""
        _ = self._kernel.kernel

    def module(self, stage: str) -> Any:
        """Its program at a stage, as `Compiled.module` gives it."""
        return self._kernel.module(stage)

    @property
    def schedules(self) -> tuple[str, ...]:
        """How its kernels run."""
        return tuple(self._kernel.schedules)

    def _trace(
        self,
        nodes: Sequence[fx.Node],
        inputs: Sequence[fx.Node],
        results: Sequence[fx.Node],
        arrays: Sequence[Any],
    ) -> Any:
        """The part as operations of the dialect."""
        known = Extents()
        values: dict[fx.Node, Any] = {}
        count = len(self._tensors)
        for (place, order), array in zip(self._tensors, arrays, strict=False):
            node = inputs[place]
            if order is not None:
                array = moa.transpose(array, order)
            known.learn(array, extents(node.meta["val"].shape))
            values[node] = array
        for place, array in zip(self._extents, arrays[count:], strict=False):
            known.learn(array, extents([inputs[place].meta["val"]]))
        count += len(self._extents)
        for place, array in zip(self._scalars, arrays[count:], strict=True):
            value = inputs[place].meta["val"]
            if isinstance(value, torch.SymFloat):
                values[inputs[place]] = array
            else:
                known.learn_scalar(array, extent(value))
        for node in inputs:
            value = node.meta["val"]
            if isinstance(value, torch.SymFloat):
                continue
            if node not in values:
                values[node] = known.value(extent(value))
            else:
                values[node] = converted(values[node], value.dtype)
        for node in nodes:
            if node.op == "call_function":
                values[node] = _translated(node, values, known)
        return tuple(
            _arranged(values[node], node, order)
            for node, order in zip(results, self._orders, strict=True)
        )

    def __call__(self, *arguments: Any) -> Any:
        """Run the kernel on tensors, and numbers."""
        tensors = [arguments[place] for place, _ in self._tensors]
        found = self._call(
            tensors,
            [arguments[place] for place in self._extents],
            [arguments[place] for place in self._scalars],
        )
        return found[0] if self._is_single else tuple(found)


def _target(values: Iterable[Any]) -> Target:
    """Where the kernel of a part with some arguments and results runs.

    Raises:
        UntranslatableError: if they lie on several devices, or on one that there are no
            kernels for.
    """
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1:
        raise UntranslatableError("tensors on several devices")
    target = target_of(devices.pop())
    if target is None:
        raise UntranslatableError("tensors on a device without kernels")
    return target


def _is_extent(symbol: Extent) -> bool:
    """Whether something is an extent, and no other number."""
    return not isinstance(symbol, int) and bool(
        symbol.is_Symbol and symbol.is_nonnegative
    )


def _named(value: Extent, names: dict[Any, str]) -> int | str:
    """A name for an extent, the same for equal ones."""
    if isinstance(value, int):
        return value
    return names.setdefault(value, f"n{len(names)}")


def _result_order(node: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The order of a result's axes in memory and its inverse, None for the plain one.

    Raises:
        UntranslatableError: for a result that is no tensor.
    """
    value = node.meta["val"] if isinstance(node, fx.Node) else node
    if not isinstance(value, torch.Tensor):
        raise UntranslatableError("a result that is no tensor")
    order = order_in_memory(value)
    if order is None or order == tuple(range(value.dim())):
        return None
    return order, tuple(order.index(axis) for axis in range(value.dim()))


def _arranged(array: Any, node: fx.Node, order: Any) -> Any:
    """A result in its element type and its order of axes."""
    dtype = node.meta["val"].dtype
    if element(dtype) != NAMES[dtype]:
        array = moa.cast(array, NAMES[dtype])
    return array if order is None else permuted(array, order[0])


def _translated(node: fx.Node, values: Mapping[fx.Node, Any], known: Extents) -> Any:
    """A node as operations of the dialect.

    Raises:
        MoaError: if its arguments are none that the translation takes.
    """
    arguments: Any = fx.map_arg(node.args, values.__getitem__)
    options: Any = fx.map_arg(node.kwargs, values.__getitem__)
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    return TABLE[node.target].translate(Node(node, known), *arguments, **options)
