"""GPU kernels on the CPU: a coroutine for each thread.

The kernels are those that the device's compiler is given. Warp-wide operations,
barriers and copies that are under way are carried out as the PTX ISA says, and what a
GPU would leave undefined has values that show: memory of a block is filled with 0xFF
bytes before it starts, and so is the destination of a copy until it is waited for.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from ctypes import c_int32, c_void_p
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import ParseError

from moa_dialect.collector import uncollected
from moa_dialect.errors import CompileError, KernelError
from moa_dialect.lowering import emulator_runtime as runtime
from moa_dialect.lowering import host, loader, upstream
from moa_dialect.lowering.copy_engine import CopyEngine
from moa_dialect.lowering.coroutines import KernelCode, to_coroutines
from moa_dialect.lowering.unregistered import GenericParser
from moa_dialect.lowering.warp_groups import WarpGroup

MOST_SHARED_BYTES = 227 * 1024
"""The memory of a block that the largest GPUs have."""

FROM_GPU = (
    "convert-nvgpu-to-nvvm,"
    "gpu.module(convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,"
    "lower-affine,arith-expand,convert-gpu-to-nvvm{index-bitwidth=64},"
    "canonicalize,cse),"
)
TO_LLVM = (
    "convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-vector-to-llvm,convert-math-to-llvm,finalize-memref-to-llvm,"
    "convert-arith-to-llvm,convert-index-to-llvm,convert-cf-to-llvm,"
    "canonicalize,cse,reconcile-unrealized-casts"
)
"""Upstream's passes to the llvm and nvvm dialects, which do not lower the latter."""

OPTIMISE = (
    "coro-early,cgscc(coro-split),coro-cleanup,"
    "function(sroa,early-cse,simplifycfg,adce)"
)
"""LLVM's passes: a kernel runs once or twice, compiled in half the time of O1."""

REGISTERS = 1 << 16
"""The registers of a multiprocessor."""

ORDERS = ("forward", "reverse", "random")


