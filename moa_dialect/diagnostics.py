"""Errors that are a user's to mend, as text on stderr instead of a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise

from xdsl.dialects.builtin import LocationAttr, ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, Region, SSAValue
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    VerifyException,
)

from moa_dialect.errors import MoaError
from moa_dialect.parsing import file_locations

MAX_SOURCE = 200
"""A line of source that is longer is not shown."""


class BadInputError(Exception):
    """What a command was given does not fit. The message is one line."""


def describe(error: BaseException) -> str:
    """One line, or for malformed text a line with its source below.

    A verifier's message begins with the operation it speaks of.
    """
    match error:
        case ParseError(span=span, msg=message):
            first = f"{span.get_location()}: {_one_line(message)}"
            _, source, carets, *_ = [*str(error).splitlines(), "", ""]
            is_shown = source.strip() and len(source) <= MAX_SOURCE
            return "\n".join([first, source, carets] if is_shown else [first])
        case ArgSpecParseError():
            _, location, *context = str(error).rstrip().splitlines()
            return f"{location}: {_one_line(context[-1])}"
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
        case _:
            return _operation(error) + _one_line(str(error))


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _operation(error: BaseException) -> str:
    """`%c = moa.map(%a): ` if xDSL's notes point at an operation, else nothing."""
    for note in getattr(error, "__notes__", ()):
        lines = note.splitlines()
        for line, marker in pairwise(lines):
            found = re.match(r'\s*((?:%.* = )?)"([\w.]+)"(\([^)]*\))', line)
            if found and re.fullmatch(r"\s*\^+-*", marker):
                return "".join(found.groups()) + ": "
    return ""


def check_definitions(module: ModuleOp) -> None:
    """Check that the values in functions are defined before they are used.

    xDSL's verifier does not: it accepts, for one, an index used outside its loop.

    Raises:
        VerifyException: with the first value that is not.
    """
    for op in module.walk():
        if isinstance(op, FuncOp):
            _check_region(op.body, set())


def _check_region(region: Region, visible: set[SSAValue]) -> None:
    blocks = list(region.blocks)
    local: set[SSAValue] = {value for block in blocks for value in block.args}
    if len(blocks) > 1:  # in which order they run is not followed
        local.update(
            value for block in blocks for op in block.ops for value in op.results
        )
    visible |= local
    for block in blocks:
        for op in block.ops:
            for operand in op.operands:
                if operand not in visible:
                    name = operand.name_hint or "?"
                    raise VerifyException(
                        f"{op.name} uses %{name} where it is not defined"
                    )
            for inner in op.regions:
                _check_region(inner, visible)
            visible.update(op.results)
            local.update(op.results)
    visible -= local


def described(location: LocationAttr) -> str:
    """A location as `file:line:column`, the innermost; else its name, if it has one."""
    for place in file_locations(location):
        return f"{place.filename.data}:{place.line.data}:{place.column.data}"
    return location.desc.data if isinstance(location, NameLoc) else ""


def unverified(module: ModuleOp) -> Operation | None:
    """The innermost operation that does not verify by itself."""
    for op in module.walk(reverse=True):
        try:
            op.verify(verify_nested_ops=False)
        except Exception:  # whatever it is, the operation is the one
            return op
    return None


def place_of(error: Exception, module: ModuleOp) -> str:
    """Where the operation is that an error of a pass is about, as far as that is known.

    That is the operation that does not verify; or the innermost variable `op` of the
    functions that were left, among those with a location; or the function that the
    message names; or the only one.
    """
    ops: list[Operation] = []
    trace = error.__traceback__
    while trace is not None:
        op = trace.tb_frame.f_locals.get("op")
        if isinstance(op, Operation) and not isinstance(op, ModuleOp):
            ops.append(op)
        trace = trace.tb_next
    functions = [op for op in module.walk() if isinstance(op, FuncOp)]
    named = re.findall(r"@(\w+)", str(error))
    candidates = [
        *([] if (culprit := unverified(module)) is None else [culprit]),
        *reversed(ops),
        *(op for op in functions if op.sym_name.data in named),
        *(op for op in functions if len(functions) == 1),
    ]
    return next(filter(None, (described(op.location) for op in candidates)), "")


@contextmanager
def reported(tool: str) -> Generator[None]:
    """Turn an error of the user's into a message and exit status 1."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnicodeEncodeError as error:
        glyph = error.object[error.start]
        _fail(tool, f"the output's encoding {error.encoding} has no {glyph!a}")
    except RecursionError:
        _fail(tool, "the input is nested too deeply")
    except (
        ArgSpecParseError,
        BadInputError,
        DiagnosticException,
        MoaError,
        OSError,
        ParseError,
    ) as error:
        _fail(tool, describe(error))


def _fail(tool: str, message: str) -> None:
    sys.stderr.write(f"{tool}: {message}\n")
    sys.exit(1)
