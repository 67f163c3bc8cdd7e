"""What programs cost: fused, and with every array operation a kernel of its own."""
# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    MemRefType,
    ModuleOp,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.cost.algebra import Expr
from moa_dialect.cost.bounds import Bound, compulsory, lower_bound
from moa_dialect.cost.extents import Names, is_array
from moa_dialect.cost.lifted import read_lifted
from moa_dialect.cost.machines import CostMachine
from moa_dialect.cost.model import Cost, cost_of_nest
from moa_dialect.cost.nests import Array, Nest, accesses_in
from moa_dialect.cost.reader import read_function
from moa_dialect.cost.report import Decision
from moa_dialect.errors import MoaError
from moa_dialect.ops.extents import EXTENTS
from moa_dialect.ops.normal_form import ComprehensionOp
from moa_dialect.options import AUTO, DEFAULTS, Options
from moa_dialect.passes.enclose_folds import EncloseFoldsPass
from moa_dialect.passes.grid import Grid, choose_grid, read_grid, split_of
from moa_dialect.passes.infer_shapes import InferShapesPass, functions_of
from moa_dialect.passes.kernels import SCHEDULE, read_kernel
from moa_dialect.passes.lift import (
    choose,
    choose_any,
    choose_each,
    choose_shared,
    weighed,
)
from moa_dialect.passes.machine import Machine, host_machine, machine_like
from moa_dialect.passes.nests import flattened
from moa_dialect.passes.rebuild import comprehensions
from moa_dialect.passes.schedules import is_for
from moa_dialect.passes.split_cascades import SplitCascadesPass
from moa_dialect.passes.terms import NotATerm
from moa_dialect.passes.to_onf import PARTS


def schedule_machine(machine: CostMachine) -> Machine:
    """A machine as schedules are chosen for it."""
    if machine.name == "host":
        return replace(host_machine(), cores=machine.cores)
    return machine_like(machine)


def entry_function(module: ModuleOp, entry: str) -> FuncOp:
    """The function of a name."""
    return next(f for f in functions_of(module) if f.sym_name.data == entry)


def names_of(function: FuncOp) -> list[list[str | None]]:
    """The names that `moa.extents` gives to extents of a function's arguments."""
    found: list[list[str | None]] = []
    marks = function.arg_attrs.data if function.arg_attrs is not None else ()
    for number in range(len(function.body.block.args)):
        mark = marks[number] if number < len(marks) else DictionaryAttr({})
        given = mark.data.get(EXTENTS)
        names: list[str | None] = []
        for text in given.data if isinstance(given, ArrayAttr) else ():
            name = text.data if isinstance(text, StringAttr) else "?"
            is_name = not (name == "?" or name.lstrip("-").isdigit())
            names.append(name if is_name else None)
        found.append(names)
    return found


def specialised(
    module: ModuleOp, entry: str, names: Names, sizes: Mapping[str, int]
) -> ModuleOp:
    """A copy of a module whose function is for arguments of some extents.

    Types have them, and those of results follow, as where `moa.jit` is called on such
    arrays. What calls the function, or what it calls, is as it was: if types no longer
    fit together, or none is changed, it is the module that is given back.

    Args:
        module: the module.
        entry: the name of the function.
        names: names for extents of its arguments.
        sizes: numbers for some of the names.
    """
    copy = module.clone()
    function = entry_function(copy, entry)
    is_changed = False
    for argument, given in zip(function.body.block.args, names, strict=False):
        type_ = argument.type
        if not isa(type_, TensorType) or not given:
            continue
        shape = [
            sizes.get(name or "", extent) if extent < 0 else extent
            for name, extent in zip(given, type_.get_shape(), strict=True)
        ]
        if shape != list(type_.get_shape()):
            is_changed = True
            new = TensorType(type_.element_type, shape)
            Rewriter.replace_value_with_new_type(argument, new)
    if not is_changed:
        return module
    function.update_function_type()
    try:
        InferShapesPass().apply(Context(), copy)
        copy.verify()
    except (VerifyException, MoaError):
        return module
    return copy


