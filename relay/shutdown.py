"""Being asked to stop: signals, steps with a deadline each, and a last resort that nothing can hang on."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import structlog

from relay.log_names import Log

STOP_DEADLINE: Final = 32.0
"""Seconds after the first signal at which the process ends whatever is left; the unit's stop timeout is longer."""
FORCE_DEADLINE: Final = 3.0
"""Seconds after the second signal."""

_log = structlog.get_logger()


class Shutdown:
    """What was asked of this process so far.

    Attributes:
        stop: set by the first SIGTERM or SIGINT.
        force: set by the second.
        by: the last of them, None before the first.
        reload: set by SIGHUP; who takes the wish up clears it.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.reload = asyncio.Event()
        self.by: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals meanwhile. The deadlines outlive it: what hangs may hang later."""
        loop = asyncio.get_running_loop()
        stopping = (signal.SIGTERM, signal.SIGINT)
        for number in stopping:
            loop.add_signal_handler(number, self._on_stop, loop, number)
        # Not the loop's own way, which would leave the default behind: a SIGHUP after that would end the process.
        before = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.reload.set))
        held = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            signal.signal(signal.SIGHUP, before)
            for number in stopping:
                loop.remove_signal_handler(number)

    async def bounded(self, step: Coroutine[Any, Any, Any], seconds: float, *unless: asyncio.Future[Any]) -> None:
        """Give a step its time; less if a second signal comes, or one of `unless` is done."""
        task, force = asyncio.ensure_future(step), asyncio.create_task(self.force.wait())
        await asyncio.wait([task, force, *unless], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for pending in (task, force):
            pending.cancel()
        await asyncio.gather(task, force, return_exceptions=True)

    def exit_code(self, code: int) -> int:
        """The code to end with: that of the signal when it was forced."""
        return 128 + self.by if self.force.is_set() and self.by is not None else code

    def _on_stop(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        self.by = number
        if self.stop.is_set():
            self.force.set()
            loop.call_later(FORCE_DEADLINE, end_now, 128 + number, "a second signal came")
        else:
            self.stop.set()
            loop.call_later(STOP_DEADLINE, end_now, 1, f"stopping took longer than {STOP_DEADLINE:.0f} s")


def hold_reloads() -> None:
    """From now on a SIGHUP waits until somebody is `listening`, and means nothing after that."""
    # In this order: to ignore a signal also throws away one that is held already.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def end_now(code: int, reason: str | None = None) -> NoReturn:
    """End the process without waiting for threads: one that hangs in a name look-up cannot be cancelled."""
    if reason is not None:
        _log.error(Log.ENDED_AT_ONCE, reason=reason, detail="what was under way is attempted again")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class UnjoinedExecutor(ThreadPoolExecutor):
    """Threads that nobody waits for at the end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new; do not wait, whatever the caller asks for."""
        super().shutdown(wait=False, cancel_futures=True)
