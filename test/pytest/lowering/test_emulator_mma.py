"""The emulator: tensor cores, matrices from shared memory, copies that are under way."""

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering.emulator import ORDERS, Emulator

Array = npt.NDArray[Any]

WG = "#gpu.address_space<workgroup>"
LANE = np.arange(32)
GROUP, IN_GROUP = LANE // 4, LANE % 4
"""PTX's groupID and threadID_in_group."""


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


def bare(*arguments: Array | int) -> list[int]:
    """The words of pointers and numbers."""
    return [each if isinstance(each, int) else each.ctypes.data for each in arguments]


def packed(low: Array, high: Array) -> Array:
    """Two arrays of 16-bit numbers as one of words."""
    bits = (
        low.view(np.uint16).astype(np.uint32),
        high.view(np.uint16).astype(np.uint32),
    )
    return bits[0] | bits[1] << 16


SHAPE = "#nvvm.shape<m = {}, n = {}, k = {}>"
LAYOUTS = "layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>"


def product(kind: str, k: int, swap: bool = False) -> str:
    """Registers of A, B, C in; of D, over those of C, out: one row of words a lane."""
    halves = kind in ("bf16", "f16")
    na = 4 if (halves, k) in ((True, 16), (False, 8)) else 2
    nb = na // 2
    type_ = "vector<2xf16>" if kind == "f16" else "i32"
    lines: list[str] = []
    names: list[str] = []
    for r in range(na + nb + 4):
        lines += [
            f"%p{r} = llvm.getelementptr %row[{r}] : (!llvm.ptr) -> !llvm.ptr, i32",
            f"%v{r} = llvm.load %p{r} : !llvm.ptr -> {type_ if r < na + nb else 'f32'}",
        ]
        names.append(f"%v{r}")
    a, b, c = names[:na], names[na : na + nb], names[na + nb :]
    if swap:
        a[0], a[1] = a[1], a[0]
    ptx = (
        ""
        if kind == "f16"
        else (
            f"multiplicandAPtxType = #nvvm.mma_type<{kind}>, "
            f"multiplicandBPtxType = #nvvm.mma_type<{kind}>, "
        )
    )
    struct = "!llvm.struct<(f32, f32, f32, f32)>"
    lines.append(
        f"%d = nvvm.mma.sync A[{', '.join(a)}] B[{', '.join(b)}] C[{', '.join(c)}] "
        f"{{{LAYOUTS}, {ptx}shape = {SHAPE.format(16, 8, k)}}} "
        f": ({type_}, {type_}, f32) -> {struct}"
    )
    for r in range(4):
        lines += [
            f"%d{r} = llvm.extractvalue %d[{r}] : {struct}",
            f"llvm.store %d{r}, %p{na + nb + r} : f32, !llvm.ptr",
        ]
    return module(f"""
  llvm.func @product(%words: !llvm.ptr) attributes {{nvvm.kernel}} {{
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %n = llvm.mlir.constant({na + nb + 4} : i32) : i32
    %o = llvm.mul %t, %n : i32
    %row = llvm.getelementptr %words[%o] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    {chr(10).join(lines)}
    llvm.return
  }}""")


