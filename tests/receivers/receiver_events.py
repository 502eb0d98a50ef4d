"""What is posted to the receivers: events, notices, and forgeries of them."""

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable

from receiver_kit import signed

numbers = itertools.count(1)
BIG = b'"outAmount":0.37271038265600004,"inAmount":12345678901234567890.123456789012345678'


def an_id() -> str:
    return f"evt_{next(numbers)}"


def an_order() -> str:
    return f"order-{next(numbers)}"


def event(order: str, sequence: int, more: bytes = BIG) -> bytes:
    """An order's event as the relay composes it."""
    facts = {"orderSequence": sequence, "status": "NEW", "previousStatus": None, "changed": [], "terminal": False}
    data = b'{"houdiniId":"%s",%s}' % (order.encode(), more)
    return b'{"type":"order.new","timestamp":"2026-11-22T07:04:50.123Z","data":%s,"relay":%s}' % (
        data,
        json.dumps(facts).encode(),
    )


def notice() -> bytes:
    data = {"target": "shop", "since": f"2026-11-22T07:04:50.{next(numbers):03}Z"}
    return json.dumps({"type": "relay.target.failing", "timestamp": "2026-11-22T07:09:50Z", "data": data}).encode()


def without(name: str) -> Callable[[dict[str, str]], None]:
    return lambda headers: headers.pop(name) and None


def having(name: str, value: str) -> Callable[[dict[str, str]], None]:
    return lambda headers: headers.update({name: value})


FORGERIES: dict[str, Callable[[dict[str, str]], None]] = {
    "no-id": without("webhook-id"),
    "no-timestamp": without("webhook-timestamp"),
    "no-signature": without("webhook-signature"),
    "other-id": having("webhook-id", "evt_other"),
    "timestamp-is-a-word": having("webhook-timestamp", "soon"),
    "timestamp-is-endless": having("webhook-timestamp", "9" * 400),
    "signature-is-a-word": having("webhook-signature", "nonsense"),
    "signature-is-empty": having("webhook-signature", ""),
    "signature-without-mac": having("webhook-signature", "v1"),
    "signature-with-empty-mac": having("webhook-signature", "v1,"),
    "signature-is-no-base64": having("webhook-signature", "v1,!!!!"),
    "signature-of-another-version": lambda headers: headers.update(
        {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}
    ),
}


def signature_of_the_empty_key(webhook_id: str, body: bytes) -> str:
    timestamp = signed(webhook_id, body)["webhook-timestamp"]
    mac = hmac.new(b"", f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"
