"""moa's passes on text, on modules of each copy of the bindings, and as a filter.

What is wrong with a program is said with the place it has in the compiler it is from.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import importlib
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect import irdl
from moa_dialect.universe import MOA_UNIVERSE

COPIES = ("mlir", "jaxlib.mlir", "torch_mlir", "iree.compiler")

PROGRAM = """\
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>, sym_name = "f"}> ({
  ^bb0(%a: tensor<3x4xf32>, %b: tensor<4x5xf32>):
    %0 = "moa.inner"(%a, %b) {combine = "add", function = "mul"} : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32> loc("product"("model.py":7:9 to :31))
    "func.return"(%0) : (tensor<3x5xf32>) -> () loc(callsite("model.py":8:3 at "main.py":1:1))
  }) : () -> () loc("model.py":6:1)
}) {test.kept = dense<0xFF800000> : tensor<2xf32>} : () -> ()
"""

WRONG = PROGRAM.replace("4x5", "5x5")
"""The extents of the product do not match."""

AT = "model.py:7:9: 'moa.inner' op inner: the last extent of the left operand must"

LOWER = "moa-infer-shapes,moa-to-dnf,moa-share,moa-to-linalg"


@pytest.fixture(params=COPIES)
def copy(request: pytest.FixtureRequest) -> Any:
    """A copy of upstream's bindings: its modules `ir` and `passmanager`."""
    try:
        ir = importlib.import_module(f"{request.param}.ir")
    except ImportError as error:
        # Or, of IREE's: another copy has been loaded before.
        pytest.skip(f"{request.param} cannot be loaded: {error}")
    if request.param == "jaxlib.mlir":
        # JAX registers its passes where it needs them.
        importlib.import_module("jax._src.interpreters.mlir")
    manager = importlib.import_module(f"{request.param}.passmanager")
    return SimpleNamespace(ir=ir, PassManager=manager.PassManager)


def open_context(copy: Any) -> Any:
    context = copy.ir.Context()
    context.allow_unregistered_dialects = True
    return context


def operations(module: Any) -> list[str]:
    found: list[str] = []

    def visit(op: Any) -> None:
        found.append(op.name if isinstance(op.name, str) else op.operation.name)
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation)

    visit(module.operation)
    return found


def located(module: Any) -> str:
    return module.operation.get_asm(
        print_generic_op_form=True, enable_debug_info=True, use_local_scope=True
    )


# Modules of the bindings


def test_module_comes_back_in_its_own_bindings(copy: Any):
    context = open_context(copy)
    module = copy.ir.Module.parse(PROGRAM, context)
    before = located(module)
    result = moa.run_pipeline(module, LOWER)
    assert type(result) is copy.ir.Module
    assert result.context == context
    assert "linalg.generic" in operations(result)
    assert not [name for name in operations(result) if name.startswith("moa.")]
    assert "test.kept" in result.operation.attributes
    assert located(module) == before


def test_locations_stay(copy: Any):
    module = copy.ir.Module.parse(PROGRAM, open_context(copy))
    text = located(moa.run_pipeline(module, "moa-infer-shapes"))
    assert 'loc("product"("model.py":7:9))' in text
    assert 'loc(callsite("model.py":8:3 at "main.py":1:1))' in text


def test_new_operations_are_where_the_function_is(copy: Any):
    module = copy.ir.Module.parse(PROGRAM, open_context(copy))
    text = located(moa.run_pipeline(module, "moa-to-dnf"))
    (line,) = re.findall(r'.*"moa.extent"\(%arg0\) <{axis = 0.*', text)
    assert 'loc("model.py":6:1)' in line


def test_error_has_the_location_of_the_operation(copy: Any):
    module = copy.ir.Module.parse(WRONG, open_context(copy))
    with pytest.raises(moa.PipelineError, match=f"^{re.escape(AT)}") as caught:
        moa.run_pipeline(module, "moa-to-dnf")
    assert caught.value.location == "model.py:7:9"
    assert caught.value.message.startswith("'moa.inner' op inner")


def test_result_that_the_context_does_not_know(copy: Any):
    module = copy.ir.Module.parse("module {}", copy.ir.Context())
    assert operations(moa.run_pipeline(module, "moa-to-dnf")) == ["builtin.module"]
    unknown = copy.ir.Module.parse(PROGRAM, open_context(copy))
    unknown.context.allow_unregistered_dialects = False
    with pytest.raises(
        moa.PipelineError, match=r"does not know .* moa.*: set context.allow_unregister"
    ):
        moa.run_pipeline(unknown, "moa-infer-shapes")


