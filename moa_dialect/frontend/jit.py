"""Compiling and running programs: `moa.jit`, `moa.interpret`, `Compiled`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cached_property, update_wrapper
from inspect import Parameter, Signature
from io import StringIO
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.printer import Printer

from moa_dialect.arrays import is_torch, to_numpy
from moa_dialect.errors import (
    CompileError,
    MoaError,
    OptionError,
)
from moa_dialect.frontend.trace import (
    Array,
    ArraySpec,
    argument_names,
    trace_program,
)
from moa_dialect.lowering.chips import CHIP
from moa_dialect.options import AUTO, DEFAULTS, Options

if TYPE_CHECKING:
    from moa_dialect.cost import Cost, CostMachine, Decision, Program
    from moa_dialect.frontend.parts import Parts

STAGES = ("moa", "dnf", "fused", "onf", "target", "llvm", "asm")
"""The stages of a program, in order; see docs/architecture.md."""


def is_array(value: Any) -> bool:
    """Whether something is an argument of a program, not an option."""
    return isinstance(value, np.ndarray | ArraySpec | Array) or (
        hasattr(value, "__dlpack__")
    )


def _split(static: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments that are arrays, and those that are options."""
    arrays = {name: value for name, value in static.items() if is_array(value)}
    options = {name: v for name, v in static.items() if name not in arrays}
    return arrays, options


def _positional(
    fn: Callable[..., Any], count: int, names: Sequence[str], options: dict[str, Any]
) -> Callable[..., Any]:
    """A function of positional arrays only: `count` of them, then the named ones."""
    if not names and not options:
        return fn

    def program(*arrays: Any) -> Any:
        named = dict(zip(names, arrays[count:], strict=True))
        return fn(*arrays[:count], **named, **options)

    update_wrapper(program, fn)
    if names:
        parameters = [*argument_names(fn, count), *names]
        kind = Parameter.POSITIONAL_OR_KEYWORD
        if len(set(parameters)) == len(parameters):
            program.__signature__ = Signature(  # pyright: ignore
                [Parameter(name, kind) for name in parameters]
            )
    return program


def _print(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream).print_op(module)
    return stream.getvalue() + "\n"


