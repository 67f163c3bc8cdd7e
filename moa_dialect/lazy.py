"""Modules that take long to load and that most programs have no use for.

`from moa_dialect.lazy import sympy as sp` in the place of `import sympy as sp`: loaded
when something of it is first used, which is to be in a function.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Lazy(ModuleType):
    """A module that is loaded for its first attribute."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import sympy
else:
    sympy = _Lazy("sympy")

__all__ = ["sympy"]
