"""Watermarks and ballast: stop accepting before the disk is full, start again when it has healed."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.clock import FakeClock
from support.until import until

from relay.board import Gate
from relay.metrics import Metrics
from relay.store import disk
from relay.store.disk import MIB, DiskLevel, DiskWatch, Watermarks, disk_level, network_filesystem

OK, LOW, FULL = DiskLevel.OK, DiskLevel.LOW, DiskLevel.FULL
MARKS = Watermarks(low=1000, full=200, margin=100, ballast=50)


@pytest.mark.parametrize(
    ("free", "before", "after"),
    [
        (1000, OK, OK), (999, OK, LOW), (1099, LOW, LOW), (1100, LOW, OK),
        (200, OK, LOW), (199, OK, FULL), (0, LOW, FULL), (200, LOW, LOW),
        (299, FULL, FULL), (300, FULL, LOW), (1099, FULL, LOW), (1100, FULL, OK),
    ],
)  # fmt: skip
def test_a_level_is_left_only_well_above_its_mark(free: int, before: DiskLevel, after: DiskLevel):
    assert disk_level(free, before, MARKS) is after


def test_giving_the_ballast_up_and_making_it_again_never_swings():
    """What the ballast frees must not look like healing, and what it takes must not look like trouble."""
    for marks, before in itertools.product([MARKS, Watermarks()], [OK, LOW]):
        just_full = marks.full - 1
        assert disk_level(just_full, before, marks) is FULL
        assert disk_level(just_full + marks.ballast, FULL, marks) is FULL
        healed = marks.full + marks.margin
        assert disk_level(healed, FULL, marks) is LOW
        assert disk_level(healed - marks.ballast, LOW, marks) is LOW


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/export /srv nfs4 rw 0 0
/dev/vdb /srv/local\\040disk xfs rw 0 0
//server/share /mnt/share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/", None), ("/var/lib", None), ("/srv", "nfs4"), ("/srv/relay", "nfs4"), ("/srvx", None),
     ("/srv/local disk/relay", None), ("/mnt/share/a", "cifs")],
)  # fmt: skip
def test_a_network_filesystem_is_recognised(folder: str, kind: str | None):
    """Failure mode 83."""
    assert network_filesystem(folder, MOUNTS) == kind


async def test_a_store_on_a_network_filesystem_is_warned_of(bay: "Bay", monkeypatch: pytest.MonkeyPatch):
    with capture_logs() as quiet:
        await bay.watch.warn_of_network()
    monkeypatch.setattr(disk, "network_filesystem", lambda *_: "nfs4")
    with capture_logs() as loud:
        await bay.watch.warn_of_network()
    assert quiet == []
    assert [(line["event"], line["kind"]) for line in loud] == [("store_on_network_filesystem", "nfs4")]


class Bay:
    """A watch over a disk whose room the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: int | OSError = 4096 * MIB
        self.gate, self.metrics, self.clock = Gate(), Metrics("test"), FakeClock()
        self.ballast = folder / "relay.db.ballast"
        marks = Watermarks(ballast=MIB)
        self.watch = DiskWatch(folder / "relay.db", self.gate, self.metrics.store_free, self.clock, marks)
        monkeypatch.setattr(disk, "_free_bytes", self._measure)

    def _measure(self, _folder: Path) -> int:
        if isinstance(self.free, OSError):
            raise self.free
        return self.free

    async def at(self, free: int | OSError) -> list[Any]:
        self.free = free
        with capture_logs() as lines:
            await self.watch.run_once()
        return lines


@pytest.fixture
def bay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bay:
    return Bay(tmp_path, monkeypatch)


async def test_it_warns_shuts_and_opens_again_and_says_each_once(bay: Bay):
    """Failure mode 77."""
    assert await bay.at(2048 * MIB) == []
    assert bay.ballast.stat().st_size == MIB
    (warning,) = await bay.at(1000 * MIB)
    assert (warning["event"], warning["log_level"], warning["free_mib"]) == ("disk_low", "warning", 1000)
    assert await bay.at(999 * MIB) == []
    assert bay.gate.reason is None
    (error,) = await bay.at(255 * MIB)
    assert (error["event"], error["log_level"]) == ("disk_full", "error")
    assert bay.gate.reason is not None
    assert "less than 256 MiB left: nothing is accepted until 384 MiB are free" in bay.gate.reason
    assert not bay.ballast.exists()
    assert await bay.at(10 * MIB) == []
    assert await bay.at(383 * MIB) == []
    assert bay.gate.reason is not None
    assert not bay.ballast.exists()
    (healing,) = await bay.at(384 * MIB)
    assert healing["event"] == "disk_low"
    assert bay.gate.reason is None
    assert bay.ballast.stat().st_size == MIB
    (healed,) = await bay.at(2048 * MIB)
    assert healed["event"] == "disk_ok"


async def test_it_wakes_whoever_waits_at_the_gate(bay: Bay):
    shut = asyncio.create_task(bay.gate.until_shut())
    await bay.at(0)
    async with asyncio.timeout(5):
        await shut
    opened = asyncio.create_task(bay.gate.until_open())
    await bay.at(4096 * MIB)
    async with asyncio.timeout(5):
        await opened


async def test_ballast_is_only_made_where_there_is_room_for_it(bay: Bay):
    await bay.at(300 * MIB)
    assert not bay.ballast.exists()
    await bay.at(384 * MIB)
    assert bay.ballast.exists()
    assert (bay.ballast.stat().st_blocks * 512, bay.ballast.stat().st_mode & 0o777) == (MIB, 0o600)


async def test_half_a_ballast_is_made_whole_and_a_failed_one_removed(bay: Bay, monkeypatch: pytest.MonkeyPatch):
    bay.ballast.write_bytes(b"half")
    await bay.at(2048 * MIB)
    assert bay.ballast.stat().st_size == MIB
    bay.ballast.unlink()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    (line,) = await bay.at(2048 * MIB)
    assert (line["event"], "No space left on device" in line["detail"]) == ("disk_watch_failed", True)
    assert await bay.at(2048 * MIB) == []
    assert not bay.ballast.exists()


async def test_a_disk_that_cannot_be_measured_keeps_its_level(bay: Bay):
    await bay.at(0)
    (line,) = await bay.at(OSError(5, "Input/output error"))
    assert (line["event"], line["detail"]) == ("disk_watch_failed", "cannot measure the disk: Input/output error")
    assert await bay.at(OSError(5, "Input/output error")) == []
    assert bay.gate.reason is not None


async def test_the_room_is_a_metric(bay: Bay):
    await bay.at(777 * MIB)
    assert bay.metrics.registry.get_sample_value("houdini_relay_store_free_bytes") == 777 * MIB


async def test_the_real_disk_is_measured(tmp_path: Path):
    metrics = Metrics("test")
    await DiskWatch(tmp_path / "relay.db", Gate(), metrics.store_free, FakeClock()).run_once()
    assert metrics.store_free._value.get() > 0


async def test_it_measures_every_five_seconds(bay: Bay):
    running = asyncio.create_task(bay.watch.run())
    for free in (400 * MIB, 500 * MIB):
        await bay.clock.until_asleep(1)
        bay.free = free
        await bay.clock.advance(4.9)
        assert bay.metrics.store_free._value.get() != free
        await bay.clock.advance(0.1)
        await until(lambda wanted=free: bay.metrics.store_free._value.get() == wanted)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
