"""Machines as the cost model sees them: what they hold, move and compute, at what cost.

A description is a TOML file: one of those in `moa_dialect/machines`, or a user's own.
`host` is the machine this runs on; see `moa_dialect.cost.probe`. docs/cost-model.md
lists the fields.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal, cast

from moa_dialect.errors import MoaError

FOLDER = Path(__file__).resolve().parent.parent / "machines"
"""Where the descriptions lie that come with the package."""

Kind = Literal["cpu", "gpu"]

ENERGY_WITHIN = 3.0
"""By which factor energies may be off if a description does not say. An assumption: the
published tables differ by about that for the same operation in two processes."""

WORDS = ("source ", "derived", "measured", "assumption")
"""How a text of `basis` begins."""


class MachineError(MoaError):
    """A machine is unknown, or its description is not one."""


@dataclass(frozen=True)
class Level:
    """A level of the memory hierarchy, the fastest first; the last one is the memory.

    Attributes:
        name: its name, such as L2 or DRAM.
        bandwidth: bytes a second that all cores together read from it.
        energy: joules for a byte that is read from it.
        capacity: bytes it holds; 0 for the memory, which holds everything.
        line: bytes of a line.
        shared: whether cores share it, or each has its own.
        cluster: how many cores share one of several such caches; 0 if all share it.
    """

    name: str
    bandwidth: float
    energy: float
    capacity: int = 0
    line: int = 64
    shared: bool = False
    cluster: int = 0

    @property
    def sharers(self) -> int | None:
        """How many cores share one such cache; None if all do."""
        return self.cluster or (None if self.shared else 1)

    def share(self, cores: int, all_cores: int) -> float:
        """Which part of its bandwidth some of all cores have, as far as caches go."""
        if self.sharers is None:
            return 1.0
        return ceil(cores / self.sharers) / ceil(all_cores / self.sharers)


@dataclass(frozen=True)
class Pages:
    """The first-level table of pages that a core keeps.

    Attributes:
        bytes: bytes of a page.
        entries: how many pages it holds.
        seconds: what a page takes that is not among them.
    """

    bytes: int
    entries: int
    seconds: float


@dataclass(frozen=True)
class CostMachine:
    """A machine as the cost model sees it. Rates are those of all cores together.

    Attributes:
        name: its name.
        description: what it is, in a line.
        kind: `cpu` or `gpu`.
        cores: how many cores, or multiprocessors, share a kernel.
        vector_bytes: how many bytes a vector register holds.
        registers: vector registers of a core, or registers of a thread.
        flops: for each element type, additions and multiplications a second.
        rates: for `exp`, `div`, `math` and `other` scalar operations, how many elements
            a second; an element of eight bytes counts twice.
        levels: the memory hierarchy, from the first-level cache to the memory.
        op_energy: for each element type, and for `exp`, joules for an operation.
        idle_watts: what the machine takes while a kernel runs, besides operations and
            bytes.
        launch: seconds that a kernel takes in any case.
        fresh: bytes a second at which memory that was not used before is first written;
            0 if that costs nothing more.
        fresh_from: how many bytes a result has at least for its memory to be fresh.
        separate_exp: whether exponentials have a unit of their own.
        overlap: which part of the shorter ones of computing and moving data is hidden
            behind the longer one.
        efficiency: which part of its peak a kernel reaches.
        single: which part of the rates of all cores one core reaches, if that is more
            than its share.
        pages: how addresses are looked up; None if that never takes time.
        energy_within: by which factor energies may be off, either way.
        sources: where the numbers are from.
        basis: for numbers, by name, what each is from; see `numbers_in`.
        checked: which of them were looked up again, where, and which were not.
    """

    name: str
    description: str
    kind: Kind
    cores: int
    vector_bytes: int
    registers: int
    flops: Mapping[str, float]
    rates: Mapping[str, float]
    levels: tuple[Level, ...]
    op_energy: Mapping[str, float]
    idle_watts: float = 0.0
    launch: float = 0.0
    fresh: float = 0.0
    fresh_from: int = 0
    separate_exp: bool = False
    overlap: float = 0.95
    efficiency: float = 1.0
    single: float = 0.0
    pages: Pages | None = None
    energy_within: float = ENERGY_WITHIN
    sources: tuple[str, ...] = field(default=())
    basis: Mapping[str, str] = field(default_factory=dict[str, str])
    checked: tuple[str, ...] = field(default=())

    def level(self, name: str) -> Level:
        """A level by its name.

        Raises:
            MachineError: if there is none of this name.
        """
        for level in self.levels:
            if level.name == name:
                return level
        known = ", ".join(level.name for level in self.levels)
        raise MachineError(
            f"machine {self.name} has no level {name}; expected one of {known}"
        )

    def limited(self, cores: int) -> CostMachine:
        """The machine if kernels run on so many of its cores.

        The memory, and what all cores share, is as fast for fewer of them.
        """
        share = min(1.0, cores * max(1 / self.cores, self.single))
        if cores >= self.cores:
            return self
        levels = tuple(
            replace(
                level,
                bandwidth=level.bandwidth
                * (level.share(cores, self.cores) if level.shared else share),
            )
            for level in self.levels
        )
        return replace(
            self,
            cores=cores,
            flops={name: rate * share for name, rate in self.flops.items()},
            rates={name: rate * share for name, rate in self.rates.items()},
            levels=levels,
        )

    @property
    def memory(self) -> Level:
        """The last level."""
        return self.levels[-1]


def shipped() -> list[str]:
    """The names of the machines that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def machine(name: str | Path | CostMachine | None = None) -> CostMachine:
    """A machine by its name, `host` for the one this runs on, or by a TOML file.

    Args:
        name: a name of `shipped()`, `host`, or a path that ends with `.toml`; a machine
            is taken as it is, and None is `host`.

    Raises:
        MachineError: for an unknown name, or a file that is no description.
    """
    if isinstance(name, CostMachine):
        return name
    if name is None or name == "host":
        from moa_dialect.cost.probe import probed_host

        return probed_host()
    path = Path(name)
    if path.suffix == ".toml":
        return read_machine(path)
    if str(name) not in shipped():
        known = ", ".join(("host", *shipped()))
        raise MachineError(
            f"unknown machine: expected one of {known}, or a .toml file, got {name}"
        )
    return read_machine(FOLDER / f"{name}.toml")