class Emulator:
    """The kernels of one module, compiled for the CPU.

    Attributes:
        kernels: what is known of each kernel, by its name.
    """

    def __init__(self, text: str, checks: bool = False) -> None:
        """Compile kernels.

        Args:
            text: a module with one `gpu.module` that holds `gpu.func` kernels or
                `llvm.func` kernels, in upstream's dialects.
            checks: whether each access to memory is checked: to lie within the arrays
                of the launch or the memory of the block, and, if barriers of whole
                blocks are all that orders their warps, that no two warps access the
                same bytes of the latter between barriers, one of them to write.

        Raises:
            CompileError: if upstream does not take the text, or it has an operation
                that is not emulated.
        """
        found = _compiled(text, checks)
        self.kernels: dict[str, KernelCode] = {each.name: each for each in found.codes}
        self.checks = checks
        self._static_bytes = found.static_bytes
        self._code = found.addresses
        self._runtime = runtime.functions()

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        words: Sequence[int],
        shared_bytes: int = 0,
        order: str = "forward",
        seed: int = 0,
        memory: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Run a kernel, block after block.

        Args:
            kernel: its name.
            grid: the numbers of blocks.
            block: the numbers of threads in a block.
            words: the parameters as 64-bit words, in the order of the kernel after
                its memrefs are expanded to two pointers, offset, extents, strides.
            shared_bytes: the size of the dynamic memory of a block.
            order: in which order threads go on: `forward`, `reverse`, or `random`,
                which takes another one for each block.
            seed: what random orders are drawn from.
            memory: the addresses and the sizes in bytes of all that the kernel may
                access, if that is to be checked.

        Raises:
            KernelError: for a launch that does not fit the kernel, threads that wait
                for each other, a warp-wide operation without the warp, an address
                that is not aligned, or a write beyond the memory of the block; with
                checks, for any access beyond the arrays or that memory, and races.
        """
        code = self._checked(kernel, grid, block, words, shared_bytes, order)
        size = self._static_bytes + shared_bytes
        run = _Launch(self, code, block, words, size, memory)
        generator = np.random.default_rng(seed)
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    run.block((x, y, z), grid, _order(run.rows, order, generator))

    def _checked(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        words: Sequence[int],
        shared_bytes: int,
        order: str,
    ) -> KernelCode:
        if kernel not in self.kernels:
            raise KernelError(
                f"unknown kernel: expected one of {', '.join(self.kernels)}, "
                f"got '{kernel}'"
            )
        code = self.kernels[kernel]
        if order not in ORDERS:
            raise KernelError(f"order: expected {', '.join(ORDERS)}, got '{order}'")
        if len(words) != len(code.parameters):
            raise KernelError(
                f"kernel '{kernel}': expected {len(code.parameters)} words, "
                f"got {len(words)}"
            )
        threads = block[0] * block[1] * block[2]
        if min(block) < 1 or threads > 1024:
            raise KernelError(
                f"kernel '{kernel}': expected 1 to 1024 threads in a block, "
                f"got {'x'.join(map(str, block))}"
            )
        required = code.block
        if required and block != (*required, 1, 1)[:3]:
            raise KernelError(
                f"kernel '{kernel}': expected blocks of "
                f"{'x'.join(map(str, required))} threads, "
                f"got {'x'.join(map(str, block))}"
            )
        if min(grid) < 0:
            raise KernelError(
                f"kernel '{kernel}': expected no negative number of blocks, "
                f"got {'x'.join(map(str, grid))}"
            )
        size = self._static_bytes + shared_bytes
        if size > MOST_SHARED_BYTES:
            raise KernelError(
                f"kernel '{kernel}': expected at most {MOST_SHARED_BYTES} bytes of "
                f"shared memory, got {size}"
            )
        return code


@dataclass(frozen=True)
class _Compiled:
    """The kernels of a module, where they are, and the memory their blocks have."""

    codes: list[KernelCode]
    addresses: dict[str, int]
    static_bytes: int


@lru_cache(maxsize=256)
@uncollected()
def _compiled(text: str, checks: bool) -> _Compiled:
    """Compile and load the kernels of a module."""
    native = upstream.parse(text, upstream.new_context())
    # What is in the llvm dialect already, the conversion does not take.
    names = upstream.operations_beside(native, ("llvm.", "nvvm."))
    has_gpu = any(name.startswith("gpu.") for name in names if name != "gpu.module")
    pipeline = (FROM_GPU if has_gpu else "") + TO_LLVM
    upstream.run_pipeline(native, pipeline, verify_each=False)
    generic = str(native.operation.get_asm(print_generic_op_form=True))
    try:
        module = GenericParser(generic).parse_module()
    except ParseError as error:
        raise CompileError(f"cannot read upstream's text: {error}") from None
    key = hashlib.sha256(f"{checks}{generic}".encode()).hexdigest()
    kernels, shared = to_coroutines(module, f"moa_kernel_{key[:24]}", checks)
    runtime.functions()
    symbols = [each.symbol for each in kernels]
    entries = loader.loaded(_object_code(module, symbols), symbols)
    addresses = {
        each.name: _address(entry) for each, entry in zip(kernels, entries, strict=True)
    }
    return _Compiled(kernels, addresses, shared.static_bytes)


def _object_code(module: ModuleOp, symbols: Sequence[str]) -> bytes:
    native = upstream.parse(upstream.generic_text(module), upstream.new_context())
    # The instruction that rounds to bf16 takes subnormal numbers for zero.
    return host.object_code(
        upstream.llvm_ir(native), symbols, OPTIMISE, ("avx512bf16",)
    )


def _order(
    rows: int, order: str, generator: np.random.Generator
) -> npt.NDArray[np.int32]:
    """The order of the threads of a block; those of a warp are together."""
    places = np.arange(rows, dtype=np.int32).reshape(-1, 32)
    if order == "reverse":
        places = places[::-1, ::-1]
    elif order == "random":
        places = generator.permuted(generator.permutation(places), axis=1)
    return np.ascontiguousarray(places.reshape(-1))


def _address(entry: Any) -> int:
    """Where a compiled function is."""
    return ctypes.cast(entry, c_void_p).value or 0


def _aligned(count: int, alignment: int) -> npt.NDArray[np.uint8]:
    memory = np.empty(count + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + count]


@dataclass
class _Background:
    """What is under way beside the threads of a block."""

    engine: CopyEngine
    groups: dict[int, WarpGroup] = field(default_factory=dict[int, WarpGroup])
    held: list[int] = field(default_factory=list[int])
    """The threads, or first threads of groups, that wait for what is under way."""


class _Launch:
    """The state of one launch, used for one block after the other."""

    def __init__(
        self,
        emulator: Emulator,
        code: KernelCode,
        block: tuple[int, int, int],
        words: Sequence[int],
        shared_bytes: int,
        memory: Sequence[tuple[int, int]] | None,
    ) -> None:
        self.code = code
        self.checks = 0
        if emulator.checks:
            bounds = runtime.BOUNDS * (memory is not None)
            self.checks = runtime.CHECKED | bounds | runtime.RACES * code.ordered
        ranges = [(first, first + size) for first, size in memory or ()]
        self.ranges = np.array(ranges, np.uint64).reshape(-1, 2)
        self.shadow = np.zeros((2, shared_bytes), np.int32)
        self.block_size = block
        self.threads = block[0] * block[1] * block[2]
        self.rows = -(-self.threads // 32) * 32
        self.words = np.array([word & (1 << 64) - 1 for word in words], np.uint64)
        self.shared_bytes = shared_bytes
        self.arena = _aligned(runtime.ARENA_BYTES, runtime.ARENA_BYTES)
        size = self.rows * code.row_words
        self.state = _aligned(4 * size, 64).view(np.int32).reshape(self.rows, -1)
        self.record = np.zeros(runtime.BLOCK_WORDS, np.int32)
        self.handles = np.zeros(self.rows, np.int64)
        queue = runtime.QUEUE_CAPACITY if code.copies else 0
        self.queues = np.empty((self.rows, 4 * queue), np.int64)
        self.address = emulator._code[code.name]  # pyright: ignore[reportPrivateUsage]
        functions = emulator._runtime  # pyright: ignore[reportPrivateUsage]
        self.functions = {name: _address(each) for name, each in functions.items()}
        first = np.zeros_like(self.state)
        linear = np.arange(self.rows)
        first[:, runtime.LINEAR] = linear
        first[:, runtime.TID] = linear % block[0]
        first[:, runtime.TID + 1] = linear // block[0] % block[1]
        first[:, runtime.TID + 2] = linear // (block[0] * block[1])
        first[self.threads :, runtime.STATUS] = runtime.ENDED
        _pointers(first, runtime.BLOCK)[:] = self.record.ctypes.data
        _pointers(first, runtime.QUEUE)[:] = (
            self.queues.ctypes.data + linear * self.queues.strides[0]
        )
        self.first = first

    def block(
        self,
        at: tuple[int, int, int],
        grid: tuple[int, int, int],
        order: npt.NDArray[np.int32],
    ) -> None:
        """Run one block."""
        self.arena.fill(0xFF)
        self.state[:] = self.first
        record = self.record
        record[:] = 0
        record[runtime.CTAID : runtime.CTAID + 3] = at
        record[runtime.NCTAID : runtime.NCTAID + 3] = grid
        record[runtime.NTID : runtime.NTID + 3] = self.block_size
        record[runtime.THREADS] = self.threads
        for word, array in (
            (runtime.SHARED, self.arena),
            (runtime.RANGES_AT, self.ranges),
            (runtime.SHADOW, self.shadow),
        ):
            record[word : word + 2].view(np.int64)[0] = array.ctypes.data
        record[runtime.CHECKS] = self.checks
        record[runtime.EPOCH] = 1
        record[runtime.SIZE] = self.shared_bytes
        record[runtime.RANGES] = len(self.ranges)
        self.shadow.fill(0)
        is_plain = bool(np.all(np.diff(order) == 1) or np.all(np.diff(order) == -1))
        record[runtime.RANDOM] = 0 if is_plain else int(order[0]) * 2 + 1
        rows, handles = _memref(self.state), _memref(self.handles)
        self._call(
            "start", self.address, self.words.ctypes.data, *rows, *handles, self.threads
        )
        try:
            try:
                self._run(rows, handles, order)
            except KernelError as error:
                raise KernelError(f"{self._where(at)}{error}") from None
        finally:
            self._call("end", *handles, self.threads)
        if np.any(self.arena[self.shared_bytes :] != 0xFF):
            raise KernelError(
                f"{self._where(at)}: a write beyond the {self.shared_bytes} bytes of "
                f"its shared memory"
            )

    def _run(
        self,
        rows: tuple[int, ...],
        handles: tuple[int, ...],
        order: npt.NDArray[np.int32],
    ) -> None:
        """Run the threads to their ends.

        What needs Python is done between runs of the scheduler. Waits for what is done
        in the background are held, and copies land, when no thread can go on.
        """
        record = self.record
        background = _Background(CopyEngine(self.arena, self.shared_bytes))
        generator = np.random.default_rng(int(record[runtime.RANDOM]))
        is_random = bool(record[runtime.RANDOM])
        while True:
            end = self._call("run", *rows, *handles, *_memref(order), *_memref(record))
            thread = int(record[runtime.CURRENT])
            if record[runtime.ERROR]:
                raise KernelError(f", thread {thread}: {self._failure()}")
            if end == runtime.FINISHED:
                break
            if end == runtime.CALLS:
                self._attempt(background, thread, True)
            # In a random order, what is under way may end at any time, in any order.
            early = is_random and generator.random() < 0.3
            if end == runtime.STUCK or early:
                held, loads = background.held, background.engine.loads
                number = int(generator.integers(1 << 30)) if is_random else 0
                if held and (not is_random or not loads or number & 1):
                    self._attempt(background, held.pop(number % len(held)), False)
                elif loads:
                    self._land(background, number % len(loads))
                elif not early:
                    raise KernelError(f": {self._standstill()}")
        try:
            background.engine.end()
            self._check_registers()
        except KernelError as error:
            raise KernelError(f": {error}") from None

    def _check_registers(self) -> None:
        """Check that there were as many registers as threads asked for.

        Raises:
            KernelError: if there were not: some of them would have waited forever.
        """
        asked = self.state[: self.threads, runtime.REGISTERS]
        if self.code.block is None or not asked.any():
            return
        each = min(REGISTERS // (self.code.groups * self.threads), 255) // 8 * 8
        taken = int(np.where(asked > 0, asked, each).sum())
        if taken > each * self.threads:
            raise KernelError(
                f"setmaxnreg: threads ask for {taken} registers, and there are "
                f"{each * self.threads}, {each} for each thread at the start"
            )

    def _failure(self) -> str:
        record = self.record
        code = int(record[runtime.ERROR])
        place = int(record[runtime.PLACE : runtime.PLACE + 2].view(np.int64)[0])
        reason = runtime.FAILURES[code]
        if code == runtime.RACE:
            return f"{reason}: byte {place}, after thread {int(record[runtime.OTHER])}"
        if code == runtime.OUT_OF_BOUNDS:
            at = place - self.arena.ctypes.data
            if 0 <= at < self.arena.size:
                return f"{reason}: byte {at} of {self.shared_bytes} shared bytes"
            # The array that begins next before the address is meant, most likely.
            before = [
                (place - int(first), int(last - first), number)
                for number, (first, last) in enumerate(self.ranges)
                if int(first) <= place
            ]
            if before:
                offset, size, number = min(before)
                return f"{reason}: byte {offset} of the {size} of array {number}"
        return reason

    def _land(self, background: _Background, number: int) -> None:
        try:
            background.engine.land(number)
        except KernelError as error:
            raise KernelError(f": {error}") from None

    def _attempt(self, background: _Background, thread: int, may_hold: bool) -> None:
        """Carry out an operation, or hold it; a group is named by its first thread."""
        kind = int(self.state[thread, runtime.KIND])
        count = 1 if kind >= runtime.FIRST_CALL else 128
        status = self.state[thread : thread + count, runtime.STATUS]
        if may_hold and kind in (runtime.WGMMA_WAIT, runtime.STORE_WAIT):
            background.held.append(thread)
            status[:] = runtime.HELD
            return
        try:
            if count == 1:
                self._thread_call(background.engine, thread)
            else:
                new = WarpGroup(self.arena, self.code.eager)
                group = background.groups.setdefault(thread, new)
                self._group_call(group, self.state[thread : thread + 128])
        except KernelError as error:
            place = f", thread {thread}, {self._site(thread)}"
            raise KernelError(f"{place}: {error}") from None
        status[:] = runtime.READY

    def _thread_call(self, engine: CopyEngine, thread: int) -> None:
        """Carry out an operation of one thread."""
        row = self.state[thread]
        kind = int(row[runtime.KIND])
        base = self.arena.ctypes.data
        inputs = row[runtime.INPUTS : runtime.OUTPUTS]
        pointers = inputs.view(np.int64)
        rank = self.code.counts.get(int(row[runtime.SITE]), 0)
        if kind == runtime.LOAD:
            to, descriptor, barrier = map(int, pointers[:3])
            at = tuple(map(int, inputs[6 : 6 + rank]))
            if not self.record[runtime.FENCES]:
                raise KernelError(
                    "mbarriers that the copy engine does not see: "
                    "no nvvm.fence.mbarrier.init"
                )
            engine.load(descriptor, at, to - base, barrier - base)
        elif kind == runtime.STORE:
            source, descriptor = map(int, pointers[:2])
            at = tuple(map(int, inputs[4 : 4 + rank]))
            engine.store(thread, descriptor, at, source - base)
        elif kind == runtime.STORE_COMMIT:
            engine.commit(thread)
        else:
            engine.wait(thread, int(row[runtime.ARGUMENT]))

    def _group_call(self, group: WarpGroup, rows: npt.NDArray[np.int32]) -> None:
        """Carry out an operation of the threads of a warp group."""
        words = rows.view(np.uint32)
        committed = int(rows[0, runtime.PRODUCTS])
        bulk = words[:, runtime.BULK :]
        if rows[0, runtime.KIND] == runtime.WGMMA_WAIT:
            last = committed - int(rows[0, runtime.ARGUMENT])
            size = self.code.counts.get(int(rows[0, runtime.SITE]), 0)
            bulk[:, :size] = group.wait(bulk[:, :size], last)
            rows[:, runtime.FENCED] = 0
            return
        product = self.code.products[int(rows[0, runtime.SITE])]
        inputs = words[:, runtime.INPUTS :]
        descriptors = inputs[:, :6].copy().view(np.uint64)
        same = descriptors[:, [2] if product.a_in_registers else [0, 2]]
        keeps = inputs[:, 6] != 0
        if np.any(same != same[0]) or np.any(keeps != keeps[0]):
            raise KernelError("operands that differ between the threads of the group")
        size = product.n // 2
        bulk[:, :size] = group.issue(
            product,
            bulk[:, :size],
            inputs[:, :4],
            (int(descriptors[0, 0]), int(descriptors[0, 2])),
            bool(keeps[0]),
            committed,
            bool(rows[:, runtime.FENCED].all()),
        )

    def _call(self, name: str, *arguments: Any) -> int:
        kinds = [ctypes.c_int64] * len(arguments)
        function = ctypes.CFUNCTYPE(c_int32, *kinds)(self.functions[name])
        return function(*arguments)

    def _where(self, at: tuple[int, int, int]) -> str:
        return f"kernel '{self.code.name}', block ({', '.join(map(str, at))})"

    def _site(self, thread: int) -> str:
        return self.code.sites[int(self.state[thread, runtime.SITE])]

    def _standstill(self) -> str:
        """Who waits where."""
        status = self.state[: self.threads, runtime.STATUS]
        groups: dict[str, list[int]] = {}
        for thread in range(self.threads):
            place = "ended"
            if status[thread] != runtime.ENDED:
                place = f"wait at {self._site(thread)}"
                if self.state[thread, runtime.KIND] == runtime.BARRIER:
                    number = int(self.state[thread, runtime.ARGUMENT])
                    place += f" (barrier {number})"
            groups.setdefault(place, []).append(thread)
        parts = [
            f"{len(threads)} threads from {threads[0]} on {place}"
            for place, threads in groups.items()
        ]
        return f"deadlock: {'; '.join(parts)}"


def _pointers(rows: npt.NDArray[np.int32], word: int) -> npt.NDArray[np.int64]:
    """Two words of each row as a pointer."""
    return rows.view(np.int64)[:, word // 2]


def _memref(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """An array as the words that a memref is passed as."""
    address = array.ctypes.data
    strides = (each // array.itemsize for each in array.strides)
    return address, address, 0, *array.shape, *strides
