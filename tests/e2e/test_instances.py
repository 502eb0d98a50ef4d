"""Three instances on one database: what befalls one of them is nobody's loss.

`make chaos` is the long form of this, with troubles at random.
"""

from pathlib import Path

import pytest
from instance_rounds import TARGETS, cast, play
from stage import Stage
from support.postgres import new_server

TROUBLES = ("cut_leader", "freeze_leader", "kill_follower", "stop_database", "kill_leader")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_three_instances_through_every_trouble(tmp_path: Path):
    """Failure modes of several instances: crashes, sleeps past a lease, cut connections, outages, wrong clocks."""
    async with Stage(tmp_path) as stage, cast(stage, new_server()) as instances:
        record = await play(instances, TROUBLES, rate=40)
    assert record.faults == []
    assert len(record.takeovers) == 1
    assert record.epochs >= 3
    assert record.verdict.updates > 300
    assert record.verdict.deliveries > record.verdict.updates * (len(TARGETS) - 1)
