"""A configuration with all that has to be read for it: what its secrets and files say at this moment."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from relay.config import Settings, TargetSettings
from relay.delivery.reach import reach_digest
from relay.errors import SecretUnreadable
from relay.log_names import Log
from relay.reload import Digests, digests
from relay.standing import Ordering
from relay.store.values import TargetEntry

_LARGEST_FILE = 4 * 2**20

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that may come to hold.

    Attributes:
        digests: what each setting is, to be compared with another candidate of this process.
        entries: its targets as the store has to know them.
    """

    settings: Settings
    digests: Digests
    entries: Sequence[TargetEntry]


class Reader:
    """Makes candidates. It reads files, so everything here is for a thread, not for the event loop."""

    def __init__(self, load: Callable[[], Settings] | None) -> None:
        """Prepare.

        Args:
            load: reads the configuration anew; raises ConfigError when it cannot be used. None when there is no file.
        """
        self._load = load
        self._key = os.urandom(32)

    @property
    def can_reload(self) -> bool:
        """Whether there is a file to read."""
        return self._load is not None

    def read(self) -> Candidate:
        """The configuration as its file has it now.

        Raises:
            ConfigError: it cannot be used.
            SecretUnreadable: a secret went away while it was read.
        """
        if self._load is None:
            raise RuntimeError("there is no file")
        settings = self._load()
        return Candidate(
            settings, self._digests(settings), [_entry(one, reach_digest(one)) for one in settings.targets]
        )

    def present(self, settings: Settings) -> Candidate:
        """The configuration that the process starts with; it was judged a moment ago."""
        return Candidate(settings, self._digests(settings), [_entry(one, _reach(one)) for one in settings.targets])

    def _digests(self, settings: Settings) -> Digests:
        return digests(settings, self._key, _content)


def _entry(target: TargetSettings, reach: str) -> TargetEntry:
    timeout_ms = round(target.timeout * 1000)
    return TargetEntry(target.name, Ordering(target.ordering), target.paused, reach, timeout_ms)


def _reach(target: TargetSettings) -> str:
    try:
        return reach_digest(target)
    except SecretUnreadable as error:
        # Its attempts will say so too; what it costs here is one look at what waits.
        _log.warning(Log.SECRET_UNREADABLE, target=target.name, error=str(error))
        return ""


def _content(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.sha256(file.read(_LARGEST_FILE)).hexdigest()
    except OSError as error:
        return f"unreadable: {type(error).__name__}"
