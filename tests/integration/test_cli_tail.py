"""`tail` as it is typed, over restarts of the relay; `completion`; `status` of a relay that is not there."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from admin_kit import TOKEN, AdminRoom, served
from cli_kit import CONFIG, Terminal
from structlog.testing import capture_logs
from support.factories import event
from support.stores import again

from relay.admin.client import AdminClient
from relay.admin.stream import STREAM_PATH
from relay.cli.tail import follow, line_of
from relay.errors import BrokenOff
from relay.simulator.child import free_port

ATTEMPT = {
    "at": "2026-11-22T07:04:50.123Z",
    "delivery": 7,
    "event_id": "evt_order-1_1",
    "type": "order.finished",
    "order": "order-1",
    "target": "alpha",
    "number": 1,
    "outcome": "ok",
    "status_code": 200,
    "kind": None,
    "duration_ms": 12.5,
    "error": None,
    "status": "delivered",
    "reason": None,
    "manual": False,
    "probe": False,
}


def attempt(**changes: Any) -> dict[str, Any]:
    return ATTEMPT | changes


class Tail:
    """The command as a process of its own, so that it can be interrupted as from a terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def said(self) -> str:
        assert self.process.stderr is not None
        return " ".join((await self.process.stderr.readline()).decode().split())

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await self.process.wait()


@asynccontextmanager
async def tailing(config: Path, *options: str) -> AsyncIterator[Tail]:
    command = (sys.executable, "-m", "relay", "tail", "-c", str(config), *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=dict(os.environ))
    tail = Tail(process)
    try:
        async with asyncio.timeout(40):
            yield tail
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def configured(folder: Path, port: int) -> Path:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(listen=f'"127.0.0.1:{port}"', token=TOKEN, store=folder / "relay.db"))
    return config


async def test_a_line_an_attempt_until_ctrl_c(tmp_path: Path):
    async with served(tmp_path) as room, tailing(configured(tmp_path, room.admin.port)) as tail:
        assert (await tail.said()).startswith("Following deliveries of the relay at 127.0.0.1:")
        room.board.live.publish("attempt", lambda: attempt())
        room.board.live.publish(
            "attempt", lambda: attempt(outcome="retry", status_code=None, kind="timeout", status="pending")
        )
        assert await tail.line() == click.unstyle(line_of(ATTEMPT))
        assert " ".join((await tail.line()).split()) == "07:04:50 retry alpha order.finished order-1 timeout 0.01s"
        assert await tail.interrupt() == 0


async def test_json_lines_of_one_target(tmp_path: Path):
    config_for = lambda room: configured(tmp_path, room.admin.port)  # noqa: E731 - read once, two lines below
    async with served(tmp_path) as room, tailing(config_for(room), "--json", "--target", "beta") as tail:
        await tail.said()
        room.board.live.publish("attempt", lambda: attempt())
        room.board.live.publish("attempt", lambda: attempt(target="beta", error="said \x1b[2J"))
        found = json.loads(await tail.line())
        assert found == {"kind": "attempt", **attempt(target="beta", error="said \\x1b[2J")}


async def test_a_restart_is_waited_for_and_what_went_by_is_said(tmp_path: Path):
    """The relay ends, another one begins at the same address."""
    port = free_port()
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with tailing_over(first, port, tmp_path) as tail:
        assert await tail.said() == "The relay has gone; waiting for it to come back."
        async with serving(second, port) as room:
            assert await tail.said() == "The relay is back."
            assert "Some attempts went by unseen; `houdini-relay deliveries list`" in await tail.said()
            room.board.live.publish("attempt", lambda: attempt(target="after"))
            assert "after" in await tail.line()


@asynccontextmanager
async def tailing_over(folder: Path, port: int, config_folder: Path) -> AsyncIterator[Tail]:
    """A tail whose relay has just ended."""
    async with serving(folder, port) as room, tailing(configured(config_folder, port)) as tail:
        await tail.said()
        room.board.live.publish("attempt", lambda: attempt())
        await tail.line()
        await room.admin.stop()
        yield tail


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[AdminRoom]:
    room = AdminRoom(folder)
    room.admin._listen = ("127.0.0.1", port)
    await room.bench.open(["alpha"])
    await room.admin.start()
    try:
        yield room
    finally:
        await room.admin.stop()
        await room.store.close()


