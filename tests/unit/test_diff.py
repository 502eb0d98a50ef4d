"""The rank rule, row by row of its table."""

import itertools

import pytest
from support.factories import known, order_body, row, snapshot

from relay.model import LABELS
from relay.upstream.diff import (
    Ask,
    Duplicate,
    Hint,
    Learn,
    Move,
    NewEvent,
    Nothing,
    changed_fields,
    classify_move,
    is_quiet,
    judge,
    status_values,
    webhook_id,
)

LIFE = [-2, -1, 0, 5, 1, 2, 3, 4, 7, 8]


def test_an_unknown_order_is_an_event_from_the_socket():
    assert judge(None, snapshot(status=2), quiet=False, prompt=False) == NewEvent(("status",), Move.NEW)


def test_an_unknown_order_from_rest_is_news_in_a_first_sweep_and_a_hint_later():
    assert judge(None, row(status=2), quiet=False, prompt=True) == NewEvent(("status",), Move.NEW)
    assert judge(None, row(status=2), quiet=True, prompt=False) == Hint()


def test_the_baseline_learns_unknown_orders_silently_and_only_those():
    assert judge(None, row(status=2, silent=True), quiet=False, prompt=True) == Learn()
    assert isinstance(judge(known(status=1), row(status=2, silent=True), quiet=False, prompt=True), NewEvent)


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(LIFE)))
def test_every_documented_step_is_forward(before: int, after: int):
    frame = judge(known(status=before), snapshot(status=after), quiet=False, prompt=False)
    assert frame == NewEvent(("status",), Move.FORWARD)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (5, 1), (3, 6), (6, 7), (7, 8), (4, 8)])
def test_rest_ahead_of_the_socket_is_a_hint_unless_prompt(before: int, after: int):
    assert judge(known(status=before), row(status=after), quiet=True, prompt=False) == Hint()
    assert judge(known(status=before), row(status=after), quiet=False, prompt=True) == NewEvent(
        ("status",), Move.FORWARD
    )


@pytest.mark.parametrize(("before", "after"), [(2, 1), (4, 3), (8, 4), (1, 5), (1, 0)])
def test_a_backward_frame_is_asked_about_and_a_backward_row_needs_quiet(before: int, after: int):
    assert judge(known(status=before), snapshot(status=after), quiet=True, prompt=True) == Ask(Move.BACKWARD)
    assert judge(known(status=before), row(status=after), quiet=False, prompt=True) == Nothing()
    assert judge(known(status=before), row(status=after), quiet=True, prompt=True) == NewEvent(
        ("status",), Move.BACKWARD
    )


def test_finished_to_failed_is_sideways():
    assert judge(known(status=4), snapshot(status=6), quiet=False, prompt=False) == Ask(Move.SIDEWAYS)
    assert judge(known(status=4), row(status=6), quiet=False, prompt=True) == Nothing()
    assert judge(known(status=4), row(status=6), quiet=True, prompt=False) == NewEvent(("status",), Move.SIDEWAYS)


@pytest.mark.parametrize("prompt", [False, True])
def test_a_confirmed_frame_is_believed_only_while_it_is_still_sideways(prompt: bool):
    def confirmed(before: int, after: int) -> object:
        return judge(known(status=before), snapshot(status=after), quiet=False, prompt=prompt, confirmed=True)

    assert confirmed(4, 6) == confirmed(6, 4) == NewEvent(("status",), Move.SIDEWAYS)
    for before, after in ((8, 6), (6, 6), (4, 4), (3, 6), (7, 4), (2, 1), (1, 2)):
        assert confirmed(before, after) == Nothing()
    assert judge(None, snapshot(status=6), quiet=False, prompt=prompt, confirmed=True) == Nothing()


def test_the_same_frame_again_is_a_duplicate_and_the_same_row_nothing():
    assert judge(known(status=2), snapshot(status=2), quiet=False, prompt=False) == Duplicate()
    assert judge(known(status=2), row(status=2), quiet=True, prompt=True) == Nothing()


def test_two_frames_are_compared_whole_but_for_live_prices():
    before = known(status=2, last_frame=order_body(status=2, inToken={"price": 1}, eta=3, hashUrl="a"))
    assert judge(before, snapshot(status=2, inToken={"price": 2}, eta=4, hashUrl="a"), quiet=False, prompt=False) == (
        Duplicate()
    )
    assert judge(before, snapshot(status=2, hashUrl="b"), quiet=False, prompt=False) == NewEvent(
        ("hashUrl",), Move.SAME
    )