class Compiled:
    """A program for given shapes and dtypes: its text at each stage, and the kernel."""

    def __init__(
        self,
        program: ModuleOp,
        entry: str,
        copy: bool | None = None,
        options: Options = DEFAULTS,
    ) -> None:
        self._program = program
        self._entry = entry
        self._copy = copy
        self._options = options

    @property
    def target(self) -> str:
        """Where it runs: `cpu` or `cuda`."""
        return self._options.target

    @property
    def options(self) -> Options:
        """How it is compiled."""
        return self._options

    def module(self, stage: str, certify: bool = False) -> ModuleOp:
        """A copy of the program's module at a stage from `moa` to `target`.

        Args:
            stage: the stage.
            certify: let functions say how they were derived, as `moa-verify` reads it;
                at the stages `dnf`, `fused` and `onf`.

        Raises:
            MoaError: for an unknown stage.
        """
        from moa_dialect.lowering.pipelines import STAGES as LOWERING
        from moa_dialect.lowering.pipelines import lower_to

        if stage not in LOWERING:
            raise MoaError(
                f"unknown stage: expected one of {', '.join(STAGES)}, got {stage}"
            )
        module = self._program.clone()
        lower_to(module, stage, Context(), self._options, certify)
        return module

    @property
    def schedules(self) -> list[str]:
        """How its kernels run, one after the other, as text; see docs/schedules.md.

        A kernel for which no schedule is found has none. One for which there is no
        vector code under its schedule is plain loops all the same, as
        `moa-to-vector{strict=true}` tells.
        """
        from moa_dialect.lowering.pipelines import schedules_of

        return schedules_of(self.module("fused"), self._options)

    def text(self, stage: str, certify: bool = False) -> str:
        """The program as text: MLIR up to `llvm`, assembly of the host for `asm`.

        For the target `cuda`, `llvm` has the kernels in the NVVM dialect, and `asm` is
        their PTX.

        Args:
            stage: the stage.
            certify: as for `module`.

        Raises:
            MoaError: for an unknown stage.
        """
        if stage not in ("llvm", "asm"):
            return _print(self.module(stage, certify))
        if self._options.is_cuda:
            from moa_dialect.lowering import nvvm

            native = nvvm.nvvm_dialect(self.module("target"), self._options.chip)
            return f"{native}" if stage == "llvm" else nvvm.ptx(native)
        from moa_dialect.lowering.compiler import llvm_dialect_text, llvm_ir_text

        module = self.module("target")
        if stage == "llvm":
            return llvm_dialect_text(module)
        from moa_dialect.lowering import host

        return host.assembly(llvm_ir_text(module))

    def notation(self, stage: str = "moa", ascii: bool = False) -> str:
        """The program in MoA notation, at the stage `moa`, `dnf` or `fused`."""
        from moa_dialect.notation import notation

        return notation(self.module(stage), ascii=ascii)

    def derivation(self, ascii: bool = False) -> str:
        """How the normal form follows from the program, step by step, in MoA notation.

        As `moa-to-dnf{trace=true}` prints it.
        """
        from moa_dialect.passes.infer_shapes import InferShapesPass
        from moa_dialect.passes.to_dnf import ToDnfPass

        module, printed = self._program.clone(), StringIO()
        InferShapesPass().apply(Context(), module)
        with redirect_stdout(printed):
            ToDnfPass(trace=True, ascii=ascii).apply(Context(), module)
        return printed.getvalue()

    @cached_property
    def certificate(self) -> dict[str, Any]:
        """What was applied to the program up to the stage `onf`, and why it may be.

        A dictionary for `json.dumps`, made when it is asked for:

        - `function`, `definition`, `notation`: its name, and the program it was derived
          from, as MLIR and in MoA notation;
        - `passes`: the passes in order, each with its name and options as `pass`; that
          of `moa-to-dnf` also has the `steps`: `rule`, `redex`, `result`, and `where`
          if a step introduces names;
        - `rules`: for each rule that was applied the `law` it stands for, how many
          `steps` it was applied in, and the `proofs` it needed, by identifier; one
          without proofs says `why` it needs none;
        - `proofs`: for each identifier the `rule`, the `rank` and the `statement`;
        - `cascades`: for each pass over data that several folds share, why their
          accumulators may move. `pivots`: the value that each aims at, and how it was
          proved (`aim`) that this does not depend on the way. `edges`: for each
          accumulator its `function`, the `rule` its move follows, what it folds
          (`part`) and its move (`T`), how the conditions `C1` and `C2` were proved,
          and the `identities` that this needed;
        - `unproved`: rules that were applied at a higher rank than is proved, and
          conditions of cascades that are not proved, with the reason.
        """
        from moa_dialect.passes.derivation import certificate

        module = self.module("onf", certify=True)
        (function,) = [
            op
            for op in module.ops
            if isinstance(op, FuncOp) and op.sym_name.data == self._entry
        ]
        return certificate(function) | {"notation": self.notation("moa")}

    def verify(self, stage: str = "onf", prove: bool = False) -> None:
        """Check the program's derivation up to a stage, from its text alone.

        Args:
            stage: `dnf`, `fused` or `onf`.
            prove: also have the solver prove everything that is cited.

        Raises:
            CompileError: if the derivation does not give the program's text.
            MoaError: for another stage.
        """
        from xdsl.utils.exceptions import VerifyException

        from moa_dialect.parsing import ModuleParser
        from moa_dialect.passes.verify import VerifyPass
        from moa_dialect.universe import register_dialects

        if stage not in (stages := ("dnf", "fused", "onf")):
            raise MoaError(
                f"unknown stage: expected one of {', '.join(stages)}, got {stage}"
            )
        context = Context()
        register_dialects(context)
        text = self.text(stage, certify=True)
        module = ModuleParser(context, text).parse_module()
        try:
            VerifyPass(prove=prove).apply(context, module)
        except VerifyException as error:
            raise CompileError(str(error)) from error

    @cached_property
    def kernel(self) -> Any:
        """The compiled kernel (`moa_dialect.lowering.kernel.Kernel`)."""
        from moa_dialect.lowering.engine import compile_for_cuda, compile_module

        if self._options.is_cuda:
            return compile_for_cuda(self._program, self._entry, self._options)
        return compile_module(self._program, self._entry, self._options)

    def parts(self) -> Parts:
        """The program as functions for parts of the data: see `Parts`.

        Raises:
            CompileError: if the program has not exactly one fused cascade, or its parts
                depend on more than their data, with the reason.
        """
        from moa_dialect.frontend.parts import Parts

        if not self._options.fuse:
            raise CompileError("parts: expected a program with fuse=True")
        if self._options.target != "cpu":
            raise CompileError(
                f"parts: expected a program for target cpu, got {self._options.target}"
            )
        return Parts(
            self._program, self._entry, self._copy, self._options.deterministic
        )

    @property
    def intermediates(self) -> int:
        """The number of arrays between arguments and results in the normal form."""
        from moa_dialect.passes.check_dnf import intermediate_arrays
        from moa_dialect.passes.infer_shapes import functions_of

        functions = functions_of(self.module("dnf"))
        return sum(len(intermediate_arrays(function)) for function in functions)

    @property
    def scratch_bytes(self) -> int:
        """The bytes of scratch memory that the loops of the stage `onf` have at a time.

        Vector code has tiles of its own on the stack of a task, of sizes that its
        schedule gives, not the input.

        Raises:
            CompileError: if that depends on extents known only at the call.
        """
        from moa_dialect.passes.check_storage import scratch_bytes

        return scratch_bytes(self.module("onf"))

    def program(self, names: Sequence[Sequence[str | None]] | None = None) -> Program:
        """The program as the cost model reads it, with names for extents if given."""
        from moa_dialect.cost import Program

        return Program(self._program, self._entry, self._options, names)

    def cost(self, machine: str | Path | CostMachine | None = None) -> Cost:
        """What the program costs on a machine, predicted from its normal form.

        Operations, bytes and storage are formulas in the extents that the program
        names, with a number for each; time and energy are numbers. See
        docs/cost-model.md.

        Args:
            machine: a name such as `h200`, a TOML file that describes one, or None for
                the machine this runs on, which is measured the first time.

        Raises:
            MoaError: for an unknown machine, or a file that is no description of one.
        """
        from moa_dialect.cost import machine as find

        return self.program().cost(find(machine))

    def decision(self, machine: str | Path | CostMachine | None = None) -> Decision:
        """What the program costs fused, and with a kernel for each array operation.

        `.fuse` says which takes less time, `.explain()` shows both sides.

        Args:
            machine: as for `cost`.

        Raises:
            MoaError: as for `cost`.
        """
        from moa_dialect.cost import machine as find

        return self.program().decision(find(machine))

    def __call__(self, *arrays: Any) -> Any:
        """Run the kernel; torch tensors in, torch tensors out.

        Raises:
            MoaError: ShapeError, DTypeError, LayoutError or IndexRangeError, as
                `moa_dialect.lowering.kernel.Kernel` says, and for the target `cuda`
                DeviceError.
        """
        if self._options.is_cuda and not self._options.emulate:
            return run_on_device(self.kernel, arrays, self._copy)
        return run_kernel(self.kernel, arrays, self._copy)


