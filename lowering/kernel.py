"""Compiled kernels as functions on NumPy arrays.

A kernel is called with the address of a frame, an array of 64-bit words:

    0..2                 the status: number of the failed check, given, expected
    then                 the address of the elements of each argument and result
    then                 the dynamic extents of each argument, then of each result

Nothing here needs the compiler: a kernel may come from an object file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from struct import Struct
from typing import Any, Literal, cast

import ml_dtypes
import numpy as np

from moa_dialect.algebra.shape import Relation, failure_message
from moa_dialect.arguments import check_arguments
from moa_dialect.errors import LayoutError, MoaError, ShapeError, precondition_error

Order = Literal["C", "F"]

STATUS_WORDS = 3

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Memory:
    """How an argument or result lies in memory; an extent below 0 is dynamic."""

    dtype: str
    shape: tuple[int, ...]
    order: Order

    @property
    def dynamic_axes(self) -> list[int]:
        """The axes whose extents a call tells."""
        return [axis for axis, extent in enumerate(self.shape) if extent < 0]

    def numpy_dtype(self) -> np.dtype:
        """The dtype of NumPy."""
        if self.dtype == "bfloat16":
            return _BFLOAT16
        return np.dtype(self.dtype)


@dataclass(frozen=True)
class Signature:
    """What a caller must know of a kernel.

    Attributes:
        name: the function's name.
        symbol: the symbol of the compiled function.
        names: the names of its arguments.
        inputs: its arguments.
        outputs: its results.
        checks: its checks as "relation: message", numbered from 1.
    """

    name: str
    symbol: str
    names: tuple[str, ...]
    inputs: tuple[Memory, ...]
    outputs: tuple[Memory, ...]
    checks: tuple[str, ...]

    @property
    def extents_symbol(self) -> str | None:
        """The symbol of the function that gives the results' dynamic extents."""
        is_dynamic = any(output.dynamic_axes for output in self.outputs)
        return f"{self.symbol}.extents" if is_dynamic else None

    @property
    def symbols(self) -> list[str]:
        """The symbols of the functions that are called."""
        extents = self.extents_symbol
        return [self.symbol] if extents is None else [self.symbol, extents]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Signature:
        """What `to_json` gave."""
        memories = {
            side: tuple(
                Memory(entry["dtype"], tuple(entry["shape"]), entry["order"])
                for entry in value[side]
            )
            for side in ("inputs", "outputs")
        }
        names, checks = tuple(value["names"]), tuple(value["checks"])
        return Signature(
            value["name"],
            value["symbol"],
            names,
            memories["inputs"],
            memories["outputs"],
            checks,
        )


_NOTHING = (ctypes.c_int64 * 2)()
"""Where the elements of empty arrays lie: a failed check may leave index 0 to read."""

_HEAD = object.__basicsize__


def _by_layout(
    array: np.ndarray,
    word: Callable[[int], ctypes.c_size_t] = ctypes.c_size_t.from_address,
) -> int:
    """The address of the elements: the field after the head in NumPy's C interface."""
    return word(id(array) + _HEAD).value


def _by_attribute(array: np.ndarray) -> int:
    return array.ctypes.data


def _fastest() -> Callable[[np.ndarray], int]:
    """Reading the field is ten times faster, if it is where it has always been."""
    probe = np.zeros(4)[1:]
    return _by_layout if _by_layout(probe) == probe.ctypes.data else _by_attribute


address_of = _fastest()


