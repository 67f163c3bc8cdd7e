"""The table of what there is for each operation, filled in from evidence.

    python -m moa_dialect.tools.coverage          # write docs/coverage.md
    python -m moa_dialect.tools.coverage --check  # fail if it is not up to date

No cell is typed: each says what a function here has found, or run, for an operation of
the algebra or of the table of scalar operations. Where there is nothing to find the
reason is in `NOT_APPLICABLE`; any other empty cell is a gap, which is an error.
"""

from __future__ import annotations

import argparse
import inspect
import operator
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    DenseArrayBase,
    ModuleOp,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import ParseError, VerifyException
from xdsl.utils.hints import isa

import moa_dialect as moa
from moa_dialect import irdl, proofs
from moa_dialect.algebra.scalar import SCALAR_OPERATIONS, ScalarOperation
from moa_dialect.arguments import array_type
from moa_dialect.dialect import ALGEBRA
from moa_dialect.errors import IndexRangeError, MoaError, ShapeError
from moa_dialect.frontend.trace import ArraySpec, trace_program
from moa_dialect.interpreter import interpret_module
from moa_dialect.lowering.engine import kernel_of
from moa_dialect.lowering.pipelines import lower_to
from moa_dialect.passes.laws import LAWS
from moa_dialect.tools.examples import examples, parser, runnable
from moa_dialect.tools.reference import DOCS, table
from moa_dialect.types import (
    ELEMENT_TYPE_NAMES,
    dtype_of,
    element_of,
    element_type_of,
    kind_of,
)

COMMAND = "python -m moa_dialect.tools.coverage"
PAGE = "coverage.md"
ENTRY = "example"
NEGATIVE_TESTS = DOCS.parent / "test" / "filecheck" / "dialect" / "invalid.mlir"

NOT_APPLICABLE: dict[tuple[str, str], str] = {
    ("moa.cell", "Python"): (
        "it stands for a cell of omega while a program is lowered; no program has it"
    ),
    ("moa.cell", "compiled"): (
        "an index scalar is no argument of a kernel; in a kernel for omega it is the "
        "index of a loop"
    ),
    ("moa.constant", "Python"): (
        "the numbers and NumPy arrays in a program are its constants"
    ),
    **{
        (f"moa.{rule.replace('-', '_')}", "proof"): reason
        for rule, reason in proofs.WITHOUT_INDEX_REWRITING.items()
    },
}
"""Why there is nothing to find, by operation and column."""


_NOTHING = (ParseError, VerifyException, MoaError, KeyError)
"""What is raised where something is not there: no operation, law, code or meaning."""


# Running the examples


def entry_function(module: ModuleOp) -> FuncOp:
    """The function of an example: the first one."""
    return next(op for op in module.ops if isinstance(op, FuncOp))


