"""Which targets get which event: `events` and `changes`."""

from typing import Any

import pytest
from msgspec.structs import replace
from support.factories import event

from relay.config import TargetSettings
from relay.delivery.routing import routed
from relay.model import Event, OrderFacts, Origin

VALUES = {"url": "https://shop.example.com/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}


def target(name: str, **changes: Any) -> TargetSettings:
    return TargetSettings.model_validate({"name": name, **VALUES, **changes})


ALL, STATUS = target("all"), target("status", changes="status")
TOLD, PICKY = target("told", events=["relay.*"], changes="status"), target("picky", events=["order.finished"])


def changed(*fields: str, sequence: int = 2) -> Event:
    return event("o1", status=4, sequence=sequence, facts=OrderFacts(sequence, 4, 3, fields, Origin.BACKFILL))


@pytest.mark.parametrize(
    ("one", "names"),
    [
        (changed("status"), ("all", "status", "picky")),
        (changed("outStatus", "status"), ("all", "status", "picky")),
        (changed("inStatus"), ("all", "picky")),
        (changed(sequence=1), ("all", "status", "picky")),
        (replace(changed("inStatus"), type="order.new"), ("all",)),
        (event(facts=None, type="relay.upstream.down"), ("told",)),
    ],
)
def test_who_gets_it(one: Event, names: tuple[str, ...]):
    assert routed([ALL, STATUS, TOLD, PICKY], one) == names
