"""Kernels of attention for tensors, of any extents.

One kernel serves all batch sizes and lengths: only the number of axes, the widths of
heads, the element types, and what is compiled into the program tell kernels apart.
Tensors are read where they lie, without a copy, if their elements lie in the order of
some axes: with the heads inside of the rows, as a projection of a model gives them
(`x.view(b, n, h, d).transpose(1, 2)`), as parts of a projection for all three, or as
the first rows of a longer cache. Nothing here allocates an array of queries by keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from moa_dialect.frontend import functions as moa
from moa_dialect.frontend.jit import Compiled, jit
from moa_dialect.frontend.torch.calls import (
    CPU,
    ON_CPU,
    Caller,
    Target,
    called,
    target_of,
)
from moa_dialect.frontend.trace import ArraySpec
from moa_dialect.library.attention import attention
from moa_dialect.library.attention_gradients import (
    bias_gradient,
    key_gradient,
    query_gradient,
    row_products,
    value_gradient,
)
from moa_dialect.library.broadcasting import extent
from moa_dialect.lowering.chips import PLACES

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

_OF_NAMES = {name: dtype for dtype, name in NAMES.items()}

_HALVES = (torch.float16, torch.bfloat16)


def computed_type(dtype: torch.dtype) -> torch.dtype:
    """The type that attention computes in: f32 for half precision."""
    return torch.float32 if dtype in _HALVES else dtype


def is_interleaved(q: Tensor) -> bool:
    """Whether the heads of (b, h, n, d) lie inside of its rows."""
    return q.dim() == 4 and q.stride(1) < q.stride(2)


class Layout(NamedTuple):
    """How elements lie in memory.

    Attributes:
        order: the axes from the slowest to the fastest.
        parts: those that are the first part of a longer axis there.
        width: the extent of the last axis there.
    """

    order: tuple[int, ...]
    parts: tuple[int, ...]
    width: int

    @property
    def counted(self) -> tuple[int, ...]:
        """The parts that a call tells the extents of: no heads, and no widths."""
        rank = len(self.order)
        return tuple(axis for axis in self.parts if axis not in (rank - 3, rank - 1))


class Place(NamedTuple):
    """Where the elements of one operand lie.

    Attributes:
        layout: how they lie.
        extents: the extents they lie in, from the slowest to the fastest.
    """

    layout: Layout
    extents: tuple[int, ...]

    @staticmethod
    def plain(shape: Sequence[int]) -> Place:
        """Where those of a dense operand lie."""
        return Place(Layout(tuple(range(len(shape))), (), shape[-1]), tuple(shape))


def layout_of(shape: Sequence[int], strides: Sequence[int]) -> Place | None:
    """Where elements lie, none if axes overlap or the last is not the fastest."""
    rank = len(shape)
    order = sorted(range(rank), key=lambda axis: (-strides[axis], axis))
    # The last axis is the fastest; beside one of extent 1 its stride says nothing.
    order.remove(rank - 1)
    order.append(rank - 1)
    if strides[-1] != 1 and shape[-1] != 1:
        return None
    extents = [0] * rank
    extents[0] = shape[order[0]]
    below = 1
    for place in range(rank - 1, 0, -1):
        axis, outer = order[place], order[place - 1]
        inside, rest = divmod(strides[outer], below)
        if rest or inside < shape[axis]:
            if shape[outer] != 1:
                return None
            inside = shape[axis]
        extents[place] = inside
        below *= inside
    parts = tuple(
        axis
        for axis, extent in sorted(zip(order, extents, strict=True))
        if extent != shape[axis]
    )
    return Place(Layout(tuple(order), parts, extents[-1]), tuple(extents))


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
        queries: the extents of q but the last one, where these are few and the program
            is for them alone; else None.
    """

    dtype: str
    rank: int
    heads: tuple[int, int] | None
    widths: tuple[int, int]
    interleaved: bool
    mask: tuple[str, tuple[int | None, ...]] | None
    is_causal: bool
    scale: float | None
    queries: tuple[int, ...] | None = None

    def spec(self, width: int, heads: int = 0) -> ArraySpec:
        """An argument with rows of a width; the heads are those of q (0) or k (1)."""
        rows = None if heads or self.queries is None else self.queries[-1]
        return self._arranged((*self._leading(heads), rows, width))

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
        # Arithmetic, no choice: a choice would keep NaN of hidden keys out of the sums,
        # for which each element of their values is chosen too; PyTorch does not.
        return moa.minimum((2.0 * moa.cast(mask, dtype) - 1.0) * math.inf, 0.0)

    def _leading(self, of: int) -> tuple[int | None, ...]:
        if self.rank == 2:
            return ()
        heads = None if self.heads is None else self.heads[of]
        if self.queries is not None:
            *leading, own, _ = self.queries
            return (*leading, own if heads is None else heads)
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

    Truth values stay what they are, and so take a byte each.
    """
    shape, strides = mask.shape, mask.stride()
    if any(s == 0 and e > 1 for e, s in zip(shape, strides, strict=True)):
        once = [1 if s == 0 else e for e, s in zip(shape, strides, strict=True)]
        mask = mask.as_strided(once, strides)
    wanted = computed_type(dtype)
    if mask.dtype == torch.bool:
        return mask.contiguous()
    if mask.dtype != wanted or not mask.is_contiguous():
        mask = mask.to(wanted).contiguous()
    return mask.detach() if mask.requires_grad else mask


def _compiled(
    name: str,
    program: Callable[..., Any],
    problem: Problem,
    target: Target,
    *specs: ArraySpec,
) -> Compiled:
    program.__name__ = name
    return jit(program, **target._asdict()).lower(*specs, **problem.masks())


def _options(problem: Problem, mask: Any) -> dict[str, Any]:
    return {
        "scale": problem.scale,
        "is_causal": problem.is_causal,
        "bias": problem.bias(mask),
    }


@cache
def forward_kernel(
    problem: Problem, with_lse: bool, target: Target = ON_CPU
) -> Compiled:
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
    return _compiled("attention", program, problem, target, *specs)


@cache
def laid_out_kernel(
    problem: Problem, layouts: tuple[Layout, ...], with_lse: bool
) -> Compiled:
    """`forward_kernel` for q, k, v and a result that lie as their layouts say.

    An argument has the extents that its elements lie in. After the mask there is an
    argument for each axis that is a part of a longer one, in order, whose extent is how
    much of it counts.
    """
    heads = problem.heads or (None, None)
    known = [(heads[place], layout.width) for place, layout in zip((0, 1, 1), layouts)]  # noqa: B905
    widths = (problem.widths[0], *problem.widths)
    specs: list[ArraySpec] = []
    for (count, width), layout in zip(known, layouts, strict=False):
        leading = (*(None,) * (problem.rank - 3), count)[: problem.rank - 2]
        shape: tuple[int | None, ...] = (*leading, None, width)
        inside = [None if a in layout.parts else shape[a] for a in range(problem.rank)]
        inside[-1] = width
        specs.append(ArraySpec(tuple(inside[a] for a in layout.order), problem.dtype))
    specs += problem.masks().values()
    parts = sum(len(layout.counted) for layout in layouts[:3])
    specs += [ArraySpec((None,), problem.dtype)] * parts
    of_result = layouts[3].order

    def program(*given: Any) -> Any:
        operands, rest = given[:3], list(given[3:])
        options = _options(problem, rest.pop(0) if problem.mask else None)
        read: list[Any] = []
        for place, layout in enumerate(layouts[:3]):
            array = moa.transpose(operands[place], layout.order)
            for axis in layout.parts:
                count: Any
                if axis == problem.rank - 1:
                    count = [widths[place]]
                elif axis == problem.rank - 3:
                    count = [known[place][0]]
                else:
                    count = moa.reshape([1], extent(rest.pop(0), 0))
                array = _first_of(array, axis, count)
            read.append(array)
        found = attention(*read, return_lse=with_lse, **options)
        out, *lse = found if with_lse else (found,)
        inverse = [of_result.index(axis) for axis in range(problem.rank)]
        out = moa.transpose(out, inverse)
        return (out, *lse) if with_lse else out

    program.__name__ = "attention"
    return jit(program).lower(*specs)


def _first_of(array: Any, axis: int, count: Any) -> Any:
    """The first of the planes along an axis."""
    if axis == 0:
        return moa.take(count, array)
    first = [axis, *(k for k in range(array.ndim) if k != axis)]
    planes = moa.take(
        count, moa.transpose(array, [first.index(k) for k in range(array.ndim)])
    )
    return moa.transpose(planes, first)


@cache
def delta_kernel(problem: Problem, target: Target = ON_CPU) -> Compiled:
    """The sums of the rows of the product of the gradient and the result."""

    def program(gradient: Any, out: Any) -> Any:
        of_rows = map(problem.arranged, (gradient, out))
        return row_products(*of_rows)

    program.__name__ = "row_products"
    width = problem.spec(problem.widths[1])
    return jit(program, **target._asdict()).lower(width, width)


@cache
def gradient_kernel(
    problem: Problem, name: str, summed: tuple[int, ...], target: Target = ON_CPU
) -> Compiled:
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
    return _compiled(f"{name}_gradient", program, problem, target, *specs)


@cache
def value_kernel(problem: Problem, target: Target = ON_CPU) -> Compiled:
    """The gradient of the values, of q, k, lse, gradient and perhaps the mask."""
    arranged = problem.arranged

    def program(q: Any, k: Any, lse: Any, gradient: Any, bias: Any = None) -> Any:
        options = _options(problem, bias)
        given = arranged(q), arranged(k), lse, arranged(gradient)
        return arranged(value_gradient(*given, **options))

    d, e = problem.widths
    specs = problem.spec(d), problem.spec(d, 1), problem.rows(), problem.spec(e)
    return _compiled("value_gradient", program, problem, target, *specs)


@cache
def gradient_call(
    problem: Problem, name: str, summed: tuple[int, ...] = (), target: Target = ON_CPU
) -> Caller:
    """A kernel of the backward pass as a function of tensors."""
    match name:
        case "delta":
            kernel, names = delta_kernel(problem, target), "gg"
        case "value":
            kernel, names = value_kernel(problem, target), "qqlg"
        case _:
            kernel = gradient_kernel(problem, name, summed, target)
            names = "qqqllg"
    own = _OF_NAMES[problem.dtype]
    dtypes = [computed_type(own) if each == "l" else own for each in names]
    if problem.mask is not None and name != "delta":
        dtypes.append(_OF_NAMES[problem.mask[0]])
    return Caller(kernel, dtypes, [None] * len(dtypes), [None])


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
    given = outline(q, k, v, mask, is_causal, scale, with_lse)
    call = CALLS.get(given)
    if call is None:
        call = _call_of(given)
        if len(CALLS) >= MOST_CALLS:
            CALLS.clear()
        CALLS[given] = call
    return call(q, k, v, mask)


def outline(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    with_lse: bool,
) -> tuple[Any, ...]:
    """What calls of `run_forward` that run alike have in common."""
    of_mask = None
    if mask is not None:
        of_mask = mask.shape, mask.stride(), mask.dtype
    return (
        q.shape,
        q.stride(),
        k.shape,
        k.stride(),
        v.shape,
        v.stride(),
        of_mask,
        q.get_device(),
        q.dtype,
        is_causal,
        scale,
        with_lse,
    )


CALLS: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor | None]]] = {}
"""How calls of each outline are run: what they share is found once."""

MOST_CALLS = 1024


def _call_of(given: tuple[Any, ...]) -> Callable[..., Any]:
    """How calls of an outline are run."""
    shapes, strides = given[0:6:2], given[1:6:2]
    *_, number, dtype, is_causal, scale, with_lse = given
    if number >= 0:
        return _OnDevice(number, is_causal, scale, with_lse)
    if any(0 in shape for shape in shapes):

        def copied(
            q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
        ) -> tuple[Tensor, Tensor | None]:
            if mask is not None:
                mask = compact(mask, dtype)
            problem = problem_of(q, k, v, mask, is_causal, scale)
            masks = () if mask is None else (mask,)
            kernel = forward_kernel(problem, with_lse)
            result = called(kernel, [*_in_order(problem, (q, k, v)), *masks])
            out, lse = result if with_lse else (result, None)
            return _back(problem, out), lse

        return copied
    return _Forward(shapes, strides, dtype, is_causal, scale, with_lse)


class _OnDevice:
    """Attention of tensors of certain shapes and strides on a GPU.

    Tensors with the heads inside of their rows are copied, as others that are not
    dense.
    """

    def __init__(
        self, number: int, is_causal: bool, scale: float | None, with_lse: bool
    ) -> None:
        target = target_of(torch.device("cuda", number))
        assert target is not None  # `reason_against` has asked
        self._target, self._options = target, (is_causal, scale)
        self._with_lse = with_lse
        self._prepared: Any = None
        # The kernel, if it takes and gives tensors of these strides as they are.
        self._direct: Any = None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The result, and the logarithms of the denominators or None."""
        if (
            self._direct is not None
            and mask is None
            and not (q.is_neg() or k.is_neg() or v.is_neg())
        ):
            found = self._direct(q, k, v)
            if found is not None:
                return found if self._with_lse else (found, None)
        masks = () if mask is None else (compact(mask, q.dtype),)
        if self._prepared is None:
            of_mask = masks[0] if masks else None
            problem = problem_of(q, k, v, of_mask, *self._options)
            if q.dim() == 4 and q.shape[2] == 1:  # It lies both ways.
                problem = problem._replace(interleaved=is_interleaved(k))
            if are_few(q.shape, k.shape):
                problem = problem._replace(queries=tuple(q.shape[:-1]))
            kernel = forward_kernel(problem, self._with_lse, self._target)
            self._prepared = problem, kernel, result_strides(q, v)
        problem, kernel, strides = self._prepared
        given = _in_order(problem, (q, k, v))
        found = called(kernel, [*given, *masks])
        out, lse = found if self._with_lse else (found, None)
        out = _back(problem, out)
        # A stride along one element says nothing.
        if all(e == 1 or a == b for e, a, b in zip(out.shape, out.stride(), strides)):  # noqa: B905
            if all(x is y for x, y in zip(given, (q, k, v), strict=True)):
                self._direct = kernel.kernel.bound(torch, given)
        else:
            own = torch.empty_strided(
                out.shape, strides, dtype=out.dtype, device=out.device
            )
            out = own.copy_(out)
        return out, lse


