"""The CUDA driver through ctypes: contexts, modules, launches, and memory.

The library is looked for when something is to run, not before. Everything happens in
the primary context of a device, the one that PyTorch and the CUDA runtime use.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import cache
from typing import Any

from moa_dialect.errors import DeviceError
from moa_dialect.lowering.chips import CHIP, chip_of

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

MAX_DYNAMIC_SHARED = 8
"""The attribute of a function that bounds its dynamic shared memory."""

UNASKED_SHARED = 48 << 10
"""How much dynamic shared memory a kernel may have without that attribute."""

_ERROR_LOG, _ERROR_LOG_SIZE = 5, 6
_LOG_BYTES = 8192

_PORTABLE, _MAPPED = 1, 2

_MAJOR, _MINOR = 75, 76
"""The attributes of a device that are its compute capability."""

_WORD = ctypes.c_uint64

_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxGetDevice": (POINTER(c_int),),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuModuleLoadDataEx": (POINTER(c_void_p), c_char_p, c_uint, c_void_p, c_void_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, c_void_p, c_void_p),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuMemAlloc_v2": (POINTER(_WORD), c_size_t),
    "cuMemFree_v2": (_WORD,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemHostGetDevicePointer_v2": (POINTER(_WORD), c_void_p, c_uint),
    "cuMemcpyHtoD_v2": (_WORD, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, _WORD, c_size_t),
    "cuTensorMapEncodeTiled": (
        *(c_void_p, c_int, c_uint, c_void_p, POINTER(_WORD), POINTER(_WORD)),
        *(POINTER(c_uint), POINTER(c_uint), c_int, c_int, c_int, c_int),
    ),
}

_LATER = {"cuTensorMapEncodeTiled"}
"""Functions that drivers before CUDA 12 do not have."""

MAP_TYPES = {
    **{"uint8": 0, "uint16": 1, "uint32": 2, "int32": 3, "uint64": 4, "int64": 5},
    **{"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9},
}
"""The types of elements that a tensor map may have (CUtensorMapDataType)."""

MAP_BYTES, _NOT_INTERLEAVED, _SWIZZLE_128, _L2_128, _ZEROS = 128, 0, 3, 2, 0

FUNCTIONS = tuple(_ARGUMENTS)
"""The functions of the driver that are used."""


class EncodedMap:
    """A tensor map: 128 bytes at a multiple of 64.

    Attributes:
        address: where they are.
    """

    def __init__(self) -> None:
        """Take memory for one, all zeros."""
        self._memory = (ctypes.c_char * (MAP_BYTES + 64))()
        self.address = -(-ctypes.addressof(self._memory) // 64) * 64

    def content(self) -> bytes:
        """The bytes."""
        return ctypes.string_at(self.address, MAP_BYTES)


class Driver:
    """A CUDA driver.

    Attributes:
        launch: `cuLaunchKernel`, which gives 0 or an error for `check`.
    """

    def __init__(self, library: ctypes.CDLL | Mapping[str, int]) -> None:
        """Take a driver.

        Args:
            library: the library, or the addresses of `FUNCTIONS`.

        Raises:
            DeviceError: if the driver cannot be initialised.
        """
        self._functions = {
            name: _function(library, name, types) for name, types in _ARGUMENTS.items()
        }
        self.launch: Any = self._functions["cuLaunchKernel"]
        self._push = self._functions["cuCtxPushCurrent_v2"]
        self._pop = self._functions["cuCtxPopCurrent_v2"]
        self._contexts: dict[int, c_void_p] = {}
        self._chips: dict[int, str] = {}
        self._popped = byref(c_void_p())
        self._call("cuInit", 0)

    def check(self, name: str, error: int) -> None:
        """Raise what the driver reports, if it does.

        Raises:
            DeviceError: for anything but 0.
        """
        if error:
            raise DeviceError(f"{name}: {self._message(error)}")

    def _message(self, error: int) -> str:
        found: list[str] = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            if self._functions[function](error, byref(text)) == 0 and text.value:
                found.append(text.value.decode())
        return ", ".join(found) or f"error {error}"

    def _call(self, name: str, *arguments: Any) -> None:
        self.check(name, self._functions[name](*arguments))

    def addresses(self) -> tuple[int, int, int] | None:
        """Where the functions are that push and pop a context, and that launch.

        None if `launch` is another one.
        """
        own = self._functions["cuLaunchKernel"]
        if self.launch is not own:
            return None
        push, pop, launch = (
            ctypes.cast(function, c_void_p).value or 0
            for function in (self._push, self._pop, own)
        )
        return push, pop, launch

    # Contexts.

    def context(self, device: int) -> c_void_p:
        """The primary context of a device.

        Raises:
            DeviceError: if there is no such device.
        """
        if device not in self._contexts:
            handle, context = c_int(), c_void_p()
            self._call("cuDeviceGet", byref(handle), device)
            self._call("cuDevicePrimaryCtxRetain", byref(context), handle)
            self._contexts[device] = context
        return self._contexts[device]

    def chip(self, device: int) -> str:
        """What kernels are compiled for on a device.

        Raises:
            DeviceError: if there is no such device, or it is too old.
        """
        if device in self._chips:
            return self._chips[device]
        handle, major, minor = c_int(), c_int(), c_int()
        self._call("cuDeviceGet", byref(handle), device)
        self._call("cuDeviceGetAttribute", byref(major), _MAJOR, handle)
        self._call("cuDeviceGetAttribute", byref(minor), _MINOR, handle)
        found = chip_of(major.value, minor.value)
        if found is None:
            raise DeviceError(
                f"device {device}: expected one of compute capability 7.0 or newer, "
                f"got {major.value}.{minor.value}"
            )
        self._chips[device] = found
        return found

    def enter(self, context: c_void_p) -> None:
        """Make a context the current one of this thread, until `leave`."""
        self.check("cuCtxPushCurrent", self._push(context))

    def leave(self) -> None:
        """Go back to the context before `enter`."""
        self._pop(self._popped)

    def current_device(self) -> int:
        """The device of the context that this thread has; 0 if it has none."""
        device = c_int()
        if self._functions["cuCtxGetDevice"](byref(device)):
            return 0
        return device.value

    # Code.

    def load(self, code: bytes) -> c_void_p:
        """Load PTX or a cubin into the current context.

        Raises:
            DeviceError: if the driver does not take it, with what its compiler says.
        """
        module, log = c_void_p(), ctypes.create_string_buffer(_LOG_BYTES)
        options = (c_int * 2)(_ERROR_LOG, _ERROR_LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
        error = self._functions["cuModuleLoadDataEx"](
            byref(module), code + b"\0", 2, options, values
        )
        if error:
            said = " ".join(log.value.decode(errors="replace").split())
            raise DeviceError(
                f"cuModuleLoadData: {self._message(error)}{': ' if said else ''}{said}"
            )
        return module

    def function(self, module: c_void_p, name: str) -> c_void_p:
        """A kernel of a module.

        Raises:
            DeviceError: if there is none of that name.
        """
        function = c_void_p()
        self._call("cuModuleGetFunction", byref(function), module, name.encode())
        return function

    def allow_shared(self, function: c_void_p, size: int) -> None:
        """Let a kernel have so many bytes of dynamic shared memory.

        Raises:
            DeviceError: if the device has not as much.
        """
        self._call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED, size)

    # Tensor maps, for the copy engine.

    def tensor_map(
        self,
        dtype: str,
        address: int,
        extents: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
    ) -> EncodedMap:
        """Make the tensor map of an array in device memory; needs no context.

        Boxes are swizzled in lines of 128 bytes, and zero where the array has no
        elements.

        Args:
            dtype: the array's dtype.
            address: where the array is.
            extents: its extents, the last axis last.
            strides: the distances in bytes along all axes but the last one.
            box: the extents of what a copy moves.

        Raises:
            DeviceError: if the driver does not take it, or is too old.
        """
        found, rank = EncodedMap(), len(extents)
        if any(extent < 1 for extent in extents):
            return found  # Of nothing nothing is copied; the driver takes no zeros.
        encode = self._functions["cuTensorMapEncodeTiled"]
        if encode is None:
            raise DeviceError(
                "the CUDA driver is too old: no cuTensorMapEncodeTiled, which kernels "
                "with tma need"
            )
        error = encode(
            found.address,
            MAP_TYPES[dtype],
            rank,
            address,
            (_WORD * rank)(*reversed(extents)),
            (_WORD * rank)(*reversed(strides)),
            (c_uint * rank)(*reversed(box)),
            (c_uint * rank)(*(1,) * rank),
            _NOT_INTERLEAVED,
            _SWIZZLE_128,
            _L2_128,
            _ZEROS,
        )
        if error:
            raise DeviceError(
                f"cuTensorMapEncodeTiled: {self._message(error)} (an array of extents "
                f"{list(extents)} and strides {list(strides)} at {address:#x}, boxes "
                f"of {list(box)})"
            )
        return found

    # Memory, in the current context.

    def allocate(self, size: int) -> int:
        """Allocate device memory; gives its address, 0 for no bytes.

        Raises:
            DeviceError: if there is not as much.
        """
        address = _WORD()
        if size:
            self._call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        """Free device memory."""
        if address:
            self._call("cuMemFree_v2", address)

    def allocate_on_host(self, size: int) -> tuple[int, int]:
        """Allocate memory of the host, zeros, that all devices can read and write.

        It is not freed again.

        Returns:
            Its address for the host, and for the current context's device.

        Raises:
            DeviceError: if there is not as much.
        """
        host, address = c_void_p(), _WORD()
        self._call("cuMemHostAlloc", byref(host), size, _PORTABLE | _MAPPED)
        ctypes.memset(host, 0, size)
        self._call("cuMemHostGetDevicePointer_v2", byref(address), host, 0)
        return host.value or 0, address.value

    def write(self, address: int, source: int, size: int) -> None:
        """Copy host memory to device memory."""
        if size:
            self._call("cuMemcpyHtoD_v2", address, source, size)

    def read(self, target: int, address: int, size: int) -> None:
        """Copy device memory to host memory, once all work before is done."""
        if size:
            self._call("cuMemcpyDtoH_v2", target, address, size)


def _function(
    library: ctypes.CDLL | Mapping[str, int], name: str, types: tuple[Any, ...]
) -> Any:
    if isinstance(library, ctypes.CDLL):
        try:
            found = getattr(library, name)
        except AttributeError:
            if name in _LATER:
                return None
            raise DeviceError(f"the CUDA driver is too old: no {name}") from None
        found.argtypes, found.restype = types, c_int
        return found
    return ctypes.CFUNCTYPE(c_int, *types)(library[name])


@cache
def _loaded() -> Driver:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(
            f"no CUDA driver on this machine: {error} (kernels also run on the CPU, "
            f"with target='cpu', or with emulate=True)"
        ) from None
    return Driver(library)


def driver() -> Driver:
    """The driver of this machine.

    Raises:
        DeviceError: if there is none, or it cannot be initialised.
    """
    return _loaded()


def chip_here(device: int | None = None) -> str:
    """The chip of a device, of the current one if none is given.

    Without a driver it is that of `Options`.

    Raises:
        DeviceError: if there is no such device, or it is too old.
    """
    try:
        found = driver()
    except DeviceError:
        return CHIP
    return found.chip(found.current_device() if device is None else device)
