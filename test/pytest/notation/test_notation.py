"""The notation says what the program says: names, brackets, and one line a value."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.algebra.scalar import SCALAR_OPERATIONS
from moa_dialect.errors import MoaError
from moa_dialect.notation import WIDTH, notation
from moa_dialect.parsing import ModuleParser
from moa_dialect.pretty import EMPTY, SPACE, Break, Group, Nest, concat, layout
from moa_dialect.spelling import WORDS
from moa_dialect.universe import register_dialects

CONTEXT = Context()
register_dialects(CONTEXT)


def parse(text: str) -> ModuleOp:
    module = ModuleParser(CONTEXT, text).parse_module()
    module.verify()
    return module


def written(text: str, ascii: bool = False) -> str:
    return notation(parse(text), ascii=ascii)


def body(text: str, ascii: bool = False) -> list[str]:
    """The lines of a function's definition after its header."""
    _, *lines = written(text, ascii).splitlines()
    return [line.strip() for line in lines]


# Precedence: what is written reads back as the tree it was written from.


@dataclass(frozen=True)
class Tree:
    """A scalar expression: an operation and its operands, or a name."""

    operation: str
    operands: tuple["Tree", ...] = ()


INFIX = {
    "+": "arith.addf",
    "-": "arith.subf",
    "×": "arith.mulf",
    "÷": "arith.divf",
    "⌈": "arith.maximumf",
    "⌊": "arith.minimumf",
    "*": "math.powf",
}
PREFIX = {"-": "arith.negf"}
CALLED = {"exp": "math.exp", "abs": "math.absf"}
LEAVES = ["x", "y", "z"]


def unary(operation: str, operand: Tree) -> Tree:
    return Tree(operation, (operand,))


def binary(operation: str, left: Tree, right: Tree) -> Tree:
    return Tree(operation, (left, right))