@dataclass(frozen=True)
class Program:
    """A program whose cost is asked for.

    Attributes:
        module: its module, at the stage moa.
        entry: the name of its function.
        options: how it is compiled.
        names: names for extents of arguments; those of the module if there are none.
        sizes: numbers for extents that types do not give.
    """

    module: ModuleOp
    entry: str
    options: Options = DEFAULTS
    names: Names | None = None
    sizes: Mapping[str, int] | None = None

    def at(self, stage: str) -> ModuleOp:
        """A copy of the module, lowered to a stage."""
        from moa_dialect.lowering.pipelines import lower_to

        module = self.module.clone()
        lower_to(module, stage, Context(), self.options)
        return module

    def known_names(self) -> Names:
        """The names of extents."""
        if self.names is not None:
            return self.names
        return names_of(entry_function(self.module, self.entry))

    def nest(self, stage: str) -> Nest:
        """The loop nests at the stage dnf, fused or onf."""
        function = entry_function(self.at(stage), self.entry)
        return read_function(function, self.known_names(), self.sizes)

    def lifted(self, machine: CostMachine) -> tuple[Nest, list[str]] | None:
        """The loop nests as they are scheduled for a machine, with the schedules.

        None if the program is left to plain loops there.
        """
        if not self.options.fuse:
            return None
        from moa_dialect.lowering.pipelines import FOR_CORES

        module = self.at("fused")
        EncloseFoldsPass().apply(Context(), module)
        here = schedule_machine(machine)
        options = self.options
        is_gpu = machine.kind == "gpu"
        if options.schedule == AUTO and not options.deterministic:
            if is_gpu:
                split = SplitCascadesPass(places=2 * machine.cores, work=1)
            else:
                split = replace(FOR_CORES, places=machine.cores)
            split.apply(Context(), module)
        elif is_gpu and not options.deterministic and split_of(options.schedule):
            parts = split_of(options.schedule)
            SplitCascadesPass(parts=parts).apply(Context(), module)
        function = entry_function(module, self.entry)
        has_parts = any(PARTS in op.attributes for op in comprehensions(function))
        grids: dict[Operation, Grid] = {}
        texts: list[str] = []
        for op in map(flattened, comprehensions(function)):
            try:
                kernel = read_kernel(op, function)
            except NotATerm:
                return None
            if is_gpu:
                is_merge = has_parts and PARTS not in op.attributes
                # And not one for a CPU.
                is_given = any(word in options.schedule for word in ("grid", "threads"))
                if is_given and not is_merge:
                    grid = read_grid(options.schedule, kernel)
                else:
                    tier = options.best_tier or "wgmma"
                    is_new = tier == "wgmma"
                    grid = choose_grid(kernel, tier, engine=is_new, tall=is_new)
                if grid is None:  # A thread for each element.
                    if not kernel.axes:
                        return None
                    grid = Grid(kernel.hints[kernel.axes[-1]], 8, chunk=0, tier="")
                grids[op] = grid
                texts.append(f"{grid}")
                op.attributes[SCHEDULE] = StringAttr(f"{grid}")
                continue
            text = options.schedule
            if text == AUTO or not is_for(text, kernel):
                if options.deterministic:
                    schedule = choose(kernel, here, deterministic=True)
                else:
                    read = partial(read_kernel, op, function)
                    schedule, _ = choose_any(read, here)
                if schedule is None:
                    return None
                text = f"{schedule}"
            texts.append(text)
            op.attributes[SCHEDULE] = StringAttr(text)
        if not is_gpu and not has_vector_code(module, self.entry):
            return None
        function = entry_function(module, self.entry)
        nest = read_lifted(function, self.known_names(), self.sizes, grids)
        return None if nest is None else (nest, texts)

    def least(self) -> tuple[Expr, Bound]:
        """The compulsory bytes and the lower bound, by the normal form alone."""
        nest = self.nest("dnf")
        return compulsory(nest), lower_bound(nest)

    def cost(self, machine: CostMachine) -> Cost:
        """What the fused program costs on a machine."""
        least, bound = self.least()
        lifted = self.lifted(machine)
        if lifted is not None:
            nest, texts = lifted
            form = "lifted"
        else:
            nest, texts = self.nest("onf"), []
            nest.scalar = list(nest.body)
            form = "onf"
        return cost_of_nest(nest, machine, bound, self.entry, form, texts, least=least)

    def decision(self, machine: CostMachine) -> Decision:
        """What both forms cost on a machine."""
        return Decision(self.cost(machine), self.materialised(machine))

    def schedules(self, machine: CostMachine) -> list[tuple[str, float]]:
        """The schedules to choose from for a CPU, with predicted seconds, best first.

        Empty for a program of several kernels, or one without vector code.
        """
        here = schedule_machine(machine)
        module = self.at("fused")
        EncloseFoldsPass().apply(Context(), module)
        function = entry_function(module, self.entry)
        found = [flattened(op) for op in comprehensions(function)]
        if machine.kind != "cpu" or len(found) != 1 or not self.options.fuse:
            return []
        try:
            kernel = read_kernel(found[0], function)
        except NotATerm:
            return []
        texts = [f"{schedule}" for schedule in weighed(kernel, here)]
        for rule in (choose_each, choose_shared):
            schedule = rule(read_kernel(found[0], function), here)
            if schedule is not None:
                texts.append(f"{schedule}")
        rows: list[tuple[str, float]] = []
        for text in dict.fromkeys(texts):
            options = replace(self.options, schedule=text)
            cost = replace(self, options=options).cost(machine)
            if cost.form == "lifted":
                rows.append((text, cost.seconds))
        return sorted(rows, key=lambda row: row[1])

    def operations(self) -> list[Part]:
        """The array operations, each as a program of its own, in order."""
        return self.operations_and_results()[0]

    def operations_and_results(self) -> tuple[list[Part], list[SSAValue]]:
        """The array operations, and the values that are returned, in order."""
        return _operations(self)

    def materialised(self, machine: CostMachine) -> Cost:
        """What the program costs if every array operation is a kernel of its own.

        Each reads its operands and writes its result, in memory that stays where it is
        until it is used.

        Raises:
            MoaError: for loops, in which array operations are no longer found.
        """
        arguments = entry_function(self.module, self.entry).body.block.args
        if any(isa(argument.type, MemRefType) for argument in arguments):
            raise MoaError(
                "expected array operations, each to be a kernel of its own, got a "
                "function at the stage onf"
            )
        parts = self.operations()
        if not parts:  # An argument is returned: it is copied in either form.
            return replace(self.cost(machine), form="materialised")
        least, bound = self.least()
        whole = Nest([], [], {})
        known: dict[SSAValue, Array] = {}
        texts: list[str] = []
        for part in parts:
            program = part.program
            lifted = program.lifted(machine)
            if lifted is None:
                nest = program.nest("onf")
                nest.scalar = list(nest.body)
            else:
                nest, found = lifted
                texts += found
            _join(whole, nest, part, known)
        whole.launches = len(parts)
        return cost_of_nest(
            whole, machine, bound, self.entry, "materialised", texts, least=least
        )


