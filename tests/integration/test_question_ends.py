"""How a question ends: real store, real ingest, scripted REST."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.clock import JumpClock
from support.factories import snapshot
from support.stores import up_to
from support.upstream_real import RealRoom
from support.upstream_script import Http, ScriptedUpstream, order


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


def frame(room: RealRoom, status: int, houdini_id: str = "order-1", **fields: Any) -> Any:
    return snapshot(houdini_id, status, seen_ms=room.clock.wall_ms(), asked_at=room.clock.mono(), **fields)


async def ready_room(room: RealRoom, *statuses: int) -> None:
    """The first sweep is over, and these frames of order-1 have come."""
    await room.first_sweep(None)
    await room.see(*(frame(room, status) for status in statuses))


async def test_a_sideways_frame_that_rest_cannot_confirm_becomes_an_event(upstream: ScriptedUpstream, tmp_path: Path):
    """67: two definitive answers, the second 120 s after it came; not before, and under its own time."""
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await ready_room(room, 4, 6)
        came, (question,) = room.clock.wall_ms(), await room.questions()
        assert question.sideways
        await room.pass_time(110)
        assert [status for _, status, _ in await room.events()] == [4]
        assert len([path for path in upstream.rest_requests if path.endswith("order-1")]) >= 1
        await room.pass_time(20)
        assert await room.events() == [("order-1", 4, "websocket"), ("order-1", 6, "websocket")]
        assert await room.questions() == []
        (known,) = (await room.store.known_orders(["order-1"])).values()
        assert known.status == 6
        stored = (await room.store.claim("alpha", up_to(10), 2**50)).deliveries
        assert [one.event.at_ms for one in stored] == [came]  # the head; the correction waits behind it
        assert room.board.unconfirmed == 0


async def test_a_backward_frame_that_rest_cannot_confirm_is_given_up_and_counted(
    upstream: ScriptedUpstream, tmp_path: Path
):
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await ready_room(room, 2, 1)
        await room.pass_time(130)
        assert [status for _, status, _ in await room.events()] == [2]
        assert await room.questions() == []
        assert room.board.unconfirmed == 1
        assert room.metrics.registry.get_sample_value("houdini_relay_unconfirmed_total") == 1


async def test_no_failure_of_rest_ends_a_question(upstream: ScriptedUpstream, tmp_path: Path):
    """67: connection errors, 500, an HTML 404 and a 404 about nothing are no answer."""
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await ready_room(room, 4, 6)
        html = Http(404, {"Content-Type": "text/html"}, b"<html>no</html>")
        upstream.rest_script = [Http(500), html, Http(404), Http(502), Http(200)] * 20
        await room.pass_time(900)
        assert [status for _, status, _ in await room.events()] == [4]
        assert len(await room.questions()) == 1


async def test_a_crash_at_any_moment_forgets_no_question(upstream: ScriptedUpstream, tmp_path: Path):
    """The stored row is the only memory: killed after the frame, and again between confirmation and commit."""
    clock, path = JumpClock(), tmp_path / "relay.db"
    async with RealRoom(upstream, path, clock) as room:
        await ready_room(room, 4, 6)
    async with RealRoom(upstream, path, clock) as room:
        await room.first_sweep(None)
        room._pump.cancel()
        clock.move(121)
        while not len(room.intake):
            await room.backfill.run_once()
        assert len(await room.questions()) == 1
    async with RealRoom(upstream, path, clock) as room:
        await room.first_sweep(None)
        await room.pass_time(70)
        assert [status for _, status, _ in await room.events()] == [4, 6]
        assert await room.questions() == []


async def test_a_quiet_read_answers_and_corrects(upstream: ScriptedUpstream, tmp_path: Path):
    upstream.orders = [order(1, 6)]
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(frame(room, 4))
        await ready_room(room, 6)
        await room.pass_time(70)
        assert await room.events() == [("order-1", 4, "websocket"), ("order-1", 6, "backfill")]
        assert await room.questions() == []


async def test_a_forward_frame_ends_it_and_the_late_confirmation_changes_nothing(
    upstream: ScriptedUpstream, tmp_path: Path
):
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await ready_room(room, 4, 6)
        stale = frame(room, 6)
        await room.see(frame(room, 8))
        assert await room.questions() == []
        room.intake.confirm(stale)
        await room.intake.join()
        assert [status for _, status, _ in await room.events()] == [4, 8]


@pytest.mark.parametrize("step", [-36_000.0, -90.0, 36_000.0])
async def test_a_wall_clock_that_steps_postpones_no_question(upstream: ScriptedUpstream, tmp_path: Path, step: float):
    """132, 133: hours back would otherwise be hours of waiting; hours forward only ask early."""
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await ready_room(room, 4, 6)
        room.clock._start_ms += round(step * 1000)
        room.backfill.clock_jumped()
        await room.first_sweep(None)
        await room.pass_time(70)
        assert any(path.endswith("order-1") for path in upstream.rest_requests)
        await room.pass_time(150)
        assert [status for _, status, _ in await room.events()] == [4, 6]


async def test_many_hidden_questions_are_not_one_sweep_each(upstream: ScriptedUpstream, tmp_path: Path):
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.first_sweep(None)
        for number in range(30):
            await room.see(frame(room, 2, f"o{number}"), frame(room, 1, f"o{number}"))
        sweeps = room.sweeps()
        await room.pass_time(150)
        assert await room.questions() == []
        assert room.board.unconfirmed == 30
        assert room.sweeps() - sweeps <= 4  # the trailing one, and one for each minute of questions
