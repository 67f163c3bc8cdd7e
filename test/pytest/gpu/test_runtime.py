"""The runtime on a GPU: streams, graphs, threads, checks, and what calls cost.

Skipped where PyTorch finds no CUDA device. What is computed there is compared with
PyTorch in float64.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.errors import (
    DeviceError,
    DTypeError,
    IndexRangeError,
    LayoutError,
    ShapeError,
)
from moa_dialect.frontend.jit import Jit
from moa_dialect.lowering.chips import chip_of
from moa_dialect.lowering.cuda_driver import Driver, driver

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"
)

CHIP = (
    chip_of(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else None
) or "sm_90a"


def on_hopper() -> bool:
    return CHIP == "sm_90a"


def jit(program: Callable[..., Any], **options: Any) -> Jit:
    return moa.jit(program, target="cuda", chip=CHIP, **options)


def normal(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, device="cuda").to(dtype)


def close(found: Any, wanted: Any, limit: float = 1e-5) -> None:
    assert found.device == wanted.device
    assert found.shape == wanted.shape
    wanted = wanted.double()
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error <= limit, float(error)


def sdpa(q: Any, k: Any, v: Any, **options: Any) -> Any:
    given = [x.double() for x in (q, k, v)]
    return torch.nn.functional.scaled_dot_product_attention(*given, **options)


LIMITS = {torch.float64: 1e-12, torch.float32: 2e-5}
"""The largest error of a dtype, relative to the largest result; 1.6e-2 for others."""


# Programs.


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Any]]] = {
    "elements": (
        lambda a, b: moa.exp(a) * b - a,
        lambda a, b: a.exp() * b - a,
        [(700, 50), (700, 50)],
    ),
    "a product": (lambda a, b: a @ b, lambda a, b: a @ b, [(70, 50), (50, 90)]),
    "softmax": (moa.library.softmax, lambda a: a.softmax(-1), [(30, 1500)]),
    "a fold of everything": (
        lambda a: a - moa.reduce("add", moa.ravel(a)),
        lambda a: a - a.sum(),
        [(33, 20)],
    ),
    "a scan": (lambda a: moa.scan("add", a), lambda a: a.cumsum(0), [(200,)]),
    "catenation": (moa.cat, lambda a, b: torch.cat([a, b]), [(3, 40), (2, 40)]),
    "a reversal": (moa.reverse, lambda a: a.flip(0), [(31, 7)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_on_tensors(name: str) -> None:
    program, reference, shapes = PROGRAMS[name]
    tensors = [normal(*shape) for shape in shapes]
    found = jit(program)(*tensors)
    assert found.dtype == torch.float32
    close(found, reference(*[tensor.double() for tensor in tensors]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_of_every_type(dtype: str, is_causal: bool) -> None:
    kind = getattr(torch, dtype)
    q, k, v = (normal(2, 3, n, 64, dtype=kind) for n in (150, 190, 190))
    if is_causal:
        k, v = k[:, :, :150].contiguous(), v[:, :, :150].contiguous()
    found = jit(moa.attention)(q, k, v, is_causal=is_causal)
    assert found.dtype == kind
    close(found, sdpa(q, k, v, is_causal=is_causal), LIMITS.get(kind, 1.6e-2))


def test_the_tiers_agree() -> None:
    q, k, v = (normal(4, 200, 64, dtype=torch.bfloat16) for _ in range(3))
    wanted = sdpa(q, k, v)
    tiers = ["portable", "mma"] + ["wgmma"] * on_hopper()
    for tier in tiers:
        close(jit(moa.attention, tier=tier)(q, k, v), wanted, 1.6e-2)


def test_options_of_attention() -> None:
    q, k, v = normal(8, 70, 64), normal(2, 90, 64), normal(2, 90, 32)
    found, lse = jit(moa.attention)(q, k, v, window=20, softcap=5.0, return_lse=True)
    scores = q.double() @ k.double().repeat_interleave(4, 0).mT / 8
    scores = 5 * (scores / 5).tanh()
    i, j = torch.arange(70, device="cuda")[:, None], torch.arange(90, device="cuda")
    scores = scores.masked_fill((i - j).abs() >= 20, -torch.inf)
    close(found, scores.softmax(-1) @ v.double().repeat_interleave(4, 0), 2e-5)
    close(lse, scores.logsumexp(-1), 2e-5)


def test_attention_runs_on_the_device_of_its_tensors() -> None:
    q, k, v = (normal(2, 130, 64, dtype=torch.bfloat16) for _ in range(3))
    found = moa.attention(q, k, v)
    assert found.is_cuda
    close(found, sdpa(q, k, v), 1.6e-2)


def test_several_results_and_types() -> None:
    x = torch.arange(-20, 20, device="cuda").reshape(4, 10)
    first, second = jit(lambda a: (a // 3 + a % 5, a > 3))(x)
    assert torch.equal(first, x.div(3, rounding_mode="floor") + x % 5)
    assert torch.equal(second, x > 3)


def test_no_elements() -> None:
    program = jit(lambda a, b: a @ b)
    assert program(normal(0, 3), normal(3, 2)).shape == (0, 2)
    assert not program(normal(2, 0), normal(0, 3)).any()


def test_what_the_emulator_gives() -> None:
    program = lambda a: a / moa.sqrt(moa.reduce("add", a * a))  # noqa: E731
    x = np.random.default_rng(1).standard_normal(300).astype(np.float32)
    emulated = moa.jit(program, target="cuda", chip=CHIP, emulate=True)(x)
    found = jit(program)(torch.from_numpy(x).cuda())
    np.testing.assert_allclose(found.cpu().numpy(), emulated, rtol=1e-6)


# Programs of several kernels.


def decode(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def test_parts_of_a_range_side_by_side() -> None:
    q, k, v = (normal(*shape) for shape in ((8, 1, 64), (2, 4096, 64), (2, 4096, 64)))
    compiled = jit(decode).lower(q, k, v)
    assert len(compiled.kernel.launches) == 2
    wanted = sdpa(q, k, v, enable_gqa=True)
    for _ in range(3):
        close(compiled(q, k, v), wanted, 2e-5)


def test_device_memory_of_calls_that_overlap_is_not_shared() -> None:
    """Parts' states lie in memory that a call returns before its kernels have run."""
    shapes = (8, 1, 64), (2, 4096, 64), (2, 4096, 64)
    given = [[normal(*shape) for shape in shapes] for _ in range(8)]
    compiled = jit(decode).lower(*given[0])
    streams = [torch.cuda.Stream() for _ in given]
    torch.cuda.synchronize()
    found: list[Any] = []
    for _ in range(5):
        for stream, tensors in zip(streams, given, strict=True):
            with torch.cuda.stream(stream):
                found.append(compiled(*tensors))
    torch.cuda.synchronize()
    for number, result in enumerate(found):
        close(result, sdpa(*given[number % 8], enable_gqa=True), 2e-5)


