"""Kernels on a GPU against PyTorch in float64: correctness, and times.

Two steps, since a machine with a GPU may have nothing but PyTorch:

    python -m moa_dialect.tools.gpu_check --export DIR     # compiles, needs no GPU
    python gpu_check.py DIR                                # runs, needs PyTorch alone

The first writes for each case its PTX and its plan, for fixed shapes, in which
arguments stand for their addresses. The second, for which this file is enough, runs the
plans.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Case = tuple[str, Any, list[tuple[int, ...]], str, Any]
"""A name, the program (of the module moa), shapes, the dtype, and what PyTorch does."""

PLACE = 40
"""Addresses in an exported plan are `(1 + number of the argument) << PLACE`."""

TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""The largest difference allowed, relative to the largest magnitude of the result."""


def _attention(**options: Any) -> Callable[[Any], Callable[..., Any]]:
    return lambda moa: lambda q, k, v: moa.attention(q, k, v, **options)


def _sdpa(torch: Any, q: Any, k: Any, v: Any, **options: Any) -> Any:
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(q[None], k[None], v[None], **options)[0]


def _causal(torch: Any, q: Any, k: Any, v: Any) -> Any:
    return _sdpa(torch, q, k, v, is_causal=True)


CASES: list[Case] = [
    (
        "add",
        lambda moa: lambda a, b: a + b,
        [(1000, 70)] * 2,
        "float32",
        lambda torch, a, b: a + b,
    ),
    (
        "softmax",
        lambda moa: moa.library.softmax,
        [(300, 1000)],
        "float32",
        lambda torch, x: torch.softmax(x, -1),
    ),
    (
        "layernorm",
        lambda moa: lambda x: moa.library.layernorm(x),
        [(300, 1000)],
        "float32",
        lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    ),
    (
        "total",
        lambda moa: lambda x: x - moa.reduce("add", moa.ravel(x)),
        [(30, 20)],
        "float64",
        lambda torch, x: x - x.sum(),
    ),
    *(
        (
            f"matmul_{dtype}",
            lambda moa: lambda a, b: a @ b,
            [(200, 96), (96, 150)],
            dtype,
            lambda torch, a, b: a @ b,
        )
        for dtype in ("float32", "float64")
    ),
    *(
        (f"attention_{dtype}", _attention(), [(4, 130, 64)] * 3, dtype, _sdpa)
        for dtype in TOLERANCES
    ),
    *(
        (
            f"causal_{dtype}",
            _attention(is_causal=True),
            [(4, 130, 64)] * 3,
            dtype,
            _causal,
        )
        for dtype in ("float32", "bfloat16")
    ),
]


# On any machine: compile.


