"""What an attempt's result means: delivered, again later, dead, or park the target. Pure.

A decision is a value; whoever asked carries it out. The target-wide answers to trouble (breaker, throttle)
are decided elsewhere, from the same `Attempt`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from relay.model import Attempt, DeadReason, Outcome

GONE: Final = 410
_SECONDS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Chance(Protocol):
    """The part of a random generator that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to retry.

    Attributes:
        schedule: seconds to wait after the first, second, ... failed attempt; n entries make n + 1 attempts.
        jitter: share of a wait by which it may be shorter or longer, as in 0.2.
        retry_after_max: the most seconds a receiver's `Retry-After` is honoured for.
    """

    schedule: tuple[float, ...]
    jitter: float
    retry_after_max: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Attempt it again after this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Give this delivery up."""

    reason: DeadReason


@dataclass(frozen=True, slots=True)
class Park:
    """The receiver says it is gone for good: stop the target and keep the delivery until a person resumes."""


Decision = Delivered | RetryIn | Dead | Park


def classify(status_code: int) -> Outcome:
    """The outcome of an attempt that got this HTTP status."""
    if 200 <= status_code <= 299:
        return Outcome.OK
    if status_code == GONE:
        return Outcome.GONE
    return Outcome.RETRY


def decide(attempt: Attempt, attempts_made: int, policy: RetryPolicy, rng: Chance, now_ms: int) -> Decision:
    """What becomes of a delivery after this attempt.

    Args:
        attempt: the result.
        attempts_made: attempts of this delivery so far, this one included.
        policy: the target's retry settings.
        rng: chance for the jitter.
        now_ms: wall time, for a `Retry-After` date in an answer that has no `Date` of its own.

    Raises:
        ValueError: `attempts_made` is less than 1.
    """
    if attempts_made < 1:
        raise ValueError("the attempt decided on counts as made")
    if attempt.outcome is Outcome.OK:
        return Delivered()
    if attempt.outcome is Outcome.GONE:
        return Park()
    if attempts_made > len(policy.schedule):
        return Dead(DeadReason.EXHAUSTED)
    wait = policy.schedule[attempts_made - 1] * rng.uniform(1 - policy.jitter, 1 + policy.jitter)
    return RetryIn(max(wait, retry_after(attempt.headers, now_ms, policy.retry_after_max)))


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
        until = _http_date(text)
        if until is None:
            return 0.0
        answered = _http_date(headers.get("date", ""))
        asked = until - (now_ms / 1000 if answered is None else answered)
    return min(max(asked, 0.0), most)


def _http_date(text: str) -> float | None:
    """Unix seconds of any of HTTP's three date forms (IMF-fixdate, RFC 850, asctime)."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
