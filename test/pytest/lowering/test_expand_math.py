"""moa-expand-math: errors against mpmath, special values, and code without calls."""
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import ctypes
import math
import re
from functools import cache
from typing import Any

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from moa_dialect.errors import CompileError
from moa_dialect.lowering import host, upstream
from moa_dialect.lowering.expand_math import ExpandMathPass, host_target
from moa_dialect.lowering.pipelines import TO_LLVM
from moa_dialect.parsing import ModuleParser
from moa_dialect.tools import minimax
from moa_dialect.tools.compare_linalg import upstream_engine
from moa_dialect.universe import register_dialects

PIPELINE = TO_LLVM.replace(
    "convert-math-to-llvm", "convert-vector-to-llvm,convert-math-to-llvm"
)

BOUNDS = {
    "exp": 1.0,
    "exp2": 1.0,
    "expm1": 2.0,
    "log": 1.0,
    "log1p": 1.0,
    "log2": 1.1,
    "tanh": 2.0,
    "erf": 1.25,
}
"""The bounds in docs/math.md, in units in the last place of the exact result."""

DTYPES: dict[str, Any] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}

HARD = {
    "exp": [(-105, 90), (-746, 711), (-1, 1), (-88, -87), (-709, -708)],
    "exp2": [(-151, 129), (-1076, 1026), (-1, 1), (-127, -125)],
    "expm1": [(-40, 90), (-1, 1), (0.3, 0.4), (700, 711)],
    "log": [(0.5, 2.2), (0.99, 1.01), (0.70, 0.72), (1.41, 1.42)],
    "log1p": [(-1, 3), (-0.3, 0.5), (-1e-3, 1e-3)],
    "log2": [(0.5, 2.2), (0.99, 1.01), (0.70, 0.72), (1.41, 1.42)],
    "tanh": [(-10, 10), (-20, 20), (-0.5, 0.5), (0.2, 0.3)],
    "erf": [(-6, 6), (-1.2, 1.2), (0.9, 1.1)],
}
"""Intervals where a range reduction changes, or a result cancels or ends."""

EXACT: dict[str, Any] = {
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": mp.log1p,
    "log2": lambda x: mp.log(x, 2),
    "tanh": mp.tanh,
    "erf": mp.erf,
}

avx512 = pytest.mark.skipif(
    host_target() != "avx512", reason="the machine has no AVX-512"
)
CODES = [
    pytest.param("f32", 1, "generic", id="f32"),
    pytest.param("f64", 1, "generic", id="f64"),
    pytest.param("f32", 16, "generic", id="16xf32"),
    pytest.param("f64", 8, "generic", id="8xf64"),
    pytest.param("f32", 16, "avx512", id="16xf32-avx512", marks=avx512),
    pytest.param("f64", 8, "avx512", id="8xf64-avx512", marks=avx512),
]


def parsed(text: str) -> ModuleOp:
    context = Context()
    register_dialects(context)
    return ModuleParser(context, text).parse_module()


def expanded(text: str, target: str = "generic") -> ModuleOp:
    module = parsed(text)
    ExpandMathPass(target).apply(Context(), module)
    module.verify()
    return module


def program(operation: str, element: str, lanes: int, operands: int = 1) -> str:
    """A loop that applies an operation of the dialect math to arrays."""
    array = f"memref<?x{element}>"
    type_ = element if lanes == 1 else f"vector<{lanes}x{element}>"
    names = ["x", "y"][:operands]
    form = ("memref", array) if lanes == 1 else ("vector", f"{array}, {type_}")
    loads = "\n".join(f"%{n} = {form[0]}.load %{n}s[%i] : {form[1]}" for n in names)
    arguments = ", ".join(f"%{n}s: {array}" for n in [*names, "r"])
    name, _, attributes = operation.partition(" ")
    values = ", ".join(f"%{n}" for n in names)
    return f"""
func.func @apply({arguments}, %n: index) {{
  %zero = arith.constant 0 : index
  %step = arith.constant {lanes} : index
  scf.for %i = %zero to %n step %step {{
    {loads}
    %r = math.{name} {values} {attributes} : {type_}
    {form[0]}.store %r, %rs[%i] : {form[1]}
  }}
  func.return
}}"""


def lowered(module: ModuleOp) -> Any:
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    upstream.run_pipeline(native, PIPELINE)
    return native


