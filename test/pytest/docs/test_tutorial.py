"""The pages' commands and Python run, and print what the pages show.

The fenced blocks of a page are run in order, in one folder and one namespace:

- `python` is executed; a `text` or `mlir` block right after it is what it prints;
- `pycon` is a doctest;
- `console` holds commands after `$ `, each with what it prints below it;
- `mlir` whose first line is `// NAME.mlir` is written to that file.

Blocks of other languages are not run. To write into the pages what is printed now:

    python test/pytest/docs/test_tutorial.py
"""

import contextlib
import doctest
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "python test/pytest/docs/test_tutorial.py"
PAGES = (
    "README.md",
    "docs/tutorial.md",
    "docs/algebra.md",
    "docs/derivation.md",
    "docs/fusion.md",
    "docs/attention.md",
    "docs/reductions.md",
    "docs/pytorch.md",
    "docs/library.md",
    "docs/cli.md",
    "docs/cost-model.md",
    "docs/upstream.md",
    "docs/embedding.md",
    "docs/jax.md",
    "docs/raising.md",
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A fenced block: its language, its text, and where that stands in the page."""

    language: str
    text: str
    start: int
    stop: int

    @property
    def file_name(self) -> str | None:
        found = re.match(r"// (\w+\.mlir)\n", self.text)
        return found[1] if found and self.language == "mlir" else None

    @property
    def is_output(self) -> bool:
        return self.language in ("text", "mlir") and self.file_name is None


def blocks_of(page: str) -> list[Block]:
    return [
        Block(found[1], found[2], found.start(2), found.end(2))
        for found in FENCE.finditer(page)
    ]


def lines_of(text: str) -> list[str]:
    """The lines of a text without trailing blanks."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def run_python(code: str, namespace: dict[str, Any]) -> str:
    stream = StringIO()
    with contextlib.redirect_stdout(stream):
        exec(compile(code, "<page>", "exec"), namespace)
    return stream.getvalue()


def run_doctest(code: str, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(code, namespace, "page", None, None)
    test.globs = namespace  # what it defines is there for the blocks that follow
    report = StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.write, clear_globs=False)
    assert not runner.failures, report.getvalue()


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, output = part.split("\n", 1)
        while command.endswith("\\"):
            line, output = output.split("\n", 1)
            command += f"\n{line}"
        yield command, output


def run_command(command: str, folder: Path) -> tuple[int, str]:
    tools = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUTF8": "1",
        "COLUMNS": "80",
    }
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=60,
    )
    return result.returncode, result.stdout


def run_page(page: str, folder: Path) -> Iterator[tuple[Block, str]]:
    """Run a page; gives each block that shows an output with what it should be."""
    # A module that can be imported: torch.compile looks functions up in theirs.
    module = sys.modules["page"] = ModuleType("page")
    namespace = vars(module)
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        match block.language:
            case "python":
                printed = run_python(block.text, namespace)
                following = blocks[number + 1] if number + 1 < len(blocks) else None
                if following is not None and following.is_output:
                    yield following, "\n".join([*lines_of(printed), ""])
                else:
                    assert not printed, f"not shown on the page: {printed}"
            case "pycon":
                run_doctest(block.text, namespace)
            case "console":
                actual: list[str] = []
                for command, shown in commands_of(block.text):
                    code, printed = run_command(command, folder)
                    assert code == 0 or shown.strip(), f"$ {command}\n{printed}"
                    actual += [f"$ {command}", *lines_of(printed)]
                yield block, "\n".join([*actual, ""])
            case _:
                if block.file_name is not None:
                    (folder / block.file_name).write_text(block.text, "utf-8")


@contextlib.contextmanager
def standard_printing() -> Generator[None]:
    with np.printoptions(precision=8, threshold=1000, linewidth=75, suppress=False):
        yield


def forget_graphs() -> None:
    """Let no page report what another one compiled in this process."""
    if "moa_dialect.frontend.torch.dynamo" in sys.modules:
        from torch._dynamo.utils import counters

        from moa_dialect.frontend.torch.dynamo import report

        report(clear=True)
        counters.clear()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAGES)
def test_page_prints_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / name).read_text("utf-8")
    forget_graphs()
    with standard_printing():
        for block, expected in run_page(page, tmp_path):
            assert lines_of(block.text) == lines_of(expected), (
                f"{name} shows something else; {COMMAND} would mend that"
            )


def rewrite(name: str) -> None:
    """Put what is printed into a page."""
    page = (ROOT / name).read_text("utf-8")
    forget_graphs()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        standard_printing(),
    ):
        found = list(run_page(page, Path(folder)))
    for block, expected in reversed(found):
        page = page[: block.start] + expected + page[block.stop :]
    (ROOT / name).write_text(page, "utf-8")


if __name__ == "__main__":
    for page_name in sys.argv[1:] or PAGES:
        rewrite(page_name)
