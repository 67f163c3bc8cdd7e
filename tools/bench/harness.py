"""Running contenders in turn, each in processes of its own, and what comes of it."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from moa_dialect.tools.bench.cases import Case
from moa_dialect.tools.bench.contenders import Contender
from moa_dialect.tools.bench.programs import PROGRAMS

Request: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables that bound the threads of libraries."""

GROUP_FLOPS = 1e11
GROUP_CASES = 12
"""A process takes several cases if they are cheap: so many operations together."""


class BenchError(Exception):
    """Nothing can be measured. The message is one line."""


@dataclass(frozen=True)
class Outcome:
    """What a process did.

    Attributes:
        answers: one for each job, or fewer if it ended early.
        failure: why it ended early, or nothing.
    """

    answers: list[Answer]
    failure: str = ""


Runner: TypeAlias = Callable[[Request, float, Mapping[str, str]], Outcome]


def run_process(
    request: Request, timeout_s: float, environment: Mapping[str, str]
) -> Outcome:
    """Let a fresh process do a request, and wait for it to end.

    Args:
        request: what the worker reads.
        timeout_s: after which it is killed, with its children.
        environment: variables on top of this process's.
    """
    threads = dict.fromkeys(THREADS, str(request["threads"]))
    command = [sys.executable, "-m", "moa_dialect.tools.bench.worker"]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, **threads, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        failure = ""
        try:
            output, _ = process.communicate(json.dumps(request), timeout_s)
        except subprocess.TimeoutExpired:
            _kill_session(process)
            output, _ = process.communicate()
            failure = f"killed after {timeout_s:.0f} s"
        except BaseException:
            _kill_session(process)
            process.wait()
            raise
        errors.seek(0)
        failure = failure or _failure(process.returncode, errors.read())
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return Outcome([json.loads(line) for line in lines], failure)


