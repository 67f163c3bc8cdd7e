"""Crossing to upstream: the generic text is that which xDSL prints, not indented."""

from io import StringIO

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.parser import Parser
from xdsl.printer import Printer

import moa_dialect as moa
from moa_dialect.lowering import upstream

TEXT = """
%0 = "a.value"() <{unit, "not a key" = 1 : i32, text = "x\\"y", f = @f}> : () -> i32
%1, %2 = "a.pair"(%0) {more = [1 : i64, unit], unit} : (i32) -> (i32, index)
%f = "a.function"() : () -> ((i32) -> i32)
"a.isolated"() ({
^bb0(%x: i32, %y: memref<?x4xf32, affine_map<(d0, d1) -> (d1, d0)>>):
  "a.jump"(%x)[^bb1, ^bb2] : (i32) -> ()
^bb1:
  "a.loop"() ({
  }, {
    %x_1 = "a.value"() : () -> i32
    %x_2 = "a.sum"(%x, %x_1) : (i32, i32) -> i32
  }) : () -> ()
^bb2:
}) {a.b} : () -> ()
"builtin.module"() ({
  %9 = "a.value"() : () -> i32
}) {sym_name = "inner"} : () -> ()
"""


def as_xdsl(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream, print_generic_format=True).print_op(module)
    return "\n".join(line.lstrip() for line in stream.getvalue().splitlines())


def test_every_kind_of_operation() -> None:
    context = Context(allow_unregistered=True)
    context.load_dialect(Builtin)
    module = Parser(context, TEXT).parse_module()
    text = upstream.generic_text(module)
    assert text == as_xdsl(module)
    assert upstream.generic_text(Parser(context, text).parse_module()) == text


@pytest.mark.parametrize("stage", ["moa", "dnf", "fused", "onf", "target"])
def test_programs_at_every_stage(stage: str) -> None:
    arrays = [moa.ArraySpec((2, None, 16), "f32")] * 3
    compiled = moa.jit(moa.library.attention).lower(*arrays, is_causal=True)
    module = compiled.module(stage)
    assert upstream.generic_text(module) == as_xdsl(module)
