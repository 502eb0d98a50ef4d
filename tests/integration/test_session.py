"""One epoch against a scripted upstream: connecting, and every way in which it can end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from support.upstream_fakes import Watch, settings
from support.upstream_kit import DEADLINE, live
from support.upstream_script import (
    GREET,
    WELCOME,
    Connection,
    ScriptedUpstream,
    Step,
    accept,
    close,
    drop_tcp,
    http,
    order,
    rst,
    send,
    send_raw,
    stall,
    update,
)

from relay.board import UpstreamState
from relay.clock import SystemClock
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


async def hear_the_end(line: dialling.Line) -> None:
    while (await line.socket.receive()).type is WSMsgType.TEXT:
        continue
    await dialling.hang_up(line)


async def cut_while_closing(line: dialling.Line) -> None:
    """Hanging up is cancelled while it waits for the reader to notice."""
    reader = asyncio.create_task(line.socket.receive())
    await asyncio.sleep(0)
    leaving = asyncio.create_task(dialling.hang_up(line))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(reader, leaving, return_exceptions=True)


@pytest.mark.parametrize(
    ("steps", "lose"),
    [([accept, drop_tcp], hear_the_end), ([accept, rst], hear_the_end), ([accept, stall], cut_while_closing)],
)
async def test_a_connection_that_is_gone_keeps_no_place(
    client: aiohttp.ClientSession, steps: list[Step], lose: Callable[[dialling.Line], Awaitable[None]]
) -> None:
    """The connector has two places; a line that somebody still remembers, by a traceback, say, may not keep one."""
    remembered = []
    async with ScriptedUpstream(steps) as upstream:
        for _ in range(3):
            around = settings(upstream.websocket_url, handshake_timeout=DEADLINE / 5)
            line = await dialling.dial(around, client, SystemClock())
            await lose(line)
            remembered.append(line)
