import json
from datetime import UTC, datetime, timedelta

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.envelope import compose, content_type
from relay.model import LABELS, TERMINAL, Event, OrderFacts, Origin, event_type, iso_utc

ORDER = b'{"houdiniId":"h9NpKm75gRnX7GWaFATwYn", "status":4,"outAmount":0.37271038265600004,"tiny":2.53e-05}'
FACTS = OrderFacts(sequence=4, status=4, previous_status=2, changed=("status",), origin=Origin.WEBSOCKET)


def an_event(*, body=ORDER, facts=FACTS, type="order.finished", at_ms=1795331090123):
    return Event(webhook_id="evt_1", lane="h9NpKm75gRnX7GWaFATwYn", type=type, at_ms=at_ms, body=body, facts=facts)


def test_standard_is_exactly_as_documented():
    assert compose(an_event(), "standard", "p1") == (
        b'{"type":"order.finished","timestamp":"2026-11-22T07:04:50.123Z","data":' + ORDER + b',"relay":'
        b'{"orderSequence":4,"status":"FINISHED","previousStatus":"EXCHANGING","changed":["status"],'
        b'"terminal":true,"origin":"websocket"}}'
    )


def test_raw_is_the_upstream_message():
    assert compose(an_event(), "raw", "p1") == b'{"type":"order_update","data":' + ORDER + b"}"


@pytest.mark.parametrize("format", ["standard", "raw"])
def test_a_notice_has_no_relay_member_in_any_format(format):
    notice = an_event(body=b'{"target":"shop"}', facts=None, type="relay.target.parked")
    assert compose(notice, format, "p1") == (
        b'{"type":"relay.target.parked","timestamp":"2026-11-22T07:04:50.123Z","data":{"target":"shop"}}'
    )


def test_a_first_event_has_no_previous_status_and_an_unknown_code_is_named_so():
    facts = OrderFacts(sequence=1, status=99, previous_status=None, changed=(), origin=Origin.BACKFILL)
    relay = json.loads(compose(an_event(facts=facts, type="order.unknown"), "standard", "p1"))["relay"]
    assert relay == {
        "orderSequence": 1,
        "status": "UNKNOWN",
        "previousStatus": None,
        "changed": [],
        "terminal": False,
        "origin": "backfill",
    }


