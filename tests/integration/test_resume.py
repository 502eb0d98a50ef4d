"""A person's resume that meets a probe under way is not undone by that probe's failure."""

import asyncio
from pathlib import Path

import pytest
from support.engine import Room, answer, target
from support.factories import event
from support.until import until

from relay.model import Attempt, Delivery
from relay.standing import Breaker, Resume


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_a_probe_that_began_before_a_resume_does_not_put_the_next_one_off(path: Path):
    settings = target(breaker={"failures": 2, "probe": {"initial": "1h", "max": "1h"}}, retry={"schedule": ["1h"]})
    async with Room(path, settings) as room:
        room.client.script = lambda _delivery: 500
        await room.add(event("o1"), event("o2"))

        async def opened() -> bool:
            return (await room.standing()).breaker is Breaker.OPEN

        await until(opened)
        on_its_way, hangs = asyncio.Event(), asyncio.Event()

        async def slow(_delivery: Delivery) -> Attempt:
            on_its_way.set()
            await hangs.wait()
            return answer(500)

        room.client.script = slow
        assert await room.scheduler.resume("alpha") is Resume.BREAKER_OPEN
        await on_its_way.wait()  # the probe hangs
        room.client.script = lambda _delivery: 200  # mended
        assert await room.scheduler.resume("alpha") is Resume.BREAKER_OPEN  # "it is probed now"
        hangs.set()
        async with asyncio.timeout(5):
            await room.until_empty()
