"""Schedules are chosen by the time that the cost model predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.cost import CostMachine, machine
from moa_dialect.cost.estimate import Estimator
from moa_dialect.cost.machines import FOLDER
from moa_dialect.cost.programs import Program
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, Kernel, read_kernel
from moa_dialect.passes.lift import LiftPass, choose, weighed
from moa_dialect.passes.machine import MACHINES, machine_like, machine_named
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import parse_schedule


def attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def plus_one(a: Any) -> Any:
    return a + 1.0


softmax = moa.library.softmax

CASES: list[tuple[Callable[..., Any], list[tuple[int, ...]]]] = [
    (attention, [(2, 256, 16)] * 3),
    (causal, [(128, 16)] * 3),
    (attention, [(8, 1, 16), (2, 128, 16), (2, 128, 16)]),
    (matmul, [(96, 128), (128, 80)]),
    (softmax, [(64, 1024)]),
    (moa.library.layernorm, [(16, 200)]),
    (plus_one, [(33, 70)]),
]


def compiled(
    function: Callable[..., Any], shapes: list[tuple[int, ...]], **options: Any
) -> Any:
    specs = [moa.ArraySpec(shape, "f32") for shape in shapes]
    return moa.jit(function, **options).lower(*specs)


def kernel_of(program: Program) -> Kernel:
    function = functions_of(program.at("fused"))[0]
    (op,) = comprehensions(function)
    return read_kernel(op, function)


@pytest.mark.parametrize(
    ("case", "name"),
    [(2, "avx2"), (2, "server-x86"), (3, "server-x86"), (4, "edge"), (6, "neon")],
)
def test_the_chosen_schedule_has_the_least_predicted_time(case: int, name: str) -> None:
    """No candidate has a lower `Compiled.cost()` than the one that is chosen."""
    here = machine(name).limited(1)
    found = compiled(*CASES[case])
    chosen = found.cost(here)
    rows = found.program().schedules(here)
    assert len(rows) > 1
    (text,) = chosen.schedules
    assert text in dict(rows)
    assert chosen.seconds <= 1.0001 * rows[0][1]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_numbers_and_formulas_give_the_same_time(case: int) -> None:
    """What a schedule is chosen by is what `Compiled.cost()` tells."""
    program: Program = compiled(*CASES[case]).program()
    here = machine("server-x86")
    kernel = kernel_of(program)
    estimator = Estimator(kernel, here)
    for schedule in weighed(kernel, machine_like(here))[::4]:
        options = replace(program.options, schedule=f"{schedule}")
        cost = replace(program, options=options).cost(here)
        if cost.form == "lifted":
            assert estimator.seconds(schedule) == pytest.approx(cost.seconds, rel=1e-3)
        assert estimator.least(schedule) <= estimator.seconds(schedule)


def slow_exponentials(here: CostMachine) -> CostMachine:
    return replace(here, rates={**here.rates, "exp": here.rates["exp"] / 1000})


def test_a_slow_exponential_changes_the_schedule() -> None:
    """Folded axes in the lanes take an exponential more for each lane and chunk."""
    kernel = kernel_of(compiled(softmax, [(64, 1024)]).program())
    here = machine("server-x86").limited(1)
    fast = choose(kernel, machine_like(here))
    slow = choose(kernel, machine_like(slow_exponentials(here)))
    assert fast is not None
    assert slow is not None
    assert not fast.lane
    assert slow.lane == "i"


@pytest.mark.parametrize(
    ("rows", "d", "has_lanes_of_each"),
    [(1, 128, True), (4, 128, True), (8, 128, True), (16, 128, True), (16, 32, False)],
)
def test_few_rows_have_lanes_of_each_statement(
    rows: int, d: int, has_lanes_of_each: bool
) -> None:
    """But where rows fill the lanes, and sums are short: lanes are combined for each."""
    module = compiled(attention, [(8, rows, d), (8, 512, d), (8, 512, d)]).module(
        "fused"
    )
    LiftPass(machine="avx512").apply(Context(), module)
    (op,) = comprehensions(functions_of(module)[0])
    assert str(op.attributes[SCHEDULE]).endswith('each"') == has_lanes_of_each


def test_few_registers_change_the_schedule() -> None:
    kernel = kernel_of(compiled(matmul, [(96, 128), (128, 80)]).program())
    here = machine("server-x86").limited(1)
    many = choose(kernel, machine_like(here))
    few = choose(kernel, machine_like(replace(here, registers=8)))
    assert many is not None
    assert few is not None
    assert many.registers * many.vectors > few.registers * few.vectors


def test_choosing_looks_at_few_schedules_as_a_whole() -> None:
    """What computes longer than the best one takes is not analysed further."""
    kernel = kernel_of(compiled(matmul, [(96, 128), (128, 80)]).program())
    here = MACHINES["avx512"]
    estimator = Estimator(kernel, here.description)
    schedules = weighed(kernel, here)
    best = estimator.best(schedules)
    assert best is not None
    assert len(estimator.analysed) < len(schedules)
    assert min(map(estimator.seconds, schedules)) == estimator.seconds(best)


def test_moa_lift_takes_a_description(tmp_path: Any) -> None:
    """A kind of machine, one that comes with the package, or a file of one's own."""
    text = (FOLDER / "laptop-arm.toml").read_text()
    own = tmp_path / "own.toml"
    own.write_text(text.replace("vector_bytes = 16", "vector_bytes = 32"))
    lanes: list[str] = []
    for name in ("laptop-arm", f"{own}"):
        module = compiled(matmul, [(96, 128), (128, 80)]).program().at("fused")
        LiftPass(machine=name).apply(Context(), module)
        (text,) = (
            f"{op.attributes[SCHEDULE]}"
            for op in module.walk()
            if SCHEDULE in op.attributes
        )
        lanes.append(text.split("lanes:")[1].split(";")[0])
    assert lanes == ["4", "8"]