def sample(module: ModuleOp, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Arguments that an example takes, and its results by the interpreter.

    Extents that are not static, indices, counts and masks are drawn until the
    interpreter accepts them and the results have elements.

    Raises:
        MoaError: if the interpreter cannot run the example, or nothing fits it.
    """
    function = entry_function(module)
    rng = np.random.default_rng(seed)
    for attempt in range(5_000):
        highest = (5, 3, 2, 10, 30)[attempt % 5]
        arrays: list[np.ndarray] = []
        for argument in function.body.block.args:
            dtype, extents = array_type(argument.type)
            shape = [int(rng.integers(1, 5)) if n < 0 else n for n in extents]
            if dtype.kind == "b":
                array = rng.integers(0, 2, shape).astype(dtype)
            elif dtype.kind == "i":
                array = rng.integers(0, highest, shape).astype(dtype)
            else:
                array = np.divide(rng.integers(-16, 17, shape), 8).astype(dtype)
            arrays.append(np.asarray(array))
        try:
            results = list(interpret_module(module, ENTRY, arrays))
        except (ShapeError, IndexRangeError):
            continue
        if all(result.size for result in results):
            return arrays, results
    raise MoaError("no arguments were found that the example takes")


def agree(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether results are equal, up to the last places of a mathematical library."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    if actual.dtype.kind in "bi":
        return bool(np.array_equal(actual, expected))
    tolerance = 8 * float(cast(Any, ml_dtypes).finfo(actual.dtype).eps)
    return bool(
        np.allclose(
            actual.astype(np.float64),
            expected.astype(np.float64),
            rtol=tolerance,
            atol=tolerance / 8,
            equal_nan=True,
        )
    )


def all_agree(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    """Whether there are as many results, and each agrees."""
    return len(actual) == len(expected) and all(map(agree, actual, expected))


def run_interpreter(module: ModuleOp, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of a program by the interpreter."""
    return list(interpret_module(module, ENTRY, arrays))


def run_compiled(module: ModuleOp, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of a program by a kernel, compiled anew: not one from the cache."""
    lowered = module.clone()
    lower_to(lowered, "target", Context())
    results = kernel_of(lowered, ENTRY)(*arrays)
    return [*results] if isinstance(results, tuple) else [results]


@dataclass
class Example:
    """An example of an operation: a program, arguments for it, and its results."""

    operation: type[Operation]
    text: str

    @cached_property
    def module(self) -> ModuleOp:
        """The program, verified."""
        module = runnable(self.text)
        module.verify()
        return module

    @property
    def function(self) -> FuncOp:
        """Its function, of the operands of the operation."""
        return entry_function(self.module)

    @property
    def op(self) -> Operation:
        """The operation in it."""
        (op,) = (op for op in self.function.walk() if isinstance(op, self.operation))
        return op

    @cached_property
    def run(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Arguments and results by the interpreter."""
        return sample(self.module, zlib.crc32(self.text.encode()))

    def at(self, stage: str) -> ModuleOp:
        """The program at a stage."""
        module = self.module.clone()
        lower_to(module, stage, Context())
        return module


class Evidence:
    """What the columns look at, for one operation."""

    def __init__(self, operation: type[Operation]) -> None:
        self.operation = operation
        self.examples = [Example(operation, text) for text in examples(operation)]

    @property
    def name(self) -> str:
        """The operation's name without the dialect's."""
        return self.operation.name.removeprefix("moa.")

    def all_examples(self, holds: Callable[[Example], bool]) -> bool:
        """Whether there are examples and something holds of each."""
        return bool(self.examples) and all(map(holds, self.examples))


# The columns: what was found, None if nothing was


def verifier(evidence: Evidence) -> str | None:
    """It rejects a result of another rank; and how many negative tests there are."""

    def rejects_other_rank(example: Example) -> bool:
        op = Example(evidence.operation, example.text).op
        type_ = op.results[0].type
        assert isa(type_, TensorType)
        other = TensorType(type_.get_element_type(), [*type_.get_shape(), 1])
        op.results[0]._type = other  # pyright: ignore[reportPrivateUsage]
        try:
            op.verify()
        except VerifyException:
            return True
        return False

    if not evidence.all_examples(rejects_other_rank):
        return None
    pieces = NEGATIVE_TESTS.read_text("utf-8").split("// -----\n")
    # The operation after the expected message is the one that is rejected.
    pattern = rf"// CHECK[^\n]*\n(\s*//[^\n]*\n)*[^\n/]*\b{evidence.operation.name}\b"
    count = sum(bool(re.search(pattern, piece)) for piece in pieces)
    if not count:
        return "result type"
    return f"result type, {count} test{'s' if count > 1 else ''}"


def syntax(evidence: Evidence) -> str | None:
    """Its own syntax, which parses to what was printed."""
    assert issubclass(evidence.operation, IRDLOperation)
    if evidence.operation.get_irdl_definition().assembly_format is None:
        return None

    def is_read_back(example: Example) -> bool:
        text = str(example.module)
        again = parser(text).parse_module()
        return f'"{evidence.operation.name}"' not in text and (
            again.is_structurally_equivalent(example.module)
        )

    return "own" if evidence.all_examples(is_read_back) else None


def interpreter(evidence: Evidence) -> str | None:
    """The interpreter runs the examples."""
    return "runs" if evidence.all_examples(lambda e: bool(e.run[1])) else None


def law(evidence: Evidence) -> str | None:
    """The law that reduces it."""
    found = LAWS.get(evidence.operation)
    return None if found is None else f"`{found.name}`"


def stage(name: str) -> Callable[[Evidence], str | None]:
    """A stage without the operation means the same as the program."""

    def column(evidence: Evidence) -> str | None:
        def is_same(example: Example) -> bool:
            arrays, expected = example.run
            module = example.at(name)
            actual = run_interpreter(module, arrays)
            left = any(isinstance(op, evidence.operation) for op in module.walk())
            return not left and all_agree(actual, expected)

        return "equal" if evidence.all_examples(is_same) else None

    return column


def compiled(evidence: Evidence) -> str | None:
    """The kernel computes what the interpreter does."""

    def is_same(example: Example) -> bool:
        arrays, expected = example.run
        return all_agree(run_compiled(example.module, arrays), expected)

    return "equal" if evidence.all_examples(is_same) else None


def proof(evidence: Evidence) -> str | None:
    """The obligations of its law; the tests prove them."""
    found = LAWS.get(evidence.operation)
    rule = "" if found is None else found.name.removeprefix("psi-")
    if rule not in proofs.rules():
        return None
    parts = proofs.obligations(rule)
    ranks = sorted({part.rank for part in parts})
    of = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
    return f"{len(parts)}, {of}"


PUBLIC = {
    name: function
    for name in moa.__all__
    if inspect.isfunction(function := getattr(moa, name))
    and function.__module__ != "moa_dialect.lowering.runtime"
    and name not in ("jit", "interpret")
}


OPERATORS: list[Callable[..., Any]] = [
    getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "truediv", "pow", "and_", "or_", "xor"),
        *("lt", "le", "gt", "ge", "eq", "ne", "invert", "neg", "abs"),
    )
]


