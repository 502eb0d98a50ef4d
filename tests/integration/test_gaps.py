"""Gaps in a real store: who begins them, who ends them, which sweep covers them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.clock import FakeClock
from support.factories import snapshot
from support.stores import up_to
from support.until import until as until_fact
from support.upstream_fakes import backfill_settings
from support.upstream_kit import House, PatientClock, until
from support.upstream_real import RealRoom
from support.upstream_script import (
    GREET,
    NORMAL,
    SUBSCRIBED,
    Http,
    ScriptedUpstream,
    close,
    hear,
    http,
    order,
    send,
    serve,
    wait_for,
)

from relay.clock import until_beat
from relay.metrics import Metrics
from relay.store.base import Store
from relay.store.sqlite import SqliteStore
from relay.store.values import Gap, TargetEntry
from relay.upstream import unseen
from relay.upstream.gaps import MARK_EVERY, NOT_RUNNING, SUBSCRIBED_UNTIL, GapKeeper

HOUR = 3600.0


@pytest.fixture
async def make_store(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Stores on one file, one after the other: each closes the one before."""
    opened: list[SqliteStore] = []

    async def make() -> SqliteStore:
        for one in opened:
            await one.close()
        opened.append(SqliteStore(tmp_path / "relay.db", lambda: 0, lambda _seconds: None))
        await opened[-1].open([TargetEntry("alpha")])
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


def keeper(store: Store, clock: Any, metrics: Metrics | None = None) -> GapKeeper:
    return GapKeeper(store, lambda _kind: ("alpha",), metrics or Metrics("0"), clock)


async def only_gap(store: Store) -> Gap:
    (gap,) = await store.gaps(10)
    return gap


async def test_from_loss_to_the_sweep_that_covers_it(make_store: Any):
    """55: a gap is over when subscribed, and closed only by a sweep that began after that."""
    clock, metrics, store = FakeClock(), Metrics("0"), await make_store()
    gaps = keeper(store, clock, metrics)
    await gaps.start()
    gaps.subscribed(1)
    await gaps.settle()
    assert await store.gaps(10) == []
    began, lost_ms = clock.mono(), clock.wall_ms()
    gaps.lost("closed by the upstream with 1006")
    await gaps.settle()
    assert await only_gap(store) == Gap(1, lost_ms, None, "closed by the upstream with 1006", None, None)
    await clock.advance(30)
    gaps.subscribed(2)
    await gaps.swept(began, "sweep of epoch 1")
    gap = await only_gap(store)
    assert (gap.to_ms, gap.swept_ms) == (lost_ms + 30_000, None)
    await gaps.swept(clock.mono(), "first sweep of epoch 2")
    assert (await only_gap(store)).closed_by == "first sweep of epoch 2"
    value = metrics.registry.get_sample_value
    assert (value("houdini_relay_gaps_total"), value("houdini_relay_gap_seconds_total")) == (1, 30)


async def test_the_first_start_ever_begins_no_gap_and_a_crash_one_at_the_last_mark(make_store: Any):
    """A kill -9 says nothing; the marks do."""
    clock, store = FakeClock(), await make_store()
    gaps = keeper(store, clock)
    await gaps.start()
    assert await store.gaps(10) == []
    gaps.subscribed(1)
    run = asyncio.create_task(gaps.run())
    await until(lambda: clock.sleepers == 1)
    for _ in range(3):
        await clock.until_asleep()
        await clock.advance(until_beat(MARK_EVERY, clock.mono()))
    marked = clock.wall_ms()

    async def is_marked() -> bool:
        return await store.meta_get(SUBSCRIBED_UNTIL) == str(marked)

    await until_fact(is_marked)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await clock.advance(10 * HOUR)
    store = await make_store()
    gaps = keeper(store, clock)
    await gaps.start()
    await gaps.start()
    gap = await only_gap(store)
    assert (gap.from_ms, gap.to_ms, gap.cause) == (marked, None, NOT_RUNNING)


