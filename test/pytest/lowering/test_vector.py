"""Kernels in vectors give what the interpreter gives, under any schedule."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING
from moa_dialect.lowering.to_vector import ToVectorPass
from moa_dialect.parsing import ModuleParser
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.kernels import SCHEDULE, ignores_nan, read_kernel
from moa_dialect.passes.lift import (
    TILE_BYTES,
    LiftPass,
    Schedule,
    choose,
    parse_schedule,
    weighed,
)
from moa_dialect.passes.machine import MACHINES
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.universe import register_dialects

Program = Callable[..., Any]
RTOL = {"float64": 1e-13, "float32": 3e-6, "float16": 4e-3, "bfloat16": 2e-2}


def full(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def window(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True, window=5)


def band(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, window=5)


def product(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def by_rows(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, moa.transpose(b))


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def under(
    program: Program, arrays: list[np.ndarray], schedule: str, is_lifted: bool = True
) -> tuple[np.ndarray, ...]:
    """What a program gives, compiled under a schedule."""
    module = moa.jit(program).lower(*arrays).module("fused")
    LiftPass(schedule, strided=True).apply(Context(), module)
    for pass_ in FUSING["target"][1:]:
        pass_.apply(Context(), module)
    assert any(op.name == "scf.parallel" for op in module.walk()) == is_lifted
    result = kernel_of(module, entries(module)[0])(*arrays)
    return result if isinstance(result, tuple) else (result,)


def agree(given: Any, program: Program, arrays: list[np.ndarray]) -> None:
    """Check results against the interpreter, which adds in the order of f64."""
    expected = moa.interpret(program, *arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype
        rtol = RTOL.get(other.dtype.name, 0)
        one, other = (np.asarray(x, float) for x in (one, other))
        size = float(np.max(np.abs(other), initial=0, where=np.isfinite(other)))
        np.testing.assert_allclose(one, other, rtol, rtol * size)


QUERIES = (
    "j=procs,regs:1,lanes:1;p=chunk:1,regs:1",
    "j=procs,regs:2,lanes:4;p=chunk:7,regs:3",
    "j=procs,regs:3,lanes:8;p=chunk:96,regs:8",
    "j=procs,regs:2,lanes:16;p=chunk:8,regs:12",
)
KEYS = (
    "p=chunk:1,block:1,regs:1,lanes:1",
    "p=chunk:2,block:3,regs:2,lanes:4",
    "p=chunk:3,block:2,regs:1,lanes:16",
)


@pytest.mark.parametrize("schedule", QUERIES)
@pytest.mark.parametrize("program", [full, causal, window, band])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 31, 33])
def test_queries_in_the_lanes(program: Program, schedule: str, n: int) -> None:
    """Extents below, at and above lanes, blocks and chunks."""
    arrays = [numbers(2, n, 5), numbers(2, n, 5, seed=1), numbers(2, n, 19, seed=2)]
    agree(under(program, arrays, schedule), program, arrays)


@pytest.mark.parametrize("schedule", KEYS)
@pytest.mark.parametrize("m", [1, 15, 16, 17, 49])
def test_keys_in_the_lanes(schedule: str, m: int) -> None:
    arrays = [numbers(2, 3, 5), numbers(2, m, 5, seed=1), numbers(2, m, 19, seed=2)]
    agree(under(full, arrays, schedule), full, arrays)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("program", [full, causal])
def test_element_types(program: Program, dtype: Any) -> None:
    arrays = [numbers(1, 21, 16, dtype=dtype, seed=k) for k in range(3)]
    agree(under(program, arrays, "auto"), program, arrays)


ROWS: dict[str, Program] = {
    "softmax": library.softmax,
    "log_softmax": library.log_softmax,
    "logsumexp": library.logsumexp,
    "variance": library.variance,
    "layernorm": library.layernorm,
    "l2_norm": library.l2_norm,
    "entropy": lambda x: library.entropy(library.softmax(x)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("n", [1, 16, 77, 300])
def test_rows_in_the_lanes(name: str, n: int) -> None:
    """Lanes have states of their own, which are merged."""
    arrays = [numbers(3, n) + 10]
    schedule = "p=chunk:2,block:2,regs:2,lanes:4"
    agree(under(ROWS[name], arrays, schedule), ROWS[name], arrays)


@pytest.mark.parametrize("program", [product, by_rows])
@pytest.mark.parametrize(
    "schedule",
    [
        "auto",
        "i=procs,block:5;j=procs,regs:2,lanes:4;p=chunk:9,regs:3",
        "j=procs,block:4;i=procs,regs:1,lanes:8;p=chunk:50,regs:2",
        "j=procs,regs:2,lanes:8",
        "p=chunk:3,block:2,regs:2,lanes:4",
    ],
)
def test_products(program: Program, schedule: str) -> None:
    b = (23, 17) if program is product else (17, 23)
    arrays = [numbers(13, 23), numbers(*b, seed=1)]
    agree(under(program, arrays, schedule), program, arrays)


def test_integers_and_truth_values() -> None:
    a = np.random.default_rng(0).integers(-9, 9, (13, 40))
    agree(under(product, [a, a.T.copy()], "auto"), product, [a, a.T.copy()])

    def any_of(a: Any) -> Any:
        return moa.reduce("or", a)

    agree(under(any_of, [a > 7], "auto"), any_of, [a > 7])


@pytest.mark.parametrize("n", [0, 1, 5, 64, 65, 200])
def test_one_kernel_for_every_length(n: int) -> None:
    specs = [moa.ArraySpec(("h", "n", 8), np.float32)] + [
        moa.ArraySpec(("h", "m", 8), np.float32)
    ] * 2
    kernel = moa.jit(causal).lower(*specs)
    arrays = [numbers(2, n, 8), numbers(2, n + 3, 8), numbers(2, n + 3, 8)]
    agree((kernel(*arrays),), causal, arrays)


@pytest.mark.parametrize("program", [full, causal])
def test_results_do_not_depend_on_the_number_of_threads(program: Program) -> None:
    arrays = [numbers(2, 150, 16, seed=k) for k in range(3)]
    compiled = moa.jit(program)
    results: list[np.ndarray] = []
    for threads in (1, 2, 3):
        moa.set_num_threads(threads)
        results.append(compiled(*arrays))
    moa.set_num_threads(None)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_what_has_no_vector_code_is_compiled_all_the_same() -> None:
    a = numbers(40)

    def alternating(a: Any) -> Any:
        return moa.reduce("sub", a)

    agree(under(alternating, [a], "auto", is_lifted=False), alternating, [a])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 100])
def test_scans(n: int) -> None:
    """A sum that ends at an index: its own indices are in the lanes."""

    def sums(a: Any) -> Any:
        return moa.scan("add", a)

    agree(under(sums, [numbers(n)], "auto"), sums, [numbers(n)])
    rows = numbers(5, n)
    agree(under(sums, [rows], "auto"), sums, [rows])


def test_folds_that_differ_between_lanes_by_their_bounds_alone() -> None:
    """What is folded is the same in all lanes: a mask would have nothing to hide."""

    def sums(a: Any) -> Any:
        return moa.scan("add", a)

    rows = numbers(7, 9)
    schedule = "j=procs,block:9;i=procs,regs:1,lanes:4"
    agree(under(sums, [rows], schedule, is_lifted=False), sums, [rows])


# NaN


def kernel_read(program: Program, *arrays: np.ndarray) -> Any:
    module = moa.jit(program).lower(*arrays).module("fused")
    (function,) = functions_of(module)
    (comprehension,) = comprehensions(function)
    return read_kernel(comprehension, function)


def test_a_maximum_ignores_nan_where_a_sum_shows_it() -> None:
    kernel = kernel_read(library.logsumexp, numbers(3, 40))
    (pass_,) = kernel.passes
    assert ignores_nan(kernel, pass_, pass_.accumulators[0])
    assert not ignores_nan(kernel, pass_, pass_.accumulators[1])


def test_a_maximum_that_is_a_result_does_not_ignore_nan() -> None:
    def top_and_sum(x: Any) -> Any:
        m = moa.omega(lambda r: moa.reduce("max", r), [1], x)
        e = moa.omega(
            lambda r: moa.reduce("add", moa.exp(r - moa.reduce("max", r))), [1], x
        )
        return m, e

    kernel = kernel_read(top_and_sum, numbers(3, 40))
    (pass_,) = kernel.passes
    assert not ignores_nan(kernel, pass_, pass_.accumulators[0])


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "layernorm", "top"])
def test_nan_is_where_the_interpreter_has_it(name: str) -> None:
    def top(x: Any) -> Any:
        return moa.omega(lambda r: moa.reduce("max", r), [1], x)

    program = top if name == "top" else ROWS[name]
    x = numbers(6, 90)
    x[1, 70], x[3, 0], x[4, 3] = np.nan, np.nan, -np.inf
    given = cast(np.ndarray, moa.jit(program)(x))
    expected = cast(np.ndarray, moa.interpret(program, x))
    np.testing.assert_array_equal(np.isnan(given), np.isnan(expected))


def test_a_sum_of_minus_zeros_is_one() -> None:
    x = np.full((2, 37), -0.0)
    sums = moa.omega(lambda r: moa.reduce("add", r), [1], x)
    assert np.signbit(np.asarray(sums)).all()


# Schedules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no axis has lanes"),
        ("i", "expected axis=resource:extent"),
        (
            "i=cores:2",
            "expected procs, cyclic, chunk, block, regs, lanes, columns, pairs, aligned, ahead "
            "or each, got cores",
        ),
        ("i=lanes:0", "lanes of at least 1, got 0"),
        ("i=lanes:3", "lanes are a power of 2, got 3"),
        ("i=lanes:4,chunk:2", "i is not folded and has no chunks"),
        ("z=lanes:4", "expected axes i, j, p, got z"),
        ("=lanes:4", "expected axis=resource:extent"),
        ("i=lanes:4;i=procs", "expected each axis once, got i twice"),
        ("i=lanes:4,lanes:8", "i has lanes twice"),
        ("i=lanes:4;j=lanes:4", "expected one axis in lanes, got i and j"),
        ("p=lanes:4;j=lanes:4", "expected one axis in lanes, got folded axes and j"),
        ("i=block:4;j=block:4;p=lanes:4", "one axis with a block, got i and j"),
        ("i=lanes:4;p=chunk:8,pairs:2", "pairs has no extent, got 'pairs:2'"),
        ("i=lanes:128", "lanes of at most 64, got 128"),
        ("i=lanes:4,regs:65", "regs of at most 64, got 65"),
        ("p=lanes:4,block:65", "block of folded axes of at most 64, got 65"),
        ("i=lanes:4;p=chunk:9999999999", "chunk of at most 1048576, got 9999999999"),
        (
            "i=lanes:4,block:4",
            "i: expected procs, cyclic, regs or lanes for an axis in",
        ),
        (
            "i=lanes:4;j=regs:4",
            "j: expected procs, cyclic, block or columns for an axis, got",
        ),
        (
            "i=lanes:4;p=block:4",
            "p: expected chunk, regs, pairs, aligned or ahead for a folded axis, got",
        ),
        (
            "p=lanes:4,procs",
            "p: expected chunk, block, .* folded axis in the lanes, got",
        ),
        ("i=procs:2,cyclic,lanes:4", "i: expected an extent of procs or cyclic, got"),
        ("i=cyclic,lanes:4;j=procs:2", "how tasks are dealt out, got i and j"),
    ],
)
def test_text_that_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        parse_schedule(text, ["i", "j"])


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("i", 16, 2, 12, 96),
        Schedule("", 8, 4, 3, 32),
        Schedule("j", 16, 4, 6, 256, "i", 96),
        Schedule("", 16, 4, 4, 128, "j", 8, ahead=True, each=True),
        Schedule("i", 16, 2, 12, 96, dealt="i", procs=3),
        Schedule("j", 16, 4, 6, 256, "i", 96, dealt="i", cyclic=2),
        Schedule("", 8, 4, 3, 32, dealt="j", cyclic=1),
        Schedule("j", 8, 4, 3, 32, dealt="i", procs=2),
    ],
)
def test_a_schedule_reads_as_it_prints(schedule: Schedule) -> None:
    assert parse_schedule(str(schedule), ["i", "j"]) == schedule


def test_folded_axes_may_have_names_of_their_own() -> None:
    found = parse_schedule("i=lanes:4;k=chunk:7,regs:3", ["i"], ["p", "k"])
    assert found == Schedule("i", 4, 1, 3, 7)
    with pytest.raises(CompileError, match="expected folded axes once, got them twice"):
        parse_schedule("i=lanes:4;k=chunk:7;p=chunk:2", ["i"], ["p", "k"])


def test_a_schedule_is_for_the_kernels_that_have_its_axes() -> None:
    def both(a: Any) -> Any:
        return moa.reduce("add", a), a + 1.0

    a = numbers(6, 40)
    compiled = moa.jit(both, schedule="j=procs,regs:1,lanes:8").lower(a)
    agree(compiled(a), both, [a])
    assert "j=procs,regs:1,lanes:8;p=chunk:1,regs:1" in compiled.schedules


@pytest.mark.parametrize("deal", ["procs", "procs:2", "procs:50", "cyclic", "cyclic:3"])
@pytest.mark.parametrize(
    "schedule",
    [
        "i={};j=procs,regs:1,lanes:4;p=chunk:5,regs:2",
        "i=procs,block:3;j={},regs:1,lanes:4;p=chunk:5,regs:2",
        "i={};p=chunk:2,block:2,regs:1,lanes:4",
    ],
)
def test_tasks_are_dealt_out_as_the_schedule_says(schedule: str, deal: str) -> None:
    deal = deal if "cyclic" not in deal else f"procs,{deal}"
    a, b = numbers(19, 23), numbers(17, 23, seed=1)
    moa.set_num_threads(3)
    try:
        agree(under(by_rows, [a, b], schedule.format(deal)), by_rows, [a, b])
    finally:
        moa.set_num_threads(None)


@pytest.mark.parametrize(
    ("deal", "expected"), [("procs:2", "moa.runs = 2"), ("cyclic:3", "at_a_time = 3")]
)
def test_loops_say_how_tasks_are_dealt_out(deal: str, expected: str) -> None:
    schedule = f"i={deal};j=procs,regs:1,lanes:4;p=chunk:5,regs:2"
    compiled = moa.jit(by_rows, schedule=schedule).lower(numbers(9, 8), numbers(9, 8))
    assert expected in compiled.text("target")


def test_a_block_may_be_longer_than_its_axis() -> None:
    a, b = numbers(5, 23), numbers(23, 17, seed=1)
    schedule = "i=procs,block:64;j=procs,regs:1,lanes:8;p=chunk:9,regs:3"
    agree(under(product, [a, b], schedule), product, [a, b])


def test_an_axis_called_like_the_folded_ones_has_another_name() -> None:
    text = """
      func.func @sums(%a: tensor<8x600xf32>) -> tensor<8xf32> {
        %m = moa.extent %a, 0 : tensor<8x600xf32>
        %n = moa.extent %a, 1 : tensor<8x600xf32>
        %zero = arith.constant 0 : index
        %s = moa.comprehension [%p < %m] -> tensor<8xf32> {
          %t = moa.fold add [%q = %zero to %n] -> f32 {
            %x = moa.at %a[%p, %q] : tensor<8x600xf32>
            moa.yield %x : f32
          }
          moa.yield %t : f32
        }
        func.return %s : tensor<8xf32>
      }
    """
    a = numbers(8, 600)
    context = Context()
    register_dialects(context)
    module = ModuleParser(context, text).parse_module()
    for pass_ in (LiftPass(machine="avx512"), *FUSING["target"][1:]):
        pass_.apply(Context(), module)
    np.testing.assert_allclose(kernel_of(module, "sums")(a), a.sum(-1), 1e-4, 1e-4)


def test_strict_code_is_an_error_where_there_is_none() -> None:
    def sums(a: Any) -> Any:
        return moa.scan("add", a)

    module = moa.jit(sums).lower(numbers(7, 9)).module("fused")
    schedule = "j=procs,block:9;i=procs,regs:1,lanes:4"
    LiftPass(schedule, strided=True).apply(Context(), module)
    with pytest.raises(
        CompileError, match=r"@sums: no vector code under .* by its bou"
    ):
        ToVectorPass(strict=True).apply(Context(), module)


def chosen(program: Program, *arrays: np.ndarray, machine: str = "avx512") -> Schedule:
    schedule = choose(kernel_read(program, *arrays), MACHINES[machine])
    assert schedule is not None
    return schedule


@pytest.mark.parametrize("machine", MACHINES)
def test_registers_are_enough(machine: str) -> None:
    arrays = [numbers(2, 256, 64, seed=k) for k in range(3)]
    schedule = chosen(full, *arrays, machine=machine)
    used = schedule.vectors * schedule.registers + schedule.vectors + 1
    assert used <= MACHINES[machine].registers
    assert schedule.lanes * 4 == MACHINES[machine].vector_bytes


def test_many_queries_are_in_the_lanes_and_one_query_leaves_them_to_keys() -> None:
    many = [numbers(2, n, 64) for n in (256, 256, 256)]
    one = [numbers(2, n, 64) for n in (1, 256, 256)]
    assert chosen(full, *many).lane == "j"
    assert chosen(full, *one).lane == ""


def test_long_rows_are_in_the_lanes() -> None:
    assert chosen(library.logsumexp, numbers(64, 4096)).lane == ""


def test_the_attribute_is_a_schedule() -> None:
    module = moa.jit(product).lower(numbers(8, 9), numbers(9, 10)).module("fused")
    LiftPass().apply(Context(), module)
    (text,) = [
        op.attributes[SCHEDULE] for op in module.walk() if SCHEDULE in op.attributes
    ]
    assert "lanes:" in str(text)


def test_a_fold_is_in_no_pass_before_one_it_needs() -> None:
    """Each is of what the one before gives, and not of those before that."""

    def row(x: Any) -> Any:
        value = moa.reduce("max", x)
        for _ in range(3):
            value = moa.reduce("max", moa.where(x < value, x, -np.inf))
        return value

    def rows(x: Any) -> Any:
        return moa.omega(row, 1, x)

    x = np.random.default_rng(0).normal(size=(3, 4000))
    expected = [sorted(set(line))[-4] for line in x]
    np.testing.assert_array_equal(moa.jit(rows)(x), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("heads", "keys", "n"), [(8, 2, 1), (4, 1, 1), (6, 2, 3), (3, 1, 2), (20, 1, 1)]
)
def test_heads_that_share_keys_are_in_the_lanes(
    heads: int, keys: int, n: int, dtype: Any
) -> None:
    """Also together with queries, and where they do not fill the lanes."""
    arrays = [
        numbers(*shape, dtype=dtype, seed=k)
        for k, shape in enumerate([(heads, n, 24), (keys, 77, 24), (keys, 77, 19)])
    ]
    axis = "i" if keys == 1 else "i_g"
    axis = "ij_g" if n > 1 else axis
    pairs = ",pairs" if dtype == ml_dtypes.bfloat16 else ""
    schedule = f"{axis}=procs,regs:2,lanes:8;p=chunk:32,regs:5{pairs},ahead"
    agree(under(full, arrays, schedule), full, arrays)


def chosen_for(heads: int, keys: int, n: int, m: int, dtype: str = "float32") -> str:
    """The schedule of attention of a head dimension of 128."""
    specs = [
        moa.ArraySpec(shape, dtype)
        for shape in ((heads, n, 128), (keys, m, 128), (keys, m, 128))
    ]
    module = moa.jit(full).lower(*specs).module("fused")
    LiftPass(machine="avx512bf16").apply(Context(), module)
    (op,) = comprehensions(functions_of(module)[0])
    return cast(Any, op.attributes[SCHEDULE]).data


def test_schedules_where_keys_are_shared() -> None:
    wide = "i_g=procs,block:4;p=chunk:256,block:4,regs:4,lanes:16,ahead,each"
    assert chosen_for(32, 8, 1, 8192) == wide
    narrow = "i_g=procs,block:4;p=chunk:256,block:4,regs:4,lanes:16,pairs,ahead,each"
    assert chosen_for(32, 8, 1, 8192, "bfloat16") == narrow
    # Twelve rows side by side; or all heads in the lanes.
    assert chosen_for(32, 8, 3, 8192).startswith("ij_g=procs,block:12;")
    assert chosen_for(32, 8, 3, 8192, "bfloat16").startswith("ij_g=procs,block:12;")
    assert chosen_for(32, 1, 1, 8192).startswith("i=procs,regs:2,lanes:16;")
    # Queries fill the lanes; two heads do not, nor does one.
    assert chosen_for(32, 8, 16, 8192).startswith("j=procs")
    assert chosen_for(16, 8, 1, 8192).startswith("i_g=procs,block:2;")
    assert chosen_for(8, 8, 1, 8192) == "p=chunk:256,block:1,regs:8,lanes:16,ahead,each"


def test_keys_in_the_lanes_have_tiles_that_fit() -> None:
    """Chunks are short where values are long."""
    arrays = [numbers(2, 1, 128), numbers(2, 300, 128, seed=1)]
    arrays.append(numbers(2, 300, 128, seed=2))
    found = weighed(kernel_read(full, *arrays), MACHINES["avx512"])
    inside = [schedule for schedule in found if not schedule.lane]
    assert inside
    for schedule in inside:
        assert schedule.chunk * schedule.width * 128 * 4 <= TILE_BYTES
    agree(under(full, arrays, str(inside[0])), full, arrays)
