"""What the machine can do: multiply-adds, and reading and copying of memory.

Small MLIR modules of our own, compiled by the upstream engine: unrolled loops of
`vector.fma` (and `x86vector.avx512.dot` for bf16), of vector loads, and of loads and
stores. A thread each, in one process: a call releases the interpreter lock.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from moa_dialect.lowering import host, upstream
from moa_dialect.tools.bench.cases import DTYPES, Array

Peaks: TypeAlias = dict[str, float]
Kernel: TypeAlias = Callable[[Array], None]

ACCUMULATORS = 24
"""Independent chains: more than latency times throughput of any current core."""

UNROLLED = 16
"""Vectors that an iteration of a loop over memory reads."""

TO_LLVM = (
    "builtin.module(convert-vector-to-scf,convert-scf-to-cf,"
    "convert-vector-to-llvm{{{options}}},expand-strided-metadata,lower-affine,"
    "convert-arith-to-llvm,finalize-memref-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts)"
)


def vector_bytes(features: str) -> int:
    """How wide the registers are, by the features of the CPU as LLVM names them."""
    names = features.split(",")
    if "+avx512f" in names:
        return 64
    return 32 if "+avx" in names else 16


def has_bf16_dot(features: str) -> bool:
    """Whether the CPU multiplies pairs of bf16 and adds in f32, 512 bits at a time."""
    return "+avx512bf16" in features.split(",")


def compile_kernel(text: str) -> Kernel:
    """A function `@main` of one array of rank 1, compiled.

    Raises:
        CompileError: if upstream does not take the text.
    """
    from mlir.execution_engine import ExecutionEngine
    from mlir.runtime import get_ranked_memref_descriptor

    module = upstream.parse(text, upstream.new_context())
    options = "enable-x86vector=true" if "x86vector" in text else ""
    upstream.run_pipeline(module, TO_LLVM.format(options=options))
    engine = ExecutionEngine(module, opt_level=3)

    def call(array: Array) -> None:
        descriptor = ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(array)))
        engine.invoke("main", descriptor)

    return call


@dataclass(frozen=True)
class Multiplier:
    """A loop of multiply-adds, as MLIR, and how many operations a call is.

    Every chain of additions goes from one iteration to the next in a register; the
    factors are read, so that nothing is known of them.
    """

    lanes: int
    element: str
    factor: str
    operation: str
    iterations: int

    @staticmethod
    def of(dtype: str, features: str, iterations: int) -> Multiplier | None:
        """The one for a dtype, or None if the CPU has none."""
        if dtype == "bf16":
            if not has_bf16_dot(features):
                return None
            dot = (
                "x86vector.avx512.dot {accumulator}, %x, %y "
                ": vector<32xbf16> -> vector<16xf32>"
            )
            return Multiplier(16, "f32", "vector<32xbf16>", dot, iterations)
        lanes = vector_bytes(features) // DTYPES[dtype].itemsize
        type_ = f"vector<{lanes}x{dtype}>"
        fma = f"vector.fma %x, %y, {{accumulator}} : {type_}"
        return Multiplier(lanes, dtype, type_, fma, iterations)

    @property
    def flops(self) -> float:
        """The operations of one call."""
        pairs = 2 if "bf16" in self.factor else 1
        return 2.0 * pairs * self.lanes * ACCUMULATORS * self.iterations

    def text(self) -> str:
        """The module. Its array has two vectors, and the sum is written to it."""
        chains = range(ACCUMULATORS)
        vector = f"vector<{self.lanes}x{self.element}>"
        types = ", ".join([vector] * ACCUMULATORS)
        initial = ", ".join(f"%a{k} = %z{k}" for k in chains)
        starts = "\n".join(  # different, lest the chains be found equal
            f"    %z{k} = arith.constant dense<{k}.0> : {vector}" for k in chains
        )
        body = "\n".join(
            f"      %n{k} = {self.operation.format(accumulator=f'%a{k}')}"
            for k in chains
        )
        new = ", ".join(f"%n{k}" for k in chains)
        sums = "\n".join(
            f"    %s{k + 1} = arith.addf %s{k}, %r#{k} : {vector}" for k in chains
        )
        array = f"memref<?x{self.element}>"
        bitcast = (
            f"vector.bitcast %{{0}}f : {vector} to {self.factor}"
            if self.factor != vector
            else f"arith.addf %{{0}}f, %zero : {vector}"
        )
        return f"""\
