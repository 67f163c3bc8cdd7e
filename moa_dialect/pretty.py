"""Documents that are laid out within a width, after Wadler's *A prettier printer*.

A document is text with places where a line may end. A group is set on one line if it
fits there; if not, all of its own places become line ends, and the groups inside it are
decided one by one in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Line:
    """A place where a line may end; `flat` is what stands there if it does not."""

    flat: str = " "


@dataclass(frozen=True)
class Break:
    """A line end in any case: every group around it is set on several lines."""


@dataclass(frozen=True)
class Concat:
    """Documents one after the other."""

    parts: tuple[Document, ...]


@dataclass(frozen=True)
class Nest:
    """A document whose lines after the first are indented further."""

    content: Document
    indent: int = 2


@dataclass(frozen=True)
class Group:
    """A document that is set on one line if it fits."""

    content: Document


Document: TypeAlias = str | Line | Break | Concat | Nest | Group

SPACE = Line()
EMPTY = Line("")


def concat(*parts: Document) -> Document:
    """The parts one after the other."""
    return Concat(parts)


def join(separator: Document, parts: Iterable[Document]) -> Document:
    """The parts with a separator between any two."""
    joined: list[Document] = []
    for part in parts:
        joined += [separator, part] if joined else [part]
    return Concat(tuple(joined))


def layout(document: Document, width: int) -> str:
    """The text of a document, on lines of at most `width` characters if possible.

    Lines are indented by half the width at most, so that deep nesting stays readable.

    >>> call = Group(concat("f(", Nest(concat(EMPTY, "a,", SPACE, "b")), EMPTY, ")"))
    >>> print(layout(call, 7))
    f(a, b)
    >>> print(layout(call, 6))
    f(
      a,
      b
    )
    """
    text: list[str] = []
    column = 0
    stack: list[tuple[int, bool, Document]] = [(0, False, document)]
    while stack:
        indent, is_flat, current = stack.pop()
        match current:
            case str():
                text.append(current)
                column += len(current)
            case Line(flat) if is_flat:
                text.append(flat)
                column += len(flat)
            case Line() | Break():
                text.append("\n" + " " * indent)
                column = indent
            case Concat(parts):
                stack += ((indent, is_flat, part) for part in reversed(parts))
            case Nest(content, further):
                deeper = indent + further if indent < width // 2 else indent
                stack.append((deeper, is_flat, content))
            case Group(content):
                fits = is_flat or _fits(content, stack, width - column)
                stack.append((indent, fits, content))
    return "\n".join(line.rstrip() for line in "".join(text).split("\n"))


def _fits(
    content: Document, rest: list[tuple[int, bool, Document]], width: int
) -> bool:
    """Whether `content` on one line, and what follows up to a line end, has room."""
    following = len(rest)
    stack = [(True, content)]
    while width >= 0:
        if not stack:
            if not following:
                return True
            following -= 1
            stack.append(rest[following][1:])
        is_flat, current = stack.pop()
        match current:
            case str():
                width -= len(current)
            case Line(flat) if is_flat:
                width -= len(flat)
            case Line():
                return True
            case Break():
                return not is_flat
            case Concat(parts):
                stack += ((is_flat, part) for part in reversed(parts))
            case Nest(part, _) | Group(part):
                stack.append((is_flat, part))
    return False
