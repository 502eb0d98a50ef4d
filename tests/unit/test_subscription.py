"""The subscription as a conversation."""

import json

from relay.upstream.protocol import Subscribed, Unsubscribed, UpstreamErrorMessage, Welcome
from relay.upstream.subscription import CHUNK, MAX_DROPS, Effect, Stage, SubscriptionState

ALL_ACK = Subscribed(None)


def welcomed(wanted: frozenset[str] | None) -> SubscriptionState:
    state = SubscriptionState(wanted)
    state.on_message(Welcome("p"))
    return state


def say(state: SubscriptionState) -> dict[str, object] | None:
    text = state.next_message()
    return None if text is None else json.loads(text)


def settle(state: SubscriptionState) -> list[dict[str, object]]:
    """Let the upstream confirm everything; returns what was said."""
    spoken = []
    while (said := say(state)) is not None:
        spoken.append(said)
        ids = said.get("houdiniIds")
        named = frozenset(ids) if isinstance(ids, list) else None
        state.on_message(Subscribed(named) if said["type"] == "subscribe" else Unsubscribed(named))
    return spoken


def test_nothing_is_said_before_welcome() -> None:
    state = SubscriptionState(None)
    assert (state.stage, say(state)) == (Stage.CONNECTED, None)


def test_all_mode_waits_for_its_acknowledgement() -> None:
    """14, 38: sent is not subscribed."""
    state = welcomed(None)
    assert say(state) == {"type": "subscribe"}
    assert (state.stage, state.waiting, say(state)) == (Stage.WELCOMED, True, None)
    assert state.on_message(ALL_ACK) is Effect.PROGRESS
    assert (state.stage, say(state)) == (Stage.SUBSCRIBED, None)


def test_all_mode_accepts_an_empty_list() -> None:
    state = welcomed(None)
    say(state)
    state.on_message(Subscribed(frozenset()))
    assert state.stage is Stage.SUBSCRIBED


def test_an_acknowledgement_nobody_asked_for_counts_for_nothing() -> None:
    state = welcomed(None)
    assert state.on_message(ALL_ACK) is Effect.NOTHING
    assert state.stage is Stage.WELCOMED


def test_ids_go_in_chunks_one_at_a_time() -> None:
    """39."""
    wanted = frozenset(f"id{number:04d}" for number in range(2 * CHUNK + 1))
    state = welcomed(wanted)
    spoken = settle(state)
    assert [len(said["houdiniIds"]) for said in spoken] == [CHUNK, CHUNK, 1]  # type: ignore[arg-type]  # JSON
    assert {key for said in spoken for key in said["houdiniIds"]} == wanted  # type: ignore[attr-defined]  # JSON
    assert state.stage is Stage.SUBSCRIBED


def test_partial_acknowledgement_is_not_enough() -> None:
    """40: 19 of 20."""
    state = welcomed(frozenset("abc"))
    say(state)
    state.on_message(Subscribed(frozenset("ab")))
    assert state.waiting
    state.on_message(Subscribed(frozenset("c")))
    assert state.stage is Stage.SUBSCRIBED


def test_ids_never_acknowledged_are_left_to_sweeps() -> None:
    """38: one id of many must not cost the connection, none at all must."""
    state = welcomed(frozenset("abc"))
    say(state)
    assert not state.give_up_waiting()
    state.on_message(Subscribed(frozenset("ab")))
    assert state.give_up_waiting()
    assert (state.unconfirmed, state.stage, say(state)) == (frozenset("c"), Stage.SUBSCRIBED, None)


def test_there_is_nothing_to_give_up_where_nothing_was_asked() -> None:
    assert not welcomed(frozenset("abc")).give_up_waiting()
    assert not welcomed(None).give_up_waiting()


def test_an_empty_wish_says_nothing() -> None:
    """Never send `houdiniIds: []`."""
    state = welcomed(frozenset())
    assert (state.stage, say(state)) == (Stage.SUBSCRIBED, None)


def test_from_all_to_ids_clears_first() -> None:
    """Never subscribe ids while in all mode; unsubscribing ids there would reset to none."""
    state = welcomed(None)
    settle(state)
    state.want(frozenset("ab"))
    assert settle(state) == [{"type": "unsubscribe"}, {"type": "subscribe", "houdiniIds": ["a", "b"]}]
    assert state.stage is Stage.SUBSCRIBED


def test_from_ids_to_all_and_between_ids() -> None:
    state = welcomed(frozenset("ab"))
    settle(state)
    state.want(frozenset("bc"))
    assert settle(state) == [
        {"type": "unsubscribe", "houdiniIds": ["a"]},
        {"type": "subscribe", "houdiniIds": ["c"]},
    ]
    state.want(None)
    assert settle(state) == [{"type": "subscribe"}]


def test_a_late_unsubscribed_does_not_undo_a_newer_wish() -> None:
    """41."""
    state = welcomed(frozenset("ab"))
    settle(state)
    state.want(frozenset("b"))
    assert say(state) == {"type": "unsubscribe", "houdiniIds": ["a"]}
    state.want(frozenset("ab"))
    assert say(state) is None
    state.on_message(Unsubscribed(frozenset("a")))
    assert settle(state) == [{"type": "subscribe", "houdiniIds": ["a"]}]
    assert state.stage is Stage.SUBSCRIBED


def test_an_unasked_unsubscribed_is_repaired_but_not_for_ever() -> None:
    """42."""
    state = welcomed(None)
    settle(state)
    for _ in range(MAX_DROPS):
        assert state.on_message(Unsubscribed(None)) is Effect.DROPPED
        assert state.stage is Stage.WELCOMED
        assert settle(state) == [{"type": "subscribe"}]
    assert state.on_message(Unsubscribed(None)) is Effect.GIVE_UP


def test_in_all_mode_unsubscribed_ids_means_none() -> None:
    state = welcomed(None)
    settle(state)
    assert state.on_message(Unsubscribed(frozenset("a"))) is Effect.DROPPED
    assert settle(state) == [{"type": "subscribe"}]


def test_unsubscribed_for_an_id_not_held_is_nothing() -> None:
    state = welcomed(frozenset("a"))
    settle(state)
    assert state.on_message(Unsubscribed(frozenset("z"))) is Effect.NOTHING


def test_errors() -> None:
    """34."""
    state = welcomed(None)
    assert state.on_message(UpstreamErrorMessage("AUTH_FAILED", "")) is Effect.AUTH_FAILED
    for code in ("INVALID_MESSAGE", "UNKNOWN_MESSAGE_TYPE", "SOMETHING_NEW"):
        assert state.on_message(UpstreamErrorMessage(code, "")) is Effect.COMPLAINT