def test_dialect_defined_in_irdl():
    """Operations of a dialect from IRDL have no properties, and come back without."""
    from mlir import ir

    context = ir.Context()
    irdl.load(context)
    module = ir.Module.parse(PROGRAM, context)
    result = moa.run_pipeline(module, "moa-infer-shapes")
    assert "moa.inner" in operations(result)


# As a pass of a pass manager


def managed(copy: Any, context: Any, *passes: Any) -> Any:
    manager = copy.PassManager("builtin.module", context)
    for each in passes:
        manager.add(each)
    return manager


def test_pass_in_a_pass_manager(copy: Any):
    context = open_context(copy)
    module = copy.ir.Module.parse(PROGRAM, context)
    with context:
        passes = moa.upstream_pass("moa-to-dnf"), moa.upstream_pass("moa-to-linalg")
        managed(copy, context, *passes).run(module.operation)
    assert "linalg.generic" in operations(module)
    assert "test.kept" in module.operation.attributes
    assert module.operation.verify()


def test_pass_between_upstream_passes():
    from mlir import ir
    from mlir.passmanager import PassManager

    copy = SimpleNamespace(ir=ir, PassManager=PassManager)
    context = open_context(copy)
    module = ir.Module.parse(PROGRAM, context)
    with context:
        manager = managed(
            copy,
            context,
            "cse",
            moa.upstream_pass(LOWER),
            "linalg-specialize-generic-ops",
        )
        manager.run(module.operation)
    assert "linalg.matmul" in operations(module)


def test_failing_pass_reports_at_the_operation(copy: Any):
    context = open_context(copy)
    module = copy.ir.Module.parse(WRONG, context)
    before = located(module)
    with context, pytest.raises(copy.ir.MLIRError) as caught:
        managed(copy, context, moa.upstream_pass("moa-to-dnf")).run(module.operation)
    (diagnostic, *_) = caught.value.error_diagnostics
    assert "7:9" in str(diagnostic.location)
    assert "must equal the first of the right" in diagnostic.message
    assert located(module) == before


def test_pass_works_on_modules():
    from mlir import ir
    from mlir.passmanager import PassManager

    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        module = ir.Module.parse(PROGRAM)
        manager = PassManager("func.func")
        manager.add(moa.upstream_pass("moa-to-dnf"))
        (function,) = module.body.operations
        with pytest.raises(
            ir.MLIRError, match=r"works on builtin\.module, got func\.func"
        ):
            manager.run(function.operation)


# Other dialects

FOREIGN = """\
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<4xf32>) -> tensor<4xf32>, sym_name = "g", sym_visibility = "private"}> ({
  ^bb0(%a: tensor<4xf32>):
    %0 = "some.op"(%a) <{how = #some.kind<fast, [1, 2]>}> ({
    ^bb1(%x: !some.type<"t", 3>):
      "some.end"(%x) : (!some.type<"t", 3>) -> ()
    }) {where = @h} : (tensor<4xf32>) -> tensor<4xf32> loc("other.py":3:4)
    "func.return"(%0) : (tensor<4xf32>) -> ()
  }) : () -> ()
  "some.global"() <{sym_name = "h"}> : () -> ()
}) : () -> ()
"""
ALL = (
    "moa-infer-shapes,moa-to-dnf,moa-share,moa-restrict-domains,moa-fuse-reductions,"
    "moa-sink,moa-to-linalg"
)


def test_unknown_dialects_pass_through(copy: Any):
    context = open_context(copy)
    module = copy.ir.Module.parse(FOREIGN, context)
    result = moa.run_pipeline(module, ALL)
    assert located(result) == located(copy.ir.Module.parse(located(module), context))


@pytest.mark.parametrize("pipeline", [ALL, "moa-to-dnf,moa-to-onf,moa-to-scf"])
def test_functions_of_others_stay_beside_programs(pipeline: str):
    both = PROGRAM.replace('"builtin.module"() ({\n', "").rsplit("})", 1)[0]
    head, tail = FOREIGN.rsplit("}) : () -> ()", 1)
    text = f"{head}{both}}}) : () -> (){tail}"
    alone = moa.run_pipeline(FOREIGN, "", generic=True).splitlines()
    lines = moa.run_pipeline(text, pipeline, generic=True)
    for line in alone[1:-2]:
        assert line.split(" loc(")[0] in lines
    assert "moa.inner" not in lines


