"""The laws of psi for operations on blocks: a choice by where an index lies.

A choice by a loop's index becomes loops without it in `moa-split-loops`.
"""

from __future__ import annotations

from functools import partial

from xdsl.dialects.builtin import i1
from xdsl.ir import SSAValue

from moa_dialect.algebra import index as maps
from moa_dialect.ops.base import rank
from moa_dialect.ops.blocks import InsertOp, PadOp
from moa_dialect.passes.psi_laws import Index, PsiLaw, Reduction, number_of
from moa_dialect.passes.rearranging_laws import IndexCode, integer_at, natural
from moa_dialect.scalar_code import constant
from moa_dialect.types import element_of


def _counts(counts: SSAValue, length: int, r: Reduction) -> list[SSAValue]:
    if rank(counts) == 0:
        return [integer_at(counts, (), r)]
    return [integer_at(counts, (r.number(axis),), r) for axis in range(length)]


class PsiOfPad(PsiLaw[PadOp]):
    """`i ψ pad(l, r, A) = (<(i_j - l_j) mod s_j> ++ (τl ▽ i)) ψ A`."""

    name = "psi-pad"

    def reduce(self, op: PadOp, index: Index, r: Reduction) -> SSAValue:
        m, leading = IndexCode(r), list[SSAValue]()
        for axis, left in enumerate(_counts(op.left, op.length, r)):
            extent = r.extent(op.array, axis)
            position = maps.pad(m, index[axis], left, extent)
            message = f"pad: a count for axis {axis} exceeds the extent"
            leading.append(r.checked(op, position, extent, message))
        return r.element(op.array, (*leading, *index[op.length :]))


class PsiOfInsert(PsiLaw[InsertOp]):
    """`i ψ insert(o, B, A) = (i - o) ψ B` if `o <= i < o + ρB`, else `i ψ A`."""

    name = "psi-insert"

    def reduce(self, op: InsertOp, index: Index, r: Reduction) -> SSAValue:
        m, offsets = IndexCode(r), list[SSAValue]()
        for axis, offset in enumerate(_counts(op.offsets, op.length, r)):
            if number_of(offset) is None:
                last = m.sub(r.extent(op.array, axis), r.extent(op.block, axis))
                message = f"insert: the block reaches beyond axis {axis}"
                places = natural(m, m.add(last, r.number(1)))
                offset = r.checked(op, offset, places, message)
            offsets.append(offset)
        truth = IndexCode(r, i1)

        def outside() -> SSAValue:
            return r.builder.insert(constant(0, i1)).result

        def inside(axis: int = 0) -> SSAValue:
            """Whether the entries of the index from an axis on are in the block."""
            if axis == op.length:
                return r.builder.insert(constant(1, i1)).result
            extent, rest = r.extent(op.block, axis), partial(inside, axis + 1)
            at = index[axis], offsets[axis]
            return maps.within(truth, *at, extent, rest, outside)

        def replaced() -> SSAValue:
            shifted = map(m.sub, index[: op.length], offsets)
            return r.element(op.block, (*shifted, *index[op.length :]))

        def kept() -> SSAValue:
            return r.element(op.array, index)

        return r.choose(inside(), element_of(op.array.type), replaced, kept)