# One program for many lengths.


def test_one_program_for_many_lengths() -> None:
    spec = moa.ArraySpec((None, None, 64), "bf16")
    program = jit(moa.attention, specs=[spec] * 3)
    kernels: set[int] = set()
    for heads, queries, keys in ((1, 1, 1), (2, 17, 300), (3, 128, 128), (5, 200, 65)):
        q = normal(heads, queries, 64, dtype=torch.bfloat16)
        k, v = (normal(heads, keys, 64, dtype=torch.bfloat16) for _ in range(2))
        close(program(q, k, v), sdpa(q, k, v), 1.6e-2)
        kernels.add(id(program.lower(q, k, v).kernel))
    assert len(program._compiled) == 1  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ShapeError):
        program(q, k[:1], v)


# Streams, contexts and graphs.


def busy(stream: Any) -> None:
    """Keep a stream busy for two seconds, or longer if others use the device."""
    with torch.cuda.stream(stream):
        torch.cuda._sleep(4_000_000_000)


def test_kernels_run_on_the_current_stream_and_nothing_waits() -> None:
    program = jit(lambda a: a + a)
    x = torch.zeros(1000, device="cuda")
    program(x)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    busy(stream)
    with torch.cuda.stream(stream):
        x.fill_(3.0)
        start = time.perf_counter()
        found = program(x)
        elapsed = time.perf_counter() - start
        is_running = not stream.query()
        again = program(found)
    elsewhere = program(torch.ones(1000, device="cuda"))
    assert (elsewhere == 2).all()  # while the other stream is busy
    was_running = not stream.query()
    stream.synchronize()
    assert is_running
    assert was_running
    assert elapsed < 0.1
    assert (found == 6).all()
    assert (again == 12).all()


