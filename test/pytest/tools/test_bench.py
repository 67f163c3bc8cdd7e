"""`moa-bench` measures fairly, finds wrong results and says what went wrong."""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moa_dialect.tools.bench import cli, contenders, harness, peaks, report, worker
from moa_dialect.tools.bench.cases import TOLERANCES, Case, UnsupportedError, row_error
from moa_dialect.tools.bench.contenders import CONTENDERS, Contender
from moa_dialect.tools.bench.harness import Harness, Outcome, Result, groups_of
from moa_dialect.tools.bench.programs import PROGRAMS, AttentionSize, documents
from moa_dialect.tools.bench.suites import ALL, SUITES, SuiteError

TINY: dict[str, Any] = {"n": 9, "d": 4, "heads": 2}


def attention(dtype: str = "f64", **size: Any) -> Case:
    return Case("attention", "attention", dtype, {**TINY, **size})


def increment(*names: str, suite: str = "compile") -> Case:
    return Case(suite, "increment", "f64", {}, 1, "time", names)


# Statistics


def test_best_and_median_of_rounds():
    result = Result(increment(), "a")
    for samples in ([3.0, 5.0, 4.0], [1.0, 9.0, 9.0, 9.0], [2.0]):
        result.take({"status": "ok", "build_s": 1.0, "error": 0.0, "samples": samples})
    assert result.best == 1.0
    assert result.median == 4.0  # of 4, 9 and 2
    assert result.samples == [3.0, 5.0, 4.0, 1.0, 9.0, 9.0, 9.0, 2.0]


def test_a_round_that_is_wrong_counts_for_all():
    result = Result(increment(), "a")
    result.take({"status": "ok", "build_s": 1.0, "error": 0.0, "samples": [1.0]})
    result.take({"status": "wrong", "reason": "so", "error": 0.5})
    assert (result.status, result.reason, result.error) == ("wrong", "so", 0.5)
    assert result.rounds == []


def test_error_is_the_worst_row():
    expected = np.array([[3.0, 4.0], [30.0, 40.0]])
    assert row_error(expected + np.array([[0.0, 0.5], [0.0, 0.0]]), expected) == 0.1
    assert row_error(np.array([1.0, math.nan]), np.ones(2)) == math.inf
    # A row of zeros is measured by the others.
    expected = np.array([[0.0], [10.0]])
    floor = 0.1 * math.sqrt(50)
    given = np.array([[0.1], [10.0]])
    assert row_error(given, expected) == pytest.approx(0.1 / floor)


def test_error_of_another_shape():
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got \(3,\)"):
        row_error(np.ones(3), np.ones(2))


def test_samples_of_short_calls_are_means(monkeypatch: pytest.MonkeyPatch):
    now, calls = 0.0, 0

    def call() -> None:
        nonlocal now, calls
        now += 1e-5
        calls += 1

    monkeypatch.setattr(worker.time, "perf_counter", lambda: now)
    samples = worker.time_calls(call, 1e-3, flush=False)
    assert samples == pytest.approx([1e-5] * len(samples))
    assert len(samples) >= worker.MIN_CALLS
    assert calls == 1 + 20 * len(samples)


# In turn


class FakeRunner:
    """Stands in for processes: notes who had a turn, and gives prepared answers."""

    def __init__(self, outcomes: Mapping[str, list[Outcome]] | None = None) -> None:
        self.turns: list[str] = []
        self.jobs: list[int] = []
        self.outcomes = {name: list(left) for name, left in (outcomes or {}).items()}

    def __call__(
        self, request: dict[str, Any], timeout_s: float, environment: Mapping[str, str]
    ) -> Outcome:
        if request["kind"] == "reference":
            return Outcome([{"status": "ok"} for _ in request["jobs"]])
        name = request["factory"]
        self.turns.append(name)
        self.jobs.append(len(request["jobs"]))
        if self.outcomes.get(name):
            return self.outcomes[name].pop(0)
        return Outcome([ok(1.0) for _ in request["jobs"]])


