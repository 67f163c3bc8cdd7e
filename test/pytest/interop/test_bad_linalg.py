"""Bad programs of linalg: a message with the place in the file, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.tools.moa_run import main

Run = Callable[..., str]

HEAD = """#i = affine_map<(i) -> (i)>
#n = affine_map<(i) -> ()>
"""


def program(body: str, result: str = "tensor<5xf32>", more: str = "") -> str:
    """A function of one vector, from its third line on; the body begins on the fourth."""
    return f"{HEAD}func.func @main(%a: tensor<5xf32>) -> {result} {{\n{body}}}\n{more}"


BAD: dict[str, tuple[str, str]] = {
    "truncated": (
        program(
            "  %e = tensor.empty() : tensor<5xf32>\n  %r = linalg.map { math.exp } ins("
        ),
        r"bad\.mlir:5:36: .*",
    ),
    "unknown operation": (
        program(
            "  %r = linalg.nothing %a : tensor<5xf32>\n  return %r : tensor<5xf32>\n"
        ),
        r"bad\.mlir:4:8: .*linalg\.nothing.*",
    ),
    "unknown dialect": (
        program(
            '  %r = "tm_tensor.sort"(%a) : (tensor<5xf32>) -> tensor<5xf32>\n'
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n"
        ),
        r"cannot raise bad\.mlir:4:8: tm_tensor\.sort: a sort is no program of folds "
        r"over fixed places; it stays with the caller",
    ),
    "types": (
        program(
            "  %c = arith.constant dense<1.0> : tensor<4xf32>\n"
            "  %r = linalg.add ins(%a, %c : tensor<5xf32>, tensor<4xf32>) "
            "outs(%a : tensor<5xf32>) -> tensor<5xf32>\n  return %r : tensor<5xf32>\n"
        ),
        r"bad\.mlir:5:8: .*",
    ),
    "returned type": (
        program("  %e = tensor.empty() : tensor<4xf32>\n  return %e : tensor<4xf32>\n"),
        r"bad\.mlir:5:3: .*",
    ),
    "recursion": (
        program(
            "  %r = call @other(%a) : (tensor<5xf32>) -> tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n",
            more="func.func private @other(%a: tensor<5xf32>) -> tensor<5xf32> {\n"
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %b = linalg.map { math.exp } ins(%a : tensor<5xf32>) outs(%e : tensor<5xf32>)\n"
            "  %r = call @main(%b) : (tensor<5xf32>) -> tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n}\n",
        ),
        r"bad\.mlir:3:1: function @main is recursive; .*",
    ),
    "never written": (
        program("  %e = tensor.empty() : tensor<5xf32>\n  return %e : tensor<5xf32>\n"),
        r"cannot raise bad\.mlir:4:8: tensor\.empty: it is never written",
    ),
    "read before it is written": (
        program(
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %r = linalg.add ins(%a, %e : tensor<5xf32>, tensor<5xf32>) "
            "outs(%e : tensor<5xf32>) -> tensor<5xf32>\n  return %r : tensor<5xf32>\n"
        ),
        r"cannot raise bad\.mlir:5:8: linalg\.add: it reads a tensor that has never "
        r"been written",
    ),
    "narrow integers": (
        program(
            "  %c = arith.constant dense<1> : tensor<5xi8>\n"
            "  %e = tensor.empty() : tensor<5xi8>\n"
            "  %r = linalg.add ins(%c, %c : tensor<5xi8>, tensor<5xi8>) "
            "outs(%e : tensor<5xi8>) -> tensor<5xi8>\n  return %r : tensor<5xi8>\n",
            "tensor<5xi8>",
        ),
        r"cannot raise bad\.mlir:4:8: arith\.constant: elements of type i8",
    ),
    "scalar operation": (
        program(
            "  %e = tensor.empty() : tensor<5xi32>\n"
            "  %r = linalg.generic {indexing_maps = [#i, #i], iterator_types = "
            '["parallel"]} ins(%a : tensor<5xf32>) outs(%e : tensor<5xi32>) {\n'
            "  ^bb0(%x: f32, %o: i32):\n    %y = arith.bitcast %x : f32 to i32\n"
            "    linalg.yield %y : i32\n  } -> tensor<5xi32>\n"
            "  return %r : tensor<5xi32>\n",
            "tensor<5xi32>",
        ),
        r"cannot raise bad\.mlir:5:8: linalg\.generic: arith\.bitcast in a body",
    ),
    "last value": (
        program(
            "  %e = tensor.empty() : tensor<f32>\n"
            "  %r = linalg.generic {indexing_maps = [#i, #n], iterator_types = "
            '["reduction"]} ins(%a : tensor<5xf32>) outs(%e : tensor<f32>) {\n'
            "  ^bb0(%x: f32, %o: f32):\n    linalg.yield %x : f32\n"
            "  } -> tensor<f32>\n  return %r : tensor<f32>\n",
            "tensor<f32>",
        ),
        r"cannot raise bad\.mlir:5:8: linalg\.generic: a result that does not have every "
        r"dimension is not a reduction",
    ),
    "slice": (
        program(
            "  %r = tensor.extract_slice %a[3] [5] [1] : tensor<5xf32> to tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n"
        ),
        r".*bad\.mlir:4:8: .*out.of.*",
    ),
    "resource without elements": (
        program(
            "  %c = arith.constant dense_resource<w> : tensor<5xf32>\n"
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %r = linalg.add ins(%a, %c : tensor<5xf32>, tensor<5xf32>) "
            "outs(%e : tensor<5xf32>) -> tensor<5xf32>\n  return %r : tensor<5xf32>\n"
        ),
        r"bad\.mlir:4:8: the resource w has no elements in this file",
    ),
    "resources without an end": (
        program(
            "  %c = arith.constant dense_resource<w> : tensor<1xf32>\n"
            "  %e = tensor.empty() : tensor<5xf32>\n  return %a : tensor<5xf32>\n",
            more='{-# dialect_resources: { builtin: { w: "0x040000000000803F" } }',
        ),
        r"bad\.mlir:8:1: the resources that begin here have no end: expected #-}",
    ),
    "resource without alignment": (
        program(
            "  %c = arith.constant dense_resource<w> : tensor<1xf32>\n"
            "  %e = tensor.empty() : tensor<5xf32>\n  return %a : tensor<5xf32>\n",
            more='{-# dialect_resources: { builtin: { w: "0x0000803F0000803F" } } #-}\n',
        ),
        r"bad\.mlir:8:37: the resource w: expected a power of 2 of at most 65536 as "
        r"alignment in its first 4 bytes, got 1065353216",
    ),
    "resource of two bytes": (
        program(
            "  %c = arith.constant dense_resource<w> : tensor<1xf32>\n"
            "  %e = tensor.empty() : tensor<5xf32>\n  return %a : tensor<5xf32>\n",
            more='{-# dialect_resources: { builtin: { w: "0x0400" } } #-}\n',
        ),
        r"bad\.mlir:8:37: the resource w: expected at least 4 bytes",
    ),
    "division of an index by 0": (
        program(
            "  // An index floordiv 0 in a comment is none.\n"
            "  %r = linalg.generic {indexing_maps = [affine_map<(i) -> (i mod 0)>, #i], "
            'iterator_types = ["parallel"]} ins(%a : tensor<5xf32>) '
            "outs(%a : tensor<5xf32>) {\n  ^bb0(%x: f32, %o: f32):\n"
            "    linalg.yield %x : f32\n  } -> tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n"
        ),
        r"bad\.mlir:5:62: an index is divided by 0: mod 0",
    ),
    "several blocks": (
        program(
            "  %e = tensor.empty() : tensor<5xf32>\n  cf.br ^end\n^end:\n"
            "  return %a : tensor<5xf32>\n"
        ),
        r"cannot raise bad\.mlir:3:1: func\.func: expected one block, got 2",
    ),
    "calls itself": (
        program(
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %r = call @main(%a) : (tensor<5xf32>) -> tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n"
        ),
        r"bad\.mlir:5:8: function @main must not be applied inside itself",
    ),
    "calls what is declared": (
        program(
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %r = call @f(%a) : (tensor<5xf32>) -> tensor<5xf32>\n"
            "  return %r : tensor<5xf32>\n",
            more="func.func private @f(tensor<5xf32>) -> tensor<5xf32>\n",
        ),
        r"bad\.mlir:5:8: unknown function: expected a func\.func of one block named @f",
    ),
    "resource of another size": (
        program(
            "  %c = arith.constant dense_resource<w> : tensor<5xf32>\n"
            "  %e = tensor.empty() : tensor<5xf32>\n"
            "  %r = linalg.add ins(%a, %c : tensor<5xf32>, tensor<5xf32>) "
            "outs(%e : tensor<5xf32>) -> tensor<5xf32>\n  return %r : tensor<5xf32>\n",
            more='{-# dialect_resources: { builtin: { w: "0x040000000000803F" } } #-}\n',
        ),
        r".*(?:resource w: expected 20 bytes, got 4|bad\.mlir:\d+:\d+: .*)",
    ),
}


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `moa-run bad.mlir` on a vector; gives what it says on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(text: str, array: np.ndarray | None = None) -> str:
        Path("bad.mlir").write_text(text)
        np.save("a.npy", np.zeros(5, np.float32) if array is None else array)
        arguments = ["moa-run", "bad.mlir", "--entry", "main", "--input", "a.npy"]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    return call


@pytest.mark.parametrize("name", BAD)
def test_bad_programs(run: Run, name: str):
    text, message = BAD[name]
    error = run(text)
    assert re.fullmatch(f"moa-run: {message}\n", error), error


@pytest.mark.parametrize("stop", range(0, 2200, 37))
def test_a_file_that_is_cut_anywhere(run: Run, stop: int):
    text = (Path(__file__).parent / "data" / "causal_attention.mlir").read_text()
    first = text.index("linalg.transpose")
    error = run(text[: first + stop])
    assert error.startswith("moa-run: bad.mlir:"), error
    assert error.count("\n") == 1


def elementwise(body: str, result: str = "i64") -> str:
    """A program on integers whose body is given; it yields %z."""
    return f"""{HEAD}func.func @main(%a: tensor<4xi64>, %f: tensor<4xf32>) -> tensor<4x{result}> {{
  %e = tensor.empty() : tensor<4x{result}>
  %r = linalg.generic {{indexing_maps = [#i, #i, #i], iterator_types = ["parallel"]}}
    ins(%a, %f : tensor<4xi64>, tensor<4xf32>) outs(%e : tensor<4x{result}>) {{
  ^bb0(%x: i64, %y: f32, %o: {result}):
    {body}
    linalg.yield %z : {result}
  }} -> tensor<4x{result}>
  return %r : tensor<4x{result}>
}}"""


@pytest.mark.parametrize(
    ("body", "result", "reason"),
    [
        ("%z = math.ctpop %x : i64", "i64", "math.ctpop in a body"),
        ("%z = math.ipowi %x, %x : i64", "i64", "by an exponent that is data"),
        (
            "%n = arith.constant -2 : i64\n%z = math.ipowi %x, %n : i64",
            "i64",
            "math.ipowi by -2",
        ),
        ("%z = arith.fptoui %y : f32 to i64", "i64", "arith.fptoui to i64"),
        ("%z = arith.bitcast %y : f32 to i32", "i32", "arith.bitcast in a body"),
        (
            "%n = arith.trunci %x : i64 to i8\n%z = arith.extsi %n : i8 to i64",
            "i64",
            "i8",
        ),
        (
            "%w = arith.extf %y : f32 to f64\n%v = arith.remf %w, %w : f64\n"
            "%z = arith.truncf %v : f64 to f32",
            "f32",
            "arith.remf of f64 in a body",
        ),
    ],
)
def test_scalar_operations_that_are_not_raised(body: str, result: str, reason: str):
    with pytest.raises(moa.CompileError, match=rf"<text>:5:8: .*{re.escape(reason)}"):
        moa.compile_linalg(elementwise(body, result))


@pytest.mark.parametrize(
    ("line", "result", "reason"),
    [
        (
            "%r = linalg.generic {indexing_maps = [#i, #d], iterator_types = "
            '["parallel"]} ins(%a : tensor<4xf32>) outs(%o : tensor<4x4xf32>) '
            "{ ^bb0(%x: f32, %y: f32): linalg.yield %x : f32 } -> tensor<4x4xf32>",
            "4x4",
            "a result with the map",
        ),
        (
            "%r = tensor.reshape %b(%s) : (tensor<?xf32>, tensor<2xi64>) -> "
            "tensor<?x4xf32>",
            "?x4",
            "a reshape to a shape that is data",
        ),
        (
            "%k = tensor.extract %s[%n] : tensor<2xi64>\n"
            "  %m = arith.index_cast %k : i64 to index\n"
            "  %r = tensor.generate %m { ^bb0(%i: index): "
            "%z = arith.constant 1.0 : f32 tensor.yield %z : f32 } : tensor<?xf32>",
            "?",
            "an extent depends on data",
        ),
        (
            "%r = tensor.gather %a[%q] gather_dims([0]) : (tensor<4xf32>, "
            "tensor<3x1xindex>) -> tensor<3x1xf32>",
            "3x1",
            "there is no rule for it",
        ),
    ],
)
def test_operations_that_are_not_raised(line: str, result: str, reason: str):
    text = f"""{HEAD}#d = affine_map<(i) -> (i, i)>
func.func @main(%a: tensor<4xf32>, %b: tensor<?xf32>, %s: tensor<2xi64>,
                %o: tensor<4x4xf32>, %q: tensor<3x1xindex>) -> tensor<{result}xf32> {{
  %n = arith.constant 0 : index
  {line}
  return %r : tensor<{result}xf32>
}}"""
    with pytest.raises(moa.CompileError, match=re.escape(reason)):
        moa.compile_linalg(text)


def test_a_program_of_kernels_takes_as_many_arrays_as_it_has_arguments():
    step = "linalg.matmul ins({} : tensor<3x3xf32>, tensor<3x3xf32>) "
    step += "outs(%f : tensor<3x3xf32>) -> tensor<3x3xf32>"
    text = f"""func.func @main(%a: tensor<3x3xf32>) -> tensor<3x3xf32> {{
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<3x3xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<3x3xf32>) -> tensor<3x3xf32>
      %b = {step.format("%a, %a")}
      %c = {step.format("%b, %a")}
      %d = {step.format("%c, %a")}
      return %d : tensor<3x3xf32>
    }}"""
    power = moa.compile_linalg(text)
    assert power.kernels == ("main.0", "main.1")
    a = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_array_equal(power(a), a @ a @ a @ a)
    with pytest.raises(moa.MoaError, match="main: expected 1 argument, got 2"):
        power(a, a)


def test_arrays_without_elements():
    softmax = moa.compile_linalg(
        """func.func @main(%a: tensor<?x?xf32>) -> tensor<?x?xf32> {
          %r = linalg.softmax dimension(1) ins(%a : tensor<?x?xf32>)
            outs(%a : tensor<?x?xf32>) -> tensor<?x?xf32>
          return %r : tensor<?x?xf32>
        }"""
    )
    for shape in ((0, 4), (4, 0), (0, 0)):
        assert softmax(np.zeros(shape, np.float32)).shape == shape
    total = moa.compile_linalg(
        """func.func @main(%a: tensor<3x0xf32>, %b: tensor<3xf32>) -> tensor<3xf32> {
          %r = linalg.reduce ins(%a : tensor<3x0xf32>) outs(%b : tensor<3xf32>)
            dimensions = [1] (%x: f32, %o: f32) {
              %s = arith.addf %x, %o : f32
              linalg.yield %s : f32
            }
          return %r : tensor<3xf32>
        }"""
    )
    start = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(total(np.zeros((3, 0), np.float32), start), start)


def test_extents_that_do_not_fit():
    product = moa.compile_linalg(
        """func.func @main(%a: tensor<?x?xf32>, %b: tensor<?x?xf32>, %c: tensor<?x?xf32>)
            -> tensor<?x?xf32> {
          %r = linalg.matmul ins(%a, %b : tensor<?x?xf32>, tensor<?x?xf32>)
            outs(%c : tensor<?x?xf32>) -> tensor<?x?xf32>
          return %r : tensor<?x?xf32>
        }"""
    )
    a, b, c = (np.ones(s, np.float32) for s in ((2, 3), (3, 4), (2, 4)))
    np.testing.assert_array_equal(product(a, b, c), np.full((2, 4), 4))
    with pytest.raises(moa.ShapeError, match=r"linalg\.matmul: .* dimension 2"):
        product(a, np.ones((2, 4), np.float32), c)
    with pytest.raises(moa.ShapeError, match=r"linalg\.matmul: .* dimension 0"):
        product(a, b, np.ones((3, 4), np.float32))


def test_an_index_that_is_not_there():
    rows = moa.compile_linalg(
        """#i = affine_map<(i) -> (i)>
        func.func @main(%a: tensor<4xf32>, %p: tensor<3xi64>) -> tensor<3xf32> {
          %e = tensor.empty() : tensor<3xf32>
          %r = linalg.generic {indexing_maps = [#i, #i], iterator_types = ["parallel"]}
            ins(%p : tensor<3xi64>) outs(%e : tensor<3xf32>) {
          ^bb0(%in: i64, %out: f32):
            %k = arith.index_cast %in : i64 to index
            %x = tensor.extract %a[%k] : tensor<4xf32>
            linalg.yield %x : f32
          } -> tensor<3xf32>
          return %r : tensor<3xf32>
        }"""
    )
    a = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(rows(a, np.array([3, 0, 1])), [3, 0, 1])
    for bad in (4, -1):
        with pytest.raises(moa.IndexRangeError, match="out of range of axis 0"):
            rows(a, np.array([3, bad, 1]))


def test_division_by_zero_gives_zero():
    divide = moa.compile_linalg(
        """#i = affine_map<(i) -> (i)>
        func.func @main(%a: tensor<4xi32>, %b: tensor<4xi32>) -> tensor<4xi32> {
          %e = tensor.empty() : tensor<4xi32>
          %r = linalg.div ins(%a, %b : tensor<4xi32>, tensor<4xi32>)
            outs(%e : tensor<4xi32>) -> tensor<4xi32>
          return %r : tensor<4xi32>
        }"""
    )
    least = np.iinfo(np.int32).min
    a, b = np.array([7, -7, 5, least], np.int32), np.array([2, 2, 0, -1], np.int32)
    np.testing.assert_array_equal(divide(a, b), [3, -3, 0, least])


def test_only_linalg_without_operations_of_moa_is_read_by_upstream():
    from moa_dialect.passes.raising.source import is_upstream_text

    assert is_upstream_text("%r = linalg.map")
    assert is_upstream_text("// moa.iota\n%r = tensor.empty()")
    assert not is_upstream_text("// linalg.map\n%r = arith.addf")
    assert not is_upstream_text("%r = linalg.map\n%s = moa.iota")
    assert not is_upstream_text('%r = linalg.map\n%s = "moa.iota"()')