def larger(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(
        st.builds(unary, st.sampled_from([*PREFIX, *CALLED]), inner),
        st.builds(binary, st.sampled_from(list(INFIX)), inner, inner),
    )


trees = st.recursive(st.sampled_from(LEAVES).map(Tree), larger, max_leaves=12)


def as_function(tree: Tree) -> str:
    """A function of x, y, z that computes the tree, one operation for each node."""
    lines: list[str] = []

    def emit(node: Tree) -> str:
        if not node.operands:
            return f"%{node.operation}"
        operands = [emit(operand) for operand in node.operands]
        table = INFIX if len(operands) == 2 else PREFIX | CALLED
        name = f"%{len(lines)}"
        operation = table[node.operation]
        lines.append(f"{name} = {operation} {', '.join(operands)} : f64")
        return name

    result = emit(tree)
    arguments = ", ".join(f"%{leaf}: f64" for leaf in LEAVES)
    return (
        f"func.func @f({arguments}) -> f64 {{\n"
        + "\n".join(lines)
        + f"\nfunc.return {result} : f64\n}}"
    )


class Reader:
    """Reads an expression by the rules stated in the documentation of the notation."""

    def __init__(self, text: str):
        self.tokens = re.findall(r"\w+|[^\w\s]", text)

    def next_is(self, *tokens: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in tokens

    def expression(self) -> Tree:
        return self.chain(("+", "-"), lambda: self.chain(("×", "÷"), self.other))

    def chain(self, signs: Sequence[str], operand: Callable[[], Tree]) -> Tree:
        tree = operand()
        while self.next_is(*signs):
            tree = Tree(self.tokens.pop(0), (tree, operand()))
        return tree

    def other(self) -> Tree:
        """A chain of one sign without a rank, so that no two of them ever meet."""
        if self.next_is("-"):
            return Tree(self.tokens.pop(0), (self.atom(),))
        tree = self.atom()
        signs = {token for token in self.tokens[:1] if token in ("⌈", "⌊", "*")}
        while self.next_is(*signs):
            tree = Tree(self.tokens.pop(0), (tree, self.atom()))
        return tree

    def atom(self) -> Tree:
        token = self.tokens.pop(0)
        if token == "(":
            tree = self.expression()
            assert self.tokens.pop(0) == ")"
            return tree
        if token in CALLED:
            return Tree(token, (self.atom(),))
        assert token in LEAVES, token
        return Tree(token)


@given(trees)
def test_reads_back(tree: Tree):
    text = written(as_function(tree))
    definition, expression = text.split(" =", 1)
    assert definition == "f(x, y, z)"
    reader = Reader(expression)
    assert reader.expression() == tree
    assert not reader.tokens


@given(trees)
def test_signs_without_a_rank_do_not_meet(tree: Tree):
    """Between brackets, ⌈ ⌊ and * stand with no other sign."""
    text = written(as_function(tree)).split(" =", 1)[1]
    while "(" in text:
        innermost = re.findall(r"\(([^()]*)\)", text)
        text = re.sub(r"\([^()]*\)", "x", text)
        for inner in [*innermost, text if "(" not in text else ""]:
            signs = set(re.findall(r"[-+×÷⌈⌊*]", inner))
            assert len(signs) == 1 or not signs & set("⌈⌊*")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("%0 = arith.subf %x, %y : f64", "arith.subf %0, %z : f64"), "x - y - z"),
        (("%0 = arith.subf %y, %z : f64", "arith.subf %x, %0 : f64"), "x - (y - z)"),
        (("%0 = arith.addf %x, %y : f64", "arith.mulf %0, %z : f64"), "(x + y) × z"),
        (("%0 = arith.mulf %y, %z : f64", "arith.addf %x, %0 : f64"), "x + y × z"),
        (("%0 = arith.divf %x, %y : f64", "arith.mulf %0, %z : f64"), "(x ÷ y) × z"),
        (("%0 = arith.negf %x : f64", "arith.addf %0, %y : f64"), "(-x) + y"),
        (("%0 = arith.mulf %x, %y : f64", "arith.negf %0 : f64"), "-(x × y)"),
        (("%0 = math.exp %x : f64", "arith.negf %0 : f64"), "-exp(x)"),
        (("%0 = arith.constant -2.0 : f64", "arith.mulf %0, %x : f64"), "(-2.0) × x"),
        (("%0 = arith.constant -2.0 : f64", "math.exp %0 : f64"), "exp(-2.0)"),
        (
            ("%0 = arith.constant 0xFFF0000000000000 : f64", "math.exp %0 : f64"),
            "exp(-∞)",
        ),
    ],
)
def test_brackets(lines: tuple[str, str], expected: str):
    first, last = lines
    text = f"func.func @f(%x: f64, %y: f64, %z: f64) -> f64 {{ {first} %1 = {last} func.return %1 : f64 }}"
    assert written(text) == f"f(x, y, z) = {expected}\n"


def test_brackets_of_arrays():
    lines = body("""
    func.func @f(%A: tensor<?x?xf64>, %B: tensor<?x?xf64>, %v: tensor<1xindex>) -> tensor<?xf64> {
      %0 = moa.pointwise add %A, %B : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
      %1 = moa.transpose %0 : tensor<?x?xf64> -> tensor<?x?xf64>
      %2 = moa.inner max add %1, %A : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
      %3 = moa.reduce add %2 : tensor<?x?xf64> -> tensor<?xf64>
      %4 = moa.psi %v, %A : tensor<1xindex>, tensor<?x?xf64> -> tensor<?xf64>
      %5 = moa.pointwise mul %3, %4 : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
      func.return %5 : tensor<?xf64>
    }""")
    assert lines == ["O = (+ red (⊘(A + B) ⌈•+ A)) × v ψ A"]


# Values: shared ones have a line, others stand where they are used.


def test_shared_value_has_a_line():
    text = """
    func.func @f(%A: tensor<3xf64>) -> tensor<3xf64> {
      %E = moa.map exp %A : tensor<3xf64> -> tensor<3xf64>
      %0 = moa.map tanh %E : tensor<3xf64> -> tensor<3xf64>
      %1 = moa.pointwise add %0, %E : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
      func.return %1 : tensor<3xf64>
    }"""
    assert written(text) == "f(A ^ <3>) → O ^ <3>:\n  E = exp(A)\n  O = tanh(E) + E\n"


