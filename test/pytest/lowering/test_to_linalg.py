"""moa-to-linalg: upstream bufferises what it gives, compiles it, and it is right.

Every program is lowered from the stages `moa`, `dnf` and `fused` (with fusion in
chunks, index by index, and without), goes through upstream's one-shot-bufferize and
convert-linalg-to-loops to LLVM, and is compared with the interpreter.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlir.runtime import (
    as_ctype,
    get_ranked_memref_descriptor,
    make_nd_memref_descriptor,
    make_zero_d_memref_descriptor,
    ranked_memref_to_numpy,
)
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.linalg.ops import GenericOp
from xdsl.dialects.scf import ForOp

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering import upstream
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.pipelines import FUSING, STAGES, TO_LLVM
from moa_dialect.lowering.to_linalg import ToLinalgPass
from moa_dialect.passes.fuse import FuseReductionsPass
from moa_dialect.passes.restrict import RestrictDomainsPass
from moa_dialect.passes.share import SharePass
from moa_dialect.passes.sink import SinkPass
from moa_dialect.passes.to_dnf import ToDnfPass
from moa_dialect.tools.compare_linalg import upstream_engine
from moa_dialect.types import dtype_of, element_of, shape_of

Array = np.ndarray[Any, Any]

TO_LOOPS = (
    "one-shot-bufferize{bufferize-function-boundaries "
    "function-boundary-type-conversion=identity-layout-map},"
    "buffer-deallocation-pipeline,convert-linalg-to-loops,canonicalize,"
    "convert-bufferization-to-memref,"
)
"""The passes of upstream that take over."""

ROUTES: dict[str, tuple[Any, ...]] = {
    "moa": (),
    "dnf": (ToDnfPass(),),
    "shared": (*STAGES["dnf"], *STAGES["fused"]),
    "fused": (*FUSING["dnf"], *FUSING["fused"]),
    "one by one": (
        ToDnfPass(),
        SharePass(),
        RestrictDomainsPass(),
        FuseReductionsPass(),
        SinkPass(),
    ),
}
"""The passes before moa-to-linalg."""


def lowered(module: ModuleOp, route: str, checks: bool = True) -> ModuleOp:
    module = module.clone()
    for each in ROUTES[route]:
        each.apply(Context(), module)
    ToLinalgPass(checks).apply(Context(), module)
    module.verify()
    assert not [op.name for op in module.walk() if op.name.startswith("moa.")]
    return module


def run(module: ModuleOp, arrays: Sequence[Array]) -> list[Array]:
    """Run the only function of a module in linalg by upstream's own passes."""
    function = find_entry(module, None)
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    inner = TO_LLVM.removeprefix("builtin.module(").removesuffix(")")
    upstream.run_pipeline(native, f"canonicalize,cse,{TO_LOOPS}{inner}")
    engine = upstream_engine(native, 0)
    types = function.function_type.outputs.data
    kinds = [(len(shape_of(t)), as_ctype(dtype_of(element_of(t)))) for t in types]
    fields = [
        (
            f"r{k}",
            make_nd_memref_descriptor(rank, kind)
            if rank
            else make_zero_d_memref_descriptor(kind),
        )
        for k, (rank, kind) in enumerate(kinds)
    ]
    results = type("Results", (ctypes.Structure,), {"_fields_": fields})()
    pointers = [ctypes.pointer(ctypes.pointer(results))]
    pointers += [
        ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(array)))
        for array in arrays
    ]
    engine.invoke(function.sym_name.data, *pointers)
    found: list[Array] = []
    for k, (rank, _) in enumerate(kinds):
        descriptor = getattr(results, f"r{k}")
        if rank:
            found.append(ranked_memref_to_numpy(ctypes.pointer(descriptor)).copy())
        else:
            found.append(np.array(descriptor.aligned[descriptor.offset]))
    return found


def check(
    program: Callable[..., Any],
    arrays: Sequence[Array],
    specs: Sequence[moa.ArraySpec] | None = None,
    routes: Sequence[str] = tuple(ROUTES),
) -> None:
    if specs is None:
        specs = [moa.ArraySpec(a.shape, a.dtype) for a in arrays]
    module = moa.jit(program).lower(*specs).module("moa")
    expected = moa.interpret(program, *arrays)
    if not isinstance(expected, tuple):
        expected = (expected,)
    for route in routes:
        found = run(lowered(module, route), arrays)
        for actual, wanted in zip(found, expected, strict=True):
            assert actual.shape == np.shape(wanted), route
            np.testing.assert_allclose(
                actual, wanted, rtol=1e-4, atol=1e-5, err_msg=route
            )


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dynamic(*shapes: tuple[str | int, ...]) -> list[moa.ArraySpec]:
    return [moa.ArraySpec(shape, "f32") for shape in shapes]


QKV = dynamic(("n", 8), ("m", 8), ("m", 6))
CAUSAL = dynamic(("n", 8), ("n", 8), ("n", 6))