def current_context() -> int:
    context = ctypes.c_void_p()
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value or 0


def test_the_context_is_that_of_pytorch_and_stays_the_current_one() -> None:
    x = normal(10)
    before = current_context()
    jit(lambda a: a + a)(x)
    assert current_context() == before == driver().context(0).value


def test_a_thread_without_a_context() -> None:
    program, found = jit(lambda a: a + a), list[Any]()
    x = np.arange(5, dtype=np.float32)

    def work() -> None:
        found.append((program(x), current_context()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0][0], x + x)
    assert found[0][1] == 0


def captured(call: Callable[[], Any]) -> tuple[Any, Any]:
    """A graph of a call, and its result."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def test_calls_can_be_recorded_in_a_graph() -> None:
    q, k, v = (normal(2, 130, 64, dtype=torch.bfloat16) for _ in range(3))
    compiled = jit(moa.attention).lower(q, k, v)
    graph, result = captured(lambda: compiled(q, k, compiled(q, k, v)))
    for _ in range(3):
        for tensor in (q, k, v):
            tensor.normal_()
        graph.replay()
        close(result, sdpa(q, k, sdpa(q, k, v)), 3e-2)


def test_programs_of_several_kernels_can_be_recorded() -> None:
    q, k, v = (normal(*shape) for shape in ((8, 1, 64), (2, 4096, 64), (2, 4096, 64)))
    compiled = jit(decode).lower(q, k, v)
    graph, result = captured(lambda: compiled(q, k, v))
    for _ in range(3):
        q.normal_()
        k.normal_()
        graph.replay()
        close(result, sdpa(q, k, v, enable_gqa=True), 2e-5)


def test_checks_can_be_recorded() -> None:
    index, x = torch.tensor([1], device="cuda"), normal(3)
    compiled = jit(moa.psi).lower(index, x)
    graph, result = captured(lambda: compiled(index, x))
    graph.replay()
    assert result == x[1]
    index.fill_(2)
    graph.replay()
    assert result == x[2]
    index.fill_(5)
    graph.replay()
    torch.cuda.synchronize()
    with pytest.raises(IndexRangeError, match=r"in an earlier call"):
        compiled(index.fill_(0), x)
    assert compiled(index, x) == x[0]


# Tensor maps.


@pytest.mark.skipif(not on_hopper(), reason="needs the copy engine")
def test_tensor_maps_are_made_once_for_an_array() -> None:
    schedule = "j=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma"
    q, k, v = (normal(2, 256, 64, dtype=torch.bfloat16) for _ in range(3))
    compiled = jit(moa.attention, schedule=schedule).lower(q, k, v)
    maps = compiled.kernel._maps
    for _ in range(3):
        close(compiled(q, k, v), sdpa(q, k, v), 1.6e-2)
    assert len(maps) == 3  # of queries, keys and values
    other = k.clone()
    other.normal_()
    close(compiled(q, other, v), sdpa(q, other, v), 1.6e-2)
    assert len(maps) == 4
    graph, result = captured(lambda: compiled(q, k, v))
    k.normal_()
    graph.replay()
    close(result, sdpa(q, k, v), 1.6e-2)


# Threads.


def test_launches_from_several_threads() -> None:
    program = jit(lambda a, b: moa.library.softmax(a @ b))
    given = [(normal(64, 48), normal(48, 100)) for _ in range(6)]
    wanted = [(a.double() @ b.double()).softmax(-1) for a, b in given]
    failures: list[BaseException] = []
    torch.cuda.synchronize()

    def work(number: int) -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                found = [program(*given[number]) for _ in range(30)]
                stream.synchronize()
                close(found[-1], wanted[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Checks of values.


def gathered(indices: Any, x: Any) -> Any:
    return moa.omega(lambda i, x: moa.psi(moa.ravel(i), x), (0, 1), indices, x)


def test_a_failed_check_is_raised_by_the_next_call() -> None:
    program, x = jit(gathered), normal(50)
    indices = torch.arange(300, device="cuda") % 50
    assert torch.equal(program(indices, x), x[indices])
    program(torch.where(indices == 7, 99, indices), x)
    torch.cuda.synchronize()
    with pytest.raises(IndexRangeError, match=r"got 99.*in an earlier call"):
        program(indices, x)
    for _ in range(2):
        assert torch.equal(program(indices, x), x[indices])


def test_a_failed_check_of_arrays_is_raised_by_the_call() -> None:
    program, x = jit(gathered), np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(program(np.array([4, 0]), x), [4, 0])
    with pytest.raises(IndexRangeError, match=r"got -1"):
        program(np.array([4, -1]), x)


# Arguments that are not as a kernel takes them.


def test_tensors_that_are_not_contiguous() -> None:
    a, b = normal(40, 30).mT, normal(30, 80)[:, ::2]
    close(jit(lambda a, b: a * b)(a, b), a.double() * b.double())
    message = r"argument 0 'a': expected a contiguous tensor"
    with pytest.raises(LayoutError, match=message):
        jit(lambda a, b: a * b, copy=False)(a, b)
    shifted = normal(65)[1:]  # not at a multiple of 16 bytes
    close(jit(lambda a: a + a)(shifted), 2 * shifted.double())


def test_tensors_on_the_cpu_beside_others() -> None:
    program = jit(lambda a, b: a + b)
    a, b = normal(5), torch.ones(5)
    message = "argument 1: expected a tensor on a CUDA device, got cpu"
    with pytest.raises(LayoutError, match=message):
        program(a, b)
    with pytest.raises(LayoutError, match=r"argument 0: .* got cpu"):
        program(b, a)
    with pytest.raises(LayoutError, match="expected a tensor on a CUDA device"):
        program(b, b)
    # Arrays and numbers say of no device.
    close(program(a, np.ones(5, np.float32)), a.double() + 1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device")
def test_tensors_on_several_devices() -> None:
    program = jit(lambda a, b: a + b)
    a = torch.ones(5, device="cuda:1")
    found = program(a, a)
    assert found.device == a.device
    assert (found == 2).all()
    message = "expected a tensor on device cuda:0, as the others, got cuda:1"
    with pytest.raises(LayoutError, match=message):
        program(normal(5), a)


def test_tensors_that_do_not_fit() -> None:
    compiled = jit(lambda a, b: a + b).lower(normal(3, 4), normal(3, 4))
    with pytest.raises(ShapeError, match="argument 1 'b'"):
        compiled(normal(3, 4), normal(4, 4))
    with pytest.raises(DTypeError, match="expected float32, got float64"):
        compiled(normal(3, 4, dtype=torch.float64), normal(3, 4))


def test_a_tensor_that_requires_grad() -> None:
    a = normal(3).requires_grad_()
    with pytest.raises(LayoutError, match="does not require grad"):
        jit(lambda a: a + a)(a)
    with torch.no_grad():
        close(jit(lambda a: a + a)(a), 2 * a.double())


def test_arrays_are_copied_there_and_back() -> None:
    random = np.random.default_rng(3)
    a, b = (random.standard_normal(s).astype(np.float32) for s in ((50, 70), (70, 30)))
    found = jit(lambda a, b: a @ b)(a, b)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, a @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jit(moa.exp)(a.T), np.exp(a.T), rtol=1e-5)


def test_arrays_without_pytorch() -> None:
    text = f"""
