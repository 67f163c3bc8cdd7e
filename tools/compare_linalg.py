"""Random programs of linalg on tensors: raised and run, and lowered by upstream alone.

    python -m moa_dialect.tools.compare_linalg 500

Both have to give the same bits. Prints the programs for which they do not.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.context import Context

from moa_dialect.errors import CompileError
from moa_dialect.lowering import loader, upstream
from moa_dialect.lowering.engine import kernels_of
from moa_dialect.lowering.pipelines import lower_to
from moa_dialect.passes.raising import source
from moa_dialect.passes.raising.driver import raise_module
from moa_dialect.tools.random_linalg import random_program

PIPELINE = (
    "builtin.module(func.func(linalg-generalize-named-ops),"
    "convert-tensor-to-linalg,one-shot-bufferize{bufferize-function-boundaries=true "
    "function-boundary-type-conversion=identity-layout-map},"
    "buffer-results-to-out-params{modify-public-functions=true},"
    "func.func(llvm-request-c-wrappers),convert-linalg-to-loops,"
    "expand-strided-metadata,lower-affine,convert-scf-to-cf,"
    "func.func(arith-expand),convert-math-to-llvm,convert-math-to-libm,"
    "finalize-memref-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts)"
)


def _descriptor(array: np.ndarray) -> Any:
    """A pointer to a pointer to the memref descriptor of an array."""
    rank = array.ndim
    fields = [
        ("base", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("offset", ctypes.c_int64),
    ]
    if rank:
        fields += [("shape", ctypes.c_int64 * rank), ("strides", ctypes.c_int64 * rank)]
    kind = type("Descriptor", (ctypes.Structure,), {"_fields_": fields})
    made: Any = kind()
    made.base = made.data = array.ctypes.data
    made.offset = 0
    if rank:
        made.shape[:] = array.shape
        made.strides[:] = [s // array.itemsize for s in array.strides]
    return ctypes.pointer(ctypes.pointer(made))


def upstream_engine(module: Any, level: int) -> Any:
    """Upstream's execution engine for a module, with what its code may call.

    Its option `shared_libs` is not used: the symbols of LLVM would become those of the
    whole process (`loader.conversions`).

    Args:
        module: in the llvm dialect.
        level: of LLVM's optimisation.
    """
    import mlir
    from mlir.execution_engine import ExecutionEngine

    (package,) = list(mlir.__path__)
    (file,) = Path(package, "lib").glob("libmlir_c_runner_utils.*")
    copy = ctypes.CDLL(str(file))["memrefCopy"]
    engine: Any = ExecutionEngine(module, opt_level=level)
    symbols = loader.conversions()
    symbols["memrefCopy"] = ctypes.cast(copy, ctypes.c_void_p).value or 0
    for name, address in symbols.items():
        engine.raw_register_runtime(name, ctypes.c_void_p(address))
    return engine


class UpstreamModule:
    """A module lowered by upstream alone.

    Args:
        text: functions that return one tensor each.
    """

    def __init__(self, text: str):
        module = upstream.parse(text, upstream.new_context())
        upstream.run_pipeline(module, PIPELINE, verify_each=False)
        self._module = module
        self._engine = upstream_engine(module, 0)

    def __call__(
        self, name: str, arrays: Sequence[np.ndarray], result: np.ndarray
    ) -> np.ndarray:
        """Call a function; `result` has the shape and dtype, and is written."""
        # The function may write its arguments' memory: they are copied.
        copies = [np.array(array, order="C") for array in arrays]
        pointers = [_descriptor(array) for array in (*copies, result)]
        self._engine.invoke(name, *pointers)
        return result


Case = tuple[str, str, list[np.ndarray]]
"""A function: its name, its text, and arrays to call it with."""


def cases(first: int = 0, wide: bool = False) -> Iterator[Case]:
    """Random functions that upstream accepts, one for each seed."""
    for seed in count(first):
        name = f"f{seed}"
        text, arrays = random_program(name, seed, wide)
        try:
            source.annotated_text(text, name)
        except CompileError:
            continue  # an index that may leave its array, say
        yield name, text, arrays


def differences(some: Sequence[Case]) -> list[str]:
    """What raising and upstream disagree on, one line for each function.

    All functions are compiled at once.
    """
    text = "\n".join(case[1] for case in some)
    expected = UpstreamModule(text)
    module = source.parse(source.annotated_text(text, "<programs>"))
    found = [f"{each.function}: {each}" for each in raise_module(module)]
    if found:
        return found
    source.without_annotations(module)
    module.verify()
    lower_to(module, "target", Context())
    kernels = kernels_of(module)
    for name, _, arrays in some:
        given = kernels[name](*arrays)
        assert isinstance(given, np.ndarray)
        wanted = expected(name, arrays, np.zeros(given.shape, given.dtype))
        if not np.array_equal(given, wanted, equal_nan=True):
            found.append(f"{name}: expected {wanted.tolist()}, got {given.tolist()}")
    return found


def in_batches(some: Iterator[Case], size: int) -> Iterator[list[Case]]:
    """So many at a time."""
    while batch := list(islice(some, size)):
        yield batch


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare as many programs as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m moa_dialect.tools.compare_linalg",
        description="Compare raised programs with upstream's own lowering.",
    )
    parser.add_argument("count", type=int, help="how many programs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--wide", action="store_true", help="programs of more kinds of operations"
    )
    options = parser.parse_args(arguments)
    failures = 0
    for some in in_batches(
        islice(cases(options.first, options.wide), options.count), 25
    ):
        for line in differences(some):
            failures += 1
            print(line)
    print(f"{options.count} programs, {failures} difference(s)")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
