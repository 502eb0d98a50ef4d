"""The other side of a measurement, a process of its own: an upstream that feeds, and sinks that count.

Feeder and sink share one clock, so a latency is one subtraction. It is asked over standard input and answers
over standard output, one JSON document a line:

    <- {"upstream": "ws://...", "rest": "http://...", "sinks": {"ok": 23001, ...}}
    -> {"updates": 5000, "rate": 200.0, "window": 2000, "name": "a", "copies": 1,
        "statuses": [-1, 0, 1, 2, 3, 4]}
    <- {"sent": 5000, "arrived": 5000, "seconds": 25.0, "latencies_ms": [...]}

`rate` null feeds as fast as at most `window` updates are under way. An update has arrived when as many targets
as `copies` says have it. Only the sink `ok` is measured; the
others misbehave, each in its way.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from aiohttp import WSMsgType, web

STATUSES = (-1, 0, 1, 2, 3, 4)
"""The life of every order that is fed: a step forward each time."""
INTERLEAVED = 500
"""Orders that move at the same time."""
PADDING = 600
"""Characters that make a body about 1 kB, as real ones are."""
_NUMBER = re.compile(rb'"benchNumber": ?(\d+)')
_PATIENCE = 120.0


def update(name: str, number: int, order: int, status: int) -> str:
    """One `order_update` frame of about 1 kB."""
    data = {
        "houdiniId": f"{name}-{order:08d}",
        "status": status,
        "created": "2026-11-22T07:00:00.000Z",
        "inAmount": 0.37271038265600004,
        "outAmount": 1834.21,
        "senderAddress": "0x" + "a1" * 20,
        "receiverAddress": "bc1q" + "x" * 38,
        "benchNumber": number,
        "notes": "n" * PADDING,
    }
    return json.dumps({"type": "order_update", "data": data}, separators=(",", ":"))


def _place(number: int, statuses: Sequence[int]) -> tuple[int, int]:
    """Which order an update is of, and the status it brings: `INTERLEAVED` orders step forward by turns."""
    block, within = divmod(number, INTERLEAVED * len(statuses))
    step, order = divmod(within, INTERLEAVED)
    return block * INTERLEAVED + order, statuses[step]


class Feed:
    """What is under way: when each update was sent and when it arrived."""

    def __init__(self, copies: int = 1) -> None:
        self.sent: dict[int, float] = {}
        self.latencies: list[float] = []
        self.room = asyncio.Event()
        self.last = 0.0
        self._copies = copies
        self._seen: dict[int, set[bytes]] = {}

    def arrive(self, path: bytes, body: bytes) -> None:
        found = _NUMBER.search(body)
        if found is None:
            return
        number = int(found[1])
        began = self.sent.get(number)
        seen = self._seen.setdefault(number, set())
        if began is None or path in seen:
            return
        seen.add(path)
        if len(seen) != self._copies:
            return
        self.last = perf_counter()
        self.latencies.append((self.last - began) * 1000)
        self.room.set()

    @property
    def under_way(self) -> int:
        return len(self.sent) - len(self.latencies)


class Sink(asyncio.Protocol):
    """The smallest receiver there is: counts a POST and answers 204, or misbehaves."""

    def __init__(self, peer: "Peer", answer: bytes, delay: float) -> None:
        self._peer, self._answer, self._delay, self._read = peer, answer, delay, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._read) < end + 4 + length:
                return
            body, self._read = self._read[end + 4 : end + 4 + length], self._read[end + 4 + length :]
            self._respond(head.split(b" ", 2)[1], body)

    def _respond(self, path: bytes, body: bytes) -> None:
        if self._answer is OK:
            self._peer.feed.arrive(path, body)
        if self._answer is RESET:
            self._transport.abort()
        elif self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, self._answer)
        elif self._answer:
            self._transport.write(self._answer)


OK = b"HTTP/1.1 204 No Content\r\n\r\n"
RESET = b"reset"


def _status(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", *headers, "content-length: 0", "", ""]).encode()


TROUBLES: dict[str, tuple[bytes, float]] = {
    "500": (_status("500 Internal Server Error"), 0.0),
    "503": (_status("503 Service Unavailable"), 0.0),
    "429": (_status("429 Too Many Requests", "retry-after: 1"), 0.0),
    "400": (_status("400 Bad Request"), 0.0),
    "404": (_status("404 Not Found"), 0.0),
    "302": (_status("302 Found", "location: https://example.com/"), 0.0),
    "410": (_status("410 Gone"), 0.0),
    "stall": (b"", 0.0),
    "slow": (_status("200 OK"), 2.0),
    "reset": (RESET, 0.0),
    "garbage": (b"this is no HTTP\r\n\r\n", 0.0),
    "half": (b"HTTP/1.1 200 OK\r\nx-half: ", 0.0),
    "endless": (b"HTTP/1.1 500 Oh\r\ncontent-length: 1000000000\r\n\r\n" + b"x" * 60_000, 0.0),
}
"""Sinks that misbehave: what they answer and after how many seconds."""


class Peer:
    """Upstream, REST and sinks."""

    def __init__(self) -> None:
        self.feed = Feed()
        self._sockets: set[web.WebSocketResponse] = set()
        self._subscribed = asyncio.Event()

    async def start(self) -> dict[str, Any]:
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/orders", self._orders)
        app.router.add_get("/orders/{id}", self._order)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        sinks = {"ok": await self._listen(OK, 0.0)}
        for name, (answer, delay) in TROUBLES.items():
            sinks[name] = await self._listen(answer, delay)
        return {"upstream": f"ws://127.0.0.1:{port}/ws", "rest": f"http://127.0.0.1:{port}", "sinks": sinks}

    async def _listen(self, answer: bytes, delay: float) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Sink(self, answer, delay), "127.0.0.1", 0, backlog=4096)
        return int(server.sockets[0].getsockname()[1])

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.send_str('{"type":"welcome","partnerId":"bench"}')
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            asked = json.loads(message.data)
            if asked["type"] == "ping":
                await socket.send_str('{"type":"pong"}')
            elif asked["type"] == "subscribe":
                await socket.send_str('{"type":"subscribed","houdiniIds":"all"}')
                self._sockets.add(socket)
                self._subscribed.set()
        self._sockets.discard(socket)
        if not self._sockets:
            self._subscribed.clear()
        return socket

    async def _orders(self, _request: web.Request) -> web.Response:
        return web.json_response({"orders": [], "total": 0, "totalPages": 0})

    async def _order(self, _request: web.Request) -> web.Response:
        return web.json_response({"message": "not found"}, status=404)

    async def play(
        self, name: str, updates: int, rate: float | None, window: int, copies: int, statuses: Sequence[int]
    ) -> dict[str, Any]:
        """Feed and wait until all has arrived, or nothing more does for a long time."""
        await self._subscribed.wait()
        feed = self.feed = Feed(copies)
        began = perf_counter()
        for number in range(updates):
            await self._pace(feed, number, rate, window, began)
            frame = update(name, number, *_place(number, statuses))
            feed.sent[number] = perf_counter()
            for socket in self._sockets:
                await socket.send_str(frame)
        await self._settle(feed)
        return {
            "sent": len(feed.sent),
            "arrived": len(feed.latencies),
            "seconds": feed.last - began,
            "latencies_ms": [round(one, 3) for one in feed.latencies],
        }

    async def _pace(self, feed: Feed, number: int, rate: float | None, window: int, began: float) -> None:
        if rate is not None:
            ahead = began + number / rate - perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
        while feed.under_way >= window:
            feed.room.clear()
            await feed.room.wait()
        if number % 64 == 0:
            await asyncio.sleep(0)

    async def _settle(self, feed: Feed) -> None:
        quiet_since, seen = perf_counter(), -1
        while feed.under_way and perf_counter() - quiet_since < _PATIENCE:
            if len(feed.latencies) != seen:
                quiet_since, seen = perf_counter(), len(feed.latencies)
            await asyncio.sleep(0.01)


async def _serve(read_line: Callable[[], str]) -> None:
    peer = Peer()
    print(json.dumps(await peer.start()), flush=True)
    while line := await asyncio.to_thread(read_line):
        asked = json.loads(line)
        print(json.dumps(await peer.play(**asked)), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.stdin.readline))
