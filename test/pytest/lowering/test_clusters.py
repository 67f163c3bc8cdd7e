"""Clusters of groups that share what they load: in the emulator, and as PTX."""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerType

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering import engine, ptxas
from moa_dialect.lowering.group_cluster import Cluster, Peers
from moa_dialect.lowering.group_kernel import GroupPass
from moa_dialect.lowering.group_ring import Ring
from moa_dialect.passes.grid import parse_grid


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change what kernels are made of: none is kept."""
    monkeypatch.setenv("MOA_CACHE", "0")
    monkeypatch.setattr(engine, "_PLANNED", {})


def random(seed: int, *shape: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal(shape).astype(ml_dtypes.bfloat16)


def masks(n: int, window: int) -> np.ndarray:
    i, j = np.indices((n, n))
    return (j <= i) & (i - j < (window or n))


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = True
) -> np.ndarray:
    q, k, v = (x.astype(float) for x in (q, k, v))
    s = np.where(mask, q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def compiled_for(
    program: Callable[..., Any], arrays: list[Any], schedule: str, **options: Any
) -> Any:
    jit = moa.jit(program, target="cuda", emulate=True, schedule=schedule)
    return jit.lower(*arrays, **options)


def check(
    program: Callable[..., Any],
    arrays: list[np.ndarray],
    wanted: np.ndarray,
    schedule: str,
    boxes: list[tuple[int, ...]] | None = None,
    **options: Any,
) -> None:
    """Run a program in the emulator; its tiles are loaded in boxes of these extents."""
    compiled = compiled_for(program, arrays, schedule, **options)
    (launch,) = compiled.kernel.launches
    if boxes is not None:
        assert [each.box for each in launch.maps] == boxes
    found = compiled(*arrays).astype(float)
    assert np.linalg.norm(found - wanted) < 6e-3 * np.linalg.norm(wanted)


def product(a: moa.Array, b: moa.Array) -> moa.Array:
    return moa.inner("add", "mul", a, b)


A, B = random(0, 70, 72), random(1, 72, 24)

WANTED = A.astype(float) @ B.astype(float)

PRODUCT = "j=grid,block:24;i=grid,warps:1,regs:2,cluster:2;p=chunk:16,stages:2,mma,tma"
"""Five groups of 16 rows, of which two are a cluster, and five chunks."""


# What is shared, and what is not.


@pytest.mark.parametrize(
    ("schedule", "boxes"),
    [
        # Groups of other rows share the second factor, of which each loads some rows;
        (PRODUCT, [(16, 64), (8, 64)]),
        # those of other columns the first one;
        (
            "j=grid,block:8,cluster:4;i=grid,warps:4,regs:2;p=chunk:32,stages:3,wgmma,tma",
            [(16, 64), (32, 64)],
        ),
        # with both each is shared by some of the cluster.
        (
            "j=grid,block:8,cluster:4;i=grid,warps:4,regs:2,cluster:2;p=chunk:32,wgmma,tma",
            [(16, 64), (16, 64)],
        ),
        # Groups that take the tiles in turn, all of a cluster as many.
        (
            "j=grid,block:8;i=grid,persistent:4,warps:1,regs:2,cluster:2;p=chunk:32,stages:2,mma,tma",
            [(16, 64), (16, 64)],
        ),
    ],
)
def test_products(schedule: str, boxes: Any) -> None:
    check(product, [A, B], WANTED, schedule, boxes)


def test_parts_that_are_panels() -> None:
    """Of a tile of two panels each of two groups loads one, with all its rows."""
    b = random(1, 72, 128)
    schedule = (
        "j=grid,block:128;i=grid,warps:1,regs:2,cluster:2;p=chunk:16,stages:2,mma,tma"
    )
    wanted = A.astype(float) @ b.astype(float)
    check(product, [A, b], wanted, schedule, [(16, 64), (16, 64)])


ROWS = "j=grid,{}warps:1,regs:2,cluster:{};p=chunk:16,stages:2,mma,tma"


@pytest.mark.parametrize(
    ("shape", "schedule", "options", "window"),
    [
        # The last cluster has a group that there are no rows for, and one with some.
        ((2, 70, 32), ROWS.format("", 2), {}, None),
        ((1, 70, 32), ROWS.format("", 2), {"is_causal": True}, 0),
        # Groups of a cluster whose rows need other chunks: all have those of all.
        (
            (2, 140, 32),
            ROWS.format("span:2,", 2),
            {"is_causal": True, "window": 20},
            20,
        ),
        (
            (1, 140, 32),
            "j=grid,warps:4,regs:2,cluster:2;p=chunk:32,stages:2,wgmma,tma,ahead",
            {"is_causal": True},
            0,
        ),
        (
            (1, 140, 32),
            "j=grid,warps:4,regs:2,cluster:4;p=chunk:32,stages:2,wgmma,tma,behind",
            {"is_causal": True},
            0,
        ),
    ],
)
def test_attention(
    shape: Any, schedule: str, options: dict[str, Any], window: int | None
) -> None:
    arrays = [random(n, *shape) for n in range(3)]
    mask = True if window is None else masks(shape[1], window)
    wanted = attention(*arrays, mask=mask)
    check(library.attention, arrays, wanted, schedule, **options)


def test_heads_that_have_the_same_keys() -> None:
    """Another axis than rows or columns: three heads, of which two are a cluster."""

    def program(q: moa.Array, k: moa.Array) -> moa.Array:
        wide = moa.cast(q, "f32"), moa.cast(k, "f32")
        return moa.inner("add", "mul", *wide)

    q, k = random(0, 3, 40, 48), random(1, 48, 24)
    text = "i=grid,cluster:2;k=grid,block:24;j=grid,warps:1,regs:2;p=chunk:16,mma,tma"
    check(program, [q, k], q.astype(float) @ k.astype(float), text)


def test_extents_of_a_call() -> None:
    """How many clusters there are, and what the last one lacks, the call says."""
    specs = [moa.ArraySpec((1, rows, 32), "bfloat16") for rows in ("n", "m", "m")]
    jit = moa.jit(
        library.attention,
        "cuda",
        specs=specs,
        emulate=True,
        schedule=ROWS.format("", 2),
    )
    for n, m in ((40, 33), (5, 1), (64, 16)):
        arrays = random(0, 1, n, 32), random(1, 1, m, 32), random(2, 1, m, 32)
        wanted = attention(*arrays)
        error = np.linalg.norm(jit(*arrays).astype(float) - wanted)
        assert error < 6e-3 * np.linalg.norm(wanted)
    assert not jit(random(0, 1, 5, 32), random(1, 1, 0, 32), random(2, 1, 0, 32)).any()


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_does_not_matter(
    emulate: Callable[..., None], order: str
) -> None:
    emulate(order)
    check(product, [A, B], WANTED, PRODUCT)


# What is wrong shows.


def run() -> None:
    compiled_for(product, [A, B], PRODUCT)(A, B)


def test_groups_that_do_not_meet_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes come to a group whose barriers are not made yet."""
    meet, calls = Cluster.meet, [0]

    def second(self: Cluster) -> None:
        calls[0] += 1
        if calls[0] == 2:
            meet(self)
        else:
            self.code.barrier()

    monkeypatch.setattr(Cluster, "meet", second)
    with pytest.raises(KernelError, match="mbarriers that the copy engine does not"):
        run()


