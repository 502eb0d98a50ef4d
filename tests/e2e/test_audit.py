"""`audit`, `status` and `backfill` against the real process: what went wrong is named, repaired, and then gone."""

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from stage import Stage
from support.until import until

from relay.simulator.faults import Action
from relay.simulator.lifecycle import Kind
from relay.simulator.lifecycle import Stage as OrderStage

FINISHED = OrderStage(4, "SWAP_COMPLETED", 5)
FIVE_MINUTES = 300_000


class Operated(Stage):
    """No periodic sweep, one quick retry, and commands typed beside it."""

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        settings["upstream"]["backfill"]["interval"] = "0s"
        settings["targets"][0]["retry"]["schedule"] = ["100ms"]
        settings["admin"]["token"] = "e2e-admin-token"
        return settings

    async def type(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", *arguments, "-c", str(self.config),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(40):
            out, err = await process.communicate()
        assert b"Traceback" not in err, err.decode()
        return process.returncode or 0, out.decode()

    async def audit(self, *arguments: str) -> tuple[int, list[tuple[str, str, bool]]]:
        code, out = await self.type("audit", "--json", *arguments)
        found = json.loads(out)["differences"]
        return code, [(one["order"], one["kind"], one["repaired"]) for one in found]

    async def status(self) -> dict[str, Any]:
        return json.loads((await self.type("status", "--json"))[1])

    def acknowledged(self, houdini_id: str) -> int:
        return sum(one.houdini_id == houdini_id and one.acknowledged for one in self.receiver.arrivals)


async def test_a_dead_letter_is_named_sent_again_and_then_gone(tmp_path: Path):
    async with Operated(tmp_path) as stage:
        await stage.start_relay()
        stage.receiver.misbehaviour.fail_until = stage.clock.mono() + 3600
        order = stage.world.create(Kind.CEX, FINISHED).houdini_id

        async def is_dead() -> bool:
            return (await stage.status())["targets"][0]["dead"] == 1

        await until(is_dead, pause=0.2)
        stage.receiver.misbehaviour.fail_until = 0.0
        assert await stage.audit() == (1, [(order, "dead", False)])
        code, out = await stage.type("audit", "--target", "shop")
        assert code == 1
        assert "target shop never acknowledged FINISHED" in " ".join(out.split())
        assert await stage.audit("--repair") == (0, [(order, "dead", True)])
        await until(lambda: stage.acknowledged(order) == 1)
        assert await stage.audit() == (0, [])


async def test_an_order_that_the_relay_never_saw_is_named_and_delivered(tmp_path: Path):
    async with Operated(tmp_path) as stage:
        await stage.start_relay()
        order = stage.world.create(Kind.CEX, FINISHED, age_ms=FIVE_MINUTES, announce=False).houdini_id
        assert await stage.audit() == (1, [(order, "unknown_order", False)])
        assert stage.acknowledged(order) == 0
        assert await stage.audit("--since", "1m") == (0, [])
        assert await stage.audit("--repair") == (0, [(order, "unknown_order", True)])
        await until(lambda: stage.acknowledged(order) == 1)
        assert await stage.audit() == (0, [])
        assert stage.verdict().ok


async def test_a_delivery_that_vanished_is_named_and_made_again(tmp_path: Path):
    async with Operated(tmp_path) as stage:
        await stage.start_relay()
        order = stage.world.create(Kind.CEX, FINISHED).houdini_id
        await until(lambda: stage.acknowledged(order) == 1)
        assert await stage.relay.stop() == 0
        with sqlite3.connect(tmp_path / "relay.db") as connection:
            connection.execute("DELETE FROM attempts")
            assert connection.execute("DELETE FROM deliveries").rowcount == 1
        connection.close()
        await stage.start_relay()
        assert await stage.audit("--repair") == (0, [(order, "missing", True)])
        await until(lambda: stage.acknowledged(order) == 2)
        assert len({one.webhook_id for one in stage.receiver.arrivals}) == 1
        assert await stage.audit() == (0, [])


async def test_backfill_brings_what_no_push_brought(tmp_path: Path):
    async with Operated(tmp_path) as stage:
        await stage.start_relay()
        order = stage.world.create(Kind.CEX, FINISHED, age_ms=FIVE_MINUTES, announce=False).houdini_id
        code, out = await stage.type("backfill", "--wait")
        assert (code, "everything that REST shows is known" in out) == (0, True)
        await until(lambda: stage.acknowledged(order) == 1)


async def test_status_of_a_life(tmp_path: Path):
    async with Operated(tmp_path) as stage:
        assert (await stage.type("status"))[0] == 3
        await stage.start_relay()
        code, out = await stage.type("status")
        assert (code, out.splitlines()[0].endswith(": fine")) == (0, True)
        stage.upstream.faults.refuse_count = -1
        await stage.upstream.act(Action.DROP)

        async def down() -> bool:
            return not (await stage.status())["fine"]

        await until(down, pause=0.2)
        document = await stage.status()
        assert document["problems"][0]["subject"] == "upstream"
        assert (await stage.type("status"))[0] == 1
        stage.upstream.faults.refuse_count = 0
        await stage.relay.until_ready()
        assert (await stage.status())["fine"] is True
        assert await stage.relay.stop() == 0
        assert (await stage.type("audit"))[0] == 3
    for name in ("relay.log",):
        assert "e2e-admin-token" not in (tmp_path / name).read_text()
