"""The bytes of a webhook's body for each format. Pure.

An order is money: its JSON is spliced in as it came, never parsed and written again, so that
`0.37271038265600004` and the order of keys survive.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from relay.model import TERMINAL, Event, OrderFacts, iso_utc, status_label

_JSON: Final = "application/json"


def compose(event: Event, format: str) -> bytes:
    """The body to sign and send.

    Args:
        event: an order's event or a notice.
        format: a target's `format` setting.

    Raises:
        ValueError: a format this program does not have.
    """
    return _entry(format)[0](event)


def content_type(format: str) -> str:
    """The `content-type` of bodies in this format.

    Raises:
        ValueError: a format this program does not have.
    """
    return _entry(format)[1]


def _standard(event: Event) -> bytes:
    head = f'{{"type":{_json(event.type)},"timestamp":"{iso_utc(event.at_ms)}","data":'.encode()
    if event.facts is None:
        return head + event.body + b"}"
    return head + event.body + b',"relay":' + _facts(event.facts) + b"}"


def _raw(event: Event) -> bytes:
    if event.facts is None:
        return _standard(event)
    return b'{"type":"order_update","data":' + event.body + b"}"


_FORMATS: Final[Mapping[str, tuple[Callable[[Event], bytes], str]]] = {
    "standard": (_standard, _JSON),
    "raw": (_raw, _JSON),
}


def _entry(format: str) -> tuple[Callable[[Event], bytes], str]:
    try:
        return _FORMATS[format]
    except KeyError:
        raise ValueError(f"no such webhook format: {format}") from None


def _facts(facts: OrderFacts) -> bytes:
    previous = facts.previous_status
    return _json(
        {
            "orderSequence": facts.sequence,
            "status": status_label(facts.status),
            "previousStatus": None if previous is None else status_label(previous),
            "changed": facts.changed,
            "terminal": facts.status in TERMINAL,
            "origin": facts.origin.value,
        }
    ).encode("ascii")


def _json(value: object) -> str:
    # Field names come from upstream: ASCII escapes carry even a lone surrogate through.
    return json.dumps(value, separators=(",", ":"))
