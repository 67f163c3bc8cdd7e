"""Statistics, losses and norms of rows, against their definitions in mpmath.

The references have 60 digits and are given what the programs are given, so that all of
the difference is the programs'. Errors are the largest over the rows, relative to the
largest magnitude of the result.
"""
# The parameters of a lambda given where any function is taken have no type, and mpmath
# has no types at all.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.errors import DTypeError, IndexRangeError, OptionError, ShapeError

Row = list[Any]


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mpmath.workdps(60):
        yield


# The definitions, for one row


def total(values: Any) -> Any:
    return mpmath.fsum(values)


def mean(x: Row) -> Any:
    return total(x) / len(x)


def centred(x: Row) -> Row:
    center = mean(x)
    return [e - center for e in x]


def moment(x: Row, order: int) -> Any:
    return mean([e**order for e in centred(x)])


def covariance(x: Row, y: Row, ddof: int = 0) -> Any:
    products = (a * b for a, b in zip(centred(x), centred(y), strict=True))
    return total(products) / (len(x) - ddof)


def logsumexp(x: Row) -> Any:
    return mpmath.log(total(map(mpmath.exp, x)))


def log_softmax(x: Row) -> Row:
    denominator = logsumexp(x)
    return [e - denominator for e in x]


def softmax(x: Row) -> Row:
    return [mpmath.exp(e) for e in log_softmax(x)]


def cross_entropy(x: Row, target: Row) -> Any:
    if len(target) == 1:
        return -log_softmax(x)[int(target[0])]
    return -total(t * e for t, e in zip(target, log_softmax(x), strict=True))


def kl_divergence(x: Row, y: Row) -> Any:
    rows = zip(softmax(x), log_softmax(x), log_softmax(y), strict=True)
    return total(p * (a - b) for p, a, b in rows)


def rms_norm(x: Row, eps: float = 1e-6) -> Row:
    size = mpmath.sqrt(mean([e * e for e in x]) + mpmath.mpf(eps))
    return [e / size for e in x]


def l2_norm(x: Row) -> Any:
    return mpmath.sqrt(total(e * e for e in x))


@dataclass
class Case:
    """A program of rows and its definition for one row.

    Attributes:
        program: from the library.
        reference: a function of as many rows.
        rows: how many arrays it takes.
        options: keyword arguments of both.
        least: the least length of a row for which it is a number.
    """

    program: Callable[..., Any]
    reference: Callable[..., Any]
    rows: int = 1
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    least: int = 1

    def __str__(self) -> str:
        options = "".join(f", {name}={v}" for name, v in self.options.items())
        return f"{self.program.__name__}{options}"

    def inputs(self, shape: Sequence[int], dtype: Any, seed: int) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        return [random.normal(size=shape).astype(dtype) for _ in range(self.rows)]

    def expected(self, *arrays: np.ndarray) -> np.ndarray:
        shape = arrays[0].shape
        rows = [
            self.reference(*(exact(a[index]) for a in arrays), **self.options)
            for index in np.ndindex(*shape[:-1])
        ]
        values = np.array(rows, object)
        return values.reshape(shape[:-1] + values.shape[1:])


def exact(row: np.ndarray) -> Row:
    return [mpmath.mpf(float(element)) for element in np.atleast_1d(row)]