def has_vector_code(module: ModuleOp, entry: str) -> bool:
    """Whether there is vector code for all kernels of a function with schedules."""
    from moa_dialect.lowering.to_vector import ToVectorPass

    copy = module.clone()
    ToVectorPass().apply(Context(), copy)
    function = entry_function(copy, entry)
    tasks = sum(op.name == "scf.parallel" for op in function.walk())
    here = entry_function(module, entry)
    kernels = sum(
        isinstance(op, ComprehensionOp) and SCHEDULE in op.attributes
        for op in here.body.block.ops
    )
    return tasks >= kernels


@dataclass
class Part:
    """An array operation as a program, and the values it goes by in the whole one.

    Attributes:
        program: the program.
        operands: what it reads.
        results: what it gives.
    """

    program: Program
    operands: list[SSAValue]
    results: list[SSAValue]


def _operations(program: Program) -> tuple[list[Part], list[SSAValue]]:
    """The array operations of a program, each as a program of its own."""
    module = program.at("moa")
    function = entry_function(module, program.entry)
    names: dict[SSAValue, Sequence[str | None]] = dict(
        zip(function.body.block.args, program.known_names(), strict=False)
    )
    found: list[Part] = []
    returned: list[SSAValue] = []
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            returned = list(op.arguments)
        elif op.results and not _is_free(op):
            found.append(_alone(program, module, op, names))
    return found, returned


