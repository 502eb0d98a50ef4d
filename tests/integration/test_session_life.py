"""One epoch against a scripted upstream: odd frames, liveness, subscriptions, leaving."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSMsgType
from structlog.testing import capture_logs
from support.clock import FakeClock
from support.upstream_fakes import Watch, settings
from support.upstream_kit import DEADLINE, live, until, until_state
from support.upstream_script import (
    GREET,
    NORMAL,
    WELCOME,
    Connection,
    ScriptedUpstream,
    Step,
    accept,
    close,
    drop_tcp,
    hear,
    http,
    order,
    read_only,
    send,
    send_raw,
    serve,
    stall,
    update,
    wait_for,
)

from relay.board import UpstreamState
from relay.clock import SystemClock
from relay.config.settings import HeartbeatSettings
from relay.secret import Secret
from relay.upstream import dial as dialling
from relay.upstream.endings import EndKind
from relay.upstream.session import Session

GRACE = 0.3


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing is as bounded as ever, only sooner: many peers here do not answer a close frame."""
    assert dialling.CLOSE_GRACE == 2.0
    monkeypatch.setattr(dialling, "CLOSE_GRACE", GRACE)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    session = dialling.open_socket_session("0.0")
    yield session
    await dialling.close_session(session)


async def test_odd_frames_are_counted_and_survived(client: aiohttp.ClientSession) -> None:
    """25, 26, 27, 28, 34: none of them ends the epoch, each bad one asks for a sweep, each kind is said once."""
    watch = Watch(SystemClock())
    odd: list[Step] = [
        send_raw(WSMsgType.TEXT, b"\xff\xfe{"),
        send_raw(WSMsgType.TEXT, b"not json"),
        send_raw(WSMsgType.TEXT, b"[" * 50_000),
        send_raw(WSMsgType.BINARY, b"\x00\xff"),
        send({"type": "order_update_v2"}),
        send({"type": "order_update_v2"}),
        send({"type": "order_update", "data": {"houdiniId": "x"}}),
        send({"type": "error", "code": "UNKNOWN_MESSAGE_TYPE", "message": "?"}),
        send({"type": "error", "code": "SOMETHING_NEW"}),
        send_raw(WSMsgType.BINARY, b'{"type":"order_update","data":{"houdiniId":"binary","status":1}}'),
        update(order(1)),
    ]
    async with ScriptedUpstream([*GREET, *odd, close(1000)]) as upstream:
        with capture_logs() as logs:
            end = await live(upstream, client, watch)
    assert end.kind is EndKind.PLANNED
    assert watch.intake.ids == ["binary", "order-1"]
    assert (watch.count("invalid"), watch.count("other"), watch.count("error")) == (4, 2, 2)
    kinds = [line["kind"] for line in logs if line["event"] == "upstream_oddity"]
    assert sorted(kinds) == [
        "bad_message",
        "bad_order",
        "complaint:SOMETHING_NEW",
        "complaint:UNKNOWN_MESSAGE_TYPE",
        "unknown_type:order_update_v2",
    ]
    assert {"unreadable frame", "unreadable order", "complaint"} <= set(watch.sweeps)


async def test_a_full_intake_drops_and_asks_for_a_sweep(client: aiohttp.ClientSession) -> None:
    """18, 120: the reader never waits; a flood costs frames, not the connection."""
    watch = Watch(SystemClock(), room=10)
    padding = "x" * 20_000
    flood = [update({**order(number), "padding": padding}) for number in range(400)]
    async with ScriptedUpstream([*GREET, *flood, close(1000)]) as upstream:
        end = await live(upstream, client, watch)
    assert end.kind is EndKind.PLANNED
    assert len(watch.intake.snapshots) == 10
    assert watch.sweeps.count("intake overflow") == 390


async def test_a_bug_in_a_handler_ends_the_epoch(client: aiohttp.ClientSession) -> None:
    """36: never a zombie that reads no more."""
    watch = Watch(SystemClock())
    watch.intake.explode_at = 2
    async with ScriptedUpstream([*GREET, update(order(1)), update(order(2)), serve]) as upstream:
        end = await live(upstream, client, watch)
        await upstream.until(lambda: upstream.open == 0)
    assert end.kind is EndKind.CRASHED
    assert "KeyError" in end.detail


