"""How a plan is written to the PostgreSQL store: a few statements a batch, whatever its size."""

from collections.abc import Collection, Mapping, Sequence

from relay.model import DeliveryStatus
from relay.standing import Ordering
from relay.store.lanes import TERMINAL_STATUSES, LaneRule, Round, Written, events_to_insert, rounds
from relay.store.postgres_link import Session
from relay.store.postgres_sql import columns
from relay.store.postgres_verbs import Counter, KnownTarget, count_open, lock_lanes, ordering_of
from relay.store.rows import event_to_row, order_to_row, question_to_row
from relay.store.values import IngestPlan, PlannedEvent


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
    rules = await _lane_rules(session, routed)
    written = Written()
    ids = await _insert_events(session, plan.events)
    for one in rounds(plan.events, ids, rules):
        await _insert_round(session, one, rules, plan.now_ms, written)
    last_event = {one.event.lane: ids[one.event.webhook_id] for one in plan.events if one.event.webhook_id in ids}
    await _write_facts(session, plan, last_event)
    await count_open(
        session,
        Counter.MAKING,
        {rules[name].target_id: made - written.superseded[name] for name, made in written.made.items()},
    )
    return written


async def insert_replays(
    session: Session, target: KnownTarget, webhook_ids: Sequence[str], now_ms: int
) -> list[DeliveryStatus]:
    """Put another delivery of each event at the tail of its lane; how they stand now, unknown events left out."""
    rule = (await _lane_rules(session, {target.name}))[target.name]
    found = await session.rows("replay_lanes", {"webhook_ids": list(webhook_ids)})
    await lock_lanes(session, (row[0] for row in found))
    made = [await _insert_replay(session, rule, one, now_ms) for one in webhook_ids]
    await count_open(session, Counter.MAKING, {rule.target_id: made.count(DeliveryStatus.PENDING)})
    return [one for one in made if one is not None]


async def _insert_replay(session: Session, rule: LaneRule, webhook_id: str, now_ms: int) -> DeliveryStatus | None:
    row = await session.row("replay_source", {"target": rule.target_id, "webhook_id": webhook_id})
    if row is None:
        return None
    event_id, event_lane, replay, newer = row
    one = {
        "target": rule.target_id,
        "lane": rule.lane(event_lane, event_id, replay),
        "event": event_id,
        "replay": replay,
    }
    if newer and rule.ordering is Ordering.LATEST_ONLY:
        await session.run("insert_superseded", one | {"now": now_ms})
        return DeliveryStatus.SUPERSEDED
    await session.run("insert_deliveries", columns([one]) | {"now": now_ms})
    return DeliveryStatus.PENDING


async def _lane_rules(session: Session, names: Collection[str]) -> dict[str, LaneRule]:
    """How these targets' deliveries enter lanes, as it stands in the database: another instance may have set it."""
    found = {}
    for name, target_id, ordering in await session.rows("orderings", {"names": sorted(names)}) if names else ():
        found[name] = LaneRule(target_id, ordering_of(name, ordering))
    if missing := sorted(set(names) - found.keys()):
        raise KeyError(missing[0])  # the fault of whoever routed there: nothing is wrong with the store
    return found


async def _insert_events(session: Session, events: Sequence[PlannedEvent]) -> dict[str, int]:
    """Webhook id -> id of what was written; a notice that was raised before is not."""
    ids: dict[str, int] = {}
    for statement, planned in events_to_insert(events):
        rows = await session.rows(statement, columns([event_to_row(one) for one in planned]))
        ids |= {webhook_id: event_id for webhook_id, event_id in rows}
    return ids


async def _insert_round(
    session: Session, one: Round, rules: Mapping[str, LaneRule], now_ms: int, written: Written
) -> None:
    names = {rule.target_id: name for name, rule in rules.items()}
    if one.supersedes:
        bound = columns(one.supersedes) | {"now": now_ms, "terminal_statuses": TERMINAL_STATUSES}
        written.superseded.update(names[row[0]] for row in await session.rows("supersede", bound))
    if one.deliveries:
        await session.run("insert_deliveries", columns(one.deliveries) | {"now": now_ms})
        written.made.update(names[row["target"]] for row in one.deliveries)


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
