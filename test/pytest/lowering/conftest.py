"""What several tests of code for a GPU share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moa_dialect.lowering import emulator


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the emulator run kernels in an order, change their text, and check them."""

    def run(
        order: str,
        change: Callable[[str], str] = lambda text: text,
        checks: bool = False,
    ) -> None:
        class Changed(emulator.Emulator):
            def __init__(self, text: str) -> None:
                super().__init__(change(text), checks=checks)

            def launch(self, *arguments: Any) -> None:  # pyright: ignore
                super().launch(*arguments, order=order)

        monkeypatch.setattr(emulator, "Emulator", Changed)

    return run
