"""Epoch after epoch against a scripted upstream; waiting costs nothing here."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType
from structlog.testing import capture_logs
from support.clock import FakeClock
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
    drop_tcp,
    http,
    order,
    rst,
    send_raw,
    serve,
    update,
    wait_for,
)

from relay.board import UpstreamState
from relay.clock import SystemClock
from relay.errors import StoreError
from relay.secret import Secret
from relay.upstream.endings import EndKind


@pytest.fixture
async def make_house() -> AsyncIterator[Any]:
    houses: list[House] = []

    def make(upstream: ScriptedUpstream, clock: Any = None, **over: Any) -> House:
        houses.append(House(upstream, clock or PatientClock(), **over))
        return houses[-1]

    yield make
    for house in houses:
        await house.supervisor.close()


@pytest.mark.parametrize("steps", [[http(401)], [http(400)], [accept, close(4401)], [*GREET, close(4401)]])
async def test_bad_credentials_are_slow_and_said_once(make_house: Any, steps: list[Step]) -> None:
    """1, 2, 3: a successful 101 does not make it fast."""
    async with ScriptedUpstream(steps) as upstream:
        house = make_house(upstream)
        with capture_logs() as logs:
            ends = await house.epochs(4)
    assert {end.kind for end in ends} == {EndKind.AUTH}
    waits = [seconds for seconds in house.clock.slept if seconds > 100]
    assert waits == pytest.approx([330] * 3)
    assert house.board.upstream.state is UpstreamState.AUTH_FAILED
    loud = [line for line in logs if line["event"] == "upstream_epoch_ended"]
    subscribed = ends[0].subscribed
    assert len(loud) == (4 if subscribed else 1)
    assert {line["log_level"] for line in loud} == {"error"}
    if not subscribed:
        assert house.value("upstream_connects_total", result="auth") == 4


async def test_new_credentials_are_tried_and_work(make_house: Any) -> None:
    """1: the secret is read anew each time."""
    values = iter(["old", "new", "new", "new", "new"])
    async with ScriptedUpstream([http(401)], [*GREET, close(1000)]) as upstream:
        house = make_house(upstream, secret=Secret(lambda: next(values)))
        ends = await house.epochs(2)
    assert [end.kind for end in ends] == [EndKind.AUTH, EndKind.PLANNED]


async def test_throttled_at_the_upgrade(make_house: Any) -> None:
    """4: seconds, a date, garbage."""
    date = {"Date": "Sun, 22 Nov 2026 07:00:00 GMT", "Retry-After": "Sun, 22 Nov 2026 07:00:30 GMT"}
    scripts = [[http(429, {"Retry-After": "7"})], [http(503, date)], [http(429, {"Retry-After": "soon"})], [http(500)]]
    async with ScriptedUpstream(*scripts) as upstream:
        house = make_house(upstream)
        await house.epochs(4)
    assert house.clock.slept == [8, 31, 4]


async def test_accept_then_close_backs_off(make_house: Any) -> None:
    """48: subscribed is not stable."""
    async with ScriptedUpstream([*GREET, close(1011)]) as upstream:
        house = make_house(upstream)
        ends = await house.epochs(8)
    assert all(end.subscribed for end in ends)
    assert house.clock.slept == [1, 2, 4, 8, 16, 32, 60]
    assert house.value("upstream_connects_total", result="ok") == 8


async def test_refused_for_days_then_up(make_house: Any) -> None:
    """49: it never gives up, recovers within the cap, and says so once."""
    async with ScriptedUpstream() as upstream:
        dead = upstream.websocket_url
    async with ScriptedUpstream([*GREET, close(1000)]) as upstream:
        house = make_house(upstream, websocket_url=dead)
        with capture_logs() as logs:
            ends = await house.epochs(60)
        assert {end.kind for end in ends} == {EndKind.UNREACHABLE}
        assert max(house.clock.slept) == 60
        assert len([line for line in logs if line["event"] == "upstream_epoch_ended"]) == 1


async def test_one_socket_at_a_time(make_house: Any) -> None:
    """6, 52: over a hundred drops of every kind there is never a second connection."""
    ways: list[list[Step]] = [[*GREET, drop_tcp], [*GREET, rst], [accept, close(1001)], [*GREET, close(1000)], [rst]]
    scripts = [ways[number % len(ways)] for number in range(100)]
    async with ScriptedUpstream(*scripts) as upstream:
        house = make_house(upstream)
        await house.epochs(100)
    assert (len(upstream.connections), upstream.most_open) == (100, 1)
    assert house.board.upstream.epoch == 100


async def test_a_planned_close_after_a_stable_epoch_reconnects_at_once(make_house: Any) -> None:
    """23, 48: a minute in sync starts the backoff over."""
    clock = FakeClock()
    go = asyncio.Event()
    async with ScriptedUpstream([http(500)], [http(500)], [*GREET, *stay(go), close(1012)], NORMAL) as upstream:
        house = make_house(upstream, clock)
        run = asyncio.create_task(house.supervisor.run())
        for number in (1, 2):
            await until(lambda n=number: house.value("upstream_epoch_ends_total", kind="refused") == n)
            await clock.until_asleep()
            await clock.advance(4)
        await until(lambda: house.board.upstream.first_sweep_done)
        while not house.board.upstream.in_sync:
            await clock.until_asleep(4)
            await clock.advance(5)
        assert house.value("upstream_in_sync") == 1
        for _ in range(13):
            await clock.until_asleep(4)
            await clock.advance(5)
        go.set()
        await until(lambda: house.board.upstream.state is UpstreamState.WAITING)
        assert house.value("upstream_in_sync") == 0
        await clock.until_asleep()
        await clock.advance(3)
        await until(lambda: house.board.upstream.first_sweep_done)
        assert house.board.upstream.epoch == 4
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert (house.value("gaps_total"), house.value("gap_seconds_total")) == (1, 3)
    assert house.board.upstream.state is UpstreamState.STOPPED


def stay(go: asyncio.Event) -> list[Step]:
    """Answer pings until told to go on."""

    async def answer(_: ScriptedUpstream, connection: Any) -> None:
        leave = asyncio.create_task(go.wait())
        while not go.is_set():
            said = asyncio.create_task(connection.receive())
            await asyncio.wait({leave, said}, return_when=asyncio.FIRST_COMPLETED)
            if not said.done():
                said.cancel()
                await asyncio.gather(said, return_exceptions=True)
                return
            await connection.ws.send_str('{"type":"pong"}')

    return [answer]


async def test_every_epoch_begins_with_a_sweep_after_the_subscription(make_house: Any) -> None:
    """55: strictly after `subscribed`; frames and rows reach the same intake."""
    async with ScriptedUpstream([*GREET, update(order(9)), serve]) as upstream:
        upstream.orders = [order(1)]
        house = make_house(upstream, SystemClock())
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.first_sweep_done)
        assert sorted(house.intake.ids) == ["order-1", "order-9"]
        assert house.value("upstream_connected") == 1
        assert upstream.connections[0].said[0] == {"type": "subscribe"}
        began = time.monotonic()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert time.monotonic() - began < 2.5
        await upstream.until(lambda: upstream.open == 0)
        assert upstream.connections[0].close_code == 1000
    assert (house.board.upstream.state, house.value("upstream_connected")) == (UpstreamState.STOPPED, 0)
    assert not house.board.upstream.first_sweep_done


async def test_no_sweep_before_the_acknowledgement(make_house: Any) -> None:
    """55."""
    async with ScriptedUpstream([accept, WELCOME, wait_for(asyncio.Event())]) as upstream:
        house = make_house(upstream, SystemClock(), handshake_timeout=0.2)
        ends = await house.epochs(1)
    assert (ends[0].kind, upstream.rest_requests) == (EndKind.TIMEOUT, [])


async def test_rest_that_refuses_does_not_end_the_epoch(make_house: Any) -> None:
    async with ScriptedUpstream(NORMAL) as upstream:
        upstream.rest_script = [Http(402, body=b"{}")]
        clock = FakeClock()
        house = make_house(upstream, clock)
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.last_error is not None)
        assert (house.board.upstream.subscribed, house.board.upstream.first_sweep_done) == (True, False)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert house.board.upstream.epoch == 1


async def test_a_bug_ends_the_epoch_and_the_next_repairs(make_house: Any) -> None:
    """36: the frame after the bug still arrives, by the next epoch's sweep at the latest."""
    clock = FakeClock()
    async with ScriptedUpstream([*GREET, update(order(1)), update(order(2)), serve], NORMAL) as upstream:
        upstream.orders = [order(1), order(2)]
        house = make_house(upstream, clock)
        house.intake.explode_at = 2
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.value("upstream_epoch_ends_total", kind="crashed") == 1)
        await clock.until_asleep()
        await clock.advance(1)
        await until(lambda: house.board.upstream.epoch == 2 and house.board.upstream.subscribed)
        while not house.board.upstream.first_sweep_done:
            await clock.until_asleep()
            await clock.advance(1)
            await asyncio.sleep(0)
        assert "order-2" in house.intake.ids
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_a_broken_store_stops_it(make_house: Any) -> None:
    """76: nothing is taken that could not be kept."""
    async with ScriptedUpstream(NORMAL) as upstream:
        house = make_house(upstream, SystemClock())
        house.store.fails = StoreError("the store is broken")
        async with asyncio.timeout(10):
            with pytest.raises(StoreError):
                await house.supervisor.run()
        await upstream.until(lambda: upstream.open == 0)
    assert house.board.upstream.state is UpstreamState.STOPPED