def export(
    folder: Path, cases: Sequence[Case], chip: str, features: str = ""
) -> list[dict[str, Any]]:
    """Compile cases and write them to a folder; gives what `cases.json` has."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_exported(folder, case, chip, features) for case in cases]
    (folder / "cases.json").write_text(json.dumps(entries, indent=1))
    return entries


def _exported(folder: Path, case: Case, chip: str, features: str) -> dict[str, Any]:
    import moa_dialect as moa
    from moa_dialect.lowering.engine import compile_for_cuda

    name, program, shapes, dtype, _ = case
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    compiled = moa.jit(program(moa), target="cuda", chip=chip).lower(*specs)
    kernel = compile_for_cuda(compiled.module("moa"), chip=chip, features=features)
    outputs: list[dict[str, Any]] = []
    needed = 0

    def new(number: int, shape: Sequence[int]) -> tuple[None, int]:
        memory = kernel.signature.outputs[number]
        outputs.append({"shape": list(shape), "dtype": memory.dtype})
        return None, (1 + len(shapes) + number) << PLACE

    def scratch(size: int) -> tuple[None, int]:
        nonlocal needed
        needed = size
        return None, (1 + len(shapes) + len(outputs)) << PLACE

    pointers = [(1 + number) << PLACE for number in range(len(shapes))]
    frame, _, _ = kernel.planned(pointers, [], new, scratch)
    launches: list[dict[str, Any]] = []
    for launch, (at, _) in zip(kernel.launches, frame.launches, strict=True):
        number, *sizes, shared = frame.plan[at : at + 8]
        words = frame.plan[at + 8 : at + 8 + launch.words]
        if number:
            launches.append(
                {
                    "kernel": launch.kernel,
                    "sizes": sizes,
                    "shared": shared,
                    "words": [_placed(word) for word in words],
                }
            )
    (folder / f"{name}.ptx").write_bytes(kernel.compilation.code)
    inputs = [{"shape": list(shape), "dtype": dtype} for shape in shapes]
    return {
        "name": name,
        "inputs": inputs,
        "outputs": outputs,
        "scratch": needed,
        "launches": launches,
    }


def _placed(word: int) -> int | list[int]:
    """A word of a plan: a number, or an argument and an offset in bytes."""
    if word < 1 << PLACE:
        return word
    return [(word >> PLACE) - 1, word & ((1 << PLACE) - 1)]


# On the machine with the GPU: run. Nothing but PyTorch from here on.


class Launcher:
    """The launches of one exported case, on tensors."""

    def __init__(
        self,
        driver: ctypes.CDLL,
        code: bytes,
        entry: dict[str, Any],
        tensors: Sequence[Any],
        stream: int,
    ) -> None:
        self._driver = driver
        self._stream = ctypes.c_void_p(stream)
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), code + b"\0")
        self._launches: list[tuple[Any, ...]] = []
        addresses = [tensor.data_ptr() for tensor in tensors]
        for launch in entry["launches"]:
            function = ctypes.c_void_p()
            name = launch["kernel"].encode()
            self._call("cuModuleGetFunction", ctypes.byref(function), module, name)
            shared = launch["shared"]
            if shared > 48 << 10:
                self._call("cuFuncSetAttribute", function, 8, shared)
            found = [
                word if isinstance(word, int) else addresses[word[0]] + word[1]
                for word in launch["words"]
            ]
            words = (ctypes.c_int64 * max(len(found), 1))(*found)
            start = ctypes.addressof(words)
            pointers = (ctypes.c_void_p * max(len(found), 1))(
                *(start + 8 * number for number in range(len(found)))
            )
            if 0 not in launch["sizes"]:
                sizes = map(ctypes.c_uint, (*launch["sizes"], shared))
                self._launches.append((function, *sizes, pointers, words))

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._driver, name)(*arguments)
        if error:
            raise RuntimeError(f"{name}: error {error}")

    def __call__(self) -> None:
        """Launch the kernels."""
        for function, *sizes, pointers, _ in self._launches:
            self._call("cuLaunchKernel", function, *sizes, self._stream, pointers, None)


def seconds(torch: Any, call: Callable[[], object], count: int) -> float:
    """The median time of a call on the device, by CUDA events."""
    for _ in range(3):
        call()
    found: list[float] = []
    for _ in range(count):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def check(
    torch: Any, driver: ctypes.CDLL, folder: Path, entry: dict[str, Any], count: int
) -> dict[str, Any]:
    """Run one case: its error relative to PyTorch in float64, and times."""
    reference = next(case[4] for case in CASES if case[0] == entry["name"])

    def tensors(side: str) -> list[Any]:
        return [
            torch.empty(array["shape"], dtype=getattr(torch, array["dtype"]))
            .normal_()
            .to("cuda")
            for array in entry[side]
        ]

    torch.manual_seed(0)
    inputs, outputs = tensors("inputs"), tensors("outputs")
    for output in outputs:
        output.fill_(float("nan"))
    memory = torch.empty(max(entry["scratch"], 1), dtype=torch.uint8, device="cuda")
    code = (folder / f"{entry['name']}.ptx").read_bytes()
    stream = torch.cuda.current_stream().cuda_stream
    launch = Launcher(driver, code, entry, [*inputs, *outputs, memory], stream)
    launch()
    torch.cuda.synchronize()
    wanted = reference(torch, *(tensor.double() for tensor in inputs))
    error = float((outputs[0].double() - wanted).abs().max() / wanted.abs().max())
    limit = TOLERANCES[entry["outputs"][0]["dtype"]]
    return {
        "name": entry["name"],
        "error": error,
        "limit": limit,
        "correct": error <= limit,  # a NaN is not
        "moa_us": 1e6 * seconds(torch, launch, count),
        "torch_us": 1e6 * seconds(torch, lambda: reference(torch, *inputs), count),
    }


def run(folder: Path, only: str, count: int) -> list[dict[str, Any]]:
    """Run the cases of a folder whose names have a part in them; prints each."""
    import torch

    torch.cuda.init()
    driver = ctypes.CDLL("libcuda.so.1")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    results: list[dict[str, Any]] = []
    for entry in json.loads((folder / "cases.json").read_text()):
        if only not in entry["name"]:
            continue
        result = check(torch, driver, folder, entry, count)
        results.append(result)
        verdict = "ok  " if result["correct"] else "FAIL"
        print(
            f"{verdict} {result['name']:24} error {result['error']:.1e} of "
            f"{result['limit']:.1e}, moa {result['moa_us']:10.1f} us, "
            f"torch {result['torch_us']:10.1f} us",
            flush=True,
        )
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Export or run; gives the exit status."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the cases")
    parser.add_argument("--export", action="store_true", help="compile, do not run")
    parser.add_argument("--chip", default="sm_90a", help="the chip (default: sm_90a)")
    parser.add_argument("--features", default="", help="LLVM's, such as +ptx83")
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--count", type=int, default=20, help="how often to time")
    parser.add_argument("--json", type=Path, help="where to write results")
    options = parser.parse_args(arguments)
    if options.export:
        cases = [case for case in CASES if options.only in case[0]]
        export(options.folder, cases, options.chip, options.features)
        return 0
    results = run(options.folder, options.only, options.count)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0 if all(result["correct"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
