"""Recognisable secrets in every secret place, everybody they are shown to echoes them, and nobody else ever sees one.

The real process: its log, every answer of its API with the stream, its pages, its store byte for byte, and what
the command line prints.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema
import pytest
import yaml
from canary_kit import CANARIES, ODD, CanaryStage, Echo, found_in, pair
from support.until import until

from relay.admin.openapi import OPERATIONS, openapi_document
from relay.admin.server_sent import StreamReader

ORDERS = 4


class Looker:
    """Looks at everything there is to see, and remembers it."""

    def __init__(self, stage: CanaryStage) -> None:
        self._stage = stage
        self.seen: dict[str, bytes] = {}
        self.listening = asyncio.create_task(asyncio.sleep(0))
        self._session = aiohttp.ClientSession(headers={"authorization": f"Bearer {CANARIES['admin-token']}"})
        self._address = f"http://127.0.0.1:{stage.admin_port}"

    async def close(self) -> None:
        self.listening.cancel()
        await asyncio.gather(self.listening, return_exceptions=True)
        await self._session.close()

    async def ask(self, path: str, method: str = "GET", **sent: Any) -> Any:
        async with self._session.request(method, self._address + path, **sent) as answer:
            body = await answer.read()
            self.seen[f"{method} {path}"] = f"{answer.status} {answer.reason} {dict(answer.headers)}".encode() + body
            return json.loads(body) if answer.content_type == "application/json" else body

    async def listen(self) -> None:
        async with self._session.get(self._address + "/api/v1/stream") as answer:
            async for line in answer.content:
                self.seen["stream"] = self.seen.get("stream", b"") + line

    async def look_at_api(self) -> None:
        """Every GET route, with every id there is; what a person does, too."""
        lists = {kind: (await self.ask(f"/api/v1/{kind}?limit=500"))["items"] for kind in ("events", "deliveries")}
        ids = {
            "events": [one["id"] for one in lists["events"]],
            "deliveries": [one["id"] for one in lists["deliveries"]],
        }
        ids["orders"] = sorted({one["order"] for one in lists["events"] if not one["order"].startswith("relay:")})
        for one in OPERATIONS:
            if one.method == "get" and "{" in one.path:
                kind = one.path.split("/")[3]
                assert ids[kind]
                for key in ids[kind]:
                    await self.ask(one.path.replace("{key}", quote(str(key), safe="")))
            elif one.method == "get" and not one.path.endswith("/stream"):
                await self.ask(one.path)
        for path in ("/", "/deliveries", "/targets/plain", "/nothing/" + CANARIES["admin-token"]):
            await self.ask(path)
        for name in ("plain", "odd", "oauth", "oauth-refused", "proxied-tls", "closed"):
            await self.ask(f"/api/v1/targets/{name}/test", "POST", json={})
        for body in ({"since": CANARIES["admin-token"]}, {"path": "/x/" + CANARIES["admin-token"]}):
            for path in ("/api/v1/audit", "/api/v1/store/backup", "/api/v1/replay"):
                await self.ask(path, "POST", json=body)
        self.deliveries = lists["deliveries"]
        self.events = lists["events"]
        self.orders = ids["orders"]

    async def look_at_commands(self) -> None:
        shown = [
            ("deliveries", "show", str(self.deliveries[number]["id"])) for number in (0, len(self.deliveries) // 2)
        ]
        shown += [("events", "show", self.events[0]["id"]), ("orders", "show", self.orders[0])]
        for command in (("status",), ("targets", "list"), ("deliveries", "list"), ("check",), *shown):
            await self.type(*command)
        for command in (("status",), *shown):
            await self.type(*command, "--json")
        await self.type("targets", "test", "oauth")
        await self.type("audit")

    async def type(self, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", *command, "-c", str(self._stage.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(os.environ),
        )
        out, _ = await process.communicate()
        assert out or process.returncode == 0, command
        self.seen[" ".join(command)] = out

    def look_at_files(self, when: str) -> None:
        for path in self._stage.folder.iterdir():
            if path.is_file() and path != self._stage.config:
                self.seen[f"{path.name} {when}"] = path.read_bytes()


@asynccontextmanager
async def looking(stage: CanaryStage) -> AsyncIterator[Looker]:
    looker = Looker(stage)
    try:
        yield looker
    finally:
        await looker.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_secret_is_ever_seen_by_anybody_else(tmp_path: Path):
    async with Echo() as echo, CanaryStage(tmp_path, echo) as stage, looking(stage) as looker:
        await stage.relay.start()
        await stage.relay.while_alive(until(lambda: answers(looker), 30, pause=0.2))
        looker.listening = asyncio.create_task(looker.listen())
        await until(lambda: in_state(looker, "subscribed"), 30, pause=0.2)
        await stage.player(ORDERS, 20.0).run()
        await until(lambda: every_target_has_failed(looker), 60, pause=0.5)
        await looker.look_at_api()
        await looker.look_at_commands()
        looker.look_at_files("while it runs")
        await stage.relay.stop()
        await looker.listening
        await looker.type("deliveries", "list")
        await looker.type("status")
        # The upstream, too: a handshake that is refused with all that it was told.
        stage.upstream_echoes = True
        stage.config.write_text(yaml.safe_dump(stage.settings()))
        await stage.relay.start()
        await stage.relay.while_alive(until(lambda: answers(looker), 30, pause=0.2))
        before = echo.requests
        await until(lambda: echo.requests > before + 5, 30, pause=0.2)
        for path in ("/api/v1/status", "/readyz", "/metrics", "/"):
            await looker.ask(path)
        await looker.type("status")
        await stage.relay.stop()
        looker.look_at_files("at the end")
        assert_all_was_tried(echo, looker)
        seen = {where: found for where, text in looker.seen.items() if (found := found_in(text))}
        assert seen == {}


async def answers(looker: Looker) -> bool:
    try:
        return bool((await looker.ask("/healthz"))["ok"])
    except aiohttp.ClientError:
        return False


async def in_state(looker: Looker, state: str) -> bool:
    return bool((await looker.ask("/api/v1/status"))["upstream"]["state"] == state)


async def every_target_has_failed(looker: Looker) -> bool:
    targets = (await looker.ask("/api/v1/targets"))["items"]
    return all(one["last_error"] is not None for one in targets)


def assert_all_was_tried(echo: Echo, looker: Looker) -> None:
    """A test that looks for what was never there proves nothing."""
    unheard = {"admin-token"}
    forms_heard = {place for place, value in CANARIES.items() if value.encode() in echo.heard}
    forms_heard |= {"basic-username", "basic-password"} & {
        place for place in CANARIES if pair("basic-username", "basic-password") in echo.heard
    }
    forms_heard |= {"proxy-user", "proxy-password"} & {
        place for place in CANARIES if pair("proxy-user", "proxy-password") in echo.heard
    }
    forms_heard |= {"client-id", "client-secret"} & {
        place for place in CANARIES if pair("client-id", "client-secret") in echo.heard
    }
    encoded = base64.b64encode(f"user:{CANARIES['url-password']}".encode())
    forms_heard |= {"url-password"} if encoded in echo.heard else set()
    refused = base64.b64encode(f"{CANARIES['refused-client']}:{quote(ODD, safe='')}".encode())
    forms_heard |= {"refused-client"} if refused in echo.heard else set()
    assert set(CANARIES) - forms_heard == unheard
    assert {"event", "attempt", "target", "upstream"} <= kinds_that_fit(looker.seen["stream"].decode())
    everything = b"".join(looker.seen.values())
    assert everything.count(b"[redacted]") > 100


def kinds_that_fit(stream: str) -> set[str]:
    """The kinds that were told; every one of them as the OpenAPI document says."""
    kinds, reader = set(), StreamReader()
    components = openapi_document("")["components"]
    for line in stream.splitlines():
        told = reader.read(line)
        if told is not None and told.kind:
            kinds.add(told.kind)
            schema = components["schemas"][f"Stream{told.kind.capitalize()}"] | {"components": components}
            jsonschema.validate(told.data, schema, jsonschema.Draft202012Validator)
    return kinds
