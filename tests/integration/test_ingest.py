"""Intake and ingest against a real store."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.factories import row, snapshot
from support.stores import up_to

from relay.clock import SystemClock
from relay.errors import NotLeader, StoreError, StoreUnavailable
from relay.metrics import Metrics
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry
from relay.upstream import ingest as ingest_module
from relay.upstream.ingest import AWAY_PATIENCE, HINT_PATIENCE, Ingest
from relay.upstream.intake import Intake
from relay.upstream.term import Term


class SettableClock(SystemClock):
    def __init__(self) -> None:
        self.now = 1_000.0

    def mono(self) -> float:
        return self.now


class Room:
    """A store, an intake and an ingest, with the clock in hand."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path, lambda: 1_000, lambda _seconds: None)
        self.clock = SettableClock()
        self.intake = Intake()
        self.metrics = Metrics("test")
        self.ingest = Ingest(self.intake, self.store, "p", lambda _kind: ("alpha",), self.metrics, self.clock)

    async def events(self) -> list[tuple[str, int]]:
        claim = await self.store.claim("alpha", up_to(1_000), 2**50)
        return [(one.event.lane, one.event.facts.status) for one in claim.deliveries if one.event.facts]


@pytest.fixture
async def room(tmp_path: Path):
    made = Room(tmp_path / "relay.db")
    await made.store.open([TargetEntry("alpha")])
    yield made
    await made.store.close()


async def test_what_is_offered_is_ingested_and_joined(room: Room):
    assert room.intake.offer(snapshot("o1", 0))
    await room.intake.put([row("o2", 4, first_sweep=True)])
    joined = asyncio.create_task(room.intake.join())
    await asyncio.sleep(0)
    assert not joined.done()
    assert await room.ingest.run_once() == 2
    async with asyncio.timeout(5):
        await joined
    assert await room.events() == [("o1", 0), ("o2", 4)]


async def test_two_updates_of_one_order_in_one_segment_are_two_events(room: Room):
    """Failure mode 70."""
    room.intake.offer(snapshot("o1", 0))
    room.intake.offer(snapshot("o1", 1))
    await room.ingest.run_once()
    assert (await room.store.backlog())["alpha"].pending == 2


async def test_a_full_intake_drops_asks_for_a_sweep_and_never_waits():
    """Failure modes 18 and 120."""
    intake = Intake(max_bytes=10_000, max_snapshots=3)
    assert [intake.offer(snapshot(f"o{n}")) for n in range(5)] == [True, True, True, False, False]
    assert intake.overflowed.is_set()
    assert (len(intake), intake.dropped) == (3, 2)
    by_bytes = Intake(max_bytes=1, max_snapshots=10)
    assert [by_bytes.offer(snapshot()) for _ in range(2)] == [True, False]


async def test_rest_rows_wait_for_room_behind_the_frames():
    intake = Intake(max_snapshots=2)
    intake.offer(snapshot("o1"))
    intake.offer(snapshot("o2"))
    waiting = asyncio.create_task(intake.put([row("o3"), row("o4"), row("o5")]))
    await asyncio.sleep(0)
    assert len(intake) == 2
    order = []
    async with asyncio.timeout(5):
        while len(order) < 5:
            batch = await intake.take(10)
            order += [entry.snapshot.houdini_id for entry in batch]
            await intake.done(len(batch))
    await waiting
    assert order == ["o1", "o2", "o3", "o4", "o5"]


async def test_a_hint_comes_back_after_its_patience_unless_the_frame_came(room: Room):
    room.intake.offer(snapshot("o1", 1))
    room.intake.offer(snapshot("o2", 1))
    await room.ingest.run_once()
    await room.intake.put([row("o1", 2), row("o2", 2)])
    await room.ingest.run_once()
    assert room.ingest.return_hints() == 0
    room.intake.offer(snapshot("o1", 2))
    await room.ingest.run_once()
    room.clock.now += HINT_PATIENCE
    assert room.ingest.return_hints() == 2
    await room.ingest.run_once()
    assert (await room.store.backlog())["alpha"].pending == 4
    text = room.metrics.render().decode()
    assert 'houdini_relay_events_total{origin="backfill",type="order.exchanging"} 1.0' in text
    assert 'houdini_relay_events_total{origin="websocket",type="order.exchanging"} 1.0' in text
    assert "houdini_relay_backfill_changes_total 1.0" in text


async def test_one_poisonous_snapshot_costs_nobody_else_and_asks_for_a_sweep(
    room: Room, monkeypatch: pytest.MonkeyPatch
):
    real = ingest_module.plan_batch

    def poisoned(entries, *args):
        if any(entry.snapshot.houdini_id == "poison" for entry in entries):
            raise ZeroDivisionError
        return real(entries, *args)

    monkeypatch.setattr(ingest_module, "plan_batch", poisoned)
    for name in ("o1", "poison", "o2"):
        room.intake.offer(snapshot(name))
    await room.ingest.run_once()
    assert [lane for lane, _ in await room.events()] == ["o1", "o2"]
    assert room.intake.overflowed.is_set()
    async with asyncio.timeout(5):
        await room.intake.join()


async def test_a_store_that_cannot_be_used_ends_the_ingest(room: Room):
    await room.store.close()
    room.intake.offer(snapshot("o1"))
    with pytest.raises(StoreError):
        await room.ingest.run_once()