class _Array(ctypes.Structure):
    """A memref of rank 1."""

    _fields_ = [
        ("allocated", ctypes.c_void_p),
        ("aligned", ctypes.c_void_p),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    ]


@cache
def engine(operation: str, element: str, lanes: int, target: str, operands: int) -> Any:
    module = expanded(program(operation, element, lanes, operands), target)
    return upstream_engine(lowered(module), 3)


def apply(
    operation: str, element: str, lanes: int, target: str, *operands: np.ndarray
) -> np.ndarray:
    """The results of an operation, elementwise, by compiled code."""
    size = operands[0].size
    dtype = DTYPES[element]
    padding = np.ones(-size % 64, dtype)
    arrays = [np.concatenate([array.astype(dtype), padding]) for array in operands]
    arrays.append(np.empty_like(arrays[0]))
    structures = [_Array(a.ctypes.data, a.ctypes.data, 0, a.size, 1) for a in arrays]
    pointers = [ctypes.pointer(structure) for structure in structures]
    count = ctypes.c_int64(arrays[0].size)
    slots = [ctypes.addressof(pointer) for pointer in pointers]
    packed = (ctypes.c_void_p * (len(slots) + 1))(*slots, ctypes.addressof(count))
    code = engine(operation, element, lanes, target, len(operands))
    code.lookup("apply")(ctypes.addressof(packed))
    return arrays[-1][:size]


def samples(name: str, element: str, count: int) -> np.ndarray:
    """Finite operands: any bits, every exponent, and where it is hard."""
    rng = np.random.default_rng(5)
    dtype = DTYPES[element]
    bits = np.dtype(f"u{dtype.itemsize}")
    random = rng.integers(0, np.iinfo(bits).max, count, bits).view(dtype)
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp, dtype=np.float64)
    powers = np.ldexp(dtype.type(1), exponents.astype(int))
    x = [random, powers, -powers, powers * dtype.type(1.37)]
    x += [rng.uniform(*edges, count).astype(dtype) for edges in HARD[name]]
    every = np.concatenate(x)
    every = every[np.isfinite(every)]
    if name.startswith("log"):
        every = every[every > (-1 if name == "log1p" else 0)]
    return every


def error(exact: Any, result: float, info: Any) -> float:
    """The error of one result in units in the last place of the exact one."""
    largest = mp.mpf(float(info.max)) * (1 + mp.mpf(float(info.eps)) / 4)
    if abs(exact) >= largest:
        return 0.0 if math.isinf(result) and (result > 0) == (exact > 0) else math.inf
    if not math.isfinite(result):
        return math.inf
    exponent = max(mp.frexp(exact)[1] - 1, info.minexp) if exact else info.minexp
    return float(abs(mp.mpf(result) - exact) / mp.mpf(2) ** (exponent - info.nmant))


def largest_error(name: str, x: np.ndarray, result: np.ndarray) -> float:
    info = np.finfo(x.dtype)
    with mp.workprec(120):
        return max(
            error(EXACT[name](mp.mpf(float(a))), float(b), info)
            for a, b in zip(x, result, strict=True)
        )


@pytest.mark.parametrize(("element", "lanes", "target"), CODES)
@pytest.mark.parametrize("name", BOUNDS)
def test_errors_are_bounded(name: str, element: str, lanes: int, target: str):
    x = samples(name, element, 400)
    result = apply(name, element, lanes, target, x)
    assert largest_error(name, x, result) <= BOUNDS[name]


@pytest.mark.parametrize(
    "name", ["exp", "exp2", "expm1", "log", "log1p", "log2", "tanh"]
)
def test_errors_of_many_numbers_are_bounded(name: str):
    """Against functions of f64, whose errors do not matter for f32."""
    x = samples(name, "f32", 200_000)
    with np.errstate(over="ignore"):
        exact = getattr(np, name)(x.astype(np.float64))
    result = apply(name, "f32", 16, "generic", x)
    fits = np.abs(exact) < float(np.finfo(np.float32).max)
    assert np.isinf(result[np.abs(exact) >= 2.0**128]).all()
    exponent = np.maximum(np.frexp(exact[fits])[1] - 1, -126)
    errors = np.abs(result[fits] - exact[fits]) / np.ldexp(1.0, exponent - 23)
    assert errors.max() <= BOUNDS[name]