def test_value_hoisted_out_of_a_fold_has_a_line():
    """It is computed once, and must not read as if each index computed it."""
    lines = body("""
    func.func @f(%A: tensor<?xf64>, %x: f64) -> f64 {
      %c0 = moa.fixed_extent 0
      %n = moa.extent %A, 0 : tensor<?xf64>
      %e = math.exp %x : f64
      %s = moa.fold add [%k = %c0 to %n] -> f64 {
        %a = moa.at %A[%k] : tensor<?xf64>
        %p = arith.mulf %a, %e : f64
        moa.yield %p : f64
      }
      func.return %s : f64
    }""")
    assert lines == ["e = exp(x)", "+ fold_{k<n} (<k> ψ A × e)"]


def test_shared_value_of_a_body_is_let():
    lines = body("""
    func.func @f(%A: tensor<?xf64>) -> tensor<?xf64> {
      %n = moa.extent %A, 0 : tensor<?xf64>
      %B = moa.comprehension [%i < %n] -> tensor<?xf64> {
        %a = moa.at %A[%i] : tensor<?xf64>
        %e = math.exp %a : f64
        %s = arith.addf %e, %e : f64
        moa.yield %s : f64
      }
      func.return %B : tensor<?xf64>
    }""")
    assert lines == ["∀ 0 ≤ <i> < <n>:", "let e = exp(<i> ψ A)", "<i> ψ B = e + e"]


def test_result_that_is_an_argument_or_another_result():
    text = """
    func.func @f(%A: tensor<3xf64>) -> (tensor<3xf64>, tensor<3xf64>, tensor<3xf64>) {
      %B = moa.map exp %A : tensor<3xf64> -> tensor<3xf64>
      func.return %A, %B, %B : tensor<3xf64>, tensor<3xf64>, tensor<3xf64>
    }"""
    header, *lines = written(text).splitlines()
    assert header == "f(A ^ <3>) → O1 ^ <3>, B ^ <3>, O3 ^ <3>:"
    assert lines == ["  B = exp(A)", "  O1 = A", "  O3 = B"]


def test_order_moves_the_indices_of_the_result():
    lines = body("""
    func.func @f(%A: tensor<?x?xf64>) -> tensor<?x?xf64> {
      %n = moa.extent %A, 0 : tensor<?x?xf64>
      %m = moa.extent %A, 1 : tensor<?x?xf64>
      %B = moa.comprehension [%i < %n] order [1, 0] -> tensor<?x?xf64> {
        %c = moa.comprehension [%j < %m] -> tensor<?xf64> {
          %a = moa.at %A[%i, %j] : tensor<?x?xf64>
          moa.yield %a : f64
        }
        moa.yield %c : tensor<?xf64>
      }
      func.return %B : tensor<?x?xf64>
    }""")
    assert lines == ["∀ 0 ≤ <i> < <n>: ∀ 0 ≤ <j> < <m>: <j i> ψ B = <i j> ψ A"]


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("d1 - d0 >= 0", "k ≤ i"),
        ("d1 - d0 - 1 >= 0", "k < i"),
        ("d0 - d1 * 2 + 3 >= 0", "2 × i ≤ k + 3"),
        ("d0 - 3 == 0", "k = 3"),
        ("d0 mod 2 == 0", "(k mod 2) = 0"),
        ("d0 - (d1 + 1) floordiv 4 >= 0", "((i + 1) div 4) ≤ k"),
        ("d1 - d0 >= 0, d0 - 1 >= 0", "k ≤ i, 1 ≤ k"),
    ],
)
def test_restricted_fold(constraint: str, expected: str):
    text = f"""
    func.func @f(%A: tensor<?xf64>, %i: index) -> f64 {{
      %1 = moa.fixed_extent 1
      %n = moa.extent %A, 0 : tensor<?xf64>
      %s = moa.fold max [%k = %1 to %n] where affine_set<(d0, d1) : ({constraint})>(%k, %i) -> f64 {{
        %a = moa.at %A[%k] : tensor<?xf64>
        moa.yield %a : f64
      }}
      func.return %s : f64
    }}"""
    fold = f"⌈ fold_{{1≤k<n | {expected}}} (<k> ψ A)"
    assert written(text) == f"f(A ^ <n>, i) = {fold}\n"


# Extents: equal ones have one letter.


