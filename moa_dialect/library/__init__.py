"""Programs written in MoA, each its textbook definition.

They act on the last axis (on the last two, for products); axes before it are a frame
they are applied over by omega. Each is a function of arrays to use inside a traced
program or to give to `moa.jit`.
"""

from moa_dialect.library.attention import attention
from moa_dialect.library.linear import matmul
from moa_dialect.library.normalization import layernorm, variance
from moa_dialect.library.softmax import logsumexp, softmax

__all__ = ["attention", "layernorm", "logsumexp", "matmul", "softmax", "variance"]
