"""One epoch against a scripted upstream: real sockets, every way in which it can go wrong."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from structlog.testing import capture_logs
from support.clock import FakeClock
from support.upstream_fakes import Watch, settings
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
    rst,
    send,
    send_raw,
    serve,
    stall,
    update,
)

from relay.board import UpstreamState
from relay.clock import SystemClock
from relay.config.settings import HeartbeatSettings
from relay.model import Secret
from relay.upstream import dial as dialling
from relay.upstream.endings import EndKind, EpochEnd
from relay.upstream.session import Session

DEADLINE = 10.0


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    session = dialling.open_socket_session("0.0")
    yield session
    await dialling.close_session(session)


async def live(
    upstream: ScriptedUpstream,
    client: aiohttp.ClientSession,
    watch: Watch | None = None,
    clock: Any = None,
    orders: frozenset[str] | None = None,
    **over: Any,
) -> EpochEnd:
    """One whole epoch, at most ten seconds of it."""
    clock = clock or SystemClock()
    watch = watch or Watch(clock)
    session = Session(settings(upstream.websocket_url, **over), orders, client, watch.around)
    async with asyncio.timeout(DEADLINE):
        return await session.run()


async def test_the_whole_way(client: aiohttp.ClientSession) -> None:
    """70: two updates in one segment are two snapshots; the order's bytes are untouched."""
    watch = Watch(SystemClock())
    text = b'{"type":"order_update","data":{ "houdiniId":"a", "status":1, "x":0.10 }}'
    steps: list[Step] = [*GREET, send_raw(WSMsgType.TEXT, text), update(order(2)), update(order(2, 1)), close(1000)]
    async with ScriptedUpstream(steps) as upstream:
        end = await live(upstream, client, watch)
        connection = upstream.connections[0]
    assert (end.kind, end.subscribed) == (EndKind.PLANNED, True)
    assert watch.intake.snapshots[0].body == b'{ "houdiniId":"a", "status":1, "x":0.10 }'
    assert [(seen.houdini_id, seen.status) for seen in watch.intake.snapshots[1:]] == [("order-2", 0), ("order-2", 1)]
    assert connection.said == [{"type": "subscribe"}]
    assert connection.headers["Authorization"] == "partner:s3cret"
    assert "Origin" not in connection.headers
    assert "Sec-WebSocket-Extensions" not in connection.headers
    assert watch.states == [
        UpstreamState.CONNECTING,
        UpstreamState.CONNECTED,
        UpstreamState.WELCOMED,
        UpstreamState.SUBSCRIBED,
    ]
    assert watch.board.last_message_ms is not None
    assert watch.count("order_update") == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403])
async def test_refused_at_the_upgrade(client: aiohttp.ClientSession, status: int) -> None:
    """1, 3: all of these are about credentials."""
    async with ScriptedUpstream([http(status, body=b'{"error":"no"}')]) as upstream:
        end = await live(upstream, client)
    assert (end.kind, end.subscribed) == (EndKind.AUTH, False)
    assert str(status) in end.detail


@pytest.mark.parametrize(
    "steps",
    [
        [accept, close(4401, b"bad credentials")],
        [accept, send({"type": "error", "code": "AUTH_FAILED", "message": "no"}), close(4401)],
        [accept, send({"type": "error", "code": "AUTH_FAILED"}), drop_tcp],
        [*GREET, close(4401)],
    ],
)
async def test_credentials_refused_after_101(client: aiohttp.ClientSession, steps: list[Step]) -> None:
    """2: wrong credentials still get 101."""
    async with ScriptedUpstream(steps) as upstream:
        assert (await live(upstream, client)).kind is EndKind.AUTH


@pytest.mark.parametrize(("value", "wait"), [("7", 7.0), ("Sun, 22 Nov 2026 07:00:30 GMT", 30.0), ("soon", None)])
async def test_throttled_at_the_upgrade(client: aiohttp.ClientSession, value: str, wait: float | None) -> None:
    """4."""
    headers = {"Retry-After": value, "Date": "Sun, 22 Nov 2026 07:00:00 GMT"}
    async with ScriptedUpstream([http(429, headers)]) as upstream:
        end = await live(upstream, client)
    assert (end.kind, end.retry_after) == (EndKind.THROTTLED, wait)


async def test_a_redirect_is_not_followed(client: aiohttp.ClientSession) -> None:
    """5: nothing reaches the other address."""
    async with ScriptedUpstream() as other:
        async with ScriptedUpstream([http(302, {"Location": f"{other.rest_url}/elsewhere"})]) as upstream:
            end = await live(upstream, client)
        assert (other.connections, other.rest_requests) == ([], [])
    assert end.kind is EndKind.REDIRECT