def error(actual: Any, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest magnitude that is expected."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    wide = np.vectorize(lambda value: mpmath.mpf(float(value)), otypes=[object])
    difference = max(map(abs, np.ravel(wide(actual) - expected)))
    size = max(map(abs, np.ravel(expected)))
    return float(difference / size if size > 1e-40 else difference)


CASES = [
    Case(library.mean, mean),
    Case(library.variance, lambda x: covariance(x, x)),
    Case(library.variance, lambda x, ddof: covariance(x, x, ddof), 1, {"ddof": 1}, 2),
    Case(library.covariance, covariance, 2),
    Case(library.covariance, covariance, 2, {"ddof": 2}, 3),
    Case(library.skewness, lambda x: moment(x, 3) / moment(x, 2) ** 1.5, least=2),
    Case(library.kurtosis, lambda x: moment(x, 4) / moment(x, 2) ** 2 - 3, least=2),
    Case(
        library.kurtosis,
        lambda x, excess: moment(x, 4) / moment(x, 2) ** 2,
        1,
        {"excess": False},
        2,
    ),
    Case(library.softmax, softmax),
    Case(library.log_softmax, log_softmax),
    Case(library.logsumexp, logsumexp),
    Case(library.cross_entropy, cross_entropy, 2),
    Case(
        library.entropy,
        lambda x: -total(p * mpmath.log(p) for p in softmax(x)),
    ),
    Case(library.kl_divergence, kl_divergence, 2),
    Case(library.rms_norm, rms_norm),
    Case(library.rms_norm, rms_norm, 1, {"eps": 0.25}),
    Case(library.l2_norm, l2_norm),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
KERNELS = {id(case): moa.jit(case.program) for case in CASES}
OF_ANY_EXTENT: dict[int, moa.Compiled] = {}

BOUND = {"f64": 1e-14, "f32": 1e-5}
"""For rows of at most 100 elements of order one. Where the result is a small difference
of larger numbers its size says little, and 100 times as much is allowed."""

SHAPES = [(1,), (3, 7), (2, 1, 33), (100,)]


def bound(case: Case, dtype: str) -> float:
    is_cancelling = case.program in (
        library.skewness,
        library.kurtosis,
        library.kl_divergence,
    )
    return BOUND[dtype] * (100 if is_cancelling else 1)


@every_case
@pytest.mark.parametrize("dtype", BOUND)
def test_by_definition(case: Case, dtype: str) -> None:
    """Every shape, compiled and interpreted."""
    kernel = KERNELS[id(case)]
    for seed, shape in enumerate(SHAPES):
        if shape[-1] < case.least:
            continue
        arrays = case.inputs(shape, np.dtype("f8" if dtype == "f64" else "f4"), seed)
        actual = kernel(*arrays, **case.options)
        assert actual.dtype == arrays[0].dtype
        assert error(actual, case.expected(*arrays)) <= bound(case, dtype)
        interpreted = moa.interpret(case.program, *arrays, **case.options)
        assert error(interpreted, case.expected(*arrays)) <= bound(case, dtype)


@every_case
def test_one_kernel_for_every_extent(case: Case) -> None:
    spec = moa.ArraySpec((None, None))
    compiled = moa.jit(case.program).lower(*[spec] * case.rows, **case.options)
    for seed, shape in enumerate([(1, 3), (4, 5), (2, 64)]):
        arrays = case.inputs(shape, np.float64, seed)
        assert error(compiled(*arrays), case.expected(*arrays)) <= bound(case, "f64")
    assert compiled(*[np.ones((0, 4))] * case.rows).shape[0] == 0


@every_case
@settings(max_examples=max(5, settings().max_examples // 12))
@given(data=st.data())
def test_of_any_numbers(case: Case, data: st.DataObject) -> None:
    """Rows in a wide range: only the magnitude and the length are bounded."""
    spec = moa.ArraySpec((None, None))
    key = id(case)
    if key not in OF_ANY_EXTENT:
        lowered = moa.jit(case.program).lower(*[spec] * case.rows, **case.options)
        OF_ANY_EXTENT[key] = lowered
    n = data.draw(st.integers(max(case.least, 2), 12))
    element = st.floats(-100, 100, allow_subnormal=False)
    rows = st.lists(element, min_size=n, max_size=n)
    arrays = [np.array([data.draw(rows)]) for _ in range(case.rows)]
    if case.least > 1 or case.program is library.kl_divergence:
        # Well away from equal elements, and from equal distributions.
        for sign, array in enumerate(arrays):
            array[0, 0] += 1000 * (-1) ** sign
    actual = OF_ANY_EXTENT[key](*arrays)
    expected = case.expected(*arrays)
    size = max(1.0, *(float(np.abs(a).max()) for a in arrays))
    assert actual.shape == expected.shape
    distance = error(actual, expected) * max(map(abs, np.ravel(expected)))
    # The result may be small next to what it is made of.
    assert distance <= 1e-12 * size**2 * max(1, max(map(abs, np.ravel(expected))))


@every_case
def test_at_once_on_arrays(case: Case) -> None:
    """Outside of a program the functions compute, by the interpreter."""
    arrays = case.inputs((2, 4), np.float64, 0)
    actual = np.asarray(case.program(*arrays, **case.options))
    assert error(actual, case.expected(*arrays)) <= bound(case, "f64")


# Extreme inputs: what holds


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.program
        in (
            library.softmax,
            library.log_softmax,
            library.logsumexp,
            library.cross_entropy,
            library.entropy,
            library.kl_divergence,
        )
    ],
    ids=str,
)
def test_logits_of_ten_thousand(case: Case, scale: float, dtype: Any) -> None:
    """Nothing overflows, and errors stay those of rounding."""
    arrays = [
        (scale * (1 + 0.001 * a)).astype(dtype)
        for a in case.inputs((3, 40), np.float64, 5)
    ]
    actual = KERNELS[id(case)](*arrays)
    allowed = 1e-13 if dtype == np.float64 else 1e-4
    assert error(actual, case.expected(*arrays)) <= allowed


def test_logits_far_apart() -> None:
    """Probabilities that vanish add nothing to the entropy, not NaN."""
    x = np.array([[0.0, -1e4, -2e4]])
    assert moa.jit(library.entropy)(x)[0] == 0
    assert moa.jit(library.kl_divergence)(x, np.zeros((1, 3)))[0] == pytest.approx(
        math.log(3), rel=1e-15
    )
    assert moa.jit(library.log_softmax)(x).tolist() == [[0, -1e4, -2e4]]


OFFSET_BOUNDS = {
    library.variance: 1e-9,
    library.covariance: 1e-8,
    library.skewness: 1e-6,
    library.kurtosis: 1e-6,
}
"""Errors on data N(0, 1) + 1e8. The mean is rounded to 1e-8 of a standard deviation, and
nothing makes up for it; the sum of squares less the squared sum would have no digit."""


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.program in OFFSET_BOUNDS], ids=str
)
def test_data_far_from_zero(case: Case) -> None:
    arrays = [a + 1e8 for a in case.inputs((3, 200), np.float64, 3)]
    actual = KERNELS[id(case)](*arrays, **case.options)
    expected = case.expected(*arrays)
    assert error(actual, expected) <= OFFSET_BOUNDS[case.program]


