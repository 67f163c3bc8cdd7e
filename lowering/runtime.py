"""The threads that kernels run on: OpenMP's runtime, found in the process or near it.

Compiled code needs two functions of it, `GOMP_parallel` and `omp_get_max_threads`,
which libgomp, LLVM's libomp and Intel's libiomp5 all have. Which library is taken
matters only in that a process should have one pool of threads: that of PyTorch, if it
is there.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from moa_dialect.errors import OptionError

PARALLEL = "GOMP_parallel"
MAX_THREADS = "omp_get_max_threads"
SETTING = "moa_num_threads"

_setting = ctypes.c_int32(0)
"""The symbol `moa_num_threads` of compiled code; 0 leaves the number to OpenMP."""

_SYSTEM = ("libgomp.so.1", "libomp.so", "libomp.so.5", "libomp.dylib", "libiomp5.so")


def _loaded() -> Iterator[str]:
    """OpenMP runtimes that are in the process already, that of torch first."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return
    found = set(re.findall(r"/\S*/lib[gi]?omp\S*\.so\S*", maps))
    yield from sorted(found, key=lambda path: ("/torch/" not in path, path))


def _candidates() -> Iterator[str | None]:
    """Where OpenMP may be, best first; None stands for the symbols of the process."""
    yield None
    yield from _loaded()
    # That torch may be imported later: it would bring its own.
    spec = None
    if "torch" not in sys.modules:
        with suppress(ImportError):  # from who keeps it out
            spec = find_spec("torch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from map(str, sorted(Path(folder, "lib").glob("lib[gi]*omp*.so*")))
    yield from _SYSTEM
    yield str(Path(sys.prefix, "lib", "libiomp5.so"))


@cache
def openmp() -> ctypes.CDLL | None:
    """OpenMP's runtime, or None: then kernels run in the thread that calls them."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(library, PARALLEL) and hasattr(library, MAX_THREADS):
            return library
    return None


def symbols() -> dict[str, int]:
    """The addresses of what `moa-outline-tasks` declares.

    Without OpenMP the number of threads is set to 1, and the functions are not called.
    """
    library = openmp()
    if library is None:
        _setting.value = 1
        library = ctypes.CDLL(None)
        functions = (library.abort, library.abort)
    else:
        functions = (library[PARALLEL], library[MAX_THREADS])
    addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions]
    return {
        PARALLEL: addresses[0],
        MAX_THREADS: addresses[1],
        SETTING: ctypes.addressof(_setting),
    }


_is_forked = False


def set_num_threads(number: int | None) -> None:
    """Set how many threads kernels use, in the whole process from now on.

    None, as at the start, leaves it to OpenMP: `OMP_NUM_THREADS`, or what
    `torch.set_num_threads` says for the calling thread. Results do not depend on it.
    Without a runtime of OpenMP, and in a process that was forked from one whose kernels
    used threads, the number is 1 whatever is set.

    Raises:
        OptionError: for anything but None and integers from 1 to 1024.
    """
    if number is None:
        number = 0
    elif type(number) is not int or not 1 <= number <= 1024:
        raise OptionError(
            f"set_num_threads: expected None or an integer from 1 to 1024, "
            f"got {number!r}"
        )
    if openmp() is None or _is_forked:
        number = 1
    _setting.value = number


def get_num_threads() -> int:
    """How many threads a kernel uses that this thread calls."""
    library = openmp()
    if library is None:
        return 1
    return _setting.value or int(library[MAX_THREADS]())


def _after_fork() -> None:
    """Use one thread: those of the parent are gone, and OpenMP would wait for them."""
    global _is_forked
    if openmp.cache_info().currsize or "torch" in sys.modules:
        _is_forked = True
        _setting.value = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
