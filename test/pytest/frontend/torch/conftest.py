"""Fixtures for PyTorch: one thread, since results are compared and not timed."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing compiled before is known to Dynamo or in the report, nor afterwards."""
    dynamo = pytest.importorskip("torch._dynamo")
    from moa_dialect.frontend.torch import report

    dynamo.reset()
    dynamo.utils.counters.clear()
    report(clear=True)
    yield
    dynamo.reset()
    report(clear=True)
