"""Many rows with one statement of the SQLite store.

The thread that writes shares the interpreter with the event loop, and each statement costs it a few microseconds of
Python and the wait for its turn. Within a statement SQLite needs no interpreter: the event loop goes on beside it.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from relay.store.sqlite_verbs import SQL

ROWS: Final = 32
"""Rows a statement takes at most. Each number up to that is a statement of its own, which stays compiled."""
BYTES: Final = 128 * 1024
"""Bytes of bodies beyond which a statement takes no further row: compiled, it keeps what was last bound to it."""

_ROW: Final = re.compile(r"\bVALUES\s*(\(:[^()]*,[^()]*\))")
_PARAMETER: Final = re.compile(r"(?<!\w):([a-z_]+)\b")


class Repeated:
    """A statement whose `VALUES (...)` is repeated, once a row; parameters outside it are the same for all rows.

    Raises:
        ValueError: it has no `VALUES (...)` of two or more named parameters.
    """

    def __init__(self, text: str) -> None:
        row = _ROW.search(text)
        if row is None:
            raise ValueError(f"this statement has no VALUES to repeat: {text}")
        parts = text[: row.start(1)], row[1], text[row.end(1) :]
        self._before, names, self._after = map(_PARAMETER.findall, parts)
        self._parts = tuple(_PARAMETER.sub("?", part) for part in parts)
        self._pick = itemgetter(*names)
        self._texts: dict[int, str] = {}

    def text(self, rows: int) -> str:
        """The statement for so many rows; always the same string, by which the driver knows it again."""
        if rows not in self._texts:
            head, one, tail = self._parts
            self._texts[rows] = head + ", ".join([one] * rows) + tail
        return self._texts[rows]

    def values(self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> list[Any]:
        """The values of its parameters, in their order."""
        before, after = ([shared[name] for name in names] for names in (self._before, self._after))
        return [*before, *chain.from_iterable(map(self._pick, rows)), *after]


@cache
def repeated(name: str) -> Repeated:
    """A query by its name, to be executed for many rows.

    Raises:
        ValueError: it has no `VALUES (...)` of two or more named parameters.
    """
    return Repeated(SQL[name])


def write_rows(
    connection: sqlite3.Connection, name: str, rows: Sequence[Mapping[str, Any]], **shared: Any
) -> list[tuple[Any, ...]]:
    """Execute a query that has one `VALUES (...)`, for all of these rows; returns what it returns.

    Args:
        connection: in a transaction.
        name: the query's.
        rows: the parameters of that `VALUES`, by name; what else they hold is left out.
        shared: the query's other parameters.
    """
    statement = repeated(name)
    found: list[tuple[Any, ...]] = []
    for part in _parts(rows):
        found += connection.execute(statement.text(len(part)), statement.values(part, shared)).fetchall()
    return found


def _parts(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    start = size = 0
    for place, row in enumerate(rows):
        weight = sum(len(value) for value in row.values() if type(value) is bytes)
        if place > start and (place - start == ROWS or size + weight > BYTES):
            yield rows[start:place]
            start, size = place, 0
        size += weight
    if rows:
        yield rows[start:]
