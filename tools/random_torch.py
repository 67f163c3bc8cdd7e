"""Random functions of PyTorch, under `torch.compile(backend="moa")` and without it.

    python -m moa_dialect.tools.random_torch 300 --first 0

Extents are 0, 1 and small ones. Arguments may lie in any order of axes, be parts of
larger tensors, and want gradients. Functions broadcast, fold, view, write in place, and
give arguments and views of them back. Results, gradients, what became of arguments, and
what shares memory with what are compared. Prints the functions that differ.
"""
# PyTorch leaves much of what it gives without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from moa_dialect.frontend.torch import backend, report

Tensor = torch.Tensor

_UNARY = (
    "{}.tanh()",
    "{}.sigmoid()",
    "{}.relu()",
    "{}.neg()",
    "{}.abs()",
    "{}.sin()",
    "torch.nn.functional.gelu({})",
    "{}.abs().log1p()",
    "({}.abs() + 0.1).sqrt()",
    "torch.exp(-{}.abs())",
    "torch.nn.functional.softplus({})",
    "{} ** 2",
    "{} * 0.5",
    "torch.nn.functional.silu({})",
    "{}.clamp(-0.5, 0.75)",
    "1 - {}",
    "torch.nn.functional.elu({})",
    "{}.expm1().clamp(max=3.0)",
    "{}.to(torch.float64).float()",
)
_BINARY = (
    "{} + {}",
    "{} - {}",
    "{} * {}",
    "torch.maximum({}, {})",
    "torch.minimum({}, {})",
    "{} / ({}.abs() + 0.5)",
    "torch.where({0} > 0.1, {0}, {1})",
    "torch.lerp({}, {}, 0.25)",
    "torch.where(({0} > 0) & ({1} < 0.3), {1}, 0.5)",
    "{}.masked_fill({} > 0.2, -1.0)",
)
_FOLDS = (
    "{}.sum({dim}, keepdim={keep})",
    "{}.mean({dim}, keepdim={keep})",
    "torch.logsumexp({}, {dim}, keepdim={keep})",
    "{}.prod({dim}, keepdim={keep})",
    "torch.nn.functional.softmax({}, {dim})",
    "torch.log_softmax({}, {dim})",
    "({} > 0).sum({dim}, keepdim={keep}).float()",
    "({} > 0.2).any({dim}, keepdim={keep}).float()",
    "({} < 0.2).all({dim}, keepdim={keep}).float()",
)
_FOLDS_OF_SOME = (
    "{}.amax({dim}, keepdim={keep})",
    "{}.amin({dim}, keepdim={keep})",
    "{}.var({dim}, correction=0, keepdim={keep})",
    "{}.argmax({dim}, keepdim={keep}).float()",
    "{}.max({dim}, keepdim={keep})[0]",
)


