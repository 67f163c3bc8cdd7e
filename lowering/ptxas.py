"""NVIDIA's assembler, where it is installed: machine code, and what it says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from moa_dialect.errors import CompileError


@dataclass(frozen=True)
class Assembled:
    """What the assembler made.

    Attributes:
        cubin: the machine code.
        log: what it says of registers, spills and the like.
    """

    cubin: bytes
    log: str


INSTALLED = Path("/usr/local/cuda")
"""Where NVIDIA's toolkit is, if nothing says so."""


@cache
def find() -> str | None:
    """The assembler.

    That of `$CUDA_HOME`, on the path, in nvidia-cuda-nvcc, or of the toolkit in its
    usual place.
    """
    for name in ("CUDA_ROOT", "CUDA_HOME", "CUDA_PATH"):
        if folder := os.environ.get(name):
            found = shutil.which("ptxas", path=str(Path(folder, "bin")))
            if found:
                return found
    if found := shutil.which("ptxas"):
        return found
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*/bin/ptxas")):
            return str(path)
    return shutil.which("ptxas", path=str(INSTALLED / "bin"))


def assemble(ptx: str, chip: str) -> Assembled:
    """Machine code of PTX for a chip.

    Raises:
        CompileError: if there is no assembler, or it does not take the text.
    """
    path = find()
    if path is None:
        raise CompileError("no ptxas found: the package nvidia-cuda-nvcc has one")
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_text(ptx)
        command = [path, "-v", f"-arch={chip}", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        log = (done.stderr + done.stdout).strip()
        if done.returncode:
            first = log.splitlines()[0] if log else f"exit status {done.returncode}"
            raise CompileError(f"ptxas does not take the kernels: {first}")
        return Assembled(target.read_bytes(), log)