def test_array_of_another_dialect_is_named():
    text = PROGRAM.replace(
        '%0 = "moa.inner"(%a',
        '%c = "some.op"(%a) : (tensor<3x4xf32>) -> tensor<3x4xf32> loc("o.py":2:1)\n%0 = "moa.inner"(%c',
    )
    with pytest.raises(moa.PipelineError, match=r"^o.py:2:1: .* array from some.op"):
        moa.run_pipeline(text, "moa-to-dnf")


# Text


def test_text_stays_text():
    text = PROGRAM.replace(' loc("product"("model.py":7:9 to :31))', "")
    text = re.sub(r" loc\(.*\)$", "", text, flags=re.MULTILINE)
    result = moa.run_pipeline(text, "moa-infer-shapes")
    assert "%0 = moa.inner add mul %a, %b :" in result
    assert "loc(" not in result
    generic = moa.run_pipeline(text, "moa-infer-shapes", generic=True)
    assert '"moa.inner"(%a, %b) <{' in generic


def test_text_with_locations_keeps_them():
    assert 'loc("product"("model.py":7:9))' in moa.run_pipeline(PROGRAM, "")


def test_aliases_of_locations():
    text = 'func.func private @f() loc(#a)\n#b = loc("x.py":1:2)\n#a = loc("n"(#b))\n'
    assert 'loc("n"("x.py":1:2))' in moa.run_pipeline(text, "")


def test_error_in_text_without_locations_has_line_and_column():
    text = """func.func @f(%a: tensor<3xf32>, %b: tensor<4xf32>) -> tensor<3xf32> {
  %0 = moa.pointwise add %a, %b : tensor<3xf32>, tensor<4xf32> -> tensor<3xf32>
  func.return %0 : tensor<3xf32>
}"""
    with pytest.raises(
        moa.PipelineError, match=r"^<text>:2:3: 'moa\.pointwise' op add"
    ):
        moa.run_pipeline(text, "moa-to-dnf")


UPSTREAM = """func.func @f(%a: tensor<3x4xf32>, %b: tensor<4x5xf32>) -> tensor<3x5xf32> {
  %e = tensor.empty() : tensor<3x5xf32>
  %z = arith.constant 0.0 : f32
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<3x5xf32>) -> tensor<3x5xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<3x4xf32>, tensor<4x5xf32>) outs(%i : tensor<3x5xf32>) -> tensor<3x5xf32>
  return %0 : tensor<3x5xf32>
}"""


def test_upstream_syntax_is_read():
    assert '"linalg.matmul"' in moa.run_pipeline(UPSTREAM, "")
    with pytest.raises(
        moa.PipelineError, match=r"^<text>:5:8: custom op 'linalg\.matmu'"
    ):
        moa.run_pipeline(UPSTREAM.replace("matmul", "matmu"), "")


def test_linalg_goes_through_the_algebra(copy: Any):
    """Linalg of any copy of the bindings is raised, and comes back as linalg."""
    generic = moa.run_pipeline(UPSTREAM, "", generic=True)
    module = copy.ir.Module.parse(generic, open_context(copy))
    raised = moa.run_pipeline(module, "moa-raise-linalg{strict=true}")
    assert "moa.comprehension" in operations(raised)
    again = moa.run_pipeline(raised, "moa-to-dnf,moa-to-linalg")
    assert "linalg.generic" in operations(again)
    assert not [name for name in operations(again) if name.startswith("moa.")]


RESOURCE = """module {
  func.func @f() -> tensor<2xf32> {
    %0 = arith.constant dense_resource<blob1> : tensor<2xf32>
    return %0 : tensor<2xf32>
  }
}

{-#
  dialect_resources: {
    builtin: {
      blob1: "0x040000000000803F00000040"
    }
  }
#-}
"""


def test_elements_in_resources_are_kept():
    from mlir import ir

    with ir.Context():
        module = ir.Module.parse(RESOURCE)
        result = str(moa.run_pipeline(module, "moa-to-dnf"))
    assert "dense<[1.000000e+00, 2.000000e+00]>" in result
    missing = RESOURCE.replace("blob1:", "blob2:")
    with pytest.raises(moa.PipelineError, match="resource blob1 has no elements"):
        moa.run_pipeline(missing, "moa-to-dnf")


# What is no pipeline, and no program

