"""The same generator makes code for AVX2 and for AArch64: from the machine alone.

Code for AVX2 runs where the machine has it; that for AArch64 is only looked at.
"""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, VectorType
from xdsl.utils.hints import isa

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import OptionError
from moa_dialect.lowering import host
from moa_dialect.lowering.compiler import compilation_of, llvm_ir_text
from moa_dialect.lowering.engine import load
from moa_dialect.lowering.expand_math import ExpandMathPass
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.lift import LiftPass
from moa_dialect.passes.machine import MACHINES

needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="this is of x86 alone"
)

PROGRAMS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "attention": (lambda q, k, v: moa.attention(q, k, v), [(2, 96, 64)] * 3),
    "causal": (
        lambda q, k, v: moa.attention(q, k, v, is_causal=True),
        [(2, 96, 64)] * 3,
    ),
    "softmax": (library.softmax, [(8, 515)]),
    "layernorm": (library.layernorm, [(8, 515)]),
    "product": (lambda a, b: moa.inner("add", "mul", a, b), [(96, 130), (130, 96)]),
}
CONTRACTIONS = ("attention", "causal", "product")
MULTIPLY = {"avx2": "vfmadd", "neon": "fmla"}
WIDE = {"avx2": "ymm", "neon": r"v\d+\.4s"}
SPILL = {
    "avx2": r"\tvmov\w+\t%ymm\d+, -?\d*\(%r[sb]p\)",
    "neon": r"\tst[rp]\tq\d+.*\[sp",
}


def arrays_of(name: str) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(s).astype(np.float32) for s in PROGRAMS[name][1]]


@cache
def lowered(name: str, machine: str) -> ModuleOp:
    """A program at the target stage, for a machine."""
    function, _ = PROGRAMS[name]
    module = moa.jit(function).lower(*arrays_of(name)).module("fused")
    LiftPass(machine=machine).apply(Context(), module)
    for pass_ in FUSING["target"][1:]:
        if isinstance(pass_, ExpandMathPass):
            pass_ = replace(pass_, target="generic")
        pass_.apply(Context(), module)
    return module


@cache
def assembly(name: str, machine: str) -> str:
    text = llvm_ir_text(lowered(name, machine).clone(), for_callers=False)
    assert "llvm.x86" not in text
    return host.assembly(text, host.PROCESSORS[machine])


def innermost_loops(text: str) -> Iterator[list[str]]:
    """Blocks of an assembly that end with a jump to their own beginning."""
    block, name = list[str](), ""
    for line in text.splitlines():
        if (label := re.match(r"(\.L\w+):", line)) is not None:
            block, name = [], label[1]
            continue
        block.append(line)
        if name and re.match(rf"\tj\w+\t{re.escape(name)}$|\tb\.\w+\t{name}$", line):
            yield block
            name = ""


def multiplications(block: list[str], machine: str) -> list[str]:
    return [line for line in block if re.match(rf"\t{MULTIPLY[machine]}", line)]


