"""Target cuda: kernels in the emulator, PTX, plans, and calls against a stub driver."""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

import ctypes
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.errors import (
    CompileError,
    DeviceError,
    DTypeError,
    IndexRangeError,
    LayoutError,
    MoaError,
    OptionError,
    ShapeError,
)
from moa_dialect.frontend.jit import Jit
from moa_dialect.lowering import cuda, cuda_driver, host, loader, ptxas
from moa_dialect.lowering.copy_engine import TensorMap
from moa_dialect.lowering.cuda import CudaKernel, DeviceCompilation
from moa_dialect.lowering.cuda_driver import FUNCTIONS, Driver
from moa_dialect.lowering.emulator import Emulator
from moa_dialect.lowering.engine import compile_for_cuda
from moa_dialect.lowering.nvvm import nvvm_dialect, ptx
from moa_dialect.lowering.outline_kernels import OutlineKernelsPass
from moa_dialect.lowering.plan_launches import PlanLaunchesPass
from moa_dialect.options import Options
from moa_dialect.parsing import ModuleParser
from moa_dialect.tools import gpu_check
from moa_dialect.universe import register_dialects

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
RANDOM = np.random.default_rng(7)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


# Programs in the emulator: the same as on the CPU.

PROGRAMS: dict[str, tuple[Callable[..., Any], Sequence[np.ndarray]]] = {
    "elementwise": (lambda a, b: a * b + a, [normal(7, 5), normal(7, 5)]),
    "matmul": (lambda a, b: a @ b, [normal(7, 5), normal(5, 9)]),
    "matmul f64": (lambda a, b: a @ b, [normal(4, 4, dtype=float)] * 2),
    "softmax": (moa.library.softmax, [normal(3, 150)]),
    "layer norm": (moa.library.layernorm, [normal(5, 40)]),
    "a scalar in every element": (
        lambda a: a - moa.reduce("add", moa.ravel(a)),
        [normal(7, 5)],
    ),
    "scan": (lambda a: moa.scan("add", a), [normal(20)]),
    "columns": (lambda a: moa.reduce("max", a), [normal(6, 5)]),
    "a constant": (
        lambda a: a + np.arange(12, dtype=np.float32).reshape(3, 4),
        [normal(3, 4)],
    ),
    "catenation": (moa.cat, [normal(3, 4), normal(2, 4)]),
    "comparison": (lambda a, b: a < b, [normal(3, 4), normal(3, 4)]),
    "integers": (lambda a: a // 3 + a % 5, [np.arange(-20, 20).reshape(4, 10)]),
    "math": (
        lambda a: moa.erf(a) + moa.tanh(a) * moa.cos(a) + moa.log(moa.exp(a)),
        [normal(30)],
    ),
    "two results": (lambda a: (a + a, moa.reduce("add", a)), [normal(6, 5)]),
    "attention": (moa.attention, [normal(2, 9, 8), normal(2, 11, 8), normal(2, 11, 6)]),
    "attention f64": (moa.attention, [normal(2, 9, 8, dtype=float)] * 3),
    "attention f16": (moa.attention, [normal(2, 9, 8, dtype=np.float16)] * 3),
    "attention bf16": (moa.attention, [normal(2, 9, 8, dtype=BFLOAT16)] * 3),
    "rows too long for local memory": (
        lambda q, k, v: moa.attention(q, k, v, is_causal=True),
        [normal(5, size, dtype=BFLOAT16) for size in (4, 4, 1500)],
    ),
}


def as_tuple(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kernel_in_the_emulator_gives_what_the_cpu_gives(
    name: str, dynamic: bool
) -> None:
    program, arrays = PROGRAMS[name]
    specs = None
    if dynamic:
        specs = [moa.ArraySpec((None,) * a.ndim, a.dtype) for a in arrays]
    given = moa.jit(program, target="cuda", emulate=True, specs=specs)(*arrays)
    wanted = moa.jit(program, specs=specs)(*arrays)
    for got, expected in zip(as_tuple(given), as_tuple(wanted), strict=True):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        tolerance = {2: 1e-2, 4: 1e-5, 8: 1e-12}.get(got.dtype.itemsize, 0)
        np.testing.assert_allclose(
            got.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance
        )


def test_fusing_is_an_option() -> None:
    x = normal(4, 70)
    program = moa.jit(moa.library.softmax, target="cuda", emulate=True, fuse=False)
    np.testing.assert_allclose(program(x), moa.jit(moa.library.softmax)(x), rtol=1e-5)


def test_empty_arrays_launch_nothing() -> None:
    program = moa.jit(lambda a, b: a @ b, target="cuda", emulate=True)
    assert program(normal(0, 3), normal(3, 2)).shape == (0, 2)
    assert not program(normal(2, 0), normal(0, 3)).any()


def test_a_check_of_data_is_made_in_a_kernel() -> None:
    program = moa.jit(moa.psi, target="cuda", emulate=True)
    x = normal(3)
    assert program(np.array([1]), x) == x[1]
    for index in (3, -1):
        with pytest.raises(IndexRangeError) as failed:
            program(np.array([index]), x)
        with pytest.raises(IndexRangeError) as expected:
            moa.jit(moa.psi)(np.array([index]), x)
        assert str(failed.value) == str(expected.value)
    assert program(np.array([2]), x) == x[2]


def gathered(indices: Any, x: Any) -> Any:
    return moa.omega(lambda i, x: moa.psi(moa.ravel(i), x), (0, 1), indices, x)


def test_one_of_many_failed_checks_is_reported() -> None:
    program = moa.jit(gathered, target="cuda", emulate=True)
    x = normal(5)
    indices = np.arange(300) % 5
    np.testing.assert_array_equal(program(indices, x), x[indices])
    with pytest.raises(IndexRangeError, match=r"got (7|8|9)$|got (7|8|9) "):
        program(np.array([0, 7, 1, 8, 9]), x)


def test_a_check_of_extents_is_made_by_the_host() -> None:
    specs = [moa.ArraySpec((None, None), np.float32)] * 2
    program = moa.jit(lambda a, b: a @ b, target="cuda", emulate=True, specs=specs)
    with pytest.raises(ShapeError, match=r"expected 3 .*, got 4"):
        program(normal(2, 3), normal(4, 2))


def test_tensors_on_the_cpu_may_be_emulated() -> None:
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(normal(3, 4))
    program = moa.jit(lambda a: a + a, target="cuda", emulate=True)
    assert torch.equal(program(a), a + a)


# Texts.


def lowered(program: Callable[..., Any], *specs: moa.ArraySpec, **options: Any) -> Any:
    return moa.jit(program, target="cuda", **options).lower(*specs)


MATRIX = moa.ArraySpec((64, 32), np.float32)


def test_the_stages_of_a_program_for_a_gpu() -> None:
    compiled = lowered(lambda a: moa.exp(a), MATRIX)
    target = compiled.text("target")
    assert "gpu.launch_func" in target
    assert "gpu.module" in target
    assert "nvvm.read.ptx.sreg.tid.x" in compiled.text("llvm")
    text = compiled.text("asm")
    assert ".target sm_90a" in text
    assert ".visible .entry main_kernel(" in text
    assert ".reqntid 128" in text
    assert "moa.loop" in compiled.text("onf")


def test_the_chip_is_an_option() -> None:
    assert ".target sm_80" in lowered(moa.exp, MATRIX, chip="sm_80").text("asm")


def test_features_decide_the_version_of_ptx() -> None:
    module = lowered(moa.exp, MATRIX).module("target")
    assert ".version 8.3" in ptx(nvvm_dialect(module, "sm_90a", "+ptx83"))


def test_a_gpu_has_an_instruction_for_the_maximum() -> None:
    text = lowered(lambda a: moa.reduce("max", a), MATRIX).text("asm")
    assert "max.NaN.f32" in text


def test_code_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = kernel_of(lambda a: a + a, normal(3, 4)).compilation
    assert DeviceCompilation.from_bytes(compilation.to_bytes()) == compilation
    content = compilation.to_bytes()
    assert DeviceCompilation.from_bytes(content[:-1]) is None
    assert DeviceCompilation.from_bytes(b"x" + content[1:]) is None
    monkeypatch.setenv("MOA_CACHE", "1")
    monkeypatch.setenv("MOA_CACHE_DIR", str(tmp_path))
    name = f"on_disk_{time.time_ns()}"
    module = lowered(lambda a: a - a, moa.ArraySpec((3,), "float32")).module("moa")
    text = str(module).replace("@main", f"@{name}")
    parsed(text)  # it is well formed
    first = compile_for_cuda(parsed(text))
    (entry,) = tmp_path.iterdir()
    kept = DeviceCompilation.from_bytes(entry.read_bytes())
    assert kept == first.compilation


def test_the_assembler_takes_the_code() -> None:
    if ptxas.find() is None:
        pytest.skip("there is no ptxas")
    text = lowered(moa.attention, *[moa.ArraySpec((2, 64, 32), np.float32)] * 3)
    made = ptxas.assemble(text.text("asm"), "sm_90a")
    assert made.cubin.startswith(b"\x7fELF")
    assert "0 bytes spill stores, 0 bytes spill loads" in made.log
    with pytest.raises(CompileError, match="ptxas does not take the kernels: "):
        ptxas.assemble(".version 0.0", "sm_90a")


def test_no_assembler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "find", lambda: None)
    with pytest.raises(CompileError, match="no ptxas found"):
        ptxas.assemble("", "sm_90a")


def test_where_the_assembler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "bin" / "ptxas"
    own.parent.mkdir()
    own.write_text("")
    own.chmod(0o755)
    search = ptxas.find.__wrapped__
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert search() == str(own)
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", str(own.parent))
    assert search() == str(own)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "nvidia"
    wheel = folder / "cu13" / "bin" / "ptxas"
    wheel.parent.mkdir(parents=True)
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(ptxas, "find_spec", lambda name: spec)
    monkeypatch.setattr(ptxas, "INSTALLED", tmp_path / "none")
    assert search() is None
    monkeypatch.setattr(ptxas, "INSTALLED", tmp_path)
    assert search() == str(own)
    wheel.write_text("")
    assert search() == str(wheel)


# Errors.


def test_unknown_chip() -> None:
    message = "unknown chip: expected one of sm_70, .*, got 'sm_1'"
    with pytest.raises(CompileError, match=message):
        moa.jit(moa.exp, target="cuda", chip="sm_1")


@pytest.mark.parametrize(
    ("options", "name"), [({"emulate": True}, "emulate"), ({"chip": "sm_80"}, "chip")]
)
def test_an_option_of_another_target(options: dict[str, Any], name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}: expected with target cuda, got it"):
        moa.jit(moa.exp, **options)


def test_parts_are_for_the_cpu() -> None:
    compiled = lowered(moa.library.softmax, MATRIX)
    with pytest.raises(
        CompileError, match="expected a program for target cpu, got cuda"
    ):
        compiled.parts()


def test_a_shape_that_data_give() -> None:
    program = moa.jit(moa.compress, target="cuda", emulate=True)
    message = "@compress.extents: a shape that depends on values in arrays"
    with pytest.raises(CompileError, match=message):
        program(np.array([True, False]), normal(2))


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda.none.so")
    cuda_driver._loaded.cache_clear()
    program = moa.jit(lambda a: a + a, target="cuda")
    with pytest.raises(DeviceError, match=r"no CUDA driver on this machine: .*emulate"):
        program(normal(3))


def test_a_driver_that_is_too_old() -> None:
    with pytest.raises(DeviceError, match="the CUDA driver is too old: no cuInit"):
        Driver(ctypes.CDLL(None))


# Modules: kernels of other shapes.

HEADER = """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c4 = arith.constant 4 : index
  %n = memref.dim %a, %c0 : memref<?xf32>
"""


def parsed(text: str) -> Any:
    context = Context()
    register_dialects(context)
    return ModuleParser(context, text).parse_module()


def function(body: str, arguments: str = "") -> str:
    return f"""
func.func @f(%a: memref<?xf32>, %b: memref<?xf32> {{moa.result}}{arguments}) {{
{HEADER}
{body}
  func.return
}}
func.func @f.extents(%a: memref<?xf32>) -> index {{
  %c0 = arith.constant 0 : index
  %n = memref.dim %a, %c0 : memref<?xf32>
  func.return %n : index
}}
"""


def parallel(body: str, arguments: str = "%i", bounds: str = "%c0, %n, %c1") -> str:
    count = arguments.count("%")
    sizes = ", ".join([str(count)] * 3)
    typed = ", ".join(f"{name}: index" for name in arguments.split(", "))
    types = ", ".join(["index"] * 3 * count)
    return f"""
  "scf.parallel"({bounds}) <{{operandSegmentSizes = array<i32: {sizes}, 0>}}> ({{
  ^bb0({typed}):
    {body}
    scf.reduce
  }}) : ({types}) -> ()
"""


LAUNCH = """
  %block = arith.constant 32 : index
  %blocks = arith.ceildivsi %n, %block : index
  %shared = arith.constant 256 : i32
  "gpu.launch"(%blocks, %c1, %c1, %block, %c1, %c1, %shared)
      <{operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1>}> ({
  ^bb0(%bx: index, %by: index, %bz: index, %tx: index, %ty: index, %tz: index,
       %gx: index, %gy: index, %gz: index, %sx: index, %sy: index, %sz: index):
    %start = arith.muli %bx, %sx : index
    %i = arith.addi %start, %tx : index
    %inside = arith.cmpi slt, %i, %n : index
    scf.if %inside {
      %x = memref.load %a[%i] : memref<?xf32>
      %y = arith.addf %x, %x : f32
      memref.store %y, %b[%i] : memref<?xf32>
    }
    "gpu.terminator"() : () -> ()
  }) {moa.note = "kept"} : (index, index, index, index, index, index, i32) -> ()
"""

COPY = """
    %x = memref.load %a[%i] : memref<?xf32>
    memref.store %x, %b[%i] : memref<?xf32>
"""


def emulated(text: str, *arrays: np.ndarray) -> Any:
    return compile_for_cuda(parsed(text), "f", Options(target="cuda", emulate=True))(
        *arrays
    )


def test_a_launch_is_a_kernel_as_it_is() -> None:
    x = normal(70)
    np.testing.assert_array_equal(emulated(function(LAUNCH), x), x + x)
    module = parsed(function(LAUNCH))
    OutlineKernelsPass().apply(Context(), module)
    module.verify()
    text = str(module)
    assert 'moa.note = "kept"' in text
    assert "gpu.known_block_size = array<i32: 32, 1, 1>" in text


def test_loops_in_steps_and_from_other_bounds() -> None:
    x = normal(23)
    text = function(
        parallel(
            "%zero = arith.constant 0.0 : f32\nmemref.store %zero, %b[%i] : memref<?xf32>"
        )
        + parallel(COPY, bounds="%c1, %n, %c4")
    )
    wanted = np.zeros_like(x)
    wanted[1::4] = x[1::4]
    np.testing.assert_array_equal(emulated(text, x), wanted)


REVERSED = function(
    "%size = arith.constant 300 : index\n"
    "%t = memref.alloc(%size) : memref<?xf32>\n"
    + parallel(
        "%x = memref.load %a[%i] : memref<?xf32>\n"
        "memref.store %x, %t[%i] : memref<?xf32>"
    )
    + "%last = arith.subi %n, %c1 : index\n"
    + parallel(
        "%j = arith.subi %last, %i : index\n"
        "%x = memref.load %t[%j] : memref<?xf32>\n"
        "memref.store %x, %b[%i] : memref<?xf32>"
    )
    + "memref.dealloc %t : memref<?xf32>"
)


def test_memory_that_two_kernels_use_lies_on_the_device() -> None:
    x = normal(300)
    np.testing.assert_array_equal(emulated(REVERSED, x), x[::-1])


def test_a_truth_value_goes_from_kernel_to_kernel() -> None:
    x = normal(9)
    text = function(
        "%first = memref.load %a[%c0] : memref<?xf32>\n"
        "%second = memref.load %a[%c1] : memref<?xf32>\n"
        "%holds = arith.cmpf olt, %first, %second : f32\n"
        "%stored = scf.if %holds -> (i1) {\n"
        "  memref.store %first, %b[%c0] : memref<?xf32>\n"
        "  scf.yield %holds : i1\n} else {\n  scf.yield %holds : i1\n}\n"
        + parallel(
            "%x = memref.load %a[%i] : memref<?xf32>\n"
            "%y = arith.negf %x : f32\n"
            "%z = arith.select %stored, %x, %y : f32\n"
            "memref.store %z, %b[%i] : memref<?xf32>"
        )
    )
    for given in (np.sort(x), np.sort(x)[::-1].copy()):
        wanted = given if given[0] < given[1] else -given
        np.testing.assert_array_equal(emulated(text, given), wanted)


def test_parallel_loops_in_a_task_are_sequential() -> None:
    x = normal(12)
    inner = parallel(
        "%at = arith.addi %j, %k : index\n"
        "%y = memref.load %b[%i] : memref<?xf32>\n"
        "%x = memref.load %a[%at] : memref<?xf32>\n"
        "%z = arith.addf %x, %y : f32\n"
        "memref.store %z, %b[%i] : memref<?xf32>",
        "%j, %k",
        "%c0, %c0, %c4, %c4, %c1, %c1",
    )
    text = function(
        parallel(
            "%zero = arith.constant 0.0 : f32\n"
            "memref.store %zero, %b[%i] : memref<?xf32>\n" + inner
        )
    )
    wanted = sum((x[j : j + 4].sum() for j in range(4)), start=np.float32(0))
    np.testing.assert_allclose(emulated(text, x), np.full(12, wanted), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            f"scf.for %k = %c0 to %n step %c1 {{\n{LAUNCH}\n}}",
            "@f: a kernel cannot be launched from a loop or a branch",
            id="a launch in a loop",
        ),
        pytest.param(
            parallel(
                "%x = memref.load %a[%i] : memref<?xf32>\n"
                "%k = arith.fptosi %x : f32 to i64\n"
                "%m = arith.index_cast %k : i64 to index\n"
                "%t = memref.alloc(%m) : memref<?xf32>\n"
                "memref.store %x, %t[%c0] : memref<?xf32>"
            ),
            "@f: the size of scratch memory depends on a task",
            id="a size that data give",
        ),
        pytest.param(
            parallel(
                "%t = memref.alloc(%n, %n) : memref<?x?xf32>\n"
                "%x = memref.load %t[%i, %i] : memref<?x?xf32>\n"
                "memref.store %x, %b[%i] : memref<?xf32>"
            ),
            "@f: expected flat scratch memory, got memref<?x?xf32>",
            id="scratch memory of two axes",
        ),
        pytest.param(
            "%t = memref.alloc(%n, %n) : memref<?x?xf32>\n"
            + 2
            * parallel(
                "%x = memref.load %t[%i, %i] : memref<?x?xf32>\n"
                "memref.store %x, %b[%i] : memref<?xf32>"
            ).replace("%x", "%x"),
            "@f: expected flat temporary memory, got memref<?x?xf32>",
            id="temporary memory of two axes",
        ),
        pytest.param(
            parallel(
                '%x = "test.load"(%p) : (!llvm.ptr) -> f32\n'
                "memref.store %x, %b[%i] : memref<?xf32>"
            ),
            "@f: a kernel cannot use a value of type !llvm.ptr from outside",
            id="a pointer",
        ),
        pytest.param(
            "%zero = arith.constant 0.0 : f32\n"
            '%sum = "scf.parallel"(%c0, %n, %c1, %zero) <{operandSegmentSizes = '
            "array<i32: 1, 1, 1, 1>}> ({\n^bb0(%i: index):\n"
            "%x = memref.load %a[%i] : memref<?xf32>\n"
            "scf.reduce(%x : f32) {\n^bb0(%l: f32, %r: f32):\n"
            "%s = arith.addf %l, %r : f32\nscf.reduce.return %s : f32\n}\n"
            "}) : (index, index, index, f32) -> f32\n"
            "memref.store %sum, %b[%c0] : memref<?xf32>",
            "@f: a parallel loop with results is not supported",
            id="a parallel loop with results",
        ),
    ],
)
def test_what_a_kernel_cannot_do(body: str, message: str) -> None:
    context = Context(allow_unregistered=True)
    register_dialects(context)
    text = function(body, ", %p: !llvm.ptr")
    module = ModuleParser(context, text).parse_module()
    with pytest.raises(CompileError, match=re.escape(message)):
        OutlineKernelsPass().apply(context, module)


