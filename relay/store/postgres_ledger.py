"""The part of the PostgreSQL store beside the queue: orders, questions, gaps, remembered values."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from relay.model import KnownOrder
from relay.store.postgres_link import Row, Session
from relay.store.postgres_verbs import Verbs
from relay.store.rows import delivery_of_order_from_row, order_from_row, question_from_row
from relay.store.values import DeliveryOfOrder, Gap, OpenOrder, Question


class Ledger(Verbs):
    """Verbs that read or write single facts; each is one small transaction."""

    async def known_orders(self, houdini_ids: Collection[str]) -> Mapping[str, KnownOrder]:
        """The projections of those of these orders that are known."""
        return await self._run(lambda session: read_known_orders(session, houdini_ids))

    async def order_deliveries(self, houdini_ids: Collection[str]) -> Sequence[DeliveryOfOrder]:
        """Every delivery of these orders' events, in the order of events, targets and replays."""
        rows = await self._rows("order_deliveries", {"ids": list(houdini_ids)})
        return [delivery_of_order_from_row(row) for row in rows]

    async def open_orders(self, limit: int) -> Sequence[OpenOrder]:
        """Known orders in a status that is not terminal, oldest first."""
        return [OpenOrder(*row) for row in await self._rows("open_orders", {"limit": limit})]

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        """Questions that may be asked now, longest due first."""
        return [question_from_row(row) for row in await self._rows("due_questions", {"now": now_ms, "limit": limit})]

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        """Ask again later; returns how often it was asked without a definite answer, 0 if it is gone."""
        rows = await self._rows("postpone_question", {"houdini_id": houdini_id, "ask_at_ms": ask_at_ms})
        return int(rows[0][0]) if rows else 0

    async def end_question(self, houdini_id: str) -> None:
        """Forget an order's question."""
        await self._run(lambda session: session.run("delete_questions", {"ids": [houdini_id]}))

    async def count_questions(self) -> int:
        """How many questions are open."""
        return int((await self._rows("count_questions", {}))[0][0])

    async def meta_get(self, key: str) -> str | None:
        """A remembered value, None when there is none."""
        rows = await self._rows("meta_get", {"key": key})
        return str(rows[0][0]) if rows else None

    async def meta_set(self, key: str, value: str) -> None:
        """Remember a value."""
        await self._run(lambda session: session.run("meta_set", {"key": key, "value": value}))

    async def note_hidden(self, houdini_id: str, now_ms: int, spacing_ms: int, limit: int) -> bool:
        """Count a definitive 404 for a known order; True once it has aged out."""
        bound = {"houdini_id": houdini_id, "now": now_ms, "spacing": spacing_ms, "limit": limit}
        rows = await self._rows("note_hidden", bound)
        return bool(rows and rows[0][0])

    async def ended_orders(self, houdini_ids: Collection[str], terminal_before_ms: int) -> set[str]:
        """Those of these orders that were terminal before that moment and still are."""
        bound = {"ids": list(houdini_ids), "terminal_before": terminal_before_ms}
        return {row[0] for row in await self._rows("ended_orders", bound)}

    async def aged_out_orders(self, houdini_ids: Collection[str]) -> set[str]:
        """Those of these orders that have aged out."""
        return {row[0] for row in await self._rows("aged_out_orders", {"ids": list(houdini_ids)})}

    async def begin_gap(self, from_ms: int, cause: str) -> None:
        """Record that there is no subscription; while a gap is open this does nothing."""
        await self._run(lambda session: session.run("begin_gap", {"from_ms": from_ms, "cause": cause}))

    async def end_gap(self, to_ms: int) -> Gap | None:
        """Record that there is a subscription again; returns the gap that ended, if one was open."""
        rows = await self._rows("end_gap", {"to_ms": to_ms})
        return Gap(*rows[0]) if rows else None

    async def close_gaps(self, swept_ms: int, closed_by: str) -> int:
        """Record that a sweep has covered every ended gap; returns how many it closed."""
        bound = {"swept_ms": swept_ms, "closed_by": closed_by}
        return await self._run(lambda session: session.run("close_gaps", bound))

    async def gaps(self, limit: int, at_least_ms: int = 0) -> Sequence[Gap]:
        """Gaps of at least this length, open ones included, newest first."""
        return [Gap(*row) for row in await self._rows("gaps", {"limit": limit, "at_least": at_least_ms})]

    async def _rows(self, name: str, bound: Mapping[str, Any]) -> list[Row]:
        return await self._run(lambda session: session.rows(name, bound))


async def read_known_orders(session: Session, houdini_ids: Collection[str]) -> dict[str, KnownOrder]:
    """The known ones among these orders."""
    rows = await session.rows("known_orders", {"ids": list(houdini_ids)}) if houdini_ids else ()
    return {row[0]: order_from_row(row) for row in rows}
