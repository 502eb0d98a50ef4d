"""Readiness is a pure judgement: what makes it false, and that it says why."""

from typing import Any

import pytest

from relay.admin.health import Limits, limits_of, unready_reasons
from relay.board import Board, TargetBoard, UpstreamState
from relay.config import TargetSettings
from relay.standing import Breaker, Standing
from relay.store.values import Backlog

NOW, NOW_MS = 10_000.0, 50_000_000


def ready_board() -> Board:
    board = Board()
    board.upstream.state = UpstreamState.SUBSCRIBED
    board.upstream.first_sweep_done = True
    return board


def reasons(board: Board, limits: Limits | None = None, **backlog: Backlog) -> list[str]:
    return unready_reasons(board, backlog, dict.fromkeys(backlog, limits or Limits(2)), NOW, NOW_MS)


def ago(seconds: float) -> int:
    return NOW_MS - int(seconds * 1000)


def waiting(seconds: float, **standing: Any) -> Backlog:
    return Backlog(pending=1, oldest_ms=ago(seconds), waiting_since_ms=ago(seconds), standing=Standing(**standing))


def test_subscribed_and_swept_is_ready():
    assert reasons(ready_board()) == []


def test_an_upstream_that_is_down_says_why():
    board = ready_board()
    board.upstream.state = UpstreamState.CONNECTING
    board.upstream.last_error = "connection refused"
    assert reasons(board) == ["upstream: not subscribed (connecting): connection refused"]


def test_subscribed_is_not_enough():
    board = ready_board()
    board.upstream.first_sweep_done = False
    assert reasons(board) == ["upstream: subscribed, but the first sweep of this connection is not done"]
    board.upstream.sweep_problem = "REST: 404"
    assert reasons(board) == ["upstream: subscribed, but the first sweep of this connection is not done: REST: 404"]


def test_stopping_and_a_broken_store_are_told():
    board = ready_board()
    board.stopping, board.store_failure = True, "disk full"
    assert reasons(board) == ["stopping: it was asked to end", "store: disk full"]


def test_a_shut_gate_says_why():
    board = ready_board()
    board.gate.shut("the disk of /data has less than 256 MiB left")
    assert reasons(board) == ["store: the disk of /data has less than 256 MiB left"]
    board.gate.open()
    assert reasons(board) == []


def test_a_target_that_could_send_and_does_not_is_a_stall():
    sentence = ["target alpha: something has been due for 60 s and no attempt was started"]
    assert reasons(ready_board(), alpha=waiting(60)) == sentence
    assert reasons(ready_board(), alpha=waiting(59)) == []


def test_a_target_at_work_is_no_stall():
    board = ready_board()
    board.targets["alpha"] = TargetBoard(last_started=NOW - 59)
    assert reasons(board, alpha=waiting(600)) == []
    board.targets["alpha"] = TargetBoard(last_started=NOW - 600, in_flight=2)
    assert reasons(board, alpha=waiting(600)) == []
    board.targets["alpha"] = TargetBoard(last_started=NOW - 600, in_flight=1)
    assert len(reasons(board, alpha=waiting(600))) == 1


@pytest.mark.parametrize(
    "standing",
    [
        {"paused_ms": 1},
        {"paused_by_config": True},
        {"parked_ms": 1},
        {"configured": False},
        {"throttled_until_ms": NOW_MS + 1},
        {"throttled_until_ms": ago(59)},
        {"resumed_ms": ago(59)},
        {"breaker": Breaker.OPEN, "probe_due_ms": NOW_MS + 1},
        {"breaker": Breaker.OPEN, "probe_due_ms": ago(59)},
    ],
)
def test_what_may_not_be_sent_to_is_no_stall(standing: dict[str, Any]):
    assert reasons(ready_board(), alpha=waiting(600, **standing)) == []


@pytest.mark.parametrize(
    "standing",
    [
        {"throttled_until_ms": ago(61)},
        {"resumed_ms": ago(61)},
        {"allowance": 1},
        {"breaker": Breaker.OPEN, "probe_due_ms": ago(61)},
    ],
)
def test_what_may_be_sent_to_again_and_is_not_is_a_stall(standing: dict[str, Any]):
    assert len(reasons(ready_board(), alpha=waiting(600, **standing))) == 1


def test_an_open_breaker_that_forgets_its_probe_is_a_stall_whatever_is_due():
    later = Backlog(1, ago(600), NOW_MS + 10**6, Standing(breaker=Breaker.OPEN, probe_due_ms=ago(61)))
    assert len(reasons(ready_board(), alpha=later)) == 1


def test_the_slots_that_trouble_leaves_are_all_it_has():
    board = ready_board()
    board.targets["alpha"] = TargetBoard(last_started=NOW - 600, in_flight=1)
    assert reasons(board, alpha=waiting(600, allowance=1)) == []
    assert reasons(board, alpha=waiting(600, breaker=Breaker.OPEN, probe_due_ms=ago(61))) == []


def test_a_slow_rate_is_no_stall():
    board = ready_board()
    board.targets["alpha"] = TargetBoard(last_started=NOW - 3000)
    assert reasons(board, Limits(2, interval=3600.0), alpha=waiting(5000)) == []
    assert len(reasons(board, Limits(2, interval=1.0), alpha=waiting(5000))) == 1


def test_orphans_are_nobodys_stall():
    assert unready_reasons(ready_board(), {"gone": waiting(600)}, {}, NOW, NOW_MS) == []


def test_limits_come_from_the_configuration():
    values = {"name": "shop", "url": "https://shop.example.com/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}
    assert limits_of(TargetSettings.model_validate({**values, "concurrency": 3}), 1) == Limits(3, 0.0)
    assert limits_of(TargetSettings.model_validate({**values, "rate_limit": "30/m"}), 1) == Limits(16, 2.0)


def following(leader: str | None) -> Board:
    board = Board()
    board.lead.shared, board.lead.leader = True, leader
    board.upstream.state = UpstreamState.FOLLOWING
    return board


def test_a_follower_is_ready_while_somebody_leads():
    assert reasons(following("another-host")) == []
    assert reasons(following(None)) == ["upstream: no instance holds the connection"]


def test_a_follower_whose_database_is_away_is_not_ready():
    board = following("another-host")
    board.gate.shut("postgresql://db/relay: it cannot be reached")
    assert reasons(board) == ["store: postgresql://db/relay: it cannot be reached"]


def test_a_leader_is_judged_by_its_own_connection():
    board = following("this-host")
    board.lead.epoch, board.upstream.state = 3, UpstreamState.CONNECTING
    assert reasons(board) == ["upstream: not subscribed (connecting)"]


def test_of_several_instances_each_has_its_part_of_the_limits():
    values = {"name": "a", "url": "https://a.example.com/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}
    assert limits_of(TargetSettings.model_validate({**values, "concurrency": 7}), 3) == Limits(2, 0.0)
    assert limits_of(TargetSettings.model_validate({**values, "concurrency": 1, "rate_limit": "30/m"}), 2) == Limits(
        1, 4.0
    )
