"""Certificates of cascades: what is right is proved, what is wrong is refuted."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sympy as sp
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.ops.normal_form import CascadeOp
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes import identities
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.identities import BY_SYMPY, BY_Z3, NotProved
from moa_dialect.passes.verify import VerifyPass
from moa_dialect.passes.verify_cascades import CERTIFICATE, Finding, examine
from moa_dialect.universe import register_dialects

FILE = (
    Path(__file__).resolve().parents[2] / "filecheck/passes/verify_cascades.mlir"
).read_text("utf-8")


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


def verify(text: str) -> None:
    VerifyPass().apply(Context(), parse(text))


def certified(text: str) -> str:
    module = parse(text)
    FuseReductionsPass(certify=True).apply(Context(), module)
    return printed(module)


def found(text: str) -> Finding:
    module = parse(text)
    op = next(op for op in module.walk() if isinstance(op, CascadeOp))
    function = op.parent_op()
    while function is not None and function.name != "func.func":
        function = function.parent_op()
    return examine(op, function, 0)  # pyright: ignore[reportArgumentType]


# What is wrong is refuted by numbers


def altered(text: str, old: str, new: str) -> str:
    changed = text.replace(old, new)
    assert changed != text
    return changed


C1 = r"C1 of accumulator {0} does not hold: at .*: expected .* = .*, got .* = .*"
C2 = r"C2 of accumulator {0} does not hold: at .*: expected .* = .*, got .* = .*"
AIM = r"the aim of pivot r0 does not hold: at .*: expected .* = .*, got .* = .*"

TAMPERED = {
    "sign of the exponent": ("subf %old, %new", "subf %new, %old", C1, "a1"),
    "factor dropped": ("yield %moved : f64\n", "yield %sum : f64\n", C1, "a1"),
    "factor twice": ("mulf %factor, %sum", "mulf %factor, %factor", C1, "a1"),
    "factor inverted": ("mulf %factor, %sum", "divf %sum, %factor", C1, "a1"),
    "another function": ("%factor = math.exp", "%factor = math.exp2", C1, "a1"),
    "added instead": ("mulf %factor, %sum", "addf %factor, %sum", C1, "a1"),
    "another part": ("subf %x, %r0", "addf %x, %r0", C1, "a1"),
    "another part's function": ("weight = math.exp", "weight = math.sin", C1, "a1"),
    "a sum to a product": ("group add pivot", "group mul pivot", C2, "a1"),
    "a coefficient": ("constant 2.0", "constant 3.0", C1, "a0"),
    "the count": ("mulf %shifts, %number", "mulf %shifts, %two", C1, "a0"),
    "a sum to a maximum": ("group add, add", "group max, add", C2, "a0"),
    "a sum to a minimum": ("group add, add", "group add, min", C2, "a1"),
    "the other accumulator": ("%twice, %distances", "%twice, %squares", C1, "a0"),
    "a step of the pivot": ("addf %r0, %step", "subf %r0, %step", AIM, ""),
    "a pivot without its count": ("%distances, %number", "%distances, %two", AIM, ""),
    "a sum that does not move": ("%second, %moved", "%second, %distances", AIM, ""),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_tampered_with_is_refuted_by_numbers(name: str) -> None:
    old, new, message, accumulator = TAMPERED[name]
    with pytest.raises(VerifyException, match=message.format(accumulator)) as error:
        verify(altered(FILE, old, new))
    sides = re.search(r"expected .* = (\S+), got .* = (\S+)$", str(error.value))
    assert sides is not None
    assert abs(float(sides[1]) - float(sides[2])) > 1e-9


def test_the_numbers_of_a_refutation_are_right() -> None:
    with pytest.raises(VerifyException) as error:
        verify(altered(FILE, "subf %old, %new", "subf %new, %old"))
    point = dict(re.findall(r"(\w+'?) = (-?[\d/]+)[,:]", str(error.value)))
    r, moved, x = (float(sp.Rational(point[name])) for name in ("r0", "r0'", "x0"))
    sides = re.search(r"expected .* = (\S+), got .* = (\S+)$", str(error.value))
    assert sides is not None
    expected, got = sp.exp(x - moved), sp.exp(moved - r) * sp.exp(x - r)
    assert float(sides[1]) == pytest.approx(float(expected), rel=1e-4)
    assert float(sides[2]) == pytest.approx(float(got), rel=1e-4)


def test_what_is_not_tampered_with_is_proved() -> None:
    verify(FILE)
    verify(certified(FILE))
    assert printed(parse(certified(certified(FILE)))) == certified(FILE)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "group max part",
            "group min part",
            'function of entry 0 of edges of the certificate: expected "min", got "max"',
        ),
        (
            'C2 = "proved by sympy", ',
            "",
            'C2 of entry 1 of edges of the certificate: expected "proved by sympy", '
            "got nothing",
        ),
        (
            'rule = "none"',
            'rule = "none", note = "fine"',
            'note of entry 0 of edges of the certificate: expected nothing, got "fine"',
        ),
        (
            'aim = "nothing to prove"',
            'aim = "proved by sympy"',
            'aim of entry 0 of pivots of the certificate: expected "nothing to prove"',
        ),
        (
            '["exp(-r0 + x0)*exp',
            '["1 = 1", "exp(-r0 + x0)*exp',
            "identities of entry 1 of edges of the certificate: expected [",
        ),
    ],
)
def test_a_certificate_says_what_is_found(old: str, new: str, message: str) -> None:
    with pytest.raises(VerifyException, match=re.escape(message)):
        verify(altered(certified(FILE), old, new))


def test_a_certificate_is_a_dictionary() -> None:
    text = re.sub(f"{CERTIFICATE} = .*", f"{CERTIFICATE} = 1 : i64}}", certified(FILE))
    with pytest.raises(VerifyException, match=r"expected \{pivots = .*, got 1 : i64"):
        verify(text)


# What is not understood is unproved

CASCADE = """
func.func private @larger(%a: f64, %b: f64) -> f64 {{
  %c = arith.maximumf %a, %b : f64
  func.return %c : f64
}}
func.func @f(%a: tensor<?xf64>, %c: f64) -> f64 {{
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %zero = arith.constant 0.0 : f64
  %one = arith.constant 1.0 : f64
  %m, %s, %r = moa.cascade [%0 to %n] -> f64, f64, f64 data {{
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    %y = arith.mulf %x, %x : f64
    %b = arith.cmpf olt, %x, %c : f64
    moa.yield %x, %y, %b : f64, f64, i1
  }} group max part {{
  ^bb0(%p: index, %x: f64, %y: f64, %b: i1):
    moa.yield %x : f64
  }} group {function} pivot {start} {{
  ^bb0(%count: index, %top: f64, %r: f64, %s: f64):
    {pivot}
  }} part {{
  ^bb0(%p: index, %x: f64, %y: f64, %b: i1, %r: f64):
    {part}
  }} move {{
  ^bb0(%count: index, %old: f64, %new: f64, %s: f64):
    {move}
  }}
  func.return %s : f64
}}
"""


def cascade(
    part: str,
    move: str,
    function: str = "add",
    start: str = "%zero",
    pivot: str = "moa.yield %top : f64",
) -> str:
    return CASCADE.format(**locals())


SHIFT = "%d = arith.subf %old, %new : f64\n"
RATIO = "%q = arith.divf %old, %new : f64\n"
YIELD = "moa.yield %z : f64"
BY_SHIFT = f"{SHIFT} %e = math.exp %d : f64\n %z = arith.mulf %e, %s : f64\n {YIELD}"
BY_RATIO = f"{RATIO} %z = arith.mulf %q, %s : f64\n {YIELD}"
ADDED = f"{SHIFT} %z = arith.addf %s, %d : f64\n {YIELD}"
EXPONENTIAL = "%u = arith.subf %x, %r : f64\n %v = math.exp %u : f64\n"

ROUND = "%w = arith.truncf %v : f64 to bf16\n %z = arith.extf %w : bf16 to f64\n"


HALF = ROUND.replace("bf16", "f16")


def in_f32(text: str) -> str:
    return text.replace("f64", "f32")


UNPROVED: dict[str, tuple[str, str]] = {
    "rounding that keeps the range, of a sum": (
        in_f32(
            cascade(f"%v = arith.subf %x, %r : f64\n {ROUND} {YIELD}", ADDED, "max")
        ),
        "C1 of a1: rounding to bf16 commutes with factors only",
    ),
    "rounding in a move": (
        in_f32(
            cascade(
                f"{EXPONENTIAL} moa.yield %v : f64",
                f"{SHIFT} %e = math.exp %d : f64\n %v = arith.mulf %e, %s : f64\n"
                f"{ROUND} {YIELD}",
            )
        ),
        "C1 of a1: rounding to bf16 commutes with factors only",
    ),
    "rounding from a wider range": (
        cascade(f"{EXPONENTIAL} {ROUND} {YIELD}", BY_SHIFT),
        "C1 of a1: rounding to bf16 is no function of real numbers",
    ),
    "rounding": (
        cascade(
            f"{EXPONENTIAL} %w = arith.truncf %v : f64 to f16\n"
            f"%z = arith.extf %w : f16 to f64\n {YIELD}",
            BY_SHIFT,
        ),
        "C1 of a1: rounding to f16 is no function of real numbers",
    ),
    "rounding to f16 of what may be large": (
        in_f32(
            cascade(
                EXPONENTIAL.replace("%x, %r", "%r, %x") + HALF + YIELD,
                BY_SHIFT.replace("%old, %new", "%new, %old"),
            )
        ),
        "C1 of a1: rounding to f16 is no function of real numbers",
    ),
    "rounding to f16 under another maximum": (
        in_f32(cascade(EXPONENTIAL.replace("%x", "%y") + HALF + YIELD, BY_SHIFT)),
        "C1 of a1: rounding to f16 is no function of real numbers",
    ),
    "rounding to f16 under a minimum": (
        in_f32(
            cascade(
                f"{EXPONENTIAL} {HALF} {YIELD}",
                BY_SHIFT,
                pivot="%z = arith.minimumf %top, %c : f64\n moa.yield %z : f64",
            )
        ),
        "C1 of a1: rounding to f16 is no function of real numbers",
    ),
    "a fold of the pivot": (
        cascade(
            f"""{EXPONENTIAL} %k = moa.extent %a, 0 : tensor<?xf64>
            %z = moa.fold add [%i = %0 to %k] -> f64 {{
              moa.yield %v : f64
            }}
            {YIELD}""",
            BY_SHIFT,
        ),
        "C1 of a1: it folds values that depend on the pivot",
    ),
    "a choice by the pivot": (
        cascade(
            f"{EXPONENTIAL} %w = arith.cmpf olt, %x, %r : f64\n"
            f"%z = arith.select %w, %v, %x : f64\n {YIELD}",
            BY_SHIFT,
        ),
        "C1 of a1: a choice depends on what moves",
    ),
    "many conditions": (
        cascade(
            EXPONENTIAL
            + "%z0 = arith.select %b, %v, %x : f64\n"
            + "".join(
                f"%k{i} = arith.constant {i}.5 : f64\n"
                f"%b{i} = arith.cmpf olt, %x, %k{i} : f64\n"
                f"%z{i} = arith.select %b{i}, %v, %z{i - 1} : f64\n"
                for i in range(1, 8)
            )
            + "moa.yield %z7 : f64",
            BY_SHIFT,
        ),
        "C1 of a1: it has more than 6 conditions",
    ),
    "a cascade of the pivot": (
        cascade(
            f"""{EXPONENTIAL} %k = moa.extent %a, 0 : tensor<?xf64>
            %z, %y0 = moa.cascade [%0 to %k] -> f64, f64 data {{
            ^bb0(%i: index):
              moa.yield %v : f64
            }} group add, max part {{
            ^bb0(%i: index, %v0: f64):
              moa.yield %v0, %v0 : f64, f64
            }}
            {YIELD}""",
            BY_SHIFT,
        ),
        "C1 of a1: moa.cascade is not looked into",
    ),
    "the identity of max": (
        cascade(
            f"%z = arith.maximumf %x, %zero : f64\n {YIELD}",
            f"%z = arith.maximumf %s, %zero : f64\n {YIELD}",
            "max",
        ),
        "C2 of a1: T is not q a1 + c with q > 0, so it need not keep the identity of "
        "max",
    ),
    "what no solver decides": (
        cascade(
            "%i = math.sin %r : f64\n %j = arith.addf %i, %one : f64\n"
            "%k = arith.addf %j, %one : f64\n"
            f"%z = arith.divf %x, %k : f64\n {YIELD}",
            "moa.yield %s : f64",
        ),
        "C1 of a1: not decided: sin(r0) + 2 != 0",
    ),
    "data that depend on each other": (
        cascade(
            # |x| r - (x if x > 0 else -x) r is 0, but the condition is not looked into.
            "%o = arith.cmpf ogt, %x, %zero : f64\n %l = arith.negf %x : f64\n"
            "%i = arith.select %o, %x, %l : f64\n %j = math.absf %x : f64\n"
            "%k = arith.subf %i, %j : f64\n"
            f"%z = arith.mulf %k, %r : f64\n {YIELD}",
            "moa.yield %s : f64",
        ),
        "C1 of a1: not decided: ",
    ),
    "rounded data": (
        cascade(
            "%o = arith.truncf %x : f64 to f16\n %l = arith.negf %x : f64\n"
            "%i = arith.truncf %l : f64 to f16\n %e = arith.extf %o : f16 to f64\n"
            "%g = arith.extf %i : f16 to f64\n %k = arith.addf %e, %g : f64\n"
            f"%z = arith.mulf %k, %r : f64\n {YIELD}",
            "moa.yield %s : f64",
        ),
        "C1 of a1: not decided: ",
    ),
    "integers": (
        cascade(
            f"{EXPONENTIAL} %i = arith.fptosi %v : f64 to i64\n"
            f"%z = arith.sitofp %i : i64 to f64\n {YIELD}",
            BY_SHIFT,
        ),
        "C1 of a1: arith.sitofp is not an operation of real numbers",
    ),
    "a move by a choice": (
        cascade(
            f"{EXPONENTIAL} moa.yield %v : f64",
            f"{SHIFT} %e = math.exp %d : f64\n %q = arith.mulf %e, %s : f64\n"
            "%b = arith.cmpf oeq, %s, %one : f64\n"
            f"%z = arith.select %b, %s, %q : f64\n {YIELD}",
        ),
        "C1 of a1: a choice depends on what moves",
    ),
    "a move where the sum is 0": (
        cascade(
            f"{EXPONENTIAL} moa.yield %v : f64",
            f"{SHIFT} %e = math.exp %d : f64\n %q = arith.addf %e, %s : f64\n"
            "%b = arith.cmpf oeq, %s, %zero : f64\n"
            f"%z = arith.select %b, %s, %q : f64\n {YIELD}",
        ),
        "C1 of a1: a choice depends on what moves",
    ),
    "a pivot by a choice": (
        cascade(
            f"{EXPONENTIAL} moa.yield %v : f64",
            BY_SHIFT,
            pivot="%b = arith.cmpf oeq, %s, %zero : f64\n"
            f"%z = arith.select %b, %s, %top : f64\n {YIELD}",
        ),
        "aim of r0: a choice depends on what moves",
    ),
}


@pytest.mark.parametrize("name", UNPROVED)
def test_what_is_not_understood_is_unproved(name: str) -> None:
    """The certificate says so and why, and is no proof."""
    text, why = UNPROVED[name]
    with_certificate = certified(text)
    _, _, reason = why.partition(": ")
    assert f'"unproved: {reason}' in with_certificate
    for each in (text, with_certificate):
        message = re.escape(f"@f: not proved: cascade 0: {why}")
        with pytest.raises(VerifyException, match=message):
            verify(each)


# Kinds of proofs

PROVED: dict[str, tuple[str, str, str, str]] = {
    "rounding to f16 of what is from 0 to 1": (
        in_f32(cascade(f"{EXPONENTIAL} {HALF} {YIELD}", BY_SHIFT)),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "the same under a larger maximum": (
        in_f32(
            cascade(
                f"{EXPONENTIAL} {HALF} {YIELD}",
                BY_SHIFT,
                pivot="%z = arith.maximumf %top, %c : f64\n moa.yield %z : f64",
            )
        ),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "by sympy": (
        cascade(f"{EXPONENTIAL} moa.yield %v : f64", BY_SHIFT),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "by z3": (
        cascade(
            "%u = arith.subf %x, %r : f64\n %v = arith.subf %y, %r : f64\n"
            f"%z = arith.maximumf %u, %v : f64\n {YIELD}",
            ADDED,
            "max",
        ),
        "added",
        BY_Z3,
        BY_SYMPY,
    ),
    "what is 0 is not multiplied": (
        cascade(
            f"{EXPONENTIAL} moa.yield %v : f64",
            f"{SHIFT} %e = math.exp %d : f64\n %q = arith.mulf %e, %s : f64\n"
            "%b = arith.cmpf oeq, %s, %zero : f64\n"
            "%o = arith.cmpf ord, %new, %new : f64\n %k = arith.andi %b, %o : i1\n"
            f"%z = arith.select %k, %s, %q : f64\n {YIELD}",
        ),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "case by case": (
        cascade(
            f"{EXPONENTIAL} %z = arith.select %b, %v, %zero : f64\n {YIELD}", BY_SHIFT
        ),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "a case of a maximum": (
        cascade(
            f"%z = scf.if %b -> (f64) {{\n %u = arith.subf %x, %r : f64\n"
            "scf.yield %u : f64\n } else {\n %u = arith.subf %y, %r : f64\n"
            f"scf.yield %u : f64\n }}\n {YIELD}",
            ADDED,
            "max",
        ),
        "added",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "with a factor and a summand": (
        cascade(
            # (x + 1) e^r - 1 under a minimum
            "%e = math.exp %r : f64\n %u = arith.addf %x, %one : f64\n"
            f"%v = arith.mulf %e, %u : f64\n %z = arith.subf %v, %one : f64\n {YIELD}",
            "%d = arith.subf %new, %old : f64\n %e = math.exp %d : f64\n"
            "%u = arith.addf %s, %one : f64\n %v = arith.mulf %e, %u : f64\n"
            f"%z = arith.subf %v, %one : f64\n {YIELD}",
            "min",
        ),
        "affine",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "for positive pivots": (
        cascade(
            f"%z = arith.divf %x, %r : f64\n {YIELD}",
            BY_RATIO,
            start="%one",
            pivot=f"%z = arith.maximumf %top, %one : f64\n {YIELD}",
        ),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "of a product": (
        cascade("moa.yield %x : f64", "moa.yield %s : f64", "mul"),
        "none",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "of what is rounded and keeps its range": (
        in_f32(cascade(f"{EXPONENTIAL} {ROUND} {YIELD}", BY_SHIFT)),
        "rank one",
        BY_SYMPY,
        BY_SYMPY,
    ),
    "with data that depend on each other": (
        cascade(
            # (|x| - max(x, -x)) r
            "%l = arith.negf %x : f64\n %i = arith.maximumf %x, %l : f64\n"
            "%j = math.absf %x : f64\n %k = arith.subf %i, %j : f64\n"
            f"%z = arith.mulf %k, %r : f64\n {YIELD}",
            "moa.yield %s : f64",
        ),
        "none",
        BY_Z3,
        BY_SYMPY,
    ),
}


@pytest.mark.parametrize("name", PROVED)
def test_what_is_right_is_proved(name: str) -> None:
    text, *expected = PROVED[name]
    edge = found(text).edges[1]
    assert [edge.rule, edge.C1, edge.C2] == expected
    verify(text)
    verify(certified(text))


REFUTED: dict[str, tuple[str, str]] = {
    "a pivot that may be 0": (
        cascade(f"%z = arith.divf %x, %r : f64\n {YIELD}", BY_RATIO),
        r"C1 of accumulator a1 does not hold: at r0 = 0: expected r0 != 0, got 0",
    ),
    "a pivot that is not kept positive": (
        cascade(f"%z = arith.divf %x, %r : f64\n {YIELD}", BY_RATIO, start="%one"),
        r"C1 of accumulator a1 does not hold: at r0 = 0: expected r0 != 0, got 0",
    ),
    "the logarithm of a pivot": (
        cascade(
            f"%l = math.log %r : f64\n %z = arith.addf %x, %l : f64\n {YIELD}", ADDED
        ),
        r"C1 of accumulator a1 does not hold: at r0 = 0: expected r0 > 0, got 0",
    ),
    "the root of a pivot": (
        cascade(
            f"%l = math.sqrt %r : f64\n %z = arith.addf %x, %l : f64\n {YIELD}", ADDED
        ),
        r"C1 of accumulator a1 does not hold: at r0 = -1: expected r0 >= 0, got -1",
    ),
    "a power of a pivot": (
        cascade(
            f"%l = math.powf %r, %c : f64\n %z = arith.mulf %x, %l : f64\n {YIELD}",
            BY_RATIO,
        ),
        r"C1 of accumulator a1 does not hold: at r0 = 0: expected r0 > 0, got 0",
    ),
    "a sum that is added to": (
        cascade(f"%z = arith.subf %x, %r : f64\n {YIELD}", ADDED),
        C2.format("a1"),
    ),
    "a maximum that is turned over": (
        cascade(
            f"%z = arith.mulf %r, %zero : f64\n {YIELD}",
            f"%z = arith.negf %s : f64\n {YIELD}",
            "max",
        ),
        r"C2 of accumulator a1 does not hold: at a1 = .*, b1 = .*: expected Max\(-a1, "
        r"-b1\) = .*, got -Max\(a1, b1\) = .*",
    ),
    "a case": (
        cascade(
            f"{EXPONENTIAL} %z = arith.select %b, %v, %one : f64\n {YIELD}", BY_SHIFT
        ),
        r"C1 of accumulator a1 does not hold: at .*: expected 1 = 1.0, got exp",
    ),
}


@pytest.mark.parametrize("name", REFUTED)
def test_what_is_wrong_is_refuted(name: str) -> None:
    text, message = REFUTED[name]
    with pytest.raises(VerifyException, match=f"@f: cascade 0: {message}"):
        verify(text)
    with pytest.raises(VerifyException, match=message):
        certified(text)


# Statements

X, Y = (sp.Symbol(name, real=True) for name in "xy")
POSITIVE = sp.Symbol("p", positive=True)


@pytest.mark.parametrize(
    ("left", "right", "by"),
    [
        (sp.exp(X) * sp.exp(Y), sp.exp(X + Y), BY_SYMPY),
        ((X + Y) ** 2, X**2 + 2 * X * Y + Y**2, BY_SYMPY),
        (sp.sin(X + Y), sp.sin(X) * sp.cos(Y) + sp.cos(X) * sp.sin(Y), BY_SYMPY),
        (sp.Max(X + Y, Y), sp.Max(X, 0) + Y, BY_Z3),
        (sp.Min(X, Y), X + Y - sp.Max(X, Y), BY_Z3),
    ],
)
def test_equal_expressions(left: Any, right: Any, by: str) -> None:
    assert identities.prove_equal(left, right) == by


def test_expressions_that_are_not_equal() -> None:
    with pytest.raises(NotProved) as error:
        identities.prove_equal(X + Y, X - Y)
    point = error.value.point
    assert point is not None
    values = {name: sp.Rational(value) for name, value in point.values}
    assert [float(r) for r in point.results] == [
        float(values["x"] + values["y"]),
        float(values["x"] - values["y"]),
    ]


@pytest.mark.parametrize(
    ("prove", "right", "wrong", "undecided"),
    [
        (identities.prove_positive, X**2 + X + 1, X**2, sp.sin(X) + 2),
        (identities.prove_nonzero, X**2 + X + 1, X + Y, sp.sin(X) + 2),
        (identities.prove_nonnegative, X**2 + 2 * X + 1, X, sp.sin(X) + 2),
        (identities.prove_positive, POSITIVE, POSITIVE - 1, sp.sin(POSITIVE) + 2),
    ],
)
def test_signs(prove: Any, right: Any, wrong: Any, undecided: Any) -> None:
    assert prove(right) in (BY_SYMPY, BY_Z3)
    with pytest.raises(NotProved) as error:
        prove(wrong)
    assert error.value.point is not None
    with pytest.raises(NotProved) as error:
        prove(undecided)
    assert error.value.point is None


# Programs

matrix = moa.ArraySpec((None, 4))
PROGRAMS = {
    "attention": moa.jit(library.attention).lower(matrix, matrix, matrix),
    "causal attention": moa.jit(library.attention).lower(
        *[moa.ArraySpec((2, None, 4))] * 3, is_causal=True
    ),
    "covariance matrix": moa.jit(library.covariance_matrix).lower(matrix),
    "divergence": moa.jit(library.kl_divergence).lower(
        *[moa.ArraySpec(("n", "m"))] * 2
    ),
    "layernorm": moa.jit(library.layernorm).lower(matrix, *[moa.ArraySpec((4,))] * 2),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("stage", ["fused", "onf"])
def test_the_cascades_of_a_program_are_verified(name: str, stage: str) -> None:
    PROGRAMS[name].verify(stage)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_certificate_of_a_program_has_its_cascades(name: str) -> None:
    certificate = PROGRAMS[name].certificate
    assert json.loads(json.dumps(certificate)) == certificate
    assert certificate["unproved"] == []
    (one,) = certificate["cascades"]
    assert all(pivot["aim"] for pivot in one["pivots"])
    moved = [edge for edge in one["edges"] if edge["rule"] != "none"]
    assert moved
    for edge in moved:
        assert edge["C1"] == edge["C2"] == BY_SYMPY
        assert len(edge["identities"]) >= 2


def test_accumulators_that_are_arrays_are_refuted_too() -> None:
    text = PROGRAMS["attention"].text("fused")
    verify(text)
    move = re.search(r"move \{(.*?)\n( *)\}", text, re.DOTALL)
    assert move is not None
    wrong = re.sub(r"arith.subf (%\S+), (%\S+)", r"arith.subf \2, \1", move[0])
    with pytest.raises(VerifyException, match=C1.format("a1")):
        verify(altered(text, move[0], wrong))


def test_a_derivation_has_the_certificates() -> None:
    """Loops have no cascades; their certificates are replayed from the definition."""
    text = PROGRAMS["attention"].text("onf", certify=True)
    verify(text)
    message = "cascades of moa-fuse-reductions{.*}: expected .*, got"
    with pytest.raises(VerifyException, match=message):
        verify(altered(text, 'rule = "rank one"', 'rule = "added"'))


def test_a_module_without_cascades_has_derivations() -> None:
    with pytest.raises(VerifyException, match="expected a derivation"):
        verify("func.func @f(%a: f64) -> f64 {\n func.return %a : f64\n }")
