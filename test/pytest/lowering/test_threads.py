"""moa-outline-tasks and the runtime: parallel loops on the threads of OpenMP."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context

import moa_dialect as moa
from moa_dialect.errors import CompileError, IndexRangeError, OptionError
from moa_dialect.lowering import compiler, engine, runtime
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects

HEADER = """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = memref.dim %a, %c0 : memref<?xf32>
"""

EXTENTS = """
func.func @f.extents(%a: memref<?xf32>) -> index {
  %c0 = arith.constant 0 : index
  %n = memref.dim %a, %c0 : memref<?xf32>
  func.return %n : index
}
"""


def parallel(body: str, bounds: str = "%c0, %n, %c1", attributes: str = "") -> str:
    return f"""
  "scf.parallel"({bounds}) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}> ({{
  ^bb0(%t: index):
    {body}
    scf.reduce
  }}) {{{attributes}}} : (index, index, index) -> ()
"""


def compiled(body: str, status: bool = False, checks: str = "") -> engine.Kernel:
    """A function @f from an array to one of its extent, at the target stage."""
    last = ", %status: memref<3xi64> {moa.status}" if status else ""
    attributes = f"attributes {{moa.checks = [{checks}]}}" if status else ""
    text = f"""
func.func @f(%a: memref<?xf32>, %b: memref<?xf32> {{moa.result}}{last}) {attributes} {{
{HEADER}
{body}
  func.return
}}
{EXTENTS}"""
    context = Context()
    register_dialects(context)
    return engine.kernel_of(ModuleParser(context, text).parse_module(), "f")


TWICE = """
    %x = memref.load %a[%t] : memref<?xf32>
    %y = arith.addf %x, %x : f32
    memref.store %y, %b[%t] : memref<?xf32>
"""

# Task t adds up the numbers a[0] to a[t] in f32, which depends on the order.
PREFIX_SUMS = """
    %last = arith.addi %t, %c1 : index
    %zero = arith.constant 0.0 : f32
    %sum = scf.for %i = %c0 to %last step %c1 iter_args(%s = %zero) -> (f32) {
      %x = memref.load %a[%i] : memref<?xf32>
      %next = arith.addf %s, %x : f32
      scf.yield %next : f32
    }
    memref.store %sum, %b[%t] : memref<?xf32>
"""


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    yield
    moa.set_num_threads(None)


def run_python(code: str, **environment: str) -> list[str]:
    """The lines that a new process prints, with this file's names at hand."""
    source = f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    source += "from test_threads import *\n" + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env=os.environ | {"MOA_CACHE": "0"} | environment,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n")[:-1]


# What is computed


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_results_are_the_same_for_any_number_of_threads(count: int):
    kernel = compiled(parallel(PREFIX_SUMS))
    a = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    expected = np.array([a[: t + 1].cumsum()[-1] for t in range(count)], np.float32)
    for threads in (1, 2, 3, 7):
        moa.set_num_threads(threads)
        np.testing.assert_array_equal(kernel(a), expected)


@pytest.mark.skipif(runtime.openmp() is None, reason="needs OpenMP")
def test_threads_flush_small_numbers_if_the_caller_does():
    torch: Any = pytest.importorskip("torch")
    # Each task takes a while, so that the other threads get some of them.
    kernel = compiled(
        parallel("""
    %times = arith.constant 20000 : index
    %x = memref.load %a[%t] : memref<?xf32>
    %half = arith.constant 0.5 : f32
    %twice = arith.constant 2.0 : f32
    %same = scf.for %i = %c0 to %times step %c1 iter_args(%s = %x) -> (f32) {
      %less = arith.mulf %s, %half : f32
      %more = arith.mulf %less, %twice : f32
      scf.yield %more : f32
    }
    memref.store %same, %b[%t] : memref<?xf32>
""")
    )
    moa.set_num_threads(4)
    a = np.full(400, 2.0**-126, np.float32)
    np.testing.assert_array_equal(kernel(a), a)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        flushed = kernel(a)
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(np.asarray(flushed).view(np.int32), 0)
    np.testing.assert_array_equal(kernel(a), a)


def test_bounds_may_start_anywhere_and_step():
    kernel = compiled(
        """
  %c3 = arith.constant 3 : index
  scf.for %i = %c0 to %n step %c1 {
    %x = arith.constant 7.0 : f32
    memref.store %x, %b[%i] : memref<?xf32>
  }
"""
        + parallel(TWICE, "%c1, %n, %c3")
    )
    moa.set_num_threads(2)
    a = np.arange(101, dtype=np.float32)
    expected = np.full(101, 7, np.float32)
    expected[1::3] = 2 * a[1::3]
    np.testing.assert_array_equal(kernel(a), expected)


