"""`moa-cost`, and the command that sets predicted times beside measured ones."""

from __future__ import annotations

import builtins
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import moa_dialect as moa
from moa_dialect.cost import counts_of, machine, traffic
from moa_dialect.cost.probe import described
from moa_dialect.tools import cost_check, cost_plots, moa_cost
from moa_dialect.tools.cost_paper import FORMULAS, LITERAL, d, e, literal_nest, n
from moa_dialect.tools.cost_programs import PROGRAMS

FILE = """
func.func @product(%a: tensor<?x?xf32> {moa.extents = ["n", "k"]},
    %b: tensor<?x64xf32> {moa.extents = ["k", "64"]}) -> tensor<?x64xf32> {
  %c = moa.inner add mul %a, %b
    : tensor<?x?xf32>, tensor<?x64xf32> -> tensor<?x64xf32>
  func.return %c : tensor<?x64xf32>
}
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    moa_cost.run(moa_cost.parse_arguments(arguments))
    return capsys.readouterr().out


def fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> str:
    """What is said on stderr; the exit status is 1."""
    monkeypatch.setattr(sys, "argv", ["moa-cost", *arguments])
    with pytest.raises(SystemExit) as error:
        moa_cost.main()
    assert error.value.code == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_sizes() -> None:
    assert moa_cost.parse_sizes("") == [{}]
    assert moa_cost.parse_sizes("n=8, d=4") == [{"n": 8, "d": 4}]
    assert moa_cost.parse_sizes("d=4,n=8:33") == [
        {"d": 4, "n": 8},
        {"d": 4, "n": 16},
        {"d": 4, "n": 32},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n", "expected name=number or name=from:to, got 'n'"),
        ("n=x", "expected name=number or name=from:to, got 'n=x'"),
        ("n=-3", "expected name=number or name=from:to, got 'n=-3'"),
        ("n=0", "n: expected 1 to 1099511627776, got 0"),
        ("n=2000000000000", "n: expected 1 to 1099511627776, got 2000000000000"),
        ("n=8:4", "n: a range goes up, got 8:4"),
        ("n=8,n=9", "n is given twice"),
        ("n=8:9,n=9", "n is given twice"),
        ("n=8:9,d=4:8", "expected one range, got n and d"),
        ("z=3", "matmul has no extent z; it has n, k, m"),
    ],
)
def test_wrong_sizes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    found = fails(monkeypatch, capsys, "matmul", "--machine", "edge", "--sizes", text)
    assert found == f"moa-cost: --sizes: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("abacus",), "unknown program: expected a file .mlir or one of attention,"),
        (("matmul", "--machine", "abacus"), "unknown machine: expected one of host,"),
        (("matmul", "--machine", "no.toml"), "cannot read the machine no.toml"),
        (("matmul", "--compare", "lazy"), "--compare: expected eager or fused, got la"),
        (("matmul", "--plot", "a.gif"), "--plot: expected a file .svg, .png, .html, "),
        (("matmul", "--plot", "no/a.svg"), "--plot: there is no folder no"),
        (("matmul", "--entry", "f"), "--entry: expected with a file, got it with "),
        (("no.mlir", "--machine", "edge"), "no.mlir: No such file or directory"),
    ],
)
def test_wrong_arguments(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    given = arguments if "--machine" in arguments else (*arguments, "--machine", "edge")
    assert fails(monkeypatch, capsys, *given).startswith(f"moa-cost: {message}")


LOOPS = """
func.func @copy(%x: memref<8xf32>, %r: memref<8xf32> {moa.result}) {
  %c0 = arith.constant 0 : index
  %a = memref.load %x[%c0] : memref<8xf32>
  memref.store %a, %r[%c0] : memref<8xf32>
  func.return
}
"""


def test_a_file_past_the_stage_onf_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "loops.mlir"
    path.write_text(LOOPS)
    assert fails(monkeypatch, capsys, str(path), "--machine", "edge") == (
        "moa-cost: expected a function at the stage dnf, fused or onf, got memref.load\n"
    )


def test_loops_have_no_array_operations_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "onf.mlir"
    program = moa.jit(moa.library.softmax).lower(moa.ArraySpec((8, 64), "float32"))
    path.write_text(str(program.module("onf")))
    assert fails(
        monkeypatch, capsys, str(path), "--machine", "edge", "--compare", "eager"
    ).startswith("moa-cost: expected array operations, each to be a kernel of its own")


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_program_has_a_cost(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = run(capsys, name, "--machine", "server-x86")
    for part in ("operations", "compulsory", "DRAM", "bound:", "time:", "energy:"):
        assert part in text


def test_one_size_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--sizes=n=512,k=256,m=128"
    found = json.loads(run(capsys, "matmul", "--machine", "edge", sizes, "--json"))
    fused = found["fused"]
    assert fused["sizes"] == {"n": 512, "k": 256, "m": 128}
    counts = {(o["kind"], o["dtype"]): o["count"] for o in fused["operations"]}
    assert counts["mul", "f32"] == 512 * 256 * 128
    assert fused["compulsory"]["bytes"] == 4 * (512 * 256 + 256 * 128 + 512 * 128)


def test_a_sweep_says_where_something_no_longer_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = run(
        capsys,
        *("attention", "--machine", "h200", "--sizes", "h=1,n=512:4096"),
        *("--compare", "eager,fused"),
    )
    lines = text.splitlines()[2:]
    assert lines[0].split()[:4] == ["n", "time", "bottleneck", "energy"]
    assert [line.split()[0] for line in lines[2:]] == ["512", "1024", "2048", "4096"]
    assert "copied from L2" in lines[-1]
    assert lines[-1].endswith("fuse")
    found = json.loads(
        run(
            capsys,
            *("attention", "--machine", "h200", "--sizes", "h=1,n=512:1024"),
            *("--compare", "eager", "--json"),
        )
    )
    assert [point["fuse"] for point in found] == [True, True]
    assert all(point["speedup"] > 1 for point in found)


def test_both_sides_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "products", "--machine", "server-x86", "--explain")
    assert "on server-x86: do not fuse, the fused form takes" in text
    text = run(
        capsys, "softmax", "--machine", "server-x86", "--sizes", "n=64:128", "--explain"
    )
    assert text.count("on server-x86: ") == 2


def test_regimes_are_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "matmul", "--machine", "edge", "--regimes")
    assert "capacity at least" in text


def test_the_papers_formulas_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "attention", "--machine", "edge", "--paper", "--explain")
    assert "The paper's model (Mullin and Hains)" in text
    assert "classical, forward" in text


def test_the_papers_formulas_give_the_papers_numbers() -> None:
    formulas = {name: formula for name, formula, _ in FORMULAS}
    small = {n: 3, d: 4, e: 4}
    assert formulas["classical, forward"].subs(small) == 66
    assert formulas["MoA, forward"].subs(small) == 36
    assert formulas["ratio"].subs({n: 32768, d: 64}) == 512
    decoding = 4 * formulas["decoding, one query"]
    assert decoding.subs({n: 8, d: 4, e: 4}) == 288
    assert decoding.subs({n: 4096, d: 64, e: 64}) == pytest.approx(2.10e6, rel=0.01)


def test_equations_20_and_21_as_they_are_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is kept but a row's maximum and sum: 2 + e times the scores.

    In a cache of 64 KiB that holds no keys, a simulation moved 5256 times what is
    compulsory.
    """
    sizes = {n: 256, d: 64, e: 64}
    nest = literal_nest(sizes)
    formulas = {name: formula.subs(sizes) for name, formula, _ in LITERAL}
    counts = counts_of(nest.body)
    assert counts["mul", "f32"].subs(sizes) == formulas["multiplications"]
    assert counts["exp", "f32"].subs(sizes) == formulas["exponentials"]
    assert formulas["scores"] == (2 + 64) * 256**2
    compulsory = 4 * 256 * 64 * 4
    moved = traffic(nest, 64 << 10).bytes / compulsory
    assert moved == pytest.approx(5256, rel=0.01)
    text = run(capsys, "attention", "--machine", "edge", "--paper")
    assert "equations 20 and 21 as they are written" in text
    assert "n**2*(e + 2) = 277 M" in text
    assert "equations" not in run(capsys, "matmul", "--machine", "edge", "--paper")