def test_the_norm_neither_overflows_nor_vanishes() -> None:
    norm = moa.jit(library.l2_norm)
    tiny, huge = np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).max
    assert norm(np.array([3e200, 4e200])) == pytest.approx(5e200, rel=1e-15)
    assert norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200, rel=1e-15)
    assert norm(np.array([tiny, 0.0])) == tiny
    assert norm(np.array([0.5 * huge, 0.5 * huge])) == pytest.approx(
        huge / math.sqrt(2), rel=1e-15
    )
    assert norm(np.array([3e20, 4e20], np.float32)) == np.float32(5e20)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.0, 0.0, -0.0], 0.0),
        ([], 0.0),
        ([-5.0], 5.0),
        ([1.0, math.inf], math.inf),
        ([-math.inf, math.inf], math.inf),
        ([1.0, math.nan], math.nan),
        ([math.inf, math.nan], math.nan),
    ],
)
def test_norms_of_special_rows(row: list[float], expected: float) -> None:
    array = np.array(row)
    for run in (moa.jit(library.l2_norm), lambda x: moa.interpret(library.l2_norm, x)):
        np.testing.assert_array_equal(run(array), expected)


def test_rows_of_equal_elements() -> None:
    """No spread: the variance is 0, and there is no skewness, no kurtosis."""
    x = np.full((2, 5), 3.0)
    assert moa.jit(library.variance)(x).tolist() == [0, 0]
    assert np.isnan(moa.jit(library.skewness)(x)).all()
    assert np.isnan(moa.jit(library.kurtosis)(x)).all()


@pytest.mark.parametrize(
    ("n", "ddof", "expected"),
    [(1, 1, math.nan), (1, 2, math.nan), (2, 2, math.inf), (2, 3, math.inf)],
)
def test_too_few_elements_for_the_degrees_of_freedom(
    n: int, ddof: int, expected: float
) -> None:
    x = np.arange(n, dtype=np.float64)
    np.testing.assert_array_equal(moa.jit(library.variance)(x, ddof=ddof), expected)
    dynamic = moa.jit(library.variance).lower(moa.ArraySpec((None,)), ddof=ddof)
    np.testing.assert_array_equal(dynamic(x), expected)


