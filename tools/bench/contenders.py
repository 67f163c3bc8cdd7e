"""Who takes part: our own programs, and what other software has for them.

A contender builds, for a case, a function without arguments that computes the result
once. It gets the inputs as NumPy arrays and may bring them into the layout it likes
best; that is not timed.
"""
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import ml_dtypes
import numpy as np

from moa_dialect.tools.bench.cases import Array, Case, UnsupportedError
from moa_dialect.tools.bench.programs import SOFTCAP, AttentionSize, Inputs, documents

MAX_SCORES_BYTES = 2**30
"""What a contender that stores all scores may store in one array."""


@dataclass(frozen=True)
class Built:
    """A case made ready by a contender.

    Attributes:
        call: computes the result once.
        output: makes of what `call` gives an array in the layout of the reference.
    """

    call: Callable[[], Any]
    output: Callable[[Any], Array] = np.asarray


Build = Callable[[Case, Inputs, int], Built]


@dataclass(frozen=True)
class Contender:
    """One who takes part.

    Attributes:
        name: as tables and the command line have it.
        factory: `module:function`, a `Build`.
        packages: what has to be installed, by import name.
        install: the command that installs it.
        is_peer: False for moa itself.
        needs_compiler: whether it runs a C++ compiler.
        imports: the module that is imported before the time to build counts.
        has_cache: whether it keeps what it compiled on disk.
    """

    name: str
    factory: str
    packages: tuple[str, ...] = ()
    install: str = ""
    is_peer: bool = True
    needs_compiler: bool = False
    imports: str = ""
    has_cache: bool = False

    def missing(self) -> str:
        """Why it cannot take part here, or nothing."""
        for package in self.packages:
            if find_spec(package) is None:
                return f"{package} is not installed; {self.install}"
        if self.needs_compiler and compiler() is None:
            return "no C++ compiler found; install g++ or set CXX"
        return ""


def compiler() -> str | None:
    """The C++ compiler that torch would find."""
    given = os.environ.get("CXX")
    names = (given,) if given else ("g++", "clang++")
    return next((path for name in names if (path := shutil.which(name))), None)


# moa


def moa_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """The library's program, compiled for the shapes of the case."""
    import moa_dialect as moa

    if case.program == "attention":
        program, options = moa.library.attention, _moa_options(case)
        named = {name: inputs[name] for name in ("bias",) if name in inputs}
        arrays = (inputs["q"], inputs["k"], inputs["v"])
    else:
        program, options, named = _moa_program(case), {}, {}
        arrays = tuple(inputs.values())
    compiled = moa.jit(program).lower(*arrays, **named, **options)
    _ = compiled.kernel
    arrays = (*arrays, *named.values())
    return Built(lambda: compiled(*arrays))


