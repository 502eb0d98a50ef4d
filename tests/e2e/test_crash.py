"""kill -9 under load: nothing that matters is lost, nothing goes backwards, ids stay what they were."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from stage import Stage


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_kills_at_random_moments_under_load(tmp_path: Path):
    """Failure modes 73 to 75 and 85."""
    chance = Random(20)
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        playing = asyncio.create_task(stage.player(orders=150, rate=40).run())
        for _ in range(10):
            await asyncio.sleep(chance.uniform(0.3, 2.0))
            await stage.kill_relay()
            await stage.relay.start()
        await stage.relay.until_ready()
        await playing
        await stage.until_all_delivered()
        verdict = stage.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        assert verdict.updates > 100
        assert await stage.relay.stop() == 0
    assert_sequences_never_step_back(stage)
    assert_one_id_per_change_and_one_change_per_id(stage)


def assert_sequences_never_step_back(stage: Stage) -> None:
    """Among all acknowledged arrivals, repeats after a crash aside: a repeat re-sends what was the newest."""
    seen: dict[str, list[int]] = {}
    firsts: set[str] = set()
    for arrival in stage.receiver.arrivals:
        if arrival.acknowledged and arrival.webhook_id not in firsts and arrival.houdini_id and arrival.sequence:
            firsts.add(arrival.webhook_id)
            seen.setdefault(arrival.houdini_id, []).append(arrival.sequence)
    assert seen
    for sequences in seen.values():
        assert sequences == sorted(set(sequences))


def assert_one_id_per_change_and_one_change_per_id(stage: Stage) -> None:
    bodies: dict[str, bytes] = {}
    for arrival in stage.receiver.arrivals:
        assert bodies.setdefault(arrival.webhook_id, arrival.body) == arrival.body