@pytest.mark.parametrize(
    "program",
    [library.mean, library.variance, library.skewness],
    ids=lambda p: p.__name__,
)
def test_empty_rows_have_no_mean(program: Any) -> None:
    assert np.isnan(moa.jit(program)(np.zeros((2, 0)))).all()


def test_a_nan_spoils_its_own_row_only() -> None:
    for case in CASES:
        arrays = case.inputs((3, 5), np.float64, 1)
        expected = KERNELS[id(case)](*arrays, **case.options)
        arrays[0][1, 2] = math.nan
        actual = KERNELS[id(case)](*arrays, **case.options)
        assert np.isnan(actual[1]).all()
        np.testing.assert_array_equal(actual[[0, 2]], expected[[0, 2]])


def test_minus_infinity_is_a_probability_of_zero() -> None:
    x = np.array([[1.0, -math.inf, 2.0]])
    kept = x[:, [0, 2]]
    for program in (library.softmax, library.log_softmax):
        actual = moa.jit(program)(x)
        np.testing.assert_array_equal(actual[:, [0, 2]], moa.jit(program)(kept))
    assert moa.jit(library.softmax)(x)[0, 1] == 0
    assert moa.jit(library.log_softmax)(x)[0, 1] == -math.inf
    assert moa.jit(library.logsumexp)(x) == moa.jit(library.logsumexp)(kept)
    assert moa.jit(library.cross_entropy)(x, np.array([1])) == math.inf


def test_zero_times_the_logarithm_of_zero_is_nan() -> None:
    """Nothing says here that 0 log 0 is 0: see the page on these programs."""
    x = np.array([[1.0, -math.inf]])
    assert np.isnan(moa.jit(library.entropy)(x)).all()
    assert np.isnan(moa.jit(library.kl_divergence)(x, x)).all()
    assert np.isnan(moa.jit(library.cross_entropy)(x, np.array([[1.0, 0.0]]))).all()


@pytest.mark.parametrize("value", [-math.inf, math.inf])
def test_a_row_of_infinities_has_no_softmax(value: float) -> None:
    x = np.array([[value, value], [1.0, 1.0]])
    for program in (library.softmax, library.log_softmax):
        result = moa.jit(program)(x)
        assert np.isnan(result[0]).all()
        assert np.isfinite(result[1]).all()


def test_the_logarithm_of_a_sum_of_nothing_is_minus_infinity() -> None:
    """As PyTorch has it: exp(-inf) is 0 relative to any maximum."""
    result = moa.jit(library.logsumexp)(np.full((1, 70), -math.inf))
    assert result.tolist() == [-math.inf]
    assert np.isnan(moa.jit(library.logsumexp)(np.full((1, 3), math.inf))).all()


def test_shifted_logits_are_the_same_distribution() -> None:
    """By how much is a power of two, so that nothing is rounded."""
    x = np.round(np.random.default_rng(2).normal(size=(2, 9)), 3)
    x = np.round(x * 1024) / 1024
    for program in (library.softmax, library.log_softmax, library.entropy):
        kernel = moa.jit(program)
        np.testing.assert_array_equal(kernel(x + 512), kernel(x))


# Covariances of columns


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 2), (2, 3, 7, 4)])
@pytest.mark.parametrize("ddof", [0, 1])
def test_covariance_matrix(shape: Sequence[int], ddof: int) -> None:
    if shape[-2] <= ddof:
        return
    x = np.random.default_rng(0).normal(size=shape)
    expected = np.empty((*shape[:-2], shape[-1], shape[-1]))
    for frame in np.ndindex(*shape[:-2]):
        expected[frame] = np.cov(x[frame].T, ddof=ddof)
    actual = moa.jit(library.covariance_matrix)(x, ddof=ddof)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15)
    interpreted = moa.interpret(library.covariance_matrix, x, ddof=ddof)
    np.testing.assert_allclose(interpreted, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(actual, np.swapaxes(actual, -1, -2))


def test_its_diagonal_is_the_variances() -> None:
    x = np.random.default_rng(1).normal(size=(30, 4))
    matrix = moa.jit(library.covariance_matrix)(x)
    variances = moa.jit(library.variance)(np.ascontiguousarray(x.T))
    np.testing.assert_allclose(np.diag(matrix), variances, 1e-15)


# Classes


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("shape", [(5,), (1, 1), (4, 9), (2, 3, 33)])
def test_cross_entropy_of_classes(shape: Sequence[int], dtype: Any) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=shape)
    targets = random.integers(0, shape[-1], shape[:-1]).astype(dtype)
    case = Case(library.cross_entropy, cross_entropy)
    rows = [
        cross_entropy(exact(logits[i]), [targets[i]]) for i in np.ndindex(*shape[:-1])
    ]
    expected = np.array(rows, object).reshape(shape[:-1])
    assert error(moa.jit(case.program)(logits, targets), expected) <= 1e-14
    assert error(moa.interpret(case.program, logits, targets), expected) <= 1e-14


