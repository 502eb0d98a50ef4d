"""The composition root: builds the rooms, runs them, and takes them down in order.

Start: store (lock, open, migrate), admin (so that `/healthz` answers), then ingest, upstream and scheduler.
Stop: unready, the upstream leaves, what was read is committed, nothing new is claimed, attempts under way
get their grace, then admin and store close. A second signal cuts the grace short.
"""

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Final

import structlog

from relay import systemd
from relay.admin.app import Admin
from relay.board import Board
from relay.clock import Clock, SystemClock, system_rng
from relay.config import Settings
from relay.delivery.scheduler import Context, Scheduler
from relay.delivery.sender import Sender
from relay.errors import StoreError
from relay.metrics import Metrics
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.upstream.ingest import Ingest, Intake
from relay.upstream.supervisor import Supervisor

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

    def __init__(self, settings: Settings, version: str, clock: Clock | None = None) -> None:
        self._settings = settings
        self._version = version
        self._clock = clock or SystemClock()
        self._board = Board()
        self._metrics = Metrics(version)
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._signal: signal.Signals | None = None

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver"))
        store = SqliteStore(
            sqlite_path(self._settings.store.url), self._clock.wall_ms, self._metrics.store_commit.observe
        )
        with self._signals(loop):
            try:
                await store.open([target.name for target in self._settings.targets])
            except StoreError as error:
                _log.error("store_unusable", error=str(error))
                return Exit.STORE
            try:
                return await self._run_rooms(store)
            finally:
                await store.close()

    async def _run_rooms(self, store: SqliteStore) -> int:
        rng, sender = system_rng(), Sender(self._clock, self._version)
        context = Context(store, sender, self._metrics, self._clock, rng)
        scheduler = Scheduler(self._settings.targets, context, self._board)
        intake = Intake()
        upstream = self._settings.upstream
        ingest = Ingest(intake, store, upstream.partner_id, self._route, self._metrics, self._clock)
        supervisor = Supervisor(upstream, intake, store, self._board, self._metrics, self._clock, rng, self._version)
        admin = self._make_admin(store)
        try:
            if admin is not None:
                await admin.start()
        except OSError as error:
            _log.error("admin_not_started", listen=_address(self._settings.admin.listen), error=error.strerror)
            return Exit.CONFIG
        await sender.open()
        rooms = {
            "scheduler": asyncio.create_task(scheduler.run(), name="scheduler"),
            "ingest": asyncio.create_task(ingest.run(), name="ingest"),
            "upstream": asyncio.create_task(supervisor.run(), name="upstream"),
        }
        try:
            systemd.notify("READY=1", f"STATUS=delivering to {len(self._settings.targets)} target(s)")
            _log.info("started", version=self._version, targets=[target.name for target in self._settings.targets])
            code = await self._wait(store, rooms)
            await self._take_down(rooms, intake, scheduler, broken=code == Exit.STORE)
        finally:
            for task in rooms.values():
                task.cancel()
            await asyncio.gather(*rooms.values(), return_exceptions=True)
            await sender.close()
            if admin is not None:
                await admin.stop()
        return self._exit_code(code)

    async def _wait(self, store: SqliteStore, rooms: dict[str, asyncio.Task[None]]) -> Exit:
        """Until a signal, a failed commit, or a room that ended though it never should."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        failed = asyncio.create_task(store.failed(), name="store-failed")
        try:
            await asyncio.wait([stop, failed, *rooms.values()], return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return Exit.FINE
            return await self._explain(failed, rooms)
        finally:
            stop.cancel()
            failed.cancel()

    async def _explain(self, failed: asyncio.Task[str], rooms: dict[str, asyncio.Task[None]]) -> Exit:
        # A broken store fails the rooms that use it at the same moment; the store's own word counts.
        await asyncio.wait([failed], timeout=1)
        if failed.done():
            self._board.store_failure = failed.result()
            _log.error("store_failed", error=failed.result())
            return Exit.STORE
        for name, task in rooms.items():
            if task.cancelled():
                _log.error("room_ended", room=name, detail="it was cancelled by itself")
            elif task.done():
                _log.error("room_ended", room=name, exc_info=task.exception())
        return Exit.CRASHED

    async def _take_down(
        self, rooms: dict[str, asyncio.Task[None]], intake: Intake, scheduler: Scheduler, *, broken: bool
    ) -> None:
        self._board.stopping = True
        systemd.notify("STOPPING=1")
        _log.info("stopping", signal=self._signal.name if self._signal else None)
        rooms["upstream"].cancel()
        await asyncio.wait([rooms["upstream"]], timeout=UPSTREAM_GRACE)
        if not broken:
            await self._bounded(intake.join(), COMMIT_GRACE)
        await self._bounded(scheduler.drain(0.0 if broken else DRAIN_GRACE), DRAIN_GRACE + 5)
        cut_off = await scheduler.drain(0.0)
        await asyncio.wait([rooms["scheduler"]], timeout=COMMIT_GRACE)
        _log.info("stopped", attempts_cut_off=cut_off)

    async def _bounded(self, step: Any, seconds: float) -> None:
        """Give a step of the shutdown its time, less if a second signal comes."""
        task, force = asyncio.ensure_future(step), asyncio.create_task(self._force.wait())
        await asyncio.wait([task, force], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for pending in (task, force):
            pending.cancel()
        await asyncio.gather(task, force, return_exceptions=True)

    def _exit_code(self, code: Exit) -> int:
        if self._force.is_set() and self._signal is not None:
            return 128 + self._signal
        return code

    def _make_admin(self, store: SqliteStore) -> Admin | None:
        listen = self._settings.admin.listen
        if listen is None:
            return None
        slots = {target.name: target.concurrency for target in self._settings.targets}
        return Admin(listen, slots, store, self._board, self._metrics, self._clock)

    def _route(self, event_type: str) -> tuple[str, ...]:
        return tuple(target.name for target in self._settings.targets if target.wants(event_type))

    @contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """The first SIGTERM or SIGINT asks to stop, the second forces it."""
        handled = (signal.SIGTERM, signal.SIGINT)
        for number in handled:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        self._signal = number
        (self._force if self._stop.is_set() else self._stop).set()


def _address(listen: tuple[str, int] | None) -> str:
    return "off" if listen is None else f"{listen[0]}:{listen[1]}"