PROGRAMS: dict[str, tuple[Any, ...]] = {
    "product": (
        lambda a, b: moa.inner("add", "mul", a, b),
        (draw(5, 7), draw(7, 3)),
        dynamic(("n", 7), (7, "m")),
    ),
    "chain of products": (
        lambda a, b, c: moa.inner("add", "mul", moa.inner("add", "mul", a, b), c),
        (draw(5, 7), draw(7, 3), draw(3, 4)),
    ),
    "transpose": (lambda a: moa.transpose(a), (draw(5, 7),), dynamic(("n", "m"))),
    "transposition": (lambda a: moa.transpose(a, [2, 0, 1]), (draw(2, 3, 4),)),
    "cat": (
        lambda a, b: moa.cat(a, b),
        (draw(5, 7), draw(4, 7)),
        dynamic(("n", 7), ("k", 7)),
    ),
    "take and drop": (
        lambda a: moa.take([3], moa.drop([1], a)),
        (draw(6, 4),),
        dynamic(("n", 4)),
    ),
    "every other": (
        lambda a: moa.psi([0], moa.transpose(moa.reshape([4, 2, 3], a), [1, 0, 2])),
        (draw(8, 3),),
    ),
    "reverse": (lambda a: moa.reverse(a), (draw(6, 4),), dynamic(("n", 4))),
    "rotate": (lambda a: moa.rotate(2, a), (draw(6, 4),)),
    "reshape": (lambda a: moa.reshape([6, 2], a), (draw(3, 4),)),
    "outer": (lambda a, b: moa.outer("add", a, b), (draw(4), draw(5))),
    "iota": (lambda a: moa.iota(5), (draw(5),)),
    "where": (lambda a: moa.where(a > 0, a, -a), (draw(3, 4),)),
    "scan": (lambda a: moa.scan("add", a), (draw(9),), dynamic(("n",))),
    "maximum of all": (lambda a: moa.reduce("max", moa.ravel(a)), (draw(3, 4),)),
    "alternating sum": (lambda a: moa.reduce("sub", a), (draw(7),)),
    "empty": (lambda a: moa.reduce("max", a), (draw(0),)),
    "softmax": (moa.library.softmax, (draw(5, 70),), dynamic(("n", "m"))),
    "static softmax": (moa.library.softmax, (draw(5, 128),)),
    "logsumexp": (moa.library.logsumexp, (draw(5, 33),), dynamic(("n", "m"))),
    "layer norm": (moa.library.layernorm, (draw(5, 33), draw(33), draw(33))),
    "variance": (moa.library.variance, (draw(5, 33),)),
    "attention": (moa.library.attention, (draw(5, 8), draw(70, 8), draw(70, 6)), QKV),
    "causal attention": (
        lambda q, k, v: moa.attention(q, k, v, is_causal=True),
        (draw(9, 8), draw(9, 8), draw(9, 6)),
        CAUSAL,
    ),
    "window": (
        lambda q, k, v: moa.attention(q, k, v, window=3),
        (draw(9, 8), draw(9, 8), draw(9, 6)),
    ),
    "heads": (
        lambda q, k, v: moa.attention(q, k, v),
        (draw(2, 5, 8), draw(2, 7, 8), draw(2, 7, 6)),
    ),
    "convolution": (moa.library.convolve, (draw(9), draw(3))),
    "stencil": (moa.library.laplacian, (draw(6, 6),)),
    "top k": (lambda x: moa.library.softmax_top_k(x, 2), (draw(3, 7),)),
    "grade": (lambda a: moa.grade_up(a), (draw(8),)),
    "loss": (moa.library.cross_entropy, (draw(4, 9), np.array([1, 0, 8, 3]))),
    "cell by data": (lambda a, i: moa.psi(i, a), (draw(6, 4), np.array([2]))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_through_upstream(name: str):
    check(*PROGRAMS[name])


@given(st.data())
@settings(max_examples=12)
def test_shapes(data: st.DataObject):
    """Random extents, the empty ones too, of one kernel for all."""
    n, m = (data.draw(st.integers(0, 9)) for _ in "nm")
    m += 60 * data.draw(st.booleans())
    route = data.draw(st.sampled_from(("dnf", "fused")))
    check(moa.library.softmax, (draw(n, m),), dynamic(("n", "m")), [route])
    if m:
        arrays = draw(n, 8), draw(m, 8), draw(m, 6)
        check(moa.library.attention, arrays, QKV, [route])


def lower(name: str, route: str) -> ModuleOp:
    program, arrays, *specs = PROGRAMS[name]
    given_ = specs[0] if specs else [moa.ArraySpec(a.shape, a.dtype) for a in arrays]
    return lowered(moa.jit(program).lower(*given_).module("moa"), route)


def test_attention_keeps_its_one_pass():
    """One loop over chunks; what is as long as the keys has a chunk's length there."""
    module = lower("attention", "fused")
    loops = [op for op in module.walk() if isinstance(op, ForOp)]
    assert len(loops) == 1
    outside = [op for op in module.walk() if op.name == "tensor.empty"]
    (function,) = (op for op in module.ops)
    keys = function.regions[0].block.args[1]
    lengths = {use.operation for use in keys.uses if use.operation.name == "tensor.dim"}
    for op in outside:
        assert not any(operand.owner in lengths for operand in op.operands)


def test_softmax_index_by_index_is_one_operation():
    """A cascade of scalars without chunks: one operation with three results."""
    module = lower("static softmax", "one by one")
    generics = [op for op in module.walk() if isinstance(op, GenericOp)]
    assert sorted(len(op.results) for op in generics) == [1, 3]


def test_checks_are_assertions():
    program, arrays, specs = PROGRAMS["attention"]
    module = moa.jit(program).lower(*specs).module("moa")
    del arrays
    for checks in (True, False):
        ops = [op.name for op in lowered(module, "fused", checks).walk()]
        assert ops.count("cf.assert") == (1 if checks else 0)


def test_later_stage_is_refused():
    program, _, specs = PROGRAMS["softmax"]
    module = moa.jit(program).lower(*specs).module("onf")
    with pytest.raises(CompileError, match="expected a stage up to fused, got moa"):
        ToLinalgPass().apply(Context(), module)
