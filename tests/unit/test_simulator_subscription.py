"""The conversation, message by message, as documented."""

import json
from typing import Any

import pytest

from relay.simulator.faults import AllMarker
from relay.simulator.subscription import Subscription


def say(subscription: Subscription, **message: Any) -> dict[str, Any]:
    return subscription.answer(json.dumps(message))


def test_nothing_is_wanted_at_first() -> None:
    assert not Subscription().wants("a")


def test_ids_add_up() -> None:
    subscription = Subscription()
    assert say(subscription, type="subscribe", houdiniIds=["a"]) == {"type": "subscribed", "houdiniIds": ["a"]}
    assert say(subscription, type="subscribe", houdiniIds=["b"]) == {"type": "subscribed", "houdiniIds": ["b"]}
    assert [subscription.wants(order) for order in "abc"] == [True, True, False]


def test_subscribing_without_ids_switches_to_everything() -> None:
    subscription = Subscription()
    say(subscription, type="subscribe", houdiniIds=["a"])
    assert say(subscription, type="subscribe") == {"type": "subscribed", "houdiniIds": "all"}
    assert subscription.wants("c")


def test_unsubscribing_an_id_leaves_the_others() -> None:
    subscription = Subscription()
    say(subscription, type="subscribe", houdiniIds=["a", "b"])
    assert say(subscription, type="unsubscribe", houdiniIds=["a"]) == {"type": "unsubscribed", "houdiniIds": ["a"]}
    assert [subscription.wants(order) for order in "ab"] == [False, True]


def test_unsubscribing_ids_while_in_all_mode_resets_to_none() -> None:
    subscription = Subscription()
    say(subscription, type="subscribe")
    say(subscription, type="unsubscribe", houdiniIds=["a"])
    assert [subscription.wants(order) for order in "ab"] == [False, False]


def test_unsubscribing_without_ids_clears_everything() -> None:
    subscription = Subscription()
    say(subscription, type="subscribe", houdiniIds=["a"])
    assert say(subscription, type="unsubscribe")["type"] == "unsubscribed"
    assert not subscription.wants("a")


def test_ping() -> None:
    assert say(Subscription(), type="ping") == {"type": "pong"}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", "{}", '{"type":7}', "[" * 100_000, b"\xff"]
    + [f'{{"type":"subscribe","houdiniIds":{ids}}}' for ids in ("[]", "null", '"a"', "[1]")],
)
def test_invalid_messages_change_nothing(text: str | bytes) -> None:
    subscription = Subscription()
    assert subscription.answer(text)["code"] == "INVALID_MESSAGE"
    assert not subscription.wants("a")


def test_unknown_type() -> None:
    assert say(Subscription(), type="dance")["code"] == "UNKNOWN_MESSAGE_TYPE"


@pytest.mark.parametrize(
    ("marker", "members"),
    [(AllMarker.NULL, {"houdiniIds": None}), (AllMarker.EMPTY, {"houdiniIds": []}), (AllMarker.ABSENT, {})],
)
def test_the_form_of_all_can_be_chosen(marker: AllMarker, members: dict[str, Any]) -> None:
    assert Subscription().answer('{"type":"subscribe"}', marker) == {"type": "subscribed", **members}