def registers(kind: str, k: int, a: Array, b: Array, c: Array) -> Array:
    """The registers of each lane, as the PTX ISA lays out the fragments."""
    g, t = GROUP, IN_GROUP
    if kind in ("bf16", "f16"):
        places = [(g + 8 * (r % 2), 2 * t + 8 * (r // 2)) for r in range(k // 4)]
        ra = [packed(a[i, j], a[i, j + 1]) for i, j in places]
        rb = [
            packed(b[2 * t + 8 * r, g], b[2 * t + 8 * r + 1, g]) for r in range(k // 8)
        ]
    else:
        ra = [
            a[g + 8 * (r % 2), t + 4 * (r // 2)].view(np.uint32) for r in range(k // 2)
        ]
        rb = [b[t + 4 * r, g].view(np.uint32) for r in range(k // 4)]
    rc = [c[g + 8 * (r // 2), 2 * t + r % 2].view(np.uint32) for r in range(4)]
    return np.ascontiguousarray(np.stack([*ra, *rb, *rc], axis=1))


KINDS = [("bf16", 16), ("bf16", 8), ("f16", 16), ("f16", 8), ("tf32", 8), ("tf32", 4)]
DTYPES: dict[str, Any] = {
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
    "tf32": np.float32,
}


def operands(kind: str, k: int) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(0)
    a = random.standard_normal((16, k)).astype(DTYPES[kind])
    b = random.standard_normal((k, 8)).astype(DTYPES[kind])
    c = random.standard_normal((16, 8)).astype(np.float32)
    return a, b, c


def result_of(text: str, kind: str, k: int, a: Array, b: Array, c: Array) -> Array:
    rows = registers(kind, k, a, b, c)
    emulator(text).launch("product", (1, 1, 1), (32, 1, 1), bare(rows))
    d = np.zeros((16, 8), np.float32)
    for r in range(4):
        values = np.ascontiguousarray(rows[:, r - 4]).view(np.float32)
        d[GROUP + 8 * (r // 2), 2 * IN_GROUP + r % 2] = values
    return d


@pytest.mark.parametrize(("kind", "k"), KINDS)
def test_products_of_fragments(kind: str, k: int):
    a, b, c = operands(kind, k)
    given = result_of(product(kind, k), kind, k, a, b, c)
    if kind == "tf32":
        cut = np.uint32(0xFFFFE000)
        a, b = ((x.view(np.uint32) & cut).view(np.float32) for x in (a, b))
    expected = a.astype("d") @ b.astype("d") + c
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_rounding_to_tf32() -> None:
    """To nearest, ties away from 0; too large becomes infinite, NaN stays NaN."""
    text = module("""
  llvm.func @round(%words: !llvm.ptr) attributes {nvvm.kernel} {
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %p = llvm.getelementptr %words[%t] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %x = llvm.load %p : !llvm.ptr -> f32
    %y = llvm.inline_asm "cvt.rna.tf32.f32 $0, $1;", "=r,f" %x : (f32) -> i32
    llvm.store %y, %p : i32, !llvm.ptr
    llvm.return
  }""")
    bit, largest = 2.0**-10, np.finfo(np.float32).max
    given = [1 + bit / 2, 1 + bit / 4, -1 - bit / 2, 1 + bit * 3 / 4, largest, -largest]
    wanted = [1 + bit, 1, -1 - bit, 1 + bit, np.inf, -np.inf]
    given += [np.inf, -np.inf, np.nan, -np.nan, 0.0, 3.0]
    wanted += [np.inf, -np.inf, np.nan, np.nan, 0.0, 3.0]
    rows = np.zeros(32, np.float32)
    rows[: len(given)] = given
    emulator(text).launch("round", (1, 1, 1), (32, 1, 1), bare(rows))
    np.testing.assert_array_equal(rows[: len(given)], np.array(wanted, np.float32))


@pytest.mark.parametrize(("kind", "k"), KINDS)
def test_wrong_fragments_give_wrong_products(kind: str, k: int):
    a, b, c = operands(kind, k)
    given = result_of(product(kind, k, swap=True), kind, k, a, b, c)
    assert not np.allclose(given, a.astype("d") @ b.astype("d") + c, atol=0.1)


def test_subnormal_numbers_are_not_flushed():
    tiny = np.zeros((16, 16), ml_dtypes.bfloat16)
    tiny.view(np.uint16)[:] = 1
    big = np.full((16, 8), 2.0**100, ml_dtypes.bfloat16)
    given = result_of(
        product("bf16", 16), "bf16", 16, tiny, big, np.zeros((16, 8), "f")
    )
    np.testing.assert_array_equal(given, 16 * 2.0**-133 * 2.0**100)


def test_product_of_f64():
    struct = "!llvm.struct<(f64, f64)>"
    text = module(f"""
  llvm.func @product(%words: !llvm.ptr) attributes {{nvvm.kernel}} {{
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %four = llvm.mlir.constant(4 : i32) : i32
    %o = llvm.mul %t, %four : i32
    %p0 = llvm.getelementptr %words[%o] : (!llvm.ptr, i32) -> !llvm.ptr, f64
    %p1 = llvm.getelementptr %p0[1] : (!llvm.ptr) -> !llvm.ptr, f64
    %p2 = llvm.getelementptr %p0[2] : (!llvm.ptr) -> !llvm.ptr, f64
    %p3 = llvm.getelementptr %p0[3] : (!llvm.ptr) -> !llvm.ptr, f64
    %a = llvm.load %p0 : !llvm.ptr -> f64
    %b = llvm.load %p1 : !llvm.ptr -> f64
    %c0 = llvm.load %p2 : !llvm.ptr -> f64
    %c1 = llvm.load %p3 : !llvm.ptr -> f64
    %d = nvvm.mma.sync A[%a] B[%b] C[%c0, %c1] {{{LAYOUTS}, shape = {SHAPE.format(8, 8, 4)}}}
      : (f64, f64, f64) -> {struct}
    %d0 = llvm.extractvalue %d[0] : {struct}
    %d1 = llvm.extractvalue %d[1] : {struct}
    llvm.store %d0, %p2 : f64, !llvm.ptr
    llvm.store %d1, %p3 : f64, !llvm.ptr
    llvm.return
  }}""")
    random = np.random.default_rng(0)
    a, b = random.standard_normal((8, 4)), random.standard_normal((4, 8))
    c = random.standard_normal((8, 8))
    g, t = GROUP, IN_GROUP
    rows = np.stack([a[g, t], b[t, g], c[g, 2 * t], c[g, 2 * t + 1]], axis=1)
    rows = np.ascontiguousarray(rows)
    emulator(text).launch("product", (1, 1, 1), (32, 1, 1), bare(rows))
    d = np.zeros((8, 8))
    d[g, 2 * t], d[g, 2 * t + 1] = rows[:, 2], rows[:, 3]
    np.testing.assert_allclose(d, a @ b + c, rtol=1e-14, atol=1e-14)


def test_product_without_the_whole_warp():
    rows = np.zeros((32, 10), np.uint32)
    with pytest.raises(KernelError, match="a warp-wide operation without all 32 lanes"):
        Emulator(product("bf16", 16)).launch(
            "product", (1, 1, 1), (16, 1, 1), bare(rows)
        )


def test_a_shape_of_mma_that_is_not_emulated():
    halves = "vector<2xf16>, vector<2xf16>, "
    struct = "!llvm.struct<(vector<2xf16>, vector<2xf16>)>"
    text = module(f"""
  llvm.func @product() attributes {{nvvm.kernel}} {{
    %x = llvm.mlir.zero : vector<2xf16>
    %d = nvvm.mma.sync A[%x, %x, %x, %x] B[%x, %x] C[%x, %x] {{{LAYOUTS}, shape = {SHAPE.format(16, 8, 16)}}}
      : ({halves} vector<2xf16>) -> {struct}
    llvm.return
  }}""")
    with pytest.raises(
        CompileError,
        match=r"kernel 'product': the emulator does not know mma\.sync m16n8k16 of f16 into vector<2xf16>",
    ):
        Emulator(text)


# Matrices from shared memory.

LDMATRIX = f"""
  gpu.func @load(%a: memref<32x8xi16>, %out: memref<32xNUMxi32>)
      workgroup(%s: memref<32x8xi16, {WG}>) kernel {{
    %t = gpu.thread_id x
    %c0 = arith.constant 0 : index
    %skew = arith.constant SKEW : i64
    %x = vector.load %a[%t, %c0] : memref<32x8xi16>, vector<8xi16>
    vector.store %x, %s[%t, %c0] : memref<32x8xi16, {WG}>, vector<8xi16>
    gpu.barrier
    %i = memref.extract_aligned_pointer_as_index %s : memref<32x8xi16, {WG}> -> index
    %b64 = arith.index_cast %i : index to i64
    %c16 = arith.constant 16 : index
    %o = arith.muli %t, %c16 : index
    %o64 = arith.index_cast %o : index to i64
    %m = arith.addi %b64, %o64 : i64
    %n = arith.addi %m, %skew : i64
    %p = llvm.inttoptr %n : i64 to !llvm.ptr<3>
    %d = nvvm.ldmatrix %p {{layout = #nvvm.mma_layout<LAYOUT>, num = NUM : i32,
      shape = #nvvm.ld_st_matrix_shape<m = 8, n = 8>,
      eltType = #nvvm.ld_st_matrix_elt_type<b16>}} : (!llvm.ptr<3>) -> STRUCT
    STORES
    gpu.return
  }}"""


def ldmatrix(count: int, layout: str, skew: int = 0) -> str:
    struct = f"!llvm.struct<({', '.join(['i32'] * count)})>"
    lines: list[str] = []
    for r in range(count):
        value = "%d"
        if count > 1:
            value = f"%d{r}"
            lines.append(f"%d{r} = llvm.extractvalue %d[{r}] : {struct}")
        lines += [
            f"%r{r} = arith.constant {r} : index",
            f"memref.store {value}, %out[%t, %r{r}] : memref<32x{count}xi32>",
        ]
    text = LDMATRIX.replace("NUM", str(count)).replace("LAYOUT", layout)
    text = text.replace("STRUCT", struct if count > 1 else "i32")
    return module(text.replace("STORES", "\n".join(lines)).replace("SKEW", str(skew)))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("layout", ["row", "col"])
def test_ldmatrix(count: int, layout: str):
    a = np.arange(256, dtype=np.int16).reshape(32, 8)
    out = np.zeros((32, count), np.uint32)
    Emulator(ldmatrix(count, layout)).launch(
        "load", (1, 1, 1), (32, 1, 1), words(a, out)
    )
    for r in range(count):
        tile = a[8 * r : 8 * r + 8]
        if layout == "col":
            tile = tile.T
        low = np.ascontiguousarray(tile[GROUP, 2 * IN_GROUP])
        high = np.ascontiguousarray(tile[GROUP, 2 * IN_GROUP + 1])
        np.testing.assert_array_equal(out[:, r], packed(low, high))


def test_ldmatrix_of_an_address_that_is_not_aligned():
    a, out = np.zeros((32, 8), np.int16), np.zeros((32, 1), np.uint32)
    with pytest.raises(
        KernelError,
        match=r"'load', block \(0, 0, 0\), thread \d+: an address of ldmatrix .* multiple of 16",
    ):
        Emulator(ldmatrix(1, "row", skew=8)).launch(
            "load", (1, 1, 1), (32, 1, 1), words(a, out)
        )


# Copies under way.

COPY = f"""
  gpu.func @copy(%a: memref<?xf32>, %b: memref<?xf32>, %read: index)
      workgroup(%s: memref<512xf32, {WG}>) kernel {{
    %t = gpu.thread_id x
    %n = gpu.block_dim x
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %each = arith.constant EACH : index
    %bytes = arith.constant 4 : index
    %i = arith.muli %t, %each : index
    %ob = arith.muli %i, %bytes : index
    %ob64 = arith.index_cast %ob : index to i64
    %read32 = arith.index_cast %read : index to i32
    %pa0 = memref.extract_aligned_pointer_as_index %a : memref<?xf32> -> index
    %pa1 = arith.index_cast %pa0 : index to i64
    %pa2 = arith.addi %pa1, %ob64 : i64
    %pa = llvm.inttoptr %pa2 : i64 to !llvm.ptr<1>
    %ps0 = memref.extract_aligned_pointer_as_index %s : memref<512xf32, {WG}> -> index
    %ps1 = arith.index_cast %ps0 : index to i64
    %ps2 = arith.addi %ps1, %ob64 : i64
    %ps = llvm.inttoptr %ps2 : i64 to !llvm.ptr<3>
    nvvm.cp.async.shared.global %ps, %pa, SIZE, cache = CACHE READ
    nvvm.cp.async.commit.group
    WAIT
    BARRIER
    // What the thread after this one has copied.
    %t1 = arith.addi %t, %c1 : index
    %t2 = arith.remui %t1, %n : index
    %j = arith.muli %t2, %each : index
    scf.for %k = %c0 to %each step %c1 {{
      %jk = arith.addi %j, %k : index
      %x = memref.load %s[%jk] : memref<512xf32, {WG}>
      memref.store %x, %b[%jk] : memref<?xf32>
    }}
    gpu.return
  }}"""


def copy_text(
    size: int = 16,
    cache: str = "cg",
    read: bool = False,
    wait: str = "nvvm.cp.async.wait.group 0",
    barrier: str = "gpu.barrier",
) -> str:
    types = "!llvm.ptr<3>, !llvm.ptr<1>"
    given = f", %read32 : {types}, i32" if read else f": {types}"
    text = COPY.replace("EACH", str(size // 4)).replace("SIZE", str(size))
    text = text.replace("CACHE", cache).replace("READ", given)
    return module(text.replace("WAIT", wait).replace("BARRIER", barrier))


def copied(
    text: str, count: int, read: int = 0, order: str = "forward"
) -> tuple[Array, Array]:
    a = np.random.default_rng(0).standard_normal(count).astype("f")
    b = np.zeros(count, "f")
    emulator(text).launch("copy", (1, 1, 1), (64, 1, 1), words(a, b, read), order=order)
    return a, b


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("size", "cache"), [(16, "cg"), (16, "ca"), (8, "ca"), (4, "ca")]
)
def test_copies_land_when_waited_for(size: int, cache: str, order: str):
    a, b = copied(copy_text(size, cache), 16 * size, order=order)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("read", [0, 4, 12, 16])
def test_copies_fill_with_zeros(read: int):
    a, b = copied(copy_text(read=True), 256, read)
    expected = a.reshape(64, 4).copy()
    expected[:, read // 4 :] = 0
    np.testing.assert_array_equal(b.reshape(64, 4), expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("wait", ["", "nvvm.cp.async.wait.group 1"])
def test_copies_that_are_not_waited_for_do_not_land(wait: str, order: str):
    _, b = copied(copy_text(wait=wait), 256, order=order)
    assert np.isnan(b).all()


@pytest.mark.parametrize("order", ORDERS)
def test_missing_barrier_after_a_copy_shows(order: str):
    _, b = copied(copy_text(barrier=""), 256, order=order)
    assert np.isnan(b).any()


def test_a_copy_to_an_address_that_is_not_aligned():
    text = (
        copy_text()
        .replace("%pa1, %ob64", "%pa1, %read64")
        .replace(
            "%read32 =", "%read64 = arith.index_cast %read : index to i64\n %read32 ="
        )
    )
    with pytest.raises(
        KernelError, match=r"an address of cp\.async that is no multiple"
    ):
        copied(text, 256, read=4)


# All together: a product by tiles with copies two tiles ahead.

K = 128


def pipeline(barrier: bool = True, ahead: int = 1, transposed: bool = True) -> str:
    """C (16 x 8 a warp, 4 warps) = A (16 x K) B (K x 32), bf16, three stages of k = 16."""
    tile = 16 * 16 * 2 + 16 * 32 * 2
    struct4 = "!llvm.struct<(i32, i32, i32, i32)>"
    struct2 = "!llvm.struct<(i32, i32)>"
    f4 = "!llvm.struct<(f32, f32, f32, f32)>"
    ld = "shape = #nvvm.ld_st_matrix_shape<m = 8, n = 8>, eltType = #nvvm.ld_st_matrix_elt_type<b16>"
    count = [0]

    def copies(k: str) -> str:
        """Each thread copies 16 bytes of B, the first 32 also 16 bytes of A."""
        count[0] += 1
        n = count[0]
        return f"""
    %st{n} = llvm.urem {k}, %c3 : i32
    %so{n} = llvm.mul %st{n}, %ctile : i32
    %k16{n} = llvm.mul {k}, %c16 : i32
    // A: row t / 2, half t % 2.
    %ak{n} = llvm.add %k16{n}, %acol : i32
    %ai0{n} = llvm.mul %arow, %cK : i32
    %ai{n} = llvm.add %ai0{n}, %ak{n} : i32
    %ap{n} = llvm.getelementptr %a[%ai{n}] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, i16
    %ad0{n} = llvm.add %so{n}, %aoff : i32
    %ad{n} = llvm.getelementptr %smem[%ad0{n}] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, i8
    scf.if %first {{
      nvvm.cp.async.shared.global %ad{n}, %ap{n}, 16, cache = cg : !llvm.ptr<3>, !llvm.ptr<1>
    }}
    // B: row t / 8, part t % 8 of 4 numbers.
    %bk{n} = llvm.add %k16{n}, %brow : i32
    %bi0{n} = llvm.mul %bk{n}, %c32 : i32
    %bi{n} = llvm.add %bi0{n}, %bcol : i32
    %bp{n} = llvm.getelementptr %b[%bi{n}] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, i16
    %bd0{n} = llvm.add %so{n}, %boff : i32
    %bd{n} = llvm.getelementptr %smem[%bd0{n}] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, i8
    nvvm.cp.async.shared.global %bd{n}, %bp{n}, 8, cache = ca : !llvm.ptr<3>, !llvm.ptr<1>
    nvvm.cp.async.commit.group
"""

    constants = "\n".join(
        f"%c{n} = llvm.mlir.constant({n} : i32) : i32"
        for n in (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 64)
    )
    sums = ", ".join(f"%d{r}" for r in range(4))
    stores = "\n".join(
        f"""
    %cr{r} = llvm.add %grp, %c{8 * (r // 2)} : i32
    %co{r} = llvm.mul %cr{r}, %c32 : i32
    %cc{r} = llvm.add %co{r}, %ccol : i32
    %ce{r} = llvm.add %cc{r}, %c{r % 2} : i32
    %cp{r} = llvm.getelementptr %c[%ce{r}] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, f32
    llvm.store %r#{r}, %cp{r} : f32, !llvm.ptr<1>"""
        for r in range(4)
    )
    return module(f"""
  llvm.mlir.global external @smem() {{addr_space = 3 : i32, alignment = 128 : i64}} : !llvm.array<0 x i8>
  llvm.func @gemm(%a: !llvm.ptr<1>, %b: !llvm.ptr<1>, %c: !llvm.ptr<1>)
      attributes {{nvvm.kernel, nvvm.reqntid = array<i32: 128>}} {{
    %smem = llvm.mlir.addressof @smem : !llvm.ptr<3>
    {constants}
    %zero = llvm.mlir.constant(0.0 : f32) : f32
    %cK = llvm.mlir.constant({K} : i32) : i32
    %ctile = llvm.mlir.constant({tile} : i32) : i32
    %c512 = llvm.mlir.constant(512 : i32) : i32
    %steps = llvm.mlir.constant({K // 16} : i32) : i32
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %lane = llvm.and %t, %c31 : i32
    %warp = llvm.lshr %t, %c5 : i32
    %first = llvm.icmp "ult" %t, %c32 : i32
    %arow = llvm.lshr %t, %c1 : i32
    %ahalf = llvm.and %t, %c1 : i32
    %acol = llvm.mul %ahalf, %c8 : i32
    %aoff = llvm.mul %t, %c16 : i32
    %brow = llvm.lshr %t, %c3 : i32
    %bpart = llvm.and %t, %c7 : i32
    %bcol = llvm.mul %bpart, %c4 : i32
    %boff0 = llvm.mul %t, %c8 : i32
    %boff = llvm.add %boff0, %c512 : i32
    // Rows of matrices: lane % 16 is the row, lane / 16 the half.
    %mrow = llvm.and %lane, %c15 : i32
    %mhalf = llvm.lshr %lane, %c4 : i32
    %ma0 = llvm.mul %mrow, %c32 : i32
    %ma1 = llvm.mul %mhalf, %c16 : i32
    %ma = llvm.add %ma0, %ma1 : i32
    %mb0 = llvm.mul %mrow, %c64 : i32
    %mb1 = llvm.mul %warp, %c16 : i32
    %mb2 = llvm.add %mb0, %mb1 : i32
    %mb = llvm.add %mb2, %c512 : i32
    {copies("%c0")}
    {copies("%c1")}
    %r:4 = scf.for %k = %c0 to %steps step %c1
        iter_args(%s0 = %zero, %s1 = %zero, %s2 = %zero, %s3 = %zero) -> (f32, f32, f32, f32) : i32 {{
      nvvm.cp.async.wait.group {ahead}
      {"nvvm.barrier0" if barrier else ""}
      %k2 = llvm.add %k, %c2 : i32
      %more = llvm.icmp "ult" %k2, %steps : i32
      scf.if %more {{
        {copies("%k2")}
      }} else {{
        nvvm.cp.async.commit.group
      }}
      %st = llvm.urem %k, %c3 : i32
      %so = llvm.mul %st, %ctile : i32
      %oa = llvm.add %so, %ma : i32
      %ob = llvm.add %so, %mb : i32
      %pa = llvm.getelementptr %smem[%oa] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, i8
      %pb = llvm.getelementptr %smem[%ob] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, i8
      %fa = nvvm.ldmatrix %pa {{layout = #nvvm.mma_layout<row>, num = 4 : i32, {ld}}} : (!llvm.ptr<3>) -> {struct4}
      %fb = nvvm.ldmatrix %pb {{layout = #nvvm.mma_layout<{"col" if transposed else "row"}>, num = 2 : i32, {ld}}} : (!llvm.ptr<3>) -> {struct2}
      {chr(10).join(f"%a{r} = llvm.extractvalue %fa[{r}] : {struct4}" for r in range(4))}
      {chr(10).join(f"%b{r} = llvm.extractvalue %fb[{r}] : {struct2}" for r in range(2))}
      %d = nvvm.mma.sync A[%a0, %a1, %a2, %a3] B[%b0, %b1] C[%s0, %s1, %s2, %s3] {{{LAYOUTS},
        multiplicandAPtxType = #nvvm.mma_type<bf16>, multiplicandBPtxType = #nvvm.mma_type<bf16>,
        shape = {SHAPE.format(16, 8, 16)}}} : (i32, i32, f32) -> {f4}
      {chr(10).join(f"%d{r} = llvm.extractvalue %d[{r}] : {f4}" for r in range(4))}
      scf.yield {sums} : f32, f32, f32, f32
    }}
    %grp = llvm.lshr %lane, %c2 : i32
    %tig = llvm.and %lane, %c3 : i32
    %cc0 = llvm.mul %tig, %c2 : i32
    %cc1 = llvm.mul %warp, %c8 : i32
    %ccol = llvm.add %cc0, %cc1 : i32
    {stores.replace("%cc0 =", "%ccx0 =").replace("%cc1 =", "%ccx1 =").replace("%cc0,", "%ccx0,").replace("%cc1,", "%ccx1,")}
    llvm.return
  }}""")


def gemm(text: str, order: str, checks: bool = False) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    a = random.standard_normal((16, K)).astype(ml_dtypes.bfloat16)
    b = random.standard_normal((K, 32)).astype(ml_dtypes.bfloat16)
    c = np.zeros((16, 32), np.float32)
    emulator(text, checks).launch(
        "gemm",
        (1, 1, 1),
        (128, 1, 1),
        bare(a, b, c),
        shared_bytes=3 * 1536,
        order=order,
        memory=[(x.ctypes.data, x.nbytes) for x in (a, b, c)],
    )
    return c, a.astype("f") @ b.astype("f")


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_with_copies_ahead(order: str):
    given, expected = gemm(pipeline(), order)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_that_waits_for_too_few_copies(order: str):
    given, _ = gemm(pipeline(ahead=2), order)
    assert np.isnan(given).any()


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_without_its_barrier(order: str):
    given, _ = gemm(pipeline(barrier=False), order)
    assert np.isnan(given).any()


def test_a_product_with_b_not_transposed():
    given, expected = gemm(pipeline(transposed=False), "forward")
    assert not np.allclose(given, expected, atol=1)


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_with_copies_ahead_has_no_race(order: str):
    given, expected = gemm(pipeline(), order, checks=True)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_without_its_barrier_has_a_race(order: str):
    with pytest.raises(KernelError, match="a race: bytes of shared memory"):
        gemm(pipeline(barrier=False), order, checks=True)


# Instructions on scalars.

SCALARS = """
  llvm.func @f(%x: !llvm.ptr, %y: !llvm.ptr) attributes {nvvm.kernel} {
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %px = llvm.getelementptr %x[%t] : (!llvm.ptr, i32) -> !llvm.ptr, f32
    %py = llvm.getelementptr %y[%t] : (!llvm.ptr, i32) -> !llvm.ptr, f32
    %v = llvm.load %px : !llvm.ptr -> f32
    BODY
    llvm.store %r, %py : TYPE, !llvm.ptr
    llvm.return
  }"""


def scalars(body: str, x: Array, type_: str = "f32") -> Array:
    y = np.zeros(32, np.float32)
    text = module(SCALARS.replace("BODY", body).replace("TYPE", type_))
    emulator(text).launch("f", (1, 1, 1), (32, 1, 1), bare(x, y))
    return y


ASM = 'llvm.inline_asm "{} $0, $1;", "=f,f" %v : (f32) -> f32'
PTX = 'nvvm.inline_ptx "{} {{$w0}}, {{$r0}};" ro(%v : f32) -> f32'


@pytest.mark.parametrize("form", [ASM, PTX], ids=["asm", "ptx"])
@pytest.mark.parametrize("ftz", ["", ".ftz"])
def test_ex2_approx(form: str, ftz: str):
    x = np.linspace(-140, 100, 32).astype("f")
    expected = np.exp2(x)
    if ftz:
        expected[expected < 2.0**-126] = 0
    given = scalars("%r = " + form.format(f"ex2.approx{ftz}.f32"), x)
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def reciprocal_root(x: Array) -> Array:
    return 1 / np.sqrt(x)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("lg2", np.log2),
        ("rcp", np.reciprocal),
        ("rsqrt", reciprocal_root),
        ("sqrt", np.sqrt),
        ("tanh", np.tanh),
    ],
)
def test_other_approximations(name: str, function: Any):
    x = np.linspace(0.1, 9, 32).astype("f")
    given = scalars("%r = " + ASM.format(f"{name}.approx.f32"), x)
    np.testing.assert_allclose(given, function(x), rtol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        'llvm.call_intrinsic "llvm.nvvm.saturate.f"(%v) : (f32) -> f32',
        'nvvm.inline_ptx "popc.b32 {$w0}, {$r0};" ro(%v : f32) -> f32',
    ],
)
def test_operations_that_are_not_emulated(operation: str):
    with pytest.raises(CompileError, match=r"kernel 'f': the emulator does not know"):
        scalars(f"%r = {operation}", np.zeros(32, "f"))


def test_an_instruction_that_is_not_emulated():
    with pytest.raises(
        CompileError,
        match=r"kernel 'f': the emulator does not know the instruction popc\.b32",
    ):
        scalars("%r = " + ASM.format("popc.b32"), np.zeros(32, "f"))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)]
)
def test_conversions_of_pairs(kind: str, dtype: Any):
    x = np.array(
        [
            *np.random.default_rng(0).standard_normal(26),
            np.inf,
            np.nan,
            1e-40,
            1e-7,
            0,
            1e38,
        ],
        "f",
    )
    body = f"""
    %one = llvm.mlir.constant(1.0 : f32) : f32
    %r = nvvm.convert.f32x2.to.{kind}x2 %v, %one {{rnd = #nvvm.fp_rnd_mode<rn>}} : vector<2x{kind}>"""
    given = scalars(body, x, f"vector<2x{kind}>").view(np.uint16).reshape(32, 2)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    high = np.ascontiguousarray(given[:, 1]).view(dtype)
    np.testing.assert_array_equal(high.astype("f"), expected.astype("f"))
    assert (np.ascontiguousarray(given[:, 0]).view(dtype) == 1).all()


VOTES = {
    "nvvm.vote.sync ballot %all, %odd -> i32": np.full(32, 0xAAAAAAAA, np.uint32),
    "nvvm.vote.sync any %all, %odd -> i1": np.ones(32, np.uint32),
    "nvvm.vote.sync all %all, %odd -> i1": np.zeros(32, np.uint32),
    "nvvm.redux.sync add %t, %all : i32 -> i32": np.full(32, 496, np.uint32),
    "nvvm.redux.sync max %t, %all : i32 -> i32": np.full(32, 31, np.uint32),
    "nvvm.elect.sync -> i1": np.eye(1, 32, dtype=np.uint32)[0],
}


@pytest.mark.parametrize("operation", VOTES)
def test_votes_and_reductions_of_a_warp(operation: str):
    widen = (
        "llvm.zext %w : i1 to i32"
        if operation.endswith("i1")
        else "llvm.add %w, %zero : i32"
    )
    body = f"""
    %all = llvm.mlir.constant(-1 : i32) : i32
    %zero = llvm.mlir.constant(0 : i32) : i32
    %odd = llvm.trunc %t : i32 to i1
    %w = {operation}
    nvvm.bar.warp.sync %all : i32
    %r = {widen}"""
    given = scalars(body, np.zeros(32, "f"), "i32").view(np.uint32)
    np.testing.assert_array_equal(given, VOTES[operation])
