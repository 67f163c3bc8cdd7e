"""Random programs mean the same interpreted, in both normal forms, compiled, in NumPy.

Program n is always the same program: n seeds its generator. It grows from arguments and
constants, one operation at a time, each applied to arrays that are there already, and
the value of each array is computed at once: by NumPy, one function for each operation,
written here. The number of programs is 2000, or what `MOA_RANDOM_PROGRAMS` says, and
`MOA_RANDOM_FIRST` is the number of the first one.

One batch of programs in four is compiled with fusion, in chunks of different lengths,
the others without. These have more folds that depend on each other.

Results are compared bit by bit (all NaNs are equal). Three things make that too much to
ask for. The functions of the mathematical library are not those of NumPy: beside a value
there is a bound on how far a correct evaluation may be from it, which arises there and
is carried through the operations after it. And `max` and `min` may give either zero, so
that values after them are compared up to the sign of zero. And fused sums add in
another order: in programs that are fused each float carries a bound.

Programs are compiled in batches, because a compilation costs more than a program. If a
batch fails, its programs are run one by one, and the first that fails is cut down: to
the smallest array whose value is wrong, with arguments in the place of as many operands
as possible.
"""
# What any function gives has no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

import moa_dialect as moa
from moa_dialect.algebra.scalar import names as scalar_names
from moa_dialect.dialect import ALGEBRA
from moa_dialect.frontend.trace import as_array, trace_programs
from moa_dialect.interpreter import interpret_module
from moa_dialect.lowering.engine import compile_for_cuda, kernels_of
from moa_dialect.lowering.pipelines import FUSING, STAGES
from moa_dialect.ops.normal_form import AtOp, CascadeOp
from moa_dialect.ops.structural import CellOp
from moa_dialect.options import Options
from moa_dialect.passes.check_dnf import intermediate_arrays
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_dnf import to_dnf
from moa_dialect.types import element_type_of

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]

PROGRAMS = int(os.environ.get("MOA_RANDOM_PROGRAMS", "2000"))
FIRST = int(os.environ.get("MOA_RANDOM_FIRST", "0"))
BATCH = 25
CHUNKS = (64, 2, 1)

DEPTH = 6
LOOSE_DEPTH = 10
RANK = 4
SIZE = 40
"""The most elements an array has."""
STEPS = 1500
"""The most scalar steps that the normal form of one array takes: it recomputes."""
TERMS = 60
"""The most operations that one element takes as an expression, shared or not."""
CELLS = 48
ULPS = 16
"""What the functions of two mathematical libraries may differ by, generously."""

DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype("f8"),
    "f32": np.dtype("f4"),
    "i64": np.dtype("i8"),
    "i32": np.dtype("i4"),
    "i1": np.dtype("?"),
    "index": np.dtype("i8"),
}
FLOATS = ("f64", "f32")
INTEGERS = ("i64", "i32", "index")
NUMBERS = (*FLOATS, *INTEGERS)


# What NumPy gives: scalar operations


def _divide(a: Any, b: Any) -> Any:
    quotient = np.floor_divide(a, np.where(b == 0, np.ones_like(b), b))
    return np.where(b == 0, np.zeros_like(a), quotient)


def _remainder(a: Any, b: Any) -> Any:
    return a - b * _divide(a, b)


def _erf(a: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(a)


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "floordiv": _divide,
    "mod": _remainder,
    "max": np.maximum,
    "min": np.minimum,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "sign": lambda a: np.where(np.isnan(a), a, (a > 0) * 1.0 - (a < 0)),
    "not": lambda a: ~a,
    "floor": np.floor,
    "ceil": np.ceil,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "tanh": np.tanh,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
}
PYTHON: dict[str, Callable[..., Any]] = (
    {
        "and": moa.logical_and,
        "or": moa.logical_or,
        "xor": moa.logical_xor,
        "max": moa.maximum,
        "min": moa.minimum,
        "abs": moa.absolute,
        "neg": moa.negative,
        "not": moa.logical_not,
    }
    | {
        name: getattr(moa, name)
        for name in UNARY.keys() - {"neg", "abs", "not"} | {"mod"}
    }
    | {"floordiv": moa.floor_divide}
)
"""How the front end writes them, where it is not the operator of `BINARY`."""

CALLABLES: dict[str, tuple[tuple[str, ...], Callable[[Any, Any], Any]]] = {
    "x + 0.5y": (FLOATS, lambda x, y: x + y * 0.5),
    "|x - y|": (NUMBERS, lambda x, y: abs(x - y)),
    "3y - x": (INTEGERS, lambda x, y: y * 3 - x),
    "x and not y": (("i1",), lambda x, y: x & ~y),
}
"""Functions of two scalars given as Python functions: their types, and each."""

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGIC = ("and", "or", "xor")
LIBRARY = ("exp", "exp2", "log", "log2", "tanh", "erf", "sin", "cos", "pow", "rsqrt")
TOLERANT = ("add", "sub", "mul", "max", "min")
"""What takes values that are not exact, and says how inexact the result is."""
SPREAD: dict[str, Callable[[Any, Any, Any], Any]] = {
    "exp": lambda a, value, error: value * np.expm1(error),
    "log": lambda a, value, error: np.where(a > error, error / (a - error), math.inf),
    "sqrt": lambda a, value, error: np.where(a > error, error / value, math.inf),
}
"""For functions of inexact numbers how far off they are, given argument and value."""
ZERO_SIGN = ("div", "pow", "rsqrt")
"""What tells one zero from the other."""
IDENTITIES: dict[str, Any] = {
    "add": 0,
    "mul": 1,
    "max": -math.inf,
    "min": math.inf,
    "and": True,
    "or": False,
    "xor": False,
}


def binary_names(dtype: str) -> list[str]:
    """The operations from two elements of a type to one."""
    if dtype == "i1":
        return [*LOGIC, "eq", "ne"]
    extra = ("div", "pow") if dtype in FLOATS else ("floordiv", "mod")
    return ["add", "sub", "mul", "max", "min", *extra]


def unary_names(dtype: str) -> list[str]:
    if dtype == "i1":
        return ["not"]
    rest = [name for name in UNARY if name not in ("neg", "abs", "sign", "not")]
    return ["neg", "abs", "sign", *(rest if dtype in FLOATS else [])]


def scalar(name: str) -> Callable[[Any, Any], Any]:
    return BINARY[name] if name in BINARY else CALLABLES[name][1]


def argument(name: str) -> Any:
    """A scalar operation as the front end takes it: a name or a Python function."""
    return name if name in BINARY else CALLABLES[name][1]


def identity(name: str, dtype: np.dtype[Any]) -> Any:
    if name in ("max", "min") and dtype.kind == "i":
        info = np.iinfo(dtype)
        return info.min if name == "max" else info.max
    return IDENTITIES[name]


def ulps(value: Any, count: int) -> Array:
    """So many units in the last place (of the smallest number, near zero)."""
    value = np.asarray(value)
    info = np.finfo(value.dtype)
    size = np.abs(value.astype(float)) * float(info.eps)
    size = np.maximum(size, float(info.smallest_subnormal)) * count
    return np.where(np.isfinite(size), size, math.inf)


def times(a: Any, b: Any) -> Any:
    """The product of bounds, in which 0 times infinity is 0."""
    return np.where((a == 0) | (b == 0), 0, a * b)


def rounded(value: Any, error: Any) -> Any:
    """The bound of a float in a loose program, where each is rounded as it may be.

    It is of the order of the sizes of what a value is computed from, as in a running
    error analysis, so that it holds for values that are computed in another way.
    """
    value = np.asarray(value)
    if value.dtype.kind != "f":
        return error
    return np.where(np.isfinite(value), np.maximum(error, ulps(value, 8)), error)


