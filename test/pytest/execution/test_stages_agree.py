"""Random programs mean the same at every stage, compiled, and in NumPy.

The generator builds a program and its value together: each node knows how to write
itself with the front end's functions, and has the value NumPy gives it, computed in
MoA's order (folds from the last element down). Beside the value it has a bound on how
far a correct evaluation may be from it: zero as long as only exactly rounded operations
are involved, so that these are compared exactly (up to the sign of zero), and a few
units in the last place more for every function of the mathematical library, carried
through the operations after it.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

import moa_dialect as moa
from moa_dialect.interpreter import interpret_module

Shape = tuple[int, ...]

DTYPES = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i1": np.dtype(np.bool_),
    "index": np.dtype(np.int64),
}
FLOATS = ("f64", "f32")
NUMBERS = ("f64", "f32", "i64", "i32")
ELEMENTS = (*NUMBERS, "i1")
STAGES = ("moa", "dnf", "fused", "onf")

LIBRARY_ULPS = 16
"""What the functions of two mathematical libraries may differ by, generously."""

MOST_STEPS = 2_000
"""How many scalar steps the normal form of a program may take: it recomputes."""


@dataclass
class Numbers:
    """A value for each cell it is needed for, with a bound on the error of each.

    Outside of a cell function there is one cell.
    """

    values: list[np.ndarray]
    errors: list[np.ndarray]


@dataclass(eq=False)
class Node:
    """One array of a program.

    Attributes:
        shape: by the shape rule of the operation.
        dtype: the name of the element type.
        emit: writes it with the front end, given a way to get the arrays it needs.
        numbers: what it is.
        steps: the scalar steps of one element in the normal form, roughly.
        text: what a failing test shows.
        static_axes: how many of its last extents have to be known statically.
        literal: the number it is, if operators may take it as a Python number.
    """

    shape: Shape
    dtype: str
    emit: Callable[[Emitter], Any]
    numbers: Numbers
    steps: int
    text: str
    static_axes: int = 0
    literal: float | None = None

    @property
    def is_exact(self) -> bool:
        return not any(error.any() for error in self.numbers.errors)

    @property
    def is_number(self) -> bool:
        return self.dtype in NUMBERS

    @property
    def magnitude(self) -> float:
        """The largest absolute value, infinite if one is NaN."""
        found = [abs(v.astype(float)).max() for v in self.numbers.values if v.size]
        largest = max(found, default=0.0)
        return math.inf if math.isnan(largest) else float(largest)


@dataclass
class Emitter:
    """The arrays of one function that is being traced: each is written once."""

    arrays: dict[Node, Any] = field(default_factory=dict[Node, Any])

    def __call__(self, node: Node) -> Any:
        if node not in self.arrays:
            array = node.emit(self)
            # NumPy itself computes with constants alone, and gives its own numbers,
            # some of which count as numbers of Python: of no type of their own.
            is_number = isinstance(array, np.generic)
            self.arrays[node] = np.asarray(array) if is_number else array
        return self.arrays[node]


# Values and error bounds


def _ulps(value: np.ndarray, count: float) -> np.ndarray:
    """So many units in the last place (of the smallest number, near zero)."""
    if value.dtype.kind != "f":
        return np.zeros(value.shape)
    info = np.finfo(value.dtype)
    size = np.abs(value.astype(float)) * float(info.eps)
    size = np.maximum(size, float(info.smallest_subnormal)) * count
    return np.where(np.isfinite(size), size, math.inf)


def _inexact(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The error of a rounded operation whose operands' errors come to `error`."""
    error = np.where(np.isnan(error), math.inf, error)
    return np.where(error == 0, 0, error + _ulps(value, 4))


def _binary(name: str, a: Any, b: Any, ea: Any, eb: Any) -> tuple[Any, Any]:
    """The value and error of a scalar operation of two arguments."""
    value = np.asarray(REFERENCE[name](a, b))
    a, b = np.asarray(a).astype(float), np.asarray(b).astype(float)
    match name:
        case "add" | "sub":
            error = ea + eb
        case "max" | "min":
            return value, np.broadcast_to(np.maximum(ea, eb), value.shape)
        case "mul":
            # 0 * inf: an operand that is exactly 0 makes the product 0 or NaN.
            error = _times(np.abs(a), eb) + _times(np.abs(b), ea) + _times(ea, eb)
        case "div":
            room = np.abs(b) - eb
            quotient = np.abs(value.astype(float))
            error = np.where(
                room > 0, (ea + _times(quotient, eb)) / room, np.where(eb > 0, 1e999, 0)
            )
            error = np.where((ea == 0) & (eb == 0), 0, error)
        case _:
            assert not np.any(ea)
            assert not np.any(eb)
            if name == "pow":
                return value, _ulps(value, LIBRARY_ULPS)
            return value, np.zeros(value.shape)
    return value, _inexact(value, np.broadcast_to(error, value.shape))


