"""The operational normal form: loops with start, stop, stride; flat addresses."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    UnitAttr,
    i64,
)
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import (
    MemoryAllocEffect,
    MemoryReadEffect,
    MemoryWriteEffect,
    Pure,
    RecursiveMemoryEffect,
)
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.layout import Order
from moa_dialect.ops.normal_form import INDEX, body_of, type_list
from moa_dialect.types import element_of, shape_of

FLAT = MemRefType.constr()


def flat(element: Attribute) -> MemRefType:
    """The type of a flat buffer of elements."""
    return MemRefType(element, [DYNAMIC_INDEX])


def _verify_flat(type_: Attribute) -> None:
    if len(shape_of(type_)) != 1:
        raise VerifyException(f"a flat address needs a flat buffer, got {type_}")


@irdl_op_definition
class RavOp(IRDLOperation):
    """The elements of an array in memory as one flat buffer, `rav A`; nothing moves.

    `order` states the layout gamma by which the array lies there.

    ```mlir
    %f = moa.rav row %a : memref<3x4xf64> -> memref<?xf64>
    ```
    """

    name = "moa.rav"
    order = prop_def(StringAttr)
    array = operand_def(MemRefType.constr())
    result = result_def(FLAT)
    traits = traits_def(Pure())

    def __init__(self, array: SSAValue, order: Order):
        super().__init__(
            operands=[array],
            result_types=[flat(element_of(array.type))],
            properties={"order": StringAttr(order)},
        )

    def verify_(self) -> None:
        if self.order.data not in list(Order):
            raise VerifyException(
                f"unknown order: expected row or column, got {self.order.data}"
            )
        _verify_flat(self.result.type)
        if element_of(self.result.type) != element_of(self.array.type):
            raise VerifyException(
                f"rav gives the elements of the array: expected "
                f"{element_of(self.array.type)}, got {element_of(self.result.type)}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.order.data} ")
        printer.print_ssa_value(self.array)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.array.type)
        printer.print_string(" -> ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> RavOp:
        order = parser.parse_identifier(": order")
        array = parser.parse_unresolved_operand()
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        parser.parse_punctuation("->")
        result = parser.parse_type()
        op = cls.create(
            operands=[parser.resolve_operand(array, type_)],
            result_types=[result],
            properties={"order": StringAttr(order)},
            attributes=attributes,
        )
        return op


@irdl_op_definition
class BufferOp(IRDLOperation):
    """Scratch memory, flat, of the product of its extents, freed with its block.

    With `accumulator` it holds the running values of a fold over an output axis that
    was moved inside that fold.

    ```mlir
    %n = moa.buffer accumulator [%e] : memref<?xf64>
    ```
    """

    name = "moa.buffer"
    extents = var_operand_def(IndexType())
    accumulator = opt_prop_def(UnitAttr)
    result = result_def(FLAT)
    traits = traits_def(MemoryAllocEffect())

    def __init__(
        self,
        extents: Sequence[SSAValue],
        element: Attribute,
        accumulator: bool = False,
    ):
        super().__init__(
            operands=[extents],
            result_types=[flat(element)],
            properties={"accumulator": UnitAttr() if accumulator else None},
        )

    def verify_(self) -> None:
        _verify_flat(self.result.type)

    def print(self, printer: Printer) -> None:
        if self.accumulator is not None:
            printer.print_string(" accumulator")
        printer.print_string(" ")
        with printer.in_square_brackets():
            printer.print_list(self.extents, printer.print_ssa_value)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> BufferOp:
        accumulator = parser.parse_optional_keyword("accumulator") is not None
        extents = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, parser.parse_unresolved_operand
        )
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        if not isa(type_, MemRefType):
            parser.raise_error(f"expected a memref, got {type_}")
        properties = {"accumulator": UnitAttr()} if accumulator else {}
        return cls.create(
            operands=[parser.resolve_operand(extent, INDEX) for extent in extents],
            result_types=[type_],
            properties=properties,
            attributes=attributes,
        )


@irdl_op_definition
class LoopOp(IRDLOperation):
    """The body for index = start, start + stride, ... up to but not including stop.

    A negative stride counts down. Besides memory, scalars may be carried from one
    iteration to the next: the body takes them after the index and yields the next
    ones; the results are the last ones, or the initial ones if there is no iteration.

    ```mlir
    %sum = moa.loop [%i = %start to %stop by -1] with (%s = %zero : f64) {
      %x = moa.load %f[%start, %i * %c1] : memref<?xf64>
      %t = arith.addf %x, %s : f64
      moa.yield %t : f64
    }
    ```
    """

    name = "moa.loop"
    start = operand_def(IndexType())
    stop = operand_def(IndexType())
    initial = var_operand_def()
    stride = prop_def(IntegerAttr.constr(type=i64))
    body = region_def("single_block")
    carried = var_result_def()
    traits = traits_def(RecursiveMemoryEffect())

    def __init__(
        self,
        start: SSAValue,
        stop: SSAValue,
        stride: int,
        body: Region,
        initial: Sequence[SSAValue] = (),
    ):
        super().__init__(
            operands=[start, stop, initial],
            regions=[body],
            result_types=[[value.type for value in initial]],
            properties={"stride": IntegerAttr(stride, i64)},
        )

    @property
    def stride_value(self) -> int:
        """The step from one index to the next."""
        return self.stride.value.data

    def verify_(self) -> None:
        block, terminator = body_of(self.body)
        types: list[Attribute] = [value.type for value in self.initial]
        if (found := [arg.type for arg in block.args]) != [INDEX, *types]:
            raise VerifyException(
                f"a loop body takes one index and what is carried: expected "
                f"{type_list([INDEX, *types])}, got {type_list(found)}"
            )
        if (found := [value.type for value in terminator.values]) != types:
            raise VerifyException(
                f"a loop body yields what is carried: expected {type_list(types)}, "
                f"got {type_list(found)}"
            )
        if (found := [value.type for value in self.carried]) != types:
            raise VerifyException(
                f"a loop gives what is carried: expected {type_list(types)}, "
                f"got {type_list(found)}"
            )
        if self.stride_value == 0:
            raise VerifyException("a loop needs a stride that is not zero")

    def print(self, printer: Printer) -> None:
        index, *carried = self.body.block.args
        printer.print_string(" ")
        with printer.in_square_brackets():
            printer.print_ssa_value(index)
            printer.print_string(" = ")
            printer.print_ssa_value(self.start)
            printer.print_string(" to ")
            printer.print_ssa_value(self.stop)
            printer.print_string(f" by {self.stride_value}")
        if carried:
            printer.print_string(" with ")
            with printer.in_parens():
                printer.print_list(
                    zip(carried, self.initial, strict=True),
                    lambda pair: _print_carried(printer, *pair),
                )
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> LoopOp:
        parser.parse_punctuation("[")
        index = parser.parse_argument(expect_type=False)
        parser.parse_punctuation("=")
        start = parser.parse_unresolved_operand()
        parser.parse_keyword("to")
        stop = parser.parse_unresolved_operand()
        parser.parse_keyword("by")
        stride = parser.parse_integer(allow_boolean=False)
        parser.parse_punctuation("]")
        arguments = [index.resolve(INDEX)]
        initial: list[SSAValue] = []
        if parser.parse_optional_keyword("with"):
            for argument, value in parser.parse_comma_separated_list(
                parser.Delimiter.PAREN, lambda: _parse_carried(parser)
            ):
                arguments.append(argument)
                initial.append(value)
        first = parser.resolve_operand(start, INDEX)
        last = parser.resolve_operand(stop, INDEX)
        body = parser.parse_region(arguments)
        op = cls(first, last, stride, body, initial)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


def _print_carried(printer: Printer, argument: SSAValue, initial: SSAValue) -> None:
    printer.print_ssa_value(argument)
    printer.print_string(" = ")
    printer.print_ssa_value(initial)
    printer.print_string(" : ")
    printer.print_attribute(initial.type)


def _parse_carried(parser: Parser) -> tuple[Parser.Argument, SSAValue]:
    argument = parser.parse_argument(expect_type=False)
    parser.parse_punctuation("=")
    value = parser.parse_unresolved_operand()
    parser.parse_punctuation(":")
    type_ = parser.parse_type()
    return argument.resolve(type_), parser.resolve_operand(value, type_)


class _Access(IRDLOperation):
    """An access at the flat address `start + sum of index * stride`."""

    buffer = operand_def(FLAT)
    start = operand_def(IndexType())
    terms = var_operand_def(IndexType())

    @property
    def indices(self) -> Sequence[SSAValue]:
        """The indices that are multiplied by the strides."""
        return self.terms[: len(self.terms) // 2]

    @property
    def strides(self) -> Sequence[SSAValue]:
        """For each index, how far apart two neighbours lie, in elements."""
        return self.terms[len(self.terms) // 2 :]

    def verify_(self) -> None:
        _verify_flat(self.buffer.type)
        if len(self.terms) % 2:
            raise VerifyException(
                f"an access needs a stride for each index, got {len(self.terms)} terms"
            )

    def print_address(self, printer: Printer) -> None:
        """Print `buffer[start, index * stride, ...] : type`."""
        printer.print_ssa_value(self.buffer)
        with printer.in_square_brackets():
            printer.print_ssa_value(self.start)
            for index, stride in zip(self.indices, self.strides, strict=True):
                printer.print_string(", ")
                printer.print_ssa_value(index)
                printer.print_string(" * ")
                printer.print_ssa_value(stride)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.buffer.type)


def _parse_address(
    parser: Parser,
) -> tuple[
    SSAValue, SSAValue, Sequence[SSAValue], Sequence[SSAValue], dict[str, Attribute]
]:
    buffer = parser.parse_unresolved_operand()
    parser.parse_punctuation("[")
    start = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
    terms: list[tuple[UnresolvedOperand, UnresolvedOperand]] = []
    while parser.parse_optional_punctuation(","):
        index = parser.parse_unresolved_operand()
        parser.parse_characters("*")
        terms.append((index, parser.parse_unresolved_operand()))
    parser.parse_punctuation("]")
    attributes = parser.parse_optional_attr_dict()
    parser.parse_punctuation(":")
    type_ = parser.parse_type()
    if not isa(type_, MemRefType):
        parser.raise_error(f"expected a memref, got {type_}")
    indices = [parser.resolve_operand(index, INDEX) for index, _ in terms]
    strides = [parser.resolve_operand(stride, INDEX) for _, stride in terms]
    resolved = parser.resolve_operand(buffer, type_)
    return resolved, start, indices, strides, attributes


@irdl_op_definition
class LoadOp(_Access):
    """The element at a flat address: `start + sum of index * stride`.

    ```mlir
    %x = moa.load %f[%start, %i * %n, %j * %c1] : memref<?xf64>
    ```
    """

    name = "moa.load"
    buffer = operand_def(FLAT)
    start = operand_def(IndexType())
    terms = var_operand_def(IndexType())
    result = result_def(Attribute)
    traits = traits_def(MemoryReadEffect())

    def __init__(
        self,
        buffer: SSAValue,
        start: SSAValue,
        indices: Sequence[SSAValue],
        strides: Sequence[SSAValue],
    ):
        super().__init__(
            operands=[buffer, start, [*indices, *strides]],
            result_types=[element_of(buffer.type)],
        )

    def verify_(self) -> None:
        super().verify_()
        if self.result.type != element_of(self.buffer.type):
            raise VerifyException(
                f"load gives an element of the buffer: expected "
                f"{element_of(self.buffer.type)}, got {self.result.type}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        self.print_address(printer)

    @classmethod
    def parse(cls, parser: Parser) -> LoadOp:
        buffer, start, indices, strides, attributes = _parse_address(parser)
        op = cls(buffer, start, indices, strides)
        op.attributes |= attributes
        return op


@irdl_op_definition
class StoreOp(_Access):
    """Write a scalar to a flat address: `start + sum of index * stride`.

    ```mlir
    moa.store %x, %f[%start, %i * %n, %j * %c1] : memref<?xf64>
    ```
    """

    name = "moa.store"
    value = operand_def(Attribute)
    buffer = operand_def(FLAT)
    start = operand_def(IndexType())
    terms = var_operand_def(IndexType())
    traits = traits_def(MemoryWriteEffect())

    def __init__(
        self,
        value: SSAValue,
        buffer: SSAValue,
        start: SSAValue,
        indices: Sequence[SSAValue],
        strides: Sequence[SSAValue],
    ):
        super().__init__(operands=[value, buffer, start, [*indices, *strides]])

    def verify_(self) -> None:
        super().verify_()
        if self.value.type != element_of(self.buffer.type):
            raise VerifyException(
                f"store expects an element of the buffer: expected "
                f"{element_of(self.buffer.type)}, got {self.value.type}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.value)
        printer.print_string(", ")
        self.print_address(printer)

    @classmethod
    def parse(cls, parser: Parser) -> StoreOp:
        value = parser.parse_unresolved_operand()
        parser.parse_punctuation(",")
        buffer, start, indices, strides, attributes = _parse_address(parser)
        stored = parser.resolve_operand(value, element_of(buffer.type))
        op = cls(stored, buffer, start, indices, strides)
        op.attributes |= attributes
        return op
