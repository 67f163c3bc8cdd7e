"""How long it takes to get a kernel, and to call it: `docs/engine.md`.

Each figure is the best of several processes, of wall and of processor time: the latter
says more on a machine that does other things too.

    python -m moa_dialect.tools.engine_times
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import moa_dialect as moa


def _alibi(score: Any, _b: Any, head: Any, i: Any, j: Any) -> Any:
    return score + (j - i) * (head + 1) * 0.125


VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"is_causal": True},
    "window": {"is_causal": True, "window": 100},
    "alibi": {"score_mod": _alibi},
    "softcap": {"softcap": 20.0},
    "lse": {"return_lse": True},
}


def kernel_times(variant: str) -> dict[str, float]:
    """Milliseconds from `moa.jit` to a kernel, for attention of f32 8x512x64."""
    q = np.zeros((8, 512, 64), np.float32)
    wall, processor = time.perf_counter(), time.process_time()
    compiled = moa.jit(moa.attention).lower(q, q, q, **VARIANTS[variant])
    _ = compiled.kernel
    return {
        "wall": 1e3 * (time.perf_counter() - wall),
        "processor": 1e3 * (time.process_time() - processor),
    }


def call_times(repeat: int = 20, calls: int = 2000) -> dict[str, float]:
    """Microseconds of a call of attention of 1x4x8, by kind of caller and arguments."""
    array = np.random.default_rng(0).random((1, 4, 8), np.float32)
    program = moa.jit(moa.attention)
    compiled = program.lower(array, array, array)
    kernel = compiled.kernel
    found: dict[str, Callable[[], Any]] = {
        "moa.attention, arrays": lambda: moa.attention(array, array, array),
        "moa.jit, arrays": lambda: program(array, array, array),
        "Compiled, arrays": lambda: compiled(array, array, array),
        "Kernel, arrays": lambda: kernel(array, array, array),
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        tensor = torch.from_numpy(array)
        found |= {
            "moa.attention, tensors": lambda: moa.attention(tensor, tensor, tensor),
            "moa.jit, tensors": lambda: program(tensor, tensor, tensor),
            "Compiled, tensors": lambda: compiled(tensor, tensor, tensor),
        }
    result: dict[str, float] = {}
    for name, call in found.items():
        call()
        best = float("inf")
        for _ in range(repeat):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            best = min(best, (time.perf_counter() - start) / calls)
        result[name] = 1e6 * best
    return result


def _in_a_process(what: str, **environment: str) -> dict[str, float]:
    """What this module measures when it is run with an argument."""
    output = subprocess.run(
        [sys.executable, "-m", "moa_dialect.tools.engine_times", what],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(output)


def _best(runs: list[dict[str, float]]) -> str:
    wall, processor = (min(run[k] for run in runs) for k in ("wall", "processor"))
    return f"{wall:8.0f} {processor:8.0f}"


def main() -> None:
    """Measure everything, or in a process of its own one thing."""
    parser = argparse.ArgumentParser(description="Time compilation and calls.")
    parser.add_argument("what", nargs="?", choices=[*VARIANTS, "calls"])
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    if options.what is not None:
        times = call_times() if options.what == "calls" else kernel_times(options.what)
        print(json.dumps(times))
        return
    count = options.processes
    print("ms             cold wall processor   warm wall processor")
    for variant in VARIANTS:
        cold = [_in_a_process(variant, MOA_CACHE="0") for _ in range(count)]
        with TemporaryDirectory() as folder:
            known = {"MOA_CACHE": "1", "MOA_CACHE_DIR": folder}
            _in_a_process(variant, **known)
            warm = [_in_a_process(variant, **known) for _ in range(count)]
        print(f"{variant:10s}     {_best(cold)}    {_best(warm)}")
    print("\nus of a call")
    for name, value in _in_a_process("calls").items():
        print(f"{name:24s} {value:6.1f}")


if __name__ == "__main__":
    main()
