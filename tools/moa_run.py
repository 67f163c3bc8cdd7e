"""`moa-run`: run one function of an `.mlir` file on arrays from `.npy` files.

    moa-run matmul.mlir --entry matmul --input A.npy --input B.npy --output C.npy

The file may be at any stage from `moa` on, or be linalg on tensors, which is raised
first (`moa-raise-linalg`) and may become several kernels. Bad input ends with a message
and exit status 1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import (
    BFloat16Type,
    DictionaryAttr,
    MemRefType,
    ModuleOp,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute
from xdsl.utils.hints import isa

from moa_dialect.diagnostics import BadInputError, check_definitions, reported
from moa_dialect.interpreter import interpret_module
from moa_dialect.lowering.engine import find_entry
from moa_dialect.options import DEFAULTS, Options
from moa_dialect.parsing import ModuleParser
from moa_dialect.types import element_of, element_type_of
from moa_dialect.universe import register_dialects

Array = NDArray[Any]

_OF_CUDA = ("emulate", "chip", "tier", "tf32")
"""Options that are about GPUs."""

_OF_COMPILER = {
    "deterministic": "--deterministic",
    "fuse": "--no-fuse",
    "schedule": "--schedule",
}
"""Options that say how a program is compiled, wherever it runs."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="moa-run",
        description="Run one function of an MLIR file on arrays from .npy files.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the MLIR file")
    parser.add_argument(
        "--entry", metavar="NAME", help="the function; not needed if there is only one"
    )
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="FILE.npy",
        type=Path,
        action="append",
        default=[],
        help="the next argument of the function",
    )
    parser.add_argument(
        "--output",
        dest="outputs",
        metavar="FILE.npy",
        type=Path,
        action="append",
        default=[],
        help="where to save the next result; without any, results are printed",
    )
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="use the interpreter, which defines the meaning, not the compiler",
    )
    parser.add_argument(
        "--target",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the function runs; with cuda, on the current device",
    )
    parser.add_argument(
        "--chip",
        default="",
        metavar="NAME",
        help="with --target cuda, the chip to compile for (default: that of the "
        f"device, or {DEFAULTS.chip} without one)",
    )
    parser.add_argument(
        "--emulate",
        action="store_true",
        help="with --target cuda, run the kernels on the CPU, thread by thread",
    )
    parser.add_argument(
        "--tier",
        choices=("wgmma", "mma", "portable"),
        default=DEFAULTS.tier,
        help="with --target cuda, what products of matrices are made of (default: "
        "the best of the chip)",
    )
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="with --target cuda, round factors of products of f32 to tf32",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="an element has the same bits however many there are",
    )
    parser.add_argument(
        "--no-fuse",
        dest="fuse",
        action="store_false",
        help="folds that depend on each other get a pass each",
    )
    parser.add_argument(
        "--schedule",
        default=DEFAULTS.schedule,
        metavar="LIFTS",
        help="how kernels run (default: chosen)",
    )
    parser.add_argument(
        "--time",
        metavar="N",
        type=_positive,
        help="call N more times and print the best and the median time",
    )
    options = parser.parse_args(arguments)
    if options.target != "cuda":
        for name in _OF_CUDA:
            if getattr(options, name) not in (getattr(DEFAULTS, name), ""):
                parser.error(f"--{name} needs --target cuda")
    if not options.fuse and options.schedule != DEFAULTS.schedule:
        parser.error("--no-fuse and --schedule exclude each other")
    if options.interpret:
        if options.target == "cuda":
            parser.error("--interpret and --target cuda exclude each other")
        for name, option in _OF_COMPILER.items():
            if getattr(options, name) != getattr(DEFAULTS, name):
                parser.error(f"--interpret and {option} exclude each other")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return int(text)


def load_module(path: Path, entry: str | None = None) -> ModuleOp:
    """Parse and verify an MLIR file; linalg on tensors is raised.

    Raises:
        BadInputError: if it is not text.
        CompileError: if upstream does not accept linalg, or it cannot be raised.
        VerifyException: if it does not verify.
    """
    context = Context()
    register_dialects(context)
    source = path.read_bytes()
    if (module := _raised(source, path, entry)) is not None:
        return module
    try:
        module = ModuleParser(context, source, str(path)).parse_module()
    except (ValueError, NotImplementedError) as error:
        raise BadInputError(f"{path}: {error}") from error
    check_definitions(module)
    module.verify()
    return module


def _raised(source: bytes, path: Path, entry: str | None) -> ModuleOp | None:
    """The module of a file of linalg on tensors, None of any other file.

    Raises:
        CompileError: if upstream does not accept it, or it cannot be raised.
    """
    if b"linalg." not in source and b"tensor." not in source:
        return None
    from moa_dialect.frontend.linalg import read
    from moa_dialect.passes.raising.source import is_upstream_text

    text = source.decode("utf-8", "replace")
    if not is_upstream_text(text):
        return None
    raised = read(text, str(path))
    raised.entry(entry)
    raised.module.verify()
    return raised.module


