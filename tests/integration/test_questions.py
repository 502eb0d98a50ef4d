"""Questions and orders read by id, among the sweeps."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clock import FakeClock
from support.upstream_kit import SERVER_MS, Room
from support.upstream_script import Http, ScriptedUpstream, order

from relay.errors import StoreError, UpstreamError


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


async def test_questions_by_id(upstream: ScriptedUpstream, make_room: Any) -> None:
    """Asked when due, after sweeps, postponed so that no failure repeats at full speed."""
    upstream.orders = [order(1, 4), order(2, 1)]
    room = make_room()
    room.store.questions = {"order-1": 0, "order-2": room.clock.wall_ms() + 10_000}
    await room.first_sweep()
    room.intake.snapshots.clear()
    await room.backfill.run_once()
    assert room.intake.ids == ["order-1"]
    assert room.store.questions["order-1"] == pytest.approx(room.clock.wall_ms() + 61_000, abs=100)
    assert room.board.questions_open == 2
    while len(room.intake.ids) < 2:
        await room.backfill.run_once()
    assert room.intake.ids == ["order-1", "order-2"]


async def test_an_answer_about_another_order_is_not_taken(upstream: ScriptedUpstream, make_room: Any) -> None:
    room = make_room()
    await room.first_sweep()
    room.store.questions = {"order-1": 0}
    upstream.rest_script = [Http(200, body=b'{"houdiniId":"order-2","status":4}')]
    await room.backfill.run_once()
    assert (room.intake.ids, room.store.ended) == ([], [])


async def test_many_questions_are_one_sweep(upstream: ScriptedUpstream, make_room: Any) -> None:
    """More than ten: a sweep; those it did not show are asked by id."""
    upstream.orders = [order(number) for number in range(11)]
    room = make_room()
    await room.first_sweep()
    room.store.questions = {f"order-{number}": 0 for number in range(11)} | {"hidden": 0}
    requests = len(upstream.rest_requests)
    await room.backfill.run_once()
    assert room.sweeps() == 2
    assert upstream.rest_requests[requests + 1 :] == ["/v2/orders/hidden"]
    await room.backfill.run_once()
    assert room.sweeps() == 2


async def test_watched_orders_are_read_by_id(upstream: ScriptedUpstream, make_room: Any) -> None:
    """38: what the socket never confirms is still seen."""
    upstream.orders = [order(1), order(2), order(3)]
    room = make_room(orders=("order-1", "missing", "order-3"))
    await room.first_sweep()
    assert room.intake.ids == ["order-1", "order-3"]
    assert all(path.startswith("/v2/orders/") for path in upstream.rest_requests)
    assert room.sweeps() == 1


async def test_one_order_that_always_fails_does_not_hold_the_others(upstream: ScriptedUpstream, make_room: Any) -> None:
    upstream.orders = [order(1), order(2)]
    upstream.rest_script = [Http(500)] * 5
    room = make_room(orders=("order-1", "order-2"))
    await room.first_sweep()
    assert room.intake.ids == ["order-2"]
    assert room.sweeps("incomplete") == 1


async def test_a_store_that_fails_is_not_ours_to_hide(make_room: Any) -> None:
    room = make_room()
    room.store.fails = StoreError("broken")
    with pytest.raises(StoreError):
        await room.backfill.begin(SERVER_MS)
    assert not issubclass(StoreError, UpstreamError)


async def test_wall_clock_steps_do_not_move_sweeps(make_room: Any) -> None:
    """132."""
    room = make_room(clock=FakeClock(), interval=300.0)
    await room.first_sweep()
    room.clock.step_wall(-36_000_000)
    task = asyncio.create_task(room.backfill.run(SERVER_MS))
    while room.sweeps() < 3:
        await room.clock.until_asleep()
        await room.clock.advance(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert room.board.in_sync
