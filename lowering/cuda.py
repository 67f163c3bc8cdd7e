"""Compiled kernels on a GPU: what a call does, and how it is kept.

The host function of a kernel, compiled for the CPU, computes extents, checks and the
plan of launches (`moa_dialect.lowering.plan_launches`), in a microsecond. The launches
are then handed to the driver, on PyTorch's current stream if the arguments are its
tensors; nothing waits for the device. Nothing here needs the compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from struct import Struct
from threading import Lock
from typing import Any

import numpy as np

from moa_dialect.arguments import check_arguments
from moa_dialect.errors import DeviceError, DTypeError, LayoutError
from moa_dialect.lowering.cache import Compilation
from moa_dialect.lowering.cuda_driver import (
    UNASKED_SHARED,
    Driver,
    EncodedMap,
    driver,
)
from moa_dialect.lowering.cuda_launcher import (
    BYTES,
    CONTEXT,
    DONE,
    FAILED,
    LAUNCH,
    OUTCOME,
    SCRATCH,
    STREAM,
    Order,
)
from moa_dialect.lowering.cuda_launcher import address_of as address_of_function
from moa_dialect.lowering.kernel import STATUS_WORDS, Kernel, address_of

MAGIC = b"moa gpu kernel 2\n"

WORKSPACE, NEEDED, DEVICE_STATUS, FIRST = 0, 1, 2, 3
"""Words of a plan, as `moa_dialect.lowering.plan_launches` says."""

HEAD = 8

_STATUS_BYTES, _NOTHING_BYTES = 8 * (STATUS_WORDS + 1), 16


_MOST_MAPS = 4096
"""How many tensor maps a kernel keeps."""

_MOST_SHAPES = 256
"""For how many shapes of arguments a kernel keeps what results are."""


@dataclass(frozen=True)
class BoxMap:
    """What a plan does not say of a tensor map.

    Attributes:
        argument: the number of the argument that it is.
        dtype: the array's dtype.
        box: what a copy moves, the last axis last.
    """

    argument: int
    dtype: str
    box: tuple[int, ...]

    def read(self, words: Sequence[int]) -> tuple[int, Sequence[int], Sequence[int]]:
        """Address, extents and strides in bytes, of the words of a plan."""
        rank = len(self.box)
        return words[0], words[1 : 1 + rank], words[1 + rank :]


@dataclass(frozen=True)
class Launch:
    """A launch in a plan.

    Attributes:
        kernel: the kernel.
        arguments: how many words of the plan each argument takes.
        maps: the arguments that are tensor maps.
    """

    kernel: str
    arguments: tuple[int, ...]
    maps: tuple[BoxMap, ...] = ()

    @property
    def words(self) -> int:
        """How many words the arguments take."""
        return sum(self.arguments)

    def parameters(self) -> tuple[list[int], list[tuple[int, int, int, BoxMap]]]:
        """The parameters of the kernel.

        Returns:
            For each the number of its word, -1 for a tensor map; and for each tensor
            map which parameter it is, its first word, the one after its last, and what
            it is.
        """
        boxes = {each.argument: each for each in self.maps}
        found: list[int] = []
        maps: list[tuple[int, int, int, BoxMap]] = []
        at = 0
        for number, size in enumerate(self.arguments):
            if number in boxes:
                maps.append((len(found), at, at + size, boxes[number]))
                found.append(-1)
            else:
                found += range(at, at + size)
            at += size
        return found, maps


@dataclass(frozen=True)
class DeviceCompilation:
    """A program for a GPU that is compiled but not loaded.

    Attributes:
        host: the host function; its last result is the plan.
        launches: what it plans, in order.
        code: PTX, or for the emulator the kernels as MLIR.
        chip: the chip that the code is for.
        checks: whether kernels check values in arrays.
    """

    host: Compilation
    launches: tuple[Launch, ...]
    code: bytes
    chip: str
    checks: bool = False

    def to_bytes(self) -> bytes:
        """The content of an entry of the cache."""
        launches = [asdict(launch) for launch in self.launches]
        entry = {"chip": self.chip, "checks": self.checks, "launches": launches}
        head = json.dumps(entry).encode()
        host = self.host.to_bytes()
        sizes = (len(part).to_bytes(8, "little") for part in (head, host))
        body = b"".join((*sizes, head, host, self.code))
        return MAGIC + hashlib.sha256(body).digest() + body

    @staticmethod
    def from_bytes(content: bytes) -> DeviceCompilation | None:
        """What `to_bytes` gave, or None for anything else."""
        start = len(MAGIC) + 32
        body = content[start:]
        if content[:start] != MAGIC + hashlib.sha256(body).digest():
            return None
        middle = 16 + int.from_bytes(body[:8], "little")
        end = middle + int.from_bytes(body[8:16], "little")
        head = json.loads(body[16:middle])
        host = Compilation.from_bytes(body[middle:end])
        launches = tuple(
            Launch(
                launch["kernel"],
                tuple(launch["arguments"]),
                tuple(
                    BoxMap(each["argument"], each["dtype"], tuple(each["box"]))
                    for each in launch["maps"]
                ),
            )
            for launch in head["launches"]
        )
        if host is None:
            return None
        return DeviceCompilation(
            host, launches, body[end:], head["chip"], head["checks"]
        )


class _Plan:
    """The words of one call: the frame of the host function, and its plan."""

    def __init__(self, words: int, launches: Sequence[Launch]) -> None:
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)
        size = FIRST + sum(HEAD + launch.words for launch in launches)
        self.plan = (ctypes.c_int64 * size)()
        self.plan_address = ctypes.addressof(self.plan)
        # Where the words of the arguments are never changes.
        self.launches: list[tuple[int, Any, list[tuple[int, int, int, BoxMap]]]] = []
        at = FIRST
        for launch in launches:
            first = at + HEAD
            places, found = launch.parameters()
            pointers = (ctypes.c_void_p * max(len(places), 1))(
                *(self.plan_address + 8 * (first + place) for place in places)
            )
            maps = [(k, first + a, first + b, box) for k, a, b, box in found]
            self.launches.append((at, pointers, maps))
            at = first + launch.words
        # How it is planned and launched in one call, by device.
        self.orders: dict[int, Order] = {}


New = Callable[[int, Sequence[int]], tuple[Any, int]]
"""Makes the memory of a result of a number and shape; gives it and its address."""

Scratch = Callable[[int], tuple[Any, int]]
"""Makes device memory of so many bytes; gives it and its address."""


class PlannedKernel(Kernel):
    """A kernel whose host function writes a plan."""

    def __init__(
        self,
        compilation: DeviceCompilation,
        entries: Sequence[Callable[[int], None]],
    ) -> None:
        self.compilation = compilation
        self.launches = compilation.launches
        self._checks = compilation.checks
        host = compilation.host.signature
        # To the caller the plan is no result.
        super().__init__(replace(host, outputs=host.outputs[:-1]), entries)
        self._plans: list[_Plan] = []
        self._extents_at += 1
        self._size: int = self._words + 1
        self._pack_plan = Struct(f"={self._size}q").pack_into

    def planned(
        self,
        pointers: Sequence[int],
        extents: Sequence[int],
        new: New,
        scratch: Scratch,
        status: int = 0,
    ) -> tuple[_Plan, list[Any], Any]:
        """Have the host function plan a call.

        Args:
            pointers: where the elements of each argument lie.
            extents: the dynamic extents of the arguments, in order.
            new: makes the memory of results.
            scratch: makes device memory.
            status: where the status is that kernels write.

        Returns:
            The plan, the results, and device memory that must live until the kernels
            are launched.

        Raises:
            ShapeError: for extents that do not fit together.
        """
        try:
            frame = self._plans.pop()
        except IndexError:
            frame = _Plan(self._size, self.launches)
        results = self.fill(frame, pointers, extents, new, status)
        words, plan, memory = frame.words, frame.plan, None
        self._run(frame.address)
        if words[0]:
            raise self._failure(words[0], words[1], words[2])
        if plan[NEEDED]:
            memory, plan[WORKSPACE] = scratch(plan[NEEDED])
            self._run(frame.address)
        return frame, results, memory

    def fill(
        self,
        frame: _Plan,
        pointers: Sequence[int],
        extents: Sequence[int],
        new: New,
        status: int,
    ) -> list[Any]:
        """Write what the host function is told of a call, as `planned` has it.

        Returns:
            The results.
        """
        words, plan, pack = frame.words, frame.plan, self._pack_plan
        plan[WORKSPACE], plan[DEVICE_STATUS] = 0, status
        shapes: Sequence[Sequence[int]] = self._shapes
        found: list[int] = []
        if self._extents is not None:
            found = self._extents_of(frame, pointers, extents)
            shapes = self._shapes_with(found)
        results: list[Any] = []
        addresses: list[int] = []
        for number, shape in enumerate(shapes):
            result, address = new(number, shape)
            results.append(result)
            addresses.append(address)
        at = frame.plan_address
        pack(words, 0, 0, 0, 0, *pointers, *addresses, at, *extents, *found)
        return results

    def _extents_of(
        self, frame: _Plan, pointers: Sequence[int], extents: Sequence[int]
    ) -> list[int]:
        """The dynamic extents of the results of a call."""
        words = frame.words
        blank = (0,) * len(self._result_axes)
        unknown = (0,) * len(self._results)
        self._pack_plan(words, 0, 0, 0, 0, *pointers, *unknown, 0, *extents, *blank)
        assert self._extents is not None
        self._extents(frame.address)
        # A negative extent is reported by the kernel itself.
        return [max(extent, 0) for extent in words[self._extents_at :]]

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [shape for shape, _, _ in self._results]

    def _shapes_with(self, extents: Sequence[int]) -> list[list[int]]:
        shapes = [list(shape) for shape in self._shapes]
        for (number, axis), extent in zip(self._result_axes, extents, strict=True):
            shapes[number][axis] = extent
        return shapes

    def release(self, frame: _Plan) -> None:
        """Keep a plan for another call."""
        self._plans.append(frame)

    def run(self, pointers: Sequence[int], extents: Sequence[int]) -> list[np.ndarray]:
        raise NotImplementedError


_Make = tuple[Sequence[int], Sequence[int], int]
"""Shape and strides of a result, and the argument that it is like, -1 if there is none.

