"""moa-to-linalg: the normal forms as linalg on tensors, for other compilers.

A comprehension becomes a `linalg.generic` whose loops are its axes; a fold one whose
loops are the axes that it depends on and, as reductions, those it folds. So what is
folded inside a body becomes an operation of its own, with an array over these axes as
its result: the form that compilers of linalg tile and fuse. A cascade keeps its one
pass: an `scf.for` over its chunks carries the accumulators, arrays over the axes around
it, and all that is as long as the folded axis has the length of a chunk there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, cf, scf, tensor
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    DictionaryAttr,
    IndexType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    i1,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    OpResult,
    Region,
    SSAValue,
)
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint
from xdsl.transforms.common_subexpression_elimination import cse
from xdsl.transforms.dead_code_elimination import region_dce
from xdsl.utils.hints import isa

from moa_dialect.algebra.shape import RELATIONS
from moa_dialect.errors import CompileError
from moa_dialect.lowering.linalg_cascades import cascade
from moa_dialect.lowering.linalg_ops import (
    Axis,
    Generic,
    Linear,
    Size,
    Stored,
    add_sizes,
    as_size,
    dim_of,
    emit_size,
    empty,
    extracted,
    filled,
    inserted,
    number_of,
    slice_of,
    stored,
)
from moa_dialect.lowering.linalg_scalars import (
    Bound,
    Element,
    Root,
    Scalars,
    arguments_in,
    contains_hard,
    is_array,
    is_costly,
    is_hard,
    is_order_free,
    must_be_values,
    own_arguments,
    scalar_type,
)
from moa_dialect.ops.base import ArrayOperation
from moa_dialect.ops.function import FunctionAttr, has_identity, lookup_function
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
    body_of,
    cell_element,
)
from moa_dialect.ops.structural import ConstantOp
from moa_dialect.passes.infer_shapes import InferShapesPass, programs_of
from moa_dialect.passes.to_dnf import ToDnfPass
from moa_dialect.scalar_code import (
    apply_function,
    constant,
    fold_start,
    identity_of,
)
from moa_dialect.types import array_of, dense, element_of, memory_element, shape_of

_PREDICATES = {"eq": "eq", "lt": "slt", "le": "sle", "ge": "sge"}


@dataclass
class Lowering:
    """The lowering of one function, in place.

    Attributes:
        env: what the values of the normal form are here.
        frame: the axes there are at the moment, the outer ones first.
    """

    function: FuncOp
    checks: bool
    builder: Builder = field(init=False)
    env: dict[SSAValue, Bound] = field(default_factory=dict[SSAValue, Bound])
    frame: list[Axis] = field(default_factory=list[Axis])
    _aliases: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _equal: dict[object, object] = field(default_factory=dict[object, object])
    _parts: dict[object, SSAValue] = field(default_factory=dict[object, SSAValue])

    # The function

    def run(self) -> None:
        """Lower the operations of the body in order, then erase them."""
        block = self.function.body.block
        _check_first(block)
        ops = list(block.ops)
        for argument in block.args:
            self.env[argument] = Stored(argument) if is_array(argument) else argument
        for op in ops:
            self.builder = Builder(InsertPoint.before(op))
            match op:
                case RequireOp():
                    self._require(op)
                case ExtentOp() | FixedExtentOp():
                    self._extent(op)
                case ConstantOp():
                    self._constant(op)
                case ReturnOp():
                    self._return(op)
                case ComprehensionOp():
                    self.comprehension(op)
                case CascadeOp():
                    cascade(self, op)
                case _:
                    for result in op.results:
                        self._top(result)
        for op in reversed(ops[:-1]):
            for inner in op.walk():
                inner.operands = []
        for op in reversed(ops[:-1]):
            # Passes before may have dropped operations without erasing them.
            users = [use.operation for result in op.results for use in result.uses]
            if any(self.function.is_ancestor(user) for user in users):
                raise CompileError(
                    f"moa-to-linalg: @{self.function.sym_name.data}: "
                    f"{op.name} has no code in linalg"
                )
            op.detach()
            op.erase(safe_erase=False)

    def _top(self, result: SSAValue) -> None:
        if is_array(result):
            self.env[result] = self.store(result)
        elif result not in self.env:
            self.uniform(result)

    def _require(self, op: RequireOp) -> None:
        given, expected = self.uniform(op.given), self.uniform(op.expected)
        if op.relation_name == "eq":
            one, other = self._class(given), self._class(expected)
            if one != other:
                self._equal[one] = other
        left, right = number_of(given), number_of(expected)
        is_known = (
            left is not None
            and right is not None
            and RELATIONS[op.relation_name](left, right)
        )
        if self.checks and not is_known:
            predicate = _PREDICATES[op.relation_name]
            holds = self.builder.insert(arith.CmpiOp(given, expected, predicate))
            self.builder.insert(cf.AssertOp(holds.result, op.message.data))

    def _extent(self, op: ExtentOp | FixedExtentOp) -> None:
        if isinstance(op, FixedExtentOp):
            size: Size = op.static_value
        else:
            array = self.array(op.array).tensor
            size = dim_of(array, op.axis_number, self.builder)
        value = emit_size(size, self.builder)
        value.name_hint = op.result.name_hint
        self.env[op.result] = value

    def _constant(self, op: ConstantOp) -> None:
        """An array of numbers; truth values as bytes."""
        values = op.value
        if element_of(op.results[0].type) == i1:
            values = dense(array_of(op.value).astype(np.int8), memory_element(i1))
        copy = arith.ConstantOp(values, values.type)
        self.env[op.results[0]] = Stored(self.builder.insert(copy).result)

    def _return(self, op: ReturnOp) -> None:
        types = self.function.function_type.outputs
        for number, (value, type_) in enumerate(zip(op.operands, types, strict=True)):
            bound = self.array(value).tensor if is_array(value) else self.uniform(value)
            if isa(type_, TensorType):
                bound = self._as_type(bound, type_)
            op.operands[number] = bound

    def _as_type(self, array: SSAValue, type_: TensorType[Attribute]) -> SSAValue:
        """An array as one of another type: extents, bytes as truth values."""
        if element_of(array.type) != element_of(type_):
            axes = [
                Axis(dim_of(array, number, self.builder))
                for number in range(len(shape_of(type_)))
            ]
            sizes = [axis.extent for axis in axes if not isinstance(axis.extent, int)]
            target = TensorType(element_of(type_), shape_of(array.type))
            output = self.builder.insert(tensor.EmptyOp(sizes, target)).results[0]
            root = Element(Stored(array), tuple(axes))
            if axes:
                (array,) = self._elementwise([root], axes, [axes], [output])
            else:
                scalar = extracted(array, [], self.builder)
                op = tensor.FromElementsOp(scalar, result_type=target)
                array = self.builder.insert(op).result
        if array.type != type_:
            array = self.builder.insert(tensor.CastOp(array, type_)).dest
        return array

    # Names

    def alias(self, argument: SSAValue, value: SSAValue) -> None:
        """Let an argument of a region stand for a value of another one."""
        self._aliases[argument] = value

    def resolved(self, value: SSAValue) -> SSAValue:
        """The value that an argument of a region stands for."""
        while value in self._aliases:
            value = self._aliases[value]
        return value

    def array(self, value: SSAValue) -> Stored:
        """An array of the normal form as a tensor; computed if it is not yet."""
        value = self.resolved(value)
        bound = self.env.get(value)
        if bound is None:
            bound = self.env[value] = self.store(value)
        assert isinstance(bound, Stored)
        return bound

    def depends(self, *values: SSAValue) -> list[Axis]:
        """The axes that values depend on, the outer ones first."""
        found: set[Axis] = set()
        seen: set[SSAValue] = set()
        pending = list(values)
        while pending:
            value = self.resolved(pending.pop())
            if value in seen:
                continue
            seen.add(value)
            match self.env.get(value):
                case Axis() as axis:
                    found.add(axis)
                case Stored(axes=axes):
                    found.update(axes)
                case None if isinstance(value, OpResult):
                    pending += [v for op in value.op.walk() for v in op.operands]
                case _:
                    pass
        return [axis for axis in self.frame if axis in found]

    def uniform(self, value: SSAValue) -> SSAValue:
        """A scalar that depends on no axis, computed here."""
        value = self.resolved(value)
        bound = self.env.get(value)
        if bound is None:
            bound = self.env[value] = self._scalar(value)
        if isinstance(bound, Stored):
            bound = Scalars(self, None, self.builder).value(value)
        assert isinstance(bound, SSAValue)
        return bound

    def _scalar(self, value: SSAValue) -> SSAValue:
        owner = value.owner
        if isinstance(owner, FoldOp) and (
            self.is_reduction(owner) or contains_hard(owner)
        ):
            stored = self.store(value)
            assert isinstance(stored, SSAValue)
            return stored
        if isinstance(owner, CascadeOp) or (
            isinstance(owner, scf.IfOp) and contains_hard(owner)
        ):
            self.store(value)
            bound = self.env[value]
            assert isinstance(bound, SSAValue)
            return bound
        return Scalars(self, None, self.builder).value(value)

    def linear(self, value: SSAValue) -> Linear | None:
        """An index as a sum, None if it is none."""
        value = self.resolved(value)
        bound = self.env.get(value)
        if isinstance(bound, Axis):
            offset = bound.offset
            if isinstance(offset, int):
                return Linear(((bound, 1),), offset)
            return Linear(((bound, 1),), 0, ((1, offset),))
        if isinstance(bound, Stored):
            return None
        if bound is None and isinstance(value, BlockArgument):
            return None
        if bound is not None or (self._is_visible(value) and not self.depends(value)):
            size = as_size(self.uniform(value))
            if isinstance(size, int):
                return Linear((), size)
            return Linear((), 0, ((1, size),))
        owner = value.owner
        if isinstance(owner, arith.AddiOp | arith.SubiOp | arith.MuliOp):
            left, right = self.linear(owner.lhs), self.linear(owner.rhs)
            if left is None or right is None:
                return None
            if isinstance(owner, arith.MuliOp):
                for one, other in ((left, right), (right, left)):
                    if not one.axes and not one.values:
                        return other.times(one.number)
                return None
            return left.plus(right, 1 if isinstance(owner, arith.AddiOp) else -1)
        return None

    def _is_visible(self, value: SSAValue) -> bool:
        """Whether all that a value is computed from is bound."""
        pending, seen = [value], set[SSAValue]()
        while pending:
            current = self.resolved(pending.pop())
            if current in self.env or current in seen:
                continue
            seen.add(current)
            if isinstance(current, BlockArgument):
                return False
            assert isinstance(current, OpResult)
            if current.op.regions or isinstance(current.op, InBoundsOp):
                return False
            pending += current.op.operands
        return True

    def size_of(self, index: Linear) -> Size:
        """The part of a sum that does not depend on axes."""
        total: Size = index.number
        for factor, value in index.values:
            term: Size = value
            if abs(factor) != 1:
                width = self.builder.insert(constant(abs(factor), IndexType()))
                term = self.builder.insert(arith.MuliOp(value, width)).result
            total = add_sizes(total, term, self.builder, 1 if factor > 0 else -1)
        return total

    def _class(self, size: Size) -> object:
        """What is known to be equal has one name: a number, or an axis of a tensor."""
        name: object = size
        if isinstance(size, SSAValue):
            number, owner = number_of(size), size.owner
            if number is not None:
                name = number
            elif isinstance(owner, tensor.DimOp):
                place = number_of(owner.index)
                if place is not None:
                    name = owner.source, place
        while name in self._equal:
            name = self._equal[name]
        return name

    def is_same(self, axis: Axis, array: SSAValue, number: int) -> bool:
        """Whether an axis is as long as that of an array."""
        static = shape_of(array.type)[number]
        name: object = static
        if static < 0:
            owner = array.owner
            if isinstance(owner, tensor.EmptyOp) and owner.dynamic_sizes:
                return False
            name = array, number
            while name in self._equal:
                name = self._equal[name]
        return self._class(axis.extent) == name

    def part(
        self,
        array: SSAValue,
        offsets: Sequence[Size],
        sizes: Sequence[Size],
        strides: Sequence[int],
        kept: Sequence[bool],
    ) -> SSAValue:
        """A part of an array, once in each scope."""
        key = (
            array,
            *map(self._class, (*offsets, *sizes)),
            *strides,
            *kept,
            self.builder.insertion_point.block,
        )
        if key not in self._parts:
            self._parts[key] = slice_of(
                array, offsets, sizes, strides, kept, self.builder
            )
        return self._parts[key]

    @contextmanager
    def scope(self, block: Block) -> Generator[None]:
        """Work in a block; what is bound there is forgotten at its end."""
        outer, env, aliases = self.builder, dict(self.env), dict(self._aliases)
        self.builder = Builder(InsertPoint.at_end(block))
        yield
        self.builder, self.env, self._aliases = outer, env, aliases

    def forget(self, *regions: Region) -> None:
        """Forget what is bound in regions, so that they can be lowered again."""
        for region in regions:
            values: list[SSAValue] = [*region.block.args]
            for op in region.block.walk():
                values += op.results
                values += own_arguments(op)
            for value in values:
                self.env.pop(value, None)
                self._aliases.pop(value, None)

    @contextmanager
    def axes_in(self, axes: Sequence[Axis]) -> Generator[None]:
        """Have more axes for a while."""
        before = len(self.frame)
        self.frame += axes
        yield
        del self.frame[before:]

    # Where values are computed

    def stored_if_worth(
        self, value: SSAValue, axes: Sequence[Axis]
    ) -> Stored | SSAValue | None:
        """A scalar computed outside of a body over some axes, None if it is not to be.

        It is if it is a reduction or cascade, or if it takes long and does not depend
        on all of the axes.
        """
        owner = value.owner
        if isinstance(owner, Block):
            return None
        own = self.depends(value)
        if not own:
            if not axes:
                return None
            return self.uniform(value)
        if isinstance(owner, FoldOp):
            is_worth = self.is_reduction(owner) or len(own) < len(axes)
        elif isinstance(owner, scf.IfOp):
            is_worth = len(own) < len(axes)
        else:
            is_worth = isinstance(owner, CascadeOp) or (
                len(own) < len(axes) and self._takes_long(value)
            )
        if not is_worth:
            return None
        stored = self.store(value)
        self.env[value] = stored
        return stored

    def _takes_long(self, value: SSAValue) -> bool:
        """Whether a scalar is computed by something that takes long."""
        pending, seen = [value], set[SSAValue]()
        while pending:
            current = self.resolved(pending.pop())
            if current in seen or current in self.env:
                continue
            seen.add(current)
            if not isinstance(current, OpResult) or isinstance(current.op, FoldOp):
                continue
            if is_costly(current.op):
                return True
            pending += [v for v in current.op.operands if not is_array(v)]
        return False

    def store(self, value: SSAValue) -> Stored | SSAValue:
        """Compute a value for all indices of the axes it depends on."""
        owner = value.owner
        match owner:
            case ComprehensionOp():
                self.comprehension(owner)
            case CascadeOp():
                cascade(self, owner)
            case ConstantOp():
                self._constant(owner)
            case FoldOp() if self.is_reduction(owner):
                self.env[value] = self._reduction(owner)
            case FoldOp() if is_array(value) or contains_hard(owner):
                self.env[value] = self._fold_loop(owner)
            case scf.IfOp() if is_hard(owner) or contains_hard(owner):
                self._branch(owner)
            case _:
                axes = self.depends(value)
                (result,) = self._elementwise([value], axes, [axes])
                self.env[value] = self._as_bound(result, axes)
        found = self.env[value]
        assert not isinstance(found, Axis)
        return found

    def _as_bound(
        self, array: SSAValue, axes: Sequence[Axis], cells: int = 0
    ) -> Stored | SSAValue:
        """An array over some axes; without any, a scalar is a value."""
        if axes or cells:
            return Stored(array, tuple(axes))
        if not is_array(array):
            return array
        return extracted(array, [], self.builder)

    def _elementwise(
        self,
        roots: Sequence[Root],
        axes: Sequence[Axis],
        dims: Sequence[Sequence[Axis]],
        outputs: Sequence[SSAValue] | None = None,
    ) -> list[SSAValue]:
        """Arrays by their elements over axes; `dims` says which dimension is which."""
        types = [
            scalar_type(r.array.tensor) if isinstance(r, Element) else r.type
            for r in roots
        ]
        if not axes:
            scalars = Scalars(self, None, self.builder)
            found = [scalars.root(root) for root in roots]
            if outputs is None:
                return found
        if outputs is None:
            outputs = [
                empty(d, t, self.builder) for d, t in zip(dims, types, strict=True)
            ]
        generic = Generic(axes, (), list(zip(outputs, dims, strict=True)))
        scalars = Scalars(self, generic, generic.body)
        return generic.finish([scalars.root(root) for root in roots], self.builder)

    # Comprehensions

    def comprehension(self, op: ComprehensionOp) -> None:
        """Compute the arrays of a comprehension."""
        block, terminator = body_of(op.body)
        if looped := self._looped(op):
            self._comprehension_loop(op, looped)
            return
        around = self.depends(*op.arrays)
        axes = self._axes_of(op)
        for index, axis in zip(block.args, axes, strict=True):
            self.env[index] = axis
        found: list[SSAValue] = []
        with self.axes_in(axes):
            for value in terminator.values:
                cells, root = self.flat(value)
                full = [*axes, *cells]
                dims = [*around, *self._placed(op, full)]
                with self.axes_in(cells):
                    found.append(self.array_of(root, [*around, *full], dims))
        self.forget(op.body)
        for result, array in zip(op.arrays, found, strict=True):
            self.env[result] = Stored(array, tuple(around))

    def _looped(self, op: ComprehensionOp) -> list[int]:
        """The axes of a comprehension that cannot be loops of linalg."""
        needed = must_be_values(op)
        own = list(op.body.block.args)
        if needed & (arguments_in(op) - set(own)):
            return list(range(len(own)))  # what is inside is done one by one
        return [k for k, index in enumerate(own) if index in needed]

    def _axes_of(self, op: ComprehensionOp) -> list[Axis]:
        shape = shape_of(op.arrays[0].type)
        places = op.positions(len(shape))
        return [
            Axis(shape[place] if shape[place] >= 0 else as_size(self.uniform(extent)))
            for extent, place in zip(op.extents, places, strict=False)
        ]

    def _placed(self, op: ComprehensionOp, axes: Sequence[Axis]) -> list[Axis]:
        """The axes in the order of the dimensions of a comprehension's result."""
        dims = list(axes)
        for axis, place in zip(axes, op.positions(len(axes)), strict=True):
            dims[place] = axis
        return dims

    def array_of(
        self, root: Root, axes: Sequence[Axis], dims: Sequence[Axis]
    ) -> SSAValue:
        """An array by its elements: another one, a fold, or computed one by one."""
        if isinstance(root, Element):
            if list(dims) == [*root.array.axes, *root.dims]:
                return root.array.tensor
        else:
            root = self.resolved(root)
            owner = root.owner
            if isinstance(owner, CascadeOp) and root not in self.env:
                cascade(self, owner)
            bound = self.env.get(root)
            if isinstance(bound, Stored) and list(bound.axes) == list(dims):
                return bound.tensor
            if (
                bound is None
                and isinstance(owner, FoldOp)
                and self.is_reduction(owner)
                and len(self.depends(root)) == len(axes)
            ):
                return self._reduced(owner, dims)[0]
        if not axes:
            element = Scalars(self, None, self.builder).root(root)
            return self.of_scalar(element)
        return self._elementwise([root], axes, [dims])[0]

    def of_scalar(self, value: SSAValue) -> SSAValue:
        """A scalar as an array without axes."""
        array = empty([], value.type, self.builder)
        scalar = stored(value, array, self.builder)
        return self.builder.insert(
            tensor.FromElementsOp(scalar, result_type=array.type)
        ).result

    def flat(self, value: SSAValue) -> tuple[list[Axis], Root]:
        """The axes of the cells that a body yields, and their elements."""
        value = self.resolved(value)
        if not is_array(value):
            return [], value
        owner = value.owner
        if (
            isinstance(owner, ComprehensionOp)
            and value not in self.env
            and not self._looped(owner)
        ):
            axes = self._axes_of(owner)
            block, terminator = body_of(owner.body)
            for index, axis in zip(block.args, axes, strict=True):
                self.env[index] = axis
            number = list(owner.arrays).index(value)  # pyright: ignore[reportArgumentType]
            cells, root = self.flat(terminator.values[number])
            return self._placed(owner, [*axes, *cells]), root
        array = self.array(value)
        cells = self.cell_axes(value)
        return cells, Element(array, tuple(cells))

    def cell_axes(self, value: SSAValue) -> list[Axis]:
        """Axes as long as those of an array of the normal form, not of its frame."""
        value = self.resolved(value)
        bound = self.env.get(value)
        if isinstance(bound, Stored):
            own, rank = len(bound.axes), len(shape_of(bound.tensor.type))
            return [
                Axis(dim_of(bound.tensor, number, self.builder))
                for number in range(own, rank)
            ]
        owner = value.owner
        if not is_array(value):
            return []
        match owner:
            case ComprehensionOp():
                number = list(owner.arrays).index(value)  # pyright: ignore[reportArgumentType]
                cells = self.cell_axes(body_of(owner.body)[1].values[number])
                return self._placed(owner, [*self._axes_of(owner), *cells])
            case FoldOp():
                return self.cell_axes(body_of(owner.body)[1].values[0])
            case CascadeOp():
                return self.cell_axes(owner.defining(value))  # pyright: ignore[reportArgumentType]
            case scf.IfOp():
                end = owner.true_region.block.last_op
                assert isinstance(end, scf.YieldOp)
                return self.cell_axes(end.operands[owner.results.index(value)])  # pyright: ignore[reportArgumentType]
            case _:
                raise CompileError(f"moa-to-linalg: an array from {value}")

    def _comprehension_loop(self, op: ComprehensionOp, looped: Sequence[int]) -> None:
        """Loops over some axes, that put parts into the results."""
        self.expect_no_axes(op)
        axes = self._axes_of(op)
        block, terminator = body_of(op.body)
        rest = [axis for k, axis in enumerate(axes) if k not in looped]
        starts = [
            empty(
                self._placed(op, [*axes, *self.cell_axes(value)]),
                element_of(result.type),
                self.builder,
            )
            for value, result in zip(terminator.values, op.arrays, strict=True)
        ]

        def part(
            value: SSAValue, whole: SSAValue, at: dict[Axis, SSAValue]
        ) -> SSAValue:
            cells, root = self.flat(value)
            dims = self._placed(op, [*axes, *cells])
            own = [axis for axis in dims if axis not in at]
            if not own and not isinstance(root, Element):
                scalar = stored(self.uniform(root), whole, self.builder)
                indices = [at[axis] for axis in dims]
                return self.builder.insert(
                    tensor.InsertOp(scalar, whole, indices)
                ).result
            with self.axes_in(cells):
                array = self.array_of(root, [*rest, *cells], own)
                if element_of(array.type) != element_of(whole.type):
                    (array,) = self._elementwise([root], [*rest, *cells], [own])
            offsets: list[Size] = [at.get(axis, 0) for axis in dims]
            sizes: list[Size] = [1 if axis in at else axis.extent for axis in dims]
            return inserted(array, whole, offsets, sizes, self.builder)

        def inside(
            values: Sequence[SSAValue], carried: Sequence[SSAValue]
        ) -> list[SSAValue]:
            at = {axes[k]: value for k, value in zip(looped, values, strict=True)}
            for axis, index in zip(axes, block.args, strict=True):
                value = at.get(axis, axis)
                self.env[index] = value
            with self.axes_in(rest):
                return [
                    part(value, whole, at)
                    for value, whole in zip(terminator.values, carried, strict=True)
                ]

        extents = [axes[k].extent for k in looped]
        for result, array in zip(
            op.arrays, self.nest(extents, starts, inside), strict=True
        ):
            self.env[result] = Stored(array)

    def expect_no_axes(self, op: Operation) -> None:
        if self.depends(*op.results):
            raise CompileError(
                f"moa-to-linalg: @{self.function.sym_name.data}: {op.name} inside of "
                f"other loops has no code in linalg"
            )

    def nest(
        self,
        extents: Sequence[Size],
        carried: Sequence[SSAValue],
        inside: Callable[[Sequence[SSAValue], Sequence[SSAValue]], Sequence[SSAValue]],
        indices: tuple[SSAValue, ...] = (),
    ) -> Sequence[SSAValue]:
        """Loops from 0 on that carry values."""
        if not extents:
            return inside(indices, carried)
        block = Block(arg_types=[IndexType(), *(value.type for value in carried)])
        zero, one = (emit_size(number, self.builder) for number in (0, 1))
        upper = emit_size(extents[0], self.builder)
        with self.scope(block):
            index, *values = block.args
            results = self.nest(extents[1:], values, inside, (*indices, index))
            self.builder.insert(scf.YieldOp(*results))
        loop = scf.ForOp(zero, upper, one, list(carried), Region(block))
        return self.builder.insert(loop).results

    # Folds

    def is_reduction(self, op: FoldOp) -> bool:
        """Whether a fold can be an operation of linalg: see `ORDER_FREE`."""
        return (
            is_order_free(op)
            and not self.depends(op.lower, op.upper)
            and not (op.domain is not None and is_array(op.result))
            and op.body.block.args[0] not in must_be_values(op)
        )

    def combined(
        self, op: FoldOp, element: SSAValue, so_far: SSAValue, builder: Builder
    ) -> SSAValue:
        """What a fold has, with one more element."""
        pair = (so_far, element) if is_order_free(op) else (element, so_far)
        return apply_function(op.function, pair, builder, self.lookup)

    def lookup(self, symbol: SymbolRefAttr) -> FuncOp:
        """The function a symbol names."""
        return lookup_function(self.function, symbol)

    def start_of(
        self, op: FoldOp, lower: SSAValue, upper: SSAValue, scalars: Scalars
    ) -> SSAValue:
        """What a fold of scalars starts from; 0 if nothing is known."""
        if op.initial is not None:
            return scalars.value(op.initial)
        if has_identity(op.function):
            return fold_start(op, op.result.type, lower, upper, scalars.builder)
        return scalars.builder.insert(constant(0, op.result.type)).result

    def range_of(self, lower: SSAValue, upper: SSAValue) -> Axis:
        """The indices from one value on, before another."""
        start, stop = as_size(self.uniform(lower)), as_size(self.uniform(upper))
        extent = add_sizes(stop, start, self.builder, -1)
        if isinstance(extent, int):
            return Axis(max(extent, 0), start)
        if not (start == 0 and isinstance(extent.owner, tensor.DimOp)):
            zero = emit_size(0, self.builder)
            extent = self.builder.insert(arith.MaxSIOp(extent, zero)).result
        return Axis(extent, start)

    def start_scalar(
        self, function: FunctionAttr, element: Attribute, loops: Sequence[Axis]
    ) -> SSAValue:
        """What an accumulator over some axes starts from; see `accumulator_start`."""
        start = identity_of(function, element)
        identity = constant(start, element)
        if not (function == StringAttr("add") and isinstance(element, AnyFloat)):
            return self.builder.insert(identity).result
        lengths = [axis.extent for axis in loops]
        if any(length == 0 for length in lengths):
            return self.builder.insert(identity).result
        result = self.builder.insert(constant(-0.0, element)).result
        dynamic = [length for length in lengths if not isinstance(length, int)]
        if dynamic:
            zero = emit_size(0, self.builder)
            none = self.builder.insert(identity).result
            for length in dynamic:
                some = self.builder.insert(arith.CmpiOp(length, zero, "sgt"))
                select = arith.SelectOp(some.result, result, none)
                result = self.builder.insert(select).result
        return result

    def spread(self, value: SSAValue, dims: Sequence[Axis]) -> SSAValue:
        """A value as an array over some axes."""
        bound = self.env.get(self.resolved(value))
        if is_array(value):
            array = bound if isinstance(bound, Stored) else self.array(value)
            if list(array.axes) == list(dims[: len(array.axes)]):
                return array.tensor
            cells = dims[len(dims) - len(shape_of(value.type)) :]
            root = Element(array, tuple(cells))
            return self._elementwise([root], dims, [dims])[0]
        if not self.depends(value):
            return filled(dims, self.uniform(value), self.builder)
        return self._elementwise([value], dims, [dims])[0]

    def _reduced(
        self, op: FoldOp, dims: Sequence[Axis]
    ) -> tuple[SSAValue, Sequence[Axis]]:
        """The array of a fold's results over some axes, then over those of cells."""
        loops: list[Axis] = []
        before = len(self.frame)
        initial = None if op.initial is None else self.resolved(op.initial)
        value, current = op.result, op
        while True:
            axis = self.range_of(current.lower, current.upper)
            self.env[current.body.block.args[0]] = axis
            self.frame.append(axis)
            loops.append(axis)
            value = self.resolved(body_of(current.body)[1].values[0])
            if not self._is_same_fold(op, value):
                break
            assert isinstance(value.owner, FoldOp)
            current = value.owner
        cells, root = self.flat(value)
        self.frame += cells
        dims = [*dims, *cells]
        if initial is not None:
            start = self.spread(initial, dims)
        else:
            element = cell_element(op.result.type)
            scalar = self.start_scalar(op.function, element, loops)
            if op.domain is not None:
                scalar = self.builder.insert(
                    constant(identity_of(op.function, element), element)
                ).result
            start = filled(dims, scalar, self.builder)
        generic = Generic([*dims, *loops], loops, [(start, dims)])
        scalars = Scalars(self, generic, generic.body)
        (so_far,) = generic.started

        def combined() -> SSAValue:
            return self.combined(op, scalars.root(root), so_far, scalars.builder)

        if op.domain is None:
            result = combined()
        else:
            holds = scalars.holds(op, generic.index(loops[0]))
            source = op.body.block
            result = scalars.chosen(holds, combined, lambda: so_far, source)
        (array,) = generic.finish([result], self.builder)
        del self.frame[before:]
        self.forget(op.body)
        return array, cells

    def _is_same_fold(self, op: FoldOp, value: SSAValue) -> bool:
        """Whether an element is a fold that can be done with the one around it."""
        owner = value.owner
        return (
            isinstance(owner, FoldOp)
            and not is_array(value)
            and value not in self.env
            and owner.function == op.function
            and op.domain is None
            and owner.domain is None
            and owner.initial is None
            and self.is_reduction(owner)
        )

    def _reduction(self, op: FoldOp) -> Stored | SSAValue:
        around = self.depends(op.result)
        array, cells = self._reduced(op, around)
        return self._as_bound(array, around, len(cells))

    def _fold_loop(self, op: FoldOp) -> Stored | SSAValue:
        """A fold in a loop around linalg, from the last index down."""
        self.expect_no_axes(op)
        source, terminator = body_of(op.body)
        lower, upper = self.uniform(op.lower), self.uniform(op.upper)
        axis = self.range_of(op.lower, op.upper)
        type_ = op.result.type
        has_start = op.initial is not None or has_identity(op.function)
        if is_array(op.result):
            cells = self.cell_axes(terminator.values[0])
            if op.initial is not None:
                start = self.spread(op.initial, cells)
            else:
                element = element_of(type_)
                start = (
                    filled(
                        cells,
                        self.start_scalar(op.function, element, [axis]),
                        self.builder,
                    )
                    if has_start
                    else empty(cells, element, self.builder)
                )
        else:
            scalars = Scalars(self, None, self.builder)
            start = self.start_of(op, lower, upper, scalars)

        def element_with(so_far: SSAValue | None) -> SSAValue:
            cells, root = self.flat(terminator.values[0])
            if not is_array(op.result):
                assert isinstance(root, SSAValue)
                element = self.uniform(root)
                if so_far is None:
                    return element
                return self.combined(op, element, so_far, self.builder)
            with self.axes_in(cells):
                if so_far is None:
                    return self.array_of(root, cells, cells)
                generic = Generic(cells, (), [(so_far, cells)])
                scalars = Scalars(self, generic, generic.body)
                (old,) = generic.started
                new = self.combined(op, scalars.root(root), old, scalars.builder)
                return generic.finish([new], self.builder)[0]

        def inside(
            values: Sequence[SSAValue], carried: Sequence[SSAValue]
        ) -> list[SSAValue]:
            (position,), (so_far,) = values, carried
            one = emit_size(1, self.builder)
            last = self.builder.insert(arith.SubiOp(upper, one)).result
            index = self.builder.insert(arith.SubiOp(last, position)).result
            self.env[source.args[0]] = index
            if op.domain is not None:
                holds = Scalars(self, None, self.builder).holds(op, index)
                return self._either(
                    holds, lambda: [element_with(so_far)], lambda: [so_far]
                )
            if has_start:
                return [element_with(so_far)]
            zero = emit_size(0, self.builder)
            is_first = self.builder.insert(arith.CmpiOp(position, zero, "eq")).result
            return self._either(
                is_first, lambda: [element_with(None)], lambda: [element_with(so_far)]
            )

        (result,) = self.nest([axis.extent], [start], inside)
        return Stored(result) if is_array(result) else result

    def _either(
        self,
        condition: SSAValue,
        then: Callable[[], Sequence[SSAValue]],
        otherwise: Callable[[], Sequence[SSAValue]],
    ) -> list[SSAValue]:
        """A branch around linalg."""
        regions: list[Region] = []
        types: list[Attribute] = []
        for side in (then, otherwise):
            block = Block()
            with self.scope(block):
                values = list(side())
                for number, type_ in enumerate(types):
                    if values[number].type != type_:
                        assert isa(type_, TensorType)
                        cast = tensor.CastOp(values[number], type_)
                        values[number] = self.builder.insert(cast).dest
                self.builder.insert(scf.YieldOp(*values))
            types = [value.type for value in values]
            regions.append(Region(block))
        branch = scf.IfOp(condition, types, regions[0], regions[1])
        return list(self.builder.insert(branch).results)

    def _branch(self, op: scf.IfOp) -> None:
        """A branch whose sides need operations of linalg."""
        self.expect_no_axes(op)

        def side(region: Region) -> Callable[[], list[SSAValue]]:
            end = region.block.last_op
            assert isinstance(end, scf.YieldOp)
            return lambda: [
                self.array(value).tensor if is_array(value) else self.uniform(value)
                for value in end.operands
            ]

        condition = self.uniform(op.cond)
        found = self._either(condition, side(op.true_region), side(op.false_region))
        for result, value in zip(op.results, found, strict=True):
            self.env[result] = Stored(value) if is_array(value) else value


