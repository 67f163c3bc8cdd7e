"""LLVM's names of library functions, where another copy of LLVM has been loaded too.

A process may hold several copies of LLVM: torch-mlir's wheel brings one. The dynamic
linker lets all of them share the objects whose symbols are marked unique, and the first
copy that is loaded gives their content. One of these objects is the text with the names
of functions such as `sinf`, which differs between versions: another copy's text at this
copy's places are names that nobody knows, and code that calls one cannot be loaded.
Here the table of this copy is made to point to its own text again.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CLASS = "_ZN4llvm5RTLIB19RuntimeLibcallsInfo"
_TABLE = f"{_CLASS}27RuntimeLibcallImplNameTableE"
_STARTS = f"{_CLASS}29RuntimeLibcallNameOffsetTableE"
_LENGTHS = f"{_CLASS}27RuntimeLibcallNameSizeTableE"
_TEXT = f"{_CLASS}34RuntimeLibcallImplNameTableStorageE"

_ELF = b"\x7fELF\x02\x01"
"""How a file of 64 bits in little-endian order begins."""

_DYNAMIC_SYMBOLS = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = np.dtype(
    [
        *(("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2")),
        *(("value", "<u8"), ("size", "<u8")),
    ]
)
_READ, _WRITE = 1, 2


def keep_own_names(library: ctypes.CDLL, path: Path) -> bool:
    """Let a copy of LLVM read its own names of library functions.

    Args:
        library: the copy, loaded.
        path: its file.

    Returns:
        Whether something had to be done; False too where a copy has no such table.
    """
    try:
        # Where the text is, and how long it is.
        table = (ctypes.c_uint64 * 2).in_dll(library, _TABLE)
        anchor = ctypes.addressof(ctypes.c_uint8.in_dll(library, _LENGTHS))
        symbols = symbols_of(path, (_STARTS, _LENGTHS, _TEXT))
        count = symbols[_LENGTHS][1]
        lengths = np.array((ctypes.c_uint8 * count).in_dll(library, _LENGTHS))
        starts = np.array((ctypes.c_uint16 * count).in_dll(library, _STARTS))
        place, size = symbols[_TEXT]
    except (KeyError, ValueError, OSError):
        return False
    own = anchor - symbols[_LENGTHS][0] + place
    if table[0] == own or are_names(table[0], size, starts, lengths):
        return False
    return are_names(own, size, starts, lengths) and _write(table, own)


def are_names(
    address: int, size: int, starts: NDArray[np.uint16], lengths: NDArray[np.uint8]
) -> bool:
    """Whether a text has the end of a word after each of these words."""
    text = np.frombuffer(ctypes.string_at(address, size), np.uint8)
    ends = starts.astype(np.int64) + lengths
    return bool(ends.max(initial=0) < size and not text[ends].any())


def symbols_of(path: Path, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """Values and sizes of some dynamic symbols of a library.

    Raises:
        KeyError: if it has not all of them.
        ValueError: if it is not a library of the kind that this reads.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if data[: len(_ELF)] != _ELF:
            raise ValueError(f"{path}: expected an ELF file of 64 bits")
        (table,) = struct.unpack_from("<Q", data, 0x28)
        width, count = struct.unpack_from("<HH", data, 0x3A)
        sections: list[tuple[int, ...]] = [
            _SECTION.unpack_from(data, table + number * width)
            for number in range(count)
        ]
        found: dict[str, tuple[int, int]] = {}
        for _, kind, _, _, start, size, link, *_ in sections:
            if kind != _DYNAMIC_SYMBOLS:
                continue
            _, _, _, _, words, length, *_ = sections[link]
            text = data[words : words + length]
            entries = np.frombuffer(data[start : start + size], _SYMBOL)
            for name in names:
                at = text.find(b"\0" + name.encode() + b"\0") + 1
                (places,) = np.nonzero(entries["name"] == at)
                if at and len(places):
                    entry = entries[places[0]]
                    found[name] = int(entry["value"]), int(entry["size"])
        if missing := set(names) - found.keys():
            raise KeyError(*missing)
        return found


def _write(table: ctypes.Array[ctypes.c_uint64], own: int) -> bool:
    """Write the address of the text into a table that is only to be read."""
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    address = ctypes.addressof(table)
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    length = address + ctypes.sizeof(table) - first
    if protect(first, length, _READ | _WRITE):
        return False
    table[0] = own
    protect(first, length, _READ)
    return True
