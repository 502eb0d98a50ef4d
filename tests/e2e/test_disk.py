"""The whole relay on a disk that gets full, heals, or fails under it; and a copy taken while it works."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from stage import Stage
from support.disks import build_shim, failing, remount, small_disk
from support.until import until

from relay.store.offline import check_file


class DiskStage(Stage):
    """A stage whose store lies on a disk of its own."""

    def __init__(self, folder: Path, disk: Path) -> None:
        super().__init__(folder)
        self.database = disk / "relay.db"

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"store": {"url": f"sqlite:///{self.database}"}}

    async def unready_reasons(self) -> str:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.admin_port}/readyz") as answer,
            ):
                return await answer.text()
        except aiohttp.ClientError:
            return ""

    async def exit_code(self) -> int:
        assert self.relay._process is not None
        async with asyncio.timeout(40):
            return await self.relay._process.wait()

    def logged(self) -> list[dict[str, Any]]:
        lines = (self.folder / "relay.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def finish(self) -> None:
        """Everything arrived, in order, and the store is sound."""
        await self.until_all_delivered()
        verdict = self.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        assert await self.relay.stop() == 0
        assert await asyncio.to_thread(check_file, self.database) == []


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_disk_that_fills_stops_intake_and_one_that_heals_starts_it(tmp_path: Path):
    """Failure mode 77: deliveries go on, nothing is accepted that could not be stored, no crash, no loss."""
    with small_disk(tmp_path / "disk", "2G") as disk:
        async with DiskStage(tmp_path, disk) as stage:
            await stage.start_relay()
            ballast = disk / "relay.db.ballast"
            assert ballast.stat().st_blocks * 512 == 64 << 20
            playing = asyncio.create_task(stage.player(orders=40, rate=10).run())
            await until(lambda: len(stage.receiver.arrivals) > 5)
            remount(disk, "size=200M")

            async def shut() -> bool:
                return "store: the disk of" in await stage.unready_reasons()

            await until(shut, 20)
            await until(lambda: stage.upstream.open_sockets == 0, 10)
            assert not ballast.exists()
            before = len(stage.world.orders)
            await until(lambda: len(stage.world.orders) > before, 20)  # life upstream goes on meanwhile
            remount(disk, "size=2G")
            await stage.relay.until_ready()
            await until(ballast.exists, 10)
            await playing
            await stage.finish()
    events = [line["event"] for line in stage.logged()]
    assert events.count("disk_full") == events.count("disk_ok") == 1
    assert events.count("started") == 1


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_disk_that_is_full_at_once_ends_it_with_3_and_it_comes_back(tmp_path: Path):
    """Failure mode 77: no watermark helps when something else writes the disk full within a second."""
    with small_disk(tmp_path / "disk", "600M") as disk:
        async with DiskStage(tmp_path, disk) as stage:
            await stage.start_relay()
            playing = asyncio.create_task(stage.player(orders=60, rate=20).run())
            await until(lambda: len(stage.receiver.arrivals) > 5)
            ending = asyncio.create_task(stage.exit_code())
            number = 0
            while not ending.done():
                number += 1
                await asyncio.to_thread(fill, disk / f"filler-{number}")
                await asyncio.sleep(0.02)
            assert await ending == 3
            (line,) = [line for line in stage.logged() if line["event"] == "store_failed"]
            assert "the disk is full; free some room and start again" in line["error"]
            for filler in disk.glob("filler-*"):
                filler.unlink()
            await stage.start_relay()
            await playing
            await stage.finish()


def fill(path: Path) -> None:
    """Take every block that is left."""
    room = os.statvfs(path.parent)
    with path.open("wb") as filler, suppress(OSError):  # the relay may have been faster
        if room.f_bavail:
            os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("at", [1, 5, 20])
async def test_a_failed_fsync_under_load_ends_it_with_3_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """Failure mode 76, through the whole relay."""
    trigger = tmp_path / "now"
    async with DiskStage(tmp_path, tmp_path) as stage:
        with monkeypatch.context() as preloaded:
            for name, value in failing(build_shim(tmp_path), "sync", at, when=trigger).items():
                preloaded.setenv(name, value)
            await stage.start_relay()
        playing = asyncio.create_task(stage.player(orders=60, rate=40).run())
        await until(lambda: len(stage.receiver.arrivals) > 20)
        trigger.touch()
        assert await stage.exit_code() == 3
        assert [line["event"] for line in stage.logged()].count("store_failed") == 1
        await stage.start_relay()
        await playing
        await stage.finish()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_copy_taken_under_load_by_the_command_is_a_sound_store(tmp_path: Path):
    """Failure mode 83: `store backup` asks the running relay, whose own connection makes the copy."""
    async with DiskStage(tmp_path, tmp_path) as stage:
        await stage.start_relay()
        playing = asyncio.create_task(stage.player(orders=80, rate=60).run())
        await until(lambda: len(stage.receiver.arrivals) > 30)
        copy = tmp_path / "copy.db"
        done = await asyncio.to_thread(command, "store", "backup", str(copy), "-c", str(stage.config), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"file": str(copy), "bytes": copy.stat().st_size}
        assert await asyncio.to_thread(check_file, copy) == []
        again = await asyncio.to_thread(command, "store", "backup", str(copy), "-c", str(stage.config))
        assert (again.returncode, "exists already" in again.stderr) == (1, True), again.stderr
        await playing
        await stage.finish()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
