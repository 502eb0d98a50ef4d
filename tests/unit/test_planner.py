"""Batches: each snapshot is judged against what the ones before it made of its order."""

from support.factories import known, order_body, row, snapshot

from relay.model import KnownOrder, Origin, Snapshot
from relay.store.values import IngestPlan
from relay.upstream.planner import Entry, Judged, Situation, plan_batch


def plan(
    *snapshots: Snapshot, known_orders: tuple[KnownOrder, ...] = (), hinted: bool = False, **changes: object
) -> tuple[IngestPlan, Judged]:
    values: dict[str, object] = {
        "partner_id": "p",
        "now_ms": 5_000,
        "now": 1_000.0,
        "settling": 60.0,
        "quiet_since": 0.0,
        "touched": {},
    }
    situation = Situation(**{**values, **changes})  # type: ignore[arg-type] # values are named above
    entries = [Entry(one, hinted) for one in snapshots]
    found = {order.houdini_id: order for order in known_orders}
    return plan_batch(entries, found, situation, lambda event: ("alpha",) if event.type != "order.new" else ())


def test_a_life_in_one_batch_counts_on():
    written, judged = plan(*(snapshot(status=code) for code in (-1, 0, 0, 1, 4)))
    facts = [planned.event.facts for planned in written.events]
    assert [(fact.sequence, fact.previous_status, fact.status) for fact in facts if fact] == [
        (1, None, -1),
        (2, -1, 0),
        (3, 0, 1),
        (4, 1, 4),
    ]
    assert [planned.event.type for planned in written.events] == [
        "order.new",
        "order.waiting",
        "order.confirming",
        "order.finished",
    ]
    assert [planned.targets for planned in written.events] == [(), ("alpha",), ("alpha",), ("alpha",)]
    assert judged.duplicates == [Origin.WEBSOCKET]
    order = written.orders["order-1"]
    assert (order.sequence, order.status_counts, order.terminal) == (4, {-1: 1, 0: 1, 1: 1, 4: 1}, True)


def test_orders_in_a_batch_do_not_mix():
    written, _ = plan(snapshot("a", 0), snapshot("b", 1), snapshot("a", 1))
    assert [(one.event.lane, one.event.facts and one.event.facts.sequence) for one in written.events] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
    ]


def test_the_second_event_in_a_status_gets_another_webhook_id_and_the_same_change_the_same_one():
    first, _ = plan(snapshot(status=2, hashUrl="a"), snapshot(status=2, hashUrl="b"))
    ids = [planned.event.webhook_id for planned in first.events]
    assert len(set(ids)) == 2
    through_rest, _ = plan(row(status=2, first_sweep=True))
    assert through_rest.events[0].event.webhook_id == ids[0]


def test_the_body_is_the_order_as_it_came():
    one = snapshot(status=2)
    written, _ = plan(one)
    assert written.events[0].event.body is one.body
    assert written.orders["order-1"].last_frame is one.body


def test_a_baseline_row_is_learned_without_event_and_its_first_frame_tells():
    written, _ = plan(row(status=4, silent=True, first_sweep=True), snapshot(status=4))
    (planned,) = written.events
    assert planned.event.facts is not None
    assert (planned.event.facts.sequence, planned.event.facts.previous_status) == (1, None)
    learned, _ = plan(row(status=4, silent=True, first_sweep=True))
    assert learned.events == []
    assert learned.orders["order-1"].silent
    assert learned.orders["order-1"].sequence == 0


def test_a_row_ahead_is_a_hint_until_it_comes_back():
    ahead = row(status=3, asked_at=900.0)
    written, judged = plan(ahead, known_orders=(known(status=2),))
    assert (written.events, judged.hints) == ([], [ahead])
    written, judged = plan(ahead, known_orders=(known(status=2),), hinted=True)
    assert [one.event.facts and one.event.facts.origin for one in written.events] == [Origin.BACKFILL]
    assert judged.hints == []


def test_a_backward_frame_becomes_a_question_one_settling_time_and_a_second_later():
    written, judged = plan(snapshot(status=1, seen_ms=4_500), known_orders=(known(status=2),))
    (asked,) = written.questions
    assert (asked.houdini_id, asked.status, asked.sideways) == ("order-1", 1, False)
    assert (asked.seen_ms, asked.ask_at_ms) == (4_500, 66_000)
    assert asked.frame == order_body(status=1)
    assert (written.events, written.orders, judged.disbelieved) == ([], {}, [Origin.WEBSOCKET])
    sideways, _ = plan(snapshot(status=6), known_orders=(known(status=4),))
    assert sideways.questions[0].sideways


def test_what_is_not_believed_does_not_disturb_the_quiet():
    _, judged = plan(snapshot(status=1), row(status=1, asked_at=900.0), known_orders=(known(status=2),))
    assert judged.touched == {"order-1": 1_000.0}  # by the quiet row, not by the frame


def test_only_a_quiet_row_corrects_and_a_frame_in_the_same_batch_ends_the_quiet():
    corrected, _ = plan(row(status=1, asked_at=900.0), known_orders=(known(status=2),))
    assert len(corrected.events) == 1
    touched, _ = plan(row(status=1, asked_at=900.0), known_orders=(known(status=2),), touched={"order-1": 841.0})
    assert touched.events == []
    after_frame, _ = plan(snapshot(status=2), row(status=1, asked_at=900.0), known_orders=(known(status=2),))
    assert after_frame.events == []
    at_start, _ = plan(row(status=1, asked_at=50.0), known_orders=(known(status=2),))
    assert at_start.events == []