import sys
import numpy as np
import moa_dialect as moa

x = np.arange(1000, dtype=np.float32).reshape(50, 20)
program = moa.jit(lambda a: a @ moa.transpose(a), target="cuda", chip="{CHIP}")
for _ in range(2):
    np.testing.assert_allclose(program(x), x @ x.T, rtol=1e-5)
assert "torch" not in sys.modules
print("done")
"""
    ended = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "done\n", ended.stderr


# What the driver reports.


def test_code_for_another_chip() -> None:
    program = moa.jit(lambda a: a + a, target="cuda", chip="sm_121a")
    message = r"cuModuleLoadData: CUDA_ERROR.* \(code for sm_121a\)"
    with pytest.raises(DeviceError, match=message):
        program(normal(5))
    close(jit(lambda a: a + a)(x := normal(5)), 2 * x.double())


def test_the_driver_says_what_is_wrong() -> None:
    own = driver()
    with pytest.raises(DeviceError, match="cuDeviceGet: CUDA_ERROR_INVALID_DEVICE"):
        own.context(99)
    normal(1)
    with pytest.raises(DeviceError, match="cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY"):
        own.allocate(1 << 50)
    assert isinstance(own, Driver)


# What calls cost.


def microseconds(call: Callable[[], Any], count: int = 100, rounds: int = 40) -> float:
    """The time that a call takes the host, in the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count)
    torch.cuda.synchronize()
    return 1e6 * best


