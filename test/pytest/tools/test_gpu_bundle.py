"""The folder that takes moa to a machine with a GPU; nothing is installed here."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from moa_dialect.tools import gpu_bundle


def test_a_bundle_runs_from_its_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def install(folder: Path, python: str) -> None:
        assert python == "3.12"
        folder.mkdir(parents=True)

    monkeypatch.setattr(gpu_bundle, "install", install)
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").touch()
    assert gpu_bundle.main([str(folder), "--python", "3.12"]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: ")
    assert sorted(os.listdir(folder)) == ["run.sh", "site", "test"]
    assert "test_runtime.py" in os.listdir(folder / "test")
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    where = "import os, moa_dialect.errors; print(moa_dialect.__path__[0])"
    told = subprocess.run(
        ["sh", str(folder / "run.sh"), "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(told.stdout.strip()) == folder / "site" / "moa_dialect"
    # The code that ships through links is there as files.
    assert not (folder / "site" / "moa_dialect" / "lowering").is_symlink()


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        assert check
        commands.append(command)

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("tests/a.py", "llvm/bin/lli", "mlir/lib/libMLIR-C.so", "xdsl/ir.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    gpu_bundle.install(tmp_path, "3.12")
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "install"]
    assert f"xdsl=={version('xdsl')}" in command
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["ir.py"]