def moa_call(case: Case, inputs: Inputs) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The program of a case as a function of positional arrays, and these.

    Raises:
        UnsupportedError: for a case that has arrays by name.
    """
    import moa_dialect as moa

    if case.program != "attention":
        return _moa_program(case), tuple(inputs.values())
    if "bias" in inputs:
        raise UnsupportedError("arrays by name")
    options = _moa_options(case)

    def attention(q: Any, k: Any, v: Any) -> Any:
        return moa.library.attention(q, k, v, **options)

    return attention, (inputs["q"], inputs["k"], inputs["v"])


def _moa_program(case: Case) -> Callable[..., Any]:
    import moa_dialect as moa

    if case.program == "increment":
        return lambda x: x + 1
    if case.program != "matmul":
        return getattr(moa.library, case.program)
    if case.dtype not in ("bf16", "f16"):
        return lambda a, b: moa.inner("add", "mul", a, b)

    def product(a: Any, b: Any) -> Any:  # sums in f32, as the others have them
        wide = moa.inner("add", "mul", moa.cast(a, "f32"), moa.cast(b, "f32"))
        return moa.cast(wide, a.dtype)

    return product


def _moa_options(case: Case) -> dict[str, Any]:
    import moa_dialect as moa

    size = AttentionSize.of(case)
    options: dict[str, Any] = {}
    if size.causal:
        options["is_causal"] = True
    if size.window:
        options["window"] = size.window
    if size.variant == "softcap":
        options["softcap"] = SOFTCAP
    elif size.variant == "alibi":
        step = -8.0 / size.heads

        def alibi(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            return s - moa.exp2((h + 1.0) * step) * abs(i - j)

        options["score_mod"] = alibi
    elif size.variant == "document":
        of = documents(size.n)

        def same_document(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            of_query = moa.psi(moa.reshape([1], i), of)
            of_key = moa.psi(moa.reshape([1], j), of)
            return moa.where(of_query == of_key, s, -math.inf)

        options["score_mod"] = same_document
    return options


def moa_jit_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """What `moa.jit` gives, which looks shapes and options up at every call."""
    import moa_dialect as moa

    program = moa.jit(_moa_program(case))
    arrays = tuple(inputs.values())
    return Built(lambda: program(*arrays))


def moa_kernel_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """The kernel, which checks arrays and calls."""
    import moa_dialect as moa

    arrays = tuple(inputs.values())
    kernel = moa.jit(_moa_program(case)).lower(*arrays).kernel
    return Built(lambda: kernel(*arrays))


# NumPy


def numpy_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """NumPy with the BLAS it was built with.

    Raises:
        UnsupportedError: for a program that NumPy has no function for.
    """
    arrays = tuple(inputs.values())
    if case.program == "increment":
        return Built(lambda: arrays[0] + 1)
    if case.program != "matmul":
        raise UnsupportedError(f"no function for {case.program}")
    if case.dtype not in ("f32", "f64"):
        raise UnsupportedError(f"no BLAS for {case.dtype}")
    return Built(lambda: np.matmul(*arrays))


# PyTorch


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.compiler.reset()  # or it generalises from the case before, to any length
    return torch


def _tensor(torch: Any, array: Array) -> Any:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _from_tensor(tensor: Any) -> Array:
    return (tensor.float() if tensor.element_size() == 2 else tensor).numpy()


def _attention_tensors(torch: Any, inputs: Inputs) -> list[Any]:
    """q, k and v with a batch axis, as the fast paths want them."""
    return [_tensor(torch, inputs[name]).unsqueeze(0) for name in "qkv"]


def _first_of_batch(tensor: Any) -> Array:
    return _from_tensor(tensor.squeeze(0))


def additive_mask(
    case: Case, inputs: Inputs, is_causal_option: bool = True
) -> Array | None:
    """What is added to the scores: -inf for hidden keys, ALiBi, or the bias, or None.

    A causal mask alone is None if the contender has it as an option. Shape
    (1 or heads, n, m), the dtype of the case.

    Raises:
        UnsupportedError: for a soft cap, which is no sum.
    """
    size = AttentionSize.of(case)
    if size.variant == "softcap":
        raise UnsupportedError("no soft cap")
    dtype = inputs["q"].dtype
    rows = np.arange(size.n)
    if size.variant == "bias":
        added = inputs["bias"]
    elif size.variant == "alibi":
        added = size.distances(rows)
    elif (
        size.window
        or size.variant == "document"
        or (size.causal and not is_causal_option)
    ):
        added = np.zeros((1, size.n, size.m))
    else:
        return None
    visible = size.visible(rows)
    if visible is not None:
        added = np.where(visible, added, -np.inf)
    return np.ascontiguousarray(added, dtype)


def sdpa_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """`scaled_dot_product_attention`, with a mask where the case has more than causal.

    Raises:
        UnsupportedError: for a soft cap.
    """
    torch = _torch(threads)
    size = AttentionSize.of(case)
    mask = additive_mask(case, inputs)
    q, k, v = _attention_tensors(torch, inputs)
    options: dict[str, Any] = {}
    if mask is not None:
        options["attn_mask"] = _tensor(torch, mask).unsqueeze(0)
    elif size.causal:
        options["is_causal"] = True
    if size.kv_heads != size.heads:
        options["enable_gqa"] = True
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return Built(lambda: sdpa(q, k, v, **options), _first_of_batch)


def grouped_as_rows(case: Case, inputs: Inputs) -> tuple[Case, Inputs]:
    """A case of grouped heads and one query, with the queries of a group as rows.

    The same products without repeated keys, for contenders without grouped heads.

    Raises:
        UnsupportedError: for grouped heads with more than one query or a mask.
    """
    size = AttentionSize.of(case)
    if size.kv_heads == size.heads:
        return case, inputs
    if size.n != 1 or size.causal or size.window or size.variant != "plain":
        raise UnsupportedError("no grouped heads")
    group = size.heads // size.kv_heads
    sizes = dict(case.size, heads=size.kv_heads, n=group, m=size.m)
    q = inputs["q"].reshape(size.kv_heads, group, size.d)
    one = Case(case.suite, case.program, case.dtype, sizes, case.threads)
    return one, inputs | {"q": q}


def _ungrouped(case: Case, built: Built) -> Built:
    """The result in the shape that a case has, not its grouped form."""
    size = AttentionSize.of(case)
    shape = (size.heads, size.n, size.e)
    return Built(built.call, lambda result: built.output(result).reshape(shape))


def sdpa_rows_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """`scaled_dot_product_attention` on a group's queries as the rows of one head."""
    return _ungrouped(case, sdpa_build(*grouped_as_rows(case, inputs), threads))


