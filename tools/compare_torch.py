"""Functions of PyTorch under `torch.compile(backend="moa")`, compared with eager.

    python -m moa_dialect.tools.compare_torch [WORD ...]

Prints for each case of `torch_cases` what differs, how long it took to compile, and
which operators are left to PyTorch because they have no translation.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from typing import Any

import torch

from moa_dialect.frontend.torch import backend, report
from moa_dialect.tools.torch_cases import CASES


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in flat(v)]
    return []


def gradients(results, inputs):
    wanted = [t for t in inputs if isinstance(t, torch.Tensor) and t.requires_grad]
    total = None
    for k, r in enumerate(results):
        if r.requires_grad and r.is_floating_point():
            w = torch.linspace(0.5, 1.5 + k, r.numel(), dtype=torch.float64).view(r.shape)
            part = (r.double() * w).sum()
            total = part if total is None else total + part
    if total is None:
        return []
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def run(function, make, grad):
    inputs = make()
    if grad == 1:
        inputs = (inputs[0].requires_grad_() if inputs[0].is_floating_point() else inputs[0], *inputs[1:])
    elif grad:
        inputs = tuple(t.requires_grad_() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in inputs)
    results = flat(function(*inputs))
    given = gradients(results, inputs) if grad else []
    return [r.detach() for r in results] + [g for g in given]


def parameters_of(function):
    return list(function.parameters()) if isinstance(function, torch.nn.Module) else []


def compare(name, dynamic, grad, options):
    import copy
    function, make = CASES[name]
    torch._dynamo.reset()
    report(clear=True)
    torch.manual_seed(0)
    reference = copy.deepcopy(function) if isinstance(function, torch.nn.Module) else function
    try:
        try:
            grad = 2 if grad else 0
            expected = run(reference, make, grad)
        except Exception:
            grad = 1
            expected = run(reference, make, grad)
    except Exception as e:
        return "", f"EAGER {e}"[:100], 0, [], [], 0
    started = time.process_time()
    text = status = ""
    mine = copy.deepcopy(function) if isinstance(function, torch.nn.Module) else function
    try:
        found = run(torch.compile(mine, backend=backend, dynamic=dynamic, options=options), make, grad)
    except Exception as e:
        return "ERROR", "".join(traceback.format_exception_only(e))[:400], time.process_time() - started, report(), [], 0
    took = time.process_time() - started
    if len(found) != len(expected):
        status = "COUNT"
    for k, (a, b) in enumerate(zip(found, expected)):
        if (a is None) != (b is None):
            status, text = "NONE", f"{k}"
            continue
        if a is None:
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            status, text = "META", f"{k}: {a.dtype} {a.shape} for {b.dtype} {b.shape}"
            continue
        if a.stride() != b.stride() and a.numel() > 1 and not grad:
            sa = [s for s, e in zip(a.stride(), a.shape) if e > 1]
            sb = [s for s, e in zip(b.stride(), b.shape) if e > 1]
            if sa != sb:
                status, text = status or "STRIDE", text + f"{k}: {a.stride()} for {b.stride()} of {b.shape}"
        try:
            tolerance = {} if a.dtype != torch.bfloat16 else dict(rtol=0.03, atol=0.03)
            torch.testing.assert_close(a, b, equal_nan=True, **tolerance)
        except AssertionError as e:
            status, text = "WRONG", f"{k}: {str(e)[:300]}"
    return status, text, took, report(), found, 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--nograd", action="store_true")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    a = parser.parse_args()
    left, failed, slow = Counter(), Counter(), []
    where = {}
    options = {"everything": True, "products": "moa"} if a.everything else {}
    n = 0
    for name in CASES:
        if a.words and not any(w in name for w in a.words):
            continue
        n += 1
        status, text, took, found, *_ = compare(name, not a.static, not a.nograd, options)
        if status or text.startswith("EAGER"):
            print(f"{status or 'skip'} {name}: {text}", flush=True)
        if took > 2:
            print(f"SLOW {name}: {took:.1f}", flush=True)
        for g in found:
            if a.verbose:
                print(name, g)
            for operator, (count, reason) in g.left.items():
                if reason not in ("free in PyTorch", "products are PyTorch's"):
                    if "alone" not in reason:
                        left[operator, reason] += 1
                        where.setdefault(operator, []).append(name)
            for operators, reason in g.failed:
                print("FAILED", name, operators, reason[:400], flush=True)
    print(n, "cases")
    for (operator, reason), count in left.most_common():
        print(f"{count:4} {operator}: {reason}   [{', '.join(where[operator][:4])}]")


main()