def test_a_class_is_a_distribution_on_one_element() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 6))
    targets = np.array([0, 5, 2, 2])
    by_class = moa.jit(library.cross_entropy)(logits, targets)
    one_hot = np.eye(6)[targets]
    np.testing.assert_allclose(
        moa.jit(library.cross_entropy)(logits, one_hot), by_class, rtol=1e-15
    )


@pytest.mark.parametrize("target", [-1, 6])
def test_a_class_out_of_range(target: int) -> None:
    logits, targets = np.ones((2, 6)), np.array([0, target])
    for run in (moa.jit(library.cross_entropy), _interpreted(library.cross_entropy)):
        with pytest.raises(IndexRangeError, match=f"got {target}"):
            run(logits, targets)


def _interpreted(program: Any) -> Callable[..., Any]:
    return lambda *arrays, **options: moa.interpret(program, *arrays, **options)


@pytest.mark.parametrize("shape", [(5,), (4, 9), (2, 3, 7)])
@pytest.mark.parametrize("is_soft", [False, True])
def test_linear_cross_entropy(shape: Sequence[int], is_soft: bool) -> None:
    random = np.random.default_rng(0)
    x, weight = random.normal(size=shape), random.normal(size=(11, shape[-1]))
    targets: np.ndarray = (
        random.dirichlet(np.ones(11), shape[:-1])
        if is_soft
        else np.asarray(random.integers(0, 11, shape[:-1]))
    )
    expected = moa.jit(library.cross_entropy)(x @ weight.T, targets)
    program = library.linear_cross_entropy
    actual = moa.jit(program)(x, weight, targets)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)
    interpreted = moa.interpret(program, x, weight, targets)
    np.testing.assert_allclose(interpreted, expected, rtol=1e-13)


def test_linear_cross_entropy_stores_no_logits() -> None:
    spec = moa.ArraySpec
    compiled = moa.jit(library.linear_cross_entropy).lower(
        spec((None, 8)), spec((1000, 8)), spec((None,), "i64")
    )
    assert compiled.intermediates == 0
    assert compiled.scratch_bytes <= 64 * 8  # a tile of logits


# Norms of rows with weights, scaled products, the largest


def test_rms_norm_with_a_weight() -> None:
    torch: Any = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 3, 9)), random.normal(size=9)
    expected = torch.nn.functional.rms_norm(
        torch.tensor(x), (9,), torch.tensor(weight), 1e-6
    )
    actual = moa.jit(library.rms_norm)(x, weight)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-14)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert moa.jit(library.rms_norm)(np.zeros((1, 4))).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 40)])
@pytest.mark.parametrize("options", [{}, {"bound": 448.0}], ids=str)
def test_a_scaled_product_is_the_product(
    shape: Sequence[int], options: dict[str, float]
) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=shape) * 1e3
    weight = random.normal(size=(shape[-1], 6))
    program = library.absmax_scaled_product
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-5)):
        given = x.astype(dtype), weight.astype(dtype)
        expected = given[0].astype(np.float64) @ given[1].astype(np.float64)
        size = np.linalg.norm(expected)
        for run in (moa.jit(program), _interpreted(program)):
            actual = run(*given, **options)
            assert actual.dtype == dtype
            assert np.linalg.norm(actual - expected) <= tolerance * size


def test_scaled_products_of_special_rows() -> None:
    x = np.array([[0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0], [1.0, -2.0]])
    result = moa.jit(library.absmax_scaled_product)(x, np.ones((2, 1)))
    np.testing.assert_allclose(result, [[0], [math.nan], [math.nan], [-1]], rtol=1e-15)


