"""The process: opens the store, runs the rooms, and takes them down in order.

Start: store (lock, open, migrate), admin (so that `/healthz` answers), then upstream and scheduler. A database that
cannot be reached yet is waited for with the admin server up.
Stop: unready, the upstream leaves, what was read is committed, the lead is given back, nothing new is claimed,
attempts under way get their grace, then admin and store close. A second signal cuts the grace short.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import structlog

from relay import systemd
from relay.admin.app import Admin
from relay.board import Board
from relay.candidate import Candidate, Reader
from relay.clock import Clock, SharedClock, SystemClock
from relay.config import Settings
from relay.errors import StoreError, StoreUnavailable
from relay.log_names import Log
from relay.metrics import Metrics
from relay.reloader import Reloader
from relay.rooms import Rooms
from relay.shutdown import Shutdown, UnjoinedExecutor
from relay.store.base import Store
from relay.store.disk import DiskWatch
from relay.store.opening import file_of, is_shared, make_store, shown_url
from relay.store.outage import Availability
from relay.store.values import Instance
from relay.tracing import tracing_from
from relay.upstream.leadership import FOLLOW_EVERY, RESIGN_GRACE, tell_time
from relay.upstream.term import COMMIT_GRACE, UPSTREAM_GRACE
from relay.watchdog import Watchdog, ping_interval

DRAIN_GRACE: Final = 20.0
"""Seconds that attempts under way get on shutdown; the systemd unit's stop timeout is longer."""
LEAVE_GRACE: Final = UPSTREAM_GRACE + COMMIT_GRACE + RESIGN_GRACE
"""Seconds that leaving the upstream may take."""
OPEN_EXTENSION: Final = 60.0
"""Seconds by which the service manager is asked for more patience while a database is waited for."""
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
        config_path: Path | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: the configuration to start with.
            version: of this program.
            clock: the time; None for the machine's.
            load: reads the configuration anew for a reload; raises ConfigError when it cannot be used.
            config_path: where it lies, absolute.
        """
        self._settings = settings
        self._version = version
        self._clock = clock or SystemClock()
        self._reader = Reader(load)
        self._board = Board()
        self._board.config.path = "" if config_path is None else str(config_path)
        self._metrics = Metrics(version)
        self._shutdown = Shutdown()

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        asyncio.get_running_loop().set_default_executor(UnjoinedExecutor(RESOLVER_THREADS, "resolver"))
        try:
            return await self._run(self._make_store())
        except StoreError as error:
            _log.error(Log.STORE_UNUSABLE, error=str(error))
            return Exit.STORE

    def _make_store(self) -> Store:
        settings = self._settings.store
        if is_shared(settings.url):
            self._board.lead.shared = True
            self._clock = SharedClock(self._clock)
        return make_store(settings.url, self._clock.wall_ms, self._metrics.store_commit.observe, self._clock.sleep)

    async def _run(self, store: Store) -> int:
        url = self._settings.store.url
        around = (self._metrics.store_free, self._clock)
        disk = None if is_shared(url) else DiskWatch(file_of(url), self._board.gate, *around)
        with self._shutdown.listening():
            if disk is not None:  # on a full disk opening would fail for want of the room that the ballast holds
                await disk.run_once()
            try:
                present = await asyncio.to_thread(self._reader.present, self._settings)
                # Before the admin server: a second process on a file is told that, not that its port is taken.
                opened = await self._try_open(store, present)
                return await self._run_rooms(store, disk, present, opened=opened)
            finally:
                await store.close()

    async def _run_rooms(self, store: Store, disk: DiskWatch | None, present: Candidate, *, opened: bool) -> int:
        tracing = await asyncio.to_thread(tracing_from, os.environ, self._version)
        here = Instance(secrets.token_hex(8), socket.gethostname(), self._clock.wall_ms())
        around = (self._board, self._metrics, self._clock, self._version)
        rooms = Rooms(self._settings, store, disk, *around, here, present.entries, tracing)
        try:
            if rooms.admin is not None and not await self._start_admin(rooms.admin):
                return Exit.CRASHED
            if opened or await self._wait_until_open(store, present):
                return await self._live(store, disk, rooms, present)
            return self._shutdown.exit_code(Exit.FINE)
        finally:
            await rooms.close()

    async def _try_open(self, store: Store, present: Candidate) -> bool:
        """False when it is a database that cannot be reached: that is waited for, as it is later.

        Raises:
            StoreError: it cannot be used.
        """
        availability = Availability(self._board, self._metrics)
        try:
            await tell_time(self._clock, store)
            await store.open(present.entries)
        except StoreUnavailable as error:
            availability.away(error)
            return False
        availability.back()
        return True

    async def _wait_until_open(self, store: Store, present: Candidate) -> bool:
        """False when the relay is told to stop meanwhile."""
        while not self._shutdown.stop.is_set():
            extension = f"EXTEND_TIMEOUT_USEC={round(OPEN_EXTENSION * 1e6)}"
            systemd.notify(extension, f"STATUS=waiting for the database: {self._board.lead.store_away}")
            await self._shutdown.bounded(self._shutdown.stop.wait(), FOLLOW_EVERY)
            if not self._shutdown.stop.is_set() and await self._try_open(store, present):
                return True
        return False

    async def _live(self, store: Store, disk: DiskWatch | None, rooms: Rooms, present: Candidate) -> int:
        around = (self._board, self._metrics, self._clock)
        reloader = Reloader(self._shutdown.reload, self._reader, present, rooms, *around)
        tasks = rooms.start()
        if disk is not None:
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
        # The connection is closed, what was read is stored, and another instance may take over.
        tasks["upstream"].cancel()
        await self._shutdown.bounded(asyncio.wait([tasks["upstream"]]), LEAVE_GRACE, failed)
        await self._shutdown.bounded(rooms.scheduler.drain(DRAIN_GRACE), DRAIN_GRACE + 1, failed)
        cut_off = await rooms.scheduler.drain(0.0)
        await asyncio.wait([tasks["scheduler"]], timeout=COMMIT_GRACE)
        _log.info(Log.STOPPED, attempts_cut_off=cut_off)


def _address(listen: tuple[str, int] | None) -> str:
    return "off" if listen is None else f"{listen[0]}:{listen[1]}"
