"""What code is made for: chips, and CPUs."""

import numpy as np
import pytest

import moa_dialect as moa
from moa_dialect.lowering import host
from moa_dialect.lowering.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    ("capability", "chip"),
    [
        ((9, 0), "sm_90a"),
        ((8, 0), "sm_80"),
        ((8, 9), "sm_89"),
        ((8, 8), "sm_87"),
        ((12, 1), "sm_121"),
        ((99, 0), "sm_121"),
        ((7, 0), "sm_70"),
        ((6, 1), None),
    ],
)
def test_the_chip_of_a_device(capability: tuple[int, int], chip: str | None) -> None:
    assert chip_of(*capability) == chip
    assert chip is None or chip in CHIPS


def test_the_cpu_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    own = host.cpu()
    monkeypatch.setenv(host.SETTING, "x86-64-v3")
    assert host.cpu.__wrapped__() == "x86-64-v3"
    assert host.features.__wrapped__() == ""
    monkeypatch.setenv(host.SETTING, "")
    assert host.cpu.__wrapped__() == own


def test_code_for_a_cpu_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    if host.native_target()[0].startswith(b"aarch64"):
        pytest.skip("an x86 processor")
    monkeypatch.setattr(host, "cpu", lambda: "x86-64-v2")
    monkeypatch.setattr(host, "features", lambda: "")
    x = np.arange(7, dtype=np.float32)
    np.testing.assert_allclose(moa.jit(moa.exp)(x), np.exp(x), rtol=1e-6)
