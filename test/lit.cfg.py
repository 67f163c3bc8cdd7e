"""Configuration of the lit tests.

Tests are written to the common subset of LLVM's FileCheck and its Python port,
`filecheck`, and run with the former where it is installed. To run them with the
latter: `lit -Dfilecheck=python test/filecheck`.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import lit.formats


def site_tool(package: str, tool: str) -> str | None:
    """Returns the path of a tool inside a wheel's `bin` folder, else of that on PATH.

    The wheels of LLVM and MLIR put nothing on PATH.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(folder) / "bin" / tool
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return shutil.which(tool)


def word(name: str) -> str:
    """Returns a pattern for a name that is not a part of a path or longer name."""
    return rf"(?<![\w./-]){name}(?![\w./-])"


test_root = Path(__file__).resolve().parent
exec_root = test_root.parent / "build" / "lit"

config.name = "moa"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["pytest"]
config.test_source_root = str(test_root)
config.test_exec_root = str(exec_root)
config.maxIndividualTestTime = 120  # a rewrite that does not terminate fails

# The commands of the environment that runs lit come first; not resolved, since the
# interpreter of a virtual environment is a link out of it.
config.environment["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), config.environment["PATH"]]
)
# Compiled kernels are kept apart from the user's.
config.environment["XDG_CACHE_HOME"] = str(exec_root / "cache")

# Every operation parses, prints generically, parses again and prints.
config.substitutions.append(
    (
        "MOA_ROUNDTRIP",
        "moa-opt %s --split-input-file --print-op-generic"
        " | moa-opt --split-input-file | filecheck %s",
    )
)
# Every error is checked: --verify-diagnostics exits with 0 also on valid input.
config.substitutions.append(
    (
        "MOA_DIAGNOSTICS",
        "moa-opt %s --split-input-file --parsing-diagnostics --verify-diagnostics"
        " | filecheck %s",
    )
)

if lit_config.params.get("filecheck") != "python" and (
    file_check := site_tool("llvm", "FileCheck")
):
    config.substitutions.append((word("filecheck"), file_check))
# lit's own shell knows plain `not`.
if not_tool := site_tool("llvm", "not"):
    config.substitutions.append((word("not") + r"(?=\s+--crash\b)", not_tool))
if mlir_opt := site_tool("mlir", "mlir-opt"):
    config.available_features.add("mlir-opt")
    config.substitutions.append(("%mlir_opt", mlir_opt))


def forked_moa_opt() -> str | None:
    """A command that is `moa-opt` without its start; None where none can be had.

    Importing moa-opt takes most of the time of most of these tests. A process that has
    imported it is forked for each call (moa_opt_forked.py); it ends after lit.
    `lit -Dmoa-opt=started` starts `moa-opt` itself each time.
    """
    if not sys.platform.startswith("linux"):
        return None
    if lit_config.params.get("moa-opt") == "started":
        return None
    script = str(test_root / "moa_opt_forked.py")
    path = f"{tempfile.mkdtemp(prefix='moa-opt-')}/socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)  # calls wait until the process has started
        subprocess.Popen(
            [sys.executable, script, "serve", str(server.fileno()), str(os.getpid())],
            pass_fds=[server.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **config.environment},
        )
    return f"{sys.executable} -I -S {script} run {path}"


if forked := forked_moa_opt():
    config.substitutions.append((word("moa-opt"), forked))
