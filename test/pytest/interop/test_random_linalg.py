"""Random programs of linalg: raised and compiled, they give what upstream's passes give.

Values are such that every sum and product is exact: results are equal bit for bit.
"""

from __future__ import annotations

from itertools import islice

import pytest

from moa_dialect.tools.compare_linalg import cases, differences

BATCHES = 20
PROGRAMS = 25
"""In each batch: compiled at once, they take a fraction of the time."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_raised_programs_give_what_upstream_gives(batch: int) -> None:
    first = batch * 2 * PROGRAMS
    some = list(islice(cases(first, wide=batch % 2 == 1), PROGRAMS))
    assert differences(some) == []


def test_there_are_five_hundred_programs_of_many_kinds() -> None:
    assert BATCHES * PROGRAMS >= 500
    texts = [
        text for wide in (False, True) for _, text, _ in islice(cases(wide=wide), 200)
    ]
    for word in (
        *("reduction", "linalg.index", "linalg.fill", "linalg.transpose", ":2 ="),
        *("tensor.collapse_shape", "tensor.expand_shape", "tensor.extract_slice"),
        *("tensor.pad", "tensor.insert_slice", "tensor.concat", "floordiv", "mod"),
        *(
            "arith.select",
            "f64",
            "i32",
            "tensor.extract %",
            "tensor.cast",
            "#1",
            "d0 * 2",
        ),
    ):
        assert any(word in text for text in texts), word
