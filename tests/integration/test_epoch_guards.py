"""What ends an epoch or a subscription from this side, and what goes on when no epoch lives long."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType
from structlog.testing import capture_logs
from support.clock import FakeClock
from support.upstream_fakes import backfill_settings
from support.upstream_kit import House, PatientClock, until
from support.upstream_script import (
    GREET,
    NORMAL,
    WELCOME,
    Http,
    ScriptedUpstream,
    Step,
    accept,
    close,
    http,
    order,
    send_raw,
    serve,
    stall,
)

from relay.board import UpstreamState
from relay.clock import SystemClock
from relay.errors import StoreError
from relay.upstream.endings import EndKind
from relay.upstream.gaps import NOT_RUNNING, SUBSCRIBED_UNTIL
from relay.upstream.supervisor import BRIDGE_LIMIT, CLOCK_TICK

TOO_BIG: list[Step] = [*GREET, send_raw(WSMsgType.TEXT, b"x" * (2**20 + 1)), serve]


@pytest.fixture
async def make_house() -> AsyncIterator[Any]:
    houses: list[House] = []

    def make(upstream: ScriptedUpstream, clock: Any = None, **over: Any) -> House:
        houses.append(House(upstream, clock or PatientClock(), **over))
        return houses[-1]

    yield make
    for house in houses:
        await house.supervisor.close()


async def running(house: House) -> "asyncio.Task[Any]":
    return asyncio.create_task(house.supervisor.run())


async def stop(run: "asyncio.Task[Any]") -> None:
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_a_shut_gate_keeps_the_upstream_away(make_house: Any) -> None:
    """77: what cannot be stored must not be accepted."""
    async with ScriptedUpstream(NORMAL) as upstream:
        house = make_house(upstream, SystemClock())
        house.board.gate.shut("the disk is nearly full")
        run = await running(house)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert (upstream.connections, upstream.rest_requests) == ([], [])
        house.board.gate.open()
        await until(lambda: house.board.upstream.first_sweep_done)
        await stop(run)


async def test_a_gate_that_shuts_ends_the_epoch_politely(make_house: Any) -> None:
    """77: closed with 1000, told as a gap with the gate's reason, and back when it opens."""
    async with ScriptedUpstream(NORMAL) as upstream:
        house = make_house(upstream, PatientClock())
        run = await running(house)
        house.clock._owner = run
        await until(lambda: house.board.upstream.first_sweep_done)
        house.board.gate.shut("the disk is nearly full")
        await until(lambda: house.board.upstream.state is UpstreamState.WAITING)
        await upstream.until(lambda: upstream.open == 0)
        assert upstream.connections[0].close_code == 1000
        assert house.board.upstream.last_error == house.store.gap_rows[0].cause == "the disk is nearly full"
        assert house.value("upstream_epoch_ends_total", kind="shut") == 1
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert len(upstream.connections) == 1
        house.clock.move(6)  # sweeps keep their distance
        house.board.gate.open()
        await until(lambda: house.board.upstream.first_sweep_done)
        assert len(upstream.connections) == 2
        await stop(run)


@pytest.mark.parametrize("step", [-36_000, 31, 36_000, 30 * 86_400, -10 * 365 * 86_400])
async def test_a_clock_jump_begins_anew(make_house: Any, step: int) -> None:
    """132, 133, 134: a new epoch with a sweep, nothing counts as quiet, and the relay is back within seconds."""
    clock = FakeClock()
    async with ScriptedUpstream(NORMAL) as upstream:
        house = make_house(upstream, clock)
        run = await running(house)
        await until(lambda: house.board.upstream.first_sweep_done)
        await clock.until_asleep(4)
        alive_ms = clock.wall_ms()
        house.store.questions = {"late": alive_ms + 61_000}
        clock.step_wall(step)
        await clock.advance(CLOCK_TICK)
        await until(lambda: house.value("upstream_epoch_ends_total", kind="clock") == 1)
        assert house.intake.touched_at == clock.mono()
        assert house.value("clock_jumps_total") == 1
        gap = house.store.gap_rows[0]
        assert gap.from_ms == min(alive_ms, clock.wall_ms())
        await clock.until_asleep()
        await clock.advance(1)
        await until(lambda: house.board.upstream.epoch == 2)
        while not house.board.upstream.first_sweep_done:
            await clock.until_asleep()
            await clock.advance(1)
            await asyncio.sleep(0.001)
        assert len(upstream.connections) == 2
        assert house.store.questions.get("late", 0) <= clock.wall_ms() + 120_000
        await stop(run)