def python(evidence: Evidence) -> str | None:
    """The public functions that record it, given what the example has."""

    def is_found(function: Callable[..., Any]) -> bool:
        return any(_records(function, example) for example in evidence.examples)

    if evidence.name in PUBLIC:
        return f"`moa.{evidence.name}`" if is_found(PUBLIC[evidence.name]) else None
    found = [f"`moa.{name}`" for name, function in PUBLIC.items() if is_found(function)]
    operators = ["operators"] if any(map(is_found, OPERATORS)) else []
    if len(found) > 2:
        found[1:] = [f"{len(found) - 1} more functions"]
    return ", ".join([*operators, *found]) or None


def _records(function: Callable[..., Any], example: Example) -> bool:
    """Whether a call with the example's operands and properties records its operation.

    The arguments are tried in each order, without the properties too, since the order
    is the function's own.
    """
    op = example.op
    given: dict[SSAValue, np.ndarray] = {}
    given.update(zip(example.function.body.block.args, example.run[0], strict=True))
    arrays = [given[operand] for operand in op.operands]
    specs = [ArraySpec(array.shape, array.dtype) for array in arrays]
    properties: list[Any] = []
    for value in op.properties.values():
        if isinstance(value, StringAttr):
            properties.append(value.data)
        elif isa(value, DenseArrayBase):
            properties.append(list(cast(Any, value).get_values()))
    element = dtype_of(element_of(op.results[0].type))
    for options in ([], properties, [element]):
        for order in permutations(range(len(arrays) + len(options))):

            def program(*traced: Any) -> Any:
                values = [*traced, *options]  # noqa: B023
                return function(*(values[place] for place in order))  # noqa: B023

            try:
                module = trace_program(program, specs, "main")
            except (MoaError, TypeError, ValueError, AttributeError, AssertionError):
                continue
            if any(isinstance(found, example.operation) for found in module.walk()):
                return True
    return False


def documentation(evidence: Evidence) -> str | None:
    """Its section in the page on the algebra: shape, rule and the example."""
    page = (DOCS / "algebra.md").read_text("utf-8")
    title = evidence.name.replace("_", " ").capitalize()
    section = re.search(
        rf"^(?:##+) {title}\n(.*?)(?=^##+ |\Z)", page, re.MULTILINE | re.DOTALL
    )
    if section is None:
        return None
    text = section[1]
    has_rules = all(re.search(rf"^- {p}: ", text, re.M) for p in ("Shape", "Rule"))
    has_example = evidence.all_examples(lambda example: example.text in text)
    return _link(title) if has_rules and has_example else None


