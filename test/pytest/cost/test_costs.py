"""Costs of programs: what is counted, what is decided, what a machine makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp

import moa_dialect as moa
from moa_dialect.cost import (
    CostError,
    compulsory,
    cost_text,
    counts_of,
    machine,
    read_function,
)
from moa_dialect.cost.nests import Array, Nest, accesses_in
from moa_dialect.cost.programs import Program, entry_function
from moa_dialect.cost.report import regimes_text
from moa_dialect.cost.timing import page_seconds, timing_of
from moa_dialect.tools.cost_check import fused_call, materialised_call

n, d, h, k, m = (sp.Symbol(x, integer=True, positive=True) for x in "ndhkm")


def attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


def program(
    fn: Callable[..., Any], *shapes: tuple[int, ...], names: Any = None, **options: Any
) -> Program:
    dtype = options.pop("dtype", "f32")
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    return moa.jit(fn, **options).lower(*specs).program(names)


HEADS = [["h", "n", "d"]] * 3
MATRICES = [["n", "k"], ["k", "m"]]


# What is counted.


def test_product_of_matrices_has_n_m_k_multiply_adds() -> None:
    found = program(matmul, (96, 64), (64, 128), names=MATRICES).nest("dnf")
    counts = counts_of(found.body)
    assert counts == {("mul", "f32"): n * m * k, ("add", "f32"): n * m * k}


def test_literal_normal_form_of_attention_evaluates_scores_again() -> None:
    shape = (2, 128, 16)
    counts = counts_of(program(attention, *[shape] * 3, names=HEADS).nest("dnf").body)
    # For each element of the result a score for the weights, and for each of its n
    # terms two more: for the maximum and for the sum.
    exponentials = h * n * d * (n + n**2)
    assert sp.expand(counts["exp", "f32"] - exponentials) == 0


def test_fused_attention_has_one_exponential_for_each_score() -> None:
    shape = (2, 128, 16)
    nest = program(attention, *[shape] * 3, names=HEADS).nest("fused")
    moves = h * n * sp.ceiling(n / 64)
    assert sp.expand(counts_of(nest.body)["exp", "f32"] - h * n**2 - moves) == 0


@pytest.mark.parametrize("stage", ["fused", "onf"])
def test_a_causal_mask_leaves_half_of_the_scores(stage: str) -> None:
    shape = (1, 512, 16)
    nest = program(causal, *[shape] * 3, names=HEADS).nest(stage)
    products = nest.number(counts_of(nest.body)["mul", "f32"])
    whole = program(attention, *[shape] * 3, names=HEADS).nest(stage)
    every = whole.number(counts_of(whole.body)["mul", "f32"])
    assert products / every == pytest.approx(0.5, rel=0.01)


def test_a_window_leaves_as_many_keys_as_it_is_wide() -> None:
    def window(q: Any, k: Any, v: Any) -> Any:
        return moa.attention(q, k, v, is_causal=True, window=64)

    nest = program(window, *[(1, 512, 16)] * 3).nest("fused")
    pairs = 64 * 65 / 2 + 64 * (512 - 64)
    products = nest.number(counts_of(nest.body)["mul", "f32"])
    assert products / (2 * 16 * pairs) == pytest.approx(1, rel=0.06)


def test_all_stages_of_softmax_count_the_same_compulsory_bytes() -> None:
    for stage in ("dnf", "fused", "onf"):
        nest = program(moa.library.softmax, (64, 256), names=[["n", "d"]]).nest(stage)
        assert sp.expand(compulsory(nest) - 8 * n * d) == 0


def test_compulsory_bytes_are_those_that_are_used() -> None:
    def part(a: Any) -> Any:
        return moa.take([8, 64], a) + 1.0

    nest = program(part, (32, 64)).nest("dnf")
    assert compulsory(nest) == 2 * 4 * 8 * 64


def test_storage_of_the_fused_form_does_not_grow_with_the_rows() -> None:
    here = machine("laptop-arm")
    sizes = [program(attention, *[(1, r, 64)] * 3) for r in (1024, 4096)]
    small, large = (p.cost(here) for p in sizes)
    assert small.form == "lifted"
    assert large.number(large.storage) <= 1.1 * small.number(small.storage)


def test_storage_of_the_materialised_form_is_quadratic() -> None:
    here = machine("server-x86")
    cost = program(attention, *[(1, 1024, 64)] * 3).materialised(here)
    assert cost.number(cost.storage) >= 3 * 4 * 1024**2


# Lifted kernels.


def test_lifted_attention_moves_keys_once_for_each_block_of_queries() -> None:
    here = machine("server-x86")
    cost = program(attention, *[(8, 4096, 64)] * 3, names=HEADS).cost(here)
    level = cost.level("L3")
    assert level.traffic is not None
    bytes_ = {a.name: e for a, e in level.traffic.fetched.items()}
    (found,) = re.findall(r"=procs,regs:(\d+),lanes:(\d+)", cost.schedules[0])
    width = int(found[0]) * int(found[1])
    assert sp.expand(bytes_["k"] - 4 * h * n * d * sp.ceiling(n / width)) == 0
    assert level.regime == "capacity-bound"
    # Twelve caches of the third level fetch keys and values of their heads.
    assert cost.level("DRAM").regime == "copied"


def test_operations_of_lifted_and_fused_attention_agree() -> None:
    p = program(attention, *[(2, 1024, 64)] * 3, names=HEADS)
    cost = p.cost(machine("server-x86"))
    nest = p.nest("fused")
    for kind in ("mul", "exp"):
        expected = nest.number(counts_of(nest.body)[kind, "f32"])
        assert cost.number(cost.of_kind(kind)) == pytest.approx(expected, rel=0.02)


def test_heads_that_share_keys_read_them_once() -> None:
    p = program(attention, (32, 1, 128), (8, 8192, 128), (8, 8192, 128))
    for name in ("server-x86", "h200"):
        cost = p.cost(machine(name))
        assert cost.memory_bytes == pytest.approx(2 * 4 * 8 * 8192 * 128, rel=0.1)


def test_a_program_without_vector_code_is_analysed_as_loops() -> None:
    """A function that is not associative cannot be in the lanes."""

    def differences(a: Any) -> Any:
        return moa.reduce("sub", a)

    compiled = moa.jit(differences).lower(np.ones((64, 128)))
    cost = compiled.cost("server-x86")
    assert cost.form == "onf"
    assert cost.schedules == []
    assert "plain loops" in cost_text(cost)


def test_extents_known_only_at_the_call_are_symbols() -> None:
    specs = [moa.ArraySpec((2, "n", 64), "f32")] * 3
    cost = moa.jit(attention).lower(*specs).cost("server-x86")
    assert sp.expand(cost.compulsory - 4 * 4 * 2 * 64 * n) == 0


@pytest.mark.parametrize("name", ["server-x86", "laptop-arm", "edge", "h200", "a100"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64"])
def test_every_machine_has_a_finite_cost(name: str, dtype: str) -> None:
    cost = program(attention, *[(2, 512, 64)] * 3, dtype=dtype).cost(machine(name))
    assert 0 < cost.seconds < 1
    assert 0 < cost.energy < 100
    assert cost.bottleneck in cost.parts
    assert all(level.ratio >= 0.99 for level in cost.levels)


# Time and energy.


def test_time_is_never_below_that_of_the_slowest_resource() -> None:
    cost = program(attention, *[(8, 2048, 64)] * 3).cost(machine("server-x86"))
    assert cost.seconds >= max(cost.parts.values())
    assert cost.seconds <= sum(cost.parts.values())


def test_exponentials_of_a_unit_of_their_own_are_a_resource() -> None:
    p = program(attention, *[(8, 2048, 64)] * 3)
    assert "exp" in p.cost(machine("h200")).parts
    assert "exp" not in p.cost(machine("server-x86")).parts


def test_a_faster_memory_helps_where_it_is_the_bottleneck() -> None:
    here = machine("h200")
    fast = replace(
        here,
        levels=(*here.levels[:-1], replace(here.memory, bandwidth=9.6e12)),
    )
    rows = program(moa.library.variance, (65536, 4096))
    assert rows.cost(here).bottleneck == "HBM"
    assert rows.cost(fast).seconds < rows.cost(here).seconds
    product = program(matmul, (4096, 4096), (4096, 4096))
    ratio = product.cost(fast).seconds / product.cost(here).seconds
    assert ratio == pytest.approx(1, rel=0.05)


def test_energy_of_memory_is_bytes_times_energy_of_a_byte() -> None:
    here = machine("edge")
    cost = program(moa.library.softmax, (1024, 1024)).cost(here)
    level = cost.level("DRAM")
    assert level.energy == level.bytes * here.memory.energy
    assert cost.energy > level.energy + here.idle_watts * cost.seconds


@pytest.mark.parametrize(
    ("clusters", "factors"),
    [
        (("", ""), (1, 1)),
        (("", ",cluster:2"), (1, 2)),
        ((",cluster:4", ""), (4, 1)),
        ((",cluster:2", ",cluster:2"), (2, 2)),
    ],
)
def test_what_a_cluster_shares_is_fetched_once(
    clusters: tuple[str, str], factors: tuple[int, int]
) -> None:
    """From the second cache; from the memory as without."""
    text = "j=grid,block:128{};i=grid,warps:8,regs:2{};p=chunk:64,stages:4,wgmma,tma"

    def fetched(*tails: str) -> list[dict[str, float]]:
        given = {"target": "cuda", "schedule": text.format(*tails), "dtype": "bf16"}
        p = program(matmul, (4096, 4096), (4096, 4096), **given)
        lifted = p.lifted(machine("h200"))
        assert lifted is not None
        nest, _ = lifted
        levels = timing_of(nest, machine("h200")).levels[1:]
        found = [level.traffic.fetched for level in levels if level.traffic is not None]
        return [
            {a.name: nest.number(x) for a, x in each.items() if a.name in ("a", "b")}
            for each in found
        ]

    without, found = fetched("", ""), fetched(*clusters)
    assert found[1:] == without[1:]
    for name, factor in zip("ab", factors, strict=True):
        assert found[0][name] == pytest.approx(without[0][name] / factor)


def test_groups_that_have_parts_of_a_fold_are_tasks() -> None:
    """Of few rows some multiprocessors have none, of their parts all."""

    def computing(tail: str) -> float:
        schedule = f"p=chunk:4096,threads:256{tail}"
        p = program(
            moa.library.logsumexp, (16, 65536), target="cuda", schedule=schedule
        )
        return p.cost(machine("h200")).parts["compute"]

    assert computing(",cluster:8") == pytest.approx(computing("") / 8)


# Decisions.


def test_fusing_attention_pays_on_every_machine() -> None:
    p = program(attention, *[(1, 4096, 64)] * 3)
    for name in ("server-x86", "laptop-arm", "h200"):
        decision = p.decision(machine(name))
        assert decision.fuse
        assert decision.speedup > 1
        assert decision.energy_ratio > 1


def test_sums_of_sums_are_better_materialised() -> None:
    """One of four factors that is a product of two is needed once for each column."""

    def products(a: Any, b: Any, c: Any, d: Any) -> Any:
        return matmul(matmul(matmul(a, b), c), d)

    specs = [moa.ArraySpec((512, 512), "f32")] * 4
    compiled = moa.jit(products).lower(*specs)
    cost = compiled.cost("server-x86")
    count = cost.number(cost.of_kind("mul"))
    assert 512**4 < count < 1.02 * 512**4
    decision = compiled.decision("server-x86")
    assert not decision.fuse
    text = decision.explain()
    assert "do not fuse, the fused form takes" in text
    assert all(side in text for side in ("fused ", "materialised "))


def test_pages_of_packed_operands_take_no_time() -> None:
    """Of a large product the right operand is packed, the left one is not."""
    large = program(matmul, (2048, 2048), (2048, 2048)).cost(machine("server-x86"))
    _, second = large.nest.arrays[:2]
    assert _packed(large.nest) == {second}
    for access, _ in accesses_in(large.nest.body):
        access.packed = False
    apart = page_seconds(large.nest, machine("server-x86"))
    assert large.parts["pages"] < apart / 2
    few = program(matmul, (4, 2048), (2048, 2048)).cost(machine("server-x86"))
    assert not _packed(few.nest)


def _packed(nest: Nest) -> set[Array]:
    return {access.array for access, _ in accesses_in(nest.body) if access.packed}


def test_an_array_that_one_kernel_packs_has_pages_in_another_one() -> None:
    """Packing is an access's: what the kernel beside reads as it is, waits."""
    here = machine("server-x86")
    nest = program(matmul, (2048, 2048), (2048, 2048)).cost(here).nest
    (array,) = _packed(nest)
    alone = page_seconds(nest, here)
    # The same kernel once more, which reads that array without a copy.
    other = program(matmul, (2048, 2048), (2048, 2048)).cost(here).nest
    for access, _ in accesses_in(other.body):
        access.array = array if access.packed else access.array
        access.packed = False
    apart = page_seconds(other, here)
    assert apart > 2 * alone
    both = replace(nest, body=[*nest.body, *other.body])
    assert page_seconds(both, here) == pytest.approx(alone + apart, rel=0.01)


