"""How a sweep walks over all orders of the window: which page to ask for next, and when it has seen them all.

Pure. Pages shift and the window slides while they are read, so the walk goes by key: ascending `created`,
each page from just before the last row of the one before. The overlap of a millisecond makes it irrelevant
whether the upstream's `from` includes its own moment. Parameters may be ignored without an error, so order
is verified; if it does not hold, the walk reads page after page by number instead.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

_SPARE_PAGES: Final = 50
_PAGES_WHEN_UNKNOWN: Final = 2000
_STALE_PAGES: Final = 5


class Row(NamedTuple):
    """What the walk needs to know of an order."""

    houdini_id: str
    created: str | None


class Walk:
    """One sweep's way through the pages.

    Attributes:
        done: whether there is nothing more to ask for.
        by_number: whether it fell back to page numbers because the order of rows could not be trusted.
        problem: why it may not have seen everything, None when it has.
        shown: ids of all orders seen.
    """

    def __init__(self, page_size: int) -> None:
        self.done = False
        self.by_number = False
        self.problem: str | None = None
        self.shown: set[str] = set()
        self._page_size = page_size
        self._page = 1
        self._from_ms: int | None = None
        self._received = 0
        self._asked = 0
        self._budget: int | None = None
        self._expected = 0
        self._stale = 0
        self._numbered: set[str] = set()

    def query(self) -> dict[str, str | int]:
        """The query of the next request."""
        query: dict[str, str | int] = {
            "page": self._page,
            "pageSize": self._page_size,
            "sortBy": "created",
            "sortOrder": "asc",
        }
        if self._from_ms is not None:
            query["from"] = iso_ms(self._from_ms)
        return query

    def feed(self, rows: Sequence[Row], total: int | None) -> list[int]:
        """Take the answer to `query()`; returns the positions of rows not shown before.

        Args:
            rows: the page's orders, in its order.
            total: how many orders the answer says match the query, None when it does not say.
        """
        self._spend(len(rows), total)
        fresh = []
        for position, row in enumerate(rows):
            if row.houdini_id not in self.shown:
                self.shown.add(row.houdini_id)
                fresh.append(position)
        if self.by_number:
            self._go_by_number(rows, total)
        else:
            self._go_by_key(rows, total, bool(fresh))
        if not self.done and self._budget is not None and self._asked >= self._budget:
            self._stop(f"gave up after {self._asked} pages")
        return fresh

    def _go_by_key(self, rows: Sequence[Row], total: int | None, any_fresh: bool) -> None:
        if not rows:
            self._end_by_key()
            return
        moments = [moment for row in rows if (moment := created_ms(row.created)) is not None]
        if not self._in_order(moments, len(rows)):
            self._fall_back()
            return
        self._received += len(rows)
        self._stale = 0 if any_fresh or self._page == 1 else self._stale + 1
        reached = moments[-1] - 1
        if self._has_all(len(rows), total):
            self._end_by_key()
        elif self._stale >= _STALE_PAGES:
            self._stop("pages repeat themselves")
        elif self._from_ms is None or reached > self._from_ms:
            self._from_ms, self._page, self._received = reached, 1, 0
        else:
            self._page += 1

    def _go_by_number(self, rows: Sequence[Row], total: int | None) -> None:
        known = len(self._numbered)
        self._numbered.update(row.houdini_id for row in rows)
        self._received += len(rows)
        if not rows or len(self._numbered) == known:
            short = bool(rows) and total is not None and len(self._numbered) < total
            self._stop("pages repeat themselves" if short else None)
        elif self._has_all(len(rows), total):
            self._stop(None)
        else:
            self._page += 1

    def _in_order(self, moments: list[int], expected: int) -> bool:
        after_from = self._from_ms is None or (bool(moments) and moments[0] >= self._from_ms)
        return len(moments) == expected and moments == sorted(moments) and after_from

    def _has_all(self, count: int, total: int | None) -> bool:
        return count < self._page_size and total is not None and self._received >= total

    def _end_by_key(self) -> None:
        # Ascending reading shows the oldest first, so what leaves the window meanwhile was shown already: fewer
        # orders than the first answer counted means that rows were hidden behind `from` by a wrong order.
        if len(self.shown) < self._expected:
            self._fall_back()
        else:
            self._stop(None)

    def _fall_back(self) -> None:
        self.by_number = True
        self._page, self._from_ms, self._received = 1, None, 0

    def _spend(self, count: int, total: int | None) -> None:
        self._asked += 1
        if self._budget is None:
            pages = -(-total // count) if total is not None and count else _PAGES_WHEN_UNKNOWN
            self._expected = total or 0
            self._budget = min(2 * pages, _PAGES_WHEN_UNKNOWN) + _SPARE_PAGES

    def _stop(self, problem: str | None) -> None:
        self.done = True
        self.problem = problem


def created_ms(created: str | None) -> int | None:
    """An ISO 8601 text as milliseconds since the epoch (UTC where it names no zone), None if it is none."""
    if created is None:
        return None
    try:
        moment = datetime.fromisoformat(created)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000 // 1)
    except (ValueError, OverflowError):
        return None


def iso_ms(wall_ms: int) -> str:
    """Milliseconds since the epoch in the spelling that the upstream itself uses."""
    moment = datetime.fromtimestamp(wall_ms // 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{wall_ms % 1000:03d}Z"
