"""JAX: functions compiled by moa, callable from JAX on CPUs.

    from moa_dialect.frontend import jax as moa_jax

    softmax = moa_jax.jit(jax.nn.softmax)
    softmax(x)  # also within jax.jit, jax.vmap and jax.grad

JAX lowers a function to StableHLO; torch-mlir, which has a converter that is kept with
StableHLO, turns that into linalg on tensors; `moa-raise-linalg` raises it. Each kernel
becomes a handler of XLA's foreign function interface: no copies, no Python in a call.

Needs JAX and torch-mlir, which are imported when a function is called.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
# pyright: reportUnknownLambdaType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import update_wrapper
from threading import Lock
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import arith, math, tensor
from xdsl.dialects.builtin import AffineMapAttr, AnyFloat, ModuleOp, TensorType
from xdsl.dialects.linalg.attrs import IteratorType, IteratorTypeAttr
from xdsl.dialects.linalg.ops import GenericOp, YieldOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.ir.affine import AffineMap
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.diagnostics import described
from moa_dialect.embedding import generic_text_of, parse_text, print_text, run_pipeline
from moa_dialect.errors import CompileError, PipelineError
from moa_dialect.frontend import stablehlo as stablehlo_forms
from moa_dialect.lowering.unregistered import name_of
from moa_dialect.options import DEFAULTS, Options
from moa_dialect.parsing import file_locations
from moa_dialect.passes import raising
from moa_dialect.passes.raising.source import torch_mlir_opt
from moa_dialect.scalar_code import constant
from moa_dialect.types import element_of, shape_of

CONVERSION = (
    "builtin.module(inline,symbol-dce,stablehlo-legalize-to-linalg,canonicalize,cse)"
)
"""The passes of torch-mlir from StableHLO to linalg."""

INLINING = "builtin.module(inline,symbol-dce)"
SIMPLIFICATION = "func.func(stablehlo-aggressive-simplification)"
"""What goes before it where loops are written out: counters become numbers."""

raising.FURTHER.append("moa_dialect.frontend.stablehlo")


def jit(fn: Callable[..., Any], options: Options = DEFAULTS) -> Callable[..., Any]:
    """A function of JAX arrays, compiled by moa for each shape and dtype.

    Args:
        fn: a function that JAX can trace. Arguments and results may be pytrees.
        options: how moa compiles it, for CPUs.

    Returns:
        The function. It may be used within `jax.jit` and `jax.vmap` (which calls it for
        each element of the batch). Derivatives are those that JAX has of `fn`, and are
        computed by JAX.

    Raises:
        CompileError: when called, if torch-mlir is missing, or moa cannot raise or
            compile the function; with the place in its source, if there is one.
    """
    import jax

    programs: dict[Any, _Program] = {}
    lock = Lock()

    def program_for(leaves: Sequence[Any], tree: Any) -> _Program:
        key = tree, tuple((jax.typeof(leaf), _is_weak(leaf)) for leaf in leaves)
        with lock:
            known = programs.get(key)
        if known is None:
            known = _compiled(fn, leaves, tree, options)
            with lock:
                known = programs.setdefault(key, known)
        return known

    @jax.custom_jvp
    def call(arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        return program_for(leaves, tree)(leaves)

    @call.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        (arguments,), (changes,) = primals, tangents
        return jax.jvp(
            lambda arguments: fn(*arguments[0], **arguments[1]),
            (arguments,),
            (changes,),
        )

    del derivative

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return call((args, kwargs))
        return program_for(leaves, tree)(leaves)

    return update_wrapper(wrapper, fn)


def raised(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> ModuleOp:
    """The program of a function for some arguments, at the stage `moa`.

    Arguments may be arrays, or each a `jax.ShapeDtypeStruct`.

    Raises:
        CompileError: if torch-mlir is missing, or something cannot be raised.
    """
    import jax

    leaves, tree = jax.tree.flatten((args, kwargs))
    return _raised(stablehlo(fn, leaves, tree)[0])


def stablehlo(fn: Callable[..., Any], leaves: Sequence[Any], tree: Any) -> Any:
    """A function in StableHLO, as text in generic form, and what its results are.

    Its arguments are those leaves of pytrees.
    """
    import jax

    def flat(*leaves: Any) -> Any:
        args, kwargs = jax.tree.unflatten(tree, leaves)
        return fn(*args, **kwargs)

    lowered = jax.jit(flat, keep_unused=True).lower(*leaves)
    text = generic_text_of(lowered.compiler_ir("stablehlo"))
    return text, lowered.out_info


def to_linalg(text: str) -> str:
    """StableHLO as linalg on tensors, both as text, by torch-mlir's converter.

    It runs as a process of its own. Elementwise operations of CHLO that the converter
    does not have become linalg here.

    Raises:
        CompileError: if torch-mlir is missing.
        PipelineError: for what it does not take, with the place in the source.
    """
    module = parse_text(text)
    conversion = CONVERSION
    if stablehlo_forms.has_control(module):
        module = parse_text(_converted(text, INLINING))
        conversion = CONVERSION.replace("symbol-dce,", f"symbol-dce,{SIMPLIFICATION},")
    stablehlo_forms.prepare(module)
    module = parse_text(_converted(print_text(module), conversion))
    for op in list(module.walk()):
        if name_of(op).startswith("chlo."):
            _replace_chlo(op)
    for op in module.walk():
        _locate(op)
    _check_converted(module)
    return print_text(module)


def _converted(text: str, passes: str) -> str:
    """A module after passes of torch-mlir.

    Raises:
        PipelineError: for what they do not take, with the place in the source.
    """
    result = subprocess.run(
        (
            *(converter(), f"--pass-pipeline={passes}"),
            *("--mlir-print-op-generic", "--mlir-print-debuginfo"),
            *("--mlir-print-local-scope", "--allow-unregistered-dialect"),
        ),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if not result.returncode:
        return result.stdout
    found = re.search(
        r'^(?:loc\()?.*?"?([^"\s]*)"?:(\d+):(\d+).*?error: (.*)$',
        result.stderr,
        re.MULTILINE,
    )
    if found is None:
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        raise PipelineError(f"torch-mlir rejects the module: {lines[0]}")
    raise PipelineError(found[4], ":".join(found.group(1, 2, 3)))


def converter() -> str:
    """The tool of torch-mlir, which the wheel brings.

    Raises:
        CompileError: if torch-mlir is not installed.
    """
    if not (tool := torch_mlir_opt()):
        raise CompileError("functions of JAX need torch-mlir: pip install torch-mlir")
    return tool


def _locate(op: Operation) -> None:
    """Let an operation's location be the innermost place that is not in this file."""
    for place in file_locations(op.location):
        if place.filename.data != __file__:
            op.location = place
            return


