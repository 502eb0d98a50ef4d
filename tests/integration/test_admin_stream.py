"""`GET /api/v1/stream`: what happens is told as it happens, to a bounded number, and ends when the relay does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admin_kit import TOKEN, AdminRoom, served
from support.until import until

from relay import log
from relay.admin import stream as stream_module
from relay.admin.client import AdminClient
from relay.errors import DaemonRefused, DaemonUnavailable
from relay.live import WAITING

PATH = "/api/v1/stream"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def listening(room: AdminRoom, query: str = "", **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """An open stream, its opening lines still unread."""
    limit = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.get(room.url + PATH + query, headers=AUTHORIZED | headers) as answer,
    ):
        yield answer


async def block(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The fields of the next event; a comment's name is empty."""
    fields: dict[str, str] = {}
    while line := (await answer.content.readline()).decode().rstrip("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")
    return fields


async def told(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    fields = await block(answer)
    return fields["event"], json.loads(fields["data"])


async def test_a_happening_is_one_event_of_one_line(tmp_path: Path):
    async with served(tmp_path) as room, listening(room) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        opening = await block(answer)
        assert opening["retry"] == "3000"
        room.board.live.publish("attempt", lambda: {"target": "alpha", "error": "line\nfeed \x1b[31m \u2028"})
        fields = await block(answer)
        assert fields["event"] == "attempt"
        assert json.loads(fields["data"]) == {"target": "alpha", "error": "line\\nfeed \\x1b[31m \\u2028"}
        assert fields["id"] == opening["id"].replace("-0", "-1")


async def test_secrets_are_blanked(tmp_path: Path):
    log.register_secrets(["canary-in-an-error"])
    async with served(tmp_path) as room, listening(room) as answer:
        await block(answer)
        room.board.live.publish("attempt", lambda: {"error": "said canary-in-an-error"})
        assert await told(answer) == ("attempt", {"error": "said [redacted]"})


@pytest.mark.parametrize(
    ("query", "heard"),
    [
        ("", ["attempt a", "attempt b", "target a", "upstream"]),
        ("?kinds=target,upstream", ["target a", "upstream"]),
        ("?target=a", ["attempt a", "target a"]),
        ("?kinds=attempt&target=b", ["attempt b"]),
    ],
)
async def test_only_what_is_asked_for(tmp_path: Path, query: str, heard: list[str]):
    async with served(tmp_path) as room, listening(room, query) as answer:
        await block(answer)
        live = room.board.live
        for kind, data in (("attempt", {"target": "a"}), ("attempt", {"target": "b"}), ("target", {"name": "a"})):
            live.publish(kind, partial(dict, data))
        live.publish("upstream", lambda: {})
        live.end()
        found = []
        while (fields := await block(answer)) != {}:
            data = json.loads(fields["data"])
            found.append(f"{fields['event']} {data.get('target', data.get('name', ''))}".strip())
        assert found == heard


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?kinds=", "bad_kinds"),
        ("?kinds=attempt,missed", "bad_kinds"),
        ("?kinds=attempts", "bad_kinds"),
        ("?target=", "bad_target"),
        ("?target=A", "bad_target"),
        ("?target=a%00", "bad_target"),
        ("?nope=1", "bad_query"),
        ("?target=a&target=b", "bad_query"),
    ],
)
async def test_what_cannot_be_asked_is_refused(tmp_path: Path, query: str, code: str):
    async with served(tmp_path) as room:
        status, document, _ = await room.ask("GET", PATH + query)
        assert (status, document["error"]["code"]) == (400, code)


async def test_nobody_listens_without_the_token(tmp_path: Path):
    async with served(tmp_path) as room:
        assert (await room.ask("GET", PATH, token=None))[0] == 401
        assert (await room.ask("GET", PATH, headers={"host": "evil.example"}))[0] == 403
        assert (await room.ask("GET", PATH, headers={"origin": "http://evil.example"}))[0] == 403
        assert room.board.live.listeners == 0


async def test_other_methods_are_refused(tmp_path: Path):
    async with served(tmp_path) as room:
        for method in ("HEAD", "OPTIONS", "DELETE"):
            assert (await room.ask(method, PATH))[0] == 405


async def test_who_comes_back_is_told_how_many_were_missed(tmp_path: Path):
    async with served(tmp_path) as room:
        live = room.board.live
        async with listening(room) as answer:
            opening = await block(answer)
            live.publish("attempt", lambda: {})
            last_id = (await block(answer))["id"]
        async with listening(room, **{"last-event-id": last_id}) as answer:
            await block(answer)
            live.publish("attempt", lambda: {"n": 2})
            assert await told(answer) == ("attempt", {"n": 2})
        async with listening(room, **{"last-event-id": opening["id"]}) as answer:
            await block(answer)
            assert await told(answer) == ("missed", {"count": 2})


