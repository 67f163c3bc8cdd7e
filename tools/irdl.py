"""The definition of the array algebra in IRDL, written from its operations.

    python -m moa_dialect.tools.irdl          # write moa_dialect/moa.irdl.mlir
    python -m moa_dialect.tools.irdl --check  # fail if it is not up to date

Operands and results keep their names, kinds and number, required properties their
kinds. Not written, for IRDL of LLVM 22 cannot say it:

- operands of one variadic name that differ in type: each constraint stands for one type
  in an operation, so each such operand has a constraint of its own (`COUNTS`);
- parameters of builtin types and attributes, such as the element type of a tensor or of
  a dense array;
- a choice between kinds of attribute (`irdl.any_of` takes single attributes only): that
  attribute may be any;
- an optional attribute: upstream takes any attribute of a name that is not listed;
- rules between shapes, traits and the custom syntax.

An operation with regions is an error: upstream wants a block to end in a terminator,
and a dialect defined in IRDL cannot have one. So only the algebra is exported.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.dialects.builtin import (
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
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
    AttrSetConstraint,
    BaseAttr,
    EqAttrConstraint,
    IRDLOperation,
    OperandDef,
    OptionalDef,
    ParamAttrConstraint,
    RangeConstraint,
    RangeLengthConstraint,
    RangeOf,
    ResultDef,
    VarConstraint,
    VariadicDef,
)

from moa_dialect import irdl
from moa_dialect.dialect import ALGEBRA, Moa
from moa_dialect.ops.computational import OmegaOp

COMMAND = "python -m moa_dialect.tools.irdl"

BASES: dict[type[Attribute], str] = {
    TensorType: "!builtin.tensor",
    StringAttr: "#builtin.string",
    SymbolRefAttr: "#builtin.symbol_ref",
    UnitAttr: "#builtin.unit",
    IntegerAttr: "#builtin.integer",
    DenseArrayBase: "#builtin.dense_array",
    DenseIntOrFPElementsAttr: "#builtin.dense_int_or_fp_elements",
}
"""What upstream calls the kinds of types and attributes."""


COUNTS: dict[type[Operation], tuple[int, int]] = {OmegaOp: (1, 2)}
"""How many operands of one variadic name there may be, as its verifier says."""


class InexpressibleError(Exception):
    """An operation that IRDL cannot define."""


@dataclass
class _Body:
    """The constraints of one operation, as the lines that define them.

    A name stands for one attribute wherever it is used: only what a variable of the
    definition says to be equal shares one.
    """

    lines: list[str] = field(default_factory=list[str])
    variables: dict[str, str] = field(default_factory=dict[str, str])

    def _define(self, text: str) -> str:
        name = f"%{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def constraint(self, constraint: AttrConstraint | RangeConstraint) -> str:
        """The name of a constraint.

        Raises:
            InexpressibleError: for a kind of constraint, type or attribute that is not
                known here.
        """
        match constraint:
            case RangeLengthConstraint(constraint=inner) | RangeOf(constr=inner):
                return self.constraint(inner)
            case VarConstraint(name=name, constraint=inner):
                if name not in self.variables:
                    self.variables[name] = self.constraint(inner)
                return self.variables[name]
            case BaseAttr(attr=base) | ParamAttrConstraint(base_attr=base):
                if base not in BASES:
                    raise InexpressibleError(f"no upstream name of {base.name}")
                return self._define(f'irdl.base "{BASES[base]}"')
            case EqAttrConstraint(attr=attribute):
                return self._define(f"irdl.is {attribute}")
            case AttrSetConstraint(values=attributes):
                texts = sorted(map(str, attributes))
                names = [self._define(f"irdl.is {text}") for text in texts]
                return self._define(f"irdl.any_of({', '.join(names)})")
            case AnyOf() | AnyAttr():
                return self._define("irdl.any")
            case _:
                raise InexpressibleError(f"no constraint of IRDL for {constraint}")


def _is_one_attribute(constraint: object) -> bool:
    """Whether all values of a variadic name have one given type."""
    match constraint:
        case RangeOf(constr=inner) | RangeLengthConstraint(constraint=inner):
            return _is_one_attribute(inner)
        case _:
            return isinstance(constraint, EqAttrConstraint)


def _values(
    operation: type[Operation],
    body: _Body,
    values: Sequence[tuple[str, OperandDef | ResultDef]],
) -> str:
    """The list of operands or results, with their constraints."""
    listed: list[str] = []
    for name, value in values:
        if isinstance(value, OptionalDef):  # which is also a variadic one
            entries = [(name, "optional ")]
        elif not isinstance(value, VariadicDef):
            entries = [(name, "")]
        elif _is_one_attribute(value.constr):
            entries = [(name, "variadic ")]
        elif operation in COUNTS:
            fewest, most = COUNTS[operation]
            entries = [
                (f"{name}_{n}", "" if n < fewest else "optional ") for n in range(most)
            ]
        else:
            raise InexpressibleError(
                f"{operation.name}: the types of variadic {name} would have to be equal"
            )
        listed += [f"{n}: {kind}{body.constraint(value.constr)}" for n, kind in entries]
    return ", ".join(listed)


def operation_text(operation: type[IRDLOperation]) -> str:
    """The definition of one operation.

    Raises:
        InexpressibleError: if IRDL cannot define it.
    """
    definition = operation.get_irdl_definition()
    if definition.regions or definition.successors:
        raise InexpressibleError(
            f"{operation.name}: a dialect in IRDL has no terminators, so an operation "
            f"must have no regions and no successors"
        )
    body = _Body()
    parts: list[str] = []
    if operands := _values(operation, body, definition.operands):
        parts.append(f"irdl.operands({operands})")
    if results := _values(operation, body, definition.results):
        parts.append(f"irdl.results({results})")
    attributes = [
        f'"{name}" = {body.constraint(given.constr)}'
        for name, given in (definition.properties | definition.attributes).items()
        if not isinstance(given, OptionalDef)
    ]
    if attributes:
        parts.append(f"irdl.attributes {{ {', '.join(attributes)} }}")
    lines = "".join(f"    {line}\n" for line in [*body.lines, *parts])
    first, *_ = (inspect.getdoc(operation) or "").splitlines()
    name = operation.name.removeprefix(f"{Moa.name}.")
    return f"  // {first}\n  irdl.operation @{name} {{\n{lines}  }}\n"


def dialect_text(operations: Sequence[type[Operation]] = ALGEBRA) -> str:
    """The definition of the algebra.

    Raises:
        InexpressibleError: if IRDL cannot define an operation.
    """
    texts: list[str] = []
    for operation in operations:
        assert issubclass(operation, IRDLOperation)
        texts.append(operation_text(operation))
    return (
        f"// Written by `{COMMAND}` from the operations; do not edit.\n"
        f"// The array algebra of moa: mlir-opt --irdl-file={irdl.path().name}\n"
        f"\n"
        f"irdl.dialect @{Moa.name} {{\n" + "\n".join(texts) + "}\n"
    )


def is_up_to_date(path: Path) -> bool:
    """Whether a file says what the operations say."""
    return path.exists() and path.read_text("utf-8") == dialect_text()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the definition, or check it; the exit code is 1 if it is not up to date."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Write the definition of the algebra in IRDL."
    )
    parser.add_argument(
        "--check", action="store_true", help="only check that it is up to date"
    )
    parser.add_argument(
        "--file", metavar="FILE", type=Path, default=irdl.path(), help="the file"
    )
    options = parser.parse_args(arguments)
    path: Path = options.file
    if is_up_to_date(path):
        return 0
    if options.check:
        print(f"{path.name} is not up to date: run `{COMMAND}`", file=sys.stderr)
        return 1
    path.write_text(dialect_text(), "utf-8")
    print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
