"""Room on the store's disk: two watermarks, and a ballast file that is given up when it gets tight.

On a full disk SQLite cannot even delete. So the relay stops accepting while there is still room to settle
what it has, and keeps some room in reserve for exactly that.
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

from relay.board import Gate
from relay.clock import Clock, next_beat
from relay.log_names import Log

MIB: Final = 1 << 20
INTERVAL: Final = 5.0
"""Seconds between two measurements."""
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "afs"})

_log = structlog.get_logger()


class DiskLevel(IntEnum):
    """How much room there is; ordered from good to bad."""

    OK = 0
    LOW = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Bytes free to unprivileged users.

    Attributes:
        low: below it a warning is logged.
        full: below it nothing more is accepted.
        margin: how far above a mark it has to rise again before that is undone; at least twice `ballast`.
        ballast: size of the file that is removed when `full` is reached.
    """

    low: int = 1024 * MIB
    full: int = 256 * MIB
    margin: int = 128 * MIB
    ballast: int = 64 * MIB


def disk_level(free_bytes: int, before: DiskLevel, marks: Watermarks) -> DiskLevel:
    """The level at this much free room; a level once reached is only left `margin` above its mark."""
    if free_bytes < marks.full + (marks.margin if before is DiskLevel.FULL else 0):
        return DiskLevel.FULL
    if free_bytes < marks.low + (marks.margin if before is not DiskLevel.OK else 0):
        return DiskLevel.LOW
    return DiskLevel.OK


def network_filesystem(folder: str, mounts: str) -> str | None:
    """The kind of filesystem a folder lies on if that is a network's, by the text of `/proc/mounts`."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= len(best) and (folder + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, found
    return kind if kind in _NETWORK else None


class DiskWatch:
    """Measures the disk of one database file, shuts the gate when it is full and opens it when it has healed.

    Attributes:
        level: how much room there is.
        free_bytes: the same as measured last, None before the first time.
    """

    def __init__(
        self, path: Path, gate: Gate, free_bytes: Gauge, clock: Clock, marks: Watermarks | None = None
    ) -> None:
        self._folder = path.parent
        self._ballast = path.with_name(path.name + ".ballast")
        self._gate = gate
        self._gauge = free_bytes
        self._clock = clock
        self._marks = marks or Watermarks()
        self._failure: str | None = None
        self.level = DiskLevel.OK
        self.free_bytes: int | None = None

    async def warn_of_network(self) -> None:
        """Log once if the database lies on a network filesystem, where its lock and its log cannot be relied on."""
        with suppress(OSError):  # no /proc, nothing to say
            kind = await asyncio.to_thread(_network_kind, self._folder)
            if kind is not None:
                advice = "move it to a local disk: locks and the write-ahead log are not safe over a network"
                _log.warning(Log.STORE_ON_NETWORK_FILESYSTEM, folder=str(self._folder), kind=kind, advice=advice)

    async def run(self) -> None:
        """Measure for ever."""
        await self.warn_of_network()
        while True:
            await self.run_once()
            await next_beat(self._clock, INTERVAL)

    async def run_once(self) -> None:
        """Measure and do what the level asks for."""
        try:
            # No deadline: a disk that hangs here hangs the store as well, and `/healthz` says so.
            free = await asyncio.to_thread(_free_bytes, self._folder)
        except OSError as error:
            self._note_failure("measure the disk", error)
            return
        self._gauge.set(free)
        self.free_bytes = free
        before, self.level = self.level, disk_level(free, self.level, self._marks)
        if self.level is not before:
            self._announce(before, free)
        try:
            await asyncio.to_thread(self._keep_ballast, free)
        except OSError as error:
            self._note_failure(f"keep {self._ballast}", error)
        else:
            self._failure = None

    def _announce(self, before: DiskLevel, free: int) -> None:
        facts = {"folder": str(self._folder), "free_mib": free // MIB}
        if self.level is DiskLevel.FULL:
            self._gate.shut(
                f"the disk of {self._folder} has less than {self._marks.full // MIB} MiB left: nothing is accepted "
                f"until {(self._marks.full + self._marks.margin) // MIB} MiB are free; what is stored is delivered"
            )
            _log.error(Log.DISK_FULL, **facts, detail=self._gate.reason, advice="make room")
            return
        if before is DiskLevel.FULL:
            self._gate.open()
        if self.level is DiskLevel.LOW:
            _log.warning(
                Log.DISK_LOW, **facts, advice=f"make room: at {self._marks.full // MIB} MiB nothing more is accepted"
            )
        else:
            _log.info(Log.DISK_OK, **facts)

    def _keep_ballast(self, free: int) -> None:
        present = _size(self._ballast)
        if self.level is DiskLevel.FULL:
            self._ballast.unlink(missing_ok=True)
        elif present != self._marks.ballast and free >= self._marks.full + self._marks.margin:
            _reserve(self._ballast, self._marks.ballast)

    def _note_failure(self, what: str, error: OSError) -> None:
        sentence = f"cannot {what}: {error.strerror or error}"
        if sentence != self._failure:
            self._failure = sentence
            _log.warning(Log.DISK_WATCH_FAILED, detail=sentence)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _network_kind(folder: Path) -> str | None:
    return network_filesystem(str(folder.resolve()), Path("/proc/mounts").read_text(encoding="utf-8"))


def _size(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return None


def _reserve(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
