"""The stream of accesses is that of the operational normal form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Operation

import moa_dialect as moa
from moa_dialect.cost.addresses import Memory, accesses, example_data, run
from moa_dialect.cost.simulation import CacheLevel, simulate
from moa_dialect.cost.workload import Workload, at_target, workload_of
from moa_dialect.errors import CompileError, MoaError, ShapeError
from moa_dialect.frontend.jit import Compiled
from moa_dialect.interpreter import interpret_module
from moa_dialect.library import attention, layernorm, matmul, softmax
from moa_dialect.lowering.engine import find_entry
from moa_dialect.ops.operational import LoadOp, StoreOp
from moa_dialect.parsing import ModuleParser
from moa_dialect.universe import register_dialects


def lowered(program: Any, *shapes: tuple[int | str, ...], **options: Any) -> Compiled:
    specs = [moa.ArraySpec(shape, "float32") for shape in shapes]
    return moa.jit(program, **options).lower(*specs)


def parsed(text: str) -> ModuleOp:
    context = Context()
    register_dialects(context)
    return ModuleParser(context, text).parse_module()


class Loads(Interpreter.Listener):
    """What the interpreter loads and stores: the buffer, the element, whether written."""

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, int, bool]] = []

    def will_interpret_op(self, op: Operation, args: tuple[Any, ...]) -> None:
        if not isinstance(op, LoadOp | StoreOp):
            return
        is_write = isinstance(op, StoreOp)
        buffer, start, *terms = args[1:] if is_write else args
        half = len(terms) // 2
        steps = zip(terms[:half], terms[half:], strict=True)
        self.seen.append((buffer, start + sum(i * s for i, s in steps), is_write))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    ("program", "shapes"),
    [
        (softmax, [(5, 7)]),
        (layernorm, [(3, 9), (9,), (9,)]),
        (matmul, [(4, 3), (3, 5)]),
        (attention, [(5, 4), (70, 4), (70, 3)]),
    ],
)
def test_stream_is_what_the_interpreter_loads_and_stores(
    program: Any, shapes: list[tuple[int, ...]], fuse: bool
):
    compiled = lowered(program, *shapes, fuse=fuse)
    workload = workload_of(compiled, "onf")
    found = accesses(workload, unit=4)

    arguments = [example_data(workload.buffers[n]) for n in workload.ends[0]]
    module, listener = compiled.module("onf"), Loads()
    entry = find_entry(module, None).sym_name.data
    (result,) = interpret_module(module, entry, arguments, listener)
    bases = {array.ctypes.data: n for n, array in enumerate((*arguments, result))}
    expected: list[tuple[int, int]] = []
    for buffer, element, is_write in listener.seen:
        number = bases.get(buffer.ctypes.data)
        base = workload.scratch if number is None else workload.buffers[number].offset
        expected.append((base // 4 + element, is_write))
    np.testing.assert_array_equal(found, np.array(expected, np.int64))


@pytest.mark.parametrize("machine", ["avx2", "avx512", "host"])
@pytest.mark.parametrize("stage", ["onf", "target"])
def test_run_gives_what_the_program_gives(stage: str, machine: str):
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((n, 16)).astype("f4") for n in (33, 50, 50))
    compiled = lowered(attention, q.shape, k.shape, v.shape)
    found = simulate(compiled, [CacheLevel(4096)], (q, k, v), stage, machine)
    np.testing.assert_allclose(
        found.results[0], compiled(q, k, v), rtol=1e-5, atol=1e-6
    )


def test_vector_code_touches_what_the_loops_touch():
    compiled = lowered(attention, (33, 16), (50, 16), (50, 16))
    loops = workload_of(compiled, "onf")
    vectors = workload_of(compiled, "target", "avx2")
    arrays = loops.scratch // 4
    sets = [
        {tuple(pair) for pair in accesses(each, unit=4) if pair[0] < arrays}
        for each in (loops, vectors)
    ]
    # The accumulators of the loops lie in the result, so that it is read, too.
    places = [{place for place, _ in each} for each in sets]
    assert places[0] == places[1]
    written = [{place for place, kind in each if kind} for each in sets]
    assert written[0] == written[1]


def test_masked_lanes_are_not_touched():
    """Thirteen columns in vectors of eight: the second one has five lanes."""
    compiled = lowered(softmax, (2, 13))
    workload = workload_of(compiled, "target", "avx2")
    found = accesses(workload, unit=4)
    x = workload.buffers[workload.ends[0][0]]
    reads = {int(place) for place, kind in found if not kind and place * 4 < x.stop}
    assert reads == set(range(26))


@pytest.mark.parametrize("columns", [(7, 13), (2, 3)])
def test_only_what_is_chosen_is_touched(columns: tuple[int, int]):
    """Rows of two arrays one after the other; five columns are fewer than lanes."""
    a, b = (np.arange(3.0 * n, dtype="f4").reshape(3, n) for n in columns)

    def beside(a: Any, b: Any) -> Any:
        return moa.omega(moa.cat, [1, 1], a, b)

    compiled = moa.jit(beside).lower(a, b)
    found = simulate(compiled, [CacheLevel(4096)], (a, b), "target", "avx512")
    np.testing.assert_array_equal(found.results[0], np.hstack([a, b]))
    workload = workload_of(compiled, "target", "avx512")
    arrays = workload.scratch // 4
    seen = accesses(workload, unit=4)
    touched = {(int(place), bool(kind)) for place, kind in seen if place < arrays}
    inputs, results = workload.ends
    expected = {
        (workload.buffers[number].offset // 4 + element, is_write)
        for numbers, is_write in ((inputs, False), (results, True))
        for number in numbers
        for element in range(workload.buffers[number].size // 4)
    }
    assert touched == expected


def test_constants_of_a_program_are_arrays():
    table = np.arange(12, dtype=np.float32).reshape(3, 4)

    def program(x: Any) -> Any:
        return moa.inner("add", "mul", x, table)

    compiled = lowered(program, (2, 3))
    workload = workload_of(compiled, "onf")
    (constant,) = [b for b in workload.buffers if b.content is not None]
    assert constant.size == 48
    places = {int(place) * 4 for place, _ in accesses(workload, unit=4)}
    assert set(range(constant.offset, constant.stop, 4)) <= places
    assert workload.compulsory_bytes == (6 + 8) * 4
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = simulate(workload, [CacheLevel(1024)], [x])
    np.testing.assert_array_equal(found.results[0], x @ table)


def test_extents_that_types_do_not_give_are_those_of_the_arrays():
    compiled = lowered(matmul, ("n", "k"), ("k", "m"))
    a, b = np.ones((5, 6), np.float32), np.ones((6, 7), np.float32)
    fixed = lowered(matmul, a.shape, b.shape)
    np.testing.assert_array_equal(
        accesses(compiled, (a, b), "onf"), accesses(fixed, (a, b), "onf")
    )


def test_a_check_that_fails_is_reported_as_by_the_program():
    compiled = lowered(matmul, ("n", "k"), ("l", "m"))
    a, b = np.ones((5, 6), np.float32), np.ones((7, 8), np.float32)
    with pytest.raises(ShapeError) as by_program:
        compiled(a, b)
    workload = Workload()
    inputs = [workload.array(a.shape), workload.array(b.shape)]
    with pytest.raises(ShapeError) as by_simulation:
        simulate_on(workload, compiled, inputs, (a, b))
    assert f"{by_program.value}" == f"{by_simulation.value}"


def simulate_on(
    workload: Workload,
    compiled: Compiled,
    inputs: list[int],
    arguments: tuple[np.ndarray, ...],
) -> None:
    workload.call(compiled, inputs, stage="onf")
    simulate(workload, [CacheLevel(1024)], arguments)


def test_a_module_of_loops_over_columns():
    """Arrays may lie in column order: neighbours in a column are neighbours."""
    module = parsed("""
        func.func @copy(%x: memref<4x4xf32, strided<[1, 4]>>,
                        %y: memref<4x4xf32> {moa.result}) {
          %c0 = arith.constant 0 : index
          %c1 = arith.constant 1 : index
          %c4 = arith.constant 4 : index
          "scf.parallel"(%c0, %c0, %c4, %c4, %c1, %c1)
              <{operandSegmentSizes = array<i32: 2, 2, 2, 0>}> ({
          ^bb0(%i: index, %j: index):
            %v = memref.load %x[%i, %j] : memref<4x4xf32, strided<[1, 4]>>
            memref.store %v, %y[%i, %j] : memref<4x4xf32>
            scf.reduce
          }) : (index, index, index, index, index, index) -> ()
          func.return
        }
    """)
    found = accesses(module, unit=4)
    assert found[::2, 0].tolist() == [4 * j + i for i in range(4) for j in range(4)]
    assert found[1::2, 0].tolist() == list(range(16, 32))
    assert found[:, 1].tolist() == [0, 1] * 16
    x = np.asfortranarray(np.arange(16, dtype=np.float32).reshape(4, 4))
    (result,) = simulate(module, [CacheLevel(64)], [x]).results
    np.testing.assert_array_equal(result, x)


def copying(body: str) -> str:
    return f"""
        func.func @f(%x: memref<8xf32>, %y: memref<8xf32> {{moa.result}}) {{
          {body}
          func.return
        }}
    """


def test_unknown_accesses_are_refused():
    module = parsed(
        copying('"memref.copy"(%x, %y) : (memref<8xf32>, memref<8xf32>) -> ()')
    )
    with pytest.raises(CompileError, match=r"accesses of memref\.copy are not known"):
        accesses(module)


def test_calls_are_refused():
    module = parsed(
        "func.func private @g(memref<8xf32>)"
        + copying("func.call @g(%x) : (memref<8xf32>) -> ()")
    )
    with pytest.raises(CompileError, match="accesses of a call of @g are not known"):
        accesses(module)


def test_strides_that_are_not_known_are_refused():
    module = parsed(
        copying("""
          %c0 = arith.constant 0 : index
          %c2 = arith.constant 2 : index
          %z = memref.reinterpret_cast %x to offset: [0], sizes: [%c2, %c2],
            strides: [2, 1] : memref<8xf32> to memref<?x?xf32>
          %v = memref.load %z[%c0, %c0] : memref<?x?xf32>
        """)
    )
    with pytest.raises(CompileError, match=r"accesses of memref<\?x\?xf32> are not"):
        accesses(module)


def test_parallel_loops_that_reduce_are_refused():
    module = parsed(
        copying("""
          %c0 = arith.constant 0 : index
          %c1 = arith.constant 1 : index
          %c8 = arith.constant 8 : index
          %zero = arith.constant 0.0 : f32
          %s = "scf.parallel"(%c0, %c8, %c1, %zero)
              <{operandSegmentSizes = array<i32: 1, 1, 1, 1>}> ({
          ^bb0(%i: index):
            %v = memref.load %x[%i] : memref<8xf32>
            "scf.reduce"(%v) ({
            ^bb0(%a: f32, %b: f32):
              %t = arith.addf %a, %b : f32
              "scf.reduce.return"(%t) : (f32) -> ()
            }) : (f32) -> ()
          }) : (index, index, index, f32) -> f32
          memref.store %s, %y[%c0] : memref<8xf32>
        """)
    )
    with pytest.raises(CompileError, match="parallel loop: expected none that reduces"):
        accesses(module)


def test_scratch_memory_of_unknown_size_is_refused():
    module = parsed("""
        func.func @f(%x: memref<8xindex>, %y: memref<8xindex> {moa.result}) {
          %c0 = arith.constant 0 : index
          %n = memref.load %x[%c0] : memref<8xindex>
          %z = memref.alloc(%n) : memref<?xindex>
          memref.store %n, %z[%c0] : memref<?xindex>
          memref.dealloc %z : memref<?xindex>
          func.return
        }
    """)
    with pytest.raises(
        CompileError, match="a size of memory is known only at the call"
    ):
        accesses(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "llvm"}, "unknown stage: expected onf or target, got llvm"),
        ({"machine": "vax"}, "unknown machine"),
        ({"unit": 128}, "line: expected a divisor of 64, got 128"),
        ({"arguments": []}, "expected 2 arguments, got 0"),
        ({"arguments": [np.ones((2, 2), "f4"), np.ones((3, 3), "f4")]}, "got shape"),
        (
            {"arguments": [np.ones((2, 3)), np.ones((3, 4))]},
            "argument a: expected float32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(MoaError, match=message):
        accesses(lowered(matmul, (2, 3), (3, 4)), **options)


def test_programs_for_a_gpu_are_refused():
    compiled = lowered(matmul, (2, 3), (3, 4), target="cuda")
    with pytest.raises(MoaError, match="expected a program for target cpu, got cuda"):
        at_target(compiled)


def test_extents_that_nothing_gives_are_refused():
    compiled = lowered(matmul, ("n", 3), (3, 4))
    with pytest.raises(MoaError, match="expected extents that are known"):
        accesses(compiled)


def test_arrays_of_a_call_have_to_fit():
    compiled = lowered(matmul, (2, 3), (3, 4))
    workload = Workload()
    a, b, c = (workload.array(shape) for shape in ((2, 3), (3, 4), (2, 5)))
    with pytest.raises(MoaError, match="expected 2 arguments, got 1"):
        workload.call(compiled, [a])
    with pytest.raises(MoaError, match=r"result array3: expected float32 \(2, 4\)"):
        workload.call(compiled, [a, b], [c])
    with pytest.raises(MoaError, match="expected 1 results, got 0"):
        workload.call(compiled, [a, b], [])


def test_a_workload_chains_calls():
    workload = Workload()
    a = workload.array((4, 4), name="a")
    (b,) = workload.call(lowered(matmul, (4, 4), (4, 4)), [a, a])
    (c,) = workload.call(lowered(softmax, (4, 4)), [b], [b])
    assert workload.ends == ([a], [c])
    x = np.eye(4, dtype=np.float32)
    found = simulate(workload, [CacheLevel(1024)], [x])
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.results[0], expected, rtol=1e-6)
    assert found.compulsory_bytes == 128


def test_nothing_to_run():
    class Silent:
        cores = 1
        line = 64

        def code(self, memory: Memory) -> str:
            return (
                "func.func private @touch(%s: memref<?xi32>, %h: memref<?xi64>, "
                "%line: index, %write: i32) { func.return }"
            )

        def memories(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros(1, np.int32), np.zeros(1, np.int64)

    assert run(Workload(), Silent()).results == []
