"""The place of an extreme, beside the extreme: raised, as upstream's lowering has it.

NaN, infinities, zeros of both signs and equal elements included.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.tools.compare_linalg import UpstreamModule

SPECIAL = np.array([0, -0.0, 1, 2, -1, np.inf, -np.inf, np.nan, 3], np.float32)


def program(extreme: str, compare: str, initial: str, by_choice: bool) -> str:
    """A reduction to an extreme and its place, of which the place is returned."""
    largest = (
        "%m = arith.select %c, %x, %o : f32"
        if by_choice
        else f"%m = arith.{extreme} %x, %o : f32"
    )
    return f"""
#ij = affine_map<(i, j) -> (i, j)>
#i = affine_map<(i, j) -> (i)>
func.func @place(%a: tensor<9x7xf32>, %k: tensor<9xi64>) -> tensor<9xi64> {{
  %s = arith.constant {initial} : f32
  %e = tensor.empty() : tensor<9xf32>
  %f = linalg.fill ins(%s : f32) outs(%e : tensor<9xf32>) -> tensor<9xf32>
  %r:2 = linalg.generic {{
    indexing_maps = [#ij, #i, #i], iterator_types = ["parallel", "reduction"]
  }} ins(%a : tensor<9x7xf32>) outs(%f, %k : tensor<9xf32>, tensor<9xi64>) {{
  ^bb0(%x: f32, %o: f32, %p: i64):
    %j = linalg.index 1 : index
    %n = arith.index_cast %j : index to i64
    %c = arith.cmpf {compare}, %x, %o : f32
    {largest}
    %q = arith.select %c, %n, %p : i64
    linalg.yield %m, %q : f32, i64
  }} -> (tensor<9xf32>, tensor<9xi64>)
  return %r#1 : tensor<9xi64>
}}
"""


@pytest.mark.parametrize(
    ("which", "initial", "by_choice"),
    list(
        product(
            (("maximumf", "ogt"), ("minimumf", "olt")),
            ("0xFF800000", "0x7F800000", "1.0"),
            (False, True),
        )
    ),
)
def test_place_of_an_extreme(which: tuple[str, str], initial: str, by_choice: bool):
    text = program(*which, initial, by_choice)
    ours, theirs = moa.compile_linalg(text), UpstreamModule(text)
    rng = np.random.default_rng(0)
    start = -np.arange(9, dtype=np.int64)
    for _ in range(40):
        array = rng.choice(SPECIAL, (9, 7))
        expected = theirs("place", [array, start], np.zeros(9, np.int64))
        np.testing.assert_array_equal(ours(array, start), expected)


def test_place_of_the_last_extreme_is_not_raised():
    text = program("maximumf", "oge", "0xFF800000", False)
    with pytest.raises(moa.CompileError, match=r"cannot raise .*linalg\.generic"):
        moa.compile_linalg(text)
