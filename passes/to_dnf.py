"""moa-to-dnf: the denotational normal form, by psi reduction.

Each result E of a function becomes a comprehension over its index space whose body is
`i ψ E`; the laws of `psi_laws` then push psi to the arguments. What remains are
full-index psi of arguments, scalar operations, index arithmetic and folds.

Termination: give an element `i ψ E` the number of operations on the longest path from
E up to the arguments. A law replaces an element by elements of operands, whose number
is smaller, so a rewriting sequence has finitely many generations, and each generation
is finite. Its length can still grow exponentially with that number (the normal form is
call-by-name), hence the limit on the size of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from operator import add, mul, sub
from typing import Any, NoReturn, Protocol

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import (
    ArrayAttr,
    IndexType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnregisteredOp,
)
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.transforms.dead_code_elimination import is_trivially_dead
from xdsl.utils.hints import isa

from moa_dialect.algebra.layout import gamma_inverse
from moa_dialect.algebra.polynomial import Polynomial
from moa_dialect.algebra.shape import (
    RELATIONS,
    Fixed,
    Relation,
    failure_message,
)
from moa_dialect.errors import CompileError, precondition_error
from moa_dialect.ops.base import ArrayOperation, rank
from moa_dialect.ops.computational import OmegaOp
from moa_dialect.ops.extents import (
    EXTENTS,
    Root,
    RootAtom,
    RootCache,
    ValueAbsolute,
    ValueAxis,
    ValueCount,
    ValueElement,
    ValueTrueCount,
    as_polynomial,
    declared,
    described,
    equal_by_name,
    extent_names,
    extent_root,
    index_root,
    root_of,
    simplified,
    without_extent_names,
)
from moa_dialect.ops.function import FunctionAttr, lookup_function
from moa_dialect.ops.normal_form import (
    AtOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
    body_of,
)
from moa_dialect.ops.structural import CellOp, ConstantOp
from moa_dialect.passes import derivation
from moa_dialect.passes.infer_shapes import (
    functions_of,
    infer_shapes,
    is_of_moa,
    operation_name,
    programs_of,
)
from moa_dialect.passes.laws import LAWS
from moa_dialect.passes.psi_laws import (
    FoldBody,
    Index,
    PsiLaw,
    PsiOfConstant,
    number_of,
)
from moa_dialect.scalar_code import apply_named, cast, constant, inline
from moa_dialect.types import dense, element_of, is_element_type, shape_of
from moa_dialect.walking import operations

_AXIS_NAMES = "ijklmn"
"""What the indices of a result's axes are called, in order, where that many do."""

_FOLDED_NAME = "p"
"""What a folded index is called."""

_FOLD_STEPS = 8
"""How many steps a fold counts as: what becomes of it later is that much work."""

_LARGEST = 2**63 - 1

_MOST_NESTED = 64
"""How deep folds may nest: beyond, evaluating them is hopeless anyway."""

_EQUAL = arith.CMPI_COMPARISON_OPERATIONS.index("eq")

PROGRAM = "moa.program"
"""The attribute of a function that calls kernels and does nothing else."""

Key = tuple[SSAValue, tuple[SSAValue, ...]]


class Observer(Protocol):
    """Who is told the steps of a reduction as they are taken."""

    def begin(self, value: SSAValue, extents: Sequence[SSAValue], body: Block) -> None:
        """The elements of a result, at the indices that a body binds, come next."""
        ...

    def step(self, law: PsiLaw[Any], element: AtOp, value: SSAValue) -> None:
        """A law gives this value for an element that is about to be replaced by it."""
        ...


