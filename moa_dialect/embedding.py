"""moa's passes inside other compilers: on text, or on modules of upstream's bindings.

    moa.run_pipeline(module, "moa-to-dnf,moa-to-linalg")

There are many copies of MLIR's Python bindings, `mlir` being one; JAX, torch-mlir and
IREE bring their own, each with the MLIR that it was built with. All of them print and
parse the generic form, which is what is exchanged here; none of them is imported.
"""

# Modules of the bindings have no types here: they may be of any copy.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar, cast

from xdsl.context import Context
from xdsl.dialects.builtin import (
    ModuleOp,
    UnknownLoc,
)
from xdsl.passes import ModulePass
from xdsl.printer import Printer
from xdsl.universe import Universe
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    VerifyException,
)

from moa_dialect.diagnostics import (
    check_definitions,
    described,
    place_of,
    unverified,
)
from moa_dialect.errors import CompileError, MoaError, PipelineError
from moa_dialect.parsing import LocatingParser, with_elements
from moa_dialect.passes.infer_shapes import operation_name

if TYPE_CHECKING:
    pass

Module = TypeVar("Module")

DIALECTS = ("builtin", "func", "arith", "math", "scf", "cf", "memref", "moa")
"""The dialects that moa's passes read. Operations of others are kept as they are.

That is so of linalg and tensor too: xDSL knows some of their operations and rules, and
other versions of MLIR have others.
"""


def run_pipeline(
    module_or_text: Module, pipeline: str, *, generic: bool = False
) -> Module:
    """Run passes over a module of another compiler; what was given stays as it is.

    Operations of dialects that moa does not know pass through untouched, and so do the
    locations of operations, of ranges in files their start.

    Args:
        module_or_text: MLIR text, or an `ir.Module` of any copy of the upstream
            bindings: `mlir`, `jaxlib.mlir`, `torch_mlir`, `iree.compiler`...
        pipeline: passes as `moa-opt -p` takes them: moa's, xDSL's, and upstream's by
            `mlir-pipeline{pipeline="..."}`.
        generic: print text in generic form, which upstream reads without knowing moa.

    Returns:
        The same kind: text, with locations if there were any; or a new module of the
        same copy of the bindings, in the same context.

    Raises:
        PipelineError: for text that is not MLIR, an unknown pass or option, a program
            that a pass does not accept, or a result that the module's context does not
            accept. Its `location` is that of the operation, if that is known.
        TypeError: for what is neither text nor a module.
    """
    passes = _passes(pipeline)
    if isinstance(module_or_text, str):
        parsed, has_locations = _parse(module_or_text, "<text>")
        _apply(parsed, passes)
        return cast(Module, _print(parsed, generic, has_locations))
    given: Any = module_or_text
    if not (hasattr(given, "operation") and hasattr(type(given), "parse")):
        raise TypeError(
            f"expected text or a module of the upstream bindings, got "
            f"{type(given).__name__}"
        )
    parsed, _ = _parse(generic_text_of(given), "<module>", is_printed=True)
    _apply(parsed, passes)
    return _back(given, parsed)


def upstream_pass(pipeline: str) -> Callable[[Any, Any], None]:
    """A pass for a PassManager of upstream's bindings that runs moa's passes.

        manager = PassManager("builtin.module", context)
        manager.add("canonicalize")
        manager.add(moa.upstream_pass("moa-raise-linalg,moa-to-dnf"), "moa")
        manager.run(module.operation)

    It works on modules, in place. What goes wrong becomes a diagnostic at the operation
    that it is about, and the pass fails.

    Raises:
        PipelineError: for an unknown pass or option.
    """
    passes = _passes(pipeline)

    def run(op: Any, pass_: Any) -> None:
        try:
            if op.name != "builtin.module":
                raise PipelineError(f"moa works on builtin.module, got {op.name}")
            parsed, _ = _parse(generic_text_of(op), "<module>", is_printed=True)
            _apply(parsed, passes)
            _replace(op, _back(op.operation, parsed))
        except PipelineError as error:
            _location_of(op, error).emit_error(error.message)
            pass_.signal_pass_failure()

    return run


def context() -> Context:
    """A context that knows what moa reads, and keeps all else as it is printed."""
    found = Context(allow_unregistered=True)
    known = _universe().all_dialects
    for name in DIALECTS:
        found.register_dialect(name, known[name])
    return found


