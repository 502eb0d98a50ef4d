"""Was anything lost, doubled, out of order, altered or wrongly signed? Pure.

What must have been delivered. A change counts as *visible* when the relay had a fair chance to see it:

- its frame was written to a subscribed socket while it was still the order's newest change, and that
  epoch lived on for `LAST_MOMENTS` (a frame in a socket that is then reset may never be read); or
- it brought a new `status`, a REST answer showed it, and it remained the newest for `LINGER` after that
  answer: a row is only a hint until its frame has had time to come, and finer steps of the same status
  cannot be told apart from a lagging replica; or
- it is the order's last change, and a REST answer showed it.

Changes from before the first confirmed subscription are the baseline and need not be delivered, nor
are states that came and went while nobody was connected.

How deliveries are matched. The order's bytes, as sent, must stand in the body: that names the change
without reading anything the relay computed. Of a webhook id only the first acknowledged arrival
counts: receivers drop the others by that id.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from relay.simulator.receiver import Arrival
from relay.simulator.world import Change, Epoch, World

LAST_MOMENTS: Final = 2.0
"""Seconds before the end of an epoch in which a written frame may go unread."""

LINGER: Final = 10.0
"""Seconds a change has to remain the newest after REST showed it, to count as visible by REST alone."""

_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class History:
    """What the upstream did.

    Attributes:
        changes: every change of every order, each order's in their true sequence.
        epochs: the client's sockets by number.
        since: monotonic seconds of the first confirmed subscription, None when there was none.
    """

    changes: Sequence[Change]
    epochs: Mapping[int, Epoch]
    since: float | None

    @classmethod
    def of(cls, world: World) -> "History":
        """The history of this world up to now."""
        epochs = {number: replace(epoch) for number, epoch in world.epochs.items()}
        return cls(world.changes(), epochs, world.first_subscribed_at)


@dataclass(slots=True)
class Verdict:
    """What was counted; each fault is one line that names the order.

    Attributes:
        updates: changes that were visible upstream.
        deliveries: acknowledged arrivals.
        retries: arrivals with a `relay-attempt` above 1.
        backfilled: changes that came by way of REST.
        repeated: acknowledged arrivals whose webhook id had been acknowledged before; allowed.
        lost: a visible change that a target never acknowledged.
        doubled: one change under two webhook ids.
        out_of_order: a sequence, or a status, that steps back among first arrivals.
        altered: a body that holds no state of its order byte for byte, or two changes under one webhook id.
        wrongly_signed: an arrival whose signature does not hold.
        unfinished: why the run itself did not come to its proper end.
    """

    updates: int = 0
    deliveries: int = 0
    retries: int = 0
    backfilled: int = 0
    repeated: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    wrongly_signed: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def _faults(self) -> dict[str, list[str]]:
        return {
            "lost": self.lost,
            "doubled": self.doubled,
            "out of order": self.out_of_order,
            "altered": self.altered,
            "wrongly signed": self.wrongly_signed,
        }

    @property
    def ok(self) -> bool:
        """Whether there is no fault of any kind and the run came to its end."""
        return not self.unfinished and not any(self._faults().values())

    def lines(self) -> list[str]:
        """The verdict for people: counts, then each fault with a few examples."""
        faults = self._faults()
        counts = {
            "updates that had to arrive": self.updates,
            "deliveries acknowledged": self.deliveries,
            "  seen over REST only": self.backfilled,
            "  repeated under the same id": self.repeated,
            "retries": self.retries,
            **{name: len(found) for name, found in faults.items()},
        }
        lines = [f"{name:<28} {count:>6}" for name, count in counts.items()]
        for name, found in faults.items():
            lines += [f"{name}: {what}" for what in found[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                lines.append(f"{name}: and {len(found) - _EXAMPLES} more")
        lines += [f"unfinished: {reason}" for reason in self.unfinished]
        return [*lines, "verdict: " + ("fine" if self.ok else "NOT FINE")]


def judge(history: History, arrivals: Iterable[Arrival], targets: Sequence[str]) -> Verdict:
    """Compare what the upstream did with what the receivers got.

    Args:
        history: what the upstream did, up to now.
        arrivals: what came in, oldest first, of all targets.
        targets: every target that was to get everything, by `Arrival.target`.
    """
    verdict = Verdict()
    visible = visible_changes(history)
    verdict.updates = len(visible)
    by_target: dict[str, list[Arrival]] = {target: [] for target in targets}
    for arrival in arrivals:
        by_target.setdefault(arrival.target, []).append(arrival)
    by_order = _by_order(history.changes)
    for target, came_in in by_target.items():
        ledger = _Ledger(target, by_order, verdict)
        for arrival in came_in:
            ledger.enter(arrival)
        if target in targets:
            ledger.close(visible)
    return verdict


def visible_changes(history: History) -> list[Change]:
    """The changes that had to be delivered, as this module's docstring defines them."""
    if history.since is None:
        return []
    visible = []
    for changes in _by_order(history.changes).values():
        for position, change in enumerate(changes):
            following = changes[position + 1] if position + 1 < len(changes) else None
            fresh = position == 0 or changes[position - 1].status != change.status
            if change.at >= history.since and _is_visible(change, following, fresh, history.epochs):
                visible.append(change)
    return visible


