"""Crossing between xDSL modules and upstream MLIR, in process, as generic text.

The upstream bindings are imported when first used: nothing else of moa needs them.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from xdsl.context import Context
from xdsl.dialects.builtin import FunctionType, ModuleOp, UnitAttr, UnregisteredOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove
from xdsl.utils.exceptions import ParseError

from moa_dialect.errors import CompileError
from moa_dialect.parsing import ModuleParser

if TYPE_CHECKING:
    from mlir import ir


class _GenericPrinter(Printer):
    """xDSL's printer of the generic form, five times as fast.

    It does not indent, nor count lines, prints each attribute once and an operation in
    a few pieces.
    """

    def __init__(self) -> None:
        super().__init__(print_generic_format=True)
        self.parts: list[str] = []
        self._printed: dict[int, tuple[Attribute, str]] = {}
        self._keys: dict[str, str] = {}
        self._kinds: dict[type[Operation], tuple[bool, bool]] = {}

    def print_string(self, text: str, *, indent: int | None = None) -> None:
        self.parts.append(text)

    def _print_new_line(
        self, indent: int | None = None, print_message: bool = True
    ) -> None:
        self.parts.append("\n")

    def print_attribute(self, attribute: Attribute) -> None:
        self.parts.append(self._text(attribute))

    def print_op(self, op: Operation) -> None:
        kind = type(op)
        if kind not in self._kinds:
            isolated = bool(op.get_traits_of_type(IsolatedFromAbove))
            self._kinds[kind] = isolated, isinstance(op, UnregisteredOp)
        isolated, unregistered = self._kinds[kind]
        if op.results:
            self.parts.append(f"{', '.join(map(self._name, op.results))} = ")
        if isolated:
            self.enter_scope()
        name, attributes = op.name, op.attributes
        if unregistered:
            name = cast(UnregisteredOp, op).op_name.data
            attributes = {k: v for k, v in attributes.items() if k != "op_name__"}
        operands = list(op.operands)
        self.parts.append(f'"{name}"({", ".join(map(self._name, operands))})')
        self.print_successors(op.successors)
        if op.properties:
            self.parts.append(f" <{{{self._entries(op.properties)}}}>")
        self.print_regions(op.regions)
        if attributes:
            self.parts.append(f" {{{self._entries(attributes)}}}")
        inputs = ", ".join([self._text(value.type) for value in operands])
        types = [value.type for value in op.results]
        outputs = ", ".join(map(self._text, types))
        if len(types) != 1 or type(types[0]) is FunctionType:
            outputs = f"({outputs})"
        self.parts.append(f" : ({inputs}) -> {outputs}")
        if isolated:
            self.exit_scope()

    def _text(self, attribute: Attribute) -> str:
        # The attribute is kept, so that no other one gets its identity.
        known = self._printed.get(id(attribute))
        if known is None:
            write = super().print_attribute
            text = self._taken(lambda: write(attribute))
            known = self._printed[id(attribute)] = attribute, text
        return known[1]

    def _name(self, value: SSAValue) -> str:
        name = self._ssa_values.get(value)
        if name is None:
            return self._taken(lambda: self.print_ssa_value(value))
        return f"%{name}"

    def _entries(self, attributes: Mapping[str, Attribute]) -> str:
        return ", ".join(
            self._key(key)
            if type(value) is UnitAttr
            else f"{self._key(key)} = {self._text(value)}"
            for key, value in attributes.items()
        )

    def _key(self, key: str) -> str:
        if key not in self._keys:
            self._keys[key] = self._taken(
                lambda: self.print_identifier_or_string_literal(key)
            )
        return self._keys[key]

    def _taken(self, print_: Callable[[], object]) -> str:
        """What a call prints, which is taken out again."""
        start = len(self.parts)
        print_()
        text = "".join(self.parts[start:])
        del self.parts[start:]
        return text


def generic_text(module: ModuleOp) -> str:
    """A module in MLIR's generic form, which both sides read without loss."""
    printer = _GenericPrinter()
    printer.print_op(module)
    return "".join(printer.parts)


def new_context() -> ir.Context:
    """An upstream context that lets other dialects' operations pass through."""
    from mlir import ir

    # Dialects are loaded when a text or a pass needs them: all take milliseconds.
    context = ir.Context(load_on_create_dialects=[])  # pyright: ignore[reportCallIssue]
    context.allow_unregistered_dialects = True
    # A pass that reports an error and still succeeds would abort the process.
    context.emit_error_diagnostics = True
    return context


def parse(text: str, context: ir.Context) -> ir.Module:
    """Parse and verify a module upstream.

    Raises:
        CompileError: with the first line of what upstream reports.
    """
    from mlir import ir

    try:
        return ir.Module.parse(text, context)
    except ir.MLIRError as error:
        raise CompileError(
            f"upstream MLIR rejects the module: {_line(error)}"
        ) from None


def run_pipeline(module: ir.Module, pipeline: str, verify_each: bool = True) -> None:
    """Run a pipeline of upstream passes; `a,b` means `builtin.module(a,b)`.

    With `verify_each` the module is verified after each pass, otherwise once at the
    end, which takes two thirds of the time.

    Raises:
        CompileError: if the pipeline does not parse or a pass fails.
    """
    from mlir import ir
    from mlir.passmanager import PassManager

    if not pipeline.startswith("builtin.module("):
        pipeline = f"builtin.module({pipeline})"
    with module.context:
        try:
            manager = PassManager.parse(pipeline)
        except ValueError as error:
            raise CompileError(f"upstream pipeline: {_line(error)}") from None
        manager.enable_verifier(verify_each)
        try:
            manager.run(module.operation)
            if not verify_each:
                module.operation.verify()
        except ir.MLIRError as error:
            raise CompileError(f"upstream pass failed: {_line(error)}") from None


def operations_beside(module: ir.Module, prefixes: tuple[str, ...]) -> list[str]:
    """The names of the operations in a module that do not start as given."""
    from mlir import ir

    found: set[str] = set()

    def visit(op: Any) -> Any:
        if not op.name.startswith(prefixes):
            found.add(op.name)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return sorted(found)


def llvm_ir(module: ir.Module) -> str:
    """A module in the LLVM dialect as LLVM IR.

    Raises:
        CompileError: if operations of other dialects are left.
    """
    # `mlir.dialects.llvm`, which has it too, takes long to import.
    from mlir._mlir_libs._mlirDialectsLLVM import translate_module_to_llvmir

    # What cannot be translated would end the process.
    if left := operations_beside(module, ("llvm.", "builtin.module")):
        raise CompileError(f"upstream does not lower {', '.join(left)}")
    with module.context:
        return str(translate_module_to_llvmir(module.operation))


def _line(error: Exception) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and line != "Failure:"), "no reason")


def replace_by_text(module: ModuleOp, text: str, ctx: Context) -> None:
    """Replace a module's content by parsed text; unknown operations are kept.

    Raises:
        CompileError: if xDSL cannot read what upstream printed.
    """
    allowed, ctx.allow_unregistered = ctx.allow_unregistered, True
    try:
        parsed = ModuleParser(ctx, text).parse_module()
    except ParseError as error:
        raise CompileError(f"cannot read upstream's text: {error}") from None
    finally:
        ctx.allow_unregistered = allowed
    region = parsed.detach_region(parsed.body)
    module.detach_region(module.body).drop_all_references()
    module.add_region(region)
    module.attributes.update(parsed.attributes)
