"""Programs written in MoA, each its textbook definition.

They act on the last axis (on the last two, for products); axes before it are a frame
they are applied over by omega. Each is a function of arrays to use inside a traced
program or to give to `moa.jit`.
"""

from moa_dialect.library.attention import attention
from moa_dialect.library.attention_variants import (
    differential_attention,
    linear_attention,
    sigmoid_attention,
)
from moa_dialect.library.linear import matmul
from moa_dialect.library.losses import (
    cross_entropy,
    entropy,
    kl_divergence,
    linear_cross_entropy,
    log_softmax,
)
from moa_dialect.library.normalization import layernorm
from moa_dialect.library.norms import absmax_scaled_product, l2_norm, rms_norm
from moa_dialect.library.selection import softmax_top_k
from moa_dialect.library.softmax import logsumexp, softmax
from moa_dialect.library.statistics import (
    covariance,
    covariance_matrix,
    kurtosis,
    mean,
    skewness,
    variance,
)

__all__ = [
    "absmax_scaled_product",
    "attention",
    "covariance",
    "covariance_matrix",
    "cross_entropy",
    "differential_attention",
    "entropy",
    "kl_divergence",
    "kurtosis",
    "l2_norm",
    "layernorm",
    "linear_attention",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "matmul",
    "mean",
    "rms_norm",
    "sigmoid_attention",
    "skewness",
    "softmax",
    "softmax_top_k",
    "variance",
]
