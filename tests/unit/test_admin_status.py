"""What counts as fine, what is wrong, and what is only worth knowing."""

from typing import Any

from relay.admin.health import Limits
from relay.admin.status import Facts, TargetFacts, status_document
from relay.board import Board, TargetBoard, UpstreamState
from relay.standing import Breaker, Standing
from relay.store.reads import DeadLetters
from relay.store.values import Backlog, Gap, Instance, LiveInstance

NOW_MS = 1_795_330_000_000
HOUR = 3_600_000
TWO = (
    LiveInstance(Instance("me", "host-a", NOW_MS - 60_000), NOW_MS - 1_000, None, {}),
    LiveInstance(Instance("other", "host-b", NOW_MS - 90_000), NOW_MS - 2_000, 7, {"shop": 3}),
)
URL = "https://shop.example.com/hooks/[redacted]"


def fine_board() -> Board:
    board = Board()
    upstream = board.upstream
    upstream.state, upstream.epoch, upstream.since_ms = UpstreamState.SUBSCRIBED, 3, NOW_MS - 5000
    upstream.first_sweep_done = upstream.in_sync = True
    return board


def judge(
    board: Board | None = None,
    backlog: Backlog | None = None,
    gaps: Any = (),
    instances: Any = (),
    dead: int = 0,
    dead_ms: int = 0,
    **orphans: Backlog,
) -> dict[str, Any]:
    facts = Facts(
        version="1.2.3",
        board=board or fine_board(),
        targets=[TargetFacts("shop", URL, Limits(2))],
        backlog={"shop": backlog or waiting(0, 0), **orphans},
        dead={"shop": DeadLetters(dead, dead_ms)},
        sweeps={"ok": 2},
        gaps=gaps,
        instances=instances,
        size_bytes=4096,
        now=1000.0,
        now_ms=NOW_MS,
    )
    document = status_document(facts)
    assert document["fine"] is not bool(document["problems"])
    return document


def messages(document: dict[str, Any], what: str = "problems") -> list[str]:
    assert all(one["advice"] for one in document[what])
    return [f"{one['subject']}: {one['message']}" for one in document[what]]


def waiting(seconds: float, pending: int = 3, **standing: Any) -> Backlog:
    since = NOW_MS - round(seconds * 1000) if pending else None
    return Backlog(pending, since, None, Standing(**standing))


def test_fine():
    document = judge()
    assert document["fine"] is True
    assert document["upstream"]["in_sync"] is True
    assert document["upstream"]["since"] == "2026-11-22T06:46:35.000Z"
    assert document["upstream"]["sweeps"] == {"ok": 2}
    assert document["notes"] == document["gaps"] == []
    shop = document["targets"][0]
    assert (shop["name"], shop["state"], shop["breaker"], shop["pending"]) == ("shop", "active", "closed", 0)
    assert (shop["dead"], shop["last_success_at"], shop["last_error"]) == (0, None, None)


def test_settling_after_a_reconnect_is_fine_and_said():
    board = fine_board()
    board.upstream.in_sync = False
    document = judge(board)
    assert document["fine"] is True
    assert "trailing sweep" in document["upstream"]["why_not_in_sync"]


def test_the_upstream():
    board = fine_board()
    board.upstream.first_sweep_done = board.upstream.in_sync = False
    assert messages(judge(board)) == ["upstream: subscribed, but still catching up"]
    board.upstream.state, board.upstream.last_error = UpstreamState.WAITING, "connection reset"
    document = judge(board)
    assert messages(document) == ["upstream: no subscription: connection reset"]
    assert document["upstream"]["why_not_in_sync"] == "no subscription"
    board.upstream.state = UpstreamState.AUTH_FAILED
    document = judge(board)
    assert messages(document) == ["upstream: the credentials are refused: connection reset"]
    assert "upstream.secret" in document["problems"][0]["advice"]


