"""`moa.jit(fuse="auto")`: one kernel, or one for each array operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.cost import machine
from moa_dialect.errors import MoaError, OptionError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.frontend.materialised import Materialised, can_be_materialised


@pytest.fixture(autouse=True)
def _known_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is one that need not be measured."""
    found = machine("server-x86")
    monkeypatch.setattr("moa_dialect.cost.probe.probed_host", lambda: found)


def rows(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_what_is_better_apart_is_materialised() -> None:
    def products(a: Any, b: Any, c: Any, d: Any) -> Any:
        one, two = moa.inner("add", "mul", a, b), moa.inner("add", "mul", c, d)
        return moa.inner("add", "mul", one, moa.inner("add", "mul", two, d))

    x = rows(256, 256) / 16
    program = moa.jit(products, fuse="auto")
    compiled = program.lower(x, x, x, x)
    assert isinstance(compiled, Materialised)
    np.testing.assert_allclose(program(x, x, x, x), x @ x @ (x @ x @ x), atol=1e-4)


def test_what_is_better_fused_is_one_kernel() -> None:
    x = rows(512, 512)
    compiled = moa.jit(moa.library.softmax, fuse="auto").lower(x)
    assert type(compiled) is Compiled
    np.testing.assert_allclose(compiled(x).sum(axis=1), 1, rtol=1e-5)


def test_several_results_and_shared_values() -> None:
    def both(a: Any, b: Any) -> Any:
        c = a + b
        return moa.exp(c), c, moa.reduce("add", moa.ravel(c))

    x, y = rows(8, 16), rows(8, 16)
    fused = moa.jit(both).lower(x, y)
    program = fused.program()
    apart = Materialised(program.module, program.entry)
    for found, expected in zip(apart(x, y), fused(x, y), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(MoaError, match="expected 2 arguments, got 1"):
        apart(x)


def test_tensors_in_and_out() -> None:
    torch = pytest.importorskip("torch")
    x, targets = rows(64, 128), np.arange(64)
    fused = moa.jit(moa.library.cross_entropy).lower(x, targets)
    program = fused.program()
    apart = Materialised(program.module, program.entry)
    found = apart(torch.from_numpy(x), torch.from_numpy(targets))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), fused(x, targets), rtol=1e-5, atol=1e-5)


def test_extents_that_only_a_call_tells_are_fused() -> None:
    spec = moa.ArraySpec(("n", 64), "f32")
    compiled = moa.jit(moa.library.softmax, fuse="auto").lower(spec)
    assert type(compiled) is Compiled
    assert not can_be_materialised(compiled)
    program = compiled.program()
    with pytest.raises(MoaError, match="needs extents that are known"):
        _ = Materialised(program.module, program.entry).kernel


def test_a_result_that_no_operation_gives_is_fused() -> None:
    def same(a: Any) -> Any:
        return a, a + 1.0

    compiled = moa.jit(same).lower(moa.ArraySpec((4,), "f32"))
    assert not can_be_materialised(compiled)


def test_another_value_is_refused() -> None:
    value: Any = "often"
    with pytest.raises(OptionError, match="fuse: expected True, False or 'auto', got"):
        moa.jit(moa.library.softmax, fuse=value)


def test_a_gpu_does_not_decide() -> None:
    with pytest.raises(OptionError, match="fuse: expected 'auto' with target cpu"):
        moa.jit(moa.library.softmax, target="cuda", fuse="auto")


def test_the_chosen_schedule_is_among_the_best_predicted() -> None:
    q = moa.ArraySpec((8, 2048, 64), "f32")

    def attention(q: Any, k: Any, v: Any) -> Any:
        return moa.attention(q, k, v)

    program = moa.jit(attention).lower(q, q, q).program()
    here = machine("laptop-arm")
    found = dict(program.schedules(here))
    (chosen,) = program.cost(here).schedules
    assert found[chosen] <= 1.1 * min(found.values())