@dataclass(frozen=True)
class Signature:
    """The array arguments of a function, and the number of its results.

    After the normal forms, results are arguments too, marked `moa.result`.
    """

    inputs: tuple[Attribute, ...]
    output_count: int

    @classmethod
    def of(cls, function: FuncOp) -> Signature:
        """The signature of a function at any stage."""
        types = function.function_type.inputs.data
        marks = function.arg_attrs or [DictionaryAttr({})] * len(types)
        return cls(
            tuple(
                type_
                for type_, mark in zip(types, marks, strict=True)
                if "moa.result" not in mark.data and "moa.status" not in mark.data
            ),
            sum("moa.result" in mark.data for mark in marks)
            + len(function.function_type.outputs),
        )


def expect_count(function: FuncOp, option: str, expected: int, given: int) -> None:
    """Check how often an option is given.

    Raises:
        BadInputError: unless it is as often as the function needs.
    """
    if given != expected:
        raise BadInputError(
            f"{function.sym_name.data}: expected {option} {expected} time(s), "
            f"got {given}"
        )


def load_array(path: Path, type_: Attribute) -> Array:
    """An array from a file, in row-major order and the machine's byte order.

    bfloat16, which `.npy` files keep as two bytes without a meaning, is recognised by
    the type the function expects.

    Raises:
        BadInputError: if the file holds no array.
    """
    with path.open("rb") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OverflowError, MemoryError) as error:
            raise BadInputError(f"{path}: not an .npy file of numbers") from error
    is_array = isa(type_, TensorType) or isa(type_, MemRefType)
    element = element_of(type_) if is_array else type_
    if isinstance(element, BFloat16Type) and array.dtype == np.dtype("V2"):
        array = array.view(ml_dtypes.bfloat16)
    native = array.dtype.newbyteorder("=")
    return np.array(array, dtype=native, order="C")


def prepare(
    module: ModuleOp, entry: str, options: argparse.Namespace
) -> Callable[..., tuple[Array, ...]]:
    """A function on arrays that runs the entry, compiled or interpreted."""
    if options.interpret:
        return lambda *arrays: interpret_module(module, entry, arrays)
    from moa_dialect.lowering.cuda_driver import chip_here
    from moa_dialect.lowering.program import compile_program

    names = (*_OF_CUDA, *_OF_COMPILER, "target")
    chosen = {name: getattr(options, name) for name in names}
    if not chosen["chip"]:
        is_device = options.target == "cuda" and not options.emulate
        chosen["chip"] = chip_here() if is_device else DEFAULTS.chip
    given = Options(**chosen)
    kernel = compile_program(module, entry, given)

    def call(*arrays: Array) -> tuple[Array, ...]:
        results: Any = kernel(*arrays)
        return results if isinstance(results, tuple) else (results,)  # pyright: ignore

    return call


def save(results: Sequence[Array], paths: Sequence[Path]) -> None:
    """Write each result to its file, or print all of them if there are no files."""
    for number, result in enumerate(results):
        if paths:
            with paths[number].open("wb") as file:
                np.lib.format.write_array(file, result, allow_pickle=False)
        else:
            shape = " ".join(map(str, result.shape))
            values = np.array2string(result, threshold=64, edgeitems=3)
            print(f"result {number}: <{shape}> {element_type_of(result.dtype)}")
            print(values)


def measure(call: Callable[[], object], count: int) -> str:
    """The best and the median time of some calls, as a line of text."""
    seconds: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    best, median = min(seconds) * 1e6, statistics.median(seconds) * 1e6
    return f"best {best:.1f} us, median {median:.1f} us of {count} call(s)"


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        BadInputError: if a file cannot be read, or their number is wrong.
        MoaError: if function and arrays do not fit together.
    """
    module = load_module(options.file, options.entry)
    function = find_entry(module, options.entry)
    signature = Signature.of(function)
    expect_count(function, "--input", len(signature.inputs), len(options.inputs))
    if options.outputs:
        given = len(options.outputs)
        expect_count(function, "--output", signature.output_count, given)
    arrays = [
        load_array(path, type_)
        for path, type_ in zip(options.inputs, signature.inputs, strict=True)
    ]
    call = prepare(module, function.sym_name.data, options)
    results = call(*arrays)
    save(results, options.outputs)
    if options.time is not None:
        print(measure(lambda: call(*arrays), options.time))


def main() -> None:
    """Run `moa-run` on the command line's arguments."""
    with reported("moa-run"):
        run(parse_arguments())


if __name__ == "__main__":
    main()
