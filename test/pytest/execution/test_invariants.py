"""What every derived program keeps: no intermediate array, no growing scratch memory.

And the checks that say so are not vacuous: they fail when one is put in.
"""
# The parameters of a lambda given where any function is taken have no type.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

import moa_dialect as moa
from moa_dialect import library
from moa_dialect.lowering.engine import find_entry
from moa_dialect.ops.normal_form import AtOp, ComprehensionOp, ExtentOp, YieldOp
from moa_dialect.ops.operational import BufferOp
from moa_dialect.ops.structural import TransposeOp
from moa_dialect.passes.check_dnf import CheckDnfPass, intermediate_arrays
from moa_dialect.passes.check_storage import CheckStoragePass, static_size
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.to_onf import ToOnfPass
from moa_dialect.types import shape_of


@dataclass
class Case:
    """A program of the library on arrays of some shapes, with options.

    Attributes:
        scratch: the bytes of scratch memory, of a fixed number of accumulators.
        dtypes: of the arguments that are not f64.
        has_rows: whether it needs rows of accumulators outside of its results.
    """

    program: Callable[..., Any]
    shapes: Sequence[tuple[int | None, ...]]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    scratch: int = 0
    dtypes: Mapping[int, str] = field(default_factory=dict[int, str])
    has_rows: bool = False

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        return f"{self.program.__name__}({shapes}{options})".replace("None", "?")

    def lower(self) -> moa.Compiled:
        specs = [
            moa.ArraySpec(shape, self.dtypes.get(number, "f64"))
            for number, shape in enumerate(self.shapes)
        ]
        return moa.jit(self.program).lower(*specs, **self.options)


CAUSAL = {"is_causal": True}
LAMBDA = {"weight": 0.5}

STATIC = [
    Case(library.softmax, [(20,)]),
    Case(library.softmax, [(2, 3, 20)]),
    Case(library.logsumexp, [(20,)]),
    Case(library.logsumexp, [(3, 20)]),
    Case(library.variance, [(20,)]),
    Case(library.variance, [(3, 20)]),
    Case(library.layernorm, [(3, 20)]),
    Case(library.layernorm, [(2, 3, 20), (20,), (20,)]),
    Case(library.matmul, [(3, 20), (20, 5)]),
    Case(library.matmul, [(2, 3, 20), (2, 20, 5)]),
    Case(library.attention, [(6, 4), (6, 4), (6, 5)]),
    Case(library.attention, [(1, 40), (70, 40), (70, 50)]),
    Case(library.attention, [(6, 40), (70, 40), (70, 1)]),
    Case(library.attention, [(6, 40), (70, 40), (70, 50)], {"is_causal": True}),
    Case(library.attention, [(2, 3, 6, 40), (2, 3, 7, 40), (2, 3, 7, 5)]),
    Case(library.matmul_omega, [(3, 20), (20, 5)]),
    Case(library.contract, [(3, 20, 4), (20, 5)], {"axis_a": 1, "axis_b": 0}),
    Case(library.bilinear, [(20,), (20, 30), (30,)]),
    Case(library.diagonal, [(20, 20)]),
    Case(library.trace, [(20, 20)]),
    Case(library.lu_step, [(20, 20)], {"k": 3}),
    Case(library.shift, [(20, 30)], {"count": 2, "axis": 1}),
    Case(library.central_difference, [(20, 30)], {"axis": 1}),
    Case(library.laplacian, [(20,)]),
    Case(library.laplacian_inside, [(20, 30)]),
    Case(library.with_halo, [(20, 30)]),
    Case(library.burgers_step, [(20,)], {"dt": 0.5}),
    Case(library.windows, [(20, 30)], {"extents": (2, 3)}),
    Case(library.prefix_sums, [(20, 3)]),
    Case(library.exclusive_prefix_sums, [(20, 3)]),
    Case(library.horner, [(20, 3)], {"x": 0.5}),
    Case(library.polynomial, [(20,), (5,)]),
    Case(library.squared_distances, [(20, 3), (30, 3)]),
    Case(library.nearest, [(20, 3), (30, 3)], {"k": 4}),
    Case(library.nearest_distances, [(20, 3), (30, 3)], {"k": 4}, scratch=4 * 8),
    Case(library.attention, [(6, 40), (70, 40), (70, 50)], {"window": 9, "sink": 0.5}),
    Case(library.attention, [(6, 40), (70, 40), (70, 50)], {"softcap": 3.0}),
    Case(
        library.differential_attention,
        [(6, 4), (7, 4)] * 2 + [(7, 5)],
        LAMBDA,
        has_rows=True,
    ),
    Case(
        library.attention_gradients,
        [(20, 4), (30, 4), (30, 6), (20, 6), (20,), (20, 6)],
    ),
    Case(library.sigmoid, [(6, 40)]),
    Case(library.sigmoid_attention, [(6, 40), (70, 40), (70, 50)]),
    Case(library.linear_attention, [(3, 4), (5, 4), (5, 2)], has_rows=True),
    Case(library.linear_attention, [(6, 40), (70, 40), (70, 50)], CAUSAL),
    Case(library.mean, [(3, 20)]),
    Case(library.covariance, [(3, 20), (3, 20)]),
    Case(library.covariance_matrix, [(2, 20, 3)]),
    Case(library.skewness, [(3, 20)]),
    Case(library.kurtosis, [(3, 20)]),
    Case(library.log_softmax, [(3, 20)]),
    Case(library.cross_entropy, [(3, 20), (3, 20)]),
    Case(library.cross_entropy, [(3, 20), (3,)], dtypes={1: "i64"}),
    Case(library.linear_cross_entropy, [(3, 20), (9, 20), (3,)], dtypes={2: "i64"}),
    Case(library.entropy, [(3, 20)]),
    Case(library.kl_divergence, [(3, 20), (3, 20)]),
    Case(library.rms_norm, [(3, 20), (20,)]),
    Case(library.l2_norm, [(3, 20)]),
    Case(library.absmax_scaled_product, [(3, 20), (20, 5)]),
    Case(library.softmax_top_k, [(3, 20)], {"k": 4}),
]
KNOWN = [
    Case(library.lu, [(2, 2)]),
    Case(library.correlate, [(20, 30), (3, 4)]),
    Case(library.convolve, [(20,), (3,)]),
    Case(library.correlate_channels, [(9, 8, 3), (4, 2, 2, 3)]),
    Case(library.perfect_shuffle, [(20, 3)]),
    Case(library.bit_reversal, [(16,)]),
    Case(library.butterfly, [(20, 3)]),
    Case(library.dft, [(20,), (20,)]),
    Case(library.cooley_tukey, [(6,), (6,)], {"factors": (2, 3)}),
]
"""Programs that need known extents."""
DYNAMIC = [
    replace(case, shapes=[(None,) * len(shape) for shape in case.shapes])
    for case in STATIC
]

