"""What is remembered of a target as a whole: pause, parking, breaker, throttle. One row a target. Pure.

A dead target costs one write of its standing per probe, not one per waiting delivery. The store keeps it and
hands it to the decisions of the delivery room; it decides nothing itself but what is written here.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

EXPIRY_TRIES: Final = 5
"""Attempts, or probes of its target, that must have been in vain before age alone may end a delivery."""


class Ordering(StrEnum):
    """How a target's deliveries of one order wait for one another."""

    PER_ORDER = "per_order"
    LATEST_ONLY = "latest_only"
    NONE = "none"


class Breaker(StrEnum):
    """Whether a target is sent to (`closed`) or only probed (`open`).

    `half_open` is never stored: an open breaker is shown so while a probe is on the wire.
    """

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Resume(StrEnum):
    """What a person's wish that a target be sent to again meets, and ends unless the configuration says it."""

    PARKED = "parked"
    PAUSED = "paused"
    BREAKER_OPEN = "breaker_open"
    NOTHING = "nothing"
    PAUSED_BY_CONFIG = "paused_by_config"


class Standing(msgspec.Struct, frozen=True):
    """A target as a whole; all times are wall milliseconds.

    Attributes:
        configured: whether the configuration names it; otherwise it is orphaned.
        paused_ms: since when a person has paused it.
        paused_by_config: whether the configuration pauses it.
        parked_ms: since when it has been parked, by a 410 or by `webhook-delivery: disable`.
        resumed_ms: when it was last resumed, came back to the configuration, or first seen.
        breaker: closed or open.
        breaker_changed_ms: when that last changed.
        failures: failed attempts in a row.
        failing_order: the order of the first of them.
        several_orders: whether they were of at least two orders.
        vain_probes: when the last probes were in vain, oldest first, at most `EXPIRY_TRIES`.
        probes_failed: probes in vain since the breaker opened, or a person last resumed it.
        probe_due_ms: when the next probe may be made; None while the breaker is closed.
        throttled_until_ms: nothing is attempted before.
        allowance: how many attempts may be under way at a time after trouble; None when nothing limits them
            but `concurrency`.
        ok_ms: when it last answered 2xx, to within a second.
        ok_order: for which order.
        other_ok_ms: when it last answered 2xx for another order than that.
        last_error: why the last failed attempt failed; None after a 2xx.
    """

    configured: bool = True
    paused_ms: int | None = None
    paused_by_config: bool = False
    parked_ms: int | None = None
    resumed_ms: int = 0
    breaker: Breaker = Breaker.CLOSED
    breaker_changed_ms: int | None = None
    failures: int = 0
    failing_order: str | None = None
    several_orders: bool = False
    vain_probes: tuple[int, ...] = ()
    probes_failed: int = 0
    probe_due_ms: int | None = None
    throttled_until_ms: int | None = None
    allowance: int | None = None
    ok_ms: int | None = None
    ok_order: str | None = None
    other_ok_ms: int | None = None
    last_error: str | None = None

    @property
    def paused(self) -> bool:
        """Whether a person or the configuration says so."""
        return self.paused_ms is not None or self.paused_by_config

    @property
    def stopped(self) -> bool:
        """Whether nothing is sent until a person acts."""
        return self.paused or self.parked_ms is not None or not self.configured

    @property
    def state(self) -> str:
        """`active`, `paused`, `parked` or `orphaned`."""
        if not self.configured:
            return "orphaned"
        if self.parked_ms is not None:
            return "parked"
        return "paused" if self.paused else "active"

    def answered_other(self, order: str, since_ms: int) -> bool:
        """Whether it has answered 2xx for another order since then."""
        ok_ms = self.ok_ms if self.ok_order != order else self.other_ok_ms
        return ok_ms is not None and ok_ms >= since_ms

    @property
    def resumable(self) -> Resume:
        """What a person's `resume` would end."""
        if self.parked_ms is not None:
            return Resume.PARKED
        if self.paused_ms is not None:
            return Resume.PAUSED
        is_probed = self.breaker is not Breaker.CLOSED and not self.stopped
        return Resume.BREAKER_OPEN if is_probed else Resume.NOTHING

    def resumed(self, now_ms: int) -> "Standing":
        """As after a person's `resume`: neither paused by a person nor parked, and an open breaker probed at once.

        The waits between probes begin anew, so that asking again and again does not put the next one off.
        """
        if self.resumable is Resume.NOTHING:
            return self
        if self.resumable is Resume.BREAKER_OPEN:
            # Nothing was stopped, so ages go on counting from where they did.
            return replace(self.urged(now_ms), probes_failed=0)
        return replace(self, paused_ms=None, parked_ms=None, resumed_ms=now_ms, probes_failed=0).urged(now_ms)

    def asked(self, now_ms: int) -> "Standing":
        """As after a person's wish for one attempt: past the breaker, but not past a receiver's `Retry-After`."""
        return self if self.breaker is Breaker.CLOSED else replace(self, probe_due_ms=now_ms)

    def urged(self, now_ms: int) -> "Standing":
        """As after something that makes an attempt worth while now: no waiting for a probe or a throttle."""
        probe_due_ms = None if self.breaker is Breaker.CLOSED else now_ms
        return replace(self, probe_due_ms=probe_due_ms, throttled_until_ms=None)


def suspends_schedule(before: Standing, after: Standing) -> bool:
    """Whether this change ends the waits of single deliveries, so that every lane head becomes due.

    An open breaker alone decides when its target is tried, so opening it ends them; so does everything that
    gives a stopped target, or one with another address, a new start. A wait that is cut short gives its step
    of the retry schedule back, so nothing is used up by it.
    """
    opened = before.breaker is Breaker.CLOSED and after.breaker is Breaker.OPEN
    return opened or (before.stopped and not after.stopped)


def has_expired(created_ms: int, attempts_made: int, standing: Standing, made_before_ms: int) -> bool:
    """Whether a delivery is so old that it ends, `made_before_ms` being now less `expire_after`.

    Its age counts from its making, or from its target's last resume or return. Age alone never ends one (a
    clock may have jumped): it, or its target's probes since, must have been in vain `EXPIRY_TRIES` times.
    """
    since_ms = max(created_ms, standing.resumed_ms)
    if since_ms >= made_before_ms or standing.stopped:
        return False
    probed = len(standing.vain_probes) >= EXPIRY_TRIES and standing.vain_probes[0] >= since_ms
    return attempts_made >= EXPIRY_TRIES or probed


class Permit(msgspec.Struct, frozen=True):
    """What may be claimed now.

    Attributes:
        limit: at most so many lane heads.
        probe: whether it is one to try an open breaker with.
        look_again_ms: wall time from which more may be permitted; None when nothing but an event changes it.
    """

    limit: int
    probe: bool = False
    look_again_ms: int | None = None


Permits = Callable[[Standing], Permit]
"""Pure: what a target's standing permits, asked inside the transaction that claims."""
