"""Kernels as functions of tensors, called the shortest way.

What calls with equal shapes and strides share is found once: which arguments have to be
copied, the extents that the kernel is told, the shapes of results. A call then looks up
addresses, has PyTorch allocate results where it wants them, and runs the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from moa_dialect.frontend.jit import Compiled
from moa_dialect.lowering.chips import CHIP, chip_of

Tensor = torch.Tensor
Order = tuple[int, ...]


class Target(NamedTuple):
    """Where a kernel runs, as options of `moa.jit`."""

    target: str = "cpu"
    chip: str = CHIP


@cache
def _target_of_device(number: int) -> Target | None:
    if torch.version.hip is not None or not torch.cuda.is_available():
        return None
    chip = chip_of(*torch.cuda.get_device_capability(number))
    return None if chip is None else Target("cuda", chip)


def target_of(device: torch.device) -> Target | None:
    """Where kernels for tensors on a device run; None if there are none for it."""
    if device.type == "cpu":
        return ON_CPU
    return _target_of_device(device.index) if device.type == "cuda" else None


ON_CPU = Target()

CPU = torch.device("cpu")

MOST_CALLS = 256
"""For how many shapes and strides what calls share is kept."""


class _Result(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class _Call(NamedTuple):
    """What calls with equal shapes and strides share."""

    copied: tuple[int, ...]
    results: tuple[_Result, ...]
    run: Any


def called(kernel: Compiled, tensors: Sequence[Tensor]) -> Any:
    """Run a kernel on tensors, the shortest way if they are dense."""
    found = kernel.kernel.call_tensors(torch, tensors)
    return kernel(*tensors) if found is None else found


class Caller:
    """A kernel as a function of tensors on the CPU, or on a GPU if it is for one.

    Args:
        kernel: the kernel.
        dtypes: the element types of its arguments.
        orders: for each argument its axes from the slowest to the fastest, as the
            kernel has them, None for the plain order.
        result_orders: the same for its results.
    """

    def __init__(
        self,
        kernel: Compiled,
        dtypes: Sequence[torch.dtype],
        orders: Sequence[Order | None],
        result_orders: Sequence[Order | None],
    ) -> None:
        self._kernel = kernel
        self._dtypes, self._orders = list(dtypes), list(orders)
        self._result_orders = list(result_orders)
        self._aligned = max((d.itemsize for d in dtypes), default=1) - 1
        self._calls: dict[Any, _Call | None] = {}

    def __call__(
        self,
        tensors: Sequence[Tensor],
        extents: Sequence[int] = (),
        numbers: Sequence[Any] = (),
    ) -> Any:
        """The results, as a list.

        Args:
            tensors: the first arguments, of the element types that were said.
            extents: for each argument after them, a vector of truth values that is not
                read, its extent.
            numbers: the arguments after these, scalars of type i64 or f64.
        """
        key = (
            *[tensor.shape for tensor in tensors],
            *[tensor.stride() for tensor in tensors],
            *extents,
            *numbers,
        )
        call = self._calls.get(key, 0)
        if call == 0:
            call = self._new(tensors, extents, numbers)
            if len(self._calls) >= MOST_CALLS:
                self._calls.clear()
            self._calls[key] = call
        if call is None or torch._C._len_torch_dispatch_stack():  # pyright: ignore
            return self._by_conversion(tensors, extents, numbers)
        assert isinstance(call, _Call)
        if call.copied:
            tensors = list(tensors)
            for place in call.copied:
                tensors[place] = self._dense(place, tensors[place])
        addresses: list[int] = []
        together = 0
        for tensor in tensors:
            if tensor.is_neg():
                return self._by_conversion(tensors, extents, numbers)
            address = tensor.data_ptr()
            together |= address
            addresses.append(address)
        if together & self._aligned:
            return self._by_conversion(tensors, extents, numbers)
        results = [
            torch.empty_strided(shape, strides, dtype=dtype, device=CPU)
            for shape, strides, dtype in call.results
        ]
        call.run(addresses, [result.data_ptr() for result in results])
        return results

    def _dense(self, place: int, tensor: Tensor) -> Tensor:
        """An argument with its elements as the kernel reads them."""
        order = self._orders[place]
        if order is None:
            return tensor.contiguous()
        back = [order.index(axis) for axis in range(len(order))]
        return tensor.permute(order).contiguous().permute(back)

    def _new(
        self, tensors: Sequence[Tensor], extents: Sequence[int], numbers: Sequence[Any]
    ) -> _Call | None:
        """What calls with these shapes and strides share, None if they convert."""
        if self._kernel.target != "cpu":
            return None
        kernel = self._kernel.kernel
        types: list[Any] = [
            getattr(torch, m.dtype, None) for m in kernel.signature.outputs
        ]
        if (
            not kernel.is_dense
            or None in types
            or any(t.dtype != d for t, d in zip(tensors, self._dtypes, strict=True))
            or not all(t.is_cpu and t.layout == torch.strided for t in tensors)
            or any(t.numel() == 0 for t in tensors)
            or not all(extents)
        ):
            return None
        laid = [
            tensor if order is None else tensor.permute(order)
            for tensor, order in zip(tensors, self._orders, strict=True)
        ]
        copied = tuple(n for n, t in enumerate(laid) if not t.is_contiguous())
        held = [self._number(number) for number in numbers]
        nothing = torch.zeros(1, dtype=torch.bool, device=CPU)
        own = [t.data_ptr() for t in (*[nothing] * len(extents), *held)]
        shapes = [*[t.shape for t in laid], *[(e,) for e in extents]]
        shapes += [t.shape for t in held]
        known: list[int] = [shapes[number][axis] for number, axis in kernel.dynamic]
        prepared = kernel.prepared([*[t.data_ptr() for t in laid], *own], known)
        if any(0 in shape for shape in prepared.shapes):
            return None
        results = tuple(
            _result(shape, order, dtype)
            for shape, order, dtype in zip(
                prepared.shapes, self._result_orders, types, strict=True
            )
        )

        def run(
            addresses: list[int], of_results: list[int], held: Any = (nothing, held)
        ) -> None:  # What `own` points to is kept alive.
            prepared(*addresses, *own, *of_results)

        return _Call(copied, results, run)

    @staticmethod
    def _number(number: Any, device: torch.device = CPU) -> Tensor:
        dtype = torch.float64 if isinstance(number, float) else torch.int64
        return torch.full((), number, dtype=dtype, device=device)

    def _by_conversion(
        self, tensors: Sequence[Tensor], extents: Sequence[int], numbers: Sequence[Any]
    ) -> Any:
        """The results, whatever the arguments are."""
        laid = [
            tensor if order is None else tensor.permute(order)
            for tensor, order in zip(tensors, self._orders, strict=True)
        ]
        # On a GPU nothing is copied there for a call: that would have to wait.
        device = tensors[0].device if tensors else CPU
        laid += [torch.empty(e, dtype=torch.bool, device=device) for e in extents]
        laid += [self._number(number, device) for number in numbers]
        found: Any = called(self._kernel, laid)
        results: list[Any] = [*found] if type(found) is tuple else [found]
        return [
            each
            if order is None
            else each.permute([order.index(axis) for axis in range(len(order))])
            for each, order in zip(results, self._result_orders, strict=True)
        ]


def _result(shape: tuple[int, ...], order: Order | None, dtype: torch.dtype) -> _Result:
    """A result of a kernel in an order of axes."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    if order is None:
        return _Result(shape, tuple(strides), dtype)
    back = [order.index(axis) for axis in range(len(order))]
    return _Result(
        tuple(shape[place] for place in back),
        tuple(strides[place] for place in back),
        dtype,
    )
