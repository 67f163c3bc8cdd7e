"""With `deterministic` an element has the same bits whatever is computed beside it."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.engine import compile_module, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.options import Options
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel
from moa_dialect.passes.lift import SCHEDULE, LiftPass, choose
from moa_dialect.passes.machine import host_machine
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.tools import derived

DTYPES = {"f64": np.float64, "f32": np.float32, "bf16": ml_dtypes.bfloat16}
MOST = 5
LENGTH = 200


def causal(q: Any, k: Any, v: Any) -> Any:
    return library.attention(q, k, v, is_causal=True)


def window(q: Any, k: Any, v: Any) -> Any:
    return library.attention(q, k, v, is_causal=True, window=9)


def matmul(x: Any, w: Any) -> Any:
    return moa.inner("add", "mul", x, w)


def _seen(n: Any) -> Any:
    return moa.outer("gt", moa.cast(n, "index"), moa.iota(LENGTH))


def up_to(x: Any, n: Any) -> Any:
    """The first n of each row only."""
    return library.logsumexp(moa.where(_seen(n), x, -np.inf))


def spread_up_to(x: Any, n: Any) -> Any:
    """The sum of squared distances from a weighted mean of the first n of each row."""

    def cell(row: Any, seen: Any) -> Any:
        weights = moa.reduce("add", moa.where(seen, abs(row), 0.0))
        mean = moa.reduce("add", moa.where(seen, row * abs(row), 0.0)) / weights
        return moa.reduce("add", moa.where(seen, (row - mean) * (row - mean), 0.0))

    return moa.omega(cell, (1, 1), x, _seen(n))


@dataclass(frozen=True)
class Case:
    """A program, the shapes of its arguments for a batch, and which have it."""

    program: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    batched: Sequence[bool]
    lengths: bool = False

    def data(self, batch: int, dtype: Any) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        found: list[np.ndarray] = []
        for shape, is_batched in zip(self.shapes, self.batched, strict=True):
            extents = (batch, *shape) if is_batched else shape
            found.append((3 * random.normal(size=extents)).astype(dtype))
        if self.lengths:
            found.append(random.integers(1, LENGTH, size=batch))
        return found

    def part(self, arrays: Sequence[np.ndarray], first: int, size: int) -> list[Any]:
        batched = [*self.batched, *([True] if self.lengths else [])]
        return [
            array[first : first + size] if is_batched else array
            for array, is_batched in zip(arrays, batched, strict=True)
        ]


ROW = ((LENGTH,),)
HEAD = ((37, 24), (150, 24), (150, 17))
CASES = {
    "softmax": Case(library.softmax, ROW, (True,)),
    "logsumexp": Case(library.logsumexp, ROW, (True,)),
    "layernorm": Case(library.layernorm, ROW, (True,)),
    "entropy": Case(library.entropy, ROW, (True,)),
    "attention": Case(library.attention, HEAD, (True,) * 3),
    "causal attention": Case(causal, HEAD, (True,) * 3),
    "attention in a window": Case(window, HEAD, (True,) * 3),
    "grouped heads": Case(
        causal, ((4, 37, 24), (2, 150, 24), (2, 150, 17)), (True,) * 3
    ),
    "queries": Case(
        library.attention, ((24,), (150, 24), (150, 17)), (True, False, False)
    ),
    "rows of other lengths": Case(up_to, ROW, (True,), lengths=True),
    "spread of rows of other lengths": Case(spread_up_to, ROW, (True,), lengths=True),
    "a product": Case(matmul, ((300,), (300, 70)), (True, False)),
}


OF_THE_LIBRARY = (
    *("KL divergence", "covariance", "cross-entropy of a linear layer"),
    *("softmax, then top 3", "differential attention", "absmax-scaled product"),
)
"""Rows of the table of derived programs whose results do not depend on their places."""


def results(kernel: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
    found = kernel(*arrays)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_row_is_the_same_alone_and_in_any_batch(name: str, dtype: str) -> None:
    case, random = CASES[name], np.random.default_rng(len(name))
    if case.lengths and dtype == "bf16":
        pytest.skip("these programs do not widen bf16")
    program = moa.jit(case.program, deterministic=True)
    arrays = case.data(MOST, DTYPES[dtype])
    for size in {*random.integers(2, MOST + 1, size=2).tolist(), MOST}:
        first = int(random.integers(0, MOST - size + 1))
        whole = results(program, case.part(arrays, first, size))
        for row in range(size):
            alone = results(program, case.part(arrays, first + row, 1))
            for one, many in zip(alone, whole, strict=True):
                assert one[0].tobytes() == many[row].tobytes()


@pytest.mark.parametrize(
    "row",
    [row for row in derived.ROWS if row.name in OF_THE_LIBRARY],
    ids=lambda row: row.name,
)
def test_a_row_of_the_library_is_the_same_alone(row: derived.Row) -> None:
    program = moa.jit(row.program, deterministic=True)
    data = row.data(0)
    whole = results(program, data)
    for number in (0, 17, 36):
        one = slice(number, number + 1)
        alone = results(
            program,
            [
                array[one] if shape[0] == "n" else array
                for array, shape in zip(data, row.shapes, strict=True)
            ],
        )
        for few, many in zip(alone, whole, strict=True):
            assert few[0].tobytes() == many[number].tobytes()


def test_without_it_a_row_may_differ() -> None:
    """Else nothing would be shown."""
    program = moa.jit(CASES["a product"].program)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(s).astype("f4") for s in ((64, 300), (300, 16)))
    (whole,) = results(program, [a, b])
    (alone,) = results(program, [a[:1], b])
    assert alone[0].tobytes() != whole[0].tobytes()
    np.testing.assert_allclose(alone[0], whole[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "causal attention", "a product"])
def test_threads_do_not_change_it(name: str) -> None:
    case = CASES[name]
    program = moa.jit(case.program, deterministic=True)
    arrays = case.data(MOST, np.float32)
    found: list[bytes] = []
    try:
        for count in (1, 2, 3):
            moa.set_num_threads(count)
            found.append(results(program, arrays)[0].tobytes())
    finally:
        moa.set_num_threads(None)
    assert len(set(found)) == 1


def fused(case: Case, batch: int) -> Any:
    arrays = case.data(batch, np.float32)
    return moa.jit(case.program, deterministic=True).lower(*arrays).module("fused")


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_depends_on_neither_extents_nor_cores(name: str) -> None:
    machine, found = host_machine(), set[str]()
    for batch in (1, 3, 64):
        for cores in (1, 2, 64):
            module = fused(CASES[name], batch)
            for function in functions_of(module):
                for op in comprehensions(function):
                    kernel = read_kernel(op, function)
                    schedule = choose(kernel, replace(machine, cores=cores), True)
                    assert schedule is not None
                    assert schedule.aligned
                    found.add(str(schedule))
    assert len(found) == 1


def scheduled(case: Case, arrays: Sequence[np.ndarray], schedule: str) -> Any:
    """A kernel by a schedule."""
    module = moa.jit(case.program).lower(*arrays).module("fused")
    for pass_ in FUSING["target"]:
        pass_ = LiftPass(schedule) if isinstance(pass_, LiftPass) else pass_
        pass_.apply(Context(), module)
    return kernel_of(module, None)


@pytest.mark.parametrize(
    "name", ["rows of other lengths", "spread of rows of other lengths"]
)
def test_aligned_chunks_do_not_depend_on_other_lanes(name: str) -> None:
    """Rows in the lanes whose bounds differ: beside other rows, with the same bits."""
    case, differ = CASES[name], dict[str, bool]()
    x, n = case.data(16, np.float32)
    n = 100 + n // 2
    for mark in ("", ",aligned"):
        schedule = f"i=procs,regs:1,lanes:8;p=chunk:24,regs:4{mark}"
        kernel = scheduled(case, [x, n], schedule)
        expected = kernel(x, n)
        others = n.copy()
        others[1::2] = np.arange(7, 15)
        found = kernel(x, others)
        differ[mark] = found[::2].tobytes() != expected[::2].tobytes()
        np.testing.assert_allclose(found[::2], expected[::2], rtol=1e-5)
    assert not differ[",aligned"]
    assert differ[""] or case.program is up_to  # rounded away by the logarithm


def test_it_makes_another_kernel() -> None:
    """The option is a part of what kernels are kept by."""
    module = moa.jit(library.softmax).lower(np.ones((4, 8))).module("moa")
    exact = Options(deterministic=True)
    one, other = compile_module(module), compile_module(module, options=exact)
    assert one is not other
    assert compile_module(module, options=exact) is other


def test_the_schedule_says_so() -> None:
    module = moa.jit(library.attention).lower(*[np.ones((3, 40, 16))] * 3)
    text = str(module.module("fused"))
    assert SCHEDULE not in text
    lifted = module.module("fused")
    LiftPass(deterministic=True).apply(Context(), lifted)
    assert "aligned" in str(lifted)