async def test_marks_are_made_only_while_subscribed(make_store: Any):
    clock, store = FakeClock(), await make_store()
    gaps = keeper(store, clock)
    gaps.subscribed(1)
    gaps.lost("gone")
    await gaps.settle()
    mark = await store.meta_get(SUBSCRIBED_UNTIL)
    run = asyncio.create_task(gaps.run_once())
    await clock.until_asleep()
    await clock.advance(MARK_EVERY)
    await run
    assert await store.meta_get(SUBSCRIBED_UNTIL) == mark == str((await only_gap(store)).from_ms)


@pytest.mark.parametrize(("hours", "exceeds"), [(46.9, False), (47.1, True), (72.0, True)])
async def test_a_gap_beyond_the_window_is_said_counted_and_told(make_store: Any, hours: float, exceeds: bool):
    """65: an hour of margin, one notice, and what it says."""
    clock, metrics, store = FakeClock(), Metrics("0"), await make_store()
    gaps = keeper(store, clock, metrics)
    gaps.lost("closed")
    await clock.advance(hours * HOUR)
    gaps.subscribed(2)
    with capture_logs() as logs:
        assert await gaps.unswept_exceeds() is exceeds
        await gaps.settle()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["gap_exceeds_window"] * exceeds
    assert metrics.registry.get_sample_value("houdini_relay_gaps_over_window_total") == exceeds
    claimed = (await store.claim("alpha", up_to(10), 2**50)).deliveries
    assert len(claimed) == exceeds
    for one in claimed:
        assert (one.event.type, one.event.lane) == ("relay.upstream.gap_exceeds_window", "relay:upstream")
        assert one.event.facts is None
        assert json.loads(one.event.body).keys() == {"what", "since", "until", "cause", "advice"}
    await gaps.swept(clock.mono(), "first sweep of epoch 2")
    assert not await gaps.unswept_exceeds()


async def test_a_crash_after_the_notice_tells_it_only_once(make_store: Any):
    """65: its id follows from type, subject and since; whoever ends the gap after all says the same."""
    clock, store = FakeClock(), await make_store()
    gaps = keeper(store, clock)
    gaps.lost("closed")
    await gaps.settle()
    await clock.advance(50 * HOUR)

    async def crash(_to_ms: int) -> None:
        raise KeyError

    store.end_gap = crash
    gaps.subscribed(2)
    with pytest.raises(KeyError):
        await gaps.settle()
    store = await make_store()
    gaps = keeper(store, clock)
    await gaps.start()
    await clock.advance(60)
    gaps.subscribed(1)
    await gaps.settle()
    assert (await only_gap(store)).to_ms == clock.wall_ms()
    assert len((await store.claim("alpha", up_to(10), 2**50)).deliveries) == 1


async def test_a_wall_clock_set_back_hides_no_long_gap(make_store: Any):
    """132: the monotonic clock was there all the time; the record stays well-formed."""
    clock, metrics, store = FakeClock(), Metrics("0"), await make_store()
    gaps = keeper(store, clock, metrics)
    gaps.lost("closed")
    await clock.advance(50 * HOUR)
    clock.step_wall(-60 * HOUR)
    gaps.subscribed(2)
    await gaps.settle()
    gap = await only_gap(store)
    assert gap.from_ms == gap.to_ms
    assert metrics.registry.get_sample_value("houdini_relay_gaps_over_window_total") == 1


async def test_a_subscription_that_was_already_dead_ended_when_it_last_spoke_but_never_later_than_now(make_store: Any):
    """13, 132: a silent peer is noticed late; after a step back its last word lies in the future."""
    clock, store = FakeClock(), await make_store()
    for since_ms, from_ms in ((clock.wall_ms() - 40_000, clock.wall_ms() - 40_000), (2**50, clock.wall_ms())):
        gaps = keeper(store, clock)
        gaps.lost("no answer to our ping", since_ms)
        gaps.subscribed(1)
        await gaps.settle()
        assert (await store.gaps(1))[0].from_ms == from_ms


