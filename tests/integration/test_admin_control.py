"""What a person may do to deliveries and targets over HTTP, and the sentences of what may not be done."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin_kit import AdminRoom, served, target
from msgspec.structs import replace
from support.factories import event
from support.stores import Bench, again, dead, delivered

from relay.admin import actions, middleware
from relay.errors import StoreError
from relay.model import Attempt, FailureKind, Outcome
from relay.standing import Breaker


def cancelled(room: AdminRoom, name: str = "alpha") -> float:
    return room.metrics.deliveries.labels(name, "cancelled")._value.get()  # as the exposition shows it


async def refused(room: AdminRoom, path: str, body: Any = None) -> tuple[int, str, str]:
    status, document = await room.post(path, body)
    assert set(document) == {"error"}, document
    return status, document["error"]["code"], document["error"]["message"]


async def claim(room: AdminRoom, name: str = "alpha") -> Any:
    return await room.bench.claim(name, now_ms=room.clock.wall_ms() + 1)


async def test_retry_of_a_waiting_delivery(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        (head,) = await claim(room)
        await room.bench.settle(again(head, due_ms=room.clock.wall_ms() + 3_600_000))
        assert await claim(room) == []
        assert await room.post(f"/api/v1/deliveries/{head.id}/retry") == (200, {"delivery": head.id, "retried": True})
        (once_more,) = await claim(room)
        assert (once_more.id, once_more.manual) == (head.id, True)
        path = f"/api/v1/deliveries/{head.id}/retry"
        assert (await refused(room, path))[:2] == (409, "in_flight")
        assert (await refused(room, f"/api/v1/deliveries/{head.id}/cancel"))[:2] == (409, "in_flight")


async def test_retry_of_a_finished_delivery_is_one_replay(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        (head,) = await claim(room)
        await room.bench.settle(dead(head))
        path = f"/api/v1/deliveries/{head.id}/retry"
        status, document = await room.post(path)
        assert (status, document) == (200, {"delivery": head.id, "replayed": head.id + 1})
        assert room.control.woken == ["alpha"]
        status, code, message = await refused(room, path)
        assert (status, code, f"delivery {head.id + 1}" in message) == (409, "under_way", True)
        (replay,) = await claim(room)
        assert (replay.event.webhook_id, replay.manual) == ("evt_order-1_1", True)
        await room.bench.settle(delivered(replay))
        assert (await room.post(path))[1]["replayed"] == head.id + 2


async def test_a_blocked_delivery_names_the_one_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "PAGE", 2)
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 8, targets=["alpha"])
        await room.bench.settle(delivered((await claim(room))[0]))
        status, code, message = await refused(room, "/api/v1/deliveries/8/retry")
        assert (status, code, "delivery 2;" in message) == (409, "blocked", True)
        await claim(room)
        assert "delivery 2;" in (await refused(room, "/api/v1/deliveries/8/retry"))[2]


async def test_a_stopped_target_is_to_be_resumed_first(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        await room.post("/api/v1/targets/alpha/pause")
        status, code, message = await refused(room, "/api/v1/deliveries/1/retry")
        assert (status, code, "resume it first" in message) == (409, "target_stopped", True)


async def test_cancel_ends_promotes_and_counts(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 2, targets=["alpha"])
        assert await room.post("/api/v1/deliveries/1/cancel") == (200, {"delivery": 1, "cancelled": True})
        assert cancelled(room) == 1
        assert [one.id for one in await claim(room)] == [2]
        assert (await refused(room, "/api/v1/deliveries/1/cancel"))[:2] == (409, "finished")
        assert cancelled(room) == 1


@pytest.mark.parametrize("what", ["retry", "cancel"])
@pytest.mark.parametrize("key", ["99", "x", "0", "1%20", "-1", "9" * 40])
async def test_unknown_deliveries(tmp_path: Path, what: str, key: str):
    async with served(tmp_path) as room:
        assert (await refused(room, f"/api/v1/deliveries/{key}/{what}"))[:2] == (404, "unknown_delivery")


async def many(room: AdminRoom, count: int = 7) -> None:
    """Events of alpha an hour old, the odd ones dead, the even ones delivered."""
    at_ms = room.clock.wall_ms() - 3_600_000
    for number in range(count):
        await room.bench.add(event(f"order-{number}", 4, at_ms=at_ms), targets=["alpha"], now_ms=at_ms)
    ends = [dead(one) if int(one.event.lane[6:]) % 2 else delivered(one) for one in await claim(room)]
    await room.bench.settle(*ends)


async def test_replay_goes_in_pages_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "PAGE", 2)
    async with served(tmp_path) as room:
        await many(room)
        question = {"target": "alpha"}
        assert await room.post("/api/v1/replay", question | {"dry_run": True}) == (200, {"count": 3})
        assert (await room.store.backlog())["alpha"].pending == 0
        assert await room.post("/api/v1/replay", question) == (200, {"count": 3})
        assert [one.event.lane for one in await claim(room)] == ["order-1", "order-3", "order-5"]
        assert await room.post("/api/v1/replay", question) == (200, {"count": 0})
        assert await room.post("/api/v1/replay", question | {"status": "any"}) == (200, {"count": 4})


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ({"status": "delivered"}, 4),
        ({"status": "any"}, 7),
        ({"status": "superseded"}, 0),
        ({"order": "order-3"}, 1),
        ({"order": "order-2"}, 0),
        ({"since": "30m"}, 0),
        ({"since": "2h"}, 3),
        ({"until": "30m"}, 3),
        ({"until": "2h"}, 0),
    ],
)
async def test_replay_by_filter(tmp_path: Path, question: dict[str, Any], count: int):
    async with served(tmp_path) as room:
        await many(room)
        assert await room.post("/api/v1/replay", {"target": "alpha", **question}) == (200, {"count": count})


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, (400, "bad_body")),
        ({"target": "alpha", "status": "pending"}, (400, "bad_body")),
        ({"target": "alpha", "since": "1h", "until": "2h"}, (400, "bad_since")),
        ({"target": "alpha", "since": "now"}, (400, "bad_since")),
        ({"target": "alpha", "frm": "1h"}, (400, "bad_body")),
        ({"target": "nobody"}, (404, "unknown_target")),
    ],
)
async def test_replays_that_make_no_sense(tmp_path: Path, question: dict[str, Any], expected: tuple[int, str]):
    async with served(tmp_path) as room:
        assert (await refused(room, "/api/v1/replay", question))[:2] == expected


async def test_one_replay_at_a_time_and_one_that_failed_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(tmp_path) as room:
        await many(room)
        begun, go_on = asyncio.Event(), asyncio.Event()
        replay = room.store.replay

        async def slow(*arguments: Any) -> int:
            begun.set()
            await go_on.wait()
            raise StoreError("the disk is gone")

        monkeypatch.setattr(room.store, "replay", slow)
        first = asyncio.create_task(room.post("/api/v1/replay", {"target": "alpha"}))
        await begun.wait()
        assert (await refused(room, "/api/v1/replay", {"target": "alpha"}))[:2] == (409, "replay_under_way")
        assert (await room.post("/api/v1/replay", {"target": "alpha", "dry_run": True}))[0] == 200
        go_on.set()
        assert (await first)[0] == 503
        monkeypatch.setattr(room.store, "replay", replay)
        assert await room.post("/api/v1/replay", {"target": "alpha"}) == (200, {"count": 3})


async def test_replay_of_what_a_wrong_clock_wrote(tmp_path: Path):
    async with served(tmp_path) as room:
        tomorrow_ms = room.clock.wall_ms() + 24 * 3_600_000
        await room.bench.add(event("order-1", 4, at_ms=tomorrow_ms), targets=["alpha"])
        await room.bench.settle(*map(dead, await claim(room)))
        assert await room.post("/api/v1/replay", {"target": "alpha"}) == (200, {"count": 1})


async def test_replay_does_not_run_after_what_comes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "PAGE", 2)
    async with served(tmp_path) as room:
        await many(room)
        look, looks = room.store.replayable, 0

        async def look_while_more_come(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            assert looks < 10
            for number in range(2):
                await room.bench.add(event(f"later-{looks}-{number}", 4), targets=["alpha"])
            ended = [dead(one) for one in await claim(room) if one.event.lane.startswith("later")]
            await room.bench.settle(*ended)
            return await look(*arguments)

        monkeypatch.setattr(room.store, "replayable", look_while_more_come)
        status, document = await room.post("/api/v1/replay", {"target": "alpha"})
        assert status == 200
        assert 3 <= document["count"] < 8


async def test_what_may_take_long_is_given_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(middleware, "REQUEST_DEADLINE", 0.1)

    async def slow(_target: str) -> Any:
        await asyncio.sleep(0.3)
        return room.control.answer

    async with served(tmp_path) as room:
        monkeypatch.setattr(room.control, "test", slow)
        monkeypatch.setattr(room.control, "pause", slow)
        assert (await room.post("/api/v1/targets/alpha/test"))[0] == 200
        assert (await refused(room, "/api/v1/targets/alpha/pause"))[:2] == (504, "timeout")


async def test_pause_and_resume(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        assert await room.post("/api/v1/targets/alpha/pause") == (200, {"target": "alpha", "paused": True})
        assert await room.post("/api/v1/targets/alpha/pause") == (200, {"target": "alpha", "paused": False})
        assert await claim(room) == []
        resume = "/api/v1/targets/alpha/resume"
        assert await room.post(resume) == (200, {"target": "alpha", "resumed": True, "was": "paused"})
        assert await room.post(resume) == (200, {"target": "alpha", "resumed": False, "was": None})
        assert len(await claim(room)) == 1


async def test_resume_probes_an_open_breaker(tmp_path: Path):
    async with served(tmp_path) as room:
        await open_breaker(room)
        answer = await room.post("/api/v1/targets/alpha/resume")
        assert answer == (200, {"target": "alpha", "resumed": True, "was": "breaker_open"})
        probe_due_ms = (await room.store.backlog())["alpha"].standing.probe_due_ms
        assert probe_due_ms is not None
        assert probe_due_ms <= room.clock.wall_ms()


async def open_breaker(room: AdminRoom) -> None:
    await room.bench.add(event("order-1", 4), targets=["alpha"])
    (head,) = await claim(room)
    opened: dict[str, Any] = {"breaker": Breaker.OPEN, "probe_due_ms": room.clock.wall_ms() + 3_600_000}
    await room.bench.settle(again(head, 1), judge=lambda standing, _: replace(standing, **opened))


async def test_what_the_configuration_pauses_only_it_resumes(tmp_path: Path):
    async with served(tmp_path) as room:
        room.targets[0] = target("alpha", paused=True)
        status, code, message = await refused(room, "/api/v1/targets/alpha/resume")
        assert (status, code, "paused: true" in message) == (409, "paused_by_configuration", True)


async def test_the_test_shows_its_attempt(tmp_path: Path):
    async with served(tmp_path) as room:
        room.control.answer = Attempt(
            at_ms=1_000,
            duration_ms=3.5,
            outcome=Outcome.RETRY,
            kind=FailureKind.DNS,
            error="dns: no such name",
            response_body=b"\x1b[2J",
        )
        status, document = await room.post("/api/v1/targets/alpha/test")
        assert (status, document["target"]) == (200, "alpha")
        attempt = document["attempt"]
        assert (attempt["outcome"], attempt["kind"], attempt["error"]) == ("retry", "dns", "dns: no such name")
        assert (attempt["response_body"], attempt["manual"]) == ("\\x1b[2J", True)


async def test_an_orphan_can_only_be_looked_at_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actions, "PAGE", 2)
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 3, targets=["alpha"])
        await room.bench.add_life("order-2", 2, targets=["alpha"])
        assert (await refused(room, "/api/v1/targets/alpha/forget"))[:2] == (409, "configured")
        await leave(room.bench, room)
        for what in ("pause", "resume", "test"):
            assert (await refused(room, f"/api/v1/targets/alpha/{what}"))[:2] == (409, "orphaned")
        assert (await refused(room, "/api/v1/replay", {"target": "alpha"}))[:2] == (409, "orphaned")
        assert (await refused(room, "/api/v1/deliveries/1/retry"))[:2] == (409, "target_stopped")
        assert await room.post("/api/v1/targets/alpha/forget") == (200, {"target": "alpha", "cancelled": 5})
        assert cancelled(room) == 5
        assert (await refused(room, "/api/v1/targets/alpha/forget"))[:2] == (404, "unknown_target")
        assert (await refused(room, "/api/v1/deliveries/1/retry"))[0] in (404, 409)


async def leave(bench: Bench, room: AdminRoom) -> None:
    room.targets = room.targets[1:]
    await bench.configure("beta")


@pytest.mark.parametrize("what", ["pause", "resume", "test", "forget"])
@pytest.mark.parametrize("name", ["nobody", "%1b%5b2J", "Alpha"])
async def test_unknown_targets(tmp_path: Path, what: str, name: str):
    async with served(tmp_path) as room:
        assert (await refused(room, f"/api/v1/targets/{name}/{what}"))[:2] == (404, "unknown_target")
        assert (await refused(room, f"/api/v1/targets/{name}/{what}", {"x": 1}))[:2] == (400, "bad_body")