async def test_a_jump_while_waiting_is_noticed_before_the_next_epoch(make_house: Any) -> None:
    """134: the machine slept between two attempts."""
    async with ScriptedUpstream([http(500)]) as upstream:
        house = make_house(upstream, PatientClock())
        await house.epochs(2)
        assert house.intake.touched_at is None
        house.clock._start_ms += 3_600_000
        await house.epochs(1)
        assert house.intake.touched_at is not None


async def test_a_wall_clock_in_its_place_ends_nothing(make_house: Any) -> None:
    clock = FakeClock()
    async with ScriptedUpstream(NORMAL) as upstream:
        house = make_house(upstream, clock)
        run = await running(house)
        await until(lambda: house.board.upstream.first_sweep_done)
        clock.step_wall(29)
        for _ in range(4):
            await clock.until_asleep(4)
            await clock.advance(5)
        assert house.board.upstream.epoch == 1
        await stop(run)


async def test_frames_that_kill_the_socket_leave_sweeps(make_house: Any) -> None:
    """29: after the third in a row a whole sweep comes between two attempts, and the backoff goes on growing."""
    async with ScriptedUpstream(TOO_BIG) as upstream:
        upstream.orders = [order(1, 4)]
        house = make_house(upstream)
        ends = await house.epochs(3)
        assert {end.kind for end in ends} == {EndKind.TOO_BIG}
        house.intake.snapshots.clear()
        done = house.value("backfill_sweeps_total", result="ok")
        with capture_logs() as logs:
            ends = await house.epochs(3)
        assert house.value("backfill_sweeps_total", result="ok") >= done + 3
        assert "order-1" in house.intake.ids
        assert not house.intake.snapshots[0].first_sweep
        assert not house.board.upstream.first_sweep_done
        assert house.value("upstream_epoch_ends_total", kind="too_big") == 6
    assert [line for line in logs if line["event"] == "upstream_message_too_big"] == []
    assert house.clock.slept == [1, 2, 4, 8, 16]


async def test_the_fallback_finishes_a_baseline_that_no_epoch_can(make_house: Any) -> None:
    """29, 69: otherwise old orders would stay silent for ever."""
    async with ScriptedUpstream([*TOO_BIG[:-1]]) as upstream:
        upstream.orders = [order(1, 4)]
        house = make_house(upstream, backfill=backfill_settings(first_start="baseline"))
        upstream.rest_script = [Http(500)] * 100
        await house.epochs(3)
        assert "baseline_done" not in house.store.meta
        upstream.rest_script.clear()
        await house.epochs(1)
        assert house.store.meta["baseline_done"] == "1"
        assert all(seen.silent for seen in house.intake.snapshots)


async def test_the_fallback_is_bounded_and_stops_at_a_shut_gate(make_house: Any) -> None:
    """29: REST that is down, too, must not keep us from trying the socket."""
    clock = FakeClock()
    async with ScriptedUpstream(TOO_BIG) as upstream:
        upstream.rest_script = [Http(500)] * 10_000
        house = make_house(upstream, clock)
        run = await running(house)
        while house.board.upstream.epoch < 4:
            if house.value("upstream_epoch_ends_total", kind="too_big") < house.board.upstream.epoch:
                await asyncio.sleep(0.001)
                continue
            await clock.until_asleep()
            await clock.advance(min(5.0, BRIDGE_LIMIT))
            await asyncio.sleep(0.001)
        assert house.value("backfill_sweeps_total", result="ok") == 0
        await stop(run)


