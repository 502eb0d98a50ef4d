"""How a plan is written to the SQLite store: a few statements a batch, whatever its size."""

import json
import sqlite3
from collections.abc import Mapping

from relay.model import DeliveryStatus
from relay.standing import Ordering
from relay.store.lanes import TERMINAL_STATUSES, LaneRule, Round, Written, events_to_insert, rounds
from relay.store.rows import event_to_row, order_to_row, question_to_row
from relay.store.sqlite_rows import write_rows
from relay.store.sqlite_verbs import SQL, KnownTarget
from relay.store.values import IngestPlan


def write_plan(connection: sqlite3.Connection, targets: Mapping[str, KnownTarget], plan: IngestPlan) -> Written:
    """Write everything; says what that means for each target.

    Raises:
        KeyError: an event is routed to a target that is not known.
    """
    routed = {name for planned in plan.events for name in planned.targets}
    rules = {name: _lane_rule(targets[name]) for name in routed}
    written, ids = Written(), dict[str, int]()
    for statement, planned in events_to_insert(plan.events):
        ids |= dict(write_rows(connection, statement, [event_to_row(one) for one in planned]))
    for one in rounds(plan.events, ids, rules):
        _insert_round(connection, one, rules, plan.now_ms, written)
    last_event = {one.event.lane: ids[one.event.webhook_id] for one in plan.events if one.event.webhook_id in ids}
    _write_facts(connection, plan, last_event)
    return written


def insert_replay(
    connection: sqlite3.Connection, target: KnownTarget, webhook_id: str, now_ms: int
) -> DeliveryStatus | None:
    """Put another delivery of an event at the tail of its lane; how it stands now, None if there is no such event."""
    row = connection.execute(SQL["replay_source"], {"target": target.id, "webhook_id": webhook_id}).fetchone()
    if row is None:
        return None
    event_id, event_lane, replay, newer = row
    lane = _lane_rule(target).lane(event_lane, event_id, replay)
    one = {"target": target.id, "lane": lane, "event": event_id, "replay": replay}
    if newer and target.ordering is Ordering.LATEST_ONLY:
        connection.execute(SQL["insert_superseded"], {**one, "now": now_ms})
        return DeliveryStatus.SUPERSEDED
    write_rows(connection, "insert_deliveries", [one], now=now_ms)
    return DeliveryStatus.PENDING


def _lane_rule(target: KnownTarget) -> LaneRule:
    return LaneRule(target.id, target.ordering)


def _insert_round(
    connection: sqlite3.Connection, one: Round, rules: Mapping[str, LaneRule], now_ms: int, written: Written
) -> None:
    names = {rule.target_id: name for name, rule in rules.items()}
    terminal = json.dumps(TERMINAL_STATUSES)
    ended = write_rows(connection, "supersede", one.supersedes, now=now_ms, terminal_statuses=terminal)
    written.superseded.update(names[target_id] for (target_id,) in ended)
    write_rows(connection, "insert_deliveries", one.deliveries, now=now_ms)
    written.made.update(names[row["target"]] for row in one.deliveries)


def _write_facts(connection: sqlite3.Connection, plan: IngestPlan, last_event: Mapping[str, int]) -> None:
    """Everything of a plan but events and deliveries."""
    orders = [order_to_row(one, last_event.get(one.houdini_id), plan.now_ms) for one in plan.orders.values()]
    write_rows(connection, "upsert_orders", orders)
    for question in plan.questions:
        connection.execute(SQL["upsert_question"], question_to_row(question))
    if plan.answered:
        connection.execute(SQL["delete_questions"], (json.dumps(plan.answered),))
    for key, value in plan.remembered.items():
        connection.execute(SQL["meta_set"], (key, value))
