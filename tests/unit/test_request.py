"""What one attempt sends."""

import base64

import pytest

from relay.config import TargetSettings
from relay.config.section import TARGET_RESERVED
from relay.delivery.credentials import fixed_headers, read_from_files
from relay.delivery.request import PostRequest, build_request, fixed_part
from relay.delivery.signer import Signer, new_secret
from relay.model import Delivery, Event, OrderFacts, Origin
from relay.secret import Secret

SECRET = new_secret(b"k" * 32)
ORDER = '{"houdiniId":"h9","outAmount":0.37271038265600004,"memo":"ü☃"}'.encode()


def a_target(**settings):
    given = {"name": "shop", "url": "https://shop.example.com/hooks", "secrets": [SECRET]} | settings
    return TargetSettings.model_validate(given)


def a_delivery(attempts_made=0):
    facts = OrderFacts(sequence=1, status=4, previous_status=None, changed=(), origin=Origin.WEBSOCKET)
    event = Event("evt_1", "h9", "order.finished", 1795331090123, ORDER, facts)
    return Delivery(id=1, target="shop", event=event, attempts_made=attempts_made, steps_used=0, created_ms=0)


def basic(userinfo):
    return "Basic " + base64.b64encode(userinfo.encode()).decode()


def built(target, auth=None, now_ms=1795331090999, attempts_made=0) -> PostRequest:
    return build_request(
        a_delivery(attempts_made), fixed_part(target, auth or {}), Signer([SECRET]), now_ms, partner_id="p1"
    )


def test_the_headers_are_those_of_standard_webhooks_and_ours():
    request = built(a_target(headers={"X-Shop": "seven"}), attempts_made=2)
    headers = dict(request.headers)
    assert headers == {
        "x-shop": "seven",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1795331090",
        "webhook-signature": Signer([SECRET]).sign("evt_1", 1795331090, request.body),
        "relay-attempt": "3",
    }
    assert request.timeout == 15


def test_every_name_is_lower_case_and_occurs_once():
    request = built(a_target(headers={"X-A": "1", "x-b": "2"}), {"authorization": "Bearer t"})
    names = [name for name, _ in request.headers]
    assert names == [name.lower() for name in names]
    assert len(set(names)) == len(names)


def test_the_timestamp_is_that_of_the_attempt_and_signed():
    early, late = built(a_target(), now_ms=1_000_000), built(a_target(), now_ms=901_000_000)
    assert dict(early.headers)["webhook-timestamp"] == "1000"
    assert dict(late.headers)["webhook-timestamp"] == "901000"
    assert dict(early.headers)["webhook-signature"] != dict(late.headers)["webhook-signature"]
    assert dict(early.headers)["webhook-id"] == dict(late.headers)["webhook-id"]
    assert early.body == late.body


def test_static_headers_never_win_over_our_own():
    # The configuration refuses these; a file that changed since would still not get through.
    target = a_target().model_copy(update={"headers": {"Webhook-Id": Secret.of("evt_forged"), "X": Secret.of("y")}})
    assert dict(built(target).headers)["webhook-id"] == "evt_1"


OURS = """host content-length content-type content-encoding transfer-encoding connection user-agent accept-encoding
webhook-id webhook-timestamp webhook-signature webhook-anything relay-attempt te trailer upgrade expect keep-alive
proxy-authorization proxy-connection Accept-Encoding WEBHOOK-ID"""


@pytest.mark.parametrize("name", OURS.split())
def test_headers_that_are_ours_are_refused_by_the_configuration(name):
    with pytest.raises(ValueError, match="set by houdini-relay itself"):
        a_target(headers={name: "x"})


def test_every_header_of_a_request_is_reserved_or_configured():
    ours = {name for name, _ in built(a_target()).headers}
    assert {name for name in ours if not name.startswith("webhook-")} <= TARGET_RESERVED


def test_cloudevents_and_slack_have_their_own_bodies_and_types():
    assert dict(built(a_target(format="cloudevents")).headers)["content-type"] == "application/cloudevents+json"
    assert b'"source":"houdini-relay/p1"' in built(a_target(format="cloudevents")).body
    assert dict(built(a_target(format="slack")).headers)["content-type"] == "application/json"


