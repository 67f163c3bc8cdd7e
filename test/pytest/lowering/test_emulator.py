"""The emulator: GPU kernels on the CPU, and what it reports of those that are wrong."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError

from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering import upstream
from moa_dialect.lowering.emulator import ORDERS, Emulator
from moa_dialect.lowering.unregistered import GenericParser, bare_context

Array = npt.NDArray[Any]

WG = "#gpu.address_space<workgroup>"


def module(body: str) -> str:
    return f"module attributes {{gpu.container_module}} {{ gpu.module @kernels {{\n{body}\n}} }}"


emulator = cache(Emulator)
"""Kernels are compiled once for all orders and inputs."""


def words(*arguments: Array | int) -> list[int]:
    """The words of memrefs and numbers."""
    found: list[int] = []
    for each in arguments:
        if isinstance(each, int):
            found.append(each)
        else:
            address = each.ctypes.data
            strides = (step // each.itemsize for step in each.strides)
            found += (address, address, 0, *each.shape, *strides)
    return found


def matmul(dtype: str, first: str = "gpu.barrier", second: str = "gpu.barrier") -> str:
    """The product c of a and b by tiles of 16 x 16 in workgroup memory."""
    tile = f"memref<16x16x{dtype}, {WG}>"
    a, b, c = (f"memref<?x?x{dtype}>" for _ in range(3))
    return module(f"""
  gpu.func @matmul(%a: {a}, %b: {b}, %c: {c}) workgroup(%s: {tile}, %t: {tile}) kernel {{
    %tx = gpu.thread_id x
    %ty = gpu.thread_id y
    %bx = gpu.block_id x
    %by = gpu.block_id y
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c16 = arith.constant 16 : index
    %n = memref.dim %a, %c1 : {a}
    %zero = arith.constant 0.0 : {dtype}
    %i0 = arith.muli %by, %c16 : index
    %i = arith.addi %i0, %ty : index
    %j0 = arith.muli %bx, %c16 : index
    %j = arith.addi %j0, %tx : index
    %r = scf.for %k = %c0 to %n step %c16 iter_args(%acc = %zero) -> ({dtype}) {{
      %ka = arith.addi %k, %tx : index
      %kb = arith.addi %k, %ty : index
      %x = memref.load %a[%i, %ka] : {a}
      %y = memref.load %b[%kb, %j] : {b}
      memref.store %x, %s[%ty, %tx] : {tile}
      memref.store %y, %t[%ty, %tx] : {tile}
      {first}
      %q = scf.for %l = %c0 to %c16 step %c1 iter_args(%ac = %acc) -> ({dtype}) {{
        %u = memref.load %s[%ty, %l] : {tile}
        %v = memref.load %t[%l, %tx] : {tile}
        %p = arith.mulf %u, %v : {dtype}
        %m = arith.addf %ac, %p : {dtype}
        scf.yield %m : {dtype}
      }}
      {second}
      scf.yield %q : {dtype}
    }}
    memref.store %r, %c[%i, %j] : {c}
    gpu.return
  }}""")


def multiply(text: str, dtype: str, order: str, k: int = 32) -> tuple[Array, Array]:
    """What the kernel gives for random matrices, and what NumPy does."""
    random = np.random.default_rng(0)
    a = random.standard_normal((64, k)).astype(dtype)
    b = random.standard_normal((k, 48)).astype(dtype)
    c = np.zeros((64, 48), dtype)
    emulator(text).launch("matmul", (3, 4, 1), (16, 16, 1), words(a, b, c), order=order)
    return c, a @ b


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("dtype", "name"), [("f32", "float32"), ("f64", "float64")])
def test_matmul_by_tiles(dtype: str, name: str, order: str):
    given, expected = multiply(matmul(dtype), name, order)
    tolerance = 1e-5 if dtype == "f32" else 1e-14
    np.testing.assert_allclose(given, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("order", ORDERS)
def test_missing_barrier_after_stores_reads_garbage(order: str):
    given, _ = multiply(matmul("f32", first=""), "float32", order, k=16)
    assert np.isnan(given).any()


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_missing_barrier_before_stores_shows(order: str):
    given, expected = multiply(matmul("f32", second=""), "float32", order)
    assert not np.allclose(given, expected, atol=1e-3)


ROWS = """
  gpu.func @rows(%a: memref<?x128xf32>, %sums: memref<?xf32>) kernel {
    %lane = gpu.lane_id
    %tx = gpu.thread_id x
    %bx = gpu.block_id x
    %bd = gpu.block_dim x
    %c0 = arith.constant 0 : index
    %c32 = arith.constant 32 : index
    %c128 = arith.constant 128 : index
    %width = arith.constant 32 : i32
    %zero = arith.constant 0.0 : f32
    %w = arith.divui %tx, %c32 : index
    %warps = arith.divui %bd, %c32 : index
    %r0 = arith.muli %bx, %warps : index
    %r = arith.addi %r0, %w : index
    %own = scf.for %j = %lane to %c128 step %c32 iter_args(%s = %zero) -> (f32) {
      %x = memref.load %a[%r, %j] : memref<?x128xf32>
      %y = arith.addf %s, %x : f32
      scf.yield %y : f32
    }
    BUTTERFLY
    memref.store %s1, %sums[%r] : memref<?xf32>
    gpu.return
  }"""


def rows_text(offsets: tuple[int, ...] = (16, 8, 4, 2, 1)) -> str:
    lines: list[str] = []
    last = "%own"
    for k in offsets:
        lines += [
            f"%o{k} = arith.constant {k} : i32",
            f"%x{k}, %p{k} = gpu.shuffle xor {last}, %o{k}, %width : f32",
            f"%s{k} = arith.addf {last}, %x{k} : f32",
        ]
        last = f"%s{k}"
    return module(ROWS.replace("BUTTERFLY", "\n".join(lines)))


def row_sums(text: str, order: str = "forward") -> tuple[Array, Array]:
    a = np.random.default_rng(1).standard_normal((8, 128)).astype("f")
    sums = np.zeros(8, "f")
    emulator(text).launch("rows", (4, 1, 1), (64, 1, 1), words(a, sums), order=order)
    return sums, a.sum(1)


@pytest.mark.parametrize("order", ORDERS)
def test_row_sums_by_butterflies(order: str):
    sums, expected = row_sums(rows_text(), order)
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)


def test_butterfly_without_a_stage_is_wrong():
    sums, expected = row_sums(rows_text((16, 4, 2, 1)))
    assert not np.allclose(sums, expected, rtol=1e-2)


def shuffled(mode: str, offset: int, dtype: str = "f32") -> tuple[Array, Array]:
    """Values and flags of a shuffle of lane numbers."""
    text = module(f"""
  gpu.func @f(%v: memref<32x{dtype}>, %p: memref<32xi32>) kernel {{
    %t = gpu.thread_id x
    %o = arith.constant {offset} : i32
    %w = arith.constant 32 : i32
    %x = memref.load %v[%t] : memref<32x{dtype}>
    %y, %valid = gpu.shuffle {mode} %x, %o, %w : {dtype}
    %flag = arith.extui %valid : i1 to i32
    memref.store %y, %v[%t] : memref<32x{dtype}>
    memref.store %flag, %p[%t] : memref<32xi32>
    gpu.return
  }}""")
    values = np.arange(32).astype({"f32": "f", "f64": "d", "i32": "i"}[dtype])
    flags = np.zeros(32, np.int32)
    emulator(text).launch("f", (1, 1, 1), (32, 1, 1), words(values, flags))
    return values, flags


LANES = np.arange(32)


@pytest.mark.parametrize("dtype", ["f32", "i32", "f64"])
@pytest.mark.parametrize(
    ("mode", "offset", "expected"),
    [
        ("xor", 5, LANES ^ 5),
        ("idx", 7, np.full(32, 7)),
        ("up", 3, np.where(LANES >= 3, LANES - 3, LANES)),
        ("down", 4, np.where(LANES < 28, LANES + 4, LANES)),
    ],
)
def test_shuffles(mode: str, offset: int, expected: Array, dtype: str):
    values, flags = shuffled(mode, offset, dtype)
    assert list(values) == list(expected)
    stays = (mode == "up") & (LANES < 3) | (mode == "down") & (LANES >= 28)
    assert list(flags) == list(1 - stays)


PLACES = """
  gpu.func @places(%out: memref<?xindex>) kernel {
    %tx = gpu.thread_id x
    %ty = gpu.thread_id y
    %tz = gpu.thread_id z
    %bx = gpu.block_id x
    %by = gpu.block_id y
    %bz = gpu.block_id z
    %dx = gpu.block_dim x
    %dy = gpu.block_dim y
    %dz = gpu.block_dim z
    %gx = gpu.grid_dim x
    %gy = gpu.grid_dim y
    %a0 = arith.muli %bz, %gy : index
    %a1 = arith.addi %a0, %by : index
    %a2 = arith.muli %a1, %gx : index
    %a3 = arith.addi %a2, %bx : index
    %a4 = arith.muli %a3, %dz : index
    %a5 = arith.addi %a4, %tz : index
    %a6 = arith.muli %a5, %dy : index
    %a7 = arith.addi %a6, %ty : index
    %a8 = arith.muli %a7, %dx : index
    %a9 = arith.addi %a8, %tx : index
    memref.store %a9, %out[%a9] : memref<?xindex>
    gpu.return
  }"""


def test_each_thread_knows_its_place():
    out = np.full(2 * 3 * 2 * 5 * 3 * 2, -1, np.int64)
    Emulator(module(PLACES)).launch("places", (2, 3, 2), (5, 3, 2), words(out))
    assert list(out) == list(range(out.size))


DYNAMIC = f"""
  gpu.func @reversed(%a: memref<?xf32>) kernel {{
    %t = gpu.thread_id x
    %n = gpu.block_dim x
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %m = arith.subi %n, %c1 : index
    %u = arith.subi %m, %t : index
    %d = gpu.dynamic_shared_memory : memref<?xi8, {WG}>
    %s = memref.view %d[%c0][%n] : memref<?xi8, {WG}> to memref<?xf32, {WG}>
    %x = memref.load %a[%t] : memref<?xf32>
    memref.store %x, %s[%t] : memref<?xf32, {WG}>
    gpu.barrier
    %y = memref.load %s[%u] : memref<?xf32, {WG}>
    memref.store %y, %a[%t] : memref<?xf32>
    gpu.return
  }}"""


def test_dynamic_memory_of_a_block():
    a = np.arange(100, dtype="f")
    Emulator(module(DYNAMIC)).launch(
        "reversed", (1, 1, 1), (100, 1, 1), words(a), shared_bytes=400
    )
    assert list(a) == list(range(99, -1, -1))


def test_write_beyond_the_memory_of_a_block_is_reported():
    a = np.arange(100, dtype="f")
    with pytest.raises(
        KernelError, match=r"'reversed', block \(0, 0, 0\): a write beyond the 396"
    ):
        Emulator(module(DYNAMIC)).launch(
            "reversed", (1, 1, 1), (100, 1, 1), words(a), shared_bytes=396
        )


DIVERGENT = """
  gpu.func @divergent(%a: memref<?xf32>) kernel {
    %t = gpu.thread_id x
    %c40 = arith.constant 40 : index
    %z = arith.constant 0.0 : f32
    %low = arith.cmpi ult, %t, %c40 : index
    scf.if %low {
      gpu.barrier
      ELSE
    }
    gpu.return
  }"""


def test_threads_that_end_before_a_barrier_are_reported():
    text = module(DIVERGENT.replace("ELSE", ""))
    with pytest.raises(
        KernelError,
        match=r"kernel 'divergent', block \(0, 0, 0\): deadlock: 40 threads from 0 on "
        r"wait at nvvm.barrier0, number 1 in the kernel \(barrier 0\); "
        r"24 threads from 40 on ended",
    ):
        emulator(text).launch(
            "divergent", (1, 1, 1), (64, 1, 1), words(np.zeros(1, "f"))
        )


def test_lanes_of_a_warp_at_two_barriers_are_reported():
    text = module(
        DIVERGENT.replace(
            "ELSE", "} else {\n gpu.barrier\n memref.store %z, %a[%t] : memref<?xf32>"
        )
    )
    with pytest.raises(KernelError, match=r"deadlock: .*number 1 .*number 2"):
        emulator(text).launch(
            "divergent", (1, 1, 1), (64, 1, 1), words(np.zeros(1, "f"))
        )


def test_a_deadlock_leaves_the_emulator_usable():
    emulator = Emulator(module(DIVERGENT.replace("ELSE", "")))
    a = np.zeros(1, "f")
    with pytest.raises(KernelError):
        emulator.launch("divergent", (1, 1, 1), (64, 1, 1), words(a))
    emulator.launch("divergent", (2, 1, 1), (32, 1, 1), words(a))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "g"}, r"unknown kernel: expected one of places, got 'g'"),
        ({"words": [1]}, r"kernel 'places': expected 5 words, got 1"),
        (
            {"block": (2, 1024, 1)},
            r"expected 1 to 1024 threads in a block, got 2x1024x1",
        ),
        ({"grid": (-1, 1, 1)}, r"expected no negative number of blocks, got -1x1x1"),
        (
            {"shared_bytes": 240000},
            r"expected at most 232448 bytes of shared memory, got 240000",
        ),
        ({"order": "any"}, r"order: expected forward, reverse, random, got 'any'"),
    ],
)
def test_launches_that_do_not_fit(arguments: dict[str, Any], message: str):
    given: dict[str, Any] = {
        "kernel": "places",
        "grid": (1, 1, 1),
        "block": (32, 1, 1),
        "words": words(np.zeros(32, np.int64)),
    }
    with pytest.raises(KernelError, match=message):
        Emulator(module(PLACES)).launch(**given | arguments)


def test_a_block_of_another_size_than_the_kernel_says():
    text = module(
        "llvm.func @f() attributes {nvvm.kernel, nvvm.reqntid = array<i32: 64>} { llvm.return }"
    )
    emulator(text).launch("f", (1, 1, 1), (64, 1, 1), [])
    with pytest.raises(KernelError, match="expected blocks of 64 threads, got 32x1x1"):
        emulator(text).launch("f", (1, 1, 1), (32, 1, 1), [])


def test_an_operation_that_is_not_emulated():
    text = module(
        "llvm.func @f() attributes {nvvm.kernel} { nvvm.cluster.arrive.relaxed llvm.return }"
    )
    with pytest.raises(
        CompileError,
        match=r"kernel 'f': the emulator does not know nvvm.cluster.arrive.relaxed",
    ):
        Emulator(text)


def test_a_module_without_a_kernel():
    with pytest.raises(CompileError, match="emulator: the module has no kernel"):
        Emulator(module("llvm.func @f() { llvm.return }"))


def test_a_module_without_a_gpu_module():
    with pytest.raises(CompileError, match=r"expected one gpu.module, got 0 of them"):
        Emulator("module {}")


# Checks of each access.


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("first", "second"), [("", "gpu.barrier"), ("gpu.barrier", "")]
)
def test_races_are_reported_in_every_order(first: str, second: str, order: str):
    checked = Emulator(matmul("f32", first, second), checks=True)
    a, b, c = np.ones((16, 32), "f"), np.ones((32, 16), "f"), np.ones((16, 16), "f")
    with pytest.raises(
        KernelError,
        match=r"'matmul', block \(0, 0, 0\), thread \d+: a race: bytes of shared "
        r"memory that two warps access without a barrier: byte \d+, after "
        r"(thread \d+|reads of warp \d+)",
    ):
        checked.launch("matmul", (1, 1, 1), (16, 16, 1), words(a, b, c), order=order)


@pytest.mark.parametrize("order", ORDERS)
def test_no_race_is_seen_where_there_is_none(order: str):
    checked = Emulator(matmul("f32"), checks=True)
    a, b, c = np.ones((32, 32), "f"), np.ones((32, 32), "f"), np.ones((32, 32), "f")
    memory = [(x.ctypes.data, x.nbytes) for x in (a, b, c)]
    checked.launch(
        "matmul", (2, 2, 1), (16, 16, 1), words(a, b, c), order=order, memory=memory
    )
    np.testing.assert_array_equal(c, 32)


IN_ARRAYS = """
  gpu.func @exchange(%a: memref<?xf32>, %b: memref<?xf32>) kernel {
    %t = gpu.thread_id x
    %g = gpu.block_id x
    %n = arith.constant 64 : index
    %o = arith.muli %g, %n : index
    %i = arith.addi %o, %t : index
    %x = memref.load %a[%i] : memref<?xf32>
    memref.store %x, %b[%i] : memref<?xf32>
    BARRIER
    %c = arith.constant DISTANCE : index
    %j = arith.xori %i, %c : index
    %y = memref.load %b[%j] : memref<?xf32>
    memref.store %y, %a[%i] : memref<?xf32>
    gpu.return
  }