def test_what_is_used_from_outside_arrives(monkeypatch: pytest.MonkeyPatch):
    if "convert-vector-to-llvm" not in compiler.WITHOUT_WRAPPERS:
        with_vectors = compiler.WITHOUT_WRAPPERS.replace(
            "convert-scf-to-cf", "convert-vector-to-llvm,convert-scf-to-cf"
        )
        monkeypatch.setattr(compiler, "WITHOUT_WRAPPERS", with_vectors)
    kernel = compiled(
        """
  %x0 = memref.load %a[%c0] : memref<?xf32>
  %half = arith.truncf %x0 : f32 to bf16
  %wide = arith.extf %x0 : f32 to f64
  %lanes = vector.broadcast %x0 : f32 to vector<16xf32>
  %rows = vector.broadcast %x0 : f32 to vector<2x4xf32>
  %small = arith.fptosi %x0 : f32 to i8
  %yes = arith.cmpi sgt, %n, %c0 : index
  %last = arith.subi %n, %c1 : index
"""
        + parallel("""
    %r0 = arith.extf %half : bf16 to f32
    %r1 = arith.truncf %wide : f64 to f32
    %r2 = "vector.reduction"(%lanes) <{kind = #vector.kind<add>}> : (vector<16xf32>) -> f32
    %row = "vector.extract"(%rows) <{static_position = array<i64: 1>}> : (vector<2x4xf32>) -> vector<4xf32>
    %r3 = "vector.reduction"(%row) <{kind = #vector.kind<add>}> : (vector<4xf32>) -> f32
    %r4 = arith.sitofp %small : i8 to f32
    %i = arith.index_cast %last : index to i64
    %r5 = arith.sitofp %i : i64 to f32
    %z = arith.constant 0.0 : f32
    %r6 = arith.select %yes, %r5, %z : f32
    %s1 = arith.addf %r0, %r1 : f32
    %s2 = arith.addf %s1, %r2 : f32
    %s3 = arith.addf %s2, %r3 : f32
    %s4 = arith.addf %s3, %r4 : f32
    %s5 = arith.addf %s4, %r6 : f32
    memref.store %s5, %b[%t] : memref<?xf32>
""")
    )
    moa.set_num_threads(2)
    a = np.full(40, 2, np.float32)
    np.testing.assert_array_equal(kernel(a), np.full(40, 2 * 23 + 39, np.float32))


def test_two_loops_in_one_function_and_one_in_another_loop():
    body = parallel(TWICE) + """
  %c2 = arith.constant 2 : index
  scf.for %again = %c0 to %c2 step %c1 {""" + parallel("""
    %p = memref.load %b[%t] : memref<?xf32>
    %q = arith.addf %p, %p : f32
    memref.store %q, %b[%t] : memref<?xf32>
""") + "}"  # fmt: skip
    kernel = compiled(body)
    moa.set_num_threads(2)
    a = np.arange(50, dtype=np.float32)
    np.testing.assert_array_equal(kernel(a), 8 * a)


def test_a_loop_inside_of_a_task_is_a_part_of_it():
    inner = """
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%u: index):
    %x = memref.load %a[%u] : memref<?xf32>
    memref.store %x, %b[%u] : memref<?xf32>
    scf.reduce
  }) : (index, index, index) -> ()
"""
    kernel = compiled(parallel(inner, "%c0, %c1, %c1"))
    a = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(kernel(a), a)


@pytest.mark.parametrize("threads", [1, 3])
def test_stack_memory_of_a_task_is_free_at_its_end(threads: int):
    # 64 KiB in each of 4000 tasks: more than any stack, if it were kept.
    kernel = compiled(
        parallel("""
    %size = arith.constant 16384 : index
    %tile = memref.alloca(%size) : memref<?xf32>
    %x = memref.load %a[%t] : memref<?xf32>
    memref.store %x, %tile[%c1] : memref<?xf32>
    %y = memref.load %tile[%c1] : memref<?xf32>
    scf.for %i = %c0 to %c1 step %c1 {
      %extent = arith.addi %i, %size : index
      %other = memref.alloca(%extent) : memref<?xf32>
      memref.store %y, %other[%t] : memref<?xf32>
      %z = memref.load %other[%t] : memref<?xf32>
      memref.store %z, %b[%t] : memref<?xf32>
    }
""")
    )
    moa.set_num_threads(threads)
    a = np.arange(4000, dtype=np.float32)
    np.testing.assert_array_equal(kernel(a), a)


def test_what_upstream_does_not_lower_is_an_error():
    with pytest.raises(CompileError, match=r"^upstream does not lower gpu\.barrier$"):
        compiled('"gpu.barrier"() : () -> ()')


# What is reported

