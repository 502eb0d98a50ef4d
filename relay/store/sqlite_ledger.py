"""The part of the SQLite store beside the queue: orders, deliveries by order, questions, gaps, remembered values."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from relay.model import KnownOrder
from relay.store.rows import delivery_of_order_from_row, order_from_row, question_from_row
from relay.store.sqlite_verbs import SQL, Verbs
from relay.store.values import DeliveryOfOrder, Gap, OpenOrder, Question


class Ledger(Verbs):
    """Verbs that read or write single facts; each is one small transaction."""

    async def known_orders(self, houdini_ids: Collection[str]) -> Mapping[str, KnownOrder]:
        """The projections of those of these orders that are known."""
        bound = {"ids": json.dumps(list(houdini_ids))}
        return await self._run(lambda connection: read_known_orders(connection, bound))

    async def order_deliveries(self, houdini_ids: Collection[str]) -> Sequence[DeliveryOfOrder]:
        """Every delivery of these orders' events, in the order of events, targets and replays."""
        bound = {"ids": json.dumps(list(houdini_ids))}
        return await self._run(
            lambda connection: [
                delivery_of_order_from_row(row) for row in connection.execute(SQL["order_deliveries"], bound)
            ]
        )

    async def open_orders(self, limit: int) -> Sequence[OpenOrder]:
        """Known orders in a status that is not terminal, oldest first."""
        return await self._run(
            lambda connection: [OpenOrder(*row) for row in connection.execute(SQL["open_orders"], (limit,))]
        )

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        """Questions that may be asked now, longest due first."""
        bound = {"now": now_ms, "limit": limit}
        return await self._run(
            lambda connection: [question_from_row(row) for row in connection.execute(SQL["due_questions"], bound)]
        )

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        """Ask again later; returns how often it was asked without a definite answer, 0 if it is gone."""
        bound = {"houdini_id": houdini_id, "ask_at_ms": ask_at_ms}
        row = await self._run(lambda connection: connection.execute(SQL["postpone_question"], bound).fetchall())
        return int(row[0][0]) if row else 0

    async def end_question(self, houdini_id: str) -> None:
        """Forget an order's question."""
        await self._run(
            lambda connection: connection.execute(SQL["delete_questions"], (json.dumps([houdini_id]),)).rowcount
        )

    async def count_questions(self) -> int:
        """How many questions are open."""
        return await self._run(lambda connection: int(connection.execute(SQL["count_questions"]).fetchone()[0]))

    async def meta_get(self, key: str) -> str | None:
        """A remembered value, None when there is none."""
        row = await self._run(lambda connection: connection.execute(SQL["meta_get"], (key,)).fetchone())
        return None if row is None else str(row[0])

    async def meta_set(self, key: str, value: str) -> None:
        """Remember a value."""
        await self._run(lambda connection: connection.execute(SQL["meta_set"], (key, value)).rowcount)

    async def note_hidden(self, houdini_id: str, now_ms: int, spacing_ms: int, limit: int) -> bool:
        """Count a definitive 404 for a known order; True once it has aged out."""
        bound = {"houdini_id": houdini_id, "now": now_ms, "spacing": spacing_ms, "limit": limit}
        rows = await self._run(lambda connection: connection.execute(SQL["note_hidden"], bound).fetchall())
        return bool(rows and rows[0][0])

    async def ended_orders(self, houdini_ids: Collection[str], terminal_before_ms: int) -> set[str]:
        """Those of these orders that were terminal before that moment and still are."""
        bound = {"ids": json.dumps(list(houdini_ids)), "terminal_before": terminal_before_ms}
        return await self._run(lambda connection: {row[0] for row in connection.execute(SQL["ended_orders"], bound)})

    async def aged_out_orders(self, houdini_ids: Collection[str]) -> set[str]:
        """Those of these orders that have aged out."""
        bound = {"ids": json.dumps(list(houdini_ids))}
        return await self._run(lambda connection: {row[0] for row in connection.execute(SQL["aged_out_orders"], bound)})

    async def begin_gap(self, from_ms: int, cause: str) -> None:
        """Record that there is no subscription; while a gap is open this does nothing."""
        bound = {"from_ms": from_ms, "cause": cause}
        await self._run(lambda connection: connection.execute(SQL["begin_gap"], bound).rowcount)

    async def end_gap(self, to_ms: int) -> Gap | None:
        """Record that there is a subscription again; returns the gap that ended, if one was open."""
        rows = await self._run(lambda connection: connection.execute(SQL["end_gap"], {"to_ms": to_ms}).fetchall())
        return Gap(*rows[0]) if rows else None

    async def close_gaps(self, swept_ms: int, closed_by: str) -> int:
        """Record that a sweep has covered every ended gap; returns how many it closed."""
        bound = {"swept_ms": swept_ms, "closed_by": closed_by}
        return await self._run(lambda connection: connection.execute(SQL["close_gaps"], bound).rowcount)

    async def gaps(self, limit: int, at_least_ms: int = 0) -> Sequence[Gap]:
        """Gaps of at least this length, open ones included, newest first."""
        bound = {"limit": limit, "at_least": at_least_ms}
        return await self._run(lambda connection: [Gap(*row) for row in connection.execute(SQL["gaps"], bound)])


def read_known_orders(connection: sqlite3.Connection, bound: Mapping[str, str]) -> dict[str, KnownOrder]:
    """The known ones among the orders whose ids stand in `bound["ids"]`, a JSON list."""
    return {row[0]: order_from_row(row) for row in connection.execute(SQL["known_orders"], bound)}