async def test_muteness_is_noticed_by_the_application_ping(client: aiohttp.ClientSession) -> None:
    """13, 16: protocol pongs keep coming, the application says nothing."""
    clock = FakeClock()
    watch = Watch(clock)
    async with ScriptedUpstream([*GREET, read_only]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch, clock))
        await until_state(watch, UpstreamState.SUBSCRIBED)
        await clock.until_asleep()
        await clock.advance(20)
        await upstream.until(lambda: True)
        await clock.until_asleep()
        await clock.advance(10)
        end = await run
    assert end.kind is EndKind.SILENT


async def test_pings_keep_an_answering_connection(client: aiohttp.ClientSession) -> None:
    """24: ten minutes of nothing but ping and pong, well below any idle timeout of a proxy."""
    clock = FakeClock()
    watch = Watch(clock)
    async with ScriptedUpstream([*GREET, serve]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch, clock))
        await until_state(watch, UpstreamState.SUBSCRIBED)
        for number in range(1, 21):
            await clock.until_asleep()
            await clock.advance(20)
            await until(lambda number=number: watch.count("pong") == number)
            await clock.until_asleep()
            await clock.advance(10)
        assert not run.done()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await upstream.until(lambda: upstream.open == 0)
        assert upstream.connections[0].close_code == 1000


async def test_a_pong_from_before_the_ping_counts_for_nothing(client: aiohttp.ClientSession) -> None:
    """35: an unasked pong does not answer a later ping."""
    clock = FakeClock()
    watch = Watch(clock)
    async with ScriptedUpstream([*GREET, send({"type": "pong"}), read_only]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch, clock))
        await until(lambda: watch.count("pong") == 1)
        await clock.until_asleep()
        await clock.advance(20)
        await clock.until_asleep()
        await clock.advance(10)
        assert (await run).kind is EndKind.SILENT


async def test_a_dead_peer_is_noticed_by_the_protocol_heartbeat(client: aiohttp.ClientSession) -> None:
    """15: nothing comes back at all, not even pongs."""

    async def deaf(upstream: ScriptedUpstream, connection: Connection) -> None:
        assert connection.request.transport is not None
        connection.request.transport.pause_reading()  # type: ignore[attr-defined]  # a real socket's transport
        await upstream.stopping.wait()

    beat = HeartbeatSettings.model_construct(interval=0.5, timeout=5.0)
    async with ScriptedUpstream([*GREET, deaf]) as upstream:
        end = await live(upstream, client, clock=FakeClock(), heartbeat=beat)
    assert (end.kind, end.detail) == (EndKind.SILENT, "no answer to the protocol's ping")


async def test_a_chatty_peer_cannot_hold_us(client: aiohttp.ClientSession) -> None:
    """19: a peer that ignores our close frame and talks on delays the end by the grace at most."""
    watch = Watch(SystemClock())

    async def chat(_: ScriptedUpstream, connection: Connection) -> None:
        while True:
            await connection.ws._writer.send_frame(b'{"type":"pong"}', WSMsgType.TEXT)
            await asyncio.sleep(0.1)

    async with ScriptedUpstream([*GREET, chat]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch))
        await until_state(watch, UpstreamState.SUBSCRIBED)
        began = time.monotonic()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert GRACE <= time.monotonic() - began < GRACE + 1


async def test_leaving_is_polite_even_in_a_flood(client: aiohttp.ClientSession) -> None:
    """6, 20: our close frame arrives although data lies unread, so the server keeps no ghost of us."""
    watch = Watch(SystemClock())
    heard: list[int | None] = []

    async def flood(_: ScriptedUpstream, connection: Connection) -> None:
        async def talk() -> None:
            while True:
                await connection.ws.send_json({"type": "order_update", "data": {**order(1), "x": "y" * 5000}})

        talker = asyncio.create_task(talk())
        while await connection.receive() is not None:
            pass
        heard.append(connection.close_code)
        talker.cancel()
        await asyncio.gather(talker, return_exceptions=True)

    async with ScriptedUpstream([*GREET, flood]) as upstream:
        for _ in range(5):
            run = asyncio.create_task(live(upstream, client, watch))
            seen = len(watch.intake.snapshots)
            await until(lambda seen=seen: len(watch.intake.snapshots) > seen + 20)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        await upstream.until(lambda: upstream.open == 0)
    assert heard == [1000] * 5