def flex_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """FlexAttention, compiled; masks as block masks, the rest as a score_mod.

    Raises:
        UnsupportedError: for f64, which it refuses on the CPU.
    """
    if case.dtype == "f64":
        raise UnsupportedError("FlexAttention has no f64 on the CPU")
    torch = _torch(threads)
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    size = AttentionSize.of(case)
    q, k, v = _attention_tensors(torch, inputs)
    options: dict[str, Any] = {}
    if size.causal or size.window or size.variant == "document":
        of = torch.from_numpy(documents(size.n))
        window, causal, same = size.window, size.causal, size.variant == "document"

        def is_visible(b: Any, h: Any, i: Any, j: Any) -> Any:
            seen = i >= j if causal else i == i
            if window:
                seen = seen & (i - j < window)
                seen = seen if causal else seen & (j - i < window)
            return seen & (of[i] == of[j]) if same else seen

        options["block_mask"] = create_block_mask(
            is_visible, None, None, size.n, size.m, device="cpu"
        )
    if size.variant == "alibi":
        slopes = torch.from_numpy(size.slopes()).to(q.dtype)
        options["score_mod"] = lambda s, b, h, i, j: s - slopes[h] * (i - j).abs()
    elif size.variant == "softcap":
        options["score_mod"] = lambda s, b, h, i, j: SOFTCAP * torch.tanh(s / SOFTCAP)
    elif size.variant == "bias":
        bias = _tensor(torch, inputs["bias"])
        options["score_mod"] = lambda s, b, h, i, j: s + bias[h, i, j]
    if size.kv_heads != size.heads:
        options["enable_gqa"] = True
    compiled = torch.compile(flex_attention, dynamic=False)
    return Built(lambda: compiled(q, k, v, **options), _first_of_batch)


def _torch_program(torch: Any, case: Case, inputs: Inputs) -> tuple[Any, list[Any]]:
    """The program as a function of tensors, in the functions torch has for it."""
    functional = torch.nn.functional
    tensors = [_tensor(torch, array) for array in inputs.values()]
    if case.program == "attention":
        return _torch_attention(torch, case, inputs)

    def entropy(x: Any) -> Any:
        logs = torch.log_softmax(x, -1)
        return -(logs.exp() * logs).sum(-1)

    width = tensors[0].shape[-1:]
    functions: dict[str, Callable[..., Any]] = {
        "matmul": torch.matmul,
        "increment": lambda x: x + 1,
        "layernorm": lambda x: functional.layer_norm(x, width, eps=1e-5),
        "rms_norm": lambda x: functional.rms_norm(x, width, eps=1e-6),
        "logsumexp": lambda x: torch.logsumexp(x, -1),
        "cross_entropy": lambda x, t: functional.cross_entropy(x, t, reduction="none"),
        "entropy": entropy,
        "variance": lambda x: torch.var(x, -1, correction=0),
        "softmax": lambda x: torch.softmax(x, -1),
        "log_softmax": lambda x: torch.log_softmax(x, -1),
    }
    return functions[case.program], tensors