def _fits(given: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether extents are those of a shape where it is static, and none is 0."""
    if len(given) != len(shape):
        return False
    # The lengths are equal, and this runs in every call.
    for extent, wanted in zip(given, shape):  # noqa: B905
        if extent != wanted and (wanted >= 0 or not extent):
            return False
    return True


class _Frame:
    """The words of one call."""

    def __init__(self, words: int) -> None:
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)


@dataclass
class Kernel:
    """A compiled function, callable on NumPy arrays.

    Attributes:
        signature: what a caller must know of it.
    """

    signature: Signature
    _entries: Sequence[Callable[[int], None]]
    _frames: list[_Frame] = field(init=False, default_factory=list[_Frame])

    def __post_init__(self) -> None:
        signature = self.signature
        self.name, self.names = signature.name, signature.names
        self._run = self._entries[0]
        self._extents = self._entries[1] if len(self._entries) > 1 else None
        self._expected = [(m.numpy_dtype(), m.shape) for m in signature.inputs]
        self._is_fortran = [m.order == "F" for m in signature.inputs]
        self._results: list[tuple[tuple[int, ...], np.dtype, Order]] = [
            (m.shape, m.numpy_dtype(), m.order) for m in signature.outputs
        ]
        axes = [memory.dynamic_axes for memory in signature.inputs]
        self._dynamic = [
            (number, axis) for number, found in enumerate(axes) for axis in found
        ]
        self._result_axes = [
            (number, axis)
            for number, memory in enumerate(signature.outputs)
            for axis in memory.dynamic_axes
        ]
        self._is_simple = not any(self._is_fortran) and not any(
            0 in memory.shape for memory in (*signature.inputs, *signature.outputs)
        )
        self._gives_rows = all(memory.order == "C" for memory in signature.outputs)
        self._tensors: Any = None
        pointers = len(signature.inputs) + len(signature.outputs)
        self._extents_at = STATUS_WORDS + pointers + len(self._dynamic)
        self._words = self._extents_at + len(self._result_axes)
        self._pack = Struct(f"={self._words}q").pack_into

    def __call__(
        self, *arrays: np.ndarray, copy: bool | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the kernel; one result as an array, several as a tuple.

        Args:
            arrays: one NumPy array for each argument, of its dtype and shape.
            copy: False refuses arrays that would have to be copied.

        Raises:
            MoaError: for a wrong number of arrays.
            ShapeError: for a wrong rank or extent, or extents that do not fit together.
            DTypeError: for a wrong dtype.
            LayoutError: with `copy=False`, for an array that is not contiguous.
            IndexRangeError: for an index in the data that is out of range.
        """
        pointers = self._pointers(arrays)
        ready: Sequence[np.ndarray] = arrays
        if pointers is None:
            check_arguments(self.name, self.names, self._expected, arrays)
            ready = [
                self._contiguous(number, array, copy)
                for number, array in enumerate(arrays)
            ]
            pointers = [
                address_of(array) if array.size else ctypes.addressof(_NOTHING)
                for array in ready
            ]
        extents: Sequence[int] = ()
        if self._dynamic:
            extents = [ready[number].shape[axis] for number, axis in self._dynamic]
        results = self.run(pointers, extents)
        return results[0] if len(results) == 1 else tuple(results)

    def call_tensors(self, torch: Any, tensors: Sequence[Any]) -> Any:
        """Run the kernel on tensors of PyTorch, if there is nothing to convert.

        Args:
            torch: the module.
            tensors: any arguments.

        Returns:
            What `__call__` does, as tensors that share the results' memory; None, with
            nothing done, unless all arguments are plain dense tensors on the CPU.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data that is out of range.
        """
        if self._tensors is None:
            # Of dtypes that torch has under the same name; others never match.
            self._tensors = [
                (getattr(torch, memory.dtype, None), dtype.itemsize - 1, shape)
                for memory, (dtype, shape) in zip(
                    self.signature.inputs, self._expected, strict=True
                )
            ]
        if not self._is_simple or len(tensors) != len(self._tensors):
            return None
        kinds, strided = (torch.Tensor, torch.nn.Parameter), torch.strided
        pointers = list[int]()
        # The lengths are equal, and this runs in every call.
        for tensor, (dtype, mask, shape) in zip(tensors, self._tensors):  # noqa: B905
            if (
                type(tensor) not in kinds
                or tensor.dtype is not dtype
                or not tensor.is_cpu
                or tensor.layout is not strided
                or not tensor.is_contiguous()
                or (tensor.requires_grad and torch.is_grad_enabled())
                or tensor.is_neg()
                or (tensor.shape != shape and not _fits(tensor.shape, shape))
            ):
                return None
            try:
                pointer = tensor.data_ptr()
            except RuntimeError:  # such as a batch of torch.vmap
                return None
            if pointer & mask:
                return None
            pointers.append(pointer)
        extents: Sequence[int] = ()
        if self._dynamic:
            extents = [tensors[number].shape[axis] for number, axis in self._dynamic]
        if not self._gives_rows or torch._C._len_torch_dispatch_stack():
            results = self.run(pointers, extents)
            tensors = [self.to_tensor(torch, array) for array in results]
            return tensors[0] if len(tensors) == 1 else tuple(tensors)
        prepared = self.prepared(pointers, extents)
        results = [
            torch.empty(shape, dtype=getattr(torch, memory.dtype), device="cpu")
            for shape, memory in zip(  # noqa: B905
                prepared.shapes, self.signature.outputs
            )
        ]
        prepared(*pointers, *[result.data_ptr() for result in results])
        return results[0] if len(results) == 1 else tuple(results)

    @staticmethod
    def to_tensor(torch: Any, array: np.ndarray) -> Any:
        """A tensor that shares an array's memory."""
        if array.dtype == _BFLOAT16:
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    def _pointers(self, arrays: Sequence[np.ndarray]) -> list[int] | None:
        """Where the elements are, if nothing is to be converted or complained about."""
        if not self._is_simple or len(arrays) != len(self._expected):
            return None
        ndarray, pointers = np.ndarray, list[int]()
        # The lengths are equal, and this runs in every call.
        for array, (dtype, shape) in zip(arrays, self._expected):  # noqa: B905
            if type(array) is not ndarray or array.dtype != dtype:
                return None
            if array.shape != shape and not _fits(array.shape, shape):
                return None
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                return None
            pointers.append(address_of(array))
        return pointers

    def run(self, pointers: Sequence[int], extents: Sequence[int]) -> list[np.ndarray]:
        """Run the kernel on arrays that are known to fit.

        Args:
            pointers: where the elements of each argument lie, contiguous and aligned.
            extents: the dynamic extents of the arguments, in order.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data that is out of range.
        """
        found = self._result_extents(pointers, extents)
        results = list(self._allocated(found))
        self.run_at([*pointers, *map(address_of, results)], [*extents, *found])
        return results

    def prepared(self, pointers: Sequence[int], extents: Sequence[int]) -> Prepared:
        """The kernel for arguments of given extents, to be called with addresses.

        Args:
            pointers: where the elements of each argument lie, contiguous and aligned.
                They are read if the extents of results depend on elements.
            extents: the dynamic extents of the arguments, in order.
        """
        return Prepared(self, extents, self._result_extents(pointers, extents))

    def _result_extents(
        self, pointers: Sequence[int], extents: Sequence[int]
    ) -> Sequence[int]:
        """The dynamic extents of the results, in order."""
        if self._extents is None:
            return ()
        frame = _Frame(self._words)
        nothing = [0] * len(self._results)
        self._pack(frame.words, 0, 0, 0, 0, *pointers, *nothing, *extents,
                   *[0] * len(self._result_axes))  # fmt: skip
        self._extents(frame.address)
        # A negative extent is reported by the kernel itself.
        return [max(extent, 0) for extent in frame.words[self._extents_at :]]

    def run_at(self, addresses: Sequence[int], extents: Sequence[int]) -> None:
        """Run the kernel on arguments and results that are known to fit.

        Args:
            addresses: where the elements of each argument and each result lie.
            extents: the dynamic extents of the arguments, then of the results.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data that is out of range.
        """
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame(self._words)
        words = frame.words
        self._pack(words, 0, 0, 0, 0, *addresses, *extents)
        self._run(frame.address)
        if words[0]:
            raise self._failure(words[0], words[1], words[2])
        self._frames.append(frame)

    def _contiguous(
        self, number: int, array: np.ndarray, copy: bool | None
    ) -> np.ndarray:
        fortran = self._is_fortran[number]
        flags = array.flags
        fits = flags.f_contiguous if fortran else flags.c_contiguous
        if fits and flags.aligned:
            return array
        if copy is False:
            layout = "Fortran" if fortran else "C"
            if fits:
                raise LayoutError(
                    f"argument {number} '{self.names[number]}': expected elements at "
                    f"multiples of {array.itemsize} bytes, got one at "
                    f"{array.ctypes.data:#x}"
                )
            raise LayoutError(
                f"argument {number} '{self.names[number]}': expected a "
                f"{layout}-contiguous array, got strides {array.strides} for shape "
                f"{array.shape}"
            )
        return np.require(array, requirements=["F" if fortran else "C", "A"])

    def _allocated(self, extents: Sequence[int]) -> Iterator[np.ndarray]:
        shapes = self.result_shapes(extents)
        for shape, (_, dtype, order) in zip(shapes, self._results, strict=True):
            try:
                yield np.empty(shape, dtype, order)
            except ValueError as error:
                raise ShapeError(f"a result of shape {shape}: {error}") from None

    def result_shapes(self, extents: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes of the results, of their dynamic extents in order."""
        shapes = [list(shape) for shape, _, _ in self._results]
        for (number, axis), extent in zip(self._result_axes, extents, strict=True):
            shapes[number][axis] = extent
        return [tuple(shape) for shape in shapes]

    @property
    def dynamic(self) -> list[tuple[int, int]]:
        """The arguments and axes of the extents that a call tells, in order."""
        return self._dynamic

    @property
    def is_dense(self) -> bool:
        """Whether arguments and results are row-major, and none is surely empty."""
        return self._is_simple and self._gives_rows

    def _failure(self, number: int, given: int, expected: int) -> MoaError:
        relation, message = self.signature.checks[number - 1].split(": ", 1)
        text = failure_message(cast(Relation, relation), message, given, expected)
        return precondition_error(text)


class Prepared:
    """A kernel for arguments of certain extents, called with addresses.

    Args:
        kernel: the kernel.
        extents: the dynamic extents of its arguments, in order.
        found: those of its results.

    Attributes:
        shapes: the shapes of the results.
    """

    def __init__(
        self, kernel: Kernel, extents: Sequence[int], found: Sequence[int]
    ) -> None:
        self._kernel, self._run_at = kernel, kernel.run_at
        self._tail = (*extents, *found)
        self.shapes = kernel.result_shapes(found)

    def __call__(self, *addresses: int) -> None:
        """Run the kernel, as `Kernel.run_at` says.

        Args:
            addresses: where the elements of each argument and each result lie. They are
                neither checked nor converted.
        """
        self._run_at(addresses, self._tail)
