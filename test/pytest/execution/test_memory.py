"""How much memory a kernel takes besides its arguments and results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is counted by Linux"
)

LONG = """
import sys
import numpy as np
import moa_dialect as moa
from moa_dialect.tools.bench.worker import extra_memory

n, d = int(sys.argv[1]), 64
random = np.random.default_rng(0)
q, k, v = (random.standard_normal((1, n, d), np.float32) for _ in range(3))
kernel = moa.jit(moa.attention).lower(q, k, v).kernel
extra, result = extra_memory(lambda: kernel(q, k, v))
row = slice(n - 1, n)
scores = (q[0, row].astype(np.float64) @ k[0].T.astype(np.float64)) / 8
powers = np.exp(scores - scores.max())
expected = powers / powers.sum() @ v[0].astype(np.float64)
np.testing.assert_allclose(result[0, row], expected, 1e-4, 1e-5)
print(extra - result.nbytes)
"""


@needs_linux
def test_attention_over_long_sequences_takes_no_memory_for_scores() -> None:
    """All scores of 32768 queries and keys would be 4 GiB; 64 MiB are too much."""
    done = subprocess.run(
        [sys.executable, "-c", LONG, "32768"],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert int(done.stdout) < 64 << 20
