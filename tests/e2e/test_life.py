"""The process as an operator meets it: exit codes, drain, health, load."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from stage import SECRET, Stage
from support.until import until

from relay.simulator.faults import Action


async def get(stage: Stage, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.get(f"http://127.0.0.1:{stage.admin_port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_the_whole_way_with_an_outage_and_a_failing_receiver(tmp_path: Path):
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        player = stage.player(orders=30, rate=40)
        playing = asyncio.create_task(player.run())
        await until(lambda: player.progress > 0.3)
        stage.upstream.faults.refuse_count = 5
        await stage.upstream.act(Action.DROP)
        await until(lambda: player.progress > 0.6)
        stage.receiver.misbehaviour.fail_until = stage.clock.mono() + 2
        await playing
        await stage.until_all_delivered()
        verdict = stage.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        assert verdict.retries > 0
        status, text = await get(stage, "/metrics")
        assert status == 200
        assert 'houdini_relay_deliveries_total{status="delivered",target="shop"}' in text
        assert "houdini_relay_upstream_connected 1.0" in text
        assert "houdini_relay_gaps_total 1.0" in text
        assert await stage.relay.stop() == 0
    log = (tmp_path / "relay.log").read_text()
    assert "e2e-upstream-secret" not in log
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in log
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "stopped"


async def test_health_and_readiness_tell_the_upstream_apart(tmp_path: Path):
    """Failure mode 136: alive has nothing to do with the upstream."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        assert await get(stage, "/healthz") == (200, '{"ok": true, "reasons": []}')
        stage.upstream.faults.refuse_count = -1
        await stage.upstream.act(Action.DROP)

        async def unready() -> bool:
            return (await get(stage, "/readyz"))[0] == 503

        await until(unready)
        assert (await get(stage, "/healthz"))[0] == 200
        assert "upstream: not subscribed" in (await get(stage, "/readyz"))[1]
        stage.upstream.faults.refuse_count = 0
        await stage.relay.until_ready()


async def test_sigterm_lets_an_attempt_finish(tmp_path: Path):
    """Failure mode 115: exactly one POST, settled, exit code 0."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        stage.receiver.misbehaviour.delay = 2.0
        stage.player(orders=1, rate=10).run_once()
        await until(lambda: metric_in_flight(stage))
        assert await stage.relay.stop() == 0
        assert [arrival.acknowledged for arrival in stage.receiver.arrivals] == [True]
        stage.receiver.misbehaviour.delay = 0.0
        await stage.start_relay()
        await asyncio.sleep(1.0)
        assert len(stage.receiver.arrivals) == 1


async def metric_in_flight(stage: Stage) -> bool:
    _, text = await get(stage, "/metrics")
    return 'queue_depth{status="in_flight",target="shop"} 1.0' in text


async def test_a_second_signal_forces_the_end(tmp_path: Path):
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        stage.receiver.misbehaviour.delay = 4.5
        stage.player(orders=1, rate=10).run_once()
        await until(lambda: metric_in_flight(stage))
        process = stage.process
        process.send_signal(signal.SIGTERM)
        await until(lambda: "stopping" in (tmp_path / "relay.log").read_text())
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(3):
            assert await stage.relay.stop() == 128 + signal.SIGTERM


async def test_a_second_relay_on_the_same_store_exits_with_3(tmp_path: Path):
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        done = run_relay("run", "-c", str(stage.config))
        assert (done.returncode, "in use by another process" in done.stderr) == (3, True), done.stderr


def test_a_broken_configuration_exits_with_2_and_says_where(tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text("upstream: {}\ntargets: []\n")
    done = run_relay("run", "-c", str(config))
    assert done.returncode == 2
    assert f"{config}:1:" in done.stderr
    assert done.stdout == ""


def run_relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


async def test_wrong_credentials_are_loud_once_and_slow(tmp_path: Path):
    async with Stage(tmp_path) as stage:
        settings = stage.config.read_text().replace("e2e-upstream-secret", "wrong-upstream-secret")
        stage.config.write_text(settings)
        await stage.relay.start()

        async def refused() -> bool:
            try:
                return "auth_failed" in (await get(stage, "/readyz"))[1]
            except aiohttp.ClientError:
                return False

        await until(refused)
        await asyncio.sleep(1.0)
        assert stage.upstream.state()["upgrades"] == 1
        assert await stage.relay.stop() == 0
    assert "wrong-upstream-secret" not in (tmp_path / "relay.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_200_updates_per_second_lose_nothing_and_leak_nothing(tmp_path: Path):
    """A short form; `python -m bench.steady` runs the minute and reports the latencies."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        player = stage.player(orders=400, rate=200)
        playing = asyncio.create_task(player.run())
        idle = stage.process.num_fds()
        await playing
        await stage.until_all_delivered()
        verdict = stage.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        assert verdict.updates > 1_000
        # Under load there may be as many connections as slots; once those have idled out, none is left over.
        await until(lambda: stage.process.num_fds() <= idle + 2, 20)
        assert stage.process.num_threads() < 20


