"""SIGHUP to the real process: what changes, what goes on, and that nothing is lost or doubled by it."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from stage import SECRET, Stage
from support.until import until

from relay.simulator.receiver import Receiver

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
RESULTS = ("config_reloaded", "config_refused", "config_unchanged")


class ReloadStage(Stage):
    """A stage whose configuration is written anew."""

    def logged(self, *events: str) -> list[dict[str, Any]]:
        lines = (self.folder / "relay.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] in events]

    async def reload(self, settings: dict[str, Any] | str) -> dict[str, Any]:
        """Write the file, ask for a reload, and return the line that says what came of it."""
        before = len(self.logged(*RESULTS))
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
        await asyncio.to_thread(replace, self.config, text)
        os.kill(self.relay.pid, signal.SIGHUP)
        await until(lambda: len(self.logged(*RESULTS)) > before, 20, pause=0.02)
        return self.logged(*RESULTS)[-1]


def replace(path: Path, text: str) -> None:
    """As a careful editor does: no reader ever sees half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def extra(stage: Stage, name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "url": f"http://127.0.0.1:{stage.receiver.port}/{name}", "secrets": [SECRET], **changes}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_reloads_under_load_lose_and_double_nothing(tmp_path: Path):
    """20 reloads at 200 updates a second; each adds, removes or changes targets. The socket is never dropped."""
    async with ReloadStage(tmp_path) as stage:
        await stage.start_relay()
        playing = asyncio.create_task(stage.player(orders=300, rate=200).run())
        for turn in range(20):
            settings = stage.settings()
            shop = settings["targets"][0]
            shop |= {"concurrency": 4 + turn, "timeout": f"{5 + turn % 3}s"}
            if turn % 3 == 0:
                shop["secrets"] = [OTHER_SECRET, SECRET]
            if turn % 2:
                settings["targets"] += [extra(stage, f"extra-{turn % 4}", concurrency=1 + turn % 5)]
            if turn % 5 == 4:
                settings["upstream"]["backfill"] |= {"interval": f"{3 + turn}s"}
            assert (await stage.reload(settings))["event"] == "config_reloaded"
        await playing
        await stage.until_all_delivered(60)
        verdict = stage.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        assert len(stage.world.epochs) == 1
        assert {one.target for one in stage.receiver.arrivals} == {"shop", "extra-1", "extra-3"}
        assert await stage.relay.stop() == 0
    assert len(stage.logged("config_reloaded")) == 20
    log = (tmp_path / "relay.log").read_text()
    assert not [secret for secret in (SECRET, OTHER_SECRET, "e2e-upstream-secret") if secret in log]


async def test_a_bad_file_changes_nothing_and_a_good_one_after_it_does(tmp_path: Path):
    """Failure mode 116: half a file, an unreadable secret, a certificate that is none, a key that needs a restart."""
    async with ReloadStage(tmp_path) as stage, AsyncExitStack() as ending:
        await stage.start_relay()
        stranger = Receiver([SECRET], clock=stage.clock, rng=stage.rng)
        ending.push_async_callback(stranger.stop)
        await stranger.start()
        good, gone = stage.settings(), tmp_path / "gone"
        elsewhere = f"http://127.0.0.1:{stranger.port}/shop"
        bad: dict[str, dict[str, Any] | str] = {
            "cannot be read as YAML": "upstream: [",
            "targets[1].secrets[0]: file": good
            | {
                "targets": [good["targets"][0] | {"url": elsewhere}, extra(stage, "new", secrets=[{"file": str(gone)}])]
            },
            "targets.shop: tls.ca_file": good
            | {"targets": [good["targets"][0] | {"url": "https://127.0.0.1:1/", "tls": {"ca_file": str(gone)}}]},
            "admin.listen: this changes with a restart only": good
            | {"targets": [good["targets"][0] | {"url": elsewhere}], "admin": {"listen": "127.0.0.1:1"}},
        }
        for words, settings in bad.items():
            line = await stage.reload(settings)
            assert line["event"] == "config_refused", words
            if words != "cannot be read as YAML":
                assert words in line["problems"][0]
        await stage.player(orders=3, rate=40).run()
        await stage.until_all_delivered()
        assert not stranger.arrivals
        good["targets"][0]["url"] = elsewhere
        line = await stage.reload(good)
        assert (line["event"], line["changed"]) == ("config_reloaded", ["targets.shop.url"])
        await stage.player(orders=3, rate=40).run()
        await until(lambda: stranger.arrivals)
        assert await stage.relay.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_hundred_reloads_leave_nothing_behind(tmp_path: Path):
    """Descriptors and threads are as many as before; a signal while it stops is safe."""
    async with ReloadStage(tmp_path) as stage:
        await stage.start_relay()
        await stage.player(orders=3, rate=40).run()
        await stage.until_all_delivered()
        settings = stage.settings()

        async def reloaded(times: int) -> tuple[int, int]:
            for turn in range(times):
                settings["targets"][0]["timeout"] = f"{5 + turn % 2}s"
                settings["targets"][1:] = [extra(stage, f"t{turn % 7}")]
                await stage.reload(settings)
                await stage.player(orders=1, rate=500).run()
            await stage.until_all_delivered()
            process = psutil.Process(stage.relay.pid)
            return process.num_fds(), process.num_threads()

        descriptors, threads = await reloaded(10)
        after = await reloaded(100)
        assert after[0] <= descriptors + 8
        assert after[1] <= max(threads, 64 + 20)
        os.kill(stage.relay.pid, signal.SIGTERM)
        for _ in range(50):
            try:
                os.kill(stage.relay.pid, signal.SIGHUP)
            except ProcessLookupError:
                break
            await asyncio.sleep(0.01)
        assert await stage.relay.stop() == 0