INF, NAN = math.inf, math.nan
SPECIAL = {
    "exp": ([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30], [1, 1, INF, 0, NAN, INF, 0]),
    "exp2": ([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30], [1, 1, INF, 0, NAN, INF, 0]),
    "expm1": ([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30], [0, -0.0, INF, -1, NAN, INF, -1]),
    "log": ([0.0, -0.0, INF, -INF, NAN, 1, -1, -1e-40], [-INF, -INF, INF, NAN, NAN, 0, NAN, NAN]),
    "log2": ([0.0, -0.0, INF, -INF, NAN, 1, -1, 8], [-INF, -INF, INF, NAN, NAN, 0, NAN, 3]),
    "log1p": ([0.0, -0.0, INF, -INF, NAN, -1, -2], [0, -0.0, INF, NAN, NAN, -INF, NAN]),
    "tanh": ([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30], [0, -0.0, 1, -1, NAN, 1, -1]),
    "erf": ([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30], [0, -0.0, 1, -1, NAN, 1, -1]),
}  # fmt: skip


@pytest.mark.parametrize(("element", "lanes", "target"), CODES)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str, element: str, lanes: int, target: str):
    x, expected = (np.array(values, DTYPES[element]) for values in SPECIAL[name])
    result = apply(name, element, lanes, target, x)
    np.testing.assert_array_equal(result, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(
        np.signbit(result[number]), np.signbit(expected[number])
    )


@pytest.mark.parametrize(("element", "lanes", "target"), CODES)
@pytest.mark.parametrize("name", ["exp", "exp2"])
def test_exponentials_of_nonpositive_numbers(
    name: str, element: str, lanes: int, target: str
):
    x = -np.abs(samples(name, element, 400))
    operation = f"{name} {{moa.nonpositive}}"
    result = apply(operation, element, lanes, target, x)
    assert largest_error(name, x, result) <= BOUNDS[name]
    ends = np.array([0.0, -0.0, -INF, NAN, -1e30], DTYPES[element])
    np.testing.assert_array_equal(
        apply(operation, element, lanes, target, ends), [1, 1, 0, NAN, 0]
    )


@pytest.mark.parametrize("element", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_narrow_floats_go_by_way_of_f32(name: str, element: str):
    dtype = DTYPES[element]
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    # Conversions of processors to bf16 take subnormal numbers for 0.
    least = float(ml_dtypes.finfo(dtype).smallest_normal) if element == "bf16" else 0.0
    with np.errstate(all="ignore"):
        x = every.astype(np.float64)
        exact = getattr(np, name)(x)
        expected = exact.astype(np.float32).astype(DTYPES[element])
        result = apply(name, element, 16, "generic", every)
        is_nan = np.isnan(exact)
        np.testing.assert_array_equal(np.isnan(result), is_nan)
    # What f32 rounds to the other side of a tie is the next number.
    number = ~is_nan & ~(np.abs(exact) < 2 * least) & ~(np.abs(x) < 2 * least)
    steps = result[number].view(np.int16).astype(int) - expected[number].view(np.int16)
    assert np.abs(steps).max() <= 1
    assert np.count_nonzero(steps) <= 20


def test_powers_of_special_values():
    values = [
        0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 2.5, -2.5, INF, -INF, NAN, 1e30,
        -1e30, 1e-40, -1e-40, 16777215, -16777215, 16777216, 1e-3,
    ]  # fmt: skip
    x, y = (a.ravel() for a in np.meshgrid(*[np.array(values, np.float32)] * 2))
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), y).astype(np.float32)
    for lanes in (1, 16):
        result = apply("powf", "f32", lanes, "generic", x, y)
        np.testing.assert_array_equal(result, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(
            np.signbit(result[number]), np.signbit(expected[number])
        )


def test_errors_of_powers_are_bounded():
    rng = np.random.default_rng(5)
    x = np.exp(rng.uniform(-20, 20, 100_000)).astype(np.float32)
    y = rng.uniform(-5, 5, x.size).astype(np.float32)
    exact = np.power(x.astype(np.float64), y.astype(np.float64))
    result = apply("powf", "f32", 16, "generic", x, y)
    fits = exact < float(np.finfo(np.float32).max)
    assert np.isinf(result[exact >= 2.0**128]).all()
    exponent = np.maximum(np.frexp(exact[fits])[1] - 1, -126)
    errors = np.abs(result[fits] - exact[fits]) / np.ldexp(1.0, exponent - 23)
    assert errors.max() <= 0.51


def names(module: ModuleOp) -> list[str]:
    return [op.name for op in module.walk()]


@pytest.mark.parametrize(("power", "products"), [(2.0, 1), (3.0, 2)])
@pytest.mark.parametrize("type_", ["f64", "vector<4xf32>"])
def test_squares_and_cubes_are_products(power: float, products: int, type_: str):
    constant = f"{power} : {type_}" if type_ == "f64" else f"dense<{power}> : {type_}"
    module = expanded(f"""
func.func @f(%x: {type_}) -> {type_} {{
  %y = arith.constant {constant}
  %r = math.powf %x, %y : {type_}
  func.return %r : {type_}
}}""")
    assert names(module).count("arith.mulf") == products
    assert "math.powf" not in names(module)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("sin", "f32"),
        ("cos", "vector<4xf32>"),
        ("sqrt", "f64"),
        ("exp", "tensor<4xf32>"),
        ("exp", "vector<[4]xf32>"),
        ("log", "f128"),
    ],
)
def test_what_is_not_expanded_is_left_alone(name: str, type_: str):
    text = f"""
func.func @f(%x: {type_}) -> {type_} {{
  %r = math.{name} %x : {type_}
  func.return %r : {type_}
}}"""
    assert str(expanded(text)) == str(parsed(text))


