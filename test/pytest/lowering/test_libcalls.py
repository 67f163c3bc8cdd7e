"""Two copies of LLVM in a process: each reads its own names of library functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moa_dialect.lowering import libcalls

PROGRAM = """
from torch_mlir import ir
import numpy as np
import moa_dialect as moa
print(moa.jit(lambda x: moa.sin(x) + 0.5)(np.zeros((5, 33), np.float32))[0, 0])
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    pytest.importorskip("torch_mlir")
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"MOA_CACHE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_code_that_calls_a_library_is_loaded_beside_another_llvm():
    result = run(PROGRAM)
    assert result.stdout == "0.5\n", result.stderr


AFTER_CONVERSIONS = """
import ml_dtypes, numpy as np
import moa_dialect as moa
from moa_dialect.lowering import loader
from moa_dialect.tools.compare_linalg import UpstreamModule
kernel = moa.jit(lambda x: moa.exp(x) + 1.0, target="cuda", emulate=True)
print(kernel(np.zeros((2, 3), ml_dtypes.bfloat16))[0, 0])
print(kernel(np.zeros((2, 3), np.float16))[0, 0], bool(loader.conversions()))
UpstreamModule("func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {return %x : tensor<2xf32>}")
from torch_mlir import ir
"""


def test_another_llvm_is_loaded_after_code_that_converts():
    result = run(AFTER_CONVERSIONS)
    assert (result.returncode, result.stdout) == (0, "2\n2.0 True\n"), result.stderr


def test_words_and_where_they_are():
    import ctypes

    text = ctypes.create_string_buffer(b"\0sin\0cos\0")
    address = ctypes.addressof(text)

    def are_names(starts: list[int], lengths: list[int]) -> bool:
        return libcalls.are_names(
            address, 9, np.array(starts, np.uint16), np.array(lengths, np.uint8)
        )

    assert are_names([0, 1, 5], [0, 3, 3])
    assert not are_names([0, 1, 4], [0, 3, 3])
    assert not are_names([0, 1, 7], [0, 3, 9])


def test_a_file_that_is_no_library(tmp_path: Path):
    file = tmp_path / "a.so"
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected an ELF file of 64 bits"):
        libcalls.symbols_of(file, ["a"])
