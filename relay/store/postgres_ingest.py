"""How a plan is written to the PostgreSQL store: a few statements a batch, whatever its size.

A statement does not see its own rows, so that events of one lane are written in rounds, each lane once a round.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.model import TERMINAL, DeliveryStatus, Event
from relay.standing import Ordering
from relay.store.postgres_link import Session
from relay.store.postgres_sql import columns
from relay.store.postgres_verbs import Counter as OpenCounter
from relay.store.postgres_verbs import KnownTarget, count_open, lock_lanes, ordering_of
from relay.store.rows import event_to_row, order_to_row, question_to_row
from relay.store.values import IngestPlan, PlannedEvent

_TERMINAL: Final = sorted(TERMINAL)


@dataclass(slots=True)
class Written:
    """What a plan means for its targets: deliveries made and superseded, by name."""

    made: Counter[str] = field(default_factory=Counter)
    superseded: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Lane:
    """How a target's deliveries enter their lanes."""

    target_id: int
    ordering: Ordering

    def name(self, event_lane: str, event_id: int, replay: int) -> str:
        if self.ordering is not Ordering.NONE:
            return event_lane
        return f"{event_lane}#{event_id}" + (f"r{replay}" if replay else "")  # every delivery is its own lane


def needs_lead(plan: IngestPlan) -> bool:
    """Whether it is about orders, which only the instance that reads them may write."""
    return bool(plan.orders or plan.questions or plan.answered or any(one.event.facts for one in plan.events))


async def write_plan(session: Session, plan: IngestPlan) -> Written:
    """Write everything; says what that means for each target. The lanes of the plan's orders are locked.

    Raises:
        KeyError: an event is routed to a target that is not known.
    """
    await lock_lanes(session, (one.event.lane for one in plan.events if one.event.facts is None))
    routed = {name for planned in plan.events for name in planned.targets}
    lanes = await _lanes(session, routed)
    written, last_event = Written(), dict[str, int]()
    for group in _rounds(plan.events):
        ids = await _insert_events(session, group)
        last_event |= {one.event.lane: ids[one.event.webhook_id] for one in group if one.event.webhook_id in ids}
        await _insert_deliveries(session, group, ids, lanes, plan.now_ms, written)
    await _write_facts(session, plan, last_event)
    await count_open(
        session,
        OpenCounter.MAKING,
        {lanes[name].target_id: made - written.superseded[name] for name, made in written.made.items()},
    )
    return written


async def insert_replays(
    session: Session, target: KnownTarget, webhook_ids: Sequence[str], now_ms: int
) -> list[DeliveryStatus]:
    """Put another delivery of each event at the tail of its lane; how they stand now, unknown events left out."""
    lane = (await _lanes(session, {target.name}))[target.name]
    found = await session.rows("replay_lanes", {"webhook_ids": list(webhook_ids)})
    await lock_lanes(session, (row[0] for row in found))
    made = [await _insert_replay(session, lane, one, now_ms) for one in webhook_ids]
    await count_open(session, OpenCounter.MAKING, {lane.target_id: made.count(DeliveryStatus.PENDING)})
    return [one for one in made if one is not None]


async def _insert_replay(session: Session, lane: _Lane, webhook_id: str, now_ms: int) -> DeliveryStatus | None:
    row = await session.row("replay_source", {"target": lane.target_id, "webhook_id": webhook_id})
    if row is None:
        return None
    event_id, event_lane, replay, newer = row
    one = {
        "target": lane.target_id,
        "lane": lane.name(event_lane, event_id, replay),
        "event": event_id,
        "replay": replay,
    }
    if newer and lane.ordering is Ordering.LATEST_ONLY:
        await session.run("insert_superseded", one | {"now": now_ms})
        return DeliveryStatus.SUPERSEDED
    await session.run("insert_deliveries", columns([one]) | {"now": now_ms})
    return DeliveryStatus.PENDING


async def _lanes(session: Session, names: Collection[str]) -> dict[str, _Lane]:
    """How these targets' deliveries enter lanes, as it stands in the database: another instance may have set it."""
    found = {}
    for name, target_id, ordering in await session.rows("orderings", {"names": sorted(names)}) if names else ():
        found[name] = _Lane(target_id, ordering_of(name, ordering))
    if missing := sorted(set(names) - found.keys()):
        raise KeyError(missing[0])  # the fault of whoever routed there: nothing is wrong with the store
    return found


def _rounds(events: Sequence[PlannedEvent]) -> list[list[PlannedEvent]]:
    """The events in order, split so that none has a lane twice."""
    rounds: list[list[PlannedEvent]] = []
    seen: Counter[str] = Counter()
    for planned in events:
        number = seen[planned.event.lane]
        seen[planned.event.lane] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(planned)
    return rounds


async def _insert_events(session: Session, group: Sequence[PlannedEvent]) -> dict[str, int]:
    """Webhook id -> id of what was written; a notice that was raised before is not."""
    ids: dict[str, int] = {}
    notices = {one.event.webhook_id: one for one in group if one.event.facts is None}  # each once
    for statement, planned in (
        ("insert_events", [one for one in group if one.event.facts is not None]),
        ("insert_notices", list(notices.values())),
    ):
        if planned:
            rows = await session.rows(statement, columns([event_to_row(one) for one in planned]))
            ids |= {webhook_id: event_id for webhook_id, event_id in rows}
    return ids


async def _insert_deliveries(
    session: Session,
    group: Sequence[PlannedEvent],
    ids: Mapping[str, int],
    lanes: Mapping[str, _Lane],
    now_ms: int,
    written: Written,
) -> None:
    made: list[dict[str, Any]] = []
    latest: list[dict[str, Any]] = []
    for planned in group:
        event_id = ids.get(planned.event.webhook_id)
        for name in planned.targets if event_id is not None else ():
            lane, event_lane = lanes[name], planned.event.lane
            where = {"target": lane.target_id, "lane": lane.name(event_lane, event_id or 0, 0)}
            made.append(where | {"event": event_id, "replay": 0})
            if lane.ordering is Ordering.LATEST_ONLY:
                latest.append(where | {"terminal": int(_ends(planned.event))})
            written.made[name] += 1
    if latest:
        names = {lane.target_id: name for name, lane in lanes.items()}
        bound = columns(latest) | {"now": now_ms, "terminal_statuses": _TERMINAL}
        written.superseded.update(names[row[0]] for row in await session.rows("supersede", bound))
    if made:
        await session.run("insert_deliveries", columns(made) | {"now": now_ms})


def _ends(event: Event) -> bool:
    return event.facts is not None and event.facts.status in TERMINAL


async def _write_facts(session: Session, plan: IngestPlan, last_event: Mapping[str, int]) -> None:
    """Everything of a plan but events and deliveries."""
    if plan.orders:
        orders = [order_to_row(one, last_event.get(one.houdini_id), plan.now_ms) for one in plan.orders.values()]
        await session.run("upsert_orders", columns(orders))
    for question in plan.questions:
        await session.run("upsert_question", question_to_row(question))
    if plan.answered:
        await session.run("delete_questions", {"ids": plan.answered})
    for key, value in sorted(plan.remembered.items()):
        await session.run("meta_set", {"key": key, "value": value})
