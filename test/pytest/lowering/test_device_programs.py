"""Products and folds on a GPU as they are chosen: in the emulator, against NumPy."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError
from moa_dialect.lowering import emulator, engine, group_kernel, outline_kernels

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE", "0")


def random(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def wide_product(a: Any, b: Any) -> Any:
    return moa.cast(product(moa.cast(a, "f32"), moa.cast(b, "f32")), "bf16")


def run(
    program: Callable[..., Any], *arrays: np.ndarray, schedule: str = "auto"
) -> tuple[Any, np.ndarray]:
    """What is compiled, and its result in the emulator."""
    jit = moa.jit(program, target="cuda", emulate=True, schedule=schedule)
    compiled = jit.lower(*arrays)
    return compiled, np.asarray(compiled(*arrays)).astype(np.float64)


def assert_near(found: np.ndarray, wanted: np.ndarray, limit: float) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= limit * np.abs(wanted).max()


# Products of matrices.


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "is_loaded"),
    [(70, 64, 128, True), (70, 64, 130, False), (70, 60, 128, False)],
)
def test_a_product_is_loaded_by_the_engine_if_its_rows_allow(
    rows: int, depth: int, columns: int, is_loaded: bool
) -> None:
    """Rows of an array that are no multiple of 16 bytes are copied otherwise."""
    a, b = random(0, rows, depth, dtype=BF16), random(1, depth, columns, dtype=BF16)
    compiled, found = run(wide_product, a, b)
    (schedule,) = compiled.schedules
    assert ("tma" in schedule) == is_loaded
    assert "wgmma" in schedule
    assert_near(found, a.astype(float) @ b.astype(float), 6e-3)


def test_tiles_of_a_product_suit_its_shape() -> None:
    def tile(size: int) -> str:
        specs = [moa.ArraySpec((size, size), "bfloat16")] * 2
        (schedule,) = moa.jit(wide_product, target="cuda").lower(*specs).schedules
        return schedule

    assert tile(4096).startswith("j=grid,block:256;i=grid,warps:8")
    assert tile(1024).startswith("j=grid,block:64;i=grid,warps:8")
    assert tile(512).startswith("j=grid,block:64;i=grid,warps:4")


def test_groups_that_stay_take_tiles_in_turn() -> None:
    """Two groups have eight tiles, and the ring goes on from one to the next."""
    schedule = (
        "j=grid,block:64;i=grid,persistent:2,warps:4,regs:2;"
        "p=chunk:32,stages:3,wgmma,tma"
    )
    a, b = random(0, 250, 80, dtype=BF16), random(1, 80, 128, dtype=BF16)
    compiled, found = run(wide_product, a, b, schedule=schedule)
    assert compiled.schedules == [schedule]
    assert_near(found, a.astype(float) @ b.astype(float), 6e-3)


def test_groups_that_stay_have_one_pass() -> None:
    """Normalized rows of a product are computed twice, by two rings of chunks."""
    schedule = "i=grid,persistent:2,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"

    def normalized(a: Any, b: Any) -> Any:
        return library.softmax(product(moa.cast(a, "f32"), moa.cast(b, "f32")))

    specs = [moa.ArraySpec(shape, "bfloat16") for shape in ((128, 64), (64, 512))]
    jit = moa.jit(normalized, target="cuda", schedule=schedule)
    with pytest.raises(CompileError, match="no code for persistent: several passes"):
        jit.lower(*specs).text("target")


def test_narrow_results_are_stored_sixteen_bytes_at_a_time() -> None:
    a, b = random(0, 70, 32, dtype=BF16), random(1, 32, 64, dtype=BF16)
    compiled, found = run(wide_product, a, b)
    assert "st.global.v4.b32" in compiled.text("asm")
    assert_near(found, a.astype(float) @ b.astype(float), 6e-3)


@pytest.mark.parametrize("shape", [(130, 70, 152), (40, 33, 64)])
def test_square_threads(shape: tuple[int, int, int]) -> None:
    rows, depth, columns = shape
    a, b = random(0, rows, depth), random(1, depth, columns)
    compiled, found = run(product, a, b)
    assert compiled.schedules[0].endswith("mma,square")
    assert_near(found, a.astype(float) @ b, 1e-6)


def test_square_threads_take_no_matrix_instructions() -> None:
    schedule = "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:1,mma,square"
    specs = [moa.ArraySpec((64, 64), "float64")] * 2
    compiled = moa.jit(product, target="cuda", schedule=schedule).lower(*specs)
    with pytest.raises(CompileError, match="products by matrix instructions"):
        compiled.text("target")


@pytest.mark.parametrize("terms", [4, 8, 16])
def test_products_of_f64_by_instructions_of_sixteen_rows(terms: int) -> None:
    schedule = (
        f"j=grid,block:24;i=grid,warps:2,regs:2;p=chunk:16,stages:2,mma,tall:{terms}"
    )
    a, b = random(0, 50, 37, dtype=float), random(1, 37, 30, dtype=float)
    compiled, found = run(product, a, b, schedule=schedule)
    assert f"mma.sync.aligned.m16n8k{terms}.row.col.f64" in compiled.text("asm")
    assert_near(found, a @ b, 1e-14)


def test_instructions_of_sixteen_rows_need_their_chip() -> None:
    schedule = "j=grid,block:24;i=grid,warps:2,regs:2;p=chunk:16,stages:2,mma,tall:4"
    specs = [moa.ArraySpec((64, 64), "float64")] * 2
    old = moa.jit(product, target="cuda", chip="sm_80", schedule=schedule).lower(*specs)
    with pytest.raises(CompileError, match="tall: expected a chip from sm_90 on"):
        old.text("target")
    found = moa.jit(product, target="cuda", chip="sm_80").lower(*specs).schedules
    assert "tall" not in found[0]


RACES = [
    (wide_product, BF16, "j=grid,block:64;i=grid,persistent:2,warps:4,regs:2;"
     "p=chunk:32,stages:2,wgmma,tma"),
    (product, np.float32, "j=grid,block:32;i=grid,warps:2,regs:2;"
     "p=chunk:32,stages:2,mma,square"),
    (product, np.float64, "j=grid,block:16;i=grid,warps:2,regs:2;"
     "p=chunk:16,stages:2,mma,tall:8"),
]  # fmt: skip


def checked(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str]) -> None:
    """Let the emulator look for races, with threads in a random order."""

    class Checked(emulator.Emulator):
        def __init__(self, text: str) -> None:
            super().__init__(change(text), checks=True)

        def launch(self, *arguments: Any) -> None:  # pyright: ignore
            super().launch(*arguments, order="random")

    monkeypatch.setattr(emulator, "Emulator", Checked)
    engine._PLANNED.clear()


@pytest.mark.parametrize(("program", "dtype", "schedule"), RACES)
def test_there_are_no_races(
    program: Callable[..., Any],
    dtype: Any,
    schedule: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked(monkeypatch, lambda text: text)
    a, b = random(0, 140, 64, dtype=dtype), random(1, 64, 128, dtype=dtype)
    _, found = run(program, a, b, schedule=schedule)
    assert_near(found, a.astype(float) @ b.astype(float), 6e-3)


def test_a_ring_that_begins_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that count their chunks anew for each tile read what was there before."""
    anew = property(zero, lambda *_: None)
    monkeypatch.setattr(group_kernel.GroupKernel, "chunks", anew, raising=False)
    a, b = random(0, 140, 96, dtype=BF16), random(1, 96, 128, dtype=BF16)
    _, found = run(wide_product, a, b, schedule=RACES[0][2])
    wanted = a.astype(float) @ b.astype(float)
    assert np.abs(found - wanted).max() > 0.1 * np.abs(wanted).max()


