"""The algebra in upstream MLIR: its definition in IRDL, round trips, what is rejected.

The programs are the examples in the docstrings of the operations, of every one that is
registered: an operation without an example fails here.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlir import ir
from xdsl.dialects.builtin import (
    DenseArrayBase,
    ModuleOp,
    StringAttr,
    TensorType,
    f64,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation
from xdsl.irdl import (
    IRDLOperation,
    MessageConstraint,
    VarConstraint,
    base,
    eq,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
)
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, VerifyException
from xdsl.utils.test_value import create_ssa_value

from moa_dialect import irdl
from moa_dialect.dialect import ALGEBRA, NORMAL_FORM, OPERATIONAL
from moa_dialect.ops.computational import OmegaOp
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.tools import irdl as generator
from moa_dialect.tools.examples import examples, parser, runnable

every_operation = pytest.mark.parametrize("operation", ALGEBRA, ids=lambda op: op.name)


def context() -> ir.Context:
    """An upstream context that knows the algebra and lets nothing else pass."""
    known = ir.Context()
    irdl.load(known)
    return known


def parsed(text: str) -> ModuleOp:
    module = parser(text).parse_module()
    module.verify()
    return module


# The definition


def test_definition_is_up_to_date():
    assert irdl.text() == generator.dialect_text(), f"run `{generator.COMMAND}`"


def test_check_tells_that_it_is_outdated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--file", str(tmp_path / "moa.irdl.mlir")]
    assert generator.main([*options, "--check"]) == 1
    assert "moa.irdl.mlir is not up to date" in capsys.readouterr().err
    assert generator.main(options) == 0
    assert generator.main([*options, "--check"]) == 0
    assert (tmp_path / "moa.irdl.mlir").read_text("utf-8") == irdl.text()


@every_operation
def test_has_every_operation_of_the_algebra(operation: type[Operation]):
    assert context().is_registered_operation(operation.name)


def test_has_no_other_operation():
    known = context()
    for operation in (*NORMAL_FORM, *OPERATIONAL):
        assert not known.is_registered_operation(operation.name)


def test_region_cannot_be_defined():
    with pytest.raises(generator.InexpressibleError, match="must have no regions"):
        generator.operation_text(ComprehensionOp)


def test_region_would_have_no_terminator():
    """Why: what the message says is so in upstream MLIR."""
    definition = """
    irdl.dialect @own {
      irdl.operation @body {
        %r = irdl.region
        irdl.regions(body: %r)
      }
      irdl.operation @end {}
    }"""
    known = ir.Context()
    with known:
        from mlir.dialects import irdl as upstream

        upstream.load_dialects(ir.Module.parse(definition))  # pyright: ignore[reportAttributeAccessIssue]
    text = '"own.body"() ({ "own.end"() : () -> () }) : () -> ()'
    rejected: Any = vars(ir)["MLIRError"]
    with pytest.raises(rejected, match="block with no terminator"):
        ir.Module.parse(text, known)


def test_variadic_types_would_be_equal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(generator.COUNTS, OmegaOp)
    with pytest.raises(generator.InexpressibleError, match="would have to be equal"):
        generator.operation_text(OmegaOp)


def test_counts_are_those_of_the_verifier():
    """As many arrays as omega is said to take are accepted, no other number is."""
    array = create_ssa_value(TensorType(f64, [3]))
    fewest, most = generator.COUNTS[OmegaOp]
    for count in range(most + 2):
        ranks = DenseArrayBase.from_list(i64, [0] * count)
        properties = {"function": StringAttr("add"), "ranks": ranks}
        op = OmegaOp.create(
            operands=[array] * count, result_types=[array.type], properties=properties
        )
        if fewest <= count <= most:
            op.verify_ranks()
        else:
            with pytest.raises(VerifyException, match="expects one or two arrays"):
                op.verify_ranks()


def test_unknown_kind_of_type_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(generator.BASES, TensorType)
    with pytest.raises(
        generator.InexpressibleError, match="no upstream name of tensor"
    ):
        generator.dialect_text()


def test_unknown_constraint_is_an_error():
    @irdl_op_definition
    class NotAString(IRDLOperation):
        name = "moa.not_a_string"
        value = prop_def(MessageConstraint(base(StringAttr), "a string"))

    with pytest.raises(generator.InexpressibleError, match="no constraint of IRDL for"):
        generator.operation_text(NotAString)


@irdl_op_definition
class Mixed(IRDLOperation):
    """An operation with what the algebra does not use."""

    name = "moa.mixed"
    T: ClassVar = VarConstraint("T", TensorType.constr())
    lhs = operand_def(T)
    rhs = opt_operand_def(T)
    order = prop_def(eq(StringAttr("row")) | eq(StringAttr("column")))
    hint = opt_prop_def(StringAttr)


def mixed(operands: str, types: str, order: str) -> str:
    return (
        f"func.func @f(%a: tensor<3xf64>, %b: tensor<4xf64>) {{\n"
        f'  "moa.mixed"({operands}) {{order = "{order}"}} : ({types}) -> ()\n'
        f"  return\n}}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (mixed("%a", "tensor<3xf64>", "row"), None),
        (mixed("%a, %a", "tensor<3xf64>, tensor<3xf64>", "column"), None),
        (
            mixed("%a, %b", "tensor<3xf64>, tensor<4xf64>", "row"),
            "expected 'tensor<3xf64>' but got 'tensor<4xf64>'",
        ),
        (mixed("%a", "tensor<3xf64>", "diagonal"), "does not satisfy the constraint"),
        (mixed("", "", "row"), "expects at least 1 operands, but got 0"),
    ],
)
def test_choices_options_and_equal_types(
    text: str, message: str | None, tmp_path: Path
):
    file = tmp_path / "mixed.irdl.mlir"
    file.write_text(generator.dialect_text([Mixed]))
    result = run((upstream_tool(), f"--irdl-file={file}"), text)
    assert (result.returncode == 0) == (message is None)
    assert (message or "") in result.stderr


def test_loading_twice_is_no_error():
    known = context()
    irdl.load(known)
    assert known.is_registered_operation("moa.psi")


# There and back


def upstream_tool() -> str:
    spec = importlib.util.find_spec("mlir")
    assert spec is not None
    folders = list(spec.submodule_search_locations or ())
    return f"{folders[0]}/bin/mlir-opt"


def run(command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=60
    )


def moa_opt(text: str, *options: str) -> str:
    command = (sys.executable, "-m", "moa_dialect.tools.moa_opt", *options)
    result = run(command, text)
    assert result.returncode == 0, result.stderr
    return result.stdout


def mlir_opt(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run((upstream_tool(), f"--irdl-file={irdl.path()}", *options), text)


@every_operation
def test_example_goes_there_and_back(operation: type[Operation]):
    found = examples(operation)
    assert found, f"{operation.name} has no example"
    known = context()
    for example in found:
        program = runnable(example)
        assert any(type(op) is operation for op in program.walk())
        there = ir.Module.parse(irdl.generic_text(program), known)
        assert f'"{operation.name}"' in str(there)
        again: Any = there.operation.get_asm(print_generic_op_form=True)
        assert parsed(again).is_structurally_equivalent(program)


@pytest.mark.parametrize("options", [(), ("--mlir-print-op-generic",)], ids=str)
def test_all_examples_go_through_the_tools(options: Sequence[str]):
    """One file with the examples of all operations, moa-opt to mlir-opt to moa-opt."""
    program = all_examples()
    there = moa_opt(custom_text(program), "--print-op-generic", "--print-no-properties")
    upstream = mlir_opt(there, *options)
    assert upstream.returncode == 0, upstream.stderr
    again = parsed(moa_opt(upstream.stdout))
    assert {op.name for op in again.walk()} >= {op.name for op in ALGEBRA}
    assert again.is_structurally_equivalent(program)


def custom_text(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream).print_op(module)
    return stream.getvalue()


def all_examples() -> ModuleOp:
    """A module with a function for each example."""
    functions: dict[str, FuncOp] = {}
    for operation in ALGEBRA:
        for number, example in enumerate(examples(operation)):
            for function in runnable(example).ops:
                assert isinstance(function, FuncOp)
                function.detach()
                name = function.sym_name.data
                if name == "example":
                    name = f"{operation.name.removeprefix('moa.')}_{number}"
                    function.properties["sym_name"] = StringAttr(name)
                functions[name] = function
    return ModuleOp(list(functions.values()))


ATTRIBUTES = """\
func.func private @f(%x: f64) -> f64 {
  func.return %x : f64
}
func.func private @g(%x: f64, %y: f64) -> f64 {
  func.return %y : f64
}
func.func @attributes(%a: tensor<2x?xf64>, %i: index) -> (tensor<2xf64>, tensor<f64>) {
  %c = moa.constant dense<[0x7FF0000000000000, -0.0, 1.0e-300]> : tensor<3xf64>
  %s = moa.constant dense<true> : tensor<2x2xi1>
  %e = moa.constant dense<> : tensor<0xindex>
  %h = moa.constant dense<[0x7C00, 0x0001]> : tensor<2xf16>
  %t = moa.transpose %a [1, 0] : tensor<2x?xf64> -> tensor<?x2xf64>
  %u = moa.transpose %a : tensor<2x?xf64> -> tensor<?x2xf64>
  %m = moa.map @f %a : tensor<2x?xf64> -> tensor<2x?xf64>
  %n = moa.inner @g max %a, %t : tensor<2x?xf64>, tensor<?x2xf64> -> tensor<2x2xf64>
  %o = moa.omega sub <0, 0> (%a, %c) {moa.note = "kept"} : (tensor<2x?xf64>, tensor<3xf64>) -> tensor<2x?xf64>
  %p = moa.cell %a[] : tensor<2x?xf64> -> tensor<2x?xf64>
  %q = moa.cell %a[%i, %i] : tensor<2x?xf64> -> tensor<f64>
  %r = moa.reduce max %n : tensor<2x2xf64> -> tensor<2xf64>
  func.return %r, %q : tensor<2xf64>, tensor<f64>
}
"""


def test_attributes_survive():
    """Symbols, names, lists, numbers without a decimal spelling, absent properties."""
    program = parsed(ATTRIBUTES)
    there = mlir_opt(irdl.generic_text(program))
    assert there.returncode == 0, there.stderr
    again = parsed(there.stdout)
    assert again.is_structurally_equivalent(program)
    assert [dict(op.properties) for op in again.walk()] == [
        dict(op.properties) for op in program.walk()
    ]


# What is rejected

PROGRAM = """\
func.func @f(%a: tensor<3x4xf64>, %v: tensor<1xindex>, %i: index) {
  %0 = "moa.psi"(%v, %a) : (tensor<1xindex>, tensor<3x4xf64>) -> tensor<4xf64>
  %1 = "moa.omega"(%a, %0) {function = "sub", ranks = array<i64: 1, 1>} : (tensor<3x4xf64>, tensor<4xf64>) -> tensor<3x4xf64>
  %2 = "moa.constant"() {value = dense<1> : tensor<1xindex>} : () -> tensor<1xindex>
  %3 = "moa.cell"(%a, %i) : (tensor<3x4xf64>, index) -> tensor<4xf64>
  return
}
"""

PSI = '"moa.psi"(%v, %a) : (tensor<1xindex>, tensor<3x4xf64>)'
ONE = "value = dense<1> : tensor<1xindex>"
OMEGA = '"moa.omega"(%a, %0) {function = "sub", ranks = array<i64: 1, 1>} : (tensor<3x4xf64>, tensor<4xf64>)'

REJECTED = {
    "operand count": (
        (PSI, '"moa.psi"(%v) : (tensor<1xindex>)'),
        "op expects exactly 2 operands, but got 1",
    ),
    "no array": (
        (OMEGA, '"moa.omega"() {function = "sub", ranks = array<i64: 1, 1>} : ()'),
        "op expects at least 1 operands, but got 0",
    ),
    "operand kind": (
        (PSI, '"moa.psi"(%v, %i) : (tensor<1xindex>, index)'),
        "expected base type 'builtin.tensor' but got 'builtin.index'",
    ),
    "operand type": (
        (
            "(%a, %i) : (tensor<3x4xf64>, index)",
            "(%a, %v) : (tensor<3x4xf64>, tensor<1xindex>)",
        ),
        "expected 'index' but got 'tensor<1xindex>'",
    ),
    "unknown operation": (
        ("moa.psi", "moa.chi"),
        "unregistered operation 'moa.chi' found in dialect ('moa')",
    ),
    "missing attribute": (
        (f"{{{ONE}}}", ""),
        '"value" is expected but not provided',
    ),
    "misspelt attribute": (
        ("ranks =", "rank ="),
        '"ranks" is expected but not provided',
    ),
    "kind of attribute": (
        (ONE, "value = 1 : index"),
        "expected base attribute 'builtin.dense_int_or_fp_elements'",
    ),
    "property": (
        (f"{{{ONE}}}", f"<{{{ONE}}}>"),
        "extensible Dialects don't support properties",
    ),
}


def test_program_is_accepted():
    assert mlir_opt(PROGRAM).returncode == 0


@pytest.mark.parametrize("name", REJECTED)
def test_is_rejected(name: str):
    (old, new), message = REJECTED[name]
    assert PROGRAM.count(old) == 1
    result = mlir_opt(PROGRAM.replace(old, new), "--allow-unregistered-dialect")
    assert result.returncode == 1
    assert message in result.stderr


def test_region_operation_is_rejected():
    text = '"moa.loop"() ({ "moa.yield"() : () -> () }) : () -> ()'
    assert "unregistered operation" in mlir_opt(text).stderr


# What only moa's own verifier rejects, as the page on upstream MLIR says

ONLY_HERE = {
    "shape rule": (
        ("index) -> tensor<4xf64>\n  return", "index) -> tensor<7xf64>\n  return"),
        "result type does not follow from the operands",
    ),
    "element type": (
        ("%v: tensor<1xindex>", "%v: tensor<1xf64>"),
        "psi expects integers",
    ),
    "scalar operation": (('"sub"', '"subtract"'), "unknown scalar operation"),
    "elements of a list": (("array<i64: 1, 1>", "array<i32: 1, 1>"), "i64"),
    "kind of function": (('"sub"', "1 : i64"), "Unexpected attribute 1 : i64"),
}


@pytest.mark.parametrize("name", ONLY_HERE)
def test_limit(name: str):
    (old, new), message = ONLY_HERE[name]
    assert PROGRAM.count(old) == 1
    text = PROGRAM.replace(old, new)
    if name == "element type":
        text = text.replace("(tensor<1xindex>, ", "(tensor<1xf64>, ")
    assert mlir_opt(text).returncode == 0
    with pytest.raises((VerifyException, ParseError), match=message):
        parsed(text.replace("  return\n", "  func.return\n"))


def test_optional_attribute_is_not_checked():
    text = """\
func.func @f(%a: tensor<3x4xf64>) {
  %0 = "moa.transpose"(%a) {permutation = "reversed"} : (tensor<3x4xf64>) -> tensor<4x3xf64>
  func.return
}
"""
    assert mlir_opt(text).returncode == 0
    with pytest.raises((VerifyException, ParseError)):
        parsed(text)


def test_duplicates_stay():
    """No trait says that the algebra is pure: upstream removes nothing."""
    text = """\
func.func @f(%a: tensor<3xf64>) {
  %0 = "moa.reverse"(%a) : (tensor<3xf64>) -> tensor<3xf64>
  %1 = "moa.reverse"(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return
}
"""
    cleaned = mlir_opt(text, "--canonicalize", "--cse")
    assert cleaned.stdout.count("moa.reverse") == 2
    assert "moa.reverse" not in moa_opt(text, "-p", "dce")


def test_module_prints_the_path():
    result = run((sys.executable, "-m", "moa_dialect.irdl"), "")
    assert Path(result.stdout.strip()).samefile(irdl.path())