def test_a_forward_event_or_a_quiet_row_ends_the_question():
    forward, _ = plan(snapshot(status=3), known_orders=(known(status=2),))
    assert forward.answered == ["order-1"]
    quiet, _ = plan(row(status=2, asked_at=900.0), known_orders=(known(status=2),))
    assert (quiet.answered, quiet.events) == (["order-1"], [])
    loud, _ = plan(row(status=2, asked_at=10.0), known_orders=(known(status=2),))
    assert loud.answered == []
    same, _ = plan(snapshot(status=2, hashUrl="new"), known_orders=(known(status=2),))
    assert same.answered == []


def test_a_confirmed_frame_ends_its_question_whether_it_still_counts_or_not():
    def confirm(before: KnownOrder) -> IngestPlan:
        situation = Situation("p", 5_000, 1_000.0, 60.0, 0.0, {})
        frame = snapshot(status=6, seen_ms=4_000)
        return plan_batch([Entry(frame, confirmed=True)], {"order-1": before}, situation, lambda _kind: ())[0]

    written = confirm(known(status=4))
    (planned,) = written.events
    assert (planned.event.type, planned.event.at_ms) == ("order.failed", 4_000)
    assert planned.event.facts is not None
    assert (planned.event.facts.origin, planned.event.facts.previous_status) == (Origin.WEBSOCKET, 4)
    assert (written.answered, written.questions) == (["order-1"], [])
    late = confirm(known(status=8))
    assert (late.events, late.answered, late.questions) == ([], ["order-1"], [])


def test_after_a_clock_jump_nothing_is_quiet_however_long_ago_it_was_touched():
    """134: monotonic time stands still while the machine sleeps."""
    jumped, _ = plan(
        row(status=1, asked_at=950.0), known_orders=(known(status=2),), touched={"order-1": 1.0}, quiet_since=940.0
    )
    assert (jumped.events, jumped.answered) == ([], [])


def test_an_unknown_code_is_an_event_and_keeps_the_rank():
    written, _ = plan(snapshot(status=77), known_orders=(known(status=2),))
    assert written.events[0].event.type == "order.unknown"
    order = written.orders["order-1"]
    assert (order.status, order.ranked_status, order.terminal) == (77, 2, False)


def test_status_fields_are_carried_on_when_a_later_snapshot_lacks_them():
    written, _ = plan(snapshot(status=2, inStatus=3, created="2026-01-01"), snapshot(status=3))
    order = written.orders["order-1"]
    assert (order.fields, order.created) == ({"status": 3, "inStatus": 3}, "2026-01-01")


def test_after_an_event_from_rest_later_frames_are_still_told_apart():
    """The first frame after it may only repeat; from then on frames are compared with frames."""
    from_rest = known(status=2, fields={"status": 2}, last_frame=None)
    written, judged = plan(
        snapshot(status=2, actionRequired=False, hashUrl="a"),
        snapshot(status=2, actionRequired=True, hashUrl="a"),
        snapshot(status=2, actionRequired=True, hashUrl="a", displayStatus="X"),
        snapshot(status=2, actionRequired=True, hashUrl="a", displayStatus="X", transactionHash="0x1"),
        known_orders=(from_rest,),
    )
    assert judged.duplicates == [Origin.WEBSOCKET]
    assert [one.event.facts and one.event.facts.changed for one in written.events] == [
        ("actionRequired",),
        ("displayStatus",),
        ("transactionHash",),
    ]


def test_what_a_repetition_shows_for_the_first_time_is_kept_without_an_event():
    from_rest = known(status=2, fields={"status": 2}, last_frame=None)
    repeated = snapshot(status=2, inStatus=3)
    written, _ = plan(repeated, known_orders=(from_rest,))
    assert written.events == []
    kept = written.orders["order-1"]
    assert (kept.fields, kept.last_frame, kept.frame_is_event) == ({"status": 2, "inStatus": 3}, repeated.body, False)
    again, _ = plan(repeated, known_orders=(kept,))
    assert again.orders == {}
    by_rest, _ = plan(row(status=2, displayStatus="Y", asked_at=900.0), known_orders=(kept,))
    assert by_rest.orders["order-1"].fields == {"status": 2, "inStatus": 3, "displayStatus": "Y"}
    assert by_rest.orders["order-1"].last_frame == repeated.body
    loud, _ = plan(row(status=2, displayStatus="Y", asked_at=10.0), known_orders=(kept,))
    assert loud.orders == {}


def test_in_a_batch_the_last_word_on_a_question_counts():
    asked, _ = plan(snapshot(status=4), snapshot(status=6), known_orders=(known(status=2),))
    assert ([one.houdini_id for one in asked.questions], asked.answered) == (["order-1"], [])
    answered, _ = plan(snapshot(status=1), snapshot(status=3), known_orders=(known(status=2),))
    assert (answered.questions, answered.answered) == ([], ["order-1"])


def test_the_last_word_on_one_question_leaves_those_of_other_orders_alone():
    orders = tuple(known(name, status=2) for name in "abc")
    forward, backward = {"status": 3}, {"status": 1}
    asked, _ = plan(*(snapshot(name, **forward) for name in "abc"), snapshot("b", **backward), known_orders=orders)
    assert ([one.houdini_id for one in asked.questions], asked.answered) == (["b"], ["a", "c"])
    told, _ = plan(*(snapshot(name, **backward) for name in "abc"), snapshot("b", **forward), known_orders=orders)
    assert ([one.houdini_id for one in told.questions], told.answered) == (["a", "c"], ["b"])
