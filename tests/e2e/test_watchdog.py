"""What the service manager hears from the real process, over a real NOTIFY_SOCKET."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage import Stage
from support.disks import build_shim
from support.until import until
from test_reload import ReloadStage

from relay.simulator.faults import Action

EVERY = 0.2
"""Seconds between pings: a third of WATCHDOG_USEC."""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.setblocking(False)
        self._heard: list[dict[str, str]] = []

    @property
    def heard(self) -> list[dict[str, str]]:
        while True:
            try:
                said = self._socket.recv(4096).decode()
            except BlockingIOError:
                return self._heard
            self._heard.append(dict(line.split("=", 1) for line in said.splitlines()))

    def count(self, key: str) -> int:
        return sum(key in one for one in self.heard)

    async def pings(self, seconds: float) -> int:
        """How many pings come within this time."""
        before = self.count("WATCHDOG")
        await asyncio.sleep(seconds)
        return self.count("WATCHDOG") - before

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.address))
    monkeypatch.setenv("WATCHDOG_USEC", str(round(3 * EVERY * 1e6)))
    yield made
    made.close()


async def test_ready_reloading_and_ready_again_in_this_order(tmp_path: Path, manager: Manager):
    """READY comes once per start and once per reload, the refused one included; the stamp is of this reload."""
    async with ReloadStage(tmp_path) as stage:
        await stage.start_relay()
        await until(lambda: manager.count("READY") == 1)
        before = time.monotonic()
        await stage.reload("upstream: [")
        settings = stage.settings()
        settings["targets"][0]["timeout"] = "7s"
        await stage.reload(settings)
        await until(lambda: manager.count("READY") == 3)
        assert await stage.relay.stop() == 0
        said = [one for one in manager.heard if "WATCHDOG" not in one]
        assert [next(iter(one)) for one in said] == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
        stamps = [int(one["MONOTONIC_USEC"]) / 1e6 for one in said if "RELOADING" in one]
        assert before <= stamps[0] < stamps[1] <= time.monotonic()
        assert "refused" in said[2]["STATUS"]
        assert said[4]["STATUS"] == "delivering to 1 target(s)"


async def test_a_reload_asked_for_before_it_is_ready_comes_after_it(tmp_path: Path, manager: Manager):
    async with ReloadStage(tmp_path) as stage:
        await stage.relay.start()
        status = Path(f"/proc/{stage.relay.pid}/status")
        # Held back or handled: either way it does not end the process any more.
        await until(lambda: holds_sighup(status.read_text()), 20)
        os.kill(stage.relay.pid, signal.SIGHUP)
        await stage.relay.until_ready()
        await until(lambda: manager.count("READY") == 2)
        said = [next(iter(one)) for one in manager.heard if "WATCHDOG" not in one]
        assert said == ["READY", "RELOADING", "READY"]
        assert stage.logged("config_unchanged")


def holds_sighup(status: str) -> bool:
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt")))
    return any(int(mask, 16) & 1 for mask in masks.values())


async def test_pings_go_on_while_the_upstream_is_down(tmp_path: Path, manager: Manager):
    """Failure modes 135 and 136: a restart repairs no outage of somebody else."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        stage.upstream.faults.refuse_count = -1
        await stage.upstream.act(Action.DROP)
        await until(lambda: stage.upstream.open_sockets == 0)
        assert await manager.pings(2.0) >= 3


async def test_pings_stop_with_the_loop_and_go_on_with_it(tmp_path: Path, manager: Manager):
    """Failure mode 135: they come from the loop, so nothing else can keep a stuck one alive."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        await until(lambda: manager.count("WATCHDOG") >= 2)
        os.kill(stage.relay.pid, signal.SIGSTOP)
        await until(stopped(stage))
        assert await manager.pings(1.0) == 0
        os.kill(stage.relay.pid, signal.SIGCONT)
        before = manager.count("WATCHDOG")
        await until(lambda: manager.count("WATCHDOG") > before)


def stopped(stage: Stage) -> Callable[[], bool]:
    return lambda: stage.process.status() == "stopped"


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_pings_stop_while_the_store_is_stuck(tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch):
    """Failure mode 135: a disk that hangs in fsync holds the one writer; the loop turns, and that is not enough."""
    hang = tmp_path / "hang"
    async with ReloadStage(tmp_path) as stage:
        with monkeypatch.context() as preloaded:
            preloaded.setenv("LD_PRELOAD", str(build_shim(tmp_path)))
            preloaded.setenv("FAULT_HANG", str(hang))
            preloaded.setenv("FAULT_MATCH", "relay.db")
            await stage.start_relay()
        await until(lambda: manager.count("WATCHDOG") >= 2)
        hang.touch()
        playing = asyncio.create_task(stage.player(orders=2, rate=20).run())
        await until(lambda: stage.logged("watchdog_withheld"), 30)
        assert await manager.pings(2.0) == 0
        hang.unlink()
        before = manager.count("WATCHDOG")
        await until(lambda: manager.count("WATCHDOG") > before, 20)
        await playing
        await stage.until_all_delivered()
    assert stage.logged("watchdog_resumed")