def _is_visible(change: Change, following: Change | None, fresh: bool, epochs: Mapping[int, Epoch]) -> bool:
    for push in change.pushes:
        ended = epochs[push.epoch].ended
        if push.current and (ended is None or ended - push.at > LAST_MOMENTS):
            return True
    if following is None:
        return bool(change.shown)
    return fresh and any(following.at - shown >= LINGER for shown in change.shown)


def _by_order(changes: Iterable[Change]) -> dict[str, list[Change]]:
    orders: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        orders[change.houdini_id].append(change)
    return orders


class _Ledger:
    """One target's account."""

    def __init__(self, target: str, by_order: Mapping[str, Sequence[Change]], verdict: Verdict) -> None:
        self._target = target
        self._by_order = by_order
        self._verdict = verdict
        self._change_of_id: dict[str, Change] = {}
        self._ids_of_change: dict[tuple[str, int], str] = {}
        self._furthest: dict[str, tuple[int, int]] = {}

    def enter(self, arrival: Arrival) -> None:
        """Take one arrival into account."""
        if arrival.problem is not None:
            self._verdict.wrongly_signed.append(f"arrival {arrival.number} at {self._target}: {arrival.problem}")
            return
        if arrival.type is not None and arrival.type.startswith("relay."):
            return
        self._verdict.retries += (arrival.attempt or 1) > 1
        if not arrival.acknowledged:
            return
        self._verdict.deliveries += 1
        change = self._identify(arrival)
        if change is None:
            self._verdict.altered.append(f"{self._name(arrival)}: no state of the order, byte for byte")
        elif arrival.webhook_id in self._change_of_id:
            self._enter_repeat(arrival, change)
        else:
            self._enter_first(arrival, change)

    def _enter_repeat(self, arrival: Arrival, change: Change) -> None:
        self._verdict.repeated += 1
        if self._change_of_id[arrival.webhook_id] is not change:
            self._verdict.altered.append(f"{self._name(arrival)}: two changes under {arrival.webhook_id}")

    def _enter_first(self, arrival: Arrival, change: Change) -> None:
        self._change_of_id[arrival.webhook_id] = change
        self._verdict.backfilled += arrival.origin == "backfill"
        known = self._ids_of_change.setdefault((change.houdini_id, change.index), arrival.webhook_id)
        if known != arrival.webhook_id:
            self._verdict.doubled.append(f"{self._name(arrival)}: {known} and {arrival.webhook_id}")
        sequence, step = self._furthest.get(change.houdini_id, (0, -1))
        if (arrival.sequence is not None and arrival.sequence <= sequence) or change.step < step:
            self._verdict.out_of_order.append(f"{self._name(arrival)}: sequence {arrival.sequence} after {sequence}")
        self._furthest[change.houdini_id] = (max(sequence, arrival.sequence or 0), max(step, change.step))

    def _identify(self, arrival: Arrival) -> Change | None:
        for change in self._by_order.get(arrival.houdini_id or "", ()):
            if any(body in arrival.body for body in change.bodies):
                return change
        return None

    def close(self, visible: Iterable[Change]) -> None:
        """Find out what never came."""
        for change in visible:
            if (change.houdini_id, change.index) not in self._ids_of_change:
                self._verdict.lost.append(
                    f"{self._target}: order {change.houdini_id}, status {change.status} (time {change.nth} in it)"
                )

    def _name(self, arrival: Arrival) -> str:
        return f"{self._target}: order {arrival.houdini_id}, {arrival.status}"
