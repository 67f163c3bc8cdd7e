"""moa-bench --target cuda: without a GPU, and in the emulator."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moa_dialect.errors import DeviceError
from moa_dialect.lowering import cuda_driver
from moa_dialect.tools import gpu_check
from moa_dialect.tools.bench import cli, cuda_suite
from moa_dialect.tools.bench.suites import SuiteError

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE", "0")


def cases(*names: str) -> list[gpu_check.Case]:
    return [case for case in gpu_check.CASES if case.name in names]


def no_driver() -> Any:
    raise DeviceError("no CUDA driver on this machine")


def test_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_driver, "driver", no_driver)
    assert cli.main(["all", "--target", "cuda"]) == 1
    said = capsys.readouterr().err
    assert "moa-bench: --target cuda: no CUDA driver on this machine; --emulate" in said


def test_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_driver, "driver", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["rows", "--target", "cuda"]) == 1
    assert "PyTorch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--emulate"], "--emulate: expected with --target cuda"),
        (["all", "--target", "cuda", "--n", "64"], "--n: not with --target cuda"),
        (["all", "--target", "cuda", "--kv-heads", "2"], "--kv-heads: not with"),
        (["all", "--target", "cuda", "--threads", "1"], "--threads: not with"),
        (["mlp", "--target", "cuda"], "unknown suite for a GPU: expected one of check"),
        (["all", "--target", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_what_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as found:
        cli.main(arguments)
    assert found.value.code == 2
    assert message in capsys.readouterr().err


def test_suites_have_every_case_once() -> None:
    """But those of causal attention, which are attention as well."""
    everything = cuda_suite.chosen_cases(["all", "experiments"])
    assert everything == gpu_check.CASES
    sizes = {name: len(cuda_suite.chosen_cases([name])) for name in cuda_suite.GROUPS}
    assert min(sizes.values()) > 0
    assert sum(sizes.values()) == len(everything)
    with pytest.raises(SuiteError, match="expected one of check, attention"):
        cuda_suite.chosen_cases(["vision"])


def test_in_the_emulator(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    total, *_ = cases("total")
    other = gpu_check.Case(
        "product",
        lambda moa: lambda a, b: a @ b,
        [(20, 8), (8, 12)],
        "float64",
        lambda torch, a, b: a @ b,
    )
    monkeypatch.setattr(cuda_suite, "CASES", [total, other])
    path = tmp_path / "results.json"
    arguments = ["check", "--target", "cuda", "--emulate", "--json", f"{path}"]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [
        ["ok", "total"],
        ["ok", "product"],
    ]
    assert "the emulator;" in lines[-1]
    document = json.loads(path.read_text())
    assert all("seconds" not in result for result in document["results"])


def test_results_that_are_one_number_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (total,) = cases("fast_total")
    small = replace(total, shapes=[(5000,)])
    wrong = replace(small, name="fast_wrong", reference=lambda torch, x: x.sum())
    monkeypatch.setattr(cuda_suite, "CASES", [small, wrong])
    monkeypatch.setattr(cuda_suite, "FOLDS", ("total", "wrong"))
    assert cli.main(["folds", "--target", "cuda", "--emulate"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["ok", "fast_total"]
    assert second.split()[:2] == ["FAIL", "fast_wrong"]


def test_what_is_wrong_and_what_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, right = cases("add", "total")
    wrong = gpu_check.Case(
        "wrong", right.program, right.shapes, right.dtype, lambda torch, x: x
    )
    schedule = "i=grid,warps:1,tma"
    fails = gpu_check.Case(
        "fails", other.program, other.shapes, "float32", other.reference,
        schedule=schedule,
    )  # fmt: skip
    monkeypatch.setattr(cuda_suite, "CASES", [wrong, fails])
    assert cli.main(["check", "--target", "cuda", "--emulate"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL wrong error")
    assert second.startswith("FAIL fails: CompileError: schedule: tma: expected rows")


class Events:
    """PyTorch's clock of a device: each call takes as long as its name says."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, list[str]()

    def of(self, name: str, takes: float) -> Any:
        def call() -> None:
            self.order.append(name)
            self.now += takes

        return call

    def module(self) -> Any:
        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = clock.now

            def elapsed_time(self, end: "Event") -> float:
                return 1e3 * (end.at - self.at)

        clock = self
        cuda = SimpleNamespace(Event=Event, synchronize=lambda: None)
        zeros = SimpleNamespace(zero_=lambda: self.order.append("flush"))
        return SimpleNamespace(cuda=cuda, uint8=None, empty=lambda *_, **__: zeros)


def test_contenders_have_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot do a case is left out; caches are cold before each sample."""
    clock = Events()

    def refuses() -> None:
        raise RuntimeError("no such head")

    peers = {"torch": clock.of("torch", 0.25), "cudnn": refuses}
    monkeypatch.setattr(gpu_check, "peers", lambda *_: peers)
    suite = cuda_suite.Suite(clock.module(), False, 2, 2, print)
    times = suite._times(cases("add")[0], clock.of("moa", 0.5), [])
    assert times == {"moa": 0.5, "torch": 0.25}
    turn = ["", "", "", "flush", "", "flush", ""]
    expected = [
        word or name for _ in range(2) for name in ("moa", "torch") for word in turn
    ]
    assert clock.order == expected


def test_a_line_of_the_report() -> None:
    result = {
        "name": "fast",
        "error": 1e-3,
        "limit": 2e-3,
        "correct": True,
        "operations": 2e12,
        "bytes": 0.0,
        "seconds": {"moa": 1e-2, "cudnn": 2e-2},
    }
    document = {
        "device": "a GPU",
        "date": "today",
        "rounds": 3,
        "versions": {"torch": "2"},
        "results": [result],
    }
    assert cuda_suite.report(document).splitlines() == [
        "ok   fast error 1.0e-03 of 2.0e-03; moa 10000.0 us (200.0 TFLOP/s), "
        "cudnn 20000.0 us (100.0 TFLOP/s)",
        "",
        "a GPU; today; 3 round(s); torch 2",
    ]
