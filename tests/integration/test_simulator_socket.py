"""The stand-in's WebSocket against a plain aiohttp client: as documented, and broken on request."""

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from relay.clock import SystemClock
from relay.simulator.faults import RESET, Action
from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.server import SimulatedUpstream
from relay.simulator.sockets import Sockets
from relay.simulator.world import Order, World

WAITING = Stage(0, "WAITING_FOR_DEPOSIT", 1)
CONFIRMING = Stage(1, "DEPOSIT_DETECTED", 2)
GOOD = {"Authorization": "partner:secret"}
ANSWER_SECONDS = 5


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    server = SimulatedUpstream(World(SystemClock(), Random(1)), partner_id="partner", secret="secret")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def text(socket: ClientWebSocketResponse) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_SECONDS):
        return dict(json.loads(await socket.receive_str()))


async def ask(socket: ClientWebSocketResponse, **message: Any) -> dict[str, Any]:
    await socket.send_json(message)
    return await text(socket)


async def subscribed(http: aiohttp.ClientSession, upstream: SimulatedUpstream) -> ClientWebSocketResponse:
    socket = await http.ws_connect(upstream.websocket_url, headers=GOOD)
    assert await text(socket) == {"type": "welcome", "partnerId": "partner"}
    assert await ask(socket, type="subscribe") == {"type": "subscribed", "houdiniIds": "all"}
    return socket


