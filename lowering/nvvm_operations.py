"""How operations of the nvvm dialect are carried out by coroutines.

Each function replaces one operation of a kernel. Those that need other threads are
suspended at (`Rewriter.wait`); the scheduler carries them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from xdsl.ir import Operation, SSAValue

from moa_dialect.errors import CompileError
from moa_dialect.lowering import emulator_runtime as runtime
from moa_dialect.lowering.unregistered import (
    POINTER,
    Builder,
    integer_of,
    name_of,
    segments_of,
    struct_fields,
    word_of,
)
from moa_dialect.lowering.warp_groups import Product

if TYPE_CHECKING:
    from moa_dialect.lowering.coroutines import Rewriter


def _unary(intrinsic: str) -> Callable[[Builder, SSAValue], SSAValue]:
    def build_it(build: Builder, value: SSAValue) -> SSAValue:
        return build.value(
            f"llvm.intr.{intrinsic}",
            (value,),
            "f32",
            fastmathFlags="#llvm.fastmath<none>",
        )

    return build_it


def _reciprocal(build: Builder, value: SSAValue) -> SSAValue:
    one = build.value("llvm.mlir.constant", (), "f32", value="1.0 : f32")
    none = "#llvm.fastmath<none>"
    return build.value("llvm.fdiv", (one, value), "f32", fastmathFlags=none)


def _reciprocal_root(build: Builder, value: SSAValue) -> SSAValue:
    return _reciprocal(build, _unary("sqrt")(build, value))


APPROXIMATE = {
    "ex2": _unary("exp2"),
    "lg2": _unary("log2"),
    "sin": _unary("sin"),
    "cos": _unary("cos"),
    "sqrt": _unary("sqrt"),
    "tanh": _unary("tanh"),
    "rcp": _reciprocal,
    "rsqrt": _reciprocal_root,
}
"""Instructions that approximate a function of an f32; here it is rounded well."""

OF_F32 = (["approx", "f32"], ["approx", "ftz", "f32"])

IGNORED = {
    "nvvm.fence.proxy",
    "nvvm.fence.sc.cluster",
    "nvvm.griddepcontrol.launch.dependents",
    "nvvm.griddepcontrol.wait",
    "nvvm.memory.barrier",
    "nvvm.prefetch",
    "nvvm.mbarrier.inval",
}
"""Operations that have no effect where memory is in order."""


def _barrier(rewriter: Rewriter, op: Operation) -> None:
    number: SSAValue | int = 0
    count = None
    kind = runtime.BARRIER
    if name_of(op) == "nvvm.barrier.arrive":
        kind = runtime.ARRIVAL
        *numbers, count = op.operands
        if numbers:
            (number,) = numbers
    elif name_of(op) == "nvvm.barrier":
        numbers, counts, predicates = segments_of(op)
        if predicates:
            raise CompileError("emulator: nvvm.barrier with a reduction")
        if numbers:
            (number,) = numbers
        if counts:
            (count,) = counts
    rewriter.wait(op, kind, argument=number, count=count)
    rewriter.replace(op)


def _warp_barrier(rewriter: Rewriter, op: Operation) -> None:
    rewriter.wait(op, runtime.WARP_BARRIER, mask=op.operands[0])
    rewriter.replace(op)


def _shuffle(rewriter: Rewriter, op: Operation) -> None:
    mask, *inputs = op.operands
    kind = runtime.SHUFFLES[word_of(op, "kind")]
    build = rewriter.wait(op, runtime.SHUFFLE, inputs, mask, kind)
    rewriter.replace(op, *rewriter.results(build, op))


def _vote(rewriter: Rewriter, op: Operation) -> None:
    mask, predicate = op.operands
    word = Builder(op).value("llvm.zext", (predicate,), "i32")
    kind = runtime.VOTES[word_of(op, "kind")]
    build = rewriter.wait(op, runtime.VOTE, (word,), mask, kind)
    rewriter.replace(op, *rewriter.results(build, op))


def _elect(rewriter: Rewriter, op: Operation) -> None:
    mask = op.operands[0] if op.operands else None
    word = Builder(op).constant(0)
    build = rewriter.wait(op, runtime.VOTE, (word,), mask, len(runtime.VOTES))
    rewriter.replace(op, *rewriter.results(build, op))


def _redux(rewriter: Rewriter, op: Operation) -> None:
    value, mask = op.operands
    kind = word_of(op, "kind")
    if kind not in runtime.REDUCTIONS or str(value.type) != "i32":
        raise CompileError(f"emulator: nvvm.redux.sync {kind} of {value.type}")
    build = rewriter.wait(op, runtime.REDUX, (value,), mask, runtime.REDUCTIONS[kind])
    rewriter.replace(op, *rewriter.results(build, op))


def _mma(rewriter: Rewriter, op: Operation) -> None:
    groups = segments_of(op)
    inputs = [value for group in groups for value in group]
    m, n, k = map(int, re.findall(r"\d+", str(op.properties["shape"])))
    kind = word_of(op, "multiplicandAPtxType")
    if not kind:
        text = str(groups[0][0].type)
        kind = {"vector<2xf16>": "f16", "f64": "f64"}.get(text, text)
    layouts = word_of(op, "layoutA"), word_of(op, "layoutB")
    size = (8, 8) if kind == "f64" else (16, 8)
    accumulator = str(groups[2][0].type)
    key = (kind, k)
    if (
        (m, n) != size
        or key not in runtime.MMA_SHAPES
        or layouts != ("row", "col")
        or accumulator != ("f64" if kind == "f64" else "f32")
    ):
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know mma.sync "
            f"m{m}n{n}k{k} of {kind} into {accumulator}, {', '.join(layouts)}"
        )
    build = rewriter.wait(op, runtime.MMA, inputs, argument=runtime.MMA_SHAPES[key])
    rewriter.replace(op, *rewriter.results(build, op))


_TALL = re.compile(
    r"mma\.sync\.aligned\.m16n8k(4|8|16)\.row\.col\.f64\.f64\.f64\.f64\s.*"
)


def tall_product(rewriter: Rewriter, op: Operation, text: str) -> None:
    """Handle a product of f64 of 16 rows, as several of 8 rows and 4 terms.

    Raises:
        CompileError: for any other `mma.sync` in inline assembly.
    """
    found = _TALL.fullmatch(text)
    steps = int(found[1]) // 4 if found else 0
    if len(op.operands) != 3 * steps + 4:
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know the "
            f"instruction {text}"
        )
    operands = list(op.operands)
    left, right = operands[: 2 * steps], operands[2 * steps : 3 * steps]
    sums = operands[3 * steps :]
    for half in (0, 1):
        part = sums[2 * half : 2 * half + 2]
        for step in range(steps):
            inputs = [left[2 * step + half], right[step], *part]
            argument = runtime.MMA_SHAPES["f64", 4]
            build = rewriter.wait(op, runtime.MMA, inputs, argument=argument)
            part = rewriter.results(build, op)[:2]
        sums[2 * half : 2 * half + 2] = part
    rewriter.replace(op, *sums)


def _ldmatrix(rewriter: Rewriter, op: Operation) -> None:
    (pointer,) = op.operands
    _check_matrix(rewriter, op)
    argument = integer_of(op, "num") + 16 * (word_of(op, "layout") == "col")
    build = rewriter.wait(
        op, runtime.MATRICES, argument=argument, address=Builder(op).cast(pointer)
    )
    rewriter.replace(op, *rewriter.results(build, op))


def _stmatrix(rewriter: Rewriter, op: Operation) -> None:
    pointer, *words = op.operands
    _check_matrix(rewriter, op)
    argument = len(words) + 16 * (word_of(op, "layout") == "col")
    rewriter.wait(
        op,
        runtime.STORED_MATRICES,
        words,
        argument=argument,
        address=Builder(op).cast(pointer),
    )
    rewriter.replace(op)


def _check_matrix(rewriter: Rewriter, op: Operation) -> None:
    shape = re.findall(r"\d+", str(op.properties.get("shape", "8 8")))
    kind = word_of(op, "eltType") or "b16"
    if shape != ["8", "8"] or kind != "b16":
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know "
            f"{name_of(op)} m{'n'.join(shape)} of {kind}"
        )


def _copy(rewriter: Rewriter, op: Operation) -> None:
    to, source, *given = op.operands
    build = Builder(op)
    size = build.constant(integer_of(op, "size"))
    read = given[0] if given else size
    rewriter.code.copies = True
    build.call(
        "moa_emulator_copy",
        (rewriter.thread, build.cast(to), build.cast(source), size, read),
    )
    rewriter.replace(op)


def _commit(rewriter: Rewriter, op: Operation) -> None:
    Builder(op).call("moa_emulator_commit", (rewriter.thread,))
    rewriter.replace(op)


def _land(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    pending = build.constant(integer_of(op, "n"))
    build.call("moa_emulator_land", (rewriter.thread, pending))
    rewriter.replace(op)


def _convert(rewriter: Rewriter, op: Operation) -> None:
    if word_of(op, "rnd") != "rn" or "true" in str(op.properties.get("relu")):
        raise CompileError(f"emulator: {name_of(op)} other than to the nearest")
    high, low = op.operands
    build = Builder(op)
    type_ = op.results[0].type
    if name_of(op).endswith("bf16x2"):
        (word,) = build.call("moa_emulator_bf16x2", (high, low), ["i32"])
    else:
        pair = "vector<2xf16>"
        word = build.value("llvm.mlir.poison", (), pair)
        for place, value in enumerate((low, high)):
            half = build.value("llvm.fptrunc", (value,), "f16")
            word = build.value(
                "llvm.insertelement", (word, half, build.constant(place)), pair
            )
    if word.type != type_:
        word = build.value("llvm.bitcast", (word,), type_)
    rewriter.replace(op, word)


# Barriers in memory and the copy engine.


def _init_mbarrier(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    pointer, count = op.operands[:2]
    operands = (rewriter.thread, build.cast(pointer), count)
    build.call("moa_emulator_mbarrier", operands)
    rewriter.replace(op)


def _fence_mbarriers(rewriter: Rewriter, op: Operation) -> None:
    """Note that the copy engine sees the mbarriers that were made before."""
    build = Builder(op)
    block = build.load(rewriter.thread, runtime.BLOCK, POINTER)
    build.store(build.constant(1), block, runtime.FENCES)
    rewriter.replace(op)


def _arrive(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    pointer, *numbers = op.operands
    count, expected = build.constant(1), build.constant(0)
    if name_of(op).endswith("expect_tx"):
        expected = numbers[0]
        if name_of(op) == "nvvm.mbarrier.expect_tx":
            count = build.constant(0)
    elif numbers:
        count = numbers[0]
    operands = (rewriter.thread, build.cast(pointer), count, expected)
    (state,) = build.call("moa_emulator_arrive", operands, ["i64"])
    rewriter.replace(op, state)


WAITS = re.compile(
    r"\{ \.reg \.pred (\w+); (\w+): mbarrier\.try_wait\.parity"
    r"(?:\.acquire\.cluster)?\.shared::cta\.b64 "
    r"\1, \[\$0\], \$1; @\1 bra (\w+); bra \2; \3: \}"
)
"""Assembly that waits for a phase of an mbarrier."""


def wait_mbarrier(rewriter: Rewriter, op: Operation) -> None:
    """Handle what waits for a phase of an mbarrier: its operands are that and parity.

    Raises:
        CompileError: for an operation that only asks.
    """
    if op.results:
        raise CompileError(f"emulator: {name_of(op)} that gives a result")
    build = Builder(op)
    pointer, parity = op.operands[:2]
    mask = _own_lane(rewriter, build)
    address = build.cast(pointer)
    rewriter.wait(op, runtime.MBARRIER, (), mask, parity, address=address)
    rewriter.replace(op)


def _load_box(rewriter: Rewriter, op: Operation) -> None:
    to, descriptor, at, barrier, *others = segments_of(op)
    # A mask is the second of the others, a hint about caches the third.
    offsets, masks, _, *rest = others
    if "tile" not in str(op.properties["mode"]) or any([offsets, *rest]):
        raise CompileError(f"emulator: {name_of(op)} other than of a tile")
    build = Builder(op)
    pointers = [build.cast(each[0]) for each in (to, descriptor, barrier)]
    # Without a mask the box is for the block itself.
    mask = build.constant(0)
    if masks:
        mask = build.value("llvm.zext", (masks[0],), "i32")
    rewriter.wait(op, runtime.LOAD, [*pointers, mask, *at], argument=len(masks))
    rewriter.code.counts[len(rewriter.code.sites) - 1] = len(at)
    rewriter.replace(op)


def _store_box(rewriter: Rewriter, op: Operation) -> None:
    descriptor, source, at, *others = segments_of(op)
    if "tile" not in str(op.properties["mode"]) or any(others[1:]):
        raise CompileError(f"emulator: {name_of(op)} other than of a tile")
    pointers = [Builder(op).cast(each[0]) for each in (source, descriptor)]
    rewriter.wait(op, runtime.STORE, [*pointers, *at])
    rewriter.code.counts[len(rewriter.code.sites) - 1] = len(at)
    rewriter.replace(op)


def _commit_stores(rewriter: Rewriter, op: Operation) -> None:
    rewriter.wait(op, runtime.STORE_COMMIT)
    rewriter.replace(op)


def _wait_for_stores(rewriter: Rewriter, op: Operation) -> None:
    rewriter.wait(op, runtime.STORE_WAIT, argument=integer_of(op, "group"))
    rewriter.replace(op)


def _set_registers(rewriter: Rewriter, op: Operation) -> None:
    """Note how many registers a thread has from here on."""
    build = Builder(op)
    count = build.constant(integer_of(op, "regCount"))
    build.store(count, rewriter.thread, runtime.REGISTERS)
    rewriter.replace(op)


# Clusters.


def _cluster_arrive(rewriter: Rewriter, op: Operation) -> None:
    Builder(op).call("moa_emulator_cluster_arrive", (rewriter.thread,))
    rewriter.replace(op)


def _cluster_wait(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    (meeting,) = build.call("moa_emulator_cluster_wait", (rewriter.thread,), ["i32"])
    rewriter.wait(op, runtime.MEET, (), _own_lane(rewriter, build), meeting)
    rewriter.replace(op)


def _own_lane(rewriter: Rewriter, build: Builder) -> SSAValue:
    """The mask of a thread that waits without its warp."""
    linear = build.load(rewriter.thread, runtime.LINEAR, "i32")
    lane = build.value("llvm.and", (linear, build.constant(31)), "i32")
    return build.value("llvm.shl", (build.constant(1), lane), "i32")


def _map_to_block(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    pointer, rank = op.operands
    operands = (rewriter.thread, build.cast(pointer), rank)
    (found,) = build.call("moa_emulator_mapa", operands, [POINTER])
    type_ = op.results[0].type
    if found.type != type_:
        found = build.value("llvm.addrspacecast", (found,), type_)
    rewriter.replace(op, found)


# Products of warp groups.


def _fence_products(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    build.store(build.constant(1), rewriter.thread, runtime.FENCED)
    rewriter.replace(op)


def _commit_products(rewriter: Rewriter, op: Operation) -> None:
    build = Builder(op)
    count = build.load(rewriter.thread, runtime.PRODUCTS, "i32")
    count = build.value("llvm.add", (count, build.constant(1)), "i32")
    build.store(count, rewriter.thread, runtime.PRODUCTS)
    rewriter.replace(op)


def _wait_for_products(rewriter: Rewriter, op: Operation) -> None:
    rewriter.code.eager = True
    rewriter.wait(op, runtime.WGMMA_WAIT, argument=integer_of(op, "group"))
    rewriter.replace(op)


def _check_product(rewriter: Rewriter, product: Product) -> None:
    k = {"bf16": 16, "f16": 16, "tf32": 8}.get(product.kind)
    transposed = product.a_transposed or product.b_transposed
    if k != product.k or product.n % 8 or (k == 8 and transposed):
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know wgmma "
            f"m64n{product.n}k{product.k} of {product.kind}"
        )


def _issue_product(
    rewriter: Rewriter,
    op: Operation,
    product: Product,
    a: list[SSAValue],
    b: SSAValue,
    accumulator: list[SSAValue],
    keeps: SSAValue | None = None,
) -> None:
    _check_product(rewriter, product)
    build = Builder(op)
    more = {runtime.INPUTS + place: value for place, value in enumerate(a)}
    more[runtime.INPUTS + 4] = b
    more[runtime.INPUTS + 6] = keeps or build.constant(int(product.keeps is not False))
    inputs = accumulator if product.keeps is not False else []
    code = rewriter.code
    code.row_words = max(code.row_words, runtime.BULK + -(-product.n // 32) * 16)
    build = rewriter.wait(op, runtime.WGMMA, inputs, at=runtime.BULK, more=more)
    code.products[len(code.sites) - 1] = product
    rewriter.replace(op, *rewriter.results(build, op, runtime.BULK))


def _product(rewriter: Rewriter, op: Operation) -> None:
    struct, a, b = op.operands
    fields = struct_fields(struct.type)
    _, n, k = map(int, re.findall(r"\d+", str(op.properties["shape"])))
    signs = [word_of(op, name) for name in ("scaleA", "scaleB")]
    kinds = {word_of(op, name) for name in ("typeA", "typeB")}
    if len(kinds) > 1 or set(fields) != {"f32"}:
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know wgmma of "
            f"{' and '.join(sorted(kinds))} into {fields[0]}"
        )
    product = Product(
        n,
        k,
        kinds.pop(),
        a_in_registers=False,
        a_transposed=word_of(op, "layoutA") == "col",
        b_transposed=word_of(op, "layoutB") == "row",
        keeps=word_of(op, "scaleD") == "one",
        negative=signs[0] != signs[1],
    )
    accumulator = Builder(op).unpack(struct, fields) if product.keeps else []
    _issue_product(rewriter, op, product, [a], b, accumulator)


_WGMMA = re.compile(
    r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(\d+)\.f32\.(\w+)\.(\w+)\s*"
    r"\{([^}]*)\},\s*(\{[^}]*\}|\$\d+),\s*(\$\d+),\s*([^;]*);"
)
_SETS_PREDICATE = re.compile(r"setp\.ne\.b32\s+(\w+),\s*\$(\d+),\s*0\s*;")


def warp_group_assembly(rewriter: Rewriter, op: Operation, text: str) -> None:
    """Handle inline assembly with an operation of warp groups.

    Raises:
        CompileError: if the text is not one of those that are known.
    """
    if text.startswith("wgmma.fence.sync.aligned"):
        _fence_products(rewriter, op)
        return
    if text.startswith("wgmma.commit_group.sync.aligned"):
        _commit_products(rewriter, op)
        return
    if found := re.match(r"wgmma\.wait_group\.sync\.aligned\s+(\d+);", text):
        code = rewriter.code
        if not op.results:
            code.eager = True
        build = rewriter.wait(
            op,
            runtime.WGMMA_WAIT,
            list(op.operands),
            argument=int(found[1]),
            at=runtime.BULK,
        )
        code.counts[len(code.sites) - 1] = len(op.operands)
        if op.results:
            rewriter.replace(op, *rewriter.results(build, op, runtime.BULK))
        else:
            rewriter.replace(op)
        return
    found = _WGMMA.search(text)
    outputs = len(struct_fields(op.results[0].type)) if op.results else 0
    if found is None or found[3] != found[4] or outputs != int(found[1]) // 2:
        raise CompileError(
            f"kernel '{rewriter.code.name}': the emulator does not know the "
            f"instruction {text}"
        )
    operands = list(op.operands)

    def value(name: str) -> SSAValue:
        return operands[int(name.removeprefix("$")) - outputs]

    registers = found[6].startswith("{")
    names = re.findall(r"\$\d+", found[6])
    scale, *rest = (each.strip() for each in found[8].split(","))
    numbers = list(map(int, rest))
    keep = None
    keeps = {"0": False, "1": True}.get(scale)
    if keeps is None:
        predicates = dict(_SETS_PREDICATE.findall(text))
        keep = value(f"${predicates.get(scale, scale.removeprefix('$'))}")
    # Signs of A and B, then whether A and B are transposed: A only from memory.
    transposed = [*numbers[2:], 0, 0]
    product = Product(
        int(found[1]),
        int(found[2]),
        found[3],
        a_in_registers=registers,
        a_transposed=not registers and bool(transposed[0]),
        b_transposed=bool(transposed[0 if registers else 1]),
        keeps=keeps,
        negative=numbers[0] != numbers[1],
    )
    _issue_product(
        rewriter,
        op,
        product,
        [value(name) for name in names],
        value(found[7]),
        [] if keeps is False else _tied(op, outputs),
        keep,
    )


def _tied(op: Operation, outputs: int) -> list[SSAValue]:
    """The operands that are tied to the outputs, in their order."""
    constraints = str(op.properties["constraints"]).strip('"').split(",")
    inputs = [each for each in constraints if each[0] not in "=~"]
    tied = {
        int(constraint): value
        for constraint, value in zip(inputs, op.operands, strict=True)
        if constraint.isdigit()
    }
    if sorted(tied) != list(range(outputs)):
        raise CompileError("emulator: wgmma whose accumulator is not tied")
    return [tied[number] for number in range(outputs)]


OPERATIONS: dict[str, Callable[[Rewriter, Operation], None]] = {
    "nvvm.bar.warp.sync": _warp_barrier,
    "nvvm.barrier": _barrier,
    "nvvm.barrier.arrive": _barrier,
    "nvvm.barrier0": _barrier,
    "nvvm.cluster.arrive": _cluster_arrive,
    "nvvm.cluster.wait": _cluster_wait,
    "nvvm.convert.f32x2.to.bf16x2": _convert,
    "nvvm.convert.f32x2.to.f16x2": _convert,
    "nvvm.cp.async.bulk.commit.group": _commit_stores,
    "nvvm.cp.async.bulk.tensor.global.shared.cta": _store_box,
    "nvvm.cp.async.bulk.tensor.shared.cluster.global": _load_box,
    "nvvm.cp.async.bulk.wait_group": _wait_for_stores,
    "nvvm.cp.async.commit.group": _commit,
    "nvvm.cp.async.shared.global": _copy,
    "nvvm.cp.async.wait.group": _land,
    "nvvm.elect.sync": _elect,
    "nvvm.fence.mbarrier.init": _fence_mbarriers,
    "nvvm.ldmatrix": _ldmatrix,
    "nvvm.mapa": _map_to_block,
    "nvvm.mbarrier.arrive": _arrive,
    "nvvm.mbarrier.arrive.expect_tx": _arrive,
    "nvvm.mbarrier.expect_tx": _arrive,
    "nvvm.mbarrier.init": _init_mbarrier,
    "nvvm.mbarrier.try_wait.parity": wait_mbarrier,
    "nvvm.mma.sync": _mma,
    "nvvm.redux.sync": _redux,
    "nvvm.setmaxregister": _set_registers,
    "nvvm.shfl.sync": _shuffle,
    "nvvm.stmatrix": _stmatrix,
    "nvvm.vote.sync": _vote,
    "nvvm.wgmma.commit.group.sync.aligned": _commit_products,
    "nvvm.wgmma.fence.aligned": _fence_products,
    "nvvm.wgmma.mma_async": _product,
    "nvvm.wgmma.wait.group.sync.aligned": _wait_for_products,
}