def ok(*samples: float) -> dict[str, Any]:
    return {"status": "ok", "error": 0.0, "build_s": 0.5, "samples": list(samples)}


def some(*names: str, **options: Any) -> dict[str, Contender]:
    return {name: Contender(name, name, **options) for name in names}


def test_contenders_have_their_turns():
    run = FakeRunner()
    Harness(some("a", "b"), rounds=3, run=run).measure([increment("a", "b")])
    assert run.turns == ["a", "b", "a", "b", "a", "b"]


def test_rounds_are_kept_apart():
    run = FakeRunner({"a": [Outcome([ok(2.0, 3.0)]), Outcome([ok(1.0)])]})
    (result,) = Harness(some("a"), rounds=2, run=run).measure([increment("a")])
    assert result.rounds == [[2.0, 3.0], [1.0]]


def test_a_wrong_one_is_not_timed_again():
    wrong = {"status": "wrong", "reason": "relative error 1", "error": 1.0}
    run = FakeRunner({"a": [Outcome([wrong])]})
    a, b = Harness(some("a", "b"), rounds=2, run=run).measure([increment("a", "b")])
    assert run.turns == ["a", "b", "b"]
    assert (a.status, a.rounds) == ("wrong", [])
    assert b.status == "ok"


def test_the_cases_after_a_crash_are_measured():
    run = FakeRunner({"a": [Outcome([ok(1.0)], "killed by SIGSEGV")]})
    cases = [increment("a"), increment("a"), increment("a")]
    results = Harness(some("a"), rounds=1, run=run).measure(cases)
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].reason == "killed by SIGSEGV"
    assert run.jobs == [3, 1]


def test_a_missing_peer_has_no_turn():
    missing = some("b", packages=("no_such_package",), install="pip install it")
    run = FakeRunner()
    _, b = Harness(some("a") | missing, rounds=1, run=run).measure(
        [increment("a", "b")]
    )
    assert run.turns == ["a"]
    assert b.status == "missing"
    assert b.reason == "no_such_package is not installed; pip install it"


def test_a_peer_without_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert CONTENDERS["torch-flex"].missing().startswith("no C++ compiler found")
    assert CONTENDERS["torch-sdpa"].missing() == ""


def test_who_leaves_nothing_on_disk():
    case = Case("compile", "increment", "f64", {}, 1, "cached-build", ("a", "b"))
    run = FakeRunner()
    who = some("a", has_cache=True) | some("b")
    results = Harness(who, rounds=2, run=run).measure([case])
    assert run.turns == ["a"]
    for result in results:
        assert (result.status, result.reason) == (
            "unsupported",
            "keeps no cache on disk",
        )


@pytest.mark.parametrize("metric", ["build", "cached-build"])
def test_caches_are_new_or_those_of_the_rounds_before(metric: Any):
    folders: list[str] = []

    def run(request: Any, timeout_s: float, environment: Mapping[str, str]) -> Outcome:
        if request["kind"] == "measure":
            folder = Path(environment["XDG_CACHE_HOME"])
            if metric == "build" or not folders:
                assert list(folder.iterdir()) == []
            (folder / "kernel").write_text("")
            folders.append(str(folder))
        return Outcome([ok(1.0)])

    case = Case("compile", "increment", "f64", {}, 1, metric, ("a",))
    who = some("a", has_cache=True)
    (result,) = Harness(who, rounds=3, run=run).measure([case])
    assert len(result.rounds) == 3
    if metric == "build":
        assert len(set(folders)) == len(folders) == 3
    else:  # one turn more than is counted, to fill it
        assert len(set(folders)) == 1
        assert len(folders) == 4


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset"
)
def test_memory_of_a_call_is_that_of_its_peak():
    before = np.ones(2**26, np.uint8)  # a peak of its own, which does not count
    del before

    def call() -> int:
        return int(np.ones(2**25, np.uint8)[::4096].sum())

    extra, result = worker.extra_memory(call)
    assert result == 2**13
    assert 2**25 - 2**20 <= extra < 2**25 + 2**23  # a page more or less is noise


