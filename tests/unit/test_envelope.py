import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.envelope import compose, content_type
from relay.model import LABELS, TERMINAL, Event, OrderFacts, Origin, event_type, iso_utc

ORDER = b'{"houdiniId":"h9NpKm75gRnX7GWaFATwYn", "status":4,"outAmount":0.37271038265600004,"tiny":2.53e-05}'
FACTS = OrderFacts(sequence=4, status=4, previous_status=2, changed=("status",), origin=Origin.WEBSOCKET)


def an_event(*, body=ORDER, facts=FACTS, type="order.finished", at_ms=1795331090123):
    return Event(webhook_id="evt_1", lane="h9NpKm75gRnX7GWaFATwYn", type=type, at_ms=at_ms, body=body, facts=facts)


def test_standard_is_exactly_as_documented():
    assert compose(an_event(), "standard") == (
        b'{"type":"order.finished","timestamp":"2026-11-22T07:04:50.123Z","data":' + ORDER + b',"relay":'
        b'{"orderSequence":4,"status":"FINISHED","previousStatus":"EXCHANGING","changed":["status"],'
        b'"terminal":true,"origin":"websocket"}}'
    )


def test_raw_is_the_upstream_message():
    assert compose(an_event(), "raw") == b'{"type":"order_update","data":' + ORDER + b"}"


@pytest.mark.parametrize("format", ["standard", "raw"])
def test_a_notice_has_no_relay_member_in_any_format(format):
    notice = an_event(body=b'{"target":"shop"}', facts=None, type="relay.target.parked")
    assert compose(notice, format) == (
        b'{"type":"relay.target.parked","timestamp":"2026-11-22T07:04:50.123Z","data":{"target":"shop"}}'
    )


def test_a_first_event_has_no_previous_status_and_an_unknown_code_is_named_so():
    facts = OrderFacts(sequence=1, status=99, previous_status=None, changed=(), origin=Origin.BACKFILL)
    relay = json.loads(compose(an_event(facts=facts, type="order.unknown"), "standard"))["relay"]
    assert relay == {
        "orderSequence": 1,
        "status": "UNKNOWN",
        "previousStatus": None,
        "changed": [],
        "terminal": False,
        "origin": "backfill",
    }


@pytest.mark.parametrize("format", ["standard", "raw"])
def test_content_type_is_json(format):
    assert content_type(format) == "application/json"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="no such webhook format: xml"):
        compose(an_event(), "xml")
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

    standard = compose(event, "standard")
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

    raw = compose(event, "raw")
    assert order in raw
    assert json.loads(raw) == {"type": "order_update", "data": data}


@given(moments)
def test_timestamps_are_the_same_moment_to_the_millisecond(at_ms):
    text = iso_utc(at_ms)
    assert len(text) == len("2026-11-22T07:04:50.123Z")
    elapsed = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert elapsed == timedelta(milliseconds=at_ms)
