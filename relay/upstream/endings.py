"""Why a connection ended and how long to wait before the next: one pure table.

Kinds, not codes: the supervisor decides by kind, and a status nobody documented falls into one that backs off.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

STABLE: Final = 60.0
"""Seconds in sync after which an epoch counts as a success and the backoff starts over."""

PLANNED_JITTER: Final = 3.0
"""Seconds within which a planned close is followed by the next connection."""

MAX_HANDSHAKE_WAIT: Final = 900.0
"""Seconds beyond which a `Retry-After` at the upgrade is not followed."""

_AUTH_JITTER: Final = 0.1
_PLANNED_CODES: Final = frozenset({1000, 1001, 1012, 1013})


class EndKind(StrEnum):
    """Why an epoch ended."""

    AUTH = "auth"
    THROTTLED = "throttled"
    PLANNED = "planned"
    TOO_BIG = "too_big"
    REDIRECT = "redirect"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    SILENT = "silent"
    CLOSED = "closed"
    UNSUBSCRIBED = "unsubscribed"
    SHUT = "shut"
    CLOCK = "clock"
    RECONFIGURED = "reconfigured"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """How an epoch ended.

    Attributes:
        detail: a sentence for the operator, without secrets.
        subscribed: whether the epoch ever had an acknowledged subscription.
        lasted: seconds from dialling to the end.
        retry_after: seconds the upstream asked to wait, None when it did not.
        alive_ms: wall time at which the subscription was last known to live, None for the end itself.
    """

    kind: EndKind
    detail: str
    subscribed: bool = False
    lasted: float = 0.0
    retry_after: float | None = None
    alive_ms: int | None = None


class EpochOver(Exception):
    """Raised inside an epoch by whatever ends it; the session makes an `EpochEnd` of it."""

    def __init__(self, kind: EndKind, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after


def classify_close(code: int) -> EndKind:
    """The kind of a close frame with this code (0: a frame without one)."""
    if code in _PLANNED_CODES:
        return EndKind.PLANNED
    return {4401: EndKind.AUTH, 1009: EndKind.TOO_BIG}.get(code, EndKind.CLOSED)


def classify_handshake(status: int) -> EndKind:
    """The kind of an upgrade answered with this HTTP status; 400 is how a malformed credential shows."""
    if status in (400, 401, 402, 403):
        return EndKind.AUTH
    if status in (429, 503):
        return EndKind.THROTTLED
    if 300 <= status < 400:
        return EndKind.REDIRECT
    return EndKind.REFUSED


class Chance(Protocol):
    """The one kind of randomness needed here."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


class Backoff:
    """Waits that double from `initial` to `maximum` seconds, each drawn from the whole range below (full jitter)."""

    def __init__(self, initial: float, maximum: float) -> None:
        self._initial = initial
        self._maximum = maximum
        self._ceiling = initial

    @property
    def ceiling(self) -> float:
        """The longest the next wait can be, in seconds."""
        return min(self._ceiling, self._maximum)

    def next(self, rng: Chance) -> float:
        """Seconds to wait now; the ceiling of the one after is twice as high."""
        ceiling = self.ceiling
        self._ceiling = min(self._ceiling * 2, self._maximum)
        return rng.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Start over: the last epoch was a success."""
        self._ceiling = self._initial


def wait_before_next(end: EpochEnd, in_sync_for: float, backoff: Backoff, auth_retry: float, rng: Chance) -> float:
    """Seconds between the end of one epoch and the beginning of the next.

    Args:
        end: how the epoch ended.
        in_sync_for: seconds for which it had been in sync.
        backoff: the sequence of waits; started over here when the epoch was a success.
        auth_retry: seconds between attempts with refused credentials.
        rng: chance for the jitter.
    """
    if in_sync_for >= STABLE:
        backoff.reset()
    if end.kind is EndKind.RECONFIGURED:
        return 0.0
    if end.kind is EndKind.AUTH:
        return auth_retry * (1.0 + rng.uniform(0.0, _AUTH_JITTER))
    if end.kind is EndKind.PLANNED and in_sync_for >= STABLE:
        return rng.uniform(0.0, PLANNED_JITTER)
    wait = backoff.next(rng)
    if end.retry_after is not None:
        wait = max(wait, min(end.retry_after, MAX_HANDSHAKE_WAIT) + rng.uniform(0.0, 1.0))
    return wait