async def test_oversized_messages_are_said_loudly(make_house: Any) -> None:
    """29: bounded reconnects, an alert."""
    async with ScriptedUpstream([*GREET, send_raw(WSMsgType.TEXT, b"x" * (2**20 + 1)), serve]) as upstream:
        house = make_house(upstream)
        with capture_logs() as logs:
            ends = await house.epochs(4)
    assert {end.kind for end in ends} == {EndKind.TOO_BIG}
    assert house.clock.slept == [1, 2, 4]
    assert len([line for line in logs if line["event"] == "upstream_message_too_big"]) == 1


async def test_orders_change_in_place(make_house: Any) -> None:
    """Section 2 of the interface: by subscribe and unsubscribe, then a sweep."""
    async with ScriptedUpstream([accept, WELCOME, serve]) as upstream:
        upstream.orders = [order(1), order(2)]
        house = make_house(upstream, SystemClock(), orders=("order-1",))
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.first_sweep_done)
        house.supervisor.reconfigure(house.config.model_copy(update={"orders": ("order-1", "order-2")}))
        await until(lambda: len(upstream.connections[0].said) == 2)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert upstream.connections[0].said[1] == {"type": "subscribe", "houdiniIds": ["order-2"]}


async def test_other_settings_begin_another_connection_at_once(make_house: Any) -> None:
    """Whatever the backoff had come to; the old connection is closed politely."""
    async with ScriptedUpstream([accept, WELCOME, serve]) as upstream:
        house = make_house(upstream, SystemClock())
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.first_sweep_done)
        beat = house.config.heartbeat.model_copy(update={"interval": 20.0})
        house.supervisor.reconfigure(house.config.model_copy(update={"heartbeat": beat}), "it was reconfigured")
        await until(lambda: house.board.upstream.epoch == 2 and house.board.upstream.first_sweep_done)
        assert house.board.upstream.last_error == "it was reconfigured"
        assert upstream.connections[0].close_code == 1000
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_other_settings_end_the_wait_after_refused_credentials(make_house: Any) -> None:
    """The operator has just corrected them; `auth_retry` is 5 min."""
    async with ScriptedUpstream([http(401)], [accept, WELCOME, serve]) as upstream:
        house = make_house(upstream, SystemClock())
        run = asyncio.create_task(house.supervisor.run())
        await until(lambda: house.board.upstream.state is UpstreamState.AUTH_FAILED)
        house.supervisor.reconfigure(house.config.model_copy(update={"secret": Secret.of("new")}), "corrected")
        await until(lambda: house.board.upstream.first_sweep_done)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert upstream.connections[-1].headers["authorization"].endswith(":new")


async def test_cancelled_again_while_closing_leaves_nothing_open(make_house: Any, monkeypatch: Any) -> None:
    """50: whoever is in a hurry cancels twice; the WebSocket's session is closed all the same."""
    clock, closing = FakeClock(), asyncio.Event()

    async def takes_long() -> None:
        closing.set()
        await asyncio.Event().wait()

    async with ScriptedUpstream([http(500)]) as upstream:
        house = make_house(upstream, clock)
        run = asyncio.create_task(house.supervisor.run())
        await clock.until_asleep()
        session = house.supervisor._http
        with monkeypatch.context() as patched:
            patched.setattr(house.supervisor.api, "close", takes_long)
            run.cancel()
            async with asyncio.timeout(2):
                await closing.wait()
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run
        assert session.closed


async def test_cancelled_while_waiting(make_house: Any) -> None:
    """50, 51."""
    clock = FakeClock()
    async with ScriptedUpstream([http(500)]) as upstream:
        house = make_house(upstream, clock)
        run = asyncio.create_task(house.supervisor.run())
        await clock.until_asleep()
        run.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(asyncio.CancelledError):
                await run
