"""How events become deliveries in their targets' lanes, as rows to write; the same for both stores. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.model import TERMINAL, Event
from relay.standing import Ordering
from relay.store.values import PlannedEvent

TERMINAL_STATUSES: Final = sorted(TERMINAL)


@dataclass(slots=True)
class Written:
    """What a plan means for its targets: deliveries made and superseded, by name."""

    made: Counter[str] = field(default_factory=Counter)
    superseded: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class LaneRule:
    """How one target's deliveries enter lanes."""

    target_id: int
    ordering: Ordering

    def lane(self, event_lane: str, event_id: int, replay: int) -> str:
        """The lane of an event's delivery, or of the nth replay of it."""
        if self.ordering is not Ordering.NONE:
            return event_lane
        return f"{event_lane}#{event_id}" + (f"r{replay}" if replay else "")  # every delivery is its own lane


@dataclass(frozen=True, slots=True)
class Round:
    """Rows for one statement each: no lane of a target is in it twice, for a statement does not see its own rows.

    Attributes:
        supersedes: lanes whose waiting deliveries the new ones replace; to be written first.
        deliveries: to be inserted, in this order.
    """

    supersedes: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)


def events_to_insert(events: Sequence[PlannedEvent]) -> Iterator[tuple[str, list[PlannedEvent]]]:
    """A query's name and the events it inserts: a notice may have been raised before, an order's event may not."""
    for statement, notices in (("insert_events", False), ("insert_notices", True)):
        planned = [one for one in events if (one.event.facts is None) is notices]
        if planned:
            yield statement, planned


def rounds(events: Sequence[PlannedEvent], ids: Mapping[str, int], rules: Mapping[str, LaneRule]) -> Iterator[Round]:
    """The deliveries of new events, in the order of the events within every lane.

    Args:
        events: as planned.
        ids: webhook id -> row id of those that were new.
        rules: by target.

    Raises:
        KeyError: an event is routed to a target that has no rule.
    """
    new: dict[str, PlannedEvent] = {}
    for one in events:
        if one.event.webhook_id in ids:
            new.setdefault(one.event.webhook_id, one)  # a notice may be planned twice
    for group in _lanes_once(new.values()):
        made = Round()
        for planned in group:
            event = planned.event
            event_id = ids[event.webhook_id]
            for name in planned.targets:
                rule = rules[name]
                place = {"target": rule.target_id, "lane": rule.lane(event.lane, event_id, 0)}
                made.deliveries.append({**place, "event": event_id, "replay": 0})
                if rule.ordering is Ordering.LATEST_ONLY:
                    made.supersedes.append({**place, "terminal": int(_is_terminal(event))})
        yield made


def _lanes_once(events: Iterable[PlannedEvent]) -> list[list[PlannedEvent]]:
    """The events in order, split so that none has a lane twice."""
    groups: list[list[PlannedEvent]] = []
    seen: Counter[str] = Counter()
    for planned in events:
        number = seen[planned.event.lane]
        seen[planned.event.lane] += 1
        if number == len(groups):
            groups.append([])
        groups[number].append(planned)
    return groups


def _is_terminal(event: Event) -> bool:
    return event.facts is not None and event.facts.status in TERMINAL
