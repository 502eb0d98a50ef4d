"""The event that a person sends to see whether a receiver is reached and believes the signature. Pure."""

from relay.model import Delivery
from relay.notice import NoticeType, make_notice


def trial_delivery(target: str, now_ms: int) -> Delivery:
    """One `relay.test` event for this target, which no store knows."""
    event = make_notice(
        NoticeType.TEST,
        target,
        now_ms,
        now_ms,
        "a test that a person asked for; no order is behind it",
        "nothing to do; any 2xx answer means that this receiver is reached and believes the signature",
        {"target": target},
    )
    return Delivery(0, target, event, attempts_made=0, steps_used=0, created_ms=now_ms, manual=True)
