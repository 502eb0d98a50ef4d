"""A reload, from the signal to its report: read, judge, build what can fail, and only then switch.

Whatever cannot be done refuses the whole file, and what ran before goes on: what runs is always what one file says.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import structlog

from relay import systemd
from relay.board import Board, Reload
from relay.candidate import Candidate, Reader
from relay.clock import Clock
from relay.config import InvalidConfig
from relay.errors import ConfigError, RelayError
from relay.log_names import Log
from relay.metrics import Metrics
from relay.reload import Changes, compare

DEADLINE: Final = 60.0
"""Seconds for reading the file and everything it names."""
MOST_SHOWN: Final = 100
"""Paths and problems in one log line."""

_log = structlog.get_logger()


class Refused(ConfigError):
    """This configuration cannot be applied.

    Attributes:
        problems: why, a sentence for each setting.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Switch(Protocol):
    """The rooms, as far as another configuration concerns them."""

    async def prepare(self, candidate: Candidate, changes: Changes) -> Mapping[str, Any]:
        """Build what can fail, touching nothing that runs; raises Refused."""
        ...

    async def apply(self, candidate: Candidate, changes: Changes, prepared: Mapping[str, Any]) -> None:
        """Go by it from now on."""
        ...


class Reloader:
    """Reloads whenever `wanted` is set; requests that come before it begins are one."""

    def __init__(
        self,
        wanted: asyncio.Event,
        reader: Reader,
        present: Candidate,
        rooms: Switch,
        board: Board,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._wanted = wanted
        self._reader = reader
        self._present = present
        self._rooms = rooms
        self._board = board.config
        self._metrics = metrics
        self._clock = clock
        board.config.since_ms = clock.wall_ms()

    async def run(self) -> NoReturn:
        """Reload until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.run_once()

    async def run_once(self) -> None:
        """Read the configuration again and apply it, or say why not.

        Raises:
            StoreError: the store cannot be used.
        """
        if not self._reader.can_reload:
            _log.warning(
                Log.RELOAD_NOT_AVAILABLE, advice="there is no file to read; restart with another configuration"
            )
            return
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={round(self._clock.mono() * 1e6)}")
        try:
            candidate, changes, prepared = await self._judged()
        except Refused as refused:
            self._refuse(refused.problems)
            return
        if not changes.paths:
            self._report(Reload.UNCHANGED, "the configuration is as it was")
            _log.info(Log.CONFIG_UNCHANGED)
            return
        await self._rooms.apply(candidate, changes, prepared)
        self._present = candidate
        self._board.generation += 1
        self._board.since_ms = self._clock.wall_ms()
        self._report(Reload.APPLIED, f"delivering to {len(candidate.settings.targets)} target(s)")
        _log.info(
            Log.CONFIG_RELOADED,
            generation=self._board.generation,
            changed=_shown(changes.paths),
            added=sorted(changes.added),
            removed=sorted(changes.removed),
            notes=list(changes.notes),
        )

    async def _judged(self) -> tuple[Candidate, Changes, Mapping[str, Any]]:
        """What is to be applied; nothing that runs has been touched yet.

        Raises:
            Refused: nothing is.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                candidate = await asyncio.to_thread(self._reader.read)
                changes = compare(self._present.digests, candidate.digests)
                if changes.refusals:
                    raise Refused(changes.refusals)
                return candidate, changes, await self._rooms.prepare(candidate, changes)
        except Refused:
            raise
        except InvalidConfig as error:
            raise Refused([str(problem) for problem in error.problems]) from None
        except RelayError as error:
            raise Refused([str(error)]) from None
        except TimeoutError:
            raise Refused([f"what it names could not be read within {DEADLINE:.0f} s"]) from None
        except Exception as error:
            # Even a defect of ours must not end a relay that works.
            _log.exception(Log.RELOAD_CRASHED)
            raise Refused([f"an error of our own: {type(error).__name__}"]) from None

    def _refuse(self, problems: Sequence[str]) -> None:
        shown = _shown(problems)
        self._report(Reload.REFUSED, f"the new configuration is refused ({len(problems)} problem(s)); the old goes on")
        self._board.refusal = tuple(shown)
        advice = "the old configuration goes on; correct the file (houdini-relay check), then reload again"
        _log.error(Log.CONFIG_REFUSED, problems=shown, advice=advice)

    def _report(self, result: Reload, sentence: str) -> None:
        self._board.reloaded_ms = self._clock.wall_ms()
        self._board.result, self._board.refusal = result, ()
        self._metrics.config_reloads.labels(result.value).inc()
        systemd.notify("READY=1", f"STATUS={sentence}")


def _shown(lines: Sequence[str]) -> list[str]:
    hidden = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"and {hidden} more"] if hidden > 0 else [])]
