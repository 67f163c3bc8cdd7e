"""The examples in the docstrings of operations, as modules that verify and run."""

from __future__ import annotations

import inspect
import re

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation

from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

FUNCTIONS = """
func.func private @row_maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}
"""
"""What the examples name."""


def examples(operation: type[Operation]) -> list[str]:
    """The operations of the examples in a docstring, each for itself."""
    text = inspect.getdoc(operation) or ""
    blocks = re.findall(r"^```mlir\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        statement
        for block in blocks
        for statement in re.split(r"^(?=[%\w])", block, flags=re.MULTILINE)
        if statement
    ]


def parser(text: str) -> ModuleParser:
    """A parser that knows every dialect."""
    context = Context()
    register_dialects(context)
    return ModuleParser(context, text)


def undefined(text: str) -> dict[str, str]:
    """The values that an example uses and does not define, with their types."""
    reader = parser(text)
    while reader.parse_optional_operation() is not None:
        pass
    return {
        name: str(value.type)
        for name, values in reader.forward_ssa_references.items()
        for value in values.values()
    }


def completed(text: str) -> str:
    """An example as a module: what it uses are arguments of a function around it."""
    arguments = ", ".join(
        f"%{name}: {type_}" for name, type_ in undefined(text).items()
    )
    if text.startswith("moa.yield"):  # a terminator needs a region
        text = f"%c = moa.comprehension [] -> tensor<f64> {{\n{text}}}\n"
    return f"func.func @example({arguments}) {{\n{text}func.return\n}}\n{FUNCTIONS}"


def runnable(text: str) -> ModuleOp:
    """An example as a module whose function `example` returns its result."""
    module = parser(completed(text)).parse_module()
    function = next(op for op in module.ops if isinstance(op, FuncOp))
    block = function.body.block
    end = block.last_op
    assert end is not None
    example = end.prev_op
    assert example is not None
    end.detach()
    block.add_op(ReturnOp(*example.results))
    function.update_function_type()
    return module
