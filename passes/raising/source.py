"""A module as upstream MLIR reads it, for the rules to look at.

Upstream parses and verifies; what its interfaces know of an operation, the indexing
maps of the named ones, and where it stands in the source, is written next to it as
attributes. Operations of linalg and tensor stay unregistered on this side.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.arith import Arith
from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    Builtin,
    DenseArrayBase,
    IntegerAttr,
    ModuleOp,
    StringAttr,
)
from xdsl.dialects.cf import Cf
from xdsl.dialects.func import Func
from xdsl.dialects.math import Math
from xdsl.dialects.scf import Scf
from xdsl.ir import Attribute, Operation
from xdsl.ir.affine import AffineMap
from xdsl.utils.exceptions import ParseError
from xdsl.utils.hints import isa

from moa_dialect.dialect import Moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering.unregistered import name_of
from moa_dialect.parsing import ModuleParser

if TYPE_CHECKING:
    from mlir import ir

LOCATION = "moa.location"
"""The attribute of an operation that says where it stands in the source."""

MAPS = "moa.indexing_maps"
"""The attribute of an operation with the indexing maps that upstream knows of it."""

_PLACE = re.compile(r'loc\((?:.*?)"([^"]*)":(\d+):(\d+)')
_RESOURCES = re.compile(r"\n\{-#.*#-\}\s*\Z", re.DOTALL)
_BLOB = re.compile(r'"?([^\s":{}]+)"?: "0x([0-9A-Fa-f]*)"')
_COMMENT = re.compile(r"//[^\n]*")
_UPSTREAM = re.compile(r"\b(?:linalg|tensor|tm_tensor)\.\w")
_OURS = re.compile(r"(?<![\w.\"@!#])\"?moa\.(?!location|indexing_maps)\w")


def is_upstream_text(text: str) -> bool:
    """Whether text has operations of linalg or tensor, and none of moa."""
    code = _COMMENT.sub("", text)
    return _UPSTREAM.search(code) is not None and _OURS.search(code) is None


_DIVISION = re.compile(r"\b(floordiv|ceildiv|mod)\s+-?0+\b(?!x)")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*')
_TM_TENSOR = re.compile(r"\btm_tensor\.")
_OTHERS = ("linalg.", "tensor.", "tm_tensor.")
_LARGEST_ALIGNMENT = 1 << 16


def check_text(text: str, name: str) -> None:
    """Check for what upstream's parser ends the process on.

    That is a division by 0 in an affine map, resources that the file ends in, and
    resources that want to be aligned to no power of 2, or to a very large one.

    Raises:
        CompileError: with file, line and column.
    """
    if "{-#" not in text and _DIVISION.search(text) is None:
        return
    # Characters of strings and comments do not count; places stay.
    code = _QUOTED.sub(lambda found: " " * len(found[0]), text)
    start = code.rfind("{-#")
    if start >= 0 and "#-}" not in code[start:]:
        message = "the resources that begin here have no end: expected #-}"
        raise CompileError(f"{_position(text, start, name)}{message}")
    if (found := _DIVISION.search(code)) is not None:
        message = f"an index is divided by 0: {' '.join(found[0].split())}"
        raise CompileError(f"{_position(text, found.start(), name)}{message}")
    if start < 0:
        return
    for found in _BLOB.finditer(text, start):
        head = found[2][:8]
        if len(head) < 8:
            message = f"the resource {found[1]}: expected at least 4 bytes"
        else:
            alignment = int.from_bytes(bytes.fromhex(head), "little")
            if 0 < alignment <= _LARGEST_ALIGNMENT and not alignment & (alignment - 1):
                continue
            message = (
                f"the resource {found[1]}: expected a power of 2 of at most "
                f"{_LARGEST_ALIGNMENT} as alignment in its first 4 bytes, "
                f"got {alignment}"
            )
        raise CompileError(f"{_position(text, found.start(), name)}{message}")


def _position(text: str, offset: int, name: str) -> str:
    """`file:line:column: ` of a place in a text."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"{name}:{line}:{column}: "


def _native(text: str, name: str) -> ir.Module:
    """Parse and verify upstream.

    Raises:
        CompileError: with file, line and column of the first error.
    """
    from mlir import ir

    check_text(text, name)
    context = ir.Context()
    # An unknown operation of a known dialect is an error all the same.
    context.allow_unregistered_dialects = True
    try:
        return ir.Module.parse(text, context)
    except ir.MLIRError as error:
        raise CompileError(_described(error, name)) from None


def located_text(text: str, name: str) -> str:
    """Text in upstream's own syntax in generic form, with locations.

    Raises:
        CompileError: with file, line and column of the first error.
    """
    return _in_process_or_not("located", text, name)


