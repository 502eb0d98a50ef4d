"""The receiver believes the official library's signatures, and nothing else."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.simulator.receiver import Arrival, Receiver, signature_problem

SECRET = "whsec_" + base64.b64encode(b"receiver-test-secret-24b").decode()
OTHER = "whsec_" + base64.b64encode(b"somebody-elses-secret-24").decode()
ORDER = '{"houdiniId":"h9NpKm75gRnX7GWaFATwYn","status":4,"statusLabel":"FINISHED"}'
STANDARD = (
    '{"type":"order.finished","timestamp":"2026-11-22T07:04:50.123Z","data":' + ORDER + ',"relay":'
    '{"orderSequence":4,"status":"FINISHED","previousStatus":"EXCHANGING","changed":["status"],'
    '"terminal":true,"origin":"backfill"}}'
)
RAW = '{"type":"order_update","data":' + ORDER + "}"


class Sender:
    def __init__(self, receiver: Receiver, http: aiohttp.ClientSession) -> None:
        self.receiver = receiver
        self._http = http

    async def send(self, body: str = STANDARD, age: float = 0, secret: str = SECRET, **replaced: str) -> int:
        """Post a signed body; `replaced` headers are given with underscores."""
        moment = datetime.now(UTC) - timedelta(seconds=age)
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Webhook(secret).sign("evt_1", moment, body),
            "relay-attempt": "2",
        } | {name.replace("_", "-"): value for name, value in replaced.items()}
        url = f"http://127.0.0.1:{self.receiver.port}/shop"
        async with self._http.post(url, data=body.encode(), headers=headers) as answer:
            return answer.status

    @property
    def last(self) -> Arrival:
        return self.receiver.arrivals[-1]


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    receiver = Receiver([OTHER, SECRET], clock=SystemClock(), rng=Random(1))
    await receiver.start()
    async with aiohttp.ClientSession() as http:
        yield Sender(receiver, http)
    await receiver.stop()


async def test_a_standard_delivery_is_taken_apart(sender: Sender) -> None:
    assert await sender.send() == 200
    assert sender.last == Arrival(
        number=1,
        target="shop",
        webhook_id="evt_1",
        attempt=2,
        body=STANDARD.encode(),
        houdini_id="h9NpKm75gRnX7GWaFATwYn",
        type="order.finished",
        sequence=4,
        status="FINISHED",
        origin="backfill",
        problem=None,
        answer=200,
    )
    assert sender.last.acknowledged


async def test_a_raw_delivery_has_no_sequence(sender: Sender) -> None:
    assert await sender.send(RAW) == 200
    last = sender.last
    assert (last.type, last.houdini_id, last.status) == ("order_update", "h9NpKm75gRnX7GWaFATwYn", "FINISHED")
    assert (last.sequence, last.origin) == (None, None)


async def test_one_good_signature_among_several_is_enough(sender: Sender) -> None:
    good = Webhook(SECRET).sign("evt_1", datetime.now(UTC), STANDARD)
    assert await sender.send(webhook_signature=f"v1a,xyz v1,AAAA {good}") == 200
    assert await sender.send(secret=OTHER) == 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secret": "whsec_" + base64.b64encode(b"a stranger's secret here").decode()}, "no signature"),
        ({"webhook_signature": ""}, "no signature"),
        ({"webhook_signature": "v1,"}, "no signature"),
        ({"webhook_id": "evt_2"}, "no signature"),
        ({"webhook_id": ""}, "webhook-id"),
        ({"webhook_timestamp": "soon"}, "no number"),
        ({"webhook_timestamp": "9" * 5000}, "no number"),
        ({"age": 301}, "five minutes"),
        ({"age": -302}, "five minutes"),
    ],
)
async def test_what_is_not_believed(sender: Sender, changes: dict[str, Any], reason: str) -> None:
    assert await sender.send(**changes) == 401
    assert reason in (sender.last.problem or "")
    assert not sender.last.acknowledged


def test_a_changed_body_or_version_is_not_believed() -> None:
    moment = datetime.now(UTC)
    now = int(moment.timestamp())
    signature = Webhook(SECRET).sign("evt_1", moment, RAW)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    assert signature_problem(headers, RAW.encode(), [SECRET], now) is None
    assert signature_problem(headers, RAW.encode() + b" ", [SECRET], now) is not None
    v2 = headers | {"webhook-signature": signature.replace("v1,", "v2,")}
    assert signature_problem(v2, RAW.encode(), [SECRET], now) is not None


def test_the_published_vector_holds() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert signature_problem(headers, b'{"test": 2432232314}', [secret], 1614265330) is None


@pytest.mark.parametrize("body", ["", "[]", "{", '{"data":7,"relay":[]}', '{"data":{"houdiniId":9}}', "[" * 90_000])
async def test_odd_bodies_are_kept_without_particulars(sender: Sender, body: str) -> None:
    assert await sender.send(body, relay_attempt="many") == 200
    assert (sender.last.houdini_id, sender.last.sequence, sender.last.attempt) == (None, None, None)


async def test_misbehaviour(sender: Sender) -> None:
    wrong = sender.receiver.misbehaviour
    wrong.fail_rate, wrong.status = 1.0, 503
    assert await sender.send() == 503
    assert not sender.last.acknowledged
    wrong.fail_rate = 0.0
    wrong.fail_until = SystemClock().mono() + 60
    assert await sender.send() == 503
    wrong.fail_until = 0.0
    assert await sender.send() == 200
    wrong.fail_rate = 0.5
    assert {await sender.send() for _ in range(40)} == {200, 503}


async def test_too_large_a_body_is_refused(sender: Sender) -> None:
    assert await sender.send(json.dumps("x" * 1_000_001)) == 413
    assert not sender.receiver.arrivals


async def test_memory_is_bounded_and_each_arrival_is_told() -> None:
    told: list[int] = []
    receiver = Receiver(
        [SECRET],
        clock=SystemClock(),
        rng=Random(1),
        on_arrival=lambda arrival: told.append(arrival.number),
        kept_bytes=2 * len(STANDARD),
    )
    await receiver.start()
    async with aiohttp.ClientSession() as http:
        sender = Sender(receiver, http)
        for _ in range(5):
            await sender.send()
    await receiver.stop()
    assert told == [1, 2, 3, 4, 5]
    assert [arrival.number for arrival in receiver.arrivals] == [4, 5]
    assert receiver.forgotten == 3


@pytest.mark.parametrize("secrets", [[], ["plain"], ["whsec_"], ["whsec_***"]])
def test_a_receiver_without_a_usable_secret_is_refused(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Receiver(secrets, clock=SystemClock(), rng=Random(1))