@pytest.mark.parametrize("steps", [[stall], [accept, stall], [accept, WELCOME, stall]])
async def test_every_stage_has_a_deadline(client: aiohttp.ClientSession, steps: list[Step]) -> None:
    """7, 8, 14: no upgrade, no welcome, no subscribed."""
    async with ScriptedUpstream(steps) as upstream:
        end = await live(upstream, client, handshake_timeout=0.2)
    assert (end.kind, end.subscribed) == (EndKind.TIMEOUT, False)
    assert end.lasted < 4


async def test_protocol_pings_do_not_stretch_a_stage(client: aiohttp.ClientSession) -> None:
    """17: pings every few milliseconds and nothing else."""

    async def ping_on(_: ScriptedUpstream, connection: Connection) -> None:
        while True:
            await connection.ws.ping()
            await asyncio.sleep(0.02)

    async with ScriptedUpstream([accept, ping_on]) as upstream:
        end = await live(upstream, client, handshake_timeout=0.3)
    assert end.kind is EndKind.TIMEOUT


async def test_nobody_listens(client: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.websocket_url
    gone = Session(settings(url), None, client, Watch(SystemClock()).around)
    async with asyncio.timeout(DEADLINE):
        assert (await gone.run()).kind is EndKind.UNREACHABLE


async def test_dns_failure_names_the_other_spelling() -> None:
    class NoNames(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            raise OSError("no such name")

        async def close(self) -> None:
            pass

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames())) as client:
        url = "wss://partner-api.houdiniswap.com/v2/ws"
        session = Session(settings(url), None, client, Watch(SystemClock()).around)
        async with asyncio.timeout(DEADLINE):
            end = await session.run()
    assert end.kind is EndKind.UNREACHABLE
    assert "api-partner.houdiniswap.com" in end.detail


@pytest.mark.parametrize("secret", ["two\r\nlines", "nul\0", "é\u2028"])
async def test_a_secret_that_no_header_can_carry(client: aiohttp.ClientSession, secret: str) -> None:
    """127: a matter of credentials; the value is not in the message."""
    async with ScriptedUpstream() as upstream:
        end = await live(upstream, client, secret=Secret.of(secret))
    assert end.kind is EndKind.AUTH
    assert secret not in end.detail


async def test_the_secret_is_read_anew_each_time(client: aiohttp.ClientSession) -> None:
    """1: a rotated secret is picked up."""
    values = iter(["old", "new"])
    secret = Secret(lambda: next(values), "file x")
    async with ScriptedUpstream([http(401)]) as upstream:
        await live(upstream, client, secret=secret)
        await live(upstream, client, secret=secret)
        assert [c.headers["Authorization"] for c in upstream.connections] == ["partner:old", "partner:new"]


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([*GREET, close(1001)], EndKind.PLANNED),
        ([*GREET, close(1012)], EndKind.PLANNED),
        ([*GREET, close(1011, b"oops\x1b")], EndKind.CLOSED),
        ([*GREET, send_raw(WSMsgType.CLOSE, b""), stall], EndKind.CLOSED),
        ([*GREET, drop_tcp, stall], EndKind.CLOSED),
        ([*GREET, rst], EndKind.CLOSED),
        ([*GREET, send_raw(WSMsgType.TEXT, b"x" * (2**20 + 1)), stall], EndKind.TOO_BIG),
    ],
)
async def test_every_end_has_its_kind(client: aiohttp.ClientSession, steps: list[Step], kind: EndKind) -> None:
    """23, 29, 37: FIN, RST, a close frame without a code, 1011, an oversized message."""
    async with ScriptedUpstream(steps) as upstream:
        end = await live(upstream, client)
    assert (end.kind, end.subscribed) == (kind, True)
    assert end.detail.isprintable()


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
    """19: a peer that ignores our close frame and talks on delays the end by two seconds at most."""
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
        assert time.monotonic() - began < 3


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
    async with ScriptedUpstream([*GREET, send({"type": "unsubscribed"}), serve]) as upstream:
        run = asyncio.create_task(live(upstream, client, watch))
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


async def until(reached: Any) -> None:
    """Wait for something in this process that no event tells about."""
    async with asyncio.timeout(DEADLINE):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


async def until_state(watch: Watch, state: UpstreamState) -> None:
    await until(lambda: state in watch.states)
