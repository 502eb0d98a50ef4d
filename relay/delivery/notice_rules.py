"""What is worth telling: from how things stand and what has been told already to notices. Pure.

A condition is told when it begins to hold, once for the moment since when it does; `open` remembers that moment for
as long as it holds, over restarts. A recovery is told only of what was told before.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from relay.delivery.notice_facts import Deaths, Disk, Facts, Refusal, Target, Upstream
from relay.model import Event, iso_utc
from relay.notice import CONFIG, STORE, UPSTREAM, Fact, NoticeType, make_notice
from relay.standing import Breaker, Standing

DOWN_AFTER: Final = 300.0
"""Seconds without a subscription after which the upstream counts as down."""
TRIED_FOR: Final = 60.0
"""Seconds that this process must have tried by then: what was down with the relay itself is no outage."""
FAILING_AFTER: Final = 300.0
"""Seconds that a breaker must have been open."""
LAGGING_AFTER: Final = 900.0
"""Seconds that the oldest delivery of an order must have waited."""
LAGGING_UNTIL: Final = 300.0
"""Seconds below which that has to fall again, so that a target around the mark is not told again and again."""
FIRST: Final = 5
"""How many of many a notice names."""

_UPSTREAM_ALARMS: Final = (NoticeType.AUTH_FAILED, NoticeType.DOWN)
_TARGET_ALARMS: Final = (NoticeType.FAILING, NoticeType.LAGGING)
_FULL: Final = "full"
_Facts = Mapping[str, Fact]


def judge(facts: Facts, open: Mapping[str, int]) -> tuple[list[Event], dict[str, int]]:
    """What is to be told now, and what is open after that.

    Args:
        facts: how things stand.
        open: what was told and has not ended: an opaque key -> wall time since when it holds.
    """
    book = _Book(open, facts.now_ms, facts.running)
    _judge_upstream(facts.upstream, book)
    for name, target in facts.targets.items():
        _judge_target(name, target, book)
    _judge_disk(facts.disk, book)
    _judge_refusal(facts.refusal, book)
    for deaths in facts.deaths:
        _tell_deaths(deaths, book)
    return book.notices, book.after


class _Book:
    """What was open before, what is open now, and what has to be told of the difference."""

    def __init__(self, before: Mapping[str, int], now_ms: int, running: float) -> None:
        self.before = before
        self.now_ms = now_ms
        self.running = running
        self.after: dict[str, int] = {}
        self.notices: list[Event] = []

    def seconds(self, since_ms: int) -> float:
        """How long ago that is."""
        return (self.now_ms - since_ms) / 1000

    def is_open(self, type: NoticeType, subject: str) -> bool:
        """Whether it was told and had not ended."""
        return _key(type, subject) in self.before

    def keep(self, type: NoticeType, subject: str) -> None:
        """Leave it as it is, told or not."""
        key = _key(type, subject)
        if key in self.before:
            self.after[key] = self.before[key]

    def hold(
        self,
        type: NoticeType,
        subject: str,
        since_ms: int,
        what: str,
        advice: str,
        facts: _Facts,
        *,
        kind: str = "",
        anew: bool = False,
    ) -> None:
        """It holds: told unless it was. One of another kind is told, too; `anew`: one with another beginning."""
        key = _key(type, subject, kind)
        told_ms = self.before.get(key)
        if told_ms is None or (anew and told_ms != since_ms):
            self.tell(type, subject, since_ms, what, advice, facts)
            told_ms = since_ms
        self.after[key] = told_ms

    def recover(
        self, types: Sequence[NoticeType], subject: str, recovered: NoticeType, what: str, facts: _Facts
    ) -> None:
        """None of these holds any more; told if one of them was."""
        since = [self.before[key] for key in (_key(type, subject) for type in types) if key in self.before]
        if since and not any(_key(type, subject) in self.after for type in types):
            self.tell(recovered, subject, min(since), what, "nothing", {"until": iso_utc(self.now_ms), **facts})

    def tell(self, type: NoticeType, subject: str, since_ms: int, what: str, advice: str, facts: _Facts) -> None:
        """Make the notice."""
        self.notices.append(make_notice(type, subject, since_ms, self.now_ms, what, advice, facts))


def _key(type: NoticeType, subject: str, kind: str = "") -> str:
    return f"{type.value} {subject} {kind}".rstrip()


def _judge_upstream(upstream: Upstream | None, book: _Book) -> None:
    if upstream is None:
        for type in _UPSTREAM_ALARMS:
            book.keep(type, UPSTREAM)
        return
    if upstream.subscribed:
        what = "there was no subscription to HoudiniSwap; there is one again, and a sweep catches up"
        book.recover(_UPSTREAM_ALARMS, UPSTREAM, NoticeType.UPSTREAM_RECOVERED, what, {})
        return
    if upstream.refused_ms is not None or book.is_open(NoticeType.AUTH_FAILED, UPSTREAM):
        what = "HoudiniSwap refuses the credentials, so no order's change is received"
        advice = "correct upstream.partner_id and upstream.secret, and reload or restart the relay; it tries again "
        advice += "every auth_retry, and catches up with the last 48 h by itself"
        since_ms = upstream.refused_ms or upstream.lost_ms
        book.hold(NoticeType.AUTH_FAILED, UPSTREAM, since_ms, what, advice, {"error": upstream.error})
    lasts = book.seconds(upstream.lost_ms) >= DOWN_AFTER and upstream.tried >= TRIED_FOR
    if lasts or book.is_open(NoticeType.DOWN, UPSTREAM):
        what = "there is no subscription to HoudiniSwap, so no order's change is received"
        advice = "see `houdini-relay status`, the network and HoudiniSwap itself; the relay goes on trying, and it "
        advice += "catches up with the last 48 h by itself"
        book.hold(NoticeType.DOWN, UPSTREAM, upstream.lost_ms, what, advice, {"error": upstream.error})


def _judge_target(name: str, target: Target, book: _Book) -> None:
    standing = target.standing
    facts: _Facts = {"target": name, "pending": target.pending}
    if not standing.configured:
        return
    if standing.parked_ms is not None:
        what = f"{name} is parked because its receiver said that it wants nothing more (410, or webhook-delivery: "
        what += "disable); nothing is sent to it, and everything is kept"
        advice = f"put its receiver right, then: houdini-relay targets resume {name}"
        book.hold(NoticeType.PARKED, name, standing.parked_ms, what, advice, facts, anew=True)
    if standing.stopped:
        # Nobody expects anything of it now; whether it has recovered is seen when it is sent to again.
        for type in _TARGET_ALARMS:
            book.keep(type, name)
        return
    trouble = {**facts, "error": standing.last_error}
    _judge_failing(name, standing, trouble, book)
    _judge_lagging(name, target, trouble, book)
    what = f"{name} was in trouble; it takes what is sent to it again, and nothing waits for long"
    book.recover(_TARGET_ALARMS, name, NoticeType.TARGET_RECOVERED, what, facts)


def _judge_failing(name: str, standing: Standing, facts: _Facts, book: _Book) -> None:
    since_ms = standing.breaker_changed_ms
    if standing.breaker is Breaker.CLOSED or since_ms is None:
        return
    book.keep(NoticeType.FAILING, name)
    if book.seconds(since_ms) >= FAILING_AFTER and book.running >= TRIED_FOR:
        what = f"{name} takes nothing: every attempt has failed, and it is only probed"
        advice = f"make its URL answer 2xx (houdini-relay targets test {name}); what waits uses up no attempts "
        advice += "meanwhile, and goes out by itself afterwards"
        book.hold(NoticeType.FAILING, name, since_ms, what, advice, facts, anew=True)


def _judge_lagging(name: str, target: Target, facts: _Facts, book: _Book) -> None:
    if target.oldest_order_ms is None:
        return
    # While it was stopped nobody could expect anything of it.
    since_ms = max(target.oldest_order_ms, target.standing.resumed_ms)
    waits, told = book.seconds(since_ms), book.is_open(NoticeType.LAGGING, name)
    if waits >= (LAGGING_UNTIL if told else LAGGING_AFTER) and (told or book.running >= TRIED_FOR):
        what = f"{name} is behind: the oldest change of an order has waited for {waits / 60:.0f} min"
        advice = f"see what fails: houdini-relay deliveries list --target {name} --status pending; if it is only slow, "
        advice += "make it answer faster or raise its concurrency"
        book.hold(NoticeType.LAGGING, name, since_ms, what, advice, facts)


def _judge_disk(disk: Disk, book: _Book) -> None:
    facts: _Facts = {"freeMib": None if disk.free_bytes is None else disk.free_bytes // (1 << 20)}
    advice = "make room on the disk of the store, or lower store.retention; all goes on by itself then"
    if disk.full:
        what = "the disk of the store is full: nothing is received any more; what is stored is still delivered"
        book.hold(NoticeType.DISK_LOW, STORE, book.now_ms, what, advice, facts, kind=_FULL)
    elif disk.low:
        what = "the disk of the store is nearly full; when it is full, nothing will be received any more"
        full_ms = book.before.get(_key(NoticeType.DISK_LOW, STORE, _FULL))
        if full_ms is None:
            book.hold(NoticeType.DISK_LOW, STORE, book.now_ms, what, advice, facts)
        else:  # better than it was, and who was told to make room need not be told again
            book.after[_key(NoticeType.DISK_LOW, STORE)] = full_ms


def _judge_refusal(refusal: Refusal | None, book: _Book) -> None:
    if refusal is None:
        return
    digest = hashlib.sha256("\n".join(refusal.problems).encode("utf-8", "replace")).hexdigest()[:16]
    what = "the changed configuration is refused; the old one goes on"
    advice = "correct the file (houdini-relay check says where), then reload again; a restart with it would fail"
    facts: _Facts = {"problems": list(refusal.problems[:FIRST])}
    book.hold(NoticeType.CONFIG_REFUSED, CONFIG, refusal.since_ms, what, advice, facts, kind=digest)


def _tell_deaths(deaths: Deaths, book: _Book) -> None:
    count, name = sum(deaths.reasons.values()), deaths.target
    parts = ", ".join(f"{number} {reason}" for reason, number in sorted(deaths.reasons.items()))
    number = "1 change of an order was" if count == 1 else f"{count} changes of orders were"
    what = f"{number} given up undelivered at {name} ({parts})"
    advice = f"see why: houdini-relay deliveries list --target {name} --status dead; when its receiver is right "
    advice += f"again: houdini-relay replay --target {name}"
    facts: _Facts = {"target": name, "count": count, "reasons": dict(deaths.reasons), "first": list(deaths.first)}
    book.tell(NoticeType.DEAD, name, deaths.since_ms, what, advice, facts)