@dataclass
class PsiReduction:
    """The reduction of one function; what the laws see as `Reduction`."""

    function: FuncOp
    limit: int
    observers: Sequence[Observer] = ()
    builder: Builder = field(init=False)
    _entry: Builder = field(init=False)
    _extents: dict[Hashable, SSAValue] = field(default_factory=dict[Hashable, SSAValue])
    _roots: RootCache = field(default_factory=RootCache)
    _equal: dict[Root, Root] = field(default_factory=dict[Root, Root])
    _names: dict[ValueAxis, str] = field(default_factory=dict[ValueAxis, str])
    _numbers: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])
    _known: dict[Block, dict[Key, SSAValue]] = field(
        default_factory=dict[Block, dict[Key, SSAValue]]
    )
    _cells: dict[Block, dict[tuple[OmegaOp, tuple[SSAValue, ...]], SSAValue]] = field(
        default_factory=dict[
            Block, dict[tuple[OmegaOp, tuple[SSAValue, ...]], SSAValue]
        ]
    )
    _bounds: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _became: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _pending: list[AtOp] = field(default_factory=list[AtOp])
    _steps: int = 0

    def __post_init__(self) -> None:
        block = self.function.body.block
        # Extents, constants and checks come first, in front of this marker.
        self._marker = arith.ConstantOp.from_int_and_width(0, IndexType())
        Builder(InsertPoint.at_start(block)).insert(self._marker)
        self._entry = Builder(InsertPoint.before(self._marker))
        self.builder = Builder(InsertPoint.after(self._marker))
        # Arrays of the text, of which what is computed at the entry may need elements.
        for op in [op for op in block.ops if isinstance(op, ConstantOp)]:
            op.detach()
            self._entry.insert(op)

    # What the laws ask for.

    def element(self, array: SSAValue, index: Index) -> SSAValue:
        """`index ψ array`, put down to be reduced next."""
        op = self.builder.insert(AtOp(array, index))
        self._pending.append(op)
        return op.result

    def number(self, value: int) -> SSAValue:
        """An index constant, one for each number."""
        if value not in self._numbers:
            op = self._entry.insert(constant(value, IndexType()))
            self._numbers[value] = op.results[0]
        return self._numbers[value]

    def extent(self, array: SSAValue, axis: int) -> SSAValue:
        """The extent of an axis as a value at the function's entry."""
        return self._value_of(extent_root(array, axis, self._roots))

    def fold(self, function: FunctionAttr, extent: SSAValue, body: FoldBody) -> FoldOp:
        """A fold over `0 <= k < extent`."""
        depth = sum(1 for _ in _scopes(self.builder.insertion_point.block))
        if depth > _MOST_NESTED:
            self._too_deep()
        self._count(_FOLD_STEPS)
        block = Block(arg_types=[IndexType()])
        block.args[0].name_hint = _FOLDED_NAME
        self._bounds[block.args[0]] = extent
        outer, self.builder = self.builder, Builder(InsertPoint.at_end(block))
        element = body(block.args[0])
        self.builder.insert(YieldOp(element))
        self.builder = outer
        zero = self.number(0)
        return self.builder.insert(
            FoldOp(function, zero, extent, Region(block), element.type)
        )

    def choose(
        self,
        condition: SSAValue,
        element: Attribute,
        then: Callable[[], SSAValue],
        otherwise: Callable[[], SSAValue],
    ) -> SSAValue:
        """A branch: what is not chosen is not evaluated, nor need it exist."""
        outer, regions = self.builder, list[Region]()
        for emit in (then, otherwise):
            block = Block()
            self.builder = Builder(InsertPoint.at_end(block))
            self.builder.insert(scf.YieldOp(emit()))
            regions.append(Region(block))
        self.builder = outer
        op = scf.IfOp(condition, (element,), regions[0], regions[1])
        return self.builder.insert(op).results[0]

    def once(
        self, key: Hashable, value: SSAValue, emit: Callable[[], SSAValue]
    ) -> SSAValue:
        """A number computed from an array, at the entry unless it is a cell's."""
        if _block_of(value) is not self.function.body.block:
            return emit()
        if (known := self._extents.get(key)) is not None:
            return self._resolve(known)
        return self._at_entry(key, value, emit)

    def checked(
        self, op: Operation, index: SSAValue, extent: SSAValue, message: str
    ) -> SSAValue:
        """An index that data of a cell decides, checked where it is used."""
        if op.parent is self.function.body.block:
            return index
        return self.builder.insert(InBoundsOp(index, extent, message)).result

    def _as_required(self, op: ArrayOperation, index: Index) -> Index:
        """An index, used only if data of a cell are what an operation requires.

        What they are is checked where an element is used: its index is moved by
        nothing.
        """
        for r in op.requirements():
            roots = [
                self._canonical(root_of(op.operands, extent, self._roots))
                for extent in (r.given, r.expected)
            ]
            if not any(map(self._is_decided_in_cell, roots)):
                continue
            given, expected = map(self._extent_here, roots)
            message, bound = r.message, expected
            if r.relation == "le":
                one = self.number(1)
                bound = self.builder.insert(arith.AddiOp(expected, one)).result
            elif r.relation != "lt":
                given = self.builder.insert(arith.SubiOp(given, expected)).result
                bound = self.number(1 if r.relation == "eq" else _LARGEST)
                message = f"{message} (by how much more)"
            checked = self.builder.insert(InBoundsOp(given, bound, message)).result
            nothing = self.builder.insert(arith.SubiOp(checked, given)).result
            moved = self.builder.insert(arith.AddiOp(index[0], nothing)).result
            index = (moved, *index[1:])
        return index

    def extent_in_cell(self, array: SSAValue, axis: int) -> SSAValue | None:
        """An extent that data of a cell decide, computed here; None for others."""
        root = self._canonical(extent_root(array, axis, self._roots))
        if not self._is_decided_in_cell(root):
            return None
        extent = self._extent_here(root)
        if isinstance(array.owner, ArrayOperation):
            (extent,) = self._as_required(array.owner, (extent,))
        return extent

    def _is_decided_in_cell(self, root: Root) -> bool:
        """Whether data of a cell decide an extent."""
        atoms = {atom for atoms, _ in as_polynomial(root).terms for atom in atoms}
        return any(map(self._is_of_cell, atoms))

    def _is_of_cell(self, atom: RootAtom) -> bool:
        return (
            isinstance(atom, ValueElement | ValueAbsolute | ValueTrueCount)
            and _block_of(atom.value) is not self.function.body.block
        )

    def _extent_here(self, root: Root) -> SSAValue:
        """An extent that data of a cell decide, without keeping it."""
        if isinstance(root, Polynomial):
            total = self.number(0)
            for atoms, coefficient in root.terms:
                term = self.number(coefficient)
                for atom in atoms:
                    factor = self._extent_here(atom)
                    term = self.builder.insert(arith.MuliOp(term, factor)).result
                total = self.builder.insert(arith.AddiOp(total, term)).result
            return total
        if not self._is_of_cell(root):
            return self._value_of(root)
        match root:
            case ValueElement(value, position):
                return self._element_of_vector(value, position)
            case ValueAbsolute(value, position):
                element = self._element_of_vector(value, position)
                return apply_named("abs", [element], self.builder)
            case ValueTrueCount(value):
                return self._true_count(value)
            case _:
                raise AssertionError(f"no data decide {root}")

    def constant_element(self, values: np.ndarray, position: SSAValue) -> SSAValue:
        """An element of a vector of numbers known now."""
        op = self._entry.insert(ConstantOp(dense(values, IndexType())))
        return self.element(op.result, (position,))

    def is_same_total(
        self,
        left: SSAValue,
        axes: Sequence[int],
        right: SSAValue,
        others: Sequence[int],
    ) -> bool:
        """Whether types and shape rules give two groups of axes equal totals."""
        return self._total(left, axes) == self._total(right, others)

    def _total(self, array: SSAValue, axes: Sequence[int]) -> Polynomial[RootAtom]:
        total = Polynomial[RootAtom].constant(1)
        for axis in axes:
            root = self._canonical(extent_root(array, axis, self._roots))
            number = _static(root)
            total = total * as_polynomial(root if number is None else Fixed(number))
        return total

    def cells(self, op: OmegaOp, frame: Index) -> SSAValue:
        """Inline omega's cell function for one frame index, once in each scope."""
        key = (op, tuple(frame))
        block = self.builder.insertion_point.block
        for scope in _scopes(block):
            if (known := self._cells.get(scope, {}).get(key)) is not None:
                return known
        function = op.cell_function()
        assert function is not None
        arguments = [
            self.builder.insert(
                CellOp(array, [frame[axis] for axis in axes])
            ).array_result
            for array, axes in zip(op.arrays, op.frame_axes(), strict=True)
        ]
        (result,) = inline(function, arguments, self.builder)
        self._cells.setdefault(block, {})[key] = result
        return result

    def lookup(self, symbol: SymbolRefAttr) -> FuncOp:
        """The function a symbol names."""
        return lookup_function(self.function, symbol)

    def body(self, op: ComprehensionOp, index: Index) -> Sequence[SSAValue]:
        """What a comprehension's body yields at an index, written here.

        Raises:
            CompileError: if the body yields arrays.
        """
        block, terminator = body_of(op.body)
        if any(isa(value.type, TensorType) for value in terminator.values):
            raise CompileError("a comprehension of arrays is not composed with others")
        known: dict[SSAValue, SSAValue] = dict(zip(block.args, index, strict=True))
        self._copy(block, known)
        return [self._outer(value, known) for value in terminator.values]

    def _copy(self, block: Block, known: dict[SSAValue, SSAValue]) -> None:
        """Write the operations of a block but the last one; `known` grows."""
        for op in list(block.ops):
            if op is not block.last_op:
                self._copy_operation(op, known)

    def _copy_operation(self, op: Operation, known: dict[SSAValue, SSAValue]) -> None:
        operands = [self._outer(operand, known) for operand in op.operands]
        if isinstance(op, AtOp):
            known[op.result] = self.element(operands[0], operands[1:])
            return
        if isinstance(op, ExtentOp):
            known[op.result] = self.extent(operands[0], op.axis_number)
            return
        simple = self._simple(op, operands)
        if simple is not None:
            known[op.results[0]] = simple
            return
        if isinstance(op, FoldOp):
            self._count(_FOLD_STEPS)
        regions = [self._copy_region(region, known, operands) for region in op.regions]
        copy = type(op).create(
            operands=operands,
            result_types=[result.type for result in op.results],
            properties=op.properties.copy(),
            attributes=op.attributes.copy(),
            regions=regions,
        )
        self.builder.insert(copy)
        known.update(zip(op.results, copy.results, strict=True))

    def _copy_region(
        self,
        region: Region,
        known: dict[SSAValue, SSAValue],
        operands: Sequence[SSAValue],
    ) -> Region:
        """A copy of the body of a fold, from the operands given to it, or of a side."""
        block, terminator = region.block, region.block.last_op
        assert terminator is not None
        new = Block(arg_types=[arg.type for arg in block.args])
        for arg, old in zip(new.args, block.args, strict=True):
            arg.name_hint = old.name_hint
            known[old] = arg
            if len(operands) > 1 and isinstance(operands[1].type, IndexType):
                self._bounds[arg] = operands[1]
        outer, self.builder = self.builder, Builder(InsertPoint.at_end(new))
        if sum(1 for _ in _scopes(outer.insertion_point.block)) > _MOST_NESTED:
            self._too_deep()
        self._copy(block, known)
        values = [self._outer(value, known) for value in terminator.operands]
        self.builder.insert(type(terminator)(*values))
        self.builder = outer
        return Region(new)

    def _outer(self, value: SSAValue, known: dict[SSAValue, SSAValue]) -> SSAValue:
        """What stands for a value in a copy: scalars at the top are written again."""
        if value in known:
            return known[value]
        owner = value.owner
        if isinstance(owner, Block) or isa(value.type, TensorType):
            return value
        if (
            isinstance(value.type, IndexType)
            and not isinstance(owner, arith.ConstantOp)
            and (root := index_root(value, self._roots)) is not None
        ):
            known[value] = self._value_of(root)
        elif owner.parent is self.function.body.block:
            self._copy_operation(owner, known)
        return known.get(value, value)

    def _simple(self, op: Operation, operands: Sequence[SSAValue]) -> SSAValue | None:
        """An index computed from numbers, or taken apart where it was put together.

        `(x * n + y) div n = x` and `(x * n + y) mod n = y` for `y < n`, and
        `(x * m * n + y) div n = x * m + y div n`, `(x * m * n + y) mod n = y mod n`;
        for `y < n` also `(x * n + y) div (m * n) = x div m` and
        `(x * n + y) mod (m * n) = (x mod m) * n + y`.
        """
        if len(op.results) != 1 or not isinstance(op.results[0].type, IndexType):
            return None
        if isinstance(op, InBoundsOp) and self._is_below(*operands):
            return operands[0]
        if isinstance(op, ExtentOp):
            return self.extent(operands[0], op.axis_number)
        if isinstance(op, arith.SelectOp):
            return self._stretched(*operands)
        if isinstance(op, arith.ConstantOp):
            number = number_of(op.result)
            return None if number is None else self.number(number)
        if isinstance(op, arith.MuliOp | arith.AddiOp | arith.SubiOp):
            numbers = [number_of(operand) for operand in operands]
            left, right = numbers
            if left is not None and right is not None:
                compute = {"arith.muli": mul, "arith.addi": add, "arith.subi": sub}
                return self.number(compute[op.name](left, right))
            neutral = 1 if isinstance(op, arith.MuliOp) else 0
            if right == neutral:
                return operands[0]
            if left == neutral and not isinstance(op, arith.SubiOp):
                return operands[1]
            if isinstance(op, arith.MuliOp) and 0 in numbers:
                return self.number(0)
            if isinstance(op, arith.AddiOp):
                return self._put_together(*operands)
        if isinstance(op, arith.DivUIOp | arith.RemUIOp):
            # A divisor that is a number is told from data by every later pass.
            index, divisor = operands
            number = _number_here(divisor)
            if number is not None:
                divisor = self.number(number)
            return self._divided(isinstance(op, arith.DivUIOp), index, divisor)
        return None

    def _stretched(
        self, condition: SSAValue, then: SSAValue, otherwise: SSAValue
    ) -> SSAValue | None:
        """`0 if n = 1 else i` is i, for an index i below n."""
        compare = condition.owner
        if number_of(then) != 0 or not isinstance(compare, arith.CmpiOp):
            return None
        is_equal = compare.predicate.value.data == _EQUAL
        if is_equal and number_of(compare.rhs) == 1:
            return otherwise if self._bounds.get(otherwise) is compare.lhs else None
        return None

    def _put_together(self, high: SSAValue, low: SSAValue) -> SSAValue | None:
        """`(x div n) * n + x mod n = x`, also with more before: `(y + x div n) * n`."""
        if not isinstance(low.owner, arith.RemUIOp):
            return None
        if not isinstance(high.owner, arith.MuliOp):
            return None
        index, divisor = low.owner.operands
        quotient, factor = high.owner.operands
        if not _is_same_number(factor, divisor):
            return None

        def is_quotient(value: SSAValue) -> bool:
            owner = value.owner
            return (
                isinstance(owner, arith.DivUIOp)
                and owner.lhs is index
                and _is_same_number(owner.rhs, divisor)
            )

        if is_quotient(quotient):
            return index
        if not isinstance(quotient.owner, arith.AddiOp):
            return None
        before, last = quotient.owner.operands
        if not is_quotient(last):
            return None
        by = _number_here(divisor)
        if isinstance(before.owner, arith.MuliOp):
            inner, times = before.owner.operands
            if (number := _number_here(times)) is not None and by is not None:
                before, divisor = inner, self.number(number * by)
        scaled = self.builder.insert(arith.MuliOp(before, divisor)).result
        return self.builder.insert(arith.AddiOp(scaled, index)).result

    def _taken_apart(
        self, is_quotient: bool, index: SSAValue, divisor: SSAValue
    ) -> SSAValue | None:
        if self._is_below(index, divisor):
            return self.number(0) if is_quotient else index
        if isinstance(index.owner, arith.MuliOp):
            high, low = index, self.number(0)
        elif isinstance(index.owner, arith.AddiOp):
            high, low = index.owner.operands
        else:
            return None
        if not isinstance(high.owner, arith.MuliOp):
            return None
        quotient, factor = high.owner.operands
        if _is_same_number(factor, divisor):
            if not self._is_below(low, divisor):
                return None
            return quotient if is_quotient else low
        # x * (m * n) + y, by n: the first term is m * x times n.
        whole, part = _number_here(factor), _number_here(divisor)
        if not whole or not part:
            return None
        if part % whole == 0 and self._is_below(low, factor):
            # x * n + y, by m * n: the quotient is that of x by m.
            inner = self._divided(is_quotient, quotient, self.number(part // whole))
            if is_quotient:
                return inner
            times = self.builder.insert(arith.MuliOp(inner, self.number(whole)))
            return self.builder.insert(arith.AddiOp(times.result, low)).result
        if whole % part:
            return None
        rest = self._divided(is_quotient, low, divisor)
        if not is_quotient:
            return rest
        times = self.builder.insert(arith.MuliOp(quotient, self.number(whole // part)))
        return self.builder.insert(arith.AddiOp(times.result, rest)).result

    def _divided(
        self, is_quotient: bool, index: SSAValue, divisor: SSAValue
    ) -> SSAValue:
        """The quotient or remainder of an index, taken apart if it can be."""
        found = self._taken_apart(is_quotient, index, divisor)
        if found is not None:
            return found
        operation = arith.DivUIOp if is_quotient else arith.RemUIOp
        return self.builder.insert(operation(index, divisor)).result

    def _is_below(self, index: SSAValue, bound: SSAValue) -> bool:
        """Whether an index is known to be less than a number above 0."""
        if self._bounds.get(index) is bound:
            return True
        given, limit = self._limit(index), _number_here(bound)
        return given is not None and limit is not None and given <= limit

    def _limit(self, index: SSAValue) -> int | None:
        """A number that an index stays below, if one is known."""
        if (number := number_of(index)) is not None:
            return number + 1 if number >= 0 else None
        if (extent := self._bounds.get(index)) is not None:
            return _number_here(extent)
        match index.owner:
            case arith.RemUIOp() as op:
                return _number_here(op.rhs)
            case arith.DivUIOp() as op:
                limit, by = self._limit(op.lhs), _number_here(op.rhs)
                return -(-limit // by) if limit is not None and by else None
            case arith.MuliOp() | arith.AddiOp() as op:
                left, right = self._limit(op.lhs), self._limit(op.rhs)
                if left is None or right is None:
                    return None
                if isinstance(op, arith.AddiOp):
                    return left + right - 1
                return (left - 1) * (right - 1) + 1 if min(left, right) > 0 else None
            case _:
                return None

    def _too_deep(self) -> NoReturn:
        raise CompileError(
            f"the normal form of @{self.function.sym_name.data} nests more than "
            f"{_MOST_NESTED} folds in each other"
        )

    # Extents and requirements.

    def _canonical(self, root: Root) -> Root:
        """One of the extents that are known to be equal to this one, always the same.

        Atoms are replaced by atoms, polynomials by atoms or polynomials: what is seen
        again is where the replacements end.
        """
        seen: set[Root] = set()
        while True:
            if isinstance(root, Polynomial):
                root = simplified(
                    root.substitute(lambda atom: as_polynomial(self._canonical(atom)))
                )
            next_ = self._equal.get(root)
            if next_ is None or root in seen:
                return root
            seen.add(root)
            root = next_

    def _value_of(self, root: Root) -> SSAValue:
        root = self._canonical(root)
        if (known := self._extents.get(root)) is not None:
            return self._resolve(known)
        match root:
            case Fixed(value):
                op = FixedExtentOp(value)
            case ValueAxis(value, axis):
                op = ExtentOp(value, axis)
                op.result.name_hint = self._names.get(root)
            case ValueCount(value):
                one = self.number(1)
                total: SSAValue = one
                for axis in range(rank(value)):
                    extent = self.extent(value, axis)
                    op = self._entry.insert(arith.MuliOp(total, extent))
                    total = op.result
                op = arith.MinUIOp(total, one)
            case ValueElement(value, position):
                return self._at_entry(
                    root, value, lambda: self._element_of_vector(value, position)
                )
            case ValueAbsolute(value, position):
                return self._at_entry(
                    root,
                    value,
                    lambda: apply_named(
                        "abs", [self._element_of_vector(value, position)], self.builder
                    ),
                )
            case ValueTrueCount(value):
                return self._at_entry(root, value, lambda: self._true_count(value))
            case Polynomial():
                return self._polynomial(root)
        result = self._entry.insert(op).results[0]
        self._extents[root] = result
        return result

    def _polynomial(self, root: Polynomial[RootAtom]) -> SSAValue:
        """An extent computed from extents."""
        total: SSAValue | None = None
        for atoms, coefficient in root.terms:
            term: SSAValue | None = None
            if abs(coefficient) != 1 or not atoms:
                term = self.number(abs(coefficient))
            for atom in atoms:
                factor = self._value_of(atom)
                if term is not None:
                    factor = self._entry.insert(arith.MuliOp(term, factor)).result
                term = factor
            assert term is not None
            if total is None and coefficient > 0:
                total = term
                continue
            combine = arith.AddiOp if coefficient > 0 else arith.SubiOp
            start = self.number(0) if total is None else total
            total = self._entry.insert(combine(start, term)).result
        assert total is not None
        self._extents[root] = total
        return total

    def _true_count(self, value: SSAValue) -> SSAValue:
        """How many elements of a vector of truth values hold, as a fold."""
        return self.fold(
            StringAttr("add"),
            self.extent(value, 0),
            lambda k: cast(self.element(value, (k,)), IndexType(), self.builder),
        ).result

    def _element_of_vector(self, value: SSAValue, position: int) -> SSAValue:
        shape = shape_of(value.type)
        index = [self.number(entry) for entry in gamma_inverse(position, shape)]
        return cast(self.element(value, index), IndexType(), self.builder)

    def _at_entry(
        self, root: Hashable, value: SSAValue, emit: Callable[[], SSAValue]
    ) -> SSAValue:
        """An extent that depends on data: computed when the function starts."""
        if _block_of(value) is not self.function.body.block:
            raise CompileError("extents inside a cell function must not depend on data")
        outer = self.builder, self._entry, self._pending
        # What the extent is computed from comes before it: in front of this marker.
        marker = self._entry.insert(constant(0, IndexType()))
        self.builder, self._entry = self._entry, Builder(InsertPoint.before(marker))
        self._pending = []
        result = emit()
        self._reduce_pending()
        self.builder, self._entry, self._pending = outer
        marker.detach()
        marker.erase()
        result = self._resolve(result)
        self._extents[root] = result
        return result

    def require(self, op: ArrayOperation) -> None:
        """Emit what one operation requires and types do not settle."""
        for requirement in (*op.requirements(), *declared(op)):
            given, expected = (
                root_of(op.operands, extent, self._roots)
                for extent in (requirement.given, requirement.expected)
            )
            self._require(
                requirement.relation,
                given,
                expected,
                partial(described, requirement, op.operands, self._names, self._roots),
            )

    def _require(
        self,
        relation: Relation,
        given: Root,
        expected: Root,
        message: Callable[[], str],
    ) -> None:
        given, expected = self._canonical(given), self._canonical(expected)
        if given == expected and relation != "lt":
            return
        if relation == "ge" and expected == Fixed(0) and isinstance(given, ValueAxis):
            return
        if (n := _static(given)) is not None and (m := _static(expected)) is not None:
            if not RELATIONS[relation](n, m):
                raise precondition_error(failure_message(relation, message(), n, m))
            if relation != "eq":
                return
        else:
            value_of = self._product_of if relation == "eq" else self._value_of
            values = value_of(given), value_of(expected)
            if relation == "le" and isinstance(given, ValueAbsolute):
                # The least integer has no absolute value: it wraps around.
                most = self._entry.insert(
                    arith.MinUIOp(values[0], self.number(_LARGEST))
                )
                values = most.result, values[1]
            self._entry.insert(RequireOp(relation, *values, message()))
        if relation == "eq" and Fixed not in (type(given), type(expected)):
            if isinstance(expected, Polynomial) and not isinstance(given, Polynomial):
                given, expected = expected, given
            self._equal[given] = expected

    def _product_of(self, root: Root) -> SSAValue:
        """An extent; a product of data that is no integer of 64 bits is the largest.

        It would wrap around, and be equal to what it is not. It does not if `a b / a`
        is b.
        """
        if not isinstance(root, Polynomial) or len(root.terms) != 1:
            return self._value_of(root)
        ((atoms, coefficient),) = root.terms
        if coefficient != 1 or not any(isinstance(a, ValueElement) for a in atoms[1:]):
            return self._value_of(root)

        def emit(op: Operation) -> SSAValue:
            return self._entry.insert(op).results[0]

        total, one = self._value_of(atoms[0]), self.number(1)
        for atom in atoms[1:]:
            factor = self._value_of(atom)
            product = emit(arith.MuliOp(total, factor))
            back = emit(arith.DivUIOp(product, emit(arith.MaxUIOp(total, one))))
            is_exact = emit(arith.CmpiOp(back, factor, "eq"))
            is_nothing = emit(arith.CmpiOp(total, self.number(0), "eq"))
            holds = emit(arith.OrIOp(is_exact, is_nothing))
            total = emit(arith.SelectOp(holds, product, self.number(_LARGEST)))
        return total

    # The rewriting.

    def run(self) -> None:
        """Replace the function's algebra by comprehensions."""
        block = self.function.body.block
        self._names = extent_names(self.function)
        without_extent_names(self.function)
        for given, expected, message in equal_by_name(self._names):
            self._require("eq", given, expected, partial(str, message))
        arrays = [op for op in block.ops if isinstance(op, ArrayOperation)]
        for op in arrays:
            self.require(op)
        composes = _composes(block)
        if composes:
            self._require_stated()
        terminator = block.last_op
        assert isinstance(terminator, ReturnOp)
        for number, value in enumerate(terminator.operands):
            if isa(value.type, TensorType) and (composes or not _is_normal(value)):
                terminator.operands[number] = self._comprehension(value, terminator)
        self._reduce_pending()
        self._drop_checks()
        self._marker.detach()
        self._marker.erase()
        # What preconditions read may stand before the array that it is an element of.
        while erase_dead(block):
            pass

    def _drop_checks(self) -> None:
        """Drop checks of indices whose terms say by now that they are in bounds."""
        for op in [
            op for op in operations(self.function) if isinstance(op, InBoundsOp)
        ]:
            if self._is_below(op.index, op.extent):
                op.result.replace_all_uses_with(op.index)
                op.detach()
                op.erase()

    def _require_stated(self) -> None:
        """Requirements between extents of arrays that are about to go, as any other."""
        for op in list(self.function.body.block.ops):
            if isinstance(op, RequireOp) and op.parent is not None:
                given = index_root(op.given, self._roots)
                expected = index_root(op.expected, self._roots)
                if given is None or expected is None:
                    continue
                message = partial(str, op.message.data)
                self._require(op.relation_name, given, expected, message)
                op.detach()
                op.erase()

    def _comprehension(self, value: SSAValue, terminator: Operation) -> SSAValue:
        if not is_element_type(element_type := element_of(value.type)):
            raise CompileError(f"a result has unsupported elements: {element_type}")
        extents = [self.extent(value, axis) for axis in range(rank(value))]
        body = Block(arg_types=[IndexType()] * len(extents))
        self._bounds.update(zip(body.args, extents, strict=True))
        for arg, name in zip(body.args, _AXIS_NAMES, strict=False):
            arg.name_hint = name
        for observer in self.observers:
            observer.begin(value, extents, body)
        self.builder = Builder(InsertPoint.at_end(body))
        element = self.element(value, body.args)
        self.builder.insert(YieldOp(element))
        op = ComprehensionOp(extents, Region(body), [value.type])
        Builder(InsertPoint.before(terminator)).insert(op)
        self._reduce_pending()
        return op.arrays[0]

    def _reduce_pending(self) -> None:
        """Reduce elements depth first, in program order."""
        stack = list(reversed(self._pending))
        self._pending.clear()
        while stack:
            op = stack.pop()
            self._reduce(op)
            stack.extend(reversed(self._pending))
            self._pending.clear()

    def _reduce(self, op: AtOp) -> None:
        key = (op.array, tuple(map(self._resolve, op.indices)))
        block = op.parent
        assert block is not None
        for scope in _scopes(block):
            if (known := self._known.get(scope, {}).get(key)) is not None:
                self._replace(op, self._resolve(known))
                return
        known = self._known.setdefault(block, {})
        producer = op.array.owner
        law = LAWS.get(type(producer)) if isinstance(producer, Operation) else None
        if law is None or (
            isinstance(producer, ConstantOp)
            and not PsiOfConstant.applies(producer, op.indices)
        ):
            known[key] = op.result
            return
        self._count(1)
        self.builder = Builder(InsertPoint.before(op))
        assert isinstance(producer, Operation)
        index = tuple(op.indices)
        is_of_cell = producer.parent is not self.function.body.block
        if index and is_of_cell and isinstance(producer, ArrayOperation):
            index = self._as_required(producer, index)
        value = law.reduce(producer, index, self)
        for observer in self.observers:
            observer.step(law, op, value)
        known[key] = value
        self._replace(op, value)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > self.limit:
            raise CompileError(
                f"the normal form of @{self.function.sym_name.data} is too large: more "
                f"than {self.limit} reduction steps (moa-to-dnf{{limit=...}}); the "
                f"program uses intermediate arrays under too many different indices"
            )

    def _resolve(self, value: SSAValue) -> SSAValue:
        while (next_ := self._became.get(value)) is not None:
            value = next_
        return value

    def _replace(self, op: AtOp, value: SSAValue) -> None:
        self._became[op.result] = value
        op.result.replace_all_uses_with(value)
        op.detach()
        op.erase()


def _scopes(block: Block) -> Iterator[Block]:
    """A block and the blocks around it, innermost first."""
    scope: Block | None = block
    while scope is not None:
        yield scope
        scope = scope.parent_block()


def _block_of(value: SSAValue) -> Block | None:
    return value.owner if isinstance(value.owner, Block) else value.owner.parent


def _composes(block: Block) -> bool:
    """Whether a comprehension is used as an array, or uses one of the algebra."""
    return any(
        isinstance(op, AtOp)
        and isinstance(op.array.owner, ComprehensionOp | ArrayOperation)
        and not isinstance(op.array.owner, ConstantOp)
        for outer in block.ops
        for op in operations(outer)
    ) or any(
        isinstance(operand.owner, ComprehensionOp)
        for op in block.ops
        if isinstance(op, ArrayOperation | ExtentOp)
        for operand in op.operands
    )


def _number_here(value: SSAValue) -> int | None:
    """The number of an index, if it is one: a constant or an extent."""
    if isinstance(value.owner, ExtentOp | FixedExtentOp):
        return value.owner.static_value
    return number_of(value)


def _is_same_number(left: SSAValue, right: SSAValue) -> bool:
    number = _number_here(left)
    return left is right or (number is not None and number == _number_here(right))


def _is_normal(value: SSAValue) -> bool:
    return isinstance(value.owner, ComprehensionOp | FoldOp)


def _static(root: Root) -> int | None:
    """The number of an extent, if a type gives it."""
    match root:
        case Fixed(value):
            return value
        case ValueAxis(value, axis):
            number = shape_of(value.type)[axis]
            return None if number < 0 else number
        case _:
            return None


def erase_dead(block: Block) -> bool:
    """Erase operations without effects whose results nobody uses; whether there are."""
    found = False
    for op in reversed(list(block.ops)):
        for region in op.regions:
            for inner in region.blocks:
                found |= erase_dead(inner)
        # xDSL does not know that the unsigned remainder has no effect.
        is_remainder = isinstance(op, arith.RemUIOp) and not op.result.uses
        if is_remainder or is_trivially_dead(op):
            op.detach()
            op.erase()
            found = True
    return found


def _has_arrays(function: FuncOp) -> bool:
    type_ = function.function_type
    return any(isa(t, TensorType) for t in (*type_.inputs, *type_.outputs))


def has_foreign(function: FuncOp) -> bool:
    """Whether a function has arrays that operations of upstream make."""
    return any(
        isa(result.type, TensorType) and _name_of(op).startswith(_FOREIGN)
        for op in function.body.walk()
        for result in op.results
    )


_FOREIGN = ("linalg.", "tensor.", "arith.", "math.", "scf.", "bufferization.")


def _name_of(op: Operation) -> str:
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


def callees(function: FuncOp) -> Iterator[FuncOp]:
    """The functions that a function names: called, or applied by its operations."""
    for op in operations(function):
        for attribute in (*op.properties.values(), *op.attributes.values()):
            if isinstance(attribute, SymbolRefAttr):
                yield lookup_function(op, attribute)


def callers_first(functions: Sequence[FuncOp]) -> list[FuncOp]:
    """The functions so that each comes before those it names.

    Raises:
        CompileError: if a function names itself, directly or through others.
    """
    done: dict[FuncOp, None] = {}
    path: list[FuncOp] = []

    def visit(function: FuncOp) -> None:
        if function in path:
            raise CompileError(
                f"function @{function.sym_name.data} is recursive; "
                f"an array program must not be"
            )
        if function in done:
            return
        path.append(function)
        for callee in callees(function):
            visit(callee)
        path.pop()
        done[function] = None

    for function in functions:
        visit(function)
    # Those that do not name each other are to be in the order of the text.
    done.clear()
    for function in reversed(functions):
        visit(function)
    return list(reversed(done))


def check_extent_names(functions: Sequence[FuncOp]) -> None:
    """Check that only programs name extents, not functions that are used inside.

    Raises:
        CompileError: if a function does that is called or applied.
    """
    for function in functions:
        for callee in callees(function):
            if extent_names(callee):
                raise CompileError(
                    f"function @{callee.sym_name.data} is used in "
                    f"@{function.sym_name.data}, so it must not name extents "
                    f"({EXTENTS})"
                )


def inline_calls(function: FuncOp) -> None:
    """Replace calls by the bodies of the called functions, innermost included."""
    while calls := [op for op in operations(function) if isinstance(op, CallOp)]:
        for call in calls:
            callee = lookup_function(call, call.callee)
            builder = Builder(InsertPoint.before(call))
            values = inline(callee, call.arguments, builder)
            Rewriter.replace_op(call, [], values)


def to_dnf(
    function: FuncOp,
    limit: int,
    observers: Sequence[Callable[[FuncOp], Observer]] = (),
) -> None:
    """Bring one function from arrays to arrays into denotational normal form.

    Args:
        function: the function, its calls inlined.
        limit: how many steps it may take.
        observers: make what is told the steps, when the shapes are inferred.

    Raises:
        CompileError: if the function has several blocks or takes more steps.
    """
    if len(function.body.blocks) != 1:
        raise CompileError(
            f"function @{function.sym_name.data}: expected one block, "
            f"got {len(function.body.blocks)}"
        )
    _check_arrays(function)
    infer_shapes(function)
    told = [make(function) for make in observers]
    PsiReduction(function, limit, told).run()


_MOST_ELEMENTS = 1 << 63


def _check_arrays(function: FuncOp) -> None:
    """Check that no array comes from an operation of another dialect, or is too large.

    Raises:
        CompileError: if one does, or an argument or result has too many elements for
            an i64.
    """
    types = function.function_type
    for number, type_ in enumerate((*types.inputs, *types.outputs)):
        known = [n for n in shape_of(type_) if n > 0] if isa(type_, TensorType) else []
        if prod(known) >= _MOST_ELEMENTS:
            inputs = len(types.inputs)
            is_input = number < inputs
            name = f"argument {number}" if is_input else f"result {number - inputs}"
            raise CompileError(
                f"function @{function.sym_name.data}: expected fewer than 2^63 "
                f"elements, got {type_} as {name}"
            )
    for op in operations(function):
        if is_of_moa(op):
            continue
        if any(isa(value.type, TensorType) and value.uses for value in op.results):
            raise CompileError(
                f"function @{function.sym_name.data}: expected arguments and results "
                f"of moa's operations, got an array from {operation_name(op)}"
            )


@dataclass(frozen=True)
class ToDnfPass(ModulePass):
    """Psi reduction: one comprehension for each result, over elements of arguments.

    No array stands between the arguments and the results afterwards (checked by
    `moa-check-dnf`). Preconditions on extents that types do not settle become
    `moa.require` at the entry, those that names of extents (`moa.extents`) state first.
    Functions that were only used as cells of omega disappear. `limit` bounds the number
    of reduction steps of a function.

    A function with operations on tensors that are not of the algebra is left alone.

    `trace` prints the derivation as comments: the definition, each step as an equation
    with the law's name, the normal form; with `ascii` in ASCII. `certify` keeps the
    definition, the steps and the proofs that justify them in the function, as its
    attribute `moa.derivation`, which `moa-verify` checks.
    """

    name = "moa-to-dnf"

    limit: int = 20_000
    trace: bool = False
    ascii: bool = False
    certify: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        functions = programs_of(op)
        if self.certify:
            for function in functions:
                derivation.begin(function)
        ordered = callers_first(functions)
        check_extent_names(functions)
        ordered = [f for f in ordered if PROGRAM not in f.attributes]
        for function in reversed(ordered):
            inline_calls(function)
        for function in ordered:
            # Of a cell function that is inlined by now nothing will be left.
            trace = self.trace and function not in unused_private(op)
            self._reduce(function, trace)
        erase_unused_private(op)

    def _reduce(self, function: FuncOp, trace: bool) -> None:
        is_recorded = derivation.is_recorded(function)
        if not (is_recorded or trace):
            if _has_arrays(function) and not has_foreign(function):
                to_dnf(function, self.limit)
            return
        from moa_dialect.passes.observers import Recorder, Tracer

        recorder, tracer = Recorder(), Tracer(self.ascii)
        if _has_arrays(function) and not has_foreign(function):
            makers: list[Callable[[FuncOp], Observer]] = []
            if is_recorded:
                makers.append(recorder.observe)
            if trace:
                makers.append(tracer.observe)
            to_dnf(function, self.limit, makers)
            if trace:
                tracer.end(function)
        if is_recorded:
            this = replace(self, trace=False, ascii=False, certify=False)
            derivation.record(function, this, recorder.fields())


def erase_unused_private(module: ModuleOp) -> None:
    """Erase private functions that no other function names any more."""
    while unused := unused_private(module):
        for function in unused:
            function.detach()
            function.erase()


def unused_private(module: ModuleOp) -> list[FuncOp]:
    """The private functions among moa's programs that nothing names any more."""
    programs = programs_of(module)
    used = {callee for function in programs for callee in callees(function)}
    others = {
        symbol.string_value()
        for function in functions_of(module)
        if function not in programs
        for op in operations(function)
        for attribute in (*op.properties.values(), *op.attributes.values())
        for symbol in _symbols(attribute)
    }
    return [
        function
        for function in programs
        if function not in used
        and function.sym_name.data not in others
        and function.sym_visibility == StringAttr("private")
    ]


def _symbols(attribute: Attribute) -> Iterator[SymbolRefAttr]:
    """The symbols in an attribute, or in a list of attributes."""
    if isinstance(attribute, SymbolRefAttr):
        yield attribute
    elif isinstance(attribute, ArrayAttr):
        for each in attribute.data:  # pyright: ignore[reportUnknownVariableType]
            yield from _symbols(each)  # pyright: ignore[reportUnknownArgumentType]
