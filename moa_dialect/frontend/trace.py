"""Tracing: a Python function of arrays becomes a function of the dialect.

While a function is traced its arguments are `Array` values (or `Scalar` values, for
scalar functions), and the functions of `moa_dialect.frontend.functions` record
operations instead of computing.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from moa_dialect.errors import DTypeError, MoaError, ShapeError, precondition_error
from moa_dialect.ops.base import ArrayOperation, as_tensor
from moa_dialect.ops.extents import EXTENTS, is_extent_name
from moa_dialect.ops.function import ElementTypeException
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.types import (
    dense,
    dtype_of,
    element_of,
    element_type_of,
    kind_of,
    shape_of,
)

Number: TypeAlias = float | int | bool | np.generic


@dataclass(frozen=True)
class ArraySpec:
    """The shape and dtype of an argument that is not there yet.

    Attributes:
        shape: an extent for each axis: a number, None where it is known only at the
            call, or a name for one that is known only then. Equal names in one program
            mean equal extents; that is checked at the call.
        dtype: a NumPy dtype, or a name: f64, f32, f16, bf16, i64, i32, i1, index.
    """

    shape: tuple[int | str | None, ...]
    dtype: Any = "f64"

    def __post_init__(self) -> None:
        shape: Any = self.shape
        if not isinstance(shape, tuple | list) or not all(
            extent is None
            or (isinstance(extent, int | np.integer) and extent >= 0)  # pyright: ignore
            or (isinstance(extent, str) and is_extent_name(extent))
            for extent in cast(Sequence[Any], shape)
        ):
            raise ShapeError(
                f"a shape is a tuple of extents, not negative, names, or None, "
                f"got {shape!r}"
            )

    @property
    def type(self) -> TensorType:
        """The tensor type of such an array."""
        shape = [None if isinstance(extent, str) else extent for extent in self.shape]
        return as_tensor(shape, element_type_of(self.dtype))

    @property
    def attributes(self) -> DictionaryAttr:
        """The attributes of such an argument: `moa.extents` if extents have names."""
        if not any(isinstance(extent, str) for extent in self.shape):
            return DictionaryAttr({})
        texts = ("?" if extent is None else str(extent) for extent in self.shape)
        return DictionaryAttr({EXTENTS: ArrayAttr(map(StringAttr, texts))})


@dataclass
class Trace:
    """The recording of one module; `scopes` are the functions being traced."""

    module: ModuleOp = field(default_factory=lambda: ModuleOp([]))
    scopes: list[Scope] = field(default_factory=lambda: list[Scope]())
    texts: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def scope(self) -> Scope:
        """The function that operations are recorded into."""
        return self.scopes[-1]

    def symbol(self, wanted: str) -> str:
        """A symbol not used yet, like the wanted one."""
        base = re.sub(r"\W", "_", wanted).strip("_") or "function"
        used = {op.sym_name.data for op in self.module.ops if isinstance(op, FuncOp)}
        names = [base, *(f"{base}_{n}" for n in range(2, len(used) + 3))]
        return next(name for name in names if name not in used)

    def function(
        self,
        name: str,
        wrap: Callable[[Scope, SSAValue], Any],
        types: Sequence[Attribute],
        names: Sequence[str],
        fn: Callable[..., Any],
        unwrap: Callable[[Any], SSAValue],
        private: bool,
    ) -> FuncOp:
        """Record `fn` as a function with arguments of these types."""
        block = Block(arg_types=types)
        for argument, hint in zip(block.args, names, strict=False):
            argument.name_hint = hint if SSAValue.is_valid_name(hint) else None
        function = FuncOp(
            self.symbol(name),
            FunctionType.from_lists(types, []),
            Region(block),
            visibility=StringAttr("private") if private else None,
        )
        self.module.body.block.add_op(function)
        scope = Scope(self, Builder(InsertPoint.at_end(block)))
        self.scopes.append(scope)
        try:
            result = fn(*(wrap(scope, argument) for argument in block.args))
            results = cast(
                tuple[Any, ...], result if isinstance(result, tuple) else (result,)
            )
            for value in results:
                _check_result(value)
            values = [unwrap(value) for value in results]
        finally:
            self.scopes.pop()
        block.add_op(ReturnOp(*values))
        function.function_type = FunctionType.from_lists(
            types, [value.type for value in values]
        )
        return function

    def private_function(self, function: FuncOp) -> SymbolRefAttr:
        """The symbol of a recorded function; equal functions are kept once."""
        name = function.sym_name.data
        text = str(function).replace(f"@{name}", "@", 1)
        if text in self.texts:
            function.detach()
            function.erase()
            name = self.texts[text]
        else:
            self.texts[text] = name
            first = self.module.body.block.first_op
            if first is not None and first is not function:
                # Functions come before their users, for the reader.
                function.detach()
                self.module.body.block.insert_op_before(function, first)
        return SymbolRefAttr(name)


@dataclass
class Scope:
    """One function being recorded."""

    trace: Trace
    builder: Builder


_ACTIVE: ContextVar[Trace | None] = ContextVar("moa_trace", default=None)


def active_trace() -> Trace | None:
    """The trace that is being recorded, if any."""
    return _ACTIVE.get()


def record(op: ArrayOperation) -> Array:
    """Insert an operation into the function being traced, checked.

    Raises:
        DTypeError, IndexRangeError, ShapeError: if it does not verify.
    """
    trace = active_trace()
    assert trace is not None
    scope = trace.scope
    scope.builder.insert(op)
    checked(op.verify_)
    return Array(scope, op.array_result)


def checked(action: Callable[[], Any]) -> Any:
    """Run something that may raise a verifier's error, as the user's error."""
    try:
        return action()
    except ElementTypeException as error:
        raise DTypeError(str(error)) from None
    except VerifyException as error:
        raise precondition_error(str(error)) from None


def _apply(name: str, *arguments: Any) -> Any:
    from moa_dialect.frontend.functions import apply

    return apply(name, *arguments)


class Traced:
    """A value of a program being traced; the operators record operations."""

    __slots__ = ("scope", "value")
    __array_ufunc__ = None

    def __init__(self, scope: Scope, value: SSAValue) -> None:
        self.scope = scope
        self.value = value

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __bool__(self) -> bool:
        raise MoaError(
            "a traced value has no truth value: the program cannot branch on data; "
            "use moa.where"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise MoaError("NumPy cannot compute with a traced value; use moa's functions")

    def __iter__(self) -> Any:
        raise MoaError("a traced value cannot be iterated over; use moa.omega")

    def __add__(self, other: Any) -> Any:
        return _apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return _apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _apply("div", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _apply("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _apply("floordiv", other, self)

    def __mod__(self, other: Any) -> Any:
        return _apply("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _apply("mod", other, self)

    def __pow__(self, other: Any) -> Any:
        return _apply("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _apply("pow", other, self)

    def __and__(self, other: Any) -> Any:
        return _apply("and", self, other)

    def __rand__(self, other: Any) -> Any:
        return _apply("and", other, self)

    def __or__(self, other: Any) -> Any:
        return _apply("or", self, other)

    def __ror__(self, other: Any) -> Any:
        return _apply("or", other, self)

    def __xor__(self, other: Any) -> Any:
        return _apply("xor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return _apply("xor", other, self)

    def __lt__(self, other: Any) -> Any:
        return _apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return _apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return _apply("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return _apply("ge", self, other)

    def __eq__(self, other: object) -> Any:  # pyright: ignore
        return _apply("eq", self, other)

    def __ne__(self, other: object) -> Any:  # pyright: ignore
        return _apply("ne", self, other)

    def __neg__(self) -> Any:
        return _apply("neg", self)

    def __abs__(self) -> Any:
        return _apply("abs", self)

    def __invert__(self) -> Any:
        return _apply("not", self)


class Array(Traced):
    """An array of a program being traced: rank, shape and dtype, no elements."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The extents, None where they are known only when the program runs."""
        return tuple(None if e < 0 else e for e in shape_of(self.value.type))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def element_type(self) -> Attribute:
        """The element type of the IR."""
        return element_of(self.value.type)

    @property
    def dtype(self) -> np.dtype:
        """The element type as a NumPy dtype (index as int64)."""
        return dtype_of(self.element_type)

    def __getitem__(self, index: Any) -> Array:
        """`index ψ self` for an integer or a tuple of integers."""
        from moa_dialect.frontend.functions import psi

        entries = cast(tuple[Any, ...], index if isinstance(index, tuple) else (index,))
        if not all(isinstance(entry, int | np.integer) for entry in entries):
            raise MoaError(
                f"indexing takes integers (psi of a leading index), got {index!r}"
            )
        return psi([int(entry) for entry in entries], self)

    def __matmul__(self, other: Any) -> Array:
        from moa_dialect.frontend.functions import product_of

        return product_of(self, other)

    def __rmatmul__(self, other: Any) -> Array:
        from moa_dialect.frontend.functions import product_of

        return product_of(other, self)

    def __repr__(self) -> str:
        return f"<moa.Array {self.value.type}>"