def _described(error: Any, name: str) -> str:
    diagnostics = list(getattr(error, "error_diagnostics", ()))
    for diagnostic in diagnostics:
        message = " ".join(str(diagnostic.message).split())
        return f"{_place(str(diagnostic.location), name) or f'{name}: '}{message}"
    return f"{name}: upstream MLIR rejects the module"


def _place(location: str, name: str) -> str:
    """`file:line:column: ` of a location, empty if it has none."""
    found = _PLACE.search(location)
    if found is None:
        return ""
    file = name if found[1] in ("-", "<stdin>") else found[1]
    return f"{file}:{found[2]}:{found[3]}: "


def _annotate(module: ir.Module, name: str) -> None:
    """Write locations and indexing maps next to the operations."""
    from mlir import ir
    from mlir.dialects import linalg

    def visit(op: Any) -> Any:
        is_ours = op.name.startswith(_OTHERS) and "yield" not in op.name
        if is_ours or op.name == "func.func" or _gives_tensors(op):
            with module.context:
                place = _place(str(op.location), name).removesuffix(": ")
                if place and LOCATION not in op.attributes:
                    op.attributes[LOCATION] = ir.StringAttr.get(place)
                maps = linalg.get_indexing_maps(op)
                if maps is not None:
                    op.attributes[MAPS] = maps
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)


def _gives_tensors(op: Any) -> bool:
    return any(str(result.type).startswith("tensor<") for result in op.results)


def _context() -> Context:
    context = Context(allow_unregistered=True)
    for dialect in (Builtin, Arith, Cf, Func, Math, Moa, Scf):
        context.load_dialect(dialect)
    return context


@cache
def torch_mlir_opt() -> str:
    """The tool of torch-mlir, which its wheel brings; empty if it is not installed."""
    spec = find_spec("torch_mlir")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        tool = Path(folder) / "_mlir_libs" / "torch-mlir-opt"
        if os.access(tool, os.X_OK):
            return str(tool)
    return ""


