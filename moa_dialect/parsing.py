"""Reading MLIR text: xDSL's parser, with hexadecimal floats read as MLIR means them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import AnyFloat
from xdsl.parser import AttrParser, Parser

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


class ModuleParser(Parser):
    """A parser that reads back infinities and NaN in dense constants.

    They have no decimal spelling: `dense<0xFF800000> : tensor<f32>` is -inf in MLIR,
    and is what xDSL prints, but xDSL's own parser takes it for the number 4286578688.
    """

    def _parse_tensor_literal_element(self) -> AttrParser._TensorLiteralElement:
        element = super()._parse_tensor_literal_element()
        text = element.span.text
        if text[:2].lower() in ("0x", b"0x"):
            return _Bits(element.is_negative, element.value, element.span)
        return element