async def test_a_mark_from_the_future_begins_the_gap_now(make_store: Any):
    clock, store = FakeClock(), await make_store()
    await store.meta_set(SUBSCRIBED_UNTIL, str(clock.wall_ms() + 10**9))
    await keeper(store, clock).start()
    assert (await only_gap(store)).from_ms == clock.wall_ms()


async def test_a_life_in_epochs(make_store: Any):
    """Each end with its cause, each gap with its sweep; attempts in between are the same gap."""
    store = await make_store()
    scripts = [[*GREET, close(1011, b"bad day")], [http(500)], [http(401)], NORMAL]
    async with ScriptedUpstream(*scripts) as upstream:
        house = House(upstream, PatientClock(), store=store)
        await house.epochs(3)
        gap = await only_gap(store)
        assert (gap.cause, gap.to_ms) == ("closed by the upstream with 1011 bad day", None)
        run = asyncio.create_task(house.supervisor.run())
        house.clock._owner = run
        await until(lambda: house.board.upstream.first_sweep_done)
        assert (await only_gap(store)).closed_by == "first sweep of connection 4"
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        gap, _ = await store.gaps(10)
        assert (gap.cause, gap.to_ms) == ("stopped", None)
        assert house.value("gaps_total") == 1


async def test_a_dropped_subscription_is_a_gap_inside_an_epoch(make_store: Any):
    """42: closed by the sweep that follows, not by one under way."""
    store = await make_store()
    dropped = send({"type": "unsubscribed", "houdiniIds": "all"})
    go = asyncio.Event()
    async with ScriptedUpstream([*GREET, wait_for(go), dropped, hear, SUBSCRIBED, serve]) as upstream:
        house = House(upstream, FakeClock(), store=store)
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.first_sweep_done)
        go.set()
        await until(lambda: house.value("gaps_total") == 1)
        while (await only_gap(store)).swept_ms is None:
            await house.clock.until_asleep(4)
            await house.clock.advance(5)
            await asyncio.sleep(0.01)
        assert (await only_gap(store)).cause == "the upstream ended the subscription"
        assert (await only_gap(store)).closed_by == "sweep of connection 1"
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_after_a_long_gap_every_open_order_is_read_by_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """65: not only as many as after any sweep."""
    monkeypatch.setattr(unseen, "PER_SWEEP", 2)
    async with ScriptedUpstream() as upstream, RealRoom(upstream, tmp_path / "other.db") as room:
        await room.see(*(snapshot(f"o{number}", 1) for number in range(6)))
        upstream.orders = [order(1, 2)]
        room.gaps.lost("closed")
        room.clock.move(49 * HOUR)
        room.gaps.subscribed(1)
        await room.first_sweep(None)
        while room.backfill._unseen.ready:
            await room.backfill.run_once()
        asked = [path for path in upstream.rest_requests if "?" not in path]
        assert len(asked) == 6
        assert upstream.rest_requests[0].startswith("/v2/orders?")


async def test_an_incomplete_sweep_closes_nothing(make_store: Any):
    """68."""
    store = await make_store()
    body = b'{"total":50,"orders":[{"houdiniId":"a","status":1,"created":"2026-11-22T00:00:00.000Z"}]}'
    async with ScriptedUpstream([*GREET, close(1011)], NORMAL) as upstream:
        house = House(upstream, PatientClock(), store=store, backfill=backfill_settings(page_size=1))
        await house.epochs(1)
        upstream.rest_script = [Http(200, body=body)] * 1000
        run = asyncio.create_task(house.supervisor.run())
        house.clock._owner = run
        await until(lambda: house.value("backfill_sweeps_total", result="incomplete") == 1)
        assert (await only_gap(store)).swept_ms is None
        assert not house.board.upstream.first_sweep_done
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
