"""What a target's standing permits, and what an attempt makes of it: breaker, slow start, throttle, parking. Pure.

While a target fails, its deliveries wait and use up nothing; one probe at a time tries it. Only a 2xx ends that,
and then the number of attempts at a time grows from one, because a receiver that has just come back is weak.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from relay.delivery import retry
from relay.delivery.pacing import share
from relay.delivery.said import why_failed
from relay.model import Attempt, Delivery, Outcome
from relay.standing import EXPIRY_TRIES, Breaker, Permit, Standing

OK_EVERY_MS: Final = 1000
"""How often a healthy target's row is written at most, in milliseconds."""
_DOUBLINGS: Final = 30
"""Beyond this many, doubling a probe's wait changes nothing: the longest wait is a day."""
_CLOCK_SLACK_MS: Final = 60_000


class BreakerPolicy(msgspec.Struct, frozen=True):
    """A target's settings, as far as they concern it as a whole.

    Attributes:
        concurrency: attempts at the same time.
        failures: failed attempts in a row that open the breaker.
        probe_initial: seconds before the first probe.
        probe_max: the most seconds between two.
        retry_after_max: the most seconds a receiver's `Retry-After` is honoured for.
    """

    concurrency: int
    failures: int
    probe_initial: float
    probe_max: float
    retry_after_max: float


class Load(msgspec.Struct, frozen=True):
    """What is under way at a target.

    Attributes:
        in_flight: attempts on the wire, probes included.
        probing: whether one of them is a probe.
        tokens: how many more may begin by its `rate_limit`; None without one.
        token_ms: wall time at which there is another token.
        instances: how many share what the target may be sent; all but this number is this instance's own.
        unsettled: attempts that have ended, what they mean for the target not written yet.
    """

    in_flight: int
    probing: bool = False
    tokens: int | None = None
    token_ms: int | None = None
    instances: int = 1
    unsettled: int = 0


def permits(standing: Standing, policy: BreakerPolicy, load: Load, now_ms: int) -> Permit:
    """How many more attempts may begin now, and whether as a probe."""
    if standing.stopped:
        return Permit(0)
    until_ms = throttled_until(standing, policy, now_ms)
    if until_ms is not None:
        return Permit(0, look_again_ms=until_ms)
    is_open = standing.breaker is not Breaker.CLOSED
    # While it is in trouble, what is about to be known may forbid more.
    troubled = is_open or standing.failures > 0 or standing.allowance is not None
    busy = load.in_flight + (load.unsettled if troubled else 0)
    free = share(_slots(standing, policy), load.instances) - busy
    if free <= 0 or (is_open and load.probing):
        return Permit(0)
    if is_open:
        due_ms = _probe_due(standing, policy, now_ms)
        if due_ms > now_ms:
            return Permit(0, look_again_ms=due_ms)
        free = 1
    if load.tokens == 0:
        return Permit(0, look_again_ms=load.token_ms)
    # While there is a token left, what is wanting is a delivery, and a delivery wakes.
    return Permit(free if load.tokens is None else min(free, load.tokens), is_open)


def throttled_until(standing: Standing, policy: BreakerPolicy, now_ms: int) -> int | None:
    """Until when nothing may be attempted because the receiver said so; None when it may."""
    until_ms = standing.throttled_until_ms
    latest_ms = now_ms + round(policy.retry_after_max * 1000) + _CLOCK_SLACK_MS
    # One that lies further ahead than any can was written by a clock that has been set back since.
    return until_ms if until_ms is not None and now_ms < until_ms <= latest_ms else None


def after(standing: Standing, attempt: Attempt, delivery: Delivery, policy: BreakerPolicy, now_ms: int) -> Standing:
    """A target's standing after this attempt of this delivery."""
    if attempt.outcome is Outcome.OK:
        standing = _after_success(standing, delivery.event.lane, policy, now_ms)
    else:
        standing = replace(standing, last_error=why_failed(attempt))
        if attempt.outcome is not Outcome.GONE:
            if retry.speaks_of_event(attempt, delivery, standing):
                standing = _after_refused_event(standing, attempt, delivery, policy, now_ms)
            else:
                standing = _after_failure(standing, attempt, delivery, policy, now_ms)
            standing = _slowed(standing, attempt, policy, now_ms)
    if retry.asks_to_stop(attempt) and standing.parked_ms is None:
        standing = replace(standing, parked_ms=now_ms)
    return standing


def _slots(standing: Standing, policy: BreakerPolicy) -> int:
    allowed = policy.concurrency if standing.allowance is None else standing.allowance
    return max(1, min(allowed, policy.concurrency))


def _probe_due(standing: Standing, policy: BreakerPolicy, now_ms: int) -> int:
    due_ms = standing.probe_due_ms
    latest_ms = now_ms + round(policy.probe_max * 1000) + _CLOCK_SLACK_MS
    return now_ms if due_ms is None or due_ms > latest_ms else due_ms