def are_few(queries: Sequence[int], keys: Sequence[int]) -> bool:
    """Whether q and k of these shapes get a kernel for q's extents alone.

    Few queries do that have many keys: how many parts keys are cut into, so that a
    device has enough to do, follows from how many queries there are.
    """
    *leading, rows, _ = queries
    count = math.prod(leading)
    if len(queries) < 3 or 0 in (count, rows, math.prod(keys)):
        return False
    shared = queries[-3] // keys[-3]
    return (
        rows * shared <= FEW_ROWS
        and 2 * count // shared <= PLACES
        and keys[-2] >= MANY_KEYS
    )


FEW_ROWS = 64
"""How many queries that share keys are few."""

MANY_KEYS = 512
"""How many keys are worth to be cut into parts."""


def result_strides(q: Tensor, v: Tensor) -> tuple[int, ...]:
    """The strides that PyTorch's kernel gives its result on the CPU."""
    shape = (*q.shape[:-1], v.shape[-1])
    if len(shape) == 4 and shape == q.shape:
        query = torch.empty_strided(q.shape, q.stride(), device="meta")
        return torch.empty_like(query).stride()
    return torch.empty(shape, device="meta").stride()


class _Forward:
    """Attention of tensors of certain shapes and strides, none of them empty."""

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        dtype: torch.dtype,
        is_causal: bool,
        scale: float | None,
        with_lse: bool,
    ) -> None:
        self._shapes, self._strides = (
            list(map(tuple, shapes)),
            list(map(tuple, strides)),
        )
        self._options = is_causal, scale
        self._dtype, self._computed = dtype, computed_type(dtype)
        self._with_lse = with_lse
        self._once = self._repeats_heads()
        if self._once:
            for place in (1, 2):
                shape = self._shapes[place]
                self._shapes[place] = (*shape[:-3], 1, *shape[-2:])
        found = [
            layout_of(shape, stride)
            for shape, stride in zip(self._shapes, self._strides, strict=True)
        ]
        plain = [Place.plain(shape) for shape in self._shapes]
        self._copied = tuple(each is None for each in found)
        self._places = [
            p if f is None else f for p, f in zip(plain, found, strict=True)
        ]
        (*leading, _), (*_, width) = self._shapes[0], self._shapes[2]
        self._shape = (*leading, width)
        self._rows = tuple(leading)
        self._stride = self._result_strides()
        self._prepared: Any = None
        self._witnesses: list[int] = []
        self._aligned = dtype.itemsize - 1

    def _repeats_heads(self) -> bool:
        """Whether all heads of keys and values are one, expanded."""
        if len(self._shapes[0]) < 3 or self._shapes[1][-3] == 1:
            return False
        return self._strides[1][-3] == 0 == self._strides[2][-3]

    def _result_strides(self) -> tuple[int, ...]:
        """The strides that PyTorch's kernel gives its result."""
        if len(self._shape) == 4 and self._shape == self._shapes[0]:
            query = torch.empty_strided(self._shape, self._strides[0], device="meta")
            return torch.empty_like(query).stride()
        return torch.empty(self._shape, device="meta").stride()

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The result, and the logarithms of the denominators or None."""
        if self._once:
            k, v = k.narrow(-3, 0, 1), v.narrow(-3, 0, 1)
        if self._copied != (False, False, False):
            q, k, v = (
                x.contiguous() if copied else x
                for x, copied in zip((q, k, v), self._copied, strict=True)
            )
        out = torch.empty_strided(
            self._shape, self._stride, dtype=self._dtype, device=CPU
        )
        addresses = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if (addresses[0] | addresses[1] | addresses[2]) & self._aligned:
            q, k, v = (x.clone() for x in (q, k, v))
            addresses = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if mask is not None:
            mask = compact(mask, self._dtype)
            addresses.append(mask.data_ptr())
        prepared = self._prepared
        if prepared is None:
            prepared = self._prepared = self._prepare(mask, addresses)
        addresses += self._witnesses
        addresses.append(out.data_ptr())
        if not self._with_lse:
            prepared(*addresses)
            return out, None
        lse = torch.empty(self._rows, dtype=self._computed, device=CPU)
        prepared(*addresses, lse.data_ptr())
        return out, lse

    def _prepare(self, mask: Tensor | None, addresses: Sequence[int]) -> Any:
        """Find the kernel, and what a call tells it."""
        q, k, _ = self._shapes
        widths = q[-1], self._shape[-1]
        heads = None
        is_part = any(len(q) - 3 in each.layout.parts for each in self._places)
        if len(q) > 2 and (is_part or q[-3] != k[-3]):
            heads = (q[-3], k[-3])
        of_mask = None
        if mask is not None:
            of_mask = (
                NAMES[mask.dtype],
                tuple(1 if e == 1 else None for e in mask.shape),
            )
        problem = Problem(
            NAMES[self._dtype], len(q), heads, widths, False, of_mask,
            *self._options,
        )  # fmt: skip
        out = layout_of(self._shape, self._stride)
        assert out is not None
        layouts = (*(each.layout for each in self._places), out.layout)
        kernel = laid_out_kernel(problem, layouts, self._with_lse).kernel
        shapes = [list(each.extents) for each in self._places]
        if mask is not None:
            shapes.append(list(mask.shape))
        counts = [
            [shape[axis]]
            for shape, layout in zip(self._shapes, layouts[:3], strict=True)
            for axis in layout.counted
        ]
        # Only their extents count; there is one element in case of a failed check.
        self._witness = torch.zeros(1, dtype=self._dtype, device="cpu")
        self._witnesses = [self._witness.data_ptr()] * len(counts)
        extents: list[int] = [
            (shapes + counts)[number][axis] for number, axis in kernel.dynamic
        ]
        return kernel.prepared([*addresses, *self._witnesses], extents)


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
    target = target_of(q.device)
    assert target is not None  # `reason_against` has asked
    q, k, v, gradient, out = _in_order(problem, (q, k, v, gradient, out))
    lse = lse.contiguous()
    (delta,) = gradient_call(problem, "delta", (), target)((gradient, out))
    given = (q, k, v, lse, delta, gradient, *masks)
    results: list[Tensor | None] = [None] * 4
    if wanted[0]:
        (each,) = gradient_call(problem, "query", (), target)(given)
        results[0] = _back(problem, each)
    if wanted[1]:
        (each,) = gradient_call(problem, "key", (), target)(given)
        results[1] = _summed(problem, _back(problem, each), q.dtype)
    if wanted[2]:
        of_value = (q, k, lse, gradient, *masks)
        (each,) = gradient_call(problem, "value", (), target)(of_value)
        results[2] = _summed(problem, _back(problem, each), q.dtype)
    if wanted[3]:
        missing = problem.rank - len(shape)
        ones = [axis + missing for axis, e in enumerate(shape) if e == 1]
        summed = (*range(missing), *ones)
        (found,) = gradient_call(problem, "bias", summed, target)(given)
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
