"""The law for each operation of the algebra."""

from __future__ import annotations

from typing import Any, get_args

from xdsl.ir import Operation

from moa_dialect.passes import address_laws as addresses
from moa_dialect.passes import block_laws as blocks
from moa_dialect.passes import psi_laws as basic
from moa_dialect.passes import rearranging_laws as rearranging
from moa_dialect.passes.psi_laws import PsiLaw

_CLASSES = (
    basic.PsiOfConstant,
    basic.PsiOfIota,
    basic.PsiOfShape,
    basic.PsiOfDim,
    basic.PsiOfTotal,
    addresses.PsiOfProduct,
    addresses.PsiOfGamma,
    addresses.PsiOfGammaInverse,
    basic.PsiOfPsi,
    basic.PsiOfCell,
    rearranging.PsiOfTake,
    rearranging.PsiOfDrop,
    rearranging.PsiOfCat,
    rearranging.PsiOfReverse,
    rearranging.PsiOfRotate,
    basic.PsiOfTranspose,
    blocks.PsiOfPad,
    blocks.PsiOfInsert,
    rearranging.PsiOfReshape,
    rearranging.PsiOfRecycle,
    rearranging.PsiOfRavel,
    rearranging.PsiOfCompress,
    rearranging.PsiOfExpand,
    rearranging.PsiOfGradeUp,
    rearranging.PsiOfGradeDown,
    basic.PsiOfPointwise,
    basic.PsiOfMap,
    basic.PsiOfCast,
    basic.PsiOfWhere,
    basic.PsiOfReduce,
    rearranging.PsiOfScan,
    basic.PsiOfOuter,
    basic.PsiOfInner,
    basic.PsiOfOmega,
    basic.PsiOfComprehension,
)


def _operation(law: type[PsiLaw[Any]]) -> type[Operation]:
    """The operation a law is about: the argument of its base class."""
    (base,) = law.__orig_bases__  # pyright: ignore
    (operation,) = get_args(base)
    return operation


LAWS: dict[type[Operation], PsiLaw[Any]] = {_operation(law): law() for law in _CLASSES}
