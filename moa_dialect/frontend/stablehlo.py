"""StableHLO put in words that its converter to linalg takes, and what it leaves.

Before the conversion: loops that run a known number of times are written out, choices
between programs become choices between their results, products with results in a wider
type get wider factors. `stablehlo.scatter` stays in linalg, with the name of the scalar
operation that it combines by; `RULES` raises it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects.builtin import (
    AnyFloat,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    UnregisteredOp,
    i1,
    i64,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.hints import isa

from moa_dialect.diagnostics import described
from moa_dialect.embedding import parse_text
from moa_dialect.errors import PipelineError
from moa_dialect.lowering.unregistered import name_of
from moa_dialect.passes.raising.indexed import Index, Updates, index_at
from moa_dialect.passes.raising.rule import CannotRaise, Raising, Rule, check_tensors
from moa_dialect.passes.raising.source import integers_of, property_of
from moa_dialect.passes.raising.structured import read
from moa_dialect.types import dense, element_of, shape_of

MAX_STEPS = 64
"""A loop of more steps is not written out."""

FUNCTION = "moa.function"
"""The attribute of a scatter that names the scalar operation it combines by."""

CONTROL = ("stablehlo.while", "stablehlo.case", "stablehlo.if")
"""Operations with programs in them, which are written out."""


def has_control(module: ModuleOp) -> bool:
    """Whether there are loops or choices between programs; calls are to be inlined."""
    return any(name_of(op) in CONTROL for op in module.walk())


def prepare(module: ModuleOp) -> None:
    """Rewrite what the converter does not take, as far as that can be.

    Raises:
        PipelineError: for a loop that cannot be written out, with its place.
    """
    while (op := next(filter(_is_control, module.walk()), None)) is not None:
        if name_of(op) == "stablehlo.while":
            _write_out(op)
        else:
            _choose(op)
    for op in list(module.walk()):
        match name_of(op):
            case "stablehlo.dot_general":
                _widen(op)
            case "stablehlo.scatter":
                _name_function(op)
            case "stablehlo.slice":
                _slice_of_nothing(op)
            case _:
                pass


def _is_control(op: Operation) -> bool:
    return name_of(op) in CONTROL


def _made(
    name: str,
    like: Operation,
    operands: Sequence[SSAValue],
    types: Sequence[Attribute],
    properties: dict[str, Attribute] | None = None,
) -> Operation:
    """An operation with the location of another one."""
    op = UnregisteredOp.with_name(name).create(
        operands=operands, result_types=types, properties=properties or {}
    )
    op.location = like.location
    return op


def _returned(block: Block) -> Sequence[SSAValue]:
    last = block.last_op
    assert last is not None
    return last.operands


def _copied(
    block: Block, values: Sequence[SSAValue], before: Operation
) -> list[SSAValue]:
    """What a block returns for some arguments, its operations copied."""
    known: dict[SSAValue, SSAValue] = dict(zip(block.args, values, strict=True))
    last = block.last_op
    for op in block.ops:
        if op is not last:
            copy = op.clone(known)
            for old, new in zip(op.walk(), copy.walk(), strict=True):
                new.location = old.location
            Rewriter.insert_op(copy, InsertPoint.before(before))
            known.update(zip(op.results, copy.results, strict=True))
    return [known.get(value, value) for value in _returned(block)]


# Loops


def _constant(value: SSAValue) -> int | None:
    """The number that a scalar is, if the program gives it."""
    owner = value.owner
    if isinstance(owner, Block) or name_of(owner) != "stablehlo.constant":
        return None
    found = property_of(owner, "value")
    if not isa(found, DenseIntOrFPElementsAttr) or not found.is_splat():
        return None
    (number,) = set(found.get_values())
    return number if isinstance(number, int) else None


def _steps(op: Operation) -> tuple[int, int, int, int]:
    """Which value of a loop counts, from where, by how much, and how many steps.

    Raises:
        PipelineError: if it is not known before the program runs.
    """
    condition, body = (region.block for region in op.regions)
    (holds,) = _returned(condition)
    compare = holds.owner
    if isinstance(compare, Block) or name_of(compare) != "stablehlo.compare":
        raise _unknown(op)
    direction = f"{property_of(compare, 'comparison_direction')}"
    counter, end = compare.operands[0], _constant(compare.operands[1])
    if not isinstance(counter, BlockArgument) or counter.owner is not condition:
        raise _unknown(op)
    number = counter.index
    start, following = _constant(op.operands[number]), _returned(body)[number].owner
    if isinstance(following, Block) or name_of(following) != "stablehlo.add":
        raise _unknown(op)
    left, right = following.operands
    step = _constant(right)
    if left is not body.args[number] or step is None or step < 1:
        raise _unknown(op)
    found = re.search(r"\b(LT|LE)\b", direction)
    if start is None or end is None or found is None:
        raise _unknown(op)
    last = end if found[1] == "LE" else end - 1
    return number, start, step, max(0, (last - start) // step + 1)


def _unknown(op: Operation) -> PipelineError:
    return PipelineError(
        "stablehlo.while: a loop whose number of steps is not known before it runs",
        described(op.location),
    )


def _write_out(op: Operation) -> None:
    """A loop as its steps, one after the other.

    Raises:
        PipelineError: if there are too many, or it is not known how many.
    """
    number, start, step, count = _steps(op)
    if count > MAX_STEPS:
        raise PipelineError(
            f"stablehlo.while: a loop of {count} steps: expected at most {MAX_STEPS}",
            described(op.location),
        )
    body, values = op.regions[1].block, list(op.operands)
    for turn in range(count):
        # What is computed from the counter is known then.
        type_ = values[number].type
        counter = dense(np.array(start + turn * step), element_of(type_))
        made = _made("stablehlo.constant", op, (), [type_], {"value": counter})
        Rewriter.insert_op(made, InsertPoint.before(op))
        values[number] = made.results[0]
        values = _copied(body, values, op)
    Rewriter.replace_op(op, (), values)


# Choices


def _choose(op: Operation) -> None:
    """A choice between programs as one between what they give."""
    (index,) = op.operands
    branches = [_copied(region.block, (), op) for region in op.regions]
    if name_of(op) == "stablehlo.if":
        branches.reverse()
    results = branches[-1]
    for number in reversed(range(len(branches) - 1)):
        holds = _is(op, index, number)
        results = [
            _selected(op, holds, chosen, other)
            for chosen, other in zip(branches[number], results, strict=True)
        ]
    Rewriter.replace_op(op, (), results)


def _is(op: Operation, index: SSAValue, number: int) -> SSAValue:
    """Whether an index is a number; an index out of range stands for the last one."""
    type_ = index.type
    assert isa(type_, TensorType)
    value = dense(np.array(number), element_of(type_))
    constant = _made("stablehlo.constant", op, (), [type_], {"value": value})
    kind = "UNSIGNED" if type_.get_element_type() == i1 else "SIGNED"
    properties = {
        "comparison_direction": _opaque("comparison_direction", "EQ"),
        "compare_type": _opaque("comparison_type", kind),
    }
    compare = _made(
        "stablehlo.compare",
        op,
        [index, constant.results[0]],
        [TensorType(i1, [])],
        properties,
    )
    for made in (constant, compare):
        Rewriter.insert_op(made, InsertPoint.before(op))
    return compare.results[0]


def _opaque(kind: str, value: str) -> Attribute:
    """An attribute of StableHLO, as text."""
    text = f'"moa.holder"() {{x = #stablehlo<{kind} {value}>}} : () -> ()'
    (holder,) = parse_text(text).body.block.ops
    return holder.attributes["x"]


def _selected(
    op: Operation, holds: SSAValue, chosen: SSAValue, other: SSAValue
) -> SSAValue:
    if chosen is other:
        return chosen
    made = _made("stablehlo.select", op, [holds, chosen, other], [chosen.type])
    Rewriter.insert_op(made, InsertPoint.before(op))
    return made.results[0]


# Products, slices


def _widen(op: Operation) -> None:
    """Give a product factors of the wider type of its result, which are exact.

    Nor is the converter to be told how products of narrow factors may be rounded.
    """
    op.properties.pop("algorithm", None)
    wanted = element_of(op.results[0].type)
    for number, operand in enumerate(op.operands):
        given = element_of(operand.type)
        if not isinstance(wanted, AnyFloat) or not isinstance(given, AnyFloat):
            continue
        if wanted.bitwidth <= given.bitwidth:
            continue
        type_ = TensorType(wanted, shape_of(operand.type))
        made = _made("stablehlo.convert", op, [operand], [type_])
        Rewriter.insert_op(made, InsertPoint.before(op))
        op.operands[number] = made.results[0]


def _slice_of_nothing(op: Operation) -> None:
    """Let a slice without elements start at 0: upstream wants starts to be elements."""
    shape = shape_of(op.results[0].type)
    for axis, extent in enumerate(shape):
        if extent == 0:
            for name, value in (
                ("start_indices", 0),
                ("limit_indices", 0),
                ("strides", 1),
            ):
                numbers = list(integers_of(op, name))
                numbers[axis] = value
                op.properties[name] = DenseArrayBase.from_list(i64, numbers)


# Updates where data says

_FUNCTIONS = {
    "stablehlo.add": "add",
    "stablehlo.multiply": "mul",
    "stablehlo.maximum": "max",
    "stablehlo.minimum": "min",
}
"""How updates are combined with what is there."""


def _name_function(op: Operation) -> None:
    """Name the operation of the body, which is converted to linalg."""
    block = op.regions[0].block
    values = _returned(block)
    if len(values) != 1:
        return
    (value,) = values
    name = "other"
    if isinstance(value, BlockArgument):
        name = "second" if value.index == 1 else "first"
    elif isinstance(value.owner, Operation) and set(value.owner.operands) == set(
        block.args
    ):
        name = _FUNCTIONS.get(name_of(value.owner), name)
    op.attributes[FUNCTION] = StringAttr(name)


class RaiseScatter(Rule):
    """`stablehlo.scatter` of one array: an element with the updates that are for it."""

    names = ("stablehlo.scatter",)

    def apply(self, op: Operation, r: Raising) -> Sequence[SSAValue | None]:
        """One comprehension.

        Raises:
            CannotRaise: for several arrays, axes of batches, or another function.
        """
        if len(op.operands) != 3:
            raise CannotRaise("a scatter into several arrays")
        check_tensors(op)
        array, places, updates = op.operands
        given = f"{property_of(op, 'scatter_dimension_numbers')}"

        def numbers(name: str) -> list[int]:
            found = re.search(rf"\b{name} = \[([^\]]*)\]", given)
            return [] if found is None else [int(n) for n in found[1].split(",") if n]

        if numbers("input_batching_dims"):
            raise CannotRaise("a scatter with axes of batches")
        found = re.search(r"\bindex_vector_dim = (\d+)", given)
        vector = int(found[1]) if found else 0
        windows, inserted = (
            numbers("update_window_dims"),
            numbers("inserted_window_dims"),
        )
        axes = numbers("scatter_dims_to_operand_dims")
        name = op.attributes.get(FUNCTION)
        function = name.data if isinstance(name, StringAttr) else "other"
        if function == "first":
            return [array]
        if function == "other":
            raise CannotRaise(
                "a scatter that combines by other than add, mul, max, min"
            )
        rank = len(shape_of(array.type))
        parts = [axis for axis in range(rank) if axis not in inserted]
        over = [k for k in range(len(shape_of(updates.type))) if k not in windows]
        sizes: list[SSAValue | None] = [None] * rank
        for axis, window in zip(parts, windows, strict=True):
            sizes[axis] = r.extent(updates, window)
        has_vector = vector < len(shape_of(places.type))

        def starts(builder: Builder, ps: Index) -> Sequence[SSAValue | None]:
            found: list[SSAValue | None] = [None] * rank
            for position, axis in enumerate(axes):
                entries: list[SSAValue | int] = list(ps)
                if has_vector:
                    entries.insert(vector, position)
                found[axis] = index_at(r, places, entries, builder)
            return found

        def element(builder: Builder, ps: Index, offsets: Index) -> SSAValue:
            entries: dict[int, SSAValue] = dict(zip(over, ps, strict=True))
            for axis, window in zip(parts, windows, strict=True):
                entries[window] = offsets[axis]
            return read(r, updates, [entries[k] for k in sorted(entries)], builder)

        counts = [r.extent(updates, k) for k in over]
        combine = None if function == "second" else function
        made = Updates(array, counts, starts, sizes, element, combine)
        return [made.raised(r, op.results[0].type)]


RULES: tuple[Rule, ...] = (RaiseScatter(),)
"""The rules for what the converter leaves."""