def combine(
    name: str, a: Any, b: Any, ea: Any, eb: Any, is_loose: bool = False
) -> tuple[Any, Any]:
    """A scalar operation on values and the bounds of their errors."""
    value = np.asarray(scalar(name)(a, b))
    if is_loose and value.dtype.kind == "f" and name not in ("max", "min"):
        ea, eb = rounded(a, ea), rounded(b, eb)
    if name == "div" and (np.any(ea) or np.any(eb)):
        a, b = np.abs(np.asarray(a, float)), np.abs(np.asarray(b, float))
        error = (ea + times(a / b, eb)) / (b - eb)
        error = np.where((b > eb) & ~np.isnan(error), error, math.inf)
        return value, np.where(np.isinf(b), ea / b, error + ulps(value, 4))
    if name == "pow":
        return value, ulps(value, ULPS) + np.zeros(value.shape)
    if not (np.any(ea) or np.any(eb)):
        return value, np.zeros(value.shape)
    if name in ("max", "min"):
        return value, np.maximum(ea, eb) + np.zeros(value.shape)
    if name == "mul":
        a, b = np.abs(np.asarray(a, float)), np.abs(np.asarray(b, float))
        error = times(a, eb) + times(b, ea) + times(ea, eb)
    else:
        error = np.add(ea, eb)
    error = np.where(np.isnan(error), math.inf, error)
    return value, np.where(error == 0, 0, error + ulps(value, 4))


def fold(
    name: str,
    planes: Sequence[Any],
    errors: Sequence[Any],
    like: Array,
    is_loose: bool = False,
) -> Any:
    """The right fold, from the last plane; of nothing, the identity element."""
    if not planes:
        return np.full_like(like, identity(name, like.dtype)), np.zeros(like.shape)
    value, error = planes[-1], errors[-1]
    if is_loose:
        error = rounded(value, error)
    for plane, bound in zip(planes[-2::-1], errors[-2::-1], strict=True):
        value, error = combine(name, plane, value, bound, error, is_loose)
    # In another order, and moved from pivot to pivot, each value is rounded anew.
    return value, error * (8 * len(planes)) if is_loose else error


# What NumPy gives: arrays


def take(counts: Array, a: Array) -> Array:
    for axis, count in enumerate(np.atleast_1d(counts).tolist()):
        start = a.shape[axis] + count if count < 0 else 0
        a = np.take(a, range(start, start + abs(count)), axis)
    return a


def drop(counts: Array, a: Array) -> Array:
    for axis, count in enumerate(np.atleast_1d(counts).tolist()):
        a = np.take(a, range(max(count, 0), a.shape[axis] + min(count, 0)), axis)
    return a


def cat(a: Array, b: Array) -> Array:
    if a.ndim == 0:
        a = np.full((1, *b.shape[1:]), a)
    if b.ndim == 0:
        b = np.full((1, *a.shape[1:]), b)
    return np.concatenate([a, b])


def psi(index: Array, a: Array) -> Array:
    """One cell for each row of the last axis of an array of indices."""
    entries = [index[..., k] for k in range(index.shape[-1])]
    rows = index.shape[:-1]
    return a[tuple(entries)] if entries else np.broadcast_to(a, rows + a.shape)


def recycle(shape: Array, a: Array) -> Array:
    total = math.prod(shape.tolist())
    places = np.arange(total) % max(a.size, 1)
    return a.reshape(-1)[places].reshape(shape)


def pad(left: Array, right: Array, a: Array) -> Array:
    sides = zip(np.atleast_1d(left), np.atleast_1d(right), strict=True)
    for axis, (before, after) in enumerate(sides):
        extent = a.shape[axis]
        places = np.arange(-before, extent + after) % max(extent, 1)
        a = np.take(a, places, axis)
    return a


def insert(offsets: Array, block: Array, a: Array) -> Array:
    starts = np.atleast_1d(offsets).tolist() + [0] * a.ndim
    sides = zip(starts, block.shape, strict=False)
    result = np.array(a)
    result[tuple(slice(o, o + n) for o, n in sides)] = block
    return result


def expand(mask: Array, a: Array) -> Array:
    result = np.zeros((len(mask), *a.shape[1:]), a.dtype)
    result[mask] = a
    return result


def gamma(order: str, index: Array, shape: Array) -> Array:
    axes = range(len(shape)) if order == "row" else range(len(shape))[::-1]
    address = np.zeros(index.shape[:-1], np.int64)
    for axis in axes:
        address = address * shape[axis] + index[..., axis]
    return address


def gamma_inverse(order: str, address: Array, shape: Array) -> Array:
    axes = range(len(shape))[::-1] if order == "row" else range(len(shape))
    index = np.zeros((*address.shape, len(shape)), np.int64)
    for axis in axes:
        index[..., axis] = address % shape[axis]
        address = address // shape[axis]
    return index


def grade(sign: int, v: Array) -> Array:
    """The order of all numbers: NaN is above the others, equal ones stay in place."""

    def key(k: int) -> tuple[Any, ...]:
        is_nan = bool(np.isnan(v[k]))
        return sign * is_nan, 0 if is_nan else sign * float(v[k]), k

    return np.array(sorted(range(len(v)), key=key), np.int64)


# Programs


@dataclass(eq=False)
class Node:
    """One array of a program.

    Attributes:
        shape: by the shape rule of the operation.
        dtype: the name of the element type.
        label: what made it, for a failing test.
        operands: what it was made of.
        emit: writes it with the front end, given the operands.
        values: what it is, for each cell it is needed for (one outside of omega).
        errors: how far off each value may be; None if it is exact.
        depth: how deep the expression is.
        steps: the scalar steps of one element in the normal form, roughly.
        terms: the operations of the expression of one element.
        is_signless: whether the sign of a zero is not known.
        is_known: of an argument, whether its extents have to be known.
    """

    shape: Shape
    dtype: str
    label: str
    operands: Sequence[Node]
    emit: Callable[..., Any]
    values: list[Array]
    errors: list[Array] | None = None
    depth: int = 0
    steps: int = 1
    terms: int = 1
    is_signless: bool = False
    is_known: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_exact(self) -> bool:
        return self.errors is None

    def bounds(self, cell: int) -> Any:
        return np.zeros(self.shape) if self.errors is None else self.errors[cell]


class Emitter:
    """The arrays of one function that is being traced: each is written once."""

    def __init__(self, arrays: dict[Node, Any]) -> None:
        self.arrays = arrays

    def __call__(self, node: Node) -> Any:
        if node not in self.arrays:
            self.arrays[node] = node.emit(*map(self, node.operands))
        return self.arrays[node]


class Impossible(Exception):
    """The operation that was drawn does not fit; another one is drawn."""


