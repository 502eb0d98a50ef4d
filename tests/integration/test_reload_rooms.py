"""The whole relay in this process, reloaded by a real SIGHUP; simulated upstream and receivers over real sockets."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import yaml
from structlog.testing import capture_logs
from support.until import until

from relay.clock import SystemClock
from relay.config import load
from relay.daemon import Daemon, Exit
from relay.simulator.child import free_port
from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.receiver import Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.world import World

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class Relay:
    """A daemon as a task; `settings` is what the next `reload` writes."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.world = World(self.clock, Random(1))
        self.upstream = SimulatedUpstream(self.world, partner_id="p", secret="s" * 8)
        self.receiver = Receiver([SECRET], clock=self.clock, rng=Random(1))
        self.path = folder / "config.yaml"
        self.port = free_port()

    async def __aenter__(self) -> "Relay":
        await self.upstream.start()
        await self.receiver.start()
        self.settings: dict[str, Any] = {
            "upstream": {
                "websocket_url": self.upstream.websocket_url,
                "rest_url": self.upstream.rest_url,
                "partner_id": "p",
                "secret": "s" * 8,
                "reconnect": {"initial": "100ms", "max": "1s"},
                "backfill": {"requests_per_minute": 6000},
            },
            "store": {"url": f"sqlite:///{self.path.with_name('relay.db')}"},
            "targets": [self.target("shop")],
            "admin": {"listen": f"127.0.0.1:{self.port}"},
        }
        self.write()
        read = partial(load, self.path, environ={})
        self.daemon = Daemon(await asyncio.to_thread(read), "test", load=read)
        self.board = self.daemon._board
        self.task = asyncio.create_task(self.daemon.run())
        await until(lambda: self.board.upstream.first_sweep_done, 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await self.task == Exit.FINE
        await self.receiver.stop()
        await self.upstream.stop()

    def target(self, name: str, **changes: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.receiver.port}/{name}"
        return {"name": name, "url": url, "secrets": [SECRET], "retry": {"schedule": ["1h"]}, **changes}

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.settings))

    async def reload(self) -> Any:
        """Write the settings, ask for a reload, and return the board's word on it."""
        before = self.board.config.reloaded_ms
        await asyncio.to_thread(self.write)
        await asyncio.sleep(0.002)  # reloads are told apart by the millisecond
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: self.board.config.reloaded_ms != before, 20)
        return self.board.config

    async def ask(self, path: str, token: str | None = None, host: str | None = None) -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= {"host": host} if host else {}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            return answer.status

    def metric(self, name: str, **labels: str) -> float:
        return self.daemon._metrics.registry.get_sample_value("houdini_relay_" + name, labels) or 0.0

    def arrivals(self, name: str = "shop") -> list[str | None]:
        return [one.houdini_id for one in self.receiver.arrivals if one.target == name and one.acknowledged]

    async def until_arrived(self, houdini_id: str, name: str = "shop") -> None:
        await until(lambda: houdini_id in self.arrivals(name), 20)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with Relay(tmp_path) as made:
        yield made


def new_order(relay: Relay) -> str:
    return relay.world.create(Kind.CEX, Stage(-1, None, 0)).houdini_id


async def test_admin_settings_change_in_place(relay: Relay):
    assert await relay.ask("/api/v1/status") == 200
    relay.settings["admin"] |= {"token": "t" * 20, "allowed_hosts": ["relay.example.com"]}
    assert (await relay.reload()).result == "applied"
    assert await relay.ask("/api/v1/status") == 401
    assert await relay.ask("/api/v1/status", token="t" * 20, host="relay.example.com") == 200
    assert await relay.ask("/api/v1/status", token="t" * 20, host="other.example.com") == 403


async def test_a_refusal_is_a_problem_of_status_until_a_good_reload(relay: Relay):
    relay.settings["store"] |= {"url": "sqlite:///elsewhere.db"}
    config = await relay.reload()
    assert config.result == "refused"
    url = f"http://127.0.0.1:{relay.port}/api/v1/status"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            problems = (await answer.json())["problems"]
        (problem,) = [one for one in problems if one["subject"] == "configuration"]
        assert "store.url: this changes with a restart only" in problem["message"]
        relay.settings["store"] |= {"url": f"sqlite:///{relay.path.with_name('relay.db')}"}
        assert (await relay.reload()).result == "unchanged"
        async with session.get(url) as answer:
            assert "configuration" not in [one["subject"] for one in (await answer.json())["problems"]]


async def test_a_rotated_secret_file_is_picked_up(relay: Relay, tmp_path: Path):
    """Same path, other content: the file of the configuration is as it was."""
    file = tmp_path / "secret"
    file.write_text(NEXT)
    relay.settings["targets"] = [relay.target("shop", secrets=[{"file": str(file)}])]
    await relay.reload()
    refused = new_order(relay)
    await until(lambda: relay.receiver.arrivals)
    assert refused not in relay.arrivals()  # signed with what the receiver does not know
    file.write_text(SECRET)
    with capture_logs() as logs:
        assert (await relay.reload()).result == "applied"
    assert [line["changed"] for line in logs if line["event"] == "config_reloaded"] == [["targets.shop.secrets"]]
    await relay.until_arrived(refused)


async def test_a_corrected_url_is_tried_at_once(relay: Relay):
    """The schedule would have tried again in an hour."""
    relay.settings["targets"] = [relay.target("shop", url="http://127.0.0.1:9/shop")]
    await relay.reload()
    order = new_order(relay)
    await until(lambda: relay.metric("attempts_total", target="shop", outcome="retry") == 1, 20)
    relay.settings["targets"] = [relay.target("shop")]
    await relay.reload()
    await relay.until_arrived(order)


async def test_other_orders_are_followed_on_the_same_socket(relay: Relay):
    await relay.until_arrived(first := new_order(relay))
    second = new_order(relay)
    relay.settings["upstream"]["orders"] = [first, second]
    assert (await relay.reload()).result == "applied"
    await until(lambda: relay.board.upstream.in_sync or relay.board.upstream.first_sweep_done)
    relay.settings["upstream"]["orders"] = "all"
    await relay.reload()
    await relay.until_arrived(new_order(relay))
    assert relay.board.upstream.epoch == 1
    assert len(relay.world.epochs) == 1


async def test_other_settings_of_the_upstream_begin_another_connection(relay: Relay):
    relay.settings["upstream"]["heartbeat"] = {"interval": "20s"}
    await relay.reload()
    await until(lambda: relay.board.upstream.epoch == 2 and relay.board.upstream.first_sweep_done, 20)
    await relay.until_arrived(new_order(relay))
    assert await relay.ask("/readyz") == 200


async def test_it_stops_well_after_and_during_reloads(relay: Relay):
    for turn in range(20):
        relay.settings["targets"] = [relay.target("shop", timeout=f"{5 + turn}s"), relay.target(f"t{turn}")]
        await asyncio.to_thread(relay.write)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