def _without_syntax(text: str, name: str) -> str:
    """Text without the syntax of torch-mlir's own dialect, which upstream has not.

    Raises:
        CompileError: if torch-mlir, which has, is not installed.
    """
    found = _TM_TENSOR.search(_QUOTED.sub(lambda found: " " * len(found[0]), text))
    if found is None:
        return text
    tool = torch_mlir_opt()
    if not tool:
        place = _position(text, found.start(), name)
        message = (
            "operations of tm_tensor are read by torch-mlir: pip install torch-mlir"
        )
        raise CompileError(f"{place}{message}")
    check_text(text, name)
    options = ["--mlir-print-op-generic", "--mlir-print-debuginfo"]
    if "dense_resource<" not in text:
        # Only outside of a local scope are there the elements.
        options.append("--mlir-print-local-scope")
    result = subprocess.run(
        (tool, "--allow-unregistered-dialect", *options),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if not result.returncode:
        return result.stdout
    error = re.search(r"(\d+):(\d+): error: (.*)", result.stderr)
    if error is None:
        raise CompileError(f"{name}: torch-mlir rejects the module")
    raise CompileError(f"{name}:{error[1]}:{error[2]}: {error[3]}")


def annotated_text(text: str, name: str) -> str:
    """MLIR text in generic form, annotated.

    Raises:
        CompileError: with file, line and column, if upstream does not accept it.
    """
    return _in_process_or_not("annotated", text, name)


def _annotated(text: str, name: str) -> str:
    native = _native(_without_syntax(text, name), name)
    _annotate(native, name)
    return str(native.operation.get_asm(print_generic_op_form=True))


def _located(text: str, name: str) -> str:
    operation = _native(_without_syntax(text, name), name).operation
    is_local = "dense_resource<" not in text  # Else elements would be missing.
    return str(
        operation.get_asm(
            print_generic_op_form=True, enable_debug_info=True, use_local_scope=is_local
        )
    )


_FORMS = {"annotated": _annotated, "located": _located}


def in_form(form: str, text: str, name: str) -> str:
    """MLIR text in another form, by upstream's bindings.

    Raises:
        CompileError: with file, line and column, if upstream does not accept it.
        ImportError: if the bindings cannot be loaded.
    """
    return _FORMS[form](text, name)


def _in_process_or_not(form: str, text: str, name: str) -> str:
    """The same, by a process of its own if this one cannot load the bindings.

    Libraries of other bindings that have been loaded, IREE's for one, prevent that.

    Raises:
        CompileError: with file, line and column, if upstream does not accept it.
        ImportError: if the bindings cannot be loaded there either.
    """
    try:
        import_module("mlir.ir")
    except ImportError as error:
        reason = error
    else:
        return in_form(form, text, name)
    result = subprocess.run(
        (sys.executable, "-c", _ELSEWHERE, form, name),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == _REJECTED:
        raise CompileError(result.stderr.strip())
    if result.returncode:
        raise reason
    return result.stdout


_REJECTED = 3
_ELSEWHERE = f"""
import sys
from moa_dialect.errors import CompileError
from moa_dialect.passes.raising.source import in_form
form, name = sys.argv[1:]
try:
    sys.stdout.write(in_form(form, sys.stdin.read(), name))
except CompileError as error:
    sys.stderr.write(str(error))
    sys.exit({_REJECTED})
"""
"""A program that writes what it reads in another form."""


def parse(text: str, context: Context | None = None) -> ModuleOp:
    """A module from generic text; arrays kept in resources become constants.

    Args:
        text: the text.
        context: the dialects to be read as such; those that rules need if not given.

    Raises:
        CompileError: if xDSL cannot read it.
    """
    context = _context() if context is None else context
    blobs: dict[str, bytes] = {}
    if (found := _RESOURCES.search(text)) is not None:
        # Four bytes before the elements say how they are aligned.
        blobs = {n: bytes.fromhex(d)[4:] for n, d in _BLOB.findall(found[0])}
        text = text[: found.start()]
    text = _with_elements(text, blobs)
    try:
        return ModuleParser(context, text).parse_module()
    except (ParseError, NotImplementedError, ValueError) as error:
        raise CompileError(f"cannot read upstream's text: {error}") from None


_ANNOTATED = re.compile(rf'\b{re.escape(LOCATION)} = "([^"\n]*)"')
_RESOURCE = re.compile(r"dense_resource<([^>]+)> : tensor<((?:\d+x)*)(\w+)>")
_BYTES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "index": 8}


def _with_elements(text: str, blobs: dict[str, bytes]) -> str:
    """Text in which arrays stand where they are used, not in resources."""

    def elements(found: re.Match[str]) -> str:
        name, shape, element = found[1].strip('"'), found[2], found[3]
        data = blobs.get(name)
        if data is None:
            place = _ANNOTATED.search(found.string, found.end())
            where = "" if place is None else f"{place[1]}: "
            message = f"the resource {name} has no elements in this file"
            raise CompileError(f"{where}{message}")
        count = int(np.prod([int(n) for n in shape.split("x") if n], dtype=np.int64))
        type_ = f"tensor<{shape}{element}>"
        if element == "i1":  # A byte for each element.
            if len(data) != count:
                raise CompileError(_size_message(name, count, len(data)))
            words = ["true" if byte else "false" for byte in data]
            return f"dense<{_nested(words, shape)}> : {type_}"
        size = _BYTES.get(element)
        if size is None:
            return found[0]
        if len(data) != size * count:
            raise CompileError(_size_message(name, size * count, len(data)))
        return f'dense<"0x{data.hex().upper()}"> : {type_}'

    return _RESOURCE.sub(elements, text)


def _size_message(name: str, expected: int, given: int) -> str:
    return f"the resource {name}: expected {expected} bytes, got {given}"


def _nested(words: list[str], shape: str) -> str:
    """Elements in nested brackets."""
    for extent in reversed([int(n) for n in shape.split("x") if n]):
        words = [
            f"[{', '.join(words[start : start + extent])}]"
            for start in range(0, len(words), extent)
        ]
    return words[0]


# What the rules read off an operation.


def property_of(op: Operation, name: str) -> Attribute | None:
    """A property or attribute of an operation."""
    return op.properties.get(name, op.attributes.get(name))


def integers_of(op: Operation, name: str) -> tuple[int, ...]:
    """A list of numbers in a property, empty if there is none."""
    found = property_of(op, name)
    if isinstance(found, DenseArrayBase):
        return tuple(int(value) for value in found.iter_values())
    if isa(found, ArrayAttr[IntegerAttr]):
        return tuple(value.value.data for value in found)
    return ()


def maps_of(op: Operation) -> tuple[AffineMap, ...]:
    """The indexing maps of an operation, one for each operand."""
    found = op.attributes.get(MAPS)
    if not isa(found, ArrayAttr[AffineMapAttr]):
        return ()
    return tuple(each.data for each in found)


def location_of(op: Operation) -> str:
    """`file:line:column` of an operation, empty if it is not known."""
    found = op.attributes.get(LOCATION)
    return found.data if isinstance(found, StringAttr) else ""


def without_annotations(module: ModuleOp) -> None:
    """Remove what was written next to the operations."""
    for op in module.walk():
        op.attributes.pop(MAPS, None)
        op.attributes.pop(LOCATION, None)


__all__ = [
    "LOCATION",
    "MAPS",
    "annotated_text",
    "integers_of",
    "is_upstream_text",
    "location_of",
    "maps_of",
    "name_of",
    "parse",
    "property_of",
    "without_annotations",
]