BELOW_LIMIT = """
    %x = memref.load %a[%t] : memref<?xf32>
    %given = arith.fptosi %x : f32 to i64
    %limit = arith.constant 10 : i64
    %outside = arith.cmpi sge, %given, %limit : i64
    %so_far = memref.load %status[%c0] : memref<3xi64>
    %none = arith.constant 0 : i64
    %is_first = arith.cmpi eq, %so_far, %none : i64
    %report = arith.andi %outside, %is_first : i1
    scf.if %report {
      %number = arith.constant 1 : i64
      %c2 = arith.constant 2 : index
      memref.store %number, %status[%c0] : memref<3xi64>
      memref.store %given, %status[%c1] : memref<3xi64>
      memref.store %limit, %status[%c2] : memref<3xi64>
    }
    memref.store %x, %b[%t] : memref<?xf32>
"""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_failed_check_is_reported(threads: int):
    kernel = compiled(
        parallel(BELOW_LIMIT),
        status=True,
        checks='"lt: psi: index entry {given}: expected less than {expected}"',
    )
    moa.set_num_threads(threads)
    a = np.zeros(1000, np.float32)
    np.testing.assert_array_equal(kernel(a), a)
    a[300:] = np.arange(700) + 20
    for _ in range(20):
        with pytest.raises(IndexRangeError) as error:
            kernel(a)
        assert "20" in str(error.value)
        assert "10" in str(error.value)
    a[300:] = 0
    np.testing.assert_array_equal(kernel(a), a)


# Which threads

COUNT_THREADS = """
    def threads():
        return len(os.listdir("/proc/self/task"))
    kernel = compiled(parallel(TWICE, attributes=ATTRIBUTES))
    before = threads()
    kernel(np.zeros(1000, np.float32))
    print(threads() - before)
"""

only_linux = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="counts threads in /proc"
)


@only_linux
@pytest.mark.skipif(runtime.openmp() is None, reason="needs OpenMP")
def test_omp_num_threads_is_respected():
    code = COUNT_THREADS.replace("ATTRIBUTES", "''")
    assert run_python(code, OMP_NUM_THREADS="3") == ["2"]
    assert run_python(code, OMP_NUM_THREADS="1") == ["0"]


@only_linux
@pytest.mark.skipif(runtime.openmp() is None, reason="needs OpenMP")
def test_little_work_stays_in_the_calling_thread():
    code = COUNT_THREADS.replace("ATTRIBUTES", "'moa.work = WORK : i64'")
    # 1000 tasks of 19 stay below the threshold of 20,000.
    assert run_python(code.replace("WORK", "19"), OMP_NUM_THREADS="3") == ["0"]
    assert run_python(code.replace("WORK", "20"), OMP_NUM_THREADS="3") == ["2"]


@pytest.mark.skipif(runtime.openmp() is None, reason="needs OpenMP")
def test_torch_set_num_threads_is_respected():
    torch: Any = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert moa.get_num_threads() == 3
        moa.set_num_threads(2)
        assert moa.get_num_threads() == 2
        assert torch.get_num_threads() == 3
        moa.set_num_threads(None)
        assert moa.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@only_linux
def test_torch_and_moa_use_one_library():
    pytest.importorskip("torch")
    lines = run_python("""
        kernel = compiled(parallel(TWICE))
        kernel(np.zeros(1000, np.float32))
        import torch
        torch.relu(torch.randn(1 << 20)) + 1
        maps = open("/proc/self/maps").read().split()
        print(len({word for word in maps if "libgomp" in word}))
    """)
    assert lines == ["1"]


def test_without_openmp_kernels_run_in_the_calling_thread():
    lines = run_python("""
        runtime._candidates = lambda: iter([None, "/no/such/library.so"])
        runtime.openmp.cache_clear()
        import ctypes
        has = hasattr(ctypes.CDLL(None), "GOMP_parallel")
        assert not has, "the test needs a process without OpenMP"
        moa.set_num_threads(4)
        kernel = compiled(parallel(TWICE))
        print(kernel(np.arange(4, dtype=np.float32)).tolist(), moa.get_num_threads())
    """)
    assert lines == ["[0.0, 2.0, 4.0, 6.0] 1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_uses_one_thread():
    lines = run_python("""
        import warnings
        warnings.simplefilter("ignore")
        kernel = compiled(parallel(TWICE))
        moa.set_num_threads(2)
        a = np.arange(1000, dtype=np.float32)
        kernel(a)
        child = os.fork()
        if child == 0:
            moa.set_num_threads(2)
            right = np.array_equal(kernel(a), 2 * a)
            os._exit(0 if right and moa.get_num_threads() == 1 else 1)
        print(os.waitpid(child, 0)[1], moa.get_num_threads())
    """)
    assert lines == [f"0 {2 if runtime.openmp() else 1}"]


def test_several_python_threads_may_call_at_once():
    kernel = compiled(parallel(PREFIX_SUMS))
    moa.set_num_threads(2)

    def check(seed: int) -> bool:
        a = np.random.default_rng(seed).standard_normal(200).astype(np.float32)
        expected = np.array([a[: t + 1].cumsum()[-1] for t in range(200)], np.float32)
        return all(np.array_equal(kernel(a), expected) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(8)))


@pytest.mark.parametrize("number", [0, -1, 1025, 2.0, True, "2"])
def test_a_number_of_threads_is_a_small_positive_integer(number: Any):
    with pytest.raises(OptionError) as error:
        moa.set_num_threads(number)
    assert str(error.value) == (
        f"set_num_threads: expected None or an integer from 1 to 1024, got {number!r}"
    )
