"""Programs whose results are vectors or numbers: what depends on no axis is done once.

A fold that no axis enters, and an array of sums, are comprehensions without axes
(moa-enclose-folds), whose kernels run as those of a matrix with one row do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.pipelines import FOR_CORES
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.passes.enclose_folds import EncloseFoldsPass

Array = np.ndarray[Any, Any]
Program = Callable[..., Any]


def gradient(x: Any, w: Any, y: Any) -> Any:
    return moa.transpose(x) @ (x @ w - y)


def gradient_of_arrays(x: Array, w: Array, y: Array) -> Array:
    return x.T @ (x @ w - y)


def quadratic_form(x: Any, w: Any) -> Any:
    return (x @ w) @ (x @ w)


def one_query(x: Any, w: Any) -> Any:
    return library.softmax(x @ w) @ x


def one_query_of_arrays(x: Array, w: Array) -> Array:
    return softmax_of_array(x @ w) @ x


def softmax_of_array(y: Array) -> Array:
    weights = np.exp(y - y.max())
    return weights / weights.sum()


def over_its_norm(y: Any) -> Any:
    return y / moa.sqrt(moa.reduce("add", y * y))


def over_its_norm_of_array(y: Array) -> Array:
    return y / np.sqrt((y * y).sum())


def and_its_double(x: Any, w: Any, y: Any) -> Any:
    return gradient(x, w, y), gradient(x, w, y) * 2.0


def and_its_double_of_arrays(x: Array, w: Array, y: Array) -> Any:
    return gradient_of_arrays(x, w, y), 2 * gradient_of_arrays(x, w, y)


def outer(x: Any, w: Any, y: Any) -> Any:
    return moa.outer("mul", gradient(x, w, y), w)


def outer_of_arrays(x: Array, w: Array, y: Array) -> Array:
    return np.multiply.outer(gradient_of_arrays(x, w, y), w)


def total(y: Any) -> Any:
    return moa.reduce("add", y)


PROGRAMS: dict[str, tuple[Program, Program, str]] = {
    "gradient": (gradient, gradient_of_arrays, "xwy"),
    "quadratic form": (quadratic_form, quadratic_form, "xw"),
    "one query": (one_query, one_query_of_arrays, "xw"),
    "over its norm": (over_its_norm, over_its_norm_of_array, "y"),
    "softmax": (library.softmax, softmax_of_array, "y"),
    "variance": (library.variance, np.var, "y"),
    "gradient and its double": (and_its_double, and_its_double_of_arrays, "xwy"),
    "outer product": (outer, outer_of_arrays, "xwy"),
}
EXTENTS = {"x": ("n", "d"), "w": ("d",), "y": ("n",)}


def _arrays(names: str, n: int, d: int, dtype: str = "f8") -> list[Array]:
    random = np.random.default_rng(n * 1000 + d)
    sizes = {"n": n, "d": d}
    shapes = [[sizes[extent] for extent in EXTENTS[name]] for name in names]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def _results(given: Any) -> tuple[Array, ...]:
    return cast(tuple[Array, ...], given) if isinstance(given, tuple) else (given,)


def _check(found: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(_results(found), _results(expected), strict=True):
        scale = np.abs(other).max() or 1.0
        np.testing.assert_allclose(one / scale, other / scale, atol=tolerance)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (64, 16), (67, 31), (130, 9), (515, 70)])
def test_programs_of_vectors(name: str, n: int, d: int) -> None:
    program, reference, names = PROGRAMS[name]
    arrays = _arrays(names, n, d)
    _check(moa.jit(program)(*arrays), reference(*arrays), 1e-11)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_vectors_of_any_length(name: str) -> None:
    program, reference, names = PROGRAMS[name]
    specs = [moa.ArraySpec(EXTENTS[each], "f32") for each in names]
    compiled = moa.jit(program, specs=specs)
    for n, d in ((1, 1), (70, 33), (200, 5), (100, 600)):
        arrays = _arrays(names, n, d, "f4")
        wide = [array.astype("f8") for array in arrays]
        _check(compiled(*arrays), reference(*wide), 1e-5)


@pytest.mark.parametrize("name", ["gradient", "one query", "softmax", "variance"])
def test_programs_of_vectors_in_parts(name: str) -> None:
    program, reference, names = PROGRAMS[name]
    arrays = _arrays(names, 40_000, 33 if "x" in names else 1, "f4")
    wide = [array.astype("f8") for array in arrays]
    _check(moa.jit(program)(*arrays), reference(*wide), 1e-5)


def test_what_depends_on_no_axis_is_computed_once() -> None:
    """The sum is a kernel of its own, not a part of each task of the other one."""
    program, _, names = PROGRAMS["over its norm"]
    compiled = moa.jit(program).lower(*_arrays(names, 4096, 1))
    once, elements = compiled.schedules
    assert once.startswith("p=")
    assert elements.startswith("i=procs")


def over_largest_sum(x: Any, w: Any) -> Any:
    return w / moa.reduce("max", moa.reduce("add", x))


def test_few_long_sums_are_computed_once_too() -> None:
    """A fold over few indices that folds many for each is not done by every task."""
    x, w = _arrays("x", 4096, 5)[0], _arrays("w", 1, 3000)[0]
    compiled = moa.jit(over_largest_sum).lower(x, w)
    assert len(compiled.schedules) == 2
    _check(compiled(x, w), w / x.sum(0).max(), 1e-11)


def test_sums_of_few_rows_have_vector_code() -> None:
    arrays = _arrays("xwy", 20, 512)
    compiled = moa.jit(gradient).lower(*arrays)
    assert len(compiled.schedules) == 1
    _check(compiled(*arrays), gradient_of_arrays(*arrays), 1e-11)


@pytest.mark.parametrize("name", ["gradient", "quadratic form", "one query"])
def test_statements_have_lanes_where_there_are_no_axes(name: str) -> None:
    program, _, names = PROGRAMS[name]
    compiled = moa.jit(program).lower(*_arrays(names, 4096, 512, "f4"))
    (schedule,) = compiled.schedules
    assert "each" in schedule


def test_long_sums_have_parts() -> None:
    module = moa.jit(total).lower(np.zeros(1 << 20, np.float32)).module("fused")
    EncloseFoldsPass().apply(Context(), module)
    replace(FOR_CORES, places=2).apply(Context(), module)
    arrays = [op for op in module.walk() if isinstance(op, ComprehensionOp)]
    assert [len(op.extents) for op in arrays] == [1, 0]