def test_extents_required_to_be_equal_have_one_letter():
    text = """
    func.func @f(%A: tensor<?x?xf64>, %B: tensor<?x?xf64>, %C: tensor<?x5xf64>) -> tensor<?x5xf64> {
      %0 = moa.inner add mul %A, %B : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
      %1 = moa.pointwise add %0, %C : tensor<?x?xf64>, tensor<?x5xf64> -> tensor<?x5xf64>
      func.return %1 : tensor<?x5xf64>
    }"""
    (header, *_) = written(text).splitlines()
    assert header == "f(A ^ <n m>, B ^ <m 5>, C ^ <n 5>) → O ^ <n 5>:"


def test_other_requirements_have_a_line():
    lines = body("""
    func.func @f(%A: tensor<?x?xf64>) {
      %n = moa.extent %A, 0 : tensor<?x?xf64>
      %m = moa.extent %A, 1 : tensor<?x?xf64>
      %3 = moa.fixed_extent 3
      moa.require %n eq %m, "square"
      moa.require %n ge %3, "large"
      func.return
    }""")
    assert lines[0] == "require n ≥ 3"


def test_contradiction_is_shown():
    lines = body("""
    func.func @f(%A: tensor<3xf64>) {
      %n = moa.extent %A, 0 : tensor<3xf64>
      %4 = moa.fixed_extent 4
      moa.require %n eq %4, "equal"
      func.return
    }""")
    assert lines[0] == "require 3 = 4"


# Names.


def nested_folds(depth: int, hint: str = "") -> str:
    """Folds inside one another; the innermost adds all their indices."""
    names = [f"%{hint}{number}_" if hint else f"%{number}" for number in range(depth)]
    lines = [
        f"%s{k} = moa.fold add [{name} = %zero to %n] -> index {{"
        for k, name in enumerate(names)
    ]
    lines.append("%t0 = arith.addi %n, %n : index")
    for k, name in enumerate(names):
        lines.append(f"%t{k + 1} = arith.addi %t{k}, {name} : index")
    lines.append(f"moa.yield %t{depth} : index }}")
    for k in range(depth - 1, 0, -1):
        lines.append(f"moa.yield %s{k} : index }}")
    return (
        "func.func @f(%A: tensor<?xf64>) -> index {\n"
        "%zero = moa.fixed_extent 0\n%n = moa.extent %A, 0 : tensor<?xf64>\n"
        + "\n".join(lines)
        + "\nfunc.return %s0 : index }"
    )


def test_more_index_names_than_letters():
    text = written(nested_folds(40))
    indices = re.findall(r"fold_\{(\w+)<n\}", text)
    assert len(indices) == len(set(indices)) == 40
    assert indices[:16] == [*"ijklmpqrstuvw", "i1", "j1", "k1"]
    assert not {"A", "f", "n"} & set(indices)


def test_folds_next_to_each_other_use_the_same_letters():
    fold = "moa.fold add [%{} = %zero to %n] -> index {{ moa.yield %{} : index }}"
    text = f"""
    func.func @f(%n: index) -> index {{
      %zero = moa.fixed_extent 0
      %0 = {fold.format("k", "k")}
      %1 = {fold.format("l", "l")}
      %2 = {fold.format("k", "k")}
      %3 = arith.addi %0, %2 : index
      %4 = arith.muli %3, %1 : index
      func.return %4 : index
    }}"""
    expected = "((+ fold_{k<n} (k)) + (+ fold_{k<n} (k))) × (+ fold_{l<n} (l))"
    assert written(text) == f"f(n) = {expected}\n"


HINTS = ["i", "j", "k", "n", "m", "A", "O", "x", "f", "g", "exp", "red", "psi", "where"]


