"""The reference of dialect and passes, written from their definitions.

    python -m moa_dialect.tools.reference          # write the pages
    python -m moa_dialect.tools.reference --check  # fail if they are not up to date

The pages are docs/dialect.md and docs/passes.md.
What the pages say is taken from the live definitions: docstrings, operands, results,
properties, traits and assembly formats of operations, options of passes.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xdsl.dialects.builtin import (
    AffineSetAttr,
    ArrayOfConstraint,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, Operation
from xdsl.irdl import (
    AnyAttr,
    AnyOf,
    AttrConstraint,
    BaseAttr,
    EqAttrConstraint,
    IRDLOperation,
    OpDef,
    OptPropertyDef,
    ParamAttrConstraint,
    RangeConstraint,
    RangeLengthConstraint,
    RangeOf,
    VarConstraint,
    VarOperandDef,
    VarResultDef,
)
from xdsl.passes import ModulePass, get_pass_option_infos
from xdsl.utils.target import Target

from moa_dialect import dialect
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.types import ELEMENT_TYPE_NAMES
from moa_dialect.universe import MOA_UNIVERSE

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMMAND = "python -m moa_dialect.tools.reference"

_NAMES: dict[type[Attribute], str] = {
    TensorType: "tensor",
    MemRefType: "memref",
    StringAttr: "string",
    SymbolRefAttr: "symbol",
    UnitAttr: "unit",
    IntegerAttr: "integer",
    AffineSetAttr: "affine set",
    DenseArrayBase: "list",
    DenseIntOrFPElementsAttr: "dense elements",
}

_GROUPS: tuple[tuple[str, str, Sequence[type[Operation]]], ...] = (
    (
        "The array algebra",
        "Region-free operations on `tensor` values: the stage `moa`. All are pure. A\n"
        "scalar operation is named by a string, a function by its symbol.",
        dialect.ALGEBRA,
    ),
    (
        "The denotational normal form",
        "Index spaces with scalar bodies: the stages `dnf` and `fused`.",
        dialect.NORMAL_FORM,
    ),
    (
        "The operational normal form",
        "Loops and flat addresses: the stage `onf`. Extents, checks and folds of\n"
        "scalars stay those of the denotational normal form.",
        dialect.OPERATIONAL,
    ),
)


def constraint_text(constraint: AttrConstraint | RangeConstraint) -> str:
    """A constraint on an attribute or type in words."""
    match constraint:
        case RangeLengthConstraint(constraint=inner) | RangeOf(constr=inner):
            return constraint_text(inner)
        case ArrayOfConstraint(elem_range_constraint=inner):
            return f"list of: {constraint_text(inner)}"
        case VarConstraint(constraint=inner):
            return constraint_text(inner)
        case AnyOf(attr_constrs=parts):
            return " or ".join(map(constraint_text, parts))
        case BaseAttr(attr=base):
            return _NAMES.get(base, base.__name__)
        case ParamAttrConstraint(base_attr=base, param_constrs=parameters):
            name = _NAMES.get(base, base.__name__)
            given = [p for p in parameters if isinstance(p, EqAttrConstraint)]
            inner = ", ".join(map(constraint_text, given))
            of = " of type " if base is IntegerAttr else " of "
            return f"{name}{of}{inner}" if inner else name
        case EqAttrConstraint(attr=attribute):
            return f"`{attribute}`"
        case AnyAttr():
            return "any"
        case _:
            return str(constraint)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fields(definition: OpDef) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, operand in definition.operands:
        is_list = isinstance(operand, VarOperandDef)
        rows.append(("operands" if is_list else "operand", name, _text(operand.constr)))
    for name, result in definition.results:
        is_list = isinstance(result, VarResultDef)
        rows.append(("results" if is_list else "result", name, _text(result.constr)))
    for name, given in definition.properties.items():
        kind = "optional property" if isinstance(given, OptPropertyDef) else "property"
        rows.append((kind, name, _text(given.constr)))
    rows.extend(("region", name, "one block") for name, _ in definition.regions)
    return rows


def _text(constraint: AttrConstraint | RangeConstraint) -> str:
    return constraint_text(constraint).replace("|", "\\|")


def operation_text(operation: type[IRDLOperation]) -> str:
    """The section on one operation."""
    definition = operation.get_irdl_definition()
    parts = [f"### {operation.name}", inspect.getdoc(operation) or ""]
    if fields := _fields(definition):
        rows = [(kind, f"`{name}`", text) for kind, name, text in fields]
        parts.append(table(("", "name", "constraint"), rows))
    traits = sorted(type(trait).__name__ for trait in definition.traits)
    if traits:
        parts.append(f"Traits: {', '.join(f'`{trait}`' for trait in traits)}.")
    if definition.assembly_format is not None:
        parts.append(f"Assembly format:\n\n```text\n{definition.assembly_format}\n```")
    for name, directive in definition.custom_directives.items():
        parts.append(f"`{name}`: {inspect.getdoc(directive)}")
    return "\n\n".join(parts)


def scalar_operations_text() -> str:
    """The table of scalar operations."""
    rows = [
        (
            f"`{op.name}`",
            f"`{op.symbol}`",
            str(op.arity),
            " ".join(sorted(op.kinds)),
            "a truth value" if op.is_predicate else "as its arguments",
            op.identity or "none" if op.arity == 2 and not op.is_predicate else "",
        )
        for op in SCALAR_OPERATIONS.values()
    ]
    header = ("name", "MoA", "arguments", "elements", "gives", "identity element")
    return table(header, rows)


def dialect_page() -> str:
    """The text of docs/dialect.md."""
    types = ", ".join(f"`{name}`" for name in ELEMENT_TYPE_NAMES)
    parts = [
        f"<!-- Written by `{COMMAND}` from the definitions; do not edit. -->",
        "# The moa dialect",
        "The operations, in the order in which a program meets them.\n"
        "[Algebra](algebra.md) explains the array operations with examples, and\n"
        "[Architecture](architecture.md) the normal forms.",
        f"Elements are of type {types}.\nExtents may be dynamic: `tensor<?x64xf32>`.",
        "## Scalar operations",
        "Named by a string in `moa.pointwise`, `moa.map`, `moa.reduce`, `moa.outer`,\n"
        "`moa.inner`, `moa.omega` and `moa.fold`. Each of these also takes the symbol\n"
        "of a function instead, written `@name`. Elements of kind float are f64, f32,\n"
        "f16 and bf16; int stands for i64, i32 and index, bool for i1. A reduction or\n"
        "fold over nothing gives the identity element; lowest and highest are the\n"
        "infinities for floats.",
        scalar_operations_text(),
    ]
    for title, text, operations in _GROUPS:
        parts += [f"## {title}", text]
        for operation in operations:
            assert issubclass(operation, IRDLOperation)
            parts.append(operation_text(operation))
    return "\n\n".join(parts) + "\n"


def _module_text(pass_: type[ModulePass]) -> str:
    """What the module of a pass says after its first line."""
    module = inspect.getmodule(pass_)
    text = (module and inspect.getdoc(module)) or ""
    first, _, rest = text.partition("\n\n")
    return rest.strip() if first.startswith(f"{pass_.name}:") else ""


def options_text(options: type[ModulePass | Target]) -> str:
    """The table of options of a pass, or that it has none."""
    infos = get_pass_option_infos(options)  # pyright: ignore[reportArgumentType]
    if not infos:
        return "No options."
    rows = [
        (
            f"`{info.name}`",
            f"`{info.expected_type.strip(chr(39))}`",
            "required" if info.default_value is None else f"`{info.default_value}`",
        )
        for info in infos
    ]
    return table(("option", "type", "default"), rows)


def pass_text(name: str, factory: Callable[[], type[ModulePass]]) -> str:
    """The section on one pass."""
    pass_ = factory()
    parts = [f"## {name}", inspect.getdoc(pass_) or "", options_text(pass_)]
    if more := _module_text(pass_):
        parts.append(more)
    return "\n\n".join(parts)


def passes_page() -> str:
    """The text of docs/passes.md."""
    passes = MOA_UNIVERSE.all_passes
    parts = [
        f"<!-- Written by `{COMMAND}` from the definitions; do not edit. -->",
        "# Passes",
        "`moa-opt -p PASS,...` runs them in the order given, options in braces:\n"
        "`-p 'moa-to-dnf{limit=1000},moa-check-dnf'`. Plain `xdsl-opt` knows them too\n"
        "where moa is installed. They are listed in the order of the stages; which\n"
        "pass leads to which stage is in [Architecture](architecture.md).",
        *(pass_text(name, factory) for name, factory in passes.items()),
        "## Output in MoA notation",
    ]
    for factory in MOA_UNIVERSE.all_targets.values():
        target = factory()
        parts += [inspect.getdoc(target) or "", options_text(target)]
    return "\n\n".join(parts) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "dialect.md": dialect_page,
    "passes.md": passes_page,
}
"""The pages written here, by file name in docs/."""


def outdated(docs: Path) -> list[str]:
    """The names of the pages that do not say what the definitions say."""
    return [
        name
        for name, page in PAGES.items()
        if not (path := docs / name).exists() or path.read_text("utf-8") != page()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them; the exit code is 1 if they are not up to date."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Write docs/dialect.md and docs/passes.md."
    )
    parser.add_argument(
        "--check", action="store_true", help="only check that they are up to date"
    )
    parser.add_argument(
        "--docs", metavar="DIR", type=Path, default=DOCS, help="the folder of the pages"
    )
    options = parser.parse_args(arguments)
    if not options.docs.is_dir():
        print(f"reference: error: no folder {options.docs}", file=sys.stderr)
        return 1
    names = outdated(options.docs)
    for name in names:
        if options.check:
            print(f"docs/{name} is not up to date: run `{COMMAND}`", file=sys.stderr)
        else:
            (options.docs / name).write_text(PAGES[name](), "utf-8")
            print(f"wrote docs/{name}")
    return 1 if options.check and names else 0


if __name__ == "__main__":
    sys.exit(main())
