"""The audit's upstream side: simulated REST, the real intake, ingest and store, and a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from admin_kit import target
from support.clock import JumpClock
from support.stores import Bench, delivered
from support.upstream_fakes import backfill_settings, settings

from relay.admin.audit import Auditor
from relay.admin.compare import Kind
from relay.auditing import ATTEMPTS, UpstreamAudit
from relay.board import Board, UpstreamState
from relay.errors import BadCredentials, UpstreamError
from relay.metrics import Metrics
from relay.model import Origin
from relay.simulator.lifecycle import Kind as Route
from relay.simulator.lifecycle import Stage
from relay.simulator.server import SimulatedUpstream
from relay.simulator.world import World
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry
from relay.upstream.backfill import BASELINE_DONE
from relay.upstream.dial import open_rest_session
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake
from relay.upstream.orders_api import OrdersApi
from relay.upstream.protocol import parse_order, snapshot

EXCHANGING, SENDING, FINISHED = (
    Stage(2, "EXCHANGE_IN_PROGRESS", 3),
    Stage(2, "SENDING_TO_RECEIVER", 4),
    Stage(4, "SWAP_COMPLETED", 5),
)
HOUR = 3_600_000


class Room:
    def __init__(self, folder: Path, clock: JumpClock) -> None:
        self.clock = clock
        self.world = World(clock, Random(3))
        self.upstream = SimulatedUpstream(self.world, partner_id="partner", secret="s3cret")
        self.store = SqliteStore(folder / "relay.db", clock.wall_ms, lambda _seconds: None)
        self.bench = Bench(lambda: self.store)
        self.board = Board()
        self.board.upstream.state, self.board.upstream.first_sweep_done = UpstreamState.SUBSCRIBED, True
        self.intake = Intake()
        self.metrics = Metrics("0")

    async def open(self) -> None:
        await self.upstream.start()
        await self.store.open([TargetEntry("alpha")])
        await self.store.meta_set(BASELINE_DONE, "1")
        self.follow("all")
        ingest = Ingest(self.intake, self.store, "partner", lambda _type: ("alpha",), self.metrics, self.clock)
        self.ingesting = asyncio.create_task(self.ingest(ingest))

    async def ingest(self, ingest: Ingest) -> None:
        while True:
            await ingest.run_once()

    def follow(self, orders: Any) -> None:
        config = settings(rest_url=self.upstream.rest_url, orders=orders, backfill=backfill_settings(page_size=2))
        self.api = OrdersApi(config, lambda: open_rest_session("0"), self.clock, self.metrics, timeout=5.0)
        around = (self.store, self.board, self.clock)
        self.source = UpstreamAudit(lambda: config, self.api, lambda: self.intake, *around)
        self.auditor = Auditor(self.source, self.store, lambda: [target("alpha")], self.clock)

    async def close(self) -> None:
        self.ingesting.cancel()
        await asyncio.gather(self.ingesting, return_exceptions=True)
        await self.api.close()
        await self.store.close()
        await self.upstream.stop()

    def order(self, stage: Stage = EXCHANGING) -> Any:
        return self.world.create(Route.CEX, stage, age_ms=HOUR, announce=False)

    async def audit(self, *, repair: bool = False, hours: int = 24) -> list[tuple[str, Kind, bool]]:
        since_ms = self.clock.wall_ms() - hours * HOUR
        report = await self.auditor.run(since_ms, None, repair=repair)
        return [(one.order, one.kind, one.key in report.repaired) for one in report.differences]

    async def acknowledge(self) -> list[int]:
        claimed = await self.bench.claim(now_ms=self.clock.wall_ms())
        await self.bench.settle(*map(delivered, claimed), now_ms=self.clock.wall_ms())
        return [one.event.facts.status for one in claimed if one.event.facts]


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    made = Room(tmp_path, JumpClock())
    await made.open()
    await made.auditor.remember_targets()
    made.clock.move(3 * 3600)
    yield made
    await made.close()


async def test_every_page_is_compared_and_what_is_unknown_is_delivered(room: Room):
    orders = [room.order().houdini_id for _ in range(7)]
    found = await room.audit(repair=True)
    assert sorted(found) == sorted((order, Kind.UNKNOWN_ORDER, True) for order in orders)
    assert await room.acknowledge() == [2] * 7
    assert await room.audit() == []


async def test_only_orders_made_since_then_are_compared(room: Room):
    room.order()
    assert len(await room.audit(hours=2)) == 1
    room.clock.move(2 * 3600)
    assert await room.audit(hours=2) == []
    room.upstream.faults.ignore_sort = True
    assert await room.audit(hours=2) == []


async def test_older_orders_are_not_even_asked_for(room: Room):
    for _ in range(5):
        room.order()
    assert await room.audit(hours=0) == []
    assert room.upstream.state()["rest_requests"] == 1


async def test_an_upstream_that_ignores_from_does_not_widen_the_audit(room: Room):
    room.order()
    list_page = room.api.list_page

    async def without_from(**query: Any) -> Any:
        return await list_page(**{name: value for name, value in query.items() if name != "from"})

    room.api.list_page = without_from  # type: ignore[method-assign] # as the upstream treats unknown parameters
    assert await room.audit(hours=0) == []
    assert len(await room.audit(hours=2)) == 1


async def test_an_answer_about_another_order_is_none(room: Room):
    asked, other = room.order().houdini_id, room.order().houdini_id
    answer = await room.api.get(other)

    async def always(_houdini_id: str) -> Any:
        return answer

    room.api.get = always  # type: ignore[method-assign] # a confused cache
    with pytest.raises(UpstreamError, match="not about the order"):
        await room.source.one(asked)


@pytest.mark.parametrize("stage", [FINISHED, SENDING])
async def test_a_change_that_no_frame_brought_is_delivered(room: Room, stage: Stage):
    """The second is of the same rank, so only a quiet read makes it believed."""
    order = room.order()
    await room.audit(repair=True)
    await room.acknowledge()
    room.clock.move(3600)
    room.world.transition(order, stage)
    slept = len(room.clock.slept)
    assert await room.audit(repair=True) == [(order.houdini_id, Kind.STATUS_DIFFERS, True)]
    assert room.clock.slept[slept:] == [61]
    assert await room.acknowledge() == [stage.status]
    assert await room.audit() == []


async def test_a_lagging_upstream_is_no_difference(room: Room):
    order = room.order()
    await room.audit(repair=True)
    room.clock.move(3600)
    change = room.world.transition(order, FINISHED)
    parsed = parse_order(change.body)
    now = room.clock.mono()
    room.intake.offer(
        snapshot(parsed, change.body, origin=Origin.WEBSOCKET, seen_ms=room.clock.wall_ms(), asked_at=now)
    )
    await room.intake.join()
    assert [await room.acknowledge() for _ in range(2)] == [[2], [4]]
    room.upstream.faults.rest_lag_seconds = 30.0
    slept = len(room.clock.slept)
    assert await room.audit() == []
    assert room.clock.slept[slept:] == [61]


async def test_followed_orders_are_read_by_id(room: Room):
    followed, other = room.order().houdini_id, room.order().houdini_id
    await room.api.close()
    room.follow((followed, "no-such-order"))
    assert await room.audit() == [(followed, Kind.UNKNOWN_ORDER, False)]
    assert await room.audit(hours=0) == []
    assert other != followed


async def test_being_asked_to_wait_is_waited_for(room: Room):
    room.order()
    room.upstream.faults.update({"rest_fault": "throttled", "rest_fault_count": 7, "retry_after": 3})
    assert len(await room.audit()) == 1
    assert [round(seconds) for seconds in room.clock.slept].count(3) >= 7


async def test_failures_are_repeated_a_few_times(room: Room):
    room.order()
    room.upstream.faults.update({"rest_fault": "status", "rest_fault_count": ATTEMPTS - 1})
    assert len(await room.audit()) == 1
    room.upstream.faults.update({"rest_fault": "status", "rest_fault_count": -1})
    with pytest.raises(UpstreamError, match="500"):
        await room.audit()


async def test_refused_credentials_end_it_at_once(room: Room):
    room.upstream.faults.update({"rest_fault": "status", "rest_status": 401, "rest_fault_count": -1})
    with pytest.raises(BadCredentials):
        await room.audit()
    assert room.upstream.state()["rest_requests"] == 1


async def test_an_upstream_that_repeats_itself_is_not_taken_for_complete(room: Room):
    for _ in range(3):
        room.order()
    page = await room.api.list_page(page=1, pageSize=2)

    async def always(**_query: Any) -> Any:
        return page

    room.api.list_page = always  # type: ignore[method-assign] # an upstream that ignores every parameter
    with pytest.raises(UpstreamError, match="nothing can be said: pages repeat"):
        await room.audit()


async def test_not_before_the_first_sweep_has_ended(room: Room):
    assert await room.source.not_ready() is None
    room.board.upstream.first_sweep_done = False
    assert "still reading" in (await room.source.not_ready() or "")
    room.board.upstream.state = UpstreamState.WAITING
    assert await room.source.not_ready() is None, "REST can be compared while the socket is down"
    await room.store.meta_set(BASELINE_DONE, "1")
    room.board.stopping = True
    with pytest.raises(UpstreamError, match="stopping"):
        await room.audit()


async def test_the_id_of_an_orders_last_event_is_the_one_it_has(room: Room):
    order = room.order()
    await room.audit(repair=True)
    known = (await room.store.known_orders([order.houdini_id]))[order.houdini_id]
    (made,) = await room.store.order_deliveries([order.houdini_id])
    assert room.source.last_webhook_id(known) == made.webhook_id


async def test_what_cannot_be_read_is_not_taken_for_compared(room: Room):
    room.order()
    page = await room.api.list_page(page=1, pageSize=2)

    async def mostly_unreadable(**_query: Any) -> Any:
        return replace(page, rows=(b'{"odd":1}', *page.rows), total=2)

    room.api.list_page = mostly_unreadable  # type: ignore[method-assign] # an upstream with another schema
    with pytest.raises(UpstreamError, match="1 of the orders that REST shows cannot be read"):
        await room.audit()