def _is_free(op: Operation) -> bool:
    """Whether an operation moves nothing: a constant, a shape, or what follows from
    these and scalars alone; and what gives no array.
    """
    if not any(is_array(result.type) for result in op.results):
        return True
    if not op.operands or op.name in ("moa.shape", "moa.dim", "moa.total"):
        return True
    return all(
        isinstance(v.owner, Operation) and _is_free(v.owner) for v in op.operands
    )


def _needed(op: Operation) -> list[Operation]:
    """The operations that are free and that one operation needs, in order."""
    found: list[Operation] = []

    def visit(op: Operation) -> None:
        for operand in op.operands:
            owner = operand.owner
            if isinstance(owner, Operation) and _is_free(owner) and owner not in found:
                visit(owner)
                found.append(owner)

    visit(op)
    return found


def _alone(
    program: Program,
    module: ModuleOp,
    op: Operation,
    names: Mapping[SSAValue, Sequence[str | None]],
) -> Part:
    """A program of one operation; what it needs and is free is computed again."""
    free = _needed(op)
    made = {result for inner in free for result in inner.results}
    operands: list[SSAValue] = []
    for inner in (*free, op):
        for operand in inner.operands:
            if operand not in made and operand not in operands:
                operands.append(operand)
    block = Block(arg_types=[value.type for value in operands])
    mapping: dict[SSAValue, SSAValue] = dict(zip(operands, block.args, strict=True))
    for value, argument in mapping.items():
        argument.name_hint = value.name_hint
    builder = Builder(InsertPoint.at_end(block))
    for inner in (*free, op):
        builder.insert(inner.clone(mapping))
    last = block.last_op
    assert last is not None
    builder.insert(ReturnOp(*last.results))
    name = "operation"
    function = FuncOp(
        name,
        FunctionType.from_lists(
            [value.type for value in operands], [r.type for r in last.results]
        ),
        Region(block),
    )
    others = [
        f.clone() for f in functions_of(module) if f.sym_name.data != program.entry
    ]
    alone = ModuleOp([*others, function])
    given = [names.get(value, ()) for value in operands]
    part = Program(alone, name, program.options, given, program.sizes)
    return Part(part, operands, list(op.results))


def _join(whole: Nest, nest: Nest, part: Part, known: dict[SSAValue, Array]) -> None:
    """Add a kernel to others: what it reads is what they wrote."""
    arguments = [a for a in nest.arrays if a.role == "argument"]
    results = [a for a in nest.arrays if a.role == "result"]
    new: dict[Array, Array] = {}
    for value, array in zip(part.operands, arguments, strict=False):
        known.setdefault(value, array)
        new[array] = known[value]
    for value, array in zip(part.results, results, strict=False):
        known[value] = array
        is_returned = any(isinstance(use.operation, ReturnOp) for use in value.uses)
        array.role = "result" if is_returned else "scratch"
        if not is_returned:
            whole.intermediates.add(array)
    for access, _ in accesses_in(nest.body):
        access.array = new.get(access.array, access.array)
    for array in (*known.values(), *nest.arrays):
        if array not in whole.arrays and new.get(array, array) is array:
            whole.arrays.append(array)
    whole.body += nest.body
    whole.scalar += nest.scalar
    whole.used_bytes |= nest.used_bytes
    whole.in_vain |= nest.in_vain
    whole.values |= nest.values
    whole.opaque |= nest.opaque


__all__ = ["Part", "Program", "entry_function", "names_of", "schedule_machine"]
