"""From a batch of snapshots and what is known of their orders to everything that is to be written. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay.model import Event, KnownOrder, OrderFacts, Origin, Snapshot, event_type, status_rank
from relay.store.base import IngestPlan, PlannedEvent, Question
from relay.upstream import diff


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot in the queue; `hinted` when it is a hint whose frame has not come."""

    snapshot: Snapshot
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """What a batch is judged in: times, and what was touched when.

    Attributes:
        now_ms: wall time of the ingest.
        now: monotonic time of the ingest.
        settling: seconds by which REST may lag the stream.
        quiet_since: monotonic time before which nothing is known to have been touched (process start).
        touched: houdiniId -> monotonic time of the last believed or repeated sighting.
    """

    partner_id: str
    now_ms: int
    now: float
    settling: float
    quiet_since: float
    touched: Mapping[str, float]


@dataclass(slots=True)
class Judged:
    """What became of a batch, beside the plan that is written."""

    touched: dict[str, float] = field(default_factory=dict)
    hints: list[Snapshot] = field(default_factory=list)
    duplicates: list[Origin] = field(default_factory=list)
    disbelieved: list[Origin] = field(default_factory=list)


Router = Callable[[str], tuple[str, ...]]
"""Event type -> names of the targets that want it."""


def plan_batch(
    entries: Sequence[Entry], known: Mapping[str, KnownOrder], situation: Situation, route: Router
) -> tuple[IngestPlan, Judged]:
    """Judge snapshots in order, each against what the ones before it made of its order. Pure."""
    plan, judged = IngestPlan(now_ms=situation.now_ms), Judged()
    for entry in entries:
        _plan_one(
            entry,
            plan.orders.get(entry.snapshot.houdini_id) or known.get(entry.snapshot.houdini_id),
            situation,
            route,
            plan,
            judged,
        )
    return plan, judged


def _plan_one(
    entry: Entry, known: KnownOrder | None, situation: Situation, route: Router, plan: IngestPlan, judged: Judged
) -> None:
    snapshot = entry.snapshot
    order_id = snapshot.houdini_id
    touched = judged.touched.get(order_id, situation.touched.get(order_id, situation.quiet_since))
    quiet = snapshot.origin is Origin.BACKFILL and diff.is_quiet(touched, snapshot.asked_at, situation.settling)
    verdict = diff.judge(known, snapshot, quiet=quiet, prompt=snapshot.first_sweep or entry.hinted)
    if quiet:
        plan.answered.append(order_id)
    match verdict:
        case diff.NewEvent(changed, move):
            order, event = _make_event(known, snapshot, changed, situation)
            plan.orders[order_id] = order
            plan.events.append(PlannedEvent(event, route(event.type)))
            judged.touched[order_id] = situation.now
            if move is diff.Move.FORWARD:
                plan.answered.append(order_id)
        case diff.Learn():
            plan.orders[order_id] = _advance(known, snapshot, silent=True)
            judged.touched[order_id] = situation.now
        case diff.Duplicate():
            judged.touched[order_id] = situation.now
            judged.duplicates.append(snapshot.origin)
        case diff.Hint():
            judged.hints.append(snapshot)
        case diff.Ask(move):
            judged.disbelieved.append(snapshot.origin)
            plan.questions.append(_make_question(snapshot, move, situation))
        case diff.Nothing():
            judged.duplicates.append(snapshot.origin)


def _advance(known: KnownOrder | None, snapshot: Snapshot, *, silent: bool) -> KnownOrder:
    """The projection after this snapshot was believed."""
    fields = {**(known.fields if known else {}), **diff.status_values(snapshot.fields)}
    ranked = known.ranked_status if known else None
    if status_rank(snapshot.status) is not None:
        ranked = snapshot.status
    fresh = KnownOrder(snapshot.houdini_id, snapshot.status, ranked, fields, snapshot.created, silent)
    if known is None:
        return fresh
    return replace(
        known,
        status=snapshot.status,
        ranked_status=ranked,
        fields=fields,
        created=snapshot.created or known.created,
        silent=silent,
    )


def _make_event(
    known: KnownOrder | None, snapshot: Snapshot, changed: tuple[str, ...], situation: Situation
) -> tuple[KnownOrder, Event]:
    order = _advance(known, snapshot, silent=False)
    nth = order.status_counts.get(snapshot.status, 0) + 1
    order = replace(
        order,
        sequence=order.sequence + 1,
        status_counts={**order.status_counts, snapshot.status: nth},
        last_body=snapshot.body,
        last_origin=snapshot.origin,
    )
    facts = OrderFacts(
        sequence=order.sequence,
        status=snapshot.status,
        previous_status=known.status if known is not None and known.sequence else None,
        changed=changed,
        origin=snapshot.origin,
    )
    event = Event(
        webhook_id=diff.webhook_id(situation.partner_id, snapshot.houdini_id, snapshot.status, nth),
        lane=snapshot.houdini_id,
        type=event_type(snapshot.status),
        at_ms=snapshot.seen_ms,
        body=snapshot.body,
        facts=facts,
    )
    return order, event


def _make_question(snapshot: Snapshot, move: diff.Move, situation: Situation) -> Question:
    return Question(
        houdini_id=snapshot.houdini_id,
        status=snapshot.status,
        frame=snapshot.body,
        sideways=move is diff.Move.SIDEWAYS,
        seen_ms=snapshot.seen_ms,
        ask_at_ms=situation.now_ms + int((situation.settling + 1) * 1000),
    )
