"""Python's cyclic garbage collector, and why a compilation goes without it.

Operations, blocks and values of IR refer to each other, so all of a program's IR is
looked through at each collection while it grows, and most of it is still in use. That
is a fifth of the time of a compilation, more in a process that holds a lot else.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Generator[None]:
    """Without the collector, unless it is off anyway; what is garbage is found after.

    It is off for all threads. Of several that are in here, the first to have come turns
    it on again when it leaves, which costs the others time and nothing else.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
