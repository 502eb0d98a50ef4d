"""Many rows with one statement: how they are split, and that each statement stays the same string."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.factories import event

from relay.store.migrate import migrate_sqlite
from relay.store.rows import event_to_row
from relay.store.sqlite_rows import BYTES, ROWS, Repeated, repeated, write_rows
from relay.store.values import PlannedEvent

COLUMNS = 10


class Counting(sqlite3.Connection):
    """Notes how many values each statement is given."""

    values: list[int]

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        self.values.append(len(parameters))
        return super().execute(sql, parameters)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Counting]:
    Counting.values = []
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None, factory=Counting)) as opened:
        migrate_sqlite(opened)
        yield opened


def written(connection: Counting, sizes: list[int]) -> list[int]:
    """The rows of each statement that writes events with bodies of these sizes."""
    rows = [event_to_row(PlannedEvent(event(f"o{n}", body=b"x" * size), ())) for n, size in enumerate(sizes)]
    connection.values.clear()
    found = write_rows(connection, "insert_events", rows)
    assert [webhook_id for webhook_id, _ in found] == [row["webhook_id"] for row in rows]
    assert [number for _, number in found] == list(range(1, len(sizes) + 1))
    return [count // COLUMNS for count in connection.values]


@pytest.mark.parametrize(
    ("sizes", "statements"),
    [
        ([], []),
        ([10] * 3, [3]),
        ([10] * ROWS, [ROWS]),
        ([10] * (2 * ROWS + 1), [ROWS, ROWS, 1]),
        ([BYTES, 1, BYTES - 1, 1], [1, 2, 1]),
        ([BYTES + 1] * 3, [1, 1, 1]),
        ([BYTES // 4] * 9, [4, 4, 1]),
    ],
)
def test_a_statement_ends_at_so_many_rows_or_bytes(connection: Counting, sizes: list[int], statements: list[int]):
    """Compiled, it keeps what was last bound to it: orders of a megabyte may not stay for each number of rows."""
    assert written(connection, sizes) == statements


def test_the_driver_knows_a_statement_again():
    assert repeated("finish").text(3) is repeated("finish").text(3)
    assert repeated("finish").text(2).count("(?, ?, ?, ?, ?, ?, ?)") == 2


def test_parameters_stand_in_their_order_whatever_is_around_the_rows():
    one = Repeated("WITH r(a, b) AS (VALUES (:a, :b)) UPDATE t SET x = :now FROM r WHERE r.a = t.a AND t.y < :now")
    assert one.values([{"a": 1, "b": 2}, {"b": 4, "a": 3, "c": 9}], {"now": 5}) == [1, 2, 3, 4, 5, 5]
    assert one.text(2).count("?") == 6


@pytest.mark.parametrize("text", ["SELECT 1", "INSERT INTO t VALUES (?)", "INSERT INTO t VALUES (:one)"])
def test_a_statement_without_rows_is_refused(text: str):
    with pytest.raises(ValueError, match="no VALUES to repeat"):
        Repeated(text)