def waiting(upstream: SimulatedUpstream) -> Order:
    return upstream.world.create(Kind.CEX, WAITING)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "no-colon"}, 400),
        ({"Authorization": ":secret"}, 400),
        ({**GOOD, "Origin": "https://example.com"}, 403),
    ],
)
async def test_upgrades_that_are_refused(
    upstream: SimulatedUpstream, http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(upstream.websocket_url, headers=headers)
    assert refused.value.status == status


@pytest.mark.parametrize("headers", [GOOD, {"Authorization": "partner:wrong"}])
async def test_who_leaves_during_the_handshake_is_no_error(
    upstream: SimulatedUpstream,
    http: aiohttp.ClientSession,
    headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A relay that is stopped just then would leave a traceback between the lines of `simulate`."""

    def leave(_sockets: Sockets, request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    monkeypatch.setattr(Sockets, "_refusal", leave)
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.ws_connect(upstream.websocket_url, headers=headers)
    assert upstream.open_sockets == 0
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_wrong_credentials_get_101_then_an_error_then_4401(
    upstream: SimulatedUpstream, http: aiohttp.ClientSession
) -> None:
    socket = await http.ws_connect(upstream.websocket_url, headers={"Authorization": "partner:wrong"})
    assert (await text(socket))["code"] == "AUTH_FAILED"
    assert (await socket.receive()).type is WSMsgType.CLOSE
    assert socket.close_code == 4401


async def test_changes_are_pushed_byte_for_byte(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await subscribed(http, upstream)
    order = waiting(upstream)
    upstream.world.transition(order, CONFIRMING)
    for change in order.changes:
        frame = (await socket.receive_str(timeout=ANSWER_SECONDS)).encode()
        assert frame == b'{"type":"order_update","data":' + change.body + b"}"
        assert len(change.pushes) == 1
    assert upstream.world.first_subscribed_at is not None


async def test_only_wanted_orders_are_pushed_and_to_every_socket(
    upstream: SimulatedUpstream, http: aiohttp.ClientSession
) -> None:
    order, other = waiting(upstream), waiting(upstream)
    everything = await subscribed(http, upstream)
    one = await http.ws_connect(upstream.websocket_url, headers=GOOD)
    await text(one)
    await ask(one, type="subscribe", houdiniIds=[order.houdini_id])
    upstream.world.transition(other, CONFIRMING)
    upstream.world.transition(order, CONFIRMING)
    assert (await text(one))["data"]["houdiniId"] == order.houdini_id
    assert [(await text(everything))["data"]["houdiniId"] for _ in range(2)] == [other.houdini_id, order.houdini_id]


async def test_nothing_survives_a_disconnect(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    first = await subscribed(http, upstream)
    await first.close()
    second = await http.ws_connect(upstream.websocket_url, headers=GOOD)
    await text(second)
    waiting(upstream)
    assert await ask(second, type="ping") == {"type": "pong"}
    assert upstream.world.epochs[1].ended is not None


async def test_what_the_server_does_not_understand(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await subscribed(http, upstream)
    await socket.send_str("{")
    assert (await text(socket))["code"] == "INVALID_MESSAGE"
    assert (await ask(socket, type="dance"))["code"] == "UNKNOWN_MESSAGE_TYPE"


async def test_refusals(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    upstream.faults.update({"refuse_count": 1, "refuse_status": 429})
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(upstream.websocket_url, headers=GOOD)
    assert refused.value.status == 429
    upstream.faults.update({"refuse_count": -1, "refuse_status": RESET})
    with pytest.raises((aiohttp.ClientConnectionError, ConnectionError)):
        await http.ws_connect(upstream.websocket_url, headers=GOOD)
    upstream.faults.refuse_count = 0
    await subscribed(http, upstream)


async def test_silences(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    upstream.faults.update({"no_welcome": True, "no_subscribed": True, "no_pong": True})
    socket = await http.ws_connect(upstream.websocket_url, headers=GOOD)
    await socket.send_json({"type": "subscribe"})
    await socket.send_json({"type": "ping"})
    assert (await ask(socket, type="dance"))["code"] == "UNKNOWN_MESSAGE_TYPE"
    order = waiting(upstream)
    assert (await text(socket))["data"]["houdiniId"] == order.houdini_id


async def test_mute_still_answers_protocol_pings(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await http.ws_connect(upstream.websocket_url, headers=GOOD, autoping=False)
    await text(socket)
    upstream.faults.mute = True
    await socket.send_json({"type": "subscribe"})
    await socket.send_json({"type": "ping"})
    waiting(upstream)
    for _ in range(2):
        await socket.ping(b"there?")
        message = await socket.receive(timeout=ANSWER_SECONDS)
        assert (message.type, message.data) == (WSMsgType.PONG, b"there?")


async def test_pushes_left_out_doubled_and_binary(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await subscribed(http, upstream)
    upstream.faults.update({"drop_every": 2, "double_pushes": True, "binary_pushes": True})
    orders = [waiting(upstream) for _ in range(3)]
    frames = [await socket.receive_bytes(timeout=ANSWER_SECONDS) for _ in range(4)]
    came = [json.loads(frame)["data"]["houdiniId"] for frame in frames]
    assert came == [orders[index].houdini_id for index in (0, 0, 2, 2)]
    assert orders[1].changes[0].pushes == []


async def test_reordered_pushes_are_all_sent_and_the_stale_one_is_known_as_such(
    upstream: SimulatedUpstream, http: aiohttp.ClientSession
) -> None:
    socket = await subscribed(http, upstream)
    upstream.faults.reorder = True
    order = waiting(upstream)
    upstream.world.transition(order, CONFIRMING)
    last = waiting(upstream)
    assert [(await text(socket))["data"]["status"] for _ in range(2)] == [1, 0]
    assert (await text(socket))["data"]["houdiniId"] == last.houdini_id
    assert [change.pushes[0].current for change in order.changes] == [False, True]


async def test_a_dropped_socket_sees_no_close_frame(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await subscribed(http, upstream)
    await upstream.act(Action.DROP)
    await socket.receive(timeout=ANSWER_SECONDS)
    assert socket.close_code == 1006


async def test_a_closed_socket_sees_the_code(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    socket = await subscribed(http, upstream)
    upstream.faults.close_code = 1013
    closing = asyncio.create_task(upstream.act(Action.CLOSE))
    await socket.receive(timeout=ANSWER_SECONDS)
    await closing
    assert socket.close_code == 1013


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (Action.GARBAGE, WSMsgType.TEXT),
        (Action.BINARY, WSMsgType.BINARY),
        (Action.UNKNOWN_TYPE, WSMsgType.TEXT),
        (Action.BAD_ORDER, WSMsgType.TEXT),
        (Action.OVERSIZED, WSMsgType.ERROR),
    ],
)
async def test_frames_no_server_should_send(
    upstream: SimulatedUpstream, http: aiohttp.ClientSession, action: Action, kind: WSMsgType
) -> None:
    socket = await http.ws_connect(upstream.websocket_url, headers=GOOD, max_msg_size=1 << 20)
    await text(socket)
    await upstream.act(action)
    assert (await socket.receive(timeout=ANSWER_SECONDS)).type is kind


async def test_the_control_endpoint(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    control = f"http://127.0.0.1:{upstream.port}/control"
    socket = await subscribed(http, upstream)
    waiting(upstream)
    await text(socket)
    order = {"rest_fault": "html", "rest_fault_count": 1, "actions": ["drop"]}
    async with http.post(f"{control}/faults", json=order) as answer:
        assert answer.status == 200
    assert upstream.faults.rest_fault_count == 1
    await socket.receive(timeout=ANSWER_SECONDS)
    async with http.get(f"{control}/state") as answer:
        state = await answer.json()
    assert state["orders"] == {"0": 1}
    assert (state["frames_pushed"], state["upgrades"]) == (1, 1)
    for wrong in ({"typo": 1}, [], {"actions": ["dance"]}):
        async with http.post(f"{control}/faults", json=wrong) as answer:
            assert answer.status == 400
    async with http.post(f"{control}/faults", json={}, headers={"Origin": "https://example.com"}) as answer:
        assert answer.status == 403
