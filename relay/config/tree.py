"""The file as plain values that still know where they stand. Values may be secret, so no `repr` shows one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

REPORTED: Final = ""
"""The flaw of a scalar whose problem has been reported already."""

_SHOWABLE_KEY: Final = re.compile(r"(?!whs[ek])[A-Za-z][A-Za-z0-9_-]{0,39}")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: line and column from 1 (of its key, if it has one) and its path."""

    line: int
    column: int
    path: str

    def below(self, *steps: str | int, line: int | None = None, column: int | None = None) -> "Place":
        """The place of a part of this value, at this value's position unless told otherwise."""
        path = self.path
        for step in steps:
            path = _joined(path, step)
        return Place(line or self.line, column or self.column, path)


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    # A key in the wrong place may be a secret that was pasted one line too high.
    name = step if _SHOWABLE_KEY.fullmatch(step) else "(key)"
    return f"{path}.{name}" if path else name


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value of the file after interpolation.

    Attributes:
        text: its characters.
        plain: whether it stood without quotes, so that `null` means nothing rather than four letters.
        missing: environment variables it needs that are not set.
        flaw: why it cannot be used; `REPORTED` when that was said already.
        empty: environment variables in it that hold nothing.
    """

    text: str = field(repr=False)
    plain: bool
    place: Place
    missing: tuple[str, ...] = ()
    flaw: str | None = None
    empty: tuple[str, ...] = ()

    @property
    def is_null(self) -> bool:
        """Whether it says "nothing"."""
        return self.plain and self.flaw is None and not self.missing and self.text in _NULLS


class Table(dict[str, "Node"]):
    """A mapping of the file, keys in order."""

    def __init__(self, place: Place, entries: Mapping[str, "Node"] | None = None) -> None:
        super().__init__(entries or {})
        self.place = place

    def __repr__(self) -> str:
        return f"Table({self.place.path})"


class Items(list["Node"]):
    """A list of the file."""

    def __init__(self, place: Place, entries: Iterable["Node"] = ()) -> None:
        super().__init__(entries)
        self.place = place

    def __repr__(self) -> str:
        return f"Items({self.place.path})"


Node: TypeAlias = Scalar | Table | Items


def locate(root: Node, steps: tuple[str | int, ...]) -> tuple[Place, Node | None]:
    """The node at the end of `steps`; where it is absent, None and the place of the nearest node above."""
    node = root
    for depth, step in enumerate(steps):
        child: Node | None = None
        if isinstance(node, Table) and isinstance(step, str):
            child = node.get(step)
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node):
            child = node[step]
        if child is None:
            return node.place.below(*steps[depth:]), None
        node = child
    return node.place, node