def _times(a: Any, b: Any) -> Any:
    """The product of bounds, in which 0 times infinity is 0."""
    return np.where((a == 0) | (b == 0), 0, a * b)


def _unary(name: str, a: np.ndarray, ea: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value and error of a scalar operation of one argument."""
    value = np.asarray(REFERENCE[name](a))
    if name in ("neg", "abs"):
        return value, ea
    if name in ("not", "floor", "sqrt"):
        assert not ea.any()
        return value, ea
    wide = np.abs(value.astype(float))
    match name:
        case "exp":
            error = _times(wide, np.expm1(ea))
        case "exp2":
            error = _times(wide, np.exp2(ea) - 1)
        case "sin" | "cos" | "tanh":
            error = ea
        case "erf":
            error = 1.2 * ea
        case _:
            assert not ea.any()
            error = ea
    return value, np.where(np.isnan(error), math.inf, error) + _ulps(
        value, LIBRARY_ULPS
    )


def _erf(a: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[float])(a).astype(a.dtype)


REFERENCE: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "neg": lambda a: -a,
    "abs": np.abs,
    "not": np.logical_not,
    "floor": np.floor,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "tanh": np.tanh,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
LOGIC = ("and", "or", "xor")
ARITHMETIC = ("add", "sub", "mul", "max", "min")
WITH_IDENTITY = {"add", "mul", "max", "min", "and", "or", "xor"}
SPELLING: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": moa.maximum,
    "min": moa.minimum,
    "pow": lambda a, b: a**b,
    "and": moa.logical_and,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "neg": lambda a: -a,
    "abs": abs,
    "not": lambda a: ~a,
    "floor": moa.floor,
    "exp": moa.exp,
    "exp2": moa.exp2,
    "log": moa.log,
    "log2": moa.log2,
    "sqrt": moa.sqrt,
    "rsqrt": moa.rsqrt,
    "tanh": moa.tanh,
    "erf": moa.erf,
    "sin": moa.sin,
    "cos": moa.cos,
}


def _mix(x: Any, y: Any) -> Any:
    """A scalar function that is not associative and has no identity."""
    return x - y * 0.5


def _identity(name: str, dtype: np.dtype) -> Any:
    if name in ("max", "min") and dtype.kind == "i":
        info = np.iinfo(dtype)
        return info.min if name == "max" else info.max
    table = {"add": 0, "mul": 1, "max": -math.inf, "min": math.inf}
    return (table | {"and": True, "or": False, "xor": False})[name]


def _fold(
    name: str, planes: Sequence[tuple[Any, Any]], shape: Shape, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """The right fold of values with errors; the identity element if there are none."""
    if not planes:
        return np.full(shape, _identity(name, dtype), dtype), np.zeros(shape)
    value, error = planes[-1]
    for plane, plane_error in reversed(planes[:-1]):
        value, error = _combine(name, plane, value, plane_error, error)
    return np.asarray(value), np.asarray(error)


def _combine(name: str, a: Any, b: Any, ea: Any, eb: Any) -> tuple[Any, Any]:
    if name == "mix":
        half, error = _binary("mul", b, np.asarray(b).dtype.type(0.5), eb, 0.0)
        return _binary("sub", a, half, ea, error)
    return _binary(name, a, b, ea, eb)


# The generator


class Generator:
    """Grows nodes of one function: the program, or a cell function of omega."""

    def __init__(
        self,
        draw: Callable[[st.SearchStrategy[Any]], Any],
        cells: int,
        parameters: list[Node] | None = None,
        nesting: int = 0,
    ) -> None:
        self.draw = draw
        self.cells = cells
        self.nesting = nesting
        self.is_program = parameters is None
        self.arguments: list[Node] = []
        self.parameters = parameters or []
        self.nodes: list[Node] = list(self.parameters)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    # Leaves.

    def leaf(self, shape: Shape, dtype: str) -> Node:
        """An array of this shape and dtype: a known node, an argument, a constant."""
        fitting = [n for n in self.nodes if (n.shape, n.dtype) == (shape, dtype)]
        if fitting and self.pick(True, True, False):
            return self.pick(*fitting)
        if dtype == "index":
            return self._cast(self.leaf(shape, "i64"), "index")
        values = self.draw(arrays(shape, DTYPES[dtype]))
        return self.given(values, dtype, self.is_program and self.pick(True, False))

    def given(self, values: np.ndarray, dtype: str, is_argument: bool) -> Node:
        """An array as an argument of the program, or as a constant."""
        place = len(self.arguments)
        node = Node(
            values.shape,
            dtype,
            lambda _: values,
            Numbers([values] * self.cells, [np.zeros(values.shape)] * self.cells),
            1,
            f"arg{place}" if is_argument else f"{values!r}",
        )
        if is_argument:
            self.arguments.append(node)
        elif not values.shape and dtype == "f64":
            node.literal = values.item()
        return self.keep(node)

    def keep(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def make(
        self,
        shape: Shape,
        dtype: str,
        emit: Callable[[Emitter], Any],
        compute: Callable[..., tuple[Any, Any]],
        operands: Sequence[Node],
        steps: int,
        text: str,
    ) -> Node:
        """A node computed cell by cell from its operands' values and errors."""
        assume(steps * max(math.prod(shape), 1) * self.cells <= MOST_STEPS)
        values: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        for cell in range(self.cells):
            with np.errstate(all="ignore"):
                value, error = compute(
                    *(o.numbers.values[cell] for o in operands),
                    *(o.numbers.errors[cell] for o in operands),
                )
            values.append(np.asarray(value, DTYPES[dtype]))
            errors.append(np.broadcast_to(np.asarray(error, float), shape))
            assert values[-1].shape == shape, text
        node = Node(shape, dtype, emit, Numbers(values, errors), steps, text)
        return self.keep(node)

    # Nodes by depth.

    def node(self, depth: int, given: Shape | None = None, dtype: str = "") -> Node:
        """A program of at most this depth, of a given or any shape and dtype."""
        shape: Shape = self.draw(shapes()) if given is None else given
        dtype = dtype or self.pick("f64", "f64", "f64", *ELEMENTS)
        if depth == 0:
            return self.leaf(shape, dtype)
        return self.grow(self.pick(*KINDS), depth, shape, dtype)

    def grow(self, kind: str, depth: int, shape: Shape, dtype: str) -> Node:
        """An operation of this kind on top, if it can have such a result."""
        node = getattr(self, f"_{kind}")(depth - 1, shape, dtype)
        if node is None:
            return self.leaf(shape, dtype)
        assert (node.shape, node.dtype) == (shape, dtype), node.text
        return node

    # Pointwise.

    def _pointwise(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        if dtype == "i1":
            name = self.pick(*COMPARISONS, *LOGIC)
            element = "i1" if name in LOGIC else self.pick(*NUMBERS)
        else:
            extra = ("div", "pow") if dtype in FLOATS else ()
            name, element = self.pick(*ARITHMETIC, *extra), dtype
        sides = self.pick((shape, shape), (shape, shape), ((), shape), (shape, ()))
        a, b = (self.node(depth, side, element) for side in sides)
        if name in COMPARISONS and not (a.is_exact and b.is_exact):
            return None
        if name == "div":
            b = self._away_from_zero(b)
        if name == "pow":
            if not (a.is_exact and b.is_exact) or max(a.magnitude, b.magnitude) > 9:
                return None
            a = self._away_from_zero(a)
        return self.binary(name, a, b, dtype)

    def binary(self, name: str, a: Node, b: Node, dtype: str) -> Node:

        def emit(e: Emitter) -> Any:
            left, right = e(a), e(b)
            if b.literal is not None:
                right = b.literal
            elif a.literal is not None:
                left = a.literal
            return SPELLING[name](left, right)

        return self.make(
            a.shape or b.shape,
            dtype,
            emit,
            lambda a, b, ea, eb: _binary(name, a, b, ea, eb),
            (a, b),
            a.steps + b.steps + 1,
            f"{name}({a.text}, {b.text})",
        )

    def unary(self, name: str, a: Node) -> Node:
        return self.make(
            a.shape,
            a.dtype,
            lambda e: SPELLING[name](e(a)),
            lambda a, ea: _unary(name, a, ea),
            (a,),
            a.steps + 1,
            f"{name}({a.text})",
        )

    def _away_from_zero(self, a: Node) -> Node:
        """`|a| + 1`: the sign of zero may not decide between two infinities."""
        one = self.given(np.ones((), DTYPES[a.dtype]), a.dtype, False)
        return self.binary("add", self.unary("abs", a), one, a.dtype)

    def _map(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        if dtype == "i1":
            return self.unary("not", self.node(depth, shape, dtype))
        a = self.node(depth, shape, dtype)
        names = ["neg", "abs"]
        if dtype in FLOATS:
            if a.magnitude <= 50:
                names += ["exp", "exp2", "sin", "cos", "tanh", "erf"]
            if a.is_exact:
                names += ["floor", "sqrt", "log", "log2", "rsqrt"]
        name = self.pick(*names)
        if name in ("log", "log2", "rsqrt"):
            a = self._away_from_zero(a)
        return self.unary(name, a)

    def _where(self, depth: int, shape: Shape, dtype: str) -> Node:
        sides = [self.pick(shape, shape, ()) for _ in range(3)]
        if shape not in sides:
            sides[self.pick(0, 1, 2)] = shape
        types = ("i1", dtype, dtype)
        c, a, b = (
            self.node(d, s, t)
            for d, s, t in zip((min(depth, 1), depth, depth), sides, types, strict=True)
        )
        return self.make(
            shape,
            dtype,
            lambda e: moa.where(e(c), e(a), e(b)),
            lambda c, a, b, _, ea, eb: (np.where(c, a, b), np.where(c, ea, eb)),
            (c, a, b),
            a.steps + b.steps + c.steps + 1,
            f"where({c.text}, {a.text}, {b.text})",
        )

    def _casted(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        a = self.node(depth, shape, self.pick(*(t for t in ELEMENTS if t != dtype)))
        is_whole = a.is_exact and a.magnitude <= 2**30
        if a.dtype in FLOATS and dtype not in FLOATS and not is_whole:
            return None
        return self._cast(a, dtype)

    def _cast(self, a: Node, dtype: str) -> Node:
        def compute(a: np.ndarray, error: np.ndarray) -> tuple[Any, Any]:
            value = a != 0 if dtype == "i1" else a.astype(DTYPES[dtype])
            return value, _inexact(value, error)

        return self.make(
            a.shape,
            dtype,
            lambda e: moa.cast(e(a), dtype),
            compute,
            (a,),
            a.steps + 1,
            f"cast({a.text}, {dtype})",
        )

    # Structure.

    def _transpose(self, depth: int, shape: Shape, dtype: str) -> Node:
        axes = tuple(self.draw(st.permutations(range(len(shape)))))
        source = tuple(shape[axis] for axis in axes)
        is_plain = axes == tuple(reversed(range(len(shape)))) and self.pick(True, False)
        a = self.node(depth, source, dtype)

        def move(a: np.ndarray) -> np.ndarray:
            # Source axis k is result axis axes[k].
            return np.moveaxis(a, range(len(axes)), axes)

        return self.make(
            shape,
            dtype,
            lambda e: moa.transpose(e(a), None if is_plain else axes),
            lambda a, ea: (move(a), move(ea)),
            (a,),
            a.steps,
            f"transpose({a.text}, {axes})",
        )

    def _psi(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """A sub-array at a constant index, or one for each row of an index array."""
        length = self.draw(st.integers(0, 2))
        rows = self.draw(st.integers(0, len(shape)))
        if len(shape) - rows + length > 3:
            return None
        extents = tuple(self.draw(st.integers(1, 4)) for _ in range(length))
        a = self.node(depth, (*extents, *shape[rows:]), dtype)
        entries = [
            self.draw(arrays(shape[:rows], np.dtype(np.int64), 0, extent - 1))
            for extent in extents
        ]
        index = np.stack([np.zeros(shape[:rows], np.int64), *entries], -1)[..., 1:]
        as_data = self.is_program and length > 0 and self.pick(True, False)
        if as_data:
            position = self.given(index, "i64", True)
            position.static_axes = 1
            emit = lambda e: moa.psi(e(position), e(a))  # noqa: E731
        elif rows == 0 and length == 1 and self.pick(True, False):
            emit = lambda e: e(a)[int(index[0])]  # noqa: E731
        else:
            emit = lambda e: moa.psi(index, e(a))  # noqa: E731

        def select(a: np.ndarray) -> np.ndarray:
            if not length:
                return np.broadcast_to(a, (*index.shape[:-1], *a.shape))
            return a[tuple(index[..., k] for k in range(length))]

        return self.make(
            shape,
            dtype,
            emit,
            lambda a, ea: (select(a), select(ea)),
            (a,),
            a.steps + length,
            f"psi({index.tolist()}, {a.text})",
        )

    def _iota(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        if dtype == "i1" or not shape:
            return None
        if len(shape) == 1:
            extent, value = shape[0], np.arange(shape[0])
        else:
            extent = shape[:-1]
            if shape[-1] != len(extent):
                return None
            value = np.moveaxis(np.indices(extent), 0, -1)
        node = self.make(
            shape,
            "index",
            lambda _: moa.iota(extent),
            lambda: (value, 0),
            (),
            1,
            f"iota({extent})",
        )
        return self._cast(node, dtype)

    def _measure(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """The shape, rank or number of elements of some array."""
        if dtype == "i1" or len(shape) > 1:
            return None
        rank = shape[0] if shape else self.draw(st.integers(0, 3))
        if rank > 3:
            return None
        a = self.node(depth, self.draw(shapes(rank)))
        name = "shape" if shape else self.pick("dim", "total")
        value = {
            "shape": np.array(a.shape, np.int64),
            "dim": np.int64(len(a.shape)),
            "total": np.int64(math.prod(a.shape)),
        }[name]
        node = self.make(
            shape,
            "index",
            lambda e: getattr(moa, name)(e(a)),
            lambda: (value, 0),
            (),
            1,
            f"{name}({a.text})",
        )
        return self._cast(node, dtype)

    def _rearranged(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """Taken from, dropped from, reversed, rotated, joined or reshaped."""
        if not shape:
            return self._reshaped(depth, shape, dtype)
        name = self.pick("take", "drop", "reverse", "rotate", "cat", "reshape")
        if name == "reshape":
            return self._reshaped(depth, shape, dtype)
        extent, rest = shape[0], shape[1:]
        if name == "cat":
            split = self.draw(st.integers(0, extent))
            a = self.node(depth, (split, *rest), dtype)
            b = self.node(depth, (extent - split, *rest), dtype)
            return self.make(
                shape,
                dtype,
                lambda e: moa.cat(e(a), e(b)),
                lambda a, b, ea, eb: (np.concatenate([a, b]), np.concatenate([ea, eb])),
                (a, b),
                a.steps + b.steps + 2,
                f"cat({a.text}, {b.text})",
            )
        more = self.draw(st.integers(0, 3)) if name in ("take", "drop") else 0
        sign = self.pick(1, -1)
        a = self.node(depth, (extent + more, *rest), dtype)
        places = list(range(extent + more))
        match name:
            case "take":
                count = sign * extent
                places = places[:extent] if sign > 0 else places[more:]
            case "drop":
                count = sign * more
                places = places[more:] if sign > 0 else places[:extent]
            case "rotate":
                count = self.draw(st.integers(-7, 7))
                places = [(k + count) % extent for k in places] if extent else []
            case _:
                count = 0
                places.reverse()

        def emit(e: Emitter) -> Any:
            if name == "reverse":
                return moa.reverse(e(a))
            return getattr(moa, name)(count, e(a))

        return self.make(
            shape,
            dtype,
            emit,
            lambda a, ea: (a[places], ea[places]),
            (a,),
            a.steps + 2,
            f"{name}({count}, {a.text})",
        )

    def _reshaped(self, depth: int, shape: Shape, dtype: str) -> Node:
        """From another shape of as many elements, in row-major order."""
        total = math.prod(shape)
        sources = [(total,), (1, total), (total, 1), shape[::-1]]
        sources += [(k, total // k) for k in range(2, 6) if total % k == 0]
        a = self.node(depth, self.pick(*sources), dtype)
        is_ravel = len(shape) == 1 and self.pick(True, False)
        return self.make(
            shape,
            dtype,
            lambda e: moa.ravel(e(a)) if is_ravel else moa.reshape(shape, e(a)),
            lambda a, ea: (a.reshape(shape), ea.reshape(shape)),
            (a,),
            a.steps + 4,
            f"reshape({shape}, {a.text})",
        )

    # Folds and products.

    def _scanned(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """The folds of the first one, two, ... planes, each from its last."""
        if not shape:
            return None
        name = self._fold_name(dtype, shape[0])
        if name == "div":
            name = "max"
        a = self.node(depth, shape, dtype)
        function = _mix if name == "mix" else name

        def compute(a: np.ndarray, ea: np.ndarray) -> tuple[Any, Any]:
            planes = list(zip(a, ea, strict=True))
            folds = [
                _fold(name, planes[: k + 1], shape[1:], a.dtype)
                for k in range(len(planes))
            ]
            values = np.array([value for value, _ in folds], a.dtype).reshape(shape)
            errors = [np.broadcast_to(error, shape[1:]) for _, error in folds]
            return values, np.array(errors, float).reshape(shape)

        return self.make(
            shape,
            dtype,
            lambda e: moa.scan(function, e(a)),
            compute,
            (a,),
            shape[0] * (a.steps + 1) + 1,
            f"scan({name}, {a.text})",
        )

    def _fold_name(self, dtype: str, extent: int) -> str:
        if dtype == "i1":
            return self.pick(*LOGIC)
        names = ["add", "add", "mul", "max", "min"]
        if extent:
            names += ["sub", "mix", "div"] if dtype in FLOATS else ["sub"]
        return self.pick(*names)

    def _reduce(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        if len(shape) > 2:
            return None
        extent = self.draw(st.integers(0, 5))
        name = self._fold_name(dtype, extent)
        a = self.node(depth, (extent, *shape), dtype)
        if name == "div":
            a = self._away_from_zero(a)
        function = _mix if name == "mix" else name

        def compute(a: np.ndarray, ea: np.ndarray) -> tuple[Any, Any]:
            return _fold(name, list(zip(a, ea, strict=True)), shape, a.dtype)

        return self.make(
            shape,
            dtype,
            lambda e: moa.reduce(function, e(a)),
            compute,
            (a,),
            extent * (a.steps + 1) + 1,
            f"reduce({name}, {a.text})",
        )

    def _product_name(self, dtype: str) -> tuple[str, str]:
        """A scalar operation with this result, and the type it takes."""
        if dtype == "i1":
            name = self.pick(*COMPARISONS, *LOGIC)
            return name, "i1" if name in LOGIC else self.pick(*NUMBERS)
        return self.pick(*ARITHMETIC, "mul"), dtype

    def _outer(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        name, element = self._product_name(dtype)
        split = self.draw(st.integers(0, len(shape)))
        a = self.node(depth, shape[:split], element)
        b = self.node(depth, shape[split:], element)
        if name in COMPARISONS and not (a.is_exact and b.is_exact):
            return None

        def spread(a: Any) -> Any:
            return a.reshape(a.shape + (1,) * (len(shape) - split))

        return self.make(
            shape,
            dtype,
            lambda e: moa.outer(name, e(a), e(b)),
            lambda a, b, ea, eb: _binary(name, spread(a), b, spread(ea), eb),
            (a, b),
            a.steps + b.steps + 1,
            f"outer({name}, {a.text}, {b.text})",
        )

    def _inner(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        split = self.draw(st.integers(max(0, len(shape) - 2), min(2, len(shape))))
        extent = self.draw(st.integers(0, 5))
        name, element = self._product_name(dtype)
        combine = self._fold_name(dtype, extent)
        if combine == "div":
            combine = "max"
        a = self.node(depth, (*shape[:split], extent), element)
        b = self.node(depth, (extent, *shape[split:]), element)
        if name in COMPARISONS and not (a.is_exact and b.is_exact):
            return None
        function = _mix if combine == "mix" else combine

        def compute(a: Any, b: Any, ea: Any, eb: Any) -> tuple[Any, Any]:
            def column(x: Any, k: int) -> Any:
                x = x[..., k]
                return x.reshape(x.shape + (1,) * (len(shape) - split))

            planes = [
                _binary(name, column(a, k), b[k], column(ea, k), eb[k])
                for k in range(extent)
            ]
            return _fold(combine, planes, shape, DTYPES[dtype])

        return self.make(
            shape,
            dtype,
            lambda e: moa.inner(function, name, e(a), e(b)),
            compute,
            (a, b),
            extent * (a.steps + b.steps + 2) + 1,
            f"inner({combine}, {name}, {a.text}, {b.text})",
        )

    # Omega.

    def _omega(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """A cell function, generated like a program, over the cells of its arrays."""
        if self.nesting == 2:
            return None
        frame_rank = self.draw(st.integers(0, len(shape)))
        frame, cell = shape[:frame_rank], shape[frame_rank:]
        count = self.pick(1, 2)
        longer = self.pick(0, 1) if count == 2 else 0
        frames = [frame] * count
        if count == 2:
            # The shorter frame is a suffix of the longer.
            frames[1 - longer] = frame[self.draw(st.integers(0, frame_rank)) :]
        if count == 2 and not frames[0] and self.pick(True, False):
            frames[0] = frame if not frames[1] else frames[0]
        operands: list[Node] = []
        for own in frames:
            own_cell = self.draw(shapes(self.draw(st.integers(0, 3 - len(own)))))
            kind = self.pick(dtype, dtype, "f64")
            operands.append(self.node(min(depth, 1), own + own_cell, kind))
        ranks = [len(o.shape) - len(f) for o, f in zip(operands, frames, strict=True)]
        indices = list(np.ndindex(*frame))
        parameters = [
            Node(
                operand.shape[len(own) :],
                operand.dtype,
                lambda _: None,
                Numbers(
                    list(_cells(operand.numbers.values, indices, len(own))),
                    list(_cells(operand.numbers.errors, indices, len(own))),
                ),
                operand.steps,
                name,
            )
            for operand, own, name in zip(operands, frames, "xy", strict=False)
        ]
        inside = Generator(
            self.draw, self.cells * len(indices), parameters, self.nesting + 1
        )
        body = inside.node(min(depth, 2), cell, dtype)

        def function(*cells: Any) -> Any:
            return Emitter(dict(zip(parameters, cells, strict=True)))(body)

        def gather(numbers: list[np.ndarray], element: Any) -> list[np.ndarray]:
            size = len(indices)
            return [
                np.array(
                    numbers[start * size : (start + 1) * size], element
                ).reshape(shape)
                for start in range(self.cells)
            ]  # fmt: skip

        steps = body.steps + 1
        assume(steps * max(math.prod(shape), 1) * self.cells <= MOST_STEPS)
        rank = ranks[0] if count == 1 and self.pick(True, False) else ranks
        return self.keep(
            Node(
                shape,
                dtype,
                lambda e: moa.omega(function, rank, *map(e, operands)),
                Numbers(
                    gather(body.numbers.values, DTYPES[dtype]),
                    gather(body.numbers.errors, float),
                ),
                steps,
                f"omega([{body.text}], {ranks}, "
                f"{', '.join(operand.text for operand in operands)})",
            )
        )

    def _lifted(self, depth: int, shape: Shape, dtype: str) -> Node | None:
        """Omega of a scalar operation: `a f omega <1 0> b` and the like."""
        name, element = self._product_name(dtype)
        split = self.draw(st.integers(0, len(shape)))
        skip = self.draw(st.integers(0, split))
        frame, cell = shape[:split], shape[split:]
        a = self.node(depth, shape, element)
        b = self.node(depth, frame[skip:] + self.pick(cell, ()), element)
        if name in COMPARISONS and not (a.is_exact and b.is_exact):
            return None
        width = len(b.shape) - (split - skip)

        def fit(b: Any) -> Any:
            return b.reshape(b.shape + (1,) * (len(cell) - width))

        flipped = self.pick(True, False)

        def compute(a: Any, b: Any, ea: Any, eb: Any) -> tuple[Any, Any]:
            if flipped:
                return _binary(name, fit(b), a, fit(eb), ea)
            return _binary(name, a, fit(b), ea, fit(eb))

        def emit(e: Emitter) -> Any:
            if flipped:
                return moa.omega(name, (width, len(cell)), e(b), e(a))
            return moa.omega(name, (len(cell), width), e(a), e(b))

        return self.make(
            shape,
            dtype,
            emit,
            compute,
            (a, b),
            a.steps + b.steps + 1,
            f"lifted({name}, {a.text}, {b.text}, {flipped})",
        )


def _cells(
    numbers: list[np.ndarray], indices: Sequence[Shape], rank: int
) -> Iterator[np.ndarray]:
    """The cells of each array at the frame indices, of whose end it takes its part."""
    for array in numbers:
        for index in indices:
            yield np.asarray(array[index[len(index) - rank :]])


KINDS = (
    "pointwise",
    "map",
    "where",
    "casted",
    "transpose",
    "psi",
    "iota",
    "measure",
    "rearranged",
    "scanned",
    "reduce",
    "outer",
    "inner",
    "omega",
    "lifted",
)


@st.composite
def shapes(draw: Any, rank: int | None = None) -> Shape:
    """Ranks 0 to 3, extents 0 to 5, small ones and no empty axis more often."""
    if rank is None:
        rank = draw(st.sampled_from((0, 1, 1, 2, 2, 2, 3)))
    assert rank is not None
    extent = st.sampled_from((0, 1, 1, 2, 2, 3, 3, 4, 5))
    return tuple(draw(extent) for _ in range(rank))


@st.composite
def arrays(
    draw: Any, shape: Shape, dtype: np.dtype, low: int = -4, high: int = 4
) -> np.ndarray:
    """Small numbers (with a fraction, if of floating point), rarely special ones."""
    size = math.prod(shape)
    if dtype.kind == "b":
        elements = st.booleans()
    elif dtype.kind == "i":
        elements = st.integers(low, high)
    else:
        seed = draw(st.integers(0, 2**32 - 1))
        values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
        if size and draw(st.sampled_from((True, False, False, False))):
            special = st.sampled_from((0.0, -0.0, 1.0, -3.0, np.nan, np.inf, -np.inf))
            values.flat[draw(st.integers(0, size - 1))] = draw(special)
        return values
    values = draw(st.lists(elements, min_size=size, max_size=size))
    return np.array(values, dtype).reshape(shape)


class Program:
    """A program with one or two results, and arguments to run it on."""

    def __init__(self, arguments: list[Node], results: list[Node]) -> None:
        self.arguments = arguments
        self.results = results

    def __repr__(self) -> str:
        arguments = [node.numbers.values[0] for node in self.arguments]
        texts = ", ".join(result.text for result in self.results)
        return f"Program(({texts}) on {arguments})"

    @property
    def arrays(self) -> list[np.ndarray]:
        return [node.numbers.values[0] for node in self.arguments]

    def __call__(self, *arrays: Any) -> Any:
        emit = Emitter(dict(zip(self.arguments, arrays, strict=True)))
        results = tuple(map(emit, self.results))
        return results[0] if len(results) == 1 else results


@st.composite
def programs(draw: Any, kind: str) -> Program:
    """A program with an operation of this kind on top."""
    generator = Generator(draw, 1)
    shape, dtype = draw(shapes()), generator.pick("f64", "f64", "f64", *ELEMENTS)
    depth = draw(st.integers(1, 4))
    results = [generator.grow(kind, depth, shape, dtype)]
    if generator.pick(False, False, True):
        results.append(generator.pick(*generator.nodes))
        assume(results[-1].dtype != "index")
    return Program(generator.arguments, results)


def check(actual: Any, expected: Node, where: str) -> None:
    """Compare with what NumPy gives, within the error bound."""
    value, error = expected.numbers.values[0], expected.numbers.errors[0]
    assert isinstance(actual, np.ndarray), where
    assert actual.dtype == value.dtype, where
    assert actual.shape == value.shape, where
    exact = error == 0
    np.testing.assert_array_equal(actual[exact], value[exact], where)
    bounded = np.isfinite(error) & ~exact
    given, wanted = actual[bounded].astype(float), value[bounded].astype(float)
    is_same = (given == wanted) | (np.isnan(given) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        is_near = np.abs(given - wanted) <= error[bounded]
    assert np.all(is_same | is_near), (
        f"{where}: {actual} differs from {value} by more than {error}"
    )


def check_program(program: Program) -> None:
    arrays = program.arrays

    def compare(results: Sequence[np.ndarray], where: str) -> None:
        assert len(results) == len(program.results)
        for actual, expected in zip(results, program.results, strict=True):
            check(actual, expected, where)

    def as_tuple(results: Any) -> tuple[np.ndarray, ...]:
        return results if isinstance(results, tuple) else (results,)

    static = [moa.ArraySpec(array.shape, array.dtype) for array in arrays]
    dynamic: list[moa.ArraySpec] = []
    for node in program.arguments:
        known = len(node.shape) - node.static_axes
        shape = (None,) * known + node.shape[known:]
        dynamic.append(moa.ArraySpec(shape, DTYPES[node.dtype]))
    for extents, specs in (("static", static), ("dynamic", dynamic)):
        # NumPy computes what a program does with constants alone.
        with np.errstate(all="ignore"):
            compiled = moa.jit(program).lower(*specs)
            unfused = moa.jit(program, fuse=False).lower(*specs)
        for stage in STAGES:
            module = compiled.module(stage)
            module.verify()
            results = interpret_module(module, "main", arrays)
            compare(results, f"{extents} {stage}, interpreted")
        # Bit by bit, so without the licence of real arithmetic.
        compare(as_tuple(unfused(*arrays)), f"{extents}, compiled")
        assert compiled.intermediates == 0


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=max(5, settings().max_examples // 10))
@given(data=st.data())
def test_program_means_the_same_at_every_stage(kind: str, data: st.DataObject) -> None:
    program = data.draw(programs(kind))
    for result in program.results:
        event(f"exact: {result.is_exact}, rank {len(result.shape)}")
    check_program(program)
