"""Is it alive, is it ready, and if not, why: pure judgements over the board and the backlog.

Alive says nothing about the upstream: restarting cannot repair somebody else's outage. Ready means that
changes reach targets now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relay.admin.instances import NOBODY_LEADS, nobody_leads
from relay.board import Board, TargetBoard, UpstreamState
from relay.config import TargetSettings
from relay.standing import Breaker
from relay.store.values import Backlog

STALL: Final = 60.0
"""Seconds that something may be due at a target that is free to send, without an attempt starting."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target's configuration lets it do at most.

    Attributes:
        slots: attempts at a time.
        interval: seconds between two attempts by its `rate_limit`.
    """

    slots: int
    interval: float = 0.0


def limits_of(target: TargetSettings, instances: int) -> Limits:
    """One instance's part of a target's limits, of so many that share the store."""
    interval = instances / target.rate_limit if target.rate_limit else 0.0
    return Limits(max(1, target.concurrency // instances), interval)


def unready_reasons(
    board: Board, backlog: Mapping[str, Backlog], limits: Mapping[str, Limits], now: float, now_ms: int
) -> list[str]:
    """Why the relay is not ready, a sentence each; empty when it is.

    Args:
        board: what the rooms say of themselves.
        backlog: what every target still has to get.
        limits: every configured target's.
        now: monotonic seconds.
        now_ms: wall time.
    """
    reasons = []
    if board.stopping:
        reasons.append("stopping: it was asked to end")
    if board.store_failure is not None:
        reasons.append(f"store: {board.store_failure}")
    if board.gate.reason is not None:
        reasons.append(f"store: {board.gate.reason}")
    upstream = board.upstream
    if board.lead.follows:
        reasons += [f"upstream: {NOBODY_LEADS}"] if nobody_leads(board) else []
    elif upstream.state is not UpstreamState.SUBSCRIBED:
        cause = f": {upstream.last_error}" if upstream.last_error else ""
        reasons.append(f"upstream: not subscribed ({upstream.state}){cause}")
    elif not upstream.first_sweep_done:
        cause = f": {upstream.sweep_problem}" if upstream.sweep_problem else ""
        reasons.append(f"upstream: subscribed, but the first sweep of this connection is not done{cause}")
    for name, waiting in backlog.items():
        target = board.targets.get(name, TargetBoard())
        if name in limits and is_stalled(target, waiting, limits[name], now, now_ms):
            reasons.append(f"target {name}: something has been due for {STALL:.0f} s and no attempt was started")
    return reasons


def is_stalled(target: TargetBoard, backlog: Backlog, limits: Limits, now: float, now_ms: int) -> bool:
    """Whether something has been due for `STALL` seconds at a target that is free to send, and no attempt began."""
    standing = backlog.standing
    if standing.stopped or backlog.waiting_since_ms is None:
        return False
    if standing.breaker is Breaker.CLOSED:
        slots, since_ms = standing.allowance or limits.slots, backlog.waiting_since_ms
    else:
        slots, since_ms = 1, standing.probe_due_ms or 0
    free_ms = max(since_ms, standing.throttled_until_ms or 0, standing.resumed_ms)
    patience = STALL + limits.interval
    idle_for = patience if target.last_started is None else now - target.last_started
    return target.in_flight < min(slots, limits.slots) and min((now_ms - free_ms) / 1000, idle_for) >= patience
