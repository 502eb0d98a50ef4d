"""The named statements of the PostgreSQL store, with the names of their parameters. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.store.migrate import load_queries

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)\b")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in the server's notation, `$1` for the first of `names`."""

    text: str
    names: tuple[str, ...]

    def arguments(self, bound: Mapping[str, Any]) -> list[Any]:
        """The values of its parameters in their order."""
        return [storable(bound[name]) for name in self.names]


def statement(text: str) -> Statement:
    """From `:name` to `$n`."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(_PARAMETER.sub(number, text), tuple(names))


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as one list a column, as `unnest` takes them; no column at all without rows."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def storable(value: Any) -> Any:
    """The value as this database can hold it: its text has no NUL, by which nobody means anything."""
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [storable(one) if isinstance(one, str) else one for one in value]
    return value


SQL: Final[Mapping[str, Statement]] = {name: statement(text) for name, text in load_queries("postgres").items()}