def test_whatever_a_receiver_could_echo_is_named():
    target = a_target(
        url="https://us%40er:pa%24s@shop.example.com/hooks/T0KEN/X?sig=s%2Fig&empty=",
        headers={"X-Key": "static-value"},
    )
    auth = fixed_headers(target)
    hidden = built(target, auth).hidden
    for secret in ("static-value", "T0KEN/X", "s/ig", "s%2Fig", "us@er:pa$s", "pa$s", "pa%24s", auth["authorization"]):
        assert secret in hidden
    assert base64.b64encode(b"us@er:pa$s").decode() in hidden
    assert "" not in hidden


def test_a_bearer_token_is_hidden_with_and_without_its_scheme():
    assert {"Bearer tok-123", "tok-123"} <= set(built(a_target(), {"authorization": "Bearer tok-123"}).hidden)


def test_a_request_does_not_show_its_secrets():
    target = a_target(url="https://shop.example.com/a/CANARY", headers={"X-Key": "CANARY"})
    assert "CANARY" not in repr(built(target, {"authorization": "Bearer CANARY"}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"auth": {"bearer": "abc"}}, "Bearer abc"),
        ({"auth": {"basic": {"username": "ünser", "password": "p:w"}}}, basic("ünser:p:w")),
        ({"url": "https://me:p%3Aw@shop.example.com/"}, basic("me:p:w")),
        ({"url": "https://me@shop.example.com/"}, basic("me:")),
        ({"auth": {"oauth2": {"token_url": "https://id.example.com/", "client_id": "a", "client_secret": "b"}}}, None),
    ],
)
def test_fixed_credentials(settings, expected):
    assert fixed_headers(a_target(**settings)).get("authorization") == expected


def test_whether_secrets_lie_in_files():
    in_file = Secret(lambda: "x", "file /run/secrets/x")
    assert not read_from_files(a_target(headers={"X-Key": "v"}, auth={"bearer": "abc"}))
    assert read_from_files(a_target(headers={"X-Key": in_file}))
    assert read_from_files(a_target(auth={"bearer": in_file}))
    assert read_from_files(a_target(auth={"basic": {"username": "a", "password": in_file}}))


@pytest.mark.parametrize("scheme", ["Basic", "basic"])
def test_credentials_are_hidden_as_they_are_sent_and_as_they_read(scheme):
    encoded = basic("relay:correct horse").removeprefix("Basic ")
    hidden = built(a_target(), {"authorization": f"{scheme} {encoded}"}).hidden
    assert {f"{scheme} {encoded}", encoded, "relay:correct horse", "correct horse"} <= set(hidden)


def test_a_bearer_token_is_not_taken_for_something_encoded():
    token = basic("relay:correct horse").removeprefix("Basic ")
    assert "correct horse" not in built(a_target(), {"authorization": f"Bearer {token}"}).hidden


@pytest.mark.parametrize("nonsense", ["Basic \xff", "Basic AAA", "Basic /w=="])
def test_credentials_that_are_no_base64_text_are_hidden_as_they_are(nonsense):
    assert nonsense in built(a_target(), {"authorization": nonsense}).hidden


def test_our_traceparent_takes_the_place_of_a_configured_one():
    target = a_target(headers={"traceparent": "theirs", "tracestate": "kept", "a": "kept"})
    fixed = fixed_part(target, {})
    ours = build_request(a_delivery(0), fixed, Signer([SECRET]), 1_000, partner_id="p1", traceparent="ours")
    assert [value for name, value in ours.headers if name == "traceparent"] == ["ours"]
    assert dict(ours.headers).items() >= {"tracestate": "kept", "a": "kept"}.items()
    assert dict(built(target).headers)["traceparent"] == "theirs"


def test_nothing_secret_shows_when_it_is_printed():
    target = a_target(headers={"x-key": "CANARY"})
    assert "CANARY" not in f"{built(target)!r} {fixed_part(target, {})!r}"
    assert "h9" not in repr(built(target))
