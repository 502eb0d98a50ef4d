"""The way of a sweep through the pages, against servers that misbehave."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.upstream.walk import Row, Walk, created_ms, iso_ms

Query = dict[str, str | int]
Table = list[tuple[str, int]]
START = 1_795_330_800_000


class Server:
    """Rows of (id, created) behind the list endpoint; switches make it worse."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.queries: list[Query] = []
        self.cap = 100
        self.total = True
        self.inclusive = True
        self.sorts = True
        self.filters = True
        self.pages = True
        self.between: Callable[[int], None] = lambda _: None

    def answer(self, query: Query) -> tuple[list[Row], int | None]:
        self.between(len(self.queries))
        self.queries.append(query)
        rows = sorted(self.table, key=lambda row: row[1]) if self.sorts else list(self.table)
        since = created_ms(str(query["from"])) if "from" in query else None
        if since is not None and self.filters:
            rows = [row for row in rows if row[1] > since - (1 if self.inclusive else 0)]
        size = min(int(query["pageSize"]), self.cap)
        first = (int(query["page"]) - 1) * size if self.pages else 0
        total = len(rows) if self.total else None
        return [Row(key, iso_ms(at)) for key, at in rows[first : first + size]], total


def sweep(server: Server, page_size: int = 10) -> Walk:
    walk = Walk(page_size)
    while not walk.done:
        rows, total = server.answer(walk.query())
        walk.feed(rows, total)
        assert len(server.queries) < 3000
    return walk


def table(count: int, step: int = 1000) -> Table:
    return [(f"o{number}", START + number * step) for number in range(count)]


def ids(rows: Table) -> set[str]:
    return {key for key, _ in rows}


def test_one_short_page_is_one_request() -> None:
    server = Server(table(7))
    walk = sweep(server)
    assert (walk.shown, walk.problem, len(server.queries)) == (ids(server.table), None, 1)
    assert server.queries[0] == {"page": 1, "pageSize": 10, "sortBy": "created", "sortOrder": "asc"}


def test_nothing_there() -> None:
    assert sweep(Server([])).shown == set()


def test_goes_by_key_not_by_page() -> None:
    """56: no page above the first while rows differ in `created`."""
    server = Server(table(95))
    walk = sweep(server)
    assert (walk.shown, walk.problem) == (ids(server.table), None)
    assert {query["page"] for query in server.queries} == {1}
    assert len(server.queries) <= 12


@pytest.mark.parametrize("inclusive", [True, False])
def test_whether_from_includes_its_moment_does_not_matter(inclusive: bool) -> None:
    """60: rows with the timestamp at which a page ends."""
    rows = [(f"o{number}", START + number // 4) for number in range(50)]
    server = Server(rows)
    server.inclusive = inclusive
    assert sweep(server).shown == ids(rows)


def test_a_whole_page_with_one_timestamp_raises_the_page() -> None:
    rows = [(f"o{number}", START) for number in range(35)] + [("last", START + 5000)]
    server = Server(rows)
    walk = sweep(server)
    assert (walk.shown, walk.problem) == (ids(rows), None)
    assert max(int(query["page"]) for query in server.queries) >= 3


def test_a_smaller_page_than_asked_for_is_not_the_end() -> None:
    server = Server(table(60))
    server.cap = 4
    assert sweep(server).shown == ids(server.table)


def test_without_total() -> None:
    for count in (0, 1, 9, 10, 11, 35):
        server = Server(table(count))
        server.total = False
        assert sweep(server).shown == ids(server.table)


def test_rows_that_leave_between_pages_take_no_neighbour_along() -> None:
    """57: the window slides while the sweep goes on."""
    server = Server(table(60))

    def slide(request: int) -> None:
        if request:
            del server.table[:7]

    server.between = slide
    walk = sweep(server)
    assert walk.problem is None
    assert {f"o{number}" for number in range(45, 60)} <= walk.shown


def test_orders_made_during_the_sweep_are_shown_too() -> None:
    server = Server(table(25))
    server.between = lambda request: (
        server.table.append((f"new{request}", START + 10**6 + request)) if request < 5 else None
    )
    assert sweep(server).shown == ids(server.table)


def test_ignored_sort_falls_back_to_page_numbers() -> None:
    rows = table(45)
    random.Random(3).shuffle(rows)
    server = Server(rows)
    server.sorts = False
    walk = sweep(server)
    assert walk.by_number
    assert (walk.shown, walk.problem) == (ids(rows), None)


def test_newest_first_falls_back_too() -> None:
    server = Server(table(45)[::-1])
    server.sorts = False
    assert sweep(server).shown == ids(server.table)


def test_ignored_from_is_noticed() -> None:
    server = Server(table(45))
    server.filters = False
    walk = sweep(server)
    assert walk.by_number
    assert walk.shown == ids(server.table)


def test_ignored_page_ends_with_an_alert() -> None:
    """68: never for ever, never silently."""
    server = Server([(f"o{number}", START) for number in range(45)])
    server.pages = False
    walk = sweep(server)
    assert walk.problem is not None
    assert len(server.queries) < 20
    server = Server(table(45))
    server.pages = server.filters = False
    assert sweep(server).problem is not None


def test_a_server_that_makes_orders_faster_than_we_read_is_given_up() -> None:
    """68."""
    server = Server(table(20))
    server.between = lambda request: server.table.extend(
        (f"n{request}-{n}", START + 10**6 + request * 100 + n) for n in range(30)
    )
    walk = sweep(server)
    assert walk.problem is not None


def test_rows_without_created_are_still_all_shown() -> None:
    walk = Walk(10)
    assert walk.feed([Row("a", None), Row("b", "yesterday")], 2) == [0, 1]
    assert walk.by_number
    walk.feed([Row("a", None), Row("b", "yesterday")], 2)
    assert walk.done


def test_fresh_positions_only() -> None:
    walk = Walk(2)
    assert walk.feed([Row("a", iso_ms(START)), Row("b", iso_ms(START + 5))], 3) == [0, 1]
    assert walk.query()["from"] == iso_ms(START + 4)
    assert walk.feed([Row("b", iso_ms(START + 5)), Row("c", iso_ms(START + 9))], 2) == [1]


def test_created_spellings() -> None:
    """72: one moment, many spellings."""
    spellings = ("2026-07-03T00:16:48.681Z", "2026-07-03T00:16:48.681+00:00", "2026-07-03T02:16:48.681+02:00",
                 "2026-07-03T00:16:48.681", "2026-07-03T00:16:48.681000Z")  # fmt: skip
    assert {created_ms(text) for text in spellings} == {1_783_037_808_681}
    for garbage in ("", "soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", None):
        assert created_ms(garbage) is None or garbage == "0001-01-01T00:00:00+23:59"
    assert iso_ms(1_783_037_808_681) == "2026-07-03T00:16:48.681Z"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=80),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_standing_order_is_shown(
    moments: list[int], size: int, cap: int, total: bool, inclusive: bool, sorts: bool
) -> None:
    """Whatever the timestamps, the page size, the server's own cap, and whatever it leaves out."""
    server = Server([(f"o{number}", START + moment) for number, moment in enumerate(moments)])
    # Without order and without a total there is nothing by which a hidden row could be noticed.
    server.cap, server.total, server.inclusive, server.sorts = cap, total, inclusive, sorts or not total
    walk = sweep(server, size)
    assert (walk.shown, walk.problem) == (ids(server.table), None)
