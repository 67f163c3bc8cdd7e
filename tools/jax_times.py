"""Functions of JAX compiled by XLA and by moa, timed: the table of docs/jax.md.

    OMP_WAIT_POLICY=passive python -m moa_dialect.tools.jax_times

Each time is the best of some calls, of the two compilers in turn, so that what else the
machine does meets both. Results are compared before.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any


def cases() -> list[tuple[str, Callable[..., Any], list[Any]]]:
    """The rows: a name, a function, and arrays to call it with."""
    import jax
    import jax.numpy as jnp

    def draw(*shape: int) -> Any:
        return jax.random.normal(jax.random.key(len(shape) + shape[0]), shape)

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.T / jnp.sqrt(q.shape[-1])
        return jax.nn.softmax(scores, axis=-1) @ v

    def layer_norm(x: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def softmax(x: Any) -> Any:
        return jax.nn.softmax(x, axis=-1)

    return [
        ("`x + 1`, 8 elements", lambda x: x + 1, [draw(8)]),
        ("softmax of 512x512", softmax, [draw(512, 512)]),
        ("layer norm of 512x512", layer_norm, [draw(512, 512)]),
        ("attention of 512x64", attention, [draw(512, 64)] * 3),
        ("attention of 2048x64", attention, [draw(2048, 64)] * 3),
    ]


def times(calls: Sequence[Callable[[], Any]], count: int) -> list[float]:
    """The best time of each call in us, all of them called in turn."""
    best = [float("inf")] * len(calls)
    for _ in range(count):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call().block_until_ready()
            best[number] = min(best[number], time.perf_counter() - start)
    return [seconds * 1e6 for seconds in best]


def row(name: str, function: Callable[..., Any], arrays: list[Any], count: int) -> str:
    """A line of the table.

    Raises:
        AssertionError: if the results differ.
    """
    import jax
    import numpy as np

    from moa_dialect.frontend import jax as moa_jax

    theirs, ours = jax.jit(function), moa_jax.jit(function)
    within = jax.jit(lambda *arrays: ours(*arrays))
    expected = np.asarray(theirs(*arrays))
    for call in (ours, within):
        np.testing.assert_allclose(call(*arrays), expected, rtol=1e-4, atol=1e-5)
    found = times(
        [lambda call=call: call(*arrays) for call in (theirs, ours, within)], count
    )
    return f"| {name} | {' | '.join(f'{number:.0f}' for number in found)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m moa_dialect.tools.jax_times",
        description="Time functions of JAX, compiled by XLA and by moa.",
    )
    parser.add_argument(
        "--count", type=int, default=200, help="calls of each (default: 200)"
    )
    options = parser.parse_args(arguments)
    print("| function | `jax.jit` | moa | in jit |", flush=True)
    print("| --- | ---: | ---: | ---: |")
    for name, function, arrays in cases():
        print(row(name, function, arrays, options.count), flush=True)


if __name__ == "__main__":
    main()