def test_materialised_form_has_a_kernel_for_each_operation() -> None:
    def two(a: Any) -> Any:
        return moa.exp(a + 1.0) * 2.0

    cost = program(two, (512, 512)).materialised(machine("server-x86"))
    assert cost.nest.launches == 3
    # Each reads an array and writes one, which is fetched first: nothing fits.
    assert cost.form == "materialised"
    names = [array.role for array in cost.nest.arrays]
    assert names.count("argument") == 1
    assert names.count("result") == 1


def test_one_operation_costs_the_same_either_way() -> None:
    decision = program(matmul, (512, 512), (512, 512)).decision(machine("server-x86"))
    assert decision.fused.seconds == pytest.approx(decision.materialised.seconds)
    assert decision.fuse


def test_materialised_parts_compute_what_the_program_does() -> None:
    p = program(attention, *[(2, 33, 16)] * 3)
    np.testing.assert_allclose(fused_call(p)(), materialised_call(p)(), atol=1e-5)


# Text.


def test_a_cost_as_text_and_as_json() -> None:
    cost = program(attention, *[(8, 2048, 64)] * 3, names=HEADS).cost(machine("h200"))
    text = cost_text(cost)
    for part in ("with h=8, n=2048, d=64 on h200", "compulsory", "16*d*h*n", "Saha"):
        assert part in text
    found = json.loads(json.dumps(cost.to_json()))
    assert found["sizes"] == {"h": 8, "n": 2048, "d": 64}
    assert found["compulsory"]["formula"] == "16*d*h*n"
    assert [level["name"] for level in found["levels"]] == ["L1", "L2", "HBM"]
    assert "bytes moved" in regimes_text(cost.nest)


