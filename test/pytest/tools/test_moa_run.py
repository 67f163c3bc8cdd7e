"""`moa-run` runs what it is given or says in one line why it cannot."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from moa_dialect.tools import moa_run

PROGRAM = """\
func.func @product(%A: tensor<?x?xf64>, %B: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %C = moa.inner add mul %A, %B : tensor<?x?xf64>, tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %C : tensor<?x3xf64>
}
func.func @extremes(%v: tensor<?xbf16>) -> (tensor<bf16>, tensor<bf16>) {
  %low = moa.reduce min %v : tensor<?xbf16> -> tensor<bf16>
  %high = moa.reduce max %v : tensor<?xbf16> -> tensor<bf16>
  func.return %low, %high : tensor<bf16>, tensor<bf16>
}
func.func private @helper(%x: f64) -> f64 {
  func.return %x : f64
}
"""

A = np.arange(8.0).reshape(2, 4)
B = np.arange(12.0).reshape(4, 3) / 8
V = np.array([3, -1, 2], ml_dtypes.bfloat16)

Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `moa-run` in a folder with a program and arrays; returns its output."""
    monkeypatch.chdir(tmp_path)
    Path("program.mlir").write_text(PROGRAM)
    for name, array in {"A": A, "B": B, "V": V}.items():
        np.save(f"{name}.npy", array)

    def call(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["moa-run", *arguments])
        moa_run.main()
        return capsys.readouterr().out

    return call


PRODUCT = ("program.mlir", "--entry", "product", "--input", "A.npy", "--input", "B.npy")


EMULATED = ["--target", "cuda", "--emulate"]


@pytest.mark.parametrize("mode", [[], ["--interpret"], EMULATED])
def test_saves_the_result(run: Run, mode: list[str]):
    assert run(*PRODUCT, "--output", "C", *mode) == ""
    np.testing.assert_allclose(np.load("C"), A @ B, rtol=1e-15)


def test_prints_the_result(run: Run):
    first, *rows = run(*PRODUCT).splitlines()
    assert first == "result 0: <2 3> f64"
    values = [[float(x) for x in re.findall(r"[\d.]+", row)] for row in rows]
    np.testing.assert_allclose(values, A @ B)


@pytest.mark.parametrize("mode", [[], ["--interpret"]])
def test_bfloat16_and_several_results(run: Run, mode: list[str]):
    outputs = ("--output", "low.npy", "--output", "high.npy")
    run("program.mlir", "--entry", "extremes", "--input", "V.npy", *outputs, *mode)
    low, high = (np.load(name).view(ml_dtypes.bfloat16) for name in outputs[1::2])
    assert (low, high) == (-1, 3)


@pytest.mark.parametrize("array", [np.asfortranarray(A), A.astype(">f8")])
def test_any_memory_and_byte_order(run: Run, array: np.ndarray):
    np.save("A.npy", array)
    run(*PRODUCT, "--output", "C.npy")
    np.testing.assert_allclose(np.load("C.npy"), A @ B, rtol=1e-15)


def test_times(run: Run):
    *_, last = run(*PRODUCT, "--time", "3").splitlines()
    assert re.fullmatch(r"best [\d.]+ us, median [\d.]+ us of 3 call\(s\)", last)


def test_only_function_needs_no_name(run: Run):
    start = PROGRAM.index("func.func @extremes")
    Path("program.mlir").write_text(PROGRAM[:start])
    assert run("program.mlir", *PRODUCT[3:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mlir"], "missing.mlir: No such file or directory"),
        (["."], ".: Is a directory"),
        (["binary.mlir"], "binary.mlir: .*"),
        (["broken.mlir"], "broken.mlir:1:30: operand expected"),
        (["wrong.mlir"], r"%b = moa.transpose\(%a\): result type does not follow .*"),
        (
            ["program.mlir"],
            "unknown entry: expected one of product, extremes, got none",
        ),
        (
            ["program.mlir", "--entry", "sum"],
            "unknown entry: expected one of product, extremes, got 'sum'",
        ),
        (
            ["program.mlir", "--entry", "helper"],
            "unknown entry: expected one of product, extremes, got 'helper'",
        ),
        (PRODUCT[:-2], r"product: expected --input 2 time\(s\), got 1"),
        (
            [*PRODUCT, "--output", "C.npy", "--output", "D.npy"],
            r"product: expected --output 1 time\(s\), got 2",
        ),
        ([*PRODUCT[:-1], "missing.npy"], "missing.npy: No such file or directory"),
        ([*PRODUCT[:-1], "program.mlir"], "program.mlir: not an .npy file of numbers"),
        ([*PRODUCT[:-1], "empty.npy"], "empty.npy: not an .npy file of numbers"),
        ([*PRODUCT[:-1], "objects.npy"], "objects.npy: not an .npy file of numbers"),
        ([*PRODUCT[:-1], "pickle.npy"], "pickle.npy: not an .npy file of numbers"),
        ([*PRODUCT[:-1], "f32.npy"], "argument 1 'B': expected float64, got float32"),
        (
            [*PRODUCT[:-1], "A.npy"],
            "argument 1 'B': expected extent 3 on axis 1, got 4",
        ),
        (
            [*PRODUCT[:-1], "long.npy"],
            r"inner: .*: expected 4 \(axis 1 of A\), got 5 \(axis 0 of B\)",
        ),
        (
            [*PRODUCT, "--output", "missing/C.npy"],
            "missing/C.npy: No such file or directory",
        ),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--interpret"]])
def test_bad_input(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    mode: list[str],
):
    Path("binary.mlir").write_bytes(b"\xff\xfe\x00")
    Path("broken.mlir").write_text("func.func @f() { moa.require }")
    Path("wrong.mlir").write_text(
        "func.func @f(%a: tensor<3x4xf64>) {\n"
        "  %b = moa.transpose %a : tensor<3x4xf64> -> tensor<3x4xf64>\n"
        "  func.return\n"
        "}\n"
    )
    Path("empty.npy").write_bytes(b"")
    Path("pickle.npy").write_bytes(pickle.dumps([1, 2]))
    np.save("objects.npy", np.array([{}, None], object), allow_pickle=True)
    np.save("f32.npy", B.astype(np.float32))
    np.save("long.npy", np.zeros((5, 3)))
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, *mode)
    assert stopped.value.code == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"moa-run: {message}", first), first
    assert len(rest) == (2 if arguments[0] == "broken.mlir" else 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--emulate"], "--emulate needs --target cuda"),
        (["--chip", "sm_80"], "--chip needs --target cuda"),
        (["--tf32"], "--tf32 needs --target cuda"),
        (["--tier", "mma"], "--tier needs --target cuda"),
        (
            ["--interpret", "--deterministic"],
            "--interpret and --deterministic exclude each other",
        ),
        (["--interpret", "--no-fuse"], "--interpret and --no-fuse exclude each other"),
        (
            ["--no-fuse", "--schedule", "i=lanes:4"],
            "--no-fuse and --schedule exclude each other",
        ),
        (
            ["--target", "cuda", "--interpret"],
            "--interpret and --target cuda exclude each other",
        ),
    ],
)
def test_options_that_do_not_fit(
    run: Run, capsys: pytest.CaptureFixture[str], options: list[str], message: str
):
    with pytest.raises(SystemExit) as stopped:
        run(*PRODUCT, *options)
    assert stopped.value.code == 2
    assert f"moa-run: error: {message}" in capsys.readouterr().err


def test_an_unknown_chip(run: Run, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(*PRODUCT, *EMULATED, "--chip", "sm_1")
    assert "moa-run: unknown chip: expected one of" in capsys.readouterr().err
