"""Is it alive, is it ready, and if not, why: pure judgements over the board and the backlog.

Alive says nothing about the upstream: restarting cannot repair somebody else's outage. Ready means that
changes reach targets now.
"""

from collections.abc import Mapping
from typing import Final

from relay.board import Board, TargetBoard, UpstreamState
from relay.store.base import Backlog

STALL: Final = 60.0
"""Seconds that something may be due at a target that is free to send, without an attempt starting."""


def unready_reasons(
    board: Board, backlog: Mapping[str, Backlog], concurrency: Mapping[str, int], now: float, now_ms: int
) -> list[str]:
    """Why the relay is not ready, a sentence each; empty when it is.

    Args:
        board: what the rooms say of themselves.
        backlog: what every target still has to get.
        concurrency: each target's slots.
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
    if upstream.state is not UpstreamState.SUBSCRIBED:
        cause = f": {upstream.last_error}" if upstream.last_error else ""
        reasons.append(f"upstream: not subscribed ({upstream.state}){cause}")
    elif not upstream.first_sweep_done:
        cause = f": {upstream.sweep_problem}" if upstream.sweep_problem else ""
        reasons.append(f"upstream: subscribed, but the first sweep of this connection is not done{cause}")
    for name, waiting in backlog.items():
        target = board.targets.get(name, TargetBoard())
        if is_stalled(target, waiting, concurrency.get(name, 1), now, now_ms):
            reasons.append(f"target {name}: something has been due for {STALL:.0f} s and no attempt was started")
    return reasons


def is_stalled(target: TargetBoard, backlog: Backlog, slots: int, now: float, now_ms: int) -> bool:
    """Whether something has been due for `STALL` seconds at a target that is free to send, and no attempt began."""
    if backlog.stopped or backlog.waiting_since_ms is None or target.in_flight >= slots:
        return False
    due_for = (now_ms - backlog.waiting_since_ms) / 1000
    idle_for = STALL if target.last_started is None else now - target.last_started
    return due_for >= STALL and idle_for >= STALL