def test_a_block_has_at_most_1024_threads() -> None:
    message = "expected a block of 1 to 1024 threads, got 2000"
    with pytest.raises(CompileError, match=message):
        OutlineKernelsPass(block=2000).apply(Context(), parsed(function("")))


def test_clusters_are_not_planned() -> None:
    cluster = LAUNCH.replace(
        "%block, %c1, %c1, %shared", "%block, %c1, %c1, %c4, %c1, %c1, %shared"
    )
    cluster = cluster.replace("1, 0, 0, 0, 1>", "1, 1, 1, 1, 1>")
    cluster = cluster.replace(
        "(index, index, index,", "(index, index, index, index, index, index,"
    )
    module = parsed(function(cluster))
    OutlineKernelsPass().apply(Context(), module)
    with pytest.raises(CompileError, match="clusters of blocks cannot be planned yet"):
        PlanLaunchesPass().apply(Context(), module)


def test_an_argument_that_a_plan_cannot_say() -> None:
    text = function("").replace(
        "  func.return\n}\nfunc.func",
        '  "gpu.launch_func"(%c1, %c1, %c1, %c1, %c1, %c1, %x) <{kernel = @k::@g, '
        "operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0>}> : "
        "(index, index, index, index, index, index, f32) -> ()\n"
        "  func.return\n}\nfunc.func",
    )
    text = text.replace("%n = memref", "%x = arith.constant 0.0 : f32\n%n = memref", 1)
    message = "expected flat memory and indices as arguments of a kernel, got f32"
    with pytest.raises(CompileError, match=message):
        PlanLaunchesPass().apply(Context(), parsed(text))