@cache
def _universe() -> Universe:
    """What xDSL, its plug-ins and moa have: an installed copy of moa is a plug-in."""
    from moa_dialect.universe import MOA_UNIVERSE

    known = Universe.get_multiverse()
    return Universe(
        all_dialects=known.all_dialects | MOA_UNIVERSE.all_dialects,
        all_passes=known.all_passes | MOA_UNIVERSE.all_passes,
    )


# Passes


def _passes(pipeline: str) -> list[ModulePass]:
    """The passes of a pipeline, with their options."""
    from moa_dialect.universe import MOA_UNIVERSE

    known = _universe().all_passes
    try:
        specs = list(parse_pipeline(pipeline))
    except ArgSpecParseError as error:
        message = str(error).rstrip().splitlines()[-1].strip()
        raise PipelineError(f"pipeline '{pipeline}': {message}") from None
    found: list[ModulePass] = []
    for spec in specs:
        if spec.name not in known:
            ours = ", ".join(MOA_UNIVERSE.all_passes)
            raise PipelineError(
                f"unknown pass {spec.name}: expected {ours} or a pass of xDSL"
            )
        try:
            found.append(known[spec.name]().from_spec(spec))
        except (ValueError, TypeError, ImportError) as error:
            raise PipelineError(f"pass {spec.name}: {_line(error)}") from error
    return found


def _apply(module: ModuleOp, passes: list[ModulePass]) -> None:
    """Run passes over a module that verifies, verifying after each."""
    known = context()
    try:
        check_definitions(module)
    except VerifyException as error:
        raise PipelineError(_line(error)) from error
    _verify(module, "")
    for each in passes:
        try:
            each.apply(known, module)
        except RecursionError as error:
            raise PipelineError("the program is nested too deeply") from error
        except Exception as error:
            name = "" if _is_ours(error) else f"{each.name} fails: "
            message = f"{name}{_line(error) or type(error).__name__}"
            raise PipelineError(message, place_of(error, module)) from error
        _verify(module, f"after {each.name}: ")
        _locate(module)


def _is_ours(error: Exception) -> bool:
    """Whether an error is about the program, not the failure of a pass."""
    return isinstance(error, MoaError | DiagnosticException | VerifyException)


def _locate(module: ModuleOp) -> None:
    """Give new operations the location of what they are in."""
    for op in module.walk():
        parent = op.parent_op()
        if parent is not None and isinstance(op.location, UnknownLoc):
            op.location = parent.location


def _verify(module: ModuleOp, prefix: str) -> None:
    try:
        module.verify()
    except RecursionError as error:
        raise PipelineError("the program is nested too deeply") from error
    except Exception as error:
        culprit = unverified(module)
        name = f"'{operation_name(culprit)}' op " if culprit is not None else ""
        place = "" if culprit is None else described(culprit.location)
        raise PipelineError(f"{prefix}{name}{_line(error)}", place) from error