def run_kernel(kernel: Any, arrays: Sequence[Any], copy: bool | None) -> Any:
    """Run a compiled kernel; torch tensors in, torch tensors out."""
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return kernel(*arrays, copy=copy)
    torch = sys.modules.get("torch")
    if torch is None or not any(map(is_torch, arrays)):
        converted = [to_numpy(number, value) for number, value in enumerate(arrays)]
        return kernel(*converted, copy=copy)
    result = kernel.call_tensors(torch, arrays)
    if result is not None:
        return result
    converted = [to_numpy(number, value) for number, value in enumerate(arrays)]
    result = kernel(*converted, copy=copy)
    if isinstance(result, tuple):
        results = cast(tuple[Any, ...], result)
        return tuple(kernel.to_tensor(torch, array) for array in results)
    return kernel.to_tensor(torch, result)


def run_on_device(kernel: Any, arrays: Sequence[Any], copy: bool | None) -> Any:
    """Run a kernel for a GPU: tensors there in and out, or NumPy arrays in and out."""
    torch = sys.modules.get("torch")
    for array in arrays if torch is not None else ():
        if is_torch(array):
            result = kernel.call_tensors(torch, arrays)
            if result is None:
                result = kernel.call_any_tensors(torch, arrays, copy)
            return result
    converted = [to_numpy(number, value) for number, value in enumerate(arrays)]
    return kernel(*converted, copy=copy)