async def test_a_store_that_breaks_during_the_fallback_ends_the_room(make_house: Any) -> None:
    async with ScriptedUpstream(TOO_BIG) as upstream:
        house = make_house(upstream)
        await house.epochs(3)
        house.store.fails = StoreError("broken")
        with pytest.raises(StoreError):
            await house.epochs(1)
        assert len(upstream.connections) == 3


async def test_words_that_are_not_understood_are_said_out_loud(make_house: Any) -> None:
    """25: across epochs, once."""
    renamed = send_raw(WSMsgType.TEXT, b'{"type":"order_update_v2","data":{}}')
    async with ScriptedUpstream([*GREET, *[renamed] * 6, close(1011)]) as upstream:
        house = make_house(upstream)
        with capture_logs() as logs:
            await house.epochs(1)
            assert not [line for line in logs if line["event"] == "upstream_speaks_otherwise"]
            house.clock.move(301)
            await house.epochs(2)
    assert len([line for line in logs if line["event"] == "upstream_speaks_otherwise"]) == 1


async def test_a_process_begins_with_the_gap_that_a_crash_left(make_house: Any) -> None:
    """65: kill -9 wrote nothing; the last mark of the living subscription did."""
    async with ScriptedUpstream([http(500)]) as upstream:
        house = make_house(upstream)
        house.store.meta[SUBSCRIBED_UNTIL] = str(house.clock.wall_ms() - 60_000)
        await house.epochs(1)
        (gap,) = house.store.gap_rows
        assert (gap.from_ms, gap.cause) == (house.clock.wall_ms() - 60_000, NOT_RUNNING)


async def test_the_gap_of_a_silent_peer_begins_at_its_last_word(make_house: Any) -> None:
    """13, 16: it had been gone for a while when that was noticed."""
    clock = FakeClock()
    async with ScriptedUpstream([*GREET, stall]) as upstream:
        house = make_house(upstream, clock)
        run = await running(house)
        await until(lambda: house.board.upstream.first_sweep_done)
        spoke_ms = house.board.upstream.last_message_ms
        while not house.store.gap_rows:
            await clock.until_asleep()
            await clock.advance(1)
            await asyncio.sleep(0.001)
        assert house.value("upstream_epoch_ends_total", kind="silent") == 1
        assert house.store.gap_rows[0].from_ms == spoke_ms < clock.wall_ms() - 20_000
        await stop(run)


async def test_what_has_ended_is_unsubscribed_without_another_sweep(make_house: Any) -> None:
    """45: at the sweep that finds it, and not subscribed again by the next connection."""
    async with ScriptedUpstream([accept, WELCOME, serve]) as upstream:
        upstream.orders = [order(1), order(2)]
        house = make_house(upstream, PatientClock(), orders=("order-1", "order-2"))
        ended: set[str] = set()

        async def ended_orders(*_: object) -> set[str]:
            return set(ended)

        house.store.ended_orders = ended_orders
        run = asyncio.create_task(house.supervisor.run())
        house.clock._owner = run
        await until(lambda: house.board.upstream.first_sweep_done)
        ended.add("order-2")
        house.clock.move(6)
        house.supervisor.want_sweep("test")
        await until(lambda: len(upstream.connections[0].said) == 2)
        assert upstream.connections[0].said[1] == {"type": "unsubscribe", "houdiniIds": ["order-2"]}
        await until(lambda: house.value("upstream_messages_total", type="unsubscribed") == 1)
        assert house.value("backfill_sweeps_total", result="ok") == 2
        assert house.supervisor._backfill._wanted == set()
        house.clock.move(6)
        await upstream.connections[0].ws.close(code=1001)
        await until(lambda: house.board.upstream.epoch == 2 and house.board.upstream.first_sweep_done)
        assert upstream.connections[1].said == [{"type": "subscribe", "houdiniIds": ["order-1"]}]
        assert upstream.rest_requests[-1] == "/v2/orders/order-1"
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
