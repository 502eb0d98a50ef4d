"""Frames in, messages and snapshots out."""

import json

import pytest

from relay.model import Origin
from relay.upstream.protocol import (
    BadMessage,
    BadOrder,
    OrderUpdate,
    Pong,
    Subscribed,
    UnknownMessage,
    Unsubscribed,
    UpstreamErrorMessage,
    Welcome,
    parse_message,
    parse_order,
    printable,
    snapshot,
    stand_in,
    valid_id,
)

ORDER = b'{"houdiniId":"h9NpKm75gRnX7GWaFATwYn","status":4,"inAmount":0.37271038265600004,"x":2.53e-05}'


def test_documented_messages() -> None:
    assert parse_message('{"type":"welcome","partnerId":"p1"}') == Welcome("p1")
    assert parse_message('{"type":"pong","id":7}') == Pong()
    assert parse_message('{"type":"error","code":"AUTH_FAILED","message":"no"}') == UpstreamErrorMessage(
        "AUTH_FAILED", "no"
    )
    assert parse_message('{"type":"unsubscribed"}') == Unsubscribed(None)
    assert parse_message('{"type":"unsubscribed","houdiniIds":["a"]}') == Unsubscribed(frozenset("a"))


@pytest.mark.parametrize(
    "tail", ["", ',"houdiniIds":null', ',"houdiniIds":"all"', ',"houdiniIds":"*"', ',"houdiniIds":{}']
)
def test_every_spelling_of_all(tail: str) -> None:
    assert parse_message('{"type":"subscribed"' + tail + "}") == Subscribed(None)


def test_subscribed_ids() -> None:
    assert parse_message('{"type":"subscribed","houdiniIds":["a","b",3]}') == Subscribed(frozenset("ab"))
    assert parse_message('{"type":"subscribed","houdiniIds":[]}') == Subscribed(frozenset())


def test_the_order_is_kept_byte_for_byte() -> None:
    """26, 104: no float, key order or blank is touched."""
    body = b'{ "status" : 4 ,"houdiniId":"x","a":0.10, "a2":1E5 }'
    assert parse_message(b'{"type":"order_update","data":' + body + b"}") == OrderUpdate(body)
    assert parse_message('{"type":"order_update","data":{"é":"\\u00e9"}}') == OrderUpdate('{"é":"\\u00e9"}'.encode())


def test_error_fields_of_any_type() -> None:
    assert parse_message('{"type":"error","code":42}') == UpstreamErrorMessage("42", "")
    assert parse_message('{"type":"error","code":null,"message":{"a":1}}') == UpstreamErrorMessage("null", '{"a":1}')


def test_unknown_type_is_named_and_harmless() -> None:
    """25."""
    assert parse_message('{"type":"order_update_v2","data":1}') == UnknownMessage("order_update_v2")
    assert parse_message(json.dumps({"type": "x\u001b[31m" + "y" * 500})) == UnknownMessage("x\ufffd[31m" + "y" * 58)


@pytest.mark.parametrize(
    "frame",
    [
        "", "null", "[]", "7", '"order_update"', "{", "{}", '{"type":7}', '{"type":null}', '{"type":"pong"} x',
        '{"type":"order_update"}', '{"type":"order_update","data":null}', '{"type":"order_update","data":[1]}',
        '{"type":"order_update","data":{"x":NaN}}', '{"type":"order_update","data":{"x":01}}',
        '{"type":"order_update","data":{"x":1,}}', '{"type":"order_update","data":' + "[" * 100_000,
        '{"type":"error","code":"\\ud800"}', '{"type":"error","code":"a\ud800"}', "[" * 100_000,
        b"\xff\xfe{", b'{"type":"order_update","data":{"x":"\xff"}}', b"\x00\x01\x02",
    ],
)  # fmt: skip
def test_malformed_frames_never_raise(frame: str | bytes) -> None:
    """26, 28: NaN, bad UTF-8, lone surrogates, depth, wrong shapes."""
    assert isinstance(parse_message(frame), BadMessage)


def test_order_needs_only_id_and_status() -> None:
    order = parse_order(ORDER)
    assert (order.houdini_id, order.status, order.created) == ("h9NpKm75gRnX7GWaFATwYn", 4, None)
    assert order.fields["inAmount"] == b"0.37271038265600004"
    assert order.fields["x"] == b"2.53e-05"
    assert parse_order(b'{"houdiniId":"a","status":99,"created":"2026-07-03T00:16:48.681Z"}').created is not None
    assert parse_order(b'{"houdiniId":"a","status":-2,"created":5}').created is None


@pytest.mark.parametrize(
    "status", ["true", "null", '"4"', "4.5", "2147483648", "-2147483649", "9" * 5000, "[4]", "NaN"]
)
def test_status_must_be_a_small_integer(status: str) -> None:
    with pytest.raises(BadOrder):
        parse_order(b'{"houdiniId":"a","status":' + status.encode() + b"}")


@pytest.mark.parametrize(
    "houdini_id", ['""', "7", "null", '"a\\u0000"', '"a\\n"', '"a\\u202e"', '"\\ud800"', '"' + "a" * 201 + '"']
)
def test_id_must_be_printable(houdini_id: str) -> None:
    """127."""
    with pytest.raises(BadOrder):
        parse_order(b'{"status":1,"houdiniId":' + houdini_id.encode() + b"}")


def test_order_that_is_none() -> None:
    for body in (b"", b"[]", b"null", b"{", b'{"houdiniId":"a"}', b'{"status":1}', b'{"houdiniId":"\xff","status":1}'):
        with pytest.raises(BadOrder):
            parse_order(body)


def test_snapshot_carries_where_and_when() -> None:
    seen = snapshot(
        parse_order(ORDER), ORDER, origin=Origin.BACKFILL, seen_ms=5, asked_at=2.5, first_sweep=True, silent=True
    )
    assert (seen.body, seen.seen_ms, seen.asked_at, seen.first_sweep, seen.silent) == (ORDER, 5, 2.5, True, True)
    assert seen.origin is Origin.BACKFILL


def test_printable_limits_and_replaces() -> None:
    """130."""
    assert printable("a\nb\x1b" + "c" * 500) == "a\ufffdb\ufffd" + "c" * 196


def test_a_lone_surrogate_inside_an_order_costs_nothing() -> None:
    """A server that cut an emoji in half writes it; msgspec refuses it anywhere inside."""
    order = rb'{"houdiniId":"o1","status":1,"metadata":"x\ud83d" }'
    message = parse_message(rb'{"type":"order_update","data":' + order + b"}")
    assert message == OrderUpdate(order)
    assert parse_order(order).fields["metadata"] == rb'"x\ud83d"'


@pytest.mark.parametrize(
    ("body", "created"), [(b"no order", None), (b'{"created":"then"}', "then"), (b'{"created":7}', None)]
)
def test_what_stands_in_for_an_unreadable_order_can_be_no_order(body: bytes, created: str | None) -> None:
    name, found = stand_in(body)
    assert name.startswith("\0")
    assert not valid_id(name)
    assert found == created
    assert stand_in(body)[0] == name
    assert stand_in(body + b" ")[0] != name


@pytest.mark.parametrize("status", [-(2**31), 2**31 - 1])
def test_the_smallest_and_the_largest_status(status: int) -> None:
    assert parse_order(b'{"houdiniId":"a","status":%d}' % status).status == status