async def test_cancelled_at_any_stage_it_ends_at_once(client: aiohttp.ClientSession) -> None:
    """51: a cancellation is never swallowed, wherever it lands."""
    async with ScriptedUpstream([accept, WELCOME, hear, send({"type": "subscribed"}), serve]) as upstream:
        for ticks in range(0, 60, 3):
            run = asyncio.create_task(live(upstream, client))
            for _ in range(ticks):
                await asyncio.sleep(0)
            run.cancel()
            async with asyncio.timeout(3):
                with pytest.raises(asyncio.CancelledError):
                    await run


async def test_ids_are_subscribed_and_changed_in_place(client: aiohttp.ClientSession) -> None:
    """40, 43: what is wanted changes without a new connection, followed by a sweep; unknown orders are taken."""
    watch = Watch(SystemClock())
    async with ScriptedUpstream([accept, WELCOME, serve]) as upstream:
        session = Session(settings(upstream.websocket_url), frozenset("ab"), client, watch.around)
        run = asyncio.create_task(session.run())
        async with asyncio.timeout(DEADLINE):
            await session.subscribed.wait()
        session.want(None)
        await until(lambda: watch.sweeps == ["orders changed"])
        session.want(frozenset("c"))
        await until(lambda: watch.sweeps == ["orders changed"] * 2)
        await upstream.connections[0].ws.send_json({"type": "order_update", "data": order(7)})
        await until(lambda: watch.intake.ids == ["order-7"])
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert upstream.connections[0].said == [
            {"type": "subscribe", "houdiniIds": ["a", "b"]},
            {"type": "subscribe"},
            {"type": "unsubscribe"},
            {"type": "subscribe", "houdiniIds": ["c"]},
        ]
        assert len(upstream.connections) == 1


async def test_a_dropped_subscription_is_asked_for_again(client: aiohttp.ClientSession) -> None:
    """42: and swept, for what came in between."""
    watch = Watch(SystemClock())
    drop = asyncio.Event()
    async with ScriptedUpstream([*GREET, wait_for(drop), send({"type": "unsubscribed"}), serve]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch))
        await until_state(watch, UpstreamState.SUBSCRIBED)
        drop.set()
        await until(lambda: "subscription dropped" in watch.sweeps)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert watch.states[-3:] == [UpstreamState.SUBSCRIBED, UpstreamState.WELCOMED, UpstreamState.SUBSCRIBED]


async def test_compressed_frames_that_nobody_agreed_on_are_refused(client: aiohttp.ClientSession) -> None:
    """30: a set RSV1 is a protocol error, not something to unpack."""

    async def rsv1(_: ScriptedUpstream, connection: Connection) -> None:
        assert connection.request.transport is not None
        connection.request.transport.write(b"\xc1\x03abc")  # type: ignore[attr-defined]  # a real socket's transport

    async with ScriptedUpstream([*GREET, rsv1, stall]) as upstream:
        end = await live(upstream, client)
    assert (end.kind, end.detail) == (EndKind.CLOSED, "the upstream broke the protocol (1002)")


async def test_no_secret_in_logs_or_details(client: aiohttp.ClientSession) -> None:
    """126."""
    scripts: list[list[Step]] = [[http(401)], [http(500)], [accept, close(4401)], [accept, drop_tcp], NORMAL]
    async with ScriptedUpstream(*scripts[:-1]) as upstream:
        with capture_logs() as logs:
            details = [(await live(upstream, client, secret=Secret.of("canary-secret"))).detail for _ in range(4)]
    assert "canary" not in repr((logs, details))


class SleptClock(SystemClock):
    """A machine that can be made to have slept: wall time has gone on."""

    def __init__(self) -> None:
        self.slept_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.slept_ms


async def test_a_connection_slept_through_has_been_gone_since_its_last_message(client: aiohttp.ClientSession) -> None:
    """134: however the end shows itself on waking, the gap did not begin just now."""
    clock, asleep = SleptClock(), asyncio.Event()
    watch = Watch(clock)

    async def sleep_through(_upstream: ScriptedUpstream, _connection: object) -> None:
        await asleep.wait()

    async with ScriptedUpstream([*GREET, sleep_through, drop_tcp]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch, clock))
        await until_state(watch, UpstreamState.SUBSCRIBED)
        last_ms = watch.board.last_message_ms
        clock.slept_ms = 60 * 3_600_000
        asleep.set()
        end = await run
    assert end.kind is not EndKind.SILENT
    assert end.alive_ms == last_ms
