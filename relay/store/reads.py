"""What people may look at: lists of events, deliveries and attempts, newest first, page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from relay.model import DeadReason, DeliveryStatus, Event, KnownOrder, Outcome, Timings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events or deliveries; None everywhere means all.

    What was written under a wall clock that was wrong by more than a day may escape the two moments.

    Attributes:
        since_ms: seen (an event) or made (a delivery) at or after this wall time.
        until_ms: before this wall time.
        order: a houdiniId, or a notice's lane.
    """

    target: str | None = None
    status: DeliveryStatus | None = None
    type: str | None = None
    order: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items, newest first, and the cursor to go on with (None: there is no more).

    A page may be short, even empty, and still not the last: one look reads a bounded number of rows.
    """

    items: tuple[T, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event and how its deliveries stand: status -> how many targets, by the last delivery to each.

    In lists the event comes without its body.
    """

    id: int
    event: Event
    deliveries: Mapping[DeliveryStatus, int]


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt as it was logged."""

    number: int
    at_ms: int
    duration_ms: float
    outcome: Outcome
    status_code: int | None
    kind: str | None
    error: str | None
    response_body: bytes
    headers: Mapping[str, str]
    timings: Timings
    manual: bool
    probe: bool


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery as it stands.

    Attributes:
        replay: 0 for the one that its event made, n for the nth time a person asked.
        head: whether it is its lane's oldest unfinished one.
        due_ms: when it may be attempted next; None once it has ended, and while it is not its lane's head.
        replayed: whether it has ended and its event was sent to this target again since.
    """

    id: int
    webhook_id: str
    type: str
    order: str
    target: str
    status: DeliveryStatus
    reason: DeadReason | None
    replay: int
    head: bool
    attempts_made: int
    due_ms: int | None
    created_ms: int
    finished_ms: int | None
    last_outcome: Outcome | None
    last_status_code: int | None
    replayed: bool


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order's projection with the moments at which it was learned and last believed."""

    known: KnownOrder
    learned_ms: int
    believed_ms: int
    aged_out_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Orders' events that ended dead at a target and have not been sent again since.

    Attributes:
        count: how many, among the target's last dead deliveries that one look examines.
        last_ms: when the last of them ended, None when there is none.
    """

    count: int = 0
    last_ms: int | None = None


class Reads(Protocol):
    """The part of the store that only reads. `cursor` is `next` of the page before, None for the first."""

    async def list_events(self, only: Filter, cursor: int | None, limit: int) -> Page[EventRow]:
        """Events; with a target or a status, those whose last delivery (there) stands so."""
        ...

    async def event(self, webhook_id: str) -> EventRow | None:
        """One event."""
        ...

    async def list_deliveries(self, only: Filter, cursor: int | None, limit: int) -> Page[DeliveryRow]:
        """Deliveries."""
        ...

    async def deliveries_of_event(self, webhook_id: str) -> Sequence[DeliveryRow]:
        """Every delivery of one event, by target and replay."""
        ...

    async def delivery(self, delivery_id: int) -> DeliveryRow | None:
        """One delivery."""
        ...

    async def attempts(self, delivery_id: int, limit: int) -> Sequence[AttemptRow]:
        """The last attempts of a delivery, oldest first."""
        ...

    async def order(self, houdini_id: str) -> OrderRow | None:
        """What is known of one order."""
        ...

    async def dead_letters(self, most: int) -> Mapping[str, DeadLetters]:
        """What is dead at every configured target, among its last `most` dead deliveries; notices aside."""
        ...

    async def replayable(self, only: Filter, after: int, limit: int) -> tuple[Sequence[str], int | None]:
        """Webhook ids, oldest first, of events whose last delivery to `only.target` has ended as `only` says.

        `after` is an event's id (0 at first) and the second value the one to go on with, None at the end. A
        `status` of None means delivered, dead, superseded and cancelled alike.
        """
        ...
