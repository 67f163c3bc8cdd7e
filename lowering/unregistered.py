"""Operations of upstream's dialects that xDSL does not know: reading and building."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from xdsl.context import Context
from xdsl.dialects.builtin import (
    Builtin,
    DenseArrayBase,
    FunctionType,
    IntegerAttr,
    StringAttr,
    UnregisteredOp,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.parser import Parser

from moa_dialect.errors import CompileError

_Parsed = TypeVar("_Parsed")


def bare_context() -> Context:
    """A context that keeps upstream's operations as they are printed."""
    context = Context(allow_unregistered=True)
    context.load_dialect(Builtin)
    return context


_LINE = re.compile(
    r'(?:%(\d+) = )?"([\w.]+)"\(((?:%\w+(?:, )?)*)\)(?: (<\{.*?\}>))? : (.*)\n'
)
"""An operation without successors, regions and attributes that are not inherent."""


class GenericParser(Parser):
    """A parser of text that upstream has printed in the generic form.

    Such text is long and says the same again and again, so that the properties and
    types of an operation are looked up by their text, and parsed once each. Of a line
    whose properties and types are known only the values are read.
    """

    def __init__(self, text: str) -> None:
        super().__init__(bare_context(), text)
        self._text = text
        self._properties: dict[str, dict[str, Attribute]] = {}
        self._types: dict[str, FunctionType | None] = {}

    def _once(
        self, known: dict[str, _Parsed], end: int, parse: Callable[[], _Parsed]
    ) -> _Parsed:
        """What is parsed from here to the end of a piece of the text.

        Args:
            known: what pieces were parsed to.
            end: where the piece ends, as far as one can tell.
            parse: parses it; may stop elsewhere, then it is not kept.
        """
        piece = self._text[self.pos : end]
        if piece in known:
            self._resume_from(end)
            return known[piece]
        found = parse()
        if self.pos >= end and not self._text[end : self.pos].strip():
            known[piece] = found
        return found

    def parse_operation(self) -> Operation:
        line = _LINE.match(self._text, self.pos)
        known = self._known_line(line) if line else None
        return super().parse_operation() if known is None else known

    def _known_line(self, line: re.Match[str]) -> Operation | None:
        """The operation in a line; None if it is new, or as the parser does not expect.

        The line does not say that values have the types they are used with: upstream
        does, which has printed it.
        """
        result, name, operands, given, type_text = line.groups()
        properties = self._properties.get(given) if given else {}
        type_ = self._types.get(type_text)
        values = [
            self.ssa_values.get(operand[1:], ())
            for operand in (operands.split(", ") if operands else ())
        ]
        if (
            properties is None
            or type_ is None
            or len(type_.outputs.data) != (result is not None)
            or any(len(each) != 1 for each in values)
            or len(values) != len(type_.inputs.data)
            or result in self.ssa_values
            or result in self.forward_ssa_references
        ):
            return None
        op = self._get_op_by_name(name).create(
            operands=[value for (value,) in values],
            result_types=type_.outputs.data,
            properties=dict(properties),
        )
        if result is not None:
            self.ssa_values[result] = tuple(op.results)
        self._resume_from(line.end())
        return op

    def parse_optional_properties_dict(self) -> dict[str, Attribute]:
        if not self._text.startswith("<", self.pos):
            return {}
        end = self._text.find("}>", self.pos) + 2
        parse = super().parse_optional_properties_dict
        return dict(self._once(self._properties, end, parse))

    def parse_optional_function_type(self) -> FunctionType | None:
        end = self._text.find("\n", self.pos)
        if end < 0:
            return super().parse_optional_function_type()
        return self._once(self._types, end, super().parse_optional_function_type)


@cache
def attribute(text: str) -> Attribute:
    """An attribute or a type, by its text."""
    return Parser(bare_context(), text).parse_attribute()


def name_of(op: Operation) -> str:
    """The name of an operation, also of one that is not registered."""
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


@cache
def _class(name: str) -> type[Operation]:
    return UnregisteredOp.with_name(name)


def make(
    name: str,
    operands: Sequence[SSAValue] = (),
    results: Sequence[Attribute | str] = (),
    successors: Sequence[Block] = (),
    regions: Sequence[Region] = (),
    **properties: Attribute | str,
) -> Operation:
    """An operation of a dialect that xDSL does not know."""
    return _class(name).create(
        operands=operands,
        result_types=[_attribute(each) for each in results],
        successors=successors,
        regions=regions,
        properties={key: _attribute(value) for key, value in properties.items()},
    )


def _attribute(value: Attribute | str) -> Attribute:
    return attribute(value) if isinstance(value, str) else value


POINTER = "!llvm.ptr"
_HALVES = re.compile(r"vector<2x(?:bf16|f16|i16)>|vector<4xi8>")


def words_of(type_: Attribute) -> int:
    """How many 32-bit words a value takes.

    Raises:
        CompileError: for a type that is not of 32 or 64 bits.
    """
    text = str(type_)
    if text in ("i32", "f32") or _HALVES.fullmatch(text):
        return 1
    if text in ("i64", "f64") or text.startswith("!llvm.ptr"):
        return 2
    raise CompileError(f"emulator: an operand of type {text}")