def test_groups_that_do_not_meet_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others arrive at the barriers of a group that has ended."""
    meet, calls = Cluster.meet, [0]

    def first(self: Cluster) -> None:
        calls[0] += 1
        if calls[0] == 1:
            meet(self)

    monkeypatch.setattr(Cluster, "meet", first)
    with pytest.raises(KernelError, match="or of a block that has ended"):
        run()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (1, "deadlock of the block of rank 1: .* at mbarrier.try_wait"),
        (2, "deadlock of the block of rank 0: .* at mbarrier.try_wait"),
        (7, "a mask of blocks 0x7, of a cluster that has 2"),
        (0, "a mask of blocks 0x0, of a cluster that has 2"),
    ],
)
def test_the_wrong_mask(
    monkeypatch: pytest.MonkeyPatch, mask: int, message: str
) -> None:
    def wrong(self: Peers) -> Any:
        return self.cluster.code.constant(mask, IntegerType(16))

    monkeypatch.setattr(Peers, "mask", wrong)
    with pytest.raises(KernelError, match=message):
        run()


def test_a_group_that_is_not_told_that_its_part_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All arrive at the first one of the cluster, none elsewhere."""

    def first(self: Peers, number: Any) -> Any:
        return self.cluster.code.number(0)

    monkeypatch.setattr(Peers, "rank", first)
    with pytest.raises(KernelError, match="deadlock of the block of rank 1: "):
        run()