def zero(kernel: Any) -> Any:
    return kernel.number(0)


# Folds.


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("program", "shape", "wanted", "launches"),
    [
        (lambda x: moa.reduce("add", x), (70001,), lambda x: x.sum(), 2),
        (
            lambda x: moa.reduce("max", moa.ravel(x)),
            (300, 200),
            lambda x: x.max(),
            2,
        ),
        (
            lambda x: x / moa.sqrt(moa.reduce("add", x * x)),
            (30000,),
            lambda x: x / np.sqrt((x * x).sum()),
            3,
        ),
        (lambda x: moa.reduce("add", x), (3000, 8), lambda x: x.sum(0), 2),
        (lambda x: moa.reduce("add", x), (500, 72), lambda x: x.sum(0), 2),
        (library.softmax, (2, 20001), softmax, 2),
        (library.softmax, (3, 5000), softmax, 1),
        (library.softmax, (1000, 8), softmax, 1),
        (
            library.logsumexp,
            (1, 30000),
            lambda x: np.log(np.exp(x).sum(-1)),
            2,
        ),
        (
            lambda x: moa.reduce("add", (x - moa.reduce("add", x) / 30000.0) ** 2.0),
            (30000,),
            lambda x: ((x - x.mean()) ** 2).sum(),
            2,
        ),
    ],
    ids=[
        "total",
        "largest",
        "normalized",
        "narrow columns",
        "columns",
        "long rows",
        "few rows",
        "short rows",
        "one row",
        "variance",
    ],
)
def test_no_fold_is_left_to_one_thread(
    program: Callable[..., Any],
    shape: tuple[int, ...],
    wanted: Callable[[np.ndarray], np.ndarray],
    launches: int,
) -> None:
    x = random(3, *shape)
    compiled, found = run(program, x)
    assert compiled.text("target").count('"gpu.launch_func"') == launches
    assert_near(found, wanted(x.astype(np.float64)), 2e-6)