def _after_success(standing: Standing, order: str, policy: BreakerPolicy, now_ms: int) -> Standing:
    healed = replace(
        standing,
        breaker=Breaker.CLOSED,
        failures=0,
        failing_order=None,
        several_orders=False,
        vain_probes=(),
        probes_failed=0,
        probe_due_ms=None,
        last_error=None,
    )
    if standing.breaker is not Breaker.CLOSED:
        healed = replace(healed, breaker_changed_ms=now_ms, allowance=_within(1, policy))
    elif standing.allowance is not None:
        healed = replace(healed, allowance=_within(standing.allowance + 1, policy))
    return _answered(healed, order, now_ms, prompt=healed != standing)


def _within(allowance: int, policy: BreakerPolicy) -> int | None:
    """None once nothing limits it any more but `concurrency`."""
    return allowance if allowance < policy.concurrency else None


def _answered(standing: Standing, order: str, now_ms: int, *, prompt: bool) -> Standing:
    """Note the 2xx, at once if the row is written anyway, and else seldom: this is every healthy attempt."""
    ok_ms = standing.ok_ms
    recent = ok_ms is not None and abs(now_ms - ok_ms) < OK_EVERY_MS
    if recent and not prompt and (order == standing.ok_order or standing.other_ok_ms is not None):
        return standing
    other_ms = standing.other_ok_ms if order == standing.ok_order else ok_ms
    # A clock that was set back must not make an old answer look like a new one.
    other_ms = None if other_ms is None else min(other_ms, now_ms)
    return replace(standing, ok_ms=now_ms, ok_order=order, other_ok_ms=other_ms)


def _after_failure(
    standing: Standing, attempt: Attempt, delivery: Delivery, policy: BreakerPolicy, now_ms: int
) -> Standing:
    first = standing.failing_order or delivery.event.lane
    failing = replace(
        standing,
        failures=standing.failures + 1,
        failing_order=first,
        several_orders=standing.several_orders or delivery.event.lane != first,
    )
    if standing.breaker is Breaker.CLOSED:
        opens = failing.failures >= policy.failures and failing.several_orders
        return _opened(failing, policy, now_ms) if opens else failing
    return _after_vain_probe(failing, attempt, policy, now_ms) if delivery.probe else failing


def _after_refused_event(
    standing: Standing, attempt: Attempt, delivery: Delivery, policy: BreakerPolicy, now_ms: int
) -> Standing:
    """The target is well, only this event is not: no failure of the target, and the next probe comes soon.

    Otherwise events that a receiver never takes would keep its breaker open, or open it, and everything else waits.
    """
    if standing.breaker is Breaker.CLOSED or not delivery.probe or _asked_since(standing, attempt, now_ms):
        return standing
    return replace(standing, probe_due_ms=now_ms + round(policy.probe_initial * 1000))


def _opened(standing: Standing, policy: BreakerPolicy, now_ms: int) -> Standing:
    return replace(
        standing,
        breaker=Breaker.OPEN,
        breaker_changed_ms=now_ms,
        vain_probes=(),
        probes_failed=0,
        probe_due_ms=now_ms + round(policy.probe_initial * 1000),
        allowance=None,
    )


def _after_vain_probe(standing: Standing, attempt: Attempt, policy: BreakerPolicy, now_ms: int) -> Standing:
    noted = replace(standing, vain_probes=(*standing.vain_probes, now_ms)[-EXPIRY_TRIES:])
    if _asked_since(standing, attempt, now_ms):
        return noted
    vain = standing.probes_failed + 1
    wait = min(policy.probe_max, policy.probe_initial * 2 ** min(vain, _DOUBLINGS))
    return replace(noted, probes_failed=vain, probe_due_ms=now_ms + round(wait * 1000))


def _asked_since(standing: Standing, probe: Attempt, now_ms: int) -> bool:
    """Whether another one has been asked for since this probe began: what it met may have been mended since."""
    return standing.probe_due_ms is not None and probe.at_ms < standing.probe_due_ms <= now_ms


def _slowed(standing: Standing, attempt: Attempt, policy: BreakerPolicy, now_ms: int) -> Standing:
    seconds = retry.slowing(attempt, now_ms, policy.retry_after_max)
    if seconds is None:
        return standing
    if seconds > 0:
        before_ms = throttled_until(standing, policy, now_ms) or now_ms
        return replace(standing, throttled_until_ms=max(before_ms, now_ms + round(seconds * 1000)))
    if standing.breaker is not Breaker.CLOSED:
        return standing  # probes come one at a time already
    return replace(standing, allowance=_within(max(1, _slots(standing, policy) // 2), policy))
