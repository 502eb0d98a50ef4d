"""The words of the trade as values: statuses, snapshots, events, deliveries, attempts.

Pure: nothing here reads a clock, opens a socket or touches a database.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec

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
    return f"{_iso_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=64)
def _iso_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


class Origin(StrEnum):
    """Which way a snapshot reached us."""

    WEBSOCKET = "websocket"
    BACKFILL = "backfill"


class Snapshot(msgspec.Struct, frozen=True):
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


class OrderFacts(msgspec.Struct, frozen=True):
    """What an order's event says about its place in the order's life (the `relay` member)."""

    sequence: int
    status: int
    previous_status: int | None
    changed: tuple[str, ...]
    origin: Origin


class Event(msgspec.Struct, frozen=True):
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


class Delivery(msgspec.Struct, frozen=True):
    """One event for one target, claimed for an attempt.

    Attributes:
        id: the store's id of this delivery.
        target: the target's name.
        event: what is to be delivered.
        attempts_made: attempts before this one.
        steps_used: steps of the retry schedule used up; probes use none.
        created_ms: wall time at which the delivery was made.
        first_attempt_ms: wall time of its first attempt, None before.
        manual: whether a person asked for this attempt (a replay, or `deliveries retry`).
        probe: whether this attempt tries an open breaker.
        claim: which claim of this delivery it is, so that an outcome that comes too late can be told; 0 where a claim
            cannot be lost.
    """

    id: int
    target: str
    event: Event
    attempts_made: int
    steps_used: int
    created_ms: int
    first_attempt_ms: int | None = None
    manual: bool = False
    probe: bool = False
    claim: int = 0


class Outcome(StrEnum):
    """The class of an attempt."""

    OK = "ok"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"
    FORBIDDEN = "forbidden"


class FailureKind(StrEnum):
    """Why an attempt got no usable answer."""

    REQUEST = "request"
    AUTH = "auth"
    DNS = "dns"
    FORBIDDEN = "forbidden"
    CONNECT = "connect"
    PROXY = "proxy"
    TLS = "tls"
    RESET = "reset"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"


class Timings(msgspec.Struct, frozen=True):
    """How long each phase of an attempt took, in milliseconds; None for one that did not happen.

    `first_byte_ms` counts from the request being written to the status line being known.
    """

    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None


class Attempt(msgspec.Struct, frozen=True):
    """One POST of a delivery and its result.

    Attributes:
        at_ms: wall time at which it began.
        duration_ms: from beginning to the end of the (capped) answer.
        outcome: its class.
        status_code: the HTTP status, None when no status line came.
        kind: why there was no usable answer, None when there was.
        error: the same with its detail, as in `timeout: no answer within 15 s`.
        response_body: the first bytes of the answer, as stored.
        headers: answer headers of interest, lower-case names, printable values.
        timings: the phases.
    """

    at_ms: int
    duration_ms: float
    outcome: Outcome
    status_code: int | None = None
    kind: FailureKind | None = None
    error: str | None = None
    response_body: bytes = b""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    timings: Timings = Timings()


class KnownOrder(msgspec.Struct, frozen=True):
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
    status_counts: Mapping[int, int] = msgspec.field(default_factory=dict)
    last_frame: bytes | None = None
    frame_is_event: bool = False

    @property
    def terminal(self) -> bool:
        """Whether the upstream calls the present status terminal."""
        return self.status in TERMINAL