def _link(title: str) -> str:
    return f"[{title}](algebra.md#{title.lower().replace(' ', '-')})"


def upstream(evidence: Evidence) -> str | None:
    """Defined in IRDL: its examples go to upstream MLIR and back."""
    from mlir import ir

    context = ir.Context()
    irdl.load(context)
    if not context.is_registered_operation(evidence.operation.name):
        return None

    def comes_back(example: Example) -> bool:
        there: Any = ir.Module.parse(irdl.generic_text(example.module), context)
        text: str = there.operation.get_asm(print_generic_op_form=True)
        again = parser(text).parse_module()
        return again.is_structurally_equivalent(example.module)

    return "round trip" if evidence.all_examples(comes_back) else None


COLUMNS: dict[str, Callable[[Evidence], str | None]] = {
    "verifier": verifier,
    "syntax": syntax,
    "interpreter": interpreter,
    "law": law,
    "DNF": stage("dnf"),
    "ONF": stage("onf"),
    "compiled": compiled,
    "proof": proof,
    "Python": python,
    "documentation": documentation,
    "IRDL": upstream,
}


# The scalar operations


@dataclass(frozen=True)
class ScalarUse:
    """A use of a scalar operation as a statement of a program.

    Attributes:
        column: the column it belongs to.
        name: the operation.
        element: the element type of its arguments.
        text: the statement, without a name for its result.
        result: the type of the result.
    """

    column: str
    name: str
    element: str
    text: str
    result: str


BY_ELEMENT = "element by element"
SCALAR_COLUMNS = ("interpreter", BY_ELEMENT, "reduce", "scan")
LENGTH = 4


def _uses(operation: ScalarOperation, element: str) -> list[ScalarUse]:
    """What the verifier accepts of an operation for elements of a type."""
    result = "i1" if operation.is_predicate else element
    array, given = f"tensor<{LENGTH}x{result}>", f"tensor<{LENGTH}x{element}>"
    name = operation.name
    if operation.arity == 1:
        text = f"moa.map {name} %a : {given} -> {array}"
        return [ScalarUse(BY_ELEMENT, name, element, text, array)]
    text = f"moa.pointwise {name} %a, %b : {given}, {given} -> {array}"
    uses = [ScalarUse(BY_ELEMENT, name, element, text, array)]
    for fold, type_ in (("reduce", f"tensor<{element}>"), ("scan", given)):
        text = f"moa.{fold} {name} %c : {given} -> {type_}"
        uses.append(ScalarUse(fold, name, element, text, type_))
    return uses


def _program(uses: Sequence[ScalarUse]) -> ModuleOp:
    """A program of uses for one element type, verified."""
    given = f"tensor<{LENGTH}x{uses[0].element}>"
    results = ", ".join(use.result for use in uses)
    names = ", ".join(f"%{number}" for number in range(len(uses)))
    body = "".join(f"  %{n} = {use.text}\n" for n, use in enumerate(uses))
    module = parser(
        f"func.func @{ENTRY}(%a: {given}, %b: {given}, %c: {given}) -> ({results}) {{\n"
        f"{body}  func.return {names} : {results}\n}}\n"
    ).parse_module()
    module.verify()
    return module


def _is_well_formed(use: ScalarUse) -> bool:
    try:
        _program([use])
    except VerifyException:
        return False
    return True


def scalar_arguments(element: Attribute) -> list[np.ndarray]:
    """Two arrays with numbers of either sign and zero, and one for folds."""
    dtype = dtype_of(element)
    match kind_of(element):
        case "bool":
            values = [[0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 1]]
        case "int":
            values = [[-3, 0, 5, 7], [2, -4, 5, 1], [3, 2, 1, 4]]
        case "float":
            values = [[-1.5, 0.0, 2.0, 0.25], [0.5, -2.0, 2.0, 1.5], [2, 1.5, 0.5, 1]]
    return [np.array(row).astype(dtype) for row in values]