async def test_a_relay_that_never_ran_is_an_error(tmp_path: Path):
    async with tailing(configured(tmp_path, free_port())) as tail:
        assert "nobody answers" in await tail.said()
        assert await tail.process.wait() == 3


async def test_a_name_that_cannot_be_one_is_a_usage_error(tmp_path: Path):
    async with served(tmp_path) as room, tailing(configured(tmp_path, room.admin.port), "--target", "A b") as tail:
        assert "target" in await tail.said()
        assert await tail.process.wait() == 2


async def test_what_broke_off_at_the_beginning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(tmp_path) as room:
        client = AdminClient(room.reachable)

        async def broken(_path: str, _last_id: str | None) -> AsyncIterator[Any]:
            raise BrokenOff("it broke off")
            yield

        monkeypatch.setattr(client, "listen", broken)
        with pytest.raises(BrokenOff):
            await follow(client, STREAM_PATH, as_json=False)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "07:04:50 ok      alpha   order.finished     order-1                200     0.01s"),
        (
            {"type": "order.initializing", "order": "5josT8V9NDyRQNiWbJGHMq", "duration_ms": 15_000.0},
            "07:04:50 ok      alpha   order.initializing 5josT8V9NDyRQNiWbJGHMq 200    15.00s",
        ),
        ({"status": "dead", "outcome": "retry", "status_code": 500}, "07:04:50 dead    alpha   "),
        ({"outcome": "refused", "status_code": 422}, "07:04:50 refused alpha "),
        ({"target": "x\x1b[2J", "order": "o\n2"}, "x?[2J   order.finished     o?2 "),
        ({"duration_ms": 15_000.0}, "15.00s"),
    ],
)
def test_a_line(changes: dict[str, Any], shown: str):
    line = click.unstyle(line_of(attempt(**changes)))
    assert shown in line
    assert len(line) <= 80


async def test_status_without_a_relay_says_what_the_store_can_tell(tmp_path: Path):
    with capture_logs():
        async with served(tmp_path) as room:
            await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms() - 65_000, targets=["alpha"])
            (head,) = await room.bench.claim("alpha", now_ms=room.clock.wall_ms())
            await room.bench.settle(again(head, due_ms=room.clock.wall_ms(), gone=True))
            terminal = Terminal(room, tmp_path / "config.yaml")
        code, out, err = await terminal.type("status")
        flat = " ".join(out.split())
        assert (code, "this is read from the store" in " ".join(err.split())) == (3, True)
        assert flat.startswith("houdini-relay: does not run 1. nobody answers at 127.0.0.1:")
        assert "-> start it" in flat
        assert "target alpha (parked): 1 waiting, the oldest for 1 min 5 s" in flat
        code, out, _ = await terminal.type("status", "--json")
        document = json.loads(out)
        assert (code, document["fine"], document["problems"][0]["subject"]) == (3, False, "relay")
        assert document["targets"][0]["pending"] == 1


async def complete(config: Path, words: str) -> list[str]:
    """What bash is told for these words; an empty last one stands for what is yet to be typed."""
    told = {"_HOUDINI_RELAY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = "from relay.cli import main; main(prog_name='houdini-relay')"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**os.environ, **told, "HOUDINI_RELAY_CONFIG": str(config)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert err == b""
    return [line.partition(",")[2] for line in out.decode().split()]


async def test_commands_and_targets_are_completed(tmp_path: Path):
    config = configured(tmp_path, 1)
    assert await complete(config, "houdini-relay ta") == ["tail", "targets"]
    assert await complete(config, "houdini-relay targets pause ") == ["alpha"]
    assert await complete(config, "houdini-relay tail --target al") == ["alpha"]
    assert await complete(config, "houdini-relay replay --target b") == []
    assert await complete(tmp_path / "none.yaml", f"houdini-relay targets pause -c {config} ") == ["alpha"]
    assert await complete(tmp_path / "none.yaml", "houdini-relay targets pause ") == [], "and not a word about it"


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
async def test_each_shell_has_its_script(tmp_path: Path, shell: str, word: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "completion", shell, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert word in out.decode()
    assert "_HOUDINI_RELAY_COMPLETE" in out.decode()
