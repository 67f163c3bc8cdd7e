"""Descriptions of machines: those that come along, a user's own, and wrong ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import f32
from xdsl.ir import Block

from moa_dialect.cost import MachineError, machine, shipped
from moa_dialect.cost.machines import FOLDER, WORDS, machine_of, numbers_in
from moa_dialect.cost.probe import BASIS, described
from moa_dialect.passes.machine import host_machine
from moa_dialect.passes.work import COSTLY, weight

LEAST: dict[str, Any] = {
    "name": "small",
    "kind": "cpu",
    "cores": 2,
    "vector_bytes": 16,
    "registers": 32,
    "flops": {"f32": 1e9},
    "rates": {"exp": 1e8, "div": 1e8, "math": 1e8, "other": 1e9},
    "op_energy": {"f32": 1e-12, "exp": 1e-11},
    "levels": [
        {"name": "L1", "capacity": 1024, "bandwidth": 1e10, "energy": 1e-12},
        {"name": "DRAM", "bandwidth": 1e9, "energy": 1e-10},
    ],
}


@pytest.mark.parametrize("name", shipped())
def test_shipped_machines_are_whole(name: str) -> None:
    found = machine(name)
    assert found.name == name
    assert found.sources
    caches = found.levels[:-1]
    assert all(level.capacity for level in caches)
    assert [c.capacity for c in caches] == sorted(c.capacity for c in caches)
    rates = [level.bandwidth for level in found.levels]
    assert rates == sorted(rates, reverse=True)
    assert found.memory.capacity == 0
    assert found.flops["f32"] > found.rates["exp"]


def test_the_machines_that_were_promised_are_there() -> None:
    names = {"h200", "h100", "a100", "server-x86", "laptop-arm", "edge"}
    assert names <= set(shipped())
    for name in names:
        notes = machine(name).checked
        assert any(note.startswith("not checked: ") for note in notes)
        assert len(notes) > 1


@pytest.mark.parametrize("name", shipped())
def test_every_number_has_a_source_or_is_an_assumption(name: str) -> None:
    """What of a description is from where is said for each number, by its name."""
    found = machine(name)
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    bare = [
        number
        for number, names in numbers_in(content).items()
        if not any(each in found.basis for each in names)
    ]
    assert bare == []
    energies = [n for n in numbers_in(content) if "energy" in n]
    assert len(energies) >= len(found.levels) + 3
    assert found.energy_within >= 2


def test_energies_of_the_last_levels_are_those_of_the_table_or_assumed() -> None:
    """No energy of a description is measured."""
    for name in shipped():
        energies = {k: v for k, v in machine(name).basis.items() if "energy" in k}
        assert not any(text.startswith("measured") for text in energies.values())


def test_every_number_of_the_host_has_a_basis() -> None:
    assert all(text.startswith(WORDS) for text in BASIS.values())
    table = tomllib.loads((FOLDER / "server-x86.toml").read_text())
    for number, names in numbers_in(table).items():
        if number not in ("energy_within", "L3.shared"):
            assert any(each in BASIS for each in names), number


def test_a_level_that_some_cores_share() -> None:
    levels = [LEVELS[0], {**LEVELS[0], "name": "L2", "shared": 2}, LEVELS[1]]
    found = machine_of({**LEAST, "cores": 8, "levels": levels}, "test")
    assert [level.sharers for level in found.levels] == [1, 2, None]
    # One core has one of four such caches, and all of the memory.
    one = found.limited(1)
    assert one.level("L2").bandwidth == found.level("L2").bandwidth / 4
    assert one.memory.bandwidth == found.memory.bandwidth


@pytest.mark.parametrize(
    "name", [name for name in shipped() if machine(name).kind != "gpu"]
)
def test_weights_without_a_machine_are_in_line_with_its_rates(name: str) -> None:
    """passes/work.py counts in additions what the machine counts in seconds.

    Not of GPUs, where exponentials have units of their own.
    """
    found = machine(name)
    division, exponential = (
        found.flops["f32"] / found.rates[k] for k in ("div", "exp")
    )
    block = Block(arg_types=[f32])
    divided = arith.DivfOp(block.args[0], block.args[0])
    assert weight(divided) == COSTLY
    assert 0.5 < division / COSTLY < 2.5
    assert 0.5 < exponential / weight(math.ExpOp(block.args[0])) < 2.5


def test_least_description() -> None:
    found = machine_of(LEAST, "test")
    assert found.level("L1").capacity == 1024
    assert found.level("L1").line == 64
    assert found.memory.shared
    assert found.pages is None


def test_unknown_level() -> None:
    with pytest.raises(MachineError, match="machine small has no level L7; expected"):
        machine_of(LEAST, "test").level("L7")


def test_description_of_a_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = (FOLDER / "edge.toml").read_text()
    path.write_text(text.replace('name = "edge"', 'name = "own"', 1))
    assert machine(path).name == "own"
    assert machine(str(path)).cores == machine("edge").cores


def test_a_machine_is_taken_as_it_is() -> None:
    found = machine("edge")
    assert machine(found) is found


def test_limited_to_fewer_cores() -> None:
    whole = machine("edge")
    one = whole.limited(1)
    assert one.cores == 1
    assert one.flops["f32"] == whole.flops["f32"] / 4
    assert one.level("L1").bandwidth == whole.level("L1").bandwidth / 4
    assert one.memory.bandwidth == whole.memory.bandwidth
    assert whole.limited(8) is whole


def test_unknown_machine() -> None:
    with pytest.raises(MachineError, match="unknown machine: expected one of host, a1"):
        machine("abacus")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot read the machine .*no\.toml"):
        machine(tmp_path / "no.toml")


def test_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("name = ")
    with pytest.raises(MachineError, match="not TOML"):
        machine(path)


LEVELS = LEAST["levels"]

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "tpu"}, "kind: expected cpu or gpu, got tpu"),
    ({"cores": 0}, "cores: expected a whole number above 0, got 0"),
    ({"cores": 2.5}, "cores: expected a whole number, got a number"),
    ({"cores": True}, "cores: expected a whole number, got true or false"),
    ({"name": 3}, "name: expected a string, got a whole number"),
    ({"separate_exp": 1}, "separate_exp: expected true or false, got a whole number"),
    ({"sources": "a"}, "sources: expected a list of strings, got a string"),
    ({"sources": [1]}, "sources: expected a list of strings, got a whole number"),
    ({"launch": "1"}, "launch: expected a number, got a string"),
    ({"launch": -1.0}, "launch: expected a number of at least 0, got -1.0"),
    ({"overlap": 1.5}, "overlap: expected 0 to 1, got 1.5"),
    ({"efficiency": 2.0}, "efficiency: expected 0 to 1, got 2.0"),
    ({"flops": 1.0}, "flops: expected a table of numbers, got a number"),
    ({"flops": {"f64": 1.0}}, "flops: missing field f32"),
    ({"flops": {"f32": 0.0}}, "flops: f32: expected a number above 0, got 0"),
    ({"levels": []}, "levels: expected one table or more"),
    ({"levels": [3]}, r"levels\[0\]: expected a table, got a whole number"),
    ({"levels": LEVELS[1:] * 2}, r"levels\[0\]: missing field capacity"),
    ({"levels": LEVELS[:1]}, "the last level is the memory, without capacity"),
    ({"levels": [{**LEVELS[1], "ways": 8}]}, "unknown field ways; expected one of"),
    ({"pages": 3}, "pages: expected a table, got a whole number"),
    ({"pages": {"bytes": 4096}}, "pages: missing field entries"),
    ({"speed": 3}, "unknown field speed; expected one of"),
    ({"levels": [{**LEVELS[0], "shared": 1}, LEVELS[1]]}, "shared: expected 2 cores o"),
    (
        {"levels": [{**LEVELS[0], "shared": "all"}, LEVELS[1]]},
        "shared: expected true, ",
    ),
    ({"energy_within": 0.5}, "energy_within: expected 1 or more, got 0.5"),
    ({"basis": 1}, "basis: expected a table, got a whole number"),
    ({"basis": {"speed": "derived"}}, "basis: there is no number speed"),
    ({"basis": {"cores": "somewhere"}}, "basis: cores: expected a text that begins wi"),
    ({"basis": {"cores": "source 1"}}, "basis: cores: there is no source 1, but 0"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MachineError, match=f"test.*{message}"):
        machine_of({**LEAST, **change}, "test")


@pytest.mark.parametrize("name", sorted(LEAST))
def test_missing_field(name: str) -> None:
    content = {key: value for key, value in LEAST.items() if key != name}
    with pytest.raises(MachineError, match=f"test: .*{name}"):
        machine_of(content, "test")


def test_host_has_the_sizes_of_this_machine() -> None:
    measured = dict.fromkeys(
        (
            *("f32", "f64", "bf16", "f16", "exp", "div", "math", "other"),
            *("L1", "L2", "L3", "DRAM", "launch", "fresh", "single"),
        ),
        1.0,
    )
    here = host_machine()
    for l3 in (0.0, 1 << 25):
        found = described({**measured, "L3_bytes": l3})
        assert found.name == "host"
        assert found.cores == here.cores
        assert found.level("L1").capacity == here.l1_bytes
        assert [level.name for level in found.levels] == (
            ["L1", "L2", "L3", "DRAM"] if l3 else ["L1", "L2", "DRAM"]
        )