def _results(
    run: Callable[[ModuleOp, Sequence[np.ndarray]], list[np.ndarray]],
    uses: Sequence[ScalarUse],
    arrays: Sequence[np.ndarray],
) -> list[np.ndarray | None]:
    """The results of uses: all in one program, one by one if that does not run."""
    try:
        return [*run(_program(uses), arrays)]
    except _NOTHING:
        if len(uses) == 1:
            return [None]
        return [_results(run, [use], arrays)[0] for use in uses]


def scalar_evidence(
    operations: Sequence[ScalarOperation],
) -> dict[tuple[str, str], list[str]]:
    """The element types by operation and column: where each use is as it should be.

    The interpreter gives what the table says, and compiled code what the interpreter
    does.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for element in ELEMENT_TYPE_NAMES:
        type_ = element_type_of(element)
        taking = [op for op in operations if kind_of(type_) in op.kinds]
        uses = [
            use
            for operation in taking
            for use in _uses(operation, element)
            if _is_well_formed(use)
        ]
        if not uses:
            continue
        arrays = scalar_arguments(type_)
        expected = _results(run_interpreter, uses, arrays)
        actual = _results(run_compiled, uses, arrays)
        for use, right, left in zip(uses, expected, actual, strict=True):
            if right is None:
                continue
            if use.column == BY_ELEMENT:
                operation = next(op for op in taking if op.name == use.name)
                with np.errstate(all="ignore"):
                    defined = np.asarray(operation.compute(*arrays[: operation.arity]))
                if agree(right, defined):
                    found.setdefault((use.name, "interpreter"), []).append(element)
            if left is not None and agree(left, right):
                found.setdefault((use.name, use.column), []).append(element)
    return found


def scalar_expected(operation: ScalarOperation, column: str) -> list[str] | str:
    """The element types that a column must have, or why there are none."""
    types = [
        element
        for element in ELEMENT_TYPE_NAMES
        if kind_of(element_type_of(element)) in operation.kinds
    ]
    if column in ("interpreter", BY_ELEMENT):
        return types
    if operation.arity == 1:
        return "a fold needs a function of two arguments"
    if operation.is_predicate:
        types = [element for element in types if element == "i1"]
    return types or "a fold needs a function that gives what it takes, no truth value"


def scalar_documentation(operation: ScalarOperation) -> str | None:
    """The section of the page on the algebra that has it in its table."""
    page = (DOCS / "algebra.md").read_text("utf-8")
    found = re.search(rf"^\| .*`{operation.name}`.* \|$", page, re.MULTILINE)
    if found is None:
        return None
    titles = re.findall(r"^###? (.+)$", page[: found.start()], re.MULTILINE)
    return _link(titles[-1])


# The page


@dataclass
class Table:
    """A table as it is filled in: rows, reasons for cells without, gaps."""

    rows: list[list[str]]
    reasons: list[str]
    gaps: list[str]

    def not_applicable(self, reason: str) -> str:
        """A cell that has a reason instead."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"n/a ({self.reasons.index(reason) + 1})"


def operation_table(operations: Sequence[type[Operation]], notes: list[str]) -> Table:
    """The table of the operations of the algebra."""
    filled = Table([], notes, [])
    for operation in operations:
        evidence = Evidence(operation)
        row = [f"`{operation.name}`"]
        for column, find in COLUMNS.items():
            reason = NOT_APPLICABLE.get((operation.name, column))
            try:
                cell = find(evidence)
            except _NOTHING:
                cell = None
            if cell is not None and reason is not None:
                filled.gaps.append(
                    f"{operation.name}, {column}: not applicable is said, {cell} found"
                )
            elif cell is None and reason is None:
                filled.gaps.append(f"{operation.name}, {column}: nothing found")
            elif cell is None and reason is not None:
                cell = filled.not_applicable(reason)
            row.append(cell or "")
        filled.rows.append(row)
    return filled


