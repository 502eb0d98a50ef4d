"""What may be looked at, by kind: the same documents whether the relay answers or a stopped one's store is read."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from relay.admin.answers import ApiError
from relay.admin.paging import cursor_text, read_list
from relay.admin.questions import path_id
from relay.admin.shapes import (
    Shape,
    attempt_shape,
    delivery_shape,
    event_shape,
    held_shape,
    order_shape,
    page_shape,
    target_shape,
    whole_event_shape,
)
from relay.board import Board, TargetBoard
from relay.config import TargetSettings
from relay.store.reads import DeliveryRow, Filter, Reads
from relay.store.values import Backlog

EVENTS_OF_ORDER: Final = 50
"""An order's last events that its life shows."""
ATTEMPTS_OF_DELIVERY: Final = 100
ATTEMPTS_IN_LIFE: Final = 10
"""The last attempts that are shown of a delivery, alone and in the life of its order."""


class Source(Reads, Protocol):
    """What is looked at: a store, running or not."""

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every target still has to get."""
        ...


class Views:
    """Documents by kind; `LISTS` and `SINGLES` are the kinds there are."""

    LISTS: Final = ("targets", "events", "deliveries")
    SINGLES: Final = ("events", "deliveries", "orders")

    def __init__(
        self, source: Source, targets: Callable[[], Sequence[TargetSettings]], board: Board, now_ms: Callable[[], int]
    ) -> None:
        self._source = source
        self._targets = targets
        self._board = board
        self._now_ms = now_ms
        self._lists = {"targets": self._list_targets, "events": self._list_events, "deliveries": self._list_deliveries}
        self._singles: Mapping[str, Callable[[str], Awaitable[Shape | None]]] = {
            "events": self._event,
            "deliveries": self._delivery,
            "orders": self._order,
        }

    async def page(self, kind: str, asked: Mapping[str, str]) -> Shape:
        """One page, newest first.

        Raises:
            ApiError: a parameter is unknown or cannot be used.
        """
        return await self._lists[kind](asked)

    async def single(self, kind: str, key: str) -> Shape:
        """One of them with all that belongs to it.

        Raises:
            ApiError: there is none of this id.
        """
        found = await self._singles[kind](key)
        if found is None:
            word = {"events": "event", "deliveries": "delivery", "orders": "order"}[kind]
            raise ApiError(404, f"unknown_{word}", f"there is no {word} of this id here")
        return found

    async def _list_targets(self, asked: Mapping[str, str]) -> Shape:
        if asked:
            raise ApiError(400, "bad_query", "this list takes no parameters: it always has every target")
        backlog = await self._source.backlog()
        # Redacting a URL reads it anew, and it may lie in a file.
        urls = await asyncio.to_thread(lambda: {one.name: one.url_redacted for one in self._targets()})
        names = [*(name for name in urls if name in backlog), *sorted(set(backlog) - set(urls))]
        return page_shape([self._target(name, urls.get(name), backlog[name]) for name in names], None)

    def _target(self, name: str, url: str | None, backlog: Backlog) -> Shape:
        there = self._board.targets.get(name, TargetBoard())
        return target_shape(name, url, backlog, self._now_ms(), probing=there.probing, in_flight=there.in_flight)

    async def _list_events(self, asked: Mapping[str, str]) -> Shape:
        question = read_list(asked, "e", self._now_ms())
        page = await self._source.list_events(question.only, question.cursor, question.limit)
        return page_shape([event_shape(row) for row in page.items], cursor_text(page.next, "e"))

    async def _list_deliveries(self, asked: Mapping[str, str]) -> Shape:
        question = read_list(asked, "d", self._now_ms())
        page = await self._source.list_deliveries(question.only, question.cursor, question.limit)
        return page_shape([delivery_shape(row) for row in page.items], cursor_text(page.next, "d"))

    async def _event(self, webhook_id: str) -> Shape | None:
        row = await self._source.event(webhook_id)
        if row is None:
            return None
        return whole_event_shape(row, await self._source.deliveries_of_event(webhook_id))

    async def _delivery(self, key: str) -> Shape | None:
        delivery_id = path_id(key)
        row = None if delivery_id is None else await self._source.delivery(delivery_id)
        if row is None:
            return None
        backlog = await self._source.backlog()
        return await self._whole(row, backlog, ATTEMPTS_OF_DELIVERY)

    async def _order(self, houdini_id: str) -> Shape | None:
        row = await self._source.order(houdini_id)
        if row is None:
            return None
        page = await self._source.list_events(Filter(order=houdini_id), None, EVENTS_OF_ORDER)
        backlog = await self._source.backlog()
        life = []
        for event in reversed(page.items):
            deliveries = [
                await self._whole(one, backlog, ATTEMPTS_IN_LIFE)
                for one in await self._source.deliveries_of_event(event.event.webhook_id)
            ]
            life.append(event_shape(event) | {"deliveries": deliveries})
        return order_shape(row) | {"life": life, "life_is_whole": page.next is None}

    async def _whole(self, row: DeliveryRow, backlog: Mapping[str, Backlog], most: int) -> Shape:
        kept = backlog.get(row.target)
        held = held_shape(row, None if kept is None else kept.standing, self._now_ms())
        return delivery_shape(row) | held | {"attempts": await self._attempts(row.id, most)}

    async def _attempts(self, delivery_id: int, most: int) -> list[Shape]:
        return [attempt_shape(one) for one in await self._source.attempts(delivery_id, most)]