class Scalar(Traced):
    """A scalar of a scalar function being traced."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<moa.Scalar {self.value.type}>"


def constant(value: Any, element_type: Attribute | None = None) -> Array:
    """An array or number as a constant of the program.

    A Python number takes `element_type` if one is given; an array keeps its dtype.

    Raises:
        DTypeError: for an unsupported dtype, or a number the type cannot hold.
    """
    if isinstance(value, bool | int | float) and element_type is not None:
        if isinstance(value, float) and kind_of(element_type) != "float":
            raise DTypeError(f"expected a number of type {element_type}, got {value}")
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype_of(element_type))
            if np.isinf(array) and not math.isinf(value):
                raise OverflowError
        except OverflowError:
            raise DTypeError(
                f"expected a number of type {element_type}, got one it cannot hold"
            ) from None
    else:
        array = _as_numpy(value)
        natural = element_type_of(array.dtype)
        element_type = (
            element_type
            if element_type is not None and dtype_of(element_type) == array.dtype
            else natural
        )
    if array.dtype.kind == "f" and array.size > 1 and not array.any():
        signs = np.copysign(np.ones_like(array), array)
        if len(np.unique(signs)) > 1:
            # Text takes equal elements for one element repeated, and 0 equals -0.
            ones = record(ConstantOp(dense(signs, element_type)))
            return ones * 0.0
    return record(ConstantOp(dense(array, element_type)))


def _as_numpy(value: Any) -> np.ndarray:
    """Numbers as an array.

    Raises:
        ShapeError: for lists of different lengths within a list.
    """
    try:
        return np.asarray(value)
    except ValueError:
        raise ShapeError(f"expected rows of one length, got {value!r}") from None


def integers(operator: str, value: Any) -> np.ndarray:
    """Numbers that an operator takes as indices, extents or counts.

    Raises:
        DTypeError: unless they are integers that an i64 holds.
    """
    array = _as_numpy(value)
    if array.size == 0 and array.dtype == np.float64:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer) or array.dtype == np.uint64:
        raise DTypeError(f"{operator} expects integers, got {value!r}")
    return array.astype(np.int64)


def as_array(value: Any, element_type: Attribute | None = None) -> Array:
    """A traced array as it is, anything else as a constant.

    Raises:
        MoaError: if a traced array belongs to another function.
    """
    if not isinstance(value, Array):
        return constant(value, element_type)
    trace = active_trace()
    if trace is None or not trace.scopes or value.scope is not trace.scope:
        raise MoaError(
            "a cell function must not use an array of the program around it: "
            "pass the array to omega as well"
        )
    return value


def _check_result(value: Any) -> None:
    """Refuse what a program may give by mistake.

    Raises:
        MoaError: for nothing, a mapping and a list of traced values.
    """
    kind = cast(type[object], type(value))
    has_traced = kind is list and any(isinstance(each, Array) for each in value)
    if value is None or kind is dict or has_traced:
        raise MoaError(
            "expected a program that returns an array or a tuple of arrays, got "
            f"{'None' if value is None else 'a ' + kind.__name__}"
        )


def function_name(fn: Callable[..., Any], default: str) -> str:
    """A name for the symbol of a Python function."""
    name = getattr(fn, "__name__", default)
    return default if name == "<lambda>" else name


def argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """The names of the first positional parameters, or generic ones."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [positional[n] if n < len(positional) else f"arg{n}" for n in range(count)]