def read_machine(path: Path) -> CostMachine:
    """Read a description.

    Raises:
        MachineError: if there is no such file, or it is no description.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"cannot read the machine {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"{path}: not TOML: {error}") from error
    return machine_of(content, str(path))


def machine_of(content: Mapping[str, Any], where: str) -> CostMachine:
    """The machine that the content of a description is.

    Args:
        content: what was read.
        where: what messages call it.

    Raises:
        MachineError: for a field that is missing, unknown, or of another type.
    """
    table = _Table(content, where)
    kind = table.text("kind")
    if kind not in ("cpu", "gpu"):
        raise MachineError(f"{where}: kind: expected cpu or gpu, got {kind}")
    given = content.get("levels")
    if not isinstance(given, list) or not given:
        raise MachineError(f"{where}: levels: expected one table or more")
    entries = cast(list[Any], given)
    last = len(entries) - 1
    levels = tuple(
        _level(entry, f"{where}: levels[{number}]", number == last)
        for number, entry in enumerate(entries)
    )
    table.used.add("levels")
    found = CostMachine(
        name=table.text("name"),
        description=table.text("description", ""),
        kind=kind,
        cores=table.whole("cores"),
        vector_bytes=table.whole("vector_bytes"),
        registers=table.whole("registers"),
        flops=table.rates("flops", ("f32",)),
        rates=table.rates("rates", ("exp", "div", "math", "other")),
        levels=levels,
        op_energy=table.rates("op_energy", ("f32", "exp")),
        idle_watts=table.number("idle_watts", 0.0),
        launch=table.number("launch", 0.0),
        fresh=table.number("fresh", 0.0),
        fresh_from=table.whole("fresh_from", 0),
        separate_exp=table.truth("separate_exp", False),
        overlap=table.number("overlap", 0.95),
        efficiency=table.number("efficiency", 1.0),
        single=table.number("single", 0.0),
        pages=_pages(table, where),
        energy_within=table.number("energy_within", ENERGY_WITHIN),
        sources=table.texts("sources"),
        basis=_basis(table, content, where),
        checked=table.texts("checked"),
    )
    for name, least, most in (
        ("overlap", 0.0, 1.0),
        ("efficiency", 1e-6, 1.0),
        ("single", 0.0, 1.0),
    ):
        value = getattr(found, name)
        if not least <= value <= most:
            raise MachineError(f"{where}: {name}: expected 0 to 1, got {value}")
    if found.energy_within < 1.0:
        raise MachineError(
            f"{where}: energy_within: expected 1 or more, got {found.energy_within}"
        )
    table.finish()
    return found


def numbers_in(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """The numbers of a description by name, each with the names that may stand for it.

    A number of a table is `flops.f32` or `flops`, one of a level `L2.energy` or
    `levels.energy`; the more exact name counts.
    """
    found: dict[str, list[str]] = {}
    for name, value in content.items():
        if name in ("basis", "levels"):
            continue
        if isinstance(value, dict):
            for entry in cast(dict[str, Any], value):
                found[f"{name}.{entry}"] = [f"{name}.{entry}", name]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = [name]
    for level in content.get("levels", ()):
        for entry, value in {"line": 64, **level}.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                name = f"{level['name']}.{entry}"
                found[name] = [name, f"levels.{entry}"]
    return found


def _basis(table: _Table, content: Mapping[str, Any], where: str) -> Mapping[str, str]:
    if "basis" not in content:
        return {}
    given = content["basis"]
    table.used.add("basis")
    if not isinstance(given, dict):
        raise MachineError(f"{where}: basis: expected a table, got {_kind_of(given)}")
    inner = _Table(cast(dict[str, Any], given), f"{where}: basis")
    found = {name: inner.text(name) for name in inner.content}
    numbers = numbers_in(content)
    known = {name for names in numbers.values() for name in names}
    count = len(table.texts("sources"))
    for name, text in found.items():
        if name not in known:
            raise MachineError(f"{where}: basis: there is no number {name}")
        if not text.startswith(WORDS):
            words = ", ".join(word.strip() for word in WORDS)
            raise MachineError(
                f"{where}: basis: {name}: expected a text that begins with one of "
                f"{words}, got {text}"
            )
        for number in re.findall(r"source (\d+)", text):
            if not 1 <= int(number) <= count:
                raise MachineError(
                    f"{where}: basis: {name}: there is no source {number}, but {count}"
                )
    return found


def _pages(table: _Table, where: str) -> Pages | None:
    if "pages" not in table.content:
        return None
    entry = table.content["pages"]
    table.used.add("pages")
    if not isinstance(entry, dict):
        raise MachineError(f"{where}: pages: expected a table, got {_kind_of(entry)}")
    inner = _Table(cast(dict[str, Any], entry), f"{where}: pages")
    pages = Pages(inner.whole("bytes"), inner.whole("entries"), inner.number("seconds"))
    inner.finish()
    return pages


def _level(entry: Any, where: str, is_memory: bool) -> Level:
    if not isinstance(entry, dict):
        raise MachineError(f"{where}: expected a table, got {_kind_of(entry)}")
    table = _Table(cast(dict[str, Any], entry), where)
    shared, cluster = table.sharing(is_memory)
    level = Level(
        name=table.text("name"),
        bandwidth=table.positive("bandwidth"),
        energy=table.number("energy"),
        capacity=table.whole("capacity", 0) if is_memory else table.whole("capacity"),
        line=table.whole("line", 64),
        shared=shared,
        cluster=cluster,
    )
    if is_memory and level.capacity:
        raise MachineError(f"{where}: the last level is the memory, without capacity")
    table.finish()
    return level


_MISSING: Any = object()


@dataclass
class _Table:
    """A table of a description, read field by field."""

    content: Mapping[str, Any]
    where: str
    used: set[str] = field(default_factory=set[str])

    def _get(self, name: str, default: Any, expected: str) -> Any:
        self.used.add(name)
        value = self.content.get(name, default)
        if value is _MISSING:
            raise MachineError(f"{self.where}: missing field {name}: {expected}")
        return value

    def _wrong(self, name: str, expected: str, value: Any) -> MachineError:
        return MachineError(
            f"{self.where}: {name}: expected {expected}, got {_kind_of(value)}"
        )

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A field that is text."""
        value = self._get(name, default, "a string")
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts, empty if it is not there."""
        value = self._get(name, [], "a list of strings")
        if not isinstance(value, list):
            raise self._wrong(name, "a list of strings", value)
        entries = cast(list[Any], value)
        for entry in entries:
            if not isinstance(entry, str):
                raise self._wrong(name, "a list of strings", entry)
        return tuple(entries)

    def truth(self, name: str, default: bool) -> bool:
        """A field that is true or false."""
        value = self._get(name, default, "true or false")
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def sharing(self, default: bool) -> tuple[bool, int]:
        """The field `shared`: whether cores share a level, and how many of them."""
        expected = "true, false, or how many cores share one"
        value = self._get("shared", default, expected)
        if isinstance(value, bool):
            return value, 0
        if not isinstance(value, int):
            raise self._wrong("shared", expected, value)
        if value < 2:
            raise MachineError(
                f"{self.where}: shared: expected 2 cores or more, got {value}"
            )
        return True, value

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A field that is a number, not negative."""
        value = self._get(name, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        if not 0 <= value < float("inf"):
            raise MachineError(
                f"{self.where}: {name}: expected a number of at least 0, got {value}"
            )
        return float(value)

    def positive(self, name: str) -> float:
        """A field that is a number above 0."""
        value = self.number(name)
        if value == 0:
            raise MachineError(
                f"{self.where}: {name}: expected a number above 0, got 0"
            )
        return value

    def whole(self, name: str, default: Any = _MISSING) -> int:
        """A field that is a whole number; above 0 unless there is a default."""
        value = self._get(name, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number", value)
        if value < (1 if default is _MISSING else 0):
            raise MachineError(
                f"{self.where}: {name}: expected a whole number above 0, got {value}"
            )
        return value

    def rates(self, name: str, needed: tuple[str, ...]) -> dict[str, float]:
        """A field that is a table of numbers, some of which must be there."""
        value = self._get(name, _MISSING, "a table of numbers")
        if not isinstance(value, dict):
            raise self._wrong(name, "a table of numbers", value)
        inner = _Table(cast(dict[str, Any], value), f"{self.where}: {name}")
        names = dict.fromkeys((*needed, *inner.content))
        return {entry: inner.positive(entry) for entry in names}

    def finish(self) -> None:
        """Check that every field was one that there is."""
        for name in self.content:
            if name not in self.used:
                known = ", ".join(sorted(self.used))
                raise MachineError(
                    f"{self.where}: unknown field {name}; expected one of {known}"
                )


def _kind_of(value: Any) -> str:
    """What a value of TOML is, for messages."""
    if isinstance(value, bool):
        return "true or false"
    names = {"str": "a string", "int": "a whole number", "float": "a number"}
    names |= {"list": "a list", "dict": "a table"}
    name = type(value).__name__
    return names.get(name, name)
