"""Derivations: each is what the passes did, is found again from the text, is proved."""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.irdl import IRDLOperation
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

import moa_dialect as moa
from moa_dialect import library, proofs
from moa_dialect.errors import CompileError, MoaError
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes import derivation
from moa_dialect.passes.derivation import DERIVATION
from moa_dialect.passes.fold_addresses import FoldAddressesPass
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.infer_shapes import InferShapesPass
from moa_dialect.passes.laws import LAWS
from moa_dialect.passes.psi_laws import PsiLaw
from moa_dialect.passes.restrict import RestrictDomainsPass
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.sink import SinkPass
from moa_dialect.passes.split_loops import SplitLoopsPass
from moa_dialect.passes.to_dnf import ToDnfPass
from moa_dialect.passes.to_onf import ToOnfPass
from moa_dialect.passes.verify import VerifyPass
from moa_dialect.universe import register_dialects

FILECHECK = Path(__file__).resolve().parents[2] / "filecheck"
FILES = sorted(
    path
    for folder in ("passes/dnf", "examples")
    for path in (FILECHECK / folder).glob("*.mlir")
    if not re.search("invalid|limit", path.name)
)
STAGES = ("dnf", "fused", "onf")
LATER = (
    SharePass(),
    RestrictDomainsPass(),
    FuseReductionsPass(chunk=64),
    SinkPass(),
    ToOnfPass(),
    SplitLoopsPass(),
    FoldAddressesPass(),
)


def parse(text: str) -> ModuleOp:
    context = Context()
    register_dialects(context)
    module = ModuleParser(context, text).parse_module()
    module.verify()
    return module


def printed(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream).print_op(module)
    return stream.getvalue()


def verify(text: str, **options: bool) -> None:
    VerifyPass(**options).apply(Context(), parse(text))


def function(module: ModuleOp) -> FuncOp:
    (found,) = [op for op in module.ops if isinstance(op, FuncOp)]
    return found


def spec(*shape: int | None) -> moa.ArraySpec:
    return moa.ArraySpec(shape)


def matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


PROGRAMS: dict[str, moa.Compiled] = {
    "attention": moa.jit(library.attention).lower(*[spec(None, 4)] * 3),
    "causal attention": moa.jit(library.attention).lower(
        *[spec(2, None, 4)] * 3, is_causal=True
    ),
    "layernorm": moa.jit(library.layernorm).lower(*[spec(None, 8)], *[spec(8)] * 2),
    "softmax": moa.jit(library.softmax).lower(spec(None, None)),
    "logsumexp": moa.jit(library.logsumexp).lower(spec(3, None)),
    "matmul": moa.jit(matmul).lower(spec(None, 3), spec(3, None)),
    "two results": moa.jit(lambda a: (moa.reduce("add", a), moa.transpose(a))).lower(
        spec(3, None)
    ),
    "numbers": moa.jit(
        lambda a: moa.where(a > 0.1, a * (1 / 3), -np.inf) + np.array(np.nan)
    ).lower(spec(None)),
}

