"""Programs written in MoA, each its textbook definition.

Softmax, attention and the normalisations act on the last axis (products on the last
two); axes before it are a frame they are applied over by omega. The others say which
axes they act on. Each is a function of arrays to use inside a traced program or to give
to `moa.jit`.
"""

from moa_dialect.library.attention import attention
from moa_dialect.library.linear import (
    bilinear,
    contract,
    diagonal,
    lu,
    lu_step,
    matmul,
    matmul_omega,
    trace,
)
from moa_dialect.library.metric import nearest, nearest_distances, squared_distances
from moa_dialect.library.normalization import layernorm, variance
from moa_dialect.library.sequences import (
    exclusive_prefix_sums,
    horner,
    polynomial,
    prefix_sums,
)
from moa_dialect.library.signal import (
    bit_reversal,
    butterfly,
    convolve,
    cooley_tukey,
    correlate,
    correlate_channels,
    dft,
    perfect_shuffle,
    windows,
)
from moa_dialect.library.softmax import logsumexp, softmax
from moa_dialect.library.stencil import (
    burgers_step,
    central_difference,
    laplacian,
    laplacian_inside,
    shift,
    with_halo,
)

__all__ = [
    "attention",
    "bilinear",
    "bit_reversal",
    "burgers_step",
    "butterfly",
    "central_difference",
    "contract",
    "convolve",
    "cooley_tukey",
    "correlate",
    "correlate_channels",
    "dft",
    "diagonal",
    "exclusive_prefix_sums",
    "horner",
    "laplacian",
    "laplacian_inside",
    "layernorm",
    "logsumexp",
    "lu",
    "lu_step",
    "matmul",
    "matmul_omega",
    "nearest",
    "nearest_distances",
    "perfect_shuffle",
    "polynomial",
    "prefix_sums",
    "shift",
    "softmax",
    "squared_distances",
    "trace",
    "variance",
    "windows",
    "with_halo",
]
