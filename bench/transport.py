"""`python -m bench.transport`: how many webhooks a second one core sends; ours against aiohttp's client.

Both post the same 1 kB bodies, 16 at a time, over kept connections to a minimal sink in a process of its own; runs
alternate, and the median counts. aiohttp is set up as the relay set it up before it had a transport of its own.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection as Pipe

import aiohttp
import uvloop

from relay.clock import SystemClock
from relay.config import TargetSettings
from relay.delivery.lookup import Lookup
from relay.delivery.request import PostRequest
from relay.delivery.route import route_of
from relay.delivery.sender import Sender
from relay.secret import Secret

BODY = b'{"type":"order.finished","data":{"memo":"' + b"x" * 957 + b'"}}'
HEADERS = (
    ("content-type", "application/json"),
    ("accept-encoding", "identity"),
    ("webhook-id", "evt_0123456789abcdef0123456789abcdef"),
    ("webhook-timestamp", "1795331090"),
    ("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
    ("relay-attempt", "1"),
)
HIDDEN = ("some-secret-header-value", "another-secret-value")
IN_FLIGHT = 16
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok"

Post = Callable[[], Awaitable[bool]]


class Sink(asyncio.Protocol):
    """Answers as soon as a request of the known length is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._held.endswith(b'"}}'):
            self._held = b""
            self._transport.write(ANSWER)  # type: ignore[attr-defined] # uvloop's transports are of no asyncio class


def sink(pipe: Pipe) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    uvloop.run(serve())


async def rate(post: Post, seconds: float) -> tuple[float, float]:
    """Posts a wall second, and a second of our own CPU time."""
    posts = 0
    until = time.perf_counter() + seconds

    async def keep_posting() -> None:
        nonlocal posts
        while time.perf_counter() < until:
            assert await post()
            posts += 1

    began, began_cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(keep_posting())
    return posts / (time.perf_counter() - began), posts / (time.process_time() - began_cpu)


async def ours(port: int, seconds: float) -> tuple[float, float]:
    target = TargetSettings(name="sink", url=Secret.of(f"http://127.0.0.1:{port}/"), secrets=[Secret.of(a_secret())])
    clock = SystemClock()
    lookup = Lookup(clock)
    sender = Sender(route_of(target), lookup, clock, "bench")

    async def post() -> bool:
        return (await sender.post(PostRequest(HEADERS, BODY, 15.0, HIDDEN))).status_code == 200

    try:
        return await rate(post, seconds)
    finally:
        await sender.close()
        lookup.close()


async def theirs(port: int, seconds: float) -> tuple[float, float]:
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=4, ttl_dns_cache=10)
    headers = dict(HEADERS)
    async with aiohttp.ClientSession(
        connector=connector,
        headers={"user-agent": "houdini-relay/bench"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=16 * 1024,
    ) as session:

        async def post() -> bool:
            timeout = aiohttp.ClientTimeout(total=15, ceil_threshold=60)
            response = await session.post(
                f"http://127.0.0.1:{port}/", data=BODY, headers=headers, allow_redirects=False, timeout=timeout
            )
            async with asyncio.timeout(2):
                while await response.content.read(64 * 1024):
                    pass
            response.close()
            return response.status == 200

        return await rate(post, seconds)


def a_secret() -> str:
    return "whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="


def runs(rounds: int, seconds: float, port: int) -> Iterator[tuple[str, str, tuple[float, float]]]:
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    for _ in range(rounds):
        for loop_name, factory in loops.items():
            for name, contender in (("ours", ours), ("aiohttp", theirs)):
                with asyncio.Runner(loop_factory=factory) as runner:
                    yield loop_name, name, runner.run(contender(port, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transport", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run (default 3)")
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=sink, args=(there,), daemon=True)
    process.start()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for loop_name, name, figures in runs(given.rounds, given.seconds, here.recv()):
        found.setdefault((loop_name, name), []).append(figures)
    here.send(None)
    process.join(5)
    print("| loop | transport | posts/s | posts per CPU second | ratio |")
    print("|---|---|---|---|---|")
    for loop_name in ("asyncio", "uvloop"):
        base = statistics.median(wall for wall, _ in found[loop_name, "aiohttp"])
        for name in ("ours", "aiohttp"):
            wall, cpu = (statistics.median(values) for values in zip(*found[loop_name, name], strict=True))
            print(f"| {loop_name} | {name} | {wall:,.0f} | {cpu:,.0f} | {wall / base:.2f} |")


if __name__ == "__main__":
    main()
