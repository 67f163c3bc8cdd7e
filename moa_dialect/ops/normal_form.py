"""The normal forms: comprehensions and folds over index spaces, full-index psi."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from xdsl.dialects.builtin import (
    AffineSetAttr,
    ArrayAttr,
    DenseArrayBase,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
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
    var_region_def,
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
        relation = parser.parse_identifier(": relation")
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


def needed(
    block: Block, values: Iterable[SSAValue], known: Iterable[SSAValue] = ()
) -> list[Operation]:
    """The operations of a block, in order, that these values need.

    Those that give only `known` values, which are there already, are left out.
    """
    available = set(known)
    wanted = set(values) - available
    found: list[Operation] = []
    for op in reversed(list(block.ops)):
        if wanted.intersection(op.results):
            found.append(op)
            used = {value for inner in op.walk() for value in inner.operands}
            wanted |= used - available
    return found[::-1]


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

    def axis_at(self, place: int) -> int | None:
        """Which of the axes an axis of the results is, None if it is one of the cell's.

        Args:
            place: an axis of the results.
        """
        rank = len(shape_of(self.arrays[0].type))
        axis = self.positions(rank).index(place)
        return axis if axis < len(self.extents) else None

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


@irdl_op_definition
class CascadeOp(IRDLOperation):
    """Folds of which later ones depend on earlier ones, in one pass over their indices.

    A cascade has accumulators in groups. Those of the first group fold what their
    `part` yields, as `moa.fold` does. The parts of a later group also depend on
    *pivots*, values computed from the accumulators before it. A pivot is known only at
    the end of the pass, so the group is kept relative to the pivot so far, and `move`
    carries it over when the pivot changes: with T = move,

    - `T(r -> r') part(x; r) = part(x; r')` (C1), and
    - `T(a f b) = T a f T b`, T keeps f's identity element (C2),

    for f the function of the accumulator. Then the pass gives what folding the group
    after the pass that gives the pivot would (the transport theorem; see fusion.md).

    Regions, and what their arguments are:

    - `data`, of the index: what the parts share, scalars;
    - for each group, with all data d, pivots r and accumulators A of the group:
      - `pivot`, of a count, then the pivots and accumulators of each group before, then
        r and A: the new pivots. The count says how many indices are accounted for,
        those that are being added included; A is what the accumulators are with
        these, still relative to r;
      - `part`, of the index, d and r: what the index contributes to each accumulator;
      - `move`, of the count before, the old r, the new r and A: A relative to the new.

    A group without pivots has `part` only. Indices run from `upper - 1` down to
    `lower`, with the accumulator on the right, as in `moa.fold`; with `chunk` c, up to
    c of them at a time, and accumulators move once for each chunk. Accumulators start
    from the identity elements of their functions (from -0 for a sum of floats over
    something, as in `moa.fold`), pivots from `start`; where nothing has been
    accumulated yet (the count before is 0), nothing moves. Results are all
    accumulators, then all pivots, group by group; of an empty domain, the values they
    start from.

    ```mlir
    %m, %s, %r = moa.cascade [%n0 to %n] -> f64, f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    } group max part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x : f64
    } group add pivot %lowest {
    ^bb0(%count: index, %m: f64, %r: f64, %s: f64):
      %f = arith.maximumf %m, %lowest : f64
      moa.yield %f : f64
    } part {
    ^bb0(%p: index, %x: f64, %r: f64):
      %d = arith.subf %x, %r : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    } move {
    ^bb0(%count: index, %old: f64, %new: f64, %s: f64):
      %d = arith.subf %old, %new : f64
      %e = math.exp %d : f64
      %t = arith.mulf %e, %s : f64
      moa.yield %t : f64
    }
    ```
    """

    name = "moa.cascade"
    lower = operand_def(IndexType())
    upper = operand_def(IndexType())
    starts = var_operand_def()
    functions = prop_def(ArrayAttr.constr(FUNCTION))
    groups = prop_def(DenseArrayBase.constr(i64))
    pivot_counts = prop_def(DenseArrayBase.constr(i64))
    chunk = opt_prop_def(IntegerAttr.constr(type=i64))
    regions_ = var_region_def("single_block")
    outputs = var_result_def()
    traits = traits_def(Pure())

    def __init__(
        self,
        lower: SSAValue,
        upper: SSAValue,
        data: Region,
        groups: Sequence[CascadeGroup],
        chunk: int | None = None,
    ):
        accumulators = [t for group in groups for t in group.types]
        pivots = [value.type for group in groups for value in group.starts]
        super().__init__(
            operands=[lower, upper, [v for group in groups for v in group.starts]],
            regions=[[data, *(r for group in groups for r in group.regions)]],
            result_types=[[*accumulators, *pivots]],
            properties={
                "functions": ArrayAttr(
                    as_function(f) for group in groups for f in group.functions
                ),
                "groups": DenseArrayBase.from_list(i64, [len(g.types) for g in groups]),
                "pivot_counts": DenseArrayBase.from_list(
                    i64, [len(g.starts) for g in groups]
                ),
                "chunk": None if chunk is None else IntegerAttr(chunk, i64),
            },
        )

    @property
    def data(self) -> Region:
        """The region that computes what the parts share."""
        return self.regions_[0]

    @property
    def chunk_length(self) -> int:
        """How many indices are accumulated at a time."""
        return 1 if self.chunk is None else self.chunk.value.data

    @property
    def accumulators(self) -> Sequence[OpResult]:
        """The results that are accumulators, group by group."""
        return self.outputs[: len(self.functions)]

    @property
    def pivots(self) -> Sequence[OpResult]:
        """The results that are pivots, group by group."""
        return self.outputs[len(self.functions) :]

    def views(self) -> list[CascadeView]:
        """The groups, each with its regions, results and starting values."""
        found: list[CascadeView] = []
        at, pivot, region = 0, 0, 1
        for size, pivots in zip(
            self.groups.get_values(), self.pivot_counts.get_values(), strict=True
        ):
            regions = self.regions_[region : region + (3 if pivots else 1)]
            found.append(
                CascadeView(
                    tuple(self.functions.data[at : at + size]),
                    tuple(self.accumulators[at : at + size]),
                    tuple(self.pivots[pivot : pivot + pivots]),
                    tuple(self.starts[pivot : pivot + pivots]),
                    regions[0] if pivots else None,
                    regions[1] if pivots else regions[0],
                    regions[2] if pivots else None,
                )
            )
            at, pivot, region = at + size, pivot + pivots, region + len(regions)
        return found

    def defining(self, result: OpResult) -> SSAValue:
        """What a region yields for a result: a part's for an accumulator, or a pivot.

        Its shape is the result's.
        """
        for view in self.views():
            if result in view.accumulators:
                values = body_of(view.part)[1].values
                return values[view.accumulators.index(result)]
            if view.pivot is not None and result in view.pivots:
                return body_of(view.pivot)[1].values[view.pivots.index(result)]
        raise ValueError(f"{result} is no result of this cascade")

    def verify_(self) -> None:
        sizes = self.groups.get_values()
        pivots = self.pivot_counts.get_values()
        if len(sizes) != len(pivots) or not sizes or min(sizes) < 1 or min(pivots) < 0:
            raise VerifyException(
                "a cascade has groups of one accumulator or more, and for each a "
                f"number of pivots, got {list(sizes)} and {list(pivots)}"
            )
        expected = 1 + sum(3 if count else 1 for count in pivots)
        if len(self.regions_) != expected:
            raise VerifyException(
                f"a cascade has one region for its data, and for each group one, or "
                f"three if it has pivots: expected {expected}, "
                f"got {len(self.regions_)}"
            )
        if len(self.functions) != sum(sizes):
            raise VerifyException(
                f"a cascade has a function for each accumulator: expected "
                f"{sum(sizes)}, got {len(self.functions)}"
            )
        if len(self.outputs) != sum(sizes) + sum(pivots):
            raise VerifyException(
                f"the results are the accumulators and the pivots: expected "
                f"{sum(sizes) + sum(pivots)}, got {len(self.outputs)}"
            )
        if [v.type for v in self.starts] != [v.type for v in self.pivots]:
            raise VerifyException(
                f"each pivot starts from a value of its type: expected "
                f"{type_list(v.type for v in self.pivots)}, "
                f"got {type_list(v.type for v in self.starts)}"
            )
        if self.chunk is not None and self.chunk_length < 1:
            raise VerifyException(
                f"a chunk has at least one index, got {self.chunk_length}"
            )
        for function, result in zip(self.functions, self.accumulators, strict=True):
            verify_combines(self, function, cell_element(result.type))
            if not has_identity(function):
                raise VerifyException(
                    f"an accumulator needs a function with an identity element, "
                    f"{print_name(function)} has none"
                )
        data = _verify_region("data", self.data, [INDEX], None)
        before: list[Attribute] = []
        for view in self.views():
            r, a = [v.type for v in view.pivots], [v.type for v in view.accumulators]
            if view.pivot is not None and view.move is not None:
                _verify_region("pivot", view.pivot, [INDEX, *before, *r, *a], r)
                _verify_region("move", view.move, [INDEX, *r, *r, *a], a)
            _verify_region("part", view.part, [INDEX, *data, *r], a)
            before += [*r, *a]

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        with printer.in_square_brackets():
            printer.print_ssa_value(self.lower)
            printer.print_string(" to ")
            printer.print_ssa_value(self.upper)
        if self.chunk is not None:
            printer.print_string(f" chunk {self.chunk_length}")
        printer.print_string(" -> ")
        printer.print_list(self.outputs, lambda v: printer.print_attribute(v.type))
        printer.print_string(" data ")
        printer.print_region(self.data)
        for view in self.views():
            printer.print_string(" group ")
            printer.print_list(view.functions, lambda f: print_function(printer, f))
            if view.pivot is not None and view.move is not None:
                printer.print_string(" pivot ")
                printer.print_list(view.starts, printer.print_ssa_value)
                printer.print_string(" ")
                printer.print_region(view.pivot)
            printer.print_string(" part ")
            printer.print_region(view.part)
            if view.move is not None:
                printer.print_string(" move ")
                printer.print_region(view.move)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> CascadeOp:
        parser.parse_punctuation("[")
        lower = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        parser.parse_keyword("to")
        upper = parser.resolve_operand(parser.parse_unresolved_operand(), INDEX)
        parser.parse_punctuation("]")
        chunk = None
        if parser.parse_optional_keyword("chunk"):
            chunk = parser.parse_integer(allow_boolean=False)
        parser.parse_punctuation("->")
        types = parser.parse_comma_separated_list(
            parser.Delimiter.NONE, parser.parse_type
        )
        parser.parse_keyword("data")
        data = parser.parse_region()
        functions: list[list[FunctionAttr]] = []
        starts: list[list[UnresolvedOperand]] = []
        regions: list[list[Region]] = []
        while parser.parse_optional_keyword("group"):
            functions.append(
                parser.parse_comma_separated_list(
                    parser.Delimiter.NONE, lambda: parse_function(parser)
                )
            )
            found: list[UnresolvedOperand] = []
            parts: list[Region] = []
            if parser.parse_optional_keyword("pivot"):
                found = parser.parse_comma_separated_list(
                    parser.Delimiter.NONE, parser.parse_unresolved_operand
                )
                parts.append(parser.parse_region())
            parser.parse_keyword("part")
            parts.append(parser.parse_region())
            if found:
                parser.parse_keyword("move")
                parts.append(parser.parse_region())
            starts.append(found)
            regions.append(parts)
        count = sum(map(len, functions))
        if len(types) != count + sum(map(len, starts)):
            parser.raise_error(
                f"expected {count + sum(map(len, starts))} result types, "
                f"got {len(types)}"
            )
        accumulators, pivots = iter(types[:count]), iter(types[count:])
        groups = [
            CascadeGroup(
                tuple(names),
                tuple(next(accumulators) for _ in names),
                tuple(parser.resolve_operand(v, next(pivots)) for v in values),
                tuple(parts),
            )
            for names, values, parts in zip(functions, starts, regions, strict=True)
        ]
        op = cls(lower, upper, data, groups, chunk)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@dataclass(frozen=True)
class CascadeGroup:
    """What a cascade is built from: accumulators that share their pivots.

    Attributes:
        functions: for each accumulator its function, which has an identity element.
        types: for each accumulator its type.
        starts: for each pivot the value it starts from; none in a group without.
        regions: pivot, part and move; in a group without pivots the part alone.
    """

    functions: tuple[FunctionAttr | str, ...]
    types: tuple[Attribute, ...]
    starts: tuple[SSAValue, ...]
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class CascadeView:
    """One group of a cascade: what belongs to it of the operation's parts."""

    functions: tuple[FunctionAttr, ...]
    accumulators: tuple[OpResult, ...]
    pivots: tuple[OpResult, ...]
    starts: tuple[SSAValue, ...]
    pivot: Region | None
    part: Region
    move: Region | None

    def own_accumulators(self) -> list[int]:
        """Which of the group's accumulators its pivots are computed from."""
        if self.pivot is None:
            return []
        size = len(self.accumulators)
        arguments = self.pivot.block.args[-size:]
        return [k for k, argument in enumerate(arguments) if argument.uses]


def type_list(types: Iterable[Attribute]) -> str:
    """Types as messages show them."""
    return f"({', '.join(map(str, types))})"


def _verify_region(
    name: str,
    region: Region,
    arguments: Sequence[Attribute],
    yielded: Sequence[Attribute] | None,
) -> list[Attribute]:
    """Check what a region of a cascade takes and yields; returns what it yields."""
    block, terminator = body_of(region)
    if [arg.type for arg in block.args] != list(arguments):
        raise VerifyException(
            f"{name} takes {type_list(arguments)}, "
            f"got {type_list(a.type for a in block.args)}"
        )
    types = [value.type for value in terminator.values]
    if yielded is not None and types != list(yielded):
        raise VerifyException(
            f"{name} yields {type_list(yielded)}, got {type_list(types)}"
        )
    return types


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
