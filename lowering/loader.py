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


def conversions() -> dict[str, int]:
    """The addresses of upstream's conversions from and to f16 and bf16.

    Processors without an instruction for one call it. LLVM would load the library
    itself with symbols that the whole process sees, and with it those of the LLVM that
    it is linked to: another copy of LLVM that is loaded later, torch-mlir's say, would
    find this one's options in place of its own, register them again and abort. It is
    loaded here with symbols that nobody else sees.
    """
    spec = find_spec("mlir")
    found: dict[str, int] = {}
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in (Path(folder) / "lib").glob("libmlir_float16_utils.*"):
            if file.suffix not in (".so", ".dylib"):
                continue
            library = ctypes.CDLL(str(file))
            for name in _CONVERSIONS:
                if hasattr(library, name):
                    found[name] = ctypes.cast(library[name], c_void_p).value or 0
    return found


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
        self._search_process()
        self._has_threads = self._has_halves = False

    def _search_process(self) -> None:
        """Look up in the process what objects do not define."""
        generator = c_void_p()
        create = host.function(
            "LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess", c_void_p,
            POINTER(c_void_p), c_char, c_void_p, c_void_p,
        )  # fmt: skip
        _check(create(byref(generator), self._prefix, None, None))
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
        if not self._has_halves and any(name.encode() in code for name in _CONVERSIONS):
            if found := conversions():
                self._define(found)
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


_CONVERSIONS = (
    *("__truncsfhf2", "__extendhfsf2", "__truncdfhf2", "__extendhfdf2"),
    *("__truncsfbf2", "__truncdfbf2", "__extendbfsf2"),
)
"""The names of the functions that convert from and to f16 and bf16."""

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
