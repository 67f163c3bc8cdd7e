"""Cascades in linalg: one pass, with operations of linalg for each chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.dialects import arith
from xdsl.dialects.linalg.ops import CopyOp
from xdsl.ir import (
    Region,
    SSAValue,
)

from moa_dialect.lowering.linalg_ops import (
    Axis,
    Generic,
    Size,
    Stored,
    add_sizes,
    emit_size,
    extracted,
    filled,
)
from moa_dialect.lowering.linalg_scalars import (
    Bound,
    Root,
    Scalars,
    arguments_in,
    is_array,
    must_be_values,
)
from moa_dialect.ops.function import FunctionAttr
from moa_dialect.ops.normal_form import (
    CascadeOp,
    CascadeView,
    ComprehensionOp,
    FoldOp,
    body_of,
    cell_element,
)
from moa_dialect.scalar_code import (
    apply_function,
)

if TYPE_CHECKING:
    from moa_dialect.lowering.to_linalg import Lowering


def cascade(lowering: Lowering, op: CascadeOp) -> None:
    """Compute the accumulators and pivots of a cascade, in one pass."""
    if lowering.depends(op.lower, op.upper):
        lowering.expect_no_axes(op)
    around = lowering.depends(*op.outputs)
    indices = lowering.range_of(op.lower, op.upper)
    cells = [lowering.cell_axes(op.defining(output)) for output in op.outputs]
    dims = [[*around, *each] for each in cells]
    pivot_starts = iter(op.starts)
    starts: list[SSAValue] = []
    for number, (output, each) in enumerate(zip(op.outputs, dims, strict=True)):
        if number < len(op.functions):
            element = cell_element(output.type)
            value = lowering.start_scalar(op.functions.data[number], element, [indices])
        else:
            value = next(pivot_starts)
        if each and number < len(op.functions):
            starts.append(filled(each, value, lowering.builder))
        elif each:
            starts.append(lowering.spread(value, each))
        else:
            starts.append(
                value if number < len(op.functions) else lowering.uniform(value)
            )
    if op.chunk is None and not any(cells) and _is_of_scalars(op):
        results = _in_linalg(lowering, op, around, indices, starts)
    else:
        results = _loop(lowering, op, around, indices, starts)
    for output, result in zip(op.outputs, results, strict=True):
        bound: Bound = result
        if is_array(result):
            bound = Stored(result, tuple(around))
        lowering.env[output] = bound


def _loop(
    lowering: Lowering,
    op: CascadeOp,
    around: Sequence[Axis],
    indices: Axis,
    starts: Sequence[SSAValue],
) -> Sequence[SSAValue]:
    """A loop over the chunks of a cascade's range, from its end down."""
    chunk = op.chunk_length
    if must_be_values(op) & arguments_in(op):
        chunk = 1  # what is inside needs the index as a value
    total = indices.extent
    steps: Size
    if isinstance(total, int):
        steps = -(-total // chunk)
    elif chunk == 1:
        steps = total
    else:
        width = emit_size(chunk, lowering.builder)
        steps = lowering.builder.insert(arith.CeilDivSIOp(total, width)).result

    def inside(
        values: Sequence[SSAValue], carried: Sequence[SSAValue]
    ) -> list[SSAValue]:
        (step,) = values
        before: Size = step
        if chunk != 1:
            width = emit_size(chunk, lowering.builder)
            before = lowering.builder.insert(arith.MuliOp(step, width)).result
        # As many indices as are left, at most a chunk.
        left = add_sizes(total, before, lowering.builder, -1)
        length: Size = chunk
        if not isinstance(total, int) or total % chunk:
            width = emit_size(chunk, lowering.builder)
            at_most = emit_size(left, lowering.builder)
            length = lowering.builder.insert(arith.MinSIOp(at_most, width)).result
        rest = add_sizes(left, 1 if chunk == 1 else length, lowering.builder, -1)
        low = add_sizes(rest, indices.offset, lowering.builder)
        after = add_sizes(total, rest, lowering.builder, -1)
        zero = emit_size(0, lowering.builder)
        first = lowering.builder.insert(arith.CmpiOp(step, zero, "eq")).result
        run = Step(lowering, op, around, first)
        if chunk == 1:
            run.index = emit_size(low, lowering.builder)
        else:
            run.index = Axis(length, low)
        counts = (
            emit_size(before, lowering.builder),
            emit_size(after, lowering.builder),
        )
        with lowering.axes_in([run.index] if isinstance(run.index, Axis) else []):
            results = run.state(carried, counts)
        # So that pivots are carried in the same memory.
        for number in range(len(op.functions), len(results)):
            if is_array(results[number]):
                copy = CopyOp(
                    [results[number]], [carried[number]], [carried[number].type]
                )
                results[number] = lowering.builder.insert(copy).results[0]
        return results

    return lowering.nest([steps], starts, inside)


def _in_linalg(
    lowering: Lowering,
    op: CascadeOp,
    around: Sequence[Axis],
    indices: Axis,
    starts: Sequence[SSAValue],
) -> Sequence[SSAValue]:
    """A cascade of scalars, index by index, as one operation of linalg."""
    outputs = starts if around else list(map(lowering.of_scalar, starts))
    with lowering.axes_in([indices]):
        generic = Generic(
            [*around, indices], [indices], [(each, around) for each in outputs]
        )
        scalars = Scalars(lowering, generic, generic.body)
        before = generic.position(indices)
        one = emit_size(1, scalars.builder)
        after = scalars.builder.insert(arith.AddiOp(before, one)).result
        zero = emit_size(0, scalars.builder)
        is_first = scalars.builder.insert(arith.CmpiOp(before, zero, "eq")).result
        index = generic.index(indices)
        started = list(generic.started)

        def run(region: Region, *arguments: SSAValue) -> list[SSAValue]:
            block, terminator = body_of(region)
            known: dict[SSAValue, SSAValue] = dict(
                zip(block.args, arguments, strict=True)
            )
            if known.get(block.args[0]) is index:
                del known[block.args[0]]
                lowering.env[block.args[0]] = indices
            scalars.known.append(known)
            scalars.guards.append(block)
            found = [scalars.value(value) for value in terminator.values]
            scalars.guards.pop()
            scalars.known.pop()
            return found

        def added(
            view: CascadeView, pivots: Sequence[SSAValue], old: Sequence[SSAValue]
        ) -> list[SSAValue]:
            return [
                apply_function(
                    function, (so_far, value), scalars.builder, lowering.lookup
                )
                for function, so_far, value in zip(
                    view.functions,
                    old,
                    run(view.part, index, *data, *pivots),
                    strict=True,
                )
            ]

        data = run(op.data, index)
        count = len(op.functions)
        accumulators, pivots = iter(started[:count]), iter(started[count:])
        earlier: list[SSAValue] = []
        ends: list[SSAValue] = []
        last_pivots: list[SSAValue] = []
        for view in op.views():
            old = [next(accumulators) for _ in view.functions]
            r = [next(pivots) for _ in view.pivots]
            if view.pivot is not None and view.move is not None:
                own = added(view, r, old) if view.own_accumulators() else old
                new_r = run(view.pivot, after, *earlier, *r, *own)
                moved = run(view.move, before, *r, *new_r, *old)
                old = [
                    scalars.builder.insert(arith.SelectOp(is_first, a, m)).result
                    for a, m in zip(old, moved, strict=True)
                ]
                r = new_r
            old = added(view, r, old)
            earlier += [*r, *old]
            ends += old
            last_pivots += r
        results = generic.finish([*ends, *last_pivots], lowering.builder)
    lowering.forget(*op.regions)
    if around:
        return results
    return [extracted(result, [], lowering.builder) for result in results]


@dataclass
class Step:
    """One step of a cascade's loop.

    Attributes:
        first: whether it is the first step.
        index: the indices of the step: an axis, or the only one as a value.
    """

    lowering: Lowering
    op: CascadeOp
    around: Sequence[Axis]
    first: SSAValue
    index: Axis | SSAValue = field(init=False)

    def state(
        self, carried: Sequence[SSAValue], counts: tuple[SSAValue, SSAValue]
    ) -> list[SSAValue]:
        """The accumulators and pivots after the step, from those before."""
        op, lowering = self.op, self.lowering
        data = op.data.block
        lowering.env[data.args[0]] = self.index
        count = len(op.functions)
        accumulators, pivots = iter(carried[:count]), iter(carried[count:])
        earlier: list[SSAValue] = []
        ends: list[SSAValue] = []
        last_pivots: list[SSAValue] = []
        before, after = counts
        for view in op.views():
            old = [next(accumulators) for _ in view.functions]
            r = [next(pivots) for _ in view.pivots]
            if view.pivot is not None and view.move is not None:
                own = list(old)
                numbers = view.own_accumulators()
                added = self._added(view, numbers, r, [old[k] for k in numbers])
                for number, value in zip(numbers, added, strict=True):
                    own[number] = value
                arguments = (after, *earlier, *r, *own)
                new_r = self._pivots(view.pivot, arguments)
                old = self._moved(view.move, (before, *r, *new_r, *old), old)
                r = new_r
            old = self._added(view, range(len(old)), r, old)
            earlier += [*r, *old]
            ends += old
            last_pivots += r
        return [*ends, *last_pivots]

    def _bind(self, region: Region, arguments: Sequence[SSAValue]) -> None:
        for argument, value in zip(region.block.args, arguments, strict=True):
            self.lowering.env[argument] = (
                Stored(value, tuple(self.around)) if is_array(value) else value
            )

    def _pivots(self, region: Region, arguments: Sequence[SSAValue]) -> list[SSAValue]:
        """The pivots that a region yields."""
        lowering = self.lowering
        self._bind(region, arguments)
        found: list[SSAValue] = []
        for value in body_of(region)[1].values:
            cells, root = lowering.flat(value)
            dims = [*self.around, *cells]
            with lowering.axes_in(cells):
                if dims:
                    found.append(lowering.array_of(root, dims, dims))
                else:
                    assert isinstance(root, SSAValue)
                    found.append(lowering.uniform(root))
        lowering.forget(region)
        return found

    def _moved(
        self,
        region: Region,
        arguments: Sequence[SSAValue],
        old: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """Accumulators relative to the new pivots, in the place of the old ones.

        In the first step they stay as they are. Those that have cells come first: what
        moves them may read the others.
        """
        lowering = self.lowering
        self._bind(region, arguments)
        flat = [lowering.flat(value) for value in body_of(region)[1].values]
        found: list[SSAValue] = list(old)
        with_cells = [k for k, (cells, _) in enumerate(flat) if cells]
        scalars_of = [k for k, (cells, _) in enumerate(flat) if not cells]
        for group in (*([k] for k in with_cells), scalars_of):
            if not group:
                continue
            cells = flat[group[0]][0]
            dims = [*self.around, *cells]
            with lowering.axes_in(cells):
                moved = self._updated(
                    [old[k] for k in group],
                    dims,
                    (),
                    lambda scalars, so_far, group=group: [
                        scalars.builder.insert(
                            arith.SelectOp(self.first, a, scalars.root(flat[k][1]))
                        ).result
                        for k, a in zip(group, so_far, strict=True)
                    ],
                )
            for k, value in zip(group, moved, strict=True):
                found[k] = value
        lowering.forget(region)
        return found

    def _added(
        self,
        view: CascadeView,
        numbers: Sequence[int],
        pivots: Sequence[SSAValue],
        old: Sequence[SSAValue],
    ) -> list[SSAValue]:
        """Accumulators with what the indices of the step contribute."""
        lowering = self.lowering
        index, *rest = view.part.block.args
        lowering.env[index] = self.index
        shared = body_of(self.op.data)[1].values
        for argument, value in zip(rest, shared, strict=False):
            lowering.alias(argument, value)
        for argument, value in zip(rest[len(shared) :], pivots, strict=True):
            lowering.env[argument] = (
                Stored(value, tuple(self.around)) if is_array(value) else value
            )
        loops = (self.index,) if isinstance(self.index, Axis) else ()
        found: list[SSAValue] = []
        for number, so_far in zip(numbers, old, strict=True):
            function = view.functions[number]
            cells, root = lowering.flat(body_of(view.part)[1].values[number])

            def added(
                scalars: Scalars,
                before: Sequence[SSAValue],
                function: FunctionAttr = function,
                root: Root = root,
            ) -> list[SSAValue]:
                pair = (before[0], scalars.root(root))
                return [
                    apply_function(function, pair, scalars.builder, lowering.lookup)
                ]

            with lowering.axes_in(cells):
                dims = [*self.around, *cells]
                found += self._updated([so_far], dims, loops, added)
        lowering.forget(view.part)
        return found

    def _updated(
        self,
        old: Sequence[SSAValue],
        dims: Sequence[Axis],
        loops: Sequence[Axis],
        update: Callable[[Scalars, Sequence[SSAValue]], Sequence[SSAValue]],
    ) -> list[SSAValue]:
        """Accumulators of one shape, from what they were."""
        lowering = self.lowering
        if not dims and not loops:
            scalars = Scalars(lowering, None, lowering.builder)
            return list(update(scalars, old))
        arrays = [
            value if is_array(value) else lowering.of_scalar(value) for value in old
        ]
        generic = Generic([*dims, *loops], loops, [(each, dims) for each in arrays])
        scalars = Scalars(lowering, generic, generic.body)
        results = generic.finish(update(scalars, generic.started), lowering.builder)
        if dims:
            return results
        return [extracted(result, [], lowering.builder) for result in results]


def _is_of_scalars(op: CascadeOp) -> bool:
    """Whether there are no loops in a cascade."""
    return not any(
        isinstance(inner, FoldOp | ComprehensionOp | CascadeOp) and inner is not op
        for inner in op.walk()
    )
