"""A scripted upstream: WebSocket and REST over one order table, real sockets on a free port.

Each connection plays one list of steps; the last list is played again for every further connection.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import WSMsgType, web
from multidict import CIMultiDict

Json = dict[str, Any]


class Connection:
    """One client as the server sees it."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.headers = CIMultiDict(request.headers)
        self.ws = web.WebSocketResponse(autoping=True)
        self.said: list[Json] = []
        self.close_code: int | None = None
        self.gone = asyncio.Event()

    async def receive(self) -> Json | None:
        """The next message of the client, None when it has gone."""
        message = await self.ws.receive()
        if message.type is not WSMsgType.TEXT:
            self.close_code = self.ws.close_code
            return None
        said: Json = json.loads(message.data)
        self.said.append(said)
        return said


Step = Callable[["ScriptedUpstream", Connection], Awaitable[None]]


class Http(Exception):
    """The upgrade is answered with this instead."""

    def __init__(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, headers or {}, body


def http(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Step:
    async def step(_: "ScriptedUpstream", __: Connection) -> None:
        raise Http(status, headers, body)

    return step


async def stall(upstream: "ScriptedUpstream", _: Connection) -> None:
    """Say nothing more, read nothing more."""
    await upstream.stopping.wait()


async def accept(_: "ScriptedUpstream", connection: Connection) -> None:
    await connection.ws.prepare(connection.request)


def send(message: Json) -> Step:
    async def step(_: "ScriptedUpstream", connection: Connection) -> None:
        await connection.ws.send_str(json.dumps(message))

    return step


def send_raw(opcode: WSMsgType, payload: bytes) -> Step:
    async def step(_: "ScriptedUpstream", connection: Connection) -> None:
        await connection.ws._writer.send_frame(payload, opcode)

    return step


def close(code: int, reason: bytes = b"") -> Step:
    async def step(_: "ScriptedUpstream", connection: Connection) -> None:
        await connection.ws.close(code=code, message=reason)

    return step


async def drop_tcp(_: "ScriptedUpstream", connection: Connection) -> None:
    assert connection.request.transport is not None
    connection.request.transport.close()


async def rst(_: "ScriptedUpstream", connection: Connection) -> None:
    transport = connection.request.transport
    assert transport is not None
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def hear(upstream: "ScriptedUpstream", connection: Connection) -> None:
    """Wait for one message of the client that is not a ping (pings are answered)."""
    while (said := await connection.receive()) is not None:
        if said.get("type") != "ping":
            return
        await connection.ws.send_str('{"type":"pong"}')


def signal(event: asyncio.Event) -> Step:
    async def step(_: "ScriptedUpstream", __: Connection) -> None:
        event.set()

    return step


def wait_for(event: asyncio.Event) -> Step:
    async def step(_: "ScriptedUpstream", __: Connection) -> None:
        await event.wait()

    return step


async def read_only(_: "ScriptedUpstream", connection: Connection) -> None:
    """Read what the client says and answer none of it, until it goes."""
    while await connection.receive() is not None:
        pass


async def serve(upstream: "ScriptedUpstream", connection: Connection) -> None:
    """Behave: answer subscriptions and pings until the client goes."""
    while (said := await connection.receive()) is not None:
        kind = said.get("type")
        if kind == "ping":
            await connection.ws.send_str('{"type":"pong"}')
        elif kind in ("subscribe", "unsubscribe"):
            answer = {"type": kind + "d" if kind == "subscribe" else "unsubscribed", **_ids(said)}
            await connection.ws.send_str(json.dumps(answer))


def _ids(said: Json) -> Json:
    return {"houdiniIds": said["houdiniIds"]} if "houdiniIds" in said else {"houdiniIds": "all"}


WELCOME = send({"type": "welcome", "partnerId": "partner"})
SUBSCRIBED = send({"type": "subscribed", "houdiniIds": "all"})
GREET: list[Step] = [accept, WELCOME, hear, SUBSCRIBED]
"""Up to and including the acknowledged subscription."""

NORMAL: list[Step] = [*GREET, serve]


def update(order: Json) -> Step:
    return send({"type": "order_update", "data": order})


class ScriptedUpstream:
    """The server; `async with` it."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.scripts = list(scripts) or [NORMAL]
        self.connections: list[Connection] = []
        self.orders: list[Json] = []
        self.rest_script: list[Http] = []
        self.rest_requests: list[str] = []
        self.rest_headers: list[CIMultiDict[str]] = []
        self.page_cap = 100
        self.ignores_sort = False
        self.ignores_from = False
        self.open = 0
        self.most_open = 0
        self.port = 0
        self.stopping = asyncio.Event()
        self.changed = asyncio.Condition()

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v2/ws"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2"

    async def __aenter__(self) -> "ScriptedUpstream":
        app = web.Application()
        app.router.add_get("/v2/ws", self._socket)
        app.router.add_get("/v2/orders", self._list)
        app.router.add_get("/v2/orders/{id}", self._one)
        app.router.add_get("/{rest:.*}", self._elsewhere)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping.set()
        await self._runner.cleanup()

    async def until(self, reached: Callable[[], bool], patience: float = 10.0) -> None:
        """Wait until something that this server can see has happened."""
        async with asyncio.timeout(patience), self.changed:
            await self.changed.wait_for(reached)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        connection = Connection(request)
        self.connections.append(connection)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await self._tell()
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            for step in script:
                await step(self, connection)
        except Http as answer:
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            connection.gone.set()
            await self._tell()
        return connection.ws

    async def _list(self, request: web.Request) -> web.Response:
        if (canned := await self._note(request)) is not None:
            return canned
        rows = list(self.orders)
        if not self.ignores_sort:
            rows.sort(key=lambda row: row["created"], reverse=request.query.get("sortOrder") != "asc")
        if (since := request.query.get("from")) is not None and not self.ignores_from:
            rows = [row for row in rows if row["created"] >= since]
        size = min(int(request.query.get("pageSize", "100")), self.page_cap)
        page = int(request.query.get("page", "1"))
        shown = rows[(page - 1) * size : page * size]
        return web.json_response({"total": len(rows), "totalPages": -(-len(rows) // size), "orders": shown})

    async def _one(self, request: web.Request) -> web.Response:
        if (canned := await self._note(request)) is not None:
            return canned
        for row in self.orders:
            if row["houdiniId"] == request.match_info["id"]:
                return web.json_response(row)
        return web.json_response({"code": "NOT_FOUND", "message": "no such order"}, status=404)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        await self._note(request)
        return web.json_response({"elsewhere": True})

    async def _note(self, request: web.Request) -> web.Response | None:
        self.rest_requests.append(request.raw_path)
        self.rest_headers.append(CIMultiDict(request.headers))
        await self._tell()
        if not self.rest_script:
            return None
        answer = self.rest_script.pop(0)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def order(number: int, status: int = 0, second: int | None = None) -> Json:
    """An order of the table; `second` is when it was created, by default its number."""
    at = number if second is None else second
    created = f"2026-11-22T{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}.000Z"
    return {"houdiniId": f"order-{number}", "status": status, "created": created}
