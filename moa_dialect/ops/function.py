"""Scalar functions as attributes: a name of the table or a symbol, and their syntax."""

from __future__ import annotations

from typing import TypeAlias

from xdsl.dialects.builtin import (
    DenseArrayBase,
    IntegerType,
    StringAttr,
    SymbolRefAttr,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation
from xdsl.irdl import IRDLOperation, base
from xdsl.irdl.declarative_assembly_format import (
    AttributeVariable,
    CustomDirective,
    ParsingState,
    PrintingState,
    irdl_custom_directive,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS, ScalarOperation, names
from moa_dialect.types import element_type_of, is_element_type, kind_of

FunctionAttr: TypeAlias = StringAttr | SymbolRefAttr


class ElementTypeException(VerifyException):
    """An element type that an operation does not take."""


FUNCTION = base(StringAttr) | base(SymbolRefAttr)
"""The constraint on the `function` property of the operations that apply one."""


def as_function(function: str | FunctionAttr) -> FunctionAttr:
    """The attribute for a scalar operation's name (or an attribute as it is)."""
    return StringAttr(function) if isinstance(function, str) else function


def parse_function(parser: Parser) -> FunctionAttr:
    """Parse `add` or `@name`."""
    symbol = parser.parse_optional_symbol_name()
    if symbol is not None:
        return SymbolRefAttr(symbol)
    return StringAttr(parser.parse_identifier(": scalar operation or @function"))


def print_function(printer: Printer, function: Attribute) -> None:
    """Print what `parse_function` reads."""
    if isinstance(function, StringAttr):
        printer.print_string(function.data)
    else:
        printer.print_attribute(function)


@irdl_custom_directive
class ScalarFunction(CustomDirective):
    """`add` for a scalar operation of the table, `@name` for a function symbol."""

    function: AttributeVariable

    def parse(self, parser: Parser, state: ParsingState) -> None:
        self.function.set(state, parse_function(parser))

    def print(self, printer: Printer, state: PrintingState, op: IRDLOperation) -> None:
        state.print_whitespace(printer)
        function = self.function.get(op)
        assert function is not None
        print_function(printer, function)


@irdl_custom_directive
class CellRanks(CustomDirective):
    """The cell ranks of omega as MoA writes them: `<1, 0>`."""

    ranks: AttributeVariable

    def parse(self, parser: Parser, state: ParsingState) -> None:
        ranks = parser.parse_comma_separated_list(
            parser.Delimiter.ANGLE, parser.parse_integer
        )
        self.ranks.set(state, DenseArrayBase.from_list(i64, ranks))

    def print(self, printer: Printer, state: PrintingState, op: IRDLOperation) -> None:
        state.print_whitespace(printer)
        ranks = self.ranks.get(op)
        assert isa(ranks, DenseArrayBase[IntegerType])
        with printer.in_angle_brackets():
            printer.print_list(ranks.iter_values(), printer.print_int)
        state.last_was_punctuation = True


def scalar_operation(function: FunctionAttr, arity: int) -> ScalarOperation:
    """The table's entry for a named function.

    Raises:
        VerifyException: if the name is unknown or of another arity.
    """
    assert isinstance(function, StringAttr)
    operation = SCALAR_OPERATIONS.get(function.data)
    if operation is None or operation.arity != arity:
        raise VerifyException(
            f"unknown scalar operation of {arity} argument(s): expected one of "
            f"{', '.join(names(arity))}, got {function.data}"
        )
    return operation


def lookup_function(op: Operation, symbol: SymbolRefAttr) -> FuncOp:
    """The function a symbol names, as seen from `op`.

    Raises:
        VerifyException: if there is none, or it would be applied inside itself.
    """
    in_module = op.get_toplevel_object().has_trait(SymbolTable)  # pyright: ignore
    found = SymbolTable.lookup_symbol(op, symbol) if in_module else None
    if not isinstance(found, FuncOp) or len(found.body.blocks) != 1:
        raise VerifyException(
            f"unknown function: expected a func.func of one block named {symbol}"
        )
    if _applies(found, op):
        raise VerifyException(f"function {symbol} must not be applied inside itself")
    return found


def _applies(function: FuncOp, application: Operation) -> bool:
    """Whether an application is in a function, or in one that is applied there."""
    seen: set[Operation] = set()
    pending: list[Operation] = [function]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.is_ancestor(application):
            return True
        for op in current.walk():
            for name in ("function", "combine"):
                symbol = op.properties.get(name)
                if isinstance(symbol, SymbolRefAttr):
                    found = SymbolTable.lookup_symbol(op, symbol)
                    pending += () if found is None else (found,)
    return False


def apply_type(
    op: Operation, function: FunctionAttr, arguments: tuple[Attribute, ...]
) -> Attribute:
    """The element type of `function` applied to elements of these types.

    Raises:
        VerifyException: if the function does not take them.
    """
    given = ", ".join(map(str, arguments))
    if isinstance(function, SymbolRefAttr):
        type_ = lookup_function(op, function).function_type
        if type_.inputs.data != arguments or len(type_.outputs) != 1:
            raise VerifyException(
                f"function {function} must map ({given}) to one scalar, got {type_}"
            )
        (result,) = type_.outputs.data
        if not is_element_type(result):
            raise VerifyException(f"function {function} must give a scalar: {type_}")
        return result
    operation = scalar_operation(function, len(arguments))
    for argument in arguments:
        if not is_element_type(argument):
            raise VerifyException(f"unsupported element type: {argument}")
    if len(set(arguments)) != 1:
        raise ElementTypeException(
            f"{operation.name}: operands must have one element type, got {given}"
        )
    if (kind := kind_of(arguments[0])) not in operation.kinds:
        expected = " or ".join(sorted(operation.kinds))
        raise ElementTypeException(
            f"{operation.name}: expected elements of kind {expected}, "
            f"got {arguments[0]} ({kind})"
        )
    return element_type_of("i1") if operation.is_predicate else arguments[0]


def verify_combines(
    op: Operation, function: FunctionAttr, element_type: Attribute
) -> None:
    """Check that `function` can fold elements of this type.

    Raises:
        VerifyException: unless it maps two elements of the type to one.
    """
    result = apply_type(op, function, (element_type, element_type))
    if result != element_type:
        raise ElementTypeException(
            f"a fold needs a function from two {element_type} to {element_type}, "
            f"{print_name(function)} gives {result}"
        )


def print_name(function: FunctionAttr) -> str:
    """The function's name for a message."""
    return function.data if isinstance(function, StringAttr) else str(function)


def has_identity(function: FunctionAttr) -> bool:
    """Whether the function is known to have a two-sided identity element."""
    if not isinstance(function, StringAttr):
        return False
    operation = SCALAR_OPERATIONS.get(function.data)
    return operation is not None and operation.identity is not None
