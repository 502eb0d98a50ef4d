"""What one attempt's result means for its delivery: delivered, again later, or dead. Pure.

The whole table of answers is here. What an attempt means for its target as a whole (breaker, throttle, parking)
is decided in `breaker`, from the same `Attempt` and with the words that this module reads out of an answer.
"""

import re
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from relay.http_date import http_date_ms
from relay.model import Attempt, DeadReason, Delivery, Outcome
from relay.standing import Breaker, Standing

GONE: Final = 410
REFUSALS: Final = frozenset({400, 413, 415, 422})
"""Answers that speak of this one event, if the target takes others."""
SLOWING: Final = frozenset({429, 502, 503, 504})
"""Answers that ask for less."""
REFUSED_AFTER: Final = 5
"""Attempts of a delivery before a refusal is believed."""

_SECONDS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_WISHES: Final = "webhook-delivery"
_DISABLE: Final = "disable"
_ABORT: Final = "abort-message"


class Chance(Protocol):
    """The part of a random generator that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long and how often to retry.

    Attributes:
        schedule: seconds to wait after the first, second, ... failed attempt; n entries make n + 1 attempts.
        jitter: share of a wait by which it may be shorter or longer, as in 0.2.
        retry_after_max: the most seconds a receiver's `Retry-After` is honoured for.
    """

    schedule: tuple[float, ...]
    jitter: float
    retry_after_max: float

    @property
    def longest_wait(self) -> float:
        """Seconds beyond which no retry is ever due."""
        return max(*self.schedule, self.retry_after_max, 0.0) * (1 + self.jitter)


class Delivered(msgspec.Struct, frozen=True):
    """The receiver has it."""


class Again(msgspec.Struct, frozen=True):
    """Attempt it again.

    Attributes:
        due_ms: wall time from which.
        uses_step: whether this attempt uses up a step of the retry schedule.
    """

    due_ms: int
    uses_step: bool


class Dead(msgspec.Struct, frozen=True):
    """Give this delivery up."""

    reason: DeadReason


Decision = Delivered | Again | Dead


def classify(status_code: int) -> Outcome:
    """The outcome of an attempt that got this HTTP status."""
    if 200 <= status_code <= 299:
        return Outcome.OK
    if status_code == GONE:
        return Outcome.GONE
    return Outcome.REFUSED if status_code in REFUSALS else Outcome.RETRY


def decide(
    attempt: Attempt, delivery: Delivery, standing: Standing, policy: RetryPolicy, rng: Chance, now_ms: int
) -> Decision:
    """What becomes of a delivery after this attempt.

    Args:
        attempt: the result.
        delivery: as it was claimed, this attempt not counted.
        standing: its target's, before this attempt is counted there.
        policy: the target's retry settings.
        rng: chance for the jitter.
        now_ms: wall time.
    """
    if attempt.outcome is Outcome.OK:
        return Delivered()
    if _ABORT in _wishes(attempt) or _is_refused_alone(attempt, delivery, standing):
        return Dead(DeadReason.REFUSED)
    if asks_to_stop(attempt):
        return Again(now_ms, uses_step=False)
    left = len(policy.schedule) - delivery.steps_used
    if standing.breaker is not Breaker.CLOSED:
        # The breaker alone says when its target is tried. What was under way when it opened uses its step; not the
        # last one, because nothing dies of a target that is down.
        return Again(now_ms, uses_step=not delivery.probe and left > 0)
    if left <= 0 and not delivery.probe:
        return Dead(DeadReason.EXHAUSTED)
    step = min(delivery.steps_used, len(policy.schedule) - 1)
    wait = policy.schedule[step] * rng.uniform(1 - policy.jitter, 1 + policy.jitter)
    wait = max(wait, retry_after(attempt.headers, now_ms, policy.retry_after_max))
    return Again(now_ms + round(wait * 1000), uses_step=not delivery.probe)


def asks_to_stop(attempt: Attempt) -> bool:
    """Whether the receiver wants nothing more until a person acts: 410, or `webhook-delivery: disable`."""
    return attempt.outcome is Outcome.GONE or _DISABLE in _wishes(attempt)


def slowing(attempt: Attempt, now_ms: int, most: float) -> float | None:
    """For how many seconds the answer asks to be left alone; 0 for less at a time; None when it asks for neither."""
    if attempt.status_code not in SLOWING:
        return None
    return retry_after(attempt.headers, now_ms, most)


def retry_after(headers: Mapping[str, str], now_ms: int, most: float) -> float:
    """Seconds the receiver asks us to wait, between 0 and `most`; 0 when it does not ask or cannot be understood.

    A date is measured against the answer's own `Date`, which keeps our clock and theirs out of it.

    Args:
        headers: the answer's, with lower-case names.
        now_ms: wall time, used when the answer has no readable `Date`.
        most: the upper bound, in seconds.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        asked = float(text)
    else:
        until_ms = http_date_ms(text)
        if until_ms is None:
            return 0.0
        answered_ms = http_date_ms(headers.get("date"))
        asked = (until_ms - (now_ms if answered_ms is None else answered_ms)) / 1000
    return min(max(asked, 0.0), most)


def speaks_of_event(attempt: Attempt, delivery: Delivery, standing: Standing) -> bool:
    """Whether this refusal is about this one event: the target has taken others since its first attempt."""
    if attempt.outcome is not Outcome.REFUSED:
        return False
    since_ms = attempt.at_ms if delivery.first_attempt_ms is None else delivery.first_attempt_ms
    return standing.answered_other(delivery.event.lane, since_ms)


def _is_refused_alone(attempt: Attempt, delivery: Delivery, standing: Standing) -> bool:
    """Whether it is refused for good. A probe never says so: while the breaker is open, everything fails."""
    if delivery.probe or delivery.attempts_made + 1 < REFUSED_AFTER:
        return False
    return speaks_of_event(attempt, delivery, standing)


def _wishes(attempt: Attempt) -> frozenset[str]:
    """The words of the answer's `webhook-delivery` header; those we do not know are nobody's business."""
    return frozenset(word.strip().lower() for word in attempt.headers.get(_WISHES, "").split(","))
