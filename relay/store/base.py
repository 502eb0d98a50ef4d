"""What the rooms may ask of the durable middle: few named verbs, no driver.

Both stores keep these promises. Nothing is observable before its commit. A lane (one order at one target)
has exactly one `ready` delivery, its oldest unfinished one; finishing it promotes the next in the same
transaction. Claims exclude one another and a crash gives them back.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from relay.model import Attempt, DeadReason, Delivery, DeliveryStatus, Event, KnownOrder


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event to write and the names of the targets that are to get it."""

    event: Event
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
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
    """

    now_ms: int
    orders: dict[str, KnownOrder] = field(default_factory=dict)
    events: list[PlannedEvent] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)


Planner = Callable[[Mapping[str, KnownOrder]], IngestPlan]
"""Pure: from the known orders among those asked for to everything that is to be written."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Deliveries taken for an attempt, and when the next one comes due (wall ms, None when none waits)."""

    deliveries: tuple[Delivery, ...]
    next_due_ms: int | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of one attempt, to be written.

    Attributes:
        status: PENDING to try again at `due_ms`, else how the delivery ended.
        reason: why it is dead.
        due_ms: wall time of the next attempt.
        park: whether the target answered 410 and is to be parked.
    """

    delivery_id: int
    target: str
    attempt: Attempt
    status: DeliveryStatus
    reason: DeadReason | None = None
    due_ms: int | None = None
    park: bool = False


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """A known order that is not in a terminal status."""

    houdini_id: str
    created: str | None


@dataclass(frozen=True, slots=True)
class Gap:
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


@dataclass(frozen=True, slots=True)
class DeliveryOfOrder:
    """How one event of an order stands at one target.

    Attributes:
        replay: 0 for the delivery the event made, n for the nth time a person asked.
    """

    houdini_id: str
    webhook_id: str
    sequence: int
    event_status: int
    target: str
    status: DeliveryStatus
    reason: DeadReason | None
    replay: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one target still has to get.

    Attributes:
        pending: deliveries not ended.
        oldest_ms: when the oldest of them was made, None when there is none.
        waiting_since_ms: the earliest due time among lane heads that nobody has claimed; None when there is none.
        stopped: parked by a 410 or paused by a person.
    """

    pending: int
    oldest_ms: int | None
    waiting_since_ms: int | None
    stopped: bool


class Store(Protocol):
    """The verbs. All raise StoreError when the store cannot be used."""

    async def open(self, targets: Collection[str]) -> None:
        """Open or create it, migrate it, and make these the configured targets."""
        ...

    async def close(self) -> None:
        """Finish what was asked, then close; asking afterwards raises StoreError."""
        ...

    async def check_alive(self) -> None:
        """Return once the store has answered a trivial question."""
        ...

    async def failed(self) -> str:
        """Return, with the reason, only if a commit fails: the process must then end and start anew."""
        ...

    def on_due(self, wake: Callable[[Collection[str]], None]) -> None:
        """Call `wake` with target names, on the event loop, after a commit that made deliveries due."""
        ...

    async def ingest(self, houdini_ids: Collection[str], plan: Planner) -> IngestPlan:
        """Read these orders' projections, plan, and write the plan, in one transaction."""
        ...

    async def claim(self, target: str, limit: int, now_ms: int) -> Claim:
        """Take up to `limit` due lane heads of a target for an attempt each."""
        ...

    async def settle(self, settlements: Sequence[Settlement], now_ms: int) -> None:
        """Write outcomes, promote the next of each finished lane, give the claims back."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claims back without an outcome (a cancelled attempt)."""
        ...

    async def shift_due(self, target: str, by_ms: int, after_ms: int) -> None:
        """The wall clock was set back: move the due times that lie after `after_ms` along with it."""
        ...

    async def clamp_due(self, target: str, latest_ms: int) -> None:
        """Nothing may be due later than this: no retry waits longer, so a clock was wrong when it was written."""
        ...

    async def resume(self, target: str, now_ms: int) -> bool:
        """Let a parked or paused target be sent to again; False when it was neither."""
        ...

    async def orphans(self) -> Mapping[str, int]:
        """Targets that are no longer configured, with the deliveries they still hold."""
        ...

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every configured target still has to get; costs no scan."""
        ...

    async def known_orders(self, houdini_ids: Collection[str]) -> Mapping[str, KnownOrder]:
        """The projections of those of these orders that are known."""
        ...

    async def order_deliveries(self, houdini_ids: Collection[str]) -> Sequence[DeliveryOfOrder]:
        """Every delivery of these orders' events, in the order of events, targets and replays."""
        ...

    async def replay(self, target: str, webhook_ids: Sequence[str], now_ms: int) -> int:
        """Make a new delivery of these events at the tail of their lanes; returns how many were made."""
        ...

    async def open_orders(self, limit: int) -> Sequence[OpenOrder]:
        """Known orders that are neither in a terminal status nor aged out, oldest first."""
        ...

    async def note_hidden(self, houdini_id: str, now_ms: int, spacing_ms: int, limit: int) -> bool:
        """Count a definitive 404 for a known order; True once it has aged out.

        Only answers at least `spacing_ms` apart count; `limit` of them in a row age an order out. Seeing
        it again starts the count anew.
        """
        ...

    async def ended_orders(self, houdini_ids: Collection[str], terminal_before_ms: int) -> set[str]:
        """Those of these orders that have aged out, or were terminal before that moment and still are."""
        ...

    async def begin_gap(self, from_ms: int, cause: str) -> None:
        """Record that there is no subscription; while a gap is open this does nothing."""
        ...

    async def end_gap(self, to_ms: int) -> Gap | None:
        """Record that there is a subscription again; returns the gap that ended, if one was open."""
        ...

    async def close_gaps(self, swept_ms: int, closed_by: str) -> int:
        """Record that a sweep has covered every ended gap; returns how many it closed."""
        ...

    async def gaps(self, limit: int, at_least_ms: int = 0) -> Sequence[Gap]:
        """Gaps of at least this length, open ones included, newest first."""
        ...

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        """Questions that may be asked now, longest due first."""
        ...

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        """Ask again later; returns how often it was asked without a definite answer."""
        ...

    async def end_question(self, houdini_id: str) -> None:
        """Forget an order's question."""
        ...

    async def count_questions(self) -> int:
        """How many questions are open."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while running; it is opened like any store."""
        ...

    async def check(self) -> Sequence[str]:
        """Every invariant that does not hold, a sentence each; empty when all is well."""
        ...

    async def meta_get(self, key: str) -> str | None:
        """A remembered value, None when there is none."""
        ...

    async def meta_set(self, key: str, value: str) -> None:
        """Remember a value."""
        ...

    async def size_bytes(self) -> int:
        """How much room its files take."""
        ...