@pytest.mark.parametrize("shape", [(1,), (6,), (3, 7), (2, 3, 20)])
def test_softmax_top_k(shape: Sequence[int]) -> None:
    """Ties are there by rounding to one digit; they stay in order."""
    x = np.round(np.random.default_rng(0).normal(size=shape), 1)
    order = np.argsort(-x, -1, kind="stable")
    probabilities = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    for k in {0, 1, min(3, shape[-1]), shape[-1]}:
        for run in (
            moa.jit(library.softmax_top_k),
            _interpreted(library.softmax_top_k),
        ):
            values, places = run(x, k=k)
            np.testing.assert_array_equal(places, order[..., :k])
            expected = np.take_along_axis(probabilities, places, -1)
            np.testing.assert_allclose(values, expected, rtol=1e-14)


def test_the_largest_of_tiny_probabilities_are_in_the_order_of_the_logits() -> None:
    """All but one probability are 0 here, so that their order would be lost."""
    x = np.array([-3000.0, 0.0, -1000.0, -2000.0])
    values, places = moa.jit(library.softmax_top_k)(x, k=4)
    assert places.tolist() == [1, 2, 3, 0]
    assert values.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("k", [3, 4, 5])
def test_the_largest_by_maxima_and_by_the_order_of_the_row_are_the_same(k: int) -> None:
    """Up to 4 are found by maxima: NaN comes first, infinities and ties in order."""
    nan, inf = math.nan, math.inf
    x = np.array(
        [
            [1.0, nan, 2.0, nan, inf, 2.0, nan],
            [-inf, -inf, 5.0, -inf, -inf, 5.0, -inf],
            [3.0, inf, inf, 3.0, 1.0, inf, nan],
        ]
    )
    _, places = moa.jit(library.softmax_top_k)(x, k=k)
    keys = np.where(np.isnan(x), inf, x), ~np.isnan(x)
    order = [np.lexsort((keys[1][row], -keys[0][row])) for row in range(3)]
    np.testing.assert_array_equal(places, np.array(order)[:, :k])


# Errors


@pytest.mark.parametrize(
    ("program", "shapes", "options", "error", "message"),
    [
        (library.variance, [(3,)], {"ddof": -1}, OptionError, "at least 0, got -1"),
        (
            library.variance,
            [(3,)],
            {"ddof": 0.5},
            DTypeError,
            "integer as ddof, got 0.5",
        ),
        (library.covariance, [(3,), (4,)], {}, ShapeError, "expected 3, got 4"),
        (library.kl_divergence, [(3,), (4,)], {}, ShapeError, "expected 3, got 4"),
        (library.cross_entropy, [(4,), (3,)], {}, ShapeError, "expected 3, got 4"),
        (library.softmax_top_k, [(3,)], {"k": 4}, ShapeError, "at most 3, got 4"),
        (library.rms_norm, [(2, 3), (4,)], {}, ShapeError, "expected 3, got 4"),
        (
            library.absmax_scaled_product,
            [(2, 3), (4, 5)],
            {},
            ShapeError,
            "expected 3, got 4",
        ),
        (library.covariance_matrix, [(3,)], {}, ShapeError, "at most 1, got 2"),
        (
            library.linear_cross_entropy,
            [(2, 3), (5, 4), (2, 5)],
            {},
            ShapeError,
            "expected 4, got 3",
        ),
    ],
)
def test_errors(
    program: Any,
    shapes: list[tuple[int, ...]],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    sourced = message.replace(", got", r"(?: \([^()]*\))?, got")
    with pytest.raises(error, match=sourced):
        moa.jit(program)(*map(np.ones, shapes), **options)


def test_targets_of_truth_values() -> None:
    with pytest.raises(
        DTypeError, match="targets of an integer or floating-point type"
    ):
        moa.jit(library.cross_entropy)(np.ones((2, 2)), np.ones((2, 2), np.bool_))


def test_soft_targets_of_another_precision() -> None:
    with pytest.raises(DTypeError, match="one element type, got f32, f64"):
        moa.jit(library.cross_entropy)(np.ones((2, 2)), np.ones((2, 2), np.float32))


@every_case
def test_integers_have_no_such_statistics(case: Case) -> None:
    arrays = [np.ones((2, 3), np.int64)] * case.rows
    with pytest.raises(DTypeError, match="kind float, got i64"):
        moa.jit(case.program)(*arrays, **case.options)
