"""Cascades in parts give what they give in one, at every stage."""

# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import CompileError
from moa_dialect.interpreter import interpret_module
from moa_dialect.lowering.engine import entries, kernel_of
from moa_dialect.lowering.pipelines import FUSING, STAGES
from moa_dialect.ops.normal_form import CascadeOp, ComprehensionOp, FixedExtentOp
from moa_dialect.passes.machine import host_machine
from moa_dialect.passes.split_cascades import SplitCascadesPass
from moa_dialect.passes.to_onf import PARTS
from moa_dialect.passes.verify import VerifyPass

Program = Callable[..., Any]
Arrays = list[np.ndarray]
RTOL = {"float64": 1e-12, "float32": 5e-6, "bfloat16": 2e-2}
STAGE = ("fused", "onf", "compiled")


def causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def window(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True, window=9)


def with_lse(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, return_lse=True)


ATTENTION: list[Program] = [moa.attention, causal, window, with_lse]
ROWS: list[Program] = [
    library.logsumexp,
    library.variance,
    library.softmax,
    library.layernorm,
]


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def states(module: ModuleOp) -> list[ComprehensionOp]:
    """The comprehensions of a module that give states of parts."""
    return [
        op
        for op in module.walk()
        if isinstance(op, ComprehensionOp) and PARTS in op.attributes
    ]


def numbers_of_parts(module: ModuleOp) -> list[int]:
    """How many parts there are, for each cascade that is split."""
    found: list[int] = []
    for op in states(module):
        extent = op.extents[-1].owner
        assert isinstance(extent, FixedExtentOp)
        found.append(extent.static_value)
    return found


def split(
    program: Program, specs: list[Any], parts: int | str, places: int = 1
) -> ModuleOp:
    """A program at the stage fused, its cascades split."""
    module = moa.jit(program).lower(*specs).module("fused")
    SplitCascadesPass(parts, places).apply(Context(), module)
    module.verify()
    return module


def run(module: ModuleOp, arrays: Arrays, stage: str) -> tuple[np.ndarray, ...]:
    """What a module at the stage fused gives, further down."""
    if stage == "compiled":
        for pass_ in FUSING["target"]:
            pass_.apply(Context(), module)
        given = kernel_of(module, entries(module)[0])(*arrays)
        return given if isinstance(given, tuple) else (given,)
    if stage == "onf":
        for pass_ in STAGES["onf"]:
            pass_.apply(Context(), module)
    return tuple(interpret_module(module, entries(module)[0], arrays))