@pytest.mark.parametrize("format", ["standard", "raw", "slack"])
def test_content_type_is_json(format):
    assert content_type(format) == "application/json"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="no such webhook format: xml"):
        compose(an_event(), "xml", "p1")
    with pytest.raises(ValueError, match="no such webhook format: xml"):
        content_type("xml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
orders = st.builds(
    lambda order, ascii_only, indent: json.dumps(order, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass" if ascii_only else "strict"
    ),
    st.dictionaries(st.text(), json_values, max_size=6),
    st.booleans(),
    st.sampled_from([None, 2]),
)
codes = st.sampled_from(sorted(LABELS)) | st.integers()
facts = st.builds(
    OrderFacts,
    sequence=st.integers(min_value=1),
    status=codes,
    previous_status=st.none() | codes,
    changed=st.lists(st.text(st.characters()), max_size=5).map(tuple),
    origin=st.sampled_from(Origin),
)
moments = st.integers(min_value=0, max_value=4102444799999)


@given(order=orders, facts=facts, at_ms=moments)
def test_every_composed_body_reads_back_and_holds_the_order_verbatim(order, facts, at_ms):
    event = an_event(body=order, facts=facts, type=event_type(facts.status), at_ms=at_ms)
    data = json.loads(order)

    standard = compose(event, "standard", "p1")
    assert order in standard
    assert json.loads(standard) == {
        "type": "order." + LABELS.get(facts.status, "unknown").lower(),
        "timestamp": iso_utc(at_ms),
        "data": data,
        "relay": {
            "orderSequence": facts.sequence,
            "status": LABELS.get(facts.status, "UNKNOWN"),
            "previousStatus": None if facts.previous_status is None else LABELS.get(facts.previous_status, "UNKNOWN"),
            "changed": list(facts.changed),
            "terminal": facts.status in TERMINAL,
            "origin": facts.origin.value,
        },
    }

    raw = compose(event, "raw", "p1")
    assert order in raw
    assert json.loads(raw) == {"type": "order_update", "data": data}


@given(moments)
def test_timestamps_are_the_same_moment_to_the_millisecond(at_ms):
    text = iso_utc(at_ms)
    assert len(text) == len("2026-11-22T07:04:50.123Z")
    elapsed = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert elapsed == timedelta(milliseconds=at_ms)


def as_cloudevent(event, partner_id="p1"):
    """As a receiver's SDK reads it, which checks every attribute."""
    message = HTTPMessage({"content-type": content_type("cloudevents")}, compose(event, "cloudevents", partner_id))
    read = from_http_event(message)
    assert isinstance(read, CloudEvent)  # 1.0
    return read


def test_an_order_as_a_cloudevent():
    event = as_cloudevent(an_event())
    assert event.get_id() == "evt_1"
    assert event.get_source() == "houdini-relay/p1"
    assert event.get_subject() == "h9NpKm75gRnX7GWaFATwYn"
    assert event.get_type() == "com.houdiniswap.order.finished"
    assert event.get_time() == datetime(2026, 11, 22, 7, 4, 50, 123000, UTC)
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == json.loads(ORDER)
    extensions = {name: value for name, value in event.get_attributes().items() if name.startswith("relay")}
    assert extensions == {
        "relaysequence": "4",
        "relaystatus": "FINISHED",
        "relaypreviousstatus": "EXCHANGING",
        "relaychanged": "status",
        "relayterminal": True,
        "relayorigin": "websocket",
    }


def test_a_cloudevent_holds_the_order_byte_for_byte():
    assert compose(an_event(), "cloudevents", "p1").endswith(b',"data":' + ORDER + b"}")


def test_a_first_cloudevent_has_no_null_attribute():
    facts = OrderFacts(sequence=1, status=99, previous_status=None, changed=(), origin=Origin.BACKFILL)
    body = json.loads(compose(an_event(facts=facts), "cloudevents", "p1"))
    assert "relaypreviousstatus" not in body
    assert "relaychanged" not in body
    assert None not in [value for name, value in body.items() if name != "data"]


def test_a_notice_as_a_cloudevent():
    notice = Event("evt_n", "relay:shop", "relay.target.parked", 1795331090123, b'{"what":"gone"}', None)
    event = as_cloudevent(notice)
    assert event.get_subject() == "shop"
    assert event.get_type() == "com.houdiniswap.relay.target.parked"
    assert event.get_data() == {"what": "gone"}
    assert not any(name.startswith("relay") for name in event.get_attributes())


@pytest.mark.parametrize(
    ("partner_id", "source"),
    [
        ("64f0c2", "houdini-relay/64f0c2"),
        ("a/b?c#d e%", "houdini-relay/a%2Fb%3Fc%23d%20e%25"),
        ("pärtner", "houdini-relay/p%C3%A4rtner"),
        ("a:b@c;d=e", "houdini-relay/a:b@c;d=e"),
    ],
)
def test_the_source_is_a_uri_reference(partner_id, source):
    assert as_cloudevent(an_event(), partner_id).get_source() == source


def test_field_names_from_outside_make_a_legal_attribute():
    facts = OrderFacts(2, 4, 2, ("a,b", "c\u0000d", "\ud800", "ü", "status"), Origin.WEBSOCKET)
    assert as_cloudevent(an_event(facts=facts)).get_extension("relaychanged") == "a%2Cb,c%00d,%3F,%C3%BC,status"


FULL = (
    b'{"houdiniId":"x","inAmount":0.00421549,"inSymbol":"BTC","outAmount":0.37271038265600004,"outSymbol":"ETH",'
    b'"swapName":"Changelly","actionRequired":false}'
)


def slack(event):
    body = json.loads(compose(event, "slack", "p1"))
    assert list(body) == ["text"]
    return body["text"]


def test_an_order_as_a_sentence():
    assert slack(an_event(body=FULL)) == (
        "Order h9NpKm75gRnX7GWaFATwYn: *FINISHED*, was EXCHANGING. "
        "0.00421549 BTC to 0.37271038265600004 ETH by Changelly."
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (OrderFacts(1, -1, None, (), Origin.WEBSOCKET), "Order h9NpKm75gRnX7GWaFATwYn: *NEW*."),
        (
            OrderFacts(2, 1, 1, ("inStatus", "displayStatus"), Origin.WEBSOCKET),
            "Order h9NpKm75gRnX7GWaFATwYn: still *CONFIRMING*, changed: inStatus, displayStatus.",
        ),
        (
            OrderFacts(2, 1, 1, tuple("abcdefgh"), Origin.WEBSOCKET),
            "Order h9NpKm75gRnX7GWaFATwYn: still *CONFIRMING*, changed: a, b, c, d, e, f and 2 more.",
        ),
        (OrderFacts(2, 1, 1, (), Origin.WEBSOCKET), "Order h9NpKm75gRnX7GWaFATwYn: still *CONFIRMING*."),
        (OrderFacts(2, 77, 1, (), Origin.WEBSOCKET), "Order h9NpKm75gRnX7GWaFATwYn: *UNKNOWN (77)*, was CONFIRMING."),
    ],
)
def test_what_the_sentence_says_of_the_status(facts, words):
    assert slack(an_event(body=b"{}", facts=facts)) == words


def test_a_sentence_says_when_somebody_has_to_act():
    assert slack(an_event(body=b'{"actionRequired":true}')).endswith("*HoudiniSwap asks for an action.*")


def test_a_sentence_cannot_ring_a_channel_or_hide_a_link():
    body = FULL.replace(b"Changelly", b"<!channel> & <https://evil.example|click>").replace(b"BTC", b"<@U1>\\u202e\\n")
    said = slack(an_event(body=body))
    assert "<" not in said
    assert ">" not in said
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;" in said
    assert "\n" not in said
    assert "\u202e" not in said


def test_a_notice_as_a_sentence():
    data = b'{"what":"it answered 410 <Gone>","since":"2026-11-22T07:04:50.123Z","advice":"resume it"}'
    notice = Event("evt_n", "relay:shop", "relay.target.parked", 0, data, None)
    assert slack(notice) == (
        "*relay.target.parked* (shop): it answered 410 &lt;Gone&gt; (since 2026-11-22T07:04:50.123Z)\n"
        "What to do: resume it"
    )
    assert slack(Event("evt_n", "relay:shop", "relay.test", 0, b"[]", None)) == "*relay.test* (shop)"


@given(body=st.binary(max_size=200) | orders, facts=facts | st.none())
def test_a_sentence_is_made_of_any_body(body, facts):
    said = slack(an_event(body=body, facts=facts))
    assert said
    assert len(said) < 4000
    assert all(char.isprintable() or char == "\n" for char in said)


def test_a_body_that_nests_without_end_is_still_a_sentence():
    assert slack(an_event(body=b"[" * 100_000)).startswith("Order ")


@given(order=orders, facts=facts, at_ms=moments)
def test_every_order_is_a_legal_cloudevent(order, facts, at_ms):
    event = an_event(body=order, facts=facts, type=event_type(facts.status), at_ms=at_ms)
    composed = compose(event, "cloudevents", "p1")
    assert order in composed
    assert as_cloudevent(event).get_data() == json.loads(order)