def test_what_upstream_does_not_lower_is_named() -> None:
    text = function(parallel('"test.wait"() : () -> ()\n' + COPY))
    context = Context(allow_unregistered=True)
    register_dialects(context)
    module = ModuleParser(context, text).parse_module()
    OutlineKernelsPass().apply(context, module)
    with pytest.raises(
        CompileError, match=r"upstream does not lower test\.wait for a GPU"
    ):
        nvvm_dialect(module)


def test_no_kernels_no_ptx() -> None:
    with pytest.raises(CompileError, match="there are no kernels"):
        ptx(nvvm_dialect(parsed(function(""))))


# A stub of the driver, from LLVM IR: it records what it is told.

SIGNATURES = {
    "cuInit": "i32",
    "cuDeviceGet": "ptr i32",
    "cuDeviceGetAttribute": "ptr i32 i32",
    "cuDevicePrimaryCtxRetain": "ptr i32",
    "cuCtxGetDevice": "ptr",
    "cuCtxPushCurrent_v2": "ptr",
    "cuCtxPopCurrent_v2": "ptr",
    "cuModuleLoadDataEx": "ptr ptr i32 ptr ptr",
    "cuModuleGetFunction": "ptr ptr ptr",
    "cuFuncSetAttribute": "ptr i32 i32",
    "cuLaunchKernel": "ptr i32 i32 i32 i32 i32 i32 i32 ptr ptr ptr",
    "cuGetErrorName": "i32 ptr",
    "cuGetErrorString": "i32 ptr",
    "cuMemAlloc_v2": "ptr i64",
    "cuMemFree_v2": "i64",
    "cuMemHostAlloc": "ptr i64 i32",
    "cuMemHostGetDevicePointer_v2": "ptr ptr i32",
    "cuMemcpyHtoD_v2": "i64 ptr i64",
    "cuMemcpyDtoH_v2": "ptr i64 i64",
    "cuTensorMapEncodeTiled": "ptr i32 i32 ptr ptr ptr ptr ptr i32 i32 i32 i32",
}