async def test_touches_are_forgotten_once_they_cannot_matter(room: Room, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest_module, "HINTS", 1)
    for number in range(3):
        room.intake.offer(snapshot(f"o{number}"))
    await room.ingest.run_once()
    room.clock.now += ingest_module.QUIET_MEMORY + 1
    room.ingest.return_hints()
    assert room.ingest._touched == {}
    await room.intake.put([row("o1", -1, asked_at=room.clock.now)])
    await room.ingest.run_once()
    assert (await room.store.backlog())["alpha"].pending == 4


async def test_hints_beyond_their_number_are_judged_early_not_forgotten(room: Room, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest_module, "HINTS", 3)
    await room.intake.put([row(f"o{number}", 2) for number in range(5)])
    await room.ingest.run_once()
    await room.ingest.run_once()
    assert [lane for lane, _ in await room.events()] == ["o0", "o1"]


async def test_a_snapshot_that_always_fails_asks_for_one_sweep_only(room: Room, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ingest_module, "plan_batch", broken)
    for expected in (True, False):
        room.intake.overflowed.clear()
        room.intake.offer(snapshot("poison"))
        await room.ingest.run_once()
        assert room.intake.overflowed.is_set() is expected


async def test_a_running_ingest_returns_hints_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Failure mode 62: what only REST shows on a healthy connection becomes an event."""
    monkeypatch.setattr(ingest_module, "HINT_PATIENCE", 0.0)
    store = SqliteStore(tmp_path / "relay.db", lambda: 1_000, lambda _seconds: None)
    await store.open([TargetEntry("alpha")])
    woken = asyncio.Event()
    store.on_due(lambda _names: woken.set())
    intake = Intake()
    ingest = Ingest(intake, store, "p", lambda _kind: ("alpha",), Metrics("test"), SystemClock())
    running = asyncio.create_task(ingest.run())
    await intake.put([row("o1", 2)])
    async with asyncio.timeout(10):
        await woken.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len((await store.claim("alpha", up_to(10), 2**50)).deliveries) == 1
    await store.close()


async def test_after_a_clock_jump_no_read_is_quiet_for_one_settling_time(room: Room):
    """134."""
    room.intake.offer(snapshot("o1", 2))
    await room.ingest.run_once()
    room.clock.now += 300
    room.intake.touch_all(room.clock.now)
    for later, events in ((30, 1), (61, 2)):
        await room.intake.put([row("o1", 1, asked_at=room.clock.now + later)])
        await room.ingest.run_once()
        assert (await room.store.backlog())["alpha"].pending == events


async def test_what_cannot_be_stored_is_kept_in_its_place(room: Room, monkeypatch: pytest.MonkeyPatch):
    """A store that is away for too long: nothing that was read is gone, and nothing changes its order."""

    async def away(*_: object) -> None:
        room.clock.now += AWAY_PATIENCE
        raise StoreUnavailable("store db: it cannot be reached")

    for frame in (snapshot("o1", 0), snapshot("o1", 1)):
        room.intake.offer(frame)
    with monkeypatch.context() as outage:
        outage.setattr(room.store, "ingest", away)
        with pytest.raises(StoreUnavailable):
            await room.ingest.run_once()
    room.intake.offer(snapshot("o1", 2))
    assert [one.status for one in room.intake.unstored_frames()] == [0, 1, 2]
    assert await room.ingest.run_once() == 3
    assert (await room.store.backlog())["alpha"].pending == 3


async def test_a_store_that_is_away_for_a_moment_is_asked_again(room: Room, monkeypatch: pytest.MonkeyPatch):
    ingest, failures = room.store.ingest, [StoreUnavailable("away"), StoreUnavailable("away")]

    async def sometimes(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return await ingest(*args)

    monkeypatch.setattr(room.store, "ingest", sometimes)
    room.intake.offer(snapshot("o1", 0))
    assert await room.ingest.run_once() == 1
    assert (await room.store.backlog())["alpha"].pending == 1


async def test_who_is_cancelled_while_storing_gives_it_back(room: Room, monkeypatch: pytest.MonkeyPatch):
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    room.intake.offer(snapshot("o1", 0))
    with monkeypatch.context() as stuck:
        stuck.setattr(room.store, "ingest", never)
        ingesting = asyncio.create_task(room.ingest.run_once())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ingesting.cancel()
        await asyncio.gather(ingesting, return_exceptions=True)
    assert [one.houdini_id for one in room.intake.unstored_frames()] == ["o1"]
    assert await room.ingest.run_once() == 1


async def test_what_ends_it_is_raised_by_itself_and_in_no_group(room: Room, monkeypatch: pytest.MonkeyPatch):
    """A group would be taken for a defect, and end the process of an instance that has only lost the lead."""

    async def refuse(*_: object) -> None:
        raise NotLeader("another leads")

    monkeypatch.setattr(room.store, "ingest", refuse)
    room.intake.offer(snapshot("o1", 0))

    class Supervisor:
        async def run(self) -> None:
            await asyncio.Event().wait()

    term = Term(room.intake, room.ingest, Supervisor())  # type: ignore[arg-type]  # a stand-in that only waits
    with pytest.raises(NotLeader):
        await term.run()
