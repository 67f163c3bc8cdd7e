"""Operations of linalg that stand for a program and have no body."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import AnyFloat, IntegerAttr
from xdsl.ir import Operation, SSAValue

from moa_dialect.passes.raising.rule import CannotRaise, Raising, Rule, check_tensors
from moa_dialect.passes.raising.source import property_of
from moa_dialect.passes.raising.structured import read
from moa_dialect.scalar_code import fold_below
from moa_dialect.types import element_of, shape_of


class RaiseSoftmax(Rule):
    """`exp(x - m) / s` with the maximum m and the sum s of the exponentials."""

    names = ("linalg.softmax",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        """The definition, as one comprehension.

        Raises:
            CannotRaise: for elements that are no floats.
        """
        check_tensors(op)
        array, type_ = op.operands[0], op.results[0].type
        if not isinstance(element_of(type_), AnyFloat):
            raise CannotRaise(f"elements of type {element_of(type_)}")
        dimension = property_of(op, "dimension")
        assert isinstance(dimension, IntegerAttr)
        along = dimension.value.data
        extents = [r.extent(array, axis) for axis in range(len(shape_of(type_)))]
        for axis, extent in enumerate(extents):
            message = f"linalg.softmax: operands must agree on axis {axis}"
            r.require("eq", r.extent(op.operands[1], axis), extent, message)

        def emit(builder: Builder, index: Sequence[SSAValue]) -> SSAValue:
            def fold(
                function: str, body: Callable[[Builder, SSAValue], SSAValue]
            ) -> SSAValue:
                def at(inner: Builder, k: SSAValue) -> SSAValue:
                    place = [*index[:along], k, *index[along + 1 :]]
                    return body(inner, read(r, array, place, inner))

                end = extents[along]
                return fold_below(builder, function, end, element_of(type_), at)

            maximum = fold("max", lambda inner, x: x)

            def weight(inner: Builder, x: SSAValue) -> SSAValue:
                less = inner.insert(arith.SubfOp(x, maximum)).result
                return inner.insert(math.ExpOp(less)).result

            total = fold("add", weight)
            own = weight(builder, read(r, array, index, builder))
            return builder.insert(arith.DivfOp(own, total)).result

        return [r.comprehension(extents, type_, emit)]


RULES: tuple[Rule, ...] = (RaiseSoftmax(),)
"""The rules for such operations."""
