"""What goes into the store's verbs and what comes out of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from relay.model import Attempt, DeadReason, Delivery, DeliveryStatus, Event, KnownOrder
from relay.standing import Ordering, Standing


class PlannedEvent(msgspec.Struct, frozen=True):
    """An event to write and the names of the targets that are to get it."""

    event: Event
    targets: tuple[str, ...]


class Question(msgspec.Struct, frozen=True):
    """A frame that was not believed; REST is to be asked about its order.

    Attributes:
        frame: the order as the frame showed it.
        sideways: same rank with another known status (else: backward).
        seen_ms: wall time at which the frame was read.
        ask_at_ms: wall time from which REST may be asked.
    """

    houdini_id: str
    status: int
    frame: bytes
    sideways: bool
    seen_ms: int
    ask_at_ms: int


@dataclass(slots=True)
class IngestPlan:
    """Everything one ingest transaction writes.

    Attributes:
        orders: projections as they are to be stored, by houdiniId; `learned_ms` stamps new ones.
        events: in the order in which they happened.
        questions: one at most per order; a newer one replaces the frame but not the time to ask.
        answered: orders whose question is settled.
        remembered: values to remember (`meta_get`), by key.
    """

    now_ms: int
    orders: dict[str, KnownOrder] = field(default_factory=dict)
    events: list[PlannedEvent] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    remembered: dict[str, str] = field(default_factory=dict)


Planner = Callable[[Mapping[str, KnownOrder]], IngestPlan]
"""Pure: from the known orders among those asked for to everything that is to be written."""


class TargetEntry(msgspec.Struct, frozen=True):
    """A target as configured, as far as the store has to know it.

    Attributes:
        ordering: how its deliveries of one order wait for one another.
        paused: whether the configuration pauses it.
        reach: a keyed digest of URL, authentication, TLS and proxy; another one ends all waiting.
        timeout_ms: the longest an attempt may take; a claim that several instances share is held a little longer.
    """

    name: str
    ordering: Ordering = Ordering.PER_ORDER
    paused: bool = False
    reach: str = ""
    timeout_ms: int = 15_000


class Claim(msgspec.Struct, frozen=True):
    """Deliveries taken for an attempt.

    Attributes:
        next_due_ms: when it is worth asking again (wall ms), None when only an event can change that.
        standing: the target's, as the permit was asked about.
    """

    deliveries: tuple[Delivery, ...]
    next_due_ms: int | None
    standing: Standing


class Settlement(msgspec.Struct, frozen=True):
    """The outcome of one attempt, to be written.

    Attributes:
        delivery: as it was claimed.
        status: PENDING to try again at `due_ms`, else how the delivery ended.
        reason: why it is dead.
        due_ms: wall time of the next attempt.
        uses_step: whether the attempt uses up a step of the retry schedule (a probe does not).
    """

    delivery: Delivery
    attempt: Attempt
    status: DeliveryStatus
    reason: DeadReason | None = None
    due_ms: int | None = None
    uses_step: bool = True


Judge = Callable[[Standing, Settlement], Standing]
"""Pure: a target's standing after this attempt; asked inside the transaction that writes the outcome."""


class Death(msgspec.Struct, frozen=True):
    """A delivery that has ended dead."""

    target: str
    webhook_id: str
    type: str
    reason: DeadReason


class Expiry(msgspec.Struct, frozen=True):
    """What a look for expired deliveries did.

    Attributes:
        ended: deliveries that are dead (`expired`) now.
        next_after: id after which to look on; 0 when the look has come to its end.
    """

    ended: int
    next_after: int


class Pruned(msgspec.Struct, frozen=True):
    """Rows that one batch of pruning removed, and the place to go on from (None: done)."""

    deliveries: int
    events: int
    orders: int
    next_place: int | None


class Change(StrEnum):
    """What came of a person's wish about one delivery."""

    DONE = "done"
    UNKNOWN = "unknown"
    IN_FLIGHT = "in_flight"
    FINISHED = "finished"
    BLOCKED = "blocked"
    STOPPED = "stopped"


class OpenOrder(msgspec.Struct, frozen=True):
    """A known order that is not in a terminal status."""

    houdini_id: str
    created: str | None


class Gap(msgspec.Struct, frozen=True):
    """Time without a live, acknowledged subscription.

    Attributes:
        from_ms: wall time at which the subscription was last known to live.
        to_ms: wall time of the next subscription, None while the gap is open.
        cause: why the subscription ended, a sentence.
        swept_ms: wall time at which the sweep that followed had been committed, None before.
        closed_by: which sweep that was.
    """

    id: int
    from_ms: int
    to_ms: int | None
    cause: str
    swept_ms: int | None
    closed_by: str | None


class DeliveryOfOrder(msgspec.Struct, frozen=True):
    """How one event of an order stands at one target.

    Attributes:
        replay: 0 for the delivery the event made, n for the nth time a person asked.
        moves_status: whether the event changed the order's status, or is its first.
    """

    houdini_id: str
    webhook_id: str
    sequence: int
    event_status: int
    target: str
    status: DeliveryStatus
    reason: DeadReason | None
    replay: int
    moves_status: bool = True


class Backlog(msgspec.Struct, frozen=True):
    """What one target still has to get.

    Attributes:
        pending: deliveries not ended.
        oldest_ms: when the oldest of them was made, None when there is none.
        waiting_since_ms: the earliest due time among lane heads that nobody has claimed; None when there is none.
        standing: the target as a whole.
        oldest_order_ms: as `oldest_ms`, notices aside.
    """

    pending: int
    oldest_ms: int | None
    waiting_since_ms: int | None
    standing: Standing
    oldest_order_ms: int | None = None


class Instance(msgspec.Struct, frozen=True):
    """One running process of those that share a store.

    Attributes:
        id: unlike any other's, before and after.
        host: where it runs.
        started_ms: when it started.
    """

    id: str
    host: str
    started_ms: int


class LiveInstance(msgspec.Struct, frozen=True):
    """An instance that was heard of lately.

    Attributes:
        seen_ms: when it was last heard of.
        epoch: its term as leader, None if it does not lead.
        in_flight: target -> deliveries it was attempting then.
    """

    instance: Instance
    seen_ms: int
    epoch: int | None
    in_flight: Mapping[str, int]
