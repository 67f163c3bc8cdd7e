"""Programs as they would be run one array operation after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.cost.materialised import materialised
from moa_dialect.cost.reuse import reuse_distances
from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.library import attention, layernorm, softmax


def lowered(program: Any, *shapes: tuple[int | str, ...]) -> Compiled:
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    return moa.jit(program).lower(*specs)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("program", "shapes", "calls"),
    [
        (softmax, [(6, 40)], 5),
        (layernorm, [(6, 40), (40,), (40,)], 14),
        (attention, [(2, 9, 8), (2, 30, 8), (2, 30, 8)], 8),
    ],
)
def test_operations_one_by_one_give_the_same(
    program: Any, shapes: list[tuple[int, ...]], calls: int, tiled: bool
):
    compiled = lowered(program, *shapes)
    workload = materialised(compiled, tiled, "avx2")
    assert len(workload.calls) == calls
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal(shape).astype("f4") for shape in shapes]
    found = reuse_distances(workload, arguments)
    (result,) = found.results
    np.testing.assert_allclose(result, compiled(*arguments), rtol=1e-4, atol=1e-5)
    assert found.compulsory_bytes == sum(a.nbytes for a in arguments) + result.nbytes


def test_each_result_is_an_array_in_memory():
    workload = materialised(lowered(softmax, (6, 40)))
    shapes = [buffer.shape for buffer in workload.buffers]
    assert shapes == [(6, 40), (6,), (6, 40), (6, 40), (6,), (6, 40)]
    assert workload.ends == ([0], [5])


def test_results_may_be_used_by_later_operations():
    def program(x: Any) -> Any:
        y = moa.exp(x)
        return y, y + 1.0

    workload = materialised(lowered(program, (4, 5)))
    x = np.ones((4, 5), np.float32)
    first, second = reuse_distances(workload, [x]).results
    np.testing.assert_allclose(first, np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(second, np.exp(x) + 1, rtol=1e-6)


def test_arguments_are_in_order_whichever_is_used_first():
    def program(x: Any, y: Any) -> Any:
        return moa.exp(y) * x

    compiled = lowered(program, (3,), (3,))
    x, y = np.full(3, 2, np.float32), np.zeros(3, np.float32)
    (result,) = reuse_distances(materialised(compiled), [x, y]).results
    np.testing.assert_array_equal(result, compiled(x, y))


def test_traffic_without_reuse_is_the_sum_of_the_operations():
    """Softmax of n numbers in 5 kernels, n large: 4 reads and 3 results of n.

    A result is fetched before it is written, and written back.
    """
    n = 64 * 1024
    workload = materialised(lowered(softmax, (1, n)))
    found = reuse_distances(workload)
    reads, results = 5, 3
    assert found.bytes(4096) == pytest.approx(4 * n * (reads + 2 * results), rel=1e-2)


def test_a_program_without_operations():
    def program(x: Any) -> Any:
        return x

    with pytest.raises(MoaError, match="expected a program with operations on arrays"):
        materialised(lowered(program, (3,)))


def test_extents_that_are_not_known():
    with pytest.raises(MoaError, match="expected extents that are known, got tensor"):
        materialised(lowered(softmax, ("n", 4)))
