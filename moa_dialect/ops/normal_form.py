"""The normal forms: comprehensions and folds over index spaces, full-index psi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    AffineSetAttr,
    DenseArrayBase,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
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
from xdsl.traits import IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import RELATIONS, Relation
from moa_dialect.ops.function import (
    FUNCTION,
    FunctionAttr,
    as_function,
    has_identity,
    parse_function,
    print_function,
    print_name,
    verify_combines,
)
from moa_dialect.types import element_of, is_element_type, shape_of

ARRAY = TensorType.constr() | MemRefType.constr()
INDEX = IndexType()


@irdl_op_definition
class ExtentOp(IRDLOperation):
    """The extent of one axis of an array, as a value of its own.

    It stays an operation even where the type is static, so that an extent is never
    confused with a constant that happens to be equal.

    ```mlir
    %n = moa.extent %a, 0 : tensor<?x64xf64>
    ```
    """

    name = "moa.extent"
    array = operand_def(ARRAY)
    axis = prop_def(IntegerAttr.constr(type=i64))
    result = result_def(IndexType())
    traits = traits_def(Pure())

    def __init__(self, array: SSAValue, axis: int):
        super().__init__(
            operands=[array],
            result_types=[INDEX],
            properties={"axis": IntegerAttr(axis, i64)},
        )

    @property
    def axis_number(self) -> int:
        """The axis whose extent it is."""
        return self.axis.value.data

    @property
    def static_value(self) -> int | None:
        """The extent, if the array's type gives it."""
        number = shape_of(self.array.type)[self.axis_number]
        return None if number < 0 else number

    def verify_(self) -> None:
        rank = len(shape_of(self.array.type))
        if not 0 <= self.axis_number < rank:
            raise VerifyException(
                f"extent: axis out of range: expected 0 <= axis < {rank}, "
                f"got {self.axis_number}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.array)
        printer.print_string(f", {self.axis_number}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.array.type)

    @classmethod
    def parse(cls, parser: Parser) -> ExtentOp:
        array = parser.parse_unresolved_operand()
        parser.parse_punctuation(",")
        axis = parser.parse_integer(allow_boolean=False)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        op = cls(parser.resolve_operand(array, parser.parse_type()), axis)
        op.attributes |= attributes
        return op


@irdl_op_definition
class FixedExtentOp(IRDLOperation):
    """An extent that the program gives as a number, as in `iota 3`.

    ```mlir
    %n = moa.fixed_extent 3
    ```
    """

    name = "moa.fixed_extent"
    value = prop_def(IntegerAttr.constr(type=i64))
    result = result_def(IndexType())
    traits = traits_def(Pure())

    def __init__(self, value: int):
        super().__init__(
            result_types=[INDEX], properties={"value": IntegerAttr(value, i64)}
        )

    @property
    def static_value(self) -> int:
        """The number."""
        return self.value.value.data

    def verify_(self) -> None:
        if self.static_value < 0:
            raise VerifyException(
                f"an extent must not be negative, got {self.static_value}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.static_value}")
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> FixedExtentOp:
        op = cls(parser.parse_integer(allow_boolean=False, allow_negative=True))
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class RequireOp(IRDLOperation):
    """A precondition on extents, checked when the function is entered.

    If `given` does not stand in the relation to `expected`, the program's result is the
    error with this message and both numbers; nothing else is evaluated.

    ```mlir
    moa.require %m eq %n, "add: extents of axis 0 must be equal"
    ```
    """

    name = "moa.require"
    given = operand_def(IndexType())
    expected = operand_def(IndexType())
    relation = prop_def(StringAttr)
    message = prop_def(StringAttr)

    def __init__(
        self, relation: Relation, given: SSAValue, expected: SSAValue, message: str
    ):
        super().__init__(
            operands=[given, expected],
            properties={
                "relation": StringAttr(relation),
                "message": StringAttr(message),
            },
        )

    @property
    def relation_name(self) -> Relation:
        """The relation: eq, lt, le or ge."""
        return cast(Relation, self.relation.data)

    def verify_(self) -> None:
        if self.relation.data not in RELATIONS:
            raise VerifyException(
                f"unknown relation: expected one of {', '.join(RELATIONS)}, "
                f"got {self.relation.data}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.given)
        printer.print_string(f" {self.relation.data} ")
        printer.print_ssa_value(self.expected)
        printer.print_string(", ")
        printer.print_attribute(self.message)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> RequireOp:
        given = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        relation = parser.parse_identifier("relation")
        expected = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        parser.parse_punctuation(",")
        message = parser.parse_str_literal()
        op = cls(cast(Relation, relation), given, expected, message)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class InBoundsOp(IRDLOperation):
    """An index that comes from data, checked where it is used.

    If it is not within `0 <= index < extent`, the program's result is the error with
    this message and both numbers.

    ```mlir
    %k = moa.in_bounds %i in %n, "psi: index entry 0 out of range of axis 0"
    ```
    """

    name = "moa.in_bounds"
    index = operand_def(IndexType())
    extent = operand_def(IndexType())
    message = prop_def(StringAttr)
    result = result_def(IndexType())
    traits = traits_def(Pure())

    def __init__(self, index: SSAValue, extent: SSAValue, message: str):
        super().__init__(
            operands=[index, extent],
            result_types=[INDEX],
            properties={"message": StringAttr(message)},
        )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.index)
        printer.print_string(" in ")
        printer.print_ssa_value(self.extent)
        printer.print_string(", ")
        printer.print_attribute(self.message)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> InBoundsOp:
        index = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        parser.parse_keyword("in")
        extent = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        parser.parse_punctuation(",")
        op = cls(index, extent, parser.parse_str_literal())
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class AtOp(IRDLOperation):
    """Psi with a full index: one element of an array, `<i j> ψ A`.

    ```mlir
    %x = moa.at %a[%i, %j] : tensor<3x4xf64>
    ```
    """

    name = "moa.at"
    array = operand_def(TensorType.constr())
    indices = var_operand_def(IndexType())
    result = result_def(Attribute)
    traits = traits_def(Pure())

    def __init__(self, array: SSAValue, indices: Sequence[SSAValue]):
        super().__init__(
            operands=[array, indices], result_types=[element_of(array.type)]
        )

    def verify_(self) -> None:
        rank = len(shape_of(self.array.type))
        if len(self.indices) != rank:
            raise VerifyException(
                f"at needs a full index: expected {rank} entries, "
                f"got {len(self.indices)}"
            )
        if self.result.type != element_of(self.array.type):
            raise VerifyException(
                f"at gives an element of the array: expected "
                f"{element_of(self.array.type)}, got {self.result.type}"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.array)
        with printer.in_square_brackets():
            printer.print_list(self.indices, printer.print_ssa_value)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.array.type)

    @classmethod
    def parse(cls, parser: Parser) -> AtOp:
        array = parser.parse_unresolved_operand()
        indices = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, parser.parse_unresolved_operand
        )
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        if not isa(type_, TensorType):
            parser.raise_error(f"expected a ranked tensor, got {type_}")
        op = cls(
            parser.resolve_operand(array, type_),
            [parser.resolve_operand(index, INDEX) for index in indices],
        )
        op.attributes |= attributes
        return op