class Jit:
    """A program that is compiled when it is called, once for each shape and dtype.

    If its arguments are specified, it is compiled once for all arrays that fit.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        copy: bool | None = None,
        specs: Sequence[ArraySpec] | None = None,
        options: Options = DEFAULTS,
        decides: bool = False,
        any_chip: bool = False,
    ) -> None:
        if not callable(fn):
            raise MoaError(f"jit: expected a function of arrays, got {fn!r}")
        options.check()
        if decides and options.is_cuda:
            raise OptionError("fuse: expected 'auto' with target cpu, got it with cuda")
        self._options = options
        self._asks_chip = any_chip and options.is_cuda and not options.emulate
        self._decides = decides
        self._fn = fn
        self._copy = copy
        if not (specs is None or isinstance(specs, Sequence)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MoaError(f"specs: expected a list of ArraySpec values, got {specs!r}")
        if copy not in (None, True, False):
            raise OptionError(f"copy: expected None, True or False, got {copy!r}")
        self._specs = specs if specs is None else list(specs)
        for number, spec in enumerate(self._specs or ()):
            if not isinstance(spec, ArraySpec):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise MoaError(
                    f"specs: expected an ArraySpec for argument {number}, got {spec!r}"
                )
        self._compiled: dict[Any, Compiled] = {}
        self._known: dict[Any, tuple[Compiled, list[str]]] = {}
        update_wrapper(self, fn)

    def lower(self, *args: Any, **static: Any) -> Compiled:
        """The program for arguments like these: arrays, or `ArraySpec` values.

        Keyword arguments that are arrays are arguments too, which the result takes by
        position after the others. Any other is passed to the Python function as it is.

        Raises:
            MoaError: if the program is not well formed for them.
        """
        arrays, options = _split(static)
        given = [*args, *arrays.values()]
        specs = [
            value if isinstance(value, ArraySpec) else self._spec(number, value)
            for number, value in enumerate(given)
        ]
        return self._lower(specs, len(args), list(arrays), options, self._chip(given))

    def _lower(
        self,
        specs: Sequence[ArraySpec],
        count: int,
        names: Sequence[str],
        options: dict[str, Any],
        chip: str,
    ) -> Compiled:
        name = getattr(self._fn, "__name__", "main")
        name = "main" if name == "<lambda>" else name
        program = _positional(self._fn, count, names, options)
        module = trace_program(program, specs, name)
        entry = entry_of(module)
        chosen = self._options
        if chip != chosen.chip:
            chosen = replace(chosen, chip=chip)
            chosen.check()
        compiled = Compiled(module, entry, self._copy, chosen)
        if self._decides:
            from moa_dialect.frontend.materialised import (
                Materialised,
                can_be_materialised,
            )

            if can_be_materialised(compiled) and not compiled.decision().fuse:
                return Materialised(module, entry, self._copy, chosen)
        return compiled

    def _chip(self, given: Sequence[Any]) -> str:
        """The chip for arguments: that of the device that they are on.

        Raises:
            DeviceError: if the device is too old.
        """
        if not self._asks_chip:
            return self._options.chip
        from moa_dialect.lowering.cuda_driver import chip_here

        devices = (_device_of(value) for value in given)
        return chip_here(next((d for d in devices if d is not None), None))

    def _spec(self, number: int, value: Any) -> ArraySpec:
        """The shape and dtype of an argument, which may lie on the device."""
        if self._options.is_cuda and is_torch(value):
            from moa_dialect.lowering.cuda import torch_dtype

            return ArraySpec(tuple(value.shape), torch_dtype(number, value))
        return _spec(to_numpy(number, value))

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Run the program, compiling it first for new shapes, dtypes or options.

        Raises:
            MoaError: if the program or the arguments are not well formed.
        """
        # A call like one before need not be looked at as closely.
        known = None
        try:
            outline = self._outline(args, static)
            known = self._known.get(outline)
        except (AttributeError, TypeError):  # no array, or nothing to be hashed
            outline = None
        if known is not None:
            compiled, names = known
            return compiled(*args, *[static[name] for name in names])
        arrays, options = _split(static)
        given = [*args, *arrays.values()]
        specs = self._specs
        if specs is None:
            specs = [self._spec(n, value) for n, value in enumerate(given)]
        elif len(specs) != len(given):
            raise MoaError(
                f"specs: expected as many arguments as specifications, {len(specs)}, "
                f"got {len(given)}"
            )
        chip = self._chip(given)
        key = (
            chip,
            tuple((spec.shape, spec.dtype) for spec in specs),
            tuple(arrays),
            tuple((name, _identity(options[name])) for name in sorted(options)),
        )
        try:
            compiled = self._compiled.get(key)
        except TypeError:
            raise MoaError(
                f"keyword arguments must be hashable values, got {options}"
            ) from None
        if compiled is None:
            compiled = self._lower(specs, len(args), list(arrays), options, chip)
            self._compiled[key] = compiled
        if outline is not None:
            self._known[outline] = compiled, list(arrays)
        return compiled(*given)

    def _outline(self, args: Sequence[Any], static: dict[str, Any]) -> Any:
        """What tells calls apart, of those that are simple; None for any other.

        Of arrays it has dtype and shape as they give them, and on a GPU the device, of
        options the types that are compared by value and functions.

        Raises:
            AttributeError: if an argument is no array.
        """
        parts: list[Any] = (
            [(array.dtype, array.shape) for array in args]
            if self._specs is None
            else [len(args)]
        )
        if self._asks_chip:
            places = [getattr(array, "device", None) for array in args]
            parts += places
            # Of what is on no device the current one counts.
            if not any(getattr(place, "type", "") == "cuda" for place in places):
                parts.append(self._chip([*static.values()]))
        for name, value in static.items():
            kind = cast(type[object], type(value))
            if value is None or kind in _PLAIN:
                parts.append((name, kind, value))
            elif kind is float:
                parts.append((name, kind, value.hex()))
            elif kind is np.ndarray or is_torch(value):
                of_it = (value.dtype, value.shape) if self._specs is None else None
                parts.append((name, np.ndarray, of_it))
            else:
                return None
        return tuple(parts)