def test_a_field_that_appears_is_a_change_and_one_that_is_absent_or_null_is_not():
    before = known(status=2, last_frame=order_body(status=2, hashUrl="a"))
    assert changed_fields(before, snapshot(status=2)) == ()
    assert changed_fields(before, snapshot(status=2, hashUrl=None)) == ()
    assert changed_fields(before, snapshot(status=2, transactionHash="0x1", hashUrl="a")) == ("transactionHash",)
    assert changed_fields(before, snapshot(status=2, displayStatus="X", hashUrl="a")) == ("displayStatus",)


def test_across_rest_and_socket_only_shared_status_fields_are_compared():
    from_rest = known(status=2, fields={"status": 2, "inStatus": 3}, last_frame=None)
    assert changed_fields(from_rest, snapshot(status=2, inStatus=3, displayStatus="X", hashUrl="b")) == ()
    assert changed_fields(from_rest, snapshot(status=2, inStatus=4)) == ("inStatus",)
    from_socket = known(status=2, fields={"status": 2, "inStatus": 3})
    assert judge(from_socket, row(status=2, inStatus=4), quiet=False, prompt=True) == Nothing()
    assert judge(from_socket, row(status=2, inStatus=4), quiet=True, prompt=True) == NewEvent(("inStatus",), Move.SAME)
    assert judge(from_socket, row(status=2, displayStatus="Y", hashUrl="z"), quiet=True, prompt=True) == Nothing()


def test_the_first_frame_of_a_silently_learned_order_is_always_an_event():
    silent = known(status=4, silent=True, sequence=0, status_counts={}, last_frame=None)
    for status in LABELS:
        assert isinstance(judge(silent, snapshot(status=status), quiet=False, prompt=False), NewEvent)
    assert judge(silent, row(status=4), quiet=True, prompt=True) == Nothing()


def test_an_unknown_code_keeps_the_rank_and_counts_as_something_else():
    frame = snapshot(status=42)
    assert classify_move(known(status=2), frame) is Move.SAME
    assert judge(known(status=2), frame, quiet=False, prompt=False) == NewEvent(("status",), Move.SAME)
    in_unknown = known(status=42, ranked_status=2, fields={"status": 42}, last_frame=order_body(status=42))
    assert judge(in_unknown, frame, quiet=False, prompt=False) == Duplicate()
    assert judge(in_unknown, snapshot(status=2), quiet=False, prompt=False) == NewEvent(("status",), Move.SAME)
    assert judge(in_unknown, snapshot(status=3), quiet=False, prompt=False) == NewEvent(("status",), Move.FORWARD)
    assert judge(in_unknown, snapshot(status=1), quiet=False, prompt=False) == Ask(Move.BACKWARD)
    only_unknown = known(status=42, ranked_status=None, fields={"status": 42}, last_frame=order_body(status=42))
    assert judge(only_unknown, snapshot(status=-2), quiet=False, prompt=False) == NewEvent(("status",), Move.FORWARD)


def test_quiet_means_longer_than_the_settling_time_before_the_request():
    assert not is_quiet(last_touched=100.0, asked_at=160.0)
    assert is_quiet(last_touched=100.0, asked_at=160.1)


def test_status_values_decode_and_leave_out_what_says_nothing():
    assert status_values({"status": b"4", "inStatus": b"null", "displayStatus": b'"\\u0041"', "x": b"1"}) == {
        "status": 4,
        "displayStatus": "A",
    }
    assert status_values({"status": b"4", "inStatus": b"1e999"}) == {"status": 4, "inStatus": "1e999"}


def test_the_webhook_id_depends_on_partner_order_status_and_count_alone():
    base = webhook_id("p", "o", 4, 1)
    assert base == webhook_id("p", "o", 4, 1)
    # Golden: receivers de-duplicate by it, so a change of this recipe would deliver everything twice.
    assert base == "evt_877305f6bac8fbd7504f7a81f0a72c8e"
    others = {webhook_id("q", "o", 4, 1), webhook_id("p", "oo", 4, 1), webhook_id("p", "o", 5, 1)}
    assert base not in others | {webhook_id("p", "o", 4, 2)}