def test_no_reference_is_an_error():
    def run(*_: Any) -> Outcome:
        return Outcome([], "killed by SIGKILL")

    with pytest.raises(harness.BenchError, match="the reference: killed by SIGKILL"):
        Harness(some("a"), run=run).measure([increment("a")])
    with pytest.raises(harness.BenchError, match="the peaks: killed by SIGKILL"):
        Harness(some("a"), run=run).peaks([1])


def test_cheap_cases_share_a_process():
    cheap = [attention() for _ in range(harness.GROUP_CASES + 1)]
    assert [len(group) for group in groups_of(cheap)] == [harness.GROUP_CASES, 1]
    large = Case("attention", "attention", "f32", {"n": 2**14, "d": 64})
    assert [len(group) for group in groups_of([cheap[0], large, cheap[0]])] == [1, 1, 1]
    memory = Case("memory", "attention", "f32", TINY, 1, "memory")
    assert [len(group) for group in groups_of([memory, memory])] == [1, 1]


# Processes

FAKES = """\
import os, time
import numpy as np
from moa_dialect.tools.bench.cases import UnsupportedError
from moa_dialect.tools.bench.contenders import Built

def good(case, inputs, threads):
    print("noise that is no answer")
    return Built(lambda: inputs["x"] + 1)

def wrong(case, inputs, threads):
    return Built(lambda: inputs["x"] + 2)

def raising(case, inputs, threads):
    raise RuntimeError("first line\\nsecond line")

def unable(case, inputs, threads):
    raise UnsupportedError("not today")

def crashing(case, inputs, threads):
    os.abort()

def hanging(case, inputs, threads):
    time.sleep(60)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Contender]:
    """Contenders that behave as they are called."""
    (tmp_path / "bench_fakes.py").write_text(FAKES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ("good", "wrong", "raising", "unable", "crashing", "hanging")
    return {name: Contender(name, f"bench_fakes:{name}") for name in names}


def test_processes(fakes: dict[str, Contender]):
    names = ("good", "wrong", "raising", "unable", "crashing")
    who = {name: fakes[name] for name in names}
    results = Harness(who, rounds=1, budget_s=0.01).measure([increment(*names)])
    found = {result.contender: result for result in results}
    assert found["good"].status == "ok"
    assert found["good"].error == 0.0
    assert found["good"].best > 0
    assert len(found["good"].samples) >= worker.MIN_CALLS
    assert {n: (r.status, r.reason) for n, r in found.items() if n != "good"} == {
        "wrong": ("wrong", "relative error 1, at most 1e-12 is right"),
        "raising": ("failed", "RuntimeError: first line"),
        "unable": ("unsupported", "not today"),
        "crashing": ("failed", "killed by SIGABRT"),
    }


def test_a_process_that_hangs_is_killed(fakes: dict[str, Contender]):
    case = increment("hanging").to_json()
    request = {
        "kind": "measure",
        "threads": 1,
        "jobs": [{"case": case, "reference": ""}],
        "budget_s": 0.01,
        "factory": fakes["hanging"].factory,
        "imports": "",
        "compiles_at_call": False,
    }
    outcome = harness.run_process(request, 3.0, {})
    assert outcome == Outcome([], "killed after 3 s")


# Programs

SIZES: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"window": 3},
    {"causal": True, "window": 3},
    {"m": 5, "e": 3},
    {"m": 12, "causal": True},
    {"heads": 4, "kv_heads": 2},
    *({"variant": variant} for variant in ("alibi", "softcap", "document", "bias")),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_visited_work_is_what_the_mask_leaves(size: dict[str, Any]):
    case = attention(**size)
    extents = AttentionSize.of(case)
    mask = extents.visible(np.arange(extents.n))
    pairs = extents.n * extents.m if mask is None else int(mask.sum())
    assert extents.pairs == pairs
    flops = 2 * extents.heads * pairs * (extents.d + extents.e)
    assert PROGRAMS["attention"].work(case).flops == flops


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """Contenders turn gradients off, for good: they have a process of their own."""
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    torch = sys.modules.get("torch")
    if torch:
        torch.set_grad_enabled(True)
        torch.set_num_threads(before or torch.get_num_threads())


def result_of(build: Any, case: Case) -> tuple[float, float]:
    """The error of what a contender gives, and what is allowed."""
    program = PROGRAMS[case.program]
    inputs = program.inputs(case)
    built = build(case, inputs, 1)
    expected = program.reference(case, inputs, None)
    error = row_error(np.asarray(built.output(built.call())), expected)
    return error, TOLERANCES[case.dtype]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_moa_computes_the_reference(size: dict[str, Any]):
    error, limit = result_of(contenders.moa_build, attention(**size))
    assert error <= limit


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("build", [contenders.sdpa_build, contenders.torch_build])
def test_torch_computes_the_reference(build: Any, size: dict[str, Any]):
    case = attention(**size)
    if build is contenders.sdpa_build and size.get("variant") == "softcap":
        with pytest.raises(UnsupportedError, match="no soft cap"):
            result_of(build, case)
        return
    error, limit = result_of(build, case)
    assert error <= limit


@pytest.mark.parametrize("name", [*PROGRAMS])
def test_programs_other_than_attention(name: str):
    size = {"rows": 6, "columns": 8} if name not in ("matmul", "increment") else {}
    case = Case("", name, "f64", {"n": 5} if name == "matmul" else size)
    if name != "attention":
        for build in (contenders.moa_build, contenders.torch_build):
            error, limit = result_of(build, case)
            assert error <= limit


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_other_dtypes(dtype: str):
    for case in (attention(dtype), Case("", "matmul", dtype, {"n": 6})):
        for build in (contenders.moa_build, contenders.torch_build):
            error, limit = result_of(build, case)
            assert error <= limit


def test_one_query_of_grouped_heads_as_rows():
    case = attention(heads=4, kv_heads=2, n=1, m=6)
    error, limit = result_of(contenders.sdpa_rows_build, case)
    assert error <= limit
    with pytest.raises(UnsupportedError, match="no grouped heads"):
        result_of(contenders.sdpa_rows_build, attention(heads=4, kv_heads=2))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [*SIZES, {"heads": 4, "kv_heads": 2, "n": 1}], ids=str)
def test_peers_compute_the_reference(name: str, size: dict[str, Any]):
    if reason := CONTENDERS[name].missing():
        pytest.skip(reason)
    build, case = worker.load(CONTENDERS[name].factory), attention("f32", **size)
    reasons = {"softcap": "no soft cap", 2: "no grouped heads"}
    key = size.get("variant") or (size.get("kv_heads") if "n" not in size else None)
    if key in reasons:
        with pytest.raises(UnsupportedError, match=reasons[key]):
            result_of(build, case)
        return
    error, limit = result_of(build, case)
    assert error <= limit


def test_dtypes_that_peers_do_not_have():
    for build, dtype, reason in (
        (contenders.flex_build, "f64", "FlexAttention has no f64 on the CPU"),
        (contenders.onnxruntime_build, "bf16", "MultiHeadAttention has no bf16"),
        (contenders.openvino_build, "f64", "does not compute in f64"),
        (contenders.numpy_build, "bf16", "no function for attention"),
    ):
        with pytest.raises(UnsupportedError, match=reason):
            result_of(build, attention(dtype))


def test_scores_that_would_fill_memory():
    case = attention(n=2**14, m=2**14)
    with pytest.raises(UnsupportedError, match=r"would store 4\.0 GiB of scores"):
        contenders.torch_build(case, PROGRAMS["attention"].inputs(case), 1)


def test_rows_of_a_large_case_are_a_sample():
    rows = PROGRAMS["attention"].rows(attention(n=2**14, heads=8))
    assert rows is not None
    assert (rows[0], rows[-1]) == (0, 2**14 - 1)
    assert len(set(rows)) == len(rows) == 512
    assert PROGRAMS["attention"].rows(attention()) is None


def test_a_sample_of_rows_is_the_same_as_in_all():
    case = attention(variant="document")
    program = PROGRAMS["attention"]
    inputs, rows = program.inputs(case), np.array([0, 3, 8])
    some_rows = program.reference(case, inputs, rows)
    np.testing.assert_allclose(
        some_rows, program.reference(case, inputs, None)[:, rows], rtol=1e-14
    )


def test_documents_cover_all_places():
    assert sorted(set(documents(64))) == list(range(8))
    assert (np.diff(documents(100)) >= 0).all()


# Peaks


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_multiply_adds_are_computed(dtype: str):
    multiplier = peaks.Multiplier.of(dtype, peaks.host.features(), 10)
    assert multiplier is not None
    memory = peaks.aligned(256).view(peaks.DTYPES[dtype])
    memory.fill(0.5)
    peaks.compile_kernel(multiplier.text())(memory)
    chains = peaks.ACCUMULATORS
    expected = sum(range(chains)) + chains * 10 * 0.25
    assert (memory[: multiplier.lanes] == expected).all()
    assert multiplier.flops == 2 * multiplier.lanes * chains * 10


def test_bf16_needs_an_instruction():
    assert peaks.Multiplier.of("bf16", "+avx2,+fma", 1) is None
    wide = peaks.Multiplier.of("bf16", "+avx512f,+avx512bf16", 1)
    assert wide is not None
    assert wide.flops == 2 * 2 * 16 * peaks.ACCUMULATORS


@pytest.mark.parametrize("nontemporal", [False, True])
def test_stream_copies(nontemporal: bool):
    lanes = 4
    half = 2 * lanes * peaks.UNROLLED
    memory = peaks.aligned(8 * half).view(np.int32)
    memory[:] = np.arange(2 * half)
    peaks.compile_kernel(peaks.stream_text(lanes, True, nontemporal))(memory)
    assert (memory[:half] == memory[half:]).all()
    assert memory[0] == half


def test_stream_reads_everything():
    lanes = 4
    count = 3 * lanes * peaks.UNROLLED
    memory = peaks.aligned(4 * count).view(np.int32)
    memory[:] = np.random.default_rng(0).integers(0, 2**30, count)
    expected = np.bitwise_xor.reduce(memory.reshape(-1, lanes), axis=0)
    peaks.compile_kernel(peaks.stream_text(lanes, False))(memory)
    assert (memory[:lanes] == expected).all()


def test_peaks_of_the_machine():
    found = peaks.measure_peaks(1, 0.001, 2**22)
    assert {"f32", "f64", "read", "copy"} <= set(found)
    assert all(value > 0 for value in found.values())


# Suites


def test_every_contender_and_program_exists():
    for name, suite in SUITES.items():
        for quick in (False, True):
            cases = suite.cases({}, (), 2, quick)
            assert cases, name
            assert len({(case.label, case.threads) for case in cases}) == len(cases)
            for case in cases:
                assert set(case.contenders) <= set(CONTENDERS)
                assert PROGRAMS[case.program].work(case).flops >= 0
                assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case
    assert {*ALL, "attention"} == set(SUITES)


def test_values_in_place_of_the_suite_s_own():
    given = {"n": (8, 16), "causal": (True,), "d": (4,)}
    cases = SUITES["attention"].cases(given, (1,), 2)
    assert [case.size["n"] for case in cases] == [8, 16]
    assert {(case.size["causal"], case.size["d"]) for case in cases} == {(True, 4)}


def test_attention_may_be_given_other_sizes_than_it_has():
    given = {"n": (8,), "m": (5,), "kv_heads": (2,), "window": (3,), "e": (7,)}
    case, *_ = SUITES["attention"].cases(given, (1,), 2)
    assert {name: (case.size[name],) for name in given} == given


def test_a_query_without_a_key_is_0_in_the_reference():
    case = attention(n=8, m=3, causal=True, window=2)
    program = PROGRAMS["attention"]
    found = program.reference(case, program.inputs(case), None)
    assert np.isfinite(found).all()
    assert (np.abs(found).sum(axis=(0, 2)) == 0).tolist() == [False] * 4 + [True] * 4


def test_threads_of_the_scaling():
    cases = SUITES["scaling"].cases({"n": (8,)}, (), 6)
    assert [case.threads for case in cases] == [1, 2, 4, 6]


def test_an_axis_that_a_suite_has_not():
    with pytest.raises(SuiteError, match="suite rows has no --d; it has --program"):
        SUITES["rows"].cases({"d": (4,)}, (), 2)
    with pytest.raises(
        SuiteError, match=r"has no --e; it has .*, --kv-heads, --n, --m$"
    ):
        SUITES["decode"].cases({"e": (4,)}, (), 2)


# Reports


def document(results: list[Result], found: dict[str, Any]) -> report.Document:
    return {
        "format": report.FORMAT,
        "date": "2026-01-01",
        "machine": {"cpu": "A", "llvm_cpu": "b", "cores": 2, "system": "C"},
        "versions": {"moa": "1"},
        "options": {"rounds": 1},
        "peaks": found,
        "results": report.entries_of(results, found),
    }


def timed(case: Case, name: str, *samples: float) -> Result:
    return Result(case, name, error=0.0, build_s=[1.0], rounds=[list(samples)])


def test_rates_and_ratios():
    case = attention("f32")
    flops = PROGRAMS["attention"].work(case).flops
    results = [
        timed(case, "moa", flops / 4e9),
        timed(case, "torch-sdpa", flops / 1e9, flops / 2e9),
        Result(case, "openvino", "missing", "not installed"),
    ]
    ours, peer, missing = report.entries_of(results, {"1": {"f32": 8.0}})
    assert ours["gflop_per_s"] == pytest.approx(4.0)
    assert ours["of_peak"] == pytest.approx(0.5)
    assert ours["of_best_peer"] == pytest.approx(2.0)
    assert peer["of_best_peer"] == 1.0
    assert "best" not in missing


def test_bandwidth_is_compared_with_its_peak():
    case = Case("rows", "softmax", "f32", {"rows": 1000, "columns": 1000})
    (entry,) = report.entries_of([timed(case, "moa", 8e-3)], {"1": {"copy": 4.0}})
    assert entry["gb_per_s"] == pytest.approx(1.0)
    assert entry["of_peak"] == pytest.approx(0.25)


def test_a_variant_is_compared_with_plain():
    plain, other = attention(variant="plain"), attention(variant="document")
    work = PROGRAMS["attention"].work
    results = [
        timed(plain, "moa", work(plain).flops / 4e9),
        timed(other, "moa", work(other).flops / 1e9),
    ]
    first, second = report.entries_of(results, {})
    assert (first["of_plain"], second["of_plain"]) == pytest.approx((1.0, 0.25))


def test_table():
    case = attention("f32")
    results = [
        timed(case, "moa", 0.25, 0.5),
        Result(case, "openvino", "missing", "not | installed"),
    ]
    made = document(results, {"1": {"f32": 8.0, "read": 20.0}})
    text = report.table_text(made)
    assert re.search(r"f32 n=9 d=4 heads=2 +1 +moa +250 +375 ", text)
    assert re.search(r"openvino( +-)+ +missing: not \| installed", text)
    assert re.search(r"threads +f32 GFLOP/s +read GB/s\n-+\n +1 +8 +20\n", text)
    markdown = report.table_text(made, markdown=True)
    assert "| f32 n=9 d=4 heads=2 | 1 | moa | 250 | 375 |" in markdown
    assert "missing: not \\| installed |" in markdown


def test_plot(tmp_path: Path):
    results = [timed(attention(n=n), "moa", 1.0) for n in (8, 16, 32)]
    results.append(timed(increment(), "moa", 1.0))
    made = document(results, {"1": {"f64": 1.0}})
    if find_spec("matplotlib") is None:
        with pytest.raises(harness.BenchError, match="a plot needs matplotlib; pip"):
            report.save_plot(made, tmp_path / "a.svg")
        return
    report.save_plot(made, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    with pytest.raises(harness.BenchError, match="nothing was measured"):
        report.save_plot(document([], {}), tmp_path / "a.svg")


# Command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a suite, or --from FILE"),
        (["rows", "--from", "a.json"], "expected a suite, or --from FILE"),
        (["sorting"], "unknown suite: expected one of attention, "),
        (["rows", "--n", "4"], "suite rows has no --n; it has --program, --dtype"),
        (["rows", "--n", "0"], "expected a number above 0, got 0"),
        (["rows", "--budget", "nan"], "expected seconds above 0, got nan"),
        (["rows", "--dtype", "f8"], "expected one of f64, f32, bf16, f16, got f8"),
        (["rows", "--threads", "9999"], "--threads: expected at most "),
        (["rows", "--contenders", "numpy"], "no case has numpy among its contenders"),
        (["decode", "--kv-heads", "5"], "--kv-heads: expected a divisor of 32, got 5"),
    ],
)
def test_bad_command_lines(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_files_that_are_at_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def message(*arguments: str | Path) -> str:
        assert cli.main([str(argument) for argument in arguments]) == 1
        return capsys.readouterr().err.strip()

    none, other = tmp_path / "none.json", tmp_path / "other.json"
    other.write_text("[1]")
    assert message("--from", none) == f"moa-bench: {none}: No such file or directory"
    assert message("--from", other) == (
        f"moa-bench: {other}: not a file that --json wrote"
    )
    for text in ('{"format": 1, "results": 3}', '{"format": 1, "results": [{}]}'):
        other.write_text(text)
        assert message("--from", other).endswith("not a file that --json wrote")
    plot = tmp_path / "none" / "a.png"
    assert message("rows", "--plot", plot) == f"moa-bench: {plot}: no such folder"
    if find_spec("matplotlib") is not None:
        plot = tmp_path / "a.foo"
        assert "a.foo: expected a name that ends with one of ." in message(
            "rows", "--plot", plot
        )


def test_list(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--list"]) == 0
    text = capsys.readouterr().out
    for name in (*SUITES, *CONTENDERS):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_peaks_are_the_better_of_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = [{"1": {"f32": 4.0, "read": 1.0}}, {"1": {"f32": 3.0, "read": 2.0}}]

    def nothing(self: Harness, cases: Any) -> list[Result]:
        return []

    monkeypatch.setattr(Harness, "peaks", lambda self, threads: found.pop(0))  # pyright: ignore
    monkeypatch.setattr(Harness, "measure", nothing)
    saved = tmp_path / "a.json"
    assert cli.main(["rows", "--threads", "1", "--json", str(saved)]) == 0
    assert json.loads(saved.read_text())["peaks"] == {"1": {"f32": 4.0, "read": 2.0}}


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved = tmp_path / "a.json"
    arguments = ["attention", "--n", "8", "--d", "4", "--heads", "2", "--causal"]
    arguments += ["--contenders", "moa", "--rounds", "1", "--budget", "0.001"]
    arguments += ["--threads", "1", "--no-peaks", "--json", str(saved)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"f32 d=4 causal heads=2 n=8 +1 +moa +[\d.e-]+", text)
    kept = json.loads(saved.read_text())
    (entry,) = kept["results"]
    assert (entry["status"], entry["contender"]) == ("ok", "moa")
    assert entry["best"] == min(min(samples) for samples in entry["rounds"])
    assert {"cpu", "cores", "load_before"} <= set(kept["machine"])
    assert {"moa", "python", "numpy"} <= set(kept["versions"])
    assert cli.main(["--from", str(saved)]) == 0
    assert capsys.readouterr().out == text
