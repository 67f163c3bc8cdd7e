"""Chained products: one chunk late, and warp groups that begin theirs in turn."""

from __future__ import annotations

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
from moa_dialect.lowering.emitter import NotLifted
from moa_dialect.lowering.group_kernel import GroupPass
from moa_dialect.lowering.group_products import Products
from moa_dialect.lowering.group_turns import Turns

BF16 = ml_dtypes.bfloat16

ROWS = "j=grid,warps:8,regs:2;p=chunk:32,stages:2,wgmma,tma"
BOTH = f"{ROWS},behind,turns"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Tests change what kernels are made of: none is kept."""
    monkeypatch.setenv("MOA_CACHE", "0")
    monkeypatch.setattr(engine, "_PLANNED", {})


def random(seed: int, *shape: int, dtype: Any = BF16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = True
) -> np.ndarray:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = np.where(mask, q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(
        np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted)
    )


def run(
    arrays: list[np.ndarray],
    schedule: str = BOTH,
    program: Callable[..., Any] = library.attention,
    **options: Any,
) -> np.ndarray:
    jit = moa.jit(program, target="cuda", emulate=True, schedule=schedule)
    return jit(*arrays, **options)


Q, K, V = random(0, 1, 100, 32), random(1, 1, 90, 32), random(2, 1, 90, 24)
WANTED = attention(Q, K, V)
TRIANGLE = np.tri(100, dtype=bool)


@pytest.mark.parametrize(
    ("tail", "options", "mask"),
    [
        (",behind", {}, True),
        (",turns", {}, True),
        (",behind,turns", {"is_causal": True}, TRIANGLE),
        (
            ",behind,turns",
            {"is_causal": True, "window": 40},
            TRIANGLE & ~np.tri(100, k=-40, dtype=bool),
        ),
        (",ahead,turns", {"is_causal": True}, TRIANGLE),
        (",ahead,behind", {"is_causal": True}, TRIANGLE),
        (",ahead,behind", {}, True),
    ],
)
def test_attention(tail: str, options: dict[str, Any], mask: Any) -> None:
    """First chunks without masks and with them, loops over either kind."""
    k, v = (K, V) if mask is True else (random(1, 1, 100, 32), random(2, 1, 100, 24))
    found = run([Q, k, v], ROWS + tail, **options)
    assert distance(found, attention(Q, k, v, mask)) < 6e-3


def test_half_precision_of_the_other_kind() -> None:
    arrays = [x.astype(np.float16) for x in (Q, K, V)]
    assert distance(run(arrays), attention(*arrays)) < 1e-3


def test_three_warp_groups() -> None:
    q = random(0, 1, 200, 32)
    found = run([q, K, V], BOTH.replace("warps:8", "warps:12"))
    assert distance(found, attention(q, K, V)) < 6e-3


def test_a_maximum_that_changes_from_chunk_to_chunk() -> None:
    """Accumulators are multiplied where it does, and are not where it stays."""
    q, k = np.ones((1, 100, 32), BF16), np.zeros((1, 90, 32), BF16)
    k[0, :, 0] = np.arange(90)
    assert distance(run([q, k, V]), attention(q, k, V)) < 6e-3
    k = np.ascontiguousarray(k[:, ::-1])
    assert distance(run([q, k, V]), attention(q, k, V)) < 6e-3


def test_extents_of_a_call() -> None:
    """Also where there is one chunk, or none."""
    specs = [
        moa.ArraySpec((1, rows, width), "bfloat16")
        for rows, width in (("n", 32), ("m", 32), ("m", 24))
    ]
    jit = moa.jit(library.attention, "cuda", specs=specs, emulate=True, schedule=BOTH)
    for n, m in ((40, 70), (90, 1)):
        arrays = [Q[:, :n], K[:, :m], V[:, :m]]
        assert distance(jit(*arrays), attention(*arrays)) < 6e-3
    assert not jit(Q, K[:, :0], V[:, :0]).any()


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_does_not_matter(
    emulate: Callable[..., None], order: str
) -> None:
    emulate(order)
    assert distance(run([Q, K, V]), WANTED) < 6e-3


# What is wrong shows.


def nothing(*_: Any) -> None:
    """Not what should be done."""


@pytest.mark.parametrize("name", ["give", "begin"])
def test_turns_that_are_not_given(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Turns, name, nothing)
    with pytest.raises(KernelError, match=r"deadlock: .* at nvvm\.barrier"):
        run([Q, K, V])


def is_wrong() -> None:
    """Check that attention is wrong, or its kernel an error."""
    try:
        found = run([Q, K, V])
    except KernelError:
        return
    assert not distance(found, WANTED) < 0.05


def test_products_that_read_the_tile_of_their_own_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values of the chunk that is computed, not of the one before."""
    at_turn = GroupPass._at_turn  # pyright: ignore[reportPrivateUsage]

    def late(self: GroupPass, count: Any) -> Any:
        return at_turn(self, self.code.add(count, 1))

    monkeypatch.setattr(GroupPass, "_at_turn", late)
    is_wrong()


