"""Programs that are linalg on tensors: read, raised, compiled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.utils.exceptions import VerifyException

from moa_dialect.arrays import is_torch, to_numpy
from moa_dialect.errors import CompileError, MoaError
from moa_dialect.lowering.engine import entries, find_entry
from moa_dialect.ops.function import lookup_function
from moa_dialect.options import DEFAULTS, Options
from moa_dialect.passes import raising

if TYPE_CHECKING:
    from moa_dialect.passes.raising.driver import Unraised

raising.FURTHER.append("moa_dialect.frontend.aggregates")


@dataclass(frozen=True)
class Raised:
    """A module that has been raised.

    Attributes:
        module: the module, at the stage `moa`.
        left: what could not be raised, with reasons.
    """

    module: ModuleOp
    left: Sequence[Unraised]

    def entry(self, name: str | None = None) -> FuncOp:
        """The function to run, of a module of which all is raised.

        Raises:
            MoaError: if there is none of that name.
            CompileError: with the place in the source, if something was not raised.
        """
        if name in (None, *entries(self.module)):
            for each in self.left:
                raise CompileError(f"cannot raise {each}")
        return find_entry(self.module, name)


def read(text: str, name: str = "<text>") -> Raised:
    """Read and raise MLIR text.

    Args:
        text: a module of linalg on tensors.
        name: what messages call it.

    Raises:
        CompileError: with file, line and column, if upstream does not accept it, or a
            function calls itself.
    """
    from moa_dialect.passes.infer_shapes import functions_of
    from moa_dialect.passes.raising import source
    from moa_dialect.passes.raising.driver import raise_module
    from moa_dialect.passes.to_dnf import callers_first

    module = source.parse(source.annotated_text(text, name))
    functions = functions_of(module)
    for function in functions:
        _check_calls(function)
    try:
        callers_first(functions)
    except CompileError as error:
        for function in functions:
            if f"@{function.sym_name.data} " in f"{error}":
                place = source.location_of(function)
                raise CompileError(f"{place}: {error}") from None
        raise
    left = raise_module(module)
    source.without_annotations(module)
    return Raised(module, left)


def _check_calls(function: FuncOp) -> None:
    """Check that a function calls others that are there, and not itself.

    Raises:
        CompileError: with the place of the call in the source.
    """
    from moa_dialect.passes.raising.source import location_of

    for op in function.walk():
        if not isinstance(op, CallOp):
            continue
        try:
            lookup_function(op, op.callee)
        except VerifyException as error:
            raise CompileError(f"{location_of(op)}: {error}") from None


class CompiledLinalg:
    """A compiled function of a module of linalg.

    Attributes:
        module: the module, raised.
        kernels: the names of the kernels that run, in order.
    """

    def __init__(self, module: ModuleOp, entry: str, options: Options):
        from moa_dialect.lowering.program import Program, compile_program

        self.module = module
        self._kernel = compile_program(module, entry, options)
        is_program = isinstance(self._kernel, Program)
        self.kernels = self._kernel.names if is_program else (entry,)

    def __call__(self, *arrays: Any) -> Any:
        """Run it; torch tensors in, torch tensors out.

        Raises:
            MoaError: if the arrays do not fit, as for a function of `moa.jit`.
        """
        kernel = self._kernel
        converted = [to_numpy(number, value) for number, value in enumerate(arrays)]
        result = kernel(*converted)
        if not any(map(is_torch, arrays)):
            return result
        torch = sys.modules["torch"]
        if isinstance(result, tuple):
            results = cast(tuple[Any, ...], result)
            return tuple(kernel.to_tensor(torch, array) for array in results)
        return kernel.to_tensor(torch, result)


def compile_linalg(
    text: str | Path, entry: str | None = None, options: Options = DEFAULTS
) -> CompiledLinalg:
    """Compile a function of a module of linalg on tensors.

    Args:
        text: MLIR text, or the path of a file.
        entry: the function; not needed if there is one.
        options: how it is compiled.

    Returns:
        A callable on NumPy arrays, torch tensors and anything with DLPack.

    Raises:
        MoaError: if it cannot be read, raised or compiled; with the place in the
            source, if there is one.
    """
    if isinstance(text, Path):
        try:
            raised = read(text.read_text("utf-8"), str(text))
        except (OSError, UnicodeDecodeError) as error:
            raise MoaError(f"{text}: {error}") from error
    else:
        raised = read(text)
    function = raised.entry(entry)
    return CompiledLinalg(raised.module, function.sym_name.data, options)
