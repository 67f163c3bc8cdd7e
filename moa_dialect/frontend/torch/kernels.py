"""Kernels of attention for tensors, of any extents.

One kernel serves all batch sizes and lengths: only the number of axes, the widths of
heads, the element types, and what is compiled into the program tell kernels apart.
Tensors whose heads lie inside of their rows, as a projection of a model gives them
(`x.view(b, n, h, d).transpose(1, 2)`), are read and written in that order, without a
copy. Nothing here allocates an array of queries by keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.jit import Compiled, jit
from moa_dialect.frontend.trace import ArraySpec
from moa_dialect.library.attention import attention
from moa_dialect.library.attention_gradients import (
    bias_gradient,
    key_gradient,
    query_gradient,
    row_products,
    value_gradient,
)

Tensor = torch.Tensor

NAMES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.bool: "i1",
    torch.int64: "i64",
    torch.int32: "i32",
}
"""Element types that kernels and tensors share."""

_HALVES = (torch.float16, torch.bfloat16)


def computed_type(dtype: torch.dtype) -> torch.dtype:
    """The type that attention computes in: f32 for half precision."""
    return torch.float32 if dtype in _HALVES else dtype


def is_interleaved(q: Tensor) -> bool:
    """Whether the heads of (b, h, n, d) lie inside of its rows."""
    return q.dim() == 4 and q.stride(1) < q.stride(2)


class Problem(NamedTuple):
    """What is compiled into a kernel of attention.

    Attributes:
        dtype: the element type of q, k and v.
        rank: their number of axes.
        heads: the heads of q and of k where these differ, else None.
        widths: the widths d and e.
        interleaved: whether tensors are (b, n, h, d) in memory.
        mask: the element type of the mask and its extents, of which only 1 counts.
        is_causal: as for attention.
        scale: as for attention.
    """

    dtype: str
    rank: int
    heads: tuple[int, int] | None
    widths: tuple[int, int]
    interleaved: bool
    mask: tuple[str, tuple[int | None, ...]] | None
    is_causal: bool
    scale: float | None

    def spec(self, width: int, heads: int = 0) -> ArraySpec:
        """An argument with rows of a width; the heads are those of q (0) or k (1)."""
        return self._arranged((*self._leading(heads), None, width))

    def rows(self) -> ArraySpec:
        """An argument with a number for each query."""
        dtype = "f64" if self.dtype == "f64" else "f32"
        return ArraySpec((*self._leading(0), None), dtype)

    def masks(self) -> dict[str, ArraySpec]:
        """The argument for the mask, if there is one."""
        if self.mask is None:
            return {}
        dtype, shape = self.mask
        return {"bias": ArraySpec(shape, dtype)}

    def arranged(self, a: Any) -> Any:
        """An argument or result in the other order of axes, if tensors have it."""
        return moa.transpose(a, [0, 2, 1, 3]) if self.interleaved else a

    def bias(self, mask: Any) -> Any:
        """What is added to the scores, of a mask."""
        if mask is None or self.mask is None or self.mask[0] != "i1":
            return mask
        dtype = "f64" if self.dtype == "f64" else "f32"
        return moa.where(mask, moa.cast(0.0, dtype), moa.cast(float("-inf"), dtype))

    def _leading(self, of: int) -> tuple[int | None, ...]:
        if self.rank == 2:
            return ()
        heads = None if self.heads is None else self.heads[of]
        return (*(None,) * (self.rank - 3), heads)

    def _arranged(self, shape: tuple[int | None, ...]) -> ArraySpec:
        if self.interleaved:
            batch, heads, rows, width = shape
            shape = (batch, rows, heads, width)
        return ArraySpec(shape, self.dtype)


def problem_of(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: Any
) -> Problem:
    """The problem of tensors that `sdpa` takes, its mask already `compact`."""
    heads = None
    if q.dim() > 2 and q.shape[-3] != k.shape[-3]:
        heads = (q.shape[-3], k.shape[-3])
    of_mask = None
    if mask is not None:
        of_mask = NAMES[mask.dtype], tuple(1 if e == 1 else None for e in mask.shape)
    widths = (q.shape[-1], v.shape[-1])
    return Problem(
        NAMES[q.dtype],
        q.dim(),
        heads,
        widths,
        is_interleaved(q),
        of_mask,
        causal,
        scale,
    )


def compact(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask without the elements it repeats, in a type that a kernel takes.

    Truth values for each query and key stay what they are, and so take a byte each;
    those for each key alone become numbers to add.
    """
    for axis in range(mask.dim()):
        if mask.stride(axis) == 0 and mask.shape[axis] > 1:
            mask = mask.narrow(axis, 0, 1)
    wanted = computed_type(dtype)
    if mask.dtype == torch.bool:
        if mask.dim() > 1 and mask.shape[-2] != 1:
            return mask.contiguous()
        numbers = torch.zeros(mask.shape, dtype=wanted)
        return numbers.masked_fill_(mask.logical_not(), float("-inf"))
    return mask.detach().to(wanted).contiguous()


def called(kernel: Compiled, tensors: Sequence[Tensor]) -> Any:
    """Run a kernel on tensors, the shortest way if they are dense."""
    found = kernel.kernel.call_tensors(torch, tensors)
    return kernel(*tensors) if found is None else found


def _compiled(
    name: str, program: Callable[..., Any], problem: Problem, *specs: ArraySpec
) -> Compiled:
    program.__name__ = name
    return jit(program).lower(*specs, **problem.masks())