@pytest.mark.parametrize("last_id", ["abc-1", "0-0", "nonsense", "", "-", "9" * 400, "\u00e9"])
async def test_an_id_of_another_life_of_the_relay_means_an_unknown_number(tmp_path: Path, last_id: str):
    async with served(tmp_path) as room, listening(room, **{"last-event-id": last_id}) as answer:
        await block(answer)
        assert await told(answer) == ("missed", {"count": None})


async def test_an_id_that_is_yet_to_come_is_none_of_ours(tmp_path: Path):
    async with served(tmp_path) as room:
        async with listening(room) as answer:
            ahead = (await block(answer))["id"].replace("-0", "-5")
        async with listening(room, **{"last-event-id": ahead}) as answer:
            await block(answer)
            assert await told(answer) == ("missed", {"count": None})


async def test_who_does_not_read_is_told_what_was_dropped(tmp_path: Path):
    async with served(tmp_path) as room, listening(room) as slow:
        for number in range(3 * WAITING):  # without a turn of the loop in between, so nothing can be written
            room.board.live.publish("attempt", partial(dict, n=number))
        await block(slow)
        assert await told(slow) == ("missed", {"count": 2 * WAITING})
        assert await told(slow) == ("attempt", {"n": 2 * WAITING})


async def test_silence_is_broken_by_a_heartbeat_with_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_module, "_LOOK", 0.01)
    monkeypatch.setattr(stream_module, "HEARTBEAT", 0.05)
    async with served(tmp_path) as room, listening(room, "?kinds=target") as answer:
        opening = await block(answer)
        room.board.live.publish("attempt", lambda: {})
        async with asyncio.timeout(10):
            while (beat := await block(answer))["id"] == opening["id"]:
                assert beat[""] == "still here"
        assert beat["id"] == opening["id"].replace("-0", "-1")


async def test_there_is_an_end_to_how_many_listen_and_for_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_module, "LISTENERS", 3)
    monkeypatch.setattr(stream_module, "_LOOK", 0.01)
    async with served(tmp_path) as room:
        async with AsyncExitStack() as open_streams:
            for _ in range(3):
                await block(await open_streams.enter_async_context(listening(room)))
            status, document, answer = await room.ask("GET", PATH)
            assert (status, document["error"]["code"]) == (503, "too_many_listeners")
            assert answer.headers["retry-after"] == "10"
        await until(lambda: room.board.live.listeners == 0)
        monkeypatch.setattr(stream_module, "LONGEST", 0.0)
        async with listening(room) as answer:
            await block(answer)
            assert await answer.content.read() == b""


async def test_a_listener_that_leaves_is_noticed_though_nothing_happens(tmp_path: Path):
    async with served(tmp_path) as room:
        async with listening(room) as answer:
            await block(answer)
            assert room.board.live.listeners == 1
        await until(lambda: room.board.live.listeners == 0, 10)


async def test_stopping_does_not_wait_for_listeners(tmp_path: Path):
    async with served(tmp_path) as room, AsyncExitStack() as open_streams:
        streams = [await open_streams.enter_async_context(listening(room)) for _ in range(5)]
        for one in streams:
            await block(one)
        began = asyncio.get_running_loop().time()
        await room.admin.stop()
        assert asyncio.get_running_loop().time() - began < 1.5, "less than answers under way get"
        for one in streams:
            assert await one.content.read() == b""


async def test_the_client_hears_what_is_told_and_that_it_ended(tmp_path: Path):
    async with served(tmp_path) as room:
        heard = []
        async with AdminClient(room.reachable) as client:
            async for one in client.listen(PATH):
                heard.append((one.kind, one.data))
                if one.kind == "":
                    room.board.live.publish("target", lambda: {"name": "alpha", "state": "paused"})
                else:
                    room.board.live.end()
        assert heard == [("", None), ("target", {"name": "alpha", "state": "paused"})]


async def test_the_client_says_why_it_cannot_listen(tmp_path: Path):
    async with served(tmp_path) as room:
        async with AdminClient(room.reachable) as client:
            with pytest.raises(DaemonRefused, match="kinds"):
                await anext(client.listen(f"{PATH}?kinds=x"))
            with pytest.raises(DaemonUnavailable, match="is not houdini-relay"):
                await anext(client.listen("/api/v1/status"))
        address = room.reachable
    async with AdminClient(address) as client:
        with pytest.raises(DaemonUnavailable, match="nobody answers"):
            await anext(client.listen(PATH))
