"""Functions of JAX: through StableHLO and linalg to kernels that JAX calls."""
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
# pyright: reportUnknownParameterType=false, reportMissingImports=false

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.func import FuncOp

import moa_dialect as moa
from moa_dialect.passes.check_dnf import intermediate_arrays
from moa_dialect.passes.to_dnf import ToDnfPass

jax = pytest.importorskip("jax")
pytest.importorskip("torch_mlir")

import jax.numpy as jnp  # noqa: E402

from moa_dialect.frontend import jax as moa_jax  # noqa: E402


def draw(*shape: int, dtype: Any = np.float32) -> Any:
    values = np.random.default_rng(0).normal(size=shape)
    return jnp.asarray(values.astype(np.float32), dtype)


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T / jnp.sqrt(q.shape[-1]).astype(q.dtype)
    return jax.nn.softmax(scores, axis=-1) @ v


def causal(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T
    n, m = scores.shape
    seen = jnp.arange(m)[None] <= jnp.arange(n)[:, None]
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1) @ v


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + shift


HEADS = draw(2, 5, 3, 8), draw(2, 5, 3, 8), draw(2, 5, 3, 8)
HALF = partial(draw, dtype=jnp.bfloat16)

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sum": (lambda a, b: a + b, (draw(3, 4), draw(3, 4))),
    "softmax": (lambda x: jax.nn.softmax(x, axis=-1), (draw(5, 9),)),
    "attention": (attention, (draw(5, 8), draw(70, 8), draw(70, 6))),
    "causal attention": (causal, (draw(9, 8), draw(9, 8), draw(9, 6))),
    "heads": (jax.nn.dot_product_attention, HEADS),
    "causal heads": (partial(jax.nn.dot_product_attention, is_causal=True), HEADS),
    "attention of bfloat16": (attention, (HALF(5, 8), HALF(7, 8), HALF(7, 6))),
    "layer norm": (layer_norm, (draw(5, 16), draw(16), draw(16))),
    "gelu": (jax.nn.gelu, (draw(5, 16),)),
    "exact gelu": (partial(jax.nn.gelu, approximate=False), (draw(5, 16),)),
    "logsumexp": (lambda x: jax.nn.logsumexp(x, axis=-1), (draw(5, 16),)),
    "batch": (partial(jnp.einsum, "bij,bjk->bik"), (draw(2, 3, 4), draw(2, 4, 5))),
    "perceptron": (
        lambda x, a, b: jax.nn.relu(x @ a) @ b,
        (draw(6, 8), draw(8, 32), draw(32, 4)),
    ),
    "cumsum": (jnp.cumsum, (draw(8),)),
    "concatenate": (lambda a, b: jnp.concatenate([a, b]), (draw(3, 4), draw(2, 4))),
    "reverse": (lambda a: a[::-1], (draw(3, 4),)),
    "slice": (lambda a: a[1:3, ::2], (draw(4, 4),)),
    "gather": (lambda a, i: a[i], (draw(4, 4), jnp.array([2, 0, 3]))),
    "transpose": (lambda a: jnp.transpose(a, (2, 0, 1)), (draw(2, 3, 4),)),
    "reshape": (lambda a: a.reshape(6, 4), (draw(2, 3, 4),)),
    "pad": (lambda a: jnp.pad(a, 1), (draw(3, 4),)),
    "convolution": (
        lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID"),
        (draw(1, 2, 6, 6), draw(3, 2, 3, 3)),
    ),
    "derivative": (
        jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) ** 2)),
        (draw(7),),
    ),
    "several results": (lambda a: {"sum": a.sum(), "max": a.max(0)}, (draw(4, 5),)),
    "first place of the largest": (
        lambda a: (jnp.argmax(a, 1), jnp.argmin(a)),
        (jnp.array([[1.0, 3, 3, 2], [jnp.nan, 1, jnp.nan, 9]]),),
    ),
    "heads that share keys": (
        jax.nn.dot_product_attention,
        (draw(2, 5, 4, 8), draw(2, 5, 2, 8), draw(2, 5, 2, 8)),
    ),
    "heads of bfloat16": (
        jax.nn.dot_product_attention,
        (HALF(2, 5, 3, 8), HALF(2, 5, 3, 8), HALF(2, 5, 3, 8)),
    ),
    "inverse functions": (
        lambda a: jnp.arctan(a) + jnp.arcsinh(a) + jnp.sinh(a),
        (draw(7),),
    ),
    "associative scan": (
        lambda a, b: jax.lax.associative_scan(
            lambda s, t: (s[0] * t[0], t[0] * s[1] + t[1]), (a, b)
        )[1],
        (draw(7), draw(7)),
    ),
    "recurrence": (
        lambda h, x, w: jax.lax.scan(lambda h, r: (jnp.tanh(h @ w + r),) * 2, h, x),
        (draw(4), draw(3, 4), draw(4, 4)),
    ),
    "loop": (
        lambda x: jax.lax.fori_loop(1, 4, lambda k, c: c * 2 + x[k].sum(), 0.0),
        (draw(5, 3),),
    ),
    "choice": (
        lambda p, x: jax.lax.switch(p, [jnp.exp, jnp.sin, jnp.abs], x),
        (jnp.int32(1), draw(5)),
    ),
    "one of two programs": (
        lambda p, x: jax.lax.cond(p, jnp.exp, jnp.sin, x),
        (jnp.bool_(True), draw(5)),
    ),
    "updates at places": (
        lambda x, i, u: (x.at[i].set(u), x.at[i].add(u), x.at[i, 1].max(u[:, 0])),
        (draw(5, 3), jnp.array([4, 0, 9]), draw(3, 3)),
    ),
    "update of a slice": (
        lambda x, u, k: jax.lax.dynamic_update_slice(x, u, (k, 1)),
        (draw(5, 4), draw(2, 3), jnp.int32(2)),
    ),
    "truth values": (lambda a: (a > 0) & (a < 1), (draw(4, 5),)),
}


