"""Notices from the real process, over real sockets, each by its real cause."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from stage import SECRET, Stage
from support.until import until

from relay.clock import SystemClock
from relay.simulator.faults import Action
from relay.simulator.receiver import Arrival, Receiver

PATIENCE = 20.0
"""Seconds; a look comes every five."""


@pytest.fixture
async def ops() -> AsyncIterator[Receiver]:
    """Whoever looks after the relay."""
    receiver = Receiver([SECRET], clock=SystemClock(), rng=Random(1))
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def broken() -> AsyncIterator[Receiver]:
    """A customer's receiver in trouble."""
    receiver = Receiver([SECRET], clock=SystemClock(), rng=Random(1))
    receiver.misbehaviour.fail_rate = 1.0
    await receiver.start()
    yield receiver
    await receiver.stop()


def target(name: str, receiver: Receiver, **changes: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{receiver.port}/{name}"
    return {"name": name, "url": url, "secrets": [SECRET], **changes}


def told(receiver: Receiver, path: str = "ops") -> list[Arrival]:
    return [one for one in receiver.arrivals if one.target == path and one.acknowledged]


def types(receiver: Receiver, path: str = "ops") -> list[str]:
    return [(one.type or "").removeprefix("relay.") for one in told(receiver, path)]


def stage_of(folder: Path, ops: Receiver, broken: Receiver) -> Stage:
    targets = [
        target("ops", ops, events=["relay.*"]),
        target("chat", ops, events=["relay.*"], format="slack"),
        target("broken", broken, events=["*", "relay.*"], retry={"schedule": ["100ms"]}, breaker={"failures": 10_000}),
    ]
    return Stage(folder, more_targets=targets, upstream={"auth_retry": "1s"})


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_each_is_told_once_to_everybody_but_the_one_it_is_about(tmp_path: Path, ops: Receiver, broken: Receiver):
    async with stage_of(tmp_path, ops, broken) as stage:
        await stage.start_relay()
        player = stage.player(orders=3, rate=100)
        await player.run()
        await until(lambda: "delivery.dead" in types(ops), PATIENCE)
        dead = json.loads(told(ops)[-1].body)["data"]
        assert dead["target"] == "broken"
        assert set(dead["reasons"]) == {"exhausted"}

        broken.misbehaviour.status = 410
        await stage.player(orders=1, rate=100).run()
        await until(lambda: "target.parked" in types(ops), PATIENCE)

        stage.upstream.faults.refuse_status, stage.upstream.faults.refuse_count = 401, -1
        await stage.upstream.act(Action.DROP)
        await until(lambda: "upstream.auth_failed" in types(ops), PATIENCE)
        stage.upstream.faults.refuse_count = 0
        await until(lambda: "upstream.recovered" in types(ops), PATIENCE)

        good = stage.config.read_text()
        stage.config.write_text(good + "nonsense: true\n")
        stage.process.send_signal(signal.SIGHUP)
        await until(lambda: "config.refused" in types(ops), PATIENCE)
        assert "nonsense" in json.loads(told(ops)[-1].body)["data"]["problems"][0]
        stage.config.write_text(good)

        await until(lambda: len(told(ops, "chat")) == len(told(ops)), PATIENCE)
        before = [one.webhook_id for one in told(ops)]
        assert len(set(before)) == len(before)
        counts = Counter(types(ops))
        assert counts.pop("delivery.dead") <= 2  # one a minute
        assert counts == {"target.parked": 1, "upstream.auth_failed": 1, "upstream.recovered": 1, "config.refused": 1}
        about_others = {"upstream.auth_failed", "upstream.recovered", "config.refused"}
        about_itself = {one.type for one in broken.arrivals} & {"relay.delivery.dead", "relay.target.parked"}
        assert about_itself == set()
        for one in told(ops, "chat"):
            assert "What to do: " in json.loads(one.body)["text"]

        # Parked all the same after a restart, but that is known; what the others said goes out when it is resumed.
        assert await stage.relay.stop() == 0
        await stage.start_relay()
        broken.misbehaviour.fail_rate = 0.0
        await resume(stage, "broken")
        await until(lambda: set(types(broken, "broken")) >= about_others, PATIENCE)
        late = [kind for kind in types(broken, "broken") if kind in about_others]
        assert sorted(late) == sorted(about_others)
        assert late.index("upstream.auth_failed") < late.index("upstream.recovered")  # one lane
        assert [one.webhook_id for one in told(ops)] == before
        assert await stage.relay.stop() == 0
    assert SECRET.removeprefix("whsec_") not in b"".join(one.body for one in ops.arrivals).decode()


async def resume(stage: Stage, name: str) -> None:

    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.post(f"http://127.0.0.1:{stage.admin_port}/api/v1/targets/{name}/resume", json={}) as answer,
    ):
        assert answer.status == 200, await answer.text()
