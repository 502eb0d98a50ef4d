"""What the outcomes of attempts come to, from rows to a target's standing; the same for both stores. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.model import DeadReason, DeliveryStatus
from relay.standing import Breaker, Standing, suspends_schedule
from relay.store.rows import END_STATES, attempt_to_row
from relay.store.values import Death, Judge, Settlement

_DELIVERED: Final = END_STATES[DeliveryStatus.DELIVERED]


@dataclass(slots=True)
class Accepted:
    """What was written of a group of settlements.

    Attributes:
        places: in the group, of those that were not ignored.
        late: of those among them whose delivery had ended before.
        lanes: (target, lane) of those that ended.
    """

    places: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    lanes: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Group:
    """What one target's outcomes came to.

    Attributes:
        before: its standing as it was.
        standing: as they leave it.
        suspended: whether one of them ended the waits of the schedule, even if all of them left the breaker as it was.
        ended: how many open deliveries ended.
        at_once: deliveries that are due at once, for the probes alone decide when they are tried.
        deaths: those that died.
    """

    before: Standing
    standing: Standing
    suspended: bool = False
    ended: int = 0
    at_once: list[int] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)


class Round:
    """Outcomes of different deliveries, as rows for one statement each: a statement writes a row once.

    Attributes:
        waiting: to `postpone`.
        ended: to `finish`.
    """

    def __init__(self, settlements: Mapping[int, tuple[int, Settlement]], now_ms: int) -> None:
        self._settlements = settlements
        rows = [(one.status, _outcome_to_row(one, now_ms)) for _, one in settlements.values()]
        self.waiting = [row for status, row in rows if status is DeliveryStatus.PENDING]
        self.ended = [row for status, row in rows if status is not DeliveryStatus.PENDING]

    def late(self, finished: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """To `acknowledge_late`: successes of deliveries that had ended before, for the receiver has the event."""
        open_before = {row[0] for row in finished}
        return [one for one in self.ended if one["id"] not in open_before and one["state"] == _DELIVERED]

    def accept(
        self,
        accepted: Accepted,
        postponed: Sequence[Sequence[Any]],
        finished: Sequence[Sequence[Any]],
        acknowledged: Sequence[Sequence[Any]],
    ) -> list[Mapping[str, Any]]:
        """Note what was written, by the rows (id, lane, attempts made) that came back; returns attempts to write."""
        for rows, ends, late in ((postponed, False, False), (finished, True, False), (acknowledged, True, True)):
            for delivery_id, lane, _ in rows:
                place, one = self._settlements[delivery_id]
                accepted.places.add(place)
                if ends:
                    accepted.lanes.add((one.delivery.target, lane))
                if late:
                    accepted.late.add(place)
        return [
            attempt_to_row(self._settlements[delivery_id][1], number)
            for delivery_id, _, number in (*postponed, *finished, *acknowledged)
        ]


def rounds(settlements: Iterable[Settlement], now_ms: int) -> list[Round]:
    """All of them in order, no delivery twice in one round."""
    split: list[dict[int, tuple[int, Settlement]]] = []
    for place, one in enumerate(settlements):
        free = next((group for group in split if one.delivery.id not in group), None)
        if free is None:
            split.append(free := {})
        free[one.delivery.id] = place, one
    return [Round(group, now_ms) for group in split]


def _outcome_to_row(one: Settlement, now_ms: int) -> dict[str, Any]:
    attempt = one.attempt
    ends = one.status is not DeliveryStatus.PENDING
    return {
        "id": one.delivery.id,
        "claim": one.delivery.claim,
        "due_ms": now_ms if one.due_ms is None else one.due_ms,
        "state": END_STATES[one.status] if ends else 0,
        "reason": one.reason and one.reason.value,
        "step": int(one.uses_step),
        "at_ms": attempt.at_ms,
        "outcome": attempt.outcome.value,
        "status_code": attempt.status_code,
    }


def judge_in_turn(
    standings: Mapping[str, Standing], settlements: Sequence[Settlement], accepted: Accepted, judge: Judge
) -> dict[str, Group]:
    """What the outcomes mean for their targets, each judged by what the one before it left."""
    groups: dict[str, Group] = {}
    for place in sorted(accepted.places):
        one = settlements[place]
        name = one.delivery.target
        group = groups.get(name)
        if group is None:
            group = groups[name] = Group(standings[name], standings[name])
        before, group.standing = group.standing, judge(group.standing, one)
        group.suspended = group.suspended or suspends_schedule(before, group.standing)
        if one.status is not DeliveryStatus.PENDING:
            group.ended += place not in accepted.late
            group.deaths += _death(one)
        elif before.breaker is Breaker.OPEN and group.standing.breaker is Breaker.OPEN:
            group.at_once.append(one.delivery.id)
    return groups


def _death(one: Settlement) -> tuple[Death, ...]:
    """The delivery's death, if it died of this."""
    if one.status is not DeliveryStatus.DEAD:
        return ()
    event = one.delivery.event
    return (Death(one.delivery.target, event.webhook_id, event.type, one.reason or DeadReason.EXHAUSTED),)