every_program = pytest.mark.parametrize("name", PROGRAMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_verified_after_every_pass(path: Path) -> None:
    """All operations, also such that are added: each has a file of its own."""
    module = parse(path.read_text("utf-8"))
    InferShapesPass().apply(Context(), module)
    ToDnfPass(certify=True).apply(Context(), module)
    verify(printed(module))
    for pass_ in LATER:
        pass_.apply(Context(), module)
        verify(printed(module))


@every_program
@pytest.mark.parametrize("stage", STAGES)
def test_every_program_is_verified(name: str, stage: str) -> None:
    PROGRAMS[name].verify(stage)


@every_program
def test_what_every_program_cites_is_proved(name: str) -> None:
    PROGRAMS[name].verify("dnf", prove=True)


@every_program
def test_certification_changes_nothing_else(name: str) -> None:
    compiled = PROGRAMS[name]
    for stage in STAGES:
        module = compiled.module(stage, certify=True)
        for op in module.walk():
            op.attributes.pop(DERIVATION, None)
        assert printed(module) == printed(compiled.module(stage))


@every_program
def test_later_stages_have_no_derivation(name: str) -> None:
    assert DERIVATION not in PROGRAMS[name].text("target", certify=True)


# Certificates


@every_program
def test_the_certificate_is_json(name: str) -> None:
    certificate = PROGRAMS[name].certificate
    assert json.loads(json.dumps(certificate)) == certificate


def test_the_certificate_says_what_was_applied_and_why() -> None:
    certificate = PROGRAMS["matmul"].certificate
    assert certificate["function"] == "matmul"
    assert "moa.inner add mul" in certificate["definition"]
    assert "+•×" in certificate["notation"]
    to_dnf, *others = certificate["passes"]
    assert to_dnf == {
        "pass": "moa-to-dnf",
        "steps": [
            {
                "rule": "psi-inner",
                "redex": "<i j> psi O = <i j> psi (a +.* b)",
                "result": "+ fold_{p<3} (<i p> psi a * <p j> psi b)",
            }
        ],
    }
    names = [each["pass"].partition("{")[0] for each in others]
    assert names == [
        "moa-share",
        "moa-restrict-domains",
        "moa-fuse-reductions",
        "moa-sink",
        "moa-to-onf",
        "moa-split-loops",
        "moa-fold-addresses",
    ]
    rule = certificate["rules"]["psi-inner"]
    assert rule["steps"] == 1
    assert "f•g" in rule["law"]
    assert certificate["proofs"]["psi-inner/rank2/with-rank-2-in-bounds"] == {
        "rule": "psi-inner",
        "rank": 2,
        "statement": "with rank 2: in bounds",
    }
    assert set(rule["proofs"]) == set(certificate["proofs"])
    assert certificate["unproved"] == []


def test_a_rule_without_proofs_says_why() -> None:
    rules = PROGRAMS["softmax"].certificate["rules"]
    assert rules["psi-map"]["proofs"] == []
    assert rules["psi-map"]["why"] == proofs.WITHOUT_INDEX_REWRITING["map"]


def test_the_definition_is_the_program() -> None:
    compiled = PROGRAMS["attention"]
    definition = parse(compiled.certificate["definition"])
    q, k, v = (np.random.default_rng(0).normal(size=(3, 4)) for _ in range(3))
    from moa_dialect.interpreter import interpret_module

    (result,) = interpret_module(definition, "attention", [q, k, v])
    np.testing.assert_array_equal(result, moa.interpret(library.attention, q, k, v))


def test_verify_knows_its_stages() -> None:
    with pytest.raises(MoaError, match="expected one of dnf, fused, onf, got llvm"):
        PROGRAMS["matmul"].verify("llvm")


def test_verify_says_what_is_not_proved() -> None:
    compiled = moa.jit(lambda a: moa.transpose(a)).lower(spec(1, 2, 1, 2, 1))
    compiled.verify()
    assert compiled.certificate["unproved"] == ["psi-transpose/rank5"]
    with pytest.raises(CompileError, match="psi-transpose was applied at rank 5"):
        compiled.verify(prove=True)


# Derivations on paper


@every_program
def test_the_trace_ends_with_the_normal_form(name: str) -> None:
    text = PROGRAMS[name].derivation()
    lines = [line.removeprefix("//").strip() for line in text.splitlines()]
    shown = [line.strip() for line in PROGRAMS[name].notation("dnf").splitlines()]
    assert lines[-len(shown) :] == shown


@every_program
def test_the_trace_has_the_steps_of_the_certificate(name: str) -> None:
    compiled = PROGRAMS[name]
    text = compiled.derivation(ascii=True)
    assert text.isascii()
    rules = re.findall(r"^//   \d+\. ([\w-]+): ", text, re.MULTILINE)
    steps = compiled.certificate["passes"][0]["steps"]
    assert rules == [step["rule"] for step in steps]


# What is recorded


def test_without_a_derivation_nothing_is_recorded() -> None:
    module = PROGRAMS["matmul"].module("dnf")
    derivation.record(function(module), SharePass())
    assert DERIVATION not in function(module).attributes


def test_the_normal_form_may_be_made_twice() -> None:
    module = PROGRAMS["matmul"].module("dnf", certify=True)
    ToDnfPass(certify=True).apply(Context(), module)
    verify(printed(module))
    certificate = derivation.certificate(function(module))
    assert [each["pass"] for each in certificate["passes"]] == ["moa-to-dnf"] * 2
    assert certificate["passes"][1]["steps"] == []


def test_options_are_recorded_unless_they_are_the_default() -> None:
    module = PROGRAMS["matmul"].module("dnf", certify=True)
    SplitLoopsPass(pieces=4).apply(Context(), module)
    SplitLoopsPass(pieces=8).apply(Context(), module)
    _, entries = derivation.derivation_of(function(module))
    assert [str(entry["pass"]) for entry in entries[1:]] == [
        '"moa-split-loops{pieces=4}"',
        '"moa-split-loops"',
    ]


def test_a_private_function_keeps_its_derivation() -> None:
    text = PROGRAMS["matmul"].text("moa").replace("@matmul", "private @matmul")
    module = parse(text)
    derivation.begin(function(module))
    SharePass().apply(Context(), module)
    verify(printed(module))


def test_a_pass_that_fails_to_prove_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = proofs.Answer(proofs.Outcome.COUNTEREXAMPLE, "[i = 3]")
    monkeypatch.setattr(proofs, "prove", lambda _: answer)
    text = PROGRAMS["matmul"].text("dnf", certify=True)
    expected = (
        "@matmul: the proof psi-inner/rank2/with-rank-1-in-bounds fails: "
        "expected proved, got counterexample: [i = 3]"
    )
    with pytest.raises(VerifyException, match=re.escape(expected)):
        verify(text, prove=True)


def test_a_wrong_law_is_not_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of one compiler is not accepted by another that derives otherwise."""
    text = (
        moa.jit(lambda a: moa.transpose(a)).lower(spec(2, 3)).text("dnf", certify=True)
    )
    verify(text)
    (law,) = [each for each in LAWS.values() if each.name == "psi-transpose"]

    def wrong(op: Any, index: Any, r: Any) -> Any:
        return r.element(op.array, list(index))

    monkeypatch.setattr(law, "reduce", wrong)
    with pytest.raises(VerifyException, match="expected result <i j> psi"):
        verify(text)


# The proofs that are cited


def test_every_identifier_names_one_obligation() -> None:
    identifiers = [each.identifier for each in proofs.obligations()]
    assert len(identifiers) == len(set(identifiers)) == len(proofs.by_identifier())
    for identifier in identifiers:
        assert re.fullmatch(r"[a-z-]+/rank\d/[a-z0-9]+(-[a-z0-9]+)*", identifier)


def test_identifiers_stay_what_they_are() -> None:
    """Certificates that were kept cite them."""
    assert {
        "division/rank0/quotient-in-bounds",
        "gamma/rank2/by-columns-the-address-of-reverse-i-in-the-shape-reverse-s",
        "gamma-inverse/rank3/gamma-gamma-inverse-x-s-s-is-x",
        "psi-take/rank2/1-counts-in-bounds",
        "psi-reduce/rank1/in-bounds",
        "psi-rotate/rank2/k-rotate-a-is-k-drop-a-cat-k-take-a-for-0-le-k-le-s",
    } <= set(proofs.by_identifier())


LAW_NAMES = [law.name for law in LAWS.values()]


def unjustified(law: str, rank: int) -> bool:
    """Whether nothing justifies a law at a rank: no proof, no reason to need none."""
    rule = proofs.rule_of(law)
    if rule in proofs.WITHOUT_INDEX_REWRITING:
        return False
    return rule not in proofs.rules() or not proofs.citations(law, rank)


@pytest.mark.parametrize("law", LAW_NAMES)
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_every_law_is_justified_at_every_rank(law: str, rank: int) -> None:
    """That each obligation is proved is tested with the proofs."""
    assert not unjustified(law, rank)


@pytest.mark.parametrize("law", LAW_NAMES)
def test_a_law_with_proofs_says_at_which_ranks(law: str) -> None:
    """Otherwise those for rank 0 would be cited, which are few or none."""
    ((operation, applied),) = [each for each in LAWS.items() if each[1].name == law]
    assert issubclass(operation, IRDLOperation)
    if proofs.rule_of(law) in proofs.rules():
        operands = {name for name, _ in operation.get_irdl_definition().operands}
        is_own = type(applied).proof_ranks is not PsiLaw.proof_ranks
        assert is_own or operands & {"array", "lhs", "rhs"}


def certified(text: str) -> FuncOp:
    module = parse(text)
    ToDnfPass(certify=True).apply(Context(), module)
    return function(module)


def test_proofs_are_about_the_axes_of_a_shape() -> None:
    operands = "%i: tensor<3xindex>, %s: tensor<3xindex>"
    types = "tensor<3xindex>, tensor<3xindex> -> tensor<index>"
    gamma = certified(
        f"""func.func @f({operands}) -> tensor<index> {{
          %k = moa.gamma row %i, %s : {types}
          func.return %k : tensor<index>
        }}"""
    )
    cited = {each.partition("/in")[0] for each in derivation.proofs_of(gamma)}
    assert "gamma/rank3" in cited
    assert not any("rank4" in each for each in cited)


def test_proofs_are_about_both_operands() -> None:
    types = "tensor<2x3xf64>, tensor<3x1x2x1x2xf64> -> tensor<2x1x2x1x2xf64>"
    inner = certified(
        f"""func.func @f(%a: tensor<2x3xf64>, %b: tensor<3x1x2x1x2xf64>)
            -> tensor<2x1x2x1x2xf64> {{
          %c = moa.inner add mul %a, %b : {types}
          func.return %c : tensor<2x1x2x1x2xf64>
        }}"""
    )
    assert derivation.unproved_of(inner) == ["psi-inner/rank5"]


def test_an_unproved_law_is_recorded_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    rules: dict[str, Callable[..., Any]] = dict(proofs._RULES)
    del rules["transpose"]
    monkeypatch.setattr(proofs, "_RULES", rules)
    text = (
        moa.jit(lambda a: moa.transpose(a)).lower(spec(2, 3)).text("dnf", certify=True)
    )
    verify(text)
    expected = "psi-transpose was applied: expected a law with proofs, got none"
    with pytest.raises(VerifyException, match=expected):
        verify(text, prove=True)


def test_what_a_rule_assumes_is_cited_too() -> None:
    cited = proofs.citations("psi-reshape", 2)
    rules = {proofs.by_identifier()[each].rule for each in cited}
    assert rules == {"reshape", "gamma", "gamma-inverse", "division"}
    assert all(proofs.by_identifier()[each].rank <= 2 for each in cited)


def test_a_law_without_obligations_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rules: dict[str, Callable[..., Any]] = dict(proofs._RULES)
    del rules["take"]
    monkeypatch.setattr(proofs, "_RULES", rules)
    assert [law for law in LAW_NAMES if unjustified(law, 2)] == ["psi-take"]