def test_arithmetic_in_bf16_goes_with_rows_in_the_lanes() -> None:
    """Each result is rounded: accumulations of few elements side by side wait long."""
    shapes = [(64, 64), (64,), (64,)]
    here = MACHINES["avx512bf16"]
    chosen: dict[str, Any] = {}

    def layernorm(x: Any, weight: Any, bias: Any) -> Any:
        """That of the library would compute in f32."""

        def total(row: Any) -> Any:
            return moa.reduce("add", row)

        def mean(x: Any) -> Any:
            return moa.omega(total, 1, x) / 64.0

        centred = moa.omega("sub", (1, 0), x, mean(x))
        deviation = moa.sqrt(mean(centred * centred) + 1e-5)
        scaled = moa.omega("div", (1, 0), centred, deviation)
        return moa.omega("add", (1, 1), moa.omega("mul", (1, 1), scaled, weight), bias)

    for dtype in ("bfloat16", "float32"):
        specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
        program = moa.jit(layernorm).lower(*specs).program()
        chosen[dtype] = choose(kernel_of(program), here)
    assert chosen["bfloat16"].lane == "i"
    assert not chosen["float32"].lane


def test_a_machine_that_schedules_cannot_be_for() -> None:
    with pytest.raises(moa.MoaError, match="machine h200: expected one of kind cpu"):
        machine_named("h200")
    with pytest.raises(moa.MoaError, match="unknown machine: expected one of host, av"):
        machine_named("abacus")


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_kinds_of_machine_are_as_their_descriptions(name: str) -> None:
    """Two places say what a kind of processor has: they agree."""
    described = machine_like(machine(name))
    assert described == replace(MACHINES[name], kind="")


@pytest.mark.parametrize(("columns", "is_lost"), [(1536, True), (1520, False)])
def test_columns_of_rows_at_the_same_places_of_pages_take_longer(
    columns: int, is_lost: bool
) -> None:
    """More lanes then have more rows, whose lines leave the first cache early."""

    def product(a: Any, b: Any) -> Any:
        return matmul(a, moa.transpose(b))

    program = compiled(product, [(1024, 384), (columns, 384)]).program()
    here = machine("server-x86").limited(1)
    kernel = kernel_of(program)
    estimator = Estimator(kernel, here)
    text = "j=procs,block:{};i=procs,regs:{},lanes:16;p=chunk:256,regs:4"
    axes = [kernel.hints[axis] for axis in kernel.axes]

    def seconds(block: int, vectors: int) -> float:
        return estimator.seconds(parse_schedule(text.format(block, vectors), axes))

    assert (seconds(4, 4) > seconds(4, 1)) == is_lost
    # Squares of a block are turned, and stored in whole vectors.
    assert seconds(96, 4) < seconds(96, 1)