@given(st.lists(st.sampled_from(HINTS), min_size=8, max_size=8))
def test_names_never_collide(hints: list[str]):
    """Whatever the values of a program are called, no name has two meanings."""
    a, b, x, i, y, k, z, r = (f"{hint}_{n}" for n, hint in enumerate(hints))
    text = f"""
    func.func @f(%{a}: tensor<?x?xf64>, %{b}: tensor<?xf64>, %{x}: f64) -> (tensor<?xf64>, tensor<?xf64>) {{
      %zero = moa.fixed_extent 0
      %n0 = moa.extent %{a}, 0 : tensor<?x?xf64>
      %n1 = moa.extent %{a}, 1 : tensor<?x?xf64>
      %{r} = moa.comprehension [%{i} < %n0] -> tensor<?xf64> {{
        %e = moa.at %{b}[%{i}] : tensor<?xf64>
        %{y} = arith.addf %e, %{x} : f64
        %s = moa.fold add [%{k} = %zero to %n1] -> f64 {{
          %t = moa.at %{a}[%{i}, %{k}] : tensor<?x?xf64>
          %{z} = arith.mulf %t, %{y} : f64
          %u = arith.mulf %{z}, %{z} : f64
          moa.yield %u : f64
        }}
        moa.yield %s : f64
      }}
      func.return %{r}, %{b} : tensor<?xf64>, tensor<?xf64>
    }}
    func.func @g(%x: f64) -> f64 {{ func.return %x : f64 }}"""
    definition, other = written(text).split("\n\n")
    pattern = (
        r"f\((\w+) \^ <(\w+) (\w+)>, (\w+) \^ <(\w+)>, (\w+)\) → (\w+) \^ <\2>, (\w+) \^ <\5>:\n"
        r"  ∀ 0 ≤ <(\w+)> < <\2>:\n"
        r"    let (\w+) = <\9> ψ \4 \+ \6\n"
        r"    <\9> ψ \7 = \+ fold_\{(\w+)<\3\} \(\n"
        r"      let (\w+) = <\9 \11> ψ \1 × \10\n"
        r"      \12 × \12\n"
        r"    \)\n"
        r"  \8 = \4"
    )
    match = re.fullmatch(pattern, definition)
    assert match, definition
    names = match.groups()
    assert len(set(names)) == len(names)
    assert not set(names) & (WORDS | {"f", "g"})
    assert other == "g(x) = x\n"


# Functions.


def test_function_is_defined_before_its_use():
    text = written("""
    func.func @f(%A: tensor<3x4xf64>) -> tensor<3xf64> {
      %B = moa.omega @g <1> (%A) : (tensor<3x4xf64>) -> tensor<3xf64>
      func.return %B : tensor<3xf64>
    }
    func.func private @g(%v: tensor<4xf64>) -> tensor<f64> {
      %w = moa.map @h %v : tensor<4xf64> -> tensor<4xf64>
      %s = moa.reduce add %w : tensor<4xf64> -> tensor<f64>
      func.return %s : tensor<f64>
    }
    func.func private @h(%x: f64) -> f64 {
      %y = arith.mulf %x, %x : f64
      func.return %y : f64
    }""")
    assert re.findall(r"^(\w)\(", text, re.MULTILINE) == ["h", "g", "f"]
    assert "B = g Ω<1> A" in text


@pytest.mark.parametrize("visibility", ["", "private"])
def test_cell_function_of_one_operation_is_an_operator(visibility: str):
    text = written(f"""
    func.func @f(%q: tensor<4xf64>, %K: tensor<3x4xf64>) -> tensor<3xf64> {{
      %s = moa.omega @dot <1, 1> (%q, %K) : (tensor<4xf64>, tensor<3x4xf64>) -> tensor<3xf64>
      func.return %s : tensor<3xf64>
    }}
    func.func {visibility} @dot(%v: tensor<?xf64>, %w: tensor<?xf64>) -> tensor<f64> {{
      %s = moa.inner add mul %v, %w : tensor<?xf64>, tensor<?xf64> -> tensor<f64>
      func.return %s : tensor<f64>
    }}""")
    assert "s = q (+•×) Ω<1 1> K" in text
    assert ("dot(" in text) == (visibility == "")


def test_reversed_operands_are_not_the_operator():
    text = written("""
    func.func @f(%q: tensor<4xf64>, %K: tensor<3x4xf64>) -> tensor<3xf64> {
      %s = moa.omega @flipped <1, 1> (%q, %K) : (tensor<4xf64>, tensor<3x4xf64>) -> tensor<3xf64>
      func.return %s : tensor<3xf64>
    }
    func.func private @flipped(%v: tensor<?xf64>, %w: tensor<?xf64>) -> tensor<f64> {
      %s = moa.inner sub mul %w, %v : tensor<?xf64>, tensor<?xf64> -> tensor<f64>
      func.return %s : tensor<f64>
    }""")
    assert "s = w -•× v" in text
    assert "s = q flipped Ω<1 1> K" in text


# Signs.