def test_rows_of_outputs_have_several_groups() -> None:
    """Of one long row, which 25 parts are merged for, each group has a block."""
    compiled = moa.jit(library.softmax, target="cuda").lower(
        moa.ArraySpec((1, 100000), "float32")
    )
    _, merge = compiled.schedules
    assert merge.startswith("j=grid,block:1024;p=chunk:")


def test_merging_parts_takes_four_threads_for_an_element() -> None:
    shapes = [(8, 1, 64), (8, 1024, 64), (8, 1024, 64)]
    compiled = moa.jit(library.attention, target="cuda").lower(
        *(moa.ArraySpec(shape, "bfloat16") for shape in shapes)
    )
    _, merge = compiled.schedules
    assert merge == "k=grid,warps:4,regs:1;p=chunk:8,stages:1"


# Elements: several for a thread.


@pytest.mark.parametrize(
    ("program", "shape", "wanted"),
    [
        (lambda x: moa.transpose(x), (70, 100), np.transpose),
        (lambda x: x * x + x, (37, 101), lambda x: x * x + x),
        (lambda x: moa.reverse(x), (61, 50), lambda x: x[::-1]),
    ],
    ids=["transposed", "squares", "reversed"],
)
@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=str)
def test_a_thread_has_several_elements(
    monkeypatch: pytest.MonkeyPatch,
    program: Callable[..., Any],
    shape: tuple[int, ...],
    wanted: Callable[[np.ndarray], np.ndarray],
    dtype: Any,
) -> None:
    monkeypatch.setattr(outline_kernels, "MANY", 1000)
    x = random(4, *shape, dtype=dtype)
    compiled, found = run(program, x)
    text = compiled.text("asm")
    assert text.count("ld.global") > 4  # All of a thread's, then the last ones.
    assert_near(found, wanted(x).astype(np.float64), 1e-2)


def test_few_elements_have_a_thread_each() -> None:
    compiled, _ = run(lambda x: x * x, random(5, 37, 101))
    assert compiled.text("asm").count("ld.global") == 1
