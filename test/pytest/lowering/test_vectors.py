"""Programs whose results are vectors or numbers: what depends on no axis is done once.

A fold that no axis enters, and an array of sums, are comprehensions without axes
(moa-enclose-folds), whose kernels run as those of a matrix with one row do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def _gradient(x: Any, w: Any, y: Any) -> Any:
    return moa.transpose(x) @ (x @ w - y)


PROGRAMS: dict[str, tuple[Program, Program, str]] = {
    "gradient": (_gradient, lambda x, w, y: x.T @ (x @ w - y), "xwy"),
    "quadratic form": (
        lambda x, w: (x @ w) @ (x @ w),
        lambda x, w: (x @ w) @ (x @ w),
        "xw",
    ),
    "one query": (
        lambda x, w: library.softmax(x @ w) @ x,
        lambda x, w: _softmax(x @ w) @ x,
        "xw",
    ),
    "over its norm": (
        lambda y: y / moa.sqrt(moa.reduce("add", y * y)),
        lambda y: y / np.sqrt((y * y).sum()),
        "y",
    ),
    "softmax": (library.softmax, _softmax, "y"),
    "variance": (library.variance, np.var, "y"),
    "gradient and its double": (
        lambda x, w, y: (_gradient(x, w, y), _gradient(x, w, y) * 2.0),
        lambda x, w, y: (x.T @ (x @ w - y), 2 * (x.T @ (x @ w - y))),
        "xwy",
    ),
    "outer product": (
        lambda x, w, y: moa.outer("mul", _gradient(x, w, y), w),
        lambda x, w, y: np.multiply.outer(x.T @ (x @ w - y), w),
        "xwy",
    ),
}
EXTENTS = {"x": ("n", "d"), "w": ("d",), "y": ("n",)}


def _arrays(names: str, n: int, d: int, dtype: str = "f8") -> list[Array]:
    random = np.random.default_rng(n * 1000 + d)
    sizes = {"n": n, "d": d}
    shapes = [[sizes[extent] for extent in EXTENTS[name]] for name in names]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def _check(found: Any, expected: Any, tolerance: float) -> None:
    pairs = zip(
        found if isinstance(found, tuple) else (found,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    )
    for one, other in pairs:
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
    total, elements = compiled.schedules
    assert total.startswith("p=")
    assert elements.startswith("i=procs")


@pytest.mark.parametrize("name", ["gradient", "quadratic form", "one query"])
def test_statements_have_lanes_where_there_are_no_axes(name: str) -> None:
    program, _, names = PROGRAMS[name]
    compiled = moa.jit(program).lower(*_arrays(names, 4096, 512, "f4"))
    (schedule,) = compiled.schedules
    assert "each" in schedule


def test_long_sums_have_parts() -> None:
    program = moa.jit(lambda y: moa.reduce("add", y))
    module = program.lower(np.zeros(1 << 20, np.float32)).module("fused")
    EncloseFoldsPass().apply(Context(), module)
    replace(FOR_CORES, places=2).apply(Context(), module)
    arrays = [op for op in module.walk() if isinstance(op, ComprehensionOp)]
    assert [len(op.extents) for op in arrays] == [1, 0]