MEANING = {
    "cuDeviceGet": "store i32 %a1, ptr %a0",
    # 9 for the attribute 75, 0 for the other one: a compute capability.
    "cuDeviceGetAttribute": """
  %is.major = icmp eq i32 %a1, 75
  %value = select i1 %is.major, i32 9, i32 0
  store i32 %value, ptr %a0""",
    "cuDevicePrimaryCtxRetain": """
  %wide = zext i32 %a1 to i64
  %handle = add i64 %wide, 4096
  store i64 %handle, ptr %a0""",
    "cuCtxGetDevice": "store i32 0, ptr %a0",
    "cuModuleLoadDataEx": "store i64 77, ptr %a0",
    "cuModuleGetFunction": """
  %old = load i64, ptr @"stub.functions"
  %handle = add i64 %old, 1
  store i64 %handle, ptr @"stub.functions"
  store i64 %handle, ptr %a0""",
    "cuGetErrorName": 'store ptr @"stub.name", ptr %a1',
    "cuGetErrorString": 'store ptr @"stub.name", ptr %a1',
    "cuMemAlloc_v2": """
  %memory = call ptr @malloc(i64 %a1)
  store ptr %memory, ptr %a0""",
    "cuMemHostAlloc": """
  %memory = call ptr @malloc(i64 %a1)
  store ptr %memory, ptr %a0""",
    "cuMemHostGetDevicePointer_v2": "store ptr %a1, ptr %a0",
    "cuMemFree_v2": """
  %memory = inttoptr i64 %a0 to ptr
  call void @free(ptr %memory)""",
    "cuMemcpyHtoD_v2": """
  %memory = inttoptr i64 %a0 to ptr
  call ptr @memcpy(ptr %memory, ptr %a1, i64 %a2)""",
    "cuMemcpyDtoH_v2": """
  %memory = inttoptr i64 %a1 to ptr
  call ptr @memcpy(ptr %a0, ptr %memory, i64 %a2)""",
    # What it is given, one thing after the other: see `decoded`.
    "cuTensorMapEncodeTiled": """
  store ptr %a3, ptr %a0
  %p.type = getelementptr i8, ptr %a0, i64 8
  store i32 %a1, ptr %p.type
  %p.rank = getelementptr i8, ptr %a0, i64 12
  store i32 %a2, ptr %p.rank
  %rank = zext i32 %a2 to i64
  %p.extents = getelementptr i8, ptr %a0, i64 16
  %extents = mul i64 %rank, 8
  call ptr @memcpy(ptr %p.extents, ptr %a4, i64 %extents)
  %p.strides = getelementptr i8, ptr %a0, i64 56
  %strides = sub i64 %extents, 8
  call ptr @memcpy(ptr %p.strides, ptr %a5, i64 %strides)
  %p.box = getelementptr i8, ptr %a0, i64 88
  %box = mul i64 %rank, 4
  call ptr @memcpy(ptr %p.box, ptr %a6, i64 %box)
  %p.kind = getelementptr i8, ptr %a0, i64 108
  store i32 %a8, ptr %p.kind
  %p.swizzle = getelementptr i8, ptr %a0, i64 112
  store i32 %a9, ptr %p.swizzle
  %p.cache = getelementptr i8, ptr %a0, i64 116
  store i32 %a10, ptr %p.cache
  %p.fill = getelementptr i8, ptr %a0, i64 120
  store i32 %a11, ptr %p.fill""",
    # The number of arguments is set beforehand: a driver reads it from the code.
    "cuLaunchKernel": """
  %count = load i64, ptr @"stub.count"
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %slot = getelementptr ptr, ptr %a9, i64 %i
  %argument = load ptr, ptr %slot
  %word = load i64, ptr %argument
  call void @"stub.put"(i64 %word)
  %next = add i64 %i, 1
  br label %head
done:""",
}


def stub_text() -> str:
    """The stub as LLVM IR: each function logs its number and arguments."""
    lines = [
        '@"stub.log" = global [65536 x i64] zeroinitializer',
        '@"stub.at" = global i64 0',
        '@"stub.count" = global i64 0',
        '@"stub.functions" = global i64 0',
        '@"stub.error" = global i32 0',
        '@"stub.name" = global [5 x i8] c"STUB\\00"',
        "declare ptr @malloc(i64)",
        "declare void @free(ptr)",
        "declare ptr @memcpy(ptr, ptr, i64)",
        'define void @"stub.put"(i64 %word) {',
        '  %at = load i64, ptr @"stub.at"',
        '  %slot = getelementptr i64, ptr @"stub.log", i64 %at',
        "  store i64 %word, ptr %slot",
        "  %next = add i64 %at, 1",
        "  %low = and i64 %next, 65535",
        '  store i64 %low, ptr @"stub.at"',
        "  ret void",
        "}",
        'define i64 @"stub.global"(i64 %number) {',
        "  switch i64 %number, label %log [i64 1, label %at i64 2, label %count",
        "    i64 3, label %functions i64 4, label %error]",
        *(
            line
            for name in ("log", "at", "count", "functions", "error")
            for line in (
                f"{name}:",
                f'  %p.{name} = ptrtoint ptr @"stub.{name}" to i64',
                f"  ret i64 %p.{name}",
            )
        ),
        "}",
        # The loader's entries take one address and give nothing.
        'define void @"stub.table"(ptr %frame) {',
    ]
    names = [*SIGNATURES, "global"]
    for number, name in enumerate(names):
        lines += [
            f"  %s{number} = getelementptr i64, ptr %frame, i64 {number}",
            f'  store ptr @"stub.{name}", ptr %s{number}',
        ]
    lines += ["  ret void", "}"]
    for number, (name, types) in enumerate(SIGNATURES.items()):
        arguments = types.split()
        typed = ", ".join(f"{t} %a{k}" for k, t in enumerate(arguments))
        lines += [f'define i32 @"stub.{name}"({typed}) {{', "entry:"]
        lines.append(f'  call void @"stub.put"(i64 {1000 + number})')
        for k, type_ in enumerate(arguments):
            how = {"ptr": "ptrtoint ptr", "i32": "zext i32"}.get(type_)
            value = f"%a{k}"
            if how is not None:
                lines.append(f"  %l{k} = {how} %a{k} to i64")
                value = f"%l{k}"
            lines.append(f'  call void @"stub.put"(i64 {value})')
        lines.append(MEANING.get(name, ""))
        result = "0" if name.startswith("cuGetError") else "%error"
        if result != "0":
            lines.append('  %error = load i32, ptr @"stub.error"')
        lines += [f"  ret i32 {result}", "}"]
    return "\n".join(lines) + "\n"


class Stub:
    """The stub, loaded: what it was told, and what it should do."""

    def __init__(self) -> None:
        code = host.object_code(stub_text(), ["stub.table"])
        (table,) = loader.loaded(code, ["stub.table"])
        addresses = (ctypes.c_uint64 * (len(SIGNATURES) + 1))()
        table(ctypes.addressof(addresses))
        self.functions = dict(zip(SIGNATURES, addresses, strict=False))
        where = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(addresses[-1])
        self._log = (ctypes.c_int64 * 65536).from_address(where(0))
        self._at, self._count, self._functions = (
            ctypes.c_int64.from_address(where(number)) for number in (1, 2, 3)
        )
        self._error = ctypes.c_int32.from_address(where(4))

    def reset(self, words: int = 0) -> None:
        """Forget everything; launches have so many words of arguments."""
        self._at.value = self._functions.value = self._error.value = 0
        self._count.value = words

    def fail(self, error: int) -> None:
        """Have everything fail from now on."""
        self._error.value = error

    def calls(self) -> list[tuple[str, list[int]]]:
        """What was called, with the arguments, and for launches their words."""
        words, found = list(self._log[: self._at.value]), list[tuple[str, list[int]]]()
        names = list(SIGNATURES)
        at = 0
        while at < len(words):
            name = names[words[at] - 1000]
            size = len(SIGNATURES[name].split())
            if name == "cuLaunchKernel":
                size += self._count.value
            found.append((name, words[at + 1 : at + 1 + size]))
            at += 1 + size
        return found

    def names(self) -> list[str]:
        """What was called."""
        return [name for name, _ in self.calls()]


@pytest.fixture(scope="module")
def loaded_stub() -> Stub:
    return Stub()


@pytest.fixture
def stub(loaded_stub: Stub) -> Stub:
    loaded_stub.reset()
    return loaded_stub


def kernel_of(
    program: Callable[..., Any], *arrays: np.ndarray, found: Any = None, **options: Any
) -> CudaKernel:
    """A program compiled for a GPU, with a driver."""
    specs = options.pop("specs", None)
    specs = specs or [moa.ArraySpec(array.shape, array.dtype) for array in arrays]
    compiled = moa.jit(program, target="cuda", **options).lower(*specs)
    compilation = compiled.kernel.compilation
    entries = loader.loaded(compilation.host.code, compilation.host.signature.symbols)
    return CudaKernel(compilation, entries, found)


def test_the_stub_has_what_is_used() -> None:
    assert tuple(SIGNATURES) == FUNCTIONS


CAPABILITY = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int
)