async def test_a_taken_admin_port_is_worth_another_try(tmp_path: Path):
    """Not exit code 2: systemd would never start it again for a port that was busy for a moment."""
    async with Stage(tmp_path) as stage:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", stage.admin_port)
        async with server:
            done = await asyncio.to_thread(run_relay, "run", "-c", str(stage.config))
        assert done.returncode == 1
        assert "change admin.listen" in done.stderr


HANGING_NAMES = """
import socket, sys, time
real = socket.getaddrinfo
def hang(host, *args, **kwargs):
    if "hang.test" in str(host):
        time.sleep(60)
    return real(host, *args, **kwargs)
socket.getaddrinfo = hang
from relay.cli import main
main()
"""


async def test_a_name_look_up_that_hangs_does_not_hold_up_the_end(tmp_path: Path):
    """Failure mode 9, at shutdown: a thread in getaddrinfo cannot be cancelled."""
    hanging = {"name": "hang", "url": "https://hang.test/", "secrets": [SECRET], "timeout": "2s"}
    async with Stage(tmp_path, more_targets=[hanging]) as stage:
        stage.relay._command = (sys.executable, "-c", HANGING_NAMES, "run", "-c", str(stage.config))
        await stage.start_relay()
        stage.player(orders=1, rate=10).run_once()
        await until(lambda: stage.receiver.arrivals)
        async with asyncio.timeout(15):
            assert await stage.relay.stop() == 0


@pytest.mark.timeout(90)
async def test_a_healthy_socket_that_forgets_every_second_push_loses_no_end_state(tmp_path: Path):
    """Failure mode 62: push alone is not to be trusted; the sweeps find the rest, without a reconnect."""
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        stage.upstream.faults.drop_every = 2
        await stage.player(orders=15, rate=60).run()
        await stage.until_all_delivered(60)
        assert stage.missing_ends() == []
        assert stage.upstream.state()["upgrades"] == 1
        assert any(arrival.origin == "backfill" for arrival in stage.receiver.arrivals)
        assert await stage.relay.stop() == 0


async def test_a_receiver_that_once_said_gone_gets_everything_after_a_resume(tmp_path: Path):
    async with Stage(tmp_path) as stage:
        await stage.start_relay()
        stage.receiver.misbehaviour.status = 410
        stage.receiver.misbehaviour.fail_until = stage.clock.mono() + 3600
        await stage.player(orders=5, rate=60).run()
        await until(lambda: "target_parked" in (tmp_path / "relay.log").read_text())
        stage.receiver.misbehaviour.fail_until = 0.0
        status = await asyncio.to_thread(run_relay, "status", "-c", str(stage.config))
        assert (status.returncode, "targets resume shop" in status.stdout) == (1, True), status.stdout
        assert len(stage.receiver.arrivals) < 20
        resumed = await asyncio.to_thread(run_relay, "targets", "resume", "shop", "-c", str(stage.config))
        assert resumed.returncode == 0, resumed.stderr
        await stage.until_all_delivered()
        assert stage.verdict().ok
        assert await stage.relay.stop() == 0
