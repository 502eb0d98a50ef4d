"""Readiness is a pure judgement: what makes it false, and that it says why."""

from relay.admin.health import unready_reasons
from relay.board import Board, TargetBoard, UpstreamState
from relay.store.base import Backlog

NOW, NOW_MS = 10_000.0, 50_000_000


def ready_board() -> Board:
    board = Board()
    board.upstream.state = UpstreamState.SUBSCRIBED
    board.upstream.first_sweep_done = True
    return board


def reasons(board: Board, **backlog: Backlog) -> list[str]:
    return unready_reasons(board, backlog, dict.fromkeys(backlog, 2), NOW, NOW_MS)


def waiting(seconds: float, *, stopped: bool = False) -> Backlog:
    due = NOW_MS - int(seconds * 1000)
    return Backlog(pending=1, oldest_ms=due, waiting_since_ms=due, stopped=stopped)


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
    assert reasons(ready_board(), alpha=waiting(600, stopped=True)) == []


def test_a_target_at_work_is_no_stall():
    board = ready_board()
    board.targets["alpha"] = TargetBoard(last_started=NOW - 59)
    assert reasons(board, alpha=waiting(600)) == []
    board.targets["alpha"] = TargetBoard(last_started=NOW - 600, in_flight=2)
    assert reasons(board, alpha=waiting(600)) == []
    board.targets["alpha"] = TargetBoard(last_started=NOW - 600, in_flight=1)
    assert len(reasons(board, alpha=waiting(600))) == 1