def test_factors_of_the_wrong_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last factors are what the last product takes."""
    later = Products.later

    def turned(self: Products, product: Any, start: Any, words: Any) -> Any:
        return later(self, product, start, words[4:] + words[:4])

    monkeypatch.setattr(Products, "later", turned)
    is_wrong()


def test_sums_that_are_not_waited_for(emulate: Callable[..., None]) -> None:
    def hasty(text: str) -> str:
        wait = "wgmma.wait_group.sync.aligned"
        assert f"{wait} 0;" in text
        return text.replace(f"{wait} 0;", f"{wait} 1;")

    emulate("forward", hasty)
    is_wrong()


# What is refused.


def product(a: moa.Array, b: moa.Array) -> moa.Array:
    return moa.inner("add", "mul", a, b)


def test_products_that_are_not_chained() -> None:
    spec = moa.ArraySpec((200, 64), "bfloat16")
    other = moa.ArraySpec((64, 200), "bfloat16")
    schedule = "j=grid,block:64;i=grid,warps:8,regs:2;p=chunk:32,stages:2,wgmma,tma"
    jit = moa.jit(product, target="cuda", schedule=f"{schedule},behind")
    message = "there is no code for behind: expected a computed factor of a sum"
    with pytest.raises(CompileError, match=message):
        jit.lower(spec, other).text("target")


# What is chosen.


def chosen(*shapes: Any, **options: Any) -> str:
    names = ("chip", "tier", "deterministic")
    taken = {name: options.pop(name) for name in names if name in options}
    dtype = options.pop("dtype", "bfloat16")
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    jit = moa.jit(library.attention, target="cuda", **taken)
    (schedule,) = jit.lower(*specs, **options).schedules
    return schedule


TAIL = "p=chunk:128,stages:2,wgmma,tma,behind"


@pytest.mark.parametrize(
    ("rows", "width", "options", "groups"),
    [
        (4096, 128, {}, "warps:8"),
        (4096, 128, {"is_causal": True}, "span:16,warps:8"),
        (4096, 64, {}, "warps:12"),
        (256, 64, {}, "warps:8"),  # a third of 384 rows would be none
        ("n", 64, {}, "warps:12"),
        (4096, 64, {"is_causal": True}, "groups:2,span:16,warps:4"),
    ],
)
def test_chained_products_are_one_chunk_late(
    rows: Any, width: int, options: dict[str, Any], groups: str
) -> None:
    text = chosen(*[(64, rows, width)] * 3, **options)
    assert text == f"j=grid,{groups},regs:2;{TAIL}"


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ([(64, 4096, 256)] * 3, {}),  # more accumulators than there are registers for
        ([(64, 4096, 60)] * 3, {}),  # rows of the arrays not of whole 16 bytes
        ([(8, "n", 64), (8, "m", "d"), (8, "m", 64)], {}),
        ([(8, 50, 64)] * 3, {}),  # one warp group
        ([(8, 300, 64)] * 3, {"deterministic": True}),
        ([(8, 300, 64)] * 3, {"chip": "sm_90"}),
        ([(8, 300, 64)] * 3, {"tier": "mma"}),
        ([(8, 300, 64)] * 3, {"dtype": "float32"}),
    ],
)
def test_what_is_not(shapes: Any, options: dict[str, Any]) -> None:
    """Another schedule is chosen, and there is no error."""
    assert "tma" not in chosen(*shapes, **options)


def test_few_rows_are_loaded_so_but_not_late() -> None:
    text = chosen((8, 1, 64), (8, 300, 64), (8, 300, 64))
    assert text.endswith("mma,tma")
    assert "wgmma" not in text


def doubled(q: moa.Array, k: moa.Array, v: moa.Array) -> moa.Array:
    return library.attention(q, k + k, v)


def test_a_factor_that_is_computed_is_loaded_by_all_threads() -> None:
    jit = moa.jit(doubled, target="cuda")
    spec = moa.ArraySpec((8, 300, 64), "bfloat16")
    compiled = jit.lower(spec, spec, spec)
    assert not any("tma" in text for text in compiled.schedules)
    assert "wgmma" in compiled.text("asm")


def test_code_that_there_is_not_is_made_by_the_other_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(self: GroupPass) -> None:
        raise NotLifted("this")

    q, k, v = random(0, 1, 100, 64), random(1, 1, 90, 64), random(2, 1, 90, 64)
    compiled = moa.jit(library.attention, target="cuda", emulate=True).lower(q, k, v)
    (launch,) = compiled.kernel.launches
    assert launch.maps
    monkeypatch.setattr(engine, "_PLANNED", {})
    monkeypatch.setattr(GroupPass, "_find_behind", refuses)
    compiled = moa.jit(library.attention, target="cuda", emulate=True).lower(q, k, v)
    (launch,) = compiled.kernel.launches
    assert not launch.maps
    assert "wgmma" in compiled.text("asm")
    assert distance(compiled(q, k, v), attention(q, k, v)) < 6e-3


# Code.


def ptx(schedule: str, depth: int, is_causal: bool) -> str:
    spec = moa.ArraySpec((2, 1024, depth), "bfloat16")
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    return jit.lower(spec, spec, spec, is_causal=is_causal).text("asm")


def test_sums_are_waited_for_after_the_exponentials() -> None:
    """In the loop: both products are begun, scores waited for, then sums."""
    text = ptx(BOTH, 64, False)
    words = {"commit": "C", "wait_group": "W", "ex2.approx": "e", "bar.sync": "s"}
    words |= {"bar.arrive": "a"}
    found = re.findall(
        r"wgmma\.(commit|wait_group)|(ex2\.approx)|(bar\.sync) +\t%|(bar\.arrive)", text
    )
    order = "".join(words["".join(each)] for each in found)
    assert re.search(r"sCaWe+sCCaWe+W", order), order


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on this machine")
@pytest.mark.parametrize(
    ("depth", "is_causal"), [(64, False), (64, True), (128, False), (128, True)]
)
def test_the_assembler_spills_nothing(depth: int, is_causal: bool) -> None:
    """And serializes no products; of the schedules that are chosen."""
    log = ptxas.assemble(ptx("auto", depth, is_causal), "sm_90a").log
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    assert "serializ" not in log
    assert "setmaxnreg" not in log