def _check_first(block: Block) -> None:
    """Put requirements where what they speak of is known."""
    for op in list(block.ops):
        if isinstance(op, RequireOp):
            owners = [v.owner for v in op.operands if isinstance(v.owner, Operation)]
            last = max(owners, key=block.get_operation_index, default=None)
            if last is not None:
                while isinstance(last.next_op, RequireOp):
                    last = last.next_op
                if last is not op:
                    op.detach()
                    block.insert_op_after(op, last)


def to_linalg(function: FuncOp, checks: bool = True) -> None:
    """Lower one function in normal form to linalg on tensors.

    Args:
        function: the function, of one block.
        checks: check preconditions by `cf.assert`.

    Raises:
        CompileError: for a function at a later stage, or what linalg cannot say.
    """
    for op in function.walk():
        if op.name.startswith("moa.") and not isinstance(
            op,
            AtOp
            | CascadeOp
            | ComprehensionOp
            | ConstantOp
            | ExtentOp
            | FixedExtentOp
            | FoldOp
            | InBoundsOp
            | RequireOp
            | YieldOp,
        ):
            raise CompileError(
                f"moa-to-linalg: @{function.sym_name.data}: expected a stage up to "
                f"fused, got {op.name}"
            )
    Lowering(function, checks).run()
    _forget_attributes(function)
    cse(function)
    region_dce(function.body)