def _kill_session(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _failure(code: int, errors: str) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        return (lines or [f"exit status {code}"])[-1][:300]
    return ""


@dataclass
class Result:
    """What was measured of a contender on a case.

    Attributes:
        case: the case.
        contender: who.
        status: `ok`; or `wrong`, `failed`, `unsupported` or `missing`, with a reason.
        reason: why there is no time.
        error: the largest relative error of a row.
        build_s: for each round, seconds from the program to the first result.
        rounds: for each round the samples, in seconds; for memory in bytes.
    """

    case: Case
    contender: str
    status: str = "ok"
    reason: str = ""
    error: float | None = None
    build_s: list[float] = field(default_factory=list[float])
    rounds: list[list[float]] = field(default_factory=list[list[float]])

    @property
    def samples(self) -> list[float]:
        """All samples."""
        return [sample for samples in self.rounds for sample in samples]

    @property
    def best(self) -> float:
        """The least sample."""
        return min(self.samples)

    @property
    def median(self) -> float:
        """The median of the rounds' medians: rounds count equally."""
        return statistics.median(map(statistics.median, self.rounds))

    def take(self, answer: Answer) -> None:
        """Add what one round gave; one that went wrong counts for all."""
        self.status, self.reason = answer["status"], answer.get("reason", "")
        if "error" in answer:
            self.error = max(self.error or 0.0, answer["error"])
        if self.status != "ok":
            self.rounds.clear()
            return
        self.build_s.append(answer["build_s"])
        self.rounds.append(answer["samples"])


def groups_of(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """The cases in groups of which a process measures one after the other."""
    group: list[Case] = []
    flops = 0.0
    for case in cases:
        cost = PROGRAMS[case.program].work(case).flops
        is_alone = case.metric != "time"
        if group and (
            is_alone
            or group[-1].metric != "time"
            or (group[-1].threads, group[-1].contenders)
            != (case.threads, case.contenders)
            or flops + cost > GROUP_FLOPS
            or len(group) == GROUP_CASES
        ):
            yield group
            group, flops = [], 0.0
        group.append(case)
        flops += cost
    if group:
        yield group


@dataclass
class Harness:
    """Measures cases.

    Attributes:
        contenders: who takes part, by name.
        rounds: how often each has its turn.
        budget_s: how long a case is timed in a round, in seconds.
        timeout_s: how long a case may take in a round altogether, in seconds.
        run: runs a process.
        say: is told what is going on.
    """

    contenders: Mapping[str, Contender]
    rounds: int = 5
    budget_s: float = 0.3
    timeout_s: float = 300.0
    run: Runner = run_process
    say: Callable[[str], None] = lambda message: None

    def measure(self, cases: Sequence[Case]) -> list[Result]:
        """Measure cases, all contenders of a case in turn, round after round.

        Raises:
            BenchError: if a reference cannot be computed.
        """
        results: list[Result] = []
        with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
            for number, group in enumerate(groups_of(cases)):
                here = Path(folder, str(number))
                here.mkdir()
                results += self._measure_group(group, here)
        return results

    def peaks(self, threads: Sequence[int]) -> dict[str, dict[str, float]]:
        """The peaks of the machine, for each number of threads.

        Raises:
            BenchError: if they cannot be measured.
        """
        found: dict[str, dict[str, float]] = {}
        for count in threads:
            self.say(f"peaks with {count} thread(s)")
            request = self._request("peaks", count, [{}])
            outcome = self.run(request, self.timeout_s, {})
            if len(outcome.answers) != 1:
                raise BenchError(f"the peaks: {outcome.failure}")
            found[str(count)] = outcome.answers[0]
        return found

    def _request(self, kind: str, threads: int, jobs: list[Any]) -> Request:
        return {
            "kind": kind,
            "threads": threads,
            "jobs": jobs,
            "budget_s": self.budget_s,
        }

    def _measure_group(self, group: Sequence[Case], folder: Path) -> list[Result]:
        threads = group[0].threads
        jobs: list[Any] = [
            {"case": case.to_json(), "reference": str(folder / f"{number}.npz")}
            for number, case in enumerate(group)
        ]
        names = [name for name in group[0].contenders if name in self.contenders]
        results = {name: [Result(case, name) for case in group] for name in names}
        for name in names:
            if reason := self.contenders[name].missing():
                for result in results[name]:
                    result.status, result.reason = "missing", reason
        self.say(f"{group[0].suite}: reference of {len(group)} case(s)")
        outcome = self.run(
            self._request("reference", threads, jobs), self.timeout_s * len(jobs), {}
        )
        if len(outcome.answers) != len(jobs):
            raise BenchError(f"the reference: {outcome.failure or 'no answer'}")
        if group[0].metric == "cached-build":
            for name in names:
                self._fill_cache(results[name], jobs, folder)
        for number in range(self.rounds):
            for name in names:
                self._round(number, results[name], jobs, folder)
        in_order = [results[name][k] for k in range(len(group)) for name in names]
        for job in jobs:
            Path(job["reference"]).unlink(missing_ok=True)
        return in_order

    def _fill_cache(self, results: list[Result], jobs: list[Any], folder: Path) -> None:
        """One round that is not counted, for what it leaves on disk."""
        (result,) = results
        if result.status != "ok":
            return
        nothing = "unsupported", "keeps no cache on disk"
        if not self.contenders[result.contender].has_cache:
            result.status, result.reason = nothing
            return
        first = Result(result.case, result.contender)
        self._round(0, [first], jobs, folder)
        if first.status != "ok":
            result.status, result.reason = first.status, first.reason
        elif not any(path.is_file() for path in _cache(folder, result).rglob("*")):
            result.status, result.reason = nothing

    def _round(
        self, number: int, results: list[Result], jobs: list[Any], folder: Path
    ) -> None:
        """One turn of a contender, on the cases it has not failed."""
        contender = self.contenders[results[0].contender]
        left = [
            (result, job)
            for result, job in zip(results, jobs, strict=True)
            if result.status == "ok"
        ]
        while left:
            case = left[0][0].case
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            self.say(
                f"{case.suite}: round {number + 1} of {self.rounds}, "
                f"{contender.name}, {case.label}{more}"
            )
            request = self._request("measure", case.threads, [job for _, job in left])
            request |= {
                "factory": contender.factory,
                "imports": contender.imports,
                "compiles_at_call": contender.needs_compiler,
            }
            with tempfile.TemporaryDirectory(prefix="moa-bench-cache-") as fresh:
                outcome = self.run(
                    request,
                    self.timeout_s * len(left),
                    _environment(left[0][0], fresh, folder),
                )
            for (result, _), answer in zip(left, outcome.answers, strict=False):
                result.take(answer)
            left = left[len(outcome.answers) :]
            if left:  # the process ended in the first of these
                reason = outcome.failure or "ended without an answer"
                left[0][0].take({"status": "failed", "reason": reason})
                left = left[1:]


def _cache(folder: Path, result: Result) -> Path:
    return folder / f"cache-{result.contender}"


def _environment(result: Result, fresh: str, folder: Path) -> dict[str, str]:
    """The variables for a process that measures a case.

    Where building is measured, caches are in a folder of their own: a new one each
    time, or one that the rounds of a contender share.
    """
    variables = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if result.case.metric not in ("build", "cached-build"):
        return variables
    cache = Path(fresh)
    if result.case.metric == "cached-build":
        cache = _cache(folder, result)
        cache.mkdir(exist_ok=True)
    return variables | {
        "XDG_CACHE_HOME": str(cache),
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "MOA_BENCH_CACHE": str(cache),
    }