"""
"""A thread reads what it has written, or another one of its block, or of another."""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("distance", "barrier", "found"),
    [
        (0, "", ""),
        (32, "gpu.barrier", ""),
        (32, "", r"byte \d+ of the 512 of array 1, after thread \d+$"),
        (64, "gpu.barrier", r"of array 1, after thread \d+ of another block$"),
    ],
)
def test_races_in_arrays_are_reported_in_every_order(
    distance: int, barrier: str, found: str, order: str
):
    text = IN_ARRAYS.replace("BARRIER", barrier).replace("DISTANCE", str(distance))
    checked = Emulator(module(text), checks=True)
    a, b = np.arange(128, dtype="f"), np.zeros(128, "f")
    memory = [(x.ctypes.data, x.nbytes) for x in (a, b)]

    def launch() -> None:
        sizes = (2, 1, 1), (64, 1, 1)
        checked.launch("exchange", *sizes, words(a, b), order=order, memory=memory)

    if found:
        with pytest.raises(KernelError, match=f"a race: bytes of an array .*{found}"):
            launch()
        return
    launch()
    np.testing.assert_array_equal(a, np.arange(128) ^ distance)


@pytest.mark.parametrize(("rows", "at", "number"), [(31, 3968, 0), (30, 3840, 0)])
def test_accesses_beyond_an_array_are_reported(rows: int, at: int, number: int):
    checked = Emulator(matmul("f32"), checks=True)
    # The arrays lie in one, so that what is read beyond the first is there.
    whole = np.ones((3, 32, 32), "f")
    a, b, c = whole
    memory = [(a.ctypes.data, 128 * rows)]
    memory += [(x.ctypes.data, x.nbytes) for x in (b, c)]
    with pytest.raises(
        KernelError,
        match=rf"block \(0, 1, 0\), thread \d+: an access beyond the arrays of the "
        rf"launch or the shared memory: byte {at} of the {at} of array {number}",
    ):
        checked.launch("matmul", (2, 2, 1), (16, 16, 1), words(a, b, c), memory=memory)
    assert (c[:16] == 32).all()
    assert (c[16:] == 1).all()


def test_accesses_beyond_shared_memory_are_reported_where_they_are():
    checked = Emulator(module(DYNAMIC), checks=True)
    with pytest.raises(
        KernelError, match=r"thread 99: an access beyond .*: byte 396 of 396 shared"
    ):
        checked.launch(
            "reversed",
            (1, 1, 1),
            (100, 1, 1),
            words(np.zeros(100, "f")),
            shared_bytes=396,
        )


def test_memory_of_a_thread_is_its_own():
    text = module("""
  gpu.func @f(%a: memref<?xf32>) kernel {
    %t = gpu.thread_id x
    %own = memref.alloca() : memref<4xf32>
    %c4 = arith.constant 4 : index
    %i = arith.remui %t, %c4 : index
    %x = memref.load %a[%t] : memref<?xf32>
    memref.store %x, %own[%i] : memref<4xf32>
    gpu.barrier
    %y = memref.load %own[%i] : memref<4xf32>
    %z = arith.addf %y, %y : f32
    memref.store %z, %a[%t] : memref<?xf32>
    gpu.return
  }""")
    a = np.arange(64, dtype="f")
    memory = [(a.ctypes.data, a.nbytes)]
    Emulator(text, checks=True).launch(
        "f", (1, 1, 1), (64, 1, 1), words(a), memory=memory
    )
    np.testing.assert_array_equal(a, 2 * np.arange(64))


MATH = """
  gpu.func @f(%a: memref<?xf32>, %b: memref<?xf64>) kernel {
    %t = gpu.thread_id x
    %x = memref.load %a[%t] : memref<?xf32>
    %x1 = math.exp %x : f32
    %x2 = math.log2 %x1 : f32
    %x3 = math.exp2 %x2 fastmath<afn> : f32
    %x4 = math.rsqrt %x3 : f32
    %x5 = math.tanh %x4 : f32
    memref.store %x5, %a[%t] : memref<?xf32>
    %y = memref.load %b[%t] : memref<?xf64>
    %y1 = math.erf %y : f64
    memref.store %y1, %b[%t] : memref<?xf64>
    gpu.return
  }"""


def test_functions_of_libdevice_are_those_of_the_host():
    a = np.linspace(-2, 2, 32).astype("f")
    b = np.array([0.5] * 32)
    expected = np.tanh(1 / np.sqrt(np.exp(a)))
    Emulator(module(MATH)).launch("f", (1, 1, 1), (32, 1, 1), words(a, b))
    np.testing.assert_allclose(a, expected, rtol=1e-6)
    np.testing.assert_allclose(b, 0.5204998778130465, rtol=1e-15)


def test_lines_that_repeat_are_read_as_any_other() -> None:
    """Values used before they are defined, several results, attributes, strings."""
    text = """"builtin.module"() ({
  %0 = "a.number"() <{value = 1 : i32}> : () -> i32
  %1 = "a.number"() <{value = 1 : i32}> : () -> i32
  %2 = "a.number"() <{value = "1}> : () -> i32"}> : () -> i32
  %3 = "a.number"() <{value = "1}> : () -> i32"}> : () -> i32
  %named = "a.sum"(%0, %1) : (i32, i32) -> i32
  %4:2 = "a.pair"(%0, %named) : (i32, i32) -> (i32, i32)
  %5 = "a.sum"(%4#0, %4#1) : (i32, i32) -> i32
  %6 = "a.sum"(%7, %5) : (i32, i32) -> i32
  %7 = "a.sum"(%5, %5) : (i32, i32) -> i32
  "a.end"(%6, %7) {note} : (i32, i32) -> ()
  "a.end"(%6, %7) : (i32, i32) -> ()
  "a.end"(%6, %7) : (i32, i32) -> ()
}) : () -> ()
"""
    plain = Parser(bare_context(), text).parse_module()
    fast = GenericParser(text).parse_module()
    assert upstream.generic_text(fast) == upstream.generic_text(plain)
    hints = [[result.name_hint for result in op.results] for op in fast.ops]
    assert hints == [[result.name_hint for result in op.results] for op in plain.ops]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('%0 = "a.number"() : () -> i32', "already defined"),
        ('"a.end"(%0, %0) : (i32) -> ()', "expected 1 operand types but had 2"),
        ('"a.end"(%1#1) : (i32) -> ()', "index out of bounds"),
        ('"a.end"(%9) : (i32) -> ()', "use before its definition|not defined"),
    ],
)
def test_lines_that_are_wrong_are_errors_still(line: str, reason: str) -> None:
    start = '%0 = "a.number"() : () -> i32\n%1 = "a.number"() : () -> i32\n'
    known = '"a.end"(%0) : (i32) -> ()\n'
    with pytest.raises(ParseError, match=reason):
        GenericParser(f"{start}{known}{line}\n").parse_module()