def test_powers_of_f64_are_left_alone():
    text = program("powf", "f64", 1, 2)
    assert str(expanded(text)) == str(parsed(text))


@pytest.mark.parametrize("name", [*BOUNDS, "powf"])
@pytest.mark.parametrize(("element", "lanes", "target"), CODES)
def test_code_has_no_calls(name: str, element: str, lanes: int, target: str):
    from mlir.dialects.llvm import translate_module_to_llvmir

    if (name, element) == ("powf", "f64"):
        pytest.skip("left alone")
    if {"+fma", "+neon"}.isdisjoint(host.features().split(",")):
        pytest.skip("the machine has no fused multiply-add")
    module = expanded(program(name, element, lanes, 2 if name == "powf" else 1), target)
    native = lowered(module)
    with native.context:
        text = translate_module_to_llvmir(native.operation)
    # The wrapper for the C interface calls the function.
    called = set(re.findall(r"\bcallq?\s+(\S+)", host.assembly(text)))
    assert called <= {"apply", "apply@PLT"}


@pytest.mark.parametrize("shape", ["3x", "2x4x", "64x"])
def test_vectors_of_any_shape(shape: str):
    module = expanded(f"""
func.func @f(%x: vector<{shape}f32>) -> vector<{shape}f32> {{
  %y = math.exp %x : vector<{shape}f32>
  %z = math.tanh %y : vector<{shape}f32>
  func.return %z : vector<{shape}f32>
}}""", "avx512")  # fmt: skip
    lowered(module)
    assert not {"math.exp", "math.tanh", "llvm.call_intrinsic"} & set(names(module))


def test_equal_constants_occur_once_at_the_start():
    text = program("exp", "f32", 16).replace(
        "vector.store %r", "%q = math.exp %r : vector<16xf32>\nvector.store %q"
    )
    module = expanded(text)
    constants = [str(op) for op in module.walk() if op.name == "arith.constant"]
    values = [text.split("=", 1)[1] for text in constants]
    assert len(set(values)) == len(values)
    (loop,) = (op for op in module.walk() if op.name == "scf.for")
    assert all(op.name != "arith.constant" for op in loop.walk())


def test_infinities_and_nan_that_are_excluded_take_no_code():
    safe = expanded(program("log fastmath<nnan,ninf>", "f32", 16))
    assert len(names(safe)) < len(names(expanded(program("log", "f32", 16))))


def test_unknown_target_is_refused():
    with pytest.raises(CompileError) as raised:
        expanded(program("exp", "f32", 1), "sse9")
    assert str(raised.value) == (
        "unknown target: expected one of generic, avx512, host, got 'sse9'"
    )


@pytest.mark.parametrize(
    ("features", "target"),
    [
        ("+avx2,+avx512f,+avx512vl", "avx512"),
        ("+avx2,+avx512f,-avx512vl", "generic"),
        ("+neon", "generic"),
    ],
)
def test_the_host_has_a_target(
    features: str, target: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(host, "features", lambda: features)
    assert host_target() == target
    module = expanded(program("exp", "f32", 16), "host")
    assert ("llvm.call_intrinsic" in names(module)) == (target == "avx512")


def test_tables_are_what_the_tool_computes():
    assert minimax.main(["--check"]) == 0