every_program = pytest.mark.parametrize("case", STATIC + KNOWN + DYNAMIC, ids=str)


def test_every_program_of_the_library_is_here() -> None:
    programs = {getattr(library, name) for name in library.__all__}
    assert {case.program for case in STATIC + KNOWN} == programs


@every_program
def test_no_intermediate_array(case: Case) -> None:
    compiled = case.lower()
    assert compiled.intermediates == 0
    module = compiled.module("dnf")
    module.verify()
    CheckDnfPass().apply(Context(), module)


CHUNK = 64
"""How many indices a pass accumulates at a time."""


def is_tile(buffer: BufferOp) -> bool:
    """Whether a buffer is as long as a chunk, whatever the extents."""
    (extent,) = buffer.extents
    return static_size(extent) == CHUNK


@every_program
def test_no_scratch_memory(case: Case) -> None:
    """But for tiles, and rows of accumulators in programs that are marked so."""
    compiled = case.lower()
    module = compiled.module("onf")
    module.verify()
    CheckStoragePass().apply(Context(), module)
    buffers = [op for op in module.walk() if isinstance(op, BufferOp)]
    tiles = [op for op in buffers if op.accumulator is None]
    assert all(isinstance(op, BufferOp) and is_tile(op) for op in tiles)
    accumulators = len(buffers) > len(tiles)
    assert not accumulators or case.has_rows or case.scratch > 0
    if not case.has_rows:
        assert compiled.scratch_bytes <= case.scratch + len(tiles) * CHUNK * 8


@every_program
def test_no_transposition_is_left(case: Case) -> None:
    """The transposed key is an order of indices: `<p j> ψ K`."""
    module = case.lower().module("dnf")
    assert not any(isinstance(op, TransposeOp) for op in module.walk())
    assert [op.name for op in module.walk() if op.name == "moa.cell"] == []


def test_attention_has_a_transposition_to_lose() -> None:
    text = Case(library.attention, [(6, 4), (6, 4), (6, 5)]).lower().text("moa")
    assert "moa.transpose" in text


@every_program
def test_arrays_of_the_fused_stage_are_rows_of_accumulators(case: Case) -> None:
    """What `moa-sink` introduces: at most one output axis, inside of the result."""
    module = case.lower().module("fused")
    module.verify()
    for function in functions_of(module):
        terminator = function.body.block.last_op
        assert isinstance(terminator, ReturnOp)
        for value in intermediate_arrays(function):
            assert isa(value.type, TensorType)
            assert value.owner not in [r.owner for r in terminator.operands]
            results = [shape_of(result.type) for result in terminator.operands]
            rows = [shape if case.has_rows else shape[-1:] for shape in results]
            (extent,) = shape_of(value.type)
            assert any(extent in row for row in rows)


def attention(stage: str, extent: int | None = 6) -> tuple[ModuleOp, FuncOp]:
    shapes = [(extent, 4), (extent, 4), (extent, 5)]
    module = Case(library.attention, shapes).lower().module(stage)
    return module, find_entry(module, "attention")


def _result(function: FuncOp) -> ComprehensionOp:
    (op,) = [op for op in function.body.block.ops if isinstance(op, ComprehensionOp)]
    return op


