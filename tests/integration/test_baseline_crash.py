"""A first start that a crash interrupts, and frames that outlive their connection: real store, real ingest."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.clock import JumpClock
from support.factories import snapshot
from support.upstream_kit import SERVER_MS
from support.upstream_real import RealRoom
from support.upstream_script import Http, ScriptedUpstream, order

from relay.upstream.backfill import BASELINE_DONE


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


async def test_a_crash_in_the_baseline_starts_it_over_and_floods_nobody(upstream: ScriptedUpstream, tmp_path: Path):
    """69: page 1 was committed, page 2 never came; what was created after the first subscription is news."""
    path, clock = tmp_path / "relay.db", JumpClock()
    upstream.orders = [order(number, 1) for number in range(25)]
    async with RealRoom(upstream, path, clock, first_start="baseline", page_size=10) as room:
        pages = 0

        async def die_on_the_second(*args: object, **query: object) -> object:
            nonlocal pages
            pages += 1
            if pages == 2:
                raise KeyboardInterrupt
            return await real(*args, **query)

        real = room.api.list_page
        room.api.list_page = die_on_the_second  # type: ignore[method-assign] # this is where the process dies
        await room.backfill.begin(SERVER_MS)
        with pytest.raises(KeyboardInterrupt):
            await room.backfill.run_once()
        await room.intake.join()
        assert len(await room.store.known_orders([f"order-{number}" for number in range(25)])) == 10
        assert await room.store.meta_get(BASELINE_DONE) is None
        assert not room.board.first_sweep_done
    upstream.orders.append(order(40, 0))
    async with RealRoom(upstream, path, clock, first_start="baseline", page_size=10) as room:
        await room.first_sweep(SERVER_MS + 600_000)
        assert room.board.first_sweep_done
        assert await room.store.meta_get(BASELINE_DONE) == "1"
        assert await room.events() == [("order-40", 0, "backfill")]
        known = await room.store.known_orders([row["houdiniId"] for row in upstream.orders])
        assert sorted(key for key, one in known.items() if not one.silent) == ["order-40"]
        assert len(known) == 26
        await room.see(snapshot("order-3", 1))
        assert (await room.events())[-1] == ("order-3", 1, "websocket")


async def test_an_incomplete_baseline_is_none(upstream: ScriptedUpstream, tmp_path: Path):
    """68, 69: an order that the broken sweep missed is still silent in the whole one."""
    body = b'{"total":3,"orders":[{"houdiniId":"order-0","status":1,"created":"2026-11-22T00:00:00.000Z"}]}'
    upstream.orders = [order(0, 1), order(1, 1)]
    async with RealRoom(upstream, tmp_path / "relay.db", first_start="baseline", page_size=1) as room:
        upstream.rest_script = [Http(200, body=body)] * 1000
        await room.first_sweep()
        assert room.sweeps("incomplete") == 1
        assert await room.store.meta_get(BASELINE_DONE) is None
        upstream.rest_script.clear()
        while not room.board.first_sweep_done:
            await room.backfill.run_once()
        await room.pass_time(70)
        assert await room.events() == []


async def test_a_frame_held_across_a_reconnect_and_its_sweep_changes_nothing(
    upstream: ScriptedUpstream, tmp_path: Path
):
    """44: it shows an earlier state, whichever connection it came through."""
    upstream.orders = [order(1, 4)]
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(snapshot("order-1", 1))
        held = snapshot("order-1", 2, asked_at=room.clock.mono())
        await room.first_sweep(None)
        await room.see(held)
        assert [status for _, status, _ in await room.events()] == [1, 4]
        await room.pass_time(200)
        assert [status for _, status, _ in await room.events()] == [1, 4]
        assert await room.questions() == []


async def test_rest_rows_wait_behind_the_frames_already_read(upstream: ScriptedUpstream, tmp_path: Path):
    """32, 61: a sweep that overtook the queue would swallow the states in between."""
    upstream.orders = [order(1, 4)]
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        for status in (0, 1, 2):
            room.intake.offer(snapshot("order-1", status))
        await room.first_sweep(None)
        assert [status for _, status, _ in await room.events()] == [0, 1, 2, 4]


async def test_what_went_unseen_in_an_outage_is_one_event_and_says_so(upstream: ScriptedUpstream, tmp_path: Path):
    """63: two transitions, one event, marked as backfill."""
    upstream.orders = [order(1, 1)]
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(snapshot("order-1", 1))
        upstream.orders = [order(1, 3)]
        await room.first_sweep(None)
        assert await room.events() == [("order-1", 1, "websocket"), ("order-1", 3, "backfill")]


async def test_every_reason_to_sweep_at_once_is_one_sweep_at_a_time(upstream: ScriptedUpstream, tmp_path: Path):
    """71: a reconnect, an overflow, a person and the period."""
    upstream.orders = [order(number) for number in range(30)]
    under_way = most = 0
    async with RealRoom(upstream, tmp_path / "relay.db", page_size=10, interval=10.0) as room:
        real = room.api.list_page

        async def watched(*args: object, **query: object) -> object:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            try:
                return await real(*args, **query)
            finally:
                under_way -= 1

        room.api.list_page = watched  # type: ignore[method-assign] # only counts
        await room.backfill.begin(SERVER_MS)
        room.intake.overflowed.set()
        room.backfill.want_sweep("admin")
        await room.pass_time(100)
        assert most == 1
        assert 8 <= room.sweeps() <= 12
        assert len(await room.events()) == 30


@pytest.mark.parametrize("off", [-86_400, 86_400])
async def test_our_own_clock_a_day_off_changes_nothing(upstream: ScriptedUpstream, tmp_path: Path, off: int):
    """64: the same requests, the same events; only server times are compared."""
    upstream.orders = [order(number) for number in range(30)]
    runs = []
    for number, shift in enumerate((0, off)):
        upstream.rest_requests.clear()
        clock = JumpClock(1_795_330_000_000 + shift * 1000)
        async with RealRoom(upstream, tmp_path / f"{number}.db", clock, first_start="baseline", page_size=10) as room:
            await room.first_sweep()
            runs.append((list(upstream.rest_requests), await room.events()))
    assert runs[0] == runs[1]