def test_a_file_with_extents_that_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "product.mlir"
    path.write_text(FILE)
    text = run(capsys, str(path), "--machine", "edge", "--sizes", "n=256,k=128")
    assert "with n=256, k=128 on edge" in text
    assert "64*k*n" in text


def test_a_size_that_a_file_does_not_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "product.mlir"
    path.write_text(FILE)
    text = fails(monkeypatch, capsys, str(path), "--machine", "edge", "--sizes", "m=3")
    assert "product.mlir has no extent m; it has k, n" in text


def test_sizes_make_the_code_for_these_extents(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As `moa.jit` on such arrays; for extents that are not given, for any number."""
    path = tmp_path / "product.mlir"
    path.write_text(FILE)
    any_number = run(capsys, str(path), "--machine", "edge")
    assert "assumed: 1024 for n, k, which --sizes does not give" in any_number
    some = run(capsys, str(path), "--machine", "edge", "--sizes", "k=128")
    assert "assumed: 1024 for n, which" in some
    small = run(capsys, str(path), "--machine", "edge", "--sizes", "n=8,k=16")
    assert "assumed" not in small
    assert "block:8" in small  # No more rows in a task than there are.
    assert "block:8" not in any_number
    text = run(capsys, str(path), "--machine", "edge", "--sizes", "n=8", "--json")
    assert json.loads(text)["assumed"] == {"k": 1024}


def test_a_size_that_a_file_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "product.mlir"
    path.write_text(
        FILE.replace("?x64xf32>", "32x64xf32>", 1).replace(
            "tensor<?x?xf32>, tensor<?x64xf32> ->",
            "tensor<?x?xf32>, tensor<32x64xf32> ->",
        )
    )
    text = fails(monkeypatch, capsys, str(path), "--machine", "edge", "--sizes", "k=33")
    assert "--sizes: k is 32 in" in text
    assert "product.mlir, got 33" in text


def test_arguments_that_are_no_arrays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "cell.mlir"
    path.write_text("""
func.func @cell(%a: tensor<4x8xf32>, %i: index) -> tensor<8xf32> {
  %r = moa.cell %a[%i] : tensor<4x8xf32> -> tensor<8xf32>
  func.return %r : tensor<8xf32>
}
""")
    text = run(capsys, str(path), "--machine", "edge", "--compare", "eager")
    assert "cell on edge" in text


@pytest.mark.parametrize("suffix", cost_plots.SUFFIXES)
def test_plots(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot{suffix}"
    run(
        capsys,
        *("attention", "--machine", "h200", "--sizes", "h=1,n=512:2048"),
        *("--compare", "eager", "--plot", str(path)),
    )
    content = path.read_bytes()
    begins = {".svg": b"<?xml", ".png": b"\x89PNG", ".html": b"<!doctype html>"}
    assert content.startswith(begins[suffix])
    assert len(content) > 5000


def test_a_plot_needs_matplotlib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == "matplotlib" else found(name, *rest)

    monkeypatch.setattr(cost_plots, "find_spec", find_spec)
    text = fails(monkeypatch, capsys, "matmul", "--machine", "edge", "--plot", "a.svg")
    assert text == (
        "moa-cost: --plot needs matplotlib, which is not installed; "
        'pip install "moa-dialect[plot]"\n'
    )


def test_matplotlib_is_not_imported_without_a_plot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = builtins.__import__

    def guarded(name: str, *rest: Any) -> Any:
        assert not name.startswith("matplotlib")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
    run(capsys, "matmul", "--machine", "edge")


# Predicted beside measured.


@pytest.fixture
def small_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that need not be measured."""
    measured = {
        **dict.fromkeys(("f32", "f16"), 2e11),
        **{"f64": 1e11, "bf16": 4e11, "exp": 1e10, "div": 3e10, "math": 4e9},
        **{"other": 1e11, "L1": 3e11, "L2": 2e11, "L3": 1e11, "DRAM": 4e10},
        **{"L3_bytes": 1 << 25, "launch": 3e-6, "fresh": 2e10, "single": 1.0},
    }

    def host(name: str) -> Any:
        return described(measured)

    monkeypatch.setattr(cost_check, "machine", host)
    monkeypatch.setattr(cost_check, "FLUSHED_BYTES", 1 << 12)


@pytest.mark.usefixtures("small_host")
def test_predicted_times_beside_measured_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = ("softmax", {"n": 8, "d": 64}, "f32")
    monkeypatch.setattr(cost_check, "CASES", (case,))
    path = tmp_path / "out.md"
    arguments = ["check", "--budget", "0.001", "--only", "soft", "--out", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    cost_check.main()
    text = path.read_text()
    assert "median error" in text
    assert "| softmax f32, 8 64 |" in text
    assert text.strip() in capsys.readouterr().out


@pytest.mark.usefixtures("small_host")
def test_measured_forms_and_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    here = cost_check.machine("host")
    names = [name for name, _, _ in cost_check.CASES]
    assert {*names, *cost_check.BESIDE} <= set(PROGRAMS)
    monkeypatch.setattr(cost_check, "BESIDE", ())
    ((label, times),) = cost_check.check_fusion(here, 0.001, (64,))
    assert label == "attention 1 64 64"
    assert all(time > 0 for time in times)
    texts = ("j=procs,regs:1,lanes:4;p=chunk:8,regs:2", "p=chunk:4,regs:1,lanes:4")
    size = {"h": 1, "n": 32, "d": 8}
    monkeypatch.setattr(cost_check, "SCHEDULES", (("attention", size, texts),))
    rows, right, pairs = cost_check.check_schedules(here, 0.001)
    assert [row.name for row in rows] == [f"attention: `{text}`" for text in texts]
    assert 0 <= right <= pairs <= 1


@pytest.mark.usefixtures("small_host")
def test_too_many_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", "--threads", "4096"])
    with pytest.raises(SystemExit):
        cost_check.main()
    assert "--threads: expected 1 to" in capsys.readouterr().err


def test_times_recorded_on_a_gpu_are_predicted() -> None:
    """A few of them, which the model has no known miss for."""
    here = machine("h200")
    cases = ("softmax f32", "matmul bf16", "decode bf16, 4 16")
    rows = [row for case in cases for row in cost_check.recorded_rows(here, case)]
    assert len(rows) == 6
    assert max(row.error for row in rows) < 0.25
    assert "| case | predicted | measured |" in cost_check.rows_text(rows)


def test_schedules_by_hand_for_a_gpu_are_predicted() -> None:
    program = PROGRAMS["matmul"].at({}, "bf16")
    text = "j=grid,block:128;i=grid,warps:8,regs:2;p=chunk:64,stages:4,wgmma,tma"
    options = replace(program.options, schedule=text)
    given = replace(program, options=options).cost(machine("h200"))
    assert given.schedules == [text]
    # One for a CPU says nothing of it.
    options = replace(program.options, schedule="j=procs,regs:1,lanes:16")
    assert replace(program, options=options).cost(machine("h200")).schedules != [text]


def test_the_papers_formulas_are_of_attention_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside a softmax of n rows of d elements nothing of it is said to be the same."""
    text = run(capsys, "softmax", "--machine", "edge", "--paper")
    assert "as they are written" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("MoA, forward"))
    assert line.split("=")[1].split()[2:] == ["the", "result", "is", "left", "out"]
