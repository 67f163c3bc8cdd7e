"""Each operator that is translated gives what PyTorch gives, for all extents."""
# PyTorch leaves much of what it gives without types, and so do functions of it here.
# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false

import pytest

torch = pytest.importorskip("torch")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from moa_dialect.frontend.torch.dynamo import (  # noqa: E402
    GraphReport,
    Settings,
    _compile,
    report,
)
from moa_dialect.frontend.torch.translation import TABLE  # noqa: E402

aten = torch.ops.aten
EVERYTHING = Settings(products="moa", everything=True)


def _numbers(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if not dtype.is_floating_point:
        return torch.randint(-9, 9, shape, generator=generator, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _positive(*shape):
    return _numbers(*shape).abs() + 0.1


A, B = (4, 5), (5,)
CASES = {
    "exp": (aten.exp, _numbers(*A)),
    "exp2": (aten.exp2, _numbers(*A)),
    "log": (aten.log, _positive(*A)),
    "log2": (aten.log2, _positive(*A)),
    "sqrt": (aten.sqrt, _positive(*A)),
    "rsqrt": (aten.rsqrt, _positive(*A)),
    "reciprocal": (aten.reciprocal, _positive(*A)),
    "tanh": (aten.tanh, _numbers(*A)),
    "erf": (aten.erf, _numbers(*A)),
    "sin": (aten.sin, _numbers(*A)),
    "cos": (aten.cos, _numbers(*A)),
    "floor": (aten.floor, _numbers(*A)),
    "ceil": (aten.ceil, _numbers(*A)),
    "sigmoid": (aten.sigmoid, _numbers(*A)),
    "silu": (aten.silu, _numbers(*A)),
    "gelu": (aten.gelu, _numbers(*A)),
    "gelu, by tanh": (lambda x: aten.gelu(x, approximate="tanh"), _numbers(*A)),
    "neg": (aten.neg, _numbers(*A)),
    "neg of whole numbers": (aten.neg, _numbers(*A, dtype=torch.int64)),
    "abs": (aten.abs, _numbers(*A)),
    "relu": (aten.relu, _numbers(*A)),
    "relu of NaN": (aten.relu, torch.full(A, torch.nan)),
    "add": (aten.add, _numbers(*A), _numbers(*B)),
    "add, alpha": (lambda a, b: aten.add(a, b, alpha=2), _numbers(*A), _numbers(*A)),
    "add of a number": (lambda a: a + 2, _numbers(*A)),
    "add of a scalar": (aten.add, _numbers(*A), _numbers()),
    "add to a scalar": (aten.add, _numbers(), _numbers(*A)),
    "add of whole numbers": (
        aten.add,
        _numbers(*A, dtype=torch.int64),
        _numbers(*B, dtype=torch.int32),
    ),
    "add of two types": (aten.add, _numbers(*A), _numbers(*A, dtype=torch.int64)),
    "add of two widths": (aten.add, _numbers(*A), _numbers(*A, dtype=torch.float64)),
    "add of bf16": (aten.add, *(_numbers(*A, dtype=torch.bfloat16),) * 2),
    "add of a column": (aten.add, _numbers(4, 1), _numbers(*A)),
    "add of a row and a column": (aten.add, _numbers(4, 1), _numbers(1, 5)),
    "sub": (aten.sub, _numbers(*A), _numbers(*B)),
    "sub from a number": (lambda a: aten.rsub(a, 3.0, 2), _numbers(*A)),
    "mul": (aten.mul, _numbers(*A), _numbers(*B)),
    "mul of f16": (lambda a: a * 3.0, _numbers(*A, dtype=torch.float16)),
    "div": (aten.div, _numbers(*A), _positive(*B)),
    "maximum": (aten.maximum, _numbers(*A), _numbers(*B)),
    "minimum": (aten.minimum, _numbers(*A), _numbers(*B)),
    "pow": (
        lambda a: (aten.pow(a, 2), aten.pow(a, 3), aten.pow(a, 1.5)),
        _positive(*A),
    ),
    "roots": (lambda a: (a**0.5, a**-0.5, a**-1), _positive(*A)),
    "clamp": (lambda a: aten.clamp(a, -0.5, 0.5), _numbers(*A)),
    "clamp, one side": (
        lambda a: (aten.clamp_min(a, 0.1), aten.clamp_max(a, 0.1), a.clamp(max=0.2)),
        _numbers(*A),
    ),
    "eq": (aten.eq, *(_numbers(*A, dtype=torch.int64),) * 2),
    "ne": (lambda a: aten.ne(a, 3), _numbers(*A, dtype=torch.int64)),
    "lt": (aten.lt, _numbers(*A), _numbers(*B)),
    "le": (aten.le, _numbers(*A), _numbers(*B)),
    "gt": (aten.gt, _numbers(*A), _numbers(*B)),
    "ge": (lambda a: aten.ge(a, 0.25), _numbers(*A)),
    "gt of whole numbers": (lambda a: a > 0.5, _numbers(*A, dtype=torch.int64)),
    "logical": (
        lambda a, b: (a & b, a | b, a ^ b, ~a, aten.logical_and(a, b)),
        _numbers(*A, dtype=torch.bool),
        _numbers(*B, dtype=torch.bool),
    ),
    "where": (aten.where, _numbers(*A, dtype=torch.bool), _numbers(*A), _numbers(*B)),
    "where, one number": (
        lambda c, a: aten.where(c, a, torch.full((), -torch.inf)),
        _numbers(4, 1, dtype=torch.bool),
        _numbers(*A),
    ),
    "to another type": (
        lambda a: (a.to(torch.float64), a.to(torch.bool), a.to(torch.bfloat16)),
        _numbers(*A),
    ),
    "rounded": (lambda a: a.to(torch.bfloat16).to(torch.float32), _numbers(*A)),
    "clone": (lambda a: aten.clone(a) + 1, _numbers(*A)),
    "full": (lambda a: a + torch.full((a.shape[0], 1), 2.0), _numbers(*A)),
    "like": (
        lambda a: (
            torch.zeros_like(a) + a,
            torch.ones_like(a) * a,
            torch.full_like(a, 2) - a,
        ),
        _numbers(*A),
    ),
    "sum": (lambda a: aten.sum(a, [1]), _numbers(*A)),
    "sum, kept": (lambda a: aten.sum(a, [0], True), _numbers(*A)),
    "sum over two": (lambda a: aten.sum(a, [0, -1]), _numbers(3, 4, 5)),
    "mean": (lambda a: (aten.mean(a, [1]), aten.mean(a, [0], True)), _numbers(*A)),
    "mean of bf16": (lambda a: aten.mean(a, [1]), _numbers(*A, dtype=torch.bfloat16)),
    "amax": (lambda a: aten.amax(a, [1]), _numbers(*A)),
    "amin": (lambda a: aten.amin(a, [0], True), _numbers(*A)),
    "softmax": (lambda a: aten._softmax(a, -1, False), _numbers(*A)),
    "softmax, first axis": (lambda a: aten._softmax(a, 0, False), _numbers(3, 4, 5)),
    "softmax of nothing": (
        lambda a: aten._safe_softmax(a, -1),
        torch.full(A, -torch.inf),
    ),
    "log softmax": (lambda a: aten._log_softmax(a, 1, False), _numbers(3, 4, 5)),
    "logsumexp": (lambda a: aten.logsumexp(a, [1], True), _numbers(*A)),
    "layer norm": (
        lambda a, w, b: aten.native_layer_norm(a, [5], w, b, 1e-5),
        _numbers(3, *A),
        _numbers(*B),
        _numbers(*B, seed=1),
    ),
    "layer norm, bare": (
        lambda a: aten.native_layer_norm(a, [5], None, None, 1e-5)[0],
        _numbers(*A),
    ),
    "variance": (lambda a: aten.var(a, [1], correction=1), _numbers(*A)),
    "variance and mean": (
        lambda a: aten.var_mean(a, [0], correction=0, keepdim=True),
        _numbers(*A),
    ),
    "mm": (aten.mm, _numbers(*A), _numbers(5, 3)),
    "mm, turned": (lambda a, b: aten.mm(a, b.t()), _numbers(*A), _numbers(3, 5)),
    "bmm": (aten.bmm, _numbers(2, *A), _numbers(2, 5, 3)),
    "bmm of bf16": (
        aten.bmm,
        _numbers(2, *A, dtype=torch.bfloat16),
        _numbers(2, 5, 3, dtype=torch.bfloat16),
    ),
    "addmm": (aten.addmm, _numbers(3), _numbers(*A), _numbers(5, 3)),
    "addmm, scaled": (
        lambda c, a, b: aten.addmm(c, a, b, beta=0.5, alpha=2),
        _numbers(4, 3),
        _numbers(*A),
        _numbers(5, 3),
    ),
    "permute": (lambda a: aten.permute(a, [2, 0, 1]) + 1, _numbers(3, 4, 5)),
    "transpose": (lambda a: aten.transpose(a, 0, -1) + 1, _numbers(3, 4, 5)),
    "turned": (lambda a, b: a.t() + b, _numbers(*A), _numbers(5, 4)),
    "unsqueeze": (lambda a, b: a.unsqueeze(-2) + b, _numbers(*A), _numbers(4, 3, 5)),
    "squeeze": (lambda a: (a + 1).squeeze(1) * 2, _numbers(4, 1, 5)),
    "expand": (lambda a: a.expand(3, -1, 5) + 1, _numbers(4, 1)),
    "view of extent 1": (lambda a: (a + 1).view(a.shape[0], 1, -1) * 2, _numbers(*A)),
    "select": (lambda a: (a + 1).select(1, 2) * 2, _numbers(*A)),
    "slice": (lambda a: (a * 2)[1:, :3] + 1, _numbers(*A)),
    "slice from the end": (lambda a: (a * 2)[:-1] + 1, _numbers(*A)),
    "flip": (lambda a: aten.flip(a, [0, 1]) + 1, _numbers(*A)),
    "cat": (lambda a, b: aten.cat([a, b, a]) + 1, _numbers(*A), _numbers(2, 5)),
    "cat, last axis": (lambda a, b: aten.cat([a, b], -1), _numbers(*A), _numbers(4, 3)),
    "two folds": (lambda a: (a.softmax(-1) * 2).sum(0).exp(), _numbers(*A)),
    "a fold by column": (lambda a: a - a.mean(0, keepdim=True), _numbers(*A)),
    "read across": (lambda a: a.t().exp() * 2, _numbers(5, 4).t()),
    "with numbers": (
        lambda a: (
            aten.add.Scalar(a, 2),
            aten.sub.Scalar(a, 2, 3),
            aten.mul.Scalar(a, 2),
            aten.div.Scalar(a, 2),
        ),
        _numbers(*A),
    ),
    "sub, reversed": (aten.rsub.Tensor, _numbers(*A), _numbers(*B)),
    "relations": (
        lambda a, b: (a != b, a >= b, a == 1.0, a <= 0.5, a < 0.5),
        _numbers(*A),
        _numbers(*B),
    ),
    "logical, by name": (
        lambda a, b: (
            aten.logical_or(a, b),
            aten.logical_xor(a, b),
            aten.logical_not(a),
        ),
        _numbers(*A, dtype=torch.bool),
        _numbers(*B, dtype=torch.bool),
    ),
    "the same again": (
        lambda a: aten.alias(aten.detach(a + 1)) * 2,
        _numbers(*A),
    ),
    "scalar": (
        lambda a: aten.scalar_tensor(2.0, dtype=torch.float32) * a,
        _numbers(*A),
    ),
    "squeeze, several": (
        lambda a: aten._unsafe_view((a + 1).squeeze((1, 2)), [4, 1, 5]) * 2,
        _numbers(4, 1, 1, 5),
    ),
    "no elements": (lambda a: a.exp() + 1, _numbers(0, 5)),
    "signs": (
        lambda a: (aten.sgn(a), aten.sign(a), aten.trunc(3 * a)),
        _numbers(*A),
    ),
    "powers": (
        lambda a, b: (aten.pow.Tensor_Tensor(a, b), aten.pow.Scalar(2, a)),
        _positive(*A),
        _numbers(*B),
    ),
    "no numbers": (
        lambda a: (aten.isnan(a), aten.isinf(a)),
        torch.tensor([1.0, torch.nan, torch.inf, -torch.inf]),
    ),
    "between two": (lambda a, b: aten.lerp(a, b, 0.3), _numbers(*A), _positive(*A)),
    "clamp by tensors": (
        lambda a, b: (
            aten.clamp.Tensor(a, -b, b),
            aten.clamp_min.Tensor(a, b),
            aten.clamp_max.Tensor(a, b),
        ),
        _numbers(*A),
        _positive(*B),
    ),
    "sum and mean of all": (
        lambda a: (aten.sum.default(a), aten.mean.default(a)),
        _numbers(40, 37),
    ),
    "extremes of all": (lambda a: (a.amax((0, 1)), a.amin((0, 1))), _numbers(*A)),
    "norms": (
        lambda a: (
            aten.linalg_vector_norm(a, 2, [-1], True),
            aten.linalg_vector_norm(a, 2),
        ),
        _numbers(*A),
    ),
    "standard deviation": (
        lambda a: aten.std.correction(a, [-1], correction=1),
        _numbers(*A),
    ),
    "constants": (
        lambda a: (
            a
            + aten.zeros([a.shape[0], 5])
            + aten.ones([a.shape[0], 5])
            + aten.new_zeros(a, [5])
            + aten.new_ones(a, [5])
            + aten.new_full(a, [5], 3.0)
        ),
        _numbers(*A),
    ),
    "numbers in order": (
        lambda a: (
            a
            + aten.arange(a.shape[1])
            + aten.arange.start(2, 2 + a.shape[1])
            + aten.arange.start_step(1, 1 + 2 * a.shape[1], 2)
        ),
        _numbers(*A),
    ),
    "numbers in order, floating": (
        lambda a: a * aten.arange(a.shape[1], dtype=torch.float32),
        _numbers(*A),
    ),
    "triangles": (
        lambda a: (aten.tril(a), aten.triu(a, 1), aten.tril(a, -1)),
        _numbers(2, 4, 5),
    ),
    "batch norm": (
        lambda a, w: aten._native_batch_norm_legit_no_training(
            a, w, w, w, w * w, 0.1, 1e-5
        )[0],
        _numbers(3, 4, 5),
        _positive(4),
    ),
    "baddbmm": (
        lambda c, a, b: (
            aten.baddbmm(c, a, b, beta=0.5, alpha=2),
            aten.baddbmm(c, a, b, beta=0),
        ),
        _numbers(3, 4, 2),
        _numbers(3, 4, 5),
        _numbers(3, 5, 2),
    ),
    "split": (lambda a: [x * 2 for x in aten.split(a, 2, -1)], _numbers(4, 5)),
    "split with sizes": (
        lambda a: [x * 2 for x in aten.split_with_sizes(a, [1, 4], 1)],
        _numbers(*A),
    ),
    "unbind": (lambda a: sum(aten.unbind(a + 1, 1)), _numbers(*A)),
    "roll": (lambda a: aten.roll(a, [1, -2], [0, 1]) + 1, _numbers(*A)),
    "gradient of a slice": (
        lambda a: (
            aten.slice_backward(a, [7, a.shape[1]], 0, 1, 5, 1),
            aten.slice_backward(a, [a.shape[0], 5], -1, 0, 9, 1),
        ),
        _numbers(4, 5),
    ),
    "gradient of a plane": (
        lambda a: aten.select_backward(a, [a.shape[0], 3, 5], 1, -1) + 1,
        _numbers(*A),
    ),
    "embedding": (
        lambda w, i: aten.embedding(w, i) * 2,
        _numbers(9, 5),
        torch.tensor([[0, 8, 3], [3, 3, 1]]),
    ),
    "index_select": (
        lambda a, i: aten.index_select(a, 1, i) * 2,
        _numbers(*A),
        torch.tensor([4, 0]),
    ),
    "index": (
        lambda a, i: (a[i] * 2, a[:, i] * 2),
        _numbers(*A),
        torch.tensor([[-1, 0], [2, -4]]),
    ),
    "further functions": (
        lambda a: (
            aten.log10(a),
            aten.log1p(a - 0.05),
            aten.expm1(a - 1),
            aten.tan(a),
            aten.sinh(a - 1),
            aten.cosh(a - 1),
            aten.erfc(a),
            aten.round(torch.cat([3 * a, a * 0 + 2.5, a * 0 - 0.5])),
        ),
        _positive(*A),
    ),
    "functions of small numbers": (
        lambda a: (aten.log1p(a * 1e-4), aten.expm1(a * 1e-4), aten.sinh(a * 1e-4)),
        _numbers(*A),
    ),
    "functions of large numbers": (
        lambda a: (aten.sinh(a), aten.cosh(a), aten.expm1(a), aten.round(a)),
        torch.tensor([90.0, -89.5, torch.inf, -torch.inf, 200.0, torch.nan]),
    ),
    "functions of whole numbers": (
        lambda a: (aten.exp(a), aten.sigmoid(a), aten.div(a, 3), aten.sign(a)),
        _numbers(*A, dtype=torch.int64),
    ),
    "quotients of whole numbers": (
        lambda a: (
            aten.div(a, 4, rounding_mode="floor"),
            aten.div(a, -4, rounding_mode="trunc"),
            aten.floor_divide(a, -3),
            aten.remainder(a, 4),
            aten.remainder(a, -3),
        ),
        _numbers(*A, dtype=torch.int64),
    ),
    "powers of whole numbers": (
        lambda a: (a**0, a**1, a**2, a**3),
        _numbers(*A, dtype=torch.int32),
    ),
    "powers that are 0": (
        lambda a: a**0 + 1,
        torch.tensor([0.0, torch.nan, torch.inf, -2.0]),
    ),
    "truth values": (
        lambda a, b: (
            a + b,
            a * b,
            aten.maximum(a, b),
            aten.minimum(a, b),
            a == b,
            a != b,
        ),
        _numbers(*A, dtype=torch.bool),
        _numbers(*B, dtype=torch.bool),
    ),
    "logical, of numbers": (
        lambda a, b: (aten.logical_and(a, b), aten.logical_xor(a, b)),
        _numbers(*A, dtype=torch.int64),
        _numbers(*B),
    ),
    "clamp of whole numbers": (
        lambda a: (aten.clamp(a, -2, 3), aten.clamp(a, 0.5)),
        _numbers(*A, dtype=torch.int64),
    ),
    "sums of whole numbers": (
        lambda a, b: (aten.sum(a, [1]), aten.sum(b), aten.sum(b, [0], True)),
        _numbers(*A, dtype=torch.int32),
        _numbers(*A, dtype=torch.bool),
    ),
    "whether": (
        lambda a, b: (
            aten.any(a),
            aten.any(b, 1),
            aten.any.dims(a, [0, 1], True),
            aten.all(a),
            aten.all(b, 0, True),
            aten.all.dims(a, [1]),
        ),
        _numbers(*A, dtype=torch.bool),
        _numbers(*A),
    ),
    "extremes of whole numbers": (
        lambda a, b: (aten.amax(a, [1]), aten.amin(b, [0]), aten.amax(b, [1])),
        _numbers(*A, dtype=torch.int64),
        _numbers(*A, dtype=torch.bool),
    ),
    "extremes, of all": (lambda a: (aten.max(a), aten.min(a)), _numbers(*A)),
    "products": (
        lambda a: (aten.prod(a), aten.prod(a, 1), aten.prod(a, 0, True)),
        _numbers(*A),
    ),
    "places of extremes": (
        lambda a: (
            aten.argmax(a),
            aten.argmax(a, 1),
            aten.argmin(a, 0, True),
            *aten.max.dim(a, 1),
            *aten.min.dim(a, -1, True),
        ),
        torch.tensor([[1.0, 3.0, 3.0], [-0.0, 0.0, -1.0], [2.0, torch.nan, torch.nan]]),
    ),
    "places of extremes, whole": (
        lambda a: (aten.argmax(a, 0), *aten.max.dim(a, 1)),
        _numbers(*A, dtype=torch.int64),
    ),
    "norm of several axes": (
        lambda a, w: aten.native_layer_norm(a, [4, 5], w, w, 1e-5),
        _numbers(3, 4, 5),
        _positive(4, 5),
    ),
    "variance over several axes": (
        lambda a: (
            aten.var.correction(a, [0, 2], correction=1),
            aten.std.correction(a, None, correction=0),
            *aten.var_mean.correction(a, [1, 2], correction=2, keepdim=True),
        ),
        _numbers(3, 4, 5),
    ),
    "variance of one element": (
        lambda a: aten.var.correction(a, [1], correction=1),
        _numbers(4, 1),
    ),
    "logsumexp over several axes": (
        lambda a: aten.logsumexp(a, [0, 2], True),
        _numbers(3, 4, 5),
    ),
    "logsumexp of infinities": (
        lambda a: aten.logsumexp(a, [1]),
        torch.tensor([[-torch.inf, -torch.inf], [torch.inf, 0.0], [1.0, -torch.inf]]),
    ),
    "group norm": (
        lambda a: torch.ops.moa.group_norm_rows(
            a * aten.full([2, 3, 1], 2.0),
            aten.arange(6, dtype=torch.float32),
            aten.arange.start(1, 7, dtype=torch.float32),
            1e-5,
        ),
        _numbers(8),
    ),
    "group norm, a channel a group": (
        lambda a: torch.ops.moa.group_norm_rows(
            a * aten.full([2, 3, 1], 2.0),
            aten.arange(3, dtype=torch.float32),
            None,
            1e-5,
        )[0],
        _numbers(8),
    ),
    "group norm, bare": (
        lambda a: torch.ops.moa.group_norm_rows(a, None, None, 1e-5),
        _numbers(2, 3, 8),
    ),
    "gather": (
        lambda a, i: (aten.gather(a, 1, i) * 2, aten.gather(a, 0, i[:, :5] % 4) + 1),
        _numbers(*A),
        torch.tensor([[4, 0, 1, 1, 2, 3], [0, 0, 0, 4, 4, 2]]),
    ),
    "scatter": (
        lambda a, i, b: (
            aten.scatter(a, 1, i, 3.0),
            aten.scatter(a, 1, i, b),
        ),
        _numbers(*A),
        torch.tensor([[4], [0], [1], [1]]),
        _numbers(4, 1),
    ),
    "index, two axes": (
        lambda a, i, j: (
            a[i, j] * 2,
            aten._unsafe_index(a, [None, i[:, None], j]) + 1,
        ),
        _numbers(3, *A),
        torch.tensor([1, -1]),
        torch.tensor([2, -4]),
    ),
    "padding": (
        lambda a: (
            aten.constant_pad_nd(a, [1, 2, 0, 3], 5.0) * 2,
            aten.constant_pad_nd(a, [-1, 2]) + 1,
        ),
        _numbers(*A),
    ),
    "parts written": (
        lambda a, b: (
            aten.slice_scatter(a, b, 0, 1, 3) * 2,
            aten.slice_scatter(a, b, 0, 0, 2) + 1,
            aten.copy(a, b[0]) * 2,
        ),
        _numbers(*A),
        _numbers(2, 5),
    ),
    "short scan": (lambda a: aten.cumsum(a.view(1, -1)[:, :7], 1) * 2, _numbers(5, 7)),
    "conversion, by another name": (
        lambda a: torch.ops.prims.convert_element_type(a, torch.float64) * 2,
        _numbers(*A),
    ),
}


@pytest.mark.parametrize("extents", ["static", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, extents: str) -> None:
    function, *inputs = CASES[name]
    mode = "symbolic" if extents == "symbolic" else "fake"
    graph = make_fx(function, tracing_mode=mode)(*inputs)
    report(clear=True)
    compiled = _compile(graph, inputs, "inference", EVERYTHING)
    (found,) = report(clear=True)
    assert isinstance(found, GraphReport)
    assert not found.failed
    assert found.regions, found
    _same(compiled(list(inputs)), function(*inputs))


def _same(found, expected) -> None:
    expected = expected if isinstance(expected, tuple | list) else (expected,)
    found = found if isinstance(found, tuple | list) else (found,)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_every_translation_is_tested() -> None:
    found = set()
    for function, *inputs in CASES.values():
        graph = make_fx(function, tracing_mode="fake")(*inputs)
        found |= {node.target for node in graph.graph.nodes}
    # Only PyTorch's decompositions give it: see the losses in test_backend.py.
    found.add(aten.true_divide.Tensor)
    missing = {str(operator) for operator in TABLE.keys() - found}
    assert not missing
