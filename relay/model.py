"""The words of the trade as values: statuses, snapshots, events, deliveries, attempts.

Pure: nothing here reads a clock, opens a socket or touches a database.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

LABELS: Final[Mapping[int, str]] = {
    -2: "INITIALIZING",
    -1: "NEW",
    0: "WAITING",
    1: "CONFIRMING",
    2: "EXCHANGING",
    3: "ANONYMIZING",
    4: "FINISHED",
    5: "EXPIRED",
    6: "FAILED",
    7: "REFUNDED",
    8: "DELETED",
}
"""Order status codes as the upstream documents them. Hop codes (`inStatus`) use another numbering."""

TERMINAL: Final = frozenset({4, 5, 6, 7, 8})
"""Statuses the upstream calls terminal: a label, not a promise (an expired order may revive)."""

_RANKS: Final[Mapping[int, int]] = {-2: 0, -1: 1, 0: 2, 5: 3, 1: 4, 2: 5, 3: 6, 4: 7, 6: 7, 7: 8, 8: 9}

STATUS_FIELDS: Final = ("status", "inStatus", "outStatus", "displayStatus", "actionRequired")
"""The only fields that may be compared between REST and the socket."""

LIVE_PRICE_FIELDS: Final = frozenset(
    {"inToken", "outToken", "inAmountUsd", "outAmountUsd", "eta", "modified", "notified"}
)
"""Fields that move with the market, ignored when two frames of an order are compared."""


def status_label(code: int) -> str:
    """The label of an order status code, `UNKNOWN` for one the table does not have."""
    return LABELS.get(code, "UNKNOWN")


def status_rank(code: int) -> int | None:
    """How far along its documented life an order in this status is; None for an unknown code."""
    return _RANKS.get(code)


def event_type(code: int) -> str:
    """The event type of an order that entered this status, as in `order.finished`."""
    return "order." + status_label(code).lower()


def iso_utc(wall_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as in `2026-11-22T07:04:50.123Z`."""
    seconds, millis = divmod(wall_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


class Secret:
    """A value that must never be shown; `reveal()` reads it anew, so a rotated file is picked up."""

    __slots__ = ("_read", "_where")

    def __init__(self, read: Callable[[], str], where: str = "value") -> None:
        self._read = read
        self._where = where

    @classmethod
    def of(cls, value: str) -> "Secret":
        """A secret whose value is known already."""
        return cls(lambda: value)

    @property
    def where(self) -> str:
        """Where it comes from, for messages: `value`, `file /run/secrets/x`, `credential x`."""
        return self._where

    def reveal(self) -> str:
        """The value itself.

        Raises:
            SecretUnreadable: its file or credential cannot be read now.
        """
        return self._read()

    def __repr__(self) -> str:
        return f"Secret({self._where})"

    def __str__(self) -> str:
        return "[redacted]"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret cannot be pickled")


class Origin(StrEnum):
    """Which way a snapshot reached us."""

    WEBSOCKET = "websocket"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An order as seen once.

    Attributes:
        houdini_id: the upstream's id of the order.
        status: order status code, known or not.
        body: the order object's JSON, byte for byte as it came.
        fields: every top-level field of the order -> its JSON text as it came.
        created: the upstream's `created` text, None when absent.
        origin: socket or REST.
        seen_ms: wall time at which the frame or answer was read.
        asked_at: monotonic time at which the REST request was sent, or the frame was read.
        first_sweep: whether a REST row belongs to the first sweep of its epoch.
        silent: whether an order unknown so far is learned without an event (baseline).
    """

    houdini_id: str
    status: int
    body: bytes
    fields: Mapping[str, bytes]
    created: str | None
    origin: Origin
    seen_ms: int
    asked_at: float
    first_sweep: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What an order's event says about its place in the order's life (the `relay` member)."""

    sequence: int
    status: int
    previous_status: int | None
    changed: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Event:
    """One immutable change, once in the log.

    Attributes:
        webhook_id: the same for the same change, however it was seen.
        lane: the order's houdiniId, or `relay:<subject>` for a notice.
        type: `order.finished`, `relay.target.parked`, ...
        at_ms: wall time at which the change was seen.
        body: the order as it came, or a notice's data.
        facts: an order's place in its life; None for a notice.
    """

    webhook_id: str
    lane: str
    type: str
    at_ms: int
    body: bytes
    facts: OrderFacts | None


class DeliveryStatus(StrEnum):
    """Where a delivery stands, in the words used everywhere."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


class DeadReason(StrEnum):
    """Why a delivery ended without success."""

    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    EXPIRED = "expired"
    OVERFLOW = "overflow"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one target, claimed for an attempt.

    Attributes:
        id: the store's id of this delivery.
        target: the target's name.
        event: what is to be delivered.
        attempts_made: attempts before this one.
        created_ms: wall time at which the delivery was made.
        replay: whether a person asked for this event to be sent again.
    """

    id: int
    target: str
    event: Event
    attempts_made: int
    created_ms: int
    replay: bool = False


class Outcome(StrEnum):
    """The class of an attempt."""

    OK = "ok"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of a delivery and its result.

    Attributes:
        at_ms: wall time at which it began.
        duration_ms: from beginning to the end of the (capped) answer.
        outcome: its class.
        status_code: the HTTP status, None when no status line came.
        error: kind and detail when no usable answer came, as in `timeout: no answer within 15 s`.
        response_body: the first bytes of the answer, as stored.
        headers: answer headers that matter to the decision (`retry-after`, `date`), lower case.
        manual: whether a person asked for it.
    """

    at_ms: int
    duration_ms: float
    outcome: Outcome
    status_code: int | None = None
    error: str | None = None
    response_body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    manual: bool = False


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """What is known of an order: its row in the projection.

    Attributes:
        status: the order's last believed status code, known to the table or not.
        ranked_status: the last believed code that the table knows; None while there was none.
        fields: the last known value of every status field seen so far, decoded.
        created: the upstream's `created` text, None when never shown.
        silent: learned without an event, and no event since.
        sequence: how many events this order has had.
        status_counts: status code -> how many events this order has had in it.
        last_frame: the order as the last frame showed it that was news or repeated what is known; None before
            the first, and again after an event that REST showed.
        frame_is_event: whether that frame is the body of the order's last event, so that it is kept already.
    """

    houdini_id: str
    status: int
    ranked_status: int | None
    fields: Mapping[str, Any]
    created: str | None
    silent: bool
    sequence: int = 0
    status_counts: Mapping[int, int] = field(default_factory=dict)
    last_frame: bytes | None = None
    frame_is_event: bool = False

    @property
    def terminal(self) -> bool:
        """Whether the upstream calls the present status terminal."""
        return self.status in TERMINAL
