"""Sweeps and questions: the real REST client against a scripted upstream, time in the test's hands."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clock import FakeClock, JumpClock
from support.upstream_kit import SERVER_MS, Room
from support.upstream_script import Http, ScriptedUpstream, order

from relay.model import Origin
from relay.upstream.backfill import BASELINE_DONE, FIRST_SUBSCRIBED
from relay.upstream.orders_api import Page


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def make_room(upstream: ScriptedUpstream) -> AsyncIterator[Any]:
    rooms: list[Room] = []

    def make(**over: Any) -> Room:
        rooms.append(Room(upstream, **over))
        return rooms[-1]

    yield make
    for room in rooms:
        await room.api.close()


async def test_first_trailing_and_periodic_sweep(upstream: ScriptedUpstream, make_room: Any) -> None:
    """61, 62: ready after the first, in sync after one more a settling time later, then for ever."""
    upstream.orders = [order(number) for number in range(3)]
    room = make_room(interval=300.0)
    await room.first_sweep()
    assert (room.board.first_sweep_done, room.board.in_sync, room.sweeps()) == (True, False, 1)
    assert all(seen.first_sweep and seen.origin is Origin.BACKFILL for seen in room.intake.snapshots)
    began = room.clock.mono()
    while room.sweeps() < 2:
        await room.backfill.run_once()
    assert 60 <= room.clock.mono() - began < 70
    assert (room.board.in_sync, room.backfill.in_sync_at is not None) == (True, True)
    assert not room.intake.snapshots[-1].first_sweep
    while room.sweeps() < 4:
        await room.backfill.run_once()
    assert 660 <= room.clock.mono() - began < 680
    assert room.intake.joins == 4


async def test_a_sweep_on_demand_is_not_the_trailing_one(make_room: Any) -> None:
    """61: only a sweep that begins a settling time after the first cannot be older than what came before."""
    room = make_room()
    await room.first_sweep()
    room.clock.move(30)
    room.backfill.want_sweep("asked for")
    await room.backfill.run_once()
    assert (room.sweeps(), room.board.in_sync) == (2, False)
    room.clock.move(31)
    room.backfill.want_sweep("asked for")
    await room.backfill.run_once()
    assert (room.sweeps(), room.board.in_sync) == (3, True)


async def test_without_an_interval_only_after_connecting(make_room: Any) -> None:
    room = make_room(interval=0.0)
    await room.first_sweep()
    for _ in range(200):
        await room.backfill.run_once()
    assert room.sweeps() == 2


async def test_many_pages_by_key(upstream: ScriptedUpstream, make_room: Any) -> None:
    """56, 60: all orders once, in order, although many share a timestamp."""
    upstream.orders = [order(number, second=number // 7) for number in range(95)]
    room = make_room(page_size=10)
    await room.first_sweep()
    assert sorted(room.intake.ids) == sorted(row["houdiniId"] for row in upstream.orders)
    assert "status=" not in " ".join(upstream.rest_requests)


async def test_ignored_sort(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.orders = [order(number) for number in range(45)][::-1]
    upstream.ignores_sort = True
    room = make_room(page_size=10)
    await room.first_sweep()
    assert sorted(room.intake.ids) == sorted(row["houdiniId"] for row in upstream.orders)


async def test_unreadable_rows_do_not_stop_the_others(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.orders = [order(1), {"created": "2026-11-22T00:00:01.000Z"}, order(2)]
    room = make_room()
    await room.first_sweep()
    assert sorted(room.intake.ids) == ["order-1", "order-2"]


async def test_the_same_page_again_after_throttling(upstream: ScriptedUpstream, make_room: Any) -> None:
    """66: four 429 on the second page; the first is asked for once, the waits are the server's."""
    upstream.orders = [order(number) for number in range(15)]
    room = make_room(page_size=10)
    await room.backfill.begin(SERVER_MS)
    list_page = room.api.list_page

    async def second_page_throttled(**query: Any) -> Page:
        if "from" in query and len(upstream.rest_requests) == 1:
            upstream.rest_script += [
                Http(429, {"Retry-After": "2"}),
                Http(429, {}, b'{"retryAfter":45}'),
                Http(429, {}, b"<html>"),
                Http(429, {"Retry-After": "3700"}),
            ]
        page: Page = await list_page(**query)
        return page

    room.api.list_page = second_page_throttled
    before = room.clock.mono()
    await room.backfill.run_once()
    assert room.clock.mono() - before == pytest.approx(2 + 45 + 60 + 3700, abs=1)
    assert sum("from=" not in path for path in upstream.rest_requests) == 1
    assert sorted(room.intake.ids) == sorted(row["houdiniId"] for row in upstream.orders)