def _forget_attributes(function: FuncOp) -> None:
    """Remove what only moa knows the meaning of."""
    for name in [name for name in function.attributes if name.startswith("moa.")]:
        del function.attributes[name]
    if function.arg_attrs is not None:
        function.arg_attrs = ArrayAttr(
            DictionaryAttr(
                {k: v for k, v in each.data.items() if not k.startswith("moa.")}
            )
            for each in function.arg_attrs
        )


@dataclass(frozen=True)
class ToLinalgPass(ModulePass):
    """Lowers programs up to the stage `fused` to linalg, tensor, scf and arith.

    A comprehension and a fold each become a `linalg.generic` on tensors; those that are
    folded with functions that commute have loops of the kind `reduction`. Folds inside
    become operations of their own. A cascade becomes one loop that carries its
    accumulators, chunk by chunk, with operations of linalg inside; a cascade of scalars
    without chunks becomes one `linalg.generic` with several results. Where bounds
    depend on an index, as under a causal mask, there is an `scf.for` over that index.
    Programs of the stage `moa` go through moa-infer-shapes and moa-to-dnf first.

    Preconditions that types do not settle are checked by `cf.assert`, unless `checks`
    is false: then who calls vouches for them, and an index from data that is out of
    range counts as 0. Functions of other dialects are left alone.
    """

    name = "moa-to-linalg"

    checks: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if any(isinstance(each, ArrayOperation) for each in op.walk()):
            InferShapesPass().apply(ctx, op)
            ToDnfPass().apply(ctx, op)
        for function in programs_of(op):
            if any(each.name.startswith("moa.") for each in function.walk()):
                to_linalg(function, self.checks)
