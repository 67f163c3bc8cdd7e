"""Kernels in the llvm and nvvm dialects as coroutines, one for each thread.

A kernel becomes a function of two pointers, to the words of the launch and to the
thread's row (`moa_dialect.lowering.emulator_runtime`), that gives the handle of a
coroutine. What reads the thread's place reads its row. What synchronises writes its
operands into the row, suspends, and reads its results when it is resumed. Memory of
the block is one array, in which every variable has an offset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, ModuleOp, StringAttr, i32
from xdsl.ir import Block, Operation, SSAValue

from moa_dialect.errors import CompileError
from moa_dialect.lowering import emulator_runtime as runtime
from moa_dialect.lowering.nvvm_operations import (
    APPROXIMATE,
    IGNORED,
    OF_F32,
    OPERATIONS,
    WAITS,
    tall_product,
    wait_mbarrier,
    warp_group_assembly,
)
from moa_dialect.lowering.unregistered import (
    POINTER,
    Builder,
    attribute,
    bytes_of,
    declaration,
    integer_of,
    make,
    name_of,
    struct_fields,
    symbol_of,
    words_of,
)
from moa_dialect.lowering.warp_groups import Product

_DECLARED = {
    "aligned_alloc": "ptr (i64, i64)",
    "free": "void (ptr)",
    "moa_emulator_copy": "void (ptr, ptr, ptr, i32, i32)",
    "moa_emulator_commit": "void (ptr)",
    "moa_emulator_land": "void (ptr, i32)",
    "moa_emulator_mbarrier": "void (ptr, ptr, i32)",
    "moa_emulator_arrive": "i64 (ptr, ptr, i32, i32)",
    "moa_emulator_access": "ptr (ptr, ptr, i32, i32)",
    "moa_emulator_cluster_arrive": "void (ptr)",
    "moa_emulator_cluster_wait": "i32 (ptr)",
    "moa_emulator_mapa": "ptr (ptr, ptr, i32)",
    "moa_emulator_flush": "f32 (f32)",
    "moa_emulator_bf16x2": "i32 (f32, f32)",
}


_ACCESSES = {
    "llvm.load": 0,
    "llvm.store": 1,
    "llvm.atomicrmw": 0,
    "llvm.cmpxchg": 0,
}
"""Operations that access memory, and which operand is the address."""

_INSTRUCTION = re.compile(r"(mbarrier|wgmma)\.[a-z_]+(\.[a-z]+)?")
"""What assembly is called, in messages."""

_SAME_OBJECT = ("llvm.getelementptr", "llvm.addrspacecast", "llvm.bitcast")


@dataclass
class Shared:
    """The memory of a block: the offsets of its variables."""

    offsets: dict[str, int]
    dynamic: list[str]
    static_bytes: int


@dataclass
class KernelCode:
    """A kernel as a coroutine."""

    name: str
    symbol: str
    parameters: list[str]
    """The types of the parameters, each of which takes a word of the launch."""
    block: tuple[int, ...] | None
    """The threads in a block, if the kernel says so."""
    groups: int = 1
    """How many blocks a multiprocessor should have room for."""
    sites: list[str] = field(default_factory=list[str])
    """What threads wait at, for messages."""
    row_words: int = runtime.BULK
    copies: bool = False
    """Whether threads copy in the background."""
    products: dict[int, Product] = field(default_factory=dict[int, Product])
    """The products of warp groups, by their sites."""
    counts: dict[int, int] = field(default_factory=dict[int, int])
    """How many coordinates a copy of a box, or registers a wait has, by their sites."""
    eager: bool = False
    """Whether products of warp groups are waited for without their registers."""
    cluster: tuple[int, int, int] = (1, 1, 1)
    """How many blocks a cluster has along each axis of the grid."""


class Rewriter:
    """Turns one kernel into a coroutine.

    Raises:
        CompileError: for an operation that is not emulated.
    """

    def __init__(
        self, function: Operation, shared: Shared, symbol: str, checks: bool
    ) -> None:
        self.function = function
        self.checks = checks
        self.shared = shared
        self.library: dict[str, str] = {}
        """The functions of the host's library that are called, and their types."""
        self.numbers: Counter[str] = Counter()
        """How many operations of each name have been waited at."""
        name = function.properties["sym_name"]
        assert isinstance(name, StringAttr)
        (region,) = function.regions
        self.region = region
        first = region.blocks[0]
        known = function.attributes.get("gpu.known_block_size")
        sizes = function.attributes.get("nvvm.reqntid", known)
        block = None
        if isinstance(sizes, DenseArrayBase):
            block = tuple(int(size) for size in sizes.iter_values())
        self.code = KernelCode(
            name.data,
            symbol,
            [str(each.type) for each in first.args],
            block,
            integer_of(function, "nvvm.minctasm", 1),
            cluster=_cluster_of(function),
        )

    def run(self) -> KernelCode:
        """Rewrite the kernel in place."""
        operations = list(self.region.walk())
        accesses = [op for op in operations if self.checks and self._is_checked(op)]
        self._enclose()
        for op in accesses:
            self._check(op)
        for op in operations:
            name = name_of(op)
            if name == "llvm.mlir.addressof":
                self._address(op)
            elif name == "llvm.call":
                self._call(op)
            elif name == "llvm.call_intrinsic":
                self._intrinsic(op)
            elif name == "llvm.inline_asm":
                self._assembly(op, str(op.properties["asm_string"]))
            elif name == "nvvm.inline_ptx":
                self._assembly(op, str(op.properties["ptxCode"]))
            elif name.startswith(("nvvm.", "gpu.")):
                self._gpu(op, name)
        return self.code

    # The coroutine around the kernel.

    def _enclose(self) -> None:
        region = self.region
        body = region.blocks[0]
        entry = Block(arg_types=[attribute(POINTER)] * 2)
        region.insert_block(entry, 0)
        words, self.thread = entry.args
        end, final, cleanup = Block(), Block(), Block()
        for block in (final, cleanup, end):
            region.add_block(block)
        self.end, self.cleanup = end, cleanup

        jump = make("llvm.br", successors=[body])
        entry.add_op(jump)
        build = Builder(jump)
        null = build.value("llvm.mlir.zero", (), POINTER)
        zero = build.constant(0)
        self.none = build.value("llvm.mlir.none", (), "!llvm.token")
        self.false = build.value("llvm.mlir.constant", (), "i1", value="false")
        true = build.value("llvm.mlir.constant", (), "i1", value="true")
        identity = build.value(
            "llvm.intr.coro.id", (zero, null, null, null), "!llvm.token"
        )
        size = build.value("llvm.intr.coro.size", (), "i64")
        # aligned_alloc takes multiples of the alignment.
        up = build.value("llvm.add", (size, build.constant(63, "i64")), "i64")
        whole = build.value("llvm.and", (up, build.constant(-64, "i64")), "i64")
        (frame,) = build.call(
            "aligned_alloc", (build.constant(64, "i64"), whole), [POINTER]
        )
        self.handle = build.value("llvm.intr.coro.begin", (identity, frame), POINTER)
        # Allocations at a fixed place have to be in the first block.
        for op in list(region.walk()):
            if name_of(op) == "llvm.alloca":
                (count,) = op.operands
                owner = count.owner
                if not isinstance(owner, Operation) or (
                    name_of(owner) != "llvm.mlir.constant"
                ):
                    raise CompileError("emulator: an allocation of unknown size")
                number = owner.clone()  # Others may have the same size.
                op.operands[0] = number.results[0]
                op.detach()
                entry.insert_op_before(number, jump)
                entry.insert_op_before(op, jump)
        loads: list[SSAValue] = []
        for place, argument in enumerate(body.args):
            loads.append(build.load(words, place, argument.type, "i64"))
        for argument, load in zip(list(body.args), loads, strict=True):
            argument.replace_all_uses_with(load)
            body.erase_arg(argument)
        jump.detach()
        self._suspend(entry, body)

        for block in region.blocks:
            last = block.last_op
            if last is not None and name_of(last) == "llvm.return":
                block.insert_op_before(make("llvm.br", successors=[final]), last)
                last.detach()
        self._suspend(final, end, true)
        freed = make("llvm.intr.coro.free", (identity, self.handle), [POINTER])
        jump = make("llvm.br", successors=[end])
        cleanup.add_ops([freed, jump])
        Builder(jump).call("free", freed.results)
        last = make("llvm.return", (self.handle,))
        end.add_op(last)
        Builder(last).value(
            "llvm.intr.coro.end", (self.handle, self.false, self.none), "i1"
        )
        properties = self.function.properties
        properties["function_type"] = attribute("!llvm.func<ptr (ptr, ptr)>")
        properties["sym_name"] = StringAttr(self.code.symbol)
        properties["passthrough"] = ArrayAttr([StringAttr("presplitcoroutine")])
        properties["linkage"] = attribute("#llvm.linkage<external>")
        for name in ("arg_attrs", "denormal_fp_math_f32", "denormal_fp_math"):
            properties.pop(name, None)
        for name in list(self.function.attributes):
            if name.startswith(("nvvm.", "gpu.")):
                del self.function.attributes[name]

    def _suspend(
        self, block: Block, following: Block, final: SSAValue | None = None
    ) -> None:
        """End a block by a suspension, after which another one follows."""
        suspended = make(
            "llvm.intr.coro.suspend", (self.none, final or self.false), ["i8"]
        )
        choice = make(
            "llvm.switch",
            suspended.results,
            successors=[self.end, following, self.cleanup],
            case_operand_segments=DenseArrayBase.from_list(i32, [0, 0]),
            case_values="dense<[0, 1]> : vector<2xi8>",
            operandSegmentSizes=DenseArrayBase.from_list(i32, [1, 0, 0]),
        )
        block.add_ops([suspended, choice])

    # Waiting.

    def wait(
        self,
        op: Operation,
        kind: int,
        inputs: Sequence[SSAValue] = (),
        mask: SSAValue | None = None,
        argument: int | SSAValue = 0,
        count: SSAValue | None = None,
        address: SSAValue | None = None,
        at: int = runtime.INPUTS,
        more: dict[int, SSAValue] | None = None,
    ) -> Builder:
        """Suspend before an operation; gives where its results may be read.

        Args:
            op: the operation.
            kind: what it is.
            inputs: operands, written into the row one after the other.
            mask: the lanes that take part; all without.
            argument: a number that says more.
            count: how many threads a barrier has.
            address: where matrices or an mbarrier are.
            at: the word of the row where the inputs begin.
            more: other operands by their words.
        """
        build = Builder(op)
        thread = self.thread
        sites = self.code.sites
        name = name_of(op)
        if name == "llvm.inline_asm" and (
            found := _INSTRUCTION.search(str(op.properties["asm_string"]))
        ):
            name = found[0]
        self.numbers[name] += 1
        sites.append(f"{name}, number {self.numbers[name]} in the kernel")
        if isinstance(argument, int):
            argument = build.constant(argument)
        for value, word in (
            (build.constant(kind), runtime.KIND),
            (build.constant(len(sites) - 1), runtime.SITE),
            (mask or build.constant(-1), runtime.MASK),
            (argument, runtime.ARGUMENT),
            (count or build.constant(0), runtime.COUNT),
        ):
            build.store(value, thread, word)
        if address is not None:
            build.store(address, thread, runtime.ADDRESS)
        for word, value in (more or {}).items():
            build.store(value, thread, word)
        for value in inputs:
            build.store(value, thread, at)
            at += words_of(value.type)
        self.code.row_words = max(self.code.row_words, -(-at // 16) * 16)
        block = op.parent
        assert block is not None
        following = block.split_before(op)
        self._suspend(block, following)
        return build

    def results(
        self, build: Builder, op: Operation, at: int = runtime.OUTPUTS
    ) -> list[SSAValue]:
        """Read the fields of an operation's result from the row."""
        values: list[SSAValue] = []
        for type_ in struct_fields(op.results[0].type):
            if type_ == "i1":
                word = build.load(self.thread, at, "i32")
                values.append(build.value("llvm.trunc", (word,), "i1"))
                at += 1
            else:
                values.append(build.load(self.thread, at, type_))
                at += words_of(attribute(type_))
        return values

    def replace(self, op: Operation, *values: SSAValue) -> None:
        """Put values, or a struct of them, in the place of an operation."""
        if op.results:
            (result,) = op.results
            value = values[0]
            if str(result.type).startswith("!llvm.struct"):
                value = Builder(op).pack(values, result.type)
            result.replace_all_uses_with(value)
        op.detach()
        op.erase()

    # Operations.

    def _is_checked(self, op: Operation) -> bool:
        """Whether an operation accesses memory that is not the thread's own."""
        place = _ACCESSES.get(name_of(op))
        if place is None:
            return False
        base = op.operands[place].owner
        while isinstance(base, Operation) and name_of(base) in _SAME_OBJECT:
            base = base.operands[0].owner
        if not isinstance(base, Operation):
            return True
        if name_of(base) == "llvm.mlir.addressof":
            return symbol_of(base, "global_name") in self.shared.offsets
        return name_of(base) != "llvm.alloca"

    def _check(self, op: Operation) -> None:
        """Have an access go through the function that checks it."""
        name = name_of(op)
        place = _ACCESSES[name]
        pointer = op.operands[place]
        values = [each.type for each in op.results] or [op.operands[0].type]
        build = Builder(op)
        size = build.constant(bytes_of(str(values[0])))
        write = build.constant(int(name == "llvm.store"))
        operands = (self.thread, build.cast(pointer), size, write)
        (safe,) = build.call("moa_emulator_access", operands, [POINTER])
        if safe.type != pointer.type:
            safe = build.value("llvm.addrspacecast", (safe,), pointer.type)
        op.operands[place] = safe

    def _address(self, op: Operation) -> None:
        name = symbol_of(op, "global_name")
        if name not in self.shared.offsets:
            return
        build = Builder(op)
        block = build.load(self.thread, runtime.BLOCK, POINTER)
        base = build.load(block, runtime.SHARED, POINTER)
        pointer = build.address(base, self.shared.offsets[name], "i8")
        type_ = op.results[0].type
        self.replace(op, build.value("llvm.addrspacecast", (pointer,), type_))

    def _call(self, op: Operation) -> None:
        callee = symbol_of(op, "callee")
        if not callee.startswith("__nv_"):
            return
        # What libdevice has, the host's library of mathematics has too.
        build = Builder(op)
        name = callee.removeprefix("__nv_").removeprefix("fast_")
        types = [value.type for value in op.operands]
        result = op.results[0].type
        if name in ("rsqrt", "rsqrtf"):
            (x,) = op.operands
            root = build.value(
                "llvm.intr.sqrt", (x,), result, fastmathFlags="#llvm.fastmath<none>"
            )
            one = build.value("llvm.mlir.constant", (), result, value=f"1.0 : {result}")
            value = build.value(
                "llvm.fdiv", (one, root), result, fastmathFlags="#llvm.fastmath<none>"
            )
        else:
            (value,) = build.call(name, op.operands, [result])
            self.library[name] = f"{result} ({', '.join(map(str, types))})"
        self.replace(op, value)

    def _intrinsic(self, op: Operation) -> None:
        name = str(op.properties["intrin"]).strip('"')
        if not name.startswith("llvm.nvvm."):
            return
        found = re.fullmatch(r"llvm\.nvvm\.(\w+)\.approx(\.ftz)?(\.f|\.f32)?", name)
        if found is None or found[1] not in APPROXIMATE:
            raise CompileError(
                f"kernel '{self.code.name}': the emulator does not know {name}"
            )
        self._approximate(op, found[1], found[2] is not None)

    def _assembly(self, op: Operation, text: str) -> None:
        text = text.strip('"')
        name = text.split()[0].rstrip(";")
        if "wgmma." in text:
            warp_group_assembly(self, op, text)
            return
        if WAITS.fullmatch(text):
            wait_mbarrier(self, op)
            return
        if name.startswith("mma.sync."):
            tall_product(self, op, text)
            return
        if name == "cvt.rna.tf32.f32":
            self._rounded_to_tf32(op)
            return
        parts = name.split(".")
        if parts[0] not in APPROXIMATE or parts[1:] not in OF_F32:
            raise CompileError(
                f"kernel '{self.code.name}': the emulator does not know the "
                f"instruction {name}"
            )
        self._approximate(op, parts[0], "ftz" in parts)

    def _rounded_to_tf32(self, op: Operation) -> None:
        """Round an f32 to the nearest number of 10 bits, ties away from 0, as a word.

        NaN stays what it is; what is too large becomes infinite by the carry.
        """
        build = Builder(op)
        (value,) = op.operands
        bits = build.value("llvm.bitcast", (value,), "i32")
        half, kept = build.constant(1 << 12), build.constant(-(1 << 13))
        carried = build.value("llvm.add", (bits, half), "i32")
        rounded = build.value("llvm.and", (carried, kept), "i32")
        is_nan = build.value("llvm.fcmp", (value, value), "i1", predicate="14 : i64")
        chosen = build.value("llvm.select", (is_nan, bits, rounded), "i32")
        self.replace(op, chosen)

    def _approximate(self, op: Operation, name: str, flushes: bool) -> None:
        build = Builder(op)
        (value,) = op.operands
        if flushes:
            (value,) = build.call("moa_emulator_flush", (value,), ["f32"])
        value = APPROXIMATE[name](build, value)
        if flushes:
            (value,) = build.call("moa_emulator_flush", (value,), ["f32"])
        self.replace(op, value)

    def _gpu(self, op: Operation, name: str) -> None:
        if found := re.fullmatch(r"nvvm\.read\.ptx\.sreg\.(\w+)\.([xyz])", name):
            self._register(op, found[1], "xyz".index(found[2]))
        elif name == "nvvm.read.ptx.sreg.cluster.ctarank":
            build = Builder(op)
            block = build.load(self.thread, runtime.BLOCK, POINTER)
            self.replace(op, build.load(block, runtime.RANK, "i32"))
        elif name == "nvvm.read.ptx.sreg.laneid":
            build = Builder(op)
            linear = build.load(self.thread, runtime.LINEAR, "i32")
            self.replace(
                op, build.value("llvm.and", (linear, build.constant(31)), "i32")
            )
        elif name in IGNORED:
            self.replace(op)
        elif name in OPERATIONS:
            OPERATIONS[name](self, op)
        else:
            raise CompileError(
                f"kernel '{self.code.name}': the emulator does not know {name}"
            )

    def _register(self, op: Operation, register: str, axis: int) -> None:
        build = Builder(op)
        base, word = self.thread, runtime.TID
        if register in ("ctaid", "nctaid", "ntid"):
            base = build.load(self.thread, runtime.BLOCK, POINTER)
            word = {
                "ctaid": runtime.CTAID,
                "nctaid": runtime.NCTAID,
                "ntid": runtime.NTID,
            }[register]
        elif register != "tid":
            raise CompileError(
                f"kernel '{self.code.name}': the emulator does not know {name_of(op)}"
            )
        self.replace(op, build.load(base, word + axis, "i32"))


def _cluster_of(function: Operation) -> tuple[int, int, int]:
    """How many blocks a cluster of a kernel has along each axis."""
    shape = function.attributes.get("nvvm.cluster_dim")
    if not isinstance(shape, DenseArrayBase):
        return 1, 1, 1
    x, y, z, *_ = (*map(int, shape.iter_values()), 1, 1, 1)
    return x, y, z


def place_shared(operations: Sequence[Operation]) -> Shared:
    """Give the variables in the memory of a block offsets and remove them."""
    shared = Shared({}, [], 0)
    dynamic_alignment = 16
    for op in operations:
        if name_of(op) != "llvm.mlir.global" or integer_of(op, "addr_space", 0) != 3:
            continue
        name = op.properties["sym_name"]
        assert isinstance(name, StringAttr)
        size = bytes_of(str(op.properties["global_type"]))
        alignment = max(integer_of(op, "alignment", 16), 16)
        if size == 0:
            shared.dynamic.append(name.data)
            dynamic_alignment = max(dynamic_alignment, alignment)
        else:
            start = -(-shared.static_bytes // alignment) * alignment
            shared.offsets[name.data] = start
            shared.static_bytes = start + size
        op.detach()
    start = -(-shared.static_bytes // dynamic_alignment) * dynamic_alignment
    if shared.dynamic:
        shared.static_bytes = start
    shared.offsets.update(dict.fromkeys(shared.dynamic, start))
    return shared


def to_coroutines(
    module: ModuleOp, prefix: str, checks: bool = False
) -> tuple[list[KernelCode], Shared]:
    """Turn the kernels of a module into coroutines, in place.

    The module has one `gpu.module` with content in the llvm and nvvm dialects; that
    content takes its place.

    Args:
        module: the module.
        prefix: what the symbols of the kernels begin with.
        checks: whether each access to memory is checked.

    Raises:
        CompileError: if there is no kernel, or one has an operation that is not
            emulated.
    """
    inside = [op for op in module.ops if name_of(op) == "gpu.module"]
    if len(inside) != 1:
        raise CompileError(
            f"emulator: expected one gpu.module, got {len(inside)} of them"
        )
    (gpu_module,) = inside
    operations = list(gpu_module.regions[0].blocks[0].ops)
    for op in list(module.ops):
        op.detach()
    shared = place_shared(operations)
    kernels: list[KernelCode] = []
    library: dict[str, str] = {}
    kept: list[Operation] = []
    for op in operations:
        name = name_of(op)
        if op.parent is None or name == "gpu.module_end":
            continue
        op.detach()
        if name == "llvm.func":
            if "nvvm.kernel" in op.attributes:
                rewriter = Rewriter(op, shared, f"{prefix}_{len(kernels)}", checks)
                kernels.append(rewriter.run())
                library |= rewriter.library
            else:
                symbol = op.properties["sym_name"]
                assert isinstance(symbol, StringAttr)
                if symbol.data.startswith("__nv_"):
                    continue
                _check_function(op, symbol.data)
        kept.append(op)
    if not kernels:
        raise CompileError("emulator: the module has no kernel")
    defined = {op.properties.get("sym_name") for op in kept}
    for name, type_ in (_DECLARED | library).items():
        if StringAttr(name) not in defined:
            module.body.block.add_op(declaration(name, type_))
    module.body.block.add_ops(kept)
    return kernels, shared


def _check_function(function: Operation, name: str) -> None:
    for op in _inside(function):
        if name_of(op).startswith(("nvvm.", "gpu.")):
            raise CompileError(
                f"emulator: {name_of(op)} in the function '{name}', which is no kernel"
            )


def _inside(function: Operation) -> Iterator[Operation]:
    for region in function.regions:
        yield from region.walk()