@pytest.mark.parametrize("name", SCALAR_OPERATIONS)
def test_scalar_operation_at_every_stage(name: str):
    """The algebra and the scalar code that computes it are written alike."""
    operation = SCALAR_OPERATIONS[name]
    kinds = {"float": "f64", "int": "i64", "bool": "i1"}
    element = next(kinds[kind] for kind in kinds if kind in operation.kinds)
    result = "i1" if operation.is_predicate else element
    operands = ["%x", "%y"][: operation.arity]
    arguments = ", ".join(f"{o}: tensor<{element}>" for o in operands)
    types = ", ".join([f"tensor<{element}>"] * operation.arity)
    op = "moa.map" if operation.arity == 1 else "moa.pointwise"
    text = f"""
    func.func @f({arguments}) -> tensor<{result}> {{
      %0 = {op} {name} {", ".join(operands)} : {types} -> tensor<{result}>
      func.return %0 : tensor<{result}>
    }}"""
    (algebra,) = body(text)
    if operation.arity == 2:
        assert algebra == f"O = x {operation.symbol} y"
    else:
        assert re.fullmatch(rf"O = {operation.symbol}(x|\(x\))", algebra)
    assert written(text, ascii=True).isascii()


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        ("2.5", "tensor<f64>", "2.5"),
        ("0.1", "tensor<f32>", "0.1"),
        ("[true, false]", "tensor<2xi1>", "<true false>"),
        ("[1, -2, 3]", "tensor<3xi64>", "<1 -2 3>"),
        ("[[1, 2], [3, 4]]", "tensor<2x2xindex>", "<2 2> ρ̂ <1 2 3 4>"),
        ("0.0", "tensor<3x4xf64>", "<3 4> ρ̂ 0.0"),
        ("7", "tensor<2xi64>", "<7 7>"),
        ("7", "tensor<50xi64>", "<50> ρ̂ 7"),
        (str(list(range(50))), "tensor<50xi64>", "<0 1 2 … 49>"),
        ("[]", "tensor<0xi64>", "<>"),
        ("[0xFF80, 0x7FC0]", "tensor<2xbf16>", "<-∞ nan>"),
    ],
)
def test_constants(value: str, type: str, expected: str):
    (line,) = body(f"""
    func.func @f() -> {type} {{
      %0 = moa.constant dense<{value}> : {type}
      func.return %0 : {type}
    }}""")
    assert line == f"O = {expected}"


def test_casts_and_index_arithmetic():
    text = """
    func.func @f(%A: tensor<?xf64>, %i: index) -> f32 {
      %2 = arith.constant 2 : index
      %j = arith.muli %i, %2 : index
      %k = arith.remsi %j, %2 : index
      %a = moa.at %A[%k] : tensor<?xf64>
      %l = arith.index_cast %j : index to i64
      %b = arith.sitofp %l : i64 to f64
      %s = arith.addf %a, %b : f64
      %r = arith.truncf %s : f64 to f32
      func.return %r : f32
    }"""
    expression = "f32(<((i × 2) mod 2)> ψ A + f64(i × 2))"
    assert written(text) == f"f(A ^ <n>, i) = {expression}\n"


CASCADE = """
func.func @f(%a: tensor<?x?xf64>, %v: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %m = moa.extent %a, 0 : tensor<?x?xf64>
  %n = moa.extent %a, 1 : tensor<?x?xf64>
  %e = moa.extent %v, 1 : tensor<?x?xf64>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -9.0 : f64
  %o = moa.comprehension [%i < %m] -> tensor<?x?xf64> {
    %top, %u, %row, %r = moa.cascade [%c0 to %n] CHUNK
        -> f64, f64, tensor<?xf64>, f64
    data {
    ^bb0(%p: index):
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      moa.yield %x : f64
    } group max part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x : f64
    } group add, add pivot %lowest {
    ^bb0(%count: index, %top: f64, %r: f64, %u: f64, %row: tensor<?xf64>):
      %k = arith.index_cast %count : index to i64
      %f = arith.sitofp %k : i64 to f64
      %g = arith.divf %u, %f : f64
      %h = arith.addf %top, %g : f64
      moa.yield %h : f64
    } part {
    ^bb0(%p: index, %x: f64, %r: f64):
      %d = arith.subf %x, %r : f64
      %w = moa.comprehension [%l < %e] -> tensor<?xf64> {
        %y = moa.at %v[%p, %l] : tensor<?x?xf64>
        %z = arith.mulf %d, %y : f64
        moa.yield %z : f64
      }
      moa.yield %d, %w : f64, tensor<?xf64>
    } move {
    ^bb0(%count: index, %old: f64, %new: f64, %u: f64, %row: tensor<?xf64>):
      %d = arith.subf %old, %new : f64
      %k = arith.index_cast %count : index to i64
      %f = arith.sitofp %k : i64 to f64
      %kd = arith.mulf %f, %d : f64
      %t = arith.addf %u, %kd : f64
      moa.yield %t, %row : f64, tensor<?xf64>
    }
    moa.yield %row : tensor<?xf64>
  }
  func.return %o : tensor<?x?xf64>
}
"""