def test_a_missing_arrival(emulate: Callable[..., None]) -> None:
    def without(text: str) -> str:
        lines = [
            line
            for line in text.splitlines()
            if not ('"nvvm.mbarrier.arrive"' in line and "cluster" in line)
        ]
        assert len(lines) < len(text.splitlines())
        return "\n".join(lines)

    emulate("forward", without)
    with pytest.raises(KernelError, match="deadlock of the block of rank"):
        run()


def test_a_stage_that_only_its_own_group_has_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A barrier that expects the arrivals of one group lets others be overwritten."""
    init = Ring.init

    def own(self: Ring) -> None:
        counts = [boxed.peers for boxed in self.boxed]
        for boxed in self.boxed:
            object.__setattr__(boxed, "peers", None)
        init(self)
        for boxed, peers in zip(self.boxed, counts, strict=True):
            object.__setattr__(boxed, "peers", peers)

    monkeypatch.setattr(Ring, "init", own)
    with pytest.raises(KernelError):
        run()


def test_bounds_of_one_group_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that take other numbers of chunks wait for each other."""

    def own(self: GroupPass) -> None:
        """Leave the bounds as they are."""

    monkeypatch.setattr(GroupPass, "_bounds_of_cluster", own)
    arrays = [random(n, 1, 70, 32) for n in range(3)]
    compiled = compiled_for(
        library.attention, arrays, ROWS.format("", 2), is_causal=True
    )
    with pytest.raises(KernelError):
        compiled(*arrays)


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "i=grid,warps:4,cluster:3;p=chunk:16,wgmma,tma",
            "cluster: expected 2, 4 or 8 groups, got 3",
        ),
        (
            "j=grid,block:8,cluster:4;i=grid,warps:4,cluster:4;p=chunk:16,wgmma,tma",
            "cluster: expected 2, 4 or 8 groups, got 16",
        ),
        ("i=grid,warps:4,cluster:2;p=chunk:16,wgmma", "cluster: expected tma as well"),
        (
            "i=grid,persistent:33,warps:4,cluster:2;p=chunk:16,wgmma,tma",
            "persistent: expected whole clusters of 2 groups, got 33",
        ),
    ],
)
def test_schedules_that_are_none(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        parse_grid(text, ["i", "j"])


@pytest.mark.parametrize(
    "text",
    [
        "i=grid,warps:4,regs:2,cluster:2;p=chunk:16,stages:2,wgmma,tma",
        "j=grid,block:8,cluster:4;i=grid,warps:4,regs:2;p=chunk:16,stages:2,wgmma,tma",
        "h=grid,cluster:2;i=grid,warps:4,regs:2,cluster:4;p=chunk:16,stages:2,mma,tma",
    ],
)
def test_schedules_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_grid(text, ["h", "i", "j"])) == text


