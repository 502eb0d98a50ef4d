"""What every update passes through, ready to be called: name -> a call without arguments."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from relay.config import TargetSettings
from relay.delivery import breaker, retry
from relay.delivery.answer import AnswerReader
from relay.delivery.envelope import compose
from relay.delivery.request import build_request, fixed_part
from relay.delivery.signer import Signer
from relay.model import Attempt, Delivery, Event, KnownOrder, OrderFacts, Origin, Outcome
from relay.standing import Standing
from relay.upstream.planner import Entry, Situation, plan_batch
from relay.upstream.protocol import OrderUpdate, parse_message, parse_order, snapshot

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ORDER: Final = {
    "houdiniId": "h7GxkXs3ApzHxkqLu9hTqR",
    "created": "2026-11-22T07:04:50.123Z",
    "status": 2,
    "inAmount": 0.37271038265600004,
    "outAmount": 1834.21,
    "senderAddress": "0x" + "a1" * 20,
    "receiverAddress": "bc1q" + "x" * 38,
    "notes": "n" * 700,
}
FRAME: Final = json.dumps({"type": "order_update", "data": ORDER}, separators=(",", ":")).encode()
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok"


def calls() -> dict[str, Callable[[], Any]]:
    """Each of them with everything it needs made beforehand."""
    message = parse_message(FRAME)
    assert isinstance(message, OrderUpdate)
    seen = snapshot(parse_order(message.order), message.order, origin=Origin.WEBSOCKET, seen_ms=1_000, asked_at=500.0)
    known = {seen.houdini_id: KnownOrder(seen.houdini_id, 1, 1, {"status": 1}, None, silent=False, sequence=3)}
    situation = Situation("partner", 2_000, 600.0, 60.0, 0.0, {})
    facts = OrderFacts(4, 2, 1, ("status",), Origin.WEBSOCKET)
    event = Event("evt_" + "0" * 32, seen.houdini_id, "order.exchanging", 1_000, message.order, facts)
    delivery = Delivery(1, "shop", event, 0, 0, 1_000)
    target = TargetSettings.model_validate({"name": "shop", "url": "https://shop.example.com/h", "secrets": [SECRET]})
    fixed, signer = fixed_part(target, {}), Signer([SECRET])
    attempt = Attempt(1_000, 3.5, Outcome.OK, 200)
    steps = retry.RetryPolicy((5.0, 60.0), 0.1, 3_600.0)
    limits = breaker.BreakerPolicy(16, 5, 10.0, 60.0, 3_600.0)
    reader, rng, standing = AnswerReader(), Random(1), Standing(ok_ms=900, ok_order="other")

    def read_answer() -> None:
        reader.begin()
        reader.feed(ANSWER)

    return {
        "read a frame": lambda: parse_order(parse_message(FRAME).order),  # type: ignore[union-attr]  # it is an order
        "plan its event": lambda: plan_batch([Entry(seen)], known, situation, lambda _event: ("shop",)),
        "compose the body": lambda: compose(event, "standard", "partner"),
        "sign it": lambda: signer.sign(event.webhook_id, 1_795_331_090, message.order),
        "build the request": lambda: build_request(delivery, fixed, signer, 1_795_331_090_000, partner_id="partner"),
        "read the answer": read_answer,
        "decide": lambda: retry.decide(attempt, delivery, standing, steps, rng, 2_000),
        "judge the target": lambda: breaker.after(standing, attempt, delivery, limits, 2_000),
    }
