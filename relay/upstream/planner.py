"""From a batch of snapshots and what is known of their orders to everything that is to be written. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from relay.model import Event, KnownOrder, OrderFacts, Origin, Snapshot, event_type, status_rank
from relay.store.values import IngestPlan, PlannedEvent, Question
from relay.upstream import diff


class Entry(msgspec.Struct, frozen=True):
    """A snapshot in the queue.

    Attributes:
        hinted: it is a hint whose frame has not come.
        confirmed: it is the frame of a question that REST can never answer.
    """

    snapshot: Snapshot
    hinted: bool = False
    confirmed: bool = False


class Situation(msgspec.Struct, frozen=True):
    """What a batch is judged in: times, and what was touched when.

    Attributes:
        now_ms: wall time of the ingest.
        now: monotonic time of the ingest.
        settling: seconds by which REST may lag the stream.
        quiet_since: monotonic time at which every order counts as just touched (process start, clock jump).
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


Router = Callable[[Event], tuple[str, ...]]
"""Event -> names of the targets that want it."""


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
    last = judged.touched.get(order_id, situation.touched.get(order_id, situation.quiet_since))
    touched = max(last, situation.quiet_since)
    quiet = snapshot.origin is Origin.BACKFILL and diff.is_quiet(touched, snapshot.asked_at, situation.settling)
    prompt = snapshot.first_sweep or entry.hinted
    verdict = diff.judge(known, snapshot, quiet=quiet, prompt=prompt, confirmed=entry.confirmed)
    if quiet or entry.confirmed:
        _answer(plan, order_id)
    match verdict:
        case diff.NewEvent(changed, move):
            order, event = _make_event(known, snapshot, changed, situation)
            plan.orders[order_id] = order
            plan.events.append(PlannedEvent(event, route(event)))
            judged.touched[order_id] = situation.now
            if move is diff.Move.FORWARD:
                _answer(plan, order_id)
        case diff.Learn():
            plan.orders[order_id] = _advance(known, snapshot, silent=True)
            judged.touched[order_id] = situation.now
        case diff.Duplicate():
            judged.touched[order_id] = situation.now
            judged.duplicates.append(snapshot.origin)
            _absorb(plan, known, snapshot)
        case diff.Hint():
            judged.hints.append(snapshot)
        case diff.Ask(move):
            judged.disbelieved.append(snapshot.origin)
            _ask(plan, _make_question(snapshot, move, situation))
        case diff.Nothing():
            judged.duplicates.append(snapshot.origin)
            if quiet:
                _absorb(plan, known, snapshot)


def _ask(plan: IngestPlan, question: Question) -> None:
    """The last word on an order in a batch counts: a question after an answer is open."""
    plan.questions.append(question)
    plan.answered = [answered for answered in plan.answered if answered != question.houdini_id]


def _answer(plan: IngestPlan, houdini_id: str) -> None:
    """And an answer after a question settles it."""
    plan.questions = [question for question in plan.questions if question.houdini_id != houdini_id]
    plan.answered.append(houdini_id)


def _absorb(plan: IngestPlan, known: KnownOrder | None, snapshot: Snapshot) -> None:
    """Keep what a repetition shows for the first time, without an event: later changes are told apart by it."""
    if known is None:
        return
    fields = {**diff.status_values(snapshot.fields), **known.fields}
    frame = known.last_frame
    if snapshot.origin is Origin.WEBSOCKET and frame is None:
        frame = snapshot.body
    if fields != known.fields or frame is not known.last_frame:
        plan.orders[known.houdini_id] = replace(known, fields=fields, last_frame=frame)


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
    from_socket = snapshot.origin is Origin.WEBSOCKET
    order = _advance(known, snapshot, silent=False)
    nth = order.status_counts.get(snapshot.status, 0) + 1
    order = replace(
        order,
        sequence=order.sequence + 1,
        status_counts={**order.status_counts, snapshot.status: nth},
        last_frame=snapshot.body if from_socket else None,
        frame_is_event=from_socket,
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