def test_the_process_and_its_store():
    board = fine_board()
    board.stopping, board.store_failure = True, "disk full"
    board.gate.reason = "only 1 MB is free"
    assert messages(judge(board)) == [
        "relay: it is stopping",
        "store: disk full",
        "store: nothing is accepted: only 1 MB is free",
    ]


def test_a_target_that_fails_with_something_waiting():
    failing = {"last_error": "status 500"}
    assert messages(judge(backlog=waiting(5, **failing))) == [
        "target shop: the last attempt failed: status 500; 3 waiting"
    ]
    assert messages(judge(backlog=waiting(0, 0, **failing))) == []


def test_a_target_that_is_slow_or_stalled():
    assert messages(judge(backlog=waiting(900))) == []
    assert messages(judge(backlog=waiting(960))) == ["target shop: lagging, 3 waiting, the oldest for 16 min"]
    stalled = Backlog(1, NOW_MS - 61_000, NOW_MS - 61_000, Standing())
    assert messages(judge(backlog=stalled)) == ["target shop: nothing is sent although it could be, 1 waiting"]


def test_a_parked_target_says_since_when_why_and_what_to_do():
    document = judge(backlog=waiting(5, parked_ms=NOW_MS - HOUR, last_error="status 410"))
    assert messages(document) == [
        "target shop: parked since 2026-11-22T05:46:40.000Z because its receiver said so (status 410), 3 waiting"
    ]
    assert "targets resume shop" in document["problems"][0]["advice"]
    assert document["targets"][0]["state"] == "parked"
    assert messages(judge(backlog=waiting(0, 0, parked_ms=NOW_MS)))


def test_a_pause_is_wrong_only_while_something_waits():
    paused = {"paused_ms": NOW_MS - HOUR}
    told = "target shop: paused by a person since 2026-11-22T05:46:40.000Z, {} waiting"
    assert messages(judge(backlog=waiting(5, **paused))) == [told.format(3)]
    document = judge(backlog=waiting(0, 0, **paused))
    assert document["fine"]
    assert messages(document, "notes") == [told.format(0)]
    document = judge(backlog=waiting(5, paused_by_config=True))
    assert messages(document) == ["target shop: paused by the configuration, 3 waiting"]
    assert "paused: false" in document["problems"][0]["advice"]


def test_an_open_breaker_says_since_when_why_and_what_comes_next():
    is_open = {"breaker": Breaker.OPEN, "breaker_changed_ms": NOW_MS - HOUR, "probe_due_ms": NOW_MS + 60_000}
    document = judge(backlog=waiting(5, last_error="connect: refused", **is_open))
    assert messages(document) == [
        "target shop: breaker open since 2026-11-22T05:46:40.000Z: connect: refused; 3 waiting"
    ]
    assert "next: 2026-11-22T06:47:40.000Z" in document["problems"][0]["advice"]
    assert "houdini-relay targets test shop" in document["problems"][0]["advice"]
    assert document["targets"][0]["breaker"] == "open"
    board = fine_board()
    board.targets["shop"] = TargetBoard(probing=True, in_flight=1)
    assert judge(board, waiting(5, **is_open))["targets"][0]["breaker"] == "half_open"


def test_a_throttled_target_is_worth_knowing():
    document = judge(backlog=waiting(5, throttled_until_ms=NOW_MS + 60_000))
    assert document["fine"]
    assert messages(document, "notes") == ["target shop: throttled until 2026-11-22T06:47:40.000Z, 3 waiting"]
    assert messages(judge(backlog=waiting(5, throttled_until_ms=NOW_MS - 1)), "notes") == []


def test_an_orphan_is_listed_with_what_it_holds():
    document = judge(gone=waiting(5, configured=False))
    assert document["fine"]
    assert messages(document, "notes") == ["target gone: not configured any more (orphaned), 3 waiting"]
    assert "targets forget gone" in document["notes"][0]["advice"]
    assert [(one["name"], one["state"], one["url"]) for one in document["targets"]][1] == ("gone", "orphaned", None)