@pytest.mark.parametrize("machine", ["avx2", "neon"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_vectors_are_as_wide_as_registers(name: str, machine: str) -> None:
    lanes = MACHINES[machine].vector_bytes // 4
    shapes = {
        result.type.get_shape()
        for op in lowered(name, machine).walk()
        for result in op.results
        if isa(result.type, VectorType)
    }
    assert (lanes,) in shapes
    assert all(size <= lanes for (size,) in shapes)


@pytest.mark.parametrize("machine", ["avx2", "neon"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_loops_have_vectors_and_no_spills(name: str, machine: str) -> None:
    """What is multiplied in loops is vectors, and stays in registers."""
    loops = [
        (block, found)
        for block in innermost_loops(assembly(name, machine))
        if (found := multiplications(block, machine))
    ]
    assert loops
    wide = re.compile(WIDE[machine])
    lines = [line for _, found in loops for line in found]
    assert sum(bool(wide.search(line)) for line in lines) >= 0.8 * len(lines)
    longest = max(loops, key=lambda loop: len(loop[1]))[0]
    spills = [line for line in longest if re.match(SPILL[machine], line)]
    most = len(multiplications(longest, machine))
    if name in CONTRACTIONS:  # Their accumulators are what registers are counted for.
        most //= 8
    assert len(spills) <= most, spills


@pytest.mark.skipif("+avx2" not in host.features(), reason="the machine has no AVX2")
@pytest.mark.parametrize("name", PROGRAMS)
def test_code_for_avx2_gives_what_the_interpreter_gives(name: str) -> None:
    module = lowered(name, "avx2").clone()
    kernel = load(compilation_of(module, None, host.PROCESSORS["avx2"]))
    arrays = arrays_of(name)
    expected = moa.interpret(PROGRAMS[name][0], *arrays)
    np.testing.assert_allclose(kernel(*arrays), expected, 1e-5, 1e-5)
    assert "zmm" not in assembly(name, "avx2")


@pytest.mark.parametrize("name", PROGRAMS)
def test_code_for_aarch64_has_no_scalar_multiplications_in_loops(name: str) -> None:
    text = assembly(name, "neon")
    assert re.search(r"\tfmla\tv\d+\.4s", text)
    for block in innermost_loops(text):
        scalar = [x for x in block if re.match(r"\tf(madd|mul)\ts\d", x)]
        assert len(scalar) <= len(multiplications(block, "neon"))


@pytest.mark.parametrize("machine", ["avx2", "avx512", "avx512bf16", "neon"])
def test_rounding_to_bf16_is_no_call(machine: str) -> None:
    """Also where there is no instruction for it."""
    spec = moa.ArraySpec((16, 64), ml_dtypes.bfloat16)
    module = moa.jit(library.softmax).lower(spec).module("fused")
    LiftPass(machine=machine).apply(Context(), module)
    for pass_ in FUSING["target"][1:]:
        if isinstance(pass_, ExpandMathPass):
            pass_ = replace(pass_, target="generic")
        pass_.apply(Context(), module)
    processor = host.PROCESSORS[machine]
    text = host.assembly(llvm_ir_text(module, False, processor), processor)
    assert "bf2" not in text
    assert ("vcvtneps2bf16" in text) == (machine == "avx512bf16")


@needs_x86
def test_rounding_to_bf16_on_the_bits_is_to_the_nearest() -> None:
    """Ties to even, infinities and NaN; subnormal numbers as well."""
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint64)
    x = bits.astype(np.uint32).view(np.float32)
    x[:6] = [1.00390625, 1.01171875, np.inf, -np.inf, np.nan, 1e-39]
    module = moa.jit(lambda x: moa.cast(x, "bf16")).lower(x).module("fused")
    LiftPass(machine="avx2").apply(Context(), module)
    for pass_ in FUSING["target"][1:]:
        pass_.apply(Context(), module)
    kernel = load(compilation_of(module, None, host.PROCESSORS["avx2"]))
    rounded = np.asarray(kernel(x))
    with np.errstate(invalid="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    is_nan = np.isnan(x)
    np.testing.assert_array_equal(np.isnan(rounded.astype(np.float32)), is_nan)
    given, wanted = rounded.view(np.uint16), expected.view(np.uint16)
    np.testing.assert_array_equal(given[~is_nan], wanted[~is_nan])


# The CPU that is asked for


@pytest.mark.parametrize(
    ("cpu", "kind"),
    [
        ("x86-64", "avx2"),
        ("x86-64-v3", "avx2"),
        ("x86-64-v4", "avx512"),
        ("skylake-avx512", "avx512"),
        ("znver4", "avx512bf16"),
        ("sapphirerapids", "avx512bf16"),
    ],
)
def test_the_kind_of_a_cpu_is_seen_from_code_for_it(cpu: str, kind: str) -> None:
    assert host.kind_of(replace(host.PROCESSORS["avx2"], cpu=cpu)) == kind


def test_the_kind_of_an_aarch64_processor() -> None:
    assert host.kind_of(host.PROCESSORS["neon"]) == "neon"


@needs_x86
@pytest.mark.parametrize("name", ["x86-64-v5", "i386", "native", "\u00e9"])
def test_a_cpu_that_llvm_does_not_know_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM itself would end the process."""
    monkeypatch.setenv(host.SETTING, name)
    monkeypatch.setattr(host, "cpu", host.cpu.__wrapped__)
    with pytest.raises(OptionError, match=f"MOA_CPU: expected a CPU .* got '{name}'"):
        host.cpu()


@needs_x86
def test_schedules_are_for_the_cpu_that_is_asked_for() -> None:
    """There is no instruction for pairs of bf16 on it, whatever this machine has."""
    code = """
        import ml_dtypes, numpy, moa_dialect as moa
        from moa_dialect.passes.machine import host_machine
        a = numpy.ones((20, 40), ml_dtypes.bfloat16)
        product = moa.jit(lambda a, b: moa.inner("add", "mul", a, moa.transpose(b)))
        print(host_machine().kind, float(product(a, a).astype(float).max()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "MOA_CPU": "x86-64-v3", "MOA_CACHE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("avx2 40.0\n", 0), done.stderr
