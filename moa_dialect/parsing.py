"""Reading MLIR text: xDSL's parser, with what of MLIR's syntax it lacks.

That is hexadecimal floats as MLIR means them, and locations as MLIR prints them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyFloat,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    IntAttr,
    LocationAttr,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
)
from xdsl.ir import Attribute, Operation
from xdsl.parser import AttrParser, Parser
from xdsl.parser.generic_parser import ParserState
from xdsl.utils.lexer import Input, Token
from xdsl.utils.mlir_lexer import MLIRLexer, MLIRToken, MLIRTokenKind, StringLiteral

from moa_dialect.errors import PipelineError

# pyright: reportPrivateUsage=false


@dataclass
class _Bits(AttrParser._TensorLiteralElement):
    """An element given as `0x...`: for a float type, its bits."""

    def to_type(self, parser: AttrParser, type: Any) -> Any:
        if not isinstance(type, AnyFloat):
            return super().to_type(parser, type)
        size = type.compile_time_size
        bits = self.to_int(parser)
        if bits >= 1 << 8 * size:
            parser.raise_error(
                f"hexadecimal float out of range of {type}", at_position=self.span
            )
        (value,) = type.unpack(bits.to_bytes(size, "little"), 1)
        return value


def file_locations(location: Attribute) -> Iterator[FileLineColLoc]:
    """The places in files that a location speaks of, the innermost first."""
    match location:
        case FileLineColLoc():
            yield location
        case NameLoc(location=inner) if not isinstance(inner, NoneAttr):
            yield from file_locations(inner)
        case CallSiteLoc(callee=callee, caller=caller):
            yield from file_locations(callee)
            yield from file_locations(caller)
        case FusedLoc():
            places: Any = location.locations
            for each in places:
                yield from file_locations(each)
        case _:
            pass


_LOCATION_ALIAS = re.compile(r"^(#\w+) = (loc\(.*\))$", re.MULTILINE)


class _Lexer(MLIRLexer):
    """xDSL's lexer, which would take time exponential in what follows an open quote.

    It also takes what is not ASCII and escaped, as MLIR prints it, for bytes, which
    cannot be a name.
    """

    _unescaped_characters_regex = re.compile(
        r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"'
    )

    def _lex_string_literal(self, start_pos: int) -> MLIRToken:
        token = super()._lex_string_literal(start_pos)
        if token.kind is MLIRTokenKind.BYTES_LIT:
            with suppress(UnicodeDecodeError):
                StringLiteral.from_span(token.span).bytes_contents.decode()
                return Token(MLIRTokenKind.STRING_LIT, token.span)
        return token


class ModuleParser(Parser):
    """A parser that reads back infinities and NaN in dense constants, and locations.

    The former have no decimal spelling: `dense<0xFF800000> : tensor<f32>` is -inf in
    MLIR, and is what xDSL prints, but xDSL's own parser takes it for the number
    4286578688. Of locations it reads ranges in files too, of which it keeps the start,
    fused ones with metadata, without that, and aliases that are defined at the end of
    the text, where MLIR prints them.
    """

    def __init__(
        self, ctx: Context, text: str | bytes, name: str = "<unknown>"
    ) -> None:
        super().__init__(ctx, "", name)
        content = text.decode() if isinstance(text, bytes) else text
        self._parser_state = ParserState(_Lexer(Input(content, name)))

    def parse_module(self, allow_implicit_module: bool = True) -> ModuleOp:
        """Parse a module.

        Raises:
            ParseError: for text that is none, or has no operation.
        """
        if self._current_token.kind is MLIRTokenKind.EOF:
            self.raise_error("expected a module, got no operation")
        return super().parse_module(allow_implicit_module)

    @cached_property
    def _location_aliases(self) -> dict[str, str | LocationAttr]:
        """The location aliases of the text; those that are not read yet as text."""
        return dict(_LOCATION_ALIAS.findall(self.lexer.input.content))

    def _location_alias(self, name: str) -> LocationAttr | None:
        known = self._location_aliases.get(name)
        if isinstance(known, str):
            inner = type(self)(self.ctx, known, self.lexer.input.name)
            inner.__dict__["_location_aliases"] = self._location_aliases
            known = inner.parse_optional_location()
            assert known is not None
            self._location_aliases[name] = known
        return known

    def _parse_location(self) -> LocationAttr:
        if (text := self.parse_optional_str_literal()) is not None:
            if self.parse_optional_punctuation(":") is not None:
                return self._parse_place(text)
            inner: LocationAttr | NoneAttr = NoneAttr()
            if self.parse_optional_punctuation("("):
                inner = self._parse_location()
                self.parse_punctuation(")")
            return NameLoc(StringAttr(text), inner)
        if self._current_token.text.startswith("#"):
            found = self._location_alias(self._current_token.text)
            if found is not None:
                self._consume_token()
                return found
        if self.parse_optional_keyword("fused"):
            if self.parse_optional_punctuation("<"):
                self.parse_attribute()
                self.parse_punctuation(">")
            found = self.parse_comma_separated_list(
                self.Delimiter.SQUARE, self._parse_location
            )
            return FusedLoc(tuple(found), NoneAttr())
        return super()._parse_location()

    def _parse_place(self, file: str) -> LocationAttr:
        """What follows `"file":`, as in `"file":6:28 to :31`."""
        line = self.parse_integer(False, False)
        self.parse_punctuation(":")
        column = self.parse_integer(False, False)
        if self.parse_optional_keyword("to"):
            self.parse_optional_integer(False, False)
            self.parse_punctuation(":")
            self.parse_integer(False, False)
        return FileLineColLoc(StringAttr(file), IntAttr(line), IntAttr(column))

    def _parse_tensor_literal_element(self) -> AttrParser._TensorLiteralElement:
        element = super()._parse_tensor_literal_element()
        text = element.span.text
        if text[:2].lower() in ("0x", b"0x"):
            return _Bits(element.is_negative, element.value, element.span)
        return element


class LocatingParser(ModuleParser):
    """A parser that gives operations without a location the one they have in the text.

    Not if `locate` is false, as for text that nobody has seen. `has_locations` says
    whether the text has any location of its own.
    """

    def __init__(
        self, ctx: Context, text: str, name: str = "<text>", locate: bool = True
    ):
        super().__init__(ctx, text, name)
        self.has_locations = False
        self._locate = locate
        self._name = StringAttr(name)
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self) -> str:
        """Where in the text the parser is."""
        return str(self._current_token.span.get_location())

    def parse_optional_location(self) -> LocationAttr | None:
        """Parse a location, if there is one."""
        location = super().parse_optional_location()
        self.has_locations |= location is not None
        return location

    def parse_operation(self) -> Operation:
        """Parse an operation, in custom or generic form."""
        start = self._current_token.span.start
        op = super().parse_operation()
        if self._locate and isinstance(op.location, UnknownLoc):
            line = bisect_right(self._lines, start)
            column = start - self._lines[line - 1] + 1
            op.location = FileLineColLoc(self._name, IntAttr(line), IntAttr(column))
        return op


_RESOURCES = re.compile(r"\n\{-#.*#-\}\s*\Z", re.DOTALL)
_BLOB = re.compile(r'"?([^\s":{}]+)"?: "0x([0-9A-Fa-f]*)"')
_RESOURCE = re.compile(r'dense_resource<"?([^>"]+)"?>')


def with_elements(text: str, name: str) -> str:
    """Text in which arrays stand where they are used, not in resources at the end.

    Args:
        text: the text.
        name: what its locations call it.

    Raises:
        PipelineError: if the elements of one are not in the text.
    """
    found = _RESOURCES.search(text)
    # Four bytes before the elements say how they are aligned.
    blobs = {} if found is None else {n: d[8:] for n, d in _BLOB.findall(found[0])}

    def elements(found: re.Match[str]) -> str:
        if found[1] not in blobs:
            line = text.count("\n", 0, found.start()) + 1
            column = found.start() - text.rfind("\n", 0, found.start())
            message = f"the resource {found[1]} has no elements in the text"
            raise PipelineError(message, f"{name}:{line}:{column}")
        return f'dense<"0x{blobs[found[1]]}">'

    return _RESOURCE.sub(elements, text if found is None else text[: found.start()])