@pytest.fixture
def capable(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the compute capabilities of the devices of the driver, the last for all."""
    kept: list[Any] = []

    def have(*capabilities: tuple[int, int]) -> None:
        def tell(value: Any, attribute: int, device: int) -> int:
            number = min(device, len(capabilities) - 1)
            value[0] = capabilities[number][attribute - 75]
            return 0

        kept.append(CAPABILITY(tell))
        address = ctypes.cast(kept[-1], ctypes.c_void_p).value
        assert address is not None
        found = Driver({**stub.functions, "cuDeviceGetAttribute": address})
        monkeypatch.setattr(cuda_driver, "driver", lambda: found)

    return have


def test_programs_are_compiled_for_the_device_that_is_there(
    capable: Callable[..., None],
) -> None:
    spec = moa.ArraySpec((5,), "f32")
    program = moa.jit(lambda a: a + a, target="cuda")
    capable((8, 0))
    assert program.lower(spec).options.chip == "sm_80"
    assert ".target sm_80" in program.lower(spec).text("asm")
    capable((9, 0))
    assert program.lower(spec).options.chip == "sm_90a"
    given = moa.jit(lambda a: a + a, target="cuda", chip="sm_75")
    assert given.lower(spec).options.chip == "sm_75"


def test_programs_are_compiled_for_the_device_of_their_tensors(
    capable: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two unlike devices, of which the first one is the current one."""
    capable((8, 0), (9, 0))
    module = sys.modules[Jit.__module__]
    monkeypatch.setattr(module, "is_torch", lambda value: isinstance(value, FakeTensor))
    called: list[str] = []

    def call(kernel: Any, *arrays: Any) -> None:
        called.append(kernel.options.chip)

    monkeypatch.setattr(module.Compiled, "__call__", call)  # pyright: ignore
    first, second = (FakeTensor(normal(5), f"cuda:{number}") for number in (0, 1))
    for specs in (None, [moa.ArraySpec((None,), "f32")]):
        program = moa.jit(lambda a: a + a, target="cuda", specs=specs)
        for given in (first, second, normal(5)) * 2:
            program(given)
        assert called == ["sm_80", "sm_90a", "sm_80"] * 2
        called.clear()
    assert program.lower(second).options.chip == "sm_90a"
    given = moa.jit(lambda a: a + a, target="cuda", chip="sm_75")
    assert given.lower(second).options.chip == "sm_75"
    # Arrays go to the current device, which may change.
    program(normal(5))
    capable((9, 0))
    program(normal(5))
    assert called == ["sm_80", "sm_90a"]


def test_a_device_that_is_too_old(capable: Callable[..., None]) -> None:
    capable((6, 1))
    message = r"device 0: expected one of compute capability 7\.0 or newer, got 6\.1"
    program = moa.jit(lambda a: a + a, target="cuda")
    with pytest.raises(DeviceError, match=message):
        program.lower(moa.ArraySpec((5,), "f32"))
    with pytest.raises(DeviceError, match=message):
        program(normal(5))


def test_a_tier_that_the_device_has_not(capable: Callable[..., None]) -> None:
    capable((8, 0))
    program = moa.jit(lambda a: a + a, target="cuda", tier="wgmma")
    with pytest.raises(CompileError, match="wgmma"):
        program.lower(moa.ArraySpec((5,), "f32"))


def test_without_a_driver_programs_are_compiled_for_hopper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda.none.so")
    cuda_driver._loaded.cache_clear()
    program = moa.jit(lambda a: a + a, target="cuda")
    assert program.lower(moa.ArraySpec((5,), "f32")).options.chip == "sm_90a"


# Tensors without a device: what the runtime asks of PyTorch.


class FakeDType:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool")
DTYPES = {name: FakeDType(name) for name in (*NAMES, "quint4")}
STRIDED = "torch.strided"


class FakeTensor:
    """A tensor in host memory that says it is on a device."""

    def __init__(self, array: np.ndarray, device: str = "cuda:0") -> None:
        self.array, self.device = array, device
        self.dtype = DTYPES[array.dtype.name]
        self.layout, self.requires_grad = STRIDED, False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def stride(self) -> tuple[int, ...]:
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def is_neg(self) -> bool:
        return False

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def get_device(self) -> int:
        return int(self.device.partition(":")[2]) if self.is_cuda else -1

    def detach(self) -> "FakeTensor":
        return self

    resolve_neg = detach

    def clone(self, memory_format: object) -> "FakeTensor":
        return FakeTensor(np.ascontiguousarray(self.array), self.device)

    def view(self, dtype: FakeDType) -> "FakeTensor":
        return FakeTensor(self.array.view(ml_dtypes.bfloat16), self.device)

    def to(self, device: str) -> "FakeTensor":
        return FakeTensor(self.array, device)


def fake_torch(**more: Any) -> Any:
    """What the runtime uses of the module."""

    def empty(shape: Any, dtype: FakeDType, device: str) -> FakeTensor:
        name = ml_dtypes.bfloat16 if dtype.name == "bfloat16" else dtype.name
        return FakeTensor(np.empty(shape, name), device)

    def empty_strided(
        shape: Any, strides: Any, dtype: FakeDType, device: str
    ) -> FakeTensor:
        result = empty(shape, dtype, device)
        assert result.stride() == strides or 0 in shape
        return result

    entries: dict[str, Any] = {
        "Tensor": FakeTensor,
        "strided": STRIDED,
        "contiguous_format": None,
        "empty": empty,
        "empty_strided": empty_strided,
        "empty_like": lambda tensor: FakeTensor(
            np.empty_like(tensor.array), tensor.device
        ),
        "from_numpy": lambda array: FakeTensor(array, "cpu"),
        "is_grad_enabled": lambda: True,
        "_C": SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 0x5000 + device),
    }
    return SimpleNamespace(**entries, **DTYPES, **more)


def on_device(*arrays: np.ndarray) -> list[FakeTensor]:
    return [FakeTensor(array) for array in arrays]


def decoded(address: int) -> TensorMap:
    """What the stub was told to make a tensor map of."""
    assert address % 64 == 0
    content = ctypes.string_at(address, 128)
    kind, rank = np.frombuffer(content, np.int32, 2, 8)
    assert kind == 9  # bf16
    assert tuple(np.frombuffer(content, np.int32, 4, 108)) == (0, 3, 2, 0)
    words = np.frombuffer(content, np.uint64, 11).tolist()
    box = np.frombuffer(content, np.int32, rank, 88).tolist()
    extents, strides = words[2 : 2 + rank], words[7 : 6 + rank]
    return TensorMap(words[0], 2, tuple(extents), tuple(strides), tuple(box), 128)


class Emulating(Driver):
    """The stub, but launches are emulated: device memory is the host's."""

    def __init__(self, stub: Stub, text: str, launches: Sequence[Any]) -> None:
        super().__init__(stub.functions)
        emulator, order = Emulator(text), iter(range(1 << 30))

        def launch(handle: ctypes.c_void_p, *rest: Any) -> int:
            *sizes, shared, _, pointers, _ = rest
            entry = launches[(handle.value or 0) - 1]
            next(order)
            places, maps = entry.parameters()
            words = [
                ctypes.c_int64.from_address(pointers[number] or 0).value
                for number in range(len(places))
            ]
            made = [decoded(pointers[place] or 0).encoded() for place, *_ in maps]
            for (place, *_), map_ in zip(maps, made, strict=True):
                words[place] = map_.ctypes.data
            emulator.launch(
                entry.kernel, tuple(sizes[:3]), tuple(sizes[3:]), words, shared
            )
            return 0

        self.launch = launch


def emulating(
    stub: Stub, program: Callable[..., Any], *arrays: np.ndarray, **options: Any
) -> CudaKernel:
    """A kernel on a driver that emulates its launches."""
    specs = [moa.ArraySpec(array.shape, array.dtype) for array in arrays]
    text = moa.jit(program, target="cuda", emulate=True, **options).lower(*specs)
    kernel = kernel_of(program, *arrays, **options)
    code = text.kernel.compilation.code.decode()
    stub.reset()
    kernel._driver = Emulating(stub, code, kernel.launches)
    return kernel


# Calls.


