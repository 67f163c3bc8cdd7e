"""Programs written in MoA, each its textbook definition.

Softmax, attention and the normalisations act on the last axis (products on the last
two); axes before it are a frame they are applied over by omega. The others say which
axes they act on. Each is a function of arrays to use inside a traced program or to give
to `moa.jit`. Those that sum many elements compute in f32 where arrays are of f16 or
bf16, and round their result once.
"""

from moa_dialect.library.attention import attention
from moa_dialect.library.attention_gradients import attention_gradients
from moa_dialect.library.attention_variants import (
    differential_attention,
    linear_attention,
    sigmoid_attention,
)
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
from moa_dialect.library.logistic import sigmoid
from moa_dialect.library.losses import (
    cross_entropy,
    entropy,
    kl_divergence,
    linear_cross_entropy,
    log_softmax,
)
from moa_dialect.library.metric import nearest, nearest_distances, squared_distances
from moa_dialect.library.normalization import layernorm
from moa_dialect.library.norms import absmax_scaled_product, l2_norm, rms_norm
from moa_dialect.library.selection import softmax_top_k
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
from moa_dialect.library.statistics import (
    covariance,
    covariance_matrix,
    kurtosis,
    mean,
    skewness,
    variance,
)
from moa_dialect.library.stencil import (
    burgers_step,
    central_difference,
    laplacian,
    laplacian_inside,
    shift,
    with_halo,
)

__all__ = [
    "absmax_scaled_product",
    "attention",
    "attention_gradients",
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
    "covariance",
    "covariance_matrix",
    "cross_entropy",
    "dft",
    "diagonal",
    "differential_attention",
    "entropy",
    "exclusive_prefix_sums",
    "horner",
    "kl_divergence",
    "kurtosis",
    "l2_norm",
    "laplacian",
    "laplacian_inside",
    "layernorm",
    "linear_attention",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "lu",
    "lu_step",
    "matmul",
    "matmul_omega",
    "mean",
    "nearest",
    "nearest_distances",
    "perfect_shuffle",
    "polynomial",
    "prefix_sums",
    "rms_norm",
    "shift",
    "sigmoid",
    "sigmoid_attention",
    "skewness",
    "softmax",
    "softmax_top_k",
    "squared_distances",
    "trace",
    "variance",
    "windows",
    "with_halo",
]
