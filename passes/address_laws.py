"""The laws of psi for operations on shapes and addresses."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from moa_dialect.algebra import index as maps
from moa_dialect.algebra.layout import Order
from moa_dialect.ops.addresses import GammaInverseOp, GammaOp, ProductOp
from moa_dialect.ops.base import constant_array, rank
from moa_dialect.ops.normal_form import InBoundsOp
from moa_dialect.passes.psi_laws import Index, PsiLaw, Reduction, entry_at
from moa_dialect.passes.rearranging_laws import IndexCode, integer_at, natural

MUL = StringAttr("mul")


class PsiOfProduct(PsiLaw[ProductOp]):
    """`π v = × fold_k (<k> ψ v)`."""

    name = "psi-product"

    def reduce(self, op: ProductOp, index: Index, r: Reduction) -> SSAValue:
        extent = r.extent(op.array, 0)
        return r.fold(MUL, extent, lambda k: r.element(op.array, (k,))).result


def _shape(op: GammaOp | GammaInverseOp, r: Reduction) -> list[SSAValue]:
    return [integer_at(op.shape, (r.number(axis),), r) for axis in range(op.length)]


class PsiOfGamma(PsiLaw[GammaOp]):
    """`i ψ γ(I; s) = γ(i ψ I; s)`; for a vector I, i is empty."""

    name = "psi-gamma"

    def proof_ranks(self, op: GammaOp) -> tuple[int, ...]:
        return (op.length,)

    def reduce(self, op: GammaOp, index: Index, r: Reduction) -> SSAValue:
        m, shape, entries = IndexCode(r), _shape(op, r), list[SSAValue]()
        for axis, extent in enumerate(shape):
            entry = integer_at(op.index, (*index, r.number(axis)), r)
            bound = natural(m, extent)
            message = f"gamma: index entry {axis} out of range of axis {axis}"
            if constant_array(op.index) is not None and rank(op.index) > 1:
                pass  # All entries are checked at the entry.
            elif rank(op.index) > 1:
                checked = InBoundsOp(entry, bound, message)
                entry = r.builder.insert(checked).result
            else:
                entry = r.checked(op, entry, bound, message)
            entries.append(entry)
        gamma = maps.gamma if op.layout is Order.ROW else maps.gamma_column
        return gamma(m, entries, shape)


class PsiOfGammaInverse(PsiLaw[GammaInverseOp]):
    """`(i ++ <a>) ψ γ'(K; s) = γ'(i ψ K; s)[a]`; for a scalar K, i is empty."""

    name = "psi-gamma-inverse"

    def proof_ranks(self, op: GammaInverseOp) -> tuple[int, ...]:
        return (op.length,)

    def reduce(self, op: GammaInverseOp, index: Index, r: Reduction) -> SSAValue:
        m, shape = IndexCode(r), _shape(op, r)
        one, total = r.number(1), r.number(1)
        for extent in shape:
            # Nothing is within a negative extent, even if two of them multiply.
            total = m.mul(total, natural(m, extent))
        address = integer_at(op.address, index[:-1], r)
        message = "gamma_inverse: the address is out of range"
        if rank(op.address) == 0 or constant_array(op.address) is not None:
            address = r.checked(op, address, total, message)
        else:
            address = r.builder.insert(InBoundsOp(address, total, message)).result
        # Where no address is valid nothing must be divided by zero either.
        sizes = [m.if_less(extent, one, one, extent) for extent in shape]
        is_row = op.layout is Order.ROW
        inverse = maps.gamma_inverse if is_row else maps.gamma_inverse_column
        return entry_at(inverse(m, address, sizes), index[-1], r)
