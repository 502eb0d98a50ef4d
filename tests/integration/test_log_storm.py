"""Failure mode 131: whatever fails, and however often, the log stays short enough to be read."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from admin_kit import served
from structlog.testing import capture_logs
from support.engine import Room, target
from support.factories import event
from support.until import until
from support.upstream_kit import Room as UpstreamRoom
from support.upstream_script import ScriptedUpstream, order

from relay.admin.auth import LOGIN_FAILURES
from relay.log import LINES_A_MINUTE
from relay.log_names import Log
from relay.model import Attempt, Delivery

FAILING = 49
ORDERS = 12


async def test_forty_nine_targets_that_fail_at_once_are_two_lines_each(tmp_path: Path):
    probes = {"failures": 10, "probe": {"initial": "100ms", "max": "100ms"}}
    often = {"schedule": ["100ms"] * 50, "jitter": 0}
    names = [f"target-{number}" for number in range(FAILING)]
    targets = [target(name, breaker=probes, retry=often, concurrency=10) for name in (*names, "well")]
    with capture_logs() as lines:
        async with Room(tmp_path / "relay.db", *targets) as room:
            for name in names:
                room.clients[name].script = lambda _delivery: 500
            await room.add(*(event(f"o{number}") for number in range(ORDERS)))

            def many() -> bool:
                return all(room.metric("attempts_total", target=name, outcome="retry") >= ORDERS + 3 for name in names)

            await until(many, 40)
            await until(lambda: room.metric("deliveries_total", target="well", status="delivered") == ORDERS)
    told = Counter((line["event"], line.get("target")) for line in lines if line["event"] != Log.TARGET_BACKLOG)
    assert told == {(name, one): 1 for name in (Log.TARGET_FAILING, Log.BREAKER_OPENED) for one in names}
    assert all(line["error"] == "status 500" for line in lines if line["event"] != Log.TARGET_BACKLOG)


async def test_a_defect_in_every_attempt_is_a_handful_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The outcome cannot even be settled: that is told of the first few only, then with how many were held back."""
    once = {"schedule": ["100ms"] * 50, "jitter": 0}
    defects = [0]

    async def broken(_delivery: Delivery) -> Attempt:
        defects[0] += 1
        await asyncio.sleep(0)
        raise ValueError("a defect")

    with capture_logs() as lines:
        async with Room(tmp_path / "relay.db", target(retry=once, concurrency=20)) as room:
            monkeypatch.setattr(room.client, "attempt", broken)
            await room.add(*(event(f"o{number}") for number in range(40)))
            await until(lambda: defects[0] > 20, 20)
    crashed = [line for line in lines if line["event"] == Log.ATTEMPT_CRASHED]
    assert [line["suppressed"] for line in crashed] == [0] * 5
    assert len(lines) <= 7


async def test_guessed_tokens_are_a_handful_of_lines(tmp_path: Path):
    assert LOGIN_FAILURES > LINES_A_MINUTE, "each guess is a line, whatever the sampler does"
    with capture_logs() as lines:
        async with served(tmp_path) as room:
            for _ in range(LOGIN_FAILURES):
                assert (await room.ask("GET", "/api/v1/status", token="guess"))[0] == 401
    assert [line["event"] for line in lines] == [Log.ADMIN_LOGIN_FAILED] * LINES_A_MINUTE


async def test_orders_that_every_sweep_fails_to_read_are_told_once_and_again_when_there_are_more():
    with capture_logs() as lines:
        async with ScriptedUpstream() as upstream:
            upstream.orders = [order(1), {**order(2), "status": "?"}]
            room = UpstreamRoom(upstream, interval=300.0)
            await room.first_sweep()
            while room.sweeps() < 3:
                await room.backfill.run_once()
            upstream.orders.append({**order(3), "status": "?"})
            while room.sweeps() < 4:
                await room.backfill.run_once()
            await room.api.close()
    assert [line["count"] for line in lines if line["event"] == Log.UNREADABLE_ORDERS] == [1, 2]
