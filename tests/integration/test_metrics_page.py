"""What `/metrics` answers is what Prometheus takes, and tells what the alert rules ask."""

import subprocess
from pathlib import Path

import pytest
from admin_kit import AdminRoom, served
from support.clock import JumpClock
from support.engine import Steps, target
from support.factories import event
from support.needs import require_tool

from relay.board import Reload, UpstreamState
from relay.delivery.notices import Notices
from relay.metrics import PREFIX
from relay.standing import Permit
from relay.store.disk import DiskWatch


async def shown(room: AdminRoom) -> dict[str, float]:
    _, text, _ = await room.ask("GET", "/metrics")
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix(PREFIX + "_"): float(value) for name, value in lines}


async def test_promtool_accepts_it(tmp_path: Path):
    require_tool("promtool")
    async with served(tmp_path) as room:
        await room.bench.add(event("o1"), now_ms=room.clock.wall_ms())
        metrics = room.metrics
        metrics.deliveries.labels("alpha", "delivered").inc()
        metrics.deliveries_dead.labels("alpha", "expired").inc()
        metrics.attempts.labels("alpha", "ok").inc()
        metrics.attempt_duration.labels("alpha").observe(0.1)
        metrics.delivery_latency.labels("alpha").observe(0.2)
        _, text, _ = await room.ask("GET", "/metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_process_is_shown(tmp_path: Path):
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux tells this about processes")
    async with served(tmp_path) as room:
        found = await shown(room)
    assert found["process_start_time_seconds"] > 0
    assert 0 < found["process_open_fds"] < found["process_max_fds"]


async def test_ready_is_what_readyz_says(tmp_path: Path):
    async with served(tmp_path) as room:
        assert (await shown(room))["ready"] == 1
        room.board.gate.shut("no room")
        assert (await shown(room))["ready"] == 0
        assert (await room.get("/readyz"))[0] == 503


async def test_a_store_that_fails_makes_it_unready_and_leaves_the_counters(tmp_path: Path):
    async with served(tmp_path) as room:
        room.metrics.gaps.inc()
        await room.store.close()
        found = await shown(room)
    assert (found["ready"], found["gaps_total"]) == (0, 1)
    assert not [name for name in found if name.startswith(("queue_", "target_", "breaker_"))]


async def test_refused_credentials_and_a_refused_file(tmp_path: Path):
    async with served(tmp_path) as room:
        before = await shown(room)
        room.board.upstream.state = UpstreamState.AUTH_FAILED
        room.board.config.result = Reload.REFUSED
        after = await shown(room)
        room.board.config.result = Reload.APPLIED
        assert (await shown(room))["config_last_reload_successful"] == 1
    names = ("upstream_auth_failed", "config_last_reload_successful")
    assert [before[name] for name in names] == [0, 1]
    assert [after[name] for name in names] == [1, 0]


async def test_parked_paused_and_orphaned_are_told_apart(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("o1"), now_ms=room.clock.wall_ms())
        await room.store.pause("alpha", 1)
        await room.bench.configure("alpha")
        found = await shown(room)
    assert (found['target_paused{target="alpha"}'], found['target_parked{target="alpha"}']) == (1, 0)
    assert (found['target_orphaned{target="alpha"}'], found['target_orphaned{target="beta"}']) == (0, 1)


async def test_a_stall_is_shown(tmp_path: Path):
    clock = JumpClock()
    async with served(tmp_path, clock=clock) as room:
        await room.bench.add(event("o1"), now_ms=clock.wall_ms())
        assert (await shown(room))['target_stalled{target="alpha"}'] == 0
        clock.move(61)
        assert (await shown(room))['target_stalled{target="alpha"}'] == 1
        await room.store.claim("alpha", lambda _standing: Permit(9), room.clock.wall_ms())
        assert (await shown(room))['target_stalled{target="alpha"}'] == 0


async def test_the_age_of_the_queue_is_that_of_orders(tmp_path: Path):
    clock = JumpClock()
    async with served(tmp_path, clock=clock) as room:
        await room.bench.add(event("relay:store", facts=None), now_ms=clock.wall_ms(), targets=["alpha"])
        clock.move(100)
        await room.bench.add(event("o1"), now_ms=clock.wall_ms(), targets=["alpha"])
        clock.move(5)
        found = await shown(room)
    assert found['queue_oldest_age_seconds{target="alpha"}'] == 5
    assert found['queue_oldest_age_seconds{target="beta"}'] == 0


async def test_deaths_are_counted_by_reason_and_only_of_orders(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target(retry={"schedule": ["1s"], "jitter": 0})) as room:
        disk = DiskWatch(tmp_path / "relay.db", room.board.gate, room.metrics.store_free, room.clock)
        Notices(room.context, room.board, disk, lambda _event: ())
        notice = event("relay:store", facts=None, type="relay.store.disk_low", webhook_id="evt_notice")
        await room.add(event("o1"), notice, event("o2"))
        room.client.script = lambda _delivery: 500
        await room.live(3)
        assert room.metric("deliveries_total", target="alpha", status="dead") == 3
        assert room.metric("deliveries_dead_total", target="alpha", reason="exhausted") == 2
