"""Programs whose data come in parts: partial states, and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from moa_dialect.errors import MoaError
from moa_dialect.frontend.jit import run_kernel
from moa_dialect.options import Options

State: TypeAlias = tuple[Any, ...]
"""A partial state: its components, arrays."""


class Parts:
    """What a program with one fused cascade comes apart into.

    The axis that the cascade folds may be cut into any number of parts of any lengths,
    0 included, on any machines. `state` is called for each part; `merge` puts two
    states together, in any order and by any tree; `finish` gives the results:

        parts.finish(parts.merge(parts.state(q, k1, v1), parts.state(q, k2, v2)))

    is `attention(q, k, v)` for k and v of two parts each, up to rounding. A state is a
    tuple of arrays, `components` by name.
    """

    def __init__(
        self,
        program: ModuleOp,
        entry: str,
        copy: bool | None,
        deterministic: bool = False,
    ) -> None:
        self._program = program
        self._deterministic = deterministic
        self._entry = entry
        self._copy = copy
        self._kernels: dict[str, Any] = {}
        self._functions = {
            op.sym_name.data: op
            for op in self.module("fused").ops
            if isinstance(op, FuncOp)
        }

    def module(self, stage: str) -> ModuleOp:
        """The module of the program and its parts at a stage from `fused` to `target`.

        Raises:
            MoaError: for another stage.
        """
        from moa_dialect.lowering.pipelines import lower_to

        if stage not in (stages := ("fused", "onf", "target")):
            raise MoaError(
                f"parts: unknown stage: expected one of {', '.join(stages)}, "
                f"got {stage}"
            )
        module = self._program.clone()
        lower_to(
            module,
            stage,
            Context(),
            Options(deterministic=self._deterministic),
            parts=True,
        )
        return module

    def notation(self, ascii: bool = False) -> str:
        """The program and its parts in MoA notation, at the stage `fused`."""
        from moa_dialect.notation import notation

        return notation(self.module("fused"), ascii=ascii)

    @cached_property
    def _target(self) -> ModuleOp:
        return self.module("target")

    def _names(self, part: str) -> list[str]:
        function = self._functions[f"{self._entry}.{part}"]
        args = function.body.block.args
        return [arg.name_hint or f"arg{arg.index}" for arg in args]

    @cached_property
    def components(self) -> tuple[str, ...]:
        """The names of a state's arrays."""
        state = self._functions[f"{self._entry}.state"]
        return tuple(self._names("finish")[: len(state.function_type.outputs)])

    def arguments(self, part: str) -> tuple[str, ...]:
        """The names of the program's arguments that one of the functions takes.

        Args:
            part: `state`, `identity`, `merge` or `finish`.

        Raises:
            MoaError: for any other.
        """
        states = {"state": 0, "identity": 0, "merge": 2, "finish": 1}
        if part not in states:
            raise MoaError(f"parts: expected one of {', '.join(states)}, got {part}")
        names = self._names(part)[states[part] * len(self.components) :]
        return tuple(names[: self._argument_count] if part == "state" else names)

    @property
    def _argument_count(self) -> int:
        return len(self._functions[self._entry].function_type.inputs)

    @property
    def needs_offset(self) -> bool:
        """Whether a state depends on where its part begins, as for a causal mask."""
        return len(self._names("state")) > self._argument_count

    def kernel(self, part: str) -> Any:
        """The compiled kernel of `state`, `identity`, `merge` or `finish`."""
        from moa_dialect.lowering.engine import compile_alone

        if part not in self._kernels:
            entry = f"{self._entry}.{part}"
            self._kernels[part] = compile_alone(self._target, entry)
        return self._kernels[part]

    def _run(self, part: str, arrays: Sequence[Any]) -> Any:
        return run_kernel(self.kernel(part), arrays, self._copy)

    def _checked(self, state: State) -> State:
        if len(state) != len(self.components):
            raise MoaError(
                f"parts: expected a state of {len(self.components)} arrays "
                f"({', '.join(self.components)}), got {len(state)}"
            )
        return state

    def state(self, *arrays: Any, offset: int = 0) -> State:
        """The state of a part.

        Args:
            arrays: the arguments of the program. Those along the folded axis are parts:
                all as long as each other, of any length.
            offset: where the part begins in the whole. It makes a difference only where
                a program asks for places, as a causal mask does.

        Raises:
            MoaError: as for the program; ShapeError for parts of different lengths.
        """
        if self.needs_offset:
            arrays = (*arrays, np.asarray(offset, np.int64))
        return tuple(self._run("state", arrays))

    def identity(self, *arrays: Any) -> State:
        """The state of no index, in the shapes that go with these arguments.

        The elements of the arrays are not read.
        """
        return tuple(self._run("identity", arrays))

    def merge(self, a: State, b: State, *arrays: Any) -> State:
        """The state of two parts together.

        Args:
            a: the state of one part.
            b: that of another, no index of which is in the first.
            arrays: the arguments that `arguments("merge")` names; most often none.

        Raises:
            MoaError: for a state with the wrong number of arrays; ShapeError for states
                of different shapes.
        """
        return tuple(
            self._run("merge", (*self._checked(a), *self._checked(b), *arrays))
        )

    def finish(self, state: State, *arrays: Any) -> Any:
        """The results of the program, from the state of all parts.

        Args:
            state: the state.
            arrays: the arguments that `arguments("finish")` names. Where each cell of
                the result needs the argument at its own index only, as in a softmax, a
                part along the folded axis gives the same part of the result.

        Raises:
            MoaError: for a state with the wrong number of arrays; ShapeError for
                arguments that do not fit.
        """
        return self._run("finish", (*self._checked(state), *arrays))
