"""docs/scaling.md, "From SQLite to PostgreSQL", done as it is written: nothing is lost, doubled or out of order."""

import asyncio
import json
import sys
from pathlib import Path

import yaml
from stage import Stage
from support.postgres import shared_server
from support.until import until

from relay.simulator.child import RelayProcess, free_port

PASSWORD = "canary-in-the-url"


async def command(*arguments: str) -> tuple[int, str, str]:
    """A `houdini-relay` command."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_moving_in_mid_life_to_two_instances(tmp_path: Path):
    async with shared_server().database() as made, Stage(tmp_path) as stage:
        url = made.replace("postgres@", f"postgres:{PASSWORD}@")  # this server asks for none
        await stage.start_relay()
        player = stage.player(orders=30, rate=60)
        playing = asyncio.create_task(player.run())
        await until(lambda: player.progress > 0.2)
        stage.receiver.misbehaviour.fail_rate = 1.0
        await until(lambda: player.progress > 0.4)
        assert (await command("store", "copy", "-c", str(stage.config), "--to", url))[0] == 3, "it runs"
        assert await stage.relay.stop() == 0
        code, out, err = await command("store", "copy", "-c", str(stage.config), "--to", url, "--json")
        assert code == 0, err
        assert PASSWORD not in out + err
        assert json.loads(out)["rows"]["deliveries"] > 0
        settings = stage.settings() | {"store": {"url": url}}
        stage.config.write_text(yaml.safe_dump(settings))
        await stage.relay.start()
        second = RelayProcess(*second_config(tmp_path, settings))
        await second.start()
        try:
            stage.receiver.misbehaviour.fail_rate = 0.0
            await stage.relay.until_ready()
            await second.until_ready()
            await until(lambda: player.progress > 0.7, 60)
            assert await stage.relay.stop() == 0  # whoever leads: the other one has to go on
            await playing
            await stage.until_all_delivered(60)
        finally:
            await second.stop()
        verdict = stage.verdict()
        assert verdict.ok, "\n".join(verdict.lines())
        code, out, _ = await command("store", "check", "-c", str(stage.config))
        assert (code, out.endswith(": fine\n")) == (0, True)
        said = [(tmp_path / name).read_text() for name in ("relay.log", "second.log")]
        assert all(f"postgresql://postgres@127.0.0.1:{shared_server().port}/" in log for log in said)
        assert PASSWORD not in "".join([*said, out])


def second_config(folder: Path, settings: dict[str, object]) -> tuple[Path, Path, int]:
    port, config = free_port(), folder / "second.yaml"
    config.write_text(yaml.safe_dump(settings | {"admin": {"listen": f"127.0.0.1:{port}"}}))
    return config, folder / "second.log", port