@dataclass
class Function:
    """A random function.

    Attributes:
        seed: what it is made of.
        text: the function, in Python.
    """

    seed: int
    text: str = ""
    shapes: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self._random = random
        extents = [
            random.choice((0, 1, 2, 3, 5))
            if random.random() < 0.25
            else random.choice((1, 2, 3, 4, 6))
            for _ in range(3)
        ]
        self._known: dict[str, tuple[int, ...]] = {}
        self._lines: list[str] = []
        for _ in range(random.randint(1, 3)):
            rank = random.randint(0, 3)
            shape = tuple(
                1 if random.random() < 0.15 else e for e in extents[3 - rank :]
            )
            self._known[f"x{len(self.shapes)}"] = shape
            self.shapes.append(shape)
        # Arguments that are written to want no gradient.
        self.written = {name for name in self._known if random.random() < 0.2}
        self.wanted = {
            name
            for name in self._known
            if name not in self.written and random.random() < 0.6
        }
        for _ in range(random.randint(3, 9)):
            self._step()
        names = list(self._known)
        results = random.sample(names, min(len(names), random.randint(1, 3)))
        results.append(names[-1])
        given = ", ".join(f"x{k}" for k in range(len(self.shapes)))
        self.text = f"def function({given}):\n" + "".join(
            f"    {line}\n" for line in [*self._lines, f"return {', '.join(results)},"]
        )

    def _new(self, text: str, shape: tuple[int, ...]) -> None:
        name = f"v{len(self._lines)}"
        self._lines.append(f"{name} = {text}")
        self._known[name] = shape

    def _step(self) -> None:
        random = self._random
        name = random.choice(list(self._known))
        shape = self._known[name]
        kind = random.random()
        if kind < 0.25:
            self._new(random.choice(_UNARY).format(name), shape)
        elif kind < 0.45:
            others = [
                (n, s) for n, s in self._known.items() if _common(shape, s) is not None
            ]
            other, given = random.choice(others)
            text = random.choice(_BINARY)
            found = _common(shape, given)
            assert found is not None
            if "masked_fill" in text and found != shape:
                text = "{} + {}"
            self._new(text.format(name, other), found)
        elif kind < 0.65 and shape:
            dim = random.randrange(-len(shape), len(shape))
            axis = dim % len(shape)
            keep = random.random() < 0.5
            texts = _FOLDS + (_FOLDS_OF_SOME if shape[axis] and 0 not in shape else ())
            text = random.choice(texts)
            is_row = "softmax" in text
            after = [1 if k == axis else e for k, e in enumerate(shape)]
            if not keep:
                after.pop(axis)
            made = text.format(name, dim=dim, keep=keep)
            self._new(made, shape if is_row else tuple(after))
        elif kind < 0.9:
            self._view(name, shape)
        else:
            self._write(name, shape)

    def _view(self, name: str, shape: tuple[int, ...]) -> None:
        random, rank = self._random, len(shape)
        kind = random.randrange(9)
        axis = random.randrange(rank) if rank else 0
        if kind == 0 and rank > 1:
            other = random.randrange(rank)
            after = list(shape)
            after[axis], after[other] = after[other], after[axis]
            self._new(f"{name}.transpose({axis}, {other})", tuple(after))
        elif kind == 1:
            place = random.randint(0, rank)
            self._new(f"{name}.unsqueeze({place})", (*shape[:place], 1, *shape[place:]))
        elif kind == 2 and rank:
            size = 1
            for e in shape:
                size *= e
            self._new(f"{name}.reshape({size})", (size,))
        elif kind == 3 and rank and shape[axis] > 1:
            start = random.randint(0, shape[axis] - 1)
            end = random.randint(start, shape[axis])
            index = ", ".join([":"] * axis + [f"{start}:{end}"])
            after = (*shape[:axis], end - start, *shape[axis + 1 :])
            self._new(f"{name}[{index}]", after)
        elif kind == 4 and rank:
            self._new(f"{name}.flip({axis})", shape)
        elif kind == 5 and rank:
            after = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
            self._new(f"torch.cat([{name}, {name} * 2], {axis})", after)
        elif kind == 6 and rank and shape[axis]:
            place = random.randrange(-shape[axis], shape[axis])
            self._new(
                f"{name}.select({axis}, {place})", shape[:axis] + shape[axis + 1 :]
            )
        elif kind == 7:
            count = random.choice((1, 2, 3))
            sizes = ", ".join(map(str, (count, *shape)))
            self._new(f"{name}.expand({sizes}) + 1", (count, *shape))
        elif kind == 8 and rank and shape[axis]:
            places = [random.randrange(shape[axis]) for _ in range(3)]
            after = (*shape[:axis], 3, *shape[axis + 1 :])
            self._new(f"{name}.index_select({axis}, torch.tensor({places}))", after)
        else:
            self._new(f"{name} + 1", shape)

    def _write(self, name: str, shape: tuple[int, ...]) -> None:
        random = self._random
        if name in self.wanted or (name.startswith("x") and name not in self.written):
            self._new(f"{name} * 2", shape)
            return
        if name.startswith("v"):
            # What is written to is of its own, and in no other value's gradient.
            self._new(f"{name}.clone()", shape)
            name = list(self._known)[-1]
        if shape and shape[0] > 1 and random.random() < 0.5:
            self._lines.append(f"{name}[1:].mul_(0.5)")
        else:
            operation = random.choice(("add_(1)", "mul_(2)", "neg_()", "tanh_()"))
            self._lines.append(f"{name}.{operation}")

    def function(self) -> Any:
        """The function."""
        scope: dict[str, Any] = {"torch": torch}
        exec(self.text, scope)
        return scope["function"]

    def arguments(self) -> list[Tensor]:
        """Arguments, the same each time."""
        random = Random(self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        result: list[Tensor] = []
        for place, shape in enumerate(self.shapes):
            kind = random.random()
            if kind < 0.25 and len(shape) > 1:
                turned = torch.randn(shape[::-1], generator=generator)
                given = turned.permute(*reversed(range(len(shape))))
            elif kind < 0.5 and shape:
                wide = (*shape[:-1], 2 * shape[-1] + 1)
                given = torch.randn(wide, generator=generator)[..., 1 : 1 + shape[-1]]
            else:
                given = torch.randn(shape, generator=generator)
            result.append(given.requires_grad_(f"x{place}" in self.wanted))
        return result


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        return None


def _outcome(call: Any, arguments: Sequence[Tensor]) -> tuple[Any, ...]:
    """Results, gradients, arguments afterwards, and what shares memory."""
    results = list(call(*arguments))
    wanted = [each for each in arguments if each.requires_grad]
    total: Any = None
    for place, each in enumerate(results):
        if each.requires_grad:
            part = (each.double() * (place + 0.5)).sin().sum()
            total = part if total is None else total + part
    gradients: list[Any] = []
    if total is not None:
        gradients = list(torch.autograd.grad(total, wanted, allow_unused=True))
    shared = [
        [
            bool(each.numel() and each.data_ptr() == other.data_ptr())
            for other in (*arguments, *results)
        ]
        for each in results
    ]
    return results, gradients, [each.detach() for each in arguments], shared


def difference(seed: int, dynamic: bool, everything: bool = False) -> str | None:
    """What is different under moa, for the function of a seed; None if nothing is."""
    made = Function(seed)
    torch._dynamo.reset()
    report(clear=True)
    try:
        expected = _outcome(made.function(), made.arguments())
    except (RuntimeError, IndexError) as error:
        return None if "moa" not in str(error) else str(error)
    options: Any = {"everything": True, "products": "moa"} if everything else {}
    try:
        compiled: Any = torch.compile(
            made.function(), backend=backend, dynamic=dynamic, options=options
        )
        found = _outcome(compiled, made.arguments())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for graph in report():
        for operators, reason in graph.failed:
            return f"not compiled: {', '.join(operators)}: {reason}"
    if found[3] != expected[3]:
        return "other results share memory"
    names = ("result", "gradient", "argument")
    for name, mine, theirs in zip(names, found, expected, strict=False):
        for place, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if (a is None) != (b is None):
                return f"{name} {place}: None on one side"
            if a is None:
                continue
            try:
                torch.testing.assert_close(
                    a, b, equal_nan=True, rtol=2e-5, atol=2e-5, check_stride=False
                )
            except AssertionError as error:
                return f"{name} {place}: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare random functions; 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="how many functions")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    status = 0
    for seed in range(given.first, given.first + given.count):
        found = difference(seed, dynamic=seed % 2 == 1, everything=seed % 4 > 1)
        if found is not None:
            status = 1
            print(f"{seed}: {found}\n{Function(seed).text}", flush=True)
    print(f"{given.count} functions", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
