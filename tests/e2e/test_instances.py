"""Three instances on one database: what befalls one of them is nobody's loss.

`make chaos` is the long form of this, with troubles at random.
"""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from instance_rounds import TARGETS, cast, play
from stage import Stage
from support.postgres import new_server
from support.until import until

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


async def health(port: int, path: str) -> tuple[int, str]:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            return answer.status, await answer.text()
    except aiohttp.ClientError:
        return 0, ""


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_without_its_database_it_waits_says_so_and_goes_on(tmp_path: Path):
    """At the start and later: alive, not ready, no connection to the upstream, and no exit."""
    server = new_server()
    database = await server.create_database()
    async with Stage(tmp_path) as stage:
        settings = stage.settings() | {"store": {"url": server.url(database)}}
        stage.config.write_text(json.dumps(settings))
        await asyncio.to_thread(server.stop, "fast")
        await stage.relay.start()

        async def says_so() -> bool:
            status, reasons = await health(stage.admin_port, "/readyz")
            return status == 503 and "it cannot be reached" in reasons

        await until(says_so, 30, pause=0.1)
        assert (await health(stage.admin_port, "/healthz"))[0] == 200
        assert (await health(stage.admin_port, "/api/v1/status"))[0] == 503
        await asyncio.to_thread(server.start)
        await stage.relay.until_ready()
        await stage.player(10, 50).run()
        await stage.until_all_delivered()

        await asyncio.to_thread(server.stop, "immediate")
        await until(says_so, 30, pause=0.1)
        await until(lambda: stage.world.epochs[max(stage.world.epochs)].ended is not None, 30, pause=0.1)
        assert (await health(stage.admin_port, "/healthz"))[0] == 200
        await stage.player(5, 50).run()  # while nobody listens
        await asyncio.to_thread(server.start)
        await stage.relay.until_ready()
        await stage.until_all_delivered()
        assert await stage.relay.stop() == 0
        verdict = stage.verdict()
        assert [*verdict.lost, *verdict.doubled, *verdict.out_of_order, *verdict.wrongly_signed] == []


@pytest.mark.slow
async def test_a_stop_while_the_database_is_away_is_a_stop(tmp_path: Path):
    server = new_server()
    database = await server.create_database()
    async with Stage(tmp_path) as stage:
        stage.config.write_text(json.dumps(stage.settings() | {"store": {"url": server.url(database)}}))
        await stage.start_relay()
        await asyncio.to_thread(server.stop, "immediate")
        assert await stage.relay.stop() == 0
        await stage.relay.start()

        async def answers() -> bool:
            return (await health(stage.admin_port, "/healthz"))[0] == 200

        await until(answers, 30, pause=0.1)
        assert await stage.relay.stop() == 0
