"""Raw scripted servers for the sender's tests, and what to send them."""

import asyncio
import contextlib
import socket

from aiohttp.abc import AbstractResolver
from blockbuster import blockbuster_ctx

from relay.clock import SystemClock
from relay.config import TargetSettings
from relay.delivery.sender import PostRequest, Sender
from relay.delivery.signer import new_secret
from relay.model import Delivery, Event, OrderFacts, Origin, Secret

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SECRET = new_secret(b"k" * 32)
ORDER = '{"houdiniId":"h9","status":4,"outAmount":0.37271038265600004,"memo":"ü☃"}'.encode()


class Peer:
    """A raw TCP server whose every connection runs `script(peer, reader, writer)`.

    `go_on` is for a test to set and its script to wait for; `hung_up` tells that the sender has closed.
    """

    def __init__(self, script, tls=None):
        self._script = script
        self._tls = tls
        self._tasks = set()
        self.connections = 0
        self.requests = []
        self.arrived = asyncio.Condition()
        self.hung_up = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hooks"

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            await self._script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.transport.abort()

    async def request(self, reader):
        """One request off the wire: (head, body)."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]))
        async with self.arrived:
            self.requests.append((head, body))
            self.arrived.notify_all()
        return head, body

    async def wait_for_requests(self, count):
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)


def answering(answer):
    """A script that gives every request on a connection the same answer."""

    async def script(peer, reader, writer):
        while True:
            await peer.request(reader)
            writer.write(answer)
            await writer.drain()

    return script


def answering_once(answer):
    """A script that answers one request and closes."""

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return script


async def silent(peer, reader, writer):
    await peer.request(reader)
    await reader.read()
    peer.hung_up.set()


def header_values(head, name):
    lines = head.decode("latin-1").split("\r\n")
    return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(name.lower() + ":")]


def a_request(url, *, timeout=10.0, headers=None, body=b"{}", hidden=()):
    return PostRequest(url, headers or {"accept-encoding": "identity"}, body, timeout, hidden)


def a_target(url, **headers):
    return TargetSettings(
        name="shop",
        url=Secret.of(url),
        secrets=[Secret.of(SECRET)],
        headers={name.replace("_", "-"): Secret.of(value) for name, value in headers.items()},
    )


def a_delivery(attempts_made=0):
    facts = OrderFacts(sequence=1, status=4, previous_status=None, changed=(), origin=Origin.WEBSOCKET)
    event = Event("evt_1", "h9", "order.finished", 1795331090123, ORDER, facts)
    return Delivery(id=1, target="shop", event=event, attempts_made=attempts_made, created_ms=0)


class Names(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        entry = {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        return [{**entry, "family": socket.AF_INET}]

    async def close(self):
        pass


@contextlib.asynccontextmanager
async def a_sender(resolver=None):
    """An open sender; whatever blocks the loop meanwhile fails the test."""
    sender = Sender(SystemClock(), "1.2.3", resolver)
    with blockbuster_ctx("relay"):
        await sender.open()
        try:
            yield sender
        finally:
            await sender.close()
