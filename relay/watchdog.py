"""Pings to the service manager's watchdog, from the event loop and only while this process is alive.

The facts are those of `/healthz`. A restart repairs a stuck loop or a stuck store, and nothing of an upstream that is
down.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import structlog

from relay.clock import Clock
from relay.log_names import Log
from relay.vitals import Vitals

_RETRY: Final = 1.0
"""Seconds until the next look after one that found something wrong."""

_log = structlog.get_logger()


def ping_interval(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Seconds between two pings, a third of what the service manager waits for; None when it wants none.

    Protocol: sd_watchdog_enabled(3).
    """
    asked, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not asked.isdecimal() or int(asked) == 0:
        return None
    if whose is not None and whose != str(os.getpid() if pid is None else pid):
        return None
    return int(asked) / 3_000_000


class Watchdog:
    """Pings every `interval` seconds."""

    def __init__(self, interval: float, vitals: Vitals, notify: Callable[[str], object], clock: Clock) -> None:
        self._interval = interval
        self._vitals = vitals
        self._notify = notify
        self._clock = clock
        self._withheld = False

    async def run(self) -> NoReturn:
        """Ping until cancelled."""
        while True:
            await self.run_once()

    async def run_once(self) -> None:
        """Ping if all is well, and wait for the next time."""
        reasons = await self._vitals.reasons()
        if reasons and not self._withheld:
            _log.error(Log.WATCHDOG_WITHHELD, reasons=reasons, detail="if it stays, the service manager restarts us")
        elif self._withheld and not reasons:
            _log.info(Log.WATCHDOG_RESUMED)
        self._withheld = bool(reasons)
        if not reasons:
            self._notify("WATCHDOG=1")
        await self._clock.sleep(min(_RETRY, self._interval) if reasons else self._interval)
