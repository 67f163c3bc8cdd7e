"""The programs of linear algebra, stencils, signals and sequences against NumPy.

Each is interpreted and compiled, for known and for unknown extents, in both precisions
and, where it makes sense, for integers. For random shapes one kernel of unknown extents
is used, compiled once.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import IndexRangeError, MoaError, ShapeError

Shape = tuple[int, ...]
BOUND = {"f8": 1e-12, "f4": 2e-4, "i8": 0, "i4": 0}


def values(shape: Shape, dtype: str, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype.startswith("i"):
        return generator.integers(-9, 10, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)


def same(actual: Any, expected: Any, dtype: str) -> None:
    actual = actual if isinstance(actual, tuple) else (actual,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=BOUND[dtype], atol=BOUND[dtype])


# What NumPy gives


def windows(a: np.ndarray, extents: Shape) -> np.ndarray:
    if any(n < e for n, e in zip(a.shape, extents, strict=False)):
        count = [n - e + 1 for n, e in zip(a.shape, extents, strict=False)]
        return np.zeros((*count, *extents, *a.shape[len(extents) :]), a.dtype)
    view = np.lib.stride_tricks.sliding_window_view(
        a, extents, tuple(range(len(extents)))
    )
    last = range(a.ndim, a.ndim + len(extents))
    return np.moveaxis(view, tuple(last), tuple(range(len(extents), 2 * len(extents))))


def correlate(a: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    axes = tuple(range(a.ndim, 2 * a.ndim))
    return (windows(a, kernel.shape) * kernel).sum(axes)


def correlate_channels(a: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    return np.einsum("xyijc,oijc->xyo", windows(a, kernels.shape[1:3]), kernels)


def difference(a: np.ndarray, axis: int) -> np.ndarray:
    return (np.roll(a, -1, axis) - np.roll(a, 1, axis)) / 2


def laplacian(a: np.ndarray) -> np.ndarray:
    return sum(
        (np.roll(a, 1, k) + np.roll(a, -1, k) - 2 * a for k in range(a.ndim)),
        np.zeros_like(a),
    )


def laplacian_inside(a: np.ndarray) -> np.ndarray:
    return laplacian(a)[(slice(1, -1),) * a.ndim]


def burgers(u: np.ndarray, *velocity: np.ndarray) -> np.ndarray:
    advected = sum(
        (v * difference(u, k) for k, v in enumerate(velocity)), np.zeros_like(u)
    )
    return u + 0.125 * (0.5 * laplacian(u) - advected)


def lu_step(a: np.ndarray, k: int) -> np.ndarray:
    a = a.copy()
    a[k + 1 :, k] /= a[k, k]
    a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return a


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.argsort(squared_distances(x, y), 1, kind="stable")[:, :2]


def polynomial(c: np.ndarray, points: np.ndarray) -> np.ndarray:
    powers = points[..., None] ** np.arange(len(c), dtype=c.dtype)
    return np.tensordot(powers, c, 1)


def fourier(re: np.ndarray, im: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    result = np.fft.fft(re.astype("f8") + 1j * im, axis=0)
    return result.real, result.imag


def bit_reversed(v: np.ndarray) -> np.ndarray:
    bits = len(v).bit_length() - 1
    order = [int(f"{k:0{bits}b}"[::-1] or "0", 2) if bits else 0 for k in range(len(v))]
    return v[order]


def butterfly(a: np.ndarray) -> np.ndarray:
    first, second = np.split(a, 2)
    return np.concatenate([first + second, first - second])


def shuffled(a: np.ndarray) -> np.ndarray:
    result = np.empty_like(a)
    result[::2], result[1::2] = np.split(a, 2)
    return result


@dataclass(frozen=True)
class Case:
    """A program, what it should give, and shapes of its arguments."""

    name: str
    program: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[tuple[Shape, ...], ...]
    dtypes: tuple[str, ...] = ("f8", "f4")
    is_dynamic: bool = True
    is_static: bool = True


FLOATS, ALL = ("f8", "f4"), ("f8", "f4", "i8", "i4")


def step_1(a: Any) -> Any:
    return library.lu_step(a, 1)


def contract_middle(a: Any, b: Any) -> Any:
    return library.contract(a, b, 1, 2)


def contract_first(a: Any, b: Any) -> Any:
    return library.contract(a, b, 0, 1)


def contract_last(a: Any, b: Any) -> Any:
    return library.contract(a, b, 2, 0)


def two_nearest(x: Any, y: Any) -> Any:
    return library.nearest(x, y, 2)


def two_nearest_distances(x: Any, y: Any) -> Any:
    return library.nearest_distances(x, y, 2)


def burgers_2d(u: Any, v: Any, w: Any) -> Any:
    return library.burgers_step(u, v, w, dt=0.125, viscosity=0.5)


def burgers_1d(u: Any) -> Any:
    return library.burgers_step(u, dt=0.125, viscosity=0.5)


def horner_half(c: Any) -> Any:
    return library.horner(c, 0.5)


def windows_2(a: Any) -> Any:
    return library.windows(a, [2])


def windows_2_3(a: Any) -> Any:
    return library.windows(a, [2, 3])


def factored(*factors: int) -> Callable[..., Any]:
    return lambda re, im: library.cooley_tukey(re, im, factors)


def with_halo(a: np.ndarray) -> np.ndarray:
    return np.pad(a, 1, mode="wrap")


CASES = [
    Case(
        "matmul_omega",
        library.matmul_omega,
        np.matmul,
        (((3, 4), (4, 5)), ((1, 1), (1, 1)), ((2, 0), (0, 3)), ((0, 2), (2, 3))),
        ALL,
    ),
    Case(
        "contract 1, 2",
        contract_middle,
        lambda a, b: np.einsum("ikj,abkd->ijabd", a, b),
        (((2, 3, 4), (2, 1, 3, 2)), ((2, 0, 1), (1, 1, 0, 2))),
        ALL,
    ),
    Case(
        "contract 0, 1",
        contract_first,
        lambda a, b: np.einsum("kij,akb->ijab", a, b),
        (((3, 2, 5), (4, 3, 2)),),
        ALL,
    ),
    Case(
        "ijk,kl->ijl",
        contract_last,
        lambda a, b: np.einsum("ijk,kl->ijl", a, b),
        (((3, 2, 5), (5, 2)),),
        ALL,
    ),
    Case(
        "bilinear",
        library.bilinear,
        lambda x, a, y: np.asarray(x @ a @ y),
        (((3,), (3, 5), (5,)), ((0,), (0, 2), (2,)), ((2,), (2, 0), (0,))),
        ALL,
    ),
    Case(
        "diagonal",
        library.diagonal,
        lambda a: np.einsum("kk...->k...", a[:, : len(a)]),
        (((4, 4),), ((2, 3),), ((3, 3, 2),), ((0, 0),)),
        ALL,
    ),
    Case(
        "trace",
        library.trace,
        lambda a: np.asarray(np.trace(a)),
        (((4, 4),), ((1, 1),), ((0, 0),)),
        ("f8", "f4", "i8"),
    ),
    Case(
        "lu_step",
        step_1,
        lambda a: lu_step(a, 1),
        (((4, 4),), ((2, 2),), ((3, 2),), ((2, 5),), ((5, 3),)),
    ),
    Case(
        "laplacian",
        library.laplacian,
        laplacian,
        (((5,),), ((1,),), ((2,),), ((0,),), ((3, 4),), ((0, 3),)),
    ),
    Case(
        "laplacian 3-D",
        library.laplacian,
        laplacian,
        (((2, 3, 4),), ((1, 2, 3),)),
        ("f8",),
        is_static=False,
    ),
    Case(
        "central_difference",
        lambda a: library.central_difference(a, axis=1),
        lambda a: difference(a, 1),
        (((3, 5),), ((1, 1),), ((2, 3, 2),), ((3, 0),)),
    ),
    Case(
        "shift",
        lambda a: library.shift(a, -2, 1),
        lambda a: np.roll(a, 2, 1),
        (((2, 5),), ((3, 1),), ((2, 0),), ((2, 3, 2),)),
        ALL,
    ),
    Case(
        "with_halo",
        library.with_halo,
        with_halo,
        (((3,),), ((1,),), ((2, 3),), ((1, 1),)),
        ALL,
    ),
    Case(
        "laplacian_inside",
        library.laplacian_inside,
        laplacian_inside,
        (((5,),), ((2,),), ((3, 7),), ((2, 4),), ((3, 4, 5),)),
    ),
    Case("burgers 1-D", burgers_1d, lambda u: burgers(u, u), (((7,),), ((1,),))),
    Case("burgers 2-D", burgers_2d, burgers, (((3, 4),) * 3,)),
    Case("windows", windows_2, lambda a: windows(a, (2,)), (((5, 2),), ((1, 3),)), ALL),
    Case(
        "windows 2-D",
        windows_2_3,
        lambda a: windows(a, (2, 3)),
        (((3, 5),), ((2, 3),), ((1, 4),), ((3, 4, 2),)),
        ALL,
    ),
    Case(
        "correlate",
        library.correlate,
        correlate,
        (((7,), (3,)), ((3,), (3,)), ((5, 6), (2, 3)), ((3, 4, 3), (2, 2, 2))),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "convolve",
        library.convolve,
        lambda a, k: correlate(a, np.flip(k)),
        (((7,), (3,)), ((5, 6), (2, 3)), ((3, 4, 3), (1, 2, 2))),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "correlate_channels",
        library.correlate_channels,
        correlate_channels,
        (((5, 4, 2), (3, 2, 3, 2)), ((2, 2, 1), (0, 1, 1, 1))),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "perfect_shuffle",
        library.perfect_shuffle,
        shuffled,
        (((6,),), ((8, 3),), ((0,),), ((2, 2, 2),)),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "bit_reversal",
        library.bit_reversal,
        bit_reversed,
        (((1,),), ((2,),), ((8,),), ((32,),)),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "butterfly",
        library.butterfly,
        butterfly,
        (((6,),), ((2, 3),), ((0,),)),
        ALL,
        is_dynamic=False,
    ),
    Case(
        "dft",
        library.dft,
        fourier,
        (((6,),) * 2, ((1,),) * 2, ((5, 3),) * 2),
        is_dynamic=False,
    ),
    Case(
        "cooley_tukey 2, 3",
        factored(2, 3),
        fourier,
        (((6,),) * 2, ((6, 2),) * 2),
        is_dynamic=False,
    ),
    Case("radix 2", factored(2, 2, 2), fourier, (((8,),) * 2,), is_dynamic=False),
    Case("factors 3, 5", factored(3, 5), fourier, (((15,),) * 2,), is_dynamic=False),
    Case(
        "factors 2, 2, 3", factored(2, 2, 3), fourier, (((12,),) * 2,), ("f8",), False
    ),
    Case(
        "prefix_sums",
        library.prefix_sums,
        lambda a: np.cumsum(a, 0, dtype=a.dtype),
        (((5,),), ((4, 3),), ((0, 2),)),
        ALL,
    ),
    Case(
        "exclusive_prefix_sums",
        library.exclusive_prefix_sums,
        lambda a: np.cumsum(a, 0, dtype=a.dtype) - a,
        (((5,),), ((4, 3),), ((0, 2),), ((1,),)),
        ALL,
    ),
    Case(
        "horner",
        horner_half,
        lambda c: np.tensordot(0.5 ** np.arange(len(c)), c, 1),
        (((5,),), ((1,),), ((4, 3),)),
    ),
    Case(
        "polynomial",
        library.polynomial,
        polynomial,
        (((4,), (3, 2)), ((3, 2), (4,)), ((0,), (2,)), ((2,), ())),
    ),
    Case(
        "squared_distances",
        library.squared_distances,
        squared_distances,
        (((3, 2), (5, 2)), ((0, 2), (3, 2)), ((2, 0), (3, 0))),
        ALL,
    ),
    Case("nearest", two_nearest, nearest, (((3, 2), (5, 2)), ((1, 1), (2, 1))), ALL),
    Case(
        "nearest_distances",
        two_nearest_distances,
        lambda x, y: np.sort(squared_distances(x, y), 1)[:, :2],
        (((3, 2), (5, 2)), ((2, 3), (2, 3))),
        ALL,
    ),
]
BY_NAME = {case.name: case for case in CASES}


def arguments(case: Case, shapes: Sequence[Shape], dtype: str) -> list[np.ndarray]:
    return [values(shape, dtype, seed) for seed, shape in enumerate(shapes)]


@cache
def kernel(name: str, ranks: tuple[int, ...], dtype: str) -> moa.Compiled:
    """The program for arrays of unknown extents."""
    specs = [moa.ArraySpec((None,) * rank, dtype) for rank in ranks]
    return moa.jit(BY_NAME[name].program).lower(*specs)


def dynamic(case: Case, arrays: Sequence[np.ndarray]) -> Any:
    ranks = tuple(array.ndim for array in arrays)
    return kernel(case.name, ranks, arrays[0].dtype.name)(*arrays)


@pytest.mark.parametrize(
    ("name", "number", "dtype"),
    [
        pytest.param(c.name, n, dtype, id=f"{c.name}-{shapes}-{dtype}".replace(" ", ""))
        for c in CASES
        for n, shapes in enumerate(c.shapes)
        for dtype in c.dtypes
    ],
)
def test_program_gives_what_numpy_gives(name: str, number: int, dtype: str) -> None:
    case = BY_NAME[name]
    arrays = arguments(case, case.shapes[number], dtype)
    expected = case.reference(*arrays)
    same(moa.interpret(case.program, *arrays), expected, dtype)
    if case.is_static and (dtype in ("f8", "i8") or number == 0):
        same(moa.jit(case.program)(*arrays), expected, dtype)
    if case.is_dynamic:
        same(dynamic(case, arrays), expected, dtype)


EXTENT = st.integers(0, 6)
SOME = st.integers(1, 6)


def shapes_of(name: str, draw: Callable[[Any], int]) -> list[Shape]:
    """Random shapes that a program takes."""
    n, m, k, e = (draw(EXTENT) for _ in range(4))
    p, q = draw(SOME), draw(SOME)
    match name:
        case "matmul_omega":
            return [(n, k), (k, m)]
        case "ijk,kl->ijl":
            return [(n, m, k), (k, e)]
        case "bilinear":
            return [(n,), (n, m), (m,)]
        case "diagonal":
            return [(n, n + m)]
        case "lu_step":
            return [(p + 1, q + 1)]
        case "laplacian":
            return [(n, m)]
        case "with_halo":
            return [(p, q)]
        case "laplacian_inside":
            return [(p + 1, q + 1)]
        case "windows 2-D":
            return [(p, q + 1)]
        case "prefix_sums" | "exclusive_prefix_sums":
            return [(n, m)]
        case "horner":
            return [(p, m)]
        case "polynomial":
            return [(n, m), (k,)]
        case "squared_distances":
            return [(n, k), (m, k)]
        case _:
            return [(n, k), (p + 1, k)]


@pytest.mark.parametrize(
    "name",
    [
        "matmul_omega",
        "ijk,kl->ijl",
        "bilinear",
        "diagonal",
        "lu_step",
        "laplacian",
        "with_halo",
        "laplacian_inside",
        "windows 2-D",
        "prefix_sums",
        "exclusive_prefix_sums",
        "horner",
        "polynomial",
        "squared_distances",
        "nearest",
        "nearest_distances",
    ],
)
@settings(max_examples=25)
@given(data=st.data())
def test_one_kernel_serves_all_shapes(name: str, data: st.DataObject) -> None:
    case = BY_NAME[name]
    arrays = arguments(case, shapes_of(name, data.draw), "f8")
    same(dynamic(case, arrays), case.reference(*arrays), "f8")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_of_a_sigmoid_is_bounded(dtype: Any) -> None:
    """At most 2.5 units in the last place, where it is subnormal too."""
    info, seed = np.finfo(dtype), np.random.default_rng(0)
    low = -104.5 if dtype == np.float32 else -746.0
    bits = seed.integers(0, 2**info.bits, 300, np.uint64).astype(f"u{info.bits // 8}")
    points = [seed.uniform(low, 40, 300), seed.uniform(-4, 4, 300), [0.0, low, -low]]
    x = np.concatenate([bits.view(dtype), *points]).astype(dtype)
    x = x[np.isfinite(x)]
    given = moa.jit(library.sigmoid)(x)
    with mpmath.workprec(200):
        for argument, value in zip(map(float, x), map(float, given), strict=True):
            exact = 1 / (1 + mpmath.exp(-max(min(argument, 1e5), -1e5)))
            exponent = max(int(mpmath.floor(mpmath.log(exact, 2))), info.minexp)
            unit = mpmath.ldexp(1, exponent - info.nmant)
            assert abs(mpmath.mpf(value) - exact) <= 2.5 * unit, argument
    edges = moa.jit(library.sigmoid)(np.array([np.inf, -np.inf, np.nan], dtype))
    np.testing.assert_array_equal(edges, np.array([1, 0, np.nan], dtype))


def test_every_program_is_compared() -> None:
    """Here, or with PyTorch in the other file."""
    folder = Path(__file__).parent
    text = "".join(path.read_text("utf-8") for path in folder.glob("test_*.py"))
    assert [n for n in library.__all__ if f"library.{n}" not in text] == []


# What holds between programs


def normal_form(program: Callable[..., Any], *specs: moa.ArraySpec) -> str:
    """The normal form without the names of the program and of what is checked."""
    text = moa.jit(program).lower(*specs).text("dnf")
    return re.sub(r'@\w+\(|"\w+: .*"', "", text)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((None, None), (None, None))])
def test_matmul_by_omega_and_by_inner_have_one_normal_form(shapes: Any) -> None:
    specs = [moa.ArraySpec(shape) for shape in shapes]
    texts = {
        normal_form(program, *specs)
        for program in (
            library.matmul,
            library.matmul_omega,
            lambda a, b: moa.inner("add", "mul", a, b),
        )
    }
    assert len(texts) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_lu_multiplies_to_the_matrix(n: int) -> None:
    a = values((n, n), "f8") + 3 * np.eye(n)
    for result in (moa.interpret(library.lu, a), moa.jit(library.lu)(a)):
        lower, upper = np.tril(result, -1) + np.eye(n), np.triu(result)
        np.testing.assert_allclose(lower @ upper, a, rtol=1e-12, atol=1e-12)


def test_lu_steps_one_after_the_other_decompose() -> None:
    a = values((6, 6), "f8") + 6 * np.eye(6)
    result = a
    for k in range(5):
        result = moa.jit(library.lu_step)(result, k=k)
    lower, upper = np.tril(result, -1) + np.eye(6), np.triu(result)
    np.testing.assert_allclose(lower @ upper, a, rtol=1e-12, atol=1e-12)


def test_a_pivot_0_divides_by_it() -> None:
    a = np.array([[0.0, 1.0], [1.0, 2.0]])
    result = moa.jit(library.lu_step)(a, k=0)
    np.testing.assert_array_equal(result, [[0.0, 1.0], [math.inf, -math.inf]])


def test_laplacian_of_the_inside_of_a_halo_is_the_periodic_one() -> None:
    a = values((7,), "f8")

    def program(a: Any) -> Any:
        return library.laplacian_inside(library.with_halo(a))

    compiled = moa.jit(program).lower(moa.ArraySpec((None,)))
    assert compiled.intermediates == 0
    assert compiled.scratch_bytes == 0
    same(compiled(a), laplacian(a), "f8")


NEIGHBOURS = {
    "laplacian": (library.laplacian, [(None, None)], 5),
    "laplacian_inside": (library.laplacian_inside, [(None, None)], 5),
    "laplacian_inside 3-D": (library.laplacian_inside, [(None,) * 3], 7),
    "burgers_step": (burgers_1d, [(None,)], 5),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_accesses_with_other_indices(name: str) -> None:
    """No array is built: what is read are elements of the arguments."""
    program, shapes, count = NEIGHBOURS[name]
    compiled = moa.jit(program).lower(*(moa.ArraySpec(s) for s in shapes))
    assert compiled.intermediates == 0
    assert compiled.scratch_bytes == 0
    names = [op.name for op in compiled.module("fused").walk()]
    assert names.count("moa.at") == count
    assert "moa.buffer" not in [op.name for op in compiled.module("onf").walk()]


def test_the_parts_of_an_elimination_step_have_loops_of_their_own() -> None:
    """The rows that stay, the multipliers so far, the new ones, the trailing block."""
    compiled = moa.jit(step_1).lower(moa.ArraySpec((None, None)))
    names = [op.name for op in compiled.module("onf").walk()]
    assert names.count("moa.store") == 4
    assert names.count("moa.loop") == 6
    assert "scf.if" not in names
    assert "arith.cmpi" not in names


@pytest.mark.parametrize("shape", [(4,), (3, 5)])
def test_burgers_of_a_constant_field_stays(shape: Shape) -> None:
    u = np.full(shape, 2.0)
    program = burgers_1d if len(shape) == 1 else burgers_2d
    np.testing.assert_array_equal(moa.jit(program)(*[u] * (2 * len(shape) - 1)), u)


def test_shuffle_and_bit_reversal_read_without_a_table() -> None:
    for program in (library.perfect_shuffle, library.bit_reversal):
        names = [
            op.name
            for op in moa.jit(program).lower(moa.ArraySpec((8,))).module("onf").walk()
        ]
        assert names.count("moa.load") == 1
        assert names.count("moa.loop") == 1


def test_bit_reversal_is_its_own_inverse() -> None:
    v = values((16,), "f8")
    twice = moa.jit(lambda v: library.bit_reversal(library.bit_reversal(v)))
    np.testing.assert_array_equal(twice(v), v)


def test_fourier_by_butterfly() -> None:
    """The first stage of radix 2: sums give the even terms, differences the odd."""
    x = values((8,), "f8")
    halves = moa.jit(library.butterfly)(x)
    roots = np.exp(-2j * np.pi * np.arange(4) / 8)
    spectrum = np.fft.fft(x)
    np.testing.assert_allclose(np.fft.fft(halves[:4]), spectrum[::2])
    np.testing.assert_allclose(np.fft.fft(halves[4:] * roots), spectrum[1::2])


def test_nearest_takes_the_first_of_equal_distances() -> None:
    x, y = np.zeros((1, 1)), np.array([[2.0], [1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(moa.jit(library.nearest)(x, y, k=3), [[1, 2, 3]])


# Errors

F = np.zeros
ERRORS: dict[str, tuple[Callable[..., Any], list[Any], type[MoaError], str]] = {
    "matmul_omega": (library.matmul_omega, [F((2, 3)), F((2, 3))], ShapeError, "got 2"),
    "contract: no axis": (
        lambda a: library.contract(a, a, 2, 0),
        [F((2, 2))],
        ShapeError,
        "contract: expected an axis of an array of rank 2, got 2",
    ),
    "contract: negative axis": (
        lambda a: library.contract(a, a, 0, -1),
        [F((2, 2))],
        ShapeError,
        "contract: expected an axis of an array of rank 2, got -1",
    ),
    "contract: extents": (
        contract_first,
        [F((2, 2, 2)), F((1, 3, 1))],
        ShapeError,
        "3",
    ),
    "bilinear": (library.bilinear, [F(2), F((3, 2)), F(2)], ShapeError, "got"),
    "diagonal: vector": (library.diagonal, [F(3)], ShapeError, "rank 1, got 1"),
    "diagonal: tall": (library.diagonal, [F((3, 2))], IndexRangeError, "axis 1"),
    "trace": (library.trace, [F((3, 2))], IndexRangeError, "axis 1"),
    "lu_step: rank": (step_1, [F(3)], ShapeError, "expected a matrix, got rank 1"),
    "lu_step: row": (step_1, [F((1, 3))], IndexRangeError, "less than 1, got 1"),
    "lu_step: column": (step_1, [F((3, 1))], IndexRangeError, "less than 1, got 1"),
    "lu: rank": (library.lu, [F(3)], ShapeError, "known rows, got shape (3,)"),
    "shift": (lambda a: library.shift(a, 1, 1), [F(3)], ShapeError, "rank 1, got 1"),
    "central_difference": (library.central_difference, [F(())], ShapeError, "rank 0"),
    "laplacian": (library.laplacian, [F(())], ShapeError, "rank 0, got 0"),
    "with_halo": (library.with_halo, [F(())], ShapeError, "rank 0, got 0"),
    "with_halo: empty": (library.with_halo, [F(0)], ShapeError, "at most 0, got"),
    "laplacian_inside: scalar": (
        library.laplacian_inside,
        [F(())],
        ShapeError,
        "rank 0",
    ),
    "laplacian_inside: small": (library.laplacian_inside, [F(1)], ShapeError, "got"),
    "burgers_step": (
        burgers_1d,
        [F((2, 2))],
        ShapeError,
        "expected a velocity for each of 2 axes, got 1",
    ),
    "burgers_step: shapes": (
        burgers_2d,
        [F((2, 2)), F((2, 3)), F((2, 2))],
        ShapeError,
        "extents of axis 1 must be equal",
    ),
    "windows: too many": (
        windows_2_3,
        [F(3)],
        ShapeError,
        "windows: expected from 1 to 1 extents, got 2",
    ),
    "windows: none": (lambda a: library.windows(a, []), [F(3)], ShapeError, "got 0"),
    "windows: empty": (
        lambda a: library.windows(a, [0]),
        [F(3)],
        ShapeError,
        "windows: expected extents of at least 1, got 0",
    ),
    "windows: too large": (windows_2, [F(0)], ShapeError, "at most 0, got 1"),
    "correlate": (
        library.correlate,
        [F(3), F((2, 2))],
        ShapeError,
        "expected a kernel of rank 1 and known shape, got shape (2, 2)",
    ),
    "correlate: empty kernel": (library.correlate, [F(3), F(0)], ShapeError, "got 0"),
    "convolve": (library.convolve, [F(3), F((2, 2))], ShapeError, "rank 1"),
    "correlate_channels": (
        library.correlate_channels,
        [F((3, 3)), F((1, 2, 2, 1))],
        ShapeError,
        "expected ranks 3 and 4 and a known kernel shape, got shapes (3, 3) and",
    ),
    "perfect_shuffle": (
        library.perfect_shuffle,
        [F(5)],
        ShapeError,
        "perfect_shuffle: expected axis 0 of an extent a multiple of 2, got 5",
    ),
    "perfect_shuffle: scalar": (
        library.perfect_shuffle,
        [F(())],
        ShapeError,
        "a scalar",
    ),
    "bit_reversal": (
        library.bit_reversal,
        [F(6)],
        ShapeError,
        "bit_reversal: expected a vector of 2 to some power, got shape (6,)",
    ),
    "bit_reversal: empty": (library.bit_reversal, [F(0)], ShapeError, "got shape (0,)"),
    "butterfly": (library.butterfly, [F(3)], ShapeError, "a multiple of 2, got 3"),
    "dft": (library.dft, [F(3), F(4)], ShapeError, "expected 3, got 4"),
    "cooley_tukey": (
        factored(2, 2),
        [F(6), F(6)],
        ShapeError,
        "cooley_tukey: expected factors with the product 6, got [2, 2]",
    ),
    "prefix_sums": (library.prefix_sums, [F(())], ShapeError, "rank"),
    "exclusive_prefix_sums": (
        library.exclusive_prefix_sums,
        [F(())],
        ShapeError,
        "rank",
    ),
    "horner": (horner_half, [F(0)], ShapeError, "expected at least 1, got 0"),
    "polynomial": (library.polynomial, [F(()), F(2)], ShapeError, "got a scalar"),
    "squared_distances": (
        library.squared_distances,
        [F((2, 2)), F((2, 3))],
        ShapeError,
        "expected 2, got 3",
    ),
    "nearest": (two_nearest, [F((2, 2)), F((1, 2))], ShapeError, "at most 1, got 2"),
    "nearest_distances": (
        two_nearest_distances,
        [F((2, 2)), F((1, 2))],
        ShapeError,
        "at most 1, got 2",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    program, arrays, kind, message = ERRORS[name]
    pattern = re.escape(message).replace(r",\ got", r"(?: \([^()]*\))?, got")
    with pytest.raises(kind, match=pattern):
        moa.interpret(program, *arrays)
    with pytest.raises(kind, match=pattern):
        moa.jit(program)(*arrays)


@pytest.mark.parametrize(
    "name", ["matmul_omega", "bilinear", "laplacian_inside", "with_halo", "diagonal"]
)
def test_errors_at_run_time(name: str) -> None:
    """What extents show only when the kernel is called."""
    shapes, kind = {
        "matmul_omega": ([(2, 3), (2, 3)], ShapeError),
        "bilinear": ([(2,), (3, 2), (2,)], ShapeError),
        "laplacian_inside": ([(1, 4)], ShapeError),
        "with_halo": ([(2, 0)], ShapeError),
        "diagonal": ([(3, 2)], IndexRangeError),
    }[name]
    case = BY_NAME[name]
    with pytest.raises(kind):
        dynamic(case, arguments(case, shapes, "f8"))


@pytest.mark.parametrize(
    "program",
    [
        library.lu,
        library.perfect_shuffle,
        library.bit_reversal,
        library.butterfly,
        lambda a: library.dft(a, a),
        lambda a: library.correlate(a, a),
        lambda a: library.convolve(a, a),
    ],
)
def test_extents_that_must_be_known(program: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match=r"known|unknown|shape"):
        moa.jit(program).lower(moa.ArraySpec((None,)))


NARROW: dict[str, Callable[..., Any]] = {
    "mean": library.mean,
    "variance": library.variance,
    "softmax": library.softmax,
    "logsumexp": library.logsumexp,
    "layernorm": library.layernorm,
    "rms_norm": library.rms_norm,
    "kurtosis": library.kurtosis,
    "matmul": lambda x: library.matmul(x, moa.transpose(x)),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NARROW)
def test_sums_of_narrow_floats_are_in_f32(name: str, dtype: str) -> None:
    """A sum of 70000 ones is no f16, and in bf16 it stays at 256."""
    program, type_ = NARROW[name], np.dtype(getattr(ml_dtypes, dtype, dtype))
    x = (np.random.default_rng(0).normal(size=(2, 70_000)) + 0.5).astype(type_)
    x = x * type_.type(1 / 16) if name == "matmul" else x
    given = np.asarray(moa.jit(program)(x))
    assert given.dtype == type_
    expected = np.asarray(moa.jit(program)(x.astype(np.float64)))
    size = np.abs(expected).max()
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    np.testing.assert_allclose(given.astype(float), expected, 1.01 * unit, size * unit)
