"""Blocks of rows: of any number of rows, and turned where they are stored."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering.compiler import llvm_ir_text
from moa_dialect.lowering.emitter import ROLLED
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import read_kernel
from moa_dialect.passes.lift import LiftPass, choose
from moa_dialect.passes.machine import MACHINES
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import Schedule


def linear(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, moa.transpose(b))


def halves(a: Any, b: Any) -> Any:
    """A linear map of bf16, summed in f32."""
    return linear(moa.cast(a, "f32"), moa.cast(b, "f32"))


def rounded(a: Any, b: Any) -> Any:
    return moa.cast(halves(a, b), "bf16")


def signs(a: Any, b: Any) -> Any:
    """Truth values, which take a byte each."""
    return linear(a, b) > 0.0


PROGRAMS: dict[str, tuple[Callable[..., Any], Any]] = {
    "f32": (linear, np.float32),
    "f64": (linear, np.float64),
    "bf16": (halves, ml_dtypes.bfloat16),
    "rounded": (rounded, ml_dtypes.bfloat16),
    "signs": (signs, np.float32),
}
DEPTH = 19

IN_BLOCKS = "i=procs,block:12;j=procs,regs:2,lanes:{};p=chunk:8,regs:6"
"""Rows in blocks, columns in the lanes."""

TURNED = "j=procs,block:12;i=procs,regs:2,lanes:{};p=chunk:8,regs:6"
"""Rows in the lanes, so that results have to change places."""


def lowered(name: str, schedule: str, rows: int | str, columns: int | str) -> ModuleOp:
    """A linear map under a schedule in vectors, which it has to have."""
    program, dtype = PROGRAMS[name]
    given = ((rows, DEPTH), (columns, DEPTH))
    specs = [moa.ArraySpec(shape, dtype) for shape in given]
    module = moa.jit(program).lower(*specs).module("fused")
    lanes = 8 if dtype == np.float64 else 16
    LiftPass(schedule.format(lanes)).apply(Context(), module)
    FUSING["target"][1].apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk())
    return module


@cache
def compiled(
    name: str, schedule: str, rows: int | str, columns: int | str
) -> Callable[..., Any]:
    module = lowered(name, schedule, rows, columns)
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    return kernel_of(module, entries(module)[0])


def agree(name: str, schedule: str, sizes: tuple[int, int], given: Any) -> None:
    """A linear map is that of NumPy for these rows and columns."""
    _, dtype = PROGRAMS[name]
    random = np.random.default_rng(sum(sizes))
    # Sums of small numbers are exact, in any order.
    a, b = (random.integers(-3, 4, (n, DEPTH)).astype(dtype) for n in sizes)
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    found = compiled(name, schedule, *given)(a, b)
    expected = exact > 0 if name == "signs" else exact.astype(found.dtype)
    np.testing.assert_array_equal(found, expected)


ROWS = [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 18, 23, 24, 25, 31, 32, 33, 47, 48, 49, 64]


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@settings(max_examples=20, deadline=None)
@given(m=st.sampled_from(ROWS))
def test_rows_in_any_number_are_taken_in_blocks(name: str, m: int) -> None:
    """Below, at and above registers and blocks; blocks are as long as makes them even."""
    agree(name, IN_BLOCKS, (m, 37), ("m", 37))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@settings(max_examples=20, deadline=None)
@given(m=st.sampled_from(ROWS), n=st.sampled_from([*ROWS, 70]))
def test_results_are_turned_in_squares(name: str, m: int, n: int) -> None:
    """Rows are in the lanes: whole squares, and the ends of rows and columns."""
    agree(name, TURNED, (m, n), ("m", "n"))


@pytest.mark.parametrize("n", [12, 13, 16, 24, 31, 37])
@pytest.mark.parametrize("m", [1, 32, 33, 50])
@pytest.mark.parametrize("name", ["f32", "f64"])
def test_results_of_known_extents_are_turned(name: str, m: int, n: int) -> None:
    """The last block is shifted back; what two tasks have is stored twice."""
    agree(name, TURNED, (m, n), (m, n))


@pytest.mark.parametrize("given", [("m", 37), (50, 37), ("m", "n")])
def test_turned_results_are_stored_in_vectors(given: tuple[Any, Any]) -> None:
    module = lowered("f32", TURNED, *given)
    (loop,) = (op for op in module.walk() if op.name == "scf.parallel")
    single = [op for op in loop.walk() if isinstance(op, memref.StoreOp)]
    assert all(isinstance(op.memref.owner, memref.AllocaOp) for op in single)
    masked = [op for op in loop.walk() if isinstance(op, vector.MaskedStoreOp)]
    assert masked  # The ends of rows of results.


@pytest.mark.parametrize("columns", [64, "n"])
def test_a_block_of_few_columns_is_not_turned(columns: int | str) -> None:
    """A square would be empty for the most part."""
    few = "j=procs,block:4;i=procs,regs:2,lanes:16;p=chunk:8,regs:4"
    with pytest.raises(CompileError, match="result 0 along i lie a row apart"):
        lowered("f32", few, "m", columns)


def chosen(program: Callable[..., Any], *shapes: tuple[int | str, ...]) -> Schedule:
    """The schedule of a program in f32 on a machine with AVX-512."""
    specs = [moa.ArraySpec(shape, np.float32) for shape in shapes]
    module = moa.jit(program).lower(*specs).module("fused")
    (function,) = functions_of(module)
    (comprehension,) = comprehensions(function)
    schedule = choose(read_kernel(comprehension, function), MACHINES["avx512"])
    assert schedule is not None
    return schedule


def test_rows_in_any_number_are_blocked() -> None:
    """Not in the lanes: there may be few of them."""
    schedule = chosen(linear, ("m", 384), (384, 384))
    assert (schedule.blocked, schedule.lane) == ("i", "j")
    assert schedule.block > 100


def test_fewer_rows_side_by_side_if_their_distance_is_not_known() -> None:
    """Each has its address in a general register."""
    known = chosen(linear, (416, 384), (384, 384))
    unknown = chosen(linear, (416, "k"), (384, "k"))
    assert unknown.registers <= 6 < known.registers

    def attended(q: Any) -> Any:
        return moa.attention(q, q, q, is_causal=True)

    # Keys of a head are 64 apart however many there are.
    known = chosen(attended, (2, 1024, 64))
    unknown = chosen(attended, (2, "n", 64))
    assert unknown.registers * unknown.vectors == known.registers * known.vectors


@pytest.mark.parametrize("m", [0, 1, 15, 16, 17, 40])
def test_axes_of_any_extent_change_places_in_squares(m: int) -> None:
    def swapped(a: Any) -> Any:
        return moa.transpose(a) * 2.0

    schedule = chosen(swapped, ("m", "n"))
    assert schedule.blocked
    assert schedule.lane
    a = np.random.default_rng(m).standard_normal((m, 33)).astype(np.float32)
    turned = moa.jit(swapped, specs=[moa.ArraySpec(("m", "n"), np.float32)])
    np.testing.assert_array_equal(turned(a), 2 * a.T)


def product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def test_a_few_rows_have_long_pieces_of_what_they_share() -> None:
    schedule = chosen(product, (3, 2048), (2048, 2048))
    assert (schedule.blocked, schedule.block, schedule.registers) == ("i", 3, 3)
    assert schedule.vectors == 8


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize(("k", "n"), [(300, 256), (257, 300), (20, 511)])
def test_products_of_a_few_rows_with_long_pieces(m: int, k: int, n: int) -> None:
    random = np.random.default_rng(m + k)
    a, b = (random.integers(-3, 4, s).astype(np.float32) for s in ((m, k), (k, n)))
    schedule = f"i=procs,block:{m};j=procs,regs:8,lanes:16;p=chunk:256,regs:{m}"
    found = moa.jit(product, schedule=schedule)(a, b)
    np.testing.assert_array_equal(found, a @ b)


def sums_of(module: ModuleOp) -> list[scf.ForOp]:
    """The loops that sum products."""
    return [
        op
        for op in module.walk()
        if isinstance(op, scf.ForOp)
        and any(isinstance(inner, vector.FMAOp) for inner in op.body.block.ops)
    ]


def test_loops_whose_sums_fill_the_registers_are_not_unrolled() -> None:
    full = "i=procs,block:12;j=procs,regs:4,lanes:{};p=chunk:8,regs:6"
    module = module_of(full)
    loops = sums_of(module)
    assert loops
    assert all(ROLLED in loop.attributes for loop in loops)
    for few in (IN_BLOCKS, "i=procs,block:3;j=procs,regs:1,lanes:{};p=chunk:8,regs:3"):
        assert not any(ROLLED in loop.attributes for loop in sums_of(module_of(few)))
    for pass_ in FUSING["target"][2:]:
        pass_.apply(Context(), module)
    assert "llvm.loop.unroll.disable" in llvm_ir_text(module)


def module_of(schedule: str) -> ModuleOp:
    return lowered("f32", schedule, 24, 64)


def test_addresses_of_copies_differ_by_numbers() -> None:
    """Then each is part of its load, and takes no register."""
    (loop, *_) = sums_of(module_of(IN_BLOCKS))
    loads = [op for op in loop.body.block.ops if isinstance(op, memref.LoadOp)]
    bases: set[Any] = set()
    numbers: set[int] = set()
    for load in loads:
        address = load.indices[0].owner
        assert isinstance(address, arith.AddiOp)
        number = address.rhs.owner
        if isinstance(number, arith.ConstantOp):
            assert isinstance(number.value, IntegerAttr)
            numbers.add(number.value.value.data)
            bases.add(address.lhs)
        else:
            bases.add(address.result)
    assert len(bases) == 1
    assert numbers == {DEPTH * copy for copy in range(1, 6)}