def scalar_table(operations: Sequence[ScalarOperation], notes: list[str]) -> Table:
    """The table of the scalar operations."""
    filled = Table([], notes, [])
    evidence = scalar_evidence(operations)
    for operation in operations:
        row = [f"`{operation.name}`"]
        for column in SCALAR_COLUMNS:
            found = evidence.get((operation.name, column), [])
            expected = scalar_expected(operation, column)
            if isinstance(expected, str) and not found:
                row.append(filled.not_applicable(expected))
                continue
            if found != expected:
                wanted = expected if isinstance(expected, str) else " ".join(expected)
                filled.gaps.append(
                    f"{operation.name}, {column}: expected {wanted}, "
                    f"found {' '.join(found) or 'nothing'}"
                )
            row.append(" ".join(found))
        documented = scalar_documentation(operation)
        if documented is None:
            filled.gaps.append(f"{operation.name}, documentation: nothing found")
        filled.rows.append([*row, documented or ""])
    return filled


def page() -> tuple[str, list[str]]:
    """The text of docs/coverage.md, and the gaps in it."""
    notes: list[str] = []
    of_operations = operation_table(ALGEBRA, notes)
    of_scalars = scalar_table(list(SCALAR_OPERATIONS.values()), notes)
    listed = "\n".join(f"{n}. {reason}." for n, reason in enumerate(notes, 1))
    parts = [
        f"<!-- Written by `{COMMAND}` from what it finds; do not edit. -->",
        "# Coverage",
        "What there is for each operation. No cell is written by hand: each is found\n"
        "in the definitions, or by running the examples of the operation. A cell\n"
        "without evidence is an error, unless there is a reason for it, given below.",
        "## Operations of the algebra",
        "- verifier: a result of another rank is rejected; the number of tests in\n"
        "  which something else is.\n"
        "- syntax: what is printed is not the generic form, and parses to the same.\n"
        "- interpreter: it runs the examples.\n"
        "- law: the name of the law that reduces the operation in `moa-to-dnf`.\n"
        "- DNF, ONF: in that normal form the examples have no such operation and the\n"
        "  same results by the interpreter.\n"
        "- compiled: the kernels of the examples give the same results.\n"
        "- proof: the obligations of the law in `moa_dialect.proofs`, and the ranks.\n"
        "- Python: the public function that records the operation, or operators and\n"
        "  functions that do.\n"
        "- documentation: a section with shape, rule and the examples.\n"
        "- IRDL: the examples go to [upstream MLIR](upstream.md) and back.",
        table(("operation", *COLUMNS), of_operations.rows),
        "## Scalar operations",
        "Element types, each tried with numbers of either sign and zero.\n"
        "\n"
        "- interpreter: it gives what the table of scalar operations says.\n"
        f"- {BY_ELEMENT}, reduce, scan: compiled code gives what the interpreter\n"
        "  does, in `moa.pointwise` or `moa.map`, `moa.reduce` and `moa.scan`.",
        table(("operation", *SCALAR_COLUMNS, "documentation"), of_scalars.rows),
        "## Where there is nothing",
        listed,
    ]
    return "\n\n".join(parts) + "\n", [*of_operations.gaps, *of_scalars.gaps]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it; the exit code is 1 for gaps or an outdated page."""
    parser_ = argparse.ArgumentParser(
        prog=COMMAND, description=f"Write docs/{PAGE}, the table of what there is."
    )
    parser_.add_argument(
        "--check", action="store_true", help="only check that it is up to date"
    )
    parser_.add_argument(
        "--docs", metavar="DIR", type=Path, default=DOCS, help="the folder of the page"
    )
    options = parser_.parse_args(arguments)
    path: Path = options.docs / PAGE
    for folder in (DOCS, options.docs):
        if not folder.is_dir():
            print(f"coverage: error: no folder {folder}", file=sys.stderr)
            return 1
    text, gaps = page()
    for gap in gaps:
        print(f"coverage: {gap}", file=sys.stderr)
    if gaps:
        return 1
    if path.exists() and path.read_text("utf-8") == text:
        return 0
    if options.check:
        print(f"docs/{PAGE} is not up to date: run `{COMMAND}`", file=sys.stderr)
        return 1
    path.write_text(text, "utf-8")
    print(f"wrote docs/{PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