def _device_of(value: Any) -> int | None:
    """The number of the CUDA device that an argument is on, None if it is on none."""
    return value.get_device() if is_torch(value) and value.is_cuda else None


_PLAIN = {bool, int, str, FunctionType}
"""Types of options of which equal values of one type are the same option."""


def _identity(value: Any) -> tuple[Any, ...]:
    """What tells options apart; to Python 1, 1.0 and True are equal, also 0 and -0."""
    if isinstance(value, tuple):
        return tuple(map(_identity, cast(tuple[Any, ...], value)))
    return type(value).__name__, value, str(value) if isinstance(value, float) else ""


def entry_of(module: ModuleOp) -> str:
    """The name of the one public function of a traced module."""
    (name,) = [
        op.sym_name.data
        for op in module.ops
        if isinstance(op, FuncOp) and op.sym_visibility is None
    ]
    return name


def _spec(array: np.ndarray) -> ArraySpec:
    return ArraySpec(array.shape, array.dtype)


def jit(
    fn: Callable[..., Any],
    target: str = "cpu",
    copy: bool | None = None,
    specs: Sequence[ArraySpec] | None = None,
    fuse: bool | Literal["auto"] = True,
    deterministic: bool = False,
    chip: str = "",
    emulate: bool = False,
    tier: str = "",
    schedule: str = AUTO,
    tf32: bool = False,
) -> Jit:
    """Compile a program when it is called.

    Args:
        fn: a Python function of arrays, written with the array functions of moa.
        target: where it runs, `cpu` or `cuda`; see docs/gpu.md.
        copy: False refuses arguments that would have to be copied to be contiguous.
        specs: the arguments' shapes and dtypes, with names or None for extents that
            only a call tells; those of keyword arguments that are arrays come last, in
            the order of the call. One kernel then runs for all of them; without `specs`
            there is one for each shape.
        fuse: folds that depend on each other may share a pass over their data, if a
            transport is found. Sums are then
            reassociated, and results are those without up to rounding. With `auto`,
            on the CPU, the program is one kernel or one for each array operation,
            whichever the cost model predicts to take less time (docs/cost-model.md).
        deterministic: an element of the result has the same bits however many there
            are: a row alone and in a batch, in kernels for any shape, on any number of
            threads. Kernels are chosen as if the extents of the result were not known,
            and may be slower for it.
        chip: for `cuda`, the chip that kernels are compiled for; if empty that of the
            device that the arguments are on, of the current device when none is, or
            sm_90a where there is no driver.
        emulate: for `cuda`, run the kernels on the CPU, thread by thread, on arrays
            that are there: slow, for tests.
        tier: for `cuda`, what products of matrices are made of: `wgmma` for the
            instructions of warp groups (chip sm_90a), `mma` for those of warps, or
            `portable` for multiply-adds; the best of the chip if empty.
        tf32: for `cuda`, round factors of sums of products of f32 to tf32, that is to
            10 bits, for which there are instructions in the tiers `mma` and `wgmma`:
            each product is off by 2^-10 of itself.
        schedule: how kernels run, `auto` for what is chosen; see docs/schedules.md, and
            docs/gpu.md for `cuda`.

    Returns:
        A callable on NumPy arrays, torch tensors and anything with DLPack; keyword
        arguments that are no arrays are options of the Python function.
        `.lower(...)` gives the stages.

    Raises:
        CompileError: for an unknown target, chip, tier or schedule.
        OptionError: for an option of another target, or another value of `fuse`.
        MoaError: if `fn` is no function, or `specs` has anything but `ArraySpec`
            values.
    """
    if fuse not in (True, False, "auto"):
        raise OptionError(f"fuse: expected True, False or 'auto', got {fuse!r}")
    options = Options(
        bool(fuse),
        deterministic,
        target,
        schedule,
        chip or CHIP,
        tier=tier,
        emulate=emulate,
        tf32=tf32,
    )
    return Jit(fn, copy, specs, options, fuse == "auto", not chip)


def interpret(fn: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
    """Run a program by its reference semantics, the interpreter.

    Returns:
        One NumPy array, or a tuple if the program gives several.

    Raises:
        MoaError: if the program or the arguments are not well formed.
    """
    from moa_dialect.interpreter import interpret_module

    named, options = _split(static)
    given = [*arrays, *named.values()]
    converted = [to_numpy(number, value) for number, value in enumerate(given)]
    program = _positional(fn, len(arrays), list(named), options)
    module = trace_program(program, [_spec(a) for a in converted], "main")
    results = interpret_module(module, "main", converted)
    return results[0] if len(results) == 1 else tuple(results)
