"""From a module with outlined kernels to host code and device code."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects import gpu
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    ModuleOp,
    SymbolRefAttr,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute
from xdsl.rewriter import Rewriter
from xdsl.utils.hints import isa

from moa_dialect.collector import uncollected
from moa_dialect.errors import CompileError
from moa_dialect.lowering import compiler, nvvm
from moa_dialect.lowering.cuda import BoxMap, DeviceCompilation, Launch
from moa_dialect.lowering.engine import find_entry
from moa_dialect.lowering.plan_launches import (
    DEVICE_CHECKS,
    LAUNCHES,
    PlanLaunchesPass,
)
from moa_dialect.options import Options
from moa_dialect.types import dtype_of


def host_module(module: ModuleOp) -> ModuleOp:
    """The host functions of a module with outlined kernels, which plan its launches."""
    planned = module.clone()
    PlanLaunchesPass().apply(Context(), planned)
    for op in list(planned.ops):
        if isinstance(op, gpu.ModuleOp):
            Rewriter.erase_op(op)
    planned.attributes.pop("gpu.container_module", None)
    return planned


@uncollected()
def compilation_of(
    module: ModuleOp, entry: str | None, options: Options
) -> DeviceCompilation:
    """Compile a function of a module with outlined kernels; the module is kept.

    Raises:
        MoaError: for an unknown entry.
        CompileError: for an unknown chip, or what has no code for a GPU.
    """
    options.check()
    host = host_module(module)
    function = find_entry(host, entry)
    launches = _launches(function)
    compilation = compiler.compilation_of(host, function.sym_name.data)
    if not launches:
        code = ""
    elif options.emulate:
        code = nvvm.device_text(module)
    else:
        code = nvvm.ptx(nvvm.nvvm_dialect(module, options.chip, options.features))
    checks = DEVICE_CHECKS in function.attributes
    return DeviceCompilation(compilation, launches, code.encode(), options.chip, checks)


def _launches(function: FuncOp) -> tuple[Launch, ...]:
    """What a function plans."""
    listed = function.attributes.get(LAUNCHES)
    if not isa(listed, ArrayAttr[DictionaryAttr]):
        raise CompileError(f"@{function.sym_name.data} has no plan")
    found: list[Launch] = []
    for entry in listed.data:
        kernel, arguments = entry.data["kernel"], entry.data["arguments"]
        assert isinstance(kernel, SymbolRefAttr)
        assert isa(arguments, ArrayAttr[IntegerAttr])
        words = tuple(size.value.data for size in arguments.data)
        name = kernel.nested_references.data[0].data
        found.append(Launch(name, words, _maps(entry.data.get("maps"))))
    return tuple(found)


def _maps(listed: Attribute | None) -> tuple[BoxMap, ...]:
    """The tensor maps of a launch."""
    if listed is None:
        return ()
    assert isa(listed, ArrayAttr[DictionaryAttr])
    found: list[BoxMap] = []
    for entry in listed.data:
        number, box = entry.data["argument"], entry.data["box"]
        assert isinstance(number, IntegerAttr)
        assert isinstance(box, DenseArrayBase)
        dtype = dtype_of(entry.data["element"]).name
        sizes = tuple(map(int, box.iter_values()))
        found.append(BoxMap(number.value.data, dtype, sizes))
    return tuple(found)