def _check_converted(module: ModuleOp) -> None:
    for op in module.walk():
        name = name_of(op)
        parent = op.parent_op()
        is_scatter = parent is not None and name_of(parent) == "stablehlo.scatter"
        if name == "stablehlo.scatter" or is_scatter:
            continue  # It is raised.
        if name.split(".")[0] in ("stablehlo", "chlo", "mhlo", "sdy"):
            raise PipelineError(f"{name} has no form in linalg", described(op.location))


def _raised(text: str) -> ModuleOp:
    raised = run_pipeline(to_linalg(text), "moa-raise-linalg{strict=true}")
    module = parse_text(raised)
    for op in module.walk():
        for name in [name for name in op.attributes if name.split(".")[0] == "jax"]:
            del op.attributes[name]
    return module


# Elementwise operations of CHLO

_Scalar = Callable[[SSAValue, Builder], SSAValue]


def _square(x: SSAValue, builder: Builder) -> SSAValue:
    return builder.insert(arith.MulfOp(x, x)).result


def _erf(x: SSAValue, builder: Builder) -> SSAValue:
    return builder.insert(math.ErfOp(x)).result


def _erfc(x: SSAValue, builder: Builder) -> SSAValue:
    one = builder.insert(constant(1.0, x.type)).result
    return builder.insert(arith.SubfOp(one, _erf(x, builder))).result


def _math(operation: Callable[[SSAValue], Operation]) -> _Scalar:
    return lambda x, builder: builder.insert(operation(x)).results[0]