PIPELINES = {
    "moa-to-dmf": "unknown pass moa-to-dmf: expected .*moa-to-dnf",
    "moa-to-dnf{speed=3}": "pass moa-to-dnf: Provided arguments",
    "moa-to-dnf{limit=high}": "pass moa-to-dnf: Incompatible types",
    "moa-to-dnf{": "pipeline 'moa-to-dnf{': Expected argument name",
    "mlir-pipeline{pipeline=nothing}": "upstream pipeline: .*nothing",
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_malformed_pipeline(pipeline: str):
    with pytest.raises(moa.PipelineError, match=PIPELINES[pipeline]):
        moa.run_pipeline(PROGRAM, pipeline)


@pytest.mark.parametrize("value", [None, 3, b"", object, ["moa"]], ids=repr)
def test_neither_text_nor_module(value: Any):
    with pytest.raises(TypeError, match="expected text or a module of the upstream"):
        moa.run_pipeline(value, "moa-to-dnf")


GARBAGE = {
    "": "<text>:1:1: expected a module, got no operation",
    "hello": "<text>:1:6: ",
    "\0": "<text>:1:1: ",
    "func.func @f(": "<text>:1:14: ",
    "func.func @f(%a: tensor<3x-4xf32>) { func.return }": "<text>:1:27: ",
    '"a"() ({' * 3000: "the text is nested too deeply",
    '"' + "an open quote " * 20: "<text>:1:1: ",
    "func.func @f() {\n  func.return %x : f32\n}": "<text>:",
}


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:20]))
def test_garbage(text: str):
    with pytest.raises(moa.PipelineError, match=f"^{re.escape(GARBAGE[text])}"):
        moa.run_pipeline(text, "moa-to-dnf")


def mutated(data: st.DataObject) -> str:
    text = data.draw(st.sampled_from((PROGRAM, FOREIGN)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 12)))
        put = data.draw(
            st.sampled_from(("", "%0", ")", "(", "<", "x", "-1", '"', "#a"))
        )
        text = text[:start] + put + text[stop:]
    return text


@given(st.data())
@settings(max_examples=60)
def test_damaged_text(data: st.DataObject):
    """Whatever happens to a text, it is read or refused, never worse."""
    text = mutated(data)
    with contextlib.suppress(moa.PipelineError):
        assert moa.run_pipeline(text, LOWER)


# StableHLO


def test_stablehlo_passes_through_and_comes_back():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def f(q: Any, k: Any) -> Any:
        return jax.nn.softmax(q @ k.T, axis=-1)

    module = jax.jit(f).lower(jnp.ones((4, 8)), jnp.ones((6, 8))).compiler_ir()
    result = moa.run_pipeline(module, ALL)
    assert type(result) is type(module)
    same = re.sub(r" to \d*:\d+", "", located(module))
    assert located(result) == same


# As a filter


def filtered(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "moa_dialect.tools.moa_opt", *options)
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=60
    )


def test_filter():
    options = ("-p", LOWER, "--print-op-generic", "--print-debuginfo")
    result = filtered(PROGRAM, *options)
    assert result.returncode == 0, result.stderr
    assert '"linalg.generic"' in result.stdout
    result = filtered(FOREIGN, "--allow-unregistered-dialect", *options)
    assert 'loc("other.py":3:4)' in result.stdout


def test_filter_keeps_elements_in_resources():
    result = filtered(RESOURCE.replace("return", "func.return"))
    assert "dense<[1.000000e+00, 2.000000e+00]>" in result.stdout
    result = filtered(RESOURCE.replace("blob1:", "blob2:"))
    assert "the resource blob1 has no elements in the text" in result.stderr


def test_filter_reports_at_the_operation():
    result = filtered(WRONG, "-p", "moa-to-dnf")
    assert result.returncode == 1
    assert result.stderr.startswith("moa-opt: model.py:7:9: ")
    assert "Traceback" not in result.stderr


def test_every_pass_is_known():
    for name in MOA_UNIVERSE.all_passes:
        if name != "mlir-pipeline":
            moa.upstream_pass(name)


def test_numbers_survive():
    """Floats without a decimal spelling, in both directions."""
    text = "func.func @f() -> tensor<3xf32> {\n  %0 = moa.constant dense<[0x7F800000, -0.0, 1.0e-30]> : tensor<3xf32>\n  func.return %0 : tensor<3xf32>\n}"
    from mlir import ir

    context = ir.Context()
    context.allow_unregistered_dialects = True
    module = ir.Module.parse(moa.run_pipeline(text, "", generic=True), context)
    again = str(moa.run_pipeline(module, "moa-infer-shapes"))
    found = re.search(r"dense<\[(.*?)\]>", again)
    assert found is not None
    first, zero, small = found[1].split(", ")
    assert first == "0x7F800000"
    assert str(np.float32(zero)) == "-0.0"
    assert np.float32(small) == np.float32(1e-30)
