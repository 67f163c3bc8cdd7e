"""moa-fold-addresses: every access as a start and one stride for each loop index.

After psi reduction an index is often a sum: `n - 1 - i` for a reversal, `i + k` for a
drop. Its parts that no loop changes belong to the start of the access, its sign to the
stride: then a chain of takes, drops, reversals and transpositions is one strided copy,
with start, stop and stride as in the Psi Correspondence Theorem (Mullin and Jenkins
1996). What the loops do not change is then computed in front of them.

A reshape divides an address into the entries of an index, and the address of the access
multiplies them again. Both together are the address itself: the elements of a whole
array in another shape are one strided copy, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from moa_dialect.ops.normal_form import FoldOp
from moa_dialect.ops.operational import LoadOp, LoopOp, StoreOp
from moa_dialect.passes.derivation import record
from moa_dialect.passes.infer_shapes import functions_of
from moa_dialect.passes.share import captured, merge_equal
from moa_dialect.passes.to_dnf import erase_dead
from moa_dialect.scalar_code import constant
from moa_dialect.walking import operations

_MOVABLE = (
    arith.ConstantOp,
    arith.AddiOp,
    arith.SubiOp,
    arith.MuliOp,
    arith.MinSIOp,
    arith.MaxSIOp,
)

_DIVISION = (arith.DivUIOp, arith.RemUIOp)


def _is_loop_index(value: SSAValue) -> bool:
    return (
        isinstance(value, BlockArgument)
        and value.index == 0
        and isinstance(value.owner.parent_op(), LoopOp | FoldOp)
    )


def _terms(value: SSAValue, sign: int = 1) -> list[tuple[int, SSAValue]]:
    """A sum of values, each with its sign; what is no sum is one term."""
    match value.owner:
        case arith.AddiOp(lhs=left, rhs=right):
            return [*_terms(left, sign), *_terms(right, sign)]
        case arith.SubiOp(lhs=left, rhs=right):
            return [*_terms(left, sign), *_terms(right, -sign)]
        case _:
            return [(sign, value)]


def _multiple(value: SSAValue) -> tuple[SSAValue, SSAValue] | None:
    """A loop index and a factor of which this is the product, if it is one."""
    if not isinstance(value.owner, arith.MuliOp):
        return None
    left, right = value.owner.lhs, value.owner.rhs
    if _is_loop_index(right):
        left, right = right, left
    return (left, right) if _is_loop_index(left) and _is_fixed(right) else None


def _is_fixed(value: SSAValue) -> bool:
    """Whether no loop changes a value: a constant, or one of the function itself."""
    owner = value.owner
    if isinstance(owner, arith.ConstantOp):
        return True
    return isinstance(owner.parent_op(), FuncOp)


def _is_product(value: SSAValue, left: SSAValue, right: SSAValue) -> bool:
    """Whether a value is the product of two others."""
    if _is_known(left, 1):
        return value is right
    if _is_known(right, 1):
        return value is left
    owner = value.owner
    return isinstance(owner, arith.MuliOp) and (
        (owner.lhs is left and owner.rhs is right)
        or (owner.lhs is right and owner.rhs is left)
    )


def _rejoined(
    terms: list[tuple[SSAValue, SSAValue]],
) -> list[tuple[SSAValue, SSAValue]]:
    """Put together what division took apart: `(x / n) (n s) + (x % n) s = x s`."""
    for at, (remainder, stride) in enumerate(terms):
        match remainder.owner:
            case arith.RemUIOp(lhs=x, rhs=n):
                pass
            case _:
                continue
        for place, (quotient, step) in enumerate(terms):
            match quotient.owner:
                case arith.DivUIOp(lhs=y, rhs=m) if y is x and m is n:
                    pass
                case _:
                    continue
            if _is_product(step, n, stride):
                rest = [t for k, t in enumerate(terms) if k not in (at, place)]
                return _rejoined([*rest, (x, stride)])
    return terms


def _is_known(value: SSAValue, number: int) -> bool:
    owner = value.owner
    return isinstance(owner, arith.ConstantOp) and (
        owner.value.value.data == number  # pyright: ignore
    )


def _spread(
    start: SSAValue, terms: list[tuple[SSAValue, SSAValue]], builder: Builder
) -> tuple[SSAValue, list[tuple[SSAValue, SSAValue]]]:
    """Take sums apart: a term for each loop index, the rest added to the start."""
    spread: list[tuple[SSAValue, SSAValue]] = []
    for index, stride in terms:
        parts = _terms(index)
        if len(parts) == 1 and not _is_loop_index(index) and not _multiple(index):
            spread.append((index, stride))
            continue
        for sign, value in parts:
            step = stride
            if multiple := _multiple(value):
                value, factor = multiple
                step = builder.insert(arith.MuliOp(factor, stride)).result
            if _is_loop_index(value) or isinstance(value.owner, _DIVISION):
                if sign < 0:
                    zero = builder.insert(constant(0, IndexType())).result
                    step = builder.insert(arith.SubiOp(zero, step)).result
                spread.append((value, step))
            elif not _is_known(value, 0):
                offset = builder.insert(arith.MuliOp(value, stride)).result
                combine = arith.AddiOp if sign > 0 else arith.SubiOp
                start = builder.insert(combine(start, offset)).result
    return start, spread


def fold_access(op: LoadOp | StoreOp) -> None:
    """Bring one access into the form `start + sum of loop index * stride`.

    An index that is not a sum with a loop index in it (one read from data, say) stays
    an index of its own.
    """
    builder = Builder(InsertPoint.before(op))
    start = op.start
    terms = list(zip(op.indices, op.strides, strict=True))
    while True:
        start, terms = _spread(start, terms, builder)
        rejoined = _rejoined(terms)
        if len(rejoined) == len(terms):
            break
        terms = rejoined
    indices = [index for index, _ in terms]
    strides = [stride for _, stride in terms]
    if isinstance(op, LoadOp):
        Rewriter.replace_op(op, LoadOp(op.buffer, start, indices, strides))
    else:
        store = StoreOp(op.value, op.buffer, start, indices, strides)
        Rewriter.replace_op(op, store, [])


def hoist_arithmetic(block: Block) -> None:
    """Move index arithmetic out of the loops that do not change it."""
    for op in list(block.ops):
        for region in op.regions:
            for body in region.blocks:
                hoist_arithmetic(body)
                inside: set[SSAValue] = set(body.args)
                for inner in list(body.ops):
                    if isinstance(inner, _MOVABLE) and not captured(inner) & inside:
                        inner.detach()
                        block.insert_op_before(inner, op)
                    else:
                        inside.update(inner.results)


def fold_addresses(function: FuncOp) -> None:
    """Bring all accesses of one function into strided form."""
    accesses = [op for op in operations(function) if isinstance(op, LoadOp | StoreOp)]
    if not accesses:
        return
    for op in accesses:
        fold_access(op)
    block = function.body.block
    hoist_arithmetic(block)
    merge_equal(block)
    for op in reversed(operations(function)):
        if isinstance(op, _DIVISION) and op.result.first_use is None:
            Rewriter.erase_op(op)
    erase_dead(block)


@dataclass(frozen=True)
class FoldAddressesPass(ModulePass):
    """Brings every access into the form start plus loop indices times strides.

    The parts of an index that the loops do not change move into the start, a minus
    sign into the stride; index arithmetic moves out of the loops. A quotient and a
    remainder whose strides put them together again are one index.
    """

    name = "moa-fold-addresses"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions_of(op):
            fold_addresses(function)
            record(function, self)