def test_a_death_is_wrong_for_an_hour_and_then_worth_knowing():
    sentence = "target shop: 1 delivery ended dead and was not sent again since"
    assert messages(judge(dead=1, dead_ms=NOW_MS - HOUR + 1)) == [sentence]
    document = judge(dead=1, dead_ms=NOW_MS - HOUR)
    assert document["fine"]
    assert messages(document, "notes") == [sentence]
    assert "houdini-relay replay --target shop" in document["notes"][0]["advice"]


def test_more_dead_than_are_counted_is_said():
    assert "at least 1000 deliveries" in messages(judge(dead=1000), "notes")[0]


def test_what_is_worth_knowing_does_not_make_it_wrong():
    board = fine_board()
    board.upstream.questions_open, board.upstream.unconfirmed = 2, 1
    document = judge(board, dead=4)
    assert document["fine"] is True
    assert messages(document, "notes") == [
        "upstream: 2 frames not believed until REST has been asked",
        "upstream: 1 frame went backward and REST could not confirm it",
        "target shop: 4 deliveries ended dead and were not sent again since",
    ]


def test_gaps_open_past_and_longer_than_the_window():
    gaps = [
        Gap(3, NOW_MS - 34_000, None, "connection reset", None, None),
        Gap(2, NOW_MS - 60 * HOUR, NOW_MS - 11 * HOUR, "refused", NOW_MS - 10 * HOUR, "the first sweep"),
        Gap(1, NOW_MS - 61 * HOUR, NOW_MS - 60 * HOUR, "stopped", None, None),
    ]
    document = judge(gaps=gaps)
    assert [(gap["open"], gap["seconds"], gap["exceeds_window"]) for gap in document["gaps"]] == [
        (True, 34.0, False),
        (False, 49 * 3600.0, True),
        (False, 3600.0, False),
    ]
    assert document["gaps"][1]["swept_at"] == "2026-11-21T20:46:40.000Z"
    assert len(messages(document, "notes")) == 1
    assert "longer than what REST remembers" in messages(document, "notes")[0]
    assert document["fine"] is True


def test_rest_that_fails_for_long_is_wrong_although_the_socket_lives():
    board = fine_board()
    board.upstream.sweeps_stuck("REST: status 401", 1000.0 - 301)
    assert messages(judge(board)) == ["upstream: REST has not answered for 5 min: REST: status 401"]
    board.upstream.sweeps_get_on()
    board.upstream.sweeps_stuck("REST: status 503", 1000.0 - 10)
    assert judge(board)["fine"]
    board.upstream.sweeps_stuck("REST: status 502", 1000.0)
    assert board.upstream.sweep_problem_since == 1000.0 - 10
    board.upstream.in_sync = False
    assert judge(board)["upstream"]["why_not_in_sync"].endswith("is not done: REST: status 502")


def shared_board(leader: str | None, epoch: int | None = None) -> Board:
    board = fine_board()
    board.lead.shared, board.lead.instance, board.lead.leader, board.lead.epoch = True, "me", leader, epoch
    if epoch is None:
        board.upstream.state, board.upstream.in_sync = UpstreamState.FOLLOWING, False
    return board


def test_a_follower_is_fine_while_somebody_leads_and_says_who():
    document = judge(shared_board("host-b"), instances=TWO)
    assert document["fine"]
    assert document["upstream"]["why_not_in_sync"] == "another instance holds the connection"
    assert [(one["host"], one["this"], one["leads"], one["epoch"]) for one in document["instances"]] == [
        ("host-a", True, False, None),
        ("host-b", False, True, 7),
    ]
    assert document["instances"][1]["in_flight"] == {"shop": 3}


def test_a_follower_of_nobody_is_not_fine():
    (problem,) = judge(shared_board(None))["problems"]
    assert problem["subject"] == "upstream"
    assert problem["message"] == "no instance holds the connection"


def test_a_leader_is_judged_by_its_connection():
    board = shared_board("host-a", epoch=7)
    board.upstream.state = UpstreamState.CONNECTING
    assert [one["message"] for one in judge(board)["problems"]] == ["no subscription"]