def agree(
    program: Program, arrays: Arrays, parts: int, stage: str, dynamic: bool = False
) -> None:
    """Check a program in parts against the program."""
    specs: list[Any] = list(arrays)
    if dynamic:
        names = {arrays[-1].shape[-2 if len(arrays) > 1 else -1]: "m"}
        specs = [
            moa.ArraySpec(tuple(names.get(n, n) for n in a.shape), a.dtype.name)
            for a in arrays
        ]
    expected = moa.interpret(program, *arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    given = run(split(program, specs, parts), arrays, stage)
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype
        rtol = RTOL[arrays[0].dtype.name]
        one, other = (np.asarray(x, float) for x in (one, other))
        size = float(np.max(np.abs(other), initial=0, where=np.isfinite(other)))
        np.testing.assert_allclose(one, other, rtol, rtol * max(size, 1))


@pytest.mark.parametrize("stage", STAGE)
@pytest.mark.parametrize("program", ATTENTION)
@pytest.mark.parametrize("dynamic", [False, True])
def test_attention(program: Program, stage: str, dynamic: bool) -> None:
    arrays = [numbers(4, 3, 8), numbers(2, 200, 8, seed=1), numbers(2, 200, 5, seed=2)]
    agree(program, arrays, 3, stage, dynamic)


@pytest.mark.parametrize("stage", STAGE)
@pytest.mark.parametrize("program", ROWS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_rows(program: Program, stage: str, dynamic: bool) -> None:
    agree(program, [numbers(3, 333) + 10], 4, stage, dynamic)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("program", [moa.attention, causal])
@pytest.mark.parametrize("stage", ["fused", "compiled"])
def test_element_types(program: Program, dtype: Any, stage: str) -> None:
    arrays = [
        numbers(*shape, dtype=dtype, seed=k)
        for k, shape in enumerate([(2, 34, 4), (1, 131, 4), (1, 131, 6)])
    ]
    agree(program, arrays, 2, stage)


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(
    st.sampled_from([*ATTENTION, *ROWS]),
    st.integers(1, 5),
    st.integers(1, 300),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(STAGE),
)
def test_any_sizes_and_parts(
    program: Program, n: int, m: int, parts: int, dynamic: bool, stage: str
) -> None:
    """With lengths that do not divide, and more parts than there is to share."""
    if program in ROWS:
        arrays = [numbers(n, m + 1)]
    else:
        heads = 2 if dynamic else 1  # Which heads share keys must be static.
        arrays = [numbers(2, n, 4)]
        arrays += [numbers(heads, m, 4, seed=1), numbers(heads, m, 3, seed=2)]
    agree(program, arrays, parts, stage, dynamic)


@pytest.mark.parametrize("stage", STAGE)
def test_parts_that_see_nothing_change_nothing(stage: str) -> None:
    """A causal bound leaves nothing of most parts; infinities fill another."""
    arrays = [numbers(1, 5, 4), numbers(1, 500, 4, seed=1), numbers(1, 500, 4, seed=2)]
    agree(causal, arrays, 7, stage)
    x = numbers(2, 500)
    x[:, 64:256] = -np.inf
    agree(library.logsumexp, [x], 7, stage)
    x[:] = -np.inf
    (given,) = run(split(library.logsumexp, [x], 7), [x], stage)
    np.testing.assert_array_equal(given, x[:, 0])


@pytest.mark.parametrize("length", [0, 1])
def test_range_of_almost_nothing(length: int) -> None:
    """All parts but one, or all of them, are empty."""
    spec = moa.ArraySpec((2, "n"), "float32")
    module = split(library.logsumexp, [spec], 3)
    x = numbers(2, length)
    expected = np.full(2, -np.inf) if length == 0 else x[:, 0]
    (given,) = run(module, [x], "fused")
    np.testing.assert_allclose(given, expected, 1e-6)


def test_auto_splits_where_tasks_are_few() -> None:
    k = moa.ArraySpec((8, 8192, 128), "float32")

    def parts(heads: int, n: int, places: int) -> list[int]:
        q = moa.ArraySpec((heads, n, 128), "float32")
        return numbers_of_parts(split(moa.attention, [q, k, k], "auto", places))

    assert parts(32, 1, 1) == []
    assert parts(32, 1, 8) == []  # One for each key head.
    assert parts(32, 1, 16) == [2]
    assert parts(32, 1, 264) == [32]  # Of 256 keys: 33 of whole chunks are too many.
    assert parts(8, 1024, 64) == []


def test_auto_leaves_short_ranges() -> None:
    """Of little work, that is: 128 keys are more than so many numbers."""
    x = moa.ArraySpec((1, 1000), "float32")
    assert numbers_of_parts(split(library.logsumexp, [x], "auto", 132)) == []
    q, k = (moa.ArraySpec((1, n, 128), "float32") for n in (1, 1000))
    assert numbers_of_parts(split(moa.attention, [q, k, k], "auto", 132)) == [6]
    x = moa.ArraySpec((1, 1 << 20), "float32")
    assert numbers_of_parts(split(library.logsumexp, [x], "auto", 132)) == [132]


def test_cores_share_a_range() -> None:
    """One row of much work is that of all cores; rows as many as cores are not split."""
    cores = host_machine().cores

    def loops(rows: int) -> int:
        x = moa.ArraySpec((rows, 1 << 18), "float32")
        module = moa.jit(library.logsumexp).lower(x).module("target")
        return sum(op.name == "scf.parallel" for op in module.walk())

    assert loops(1) == (2 if cores > 1 else 1)
    assert loops(cores) == 1
    row = numbers(1, 1 << 18)
    expected = np.logaddexp.reduce(row.astype(np.float64), -1)
    np.testing.assert_allclose(moa.jit(library.logsumexp)(row), expected, 1e-6)


def test_blocks_are_whole_chunks() -> None:
    x = moa.ArraySpec((1, 1000), "float32")
    # Of 128 indices: an eighth of 1000 is 125.
    assert numbers_of_parts(split(library.logsumexp, [x], 8)) == [8]
    assert numbers_of_parts(split(library.logsumexp, [x], 12)) == [8]


def test_what_was_split_is_not_split_again() -> None:
    module = split(library.logsumexp, [moa.ArraySpec((2, 999), "float64")], 4)
    before = str(module)
    SplitCascadesPass("auto", 1).apply(Context(), module)
    assert str(module) == before


@pytest.mark.parametrize("program", [moa.attention, library.variance])
def test_conditions_of_parts_and_merge_are_proved(program: Program) -> None:
    """C1 and C2 hold of both cascades; the derivation has the pass in it."""
    specs = [moa.ArraySpec((2, 500), "float64")]
    if program is moa.attention:
        specs = [moa.ArraySpec((2, 500, 4), "float64")] * 3
    module = moa.jit(program).lower(*specs).module("fused", certify=True)
    SplitCascadesPass(3).apply(Context(), module)
    assert len([op for op in module.walk() if isinstance(op, CascadeOp)]) == 2
    VerifyPass().apply(Context(), module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 0}, "moa-split-cascades: parts is auto or at least 1, got 0"),
        ({"threads": -1}, "moa-split-cascades: threads is at least 0, got -1"),
        ({"parts": "few"}, "moa-split-cascades: parts is auto or at least 1, got few"),
        ({"places": -1}, "places is at least 0 and work at least 1, got -1 and 16384"),
        ({"work": 0}, "places is at least 0 and work at least 1, got 1 and 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    module = moa.jit(library.logsumexp).lower(numbers(2, 9)).module("fused")
    with pytest.raises(CompileError, match=message):
        SplitCascadesPass(**options).apply(Context(), module)


def test_memory_of_states_is_for_parts_only() -> None:
    """Only memory that says what it is may have several extents of the input."""
    module = split(library.logsumexp, [moa.ArraySpec((7, 999), "float64")], 4)
    (op,) = states(module)
    del op.attributes[PARTS]
    with pytest.raises(VerifyException, match="scratch memory must not grow"):
        run(module, [], "onf")
