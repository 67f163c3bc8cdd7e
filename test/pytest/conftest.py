"""Settings of the property tests: without deadlines, repeatable in CI.

A compilation takes a fraction of a second, most of it once, so that a deadline for each
example would only be a source of chance. With CI in the environment the examples are
the same on every run, and fewer.

The garbage collector leaves alone what there is once the tests are collected, and looks
for cycles less often: a sixth of the time of the whole suite would be its.

Beside other workers, threads of OpenMP that wait leave the cores to those.

A test that leaves PyTorch's gradients off, or its threads changed, fails: those after
it in the same process would see it.
"""

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

# Tests compile what they run; those of the cache on disk have one of their own.
os.environ.setdefault("MOA_CACHE", "0")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, settings

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile("local", deadline=None, suppress_health_check=_SLOW)
settings.register_profile(
    "ci",
    deadline=None,
    suppress_health_check=_SLOW,
    derandomize=True,
    max_examples=50,
    print_blob=True,
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was() -> Iterator[None]:
    before = _settings_of_torch()
    yield
    after = _settings_of_torch()
    if after is None or after == before:
        return
    torch: Any = sys.modules["torch"]
    if before is None:  # imported meanwhile
        before = True, after[1]
    torch.set_grad_enabled(before[0])
    torch.set_num_threads(before[1])
    if before != after:
        pytest.fail(f"gradients, threads of PyTorch: were {before}, are left {after}")


def _settings_of_torch() -> tuple[bool, int] | None:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    return torch.is_grad_enabled(), torch.get_num_threads()