def _torch_attention(torch: Any, case: Case, inputs: Inputs) -> tuple[Any, list[Any]]:
    size = AttentionSize.of(case)
    q, k, v = (_tensor(torch, inputs[name]) for name in "qkv")
    stored = size.heads * size.n * size.m * q.element_size()
    if stored > MAX_SCORES_BYTES:
        raise UnsupportedError(f"would store {stored / 2**30:.1f} GiB of scores")
    scale, group = 1 / math.sqrt(size.d), size.heads // size.kv_heads
    softcap = SOFTCAP if size.variant == "softcap" else 0.0
    mask = None
    if not softcap:
        mask = additive_mask(case, inputs, is_causal_option=False)
    added = [] if mask is None else [_tensor(torch, mask)]

    def attention(q: Any, k: Any, v: Any, *added: Any) -> Any:
        if group > 1:
            k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        scores = (q @ k.mT) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        for term in added:
            scores = scores + term
        return torch.softmax(scores, -1) @ v

    return attention, [q, k, v, *added]


def torch_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """PyTorch as it runs a program line by line."""
    torch = _torch(threads)
    program, tensors = _torch_program(torch, case, inputs)
    return Built(lambda: program(*tensors), _from_tensor)


def torch_compile_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """The same through `torch.compile`."""
    torch = _torch(threads)
    program, tensors = _torch_program(torch, case, inputs)
    compiled = torch.compile(program, dynamic=False)
    return Built(lambda: compiled(*tensors), _from_tensor)


# ONNX Runtime


def onnxruntime_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """The contributed operator MultiHeadAttention, with bound inputs and outputs.

    It takes rows of all heads side by side; they are laid out so beforehand.

    Raises:
        UnsupportedError: for another dtype than f32, and a soft cap.
    """
    if case.dtype != "f32":
        raise UnsupportedError(f"MultiHeadAttention has no {case.dtype} on the CPU")
    return _ungrouped(case, _ort_attention(*grouped_as_rows(case, inputs), threads))


def _ort_attention(case: Case, inputs: Inputs, threads: int) -> Built:
    import onnxruntime as ort
    from onnx import TensorProto, helper

    size = AttentionSize.of(case)
    feeds = {
        name: np.ascontiguousarray(
            inputs[name].transpose(1, 0, 2).reshape(1, inputs[name].shape[1], -1)
        )
        for name in "qkv"
    }
    names = ["q", "k", "v"]
    # Its own causal mask lets the last query see the last key, not the first the first.
    mask = additive_mask(case, inputs, is_causal_option=size.n == size.m)
    if mask is not None:
        feeds["mask"] = mask[None]
        names += ["", "", "mask"]  # after bias and key_padding_mask
    node = helper.make_node(
        "MultiHeadAttention",
        names,
        ["o"],
        domain="com.microsoft",
        num_heads=size.heads,
        unidirectional=int(size.causal and mask is None),
    )
    shape = (1, size.n, size.heads * size.e)
    graph = helper.make_graph(
        [node],
        "attention",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", 17),
            helper.make_opsetid("com.microsoft", 1),
        ],
        ir_version=9,
    )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(a) for name, a in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    result = ort.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
    binding.bind_ortvalue_output("o", result)

    def output(_: Any) -> Array:
        rows = result.numpy().reshape(size.n, size.heads, size.e)
        return rows.transpose(1, 0, 2)

    return Built(lambda: session.run_with_iobinding(binding), output)


# OpenVINO