class Scope:
    """Grows the arrays of one function: of the program, or of a cell function."""

    def __init__(
        self,
        rng: random.Random,
        cells: int,
        parameters: Sequence[Node],
        nesting: int,
        is_loose: bool,
    ) -> None:
        self.rng = rng
        self.is_loose = is_loose
        self.tolerant = (*TOLERANT, "div") if is_loose else TOLERANT
        self.cells = cells
        self.nodes = list(parameters)
        self.nesting = nesting
        self.latest = self.nodes[0] if self.nodes else None
        self.arguments: list[Node] = []

    @property
    def is_program(self) -> bool:
        return self.nesting == 0

    # Choices.

    def pick(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def chance(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent

    def extent(self) -> int:
        return self.rng.choices((0, 1, 2, 3, 4, 5), (2, 5, 9, 8, 4, 2))[0]

    def shape(self, rank: int | None = None) -> Shape:
        if rank is None:
            rank = self.rng.choices(range(RANK + 1), (2, 7, 8, 4, 2))[0]
        while True:
            shape = tuple(self.extent() for _ in range(rank))
            if math.prod(shape) <= SIZE:
                return shape

    def numbers(self, shape: Shape, dtype: str, low: int = -4, high: int = 4) -> Array:
        """Small numbers, of floats such as need rounding; rarely special ones."""
        size, element = math.prod(shape), DTYPES[dtype]
        if dtype not in FLOATS:
            if dtype == "i1":
                low, high = 0, 1
            flat = [self.rng.randint(low, high) for _ in range(size)]
            return np.array(flat, element).reshape(shape)
        if self.chance(50):
            flat = [self.rng.randint(-16, 16) / 4 for _ in range(size)]
        else:
            flat = [self.rng.gauss(0, 2) for _ in range(size)]
        if size and self.chance(8):
            special = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e30, 1e-40)
            special = special[:-2] if self.is_loose else special
            flat[self.rng.randrange(size)] = self.pick(*special)
        return np.array(flat, float).astype(element).reshape(shape)

    def any(self, fits: Callable[[Node], bool] = lambda _: True) -> Node:
        """An array that is there, the last that an operation gave more often."""
        if self.latest is not None and fits(self.latest) and self.chance(70):
            return self.latest
        fitting = [node for node in self.nodes if fits(node)]
        if not fitting:
            raise Impossible
        return self.rng.choice(fitting)

    # Arrays.

    def keep(self, node: Node) -> Node:
        if (
            node.rank > RANK
            or node.size > SIZE
            or node.depth > (LOOSE_DEPTH if self.is_loose else DEPTH)
            or node.terms > TERMS
            or node.steps * max(node.size, 1) * self.cells > STEPS
        ):
            raise Impossible
        self.nodes.append(node)
        return node

    def constant(self, values: Any, dtype: str) -> Node:
        value = np.asarray(values, DTYPES[dtype])
        return self.keep(
            Node(
                value.shape,
                dtype,
                f"constant {dtype} {value.tolist()} of shape {value.shape}",
                (),
                lambda: as_array(value, element_type_of(dtype)),
                [value] * self.cells,
            )
        )

    def given(self, values: Any, dtype: str, is_known: bool = False) -> Node:
        """Data: an argument of the program, in a cell function a constant."""
        if not self.is_program or self.chance(25):
            return self.constant(values, dtype)
        value = np.asarray(values, DTYPES[dtype])
        label = f"argument {dtype} {value.tolist()} of shape {value.shape}"
        node = Node(value.shape, dtype, label, (), lambda: None, [value])
        node.is_known = is_known
        self.arguments.append(node)
        return self.keep(node)

    def leaf(self, shape: Shape, dtype: str) -> Node:
        return self.given(self.numbers(shape, dtype), dtype)

    def like(self, shape: Shape, dtype: str, is_exact: bool = False) -> Node:
        """An array of this shape and type: one that is there, or made for that."""

        def fits(node: Node) -> bool:
            return (node.shape, node.dtype) == (shape, dtype) and (
                node.is_exact or not is_exact
            )

        if self.chance(60) and any(map(fits, self.nodes)):
            return self.any(fits)
        if self.chance(40):
            try:
                node = self.any(
                    lambda n: (
                        n.dtype == dtype
                        and n.depth < DEPTH - 1
                        and (n.is_exact or not is_exact)
                        and (n.size > 0 or 0 in shape)
                    )
                )
                counts = self.constant(shape, "index")
                return self.moved("recycle", recycle, (counts, node), (1,))
            except Impossible:
                pass
        return self.leaf(shape, dtype)

    def make(
        self,
        label: str,
        emit: Callable[..., Any],
        operands: Sequence[Node],
        dtype: str,
        compute: Callable[..., tuple[Any, Any]],
        steps: int,
        shape: Shape | None = None,
    ) -> Node:
        """An array with its values and the bounds of their errors, cell by cell."""
        values: list[Array] = []
        errors: list[Array] = []
        for cell in range(self.cells):
            with np.errstate(all="ignore"):
                value, error = compute(
                    *(o.values[cell] for o in operands),
                    *(o.bounds(cell) for o in operands),
                )
            value = np.asarray(value).astype(DTYPES[dtype])
            values.append(value)
            errors.append(np.broadcast_to(np.asarray(error, float), value.shape))
        shapes = {value.shape for value in values}
        assert len(shapes) == 1, label
        assert shape is None or shapes == {shape}, label
        return self.keep(
            Node(
                values[0].shape,
                dtype,
                label,
                operands,
                emit,
                values,
                errors if any(error.any() for error in errors) else None,
                1 + max((o.depth for o in operands), default=0),
                steps,
                1 + sum(o.terms for o in operands),
                dtype in FLOATS and any(o.is_signless for o in operands),
            )
        )

    def moved(
        self,
        name: str,
        compute: Callable[..., Any],
        operands: Sequence[Node],
        moved: Sequence[int],
        steps: int = 2,
        label: str = "",
        emit: Callable[..., Any] | None = None,
    ) -> Node:
        """An array of elements of others; bounds of errors move as these do."""

        def both(*arrays: Any) -> tuple[Any, Any]:
            values, bounds = arrays[: len(operands)], list(arrays[: len(operands)])
            for k in moved:
                bounds[k] = arrays[len(operands) + k]
            return compute(*values), compute(*bounds)

        return self.make(
            label or name,
            emit or getattr(moa, name),
            operands,
            operands[moved[0]].dtype,
            both,
            steps + sum(o.steps for o in operands),
        )

    def plain(
        self,
        label: str,
        emit: Callable[..., Any],
        operands: Sequence[Node],
        dtype: str,
        compute: Callable[..., Any],
        steps: int | None = None,
    ) -> Node:
        """An array whose values need exact operands, and are exact."""
        if not all(o.is_exact for o in operands):
            raise Impossible
        if steps is None:
            steps = 1 + sum(o.steps for o in operands)
        count = len(operands)
        return self.make(
            label,
            emit,
            operands,
            dtype,
            lambda *arrays: (compute(*arrays[:count]), 0),
            steps,
        )

    def cast(self, a: Node, dtype: str) -> Node:
        if a.dtype in FLOATS and dtype not in FLOATS:
            largest = [np.abs(v).max(initial=0) for v in a.values]
            if dtype != "i1" and not all(n < 2**30 for n in largest):
                raise Impossible
            if not a.is_exact:
                raise Impossible

        def compute(a: Array, error: Array) -> tuple[Any, Any]:
            value = a != 0 if dtype == "i1" else a.astype(DTYPES[dtype])
            if not error.any():
                return value, 0
            return value, np.where(error == 0, 0, error + ulps(value, 1))

        emit = lambda a: moa.cast(a, dtype)  # noqa: E731
        return self.make(f"cast {dtype}", emit, (a,), dtype, compute, a.steps + 1)

    # Numbers that operations take: counts, indices, shapes.

    def clamped(self, a: Node, low: int, high: int) -> Node:
        """`low + (a mod (high - low + 1))`, of integers."""
        size = self.constant(high - low + 1, a.dtype)
        node = self.binary("mod", a, size)
        return self.binary("add", node, self.constant(low, a.dtype)) if low else node

    def whole(self, is_scalar: bool = True) -> Node:
        """An array of integers that is there, or is made of one."""
        node = self.any(
            lambda n: (
                n.is_exact and n.depth < DEPTH - 2 and (n.rank == 0 or not is_scalar)
            )
        )
        if node.dtype not in INTEGERS:
            node = self.cast(node, self.pick(*INTEGERS))
        return node

    def count(self, low: int, high: int, is_shape: bool) -> Node:
        """A number within bounds, as a constant, an argument, or computed.

        A number that decides on a shape is a constant in a cell function.
        """
        if (self.is_program or not is_shape) and self.chance(35):
            try:
                return self.clamped(self.whole(), low, high)
            except Impossible:
                pass
        value, dtype = self.rng.randint(low, high), self.pick(*INTEGERS)
        return self.given(value, dtype) if not is_shape else self.fixed(value, dtype)

    def fixed(self, value: Any, dtype: str) -> Node:
        """Data, or a constant, of which the extents are known."""
        if self.chance(50):
            return self.constant(value, dtype)
        return self.given(value, dtype, is_known=True)

    def counts(self, bounds: Sequence[tuple[int, int]], is_shape: bool) -> Node:
        """Numbers within bounds: a scalar for the first, or a vector."""
        if len(bounds) == 1 and self.chance(50):
            return self.count(*bounds[0], is_shape)
        if 1 <= len(bounds) <= 2 and self.is_program and self.chance(20):
            parts = [self.cast(self.count(*b, is_shape), "i64") for b in bounds]
            if len(parts) == 1:
                return self.moved("ravel", np.ravel, parts, (0,))
            return self.moved("cat", cat, parts, (0, 1))
        values = [self.rng.randint(*b) for b in bounds]
        return self.fixed(values, self.pick(*INTEGERS))

    def leading(self, a: Node) -> int:
        """How many leading axes an operation acts on."""
        return self.rng.randint(0, a.rank)

    # Operations: one method for each.

    def do_constant(self) -> Node:
        dtype = self.pick(*DTYPES)
        return self.constant(self.numbers(self.shape(), dtype), dtype)

    def do_iota(self) -> Node:
        if self.chance(50):
            size = self.count(0, 6, is_shape=True)
            return self.plain("iota", moa.iota, (size,), "index", np.arange)
        bounds = [(0, 3)] * self.rng.randint(0, 3)
        sizes = self.fixed([self.rng.randint(*b) for b in bounds], self.pick(*INTEGERS))
        return self.plain(
            "iota",
            moa.iota,
            (sizes,),
            "index",
            lambda v: np.moveaxis(np.indices(v), 0, -1),
        )

    def _measured(self, name: str, compute: Callable[[Array], Any]) -> Node:
        return self.make(
            name,
            getattr(moa, name),
            (self.any(),),
            "index",
            lambda a, _: (compute(a), 0),
            1,
        )

    def do_shape(self) -> Node:
        return self._measured("shape", lambda a: np.array(a.shape, np.int64))

    def do_dim(self) -> Node:
        return self._measured("dim", np.ndim)

    def do_total(self) -> Node:
        return self._measured("total", np.size)

    def do_product(self) -> Node:
        v = self.any(lambda n: n.rank == 1 and n.dtype != "i1")
        return self._reduced("product", moa.product, v, "mul")

    def indices(self, extents: Shape, is_vector: bool = False) -> Node:
        """Indices within these extents: one, or one in each row of an array."""
        if len(extents) == 1 and self.chance(25):
            node = self.whole(not self.chance(50))
            node = self.clamped(node, 0, extents[0] - 1)
            if node.rank == 0:
                return self.moved("ravel", np.ravel, (node,), (0,))
            shape = self.constant((*node.shape, 1), "index")
            return self.moved("reshape", lambda t, a: a.reshape(t), (shape, node), (1,))
        if math.prod(extents) and self.chance(25):
            node = self.clamped(self.whole(False), 0, math.prod(extents) - 1)
            return self._index_of("row", node, self.constant(extents, "index"))
        rows = () if is_vector or self.chance(50) else self.shape(self.pick(1, 1, 2))
        columns = [self.numbers(rows, "i64", 0, extent - 1) for extent in extents]
        index = np.zeros((*rows, 0), np.int64)
        if columns:
            index = np.stack(columns, -1)
        return self.fixed(index, self.pick(*INTEGERS))

    def _index_of(self, order: str, address: Node, shape: Node) -> Node:
        return self.plain(
            f"gamma_inverse {order}",
            lambda k, s: moa.gamma_inverse(k, s, order=order),
            (address, shape),
            "index",
            lambda k, s: gamma_inverse(order, k, s),
            (address.steps + shape.steps) * 2,
        )

    def box(self) -> Shape:
        """A shape with elements."""
        return tuple(self.rng.randint(1, 5) for _ in range(self.rng.randint(0, 3)))

    def do_gamma(self) -> Node:
        extents, order = self.box(), self.pick("row", "column")
        index = self.indices(extents)
        return self.plain(
            f"gamma {order}",
            lambda i, s: moa.gamma(i, s, order=order),
            (index, self.fixed(extents, self.pick(*INTEGERS))),
            "index",
            lambda i, s: gamma(order, i, s),
            1 + index.steps * max(len(extents), 1),
        )

    def do_gamma_inverse(self) -> Node:
        extents = self.box()
        address = self.clamped(self.whole(False), 0, math.prod(extents) - 1)
        shape = self.fixed(extents, self.pick(*INTEGERS))
        return self._index_of(self.pick("row", "column"), address, shape)

    def do_psi(self) -> Node:
        a = self.any()
        length = self.leading(a)
        if 0 in a.shape[:length]:
            raise Impossible
        index = self.indices(a.shape[:length])
        return self.moved("psi", psi, (index, a), (1,), 1 + length)

    def do_take(self) -> Node:
        return self._counted("take", take)

    def do_drop(self) -> Node:
        return self._counted("drop", drop)

    def _counted(self, name: str, compute: Callable[..., Any]) -> Node:
        a = self.any()
        bounds = [(-n, n) for n in a.shape[: self.leading(a)]]
        return self.moved(name, compute, (self.counts(bounds, True), a), (1,))

    def do_cat(self) -> Node:
        a = self.any()
        shape = (self.extent(), *a.shape[1:]) if a.rank and self.chance(80) else ()
        pair = [a, self.like(shape, a.dtype)]
        if self.chance(15):
            pair = [a, a]
        self.rng.shuffle(pair)
        return self.moved("cat", cat, pair, (0, 1))

    def do_reverse(self) -> Node:
        return self.moved(
            "reverse", lambda a: a[::-1] if a.ndim else a, (self.any(),), (0,)
        )

    def do_rotate(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        count = self.count(-7, 7, is_shape=False)
        return self.moved(
            "rotate", lambda k, a: np.roll(a, -int(k), 0), (count, a), (1,)
        )

    def do_transpose(self) -> Node:
        a = self.any()
        t = list(range(a.rank))
        self.rng.shuffle(t)
        is_plain = self.chance(30)
        if is_plain:
            t = t and list(range(a.rank))[::-1]
        return self.moved(
            "transpose",
            lambda a: np.moveaxis(a, range(len(t)), t),
            (a,),
            (0,),
            0,
            f"transpose {t}",
            lambda a: moa.transpose(a, None if is_plain else t),
        )

    def do_pad(self) -> Node:
        a = self.any()
        bounds = [(0, n) for n in a.shape[: self.leading(a)]]
        left = self.counts(bounds, True)
        right = self.counts(bounds, True)
        if left.rank != right.rank:
            raise Impossible
        return self.moved("pad", pad, (left, right, a), (2,), 3)

    def do_insert(self) -> Node:
        a = self.any()
        length = self.leading(a)
        sizes = [self.rng.randint(0, n) for n in a.shape[:length]]
        block = self.like((*sizes, *a.shape[length:]), a.dtype)
        room = zip(a.shape, sizes, strict=False)
        offsets = self.counts([(0, n - m) for n, m in room], False)
        return self.moved("insert", insert, (offsets, block, a), (1, 2), 4)

    def do_reshape(self) -> Node:
        a = self.any()
        same = [n for n in self.nodes if n.size == a.size]
        if self.is_program and self.chance(25):
            other = self.rng.choice(same)
            shape = self.make(
                "shape",
                moa.shape,
                (other,),
                "index",
                lambda o, _: (np.array(o.shape, np.int64), 0),
                1,
            )
        else:
            rank, total = self.rng.randint(0, 3), a.size
            extents: list[int] = []
            for _ in range(rank):
                divisors = [k for k in range(1, total + 1) if total % k == 0]
                extents.append(self.pick(*divisors, 0) if not total else 1)
                if total:
                    extents[-1] = self.pick(*divisors)
                    total //= extents[-1]
            if total > 1 or (a.size == 0 and 0 not in extents):
                extents.append(total)
            shape = self.fixed(extents, self.pick(*INTEGERS))
        return self.moved(
            "reshape", lambda t, a: a.reshape(t), (shape, a), (1,), 4 + a.rank
        )

    def do_recycle(self) -> Node:
        a = self.any()
        extents = self.shape()
        if a.size == 0 and 0 not in extents:
            extents = (*extents[1:], 0)
        shape = self.fixed(extents, self.pick(*INTEGERS))
        return self.moved("recycle", recycle, (shape, a), (1,), 4 + a.rank)

    def do_ravel(self) -> Node:
        return self.moved("ravel", np.ravel, (self.any(),), (0,), 4)

    def do_compress(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        mask = self.mask(self.numbers(a.shape[:1], "i1"))
        steps = 2 * a.shape[0] * mask.steps
        compute = lambda v, a: np.compress(v, a, 0)  # noqa: E731
        return self.moved("compress", compute, (mask, a), (1,), steps)

    def do_expand(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        holds = [True] * a.shape[0] + [False] * self.rng.randint(0, 2)
        self.rng.shuffle(holds)
        mask = self.mask(np.array(holds, bool))
        if mask.values[0].sum() != a.shape[0]:
            b = self.like((len(mask.values[0]), *a.shape[1:]), a.dtype)
            steps = 2 * b.shape[0] * mask.steps
            compute = lambda v, b: np.compress(v, b, 0)  # noqa: E731
            a = self.moved("compress", compute, (mask, b), (1,), steps)
        steps = mask.shape[0] * mask.steps
        return self.moved("expand", expand, (mask, a), (1,), steps)

    def mask(self, wanted: Array) -> Node:
        """A mask as a constant or as data; in a program perhaps a computed one."""

        def fits(node: Node) -> bool:
            return (node.shape, node.dtype) == (wanted.shape, "i1") and node.is_exact

        if self.is_program and self.chance(40) and any(map(fits, self.nodes)):
            return self.any(fits)
        if self.is_program and self.chance(40):
            v = self.like(wanted.shape, self.pick(*NUMBERS), is_exact=True)
            zero = self.constant(0, v.dtype)
            return self.binary(self.pick("gt", "ne"), v, zero)
        return self.given(wanted, "i1")

    def do_grade_up(self) -> Node:
        return self._graded("grade_up", 1)

    def do_grade_down(self) -> Node:
        return self._graded("grade_down", -1)

    def _graded(self, name: str, sign: int) -> Node:
        v = self.any(lambda n: n.rank == 1 and n.dtype != "i1" and n.is_exact)
        steps = 2 * v.shape[0] * v.shape[0] * v.steps + 1
        function = getattr(moa, name)
        return self.plain(
            name, function, (v,), "index", lambda v: grade(sign, v), steps
        )

    def binary(self, name: str, a: Node, b: Node) -> Node:
        """A scalar operation on two arrays, element by element."""
        self.check(name, a, b)
        return self.signed(
            name,
            self.make(
                name,
                PYTHON.get(name, BINARY[name]),
                (a, b),
                "i1" if name in COMPARISONS else a.dtype,
                lambda a, b, ea, eb: combine(name, a, b, ea, eb, self.is_loose),
                a.steps + b.steps + 1,
            ),
        )

    def check(self, name: str, a: Node, b: Node | None = None) -> None:
        """Whether an operation may be applied: what it tells apart must be known."""
        nodes = [a] if b is None else [a, b]
        if name not in self.tolerant and not all(n.is_exact for n in nodes):
            raise Impossible
        if self.is_loose and name == "div":
            return  # By either zero, all bounds are lost.
        if name in ZERO_SIGN and any(n.is_signless for n in nodes):
            raise Impossible

    def signed(self, name: str, node: Node) -> Node:
        """Notes where an operation may give either zero."""
        if name in ("max", "min") and node.dtype in FLOATS:
            node.is_signless = True
        return node

    def scalar_name(self, a: Node, percent: int = 25) -> tuple[str, str]:
        """An operation on the elements of an array, and its result type."""
        if self.chance(percent):
            return self.pick(*(COMPARISONS if a.dtype != "i1" else ("eq", "ne"))), "i1"
        names = binary_names(a.dtype) if a.is_exact else self.tolerant
        return self.pick(*names), a.dtype

    def do_pointwise(self) -> Node:
        a = self.any()
        name, _ = self.scalar_name(a)
        shape = a.shape if self.chance(70) else ()
        b = self.like(shape, a.dtype, not a.is_exact)
        return self.binary(name, *((a, b) if self.chance(50) else (b, a)))

    def do_map(self) -> Node:
        a = self.any()
        names = unary_names(a.dtype)
        if not a.is_exact:
            names = ["neg", "abs", *(("exp", "log", "sqrt") if self.is_loose else ())]
        return self.mapped(self.pick(*names), a)

    def mapped(self, name: str, a: Node) -> Node:
        """A scalar function of each element."""
        if name in ZERO_SIGN and a.is_signless:
            raise Impossible
        if name in ("sin", "cos") and any(
            np.abs(v[np.isfinite(v)]).max(initial=0) > 1e4 for v in a.values
        ):
            raise Impossible

        def compute(a: Array, error: Array) -> tuple[Any, Any]:
            value = np.asarray(UNARY[name](a)).astype(a.dtype)
            if np.any(error) and name in SPREAD:
                error = SPREAD[name](a.astype(float), value.astype(float), error)
                error = np.where(np.isnan(error), math.inf, error)
                error = np.where(np.isneginf(a), 0, error)
            return value, error + ulps(value, ULPS) if name in LIBRARY else error

        node = self.make(
            name, PYTHON[name], (a,), a.dtype, compute, a.steps + 1, a.shape
        )
        node.is_signless = node.is_signless and name not in SPREAD
        return node

    def do_cast(self) -> Node:
        a = self.any()
        return self.cast(a, self.pick(*(t for t in DTYPES if t != a.dtype)))

    def do_where(self) -> Node:
        a = self.any()
        sides = [a.shape if self.chance(70) else () for _ in range(2)]
        c = self.like(sides[0], "i1", True)
        b = self.like(sides[1], a.dtype)
        values = [a, b]
        self.rng.shuffle(values)
        return self.moved("where", np.where, (c, *values), (1, 2), 1)

    def fold_name(self, a: Node, extent: int) -> str:
        """An operation to fold elements by; of nothing, one with an identity."""
        names = binary_names(a.dtype) if a.is_exact else list(self.tolerant)
        if a.is_exact:
            names += [
                name for name, (types, _) in CALLABLES.items() if a.dtype in types
            ]
        if not extent:
            names = [name for name in names if name in IDENTITIES]
        name = self.pick(*names)
        self.check(name, a)
        if name == "pow" and extent > 2:
            raise Impossible
        return name

    def do_reduce(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        name = self.fold_name(a, a.shape[0])
        function = argument(name)
        return self._reduced(
            f"reduce {name}", lambda a: moa.reduce(function, a), a, name
        )

    def _reduced(
        self, label: str, emit: Callable[[Any], Any], a: Node, name: str
    ) -> Node:
        def compute(a: Array, bounds: Array) -> Any:
            like = np.empty(a.shape[1:], a.dtype)
            return fold(name, list(a), list(bounds), like, self.is_loose)

        steps = a.shape[0] * (a.steps + 1) + 1
        return self.signed(name, self.make(label, emit, (a,), a.dtype, compute, steps))

    def do_scan(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        name = self.fold_name(a, 1 if a.shape[0] == 0 else a.shape[0])
        function = argument(name)

        def compute(a: Array, bounds: Array) -> Any:
            values, errors = a.copy(), np.zeros(a.shape)
            like = np.empty(a.shape[1:], a.dtype)
            for k in range(len(a)):
                values[k], errors[k] = fold(
                    name, list(a[: k + 1]), list(bounds[: k + 1]), like, self.is_loose
                )
            return values, errors

        return self.signed(
            name,
            self.make(
                f"scan {name}",
                lambda a: moa.scan(function, a),
                (a,),
                a.dtype,
                compute,
                a.shape[0] * (a.steps + 1) + 1,
            ),
        )

    def do_outer(self) -> Node:
        a = self.any()
        name, dtype = self.scalar_name(a)
        b = self.like(self.shape(self.rng.randint(0, RANK - a.rank)), a.dtype)
        self.check(name, a, b)
        width = b.rank

        def compute(a: Array, b: Array, ea: Array, eb: Array) -> Any:
            spread = (*a.shape, *([1] * width))
            a, ea = a.reshape(spread), ea.reshape(spread)
            return combine(name, a, b, ea, eb, self.is_loose)

        return self.signed(
            name,
            self.make(
                f"outer {name}",
                lambda a, b: moa.outer(name, a, b),
                (a, b),
                dtype,
                compute,
                a.steps + b.steps + 1,
            ),
        )

    def do_inner(self) -> Node:
        a = self.any(lambda n: n.rank > 0)
        extent = a.shape[-1]
        b = self.like((extent, *self.shape(self.pick(0, 0, 1, 1, 2))), a.dtype)
        name, dtype = self.scalar_name(a)
        self.check(name, a, b)
        like = Node((), dtype, "", (), lambda: None, [], a.errors and b.errors)
        like.is_signless = name in ("max", "min") or a.is_signless or b.is_signless
        is_rounded = self.is_loose and dtype in FLOATS
        if name == "pow" or is_rounded or not (a.is_exact and b.is_exact):
            like.errors = []
        outside = self.fold_name(like, extent)
        function, width = argument(outside), b.rank - 1

        def compute(a: Array, b: Array, ea: Array, eb: Array) -> Any:
            rows = (*a.shape[:-1], *([1] * width))
            planes = [
                combine(
                    name,
                    a[..., k].reshape(rows),
                    b[k],
                    ea[..., k].reshape(rows),
                    eb[k],
                    self.is_loose,
                )
                for k in range(extent)
            ]
            empty = np.empty((*a.shape[:-1], *b.shape[1:]), DTYPES[dtype])
            values, errors = [p for p, _ in planes], [e for _, e in planes]
            return fold(outside, values, errors, empty, self.is_loose)

        node = self.make(
            f"inner {outside} {name}",
            lambda a, b: moa.inner(function, name, a, b),
            (a, b),
            dtype,
            compute,
            extent * (a.steps + b.steps + 2) + 1,
        )
        return self.signed(outside, self.signed(name, node))

    # Omega.

    def do_omega(self) -> Node:
        if self.chance(30):
            return self._lifted()
        if self.nesting == 2:
            raise Impossible
        a = self.any()
        frame = a.shape[: self.rng.randint(0, a.rank)]
        operands, frames = [a], [frame]
        if self.chance(50):
            own = frame[self.rng.randint(0, len(frame)) :]
            rank = self.rng.randint(0, min(2, RANK - len(own)))
            kind = self.pick(a.dtype, a.dtype, *DTYPES)
            cell = self.shape(rank)
            if math.prod(own + cell) > SIZE:
                raise Impossible
            operands.append(self.like(own + cell, kind))
            frames.append(own)
        if self.chance(50):
            operands.reverse()
            frames.reverse()
        return self._of_cells(operands, frames, frame)

    def _of_cells(
        self, operands: list[Node], frames: list[Shape], frame: Shape
    ) -> Node:
        """A cell function, grown like a program, on the cells of one or two arrays."""
        places = list(itertools.product(*map(range, frame)))
        if self.cells * max(len(places), 1) > CELLS:
            raise Impossible

        def cells(array: Array, own: Shape) -> list[Array]:
            # The frame of an array is the end of the longer one.
            return [array[place[len(frame) - len(own) :]] for place in places] or [
                # No cell: one of zeros has the shapes of all.
                np.zeros(array.shape[len(own) :], array.dtype)
            ]

        parameters: list[Node] = []
        for name, operand, own in zip("xy", operands, frames, strict=False):
            values = [c for array in operand.values for c in cells(array, own)]
            bounds = None
            if operand.errors is not None:
                arrays = [c for array in operand.errors for c in cells(array, own)]
                bounds = list(map(np.asarray, arrays))
            parameters.append(
                Node(
                    operand.shape[len(own) :],
                    operand.dtype,
                    name,
                    (),
                    lambda: None,
                    [np.asarray(value) for value in values],
                    bounds,
                    operand.depth,
                    operand.steps,
                    operand.terms,
                    operand.is_signless,
                )
            )
        count = self.cells * max(len(places), 1)
        inside = Scope(self.rng, count, parameters, self.nesting + 1, self.is_loose)
        body = inside.grow(self.rng.randint(1, 4))

        def function(*arrays: Any) -> Any:
            return Emitter(dict(zip(parameters, arrays, strict=True)))(body)

        ranks = [o.rank - len(own) for o, own in zip(operands, frames, strict=True)]
        given = ranks[0] if len(ranks) == 1 and self.chance(50) else ranks
        shape = frame + body.shape

        def gathered(arrays: Sequence[Any], element: Any) -> list[Array]:
            if not places:
                return [np.zeros(shape, element)] * self.cells
            size = len(places)
            return [
                np.array(arrays[k * size : (k + 1) * size], element).reshape(shape)
                for k in range(self.cells)
            ]

        inner = "; ".join(listing([body], inside.cells))
        return self.keep(
            Node(
                shape,
                body.dtype,
                f"omega {ranks} of ({inner})",
                operands,
                lambda *arrays: moa.omega(function, given, *arrays),
                gathered(body.values, DTYPES[body.dtype]),
                None if body.errors is None else gathered(body.errors, float),
                body.depth,
                body.steps,
                body.terms,
                body.is_signless,
            )
        )

    def _lifted(self) -> Node:
        """Omega of a scalar operation: `a f omega <1 0> b` and the like."""
        a = self.any()
        name, _ = self.scalar_name(a)
        split = self.rng.randint(0, a.rank)
        frame, cell = a.shape[:split], a.shape[split:]
        own = frame[self.rng.randint(0, split) :]
        b = self.like(own + self.pick(cell, ()), a.dtype)
        return self.lifted(name, a, b, split, len(own), self.chance(50))

    def lifted(
        self, name: str, a: Node, b: Node, split: int, own: int, is_first: bool
    ) -> Node:
        """Omega of a scalar operation, given the numbers of frame axes."""
        self.check(name, a, b)
        inner, width = a.rank - split, b.rank - own

        def compute(a: Array, b: Array, ea: Array, eb: Array) -> Any:
            fit = (*b.shape, *([1] * (inner - width)))
            b, eb = b.reshape(fit), eb.reshape(fit)
            if is_first:
                return combine(name, a, b, ea, eb, self.is_loose)
            return combine(name, b, a, eb, ea, self.is_loose)

        def emit(a: Any, b: Any) -> Any:
            if is_first:
                return moa.omega(name, (inner, width), a, b)
            return moa.omega(name, (width, inner), b, a)

        label = f"omega {name} {(inner, width)} {'ab' if is_first else 'ba'}"
        dtype = "i1" if name in COMPARISONS else a.dtype
        node = self.make(label, emit, (a, b), dtype, compute, a.steps + b.steps + 1)
        return self.signed(name, node)

    def dependent(self) -> Node:
        """Folds of what depends on other folds over the same axis, as in a softmax."""
        a = self.any(lambda n: n.rank in (1, 2) and n.dtype in FLOATS)
        fold, lowest = self.pick(("max", -math.inf), ("min", math.inf), ("add", 0))
        if self.chance(25):
            mask = self.like(a.shape, "i1", is_exact=True)
            masked = (mask, a, self.constant(lowest, a.dtype))
            a = self.moved("where", np.where, masked, (1, 2), 1)
        weights = self.like(a.shape, a.dtype)
        for _ in range(self.pick(1, 1, 2)):
            pivot = self.folded(fold, a)
            if fold == "add" and a.shape[0] and self.chance(60):
                count = self.constant(a.shape[0], a.dtype)
                pivot = self.binary("div", pivot, count)
            name = self.pick("sub", "sub", "sub", "mul", "div", "add", "max")
            a = self.lifted(name, a, pivot, 1, 0, self.chance(80))
            match self.pick("exp", "exp", "square", "weigh", "abs", ""):
                case "square":
                    a = self.binary("mul", a, a)
                case "weigh":
                    a = self.binary("mul", weights, a)
                case "":
                    pass
                case function:
                    a = self.mapped(function, a)
            fold = self.pick("add", "add", "max", "min")
        total = self.folded(fold, a)
        if self.chance(30):
            sum_ = self.folded("add", self.binary("mul", a, weights))
            total = self.binary("div", sum_, total)
        return total

    def folded(self, name: str, a: Node) -> Node:
        """The fold of a scalar operation over the first axis."""
        return self._reduced(f"reduce {name}", lambda a: moa.reduce(name, a), a, name)

    # Programs.

    def grow(self, count: int) -> Node:
        """So many operations, and the last one's result."""
        node = self.nodes[-1]
        for _ in range(count):
            for _ in range(50):
                kept = len(self.nodes), len(self.arguments)
                try:
                    if self.is_loose and self.chance(45):
                        node = self.dependent()
                    else:
                        node = getattr(self, CASES[self.rng.choice(OPERATIONS)])()
                    if self.latest is None or node.depth > 1 or self.chance(30):
                        self.latest = node
                    break
                except Impossible:
                    del self.nodes[kept[0] :]
                    del self.arguments[kept[1] :]
        return self.latest or node


OPERATIONS = [op for op in ALGEBRA if op is not CellOp]
"""All of the algebra, but what stands for a cell in `moa-to-dnf`."""
CASES = {op: f"do_{op.name.removeprefix('moa.')}" for op in OPERATIONS}


def listing(results: Sequence[Node], cells: int = 1) -> Iterator[str]:
    """A program as text, one line for each array."""
    names: dict[Node, str] = {}

    def walk(node: Node) -> Iterator[str]:
        if node in names:
            return
        for operand in node.operands:
            yield from walk(operand)
        names[node] = f"t{len(names)}"
        operands = ", ".join(names[o] for o in node.operands)
        yield f"{names[node]} = {node.label}({operands}) : {node.shape} {node.dtype}"

    for result in results:
        yield from walk(result)
    yield f"return {', '.join(names[r] for r in results)}"


@dataclass
class Program:
    """Results of some arguments, which may stand for arrays that are computed.

    Attributes:
        arguments: what is passed.
        results: what is returned.
        dynamic: for each argument whether its extents are known at the call only.
        chunk: how many indices of a fold its cascades take at a time; None if it is
            not fused.
    """

    arguments: list[Node]
    results: list[Node]
    dynamic: dict[Node, bool] = field(default_factory=dict[Node, bool])
    chunk: int | None = None

    @property
    def is_loose(self) -> bool:
        """Whether results are compared within bounds."""
        return self.chunk is not None

    @property
    def arrays(self) -> list[Array]:
        return [node.values[0] for node in self.arguments]

    @property
    def specs(self) -> list[moa.ArraySpec]:
        return [
            moa.ArraySpec(
                (None,) * node.rank if self.dynamic.get(node) else node.shape,
                node.dtype,
            )
            for node in self.arguments
        ]

    def __call__(self, *arrays: Any) -> Any:
        emit = Emitter(dict(zip(self.arguments, arrays, strict=True)))
        results = tuple(map(emit, self.results))
        return results[0] if len(results) == 1 else results

    def __str__(self) -> str:
        dynamic = [self.dynamic.get(node, False) for node in self.arguments]
        lines = "\n".join(listing(self.results))
        arguments = [f"{n.label}" for n in self.arguments]
        return f"{lines}\nwith arguments {arguments}, dynamic: {dynamic}"


def chunk_of(number: int) -> int | None:
    """How the program of this number is fused: one batch in four is, of all programs.

    Extents are small, so that a chunk of 64 is all of a fold, and 1 and 2 are not.
    """
    batch = number // BATCH
    return CHUNKS[batch // 4 % len(CHUNKS)] if batch % 4 == 3 else None


def program(number: int) -> Program:
    """The program of this number."""
    rng, chunk = random.Random(number), chunk_of(number)
    scope = Scope(rng, 1, (), 0, chunk is not None)
    for _ in range(rng.randint(1, 3)):
        dtype = rng.choice(("f64", "f64", "f32", "i64", "i64", "i32", "i1", "index"))
        scope.leaf(scope.shape(), dtype)
    results = [scope.grow(rng.randint(2, 12))]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        results.append(rng.choice(scope.nodes))
    is_dynamic = rng.choice((True, False))
    dynamic = {
        node: is_dynamic and not node.is_known and rng.random() < 0.8
        for node in scope.arguments
    }
    used = reachable(results)
    arguments = [node for node in scope.arguments if node in used]
    return Program(arguments, results, dynamic, chunk)


def reachable(results: Sequence[Node]) -> dict[Node, None]:
    """The arrays that results are made of, operands first."""
    found: dict[Node, None] = {}

    def walk(node: Node) -> None:
        if node not in found:
            for operand in node.operands:
                walk(operand)
            found[node] = None

    for result in results:
        walk(result)
    return found


# The test


class Wrong(AssertionError):
    """Programs that do not mean the same everywhere: number in the batch, and why."""


def compare(actual: Any, expected: Node, where: str, is_loose: bool = False) -> None:
    """Bit by bit, or within what is allowed for.

    In a loose program NaN is no matter, nor the sign of zero: what is 0 times infinity
    or 0 divided by 0 may be 0 when a factor has left a sum.
    """
    value, error = expected.values[0], expected.bounds(0)
    if not isinstance(actual, np.ndarray) or (actual.dtype, actual.shape) != (
        value.dtype,
        value.shape,
    ):
        raise Wrong(f"{where}: got {actual!r}, expected {value!r}")
    if value.dtype.kind == "f":
        bits = f"u{value.dtype.itemsize}"
        same = np.ascontiguousarray(actual).view(bits) == value.copy().view(bits)
        same = same | (np.isnan(actual) & np.isnan(value))
        if expected.is_signless or not expected.is_exact:
            same = same | (actual == value)
        if is_loose:
            same = same | np.isnan(value) | (actual == value)
        if not expected.is_exact:
            with np.errstate(all="ignore"):
                away = np.abs(actual.astype(float) - value.astype(float))
            same = same | (away <= error) | ~np.isfinite(error)
    else:
        same = actual == value
    if not np.all(same):
        raise Wrong(f"{where}: got {actual!r}, expected {value!r} within {error}")


def traced(programs: Sequence[Program]) -> ModuleOp:
    return trace_programs(
        {f"p{k}": (program, program.specs) for k, program in enumerate(programs)}
    )


def stages(chunk: int | None) -> Iterator[tuple[str, list[ModulePass]]]:
    """The stages and the passes that lead to each, with fusion if there is a chunk."""
    for stage, passes in (STAGES if chunk is None else FUSING).items():
        chosen = [
            replace(p, chunk=chunk) if isinstance(p, FuseReductionsPass) else p
            for p in passes
        ]
        yield stage, chosen


def run(programs: Sequence[Program]) -> None:
    """Run programs at every stage and compiled, as one module.

    Raises:
        Wrong: at the first difference.
    """

    def check(where: str, call: Callable[[str, Program], Any]) -> None:
        for k, program in enumerate(programs):
            try:
                results = call(f"p{k}", program)
            except moa.MoaError as error:
                raise Wrong(f"{where}: {type(error).__name__}: {error}") from error
            results = results if isinstance(results, tuple) else (results,)
            for actual, expected in zip(results, program.results, strict=True):
                compare(actual, expected, where, program.is_loose)

    module = traced(programs)
    for stage, passes in stages(programs[0].chunk):
        for pass_ in passes:
            pass_.apply(Context(), module)
        module.verify()
        if stage == "dnf":
            for function in functions_of(module):
                assert not intermediate_arrays(function)
        if stage != "target":
            check(
                f"{stage}, interpreted",
                lambda name, program: interpret_module(module, name, program.arrays),
            )
    kernels = kernels_of(module)
    check("compiled", lambda name, program: kernels[name](*program.arrays))


def failure(program: Program) -> str | None:
    """What is wrong with a program, if anything."""
    try:
        run([program])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def smallest(program: Program) -> Program:
    """A part of a program that fails as well, as small as it can be found."""
    nodes = reachable(program.results)
    for node in sorted(nodes, key=lambda n: len(reachable([n]))):
        used = reachable([node])
        arguments = [a for a in program.arguments if a in used]
        part = Program(arguments, [node], program.dynamic, program.chunk)
        if failure(part):
            program = part
            break
    for node in list(reachable(program.results))[::-1]:
        if not node.operands or node in program.results:
            continue
        arguments = [*program.arguments, node]
        cut = Program(arguments, program.results, program.dynamic, program.chunk)
        if failure(cut):
            program = cut
    return program


def check_programs(numbers: Sequence[int]) -> None:
    programs = {number: program(number) for number in numbers}
    try:
        run(list(programs.values()))
    except Exception as error:
        for number, wrong in programs.items():
            if text := failure(wrong):
                part = smallest(wrong)
                pytest.fail(
                    f"program {number}: {text}\n{wrong}\n\nthe smallest part that "
                    f"fails: {failure(part)}\n{part}"
                )
        raise AssertionError(f"programs {numbers} fail together only") from error


@pytest.mark.parametrize("first", range(FIRST, FIRST + PROGRAMS, BATCH))
def test_programs_mean_the_same_everywhere(first: int) -> None:
    check_programs(range(first, min(first + BATCH, FIRST + PROGRAMS)))


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_programs_mean_the_same_as_kernels_of_a_gpu(first: int) -> None:
    """In the emulator; those are refused that would have the host look at data."""
    compared = 0
    for number in range(first, first + 20):
        wanted = program(number)
        if wanted.chunk not in (None, 64):
            continue  # other chunks are no option of the pipeline
        try:
            kernel = compile_for_cuda(
                traced([wanted]),
                "p0",
                Options(wanted.is_loose, target="cuda", emulate=True),
            )
        except moa.CompileError as error:
            assert "values in arrays" in str(error)  # noqa: PT017
            continue
        results = kernel(*wanted.arrays)
        results = results if isinstance(results, tuple) else (results,)
        for actual, expected in zip(results, wanted.results, strict=True):
            compare(actual, expected, f"kernel of {number}", wanted.is_loose)
        compared += 1
    assert compared >= 8


# The generator


def test_every_operation_has_a_case() -> None:
    """A new operation of the algebra needs a method of `Scope`."""
    assert [op.name for op in OPERATIONS if not hasattr(Scope, CASES[op])] == []


def test_every_operation_occurs() -> None:
    """In the programs of CI; every scalar operation does in twice as many and more."""
    operations: Counter[str] = Counter()
    scalars: Counter[str] = Counter()
    for first in range(0, 5000, BATCH):
        module = traced([program(k) for k in range(first, first + BATCH)])
        for op in module.walk():
            operations[op.name] += first < 2000
            for name in ("function", "combine"):
                value = op.properties.get(name)
                if isinstance(value, StringAttr):
                    scalars[value.data] += 1
        if first >= 2000 and all(scalars[name] for name in scalar_names()):
            break
    assert [op.name for op in OPERATIONS if operations[op.name] < 10] == []
    assert [name for name in scalar_names() if not scalars[name]] == []


def test_cells_occur() -> None:
    """`moa.cell`, which no program writes, is what omega's operands become."""
    assert {*ALGEBRA} - {*OPERATIONS} == {CellOp}
    module = traced([program(k) for k in range(BATCH)])
    seen: Counter[str] = Counter()

    class Seen:
        def begin(self, value: SSAValue, extents: Any, body: Any) -> None:
            pass

        def step(self, law: Any, element: AtOp, value: SSAValue) -> None:
            seen[type(element.array.owner).__name__] += 1

    for function in functions_of(module):
        if function.sym_visibility != StringAttr("private"):
            to_dnf(function, 20_000, [lambda _: Seen()])
    assert seen[CellOp.__name__] > 0


@pytest.mark.parametrize("chunk", CHUNKS)
def test_cascades_occur(chunk: int) -> None:
    """The fused programs are worth their name: many share a pass by a transport."""
    moves = 0
    for first in range(0, 2000, BATCH):
        if chunk_of(first) != chunk:
            continue
        module = traced([program(k) for k in range(first, first + BATCH)])
        for stage, passes in stages(chunk):
            for pass_ in passes:
                pass_.apply(Context(), module)
            if stage == "fused":
                break
        cascades = (op for op in module.walk() if isinstance(op, CascadeOp))
        moves += sum(view.move is not None for c in cascades for view in c.views())
    assert moves >= 5


def test_a_difference_is_found() -> None:
    """The comparison sees one bit, and in a loose program more than the bound."""
    value = np.array([1.0, 0.0])
    node = Node((2,), "f64", "", (), lambda: None, [value])
    compare(value.copy(), node, "")
    for other in (np.nextafter(value, 2), np.array([1.0, -0.0]), value.astype("f4")):
        with pytest.raises(Wrong):
            compare(other, node, "")
    node.errors = [np.array([1e-12, 0.0])]
    compare(np.array([1 + 1e-13, 0.0]), node, "", is_loose=True)
    for wrong in ([1 + 1e-11, 0.0], [1.0, 1e-300], [math.nan, 0.0]):
        with pytest.raises(Wrong):
            compare(np.array(wrong), node, "", is_loose=True)