_CHLO: dict[str, _Scalar] = {
    "chlo.square": _square,
    "chlo.erf": _erf,
    "chlo.erfc": _erfc,
    "chlo.asin": _math(math.AsinOp),
    "chlo.acos": _math(math.AcosOp),
    "chlo.atan": _math(math.AtanOp),
    "chlo.sinh": _math(math.SinhOp),
    "chlo.cosh": _math(math.CoshOp),
    "chlo.asinh": _math(math.AsinhOp),
    "chlo.acosh": _math(math.AcoshOp),
    "chlo.atanh": _math(math.AtanhOp),
}


def _replace_chlo(op: Operation) -> None:
    """An elementwise operation as linalg, if its scalar operation is known."""
    scalar = _CHLO.get(name_of(op))
    if scalar is None or not _is_float(op.operands[0].type):
        return
    (operand,), (result,) = op.operands, op.results
    builder = Builder(InsertPoint.before(op))
    output = builder.insert(tensor.EmptyOp([], result.type)).results[0]
    element = element_of(result.type)
    block = Block(arg_types=[element, element])
    body = Builder(InsertPoint.at_end(block))
    body.insert(YieldOp(scalar(block.args[0], body)))
    rank = len(shape_of(result.type))
    generic = GenericOp(
        [operand],
        [output],
        Region(block),
        [AffineMapAttr(AffineMap.identity(rank))] * 2,
        [IteratorTypeAttr(IteratorType.PARALLEL)] * rank,
        [result.type],
    )
    for each in (generic, *block.ops):
        each.location = op.location
    Rewriter.replace_op(op, generic)


def _is_float(type_: Attribute) -> bool:
    return isa(type_, TensorType) and isinstance(type_.get_element_type(), AnyFloat)


# Compilation


@dataclass
class _Program:
    """A compiled function: on JAX arrays, those leaves of its arguments."""

    run: Callable[..., Any]
    dtypes: Sequence[Any]
    tree: Any

    def __call__(self, leaves: Sequence[Any]) -> Any:
        import jax
        import jax.numpy as jnp

        arrays = [
            leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf, dtype)
            for leaf, dtype in zip(leaves, self.dtypes, strict=True)
        ]
        found = self.run(*arrays)
        return jax.tree.unflatten(
            self.tree, found if isinstance(found, tuple) else (found,)
        )


def _is_weak(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex)


def _compiled(
    fn: Callable[..., Any], leaves: Sequence[Any], tree: Any, options: Options
) -> _Program:
    import jax

    from moa_dialect.lowering.program import Program, compile_program

    text, out_info = stablehlo(fn, leaves, tree)
    module = _raised(text)
    compiled: Any = compile_program(module, "main", options)
    if isinstance(compiled, Program):
        steps = [replace(step, kernel=foreign(step.kernel)) for step in compiled.steps]
        program = replace(compiled, steps=steps)

        def run(*arrays: Any) -> Any:  # A program is no key of a cache.
            return program(*arrays)

    else:
        run = foreign(compiled)
    dtypes = [jax.typeof(leaf).dtype for leaf in leaves]
    return _Program(jax.jit(run), dtypes, jax.tree.structure(out_info))


_REGISTERED: set[str] = set()
_LOCK = Lock()


def foreign(kernel: Any) -> Callable[..., Any]:
    """A kernel as a function on JAX arrays: a call of XLA's foreign functions."""
    import ctypes

    import jax

    from moa_dialect.lowering.xla_ffi import handler

    signature = kernel.signature
    name = signature.symbol
    with _LOCK:
        if name not in _REGISTERED:
            address = ctypes.c_void_p(handler(kernel))
            jax.ffi.register_ffi_target(
                name, jax.ffi.pycapsule(address), platform="cpu", api_version=1
            )
            _REGISTERED.add(name)
    results = [
        jax.ShapeDtypeStruct(output.shape, output.numpy_dtype())
        for output in signature.outputs
    ]
    call = jax.ffi.ffi_call(
        name, results[0] if len(results) == 1 else results, vmap_method="sequential"
    )

    def run(*arrays: Any) -> Any:
        found = call(*arrays)
        return found if len(results) == 1 else tuple(found)

    return run
