"""moa: the Mathematics of Arrays as an MLIR dialect, and a compiler for it.

A program says what every element of an array is; moa derives, by algebra, a kernel
that stores no intermediate array, and runs it through MLIR.

>>> import numpy as np
>>> import moa_dialect as moa
>>> matmul = moa.jit(lambda a, b: moa.inner("add", "mul", a, b))
>>> matmul(np.eye(2), np.ones((2, 3))).shape
(2, 3)
"""

from moa_dialect import library
from moa_dialect.errors import (
    CompileError,
    DTypeError,
    IndexRangeError,
    LayoutError,
    MoaError,
    ShapeError,
)
from moa_dialect.frontend.functions import (
    absolute,
    cast,
    cos,
    dim,
    erf,
    exp,
    exp2,
    floor,
    inner,
    iota,
    log,
    log2,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    negative,
    omega,
    outer,
    psi,
    reduce,
    rsqrt,
    shape,
    sin,
    sqrt,
    tanh,
    total,
    transpose,
    where,
)
from moa_dialect.frontend.jit import Compiled, interpret, jit
from moa_dialect.frontend.trace import Array, ArraySpec, Scalar

__version__ = "0.1.0"

__all__ = [
    "Array",
    "ArraySpec",
    "CompileError",
    "Compiled",
    "DTypeError",
    "IndexRangeError",
    "LayoutError",
    "MoaError",
    "Scalar",
    "ShapeError",
    "absolute",
    "cast",
    "cos",
    "dim",
    "erf",
    "exp",
    "exp2",
    "floor",
    "inner",
    "interpret",
    "iota",
    "jit",
    "library",
    "log",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "negative",
    "omega",
    "outer",
    "psi",
    "reduce",
    "rsqrt",
    "shape",
    "sin",
    "sqrt",
    "tanh",
    "total",
    "transpose",
    "where",
]