func.func @main(%m: {array}) attributes {{llvm.emit_c_interface}} {{
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %lanes = arith.constant {self.lanes} : index
    %count = arith.constant {self.iterations} : index
    %zero = arith.constant dense<0.0> : {vector}
{starts}
    %xf = vector.load %m[%c0] : {array}, {vector}
    %yf = vector.load %m[%lanes] : {array}, {vector}
    %x = {bitcast.format("x")}
    %y = {bitcast.format("y")}
    %r:{ACCUMULATORS} = scf.for %i = %c0 to %count step %c1
        iter_args({initial}) -> ({types}) {{
{body}
      scf.yield {new} : {types}
    }}
    %s0 = arith.addf %zero, %zero : {vector}
{sums}
    vector.store %s{ACCUMULATORS}, %m[%c0] : {array}, {vector}
    func.return
}}
"""


def stream_text(
    lanes: int, is_copy: bool, nontemporal: bool = False, times: int = 1
) -> str:
    """A module that reads its array once, or copies its second half to the first.

    Args:
        lanes: elements of f32 in a vector; an iteration takes `UNROLLED` vectors, and
            the extent has to be a multiple of that (twice that to copy).
        is_copy: copy instead of reading only.
        nontemporal: store past the caches.
        times: how often the array is read in a call.
    """
    vector, step = f"vector<{lanes}xi32>", lanes * UNROLLED
    chains = range(0 if is_copy else 8)
    hint = " {nontemporal = true}" if nontemporal else ""
    lines: list[str] = []
    latest = {k: f"%a{k}" for k in chains}
    for k in range(UNROLLED):
        lines.append(f"%o{k} = arith.constant {k * lanes} : index")
        lines.append(f"%p{k} = arith.addi %i, %o{k} : index")
        if is_copy:
            lines.append(f"%q{k} = arith.addi %p{k}, %half : index")
            lines.append(f"%v{k} = vector.load %m[%q{k}] : memref<?xi32>, {vector}")
            lines.append(
                f"vector.store %v{k}, %m[%p{k}]{hint} : memref<?xi32>, {vector}"
            )
        else:
            chain = k % len(chains)
            lines.append(f"%v{k} = vector.load %m[%p{k}] : memref<?xi32>, {vector}")
            lines.append(f"%n{k} = arith.xori {latest[chain]}, %v{k} : {vector}")
            latest[chain] = f"%n{k}"
    body = "\n".join(f"      {line}" for line in lines)
    end = "%half" if is_copy else "%n"
    if is_copy:
        return f"""\
func.func @main(%m: memref<?xi32>) attributes {{llvm.emit_c_interface}} {{
    %c0 = arith.constant 0 : index
    %c2 = arith.constant 2 : index
    %step = arith.constant {step} : index
    %n = memref.dim %m, %c0 : memref<?xi32>
    %half = arith.divui %n, %c2 : index
    scf.for %i = %c0 to {end} step %step {{
{body}
    }}
    func.return
}}
"""
    types = ", ".join([vector] * len(chains))
    outer = ", ".join(f"%b{k} = %zero" for k in chains)
    initial = ", ".join(f"%a{k} = %b{k}" for k in chains)
    results = ", ".join(f"%once#{k}" for k in chains)
    new = ", ".join(latest[k] for k in chains)
    sums = "\n".join(
        f"    %s{k + 1} = arith.xori %s{k}, %r#{k} : {vector}" for k in chains
    )
    return f"""\
func.func @main(%m: memref<?xi32>) attributes {{llvm.emit_c_interface}} {{
    %c0 = arith.constant 0 : index
    %step = arith.constant {step} : index
    %zero = arith.constant dense<0> : {vector}
    %n = memref.dim %m, %c0 : memref<?xi32>
    %c1 = arith.constant 1 : index
    %times = arith.constant {times} : index
    %r:{len(chains)} = scf.for %t = %c0 to %times step %c1
        iter_args({outer}) -> ({types}) {{
      %once:{len(chains)} = scf.for %i = %c0 to {end} step %step
          iter_args({initial}) -> ({types}) {{
{body}
        scf.yield {new} : {types}
      }}
      scf.yield {results} : {types}
    }}
    %s0 = arith.xori %zero, %zero : {vector}
{sums}
    vector.store %s{len(chains)}, %m[%c0] : memref<?xi32>, {vector}
    func.return
}}
"""


def best_rate(
    kernel: Kernel, parts: Sequence[Array], amount: float, budget_s: float
) -> float:
    """The highest rate of several calls, each one thread for each part.

    Args:
        kernel: what a thread calls.
        parts: the array of each thread.
        amount: what one call of all threads is counted as.
        budget_s: how long to go on, in seconds.

    Returns:
        The amount in a second.
    """
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(kernel, parts))
        best, spent = float("inf"), 0.0
        while spent < budget_s:
            start = time.perf_counter()
            list(pool.map(kernel, parts))
            elapsed = time.perf_counter() - start
            best, spent = min(best, elapsed), spent + elapsed
    return amount / best


def aligned(bytes_: int) -> Array:
    """An array of bytes at the start of a page, written to."""
    raw = np.ones(bytes_ + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + bytes_]


def measure_peaks(
    threads: int, budget_s: float = 0.5, stream_bytes: int = 2**28
) -> Peaks:
    """The peaks with some threads: GFLOP/s of each dtype, GB/s of `read` and `copy`.

    Args:
        threads: how many.
        budget_s: how long each measurement takes, in seconds.
        stream_bytes: the memory that is read or copied, larger than the caches.

    Returns:
        The rates; without bf16 if the CPU cannot multiply it. Of a copy both the bytes
        read and those written are counted, and the better of two ways to store counts.
    """
    features = host.features()
    peaks: Peaks = {}
    for dtype in ("f32", "f64", "bf16"):
        multiplier = Multiplier.of(dtype, features, 1_000_000)
        if multiplier is None:
            continue
        kernel = compile_kernel(multiplier.text())
        # Small factors: the sums stay finite, the factors normal numbers.
        kind: Any = DTYPES["f32" if dtype == "bf16" else dtype]
        parts = [aligned(256).view(kind) for _ in range(threads)]
        for part in parts:
            part.fill(1e-3)
        rate = best_rate(kernel, parts, threads * multiplier.flops, budget_s)
        peaks[dtype] = rate / 1e9
    lanes = vector_bytes(features) // 4
    unit = 2 * lanes * UNROLLED * 4
    each = stream_bytes // threads // unit * unit
    parts = [aligned(each).view(np.int32) for _ in range(threads)]
    for name, nontemporal in (("read", False), ("copy", False), ("copy", True)):
        kernel = compile_kernel(stream_text(lanes, name == "copy", nontemporal))
        rate = best_rate(kernel, parts, float(threads * each), budget_s)
        peaks[name] = max(peaks.get(name, 0.0), rate / 1e9)
    return peaks
