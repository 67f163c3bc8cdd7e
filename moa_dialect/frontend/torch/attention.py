"""`sdpa`: PyTorch's scaled dot product attention by kernels of moa, with gradients."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch.autograd import forward_ad
from torch.nn import functional

from moa_dialect.frontend.torch import kernels
from moa_dialect.frontend.torch.calls import target_of

Tensor = torch.Tensor

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, by kernels of moa.

    Arguments that moa has no kernel for go to PyTorch's function: `reason_against` says
    which. Its errors are therefore PyTorch's.

    Args:
        query: shape (..., n, d), floating point.
        key: shape (..., m, d), the same dtype and leading axes.
        value: shape (..., m, e).
        attn_mask: truth values, of which a false one hides a key, or numbers that are
            added to the scores; in a shape that broadcasts to (..., n, m).
        dropout_p: goes to PyTorch unless it is 0.
        is_causal: query i sees key j only if j <= i.
        scale: multiplies the scores; 1 / sqrt(d) if None.
        enable_gqa: key and value may have fewer heads, which groups of queries share.

    Returns:
        Shape (..., n, e), dense or, like the query, with the heads inside of its rows.
        Gradients recompute the weights: neither way stores an array of n by m.
    """
    arguments = query, key, value, attn_mask, dropout_p, is_causal, scale
    found = _known(*arguments, enable_gqa)
    if found is not None:
        return found
    if reason_against(*arguments, enable_gqa) is not None:
        return STOCK(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
    return _by_kernel(*arguments, enable_gqa)


def _known(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """The result, if a call without gradients was like one before; None if it was not.

    Nothing is looked at that an outline has: a call of the same outline was found to be
    one that there is a kernel for.
    """
    if dropout_p or not _are_plain(query, key, value, attn_mask):
        return None
    if _need_gradients(query, key, value, attn_mask):
        return None
    try:
        outline = kernels.outline(query, key, value, attn_mask, is_causal, scale, False)
        call = _CALLS.get((outline, enable_gqa))
    except (RuntimeError, TypeError):  # no strides, or nothing to be hashed
        return None
    return None if call is None else call(query, key, value, attn_mask)[0]


def _are_plain(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None
) -> bool:
    """Whether elements are all there is to arguments, which are dense on one device.

    Fake tensors and others of their kind need the operator.
    """
    if (
        type(query) not in _PLAIN
        or type(key) not in _PLAIN
        or type(value) not in _PLAIN
        or not ((query.is_cpu and key.is_cpu and value.is_cpu) or query.is_cuda)
        or key.dtype is not query.dtype
        or value.dtype is not query.dtype
        or _is_transformed()
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu" if query.is_cpu else "cuda")
        or query.is_neg()
        or key.is_neg()
        or value.is_neg()
    ):
        return False
    if query.is_cuda:
        device = query.get_device()
        if key.get_device() != device or value.get_device() != device:
            return False
    if attn_mask is None:
        return True
    return (
        type(attn_mask) in _PLAIN
        and attn_mask.is_cpu == query.is_cpu
        and attn_mask.get_device() == query.get_device()
        and not attn_mask.is_neg()
    )


def _need_gradients(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None
) -> bool:
    """Whether a gradient of the result may be asked for."""
    return torch.is_grad_enabled() and (
        query.requires_grad
        or key.requires_grad
        or value.requires_grad
        or (attn_mask is not None and attn_mask.requires_grad)
    )


def _is_transformed() -> bool:
    """Whether tensors may stand for more than their elements: modes, vmap, others."""
    return (
        torch._C._len_torch_dispatch_stack() != 0  # pyright: ignore
        or _is_differentiated()
    )


def _is_differentiated() -> bool:
    """Whether torch.func transforms something, or derivatives are taken forwards."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
        or forward_ad._current_level >= 0  # pyright: ignore
    )


def _by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of arguments that there is a kernel for."""
    arguments = query, key, value, attn_mask, is_causal, scale
    if not _are_plain(query, key, value, attn_mask):
        return torch.ops.moa.attention(*arguments)[0]
    if _need_gradients(query, key, value, attn_mask):
        return cast(Tensor, _Attention.apply(*arguments))  # pyright: ignore
    outline = kernels.outline(*arguments, False)
    result = kernels.run_forward(*arguments, False)[0]
    if len(_CALLS) >= kernels.MOST_CALLS:
        _CALLS.clear()
    _CALLS[outline, enable_gqa] = kernels.CALLS[outline]
    return result


_CALLS: dict[Any, Any] = {}
"""How calls that `reason_against` had nothing against are run, by their outlines."""

STOCK = functional.scaled_dot_product_attention
"""PyTorch's own function."""

_PLAIN = (Tensor, torch.nn.Parameter)


def reason_against(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> str | None:
    """Why arguments of `sdpa` go to PyTorch's function, None if they do not."""
    tensors = [query, key, value]
    if attn_mask is not None:
        tensors.append(attn_mask)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return "arguments that are no tensors"
        if tensor.layout != torch.strided or target_of(tensor.device) is None:
            return "tensors that are not dense, or on a device without kernels"
        if tensor.device != query.device:
            return "tensors on different devices"
    if dropout_p != 0.0:
        return "dropout"
    if is_causal and attn_mask is not None:
        return "a mask with is_causal"
    if torch.is_autocast_enabled(query.device.type):
        return "autocast"
    if _is_differentiated():
        return "a transformation of torch.func, or forward-mode derivatives"
    dtype, rank = query.dtype, query.dim()
    if dtype not in _DTYPES or key.dtype != dtype or value.dtype != dtype:
        return "element types"
    if rank < 2 or key.dim() != rank or value.dim() != rank:
        return "numbers of axes"
    if scale is not None and not isinstance(scale, int | float):
        return "a scale that is no number"
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        return "shapes"
    heads = rank - 3 if enable_gqa and rank > 2 else rank - 2
    leading, shared = query.shape[: rank - 2], key.shape[: rank - 2]
    if shared != value.shape[: rank - 2] or leading[:heads] != shared[:heads]:
        return "leading axes that differ"
    if heads < rank - 2 and leading[-1] != shared[-1]:
        if shared[-1] == 0 or leading[-1] % shared[-1] != 0:
            return "heads that are no multiple"
    elif enable_gqa and rank < 3:
        return "shapes"
    return None if attn_mask is None else _mask_reason(attn_mask, query, key)


def _mask_reason(mask: Tensor, query: Tensor, key: Tensor) -> str | None:
    computed = kernels.computed_type(query.dtype)
    if mask.dtype not in (torch.bool, torch.float32, query.dtype, computed):
        return "element types"
    if mask.dim() < 2:
        return "a mask of fewer than two axes"
    scores = (*query.shape[:-1], key.shape[-2])
    if mask.dim() > len(scores):
        return "a mask of more axes than the scores"
    for given, wanted in zip(
        mask.shape, scores[len(scores) - mask.dim() :], strict=True
    ):
        if given != 1 and given != wanted:
            return "a mask that does not broadcast"
    return None


# The operators that torch.compile sees.

_LIBRARY = torch.library.Library("moa", "DEF")
_LIBRARY.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool is_causal, "
    "float? scale) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "attention_backward(Tensor gradient, Tensor query, Tensor key, Tensor value, "
    "Tensor? mask, Tensor out, Tensor lse, bool is_causal, float? scale, "
    "bool[4] wanted) -> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "attention", "CUDA")
@torch.library.impl(_LIBRARY, "attention", "CPU")
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    out, lse = kernels.run_forward(query, key, value, mask, is_causal, scale, True)
    assert lse is not None
    return out, lse


@torch.library.impl(_LIBRARY, "attention_backward", "CUDA")
@torch.library.impl(_LIBRARY, "attention_backward", "CPU")
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    found = kernels.run_backward(
        gradient, query, key, value, mask, out, lse, is_causal, scale, wanted
    )
    # An operator gives tensors; those that are not wanted are empty.
    return tuple(query.new_empty(0) if each is None else each for each in found)


def _like(query: Tensor, *shape: Any) -> Tensor:
    """An empty result of a kernel, with the heads where those of the query are."""
    if kernels.is_interleaved(query):
        batch, heads, rows, width = shape
        return query.new_empty((batch, rows, heads, width)).transpose(1, 2)
    return query.new_empty(shape)


@torch.library.register_fake("moa::attention", lib=_LIBRARY)  # pyright: ignore
def _attention_shape(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    if query.dim() == 4 and query.shape[-1] == value.shape[-1]:
        out = torch.empty_like(query)
    else:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    lse = query.new_empty(query.shape[:-1], dtype=kernels.computed_type(query.dtype))
    return out, lse


@torch.library.register_fake("moa::attention_backward", lib=_LIBRARY)  # pyright: ignore
def _attention_backward_shape(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    results = [
        _like(query, *tensor.shape) if needed else query.new_empty(0)
        for tensor, needed in zip((query, key, value), wanted, strict=False)
    ]
    of_mask = mask.new_empty(mask.shape) if mask is not None and wanted[3] else None
    return (*results, query.new_empty(0) if of_mask is None else of_mask)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, mask, is_causal, scale = inputs
    out, lse = output
    ctx.save_for_backward(query, key, value, mask, out, lse)
    ctx.mark_non_differentiable(lse)
    ctx.options = is_causal, scale


def _gradients(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    query, key, value, mask, out, lse = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:4])
    found = torch.ops.moa.attention_backward(
        gradient, query, key, value, mask, out, lse, *ctx.options, wanted
    )
    kept = (each if w else None for each, w in zip(found, wanted, strict=True))
    return (*kept, None, None)


class _Attention(torch.autograd.Function):
    """`moa::attention` of plain tensors, without PyTorch's dispatch."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
    ) -> Tensor:
        """The result; what the gradients need is kept."""
        out, lse = kernels.run_forward(query, key, value, mask, is_causal, scale, True)
        ctx.save_for_backward(query, key, value, mask, out, lse)
        ctx.options = is_causal, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradients that are wanted."""
        if torch.is_grad_enabled():  # of which derivatives may be asked for
            return _gradients(ctx, gradients[0], None)
        query, key, value, mask, out, lse = ctx.saved_tensors
        (is_causal, scale), wanted = ctx.options, ctx.needs_input_grad[:4]
        found = kernels.run_backward(
            gradients[0], query, key, value, mask, out, lse, is_causal, scale, wanted
        )
        return (*found, None, None)


def _no_more(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError(
        "moa's attention has no second derivatives: differentiate PyTorch's "
        "scaled_dot_product_attention twice instead"
    )


torch.library.register_autograd(
    "moa::attention", _gradients, setup_context=_save, lib=_LIBRARY
)
torch.library.register_autograd("moa::attention_backward", _no_more, lib=_LIBRARY)


# Routing a model's calls.


class use_moa_attention:
    """Route calls of `scaled_dot_product_attention` in this thread to `sdpa`.

    A context manager, which may be entered again while it is active. While one is,
    `torch.nn.functional` has another function of that name; a function that was
    imported from there by name before is not routed. The innermost manager counts.

    Attributes:
        routed: how many calls went to kernels of moa.
        reasons: for each reason how many calls went to PyTorch.
    """

    def __init__(self) -> None:
        self.routed = 0
        self.reasons: Counter[str] = Counter()

    @property
    def left(self) -> int:
        """How many calls went to PyTorch."""
        return sum(self.reasons.values())

    def __enter__(self) -> Self:
        global _managers
        with _lock:
            if not _managers:
                functional.scaled_dot_product_attention = _routed
            _managers += 1
        _active().append(self)
        return self

    def __exit__(self, *failure: object) -> None:
        global _managers
        _active().pop()
        with _lock:
            _managers -= 1
            if not _managers:
                functional.scaled_dot_product_attention = STOCK

    def call(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        """One call of a model."""
        found = _known(*arguments, **options)
        if found is not None:
            self.routed += 1
            return found
        reason = reason_against(*arguments, **options)
        if reason is not None:
            self.reasons[reason] += 1
            return STOCK(*arguments, **options)
        self.routed += 1
        return _by_kernel(*arguments, **options)

    def __repr__(self) -> str:
        return f"<use_moa_attention: {self.routed} calls routed, {self.left} left>"


_lock, _managers, _local = threading.Lock(), 0, threading.local()


def _active() -> list[use_moa_attention]:
    """The managers that are active in this thread, the innermost last."""
    managers: list[use_moa_attention] | None = getattr(_local, "managers", None)
    if managers is None:
        managers = _local.managers = []
    return managers


def _routed(*arguments: Any, **options: Any) -> Any:
    """PyTorch's function, or what the innermost manager makes of the call."""
    # What is compiled is routed by the backend.
    if torch.compiler.is_compiling() or not (managers := _active()):
        return STOCK(*arguments, **options)
    return managers[-1].call(arguments, options)
