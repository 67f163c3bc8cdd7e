"""Small functions of PyTorch, to be compared under moa and without it.

`CASES` has a function and a function that makes its arguments for each name. Extents
are odd, and all element types and forms of arguments that models use occur.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

Case: TypeAlias = tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
I64, I32, BOOL = torch.int64, torch.int32, torch.bool


def numbers(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    """Random elements: normal ones, whole ones from -9 to 8, or truth values."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    if dtype == BOOL:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if not dtype.is_floating_point:
        low = 0 if dtype == torch.uint8 else -9
        return torch.randint(low, 9, shape, generator=generator, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def positive(*shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
    """Random elements above 0."""
    return numbers(*shape, dtype=dtype).abs() + 0.1


def below(high: int, *shape: int, dtype: torch.dtype = I64) -> torch.Tensor:
    """Random whole numbers from 0 to one below `high`."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(0, high, shape, generator=generator, dtype=dtype)


def _module(make: Callable[[], nn.Module], train: bool = True) -> Callable[..., Any]:
    """A module with parameters that are the same each time it is made."""
    torch.manual_seed(0)
    module = make().train(train)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.normal_().abs_().add_(0.1 if "var" in name else 0)
    return module


A = (5, 7)
CASES: dict[str, Case] = {}


def _add(name: str, function: Callable[..., Any], *makers: Callable[[], Any]) -> None:
    CASES[name] = function, lambda: tuple(make() for make in makers)


def _pointwise() -> None:
    unary = """exp exp2 log log2 log10 log1p expm1 sqrt rsqrt reciprocal sin cos tan tanh
        sinh cosh asinh erf erfc sigmoid floor ceil round trunc frac abs neg sign square
        relu isnan isinf isfinite logit deg2rad atan""".split()
    for name in unary:
        f = getattr(torch, name)
        of = {"log", "log2", "log10", "sqrt", "rsqrt", "log1p"}
        make = positive if name in of else numbers
        if name == "logit":
            _add(name, lambda x, f=f: f(x.sigmoid()) * 2, lambda: numbers(*A))
            continue
        _add(name, lambda x, f=f: f(x + 0.01) * 2, lambda make=make: make(*A))
        _add(
            f"{name}, bf16",
            lambda x, f=f: f(x) * 2,
            lambda make=make: make(*A, dtype=BF16),
        )
    activations = """relu relu6 silu gelu elu selu celu hardswish hardsigmoid hardtanh
        softplus softsign leaky_relu logsigmoid mish tanhshrink softshrink hardshrink
        """.split()
    for name in activations:
        f = getattr(functional, name)
        for dtype in (F32, F64, BF16):
            _add(
                f"{name}, {dtype}",
                lambda x, f=f: f(x * 2) + 1,
                lambda dtype=dtype: numbers(*A, dtype=dtype),
            )
    _add("gelu tanh", lambda x: functional.gelu(x, approximate="tanh") + 1,
         lambda: numbers(*A))  # fmt: skip
    _add("softplus beta", lambda x: functional.softplus(x * 9, 2, 3) + 1,
         lambda: numbers(*A))  # fmt: skip
    _add("glu", lambda x: functional.glu(x + 1), lambda: numbers(5, 8))
    _add("prelu", lambda x, w: functional.prelu(x + 1, w), lambda: numbers(3, 4, 5),
         lambda: numbers(4))  # fmt: skip
    binary = """add sub mul div maximum minimum atan2 logaddexp logaddexp2 hypot fmod
        remainder fmax fmin copysign eq ne lt le gt ge xlogy""".split()
    for name in binary:
        f = torch.special.xlogy if name == "xlogy" else getattr(torch, name)
        second = positive if name in ("div", "fmod", "remainder", "xlogy") else numbers
        for dtype in (F32, F64, BF16):
            _add(
                f"{name}, {dtype}",
                lambda x, y, f=f: f(x + 1, y) * 2,
                lambda dtype=dtype: numbers(*A, dtype=dtype),
                lambda dtype=dtype, second=second: second(7, dtype=dtype),
            )
    whole = """add sub mul maximum minimum remainder fmod bitwise_and bitwise_or
        bitwise_xor eq lt ge floor_divide div bitwise_left_shift bitwise_right_shift
        """.split()
    for name in whole:
        for dtype in (I64, I32, BOOL, torch.uint8, torch.int8):
            if dtype == BOOL and name not in (
                "bitwise_and", "bitwise_or", "bitwise_xor", "eq", "mul", "add",
                "maximum", "lt",
            ):  # fmt: skip
                continue
            f = getattr(torch, name)
            ready = (
                (lambda y: y)
                if dtype == BOOL
                else (lambda y: y % 5 + 1)
                if name in ("remainder", "fmod", "floor_divide", "div") or "shift" in name
                else (lambda y: y)
            )
            _add(
                f"{name} of {dtype}",
                lambda x, y, f=f, ready=ready: f(x, ready(y)) == x,
                lambda dtype=dtype: numbers(*A, dtype=dtype),
                lambda dtype=dtype: numbers(7, dtype=dtype, seed=3),
            )
    for mode in ("floor", "trunc"):
        for dtype in (F32, I64):
            _add(
                f"div {mode} {dtype}",
                lambda x, y, mode=mode: torch.div(x + 1, y, rounding_mode=mode) * 2,
                lambda dtype=dtype: numbers(*A, dtype=dtype),
                lambda dtype=dtype: numbers(7, dtype=dtype).abs() + 1,
            )
    _add("negative whole division", lambda x, y: (x // y + x % y, x.abs().neg()),
         lambda: numbers(*A, dtype=I64), lambda: -numbers(7, dtype=I64).abs() - 1)  # fmt: skip
    _add("floor division by zero free", lambda x: (x // 3 + x % 3, x / 3),
         lambda: numbers(*A, dtype=I64))  # fmt: skip
    _add("pow", lambda x: x**2 + x**3 + x.abs() ** 1.5 + 2**x, lambda: numbers(*A))
    _add("pow 0 and 1", lambda x: x**0 + x**1 + (x * x) ** 0.5, lambda: numbers(*A))
    _add("pow whole", lambda x: x**2 + x**3, lambda: numbers(*A, dtype=I64))
    _add("pow tensors", lambda x, y: x**y + 1, lambda: positive(*A), lambda: numbers(7))
    _add("pow negative base", lambda x: x**4 + x**-2 + x**5, lambda: numbers(*A))
    _add("clamp", lambda x: x.clamp(-0.5, 0.5) + 1, lambda: numbers(*A))
    _add("clamp one", lambda x: x.clamp(min=0.1) + x.clamp(max=0.3), lambda: numbers(*A))
    _add("clamp whole", lambda x: x.clamp(-2, 3) + 1, lambda: numbers(*A, dtype=I64))
    _add("clamp NaN", lambda x: x.clamp(-2, 3) + 1, lambda: torch.tensor([torch.nan, 9.0]))
    _add("clamp tensors", lambda x, a: x.clamp(-a, a) + 1, lambda: numbers(*A),
         lambda: positive(7))  # fmt: skip
    _add("masked_fill", lambda x, m: x.masked_fill(m, -1.0) * 2, lambda: numbers(*A),
         lambda: numbers(7, dtype=BOOL))  # fmt: skip
    _add("masked_fill tensor", lambda x, m, v: x.masked_fill(m, v) * 2,
         lambda: numbers(*A), lambda: numbers(5, 1, dtype=BOOL), lambda: numbers())  # fmt: skip
    _add("where", lambda c, x, y: torch.where(c, x, y) * 2,
         lambda: numbers(5, 1, dtype=BOOL), lambda: numbers(*A), lambda: numbers(7))  # fmt: skip
    _add("where number", lambda x: torch.where(x > 0, x, 0.0) * 2, lambda: numbers(*A))
    _add("where types", lambda c, x, y: torch.where(c, x, y) * 2,
         lambda: numbers(*A, dtype=BOOL), lambda: numbers(*A), lambda: numbers(7, dtype=F64))  # fmt: skip
    _add("tril triu", lambda x: x.tril() + x.triu(1) * 2, lambda: numbers(3, *A))
    _add("tril of truth", lambda x: torch.ones(5, 7, dtype=BOOL).tril() & (x > 0),
         lambda: numbers(*A))  # fmt: skip
    _add("lerp", lambda x, y: torch.lerp(x, y, 0.3) * 2, lambda: numbers(*A), lambda: numbers(7))
    _add("lerp tensor", lambda x, y, w: torch.lerp(x, y, w) * 2, lambda: numbers(*A),
         lambda: numbers(*A, seed=1), lambda: positive(*A))  # fmt: skip
    _add("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5) * 2,
         lambda: numbers(*A), lambda: numbers(7))  # fmt: skip
    _add("addcdiv", lambda x, y: torch.addcdiv(x, x, y, value=0.5) * 2,
         lambda: numbers(*A), lambda: positive(7))  # fmt: skip
    _add("logical", lambda x, y: (x.logical_and(y), x.logical_or(y), x.logical_not()),
         lambda: numbers(*A), lambda: numbers(7, dtype=I64))  # fmt: skip
    _add("truth arithmetic", lambda x, m: x * m + m.sum() - m.float().mean(),
         lambda: numbers(*A), lambda: numbers(7, dtype=BOOL))  # fmt: skip
    _add("types", lambda x: (x.double() + 1).to(BF16).float() * 2 + x.to(I32), lambda: numbers(*A) * 4)
    _add("to whole", lambda x: (x * 4).long() + (x > 0).int() + (x * 3).bool(), lambda: numbers(*A))
    _add("nan_to_num", lambda x: torch.nan_to_num(x * 2, 1.0, 2.0, 3.0) + 1,
         lambda: torch.tensor([1.0, torch.nan, torch.inf, -torch.inf]))  # fmt: skip
    _add("heaviside", lambda x: torch.heaviside(x, x.new_ones(())) + 1, lambda: numbers(*A).detach())
    _add("sinc", lambda x: torch.sinc(x) + 1, lambda: numbers(*A))
    _add("special values", lambda x: (x.sign(), x.relu() + 1, x.clamp(0, 1) * 2, x > 0,
                                       torch.maximum(x, x.new_zeros(())) + 1, x.round() + 1),
         lambda: torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 0.5, 1.5, 2.5, -2.5]))  # fmt: skip


def _folds() -> None:
    for dims in (None, 0, 1, -1, (0, 2), (1, 2)):
        for name in ("sum", "mean", "amax", "amin", "var", "std", "logsumexp", "norm",
                     "prod", "any", "all", "softmax", "max", "argmax", "cumsum", "argmin",
                     "min", "cumprod", "count_nonzero", "log_softmax", "nansum", "median",
                     "cummax", "logcumsumexp"):  # fmt: skip
            if isinstance(dims, tuple) and name in (
                "softmax", "log_softmax", "prod", "max", "min", "argmax", "argmin",
                "cumsum", "cumprod", "any", "all", "median", "cummax", "logcumsumexp",
            ) or dims is None and name in (
                "softmax", "log_softmax", "cumsum", "cumprod", "amax", "amin", "logsumexp",
                "cummax", "logcumsumexp",
            ):  # fmt: skip
                continue
            f = getattr(torch, name)

            def fold(x: Any, f: Any = f, dims: Any = dims, name: str = name) -> Any:
                y = x * 2 > 0 if name in ("any", "all", "count_nonzero") else x * 2
                r = f(y) if dims is None else f(y, dim=dims)
                r = tuple(r) if isinstance(r, tuple) else r
                return r if isinstance(r, tuple) else r * 1.5
            _add(f"{name} over {dims}", fold, lambda: numbers(3, 5, 7))
    for dtype in (F64, BF16, I64, I32, BOOL):
        _add(f"sum of {dtype}", lambda x: x.sum(1) * 2, lambda dtype=dtype: numbers(*A, dtype=dtype))
        _add(f"amax of {dtype}", lambda x: x.amax(1), lambda dtype=dtype: numbers(*A, dtype=dtype))
        if dtype != BOOL:
            _add(f"cumsum of {dtype}", lambda x: x.cumsum(1) * 2, lambda dtype=dtype: numbers(*A, dtype=dtype))
            _add(f"argmax of {dtype}", lambda x: (x * 2).argmax(1), lambda dtype=dtype: numbers(*A, dtype=dtype))
            _add(f"max of {dtype}", lambda x: tuple((x * 2).max(1)), lambda dtype=dtype: numbers(*A, dtype=dtype))
    _add("cumsum of truth", lambda x: (x > 0).cumsum(-1) + 1, lambda: numbers(*A))
    _add("sum of many columns", lambda x: (x * 2).sum(0) + (x * 2).sum(1).sum(), lambda: numbers(37, 41))
    _add("sum dtype", lambda x: (x * 2).sum(1, dtype=F64) + 1, lambda: numbers(*A))
    _add("keepdim", lambda x: x - x.mean(1, True) + x.amax(0, keepdim=True), lambda: numbers(*A))
    _add("var correction 0", lambda x: x.var(1, correction=0) + x.std((0, 1), correction=2), lambda: numbers(*A))
    _add("var_mean", lambda x: torch.var_mean(x * 2, (0, 2)), lambda: numbers(3, 5, 7))
    _add("sum of ties amax", lambda x: x.amax(1) * 2, lambda: torch.tensor([[1.0, 1.0, 0.0]]))
    _add("argmax ties", lambda x: (x.argmax(1), x.argmin(1), x.argmax()), lambda: torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]))
    _add("argmax NaN", lambda x: ((x * 2).argmax(1), (x * 2).argmin(1)), lambda: torch.tensor([[1.0, torch.nan, 0.0, torch.nan]]))
    _add("topk", lambda x: tuple((x * 2).topk(3)), lambda: numbers(*A))
    _add("sort", lambda x: tuple((x * 2).sort()), lambda: numbers(*A))
    _add("argsort", lambda x: (x * 2).argsort(0), lambda: numbers(*A))
    _add("norms", lambda x: (x.norm(1, 1) + x.norm(torch.inf, 1) + x.norm(3, 1)), lambda: numbers(*A))
    _add("normalize", lambda x: functional.normalize(x * 2), lambda: numbers(*A))
    _add("cosine", lambda x, y: functional.cosine_similarity(x, y) * 2, lambda: numbers(*A), lambda: numbers(7))
    _add("pairwise", lambda x, y: functional.pairwise_distance(x, y) * 2, lambda: numbers(*A), lambda: numbers(*A, seed=2))
    _add("cdist", lambda x, y: torch.cdist(x, y) * 2, lambda: numbers(*A), lambda: numbers(3, 7))
    _add("softmax f32 of bf16", lambda x: torch.softmax(x, -1, dtype=F32) * 2, lambda: numbers(*A, dtype=BF16))
    _add("softmin", lambda x: functional.softmin(x, 0) * 2, lambda: numbers(*A))
    _add("softmax dim 1 of 4", lambda x: x.softmax(1) * 2, lambda: numbers(2, 3, 4, 5))
    _add("gumbel free", lambda x: (x - x.logsumexp(-1, True)).exp(), lambda: numbers(*A))


def _norms() -> None:
    _add("layer_norm", _module(lambda: nn.LayerNorm(7)), lambda: numbers(3, *A))
    _add("layer_norm 2", _module(lambda: nn.LayerNorm((5, 7))), lambda: numbers(3, *A))
    _add("layer_norm bare", lambda x: functional.layer_norm(x * 2, (7,)), lambda: numbers(*A))
    _add("layer_norm bf16", lambda x, w: functional.layer_norm(x * 2, (7,), w), lambda: numbers(*A, dtype=BF16), lambda: numbers(7, dtype=BF16))
    _add("rms_norm", _module(lambda: nn.RMSNorm(7)), lambda: numbers(3, *A))
    for groups in (1, 2, 6):
        _add(f"group_norm {groups}", _module(lambda g=groups: nn.GroupNorm(g, 6)), lambda: numbers(3, 6, 5))
        _add(f"group_norm planes {groups}", _module(lambda g=groups: nn.GroupNorm(g, 6)), lambda: numbers(2, 6, 3, 5))
    _add("group_norm rows", _module(lambda: nn.GroupNorm(3, 6)), lambda: numbers(4, 6))
    _add("group_norm bare", lambda x: functional.group_norm(x * 2, 3), lambda: numbers(2, 6, 5))
    _add("group_norm bf16", lambda x: functional.group_norm(x * 2, 3), lambda: numbers(2, 6, 5, dtype=BF16))
    _add("batch_norm eval", _module(lambda: nn.BatchNorm1d(7), train=False), lambda: numbers(*A))
    _add("batch_norm 2d eval", _module(lambda: nn.BatchNorm2d(3), train=False), lambda: numbers(2, 3, 5, 7))
    _add("batch_norm train", _module(lambda: nn.BatchNorm1d(7)), lambda: numbers(*A))
    _add("batch_norm 2d train", _module(lambda: nn.BatchNorm2d(3)), lambda: numbers(2, 3, 5, 7))
    _add("instance_norm", lambda x: functional.instance_norm(x) * 2, lambda: numbers(2, 3, 5, 7))
    _add("local_response", lambda x: functional.local_response_norm(x, 3) * 2, lambda: numbers(2, 3, 5))


def _losses() -> None:
    weights = lambda: positive(7)  # noqa: E731
    for reduction in ("mean", "sum", "none"):
        _add(f"cross_entropy {reduction}", lambda x, t, r=reduction: functional.cross_entropy(x * 2, t, reduction=r),
             lambda: numbers(*A), lambda: below(7, 5))  # fmt: skip
        _add(f"cross_entropy weight {reduction}", lambda x, t, w, r=reduction: functional.cross_entropy(x, t, w, reduction=r),
             lambda: numbers(*A), lambda: below(7, 5), lambda: positive(7))  # fmt: skip
        _add(f"cross_entropy ignore {reduction}", lambda x, t, r=reduction: functional.cross_entropy(x, t, reduction=r, ignore_index=2),
             lambda: numbers(*A), lambda: torch.tensor([2, 0, 6, 2, 3]))  # fmt: skip
        _add(f"cross_entropy ignore -100 {reduction}", lambda x, t, r=reduction: functional.cross_entropy(x, t, reduction=r),
             lambda: numbers(*A), lambda: torch.tensor([-100, 0, 6, -100, 3]))  # fmt: skip
        _add(f"cross_entropy smoothing {reduction}", lambda x, t, w, r=reduction: functional.cross_entropy(x, t, w, reduction=r, label_smoothing=0.1),
             lambda: numbers(*A), lambda: torch.tensor([-100, 0, 6, -100, 3]), weights)  # fmt: skip
        _add(f"cross_entropy planes {reduction}", lambda x, t, w, r=reduction: functional.cross_entropy(x, t, w, reduction=r, ignore_index=1),
             lambda: numbers(2, 7, 3, 5), lambda: below(7, 2, 3, 5), weights)  # fmt: skip
        _add(f"cross_entropy probabilities {reduction}", lambda x, t, r=reduction: functional.cross_entropy(x, t.softmax(-1), reduction=r),
             lambda: numbers(*A), lambda: numbers(*A, seed=4))  # fmt: skip
        _add(f"nll_loss {reduction}", lambda x, t, w, r=reduction: functional.nll_loss(x * 2, t, w, reduction=r),
             lambda: numbers(*A), lambda: below(7, 5), weights)  # fmt: skip
        _add(f"nll_loss2d {reduction}", lambda x, t, w, r=reduction: functional.nll_loss(x * 2, t, w, reduction=r),
             lambda: numbers(2, 7, 3, 5), lambda: below(7, 2, 3, 5), weights)  # fmt: skip
        _add(f"bce {reduction}", lambda x, y, r=reduction: functional.binary_cross_entropy(x.sigmoid(), y.sigmoid(), reduction=r),
             lambda: numbers(*A), lambda: numbers(*A, seed=2).detach())  # fmt: skip
        _add(f"bce logits {reduction}", lambda x, y, w, r=reduction: functional.binary_cross_entropy_with_logits(x, y.sigmoid(), pos_weight=w, reduction=r),
             lambda: numbers(*A), lambda: numbers(*A, seed=2), weights)  # fmt: skip
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "kl_div"):
            f = getattr(functional, name)
            _add(f"{name} {reduction}", lambda x, y, f=f, r=reduction: f(x * 2, y + 1, reduction=r),
                 lambda: numbers(*A), lambda: positive(*A))  # fmt: skip
    _add("cross_entropy one row", lambda x, t: functional.cross_entropy(x, t), lambda: numbers(7), lambda: torch.tensor(3))
    _add("cross_entropy all ignored", lambda x, t: functional.cross_entropy(x, t), lambda: numbers(*A), lambda: torch.full((5,), -100))
    _add("cross_entropy bf16", lambda x, t: functional.cross_entropy(x * 2, t), lambda: numbers(*A, dtype=BF16), lambda: below(7, 5))
    _add("cross_entropy f64", lambda x, t: functional.cross_entropy(x * 2, t), lambda: numbers(*A, dtype=F64), lambda: below(7, 5))
    _add("cross_entropy wide", lambda x, t: functional.cross_entropy(x * 2, t), lambda: numbers(64, 1000), lambda: below(1000, 64))
    _add("cross_entropy of lm", lambda h, w, t: functional.cross_entropy((h @ w).flatten(0, 1).float(), t.flatten()),
         lambda: numbers(2, 5, 8), lambda: numbers(8, 11), lambda: below(11, 2, 5))  # fmt: skip
    _add("cosine_embedding", lambda x, y, t: functional.cosine_embedding_loss(x, y, t), lambda: numbers(*A), lambda: numbers(*A, seed=1), lambda: torch.tensor([1, -1, 1, 1, -1]))
    _add("triplet", lambda x, y, z: functional.triplet_margin_loss(x, y, z), lambda: numbers(*A), lambda: numbers(*A, seed=1), lambda: numbers(*A, seed=2))
    _add("margin_ranking", lambda x, y: functional.margin_ranking_loss(x, y, x.detach().sign(), 0.5), lambda: numbers(7), lambda: numbers(7, seed=1))
    _add("gaussian_nll", lambda x, y, v: functional.gaussian_nll_loss(x, y, v), lambda: numbers(*A), lambda: numbers(*A, seed=1), lambda: positive(*A))
    _add("poisson_nll", lambda x, y: functional.poisson_nll_loss(x, y), lambda: numbers(*A), lambda: positive(*A))


def _indices() -> None:
    _add("gather", lambda x, i: torch.gather(x * 2, 1, i) * 3, lambda: numbers(*A), lambda: below(7, 5, 3))
    _add("gather 0", lambda x, i: torch.gather(x * 2, 0, i) * 3, lambda: numbers(*A), lambda: below(5, 2, 6))
    _add("gather 3", lambda x, i: torch.gather(x * 2, -1, i) * 3, lambda: numbers(3, *A), lambda: below(7, 2, 4, 3))
    _add("take_along", lambda x, i: torch.take_along_dim(x * 2, i, 1) * 3, lambda: numbers(*A), lambda: below(7, 5, 3))
    _add("index_select", lambda x, i: (x * 2).index_select(1, i) * 3, lambda: numbers(*A), lambda: below(7, 4))
    _add("index", lambda x, i: (x * 2)[i] * 3, lambda: numbers(*A), lambda: below(5, 2, 3))
    _add("index axis 1", lambda x, i: (x * 2)[:, i] * 3, lambda: numbers(3, *A), lambda: below(5, 4))
    _add("index two", lambda x, i, j: (x * 2)[i, j] * 3, lambda: numbers(*A), lambda: below(5, 4), lambda: below(7, 4) - 7)
    _add("index two broadcast", lambda x, i, j: (x * 2)[i[:, None], j] * 3, lambda: numbers(*A), lambda: below(5, 4), lambda: below(7, 3))
    _add("index arange", lambda x, j: x.log_softmax(-1)[torch.arange(x.shape[0]), j].mean(), lambda: numbers(*A), lambda: below(7, 5))
    _add("index apart", lambda x, i, j: (x * 2)[i, :, j] * 3, lambda: numbers(3, *A), lambda: below(3, 4), lambda: below(7, 4))
    _add("index int32", lambda x, i: (x * 2)[i] * 3, lambda: numbers(*A), lambda: below(5, 3, dtype=I32))
    _add("index mask", lambda x: x[x > 0].sum(), lambda: numbers(*A))
    _add("embedding", lambda w, i: functional.embedding(i, w) * 2, lambda: numbers(9, 5), lambda: below(9, 2, 3))
    _add("embedding padding", lambda w, i: functional.embedding(i, w, padding_idx=1) * 2, lambda: numbers(3, 5), lambda: below(3, 2, 6))
    _add("embedding scaled", lambda w, i: functional.embedding(i, w, scale_grad_by_freq=True) * 2, lambda: numbers(3, 5), lambda: below(3, 2, 6))
    _add("embedding_bag", lambda w, i: functional.embedding_bag(i, w) * 2, lambda: numbers(9, 5), lambda: below(9, 2, 3))
    _add("one_hot", lambda i: functional.one_hot(i, 7) * 2, lambda: below(7, 5))
    _add("scatter", lambda x, i, y: (x * 2).scatter(1, i, y) * 3, lambda: numbers(*A), lambda: torch.arange(15).view(5, 3) % 7, lambda: numbers(5, 3))
    _add("scatter value", lambda x, i: (x * 2).scatter(1, i, 1.0) * 3, lambda: numbers(*A), lambda: below(7, 5, 3))
    _add("scatter_add", lambda x, i, y: (x * 2).scatter_add(1, i, y * 2) * 3, lambda: numbers(*A), lambda: below(7, 5, 3), lambda: numbers(5, 3))
    _add("scatter_reduce", lambda x, i, y: (x * 2).scatter_reduce(1, i, y * 2, "amax") * 3, lambda: numbers(*A), lambda: below(7, 5, 3), lambda: numbers(5, 3))
    _add("index_add", lambda x, i, y: (x * 2).index_add(0, i, y * 2) * 3, lambda: numbers(*A), lambda: below(5, 3), lambda: numbers(3, 7))
    _add("index_put", lambda x, i, y: (x * 2).index_put((i,), y) * 3, lambda: numbers(*A), lambda: torch.tensor([3, 1]), lambda: numbers(2, 7))
    _add("index_put accumulate", lambda x, i, y: (x * 2).index_put((i,), y, accumulate=True) * 3, lambda: numbers(*A), lambda: torch.tensor([3, 3]), lambda: numbers(2, 7))
    _add("index_fill", lambda x, i: (x * 2).index_fill(0, i, 1.0) * 3, lambda: numbers(*A), lambda: torch.tensor([3, 1]))
    _add("masked_select", lambda x: x.masked_select(x > 0).sum(), lambda: numbers(*A))
    _add("masked_scatter", lambda x, y: x.masked_scatter(x > 0, y) * 2, lambda: numbers(*A), lambda: numbers(5, 7, seed=1))
    _add("nonzero", lambda x: (x > 0).nonzero(), lambda: numbers(*A))
    _add("bucketize", lambda x, b: torch.bucketize(x * 2, b), lambda: numbers(*A), lambda: torch.arange(-2.0, 2.0))
    _add("searchsorted", lambda x, b: torch.searchsorted(b, x), lambda: numbers(*A), lambda: torch.arange(-2.0, 2.0))


def _products() -> None:
    _add("mm", lambda x, y: (x @ y) * 2, lambda: numbers(*A), lambda: numbers(7, 3))
    _add("mm of whole", lambda x, y: (x @ y) * 2, lambda: numbers(*A, dtype=I64), lambda: numbers(7, 3, dtype=I64))
    _add("mv", lambda x, y: (x @ y) * 2, lambda: numbers(*A), lambda: numbers(7))
    _add("dot", lambda x, y: torch.dot(x, y) * 2, lambda: numbers(7), lambda: numbers(7, seed=1))
    _add("outer", lambda x, y: torch.outer(x, y) * 2, lambda: numbers(7), lambda: numbers(5))
    _add("matmul batch", lambda x, y: (x @ y) * 2, lambda: numbers(2, 3, *A), lambda: numbers(3, 7, 4))
    _add("bmm", lambda x, y: torch.bmm(x, y) * 2, lambda: numbers(2, *A), lambda: numbers(2, 7, 3))
    _add("addmm", lambda c, x, y: torch.addmm(c, x, y, beta=0.5, alpha=2) * 2, lambda: numbers(3), lambda: numbers(*A), lambda: numbers(7, 3))
    _add("addmv", lambda c, x, y: torch.addmv(c, x, y, beta=0.5) * 2, lambda: numbers(5), lambda: numbers(*A), lambda: numbers(7))
    _add("addbmm", lambda c, x, y: torch.addbmm(c, x, y) * 2, lambda: numbers(5, 3), lambda: numbers(2, *A), lambda: numbers(2, 7, 3))
    _add("baddbmm", lambda c, x, y: torch.baddbmm(c, x, y, beta=0.5) * 2, lambda: numbers(2, 5, 3), lambda: numbers(2, *A), lambda: numbers(2, 7, 3))
    _add("addr", lambda c, x, y: torch.addr(c, x, y) * 2, lambda: numbers(*A), lambda: numbers(5), lambda: numbers(7))
    for text, shapes in (("ij,jk->ik", (A, (7, 3))), ("bij,bjk->bik", ((2, *A), (2, 7, 3))),
                         ("bhid,bhjd->bhij", ((2, 3, 5, 4), (2, 3, 7, 4))), ("ij->ji", (A,)),
                         ("ii->i", ((5, 5),)), ("ij->", (A,)), ("i,j->ij", ((5,), (7,))),
                         ("bij,kj->bik", ((2, *A), (3, 7))), ("ij,ij->i", (A, A)),
                         ("abc,cd,de->abe", ((2, 3, 4), (4, 5), (5, 6)))):  # fmt: skip
        _add(f"einsum {text}", lambda *t, text=text: torch.einsum(text, *t) * 2,
             *[lambda s=s, k=k: numbers(*s, seed=k) for k, s in enumerate(shapes)])  # fmt: skip
    _add("linear", _module(lambda: nn.Linear(7, 3)), lambda: numbers(2, *A))
    _add("linear wide", _module(lambda: nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))), lambda: numbers(17, 64))
    _add("bilinear", _module(lambda: nn.Bilinear(5, 4, 3)), lambda: numbers(2, 5), lambda: numbers(2, 4))
    _add("conv1d", _module(lambda: nn.Conv1d(3, 4, 3)), lambda: numbers(2, 3, 9))
    _add("conv2d", _module(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), lambda: numbers(2, 3, 7, 9))
    _add("kron", lambda x, y: torch.kron(x, y) * 2, lambda: numbers(2, 3), lambda: numbers(3, 2))
    _add("tensordot", lambda x, y: torch.tensordot(x, y, 2) * 2, lambda: numbers(3, *A), lambda: numbers(*A, 2))
    _add("lstm cell", _module(lambda: nn.LSTMCell(5, 4)), lambda: numbers(3, 5))
    _add("gru cell", _module(lambda: nn.GRUCell(5, 4)), lambda: numbers(3, 5))
    _add("encoder", _module(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)), lambda: numbers(2, 5, 8))
    _add("decoder", _module(lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)), lambda: numbers(2, 5, 8), lambda: numbers(2, 3, 8))
    _add("mha", lambda x, m=_module(lambda: nn.MultiheadAttention(8, 2, batch_first=True)): m(x, x, x)[0], lambda: numbers(2, 5, 8))
    _add("sdpa causal", lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), *[lambda s=s: numbers(2, 2, 5, 4, seed=s) for s in range(3)])
    _add("attention by hand", lambda q, k, v: (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v, *[lambda s=s: numbers(2, 2, 5, 4, seed=s) for s in range(3)])


def _shapes() -> None:
    _add("views", lambda x: (x * 2).view(-1).exp().view(x.shape).t() + 1, lambda: numbers(*A))
    _add("slices", lambda x: (x * 2)[1:, ::2] + (x * 2)[:-1, 1:5], lambda: numbers(*A))
    _add("slice steps", lambda x: (x * 2)[::2, 1::3] + 1, lambda: numbers(*A))
    _add("cat", lambda x, y: torch.cat([x * 2, y, x]) + 1, lambda: numbers(*A), lambda: numbers(2, 7))
    _add("cat types", lambda x, y: torch.cat([x, y]) + 1, lambda: numbers(*A), lambda: numbers(2, 7, dtype=F64))
    _add("stack", lambda x, y: torch.stack([x * 2, y], -1) + 1, lambda: numbers(*A), lambda: numbers(*A, seed=1))
    _add("chunk", lambda x: sum(c.exp() * k for k, c in enumerate((x * 2).chunk(3, 1))) if x.shape[1] % 3 == 0 else x, lambda: numbers(5, 9))
    _add("split unequal", lambda x: [c.exp() * 2 for c in (x * 2).split([2, 4, 1], 1)], lambda: numbers(*A))
    _add("flip roll", lambda x: x.flip(0).exp() + x.roll(2, 1) + x.roll((1, -1), (0, 1)), lambda: numbers(*A))
    _add("roll all", lambda x: x.roll(3) * 2, lambda: numbers(*A))
    _add("repeat", lambda x: (x * 2).repeat(2, 3) + 1, lambda: numbers(*A))
    _add("repeat_interleave", lambda x: (x * 2).repeat_interleave(3, 1) + 1, lambda: numbers(*A))
    _add("expand", lambda x: (x * 2)[:, None].expand(5, 4, 7) + 1, lambda: numbers(*A))
    _add("pad", lambda x: functional.pad(x * 2, (1, 2, 0, 3), value=5.0) + 1, lambda: numbers(*A))
    _add("pad negative", lambda x: functional.pad(x * 2, (-1, 2)) + 1, lambda: numbers(*A))
    _add("pad reflect", lambda x: functional.pad(x * 2, (1, 2), mode="reflect") + 1, lambda: numbers(2, *A))
    _add("pad replicate", lambda x: functional.pad(x * 2, (1, 2), mode="replicate") + 1, lambda: numbers(2, *A))
    _add("pad circular", lambda x: functional.pad(x * 2, (1, 2), mode="circular") + 1, lambda: numbers(2, *A))
    _add("movedim", lambda x: (x * 2).movedim(0, -1).exp() + 1, lambda: numbers(3, *A))
    _add("diagonal", lambda x: (x * 2).diagonal().exp() + 1, lambda: numbers(7, 7))
    _add("diag", lambda x: torch.diag(x * 2) + 1, lambda: numbers(5))
    _add("diag_embed", lambda x: torch.diag_embed(x * 2) + 1, lambda: numbers(3, 5))
    _add("trace", lambda x: torch.trace(x * 2) + 1, lambda: numbers(5, 5))
    _add("unfold", lambda x: (x * 2).unfold(1, 3, 2).exp() + 1, lambda: numbers(*A))
    _add("as_strided", lambda x: (x * 2).as_strided((3, 2), (2, 1)) + 1, lambda: numbers(*A))
    _add("meshgrid", lambda x, y: [g * 2 + 1 for g in torch.meshgrid(x, y, indexing="ij")], lambda: numbers(5), lambda: numbers(7))
    _add("tile", lambda x: torch.tile(x * 2, (2, 2)) + 1, lambda: numbers(*A))
    _add("unbind", lambda x: [r.exp() * 2 for r in (x * 2).unbind(0)], lambda: numbers(*A))
    _add("squeeze", lambda x: (x * 2).squeeze().exp() + (x * 2).squeeze(1).exp().squeeze(-1), lambda: numbers(5, 1, 7, 1))
    _add("pixel_shuffle", lambda x: functional.pixel_shuffle(x * 2, 2) + 1, lambda: numbers(2, 8, 3, 5))
    _add("upsample nearest", lambda x: functional.interpolate(x * 2, scale_factor=2.0) + 1, lambda: numbers(2, 3, 5, 7))
    _add("upsample nearest size", lambda x: functional.interpolate(x * 2, size=(7, 9)) + 1, lambda: numbers(2, 3, 5, 7))
    _add("upsample bilinear", lambda x: functional.interpolate(x * 2, scale_factor=2.0, mode="bilinear") + 1, lambda: numbers(2, 3, 5, 7))
    _add("avg_pool", lambda x: functional.avg_pool2d(x * 2, 2) + 1, lambda: numbers(2, 3, 5, 7))
    _add("max_pool", lambda x: functional.max_pool2d(x * 2, 2) + 1, lambda: numbers(2, 3, 5, 7))
    _add("adaptive_avg_pool", lambda x: functional.adaptive_avg_pool2d(x * 2, 1) + 1, lambda: numbers(2, 3, 5, 7))
    _add("arange", lambda x: torch.arange(x.shape[0]) * 2 + torch.arange(0, 2 * x.shape[0], 2), lambda: numbers(*A))
    _add("linspace", lambda x: torch.linspace(0, 1, 7) * x, lambda: numbers(*A))
    _add("eye", lambda x: torch.eye(7) * x + 1, lambda: numbers(7, 7))
    _add("full", lambda x: torch.full((x.shape[0], 1), 3.0) * x + torch.zeros_like(x) + torch.ones(7), lambda: numbers(*A))
    _add("tensor inside", lambda x: x * torch.tensor([1.0, 2.0, 3.0]) + 1, lambda: numbers(5, 3))
    _add("positional", lambda x: x + (torch.arange(x.shape[0])[:, None] / 10000 ** (torch.arange(0, 8, 2) / 8)).sin().repeat(1, 2), lambda: numbers(5, 8))
    _add("rotary", lambda q: torch.cat([-q[..., 4:], q[..., :4]], -1) * q.sin() + q * q.cos(), lambda: numbers(2, 5, 8))
    _add("scalar inputs", lambda x, y: x * y + x.exp(), lambda: numbers(), lambda: numbers(seed=1))
    _add("item free", lambda x: x / x.numel() + x.shape[0] * 2, lambda: numbers(*A))
    _add("zero extent", lambda x: (x * 2).exp().sum(0) + 1, lambda: numbers(0, 7))
    _add("zero extent rows", lambda x: (x * 2).softmax(1) + 1, lambda: numbers(0, 7))
    _add("one extent", lambda x: (x * 2).softmax(1) + x.mean(0), lambda: numbers(1, 1))
    _add("not contiguous", lambda x: (x[:, ::2] * 2).softmax(-1) + x.t()[:4].t(), lambda: numbers(5, 8))
    _add("in place", lambda x: x.clone().mul_(2).add_(1).relu_().sub_(x), lambda: numbers(*A))
    _add("in place slice", lambda x: _written(x), lambda: numbers(*A))
    _add("returned input", lambda x: (x, x * 2 + 1, x.t()), lambda: numbers(*A))
    _add("complex left", lambda x: torch.fft.rfft(x).abs() + 1, lambda: numbers(*A))


def _written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:3, :] = y[:2, :] * 2
    y[:, 0] += 1
    y[..., -1] = 0
    return y * 2


for _each in (_pointwise, _folds, _norms, _losses, _indices, _products, _shapes):
    _each()
