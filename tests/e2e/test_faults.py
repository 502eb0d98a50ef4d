"""Faults made by the real kernel, on the real process: a black hole, no descriptors left, a stepped clock, a stop.

They need root and some Debian packages (nftables, iproute2, faketime); `.ci/run` installs them.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from stage import SECRET, Stage
from support.needs import require_library, require_root, require_tool
from support.until import until

from relay.simulator.faults import Action
from relay.simulator.player import Player
from relay.simulator.verdict import History, judge

INTERVAL, TIMEOUT = 3.0, 1.5
STOPPED = 6.0
"""Seconds: longer than the heartbeat and than a target has to answer."""
HEARTBEAT = {"heartbeat": {"interval": f"{INTERVAL * 1000:.0f}ms", "timeout": f"{TIMEOUT * 1000:.0f}ms"}}
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
NEW_NETWORK = 0x40000000
HOUR_MS = 3_600_000


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network of this thread's own, with nothing but a loopback; children inherit it."""
    require_root()
    require_tool("nft")
    require_tool("ip")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(NEW_NETWORK) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            run("ip", "link", "set", "lo", "up")
            run("nft", "add table inet faults; add chain inet faults input { type filter hook input priority 0; }")
            yield
        finally:
            assert libc.setns(before.fileno(), NEW_NETWORK) == 0


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)


def black_hole(port: int) -> None:
    """Nothing to or from this port arrives any more, and nobody is told."""
    run("nft", f"add rule inet faults input tcp dport {port} drop; add rule inet faults input tcp sport {port} drop")


def events(stage: Stage) -> list[str]:
    return (stage.folder / "relay.log").read_text().splitlines()


def said(stage: Stage, event: str) -> bool:
    return any(f'"{event}"' in line for line in events(stage))


async def half_lived(stage: Stage, orders: int) -> Player:
    """Orders in mid-life, everything so far delivered."""
    player = stage.player(orders, rate=100)
    while len(stage.world.orders) < orders:
        player.run_once()
    await stage.until_all_delivered()
    return player


def assert_nothing_wrong_but_unseen_states(stage: Stage) -> None:
    """States that came and went while nobody could read them are gone; every other promise holds."""
    verdict = stage.verdict()
    assert [*verdict.doubled, *verdict.out_of_order, *verdict.altered, *verdict.wrongly_signed] == []
    assert stage.missing_ends() == []


@pytest.mark.slow
async def test_a_half_open_connection_is_noticed_within_the_heartbeat_and_costs_nothing(
    tmp_path: Path, own_network: None
):
    """Failure modes 13, 14 and 21: what is sent seems to arrive, nothing comes back."""
    async with Stage(tmp_path, upstream=HEARTBEAT) as stage:
        await stage.start_relay()
        player = await half_lived(stage, 20)
        black_hole(stage.upstream.port)
        began = stage.clock.mono()
        for _ in range(15):
            player.run_once()
        await until(lambda: said(stage, "upstream_epoch_ended"), INTERVAL + TIMEOUT + 2.0)
        assert stage.clock.mono() - began < INTERVAL + TIMEOUT + 2.0
        run("nft", "flush chain inet faults input")
        await until(lambda: not stage.missing_ends(), 40.0, pause=0.2)
        await player.run()
        await until(lambda: not stage.missing_ends(), 40.0, pause=0.2)
        assert len(stage.world.epochs) >= 2
        assert_nothing_wrong_but_unseen_states(stage)
        assert await stage.relay.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_descriptors_left_is_survived_without_a_flood_of_log_lines(tmp_path: Path):
    """Failure mode 117."""
    require_tool("bash")
    few = ("bash", "-c", 'ulimit -n 40; exec "$@"', "few")
    async with Stage(tmp_path, command=few) as stage:
        stage._changes["more_targets"] = [target_at(stage, f"shop-{number}") for number in range(1, 5)]
        stage.config.write_text(yaml.safe_dump(stage.settings()))
        await stage.start_relay()
        stage.receiver.misbehaviour.delay = 0.5
        await stage.player(orders=60, rate=100).run()
        stage.receiver.misbehaviour.delay = 0.0
        names = ["shop", *(f"shop-{number}" for number in range(1, 5))]

        def all_delivered() -> bool:
            return not judge(History.of(stage.world), stage.receiver.arrivals, names).lost

        await until(all_delivered, 60.0, pause=0.5)
        await stage.until_all_delivered()
        assert any("Too many open files" in line for line in events(stage))
        assert len(events(stage)) < len(stage.receiver.arrivals) / 4
        assert await stage.relay.stop() == 0


