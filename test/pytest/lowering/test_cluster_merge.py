"""Clusters of groups that have parts of folded axes, and merge their states."""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering import engine, ptxas
from moa_dialect.lowering.group_cluster import Cluster
from moa_dialect.lowering.group_kernel import GroupPass
from moa_dialect.passes.grid import parse_grid


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change what kernels are made of: none is kept."""
    monkeypatch.setenv("MOA_CACHE", "0")
    monkeypatch.setattr(engine, "_PLANNED", {})


def random(seed: int, *shape: int, dtype: Any = ml_dtypes.bfloat16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def masks(n: int, window: int) -> np.ndarray:
    i, j = np.indices((n, n))
    return (j <= i) & (i - j < (window or n))


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = True
) -> np.ndarray:
    q, k, v = (x.astype(float) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[0] // x.shape[0], axis=0) for x in (k, v))
    s = np.where(mask, q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def check(
    program: Callable[..., Any],
    arrays: list[np.ndarray],
    wanted: np.ndarray,
    schedule: str,
    limit: float = 6e-3,
    **options: Any,
) -> None:
    """Run a program in the emulator: it is one kernel, without scratch memory."""
    jit = moa.jit(program, target="cuda", emulate=True, schedule=schedule)
    compiled = jit.lower(*arrays, **options)
    assert len(compiled.kernel.launches) == 1
    found = compiled(*arrays).astype(float)
    assert np.linalg.norm(found - wanted) < limit * np.linalg.norm(wanted)


# Rows that all threads of a group share.

X = random(0, 3, 1000, dtype=np.float32)
CENTRED = X - X.mean(-1, keepdims=True, dtype=np.float64)
POWERS = np.exp(X.astype(np.float64))


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (library.logsumexp, np.log(POWERS.sum(-1))),
        # Parts are moved to the mean of all, with how many indices each has.
        (library.variance, (CENTRED**2).mean(-1)),
        # Each group stores blocks of the row.
        (library.softmax, POWERS / POWERS.sum(-1, keepdims=True)),
    ],
)
def test_rows(program: Any, wanted: np.ndarray) -> None:
    check(program, [X], wanted, "p=chunk:128,threads:64,cluster:4", 1e-6)


def test_more_groups_than_chunks() -> None:
    """Some have no index: they contribute nothing."""
    x = X[:, :9].copy()
    wanted = np.log(np.exp(x.astype(float)).sum(-1))
    schedule = "i=grid,warps:1,regs:1;p=chunk:8,stages:1,cluster:8"
    check(library.logsumexp, [x], wanted, schedule, 1e-6)


# Products.

FEW = "j=grid,warps:1,regs:2;p=chunk:16,stages:2,cluster:4,mma"


@pytest.mark.parametrize(
    ("shapes", "schedule", "options", "window"),
    [
        (((2, 5, 32), (2, 100, 32), (2, 100, 24)), FEW, {}, None),
        (((2, 5, 32), (2, 100, 32), (2, 100, 24)), f"{FEW},tma", {}, None),
        # Heads that share keys as rows.
        (
            ((4, 1, 32), (2, 100, 32), (2, 100, 32)),
            FEW.replace("j=", "i_g=") + ",tma",
            {},
            None,
        ),
        # Rows that need other chunks: of a part some have all, some none.
        (((1, 70, 32),) * 3, FEW, {"is_causal": True}, 0),
        (((1, 70, 32),) * 3, FEW, {"is_causal": True, "window": 20}, 20),
        # Along rows, too: four groups share what is loaded in pairs.
        (
            ((1, 70, 32),) * 3,
            "j=grid,warps:1,regs:2,cluster:2;p=chunk:16,stages:2,cluster:2,mma,tma",
            {"is_causal": True},
            0,
        ),
        # Sums one chunk late, queries for all groups loaded once.
        (
            ((1, 20, 32), (1, 70, 32), (1, 70, 32)),
            "j=grid,warps:4,regs:2;p=chunk:32,stages:2,cluster:2,wgmma,tma,behind",
            {},
            None,
        ),
    ],
)
def test_attention(
    shapes: Any, schedule: str, options: dict[str, Any], window: int | None
) -> None:
    arrays = [random(n, *shape) for n, shape in enumerate(shapes)]
    mask = True if window is None else masks(shapes[0][1], window)
    wanted = attention(*arrays, mask=mask)
    check(library.attention, arrays, wanted, schedule, **options)


def product(a: moa.Array, b: moa.Array) -> moa.Array:
    return moa.inner("add", "mul", moa.cast(a, "f32"), moa.cast(b, "f32"))


A, B = random(0, 20, 72), random(1, 72, 24)
WANTED = A.astype(float) @ B.astype(float)
PRODUCT = "j=grid,block:24;i=grid,warps:1,regs:2;p=chunk:16,stages:2,cluster:2,mma"


@pytest.mark.parametrize("tail", ["", ",tma"])
def test_products(tail: str) -> None:
    check(product, [A, B], WANTED, PRODUCT + tail, 1e-5)


@pytest.mark.parametrize("tail", ["", ",tma"])
def test_an_output_that_is_computed_chunk_by_chunk(tail: str) -> None:
    """Each group has some of the chunks, for all rows."""

    def normalized(a: moa.Array, b: moa.Array) -> moa.Array:
        return library.softmax(product(a, b))

    e = np.exp(WANTED - WANTED.max(-1, keepdims=True))
    schedule = f"i=grid,warps:1,regs:2;p=chunk:16,stages:2,cluster:2,mma{tail}"
    check(normalized, [A, B], e / e.sum(-1, keepdims=True), schedule, 1e-5)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_does_not_matter(
    emulate: Callable[..., None], order: str
) -> None:
    emulate(order)
    check(product, [A, B], WANTED, f"{PRODUCT},tma", 1e-5)


# What is wrong shows.


def fails() -> None:
    with pytest.raises((AssertionError, KernelError)):
        check(product, [A, B], WANTED, PRODUCT, 1e-5)


@pytest.mark.parametrize("missing", [1, 2])
def test_groups_that_do_not_meet(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """Before states are read, which are not there yet; or after, when they are gone."""
    meet, calls = Cluster.meet, [0]

    def one(self: Cluster) -> None:
        calls[0] += 1
        if calls[0] != missing:
            meet(self)

    monkeypatch.setattr(Cluster, "meet", one)
    fails()


def test_groups_that_have_the_same_part(monkeypatch: pytest.MonkeyPatch) -> None:
    part_of = GroupPass.part_of

    def first(self: GroupPass, number: Any) -> Any:
        return part_of(self, self.number(0))

    monkeypatch.setattr(GroupPass, "part_of", first)
    fails()


def test_a_group_that_reads_its_own_state_only(emulate: Callable[..., None]) -> None:
    def own(text: str) -> str:
        found = re.sub(
            r'(%\w+) = "nvvm.mapa"\((%\w+), %\w+\) : \(!llvm.ptr<3>, i32\)',
            r'\1 = "llvm.addrspacecast"(\2) : (!llvm.ptr<3>)',
            text,
        )
        assert found != text
        return found

    emulate("forward", own)
    fails()


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p=chunk:512,threads:64,cluster:3", "cluster: expected 2, 4 or 8 groups"),
        (
            "i=grid,warps:4,cluster:4;p=chunk:16,cluster:4,wgmma,tma",
            "cluster: expected 2, 4 or 8 groups, got 16",
        ),
        (
            "i=grid,warps:4,cluster:2;p=chunk:16,cluster:2,wgmma",
            "cluster: expected tma as well, for an axis that is not folded",
        ),
        (
            "i=grid,persistent:4,warps:4;p=chunk:16,cluster:2,wgmma,tma",
            "persistent: expected no cluster with parts of folded axes",
        ),
    ],
)
def test_schedules_that_are_none(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        parse_grid(text, ["i", "j"])


@pytest.mark.parametrize(
    "text",
    [
        "p=chunk:512,threads:64,cluster:2",
        "i=grid,warps:4,regs:2,cluster:2;p=chunk:16,stages:2,cluster:4,wgmma,tma",
        "i=grid,warps:4,regs:2;p=chunk:16,stages:2,split:4,cluster:8,mma",
    ],
)
def test_schedules_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_grid(text, ["i"])) == text


def test_states_that_do_not_fit() -> None:
    specs = [moa.ArraySpec((1, 128, 128), "bfloat16")] * 3
    schedule = "j=grid,warps:8,regs:2;p=chunk:128,stages:2,cluster:2,wgmma,tma"
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    with pytest.raises(CompileError, match="232448 bytes of shared memory, got 235600"):
        jit.lower(*specs).text("target")


def test_there_is_no_code() -> None:
    """It is said, and not left to loops of one thread for each element."""

    def falling(a: moa.Array, b: moa.Array) -> moa.Array:
        i = moa.iota(64)
        return product(moa.where(moa.outer("add", i, i) <= 63, a, 0.0), b)

    specs = [moa.ArraySpec((64, n), "bfloat16") for n in (64, 24)]
    jit = moa.jit(falling, target="cuda", schedule=PRODUCT)
    message = "schedule: there is no code for a bound that does not grow"
    with pytest.raises(CompileError, match=message):
        jit.lower(*specs).text("target")


# Memory, and code.


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on this machine")
@pytest.mark.parametrize(
    "schedule",
    [
        "j=grid,warps:1,regs:2;p=chunk:64,stages:3,cluster:8,mma,tma",
        "j=grid,warps:8,regs:2;p=chunk:64,stages:2,cluster:4,wgmma,tma,behind",
    ],
)
def test_the_assembler(schedule: str) -> None:
    """Nothing is spilled or serialized; states are read from the other groups."""
    specs = [moa.ArraySpec((8, n, 128), "bfloat16") for n in (128, 8192, 8192)]
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    text = jit.lower(*specs).text("asm")
    assert "ld.shared::cluster.b32" in text
    log = ptxas.assemble(text, "sm_90a").log
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    assert "serializ" not in log
