"""The command line's client: a sentence for everything that can go wrong on the way."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from admin_kit import TOKEN, served

from relay.admin import client as client_module
from relay.admin.client import AdminClient
from relay.admin.server_sent import Told
from relay.config import AdminSettings
from relay.errors import DaemonRefused, DaemonUnavailable, SecretUnreadable
from relay.secret import Secret
from relay.simulator.child import free_port


def settings(port: int, token: str | None = TOKEN) -> AdminSettings:
    base = AdminSettings(listen=("127.0.0.1", port))
    return base.model_copy(update={"token": None if token is None else Secret.of(token)})


SILENCE = b""


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[int]:
    """A server that says this to everybody."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        if reply is not SILENCE:
            writer.close()
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


OURS = ("Server: houdini-relay", "Content-Type: application/json")


async def get(port: int, **changes: str | None) -> object:
    async with AdminClient(settings(port, **changes)) as client:
        return await client.get("/api/v1/status")


async def test_it_asks_and_posts(tmp_path: Path):
    async with served(tmp_path) as room, AdminClient(room.reachable) as client:
        assert (await client.get("/api/v1/status"))["fine"] is True
        assert await client.post("/api/v1/backfill", {}) == {"requested": True}
        assert client.address == f"127.0.0.1:{room.admin.port}"


async def test_a_refusal_keeps_its_code(tmp_path: Path):
    async with served(tmp_path) as room, AdminClient(room.reachable) as client:
        with pytest.raises(DaemonRefused, match="there is nothing at this path") as caught:
            await client.get("/api/v1/nothing")
        assert (caught.value.status, caught.value.code) == (404, "not_found")


async def test_one_relay_is_not_steered_by_another_ones_file(tmp_path: Path):
    """Both may name the same port; what only reads is answered, and whoever asks is told whose it is."""
    mine, other, told = tmp_path / "mine.yaml", tmp_path / "ö other.yaml", list[str]()
    mine.write_text("a")
    other.write_text("b")
    async with served(tmp_path) as room:
        room.board.config.path = str(other)
        async with await asyncio.to_thread(AdminClient, room.reachable, mine, told.append) as client:
            assert (await client.get("/api/v1/status"))["fine"] is True
            assert [one async for one in first_of(client.listen("/api/v1/stream"))]
            assert told == [str(other)] * 2
            with pytest.raises(DaemonRefused, match=r"nothing was done: this relay runs by .*other\.yaml") as caught:
                await client.post("/api/v1/targets/alpha/pause", {})
            assert (caught.value.status, caught.value.code) == (409, "another_configuration")
            assert not (await room.bench.standing("alpha")).stopped


@pytest.mark.parametrize("what", ["a pipe", "a file without end", "a loop of links"])
async def test_whatever_lies_in_the_place_of_the_file_keeps_nobody_waiting(tmp_path: Path, what: str):
    ours = tmp_path / "ours.yaml"
    match what:
        case "a pipe":
            os.mkfifo(ours)
        case "a file without end":
            ours.symlink_to("/dev/zero")
        case _:
            ours.symlink_to(ours)
    async with served(tmp_path) as room, asyncio.timeout(10):
        room.board.config.path = str(ours)
        async with await asyncio.to_thread(AdminClient, room.reachable, ours) as client:
            assert (await client.post("/api/v1/targets/alpha/pause", {}))["paused"]


async def first_of(stream: AsyncIterator[Told]) -> AsyncIterator[Told]:
    async for one in stream:
        yield one
        return


@pytest.mark.parametrize("case", ["the same", "a copy", "edited since", "gone since", "no file"])
async def test_the_same_file_or_a_copy_of_it_is_good(tmp_path: Path, case: str):
    """An operator may be on another machine, and a reload may be due."""
    told: list[str] = []
    ours, theirs = tmp_path / "ours.yaml", tmp_path / "theirs.yaml"
    ours.write_text("a")
    theirs.write_text("a")
    async with served(tmp_path) as room:
        room.board.config.path = "" if case == "no file" else str(ours)
        file = theirs if case in ("a copy", "no file") else ours
        client = await asyncio.to_thread(AdminClient, room.reachable, file, told.append)
        if case == "edited since":
            ours.write_text("b")
        if case == "gone since":
            ours.unlink()
        async with client:
            assert (await client.post("/api/v1/targets/alpha/pause", {}))["paused"]
            await client.get("/api/v1/status")
    assert told == []


async def test_nobody_there():
    with pytest.raises(DaemonUnavailable, match=r"nobody answers at 127.0.0.1:\d+ .*is `houdini-relay run` running"):
        await get(free_port())


async def test_a_wrong_or_missing_token(tmp_path: Path):
    async with served(tmp_path) as room:
        with pytest.raises(DaemonUnavailable, match=r"does not accept the token of this configuration") as caught:
            await get(room.admin.port, token="wrong-token-of-mine")
        assert "wrong-token" not in str(caught.value)
        with pytest.raises(DaemonUnavailable, match=r"does not accept a request without a token; see admin.token"):
            await get(room.admin.port, token=None)


@pytest.mark.parametrize(
    "said",
    [
        reply(b"<html>", "Server: nginx"),
        reply(b"{}", "Server: nginx"),
        reply(b"not json", *OURS),
        reply(b"[1]", *OURS),
        reply(b"[" * 100_000, *OURS),
        reply(b"", "Server: nginx", "Location: http://127.0.0.1:1/", status="302 Found"),
    ],
)
async def test_somebody_else(said: bytes):
    async with answering(said) as port:
        with pytest.raises(DaemonUnavailable, match="is not houdini-relay"):
            await get(port)


@pytest.mark.parametrize("said", [b"\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_an_answer_that_is_none(said: bytes):
    async with answering(said) as port:
        with pytest.raises(DaemonUnavailable, match="broke off the answer"):
            await get(port)


async def test_an_answer_that_is_too_long_or_too_late(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "ANSWER_CAP", 100)
    async with answering(reply(b"x" * 200, *OURS)) as port:
        with pytest.raises(DaemonUnavailable, match="broke off"):
            await get(port)
    monkeypatch.setattr(client_module, "PATIENCE", 0.2)
    async with answering(SILENCE) as port:
        with pytest.raises(DaemonUnavailable, match="gave no answer within"):
            await get(port)


def test_configurations_that_name_nobody_to_ask():
    with pytest.raises(DaemonUnavailable, match=r"admin.listen is null"):
        AdminClient(AdminSettings(listen=None))
    with pytest.raises(DaemonUnavailable, match="port 0"):
        AdminClient(AdminSettings(listen=("127.0.0.1", 0)))

    def unreadable() -> str:
        raise SecretUnreadable("RELAY_ADMIN_TOKEN is not set")

    token = Secret(unreadable, "environment")
    with pytest.raises(DaemonUnavailable, match=r"admin.token cannot be read: RELAY_ADMIN_TOKEN is not set"):
        AdminClient(settings(1).model_copy(update={"token": token}))


@pytest.mark.parametrize(
    ("listen", "asked"), [("0.0.0.0", "127.0.0.1:8787"), ("::", "[::1]:8787"), ("::1", "[::1]:8787")]
)
def test_whoever_listens_everywhere_is_asked_on_loopback(listen: str, asked: str):
    config = AdminSettings(listen=("127.0.0.1", 8787)).model_copy(update={"listen": (listen, 8787)})
    assert AdminClient(config).address == asked