def test_cascade():
    """The lines of a pass in the order of evaluation; what does not move has none."""
    assert (
        written(CASCADE.replace("CHUNK", "chunk 4"))
        == """\
f(a ^ <m n>, v ^ <d e>) → o ^ <m e>:
  ∀ 0 ≤ <i> < <m>:
    let top, u, row, r = pass_{p<n, 4 at a time} (
      let x = <i p> ψ a
      top := x ⌈ top
      r from (-9.0): r' := top + u' ÷ f64(count)
      r → r': u := u + f64(before) × (r - r')
      let d1 = x - r'
      u := d1 + u
      row := (∀ 0 ≤ <l> < <e>: d1 × <p l> ψ v) + row
    )
    <i> ψ o = row
"""
    )


def test_cascade_in_ascii():
    assert (
        written(CASCADE.replace("CHUNK", ""), ascii=True)
        == """\
f(a ^ <m n>, v ^ <d e>) -> o ^ <m e>:
  forall 0 <= <i> < <m>:
    let top, u, row, r = pass_{p<n} (
      let x = <i p> psi a
      top := x max top
      r from (-9.0): r' := top + u' / f64(count)
      r -> r': u := u + f64(before) * (r - r')
      let d1 = x - r'
      u := d1 + u
      row := (forall 0 <= <l> < <e>: d1 * <p l> psi v) + row
    )
    <i> psi o = row
"""
    )


# Layout.


@pytest.mark.parametrize("depth", [3, 30])
def test_lines_have_less_than_a_hundred_columns(depth: int):
    text = written(nested_folds(depth))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert WIDTH < 100


def test_group_breaks_as_a_whole():
    inner = Group(concat("g(", Nest(concat(EMPTY, "b,", SPACE, "c")), EMPTY, ")"))
    call = Group(concat("f(", Nest(concat(EMPTY, "a,", SPACE, inner)), EMPTY, ")"))
    assert layout(call, 12) == "f(\n  a,\n  g(b, c)\n)"
    assert layout(call, 13) == "f(a, g(b, c))"
    assert layout(call, 8) == "f(\n  a,\n  g(\n    b,\n    c\n  )\n)"


def test_what_follows_counts_for_the_width():
    word = Group(concat("a", SPACE, "b"))
    assert layout(concat(word, "ccc", Break(), "d"), 5) == "a\nbccc\nd"
    assert layout(concat(word, "cc", Break(), "d"), 5) == "a bcc\nd"


# Errors.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "func.func @f(%i: index) { moa.loop [%j = %i to %i by 1] { moa.yield } func.return }",
            "notation covers the stages moa, dnf and fused, @f contains moa.loop",
        ),
        (
            "func.func @f(%i: index) { scf.for %j = %i to %i step %i { } func.return }",
            "notation covers the stages moa, dnf and fused, @f contains scf.for",
        ),
        (
            "%0 = arith.constant 1.0 : f64",
            "notation expects a module of functions, got arith.constant",
        ),
        (
            "func.func @f() {\n cf.br ^next\n^next:\n func.return }",
            "notation expects functions of one block, @f has 2",
        ),
    ],
)
def test_later_stages_are_refused(text: str, message: str):
    with pytest.raises(MoaError) as caught:
        written(text)
    assert str(caught.value) == message


def test_empty_module():
    assert written("builtin.module {}") == ""


def test_declaration():
    assert written("func.func private @f(tensor<3xf64>) -> f64") == "f is external\n"