@pytest.mark.parametrize("extent", [6, None])
def test_an_injected_intermediate_is_found(extent: int | None) -> None:
    """The result, made in two steps: the second only copies the first."""
    module, function = attention("dnf", extent)
    first = _result(function)
    body = Block(arg_types=[arg.type for arg in first.body.block.args])
    element = AtOp(first.arrays[0], list(body.args))
    body.add_ops([element, YieldOp(element.result)])
    types = [array.type for array in first.arrays]
    second = ComprehensionOp(first.extents, Region(body), types)
    Builder(InsertPoint.after(first)).insert(second)
    first.arrays[0].replace_uses_with_if(
        second.arrays[0], lambda use: isinstance(use.operation, ReturnOp)
    )
    module.verify()
    with pytest.raises(VerifyException, match=r"expected no intermediate array, got 1"):
        CheckDnfPass().apply(Context(), module)


def test_an_operation_of_the_algebra_is_an_intermediate() -> None:
    module, _ = attention("moa")
    with pytest.raises(VerifyException, match=r"got 1: moa.inner of tensor<6x5xf64>"):
        CheckDnfPass().apply(Context(), module)


@pytest.mark.parametrize("extent", [6, None])
@pytest.mark.parametrize("kept", ["none", "accumulators"])
def test_an_injected_buffer_is_found(extent: int | None, kept: str) -> None:
    """The scores as a buffer of n times m elements, whatever it is called."""
    module, function = attention("onf", extent)
    extents = [op for op in function.walk() if isinstance(op, ExtentOp)]
    rows = [op.result for op in extents if op.axis_number == 0][:2]
    assert len(rows) == 2
    buffer = BufferOp(rows, f64, accumulator=kept == "accumulators")
    last = max(extents, key=list(function.body.block.ops).index)
    Builder(InsertPoint.after(last)).insert(buffer)
    module.verify()
    message = (
        "for accumulators over other than one output axis"
        if kept == "accumulators"
        else "of 2 extents of the input"
    )
    with pytest.raises(VerifyException, match=f"got moa.buffer {message}"):
        CheckStoragePass().apply(Context(), module)


def test_an_intermediate_that_is_lowered_becomes_a_buffer_and_is_found() -> None:
    """Both checks see the same array: at the normal form, and as memory."""
    module, function = attention("dnf")
    first = _result(function)
    second = first.clone()
    Builder(InsertPoint.before(first)).insert(second)
    fold = first.body.block.first_op
    assert fold is not None
    builder = Builder(InsertPoint.before(fold))
    read = builder.insert(AtOp(second.arrays[0], list(reversed(first.body.block.args))))
    terminator = first.body.block.last_op
    assert terminator is not None
    terminator.operands = [read.result]
    with pytest.raises(VerifyException, match="expected no intermediate array, got 1"):
        CheckDnfPass().apply(Context(), module)
    ToOnfPass().apply(Context(), module)
    with pytest.raises(VerifyException, match=r"scratch memory must not grow"):
        CheckStoragePass().apply(Context(), module)


# No pattern for a program

ROOT = Path(moa.__file__).resolve().parent
NAMES = {
    *("softmax", "flash", "layer_norm", "burgers", "fourier", "convol", "cooley"),
    *library.__all__,
}.difference(
    ("matmul", "mean", "shift", "trace", "diagonal", "contract", "windows", "nearest"),
    ("lu", "lu_step", "polynomial"),
)
"""Names of programs, but for those that say something else as well."""


def _sources() -> Iterator[Path]:
    for folder in ("passes", "lowering"):
        files = sorted((ROOT / folder).glob("**/*.py"))
        assert len(files) > 3, folder
        yield from files


every_source = pytest.mark.parametrize("path", list(_sources()), ids=lambda p: p.name)


@every_source
def test_passes_know_no_program(path: Path) -> None:
    text = path.read_text("utf-8").lower()
    assert [name for name in NAMES if name in text] == []


@every_source
def test_passes_do_not_import_the_library(path: Path) -> None:
    imported: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    assert [name for name in imported if "library" in name or "frontend" in name] == []


def test_names_and_order_do_not_matter() -> None:
    """A program written otherwise, under other names, is derived to the same form."""

    def attention_by_another_name(first: Any, second: Any, third: Any) -> Any:
        products = moa.inner("add", "mul", first, moa.transpose(second))
        scaled = 0.5 * products
        top = moa.omega(lambda row: moa.reduce("max", row), 1, scaled)
        powers = moa.exp(moa.omega("sub", (1, 0), scaled, top))
        sums = moa.omega(lambda row: moa.reduce("add", row), 1, powers)
        return moa.inner("add", "mul", moa.omega("div", (1, 0), powers, sums), third)

    shapes = [(6, 4), (7, 4), (7, 5)]
    texts: list[str] = []
    for program in (attention_by_another_name, library.attention):
        text = Case(program, shapes).lower().text("fused")
        for old, new in (("%first", "%q"), ("%second", "%k"), ("%third", "%v")):
            text = text.replace(old, new)
        texts.append(text.replace(program.__name__, "program"))
    assert texts[0] == texts[1]