@dataclass
class Builder:
    """Inserts operations before one."""

    at: Operation

    def op(
        self,
        name: str,
        operands: Sequence[SSAValue] = (),
        results: Sequence[Attribute | str] = (),
        **properties: Attribute | str,
    ) -> Operation:
        made = make(name, operands, results, (), (), **properties)
        block = self.at.parent
        assert block is not None
        block.insert_op_before(made, self.at)
        return made

    def value(
        self,
        name: str,
        operands: Sequence[SSAValue],
        result: Attribute | str,
        **properties: Attribute | str,
    ) -> SSAValue:
        return self.op(name, operands, [result], **properties).results[0]

    def constant(self, value: int, type_: str = "i32") -> SSAValue:
        text = f"{value} : {type_}"
        return self.value("llvm.mlir.constant", (), type_, value=text)

    def address(self, base: SSAValue, offset: int, unit: str = "i32") -> SSAValue:
        return self.value(
            "llvm.getelementptr",
            (base,),
            base.type,
            elem_type=unit,
            noWrapFlags="0 : i32",
            rawConstantIndices=DenseArrayBase.from_list(i32, [offset]),
        )

    def load(
        self, base: SSAValue, offset: int, type_: Attribute | str, unit: str = "i32"
    ) -> SSAValue:
        pointer = self.address(base, offset, unit)
        return self.value(
            "llvm.load", (pointer,), type_, ordering="0 : i64", alignment="4 : i64"
        )

    def store(self, value: SSAValue, base: SSAValue, offset: int) -> None:
        pointer = self.address(base, offset)
        self.op("llvm.store", (value, pointer), ordering="0 : i64", alignment="4 : i64")

    def call(
        self,
        callee: str,
        operands: Sequence[SSAValue],
        results: Sequence[Attribute | str] = (),
    ) -> Sequence[SSAValue]:
        return self.op(
            "llvm.call",
            operands,
            results,
            CConv="#llvm.cconv<ccc>",
            TailCallKind="#llvm.tailcallkind<none>",
            callee=f"@{callee}",
            fastmathFlags="#llvm.fastmath<none>",
            op_bundle_sizes=DenseArrayBase.from_list(i32, []),
            operandSegmentSizes=DenseArrayBase.from_list(i32, [len(operands), 0]),
        ).results

    def cast(self, pointer: SSAValue) -> SSAValue:
        """A pointer without its address space."""
        if str(pointer.type) == POINTER:
            return pointer
        return self.value("llvm.addrspacecast", (pointer,), POINTER)

    def pack(self, values: Sequence[SSAValue], type_: Attribute) -> SSAValue:
        """Values as a struct."""
        struct = self.value("llvm.mlir.poison", (), type_)
        for place, value in enumerate(values):
            position = DenseArrayBase.from_list(i64, [place])
            struct = self.value(
                "llvm.insertvalue", (struct, value), type_, position=position
            )
        return struct

    def unpack(self, struct: SSAValue, types: Sequence[str]) -> list[SSAValue]:
        """The fields of a struct."""
        return [
            self.value(
                "llvm.extractvalue",
                (struct,),
                type_,
                position=DenseArrayBase.from_list(i64, [place]),
            )
            for place, type_ in enumerate(types)
        ]


def declaration(name: str, type_: str) -> Operation:
    """A function defined elsewhere."""
    return make(
        "llvm.func",
        regions=[Region()],
        CConv="#llvm.cconv<ccc>",
        function_type=f"!llvm.func<{type_}>",
        linkage="#llvm.linkage<external>",
        sym_name=StringAttr(name),
        unnamed_addr="0 : i64",
        visibility_="0 : i64",
    )


def struct_fields(type_: Attribute) -> list[str]:
    """The types of the fields of `!llvm.struct<(...)>`; a type is its own only one."""
    text = str(type_)
    found = re.fullmatch(r"!llvm\.struct<\((.*)\)>", text)
    return re.split(r",\s*", found[1]) if found else [text]


def integer_of(op: Operation, name: str, default: int | None = None) -> int:
    """The integer in an attribute."""
    value = op.properties.get(name, op.attributes.get(name))
    if isinstance(value, IntegerAttr):
        return value.value.data
    assert default is not None, f"{name_of(op)} without {name}"
    return default


def word_of(op: Operation, name: str) -> str:
    """The keyword in an enumeration attribute: `bf16` in `#nvvm.mma_type<bf16>`."""
    value = op.properties.get(name)
    return re.findall(r"\w+", str(value))[-1] if value is not None else ""


def symbol_of(op: Operation, name: str) -> str:
    """The name of the symbol in an attribute, empty if there is none."""
    return str(op.properties.get(name, "")).removeprefix("@").strip('"')


def segments_of(op: Operation) -> list[list[SSAValue]]:
    """The operands by groups."""
    sizes = op.properties["operandSegmentSizes"]
    assert isinstance(sizes, DenseArrayBase)
    groups: list[list[SSAValue]] = []
    start = 0
    for size in sizes.iter_values():
        groups.append(list(op.operands[start : start + int(size)]))
        start += int(size)
    return groups


_BYTES = {"i1": 1, "i8": 1, "i16": 2, "f16": 2, "bf16": 2, "i32": 4, "f32": 4}


def bytes_of(type_: str) -> int:
    """The size of a type in memory."""
    if found := re.fullmatch(r"(?:!llvm\.)?array<(\d+) x (.*)>", type_):
        return int(found[1]) * bytes_of(found[2])
    if found := re.fullmatch(r"vector<(\d+)x(.*)>", type_):
        return int(found[1]) * bytes_of(found[2])
    return _BYTES.get(type_, 8)
