"""`moa-opt`: every option of `xdsl-opt`, with the dialect, passes and targets of moa.

Bad input ends with a message and exit status 1.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any, cast

from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.arg_spec import ArgSpec, ArgSpecConvertible, parse_pipeline, parse_spec
from xdsl.utils.exceptions import DiagnosticException
from xdsl.xdsl_opt_main import xDSLOptMain

from moa_dialect.collector import uncollected
from moa_dialect.diagnostics import (
    BadInputError,
    check_definitions,
    describe,
    place_of,
    reported,
)
from moa_dialect.errors import MoaError
from moa_dialect.parsing import ModuleParser, with_elements
from moa_dialect.universe import MOA_UNIVERSE, register_dialects


def installed_version() -> str:
    """The version of the installed package, or that there is none."""
    try:
        return version("moa-dialect")
    except PackageNotFoundError:
        return "(not installed)"


class MoaOptMain(xDSLOptMain):
    """`xdsl-opt` that knows moa even where moa is not installed."""

    version_format = f"moa-opt {installed_version()} (xdsl {{xdsl_version}})"

    def register_all_dialects(self) -> None:
        """Register the dialects of xDSL, its plug-ins and moa."""
        register_dialects(self.ctx)

    def register_all_frontends(self) -> None:
        """Register the parser of MLIR text."""
        super().register_all_frontends()

        def parse(stream: IO[bytes]) -> ModuleOp:
            source = stream.read()
            if (module := self._read_upstream(source)) is not None:
                return module
            text: Any = source
            if b"dense_resource<" in source:
                name = self.get_input_name()
                text = with_elements(source.decode("utf-8", "replace"), name)
            parser = ModuleParser(self.ctx, text, self.get_input_name())
            return parser.parse_module(not self.args.no_implicit_module)

        self.available_frontends["mlir"] = parse

    def _read_upstream(self, source: bytes) -> ModuleOp | None:
        """The module of a text to be raised, as upstream MLIR reads it.

        Of upstream's operations and their syntax xDSL knows some. None of a text that
        is not raised, or has operations of moa.

        Raises:
            BadInputError: if upstream does not accept it.
        """
        passes = parse_pipeline(self.args.passes or "")
        if not any(spec.name == "moa-raise-linalg" for spec in passes):
            return None
        from moa_dialect.passes.raising.source import (
            annotated_text,
            is_upstream_text,
            parse,
        )

        text = source.decode("utf-8", "replace")
        if not is_upstream_text(text):
            return None
        try:
            return parse(annotated_text(text, self.get_input_name()))
        except MoaError as error:
            raise BadInputError(str(error)) from error

    def register_all_passes(self) -> None:
        """Register the passes of xDSL, its plug-ins and moa."""
        super().register_all_passes()
        for name, factory in MOA_UNIVERSE.all_passes.items():
            self.register_pass(name, factory)

    def register_all_targets(self) -> None:
        """Register the targets of xDSL, its plug-ins and moa."""
        super().register_all_targets()
        self.available_targets |= MOA_UNIVERSE.all_targets

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        """Register the arguments of `xdsl-opt`; usage errors show a short usage."""
        super().register_all_arguments(arg_parser)
        arg_parser.prog = "moa-opt"
        arg_parser.usage = "moa-opt [options] [input_file]"

    def setup_pipeline(self) -> None:
        """Build the pipeline, once every pass and option of it is known to exist."""
        for spec in parse_pipeline(self.args.passes):
            if spec.name not in self.available_passes:
                ours = ", ".join(MOA_UNIVERSE.all_passes)
                raise BadInputError(
                    f"unknown pass {spec.name}: expected {ours} or a pass of xdsl-opt"
                )
            _check_options("pass", spec, self.available_passes[spec.name])
        target = parse_spec(self.args.target)
        factory = self.available_targets[target.name]
        if not inspect.signature(factory).parameters:
            _check_options("target", target, cast(Callable[[], Any], factory))
        super().setup_pipeline()

    def prepare_input(self) -> tuple[list[tuple[IO[bytes], int]], str]:
        """Open the input.

        Raises:
            BadInputError: if nothing here reads files with its extension.
        """
        try:
            return super().prepare_input()
        except ValueError as error:
            raise BadInputError(f"{self.get_input_name()}: {error}") from error

    def parse_chunk(
        self, chunk: IO[bytes], file_extension: str, start_offset: int = 0
    ) -> ModuleOp | None:
        """Parse a piece of the input.

        Raises:
            BadInputError: if it is not text.
            VerifyException: if it uses values where they are not defined.
        """
        try:
            module = super().parse_chunk(chunk, file_extension, start_offset)
        except (ValueError, NotImplementedError) as error:
            raise BadInputError(f"{self.get_input_name()}: {error}") from error
        if module is not None and not self.args.disable_verify:
            check_definitions(module)
        return module

    def apply_passes(self, prog: ModuleOp) -> None:
        """Apply the pipeline; errors of moa are diagnostics like any other.

        Raises:
            DiagnosticException: if a pass does not accept the program.
            BadInputError: the same, with the location that the operation has in the
                input, if it has one.
        """
        try:
            super().apply_passes(prog)
        except (MoaError, DiagnosticException) as error:
            place = place_of(error, prog)
            if place and not self.args.verify_diagnostics:
                raise BadInputError(f"{place}: {describe(error)}") from error
            if isinstance(error, DiagnosticException):
                raise
            raise DiagnosticException(str(error)) from error


def _check_options(
    kind: str, spec: ArgSpec, factory: Callable[[], type[ArgSpecConvertible]]
) -> None:
    try:
        factory().from_spec(spec)
    except ValueError as error:
        raise BadInputError(f"{kind} {spec.name}: {error}") from error
    except ImportError as error:
        raise BadInputError(f"{kind} {spec.name} is unavailable: {error}") from error


def main() -> None:
    """Run `moa-opt` on the command line's arguments."""
    with reported("moa-opt"), uncollected():
        MoaOptMain("The optimiser driver of moa: transforms MLIR text.").run()


if __name__ == "__main__":
    main()