def _line(error: Exception) -> str:
    """The first line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, VerifyException | DiagnosticException):
        # xDSL shows the operation first, and marks it below with what is wrong.
        marked = [re.sub(r"^\^+-*", "", line).strip() for line in lines]
        marked = [text for text, line in zip(marked, lines, strict=True) if line]
        said = [
            text
            for text, line in zip(marked, filter(None, lines), strict=True)
            if line.startswith("^^") and text
        ]
        lines = said or lines
    return next((line for line in lines if line), "")


# Text


def parse_text(text: str) -> ModuleOp:
    """A module from its text, which another tool has printed in generic form.

    Raises:
        PipelineError: if the text is not MLIR.
    """
    return _parse(text, "<text>", is_printed=True)[0]


def print_text(module: ModuleOp) -> str:
    """A module in generic form, with the locations of operations."""
    return _print(module, generic=True, locations=True)


def _parse(text: str, name: str, is_printed: bool = False) -> tuple[ModuleOp, bool]:
    """A module from its text, and whether operations had locations.

    Raises:
        PipelineError: if the text is not MLIR.
    """
    parser = None
    text = with_elements(text, name)
    try:
        parser = LocatingParser(context(), text, name, not is_printed)
        return parser.parse_module(), parser.has_locations
    except RecursionError as error:
        raise PipelineError("the text is nested too deeply") from error
    except ParseError as error:
        if not is_printed and (found := _parse_upstream(text, name)) is not None:
            return found
        message = " ".join(error.msg.split())
        raise PipelineError(message, str(error.span.get_location())) from None
    except Exception as error:
        # xDSL's parser reports some malformed text by other errors.
        message = _line(error) or type(error).__name__
        place = "" if parser is None else parser.place()
        raise PipelineError(f"malformed text: {message}", place) from error


def _parse_upstream(text: str, name: str) -> tuple[ModuleOp, bool] | None:
    """A module in upstream's own syntax of linalg and tensor, which xDSL does not have.

    None for text without their operations, or with those of moa.

    Raises:
        PipelineError: if upstream does not read it either.
    """
    from moa_dialect.passes.raising import source

    if not source.is_upstream_text(text):
        return None
    try:
        located = source.located_text(text, name)
    except CompileError as error:
        found = re.fullmatch(r"(.+?:\d+:\d+): (.*)", str(error), re.DOTALL)
        if found is None:
            raise PipelineError(str(error)) from error
        raise PipelineError(found[2], found[1]) from error
    printed = located.replace('loc("-":', f'loc("{name}":')
    module, _ = _parse(printed, name, is_printed=True)
    return module, bool(re.search(r"\bloc\(", text))


def _print(
    module: ModuleOp, generic: bool, locations: bool, properties: bool = True
) -> str:
    stream = StringIO()
    printer = Printer(
        stream,
        print_generic_format=generic,
        print_properties_as_attributes=not properties,
        print_debuginfo=locations,
    )
    printer.print_op(module)
    return f"{stream.getvalue()}\n"


def generic_text_of(module: Any) -> str:
    """A module of any copy of the bindings in generic form, with its locations."""
    operation = getattr(module, "operation", module)
    text = operation.get_asm(
        print_generic_op_form=True, enable_debug_info=True, use_local_scope=True
    )
    if "dense_resource<" in text:
        # Only outside of a local scope are there the elements, and aliases then.
        return operation.get_asm(print_generic_op_form=True, enable_debug_info=True)
    return text


# Modules of the bindings


def _back(given: Any, result: ModuleOp) -> Any:
    """A module as one of the same kind and context as another, or as its operation.

    Raises:
        PipelineError: if that copy of MLIR does not accept it.
    """
    # Dialects that IRDL defines have no properties.
    is_defined = given.context.is_registered_operation("moa.constant")
    text = _print(result, True, True, properties=not is_defined)
    try:
        return type(given).parse(text, context=given.context)
    except Exception as error:
        unknown = _unknown_to(given.context, result)
        hint = (
            f"its context does not know the dialect(s) {', '.join(unknown)}: "
            "set context.allow_unregistered_dialects"
            if unknown
            else _first_error(error)
        )
        raise PipelineError(f"the module's bindings reject the result: {hint}") from (
            error
        )


def _first_error(error: Exception) -> str:
    """What upstream says, without the place, which is in text nobody has seen."""
    found = re.search(r"error: (?:\"[^\"]*\": )?(?:\S+:\d+:\d+: )?(.*)", str(error))
    return found[1] if found else _line(error)


def _unknown_to(known: Any, module: ModuleOp) -> list[str]:
    """The dialects of a module that a context neither has nor lets pass."""
    if known.allow_unregistered_dialects:
        return []
    names = {operation_name(op) for op in module.walk()}
    return sorted(
        {
            name.split(".")[0]
            for name in names
            if not known.is_registered_operation(name)
        }
    )


def _replace(op: Any, module: Any) -> None:
    """Give a module, an operation, the content and attributes of another."""
    body = op.regions[0].blocks[0]
    for old in reversed(list(body.operations)):
        old.erase()
    for new in list(module.regions[0].blocks[0].operations):
        body.append(new)
    attributes: Any = module.attributes
    for name in _attribute_names(op.attributes):
        if name not in attributes:
            del op.attributes[name]
    for name in _attribute_names(attributes):
        op.attributes[name] = attributes[name]


def _attribute_names(attributes: Any) -> Iterator[str]:
    """The names in a map of attributes, whose items differ between versions."""
    names: list[str] = []
    for number in range(len(attributes)):
        names.append(attributes[number].name)
    yield from names


def _location_of(op: Any, error: PipelineError) -> Any:
    """A location of upstream's bindings for an error: that of the pass's module."""
    found = re.fullmatch(r"(.*):(\d+):(\d+)", error.location)
    if found is None:
        return op.location
    kind = type(op.location)
    return kind.file(found[1], int(found[2]), int(found[3]), op.context)
