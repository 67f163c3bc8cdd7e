"""The emulator: blocks of a cluster, the memory of each other, and their barrier."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from moa_dialect.errors import KernelError
from moa_dialect.lowering.emulator import ORDERS, Emulator

KERNEL = """
module attributes {gpu.container_module} { gpu.module @kernels {
  llvm.mlir.global external @smem() {addr_space = 3 : i32, alignment = 16 : i64} : !llvm.array<0 x i32>
  llvm.func @turn(%out: !llvm.ptr, %step: i32) attributes {nvvm.kernel, nvvm.cluster_dim = array<i32: SHAPE>} {
    %smem = llvm.mlir.addressof @smem : !llvm.ptr<3>
    %c3 = llvm.mlir.constant(3 : i32) : i32
    %c32 = llvm.mlir.constant(32 : i32) : i32
    %c100 = llvm.mlir.constant(100 : i32) : i32
    %t = nvvm.read.ptx.sreg.tid.x : i32
    %b = nvvm.read.ptx.sreg.ctaid.x : i32
    %rank = nvvm.read.ptx.sreg.cluster.ctarank : i32
    %p = llvm.getelementptr %smem[%t] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, i32
    %b100 = llvm.mul %b, %c100 : i32
    %v = llvm.add %b100, %t : i32
    llvm.store %v, %p : i32, !llvm.ptr<3>
    FIRST
    %next = llvm.add %rank, %step : i32
    %other = llvm.and %next, %c3 : i32
    %there = nvvm.mapa %p, %other : !llvm.ptr<3> -> !llvm.ptr<7>
    %w = llvm.load %there : !llvm.ptr<7> -> i32
    SECOND
    %at0 = llvm.mul %b, %c32 : i32
    %at = llvm.add %at0, %t : i32
    %q = llvm.getelementptr %out[%at] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    llvm.store %w, %q : i32, !llvm.ptr
    llvm.return
  }
} }"""
"""Each thread reads what the one of the same number has in another block."""

MEET = "nvvm.cluster.arrive nvvm.cluster.wait"

emulator = cache(Emulator)


def turned(
    step: int = 1,
    shape: str = "4, 1, 1",
    first: str = MEET,
    second: str = MEET,
    blocks: int = 8,
    checks: bool = False,
    **options: Any,
) -> np.ndarray:
    text = KERNEL.replace("SHAPE", shape)
    text = text.replace("FIRST", first).replace("SECOND", second)
    out = np.full((blocks, 32), -1, np.int32)
    words = [out.ctypes.data, step]
    memory = [(out.ctypes.data, out.nbytes)] if checks else None
    launched = emulator(text, checks)
    sizes = (blocks, 1, 1), (32, 1, 1)
    launched.launch("turn", *sizes, words, 128, memory=memory, **options)
    return out


def wanted(step: int) -> np.ndarray:
    block, thread = np.indices((8, 32))
    return (block // 4 * 4 + (block + step) % 4) * 100 + thread


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("step", [1, 3])
def test_what_is_in_the_memory_of_another_block(order: str, step: int) -> None:
    np.testing.assert_array_equal(turned(step, order=order), wanted(step))


def test_it_is_memory_that_a_kernel_may_touch() -> None:
    np.testing.assert_array_equal(turned(checks=True), wanted(1))


def test_a_block_that_is_not_waited_for() -> None:
    """What it has not written yet is 0xFF, and once it has ended again."""
    assert (turned(first="")[0] == -1).all()
    late = turned(1, first="nvvm.cluster.arrive nvvm.cluster.wait", second="")
    np.testing.assert_array_equal(late[0], wanted(1)[0])
    assert (late[2] == -1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": "nvvm.cluster.arrive", "second": MEET}, "without a wait before"),
        ({"first": "nvvm.cluster.wait"}, "without an arrival before"),
        ({"shape": "2, 1, 1"}, "an address in a block that the cluster has not"),
        (
            {"blocks": 6},
            "expected whole clusters of 4x1x1 blocks, got 6x1x1 blocks",
        ),
        (
            {"first": "scf.if %some { nvvm.cluster.arrive nvvm.cluster.wait }"},
            "deadlock of the block of rank 0: 8 threads from 0 on wait at "
            "nvvm.cluster.wait",
        ),
    ],
)
def test_what_is_wrong(options: dict[str, Any], message: str) -> None:
    if "%some" in options.get("first", ""):
        few = (
            "%c8 = llvm.mlir.constant(8 : i32) : i32\n"
            '%some = llvm.icmp "slt" %t, %c8 : i32\n'
        )
        options = options | {"first": few + options["first"], "second": ""}
    with pytest.raises(KernelError, match=message):
        turned(**options)
