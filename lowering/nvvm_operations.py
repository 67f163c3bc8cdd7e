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
    Builder,
    integer_of,
    name_of,
    segments_of,
    word_of,
)

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
    "nvvm.fence.mbarrier.init",
    "nvvm.fence.proxy",
    "nvvm.fence.sc.cluster",
    "nvvm.griddepcontrol.launch.dependents",
    "nvvm.griddepcontrol.wait",
    "nvvm.memory.barrier",
    "nvvm.prefetch",
    "nvvm.setmaxregister",
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


OPERATIONS: dict[str, Callable[[Rewriter, Operation], None]] = {
    "nvvm.bar.warp.sync": _warp_barrier,
    "nvvm.barrier": _barrier,
    "nvvm.barrier.arrive": _barrier,
    "nvvm.barrier0": _barrier,
    "nvvm.convert.f32x2.to.bf16x2": _convert,
    "nvvm.convert.f32x2.to.f16x2": _convert,
    "nvvm.cp.async.commit.group": _commit,
    "nvvm.cp.async.shared.global": _copy,
    "nvvm.cp.async.wait.group": _land,
    "nvvm.elect.sync": _elect,
    "nvvm.ldmatrix": _ldmatrix,
    "nvvm.mma.sync": _mma,
    "nvvm.redux.sync": _redux,
    "nvvm.shfl.sync": _shuffle,
    "nvvm.stmatrix": _stmatrix,
    "nvvm.vote.sync": _vote,
}
