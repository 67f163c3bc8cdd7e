"""Every index rule is proved, and so is the code that the laws emit with it.

The second half runs the normal form of small programs on symbols: every access is in
bounds and reads the element that the definition says, for all extents and all data.
"""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any, cast

import pytest
import z3
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr, i1
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from z3 import z3util

import moa_dialect as moa
from moa_dialect import proofs
from moa_dialect.algebra import index
from moa_dialect.ops.normal_form import (
    AtOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
)
from moa_dialect.passes.laws import LAWS
from moa_dialect.proofs import IndexFunctions, Obligation, Outcome, Z3Arithmetic
from moa_dialect.types import shape_of

every_rule = pytest.mark.parametrize("rule", proofs.rules())


# The index functions


@every_rule
def test_every_obligation_is_proved(rule: str) -> None:
    for obligation in proofs.obligations(rule):
        answer = proofs.prove(obligation)
        assert answer.outcome is Outcome.PROVED, f"{obligation}: {answer}"


@every_rule
def test_what_is_given_is_possible(rule: str) -> None:
    """An obligation whose assumptions contradict each other would prove anything."""
    for obligation in proofs.obligations(rule):
        assert is_possible(obligation.given), str(obligation)


def is_possible(given: Sequence[Any]) -> bool:
    """Whether something satisfies a condition, numbers from -3 to 3 if need be."""
    solver = z3.Solver()
    solver.set("timeout", 200)
    solver.add(*given)
    if (answer := solver.check()) == z3.unknown:
        solver.set("timeout", 20_000)
        for symbol in z3util.get_vars(z3.And(*given)):
            if symbol.sort() == z3.IntSort():
                solver.add(symbol >= -3, symbol <= 3)
        answer = solver.check()
    return answer == z3.sat


def test_every_obligation_has_a_name_of_its_own() -> None:
    names = [str(obligation) for obligation in proofs.obligations()]
    assert len(names) == len(set(names))


def test_every_law_is_proved_or_says_why_not() -> None:
    laws = {law.name.removeprefix("psi-") for law in LAWS.values()}
    proved = set(proofs.rules()) - {"division"}
    excepted = set(proofs.WITHOUT_INDEX_REWRITING)
    assert proved | excepted == laws
    assert proved & excepted == set()
    assert all(proofs.WITHOUT_INDEX_REWRITING.values())


@every_rule
def test_every_rank_up_to_four_is_proved(rule: str) -> None:
    ranks = {obligation.rank for obligation in proofs.obligations(rule)}
    if rule in ("division", "comprehension"):
        assert ranks == {0}
    elif rule in ("compress", "expand", "grade-up", "grade-down", "product"):
        assert ranks == {1}  # They concern axis 0 alone, or a vector.
    else:
        assert ranks - {0} == {1, 2, 3, 4}


def test_every_index_function_is_proved() -> None:
    functions = {
        name
        for name, value in vars(index).items()
        if inspect.isfunction(value) and value.__module__ == index.__name__
    }
    assert {field.name for field in fields(IndexFunctions)} == functions


choose: Callable[[Any, Any, Any], Any] = z3.If