def trace_program(
    fn: Callable[..., Any],
    specs: Sequence[ArraySpec],
    name: str | None = None,
) -> ModuleOp:
    """Trace a function of arrays into a module with one public function.

    Raises:
        MoaError: if the program is not well formed (ShapeError, DTypeError, ...).
    """
    return trace_programs({name or function_name(fn, "main"): (fn, specs)})


def trace_programs(
    programs: Mapping[str, tuple[Callable[..., Any], Sequence[ArraySpec]]],
) -> ModuleOp:
    """Trace functions of arrays into one module, with a public function for each.

    Cell functions and scalar functions that are equal are shared.

    Args:
        programs: for each name the function and the specs of its arguments.

    Raises:
        MoaError: if a program is not well formed (ShapeError, DTypeError, ...).
    """
    trace = Trace()
    token = _ACTIVE.set(trace)
    try:
        for name, (fn, specs) in programs.items():
            function = trace.function(
                name,
                Array,
                [spec.type for spec in specs],
                argument_names(fn, len(specs)),
                fn,
                lambda value: as_array(value).value,
                private=False,
            )
            attributes = [spec.attributes for spec in specs]
            if any(given.data for given in attributes):
                function.arg_attrs = ArrayAttr(attributes)
    finally:
        _ACTIVE.reset(token)
    return trace.module
