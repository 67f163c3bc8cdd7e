"""Scalar operations that stand for several here, against NumPy."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa

FUNCTIONS = {
    "math.atan": "arctan",
    "math.asin": "arcsin",
    "math.acos": "arccos",
    "math.sinh": "sinh",
    "math.cosh": "cosh",
    "math.asinh": "arcsinh",
    "math.acosh": "arccosh",
    "math.atanh": "arctanh",
    "math.cbrt": "cbrt",
}

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, 0.5, -0.5, 88.9, 1e30]


def compiled(operations: Sequence[str], element: str, constants: str = "") -> Any:
    """A function of two vectors with a result for each operation on %x and %y."""
    count = len(operations)
    type_ = f"tensor<?x{element}>"
    maps = ", ".join(["affine_map<(i) -> (i)>"] * (2 + count))
    outs = f"{', '.join(['%a'] * count)} : {', '.join([type_] * count)}"
    arguments = ", ".join(f"%o{k}: {element}" for k in range(count))
    lines = "\n".join(
        f"    %z{k} = {operation} : {element}" for k, operation in enumerate(operations)
    )
    yields = ", ".join(f"%z{k}" for k in range(count))
    types, elements = ", ".join([type_] * count), ", ".join([element] * count)
    results = ", ".join(f"%r#{k}" for k in range(count)) if count > 1 else "%r"
    return moa.compile_linalg(
        f"""func.func @main(%a: {type_}, %b: {type_}) -> ({types}) {{
  %r{f":{count}" if count > 1 else ""} = linalg.generic {{indexing_maps = [{maps}],
      iterator_types = ["parallel"]}} ins(%a, %b : {type_}, {type_}) outs({outs}) {{
  ^bb0(%x: {element}, %y: {element}, {arguments}):
    {constants}
{lines}
    linalg.yield {yields} : {elements}
  }} -> ({types})
  return {results} : {types}
}}"""
    )


@pytest.mark.parametrize(("element", "dtype"), [("f32", np.float32), ("f64", float)])
def test_inverse_functions(element: str, dtype: Any):
    rng = np.random.default_rng(0)
    some = np.exp(rng.uniform(-20, 20, 100))
    x = np.array([*SPECIAL, *rng.uniform(-1, 1, 100), *some, *-some], dtype)
    run = compiled([f"{name} %x" for name in FUNCTIONS], element)
    for given, name in zip(run(x, x), FUNCTIONS.values(), strict=True):
        with np.errstate(all="ignore"):
            expected = getattr(np, name)(x.astype(np.longdouble)).astype(dtype)
        bound = 4 * np.finfo(dtype).eps
        np.testing.assert_allclose(given, expected, rtol=bound, err_msg=name)
        if name in ("arctan", "sinh", "arcsinh"):
            assert not np.signbit(given[0])
            assert np.signbit(given[1])


def test_angles_of_points():
    y, x = (v.reshape(-1) for v in np.meshgrid(SPECIAL, SPECIAL))
    (given,) = [compiled(["math.atan2 %x, %y"], "f64")(y, x)]
    expected = np.arctan2(y, x)
    np.testing.assert_allclose(given, expected, rtol=1e-15)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(given)[known], np.signbit(expected)[known])


def test_remainders_of_floats_are_exact():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((2, 300)) * np.exp(rng.uniform(-60, 60, (2, 300)))
    x, y = (v.reshape(-1) for v in np.meshgrid(SPECIAL, SPECIAL))
    x = np.concatenate([x, wide[0]]).astype(np.float32)
    y = np.concatenate([y, wide[1]]).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = np.fmod(x, y)
    given = compiled(["arith.remf %x, %y"], "f32")(x, y)
    np.testing.assert_array_equal(given, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(given)[known], np.signbit(expected)[known])


@pytest.mark.parametrize(("element", "dtype"), [("i32", np.int32), ("i64", np.int64)])
def test_shifts(element: str, dtype: Any):
    width = np.iinfo(dtype).bits
    x = np.array([1, -1, 5, -7, 2**30, np.iinfo(dtype).min, 0, 123456789], dtype)
    x, counts = (v.reshape(-1) for v in np.meshgrid(x, np.arange(width, dtype=dtype)))
    names = ["arith.shli", "arith.shrsi", "arith.shrui"]
    by = f"%n = arith.constant 3 : {element}"
    operations = [f"{name} %x, {count}" for name in names for count in ("%y", "%n")]
    given = compiled(operations, element, by)(x, counts)
    unsigned = x.view(np.dtype(f"u{x.itemsize}"))

    def expected(count: np.ndarray) -> list[np.ndarray]:
        logical = (unsigned >> count.astype(unsigned.dtype)).view(dtype)
        return [x << count, x >> count, logical]

    for number, counts_ in enumerate((counts, np.full_like(counts, 3))):
        for found, wanted in zip(given[number::2], expected(counts_), strict=True):
            np.testing.assert_array_equal(found, wanted)