To make a tensor like another one takes PyTorch a third less than by shape and strides.
"""

_Makes = tuple[Sequence[_Make], Sequence[int]]
"""What results to make, and their dynamic extents."""

ALIGNMENT = 16
"""What the addresses of arrays are multiples of: kernels copy as many bytes at once."""


class EmulatedKernel(PlannedKernel):
    """A kernel for a GPU that the emulator runs, on NumPy arrays."""

    def __init__(
        self,
        compilation: DeviceCompilation,
        entries: Sequence[Callable[[int], None]],
    ) -> None:
        super().__init__(compilation, entries)
        from moa_dialect.lowering.emulator import Emulator

        self._emulator: Any = Emulator(compilation.code.decode())

    def __call__(
        self, *arrays: np.ndarray, copy: bool | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the kernel, as `Kernel.__call__` does, on copies if need be."""
        ready = [
            array.copy()
            if type(array) is np.ndarray and address_of(array) % ALIGNMENT
            else array
            for array in arrays
        ]
        return super().__call__(*ready, copy=copy)

    def call_tensors(self, torch: Any, tensors: Sequence[Any]) -> None:
        """None: tensors are passed as the arrays that they share memory with."""
        del torch, tensors

    def bound(self, torch: Any, tensors: Sequence[Any]) -> Callable[..., None]:
        """What gives None, as `call_tensors` does."""
        del torch, tensors
        return lambda *tensors: None

    def run(self, pointers: Sequence[int], extents: Sequence[int]) -> list[np.ndarray]:
        """Run the kernel on arrays that are known to fit, as `Kernel.run` does."""

        def new(number: int, shape: Sequence[int]) -> tuple[np.ndarray, int]:
            _, dtype, order = self._results[number]
            array = np.empty(shape, dtype, order)
            return array, address_of(array)

        def scratch(size: int) -> tuple[np.ndarray, int]:
            array = np.empty(size + 256, np.uint8)
            return array, -(-address_of(array) // 256) * 256

        status = np.zeros(STATUS_WORDS + 1, np.int64)
        frame, results, memory = self.planned(
            pointers, extents, new, scratch, address_of(status)
        )
        for launch, (at, _, maps) in zip(self.launches, frame.launches, strict=True):
            number, *sizes, shared = frame.plan[at : at + HEAD]
            if number and 0 not in sizes:
                places, _ = launch.parameters()
                words = [frame.plan[at + HEAD + place] for place in places]
                made = [encoded(box, frame.plan[a:b]) for _, a, b, box in maps]
                for (place, *_), map_ in zip(maps, made, strict=True):
                    words[place] = map_.ctypes.data
                grid, block = tuple(sizes[:3]), tuple(sizes[3:])
                self._emulator.launch(launch.kernel, grid, block, words, shared)
        del memory
        self.release(frame)
        if status[0]:
            raise self._failure(*map(int, status[:STATUS_WORDS]))
        return results


def encoded(box: BoxMap, words: Sequence[int]) -> np.ndarray:
    """A tensor map as the emulator knows it."""
    from moa_dialect.lowering.copy_engine import TensorMap
    from moa_dialect.passes.products import PANEL_BYTES

    address, extents, strides = box.read(words)
    size = 2 if box.dtype == "bfloat16" else np.dtype(box.dtype).itemsize
    return TensorMap(
        address,
        size,
        tuple(max(extent, 0) for extent in reversed(extents)),
        tuple(reversed(strides)),
        tuple(reversed(box.box)),
        PANEL_BYTES,
    ).encoded()


class CudaKernel(PlannedKernel):
    """A kernel on a CUDA device, callable on tensors there and on NumPy arrays.

    NumPy arrays are copied to the current device, and the results back.
    """

    def __init__(
        self,
        compilation: DeviceCompilation,
        entries: Sequence[Callable[[int], None]],
        found: Driver | None = None,
    ) -> None:
        """Make the kernel; `found` is the driver, by default that of the machine."""
        super().__init__(compilation, entries)
        self._driver = found
        self._loaded: dict[int, list[ctypes.c_void_p]] = {}
        self._shared: dict[tuple[int, int], int] = {}
        self._lock = Lock()
        self._types: Any = None
        self._statuses: dict[int, tuple[Any, int]] = {}
        self._maps: dict[tuple[BoxMap, tuple[int, ...]], EncodedMap] = {}
        self._has_maps = any(launch.maps for launch in self.launches)
        self._entry_address = address_of_function(entries[0])
        inputs = self.signature.inputs
        self._made_for: dict[tuple[int, ...], _Makes] = {}
        self._makes = self._made(self._shapes, [memory.shape for memory in inputs])
        self._needed = 0

    # Launches.

    def _functions(self, found: Driver, device: int) -> list[ctypes.c_void_p]:
        """The functions of the launches, loaded into the current context."""
        with self._lock:
            if device not in self._loaded:
                module = _module(found, device, self.compilation)
                self._loaded[device] = [
                    found.function(module, launch.kernel) for launch in self.launches
                ]
        return self._loaded[device]

    def _launch(self, found: Driver, device: int, frame: _Plan, stream: int) -> None:
        """Hand a plan to the driver; the device's context is the current one."""
        functions = self._loaded.get(device) or self._functions(found, device)
        launch, plan = found.launch, frame.plan
        # The lengths are equal, and this runs in every call.
        for index, (function, (at, arguments, maps)) in enumerate(
            zip(functions, frame.launches)  # noqa: B905
        ):
            number, *sizes, shared = plan[at : at + HEAD]
            if not number or 0 in sizes:
                continue
            made: list[EncodedMap] = []  # They live until the driver has read them.
            for place, first, last, box in maps:
                made.append(self._map(found, box, tuple(plan[first:last])))
                arguments[place] = made[-1].address
            if shared > UNASKED_SHARED:
                self._allow(found, device, index, function, shared)
            error = launch(function, *sizes, shared, stream, arguments, None)
            if error:
                found.check(f"launch of {self.launches[index].kernel}", error)

    def _map(self, found: Driver, box: BoxMap, words: tuple[int, ...]) -> EncodedMap:
        """The tensor map of an array, made once for an address and a shape."""
        known = self._maps.get((box, words))
        if known is None:
            address, extents, strides = box.read(words)
            known = found.tensor_map(box.dtype, address, extents, strides, box.box)
            if len(self._maps) >= _MOST_MAPS:
                self._maps.clear()
            self._maps[box, words] = known
        return known

    def _allow(
        self,
        found: Driver,
        device: int,
        index: int,
        function: ctypes.c_void_p,
        shared: int,
    ) -> None:
        """Let a function have that much shared memory, if it may not yet."""
        with self._lock:
            if self._shared.get((device, index), 0) < shared:
                found.allow_shared(function, shared)
                self._shared[device, index] = shared

    def _status(self, found: Driver, device: int) -> int:
        """Where kernels report failed checks to: memory of the host that they see.

        Raises:
            MoaError: if one of an earlier call has failed by now.
        """
        if device not in self._statuses:
            with self._lock:
                size = _STATUS_BYTES + _NOTHING_BYTES
                host, address = found.allocate_on_host(size)
                words = (ctypes.c_int64 * (size // 8)).from_address(host)
                self._statuses[device] = words, address
        words, address = self._statuses[device]
        if words[0]:
            error = self._failure(*words[:STATUS_WORDS])
            # The last word lets kernels report again.
            for number in range(STATUS_WORDS + 1):
                words[number] = 0
            raise type(error)(f"{error} (in an earlier call)")
        return address

    # Planning and launching in one call.

    def _order(self, found: Driver, device: int, frame: _Plan) -> Order | None:
        """How a plan that was launched on a device is planned and launched at once.

        None if the driver's launches are not its own.
        """
        addresses = found.addresses()
        if addresses is None:
            return None
        push, pop, launch = addresses
        context = found.context(device).value or 0
        words, plan = frame.address, frame.plan_address
        return Order(
            (push, pop, context, self._entry_address, words, plan, launch),
            [
                (
                    function.value or 0,
                    at,
                    ctypes.addressof(pointers),
                    max(UNASKED_SHARED, self._shared.get((device, index), 0)),
                )
                for index, (function, (at, pointers, _)) in enumerate(
                    zip(self._loaded[device], frame.launches, strict=True)
                )
            ],
        )

    def _at_once(
        self,
        torch: Any,
        found: Driver,
        device: int,
        place: Any,
        frame: _Plan,
        order: Order,
        pointers: list[int],
        extents: Sequence[int],
        stream: int,
        tensors: Sequence[Any],
        makes: _Makes | None = None,
    ) -> list[Any] | None:
        """Plan and launch a call on tensors in one go, as those before.

        The last argument is what results to make, if that is known.

        Returns:
            The results; None, with nothing launched, if a launch needs more shared
            memory than it may have so far.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data of an earlier call.
            DeviceError: for what the driver reports.
        """
        words, plan, said, go = frame.words, frame.plan, order.words, order.run
        if self._checks:
            status = plan[DEVICE_STATUS] = self._status(found, device)
            pointers = [p or status + _STATUS_BYTES for p in pointers]
        if makes is None:
            makes = self._makes_for(frame, pointers, extents)
        wanted, given = makes
        empty, alike = torch.empty_strided, torch.empty_like
        results = [
            empty(shape, strides, dtype=dtype, device=place)
            if like < 0
            else alike(tensors[like])
            for (shape, strides, like), dtype in zip(wanted, self._types[1])  # noqa: B905
        ]
        addresses = [result.data_ptr() for result in results]
        at, memory, size = frame.plan_address, None, self._needed
        self._pack_plan(words, 0, 0, 0, 0, *pointers, *addresses, at, *extents, *given)
        while True:
            plan[WORKSPACE] = 0
            if size:
                memory = torch.empty(size, dtype=torch.uint8, device=place)
                plan[WORKSPACE] = memory.data_ptr()
            said[STREAM], said[BYTES] = stream, size
            made = self._made_maps(found, frame) if self._has_maps else ()
            go(order.address)
            outcome = said[OUTCOME]
            if outcome == DONE:
                break
            if outcome == SCRATCH:
                size = plan[NEEDED]
                continue
            if outcome == FAILED:
                raise self._failure(words[0], words[1], words[2])
            error, index = order.error
            if outcome == CONTEXT:
                found.check("cuCtxPushCurrent", error)
            elif outcome == LAUNCH:
                found.check(f"launch of {self.launches[index].kernel}", error)
            return None
        # The allocator hands memory on in the order of the stream; the driver has read
        # the maps.
        del memory, made
        self._needed = plan[NEEDED]
        return results

    def _made_maps(self, found: Driver, frame: _Plan) -> list[EncodedMap]:
        """The tensor maps of a call, as arguments of its launches.

        The host function is run for them; failures are left to the call that follows.
        """
        self._run(frame.address)
        made: list[EncodedMap] = []
        if frame.words[0]:
            return made
        plan = frame.plan
        for at, arguments, maps in frame.launches:
            if plan[at]:
                for place, first, last, box in maps:
                    made.append(self._map(found, box, tuple(plan[first:last])))
                    arguments[place] = made[-1].address
        return made

    def _makes_for(
        self, frame: _Plan, pointers: Sequence[int], extents: Sequence[int]
    ) -> _Makes:
        """What results a call makes, and their dynamic extents."""
        if self._extents is None:
            return self._makes, ()
        key = tuple(extents)
        if (known := self._made_for.get(key)) is not None:
            return known
        given = self._extents_of(frame, pointers, extents)
        shapes = [list(memory.shape) for memory in self.signature.inputs]
        for (number, axis), extent in zip(self._dynamic, extents, strict=True):
            shapes[number][axis] = extent
        found = self._made(self._shapes_with(given), shapes), given
        if len(self._made_for) >= _MOST_SHAPES:
            self._made_for.clear()
        self._made_for[key] = found
        return found

    def _made(
        self, shapes: Sequence[Sequence[int]], given: Sequence[Sequence[int]]
    ) -> list[_Make]:
        """What results of some shapes are, for arguments of some shapes."""
        signature = self.signature
        inputs = [(m.dtype, *shape) for m, shape in zip(signature.inputs, given)]  # noqa: B905
        outputs = [(m.dtype, *shape) for m, shape in zip(signature.outputs, shapes)]  # noqa: B905
        likes = [inputs.index(each) if each in inputs else -1 for each in outputs]
        return [
            (shape, _strides(shape), like)
            for shape, like in zip(shapes, likes, strict=True)
        ]

    # Tensors.

    def call_tensors(self, torch: Any, tensors: Sequence[Any]) -> Any:
        """Run the kernel on tensors of PyTorch on one CUDA device.

        Args:
            torch: the module.
            tensors: any arguments.

        Returns:
            What `__call__` does, as tensors on the same device; None, with nothing
            done, unless all arguments are plain dense tensors there that fit.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data of an earlier call, found out of
                range since: a call does not wait for its own checks of data.
            DeviceError: for what the driver reports.
        """
        if self._types is None:
            self._types = (
                [
                    (getattr(torch, memory.dtype, None), shape)
                    for memory, (_, shape) in zip(
                        self.signature.inputs, self._expected, strict=True
                    )
                ],
                [getattr(torch, memory.dtype) for memory in self.signature.outputs],
            )
        types, outputs = self._types
        if len(tensors) != len(types) or not tensors:
            return None
        kind, strided, pointers = torch.Tensor, torch.strided, list[int]()
        # A tensor on the CPU has the number -1.
        device, together = -2, 0
        for tensor, (dtype, shape) in zip(tensors, types):  # noqa: B905
            if (
                type(tensor) is not kind
                or tensor.dtype is not dtype
                or tensor.layout is not strided
                or not tensor.is_contiguous()
                or (tensor.requires_grad and torch.is_grad_enabled())
                or tensor.is_neg()
                or (tensor.shape != shape and not _matches(tensor.shape, shape))
            ):
                return None
            number = tensor.get_device()
            if number != device:
                if device >= 0 or not tensor.is_cuda:
                    return None
                device = number
            pointer = tensor.data_ptr()
            together |= pointer
            pointers.append(pointer)
        if together % ALIGNMENT:
            return None
        extents: Sequence[int] = ()
        if self._dynamic:
            extents = [tensors[number].shape[axis] for number, axis in self._dynamic]
        place = tensors[0].device
        found = self._driver or driver()
        stream = _stream(torch, device)
        try:
            frame = self._plans.pop()
        except IndexError:
            pass
        else:
            order = frame.orders.get(device)
            if order is not None:
                given = pointers, extents, stream, tensors
                results = self._at_once(
                    torch, found, device, place, frame, order, *given
                )
                if results is not None:
                    self._plans.append(frame)
                    return results[0] if len(results) == 1 else tuple(results)
            self._plans.append(frame)

        def new(number: int, shape: Sequence[int]) -> tuple[Any, int]:
            result = torch.empty(shape, dtype=outputs[number], device=place)
            return result, result.data_ptr()

        def scratch(size: int) -> tuple[Any, int]:
            result = torch.empty(size, dtype=torch.uint8, device=place)
            return result, result.data_ptr()

        found.enter(found.context(device))
        try:
            status = 0
            if self._checks:
                status = self._status(found, device)
                # A failed check may leave index 0 of an empty array to read.
                pointers = [p or status + _STATUS_BYTES for p in pointers]
            frame, results, memory = self.planned(
                pointers, extents, new, scratch, status
            )
            self._launch(found, device, frame, stream)
        finally:
            found.leave()
        # The allocator hands memory on in the order of the stream.
        del memory
        order = self._order(found, device, frame)
        if order is not None:
            frame.orders[device] = order
        self.release(frame)
        return results[0] if len(results) == 1 else tuple(results)

    def bound(self, torch: Any, tensors: Sequence[Any]) -> Callable[..., Any]:
        """The kernel for tensors like these, which are such as `call_tensors` takes.

        Returns:
            A function of tensors of the same shapes, element types and device, dense
            and without a mark, which is not looked at. It does what `call_tensors`
            does, but gives None, with nothing done, where there is more to do than to
            launch: for addresses that are no multiples of 16, or a first call.
        """
        device, place = tensors[0].get_device(), tensors[0].device
        extents = [tensors[number].shape[axis] for number, axis in self._dynamic]
        found = self._driver or driver()
        plans, once, makes = self._plans, self._at_once, None

        def call(*tensors: Any) -> Any:
            nonlocal makes
            pointers = [tensor.data_ptr() for tensor in tensors]
            together = 0
            for pointer in pointers:
                together |= pointer
            if together % ALIGNMENT:
                return None
            try:
                frame = plans.pop()
            except IndexError:
                return None
            order, results = frame.orders.get(device), None
            if order is not None:
                if makes is None:
                    makes = self._makes_for(frame, pointers, extents)
                stream = _stream(torch, device)
                given = pointers, extents, stream, tensors, makes
                results = once(torch, found, device, place, frame, order, *given)
            plans.append(frame)
            if results is None:
                return None
            return results[0] if len(results) == 1 else tuple(results)

        return call

    def call_any_tensors(
        self, torch: Any, values: Sequence[Any], copy: bool | None
    ) -> Any:
        """Run the kernel on tensors, and on arrays beside them.

        What is not on the device is copied there, unless it is a tensor; tensors that
        are not contiguous are copied too, or refused with `copy=False`.

        Raises:
            LayoutError: for tensors on different devices, or not on a CUDA device.
            MoaError: as `__call__`.
        """
        result = self.call_tensors(torch, values)
        if result is not None:
            return result
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        place = tensors[0].device
        ready: list[Any] = []
        stand_ins: list[np.ndarray] = []
        for number, value in enumerate(values):
            if isinstance(value, torch.Tensor):
                tensor = self._checked(torch, number, value, place)
            else:
                tensor = _to_tensor(torch, number, value, place)
            stand_ins.append(_stand_in(number, tensor))
            ready.append(tensor)
        check_arguments(self.name, self.names, self._expected, stand_ins)
        for number, tensor in enumerate(ready):
            is_aligned = tensor.data_ptr() % ALIGNMENT == 0
            if not tensor.is_contiguous() or not is_aligned:
                if copy is False:
                    raise LayoutError(
                        f"argument {number} '{self.names[number]}': expected a "
                        f"contiguous tensor at a multiple of {ALIGNMENT} bytes, got "
                        f"strides {tuple(tensor.stride())} for "
                        f"shape {tuple(tensor.shape)}"
                    )
                ready[number] = tensor.clone(memory_format=torch.contiguous_format)
        result = self.call_tensors(torch, ready)
        assert result is not None
        return result

    def _checked(self, torch: Any, number: int, tensor: Any, place: Any) -> Any:
        """A tensor that may be passed, without the marks that do not matter."""
        if not tensor.is_cuda:
            raise LayoutError(
                f"argument {number}: expected a tensor on a CUDA device, "
                f"got {tensor.device}"
            )
        if tensor.device != place:
            raise LayoutError(
                f"argument {number}: expected a tensor on device {place}, as the "
                f"others, got {tensor.device}"
            )
        if tensor.layout != torch.strided:
            raise LayoutError(
                f"argument {number}: expected a strided tensor, got {tensor.layout}"
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise LayoutError(
                f"argument {number}: expected a tensor that does not require grad "
                f"(moa kernels are not differentiated; pass tensor.detach()), got one "
                f"that does"
            )
        plain = tensor.detach().resolve_neg()
        is_plain = type(plain) is torch.Tensor
        return plain if is_plain else plain.as_subclass(torch.Tensor)

    # NumPy arrays.

    def run(self, pointers: Sequence[int], extents: Sequence[int]) -> list[np.ndarray]:
        """Run the kernel on arrays of the host that fit: copied there and back.

        Args:
            pointers: where the elements of each argument lie, contiguous and aligned.
            extents: the dynamic extents of the arguments, in order.

        Raises:
            ShapeError: for extents that do not fit together.
            IndexRangeError: for an index in the data that is out of range.
            DeviceError: for what the driver reports.
        """
        found = self._driver or driver()
        device = found.current_device()
        known = iter(extents)
        with ExitStack() as stack:
            found.enter(found.context(device))
            stack.callback(found.leave)

            def allocate(size: int) -> int:
                address = found.allocate(size)
                stack.callback(found.free, address)
                return address

            def new(number: int, shape: Sequence[int]) -> tuple[np.ndarray, int]:
                _, dtype, order = self._results[number]
                array = np.empty(shape, dtype, order)
                return array, allocate(array.nbytes)

            def scratch(size: int) -> tuple[None, int]:
                return None, allocate(size)

            there: list[int] = []
            for pointer, (dtype, shape) in zip(pointers, self._expected, strict=True):
                size = dtype.itemsize
                for extent in shape:
                    size *= next(known) if extent < 0 else extent
                there.append(allocate(max(size, _NOTHING_BYTES)))
                found.write(there[-1], pointer, size)
            status = np.zeros(STATUS_WORDS + 1, np.int64)
            reported = allocate(status.nbytes) if self._checks else 0
            if reported:
                found.write(reported, address_of(status), status.nbytes)
            frame, results, _ = self.planned(there, extents, new, scratch, reported)
            self._launch(found, device, frame, 0)
            outputs = frame.words[STATUS_WORDS + len(there) :]
            for array, address in zip(results, outputs, strict=False):
                found.read(address_of(array), address, array.nbytes)
            if reported:
                found.read(address_of(status), reported, status.nbytes)
            self.release(frame)
        if status[0]:
            raise self._failure(*map(int, status[:STATUS_WORDS]))
        return results


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a dense array, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * max(shape[axis], 1)
    return tuple(strides)


def _matches(given: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether extents are those of a shape where it is static."""
    if len(given) != len(shape):
        return False
    for extent, wanted in zip(given, shape):  # noqa: B905
        if extent != wanted and wanted >= 0:
            return False
    return True


def _stream(torch: Any, device: int) -> int:
    """The handle of PyTorch's current stream on a device."""
    # What `current_stream` makes an object of.
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    if raw is not None:
        return raw(device)
    return torch.cuda.current_stream(device).cuda_stream


def torch_dtype(number: int, tensor: Any) -> np.dtype:
    """The dtype of a tensor of PyTorch as one of NumPy.

    Raises:
        DTypeError: if NumPy has none.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    try:
        return np.dtype(name)
    except TypeError:
        raise DTypeError(
            f"argument {number}: unsupported tensor: {tensor.dtype}"
        ) from None


def _stand_in(number: int, tensor: Any) -> np.ndarray:
    """An array of a tensor's dtype and shape, to be checked in its place."""
    one = np.empty((), torch_dtype(number, tensor))
    return np.broadcast_to(one, tuple(tensor.shape))


def _to_tensor(torch: Any, number: int, value: Any, place: Any) -> Any:
    """An array of the host as a tensor on a device."""
    from moa_dialect.arrays import to_numpy

    array = np.ascontiguousarray(to_numpy(number, value)).reshape(np.shape(value))
    return Kernel.to_tensor(torch, array).to(place)


_MODULES: dict[tuple[int, int, bytes], ctypes.c_void_p] = {}
_LOCK = Lock()


def _module(
    found: Driver, device: int, compilation: DeviceCompilation
) -> ctypes.c_void_p:
    """The code of a kernel in the current context, loaded once."""
    key = id(found), device, hashlib.sha256(compilation.code).digest()
    with _LOCK:
        if key not in _MODULES:
            try:
                _MODULES[key] = found.load(compilation.code)
            except DeviceError as error:
                raise DeviceError(f"{error} (code for {compilation.chip})") from None
        return _MODULES[key]