def openvino_build(case: Case, inputs: Inputs, threads: int) -> Built:
    """The operator scaled_dot_product_attention, or MatMul, in the case's precision.

    Raises:
        UnsupportedError: for f64, which it computes in f32, and other programs.
    """
    if case.dtype not in ("f32", "bf16"):
        raise UnsupportedError(f"the CPU plug-in does not compute in {case.dtype}")
    if case.program == "matmul":
        return _openvino_run(case, inputs, threads, _openvino_matmul)
    if case.program != "attention":
        raise UnsupportedError(f"no operator for {case.program}")
    rows, arrays = grouped_as_rows(case, inputs)
    mask = additive_mask(rows, arrays)
    size = AttentionSize.of(rows)
    feeds = {name: arrays[name][None] for name in "qkv"}
    if mask is not None:
        feeds["mask"] = mask[None]

    def attention(ops: Any, *parameters: Any) -> Any:
        return ops.scaled_dot_product_attention(
            *parameters, causal=size.causal and mask is None
        )

    return _ungrouped(case, _openvino_run(rows, feeds, threads, attention))


def _openvino_matmul(ops: Any, *parameters: Any) -> Any:
    return ops.matmul(*parameters, False, False)


def _openvino_run(
    case: Case, feeds: Inputs, threads: int, build: Callable[..., Any]
) -> Built:
    import openvino as ov
    from openvino import opset13 as ops

    type_ = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[case.dtype]
    parameters = [
        ops.parameter(ov.Shape(list(array.shape)), type_) for array in feeds.values()
    ]
    model = ov.Model([build(ops, *parameters)], parameters)
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": case.dtype,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if cache := os.environ.get("MOA_BENCH_CACHE"):
        settings["CACHE_DIR"] = cache
    compiled = ov.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for number, array in enumerate(feeds.values()):
        array = np.ascontiguousarray(array)
        tensor = ov.Tensor(type_, ov.Shape(list(array.shape)))
        if case.dtype == "bf16":
            tensor.data.view(np.uint16)[...] = array.view(np.uint16)
        else:
            tensor.data[...] = array
        request.set_input_tensor(number, tensor)

    def output(_: Any) -> Array:
        tensor = request.get_output_tensor(0)
        data = np.asarray(tensor.data)
        if case.dtype == "bf16" and data.dtype != np.float32:
            data = data.view(np.uint16).view(ml_dtypes.bfloat16)
        return data.reshape(data.shape[1:] if data.ndim == 4 else data.shape)

    return Built(request.infer, output)


# All of them

BENCH = 'pip install "moa-dialect[bench]"'
TORCH = 'pip install "moa-dialect[torch]"'
_HERE = "moa_dialect.tools.bench.contenders"


def _ours(name: str, function: str) -> Contender:
    return Contender(
        name,
        f"{_HERE}:{function}",
        is_peer=False,
        imports="moa_dialect",
        has_cache=True,
    )


def _of_torch(name: str, function: str, needs_compiler: bool = False) -> Contender:
    return Contender(
        name,
        f"{_HERE}:{function}",
        ("torch",),
        TORCH,
        needs_compiler=needs_compiler,
        imports="torch",
        has_cache=needs_compiler,
    )


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        _ours("moa", "moa_build"),
        _ours("moa-jit", "moa_jit_build"),
        _ours("moa-kernel", "moa_kernel_build"),
        _of_torch("torch-sdpa", "sdpa_build"),
        _of_torch("torch-sdpa-rows", "sdpa_rows_build"),
        _of_torch("torch-flex", "flex_build", needs_compiler=True),
        _of_torch("torch", "torch_build"),
        _of_torch("torch-compile", "torch_compile_build", needs_compiler=True),
        Contender(
            "onnxruntime",
            f"{_HERE}:onnxruntime_build",
            ("onnxruntime", "onnx"),
            BENCH,
            imports="onnxruntime",
        ),
        Contender(
            "openvino",
            f"{_HERE}:openvino_build",
            ("openvino",),
            BENCH,
            imports="openvino",
            has_cache=True,
        ),
        Contender("numpy", f"{_HERE}:numpy_build", imports="numpy"),
    )
}
"""Everyone who takes part, by name."""