def same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        bound = 2e-2 if e.dtype == jnp.bfloat16 else 2e-5
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(e, np.float32), bound, bound
        )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str):
    fn, arguments = FUNCTIONS[name]
    same(moa_jax.jit(fn)(*arguments), fn(*arguments))


def test_within_jit():
    fn = moa_jax.jit(attention)
    arrays = draw(5, 8), draw(7, 8), draw(7, 6)
    whole = jax.jit(lambda q, k, v: 2 * fn(q + 1, k, v))
    same(whole(*arrays), 2 * attention(arrays[0] + 1, *arrays[1:]))
    assert "custom_call_target" in whole.lower(*arrays).as_text() or (
        "custom_call @" in whole.lower(*arrays).as_text()
    )


def test_batched():
    fn = moa_jax.jit(jax.nn.softmax)
    x = draw(3, 4, 5)
    same(jax.vmap(fn)(x), jax.vmap(jax.nn.softmax)(x))


def test_derivative_is_that_of_jax():
    fn = moa_jax.jit(jax.nn.softmax)

    def loss(f: Any, x: Any) -> Any:
        return jnp.sum(f(x) ** 2)

    x = draw(7)
    same(jax.grad(partial(loss, fn))(x), jax.grad(partial(loss, jax.nn.softmax))(x))


def test_arguments_of_python():
    fn = moa_jax.jit(lambda tree, scale=1.0: tree["x"] * scale + tree["y"])
    tree = {"x": draw(3), "y": np.ones(3, np.float32)}
    same(fn(tree, scale=2.0), tree["x"] * 2.0 + tree["y"])
    assert fn({"x": HALF(3), "y": HALF(3)}, scale=2.0).dtype == jnp.bfloat16


def test_raised_keeps_no_array_between():
    q, k, v = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((5, 8), (7, 8), (7, 6)))
    module = moa_jax.raised(attention, q, k, v)
    ToDnfPass().apply(Context(), module)
    (function,) = (op for op in module.ops if isinstance(op, FuncOp))
    assert not intermediate_arrays(function)


def test_named_where_it_is_written():
    def largest(x: Any) -> Any:
        return jnp.sort(x)

    with pytest.raises(moa.PipelineError, match=r"stablehlo\.sort") as caught:
        moa_jax.jit(largest)(draw(5))
    assert re.match(r".*test_jax\.py:\d+:\d+$", caught.value.location)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (
            lambda x: jax.lax.while_loop(
                lambda c: c.sum() < 9, lambda c: c * 2, jnp.abs(x)
            ),
            "a loop whose number of steps is not known before it runs",
        ),
        (
            lambda x: jax.lax.fori_loop(0, 65, lambda k, c: c + x[k % 5], 0.0),
            "a loop of 65 steps: expected at most 64",
        ),
        (lambda x: jnp.fft.fft(x).real, r"stablehlo\.fft has no form in linalg"),
        (lambda x: jax.lax.top_k(x, 2), r"chlo\.top_k has no form in linalg"),
        (
            lambda x: x.at[jnp.array([1, 1])].apply(jnp.sin),
            "a scatter that combines by other than add, mul, max, min",
        ),
    ],
)
def test_what_it_does_not_take_is_said_with_its_place(
    fn: Callable[..., Any], message: str
):
    with pytest.raises(moa.PipelineError, match=message) as caught:
        moa_jax.jit(fn)(draw(5))
    assert re.search(r"test_jax\.py:\d+:\d+", f"{caught.value.location} {caught.value}")


def test_without_the_converter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moa_jax, "torch_mlir_opt", lambda: "")
    with pytest.raises(moa.CompileError, match="pip install torch-mlir"):
        moa_jax.jit(lambda x: x + 1)(draw(3))


def test_failed_check_is_an_error_of_jax():
    """A kernel that reports a failed check makes XLA fail, with the message."""
    from moa_dialect.lowering.engine import compile_module

    def entry(i: Any, a: Any) -> Any:
        return moa.psi(i, a)

    program = moa.jit(entry).lower(
        moa.ArraySpec((1,), "i32"), moa.ArraySpec((4,), "f32")
    )
    kernel = compile_module(program.module("moa"))
    run = jax.jit(moa_jax.foreign(kernel))
    array = draw(4)
    same(run(jnp.array([2], jnp.int32), array), array[2])
    with pytest.raises(ValueError, match="psi: index entry 0"):
        run(jnp.array([7], jnp.int32), array).block_until_ready()
