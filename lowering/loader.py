"""Object files in memory: made callable by LLVM's Orc, without a linker."""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from moa_dialect.errors import CompileError
from moa_dialect.lowering import host, runtime

Entry = Callable[[int], None]
"""A compiled function of the address of a frame."""

_EXPORTED = 1
_LOCK = Lock()


class _Symbol(Structure):
    """`LLVMOrcCSymbolMapPair`: a name, an address and two bytes of flags."""

    _fields_ = (
        ("name", c_void_p),
        ("address", ctypes.c_uint64),
        ("generic_flags", ctypes.c_uint8),
        ("target_flags", ctypes.c_uint8),
    )


def _check(error: Any) -> None:
    """Raise what LLVM reports, if it does."""
    if error:
        message = host.function("LLVMGetErrorMessage", c_char_p, c_void_p)(error)
        raise CompileError(f"LLVM cannot load the kernel: {message.decode()}")


def _float16_libraries() -> list[str]:
    """Upstream's library of conversions of f16 and bf16 that processors do not have."""
    spec = find_spec("mlir")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return [
        str(file)
        for folder in folders
        for file in (Path(folder) / "lib").glob("libmlir_float16_utils.*")
        if file.suffix in (".so", ".dylib")
    ]


class _Process:
    """The code that is loaded: one dynamic library, to which objects are added.

    Nothing is unloaded. Objects have no symbols in common.
    """

    def __init__(self) -> None:
        host.native_target()
        self._jit = c_void_p()
        create = host.function(
            "LLVMOrcCreateLLJIT", c_void_p, POINTER(c_void_p), c_void_p
        )
        _check(create(byref(self._jit), None))
        main = host.function("LLVMOrcLLJITGetMainJITDylib", c_void_p, c_void_p)
        self._library = c_void_p(main(self._jit))
        prefix = host.function("LLVMOrcLLJITGetGlobalPrefix", c_char, c_void_p)
        self._prefix = prefix(self._jit)
        self._search("LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess")
        self._has_threads = self._has_halves = False

    def _search(self, creator: str, *path: bytes) -> None:
        """Look up what objects do not define in the process, or in a library."""
        generator = c_void_p()
        kinds = [POINTER(c_void_p), *(c_char_p for _ in path), c_char]
        create = host.function(creator, c_void_p, *kinds, c_void_p, c_void_p)
        _check(create(byref(generator), *path, self._prefix, None, None))
        add = host.function("LLVMOrcJITDylibAddGenerator", None, c_void_p, c_void_p)
        add(self._library, generator)

    def _define(self, symbols: dict[str, int]) -> None:
        """Give names addresses."""
        intern = host.function(
            "LLVMOrcLLJITMangleAndIntern", c_void_p, c_void_p, c_char_p
        )
        pairs = (_Symbol * len(symbols))(
            *(
                _Symbol(intern(self._jit, name.encode()), address, _EXPORTED, 0)
                for name, address in symbols.items()
            )
        )
        unit = host.function(
            "LLVMOrcAbsoluteSymbols", c_void_p, POINTER(_Symbol), c_size_t
        )(pairs, len(symbols))
        define = host.function("LLVMOrcJITDylibDefine", c_void_p, c_void_p, c_void_p)
        _check(define(self._library, unit))

    def add(self, code: bytes) -> None:
        """Add an object file."""
        # A function that has no tasks may need some of them only.
        if not self._has_threads and any(name in code for name in _THREADS):
            self._define(runtime.symbols())
            self._has_threads = True
        if not self._has_halves and any(name in code for name in _CONVERSIONS):
            for library in _float16_libraries():
                creator = "LLVMOrcCreateDynamicLibrarySearchGeneratorForPath"
                self._search(creator, library.encode())
            self._has_halves = True
        copy = host.function(
            "LLVMCreateMemoryBufferWithMemoryRangeCopy", c_void_p, c_char_p, c_size_t,
            c_char_p,
        )  # fmt: skip
        add = host.function(
            "LLVMOrcLLJITAddObjectFile", c_void_p, c_void_p, c_void_p, c_void_p
        )
        _check(add(self._jit, self._library, copy(code, len(code), b"moa")))

    def entry(self, symbol: str) -> Entry:
        """A function of the objects."""
        address = ctypes.c_uint64()
        look_up = host.function(
            "LLVMOrcLLJITLookup", c_void_p, c_void_p, POINTER(ctypes.c_uint64), c_char_p
        )
        _check(look_up(self._jit, byref(address), symbol.encode()))
        return ctypes.CFUNCTYPE(None, c_void_p)(address.value)


_CONVERSIONS = (b"sfhf2", b"hfsf2", b"dfhf2", b"hfdf2", b"sfbf2", b"dfbf2", b"bfsf2")
"""Ends of the names of the functions that convert from and to f16 and bf16."""

_THREADS = tuple(
    name.encode() for name in (runtime.PARALLEL, runtime.MAX_THREADS, runtime.SETTING)
)
"""The names of what `moa-outline-tasks` declares."""

_process = cache(_Process)

_ENTRIES: dict[str, Entry] = {}


def loaded(code: bytes, symbols: Sequence[str]) -> list[Entry]:
    """Load an object file; gives the functions of some names.

    A name stands for one function: what is loaded already is not loaded again.

    Raises:
        CompileError: if LLVM does not take it, or a symbol is missing.
    """
    with _LOCK:
        if not all(symbol in _ENTRIES for symbol in symbols):
            process = _process()
            process.add(code)
            _ENTRIES.update((symbol, process.entry(symbol)) for symbol in symbols)
        return [_ENTRIES[symbol] for symbol in symbols]