@irdl_op_definition
class YieldOp(IRDLOperation):
    """What a comprehension, fold or loop body gives for its index.

    ```mlir
    moa.yield %x : f64
    ```
    """

    name = "moa.yield"
    values = var_operand_def()
    traits = traits_def(IsTerminator(), Pure())
    assembly_format = "($values^ `:` type($values))? attr-dict"

    def __init__(self, *values: SSAValue):
        super().__init__(operands=[values])


def body_of(region: Region) -> tuple[Block, YieldOp]:
    """The block and terminator of a region of the normal forms.

    Raises:
        VerifyException: if the block does not end with `moa.yield`.
    """
    block = region.block
    terminator = block.last_op
    if not isinstance(terminator, YieldOp):
        raise VerifyException("the body must end with moa.yield")
    return block, terminator


def cell_shape(type_: Attribute) -> tuple[int, ...]:
    """The shape of what a body yields: that of a tensor, none for a scalar."""
    return shape_of(type_) if isa(type_, TensorType) else ()


def cell_element(type_: Attribute) -> Attribute:
    """The element type of what a body yields."""
    return element_of(type_) if isa(type_, TensorType) else type_


@irdl_op_definition
class ComprehensionOp(IRDLOperation):
    """An array given by its elements: for each index of the axes, what the body yields.

    The body yields scalars, or arrays (cells) all of one shape; the shape of a result
    is that of the axes followed by that of its cell. With an `order` t the result is
    the general transpose `t ⊘` of that: axis k of axes-then-cell is result axis `t[k]`,
    so that the nesting of the loops and the shape of the result are independent.

    ```mlir
    %c = moa.comprehension [%i < %n, %j < %m] -> tensor<?x?xf64> {
      %x = moa.at %a[%i, %j] : tensor<?x?xf64>
      moa.yield %x : f64
    }
    ```
    """

    name = "moa.comprehension"
    extents = var_operand_def(IndexType())
    order = opt_prop_def(DenseArrayBase.constr(i64))
    body = region_def("single_block")
    arrays = var_result_def(TensorType.constr())
    traits = traits_def(Pure())

    def __init__(
        self,
        extents: Sequence[SSAValue],
        body: Region,
        result_types: Sequence[Attribute],
        order: Sequence[int] | None = None,
    ):
        attribute = None if order is None else DenseArrayBase.from_list(i64, order)
        super().__init__(
            operands=[extents],
            regions=[body],
            result_types=[result_types],
            properties={"order": attribute},
        )

    def positions(self, rank: int) -> tuple[int, ...]:
        """For each axis, then each cell axis, its place in a result of this rank."""
        if self.order is None:
            return tuple(range(rank))
        return tuple(self.order.get_values())

    def verify_(self) -> None:
        block, terminator = body_of(self.body)
        _verify_indices(block, len(self.extents))
        if len(terminator.values) != len(self.arrays):
            raise VerifyException(
                f"a comprehension yields one value for each result: expected "
                f"{len(self.arrays)}, got {len(terminator.values)}"
            )
        for value, array in zip(terminator.values, self.arrays, strict=True):
            rank = len(self.extents) + len(cell_shape(value.type))
            if len(shape_of(array.type)) != rank or element_of(
                array.type
            ) != cell_element(value.type):
                raise VerifyException(
                    f"result {array.type} is not an array of {len(self.extents)} axes "
                    f"of {value.type}"
                )
            if not is_element_type(element := cell_element(value.type)):
                raise VerifyException(f"unsupported element type: {element}")
            if sorted(self.positions(rank)) != list(range(rank)):
                raise VerifyException(
                    f"order expects a permutation of 0 to {rank - 1}, "
                    f"got {list(self.positions(rank))}"
                )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        with printer.in_square_brackets():
            printer.print_list(
                zip(self.body.block.args, self.extents, strict=True),
                lambda pair: _print_pair(printer, *pair, " < "),
            )
        if self.order is not None:
            printer.print_string(" order ")
            with printer.in_square_brackets():
                printer.print_list(self.order.iter_values(), printer.print_int)
        printer.print_string(" -> ")
        printer.print_list(self.arrays, lambda a: printer.print_attribute(a.type))
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> ComprehensionOp:
        pairs = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, lambda: _parse_pair(parser, "<")
        )
        order = None
        if parser.parse_optional_keyword("order"):
            order = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, parser.parse_integer
            )
        parser.parse_punctuation("->")
        types = parser.parse_comma_separated_list(
            parser.Delimiter.NONE, parser.parse_type
        )
        body = parser.parse_region([index.resolve(INDEX) for index, _ in pairs])
        extents = [parser.resolve_operand(extent, INDEX) for _, extent in pairs]
        op = cls(extents, body, types, order)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class FoldOp(IRDLOperation):
    """Right fold of what the body yields for `lower <= index < upper`, a scalar value.

    `b(lower) f (b(lower + 1) f (... f b(upper - 1)))`; an empty domain gives f's
    identity element. An index at which the affine set `domain` (over the index and the
    values given with it) does not hold is not in the fold: its element is neither read
    nor combined. The body may yield an array, which is then folded element by element.
    With `init` x the fold is that of the elements and then x: `... f (b(upper - 1) f x)`;
    an empty domain gives x.

    ```mlir
    %s = moa.fold add [%k = %c0 to %n] where affine_set<(d0, d1) : (d1 - d0 >= 0)>(%k, %i) -> f64 {
      %x = moa.at %a[%i, %k] : tensor<?x?xf64>
      moa.yield %x : f64
    }
    ```
    """  # noqa: E501

    name = "moa.fold"
    function = prop_def(FUNCTION)
    lower = operand_def(IndexType())
    upper = operand_def(IndexType())
    domain_arguments = var_operand_def(IndexType())
    initial = opt_operand_def()
    domain = opt_prop_def(AffineSetAttr)
    body = region_def("single_block")
    result = result_def(Attribute)
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(Pure())

    def __init__(
        self,
        function: str | FunctionAttr,
        lower: SSAValue,
        upper: SSAValue,
        body: Region,
        result_type: Attribute,
        domain: AffineSetAttr | None = None,
        domain_arguments: Sequence[SSAValue] = (),
        initial: SSAValue | None = None,
    ):
        super().__init__(
            operands=[lower, upper, domain_arguments, initial],
            regions=[body],
            result_types=[result_type],
            properties={"function": as_function(function), "domain": domain},
        )

    def verify_(self) -> None:
        block, terminator = body_of(self.body)
        _verify_indices(block, 1)
        if [v.type for v in terminator.values] != [self.result.type]:
            raise VerifyException(
                f"a fold yields one value of its result type {self.result.type}, "
                f"got {', '.join(str(v.type) for v in terminator.values) or 'none'}"
            )
        verify_combines(self, self.function, cell_element(self.result.type))
        if self.initial is not None and self.initial.type != self.result.type:
            raise VerifyException(
                f"a fold starts from a value of its result type: expected "
                f"{self.result.type}, got {self.initial.type}"
            )
        count = len(self.domain_arguments)
        if self.domain is None:
            if count:
                raise VerifyException(f"{count} arguments for a domain not given")
            return
        set_ = self.domain.data
        if set_.num_dims + set_.num_symbols != count + 1:
            raise VerifyException(
                f"the domain's set takes {set_.num_dims + set_.num_symbols} values, "
                f"got {count + 1} (the index first)"
            )
        if not has_identity(self.function) and self.initial is None:
            raise VerifyException(
                f"a restricted fold needs an identity element, "
                f"{print_name(self.function)} has none"
            )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        print_function(printer, self.function)
        printer.print_string(" ")
        index = self.body.block.args[0]
        with printer.in_square_brackets():
            _print_pair(printer, index, self.lower, " = ")
            printer.print_string(" to ")
            printer.print_ssa_value(self.upper)
        if self.domain is not None:
            printer.print_string(" where ")
            printer.print_attribute(self.domain)
            with printer.in_parens():
                printer.print_list(
                    (index, *self.domain_arguments), printer.print_ssa_value
                )
        if self.initial is not None:
            printer.print_string(" init ")
            printer.print_ssa_value(self.initial)
        printer.print_string(" -> ")
        printer.print_attribute(self.result.type)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> FoldOp:
        function = parse_function(parser)
        parser.parse_punctuation("[")
        index, lower = _parse_pair(parser, "=")
        parser.parse_keyword("to")
        upper = parser.parse_unresolved_operand()
        parser.parse_punctuation("]")
        domain, arguments = None, []
        if parser.parse_optional_keyword("where"):
            domain = parser.parse_attribute()
            if not isinstance(domain, AffineSetAttr):
                parser.raise_error(f"expected an affine_set, got {domain}")
            given = parser.parse_comma_separated_list(
                parser.Delimiter.PAREN, parser.parse_unresolved_operand
            )
            if not given or given[0].span.text != index.name.text:
                parser.raise_error(
                    f"expected the fold's index {index.name.text} as the domain's first"
                )
            arguments = given[1:]
        first = None
        if parser.parse_optional_keyword("init"):
            first = parser.parse_unresolved_operand()
        parser.parse_punctuation("->")
        type_ = parser.parse_type()
        initial = None if first is None else parser.resolve_operand(first, type_)
        start = parser.resolve_operand(lower, INDEX)
        stop = parser.resolve_operand(upper, INDEX)
        resolved = [parser.resolve_operand(value, INDEX) for value in arguments]
        body = parser.parse_region([index.resolve(INDEX)])
        op = cls(function, start, stop, body, type_, domain, resolved, initial)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


def _verify_indices(block: Block, count: int) -> None:
    if [arg.type for arg in block.args] != [INDEX] * count:
        raise VerifyException(
            f"the body takes one index for each axis: expected {count}, "
            f"got ({', '.join(str(arg.type) for arg in block.args)})"
        )


def _print_pair(
    printer: Printer, index: SSAValue, extent: SSAValue, separator: str
) -> None:
    printer.print_ssa_value(index)
    printer.print_string(separator)
    printer.print_ssa_value(extent)


def _parse_pair(
    parser: Parser, separator: str
) -> tuple[Parser.UnresolvedArgument, UnresolvedOperand]:
    index = parser.parse_argument(expect_type=False)
    parser.parse_characters(separator)
    return index, parser.parse_unresolved_operand()