@pytest.mark.parametrize(
    ("shapes", "schedule", "message"),
    [
        (
            [(2, 64, 32)] * 3,
            "i=grid,cluster:2;" + ROWS.format("", 2).replace(",cluster:2", ""),
            "expected a factor of a product that does not depend on i",
        ),
        (
            [(1, 64, 32)] * 3,
            ROWS.format("", 4),
            "expected tiles of a multiple of 32 rows, got 16",
        ),
    ],
)
def test_what_is_not_shared(shapes: Any, schedule: str, message: str) -> None:
    specs = [moa.ArraySpec(shape, "bfloat16") for shape in shapes]
    jit = moa.jit(library.attention, target="cuda", schedule=schedule)
    with pytest.raises(CompileError, match=re.escape(message)):
        jit.lower(*specs).text("target")


@pytest.mark.parametrize("chip", ["sm_80", "sm_89"])
def test_chips_without_clusters(chip: str) -> None:
    specs = [moa.ArraySpec(x.shape, "bfloat16") for x in (A, B)]
    jit = moa.jit(product, target="cuda", schedule=PRODUCT, chip=chip)
    message = "schedule: cluster: expected a chip from sm_90 on"
    with pytest.raises(CompileError, match=re.escape(message)):
        jit.lower(*specs).text("target")


def test_clusters_are_never_chosen() -> None:
    """Nothing was measured with them."""
    specs = [moa.ArraySpec((1024, 1024), "bfloat16")] * 2
    assert "cluster" not in str(moa.jit(product, target="cuda").lower(*specs).schedules)


# Code.


def ptx(schedule: str, depth: int, is_causal: bool, **options: Any) -> str:
    spec = moa.ArraySpec((2, 1024, depth), "bfloat16")
    jit = moa.jit(library.attention, target="cuda", schedule=schedule, **options)
    return jit.lower(spec, spec, spec, is_causal=is_causal).text("asm")


BEHIND = "j=grid,warps:8,regs:2,cluster:2;p=chunk:128,stages:2,wgmma,tma,behind"


def test_the_instructions() -> None:
    text = ptx(BEHIND, 64, False)
    for pattern, count in (
        (r"\.explicitcluster", 1),
        (r"\.reqnctapercluster 2, 1, 1", 1),
        (r"barrier\.cluster\.arrive;", 2),
        (r"barrier\.cluster\.wait;", 2),
        (r"mapa\.shared::cluster\.u64", None),
        (r"mbarrier\.arrive\.release\.cluster\.shared::cluster\.b64 _,", None),
        (r"mbarrier\.try_wait\.parity\.acquire\.cluster\.shared::cta\.b64 P,", None),
        (r"complete_tx::bytes\.multicast::cluster \[%rd\d+\], \[%rd\d+, \{", None),
    ):
        found = len(re.findall(pattern, text))
        assert found == count if count is not None else found, pattern
    # Queries are loaded once by each group, for itself.
    assert len(re.findall(r"cp\.async\.bulk\.tensor(?![^;]*multicast)", text)) > 0


@pytest.mark.parametrize(("chip", "version"), [("sm_90", "8.0"), ("sm_120", "8.7")])
def test_other_chips(chip: str, version: str) -> None:
    text = ptx(ROWS.format("", 2), 64, True, chip=chip)
    assert f".version {version}" in text
    assert "multicast::cluster" in text


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on this machine")
@pytest.mark.parametrize(
    ("schedule", "depth", "is_causal", "registers"),
    [
        (BEHIND, 128, False, 168),
        (
            "j=grid,groups:2,span:16,warps:4,regs:2,cluster:4;"
            "p=chunk:128,stages:2,wgmma,tma,behind",
            64,
            True,
            128,
        ),
    ],
)
def test_the_assembler(
    schedule: str, depth: int, is_causal: bool, registers: int
) -> None:
    """Registers are handed over as without clusters; nothing is spilled, serialized."""
    log = ptxas.assemble(ptx(schedule, depth, is_causal), "sm_90a").log
    assert f"Used {registers} registers" in log
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    assert "serializ" not in log
    assert "setmaxnreg" not in log
