"""Whatever is sent to the admin server by somebody who means ill: a 4xx of the one shape, no effect, no end of room."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from admin_kit import TOKEN, AdminRoom, served
from structlog.testing import capture_logs
from support.factories import event
from support.until import until

from relay.admin import connections, middleware

AUTHORIZED = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
JSON_BODY = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


async def raw(room: AdminRoom, request: bytes | str) -> tuple[int, Any]:
    """What these very bytes are answered: the status and the document."""
    reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
    try:
        async with asyncio.timeout(10):
            writer.write(request if isinstance(request, bytes) else request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].split()[0])
            body = await reader.readexactly(length)
    finally:
        await close(writer)
    assert "server: houdini-relay" in head
    assert "x-content-type-options: nosniff" in head
    return int(head.split()[1]), json.loads(body)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def refused(answer: tuple[int, Any], *expected: int) -> None:
    status, document = answer
    assert set(document) == {"error"}, document
    assert set(document["error"]) == {"code", "message"}
    assert status in expected, answer


async def snapshot(room: AdminRoom) -> list[Any]:
    """Everything that a request could have changed."""
    status, deliveries = await room.get("/api/v1/deliveries")
    assert status == 200
    standings = {name: waiting.standing for name, waiting in (await room.store.backlog()).items()}
    return [deliveries, standings, list(room.sweeps), room.source.windows, list(room.control.woken)]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/deliveries/%2e%2e/status",
        "/api/v1/deliveries/..%2fstatus",
        "/api/v1/deliveries/1%00",
        "/api/v1/deliveries/1%0d%0aX-Evil:%201",
        "/api/v1/deliveries/" + "9" * 4000,
        "/api/v1/deliveries/-1",
        "/api/v1/deliveries/1e3",
        "/api/v1/deliveries/%D9%A1",  # a digit, though none of ours
        "/api/v1/deliveries/1%20OR%201=1",
        "/api/v1/events/%00",
        "/api/v1/events/" + "%F0%9F%92%A9" * 300,
        "/api/v1/events/%ff%fe",
        "/api/v1/events/%27%20OR%20%271%27=%271",
        "/api/v1/events/{{7*7}}",
        "/api/v1/orders/%2fetc%2fpasswd",
        "/api/v1/orders/..%5c..%5cetc",
        "/api/v1/orders/%ed%a0%80",
        "/api/v1/targets/alpha",
        "/api/v1/../../etc/passwd",
        "/api/v1/store/backup%00",
        "/api/v2/status",
    ],
)
async def test_paths_that_try_tricks_find_nothing(tmp_path: Path, path: str):
    async with served(tmp_path) as room:
        refused(await raw(room, f"GET {path} HTTP/1.1\r\n{AUTHORIZED}\r\n"), 400, 404, 405)
        refused(await raw(room, f"POST {path}/retry HTTP/1.1\r\n{AUTHORIZED}{JSON_BODY}"), 400, 404, 405)


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..", "alpha%2f..%2fbeta", "alpha%00", "Alpha", "a" * 5000, "%F0%9F%92%A9", "%ff"]
)
async def test_names_that_are_none_change_no_target(tmp_path: Path, name: str):
    async with served(tmp_path) as room:
        before = await snapshot(room)
        for what in ("pause", "resume", "test", "forget"):
            request = f"POST /api/v1/targets/{name}/{what} HTTP/1.1\r\n{AUTHORIZED}{JSON_BODY}"
            refused(await raw(room, request), 400, 404)
        assert await snapshot(room) == before


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET /api/v1/status\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX y: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: a\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 500 + b"\r\n",
        b"POST /api/v1/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    ],
)
async def test_what_is_no_http_is_answered_in_the_same_shape(tmp_path: Path, request_bytes: bytes):
    async with served(tmp_path, token=None) as room:
        with capture_logs() as lines:
            answer = await raw(room, request_bytes)
        refused(answer, 400, 403, 411, 415)
        assert "a" * 50 not in json.dumps(answer), "nothing of it is repeated"
        assert lines == [], "anybody could fill the log"
        assert room.sweeps == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW", "GET\t", "get"])
async def test_methods_that_nobody_takes(tmp_path: Path, method: str):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms())
        before = await snapshot(room)
        for path in ("/api/v1/deliveries/1/cancel", "/api/v1/targets/alpha/pause", "/api/v1/status"):
            refused(await raw(room, f"{method} {path} HTTP/1.1\r\n{AUTHORIZED}{JSON_BODY}"), 400, 404, 405)
        assert await snapshot(room) == before


@pytest.mark.parametrize("override", ["X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-HTTP-Method: POST"])
async def test_a_get_stays_a_get(tmp_path: Path, override: str):
    async with served(tmp_path) as room:
        refused(await raw(room, f"GET /api/v1/backfill?_method=POST HTTP/1.1\r\n{AUTHORIZED}{override}\r\n\r\n"), 405)
        assert room.sweeps == []


async def test_head_shows_nothing_and_does_nothing(tmp_path: Path):
    async with served(tmp_path) as room:
        for path in ("/healthz", "/api/v1/status", "/api/v1/deliveries"):
            status, text, _ = await room.ask("HEAD", path)
            assert (status, text) == (200, ""), path
        for path in ("/api/v1/backfill", "/api/v1/targets/alpha/pause"):
            assert (await room.ask("HEAD", path))[0] == 405
        assert room.sweeps == []


async def test_a_preflight_opens_nothing(tmp_path: Path):
    async with served(tmp_path) as room:
        headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        status, _, answer = await room.ask("OPTIONS", "/api/v1/backfill", token=None, headers=headers)
        assert status == 403
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1e2",
        "limit=%D9%A1",
        "limit=1&limit=2",
        "cursor=../../x",
        "cursor=" + "A" * 5000,
        "status=dead'--",
        "target=%00",
        "type=%0d%0a",
        "order=" + "a" * 201,
        "since=%F0%9F%92%A9",
        "since=99999999999999d",
        "unknown=1",
        "%00=1",
    ],
)
async def test_questions_that_make_no_sense(tmp_path: Path, query: str):
    async with served(tmp_path) as room:
        for kind in ("events", "deliveries"):
            refused(await raw(room, f"GET /api/v1/{kind}?{query} HTTP/1.1\r\n{AUTHORIZED}\r\n"), 400)


@pytest.mark.parametrize(
    "body",
    [
        b'{"target": "alpha", "status": "any", "dry_run": "false"}',
        b'{"target": ["alpha"]}',
        b'{"target": "alpha", "target": {"$ne": ""}}',
        b'{"target": "alpha", "__proto__": {"dry_run": true}}',
        b'{"target": "\\ud800"}',
        b'{"target": "alpha", "since": "\\u0000"}',
        b'{"target": "alpha", "since": "9999-12-31T23:59:59Z"}',
        b'{"target": "alpha", "order": 1e999}',
        b'\xef\xbb\xbf{"target": "alpha"}',
        b'{"target": "alpha"}{"target": "beta"}',
        b"[" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"<target>alpha</target>",
        b"target=alpha",
    ],
)
async def test_bodies_that_lie_change_nothing(tmp_path: Path, body: bytes):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms())
        before = await snapshot(room)
        head = f"POST /api/v1/replay HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\n"
        answer = await raw(room, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        refused(answer, 400, 404)
        assert await snapshot(room) == before


async def test_a_body_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(middleware, "REQUEST_DEADLINE", 0.3)
    async with served(tmp_path) as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
        head = (
            f"POST /api/v1/backfill HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\nContent-Length: 60000\r\n"
        )
        writer.write(f"{head}\r\n".encode())

        async def trickle() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        async with asyncio.timeout(10):
            assert b" 504 " in await reader.readline()
        trickling.cancel()
        await close(writer)
        assert room.sweeps == []


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
async def test_a_head_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes):
    monkeypatch.setattr(connections, "IDLE", 0.2)
    async with served(tmp_path) as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
        writer.write(begun)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        await close(writer)


async def test_connections_are_bounded_and_room_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    async with served(tmp_path) as room, AsyncExitStack() as held:
        assert room.admin._runner is not None
        server = room.admin._runner.server
        assert server is not None
        for number in range(1, 6):
            _, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
            held.push_async_callback(close, writer)
            await until(lambda number=number: len(server.connections) == number)
        with capture_logs() as lines:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
                with suppress(ConnectionError):
                    async with asyncio.timeout(10):
                        assert await reader.read() == b"", "closed without a word"
                await close(writer)
        assert 1 <= len([line for line in lines if line["event"] == "admin_connection_refused"]) <= 3
        await held.aclose()
        await until(lambda: server.connections == [])
        assert (await room.ask("GET", "/healthz"))[0] == 200


async def test_a_pipeline_of_requests_is_one_after_another(tmp_path: Path):
    """A second request hidden in the first one's body is none."""
    async with served(tmp_path) as room:
        hidden = f"POST /api/v1/backfill HTTP/1.1\r\n{AUTHORIZED}{JSON_BODY}"
        head = f"POST /api/v1/targets/gone/pause HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\n"
        refused(await raw(room, f"{head}Content-Length: {len(hidden)}\r\n\r\n{hidden}"), 400)
        assert room.sweeps == []
