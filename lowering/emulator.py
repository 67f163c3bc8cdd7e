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
from math import prod
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
from moa_dialect.lowering.races import Races
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
                of the launch or the memory of the block, and that no two warps access
                the same bytes, one of them to write, unless they know by barriers
                which one was first.

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
        """Run a kernel, block after block, or cluster after cluster of blocks.

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
        run = _Launch(self, code, block, words, size, memory, order, seed)
        width, height, depth = code.cluster
        for z in range(0, grid[2], depth):
            for y in range(0, grid[1], height):
                for x in range(0, grid[0], width):
                    run.cluster((x, y, z), grid)

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
        if any(count % size for count, size in zip(grid, code.cluster, strict=True)):
            raise KernelError(
                f"kernel '{kernel}': expected whole clusters of "
                f"{'x'.join(map(str, code.cluster))} blocks, "
                f"got {'x'.join(map(str, grid))} blocks"
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
    """What is the same for all blocks of a launch, and a cluster of them at a time."""

    def __init__(
        self,
        emulator: Emulator,
        code: KernelCode,
        block: tuple[int, int, int],
        words: Sequence[int],
        shared_bytes: int,
        memory: Sequence[tuple[int, int]] | None,
        order: str,
        seed: int,
    ) -> None:
        self.code = code
        self.checks = 0
        if emulator.checks:
            bounds = runtime.BOUNDS * (memory is not None)
            # What blocks of a cluster do in each other's memory is not followed.
            is_alone = prod(code.cluster) == 1
            self.checks = runtime.CHECKED | bounds | runtime.RACES * is_alone
        # Beside each byte of an array who has written and who has read it last.
        follows = bool(self.checks & runtime.RACES)
        self.shadows = [np.zeros(2 * n * follows, np.int64) for _, n in memory or ()]
        ranges = [
            (first, first + size, shadow.ctypes.data)
            for (first, size), shadow in zip(memory or (), self.shadows, strict=True)
        ]
        self.ranges = np.array(ranges, np.uint64).reshape(-1, 3)
        self.block_size = block
        self.threads = block[0] * block[1] * block[2]
        self.rows = -(-self.threads // 32) * 32
        self.words = np.array([word & (1 << 64) - 1 for word in words], np.uint64)
        self.shared_bytes = shared_bytes
        self.order = order
        self.generator = np.random.default_rng(seed)
        self.address = emulator._code[code.name]  # pyright: ignore[reportPrivateUsage]
        functions = emulator._runtime  # pyright: ignore[reportPrivateUsage]
        self.functions = {name: _address(each) for name, each in functions.items()}
        first = np.zeros((self.rows, code.row_words), np.int32)
        linear = np.arange(self.rows)
        first[:, runtime.LINEAR] = linear
        first[:, runtime.TID] = linear % block[0]
        first[:, runtime.TID + 1] = linear // block[0] % block[1]
        first[:, runtime.TID + 2] = linear // (block[0] * block[1])
        first[self.threads :, runtime.STATUS] = runtime.ENDED
        self.first = first
        count = prod(code.cluster)
        self.meeting = np.zeros(runtime.BASES + count, np.int64)
        self.blocks = [_Block(self, rank) for rank in range(count)]
        for block_ in self.blocks:
            self.meeting[runtime.BASES + block_.rank] = block_.arena.ctypes.data

    def cluster(self, at: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        """Run the blocks of a cluster to their ends, of which the first is at a place.

        What needs Python is done between runs of the scheduler. Waits for what is done
        in the background are held, and copies land, when no thread can go on.
        """
        width, height, _ = self.code.cluster
        self.meeting[: runtime.BASES] = 0, 0, self.threads * len(self.blocks), 0
        self.meeting[runtime.BLOCKS] = len(self.blocks)
        for rank, block in enumerate(self.blocks):
            x, y, z = rank % width, rank // width % height, rank // (width * height)
            order = _order(self.rows, self.order, self.generator)
            block.start((at[0] + x, at[1] + y, at[2] + z), grid, order)
        try:
            self._run()
        finally:
            for block in self.blocks:
                block.free()

    def _run(self) -> None:
        running = self.blocks[:: -1 if self.order == "reverse" else 1]
        random = running[0].random
        while running:
            goes_on, turns = False, list(running)
            if running[0].is_random and len(turns) > 1:
                random.shuffle(turns)
            for block in turns:
                went, has_ended = block.run(self.blocks)
                if has_ended:
                    running.remove(block)
                goes_on |= went
            if goes_on or not running:
                continue
            if not any(block.step() for block in turns):
                places = [block.standstill() for block in running]
                raise KernelError(f"{running[0].where()}: {'; '.join(places)}")


class _Block:
    """The state of one block of a cluster, used for one cluster after the other."""

    def __init__(self, launch: _Launch, rank: int) -> None:
        self.launch, self.code, self.rank = launch, launch.code, rank
        self.rows, self.threads = launch.rows, launch.threads
        self.shared_bytes = launch.shared_bytes
        self.races: Races | None = None
        if launch.checks & runtime.RACES:
            self.races = Races(launch.shared_bytes, self.rows // 32)
        self.arena = _aligned(runtime.ARENA_BYTES, runtime.ARENA_BYTES)
        size = self.rows * self.code.row_words
        self.state = _aligned(4 * size, 64).view(np.int32).reshape(self.rows, -1)
        self.record = np.zeros(runtime.BLOCK_WORDS, np.int32)
        self.handles = np.zeros(self.rows, np.int64)
        queue = runtime.QUEUE_CAPACITY if self.code.copies else 0
        self.queues = np.empty((self.rows, 4 * queue), np.int64)
        self.background = self._nothing()
        self.at = (0, 0, 0)
        self.has_started = self.has_ended = self.is_random = False
        self.order = np.zeros(0, np.int32)
        self.random = np.random.default_rng(0)

    def start(
        self,
        at: tuple[int, int, int],
        grid: tuple[int, int, int],
        order: npt.NDArray[np.int32],
    ) -> None:
        """Begin to run the block at a place of the grid."""
        launch, record = self.launch, self.record
        self.at, self.order = at, order
        self.arena.fill(0xFF)
        self.state[:] = launch.first
        _pointers(self.state, runtime.BLOCK)[:] = record.ctypes.data
        _pointers(self.state, runtime.QUEUE)[:] = (
            self.queues.ctypes.data + np.arange(self.rows) * self.queues.strides[0]
        )
        record[:] = 0
        record[runtime.CTAID : runtime.CTAID + 3] = at
        record[runtime.NCTAID : runtime.NCTAID + 3] = grid
        record[runtime.NTID : runtime.NTID + 3] = launch.block_size
        record[runtime.THREADS] = self.threads
        record[runtime.RANK] = self.rank
        record[runtime.NUMBER] = 1 + at[0] + grid[0] * (at[1] + grid[1] * at[2])
        for word, array in (
            (runtime.SHARED, self.arena),
            (runtime.RANGES_AT, launch.ranges),
            (runtime.CLUSTER, launch.meeting),
        ):
            record[word : word + 2].view(np.int64)[0] = array.ctypes.data
        record[runtime.CHECKS] = launch.checks
        record[runtime.SIZE] = self.shared_bytes
        record[runtime.RANGES] = len(launch.ranges)
        if self.races is not None:
            self.races.start()
            record[runtime.ENTITIES] = self.races.entities
            for word, array in (
                (runtime.SHADOW, self.races.shadow),
                (runtime.CLOCKS, self.races.clocks),
            ):
                record[word : word + 2].view(np.int64)[0] = array.ctypes.data
        is_plain = bool(np.all(np.diff(order) == 1) or np.all(np.diff(order) == -1))
        record[runtime.RANDOM] = 0 if is_plain else int(order[0]) * 2 + 1
        self.is_random = not is_plain
        self.random = np.random.default_rng(int(record[runtime.RANDOM]))
        self.background = self._nothing()
        self.has_ended = False
        words = launch.words.ctypes.data
        rows, handles = _memref(self.state), _memref(self.handles)
        self._call("start", launch.address, words, *rows, *handles, self.threads)
        self.has_started = True

    def _nothing(self) -> _Background:
        """Nothing under way."""
        return _Background(CopyEngine(self.arena, self.shared_bytes, self.races))

    def free(self) -> None:
        """Free the threads of the block."""
        if self.has_started:
            self._call("end", *_memref(self.handles), self.threads)
        self.has_started = False

    def run(self, blocks: Sequence[_Block]) -> tuple[bool, bool]:
        """Run the threads until none can go on, or in a random order for a while.

        Args:
            blocks: those of the cluster.

        Returns:
            Whether something was done, and whether the block has ended.
        """
        record = self.record
        before = int(record[runtime.RESUMED])
        states = _memref(self.state), _memref(self.handles), _memref(self.order)
        words = [word for state in states for word in state]
        end = runtime.CALLS
        while end == runtime.CALLS:
            end = self._call("run", *words, *_memref(record))
            thread = int(record[runtime.CURRENT])
            if record[runtime.ERROR]:
                raise KernelError(f"{self.where()}, thread {thread}: {self._failure()}")
            if end == runtime.FINISHED:
                self._end()
                return True, True
            if end == runtime.CALLS:
                self._attempt(thread, True, blocks)
                if self.is_random:
                    break
        # What one block of several does may let another one go on.
        went = end != runtime.STUCK
        went |= len(blocks) > 1 and int(record[runtime.RESUMED]) != before
        # In a random order, what is under way may end at any time, in any order.
        if went and self.is_random and self.random.random() < 0.3:
            self.step()
        return went, False

    def step(self) -> bool:
        """Let something land or end that is under way; gives whether there was any."""
        held, loads = self.background.held, self.background.engine.loads
        number = int(self.random.integers(1 << 30)) if self.is_random else 0
        if held and (not self.is_random or not loads or number & 1):
            self._attempt(held.pop(number % len(held)), False)
        elif loads:
            try:
                self.background.engine.land(number % len(loads))
            except KernelError as error:
                raise KernelError(f"{self.where()}: {error}") from None
        else:
            return False
        return True

    def _end(self) -> None:
        """Check how the block ends; from then on nobody may use its memory."""
        self.has_ended = True
        try:
            self.background.engine.end()
            self._check_registers()
        except KernelError as error:
            raise KernelError(f"{self.where()}: {error}") from None
        if np.any(self.arena[self.shared_bytes :] != 0xFF):
            raise KernelError(
                f"{self.where()}: a write beyond the {self.shared_bytes} bytes of "
                f"its shared memory"
            )
        self.arena.fill(0xFF)

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
        """What the runtime reports."""
        record = self.record
        code = int(record[runtime.ERROR])
        place = int(record[runtime.PLACE : runtime.PLACE + 2].view(np.int64)[0])
        reason = runtime.FAILURES[code]
        if code == runtime.RACE and self.races is not None:
            who = self.races.name(int(record[runtime.OTHER]))
            return f"{reason}: byte {place}, after {who}"
        if code in (runtime.OUT_OF_BOUNDS, runtime.RACE_IN_ARRAYS):
            at = place - self.arena.ctypes.data
            if 0 <= at < self.arena.size:
                return f"{reason}: byte {at} of {self.shared_bytes} shared bytes"
            # The array that begins next before the address is meant, most likely.
            before = [
                (place - int(first), int(last - first), number)
                for number, (first, last, _) in enumerate(self.launch.ranges)
                if int(first) <= place
            ]
            if before:
                offset, size, number = min(before)
                found = f"{reason}: byte {offset} of the {size} of array {number}"
                if code == runtime.RACE_IN_ARRAYS:
                    other, thread = divmod(int(record[runtime.OTHER]), 1024)
                    found += f", after thread {thread}"
                    found += " of another block" if other else ""
                return found
        return reason

    def _attempt(
        self, thread: int, may_hold: bool, blocks: Sequence[_Block] = ()
    ) -> None:
        """Carry out an operation, or hold it; a group is named by its first thread."""
        kind = int(self.state[thread, runtime.KIND])
        count = 1 if kind >= runtime.FIRST_CALL else 128
        status = self.state[thread : thread + count, runtime.STATUS]
        if may_hold and kind in (runtime.WGMMA_WAIT, runtime.STORE_WAIT):
            self.background.held.append(thread)
            status[:] = runtime.HELD
            return
        try:
            if kind == runtime.LOAD:
                self._load(thread, blocks)
            elif count == 1:
                self._thread_call(self.background.engine, thread)
            else:
                eager = self.code.eager
                new = WarpGroup(self.arena, eager, thread // 32, self.races)
                group = self.background.groups.setdefault(thread, new)
                self._group_call(group, self.state[thread : thread + 128])
        except KernelError as error:
            place = f", thread {thread}, {self._site(thread)}"
            raise KernelError(f"{self.where()}{place}: {error}") from None
        status[:] = runtime.READY

    def _load(self, thread: int, blocks: Sequence[_Block]) -> None:
        """Begin a copy of a box to the memory of the block, or of those of a mask."""
        row = self.state[thread]
        inputs = row[runtime.INPUTS : runtime.OUTPUTS]
        to, descriptor, barrier = map(int, inputs.view(np.int64)[:3])
        rank = self.code.counts.get(int(row[runtime.SITE]), 0)
        at = tuple(map(int, inputs[7 : 7 + rank]))
        base, mask = self.arena.ctypes.data, int(inputs[6])
        found: list[_Block] = [self]
        if row[runtime.ARGUMENT]:
            if not 0 < mask < 1 << len(blocks):
                raise KernelError(
                    f"a mask of blocks {mask:#x}, of a cluster that has {len(blocks)}"
                )
            found = [block for block in blocks if mask >> block.rank & 1]
        for block in found:
            if block.has_ended:
                raise KernelError(
                    f"a copy to the block of rank {block.rank}, which has ended"
                )
            if not block.record[runtime.FENCES]:
                raise KernelError(
                    "mbarriers that the copy engine does not see: "
                    "no nvvm.fence.mbarrier.init"
                )
            places = to - base, barrier - base
            block.background.engine.load(descriptor, at, *places, thread)

    def _thread_call(self, engine: CopyEngine, thread: int) -> None:
        """Carry out an operation of one thread on copies to global memory."""
        row = self.state[thread]
        kind = int(row[runtime.KIND])
        inputs = row[runtime.INPUTS : runtime.OUTPUTS]
        pointers = inputs.view(np.int64)
        rank = self.code.counts.get(int(row[runtime.SITE]), 0)
        if kind == runtime.STORE:
            source, descriptor = map(int, pointers[:2])
            at = tuple(map(int, inputs[4 : 4 + rank]))
            engine.store(thread, descriptor, at, source - self.arena.ctypes.data)
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
        function = ctypes.CFUNCTYPE(c_int32, *kinds)(self.launch.functions[name])
        return function(*arguments)

    def where(self) -> str:
        """Which block it is, for messages."""
        return f"kernel '{self.code.name}', block ({', '.join(map(str, self.at))})"

    def _site(self, thread: int) -> str:
        return self.code.sites[int(self.state[thread, runtime.SITE])]

    def standstill(self) -> str:
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
        place = "deadlock"
        if len(self.launch.blocks) > 1:
            place += f" of the block of rank {self.rank}"
        return f"{place}: {'; '.join(parts)}"


def _pointers(rows: npt.NDArray[np.int32], word: int) -> npt.NDArray[np.int64]:
    """Two words of each row as a pointer."""
    return rows.view(np.int64)[:, word // 2]


def _memref(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """An array as the words that a memref is passed as."""
    address = array.ctypes.data
    strides = (each // array.itemsize for each in array.strides)
    return address, address, 0, *array.shape, *strides