WRONG_TAKE: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "one off at the end": lambda m, i, v, s: i + choose(v < 0, s + v - 1, 0),
    "the end always": lambda m, i, v, s: i + s - v,
    "the front always": lambda m, i, v, s: i,
}
WRONG_DROP: dict[str, Callable[[Any, Any, Any], Any]] = {
    "one too few": lambda m, i, v: i + choose(v > 0, v - 1, 0),
    "negative counts, too": lambda m, i, v: i + v,
}
WRONG_REVERSE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "one off": lambda m, i, s: s - i,
    "not at all": lambda m, i, s: i,
}
WRONG_ROTATION: dict[str, Callable[[Any, Any, Any], Any]] = {
    "no remainder": lambda m, k, s: k,
    "a whole turn": lambda m, k, s: choose(k < 0, s - (-k) % s, k % s),
    "backwards is forwards": lambda m, k, s: choose(k < 0, (-k) % s, k % s),
}
WRONG_ROTATE: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "no end": lambda m, i, k, s: i + k,
    "wraps one too late": lambda m, i, k, s: choose(i <= s - k, i + k, i + k - s),
    "to the other side": lambda m, i, k, s: choose(i < k, i + s - k, i - k),
}
WRONG_GAMMA: dict[str, Callable[[Any, Any, Any], Any]] = {
    "by columns": lambda m, i, s: index.gamma(m, i[::-1], s[::-1]),
    "one off": lambda m, i, s: index.gamma(m, i, s) + 1,
}
WRONG_GAMMA_INVERSE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "backwards": lambda m, x, s: index.gamma_inverse(m, x, s)[::-1],
    "by other extents": lambda m, x, s: index.gamma_inverse(m, x, [*s[1:], *s[:1]]),
}
WRONG_GAMMA_COLUMN: dict[str, Callable[[Any, Any, Any], Any]] = {
    "by rows": lambda m, i, s: index.gamma(m, i, s),
    "by the extents of rows": lambda m, i, s: index.gamma(m, i[::-1], s),
}
WRONG_GAMMA_INVERSE_COLUMN: dict[str, Callable[[Any, Any, Any], Any]] = {
    "by rows": lambda m, x, s: index.gamma_inverse(m, x, s),
    "backwards": lambda m, x, s: index.gamma_inverse(m, x, s[::-1]),
}
WRONG_RECYCLE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "no remainder": lambda m, x, n: x,
    "the last one again": lambda m, x, n: choose(x < n, x, n - 1),
}
WRONG_PAD: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "the near edge": lambda m, i, a, s: choose(i < a, i, choose(i < a + s, i - a, 0)),
    "no end": lambda m, i, a, s: choose(i < a, i - a + s, i - a),
    "mirrored": lambda m, i, a, s: choose(i < a, a - 1 - i, i - a),
}
WRONG_WITHIN: dict[str, Callable[[Any, Any, Any, Any, Any, Any], Any]] = {
    "one too many": lambda m, i, o, b, then, otherwise: choose(
        z3.And(o <= i, i <= o + b), then(), otherwise()
    ),
    "no start": lambda m, i, o, b, then, otherwise: choose(
        i < o + b, then(), otherwise()
    ),
}
WRONG: dict[str, tuple[str, Callable[..., Any]]] = {
    f"{name}: {how}": (name, function)
    for name, functions in (
        ("take", WRONG_TAKE),
        ("drop", WRONG_DROP),
        ("reverse", WRONG_REVERSE),
        ("rotation", WRONG_ROTATION),
        ("rotate", WRONG_ROTATE),
        ("gamma", WRONG_GAMMA),
        ("gamma_inverse", WRONG_GAMMA_INVERSE),
        ("gamma_column", WRONG_GAMMA_COLUMN),
        ("gamma_inverse_column", WRONG_GAMMA_INVERSE_COLUMN),
        ("recycle", WRONG_RECYCLE),
        ("pad", WRONG_PAD),
        ("within", WRONG_WITHIN),
    )
    for how, function in functions.items()
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_function_is_refuted(wrong: str) -> None:
    name, function = WRONG[wrong]
    functions = replace(IndexFunctions(), **{name: function})
    rules = {
        "rotation": "rotate",
        "gamma_inverse": "gamma-inverse",
        "gamma_column": "gamma",
        "gamma_inverse_column": "gamma-inverse",
        "within": "insert",
    }
    rule = rules.get(name, name)
    answers = (
        proofs.prove(obligation) for obligation in proofs.obligations(rule, functions)
    )
    found = next((a for a in answers if a.outcome is not Outcome.PROVED), None)
    assert found is not None
    assert found.outcome is Outcome.COUNTEREXAMPLE
    assert found.counterexample


def test_a_counterexample_gives_the_values() -> None:
    x = z3.Int("x")
    answer = proofs.prove(Obligation("none", 1, "x < 3", (x < 4, x > 2), x < 3))
    assert answer == proofs.Answer(Outcome.COUNTEREXAMPLE, "[x = 3]")


def test_what_the_solver_cannot_tell_is_unknown() -> None:
    a, b, c = cast(list[Any], z3.Ints("a b c"))
    cubes = (a > 0, b > 0, c > 0, a * a * a + b * b * b == c * c * c)
    fermat = Obligation("none", 1, "Fermat", cubes, z3.BoolVal(False))
    assert proofs.prove(fermat, timeout_ms=50) == proofs.Answer(Outcome.UNKNOWN)


@given(a=st.integers(-9, 9), b=st.integers(-9, 9))
def test_the_arithmetic_is_that_of_integers(a: int, b: int) -> None:
    terms, integers = Z3Arithmetic(), index.Integers()

    def number(term: Any) -> int:
        return cast(Any, z3.simplify(term)).as_long()

    for name in ("add", "sub", "mul", "div", "mod"):
        if name in ("div", "mod") and not (a >= 0 and b > 0):
            continue  # Not asked for.
        term = getattr(terms, name)(terms.number(a), terms.number(b))
        assert number(term) == getattr(integers, name)(a, b)
    term = terms.if_less(*map(terms.number, (a, b, 1, 2)))
    assert number(term) == integers.if_less(a, b, 1, 2)
    term = terms.choose_less(
        terms.number(a),
        terms.number(b),
        lambda: terms.number(1),
        lambda: terms.number(2),
    )
    assert number(term) == integers.choose_less(a, b, lambda: 1, lambda: 2)


# The code of the laws


LARGEST = 2**63 - 1
"""No extent is as large: there is no memory for it."""


@dataclass
class Access:
    """An access to an argument: where, in which extents, under which conditions."""

    array: str
    entries: list[Any]
    shape: list[Any]
    conditions: list[Any]


def element(array: str, *entries: Any) -> Any:
    """An element of an argument: a number of which nothing is known."""
    sorts = [z3.IntSort()] * (len(entries) + 1)
    return z3.Function(array, *sorts)(*entries) if entries else z3.Int(array)


@dataclass
class Normal:
    """The normal form of a program, run on symbols for extents, data and the index.

    Attributes:
        index: the index of an element of the result.
        shape: the extents of the result.
        value: the element, in terms of elements of the arguments.
        given: what extents, requirements and checks of indices let one assume.
        unsigned: operands of unsigned operations, and their conditions.
        accesses: all elements that are read.
    """

    index: list[Any] = field(default_factory=list[Any])
    shape: list[Any] = field(default_factory=list[Any])
    value: Any = None
    given: list[Any] = field(default_factory=list[Any])
    unsigned: list[tuple[Any, list[Any]]] = field(
        default_factory=list[tuple[Any, list[Any]]]
    )
    accesses: list[Access] = field(default_factory=list[Access])
    _values: dict[SSAValue, Any] = field(default_factory=dict[SSAValue, Any])

    @staticmethod
    def of(program: Callable[..., Any], *specs: moa.ArraySpec) -> Normal:
        module = moa.jit(program).lower(*specs).module("dnf")
        (function,) = [op for op in module.ops if isinstance(op, FuncOp)]
        normal = Normal()
        block = function.body.block
        for argument in block.args:
            normal._values[argument] = argument.name_hint
        normal._run(block, [])
        return normal

    def read(self, array: str) -> Access:
        """The one access to an argument."""
        (access,) = [access for access in self.accesses if access.array == array]
        return access

    def _run(self, block: Block, conditions: list[Any]) -> Any:
        for op in block.ops:
            operands: list[Any] = list(map(self._values.get, op.operands))
            match op:
                case YieldOp() | scf.YieldOp():
                    return operands[0]
                case ReturnOp():
                    pass
                case RequireOp():
                    a, b = operands
                    relations = {"eq": a == b, "lt": a < b, "le": a <= b, "ge": a >= b}
                    self.given.append(relations[op.relation.data])
                case ComprehensionOp():
                    self._comprehension(op, operands)
                case _:
                    value = self._value(op, operands, conditions)
                    self._values[op.results[0]] = value
        return None

    def _comprehension(self, op: ComprehensionOp, extents: list[Any]) -> None:
        self.shape = extents
        self.index = [z3.Int(f"i{axis}") for axis in range(len(extents))]
        for i, extent in zip(self.index, extents, strict=True):
            self.given += [i >= 0, i < extent]
        self._values.update(zip(op.body.block.args, self.index, strict=True))
        self.value = self._run(op.body.block, [])

    def _extent(self, array: SSAValue, axis: int) -> Any:
        static = shape_of(array.type)[axis]
        if static >= 0:
            return z3.IntVal(static)
        extent = z3.Int(f"{self._values[array]}.{axis}")
        self.given += [extent >= 0, extent < LARGEST]
        return extent

    def _value(self, op: Operation, operands: list[Any], conditions: list[Any]) -> Any:
        match op:
            case arith.ConstantOp(value=IntegerAttr() as attribute):
                if attribute.type == i1:
                    return z3.BoolVal(attribute.value.data != 0)
                return z3.IntVal(attribute.value.data)
            case FixedExtentOp():
                return z3.IntVal(op.value.value.data)
            case ExtentOp():
                return self._extent(op.array, op.axis_number)
            case AtOp():
                array, *entries = operands
                shape = [self._extent(op.array, axis) for axis in range(len(entries))]
                self.accesses.append(Access(array, entries, shape, conditions))
                return element(array, *entries)
            case InBoundsOp():
                position, extent = operands
                is_within = z3.And(position >= 0, position < extent)
                self.given.append(z3.Implies(z3.And(*conditions), is_within))
                return position
            case scf.IfOp():
                condition = operands[0]
                then = [*conditions, condition]
                otherwise = [*conditions, z3.Not(condition)]
                return z3.If(
                    condition,
                    self._run(op.true_region.block, then),
                    self._run(op.false_region.block, otherwise),
                )
            case arith.DivUIOp() | arith.RemUIOp():
                a, b = operands
                self.unsigned.append((z3.And(a >= 0, b > 0), conditions))
                return a / b if isinstance(op, arith.DivUIOp) else a % b
            case arith.CmpiOp():
                a, b = operands
                number = op.predicate.value.data
                return (a == b, a != b, a < b, a <= b, a > b, a >= b)[number]
            case arith.SelectOp():
                return z3.If(*operands)
            case arith.MaxSIOp():
                a, b = operands
                return z3.If(a < b, b, a)
            case arith.MinUIOp() | arith.MaxUIOp():
                a, b = operands
                self.unsigned.append((z3.And(a >= 0, b >= 0), conditions))
                is_first = a < b if isinstance(op, arith.MinUIOp) else a > b
                return z3.If(is_first, a, b)
            case arith.OrIOp():
                return z3.Or(*operands)
            case arith.AddiOp():
                return operands[0] + operands[1]
            case arith.SubiOp():
                return operands[0] - operands[1]
            case arith.MuliOp():
                return operands[0] * operands[1]
            case arith.IndexCastOp():
                return operands[0]
            case _:
                raise NotImplementedError(op.name)


def check_emitted(normal: Normal, claim: Any, *lemmas: Any) -> None:
    """All accesses are in bounds, unsigned operands not negative; and a claim."""
    obligations = [("the element", (), claim)]
    for is_natural, conditions in normal.unsigned:
        obligations.append(("an unsigned operation", tuple(conditions), is_natural))
    for access in normal.accesses:
        pairs = zip(access.entries, access.shape, strict=True)
        is_within = z3.And(*(z3.And(i >= 0, i < s) for i, s in pairs))
        name = f"in bounds of {access.array}"
        obligations.append((name, tuple(access.conditions), is_within))
    for name, conditions, what in obligations:
        assumed = (*normal.given, *lemmas, *conditions)
        obligation = Obligation("emitted", len(normal.index), name, assumed, what)
        answer = proofs.prove(obligation)
        assert answer.outcome is Outcome.PROVED, f"{obligation}: {answer}"
    assert is_possible([*normal.given, *lemmas])


def spec(rank: int) -> moa.ArraySpec:
    return moa.ArraySpec((None,) * rank)


def data(length: int) -> moa.ArraySpec:
    return moa.ArraySpec((length,), "i64")


def v(position: int) -> Any:
    return element("v", z3.IntVal(position))


def test_the_code_of_take() -> None:
    def program(v: Any, a: Any) -> Any:
        return moa.take(v, a)

    normal = Normal.of(program, data(2), spec(3))
    i, j, k = normal.index
    s = normal.read("a").shape
    rows = z3.If(v(0) < 0, s[0] + v(0) + i, i)
    columns = z3.If(v(1) < 0, s[1] + v(1) + j, j)
    check_emitted(normal, normal.value == element("a", rows, columns, k))


def test_the_code_of_drop() -> None:
    def program(v: Any, a: Any) -> Any:
        return moa.drop(v, a)

    normal = Normal.of(program, data(2), spec(3))
    i, j, k = normal.index
    rows, columns = z3.If(v(0) > 0, i + v(0), i), z3.If(v(1) > 0, j + v(1), j)
    check_emitted(normal, normal.value == element("a", rows, columns, k))


def test_the_code_of_reverse() -> None:
    def program(a: Any) -> Any:
        return moa.reverse(a)

    normal = Normal.of(program, spec(2))
    i, j = normal.index
    rows = normal.shape[0]
    check_emitted(normal, normal.value == element("a", rows - 1 - i, j))


def test_the_code_of_rotate() -> None:
    """It is the index function, of which the definition is proved."""

    def program(v: Any, a: Any) -> Any:
        return moa.rotate(v, a)

    normal = Normal.of(program, moa.ArraySpec((), "i64"), spec(2))
    i, j = normal.index
    rows = normal.shape[0]
    shift = index.rotation(proofs.M, element("v"), rows)
    wanted = element("a", index.rotate(proofs.M, i, shift, rows), j)
    check_emitted(normal, normal.value == wanted)


def test_the_code_of_cat() -> None:
    def program(a: Any, b: Any) -> Any:
        return moa.cat(a, b)

    normal = Normal.of(program, spec(2), spec(2))
    i, j = normal.index
    rows = normal.read("a").shape[0]
    wanted = z3.If(i < rows, element("a", i, j), element("b", i - rows, j))
    check_emitted(normal, normal.value == wanted)


def test_the_code_of_take_and_drop_in_cat() -> None:
    """`(k △ A) ++ (k ▽ A) = A`."""

    def program(v: Any, a: Any) -> Any:
        return moa.cat(moa.take(v, a), moa.drop(v, a))

    normal = Normal.of(program, data(1), spec(2))
    normal.given.append(v(0) >= 0)
    check_emitted(normal, normal.value == element("a", *normal.index))


@pytest.mark.parametrize("t", [(1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 2, 1)])
def test_the_code_of_transpose(t: tuple[int, ...]) -> None:
    def program(a: Any) -> Any:
        return moa.transpose(a, t)

    normal = Normal.of(program, spec(3))
    wanted = element("a", *(normal.index[axis] for axis in t))
    check_emitted(normal, normal.value == wanted)


def test_the_code_of_psi() -> None:
    def program(v: Any, a: Any) -> Any:
        return moa.psi(v, a)

    normal = Normal.of(program, data(2), spec(3))
    check_emitted(normal, normal.value == element("a", v(0), v(1), *normal.index))


@pytest.mark.parametrize(("rank", "other"), [(1, 2), (2, 1), (2, 2), (2, 3), (3, 2)])
def test_the_code_of_reshape(rank: int, other: int) -> None:
    """No two extents are known to be equal: all axes are one group."""

    def program(v: Any, a: Any) -> Any:
        return moa.reshape(v, a)

    normal = Normal.of(program, data(other), spec(rank))
    access = normal.read("a")
    address = index.gamma(proofs.M, normal.index, normal.shape)
    x = z3.Int("x")
    # The address is in bounds, and its divisions: proved with the index functions.
    lemmas = [x == address, x >= 0, x < prod(normal.shape)]
    rest = address
    for axis in range(rank - 1, 0, -1):
        total = prod(access.shape[:axis])
        lemmas.append(proofs.quotient_and_remainder(rest, access.shape[axis]))
        lemmas.append(proofs.quotient_in_bounds(rest, total, access.shape[axis]))
        rest = rest / access.shape[axis]
    claim = index.gamma(proofs.M, access.entries, access.shape) == address
    check_emitted(normal, claim, *lemmas)


def test_the_code_of_reshape_by_groups() -> None:
    """Only the axes that are merged are in the address; the last one stays."""

    def program(a: Any, b: Any) -> Any:
        wanted = moa.outer("mul", moa.ravel(a), b)
        return moa.reshape(moa.shape(wanted), moa.outer("mul", a, b))

    specs = (moa.ArraySpec((None, None), "i64"), moa.ArraySpec((None,), "i64"))
    normal = Normal.of(program, *specs)
    i, j = normal.index
    rows, columns = normal.read("a").shape
    value = element("a", i / columns, i % columns) * element("b", j)
    lemmas = (
        proofs.quotient_and_remainder(i, columns),
        proofs.quotient_in_bounds(i, rows, columns),
    )
    check_emitted(normal, normal.value == value, *lemmas)


def divisions(address: Any, shape: Sequence[Any]) -> list[Any]:
    """Instances of lemmas for the divisions of an address, from the last axis."""
    lemmas: list[Any] = []
    for axis in range(len(shape) - 1, 0, -1):
        total = prod(shape[:axis])
        lemmas.append(proofs.quotient_and_remainder(address, shape[axis]))
        lemmas.append(proofs.quotient_in_bounds(address, total, shape[axis]))
        address = address / shape[axis]
    return lemmas


@pytest.mark.parametrize("order", ["row", "column"])
def test_the_code_of_gamma(order: str) -> None:
    """For data, the index of which is required to be within the shape."""

    def program(v: Any, s: Any) -> Any:
        return moa.gamma(v, s, order)

    normal = Normal.of(program, data(3), data(3))
    entries = [v(axis) for axis in range(3)]
    shape = [element("s", z3.IntVal(axis)) for axis in range(3)]
    gamma = index.gamma if order == "row" else index.gamma_column
    pairs = zip(entries, shape, strict=True)
    bounds = [bound for i, s in pairs for bound in (i >= 0, i < s)]
    claim = z3.And(normal.value == gamma(proofs.M, entries, shape), *bounds)
    check_emitted(normal, claim)


@pytest.mark.parametrize("order", ["row", "column"])
def test_the_code_of_gamma_inverse(order: str) -> None:
    def program(k: Any, s: Any) -> Any:
        return moa.gamma_inverse(k, s, order)

    normal = Normal.of(program, moa.ArraySpec((), "i64"), data(3))
    shape = [element("s", z3.IntVal(axis)) for axis in range(3)]
    is_row = order == "row"
    inverse = index.gamma_inverse if is_row else index.gamma_inverse_column
    entries = inverse(proofs.M, element("k"), shape)
    (axis,) = normal.index
    wanted = z3.If(axis == 0, entries[0], z3.If(axis == 1, entries[1], entries[2]))
    # The product is positive and no extent negative: proved with the rule.
    lemmas = [extent > 0 for extent in shape]
    lemmas += divisions(element("k"), shape if is_row else shape[::-1])
    check_emitted(normal, normal.value == wanted, *lemmas)


@pytest.mark.parametrize(("rank", "other"), [(1, 1), (1, 2), (2, 1), (2, 2), (0, 1)])
def test_the_code_of_recycle(rank: int, other: int) -> None:
    def program(v: Any, a: Any) -> Any:
        return moa.recycle(v, a)

    normal = Normal.of(program, data(other), spec(rank))
    access = normal.read("a")
    total = prod(access.shape)
    address = index.gamma(proofs.M, normal.index, normal.shape)
    repeated = index.recycle(proofs.M, address, total)
    # Proved with the index functions: A has elements, the address is in bounds.
    lemmas = [total > 0, address >= 0, proofs.quotient_and_remainder(address, total)]
    lemmas += [repeated >= 0, repeated < total, *divisions(repeated, access.shape)]
    claim = index.gamma(proofs.M, access.entries, access.shape) == repeated
    check_emitted(normal, claim, *lemmas)


def test_the_code_of_recycle_over_trailing_axes() -> None:
    """The trailing axes run through A once: no address is computed."""

    def program(a: Any, b: Any) -> Any:
        return moa.recycle(moa.shape(moa.outer("mul", b, a)), a)

    normal = Normal.of(program, spec(2), spec(1))
    _, i, j = normal.index
    check_emitted(normal, normal.value == element("a", i, j))


def test_the_code_of_pad() -> None:
    def program(v: Any, w: Any, a: Any) -> Any:
        return moa.pad(v, w, a)

    normal = Normal.of(program, data(2), data(2), spec(3))
    i, j, k = normal.index
    rows, columns, _ = normal.read("a").shape
    wanted = (
        index.pad(proofs.M, i, v(0), rows),
        index.pad(proofs.M, j, v(1), columns),
        k,
    )
    check_emitted(normal, normal.value == element("a", *wanted))


def test_the_code_of_insert() -> None:
    def program(v: Any, b: Any, a: Any) -> Any:
        return moa.insert(v, b, a)

    normal = Normal.of(program, data(2), spec(3), spec(3))
    i, j, k = normal.index
    rows, columns, _ = normal.read("b").shape
    inside = z3.And(v(0) <= i, i < v(0) + rows, v(1) <= j, j < v(1) + columns)
    block, rest = element("b", i - v(0), j - v(1), k), element("a", i, j, k)
    check_emitted(normal, normal.value == z3.If(inside, block, rest))
