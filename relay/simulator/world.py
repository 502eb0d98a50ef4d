"""The one order table that socket and REST of the stand-in show, with its true history.

Everything the verdict needs is recorded here: each change, the bytes it was sent as, into which epoch
they were written and when, and when a REST answer showed it.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from relay.clock import Clock
from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.orders import OrderFields, Style, at_stage, new_order, repriced, serialise

WINDOW_MS: Final = 48 * 3600 * 1000
"""How long after its making an order is visible through REST, milliseconds."""


@dataclass(frozen=True, slots=True)
class Push:
    """A change written to a socket.

    Attributes:
        epoch: which socket.
        at: monotonic seconds when the frame was handed to the kernel.
        current: whether it was still the order's newest change then (a held-back frame may not be).
    """

    epoch: int
    at: float
    current: bool


@dataclass(slots=True)
class Change:
    """One state of one order, from the moment it came about.

    Attributes:
        houdini_id: the order.
        index: 0 for the order's first change.
        step: how many times `status` has changed up to here; 0 for the first.
        status: order status code.
        nth: how many changes the order has had in this status, this one included.
        at: monotonic seconds when it came about.
        bodies: the order's bytes, the newest last; more than one when only prices moved.
        pushes: when it was written to a socket.
        shown: monotonic times of the REST answers that showed it while it was the newest.
    """

    houdini_id: str
    index: int
    step: int
    status: int
    nth: int
    at: float
    bodies: list[bytes]
    pushes: list[Push] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The bytes that stand for it now."""
        return self.bodies[-1]


@dataclass(slots=True)
class Order:
    """An order with all it has been through.

    Attributes:
        houdini_id: its id.
        created_ms: wall time of its making.
        modified_ms: wall time of its newest change.
        fields: its members in the present state.
        style: how it is spelt.
        changes: its true history, the present state last.
    """

    houdini_id: str
    created_ms: int
    modified_ms: int
    fields: OrderFields
    style: Style
    changes: list[Change] = field(default_factory=list)

    def change_at(self, moment: float) -> Change | None:
        """The state it was in at this monotonic time; None before its first."""
        count = bisect_right(self.changes, moment, key=lambda change: change.at)
        return self.changes[count - 1] if count else None


@dataclass(slots=True)
class Epoch:
    """One life of a client's socket.

    Attributes:
        started: monotonic seconds of the upgrade.
        ended: monotonic seconds of its end, None while it lives.
    """

    started: float
    ended: float | None = None


class Subscriber(Protocol):
    """Whoever wants to hear of changes."""

    def push(self, change: Change) -> None:
        """Take note of a change; must not block."""
        ...


class World:
    """Orders, their history, and who is listening."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.clock = clock
        self.orders: dict[str, Order] = {}
        self.epochs: dict[int, Epoch] = {}
        self.first_subscribed_at: float | None = None
        self._rng = rng
        self._subscribers: list[Subscriber] = []

    def create(
        self, kind: Kind, first: Stage, *, age_ms: int = 0, style: Style = Style.PLAIN, announce: bool = True
    ) -> Order:
        """Make an order and put it into its first stage.

        Args:
            kind: how it is routed.
            first: the stage it starts in.
            age_ms: how long ago it was created, milliseconds.
            style: how it is spelt.
            announce: whether subscribers hear of it.
        """
        now_ms = self.clock.wall_ms()
        base = new_order(kind, now_ms - age_ms, self._rng)
        order = Order(base["houdiniId"], now_ms - age_ms, now_ms, base, style)
        self.orders[order.houdini_id] = order
        self._change(order, first, announce)
        return order

    def transition(self, order: Order, stage: Stage) -> Change:
        """Move an order into a stage and tell the subscribers."""
        return self._change(order, stage, announce=True)

    def reprice(self, order: Order) -> None:
        """Push the order again with nothing but prices moved: not a change."""
        now_ms = self.clock.wall_ms()
        order.fields = repriced(order.fields, now_ms, self._rng)
        order.changes[-1].bodies.append(serialise(order.fields, order.style, self._rng))
        self._tell(order.changes[-1])

    def _change(self, order: Order, stage: Stage, announce: bool) -> Change:
        order.modified_ms = self.clock.wall_ms()
        order.fields = at_stage(order.fields, stage, order.modified_ms, self._rng)
        before = order.changes[-1] if order.changes else None
        moved = before is not None and before.status != stage.status
        change = Change(
            houdini_id=order.houdini_id,
            index=len(order.changes),
            step=0 if before is None else before.step + moved,
            status=stage.status,
            nth=1 + sum(known.status == stage.status for known in order.changes),
            at=self.clock.mono(),
            bodies=[serialise(order.fields, order.style, self._rng)],
        )
        order.changes.append(change)
        if announce:
            self._tell(change)
        return change

    def _tell(self, change: Change) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber.push(change)

    def visible(self, lag: float = 0.0) -> Iterator[tuple[Order, Change]]:
        """Orders inside the window with the state they were in `lag` seconds ago."""
        oldest = self.clock.wall_ms() - WINDOW_MS
        moment = self.clock.mono() - lag
        for order in self.orders.values():
            change = order.change_at(moment)
            if change is not None and order.created_ms >= oldest:
                yield order, change

    def find(self, houdini_id: str, lag: float = 0.0) -> tuple[Order, Change] | None:
        """One order as `visible` would show it; None when it is not visible."""
        order = self.orders.get(houdini_id)
        if order is None or order.created_ms < self.clock.wall_ms() - WINDOW_MS:
            return None
        change = order.change_at(self.clock.mono() - lag)
        return None if change is None else (order, change)

    def epoch_started(self, subscriber: Subscriber) -> int:
        """Take in a new socket; answers the number of its epoch, from 1."""
        number = len(self.epochs) + 1
        self.epochs[number] = Epoch(self.clock.mono())
        self._subscribers.append(subscriber)
        return number

    def epoch_ended(self, number: int, subscriber: Subscriber) -> None:
        """A socket is gone, whoever ended it."""
        self.epochs[number].ended = self.clock.mono()
        self._subscribers.remove(subscriber)

    def subscribed(self) -> None:
        """A client was told that its subscription stands."""
        if self.first_subscribed_at is None:
            self.first_subscribed_at = self.clock.mono()

    def pushed(self, change: Change, epoch: int) -> None:
        """A frame with this change was written to a socket."""
        change.pushes.append(Push(epoch, self.clock.mono(), self._is_current(change)))

    def shown(self, changes: list[Change]) -> None:
        """A REST answer with these changes was written."""
        now = self.clock.mono()
        for change in changes:
            if self._is_current(change):
                change.shown.append(now)

    def _is_current(self, change: Change) -> bool:
        return self.orders[change.houdini_id].changes[-1] is change

    def changes(self) -> list[Change]:
        """Every change of every order."""
        return [change for order in self.orders.values() for change in order.changes]

    def status_counts(self) -> dict[int, int]:
        """How many orders stand in each status."""
        return dict(Counter(order.changes[-1].status for order in self.orders.values()))