def _options(problem: Problem, mask: Any) -> dict[str, Any]:
    return {
        "scale": problem.scale,
        "is_causal": problem.is_causal,
        "bias": problem.bias(mask),
    }


@cache
def forward_kernel(problem: Problem, with_lse: bool) -> Compiled:
    """Attention of q, k, v and perhaps the mask; with the logarithms if asked for."""
    arranged = problem.arranged

    def program(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
        options = _options(problem, bias)
        q, k, v = map(arranged, (q, k, v))
        if not with_lse:
            return arranged(attention(q, k, v, **options))
        out, lse = attention(q, k, v, return_lse=True, **options)
        return arranged(out), lse

    d, e = problem.widths
    specs = problem.spec(d), problem.spec(d, 1), problem.spec(e, 1)
    return _compiled("attention", program, problem, *specs)


@cache
def delta_kernel(problem: Problem) -> Compiled:
    """The sums of the rows of the product of the gradient and the result."""

    def program(gradient: Any, out: Any) -> Any:
        of_rows = map(problem.arranged, (gradient, out))
        return row_products(*of_rows)

    program.__name__ = "row_products"
    width = problem.spec(problem.widths[1])
    return jit(program).lower(width, width)


@cache
def gradient_kernel(problem: Problem, name: str, summed: tuple[int, ...]) -> Compiled:
    """One of the gradients, of q, k, v, lse, delta, gradient and perhaps the mask."""
    arranged = problem.arranged

    def program(
        q: Any, k: Any, v: Any, lse: Any, delta: Any, gradient: Any, bias: Any = None
    ) -> Any:
        options = _options(problem, bias)
        q, k, v, gradient = map(arranged, (q, k, v, gradient))
        given = q, k, v, lse, delta, gradient
        match name:
            case "query":
                return arranged(query_gradient(*given, **options))
            case "key":
                return arranged(key_gradient(*given, **options))
            case _:
                return bias_gradient(*given, summed=summed, **options)

    d, e = problem.widths
    specs = (
        problem.spec(d),
        problem.spec(d, 1),
        problem.spec(e, 1),
        problem.rows(),
        problem.rows(),
        problem.spec(e),
    )
    return _compiled(f"{name}_gradient", program, problem, *specs)


@cache
def value_kernel(problem: Problem) -> Compiled:
    """The gradient of the values, of q, k, lse, gradient and perhaps the mask."""
    arranged = problem.arranged

    def program(q: Any, k: Any, lse: Any, gradient: Any, bias: Any = None) -> Any:
        options = _options(problem, bias)
        given = arranged(q), arranged(k), lse, arranged(gradient)
        return arranged(value_gradient(*given, **options))

    d, e = problem.widths
    specs = problem.spec(d), problem.spec(d, 1), problem.rows(), problem.spec(e)
    return _compiled("value_gradient", program, problem, *specs)


def _in_order(problem: Problem, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors as the kernel reads them: dense, in the problem's order of axes."""
    if problem.interleaved:
        return [tensor.transpose(1, 2).contiguous() for tensor in tensors]
    return [tensor.contiguous() for tensor in tensors]


def _back(problem: Problem, tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2) if problem.interleaved else tensor


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention of tensors that fit, and the logarithms if asked for."""
    if mask is not None:
        mask = compact(mask, q.dtype)
    problem = problem_of(q, k, v, mask, is_causal, scale)
    masks = () if mask is None else (mask,)
    kernel = forward_kernel(problem, with_lse)
    result = called(kernel, [*_in_order(problem, (q, k, v)), *masks])
    if not with_lse:
        return _back(problem, result), None
    out, lse = result
    return _back(problem, out), lse


def run_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float | None,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of q, k, v and the mask that are wanted, None for others."""
    shape = () if mask is None else tuple(mask.shape)
    dtype = q.dtype if mask is None else mask.dtype
    if mask is not None:
        mask = compact(mask, q.dtype)
    problem = problem_of(q, k, v, mask, is_causal, scale)
    masks = () if mask is None else (mask,)
    q, k, v, gradient, out = _in_order(problem, (q, k, v, gradient, out))
    lse = lse.contiguous()
    delta = delta_kernel(problem)(gradient, out)
    given = (q, k, v, lse, delta, gradient, *masks)
    results: list[Tensor | None] = [None] * 4
    if wanted[0]:
        results[0] = _back(problem, gradient_kernel(problem, "query", ())(*given))
    if wanted[1]:
        each = gradient_kernel(problem, "key", ())(*given)
        results[1] = _summed(problem, _back(problem, each), q.dtype)
    if wanted[2]:
        each = value_kernel(problem)(q, k, lse, gradient, *masks)
        results[2] = _summed(problem, _back(problem, each), q.dtype)
    if wanted[3]:
        missing = problem.rank - len(shape)
        ones = [axis + missing for axis, e in enumerate(shape) if e == 1]
        summed = (*range(missing), *ones)
        found = gradient_kernel(problem, "bias", summed)(*given)
        results[3] = found.reshape(shape).to(dtype)
    return results


def _summed(problem: Problem, each: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradients for each query head, summed over those that share a key head."""
    if problem.heads is not None:
        heads, shared = problem.heads
        *leading, _, rows, width = each.shape
        grouped = each.reshape(*leading, shared, heads // shared, rows, width)
        each = grouped.sum(-3)
    return each.to(dtype)