def launched_alone(kernel: Any) -> Callable[[], Any]:
    """The launch of a kernel that was called, by the driver alone."""
    (function,), frame, own = kernel._loaded[0], kernel._plans[-1], driver()
    ((at, pointers, _),) = frame.launches
    _, *sizes, shared = frame.plan[at : at + 8]
    return lambda: own.launch(function, *sizes, shared, 0, pointers, None)


def test_how_long_calls_take(record_property: Callable[[str, object], None]) -> None:
    """The host's time: kernels of a few microseconds, so that the device keeps up.

    What a call takes around the driver's launch and PyTorch's allocation of the result
    is moa's.
    """
    shape, dtype = (2, 64, 64), torch.bfloat16
    q, k, v = (normal(*shape, dtype=dtype) for _ in range(3))
    one = jit(lambda a: a + a)
    added = one.lower(q)
    attention = jit(moa.attention).lower(q, k, v)
    dynamic = jit(
        moa.attention, specs=[moa.ArraySpec((None, None, 64), "bf16")] * 3
    ).lower(q, k, v)
    wide = [normal(*shape) for shape in ((8, 1, 64), (2, 4096, 64), (2, 4096, 64))]
    split = jit(decode).lower(*wide)
    attend = torch.nn.functional.scaled_dot_product_attention
    calls: dict[str, Callable[[], Any]] = {
        "attention, compiled": lambda: attention(q, k, v),
        "attention, any lengths": lambda: dynamic(q, k, v),
        "attention, two kernels": lambda: split(*wide),
        "one argument, compiled": lambda: added(q),
        "one argument, jit": lambda: one(q),
        "torch: q + q": lambda: q + q,
        "torch: empty": lambda: torch.empty(shape, dtype=dtype, device="cuda"),
        "torch: attention": lambda: attend(q[None], k[None], v[None]),
    }
    if on_hopper():
        schedule = "j=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"
        mapped = jit(moa.attention, schedule=schedule).lower(q, k, v)
        calls["attention, tensor maps"] = lambda: mapped(q, k, v)
        calls["moa.attention"] = lambda: moa.attention(q, k, v)
    attention(q, k, v)
    microseconds(calls["torch: q + q"])  # wakes the device
    times = {name: microseconds(call) for name, call in calls.items()}
    times["driver: launch"] = microseconds(launched_alone(attention.kernel))
    for name, found in times.items():
        record_property(name, found)
        print(f"{found:6.2f} us  {name}")
    around = times["driver: launch"] + times["torch: empty"]
    assert times["attention, compiled"] - around < 10