def test_a_function_at_the_stage_moa_has_no_loops() -> None:
    p = program(matmul, (4, 4), (4, 4))
    with pytest.raises(CostError, match="expected a function at the stage dnf, fused"):
        read_function(entry_function(p.module, p.entry))


def test_unknown_machine_of_a_compiled_program() -> None:
    compiled = moa.jit(matmul).lower(*[moa.ArraySpec((4, 4), "f32")] * 2)
    with pytest.raises(moa.MoaError, match="unknown machine"):
        compiled.cost("abacus")


# Odd programs.


def same(a: Any) -> Any:
    return a


def plus_one(a: Any) -> Any:
    return a + 1.0


def plus_table(a: Any) -> Any:
    return a + np.arange(16, dtype=np.float32)


def two_results(a: Any) -> Any:
    return moa.exp(a), moa.reduce("add", a)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (same, [(16, 16)]),
        (plus_one, [()]),
        (plus_one, [(0, 5)]),
        (matmul, [(3, 0), (0, 5)]),
        (plus_table, [(16,)]),
        (two_results, [(16, 16)]),
    ],
    ids=["an argument", "a scalar", "nothing", "of nothing", "a constant", "several"],
)
def test_odd_programs_have_costs(
    function: Callable[..., Any], shapes: list[tuple[int, ...]]
) -> None:
    """An argument that is returned is copied in either form."""
    for name in ("edge", "h200"):
        decision = program(function, *shapes).decision(machine(name))
        assert decision.fused.seconds > 0
        assert decision.materialised.seconds > 0
        assert "on " + name in decision.explain()
        json.dumps(decision.fused.to_json())


def test_an_extent_from_data_counts_as_many_as_there_may_be() -> None:
    """Rows up to a length of each: as if all were whole."""

    def up_to(x: Any, lengths: Any) -> Any:
        inside = moa.outer("gt", moa.cast(lengths, "index"), moa.iota(200))
        return moa.library.logsumexp(moa.where(inside, x, -np.inf))

    specs = [moa.ArraySpec((7, 200), "f32"), moa.ArraySpec((7,), "i64")]
    cost = moa.jit(up_to).lower(*specs).cost(machine("edge"))
    whole = program(moa.library.logsumexp, (7, 200)).cost(machine("edge"))
    found = cost.number(cost.of_kind("exp"))
    assert found == pytest.approx(whole.number(whole.of_kind("exp")), rel=0.03)