def test_tensors_are_launched_on_the_current_stream_without_waiting(stub: Stub) -> None:
    a, b = on_device(normal(7, 5), normal(5, 300))
    # Without fusion a sum is not reassociated: one thread has an element.
    kernel = kernel_of(
        lambda a, b: a @ b, a.array, b.array, found=Driver(stub.functions), fuse=False
    )
    (launch,) = kernel.launches
    stub.reset(launch.words)
    result = kernel.call_tensors(fake_torch(), [a, b])
    assert result.shape == (7, 300)
    assert result.dtype is DTYPES["float32"]
    assert result.device == "cuda:0"
    calls = stub.calls()
    assert [name for name, _ in calls] == [
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuModuleLoadDataEx",
        "cuModuleGetFunction",
        "cuLaunchKernel",
        "cuCtxPopCurrent_v2",
    ]
    assert kernel.compilation.code.startswith(b"//")
    _, words = calls[-2]
    blocks = -(-7 * 300 // 128)
    assert words[:9] == [1, blocks, 1, 1, 128, 1, 1, 0, 0x5000]
    arguments = words[11:]
    places = [x.data_ptr() for x in (a, b, result)]
    sizes = [35, 1500, 2100]
    flat = [
        [place, place, 0, size, 1] for place, size in zip(places, sizes, strict=True)
    ]
    assert arguments == [word for words in flat for word in words]

    # The second call finds everything there.
    stub.reset(launch.words)
    kernel.call_tensors(fake_torch(), [a, b])
    assert stub.names() == [
        "cuCtxPushCurrent_v2",
        "cuLaunchKernel",
        "cuCtxPopCurrent_v2",
    ]


def test_extents_of_a_call_are_arguments(stub: Stub) -> None:
    specs = [moa.ArraySpec((None, None), np.float32)] * 2
    kernel = kernel_of(
        lambda a, b: a @ b, specs=specs, found=Driver(stub.functions), fuse=False
    )
    (launch,) = kernel.launches
    a, b = on_device(normal(7, 5), normal(5, 300))
    stub.reset(launch.words)
    result = kernel.call_tensors(fake_torch(), [a, b])
    assert result.shape == (7, 300)
    words = stub.calls()[-2][1]
    assert words[1] == -(-7 * 300 // 128)
    assert {5, 7, 300, 2100} <= set(words[11:])
    with pytest.raises(ShapeError, match="expected 5"):
        kernel.call_tensors(fake_torch(), on_device(normal(7, 5), normal(4, 3)))


@pytest.mark.parametrize("extents", [None, (None, 5)], ids=["static", "any"])
def test_a_bound_kernel_looks_at_addresses_alone(
    stub: Stub, extents: tuple[int | None, ...] | None
) -> None:
    """Of tensors of one outline, after the first call on the device."""
    (a,), torch = on_device(normal(8, 5)), fake_torch()
    specs = None if extents is None else [moa.ArraySpec(extents, "f32")]
    found = Driver(stub.functions)
    kernel = kernel_of(lambda a: a + a, a.array, specs=specs, found=found)
    call = kernel.bound(torch, [a])
    assert call(a) is None
    kernel.call_tensors(torch, [a])
    (launch,) = kernel.launches
    for other in (a, *on_device(normal(8, 5))):
        stub.reset(launch.words)
        result = call(other)
        assert result.shape == (8, 5)
        names = [name for name, _ in stub.calls()]
        assert names == ["cuCtxPushCurrent_v2", "cuLaunchKernel", "cuCtxPopCurrent_v2"]
        (words,) = [words for name, words in stub.calls() if name == "cuLaunchKernel"]
        assert {other.data_ptr(), result.data_ptr()} <= set(words[11:])
    stub.reset()
    (odd,) = on_device(np.zeros(41, np.float32)[1:].reshape(8, 5))
    assert odd.data_ptr() % 16
    assert call(odd) is None
    assert not stub.names()


def test_an_older_torch_is_asked_for_its_stream(stub: Stub) -> None:
    (a,) = on_device(normal(3))
    kernel = kernel_of(lambda a: a + a, a.array, found=Driver(stub.functions))
    stub.reset(10)
    torch = fake_torch(
        cuda=SimpleNamespace(
            current_stream=lambda device: SimpleNamespace(cuda_stream=0x77)
        )
    )
    torch._C = SimpleNamespace()
    kernel.call_tensors(torch, [a])
    (words,) = [words for name, words in stub.calls() if name == "cuLaunchKernel"]
    assert words[8] == 0x77


def test_device_memory_comes_from_torch(stub: Stub) -> None:
    program, arrays = moa.attention, [normal(4, 8), normal(512, 8), normal(512, 8)]
    # The states of two parts of the keys.
    schedule = "i=grid,warps:1,regs:2;p=chunk:16,stages:1,split:2"
    kernel = emulating(stub, program, *arrays, schedule=schedule)
    asked: list[FakeTensor] = []
    torch = fake_torch()
    empty = torch.empty

    def recording(*arguments: Any, **options: Any) -> FakeTensor:
        asked.append(empty(*arguments, **options))
        return asked[-1]

    torch.empty = recording
    result = kernel.call_tensors(torch, on_device(*arrays))
    wanted = moa.jit(program)(*arrays).astype(float)
    np.testing.assert_allclose(result.array.astype(float), wanted, rtol=1e-5, atol=1e-6)
    own, scratch = asked
    assert own is result
    assert scratch.dtype is DTYPES["uint8"]
    assert scratch.shape[0] >= 2 * 4 * (8 + 2) * 4
    assert "cuMemAlloc_v2" not in stub.names()


def boxed(stub: Stub, *arrays: np.ndarray) -> CudaKernel:
    """A product whose factors the copy engine loads."""
    schedule = "j=grid,block:24;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"
    return emulating(stub, lambda a, b: a @ b, *arrays, schedule=schedule)


def test_tensor_maps_are_made_once_for_an_array(stub: Stub) -> None:
    a, b = (normal(*shape).astype(ml_dtypes.bfloat16) for shape in ((70, 72), (72, 24)))
    kernel, torch = boxed(stub, a, b), fake_torch()
    wanted = a.astype(float) @ b.astype(float)
    for left, count in ((a, 2), (a, 2), (a.copy(), 3)):
        result = kernel.call_tensors(torch, on_device(left, b)).array.astype(float)
        assert np.linalg.norm(result - wanted) < 6e-3 * np.linalg.norm(wanted)
        assert stub.names().count("cuTensorMapEncodeTiled") == count
    calls = [w for name, w in stub.calls() if name == "cuTensorMapEncodeTiled"]
    assert [words[3] for words in calls[:2]] == [x.ctypes.data for x in (a, b)]
    assert [words[1:3] for words in calls] == [[9, 2]] * 3  # bf16, two axes


def test_tensor_maps_that_are_forgotten(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_MOST_MAPS", 2)
    a, b = (normal(*shape).astype(ml_dtypes.bfloat16) for shape in ((70, 72), (72, 24)))
    kernel, torch = boxed(stub, a, b), fake_torch()
    kept = [a.copy() for _ in range(3)]
    results = [kernel.call_tensors(torch, on_device(x, b)).array for x in kept]
    assert all((result == results[0]).all() for result in results)


def test_tensor_maps_that_the_driver_does_not_make(stub: Stub) -> None:
    found = Driver(stub.functions)
    zeros = found.tensor_map("bfloat16", 64, (0, 64), (128,), (64, 64))
    assert zeros.content() == bytes(128)
    assert "cuTensorMapEncodeTiled" not in stub.names()
    stub.fail(1)
    with pytest.raises(
        DeviceError, match=r"cuTensorMapEncodeTiled: .*extents \[8, 64\]"
    ):
        found.tensor_map("bfloat16", 64, (8, 64), (128,), (64, 64))
    found._functions["cuTensorMapEncodeTiled"] = None
    with pytest.raises(DeviceError, match="too old: no cuTensorMapEncodeTiled"):
        found.tensor_map("bfloat16", 64, (8, 64), (128,), (64, 64))


SHARED = LAUNCH.replace("256 : i32", "100000 : i32")


def test_much_shared_memory_is_asked_for_once(stub: Stub) -> None:
    compilation = compile_for_cuda(parsed(function(SHARED)), "f").compilation
    symbols = compilation.host.signature.symbols
    entries = loader.loaded(compilation.host.code, symbols)
    kernel = CudaKernel(compilation, entries, Driver(stub.functions))
    stub.reset(kernel.launches[0].words)
    for _ in range(2):
        kernel.call_tensors(fake_torch(), on_device(normal(70)))
    (words,) = [words for name, words in stub.calls() if name == "cuFuncSetAttribute"]
    assert words == [1, 8, 100000]
    launches = [words for name, words in stub.calls() if name == "cuLaunchKernel"]
    assert [words[:8] for words in launches] == [[1, 3, 1, 1, 32, 1, 1, 100000]] * 2


def test_arrays_are_copied_to_the_device_and_back(stub: Stub) -> None:
    arrays = [normal(2, 9, 8) for _ in range(3)]
    kernel = emulating(stub, moa.attention, *arrays)
    np.testing.assert_allclose(kernel(*arrays), moa.attention(*arrays), atol=1e-6)
    names = stub.names()
    assert [names.count(f"cuMem{what}_v2") for what in ("cpyHtoD", "cpyDtoH")] == [3, 1]
    assert names.count("cuMemAlloc_v2") == names.count("cuMemFree_v2") == 4
    assert names[-1] == "cuCtxPopCurrent_v2"


def test_failed_checks_of_arrays_that_are_copied(stub: Stub) -> None:
    arrays = [np.array([0, 4, 2]), normal(5)]
    kernel = emulating(stub, gathered, *arrays)
    np.testing.assert_array_equal(kernel(*arrays), arrays[1][arrays[0]])
    with pytest.raises(IndexRangeError, match="got 6"):
        kernel(np.array([0, 6, 2]), arrays[1])
    names = stub.names()
    assert names.count("cuMemAlloc_v2") == names.count("cuMemFree_v2") == 8


def test_a_failed_check_on_tensors_is_raised_by_the_next_call(stub: Stub) -> None:
    indices, x = np.array([0, 4, 2]), normal(5)
    kernel = emulating(stub, gathered, indices, x)
    wrong = np.array([0, 6, 2])
    result = kernel.call_tensors(fake_torch(), on_device(wrong, x))
    np.testing.assert_array_equal(result.array[::2], x[[0, 2]])
    with pytest.raises(IndexRangeError, match=r"got 6.* \(in an earlier call\)"):
        kernel.call_tensors(fake_torch(), on_device(indices, x))
    result = kernel.call_tensors(fake_torch(), on_device(indices, x))
    np.testing.assert_array_equal(result.array, x[indices])
    names = stub.names()
    assert names.count("cuMemHostAlloc") == 1
    assert not {"cuMemcpyDtoH_v2", "cuMemAlloc_v2"} & {*names}


def test_memory_is_freed_and_the_context_left_if_a_launch_fails(stub: Stub) -> None:
    array = normal(5)
    kernel = kernel_of(lambda a: a * a, array, found=Driver(stub.functions))
    kernel(array)
    stub.reset()
    driver = kernel._driver
    assert driver is not None
    launch = driver.launch
    driver.launch = lambda *_: 719
    with pytest.raises(DeviceError, match="launch of main_kernel: STUB, STUB"):
        kernel(array)
    names = stub.names()
    assert names.count("cuMemAlloc_v2") == names.count("cuMemFree_v2") == 2
    assert names[-1] == "cuCtxPopCurrent_v2"
    with pytest.raises(DeviceError, match="launch of main_kernel"):
        kernel.call_tensors(fake_torch(), on_device(array))
    assert stub.names()[-1] == "cuCtxPopCurrent_v2"
    driver.launch = launch


def test_code_the_driver_does_not_take(stub: Stub) -> None:
    driver = Driver(stub.functions)
    stub.fail(218)
    with pytest.raises(DeviceError, match="cuModuleLoadData: STUB, STUB"):
        driver.load(b"none")
    with pytest.raises(DeviceError, match="cuMemAlloc_v2: STUB"):
        driver.allocate(10)
    assert driver.current_device() == 0
    with pytest.raises(DeviceError, match="cuInit: STUB"):
        Driver(stub.functions)


def test_calls_from_several_threads(stub: Stub) -> None:
    arrays = [normal(2, 3, 4) for _ in range(3)]
    kernel = emulating(stub, lambda a: a + a, arrays[0])
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        (tensor,) = on_device(arrays[number])
        for _ in range(20):
            found[number] = kernel.call_tensors(fake_torch(), [tensor]).array

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(found[number], array + array)


def test_how_long_a_call_takes(
    stub: Stub, record_property: Callable[[str, object], None]
) -> None:
    """Only reported: what it is on a busy machine says nothing."""
    arrays = [normal(2, 9, 8) for _ in range(3)]
    kernel = kernel_of(moa.attention, *arrays, found=Driver(stub.functions))
    torch, tensors = fake_torch(), on_device(*arrays)
    kernel.call_tensors(torch, tensors)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(50):
            kernel.call_tensors(torch, tensors)
        best = min(best, (time.perf_counter() - start) / 50)
        stub.reset()
    frame, _, _ = kernel.planned(
        [1, 1, 1], [], lambda n, s: (None, 1), lambda n: (0, 0)
    )
    pure = min(_timed(kernel, frame) for _ in range(20))
    record_property("microseconds", best * 1e6)
    print(
        f"a call with stub tensors: {best * 1e6:.1f} us; its launch: {pure * 1e6:.1f} us"
    )


def _timed(kernel: CudaKernel, frame: Any) -> float:
    driver = kernel._driver
    assert driver is not None
    start = time.perf_counter()
    for _ in range(50):
        driver.enter(driver.context(0))
        kernel._launch(driver, 0, frame, 0)
        driver.leave()
    return (time.perf_counter() - start) / 50


# Calls after the first one: planned and launched by machine code.


def failing_launch(stub: Stub, error: int) -> tuple[Driver, Any]:
    """A driver whose launches fail after the first, and what must stay alive."""
    calls: list[int] = []

    def launch(*arguments: Any) -> int:
        calls.append(1)
        return error if len(calls) > 1 else 0

    kept = ctypes.CFUNCTYPE(ctypes.c_int, *cuda_driver._ARGUMENTS["cuLaunchKernel"])
    kept = kept(launch)
    address = ctypes.cast(kept, ctypes.c_void_p).value or 0
    return Driver({**stub.functions, "cuLaunchKernel": address}), kept


def test_calls_after_the_first_ask_the_driver_for_the_same(stub: Stub) -> None:
    tensors = on_device(normal(7, 5), normal(5, 300))
    arrays = [tensor.array for tensor in tensors]
    kernel = kernel_of(
        lambda a, b: a @ b, *arrays, found=Driver(stub.functions), fuse=False
    )
    launches: list[list[int]] = []
    for number in range(3):
        stub.reset(kernel.launches[0].words)
        result = kernel.call_tensors(fake_torch(), tensors)
        assert result.shape == (7, 300)
        (launch,) = [words for name, words in stub.calls() if "Launch" in name]
        place = result.data_ptr()
        # The pointers to arguments are those of the plan.
        launches.append([0 if word == place else word for word in launch])
        if number:
            assert stub.names() == [
                "cuCtxPushCurrent_v2",
                "cuLaunchKernel",
                "cuCtxPopCurrent_v2",
            ]
    assert launches[1] == launches[2] == launches[0]


def test_scratch_memory_is_asked_for_as_the_call_before_needed_it(stub: Stub) -> None:
    compilation = compile_for_cuda(parsed(REVERSED), "f").compilation
    symbols = compilation.host.signature.symbols
    entries = loader.loaded(compilation.host.code, symbols)
    kernel = CudaKernel(compilation, entries, Driver(stub.functions))
    asked: list[int] = []
    torch = fake_torch()
    empty = torch.empty

    def recording(shape: Any, dtype: Any, device: str) -> FakeTensor:
        if dtype is DTYPES["uint8"]:
            asked.append(shape)
        return empty(shape, dtype, device)

    torch.empty = recording
    (tensor,) = on_device(normal(300))
    for _ in range(3):
        kernel.call_tensors(torch, [tensor])
    kernel._needed = 8  # too little for this call
    kernel.call_tensors(torch, [tensor])
    size = asked[0]
    assert size >= 300 * 4
    assert asked == [size, size, size, 8, size]
    assert stub.names().count("cuLaunchKernel") == 8


def test_a_launch_that_needs_more_shared_memory_than_those_before(stub: Stub) -> None:
    compilation = compile_for_cuda(parsed(function(SHARED)), "f").compilation
    symbols = compilation.host.signature.symbols
    entries = loader.loaded(compilation.host.code, symbols)
    kernel = CudaKernel(compilation, entries, Driver(stub.functions))
    kernel.call_tensors(fake_torch(), on_device(normal(70)))
    (frame,) = kernel._plans
    frame.orders[0].words[-1] = 4096
    stub.reset()
    kernel.call_tensors(fake_torch(), on_device(normal(70)))
    assert stub.names().count("cuLaunchKernel") == 1
    assert frame.orders[0].words[-1] == 100000


def test_a_launch_that_fails_after_others(stub: Stub) -> None:
    found, kept = failing_launch(stub, 719)
    kernel = kernel_of(lambda a: a * a, normal(5), found=found)
    (a,) = on_device(normal(5))
    kernel.call_tensors(fake_torch(), [a])
    stub.reset()
    with pytest.raises(DeviceError, match="launch of main_kernel: STUB, STUB"):
        kernel.call_tensors(fake_torch(), [a])
    assert [name for name in stub.names() if "Ctx" in name] == [
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
    ]
    del kept


def test_a_context_that_the_driver_does_not_take(stub: Stub) -> None:
    kernel = kernel_of(lambda a: a * a, normal(5), found=Driver(stub.functions))
    (a,) = on_device(normal(5))
    kernel.call_tensors(fake_torch(), [a])
    stub.reset()
    stub.fail(201)
    with pytest.raises(DeviceError, match="cuCtxPushCurrent: STUB"):
        kernel.call_tensors(fake_torch(), [a])
    assert "cuLaunchKernel" not in stub.names()


def test_tensor_maps_of_calls_after_the_first(stub: Stub) -> None:
    a, b = (normal(*shape).astype(ml_dtypes.bfloat16) for shape in ((70, 72), (72, 24)))
    schedule = "j=grid,block:24;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"
    kernel = kernel_of(
        lambda a, b: a @ b, a, b, found=Driver(stub.functions), schedule=schedule
    )
    (launch,) = kernel.launches
    maps = launch.parameters()[1]
    given = on_device(a, b)
    for left in (*given, on_device(a.copy())[0]):
        tensors = [left, given[1]] if left.shape == (70, 72) else given
        stub.reset(len(launch.parameters()[0]))
        kernel.call_tensors(fake_torch(), tensors)
        (words,) = [words for name, words in stub.calls() if "Launch" in name]
        # The stub's maps begin with the address of the array.
        places = [words[11 + place] for place, *_ in maps]
        assert places == [tensor.data_ptr() for tensor in tensors]
    assert stub.names().count("cuTensorMapEncodeTiled") == 1


def test_extents_that_do_not_fit_after_some_that_did(stub: Stub) -> None:
    spec = moa.ArraySpec((None, None), np.float32)
    kernel = kernel_of(
        lambda a, b: a @ b, specs=[spec] * 2, found=Driver(stub.functions)
    )
    for rows in (2, 3):
        result = kernel.call_tensors(
            fake_torch(), on_device(normal(rows, 4), normal(4, 5))
        )
        assert result.shape == (rows, 5)
    with pytest.raises(ShapeError):
        kernel.call_tensors(fake_torch(), on_device(normal(2, 3), normal(4, 5)))
    assert stub.names().count("cuLaunchKernel") == 2


# Calls through moa.jit.


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = fake_torch()
    monkeypatch.setitem(sys.modules, "torch", found)
    return found


def with_driver(program: Jit, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Jit:
    found = Driver(stub.functions)
    monkeypatch.setattr("moa_dialect.lowering.cuda.driver", lambda: found)
    return program


@pytest.fixture
def add(stub: Stub, torch: Any, monkeypatch: pytest.MonkeyPatch) -> Jit:
    program = moa.jit(lambda a, b: a + b, target="cuda")
    return with_driver(program, stub, monkeypatch)


def test_jit_takes_tensors_on_a_device(add: Jit, stub: Stub) -> None:
    a, b = on_device(normal(3, 4), normal(3, 4))
    result = add(a, b)
    assert isinstance(result, FakeTensor)
    assert result.shape == (3, 4)
    assert stub.names().count("cuLaunchKernel") == 1
    half = on_device(normal(3, dtype=BFLOAT16), normal(3, dtype=BFLOAT16))
    assert add(*half).dtype is DTYPES["bfloat16"]


def test_arrays_and_numbers_beside_tensors_are_copied(add: Jit, stub: Stub) -> None:
    (a,) = on_device(normal(3, 4))
    assert add(a, normal(3, 4)).device == "cuda:0"
    assert stub.names().count("cuLaunchKernel") == 1


def test_tensors_that_are_not_contiguous_are_copied(add: Jit, torch: Any) -> None:
    a, b = on_device(normal(4, 3).T, normal(3, 4))
    assert add(a, b).shape == (3, 4)
    strict = moa.jit(lambda a, b: a + b, target="cuda", copy=False)
    message = (
        r"argument 0 .a.: expected a contiguous tensor at a multiple of 16 bytes, "
        r"got strides \(1, 3\)"
    )
    with pytest.raises(LayoutError, match=message):
        strict(a, b)


def test_a_tensor_on_the_cpu(add: Jit) -> None:
    a, b = FakeTensor(normal(3)), FakeTensor(normal(3), "cpu")
    message = "argument 1: expected a tensor on a CUDA device, got cpu"
    with pytest.raises(LayoutError, match=message):
        add(a, b)


def test_tensors_on_the_cpu_before_others(add: Jit, stub: Stub) -> None:
    a, b = FakeTensor(normal(3)), FakeTensor(normal(3), "cpu")
    message = "argument 0: expected a tensor on a CUDA device, got cpu"
    for given in ((b, a), (b, b)):
        with pytest.raises(LayoutError, match=message):
            add(*given)
    add(a, a)
    for given in ((b, a), (b, b)):
        with pytest.raises(LayoutError, match=message):
            add(*given)
    assert stub.names().count("cuLaunchKernel") == 1


def test_a_tensor_on_another_device(add: Jit) -> None:
    a, b = FakeTensor(normal(3)), FakeTensor(normal(3), "cuda:1")
    message = (
        "argument 1: expected a tensor on device cuda:0, as the others, got cuda:1"
    )
    with pytest.raises(LayoutError, match=message):
        add(a, b)


def test_a_tensor_that_is_not_strided(add: Jit) -> None:
    a, b = on_device(normal(3), normal(3))
    b.layout = "torch.sparse_coo"
    with pytest.raises(
        LayoutError, match=r"expected a strided tensor, got torch\.sparse"
    ):
        add(a, b)


def test_a_tensor_that_requires_grad(add: Jit) -> None:
    a, b = on_device(normal(3), normal(3))
    b.requires_grad = True
    with pytest.raises(LayoutError, match=r"argument 1: .* does not require grad"):
        add(a, b)


def test_a_dtype_that_numpy_has_not(add: Jit) -> None:
    a, b = on_device(normal(3), normal(3))
    a.dtype = DTYPES["quint4"]
    with pytest.raises(DTypeError, match=r"unsupported tensor: torch\.quint4"):
        add(a, b)


def test_tensors_are_checked_like_arrays(add: Jit, torch: Any) -> None:
    compiled = add.lower(*[moa.ArraySpec((3, 4), np.float32)] * 2)
    a, b = on_device(normal(3, 4), normal(4, 4))
    with pytest.raises(ShapeError, match="argument 1 'b': expected extent 3 on axis 0"):
        compiled(a, b)
    with pytest.raises(
        DTypeError, match="argument 0 'a': expected float32, got float64"
    ):
        compiled(*on_device(normal(3, 4, dtype=float), normal(3, 4)))
    with pytest.raises(MoaError, match="expected 2 arguments, got 1"):
        compiled(a)


def test_attention_runs_where_the_tensors_are(
    stub: Stub, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Driver(stub.functions)
    monkeypatch.setattr("moa_dialect.lowering.cuda.driver", lambda: found)
    result = moa.attention(*on_device(*[normal(2, 5, 4) for _ in range(3)]))
    assert result.device == "cuda:0"
    assert stub.names().count("cuLaunchKernel") == 1


# The check on a GPU, as far as it goes without one.


class FakeLibrary:
    """The driver as gpu_check uses it: launches are emulated."""

    def __init__(self, text: str) -> None:
        self._emulator, self._names = Emulator(text), list[str]()
        self.attributes: list[tuple[int, int]] = []

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:
        return 0 if code.startswith(b"//") else 218

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        self._names.append(name.decode())
        function._obj.value = len(self._names)
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        *sizes, shared, _, pointers, _ = rest
        numbers = [size.value for size in sizes]
        words = [
            ctypes.c_int64.from_address(pointer).value
            for pointer in pointers
            if pointer
        ]
        name = self._names[function.value - 1]
        grid, block = tuple(numbers[:3]), tuple(numbers[3:])
        self._emulator.launch(name, grid, block, words, shared.value)
        return 0


def test_an_exported_case_runs_with_nothing_but_its_files(tmp_path: Path) -> None:
    program, (array,) = PROGRAMS["a scalar in every element"]
    case = gpu_check.Case(
        "mean", lambda _: program, [array.shape], "float32", lambda torch, x: x
    )
    (entry,) = gpu_check.export(tmp_path, [case], "sm_90a")
    assert json.loads((tmp_path / "cases.json").read_text()) == [entry]
    spec = moa.ArraySpec(array.shape, array.dtype)
    text = moa.jit(program, target="cuda", emulate=True).lower(spec)
    library = FakeLibrary(text.kernel.compilation.code.decode())
    result, memory = np.empty_like(array), np.empty(entry["scratch"], np.uint8)
    tensors = [FakeTensor(x) for x in (array, result, memory)]
    code = (tmp_path / "mean.ptx").read_bytes()
    launcher: Any = gpu_check.Launcher(library, code, entry, tensors, 0)  # pyright: ignore
    launcher()
    np.testing.assert_allclose(result, array - array.sum(), rtol=1e-5)
    with pytest.raises(RuntimeError, match="cuModuleLoadData: error 218"):
        gpu_check.Launcher(library, b"no", entry, tensors, 0)  # pyright: ignore


def test_every_case_of_the_check_can_be_compiled(tmp_path: Path) -> None:
    names = [case.name for case in gpu_check.CASES]
    assert len(set(names)) == len(names)
    assert gpu_check.main([str(tmp_path), "--export", "--only", "matmul_float64"]) == 0
    found = {path.stem for path in tmp_path.iterdir()}
    assert found == {"cases", "matmul_float64", "fast_matmul_float64"}


@pytest.fixture(autouse=True)
def _no_driver_is_kept() -> Iterator[None]:
    yield
    cuda_driver._loaded.cache_clear()