async def test_errors_are_retried_with_growing_pauses(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.orders = [order(1)]
    upstream.rest_script = [Http(500)] * 8
    room = make_room()
    await room.first_sweep()
    assert [seconds for seconds in room.clock.slept if seconds >= 1] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert room.intake.ids == ["order-1"]


async def test_refused_credentials_wait_slowly(upstream: ScriptedUpstream, make_room: Any) -> None:
    """1."""
    upstream.rest_script = [Http(402, body=b"{}")] * 3
    room = make_room()
    await room.first_sweep()
    assert [seconds for seconds in room.clock.slept if seconds >= 1] == [300, 300, 300]
    assert room.board.last_error is not None
    assert room.board.sweep_problem is None  # it was said while it lasted, see `test_a_failing_sweep_says_why`


async def test_a_failing_sweep_says_why(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.rest_script = [Http(404, body=b"{}")]
    room = make_room()
    seen: list[str | None] = []
    sleep = room.clock.sleep

    async def noting(seconds: float) -> None:
        seen.append(room.board.sweep_problem)
        await sleep(seconds)

    room.clock.sleep = noting
    await room.first_sweep()
    assert any(problem and "404" in problem for problem in seen)
    assert room.board.sweep_problem is None


@pytest.mark.parametrize("ticks", range(0, 40, 4))
async def test_cancelled_at_any_moment(upstream: ScriptedUpstream, make_room: Any, ticks: int) -> None:
    """50: during the retry pause and during the attempt."""
    upstream.rest_script = [Http(500)] * 1000
    room = make_room()
    task = asyncio.create_task(room.backfill.run(SERVER_MS))
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert room.sweeps() == 0


async def test_baseline_is_silent_but_never_about_new_orders(upstream: ScriptedUpstream, make_room: Any) -> None:
    """69: orders created after the first subscription (server time) are news, others are learned."""
    upstream.orders = [order(10), order(29), order(31), order(50), {"houdiniId": "undated", "status": 1, "created": ""}]
    room = make_room(first_start="baseline")
    await room.first_sweep()
    assert {seen.houdini_id: seen.silent for seen in room.intake.snapshots} == {
        "order-10": True,
        "order-29": True,
        "order-31": False,
        "order-50": False,
        "undated": True,
    }
    assert room.store.meta == {FIRST_SUBSCRIBED: str(SERVER_MS), BASELINE_DONE: "1"}
    room.intake.snapshots.clear()
    room.backfill.want_sweep("again")
    while not room.intake.snapshots:
        await room.backfill.run_once()
    assert not any(seen.silent for seen in room.intake.snapshots)


async def test_baseline_that_did_not_end_starts_over(upstream: ScriptedUpstream, make_room: Any) -> None:
    """69: done only when it ends; the first subscription keeps its time."""
    upstream.orders = [order(10), order(40)]
    upstream.rest_script = [Http(500)] * 1000
    room = make_room(first_start="baseline", clock=FakeClock())
    task = asyncio.create_task(room.backfill.run(SERVER_MS))
    await room.clock.until_asleep()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert BASELINE_DONE not in room.store.meta
    assert room.sweeps("aborted") == 1
    upstream.rest_script.clear()
    await room.clock.advance(10)
    await room.backfill.begin(SERVER_MS + 15_000)
    await room.backfill.run_once()
    assert {seen.houdini_id: seen.silent for seen in room.intake.snapshots} == {"order-10": True, "order-40": False}
    assert room.store.meta[BASELINE_DONE] == "1"


async def test_emit_is_never_silent(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.orders = [order(1)]
    room = make_room(first_start="emit")
    await room.first_sweep()
    assert not room.intake.snapshots[0].silent


async def test_server_time_may_come_from_rest(upstream: ScriptedUpstream, make_room: Any) -> None:
    """64: our own clock a day off changes nothing."""
    upstream.orders = [order(1)]
    upstream.rest_script = [Http(200, {"Date": "Sun, 22 Nov 2026 00:00:30 GMT"}, b'{"total":0,"orders":[]}')]
    room = make_room(first_start="baseline", clock=JumpClock(wall_ms=SERVER_MS + 86_400_000))
    await room.first_sweep(None)
    assert room.store.meta[FIRST_SUBSCRIBED] == str(SERVER_MS)


async def test_requests_for_sweeps_are_one_sweep(make_room: Any) -> None:
    """53, 71: one at a time, five seconds apart, and one after the last request."""
    room = make_room()
    await room.first_sweep()
    for reason in ("overflow", "admin", "overflow"):
        room.backfill.want_sweep(reason)
    room.intake.overflowed.set()
    began = room.clock.mono()
    while room.sweeps() < 2:
        await room.backfill.run_once()
    assert room.clock.mono() - began >= 4.9
    for _ in range(5):
        await room.backfill.run_once()
    assert room.sweeps() == 2
    assert not room.intake.overflowed.is_set()


async def test_a_request_wakes_the_nap(make_room: Any) -> None:
    room = make_room(clock=FakeClock())
    await room.first_sweep()
    await room.clock.advance(6)
    task = asyncio.create_task(room.backfill.run_once())
    await room.clock.until_asleep()
    room.backfill.want_sweep("admin")
    async with asyncio.timeout(5):
        await task
        await room.backfill.run_once()
    assert room.sweeps() == 2


async def test_a_server_that_ignores_page_is_said_out_loud(upstream: ScriptedUpstream, make_room: Any) -> None:
    """68: said, not ready, and tried again with growing pauses until it is whole."""
    body = b'{"total":50,"orders":[{"houdiniId":"a","status":1,"created":"2026-11-22T00:00:00.000Z"}]}'
    upstream.rest_script = [Http(200, body=body)] * 100
    room = make_room(page_size=1)
    await room.first_sweep()
    assert (room.sweeps("incomplete"), room.board.first_sweep_done) == (1, False)
    assert BASELINE_DONE not in room.store.meta
    began = room.clock.mono()
    while room.sweeps("incomplete") < 2:
        await room.backfill.run_once()
    assert 30 <= room.clock.mono() - began < 40
    upstream.rest_script.clear()
    while not room.board.first_sweep_done:
        await room.backfill.run_once()
    assert 90 <= room.clock.mono() - began < 110
    assert room.store.meta[BASELINE_DONE] == "1"


async def test_an_incomplete_trailing_sweep_is_not_in_sync_and_not_repeated_at_full_speed(
    upstream: ScriptedUpstream, make_room: Any
) -> None:
    """68."""
    body = b'{"total":50,"orders":[{"houdiniId":"a","status":1,"created":"2026-11-22T00:00:00.000Z"}]}'
    room = make_room(page_size=1, interval=600.0)
    await room.first_sweep()
    upstream.rest_script = [Http(200, body=body)] * 1000
    began = room.clock.mono()
    while room.clock.mono() - began < 600:
        await room.backfill.run_once()
    assert 3 <= room.sweeps("incomplete") <= 5
    assert (room.board.first_sweep_done, room.board.in_sync) == (True, False)
    upstream.rest_script.clear()
    while not room.board.in_sync:
        await room.backfill.run_once()
    assert room.clock.mono() - began <= 960


async def test_an_unreadable_order_costs_no_second_reading(upstream: ScriptedUpstream, make_room: Any) -> None:
    """It keeps its place in the walk: nothing looks hidden, nothing is read again by page number."""
    upstream.orders = [order(number) for number in range(1, 8)]
    del upstream.orders[3]["status"]
    room = make_room(page_size=3)
    await room.first_sweep()
    assert sorted(room.intake.ids) == [f"order-{number}" for number in (1, 2, 3, 5, 6, 7)]
    assert all("sortBy" in request for request in upstream.rest_requests)


async def test_what_was_lost_is_looked_for_twice(make_room: Any) -> None:
    """61: the sweep at once may have asked a replica that lagged; in sync is only said after a second one."""
    room = make_room(interval=0.0)
    await room.first_sweep()
    room.clock.move(61)
    await room.backfill.run_once()
    assert (room.sweeps(), room.board.in_sync) == (2, True)
    room.clock.move(10)
    room.intake.overflowed.set()
    await room.backfill.run_once()
    assert (room.sweeps(), room.board.in_sync) == (3, False)
    room.clock.move(61)
    await room.backfill.run_once()
    assert (room.sweeps(), room.board.in_sync) == (4, True)
