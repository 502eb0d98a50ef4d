"""What ends without an attempt: expiry needs age and tries, overflow is loud, retention goes in batches."""

from pathlib import Path

import pytest
from support.engine import RETENTION, Steps, target
from support.factories import event

from relay.delivery.janitor import BATCH
from relay.standing import Breaker

DAY = 86_400.0
HOUR = 3600.0
OFTEN = {"schedule": ["10s"] * 50}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_age_alone_ends_nothing(path: Path):
    """Failure mode 133: a clock that jumps a month ahead makes nothing dead."""
    async with Steps(path, target(concurrency=1, expire_after="1h")) as steps:
        steps.client.script = lambda _delivery: 500
        await steps.add(*(event(f"o{number}") for number in range(10)))
        await steps.round()
        steps.clock.move(30 * DAY)
        assert await steps.janitor.expiry_once() == 0
        assert (await steps.waiting()).pending == 10


async def test_old_and_tried_in_vain_is_dead(path: Path, capsys: pytest.CaptureFixture[str]):
    async with Steps(path, target(expire_after="1h", retry=OFTEN)) as steps:
        steps.client.script = lambda _delivery: 500
        await steps.add(event("o1", sequence=1), event("o1", sequence=2))
        await steps.live(80)
        assert await steps.janitor.expiry_once() == 0
        steps.clock.move(HOUR)
        assert await steps.janitor.expiry_once() == 1
        assert await steps.bench.statuses("o1") == ["expired", "pending"]
        assert steps.metric("deliveries_total", target="alpha", status="dead") == 1
        dead = (await steps.bench.store.dead_letters(100))["alpha"]
        assert (dead.count, dead.last_ms) == (1, steps.clock.wall_ms())
        steps.client.script = lambda _delivery: 200
        await steps.turn()
        assert await steps.bench.statuses("o1") == ["expired", "delivered"]
    assert "deliveries_expired" in capsys.readouterr().out


async def test_probes_in_vain_count_for_all_that_waits(path: Path):
    async with Steps(path, target(expire_after="1h", breaker={"failures": 2}, concurrency=2)) as steps:
        steps.client.script = lambda _delivery: 500
        await steps.add(*(event(f"o{number}") for number in range(BATCH + 100)))
        await steps.turn()
        assert (await steps.standing()).breaker is Breaker.OPEN
        await steps.live(2 * HOUR)
        assert await steps.janitor.expiry_once() == BATCH + 100
        assert (await steps.waiting()).pending == 0


@pytest.mark.parametrize("stop", ["pause", "park", "config"])
async def test_a_stopped_target_keeps_everything_and_its_age_starts_anew(path: Path, stop: str):
    patient = target(expire_after="1h", retry=OFTEN)
    async with Steps(path, patient) as steps:
        steps.client.script = lambda _delivery: 410 if stop == "park" and len(steps.client.sent) > 6 else 500
        await steps.add(event("o1"))
        await steps.live(80)
        if stop == "pause":
            await steps.bench.store.pause("alpha", steps.clock.wall_ms())
        if stop == "config":
            await steps.restart(target(paused=True, expire_after="1h", retry=OFTEN))
        steps.clock.move(30 * DAY)
        assert await steps.janitor.expiry_once() == 0
        steps.client.script = lambda _delivery: 200
        if stop == "config":
            await steps.restart(patient)
        else:
            await steps.bench.store.resume("alpha", steps.clock.wall_ms())
        assert await steps.janitor.expiry_once() == 0
        await steps.turn()
        assert await steps.bench.statuses("o1") == ["delivered"]


async def test_what_overflows_is_dead_oldest_first_counted_and_told_once(
    path: Path, capsys: pytest.CaptureFixture[str]
):
    async with Steps(path, target(max_pending=100, paused=True)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(BATCH + 600)))
        assert await steps.janitor.overflow_once() == BATCH + 500
        assert await steps.janitor.overflow_once() == 0
        assert (await steps.waiting()).pending == 100
        assert await steps.bench.statuses("o0") == ["overflow"]
        assert await steps.bench.statuses(f"o{BATCH + 599}") == ["pending"]
        assert steps.metric("deliveries_total", target="alpha", status="dead") == BATCH + 500
        steps.clock.move(61)
        await steps.janitor.overflow_once()
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "deliveries_overflowed" in line]
    assert len(told) == 2  # as it began, and a minute later what came together
    assert f"count={BATCH} " in told[0]
    assert "count=500 " in told[1]


async def test_after_an_overflow_what_is_left_arrives_in_order(path: Path):
    async with Steps(path, target(max_pending=5, paused=True)) as steps:
        await steps.add(*(event("o1", sequence=number) for number in range(1, 21)))
        await steps.janitor.overflow_once()
        await steps.restart(target(max_pending=5))
        await steps.turn()
        assert steps.client.ids == [f"evt_o1_{number}" for number in range(16, 21)]


async def test_retention_removes_what_ended_long_ago_and_nothing_else(path: Path):
    async with Steps(path, target()) as steps:
        steps.client.script = lambda one: 500 if one.event.lane == "stuck" else 200
        await steps.add(event("stuck"), *(event("o1", sequence=number) for number in range(1, 700)))
        await steps.live(60)
        assert await steps.janitor.retention_once() == 0
        steps.clock.move(RETENTION + 60)
        assert await steps.janitor.retention_once() >= 698
        assert await steps.janitor.retention_once() == 0
        assert await steps.bench.statuses("stuck") == ["pending"]
        assert await steps.bench.store.check() == []
        assert set(await steps.bench.store.known_orders(["stuck", "o1"])) == {"stuck", "o1"}


async def test_between_batches_others_have_their_turn(path: Path):
    async with Steps(path, target()) as steps:
        await steps.add(*(event("o1", sequence=number) for number in range(1, 1200)))
        await steps.turn()
        steps.clock.move(RETENTION + 60)
        steps.clock.slept.clear()
        await steps.janitor.retention_once()
        assert len(steps.clock.slept) >= 1199 // BATCH


async def test_other_settings_hold_from_the_next_batch_on(path: Path):
    """A reload: more room, then less; and a target that was left out is left alone."""
    async with Steps(path, target(max_pending=5)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(10)))
        steps.janitor.reconfigure([target(max_pending=8)], RETENTION)
        assert await steps.janitor.overflow_once() == 2
        steps.janitor.reconfigure([target("beta")], RETENTION)
        assert await steps.janitor.overflow_once() == 0
        steps.janitor.reconfigure([target(max_pending=3)], RETENTION)
        assert await steps.janitor.overflow_once() == 5
