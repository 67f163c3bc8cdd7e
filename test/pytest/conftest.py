"""Settings of the property tests: without deadlines, repeatable in CI.

A compilation takes a fraction of a second, most of it once, so that a deadline for each
example would only be a source of chance. With CI in the environment the examples are
the same on every run, and fewer.

The garbage collector leaves alone what there is once the tests are collected, and looks
for cycles less often: a sixth of the time of the whole suite would be its.

Tests that load torch-mlir come first: its LLVM ends a process in which PyTorch and the
emulator of GPU kernels have been at work, as it finds an option registered twice.
"""

import gc
import os

# Tests compile what they run; those of the cache on disk have one of their own.
os.environ.setdefault("MOA_CACHE", "0")

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


_WITH_TORCH_MLIR = ("interop", "test_jax.py", "test_libcalls.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not {*_WITH_TORCH_MLIR} & {*item.path.parts})
