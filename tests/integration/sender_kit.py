"""Raw scripted servers for the sender's tests, and what to send them."""

import asyncio
import contextlib
import ipaddress
import os

import pytest
from blockbuster import blockbuster_ctx

from relay.clock import SystemClock
from relay.config import TargetSettings
from relay.delivery.request import PostRequest
from relay.delivery.route import route_of
from relay.delivery.sender import Sender
from relay.delivery.signer import new_secret
from relay.model import Delivery, Event, OrderFacts, Origin
from relay.secret import Secret

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
SECRET = new_secret(b"k" * 32)
ORDER = '{"houdiniId":"h9","status":4,"outAmount":0.37271038265600004,"memo":"ü☃"}'.encode()


def _uvloop():
    return pytest.importorskip("uvloop").new_event_loop()


both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, _uvloop], ids=["asyncio", "uvloop"])


def run_on(new_loop, scenario):
    """Run a coroutine on a loop of this kind; whatever the loop's own handler is told of fails the test."""
    told = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        await scenario

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(watched())
    assert not told, told


class Peer:
    """A raw TCP server whose every connection runs `script(peer, reader, writer)`.

    `go_on` is for a test to set and its script to wait for; `hung_up` tells that the sender has closed.
    """

    def __init__(self, script, tls=None, host="127.0.0.1", port=0):
        self._script = script
        self._tls = tls
        self._tasks = set()
        self._host = host
        self.port = port
        self.connections = 0
        self.requests = []
        self.arrived = asyncio.Condition()
        self.hung_up = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self):
        return f"http://{self._host}:{self.port}/hooks"

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            await self._script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        except asyncio.CancelledError:
            pass  # by `__aexit__`; the stream's own callback would report it
        finally:
            writer.transport.abort()

    async def request(self, reader):
        """One request off the wire: (head, body)."""
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = header_values(head, "content-length")
        body = await reader.readexactly(int(lengths[0])) if lengths else b""
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


async def never_reading(peer, reader, writer):
    """Accepts, and that is all."""
    await peer.go_on.wait()


def header_values(head, name):
    lines = head.decode("latin-1").split("\r\n")
    return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(name.lower() + ":")]


def a_request(*, timeout=10.0, headers=(("accept-encoding", "identity"),), body=b"{}", hidden=()):
    return PostRequest(tuple(headers), body, timeout, hidden)


def a_target(url, headers=None, **settings):
    if "proxy" in settings:
        settings["proxy"] = Secret.of(settings["proxy"])
    return TargetSettings(
        name="shop",
        url=Secret.of(url),
        allow_http=True,
        secrets=[Secret.of(SECRET)],
        headers={name: Secret.of(value) for name, value in (headers or {}).items()},
        **settings,
    )


def a_delivery(attempts_made=0):
    facts = OrderFacts(sequence=1, status=4, previous_status=None, changed=(), origin=Origin.WEBSOCKET)
    event = Event("evt_1", "h9", "order.finished", 1795331090123, ORDER, facts)
    return Delivery(1, "shop", event, attempts_made=attempts_made, steps_used=attempts_made, created_ms=0)


class Names:
    """A look-up that knows these addresses for every name, and notes what it was asked."""

    def __init__(self, *addresses):
        self._addresses = tuple(ipaddress.ip_address(text) for text in addresses or ("127.0.0.1",))
        self.asked = []

    async def resolve(self, host, port):
        self.asked.append(host)
        return self._addresses


@contextlib.asynccontextmanager
async def a_sender(url, lookup=None, **settings):
    """A sender for one target; whatever blocks the loop meanwhile fails the test."""
    route = await asyncio.to_thread(route_of, a_target(url, **settings))
    with blockbuster_ctx("relay"):
        sender = Sender(route, lookup or Names(), SystemClock(), "1.2.3")
        try:
            yield sender
        finally:
            await sender.close()


async def post_once(url, request=None, lookup=None, **settings):
    """One attempt by a sender of its own."""
    async with a_sender(url, lookup, **settings) as sender:
        return await sender.post(request or a_request())


def descriptors():
    """What this process holds open: number -> what it is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return found


@contextlib.asynccontextmanager
async def nothing_left_open():
    """Neither a socket nor a task stays behind."""

    def sockets():
        return {text for text in descriptors().values() if text.startswith("socket:")}

    before, tasks = sockets(), asyncio.all_tasks()
    yield
    for _ in range(400):
        left = sockets() - before, asyncio.all_tasks() - tasks
        if left == (set(), set()):
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"left open: {left}")
