"""The process: opens the store, runs the rooms, and takes them down in order.

Start: store (lock, open, migrate), admin (so that `/healthz` answers), then ingest, upstream and scheduler.
Stop: unready, the upstream leaves, what was read is committed, nothing new is claimed, attempts under way
get their grace, then admin and store close. A second signal cuts the grace short.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final

import structlog

from relay import systemd
from relay.admin.app import Admin
from relay.board import Board
from relay.candidate import Candidate, Reader
from relay.clock import Clock, SystemClock
from relay.config import Settings
from relay.errors import StoreError
from relay.log_names import Log
from relay.metrics import Metrics
from relay.reloader import Reloader
from relay.rooms import Rooms
from relay.shutdown import Shutdown, UnjoinedExecutor
from relay.store.disk import DiskWatch
from relay.store.opening import shown_url
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.tracing import tracing_from
from relay.watchdog import Watchdog, ping_interval

DRAIN_GRACE: Final = 20.0
"""Seconds that attempts under way get on shutdown; the systemd unit's stop timeout is longer."""
COMMIT_GRACE: Final = 5.0
UPSTREAM_GRACE: Final = 5.0
RESOLVER_THREADS: Final = 64
"""Name look-ups run in threads; enough of them that slow names do not delay the upstream's."""

_log = structlog.get_logger()


class Exit(IntEnum):
    """Exit codes; `docs/operations.md` says what to do about each."""

    FINE = 0
    CRASHED = 1
    CONFIG = 2
    STORE = 3


class Daemon:
    """One relay process."""

    def __init__(
        self,
        settings: Settings,
        version: str,
        clock: Clock | None = None,
        load: Callable[[], Settings] | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: the configuration to start with.
            version: of this program.
            clock: the time; None for the machine's.
            load: reads the configuration anew for a reload; raises ConfigError when it cannot be used.
        """
        self._settings = settings
        self._version = version
        self._clock = clock or SystemClock()
        self._reader = Reader(load)
        self._board = Board()
        self._metrics = Metrics(version)
        self._shutdown = Shutdown()

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        asyncio.get_running_loop().set_default_executor(UnjoinedExecutor(RESOLVER_THREADS, "resolver"))
        path = sqlite_path(self._settings.store.url)
        store = SqliteStore(path, self._clock.wall_ms, self._metrics.store_commit.observe)
        disk = DiskWatch(path, self._board.gate, self._metrics.store_free, self._clock)
        with self._shutdown.listening():
            await disk.run_once()  # on a full disk opening would fail for want of the room that the ballast holds
            try:
                present = await asyncio.to_thread(self._reader.present, self._settings)
                await store.open(present.entries)
                return await self._run_rooms(store, disk, present)
            except StoreError as error:
                _log.error(Log.STORE_UNUSABLE, error=str(error))
                return Exit.STORE
            finally:
                await store.close()

    async def _run_rooms(self, store: SqliteStore, disk: DiskWatch, present: Candidate) -> int:
        tracing = await asyncio.to_thread(tracing_from, os.environ, self._version)
        rooms = Rooms(self._settings, store, disk, self._board, self._metrics, self._clock, self._version, tracing)
        try:
            if rooms.admin is not None and not await self._start_admin(rooms.admin):
                return Exit.CRASHED
            return await self._live(store, disk, rooms, present)
        finally:
            await rooms.close()

    async def _live(self, store: SqliteStore, disk: DiskWatch, rooms: Rooms, present: Candidate) -> int:
        around = (self._board, self._metrics, self._clock)
        reloader = Reloader(self._shutdown.reload, self._reader, present, rooms, *around)
        tasks = rooms.start()
        tasks["disk"] = asyncio.create_task(disk.run(), name="disk")
        tasks["reload"] = asyncio.create_task(reloader.run(), name="reload")
        rooms.vitals.rooms = dict(tasks)
        if (interval := ping_interval(os.environ)) is not None:
            watchdog = Watchdog(interval, rooms.vitals, systemd.notify, self._clock)
            tasks["watchdog"] = asyncio.create_task(watchdog.run(), name="watchdog")
        failed = asyncio.create_task(store.failed(), name="store-failed")
        try:
            self._say_started()
            code = await self._wait(failed, tasks)
            await self._take_down(tasks, rooms, failed)
            if failed.done() and code is not Exit.STORE:
                code = await self._explain(failed, tasks)
        finally:
            for task in (failed, *tasks.values()):
                task.cancel()
            await asyncio.gather(failed, *tasks.values(), return_exceptions=True)
        return self._shutdown.exit_code(code)

    def _say_started(self) -> None:
        settings = self._settings
        systemd.notify("READY=1", f"STATUS=delivering to {len(settings.targets)} target(s)")
        _log.info(
            Log.STARTED,
            version=self._version,
            targets=[target.name for target in settings.targets],
            store=shown_url(settings.store.url),
            admin=_address(settings.admin.listen),
        )

    async def _start_admin(self, admin: Admin) -> bool:
        """False when it cannot listen; the log says why."""
        try:
            await admin.start()
        except OSError as error:
            listen = _address(self._settings.admin.listen)
            advice = "another program listens there, or the address is not this machine's; change admin.listen"
            _log.error(Log.ADMIN_NOT_STARTED, listen=listen, error=error.strerror or str(error), advice=advice)
            return False
        return True

    async def _wait(self, failed: asyncio.Task[str], rooms: Mapping[str, asyncio.Task[Any]]) -> Exit:
        """Until a signal, a failed commit, or a room that ended though it never should."""
        stop = asyncio.create_task(self._shutdown.stop.wait(), name="stop")
        try:
            await asyncio.wait([stop, failed, *rooms.values()], return_when=asyncio.FIRST_COMPLETED)
            return Exit.FINE if stop.done() else await self._explain(failed, rooms)
        finally:
            stop.cancel()

    async def _explain(self, failed: asyncio.Task[str], rooms: Mapping[str, asyncio.Task[Any]]) -> Exit:
        # A broken store fails the rooms that use it at the same moment; the store's own word counts.
        await asyncio.wait([failed], timeout=1)
        if failed.done():
            self._board.store_failure = failed.result()
            _log.error(Log.STORE_FAILED, error=failed.result())
            return Exit.STORE
        for name, task in rooms.items():
            if task.cancelled():
                _log.error(Log.ROOM_ENDED, room=name, detail="it was cancelled by itself")
            elif task.done():
                _log.error(Log.ROOM_ENDED, room=name, exc_info=task.exception())
        return Exit.CRASHED

    async def _take_down(self, tasks: Mapping[str, asyncio.Task[Any]], rooms: Rooms, failed: asyncio.Task[str]) -> None:
        self._board.stopping = True
        systemd.notify("STOPPING=1")
        _log.info(Log.STOPPING, signal=self._shutdown.by.name if self._shutdown.by else None)
        tasks["reload"].cancel()
        tasks["upstream"].cancel()
        await asyncio.wait([tasks["upstream"]], timeout=UPSTREAM_GRACE)
        await self._shutdown.bounded(rooms.intake.join(), COMMIT_GRACE, failed)
        await self._shutdown.bounded(rooms.scheduler.drain(DRAIN_GRACE), DRAIN_GRACE + 1, failed)
        cut_off = await rooms.scheduler.drain(0.0)
        await asyncio.wait([tasks["scheduler"]], timeout=COMMIT_GRACE)
        _log.info(Log.STOPPED, attempts_cut_off=cut_off)


def _address(listen: tuple[str, int] | None) -> str:
    return "off" if listen is None else f"{listen[0]}:{listen[1]}"