def target_at(stage: Stage, name: str) -> dict[str, object]:
    return {
        "name": name,
        "url": f"http://127.0.0.1:{stage.receiver.port}/{name}",
        "secrets": [SECRET],
        "timeout": "5s",
        "retry": {"schedule": ["200ms", "500ms", *["1s"] * 40]},
        "breaker": {"probe": {"initial": "200ms", "max": "1s"}},
    }


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_wall_clock_may_step_by_an_hour(tmp_path: Path, hours: int):
    """Failure modes 132 and 133: what waits is delivered all the same, and nothing is given up."""
    library = require_library(FAKETIME)
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    faked = (
        "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
    )  # fmt: skip
    async with Stage(tmp_path, command=faked) as stage:
        await stage.start_relay()
        stage.receiver.misbehaviour.fail_rate = 1.0
        player = stage.player(orders=10, rate=50)
        for _ in range(20):
            player.run_once()
        await until(lambda: len(stage.receiver.arrivals) >= 10)
        offset.write_text(f"{hours * 3600:+d}\n")
        stage.receiver_clock.steps_ms = hours * HOUR_MS
        stage.receiver.misbehaviour.fail_rate = 0.0
        await player.run()
        await stage.until_all_delivered(45.0)
        verdict = stage.verdict()
        assert [*verdict.doubled, *verdict.out_of_order, *verdict.altered] == []
        assert stage.missing_ends() == []
        # An attempt under way when the clocks step was signed by the old hour: refused, and tried again.
        refused = Counter(arrival.houdini_id for arrival in stage.receiver.arrivals if arrival.problem)
        assert max(refused.values(), default=0) <= 1
        assert not said(stage, "delivery_dead")
        assert await stage.relay.stop() == 0


@pytest.mark.slow
async def test_stopped_for_longer_than_every_deadline(tmp_path: Path):
    """Failure mode 134: the process stands still, as on a paused machine; the kernel kept what came meanwhile."""
    async with Stage(tmp_path, upstream=HEARTBEAT) as stage:
        await stage.start_relay()
        player = stage.player(orders=20, rate=50)
        playing = asyncio.create_task(player.run())
        await until(lambda: player.progress > 0.3)
        stage.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(STOPPED)
        stage.process.send_signal(signal.SIGCONT)
        await playing
        await stage.until_all_delivered()
        verdict = stage.verdict()
        assert verdict.ok, verdict.lines()
        assert await stage.relay.stop() == 0


@pytest.mark.slow
async def test_stopped_until_the_upstream_hung_up(tmp_path: Path):
    """Failure mode 134: a new epoch as soon as it goes on, and what happened meanwhile comes by a sweep."""
    async with Stage(tmp_path, upstream=HEARTBEAT) as stage:
        await stage.start_relay()
        player = await half_lived(stage, 20)
        stage.process.send_signal(signal.SIGSTOP)
        for _ in range(15):
            player.run_once()
        await asyncio.sleep(STOPPED)
        await stage.upstream.act(Action.DROP)
        stage.process.send_signal(signal.SIGCONT)
        await until(lambda: len(stage.world.epochs) == 2, 10.0)
        await player.run()
        await until(lambda: not stage.missing_ends(), 40.0, pause=0.2)
        assert_nothing_wrong_but_unseen_states(stage)
        assert await stage.relay.stop() == 0
